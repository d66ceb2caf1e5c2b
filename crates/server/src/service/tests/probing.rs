//! Probes by command: how many an endpoint and a host get.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookturn_core::endpoint::{Endpoint, Preset};
use hookturn_core::id::EndpointId;
use hookturn_core::limits;
use hookturn_core::proof::{Findings, ProbeKey, ProofPolicy, Release};
use hookturn_core::time::{Clock as _, HOUR, Millis, SECOND, Timestamp};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::ServiceError;
use super::super::endpoints::NewEndpoint;
use super::super::proving::{ProbeFuture, Prober};
use super::super::rotation::{ModeName, NewRotation};
use super::super::testing::{Bench, HandClock, endpoint_input};
use crate::courier::Probed;

/// A receiver that answers whatever it is asked with this status.
struct Answers(u16, Timestamp);

impl Prober for Answers {
    fn probe<'a>(&'a self, _: &'a Endpoint, _: &'a [ProbeKey]) -> ProbeFuture<'a> {
        let probed = Probed {
            sent_at: self.1,
            status: Some(self.0),
            failure: None,
        };
        Box::pin(async move { Ok(probed) })
    }
}

/// An endpoint that accepted something before.
async fn contacted(bench: &Bench) -> Endpoint {
    let app = bench.app().await;
    let input = NewEndpoint {
        preset: Preset::Hopae,
        ..endpoint_input()
    };
    let made = bench
        .service
        .create_endpoint(&bench.owner, app, input, None);
    let endpoint = made.await.unwrap().endpoint;
    let tested_at = Some(bench.service.now());
    bench
        .live
        .find(endpoint.id, |known| Findings { tested_at, ..known });
    endpoint
}

async fn rehearse(bench: &Bench, endpoint: EndpointId) -> Result<usize, Millis> {
    let prober = Answers(200, bench.service.now());
    let asked = bench
        .service
        .rehearse(&bench.owner, endpoint, &prober, None);
    match asked.await {
        Ok(report) => Ok(report.asked.len()),
        Err(ServiceError::ProbesUsedUp { wait_millis, .. }) => Err(wait_millis),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn g10_rehearsals_of_an_endpoint_have_the_budget_of_an_hour() {
    let bench = Bench::new().await;
    let (endpoint, other) = (contacted(&bench).await, contacted(&bench).await);
    let (mut sent, mut seconds) = (0, 0);
    let wait = loop {
        match rehearse(&bench, endpoint.id).await {
            Ok(asked) => sent += asked,
            Err(wait) => break wait,
        }
        // So that the host has room.
        bench.clock.advance(SECOND);
        seconds += 1;
    };
    // As many as are sure to be enough for a whole one must be left.
    let most = limits::COMMANDED_PROBES_PER_HOUR as usize;
    assert!((most - 6..=most).contains(&sent), "{sent}");
    assert_eq!(wait, HOUR - seconds * SECOND);
    assert!(rehearse(&bench, other.id).await.is_ok(), "it has its own");
    bench.clock.advance(wait);
    assert!(rehearse(&bench, endpoint.id).await.is_ok());
}

#[tokio::test]
async fn whoever_refuses_the_current_secret_may_hold_the_pending_one() {
    let bench = Bench::new().await;
    let endpoint = contacted(&bench).await;
    let consequence = async || {
        let prober = Answers(401, bench.service.now());
        let asked = bench
            .service
            .rehearse(&bench.owner, endpoint.id, &prober, None);
        let report = asked.await.unwrap();
        bench.clock.advance(SECOND);
        report.rehearsed.consequence(report.is_pending)
    };
    let before = consequence().await;
    assert!(before.starts_with("nothing can be proved"), "{before}");
    let input = NewRotation {
        mode: ModeName::Staged,
        overlap: None,
        deadline_at: None,
        policy: None,
        name: None,
        value: None,
        reason: None,
    };
    let opened = bench
        .service
        .open_rotation(&bench.owner, endpoint.keyring, input, None, None);
    opened.await.unwrap();
    let staged = consequence().await;
    assert!(
        staged.starts_with("the receiver may hold the pending secret already"),
        "{staged}"
    );
}

#[tokio::test]
async fn g10_rehearsals_count_every_probe_to_their_host() {
    let bench = Bench::new().await;
    let endpoint = contacted(&bench).await;
    let mut sent = 0;
    // The clock stands still, and two probes at a time are as many as a second has room for in the end.
    let wait = loop {
        match rehearse(&bench, endpoint.id).await {
            Ok(asked) => sent += asked,
            Err(wait) => break wait,
        }
    };
    assert_eq!(
        (sent, wait),
        (limits::PROBES_PER_HOST_SECOND as usize, SECOND)
    );
    bench.clock.advance(wait);
    assert_eq!(rehearse(&bench, endpoint.id).await, Ok(2));
}

#[tokio::test]
async fn g10_asking_whether_a_secret_is_released_has_the_same_budget() {
    let bench = Bench::new().await;
    let endpoint = contacted(&bench).await;
    let input = NewRotation {
        mode: ModeName::Overlap,
        overlap: Some(10 * HOUR),
        deadline_at: None,
        policy: None,
        name: None,
        value: None,
        reason: None,
    };
    let opened = bench
        .service
        .open_rotation(&bench.owner, endpoint.keyring, input, None, None);
    let rotation = opened.await.unwrap().rotation.id;
    let ask = async || {
        let prober = Answers(200, bench.service.now());
        let asked = bench
            .service
            .ask_released(&bench.owner, rotation, None, &prober, None);
        asked.await
    };
    let logged = async || {
        let log = bench.service.audit_block(&bench.owner, 0).await.unwrap();
        log.len()
    };
    for _ in 0..limits::COMMANDED_PROBES_PER_HOUR {
        let report = ask().await.unwrap();
        assert!(matches!(
            report.endpoints[0].release,
            Release::StillAccepts { .. }
        ));
        bench.clock.advance(SECOND);
    }
    let last = logged().await;
    let refused = ask().await.unwrap_err();
    let ServiceError::ProbesUsedUp { wait_millis, .. } = refused else {
        panic!("{refused}");
    };
    let passed = u64::from(limits::COMMANDED_PROBES_PER_HOUR) * SECOND;
    assert_eq!(wait_millis, HOUR - passed);
    assert_eq!(
        logged().await,
        last,
        "nothing was signed, so nothing is logged"
    );
    bench.clock.advance(wait_millis);
    assert_eq!(ask().await.unwrap().tally(), (0, 1));
}

/// Receivers of which some never answer, and what was asked of the others.
struct SomeHang {
    hanging: HashSet<EndpointId>,
    clock: Arc<HandClock>,
    asked: Mutex<HashMap<EndpointId, usize>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

impl SomeHang {
    fn asked(&self, endpoint: EndpointId) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.get(&endpoint).copied().unwrap_or_default()
    }
}

impl Prober for SomeHang {
    fn probe<'a>(&'a self, endpoint: &'a Endpoint, _: &'a [ProbeKey]) -> ProbeFuture<'a> {
        Box::pin(async move {
            *self.asked.lock().unwrap().entry(endpoint.id).or_default() += 1;
            let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_open.fetch_max(open, Ordering::SeqCst);
            let sent_at = self.clock.now();
            let hangs = self.hanging.contains(&endpoint.id);
            let takes = Duration::from_millis(if hangs { 15_000 } else { 5 });
            tokio::time::sleep(takes).await;
            self.open.fetch_sub(1, Ordering::SeqCst);
            Ok(Probed {
                sent_at,
                status: (!hangs).then_some(401),
                failure: hangs.then(|| "timed out".to_owned()),
            })
        })
    }
}

/// Looks every 250 ms for so long.
async fn sweep(bench: &Bench, prober: &Arc<SomeHang>, probes: &mut JoinSet<()>, span: Millis) {
    let dynamic: Arc<dyn Prober> = Arc::<SomeHang>::clone(prober);
    for _ in 0..span / 250 {
        while probes.try_join_next().is_some() {}
        bench
            .service
            .prove_rotations(&dynamic, probes)
            .await
            .unwrap();
        bench.clock.advance(250);
        tokio::time::advance(Duration::from_millis(250)).await;
        // The tasks that were woken.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn g10_receivers_that_hang_do_not_starve_another_at_their_host() {
    let bench = Bench::new().await;
    let policy = ProofPolicy {
        probe_every_millis: SECOND,
        probe_back_off_max_millis: 5 * SECOND,
        ..ProofPolicy::default()
    };
    let mut endpoints = Vec::new();
    for _ in 0..7 {
        let endpoint = contacted(&bench).await;
        let input = NewRotation {
            mode: ModeName::Proven,
            overlap: None,
            deadline_at: None,
            policy: Some(policy),
            name: None,
            value: None,
            reason: None,
        };
        let opened = bench
            .service
            .open_rotation(&bench.owner, endpoint.keyring, input, None, None);
        opened.await.unwrap();
        endpoints.push(endpoint.id);
    }
    let healthy = endpoints.pop().unwrap();
    let prober = Arc::new(SomeHang {
        hanging: endpoints.iter().copied().collect(),
        clock: Arc::clone(&bench.clock),
        asked: Mutex::default(),
        open: AtomicUsize::new(0),
        most_open: AtomicUsize::new(0),
    });
    tokio::time::pause();
    let mut probes = JoinSet::new();
    sweep(&bench, &prober, &mut probes, 30 * SECOND).await;
    let first = prober.asked(healthy);
    assert!(first > 0, "it was asked within half a minute");
    sweep(&bench, &prober, &mut probes, 90 * SECOND).await;
    let later = prober.asked(healthy);
    assert!(later >= first + 12, "{first} and then {later}");
    for hanging in &endpoints {
        assert!(prober.asked(*hanging) > 0, "each has its turn");
    }
    assert!(prober.most_open.load(Ordering::SeqCst) <= 4);
    // A rehearsal of the healthy one passes those that hang.
    let rehearsed = bench
        .service
        .rehearse(&bench.owner, healthy, prober.as_ref(), None);
    tokio::time::resume();
    assert!(rehearsed.await.is_ok());
}

#[tokio::test]
async fn g10_a_rehearsal_waits_for_its_turn_and_says_what_it_waited_for() {
    let bench = Bench::new().await;
    let endpoint = contacted(&bench).await.id;
    let prober = SomeHang {
        hanging: HashSet::from([endpoint]),
        clock: Arc::clone(&bench.clock),
        asked: Mutex::default(),
        open: AtomicUsize::new(0),
        most_open: AtomicUsize::new(0),
    };
    tokio::time::pause();
    let began = Instant::now();
    let rehearse = |endpoint| {
        bench
            .service
            .rehearse(&bench.owner, endpoint, &prober, None)
    };
    let refused = tokio::select! {
        // It asks three times, each for 15 seconds.
        _ = rehearse(endpoint) => panic!("it hangs"),
        refused = async {
            while prober.asked(endpoint) == 0 {
                tokio::task::yield_now().await;
            }
            rehearse(endpoint).await.unwrap_err()
        } => refused,
    };
    let ServiceError::Conflict { code, message } = refused else {
        panic!("{refused}");
    };
    assert_eq!(code, "probe_under_way");
    let what = "a probe to this receiver is under way";
    assert!(message.contains(what), "{message}");
    assert!(began.elapsed() >= Duration::from_secs(30));
}

//! Probes by command: how many an endpoint and a host get.

use hookturn_core::endpoint::{Endpoint, Preset};
use hookturn_core::id::EndpointId;
use hookturn_core::limits;
use hookturn_core::proof::{Findings, ProbeKey, Release};
use hookturn_core::time::{HOUR, Millis, SECOND, Timestamp};

use super::super::ServiceError;
use super::super::endpoints::NewEndpoint;
use super::super::proving::{ProbeFuture, Prober};
use super::super::rotation::{ModeName, NewRotation};
use super::super::testing::{Bench, endpoint_input};
use crate::courier::Probed;

/// A receiver that accepts whatever it is asked.
struct Accepts(Timestamp);

impl Prober for Accepts {
    fn probe<'a>(&'a self, _: &'a Endpoint, _: &'a [ProbeKey]) -> ProbeFuture<'a> {
        let probed = Probed {
            sent_at: self.0,
            status: Some(200),
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
    let prober = Accepts(bench.service.now());
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
        let prober = Accepts(bench.service.now());
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

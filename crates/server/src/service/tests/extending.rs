//! The end of an old secret that is still needed moves in time, however short the extension and however silent the
//! receiver.

use std::sync::Arc;

use hookturn_core::audit::AuditAction;
use hookturn_core::endpoint::Endpoint;
use hookturn_core::proof::{Evidence, Findings, Observed, ProbeAnswer, ProbeKey, ProofPolicy};
use hookturn_core::rotation::{Rotation, Stage};
use hookturn_core::store::{ReceiverState, Store as _};
use hookturn_core::time::{Millis, SECOND, Timestamp};
use tokio::task::JoinSet;

use super::super::proving::{ProbeFuture, Prober};
use super::super::rotation::{ModeName, NewRotation};
use super::super::testing::Bench;

/// Time between two sweeps.
const SWEEP: Millis = SECOND / 4;
const DEADLINE: Millis = 16 * SECOND;
const EXTEND: Millis = 4 * SECOND;

/// The probes of an hour are used up: nothing is stirred by an answer.
struct Silent;

impl Prober for Silent {
    fn probe<'a>(&'a self, _: &'a Endpoint, _: &'a [ProbeKey]) -> ProbeFuture<'a> {
        unreachable!("its probes are used up")
    }
}

fn policy() -> ProofPolicy {
    ProofPolicy {
        hold_down_millis: 0,
        quiet_millis: 6 * SECOND,
        deadline_millis: DEADLINE,
        extend_millis: EXTEND,
        probes_per_hour: 1,
        ..ProofPolicy::default()
    }
}

/// A rotation that was promoted by force, whose receiver refused the new secret. When it was opened is there too.
async fn promoted(bench: &Bench) -> (Rotation, Timestamp) {
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let endpoint = bench.endpoint(app).await.endpoint;
    let opened_at = service.now();
    let receiver = ReceiverState {
        accepted_at: Some(opened_at),
        ..ReceiverState::default()
    };
    let receivers = vec![(owner.workspace, endpoint.id, receiver)];
    bench.store.finish(Vec::new(), receivers).await.unwrap();
    let proven = NewRotation {
        mode: ModeName::Proven,
        overlap: None,
        policy: Some(policy()),
        deadline_at: None,
        name: None,
        value: None,
        reason: None,
    };
    let opened = service.open_rotation(owner, endpoint.keyring, proven, None, None);
    let rotation = opened.await.unwrap().rotation;
    let evidence = Evidence::new(rotation.id);
    let evidence = evidence.after(&policy(), Observed::Probe, ProbeAnswer::Refused, opened_at);
    bench.live.find(endpoint.id, |known| Findings {
        evidence: Some(evidence),
        ..known
    });
    let promoted = service.promote_rotation(owner, rotation.id, true, None, None);
    promoted.await.unwrap();
    (rotation, opened_at)
}

async fn sweep(bench: &Bench) {
    let prober: Arc<dyn Prober> = Arc::new(Silent);
    let mut probes = JoinSet::new();
    let moved = bench.service.prove_rotations(&prober, &mut probes).await;
    moved.unwrap();
    assert!(probes.is_empty());
}

fn end(bench: &Bench, rotation: &Rotation) -> Option<Timestamp> {
    let keyring = bench.live.keyring(rotation.keyring)?;
    match keyring.open_rotation(bench.service.now())?.stage {
        Stage::Overlap { retire_at } => Some(retire_at),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn g6_an_end_moves_however_short_the_extension_and_silent_the_receiver() {
    // Whenever the looks of every few seconds fall.
    for late in [0, 700, 1_900, 3_300] {
        let bench = Bench::new().await;
        let (rotation, opened_at) = promoted(&bench).await;
        bench.clock.advance(late);
        let mut ends = Vec::new();
        while bench.service.now() < opened_at.after(3 * DEADLINE) {
            sweep(&bench).await;
            let Some(end) = end(&bench, &rotation) else {
                panic!("{late}: the old secret went after {ends:?}");
            };
            if ends.last() != Some(&end) {
                ends.push(end);
            }
            bench.clock.advance(SWEEP);
        }
        let steps = ends.windows(2).map(|pair| pair[1].since(pair[0]));
        assert_eq!(ends[0], opened_at.after(DEADLINE));
        assert!(steps.clone().all(|step| step == EXTEND), "{ends:?}");
        // From half an extension before the first end on, once for each.
        let moves = (2 * DEADLINE + EXTEND / 2).div_ceil(EXTEND);
        assert_eq!(steps.count(), usize::try_from(moves).unwrap(), "{ends:?}");
        let log = bench.store.audit_log(bench.owner.workspace, 0, 1_000).await;
        let log = log.unwrap();
        let said = |action| {
            let entries = log.iter();
            entries
                .filter(|recorded| recorded.entry.action == action)
                .count()
        };
        assert_eq!(said(AuditAction::RotationExtended), ends.len() - 1);
        assert_eq!(said(AuditAction::RotationDeadlineNear), ends.len() - 1);
    }
}

#[tokio::test]
async fn g6_a_server_that_was_away_until_shortly_before_the_end_moves_it() {
    let bench = Bench::new().await;
    let (rotation, opened_at) = promoted(&bench).await;
    bench.clock.advance(DEADLINE - 100);
    sweep(&bench).await;
    let later = opened_at.after(DEADLINE + EXTEND);
    assert_eq!(end(&bench, &rotation), Some(later));
    // One that is away for longer than that finds it gone, and brings nothing back (G4).
    bench.clock.advance(EXTEND + 100);
    sweep(&bench).await;
    assert_eq!(end(&bench, &rotation), None);
}

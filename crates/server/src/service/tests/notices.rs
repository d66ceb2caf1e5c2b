//! What is said about rotations is said once, whoever looks.

use hookturn_core::audit::AuditAction;
use hookturn_core::proof::ProofPolicy;
use hookturn_core::store::{ReceiverState, Store as _};
use hookturn_core::time::{DAY, HOUR};

use super::super::rotation::{ModeName, NewRotation};
use super::super::testing::Bench;

#[tokio::test]
async fn sweeps_that_note_at_once_say_it_once() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let endpoint = bench.endpoint(app).await.endpoint;
    let receiver = ReceiverState {
        accepted_at: Some(service.now()),
        ..ReceiverState::default()
    };
    let receivers = vec![(owner.workspace, endpoint.id, receiver)];
    bench.store.finish(Vec::new(), receivers).await.unwrap();
    let proven = NewRotation {
        mode: ModeName::Proven,
        overlap: None,
        policy: Some(ProofPolicy::default()),
        deadline_at: None,
        name: None,
        value: None,
        reason: None,
    };
    let opened = service.open_rotation(owner, endpoint.keyring, proven, None, None);
    opened.await.unwrap();
    // Near its deadline, and without progress for long: both are to be said, and all of them see it
    // before any of them has said it.
    bench.clock.advance(13 * DAY + 12 * HOUR);
    let noted = tokio::join!(
        service.note_rotations(),
        service.note_rotations(),
        service.note_rotations()
    );
    for noted in [noted.0, noted.1, noted.2] {
        noted.unwrap();
    }
    for action in [
        AuditAction::RotationDeadlineNear,
        AuditAction::RotationStalled,
    ] {
        let log = bench.store.audit_log(owner.workspace, 0, 1_000).await;
        let log = log.unwrap();
        let said = log
            .iter()
            .filter(|recorded| recorded.entry.action == action);
        assert_eq!(said.count(), 1, "{action}");
    }
}

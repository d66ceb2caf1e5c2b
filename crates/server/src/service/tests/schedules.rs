//! Schedules carried out: when they open, for whom, once, and why not.

use hookturn_core::audit::{AuditAction, Recorded};
use hookturn_core::id::{EndpointId, KeyringId, ScheduleId};
use hookturn_core::proof::{Finding, ProofPolicy, Rehearsed};
use hookturn_core::receiver::ReceiverClass;
use hookturn_core::rotation::{Mode, Rotation, Stage};
use hookturn_core::schedule::{Blocked, Selector, Timing, Zone};
use hookturn_core::store::{ReceiverState, Store as _};
use hookturn_core::time::{DAY, HOUR, MINUTE};
use hookturn_core::workspace::{RevealPolicy, Scope};

use super::super::endpoints::{EndpointPatch, KeyringChoice, NewEndpoint, Switch};
use super::super::keyrings::NewSecretInput;
use super::super::rotation::{ModeName, NewRotation};
use super::super::schedules::{NewSchedule, SchedulePatch, ShownSchedule};
use super::super::testing::{Bench, endpoint_input, first_page};
use super::super::workspaces::WorkspacePatch;
use super::super::{Caller, ServiceError};

/// Every 30 days, for all of the workspace.
pub(super) fn monthly() -> NewSchedule {
    NewSchedule {
        name: "monthly".to_owned(),
        selector: Selector::Workspace,
        timing: Timing::Age { days: 30 },
        zone: Zone::UTC,
        jitter_seconds: 0,
        weekly_blackouts: Vec::new(),
        date_blackouts: Vec::new(),
        policy: ProofPolicy::default(),
        paused: false,
    }
}

async fn make(bench: &Bench, input: NewSchedule) -> ShownSchedule {
    let made = bench.service.create_schedule(&bench.owner, input, None);
    made.await.unwrap()
}

async fn show(bench: &Bench, id: ScheduleId) -> ShownSchedule {
    bench.service.schedule(&bench.owner, id).await.unwrap()
}

/// An endpoint that accepted something now.
async fn contacted(bench: &Bench) -> (EndpointId, KeyringId) {
    let app = bench.app().await;
    let endpoint = bench.endpoint(app).await.endpoint;
    contact(bench, endpoint.id).await;
    (endpoint.id, endpoint.keyring)
}

async fn contact(bench: &Bench, endpoint: EndpointId) {
    let receiver = ReceiverState {
        accepted_at: Some(bench.service.now()),
        ..ReceiverState::default()
    };
    let receivers = vec![(bench.owner.workspace, endpoint, receiver)];
    bench.store.finish(Vec::new(), receivers).await.unwrap();
}

fn open_rotation(bench: &Bench, keyring: KeyringId) -> Option<Rotation> {
    let keyring = bench.live.keyring(keyring).unwrap();
    assert_eq!(keyring.check(), Ok(()));
    keyring.open_rotation(bench.service.now()).cloned()
}

async fn sweep(bench: &Bench) -> usize {
    bench.service.open_scheduled().await.unwrap()
}

async fn logged(bench: &Bench, action: AuditAction) -> Vec<Recorded> {
    let log = bench.store.audit_log(bench.owner.workspace, 0, 1_000).await;
    let mut log = log.unwrap();
    log.retain(|entry| entry.entry.action == action);
    log
}

#[tokio::test]
async fn g7_a_due_rotation_is_opened_once_in_mode_proven_and_never_promoted() {
    let bench = Bench::new().await;
    let (_, keyring) = contacted(&bench).await;
    let made = make(&bench, monthly()).await;
    let due = bench.service.now().after(30 * DAY);
    let dues: Vec<_> = made
        .openings
        .iter()
        .map(|(_, opening)| opening.due)
        .collect();
    let wanted: Vec<_> = (0..5).map(|months| due.after(months * 30 * DAY)).collect();
    assert_eq!((made.keyrings, dues), (1, wanted));
    bench.clock.advance(30 * DAY - 1);
    assert_eq!(sweep(&bench).await, 0);
    bench.clock.advance(1);
    assert_eq!(sweep(&bench).await, 1);
    let rotation = open_rotation(&bench, keyring).unwrap();
    let policy = ProofPolicy::default();
    assert_eq!(
        (rotation.mode, rotation.stage),
        (Mode::Proven { policy }, Stage::Staged)
    );
    assert_eq!(
        rotation.reason,
        Some(format!("schedule {}", made.schedule.id))
    );
    let opened = logged(&bench, AuditAction::RotationOpened).await;
    assert_eq!(opened.len(), 1);
    assert_eq!(
        opened[0].entry.detail["schedule"],
        made.schedule.id.to_string()
    );
    assert_eq!(opened[0].entry.detail["dueAt"], due.to_string());
    // The new value can be had where it is deployed, and nowhere else.
    let revealed = bench
        .service
        .reveal_secret(&bench.owner, keyring, rotation.to)
        .await;
    let value = revealed.unwrap().value;
    let disk = bench.disk().await;
    let needle = value.expose().as_bytes();
    assert!(
        !disk.windows(needle.len()).any(|window| window == needle),
        "on disk"
    );
    // The owner does not want it: not again for this time, whatever the clock does.
    let cancel = bench
        .service
        .cancel_rotation(&bench.owner, rotation.id, None, None);
    cancel.await.unwrap();
    for step in [MINUTE, HOUR, 20 * DAY] {
        bench.clock.advance(step);
        assert_eq!(sweep(&bench).await, 0);
    }
    bench.clock.advance(10 * DAY);
    assert_eq!(sweep(&bench).await, 1);
    let shown = show(&bench, made.schedule.id).await;
    assert_eq!(shown.opened[0].1.due, due.after(30 * DAY));
    assert!(
        logged(&bench, AuditAction::RotationPromoted)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn g5_sweeps_at_the_same_time_open_one_rotation() {
    let bench = Bench::new().await;
    contacted(&bench).await;
    make(&bench, monthly()).await;
    bench.clock.advance(30 * DAY);
    let sweeps = (0..16).map(|_| {
        let service = std::sync::Arc::clone(&bench.service);
        tokio::spawn(async move { service.open_scheduled().await })
    });
    for sweep in sweeps.collect::<Vec<_>>() {
        sweep.await.unwrap().unwrap();
    }
    assert_eq!(logged(&bench, AuditAction::RotationOpened).await.len(), 1);
}

#[tokio::test]
async fn a_secret_that_an_undo_keeps_is_not_thrown_away_by_a_schedule() {
    let bench = Bench::new().await;
    let (_, keyring) = contacted(&bench).await;
    let weekly = NewSchedule {
        timing: Timing::Age { days: 7 },
        ..monthly()
    };
    let made = make(&bench, weekly).await.schedule.id;
    let overlap = NewRotation {
        mode: ModeName::Overlap,
        overlap: Some(30 * DAY),
        policy: None,
        deadline_at: None,
        name: None,
        value: None,
        reason: None,
    };
    let (service, owner) = (&bench.service, &bench.owner);
    let opened = service.open_rotation(owner, keyring, overlap, None, None);
    let id = opened.await.unwrap().rotation.id;
    service.undo_rotation(owner, id, None, None).await.unwrap();
    let kept = bench.live.keyring(keyring).unwrap();
    bench.clock.advance(8 * DAY);
    sweep(&bench).await;
    assert_eq!(*bench.live.keyring(keyring).unwrap(), *kept);
    let skipped = show(&bench, made).await.skipped;
    assert_eq!(skipped[0].1.why, Blocked::RotationOpen);
    // When nothing is live any more that somebody may hold, it is opened.
    bench.clock.advance(23 * DAY);
    sweep(&bench).await;
    assert!(open_rotation(&bench, keyring).is_some());
}

#[tokio::test]
async fn what_cannot_be_proved_is_skipped_with_its_reason_and_tried_again() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoint = bench.endpoint(app).await.endpoint;
    let made = make(&bench, monthly()).await.schedule.id;
    let due = bench.service.now().after(30 * DAY);
    bench.clock.advance(31 * DAY);
    let skipped = async || {
        sweep(&bench).await;
        assert_eq!(open_rotation(&bench, endpoint.keyring), None);
        let shown = show(&bench, made).await;
        assert!(shown.openings.is_empty(), "{:?}", shown.openings);
        let [(keyring, skipped)] = shown.skipped[..] else {
            panic!("{shown:?}");
        };
        assert_eq!((keyring, skipped.due), (endpoint.keyring, due));
        bench.clock.advance(MINUTE);
        skipped.why
    };
    assert_eq!(skipped().await, Blocked::NeverContacted);
    assert_eq!(skipped().await, Blocked::NeverContacted);
    contact(&bench, endpoint.id).await;
    let switch = async |state| {
        let patch = EndpointPatch {
            state: Some(state),
            ..EndpointPatch::default()
        };
        let patched =
            bench
                .service
                .patch_endpoint(&bench.owner, app, endpoint.id, patch, None, None);
        patched.await.unwrap();
    };
    switch(Switch::Disabled).await;
    assert_eq!(skipped().await, Blocked::EndpointNotEnabled);
    switch(Switch::Enabled).await;
    let reveal = async |policy| {
        let patch = WorkspacePatch {
            reveal_secrets: Some(policy),
            ..WorkspacePatch::default()
        };
        let workspace = bench.owner.workspace;
        let patched = bench
            .service
            .patch_workspace(&bench.owner, workspace, patch, None, None);
        patched.await.unwrap();
    };
    reveal(RevealPolicy::Never).await;
    assert_eq!(skipped().await, Blocked::RevealDisabled);
    reveal(RevealPolicy::Allowed).await;
    let rehearsed = |class| {
        let finding = Finding {
            class,
            throws: false,
            refused_current: false,
            odd_status: None,
        };
        let at = bench.service.now();
        bench.live.find(endpoint.id, |known| {
            known.after_rehearsal(Rehearsed {
                finding,
                at,
                doubted_at: None,
            })
        });
    };
    rehearsed(ReceiverClass::DoesNotVerify);
    assert_eq!(skipped().await, Blocked::DoesNotVerify);
    rehearsed(ReceiverClass::Single);
    // Each reason was said once, with its words.
    let said = logged(&bench, AuditAction::ScheduleSkipped).await;
    let reasons: Vec<_> = said
        .iter()
        .map(|entry| &entry.entry.detail["why"][..])
        .collect();
    assert_eq!(
        reasons,
        [
            "never_contacted",
            "endpoint_not_enabled",
            "reveal_disabled",
            "does_not_verify"
        ]
    );
    assert!(said[0].entry.detail["words"].contains("test event"));
    assert_eq!(sweep(&bench).await, 1);
    let rotation = open_rotation(&bench, endpoint.keyring).unwrap();
    assert!(matches!(rotation.mode, Mode::Proven { .. }));
    let shown = show(&bench, made).await;
    assert!(shown.skipped.is_empty());
    assert_eq!(shown.opened[0].1.rotation, rotation.id);
    // The next one is due while this one is open.
    bench.clock.advance(30 * DAY);
    sweep(&bench).await;
    let shown = show(&bench, made).await;
    assert_eq!(shown.skipped[0].1.why, Blocked::RotationOpen);
    assert_eq!(
        open_rotation(&bench, endpoint.keyring).unwrap().id,
        rotation.id
    );
}

#[tokio::test]
async fn a_shared_keyring_is_opened_when_one_of_its_endpoints_can_prove_it() {
    let bench = Bench::new().await;
    let workspace = bench.live.workspace(bench.owner.workspace).unwrap();
    let shared = workspace.shared_keyring;
    let schedule = NewSchedule {
        selector: Selector::Keyring { keyring: shared },
        ..monthly()
    };
    // A keyring that never had a secret signs for nobody.
    assert_eq!(make(&bench, schedule.clone()).await.keyrings, 0);
    let secret = NewSecretInput::default();
    let made = bench
        .service
        .create_secret(&bench.owner, shared, secret, None, None);
    made.await.unwrap();
    let made = make(&bench, schedule).await;
    assert_eq!(made.keyrings, 1);
    bench.clock.advance(30 * DAY);
    sweep(&bench).await;
    let shown = show(&bench, made.schedule.id).await;
    assert_eq!(shown.skipped[0].1.why, Blocked::NothingToProve);
    let app = bench.app().await;
    let input = NewEndpoint {
        keyring: KeyringChoice::Shared,
        ..endpoint_input()
    };
    let user = bench
        .service
        .create_endpoint(&bench.owner, app, input, None)
        .await;
    contact(&bench, user.unwrap().endpoint.id).await;
    bench.clock.advance(MINUTE);
    // Two schedules are for it; one of them opens it, for the other a rotation is open.
    sweep(&bench).await;
    assert!(open_rotation(&bench, shared).is_some());
    assert_eq!(logged(&bench, AuditAction::RotationOpened).await.len(), 1);
}

#[tokio::test]
async fn many_that_are_due_at_once_are_opened_a_bounded_number_at_a_time() {
    const MANY: usize = 130;
    let bench = Bench::new().await;
    for _ in 0..MANY.div_ceil(40) {
        let app = bench.app().await;
        for _ in 0..40 {
            let endpoint = bench.endpoint(app).await.endpoint;
            contact(&bench, endpoint.id).await;
        }
    }
    make(&bench, monthly()).await;
    bench.clock.advance(30 * DAY);
    assert_eq!(sweep(&bench).await, 100);
    assert_eq!(sweep(&bench).await, 60);
    assert_eq!(sweep(&bench).await, 0);
}

#[tokio::test]
async fn a_schedule_belongs_to_its_workspace_and_needs_the_scope_of_secrets() {
    let bench = Bench::new().await;
    let made = make(&bench, monthly()).await.schedule;
    let stranger = bench.stranger().await;
    let reader = bench.limited(&[Scope::Read]).await;
    let patch = SchedulePatch {
        paused: Some(true),
        ..SchedulePatch::default()
    };
    let patched = async |caller: &Caller, version| {
        let patched = bench
            .service
            .patch_schedule(caller, made.id, patch.clone(), version);
        patched.await.map(|shown| shown.schedule)
    };
    let missing = patched(&stranger, None).await;
    assert!(
        matches!(missing, Err(ServiceError::NotFound { .. })),
        "{missing:?}"
    );
    let denied = patched(&reader, None).await;
    assert!(
        matches!(denied, Err(ServiceError::Forbidden { .. })),
        "{denied:?}"
    );
    assert_eq!(show_as(&bench, &reader, made.id).await, made);
    let stale = patched(&bench.owner, Some(9)).await;
    assert!(matches!(
        stale,
        Err(ServiceError::PreconditionFailed { current: 1 })
    ));
    let paused = patched(&bench.owner, Some(1)).await.unwrap();
    assert_eq!(
        (paused.paused, paused.version, paused.since),
        (true, 2, made.since)
    );
    let theirs = bench
        .service
        .schedules(&stranger, first_page())
        .await
        .unwrap();
    assert!(theirs.items.is_empty());
    let foreign = NewSchedule {
        selector: Selector::Keyring {
            keyring: bench
                .live
                .workspace(stranger.workspace)
                .unwrap()
                .shared_keyring,
        },
        ..monthly()
    };
    let refused = bench
        .service
        .create_schedule(&bench.owner, foreign, None)
        .await;
    let Err(ServiceError::Invalid { pointer, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(pointer, "/keyringId");
    let gone = bench
        .service
        .delete_schedule(&bench.owner, made.id, Some(2));
    gone.await.unwrap();
    assert!(bench.live.schedules().is_empty());
}

async fn show_as(
    bench: &Bench,
    caller: &Caller,
    id: ScheduleId,
) -> hookturn_core::schedule::Schedule {
    let shown = bench.service.schedule(caller, id).await;
    shown.unwrap().schedule
}

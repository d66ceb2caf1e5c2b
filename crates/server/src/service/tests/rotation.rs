//! Secrets and rotations: the modes, their races, and where values go.

use std::fmt::Write as _;
use std::sync::Arc;

use hookturn_core::audit::AuditAction;
use hookturn_core::id::{KeyringId, SecretId};
use hookturn_core::rotation::{Rejected, SecretStatus};
use hookturn_core::store::Store as _;
use hookturn_core::time::{DAY, HOUR, MINUTE};
use hookturn_core::workspace::RevealPolicy;

use super::super::idempotency::{self, Lookup};
use super::super::keyrings::{NewSecretInput, SecretOnce, SharedPatch};
use super::super::rotation::{ModeName, NewRotation, OpenedRotation, RotationFilter};
use super::super::testing::{Bench, first_page, fresh_key};
use super::super::workspaces::WorkspacePatch;
use super::super::{Recording, ServiceError};

fn rotate(mode: ModeName) -> NewRotation {
    NewRotation {
        mode,
        overlap: None,
        deadline_at: None,
        policy: None,
        name: None,
        value: None,
        reason: Some("quarterly".to_owned()),
    }
}

/// How these tests write an answer down: rotation, then the value.
fn render(opened: &OpenedRotation) -> Vec<u8> {
    format!("{} {}", opened.rotation.id, opened.once.value.expose()).into_bytes()
}

async fn keyring(bench: &Bench) -> KeyringId {
    let app = bench.app().await;
    bench.endpoint(app).await.endpoint.keyring
}

async fn open(bench: &Bench, keyring: KeyringId, mode: ModeName) -> OpenedRotation {
    bench
        .service
        .open_rotation(&bench.owner, keyring, rotate(mode), None, None)
        .await
        .unwrap()
}

fn status(bench: &Bench, keyring: KeyringId, version: u32) -> SecretStatus {
    let keyring = bench.live.keyring(keyring).unwrap();
    assert_eq!(keyring.check(), Ok(()));
    let secret = keyring.secrets.iter().find(|s| s.version == version);
    secret.unwrap().status(bench.service.now())
}

/// Rotates once through the native API (`native`), through the Hopae dialect's use case (`primary`), or by
/// KORE's two steps (`shared`), each under an idempotency key of its own, and says how many transactions
/// the store synced for it.
async fn commits_of(bench: &Bench, way: &str) -> u64 {
    let (service, owner) = (&bench.service, &bench.owner);
    let shown = |once: &SecretOnce| once.value.expose().as_bytes().to_vec();
    let name = || "autumn".to_owned();
    match way {
        "native" => {
            let keyring = keyring(bench).await;
            let before = bench.store.commits();
            let asked = rotate(ModeName::Immediate);
            let recording = Recording {
                key: fresh_key(owner),
                fingerprint: [0; 32],
                render: &render,
            };
            let opened = service.open_rotation(owner, keyring, asked, None, Some(recording));
            opened.await.unwrap();
            bench.store.commits() - before
        }
        "primary" => {
            let app = service.create_configured_app(owner, name(), None).await;
            let app = app.unwrap().app.id;
            let before = bench.store.commits();
            let recording = Recording {
                key: fresh_key(owner),
                fingerprint: [0; 32],
                render: &shown,
            };
            let rotated = service.rotate_primary(owner, app, Some(recording));
            rotated.await.unwrap();
            bench.store.commits() - before
        }
        _ => {
            for _ in 0..2 {
                let made = service.create_shared_secret(owner, name(), None).await;
                made.unwrap();
            }
            let pending = service.shared_keyring(owner).await.unwrap();
            let pending = pending.pending().unwrap().id;
            let activate = SharedPatch {
                name: None,
                activate: true,
            };
            let before = bench.store.commits();
            let changed = service.change_shared_secret(owner, pending, activate);
            changed.await.unwrap();
            bench.store.commits() - before
        }
    }
}

#[tokio::test]
async fn a_rotation_is_one_durable_commit_whichever_api_asks() {
    let bench = Bench::new().await;
    for way in ["native", "primary", "shared"] {
        assert_eq!(commits_of(&bench, way).await, 1, "{way}");
    }
}

#[tokio::test]
async fn immediate_retires_the_old_secret_at_once() {
    let bench = Bench::new().await;
    let keyring = keyring(&bench).await;
    let opened = open(&bench, keyring, ModeName::Immediate).await;
    assert_eq!(opened.rotation.stage.as_str(), "completed");
    assert_eq!(opened.keyring.version, 2);
    assert_eq!(status(&bench, keyring, 1), SecretStatus::Retired);
    assert_eq!(status(&bench, keyring, 2), SecretStatus::Active);
    let contradictory = NewRotation {
        overlap: Some(HOUR),
        ..rotate(ModeName::Immediate)
    };
    let refused = bench
        .service
        .open_rotation(&bench.owner, keyring, contradictory, None, None)
        .await;
    assert!(
        matches!(refused, Err(ServiceError::Invalid { pointer, .. }) if pointer == "/overlapSeconds")
    );
}

#[tokio::test]
async fn overlap_ends_by_time_and_settle_writes_it_down() {
    let bench = Bench::new().await;
    let keyring = keyring(&bench).await;
    let opened = open(&bench, keyring, ModeName::Overlap).await;
    let horizon = {
        let view = bench.live.keyring(keyring).unwrap();
        bench.service.default_overlap(&view)
    };
    assert!(horizon > 2 * DAY);
    assert_eq!(opened.rotation.mode.overlap(), horizon);
    assert_eq!(status(&bench, keyring, 1), SecretStatus::Retiring);
    assert_eq!(bench.service.settle().await.unwrap(), 0);

    bench.clock.advance(horizon);
    assert_eq!(status(&bench, keyring, 1), SecretStatus::Retired);
    let read = bench
        .service
        .rotation(&bench.owner, opened.rotation.id)
        .await;
    assert_eq!(read.unwrap().stage.as_str(), "completed");
    assert_eq!(bench.service.settle().await.unwrap(), 1);
    assert_eq!(bench.service.settle().await.unwrap(), 0);
    assert_eq!(bench.live.keyring(keyring).unwrap().version, 3);
}

#[tokio::test]
async fn staged_is_promoted_extended_undone_and_finished() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let keyring = keyring(&bench).await;
    let staged = NewRotation {
        overlap: Some(HOUR),
        ..rotate(ModeName::Staged)
    };
    let opened = service.open_rotation(owner, keyring, staged, Some(1), None);
    let id = opened.await.unwrap().rotation.id;
    assert_eq!(status(&bench, keyring, 2), SecretStatus::Pending);
    let stale = service
        .promote_rotation(owner, id, false, Some(1), None)
        .await;
    assert!(matches!(
        stale,
        Err(ServiceError::PreconditionFailed { current: 2 })
    ));
    let open_only = RotationFilter {
        open: true,
        ..RotationFilter::default()
    };
    let listed = service.rotations(owner, open_only, first_page()).await;
    assert_eq!(listed.unwrap().items[0].id, id);

    let promoted = service
        .promote_rotation(owner, id, false, Some(2), None)
        .await;
    assert_eq!(promoted.unwrap().rotation.stage.as_str(), "overlap");
    let later = service.now().after(2 * HOUR);
    let extended = service.extend_rotation(owner, id, later, None, None).await;
    assert_eq!(
        extended.unwrap().rotation.leaving().map(|(_, at)| at),
        Some(later)
    );
    let undone = service.undo_rotation(owner, id, None, None).await.unwrap();
    assert_eq!(undone.rotation.stage.as_str(), "undone");
    assert_eq!(status(&bench, keyring, 1), SecretStatus::Active);
    assert_eq!(status(&bench, keyring, 2), SecretStatus::Retiring);
    service
        .finish_rotation(owner, id, None, None)
        .await
        .unwrap();
    assert_eq!(status(&bench, keyring, 2), SecretStatus::Retired);
    let listed = service.rotations(owner, open_only, first_page()).await;
    assert_eq!(listed.unwrap().items, []);

    // Ids sort by their millisecond.
    bench.clock.advance(1);
    let second = open(&bench, keyring, ModeName::Staged).await;
    service
        .cancel_rotation(owner, second.rotation.id, None, None)
        .await
        .unwrap();
    assert!(bench.live.sealed_secret(second.once.secret.id).is_none());
    let reveal = service.reveal_secret(owner, keyring, second.once.secret.id);
    assert!(matches!(
        reveal.await,
        Err(ServiceError::Conflict {
            code: "secret_destroyed",
            ..
        })
    ));
    let all = RotationFilter {
        keyring: Some(keyring),
        open: false,
    };
    let all = service.rotations(owner, all, first_page()).await.unwrap();
    assert_eq!(
        all.items.iter().map(|r| r.id).collect::<Vec<_>>(),
        [second.rotation.id, id]
    );
    let old = service.undo_rotation(owner, id, None, None).await;
    assert!(matches!(
        old,
        Err(ServiceError::Rejected(Rejected::NotLatestRotation { .. }))
    ));
}

#[tokio::test]
async fn create_and_activate_work_as_kore_documents_them() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let keyring = keyring(&bench).await;
    let input = |replace_pending| NewSecretInput {
        overlap: Some(0),
        replace_pending,
        ..NewSecretInput::default()
    };
    let created = service.create_secret(owner, keyring, input(false), None, None);
    let second = created.await.unwrap();
    assert!(second.rotation.is_some());
    let again = service.create_secret(owner, keyring, input(false), None, None);
    assert!(matches!(
        again.await,
        Err(ServiceError::Rejected(Rejected::PendingExists { .. }))
    ));
    let third = service.create_secret(owner, keyring, input(true), None, None);
    let third = third.await.unwrap().once.secret.id;
    assert!(bench.live.sealed_secret(second.once.secret.id).is_none());
    let activated = service
        .activate_secret(owner, keyring, third, None, None, None)
        .await
        .unwrap();
    assert_eq!(activated.secret.status(service.now()), SecretStatus::Active);
    assert_eq!(status(&bench, keyring, 1), SecretStatus::Retired);

    let first = bench.live.keyring(keyring).unwrap().secrets[0].id;
    service
        .rename_secret(owner, keyring, third, Some("mine".into()), None, None)
        .await
        .unwrap();
    saying_the_same_name_writes_nothing(&bench, keyring, third).await;
    service
        .destroy_secret(owner, keyring, first, None, None)
        .await
        .unwrap();
    assert!(bench.live.sealed_secret(first).is_none());
    service
        .compromise_secret(owner, keyring, third, None, None)
        .await
        .unwrap();
    let view = bench.live.keyring(keyring).unwrap();
    let third = view.secret(third).unwrap();
    assert_eq!(third.name.as_deref(), Some("mine"));
    assert!(third.compromised.is_some());
}

async fn saying_the_same_name_writes_nothing(bench: &Bench, keyring: KeyringId, secret: SecretId) {
    let (service, owner) = (&bench.service, &bench.owner);
    let head = async || bench.store.audit_head(owner.workspace).await.unwrap();
    let before = (bench.live.keyring(keyring).unwrap(), head().await);
    bench.clock.advance(1_000);
    let name = Some("mine".to_owned());
    let version = Some(before.0.version);
    let same = service.rename_secret(owner, keyring, secret, name.clone(), version, None);
    let same = same.await.unwrap();
    assert_eq!(same.keyring, *before.0);
    assert_eq!(Some(&same.secret), before.0.secret(secret));
    let after = (bench.live.keyring(keyring).unwrap(), head().await);
    assert_eq!(after, before);
    // It is still a request for this version of the keyring.
    let stale = service.rename_secret(owner, keyring, secret, name, Some(1), None);
    assert!(matches!(
        stale.await,
        Err(ServiceError::PreconditionFailed { .. })
    ));
    let gone = service.rename_secret(owner, keyring, secret, None, None, None);
    assert_eq!(gone.await.unwrap().secret.name, None);
    assert_eq!(head().await, before.1 + 1);
    let back = service.rename_secret(owner, keyring, secret, Some("mine".into()), None, None);
    back.await.unwrap();
}

#[tokio::test]
async fn a_reveal_is_audited_and_the_policy_never_ends_it() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let keyring = keyring(&bench).await;
    let opened = open(&bench, keyring, ModeName::Overlap).await;
    let secret = opened.once.secret.id;
    let shown = service.reveal_secret(owner, keyring, secret).await.unwrap();
    assert_eq!(shown.value, opened.once.value);
    let reveals = async || {
        let log = service.audit_log(owner, 0, 200).await.unwrap().items;
        log.into_iter()
            .filter(|recorded| recorded.entry.action == AuditAction::SecretRevealed)
            .collect::<Vec<_>>()
    };
    let log = reveals().await;
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].entry.subject.secret, Some(secret));

    let never = WorkspacePatch {
        reveal_secrets: Some(RevealPolicy::Never),
        ..WorkspacePatch::default()
    };
    service
        .patch_workspace(owner, owner.workspace, never, None, None)
        .await
        .unwrap();
    let refused = service.reveal_secret(owner, keyring, secret).await;
    assert!(matches!(
        refused,
        Err(ServiceError::Conflict {
            code: "reveal_disabled",
            ..
        })
    ));
    assert_eq!(reveals().await.len(), 1);
    // A lost value is replaced: a rotation still shows the new one once.
    let next = open(&bench, keyring, ModeName::Immediate).await;
    assert!(!next.once.value.expose().is_empty());
}

/// Starts 64 rotations of one keyring at once, each under the key that `key` gives it.
async fn race(
    bench: &Arc<Bench>,
    keyring: KeyringId,
    key: impl Fn(usize) -> hookturn_core::store::IdempotencyKey,
) -> Vec<Result<Vec<u8>, ServiceError>> {
    let tasks = (0..64).map(|index| {
        let (bench, key) = (Arc::clone(bench), key(index));
        tokio::spawn(async move {
            let recording = Recording {
                key,
                fingerprint: [7; 32],
                render: &render,
            };
            let input = rotate(ModeName::Overlap);
            let opened = bench
                .service
                .open_rotation(&bench.owner, keyring, input, None, Some(recording))
                .await;
            opened.map(|opened| render(&opened))
        })
    });
    let mut results = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        results.push(task.await.unwrap());
    }
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g5_the_same_idempotency_key_64_times_is_one_rotation_and_one_answer() {
    let bench = Arc::new(Bench::new().await);
    let keyring = keyring(&bench).await;
    let key = fresh_key(&bench.owner);
    let mut answers = Vec::new();
    for result in race(&bench, keyring, |_| key).await {
        match result {
            Ok(answer) => answers.push(answer),
            Err(ServiceError::IdempotencyKeyUsed) => {
                let replayed = bench
                    .service
                    .replay(&bench.owner, key, [7; 32])
                    .await
                    .unwrap();
                let Some(Lookup::Replay(answer)) = replayed else {
                    panic!("{replayed:?}")
                };
                answers.push(answer.to_vec());
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(answers.len(), 64);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let view = bench.live.keyring(keyring).unwrap();
    assert_eq!((view.version, view.secrets.len()), (2, 2));
    assert_eq!(view.check(), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g5_64_keys_have_one_winner_while_its_overlap_is_open() {
    let bench = Arc::new(Bench::new().await);
    let keyring = keyring(&bench).await;
    let owner = bench.owner.clone();
    let results = race(&bench, keyring, |_| fresh_key(&owner)).await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    let lost = results.iter().filter(|result| {
        matches!(
            result,
            Err(ServiceError::Rejected(Rejected::RotationOpen { .. }))
        )
    });
    assert_eq!((won, lost.count()), (1, 63));
    let view = bench.live.keyring(keyring).unwrap();
    assert_eq!((view.version, view.secrets.len()), (2, 2));
}

#[tokio::test]
async fn g5_a_replay_shows_the_same_secret_and_another_body_does_not() {
    let bench = Bench::new().await;
    let keyring = keyring(&bench).await;
    let key = fresh_key(&bench.owner);
    let lookup = async |fingerprint| {
        let found = bench.service.lookup(&bench.owner, key, fingerprint).await;
        found.unwrap()
    };
    let guard = lookup([1; 32]).await;
    assert!(matches!(guard, Lookup::Fresh(_)));
    assert!(matches!(lookup([1; 32]).await, Lookup::InProgress));
    assert!(matches!(lookup([2; 32]).await, Lookup::Mismatch));
    let recording = Recording {
        key,
        fingerprint: [1; 32],
        render: &render,
    };
    let input = rotate(ModeName::Overlap);
    let opened = bench
        .service
        .open_rotation(&bench.owner, keyring, input, None, Some(recording))
        .await
        .unwrap();
    drop(guard);
    // Its twin, late and on another way, is not told of the rotation that it opened itself.
    let twin = rotate(ModeName::Overlap);
    let twin = bench
        .service
        .open_rotation(&bench.owner, keyring, twin, None, Some(recording))
        .await;
    assert!(matches!(twin, Err(ServiceError::IdempotencyKeyUsed)));
    let Lookup::Replay(answer) = lookup([1; 32]).await else {
        panic!("not replayed")
    };
    assert_eq!(*answer, render(&opened));
    assert!(matches!(lookup([2; 32]).await, Lookup::Mismatch));

    // The key is free again after a day, and a guard that is dropped without an answer frees it.
    bench.clock.advance(DAY + MINUTE);
    drop(lookup([2; 32]).await);
    assert!(matches!(lookup([3; 32]).await, Lookup::Fresh(_)));
}

#[test]
fn an_idempotency_key_is_bound_to_every_part() {
    let workspace = hookturn_core::id::WorkspaceId::from_bytes([1; 16]);
    let other = hookturn_core::id::WorkspaceId::from_bytes([2; 16]);
    let keys = [
        idempotency::key(workspace, "POST", "/v1/apps", "k"),
        idempotency::key(other, "POST", "/v1/apps", "k"),
        idempotency::key(workspace, "PUT", "/v1/apps", "k"),
        idempotency::key(workspace, "POST", "/v1/app", "sk"),
        idempotency::key(workspace, "POST", "/v1/apps", "sk"),
    ];
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key), "{index}");
    }
}

#[tokio::test]
async fn g8_no_value_reaches_the_disk_or_debug_in_plain_text() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let made = bench.endpoint(app).await;
    let keyring = made.endpoint.keyring;
    let mut shown = format!("{made:?}");
    let mut values = vec![made.once.unwrap().value];
    for mode in [ModeName::Immediate, ModeName::Overlap] {
        let recording = Recording {
            key: fresh_key(owner),
            fingerprint: [0; 32],
            render: &render,
        };
        let opened = service
            .open_rotation(owner, keyring, rotate(mode), None, Some(recording))
            .await
            .unwrap();
        write!(shown, "{opened:?}").unwrap();
        values.push(opened.once.value);
    }
    let duplicate = NewSecretInput {
        value: Some(zeroize::Zeroizing::new(values[0].expose().to_owned())),
        ..NewSecretInput::default()
    };
    let refused = service.create_secret(owner, keyring, duplicate, None, None);
    let refused = refused.await.unwrap_err();
    write!(shown, "{refused:?} {refused}").unwrap();
    let disk = bench.disk().await;
    let text = b"quarterly".as_slice();
    assert!(disk.windows(text.len()).any(|window| window == text));
    for value in &values {
        let plain = value.expose();
        assert!(!shown.contains(plain));
        for hidden in [plain.as_bytes(), &plain.as_bytes()["whsec_".len()..]] {
            assert!(!disk.windows(hidden.len()).any(|window| window == hidden));
        }
    }
}

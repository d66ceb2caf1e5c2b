//! Everything that is done to a secret, and every attempt that is denied, is in the audit log: who,
//! why, in which request, and to which secret.
//!
//! The table walks one keyring through every command and through the passing of time. It must meet
//! every action on secrets and rotations that this version can write.

use std::collections::BTreeSet;

use hookturn_core::audit::{Actor, AuditAction, Broken, Damage, Recorded};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{KeyringId, RotationId, SecretId};
use hookturn_core::proof::ProbeKey;
use hookturn_core::rotation::{SecretStatus, SecretVersion};
use hookturn_core::time::HOUR;
use hookturn_core::workspace::{Scope, Scopes};

use super::super::api_keys::NewApiKey;
use super::super::audit::AuditProof;
use super::super::keyrings::NewSecretInput;
use super::super::proving::{ProbeFuture, Prober};
use super::super::rotation::{ModeName, NewRotation};
use super::super::testing::{Bench, key_input};
use super::super::{Caller, ServiceError};

pub(super) const WHY: &str = "the laptop was stolen";

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Create,
    Replace,
    Activate,
    Extend,
    Undo,
    Finish,
    Rotate(ModeName),
    Cancel,
    Promote,
    Compromise,
    CompromisePending,
    Destroy,
    Reveal,
    Rename,
    /// Time passes, and the sweep writes down what it did.
    Expire,
    /// The receivers are asked whether they still accept the old secret.
    AskReleased,
}

/// What is done, and what is in the log of it, in this order.
const STEPS: &[(Step, &[&str])] = &[
    (Step::Create, &["secret.created", "secret.activated"]),
    (Step::Create, &["rotation.opened", "secret.created"]),
    (
        Step::Replace,
        &[
            "secret.replaced",
            "rotation.cancelled",
            "secret.destroyed",
            "rotation.opened",
            "secret.created",
        ],
    ),
    (
        Step::Activate,
        &["rotation.promoted", "secret.activated", "secret.retiring"],
    ),
    (Step::Extend, &["rotation.extended", "secret.retiring"]),
    (
        Step::Undo,
        &["rotation.undone", "secret.activated", "secret.retiring"],
    ),
    (Step::Expire, &["secret.retired"]),
    (
        Step::Rotate(ModeName::Overlap),
        &[
            "rotation.opened",
            "secret.created",
            "secret.activated",
            "secret.retiring",
        ],
    ),
    (Step::Expire, &["secret.retired", "rotation.completed"]),
    (
        Step::Rotate(ModeName::Overlap),
        &[
            "rotation.opened",
            "secret.created",
            "secret.activated",
            "secret.retiring",
        ],
    ),
    (Step::AskReleased, &["rotation.release_asked"]),
    (
        Step::Finish,
        &["rotation.finished", "secret.retired", "rotation.completed"],
    ),
    (
        Step::Rotate(ModeName::Immediate),
        &[
            "rotation.opened",
            "secret.created",
            "secret.activated",
            "secret.retired",
            "rotation.completed",
        ],
    ),
    (Step::Destroy, &["secret.destroyed"]),
    (
        Step::Rotate(ModeName::Staged),
        &["rotation.opened", "secret.created"],
    ),
    (Step::Cancel, &["rotation.cancelled", "secret.destroyed"]),
    (
        Step::Rotate(ModeName::Staged),
        &["rotation.opened", "secret.created"],
    ),
    (
        Step::CompromisePending,
        &[
            "secret.compromised",
            "rotation.cancelled",
            "secret.destroyed",
        ],
    ),
    (
        Step::Rotate(ModeName::Staged),
        &["rotation.opened", "secret.created"],
    ),
    (
        Step::Promote,
        &["rotation.promoted", "secret.activated", "secret.retiring"],
    ),
    (Step::Reveal, &["secret.revealed"]),
    (Step::Rename, &["secret.renamed"]),
    (Step::Compromise, &["secret.compromised"]),
];

/// Sends no probes: the shared keyring signs for no endpoint here.
struct Nobody;

impl Prober for Nobody {
    fn probe<'a>(&'a self, _: &'a Endpoint, _: &'a [ProbeKey]) -> ProbeFuture<'a> {
        unreachable!("there is no endpoint to ask")
    }
}

pub(super) struct Walk {
    pub(super) bench: Bench,
    pub(super) caller: Caller,
    pub(super) keyring: KeyringId,
    seen: u64,
}

impl Walk {
    pub(super) async fn new() -> Self {
        let bench = Bench::new().await;
        let caller = bench.owner.because(Some(WHY)).unwrap();
        let workspace = bench.live.workspace(caller.workspace).unwrap();
        let mut walk = Self {
            bench,
            caller,
            keyring: workspace.shared_keyring,
            seen: 0,
        };
        walk.news().await;
        walk
    }

    /// The entries since the last time.
    pub(super) async fn news(&mut self) -> Vec<Recorded> {
        let log = self
            .bench
            .service
            .audit_log(&self.bench.owner, self.seen, 200);
        let news = log.await.unwrap().items;
        self.seen = news.last().map_or(self.seen, |last| last.seq);
        news
    }

    /// The same once `count` are there: some are written behind the answer.
    pub(super) async fn awaited(&mut self, count: u64) -> Vec<Recorded> {
        let (service, owner) = (&self.bench.service, &self.bench.owner);
        let wanted = self.seen + count;
        let arrived = async {
            while service
                .audit_log(owner, wanted - 1, 1)
                .await
                .unwrap()
                .items
                .is_empty()
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), arrived)
            .await
            .expect("the entry is written");
        self.news().await
    }

    pub(super) fn active(&self) -> SecretId {
        let keyring = self.bench.live.keyring(self.keyring).unwrap();
        keyring.active().unwrap().id
    }

    pub(super) fn pending(&self) -> SecretId {
        let keyring = self.bench.live.keyring(self.keyring).unwrap();
        keyring.pending().unwrap().id
    }

    pub(super) fn rotation(&self) -> RotationId {
        let keyring = self.bench.live.keyring(self.keyring).unwrap();
        keyring.rotation.as_ref().unwrap().id
    }

    pub(super) async fn take(&self, step: Step) {
        let service = &self.bench.service;
        let (caller, keyring) = (&self.caller, self.keyring);
        let input = |replace_pending| NewSecretInput {
            overlap: Some(HOUR),
            replace_pending,
            ..NewSecretInput::default()
        };
        match step {
            Step::Create | Step::Replace => {
                let input = input(matches!(step, Step::Replace));
                let made = service.create_secret(caller, keyring, input, None, None);
                made.await.map(drop).unwrap();
            }
            Step::Activate => {
                let secret = self.pending();
                let done = service.activate_secret(caller, keyring, secret, None, None, None);
                done.await.map(drop).unwrap();
            }
            Step::Extend => {
                let until = service.now().after(2 * HOUR);
                let done = service.extend_rotation(caller, self.rotation(), until, None, None);
                done.await.map(drop).unwrap();
            }
            Step::Undo => {
                let done = service.undo_rotation(caller, self.rotation(), None, None);
                done.await.map(drop).unwrap();
            }
            Step::Finish => {
                let done = service.finish_rotation(caller, self.rotation(), None, None);
                done.await.map(drop).unwrap();
            }
            Step::Cancel => {
                let done = service.cancel_rotation(caller, self.rotation(), None, None);
                done.await.map(drop).unwrap();
            }
            Step::AskReleased => {
                let done = service.ask_released(caller, self.rotation(), None, &Nobody, None);
                done.await.map(drop).unwrap();
            }
            Step::Promote => {
                let done = service.promote_rotation(caller, self.rotation(), false, None, None);
                done.await.map(drop).unwrap();
            }
            Step::Rotate(mode) => {
                let input = NewRotation {
                    mode,
                    overlap: (mode != ModeName::Immediate).then_some(HOUR),
                    deadline_at: None,
                    policy: None,
                    name: None,
                    value: None,
                    reason: None,
                };
                let done = service.open_rotation(caller, keyring, input, None, None);
                done.await.map(drop).unwrap();
            }
            Step::Compromise | Step::CompromisePending => {
                let secret = match step {
                    Step::Compromise => self.active(),
                    _ => self.pending(),
                };
                let done = service.compromise_secret(caller, keyring, secret, None, None);
                done.await.map(drop).unwrap();
            }
            Step::Destroy => {
                let known = self.bench.live.keyring(keyring).unwrap();
                let now = service.now();
                let retired = |s: &&SecretVersion| s.status(now) == SecretStatus::Retired;
                let secret = known.secrets.iter().find(retired).unwrap().id;
                let done = service.destroy_secret(caller, keyring, secret, None, None);
                done.await.map(drop).unwrap();
            }
            Step::Reveal => {
                let done = service.reveal_secret(caller, keyring, self.active());
                done.await.map(drop).unwrap();
            }
            Step::Rename => {
                let name = Some("spring".to_owned());
                let secret = self.active();
                let done = service.rename_secret(caller, keyring, secret, name, None, None);
                done.await.map(drop).unwrap();
            }
            Step::Expire => {
                self.bench.clock.advance(3 * HOUR);
                assert_eq!(service.settle().await.unwrap(), 1);
            }
        }
    }
}

#[tokio::test]
async fn g9_whatever_is_done_to_a_secret_is_in_the_log_with_who_and_why() {
    let mut walk = Walk::new().await;
    let mut met = BTreeSet::new();
    for (number, (step, wanted)) in STEPS.iter().enumerate() {
        walk.take(*step).await;
        let entries = walk.news().await;
        let actions: Vec<_> = entries.iter().map(|e| e.entry.action.as_str()).collect();
        assert_eq!(actions, *wanted, "{number} {step:?}");
        for recorded in &entries {
            let context = &recorded.context;
            if matches!(step, Step::Expire) {
                assert_eq!(context.actor, Actor::System, "{number} {step:?}");
                assert_eq!(context.reason.as_deref(), Some("its time has come"));
            } else {
                assert_eq!(context.actor, Actor::ApiKey(walk.caller.key.id));
                assert_eq!(context.reason.as_deref(), Some(WHY), "{number} {step:?}");
                assert_eq!(context.request_id.as_deref(), Some("req_owner"));
            }
            let subject = &recorded.entry.subject;
            assert_eq!(subject.keyring, Some(walk.keyring), "{number} {step:?}");
            assert!(
                recorded.entry.fingerprint.is_some(),
                "{number} {recorded:?}"
            );
            assert!(subject.secret.is_some() || subject.rotation.is_some());
            met.insert(recorded.entry.action.to_string());
        }
    }
    // What time and evidence did, which nobody asked for: `core/tests/notice.rs` has it.
    let noticed = [
        AuditAction::RotationProved,
        AuditAction::RotationStalled,
        AuditAction::RotationDeadlineNear,
    ];
    for action in AuditAction::KNOWN {
        let text = action.as_str();
        let ours = text.starts_with("secret.") || text.starts_with("rotation.");
        let ours = ours && !noticed.contains(action);
        assert!(!ours || met.contains(text), "{text} is in no step");
    }
    let proof = walk.bench.service.verify_audit(&walk.bench.owner).await;
    assert!(matches!(proof.unwrap(), AuditProof::Whole { .. }));
}

#[tokio::test]
async fn g9_the_end_of_an_endpoint_is_the_end_of_its_secrets_in_the_log() {
    let mut walk = Walk::new().await;
    let app = walk.bench.app().await;
    let made = walk.bench.endpoint(app).await;
    walk.news().await;
    let service = &walk.bench.service;
    let deleted = service.delete_endpoint(&walk.caller, app, made.endpoint.id, None, None);
    deleted.await.unwrap();
    let entries = walk.news().await;
    let destroyed = entries
        .iter()
        .find(|e| e.entry.action == AuditAction::SecretDestroyed)
        .unwrap();
    let once = made.once.unwrap();
    assert_eq!(destroyed.entry.subject.secret, Some(once.secret.id));
    assert_eq!(destroyed.entry.fingerprint, Some(once.secret.fingerprint));
    assert_eq!(destroyed.context.reason.as_deref(), Some(WHY));
}

/// What time did is done by nobody, also when a command comes before the sweep.
#[tokio::test]
async fn g9_time_is_the_actor_of_a_retirement_that_a_command_meets() {
    let mut walk = Walk::new().await;
    walk.take(Step::Create).await;
    walk.take(Step::Rotate(ModeName::Overlap)).await;
    walk.news().await;
    walk.bench.clock.advance(3 * HOUR);
    walk.take(Step::Rotate(ModeName::Overlap)).await;
    let entries = walk.news().await;
    let found: Vec<_> = entries
        .iter()
        .map(|e| (e.entry.action.as_str(), e.context.actor))
        .collect();
    let caller = Actor::ApiKey(walk.caller.key.id);
    assert_eq!(
        found,
        [
            ("secret.retired", Actor::System),
            ("rotation.completed", Actor::System),
            ("rotation.opened", caller),
            ("secret.created", caller),
            ("secret.activated", caller),
            ("secret.retiring", caller),
        ]
    );
}

#[tokio::test]
async fn g9_an_entry_that_cannot_be_read_is_named_and_those_before_it_are_listed() {
    for damage in [
        "UPDATE audit SET document = '{' WHERE seq = 3",
        "UPDATE audit SET hash = x'00' WHERE seq = 3",
        "UPDATE audit SET document = (SELECT document FROM audit WHERE seq = 2) WHERE seq = 3",
        // What the hash says nothing of.
        r#"UPDATE audit SET document = replace(document, '{"seq"', '{"by":"me","seq"') WHERE seq = 3"#,
        r#"UPDATE audit SET document = replace(document, '"detail":{', '"detail":{"name":"x",') WHERE seq = 3"#,
        r#"UPDATE audit SET document = replace(document, '"actor":', '"reason":null,"actor":') WHERE seq = 3"#,
        "UPDATE audit SET document = document || ' ' WHERE seq = 3",
        // The hash of the document, which is not the one that is chained, and the other way round.
        r#"UPDATE audit SET document = substr(document, 1, length(document) - 66) || '0000000000000000000000000000000000000000000000000000000000000000"}' WHERE seq = 3"#,
        "UPDATE audit SET hash = (SELECT hash FROM audit WHERE seq = 2) WHERE seq = 3",
    ] {
        let bench = Bench::new().await;
        for _ in 0..3 {
            bench.app().await;
        }
        bench.damage(&["DROP TRIGGER audit_is_append_only_update", damage]);
        let (service, owner) = (&bench.service, &bench.owner);
        let proof = service.verify_audit(owner).await.unwrap();
        let why = Damage::Unreadable;
        assert_eq!(
            proof,
            AuditProof::Broken(Broken { seq: 3, why }),
            "{damage}"
        );
        let page = service.audit_log(owner, 0, 50).await.unwrap();
        assert_eq!((page.items.len(), page.has_more), (2, true), "{damage}");
        let next = service.audit_log(owner, 2, 50).await;
        let named = matches!(next, Err(ServiceError::AuditUnreadable { seq: 3, .. }));
        assert!(named, "{damage}: {next:?}");
        let after = service.audit_log(owner, 3, 50).await.unwrap();
        assert!(!after.items.is_empty() && !after.has_more, "{damage}");
    }
}

#[tokio::test]
async fn a_later_end_needs_what_making_the_key_would_need() {
    let bench = Bench::new().await;
    let service = &bench.service;
    let keeper = bench.limited(&[Scope::Manage]).await;
    let input = NewApiKey {
        expires_at: Some(service.now().after(2 * HOUR)),
        ..key_input(Scopes::EVERY)
    };
    let made = service
        .create_api_key(&bench.owner, input, None)
        .await
        .unwrap();
    let id = made.key.id;
    let at = |span| service.now().after(span);
    service.expire_api_key(&keeper, id, at(HOUR)).await.unwrap();
    let later = service.expire_api_key(&keeper, id, at(2 * HOUR)).await;
    assert!(
        matches!(later, Err(ServiceError::Forbidden { .. })),
        "{later:?}"
    );
    service
        .expire_api_key(&bench.owner, id, at(2 * HOUR))
        .await
        .unwrap();
    let past = service
        .expire_api_key(&bench.owner, id, service.now())
        .await;
    assert!(
        matches!(past, Err(ServiceError::Invalid { .. })),
        "{past:?}"
    );
    let stranger = bench.stranger().await;
    let foreign = service.expire_api_key(&stranger, id, at(HOUR)).await;
    assert!(
        matches!(foreign, Err(ServiceError::NotFound { .. })),
        "{foreign:?}"
    );
    service
        .revoke_api_key(&bench.owner, id, None)
        .await
        .unwrap();
    let dead = service.expire_api_key(&bench.owner, id, at(HOUR)).await;
    assert!(
        matches!(dead, Err(ServiceError::Conflict { .. })),
        "{dead:?}"
    );
}

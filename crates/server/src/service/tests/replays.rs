//! Who is shown a value again by repeating the request that made it, and what the audit log says of it.

use std::sync::Arc;

use hookturn_core::audit::{Actor, AuditAction, Recorded};
use hookturn_core::limits;
use hookturn_core::rotation::SecretStatus;
use hookturn_core::store::IdempotencyKey;
use hookturn_core::workspace::{RevealPolicy, Scope, Scopes};

use super::super::idempotency::Lookup;
use super::super::keyrings::{CreatedSecret, NewSecretInput};
use super::super::testing::{Bench, fresh_key, key_input};
use super::super::workspaces::WorkspacePatch;
use super::super::{Caller, Recording, ServiceError};
use crate::store::seal::MasterKey;
use crate::telemetry::SystemEntropy;

const BODY: [u8; 32] = [7; 32];

struct Shown {
    bench: Bench,
    key: IdempotencyKey,
    made: CreatedSecret,
    seen: u64,
}

fn render(made: &CreatedSecret) -> Vec<u8> {
    made.once.value.expose().as_bytes().to_vec()
}

impl Shown {
    /// A workspace whose owner made a secret under an idempotency key.
    async fn new() -> Self {
        let bench = Bench::new().await;
        let key = fresh_key(&bench.owner);
        let made = create(&bench, key).await;
        let mut shown = Self {
            bench,
            key,
            made,
            seen: 0,
        };
        shown.news().await;
        shown
    }

    async fn news(&mut self) -> Vec<Recorded> {
        let (service, owner) = (&self.bench.service, &self.bench.owner);
        let log = service.audit_log(owner, self.seen, 200).await.unwrap();
        self.seen = log.items.last().map_or(self.seen, |last| last.seq);
        log.items
    }

    /// The value, as far as this caller is shown it by a replay.
    async fn replayed(&self, caller: &Caller) -> Result<String, ServiceError> {
        let found = self.bench.service.replay(caller, self.key, BODY).await?;
        let Some(Lookup::Replay(answer)) = found else {
            panic!("{found:?}")
        };
        Ok(String::from_utf8(answer.to_vec()).unwrap())
    }

    async fn never_again(&mut self) {
        let patch = WorkspacePatch {
            reveal_secrets: Some(RevealPolicy::Never),
            ..WorkspacePatch::default()
        };
        let (service, owner) = (&self.bench.service, &self.bench.owner);
        let done = service.patch_workspace(owner, owner.workspace, patch, None, None);
        done.await.unwrap();
        self.news().await;
    }

    fn check(&self, recorded: &Recorded, caller: &Caller, action: &AuditAction) {
        assert_eq!(recorded.entry.action, *action);
        assert_eq!(recorded.context.actor, Actor::ApiKey(caller.key.id));
        let request = recorded.context.request_id.as_deref();
        assert_eq!(request, Some(&*caller.request_id));
        let secret = &self.made.once.secret;
        assert_eq!(recorded.entry.subject.secret, Some(secret.id));
        assert_eq!(recorded.entry.fingerprint, Some(secret.fingerprint));
    }
}

async fn create(bench: &Bench, key: IdempotencyKey) -> CreatedSecret {
    let workspace = bench.live.workspace(bench.owner.workspace).unwrap();
    let recording = Recording {
        key,
        fingerprint: BODY,
        render: &render,
    };
    let input = NewSecretInput {
        replace_pending: true,
        ..NewSecretInput::default()
    };
    let keyring = workspace.shared_keyring;
    let made = bench
        .service
        .create_secret(&bench.owner, keyring, input, None, Some(recording));
    made.await.unwrap()
}

#[tokio::test]
async fn g9_every_replay_that_shows_a_value_is_in_the_log() {
    let mut shown = Shown::new().await;
    let value = shown.made.once.value.expose().to_owned();
    let other = shown.bench.limited(&[Scope::Secrets]).await;
    shown.news().await;
    for caller in [shown.bench.owner.clone(), other] {
        assert_eq!(shown.replayed(&caller).await.unwrap(), value);
        let entries = shown.news().await;
        assert_eq!(entries.len(), 1);
        shown.check(&entries[0], &caller, &AuditAction::SecretRevealed);
        assert_eq!(entries[0].entry.detail["by"], "replay");
    }
}

/// The contract of an idempotent call goes to the one who made it, and a reveal to nobody.
#[tokio::test]
async fn g9_under_never_a_replay_shows_a_value_to_the_key_that_made_it_only() {
    let mut shown = Shown::new().await;
    let value = shown.made.once.value.expose().to_owned();
    let other = shown.bench.limited(&[Scope::Secrets]).await;
    shown.never_again().await;
    let owner = shown.bench.owner.clone();
    assert_eq!(shown.replayed(&owner).await.unwrap(), value);
    let entries = shown.news().await;
    shown.check(&entries[0], &owner, &AuditAction::SecretRevealed);
    let refused = shown.replayed(&other).await.unwrap_err();
    assert_eq!(refused.code(), "reveal_disabled");
    let entries = shown.news().await;
    assert_eq!(entries.len(), 1);
    shown.check(&entries[0], &other, &AuditAction::AccessDenied);
}

#[tokio::test]
async fn g9_a_replay_shows_no_value_to_a_key_that_may_not_see_one() {
    let mut shown = Shown::new().await;
    let manager = shown.bench.limited(&[Scope::Manage]).await;
    shown.news().await;
    let refused = shown.replayed(&manager).await;
    let forbidden = matches!(refused, Err(ServiceError::Forbidden { .. }));
    assert!(forbidden, "{refused:?}");
    let entries = shown.news().await;
    assert_eq!(entries[0].entry.action, AuditAction::AccessDenied);
}

/// Destroyed means destroyed: the sealed answer goes with the sealed value, and nothing is made anew.
#[tokio::test]
async fn g4_a_replay_shows_no_destroyed_secret() {
    let mut shown = Shown::new().await;
    // The first one is active: the second waits, and the third takes its place.
    let owner = shown.bench.owner.clone();
    shown.key = fresh_key(&owner);
    shown.made = create(&shown.bench, shown.key).await;
    shown.replayed(&owner).await.unwrap();
    let later = create(&shown.bench, fresh_key(&owner)).await;
    let now = shown.bench.service.now();
    let replaced = later.keyring.secret(shown.made.once.secret.id).unwrap();
    assert_eq!(replaced.status(now), SecretStatus::Destroyed);
    shown.news().await;
    let refused = shown.replayed(&owner).await.unwrap_err();
    assert_eq!(refused.code(), "secret_destroyed");
    assert!(shown.news().await.is_empty(), "nothing was shown or made");
    let store = &shown.bench.store;
    let kept = hookturn_core::store::Store::idempotent_answer(&**store, shown.key, now);
    assert_eq!(kept.await.unwrap().unwrap().sealed_response, None);
}

#[tokio::test]
async fn g9_the_replay_of_an_api_key_is_in_the_log() {
    let mut shown = Shown::new().await;
    let owner = shown.bench.owner.clone();
    shown.key = fresh_key(&owner);
    let render = |made: &super::super::api_keys::NewKey| made.text.as_bytes().to_vec();
    let recording = Recording {
        key: shown.key,
        fingerprint: BODY,
        render: &render,
    };
    let service = Arc::clone(&shown.bench.service);
    let made = service.create_api_key(&owner, key_input(Scopes::EVERY), Some(recording));
    let made = made.await.unwrap();
    shown.news().await;
    assert_eq!(shown.replayed(&owner).await.unwrap(), *made.text);
    let entries = shown.news().await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].entry.action, AuditAction::ApiKeyRevealed);
    assert_eq!(entries[0].entry.subject.api_key, Some(made.key.id));
    assert_eq!(entries[0].context.actor, Actor::ApiKey(owner.key.id));
}

#[tokio::test]
async fn g9_many_replays_to_one_key_are_counted() {
    let mut shown = Shown::new().await;
    let owner = shown.bench.owner.clone();
    for _ in 0..100 {
        shown.replayed(&owner).await.unwrap();
    }
    assert_eq!(shown.news().await.len(), limits::DENIALS_AT_ONCE as usize);
    shown.bench.clock.advance(limits::DENIAL_EVERY);
    shown.bench.service.settle().await.unwrap();
    let entries = shown.news().await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].entry.action, AuditAction::SecretRevealed);
    assert_eq!(entries[0].entry.detail["leftOut"], "80");
    assert_eq!(entries[0].context.actor, Actor::ApiKey(owner.key.id));
}

/// Old master keys are forgotten after some rotations, and what only they opened is not our failure.
#[tokio::test]
async fn an_answer_whose_master_key_is_gone_is_a_conflict_and_shows_nothing() {
    let mut shown = Shown::new().await;
    let sealer = &shown.bench.service.sealer;
    sealer.replace_keys(vec![MasterKey::generate(&SystemEntropy)]);
    let refused = shown.replayed(&shown.bench.owner).await.unwrap_err();
    assert_eq!(refused.code(), "answer_unreadable");
    assert!(matches!(refused, ServiceError::Conflict { .. }));
    assert!(shown.news().await.is_empty(), "nothing was shown");
}

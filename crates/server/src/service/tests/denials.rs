//! Every attempt that is denied is in the audit log: who, why, in which request, and aimed at which
//! secret; and in whose log.

use std::sync::Arc;

use hookturn_core::audit::{Actor, AuditAction, Recorded, Subject};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::limits;
use hookturn_core::proof::ProbeKey;
use hookturn_core::time::{HOUR, MINUTE};
use hookturn_core::workspace::{RevealPolicy, Scope, Scopes};

use super::super::denials::{Asked, Refused};
use super::super::keyrings::SharedPatch;
use super::super::proving::{ProbeFuture, Prober};
use super::super::testing::key_input;
use super::super::workspaces::WorkspacePatch;
use super::super::{Caller, ServiceError};
use super::audit::{Step, WHY, Walk};

/// A rehearsal that must not happen.
struct NeverAsked;

impl Prober for NeverAsked {
    fn probe<'a>(&'a self, _: &'a Endpoint, _: &'a [ProbeKey]) -> ProbeFuture<'a> {
        unreachable!("the endpoint is not the caller's")
    }
}

#[tokio::test]
async fn g9_denied_attempts_are_in_the_log_with_who_what_and_why() {
    let mut walk = Walk::new().await;
    walk.take(Step::Create).await;
    let secret = walk.active();
    let fingerprint = {
        let keyring = walk.bench.live.keyring(walk.keyring).unwrap();
        keyring.secret(secret).unwrap().fingerprint
    };
    let asked = Asked {
        route: Some("POST /v1/keyrings/{keyringId}/secrets/{secretId}/reveal".to_owned()),
        subject: Subject {
            keyring: Some(walk.keyring),
            secret: Some(secret),
            ..Subject::default()
        },
    };
    let with = |caller: &Caller| Caller {
        asked: asked.clone(),
        ..caller.because(Some(WHY)).unwrap()
    };
    let reader = with(&walk.bench.limited(&[Scope::Read]).await);
    let stranger = with(&walk.bench.stranger().await);
    let service = Arc::clone(&walk.bench.service);
    walk.news().await;

    let check = |recorded: &Recorded, actor: Actor, request: &str, cause: &str| {
        let entry = &recorded.entry;
        assert_eq!(entry.action, AuditAction::AccessDenied);
        assert_eq!(recorded.context.actor, actor, "{cause}");
        assert_eq!(recorded.context.request_id.as_deref(), Some(request));
        assert_eq!(recorded.context.reason.as_deref(), Some(WHY));
        assert_eq!(entry.detail["cause"], cause);
        assert_eq!(Some(&entry.detail["route"]), asked.route.as_ref());
        assert_eq!(entry.subject.secret, Some(secret));
    };
    let refused = service.reveal_secret(&reader, walk.keyring, secret).await;
    assert!(matches!(refused, Err(ServiceError::Forbidden { .. })));
    let entries = walk.news().await;
    check(
        &entries[0],
        Actor::ApiKey(reader.key.id),
        "req_limited",
        "not allowed",
    );
    assert_eq!(entries[0].entry.detail["needs"], "secrets");
    assert_eq!(entries[0].entry.fingerprint, Some(fingerprint));

    // What belongs to someone else is in the log of its owner, not of the one who asked.
    let theirs = service.verify_audit(&stranger).await.unwrap();
    let missing = service.reveal_secret(&stranger, walk.keyring, secret).await;
    assert!(matches!(missing, Err(ServiceError::NotFound { .. })));
    let entries = walk.awaited(1).await;
    let actor = Actor::ApiKey(stranger.key.id);
    check(
        &entries[0],
        actor,
        "req_stranger",
        "belongs to another workspace",
    );
    assert_eq!(entries[0].entry.fingerprint, Some(fingerprint));
    assert_eq!(service.verify_audit(&stranger).await.unwrap(), theirs);

    service
        .revoke_api_key(&walk.bench.owner, reader.key.id, None)
        .await
        .unwrap();
    walk.news().await;
    let refuse = |bearer: Option<&'static str>| Refused {
        bearer,
        request_id: "req_refused".to_owned(),
        reason: Some(WHY.to_owned()),
        asked: asked.clone(),
    };
    for (bearer, cause) in [
        (Some("sk_workspace_test_nobody"), "unknown key"),
        (None, "no key"),
    ] {
        service.note_refused(refuse(bearer)).await;
        let entries = walk.news().await;
        check(&entries[0], Actor::Unknown, "req_refused", cause);
        // Its owner reads this log.
        assert_eq!(entries[0].entry.fingerprint, Some(fingerprint));
    }
}

#[tokio::test]
async fn g9_a_dead_key_is_named_in_the_log() {
    let mut walk = Walk::new().await;
    let service = Arc::clone(&walk.bench.service);
    let owner = walk.bench.owner.clone();
    let input = key_input(Scopes::EVERY);
    let revoked = service
        .create_api_key(&owner, input.clone(), None)
        .await
        .unwrap();
    let expired = service.create_api_key(&owner, input, None).await.unwrap();
    service
        .revoke_api_key(&owner, revoked.key.id, None)
        .await
        .unwrap();
    let soon = service.now().after(MINUTE);
    let ended = service
        .expire_api_key(&owner, expired.key.id, soon)
        .await
        .unwrap();
    assert_eq!(ended.key.expires_at, Some(soon));
    let entries = walk.news().await;
    let last = entries.last().unwrap();
    assert_eq!(last.entry.action, AuditAction::ApiKeyExpiryChanged);
    assert_eq!(last.entry.detail["expiresAt"], soon.to_string());
    walk.bench.clock.advance(MINUTE);
    for (made, cause) in [(&revoked, "revoked key"), (&expired, "expired key")] {
        assert!(service.authenticate(&made.text).is_err());
        let refused = Refused {
            bearer: Some(&made.text),
            request_id: "req_dead".to_owned(),
            ..Refused::default()
        };
        service.note_refused(refused).await;
        let entries = walk.news().await;
        assert_eq!(entries[0].context.actor, Actor::ApiKey(made.key.id));
        assert_eq!(entries[0].entry.detail["cause"], cause);
        assert!(!format!("{entries:?}").contains(made.text.as_str()));
    }
}

/// Which requests are aimed at which secret.
#[tokio::test]
async fn g9_a_denied_attempt_names_the_secret_it_was_aimed_at() {
    let mut walk = Walk::new().await;
    walk.take(Step::Create).await;
    walk.take(Step::Create).await;
    let (active, pending, rotation) = (walk.active(), walk.pending(), walk.rotation());
    let keyring = Some(walk.keyring);
    let service = Arc::clone(&walk.bench.service);
    let made = service.create_configured_app(&walk.bench.owner, "hopae".to_owned(), None);
    let made = made.await.unwrap();
    let (app, primary) = (made.app.id, made.primary.unwrap());
    let own = walk.bench.live.keyring(primary.keyring).unwrap();
    let own = own.active().unwrap().id;
    let none = Subject::default();
    let reader = walk.bench.limited(&[Scope::Read]).await;
    walk.news().await;
    for (route, subject, wanted) in [
        (
            "POST /v1/keyrings/{keyringId}/secrets/{secretId}/reveal",
            Subject {
                keyring,
                secret: Some(pending),
                ..none
            },
            Some(pending),
        ),
        (
            "PATCH /kore/v1/secrets/{secretId}",
            Subject {
                secret: Some(pending),
                ..none
            },
            Some(pending),
        ),
        (
            "POST /v1/rotations/{rotationId}/promote",
            Subject {
                rotation: Some(rotation),
                ..none
            },
            Some(pending),
        ),
        (
            "POST /v1/keyrings/{keyringId}/rotations",
            Subject { keyring, ..none },
            Some(active),
        ),
        (
            "POST /connect/v1/apps/{clientId}/webhook-config/rotate-secret",
            Subject {
                app: Some(app),
                ..none
            },
            Some(own),
        ),
        (
            "GET /v1/keyrings/{keyringId}",
            Subject { keyring, ..none },
            None,
        ),
        (
            "DELETE /v1/apps/{clientId}",
            Subject {
                app: Some(app),
                ..none
            },
            None,
        ),
    ] {
        let asked = Asked {
            route: Some(route.to_owned()),
            subject,
        };
        let caller = Caller {
            asked,
            ..reader.clone()
        };
        assert!(service.require(&caller, Scope::Secrets).await.is_err());
        let entries = walk.news().await;
        assert_eq!(entries[0].entry.subject.secret, wanted, "{route}");
        let fingerprint = entries[0].entry.fingerprint;
        assert_eq!(fingerprint.is_some(), wanted.is_some(), "{route}");
    }
}

#[tokio::test]
async fn g9_a_reveal_that_the_policy_forbids_is_in_the_log() {
    let mut walk = Walk::new().await;
    walk.take(Step::Create).await;
    let service = Arc::clone(&walk.bench.service);
    let patch = WorkspacePatch {
        reveal_secrets: Some(RevealPolicy::Never),
        ..WorkspacePatch::default()
    };
    let home = walk.caller.workspace;
    let patched = service.patch_workspace(&walk.caller, home, patch, None, None);
    patched.await.unwrap();
    walk.news().await;
    let refused = service.reveal_secret(&walk.caller, walk.keyring, walk.active());
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.code(), "reveal_disabled");
    let entries = walk.news().await;
    assert_eq!(entries.len(), 1);
    let entry = &entries[0].entry;
    assert_eq!(entry.action, AuditAction::AccessDenied);
    assert_eq!(entry.subject.secret, Some(walk.active()));
    assert!(entry.fingerprint.is_some());
    assert_eq!(entries[0].context.reason.as_deref(), Some(WHY));
    assert_eq!(
        entry.detail["cause"],
        "this workspace never shows a secret again"
    );
}

#[tokio::test]
async fn g9_a_flood_at_one_route_hides_nothing_at_another() {
    let mut walk = Walk::new().await;
    let service = Arc::clone(&walk.bench.service);
    let reader = walk.bench.limited(&[Scope::Read]).await;
    let at = |route: &str| Caller {
        asked: Asked {
            route: Some(route.to_owned()),
            ..Asked::default()
        },
        ..reader.clone()
    };
    walk.news().await;
    for _ in 0..500 {
        let flood = service.require(&at("POST /v1/apps"), Scope::Manage).await;
        assert!(flood.is_err());
    }
    assert_eq!(walk.news().await.len(), limits::DENIALS_AT_ONCE as usize);
    let hidden = at("POST /v1/rotations/{rotationId}/undo");
    assert!(service.require(&hidden, Scope::Secrets).await.is_err());
    let entries = walk.news().await;
    assert_eq!(entries.len(), 1);
    assert_eq!(
        Some(&entries[0].entry.detail["route"]),
        hidden.asked.route.as_ref()
    );
    walk.bench.clock.advance(limits::DENIAL_EVERY);
    service.settle().await.unwrap();
    let entries = walk.news().await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0].entry.detail["route"], "POST /v1/apps");
    assert_eq!(entries[0].entry.detail["leftOut"], "480");
}

#[tokio::test]
async fn g9_a_flood_of_denied_attempts_is_bounded_and_counted() {
    let mut walk = Walk::new().await;
    let service = Arc::clone(&walk.bench.service);
    let reader = walk.bench.limited(&[Scope::Read]).await;
    walk.news().await;
    for _ in 0..500 {
        assert!(service.require(&reader, Scope::Manage).await.is_err());
    }
    let written = walk.news().await.len();
    assert_eq!(written, limits::DENIALS_AT_ONCE as usize);
    walk.bench.clock.advance(limits::DENIAL_EVERY);
    service.settle().await.unwrap();
    let entries = walk.news().await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].entry.detail["leftOut"], "480");
    assert_eq!(entries[0].context.actor, Actor::ApiKey(reader.key.id));
    service.settle().await.unwrap();
    assert_eq!(walk.news().await.len(), 0);
}

#[tokio::test]
async fn g9_whoever_reaches_for_anothers_things_is_in_the_owners_log() {
    let mut walk = Walk::new().await;
    walk.take(Step::Create).await;
    walk.take(Step::Create).await;
    let app = walk.bench.app().await;
    let endpoint = walk.bench.endpoint(app).await.endpoint.id;
    let stranger = walk.bench.stranger().await;
    let service = Arc::clone(&walk.bench.service);
    let (keyring, rotation, secret) = (walk.keyring, walk.rotation(), walk.pending());
    let there = walk.bench.live.workspace(stranger.workspace).unwrap();
    let their_keyring = there.shared_keyring;
    let (owner_key, home) = (walk.caller.key.id, walk.caller.workspace);
    walk.news().await;
    for what in [
        "keyring",
        "secret",
        "secret in a keyring of one's own",
        "app",
        "endpoint",
        "rehearsal",
        "rotation",
        "API key",
        "workspace",
        "named",
    ] {
        let refused = match what {
            "keyring" => service.keyring(&stranger, keyring).await.map(drop),
            "secret" => service
                .change_shared_secret(&stranger, secret, SharedPatch::default())
                .await
                .map(drop),
            "secret in a keyring of one's own" => service
                .reveal_secret(&stranger, their_keyring, secret)
                .await
                .map(drop),
            "app" => service.rotate_primary(&stranger, app, None).await.map(drop),
            "endpoint" => service.endpoint(&stranger, app, endpoint).await.map(drop),
            "rehearsal" => service
                .rehearse(&stranger, endpoint, &NeverAsked, None)
                .await
                .map(drop),
            "rotation" => service
                .finish_rotation(&stranger, rotation, None, None)
                .await
                .map(drop),
            "API key" => service
                .revoke_api_key(&stranger, owner_key, None)
                .await
                .map(drop),
            "workspace" => service.workspace(&stranger, home).await.map(drop),
            _ => {
                let (key, name) = (Arc::clone(&stranger.key), home.to_string());
                service
                    .caller_for(key, Some(&name), "req_stranger", None)
                    .map(drop)
            }
        };
        let missing = matches!(refused, Err(ServiceError::NotFound { .. }));
        assert!(missing, "{what}: {refused:?}");
        let entries = walk.awaited(1).await;
        assert_eq!(entries.len(), 1, "{what}");
        assert_eq!(entries[0].context.actor, Actor::ApiKey(stranger.key.id));
        let cause = &entries[0].entry.detail["cause"];
        assert_eq!(cause, "belongs to another workspace", "{what}");
        walk.bench.clock.advance(HOUR);
    }
}

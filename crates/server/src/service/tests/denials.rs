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
use super::super::rotation::{ModeName, NewRotation};
use super::super::testing::key_input;
use super::super::workspaces::WorkspacePatch;
use super::super::{Caller, Service, ServiceError};
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
        ..Refused::default()
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
            "PATCH /connect/v1/apps/{clientId}/webhook_config",
            Subject {
                app: Some(app),
                ..none
            },
            Some(own),
        ),
        ("POST /kore/v1/secrets", none, Some(active)),
        ("GET /kore/v1/secrets", none, None),
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
        if route.contains("/kore/") {
            assert_eq!(entries[0].entry.subject.keyring, keyring, "{route}");
        }
    }
}

/// The entries of a caller's log that came after `seen`, which moves.
async fn since(service: &Service, caller: &Caller, seen: &mut u64) -> Vec<Recorded> {
    let log = service.audit_log(caller, *seen, 200).await.unwrap().items;
    *seen = log.last().map_or(*seen, |last| last.seq);
    log
}

/// Whoever shows no known key is in the log of the workspace that has what they named, with the secret
/// that it was about.
#[tokio::test]
async fn g9_a_stranger_is_in_the_log_of_whatever_they_named() {
    let mut walk = Walk::new().await;
    let service = Arc::clone(&walk.bench.service);
    let theirs = walk.bench.stranger().await;
    let made = service.create_configured_app(&theirs, "hopae".to_owned(), None);
    let made = made.await.unwrap();
    let (app, primary) = (made.app.id, made.primary.unwrap());
    let staged = NewRotation {
        mode: ModeName::Staged,
        overlap: None,
        deadline_at: None,
        policy: None,
        name: None,
        value: None,
        reason: None,
    };
    let opened = service.open_rotation(&theirs, primary.keyring, staged, None, None);
    let rotation = opened.await.unwrap().rotation;
    let keyring = walk.bench.live.keyring(primary.keyring).unwrap();
    let active = keyring.active().unwrap().clone();
    let pending = keyring.pending().unwrap().clone();
    let on_app = Subject {
        app: Some(app),
        ..Subject::default()
    };
    let on_endpoint = Subject {
        endpoint: Some(primary.id),
        ..on_app
    };
    let on_rotation = Subject {
        rotation: Some(rotation.id),
        ..Subject::default()
    };
    let mut seen = 0;
    since(&service, &theirs, &mut seen).await;
    walk.news().await;
    for (route, subject, wanted) in [
        (
            "POST /connect/v1/apps/{clientId}/webhook-config/rotate-secret",
            on_app,
            Some(&active),
        ),
        (
            "POST /connect/v1/apps/{clientId}/webhook_config/rotate-secret",
            on_app,
            Some(&active),
        ),
        (
            "GET /connect/v1/apps/{clientId}/webhook-config",
            on_app,
            Some(&active),
        ),
        (
            "POST /v1/rotations/{rotationId}/promote",
            on_rotation,
            Some(&pending),
        ),
        (
            "POST /v1/endpoints/{endpointId}/rehearse",
            on_endpoint,
            Some(&active),
        ),
        (
            "DELETE /v1/apps/{clientId}/endpoints/{endpointId}",
            on_endpoint,
            Some(&active),
        ),
        (
            "PATCH /v1/apps/{clientId}/endpoints/{endpointId}",
            on_endpoint,
            None,
        ),
        ("DELETE /v1/apps/{clientId}", on_app, None),
    ] {
        for (bearer, cause) in [(None, "no key"), (Some("sk_wrong"), "unknown key")] {
            let refused = Refused {
                bearer,
                request_id: "req_refused".to_owned(),
                asked: Asked {
                    route: Some(route.to_owned()),
                    subject,
                },
                ..Refused::default()
            };
            service.note_refused(refused).await;
            let entries = since(&service, &theirs, &mut seen).await;
            assert_eq!(entries.len(), 1, "{route}");
            assert_eq!(entries[0].context.actor, Actor::Unknown);
            let entry = &entries[0].entry;
            assert_eq!(entry.detail["cause"], cause, "{route}");
            let named = (entry.subject.secret, entry.fingerprint);
            let secret = (wanted.map(|s| s.id), wanted.map(|s| s.fingerprint));
            assert_eq!(named, secret, "{route}");
            if wanted.is_some() {
                assert_eq!(entry.subject.keyring, Some(keyring.id), "{route}");
            }
        }
    }
    assert_eq!(walk.news().await.len(), 0, "it is nobody else's affair");
}

/// What names nothing is for the workspace that the request names, or that operators act in.
#[tokio::test]
async fn g9_a_stranger_who_names_no_thing_is_where_an_operator_would_act() {
    let mut walk = Walk::new().await;
    walk.take(Step::Create).await;
    let home = walk.active();
    let service = Arc::clone(&walk.bench.service);
    let theirs = walk.bench.stranger().await;
    let shared = service.shared_keyring(&theirs).await.unwrap().id;
    let refused = |workspace| Refused {
        workspace,
        asked: Asked {
            route: Some("POST /kore/v1/secrets".to_owned()),
            subject: Subject::default(),
        },
        ..Refused::default()
    };
    let mut seen = 0;
    since(&service, &theirs, &mut seen).await;
    walk.news().await;
    service.note_refused(refused(Some("other"))).await;
    let entries = since(&service, &theirs, &mut seen).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].entry.subject.keyring, Some(shared));
    assert_eq!(entries[0].entry.fingerprint, None, "there is no secret yet");
    let created = service.create_shared_secret(&theirs, "first".to_owned(), None);
    let created = created.await.unwrap().once.secret;
    since(&service, &theirs, &mut seen).await;
    service.note_refused(refused(Some("other"))).await;
    let entries = since(&service, &theirs, &mut seen).await;
    assert_eq!(entries[0].entry.fingerprint, Some(created.fingerprint));
    for workspace in [None, Some("nowhere")] {
        service.note_refused(refused(workspace)).await;
        let entries = walk.news().await;
        assert_eq!(entries.len(), 1, "{workspace:?}");
        assert_eq!(entries[0].entry.subject.secret, Some(home));
        assert!(entries[0].entry.fingerprint.is_some());
    }
    assert_eq!(since(&service, &theirs, &mut seen).await.len(), 0);
}

/// A key that would not do at home is in both logs: its own says the same of what does not exist.
#[tokio::test]
async fn g9_a_key_that_may_not_and_reaches_for_anothers_things_is_in_both_logs() {
    let mut walk = Walk::new().await;
    walk.take(Step::Create).await;
    let (keyring, secret) = (walk.keyring, walk.active());
    let service = Arc::clone(&walk.bench.service);
    let theirs = walk.bench.stranger().await;
    let made = service.create_api_key(
        &theirs,
        key_input([Scope::Read].into_iter().collect()),
        None,
    );
    let made = made.await.unwrap();
    let reader = service.caller_for(Arc::new(made.key.clone()), None, "req_reader", None);
    let reader = reader.unwrap();
    let asked = Asked {
        route: Some("POST /v1/keyrings/{keyringId}/secrets/{secretId}/reveal".to_owned()),
        subject: Subject {
            keyring: Some(keyring),
            secret: Some(secret),
            ..Subject::default()
        },
    };
    let mut seen = 0;
    since(&service, &theirs, &mut seen).await;
    walk.news().await;
    let caller = Caller {
        asked: asked.clone(),
        ..reader
    };
    let check = |entries: &[Recorded], known: bool, cause: &str| {
        assert_eq!(entries.len(), 1, "{cause}");
        assert_eq!(entries[0].context.actor, Actor::ApiKey(made.key.id));
        let entry = &entries[0].entry;
        assert_eq!(entry.detail["cause"], cause);
        assert_eq!(entry.subject.secret, Some(secret));
        assert_eq!(entry.fingerprint.is_some(), known, "{cause}");
    };
    assert!(service.require(&caller, Scope::Secrets).await.is_err());
    check(
        &since(&service, &theirs, &mut seen).await,
        false,
        "not allowed",
    );
    check(&walk.news().await, true, "not allowed");
    let revoked = service.revoke_api_key(&theirs, made.key.id, None);
    revoked.await.unwrap();
    since(&service, &theirs, &mut seen).await;
    let refused = Refused {
        bearer: Some(&made.text),
        asked,
        ..Refused::default()
    };
    service.note_refused(refused).await;
    check(
        &since(&service, &theirs, &mut seen).await,
        false,
        "revoked key",
    );
    check(&walk.news().await, true, "revoked key");
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

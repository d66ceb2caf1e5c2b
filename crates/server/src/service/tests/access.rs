//! Who may do what, and where.

use std::sync::Arc;

use hookturn_core::audit::{Actor, AuditAction};
use hookturn_core::id::ApiKeyId;
use hookturn_core::limits;
use hookturn_core::store::Store as _;
use hookturn_core::time::DAY;
use hookturn_core::workspace::{Environment, Reach, Scope, Scopes};

use super::super::api_keys::{NewApiKey, NewReach};
use super::super::rotation::{ModeName, NewRotation, RotationFilter};
use super::super::testing::{Bench, empty, endpoint_input, first_page, key_input, message};
use super::super::{Caller, ServiceError};

#[tokio::test]
async fn only_a_live_key_opens() {
    let bench = Bench::new().await;
    let input = NewApiKey {
        expires_at: Some(bench.service.now().after(DAY)),
        ..key_input(Scopes::EVERY)
    };
    let expiring = bench
        .service
        .create_api_key(&bench.owner, input, None)
        .await
        .unwrap();
    let revoked = bench
        .service
        .create_api_key(&bench.owner, key_input(Scopes::EVERY), None)
        .await
        .unwrap();
    assert!(expiring.text.starts_with("sk_workspace_test_"));
    assert_eq!(expiring.text.len(), "sk_workspace_test_".len() + 43);
    assert_eq!(expiring.key.hint, expiring.text[expiring.text.len() - 4..]);
    for made in [&expiring, &revoked] {
        let key = bench.service.authenticate(&made.text).unwrap();
        assert_eq!(key.id, made.key.id);
        assert!(bench.live.api_key_used_at(key.id).is_some());
    }
    // The use is handed to the store by a task of its own; once that ran, a flush covers it.
    tokio::task::yield_now().await;
    bench.store.flush().await.unwrap();
    let stored = bench.store.load().await.unwrap().api_key_uses;
    assert!(stored.iter().any(|(key, _)| *key == expiring.key.id));

    bench
        .service
        .revoke_api_key(&bench.owner, revoked.key.id, None)
        .await
        .unwrap();
    bench.clock.advance(DAY);
    let almost = format!("{}x", &expiring.text[..expiring.text.len() - 1]);
    let long = "x".repeat(10_000);
    for text in [&*expiring.text, &*revoked.text, &almost, "", &long] {
        let refused = bench.service.authenticate(text);
        assert!(matches!(refused, Err(ServiceError::Unauthorized)), "{text}");
    }
    let session = bench.service.authenticate_session(revoked.key.id);
    assert!(matches!(session, Err(ServiceError::Unauthorized)));
}

#[tokio::test]
async fn a_missing_scope_is_refused_and_audited() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let reader = bench.limited(&[Scope::Read]).await;
    let refused = bench
        .service
        .publish(&reader, app, message("a.b"), None)
        .await;
    assert!(matches!(
        refused,
        Err(ServiceError::Forbidden {
            needs: Scope::Publish
        })
    ));
    let log = bench.service.audit_log(&bench.owner, 0, 50).await.unwrap();
    let denied = log.items.last().unwrap();
    assert_eq!(denied.entry.action, AuditAction::AccessDenied);
    assert_eq!(denied.entry.detail["needs"], "publish");
    assert_eq!(denied.context.actor, Actor::ApiKey(reader.key.id));
    assert_eq!(denied.context.request_id.as_deref(), Some("req_limited"));
}

fn assert_not_found<T: std::fmt::Debug>(what: &str, result: Result<T, ServiceError>) {
    match result {
        Err(ServiceError::NotFound { .. }) => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test]
async fn what_belongs_to_another_workspace_does_not_exist() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let stranger = bench.stranger().await;
    let app = bench.app().await;
    let made = bench.endpoint(app).await;
    let (endpoint, keyring) = (made.endpoint.id, made.endpoint.keyring);
    let secret = made.once.unwrap().secret.id;
    let input = NewRotation {
        mode: ModeName::Overlap,
        overlap: None,
        deadline_at: None,
        policy: None,
        name: None,
        value: None,
        reason: None,
    };
    let opened = service
        .open_rotation(owner, keyring, input.clone(), None, None)
        .await
        .unwrap();
    let rotation = opened.rotation.id;
    let sent = service.publish(owner, app, message("a.b"), None).await;
    let sent = sent.unwrap();
    let listed = service.deliveries(owner, app, <_>::default(), first_page());
    let delivery = listed.await.unwrap().items[0].id;

    assert_not_found("app", service.app(&stranger, app).await);
    let deleted = service.delete_app(&stranger, app, None, None).await;
    assert_not_found("delete app", deleted);
    let found = service.endpoint(&stranger, app, endpoint).await;
    assert_not_found("endpoint", found);
    let created = service.create_endpoint(&stranger, app, endpoint_input(), None);
    assert_not_found("create endpoint", created.await);
    assert_not_found("keyring", service.keyring(&stranger, keyring).await);
    let revealed = service.reveal_secret(&stranger, keyring, secret).await;
    assert_not_found("reveal", revealed);
    let rotated = service.open_rotation(&stranger, keyring, input, None, None);
    assert_not_found("rotate", rotated.await);
    assert_not_found("rotation", service.rotation(&stranger, rotation).await);
    let finished = service.finish_rotation(&stranger, rotation, None, None);
    assert_not_found("finish", finished.await);
    let found = service.message(&stranger, app, sent).await;
    assert_not_found("message", found);
    let published = service.publish(&stranger, app, message("a.b"), None).await;
    assert_not_found("publish", published);
    assert_not_found("delivery", service.delivery(&stranger, delivery).await);
    let retried = service.retry_delivery(&stranger, delivery, None).await;
    assert_not_found("retry", retried);
    let revoked = service.revoke_api_key(&stranger, owner.key.id, None).await;
    assert_not_found("revoke", revoked);
    let read = service.workspace(&stranger, owner.workspace).await;
    assert_not_found("workspace", read);

    let none = RotationFilter::default();
    let rotations = service.rotations(&stranger, none, first_page()).await;
    assert_eq!(rotations.unwrap().items, []);
    let reached = service.workspaces(&stranger, first_page()).await.unwrap();
    assert_eq!(reached.items.len(), 1);
    let all = service.workspaces(&bench.operator, first_page()).await;
    assert_eq!(all.unwrap().items.len(), 2);
}

#[tokio::test]
async fn a_workspace_key_acts_at_home_and_an_operator_where_it_says() {
    let bench = Bench::new().await;
    let other = bench.workspace("other").await;
    let at = |caller: &Caller, header: Option<&str>| {
        let made = bench
            .service
            .caller_for(Arc::clone(&caller.key), header, "req", None);
        made.map(|caller| caller.workspace)
    };
    let home = bench.owner.workspace;
    assert_eq!(at(&bench.owner, None).unwrap(), home);
    assert_eq!(at(&bench.owner, Some("default")).unwrap(), home);
    assert_eq!(at(&bench.owner, Some(&home.to_string())).unwrap(), home);
    assert_not_found("foreign", at(&bench.owner, Some("other")));
    assert_eq!(at(&bench.operator, None).unwrap(), home);
    assert_eq!(at(&bench.operator, Some("other")).unwrap(), other.id);
    assert_not_found("unknown", at(&bench.operator, Some("nowhere")));
}

#[tokio::test]
async fn a_key_cannot_make_one_that_can_do_reach_or_outlive_more() {
    let bench = Bench::new().await;
    let manager = bench.limited(&[Scope::Manage, Scope::Read]).await;
    let create = async |caller: &Caller, input: NewApiKey| {
        let made = bench.service.create_api_key(caller, input, None).await;
        made.map(|made| made.key)
    };
    let refused = create(&manager, key_input(Scopes::EVERY)).await;
    assert!(matches!(
        refused,
        Err(ServiceError::Forbidden {
            needs: Scope::Publish
        })
    ));
    let operator = NewApiKey {
        reach: NewReach::Operator,
        ..key_input(Scopes::EVERY)
    };
    let refused = create(&bench.owner, operator.clone()).await;
    assert!(matches!(refused, Err(ServiceError::OperatorOnly)));
    assert_eq!(
        create(&bench.operator, operator).await.unwrap().reach,
        Reach::Operator
    );

    let same: Scopes = [Scope::Manage, Scope::Read].into_iter().collect();
    let prod = NewApiKey {
        reach: NewReach::Workspace(Environment::Prod),
        expires_at: Some(bench.service.now().after(DAY)),
        ..key_input(same)
    };
    let expiring = create(&manager, prod).await.unwrap();
    let expiring = bench
        .service
        .caller_for(Arc::new(expiring), None, "req", None)
        .unwrap();
    for expires_at in [None, Some(bench.service.now().after(2 * DAY))] {
        let input = NewApiKey {
            expires_at,
            ..key_input(same)
        };
        let refused = create(&expiring, input).await;
        assert!(
            matches!(&refused, Err(ServiceError::Invalid { pointer, .. }) if pointer == "/expiresAt"),
            "{refused:?}"
        );
    }
    let none = create(&bench.owner, key_input(Scopes::default())).await;
    assert!(matches!(none, Err(ServiceError::Invalid { pointer, .. }) if pointer == "/scopes"));
}

#[tokio::test]
async fn operators_see_their_keys_and_workspaces_only_theirs() {
    let bench = Bench::new().await;
    let ids = async |caller: &Caller| -> Vec<ApiKeyId> {
        let listed = bench.service.api_keys(caller, first_page()).await.unwrap();
        listed.items.iter().map(|listed| listed.key.id).collect()
    };
    let (owner, operator) = (bench.owner.key.id, bench.operator.key.id);
    assert_eq!(ids(&bench.owner).await, [owner]);
    let mut both = ids(&bench.operator).await;
    both.sort_unstable();
    let mut expected = [owner, operator];
    expected.sort_unstable();
    assert_eq!(both, expected);
    let revoked = bench.service.revoke_api_key(&bench.owner, operator, None);
    assert_not_found("operator key", revoked.await);
}

#[tokio::test]
async fn bootstrap_happens_once_and_takes_a_strong_text_only() {
    let (service, _store, live, _clock, _directory) = empty();
    for weak in ["short", "has spaces in it, many"] {
        let refused = service.bootstrap(weak.to_owned()).await;
        assert!(matches!(refused, Err(ServiceError::Invalid { .. })));
    }
    assert!(live.workspaces().is_empty());

    let text = "sk_workspace_prod_0123456789abcdef".to_owned();
    let made = service.bootstrap(text.clone()).await.unwrap();
    let made = made.unwrap();
    let workspace = live.workspace_named("default").unwrap();
    assert_eq!(
        made.key.reach,
        Reach::Workspace {
            workspace: workspace.id,
            environment: Environment::Prod
        }
    );
    assert_eq!(made.key.scopes, Scopes::EVERY);
    assert_eq!(service.authenticate(&text).unwrap().id, made.key.id);
    assert!(live.keyring(workspace.shared_keyring).is_some());
    assert!(!format!("{made:?}").contains("0123456789abcdef"));

    assert!(service.bootstrap(text).await.unwrap().is_none());
    assert!(service.first_key_text().is_none());
    assert_eq!(live.workspaces().len(), 1);
}

#[tokio::test]
async fn a_reason_is_bounded() {
    let bench = Bench::new().await;
    let key = Arc::clone(&bench.owner.key);
    let reason = "x".repeat(limits::TEXT_CHARS + 1);
    let made = bench.service.caller_for(key, None, "req", Some(reason));
    assert!(matches!(made, Err(ServiceError::Invalid { .. })));
}

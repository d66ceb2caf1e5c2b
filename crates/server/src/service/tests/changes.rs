//! An entry about a change says what changed, and never what may be a credential.

use std::collections::BTreeMap;

use hookturn_core::audit::AuditAction;
use hookturn_core::time::HOUR;
use hookturn_core::workspace::{RevealPolicy, Scope, Scopes};

use super::super::api_keys::{NewApiKey, NewReach};
use super::super::apps::AppPatch;
use super::super::endpoints::{ConfiguredAppPatch, EndpointPatch, PrimaryPatch, Switch};
use super::super::schedules::SchedulePatch;
use super::super::testing::{Bench, key_input};
use super::super::workspaces::WorkspacePatch;
use super::schedules::monthly;

/// The details of the last entry with this action.
async fn told(bench: &Bench, action: &AuditAction) -> BTreeMap<String, String> {
    let log = bench.service.audit_log(&bench.owner, 0, 200).await.unwrap();
    let mut entries = log.items.into_iter().rev();
    let found = entries.find(|recorded| recorded.entry.action == *action);
    found.unwrap().entry.detail
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[tokio::test]
async fn g9_what_changed_of_an_endpoint_is_told_without_credentials() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let id = bench.endpoint(app).await.endpoint.id;
    let patch = async |patch| {
        let patched = service.patch_endpoint(owner, app, id, patch, None, None);
        patched.await.map(drop).unwrap();
    };
    patch(EndpointPatch {
        headers: Some(pairs(&[("x-api-token", "credential-1"), ("x-tenant", "a")])),
        ..EndpointPatch::default()
    })
    .await;
    patch(EndpointPatch {
        url: Some("https://new.example/credential-2?key=credential-3".to_owned()),
        description: Some("moved".to_owned()),
        events: Some(vec!["order.*".to_owned()]),
        headers: Some(pairs(&[("x-api-token", "credential-4"), ("x-new", "b")])),
        state: Some(Switch::Paused),
        rate_limit_per_second: Some(Some(5)),
        ..EndpointPatch::default()
    })
    .await;
    let detail = told(&bench, &AuditAction::EndpointUpdated).await;
    assert_eq!(
        detail["changed"],
        "url, description, events, headers, state, rateLimitPerSecond"
    );
    assert!(detail["url"].starts_with("https://new.example (sha256 "));
    for (name, now, was) in [
        ("description", "moved", ""),
        ("events", "order.*", "all"),
        ("state", "paused", "enabled"),
        ("rateLimitPerSecond", "5", "none"),
    ] {
        assert_eq!(detail[name], now);
        assert_eq!(detail[&format!("{name}.was")], was);
    }
    assert_eq!(detail["headers.added"], "x-new");
    assert_eq!(detail["headers.changed"], "x-api-token");
    assert_eq!(detail["headers.removed"], "x-tenant");
    assert!(!format!("{detail:?}").contains("credential"), "{detail:?}");
}

/// How many entries the log has, and what everything that can be patched is, versions included.
async fn state(bench: &Bench) -> (usize, String) {
    let log = bench.service.audit_log(&bench.owner, 0, 200).await.unwrap();
    let live = &bench.live;
    let home = bench.owner.workspace;
    let all = (
        live.workspace(home),
        live.apps(home),
        live.all_endpoints(),
        live.schedules(),
        live.api_keys(),
    );
    (log.items.len(), format!("{all:?}"))
}

/// Whoever says what is so already changed nothing, and nothing is said of it.
#[tokio::test]
async fn g9_a_patch_that_changes_nothing_is_not_in_the_log() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let until = service.now().after(HOUR);
    let input = NewApiKey {
        expires_at: Some(until),
        ..key_input(Scopes::EVERY)
    };
    let key = service.create_api_key(owner, input, None).await.unwrap();
    let schedule = service.create_schedule(owner, monthly(), None);
    let schedule = schedule.await.unwrap().schedule;
    bench.clock.advance(1_000);
    let before = state(&bench).await;
    for name in [Some("shop"), None] {
        let patch = AppPatch {
            name: name.map(str::to_owned),
            ..AppPatch::default()
        };
        let same = service.patch_app(owner, app, patch, Some(1), None);
        assert_eq!(same.await.unwrap().version, 1);
        assert_eq!(state(&bench).await, before, "app {name:?}");
    }
    for reveal_secrets in [Some(RevealPolicy::Allowed), None] {
        let patch = WorkspacePatch {
            reveal_secrets,
            ..WorkspacePatch::default()
        };
        let same = service.patch_workspace(owner, owner.workspace, patch, None, None);
        same.await.unwrap();
        assert_eq!(state(&bench).await, before, "workspace {reveal_secrets:?}");
    }
    for timing in [Some(schedule.timing), None] {
        let patch = SchedulePatch {
            timing,
            paused: Some(false),
            ..SchedulePatch::default()
        };
        let same = service.patch_schedule(owner, schedule.id, patch, None);
        assert_eq!(same.await.unwrap().schedule, schedule);
        assert_eq!(state(&bench).await, before, "schedule {timing:?}");
    }
    let same = service.expire_api_key(owner, key.key.id, until);
    assert_eq!(same.await.unwrap().key.version, key.key.version);
    assert_eq!(state(&bench).await, before, "API key");
}

#[tokio::test]
async fn g9_a_patch_that_changes_nothing_of_an_endpoint_is_not_in_the_log() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let made = service.create_configured_app(owner, "hopae".to_owned(), None);
    let hopae = made.await.unwrap().app.id;
    let app = bench.app().await;
    let endpoint = bench.endpoint(app).await.endpoint;
    // Whoever may see the secret is shown it in the answer, and that is told.
    let manager = &bench.limited(&[Scope::Manage]).await;
    bench.clock.advance(1_000);
    let before = state(&bench).await;
    let said_again = EndpointPatch {
        url: endpoint.url.as_ref().map(|url| url.as_str().to_owned()),
        timeout_millis: Some(endpoint.timeout_millis),
        state: Some(Switch::Enabled),
        ..EndpointPatch::default()
    };
    for patch in [said_again, EndpointPatch::default()] {
        let same = service.patch_endpoint(owner, app, endpoint.id, patch, None, None);
        assert_eq!(same.await.unwrap(), endpoint);
    }
    let same = service.switch_endpoint(owner, app, endpoint.id, Switch::Enabled, None, None);
    assert_eq!(same.await.unwrap(), endpoint);
    assert_eq!(state(&bench).await, before, "endpoint");
    let said_again = PrimaryPatch {
        enabled: Some(false),
        retry_attempts: Some(3),
        events: Some(Vec::new()),
        ..PrimaryPatch::default()
    };
    let same = service.patch_primary(manager, hopae, said_again.clone());
    same.await.unwrap();
    assert_eq!(state(&bench).await, before, "webhook config");
    for patch in [
        ConfiguredAppPatch {
            name: Some("hopae".to_owned()),
            webhook_config: Some(said_again),
        },
        ConfiguredAppPatch::default(),
    ] {
        let same = service.patch_configured_app(owner, hopae, patch);
        same.await.unwrap();
    }
    assert_eq!(state(&bench).await, before, "Hopae's app");
    let renamed = ConfiguredAppPatch {
        name: Some("store".to_owned()),
        webhook_config: Some(PrimaryPatch::default()),
    };
    let renamed = service.patch_configured_app(owner, hopae, renamed);
    assert_eq!(renamed.await.unwrap().app.name, "store");
    let after = state(&bench).await;
    assert_eq!(after.0, before.0 + 1, "one entry, about the app");
    let detail = told(&bench, &AuditAction::AppUpdated).await;
    assert_eq!(detail["changed"], "name");
}

#[tokio::test]
async fn g9_what_changed_by_the_hopae_dialect_is_told() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let made = service.create_configured_app(owner, "shop".to_owned(), None);
    let app = made.await.unwrap().app.id;
    let patch = PrimaryPatch {
        timeout_seconds: Some(20),
        ..PrimaryPatch::default()
    };
    let patched = service.patch_primary(owner, app, patch);
    patched.await.map(drop).unwrap();
    let detail = told(&bench, &AuditAction::EndpointUpdated).await;
    assert_eq!(detail["timeoutMillis"], "20000");
    assert_eq!(detail["timeoutMillis.was"], "10000");
}

#[tokio::test]
async fn g9_what_changed_of_an_app_and_a_workspace_is_told() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let patch = AppPatch {
        name: Some("store".to_owned()),
        labels: Some(pairs(&[("env", "prod")])),
        rotation_overlap_seconds: Some(Some(60)),
    };
    service
        .patch_app(owner, app, patch, None, None)
        .await
        .unwrap();
    assert_eq!(
        told(&bench, &AuditAction::AppUpdated).await,
        pairs(&[
            ("changed", "name, labels, rotationOverlapSeconds"),
            ("name", "store"),
            ("name.was", "shop"),
            ("labels", "env=prod"),
            ("labels.was", ""),
            ("rotationOverlapSeconds", "60"),
            ("rotationOverlapSeconds.was", "none"),
        ])
    );
    let patch = WorkspacePatch {
        reveal_secrets: Some(RevealPolicy::Never),
        operational_app: Some(Some(app)),
        ..WorkspacePatch::default()
    };
    let patched = service.patch_workspace(owner, owner.workspace, patch, None, None);
    patched.await.unwrap();
    assert_eq!(
        told(&bench, &AuditAction::WorkspaceUpdated).await,
        pairs(&[
            ("changed", "revealSecrets, operationalApp"),
            ("revealSecrets", "never"),
            ("revealSecrets.was", "allowed"),
            ("operationalApp", app.as_str()),
            ("operationalApp.was", "none"),
        ])
    );
}

#[tokio::test]
async fn g9_an_api_key_is_told_with_what_it_may_do_and_reach() {
    let bench = Bench::new().await;
    let service = &bench.service;
    let there = bench.operator.clone();
    let until = service.now().after(HOUR);
    let input = NewApiKey {
        expires_at: Some(until),
        ..key_input([Scope::Read].into_iter().collect())
    };
    let made = service.create_api_key(&there, input.clone(), None);
    let made = made.await.unwrap();
    let detail = told(&bench, &AuditAction::ApiKeyCreated).await;
    assert_eq!(
        (&*detail["reach"], &*detail["scopes"]),
        ("workspace", "read")
    );
    assert_eq!(detail["expiresAt"], until.to_string());
    let later = until.after(HOUR);
    let moved = service.expire_api_key(&there, made.key.id, later);
    moved.await.unwrap();
    let detail = told(&bench, &AuditAction::ApiKeyExpiryChanged).await;
    assert_eq!(detail["expiresAt"], later.to_string());
    assert_eq!(detail["expiresAt.was"], until.to_string());
    let input = NewApiKey {
        reach: NewReach::Operator,
        scopes: Scopes::EVERY,
        ..input
    };
    service.create_api_key(&there, input, None).await.unwrap();
    assert_eq!(
        told(&bench, &AuditAction::ApiKeyCreated).await["reach"],
        "operator"
    );
}

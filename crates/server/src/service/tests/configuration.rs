//! Apps, endpoints, workspaces: what is configured and what is refused.

use std::collections::BTreeMap;

use hookturn_core::audit::AuditAction;
use hookturn_core::endpoint::{EndpointState, HeaderRenames, Method, Preset};
use hookturn_core::limits;
use hookturn_core::retry::{RetryOn, RetryPolicy};
use hookturn_core::rotation::{KeyKind, SecretStatus};
use hookturn_core::workspace::{RevealPolicy, Scope};
use zeroize::Zeroizing;

use super::super::ServiceError;
use super::super::apps::{AppPatch, AppPlace, NewApp};
use super::super::audit::AuditProof;
use super::super::endpoints::{EndpointPatch, KeyringChoice, NewEndpoint, Switch};
use super::super::keyrings::NewSecretInput;
use super::super::rotation::{ModeName, NewRotation};
use super::super::testing::{Bench, endpoint_input, first_page};
use super::super::workspaces::WorkspacePatch;

fn pointer_of<T: std::fmt::Debug>(result: Result<T, ServiceError>) -> String {
    match result {
        Err(ServiceError::Invalid { pointer, .. }) => pointer,
        other => panic!("expected a refused field, got {other:?}"),
    }
}

fn own(kind: KeyKind, secret: Option<&str>) -> KeyringChoice {
    KeyringChoice::Own {
        kind,
        secret: secret.map(|text| Zeroizing::new(text.to_owned())),
        secret_name: None,
    }
}

#[tokio::test]
async fn g3_an_endpoint_is_made_with_an_active_secret_whose_value_is_shown_once() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let made = bench.endpoint(app).await;
    let once = made.once.unwrap();
    assert_eq!(once.value.expose().len(), "whsec_".len() + 64);
    assert_eq!(once.value.fingerprint(), once.secret.fingerprint);

    let found = bench.service.keyring(&bench.owner, made.endpoint.keyring);
    let found = found.await.unwrap();
    assert_eq!((found.version, found.check()), (1, Ok(())));
    assert_eq!(found.active(), Some(&once.secret));
    let read = bench
        .service
        .endpoint(&bench.owner, app, made.endpoint.id)
        .await
        .unwrap();
    assert_eq!(*read, made.endpoint);
    let sealed = bench.live.sealed_secret(once.secret.id).unwrap();
    let plain = once.value.expose().as_bytes();
    assert!(!sealed.sealed.windows(plain.len()).any(|w| w == plain));

    let log = bench.service.audit_log(&bench.owner, 0, 50).await.unwrap();
    let actions: Vec<_> = log.items.iter().map(|r| r.entry.action.clone()).collect();
    for expected in [
        AuditAction::EndpointCreated,
        AuditAction::KeyringCreated,
        AuditAction::SecretCreated,
    ] {
        assert!(actions.contains(&expected), "{expected}");
    }
    let proof = bench.service.verify_audit(&bench.owner).await.unwrap();
    let AuditProof::Whole { head } = proof else {
        panic!("{proof:?}")
    };
    assert_eq!(head.seq, log.items.last().unwrap().seq);
}

#[tokio::test]
async fn g3_an_endpoint_cannot_use_an_empty_shared_keyring() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let input = NewEndpoint {
        keyring: KeyringChoice::Shared,
        preset: Preset::Kore,
        ..endpoint_input()
    };
    let refused = service
        .create_endpoint(owner, app, input.clone(), None)
        .await;
    assert!(matches!(
        refused,
        Err(ServiceError::Conflict {
            code: "shared_keyring_empty",
            ..
        })
    ));
    assert!(bench.live.endpoints(owner.workspace, app).is_empty());

    let shared = bench
        .live
        .workspace(owner.workspace)
        .unwrap()
        .shared_keyring;
    let first = NewSecretInput {
        name: Some("first".to_owned()),
        value: Some(Zeroizing::new("a text that only KORE can use".to_owned())),
        ..NewSecretInput::default()
    };
    let first = service.create_secret(owner, shared, first, None, None);
    let first = first.await.unwrap();
    assert_eq!(first.rotation, None);
    assert_eq!(
        first.once.secret.status(service.now()),
        SecretStatus::Active
    );
    let made = service
        .create_endpoint(owner, app, input.clone(), None)
        .await;
    let made = made.unwrap();
    assert_eq!((made.endpoint.keyring, made.once.is_none()), (shared, true));
    let users = service.keyring_endpoints(owner, shared).await.unwrap();
    assert_eq!(users.len(), 1);

    let standard = NewEndpoint {
        preset: Preset::Standard,
        ..input
    };
    let refused = service.create_endpoint(owner, app, standard, None).await;
    assert_eq!(pointer_of(refused), "/keyring");
}

fn header(endpoint: &mut NewEndpoint, name: &str, value: &str) {
    endpoint.headers.insert(name.to_owned(), value.to_owned());
}

/// One change that makes a good endpoint impossible, and the field that is to blame.
type Case = (&'static str, fn(&mut NewEndpoint));

const IMPOSSIBLE: &[Case] = &[
    ("/url", |e| e.url = Some("ftp://receiver.example".into())),
    ("/url", |e| {
        e.url = Some("https://internal.example/x".into());
    }),
    ("/url", |e| e.url = None),
    ("/events/1", |e| {
        e.events = vec!["a.b".into(), "no spaces".into()];
    }),
    ("/events", |e| {
        e.events = vec!["a".into(); limits::EVENT_TYPES_PER_ENDPOINT + 1];
    }),
    ("/headers/webhook-id", |e| header(e, "webhook-id", "1")),
    ("/headers/host", |e| header(e, "host", "x")),
    ("/headers/x-a", |e| header(e, "x-a", "a\r\nb: c")),
    ("/headers/x~1a", |e| header(e, "x/a", "b")),
    ("/headers", |e| {
        for index in 0..=limits::CUSTOM_HEADERS {
            header(e, &format!("x-{index}"), "y");
        }
    }),
    ("/method", |e| e.method = Method::Get),
    ("/retry/delaysMillis", |e| {
        e.retry = Some(RetryPolicy {
            delays_millis: vec![1; limits::RETRIES + 1],
            jitter_percent: 0,
            retry_on: RetryOn::AnyFailure,
        });
    }),
    ("/timeoutMillis", |e| {
        e.timeout_millis = Some(limits::TIMEOUT_MAX + 1);
    }),
    ("/timeoutMillis", |e| e.timeout_millis = Some(0)),
    ("/connectTimeoutMillis", |e| {
        e.connect_timeout_millis = Some(20_000);
    }),
    ("/maxInFlight", |e| e.max_in_flight = Some(0)),
    ("/rateLimitPerSecond", |e| e.rate_limit_per_second = Some(0)),
    ("/description", |e| e.description = "x".repeat(300)),
    ("/secret", |e| {
        e.keyring = own(KeyKind::Symmetric, Some("not whsec"));
    }),
    ("/secret", |e| e.keyring = own(KeyKind::Symmetric, Some(""))),
    ("/secret", |e| {
        e.keyring = own(KeyKind::Ed25519, Some("whsec_abcd"));
    }),
    ("/secretType", |e| {
        e.keyring = own(KeyKind::Ed25519, None);
        e.preset = Preset::Hopae;
    }),
];

#[tokio::test]
async fn impossible_endpoints_are_refused_with_the_field() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    for (index, (pointer, spoil)) in IMPOSSIBLE.iter().enumerate() {
        let mut input = endpoint_input();
        spoil(&mut input);
        let refused = bench
            .service
            .create_endpoint(&bench.owner, app, input, None)
            .await;
        assert_eq!(pointer_of(refused), *pointer, "case {index}");
    }
    assert!(bench.live.endpoints(bench.owner.workspace, app).is_empty());
}

#[tokio::test]
async fn imported_and_ed25519_secrets_are_kept_as_given() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let create = async |input: NewEndpoint| {
        let made = bench
            .service
            .create_endpoint(&bench.owner, app, input, None);
        made.await.unwrap()
    };
    let made = create(NewEndpoint {
        keyring: own(KeyKind::Symmetric, Some("my own text")),
        preset: Preset::Hopae,
        ..endpoint_input()
    })
    .await;
    assert_eq!(made.once.unwrap().value.expose(), "my own text");
    assert_eq!(made.endpoint.retry, RetryPolicy::hopae(3));
    assert_eq!(made.endpoint.timeout_millis, 10_000);

    let made = create(NewEndpoint {
        keyring: own(KeyKind::Ed25519, None),
        ..endpoint_input()
    })
    .await;
    let once = made.once.unwrap();
    assert!(once.value.expose().starts_with("whsk_"));
    let shown = bench
        .service
        .public_key(&bench.owner, made.endpoint.keyring, once.secret.id)
        .await
        .unwrap();
    assert!(shown.is_some());
    assert_eq!(shown, once.value.public_key());
}

#[tokio::test]
async fn an_app_has_a_bounded_number_of_endpoints_also_when_they_are_made_at_once() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let creations = (0..limits::ENDPOINTS_PER_APP + 5).map(|_| {
        bench
            .service
            .create_endpoint(&bench.owner, app, endpoint_input(), None)
    });
    let results = futures_util::future::join_all(creations).await;
    let made = results.iter().filter(|made| made.is_ok()).count();
    let there = bench.live.endpoints(bench.owner.workspace, app).len();
    assert_eq!(made, there);
    assert!(there <= limits::ENDPOINTS_PER_APP, "{there}");
    for _ in there..limits::ENDPOINTS_PER_APP {
        bench.endpoint(app).await;
    }
    let refused = bench
        .service
        .create_endpoint(&bench.owner, app, endpoint_input(), None)
        .await;
    assert!(matches!(
        refused,
        Err(ServiceError::Conflict {
            code: "too_many_endpoints",
            ..
        })
    ));
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_only_on_the_version_it_saw() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let made = bench.endpoint(app).await.endpoint;
    let patch = |timeout_millis| EndpointPatch {
        timeout_millis: Some(timeout_millis),
        ..EndpointPatch::default()
    };
    let patched = service
        .patch_endpoint(owner, app, made.id, patch(2_000), Some(1), None)
        .await
        .unwrap();
    assert_eq!((patched.version, patched.timeout_millis), (2, 2_000));
    assert_eq!(patched.connect_timeout_millis, 2_000);
    assert_eq!((&patched.url, patched.keyring), (&made.url, made.keyring));
    let stale = service
        .patch_endpoint(owner, app, made.id, patch(3_000), Some(1), None)
        .await;
    assert!(matches!(
        stale,
        Err(ServiceError::PreconditionFailed { current: 2 })
    ));

    let switch = async |to| {
        let switched = service.switch_endpoint(owner, app, made.id, to, None, None);
        switched.await.unwrap().state
    };
    let disabled = switch(Switch::Disabled).await;
    assert!(matches!(disabled, EndpointState::Disabled { .. }));
    bench.clock.advance(5);
    assert_eq!(switch(Switch::Disabled).await, disabled);
    assert!(matches!(
        switch(Switch::Paused).await,
        EndpointState::Paused { .. }
    ));
    assert_eq!(switch(Switch::Enabled).await, EndpointState::Enabled);

    let current = service.app(owner, app).await.unwrap().version;
    let rename = AppPatch {
        name: Some("store".to_owned()),
        ..AppPatch::default()
    };
    let stale = service.patch_app(owner, app, rename.clone(), Some(current - 1), None);
    assert!(matches!(
        stale.await,
        Err(ServiceError::PreconditionFailed { .. })
    ));
    let renamed = service.patch_app(owner, app, rename, Some(current), None);
    assert_eq!(renamed.await.unwrap().name, "store");
}

#[tokio::test]
async fn concurrent_patches_all_happen() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let patches = (0..16).map(|index| {
        let patch = AppPatch {
            name: Some(format!("name {index}")),
            ..AppPatch::default()
        };
        bench
            .service
            .patch_app(&bench.owner, app, patch, None, None)
    });
    let mut versions: Vec<_> = futures_util::future::join_all(patches)
        .await
        .into_iter()
        .map(|patched| patched.unwrap().version)
        .collect();
    versions.sort_unstable();
    assert_eq!(versions, (2..18).collect::<Vec<_>>());
}

#[tokio::test]
async fn deleting_an_app_erases_its_secrets_and_ends_its_rotations() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let made = bench.endpoint(app).await;
    let keyring = made.endpoint.keyring;
    let staged = NewRotation {
        mode: ModeName::Staged,
        overlap: None,
        deadline_at: None,
        policy: None,
        name: None,
        value: None,
        reason: None,
    };
    let opened = service.open_rotation(owner, keyring, staged, None, None);
    let opened = opened.await.unwrap();
    let secrets = [made.once.unwrap().secret.id, opened.once.secret.id];
    assert!(
        secrets
            .iter()
            .all(|id| bench.live.sealed_secret(*id).is_some())
    );

    service.delete_app(owner, app, None, None).await.unwrap();
    assert!(
        secrets
            .iter()
            .all(|id| bench.live.sealed_secret(*id).is_none())
    );
    let ended = bench.live.keyring(keyring).unwrap();
    assert_eq!(ended.check(), Ok(()));
    assert_eq!(ended.active(), None);
    let rotation = service.rotation(owner, opened.rotation.id).await.unwrap();
    assert_eq!(rotation.stage.as_str(), "cancelled");
    let gone = service.keyring(owner, keyring).await;
    assert!(matches!(gone, Err(ServiceError::NotFound { .. })));
    let create = service.create_secret(owner, keyring, NewSecretInput::default(), None, None);
    assert!(matches!(create.await, Err(ServiceError::NotFound { .. })));
    let gone = service.app(owner, app).await;
    assert!(matches!(gone, Err(ServiceError::NotFound { .. })));

    // The disk agrees with memory.
    let loaded = hookturn_core::store::Store::load(&*bench.store)
        .await
        .unwrap();
    assert!(loaded.secrets.is_empty() && loaded.apps.is_empty());
    assert!(
        loaded
            .keyrings
            .iter()
            .all(|keyring| keyring.check().is_ok())
    );
}

#[tokio::test]
async fn apps_are_listed_newest_first_page_by_page() {
    let bench = Bench::new().await;
    let mut expected = Vec::new();
    for name in ["one", "two", "three", "four", "five"] {
        let input = NewApp {
            name: name.to_owned(),
            ..NewApp::default()
        };
        let app = bench.service.create_app(&bench.owner, input, None).await;
        expected.insert(0, app.unwrap().id);
        bench.clock.advance(1);
    }
    let mut seen = Vec::new();
    let mut page = first_page();
    page.limit = 2;
    loop {
        let listed = bench.service.apps(&bench.owner, page).await.unwrap();
        seen.extend(listed.items.iter().map(|app| app.id));
        if !listed.has_more {
            break;
        }
        page.before = listed.items.last().map(|app| AppPlace::of(app));
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn workspace_settings_are_checked() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let patch = async |caller, patch: WorkspacePatch| {
        let patched = service.patch_workspace(caller, owner.workspace, patch, None, None);
        patched.await
    };
    let renames = |id: &str, signature: &str| WorkspacePatch {
        header_names: Some(BTreeMap::from([(
            Preset::Standard,
            HeaderRenames {
                id: Some(id.to_owned()),
                timestamp: None,
                signature: Some(signature.to_owned()),
            },
        )])),
        ..WorkspacePatch::default()
    };
    let pointer = pointer_of(patch(owner, renames("x-id", "content-type")).await);
    assert_eq!(pointer, "/headerNames/standard/signature");
    let twice = pointer_of(patch(owner, renames("x-id", "X-Id")).await);
    assert_eq!(twice, "/headerNames/standard/signature");
    patch(owner, renames("svix-id", "svix-signature"))
        .await
        .unwrap();
    patch(owner, renames("acme-id", "acme-signature"))
        .await
        .unwrap();
    let app = bench.app().await;
    let taken = NewEndpoint {
        headers: BTreeMap::from([("Acme-Signature".to_owned(), "x".to_owned())]),
        ..endpoint_input()
    };
    let refused = service.create_endpoint(owner, app, taken, None).await;
    assert_eq!(pointer_of(refused), "/headers/Acme-Signature");

    let never = WorkspacePatch {
        reveal_secrets: Some(RevealPolicy::Never),
        ..WorkspacePatch::default()
    };
    let manager = bench.limited(&[Scope::Manage]).await;
    let refused = patch(&manager, never).await;
    assert!(matches!(
        refused,
        Err(ServiceError::Forbidden {
            needs: Scope::Secrets
        })
    ));
    bench.workspace("taken").await;
    let same = WorkspacePatch {
        name: Some("taken".to_owned()),
        ..WorkspacePatch::default()
    };
    assert!(matches!(
        patch(owner, same).await,
        Err(ServiceError::Conflict {
            code: "already_exists",
            ..
        })
    ));
    let refused = service.create_workspace(owner, "mine".to_owned(), None);
    assert!(matches!(refused.await, Err(ServiceError::OperatorOnly)));
    let spaced = service.create_workspace(&bench.operator, "a b".to_owned(), None);
    assert_eq!(pointer_of(spaced.await), "/name");
}

//! Configuration: changes, versions, unique names, secrets.

use std::sync::Arc;

use hookturn_core::endpoint::EndpointState;
use hookturn_core::id::{RotationId, WorkspaceId};
use hookturn_core::proof::{Evidence, Findings};
use hookturn_core::rotation::Keyring;
use hookturn_core::store::{KeptFigures, Page, SealedSecret, StoreError, Write};
use hookturn_core::time::Timestamp;

use super::Engine;
use super::world::{START, World};

/// When the future is ready, the live view shows the change.
pub async fn a_change_is_shown_by_the_live_view_when_it_is_answered(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let live = &world.live;
    assert_eq!(*live.workspace_named("acme").unwrap(), tenant.workspace);
    assert_eq!(
        *live.app(tenant.workspace.id, tenant.app.id).unwrap(),
        tenant.app
    );
    let mut endpoint = tenant.endpoints[0].clone();
    assert_eq!(*live.endpoint(endpoint.id).unwrap(), endpoint);
    assert!(live.signing(endpoint.id).is_some());
    endpoint.version = 2;
    endpoint.state = EndpointState::Paused { since: START };
    world
        .write(endpoint.workspace, vec![Write::Endpoint(endpoint.clone())])
        .await;
    assert_eq!(*live.endpoint(endpoint.id).unwrap(), endpoint);
}

/// A change is all or nothing: writes, audit entries, idempotent answer, live view and hints.
pub async fn a_refused_change_leaves_nothing_behind(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let (store, workspace) = (world.store().clone(), tenant.workspace.id);
    let log = store.audit_log(workspace, 0, 100).await.unwrap();
    world.hints.take();
    let (app, stale) = (world.app(workspace), tenant.endpoints[0].clone());
    let answer = world.answer(b"sealed");
    let mut change = world.changing(
        workspace,
        vec![Write::App(app.clone()), Write::Endpoint(stale)],
    );
    change.idempotency = Some(answer.clone());
    let refused = store.change(change.clone()).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    assert!(world.live.app(workspace, app.id).is_none());
    assert_eq!(store.audit_log(workspace, 0, 100).await.unwrap(), log);
    let kept = store.idempotent_answer(answer.key, START).await.unwrap();
    assert_eq!(kept, None);
    assert!(world.hints.take().is_empty());
    // Neither did it use up the key or the name.
    change.writes.pop();
    store.change(change).await.unwrap();
    let log = store.audit_log(workspace, 0, 100).await.unwrap();
    drop(store);
    world.restart().await;
    assert!(world.live.app(workspace, app.id).is_some());
    let found = world.store().audit_log(workspace, 0, 100).await.unwrap();
    assert_eq!(found, log);
}

/// Concurrent changes of one thing have exactly one winner, whatever its kind.
pub async fn g5_of_many_changes_of_one_version_one_wins(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let workspace = tenant.workspace.id;
    let key = world.api_key();
    world
        .write(workspace, vec![Write::ApiKey(key.clone())])
        .await;
    let keyring = world.live.keyring(tenant.endpoints[0].keyring).unwrap();
    let writes = [
        Write::Workspace({
            let mut next = tenant.workspace.clone();
            next.version = 2;
            next
        }),
        Write::ApiKey({
            let mut next = key;
            next.version = 2;
            next
        }),
        Write::App({
            let mut next = tenant.app.clone();
            next.version = 2;
            next
        }),
        Write::Endpoint({
            let mut next = tenant.endpoints[0].clone();
            next.version = 2;
            next
        }),
        Write::Keyring(Keyring {
            version: 2,
            ..Keyring::clone(&keyring)
        }),
        Write::RemoveApp {
            workspace,
            app: tenant.app.id,
            version: 2,
        },
    ];
    for write in writes {
        let asked: Vec<_> = (0..64)
            .map(|_| {
                let change = world.changing(workspace, vec![write.clone()]);
                let store = Arc::clone(world.store());
                tokio::spawn(async move { store.change(change).await })
            })
            .collect();
        let mut won = 0;
        for answer in asked {
            match answer.await.unwrap() {
                Ok(()) => won += 1,
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => panic!("{write:?}: {error}"),
            }
        }
        assert_eq!(won, 1, "{write:?}");
    }
}

/// Version 1 must not exist yet; a later version must follow the stored one.
pub async fn a_first_version_must_not_exist_and_a_later_one_must(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let workspace = tenant.workspace.id;
    let key = world.api_key();
    world
        .write(workspace, vec![Write::ApiKey(key.clone())])
        .await;
    let keyring = world.live.keyring(tenant.endpoints[0].keyring).unwrap();
    let mut renamed = tenant.workspace.clone();
    "another".clone_into(&mut renamed.name);
    let mut skipped = tenant.endpoints[0].clone();
    skipped.version = 3;
    let mut unknown = world.endpoint(&tenant.app);
    unknown.version = 2;
    for write in [
        Write::Workspace(tenant.workspace.clone()),
        Write::Workspace(renamed),
        Write::ApiKey(key),
        Write::App(tenant.app.clone()),
        Write::Endpoint(tenant.endpoints[0].clone()),
        Write::Endpoint(skipped),
        Write::Endpoint(unknown),
        Write::Keyring(Keyring::clone(&keyring)),
    ] {
        let change = world.changing(workspace, vec![write.clone()]);
        let refused = world.store().change(change).await;
        assert!(
            matches!(refused, Err(StoreError::Conflict { .. })),
            "{write:?}: {refused:?}"
        );
    }
}

/// The name of a workspace and the hash of an API key are unique, at creation and later.
pub async fn unique_names_and_hashes_are_taken_once(engine: &impl Engine) {
    let world = World::new(engine).await;
    let (first, second) = (world.tenant("acme").await, world.tenant("other").await);
    let id = first.workspace.id;
    let (key, mut same_text) = (world.api_key(), world.api_key());
    same_text.hash = key.hash;
    world.write(id, vec![Write::ApiKey(key)]).await;
    let mut renamed = second.workspace.clone();
    renamed.version = 2;
    "acme".clone_into(&mut renamed.name);
    for write in [
        Write::Workspace(world.workspace("acme")),
        Write::Workspace(renamed),
        Write::ApiKey(same_text),
    ] {
        let refused = world
            .store()
            .change(world.changing(id, vec![write.clone()]))
            .await;
        assert!(
            matches!(refused, Err(StoreError::Duplicate { .. })),
            "{write:?}: {refused:?}"
        );
    }
    // A name that its owner gave up is free.
    let mut moved = first.workspace.clone();
    moved.version = 2;
    "acme, formerly".clone_into(&mut moved.name);
    world.write(id, vec![Write::Workspace(moved)]).await;
    world
        .write(id, vec![Write::Workspace(world.workspace("acme"))])
        .await;
}

/// What is loaded at the start is what was written.
pub async fn everything_configured_survives_a_restart(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let workspace = tenant.workspace.id;
    let (key, keyring) = (world.api_key(), world.keyring(&tenant.endpoints[1]));
    let secret = world.secret(&keyring, b"a sealed box");
    let writes = vec![Write::ApiKey(key.clone()), Write::Secret(secret.clone())];
    world.write(workspace, writes).await;
    for crash in [false, true] {
        if crash {
            world.crash().await;
        } else {
            world.restart().await;
        }
        let loaded = world.store().load().await.unwrap();
        assert_eq!(loaded.workspaces, std::slice::from_ref(&tenant.workspace));
        assert_eq!(loaded.apps, std::slice::from_ref(&tenant.app));
        assert_eq!(loaded.api_keys, std::slice::from_ref(&key));
        assert_eq!(loaded.secrets, std::slice::from_ref(&secret));
        assert_eq!((loaded.endpoints.len(), loaded.keyrings.len()), (2, 2));
        assert!(loaded.keyrings.contains(&keyring));
        for endpoint in &tenant.endpoints {
            assert!(loaded.endpoints.contains(endpoint));
            assert_eq!(*world.live.endpoint(endpoint.id).unwrap(), *endpoint);
        }
        assert_eq!(*world.live.api_key_by_hash(&key.hash).unwrap(), key);
        assert_eq!(*world.live.sealed_secret(secret.secret).unwrap(), secret);
    }
}

/// The value of a destroyed secret is erased from the store and the live view.
pub async fn g4_an_erased_secret_is_gone_everywhere(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let keyring = world.keyring(&tenant.endpoints[0]);
    let (gone, kept) = (
        world.secret(&keyring, b"one"),
        world.secret(&keyring, b"two"),
    );
    let writes = vec![Write::Secret(gone.clone()), Write::Secret(kept.clone())];
    world.write(keyring.workspace, writes).await;
    let erase = Write::EraseSecret {
        workspace: gone.workspace,
        keyring: gone.keyring,
        secret: gone.secret,
        answers: true,
    };
    world.write(keyring.workspace, vec![erase]).await;
    assert!(world.live.sealed_secret(gone.secret).is_none());
    world.restart().await;
    assert!(world.live.sealed_secret(gone.secret).is_none());
    assert_eq!(*world.live.sealed_secret(kept.secret).unwrap(), kept);
}

/// Findings survive a restart; in memory the newest count, whatever was stored.
pub async fn findings_are_kept_until_their_endpoint_is_forgotten(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let endpoint = tenant.endpoints[0].clone();
    let findings = |passes| Findings {
        evidence: Some(Evidence {
            run: passes,
            ..Evidence::new(RotationId::from_bytes([7; 16]))
        }),
        ..Findings::default()
    };
    for passes in [1, 2] {
        world.live.find(endpoint.id, |_| findings(passes));
        let unsaved = world.live.unsaved_findings();
        let workspace = endpoint.workspace;
        assert_eq!(unsaved, [(workspace, endpoint.id, findings(passes))]);
        let write = Write::Findings {
            workspace,
            endpoint: endpoint.id,
            findings: findings(passes),
        };
        assert!(world.live.unsaved_findings().is_empty(), "said once");
        world.live.find(endpoint.id, |_| findings(passes + 10));
        world.write(workspace, vec![write]).await;
        assert_eq!(world.live.findings(endpoint.id), findings(passes + 10));
    }
    world.restart().await;
    assert_eq!(world.live.findings(endpoint.id), findings(2));
    assert!(world.live.unsaved_findings().is_empty());
}

/// A reseal replaces a value only if the stored bytes are still the old ones.
pub async fn a_reseal_swaps_only_what_still_is_the_old_value(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let keyring = world.keyring(&tenant.endpoints[0]);
    let secrets = [
        world.secret(&keyring, b"same"),
        world.secret(&keyring, b"changed since"),
        world.secret(&keyring, b"erased since"),
    ];
    let writes = secrets[..2].iter().cloned().map(Write::Secret).collect();
    world.write(keyring.workspace, writes).await;
    let old: [Arc<[u8]>; 3] = [
        b"same"[..].into(),
        b"other"[..].into(),
        b"erased since"[..].into(),
    ];
    let swaps = secrets.iter().zip(old).map(|(secret, old)| {
        let fresh = SealedSecret {
            sealed: b"fresh"[..].into(),
            ..secret.clone()
        };
        (fresh, old)
    });
    let replaced = world.store().reseal(swaps.collect()).await.unwrap();
    assert_eq!(replaced, 1);
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        let sealed = |index: usize| {
            let held = world.live.sealed_secret(secrets[index].secret);
            held.map(|held| held.sealed.to_vec())
        };
        assert_eq!(sealed(0).unwrap(), b"fresh");
        assert_eq!(sealed(1).unwrap(), b"changed since");
        assert_eq!(sealed(2), None);
    }
}

/// Uses of keys that arrive late do not turn the last one back.
pub async fn the_last_use_of_a_key_only_moves_forward(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let key = world.api_key();
    world
        .write(tenant.workspace.id, vec![Write::ApiKey(key.clone())])
        .await;
    for used_at in [START.after(5), START] {
        let uses = vec![(key.id, used_at)];
        world.store().touch_api_keys(uses).await.unwrap();
    }
    world.restart().await;
    assert_eq!(world.live.api_key_used_at(key.id), Some(START.after(5)));
}

/// What was counted replaces what was kept of the same workspace, outlives a restart, comes latest first and
/// no more of it than is asked for, and goes with its age.
pub async fn what_was_counted_is_kept_by_workspace_and_forgotten_by_age(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let counted = |workspace: u128, at: Timestamp, counted: &[u8]| KeptFigures {
        workspace: WorkspaceId::from_bytes(workspace.to_be_bytes()),
        at,
        counted: counted.to_vec(),
    };
    assert_eq!(world.store().kept_figures(10).await.unwrap(), []);
    let first = vec![
        counted(1, START, b"one"),
        counted(2, START.after(1), b"two"),
        counted(3, START.after(2), &[0, 255]),
    ];
    world
        .store()
        .keep_figures(first.clone(), START)
        .await
        .unwrap();
    world.restart().await;
    let newest_first: Vec<_> = first.iter().rev().cloned().collect();
    assert_eq!(world.store().kept_figures(10).await.unwrap(), newest_first);
    assert_eq!(
        world.store().kept_figures(2).await.unwrap(),
        newest_first[..2]
    );
    let again = counted(1, START.after(3), &[7].repeat(100_000));
    let keep = world
        .store()
        .keep_figures(vec![again.clone()], START.after(2));
    keep.await.unwrap();
    let left = vec![again, first[2].clone()];
    assert_eq!(world.store().kept_figures(10).await.unwrap(), left);
    let none = world.store().keep_figures(Vec::new(), START.after(9));
    none.await.unwrap();
    assert_eq!(world.store().kept_figures(10).await.unwrap(), []);
}

/// Rotations of one keyring or of all, newest first, each once, and only of their workspace.
pub async fn rotations_are_paged_newest_first(engine: &impl Engine) {
    let world = World::new(engine).await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("other").await);
    let workspace = tenant.workspace.id;
    let keyrings = [0, 1].map(|index| world.keyring(&tenant.endpoints[index]));
    let rotations: Vec<_> = (0..10)
        .map(|index| world.rotation(&keyrings[index % 2]))
        .collect();
    let writes = rotations.iter().cloned().map(Write::Rotation).collect();
    world.write(workspace, writes).await;
    for keyring in [None, Some(keyrings[1].id)] {
        let mut seen = Vec::new();
        let mut before = None;
        loop {
            let page = Page { before, limit: 3 };
            let found = world.store().rotations(workspace, keyring, page).await;
            let found = found.unwrap();
            let Some(last) = found.last() else { break };
            before = Some(last.id);
            seen.extend(found);
        }
        let mut expected = rotations.clone();
        expected.retain(|rotation| keyring.is_none_or(|only| rotation.keyring == only));
        expected.reverse();
        assert_eq!(seen, expected);
    }
    let store = world.store();
    let one = &rotations[0];
    let found = store.rotation(workspace, one.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(one));
    let foreign = store.rotation(other.workspace.id, one.id).await.unwrap();
    assert_eq!(foreign, None);
}

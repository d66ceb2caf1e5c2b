//! The audit chain and idempotency keys.

use hookturn_core::audit::{Head, verify_chain};
use hookturn_core::id::ApiKeyId;
use hookturn_core::store::{
    Accept, IdempotencyRecord, SealedSecret, Shown, Shows, StoreError, Write,
};
use hookturn_verify::Fingerprint;

use super::Engine;
use super::world::{START, World, all_of, context, entry};
use crate::telemetry::SystemEntropy;

/// Entries are numbered and chained without a gap, whatever happens to the process.
pub async fn g9_the_audit_chain_continues_over_a_restart_and_a_crash(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let workspace = world.tenant("acme").await.workspace.id;
    for round in 0..3_u64 {
        let store = world.store().clone();
        let entries = vec![entry().with("round", round), entry()];
        store
            .audit(workspace, context(), entries, START)
            .await
            .unwrap();
        let app = world.app(workspace);
        world.write(workspace, vec![Write::App(app)]).await;
        let log = store.audit_log(workspace, 0, 1_000).await.unwrap();
        drop(store);
        let head = verify_chain(Head::START, &log).unwrap();
        assert_eq!(head.seq, 1 + 3 * (round + 1));
        let store = world.store();
        assert_eq!(store.audit_head(workspace).await.unwrap(), head.seq);
        if round == 0 {
            world.restart().await;
        } else {
            world.crash().await;
        }
        let found = world.store().audit_log(workspace, 0, 1_000).await.unwrap();
        assert_eq!(found, log);
        let page = world.store().audit_log(workspace, 2, 2).await.unwrap();
        assert_eq!(page, log[2..4]);
    }
}

/// The engine itself refuses to change or remove a stored entry.
pub async fn g9_a_stored_audit_entry_cannot_be_rewritten(engine: &impl Engine) {
    let world = World::new(engine).await;
    let workspace = world.tenant("acme").await.workspace.id;
    let log = world.store().audit_log(workspace, 0, 10).await.unwrap();
    assert!(!log.is_empty());
    assert!(!world.rewrite_audit().await);
    let found = world.store().audit_log(workspace, 0, 10).await.unwrap();
    assert_eq!(found, log);
}

/// What happens in one workspace does not show in the chain of another.
pub async fn g9_each_workspace_has_a_chain_of_its_own(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenants = [world.tenant("acme").await, world.tenant("other").await];
    for tenant in tenants.iter().chain(&tenants) {
        let app = Write::App(world.app(tenant.workspace.id));
        world.write(tenant.workspace.id, vec![app]).await;
    }
    for tenant in &tenants {
        let log = world.store().audit_log(tenant.workspace.id, 0, 10).await;
        let log = log.unwrap();
        assert_eq!(verify_chain(Head::START, &log).unwrap().seq, 3);
        assert!(log.iter().all(|e| e.workspace == tenant.workspace.id));
    }
}

/// A key has one answer until it expires; then it is free, for changes as for messages.
pub async fn g5_an_idempotency_key_is_used_once_until_it_expires(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let workspace = world.tenant("acme").await.workspace.id;
    let first = world.answer(b"first");
    let change = |world: &World<'_, _>, body: &'static [u8]| {
        let app = Write::App(world.app(workspace));
        let mut change = world.changing(workspace, vec![app]);
        let mut answer = first.clone();
        answer.sealed_response = Some(body.into());
        change.idempotency = Some(answer);
        change
    };
    let before = world.live.apps(workspace).len();
    let asked: Vec<_> = (0..16)
        .map(|_| world.store().change(change(&world, b"first")))
        .collect();
    let mut won = 0;
    for answer in asked {
        match answer.await {
            Ok(()) => won += 1,
            Err(error) => assert!(matches!(error, StoreError::IdempotencyKeyUsed), "{error}"),
        }
    }
    assert_eq!((won, world.live.apps(workspace).len()), (1, before + 1));
    world.restart().await;
    let store = world.store();
    let found = store.idempotent_answer(first.key, START).await.unwrap();
    assert_eq!(found.as_ref(), Some(&first));
    let expired = store.idempotent_answer(first.key, first.expires_at).await;
    assert_eq!(expired.unwrap(), None);
    let mut late = change(&world, b"second");
    late.at = first.expires_at;
    if let Some(answer) = &mut late.idempotency {
        answer.expires_at = first.expires_at.after(1_000);
    }
    store.change(late).await.unwrap();
    let found = store.idempotent_answer(first.key, first.expires_at).await;
    let second = found.unwrap().unwrap().sealed_response;
    assert_eq!(second.as_deref(), Some(&b"second"[..]));
}

/// With a secret's value go the answers that show it, where that is asked for, and only those. Their
/// keys stay used.
pub async fn g4_an_erased_secret_takes_the_answers_that_show_it_with_it(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let keyring = world.keyring(&tenant.endpoints[0]);
    let (gone, kept) = (world.secret(&keyring, b"1"), world.secret(&keyring, b"2"));
    let key = ApiKeyId::new(START, &SystemEntropy);
    let showing = |what| IdempotencyRecord {
        shows: Some(Shows { what, to: key }),
        ..world.answer(b"whsec_")
    };
    let secret = |secret: &SealedSecret| Shown::Secret {
        id: secret.secret,
        fingerprint: Fingerprint::from_bytes([7; 4]),
    };
    let forgotten = world.secret(&keyring, b"3");
    let answers = [
        showing(secret(&gone)),
        showing(secret(&kept)),
        showing(secret(&forgotten)),
        showing(Shown::ApiKey(key)),
        world.answer(b"nothing"),
    ];
    for answer in &answers {
        let mut change = world.changing(keyring.workspace, Vec::new());
        change.idempotency = Some(answer.clone());
        world.store().change(change).await.unwrap();
    }
    let erase = |secret: &SealedSecret, answers| Write::EraseSecret {
        workspace: secret.workspace,
        keyring: secret.keyring,
        secret: secret.secret,
        answers,
    };
    let writes = vec![erase(&gone, true), erase(&forgotten, false)];
    world.write(keyring.workspace, writes).await;
    world.crash().await;
    let [erased, others @ ..] = answers;
    let found = world.store().idempotent_answer(erased.key, START).await;
    let wanted = IdempotencyRecord {
        sealed_response: None,
        ..erased.clone()
    };
    assert_eq!(found.unwrap(), Some(wanted));
    for answer in others {
        let found = world.store().idempotent_answer(answer.key, START).await;
        assert_eq!(found.unwrap(), Some(answer));
    }
    let mut again = world.changing(keyring.workspace, Vec::new());
    again.idempotency = Some(erased);
    let refused = world.store().change(again).await;
    let used = matches!(refused, Err(StoreError::IdempotencyKeyUsed));
    assert!(used, "{refused:?}");
}

/// A used key refuses the messages that come with it, and only those.
pub async fn an_accept_with_a_used_key_accepts_nothing(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let answer = world.answer(b"accepted");
    let accept = |world: &World<'_, _>| Accept {
        messages: vec![world.message(&tenant.app, START, "a", 8, &[&tenant.endpoints[0]])],
        idempotency: Some(answer.clone()),
    };
    world.store().accept(accept(&world)).await.unwrap();
    world.hints.take();
    let refused = world.store().accept(accept(&world)).await;
    assert!(
        matches!(refused, Err(StoreError::IdempotencyKeyUsed)),
        "{refused:?}"
    );
    let found = world.store().deliveries(all_of(&tenant.app)).await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(world.hints.take().is_empty());
}

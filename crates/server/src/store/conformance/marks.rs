//! Marks: by which secrets are found without being known.

use std::sync::Arc;

use hookturn_core::store::{MarkedSecret, SealedSecret, SecretMark, StoreError, Write};

use super::Engine;
use super::world::World;

fn mark(secret: &SealedSecret, byte: u8) -> MarkedSecret {
    MarkedSecret {
        workspace: secret.workspace,
        keyring: secret.keyring,
        secret: secret.secret,
        mark: SecretMark([byte; 32]),
    }
}

/// A mark finds every secret that has it, in every workspace; it outlives the value.
pub async fn a_secret_is_found_by_its_mark_also_when_its_value_is_erased(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let mut marked = Vec::new();
    for name in ["acme", "other"] {
        let tenant = world.tenant(name).await;
        let keyring = world.keyring(&tenant.endpoints[0]);
        let secret = world.secret(&keyring, b"value");
        marked.push(mark(&secret, 7));
        let writes = vec![
            Write::Secret(secret.clone()),
            Write::Mark(mark(&secret, 7)),
            Write::EraseSecret {
                workspace: secret.workspace,
                keyring: secret.keyring,
                secret: secret.secret,
                answers: false,
            },
        ];
        world.write(secret.workspace, writes).await;
    }
    marked.sort_by_key(|marked| marked.secret);
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        let asked = vec![SecretMark([8; 32]), SecretMark([7; 32])];
        let found = world.store().marked(asked).await.unwrap();
        assert_eq!(found, marked);
        let found = world.store().marked(vec![SecretMark([0; 32])]).await;
        assert!(found.unwrap().is_empty());
    }
}

/// What has a value and no mark is listed; what lost its value before it had one is not.
pub async fn secrets_without_a_mark_are_listed_until_they_have_one(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let keyring = world.keyring(&tenant.endpoints[0]);
    let mut secrets: Vec<_> = (0..4).map(|_| world.secret(&keyring, b"value")).collect();
    secrets.sort_by_key(|secret| secret.secret);
    let writes = secrets.iter().cloned().map(Write::Secret).collect();
    world.write(keyring.workspace, writes).await;
    world.restart().await;
    let found = world.store().unmarked(3).await.unwrap();
    let expected: Vec<_> = secrets[..3].iter().map(|secret| secret.secret).collect();
    assert_eq!(found, expected);
    let erase = Write::EraseSecret {
        workspace: keyring.workspace,
        keyring: keyring.id,
        secret: secrets[1].secret,
        answers: false,
    };
    let writes = vec![Write::Mark(mark(&secrets[0], 1)), erase];
    world.write(keyring.workspace, writes).await;
    let late = Write::Mark(mark(&secrets[1], 2));
    world.write(keyring.workspace, vec![late]).await;
    let found = world.store().unmarked(10).await.unwrap();
    assert_eq!(found, [secrets[2].secret, secrets[3].secret]);
    let found = world.store().marked(vec![SecretMark([2; 32])]).await;
    assert!(found.unwrap().is_empty());
}

/// The first key is kept once; a later one replaces the one it names, or nothing.
pub async fn the_key_of_the_marks_is_replaced_only_by_who_knows_it(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let workspace = world.tenant("acme").await.workspace.id;
    let key = |text: &'static [u8]| -> Arc<[u8]> { text.into() };
    let put = |sealed: &'static [u8], old: Option<&'static [u8]>| Write::MarkKey {
        sealed: key(sealed),
        old: old.map(key),
    };
    assert_eq!(world.live.mark_key(), None);
    world.write(workspace, vec![put(b"first", None)]).await;
    for refused in [put(b"second", None), put(b"second", Some(b"other"))] {
        let change = world.changing(workspace, vec![refused]);
        let refused = world.store().change(change).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    }
    assert_eq!(world.live.mark_key(), Some(key(b"first")));
    let next = put(b"second", Some(b"first"));
    world.write(workspace, vec![next]).await;
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        assert_eq!(world.live.mark_key(), Some(key(b"second")));
    }
}

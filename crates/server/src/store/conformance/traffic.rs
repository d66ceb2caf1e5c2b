//! Accepting messages.

use hookturn_core::id::MessageId;
use hookturn_core::message::EventType;
use hookturn_core::store::{Accept, Hint, NewMessage, Page, StoreError};

use super::Engine;
use super::world::{START, Tenant, World, accepted, all_of, keys};

fn fan_out<E: Engine>(world: &World<'_, E>, tenant: &Tenant, count: u64) -> Vec<NewMessage> {
    let [one, two] = &tenant.endpoints;
    let made = (0..count).map(|index| {
        let at = START.after(index);
        world.message(&tenant.app, at, "thing.happened", 40, &[one, two])
    });
    made.collect()
}

/// What was answered is durable: the message whole, and a due row for each delivery.
pub async fn g1_an_accepted_message_survives_a_crash(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let messages = fan_out(&world, &tenant, 20);
    let accept = Accept {
        messages: messages.clone(),
        idempotency: Some(world.answer(b"yes")),
    };
    world.store().accept(accept.clone()).await.unwrap();
    world.crash().await;
    let store = world.store();
    for new in &messages {
        let message = &new.message;
        let found = store.message(message.workspace, message.app, message.id);
        assert_eq!(found.await.unwrap().as_ref(), Some(message));
    }
    for (index, endpoint) in tenant.endpoints.iter().enumerate() {
        let due = world.due(endpoint, START.after(1_000)).await;
        let expected: Vec<_> = messages
            .iter()
            .map(|new| accepted(new).remove(index))
            .collect();
        assert_eq!(keys(&due.rows), keys(&expected));
        assert!(
            due.rows
                .iter()
                .zip(&expected)
                .all(|(a, b)| a.message == b.message)
        );
        assert_eq!(due.next_due_at, None);
    }
    let refused = store.accept(accept).await;
    assert!(matches!(refused, Err(StoreError::IdempotencyKeyUsed)));
}

/// One impossible message refuses those that came with it, and no others.
pub async fn an_accept_is_all_or_nothing(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let nobody = world.endpoint(&tenant.app);
    for bad_at in 0..3 {
        let mut messages = fan_out(&world, &tenant, 3);
        let to = [&tenant.endpoints[0], &nobody];
        messages[bad_at] = world.message(&tenant.app, START, "new.type", 8, &to);
        let accept = Accept {
            messages,
            idempotency: None,
        };
        let refused = world.store().accept(accept).await;
        assert!(
            matches!(refused, Err(StoreError::Conflict { .. })),
            "{refused:?}"
        );
    }
    let alone = world.message(
        &tenant.app,
        START,
        "new.type",
        8,
        &[&tenant.endpoints[0], &nobody],
    );
    let accept = Accept {
        messages: vec![alone],
        idempotency: None,
    };
    assert!(world.store().accept(accept).await.is_err());
    let again = fan_out(&world, &tenant, 1).remove(0);
    world.accept(again.clone()).await;
    world.hints.take();
    let twice = Accept {
        messages: vec![again],
        idempotency: None,
    };
    let refused = world.store().accept(twice).await;
    assert!(
        matches!(refused, Err(StoreError::Duplicate { .. })),
        "{refused:?}"
    );
    assert!(world.hints.take().is_empty());
    let found = world.store().deliveries(all_of(&tenant.app)).await.unwrap();
    assert_eq!(found.len(), 2);
}

/// Accepted rows are handed over as they are stored, so that nobody has to read them back.
pub async fn hints_carry_exactly_the_accepted_rows_in_order(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    assert!(matches!(
        world.hints.take()[..],
        [Hint::Endpoint(_), Hint::Endpoint(_)]
    ));
    let messages = fan_out(&world, &tenant, 50);
    let asked: Vec<_> = messages
        .iter()
        .map(|new| {
            world.store().accept(Accept {
                messages: vec![new.clone()],
                idempotency: None,
            })
        })
        .collect();
    for answer in asked {
        answer.await.unwrap();
    }
    let mut told = Vec::new();
    for hint in world.hints.take() {
        match hint {
            Hint::Accepted(rows) => told.extend(rows),
            other => panic!("{other:?}"),
        }
    }
    let expected: Vec<_> = messages.iter().flat_map(accepted).collect();
    assert_eq!(keys(&told), keys(&expected));
    assert!(
        told.iter()
            .zip(&expected)
            .all(|(a, b)| a.message == b.message)
    );
}

/// A message that no endpoint wants is accepted and can be read.
pub async fn a_message_without_deliveries_is_kept(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let new = world.message(&tenant.app, START, "nobody.cares", 8, &[]);
    world.accept(new.clone()).await;
    let page = Page::<MessageId> {
        before: None,
        limit: 10,
    };
    let (workspace, app) = (tenant.workspace.id, tenant.app.id);
    let found = world.store().messages(workspace, app, None, None, page);
    assert_eq!(found.await.unwrap(), [new.message]);
}

/// Every type that was published, once, sorted, per workspace, also after a restart.
pub async fn event_types_are_listed_sorted_per_workspace(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("other").await);
    for event_type in ["b.two", "a.one", "b.two"] {
        let to = [&tenant.endpoints[0]];
        let new = world.message(&tenant.app, START, event_type, 8, &to);
        world.accept(new).await;
    }
    let elsewhere = world.message(&other.app, START, "c.three", 8, &[&other.endpoints[0]]);
    world.accept(elsewhere).await;
    for _ in 0..2 {
        let found = world.store().event_types(tenant.workspace.id).await;
        let found = found.unwrap();
        let words: Vec<_> = found.iter().map(EventType::as_str).collect();
        assert_eq!(words, ["a.one", "b.two"]);
        world.restart().await;
    }
}

//! Retention, backup, counts and the order of ids.

use std::sync::Arc;

use hookturn_core::audit::{Head, verify_chain};
use hookturn_core::bulk::{Bulk, BulkItem, BulkState};
use hookturn_core::delivery::{DeliveryStatus, ExhaustedReason, Next};
use hookturn_core::endpoint::EndpointState;
use hookturn_core::id::{Entropy, MessageId, Sequence};
use hookturn_core::store::{Accept, BulkItemQuery, DeliveryQuery, Finish, Page, StoreStats, Write};
use hookturn_core::time::{DAY, Timestamp};

use super::Engine;
use super::world::{START, Tenant, World, accepted, all_of, finished};

async fn prune_all<E: Engine>(world: &World<'_, E>, before: Timestamp, limit: usize) -> usize {
    let mut rows = 0;
    loop {
        let progress = world.store().prune(before, before, limit).await.unwrap();
        assert!(progress.rows <= limit);
        rows += progress.rows;
        if progress.resume.is_none() {
            return rows;
        }
    }
}

async fn messages<E: Engine>(world: &World<'_, E>, tenant: &Tenant) -> Vec<MessageId> {
    let page = Page {
        before: None,
        limit: 10_000,
    };
    let (workspace, app) = (tenant.workspace.id, tenant.app.id);
    let found = world.store().messages(workspace, app, None, None, page);
    let found = found.await.unwrap();
    found.iter().map(|message| message.id).collect()
}

/// What is pending stays with its message and its attempts, however old; the rest goes; what is
/// younger stays; the audit log stays whole.
pub async fn g1_pruning_keeps_what_is_pending(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let workspace = tenant.workspace.id;
    let done = world.accept_one(&tenant, START).await;
    let waits = world.accept_one(&tenant, START).await;
    let young = world.accept_one(&tenant, START.after(10_000)).await;
    world
        .finish(vec![
            finished(&done, 200, Next::Delivered),
            finished(&waits, 500, Next::RetryAt(START.after(60_000))),
            finished(&young, 200, Next::Delivered),
        ])
        .await;
    let mut answered = world.changing(workspace, Vec::new());
    answered.idempotency = Some(world.answer(b"kept until it expires"));
    world.store().change(answered.clone()).await.unwrap();
    let log = world.store().audit_log(workspace, 0, 100).await.unwrap();
    // A settled delivery, its message and the expired answer.
    assert_eq!(prune_all(&world, START.after(5_000), 100).await, 3);
    world.restart().await;
    let store = world.store();
    assert!(
        store
            .delivery(workspace, done.delivery)
            .await
            .unwrap()
            .is_none()
    );
    let requeueing = world.requeueing(workspace, done.delivery, START).await;
    assert!(requeueing.is_none());
    let kept = [young.message.id, waits.message.id];
    assert_eq!(messages(&world, &tenant).await, kept);
    let (delivery, attempts) = store
        .delivery(workspace, waits.delivery)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(delivery.state.status(), DeliveryStatus::Pending);
    assert_eq!(attempts.len(), 1);
    let due = world.due(&tenant.endpoints[0], START.after(60_000)).await;
    assert_eq!(due.rows[0].message, waits.message);
    assert!(
        store
            .delivery(workspace, young.delivery)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(store.audit_log(workspace, 0, 100).await.unwrap(), log);
    verify_chain(Head::START, &log).unwrap();
    // The key is free again.
    answered.at = START.after(5_000);
    store.change(answered).await.unwrap();
}

/// Each block is at most as large as asked for, and the blocks end.
pub async fn pruning_goes_in_blocks_until_nothing_is_left(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let [one, two] = &tenant.endpoints;
    for _ in 0..15 {
        let new = world.message(&tenant.app, START, "a", 8, &[one, two]);
        world.accept(new.clone()).await;
        let done = accepted(&new)
            .iter()
            .map(|due| finished(due, 200, Next::Delivered))
            .collect();
        world.finish(done).await;
    }
    let first = world.store().prune(START.after(1), START, 7).await.unwrap();
    assert_eq!((first.rows, first.resume), (7, Some(())));
    // While a settled delivery can be seen it can be queued again: its message is still there.
    let left = world.store().deliveries(all_of(&tenant.app)).await.unwrap();
    assert_eq!(left.len(), 23);
    assert_eq!(messages(&world, &tenant).await.len(), 15);
    assert_eq!(prune_all(&world, START.after(1), 7).await, 23 + 15);
    assert!(messages(&world, &tenant).await.is_empty());
    assert_eq!(prune_all(&world, START.after(1), 7).await, 0);
}

/// A bulk rotation goes with its items when it was over before that time, in blocks that end; one that is open,
/// or can be resumed, stays however old it is.
pub async fn bulk_rotations_that_are_over_go_with_their_items(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("other").await);
    let (old, young) = (START.after(100), START.after(9_000));
    let stopped = |at| BulkState::Stopped {
        at,
        failed: 1,
        of: 2,
    };
    let cases = [
        (&tenant, BulkState::Completed { at: old }, false),
        (&tenant, BulkState::Running, true),
        (&tenant, BulkState::Paused { at: old }, true),
        (&tenant, stopped(old), true),
        (&tenant, BulkState::Completed { at: young }, true),
        (&other, BulkState::Cancelled { at: old }, false),
        (&other, BulkState::Cancelled { at: young }, true),
        (&tenant, BulkState::Cancelled { at: old }, false),
    ];
    let mut made = Vec::new();
    for (tenant, state, stays) in cases {
        let workspace = tenant.workspace.id;
        let (bulk, items) = world.bulk(workspace, 10);
        let mut writes = vec![Write::Bulk(bulk.clone())];
        writes.extend(items.iter().cloned().map(Write::BulkItem));
        world.write(workspace, writes).await;
        let version = bulk.version + 1;
        let bulk = Bulk {
            state,
            version,
            ..bulk
        };
        world
            .write(workspace, vec![Write::Bulk(bulk.clone())])
            .await;
        made.push((bulk, items, stays));
    }
    let log = world.store().audit_head(tenant.workspace.id).await.unwrap();
    assert_eq!(prune_all(&world, START.after(5_000), 7).await, 3 * 11);
    assert_eq!(prune_all(&world, START.after(5_000), 7).await, 0);
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        for (bulk, items, stays) in &made {
            let found = world.store().bulk(bulk.workspace, bulk.id).await.unwrap();
            assert_eq!(found.as_ref(), stays.then_some(bulk));
            let query = BulkItemQuery {
                workspace: bulk.workspace,
                bulk: bulk.id,
                from: 0,
                until: u32::MAX,
                kind: None,
                limit: 1_000,
            };
            let found = world.store().bulk_items(query).await.unwrap();
            let left: &[BulkItem] = if *stays { items } else { &[] };
            assert_eq!(found, left, "{:?}", bulk.state);
        }
        assert_eq!(world.live.open_bulks().len(), 3);
    }
    let audited = world.store().audit_head(tenant.workspace.id).await.unwrap();
    assert_eq!(audited, log);
    // What ended last goes when its time has come.
    assert_eq!(prune_all(&world, young.after(1), 1_000).await, 2 * 11);
}

/// Items that were laid out for a bulk rotation that never began go when they are old, and only those.
pub async fn items_without_their_bulk_rotation_go(engine: &impl Engine) {
    let world = World::new(engine).await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("other").await);
    let mut left = Vec::new();
    for (tenant, began) in [
        (&tenant, false),
        (&other, true),
        (&other, false),
        (&tenant, true),
    ] {
        let workspace = tenant.workspace.id;
        let (bulk, items) = world.bulk(workspace, 10);
        let mut writes: Vec<_> = items.iter().cloned().map(Write::BulkItem).collect();
        if began {
            writes.push(Write::Bulk(bulk.clone()));
        }
        world.write(workspace, writes).await;
        left.push((bulk, if began { items } else { Vec::new() }));
    }
    assert_eq!(prune_all(&world, START, 7).await, 0, "they are not old yet");
    assert_eq!(prune_all(&world, START.after(5_000), 7).await, 20);
    assert_eq!(prune_all(&world, START.after(5_000), 7).await, 0);
    for (bulk, items) in left {
        let query = BulkItemQuery {
            workspace: bulk.workspace,
            bulk: bulk.id,
            from: 0,
            until: u32::MAX,
            kind: None,
            limit: 1_000,
        };
        let found = world.store().bulk_items(query).await.unwrap();
        assert_eq!(found, items);
    }
}

/// Much that is old and pending stays, and what lies between it goes, in blocks that end.
pub async fn g1_pruning_goes_past_much_that_is_pending(engine: &impl Engine) {
    const OLD: usize = 12_000;
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let [paused, other] = &tenant.endpoints;
    let new: Vec<_> = (0..OLD)
        .map(|n| {
            let to = if n % 100 == 0 { other } else { paused };
            world.message(&tenant.app, START, "a", 8, &[to])
        })
        .collect();
    for messages in new.chunks(1_000) {
        let accept = Accept {
            messages: messages.to_vec(),
            idempotency: None,
        };
        world.store().accept(accept).await.unwrap();
    }
    let sent = new.iter().step_by(100).map(|new| accepted(new).remove(0));
    let done = sent.map(|due| finished(&due, 200, Next::Delivered));
    world.finish(done.collect()).await;
    let young = world.accept_one(&tenant, START.after(10_000)).await;
    let settled = OLD / 100;
    assert_eq!(prune_all(&world, START.after(5_000), 50).await, 2 * settled);
    let kept = messages(&world, &tenant).await;
    assert_eq!((kept.len(), kept[0]), (10_000, young.message.id));
    let due = world.due(paused, START.after(10_000)).await;
    assert_eq!(
        due.rows.len(),
        10_000,
        "the first of them, and nothing is lost"
    );
    assert_eq!(prune_all(&world, START.after(5_000), 50).await, 0);
    // What settles later goes with the next sweep.
    let late: Vec<_> = due.rows[..7]
        .iter()
        .map(|due| finished(due, 200, Next::Delivered))
        .collect();
    world.finish(late).await;
    assert_eq!(prune_all(&world, START.after(5_000), 5).await, 14);
    let left = world.store().stats().await.unwrap().due;
    assert_eq!(left, (OLD - settled - 7 + 1) as u64);
}

/// Deliveries of a deleted endpoint and of a removed app are listed until their time has come; then
/// nothing of them is left, not even the endpoint.
pub async fn what_a_removed_app_left_is_listed_until_it_is_pruned(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("other").await);
    let [endpoint, second] = &tenant.endpoints;
    let (sent, unsent) = (
        world.accept_one(&tenant, START).await,
        world.accept_one(&tenant, START).await,
    );
    world
        .finish(vec![finished(&sent, 200, Next::Delivered)])
        .await;
    let deleted = |endpoint: &hookturn_core::endpoint::Endpoint| {
        let mut endpoint = endpoint.clone();
        endpoint.version += 1;
        endpoint.state = EndpointState::Deleted {
            since: START.after(10),
        };
        // A description that looks like a state must not be taken for one.
        r#""state":"enabled""#.clone_into(&mut endpoint.description);
        Write::Endpoint(endpoint)
    };
    let mut decoy = other.endpoints[0].clone();
    decoy.version = 2;
    r#""state":"deleted""#.clone_into(&mut decoy.description);
    world
        .write(other.workspace.id, vec![Write::Endpoint(decoy.clone())])
        .await;
    let remove = Write::RemoveApp {
        workspace: tenant.workspace.id,
        app: tenant.app.id,
        version: 1,
    };
    world
        .write(
            tenant.workspace.id,
            vec![deleted(endpoint), deleted(second), remove],
        )
        .await;
    // Its pending deliveries hold it until they are exhausted.
    prune_all(&world, START.after(30 * DAY), 100).await;
    assert!(world.live.endpoint(endpoint.id).is_some());
    let gone = Finish {
        attempt: None,
        ..finished(
            &unsent,
            0,
            Next::Exhausted(ExhaustedReason::EndpointDeleted),
        )
    };
    world.finish(vec![gone]).await;
    world.restart().await;
    let by_endpoint = DeliveryQuery {
        endpoint: Some(endpoint.id),
        ..all_of(&tenant.app)
    };
    let listed = world.store().deliveries(by_endpoint.clone()).await.unwrap();
    assert_eq!(listed.len(), 1, "the one that was settled before is pruned");
    let found = world
        .store()
        .delivery(tenant.workspace.id, unsent.delivery)
        .await;
    assert!(found.unwrap().is_some());
    prune_all(&world, START.after(30 * DAY), 100).await;
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        assert!(
            world
                .store()
                .deliveries(by_endpoint.clone())
                .await
                .unwrap()
                .is_empty()
        );
        assert!(world.live.endpoint(endpoint.id).is_none());
        assert_eq!(*world.live.endpoint(decoy.id).unwrap(), decoy);
    }
    // What comes after never stands in the place of what was forgotten.
    let later = world.tenant("later").await;
    world.accept_one(&later, START).await;
    assert!(world.due(endpoint, START).await.rows.is_empty());
}

/// A backup is one moment of the store, taken while it goes on, and opens as a store.
pub async fn a_backup_taken_while_writing_opens_with_the_same_contents(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let mut before = Vec::new();
    for at in 0..300 {
        let new = world.message(
            &tenant.app,
            START.after(at),
            "a",
            2_000,
            &[&tenant.endpoints[0]],
        );
        world.accept(new.clone()).await;
        before.push(new.message);
    }
    let path = world.backup_path();
    let backup = world.store().backup(path.clone());
    for at in 300..400 {
        let new = world.message(
            &tenant.app,
            START.after(at),
            "b",
            2_000,
            &[&tenant.endpoints[0]],
        );
        world.accept(new).await;
    }
    backup.await.unwrap();
    let copy = World::of_backup(engine, &path).await;
    assert_eq!(
        *copy.live.endpoint(tenant.endpoints[0].id).unwrap(),
        tenant.endpoints[0]
    );
    let due = copy
        .due(&tenant.endpoints[0], START.after(1_000))
        .await
        .rows;
    assert!((300..=400).contains(&due.len()), "{}", due.len());
    let messages: Vec<_> = due
        .iter()
        .take(300)
        .map(|d| Arc::clone(&d.message))
        .collect();
    assert_eq!(messages, before);
    let log = copy.store().audit_log(tenant.workspace.id, 0, 100).await;
    verify_chain(Head::START, &log.unwrap()).unwrap();
    // The copy lives on its own.
    copy.accept_one(&tenant, START.after(2_000)).await;
    copy.close_and_check().await;
    let original = world.due(&tenant.endpoints[0], START.after(3_000)).await;
    assert_eq!(original.rows.len(), 400);
    world.close_and_check().await;
}

/// An existing file is left as it is.
pub async fn a_backup_never_replaces_a_file(engine: &impl Engine) {
    let world = World::new(engine).await;
    let path = world.backup_path();
    std::fs::write(&path, b"precious").unwrap();
    assert!(world.store().backup(path.clone()).await.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

/// The counts follow the due rows.
pub async fn stats_count_what_is_due(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let empty = world.store().stats().await.unwrap();
    assert_eq!((empty.due, empty.oldest_due_at), (0, None));
    assert!(empty.bytes > 0);
    let first = world.accept_one(&tenant, START).await;
    world.accept_one(&tenant, START.after(7)).await;
    let stats = |due, oldest_due_at, bytes| StoreStats {
        due,
        oldest_due_at,
        bytes,
    };
    let two = world.store().stats().await.unwrap();
    assert_eq!(two, stats(2, Some(START), two.bytes));
    world
        .finish(vec![finished(&first, 200, Next::Delivered)])
        .await;
    let one = world.store().stats().await.unwrap();
    assert_eq!(one, stats(1, Some(START.after(7)), one.bytes));
}

struct Highest;

impl Entropy for Highest {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0xff);
    }
}

/// Ids of one sequence sort as they were asked for, within one millisecond and when the clock steps
/// back, and so do the rows that carry them.
pub async fn ids_of_a_sequence_sort_in_the_order_of_asking(engine: &impl Engine) {
    let sequence = Sequence::default();
    let times = [5, 5, 5, 3, 4, 6, 6];
    let ids: Vec<_> = times
        .map(|at| MessageId::at_place(sequence.next(START.after(at)), &Highest))
        .into();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let to = [&tenant.endpoints[0]];
    let new: Vec<_> = (0..50)
        .map(|_| world.message(&tenant.app, START, "a", 8, &to))
        .collect();
    let expected: Vec<_> = new.iter().map(|new| new.deliveries[0].0).collect();
    for half in [&new[25..], &new[..25]] {
        let accept = Accept {
            messages: half.to_vec(),
            idempotency: None,
        };
        world.store().accept(accept).await.unwrap();
    }
    let due = world.due(&tenant.endpoints[0], START).await.rows;
    let found: Vec<_> = due.iter().map(|row| row.delivery).collect();
    assert_eq!(found, expected);
}

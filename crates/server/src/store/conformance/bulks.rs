//! Bulk rotations and their items.

use hookturn_core::bulk::{BulkCommand, BulkItem, ItemCounts, ItemKind, ItemState};
use hookturn_core::id::RotationId;
use hookturn_core::store::{BulkItemQuery, Page, StoreError, Write};

use super::Engine;
use super::world::{START, World};

fn all_of(item: &BulkItem) -> BulkItemQuery {
    BulkItemQuery {
        workspace: item.workspace,
        bulk: item.bulk,
        from: 0,
        until: u32::MAX,
        kind: None,
        limit: 1_000,
    }
}

fn done(item: &BulkItem) -> BulkItem {
    item.moved(ItemState::Done {
        rotation: RotationId::from_bytes([7; 16]),
        at: START,
    })
}

/// One that is not over is loaded with its state; one that is over is read, and loaded no more.
pub async fn a_bulk_rotation_and_its_items_survive_a_restart(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let workspace = world.tenant("acme").await.workspace.id;
    let (bulk, items) = world.bulk(workspace, 5);
    let mut writes = vec![Write::Bulk(bulk.clone())];
    writes.extend(items.iter().cloned().map(Write::BulkItem));
    world.write(workspace, writes).await;
    let paused = bulk.command(BulkCommand::Pause, 0, START).unwrap();
    world
        .write(workspace, vec![Write::Bulk(paused.clone())])
        .await;
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        assert_eq!(*world.live.open_bulk(bulk.id).unwrap(), paused);
        let store = world.store();
        let found = store.bulk(workspace, bulk.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&paused));
        assert_eq!(store.bulk_items(all_of(&items[0])).await.unwrap(), items);
    }
    let cancelled = paused.command(BulkCommand::Cancel, 0, START).unwrap();
    world
        .write(workspace, vec![Write::Bulk(cancelled.clone())])
        .await;
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        assert!(world.live.open_bulks().is_empty());
        let found = world.store().bulk(workspace, bulk.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&cancelled));
    }
}

/// An item has versions: whoever moves it second learns that, and writes nothing else of the change.
pub async fn g5_an_item_of_a_bulk_rotation_is_moved_once(engine: &impl Engine) {
    let world = World::new(engine).await;
    let workspace = world.tenant("acme").await.workspace.id;
    let (bulk, items) = world.bulk(workspace, 1);
    let writes = vec![Write::Bulk(bulk), Write::BulkItem(items[0].clone())];
    world.write(workspace, writes).await;
    let moved = done(&items[0]);
    let app = || Write::App(world.app(workspace));
    let before = world.live.apps(workspace).len();
    let asked: Vec<_> = (0..8)
        .map(|_| {
            let writes = vec![app(), Write::BulkItem(moved.clone())];
            world.store().change(world.changing(workspace, writes))
        })
        .collect();
    let mut won = 0;
    for answer in asked {
        match answer.await {
            Ok(()) => won += 1,
            Err(error) => assert!(matches!(error, StoreError::Conflict { .. }), "{error}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(world.live.apps(workspace).len(), before + 1);
    let again = world.changing(workspace, vec![Write::BulkItem(items[0].clone())]);
    let refused = world.store().change(again).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    let found = world.store().bulk_items(all_of(&items[0])).await.unwrap();
    assert_eq!(found, [moved]);
}

/// Items come in their order, and are counted, within a span and of one kind.
pub async fn items_are_read_and_counted_by_place_and_kind(engine: &impl Engine) {
    let world = World::new(engine).await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("other").await);
    let workspace = tenant.workspace.id;
    let (bulk, items) = world.bulk(workspace, 10);
    let mut writes = vec![Write::Bulk(bulk.clone())];
    writes.extend(items.iter().cloned().map(Write::BulkItem));
    writes.extend([1, 4, 5, 9].map(|index: usize| Write::BulkItem(done(&items[index]))));
    world.write(workspace, writes).await;
    let positions =
        |found: Vec<BulkItem>| -> Vec<u32> { found.iter().map(|item| item.position).collect() };
    let store = world.store();
    let part = BulkItemQuery {
        from: 2,
        until: 9,
        ..all_of(&items[0])
    };
    let cases = [
        (part, vec![2, 3, 4, 5, 6, 7, 8]),
        (BulkItemQuery { limit: 2, ..part }, vec![2, 3]),
        (
            BulkItemQuery {
                kind: Some(ItemKind::Done),
                ..part
            },
            vec![4, 5],
        ),
        (
            BulkItemQuery {
                kind: Some(ItemKind::Waiting),
                limit: 3,
                ..part
            },
            vec![2, 3, 6],
        ),
        (
            BulkItemQuery {
                workspace: other.workspace.id,
                ..part
            },
            vec![],
        ),
    ];
    for (query, expected) in cases {
        let found = store.bulk_items(query).await.unwrap();
        assert_eq!(positions(found), expected, "{query:?}");
    }
    let counted = store.bulk_counts(workspace, bulk.id, 2, 9).await.unwrap();
    let expected = ItemCounts {
        waiting: 5,
        done: 2,
        ..ItemCounts::default()
    };
    assert_eq!(counted, expected);
    let foreign = store.bulk_counts(other.workspace.id, bulk.id, 0, 10).await;
    assert_eq!(foreign.unwrap(), ItemCounts::default());
}

/// Newest first, each once, and only of their workspace.
pub async fn bulk_rotations_are_paged_newest_first(engine: &impl Engine) {
    let world = World::new(engine).await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("other").await);
    let workspace = tenant.workspace.id;
    let mut bulks: Vec<_> = (0..5).map(|_| world.bulk(workspace, 0).0).collect();
    let foreign = world.bulk(other.workspace.id, 0).0;
    let writes = bulks.iter().cloned().map(Write::Bulk).collect();
    world.write(workspace, writes).await;
    let write = vec![Write::Bulk(foreign.clone())];
    world.write(other.workspace.id, write).await;
    bulks.reverse();
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = Page { before, limit: 2 };
        let found = world.store().bulks(workspace, page).await.unwrap();
        let Some(last) = found.last() else { break };
        before = Some(last.id);
        seen.extend(found);
    }
    assert_eq!(seen, bulks);
    let found = world.store().bulk(workspace, foreign.id).await.unwrap();
    assert_eq!(found, None);
}

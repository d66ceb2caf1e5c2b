//! Reading due work, and queueing by hand.

use std::collections::HashSet;

use futures_util::future::join_all;
use hookturn_core::delivery::{DeliveryState, DeliveryStatus, ExhaustedReason, Next};
use hookturn_core::id::DeliveryId;
use hookturn_core::store::{
    Change, DueQuery, Hint, IdempotencyRecord, RecoverQuery, StoreError, Write,
};

use super::Engine;
use super::world::{START, World, accepted, finished, keys};

/// Rows come by due time, then delivery id, up to the asked time; the next one is announced.
pub async fn due_rows_come_in_order_and_up_to_a_time(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let endpoint = &tenant.endpoints[0];
    let mut rows = Vec::new();
    for at in [0, 0, 10, 10, 20] {
        rows.push(world.accept_one(&tenant, START.after(at)).await);
    }
    for (until, count, next) in [(9, 2, Some(10)), (10, 4, Some(20)), (20, 5, None)] {
        let block = world.due(endpoint, START.after(until)).await;
        assert_eq!(keys(&block.rows), keys(&rows[..count]));
        assert_eq!(block.next_due_at, next.map(|at| START.after(at)));
    }
    let nothing = world.due(endpoint, START.before(1)).await;
    assert!(nothing.rows.is_empty());
    assert_eq!(nothing.next_due_at, Some(START));
    let other = world.due(&tenant.endpoints[1], START.after(20)).await;
    assert!(other.rows.is_empty() && other.next_due_at.is_none());
}

/// A block has at most so many rows and stops after so many bytes, but never before its first row.
pub async fn a_due_block_ends_at_its_limit_or_its_bytes(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let endpoint = &tenant.endpoints[0];
    for at in 0..6 {
        let new = world.message(&tenant.app, START.after(at), "big", 1_000, &[endpoint]);
        world.accept(new).await;
    }
    for (limit, payload_bytes, count) in [
        (4, usize::MAX, 4),
        (6, usize::MAX, 6),
        (usize::MAX, usize::MAX, 6),
        (10, 0, 1),
        (10, 1_500, 2),
    ] {
        let query = DueQuery {
            workspace: endpoint.workspace,
            endpoint: endpoint.id,
            until: START.after(100),
            limit,
            payload_bytes,
        };
        let block = world.store().due(query).await.unwrap();
        assert_eq!(block.rows.len(), count, "{limit} {payload_bytes}");
        let next = (count < 6).then(|| START.after(count as u64));
        assert_eq!(block.next_due_at, next);
    }
}

/// Whoever asks while others do gets the rows of the endpoint and the bounds that were asked for, and no others.
pub async fn blocks_that_are_asked_for_at_once_are_told_apart(engine: &impl Engine) {
    let world = World::new(engine).await;
    let mut asked = Vec::new();
    for name in ["acme", "other", "third"] {
        let tenant = world.tenant(name).await;
        let (workspace, endpoint) = (tenant.workspace.id, tenant.endpoints[0].id);
        let mut rows = Vec::new();
        for at in 0..4 {
            rows.push(world.accept_one(&tenant, START.after(at)).await);
        }
        // The first rows by number, by bytes, and by time; and an endpoint without any.
        for (until, limit, payload_bytes, count) in
            [(9, 2, usize::MAX, 2), (9, 9, 0, 1), (2, 9, usize::MAX, 3)]
        {
            let query = DueQuery {
                workspace,
                endpoint,
                until: START.after(until),
                limit,
                payload_bytes,
            };
            asked.push((query, rows[..count].to_vec(), Some(rows[count].due_at)));
        }
        let nothing = DueQuery {
            workspace,
            endpoint: tenant.endpoints[1].id,
            until: START.after(9),
            limit: 9,
            payload_bytes: usize::MAX,
        };
        asked.push((nothing, Vec::new(), None));
    }
    let store = world.store();
    let blocks = join_all(asked.iter().map(|(query, ..)| store.due(*query))).await;
    for (block, (query, rows, next)) in blocks.into_iter().zip(asked) {
        let block = block.unwrap();
        assert_eq!(keys(&block.rows), keys(&rows), "{query:?}");
        assert_eq!(block.next_due_at, next, "{query:?}");
    }
}

/// Rows that the caller holds may be left out. They count against the limit, and the next row is the one behind.
pub async fn a_block_may_be_without_the_rows_that_are_held(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let endpoint = &tenant.endpoints[0];
    let mut rows = Vec::new();
    for at in 0..5 {
        rows.push(world.accept_one(&tenant, START.after(at)).await);
    }
    for (until, limit, held, brought, next) in [
        (9, 9, vec![0, 2], vec![1, 3, 4], None),
        (9, 3, vec![0, 2], vec![1], Some(3)),
        (1, 9, vec![0], vec![1], Some(2)),
        (9, 2, vec![0, 1], vec![], Some(2)),
        (9, 9, vec![0, 1, 2, 3, 4], vec![], None),
    ] {
        let query = DueQuery {
            workspace: endpoint.workspace,
            endpoint: endpoint.id,
            until: START.after(until),
            limit,
            payload_bytes: usize::MAX,
        };
        let held: HashSet<DeliveryId> = held.iter().map(|at: &usize| rows[*at].delivery).collect();
        let block = world.store().due_beside(query, held.clone()).await.unwrap();
        let mut others = block.rows;
        others.retain(|row| !held.contains(&row.delivery));
        let expected: Vec<_> = brought.iter().map(|at: &usize| rows[*at].clone()).collect();
        assert_eq!(keys(&others), keys(&expected), "{query:?}");
        assert_eq!(
            block.next_due_at,
            next.map(|at| START.after(at)),
            "{query:?}"
        );
    }
}

/// Each endpoint with due rows, once, with its earliest time.
pub async fn due_endpoints_name_the_earliest_row_of_each(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let (first, second) = (world.tenant("acme").await, world.tenant("other").await);
    assert!(world.store().due_endpoints().await.unwrap().is_empty());
    for (tenant, at) in [(&first, 7), (&first, 9), (&second, 5)] {
        world.accept_one(tenant, START.after(at)).await;
    }
    world.restart().await;
    let mut found = world.store().due_endpoints().await.unwrap();
    found.sort_by_key(|(_, _, at)| *at);
    let expected = [(&second, 5), (&first, 7)].map(|(tenant, at)| {
        let endpoint = &tenant.endpoints[0];
        (endpoint.workspace, endpoint.id, START.after(at))
    });
    assert_eq!(found, expected);
}

/// A pending delivery is due at once, its retry policy starts anew, and dispatch is told.
pub async fn a_pending_delivery_can_be_queued_at_once(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let (workspace, endpoint) = (tenant.workspace.id, &tenant.endpoints[0]);
    let row = world.accept_one(&tenant, START).await;
    let later = START.after(60_000);
    world
        .finish(vec![finished(&row, 500, Next::RetryAt(later))])
        .await;
    world.hints.take();
    let now = START.after(1_000);
    world.requeue(workspace, row.delivery, now).await;
    let found = world.store().delivery(workspace, row.delivery).await;
    let (queued, _) = found.unwrap().unwrap();
    assert_eq!(queued.state, DeliveryState::Pending { due_at: now });
    assert_eq!(queued.attempts, 1);
    match &world.hints.take()[..] {
        [Hint::Requeued(of, id)] => assert_eq!((*of, *id), (workspace, endpoint.id)),
        other => panic!("{other:?}"),
    }
    let block = world.due(endpoint, now).await;
    let [due] = &block.rows[..] else {
        panic!("{block:?}");
    };
    assert_eq!((due.due_at, due.attempts), (now, 1));
    assert!(due.not_before <= now);
    assert_eq!(due.attempts_before_requeue, 1);
}

/// A settled delivery becomes pending again, with the attempts it has, and can settle once more.
pub async fn a_settled_delivery_can_be_queued_again(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let (workspace, endpoint) = (tenant.workspace.id, &tenant.endpoints[0]);
    let exhausted = Next::Exhausted(ExhaustedReason::AttemptsUsed);
    for (next, status) in [(Next::Delivered, 200), (exhausted, 500)] {
        let row = world.accept_one(&tenant, START).await;
        world.finish(vec![finished(&row, status, next)]).await;
        let now = START.after(1_000);
        world.requeue(workspace, row.delivery, now).await;
        world.crash().await;
        let block = world.due(endpoint, now).await;
        let [due] = &block.rows[..] else {
            panic!("{block:?}");
        };
        assert_eq!((due.delivery, due.due_at), (row.delivery, now));
        assert_eq!((due.attempts, due.attempts_before_requeue), (1, 1));
        world
            .finish(vec![finished(due, 200, Next::Delivered)])
            .await;
        let found = world.store().delivery(workspace, row.delivery).await;
        let (delivery, attempts) = found.unwrap().unwrap();
        assert_eq!(delivery.state.status(), DeliveryStatus::Delivered);
        let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!((delivery.attempts, numbers), (2, vec![1, 2]));
    }
}

/// Queueing by hand, its audit entry and its answer are one step: a delivery that is not as it was
/// seen, one of nobody or of another workspace, or a key that is used, refuses all of it.
pub async fn a_delivery_that_is_not_as_it_was_seen_is_not_queued(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("other").await);
    let (workspace, endpoint) = (tenant.workspace.id, &tenant.endpoints[0]);
    let (pending, settled) = (
        world.accept_one(&tenant, START).await,
        world.accept_one(&tenant, START).await,
    );
    let now = START.after(1_000);
    let stale = [
        world.requeueing(workspace, pending.delivery, now).await,
        world.requeueing(workspace, settled.delivery, now).await,
    ];
    world
        .finish(vec![
            finished(&pending, 500, Next::RetryAt(START.after(60_000))),
            finished(&settled, 200, Next::Delivered),
        ])
        .await;
    let good = world.requeueing(workspace, settled.delivery, now).await;
    let mut refused: Vec<_> = stale.into_iter().flatten().collect();
    // A block of which one has moved is refused whole.
    let mut both = good.clone().unwrap();
    both.writes.extend(refused[0].writes.clone());
    refused.push(both);
    let foreign = |change: &Change| {
        let mut change = change.clone();
        change.workspace = other.workspace.id;
        for write in &mut change.writes {
            if let Write::Requeue { delivery, .. } = write {
                delivery.workspace = other.workspace.id;
            }
        }
        change
    };
    refused.push(foreign(good.as_ref().unwrap()));
    let mut unknown = good.clone().unwrap();
    for write in &mut unknown.writes {
        if let Write::Requeue { delivery, .. } = write {
            delivery.id = DeliveryId::first_at(START);
        }
    }
    refused.push(unknown);
    let log = world.store().audit_log(workspace, 0, 100).await.unwrap();
    world.hints.take();
    for change in refused {
        let answer = world.store().change(change.clone()).await;
        assert!(
            matches!(answer, Err(StoreError::Conflict { .. })),
            "{change:?}"
        );
    }
    let used = world.answer(b"queued");
    let with_answer = |answer: &IdempotencyRecord| Change {
        idempotency: Some(answer.clone()),
        ..good.clone().unwrap()
    };
    let mut first = world.changing(workspace, Vec::new());
    (first.audit, first.idempotency) = (Vec::new(), Some(used.clone()));
    world.store().change(first).await.unwrap();
    let answer = world.store().change(with_answer(&used)).await;
    assert!(
        matches!(answer, Err(StoreError::IdempotencyKeyUsed)),
        "{answer:?}"
    );
    let after = world.store().audit_log(workspace, 0, 100).await.unwrap();
    assert_eq!(after, log, "nothing of it was written");
    assert!(world.due(endpoint, now).await.rows.is_empty());
    assert!(world.hints.take().is_empty());

    let fresh = world.answer(b"queued at last");
    world.store().change(with_answer(&fresh)).await.unwrap();
    world.crash().await;
    let due = world.due(endpoint, now).await.rows;
    assert_eq!(due.len(), 1);
    let store = world.store();
    let kept = store.idempotent_answer(fresh.key, START).await.unwrap();
    assert_eq!(kept, Some(fresh));
    let after = store.audit_log(workspace, 0, 100).await.unwrap();
    assert_eq!(after.len(), log.len() + 1);
}

/// Recovery counts first and changes nothing; then it queues block by block, each delivery once, and
/// touches only what was asked for.
pub async fn recovering_goes_in_blocks_and_can_be_counted_first(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let [endpoint, other] = &tenant.endpoints;
    let mut expected = Vec::new();
    for at in 0..12 {
        let new = world.message(&tenant.app, START.after(at), "a", 8, &[endpoint, other]);
        world.accept(new.clone()).await;
        let next = match at {
            5 => Next::Delivered,
            _ => Next::Exhausted(ExhaustedReason::NotRetried),
        };
        let rows = accepted(&new);
        world
            .finish(rows.iter().map(|row| finished(row, 400, next)).collect())
            .await;
        if (1..11).contains(&at) && at != 5 {
            expected.push(rows[0].delivery);
        }
    }
    let query = RecoverQuery {
        workspace: endpoint.workspace,
        app: tenant.app.id,
        endpoint: endpoint.id,
        since: START.after(1),
        until: START.after(11),
        status: DeliveryStatus::Exhausted,
    };
    let now = START.after(5_000);
    for really in [false, true] {
        let (mut after, mut rows) = (None, Vec::new());
        loop {
            let block = world.store().recoverable(query, after, 4).await.unwrap();
            rows.push(block.len());
            after = block.last().map(|delivery| delivery.id).or(after);
            let last = block.len() < 4;
            if really {
                let queue = |delivery| Write::Requeue { delivery, at: now };
                let writes = block.into_iter().map(queue).collect();
                world.write(endpoint.workspace, writes).await;
            }
            if last {
                break;
            }
        }
        assert_eq!(rows, [4, 4, 1]);
        let due = world.due(endpoint, now).await.rows;
        let queued: Vec<_> = due.iter().map(|row| row.delivery).collect();
        let wanted = if really { expected.clone() } else { Vec::new() };
        assert_eq!(queued, wanted);
    }
    assert!(world.due(other, now).await.rows.is_empty());
    let again = world.store().recoverable(query, None, 100).await;
    assert!(again.unwrap().is_empty());
    let pending = RecoverQuery {
        status: DeliveryStatus::Pending,
        ..query
    };
    let nothing = world.store().recoverable(pending, None, 100).await;
    assert!(nothing.unwrap().is_empty());
}

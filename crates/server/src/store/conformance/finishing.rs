//! Recording what came of due deliveries.

use hookturn_core::delivery::{Attempt, DeliveryState, ExhaustedReason, Next};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{EndpointId, SecretId};
use hookturn_core::receiver::{Belief, ReceiverClass, ReceiverView};
use hookturn_core::store::{DeliverySearch, Due, Finish, Hold, ReceiverState, Write};
use hookturn_core::time::Timestamp;

use super::Engine;
use super::listing::search_of;
use super::world::{START, World, all_of, attempt, finished, keys};

async fn state<E: Engine>(world: &World<'_, E>, due: &Due) -> (DeliveryState, u32, Vec<u32>) {
    let found = world
        .store()
        .delivery(due.message.workspace, due.delivery)
        .await;
    let (delivery, attempts) = found.unwrap().unwrap();
    assert_eq!(delivery.message, due.message.id);
    assert_eq!(delivery.endpoint, due.endpoint);
    assert_eq!(delivery.event_type, due.message.event_type);
    let numbers = attempts.iter().map(|attempt| attempt.number).collect();
    (delivery.state, delivery.attempts, numbers)
}

/// Delivered: the due row is gone, the settled delivery and its attempt are there.
pub async fn a_delivered_row_is_settled_with_its_attempt(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let row = world.accept_one(&tenant, START).await;
    let finish = finished(&row, 204, Next::Delivered);
    let (at, made) = (finish.at, finish.attempt.clone());
    world.finish(vec![finish]).await;
    let delivered = (DeliveryState::Delivered { at }, 1, vec![1]);
    assert_eq!(state(&world, &row).await, delivered);
    let found = world.store().delivery(tenant.workspace.id, row.delivery);
    assert_eq!(found.await.unwrap().unwrap().1.pop(), made);
    let block = world.due(&tenant.endpoints[0], START.after(100)).await;
    assert!(block.rows.is_empty());
}

/// The record of an attempt says which of its requests went over the wire twice, wherever it is read.
pub async fn an_attempt_says_which_requests_were_sent_twice(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let mut row = world.accept_one(&tenant, START).await;
    let sent = [[false, false], [true, false], [false, true]];
    for (number, resent) in sent.into_iter().enumerate() {
        let last = number + 1 == sent.len();
        let retry_at = row.due_at.after(1_000);
        let next = if last {
            Next::Delivered
        } else {
            Next::RetryAt(retry_at)
        };
        let mut finish = finished(&row, 503, next);
        let made = finish.attempt.as_mut().unwrap();
        made.exchanges.push(made.exchanges[0].clone());
        for (exchange, resent) in std::iter::zip(&mut made.exchanges, resent) {
            exchange.resent = resent;
        }
        world.finish(vec![finish]).await;
        if !last {
            row = world
                .due(&tenant.endpoints[0], retry_at)
                .await
                .rows
                .remove(0);
        }
    }
    world.restart().await;
    let told = |attempt: &Attempt| {
        let made = &attempt.exchanges;
        [made[0].resent, made[1].resent]
    };
    let found = world.store().delivery(tenant.workspace.id, row.delivery);
    let (_, attempts) = found.await.unwrap().unwrap();
    assert_eq!(attempts.iter().map(told).collect::<Vec<_>>(), sent);
    let search = DeliverySearch {
        with_attempts: true,
        ..search_of(&tenant)
    };
    let found = world.store().search(search).await.unwrap();
    let last = found.items[0].last_attempt.as_ref().unwrap();
    assert_eq!(told(last), sent[2]);
}

/// A retry moves the row to its time and counts the attempt.
pub async fn a_failed_row_waits_for_its_retry(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let endpoint = &tenant.endpoints[0];
    let mut row = world.accept_one(&tenant, START).await;
    for number in 1..=3_u32 {
        let retry_at = START.after(u64::from(number) * 1_000);
        world
            .finish(vec![finished(&row, 503, Next::RetryAt(retry_at))])
            .await;
        assert!(
            world
                .due(endpoint, retry_at.before(1))
                .await
                .rows
                .is_empty()
        );
        let numbers = (1..=number).collect::<Vec<_>>();
        let pending = DeliveryState::Pending { due_at: retry_at };
        assert_eq!(state(&world, &row).await, (pending, number, numbers));
        row = world.due(endpoint, retry_at).await.rows.remove(0);
        assert_eq!((row.due_at, row.not_before), (retry_at, retry_at));
        assert_eq!((row.attempts, row.attempts_before_requeue), (number, 0));
    }
}

/// On an ordered endpoint a retry keeps the row's place before later rows.
pub async fn an_ordered_row_keeps_its_place_while_it_waits(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let first = world.accept_one(&tenant, START).await;
    let second = world.accept_one(&tenant, START.after(1)).await;
    let retry_at = START.after(60_000);
    let waits = Finish {
        keeps_place: true,
        ..finished(&first, 500, Next::RetryAt(retry_at))
    };
    world.finish(vec![waits]).await;
    let rows = world.due(&tenant.endpoints[0], START.after(1)).await.rows;
    let order: Vec<_> = rows.iter().map(|row| row.delivery).collect();
    assert_eq!(order, [first.delivery, second.delivery]);
    assert_eq!((rows[0].due_at, rows[0].not_before), (START, retry_at));
    let pending = DeliveryState::Pending { due_at: retry_at };
    assert_eq!(state(&world, &first).await.0, pending);
    // The row as it is now settles.
    world
        .finish(vec![finished(&rows[0], 200, Next::Delivered)])
        .await;
    let left = world.due(&tenant.endpoints[0], START.after(1)).await.rows;
    assert_eq!(keys(&left), keys(&[second]));
}

/// From the change on that makes an endpoint ordered, what waits for its retry is before what was accepted
/// later, and so is what was sent before and fails after it.
pub async fn what_waits_is_put_in_order_with_the_endpoint(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let endpoint = &tenant.endpoints[0];
    let mut rows = Vec::new();
    for at in [0, 1, 2] {
        rows.push(world.accept_one(&tenant, START.after(at)).await);
    }
    let retry_at = START.after(60_000);
    let waits = |row| vec![finished(row, 500, Next::RetryAt(retry_at))];
    world.finish(waits(&rows[1])).await;
    let ordered = Endpoint {
        ordered: true,
        version: 2,
        updated_at: START.after(1_000),
        ..endpoint.clone()
    };
    world
        .write(tenant.workspace.id, vec![Write::Endpoint(ordered)])
        .await;
    world.finish(waits(&rows[0])).await;
    for _ in 0..2 {
        let found = world.due(endpoint, START.after(3_000)).await.rows;
        let order: Vec<_> = found.iter().map(|row| row.delivery).collect();
        let accepted: Vec<_> = rows.iter().map(|row| row.delivery).collect();
        assert_eq!(order, accepted);
        let times: Vec<_> = found.iter().map(|row| row.not_before).collect();
        assert_eq!(times, [retry_at, retry_at, START.after(2)]);
        let pending = DeliveryState::Pending { due_at: retry_at };
        assert_eq!(state(&world, &rows[1]).await.0, pending);
        world.restart().await;
    }
}

/// A change of an endpoint that kept the order before moves nothing, whatever the clock of who decided it: a row may
/// be on its way, and finishes as it was read.
pub async fn g2_a_change_of_an_ordered_endpoint_moves_nothing(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let endpoint = &tenant.endpoints[0];
    let change = |version, updated_at| {
        let ordered = Endpoint {
            ordered: true,
            version,
            updated_at,
            ..endpoint.clone()
        };
        vec![Write::Endpoint(ordered)]
    };
    let workspace = tenant.workspace.id;
    world.write(workspace, change(2, START)).await;
    for at in [1, 2] {
        let _ = world.accept_one(&tenant, START.after(at)).await;
    }
    // The engine may have given them places by a clock of its own.
    let end = Timestamp::from_millis(i64::MAX);
    let sent = world.due(endpoint, end).await.rows;
    let decided_at = START.before(60_000);
    world.write(workspace, change(3, decided_at)).await;
    assert_eq!(keys(&world.due(endpoint, end).await.rows), keys(&sent));
    let delivered = sent.iter().map(|row| finished(row, 200, Next::Delivered));
    world.finish(delivered.collect()).await;
    assert!(world.due(endpoint, end).await.rows.is_empty());
}

/// Every reason comes back as it was written.
pub async fn an_exhausted_row_says_why(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let mut settled = Vec::new();
    for reason in [
        ExhaustedReason::AttemptsUsed,
        ExhaustedReason::NotRetried,
        ExhaustedReason::Gone,
        ExhaustedReason::EndpointDisabled,
        ExhaustedReason::EndpointDeleted,
        ExhaustedReason::UrlTooLong,
    ] {
        let row = world.accept_one(&tenant, START).await;
        let finish = finished(&row, 410, Next::Exhausted(reason));
        let at = finish.at;
        world.finish(vec![finish]).await;
        settled.push((row, DeliveryState::Exhausted { at, reason }));
    }
    world.restart().await;
    for (row, expected) in settled {
        assert_eq!(state(&world, &row).await, (expected, 1, vec![1]));
    }
}

/// A delivery can be exhausted without ever having been sent, and is found all the same.
pub async fn a_row_settles_without_an_attempt_when_its_endpoint_went_away(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let row = world.accept_one(&tenant, START).await;
    let reason = ExhaustedReason::EndpointDisabled;
    let finish = Finish {
        attempt: None,
        ..finished(&row, 200, Next::Exhausted(reason))
    };
    let at = finish.at;
    world.finish(vec![finish]).await;
    let exhausted = DeliveryState::Exhausted { at, reason };
    assert_eq!(state(&world, &row).await, (exhausted, 0, Vec::new()));
}

/// Someone queues a delivery by hand while it is being sent: whatever comes of the attempt, the row
/// stays, the attempt is kept, and the next one does not overwrite it.
pub async fn g1_a_row_that_was_queued_meanwhile_stays_and_keeps_both_attempts(
    engine: &impl Engine,
) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let endpoint = &tenant.endpoints[0];
    let exhausted = Next::Exhausted(ExhaustedReason::AttemptsUsed);
    let retry = Next::RetryAt(START.after(60_000));
    // Before its time, at its very time, and long after it.
    for now in [START.before(5), START, START.after(500)] {
        for next in [Next::Delivered, exhausted, retry] {
            let row = world.accept_one(&tenant, START).await;
            world.requeue(tenant.workspace.id, row.delivery, now).await;
            world.finish(vec![finished(&row, 500, next)]).await;
            let block = world.due(endpoint, now).await;
            let [again] = &block.rows[..] else {
                panic!("{now} {next:?}: {block:?}");
            };
            assert_eq!(again.delivery, row.delivery);
            // The retry policy does not count what began before it started anew.
            assert_eq!((again.attempts, again.attempts_before_requeue), (1, 1));
            world
                .finish(vec![finished(again, 200, Next::Delivered)])
                .await;
            let (state, attempts, numbers) = state(&world, &row).await;
            assert!(matches!(state, DeliveryState::Delivered { .. }));
            assert_eq!((attempts, numbers), (2, vec![1, 2]));
        }
    }
    // Both attempts begin from the same row, and the older one ends last.
    let row = world.accept_one(&tenant, START).await;
    world
        .requeue(tenant.workspace.id, row.delivery, START)
        .await;
    let again = world.due(endpoint, START).await.rows.remove(0);
    world
        .finish(vec![
            finished(&again, 200, Next::Delivered),
            finished(&row, 500, exhausted),
        ])
        .await;
    let (state, attempts, numbers) = state(&world, &row).await;
    assert!(matches!(state, DeliveryState::Delivered { .. }));
    assert_eq!((attempts, numbers), (2, vec![1, 2]));
}

/// A finish is applied in its turn even if its future is dropped, and a later read sees it.
pub async fn a_finish_applies_even_if_nobody_waits_for_it(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let mut rows = Vec::new();
    for _ in 0..20 {
        rows.push(world.accept_one(&tenant, START).await);
    }
    for row in &rows[..10] {
        let finish = finished(row, 200, Next::Delivered);
        drop(world.store().finish(vec![finish], Vec::new()));
    }
    let left = world.due(&tenant.endpoints[0], START).await.rows;
    assert_eq!(keys(&left), keys(&rows[10..]));
    let retry = finished(&rows[10], 500, Next::RetryAt(START.after(1)));
    drop(world.store().finish(vec![retry], Vec::new()));
    world.store().flush().await.unwrap();
    let left = world.due(&tenant.endpoints[0], START.after(1)).await.rows;
    assert_eq!(left.last().unwrap().delivery, rows[10].delivery);
    assert_eq!(left.last().unwrap().attempts, 1);
}

/// A row whose endpoint does not exist any more is skipped; the others of the call are finished.
pub async fn a_finish_for_something_unknown_does_not_hold_the_others(engine: &impl Engine) {
    let world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let row = world.accept_one(&tenant, START).await;
    let mut stranger = row.clone();
    stranger.endpoint = EndpointId::first_at(START);
    let finishes = vec![
        finished(&stranger, 200, Next::Delivered),
        finished(&row, 200, Next::Delivered),
    ];
    let receivers = vec![
        (
            tenant.workspace.id,
            stranger.endpoint,
            ReceiverState::default(),
        ),
        (tenant.workspace.id, row.endpoint, failing()),
    ];
    world.store().finish(finishes, receivers).await.unwrap();
    let (state, attempts, _) = state(&world, &row).await;
    assert!(matches!(state, DeliveryState::Delivered { .. }));
    assert_eq!(attempts, 1);
    assert_eq!(*world.live.receiver(row.endpoint), failing());
}

/// What was answered is durable: delivered stays delivered, and a retry keeps its time.
pub async fn g1_finished_work_survives_a_crash(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let (done, waits) = (
        world.accept_one(&tenant, START).await,
        world.accept_one(&tenant, START).await,
    );
    let retry_at = START.after(9_000);
    world
        .finish(vec![
            finished(&done, 200, Next::Delivered),
            finished(&waits, 500, Next::RetryAt(retry_at)),
        ])
        .await;
    world.crash().await;
    let list = world.store().deliveries(all_of(&tenant.app)).await.unwrap();
    assert_eq!(list.len(), 2);
    assert!(matches!(
        state(&world, &done).await.0,
        DeliveryState::Delivered { .. }
    ));
    let pending = DeliveryState::Pending { due_at: retry_at };
    assert_eq!(state(&world, &waits).await, (pending, 1, vec![1]));
    let rows = world.due(&tenant.endpoints[0], retry_at).await.rows;
    assert_eq!(rows.len(), 1);
    assert_eq!(attempt(1, 500).number, rows[0].attempts);
}

fn failing() -> ReceiverState {
    ReceiverState {
        view: ReceiverView {
            class: ReceiverClass::ListAware,
            belief: Some(Belief {
                secret: SecretId::first_at(START),
                at: START,
            }),
        },
        failing_since: Some(START),
        failures: 3,
        accepted_at: None,
        hold: Some(Hold {
            since: START,
            until: START.after(60_000),
            status: 429,
        }),
    }
}

/// What is known of a receiver is stored with the finish and shown by the live view.
pub async fn a_receiver_is_remembered_with_the_finish(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let row = world.accept_one(&tenant, START).await;
    let finish = finished(&row, 500, Next::RetryAt(START.after(5)));
    let receivers = vec![(tenant.workspace.id, row.endpoint, failing())];
    world.store().finish(vec![finish], receivers).await.unwrap();
    assert_eq!(*world.live.receiver(row.endpoint), failing());
    world.restart().await;
    assert_eq!(*world.live.receiver(row.endpoint), failing());
}

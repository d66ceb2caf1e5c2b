//! Ordered endpoints: first acceptances come in the order of publishing, whatever happens.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use hookturn::service::endpoints::{EndpointPatch, NewEndpoint};
use hookturn_core::delivery::{DeliveryState, DeliveryStatus};
use hookturn_core::id::MessageId;
use hookturn_core::time::{HOUR, SECOND};

use crate::delivering::retrying;
use crate::receiver::{Receiver, Seen, gated, status};
use crate::rig::{Marker, Rig, START};

fn ordered(url: String, delays: &[u64]) -> NewEndpoint {
    NewEndpoint {
        ordered: true,
        ..retrying(url, delays)
    }
}

fn numbers(seen: &Seen) -> (usize, usize) {
    serde_json::from_slice(&seen.body).unwrap()
}

/// Refuses every seventh message when it comes first.
fn stumbling() -> impl Fn(&Seen) -> crate::receiver::Reply + Send + Sync {
    let refused = Mutex::new(HashSet::new());
    move |seen| {
        let (publisher, n) = numbers(seen);
        let stumbles = n % 7 == 3 && refused.lock().unwrap().insert((publisher, n));
        status(if stumbles { 500 } else { 200 })
    }
}

/// The order in which each publisher's messages were first accepted, given what stumbles.
fn check_order(seen: &[Seen], publishers: usize, each: usize) {
    let mut times: HashMap<(usize, usize), usize> = HashMap::new();
    let mut next = vec![0; publishers];
    for request in seen {
        let (publisher, n) = numbers(request);
        let count = times.entry((publisher, n)).or_default();
        *count += 1;
        let accepted = n % 7 != 3 || *count == 2;
        assert!(
            *count <= if n % 7 == 3 { 2 } else { 1 },
            "{publisher}/{n} came {count} times"
        );
        if accepted {
            assert_eq!(next[publisher], n, "publisher {publisher}");
            next[publisher] += 1;
        }
    }
    assert_eq!(next, vec![each; publishers]);
    assert!(
        seen.iter().all(|request| request.open == 1),
        "one at a time"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_order_is_kept_through_failures_and_overflow_with_many_publishers() {
    const EACH: usize = 400;
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, stumbling()).await;
    rig.endpoint_with(ordered(receiver.url(), &[0, 0])).await;
    let publisher = async |publisher: usize| {
        for n in 0..EACH {
            rig.publish(&format!("[{publisher},{n}]")).await;
        }
    };
    tokio::join!(
        publisher(0),
        publisher(1),
        publisher(2),
        publisher(3),
        publisher(4),
        publisher(5)
    );
    rig.until_nothing_is_due().await;
    check_order(&receiver.rest(), 6, EACH);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_order_is_kept_through_a_restart_and_a_window_overflow() {
    const MESSAGES: usize = 2_500;
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, stumbling()).await;
    rig.endpoint_with(ordered(receiver.url(), &[0, 0])).await;
    rig.publish_many((0..MESSAGES).map(|n| format!("[0,{n}]")))
        .await;
    let mut seen = receiver.take(700).await;
    rig.restart().await;
    rig.until_nothing_is_due().await;
    seen.extend(receiver.rest());
    check_order(&seen, 1, MESSAGES);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_head_holds_the_rest_until_it_is_due() {
    let mut rig = Rig::new().await;
    let mut marker = Marker::new(&rig).await;
    let mut receiver = Receiver::new(&rig.clock, stumbling()).await;
    rig.endpoint_with(ordered(receiver.url(), &[SECOND])).await;
    let messages = rig.publish_many((0..10).map(|n| format!("[0,{n}]"))).await;
    rig.until_attempts(messages[3], 1).await;
    rig.advance(SECOND - 1);
    marker.pass(&rig).await;
    let mut seen = receiver.rest();
    assert_eq!(seen.len(), 4);
    rig.advance(1);
    rig.until_nothing_is_due().await;
    seen.extend(receiver.rest());
    check_order(&seen, 1, 10);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_retry_of_the_waiting_head_is_sent_now_and_the_rest_follows() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, stumbling()).await;
    rig.endpoint_with(ordered(receiver.url(), &[HOUR])).await;
    let messages = rig.publish_many((0..600).map(|n| format!("[0,{n}]"))).await;
    // Every stumble is helped over by hand; the clock stands still.
    for n in (0..600).filter(|n| n % 7 == 3) {
        let (delivery, _) = rig.until_attempts(messages[n], 1).await;
        assert_eq!(delivery.state.status(), DeliveryStatus::Pending);
        rig.requeue(delivery.id).await;
    }
    rig.until_nothing_is_due().await;
    check_order(&receiver.rest(), 1, 600);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_head_lets_the_rest_go_on() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |seen| {
        status(if numbers(seen).1 == 1 { 404 } else { 200 })
    })
    .await;
    rig.endpoint_with(ordered(receiver.url(), &[0, 0])).await;
    rig.publish_many((0..4).map(|n| format!("[0,{n}]"))).await;
    rig.until_nothing_is_due().await;
    let came: Vec<_> = receiver.rest().iter().map(|seen| numbers(seen).1).collect();
    assert_eq!(came, [0, 1, 1, 1, 2, 3]);
    rig.stop().await;
}

/// Publishes one that is refused and waits an hour for its retry, and has the endpoint keep the order from then on.
async fn ordered_while_one_waits(rig: &Rig, receiver: &Receiver) -> MessageId {
    let made = rig
        .endpoint_with(retrying(receiver.url(), &[HOUR, HOUR]))
        .await;
    let waiting = rig.publish("[0,0]").await;
    rig.until_attempts(waiting, 1).await;
    rig.advance(SECOND);
    let patch = EndpointPatch {
        ordered: Some(true),
        ..EndpointPatch::default()
    };
    rig.patch(made.endpoint.id, patch).await;
    waiting
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_a_retry_that_waits_is_the_head_from_the_moment_the_order_is_kept() {
    for restarts in [false, true] {
        let mut rig = Rig::new().await;
        let mut marker = Marker::new(&rig).await;
        let mut receiver = Receiver::new(&rig.clock, |seen| {
            status(if seen.number == 0 { 500 } else { 200 })
        })
        .await;
        let waiting = ordered_while_one_waits(&rig, &receiver).await;
        if restarts {
            rig.restart().await;
        }
        rig.publish_many((1..20).map(|n| format!("[0,{n}]"))).await;
        marker.pass(&rig).await;
        marker.pass(&rig).await;
        assert_eq!(receiver.rest().len(), 1, "nothing passes what waits");
        // The one that waits still says when it is tried again.
        let (delivery, _) = rig.delivery_of(waiting).await;
        let due_at = START.after(HOUR);
        assert_eq!(delivery.state, DeliveryState::Pending { due_at });
        rig.advance(HOUR);
        rig.until_nothing_is_due().await;
        let came: Vec<_> = receiver.rest().iter().map(|seen| numbers(seen).1).collect();
        assert_eq!(came, (0..20).collect::<Vec<_>>());
        rig.stop().await;
    }
}

/// What is under way when the order begins to be kept, and fails then, is the head too.
#[tokio::test(flavor = "multi_thread")]
async fn g2_what_is_under_way_when_the_order_begins_is_not_passed_when_it_fails() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |seen| match seen.number {
        0 => gated(500),
        _ => status(200),
    })
    .await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[SECOND])).await;
    let first = rig.publish("[0,0]").await;
    receiver.next().await;
    let patch = EndpointPatch {
        ordered: Some(true),
        ..EndpointPatch::default()
    };
    rig.patch(made.endpoint.id, patch).await;
    rig.publish_many((1..5).map(|n| format!("[0,{n}]"))).await;
    receiver.open_gate();
    rig.until_attempts(first, 1).await;
    rig.advance(SECOND);
    rig.until_nothing_is_due().await;
    let came: Vec<_> = receiver.rest().iter().map(|seen| numbers(seen).1).collect();
    assert_eq!(came, [0, 1, 2, 3, 4]);
    rig.stop().await;
}

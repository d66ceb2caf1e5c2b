//! G10: a receiver cannot hurt the sender or another receiver; a deferral is not an attempt.

use hookturn::service::endpoints::NewEndpoint;
use hookturn_core::delivery::DeliveryStatus;
use hookturn_core::time::{MINUTE, SECOND};

use crate::delivering::retrying;
use crate::receiver::{Receiver, gated, status};
use crate::rig::{Marker, Rig, START};

#[tokio::test(flavor = "multi_thread")]
async fn g10_forty_dead_endpoints_do_not_delay_a_healthy_one() {
    let mut rig = Rig::new().await;
    let mut dead = Vec::new();
    for _ in 0..40 {
        let receiver = Receiver::new(&rig.clock, |_| gated(200)).await;
        rig.endpoint_with(NewEndpoint {
            // Longer than the test waits for anything.
            timeout_millis: Some(MINUTE),
            ..retrying(receiver.url(), &[])
        })
        .await;
        dead.push(receiver);
    }
    let mut healthy = Receiver::new(&rig.clock, |_| status(200)).await;
    rig.endpoint(healthy.url()).await;
    for round in 0..5 {
        rig.publish_many((0..20).map(|n| n.to_string())).await;
        assert_eq!(healthy.take(20).await.len(), 20, "round {round}");
    }
    for receiver in &mut dead {
        receiver.take(4).await;
        assert_eq!(
            receiver.most_open(),
            4,
            "what an endpoint gets before it has answered"
        );
        assert_eq!(receiver.rest().len(), 0);
        receiver.open_gate();
    }
    rig.until_nothing_is_due().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g10_an_endpoint_never_has_more_open_exchanges_than_its_policy_allows() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |seen| match seen.number {
        0..30 => status(200),
        _ => gated(200),
    })
    .await;
    rig.endpoint_with(NewEndpoint {
        max_in_flight: Some(7),
        ..retrying(receiver.url(), &[])
    })
    .await;
    rig.publish_many((0..130).map(|n| n.to_string())).await;
    // The first answers widen the window from what an endpoint gets at first.
    receiver.take(37).await;
    let mut marker = Marker::new(&rig).await;
    marker.pass(&rig).await;
    assert_eq!(receiver.rest().len(), 0);
    receiver.open_gate();
    rig.until_nothing_is_due().await;
    assert_eq!(receiver.most_open(), 7);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g10_the_breaker_opens_and_then_tries_with_one_exchange() {
    let mut rig = Rig::new().await;
    let mut marker = Marker::new(&rig).await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(500)).await;
    rig.endpoint_with(retrying(receiver.url(), &[])).await;
    for _ in 0..10 {
        let message = rig.publish("1").await;
        rig.until_settled(message).await;
    }
    assert_eq!(receiver.rest().len(), 10);
    receiver.answer(|_| gated(200));
    let messages = rig.publish_many((0..5).map(|n| n.to_string())).await;
    rig.advance(SECOND - 1);
    marker.pass(&rig).await;
    assert_eq!(receiver.rest().len(), 0, "it is open");
    rig.advance(1);
    receiver.next().await;
    marker.pass(&rig).await;
    assert_eq!(receiver.rest().len(), 0, "half open");
    receiver.open_gate();
    for message in messages {
        let (delivery, attempts) = rig.until_settled(message).await;
        assert_eq!(delivery.state.status(), DeliveryStatus::Delivered);
        assert_eq!(
            (delivery.attempts, attempts.len()),
            (1, 1),
            "a deferral is no attempt"
        );
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g10_the_rate_limit_is_honoured_whether_or_not_the_queue_runs_empty() {
    for one_by_one in [false, true] {
        let mut rig = Rig::new().await;
        let mut marker = Marker::new(&rig).await;
        let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
        rig.endpoint_with(NewEndpoint {
            rate_limit_per_second: Some(5),
            ..retrying(receiver.url(), &[])
        })
        .await;
        if one_by_one {
            for _ in 0..5 {
                let message = rig.publish("1").await;
                rig.until_settled(message).await;
            }
        }
        let rest = if one_by_one { 5 } else { 10 };
        let messages = rig.publish_many((0..rest).map(|n| n.to_string())).await;
        receiver.take(5).await;
        marker.pass(&rig).await;
        assert_eq!(receiver.rest().len(), 0, "the burst is one second's share");
        for sent in 0..5 {
            // The limiter rounds up to the next millisecond.
            rig.advance(if sent == 0 { 201 } else { 200 });
            assert!(receiver.next().await.at >= START.after(200 * (sent + 1)));
            marker.pass(&rig).await;
            assert_eq!(receiver.rest().len(), 0, "one each fifth of a second");
        }
        for message in messages {
            let (delivery, _) = rig.until_settled(message).await;
            assert_eq!(delivery.attempts, 1, "a deferral is no attempt");
        }
        rig.stop().await;
    }
}

/// Whoever sends to a dead endpoint next, another process here as another node elsewhere, reads what is remembered of its
/// receiver before it sends.
#[tokio::test(flavor = "multi_thread")]
async fn g10_a_dead_endpoint_gets_one_exchange_from_who_takes_its_shard_over() {
    let mut rig = Rig::new().await;
    let mut dead = Receiver::new(&rig.clock, |_| status(500)).await;
    rig.endpoint_with(retrying(dead.url(), &[])).await;
    for _ in 0..10 {
        rig.publish("{}").await;
        dead.next().await;
        rig.until_nothing_is_due().await;
    }
    rig.advance(MINUTE);
    rig.restart().await;
    dead.answer(|_| gated(500));
    let mut marker = Marker::new(&rig).await;
    rig.publish_many((0..20).map(|n| n.to_string())).await;
    dead.next().await;
    marker.pass(&rig).await;
    assert_eq!(dead.rest().len(), 0, "one tries whether it is well");
    dead.open_gate();
    rig.stop().await;
}

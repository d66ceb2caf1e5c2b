//! Overflow of the window, manual retries, store failures and draining.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use hookturn::service::deliveries::Recover;
use hookturn::service::endpoints::{NewEndpoint, Switch};
use hookturn_core::delivery::{DeliveryState, DeliveryStatus};
use hookturn_core::time::{HOUR, SECOND};

use crate::delivering::retrying;
use crate::receiver::{Receiver, gated, status};
use crate::rig::{Marker, Rig, START};

/// How often each message arrived.
fn counts(seen: &[crate::receiver::Seen]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for request in seen {
        *counts.entry(request.id()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_a_backlog_beyond_the_window_is_delivered_once_from_a_bounded_memory() {
    const MESSAGES: usize = 20_000;
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig
        .endpoint_with(NewEndpoint {
            state: Switch::Paused,
            ..retrying(receiver.url(), &[])
        })
        .await;
    rig.publish_many((0..MESSAGES).map(|n| n.to_string())).await;
    assert_eq!(receiver.rest().len(), 0);
    rig.switch(made.endpoint.id, Switch::Enabled).await;
    let seen = receiver.take(MESSAGES).await;
    rig.until_nothing_is_due().await;
    assert_eq!(counts(&seen).len(), MESSAGES);
    assert_eq!(receiver.rest().len(), 0, "none twice");
    // A window and a block, and what is in flight or waits for its commit.
    let widest = rig.store().widest_read.load(Ordering::SeqCst);
    assert!(widest <= 4_096, "{widest}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_large_payloads_pass_through_a_small_memory_without_reading_in_circles() {
    let mut rig = Rig::new().await;
    let receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig
        .endpoint_with(NewEndpoint {
            state: Switch::Paused,
            ..retrying(receiver.url(), &[])
        })
        .await;
    let payload = format!("\"{}\"", "x".repeat(200_000));
    for _ in 0..5 {
        rig.publish_many((0..20).map(|_| payload.clone())).await;
    }
    rig.switch(made.endpoint.id, Switch::Enabled).await;
    rig.until_nothing_is_due().await;
    let reads = rig.store().reads.load(Ordering::SeqCst);
    assert!(reads < 40, "{reads} reads for 100 rows of 200 kB");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_retry_sends_delivered_exhausted_and_waiting_deliveries_now() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |seen| match seen.number {
        0 => status(200),
        1 | 2 => status(500),
        _ => status(204),
    })
    .await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[])).await;
    let delivered = rig.publish("1").await;
    rig.until_settled(delivered).await;
    let exhausted = rig.publish("2").await;
    rig.until_settled(exhausted).await;
    rig.patch(
        made.endpoint.id,
        hookturn::service::endpoints::EndpointPatch {
            retry: Some(crate::delivering::policy(&[10 * HOUR])),
            ..Default::default()
        },
    )
    .await;
    let waiting = rig.publish("3").await;
    rig.until_attempts(waiting, 1).await;
    for message in [delivered, exhausted, waiting] {
        let (delivery, _) = rig.delivery_of(message).await;
        rig.requeue(delivery.id).await;
        let (delivery, attempts) = rig
            .until("it is sent again", async || {
                let found = rig.delivery_of(message).await;
                (found.1.len() == 2 && found.0.state.status() == DeliveryStatus::Delivered)
                    .then_some(found)
            })
            .await;
        assert_eq!(delivery.attempts, 2);
        assert_eq!(attempts[1].number, 2);
        assert_eq!(attempts[1].started_at, START);
    }
    let seen = receiver.rest();
    assert_eq!(seen.len(), 6);
    assert!(counts(&seen).values().all(|count| *count == 2));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_retry_starts_the_policy_anew() {
    let mut rig = Rig::new().await;
    let receiver = Receiver::new(&rig.clock, |_| status(500)).await;
    rig.endpoint_with(retrying(receiver.url(), &[SECOND])).await;
    let message = rig.publish("1").await;
    for attempt in 1..=3 {
        let (delivery, _) = rig.until_attempts(message, attempt).await;
        if attempt == 2 {
            rig.until_settled(message).await;
            rig.requeue(delivery.id).await;
        } else {
            let due_at = rig.now().after(SECOND);
            assert_eq!(
                delivery.state,
                DeliveryState::Pending { due_at },
                "attempt {attempt}"
            );
            rig.advance(SECOND);
        }
    }
    let (_, attempts) = rig
        .until("the policy ends again", async || {
            let found = rig.delivery_of(message).await;
            (found.1.len() == 4).then_some(found)
        })
        .await;
    assert_eq!(attempts.len(), 4);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_manual_retries_of_what_just_settled_are_never_lost() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    rig.endpoint_with(retrying(receiver.url(), &[])).await;
    let messages = rig.publish_many((0..100).map(|n| n.to_string())).await;
    rig.until_nothing_is_due().await;
    let mut ids = Vec::new();
    for message in messages {
        ids.push(rig.delivery_of(message).await.0.id);
    }
    // Queued again while earlier ones are being read, sent and committed.
    for _ in 0..3 {
        for id in &ids {
            rig.requeue(*id).await;
        }
    }
    rig.until_nothing_is_due().await;
    let seen = receiver.rest();
    assert!(
        counts(&seen).values().all(|count| (2..=4).contains(count)),
        "{}",
        seen.len()
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recover_queues_a_span_of_exhausted_deliveries_again() {
    const MESSAGES: usize = 1_500;
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(404)).await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[])).await;
    rig.publish_many((0..MESSAGES).map(|n| n.to_string())).await;
    rig.until_nothing_is_due().await;
    assert_eq!(receiver.rest().len(), MESSAGES);
    receiver.answer(|_| status(200));
    rig.advance(SECOND);
    let input = Recover {
        since: START,
        until: None,
        status: DeliveryStatus::Exhausted,
        dry_run: false,
    };
    let endpoint = made.endpoint.id;
    let recovered = rig
        .service()
        .recover(rig.caller(), rig.app, endpoint, input, None)
        .await
        .unwrap();
    assert_eq!((recovered.count, recovered.has_more), (MESSAGES, false));
    let seen = receiver.take(MESSAGES).await;
    rig.until_nothing_is_due().await;
    assert_eq!(counts(&seen).len(), MESSAGES);
    assert_eq!(receiver.rest().len(), 0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_a_store_that_fails_to_record_has_the_message_sent_again_after_a_rest() {
    let mut rig = Rig::new().await;
    let mut marker = Marker::new(&rig).await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    rig.endpoint_with(retrying(receiver.url(), &[])).await;
    rig.store().failing_finishes.store(3, Ordering::SeqCst);
    let message = rig.publish("1").await;
    for sent in 1..=4_usize {
        receiver.next().await;
        rig.until("the finish was tried", async || {
            (rig.store().finishes.load(Ordering::SeqCst) >= sent).then_some(())
        })
        .await;
        if sent < 4 {
            let reads = rig.store().reads.load(Ordering::SeqCst);
            marker_pass_tolerant(&mut marker, &rig).await;
            assert!(
                rig.store().reads.load(Ordering::SeqCst) <= reads + 1,
                "no hot loop"
            );
            assert_eq!(receiver.rest().len(), 0, "it rests");
            rig.advance(10 * SECOND);
        }
    }
    let (delivery, attempts) = rig.until_settled(message).await;
    assert_eq!((delivery.attempts, attempts.len()), (1, 1));
    rig.stop().await;
}

/// Passes a marker whose own record must not use up the faults.
async fn marker_pass_tolerant(marker: &mut Marker, rig: &Rig) {
    let left = rig.store().failing_finishes.swap(0, Ordering::SeqCst);
    let before = rig.store().finishes.load(Ordering::SeqCst);
    marker.pass(rig).await;
    rig.until("the marker is recorded", async || {
        (rig.store().finishes.load(Ordering::SeqCst) > before).then_some(())
    })
    .await;
    rig.store().finishes.store(before, Ordering::SeqCst);
    rig.store().failing_finishes.store(left, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_to_read_is_asked_again_after_a_rest() {
    for state in [Switch::Enabled, Switch::Disabled] {
        let mut rig = Rig::new().await;
        let mut marker = Marker::new(&rig).await;
        let receiver = Receiver::new(&rig.clock, |_| status(500)).await;
        let made = rig.endpoint_with(retrying(receiver.url(), &[SECOND])).await;
        let message = rig.publish("1").await;
        rig.until_attempts(message, 1).await;
        receiver.answer(|_| status(200));
        rig.store().failing_reads.store(2, Ordering::SeqCst);
        let before = rig.store().reads.load(Ordering::SeqCst);
        if state == Switch::Disabled {
            rig.switch(made.endpoint.id, state).await;
        }
        rig.advance(SECOND);
        for failed in 1..=2 {
            rig.until("a read failed", async || {
                (rig.store().reads.load(Ordering::SeqCst) >= before + failed).then_some(())
            })
            .await;
            marker.pass(&rig).await;
            marker.pass(&rig).await;
            assert_eq!(
                rig.store().reads.load(Ordering::SeqCst),
                before + failed,
                "it rests"
            );
            rig.advance(10 * SECOND);
        }
        rig.until_settled(message).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_store_makes_no_hot_loop_of_giving_up() {
    let mut rig = Rig::new().await;
    let mut marker = Marker::new(&rig).await;
    let receiver = Receiver::new(&rig.clock, |_| status(500)).await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[HOUR])).await;
    let message = rig.publish("1").await;
    rig.until_attempts(message, 1).await;
    let before = rig.store().finishes.load(Ordering::SeqCst);
    rig.store().failing_finishes.store(1, Ordering::SeqCst);
    rig.switch(made.endpoint.id, Switch::Disabled).await;
    rig.until("giving up failed", async || {
        (rig.store().finishes.load(Ordering::SeqCst) > before).then_some(())
    })
    .await;
    marker.pass(&rig).await;
    assert_eq!(
        rig.delivery_of(message).await.0.state.status(),
        DeliveryStatus::Pending
    );
    rig.advance(10 * SECOND);
    rig.until_settled(message).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_and_records_what_is_in_flight_and_starts_nothing() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| gated(200)).await;
    rig.endpoint_with(retrying(receiver.url(), &[])).await;
    let messages = rig.publish_many((0..20).map(|n| n.to_string())).await;
    // As many as an endpoint may have open that has not answered yet.
    let first = receiver.take(4).await;
    let ((), ()) = tokio::join!(rig.drain(), async {
        rig.publish("late").await;
        receiver.open_gate();
    });
    assert_eq!(receiver.rest().len(), 0, "nothing new");
    let sent: HashSet<_> = first.iter().map(|seen| seen.id().to_owned()).collect();
    for message in &messages {
        let (delivery, _) = rig.delivery_of(*message).await;
        let delivered = delivery.state.status() == DeliveryStatus::Delivered;
        assert_eq!(delivered, sent.contains(&message.to_string()));
    }
    rig.restart().await;
    assert_eq!(receiver.take(17).await.len(), 17);
    rig.until_nothing_is_due().await;
    assert_eq!(receiver.rest().len(), 0);
    rig.stop().await;
}

//! Event streams (`kore-stream`): what is due of one type goes out in one request, is signed over the
//! very bytes of the array and recorded for each of its deliveries.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use hookturn::service::endpoints::{CreatedEndpoint, NewEndpoint, Switch};
use hookturn::service::rotation::ModeName;
use hookturn_core::delivery::{DeliveryState, DeliveryStatus, ExchangeReason, ExhaustedReason};
use hookturn_core::endpoint::Preset;
use hookturn_core::id::MessageId;
use hookturn_core::limits::STREAM_EVENTS;
use hookturn_core::store::Store;
use hookturn_core::time::{HOUR, SECOND, Timestamp};
use hookturn_verify::Verifier;
use serde_json::Value;

use crate::receiver::{Receiver, Seen, gated, status};
use crate::rig::{Marker, Rig, verifier};

fn stream(url: String) -> NewEndpoint {
    NewEndpoint {
        url: Some(url),
        preset: Preset::KoreStream,
        ..NewEndpoint::default()
    }
}

fn paused(url: String) -> NewEndpoint {
    NewEndpoint {
        state: Switch::Paused,
        ..stream(url)
    }
}

fn events(seen: &Seen) -> Vec<Value> {
    serde_json::from_slice(&seen.body).unwrap()
}

fn ids(seen: &Seen) -> Vec<String> {
    let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
    events(seen).iter().map(id).collect()
}

fn texts(messages: &[MessageId]) -> Vec<String> {
    messages.iter().map(ToString::to_string).collect()
}

fn token(seen: &Seen) -> &str {
    seen.header("kore-idempotency-token").unwrap()
}

/// A verifier that holds the endpoint's secret and its URL.
fn holder(made: &CreatedEndpoint, receiver: &Receiver) -> Verifier {
    let secret = &made.once.as_ref().unwrap().value;
    verifier(Preset::KoreStream, &[("only", secret)]).url(receiver.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_g2_g3_a_backlog_goes_out_in_full_requests_of_one_type() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig.endpoint_with(paused(receiver.url())).await;
    let types = ["sim.activated", "sim.suspended"];
    let given: Vec<_> = (0..120)
        .map(|n| (types[n % 2], format!("{{ \"n\": {n} }}")))
        .collect();
    let messages = rig.publish_events(given.into_iter()).await;
    rig.switch(made.endpoint.id, Switch::Enabled).await;
    rig.until_nothing_is_due().await;
    let seen = receiver.rest();
    let holder = holder(&made, &receiver);
    let mut sizes = HashMap::<String, Vec<usize>>::new();
    let mut arrived = Vec::new();
    for request in &seen {
        assert_eq!(request.signer(&holder), "only");
        assert_eq!(request.header("content-type"), Some("application/json"));
        let events = events(request);
        assert!(events.len() <= STREAM_EVENTS);
        let one_type = &events[0]["type"];
        assert!(events.iter().all(|event| event["type"] == *one_type));
        let of_type = sizes.entry(one_type.to_string()).or_default();
        of_type.push(events.len());
        for event in &events {
            let n = usize::try_from(event["data"]["n"].as_u64().unwrap()).unwrap();
            assert_eq!(event["id"], messages[n].to_string());
            assert_eq!(event["type"], types[n % 2]);
        }
        assert!(ids(request).is_sorted(), "as they were accepted");
        arrived.extend(ids(request));
    }
    for (one_type, sizes) in &mut sizes {
        sizes.sort_unstable();
        assert_eq!(sizes[..], [10, 50], "{one_type}");
    }
    assert_eq!(seen.len(), 4);
    arrived.sort_unstable();
    assert_eq!(arrived, texts(&messages), "nothing lost, nothing twice");
    let tokens: HashSet<_> = seen.iter().map(token).collect();
    assert_eq!(tokens.len(), 4, "each request has its own");
    for request in &seen {
        for id in ids(request) {
            let (delivery, attempts) = rig.delivery_of(id.parse().unwrap()).await;
            assert_eq!(delivery.state.status(), DeliveryStatus::Delivered);
            assert_eq!((attempts.len(), attempts[0].number), (1, 1));
            let exchange = &attempts[0].exchanges[0];
            assert_eq!(
                Some(exchange.signature.as_str()),
                request.header("kore-signature")
            );
        }
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_alone_is_sent_at_once_under_its_own_id() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    rig.endpoint_with(stream(receiver.url())).await;
    for _ in 0..3 {
        let message = rig.publish("{}").await;
        // The clock stands still: nothing waits for a time.
        rig.until_settled(message).await;
        let seen = receiver.next().await;
        assert_eq!(token(&seen), message.to_string());
        assert_eq!(ids(&seen), texts(&[message]));
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_form_while_all_permits_are_taken() {
    let mut rig = Rig::new().await;
    let mut marker = Marker::new(&rig).await;
    let mut receiver = Receiver::new(&rig.clock, |_| gated(200)).await;
    rig.endpoint_with(NewEndpoint {
        max_in_flight: Some(2),
        ..stream(receiver.url())
    })
    .await;
    for _ in 0..2 {
        rig.publish("{}").await;
        assert_eq!(events(&receiver.next().await).len(), 1);
    }
    let waiting = rig.publish_many((0..40).map(|n| n.to_string())).await;
    marker.pass(&rig).await;
    assert_eq!(receiver.rest().len(), 0, "requests are what is counted");
    receiver.open_gate();
    assert_eq!(ids(&receiver.next().await), texts(&waiting));
    rig.until_nothing_is_due().await;
    assert_eq!((receiver.rest().len(), receiver.most_open()), (0, 2));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_g2_a_failing_batch_is_retried_three_times_as_it_was_and_then_visibly_exhausted() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(400)).await;
    let made = rig.endpoint_with(paused(receiver.url())).await;
    let messages = rig.publish_many((0..7).map(|n| n.to_string())).await;
    rig.switch(made.endpoint.id, Switch::Enabled).await;
    for (attempt, wait) in [(1, SECOND), (2, 2 * SECOND), (3, 4 * SECOND)] {
        let mut due = HashSet::<Timestamp>::new();
        for message in &messages {
            let (delivery, _) = rig.until_attempts(*message, attempt).await;
            let DeliveryState::Pending { due_at } = delivery.state else {
                panic!("{:?}", delivery.state);
            };
            due.insert(due_at);
        }
        let due: Vec<_> = due.into_iter().collect();
        let [due] = due[..] else {
            panic!("they wait for one moment: {due:?}");
        };
        let waits = due.since(rig.now());
        assert!((wait..=wait + wait / 5).contains(&waits), "{waits}");
        rig.advance(waits);
    }
    for message in &messages {
        let (delivery, attempts) = rig.until_settled(*message).await;
        let DeliveryState::Exhausted { reason, .. } = delivery.state else {
            panic!("{:?}", delivery.state);
        };
        assert_eq!(reason, ExhaustedReason::AttemptsUsed);
        let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
    }
    let seen = receiver.rest();
    assert_eq!(seen.len(), 4);
    for again in &seen[1..] {
        assert_eq!(token(again), token(&seen[0]), "the same on redelivery");
        assert_eq!(again.body, seen[0].body);
    }
    assert!(token(&seen[0]).starts_with("batch_"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_a_batch_that_is_refused_in_an_overlap_is_sent_whole_with_the_other_key() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig.endpoint_with(paused(receiver.url())).await;
    let opened = rig
        .rotate(made.endpoint.keyring, ModeName::Overlap, Some(HOUR))
        .await;
    let new = &opened.once.value;
    let old = &made.once.as_ref().unwrap().value;
    let keys = verifier(Preset::KoreStream, &[("old", old), ("new", new)]).url(receiver.url());
    // It has the new secret already, while it is believed to hold the old one.
    let held = verifier(Preset::KoreStream, &[("new", new)]).url(receiver.url());
    receiver.answer(move |seen| status(if seen.verify(&held).is_ok() { 200 } else { 401 }));
    let messages = rig.publish_many((0..3).map(|n| n.to_string())).await;
    rig.switch(made.endpoint.id, Switch::Enabled).await;
    rig.until_nothing_is_due().await;
    let seen = receiver.rest();
    let signers: Vec<_> = seen.iter().map(|request| request.signer(&keys)).collect();
    assert_eq!(signers, ["old", "new"]);
    assert_eq!(ids(&seen[0]), texts(&messages));
    assert_eq!(
        (token(&seen[0]), &seen[0].body),
        (token(&seen[1]), &seen[1].body)
    );
    for message in messages {
        let (delivery, attempts) = rig.delivery_of(message).await;
        assert_eq!(delivery.state.status(), DeliveryStatus::Delivered);
        let reasons: Vec<_> = attempts[0].exchanges.iter().map(|e| e.reason).collect();
        assert_eq!(
            reasons,
            [ExchangeReason::NoBelief, ExchangeReason::Fallback]
        );
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_events_neither_join_nor_wait_for_a_batch_that_failed() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |seen| match seen.number {
        0 => status(503),
        _ => status(200),
    })
    .await;
    let made = rig.endpoint_with(paused(receiver.url())).await;
    let failing = rig.publish_many((0..3).map(|n| n.to_string())).await;
    rig.switch(made.endpoint.id, Switch::Enabled).await;
    for message in &failing {
        rig.until_attempts(*message, 1).await;
    }
    let fresh = rig.publish_many((3..5).map(|n| n.to_string())).await;
    for message in &fresh {
        rig.until_settled(*message).await;
    }
    rig.switch(made.endpoint.id, Switch::Paused).await;
    let fresher = rig.publish_many((5..9).map(|n| n.to_string())).await;
    rig.advance(2 * SECOND);
    rig.switch(made.endpoint.id, Switch::Enabled).await;
    rig.until_nothing_is_due().await;
    let seen = receiver.rest();
    let mut carried: Vec<_> = seen.iter().map(ids).collect();
    // Which of the two goes first when both are due is open.
    carried[2..].sort_unstable();
    let wanted = [&failing, &fresh, &failing, &fresher].map(|messages| texts(messages));
    assert_eq!(carried, wanted);
    let again = seen[2..].iter().find(|seen| ids(seen) == texts(&failing));
    assert_eq!(token(again.unwrap()), token(&seen[0]));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_an_ordered_stream_takes_runs_of_one_type_from_the_head() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |seen| match seen.number {
        1 => status(500),
        _ => status(200),
    })
    .await;
    let made = rig
        .endpoint_with(NewEndpoint {
            ordered: true,
            ..paused(receiver.url())
        })
        .await;
    let types = ["a", "a", "b", "b", "b", "a", "b", "b"];
    let given = types.iter().map(|one| (*one, "{}".to_owned()));
    let messages = texts(&rig.publish_events(given).await);
    rig.switch(made.endpoint.id, Switch::Enabled).await;
    for message in &messages[2..5] {
        rig.until_attempts(message.parse().unwrap(), 1).await;
    }
    rig.advance(2 * SECOND);
    rig.until_nothing_is_due().await;
    let seen = receiver.rest();
    let carried: Vec<_> = seen.iter().map(ids).collect();
    let wanted = [0..2, 2..5, 2..5, 5..6, 6..8].map(|run| messages[run].to_vec());
    assert_eq!(carried, wanted);
    assert!(
        seen.iter().all(|request| request.open == 1),
        "one at a time"
    );
    assert_eq!(token(&seen[1]), token(&seen[2]));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_limit_of_a_stream_counts_requests() {
    let mut rig = Rig::new().await;
    let mut marker = Marker::new(&rig).await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig
        .endpoint_with(NewEndpoint {
            rate_limit_per_second: Some(1),
            ..paused(receiver.url())
        })
        .await;
    let messages = texts(&rig.publish_many((0..60).map(|n| n.to_string())).await);
    rig.switch(made.endpoint.id, Switch::Enabled).await;
    assert_eq!(ids(&receiver.next().await), messages[..50]);
    marker.pass(&rig).await;
    assert_eq!(receiver.rest().len(), 0);
    rig.advance(SECOND + 1);
    assert_eq!(ids(&receiver.next().await), messages[50..]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_g2_a_batch_whose_record_was_lost_is_sent_again_under_the_same_token() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig.endpoint_with(paused(receiver.url())).await;
    let messages = rig.publish_many((0..9).map(|n| n.to_string())).await;
    rig.store().failing_finishes.store(1, Ordering::SeqCst);
    rig.switch(made.endpoint.id, Switch::Enabled).await;
    let first = receiver.next().await;
    rig.until("the record is lost", async || {
        (rig.store().failing_finishes.load(Ordering::SeqCst) == 0).then_some(())
    })
    .await;
    assert_eq!(rig.store().stats().await.unwrap().due, 9);
    // As after a crash: another process finds the rows on disk.
    rig.restart().await;
    let second = receiver.next().await;
    rig.until_nothing_is_due().await;
    assert_eq!(ids(&first), texts(&messages));
    assert_eq!((token(&first), &first.body), (token(&second), &second.body));
    assert_eq!(receiver.rest().len(), 0);
    for message in messages {
        let (delivery, attempts) = rig.delivery_of(message).await;
        assert_eq!(delivery.state.status(), DeliveryStatus::Delivered);
        assert_eq!(attempts.len(), 1);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_stream_that_is_disabled_is_exhausted() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig.endpoint_with(paused(receiver.url())).await;
    let messages = rig.publish_many((0..120).map(|n| n.to_string())).await;
    rig.switch(made.endpoint.id, Switch::Disabled).await;
    for message in messages {
        let (delivery, attempts) = rig.until_settled(message).await;
        assert_eq!(delivery.state.status(), DeliveryStatus::Exhausted);
        assert_eq!(attempts.len(), 0);
    }
    assert_eq!(receiver.rest().len(), 0);
    rig.stop().await;
}

//! G1 and G2: everything is delivered or visibly exhausted, and recorded as it was.

use std::collections::HashSet;

use hookturn::service::endpoints::NewEndpoint;
use hookturn_core::delivery::{
    DeliveryState, DeliveryStatus, ExchangeReason, ExchangeResult, ExhaustedReason,
};
use hookturn_core::endpoint::Preset;
use hookturn_core::limits::RESPONSE_BODY_BYTES;
use hookturn_core::retry::{RetryOn, RetryPolicy};

use crate::receiver::{Receiver, Reply, status};
use crate::rig::{Rig, verifier};

pub(crate) fn policy(delays_millis: &[u64]) -> RetryPolicy {
    RetryPolicy {
        delays_millis: delays_millis.to_vec(),
        jitter_percent: 0,
        retry_on: RetryOn::AnyFailure,
    }
}

pub(crate) fn retrying(url: String, delays: &[u64]) -> NewEndpoint {
    NewEndpoint {
        url: Some(url),
        retry: Some(policy(delays)),
        ..NewEndpoint::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_everything_published_is_delivered_once_without_faults() {
    let mut rig = Rig::with_shards(3).await;
    let mut receivers = Vec::new();
    for _ in 0..5 {
        let receiver = Receiver::new(&rig.clock, |_| status(204)).await;
        let made = rig.endpoint(receiver.url()).await;
        receivers.push((receiver, made));
    }
    let single = rig.publish("{\"n\":0}").await;
    let mut ids = rig
        .publish_many((1..400).map(|n| format!("{{\"n\":{n}}}")))
        .await;
    ids.push(single);
    rig.until_nothing_is_due().await;
    let wanted: HashSet<_> = ids.iter().map(ToString::to_string).collect();
    for (receiver, made) in &mut receivers {
        let seen = receiver.rest();
        let key = verifier(
            Preset::Standard,
            &[("only", &made.once.as_ref().unwrap().value)],
        );
        assert!(seen.iter().all(|request| request.signer(&key) == "only"));
        assert_eq!(seen.len(), 400, "once each");
        let got: HashSet<_> = seen.iter().map(|request| request.id().to_owned()).collect();
        assert_eq!(got, wanted);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_what_is_due_goes_on_after_a_restart() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(500)).await;
    rig.endpoint_with(retrying(receiver.url(), &[60_000, 60_000]))
        .await;
    let message = rig.publish("{}").await;
    let (_, attempts) = rig.until_attempts(message, 1).await;
    assert_eq!(attempts.len(), 1);
    rig.restart().await;
    receiver.answer(|_| status(200));
    rig.advance(60_000);
    let (delivery, attempts) = rig.until_settled(message).await;
    assert_eq!(delivery.state.status(), DeliveryStatus::Delivered);
    assert_eq!((delivery.attempts, attempts.len()), (2, 2));
    let seen = receiver.take(2).await;
    assert_eq!(seen[0].id(), seen[1].id());
    assert_eq!(seen[0].body, seen[1].body);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_a_delivery_is_visibly_exhausted_after_its_last_attempt() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(503)).await;
    rig.endpoint_with(retrying(receiver.url(), &[1_000, 2_000]))
        .await;
    let message = rig.publish("{}").await;
    rig.until_attempts(message, 1).await;
    rig.advance(1_000);
    rig.until_attempts(message, 2).await;
    rig.advance(2_000);
    let (delivery, attempts) = rig.until_settled(message).await;
    assert_eq!(attempts.len(), 3);
    assert_eq!(
        delivery.state,
        DeliveryState::Exhausted {
            at: rig.now(),
            reason: ExhaustedReason::AttemptsUsed
        }
    );
    assert_eq!(receiver.rest().len(), 3);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_records_agree_with_what_the_receiver_saw() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |seen| match seen.number {
        0 => Reply {
            status: 500,
            headers: vec![
                ("x-trace", "abc".to_owned()),
                // On a new connection, the next request is sent once.
                ("connection", "close".to_owned()),
            ],
            body: vec![b'x'; RESPONSE_BODY_BYTES + 1],
            ..Reply::default()
        },
        1 => Reply {
            close: true,
            ..Reply::default()
        },
        _ => Reply {
            body: b"thanks".to_vec(),
            ..status(202)
        },
    })
    .await;
    let made = rig
        .endpoint_with(retrying(receiver.url(), &[1_000, 1_000]))
        .await;
    let secret = made.once.unwrap();
    let message = rig.publish("{\"a\": 1}").await;
    for attempt in 1..=2 {
        rig.until_attempts(message, attempt).await;
        rig.advance(1_000);
    }
    let (delivery, attempts) = rig.until_settled(message).await;
    let seen = receiver.rest();
    assert_eq!((seen.len(), attempts.len(), delivery.attempts), (3, 3, 3));
    for (number, (attempt, seen)) in attempts.iter().zip(&seen).enumerate() {
        assert_eq!(attempt.number as usize, number + 1);
        assert_eq!(attempt.started_at, seen.at);
        let [exchange] = &attempt.exchanges[..] else {
            panic!("one exchange: {attempt:?}");
        };
        assert_eq!(exchange.reason, ExchangeReason::Steady);
        assert_eq!(exchange.signed_with.len(), 1);
        assert_eq!(exchange.signed_with[0].secret, secret.secret.id);
        assert_eq!(
            exchange.signed_with[0].fingerprint,
            secret.value.fingerprint()
        );
        assert_eq!(
            Some(exchange.signature.as_str()),
            seen.header("webhook-signature")
        );
        let timestamp = exchange.timestamp.to_string();
        assert_eq!(Some(timestamp.as_str()), seen.header("webhook-timestamp"));
        assert_eq!(exchange.timestamp, seen.at.as_seconds());
    }
    let ExchangeResult::Answered(first) = &attempts[0].exchanges[0].result else {
        panic!("{:?}", attempts[0]);
    };
    assert_eq!((first.status, first.truncated), (500, true));
    assert_eq!(first.body, vec![b'x'; RESPONSE_BODY_BYTES]);
    assert!(
        first
            .headers
            .contains(&("x-trace".to_owned(), "abc".to_owned()))
    );
    let ExchangeResult::Failed(second) = &attempts[1].exchanges[0].result else {
        panic!("{:?}", attempts[1]);
    };
    assert_eq!(second.kind, "reset");
    let ExchangeResult::Answered(third) = &attempts[2].exchanges[0].result else {
        panic!("{:?}", attempts[2]);
    };
    assert_eq!(
        (third.status, third.truncated, &third.body[..]),
        (202, false, &b"thanks"[..])
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_failures_are_recorded_by_kind() {
    let mut rig = Rig::new().await;
    let silent = Receiver::new(&rig.clock, |_| crate::receiver::gated(200)).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    for (url, kind) in [
        (silent.url(), "timeout"),
        (nobody, "connect"),
        ("http://169.254.169.254/".to_owned(), "refused"),
    ] {
        let made = rig
            .endpoint_with(NewEndpoint {
                timeout_millis: Some(1_000),
                connect_timeout_millis: Some(1_000),
                ..retrying(url, &[])
            })
            .await;
        let message = rig.publish("{}").await;
        let (_, attempts) = rig.until_settled(message).await;
        match &attempts[0].exchanges[0].result {
            ExchangeResult::Failed(failure) => assert_eq!(failure.kind, kind),
            other @ ExchangeResult::Answered(_) => panic!("{other:?}"),
        }
        let deleted =
            rig.service()
                .delete_endpoint(rig.caller(), rig.app, made.endpoint.id, None, None);
        deleted.await.unwrap();
    }
    rig.stop().await;
}

//! KORE callbacks on the wire: by POST and by GET, as JSON and as a form, against the digest of KORE's
//! page computed by hand.

use hookturn::service::endpoints::{CreatedEndpoint, KeyringChoice, NewEndpoint};
use hookturn_core::delivery::{DeliveryState, DeliveryStatus, ExhaustedReason};
use hookturn_core::endpoint::{BodyForm, Method, Preset};
use hookturn_core::limits::GET_TARGET_BYTES;
use hookturn_core::rotation::KeyKind;
use hookturn_core::time::{MINUTE, SECOND};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::receiver::{Receiver, Reply, Seen, status};
use crate::rig::Rig;

const SECRET: &str = "f4d430d03cff6f03e1";

/// A callback of the given form, signed with a secret of KORE's page.
fn callback(url: String, method: Method, body_form: BodyForm, secret: &str) -> NewEndpoint {
    NewEndpoint {
        url: Some(url),
        preset: Preset::Kore,
        method,
        body_form,
        keyring: imported(secret),
        ..NewEndpoint::default()
    }
}

fn imported(secret: &str) -> KeyringChoice {
    KeyringChoice::Own {
        kind: KeyKind::Symmetric,
        secret: Some(secret.to_owned().into()),
        secret_name: None,
    }
}

/// KORE's signature, with nothing of ours.
fn by_hand(secret: &str, method: &str, url: &str, body: &[u8]) -> String {
    let digest = Sha256::new()
        .chain_update(secret)
        .chain_update(method)
        .chain_update(url)
        .chain_update(body);
    hex::encode(digest.finalize())
}

fn check(seen: &Seen, secret: &str, url: &str) {
    let wanted = by_hand(secret, &seen.method, url, &seen.body);
    assert_eq!(seen.header("kore-signature"), Some(wanted.as_str()));
    assert_eq!(seen.header("date"), Some("2026-07-20T00:00:00Z"));
    let agent = seen.header("user-agent").unwrap();
    assert!(agent.starts_with("Hookturn"), "{agent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_the_bodies_of_kores_page_are_sent_and_signed_with_its_secrets() {
    let file: Value =
        serde_json::from_str(include_str!("../../../verify/tests/vectors/kore.json")).unwrap();
    let mut rig = Rig::new().await;
    for vector in file["vectors"].as_array().unwrap() {
        let [secret, body] = ["secret", "body"].map(|name| vector[name].as_str().unwrap());
        // The payload as someone may publish it: with white space that must not be sent.
        let (payload, form) = if body.starts_with(['{', '[']) {
            (body.replacen(':', " :\t", 1), BodyForm::Json)
        } else {
            let object = r#"{ "field1": "value1", "field2": "value2" }"#;
            (object.to_owned(), BodyForm::Form)
        };
        let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
        // The query and the fragment are no part of what is signed.
        let url = format!("{}?foo1=bar1&foo2=bar2#cbs=kore", receiver.url());
        let made = rig
            .endpoint_with(callback(url, Method::Post, form, secret))
            .await;
        let message = rig.publish(&payload).await;
        let seen = receiver.next().await;
        check(&seen, secret, &receiver.url());
        assert_eq!(std::str::from_utf8(&seen.body).unwrap(), body);
        assert_eq!(seen.path, "/hook?foo1=bar1&foo2=bar2");
        let content_type = match form {
            BodyForm::Json => "application/json",
            BodyForm::Form => "application/x-www-form-urlencoded",
        };
        assert_eq!(seen.header("content-type"), Some(content_type));
        let token = seen.header("kore-idempotency-token");
        assert_eq!(token, Some(message.to_string().as_str()));
        delete(&rig, &made).await;
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_an_event_stream_is_signed_by_the_same_digest() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let input = NewEndpoint {
        preset: Preset::KoreStream,
        ..callback(receiver.url(), Method::Post, BodyForm::Json, SECRET)
    };
    rig.endpoint_with(input).await;
    rig.publish(r#"{"test_id": "88bf54a9-f2fb-40b6-8faf-e6c5a3c348d2"}"#)
        .await;
    let seen = receiver.next().await;
    check(&seen, SECRET, &receiver.url());
    let body = std::str::from_utf8(&seen.body).unwrap();
    assert!(
        body.starts_with(r#"[{"data":{"test_id":"88bf54a9-f2fb-40b6-8faf-e6c5a3c348d2"},"id":"#),
        "{body}"
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_a_callback_by_get_carries_the_payload_in_its_url_and_signs_the_configured_text() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |seen| match seen.number {
        0 => status(503),
        _ => status(200),
    })
    .await;
    let url = format!("{}?x=1#top", receiver.url());
    rig.endpoint_with(callback(url, Method::Get, BodyForm::Json, SECRET))
        .await;
    let message = rig
        .publish(r#"{"a": "b c&d", "n": 1.50, "z": null, "o": {"k": [1, 2]}, "é": true}"#)
        .await;
    rig.until_attempts(message, 1).await;
    rig.advance(6 * SECOND);
    rig.until_settled(message).await;
    let [first, mut again] = <[Seen; 2]>::try_from(receiver.rest()).unwrap();
    check(&first, SECRET, &receiver.url());
    assert_eq!(first.method, "GET");
    assert_eq!(first.body, b"");
    for name in ["content-type", "content-length", "transfer-encoding"] {
        assert_eq!(first.header(name), None, "a GET has no body");
    }
    assert_eq!(
        first.path,
        "/hook?x=1&a=b+c%26d&n=1.50&z=&o=%7B%22k%22%3A%5B1%2C2%5D%7D&%C3%A9=true"
    );
    let date = again.headers.iter_mut().find(|(name, _)| name == "date");
    assert_eq!(date.unwrap().1, "2026-07-20T00:00:06Z");
    let token = "kore-idempotency-token";
    assert_eq!(again.header(token), first.header(token));
    assert_eq!(again.path, first.path);
    rig.publish("{}").await;
    assert_eq!(receiver.next().await.path, "/hook?x=1", "nothing to add");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_a_payload_that_no_url_can_carry_is_visibly_exhausted_and_holds_nothing_up() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig
        .endpoint_with(callback(
            receiver.url(),
            Method::Get,
            BodyForm::Json,
            SECRET,
        ))
        .await;
    // `/hook?a=` and so many letters.
    let fits = "x".repeat(GET_TARGET_BYTES - 8);
    let long = rig.publish(&format!(r#"{{"a":"{fits}x"}}"#)).await;
    let (delivery, attempts) = rig.until_settled(long).await;
    let DeliveryState::Exhausted { reason, .. } = delivery.state else {
        panic!("{:?}", delivery.state);
    };
    assert_eq!(
        (reason, attempts.len()),
        (ExhaustedReason::UrlTooLong, 0),
        "nothing was sent"
    );
    let message = rig.publish(&format!(r#"{{"a":"{fits}"}}"#)).await;
    let (delivery, _) = rig.until_settled(message).await;
    assert_eq!(delivery.state.status(), DeliveryStatus::Delivered);
    assert_eq!(receiver.rest().len(), 1);
    let known = rig.live().receiver(made.endpoint.id);
    assert_eq!(known.failing_since, None, "the receiver has no part in it");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_without_an_answer_is_retried_once() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| Reply {
        close: true,
        ..Reply::default()
    })
    .await;
    rig.endpoint_with(callback(
        receiver.url(),
        Method::Post,
        BodyForm::Form,
        SECRET,
    ))
    .await;
    let message = rig.publish("{}").await;
    rig.until_attempts(message, 1).await;
    rig.advance(MINUTE);
    let (_, attempts) = rig.until_settled(message).await;
    assert_eq!(attempts.len(), 2);
    assert_eq!(receiver.rest().len(), 2);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kore_documents_is_the_default() {
    let mut rig = Rig::new().await;
    for (preset, timeout, delays) in [
        (Preset::Kore, 15_000, &[5_000][..]),
        (Preset::KoreStream, 5_000, &[1_000, 2_000, 4_000]),
    ] {
        let input = NewEndpoint {
            preset,
            ..callback(
                "http://127.0.0.1:9/".to_owned(),
                Method::Post,
                BodyForm::Json,
                SECRET,
            )
        };
        let made = rig.endpoint_with(input).await.endpoint;
        assert_eq!(made.timeout_millis, timeout);
        assert_eq!(made.connect_timeout_millis, 5_000);
        assert_eq!(made.retry.delays_millis, delays);
    }
    rig.stop().await;
}

async fn delete(rig: &Rig, made: &CreatedEndpoint) {
    let deleted =
        rig.service()
            .delete_endpoint(rig.caller(), rig.app, made.endpoint.id, None, None);
    deleted.await.unwrap();
}

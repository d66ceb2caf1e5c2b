//! Retries keep the message's id and bytes, and are signed afresh when they are sent.

use std::sync::atomic::{AtomicU32, Ordering};

use http::StatusCode;
use serde_json::{Value, json};

use crate::panel::Hearing;
use crate::senders::{ALL, EVENT_TYPE, LISTS, Stand};
use crate::support::{Captured, Receiver, Server};

const PAYLOAD: &str = "{\"again\": [1, 2, 3]}";

/// Two retries, each in another second than the attempt before.
fn two_retries() -> Value {
    json!({ "retry": { "delaysMillis": [1000, 1000], "jitterPercent": 0, "retryOn": "anyFailure" } })
}

/// Refuses two requests for a reason that is not the signature, and accepts the third.
async fn failing_twice() -> Receiver {
    let left = AtomicU32::new(2);
    let fails = move || {
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        })
        .is_ok()
    };
    Receiver::answering(move |_| {
        if fails() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        }
    })
    .await
}

/// The Unix seconds of a Standard Webhooks request: a decimal number, nothing around it.
fn seconds(captured: &Captured) -> i64 {
    let text = captured.header("webhook-timestamp");
    assert!(text.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    text.parse().unwrap()
}

#[tokio::test]
async fn judges_accept_every_attempt_of_a_delivery() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut hearing = Hearing::open();
    let mut stands = Vec::new();
    for sender in ALL {
        let receiver = failing_twice().await;
        let stand = Stand::build_with(&api, *sender, receiver, two_retries()).await;
        let id = api.publish(&stand.app, EVENT_TYPE, PAYLOAD).await;
        stands.push((stand, id));
    }
    for (stand, id) in &mut stands {
        let mut attempts = Vec::new();
        for _ in 0..3 {
            attempts.push(stand.receiver.next().await);
        }
        for (captured, number) in attempts.iter().zip(1..) {
            let (own, other) = (&stand.endpoint.secret, &stand.other_secret);
            stand.hear(
                &mut hearing,
                &format!("attempt {number}"),
                captured,
                own,
                other,
            );
            assert_eq!(captured.body, attempts[0].body, "{}", stand.sender.name);
            if let Some(header) = stand.sender.id_header() {
                assert_eq!(captured.header(header), id, "{}", stand.sender.name);
            }
        }
    }
    server.stop().await;
    hearing.close().await;
}

/// The header rules of the Standard Webhooks specification, as strict receivers read them.
#[tokio::test]
async fn standard_headers_hold_to_the_letter_over_retries() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    for (sender, token) in LISTS.iter().zip(["v1,", "v1a,"]) {
        let receiver = failing_twice().await;
        let mut stand = Stand::build_with(&api, *sender, receiver, two_retries()).await;
        let id = api.publish(&stand.app, EVENT_TYPE, PAYLOAD).await;
        assert!(!id.contains('.'), "{id}");
        let mut earlier: Option<Captured> = None;
        for _ in 0..3 {
            let captured = stand.receiver.next().await;
            assert_eq!(captured.header("webhook-id"), id);
            let signature = sender.signature(&captured);
            let base64 = signature.strip_prefix(token).unwrap();
            assert!(!base64.contains([' ', ',', '-', '_']), "{signature}");
            assert_eq!(captured.header("content-type"), "application/json");
            if let Some(earlier) = &earlier {
                assert!(seconds(earlier) < seconds(&captured), "{captured:?}");
                assert_ne!(sender.signature(earlier), signature);
            }
            earlier = Some(captured);
        }
    }
    server.stop().await;
}

/// Hopae's own policy: the first retry after a second, with a new time inside the header.
#[tokio::test]
async fn the_hopae_header_holds_one_time_and_one_signature_over_retries() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let sender = ALL.iter().find(|sender| sender.name == "hopae").unwrap();
    let left = AtomicU32::new(1);
    let receiver = Receiver::answering(move |_| match left.swap(0, Ordering::SeqCst) {
        0 => StatusCode::OK,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    });
    let mut stand = Stand::build(&api, *sender, receiver.await).await;
    api.publish(&stand.app, EVENT_TYPE, PAYLOAD).await;
    let (first, second) = (stand.receiver.next().await, stand.receiver.next().await);
    let time = |captured: &Captured| {
        let signature = sender.signature(captured);
        let (time, digest) = signature.split_once(",v1=").unwrap();
        assert_eq!(digest.len(), 64, "{signature}");
        assert!(!digest.contains(','), "{signature}");
        time.strip_prefix("t=").unwrap().parse::<i64>().unwrap()
    };
    assert!(time(&first) < time(&second));
    assert_eq!(first.body, second.body);
    server.stop().await;
}

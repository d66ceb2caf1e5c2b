//! Payloads that are too large, too deep, or that receivers could not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{Stand, problem, raw};
use crate::support::receiver::Receiver;
use crate::support::{endpoint, text};

/// How deep the brackets of a body without strings that hold some nest.
fn nesting(body: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in body {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

#[tokio::test]
async fn payloads_that_receivers_cannot_read_are_refused_with_a_pointer() {
    let stand = Stand::new().await;
    let good = r#"{"eventType":"a.b","payload":{"n":1e308,"s":"\ud83d\ude00"}}"#;
    for (payload, word) in [
        ("1e999999", "byte 0"),
        (r#"{"n":-1e400}"#, "double"),
        (r#""\ud800""#, "surrogate"),
        (r#"{"\udc00":1}"#, "byte 2"),
    ] {
        let body = format!(r#"{{"eventType":"a.b","payload":{payload}}}"#);
        let reply = stand.post("messages", body.as_bytes()).await;
        let refused = problem(&reply, 422, "invalid_field");
        assert_eq!(refused["errors"][0]["pointer"], "/payload", "{refused}");
        let detail = refused["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{word}: {detail}");
        let batch = format!(r#"{{"messages":[{good},{body}]}}"#);
        let reply = stand.post("messages/batch", batch.as_bytes()).await;
        let refused = problem(&reply, 422, "invalid_field");
        assert_eq!(refused["errors"][0]["pointer"], "/messages/1/payload");
    }
    stand.nothing_stored().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_nesting_does_no_harm() {
    let stand = Stand::new().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let reply = stand.post("endpoints", deep.as_bytes()).await;
    assert!((400..500).contains(&reply.status), "{}", reply.status);
    // As a payload it is refused: receivers could not read it.
    let body = format!("{{\"eventType\":\"a.b\",\"payload\":{deep}}}");
    let refused = problem(
        &stand.post("messages", body.as_bytes()).await,
        422,
        "invalid_field",
    );
    assert_eq!(refused["errors"][0]["pointer"], "/payload", "{refused}");
    // What is just not too deep is delivered in every form of body, and no body is deeper than
    // common parsers read.
    let depth = hookturn_core::limits::PAYLOAD_DEPTH;
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let deepest = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&deepest);
    let receiver = Receiver::start(move |arrival| {
        noted.fetch_max(nesting(&arrival.body), Ordering::SeqCst);
        async { 204 }
    })
    .await;
    for preset in ["standard", "hopae", "kore", "kore-stream", "github"] {
        let preset = json!({ "preset": preset });
        endpoint(&stand.api, &stand.app, &receiver.url(), preset).await;
    }
    let body = format!("{{\"eventType\":\"a.b\",\"payload\":{deep}}}");
    let reply = stand.post("messages", body.as_bytes()).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    receiver.arrived(5).await;
    let deepest = deepest.load(Ordering::SeqCst);
    assert!(
        (depth..=hookturn_core::limits::BODY_DEPTH).contains(&deepest),
        "{deepest}"
    );
    let id = text(&reply.json(), "id");
    let shown = stand.api.get(&stand.path(&format!("messages/{id}"))).await;
    assert_eq!(shown.status, 200);
    let log = stand.server.stop().await.join("\n");
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn payloads_and_bodies_that_are_too_large_are_413() {
    let stand = Stand::new().await;
    let sized = |payload: usize| {
        let text = "x".repeat(payload - 2);
        format!("{{\"eventType\":\"a.b\",\"payload\":\"{text}\"}}")
    };
    let body = sized(256 * 1024 + 1);
    let refused = problem(
        &stand.post("messages", body.as_bytes()).await,
        413,
        "too_large",
    );
    assert_eq!(refused["errors"][0]["pointer"], "/payload");
    let inside = format!("{{\"messages\":[{}]}}", sized(256 * 1024 + 1));
    let reply = stand.post("messages/batch", inside.as_bytes()).await;
    let refused = problem(&reply, 413, "too_large");
    assert_eq!(refused["errors"][0]["pointer"], "/messages/0/payload");
    // Declared too large: refused before it is sent. Chunked: as soon as it is too large.
    for (rest, declared) in [("messages", "1000000"), ("messages/batch", "10737418240")] {
        let request = stand.api.request("POST", &stand.path(rest));
        let request = request.header("content-type", "application/json");
        let request = request.header("content-length", declared);
        problem(
            &raw(&stand.server, &request.bytes()).await,
            413,
            "too_large",
        );
    }
    let request = stand.api.request("POST", &stand.path("messages"));
    let request = request.header("content-type", "application/json");
    let mut bytes = request.header("transfer-encoding", "chunked").bytes();
    for _ in 0..80 {
        bytes.extend_from_slice(b"1000\r\n");
        bytes.extend_from_slice(&[b' '; 4_096]);
        bytes.extend_from_slice(b"\r\n");
    }
    problem(&raw(&stand.server, &bytes).await, 413, "too_large");
    // A client that sends all of it sees the answer, not a reset.
    let body = sized(3 * 1024 * 1024);
    for _ in 0..20 {
        let reply = stand.post("messages", body.as_bytes()).await;
        problem(&reply, 413, "too_large");
    }
    stand.nothing_stored().await;
}

#[tokio::test]
async fn the_largest_payload_is_accepted() {
    let stand = Stand::new().await;
    let text = "x".repeat(256 * 1024 - 2);
    let body = format!("{{\"eventType\":\"a.b\",\"payload\":\"{text}\"}}");
    let reply = stand.post("messages", body.as_bytes()).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    stand.server.stop().await;
}

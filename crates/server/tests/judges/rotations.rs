//! Rotations with receivers of which nothing is known, in every scheme: one signature a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use serde_json::json;

use crate::panel::Hearing;
use crate::senders::{ALL, EVENT_TYPE, Stand};
use crate::support::{Receiver, Server};

const PAYLOAD: &str = "{\"rotation\":\"of – ✓\"}";

#[tokio::test]
async fn after_an_immediate_rotation_the_old_secret_accepts_nothing() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut hearing = Hearing::open();
    for sender in ALL {
        let mut stand = Stand::build(&api, *sender, Receiver::start().await).await;
        let old = stand.endpoint.secret.clone();
        let before = stand.deliver(&api, PAYLOAD).await;
        let immediate = json!({ "mode": "immediate" });
        let new = api
            .rotate(&stand.endpoint.keyring_id, &immediate)
            .await
            .secret;
        let after = stand.deliver(&api, PAYLOAD).await;
        stand.hear(&mut hearing, "before", &before, &old, &new);
        stand.hear(&mut hearing, "after", &after, &new, &old);
    }
    server.stop().await;
    hearing.close().await;
}

/// Holds the old secret first and switches at a moment of its own: the request that finds it
/// switched is refused once, and the same attempt repeats it under the new secret. Deliveries keep
/// their order here, so that each is signed after the one before it was recorded.
#[tokio::test]
async fn g6_in_an_overlap_a_receiver_that_switches_is_followed_by_the_fallback() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut hearing = Hearing::open();
    for sender in ALL {
        let switched = Arc::new(AtomicBool::new(false));
        let refuse_once = Arc::clone(&switched);
        let receiver = Receiver::answering(move |_| {
            if refuse_once.swap(false, Ordering::SeqCst) {
                StatusCode::UNAUTHORIZED
            } else {
                StatusCode::OK
            }
        });
        let mut stand =
            Stand::build_with(&api, *sender, receiver.await, json!({ "ordered": true })).await;
        let old = stand.endpoint.secret.clone();
        stand.deliver(&api, PAYLOAD).await;
        let overlap = json!({ "mode": "overlap", "overlapSeconds": 3600 });
        let new = api
            .rotate(&stand.endpoint.keyring_id, &overlap)
            .await
            .secret;
        let not_switched = stand.deliver(&api, PAYLOAD).await;
        stand.hear(&mut hearing, "not switched", &not_switched, &old, &new);

        switched.store(true, Ordering::SeqCst);
        let id = api.publish(&stand.app, EVENT_TYPE, PAYLOAD).await;
        let refused = stand.receiver.next().await;
        let fallback = stand.receiver.next().await;
        stand.hear(&mut hearing, "refused", &refused, &old, &new);
        stand.hear(&mut hearing, "fallback", &fallback, &new, &old);
        assert_eq!(refused.body, fallback.body);
        if let Some(header) = sender.id_header() {
            assert_eq!(
                [refused.header(header), fallback.header(header)],
                [&id, &id]
            );
        }

        let followed = stand.deliver(&api, PAYLOAD).await;
        stand.hear(&mut hearing, "followed", &followed, &new, &old);
    }
    server.stop().await;
    hearing.close().await;
}

//! Large bodies that somebody begins and does not end: they take the room of their own key, and no more.

use hookturn_core::limits::{BATCH_BODY_BYTES, BODIES_BYTES};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Stand, key, problem};
use crate::support::SOON;
use crate::support::http::{Connection, Reply};
use crate::support::within;
use std::time::Duration;

/// Longer than a body waits for room.
const PATIENCE: Duration = Duration::from_secs(25);
const BATCHES: usize = 24;
/// What one key may hold.
const HELD: usize = BODIES_BYTES / 2 / BATCH_BODY_BYTES;

#[tokio::test]
async fn g10_half_sent_batches_are_bounded_in_memory_and_leave_others_alone() {
    let mut stand = Stand::new().await;
    let other = key(&stand.api, &["publish"]).await;
    stand.before = stand.counted().await;
    let request = stand.api.request("POST", &stand.path("messages/batch"));
    let bytes = request.body(&vec![b' '; BATCH_BODY_BYTES]).bytes();
    let mut begun = JoinSet::new();
    let (done, _) = tokio::sync::watch::channel(false);
    for _ in 0..BATCHES {
        let (bytes, mut done) = (bytes.clone(), done.subscribe());
        let address = stand.server.address;
        begun.spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            let (last, most) = bytes.split_last().unwrap();
            connection.write(most).await.unwrap();
            tokio::select! {
                reply = connection.reply() => reply.unwrap(),
                _ = done.changed() => {
                    connection.write(&[*last]).await.unwrap();
                    connection.reply().await.unwrap()
                }
            }
        });
    }
    for _ in HELD..BATCHES {
        refused(&answered(&mut begun).await);
    }
    // The key has no room left for what is large; whatever is small needs none, and another key has its own.
    let small = json!({"eventType": "a.b", "payload": 1});
    let large = json!({"eventType": "a.b", "payload": "x".repeat(200 * 1024)});
    let path = stand.path("messages");
    for (api, body) in [(&stand.api, &small), (&other, &large)] {
        let reply = within(SOON, "an answer", api.post(&path, Some(body))).await;
        assert_eq!(reply.status, 202, "{reply:?}");
    }
    let peak = stand.server.peak_memory();
    let bound = (3 * BODIES_BYTES / 2 + 48 * 1024 * 1024) as u64;
    assert!(peak < bound, "{peak} of {bound}");
    // Those that had room are read to their end.
    done.send_replace(true);
    for _ in 0..HELD {
        problem(&answered(&mut begun).await, 400, "malformed_json");
    }
}

async fn answered(begun: &mut JoinSet<Reply>) -> Reply {
    let next = within(PATIENCE, "an answer", begun.join_next()).await;
    next.unwrap().unwrap()
}

fn refused(reply: &Reply) {
    let said = problem(reply, 503, "unavailable");
    assert_eq!(reply.header("retry-after"), Some("1"));
    let detail = said["detail"].as_str().unwrap();
    assert!(detail.contains("nothing was stored"), "{detail}");
}

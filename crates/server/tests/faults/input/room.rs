//! Large bodies that somebody begins and does not end: they take the room of their own workspace, and no more.

use std::time::Duration;

use hookturn_core::limits::{BATCH_BODY_BYTES, BODIES_BYTES};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Stand, problem};
use crate::support::http::{Api, Connection, Reply};
use crate::support::process::Setup;
use crate::support::{SOON, app, text, within};

/// Longer than a body waits for room.
const PATIENCE: Duration = Duration::from_secs(25);
const BATCHES: usize = 24;
/// What one workspace may hold.
const HELD: usize = BODIES_BYTES / 2 / BATCH_BODY_BYTES;

#[tokio::test]
async fn g10_half_sent_batches_are_bounded_in_memory_and_leave_others_alone() {
    let mut stand = Stand::new().await;
    let operator_key = format!("sk_operator_{}", "0b5e".repeat(16));
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).with("HOOKTURN_BOOTSTRAP_API_KEY", &operator_key);
    stand.server = setup.start().await;
    stand.api = Api {
        key: operator_key,
        ..stand.server.api()
    };
    stand.app = app(&stand.api).await;
    let (theirs, their_path) = neighbour(&stand.api).await;
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
    // The workspace has no room left for what is large; whatever is small needs none, and another one has its own.
    let small = json!({"eventType": "a.b", "payload": 1});
    let large = json!({"eventType": "a.b", "payload": "x".repeat(200 * 1024)});
    let path = stand.path("messages");
    for (api, path, body) in [(&stand.api, &path, &small), (&theirs, &their_path, &large)] {
        let reply = within(SOON, "an answer", api.post(path, Some(body))).await;
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

/// Another workspace: its key, and where messages of its app are published.
async fn neighbour(operator: &Api) -> (Api, String) {
    let named = json!({"name": "other"});
    let made = operator.created("/v1/workspaces", &named).await;
    let scopes = json!({"name": "theirs", "scopes": ["publish", "manage"]});
    let request = operator.request("POST", "/v1/api-keys");
    let request = request.header("hookturn-workspace", &text(&made, "id"));
    let key = operator
        .send(request.body(scopes.to_string().as_bytes()))
        .await;
    let theirs = Api {
        key: text(&key.json(), "key"),
        ..operator.clone()
    };
    let path = format!("/v1/apps/{}/messages", app(&theirs).await);
    (theirs, path)
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

//! A disk that is full: what cannot be stored is refused in a way that can be repeated, readiness is
//! off as long as that lasts, and everything goes on by itself afterwards.

use std::collections::HashSet;

use serde_json::json;

use crate::support::http::Reply;
use crate::support::process::Setup;
use crate::support::{SOON, app, eventually, list, text};

/// Publications that may be needed until no write succeeds any more.
const ENOUGH: usize = 400;

fn refused(reply: &Reply) -> bool {
    if reply.status == 202 {
        return false;
    }
    assert_eq!(reply.status, 503, "{reply:?}");
    let problem = reply.json();
    assert_eq!(problem["code"], "store_unwritable", "{problem}");
    assert_eq!(problem["retryable"], true, "{problem}");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_full_disk_is_503_until_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).survives_file_limits().start().await;
    let api = server.api();
    let app = app(&api).await;
    let path = format!("/v1/apps/{app}/messages");
    let payload = "x".repeat(100_000);
    let body = json!({"eventType": "a.b", "payload": payload});
    let mut accepted = HashSet::new();
    let reply = api.post(&path, Some(&body)).await;
    accepted.insert(text(&reply.json(), "id"));

    let files = std::fs::read_dir(dir.path()).unwrap();
    let sizes = files.map(|file| file.unwrap().metadata().unwrap().len());
    server.limit_files(Some(sizes.max().unwrap() + 200_000));
    let mut refusals = 0;
    let mut asked = 0;
    eventually(SOON, "readiness to go off", async || {
        asked += 1;
        assert!(asked < ENOUGH, "the limit has no effect");
        let reply = api.post(&path, Some(&body)).await;
        if refused(&reply) {
            refusals += 1;
        } else {
            accepted.insert(text(&reply.json(), "id"));
        }
        let ready = api.get("/readyz").await;
        (ready.status == 503).then_some(())
    })
    .await;
    assert!(refusals > 0);
    let unready = eventually(SOON, "the reason", async || {
        let ready = api.get("/readyz").await;
        (ready.status == 503).then_some(ready)
    })
    .await;
    assert!(refused(&unready));
    assert!(unready.json()["detail"].as_str().unwrap().contains("disk"));
    // What only reads goes on.
    assert_eq!(api.get("/livez").await.status, 200);
    assert_eq!(api.get(&path).await.status, 200);

    server.limit_files(None);
    eventually(SOON, "readiness to come back", async || {
        (api.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let reply = api.post(&path, Some(&body)).await;
    assert!(!refused(&reply));
    accepted.insert(text(&reply.json(), "id"));
    let stored: HashSet<_> = list(&api, &path)
        .await
        .iter()
        .map(|m| text(m, "id"))
        .collect();
    assert_eq!(stored, accepted, "exactly what was acknowledged is there");
    let log = server.stop().await.join("\n");
    assert!(log.contains("not ready: the store cannot write"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

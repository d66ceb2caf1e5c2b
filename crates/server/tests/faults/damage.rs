//! A database whose pages were damaged while nobody looked: too large to be read whole at the start, so
//! that the damage is met by the traffic. From then on nothing is accepted, and readiness says why.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use hookturn::app::DATABASE;
use serde_json::json;

use crate::support::process::Setup;
use crate::support::{SOON, app, eventually, text};

/// From this size on a start does not read the whole file.
const LARGE: u64 = 16 * 1024 * 1024;

/// Overwrites leaf pages in the middle of what is due, and leaves the trees above them.
fn damage_what_is_due(path: &Path) {
    let database = rusqlite::Connection::open(path).unwrap();
    let size: u32 = database
        .query_row("PRAGMA page_size", [], |row| row.get(0))
        .unwrap();
    let leaves_of = |tree: &str| {
        let leaves = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path";
        let mut found = database.prepare(leaves).unwrap();
        let leaves = found.query_map([tree], |row| row.get(0)).unwrap();
        leaves.collect::<Result<Vec<u32>, _>>().unwrap()
    };
    let trees = ["due", "due_delivery"].map(leaves_of);
    database.close().unwrap();
    let mut file = std::fs::File::options().write(true).open(path).unwrap();
    for leaves in trees {
        assert!(leaves.len() > 4, "{} leaves", leaves.len());
        for page in &leaves[leaves.len() / 2 - 1..][..2] {
            file.seek(SeekFrom::Start(u64::from(page - 1) * u64::from(size)))
                .unwrap();
            let garbage = vec![0xa5; usize::try_from(size).unwrap()];
            file.write_all(&garbage).unwrap();
        }
    }
    file.sync_all().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_nothing_is_accepted_into_a_database_that_is_found_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let server = setup.start().await;
    let api = server.api();
    let app = app(&api).await;
    let endpoints = format!("/v1/apps/{app}/endpoints");
    let endpoint = json!({"url": "http://127.0.0.1:9/", "state": "paused"});
    let endpoint = text(&api.created(&endpoints, &endpoint).await, "id");
    let path = format!("/v1/apps/{app}/messages");
    let large = json!({"eventType": "a.b", "payload": "x".repeat(250_000)});
    let large = json!({ "messages": vec![large; 10] });
    let small = json!({"eventType": "a.b", "payload": {}});
    let small = json!({ "messages": vec![small; 1_000] });
    let batch = format!("{path}/batch");
    for messages in std::iter::repeat_n(&large, 8).chain([&small]) {
        let reply = api.post(&batch, Some(messages)).await;
        assert_eq!(reply.status, 202, "{reply:?}");
    }
    server.stop().await;
    let database = dir.path().join(DATABASE);
    assert!(std::fs::metadata(&database).unwrap().len() > LARGE);
    damage_what_is_due(&database);

    let server = setup.start().await;
    let api = server.api();
    // What is due is read now, if a count of it did not do so before.
    let enabled = api
        .request("PATCH", &format!("{endpoints}/{endpoint}"))
        .header("content-type", "application/json")
        .body(br#"{"state":"enabled"}"#);
    let _whatever_it_says = api.send(enabled).await;
    let unready = eventually(SOON, "readiness to go off", async || {
        let ready = api.get("/readyz").await;
        (ready.status == 503).then_some(ready)
    })
    .await;
    let problem = unready.json();
    assert_eq!(problem["code"], "store_damaged", "{problem}");
    assert_eq!(problem["retryable"], false, "{problem}");
    for word in ["damaged", "hookturn doctor", "backup"] {
        assert!(
            problem["detail"].as_str().unwrap().contains(word),
            "{problem}"
        );
    }
    let message = json!({"eventType": "a.b", "payload": {}});
    for _ in 0..20 {
        let reply = api.post(&path, Some(&message)).await;
        assert_eq!(reply.status, 503, "{reply:?}");
        assert_eq!(reply.json()["code"], "store_damaged", "{reply:?}");
        // A write that the engine takes brings nothing back.
        assert_eq!(api.get("/readyz").await.status, 503);
    }
    assert_eq!(api.get("/livez").await.status, 200);
    // What cannot be counted is not said to be nothing.
    let metrics = api.get("/metrics").await;
    let page = String::from_utf8_lossy(&metrics.body);
    assert!(page.contains("hookturn_ready 0"), "{page}");
    assert!(!page.contains("hookturn_deliveries_due"), "{page}");
    // What can be read is there.
    assert_eq!(api.get("/v1/apps").await.status, 200);
    server.said("the database is damaged").await;
    let ended = server.stop().await;
    assert!(!ended.join("\n").contains("panicked"), "{ended:#?}");
}

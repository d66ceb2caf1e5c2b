//! What the document says of problems and of the fence is what is sent. Each answer that these tests get is held against
//! it besides: see `document`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::bench::document::{DOCUMENT, names};
use crate::bench::{Bench, Reply};

/// A keyring with a rotation of this mode open: its path, the rotation's and its id.
async fn rotating(bench: &Bench, mode: &str) -> (String, String, String) {
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    let keyring = format!("/v1/keyrings/{}", endpoint["keyringId"].as_str().unwrap());
    let rotations = format!("{keyring}/rotations");
    let opened = bench.post(&rotations, json!({ "mode": mode })).await.ok();
    let id = opened["id"].as_str().unwrap().to_owned();
    (keyring, format!("/v1/rotations/{id}"), id)
}

/// Each member that a problem may have beside those of every problem is sent, with what it says.
#[tokio::test]
async fn every_member_of_a_problem_is_sent_and_declared() {
    let bench = Bench::new().await;
    let (keyring, rotation, id) = rotating(&bench, "staged").await;
    let mut sent = BTreeSet::new();
    let mut note = |problem: &Value| sent.extend(names(problem).map(str::to_owned));

    let broken = bench.ask("POST", "/v1/apps").raw("application/json", "{");
    let broken = broken.send().await.problem(400, "malformed_json");
    assert_eq!((&broken["line"], &broken["column"]), (&json!(1), &json!(1)));
    note(&broken);

    let reader = bench.key(&["read"], "default").await;
    let refused = bench.with_key(&reader, "POST", "/v1/apps").json(&json!({}));
    let refused = refused.send().await.problem(403, "forbidden");
    assert_eq!(refused["needsScope"], "manage");
    note(&refused);

    let stale = bench.ask("POST", &format!("{rotation}/promote"));
    let stale = stale.header("if-match", "\"999\"").send().await;
    note(&stale.problem(412, "precondition_failed"));

    let rotations = format!("{keyring}/rotations");
    let second = bench.post(&rotations, json!({ "mode": "staged" })).await;
    let second = second.problem(409, "rotation_open");
    assert_eq!(second["openRotationId"], id);
    note(&second);

    let secrets = format!("{keyring}/secrets");
    let second = bench.post(&secrets, json!({ "name": "another" })).await;
    let second = second.problem(409, "pending_exists");
    assert!(second["pendingSecretId"].is_string(), "{second}");
    note(&second);

    let (keyring, rotation, _) = rotating(&bench, "overlap").await;
    let body = json!({ "retireAt": "2020-01-01T00:00:00Z" });
    let earlier = bench.post(&format!("{rotation}/extend"), body).await;
    let earlier = earlier.problem(409, "not_later");
    assert!(earlier["retireAt"].is_string(), "{earlier}");
    note(&earlier);

    let finished = bench.post(&format!("{rotation}/finish"), json!({})).await;
    finished.ok();
    let value = format!("whsec_{}", "5a".repeat(32));
    let imported = json!({ "mode": "immediate", "secret": value });
    let rotations = format!("{keyring}/rotations");
    bench.post(&rotations, imported.clone()).await.ok();
    let again = bench.post(&rotations, imported).await;
    let again = again.problem(409, "duplicate_secret");
    assert!(again["existingSecretId"].is_string(), "{again}");
    note(&again);

    let undone = bench.post(&format!("{rotation}/undo"), json!({})).await;
    let undone = undone.problem(409, "not_latest_rotation");
    assert!(undone["latestRotationId"].is_string(), "{undone}");
    note(&undone);

    let invalid = bench.post("/v1/apps", json!({ "name": 1 })).await;
    note(&invalid.problem(422, "invalid_field"));

    // A damaged audit log is damaged by hand, elsewhere.
    sent.insert("entry".to_owned());
    let declared = &DOCUMENT["components"]["schemas"]["Problem"]["properties"];
    let declared: BTreeSet<String> = names(declared).map(str::to_owned).collect();
    assert_eq!(sent, declared);
}

/// A change of keys says how far the nodes follow it wherever one happens, also where the key is not in the path.
#[tokio::test]
async fn the_fence_is_told_of_every_change_of_keys() {
    let bench = Bench::new().await;
    let fenced = |reply: &Reply| {
        assert!(reply.status.is_success(), "{}", reply.text);
        assert!(reply.header("hookturn-fence").is_some(), "{}", reply.text);
        assert!(reply.header("x-request-id").is_some());
    };
    let app = bench.app().await;
    let endpoints = format!("{app}/endpoints");
    let made = json!({ "url": "https://example.com/hooks" });
    let made = bench.post(&endpoints, made).await;
    fenced(&made);
    assert_eq!(made.header("etag"), Some("\"1\""));
    let endpoint = format!("{endpoints}/{}", made.json()["id"].as_str().unwrap());
    fenced(&bench.ask("DELETE", &endpoint).send().await);
    bench.endpoint(&app).await;
    fenced(&bench.ask("DELETE", &app).send().await);
    let key = json!({ "name": "k", "scopes": ["read"] });
    let key = bench.post("/v1/api-keys", key).await;
    fenced(&key);
    let key = format!("/v1/api-keys/{}", key.json()["id"].as_str().unwrap());
    fenced(&bench.ask("DELETE", &key).send().await);
    let workspace = bench.with_key(&bench.operator, "POST", "/v1/workspaces");
    let workspace = workspace.json(&json!({ "name": "acme" })).send().await;
    assert_eq!(workspace.header("etag"), Some("\"1\""));
}

//! The same POST twice.

use serde_json::json;

use crate::bench::Bench;

#[tokio::test]
async fn the_same_key_and_body_happen_once_and_answer_twice() {
    let bench = Bench::new().await;
    let ask = || {
        bench
            .ask("POST", "/v1/apps")
            .header("idempotency-key", "k-1")
            .json(&json!({"name": "shop"}))
            .send()
    };
    let (first, second) = (ask().await, ask().await);
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 201));
    assert_eq!(first.text, second.text);
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    for header in ["location", "etag", "content-type"] {
        assert_eq!(first.header(header), second.header(header), "{header}");
        assert!(first.header(header).is_some(), "{header}");
    }
    let apps = bench.get("/v1/apps").await.ok();
    assert_eq!(apps["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn g5_another_body_or_path_is_a_mismatch_and_not_carried_out() {
    let bench = Bench::new().await;
    let ask = |path: &str, body| {
        bench
            .ask("POST", path)
            .header("idempotency-key", "k-1")
            .json(&body)
            .send()
    };
    ask("/v1/apps", json!({"name": "shop"})).await.ok();
    let other = ask("/v1/apps", json!({"name": "other"})).await;
    other.problem(422, "idempotency_mismatch");
    let (one, two) = (bench.app().await, bench.app().await);
    let message = json!({"eventType": "a", "payload": 1});
    let other = ask("/v1/api-keys", json!({"name": "k", "scopes": ["read"]})).await;
    other.problem(422, "idempotency_mismatch");
    let ask = |path: &str| {
        let ask = bench.ask("POST", path).header("idempotency-key", "k-2");
        ask.json(&message).send()
    };
    let path = |app: &str| format!("{app}/messages");
    let first = ask(&path(&one)).await;
    assert_eq!(first.status, 202);
    ask(&path(&two)).await.problem(422, "idempotency_mismatch");
    assert_eq!(bench.get(&path(&two)).await.ok()["data"], json!([]));
    assert_eq!(ask(&path(&one)).await.text, first.text);
}

#[tokio::test]
async fn a_refused_request_leaves_its_key_free() {
    let bench = Bench::new().await;
    let ask = |body: &'static str| {
        bench
            .ask("POST", "/v1/apps")
            .header("idempotency-key", "k-1")
            .raw("application/json", body)
            .send()
    };
    ask("{").await.problem(400, "malformed_json");
    ask(r#"{"name":""}"#).await.problem(422, "invalid_field");
    assert_eq!(ask(r#"{"name":"shop"}"#).await.status, 201);
}

#[tokio::test]
async fn concurrent_twins_have_one_effect() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let path = format!("{app}/messages");
    let twins = (0..16).map(|_| {
        bench
            .ask("POST", &path)
            .header("idempotency-key", "k-1")
            .json(&json!({"eventType": "a", "payload": {"n": 1}}))
            .send()
    });
    let replies = futures_util::future::join_all(twins).await;
    let mut accepted = Vec::new();
    for reply in replies {
        if reply.status == 202 {
            accepted.push(reply.text);
        } else {
            let problem = reply.problem(409, "idempotency_in_progress");
            assert_eq!(problem["retryable"], true);
            assert_eq!(reply.header("retry-after"), Some("1"));
        }
    }
    accepted.dedup();
    assert_eq!(accepted.len(), 1);
    let stored = bench.get(&path).await.ok();
    assert_eq!(stored["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_rotation_shows_its_value_again_on_replay_only() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    let keyring = format!("/v1/keyrings/{}", endpoint["keyringId"].as_str().unwrap());
    let rotate = || {
        bench
            .ask("POST", &format!("{keyring}/rotations"))
            .header("idempotency-key", "rotate")
            .json(&json!({"mode": "overlap"}))
            .send()
    };
    let (first, second) = (rotate().await, rotate().await);
    assert_eq!((first.status.as_u16(), &first.text), (201, &second.text));
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    let opened = first.ok();
    let value = opened["secret"]["value"].as_str().unwrap();
    assert!(value.starts_with("whsec_"));
    let again = bench
        .post(&format!("{keyring}/rotations"), json!({"mode": "overlap"}))
        .await;
    let problem = again.problem(409, "rotation_open");
    assert_eq!(problem["openRotationId"], opened["id"]);
    assert!(!again.text.contains(value));
}

#[tokio::test]
async fn keys_that_cannot_be_are_refused_on_every_post() {
    let bench = Bench::new().await;
    let long = "x".repeat(256);
    for bad in ["", "a b", "\u{e9}", &long] {
        let reply = bench
            .ask("POST", "/v1/apps")
            .header("idempotency-key", bad)
            .json(&json!({"name": "shop"}))
            .send()
            .await;
        reply.problem(400, "invalid_idempotency_key");
    }
    assert_eq!(bench.get("/v1/apps").await.ok()["data"], json!([]));
}

#[tokio::test]
async fn a_repeated_test_event_is_sent_once() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let made = bench.endpoint(&app).await;
    let path = format!("{app}/endpoints/{}/test", made["id"].as_str().unwrap());
    let test = |key: &str| {
        let ask = bench.ask("POST", &path).header("idempotency-key", key);
        ask.send()
    };
    let (first, second) = (test("t-1").await, test("t-1").await);
    assert_eq!((first.status.as_u16(), &first.text), (200, &second.text));
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    assert_eq!(bench.tests_sent(), 1);
    let other = test("t-2").await.ok();
    assert_ne!(other["messageId"], first.json()["messageId"]);
    bench.ask("POST", &path).send().await.ok();
    assert_eq!(bench.tests_sent(), 3, "another key, or none, sends another");
}

#[tokio::test]
async fn g8_a_repeated_reveal_is_asked_and_audited_anew() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let made = bench.endpoint(&app).await;
    let keyring = format!("/v1/keyrings/{}", made["keyringId"].as_str().unwrap());
    let path = format!(
        "{keyring}/secrets/{}/reveal",
        made["secret"]["id"].as_str().unwrap()
    );
    for shown in 1..=2 {
        let ask = bench.ask("POST", &path).header("idempotency-key", "r");
        let revealed = ask.send().await;
        assert_eq!(revealed.header("idempotency-replayed"), None);
        assert_eq!(revealed.ok()["value"], made["secret"]["value"]);
        let log = bench.get("/v1/audit?limit=200").await.ok();
        let entries = log["data"].as_array().unwrap();
        let reveals = entries
            .iter()
            .filter(|entry| entry["action"] == "secret.revealed");
        assert_eq!(reveals.count(), shown, "{log}");
    }
}

/// A replay must not be a way to a key that one may not make.
#[tokio::test]
async fn the_text_of_an_api_key_is_replayed_to_the_key_that_asked_for_it_only() {
    let bench = Bench::new().await;
    let body = json!({"name": "ops", "scopes": ["publish", "manage", "secrets", "read"], "reach": "operator"});
    let manage = bench.key(&["manage"], "default").await;
    let ask = |key: &str| {
        let ask = bench.with_key(key, "POST", "/v1/api-keys");
        ask.header("idempotency-key", "create-ops")
            .json(&body)
            .send()
    };
    let made = ask(&bench.operator).await;
    assert_eq!(made.status, 201);
    ask(&manage).await.problem(422, "idempotency_mismatch");
    let again = ask(&bench.operator).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json(), made.json());
}

#[tokio::test]
async fn a_rotation_of_the_master_key_happens_once_for_a_key() {
    let bench = Bench::new().await;
    let ask = |key: &'static str, body: &'static str| {
        bench
            .with_key(&bench.operator, "POST", "/v1/master-key/rotate")
            .header("idempotency-key", key)
            .raw("application/json", body)
            .send()
    };
    let (first, again) = (ask("m-1", "{}").await, ask("m-1", "{}").await);
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (200, 200));
    assert_eq!(first.text, again.text);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_ne!(ask("m-2", "{}").await.text, first.text);
    let other = ask("m-1", r#"{"reason":"quarterly"}"#).await;
    other.problem(422, "idempotency_mismatch");
}

#[tokio::test]
async fn a_rotation_of_the_master_key_reads_its_body_as_every_post_does() {
    let bench = Bench::new().await;
    let ask = || bench.with_key(&bench.operator, "POST", "/v1/master-key/rotate");
    let json = |body: &str| ask().raw("application/json", body.to_owned()).send();
    json("{").await.problem(400, "malformed_json");
    let unknown = json(r#"{"force":true}"#).await;
    unknown.problem(422, "invalid_field");
    assert_eq!(unknown.pointer(), "/force");
    let large = format!(r#"{{"reason":"{}"}}"#, "x".repeat(1024 * 1024));
    json(&large).await.problem(413, "too_large");
    let text = ask().raw("text/plain", "{}").send().await;
    text.problem(415, "unsupported_media_type");
    let rotations = async || {
        let log = bench.with_key(&bench.operator, "GET", "/v1/audit");
        let log = log.header("hookturn-workspace", "default").send().await;
        assert_eq!(log.status, 200, "{}", log.text);
        log.text.matches("master_key.rotated").count()
    };
    assert_eq!(rotations().await, 0);
    assert_eq!(ask().send().await.status, 200);
    assert_eq!(json(r#"{"reason":"quarterly"}"#).await.status, 200);
    assert_eq!(rotations().await, 2);
}

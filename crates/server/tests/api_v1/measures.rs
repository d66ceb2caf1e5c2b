//! Where the document gives a measure (an integer, a length), the code measures the same way.

use serde_json::{Value, json};

use crate::bench::Bench;

/// One character each, of one to four bytes.
const LETTERS: [&str; 4] = ["a", "é", "東", "🦘"];

#[tokio::test]
async fn a_length_is_counted_in_characters() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoints = format!("{app}/endpoints");
    let messages = format!("{app}/messages");
    for letter in LETTERS {
        // Where, the longest text of a member, its pointer, and the body around it.
        type Body = fn(String) -> Value;
        let cases: [(&str, usize, &str, Body); 7] = [
            ("/v1/apps", 256, "/name", |text| json!({ "name": text })),
            (
                "/v1/apps",
                256,
                "/reason",
                |text| json!({ "name": "a", "reason": text }),
            ),
            (
                "/v1/apps",
                256,
                "/labels/team",
                |text| json!({ "name": "a", "labels": { "team": text } }),
            ),
            (
                "/v1/api-keys",
                256,
                "/name",
                |text| json!({ "name": text, "scopes": ["read"] }),
            ),
            (
                &endpoints,
                256,
                "/description",
                |text| json!({ "url": "https://receiver.example/", "description": text }),
            ),
            (
                &endpoints,
                512,
                "/secret",
                |text| json!({ "url": "https://receiver.example/", "preset": "kore", "secret": text }),
            ),
            (
                &messages,
                128,
                "/eventId",
                |text| json!({ "eventType": "a", "payload": 1, "eventId": text }),
            ),
        ];
        for (path, most, pointer, body) in cases {
            let longest = body(letter.repeat(most));
            let made = bench.post(path, longest).await;
            assert!(
                made.status.is_success(),
                "{letter} {pointer}: {}",
                made.text
            );
            let longer = bench.post(path, body(letter.repeat(most + 1))).await;
            longer.problem(422, "invalid_field");
            assert_eq!(longer.pointer(), pointer, "{letter}");
        }
    }
}

#[tokio::test]
async fn a_whole_number_is_one_however_it_is_written() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let asked = r#"{"url":"https://receiver.example/","timeoutMillis":5.0e3,
        "connectTimeoutMillis":2000.0,"maxInFlight":7.0,"rateLimitPerSecond":9e0,
        "retry":{"delaysMillis":[1e3,2000.0],"jitterPercent":5.0}}"#;
    let ask = bench.ask("POST", &format!("{app}/endpoints"));
    let made = ask.raw("application/json", asked).send().await.ok();
    for (field, wanted) in [
        ("timeoutMillis", json!(5_000)),
        ("connectTimeoutMillis", json!(2_000)),
        ("maxInFlight", json!(7)),
        ("rateLimitPerSecond", json!(9)),
    ] {
        assert_eq!(made[field], wanted, "{field}");
    }
    let retry =
        json!({"delaysMillis": [1_000, 2_000], "jitterPercent": 5, "retryOn": "anyFailure"});
    assert_eq!(made["retry"], retry);
    let rotations = format!(
        "/v1/keyrings/{}/rotations",
        made["keyringId"].as_str().unwrap()
    );
    let asked = r#"{"mode":"overlap","overlapSeconds":3600.0}"#;
    let ask = bench.ask("POST", &rotations).raw("application/json", asked);
    let opened = ask.send().await.ok();
    assert_eq!(opened["overlapSeconds"], 3_600, "{opened}");
    for (method, path, body, pointer) in [
        (
            "PATCH",
            &app,
            r#"{"rotationOverlapSeconds":1.5}"#,
            "/rotationOverlapSeconds",
        ),
        (
            "PATCH",
            &app,
            r#"{"rotationOverlapSeconds":-1.0}"#,
            "/rotationOverlapSeconds",
        ),
        (
            "POST",
            &rotations,
            r#"{"mode":"overlap","overlapSeconds":1e300}"#,
            "/overlapSeconds",
        ),
    ] {
        let ask = bench.ask(method, path).raw("application/json", body);
        let refused = ask.send().await;
        refused.problem(422, "invalid_field");
        assert_eq!(refused.pointer(), pointer, "{body}");
        assert!(refused.text.contains("a whole number"), "{}", refused.text);
    }
}

#[tokio::test]
async fn a_header_that_cannot_be_is_named_and_a_body_is_declared() {
    let bench = Bench::new().await;
    for (header, value) in [
        ("Hookturn-Reason", &b""[..]),
        ("Hookturn-Reason", b"caf\xe9"),
        ("Hookturn-Workspace", b"\xe9"),
    ] {
        let refused = bench
            .ask("GET", "/v1/apps")
            .header(header, value)
            .send()
            .await;
        let problem = refused.problem(400, "invalid_header");
        assert_eq!(problem["errors"][0]["header"], header, "{problem}");
    }
    let app = bench.app().await;
    let ask = bench.ask("PATCH", &app).json(&json!({}));
    let refused = ask.header("if-match", "3").send().await;
    let problem = refused.problem(400, "invalid_header");
    assert_eq!(problem["errors"][0]["header"], "If-Match");
    let body = json!({ "name": "a" });
    let ask = || bench.ask("POST", "/v1/apps").json(&body);
    for undeclared in [ask().undeclared(), ask().declared("text/plain")] {
        let refused = undeclared.send().await;
        refused.problem(415, "unsupported_media_type");
    }
}

#[tokio::test]
async fn a_workspace_is_found_by_id_and_by_name() {
    let bench = Bench::new().await;
    let all = bench.get("/v1/workspaces").await.ok();
    let default = all["data"][0].clone();
    let id = default["id"].as_str().unwrap();
    for called in [id, "default"] {
        let path = format!("/v1/workspaces/{called}");
        assert_eq!(bench.get(&path).await.ok(), default, "{called}");
    }
    let other = json!({ "name": "other", "reason": "new" });
    let operator = |method: &str, path: &str, body: &Value| {
        bench
            .with_key(&bench.operator, method, path)
            .json(body)
            .send()
    };
    operator("POST", "/v1/workspaces", &other).await.ok();
    for path in ["/v1/workspaces/nobody", "/v1/workspaces/other"] {
        // Another workspace's is none, whether it exists or not.
        bench.get(path).await.problem(404, "not_found");
    }
    let patch = json!({ "rotationOverlapSeconds": 60.0 });
    let path = "/v1/workspaces/other";
    let patched = operator("PATCH", path, &patch).await.ok();
    assert_eq!(patched["rotationOverlapSeconds"], 60);
    for name in ["..", ".", "..."] {
        let refused = operator("POST", "/v1/workspaces", &json!({ "name": name })).await;
        refused.problem(422, "invalid_field");
    }
}

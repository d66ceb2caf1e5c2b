//! Messages and deliveries, apps and endpoints.

use serde_json::{Value, json};

use crate::bench::Bench;

#[tokio::test]
async fn a_message_keeps_its_bytes_and_becomes_deliveries() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    let payload = "{ \"b\": 1.0, \"a\":\t[\"\\u00e9\", 1e300] }";
    let body = format!(r#"{{"eventType":"invoice.paid","payload": {payload} ,"eventId":"e-1"}}"#);
    let accepted = bench
        .ask("POST", &format!("{app}/messages"))
        .raw("application/json", body)
        .send()
        .await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let id = accepted.ok()["id"].as_str().unwrap().to_owned();
    let message = bench.get(&format!("{app}/messages/{id}")).await;
    assert!(
        message.text.contains(&format!("\"payload\":{payload}")),
        "{}",
        message.text
    );
    let deliveries = bench
        .get(&format!("{app}/deliveries?messageId={id}"))
        .await
        .ok();
    let delivery = &deliveries["data"][0];
    assert_eq!(delivery["endpointId"], endpoint["id"]);
    assert_eq!(
        (&delivery["status"], &delivery["eventType"]),
        (&json!("pending"), &json!("invoice.paid"))
    );
    let detail = bench
        .get(&format!(
            "/v1/deliveries/{}",
            delivery["id"].as_str().unwrap()
        ))
        .await
        .ok();
    assert_eq!(
        (&detail["attempts"], &detail["attemptCount"]),
        (&json!([]), &json!(0))
    );
    let types = bench.get("/v1/event-types").await.ok();
    assert_eq!(types["data"], json!([{"name": "invoice.paid"}]));
}

#[tokio::test]
async fn a_batch_is_accepted_whole_and_in_order() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let messages: Vec<_> = (0..1_000)
        .map(|n| json!({"eventType": "tick", "payload": {"n": n}}))
        .collect();
    let reply = bench
        .post(
            &format!("{app}/messages/batch"),
            json!({"messages": messages}),
        )
        .await;
    assert_eq!(reply.status, 202);
    let ids = reply.ok()["ids"].as_array().unwrap().clone();
    assert_eq!(ids.len(), 1_000);
    assert!(
        ids.windows(2)
            .all(|pair| pair[0].as_str() < pair[1].as_str())
    );
    let last = bench
        .get(&format!("{app}/messages/{}", ids[999].as_str().unwrap()))
        .await
        .ok();
    assert_eq!(last["payload"], json!({"n": 999}));
}

#[tokio::test]
async fn a_delivery_is_retried_and_an_endpoint_recovered() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    bench
        .post(
            &format!("{app}/messages"),
            json!({"eventType": "a", "payload": 1}),
        )
        .await
        .ok();
    let delivery = bench.get(&format!("{app}/deliveries")).await.ok()["data"][0].clone();
    let path = format!("/v1/deliveries/{}/retry", delivery["id"].as_str().unwrap());
    let retried = bench.ask("POST", &path).send().await;
    assert_eq!(retried.status, 202, "{}", retried.text);
    assert_eq!(retried.ok()["id"], delivery["id"]);
    let path = format!(
        "{app}/endpoints/{}/recover",
        endpoint["id"].as_str().unwrap()
    );
    let dry = json!({"since": "2026-01-01T00:00:00Z", "dryRun": true});
    let counted = bench.post(&path, dry).await.ok();
    assert_eq!(
        counted,
        json!({"count": 0, "hasMore": false, "dryRun": true})
    );
    for status in ["pending", "failed"] {
        let other = json!({"since": "2026-01-01T00:00:00Z", "status": status});
        let refused = bench.post(&path, other).await;
        assert_eq!(refused.pointer(), "/status");
        assert!(!refused.text.contains("pending"), "{}", refused.text);
    }
    let ahead = "9999-12-31T23:59:59Z";
    for (span, pointer) in [
        (json!({ "since": ahead }), "/since"),
        (json!({ "since": ahead, "until": ahead }), "/until"),
    ] {
        assert_eq!(bench.post(&path, span).await.pointer(), pointer);
    }
}

#[tokio::test]
async fn an_endpoint_is_changed_paused_tested_and_deleted() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let made = bench
        .post(
            &format!("{app}/endpoints"),
            json!({
                "url": "https://example.com/a", "description": "first", "preset": "hopae",
                "events": ["invoice.*"], "headers": {"x-tenant": "7"}, "rateLimitPerSecond": 5,
                "retry": {"delaysMillis": [1000], "jitterPercent": 10, "retryOn": "transientOnly"},
                "timeoutMillis": 5000, "connectTimeoutMillis": 2000, "maxInFlight": 4, "ordered": true
            }),
        )
        .await;
    let path = made.header("location").unwrap().to_owned();
    let made = made.ok();
    assert_eq!(
        path,
        format!("{app}/endpoints/{}", made["id"].as_str().unwrap())
    );
    let shown = bench.get(&path).await.ok();
    assert_eq!(
        (&shown["retry"]["retryOn"], &shown["ordered"]),
        (&json!("transientOnly"), &json!(true))
    );
    assert_eq!(shown["receiver"]["class"], "unknown");
    let patch = |body: Value| bench.ask("PATCH", &path).json(&body).send();
    let patched = bench
        .ask("PATCH", &path)
        .json(&json!({"state": "paused", "rateLimitPerSecond": null}))
        .send()
        .await
        .ok();
    assert_eq!(
        (&patched["state"], &patched["rateLimitPerSecond"]),
        (&json!("paused"), &Value::Null)
    );
    assert!(patched["stateSince"].is_string());
    assert_eq!(
        patch(json!({"state": "disabled"})).await.ok()["disabledReason"],
        "byOwner"
    );
    assert_eq!(patch(json!({"preset": "kore"})).await.pointer(), "/preset");
    let tested = bench.ask("POST", &format!("{path}/test")).send().await.ok();
    assert_eq!(
        (
            &tested["accepted"],
            &tested["attempt"]["exchanges"][0]["response"]["status"]
        ),
        (&json!(true), &json!(204))
    );
    assert_eq!(tested["connected"], true);
    assert!(tested["summary"].as_str().unwrap().contains("accepted"));
    assert_eq!(bench.ask("DELETE", &path).send().await.status, 204);
    bench.get(&path).await.problem(404, "not_found");
    let keyring = format!("/v1/keyrings/{}", made["keyringId"].as_str().unwrap());
    bench.get(&keyring).await.problem(404, "not_found");
    assert_eq!(bench.ask("DELETE", &app).send().await.status, 204);
    bench.get(&app).await.problem(404, "not_found");
}

#[tokio::test]
async fn callbacks_by_get_and_as_a_form_are_for_the_preset_kore_only() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let make = |preset: &str, field: &str, value: &str| {
        let body = json!({"url": "https://example.com/a", "preset": preset, field: value});
        bench
            .ask("POST", &format!("{app}/endpoints"))
            .json(&body)
            .send()
    };
    for preset in ["standard", "hopae", "kore-stream", "github"] {
        for (field, value) in [("method", "GET"), ("bodyForm", "form")] {
            let refused = make(preset, field, value).await;
            refused.problem(422, "invalid_field");
            assert_eq!(refused.pointer(), format!("/{field}"), "{preset}");
        }
    }
    for (field, value) in [("method", "GET"), ("bodyForm", "form")] {
        assert_eq!(make("kore", field, value).await.ok()[field], value);
    }
    let made = make("kore", "bodyForm", "json").await;
    let path = made.header("location").unwrap().to_owned();
    assert_eq!(made.ok()["method"], "POST");
    let change = json!({"method": "GET", "bodyForm": "form"});
    let patched = bench.ask("PATCH", &path).json(&change).send().await;
    assert_eq!(patched.ok()["bodyForm"], "form");
    let unknown = bench.ask("PATCH", &path).json(&json!({"bodyForm": "xml"}));
    assert_eq!(unknown.send().await.pointer(), "/bodyForm");
    assert_eq!(bench.get(&path).await.ok()["method"], "GET");
    let made = make("standard", "method", "POST").await;
    let path = made.header("location").unwrap().to_owned();
    let patched = bench.ask("PATCH", &path).json(&change).send().await;
    assert_eq!(patched.pointer(), "/method");
}

#[tokio::test]
async fn a_workspace_is_made_by_its_operator() {
    let bench = Bench::new().await;
    let ask = || {
        bench
            .with_key(&bench.operator, "POST", "/v1/workspaces")
            .json(&json!({"name": "acme"}))
            .send()
    };
    let made = ask().await;
    assert_eq!(made.status, 201);
    let path = made.header("location").unwrap().to_owned();
    let shown = bench.with_key(&bench.operator, "GET", &path).send().await;
    assert_eq!(
        (shown.header("etag"), &shown.json()["name"]),
        (Some("\"1\""), &json!("acme"))
    );
    ask().await.problem(409, "already_exists");
    let renames = json!({"headerNames": {"hopae": {"signature": "x-acme-signature"}}});
    let patched = bench
        .with_key(&bench.operator, "PATCH", &path)
        .json(&renames)
        .send()
        .await
        .ok();
    assert_eq!(patched["headerNames"], renames["headerNames"]);
}

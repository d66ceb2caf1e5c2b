//! `null` in a PATCH (RFC 7396): it puts a field back to its default, or is refused where there is none. It is never
//! passed over, and the document says which of the two it is.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::bench::Bench;
use crate::bench::document::DOCUMENT;

/// Whether the document allows `null` for a field.
fn may_be_null(schema: &Value) -> bool {
    let kinds = schema["type"].as_array();
    let choices = ["oneOf", "anyOf"].map(|word| schema[word].as_array());
    kinds.is_some_and(|kinds| kinds.contains(&json!("null")))
        || choices
            .into_iter()
            .flatten()
            .flatten()
            .any(|choice| choice["type"] == "null")
}

/// Sends `null` for each field that the body may have, and compares what the resource shows of it then: `shown` has those
/// with a default. The others are refused.
async fn check(bench: &Bench, path: &str, body: &str, shown: Value) {
    let schema = &DOCUMENT["components"]["schemas"][body]["properties"];
    let mut shown: BTreeMap<String, Value> = serde_json::from_value(shown).unwrap();
    for (name, schema) in schema.as_object().unwrap() {
        if name == "reason" {
            continue;
        }
        let before = bench.get(path).await.ok();
        let asked = json!({ name.as_str(): null });
        let patch = bench.with_key(&bench.operator, "PATCH", path).json(&asked);
        let reply = patch.send().await;
        let Some(wanted) = shown.remove(name) else {
            reply.problem(422, "invalid_field");
            assert_eq!(reply.pointer(), format!("/{name}"), "{}", reply.text);
            assert!(reply.text.contains("null"), "{}", reply.text);
            let is_choice = matches!(name.as_str(), "everyDays" | "calendar");
            assert_eq!(may_be_null(schema), is_choice, "{body} {name}");
            continue;
        };
        assert!(may_be_null(schema), "{body} {name}");
        let now = reply.ok();
        assert_ne!(before[name], wanted, "{body} {name}: it was not so before");
        assert_eq!(now[name], wanted, "{body} {name}");
    }
    assert!(shown.is_empty(), "{body} has no {shown:?}");
}

#[tokio::test]
async fn null_puts_every_field_of_an_endpoint_back_or_is_refused() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let made = json!({
        "url": "https://example.com/hooks", "preset": "kore", "method": "GET", "bodyForm": "form",
        "description": "mine", "events": ["order.*"], "headers": { "x-a": "1" },
        "retry": { "delaysMillis": [1_000], "jitterPercent": 3 }, "timeoutMillis": 20_000,
        "connectTimeoutMillis": 2_000, "maxInFlight": 3, "rateLimitPerSecond": 5, "ordered": true,
        "probe": { "mode": "off" },
    });
    let made = bench.post(&format!("{app}/endpoints"), made).await.ok();
    let path = format!("{app}/endpoints/{}", made["id"].as_str().unwrap());
    let plain = json!({ "url": "https://example.com/hooks", "preset": "kore" });
    let plain = bench.post(&format!("{app}/endpoints"), plain).await.ok();
    let mut defaults = json!({ "rateLimitPerSecond": null });
    for name in [
        "description",
        "method",
        "bodyForm",
        "events",
        "headers",
        "retry",
        "timeoutMillis",
        "connectTimeoutMillis",
        "maxInFlight",
        "ordered",
        "probe",
    ] {
        defaults[name] = plain[name].clone();
    }
    check(&bench, &path, "PatchEndpoint", defaults).await;
    // The default of the one is within the other.
    let both = json!({ "timeoutMillis": 3_000, "connectTimeoutMillis": null });
    let both = bench.ask("PATCH", &path).json(&both).send().await.ok();
    assert_eq!(both["connectTimeoutMillis"], 3_000);
}

#[tokio::test]
async fn null_puts_every_field_of_an_app_and_a_workspace_back_or_is_refused() {
    let bench = Bench::new().await;
    let made = json!({ "name": "shop", "labels": { "team": "a" }, "rotationOverlapSeconds": 60 });
    let app = bench.post("/v1/apps", made).await.ok();
    let path = format!("/v1/apps/{}", app["clientId"].as_str().unwrap());
    let defaults = json!({ "labels": {}, "rotationOverlapSeconds": null });
    check(&bench, &path, "PatchApp", defaults).await;

    let set = json!({
        "revealSecrets": "never", "headerNames": { "standard": { "id": "x-id" } },
        "rotationOverlapSeconds": 60, "operationalApp": app["clientId"],
    });
    let path = "/v1/workspaces/default";
    let patch = bench.with_key(&bench.operator, "PATCH", path).json(&set);
    patch.send().await.ok();
    let defaults = json!({
        "revealSecrets": "allowed", "headerNames": {}, "rotationOverlapSeconds": null,
        "operationalApp": null,
    });
    check(&bench, path, "PatchWorkspace", defaults).await;
}

#[tokio::test]
async fn null_puts_every_field_of_a_schedule_back_or_is_refused() {
    let bench = Bench::new().await;
    let made = json!({
        "name": "quarterly", "everyDays": 90, "timeZone": "Europe/Berlin", "jitterSeconds": 60,
        "weeklyBlackouts": [{ "fromDay": "friday", "fromTime": "12:00", "untilDay": "monday", "untilTime": "08:00" }],
        "dateBlackouts": [{ "from": "2027-12-20", "until": "2028-01-02" }],
        "policy": { "holdDownMillis": 60_000 }, "paused": true,
    });
    let made = bench.post("/v1/schedules", made).await.ok();
    let path = format!("/v1/schedules/{}", made["id"].as_str().unwrap());
    let plain = json!({ "name": "plain", "everyDays": 90 });
    let plain = bench.post("/v1/schedules", plain).await.ok();
    let defaults = json!({
        "timeZone": "UTC", "jitterSeconds": 0, "weeklyBlackouts": [], "dateBlackouts": [],
        "policy": plain["policy"], "paused": false,
    });
    check(&bench, &path, "PatchSchedule", defaults).await;
    // Beside the other one it says what RFC 7396 has it say.
    let calendar = json!({ "dayOfMonth": 1, "time": "04:00" });
    let moved = json!({ "everyDays": null, "calendar": calendar });
    let moved = bench.ask("PATCH", &path).json(&moved).send().await.ok();
    assert!(moved["everyDays"].is_null(), "{moved}");
    assert_eq!(moved["calendar"]["dayOfMonth"], 1);
    let back = json!({ "everyDays": 30, "calendar": null });
    let back = bench.ask("PATCH", &path).json(&back).send().await.ok();
    assert_eq!(
        (&back["everyDays"], &back["calendar"]),
        (&json!(30), &Value::Null)
    );
}

//! The table of calls: what each answers when it goes well.

use serde_json::{Value, json};

use crate::desk::{APPS, Desk, call};

/// What a fresh app answers as its webhook configuration.
fn defaults() -> Value {
    json!({ "enabled": false, "retryAttempts": 3, "timeoutSeconds": 10, "events": [] })
}

#[tokio::test]
async fn an_app_is_made_with_its_webhook_configuration() {
    let desk = Desk::new().await;
    let made = call(&desk.bench, "POST", APPS, Some(json!({ "name": "bank" }))).await;
    assert_eq!(made.status, 201);
    let app = made.json();
    let id = app["clientId"].as_str().unwrap();
    assert!(
        id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "{id}"
    );
    assert_eq!(
        made.header("location"),
        Some(format!("{APPS}/{id}").as_str())
    );
    assert_eq!(app["createdAt"], app["updatedAt"]);
    assert!(app["createdAt"].as_str().unwrap().ends_with('Z'));
    let whole = json!({
        "name": "bank", "clientId": id, "webhookConfig": defaults(),
        "createdAt": app["createdAt"], "updatedAt": app["updatedAt"],
    });
    assert_eq!(app, whole);
    assert_eq!(desk.get(&format!("{APPS}/{id}")).await.ok(), whole);
}

#[tokio::test]
async fn the_configuration_shows_the_secret_that_the_app_has_from_its_creation() {
    let desk = Desk::new().await;
    let mut config = desk.get(&desk.config_path()).await.ok();
    let secret = config["secret"].take();
    let hex = secret.as_str().unwrap().strip_prefix("whsec_").unwrap();
    assert_eq!(hex.len(), 64);
    assert!(
        hex.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
        "{hex}"
    );
    let mut wanted = defaults();
    wanted["secret"] = Value::Null;
    assert_eq!(config, wanted);
}

/// A patch and the members of the configuration that it changes, applied one after the other.
fn merges() -> Vec<(Value, Value)> {
    let url = "https://receiver.example/hooks";
    vec![
        (json!({}), json!({})),
        (json!({ "retryAttempts": 5 }), json!({ "retryAttempts": 5 })),
        (json!({ "url": url }), json!({ "url": url })),
        (json!({ "enabled": true }), json!({ "enabled": true })),
        (
            json!({ "enabled": true, "timeoutSeconds": 1 }),
            json!({ "timeoutSeconds": 1 }),
        ),
        (
            json!({ "timeoutSeconds": 60 }),
            json!({ "timeoutSeconds": 60 }),
        ),
        (
            json!({ "events": ["verification.completed", "kyc.*"] }),
            json!({ "events": ["verification.completed", "kyc.*"] }),
        ),
        (json!({ "retryAttempts": 0 }), json!({ "retryAttempts": 0 })),
        (
            json!({ "retryAttempts": 30, "url": null, "enabled": null }),
            json!({ "retryAttempts": 30 }),
        ),
        (json!({ "events": [] }), json!({ "events": [] })),
        (json!({ "enabled": false }), json!({ "enabled": false })),
    ]
}

#[tokio::test]
async fn a_patch_is_merged_under_every_spelling_and_as_part_of_the_app() {
    let desk = Desk::new().await;
    for form in ["webhook-config", "webhook_config", "app"] {
        let made = call(&desk.bench, "POST", APPS, Some(json!({ "name": form }))).await;
        let app = format!("{APPS}/{}", made.ok()["clientId"].as_str().unwrap());
        let mut wanted = defaults();
        for (patch, changed) in merges() {
            wanted
                .as_object_mut()
                .unwrap()
                .extend(changed.as_object().unwrap().clone());
            let answered = if form == "app" {
                let patched = desk.patch(&app, json!({ "webhookConfig": patch })).await;
                patched.ok()["webhookConfig"].clone()
            } else {
                let patched = desk.patch(&format!("{app}/{form}"), patch).await;
                let mut config = patched.ok();
                assert!(config.as_object_mut().unwrap().remove("secret").is_some());
                config
            };
            assert_eq!(answered, wanted, "{form}");
            assert_eq!(desk.get(&app).await.ok()["webhookConfig"], wanted, "{form}");
        }
    }
}

#[tokio::test]
async fn an_app_is_renamed_and_deleted() {
    let desk = Desk::new().await;
    let path = desk.app_path();
    let body = json!({ "name": "kiosk", "webhookConfig": { "timeoutSeconds": 7 } });
    let patched = desk.patch(&path, body).await.ok();
    assert_eq!(patched["name"], "kiosk");
    assert_eq!(patched["webhookConfig"]["timeoutSeconds"], 7);
    assert_eq!(desk.get(&path).await.ok(), patched);
    let renamed = desk.patch(&path, json!({ "name": "till" })).await.ok();
    assert_eq!(renamed["webhookConfig"], patched["webhookConfig"]);
    assert_eq!(desk.patch(&path, json!({})).await.ok(), renamed);
    let deleted = call(&desk.bench, "DELETE", &path, None).await;
    assert_eq!(deleted.status, 200);
    assert_eq!(deleted.json(), renamed);
    assert_eq!(desk.get(&path).await.status, 404);
    assert_eq!(desk.get(APPS).await.ok()["total"], 0);
}

#[tokio::test]
async fn apps_are_listed_by_limit_and_offset() {
    let desk = Desk::new().await;
    for number in 1..25 {
        let body = json!({ "name": format!("app {number}") });
        call(&desk.bench, "POST", APPS, Some(body)).await.ok();
    }
    let all = desk.get(&format!("{APPS}?limit=100")).await.ok();
    let all = all["data"].as_array().unwrap().clone();
    assert_eq!(all.len(), 25);
    // Query, limit, offset, items.
    for (query, limit, offset, items) in [
        ("", 20, 0, 20),
        ("?offset=0", 20, 0, 20),
        ("?limit=1", 1, 0, 1),
        ("?limit=100&offset=24", 100, 24, 1),
        ("?offset=5&limit=10", 10, 5, 10),
        ("?offset=25", 20, 25, 0),
        ("?offset=2147483647", 20, 2_147_483_647, 0),
    ] {
        let page = desk.get(&format!("{APPS}{query}")).await.ok();
        let data: Vec<_> = all.iter().skip(offset).take(items).collect();
        let wanted = json!({ "data": data, "total": 25, "limit": limit, "offset": offset });
        assert_eq!(page, wanted, "{query}");
    }
}

#[tokio::test]
async fn an_app_of_the_native_api_reads_as_the_defaults_until_it_needs_more() {
    let desk = Desk::new().await;
    for first in ["patch", "patch app", "rotate"] {
        let native = desk.bench.app().await;
        let app = native.replace("/v1/", "/connect/v1/");
        let config = format!("{app}/webhook-config");
        assert_eq!(desk.get(&config).await.ok(), defaults());
        assert_eq!(desk.get(&app).await.ok()["webhookConfig"], defaults());
        let renamed = desk.patch(&app, json!({ "name": "same app" })).await.ok();
        assert_eq!(renamed["webhookConfig"], defaults());
        let endpoints = format!("{native}/endpoints");
        assert_eq!(desk.bench.get(&endpoints).await.ok()["data"], json!([]));
        let secret = match first {
            "patch" => {
                let patched = desk
                    .patch(&config, json!({ "retryAttempts": 1 }))
                    .await
                    .ok();
                assert_eq!(patched["retryAttempts"], 1);
                patched["secret"].clone()
            }
            "patch app" => {
                let body = json!({ "name": "n", "webhookConfig": { "retryAttempts": 1 } });
                let patched = desk.patch(&app, body).await.ok();
                assert_eq!(patched["name"], "n");
                assert_eq!(patched["webhookConfig"]["retryAttempts"], 1);
                desk.get(&config).await.ok()["secret"].clone()
            }
            _ => {
                let path = format!("{config}/rotate-secret");
                call(&desk.bench, "POST", &path, None).await.ok()["secret"].clone()
            }
        };
        assert!(secret.as_str().unwrap().starts_with("whsec_"), "{first}");
        assert_eq!(desk.get(&config).await.ok()["secret"], secret, "{first}");
        let endpoint = desk.bench.get(&endpoints).await.ok()["data"][0].clone();
        let shown = desk.bench.get(&native).await.ok();
        assert_eq!(shown["primaryEndpointId"], endpoint["id"], "{first}");
    }
}

#[tokio::test]
async fn the_native_api_shows_the_primary_endpoint_as_the_endpoint_it_is() {
    let desk = Desk::new().await;
    let native = format!("/v1/apps/{}", desk.app);
    let patch = json!({
        "url": "https://receiver.example/a", "enabled": true, "retryAttempts": 4,
        "timeoutSeconds": 3, "events": ["kyc.*"],
    });
    desk.patch(&desk.config_path(), patch).await.ok();
    let id = desk.bench.get(&native).await.ok()["primaryEndpointId"].clone();
    let path = format!("{native}/endpoints/{}", id.as_str().unwrap());
    let shown = desk.bench.get(&path).await.ok();
    let retry = json!({ "delaysMillis": [1_000, 5_000, 30_000, 30_000], "jitterPercent": 0, "retryOn": "anyFailure" });
    for (field, wanted) in [
        ("url", json!("https://receiver.example/a")),
        ("preset", json!("hopae")),
        ("state", json!("enabled")),
        ("retry", retry),
        ("timeoutMillis", json!(3_000)),
        ("connectTimeoutMillis", json!(3_000)),
        ("events", json!(["kyc.*"])),
    ] {
        assert_eq!(shown[field], wanted, "{field}");
    }
    // And the other way round: what the native API changes, the dialect shows.
    let paused = json!({ "state": "paused", "timeoutMillis": 2_500 });
    desk.bench
        .ask("PATCH", &path)
        .json(&paused)
        .send()
        .await
        .ok();
    let config = desk.get(&desk.config_path()).await.ok();
    assert_eq!(
        (&config["enabled"], &config["timeoutSeconds"]),
        (&json!(false), &json!(3))
    );
    // What was read can be sent back: it changes nothing that is shown nowhere.
    let delays = json!({ "retry": { "delaysMillis": [7_000], "jitterPercent": 5 } });
    let own = desk.bench.ask("PATCH", &path).json(&delays).send().await;
    let own = own.ok();
    let mut config = desk.get(&desk.config_path()).await.ok();
    assert_eq!(config["retryAttempts"], 1);
    config.as_object_mut().unwrap().remove("secret");
    desk.patch(&desk.config_path(), config).await.ok();
    let shown = desk.bench.get(&path).await.ok();
    for field in ["state", "retry", "timeoutMillis", "connectTimeoutMillis"] {
        assert_eq!(shown[field], own[field], "{field}");
    }
    // Saying what is so already leaves it paused.
    desk.patch(
        &desk.config_path(),
        json!({ "enabled": false, "timeoutSeconds": 9 }),
    )
    .await
    .ok();
    let shown = desk.bench.get(&path).await.ok();
    assert_eq!(
        (&shown["state"], &shown["connectTimeoutMillis"]),
        (&json!("paused"), &json!(5_000))
    );
    // A deleted one counts as none, and the next patch makes another.
    let deleted = desk.bench.ask("DELETE", &path).send().await;
    assert_eq!(deleted.status, 204);
    assert_eq!(desk.get(&desk.config_path()).await.ok(), defaults());
    assert!(desk.bench.get(&native).await.ok()["primaryEndpointId"].is_null());
    desk.patch(&desk.config_path(), json!({ "retryAttempts": 2 }))
        .await
        .ok();
    let another = desk.bench.get(&native).await.ok()["primaryEndpointId"].clone();
    assert!(another.is_string() && another != id);
}

#[tokio::test]
async fn the_document_is_served_without_a_key() {
    let desk = Desk::new().await;
    let reply = desk
        .bench
        .anonymous("GET", "/connect/v1/openapi.json")
        .send()
        .await;
    assert_eq!(reply.text, hookturn::api::hopae_openapi());
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

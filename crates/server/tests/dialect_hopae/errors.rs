//! The table of errors: envelope, codes and `details`, whatever goes wrong below `/connect/v1`.

use hookturn::service::Settings;
use hookturn::service::pace::Pace;
use serde_json::{Value, json};

use crate::bench::{Bench, HandClock};
use crate::desk::{APPS, Desk, call, checked, refused};

const MISSING: &str = "VALIDATION_MISSING_PARAMETER";
const INVALID: &str = "VALIDATION_INVALID_PARAMETER";

/// Method, path (`APP` is an app), body, code, parameter, value. All are 400.
const INPUT: &[(&str, &str, &str, &str, &str, &str)] = &[
    ("POST", "", "", MISSING, "body", "null"),
    ("POST", "", " \n", MISSING, "body", "null"),
    ("PATCH", "/APP", "", MISSING, "body", "null"),
    ("PATCH", "/APP/webhook-config", "", MISSING, "body", "null"),
    ("POST", "", "{", INVALID, "body", "null"),
    ("POST", "", "[]", INVALID, "body", "null"),
    ("POST", "", "{}", MISSING, "name", "null"),
    ("POST", "", r#"{"name":" "}"#, INVALID, "name", "null"),
    ("POST", "", r#"{"name":7}"#, INVALID, "name", "7"),
    (
        "POST",
        "",
        r#"{"name":"a","colour":true}"#,
        INVALID,
        "colour",
        "true",
    ),
    (
        "POST",
        "",
        r#"{"name":"a","name":"b"}"#,
        INVALID,
        "name",
        "null",
    ),
    ("GET", "?limit=0", "", INVALID, "limit", r#""0""#),
    ("GET", "?limit=101", "", INVALID, "limit", r#""101""#),
    ("GET", "?limit=ten", "", INVALID, "limit", r#""ten""#),
    ("GET", "?limit=", "", INVALID, "limit", r#""""#),
    ("GET", "?offset=-1", "", INVALID, "offset", r#""-1""#),
    (
        "GET",
        "?offset=99999999999999999999",
        "",
        INVALID,
        "offset",
        r#""99999999999999999999""#,
    ),
    ("GET", "?limit=whsec_a1", "", INVALID, "limit", "null"),
    ("GET", "?limit=1&limit=2", "", INVALID, "limit", "null"),
    ("GET", "?page=2", "", INVALID, "page", "null"),
    ("PATCH", "/APP", r#"{"name":""}"#, INVALID, "name", "null"),
    (
        "PATCH",
        "/APP",
        r#"{"clientId":"a1B2c3D4"}"#,
        INVALID,
        "clientId",
        "null",
    ),
    (
        "PATCH",
        "/APP",
        r#"{"webhookConfig":{"retryAttempts":31}}"#,
        INVALID,
        "webhookConfig.retryAttempts",
        "31",
    ),
    (
        "PATCH",
        "/APP",
        r#"{"webhookConfig":[null,false]}"#,
        INVALID,
        "webhookConfig",
        "null",
    ),
    ("PATCH", "/APP", r#"["bank"]"#, INVALID, "body", "null"),
    (
        "PATCH",
        "/APP",
        r#"{"webhookConfig":{"enabled":true}}"#,
        MISSING,
        "webhookConfig.url",
        "null",
    ),
    (
        "PATCH",
        "/APP",
        r#"{"webhookConfig":{"secret":null}}"#,
        INVALID,
        "webhookConfig.secret",
        "null",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        "null",
        INVALID,
        "body",
        "null",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"enabled":true}"#,
        MISSING,
        "url",
        "null",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"enabled":"yes"}"#,
        INVALID,
        "enabled",
        "null",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"url":""}"#,
        INVALID,
        "url",
        "null",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"url":"ftp://a.example"}"#,
        INVALID,
        "url",
        "null",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"url":"https://internal.example/"}"#,
        INVALID,
        "url",
        "null",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"retryAttempts":31}"#,
        INVALID,
        "retryAttempts",
        "31",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"retryAttempts":-1}"#,
        INVALID,
        "retryAttempts",
        "-1",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"retryAttempts":1.5}"#,
        INVALID,
        "retryAttempts",
        "1.5",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"timeoutSeconds":0}"#,
        INVALID,
        "timeoutSeconds",
        "0",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"timeoutSeconds":61}"#,
        INVALID,
        "timeoutSeconds",
        "61",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"events":["a","b c"]}"#,
        INVALID,
        "events.1",
        "null",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"events":"a"}"#,
        INVALID,
        "events",
        "null",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"secret":"whsec_a1"}"#,
        INVALID,
        "secret",
        "null",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"secret":7}"#,
        INVALID,
        "secret",
        "7",
    ),
    (
        "PATCH",
        "/APP/webhook-config",
        r#"{"colour":1}"#,
        INVALID,
        "colour",
        "1",
    ),
    (
        "POST",
        "/APP/webhook-config/rotate-secret",
        r#"{"secret":"whsec_a1"}"#,
        INVALID,
        "secret",
        "null",
    ),
    (
        "POST",
        "/APP/webhook-config/rotate-secret",
        "[]",
        INVALID,
        "body",
        "null",
    ),
    (
        "POST",
        "/APP/webhook-config/rotate-secret",
        "null",
        INVALID,
        "body",
        "null",
    ),
    (
        "POST",
        "/APP/webhook-config/rotate-secret",
        "{",
        INVALID,
        "body",
        "null",
    ),
];

#[tokio::test]
async fn input_that_cannot_be_is_named_and_changes_nothing() {
    let desk = Desk::new().await;
    let before = desk.get(&desk.config_path()).await.ok();
    for (method, path, body, code, parameter, value) in INPUT {
        let path = format!("{APPS}{}", path.replace("APP", &desk.app));
        let mut spellings = vec![path.clone()];
        if path.contains("webhook-config") {
            spellings.push(path.replace("webhook-config", "webhook_config"));
        }
        for path in spellings {
            let ask = desk.bench.ask(method, &path);
            let reply = ask.raw("application/json", *body).send().await;
            let reply = checked(method, &path, reply);
            refused(&reply, 400, code, Some(parameter));
            let wanted: Value = serde_json::from_str(value).unwrap();
            assert_eq!(
                reply.json()["error"]["details"]["value"],
                wanted,
                "{}",
                reply.text
            );
            assert!(!reply.text.contains("whsec_a1"), "{}", reply.text);
            // What is never taken is not named among what is.
            assert!(!reply.text.contains("`secret`"), "{}", reply.text);
        }
    }
    assert_eq!(desk.get(&desk.config_path()).await.ok(), before);
    assert_eq!(desk.get(APPS).await.ok()["total"], 1);
}

/// Header, value, and on which calls it is refused: on all, or on those that change something.
const HEADERS: &[(&str, &[u8], &[&str])] = &[
    ("Hookturn-Reason", b"", &["GET", "POST", "PATCH", "DELETE"]),
    (
        "Hookturn-Reason",
        b"caf\xe9",
        &["GET", "POST", "PATCH", "DELETE"],
    ),
    (
        "Hookturn-Reason",
        &[b'x'; 257],
        &["GET", "POST", "PATCH", "DELETE"],
    ),
    (
        "Hookturn-Workspace",
        b"\xe9",
        &["GET", "POST", "PATCH", "DELETE"],
    ),
    ("Idempotency-Key", b"", &["POST", "PATCH", "DELETE"]),
    (
        "Idempotency-Key",
        &[b'x'; 256],
        &["POST", "PATCH", "DELETE"],
    ),
];

#[tokio::test]
async fn a_header_that_cannot_be_is_named_and_nothing_is_changed() {
    let desk = Desk::new().await;
    let calls = [
        ("GET", "/webhook-config", ""),
        ("POST", "/webhook-config/rotate-secret", ""),
        ("PATCH", "/webhook-config", r#"{"retryAttempts":1}"#),
        ("PATCH", "", r#"{"name":"x"}"#),
        ("DELETE", "", ""),
    ];
    let before = desk.get(&desk.config_path()).await.ok();
    for (header, value, methods) in HEADERS {
        for (method, below, body) in calls {
            if !methods.contains(&method) {
                continue;
            }
            let path = format!("{}{below}", desk.app_path());
            let ask = desk.bench.ask(method, &path).header(header, value);
            let reply = ask.raw("application/json", body).send().await;
            let reply = checked(method, &path, reply);
            refused(&reply, 400, INVALID, Some(header));
            let message = reply.json()["error"]["message"].to_string();
            assert!(message.contains(header), "{message}");
        }
    }
    assert_eq!(desk.get(&desk.config_path()).await.ok(), before);
    // One that can be is no hindrance where nothing is kept under it.
    let ask = desk.bench.ask("PATCH", &desk.config_path());
    let ask = ask.header("idempotency-key", "k".repeat(255));
    let patched = ask.json(&json!({ "retryAttempts": 1 })).send().await.ok();
    assert_eq!(patched["retryAttempts"], 1);
}

/// JSON has one kind of number: `5.0` is the whole number five.
#[tokio::test]
async fn a_whole_number_is_one_however_it_is_written() {
    let desk = Desk::new().await;
    for (body, attempts, seconds) in [
        (r#"{"retryAttempts":5.0,"timeoutSeconds":7e0}"#, 5, 7),
        (r#"{"retryAttempts":0.0,"timeoutSeconds":60.0}"#, 0, 60),
    ] {
        let ask = desk.bench.ask("PATCH", &desk.config_path());
        let config = ask.raw("application/json", body).send().await.ok();
        assert_eq!(config["retryAttempts"], attempts, "{body}");
        assert_eq!(config["timeoutSeconds"], seconds, "{body}");
    }
}

#[tokio::test]
async fn a_url_that_is_set_stays_when_enabling_and_is_needed_for_it() {
    let desk = Desk::new().await;
    let path = desk.config_path();
    desk.patch(&path, json!({ "url": "https://receiver.example/" }))
        .await
        .ok();
    assert_eq!(
        desk.patch(&path, json!({ "enabled": true })).await.ok()["enabled"],
        true
    );
}

/// Method, path, status, code.
const PLACES: &[(&str, &str, u16, &str)] = &[
    ("GET", "/connect/v1", 404, "RESOURCE_NOT_FOUND"),
    ("GET", "/connect/v1/", 404, "RESOURCE_NOT_FOUND"),
    ("GET", "/connect/v1/nowhere", 404, "RESOURCE_NOT_FOUND"),
    (
        "GET",
        "/connect/v1/apps/AAAAAAAA",
        404,
        "RESOURCE_NOT_FOUND",
    ),
    (
        "GET",
        "/connect/v1/apps/not-an-id",
        404,
        "RESOURCE_NOT_FOUND",
    ),
    ("GET", "/connect/v1/apps/%ff", 404, "RESOURCE_NOT_FOUND"),
    (
        "DELETE",
        "/connect/v1/apps/AAAAAAAA",
        404,
        "RESOURCE_NOT_FOUND",
    ),
    (
        "GET",
        "/connect/v1/apps/AAAAAAAA/webhook-config",
        404,
        "RESOURCE_NOT_FOUND",
    ),
    (
        "GET",
        "/connect/v1/apps/AAAAAAAA/webhookconfig",
        404,
        "RESOURCE_NOT_FOUND",
    ),
    (
        "POST",
        "/connect/v1/apps/AAAAAAAA/webhook_config/rotate-secret",
        404,
        "RESOURCE_NOT_FOUND",
    ),
    (
        "PUT",
        "/connect/v1/apps",
        405,
        "RESOURCE_METHOD_NOT_ALLOWED",
    ),
    (
        "POST",
        "/connect/v1/apps/AAAAAAAA",
        405,
        "RESOURCE_METHOD_NOT_ALLOWED",
    ),
    (
        "GET",
        "/connect/v1/apps/AAAAAAAA/webhook-config/rotate-secret",
        405,
        "RESOURCE_METHOD_NOT_ALLOWED",
    ),
    (
        "DELETE",
        "/connect/v1/apps/AAAAAAAA/webhook_config",
        405,
        "RESOURCE_METHOD_NOT_ALLOWED",
    ),
];

#[tokio::test]
async fn what_is_not_there_says_so_in_the_dialect() {
    let desk = Desk::new().await;
    for (method, path, status, code) in PLACES {
        let reply = call(&desk.bench, method, path, None).await;
        refused(&reply, *status, code, None);
        assert_eq!(
            reply.header("allow").is_some(),
            *status == 405,
            "{method} {path}"
        );
    }
}

/// Method, path below the app, body, the scope it needs.
const SCOPES: &[(&str, &str, &str, &str)] = &[
    ("GET", "", "", "read"),
    ("GET", "/webhook-config", "", "read"),
    ("GET", "/webhook_config", "", "read"),
    ("PATCH", "", "{}", "manage"),
    ("PATCH", "/webhook-config", "{}", "manage"),
    ("PATCH", "/webhook_config", "{}", "manage"),
    ("POST", "/webhook-config/rotate-secret", "", "secrets"),
    ("POST", "/webhook_config/rotate-secret", "", "secrets"),
    ("DELETE", "", "", "manage"),
];

#[tokio::test]
async fn every_call_needs_a_key_its_scope_and_its_workspace() {
    let desk = Desk::new().await;
    let bench = &desk.bench;
    let other = json!({ "name": "other" });
    bench
        .with_key(&bench.operator, "POST", "/v1/workspaces")
        .json(&other)
        .send()
        .await
        .ok();
    let all = ["publish", "manage", "secrets", "read"];
    let stranger = bench.key(&all, "other").await;
    for (method, below, body, scope) in SCOPES {
        let path = format!("{}{below}", desk.app_path());
        for key in [None, Some("sk_workspace_test_wrong")] {
            let ask = match key {
                Some(key) => bench.with_key(key, method, &path),
                None => bench.anonymous(method, &path),
            };
            let reply = checked(method, &path, ask.send().await);
            refused(&reply, 401, "AUTH_INVALID_CREDENTIALS", None);
            assert!(reply.header("www-authenticate").is_some());
        }
        let foreign = bench.with_key(&stranger, method, &path);
        let reply = foreign.raw("application/json", *body).send().await;
        refused(
            &checked(method, &path, reply),
            404,
            "RESOURCE_NOT_FOUND",
            None,
        );
        let lacking: Vec<_> = all.into_iter().filter(|known| known != scope).collect();
        let lacking = bench.key(&lacking, "default").await;
        let reply = bench.with_key(&lacking, method, &path).send().await;
        let reply = checked(method, &path, reply);
        refused(&reply, 403, "AUTH_FORBIDDEN", None);
        assert_eq!(reply.json()["error"]["details"]["needsScope"], *scope);
        let enough = bench.key(&[scope], "default").await;
        let ask = bench.with_key(&enough, method, &path);
        let reply = ask.raw("application/json", *body).send().await;
        assert_eq!(checked(method, &path, reply).status, 200, "{method} {path}");
    }
    for (method, scope) in [("GET", "read"), ("POST", "manage")] {
        let enough = bench.key(&[scope], "default").await;
        let ask = bench
            .with_key(&enough, method, APPS)
            .json(&json!({ "name": "a" }));
        assert!(checked(method, APPS, ask.send().await).status.is_success());
    }
    let log = bench.get("/v1/audit?limit=200").await.ok();
    let noted = |cause: &str| {
        let entries = log["data"].as_array().unwrap().iter();
        let denied = entries.filter(|entry| entry["action"] == "access.denied");
        denied
            .filter(|entry| entry["detail"]["cause"] == cause)
            .count()
    };
    for cause in ["no key", "unknown key", "not allowed"] {
        assert_eq!(noted(cause), SCOPES.len(), "{cause}");
    }
}

#[tokio::test]
async fn a_body_may_be_declared_as_anything_and_may_not_be_too_large() {
    let desk = Desk::new().await;
    for declared in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/json",
    ] {
        let ask = desk
            .bench
            .ask("POST", &desk.rotate_path())
            .raw(declared, "{}");
        assert_eq!(ask.send().await.status, 200, "{declared}");
    }
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(300_000));
    let ask = desk.bench.ask("POST", APPS).raw("application/json", large);
    let reply = checked("POST", APPS, ask.send().await);
    refused(&reply, 413, "VALIDATION_PAYLOAD_TOO_LARGE", Some("body"));
    let ask = desk
        .bench
        .ask("POST", APPS)
        .raw("application/json", &b"{\"name\":\"\xff\"}"[..]);
    refused(
        &checked("POST", APPS, ask.send().await),
        400,
        INVALID,
        Some("body"),
    );
}

#[tokio::test]
async fn an_operators_key_names_its_workspace() {
    let desk = Desk::new().await;
    let ask = |workspace: &[u8]| {
        desk.bench
            .with_key(&desk.bench.operator, "GET", APPS)
            .header("hookturn-workspace", workspace)
            .send()
    };
    assert_eq!(ask(b"default").await.json()["total"], 1);
    refused(&ask(b"nowhere").await, 404, "RESOURCE_NOT_FOUND", None);
    refused(
        &ask(b"\xe9").await,
        400,
        INVALID,
        Some("Hookturn-Workspace"),
    );
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_to_come_back() {
    let clock = HandClock::new();
    let settings = Settings {
        pace: Pace {
            requests_per_second: 1,
            burst: 3,
        },
        ..Settings::default()
    };
    let desk = Desk::over(Bench::with(settings, clock.clone()).await).await;
    assert_eq!(desk.get(APPS).await.status, 200);
    desk.rotated().await;
    let refusal = desk.rotate(None).await;
    refused(&refusal, 429, "RATE_LIMIT_EXCEEDED", None);
    assert_eq!(refusal.header("retry-after"), Some("1"));
    clock.advance(1_000);
    desk.rotated().await;
}

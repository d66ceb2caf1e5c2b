//! Who may do what: the matrix of routes and scopes, workspaces, operators.

use hookturn::api::openapi;
use hookturn::service::Settings;
use hookturn::service::pace::Pace;
use serde_json::{Value, json};

use crate::bench::{Bench, HandClock};

/// Method, path with ids that exist nowhere, and the scope it needs; from the OpenAPI document.
fn routes() -> Vec<(String, String, Option<String>)> {
    let document: Value = serde_json::from_str(openapi()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{clientId}", "AAAAAAAA")
            .replace("{endpointId}", "ep_00000000000000000000000000")
            .replace("{messageId}", "msg_00000000000000000000000000")
            .replace("{deliveryId}", "dlv_00000000000000000000000000")
            .replace("{keyringId}", "kr_00000000000000000000000000")
            .replace("{secretId}", "whs_00000000000000000000000000")
            .replace("{rotationId}", "rot_00000000000000000000000000")
            .replace("{bulkId}", "blk_00000000000000000000000000")
            .replace("{scheduleId}", "sch_00000000000000000000000000")
            .replace("{workspaceId}", "ws_00000000000000000000000000")
            .replace("{refusedEventId}", "00000000-0000-4000-8000-000000000000")
            .replace("{apiKeyId}", "key_00000000000000000000000000");
        assert!(!path.contains('{'), "{path}");
        for (method, operation) in item.as_object().unwrap() {
            let scope = operation["x-required-scope"].as_str().map(str::to_owned);
            routes.push((method.to_uppercase(), path.clone(), scope));
        }
    }
    routes
}

const SCOPES: [&str; 4] = ["publish", "manage", "secrets", "read"];

#[tokio::test]
async fn every_route_needs_its_scope_and_no_other_key_opens_it() {
    let bench = Bench::new().await;
    let routes = routes();
    assert!(routes.len() > 40);
    for scope in SCOPES {
        let others: Vec<_> = SCOPES.into_iter().filter(|other| *other != scope).collect();
        let lacking = bench.key(&others, "default").await;
        for (method, path, needed) in &routes {
            let reply = bench.with_key(&lacking, method, path).send().await;
            if needed.as_deref() == Some(scope) {
                let problem = reply.problem(403, "forbidden");
                assert_eq!(problem["needsScope"], scope, "{method} {path}");
            } else if needed.is_some() && !path.ends_with("/test") {
                // Refused for what is asked, not for the key: the ids name nothing.
                let operator_only = reply.json()["detail"]
                    .as_str()
                    .is_some_and(|detail| detail.contains("sk_operator_"));
                assert!(
                    reply.status != 403 || operator_only,
                    "{method} {path} {}",
                    reply.text
                );
                assert_ne!(reply.status, 401, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn every_route_but_the_public_ones_needs_a_key() {
    let bench = Bench::new().await;
    let mut public = Vec::new();
    for (method, path, needed) in routes() {
        for key in [
            None,
            Some("Bearer sk_workspace_test_wrong"),
            Some("Basic abc"),
        ] {
            let mut ask = bench.anonymous(&method, &path);
            if let Some(key) = key {
                ask = ask.header("authorization", key);
            }
            let reply = ask.send().await;
            if needed.is_none() {
                assert_ne!(reply.status, 401, "{path}");
            } else {
                reply.problem(401, "unauthorized");
                assert_eq!(
                    reply.header("www-authenticate"),
                    Some("Bearer realm=\"hookturn\"")
                );
                assert!(!reply.text.contains("wrong"), "{}", reply.text);
            }
        }
        if needed.is_none() {
            public.push(path);
        }
    }
    public.sort();
    assert_eq!(public, ["/livez", "/metrics", "/openapi.json", "/readyz"]);
}

#[tokio::test]
async fn the_scheme_of_the_key_has_no_case() {
    let bench = Bench::new().await;
    for scheme in ["bearer", "BEARER", "Bearer"] {
        let value = format!("{scheme} {}", bench.owner);
        let reply = bench
            .anonymous("GET", "/v1/apps")
            .header("authorization", value)
            .send()
            .await;
        assert_eq!(reply.status, 200);
    }
}

#[tokio::test]
async fn a_refused_scope_is_in_the_audit_log() {
    let bench = Bench::new().await;
    let reader = bench.key(&["read"], "default").await;
    let refused = bench
        .with_key(&reader, "POST", "/v1/apps")
        .json(&json!({"name": "a"}))
        .send()
        .await;
    let problem = refused.problem(403, "forbidden");
    let log = bench.get("/v1/audit").await.ok();
    let last = log["data"].as_array().unwrap().last().unwrap();
    assert_eq!(last["action"], "access.denied");
    assert_eq!(last["requestId"], problem["requestId"]);
}

/// The entries of the audit log that say why.
async fn denied(bench: &Bench, count: usize) -> Vec<Value> {
    let log = bench.get("/v1/audit?limit=200").await.ok();
    let entries = log["data"].as_array().unwrap();
    let denied = entries.iter().filter(|e| e["action"] == "access.denied");
    let denied: Vec<_> = denied.cloned().collect();
    assert_eq!(denied.len(), count, "{denied:?}");
    denied
}

#[tokio::test]
async fn every_kind_of_refusal_is_in_the_audit_log_with_what_was_asked() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    let secret = &endpoint["secret"];
    let (keyring, id) = (&endpoint["keyringId"], secret["id"].as_str().unwrap());
    let path = format!(
        "/v1/keyrings/{}/secrets/{id}/reveal",
        keyring.as_str().unwrap()
    );
    let reader = bench.key(&["read"], "default").await;
    let dead = bench.key(&["secrets"], "default").await;
    let keys = bench.get("/v1/api-keys").await.ok();
    // Keys of one millisecond are listed in any order.
    let listed = keys["data"].as_array().unwrap().iter();
    let mut listed = listed.filter(|key| key["scopes"] == json!(["secrets"]));
    let dead_id = listed.next().unwrap()["id"].as_str().unwrap();
    bench
        .ask("DELETE", &format!("/v1/api-keys/{dead_id}"))
        .header("hookturn-reason", "it leaked")
        .send()
        .await;
    let pasted = "sk_workspace_test_that_nobody_made";
    let causes = [
        (Some(&*reader), 403, "not allowed"),
        (Some(&*dead), 401, "revoked key"),
        (Some(pasted), 401, "unknown key"),
        (None, 401, "no key"),
    ];
    for (number, (key, status, cause)) in causes.into_iter().enumerate() {
        let mut ask = bench
            .anonymous("POST", &path)
            .header("hookturn-reason", "I forgot it");
        if let Some(key) = key {
            ask = ask.header("authorization", format!("Bearer {key}"));
        }
        let reply = ask.send().await;
        assert_eq!(reply.status.as_u16(), status, "{cause}");
        let entry = denied(&bench, number + 1).await.pop().unwrap();
        assert_eq!(entry["detail"]["cause"], cause);
        let route = "POST /v1/keyrings/{keyringId}/secrets/{secretId}/reveal";
        assert_eq!(entry["detail"]["route"], route);
        assert_eq!(entry["reason"], "I forgot it");
        assert_eq!(entry["requestId"].as_str(), reply.header("x-request-id"));
        assert_eq!(&entry["subject"]["keyringId"], keyring);
        assert_eq!(entry["subject"]["secretId"], id);
        // The owner of the secret reads this log; who asked does not.
        assert_eq!(entry["fingerprint"], secret["fingerprint"], "{cause}");
        assert!(!entry.to_string().contains(pasted));
    }
    let log = bench.get("/v1/audit?limit=200").await.ok();
    let entries = log["data"].as_array().unwrap();
    let revoked = entries.iter().find(|e| e["action"] == "api_key.revoked");
    assert_eq!(revoked.unwrap()["reason"], "it leaked");
}

/// Whose key does not suffice has said why all the same.
#[tokio::test]
async fn g9_the_reason_in_a_body_that_is_refused_is_in_the_log() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    let secret = format!(
        "/v1/keyrings/{}/secrets/{}",
        endpoint["keyringId"].as_str().unwrap(),
        endpoint["secret"]["id"].as_str().unwrap()
    );
    let reader = bench.key(&["read"], "default").await;
    let long = json!({"reason": "mine", "more": "x".repeat(20_000)}).to_string();
    let cases = [
        (r#"{"reason":"I forgot it"}"#, "I forgot it"),
        (
            r#"{"overlapSeconds":1,"reason":"des K\u00f6nigs"}"#,
            "des K\u{f6}nigs",
        ),
        // What would be no reason in a request that is allowed is none here.
        (r#"{"reason":"a\u0007"}"#, "of the request"),
        (r#"{"reason":["a"]}"#, "of the request"),
        (r#"{"reason":"a","reason":"b"}"#, "of the request"),
        (r#"{"reason":null}"#, "of the request"),
        (r#"{"reason":"#, "of the request"),
        ("[]", "of the request"),
        ("", "of the request"),
        (&long, "of the request"),
    ];
    let mut count = 0;
    for call in ["reveal", "compromise", "activate"] {
        // As many as are written down at once at one route.
        for (body, wanted) in &cases {
            let reply = bench
                .with_key(&reader, "POST", &format!("{secret}/{call}"))
                .header("hookturn-reason", "of the request")
                .raw("application/json", (*body).to_owned())
                .send()
                .await;
            reply.problem(403, "forbidden");
            count += 1;
            let entry = denied(&bench, count).await.pop().unwrap();
            assert_eq!(entry["reason"], *wanted, "{call} {body}");
            assert_eq!(entry["fingerprint"], endpoint["secret"]["fingerprint"]);
        }
    }
    // The body of someone without a key is not read.
    let path = format!("{secret}/reveal");
    let ask = bench.anonymous("POST", &path);
    let reply = ask.json(&json!({"reason": "mine"})).send().await;
    assert_eq!(reply.status.as_u16(), 401);
    let entry = denied(&bench, count + 1).await.pop().unwrap();
    assert_eq!(entry["reason"], Value::Null);
}

#[tokio::test]
async fn g9_whoever_names_a_foreign_workspace_is_in_its_log_with_the_route() {
    let bench = Bench::new().await;
    bench
        .with_key(&bench.operator, "POST", "/v1/workspaces")
        .json(&json!({"name": "other"}))
        .send()
        .await
        .ok();
    let elsewhere = bench.key(&["read", "secrets"], "other").await;
    let reply = bench
        .with_key(&elsewhere, "POST", "/v1/api-keys")
        .header("hookturn-workspace", "default")
        .header("hookturn-reason", "I try it")
        .json(&json!({}))
        .send()
        .await;
    reply.problem(404, "not_found");
    // It is written behind the answer.
    let mut entry = Value::Null;
    for _ in 0..10_000 {
        let log = bench.get("/v1/audit?limit=200").await.ok();
        let mut entries = log["data"].as_array().unwrap().iter();
        if let Some(found) = entries.find(|e| e["action"] == "access.denied") {
            entry = found.clone();
            break;
        }
    }
    assert_eq!(entry["detail"]["route"], "POST /v1/api-keys");
    assert_eq!(entry["detail"]["cause"], "belongs to another workspace");
    assert_eq!(entry["reason"], "I try it");
    assert_eq!(entry["requestId"].as_str(), reply.header("x-request-id"));
}

#[tokio::test]
async fn a_reason_in_the_body_goes_before_the_one_of_the_request() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    let keyring = format!("/v1/keyrings/{}", endpoint["keyringId"].as_str().unwrap());
    let ask = |path: String, body: Value| {
        bench
            .ask("POST", &path)
            .header("hookturn-reason", "of the request")
            .json(&body)
            .send()
    };
    let body = json!({"reason": "des K\u{f6}nigs"});
    let made = ask(format!("{keyring}/secrets"), body.clone()).await.ok();
    assert_eq!(made["rotation"]["reason"], body["reason"]);
    let rotation = format!("/v1/rotations/{}", made["rotation"]["id"].as_str().unwrap());
    ask(format!("{rotation}/promote"), json!({})).await.ok();
    ask(format!("{rotation}/undo"), body.clone()).await.ok();
    let log = bench.get("/v1/audit?limit=200").await.ok();
    let why = |action: &str| {
        let entries = log["data"].as_array().unwrap().iter();
        let last = entries.rev().find(|entry| entry["action"] == action);
        last.unwrap()["reason"].clone()
    };
    assert_eq!(why("rotation.opened"), body["reason"]);
    assert_eq!(why("rotation.promoted"), "of the request");
    assert_eq!(why("rotation.undone"), body["reason"]);
    for bad in ["x".repeat(257), "a\u{7}".to_owned()] {
        let refused = ask(format!("{keyring}/secrets"), json!({"reason": bad})).await;
        refused.problem(422, "invalid_field");
        assert_eq!(refused.pointer(), "/reason");
    }
    for bad in [&b""[..], &[b'x'; 257], b"caf\xe9"] {
        let ask = bench.ask("GET", "/v1/apps").header("hookturn-reason", bad);
        ask.send().await.problem(400, "invalid_header");
    }
}

#[tokio::test]
async fn a_key_can_be_given_another_end() {
    let bench = Bench::new().await;
    let made = bench
        .post("/v1/api-keys", json!({"name": "ci", "scopes": ["read"]}))
        .await
        .ok();
    let path = format!("/v1/api-keys/{}", made["id"].as_str().unwrap());
    let patch = |body: Value| bench.ask("PATCH", &path).json(&body).send();
    let end = json!({"expiresAt": "2999-01-01T00:00:00.000Z"});
    let changed = patch(end.clone()).await.ok();
    assert_eq!(changed["expiresAt"], end["expiresAt"]);
    assert_eq!(changed.get("key"), None);
    patch(json!({"expiresAt": "2020-01-01T00:00:00Z"}))
        .await
        .problem(422, "invalid_field");
    patch(json!({})).await.problem(422, "invalid_field");
    bench.ask("DELETE", &path).send().await;
    patch(end).await.problem(409, "api_key_revoked");
}

#[tokio::test]
async fn what_belongs_to_another_workspace_does_not_exist() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    let keyring = endpoint["keyringId"].as_str().unwrap();
    let made = bench
        .with_key(&bench.operator, "POST", "/v1/workspaces")
        .json(&json!({"name": "other"}))
        .send()
        .await
        .ok();
    let stranger = bench.key(&SCOPES, "other").await;
    let endpoint_path = format!("{app}/endpoints/{}", endpoint["id"].as_str().unwrap());
    let message = json!({"eventType": "a", "payload": 1});
    for (method, path, body) in [
        ("GET", app.clone(), None),
        ("PATCH", app.clone(), Some(json!({"name": "mine"}))),
        ("DELETE", app.clone(), None),
        ("GET", endpoint_path.clone(), None),
        ("POST", format!("{endpoint_path}/test"), None),
        ("POST", format!("{app}/messages"), Some(message)),
        ("GET", format!("/v1/keyrings/{keyring}"), None),
        (
            "POST",
            format!("/v1/keyrings/{keyring}/rotations"),
            Some(json!({"mode": "immediate"})),
        ),
    ] {
        let mut ask = bench.with_key(&stranger, method, &path);
        if let Some(body) = body {
            ask = ask.json(&body);
        }
        ask.send().await.problem(404, "not_found");
    }
    // The workspace of a stranger can be named by an operator only.
    let other = made["id"].as_str().unwrap();
    let asked = bench
        .ask("GET", "/v1/apps")
        .header("hookturn-workspace", other)
        .send()
        .await;
    asked.problem(404, "not_found");
    for name in ["other", other] {
        let apps = bench
            .with_key(&bench.operator, "GET", "/v1/apps")
            .header("hookturn-workspace", name)
            .send()
            .await;
        assert_eq!(apps.ok()["data"], json!([]));
    }
    assert_eq!(bench.get(&app).await.status, 200);
}

#[tokio::test]
async fn workspaces_and_operator_keys_are_for_operators() {
    let bench = Bench::new().await;
    bench
        .post("/v1/workspaces", json!({"name": "mine"}))
        .await
        .problem(403, "forbidden");
    let asked = json!({"name": "k", "scopes": ["read"], "reach": "operator"});
    bench
        .post("/v1/api-keys", asked)
        .await
        .problem(403, "forbidden");
}

#[tokio::test]
async fn a_key_is_shown_once_listed_without_its_text_and_revoked() {
    let bench = Bench::new().await;
    let made = bench
        .post(
            "/v1/api-keys",
            json!({"name": "ci", "scopes": ["read"], "environment": "prod"}),
        )
        .await;
    assert_eq!(made.status, 201);
    let made = made.ok();
    let text = made["key"].as_str().unwrap();
    assert!(text.starts_with("sk_workspace_prod_"));
    assert_eq!(
        bench.with_key(text, "GET", "/v1/apps").send().await.status,
        200
    );
    let list = bench.get("/v1/api-keys").await;
    assert!(!list.text.contains(text));
    let path = format!("/v1/api-keys/{}", made["id"].as_str().unwrap());
    assert_eq!(bench.ask("DELETE", &path).send().await.status, 204);
    bench
        .with_key(text, "GET", "/v1/apps")
        .send()
        .await
        .problem(401, "unauthorized");
}

#[tokio::test]
async fn readiness_follows_the_life_of_the_process() {
    let bench = Bench::new().await;
    let get = |path| bench.anonymous("GET", path).send();
    let starting = get("/readyz").await;
    starting.problem(503, "unavailable");
    assert_eq!(starting.header("retry-after"), Some("1"));
    bench.ready.set_ready();
    assert_eq!(get("/readyz").await.status, 200);
    bench.ready.set_store_down();
    get("/readyz").await.problem(503, "store_unwritable");
    bench.ready.set_draining();
    bench.ready.set_ready();
    get("/readyz").await.problem(503, "unavailable");
    assert_eq!(get("/livez").await.status, 200);
    assert_eq!(get("/metrics").await.text, "# EOF\n");
    assert_eq!(get("/openapi.json").await.text, openapi());
}

#[tokio::test]
async fn a_key_that_asks_too_often_waits_and_no_other_key_does() {
    let clock = HandClock::new();
    let settings = Settings {
        pace: Pace {
            requests_per_second: 1,
            burst: 2,
        },
        ..Settings::default()
    };
    let bench = Bench::with(settings, clock.clone()).await;
    for _ in 0..2 {
        assert_eq!(bench.get("/v1/apps").await.status, 200);
    }
    let refused = bench.post("/v1/apps", json!({"name": "shop"})).await;
    let problem = refused.problem(429, "rate_limited");
    assert_eq!(problem["retryable"], true);
    assert_eq!(refused.header("retry-after"), Some("1"));
    let other = bench.with_key(&bench.operator, "GET", "/v1/apps");
    assert_eq!(other.send().await.status, 200);
    clock.advance(1_000);
    assert_eq!(bench.get("/v1/apps").await.ok()["data"], json!([]));
    bench.get("/v1/apps").await.problem(429, "rate_limited");
}

//! A client of the dialect, and what every answer of it must be.

use hookturn::api::kore_openapi;
use serde_json::{Value, json};

use crate::bench::{Bench, Reply};

pub(crate) const SECRETS: &str = "/kore/v1/secrets";

/// Creates a secret that must be made.
pub(crate) async fn create(bench: &Bench, name: &str) -> Value {
    let reply = bench.post(SECRETS, json!({ "Name": name })).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let made = reply.ok();
    assert_members(&made, &["id", "last_modified", "name", "secret", "status"]);
    made
}

/// Changes a secret.
pub(crate) async fn change(bench: &Bench, secret: &Value, body: Value) -> Reply {
    let id = secret["id"].as_str().unwrap();
    let path = format!("{SECRETS}/{id}");
    bench.ask("PATCH", &path).json(&body).send().await
}

/// The secrets that are listed: name and status.
pub(crate) async fn listed(bench: &Bench) -> Vec<(String, String)> {
    let page = bench.get(SECRETS).await.ok();
    let pair = |secret: &Value| {
        assert_members(secret, &["id", "last_modified", "name", "status"]);
        let text = |name: &str| secret[name].as_str().unwrap().to_owned();
        (text("name"), text("status"))
    };
    page["data"].as_array().unwrap().iter().map(pair).collect()
}

/// The path of the shared keyring in the native API.
pub(crate) async fn keyring(bench: &Bench) -> String {
    let workspaces = bench.get("/v1/workspaces").await.ok();
    let id = workspaces["data"][0]["sharedKeyringId"].as_str().unwrap();
    format!("/v1/keyrings/{id}")
}

/// The actions in the audit log from entry `after` on.
pub(crate) async fn actions(bench: &Bench, after: usize) -> Vec<String> {
    let log = bench.get("/v1/audit?limit=200").await.ok();
    let entries = log["data"].as_array().unwrap();
    let action = |entry: &Value| entry["action"].as_str().unwrap().to_owned();
    entries[after..].iter().map(action).collect()
}

/// Checks that an object has these members and no other.
#[track_caller]
pub(crate) fn assert_members(value: &Value, wanted: &[&str]) {
    let members: Vec<_> = value.as_object().unwrap().keys().collect();
    assert_eq!(members, wanted, "{value}");
}

/// Checks that a reply is an error in KORE's form, and returns its code.
#[track_caller]
pub(crate) fn error(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.text);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let error = reply.json();
    assert_members(&error, &["code", "info", "message", "status"]);
    assert_eq!(error["status"], status);
    let request = format!("request {}", reply.header("x-request-id").unwrap());
    assert_eq!(error["info"], request.as_str());
    assert!(error["message"].as_str().unwrap().len() > 10, "{error}");
    error["code"].as_str().unwrap().to_owned()
}

/// Checks that the document names this status for this call.
#[track_caller]
pub(crate) fn assert_documented(method: &str, path: &str, status: u16) {
    let document: Value = serde_json::from_str(kore_openapi()).unwrap();
    let path = match path.split('?').next().unwrap() {
        SECRETS => SECRETS,
        _ => "/kore/v1/secrets/{secretId}",
    };
    let responses = &document["paths"][path][method.to_lowercase()]["responses"];
    assert!(
        responses.get(status.to_string()).is_some(),
        "{method} {path} answers {status}, which is not documented"
    );
}

//! Calls of the dialect. Every answer is held against the OpenAPI document and the error envelope on
//! its way, so that no test can overlook them.

use std::sync::LazyLock;

use hookturn::api::hopae_openapi;
use serde_json::{Value, json};

use crate::bench::{Bench, Reply};

pub(crate) const APPS: &str = "/connect/v1/apps";

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(hopae_openapi()).unwrap());

/// An app made by the dialect.
pub(crate) struct Desk {
    pub(crate) bench: Bench,
    /// Its id.
    pub(crate) app: String,
}

impl Desk {
    pub(crate) async fn new() -> Self {
        Self::over(Bench::new().await).await
    }

    pub(crate) async fn over(bench: Bench) -> Self {
        let made = call(&bench, "POST", APPS, Some(json!({ "name": "shop" }))).await;
        let app = made.json()["clientId"].as_str().unwrap().to_owned();
        Self { bench, app }
    }

    pub(crate) fn app_path(&self) -> String {
        format!("{APPS}/{}", self.app)
    }

    pub(crate) fn config_path(&self) -> String {
        format!("{APPS}/{}/webhook-config", self.app)
    }

    pub(crate) fn rotate_path(&self) -> String {
        format!("{APPS}/{}/webhook-config/rotate-secret", self.app)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        call(&self.bench, "GET", path, None).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        call(&self.bench, "PATCH", path, Some(body)).await
    }

    /// The current secret as `GET webhook-config` shows it.
    pub(crate) async fn secret(&self) -> String {
        let config = self.get(&self.config_path()).await.ok();
        config["secret"].as_str().unwrap().to_owned()
    }

    /// Rotates, perhaps under a key.
    pub(crate) async fn rotate(&self, key: Option<&str>) -> Reply {
        let mut ask = self.bench.ask("POST", &self.rotate_path());
        if let Some(key) = key {
            ask = ask.header("idempotency-key", key);
        }
        checked("POST", &self.rotate_path(), ask.send().await)
    }

    /// Rotates and answers the new secret.
    pub(crate) async fn rotated(&self) -> String {
        let body = self.rotate(None).await.ok();
        let secret = body["secret"].as_str().unwrap().to_owned();
        assert_eq!(body, json!({ "secret": secret }));
        secret
    }

    /// The actions in the audit log that begin with one of these, oldest first.
    pub(crate) async fn audit(&self, families: &[&str]) -> Vec<String> {
        let log = self.bench.get("/v1/audit?limit=200").await.ok();
        let entries = log["data"].as_array().unwrap();
        let actions = entries
            .iter()
            .map(|entry| entry["action"].as_str().unwrap());
        actions
            .filter(|action| families.iter().any(|family| action.starts_with(family)))
            .map(str::to_owned)
            .collect()
    }

    /// Changes settings of the workspace by the native API.
    pub(crate) async fn workspace_setting(&self, settings: Value) {
        let listed = self.bench.get("/v1/workspaces").await.ok();
        let path = format!(
            "/v1/workspaces/{}",
            listed["data"][0]["id"].as_str().unwrap()
        );
        self.bench
            .ask("PATCH", &path)
            .json(&settings)
            .send()
            .await
            .ok();
    }
}

/// One call of the owner.
pub(crate) async fn call(bench: &Bench, method: &str, path: &str, body: Option<Value>) -> Reply {
    let ask = bench.ask(method, path);
    let ask = match body {
        Some(body) => ask.json(&body),
        None => ask,
    };
    checked(method, path, ask.send().await)
}

/// Holds an answer against what is promised of every answer.
#[track_caller]
pub(crate) fn checked(method: &str, path: &str, reply: Reply) -> Reply {
    let status = reply.status.as_u16();
    if let Some(operation) = operation(method, path) {
        let documented = operation["responses"].as_object().unwrap();
        assert!(
            documented.contains_key(&status.to_string()),
            "{method} {path} {status}"
        );
    } else {
        assert!(matches!(status, 404 | 405), "{method} {path} {status}");
    }
    assert_eq!(
        reply.header("content-type"),
        Some("application/json"),
        "{method} {path}"
    );
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let request_id = reply.header("x-request-id").unwrap();
    assert_eq!(
        request_id.parse::<uuid::Uuid>().unwrap().to_string(),
        request_id
    );
    if status >= 400 {
        let body = reply.json();
        let members: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(members, ["error", "request_id"], "{}", reply.text);
        assert_eq!(body["request_id"], request_id);
        let error = body["error"].as_object().unwrap();
        assert!(!error["message"].as_str().unwrap().is_empty());
        let codes = DOCUMENT["components"]["schemas"]["ErrorCode"]["enum"].as_array();
        assert!(codes.unwrap().contains(&error["code"]), "{}", reply.text);
        for member in error.keys() {
            assert!(
                ["code", "message", "details"].contains(&member.as_str()),
                "{member}"
            );
        }
    }
    reply
}

/// The operation that the document has for a call.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<_> = path.split('/').collect();
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let (_, item) = paths.iter().find(|(template, _)| {
        let template: Vec<_> = template.split('/').collect();
        let same = |(known, part): (&&str, &&str)| known.starts_with('{') || known == part;
        template.len() == parts.len() && template.iter().zip(&parts).all(same)
    })?;
    item.get(method.to_lowercase())
}

/// Checks code, status and `details.parameter` of an error.
#[track_caller]
pub(crate) fn refused(reply: &Reply, status: u16, code: &str, parameter: Option<&str>) {
    let error = &reply.json()["error"];
    assert_eq!(
        (reply.status.as_u16(), error["code"].as_str()),
        (status, Some(code)),
        "{}",
        reply.text
    );
    assert_eq!(
        error["details"]["parameter"].as_str(),
        parameter,
        "{}",
        reply.text
    );
}

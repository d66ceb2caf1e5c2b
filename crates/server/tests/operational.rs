//! Operational events, seen from the operator's endpoint: signed like any webhook, each once, also when the
//! server dies between a change and its event.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[expect(
    dead_code,
    unused_imports,
    reason = "these tests use a part of it only"
)]
mod support;
#[expect(dead_code, reason = "these tests use a part of it only")]
#[path = "proven/zoo.rs"]
mod zoo;

use std::collections::BTreeSet;
use std::path::Path;

use hookturn::telemetry::SystemClock;
use hookturn_core::time::Clock as _;
use hookturn_verify::{Received, Scheme, Secret, Verifier, from_fn};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use support::{Api, Captured, Receiver, Server};
use zoo::{Animal, Beast, Deploys, Reads};

/// The operator's app with one endpoint, which the workspace sends its events to.
struct Desk {
    app: String,
    secret: Secret,
    receiver: Receiver,
}

impl Desk {
    async fn open(api: &Api, events: &[&str]) -> Self {
        let app = api.create_app("operations").await;
        let receiver = Receiver::start().await;
        let endpoint = json!({ "url": receiver.origin(), "events": events });
        let endpoint = api.create_endpoint(&app, &endpoint).await;
        name_app(api, &app).await;
        Self {
            app,
            secret: Secret::parse(&endpoint.secret.value).unwrap(),
            receiver,
        }
    }

    /// The next event, whose signature must be right.
    async fn next(&mut self) -> Value {
        let captured = self.receiver.next().await;
        self.read(&captured)
    }

    /// The next event of this type; others in between are let go.
    async fn next_of(&mut self, event_type: &str) -> Value {
        loop {
            let event = self.next().await;
            if event["type"] == event_type {
                return event;
            }
        }
    }

    fn read(&self, captured: &Captured) -> Value {
        let lines = from_fn(|name: &str| {
            let mut lines = captured.headers.iter();
            let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_bytes())
        });
        let received = Received {
            method: &captured.method,
            url: "",
            headers: &lines,
            body: &captured.body,
        };
        let verifier = Verifier::new(Scheme::Standard).secret("held", &self.secret);
        let now = SystemClock.now().as_seconds();
        verifier.unwrap().verify(&received, now).unwrap();
        serde_json::from_slice(&captured.body).unwrap()
    }
}

/// Has the workspace send its events to an app.
async fn name_app(api: &Api, app: &str) {
    let workspace = workspace(api).await;
    let path = format!("/v1/workspaces/{workspace}");
    let patch = json!({ "operationalApp": app }).to_string();
    let (status, body) = api.send(Method::PATCH, &path, patch).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
}

async fn workspace(api: &Api) -> String {
    let listed = api.get("/v1/workspaces").await;
    listed["data"][0]["id"].as_str().unwrap().to_owned()
}

fn policy() -> Value {
    json!({
        "confidencePercent": 80,
        "stalePercent": 20,
        "holdDownMillis": 100,
        "probeEveryMillis": 5,
        "probeBackOffMaxMillis": 50,
        "probesPerHour": 100_000,
        "quietMillis": 200,
        "deadlineMillis": 600_000,
    })
}

/// An endpoint that accepted something, and its receiver.
async fn customer(api: &Api, animal: Animal) -> (support::Endpoint, Beast) {
    let app = api.create_app(animal.name).await;
    let mut beast = Beast::start(animal).await;
    let endpoint = json!({ "url": beast.receiver.origin(), "preset": animal.preset });
    let endpoint = api.create_endpoint(&app, &endpoint).await;
    beast.hold_old(&endpoint.secret.value);
    let delivered = format!("/v1/apps/{app}/deliveries?status=delivered");
    loop {
        api.publish(&app, "customer.event", "{}").await;
        beast.receiver.next().await;
        let settled = api.get(&delivered).await["data"].take();
        if !settled.as_array().unwrap().is_empty() {
            return (endpoint, beast);
        }
    }
}

#[tokio::test]
async fn a_rotation_is_told_from_its_opening_to_its_end() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut desk = Desk::open(&api, &["hookturn.rotation.*"]).await;
    let animal = Animal::new("shop", "standard", Reads::Any);
    let (endpoint, beast) = customer(&api, animal).await;
    let opened =
        json!({ "mode": "proven", "policy": policy(), "name": "blue", "reason": "yearly" });
    let opened = api.rotate(&endpoint.keyring_id, &opened).await;
    beast.hold_new(&opened.secret.value);
    beast.deploy_by(0);
    let mut told = Vec::new();
    loop {
        let event = desk.next().await;
        let kind = event["type"].as_str().unwrap().to_owned();
        assert_eq!(event["rotationId"], opened.id, "{event}");
        assert_eq!(event["keyringId"], endpoint.keyring_id, "{event}");
        assert_eq!(event["endpointId"], endpoint.id, "{event}");
        assert_eq!(event["app"], "shop", "{event}");
        assert_eq!(event["secretName"], "blue", "{event}");
        assert_eq!(event["workspace"], "default");
        let text = event.to_string();
        for value in [&opened.secret.value, &endpoint.secret.value] {
            assert!(!text.contains(value.as_str()), "a value was told: {text}");
        }
        told.push((kind.clone(), event));
        if kind == "hookturn.rotation.completed" {
            break;
        }
    }
    let kinds: Vec<&str> = told
        .iter()
        .map(|(kind, _)| kind.strip_prefix("hookturn.rotation.").unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["opened", "proved", "promoted", "finished", "completed"]
    );
    assert_eq!(told[0].1["reason"], "yearly");
    assert_eq!(told[1].1["by"], "system");
    assert_eq!(told[2].1["detail"]["grounds"], "proof");
    let log = api.get("/v1/audit?limit=200").await;
    for (kind, event) in &told {
        let entries = log["data"].as_array().unwrap();
        let entry = entries
            .iter()
            .find(|entry| entry["seq"] == event["sequence"]);
        let entry = entry.unwrap();
        let action = entry["action"].as_str().unwrap();
        assert_eq!(*kind, format!("hookturn.{action}"));
        assert_eq!(entry["at"], event["at"]);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_gets_nowhere_is_told_with_the_reason() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut desk = Desk::open(&api, &[]).await;
    let never = Animal::new("never", "standard", Reads::Any).deploys(Deploys::Never);
    let (endpoint, _never) = customer(&api, never).await;
    let mut policy = policy();
    policy["stalledAfterMillis"] = 500.into();
    policy["deadlineMillis"] = 2_000.into();
    policy["holdDownMillis"] = 100.into();
    policy["deadlineNearMillis"] = 500.into();
    let opened = json!({ "mode": "proven", "policy": policy });
    let opened = api.rotate(&endpoint.keyring_id, &opened).await;
    let stalled = desk.next_of("hookturn.rotation.stalled").await;
    assert_eq!(stalled["rotationId"], opened.id);
    assert_eq!(stalled["detail"]["why"], "refuses", "{stalled}");
    let near = desk.next_of("hookturn.rotation.deadline_near").await;
    assert_eq!(near["rotationId"], opened.id);
    assert_eq!(near["detail"]["stage"], "staged");
    assert!(
        near["words"].as_str().unwrap().contains("stays active"),
        "{near}"
    );
    let cancel = format!("/v1/rotations/{}/cancel", opened.id);
    api.post(&cancel, &json!({})).await;
    desk.next_of("hookturn.rotation.cancelled").await;

    let fool = Animal::new("fool", "standard", Reads::Nothing);
    let (endpoint, _fool) = customer(&api, fool).await;
    let rehearse = format!("/v1/endpoints/{}/rehearse", endpoint.id);
    api.post(&rehearse, &json!({})).await;
    let told = desk.next_of("hookturn.endpoint.does_not_verify").await;
    assert_eq!(told["endpointId"], endpoint.id);
    let secrets = format!("/v1/keyrings/{}/secrets", endpoint.keyring_id);
    let secret = api.get(&secrets).await["data"][0]["id"].take();
    let reveal = format!("{secrets}/{}/reveal", secret.as_str().unwrap());
    let revealed = api.post(&reveal, &json!({})).await;
    let told = desk.next_of("hookturn.secret.revealed").await;
    assert_eq!(told["secretId"], secret);
    assert_eq!(told["fingerprint"], revealed["fingerprint"]);
    server.stop().await;
}

#[tokio::test]
async fn an_operational_endpoint_that_is_disabled_is_told_to_the_others_once() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut desk = Desk::open(&api, &["hookturn.*"]).await;
    let mut gone = Receiver::answering(|_| StatusCode::GONE).await;
    let endpoint = json!({ "url": gone.origin(), "events": ["hookturn.*"] });
    let endpoint = api.create_endpoint(&desk.app, &endpoint).await;
    let other = json!({ "url": desk.receiver.origin(), "events": ["customer.event"] });
    let other = api.create_endpoint(&desk.app, &other).await;
    // Something happens, both are told, and one of them says that it is gone.
    api.rotate(&other.keyring_id, &json!({ "mode": "overlap" }))
        .await;
    gone.next().await;
    let told = desk.next_of("hookturn.endpoint.disabled").await;
    assert_eq!(told["endpointId"], endpoint.id);
    assert_eq!(told["detail"]["why"], "gone");
    let pause = format!("/v1/apps/{}/endpoints/{}", desk.app, other.id);
    let disable = json!({ "state": "disabled" }).to_string();
    let (status, _) = api.send(Method::PATCH, &pause, disable).await;
    assert_eq!(status, StatusCode::OK);
    // The next one is about the other endpoint: the first was told once.
    let told = desk.next().await;
    assert_eq!(told["type"], "hookturn.endpoint.disabled");
    assert_eq!(told["endpointId"], other.id);
    server.stop().await;
}

/// Every message of an app, by the number of the entry it reports.
async fn reported(api: &Api, app: &str) -> Vec<u64> {
    let listed = api.get(&format!("/v1/apps/{app}/messages?limit=200")).await;
    let messages = listed["data"].as_array().unwrap().clone();
    let mut numbers = Vec::new();
    for message in messages {
        let path = format!(
            "/v1/apps/{app}/messages/{}",
            message["id"].as_str().unwrap()
        );
        let payload = api.get(&path).await["payload"].take();
        numbers.push(payload["sequence"].as_u64().unwrap());
    }
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn g1_a_server_that_is_killed_between_change_and_event_tells_each_once() {
    const KILLS: usize = 8;
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut desk = Desk::open(&api, &["hookturn.secret.*"]).await;
    let animal = Animal::new("shop", "standard", Reads::Any);
    let (endpoint, _beast) = customer(&api, animal).await;
    let secrets = format!("/v1/keyrings/{}/secrets", endpoint.keyring_id);
    let secret = api.get(&secrets).await["data"][0]["id"].take();
    let reveal = format!("{secrets}/{}/reveal", secret.as_str().unwrap());
    drop(server);
    for _ in 0..KILLS {
        let server = Server::start(data.path()).await;
        server.api().post(&reveal, &json!({})).await;
        // Killed at once: the sweep has not come, or is at it, or is done.
        drop(server);
    }
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut seen = BTreeSet::new();
    while seen.len() < KILLS {
        // The same message may arrive twice; that there is one for each is in the log.
        seen.insert(desk.next().await["sequence"].as_u64().unwrap());
    }
    let log = api.get("/v1/audit?limit=200").await;
    let entries = log["data"].as_array().unwrap().iter();
    let revealed: Vec<u64> = entries
        .filter(|entry| entry["action"] == "secret.revealed")
        .map(|entry| entry["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(revealed.len(), KILLS);
    assert_eq!(seen, revealed.iter().copied().collect());
    assert_eq!(reported(&api, &desk.app).await, revealed);
    server.stop().await;
}

#[tokio::test]
async fn the_operator_gets_the_events_of_all_workspaces_and_none_twice() {
    const OPERATOR: &str = "sk_operator_of_the_running_server_0000000001";
    let data = tempfile::tempdir().unwrap();
    let start = |path: &Path, app: Option<&str>| {
        let named = app.map(|app| ("HOOKTURN_OPERATIONAL_EVENTS", format!("default/{app}")));
        let path = path.to_owned();
        async move {
            let named = named.iter().map(|(name, value)| (*name, value.as_str()));
            Server::start_with(&path, OPERATOR, &named.collect::<Vec<_>>()).await
        }
    };
    let server = start(data.path(), None).await;
    let mut desk = Desk::open(&server.api(), &[]).await;
    let made = json!({ "name": "customer" });
    server.api().post("/v1/workspaces", &made).await;
    server.stop().await;
    // Named twice: as the app of its own workspace, and for all of them.
    let server = start(data.path(), Some(&desk.app)).await;
    let api = server.api();
    let there = [("Hookturn-Workspace", "customer")];
    let post = async |path: &str, body: Value| -> Value {
        let answer = api
            .exchange(Method::POST, path, &there, body.to_string())
            .await;
        assert!(answer.status().is_success(), "{path}: {answer:?}");
        serde_json::from_slice(answer.body()).unwrap()
    };
    let app = post("/v1/apps", json!({ "name": "theirs" })).await;
    let app = app["clientId"].as_str().unwrap();
    let endpoint = json!({ "url": desk.receiver.origin() });
    let endpoint = post(&format!("/v1/apps/{app}/endpoints"), endpoint).await;
    let keyring = endpoint["keyringId"].as_str().unwrap();
    let rotations = format!("/v1/keyrings/{keyring}/rotations");
    post(&rotations, json!({ "mode": "staged" })).await;
    let told = desk.next().await;
    assert_eq!(told["type"], "hookturn.rotation.opened");
    assert_eq!(told["workspace"], "customer");
    assert_eq!(told["app"], "theirs");
    let own = api.get(&format!("/v1/apps/{}/endpoints", desk.app)).await;
    let own = own["data"][0]["keyringId"].as_str().unwrap();
    api.rotate(own, &json!({ "mode": "staged" })).await;
    let told = desk.next().await;
    assert_eq!(told["workspace"], "default");
    assert_eq!(reported(&api, &desk.app).await.len(), 2, "one of each");
    server.stop().await;
}

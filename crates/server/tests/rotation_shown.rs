//! What the API says of rotations, against the running program: what it refuses and why, what each
//! command means for deliveries, who may have changed it first, which probes were sent, and why each
//! exchange was signed the way it was.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "rotation_shown/budget.rs"]
mod budget;
#[path = "rotation_shown/metered.rs"]
mod metered;
#[path = "rotation_shown/said.rs"]
mod said;
#[expect(
    dead_code,
    unused_imports,
    reason = "these tests use a part of it only"
)]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Api, Captured, Endpoint, Receiver, Server};

/// A receiver that takes requests and never answers.
const NOTHING: u16 = 1;

/// A server, and one endpoint whose receiver answers what it is told to.
struct World {
    server: Server,
    api: Api,
    app: String,
    endpoint: Endpoint,
    receiver: Receiver,
    /// The status it answers; 0 stands for one that depends on the request, and [`NOTHING`] for none.
    answer: Arc<AtomicU16>,
    _data: tempfile::TempDir,
}

/// Probes that are signed with a random key cannot be told from others by who does not verify: these
/// receivers look at the body alone.
fn is_probe(captured: &Captured) -> bool {
    captured.text().contains("\"probe\":")
}

impl World {
    async fn new(fields: Value) -> Self {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path()).await;
        let api = server.api();
        let answer = Arc::new(AtomicU16::new(200));
        let given = Arc::clone(&answer);
        let receiver = Receiver::answering_later(move |captured| {
            let told = given.load(Ordering::SeqCst);
            let status = match told {
                0 if is_probe(captured) => StatusCode::SERVICE_UNAVAILABLE,
                0 | NOTHING => StatusCode::OK,
                status => StatusCode::from_u16(status).unwrap(),
            };
            async move {
                if told == NOTHING {
                    std::future::pending::<()>().await;
                }
                status
            }
        })
        .await;
        let app = api.create_app("shown").await;
        let mut endpoint = json!({ "url": receiver.origin(), "preset": "hopae",
            "retry": { "delaysMillis": [50, 50, 50] } });
        let members = fields.as_object().unwrap().clone();
        endpoint.as_object_mut().unwrap().extend(members);
        let endpoint = api.create_endpoint(&app, &endpoint).await;
        Self {
            server,
            api,
            app,
            endpoint,
            receiver,
            answer,
            _data: data,
        }
    }

    fn answers(&self, status: u16) {
        self.answer.store(status, Ordering::SeqCst);
    }

    /// A test event is accepted, so that the endpoint may be probed.
    async fn contacted(self) -> Self {
        let tested = self.api.post(&self.place("/test"), &json!({})).await;
        assert_eq!(tested["accepted"], true, "{tested}");
        self
    }

    fn place(&self, below: &str) -> String {
        format!(
            "/v1/apps/{}/endpoints/{}{below}",
            self.app, self.endpoint.id
        )
    }

    fn rotations(&self) -> String {
        format!("/v1/keyrings/{}/rotations", self.endpoint.keyring_id)
    }

    async fn refused(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, answer) = self.api.send(Method::POST, path, body.to_string()).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(status.is_client_error(), "{path} {body}: {text}");
        (status.as_u16(), serde_json::from_str(&text).unwrap())
    }

    async fn patch(&self, fields: &Value) {
        let path = self.place("");
        let (status, answer) = self
            .api
            .send(Method::PATCH, &path, fields.to_string())
            .await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_a_pointer_to_the_field() {
    let world = World::new(json!({})).await.contacted().await;
    let policy =
        |field: &str, value: Value| json!({ "mode": "proven", "policy": { field: value } });
    let month = 30 * 24 * 60 * 60;
    let cases = [
        // The deadline before the hold-down.
        (
            policy("deadlineMillis", json!(60_000)),
            "/policy/deadlineMillis",
        ),
        // No passes, with proof required.
        (
            policy("confidencePercent", json!(0)),
            "/policy/confidencePercent",
        ),
        (
            json!({ "mode": "proven", "policy": { "confidencePercent": 50, "stalePercent": 50 } }),
            "/policy/stalePercent",
        ),
        (
            policy("deadlineMillis", json!((month + 1) * 1_000_i64)),
            "/policy/deadlineMillis",
        ),
        (
            policy("holdDownMillis", json!(month * 500_i64)),
            "/policy/holdDownMillis",
        ),
        (
            policy("canaryPercent", json!([10, 1, 50])),
            "/policy/canaryPercent",
        ),
        (policy("probesPerHour", json!(0)), "/policy/probesPerHour"),
        (
            policy("holdDownMillis", json!(-1)),
            "/policy/holdDownMillis",
        ),
        (policy("passes", json!(3)), "/policy/passes"),
        (
            json!({ "mode": "overlap", "overlapSeconds": month + 1 }),
            "/overlapSeconds",
        ),
        (
            json!({ "mode": "staged", "overlapSeconds": month + 1 }),
            "/overlapSeconds",
        ),
        (
            json!({ "mode": "immediate", "overlapSeconds": 1 }),
            "/overlapSeconds",
        ),
        (
            json!({ "mode": "proven", "overlapSeconds": 1 }),
            "/overlapSeconds",
        ),
        (json!({ "mode": "overlap", "policy": {} }), "/policy"),
    ];
    for (body, pointer) in cases {
        let (status, problem) = world.refused(&world.rotations(), &body).await;
        assert_eq!(status, 422, "{body}: {problem}");
        assert_eq!(
            problem["errors"][0]["pointer"], pointer,
            "{body}: {problem}"
        );
    }
    let keyring = format!("/v1/keyrings/{}", world.endpoint.keyring_id);
    assert_eq!(
        world.api.get(&keyring).await["secrets"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    world.server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_proved_is_said_with_another_way() {
    let world = World::new(json!({})).await;
    let rehearse = format!("/v1/endpoints/{}/rehearse", world.endpoint.id);
    let proven = json!({ "mode": "proven" });
    let cases = [
        (None, "never_contacted"),
        (Some(json!({ "probe": { "mode": "off" } })), "probes_off"),
        (
            Some(json!({ "state": "paused", "probe": {} })),
            "endpoint_not_enabled",
        ),
        (Some(json!({ "state": "disabled" })), "endpoint_not_enabled"),
    ];
    for (fields, code) in cases {
        if let Some(fields) = &fields {
            world.patch(fields).await;
        }
        for (path, body) in [(&rehearse, &json!({})), (&world.rotations(), &proven)] {
            let (status, problem) = world.refused(path, body).await;
            assert_eq!((status, &problem["code"]), (409, &json!(code)), "{problem}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("mode overlap"), "{detail}");
        }
    }
    // The other way works, and a second rotation names it.
    let open = world
        .api
        .rotate(&world.endpoint.keyring_id, &json!({ "mode": "overlap" }))
        .await;
    for mode in ["overlap", "staged"] {
        let (status, problem) = world
            .refused(&world.rotations(), &json!({ "mode": mode }))
            .await;
        assert_eq!((status, &problem["code"]), (409, &json!("rotation_open")));
        assert_eq!(problem["openRotationId"], json!(open.id));
    }
    world.server.stop().await;
}

/// A policy that asks at once and again and again.
fn hasty() -> Value {
    json!({ "mode": "proven", "policy": { "probeEveryMillis": 1, "probeBackOffMaxMillis": 2,
        "holdDownMillis": 0, "quietMillis": 1_000, "confidencePercent": 50, "stalePercent": 40 } })
}

/// The evidence of the one endpoint, once `enough` probes were answered.
async fn after_probes(world: &mut World, rotation: &str, enough: usize) -> Value {
    let path = format!("/v1/endpoints/{}/probes", world.endpoint.id);
    loop {
        world.receiver.next().await;
        let probes = world.api.get(&path).await;
        if probes["data"].as_array().unwrap().len() >= enough {
            return world.api.get(&format!("/v1/rotations/{rotation}")).await["endpoints"][0]
                .take();
        }
    }
}

#[tokio::test]
async fn a_target_that_answers_5xx_is_unreachable_and_neither_ready_nor_not_ready() {
    for status in [500, 502, 503, 504] {
        let mut world = World::new(json!({})).await.contacted().await;
        world.answers(status);
        let opened = world.api.rotate(&world.endpoint.keyring_id, &hasty()).await;
        let evidence = after_probes(&mut world, &opened.id, 6).await;
        assert_eq!(evidence["standing"], "unreachable", "{status}: {evidence}");
        assert_eq!(evidence["passes"], 0, "{status}: {evidence}");
        let rehearse = format!("/v1/endpoints/{}/rehearse", world.endpoint.id);
        let (found, body) = loop {
            let (found, body) = world
                .api
                .send(Method::POST, &rehearse, "{}".to_owned())
                .await;
            // The sweep's own probe may be under way.
            if found != StatusCode::CONFLICT {
                break (found, body);
            }
            world.receiver.next().await;
        };
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (found.as_u16(), &body["class"]),
            (200, &json!("unreachable")),
            "{body}"
        );
        // Probes are no deliveries: nothing failed as far as disabling is concerned.
        let endpoint = world.api.get(&world.place("")).await;
        assert!(
            endpoint["receiver"].get("failingSince").is_none(),
            "{endpoint}"
        );
        assert_eq!(endpoint["state"], "enabled");
        world.server.stop().await;
    }
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_unreachable() {
    let mut world = World::new(json!({ "timeoutMillis": 1_000 }))
        .await
        .contacted()
        .await;
    world.answers(401);
    let opened = world.api.rotate(&world.endpoint.keyring_id, &hasty()).await;
    // What it refused before unsays nothing of its silence.
    let evidence = after_probes(&mut world, &opened.id, 2).await;
    assert_eq!(evidence["standing"], "not_ready", "{evidence}");
    world.answers(NOTHING);
    let path = format!("/v1/rotations/{}", opened.id);
    let unreachable = async {
        loop {
            world.receiver.next().await;
            let endpoint = world.api.get(&path).await["endpoints"][0].take();
            if endpoint["standing"] == "unreachable" {
                return;
            }
        }
    };
    support::within_deadline("it is unreachable", unreachable).await;
    let probes = format!("/v1/endpoints/{}/probes", world.endpoint.id);
    let probes = world.api.get(&probes).await;
    let silent = probes["data"].as_array().unwrap().iter();
    let silent = silent.clone().find(|probe| probe["answer"] == "silent");
    assert!(silent.unwrap()["failure"].is_string(), "{probes}");
    world.server.stop().await;
}

#[tokio::test]
async fn commands_are_audited_guarded_by_if_match_and_say_what_happens_to_deliveries() {
    let world = World::new(json!({})).await.contacted().await;
    let cases = [
        (
            "staged",
            "promote",
            json!({}),
            "rotation.promoted",
            "until ",
        ),
        (
            "proven",
            "promote",
            json!({ "force": true }),
            "rotation.promoted",
            "until ",
        ),
        (
            "overlap",
            "extend",
            json!({}),
            "rotation.extended",
            "until ",
        ),
        (
            "overlap",
            "finish",
            json!({}),
            "rotation.finished",
            "the new secret alone",
        ),
        (
            "overlap",
            "undo",
            json!({}),
            "rotation.undone",
            "the active one again",
        ),
        (
            "staged",
            "cancel",
            json!({}),
            "rotation.cancelled",
            "the old secret alone",
        ),
        (
            "proven",
            "cancel",
            json!({}),
            "rotation.cancelled",
            "the old secret alone",
        ),
    ];
    for case in cases {
        carry_out(&world, case).await;
    }
    world.server.stop().await;
}

/// Opens a rotation and gives the command twice: with an old version, and with the right one.
async fn carry_out(
    world: &World,
    (mode, command, mut body, action, said): (&str, &str, Value, &str, &str),
) {
    let opened = json!({ "mode": mode });
    let path = world.rotations();
    let opened = world
        .api
        .exchange(Method::POST, &path, &[], opened.to_string())
        .await;
    assert_eq!(opened.status(), 201, "{mode} {command}");
    let id: Value = serde_json::from_slice(opened.body()).unwrap();
    assert!(id["deliveries"].is_string(), "{id}");
    let rotation = format!("/v1/rotations/{}", id["id"].as_str().unwrap());
    let shown = world
        .api
        .exchange(Method::GET, &rotation, &[], String::new())
        .await;
    let tag = shown.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(opened.headers()["etag"], tag.as_str());
    let path = format!("{rotation}/{command}");
    if command == "extend" {
        let shown: Value = serde_json::from_slice(shown.body()).unwrap();
        let end: hookturn_core::time::Timestamp =
            shown["retireAt"].as_str().unwrap().parse().unwrap();
        body["retireAt"] = end.after(1_000).to_string().into();
    }
    body["reason"] = "because".into();
    let ask = |tag: String| {
        let (api, path, body) = (world.api.clone(), path.clone(), body.to_string());
        async move {
            api.exchange(Method::POST, &path, &[("if-match", &tag)], body)
                .await
        }
    };
    let stale = ask("\"1\"".to_owned()).await;
    assert_eq!(stale.status(), 412, "{mode} {command}");
    let done = ask(tag.clone()).await;
    let text = String::from_utf8_lossy(done.body()).into_owned();
    assert_eq!(done.status(), 200, "{mode} {command}: {text}");
    assert_ne!(done.headers()["etag"], tag.as_str(), "{mode} {command}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let sentence = answer["deliveries"].as_str().unwrap();
    assert!(sentence.contains(said), "{mode} {command}: {sentence}");
    let log = world.api.get("/v1/audit?limit=200").await;
    let mut entries = log["data"].as_array().unwrap().iter();
    let noted = entries.any(|entry| entry["action"] == action && entry["reason"] == "because");
    assert!(noted, "{mode} {command}: {log}");
    // What an undo keeps is live until then too.
    if answer["open"] == true || command == "undo" {
        let finish = format!("{rotation}/finish");
        world.api.post(&finish, &json!({})).await;
    }
}

#[tokio::test]
async fn probes_are_what_their_owner_chose_and_can_be_looked_at() {
    let chosen = json!({ "probe": { "eventType": "ping.me", "body": { "probe": "mine" } } });
    let mut world = World::new(chosen).await.contacted().await;
    world.receiver.next().await;
    let shown = world.api.get(&world.place("")).await;
    assert_eq!(
        shown["probe"],
        json!({ "mode": "on", "eventType": "ping.me", "body": { "probe": "mine" } })
    );
    world.answers(401);
    let rehearse = format!("/v1/endpoints/{}/rehearse", world.endpoint.id);
    let found = world.api.post(&rehearse, &json!({})).await;
    assert_eq!(found["class"], "unknown", "{found}");
    let sent = world.receiver.next().await;
    let envelope: Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!(envelope["event"], "ping.me", "{envelope}");
    assert!(sent.text().contains("\"mine\""), "{envelope}");
    let path = format!("/v1/endpoints/{}/probes", world.endpoint.id);
    let probes = world.api.get(&path).await;
    let probe = &probes["data"][0];
    assert_eq!(
        (&probe["purpose"], &probe["answer"]),
        (&json!("rehearsal"), &json!("refused"))
    );
    assert_eq!(probe["status"], 401);
    assert!(
        probe["signedWith"][0].as_str().unwrap().starts_with("whs_"),
        "{probe}"
    );
    // The list is bounded.
    world.answers(503);
    let opened = world.api.rotate(&world.endpoint.keyring_id, &hasty()).await;
    let mut shown = 0;
    for _ in 0..64 {
        after_probes(&mut world, &opened.id, 1).await;
        shown = world.api.get(&path).await["data"].as_array().unwrap().len();
        if shown >= 32 {
            break;
        }
    }
    assert!(shown <= 32, "{shown}");
    let metrics = world
        .api
        .send(Method::GET, "/metrics", String::new())
        .await
        .1;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let counted = "hookturn_probes_total{signed_with=\"secret\",answer=\"refused\"}";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(
        !metrics.contains(&world.receiver.origin()),
        "no URL is a label"
    );
    let too_large = json!({ "probe": { "body": "x".repeat(5_000) } }).to_string();
    let (status, _) = world
        .api
        .send(Method::PATCH, &world.place(""), too_large)
        .await;
    assert_eq!(status, 422);
    world.server.stop().await;
}

#[tokio::test]
async fn an_attempt_shows_which_secret_signed_and_why() {
    let mut world = World::new(json!({ "secretName": "first" })).await;
    let reasons = |delivery: &Value| -> Vec<(String, String)> {
        let exchanges = delivery["attempts"][0]["exchanges"].as_array().unwrap();
        exchanges
            .iter()
            .map(|exchange| {
                assert!(exchange["because"].is_string(), "{exchange}");
                let name = exchange["signedWith"][0]["name"].as_str().unwrap();
                (
                    exchange["reason"].as_str().unwrap().to_owned(),
                    name.to_owned(),
                )
            })
            .collect()
    };
    let steady = delivered(&mut world).await;
    assert_eq!(
        reasons(&steady),
        [("steady".to_owned(), "first".to_owned())]
    );
    let opened = json!({ "mode": "staged", "name": "second" });
    let rotation = world.api.rotate(&world.endpoint.keyring_id, &opened).await;
    world.answers(401);
    let refused = attempted(&mut world).await;
    let expected = [("current", "first"), ("fallback", "second")];
    let expected = expected.map(|(reason, name)| (reason.to_owned(), name.to_owned()));
    assert_eq!(reasons(&refused), expected);
    let shown = world
        .api
        .get(&format!("/v1/rotations/{}", rotation.id))
        .await;
    let evidence = &shown["endpoints"][0];
    assert!(evidence["fallbacks"].as_u64() >= Some(1), "{shown}");
    assert!(
        evidence["coverage"]
            .as_str()
            .unwrap()
            .starts_with("0 of 59"),
        "{shown}"
    );
    world.server.stop().await;
}

async fn delivered(world: &mut World) -> Value {
    attempted(world).await
}

/// Publishes and waits for the record of the first attempt.
async fn attempted(world: &mut World) -> Value {
    let message = world.api.publish(&world.app, "shown.once", "{}").await;
    let path = format!("/v1/apps/{}/deliveries?messageId={message}", world.app);
    loop {
        world.receiver.next().await;
        let listed = world.api.get(&path).await;
        let Some(id) = listed["data"][0]["id"].as_str() else {
            continue;
        };
        let detail = world.api.get(&format!("/v1/deliveries/{id}")).await;
        if !detail["attempts"].as_array().unwrap().is_empty() {
            return detail;
        }
        // Its record follows within moments; the next request is that of another message.
        world.api.publish(&world.app, "shown.again", "{}").await;
    }
}

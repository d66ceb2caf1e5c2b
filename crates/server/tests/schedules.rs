//! Schedules of the running program, by its command line: what they will open is shown before they do.
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

use std::process::Command;

use hookturn_core::time::{DAY, Timestamp};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use support::{Api, Receiver, Server};

/// Runs a command and answers whether it succeeded, with what it printed.
fn hookturn(api: &Api, arguments: &[&str]) -> (bool, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_hookturn"))
        .args(arguments)
        .env_clear()
        .env("HOOKTURN_SERVER", format!("http://{}", api.address))
        .env("HOOKTURN_API_KEY", api.key)
        .output()
        .unwrap();
    let mut text = String::from_utf8(ran.stdout).unwrap();
    if !ran.status.success() {
        text.push_str(&String::from_utf8(ran.stderr).unwrap());
    }
    (ran.status.success(), text)
}

/// The same for a command that must succeed, with the API's own JSON.
fn json_of(api: &Api, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--output", "json"]].concat();
    let (done, text) = hookturn(api, &arguments);
    assert!(done, "{arguments:?}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_made_shown_changed_and_deleted_and_survives_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let receiver = Receiver::start().await;
    let endpoint = json!({ "url": receiver.origin() });
    let endpoint = api.create_endpoint(&app, &endpoint).await;
    let made = json_of(
        &api,
        &[
            "schedule",
            "create",
            "ninety days",
            "--app",
            &app,
            "--every-days",
            "90",
            "--jitter",
            "6h",
        ],
    );
    let preview = made["preview"].as_array().unwrap();
    assert_eq!((preview.len(), &made["keyrings"]), (5, &json!(1)));
    for (earlier, opening) in preview.iter().zip(&preview[1..]) {
        assert_eq!(opening["keyringId"], endpoint.keyring_id);
        let (due, opens) = (time(&opening["dueAt"]), time(&opening["opensAt"]));
        assert!(due <= opens && opens.since(due) <= DAY / 4, "{opening}");
        assert!(due.since(time(&earlier["dueAt"])) >= 90 * DAY, "{opening}");
    }
    let (done, text) = hookturn(&api, &["schedule", "list"]);
    assert!(done && text.contains("ninety days"), "{text}");
    let id = made["id"].as_str().unwrap();
    let changed = json_of(
        &api,
        &[
            "schedule",
            "update",
            id,
            "--day-of-month",
            "31",
            "--time",
            "04:30",
            "--time-zone",
            "Europe/Berlin",
            "--weekly-blackout",
            "sat 00:00-mon 08:00",
            "--date-blackout",
            "2026-12-20..2027-01-10",
            "--if-version",
            "1",
        ],
    );
    assert_eq!(
        (&changed["version"], &changed["everyDays"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(
        changed["calendar"],
        json!({ "everyMonths": 1, "dayOfMonth": 31, "time": "04:30" })
    );
    assert_eq!(changed["preview"].as_array().unwrap().len(), 5);
    server.stop().await;

    let server = Server::start(data.path()).await;
    let api = server.api();
    let kept = json_of(&api, &["schedule", "show", id]);
    assert_eq!(
        kept["preview"], changed["preview"],
        "the same openings after a restart"
    );
    assert_eq!(kept["since"], changed["since"]);
    let paused = json_of(&api, &["schedule", "update", id, "--paused", "true"]);
    assert_eq!(paused["preview"], json!([]));
    let (done, text) = hookturn(&api, &["schedule", "update", id, "--if-version", "1"]);
    assert!(!done && text.contains("version"), "{text}");
    let (done, text) = hookturn(&api, &["schedule", "delete", id]);
    assert!(done, "{text}");
    let (status, _) = api
        .send(Method::GET, &format!("/v1/schedules/{id}"), String::new())
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let log = api.get("/v1/audit?limit=200").await;
    let actions = log["data"].as_array().unwrap().iter();
    let actions: Vec<&str> = actions
        .filter_map(|entry| entry["action"].as_str())
        .filter(|action| action.starts_with("schedule."))
        .collect();
    let wanted = [
        "schedule.created",
        "schedule.updated",
        "schedule.updated",
        "schedule.deleted",
    ];
    assert_eq!(actions, wanted);
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_a_schedule_is_refused_with_a_pointer() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let keyring = "kr_01k9x6z8e5f3v9m2c7q4t1h0ab";
    let calendar = |zone: &str| {
        json!({ "name": "a", "timeZone": zone,
            "calendar": { "dayOfMonth": 1, "time": "24:00" } })
    };
    let cases = [
        (json!({ "name": "a" }), "/everyDays"),
        (json!({ "name": " ", "everyDays": 1 }), "/name"),
        (json!({ "name": "a", "everyDays": 0 }), "/everyDays"),
        (
            json!({ "name": "a", "everyDays": 1, "keyringId": keyring }),
            "/keyringId",
        ),
        (
            json!({ "name": "a", "everyDays": 1, "keyringId": keyring, "clientId": "a1B2c3D4" }),
            "/clientId",
        ),
        (
            json!({ "name": "a", "everyDays": 1, "timeZone": "Europe/Atlantis" }),
            "/timeZone",
        ),
        (calendar("UTC"), "/calendar/time"),
        (
            json!({ "name": "a", "everyDays": 1, "jitterSeconds": 604_801 }),
            "/jitterSeconds",
        ),
        (
            json!({ "name": "a", "everyDays": 1, "policy": { "deadlineMillis": 1 } }),
            "/policy/deadlineMillis",
        ),
        (
            json!({ "name": "a", "everyDays": 1, "dateBlackouts": [{ "from": "2026-12-24", "until": "2026-12-01" }] }),
            "/dateBlackouts/0/until",
        ),
    ];
    for (body, pointer) in cases {
        let (status, answer) = api
            .send(Method::POST, "/v1/schedules", body.to_string())
            .await;
        let problem: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(
            status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{body}: {problem}"
        );
        assert_eq!(
            problem["errors"][0]["pointer"], pointer,
            "{body}: {problem}"
        );
    }
    server.stop().await;
}

//! Rotations that prove themselves, against the running program: a zoo of receivers that deploy the
//! new secret at different moments, or never.
//!
//! Time is compressed by the policy's own fields. Nothing sleeps: each round publishes a message, waits
//! for the next request that any receiver gets, and looks at the rotation. The same zoo with every
//! moment of deploying, in every scheme, is in `deadlines`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "proven/deadlines.rs"]
mod deadlines;
#[path = "proven/once.rs"]
mod once;
#[expect(
    dead_code,
    unused_imports,
    reason = "these tests use a part of it only"
)]
mod support;
#[path = "proven/zoo.rs"]
mod zoo;

use hookturn::telemetry::SystemClock;
use hookturn_core::time::Clock as _;
use http::Method;
use serde_json::{Value, json};

use support::{Api, Server};
use zoo::{Animal, Beast, Deploys, Reads};

/// Rounds after which a rotation that should be over is given up.
const ROUNDS: usize = 3_000;

/// A policy whose times are those of a test: eight passes, and a fifth of a second here and there.
fn policy() -> Value {
    json!({
        "confidencePercent": 80,
        "stalePercent": 20,
        "holdDownMillis": 200,
        "probeEveryMillis": 5,
        "probeBackOffMaxMillis": 100,
        "probesPerHour": 100_000,
        "quietMillis": 300,
        "deadlineMillis": 600_000,
        "canaryPercent": [10, 50, 50],
    })
}

/// A message is delivered, so that the endpoint may be probed.
async fn warm_up(api: &Api, app: &str, beast: &mut Beast) {
    api.publish(app, "zoo.begins", "{}").await;
    loop {
        beast.receiver.next().await;
        let path = format!("/v1/apps/{app}/deliveries?status=delivered");
        if !api.get(&path).await["data"].as_array().unwrap().is_empty() {
            // What was committed before a write is in the server's memory when that is answered.
            api.create_app("after it").await;
            return;
        }
        api.publish(app, "zoo.begins", "{}").await;
    }
}

async fn counted(api: &Api, app: &str, status: &str) -> usize {
    let path = format!("/v1/apps/{app}/deliveries?status={status}&limit=200");
    api.get(&path).await["data"].as_array().unwrap().len()
}

/// Rotates one animal's secret and returns the rotation as it was at the end.
async fn rotate(api: &Api, animal: Animal) -> (Value, Beast) {
    let app = api.create_app(animal.name).await;
    let mut beast = Beast::start(animal).await;
    let endpoint = json!({
        "url": beast.receiver.origin(),
        "preset": animal.preset,
        "retry": { "delaysMillis": [20, 20, 20, 20, 20, 20, 20, 20, 20, 20] },
    });
    let endpoint = api.create_endpoint(&app, &endpoint).await;
    beast.hold_old(&endpoint.secret.value);
    warm_up(api, &app, &mut beast).await;
    let rehearsed = format!("/v1/endpoints/{}/rehearse", endpoint.id);
    let found = api.post(&rehearsed, &json!({})).await;
    assert_eq!(found["class"], animal.class(), "{}: {found}", animal.name);
    let opened = json!({ "mode": "proven", "policy": policy() });
    let opened = api.rotate(&endpoint.keyring_id, &opened).await;
    beast.hold_new(&opened.secret.value);
    let path = format!("/v1/rotations/{}", opened.id);
    for round in 0..ROUNDS {
        beast.deploy_by(round);
        api.publish(&app, "zoo.fed", &format!("{{\"round\":{round}}}"))
            .await;
        beast.receiver.next().await;
        let rotation = api.get(&path).await;
        if rotation["open"] == false || animal.is_settled(&rotation["endpoints"][0], round) {
            drain(api, &app, &beast).await;
            return (api.get(&path).await, beast);
        }
    }
    panic!("{}: {}", animal.name, api.get(&path).await);
}

/// Waits until nothing is pending; every message must have been delivered. It only looks: were it to publish
/// between two looks, as something to wait for, there would be something pending at nearly every one of them.
async fn drain(api: &Api, app: &str, beast: &Beast) {
    let settled = async { while counted(api, app, "pending").await > 0 {} };
    support::within_deadline("nothing is pending", settled).await;
    let path = format!("/v1/apps/{app}/deliveries?status=exhausted");
    let lost = api.get(&path).await["data"].take();
    let Some(first) = lost.get(0) else { return };
    let detail = format!("/v1/deliveries/{}", first["id"].as_str().unwrap());
    let detail = api.get(&detail).await;
    panic!("{}: messages were lost: {lost} {detail}", beast.name());
}

async fn in_a_server(animals: &[Animal]) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    for animal in animals {
        let (rotation, beast) = rotate(&api, *animal).await;
        let name = animal.name;
        let endpoint = &rotation["endpoints"][0];
        match animal.deploys {
            Deploys::Never => {
                assert_eq!(rotation["stage"], "staged", "{name}: {rotation}");
                assert_eq!(endpoint["standing"], "not_ready", "{name}: {rotation}");
            }
            Deploys::AfterRounds(_) if animal.reads == Reads::Nothing => {
                assert_eq!(rotation["stage"], "staged", "{name}: {rotation}");
                assert_eq!(endpoint["standing"], "does_not_verify", "{name}");
            }
            Deploys::AfterRounds(_) => {
                assert_eq!(rotation["stage"], "completed", "{name}: {rotation}");
                assert_eq!(rotation["promotion"]["grounds"], "proof", "{name}");
                let passes = rotation["promotion"]["proved"][0]["passes"].as_u64();
                assert!(passes >= Some(8), "{name}: {rotation}");
                assert!(beast.deployed_before_promotion(), "{name}");
                // It was asked before the old secret was retired, and holds the new one alone.
                let released = &endpoint["released"]["release"];
                assert!(released.is_string(), "{name}: {rotation}");
                assert_ne!(released, "still_accepts", "{name}: {rotation}");
            }
        }
        // Of a fleet that mixes old and new, some machine refuses whichever key signs, for as long as
        // it mixes them.
        let refused = beast.refused_exchanges();
        assert!(
            refused <= 30 || animal.machines > 1,
            "{name}: {refused} exchanges were refused"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn g7_standard_receivers_of_every_class_prove_themselves_and_lose_nothing() {
    let standard = |name, reads| Animal::new(name, "standard", reads);
    in_a_server(&[
        standard("list-aware", Reads::Any),
        standard("first only", Reads::First).deploys(Deploys::AfterRounds(20)),
        standard("last only", Reads::Last).deploys(Deploys::AfterRounds(40)),
        standard("throws", Reads::First)
            .refusing(500)
            .deploys(Deploys::AfterRounds(20)),
        standard("flapping", Reads::Any)
            .flapping()
            .deploys(Deploys::AfterRounds(10)),
    ])
    .await;
}

#[tokio::test]
async fn g7_receivers_of_one_signature_prove_themselves_and_lose_nothing() {
    in_a_server(&[
        Animal::new("hopae", "hopae", Reads::Any).deploys(Deploys::AfterRounds(20)),
        Animal::new("github", "github", Reads::Any),
        Animal::new("kore", "kore", Reads::Any).deploys(Deploys::AfterRounds(10)),
    ])
    .await;
}

#[tokio::test]
async fn g7_a_rolling_fleet_of_four_is_promoted_when_all_of_it_has_deployed() {
    in_a_server(&[Animal::new("fleet", "hopae", Reads::Any)
        .fleet(4)
        .deploys(Deploys::AfterRounds(15))])
    .await;
}

#[tokio::test]
async fn g7_what_never_deploys_or_verifies_nothing_is_never_promoted() {
    in_a_server(&[
        Animal::new("never", "standard", Reads::Any).deploys(Deploys::Never),
        Animal::new("does not verify", "standard", Reads::Nothing),
        Animal::new("does not verify either", "hopae", Reads::Nothing),
    ])
    .await;
}

#[tokio::test]
async fn g7_an_unproved_rotation_is_promoted_by_force_only_and_that_is_audited() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let animal = Animal::new("stubborn", "hopae", Reads::Any).deploys(Deploys::Never);
    let (rotation, _beast) = rotate(&api, animal).await;
    let path = format!("/v1/rotations/{}/promote", rotation["id"].as_str().unwrap());
    let (status, body) = api.send(Method::POST, &path, "{}".to_owned()).await;
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status.as_u16(), &problem["code"]),
        (409, &json!("not_proven"))
    );
    let force = json!({ "force": true, "reason": "the receiver is ours" });
    let promoted = api.post(&path, &force).await;
    assert_eq!(promoted["promotion"]["grounds"], "force");
    let log = api.get("/v1/audit?limit=50").await;
    let entry = log["data"].as_array().unwrap().iter();
    let entry = entry
        .clone()
        .find(|entry| entry["action"] == "rotation.promoted");
    let entry = entry.unwrap();
    assert_eq!(entry["detail"]["grounds"], "force");
    assert_eq!(entry["reason"], "the receiver is ours");
    server.stop().await;
}

/// Promoted by force before the receiver deployed, and nothing is published: probes tell that it lacks the
/// new secret, so the old one stays, and goes when they tell that it does not any more.
#[tokio::test]
async fn g6_the_old_secret_stays_while_probes_are_refused_and_nothing_is_published() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let animal = Animal::new("forced", "hopae", Reads::Any).deploys(Deploys::Never);
    let (rotation, mut beast) = rotate(&api, animal).await;
    let path = format!("/v1/rotations/{}", rotation["id"].as_str().unwrap());
    let promote = format!("{path}/promote");
    api.post(&promote, &json!({ "force": true })).await;
    // Five quiet times, told by the probes.
    let late = SystemClock.now().after(1_500);
    while SystemClock.now() < late {
        beast.receiver.next().await;
    }
    let kept = api.get(&path).await;
    assert_eq!(
        (&kept["stage"], &kept["endpoints"][0]["standing"]),
        (&json!("overlap"), &json!("not_ready")),
        "{kept}"
    );
    beast.deploy_at(vec![SystemClock.now()]);
    // Nothing is sent once it is over, so it is looked at instead.
    let over = async { while api.get(&path).await["open"] == true {} };
    support::within_deadline("the rotation is over", over).await;
    let log = api.get("/v1/audit?limit=50").await;
    let mut entries = log["data"].as_array().unwrap().iter();
    let over = entries.find(|entry| entry["action"] == "rotation.completed");
    let known = &over.unwrap()["detail"];
    let told = ["endpoints", "acceptNew", "refuseNew", "acceptOld"].map(|name| &known[name]);
    assert_eq!(told, ["1", "1", "0", "0"], "{known}");
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_proved_about_an_endpoint_that_never_accepted_anything() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let app = api.create_app("silent").await;
    let beast = Beast::start(Animal::new("silent", "standard", Reads::Any)).await;
    let endpoint = json!({ "url": beast.receiver.origin() });
    let endpoint = api.create_endpoint(&app, &endpoint).await;
    let rehearse = format!("/v1/endpoints/{}/rehearse", endpoint.id);
    let open = format!("/v1/keyrings/{}/rotations", endpoint.keyring_id);
    for (path, body) in [(rehearse, "{}"), (open.clone(), r#"{"mode":"proven"}"#)] {
        let (status, body) = api.send(Method::POST, &path, body.to_owned()).await;
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (status.as_u16(), &problem["code"]),
            (409, &json!("never_contacted"))
        );
        assert!(
            problem["detail"].as_str().unwrap().contains("overlap"),
            "{problem}"
        );
    }
    let impossible = r#"{"mode":"proven","policy":{"deadlineMillis":1}}"#;
    let (status, body) = api.send(Method::POST, &open, impossible.to_owned()).await;
    assert!(
        status.is_client_error(),
        "{}",
        String::from_utf8_lossy(&body)
    );
    server.stop().await;
}

/// A leaked secret is asked about while it is retiring, and signs nothing once it is retired.
#[tokio::test]
async fn g4_a_secret_signs_the_question_whether_it_is_released_until_it_is_retired() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let app = api.create_app("leaked").await;
    let mut beast = Beast::start(Animal::new("late", "standard", Reads::Any)).await;
    let endpoint = json!({ "url": beast.receiver.origin() });
    let endpoint = api.create_endpoint(&app, &endpoint).await;
    beast.hold_old(&endpoint.secret.value);
    warm_up(&api, &app, &mut beast).await;
    let staged = api
        .rotate(&endpoint.keyring_id, &json!({ "mode": "staged" }))
        .await;
    let ask = |id: &str| format!("/v1/rotations/{id}/released");
    let (status, body) = api
        .send(Method::POST, &ask(&staged.id), "{}".to_owned())
        .await;
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status.as_u16(), &problem["code"]),
        (409, &json!("nothing_released"))
    );
    let cancel = format!("/v1/rotations/{}/cancel", staged.id);
    api.post(&cancel, &json!({})).await;
    let leaked = json!({ "mode": "overlap", "overlapSeconds": 3_600 });
    let leaked = api.rotate(&endpoint.keyring_id, &leaked).await;
    let report = api
        .post(&ask(&leaked.id), &json!({ "reason": "leaked" }))
        .await;
    assert_eq!(report["stillAccept"], 1, "{report}");
    assert!(
        report["words"].as_str().unwrap().contains("still accept"),
        "{report}"
    );
    beast.hold_new(&leaked.secret.value);
    beast.deploy_by(0);
    let report = api.post(&ask(&leaked.id), &json!({})).await;
    assert_eq!(
        (&report["released"], &report["stillAccept"]),
        (&json!(1), &json!(0))
    );
    let shown = api.get(&format!("/v1/rotations/{}", leaked.id)).await;
    assert_eq!(
        shown["endpoints"][0]["released"]["release"], "released",
        "{shown}"
    );
    let finish = format!("/v1/rotations/{}/finish", leaked.id);
    api.post(&finish, &json!({})).await;
    let (status, body) = api
        .send(Method::POST, &ask(&leaked.id), "{}".to_owned())
        .await;
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status.as_u16(), &problem["code"]),
        (409, &json!("secret_retired"))
    );
    let log = api.get("/v1/audit?limit=200").await;
    let asked = log["data"].as_array().unwrap().iter();
    let asked = asked.filter(|entry| entry["action"] == "rotation.release_asked");
    assert_eq!(asked.count(), 2);
    server.stop().await;
}

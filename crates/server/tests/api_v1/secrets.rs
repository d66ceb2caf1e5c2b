//! Keyrings, secrets and rotations: values are shown once, fingerprints everywhere.

use serde_json::{Value, json};

use crate::bench::Bench;

async fn keyring(bench: &Bench) -> (String, Value) {
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    (
        format!("/v1/keyrings/{}", endpoint["keyringId"].as_str().unwrap()),
        endpoint,
    )
}

#[tokio::test]
async fn values_are_in_the_answer_that_made_them_and_in_no_other() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    let keyring = format!("/v1/keyrings/{}", endpoint["keyringId"].as_str().unwrap());
    let rotation = bench
        .post(&format!("{keyring}/rotations"), json!({"mode": "overlap"}))
        .await
        .ok();
    let imported = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let replaced = json!({"mode": "immediate", "secret": imported});
    let immediate = bench
        .post(&format!("{keyring}/rotations"), replaced)
        .await
        .ok();
    assert_eq!(immediate["secret"]["value"], imported);
    let values = [
        endpoint["secret"]["value"].as_str().unwrap(),
        rotation["secret"]["value"].as_str().unwrap(),
        imported,
    ];
    let rotation_path = format!("/v1/rotations/{}", rotation["id"].as_str().unwrap());
    for path in [
        &app,
        &format!("{app}/endpoints"),
        &format!("{app}/endpoints/{}", endpoint["id"].as_str().unwrap()),
        &keyring,
        &format!("{keyring}/secrets"),
        &rotation_path,
        "/v1/rotations",
        "/v1/audit?limit=200",
    ] {
        let reply = bench.get(path).await;
        assert_eq!(reply.status, 200, "{path} {}", reply.text);
        for value in values {
            assert!(!reply.text.contains(value), "{path}");
        }
    }
    let secrets = bench.get(&format!("{keyring}/secrets")).await.ok();
    let first = &secrets["data"][2];
    assert_eq!(first["fingerprint"], endpoint["secret"]["fingerprint"]);
    assert_eq!(first["fingerprint"].as_str().unwrap().len(), 8);
}

#[tokio::test]
async fn a_reveal_is_a_post_that_is_audited() {
    let bench = Bench::new().await;
    let (keyring, endpoint) = keyring(&bench).await;
    let secret = endpoint["secret"]["id"].as_str().unwrap();
    let path = format!("{keyring}/secrets/{secret}/reveal");
    bench.get(&path).await.problem(405, "method_not_allowed");
    let revealed = bench.ask("POST", &path).send().await.ok();
    assert_eq!(revealed["value"], endpoint["secret"]["value"]);
    let log = bench.get("/v1/audit?limit=200").await.ok();
    let last = log["data"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["action"], &last["subject"]["secretId"]),
        (&json!("secret.revealed"), &json!(secret))
    );
    let workspace = bench.get("/v1/workspaces").await.ok()["data"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let never = json!({"revealSecrets": "never"});
    let patched = bench
        .ask("PATCH", &format!("/v1/workspaces/{workspace}"))
        .json(&never)
        .send()
        .await;
    assert_eq!(patched.ok()["revealSecrets"], "never");
    let refused = bench.ask("POST", &path).send().await;
    refused.problem(409, "reveal_disabled");
}

#[tokio::test]
async fn create_and_activate_walk_through_a_staged_rotation() {
    let bench = Bench::new().await;
    let (keyring, first) = keyring(&bench).await;
    let made = bench
        .post(&format!("{keyring}/secrets"), json!({"name": "autumn"}))
        .await;
    assert_eq!(made.status, 201);
    let made = made.ok();
    assert_eq!(
        (&made["status"], &made["name"]),
        (&json!("pending"), &json!("autumn"))
    );
    assert_eq!(made["rotation"]["stage"], "staged");
    let twice = bench.post(&format!("{keyring}/secrets"), json!({})).await;
    let problem = twice.problem(409, "pending_exists");
    assert_eq!(problem["openRotationId"], made["rotation"]["id"]);
    let path = format!(
        "{keyring}/secrets/{}/activate",
        made["id"].as_str().unwrap()
    );
    let active = bench
        .post(&path, json!({"overlapSeconds": 3600}))
        .await
        .ok();
    assert_eq!(active["status"], "active");
    let view = bench.get(&keyring).await.ok();
    assert_eq!(view["openRotation"]["stage"], "overlap");
    assert_eq!(view["secrets"][0]["status"], "retiring");
    assert_eq!(view["secrets"][0]["id"], first["secret"]["id"]);
    assert!(view["secrets"][0]["retireAt"].is_string());
}

#[tokio::test]
async fn a_rotation_can_be_extended_undone_finished_and_cancelled() {
    let bench = Bench::new().await;
    let (keyring, _) = keyring(&bench).await;
    let rotate = |mode: &'static str| {
        let path = format!("{keyring}/rotations");
        let bench = &bench;
        async move {
            let opened = bench
                .post(&path, json!({"mode": mode, "reason": "test"}))
                .await
                .ok();
            format!("/v1/rotations/{}", opened["id"].as_str().unwrap())
        }
    };
    let act = |rotation: String, action: &'static str| {
        let bench = &bench;
        async move {
            bench
                .ask("POST", &format!("{rotation}/{action}"))
                .send()
                .await
        }
    };
    let staged = rotate("staged").await;
    act(staged.clone(), "finish")
        .await
        .problem(409, "nothing_retiring");
    assert_eq!(
        act(staged.clone(), "cancel").await.ok()["stage"],
        "cancelled"
    );
    let overlap = rotate("overlap").await;
    let before = bench.get(&overlap).await.ok();
    let body = json!({"retireAt": before["retireAt"]});
    bench
        .post(&format!("{overlap}/extend"), body)
        .await
        .problem(409, "not_later");
    let opened: hookturn_core::time::Timestamp =
        before["openedAt"].as_str().unwrap().parse().unwrap();
    let later = json!({"retireAt": opened.after(10 * 86_400_000).to_string()});
    assert_eq!(
        bench
            .post(&format!("{overlap}/extend"), later.clone())
            .await
            .ok()["retireAt"],
        later["retireAt"]
    );
    assert_eq!(
        act(overlap.clone(), "finish").await.ok()["stage"],
        "completed"
    );
    assert_eq!(act(overlap.clone(), "undo").await.ok()["stage"], "undone");
    assert_eq!(
        bench.get("/v1/rotations?state=open").await.ok()["data"],
        json!([])
    );
    assert_eq!(
        bench.get("/v1/rotations").await.ok()["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn the_shared_keyring_needs_its_first_secret() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let workspace = bench.get("/v1/workspaces").await.ok()["data"][0].clone();
    let endpoints = format!("{app}/endpoints");
    let ask = || {
        let body = json!({"url": "https://example.com", "preset": "kore", "keyring": "workspace"});
        bench.post(&endpoints, body)
    };
    ask().await.problem(409, "shared_keyring_empty");
    let keyring = workspace["sharedKeyringId"].as_str().unwrap();
    let made = bench
        .ask("POST", &format!("/v1/keyrings/{keyring}/secrets"))
        .send()
        .await
        .ok();
    assert_eq!(made["status"], "active");
    let endpoint = ask().await.ok();
    assert_eq!(
        (&endpoint["keyringId"], &endpoint["secret"]),
        (&json!(keyring), &Value::Null)
    );
}

#[tokio::test]
async fn an_ed25519_key_shows_its_public_half() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let body = json!({"url": "https://example.com", "secretType": "ed25519"});
    let endpoint = bench.post(&format!("{app}/endpoints"), body).await.ok();
    assert!(
        endpoint["secret"]["value"]
            .as_str()
            .unwrap()
            .starts_with("whsk_")
    );
    assert!(
        endpoint["secret"]["publicKey"]
            .as_str()
            .unwrap()
            .starts_with("whpk_")
    );
}

#[tokio::test]
async fn a_compromised_secret_is_marked_once() {
    let bench = Bench::new().await;
    let (keyring, endpoint) = keyring(&bench).await;
    let path = format!(
        "{keyring}/secrets/{}/compromise",
        endpoint["secret"]["id"].as_str().unwrap()
    );
    assert!(bench.ask("POST", &path).send().await.ok()["compromisedAt"].is_string());
    bench
        .ask("POST", &path)
        .send()
        .await
        .problem(409, "already_compromised");
    let foreign = format!("{keyring}/secrets/whs_00000000000000000000000000/compromise");
    bench
        .ask("POST", &foreign)
        .send()
        .await
        .problem(404, "not_found");
}

//! `rotate-secret` beside what is open, who may see the secret, and what the audit log says.

use serde_json::{Value, json};

use crate::desk::{Desk, checked, refused};

/// The app's keyring as the native API shows it.
async fn keyring(desk: &Desk) -> Value {
    let app = format!("/v1/apps/{}", desk.app);
    let id = desk.bench.get(&app).await.ok()["primaryEndpointId"].clone();
    let endpoint = format!("{app}/endpoints/{}", id.as_str().unwrap());
    let id = desk.bench.get(&endpoint).await.ok()["keyringId"].clone();
    desk.bench
        .get(&format!("/v1/keyrings/{}", id.as_str().unwrap()))
        .await
        .ok()
}

fn statuses(keyring: &Value) -> Vec<&str> {
    let secrets = keyring["secrets"].as_array().unwrap().iter();
    secrets
        .map(|secret| secret["status"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn g4_a_rotation_is_immediate_by_default() {
    let desk = Desk::new().await;
    let first = desk.secret().await;
    let second = desk.rotated().await;
    assert_ne!(first, second);
    assert_eq!(desk.secret().await, second);
    let keyring = keyring(&desk).await;
    assert_eq!(statuses(&keyring), ["retired", "active"]);
    assert!(keyring["openRotation"].is_null());
}

#[tokio::test]
async fn an_overlap_is_given_by_the_app_or_else_by_the_workspace() {
    // Of the workspace, of the app, what follows in seconds.
    for (workspace, app, wanted) in [
        (None, Some(600), Some(600)),
        (Some(900), None, Some(900)),
        (Some(900), Some(600), Some(600)),
        (Some(900), Some(0), None),
        (Some(0), None, None),
    ] {
        let desk = Desk::new().await;
        desk.workspace_setting(json!({ "rotationOverlapSeconds": workspace }))
            .await;
        let path = format!("/v1/apps/{}", desk.app);
        let setting = json!({ "rotationOverlapSeconds": app });
        desk.bench
            .ask("PATCH", &path)
            .json(&setting)
            .send()
            .await
            .ok();
        let secret = desk.rotated().await;
        assert_eq!(desk.secret().await, secret);
        let keyring = keyring(&desk).await;
        let open = &keyring["openRotation"];
        if let Some(seconds) = wanted {
            assert_eq!(statuses(&keyring), ["retiring", "active"]);
            assert_eq!(
                (&open["mode"], &open["overlapSeconds"]),
                (&json!("overlap"), &json!(seconds))
            );
        } else {
            assert_eq!(statuses(&keyring), ["retired", "active"]);
            assert!(open.is_null());
        }
    }
}

#[tokio::test]
async fn g5_a_second_rotation_in_an_overlap_is_a_conflict_that_loses_nothing() {
    let desk = Desk::new().await;
    desk.workspace_setting(json!({ "rotationOverlapSeconds": 3600 }))
        .await;
    let first = desk.secret().await;
    let key = "k-1";
    let second = desk.rotate(Some(key)).await;
    let secret = second.json()["secret"].as_str().unwrap().to_owned();
    let before = keyring(&desk).await;
    let open = before["openRotation"].clone();
    for key in [None, Some("k-2")] {
        let reply = desk.rotate(key).await;
        refused(&reply, 409, "RESOURCE_CONFLICT", None);
        let message = reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        let finish = format!("POST /v1/rotations/{}/finish", open["id"].as_str().unwrap());
        for part in [
            open["retireAt"].as_str().unwrap(),
            "nothing was changed",
            "GET webhook-config shows the current secret",
            &finish,
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        for value in [&first, &secret] {
            assert!(!reply.text.contains(value.as_str()));
        }
    }
    assert_eq!(keyring(&desk).await, before);
    assert_eq!(desk.secret().await, secret);
    assert_eq!(desk.rotate(Some(key)).await.text, second.text);
    let finish = format!("/v1/rotations/{}/finish", open["id"].as_str().unwrap());
    desk.bench.ask("POST", &finish).send().await.ok();
    assert_ne!(desk.rotated().await, secret);
    assert_eq!(
        statuses(&keyring(&desk).await),
        ["retired", "retiring", "active"]
    );
}

/// The conflict does not send anyone to where nothing is shown.
#[tokio::test]
async fn a_conflict_says_where_the_current_secret_is_only_where_it_is_shown() {
    let desk = Desk::new().await;
    let settings = json!({ "rotationOverlapSeconds": 3600, "revealSecrets": "never" });
    desk.workspace_setting(settings).await;
    desk.rotated().await;
    let reply = desk.rotate(None).await;
    refused(&reply, 409, "RESOURCE_CONFLICT", None);
    for part in [
        "does not show the current secret again",
        "nothing was changed",
    ] {
        assert!(reply.text.contains(part), "{}", reply.text);
    }
    assert!(!reply.text.contains("GET webhook-config"), "{}", reply.text);
}

#[tokio::test]
async fn a_pending_secret_stops_an_overlap_and_gives_way_to_an_immediate_rotation() {
    let desk = Desk::new().await;
    let path = format!(
        "/v1/keyrings/{}/secrets",
        keyring(&desk).await["id"].as_str().unwrap()
    );
    desk.bench.ask("POST", &path).send().await.ok();
    let open = keyring(&desk).await["openRotation"]["id"].clone();
    desk.workspace_setting(json!({ "rotationOverlapSeconds": 60 }))
        .await;
    let reply = desk.rotate(None).await;
    refused(&reply, 409, "RESOURCE_CONFLICT", None);
    assert!(
        reply.text.contains(open.as_str().unwrap()),
        "{}",
        reply.text
    );
    desk.workspace_setting(json!({ "rotationOverlapSeconds": null }))
        .await;
    let secret = desk.rotated().await;
    assert_eq!(desk.secret().await, secret);
    assert_eq!(
        statuses(&keyring(&desk).await),
        ["retired", "destroyed", "active"]
    );
}

#[tokio::test]
async fn g8_a_secret_is_shown_to_keys_with_the_scope_where_the_policy_lets_it() {
    let desk = Desk::new().await;
    let secret = desk.secret().await;
    let redacted = format!("whsec_****{}", &secret[secret.len() - 4..]);
    let reader = desk.bench.key(&["read", "manage"], "default").await;
    let holder = desk
        .bench
        .key(&["read", "manage", "secrets"], "default")
        .await;
    // Policy, key, what it sees.
    for (policy, key, wanted) in [
        ("allowed", &reader, &redacted),
        ("allowed", &holder, &secret),
        ("never", &reader, &redacted),
        ("never", &holder, &redacted),
    ] {
        desk.workspace_setting(json!({ "revealSecrets": policy }))
            .await;
        let before = desk.audit(&["secret.revealed"]).await.len();
        let path = desk.config_path();
        for method in ["GET", "PATCH"] {
            let ask = desk.bench.with_key(key, method, &path);
            let ask = if method == "PATCH" {
                ask.json(&json!({}))
            } else {
                ask
            };
            let config = checked(method, &path, ask.send().await).ok();
            assert_eq!(config["secret"], **wanted, "{method} {policy}");
        }
        let revealed = if *wanted == secret { 2 } else { 0 };
        assert_eq!(
            desk.audit(&["secret.revealed"]).await.len(),
            before + revealed,
            "{policy}"
        );
    }
    let app = desk.get(&desk.app_path()).await;
    let list = desk.get(crate::desk::APPS).await;
    for reply in [app, list] {
        assert!(!reply.text.contains("whsec_"), "{}", reply.text);
    }
}

#[tokio::test]
async fn a_secret_that_the_owner_imported_is_hinted_at_only_if_it_is_long() {
    let desk = Desk::new().await;
    let path = format!(
        "/v1/keyrings/{}/rotations",
        keyring(&desk).await["id"].as_str().unwrap()
    );
    desk.workspace_setting(json!({ "revealSecrets": "never" }))
        .await;
    for (imported, wanted) in [
        ("short-secret-0123456789", "whsec_****"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_****LaSw"),
    ] {
        let body = json!({ "mode": "immediate", "secret": imported });
        desk.bench.post(&path, body).await.ok();
        assert_eq!(desk.secret().await, wanted);
    }
}

#[tokio::test]
async fn what_the_dialect_does_is_in_the_audit_log() {
    let desk = Desk::new().await;
    let made = [
        // Of the workspace.
        "keyring.created",
        "app.created",
        "endpoint.created",
        "keyring.created",
        "secret.created",
        "secret.activated",
    ];
    let families = ["app.", "endpoint.", "keyring.", "secret.", "rotation."];
    assert_eq!(desk.audit(&families).await, made);
    let mut seen = made.len();
    let mut since = async |desk: &Desk| {
        let all = desk.audit(&families).await;
        let new = all[seen..].to_vec();
        seen = all.len();
        new
    };
    desk.secret().await;
    assert_eq!(since(&desk).await, ["secret.revealed"]);
    let rotation = desk.rotate(Some("k-1")).await;
    let mut rotated = since(&desk).await;
    rotated.sort();
    let wanted = [
        "rotation.completed",
        "rotation.opened",
        "secret.activated",
        "secret.created",
        "secret.retired",
    ];
    assert_eq!(rotated, wanted);
    // A replay changes nothing, and shows the value.
    desk.rotate(Some("k-1")).await;
    assert_eq!(since(&desk).await, ["secret.revealed"]);
    let url = json!({ "url": "https://receiver.example/", "enabled": true });
    desk.patch(&desk.config_path(), url).await.ok();
    assert_eq!(since(&desk).await, ["endpoint.enabled", "secret.revealed"]);
    desk.patch(
        &desk.app_path(),
        json!({ "name": "n", "webhookConfig": { "enabled": false } }),
    )
    .await
    .ok();
    assert_eq!(since(&desk).await, ["app.updated", "endpoint.disabled"]);
    let log = desk.bench.get("/v1/audit?limit=200").await.ok();
    let entries = log["data"].as_array().unwrap();
    let opened = entries
        .iter()
        .find(|entry| entry["action"] == "rotation.opened")
        .unwrap();
    assert_eq!(
        opened["requestId"].as_str(),
        rotation.header("x-request-id")
    );
    let secret = rotation.json()["secret"].as_str().unwrap().to_owned();
    assert!(!log.to_string().contains(&secret));
}

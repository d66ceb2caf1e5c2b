//! Who may do what, and why it was done: workspaces, API keys, and the reason of every command.

use serde_json::{Value, json};

use crate::support::Ran;
use crate::{Ready, Server, text};

/// The reasons in the audit log of the entries with this action, oldest first.
fn reasons(server: &Server, action: &str) -> Vec<Option<String>> {
    let log = server.json(&["audit", "list", "--limit", "200"]);
    let entries = log["data"].as_array().unwrap().iter();
    entries
        .filter(|entry| entry["action"] == action)
        .map(|entry| entry["reason"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn a_workspace_is_shown_and_changed_by_its_id_or_its_name() {
    let server = Server::start();
    let made = server.json(&["workspace", "create", "acme.eu", "--reason", "they signed"]);
    let id = text(&made, "id");
    assert_eq!(server.look(&["workspace", "show", id]), made);
    assert_eq!(server.look(&["workspace", "show", "acme.eu"]), made);
    server.run(&["workspace", "show", "nobody"]).refused(6);
    server.run(&["workspace", "show", ".."]).refused(2);
    server.run(&["workspace", "create", ".."]).refused(1);

    let app = server.json(&["app", "create", "events", "--workspace", "acme.eu"]);
    let app = text(&app, "clientId");
    let names = r#"{"standard": {"id": "acme-id"}, "hopae": {"signature": "acme-signature"}}"#;
    server.place.file("names", names);
    let update = |more: &[&str]| {
        let fixed = ["workspace", "update", "acme.eu", "-o", "json"];
        server.run(&[&fixed[..], more].concat())
    };
    let changed = update(&[
        "--reveal-secrets",
        "never",
        "--rotation-overlap",
        "36h",
        "--operational-app",
        app,
        "--header-names-file",
        "names",
        "--reason",
        "their contract – §4",
    ])
    .json();
    assert_eq!(changed["id"], made["id"]);
    assert_eq!(changed["revealSecrets"], "never");
    assert_eq!(changed["rotationOverlapSeconds"], 36 * 3_600);
    assert_eq!(changed["operationalApp"], app);
    assert_eq!(changed["headerNames"]["standard"]["id"], "acme-id");
    let names = &changed["headerNames"]["hopae"];
    assert_eq!(names["signature"], "acme-signature");

    let cleared = update(&["--rotation-overlap", "none", "--operational-app", "none"]).json();
    for setting in ["rotationOverlapSeconds", "operationalApp"] {
        assert_eq!(cleared[setting], Value::Null, "{setting}");
    }
    assert_eq!(cleared["revealSecrets"], "never", "what is not named stays");
    assert!(update(&[]).refused(2).contains("nothing was sent"));
    let version = changed["version"].to_string();
    update(&["--name", "b", "--if-version", &version]).refused(7);
    update(&["--operational-app", "AAAAAAAA"]).refused(1);
    assert_eq!(update(&["--name", "acme"]).json()["name"], "acme");
    server.run(&["workspace", "show", "acme.eu"]).refused(6);
    assert_eq!(
        server.look(&["workspace", "show", "acme"])["id"],
        made["id"]
    );

    let there = server.json(&["audit", "list", "--workspace", "acme", "--limit", "200"]);
    let why: Vec<_> = there["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| text(entry, "action").starts_with("workspace."))
        .map(|entry| entry["reason"].clone())
        .collect();
    let whole = json!(["they signed", "their contract – §4", null, null]);
    assert_eq!(json!(why), whole);
}

#[test]
fn every_change_says_why_in_the_audit_log() {
    let Ready {
        server,
        app,
        endpoint,
        ..
    } = Ready::new();
    let given = Some("because – ✓".to_owned());
    let why = ["--reason", "because – ✓"];
    let run = |arguments: &[&str]| {
        server
            .run(&[arguments, &why, &["-o", "json"]].concat())
            .json()
    };
    let made = run(&["app", "create", "kiosk"]);
    run(&["app", "update", text(&made, "clientId"), "--name", "till"]);
    let url = "http://127.0.0.1:1/other";
    run(&["endpoint", "create", &app, url]);
    for action in ["pause", "enable", "disable"] {
        run(&["endpoint", action, &app, &endpoint]);
    }
    run(&["endpoint", "update", &app, &endpoint, "--description", "x"]);
    run(&["workspace", "create", "acme"]);
    run(&["api-key", "create", "ci", "--scope", "read"]);
    for action in [
        "app.created",
        "app.updated",
        "endpoint.created",
        "endpoint.enabled",
        "endpoint.disabled",
        "endpoint.updated",
        "api_key.created",
    ] {
        assert_eq!(reasons(&server, action).last(), Some(&given), "{action}");
    }
    // Without a body the reason travels in a header.
    let delete = ["endpoint", "delete", &app, &endpoint];
    let refused = server.run(&[&delete[..], &why].concat()).refused(2);
    assert!(
        refused.contains("ASCII only; nothing was sent"),
        "{refused}"
    );
    let why = ["--reason", "they left"];
    server.run(&[&delete[..], &why].concat()).done();
    server
        .run(&[&["app", "delete", &app][..], &why].concat())
        .done();
    for action in ["endpoint.deleted", "app.deleted"] {
        let left = Some("they left".to_owned());
        assert_eq!(reasons(&server, action).last(), Some(&left), "{action}");
    }
}

/// A key as `api-key list` shows it.
fn listed(server: &Server, id: &str) -> Value {
    let keys = server.json(&["api-key", "list", "--all"]);
    let keys = keys["data"].as_array().unwrap();
    keys.iter().find(|key| key["id"] == id).unwrap().clone()
}

#[test]
fn an_api_key_has_scopes_an_end_and_a_last_use() {
    let server = Server::start();
    let made = server.json(&[
        "api-key",
        "create",
        "ci",
        "--scope",
        "read,publish",
        "--environment",
        "prod",
        "--expires",
        "90d",
        "--value-out",
        "ci",
    ]);
    let id = text(&made, "id");
    let key = server.place.read("ci");
    assert!(key.starts_with("sk_workspace_prod_"));
    let before = listed(&server, id);
    assert_eq!(before["scopes"], json!(["publish", "read"]));
    assert_eq!(before["hint"], key[key.len() - 4..]);
    assert_eq!(before["expiresAt"], made["expiresAt"]);
    for absent in ["lastUsedAt", "revokedAt", "key"] {
        assert_eq!(before[absent], Value::Null, "{absent}");
    }
    let use_it = |arguments: &[&str]| {
        let mut command = server.place.command();
        let connection = ["--api-key-file", "ci", "--server", &server.url];
        command.args(arguments).args(connection);
        Ran::new(&mut command)
    };
    use_it(&["app", "list"]).done();
    // It says which scope is missing, and may not make itself a stronger key either.
    let refused = use_it(&["app", "create", "x"]).refused(5);
    assert!(refused.contains("`manage`"), "{refused}");
    use_it(&["api-key", "create", "x", "--scope", "secrets"]).refused(5);
    assert!(listed(&server, id)["lastUsedAt"].is_string());

    server
        .run(&["api-key", "expire", id, "--at", "2020-01-01T00:00:00Z"])
        .refused(1);
    let expired = server.json(&["api-key", "expire", id, "--at", "1h"]);
    assert!(text(&expired, "expiresAt") < text(&made, "expiresAt"));
    use_it(&["app", "list"]).done();
    server.run(&["api-key", "revoke", id]).done();
    use_it(&["app", "list"]).refused(5);
    assert!(listed(&server, id)["revokedAt"].is_string());
}

//! Client commands against a running server, both as their users run them: a smoke of every command,
//! in the order in which someone would meet them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "cli_server/administration.rs"]
mod administration;
#[path = "cli_server/audited.rs"]
mod audited;
#[path = "cli_server/batches.rs"]
mod batches;
#[path = "cli_server/leaks.rs"]
mod leaks;
#[path = "cli_server/rotations.rs"]
mod rotations;
#[path = "cli/support.rs"]
#[expect(
    dead_code,
    reason = "shared with the other test binary, which uses all of it"
)]
mod support;
#[path = "cli_server/test_events.rs"]
mod test_events;

#[path = "cli/proxy.rs"]
mod proxy;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use serde_json::Value;
use support::{Place, Ran};

const KEY: &str = "sk_operator_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

/// A server that is killed when the test ends, whatever happens.
struct Server {
    child: Child,
    url: String,
    place: Place,
}

impl Server {
    fn start() -> Self {
        let place = Place::new();
        let mut child = place
            .command()
            .args(["serve", "--data-dir", "data", "--listen", "127.0.0.1:0"])
            .env("HOOKTURN_BOOTSTRAP_API_KEY", KEY)
            .env("HOOKTURN_ALLOW_NETS", "127.0.0.0/8")
            .env("HOOKTURN_ALLOW_HTTP", "true")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = lines
            .find_map(|line| {
                let line = line.unwrap();
                line.split_once("listening on ")
                    .map(|(_, url)| url.to_owned())
            })
            .unwrap();
        // Log lines must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url, place }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.place.command();
        command
            .args(arguments)
            .env("HOOKTURN_SERVER", &self.url)
            .env("HOOKTURN_API_KEY", KEY);
        Ran::new(&mut command)
    }

    /// Runs a command that must succeed, as a table and as JSON; returns the JSON of the second.
    #[track_caller]
    fn look(&self, arguments: &[&str]) -> Value {
        let table = self.run(arguments).done();
        assert!(!table.trim_start().starts_with('{'), "{table}");
        self.json(arguments)
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["-o", "json"]].concat()).json()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member]
        .as_str()
        .unwrap_or_else(|| panic!("no {member} in {value}"))
}

/// A server with an app and an endpoint that nobody answers for.
struct Ready {
    server: Server,
    app: String,
    endpoint: String,
    keyring: String,
}

impl Ready {
    fn new() -> Self {
        let server = Server::start();
        let app = server.json(&["app", "create", "shop", "--label", "team=a"]);
        let app = text(&app, "clientId").to_owned();
        let made = server.json(&[
            "endpoint",
            "create",
            &app,
            "http://127.0.0.1:1/hook",
            "--event-type",
            "order.*",
            "--value-out",
            "first-secret",
        ]);
        let (endpoint, keyring) = (
            text(&made, "id").to_owned(),
            text(&made, "keyringId").to_owned(),
        );
        assert!(server.place.read("first-secret").starts_with("whsec_"));
        assert!(!made.to_string().contains("whsec_"), "{made}");
        Self {
            server,
            app,
            endpoint,
            keyring,
        }
    }
}

#[test]
fn apps_and_endpoints_are_made_changed_and_deleted() {
    let Ready {
        server,
        app,
        endpoint,
        ..
    } = Ready::new();
    assert_eq!(server.look(&["app", "show", &app])["labels"]["team"], "a");
    assert_eq!(
        server.json(&["app", "update", &app, "--name", "store"])["name"],
        "store"
    );
    assert_eq!(server.look(&["app", "list"])["data"][0]["name"], "store");
    let stale = server.run(&["app", "update", &app, "--name", "x", "--if-version", "1"]);
    assert!(stale.refused(7).contains("--if-version"));

    let listed = server.look(&["endpoint", "list", &app]);
    assert_eq!(text(&listed["data"][0], "id"), endpoint);
    for (command, state) in [
        ("pause", "paused"),
        ("disable", "disabled"),
        ("enable", "enabled"),
    ] {
        assert_eq!(
            server.json(&["endpoint", command, &app, &endpoint])["state"],
            state
        );
    }
    let updated = server.json(&[
        "endpoint",
        "update",
        &app,
        &endpoint,
        "--description",
        "d",
        "--header",
        "x-a=b",
        "--retry-delays",
        "1s,5m",
        "--ordered",
        "--rate-limit",
        "5",
        "--timeout-per-attempt",
        "9s",
    ]);
    assert_eq!(
        updated["retry"]["delaysMillis"],
        serde_json::json!([1_000, 300_000])
    );
    assert_eq!(
        (&updated["ordered"], &updated["timeoutMillis"]),
        (&true.into(), &9_000.into())
    );
    assert_eq!(
        server.look(&["endpoint", "show", &app, &endpoint])["headers"]["x-a"],
        "b"
    );
    // Nobody listens there.
    let test = ["endpoint", "test", &app, &endpoint];
    let tested = server.run(&test);
    assert_eq!(tested.code, 22, "{tested:?}");
    assert!(tested.out.starts_with("not connected"), "{tested:?}");
    let tested = server.run(&[&test[..], &["-o", "json"]].concat());
    assert_eq!(tested.code, 22, "{tested:?}");
    let tested: Value = serde_json::from_str(&tested.out).unwrap();
    assert_eq!(tested["connected"], false, "{tested}");
    assert!(tested.to_string().contains("failure"), "{tested}");

    server.run(&["endpoint", "delete", &app, &endpoint]).done();
    server
        .run(&["endpoint", "show", &app, &endpoint])
        .refused(6);
    server.run(&["app", "delete", &app]).done();
    let gone = server.run(&["app", "show", &app]).refused(6);
    assert!(
        gone.contains("code: not_found") && gone.contains("requestId: "),
        "{gone}"
    );
}

#[test]
fn names_that_turn_the_direction_of_reading_are_written_out() {
    let ready = Ready::new();
    let server = &ready.server;
    let name = "shop \u{202e}txt.exe\u{2069}\u{61c}";
    let made = server.json(&["app", "create", name]);
    assert_eq!(made["name"], name, "as JSON it is what it is");
    let id = text(&made, "clientId");
    let update = ["app", "update", id, "--label", "a=b", "--reason", name];
    server.run(&update).done();
    let show = ["app", "show", id];
    for command in [&["app", "list"][..], &show, &["audit", "list"]] {
        let told = server.run(command).done();
        assert!(
            !told.contains(['\u{202e}', '\u{2069}', '\u{61c}']),
            "{told}"
        );
        assert!(
            told.contains("shop \\u{202e}txt.exe\\u{2069}\\u{61c}"),
            "{told}"
        );
    }
}

#[test]
fn messages_are_published_and_their_deliveries_seen() {
    let Ready {
        server,
        app,
        endpoint,
        ..
    } = Ready::new();
    let payload = "{\"n\": 1.0}";
    server.place.file("payload", payload);
    let send = [
        "message",
        "send",
        &app,
        "order.paid",
        "--file",
        "payload",
        "--event-id",
        "e1",
    ];
    let id = text(&server.json(&send), "id").to_owned();
    let shown = server
        .run(&["message", "show", &app, &id, "-o", "json"])
        .done();
    assert!(shown.contains(payload), "{shown}");
    let line = "{\"eventType\":\"order.sent\",\"payload\":{}}\n";
    server.place.file("lines", line.repeat(3));
    let batch = ["message", "send-batch", &app, "--file", "lines"];
    assert_eq!(server.run(&batch).done().lines().count(), 3);
    assert_eq!(
        server.look(&["message", "list", &app, "--since", "1h"])["data"]
            .as_array()
            .unwrap()
            .len(),
        4
    );

    let paged = server.run(&["message", "list", &app, "--limit", "1"]);
    assert!(paged.err.contains("--cursor"), "{paged:?}");
    let all = server
        .run(&[
            "message", "list", &app, "--limit", "1", "--all", "-o", "json",
        ])
        .done();
    assert_eq!(all.lines().count(), 4);

    let list = [
        "delivery",
        "list",
        &app,
        "--endpoint",
        &endpoint,
        "--message",
        &id,
    ];
    let delivery = text(&server.look(&list)["data"][0], "id").to_owned();
    assert_eq!(
        text(&server.look(&["delivery", "show", &delivery]), "messageId"),
        id
    );
    assert_eq!(
        text(&server.json(&["delivery", "retry", &delivery]), "id"),
        delivery
    );
    let recover = [
        "delivery",
        "recover",
        &app,
        &endpoint,
        "--since",
        "1h",
        "--dry-run",
    ];
    assert_eq!(server.look(&recover)["dryRun"], true);

    let refused = server
        .run(&["message", "send", &app, "not a type", "--json", "1"])
        .refused(1);
    assert!(refused.contains("field: /eventType"), "{refused}");
}

#[test]
fn a_secret_is_rotated_from_the_command_line() {
    let Ready {
        server, keyring, ..
    } = Ready::new();
    let open = [
        "rotation",
        "open",
        &keyring,
        "--mode",
        "staged",
        "--reason",
        "r",
        "--idempotency-key",
        "k1",
    ];
    let ran = server.run(&[&open[..], &["-o", "json"]].concat());
    assert!(
        ran.err.contains("nothing changes for deliveries until"),
        "{ran:?}"
    );
    let opened = ran.json();
    let (rotation, value) = (
        text(&opened, "id").to_owned(),
        text(&opened["secret"], "value").to_owned(),
    );
    // The answer got lost: the same key gets the same value.
    let again = server.run(&[&open[..], &["-o", "json"]].concat());
    assert!(again.err.contains("done before"), "{again:?}");
    assert!(
        !again.err.contains("nothing changes for deliveries until"),
        "the state may have changed since: {again:?}"
    );
    assert_eq!(text(&again.json()["secret"], "value"), value);

    let second = server.run(&["rotation", "open", &keyring]).refused(7);
    assert!(
        !second.contains("from now on"),
        "it claims an effect: {second}"
    );
    assert!(
        second.contains(&format!("hookturn rotation show {rotation}")),
        "{second}"
    );
    assert_eq!(
        server.look(&["rotation", "list", "--open"])["data"][0]["stage"],
        "staged"
    );
    assert_eq!(
        server.json(&["rotation", "promote", &rotation])["stage"],
        "overlap"
    );
    let extended = server.json(&["rotation", "extend", &rotation, "--until", "7d"]);
    assert_eq!(
        text(&server.look(&["rotation", "show", &rotation]), "retireAt"),
        text(&extended, "retireAt")
    );
    assert_eq!(
        server.json(&["rotation", "finish", &rotation])["stage"],
        "completed"
    );

    let next = server.json(&[
        "rotation",
        "open",
        &keyring,
        "--mode",
        "overlap",
        "--overlap",
        "1h",
    ]);
    assert_eq!(
        server.json(&["rotation", "undo", text(&next, "id")])["stage"],
        "undone"
    );
    let immediate = [
        "rotation",
        "open",
        &keyring,
        "--mode",
        "immediate",
        "--overlap",
        "1h",
    ];
    server.run(&immediate).refused(2);
}

#[test]
fn a_refused_command_claims_no_effect() {
    let Ready {
        server, keyring, ..
    } = Ready::new();
    let other = "kr_00000000000000000000000000";
    let secret = "whs_00000000000000000000000000";
    for (arguments, code) in [
        (&["rotation", "open", other][..], 6),
        (&["rotation", "open", other, "--mode", "immediate"], 6),
        (&["rotation", "open", &keyring, "--if-version", "99"], 7),
        (&["rotation", "open", &keyring, "--overlap", "31d"], 1),
        (&["secret", "activate", &keyring, secret], 6),
    ] {
        let said = server.run(arguments).refused(code);
        assert!(said.contains("error: "), "{arguments:?}: {said}");
        assert!(!said.contains("from now on"), "{arguments:?}: {said}");
    }
    let mut stranger = server.place.command();
    stranger
        .args(["master-key", "rotate", "--server", &server.url])
        .env("HOOKTURN_API_KEY", "sk_operator_unknown");
    assert!(Ran::new(&mut stranger).refused(5).starts_with("error: "));
    let done = server.run(&["rotation", "open", &keyring]);
    assert!(done.err.contains("from now on both secrets"), "{done:?}");
}

#[test]
fn secrets_are_made_imported_activated_revealed_and_marked() {
    let Ready {
        server, keyring, ..
    } = Ready::new();
    let imported = "whsec_4444444444444444444444444444444444444444444444444444444444444444";
    server.place.file("import", format!("{imported}\n"));
    let made = server.json(&[
        "secret",
        "create",
        &keyring,
        "--name",
        "n",
        "--secret-file",
        "import",
    ]);
    let secret = text(&made, "id").to_owned();
    assert_eq!(text(&made, "value"), imported);
    let listed = server.look(&["secret", "list", &keyring]);
    assert_eq!(listed["data"][0]["status"], "pending");
    assert!(!listed.to_string().contains("whsec_"));
    let activated = server.json(&["secret", "activate", &keyring, &secret, "--overlap", "1h"]);
    assert_eq!(activated["status"], "active");
    let reveal = [
        "secret",
        "reveal",
        &keyring,
        &secret,
        "--value-out",
        "revealed",
    ];
    let printed = server.run(&reveal).done();
    assert_eq!(server.place.read("revealed"), imported);
    assert!(!printed.contains(imported));
    server.run(&reveal).refused(8);
    server.json(&["secret", "compromise", &keyring, &secret]);
    server.json(&["rotation", "finish", text(&made["rotation"], "id")]);
    let waiting = server.json(&["secret", "create", &keyring, "--replace-pending"]);
    let rotation = text(&waiting["rotation"], "id");
    assert_eq!(
        server.json(&["rotation", "cancel", rotation])["stage"],
        "cancelled"
    );
}

#[test]
fn the_shared_keyring_is_created_activated_and_undone_with_reasons() {
    let server = Server::start();
    let workspace = server.json(&["workspace", "list"]);
    let keyring = text(&workspace["data"][0], "sharedKeyringId").to_owned();
    let create = |name: &'static str, more: &[&'static str]| {
        let fixed = ["secret", "create", &keyring, "--name", name];
        server.run(&[&fixed[..], more, &["-o", "json"]].concat())
    };
    let first = create("first", &["--reason", "we begin"]).json();
    assert_eq!(first["status"], "active");
    let second = create("second", &[]).json();
    assert_eq!(second["status"], "pending");
    let refused = server.run(&["secret", "create", &keyring]).refused(7);
    assert!(refused.contains(text(&second, "id")), "{refused}");
    assert!(refused.contains("--replace-pending"), "{refused}");
    let third = create("third", &["--replace-pending", "--overlap", "2h"]).json();
    let listed = server.look(&["secret", "list", &keyring]);
    let states: Vec<_> = listed["data"].as_array().unwrap().iter().collect();
    let states: Vec<_> = states.into_iter().map(|s| text(s, "status")).collect();
    assert_eq!(states, ["pending", "destroyed", "active"]);
    let activate = [
        "secret",
        "activate",
        &keyring,
        text(&third, "id"),
        "--reason",
        "deployed",
    ];
    assert_eq!(server.json(&activate)["status"], "active");
    let rotation = text(&third["rotation"], "id");
    let undo = [
        "rotation",
        "undo",
        rotation,
        "--reason",
        "they were not ready",
    ];
    assert_eq!(server.json(&undo)["stage"], "undone");
    let log = server.json(&["audit", "list", "--limit", "200"]);
    let why = |action: &str| {
        let entries = log["data"].as_array().unwrap();
        let entry = entries
            .iter()
            .find(|entry| entry["action"] == action)
            .unwrap();
        entry["reason"].as_str().map(str::to_owned)
    };
    for (action, reason) in [
        ("secret.created", Some("we begin")),
        ("secret.replaced", None),
        ("rotation.promoted", Some("deployed")),
        ("rotation.undone", Some("they were not ready")),
    ] {
        assert_eq!(why(action).as_deref(), reason, "{action}");
    }
}

#[test]
fn a_key_is_given_an_end_and_revoked_with_a_reason() {
    let server = Server::start();
    let made = server.json(&["api-key", "create", "ci", "--scope", "read"]);
    let key = text(&made, "id");
    let expire = [
        "api-key", "expire", key, "--at", "2h", "--reason", "it moves",
    ];
    assert!(server.json(&expire)["expiresAt"].is_string());
    server
        .run(&["api-key", "revoke", key, "--reason", "it moved"])
        .done();
    server.run(&expire).refused(7);
    let log = server.json(&["audit", "list", "--limit", "200"]);
    let entries = log["data"].as_array().unwrap();
    let told: Vec<_> = entries
        .iter()
        .filter(|entry| entry["subject"]["apiKeyId"] == key)
        .map(|entry| (text(entry, "action"), entry["reason"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("api_key.created", None),
            ("api_key.expiry_changed", Some("it moves")),
            ("api_key.revoked", Some("it moved")),
        ]
    );
    server.run(&["audit", "verify"]).done();
    server.run(&["audit", "export", "--file", "log"]).done();
    server.run(&["audit", "verify", "--file", "log"]).done();
}

#[test]
fn keys_and_workspaces_bound_who_may_do_what() {
    let Ready { server, app, .. } = Ready::new();
    let create = [
        "api-key",
        "create",
        "reader",
        "--scope",
        "read",
        "--expires",
        "90d",
        "--value-out",
        "reader",
    ];
    let made = server.json(&create);
    let reader = |arguments: &[&str]| {
        let mut command = server.place.command();
        command
            .args(arguments)
            .args(["--api-key-file", "reader", "--server", &server.url]);
        Ran::new(&mut command)
    };
    reader(&["app", "show", &app]).done();
    let denied = reader(&["app", "create", "x"]).refused(5);
    assert!(denied.contains("scope `manage`"), "{denied}");
    assert!(
        server.look(&["api-key", "list"])["data"]
            .as_array()
            .unwrap()
            .len()
            >= 2
    );
    server.run(&["api-key", "revoke", text(&made, "id")]).done();
    assert!(
        reader(&["app", "list"])
            .refused(5)
            .contains("HOOKTURN_API_KEY")
    );

    let other = server.json(&["workspace", "create", "other"]);
    server.look(&["workspace", "show", text(&other, "id")]);
    assert_eq!(
        server.look(&["workspace", "list"])["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    server
        .run(&["app", "show", &app, "--workspace", "other"])
        .refused(6);
    assert_eq!(
        server.json(&["app", "list", "--workspace", "other"])["data"],
        serde_json::json!([])
    );
}

#[test]
fn g9_the_audit_log_is_proved_by_the_client_itself() {
    let Ready {
        server, keyring, ..
    } = Ready::new();
    server.json(&["rotation", "open", &keyring]);
    server.look(&["audit", "list", "--limit", "2"]);
    let proved = server.look(&["audit", "verify"]);
    let head = text(&proved, "head").to_owned();
    server.run(&["audit", "export", "--file", "log"]).done();
    let offline = ["audit", "verify", "--file", "log", "--head", &head];
    assert_eq!(server.json(&offline)["entries"], proved["entries"]);
    let log = server.place.read("log");
    assert!(!log.contains("whsec_"));
    let shorter: Vec<_> = log.lines().take(log.lines().count() - 1).collect();
    server.place.file("log", shorter.join("\n"));
    assert!(server.run(&offline).refused(20).contains("cut off"));
    server
        .place
        .file("log", log.replacen("\"bootstrap\"", "\"system\"", 1));
    assert!(
        server
            .run(&["audit", "verify", "--file", "log"])
            .refused(20)
            .contains("entry: 1")
    );
}

#[test]
fn backup_and_doctor_work_beside_the_running_server() {
    let Ready { server, app, .. } = Ready::new();
    server
        .run(&["backup", "copy/hookturn.db", "--data-dir", "data"])
        .refused(8);
    std::fs::create_dir(server.place.path("copy")).unwrap();
    server
        .run(&["backup", "copy/hookturn.db", "--data-dir", "data"])
        .done();
    let secret = server.place.read("first-secret");
    let copy = std::fs::read(server.place.path("copy/hookturn.db")).unwrap();
    let holds = |part: &str| {
        copy.windows(part.len())
            .any(|window| window == part.as_bytes())
    };
    assert!(holds(&app), "the copy is the database");
    assert!(
        !holds(&secret) && !holds(KEY),
        "secrets are sealed, keys hashed"
    );
    let listen = server.url.trim_start_matches("http://");
    let doctor = server
        .run(&["doctor", "--data-dir", "data", "--listen", listen])
        .done();
    for part in ["fits the database", "a hookturn runs on this store"] {
        assert!(doctor.contains(part), "{doctor}");
    }
    server.place.file("data/master.key", "1".repeat(64));
    let doctor = server.run(&["doctor", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
    assert_eq!(doctor.code, 21);
    assert!(doctor.out.contains("fail  master key"), "{doctor:?}");
    let second = ["serve", "--data-dir", "data", "--listen", "127.0.0.1:0"];
    server.run(&second).refused(16);
}

#[test]
fn a_lost_answer_is_asked_for_again_and_the_command_happens_once() {
    let server = Server::start();
    let (url, passing) = proxy::losing_the_first_answer(&server.url);
    let mut command = server.place.command();
    command
        .args(["app", "create", "shop", "-o", "json", "--server", &url])
        .env("HOOKTURN_API_KEY", KEY);
    let ran = Ran::new(&mut command);
    let keys = passing.join().unwrap();
    assert!(!keys[0].is_empty() && keys[0] == keys[1], "{keys:?}");
    assert!(
        ran.err.contains("done before under the same key"),
        "{ran:?}"
    );
    let made = ran.json();
    let listed = server.json(&["app", "list"]);
    let apps = listed["data"].as_array().unwrap();
    assert_eq!(apps.len(), 1, "{listed}");
    assert_eq!(text(&apps[0], "clientId"), text(&made, "clientId"));
}

#[test]
fn a_wrong_key_is_refused_and_shown_nowhere() {
    let server = Server::start();
    let mut command = server.place.command();
    command
        .args(["app", "list", "--server", &server.url])
        .env("HOOKTURN_API_KEY", "sk_operator_planted");
    let error = Ran::new(&mut command).refused(5);
    assert!(error.contains("code: unauthorized"), "{error}");
    assert!(!error.contains("planted"), "{error}");
}

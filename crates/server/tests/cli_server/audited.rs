//! Everything that is done to a secret and every attempt that is denied is in the audit log with actor,
//! reason, request and fingerprint, whichever way it comes: the command line, the native API, or a
//! dialect. The table is the list; each row says what is done and what is in the log of it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use super::{KEY, Ran, Server, text};

const WHY: &str = "the laptop was stolen";

/// Whose key is used.
#[derive(Clone, Copy, PartialEq)]
enum As {
    Operator,
    /// A key with `read` only.
    Reader,
    /// The owner of another workspace.
    Stranger,
    /// Someone whose key nobody knows.
    Nobody,
}

/// What is done. `{name}` is what an earlier row kept.
enum Do {
    /// A command.
    Cli(&'static str),
    /// A request: method, path, body.
    Http(&'static str, &'static str, &'static str),
    /// The same under one idempotency key for all such rows of a path.
    Once(&'static str, &'static str, &'static str),
    /// Nothing: time passes.
    Wait,
}

use As::{Nobody, Operator, Reader, Stranger};
use Do::{Cli, Http, Once, Wait};

/// Who, what, what it answers (0 for success), the entries, and what to keep of the answer.
type Row = (
    As,
    Do,
    i32,
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

const FIRST: &[&str] = &["secret.created", "secret.activated"];
const STAGED: &[&str] = &["rotation.opened", "secret.created"];
const REPLACED: &[&str] = &[
    "secret.replaced",
    "rotation.cancelled",
    "secret.destroyed",
    "rotation.opened",
    "secret.created",
];
const ACTIVATED: &[&str] = &[
    "rotation.promoted",
    "secret.activated",
    "secret.retired",
    "rotation.completed",
];
const ROTATED: &[&str] = &[
    "rotation.opened",
    "secret.created",
    "secret.activated",
    "secret.retired",
    "rotation.completed",
];
const OVERLAP: &[&str] = &[
    "rotation.opened",
    "secret.created",
    "secret.activated",
    "secret.retiring",
];
const RETIRED: &[&str] = &["secret.retired", "rotation.completed"];
const SHOWN: &[&str] = &["secret.revealed"];
const DENIED: &[&str] = &["access.denied"];

const ROWS: &[Row] = &[
    // The shared keyring, three ways.
    (
        Operator,
        Once("POST", "/v1/keyrings/{ring}/secrets", "{}"),
        0,
        FIRST,
        &[("first", "/id")],
    ),
    (
        Operator,
        Once("POST", "/v1/keyrings/{ring}/secrets", "{}"),
        0,
        SHOWN,
        &[],
    ),
    (
        Operator,
        Cli("secret create {ring} --name b --reason"),
        0,
        STAGED,
        &[],
    ),
    (
        Operator,
        Cli("secret create {ring} --replace-pending --reason"),
        0,
        REPLACED,
        &[("c", "/id")],
    ),
    (
        Operator,
        Once("POST", "/kore/v1/secrets", r#"{"Name":"d"}"#),
        0,
        REPLACED,
        &[("d", "/id")],
    ),
    (
        Operator,
        Once("POST", "/kore/v1/secrets", r#"{"Name":"d"}"#),
        0,
        SHOWN,
        &[],
    ),
    // Denied, by every way to it.
    (
        Reader,
        Cli("secret reveal {ring} {d} --reason"),
        5,
        DENIED,
        &[],
    ),
    (
        Reader,
        Http("POST", "/v1/keyrings/{ring}/secrets/{d}/activate", "{}"),
        403,
        DENIED,
        &[],
    ),
    (
        Reader,
        Http("PATCH", "/kore/v1/secrets/{d}", r#"{"Status":"active"}"#),
        403,
        DENIED,
        &[],
    ),
    (
        Reader,
        Http("POST", "/kore/v1/secrets", r#"{"Name":"e"}"#),
        403,
        DENIED,
        &[],
    ),
    (
        Nobody,
        Http("POST", "/kore/v1/secrets", r#"{"Name":"e"}"#),
        401,
        DENIED,
        &[],
    ),
    (
        Stranger,
        Cli("secret reveal {ring} {d} --reason"),
        6,
        DENIED,
        &[],
    ),
    (
        Stranger,
        Http("PATCH", "/kore/v1/secrets/{d}", r#"{"Status":"active"}"#),
        404,
        DENIED,
        &[],
    ),
    (
        Nobody,
        Http("POST", "/v1/keyrings/{ring}/secrets/{d}/reveal", "{}"),
        401,
        DENIED,
        &[],
    ),
    // Activated, replaced, retired, shown.
    (
        Operator,
        Http("PATCH", "/kore/v1/secrets/{d}", r#"{"Status":"active"}"#),
        0,
        ACTIVATED,
        &[],
    ),
    (
        Operator,
        Http("POST", "/kore/v1/secrets", r#"{"Name":"e"}"#),
        0,
        STAGED,
        &[("e", "/id")],
    ),
    (
        Operator,
        Http("POST", "/kore/v1/secrets", r#"{"Name":"f"}"#),
        0,
        REPLACED,
        &[("f", "/id")],
    ),
    (
        Operator,
        Cli("secret activate {ring} {f} --overlap 0s --reason"),
        0,
        ACTIVATED,
        &[],
    ),
    (
        Operator,
        Http("POST", "/v1/keyrings/{ring}/secrets", "{}"),
        0,
        STAGED,
        &[("g", "/id")],
    ),
    (
        Operator,
        Http(
            "POST",
            "/v1/keyrings/{ring}/secrets/{g}/activate",
            r#"{"overlapSeconds":0}"#,
        ),
        0,
        ACTIVATED,
        &[],
    ),
    (
        Operator,
        Cli("secret reveal {ring} {g} --reason"),
        0,
        SHOWN,
        &[],
    ),
    (
        Operator,
        Http("POST", "/v1/keyrings/{ring}/secrets/{g}/reveal", "{}"),
        0,
        SHOWN,
        &[],
    ),
    // Rotations, and an end by time.
    (
        Operator,
        Cli("rotation open {ring} --mode immediate --reason"),
        0,
        ROTATED,
        &[],
    ),
    (
        Operator,
        Http(
            "POST",
            "/v1/keyrings/{ring}/rotations",
            r#"{"mode":"overlap","overlapSeconds":3600}"#,
        ),
        0,
        OVERLAP,
        &[("r", "/id")],
    ),
    (Reader, Cli("rotation finish {r} --reason"), 5, DENIED, &[]),
    (
        Operator,
        Cli("rotation finish {r} --reason"),
        0,
        &["rotation.finished", "secret.retired", "rotation.completed"],
        &[],
    ),
    (
        Operator,
        Cli("rotation open {ring} --mode overlap --overlap 1s --reason"),
        0,
        OVERLAP,
        &[("s", "/secret/id")],
    ),
    (Operator, Wait, 0, RETIRED, &[]),
    (
        Operator,
        Cli("secret compromise {ring} {s} --reason"),
        0,
        &["secret.compromised"],
        &[],
    ),
    // Hopae's.
    (
        Operator,
        Http("POST", "/connect/v1/apps", r#"{"name":"shop"}"#),
        0,
        FIRST,
        &[("app", "/clientId")],
    ),
    (
        Operator,
        Once(
            "POST",
            "/connect/v1/apps/{app}/webhook-config/rotate-secret",
            "",
        ),
        0,
        ROTATED,
        &[],
    ),
    (
        Operator,
        Once(
            "POST",
            "/connect/v1/apps/{app}/webhook-config/rotate-secret",
            "",
        ),
        0,
        SHOWN,
        &[],
    ),
    (
        Operator,
        Http("GET", "/connect/v1/apps/{app}/webhook-config", ""),
        0,
        SHOWN,
        &[],
    ),
    (
        Reader,
        Http(
            "POST",
            "/connect/v1/apps/{app}/webhook-config/rotate-secret",
            "",
        ),
        403,
        DENIED,
        &[],
    ),
    (
        Stranger,
        Http(
            "POST",
            "/connect/v1/apps/{app}/webhook-config/rotate-secret",
            "",
        ),
        404,
        DENIED,
        &[],
    ),
    (
        Nobody,
        Http(
            "POST",
            "/connect/v1/apps/{app}/webhook_config/rotate-secret",
            "",
        ),
        401,
        DENIED,
        &[],
    ),
    (
        Operator,
        Http("DELETE", "/connect/v1/apps/{app}", ""),
        0,
        &["secret.destroyed", "secret.destroyed"],
        &[],
    ),
    // Where values are never shown again.
    (
        Operator,
        Http(
            "PATCH",
            "/v1/workspaces/{workspace}",
            r#"{"revealSecrets":"never"}"#,
        ),
        0,
        &[],
        &[],
    ),
    (
        Operator,
        Cli("secret reveal {ring} {s} --reason"),
        7,
        DENIED,
        &[],
    ),
    (
        Operator,
        Http("POST", "/v1/keyrings/{ring}/secrets/{s}/reveal", "{}"),
        409,
        DENIED,
        &[],
    ),
];

struct Desk {
    server: Server,
    keys: BTreeMap<&'static str, String>,
    known: BTreeMap<String, String>,
    seen: usize,
}

impl Desk {
    fn new() -> Self {
        let server = Server::start();
        let workspace = server.json(&["workspace", "list"])["data"][0].clone();
        let known = BTreeMap::from([
            (
                "ring".to_owned(),
                text(&workspace, "sharedKeyringId").to_owned(),
            ),
            ("workspace".to_owned(), text(&workspace, "id").to_owned()),
        ]);
        server.json(&["workspace", "create", "other"]);
        let make = |more: &[&str]| {
            let made = server.json(&[&["api-key", "create", "k"], more].concat());
            (text(&made, "key").to_owned(), text(&made, "id").to_owned())
        };
        let (reader, reader_id) = make(&["--scope", "read"]);
        let every = ["--scope", "read,secrets,manage", "--workspace", "other"];
        let (stranger, stranger_id) = make(&every);
        let operator = server.json(&["audit", "list", "--limit", "200"]);
        let operator = operator["data"].as_array().unwrap().iter();
        let operator = operator
            .filter(|entry| entry["action"] == "api_key.created")
            .map(|entry| text(&entry["subject"], "apiKeyId").to_owned())
            .next()
            .unwrap();
        let keys = BTreeMap::from([
            ("operator", KEY.to_owned()),
            ("operator id", operator),
            ("reader", reader),
            ("reader id", reader_id),
            ("stranger", stranger),
            ("stranger id", stranger_id),
            ("nobody", "sk_workspace_test_nobody".to_owned()),
            ("nobody id", "unknown".to_owned()),
        ]);
        let mut desk = Self {
            server,
            keys,
            known,
            seen: 0,
        };
        desk.seen = desk.log().len();
        desk
    }

    fn key(&self, who: As, what: &str) -> &str {
        let name = match who {
            Operator => "operator",
            Reader => "reader",
            Stranger => "stranger",
            Nobody => "nobody",
        };
        &self.keys[&*format!("{name}{what}")]
    }

    fn fill(&self, text: &str) -> String {
        let known = self.known.iter();
        known.fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        })
    }

    /// Does a row and answers how it ended and with what.
    fn take(&self, who: As, what: &Do) -> (i32, String) {
        match what {
            Cli(command) => {
                let command = self.fill(command);
                let mut words: Vec<_> = command.split(' ').collect();
                words.extend([WHY, "-o", "json"]);
                let mut command = self.server.place.command();
                command
                    .args(words)
                    .env("HOOKTURN_SERVER", &self.server.url)
                    .env("HOOKTURN_API_KEY", self.key(who, ""));
                let ran = Ran::new(&mut command);
                (ran.code, ran.out)
            }
            Http(method, path, body) => self.http(who, (method, path), body, ""),
            Once(method, path, body) => {
                let key = format!("idempotency-key: once{path}\r\n");
                self.http(who, (method, path), body, &key)
            }
            Wait => (0, String::new()),
        }
    }

    fn http(&self, who: As, (method, path): (&str, &str), body: &str, more: &str) -> (i32, String) {
        let address = self.server.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).unwrap();
        let (path, key) = (self.fill(path), self.key(who, ""));
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
             authorization: Bearer {key}\r\nhookturn-reason: {WHY}\r\n{more}\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let ended = if (200..300).contains(&status) {
            0
        } else {
            status
        };
        (ended, body.to_owned())
    }

    fn log(&self) -> Vec<Value> {
        let (ended, body) = self.http(Operator, ("GET", "/v1/audit?limit=200"), "", "");
        assert_eq!(ended, 0, "{body}");
        let page: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(page["hasMore"], false, "the table fits on one page");
        page["data"].as_array().unwrap().clone()
    }

    /// The new entries about secrets, rotations and denied attempts, once `count` are there: some are
    /// written behind the answer, and time takes its time.
    fn news(&mut self, count: usize) -> Vec<Value> {
        // Each look is a request of its own: more than a minute of them.
        for _ in 0..100_000 {
            let log = self.log();
            let news = log[self.seen..].iter().filter(|entry| {
                let action = text(entry, "action");
                ["secret.", "rotation.", "access."]
                    .iter()
                    .any(|family| action.starts_with(family))
            });
            let news: Vec<_> = news.cloned().collect();
            if news.len() >= count {
                self.seen = log.len();
                return news;
            }
        }
        panic!(
            "{count} entries are not there: {:?}",
            self.log().split_off(self.seen)
        );
    }
}

#[test]
fn g9_whatever_is_done_to_a_secret_is_in_the_log_by_every_way_to_it() {
    let mut desk = Desk::new();
    for (number, (who, what, ends, wanted, keep)) in ROWS.iter().enumerate() {
        let (ended, answer) = desk.take(*who, what);
        assert_eq!(ended, *ends, "row {number}: {answer}");
        let entries = desk.news(wanted.len());
        let actions: Vec<_> = entries.iter().map(|e| text(e, "action")).collect();
        assert_eq!(actions, *wanted, "row {number}");
        for entry in &entries {
            if let Wait = what {
                assert_eq!(entry["actor"], "system", "row {number}: {entry}");
                assert_eq!(
                    entry["reason"], "its time has come",
                    "row {number}: {entry}"
                );
            } else {
                assert_eq!(
                    entry["actor"],
                    desk.key(*who, " id"),
                    "row {number}: {entry}"
                );
                assert_eq!(entry["reason"], WHY, "row {number}: {entry}");
                assert!(entry["requestId"].is_string(), "row {number}: {entry}");
            }
            assert!(entry["fingerprint"].is_string(), "row {number}: {entry}");
            assert!(
                entry["subject"]["secretId"].is_string(),
                "row {number}: {entry}"
            );
        }
        if !keep.is_empty() {
            let answer: Value = serde_json::from_str(&answer).unwrap();
            for (name, pointer) in *keep {
                let value = answer.pointer(pointer).and_then(Value::as_str);
                desk.known
                    .insert((*name).to_owned(), value.unwrap().to_owned());
            }
        }
    }
    desk.server.run(&["audit", "verify"]).done();
}

/// An entry that somebody damaged behind the server's back is named, and is no failure of the server's.
#[test]
fn g9_a_damaged_entry_ends_a_proof_with_its_number() {
    let server = Server::start();
    for _ in 0..3 {
        server.json(&["app", "create", "shop"]);
    }
    let database = server.place.path("data/hookturn.db");
    let connection = rusqlite::Connection::open(database).unwrap();
    connection
        .execute_batch(
            "PRAGMA busy_timeout = 5000; DROP TRIGGER audit_is_append_only_update;
             UPDATE audit SET document = '{' WHERE seq = 4;",
        )
        .unwrap();
    let failed = server.run(&["audit", "verify"]).refused(20);
    assert!(failed.contains("entry: 4"), "{failed}");
    let listed = server.json(&["audit", "list", "--limit", "200"]);
    assert_eq!(listed["data"].as_array().unwrap().len(), 3);
    server.run(&["audit", "export"]).refused(20);
    // What comes before it is kept.
    let export = ["audit", "export", "--file", "log"];
    let failed = server.run(&export).refused(20);
    assert!(failed.contains("wrote 3 entries to log"), "{failed}");
    assert_eq!(server.place.read("log").lines().count(), 3);
    server.run(&["audit", "verify", "--file", "log"]).done();
}

/// A log that can be read and does not verify is exported as it is, and the command says so.
#[test]
fn g9_an_export_of_a_damaged_log_is_kept_and_says_that_it_is_damaged() {
    let server = Server::start();
    for _ in 0..3 {
        server.json(&["app", "create", "shop"]);
    }
    let whole = server.run(&["audit", "export"]);
    whole.done();
    let connection = rusqlite::Connection::open(server.place.path("data/hookturn.db")).unwrap();
    connection
        .execute_batch(
            r#"PRAGMA busy_timeout = 5000; DROP TRIGGER audit_is_append_only_update;
               UPDATE audit SET document = replace(document, '"name":"shop"', '"name":"shed"')
               WHERE seq = 5;"#,
        )
        .unwrap();
    let failed = server.run(&["audit", "export"]).refused(20);
    assert!(failed.contains("entry: 5"), "{failed}");
    let failed = server
        .run(&["audit", "export", "--file", "log"])
        .refused(20);
    for part in ["entry: 5", "changed after it was written", "entries to log"] {
        assert!(failed.contains(part), "{part}: {failed}");
    }
    let log = server.place.read("log");
    let entries = server.json(&["audit", "list", "--limit", "200"]);
    assert_eq!(
        log.lines().count(),
        entries["data"].as_array().unwrap().len()
    );
    assert!(log.contains("shed"));
    server
        .run(&["audit", "verify", "--file", "log"])
        .refused(20);
}

/// A member that somebody put into a stored entry is found by every way to verify.
#[test]
fn g9_a_member_that_nobody_wrote_is_found_in_the_database() {
    let server = Server::start();
    for _ in 0..3 {
        server.json(&["app", "create", "shop"]);
    }
    let connection = rusqlite::Connection::open(server.place.path("data/hookturn.db")).unwrap();
    connection
        .execute_batch(
            r#"PRAGMA busy_timeout = 5000; DROP TRIGGER audit_is_append_only_update;
               UPDATE audit SET document = replace(document, '{"seq"', '{"by":"nobody","seq"')
               WHERE seq = 4;"#,
        )
        .unwrap();
    for words in [&["audit", "verify"][..], &["audit", "export"]] {
        let failed = server.run(words).refused(20);
        assert!(failed.contains("entry: 4"), "{failed}");
    }
}

/// What an export shows beyond what was hashed is found, byte by byte.
#[test]
fn g9_an_export_shows_nothing_that_was_not_written() {
    let server = Server::start();
    server.json(&["app", "create", "shop"]);
    server.run(&["audit", "export", "--file", "log"]).done();
    let verify = ["audit", "verify", "--file", "log"];
    server.run(&verify).done();
    let log = server.place.read("log");
    for (old, new) in [
        (r#"{"action""#, r#"{"aaa":"nobody","action""#),
        (r#"{"action""#, r#"{"action":"app.deleted","action""#),
        (r#""at":"20"#, r#""at": "20"#),
        ("Z\"", "0Z\""),
        (r#""detail":{"#, r#""detail":{"name":"other","#),
    ] {
        let changed = log.replacen(old, new, 1);
        assert_ne!(changed, log, "{old} is in {log}");
        server.place.file("log", changed);
        let failed = server.run(&verify).refused(20);
        assert!(failed.contains("entry: 1"), "{old} → {new}: {failed}");
    }
    for changed in [
        log.replace('\n', "\r\n"),
        log.replacen('\n', "\n\n", 1),
        format!("{log}\n"),
        log.trim_end().to_owned(),
    ] {
        server.place.file("log", changed);
        server.run(&verify).refused(20);
    }
}

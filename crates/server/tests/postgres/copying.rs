//! `hookturn migrate-store`: from a data directory to a database, killed in between, and the server on the copy.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use hookturn::cli::exit::Exit;

use crate::desk::{Desk, KEY};
use crate::support::cluster::cluster;
use crate::support::{Api, Endpoint, Receiver, Server};

/// What the embedded store holds, as far as it is looked for in the copy.
struct Kept {
    app: String,
    /// Delivers.
    open: Endpoint,
    /// Is paused, with something due.
    paused: Endpoint,
    waiting: String,
    /// The answer to a request with an idempotency key.
    answer: Value,
    delivered: String,
}

const ONCE: (&str, &str) = ("Idempotency-Key", "made-before-the-copy");

/// The request that was answered before the copy, and is repeated after it.
async fn made_once(api: &Api) -> Value {
    let body = json!({ "name": "made once" }).to_string();
    let answer = api.exchange(Method::POST, "/v1/apps", &[ONCE], body).await;
    assert!(answer.status().is_success(), "{answer:?}");
    serde_json::from_slice(answer.body()).unwrap()
}

async fn populate(api: &Api, receiver: &mut Receiver) -> Kept {
    let app = api.create_app("shop").await;
    let asked = json!({ "url": receiver.origin() });
    let open = api.create_endpoint(&app, &asked).await;
    let delivered = api.publish(&app, "order.paid", r#"{"n":1}"#).await;
    assert_eq!(receiver.next().await.header("webhook-id"), delivered);
    let paused = api.create_endpoint(&app, &asked).await;
    let path = format!("/v1/apps/{app}/endpoints/{}", paused.id);
    let pause = json!({ "state": "paused" }).to_string();
    let (status, _) = api.send(Method::PATCH, &path, pause).await;
    assert_eq!(status, StatusCode::OK);
    let waiting = api.publish(&app, "order.sent", r#"{"n":2}"#).await;
    assert_eq!(receiver.next().await.header("webhook-id"), waiting);
    let staged = json!({ "mode": "staged" });
    api.rotate(&open.keyring_id, &staged).await;
    let bulk = json!({ "selector": { "apps": [app] }, "mode": "overlap" });
    api.post("/v1/bulk-rotations", &bulk).await;
    Kept {
        answer: made_once(api).await,
        app,
        open,
        paused,
        waiting,
        delivered,
    }
}

/// A data directory that a server worked on and left.
async fn embedded(receiver: &mut Receiver) -> (tempfile::TempDir, Kept) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with_key(directory.path(), KEY).await;
    let kept = populate(&server.api(), receiver).await;
    server.stop().await;
    (directory, kept)
}

/// A desk on an empty database, with the master key of the data directory.
async fn beside(data_dir: &Path) -> Desk {
    let desk = Desk::new().await;
    std::fs::copy(data_dir.join("master.key"), desk.path("master.key")).unwrap();
    desk
}

fn arguments<'a>(data_dir: &'a str, desk: &'a Desk, more: &[&'a str]) -> Vec<&'a str> {
    [
        &["migrate-store", "--from", data_dir, "--to", &desk.url],
        more,
    ]
    .concat()
}

/// Runs the copy and kills it as soon as it says that it wrote `pieces` pieces. Returns whether it ended before.
fn killed_after(pieces: usize, data_dir: &str, desk: &Desk) -> bool {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hookturn"))
        .args(arguments(data_dir, desk, &["--rows", "1"]))
        .current_dir(desk.directory.path())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let seen = lines.map_while(Result::ok).take(pieces).count();
    child.kill().unwrap();
    let status = child.wait().unwrap();
    seen < pieces && status.success()
}

#[tokio::test]
async fn a_copy_that_is_killed_goes_on_and_its_server_delivers_what_was_due() {
    let mut receiver = Receiver::start().await;
    let (data, kept) = embedded(&mut receiver).await;
    let data_dir = data.path().display().to_string();
    let desk = beside(data.path()).await;
    for pieces in 1..12 {
        assert!(!killed_after(pieces, &data_dir, &desk), "{pieces}");
        let half = desk.run_here(&["serve", "--listen", "127.0.0.1:0"]);
        half.refused(Exit::HalfCopied.code(), &["migrate-store", "goes on"]);
        // What looks whole and is not is worse than none.
        let backup = desk.run_here(&["backup", "half"]);
        let words = ["migrate-store", "goes on", "no backup was written"];
        backup.refused(Exit::HalfCopied.code(), &words);
        assert!(!desk.path("half").exists());
    }
    let told = desk.run(&arguments(&data_dir, &desk, &[]), &[]).done();
    for words in ["message", "idempotency", "audit", "due", "the same"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let again = desk.run(&arguments(&data_dir, &desk, &[]), &[]);
    again.refused(
        Exit::Conflict.code(),
        &["has rows already", "nothing was changed"],
    );

    let server = desk.serve().await;
    let api = server.api();
    check_what_was_kept(&api, &kept).await;
    // What was due while its endpoint was paused is due here.
    let path = format!("/v1/apps/{}/endpoints/{}", kept.app, kept.paused.id);
    let resume = json!({ "state": "enabled" }).to_string();
    let (status, _) = api.send(Method::PATCH, &path, resume).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(receiver.next().await.header("webhook-id"), kept.waiting);
    let new = api.publish(&kept.app, "order.paid", "{}").await;
    assert_eq!(receiver.next().await.header("webhook-id"), new);
    let origin = server.origin();
    let variables = [("HOOKTURN_SERVER", &*origin), ("HOOKTURN_API_KEY", KEY)];
    desk.run(&["audit", "verify"], &variables).done();
    server.stop().await;
}

/// Answers, secrets and records are what they were.
async fn check_what_was_kept(api: &Api, kept: &Kept) {
    assert_eq!(made_once(api).await, kept.answer);
    let secrets = format!("/v1/keyrings/{}/secrets", kept.open.keyring_id);
    let listed = api.get(&secrets).await;
    let ids = listed["data"].as_array().unwrap().iter();
    let mut values = Vec::new();
    for id in ids.map(|secret| secret["id"].as_str().unwrap()) {
        let shown = api
            .post(&format!("{secrets}/{id}/reveal"), &json!({}))
            .await;
        values.push(shown["value"].as_str().unwrap().to_owned());
    }
    assert!(values.contains(&kept.open.secret.value));
    let path = format!("/v1/apps/{}/messages/{}", kept.app, kept.delivered);
    assert_eq!(api.get(&path).await["payload"], json!({ "n": 1 }));
    let path = format!("/v1/apps/{}/deliveries?status=delivered", kept.app);
    let deliveries = api.get(&path).await;
    assert_eq!(deliveries["data"].as_array().unwrap().len(), 2);
    let bulks = api.get("/v1/bulk-rotations").await;
    assert_eq!(bulks["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_or_a_database_in_use_is_left_alone_and_a_dry_run_counts() {
    let mut receiver = Receiver::start().await;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with_key(directory.path(), KEY).await;
    populate(&server.api(), &mut receiver).await;
    let data_dir = directory.path().display().to_string();
    let desk = beside(directory.path()).await;
    let running = desk.run(&arguments(&data_dir, &desk, &[]), &[]);
    running.refused(
        Exit::DatabaseInUse.code(),
        &["in use by another hookturn process"],
    );
    // Counting disturbs nobody.
    let told = desk.run(&arguments(&data_dir, &desk, &["--dry-run"]), &[]);
    assert!(told.err.contains("nothing was changed"), "{}", told.err);
    let told = told.done();
    let messages = told.lines().find(|line| line.contains("message ")).unwrap();
    assert!(messages.trim_end().ends_with('2'), "{told}");
    server.stop().await;

    let served = desk.serve().await;
    let busy = desk.run(&arguments(&data_dir, &desk, &[]), &[]);
    busy.refused(
        Exit::DatabaseInUse.code(),
        &["in use by another hookturn process"],
    );
    served.stop().await;
    let full = desk.run(&arguments(&data_dir, &desk, &[]), &[]);
    full.refused(Exit::Conflict.code(), &["has rows already"]);
}

#[tokio::test]
async fn what_cannot_be_copied_is_said_in_one_sentence() {
    let desk = Desk::new().await;
    let empty = tempfile::tempdir().unwrap();
    let data_dir = empty.path().display().to_string();
    let none = desk.run(&arguments(&data_dir, &desk, &[]), &[]);
    none.refused(
        Exit::DataDirectory.code(),
        &["there is no database", "--from"],
    );
    let password = "postgres://hookturn:planted@127.0.0.1:1/hookturn";
    let shown = desk.run(
        &["migrate-store", "--from", &data_dir, "--to", password],
        &[],
    );
    assert!(!shown.err.contains("planted"), "{}", shown.err);
    shown.refused(Exit::Config.code(), &["--to holds a password"]);
    let other = desk.run(
        &["migrate-store", "--from", &data_dir, "--to", "mysql://db/x"],
        &[],
    );
    other.refused(Exit::Config.code(), &["--to must be the URL"]);
    let mut receiver = Receiver::start().await;
    let (data, _) = embedded(&mut receiver).await;
    let data_dir = data.path().display().to_string();
    let nowhere = "postgres://hookturn@127.0.0.1:1/hookturn";
    let unreachable = desk.run(
        &["migrate-store", "--from", &data_dir, "--to", nowhere],
        &[],
    );
    unreachable.refused(Exit::DatabaseUnreachable.code(), &["cannot connect"]);
    // A row that cannot be is no row to leave out.
    let connection = rusqlite::Connection::open(data.path().join("hookturn.db")).unwrap();
    let damage = "UPDATE settled SET event_type = 999999";
    connection.execute_batch(damage).unwrap();
    drop(connection);
    let damaged = desk.run(&arguments(&data_dir, &desk, &[]), &[]);
    damaged.refused(Exit::HalfCopied.code(), &["settled", "event_type"]);
    let database = desk.url.rsplit('/').next().unwrap();
    let client = cluster().connect(database).await;
    let rows = client.query_one("SELECT count(*) FROM hookturn.message", &[]);
    assert_eq!(rows.await.unwrap().get::<_, i64>(0), 2);
}

/// Two databases that differ are told apart table by table, for people and for programs.
#[tokio::test]
async fn what_differs_is_named_table_by_table() {
    let mut receiver = Receiver::start().await;
    let (data, _) = embedded(&mut receiver).await;
    let data_dir = data.path().display().to_string();
    let desk = beside(data.path()).await;
    assert!(!killed_after(11, &data_dir, &desk));
    let database = desk.url.rsplit('/').next().unwrap();
    let client = cluster().connect(database).await;
    let damage =
        "INSERT INTO hookturn.event_type VALUES ('00000000-0000-0000-0000-000000000000', 'a');
                  UPDATE hookturn.workspace SET version = version + 1";
    client.batch_execute(damage).await.unwrap();
    let told = desk.run(&arguments(&data_dir, &desk, &[]), &[]);
    let words = [
        "workspace (1 rows on both sides, with other values: SHA-256 sum",
        "event_type (2 rows here, 3 there)",
        "drop the schema",
    ];
    told.refused(Exit::CopyDiffers.code(), &words);
    let told = desk.run(&arguments(&data_dir, &desk, &["--output", "json"]), &[]);
    let document = told.err.lines().find_map(|line| {
        let document: Value = serde_json::from_str(line).ok()?;
        document.get("tables").is_some().then_some(document)
    });
    let document = document.unwrap_or_else(|| panic!("{}", told.err));
    assert_eq!(document["exitCode"], Exit::CopyDiffers.code());
    let tables = document["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 2, "{document:#}");
    let named = |name: &str| tables.iter().find(|one| one["table"] == name).unwrap();
    assert_ne!(named("workspace")["sum"], named("workspace")["copySum"]);
    assert_eq!(named("event_type")["rows"], 2);
    assert_eq!(named("event_type")["copyRows"], 3);
    // Nobody takes that for a store either.
    let backup = desk.run_here(&["backup", "differs"]);
    backup.refused(Exit::HalfCopied.code(), &["no backup was written"]);
}

/// The frames of a backup: what each is, and its bytes.
fn frames(mut backup: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = backup.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(*head.last_chunk().unwrap());
        let (bytes, rest) = rest.split_at(usize::try_from(length).unwrap());
        frames.push((head[0], bytes.to_vec()));
        backup = rest;
    }
    frames
}

/// A backup as a former version wrote it of a database into which a store was being copied.
fn of_half_a_copy(backup: &[u8]) -> Vec<u8> {
    let begins = backup.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut made = backup[..begins].to_vec();
    for (kind, bytes) in frames(&backup[begins..]) {
        let mut write = |kind: u8, bytes: &[u8]| {
            made.push(kind);
            made.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
            made.extend(bytes);
        };
        if kind == b'E' {
            let digest = Sha256::digest(&made);
            made.push(b'E');
            made.extend(32_u32.to_be_bytes());
            made.extend(digest);
            break;
        }
        write(kind, &bytes);
        if kind == b'T' && bytes.starts_with(br#"{"name":"meta""#) {
            write(b'D', b"copying\t\\\\x7b7d\n");
        }
    }
    made
}

#[tokio::test]
async fn a_backup_of_half_a_copy_that_a_former_version_made_is_not_restored() {
    let desk = Desk::new().await;
    desk.serve().await.stop().await;
    desk.run_here(&["backup", "whole"]).done();
    let whole = std::fs::read(desk.path("whole")).unwrap();
    std::fs::write(desk.path("half"), of_half_a_copy(&whole)).unwrap();
    let other = Desk::new().await;
    let half = desk.path("half").display().to_string();
    let refused = other.run_here(&["restore", &half]);
    let words = [
        "only a part of a store",
        "nothing was restored",
        "migrate-store",
    ];
    refused.refused(Exit::HalfCopied.code(), &words);
    // Nothing of it is there.
    let whole = desk.path("whole").display().to_string();
    other.run_here(&["restore", &whole]).done();
}

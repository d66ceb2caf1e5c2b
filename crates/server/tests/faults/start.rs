//! A server that cannot start says why in one sentence, ends, and changes nothing.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hookturn::app::DATABASE;
use hookturn::cli::exit::Exit;

use crate::support::http::Api;
use crate::support::process::{Refusal, Setup};

const KEY_FILE: &str = "master.key";

/// Checks the form of a refusal: its exit code, one clear sentence (and perhaps a line that says what
/// to do next), no panic.
fn refused(refusal: &Refusal, exit: Exit, words: &[&str]) {
    let text = refusal.lines.join("\n");
    assert_eq!(refusal.code, Some(i32::from(exit.code())), "{text}");
    let (said, next): (Vec<_>, Vec<_>) = refusal
        .lines
        .iter()
        .partition(|line| !line.starts_with("  next: "));
    assert_eq!(said.len(), 1, "more or less than one line: {text}");
    assert!(next.len() <= 1, "{text}");
    assert!(said[0].starts_with("error: "), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    for leak in ["panicked", "backtrace", "called `", "Os {", "Error {"] {
        assert!(!text.contains(leak), "{leak:?} is in: {text}");
    }
}

/// A data directory with a stopped server's store.
async fn used() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start().await;
    server.stop().await;
    dir
}

fn contents(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join(DATABASE)).unwrap()
}

#[tokio::test]
async fn a_database_of_random_bytes_is_refused_and_kept() {
    let dir = used().await;
    let garbage: Vec<u8> = (0..65_536_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(dir.path().join(DATABASE), &garbage).unwrap();
    let refusal = Setup::new(dir.path()).refused().await;
    refused(
        &refusal,
        Exit::DatabaseDamaged,
        &[DATABASE, "damaged", "backup"],
    );
    assert_eq!(contents(dir.path()), garbage);
}

#[tokio::test]
async fn a_truncated_database_is_refused_and_kept() {
    let dir = used().await;
    let whole = contents(dir.path());
    for length in [whole.len() / 2, 4096, 1000] {
        std::fs::write(dir.path().join(DATABASE), &whole[..length]).unwrap();
        let refusal = Setup::new(dir.path()).refused().await;
        refused(&refusal, Exit::DatabaseDamaged, &[DATABASE, "damaged"]);
        assert_eq!(contents(dir.path()), &whole[..length], "{length}");
    }
}

/// The database is gone and its log is not: it holds what was acknowledged last, and belongs to no other.
#[tokio::test]
async fn a_database_that_is_gone_beside_its_log_is_refused_and_the_log_kept() {
    let dir = used().await;
    std::fs::remove_file(dir.path().join(DATABASE)).unwrap();
    let log = dir.path().join(format!("{DATABASE}-wal"));
    std::fs::write(&log, b"what was acknowledged last").unwrap();
    let words = [DATABASE, "is gone", "nothing was changed", "backup"];
    let refusal = Setup::new(dir.path()).refused().await;
    refused(&refusal, Exit::DatabaseDamaged, &words);
    assert_eq!(std::fs::read(&log).unwrap(), b"what was acknowledged last");
}

/// A full disk, a copy that was broken off, a `> hookturn.db`: what was there is lost, and a server that
/// starts empty beside the key of the lost one would hide it.
#[tokio::test]
async fn an_empty_database_file_is_refused_and_kept() {
    let dir = used().await;
    let key = std::fs::read(dir.path().join(KEY_FILE)).unwrap();
    std::fs::write(dir.path().join(DATABASE), b"").unwrap();
    let words = [DATABASE, "is empty", "nothing was changed", "backup"];
    refused(
        &Setup::new(dir.path()).refused().await,
        Exit::DatabaseDamaged,
        &words,
    );
    assert_eq!(contents(dir.path()), b"");
    assert_eq!(std::fs::read(dir.path().join(KEY_FILE)).unwrap(), key);

    // Whether there is a key makes no difference, and none is made.
    std::fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
    let setup = Setup::new(dir.path());
    refused(&setup.refused().await, Exit::DatabaseDamaged, &words);
    assert!(!dir.path().join(KEY_FILE).exists(), "a key was made");
    let setup = setup.with("HOOKTURN_MASTER_KEY", &"a7".repeat(32));
    refused(&setup.refused().await, Exit::DatabaseDamaged, &words);

    let backup = hookturn::app::backup::backup(dir.path(), &dir.path().join("copy.db"));
    assert!(
        backup.is_err(),
        "an empty file was taken for a database to copy"
    );
    assert!(!dir.path().join("copy.db").exists());
}

#[tokio::test]
async fn a_database_without_its_tables_is_refused_and_kept() {
    for damage in [
        // What is left of another program's, and what ours looks like when everything was dropped.
        "CREATE TABLE a (b); DROP TABLE a;",
        "PRAGMA user_version = 1; CREATE TABLE a (b); DROP TABLE a;",
        "PRAGMA application_id = 0x686b746e; CREATE TABLE a (b); DROP TABLE a;",
        "PRAGMA application_id = 0x686b746e; PRAGMA user_version = 1; CREATE TABLE a (b); DROP TABLE a;",
    ] {
        let dir = used().await;
        std::fs::remove_file(dir.path().join(DATABASE)).unwrap();
        let left = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
        left.execute_batch(damage).unwrap();
        left.close().unwrap();
        let before = contents(dir.path());
        let refusal = Setup::new(dir.path()).refused().await;
        refused(&refusal, Exit::DatabaseDamaged, &[DATABASE, "damaged"]);
        assert_eq!(contents(dir.path()), before, "{damage}");
    }
}

/// A new database has its name only when it is whole: a start that was broken off leaves nothing that
/// looks like a damaged one.
#[tokio::test]
async fn a_first_start_that_was_broken_off_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(KEY_FILE), "a7".repeat(32)).unwrap();
    let half = dir.path().join(format!("{DATABASE}.new"));
    std::fs::write(&half, "SQLite format 3\0half").unwrap();
    let server = Setup::new(dir.path()).start().await;
    assert!(!half.exists());
    assert_eq!(server.api().get("/v1/apps").await.status, 200);
    server.stop().await;
}

/// What the log held is lost, and nothing can tell: but what it had is a database, and it starts.
#[tokio::test]
async fn a_database_whose_log_is_gone_starts_as_of_its_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let server = setup.start().await;
    server.kill().await;
    let log = dir.path().join(format!("{DATABASE}-wal"));
    assert!(log.exists());
    std::fs::remove_file(&log).unwrap();
    let server = setup.start().await;
    assert_eq!(server.api().get("/v1/apps").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_database_with_a_damaged_page_is_refused_and_kept() {
    let dir = used().await;
    let mut damaged = contents(dir.path());
    let middle = damaged.len() / 2;
    for byte in &mut damaged[middle..middle + 4096] {
        *byte ^= 0x5a;
    }
    std::fs::write(dir.path().join(DATABASE), &damaged).unwrap();
    let refusal = Setup::new(dir.path()).refused().await;
    refused(&refusal, Exit::DatabaseDamaged, &[DATABASE, "damaged"]);
    assert_eq!(contents(dir.path()), damaged);
}

#[tokio::test]
async fn a_database_with_a_part_missing_is_refused_and_kept() {
    for (damage, missing) in [
        ("DROP TABLE message", "table message"),
        ("DROP TABLE due", "table due"),
        ("DROP TABLE api_key", "table api_key"),
        (
            "DROP TRIGGER audit_is_append_only_delete",
            "trigger audit_is_append_only_delete",
        ),
        ("DROP INDEX due_delivery", "index due_delivery"),
        (
            "ALTER TABLE settled DROP COLUMN attempts",
            "column attempts of table settled",
        ),
    ] {
        let dir = used().await;
        let ours = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
        ours.execute_batch(damage).unwrap();
        ours.close().unwrap();
        let before = contents(dir.path());
        let refusal = Setup::new(dir.path()).refused().await;
        let words = [
            DATABASE,
            "damaged",
            missing,
            "nothing was changed",
            "backup",
        ];
        refused(&refusal, Exit::DatabaseDamaged, &words);
        let text = refusal.lines.join(" ");
        assert!(
            !text.contains("SELECT") && !text.contains("no such"),
            "{text}"
        );
        assert_eq!(contents(dir.path()), before, "{damage}");
    }
}

#[tokio::test]
async fn another_programs_database_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE);
    let theirs = rusqlite::Connection::open(&path).unwrap();
    theirs
        .execute_batch("CREATE TABLE cats (name TEXT); INSERT INTO cats VALUES ('Minka');")
        .unwrap();
    theirs.close().unwrap();
    let before = contents(dir.path());
    let setup = Setup::new(dir.path()).with("HOOKTURN_MASTER_KEY", &"a7".repeat(32));
    refused(
        &setup.refused().await,
        Exit::DatabaseDamaged,
        &[DATABASE, "not a Hookturn database"],
    );
    assert_eq!(contents(dir.path()), before);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_kept() {
    let dir = used().await;
    let ours = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
    ours.pragma_update(None, "user_version", 9_999).unwrap();
    ours.close().unwrap();
    let before = contents(dir.path());
    let refusal = Setup::new(dir.path()).refused().await;
    refused(&refusal, Exit::DatabaseNewer, &["9999", "newer"]);
    assert_eq!(contents(dir.path()), before);
}

#[tokio::test]
async fn a_missing_master_key_is_refused_and_no_other_is_made() {
    let dir = used().await;
    let path = dir.path().join(KEY_FILE);
    let key = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let refusal = Setup::new(dir.path()).refused().await;
    refused(
        &refusal,
        Exit::MasterKey,
        &[KEY_FILE, "missing", "HOOKTURN_MASTER_KEY_FILE"],
    );
    assert!(!path.exists(), "a second key was made");
    std::fs::write(&path, key).unwrap();
    Setup::new(dir.path()).start().await.stop().await;
}

#[tokio::test]
async fn g8_a_wrong_master_key_is_refused_and_not_shown() {
    let dir = used().await;
    for wrong in ["c5".repeat(32), "not-a-key-6b1d0e".to_owned()] {
        let setup = Setup::new(dir.path()).with("HOOKTURN_MASTER_KEY", &wrong);
        let refusal = setup.refused().await;
        refused(&refusal, Exit::MasterKey, &["master key"]);
        assert!(!refusal.lines.join("\n").contains(&wrong));
    }
    Setup::new(dir.path()).start().await.stop().await;
}

#[tokio::test]
async fn a_secret_file_that_is_not_there_is_refused_by_the_name_of_its_variable() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let file = dir.path().join("nowhere.key");
    let file = file.to_str().unwrap();
    for (name, exit) in [
        ("HOOKTURN_MASTER_KEY_FILE", Exit::MasterKey),
        ("HOOKTURN_BOOTSTRAP_API_KEY_FILE", Exit::Config),
    ] {
        let setup = Setup::new(&data).without("HOOKTURN_BOOTSTRAP_API_KEY");
        let refusal = setup.with(name, file).refused().await;
        let put_back = format!("put the file back, or correct {name}");
        refused(&refusal, exit, &[name, file, "cannot be read", &put_back]);
        let text = refusal.lines.join("\n");
        assert!(!text.contains("hookturn init"), "{text}");
        assert!(!data.exists(), "a directory was made");
    }
}

#[tokio::test]
async fn a_master_key_that_others_can_read_is_warned_of() {
    const WARNING: &str = "can read the master key";
    let dir = used().await;
    let own = dir.path().join(KEY_FILE);
    let named = dir.path().join("elsewhere.key");
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    let setup = Setup::new(dir.path());
    let log = setup.start().await.stop().await.join("\n");
    assert!(!log.contains(WARNING), "{log}");
    mode(&own, 0o644);
    let log = setup.start().await.stop().await.join("\n");
    assert!(log.contains(WARNING) && log.contains(KEY_FILE), "{log}");
    // A file of the operator's own may be shared with a group.
    std::fs::rename(&own, &named).unwrap();
    let setup = setup.with("HOOKTURN_MASTER_KEY_FILE", named.to_str().unwrap());
    for (bits, warned) in [(0o640, false), (0o604, true)] {
        mode(&named, bits);
        let log = setup.start().await.stop().await.join("\n");
        assert_eq!(log.contains(WARNING), warned, "{bits:o}: {log}");
    }
}

#[tokio::test]
async fn an_address_of_another_machine_is_refused_as_such() {
    let dir = tempfile::tempdir().unwrap();
    // TEST-NET-1: nobody's.
    let setup = Setup::new(&dir.path().join("data")).listen("192.0.2.1:0");
    let refusal = setup.refused().await;
    let words = ["192.0.2.1:0", "no such address", "--listen"];
    refused(&refusal, Exit::AddressInUse, &words);
    let text = refusal.lines.join("\n");
    assert!(!text.contains("another program"), "{text}");
    assert!(!dir.path().join("data").exists(), "a directory was made");
}

#[tokio::test]
async fn an_occupied_port_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let refusal = Setup::new(dir.path()).listen(&address).refused().await;
    refused(&refusal, Exit::AddressInUse, &[&address, "--listen"]);
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_is_refused() {
    // Also the superuser cannot make a directory below a regular file, or write to /proc.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "kept").unwrap();
    for path in [file.join("data"), file.clone(), "/proc/hookturn".into()] {
        let refusal = Setup::new(&path).refused().await;
        refused(
            &refusal,
            Exit::DataDirectory,
            &[path.to_str().unwrap(), "data directory"],
        );
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"kept");
}

#[tokio::test]
async fn a_database_that_may_only_be_read_is_refused() {
    let dir = used().await;
    let database = dir.path().join(DATABASE);
    std::fs::set_permissions(&database, Permissions::from_mode(0o444)).unwrap();
    let before = contents(dir.path());
    let setup = Setup::new(dir.path()).obeys_permissions();
    let words = [DATABASE, "not written", "nothing was changed"];
    refused(&setup.refused().await, Exit::DataDirectory, &words);
    assert_eq!(contents(dir.path()), before);
    std::fs::set_permissions(&database, Permissions::from_mode(0o600)).unwrap();
    setup.start().await.stop().await;
}

/// The keys that a server printed.
fn printed_keys(lines: &[String]) -> Vec<String> {
    let keys = lines.iter().filter_map(|line| {
        let (_, key) = line.split_once("first API key (shown this once): ")?;
        Some(key.to_owned())
    });
    keys.collect()
}

/// A key that could not be shown is not kept either: the store would have a key that nobody ever saw.
#[tokio::test]
async fn a_first_key_that_cannot_be_printed_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).without("HOOKTURN_BOOTSTRAP_API_KEY");
    let refusal = setup.clone().full_stderr().refused().await;
    assert_eq!(refusal.code, Some(i32::from(Exit::ServeFailed.code())));

    let server = setup.start().await;
    let keys = printed_keys(&server.lines());
    assert_eq!(keys.len(), 1, "{:?}", server.lines());
    let api = Api {
        address: server.address,
        key: keys[0].clone(),
    };
    assert_eq!(api.get("/v1/workspaces").await.status, 200);
    server.stop().await;
}

/// Killed at the moment its key is read, before or after it is stored: one that was printed works in the end.
#[tokio::test]
async fn a_kill_at_the_first_start_leaves_a_key_that_was_printed() {
    for _ in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup::new(dir.path()).without("HOOKTURN_BOOTSTRAP_API_KEY");
        let first = setup.spawn();
        first.said("first API key").await;
        let mut keys = printed_keys(&first.lines());
        first.kill().await;
        let second = setup.start().await;
        keys.extend(printed_keys(&second.lines()));
        let mut accepted = 0;
        for key in keys {
            let api = Api {
                address: second.address,
                key,
            };
            let status = api.get("/v1/workspaces").await.status;
            accepted += usize::from(status == 200);
        }
        assert_eq!(accepted, 1);
        second.stop().await;
    }
}

#[tokio::test]
async fn what_stands_in_the_place_of_the_database_is_refused_and_kept() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("directory");
    std::fs::create_dir_all(directory.join(DATABASE)).unwrap();
    // The disk that it leads to is not there today.
    let link = place.path().join("link");
    std::fs::create_dir(&link).unwrap();
    std::os::unix::fs::symlink("/nonexistent/hookturn.db", link.join(DATABASE)).unwrap();
    for dir in [directory, link] {
        let refusal = Setup::new(&dir).refused().await;
        let words = [DATABASE, "not a file", "nothing was changed"];
        refused(&refusal, Exit::DatabaseDamaged, &words);
        assert!(!dir.join(KEY_FILE).exists(), "a key was made");
    }
}

#[tokio::test]
async fn a_second_server_on_a_data_directory_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = Setup::new(dir.path()).start().await;
    let refusal = Setup::new(dir.path()).refused().await;
    refused(&refusal, Exit::DatabaseInUse, &["in use", "--data-dir"]);
    assert_eq!(first.api().get("/readyz").await.status, 200);
    first.stop().await;
}

#[tokio::test]
async fn configuration_that_is_not_valid_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let setup = Setup::new(&data);
    for (name, value) in [
        ("HOOKTURN_ALLOW_NETS", "127.0.0.0/99"),
        ("HOOKTURN_ALLOW_HTTP", "perhaps"),
        ("HOOKTURN_SHARDS", "-1"),
        ("HOOKTURN_RETENTION_DAYS", "1e9"),
        ("HOOKTURN_LOG_FORMAT", "xml"),
        ("HOOKTURN_LOG", "hookturn=loud,,="),
        ("HOOKTURN_EXTRA_ROOTS_FILE", "/nonexistent/roots.pem"),
        ("HOOKTURN_CONFIG", "/nonexistent/hookturn.toml"),
        ("HOOKTURN_STORE", "mysql://localhost/x"),
        ("HOOKTURN_MASTER_KEY_FIL", "/nonexistent/key"),
        ("HOOKTURN_MASTER_KEY_FILE", ""),
    ] {
        let refusal = setup.clone().with(name, value).refused().await;
        let word = match name {
            "HOOKTURN_CONFIG" | "HOOKTURN_EXTRA_ROOTS_FILE" => value,
            "HOOKTURN_STORE" => "HOOKTURN_STORE must be the URL",
            name => name,
        };
        refused(&refusal, Exit::Config, &[word]);
    }
    refused(
        &setup.clone().listen("nowhere").refused().await,
        Exit::Config,
        &["--listen"],
    );
    let file = dir.path().join("h.toml");
    std::fs::write(&file, "[outbound]\nallow_htpt = true\n").unwrap();
    let file = file.to_str().unwrap();
    let refusal = setup.with("HOOKTURN_CONFIG", file).refused().await;
    refused(&refusal, Exit::Config, &[file, "allow_htpt"]);
    assert!(!data.join(DATABASE).exists(), "a store was made");
}

#[tokio::test]
async fn a_first_key_that_can_be_guessed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for weak in ["hunter2", "hunter2 hunter2 hunter2"] {
        let setup = Setup::new(&data).with("HOOKTURN_BOOTSTRAP_API_KEY", weak);
        let refusal = setup.refused().await;
        refused(
            &refusal,
            Exit::Config,
            &["HOOKTURN_BOOTSTRAP_API_KEY", "at least 16", "openssl rand"],
        );
        let text = refusal.lines.join("\n");
        assert_eq!(text.matches("at least 16").count(), 1, "said twice: {text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!data.exists(), "a directory was made");
    }
}

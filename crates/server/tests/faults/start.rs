//! A server that cannot start says why in one sentence, ends, and changes nothing.

use std::path::Path;

use hookturn::app::DATABASE;
use hookturn::cli::exit::Exit;

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
    // A directory where the database should be.
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(DATABASE)).unwrap();
    let setup = Setup::new(dir.path()).with("HOOKTURN_MASTER_KEY", &"a7".repeat(32));
    refused(&setup.refused().await, Exit::DataDirectory, &[DATABASE]);
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
        ("HOOKTURN_STORE", "postgres://localhost/x"),
    ] {
        let refusal = setup.clone().with(name, value).refused().await;
        let word = match name {
            "HOOKTURN_CONFIG" | "HOOKTURN_EXTRA_ROOTS_FILE" => value,
            "HOOKTURN_STORE" => "--store",
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

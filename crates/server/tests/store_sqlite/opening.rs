//! What is refused at the start, and with which words. A refusal changes nothing.

use std::io::{Seek, SeekFrom, Write as _};

use hookturn::store::conformance::world::{START, World};
use hookturn::store::sqlite::{OpenError, backup_beside, examine};
use hookturn_core::store::{Store, Write};
use rusqlite::Connection;

use super::engine::{Sqlite, check, database, open};

/// A stopped store with something in it.
async fn stopped() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let world = World::new(&Sqlite).await;
    let tenant = world.tenant("acme").await;
    for _ in 0..200 {
        world.accept_one(&tenant, START).await;
    }
    let backup = world.backup_path();
    world.store().backup(backup.clone()).await.unwrap();
    std::fs::copy(backup, database(&place)).unwrap();
    drop(open(&database(&place)).unwrap());
    place
}

/// A server that was killed leaves a log, which SQLite would play back over a backup that is put there.
#[tokio::test]
async fn g1_a_backup_is_not_opened_with_the_log_of_what_stood_there_before() {
    let [backup, killed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let before = stopped().await;
    let kept = backup.path().join("kept.db");
    backup_beside(&database(&before), &kept).unwrap().unwrap();

    let store = open(&database(&before)).unwrap();
    store.put_meta("since", b"then".to_vec()).await.unwrap();
    for name in ["hookturn.db", "hookturn.db-wal"] {
        std::fs::copy(before.path().join(name), killed.path().join(name)).unwrap();
    }
    drop(store);
    let log = killed.path().join("hookturn.db-wal");
    let left = std::fs::read(&log).unwrap();
    assert!(!left.is_empty());

    std::fs::copy(&kept, database(&killed)).unwrap();
    assert!(matches!(refused(&killed), OpenError::LogOfAnother { .. }));
    let copied = backup_beside(&database(&killed), &backup.path().join("again.db"));
    assert!(matches!(copied, Err(OpenError::LogOfAnother { .. })));
    assert!(examine(&database(&killed), "since").is_err());
    assert_eq!(std::fs::read(&log).unwrap(), left);

    std::fs::remove_file(&log).unwrap();
    let store = open(&database(&killed)).unwrap();
    assert_eq!(store.meta("since").await.unwrap(), None);
    store.put_meta("since", b"now".to_vec()).await.unwrap();
    // What is written from now on is its own log.
    let again = tempfile::tempdir().unwrap();
    for name in ["hookturn.db", "hookturn.db-wal"] {
        std::fs::copy(killed.path().join(name), again.path().join(name)).unwrap();
    }
    let store = open(&database(&again)).unwrap();
    assert_eq!(store.meta("since").await.unwrap(), Some(b"now".to_vec()));
}

/// Without a snapshot the copy would begin anew with each commit, and end when the last one is done.
#[tokio::test]
async fn a_backup_from_beside_ends_while_others_write() {
    const COMMITS: u32 = 20_000;
    let place = stopped().await;
    let (from, to) = (database(&place), place.path().join("backup.db"));
    let writer = Connection::open(&from).unwrap();
    writer
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
             INSERT INTO meta (key, value) SELECT 'filling ' || i, randomblob(4096) FROM n",
        )
        .unwrap();
    let commits = std::thread::scope(|scope| {
        let copying = scope.spawn(|| backup_beside(&from, &to));
        let mut commits = 0;
        while !copying.is_finished() && commits < COMMITS {
            let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES ('last', randomblob(64))";
            writer.execute_batch(sql).unwrap();
            commits += 1;
        }
        copying.join().unwrap().unwrap().unwrap();
        commits
    });
    assert!(commits < COMMITS, "it ended when nobody wrote any more");
    assert!(to.exists());
}

fn refused(place: &tempfile::TempDir) -> OpenError {
    let path = database(place);
    let before = std::fs::read(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), before, "{error}");
    assert!(!error.to_string().is_empty());
    error
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(database(&place), "just some notes of mine".repeat(100)).unwrap();
    let error = refused(&place);
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[test]
fn the_database_of_another_program_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let theirs = Connection::open(database(&place)).unwrap();
    theirs.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(theirs);
    let error = refused(&place);
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let place = stopped().await;
    let path = database(&place);
    let pages = std::fs::metadata(&path).unwrap().len() / 4_096;
    let mut file = std::fs::File::options().write(true).open(&path).unwrap();
    for page in 2..pages {
        file.seek(SeekFrom::Start(page * 4_096)).unwrap();
        file.write_all(&[0xa5; 512]).unwrap();
    }
    drop(file);
    let error = refused(&place);
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_truncated_database_is_refused() {
    let place = stopped().await;
    let path = database(&place);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    drop(file);
    let error = refused(&place);
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let place = stopped().await;
    let newer = Connection::open(database(&place)).unwrap();
    newer.pragma_update(None, "user_version", 1_000).unwrap();
    drop(newer);
    match refused(&place) {
        OpenError::Newer { found, known, .. } => assert!(found == 1_000 && known < found),
        error => panic!("{error:?}"),
    }
}

/// A step of the schema that fails takes back those before it, and is told without its statements.
#[tokio::test]
async fn a_schema_that_cannot_be_brought_up_to_date_stays_as_it_was() {
    let place = stopped().await;
    let older = Connection::open(database(&place)).unwrap();
    let seen = |connection: &Connection| {
        let version: i32 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap();
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables: i32 = connection.query_row(tables, [], |row| row.get(0)).unwrap();
        (version, tables)
    };
    // Two steps are missing, and in the way of the second one is what it makes.
    older
        .execute_batch(
            "DROP INDEX settled_of_workspace; DROP INDEX settled_exhausted_of_workspace;
             PRAGMA user_version = 5;",
        )
        .unwrap();
    let before = seen(&older);
    drop(older);
    let error = open(&database(&place)).unwrap_err();
    let said = error.to_string();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(said.contains("from schema 5 to "), "{said}");
    assert!(
        said.contains("step 7 failed; nothing was changed"),
        "{said}"
    );
    assert!(source.contains("already exists"), "{source}");
    for text in [said, source] {
        assert!(!text.contains("CREATE"), "{text}");
    }
    assert_eq!(seen(&Connection::open(database(&place)).unwrap()), before);
}

/// What an upgrade finds: secrets from before there were marks. They wait to be marked.
#[tokio::test]
async fn a_database_without_marks_lists_its_secrets_as_unmarked() {
    let place = tempfile::tempdir().unwrap();
    let world = World::new(&Sqlite).await;
    let tenant = world.tenant("acme").await;
    let keyring = world.keyring(&tenant.endpoints[0]);
    let secret = world.secret(&keyring, b"sealed");
    let writes = vec![Write::Secret(secret.clone())];
    world.write(keyring.workspace, writes).await;
    let backup = world.backup_path();
    world.store().backup(backup.clone()).await.unwrap();
    std::fs::copy(backup, database(&place)).unwrap();
    let older = Connection::open(database(&place)).unwrap();
    older
        .execute_batch(
            "DROP INDEX settled_of_workspace; DROP INDEX settled_exhausted_of_workspace;
             DROP TABLE secret_mark; DROP TABLE bulk; DROP TABLE bulk_item; DROP TABLE reported;
             DROP TABLE noted; DROP TABLE schedule; DROP TABLE schedule_note; DROP TABLE figures;
             PRAGMA user_version = 3;",
        )
        .unwrap();
    drop(older);
    let store = open(&database(&place)).unwrap();
    assert_eq!(store.unmarked(10).await.unwrap(), [secret.secret]);
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.secrets, [secret]);
}

#[tokio::test]
async fn a_row_that_cannot_be_is_named() {
    let place = stopped().await;
    let damaged = Connection::open(database(&place)).unwrap();
    damaged
        .execute_batch("UPDATE workspace SET document = '{\"id\":7}'")
        .unwrap();
    drop(damaged);
    let error = open(&database(&place)).unwrap_err();
    let OpenError::Contents(source) = error else {
        panic!("{error:?}");
    };
    let text = source.to_string();
    assert!(
        text.contains("workspace") && text.contains("document"),
        "{text}"
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a-file");
    std::fs::write(&file, b"").unwrap();
    for directory in [place.path().join("missing"), file] {
        let error = open(&directory.join("hookturn.db")).unwrap_err();
        assert!(matches!(error, OpenError::NoLock { .. }), "{error:?}");
    }
    // The database itself is a directory: not even root writes to that.
    let path = place.path().join("hookturn.db");
    std::fs::create_dir(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OpenError::NotAFile { .. }), "{error:?}");
}

#[test]
fn an_empty_file_is_refused() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(database(&place), b"").unwrap();
    let error = refused(&place);
    assert!(matches!(error, OpenError::Emptied { .. }), "{error:?}");
}

#[test]
fn a_file_of_zeros_or_a_piece_of_a_header_is_refused() {
    for bytes in [&[0; 1][..], &[0; 4096], b"SQLite format 3\0", b"SQLite"] {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(database(&place), bytes).unwrap();
        let error = refused(&place);
        assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_what_the_store_writes() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let store = open(&database(&place)).unwrap();
    store.backup(place.path().join("backup.db")).await.unwrap();
    let mut seen = 0;
    for file in std::fs::read_dir(place.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", file.file_name());
        seen += 1;
    }
    assert!(seen >= 3, "database, log and backup");
}

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_has_stopped() {
    let place = tempfile::tempdir().unwrap();
    let path = database(&place);
    let first = open(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    let clone = first.clone();
    drop(first);
    assert!(open(&path).is_err());
    clone.flush().await.unwrap();
    drop(clone);
    drop(open(&path).unwrap());
    assert!(
        !path.with_extension("db-wal").exists(),
        "no log is left behind"
    );
    check(&path);
}

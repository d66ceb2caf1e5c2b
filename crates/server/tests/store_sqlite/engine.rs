//! SQLite as the suite sees it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hookturn::store::conformance::{Engine, Recorder};
use hookturn::store::live::Live;
use hookturn::store::sqlite::{OpenError, SqliteOptions, SqliteStore};
use hookturn_core::store::{HintSink, Store};
use rusqlite::Connection;
use tempfile::TempDir;

/// The embedded engine, one directory for each store.
pub(crate) struct Sqlite;

pub(crate) fn database(place: &TempDir) -> PathBuf {
    place.path().join("hookturn.db")
}

/// Opens a database whose live view and hints nobody looks at.
pub(crate) fn open(path: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(SqliteOptions {
        path: path.to_owned(),
        live: Arc::new(Live::default()),
        hints: Arc::new(Recorder::default()),
    })
}

/// What SQLite itself says of a database file.
pub(crate) fn check(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let health: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(health, "ok", "{}", path.display());
}

impl Engine for Sqlite {
    type Place = TempDir;

    async fn fresh(&self) -> TempDir {
        tempfile::tempdir().unwrap()
    }

    async fn open(
        &self,
        place: &TempDir,
        live: Arc<Live>,
        hints: Arc<dyn HintSink>,
    ) -> Arc<dyn Store> {
        let path = database(place);
        Arc::new(SqliteStore::open(SqliteOptions { path, live, hints }).unwrap())
    }

    /// The database and its log as they lie on disk; the index of the log is memory of the process.
    async fn crash(&self, place: &TempDir) -> TempDir {
        let left = tempfile::tempdir().unwrap();
        for name in ["hookturn.db", "hookturn.db-wal"] {
            std::fs::copy(place.path().join(name), left.path().join(name)).unwrap();
        }
        left
    }

    fn backup_path(&self, place: &TempDir) -> PathBuf {
        place.path().join("backup.db")
    }

    async fn restore(&self, backup: &Path) -> TempDir {
        check(backup);
        let place = tempfile::tempdir().unwrap();
        std::fs::copy(backup, database(&place)).unwrap();
        place
    }

    async fn check(&self, place: &TempDir) {
        check(&database(place));
    }

    async fn rewrite_audit(&self, place: &TempDir) -> bool {
        let connection = Connection::open(database(place)).unwrap();
        let attempts = [
            "UPDATE audit SET document = '{}'",
            "UPDATE audit SET seq = seq + 1",
            "DELETE FROM audit",
            "DELETE FROM audit WHERE seq = 1",
        ];
        attempts
            .iter()
            .any(|sql| connection.execute_batch(sql).is_ok())
    }
}

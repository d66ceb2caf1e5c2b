//! PostgreSQL as the suite sees it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hookturn::store::conformance::{Engine, Recorder};
use hookturn::store::live::Live;
use hookturn::store::postgres::{self, OpenError, PostgresOptions, PostgresStore, Sharing, Target};
use hookturn_core::store::{HintSink, Store};
use tempfile::TempDir;

use super::support::cluster::cluster;

/// Opens a database whose live view and hints nobody looks at.
pub(crate) async fn open(target: &Target) -> Result<PostgresStore, OpenError> {
    PostgresStore::open(PostgresOptions {
        target: target.clone(),
        live: Arc::new(Live::default()),
        hints: Arc::new(Recorder::default()),
        sharing: Sharing::default(),
    })
    .await
}

/// Cuts every connection to a database, and lets nobody in.
pub(crate) async fn shut(database: &str) {
    let client = cluster().connect("postgres").await;
    let gone = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false");
    client.batch_execute(&gone).await.unwrap();
    let cut =
        "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE datname = $1";
    client.query_one(cut, &[&database]).await.unwrap();
}

/// Lets everybody in again.
pub(crate) async fn open_again(database: &str) {
    let client = cluster().connect("postgres").await;
    let back = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true");
    client.batch_execute(&back).await.unwrap();
}

/// The engine for many nodes, one database for each store.
pub(crate) struct Postgres;

/// A database, and a directory for the paths of backups. Both go away with the cluster or before.
pub(crate) struct Place {
    pub(crate) database: String,
    directory: TempDir,
}

impl Place {
    pub(crate) async fn fresh() -> Self {
        Self {
            database: cluster().create_database().await,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn target(&self) -> Target {
        Target::parse(&cluster().url(&self.database)).unwrap()
    }

    /// Cuts every connection, and lets nobody in.
    pub(crate) async fn shut(&self) {
        shut(&self.database).await;
    }

    /// Lets everybody in again.
    pub(crate) async fn open_again(&self) {
        open_again(&self.database).await;
    }
}

impl Engine for Postgres {
    type Place = Place;

    async fn fresh(&self) -> Place {
        Place::fresh().await
    }

    async fn open(
        &self,
        place: &Place,
        live: Arc<Live>,
        hints: Arc<dyn HintSink>,
    ) -> Arc<dyn Store> {
        let target = place.target();
        let options = PostgresOptions {
            target,
            live,
            hints,
            sharing: Sharing::default(),
        };
        Arc::new(PostgresStore::open(options).await.unwrap())
    }

    /// The same database, after every connection of the process was cut: what it did not commit is gone.
    async fn crash(&self, place: &Place) -> Place {
        let client = cluster().connect(&place.database).await;
        let cut = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        client.query_one(cut, &[]).await.unwrap();
        Place {
            database: place.database.clone(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn backup_path(&self, place: &Place) -> PathBuf {
        place.directory.path().join("backup")
    }

    async fn restore(&self, backup: &Path) -> Place {
        let place = Place::fresh().await;
        let restored = postgres::restore(&place.target(), backup).await;
        restored.unwrap().unwrap();
        place
    }

    /// Every index is walked against its table.
    async fn check(&self, place: &Place) {
        let client = cluster().connect(&place.database).await;
        let check = "CREATE EXTENSION IF NOT EXISTS amcheck;
             SELECT bt_index_check(i.indexrelid, true) FROM pg_index i
             JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
             WHERE c.relnamespace = 'hookturn'::regnamespace";
        client.batch_execute(check).await.unwrap();
    }

    async fn rewrite_audit(&self, place: &Place) -> bool {
        let client = cluster().connect(&place.database).await;
        let attempts = [
            "UPDATE hookturn.audit SET document = '{}'",
            "UPDATE hookturn.audit SET seq = seq + 1",
            "DELETE FROM hookturn.audit",
            "DELETE FROM hookturn.audit WHERE seq = 1",
            "TRUNCATE hookturn.audit",
        ];
        for sql in attempts {
            if client.batch_execute(sql).await.is_ok() {
                return true;
            }
        }
        false
    }
}

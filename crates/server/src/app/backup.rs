//! Backup of a store, beside a running server or without one, and what a backup of a database is for.

use std::path::{Path, PathBuf};

use hookturn_core::store::StoreError;

use super::engine::target;
use super::process::on_runtime;
use super::{DatabaseError, Failure};
use crate::config::{Config, Database, StorePlace};
use crate::store::postgres;
use crate::store::sqlite::{self, OpenError};

/// Why there is no backup, or nothing was restored. The file was not left behind half written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupFailure {
    /// There is no database.
    #[error("there is no database at {path}; name the --data-dir of the server")]
    NoDatabase {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The target exists.
    #[error("{path} exists already; choose another name, a backup never overwrites")]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database of a PostgreSQL store cannot be opened.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Nothing could be begun.
    #[error(transparent)]
    Start(#[from] Failure),
    /// The copy failed.
    #[error("cannot write the backup")]
    Write(#[source] StoreError),
    /// The backup cannot be read, or not be written into the database, which is as it was.
    #[error("nothing was restored")]
    Restore(#[source] StoreError),
}

/// Writes a consistent copy of the store that `config` names to `to`. Secrets in it are sealed; the master
/// key is not part of it and must be kept elsewhere.
pub fn of_store(config: &Config, to: &Path) -> Result<(), BackupFailure> {
    match &config.store {
        StorePlace::Embedded => backup(&config.data_dir, to),
        StorePlace::Postgres(database) => {
            must_not_exist(to)?;
            let copied =
                on_runtime(async { postgres::backup_beside(&target(database)?, to).await })?;
            copied?.map_err(BackupFailure::Write)
        }
    }
}

/// The same of the embedded store in `data_dir`.
pub fn backup(data_dir: &Path, to: &Path) -> Result<(), BackupFailure> {
    let from = data_dir.join(super::DATABASE);
    if !sqlite::exists(&from)? {
        return Err(BackupFailure::NoDatabase { path: from });
    }
    must_not_exist(to)?;
    sqlite::backup_beside(&from, to)?.map_err(BackupFailure::Write)
}

fn must_not_exist(to: &Path) -> Result<(), BackupFailure> {
    if to.exists() {
        return Err(BackupFailure::Exists {
            path: to.to_owned(),
        });
    }
    Ok(())
}

/// Fills an empty database from a backup of a PostgreSQL store, whole or not at all.
pub fn restore(database: &Database, from: &Path) -> Result<(), BackupFailure> {
    let restored = on_runtime(async { postgres::restore(&target(database)?, from).await })?;
    restored?.map_err(BackupFailure::Restore)
}

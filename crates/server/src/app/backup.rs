//! Backup of a data directory, beside a running server or without one.

use std::path::{Path, PathBuf};

use crate::store::sqlite::{self, OpenError};
use hookturn_core::store::StoreError;

/// Why there is no backup. The file was not left behind half written.
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
    /// The copy failed.
    #[error("cannot write the backup")]
    Write(#[from] StoreError),
}

/// Writes a consistent copy of the database in `data_dir` to `to`. Secrets in it are sealed; the
/// master key is not part of it and must be kept elsewhere.
pub fn backup(data_dir: &Path, to: &Path) -> Result<(), BackupFailure> {
    let from = data_dir.join(super::DATABASE);
    if !sqlite::exists(&from)? {
        return Err(BackupFailure::NoDatabase { path: from });
    }
    if to.exists() {
        return Err(BackupFailure::Exists {
            path: to.to_owned(),
        });
    }
    Ok(sqlite::backup_beside(&from, to)??)
}

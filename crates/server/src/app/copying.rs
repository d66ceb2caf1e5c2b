//! Copying the embedded store of a data directory into a PostgreSQL database.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::engine::target;
use super::process::on_runtime;
use super::{DatabaseError, Failure};
use crate::config::Database;
use crate::store::copying;
use crate::store::sqlite;

pub use crate::store::copying::{Copied, CopyError, Difference, Doing, Planned, Progress};

/// Why there is no copy, or not the whole of it yet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyFailure {
    /// There is nothing to copy.
    #[error("there is no database at {path}; name the data directory of the server by --from")]
    NoDatabase {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Nothing could be begun.
    #[error(transparent)]
    Start(#[from] Failure),
    /// It ended before it was whole.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

impl From<sqlite::OpenError> for CopyFailure {
    fn from(error: sqlite::OpenError) -> Self {
        Self::Copy(error.into())
    }
}

impl From<DatabaseError> for CopyFailure {
    fn from(error: DatabaseError) -> Self {
        Self::Copy(error.into())
    }
}

fn database_of(data_dir: &Path) -> Result<PathBuf, CopyFailure> {
    let path = data_dir.join(super::DATABASE);
    if sqlite::exists(&path)? {
        Ok(path)
    } else {
        Err(CopyFailure::NoDatabase { path })
    }
}

/// Copies it, or goes on with a copy that was begun; `rows` is the most that one transaction writes. `progress` is
/// told after every piece, and may stop it there.
pub fn copy(
    data_dir: &Path,
    to: &Database,
    rows: Option<u64>,
    progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Copied, CopyFailure> {
    let (from, to) = (database_of(data_dir)?, target(to)?);
    Ok(on_runtime(copying::copy(&from, &to, rows, progress))??)
}

/// Says what [`copy`] would do, and does nothing.
pub fn plan(data_dir: &Path, to: &Database) -> Result<Planned, CopyFailure> {
    let (from, to) = (database_of(data_dir)?, target(to)?);
    Ok(on_runtime(copying::plan(&from, &to))??)
}

//! Looks at a store from beside it, changing nothing: what `hookturn doctor` reports.
//!
//! Everything here may run while a server has the store open.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Failure;
use super::engine::target;
use super::keys::{self, KEY_FILE, KeyFailure};
use super::process::on_runtime;
use crate::config::{self, Config};
use crate::store::postgres;
use crate::store::seal::{MasterKey, Place, Sealer};
use crate::store::sqlite::{self, Examined, OpenError};
use crate::telemetry::SystemEntropy;

/// What was found about the database.
#[derive(Debug)]
pub enum Database {
    /// There is none; the first start makes it.
    None,
    /// It is whole.
    Whole(Examined),
}

/// Looks whether the database is ours, of a known version and whole.
pub fn database(config: &Config) -> Result<Database, OpenError> {
    let path = config.data_dir.join(super::DATABASE);
    if !sqlite::exists(&path)? {
        return Ok(Database::None);
    }
    sqlite::examine(&path, keys::CHECK).map(Database::Whole)
}

pub use crate::store::postgres::Examined as ExaminedDatabase;

/// Looks at the database of a PostgreSQL store.
pub fn postgres(database: &config::Database) -> Result<ExaminedDatabase, Failure> {
    let examined = on_runtime(async { postgres::examine(&target(database)?, keys::CHECK).await })?;
    Ok(examined?)
}

/// What was found about the master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MasterKeyState {
    /// There is none, and nothing that would need it; the first start makes it.
    NotYet,
    /// There is a usable one, and no database that it could fail to fit.
    Usable,
    /// It opens what the database holds.
    Fits,
}

/// Looks whether the master key fits the database.
pub fn master_key(config: &Config, database: &Database) -> Result<MasterKeyState, KeyFailure> {
    let path = config.data_dir.join(KEY_FILE);
    let text = match &config.master_key {
        Some(text) => zeroize::Zeroizing::new(text.expose().to_owned()),
        None => match std::fs::read_to_string(&path) {
            Ok(text) => zeroize::Zeroizing::new(text),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(KeyFailure::File {
                    path,
                    source: error,
                });
            }
            Err(_) => {
                return match database {
                    Database::None => Ok(MasterKeyState::NotYet),
                    Database::Whole(_) => Err(KeyFailure::Missing { path }),
                };
            }
        },
    };
    let Database::Whole(examined) = database else {
        return fits(&text, None);
    };
    fits(&text, examined.meta.as_deref())
}

/// The same for a store in PostgreSQL, whose key is given.
pub fn master_key_of(
    config: &Config,
    database: Option<&ExaminedDatabase>,
) -> Result<MasterKeyState, KeyFailure> {
    let Some(text) = &config.master_key else {
        return Err(KeyFailure::NotGiven);
    };
    fits(
        text.expose(),
        database.and_then(|examined| examined.meta.as_deref()),
    )
}

fn fits(text: &str, sealed: Option<&[u8]>) -> Result<MasterKeyState, KeyFailure> {
    let keys = MasterKey::parse_list(text)?;
    let Some(sealed) = sealed else {
        return Ok(MasterKeyState::Usable);
    };
    Sealer::new(keys, Arc::new(SystemEntropy))
        .open(Place::Check, sealed)
        .map(|_| MasterKeyState::Fits)
        .map_err(KeyFailure::Wrong)
}

/// The file of the master key, if other users can read or write it.
pub fn exposed_key_file(config: &Config) -> Option<PathBuf> {
    keys::open_to_others(config)
}

/// Whether a hookturn process has the data directory open.
pub fn is_running(data_dir: &Path) -> bool {
    let beside = data_dir.join(super::DATABASE).with_extension("lock");
    let Ok(file) = File::open(beside) else {
        return false;
    };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

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
use crate::store::seal::{CHECK, MasterKey, Place, SealedUnder, Sealer, key_of};
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
    sqlite::examine(&path, CHECK).map(Database::Whole)
}

pub use crate::store::postgres::Examined as ExaminedDatabase;

/// Looks at the database of a PostgreSQL store.
pub fn postgres(database: &config::Database) -> Result<ExaminedDatabase, Failure> {
    let examined = on_runtime(async { postgres::examine(&target(database)?, CHECK).await })?;
    Ok(examined?)
}

/// What was found about the master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterKeyState {
    /// There is none, and nothing that would need it; the first start makes it.
    NotYet,
    /// There is a usable one, and no database that it could fail to fit.
    Usable,
    /// It opens what the database holds.
    Fits(Sealed),
}

/// Under which keys the values of a database are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealed {
    /// All of them under the current one.
    Current,
    /// The key that is given first is not current yet.
    NotYet,
    /// Some secrets are sealed under a former one: a rotation was broken off.
    Secrets {
        /// How many.
        count: u64,
        /// The id of the former key.
        key_id: String,
    },
    /// Only answers are sealed under a former one, and expire within a day.
    Answers {
        /// How many.
        count: u64,
        /// The id of the former key.
        key_id: String,
    },
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
        return fits(&text, None, &[]);
    };
    fits(&text, examined.meta.as_deref(), &examined.sealed)
}

/// The same for a store in PostgreSQL, whose key is given.
pub fn master_key_of(
    config: &Config,
    database: Option<&ExaminedDatabase>,
) -> Result<MasterKeyState, KeyFailure> {
    let Some(text) = &config.master_key else {
        return Err(KeyFailure::NotGiven);
    };
    let check = database.and_then(|examined| examined.meta.as_deref());
    let sealed = database.map_or(&[][..], |examined| &examined.sealed);
    fits(text.expose(), check, sealed)
}

fn fits(
    text: &str,
    check: Option<&[u8]>,
    sealed: &[SealedUnder],
) -> Result<MasterKeyState, KeyFailure> {
    let keys = MasterKey::parse_list(text)?;
    let Some(check) = check else {
        return Ok(MasterKeyState::Usable);
    };
    let opened = Sealer::new(keys.clone(), Arc::new(SystemEntropy)).open(Place::Check, check);
    opened.map_err(KeyFailure::Wrong)?;
    let ids: Vec<String> = keys.iter().map(MasterKey::id).collect();
    judge(&ids, &key_of(check).unwrap_or_default(), sealed).map(MasterKeyState::Fits)
}

/// What there is to say of the keys that are given, of which one is current, and of what is sealed.
///
/// 1. Secrets under a key that is not given cannot be opened.
/// 2. A key that is given before the current one is to become current.
/// 3. Secrets under a former key are to be sealed again.
/// 4. Answers under a former key expire.
fn judge(given: &[String], current: &str, sealed: &[SealedUnder]) -> Result<Sealed, KeyFailure> {
    let unknown = sealed
        .iter()
        .find(|under| under.secrets > 0 && !given.contains(&under.key_id));
    if let Some(under) = unknown {
        return Err(KeyFailure::Former {
            count: usize::try_from(under.secrets).unwrap_or(usize::MAX),
            key_id: under.key_id.clone(),
        });
    }
    if given.first().is_some_and(|first| first != current) {
        return Ok(Sealed::NotYet);
    }
    let former = || sealed.iter().filter(|under| under.key_id != current);
    if let Some(under) = former().find(|under| under.secrets > 0) {
        return Ok(Sealed::Secrets {
            count: under.secrets,
            key_id: under.key_id.clone(),
        });
    }
    Ok(match former().find(|under| under.answers > 0) {
        Some(under) => Sealed::Answers {
            count: under.answers,
            key_id: under.key_id.clone(),
        },
        None => Sealed::Current,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn under(key: &str, secrets: u64, answers: u64) -> SealedUnder {
        SealedUnder {
            key_id: key.to_owned(),
            secrets,
            answers,
        }
    }

    #[test]
    fn what_is_sealed_under_which_key_says_what_to_do() {
        let given = ["new".to_owned(), "old".to_owned()];
        let judged = |current, sealed: &[_]| judge(&given, current, sealed).unwrap();
        let key_id = || "old".to_owned();
        assert_eq!(judged("new", &[under("new", 9, 9)]), Sealed::Current);
        assert_eq!(judged("old", &[under("old", 9, 9)]), Sealed::NotYet);
        assert_eq!(
            judged("new", &[under("new", 1, 1), under("old", 2, 5)]),
            Sealed::Secrets {
                count: 2,
                key_id: key_id()
            }
        );
        assert_eq!(
            judged("new", &[under("new", 3, 1), under("old", 0, 5)]),
            Sealed::Answers {
                count: 5,
                key_id: key_id()
            }
        );
        let failed = judge(&given[..1], "new", &[under("old", 2, 0)]).unwrap_err();
        assert!(failed.to_string().contains("2 secrets"), "{failed}");
    }
}

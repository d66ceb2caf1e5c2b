//! The master key: where it comes from, and whether it fits the store.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hookturn_core::id::Entropy;
use hookturn_core::store::{StoreError, StoreFuture};

use super::engine::{Engine, Place as StorePlace};
use crate::config::Config;
use crate::service::master_key::MasterKeys;
use crate::store::live::Live;
use crate::store::seal::{CHECK, MasterKey, OpenError, ParseMasterKeyError, Place, Sealer, key_of};
use crate::telemetry::SystemEntropy;

/// The name of the key file in the data directory.
pub(super) const KEY_FILE: &str = "master.key";
/// Master keys kept after a finished rotation, the current one included: former ones open idempotent
/// answers, which live for a day. So one more rotation than that within a day ends the first answers early.
const KEYS_KEPT: usize = 64;

/// Why there is no usable master key. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFailure {
    /// The database exists, its key does not.
    #[error(
        "the master key {path} is missing, and the secrets in the database cannot be read without it; put the file back, or give the key by HOOKTURN_MASTER_KEY_FILE"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The store is a database that others may share, and no key was given.
    #[error(
        "the master key is missing: with a PostgreSQL store it is given, never made; `hookturn master-key generate FILE` makes one, and HOOKTURN_MASTER_KEY_FILE names the file"
    )]
    NotGiven,
    /// The file cannot be read or written.
    #[error("cannot use the master key file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is not a key.
    #[error("the master key is not valid")]
    Parse(#[from] ParseMasterKeyError),
    /// The key is not the one the store was sealed with.
    #[error(
        "the master key does not fit this database; give the key it was sealed with by HOOKTURN_MASTER_KEY_FILE or {KEY_FILE}"
    )]
    Wrong(#[source] OpenError),
    /// A rotation was broken off, and the former key is not given any more.
    #[error(
        "{count} secrets of this database are still sealed under master key {key_id}, which is not given: put it behind the present one, separated by a comma, and run `hookturn master-key rotate`; nothing was changed"
    )]
    Former {
        /// How many secrets.
        count: usize,
        /// The id of the key that opens them.
        key_id: String,
    },
    /// The store could not be asked.
    #[error("cannot check the master key")]
    Store(#[from] StoreError),
}

/// The master keys: from the environment, else from the key file, else made new, which only happens with a
/// new database in the data directory. For a store in PostgreSQL the environment gives them: a key that was
/// made in a directory of one machine would leave the others, and the next one, without it.
pub(super) fn resolve(
    config: &Config,
    place: &StorePlace,
    entropy: &dyn Entropy,
) -> Result<Vec<MasterKey>, KeyFailure> {
    let keys = read_or_make(config, place, entropy)?;
    if let Some(path) = open_to_others(config) {
        tracing::warn!(path = %path.display(), "other users of this machine can read the master key: chmod 600 it");
    }
    Ok(keys)
}

fn read_or_make(
    config: &Config,
    place: &StorePlace,
    entropy: &dyn Entropy,
) -> Result<Vec<MasterKey>, KeyFailure> {
    if let Some(text) = &config.master_key {
        return Ok(MasterKey::parse_list(text.expose())?);
    }
    let StorePlace::Embedded { existed, .. } = place else {
        return Err(KeyFailure::NotGiven);
    };
    let path = config.data_dir.join(KEY_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(MasterKey::parse_list(&zeroize::Zeroizing::new(text))?),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(KeyFailure::File {
            path,
            source: error,
        }),
        Err(_) if *existed => Err(KeyFailure::Missing { path }),
        Err(_) => {
            let key = MasterKey::generate(entropy);
            write(&path, std::slice::from_ref(&key))
                .map_err(|source| KeyFailure::File { path, source })?;
            Ok(vec![key])
        }
    }
}

/// The key file in use, if users see it whom it is not meant for: of the data directory's nobody but its
/// owner, of one that the operator named whoever shares a group with it.
pub(super) fn open_to_others(config: &Config) -> Option<PathBuf> {
    let (path, forbidden) = match (&config.master_key, &config.master_key_file) {
        (_, Some(named)) => (named.clone(), 0o007),
        (Some(_), None) => return None,
        (None, None) => (config.data_dir.join(KEY_FILE), 0o077),
    };
    let mode = std::fs::metadata(&path).ok()?.permissions().mode();
    (mode & forbidden != 0).then_some(path)
}

/// Writes a key file, readable by its owner only, whole or not at all.
pub(super) fn write(path: &Path, keys: &[MasterKey]) -> std::io::Result<()> {
    let fresh = path.with_extension("key.new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    for key in keys {
        file.write_all(key.expose().as_bytes())?;
        file.write_all(b"\n")?;
    }
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    // The name must survive a crash too.
    path.parent()
        .map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all())
}

/// The key file of the data directory, or keys that come from elsewhere.
pub(super) struct KeptKeys {
    store: Engine,
    source: Source,
}

enum Source {
    File(PathBuf),
    /// From the environment, which this process cannot change: in the order in which they were given.
    Given(Vec<MasterKey>),
}

impl KeptKeys {
    pub(super) fn new(config: &Config, given: Vec<MasterKey>, store: Engine) -> Self {
        let source = match config.master_key {
            Some(_) => Source::Given(given),
            None => Source::File(config.data_dir.join(KEY_FILE)),
        };
        Self { store, source }
    }
}

impl MasterKeys for KeptKeys {
    fn next(&self, present: &[MasterKey]) -> Result<Vec<MasterKey>, String> {
        let file = match &self.source {
            Source::File(file) => file,
            Source::Given(keys) if keys.len() > 1 => return Ok(keys.clone()),
            Source::Given(_) => {
                return Err(
                    "this server was given its master key, by HOOKTURN_MASTER_KEY or the file that \
                     HOOKTURN_MASTER_KEY_FILE names: put the new key and a comma before the present one \
                     there, restart, and rotate again; nothing was changed"
                        .to_owned(),
                );
            }
        };
        let mut keys = vec![MasterKey::generate(&SystemEntropy)];
        // All of them: a rotation that was broken off leaves values under any of them.
        keys.extend_from_slice(present);
        write(file, &keys).map_err(|error| {
            format!(
                "the key file {} cannot be written ({error}); nothing was changed",
                file.display()
            )
        })?;
        Ok(keys)
    }

    fn keep_check(&self, sealed: Vec<u8>) -> StoreFuture<'_, ()> {
        self.store.put_meta(CHECK, sealed)
    }

    fn make_current(&self, key_id: &str, sealed: Vec<u8>) -> StoreFuture<'_, Vec<String>> {
        self.store.make_current(key_id, sealed)
    }

    fn forget_oldest(&self, present: &[MasterKey]) -> Result<Vec<MasterKey>, String> {
        let kept = &present[..present.len().min(KEYS_KEPT)];
        if let Source::File(file) = &self.source
            && kept.len() < present.len()
        {
            write(file, kept).map_err(|error| {
                format!(
                    "the key file {} cannot be written ({error})",
                    file.display()
                )
            })?;
        }
        Ok(kept.to_vec())
    }
}

/// Refuses keys that cannot open what the store holds, and lets the one seal that is current there. A store of
/// which none is current yet takes the first; of several servers on an empty database one makes it so.
pub(super) async fn check(store: &Engine, sealer: &Sealer, live: &Live) -> Result<(), KeyFailure> {
    let kept = if let Some(kept) = store.meta(CHECK).await? {
        kept
    } else {
        let first = sealer.check_of(&sealer.master_keys()[0]);
        store.put_first_meta(CHECK, first.clone()).await?;
        let kept = store.meta(CHECK).await?.unwrap_or(first);
        sealer.follow(&kept);
        kept
    };
    sealer
        .open(Place::Check, &kept)
        .map_err(KeyFailure::Wrong)?;
    // Where several servers share a store, the engine follows what is current, and may know later than this.
    if !store.is_shared() {
        sealer.follow(&kept);
    }
    let secrets = live.sealed_secrets();
    let boxes = secrets.iter().map(|secret| Arc::clone(&secret.sealed));
    let unknown: Vec<String> = boxes
        .chain(live.mark_key())
        .filter(|sealed| !sealer.knows(sealed))
        .filter_map(|sealed| key_of(&sealed))
        .collect();
    match unknown.first() {
        None => Ok(()),
        Some(key_id) => Err(KeyFailure::Former {
            count: unknown.len(),
            key_id: key_id.clone(),
        }),
    }
}

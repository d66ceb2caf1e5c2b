//! The store a server runs on: opened here, and asked here for what only its engine can tell.
//!
//! Everything else knows the [`Store`] trait alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hookturn_core::store::{Store, StoreFuture};

use super::Failure;
use crate::config::{Config, Database, StorePlace};
use crate::dispatch::Inboxes;
use crate::store::live::Live;
use crate::store::owned::Owned;
use crate::store::postgres::{
    self, Figures, Gone, PostgresOptions, PostgresStore, Sharing, Standing, Target,
};
use crate::store::seal::{CHECK, Sealer};
use crate::store::sqlite::{self, SqliteOptions, SqliteStore};
use crate::telemetry::NodeClock;

/// A place for a store of which nothing is open yet.
pub(super) enum Place {
    Embedded {
        path: PathBuf,
        /// Two processes on an empty directory must not both make a master key.
        lock: sqlite::DatabaseLock,
        /// Whether there is a database already.
        existed: bool,
    },
    Postgres(Box<Target>),
}

impl Place {
    /// Finds the place, and keeps other processes from a data directory.
    pub(super) fn of(config: &Config) -> Result<Self, Failure> {
        match &config.store {
            StorePlace::Embedded => {
                let path = prepare_data_dir(config)?;
                let lock = sqlite::lock(&path)?;
                let existed = sqlite::exists(&path)?;
                Ok(Self::Embedded {
                    path,
                    lock,
                    existed,
                })
            }
            StorePlace::Postgres(database) => Ok(Self::Postgres(Box::new(target(database)?))),
        }
    }

    /// Opens the store. Its contents are in `live` then, and due work is told to `inboxes`.
    pub(super) async fn open(
        self,
        config: &Config,
        live: &Arc<Live>,
        inboxes: &Inboxes,
        clock: &NodeClock,
        sealer: &Arc<Sealer>,
    ) -> Result<Engine, Failure> {
        let (live, hints) = (Arc::clone(live), Arc::new(inboxes.clone()));
        match self {
            Self::Embedded { path, lock, .. } => {
                let options = SqliteOptions { path, live, hints };
                Ok(Engine::Embedded(SqliteStore::open_locked(options, lock)?))
            }
            Self::Postgres(target) => {
                let options = PostgresOptions {
                    target: *target,
                    live,
                    hints,
                    sharing: Sharing {
                        lease: Duration::from_secs(config.nodes.lease_seconds.into()),
                        standing: Standing::new(clock.clone()),
                        sealer: Some(Arc::clone(sealer)),
                        ..Sharing::default()
                    },
                };
                Ok(Engine::Postgres(PostgresStore::open(options).await?))
            }
        }
    }
}

/// A database as its engine takes it.
pub(super) fn target(database: &Database) -> Result<Target, postgres::OpenError> {
    let target = Target::parse(database.url.expose())?;
    Ok(match &database.password {
        Some(password) => target.with_password(password.expose()),
        None => target,
    })
}

fn prepare_data_dir(config: &Config) -> Result<PathBuf, Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let path = &config.data_dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Failure::DataDir {
            path: path.clone(),
            source,
        })?;
    Ok(path.join(super::DATABASE))
}

/// An open store.
#[derive(Clone)]
pub(super) enum Engine {
    Embedded(SqliteStore),
    Postgres(PostgresStore),
}

impl Engine {
    /// The store, as everyone else knows it.
    pub(super) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// Which shards this node owns.
    pub(super) fn owned(&self) -> Arc<Owned> {
        match self {
            Self::Embedded(_) => Arc::default(),
            Self::Postgres(store) => store.owned(),
        }
    }

    /// How this node stands among those that share the store, if any may.
    pub(super) fn figures(&self) -> Option<Figures> {
        match self {
            Self::Embedded(_) => None,
            Self::Postgres(store) => Some(store.figures()),
        }
    }

    /// Whether the last transaction could not be written, because of the disk or the database.
    pub(super) fn cannot_write(&self) -> bool {
        match self {
            Self::Embedded(store) => store.cannot_write(),
            Self::Postgres(store) => store.cannot_write(),
        }
    }

    /// Whether the database was found to be damaged since the start.
    pub(super) fn is_damaged(&self) -> bool {
        match self {
            Self::Embedded(store) => store.is_damaged(),
            // The database's own server watches over its pages.
            Self::Postgres(_) => false,
        }
    }

    /// Writes something small, so that [`Engine::cannot_write`] learns whether it works again.
    pub(super) fn try_writing(&self) -> StoreFuture<'_, ()> {
        match self {
            Self::Embedded(store) => store.try_writing(),
            Self::Postgres(store) => store.try_writing(),
        }
    }

    /// A value kept beside the data.
    pub(super) fn meta(&self, key: &'static str) -> StoreFuture<'_, Option<Vec<u8>>> {
        match self {
            Self::Embedded(store) => store.meta(key),
            Self::Postgres(store) => store.meta(key),
        }
    }

    /// Keeps such a value.
    pub(super) fn put_meta(&self, key: &'static str, value: Vec<u8>) -> StoreFuture<'_, ()> {
        match self {
            Self::Embedded(store) => store.put_meta(key, value),
            Self::Postgres(store) => store.put_meta(key, value),
        }
    }

    /// Keeps such a value unless there is one.
    pub(super) fn put_first_meta(&self, key: &'static str, value: Vec<u8>) -> StoreFuture<'_, ()> {
        match self {
            Self::Embedded(store) => store.put_meta(key, value),
            Self::Postgres(store) => store.put_first_meta(key, value),
        }
    }

    /// Makes the master key of this id current, by the box that says so, if every server of the store has it.
    /// Returns those that have not.
    pub(super) fn make_current(
        &self,
        key_id: &str,
        check: Vec<u8>,
    ) -> StoreFuture<'_, Vec<String>> {
        match self {
            Self::Embedded(store) => {
                let kept = store.put_meta(CHECK, check);
                Box::pin(async move { kept.await.map(|()| Vec::new()) })
            }
            Self::Postgres(store) => store.make_current(key_id, check),
        }
    }

    /// Whether other servers may work on the same store.
    pub(super) const fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Where applications publish in transactions of their own, if they share the database.
    pub(super) const fn outbox(&self) -> Option<&PostgresStore> {
        match self {
            Self::Embedded(_) => None,
            Self::Postgres(store) => Some(store),
        }
    }

    /// Waits until this node was taken over. An embedded store is locked as long as the process lives.
    pub(super) async fn until_gone(&self) -> Gone {
        match self {
            Self::Embedded(_) => std::future::pending().await,
            Self::Postgres(store) => store.until_gone().await,
        }
    }

    /// Writes what was queued, and leaves a database in order, so that nobody waits for this node.
    pub(super) fn close(&self) -> StoreFuture<'_, ()> {
        match self {
            Self::Embedded(store) => store.flush(),
            Self::Postgres(store) => store.close(),
        }
    }
}

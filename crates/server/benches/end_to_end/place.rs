//! Where the servers of a scenario keep what they have: a directory, or a database of a cluster.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::ValueEnum;
use serde::Serialize;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::fixture::{Bench, store_dir};
use crate::number::Error;
use crate::process::Server;
use crate::wire::Wire;

/// The database of a place of its own.
const DATABASE: &str = "hookturn";
/// Counts the statements of a cluster that loads it.
const STATEMENTS: &str = "pg_stat_statements";

/// Which store is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Engine {
    /// The embedded one.
    #[default]
    Sqlite,
    /// A private PostgreSQL cluster for each scenario.
    Postgres,
}

/// An empty place for one server or, in a database, for several.
pub(crate) enum Place {
    Directory(TempDir),
    Database {
        cluster: Rc<Cluster>,
        name: String,
        /// Stands between the nodes and the cluster where round trips are counted.
        wire: Option<Wire>,
    },
}

impl Place {
    pub(crate) async fn make(bench: &Bench) -> Result<Self, Error> {
        match bench.engine {
            Engine::Sqlite => Ok(Self::Directory(store_dir(&bench.dir)?)),
            Engine::Postgres => {
                let cluster = Rc::new(Cluster::start(&bench.dir, &[])?);
                Self::database(cluster, DATABASE).await
            }
        }
    }

    /// A database in which statements and round trips are counted, which takes time of its own. Nothing where
    /// PostgreSQL has no `pg_stat_statements`.
    pub(crate) async fn counting(bench: &Bench) -> Result<Option<Self>, Error> {
        let load = format!("shared_preload_libraries={STATEMENTS}");
        let Ok(cluster) = Cluster::start(&bench.dir, &[&load]) else {
            return Ok(None);
        };
        cluster.create_database(DATABASE).await?;
        let client = cluster.connect(DATABASE).await?;
        let extension = format!("CREATE EXTENSION {STATEMENTS}");
        if client.batch_execute(&extension).await.is_err() {
            return Ok(None);
        }
        let wire = Wire::start(cluster.socket())?;
        Ok(Some(Self::Database {
            cluster: Rc::new(cluster),
            name: DATABASE.to_owned(),
            wire: Some(wire),
        }))
    }

    /// Another empty place: a directory, or a database of the same cluster.
    pub(crate) async fn beside(&self, bench: &Bench, name: &str) -> Result<Self, Error> {
        match self {
            Self::Directory(_) => Ok(Self::Directory(store_dir(&bench.dir)?)),
            Self::Database { cluster, .. } => Self::database(Rc::clone(cluster), name).await,
        }
    }

    async fn database(cluster: Rc<Cluster>, name: &str) -> Result<Self, Error> {
        cluster.create_database(name).await?;
        Ok(Self::Database {
            cluster,
            name: name.to_owned(),
            wire: None,
        })
    }

    /// Starts a server here and waits until it is ready.
    pub(crate) fn serve(&self, binary: &Path) -> Result<Server, Error> {
        match self {
            Self::Directory(directory) => Server::start(binary, directory.path()),
            Self::Database {
                cluster,
                name,
                wire,
            } => {
                let url = wire
                    .as_ref()
                    .map_or_else(|| cluster.url(name), |wire| wire.url(name));
                Server::start_on(binary, &url, &cluster.key_file())
            }
        }
    }

    /// The cluster and the name of the database.
    pub(crate) fn cluster(&self) -> Option<(&Cluster, &str)> {
        match self {
            Self::Directory(_) => None,
            Self::Database { cluster, name, .. } => Some((cluster, name)),
        }
    }

    pub(crate) fn wire(&self) -> Option<&Wire> {
        match self {
            Self::Directory(_) => None,
            Self::Database { wire, .. } => wire.as_ref(),
        }
    }

    /// The file of an embedded store.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Directory(directory) => Some(directory.path().join(hookturn::app::DATABASE)),
            Self::Database { .. } => None,
        }
    }
}

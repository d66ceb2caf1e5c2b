//! `hookturn serve`: runs the server, and says in one sentence and one exit code why it does not.

use std::path::PathBuf;

use clap::Args;

use super::Edge;
use super::exit::{Exit, Failure, Outcome};
use crate::app::{self, DatabaseError, KeyFailure, OpenError};
use crate::config::{self, Config, ConfigError, Flags};

/// Where the configuration comes from: what `serve` and the commands beside it share.
#[derive(Debug, Clone, Args)]
pub(super) struct Place {
    /// Configuration file [env: HOOKTURN_CONFIG, default: hookturn.toml if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of database and master key [env: HOOKTURN_DATA_DIR, default: hookturn-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// PostgreSQL database to use instead of the embedded store, as postgres://user@host/database; its
    /// password is in the file that HOOKTURN_STORE_PASSWORD_FILE names [env: HOOKTURN_STORE].
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) place: Place,
    /// Address to listen on [env: HOOKTURN_LISTEN, default: 127.0.0.1:8090].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// How log lines look: text or json [env: HOOKTURN_LOG_FORMAT].
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"])]
    log_format: Option<String>,
}

impl Place {
    fn flags(&self) -> Flags {
        Flags {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            store: self.store.clone(),
            ..Flags::default()
        }
    }

    /// Loads the configuration of this place.
    pub(super) fn load(&self, edge: &Edge) -> Result<Config, Failure> {
        load(self.flags(), edge)
    }
}

impl Serve {
    fn flags(&self) -> Flags {
        Flags {
            listen: self.listen.clone(),
            log_format: self.log_format.clone(),
            ..self.place.flags()
        }
    }

    /// Loads the configuration with these flags.
    pub(super) fn load(&self, edge: &Edge) -> Result<Config, Failure> {
        load(self.flags(), edge)
    }
}

fn load(flags: Flags, edge: &Edge) -> Result<Config, Failure> {
    config::load(flags, &edge.env).map_err(|error| not_usable(&error))
}

pub(super) fn not_usable(error: &ConfigError) -> Failure {
    let what = app::explain(error);
    match error {
        ConfigError::SecretFile { name, .. } => {
            let exit = if *name == config::MASTER_KEY_FILE {
                Exit::MasterKey
            } else {
                Exit::Config
            };
            Failure::new(exit, format!("{what}; nothing was started"))
                .next(format!("put the file back, or correct {name}"))
        }
        _ => Failure::new(Exit::Config, what)
            .next("`hookturn init` writes a file with every key and its default"),
    }
}

pub(super) fn run(asked: &Serve, edge: &Edge) -> Outcome {
    let config = asked.load(edge)?;
    app::serve(&config).map_err(|error| not_started(&error))?;
    Ok(Exit::Done)
}

/// The exit code of a server that did not start.
pub(super) fn not_started(error: &app::Failure) -> Failure {
    let exit = match error {
        app::Failure::DataDir { .. } => Exit::DataDirectory,
        app::Failure::MasterKey(error) => of_key(error),
        app::Failure::Store(error) => of_open(error),
        app::Failure::Database(error) => of_database(error),
        app::Failure::Gone(_) => Exit::DatabaseInUse,
        app::Failure::Listen { .. } => Exit::AddressInUse,
        app::Failure::Roots { .. } => Exit::Config,
        _ => Exit::ServeFailed,
    };
    // The sentence of the failure says what to do.
    Failure::new(exit, app::explain(error))
}

/// The exit code of a database that cannot be opened.
pub(super) fn of_open(error: &OpenError) -> Exit {
    match error {
        OpenError::Damaged { .. }
        | OpenError::Incomplete { .. }
        | OpenError::Emptied { .. }
        | OpenError::Gone { .. }
        | OpenError::LogOfAnother { .. }
        | OpenError::NotAFile { .. }
        | OpenError::Contents(_) => Exit::DatabaseDamaged,
        OpenError::Newer { .. } => Exit::DatabaseNewer,
        OpenError::Older { .. } => Exit::Conflict,
        OpenError::Unwritable { .. }
        | OpenError::ReadOnly { .. }
        | OpenError::NoLock { .. }
        | OpenError::NotMade { .. } => Exit::DataDirectory,
        OpenError::InUse { .. } => Exit::DatabaseInUse,
        _ => Exit::ServeFailed,
    }
}

/// The same of the database of a PostgreSQL store.
pub(super) fn of_database(error: &DatabaseError) -> Exit {
    match error {
        DatabaseError::Url { .. }
        | DatabaseError::RootCertificates { .. }
        | DatabaseError::TooOld { .. } => Exit::Config,
        DatabaseError::Unreachable { .. }
        | DatabaseError::Silent { .. }
        | DatabaseError::WrongPassword { .. }
        | DatabaseError::NoPassword { .. }
        | DatabaseError::Failed(_) => Exit::DatabaseUnreachable,
        DatabaseError::Newer { .. } => Exit::DatabaseNewer,
        DatabaseError::InUse { .. } => Exit::DatabaseInUse,
        DatabaseError::HalfCopied { .. } | DatabaseError::HalfBackedUp => Exit::HalfCopied,
        DatabaseError::Contents(_) | DatabaseError::OtherSchema { .. } => Exit::DatabaseDamaged,
        _ => Exit::ServeFailed,
    }
}

fn of_key(error: &KeyFailure) -> Exit {
    match error {
        KeyFailure::Store(_) => Exit::DatabaseDamaged,
        _ => Exit::MasterKey,
    }
}

//! The application: puts the parts together, starts them in order, and stops them in reverse.
//!
//! Start: address → lock → master key → store (migrated, live view loaded) → key check → service →
//! first API key → delivery shards (everything that was due goes on) → one line
//! `listening on http://…`. What can fail for outer reasons comes before anything is made. The store is
//! the embedded one or a PostgreSQL database; only [`engine`] knows which.
//!
//! Stop, on SIGTERM or SIGINT: readiness off → exchanges in flight finish and are recorded → no new
//! connections, requests finish, those included whose clients left → store closed. The listener
//! outlives the exchanges so that whoever balances the load can see that readiness is off; what is
//! published until it goes is stored, and due at the next start. A second signal stops at once; what
//! was not recorded is due again too.

pub mod alive;
pub mod backup;
pub mod checkup;
pub mod copying;
mod engine;
mod http;
mod keys;
pub mod migrating;
mod outbox;
pub mod probes;
mod process;
mod server;
mod supervisor;
mod sweeps;
mod test_event;

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::api;
use crate::service::ServiceError;
use crate::store::postgres;

pub use crate::store::postgres::{Gone, OpenError as DatabaseError};
pub use crate::store::sqlite::OpenError;
pub use crate::telemetry::explain;
pub use keys::KeyFailure;
pub use process::{Signals, serve, start_logging};
pub use server::Server;

/// The name of the database in the data directory.
pub const DATABASE: &str = "hookturn.db";

/// Why the server did not start, or does not go on. Nothing that was acknowledged is lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The data directory cannot be used.
    #[error(
        "cannot use the data directory {path}; check that it exists or can be made, and belongs to the user hookturn runs as"
    )]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The master key is missing or wrong.
    #[error(transparent)]
    MasterKey(#[from] KeyFailure),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The database that holds the store cannot be opened.
    #[error(transparent)]
    Database(#[from] postgres::OpenError),
    /// Another process took the database while this one had lost it.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}; {}", listening_fails(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The extra root certificates cannot be used.
    #[error("cannot use the extra root certificates of {path}")]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The first API key cannot be made.
    #[error("cannot make the first API key")]
    Bootstrap(#[source] ServiceError),
    /// The first API key would be one that nobody has seen.
    #[error(
        "cannot print the first API key to standard error, so none was made; start again with it open, or \
         give a key by HOOKTURN_BOOTSTRAP_API_KEY_FILE"
    )]
    FirstKeyUnseen(#[source] std::io::Error),
    /// Anything else that start-up needs.
    #[error("cannot {what}")]
    Start {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why an address cannot be listened on, and what to do about it.
pub fn listening_fails(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::AddrInUse => {
            "another program uses it: stop that one, or choose another --listen"
        }
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address: give --listen one of its own, or 0.0.0.0 or [::] for all of them"
        }
        ErrorKind::PermissionDenied => {
            "the user hookturn runs as may not: ports below 1024 are often reserved, choose another --listen"
        }
        _ => "choose another --listen",
    }
}

fn start_failure<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl FnOnce(E) -> Failure {
    move |source| Failure::Start {
        what,
        source: Box::new(source),
    }
}

/// The description of the native API: OpenAPI 3.1 as indented JSON.
pub fn openapi() -> &'static str {
    api::openapi()
}

/// The description of the Hopae dialect: OpenAPI 3.1 as indented JSON.
pub fn hopae_openapi() -> &'static str {
    api::hopae_openapi()
}

/// The description of the KORE dialect: OpenAPI 3.1 as indented JSON.
pub fn kore_openapi() -> &'static str {
    api::kore_openapi()
}

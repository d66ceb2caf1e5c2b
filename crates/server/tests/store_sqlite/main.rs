//! The embedded engine: the conformance suite, and what only SQLite can get wrong.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod engine;
mod group_commit;
mod opening;
mod searching;
mod secrecy;

use engine::Sqlite;

hookturn::store_conformance!(Sqlite);

//! The engine for many nodes: the conformance suite, and what only PostgreSQL can get wrong.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod engine;
mod group_commit;
mod losing;
mod proxy;
mod schema;

use engine::Postgres;

hookturn::store_conformance!(Postgres);

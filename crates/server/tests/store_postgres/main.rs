//! The engine for many nodes: the conformance suite, and what only PostgreSQL can get wrong.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod copying;
mod engine;
mod group_commit;
mod losing;
mod outbox;
mod owning;
mod proxy;
mod schema;
#[path = "../support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "shared with tests of the running program"
)]
mod support;
mod telling;

use engine::Postgres;

hookturn::store_conformance!(Postgres);

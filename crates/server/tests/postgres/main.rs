//! The running program on a PostgreSQL store: how it starts and is refused, what it does when the database
//! goes away, and the commands beside it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod commands;
mod copying;
mod cutter;
mod desk;
mod losing;
mod outbox;
mod password;
mod refused;
mod starting;
#[path = "../support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "shared with other tests of the running program"
)]
mod support;
mod tls;

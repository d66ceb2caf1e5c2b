//! What tests of the running program share: the server as a process, a client of its API, and a
//! receiver on loopback that keeps what it was sent.
//!
//! A test says `mod support;`, with `#[expect(dead_code, reason = "…")]` where it uses a part only.
//! (This file is not `support.rs`, because that would be a test of its own.) Nothing here sleeps:
//! every wait is for an event, and every event has [`DEADLINE`] to come.

use std::future::Future;
use std::time::Duration;

mod api;
pub(crate) mod cluster;
pub(crate) mod engine;
pub(crate) mod postmaster;
mod receiver;
mod server;

pub(crate) use api::{Api, Endpoint, SecretValue};
pub(crate) use receiver::{Captured, Receiver};
pub(crate) use server::Server;

/// Longest wait for an event that must come, on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Waits for something that must happen.
pub(crate) async fn within_deadline<T>(what: &str, event: impl Future<Output = T>) -> T {
    let timed = tokio::time::timeout(DEADLINE, event).await;
    timed.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

//! The native API from outside: the router over the service and a real store.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod bad_input;
mod bench;
mod described;
mod idempotency;
mod lists;
mod measures;
mod nulls;
mod secrets;
#[path = "../support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "shared with tests of the running program"
)]
mod support;
mod traffic;

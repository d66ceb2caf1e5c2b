//! The native API from outside: the router over the service and the real embedded store.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod bad_input;
mod bench;
mod idempotency;
mod lists;
mod measures;
mod secrets;
mod traffic;

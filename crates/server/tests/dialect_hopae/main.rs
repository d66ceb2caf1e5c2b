//! The Hopae dialect from outside, held against the tables of Hopae's pages: the router over the
//! service and the real embedded store, and where the wire or a restart matters the running program.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../api_v1/bench.rs"]
#[expect(dead_code, reason = "shared with the tests of the native API")]
mod bench;
mod contract;
mod desk;
mod errors;
mod idempotency;
mod rotating;
mod running;
#[path = "../support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "shared with other tests of the running program"
)]
mod support;

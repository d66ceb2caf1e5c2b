//! The dialect of KORE against the contract of its page: the tables of that page are the tables here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../api_v1/bench.rs"]
#[expect(dead_code, reason = "shared with the tests of the native API")]
mod bench;
#[path = "../support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "shared with other tests of the running program"
)]
mod support;

mod calls;
mod errors;
mod life;
mod published;
mod running;

//! Several nodes on one database: the promises are those of one, whatever becomes of a node.
//!
//! The nodes are real processes. Those that must be seen to be gone by their silence alone are stopped with SIGSTOP:
//! of one that was killed the others on its machine know at once.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod clocks;
#[path = "../postgres/cutter.rs"]
mod cutter;
#[path = "../postgres/desk.rs"]
#[expect(dead_code, reason = "shared with other tests on a database")]
mod desk;
mod fleet;
mod master_key;
mod proving;
mod rotating;
mod rounds;
mod sharing;
#[path = "../support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "shared with other tests of the running program"
)]
mod support;
mod taking_over;

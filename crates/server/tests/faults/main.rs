//! The real binary, from outside, when things go wrong: killed, told to stop, attacked by receivers
//! and by clients, started on what it cannot use; and a search for secrets in all it leaves behind.
//!
//! Two tests can be made larger by hand: `HOOKTURN_KILL_ROUNDS` and `HOOKTURN_KILL_SEED` for the
//! kill loop, `HOOKTURN_STRICT=1` for the ratio of latencies beside hostile receivers.
//! `HOOKTURN_TEST_BINARY` names another build of the binary, such as a release one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod disk;
mod hostile;
mod input;
mod interrupted;
mod kill;
mod logging;
mod secrets;
mod start;
mod support;
mod terminate;

//! Dispatch and courier against the real store and receivers on loopback.
//!
//! Time is a number that the test moves, randomness is seeded, and nothing sleeps: a test waits for
//! what a receiver saw or for what the store recorded, each with a bound.

#![expect(
    clippy::unwrap_used,
    reason = "a test's receivers and helpers fail the test as its body does"
)]

mod breaks;
mod callbacks;
mod delivering;
mod disabling;
mod fairness;
mod handshakes;
mod keys;
mod lanes;
mod ordered;
mod receiver;
mod retrying;
mod rig;
mod rotating;
mod shared;
mod store;
mod streams;
mod told;
mod wire;

//! The pure domain of Hookturn: what exists, which states it has, and how a command changes it.
//!
//! Nothing in this crate does I/O, reads a clock or draws a random number. Time arrives as
//! [`time::Timestamp`], randomness as bytes, and a decision leaves as a value that another layer
//! stores. That is why every rule here can be tested by calling it.

pub mod audit;
pub mod bulk;
pub mod delivery;
pub mod endpoint;
pub mod fingerprint;
pub mod id;
pub mod limits;
pub mod message;
pub mod operational;
pub mod payload;
pub mod proof;
pub mod receiver;
pub mod retry;
pub mod rotation;
pub mod schedule;
pub mod shard;
pub mod store;
pub mod text;
pub mod time;
pub mod workspace;

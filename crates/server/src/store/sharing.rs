//! How nodes share a database: the decisions, apart from the database that they are about.
//!
//! Each node decides for itself, from what rows and round trips show, until when it may sign ([`lease`]), whom it may
//! take over ([`lease::Silence`]), what it gives up and takes ([`review`]), whether what it decided still stands
//! ([`view`]), how wrong its clock is ([`skew`]), and whether all follow a change ([`fence`]). Nothing here reads or
//! writes anything, so that the engine which does and the simulation of several nodes decide alike.

pub mod fence;
pub mod keys;
pub mod lease;
pub mod review;
pub mod skew;
pub mod view;

//! What nodes that share a store know of each other.

use crate::time::Millis;

/// How far the nodes that share a store have followed a change: see [`Store::fence`](super::Store::fence).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Nodes that might have signed by what was before, this one included.
    pub nodes: u32,
    /// Those of them that said that they follow it. The others signed nothing any more when the fence was done,
    /// unless it was given up.
    pub confirmed: u32,
    /// How long that took.
    pub millis: Millis,
    /// Whether no node signs by what was before any more; not if the fence was given up first.
    pub closed: bool,
}

impl Fence {
    /// That of a store which nobody shares.
    pub const ALONE: Self = Self {
        nodes: 1,
        confirmed: 1,
        millis: 0,
        closed: true,
    };
}

/// For whom a fence waits: see [`Store::fence`](super::Store::fence).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FenceFor {
    /// For the nodes that answer. One that has been silent until its last confirmation ran out is not waited for: it
    /// follows before it answers anybody.
    Answering,
    /// For all of them, the silent ones included: until none can sign by what was before.
    All,
}

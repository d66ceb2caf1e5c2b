//! How this node stands among those that share its database, for readiness and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::node::Begun;
use crate::store::sharing::skew::{self, Skew, Trip};
use crate::telemetry::NodeClock;

/// What a node knows of itself and the others. Shared.
#[derive(Debug, Default)]
pub struct Standing {
    clock: NodeClock,
    skew: Mutex<Skew>,
    skew_millis: AtomicI64,
    nodes: AtomicUsize,
    shards: AtomicUsize,
    behind: AtomicI64,
    keyless: AtomicBool,
}

/// The same in numbers, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Nodes that may own shards.
    pub nodes: usize,
    /// Shards that this one owns.
    pub shards: usize,
    /// Versions of the view that this one had not followed when it last looked.
    pub behind: i64,
    /// How far this machine's clock is behind the database's, in milliseconds.
    pub skew_millis: i64,
    /// Whether that is more than is permitted.
    pub clock_is_off: bool,
    /// Whether the master key that is current was not given to this node.
    pub lacks_master_key: bool,
}

impl Standing {
    /// One that corrects this clock.
    pub fn new(clock: NodeClock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            ..Self::default()
        })
    }

    fn skew(&self) -> Skew {
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node may own shards.
    pub(super) fn is_able(&self) -> bool {
        !self.skew().is_off && !self.lacks_master_key()
    }

    /// Whether the master key that is current was not given to this node.
    pub(super) fn lacks_master_key(&self) -> bool {
        self.keyless.load(Ordering::SeqCst)
    }

    /// Which master key is missing, if any is.
    pub(super) fn master_key(&self, missing: Option<String>) {
        let before = self.keyless.swap(missing.is_some(), Ordering::SeqCst);
        match missing {
            Some(id) if !before => tracing::error!(
                key = id,
                "the master key that is current was not given to this node: it is not ready, changes nothing and gives up its shards; start it again with that key before the present one"
            ),
            None if before => tracing::info!("this node has the master key that is current"),
            Some(_) | None => {}
        }
    }

    /// What this machine's clock says, in milliseconds since the epoch.
    pub(super) fn uncorrected(&self) -> i64 {
        self.clock.uncorrected().as_millis()
    }

    /// Takes in what the beginning of a transaction showed of the database's clock; `began` is what this machine's
    /// said before it.
    pub(super) fn measure(&self, begun: &Begun, began: i64) {
        let trip = Trip {
            began,
            ended: self.uncorrected(),
            took: i64::try_from(begun.at.elapsed().as_millis()).unwrap_or(i64::MAX),
            database: begun.clock,
        };
        let before = self.skew();
        let after = skew::judge(before, trip);
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner) = after;
        self.skew_millis.store(after.correction, Ordering::Relaxed);
        self.clock.correct(after.correction);
        if after.is_off != before.is_off {
            tell(after);
        }
    }

    /// So many versions of the view were new.
    pub(super) fn follows(&self, behind: i64) {
        self.behind.store(behind, Ordering::Relaxed);
    }

    pub(super) fn shares(&self, nodes: usize, shards: usize) {
        self.nodes.store(nodes, Ordering::Relaxed);
        self.shards.store(shards, Ordering::Relaxed);
    }

    /// In numbers.
    pub fn figures(&self) -> Figures {
        Figures {
            nodes: self.nodes.load(Ordering::Relaxed),
            shards: self.shards.load(Ordering::Relaxed),
            behind: self.behind.load(Ordering::Relaxed),
            skew_millis: self.skew_millis.load(Ordering::Relaxed),
            clock_is_off: self.skew().is_off,
            lacks_master_key: self.lacks_master_key(),
        }
    }
}

fn tell(skew: Skew) {
    if skew.is_off {
        tracing::error!(
            millis = skew.correction,
            "this machine's clock is off by more than {} ms from the database's: this node is not ready and gives up its shards until the clock is right",
            skew::BOUND
        );
    } else {
        tracing::info!("this machine's clock is right again");
    }
}

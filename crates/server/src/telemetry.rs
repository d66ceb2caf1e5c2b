//! The edge where time, randomness and the outside's view of the process come from: the system
//! clock, the system's entropy, logs and metrics.

pub mod metrics;
pub mod tally;
pub mod troubles;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hookturn_core::id::Entropy;
use hookturn_core::time::{Clock, Timestamp};
use rand::RngCore;

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The machine's wall clock, corrected by how far it is from one that several machines agree on. Cloning shares
/// the correction; there is none at first, and never one where nobody shares anything.
#[derive(Debug, Clone, Default)]
pub struct NodeClock {
    system: SystemClock,
    /// How wrong the machine's clock is made to be, in milliseconds: for tests.
    shift: i64,
    correction: Arc<AtomicI64>,
}

impl NodeClock {
    /// A clock of a machine whose own is wrong by so many milliseconds.
    pub fn wrong_by(shift_millis: i64) -> Self {
        Self {
            shift: shift_millis,
            ..Self::default()
        }
    }

    /// What the machine's clock says.
    pub fn uncorrected(&self) -> Timestamp {
        let now = self.system.now().as_millis();
        Timestamp::from_millis(now.saturating_add(self.shift))
    }

    /// Adds so many milliseconds to what the machine's clock says, from now on.
    pub fn correct(&self, millis: i64) {
        self.correction.store(millis, Ordering::Relaxed);
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        let correction = self.correction.load(Ordering::Relaxed);
        Timestamp::from_millis(self.uncorrected().as_millis().saturating_add(correction))
    }
}

/// A thread-local ChaCha generator, seeded and reseeded by the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}
/// What went wrong, with every cause, on one line.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

//! The wall clock of a simulation: tokio's paused clock, plus whatever the clock was stepped by.
//!
//! Tokio moves its paused clock only when every task waits, straight to the next timer. A process that
//! crashes takes its runtime with it; the wall clock goes on where it stood.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use hookturn_core::time::{Clock, Timestamp};
use tokio::time::Instant;

/// When simulations begin.
const START: i64 = 1_784_505_600_000;

/// One for all processes of a run.
pub(crate) struct SimClock {
    /// Wall time when the present process began, steps included.
    base: AtomicI64,
    began: Mutex<Option<Instant>>,
    /// Virtual time of the former processes, without steps.
    elapsed_before: AtomicI64,
    /// The latest time the clock showed before it was stepped.
    latest: AtomicI64,
}

impl SimClock {
    pub(crate) fn new() -> Self {
        Self {
            base: AtomicI64::new(START),
            began: Mutex::new(None),
            elapsed_before: AtomicI64::new(0),
            latest: AtomicI64::new(START),
        }
    }

    /// A process begins; called within its runtime.
    pub(crate) fn begin(&self) {
        *self.began.lock().unwrap() = Some(Instant::now());
    }

    /// A process ends; called within its runtime.
    pub(crate) fn end(&self) {
        let elapsed = self.since_begin();
        *self.began.lock().unwrap() = None;
        self.base.fetch_add(elapsed, Ordering::SeqCst);
        self.elapsed_before.fetch_add(elapsed, Ordering::SeqCst);
    }

    /// Steps the wall clock, as an operator or a time server does.
    pub(crate) fn step(&self, millis: i64) {
        self.latest
            .fetch_max(self.now().as_millis(), Ordering::SeqCst);
        self.base.fetch_add(millis, Ordering::SeqCst);
    }

    /// The clock is right again: not behind what it showed before.
    pub(crate) fn set_right(&self) {
        let behind = self.latest.load(Ordering::SeqCst) - self.now().as_millis();
        self.step(behind.max(0));
    }

    /// Milliseconds that the run has lasted, without steps.
    pub(crate) fn elapsed(&self) -> i64 {
        self.elapsed_before.load(Ordering::SeqCst) + self.since_begin()
    }

    fn since_begin(&self) -> i64 {
        let began = *self.began.lock().unwrap();
        began.map_or(0, |began| {
            i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX)
        })
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.base.load(Ordering::SeqCst) + self.since_begin())
    }
}

/// The clock of one of several nodes: the true time, which is that of the database, and how wrong its machine's is, and
/// what the node corrects that by. Instead of `telemetry::NodeClock`, which reads the system's.
pub(crate) struct NodeClock {
    truth: std::sync::Arc<SimClock>,
    wrong: AtomicI64,
    correction: AtomicI64,
    /// What it was wrong by when that was last measured.
    measured: AtomicI64,
}

impl NodeClock {
    pub(crate) fn wrong_by(truth: &std::sync::Arc<SimClock>, millis: i64) -> Self {
        Self {
            truth: std::sync::Arc::clone(truth),
            wrong: AtomicI64::new(millis),
            correction: AtomicI64::new(0),
            measured: AtomicI64::new(millis),
        }
    }

    /// What the machine's clock says.
    pub(crate) fn uncorrected(&self) -> Timestamp {
        let wrong = self.wrong.load(Ordering::SeqCst);
        Timestamp::from_millis(self.truth.now().as_millis() + wrong)
    }

    /// By how much the machine's clock is wrong.
    pub(crate) fn wrong(&self) -> i64 {
        self.wrong.load(Ordering::SeqCst)
    }

    pub(crate) fn correct(&self, millis: i64) {
        self.correction.store(millis, Ordering::SeqCst);
        let apart = self.now().as_millis() - self.truth.now().as_millis();
        if apart.abs() <= FAIR {
            let wrong = self.wrong.load(Ordering::SeqCst);
            self.measured.store(wrong, Ordering::SeqCst);
        }
    }

    /// Steps the machine's clock, to be wrong by so much.
    pub(crate) fn set_wrong(&self, millis: i64) {
        self.wrong.store(millis, Ordering::SeqCst);
    }

    /// By how much the node may be wrong about the time at this moment without being to blame: as far as a round trip
    /// tells; and all of a step that it had no round trip to notice yet.
    pub(crate) fn excuse(&self) -> u64 {
        let step = self.wrong.load(Ordering::SeqCst) - self.measured.load(Ordering::SeqCst);
        FAIR.unsigned_abs() + step.unsigned_abs()
    }
}

/// As far as a round trip of a quarter of a second tells, and as much as is tolerated.
const FAIR: i64 = 140;

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        let correction = self.correction.load(Ordering::SeqCst);
        Timestamp::from_millis(self.uncorrected().as_millis() + correction)
    }
}

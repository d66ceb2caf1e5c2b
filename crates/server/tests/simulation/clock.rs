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

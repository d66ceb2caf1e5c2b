//! Conversions between counts, times and the floating-point numbers of a report.

use std::time::Duration;

use tokio::time::Instant;

/// Anything that may end a run; shown once, in `main`.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Nanoseconds since the [`Epoch`] of the run.
pub(crate) type Nanos = u64;

/// The common zero of all times that are compared with each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(Instant);

impl Epoch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Nanos {
        nanos(self.0.elapsed())
    }

    pub(crate) fn of(self, moment: Instant) -> Nanos {
        nanos(moment.saturating_duration_since(self.0))
    }
}

pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A count as a number to divide by.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a bounded run stay far below 2^53"
)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// Events a second; zero when no time passed.
pub(crate) fn rate(count: u64, over: Duration) -> f64 {
    if over.is_zero() {
        return 0.0;
    }
    float(count) / over.as_secs_f64()
}

/// The middle of the values, the larger one of two middles; `None` of none.
pub(crate) fn median(mut values: Vec<Duration>) -> Option<Duration> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

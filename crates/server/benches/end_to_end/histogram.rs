//! Latencies in a fixed amount of memory.
//!
//! A log-linear histogram: 64 buckets for each power of two, so that a quantile is at most 1.6 % above
//! the recorded value and never below it. Small values and the largest one are exact.

use std::time::Duration;

/// Significant bits of a bucket's lower bound.
const BITS: u32 = 7;
const HALF: usize = 1 << (BITS - 1);
const BUCKETS: usize = HALF * (64 - BITS as usize + 2);

/// Counts of durations in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            max: 0,
        }
    }

    pub(crate) fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// Takes in what another one recorded.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many were recorded.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// The smallest recorded value that `share` of 1,000 values do not exceed; `None` when empty.
    pub(crate) fn per_mille(&self, share: u64) -> Option<Duration> {
        let rank = (self.total * share).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_nanos(upper_bound(index).min(self.max)));
            }
        }
        None
    }
}

fn bucket(value: u64) -> usize {
    let highest = (value | 1).ilog2();
    let shift = (highest + 1).saturating_sub(BITS);
    let kept = usize::try_from(value >> shift).unwrap_or(usize::MAX);
    HALF * shift as usize + kept
}

fn upper_bound(index: usize) -> u64 {
    let shift = (index / HALF).saturating_sub(1);
    let kept = (index - shift * HALF) as u64;
    // The last bucket's bound is 2^64 - 1, one below what a u64 could hold as its end.
    u64::try_from(((u128::from(kept) + 1) << shift) - 1).unwrap_or(u64::MAX)
}

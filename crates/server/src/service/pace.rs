//! How often one API key may ask: a limit for each key, so that a script that went wild does not take
//! the server from the others.
//!
//! The generic cell rate algorithm: a key has one number, the time at which everything it asked so
//! far would be done at the even pace. A request is taken while that time is at most a burst ahead
//! of now. Only keys that were found live are remembered, and a key whose time has passed is as good
//! as new, so the memory is bounded by the keys in use.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hookturn_core::id::ApiKeyId;
use hookturn_core::limits;
use hookturn_core::time::{Millis, Timestamp};
use hookturn_core::workspace::ApiKey;

use super::{Service, ServiceError};

/// Keys remembered before those that rest are forgotten.
const REMEMBERED: usize = 1_024;
const NANOS_PER_SECOND: i64 = 1_000_000_000;
const NANOS_PER_MILLI: i64 = 1_000_000;

/// How often one API key may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Requests per second in the long run; 0 for no limit.
    pub requests_per_second: u32,
    /// Requests that may come at once after a rest; at least 1.
    pub burst: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            requests_per_second: limits::REQUESTS_PER_SECOND,
            burst: limits::REQUEST_BURST,
        }
    }
}

/// The limiter of all keys.
#[derive(Debug)]
pub(super) struct Pacer {
    /// Time that one request takes at the even pace; 0 for no limit.
    interval: i64,
    /// How far ahead of now a key's time may be when its request comes.
    tolerance: i64,
    /// For each key, when what it asked so far would be done: nanoseconds since the epoch.
    done_at: Mutex<HashMap<ApiKeyId, i64>>,
}

impl Pacer {
    pub(super) fn new(pace: Pace) -> Self {
        let interval = NANOS_PER_SECOND
            .checked_div(i64::from(pace.requests_per_second))
            .unwrap_or(0);
        Self {
            interval,
            tolerance: interval * (i64::from(pace.burst.max(1)) - 1),
            done_at: Mutex::default(),
        }
    }

    /// Takes a request of `key` at `now`, or says how long to wait.
    pub(super) fn take(&self, key: ApiKeyId, now: Timestamp) -> Result<(), Millis> {
        if self.interval == 0 {
            return Ok(());
        }
        let now = now.as_millis().saturating_mul(NANOS_PER_MILLI);
        // One number is replaced by another: a panic elsewhere leaves a whole map.
        let mut keys = self.done_at.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= REMEMBERED && !keys.contains_key(&key) {
            keys.retain(|_, done_at| *done_at > now);
        }
        let done_at = keys.entry(key).or_insert(now);
        let ahead = *done_at - now;
        // Further ahead than any request can have put it: the clock was set back.
        if ahead < 0 || ahead > self.tolerance + self.interval {
            *done_at = now;
        } else if ahead > self.tolerance {
            let wait = (ahead - self.tolerance).unsigned_abs();
            return Err(wait.div_ceil(NANOS_PER_MILLI.unsigned_abs()));
        }
        *done_at += self.interval;
        Ok(())
    }
}

impl Service {
    /// Counts a request of a key, and refuses it when the key asks too often.
    pub fn pace(&self, key: &ApiKey) -> Result<(), ServiceError> {
        self.pacer
            .take(key.id, self.clock.now())
            .map_err(|wait_millis| ServiceError::RateLimited { wait_millis })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_784_505_600_000);

    fn key(number: u128) -> ApiKeyId {
        ApiKeyId::from_bytes(number.to_be_bytes())
    }

    fn pacer(requests_per_second: u32, burst: u32) -> Pacer {
        Pacer::new(Pace {
            requests_per_second,
            burst,
        })
    }

    #[test]
    fn a_burst_is_taken_then_the_even_pace() {
        let pacer = pacer(10, 3);
        for _ in 0..3 {
            assert_eq!(pacer.take(key(1), START), Ok(()));
        }
        assert_eq!(pacer.take(key(1), START), Err(100));
        assert_eq!(pacer.take(key(1), START.after(99)), Err(1));
        assert_eq!(pacer.take(key(1), START.after(100)), Ok(()));
        assert_eq!(pacer.take(key(1), START.after(100)), Err(100));
        // A rest gives the burst back, and not more.
        let rested = START.after(60_000);
        let taken = (0..10)
            .filter(|_| pacer.take(key(1), rested).is_ok())
            .count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn keys_do_not_share_their_pace() {
        let pacer = pacer(1, 1);
        assert_eq!(pacer.take(key(1), START), Ok(()));
        assert_eq!(pacer.take(key(2), START), Ok(()));
        assert_eq!(pacer.take(key(1), START), Err(1_000));
    }

    #[test]
    fn zero_is_no_limit() {
        let pacer = pacer(0, 0);
        assert!((0..10_000).all(|_| pacer.take(key(1), START).is_ok()));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let pacer = pacer(1, 2);
        assert_eq!(pacer.take(key(1), START.after(3_600_000)), Ok(()));
        assert_eq!(pacer.take(key(1), START), Ok(()));
    }

    #[test]
    fn keys_that_rest_are_forgotten() {
        let pacer = pacer(1, 1);
        for number in 0..u128::try_from(REMEMBERED).unwrap() {
            assert_eq!(pacer.take(key(number), START), Ok(()));
        }
        assert_eq!(pacer.take(key(u128::MAX), START.after(2_000)), Ok(()));
        assert_eq!(pacer.done_at.lock().unwrap().len(), 1);
    }
}

//! When a delivery is tried again.

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::time::{HOUR, MINUTE, Millis, SECOND, Timestamp};

/// The retry policy of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryPolicy {
    /// Delay before each retry, in milliseconds; as many retries as entries.
    pub delays_millis: Vec<Millis>,
    /// Each delay is stretched by a random share of up to this many percent, so that many
    /// deliveries that failed together do not come back together. 0 to 100.
    pub jitter_percent: u8,
    /// Which failures are worth a retry.
    pub retry_on: RetryOn,
}

/// Which failures are worth a retry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RetryOn {
    /// Everything but success and 410.
    #[default]
    AnyFailure,
    /// 408, 423 and 5xx, which KORE documents for callbacks, and no answer at all: a lost connection
    /// or a timeout says as little about the message as a gateway's 503 or 504 in its place would.
    TransientOnly,
}

/// Why a policy was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRetryPolicy {
    /// More entries than [`limits::RETRIES`].
    #[error("at most {} retries", limits::RETRIES)]
    TooMany,
    /// A delay above [`limits::RETRY_DELAY_MAX`].
    #[error("a delay is at most {} ms", limits::RETRY_DELAY_MAX)]
    TooLong {
        /// Position in the list, from 0.
        index: usize,
    },
    /// Jitter above 100 percent.
    #[error("jitter is 0 to 100 percent")]
    Jitter,
}

impl RetryPolicy {
    /// Seven retries over 28 hours: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h, with 20 % jitter.
    pub fn standard() -> Self {
        Self {
            delays_millis: vec![
                5 * SECOND,
                5 * MINUTE,
                30 * MINUTE,
                2 * HOUR,
                5 * HOUR,
                10 * HOUR,
                10 * HOUR,
            ],
            jitter_percent: 20,
            retry_on: RetryOn::AnyFailure,
        }
    }

    /// Hopae's: 1 s, 5 s, 30 s, and 30 s for each further one, exactly.
    pub fn hopae(retries: usize) -> Self {
        let delays = [SECOND, 5 * SECOND]
            .into_iter()
            .chain(std::iter::repeat(30 * SECOND));
        Self {
            delays_millis: delays.take(retries.min(limits::RETRIES)).collect(),
            jitter_percent: 0,
            retry_on: RetryOn::AnyFailure,
        }
    }

    /// KORE's callbacks: one retry on 408, 423, 5xx or no answer. KORE names no delay.
    pub fn kore() -> Self {
        Self {
            delays_millis: vec![5 * SECOND],
            jitter_percent: 20,
            retry_on: RetryOn::TransientOnly,
        }
    }

    /// KORE's event streams: up to three retries with exponential back-off.
    pub fn kore_stream() -> Self {
        Self {
            delays_millis: vec![SECOND, 2 * SECOND, 4 * SECOND],
            jitter_percent: 20,
            retry_on: RetryOn::AnyFailure,
        }
    }

    /// Checks the bounds of every field.
    pub fn validate(&self) -> Result<(), InvalidRetryPolicy> {
        if self.delays_millis.len() > limits::RETRIES {
            return Err(InvalidRetryPolicy::TooMany);
        }
        let too_long = |delay: &Millis| *delay > limits::RETRY_DELAY_MAX;
        if let Some(index) = self.delays_millis.iter().position(too_long) {
            return Err(InvalidRetryPolicy::TooLong { index });
        }
        if self.jitter_percent > 100 {
            return Err(InvalidRetryPolicy::Jitter);
        }
        Ok(())
    }

    /// The longest time from the first attempt to the last: what an overlap has to outlive.
    pub fn horizon(&self, timeout: Millis) -> Millis {
        let attempts = self.delays_millis.len() as u64 + 1;
        let waits: Millis = self
            .delays_millis
            .iter()
            .map(|delay| self.stretch(*delay, u32::MAX))
            .sum();
        waits + attempts * timeout
    }

    /// When retry number `retry` (1 is the first) is due after a failure at `now`, or `None` when
    /// the policy has no such retry. `random` is uniform over its whole range.
    pub fn next_at(&self, retry: u32, now: Timestamp, random: u32) -> Option<Timestamp> {
        let index = usize::try_from(retry.checked_sub(1)?).ok()?;
        let delay = *self.delays_millis.get(index)?;
        Some(now.after(self.stretch(delay, random)))
    }

    fn stretch(&self, delay: Millis, random: u32) -> Millis {
        let widest = u128::from(delay) * u128::from(self.jitter_percent) / 100;
        let share = widest * u128::from(random) / u128::from(u32::MAX);
        delay + u64::try_from(share).unwrap_or(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_784_505_600_000);

    #[test]
    fn hopae_waits_one_five_then_thirty_seconds() {
        let policy = RetryPolicy::hopae(5);
        let waits: Vec<_> = (1..=6)
            .map(|n| policy.next_at(n, NOW, 7).map(|t| t.since(NOW)))
            .collect();
        assert_eq!(
            waits,
            [
                Some(1_000),
                Some(5_000),
                Some(30_000),
                Some(30_000),
                Some(30_000),
                None
            ]
        );
    }

    #[test]
    fn retry_zero_does_not_exist() {
        assert_eq!(RetryPolicy::standard().next_at(0, NOW, 0), None);
    }

    proptest! {
        #[test]
        fn jitter_only_stretches_and_the_horizon_covers_it(random in any::<u32>(), retry in 1_u32..8) {
            let policy = RetryPolicy::standard();
            let delay = policy.delays_millis[retry as usize - 1];
            let wait = policy.next_at(retry, NOW, random).unwrap().since(NOW);
            prop_assert!(wait >= delay && wait <= delay + delay / 5);
            let all: u64 = (1..8).map(|n| policy.next_at(n, NOW, random).unwrap().since(NOW)).sum();
            prop_assert!(all <= policy.horizon(0));
        }
    }
}

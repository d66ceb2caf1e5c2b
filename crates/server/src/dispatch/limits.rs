//! How much an endpoint may take of the sender: concurrency that follows its health, a breaker and a
//! rate limit. Pure: time comes in, a decision goes out.

use hookturn_core::time::{MINUTE, Millis, SECOND, Timestamp};

/// Open exchanges of all healthy endpoints of a shard together.
pub(super) const HEALTHY_LANE: u32 = 2_048;
/// Open exchanges of all endpoints under suspicion of a shard together.
pub(super) const SUSPECT_LANE: u32 = 512;
/// Open exchanges an endpoint starts with, before it has answered.
const FIRST_WINDOW: u32 = 4;
/// Consecutive failures from which the breaker opens.
const BREAKER_FAILURES: u32 = 10;
/// How long the breaker stays open at first.
const BREAKER_FIRST: Millis = SECOND;
/// How long it stays open at most.
const BREAKER_LONGEST: Millis = MINUTE;
/// An exchange that takes this long makes its endpoint a suspect, even if it succeeds.
const SLOW: Millis = 2 * SECOND;

/// What an exchange said about its endpoint's health (not about the message).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It answered, whatever it answered about the message.
    Answered {
        /// How long it took.
        took: Millis,
    },
    /// It did not answer, or answered 5xx or 429.
    Unwell,
}

/// The health of one endpoint, as seen by one shard.
#[derive(Debug, Clone)]
pub struct Health {
    window: u32,
    failures: u32,
    open_until: Timestamp,
    open_for: Millis,
    suspect: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            window: FIRST_WINDOW,
            failures: 0,
            open_until: Timestamp::EPOCH,
            open_for: BREAKER_FIRST,
            suspect: false,
        }
    }
}

impl Health {
    /// The health of an endpoint as far as its receiver is remembered: so many attempts in a row were not accepted, the first
    /// of them so long ago. Another node may have made them, or the process before.
    ///
    /// 1. The window is what they would have left of the first one.
    /// 2. After [`BREAKER_FAILURES`] one exchange tries whether it is well, at once, because nobody remembers when the last
    ///    one was. Without an answer the breaker opens for as long as it would have been open by now: each time is as long
    ///    as all before it.
    /// 3. An answer, whatever it says, makes it well: what was not accepted may have been answered all the same.
    pub fn remembered(failures: u32, failing: Millis) -> Self {
        Self {
            window: FIRST_WINDOW.checked_shr(failures).unwrap_or(0).max(1),
            failures,
            open_for: (failing / 2).clamp(BREAKER_FIRST, BREAKER_LONGEST),
            suspect: failures > 0,
            ..Self::default()
        }
    }

    /// Takes a sign into account.
    ///
    /// 1. An answer widens the window by one, so that it doubles with every round trip.
    /// 2. No answer halves it, and makes the endpoint a suspect; so does a slow answer.
    /// 3. [`BREAKER_FAILURES`] in a row open the breaker: first for a second, then for twice as long
    ///    each time, at most for a minute. Then one exchange at a time tries whether it is well again.
    pub fn note(&mut self, sign: Sign, policy_window: u32, now: Timestamp) {
        match sign {
            Sign::Answered { took } => {
                self.window = (self.window + 1).min(policy_window.max(1));
                self.failures = 0;
                self.open_for = BREAKER_FIRST;
                self.open_until = Timestamp::EPOCH;
                self.suspect = took >= SLOW;
            }
            Sign::Unwell => {
                self.window = (self.window / 2).max(1);
                self.failures = self.failures.saturating_add(1);
                self.suspect = true;
                if self.failures >= BREAKER_FAILURES && now >= self.open_until {
                    self.open_until = now.after(self.open_for);
                    self.open_for = (self.open_for * 2).min(BREAKER_LONGEST);
                }
            }
        }
    }

    /// How many exchanges may be open now.
    pub fn window(&self, policy_window: u32) -> u32 {
        if self.failures >= BREAKER_FAILURES {
            1
        } else {
            self.window.min(policy_window)
        }
    }

    /// Until when nothing is sent, if the breaker is open.
    pub fn closed_again_at(&self, now: Timestamp) -> Option<Timestamp> {
        (now < self.open_until).then_some(self.open_until)
    }

    /// Whether its exchanges use the suspects' lane.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }
}

/// A rate limit by the generic cell rate algorithm: attempts per second, with a burst of one second.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateLimit {
    /// When the bucket would be empty, in microseconds since the epoch.
    theoretical_micros: i64,
}

impl RateLimit {
    /// Takes one attempt, or says when one may be taken.
    pub fn take(&mut self, per_second: u32, now: Timestamp) -> Result<(), Timestamp> {
        const BURST_MICROS: i64 = 1_000_000;
        let spacing = 1_000_000 / i64::from(per_second.max(1));
        let now_micros = now.as_millis() * 1_000;
        let earliest =
            self.theoretical_micros.max(now_micros) + spacing - BURST_MICROS.max(spacing);
        if earliest > now_micros {
            let millis = u64::try_from((earliest - now_micros).div_euclid(1_000) + 1).unwrap_or(1);
            return Err(now.after(millis));
        }
        self.theoretical_micros = self.theoretical_micros.max(now_micros) + spacing;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_784_505_600_000);

    #[test]
    fn g10_a_dead_endpoint_shrinks_to_one_exchange_and_then_waits() {
        let mut health = Health::default();
        for _ in 0..BREAKER_FAILURES {
            assert_eq!(health.closed_again_at(NOW), None);
            health.note(Sign::Unwell, 100, NOW);
        }
        assert_eq!(health.window(100), 1);
        assert!(health.is_suspect());
        assert_eq!(health.closed_again_at(NOW), Some(NOW.after(BREAKER_FIRST)));
        let later = NOW.after(BREAKER_FIRST);
        assert_eq!(health.closed_again_at(later), None);
        health.note(Sign::Unwell, 100, later);
        assert_eq!(
            health.closed_again_at(later),
            Some(later.after(2 * BREAKER_FIRST))
        );
    }

    #[test]
    fn g10_what_is_remembered_of_a_dead_endpoint_costs_one_exchange_and_then_it_waits_as_long_as_before()
     {
        let mut health = Health::remembered(BREAKER_FAILURES, 30 * SECOND);
        assert_eq!((health.window(100), health.is_suspect()), (1, true));
        assert_eq!(health.closed_again_at(NOW), None);
        health.note(Sign::Unwell, 100, NOW);
        assert_eq!(health.closed_again_at(NOW), Some(NOW.after(15 * SECOND)));
        for (failing, open) in [(0, BREAKER_FIRST), (86_400 * SECOND, BREAKER_LONGEST)] {
            let mut health = Health::remembered(BREAKER_FAILURES, failing);
            health.note(Sign::Unwell, 100, NOW);
            assert_eq!(health.closed_again_at(NOW), Some(NOW.after(open)));
        }
        for (failures, window) in [(0, 4), (1, 2), (2, 1), (9, 1)] {
            let mut health = Health::remembered(failures, SECOND);
            assert_eq!(health.window(100), window);
            health.note(Sign::Answered { took: 3 }, 100, NOW);
            assert!(!health.is_suspect() && health.window(100) > window);
        }
    }

    #[test]
    fn an_answer_makes_it_well_again() {
        let mut health = Health::default();
        for _ in 0..20 {
            health.note(Sign::Unwell, 100, NOW);
        }
        health.note(Sign::Answered { took: 3 }, 100, NOW);
        assert_eq!(health.closed_again_at(NOW), None);
        assert!(!health.is_suspect());
        for _ in 0..200 {
            health.note(Sign::Answered { took: 3 }, 100, NOW);
        }
        assert_eq!(health.window(100), 100);
        assert_eq!(health.window(7), 7);
    }

    #[test]
    fn the_rate_limit_spreads_attempts() {
        let mut limit = RateLimit::default();
        let mut taken = 0;
        let mut now = NOW;
        while now < NOW.after(10 * SECOND) {
            match limit.take(5, now) {
                Ok(()) => taken += 1,
                Err(at) => {
                    assert!(at > now);
                    now = at;
                }
            }
        }
        // Five a second for ten seconds, and the burst of the first second.
        assert!((50..=56).contains(&taken), "{taken}");
    }
}

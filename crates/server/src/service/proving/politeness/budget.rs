//! The budget of probes that people ask for: rehearsals, and whether an old secret is still accepted.
//!
//! At most [`limits::COMMANDED_PROBES_PER_HOUR`] of one endpoint in the hour that began with the first of them, as
//! the sweep has its own by the policy of its rotation. The two are apart, so that a rotation which asks all
//! day does not keep its owner from asking, and a script that asks for ever does not stop a rotation.
//! Kept in memory: after a restart every hour begins anew.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hookturn_core::id::EndpointId;
use hookturn_core::limits;
use hookturn_core::time::{HOUR, Millis, Timestamp};

/// Endpoints from which on it is looked whose hour is over, so that these are forgotten.
const TIDY_FROM: usize = 1_024;

/// See the module text.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Hours>);

#[derive(Debug, Default)]
struct Hours {
    of: HashMap<EndpointId, Hour>,
    /// How many endpoints there may be before it is looked which can be forgotten.
    tidy_at: usize,
}

/// What an endpoint got in the hour that began at `since`.
#[derive(Debug, Clone, Copy)]
struct Hour {
    since: Timestamp,
    probes: u32,
}

impl Hour {
    fn is_over(self, now: Timestamp) -> bool {
        // Before its beginning: the clock was set back.
        now < self.since || now >= self.since.after(HOUR)
    }
}

/// Probes that may be sent. What is left of it when it is dropped goes back.
#[derive(Debug)]
pub(in crate::service) struct Allowance<'a> {
    budget: &'a Budget,
    endpoint: EndpointId,
    since: Timestamp,
    left: u32,
}

impl Budget {
    pub(super) fn take(
        &self,
        endpoint: EndpointId,
        probes: u32,
        now: Timestamp,
    ) -> Result<Allowance<'_>, Millis> {
        let mut hours = self.hours();
        hours.tidy(now);
        let fresh = Hour {
            since: now,
            probes: 0,
        };
        let hour = hours.of.entry(endpoint).or_insert(fresh);
        if hour.is_over(now) {
            *hour = fresh;
        }
        if hour.probes.saturating_add(probes) > limits::COMMANDED_PROBES_PER_HOUR {
            return Err(hour.since.after(HOUR).since(now));
        }
        hour.probes += probes;
        Ok(Allowance {
            budget: self,
            endpoint,
            since: hour.since,
            left: probes,
        })
    }

    fn hours(&self) -> MutexGuard<'_, Hours> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hours {
    /// Forgets who rests, seldom enough that it costs nothing.
    fn tidy(&mut self, now: Timestamp) {
        if self.of.len() >= self.tidy_at.max(TIDY_FROM) {
            self.of.retain(|_, hour| !hour.is_over(now));
            self.tidy_at = self.of.len() * 2;
        }
    }
}

impl Allowance<'_> {
    /// One of them is sent.
    pub(in crate::service) fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

impl Drop for Allowance<'_> {
    fn drop(&mut self) {
        let mut hours = self.budget.hours();
        let hour = hours.of.get_mut(&self.endpoint);
        if let Some(hour) = hour.filter(|hour| hour.since == self.since) {
            hour.probes = hour.probes.saturating_sub(self.left);
        }
    }
}

#[cfg(test)]
mod tests {
    use hookturn_core::proof::ProofPolicy;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn endpoint(number: u128) -> EndpointId {
        EndpointId::from_bytes(number.to_be_bytes())
    }

    #[test]
    fn people_may_ask_as_often_as_a_rotation_by_itself() {
        let by_itself = ProofPolicy::default().probes_per_hour;
        assert_eq!(limits::COMMANDED_PROBES_PER_HOUR, by_itself);
    }

    #[test]
    fn an_endpoint_gets_so_many_probes_in_an_hour() {
        let budget = Budget::default();
        let take = |number, probes, now| budget.take(endpoint(number), probes, now).map(drop);
        let spend = |probes, now| {
            let mut allowance = budget.take(endpoint(1), probes, now)?;
            (0..probes).for_each(|_| allowance.spend());
            Ok::<(), Millis>(())
        };
        assert_eq!(spend(230, NOW), Ok(()));
        assert_eq!(take(1, 12, NOW.after(1)), Err(HOUR - 1), "not so many");
        assert_eq!(take(1, 10, NOW), Ok(()), "and what was not spent is back");
        assert_eq!(spend(10, NOW), Ok(()));
        assert_eq!(spend(1, NOW.after(HOUR - 1)), Err(1));
        assert_eq!(take(2, 240, NOW), Ok(()), "another one has its own");
        assert_eq!(spend(240, NOW.after(HOUR)), Ok(()), "the next hour too");
        assert_eq!(spend(1, NOW), Ok(()), "a clock that was set back");
    }

    #[test]
    fn who_rests_is_forgotten() {
        let budget = Budget::default();
        for number in 0..10_000 {
            let now = NOW.after(u64::try_from(number).unwrap() * HOUR / 100);
            budget.take(endpoint(number), 1, now).unwrap().spend();
        }
        assert!(budget.hours().of.len() <= TIDY_FROM);
    }
}

//! How much of what is refused is written down.
//!
//! 1. Of each key at each route [`limits::DENIALS_AT_ONCE`] attempts and one more every
//!    [`limits::DENIAL_EVERY`], in each log: whoever floods one route, or one workspace, hides nothing
//!    that the same key tries at another. Everyone without a known key counts as one key.
//! 2. Of all keys of a workspace together [`limits::DENIALS_OF_WORKSPACE`] times as much, because a key
//!    costs nothing, and of everyone without a known key. The first attempt of a known key at a route is
//!    written all the same: a flood over many routes hides none of them.
//! 3. In memory [`limits::DENIALS_COUNTED`] budgets. Beyond them the attempts on a workspace are counted
//!    together, with a budget of the same size.
//! 4. What is left out is counted, and told once: with the next attempt that is written, or by the sweep.
//!
//! Replays that show a value have budgets of their own, by rule 1.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use hookturn_core::id::{ApiKeyId, WorkspaceId};
use hookturn_core::limits;
use hookturn_core::store::Shown;
use hookturn_core::time::Timestamp;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// The holder of a known key.
    Key(ApiKeyId),
    /// Someone without one.
    Unknown,
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    /// The attempts of a key at a route.
    Attempts {
        /// Whose.
        who: Who,
        /// Where.
        route: Option<String>,
        /// In whose log they are.
        place: WorkspaceId,
    },
    /// Attempts on a workspace beyond what is counted apart.
    Rest(WorkspaceId),
    /// All attempts of a workspace's keys; of strangers for `None`.
    Common(Option<WorkspaceId>),
    /// Replays that showed a value to a key.
    Showings(ApiKeyId, Shown),
}

impl Counted {
    pub(super) const fn attempts(who: Who, route: Option<String>, place: WorkspaceId) -> Self {
        Self::Attempts { who, route, place }
    }
}

/// Where a key belongs, and so whose common budget bounds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// To a workspace.
    Workspace(WorkspaceId),
    /// To the operator, who makes as many keys as they like and floods only themselves.
    Everywhere,
    /// There is no known key.
    Nowhere,
}

impl Home {
    const fn common(self) -> Option<Counted> {
        match self {
            Self::Workspace(workspace) => Some(Counted::Common(Some(workspace))),
            Self::Nowhere => Some(Counted::Common(None)),
            Self::Everywhere => None,
        }
    }
}

/// A count that can be written by now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    /// Of what.
    pub(super) counted: Counted,
    /// In whose log.
    pub(super) workspace: WorkspaceId,
    /// How many.
    pub(super) left_out: u64,
}

#[derive(Debug)]
struct Budget {
    tokens: u32,
    full: u32,
    refilled_at: Timestamp,
    left_out: u64,
    /// Where the last attempt belongs: what was left out is written there.
    workspace: WorkspaceId,
}

impl Budget {
    const fn new(full: u32, now: Timestamp, workspace: WorkspaceId) -> Self {
        Self {
            tokens: full,
            full,
            refilled_at: now,
            left_out: 0,
            workspace,
        }
    }

    /// Adds what has grown since the last time: `full / DENIALS_AT_ONCE` every `DENIAL_EVERY`.
    fn refill(&mut self, now: Timestamp) {
        let passed = now.since(self.refilled_at) / limits::DENIAL_EVERY;
        if passed == 0 {
            return;
        }
        self.refilled_at = self.refilled_at.after(passed * limits::DENIAL_EVERY);
        let grown = passed.saturating_mul(u64::from(self.full / limits::DENIALS_AT_ONCE));
        let tokens = u64::from(self.tokens).saturating_add(grown);
        self.tokens = u32::try_from(tokens).map_or(self.full, |tokens| tokens.min(self.full));
    }
}

/// What may still be written of whom.
#[derive(Debug, Default)]
pub(in crate::service) struct Budgets(Mutex<HashMap<Counted, Budget>>);

impl Budgets {
    fn with<T>(&self, with: impl FnOnce(&mut HashMap<Counted, Budget>) -> T) -> T {
        // Numbers only: a panic elsewhere leaves a usable map.
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this may be written into the log of `place`, and how many before it were not. Otherwise
    /// it is counted.
    pub(super) fn admit(
        &self,
        counted: Counted,
        home: Home,
        place: WorkspaceId,
        now: Timestamp,
    ) -> Option<u64> {
        self.with(|budgets| {
            let is_full = budgets.len() >= limits::DENIALS_COUNTED;
            let counted = if is_full && !budgets.contains_key(&counted) {
                Counted::Rest(place)
            } else {
                counted
            };
            let mut common = home.common().map(|common| {
                let full = limits::DENIALS_AT_ONCE * limits::DENIALS_OF_WORKSPACE;
                (common, Budget::new(full, now, place))
            });
            if let Some((key, budget)) = &mut common {
                // Taken out for as long as two of them are looked at.
                if let Some(known) = budgets.remove(key) {
                    *budget = known;
                }
                budget.refill(now);
            }
            let left = common.as_ref().is_none_or(|(_, common)| common.tokens > 0);
            let admitted = take(budgets, counted, left, home, place, now);
            if let Some((key, mut budget)) = common {
                if admitted.is_some() {
                    budget.tokens = budget.tokens.saturating_sub(1);
                }
                budgets.insert(key, budget);
            }
            admitted
        })
    }

    /// Counts that can be written by now, each once; forgets whom nothing is known of any more.
    pub(super) fn overdue(&self, now: Timestamp) -> Vec<Overdue> {
        self.with(|budgets| {
            let mut overdue = Vec::new();
            budgets.retain(|counted, budget| {
                budget.refill(now);
                if budget.left_out > 0 && budget.tokens > 0 {
                    budget.tokens -= 1;
                    overdue.push(Overdue {
                        counted: counted.clone(),
                        workspace: budget.workspace,
                        left_out: std::mem::take(&mut budget.left_out),
                    });
                }
                budget.tokens < budget.full || budget.left_out > 0
            });
            overdue
        })
    }
}

/// Takes from one budget; `left` says whether the common one has anything left.
fn take(
    budgets: &mut HashMap<Counted, Budget>,
    counted: Counted,
    left: bool,
    home: Home,
    place: WorkspaceId,
    now: Timestamp,
) -> Option<u64> {
    let (budget, is_first) = match budgets.entry(counted) {
        Entry::Occupied(known) => (known.into_mut(), false),
        Entry::Vacant(free) => {
            let budget = Budget::new(limits::DENIALS_AT_ONCE, now, place);
            (free.insert(budget), true)
        }
    };
    budget.refill(now);
    budget.workspace = place;
    let goes = left || (is_first && matches!(home, Home::Workspace(_)));
    if !goes || budget.tokens == 0 {
        budget.left_out += 1;
        return None;
    }
    budget.tokens -= 1;
    Some(std::mem::take(&mut budget.left_out))
}

#[cfg(test)]
mod tests {
    use hookturn_core::time::MINUTE;

    use super::*;
    use crate::telemetry::SystemEntropy;

    const NOW: Timestamp = Timestamp::from_millis(1_784_505_600_000);

    fn key() -> ApiKeyId {
        ApiKeyId::new(NOW, &SystemEntropy)
    }

    fn at(key: ApiKeyId, route: &str, place: WorkspaceId) -> Counted {
        Counted::attempts(Who::Key(key), Some(route.to_owned()), place)
    }

    #[test]
    fn one_key_at_one_route_is_written_down_some_times_and_then_counted() {
        let home = WorkspaceId::new(NOW, &SystemEntropy);
        let (one, other) = (key(), key());
        let budgets = Budgets::default();
        let attempt = |key, route, now| {
            let home_of = Home::Workspace(home);
            budgets.admit(at(key, route, home), home_of, home, now)
        };
        let written = (0..1_000).filter(|_| attempt(one, "a", NOW).is_some());
        assert_eq!(written.count(), limits::DENIALS_AT_ONCE as usize);
        assert_eq!(attempt(one, "b", NOW), Some(0), "another route has its own");
        assert_eq!(attempt(other, "a", NOW), Some(0), "and so has another key");
        assert_eq!(budgets.overdue(NOW.after(MINUTE - 1)), []);
        // The next attempt tells how many were not written.
        assert_eq!(attempt(one, "a", NOW.after(MINUTE)), Some(980));
        assert_eq!(attempt(one, "a", NOW.after(MINUTE)), None);
        // Or the sweep does, once.
        let later = NOW.after(2 * MINUTE);
        let overdue = Overdue {
            counted: at(one, "a", home),
            workspace: home,
            left_out: 1,
        };
        assert_eq!(budgets.overdue(later), [overdue]);
        assert_eq!(budgets.overdue(later), []);
        // Whoever is quiet for long enough is forgotten.
        budgets.overdue(NOW.after(100 * MINUTE));
        assert!(budgets.with(|budgets| budgets.is_empty()));
    }

    #[test]
    fn many_keys_of_one_workspace_are_bounded_together_and_none_is_hidden() {
        let home = WorkspaceId::new(NOW, &SystemEntropy);
        let keys: Vec<_> = (0..300).map(|_| key()).collect();
        let budgets = Budgets::default();
        let mut written = vec![0; keys.len()];
        for _ in 0..100 {
            for (key, written) in keys.iter().zip(&mut written) {
                let home_of = Home::Workspace(home);
                let admitted = budgets.admit(at(*key, "a", home), home_of, home, NOW);
                *written += u32::from(admitted.is_some());
            }
        }
        let common = limits::DENIALS_AT_ONCE * limits::DENIALS_OF_WORKSPACE;
        let firsts = u32::try_from(keys.len()).unwrap();
        assert_eq!(written.iter().sum::<u32>(), common.max(firsts));
        assert!(written.iter().all(|written| *written >= 1));
    }

    #[test]
    fn what_is_left_out_is_counted_in_the_log_it_was_left_out_of() {
        let (one, other) = (
            WorkspaceId::new(NOW, &SystemEntropy),
            WorkspaceId::new(NOW, &SystemEntropy),
        );
        let budgets = Budgets::default();
        let attempt = |place| {
            let counted = Counted::attempts(Who::Unknown, Some("a".to_owned()), place);
            budgets.admit(counted, Home::Nowhere, place, NOW)
        };
        let written = (0..100).filter(|_| attempt(one).is_some()).count();
        assert_eq!(written, limits::DENIALS_AT_ONCE as usize);
        assert_eq!(attempt(other), Some(0), "nothing is hidden, nothing added");
        let overdue = budgets.overdue(NOW.after(MINUTE));
        let told: Vec<_> = overdue.iter().map(|o| (o.workspace, o.left_out)).collect();
        assert_eq!(told, [(one, 80)]);
    }

    #[test]
    fn strangers_are_bounded_together() {
        let place = WorkspaceId::new(NOW, &SystemEntropy);
        let budgets = Budgets::default();
        let routes = (0..500).map(|route| route.to_string());
        let written = routes.filter(|route| {
            let counted = Counted::attempts(Who::Unknown, Some(route.clone()), place);
            budgets.admit(counted, Home::Nowhere, place, NOW).is_some()
        });
        let common = limits::DENIALS_AT_ONCE * limits::DENIALS_OF_WORKSPACE;
        assert_eq!(written.count(), common as usize);
    }

    #[test]
    fn what_is_counted_apart_is_bounded_and_the_rest_is_counted_together() {
        let place = WorkspaceId::new(NOW, &SystemEntropy);
        let budgets = Budgets::default();
        let total = 3 * limits::DENIALS_COUNTED;
        let written = (0..total)
            .filter(|_| {
                let admitted = budgets.admit(at(key(), "a", place), Home::Everywhere, place, NOW);
                admitted.is_some()
            })
            .count();
        let most = limits::DENIALS_COUNTED + limits::DENIALS_AT_ONCE as usize;
        assert_eq!(written, most);
        assert_eq!(
            budgets.with(|budgets| budgets.len()),
            limits::DENIALS_COUNTED + 1
        );
        let overdue = budgets.overdue(NOW.after(MINUTE));
        let rest = Overdue {
            counted: Counted::Rest(place),
            workspace: place,
            left_out: (total - most) as u64,
        };
        assert_eq!(overdue, [rest]);
    }
}

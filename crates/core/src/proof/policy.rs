//! How much proof is enough, and what happens at which time. Every number is the owner's to choose.

use serde::{Deserialize, Serialize};

use super::control::first_controls;
use crate::limits;
use crate::time::{DAY, HOUR, MINUTE, Millis, SECOND};

/// The policy of one rotation in mode `proven`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProofPolicy {
    /// How sure to be, in percent: 50 to 99. With [`ProofPolicy::stale_percent`] it decides how many
    /// passes are needed: 95 and 5 need 59.
    pub confidence_percent: u8,
    /// The share of a fleet that may not go unnoticed without the new secret, in percent: 1 to 50.
    pub stale_percent: u8,
    /// Passes that are further apart than this are not of one run, and a run whose last pass is older
    /// proves nothing any more, in milliseconds.
    pub window_millis: Millis,
    /// How long nothing may be refused after the last pass that was needed, in milliseconds.
    pub hold_down_millis: Millis,
    /// Time between two probes of one endpoint while they are answered, in milliseconds.
    pub probe_every_millis: Millis,
    /// The longest time between two probes; each one that is refused or not answered doubles it.
    pub probe_back_off_max_millis: Millis,
    /// Probes of one endpoint in any hour.
    pub probes_per_hour: u32,
    /// How near in time a refused control (a random key) must be to the passes, in milliseconds.
    pub control_every_millis: Millis,
    /// Shares of real deliveries that are signed with the new secret first, in percent, smallest
    /// first; the last one stays until promotion.
    pub canary_percent: [u8; 3],
    /// Passes after which the next share is taken; 0 counts as 1.
    pub canary_passes: u32,
    /// Whether the rotation promotes itself when it is proved.
    pub promote_by_itself: bool,
    /// How long the old secret must not have been needed before it is retired early, in milliseconds.
    pub quiet_millis: Millis,
    /// When the old secret retires at the latest, in milliseconds after the rotation was opened.
    pub deadline_millis: Millis,
    /// What happens at the deadline while the old secret is still needed.
    pub on_deadline: OnDeadline,
    /// By how much the deadline moves with [`OnDeadline::Extend`], in milliseconds; it moves when half of it is
    /// left.
    pub extend_millis: Millis,
    /// For a shared keyring: an endpoint that nothing was delivered to for this long (and for up to a
    /// day more, [`limits::ACCEPTED_STALE`]) need not be proved, in milliseconds.
    pub look_back_millis: Millis,
    /// How long a rotation may make no progress towards its proof before its owner is told that it
    /// stalled, in milliseconds. [`super::notice::stall`] says what progress is.
    pub stalled_after_millis: Millis,
    /// How long before its deadline the owner of a rotation is told that it is near, in milliseconds;
    /// at most a quarter of the time from the opening to the deadline.
    pub deadline_near_millis: Millis,
}

/// What happens when the deadline comes and the old secret is still needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnDeadline {
    /// The owner is told, and the deadline moves.
    #[default]
    Extend,
    /// The owner is told, and the old secret is retired.
    Cut,
}

impl OnDeadline {
    /// The word that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Extend => "extend",
            Self::Cut => "cut",
        }
    }
}

impl Default for ProofPolicy {
    fn default() -> Self {
        Self {
            confidence_percent: 95,
            stale_percent: 5,
            window_millis: DAY,
            hold_down_millis: 15 * MINUTE,
            probe_every_millis: 10 * SECOND,
            probe_back_off_max_millis: 15 * MINUTE,
            probes_per_hour: 240,
            control_every_millis: HOUR,
            canary_percent: [1, 10, 50],
            canary_passes: 10,
            promote_by_itself: true,
            quiet_millis: DAY,
            deadline_millis: 14 * DAY,
            on_deadline: OnDeadline::Extend,
            extend_millis: DAY,
            look_back_millis: 7 * DAY,
            stalled_after_millis: DAY,
            deadline_near_millis: DAY,
        }
    }
}

/// A policy that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct InvalidPolicy {
    /// The field, as the API spells it.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub reason: &'static str,
}

impl ProofPolicy {
    /// Whether the policy can work.
    ///
    /// 1. Confidence and stale share are within their bounds, so that at least two passes are needed:
    ///    there is no proof without passes.
    /// 2. Every time is positive and at most the longest overlap; the hold-down may be 0. The deadline moves by no
    ///    less than [`limits::EXTEND_MIN`], or it would pass before anything could move it.
    /// 3. Hold-down and quiet time end before the deadline; the hold-down is within the window, for
    ///    a pass must still count when it is over.
    /// 4. Canary shares do not shrink and are at most 100.
    /// 5. Without canaries the probes alone can prove it ([`ProofPolicy::check_probes`]).
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        let refused = |field, reason| Err(InvalidPolicy { field, reason });
        if !(50..=99).contains(&self.confidence_percent) {
            return refused("confidencePercent", "must be from 50 to 99");
        }
        if !(1..=50).contains(&self.stale_percent) {
            return refused("stalePercent", "must be from 1 to 50");
        }
        if required_passes(self, 0) < 2 {
            return refused("stalePercent", "asks for no proof: name a smaller share");
        }
        for (field, millis) in self.times() {
            if millis == 0 {
                return refused(field, "must be more than 0");
            }
            if millis > limits::OVERLAP_MAX {
                return refused(field, "must be at most 30 days");
            }
        }
        if self.extend_millis < limits::EXTEND_MIN {
            return refused("extendMillis", "must be at least 1 second");
        }
        if self.probes_per_hour == 0 {
            return refused("probesPerHour", "must be at least 1");
        }
        if self.probe_every_millis > self.probe_back_off_max_millis {
            return refused("probeBackOffMaxMillis", "is shorter than probeEveryMillis");
        }
        if self.hold_down_millis >= self.window_millis {
            return refused("holdDownMillis", "must be shorter than windowMillis");
        }
        if self.hold_down_millis >= self.deadline_millis {
            return refused("deadlineMillis", "must be later than holdDownMillis");
        }
        if self.quiet_millis >= self.deadline_millis {
            return refused("deadlineMillis", "must be later than quietMillis");
        }
        let [first, second, third] = self.canary_percent;
        if first > second || second > third || third > 100 {
            return refused(
                "canaryPercent",
                "must be three shares up to 100, smallest first",
            );
        }
        if third == 0 {
            self.check_probes()?;
        }
        Ok(())
    }

    /// Whether probes alone can prove anything, where no delivery ever is a canary. Controls and new
    /// probes may have to take turns, and a run must outlast a control:
    ///
    /// 1. Two probes in a row fit into the window.
    /// 2. The budget of an hour leaves no pause as long as the window, or it holds all passes of a run with
    ///    its controls and its hold-down.
    fn check_probes(&self) -> Result<(), InvalidPolicy> {
        let every = self.probe_every_millis;
        if every.saturating_mul(2) >= self.window_millis {
            return Err(InvalidPolicy {
                field: "windowMillis",
                reason: "must be longer than two times probeEveryMillis where canaryPercent is all 0: no two passes would be of one run, and nothing could be proved",
            });
        }
        let budget = u64::from(self.probes_per_hour);
        let used = every.saturating_mul(budget);
        // With one probe an hour, the control between two passes takes an hour of its own.
        let turn = if budget == 1 { HOUR } else { 0 };
        let pause = HOUR
            .saturating_sub(used)
            .saturating_add(every.saturating_mul(2))
            .saturating_add(turn);
        let passes = u64::from(required_passes(self, 0)) + self.hold_down_millis.div_ceil(every);
        let controls = passes
            .saturating_mul(every)
            .div_ceil(self.control_every_millis)
            .min(passes);
        // Those that a proof needs whatever their age, each with a pass beside it.
        let spread = 2 * u64::from(first_controls(self));
        if used < HOUR && pause >= self.window_millis && budget < passes + controls + spread + 4 {
            return Err(InvalidPolicy {
                field: "probesPerHour",
                reason: "is too few for windowMillis where canaryPercent is all 0: no run would last for as many passes as are needed, and nothing could be proved",
            });
        }
        Ok(())
    }

    const fn times(&self) -> [(&'static str, Millis); 10] {
        [
            ("windowMillis", self.window_millis),
            ("probeEveryMillis", self.probe_every_millis),
            ("probeBackOffMaxMillis", self.probe_back_off_max_millis),
            ("controlEveryMillis", self.control_every_millis),
            ("quietMillis", self.quiet_millis),
            ("deadlineMillis", self.deadline_millis),
            ("extendMillis", self.extend_millis),
            ("lookBackMillis", self.look_back_millis),
            ("stalledAfterMillis", self.stalled_after_millis),
            ("deadlineNearMillis", self.deadline_near_millis),
        ]
    }
}

/// Passes in a row that rule out the policy's stale share with its confidence, after `broken` runs
/// of passes that a refusal ended.
///
/// 1. The first run needs the smallest k with `(1 - stale)^k ≤ 1 - confidence`: 59 for 5 % at 95 %.
/// 2. Every further run is another chance to be fooled: whoever tries for long enough gets any
///    number of passes in a row from a half-deployed fleet. So the whole rotation shares one budget
///    for being wrong, `1 - confidence`. The first run takes what its whole number of passes uses;
///    of the rest, run `i` may use the share `6 / (π² i²)`, which over all runs adds up to the
///    rest. 59 is followed by 137, 164, 180, … The price grows with the logarithm of the number
///    of runs, and only fleets that mix old and new answers pay it.
pub fn required_passes(policy: &ProofPolicy, broken: u32) -> u32 {
    let budget = 1.0 - f64::from(policy.confidence_percent) / 100.0;
    let kept = 1.0 - f64::from(policy.stale_percent) / 100.0;
    let first = passes_within(kept, budget);
    if broken == 0 {
        return first;
    }
    let used = kept.powi(first.cast_signed());
    let rest = (budget - used).max(budget * REST_MIN);
    let run = f64::from(broken);
    let share = 6.0 / (std::f64::consts::PI * std::f64::consts::PI * run * run);
    passes_within(kept, rest * share).max(first)
}

/// Where the first run uses the budget up to the last digit, later runs still get this share of it.
const REST_MIN: f64 = 0.01;

/// The smallest k with `kept^k ≤ chance`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "both logarithms are negative and the policy's bounds keep the quotient below 10,000"
)]
fn passes_within(kept: f64, chance: f64) -> u32 {
    (chance.ln() / kept.ln()).ceil() as u32
}

/// The smallest stale share, in whole percent, that this many passes in a row rule out with the
/// policy's confidence: what is told to people. 100 when there was no pass.
pub fn ruled_out_percent(policy: &ProofPolicy, passes: u32) -> u8 {
    let budget = 1.0 - f64::from(policy.confidence_percent) / 100.0;
    (1..100u8)
        .find(|percent| {
            let kept = 1.0 - f64::from(*percent) / 100.0;
            passes_within(kept, budget) <= passes
        })
        .unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_nine_passes_rule_out_five_percent_at_ninety_five() {
        let policy = ProofPolicy::default();
        let needed: Vec<u32> = (0..4).map(|run| required_passes(&policy, run)).collect();
        assert_eq!(needed, [59, 137, 164, 180]);
        assert_eq!(ruled_out_percent(&policy, 59), 5);
        assert_eq!(ruled_out_percent(&policy, 58), 6);
        assert_eq!(ruled_out_percent(&policy, 0), 100);
    }

    #[test]
    fn g7_all_runs_together_stay_within_the_budget() {
        for (confidence_percent, stale_percent) in [(95, 5), (99, 1), (90, 10), (80, 20)] {
            let policy = ProofPolicy {
                confidence_percent,
                stale_percent,
                ..ProofPolicy::default()
            };
            let kept = 1.0 - f64::from(stale_percent) / 100.0;
            let wrong: f64 = (0..100_000u32)
                .map(|broken| kept.powi(required_passes(&policy, broken).cast_signed()))
                .sum();
            let budget = 1.0 - f64::from(confidence_percent) / 100.0;
            assert!(
                wrong <= budget * (1.0 + REST_MIN),
                "{confidence_percent} {stale_percent}: {wrong}"
            );
        }
    }

    #[test]
    fn impossible_policies_name_the_field() {
        let good = ProofPolicy::default();
        assert_eq!(good.check(), Ok(()));
        let cases = [
            (
                ProofPolicy {
                    confidence_percent: 0,
                    ..good
                },
                "confidencePercent",
            ),
            (
                ProofPolicy {
                    stale_percent: 0,
                    ..good
                },
                "stalePercent",
            ),
            (
                ProofPolicy {
                    confidence_percent: 50,
                    stale_percent: 50,
                    ..good
                },
                "stalePercent",
            ),
            (
                ProofPolicy {
                    quiet_millis: 0,
                    ..good
                },
                "quietMillis",
            ),
            (
                ProofPolicy {
                    deadline_millis: 31 * DAY,
                    ..good
                },
                "deadlineMillis",
            ),
            (
                ProofPolicy {
                    deadline_millis: MINUTE,
                    ..good
                },
                "deadlineMillis",
            ),
            (
                ProofPolicy {
                    hold_down_millis: 2 * DAY,
                    ..good
                },
                "holdDownMillis",
            ),
            (
                ProofPolicy {
                    quiet_millis: 14 * DAY,
                    ..good
                },
                "deadlineMillis",
            ),
            (
                ProofPolicy {
                    canary_percent: [10, 1, 50],
                    ..good
                },
                "canaryPercent",
            ),
            (
                ProofPolicy {
                    probes_per_hour: 0,
                    ..good
                },
                "probesPerHour",
            ),
            (
                ProofPolicy {
                    extend_millis: limits::EXTEND_MIN - 1,
                    ..good
                },
                "extendMillis",
            ),
        ];
        for (policy, field) in cases {
            assert_eq!(policy.check().unwrap_err().field, field);
        }
    }
}

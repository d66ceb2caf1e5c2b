//! Controls: what a receiver answers to a random key alone, and so whether it verifies at all.
//!
//! The latest one counts. A receiver that accepts one may have shown a maintenance page in that moment, so it
//! is asked again; one that verifies nothing accepts the next one too.
//!
//! Unless it refuses some requests at random, whoever signed them: a share `p` of them. It is asked for as long
//! as its rotation is open, and sooner or later refuses a control. Were one refusal before the passes and one
//! after them enough, each control after an accepted one would lead to a false proof with a chance of about
//! `p · p · (1 − p)ⁿ`, where `n` are the passes that are needed and those of the hold-down. With `p` = 1 % the
//! default policy, which asks such a receiver a hundred times a day, would call it proved in 2 % of rotations before
//! their deadline, and go on at 0.13 % a day.
//!
//! So a proof needs `k` controls in a row that were refused, each of them after something that the new secret
//! got accepted, and `k` grows with the number `i` of controls that were accepted before
//! ([`required_controls`]). A false proof after `i` accepted ones needs that the `k(i)` controls which follow
//! are all refused: `p` to the power of `k(i)`, whenever they are asked. All chances of a rotation together,
//! however long it is open and however often it asks, are at most
//!
//! ```text
//! Σ p^k(i), i from 0      k(i): the smallest k with p^k ≤ 1e-6 · 6 / (π² · (i + 1)²)
//! ```
//!
//! and the shares on the right add up to 1e-6. With `p` = 1 % the sum is 8e-8: 4 controls, 5 once 7 were accepted,
//! 6 once 77 were. The passes, which it must not refuse either, make it less; a larger `p` is met by them alone: with
//! 5 % the 59 passes and the 90 probes of the default hold-down leave `0.05⁴ · 0.95¹⁴⁹`, 3e-9. A receiver that does
//! verify refuses every control, so it pays two more probes than by one control before the passes and one after.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The share of requests that a receiver which verifies nothing may refuse at random, and is not taken for
/// one that verifies.
const REFUSED_AT_RANDOM: f64 = 0.01;
/// The chance that it is taken for one all the same, over a whole rotation.
const FOOLED_MAX: f64 = 1e-6;

/// The answer to a control: a probe signed with a random key alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Control {
    /// What it says.
    pub verdict: Verdict,
    /// When the control was sent.
    pub at: Timestamp,
    /// With what it was refused: what the receiver answers to a signature that does not match. `None` where
    /// that is not known: it was accepted, or the 500 of a single control, which a broken receiver answers too.
    #[serde(default)]
    pub status: Option<u16>,
    /// When the first one was sent that was refused after one that was accepted, if any was: what was accepted
    /// before then proves nothing.
    #[serde(default)]
    pub refused_again_at: Option<Timestamp>,
    /// Controls in a row that were refused. Of several between which the new secret was not accepted one counts:
    /// whatever made the receiver refuse everything for a while made it refuse all of them.
    #[serde(default)]
    pub refusals: u32,
    /// Controls that were accepted, of the whole rotation.
    #[serde(default)]
    pub accepted: u32,
}

/// Controls in a row that must be refused for a proof, after so many that were accepted: the text of this
/// module says why.
pub fn required_controls(accepted: u32) -> u32 {
    let nth = f64::from(accepted) + 1.0;
    let share = 6.0 / (std::f64::consts::PI * std::f64::consts::PI * nth * nth);
    let needed = (FOOLED_MAX * share).ln() / REFUSED_AT_RANDOM.ln();
    let (mut whole, mut counted) = (0.0, 0);
    while whole < needed {
        (whole, counted) = (whole + 1.0, counted + 1);
    }
    counted
}

/// What a control says about the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Refused: it verifies.
    Verifies,
    /// Answered 500: it verifies, and throws when a signature does not match. Then a 500 to the new
    /// secret is a refusal.
    Throws,
    /// Accepted: it does not verify.
    AcceptsAnything,
}

impl Control {
    /// The latest control, after `known`, which was the latest before, and after a request with the new secret
    /// that was sent at `passed_at` and accepted.
    pub(super) fn after(
        known: Option<Self>,
        passed_at: Option<Timestamp>,
        verdict: Verdict,
        status: Option<u16>,
        at: Timestamp,
    ) -> Self {
        let was = known.map(|known| known.verdict);
        let accepted = known.map_or(0, |known| known.accepted);
        let before = known.filter(|known| !known.is_fooled());
        let (refusals, accepted) = match (verdict, before) {
            (Verdict::AcceptsAnything, _) => (0, accepted.saturating_add(1)),
            (Verdict::Verifies | Verdict::Throws, None) => (1, accepted),
            (Verdict::Verifies | Verdict::Throws, Some(before)) => {
                let apart = passed_at >= Some(before.at);
                let refusals = before.refusals.saturating_add(u32::from(apart));
                (refusals.max(1), accepted)
            }
        };
        let (status, refused_again_at) = match verdict {
            Verdict::AcceptsAnything => (None, None),
            Verdict::Verifies | Verdict::Throws => (
                status.filter(|_| verdict == Verdict::Verifies || was == Some(Verdict::Throws)),
                if was == Some(Verdict::AcceptsAnything) {
                    Some(at)
                } else {
                    known.and_then(|known| known.refused_again_at)
                },
            ),
        };
        Self {
            verdict,
            at,
            status,
            refused_again_at,
            refusals,
            accepted,
        }
    }

    /// Whether as many in a row were refused as a proof needs.
    pub(super) fn are_enough(&self) -> bool {
        self.refusals >= required_controls(self.accepted)
    }

    /// Whether the next one is due among the passes, of which `run` of `needed` are there: so that they are
    /// spread over them, and never two without an acceptance at `passed_at` between them.
    pub(super) fn is_due(&self, run: u32, needed: u32, passed_at: Option<Timestamp>) -> bool {
        let gaps = u64::from(required_controls(self.accepted).saturating_sub(1));
        let reached = u64::from(run) * gaps >= u64::from(self.refusals) * u64::from(needed);
        !self.are_enough() && passed_at >= Some(self.at) && reached
    }

    /// Whether it was accepted.
    pub(super) fn is_fooled(&self) -> bool {
        self.verdict == Verdict::AcceptsAnything
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g7_all_runs_of_controls_together_stay_within_the_budget() {
        let needed: Vec<u32> = [0, 6, 7, 76, 77, u32::MAX].map(required_controls).into();
        assert_eq!(needed, [4, 4, 5, 5, 6, 13]);
        let chance = |accepted| REFUSED_AT_RANDOM.powi(required_controls(accepted).cast_signed());
        let fooled: f64 = (0..1_000_000).map(chance).sum();
        assert!(fooled < FOOLED_MAX / 10.0, "{fooled}");
        // Beyond those that were added up each needs 9 or more, and a million years are too short for 1e10.
        assert!(chance(1_000_000) * 1e10 < FOOLED_MAX, "{fooled}");
    }

    #[test]
    fn controls_count_when_something_was_accepted_between_them() {
        let at = Timestamp::from_millis;
        let refused = |known, passed_at, sent| {
            Control::after(known, passed_at, Verdict::Verifies, Some(401), at(sent))
        };
        let first = refused(None, None, 1);
        let again = refused(Some(first), None, 2);
        let apart = refused(Some(again), Some(at(3)), 4);
        assert_eq!([first, again, apart].map(|one| one.refusals), [1, 1, 2]);
        let fooled = Control::after(Some(apart), None, Verdict::AcceptsAnything, None, at(5));
        let anew = refused(Some(fooled), Some(at(3)), 6);
        assert_eq!((fooled.refusals, fooled.accepted), (0, 1));
        assert_eq!((anew.refusals, anew.accepted), (1, 1));
    }

    #[test]
    fn controls_are_spread_over_the_passes() {
        let mut control = Control::after(None, None, Verdict::Verifies, None, Timestamp::EPOCH);
        let mut asked_at = Vec::new();
        for run in 1..=60 {
            let passed_at = Some(Timestamp::from_millis(i64::from(run)));
            if control.is_due(run, 59, passed_at) {
                asked_at.push(run);
                let sent = Timestamp::from_millis(i64::from(run));
                control = Control::after(Some(control), passed_at, Verdict::Throws, None, sent);
            }
        }
        assert_eq!(asked_at, [20, 40, 59]);
        assert!(control.are_enough());
    }
}

//! Controls: what a receiver answers to a random key alone, and so whether it verifies at all.
//!
//! The latest one counts. A receiver that accepts one may have shown a maintenance page in that moment, so it
//! is asked again; one that verifies nothing accepts the next one too.
//!
//! Unless it refuses some requests at random, whoever signed them, or is a fleet of which some machines verify
//! nothing: then controls are refused and accepted by turns, and sooner or later several are refused in a row. It is
//! asked for as long as its rotation is open, so a proof needs more of them once one was accepted
//! ([`required_controls`]), each after something that the new secret got accepted:
//!
//! 1. While none was accepted, 4 in a row. A receiver that verifies nothing and refuses 1 % at random is then taken
//!    for one that verifies with a chance of `0.01⁴`, 1e-8. A fleet of which the share `f` verifies nothing gets
//!    through uncaught with `(1 − f)⁴`: four controls tell that a receiver verifies, and not that every machine does.
//! 2. Once it was caught, as many as the passes that the policy's coverage needs, 59 by default, and more each time
//!    that it is caught again, as for runs of passes ([`required_passes`]). All chances of a rotation together, however
//!    often it is asked, are then at most `1 − confidence`, 5 %, for a fleet of which more than the policy's stale
//!    share (5 %) does not verify: by default `0.95⁵⁹ + 0.95¹³⁷ + …`. With a quarter that does not it is `0.75⁵⁹`, 4e-8,
//!    and with 1 % that are refused at random `0.01⁵⁹`, nothing that could be told from 0.
//! 3. Where they are answered 500, 12 at least: a receiver that is broken now and then answers so too, whoever signed.
//!    And in no fixed order with the passes ([`super::Evidence::next_probe`]): one that verifies nothing and fails every
//!    other request met its failures with seven controls and none of seven passes, which took turns (seed 78938 of
//!    the simulation).
//!
//! So the chance of a false proof is below 1e-6 for one that refuses 1 % at random. Controls that are accepted in a
//! row catch it once: a maintenance page that answered 200 to everything costs 59 controls among the 59 passes, some
//! twenty minutes by the default policy, however long it was there. A receiver that does verify refuses every control,
//! so it pays two more probes than by one control before the passes and one after, ten more if it answers 500.

use serde::{Deserialize, Serialize};

use super::policy::{ProofPolicy, required_passes};
use crate::time::Timestamp;

/// Controls in a row that must be refused where none was accepted.
const NEVER_CAUGHT: u32 = 4;
/// The same where the latest was answered 500, as a receiver does that is broken now and then.
const THROWING: u32 = 12;

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
    /// How often one was accepted, of the whole rotation; those in a row count once.
    #[serde(default)]
    pub accepted: u32,
}

/// Controls in a row that must be refused for a proof, after one was accepted so many times: the text of this
/// module says why.
pub fn required_controls(policy: &ProofPolicy, accepted: u32) -> u32 {
    match accepted.checked_sub(1) {
        None => NEVER_CAUGHT,
        Some(again) => required_passes(policy, again).max(NEVER_CAUGHT),
    }
}

/// Controls in a row that a receiver must refuse which never accepted one, whatever it refuses them with.
pub(super) fn first_controls(policy: &ProofPolicy) -> u32 {
    required_controls(policy, 0).max(THROWING)
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
            (Verdict::AcceptsAnything, _) => {
                let caught = was != Some(Verdict::AcceptsAnything);
                (0, accepted.saturating_add(u32::from(caught)))
            }
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

    /// As how many in a row must be refused for a proof.
    pub(super) fn needed(&self, policy: &ProofPolicy) -> u32 {
        let needed = required_controls(policy, self.accepted);
        match self.verdict {
            Verdict::Throws => needed.max(THROWING),
            Verdict::Verifies | Verdict::AcceptsAnything => needed,
        }
    }

    /// Whether as many in a row were refused as a proof needs.
    pub(super) fn are_enough(&self, policy: &ProofPolicy) -> bool {
        self.refusals >= self.needed(policy)
    }

    /// Whether the next one is due among the passes, of which `run` of `needed` are there: so that they are
    /// spread over them, and never two without an acceptance at `passed_at` between them.
    pub(super) fn is_due(
        &self,
        policy: &ProofPolicy,
        run: u32,
        needed: u32,
        passed_at: Option<Timestamp>,
    ) -> bool {
        let gaps = u64::from(self.needed(policy) - 1);
        let reached = u64::from(run) * gaps >= u64::from(self.refusals) * u64::from(needed);
        !self.are_enough(policy) && passed_at >= Some(self.at) && reached
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
        let policy = ProofPolicy::default();
        let required = |accepted| required_controls(&policy, accepted);
        assert_eq!([0, 1, 2, 3].map(required), [4, 59, 137, 164]);
        let fooled = |refused: f64, caught: std::ops::Range<u32>| -> f64 {
            let chance = |accepted| refused.powi(required(accepted).cast_signed());
            caught.map(chance).sum()
        };
        // One that refuses 1 % at random; fleets of which 5 % and a quarter verify nothing, once caught.
        assert!(fooled(0.01, 0..100_000) < 1e-6);
        assert!(fooled(0.95, 1..100_000) <= 0.05 * 1.01);
        assert!(fooled(0.75, 1..100_000) < 1e-6);
        // However little a policy asks for, it is not less than where nothing was accepted.
        let lax = ProofPolicy {
            confidence_percent: 50,
            stale_percent: 49,
            ..policy
        };
        assert_eq!(required_controls(&lax, 1), 4);
    }

    #[test]
    fn g7_controls_that_are_answered_500_must_be_more() {
        let policy = ProofPolicy::default();
        let at = Timestamp::from_millis;
        let mut control = None;
        for nth in 1..=THROWING {
            let sent = i64::from(nth) * 2;
            let passed_at = Some(at(sent - 1));
            let next = Control::after(control, passed_at, Verdict::Throws, Some(500), at(sent));
            assert_eq!(next.are_enough(&policy), nth == THROWING, "{nth}");
            control = Some(next);
        }
        // One clear answer is worth as much as they are.
        let clear = Control::after(control, Some(at(99)), Verdict::Verifies, Some(401), at(100));
        assert_eq!(clear.needed(&policy), NEVER_CAUGHT);
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
        // A page that is there for long is caught once.
        let still = Control::after(Some(fooled), None, Verdict::AcceptsAnything, None, at(6));
        assert_eq!((still.refusals, still.accepted), (0, 1));
        let again = Control::after(Some(anew), None, Verdict::AcceptsAnything, None, at(7));
        assert_eq!((again.refusals, again.accepted), (0, 2));
    }

    #[test]
    fn controls_are_spread_over_the_passes() {
        let policy = ProofPolicy::default();
        let mut control = Control::after(None, None, Verdict::Verifies, None, Timestamp::EPOCH);
        let mut asked_at = Vec::new();
        for run in 1..=60 {
            let passed_at = Some(Timestamp::from_millis(i64::from(run)));
            if control.is_due(&policy, run, 59, passed_at) {
                asked_at.push(run);
                let sent = Timestamp::from_millis(i64::from(run));
                control = Control::after(Some(control), passed_at, Verdict::Verifies, None, sent);
            }
        }
        assert_eq!(asked_at, [20, 40, 59]);
        assert!(control.are_enough(&policy));
    }
}

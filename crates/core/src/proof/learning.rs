//! From exchanges to evidence: what a real delivery says about the secrets of a rotation.

use super::evidence::{Evidence, Observed};
use super::policy::ProofPolicy;
use super::rehearsal::ProbeAnswer;
use crate::receiver::Exchange;
use crate::rotation::{Mode, Rotation, Stage};

/// The policy by which a rotation counts its evidence: its own, or the default where its mode has
/// none. There the counts only inform.
pub fn policy_of(rotation: &Rotation) -> ProofPolicy {
    match rotation.mode {
        Mode::Proven { policy } => policy,
        Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. } => ProofPolicy::default(),
    }
}

/// What is known after an attempt of a delivery: its exchanges that were signed with one key alone,
/// in order, each as [`learn`] says.
///
/// 1. Before the promotion, a first exchange with the new secret was a canary.
/// 2. A second exchange was a fallback.
pub fn learn_attempt(
    evidence: Option<Evidence>,
    rotation: &Rotation,
    exchanges: &[Exchange],
) -> Option<Evidence> {
    let mut known = evidence;
    for (nth, exchange) in exchanges.iter().enumerate() {
        let mut learned = learn(known, rotation, *exchange);
        let stage = rotation.stage.at(exchange.sent_at);
        let canary = stage == Stage::Staged && exchange.signed_with == rotation.to;
        if nth == 0 && canary {
            learned.canaries = learned.canaries.saturating_add(1);
        } else if nth > 0 && stage.is_open() {
            learned.fallbacks = learned.fallbacks.saturating_add(1);
            learned.fallback_at = learned.fallback_at.max(Some(exchange.sent_at));
        }
        known = Some(learned);
    }
    known
}

/// What is known after an exchange of a delivery that was signed with one key alone.
///
/// 1. Evidence of another rotation is forgotten; this rotation's begins empty.
/// 2. Signed with the new secret: a pass or a refusal.
/// 3. Signed with the current secret before the promotion, and refused: it may have switched.
/// 4. Signed with the old secret in the overlap, and accepted: the old one is still needed.
/// 5. A rotation that is over, and other keys, teach nothing.
pub fn learn(evidence: Option<Evidence>, rotation: &Rotation, exchange: Exchange) -> Evidence {
    let known = Evidence::about(evidence, rotation.id);
    let observed = match rotation.stage.at(exchange.sent_at) {
        Stage::Staged | Stage::Overlap { .. } if exchange.signed_with == rotation.to => {
            Observed::Delivery
        }
        Stage::Staged if exchange.signed_with == rotation.from => Observed::Current,
        Stage::Overlap { .. } if exchange.signed_with == rotation.from => Observed::Old,
        Stage::Staged
        | Stage::Overlap { .. }
        | Stage::Completed { .. }
        | Stage::Cancelled { .. }
        | Stage::Undone { .. } => return known,
    };
    known.after(
        &policy_of(rotation),
        observed,
        ProbeAnswer::of(exchange.status),
        exchange.sent_at,
    )
}

//! From exchanges to evidence: what a real delivery says about the secrets of a rotation.

use super::evidence::{Evidence, Observed};
use super::policy::ProofPolicy;
use super::rehearsal::ProbeAnswer;
use crate::receiver::{Exchange, may_be_about_signature};
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
/// 3. Of an attempt that was refused for what is in it ([`is_about_content`]) only the canary is counted: it
///    says nothing about the secrets.
pub fn learn_attempt(
    evidence: Option<Evidence>,
    rotation: &Rotation,
    exchanges: &[Exchange],
) -> Option<Evidence> {
    let mut known = evidence;
    let about_content = is_about_content(evidence.as_ref(), rotation, exchanges);
    for (nth, exchange) in exchanges.iter().enumerate() {
        let mut learned = if about_content {
            Evidence::about(known, rotation.id)
        } else {
            learn(known, rotation, *exchange)
        };
        let stage = rotation.stage.at(exchange.sent_at);
        let canary = stage == Stage::Staged && exchange.signed_with == rotation.to;
        if nth == 0 && canary {
            learned.canaries = learned.canaries.saturating_add(1);
        } else if nth > 0 && stage.is_open() && !about_content {
            learned.fallbacks = learned.fallbacks.saturating_add(1);
            learned.fallback_at = learned.fallback_at.max(Some(exchange.sent_at));
        }
        known = Some(learned);
    }
    known
}

/// Whether an attempt of a delivery was refused for what is in it, so that it says nothing about the secrets of
/// a rotation: no pass, no refusal, no fallback, and no other belief. The first line that holds:
///
/// 1. It is not two exchanges, one signed with the old secret alone and one with the new: no.
/// 2. One of them was not refused in a way that can be about the signature ([`may_be_about_signature`]): no.
/// 3. It is not known with what the receiver refuses a signature that does not match, for no control was
///    refused, or none with a status that tells ([`super::Control::status`]): no.
/// 4. The new secret got the status of the latest control: no. It lacks the new secret, or of a half-deployed
///    fleet one machine does. A receiver that answers content and signatures with one status is taken for such a
///    fleet, which is the careful side.
/// 5. Both got one status, another than the control's: yes. A signature that does not match is answered
///    otherwise.
/// 6. The old secret got the status of the latest control, and the new one another: yes, if the receiver accepted
///    the new one last ([`Evidence::accepts_new`]). It holds the new one alone, and looks at signatures before it
///    looks at what is in a message.
/// 7. Otherwise no: one of them may have been about the signature.
pub fn is_about_content(
    evidence: Option<&Evidence>,
    rotation: &Rotation,
    exchanges: &[Exchange],
) -> bool {
    let [first, second] = exchanges else {
        return false;
    };
    let (of_old, of_new) = match (first.signed_with, second.signed_with) {
        (old, new) if old == rotation.from && new == rotation.to => (first.status, second.status),
        (new, old) if old == rotation.from && new == rotation.to => (second.status, first.status),
        _ => return false,
    };
    let refused =
        |status: Option<u16>| status.filter(|status| may_be_about_signature(*status, false));
    let known = evidence.filter(|evidence| evidence.rotation == rotation.id);
    let of_control = known
        .and_then(|evidence| evidence.control)
        .and_then(|control| control.status);
    let (Some(of_old), Some(of_new), Some(of_control)) =
        (refused(of_old), refused(of_new), of_control)
    else {
        return false;
    };
    if of_new == of_control {
        return false;
    }
    of_old == of_new || (of_old == of_control && known.is_some_and(Evidence::accepts_new))
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

//! With which secrets an exchange is signed, decided when it is sent.

use hookturn_verify::Scheme;

use super::{Keyring, Mode, SecretVersion, Stage};
use crate::delivery::ExchangeReason;
use crate::id::{MessageId, SecretId};
use crate::limits;
use crate::proof::{Evidence, is_canary};
use crate::receiver::{ReceiverClass, ReceiverView};
use crate::time::{Millis, Timestamp};

/// The keys of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One secret, or two in the order of their signatures.
    pub sign_with: Vec<SecretId>,
    /// The secret that alone signs one more exchange at once, when the first one is refused for a
    /// reason that may be the signature ([`crate::receiver::may_be_about_signature`]).
    pub fallback: Option<SecretId>,
}

impl Plan {
    /// Why it signs with what it does, for the record of the attempt. The first line that holds:
    ///
    /// 1. Several secrets: the receiver reads every signature.
    /// 2. No fallback: one secret was live.
    /// 3. The first is the pending one: the receiver [switched early](delivery_plan), or else it is a
    ///    canary. The fallback is: the current one.
    /// 4. The first is compromised: it may not be the fallback.
    /// 5. The first is the one the receiver is believed to hold, or the one that a rotation brought and that
    ///    it is known to accept; or nothing is believed.
    pub fn reason(
        &self,
        keyring: &Keyring,
        receiver: &ReceiverView,
        evidence: Option<&Evidence>,
    ) -> ExchangeReason {
        let (first, fallback) = match (self.sign_with.as_slice(), self.fallback) {
            (&[first], Some(fallback)) => (first, fallback),
            (&[_], None) => return ExchangeReason::Steady,
            _ => return ExchangeReason::CoSigned,
        };
        let pending = keyring.pending().map(|secret| secret.id);
        let leaked = |secret: &SecretVersion| secret.compromised.is_some();
        if pending == Some(first) && switched_early(keyring, evidence) {
            ExchangeReason::Belief
        } else if pending == Some(first) {
            ExchangeReason::Canary
        } else if pending == Some(fallback) {
            ExchangeReason::Current
        } else if keyring.secret(first).is_some_and(leaked) {
            ExchangeReason::Compromised
        } else if receiver.belief.map(|belief| belief.secret) == Some(first)
            || brought(keyring) == Some(first)
                && of_its_rotation(keyring, evidence).is_some_and(Evidence::accepts_new)
        {
            ExchangeReason::Belief
        } else {
            ExchangeReason::NoBelief
        }
    }
}

/// The keyring has no secret that may sign, so nothing is sent (G3: never unsigned).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keyring has no active secret: create the first secret")]
pub struct NoLiveSecret;

/// Which secrets sign an attempt that starts at `now`.
///
/// 1. Without an active secret there is no plan. The active secret is live even when compromised:
///    a receiver still verifies with it, and silence would lose messages; it signs, but see 2.
/// 2. The *other* key is the pending one, or the one retiring at `now`. A compromised key is never
///    the other: it neither co-signs nor is a fallback. Retired (by `retireAt`, not by
///    bookkeeping), destroyed and cancelled keys are not looked at (G4).
/// 3. Steady, that is without another key: the active one alone, whatever is believed.
/// 4. A list-aware receiver under a scheme that carries many signatures: both, the active first. What
///    it is comes from a rehearsal, and behind the URL may be another receiver by now; so there is a
///    fallback, the key it is believed to hold, alone. Under a scheme that carries one signature it is
///    treated as everyone else.
/// 5. Everyone else while a secret is staged: the active alone, fallback the pending. A receiver
///    may hold the pending one already, but the belief does not reorder the two: before promotion
///    the current secret is the one that counts. ([`delivery_plan`] has evidence too, and does.)
/// 6. Everyone else in an overlap, where the active key is compromised: the active first, fallback
///    the other, whatever is believed. In the other order the compromised key would be the
///    fallback; without it, a receiver that holds only this key would lose messages.
/// 7. Everyone else in any other overlap: the key it is believed to hold, fallback the other.
///    Without a belief, or with one about a key that is neither, the older of the two comes first:
///    it had every receiver until the rotation, and one that did switch costs one refused
///    exchange, after which there is a belief.
///
/// An overlap here is also the time after an undo in which the undone secret is retiring; then the
/// active secret is the older one.
pub fn signing_plan(
    keyring: &Keyring,
    receiver: &ReceiverView,
    scheme: Scheme,
    now: Timestamp,
) -> Result<Plan, NoLiveSecret> {
    let active = keyring.active().ok_or(NoLiveSecret)?;
    let sound = |secret: &&SecretVersion| secret.compromised.is_none();
    let pending = keyring.pending().filter(sound);
    let retiring = keyring.retiring(now).filter(sound);
    let Some(other) = pending.or(retiring) else {
        return Ok(Plan {
            sign_with: vec![active.id],
            fallback: None,
        });
    };
    if lists_are_read(receiver.class) && scheme.carries_many_signatures() {
        let (believed, _) = in_order_of_belief(active, other, receiver);
        let alone = if sound(&believed) { believed } else { other };
        return Ok(Plan {
            sign_with: vec![active.id, other.id],
            fallback: Some(alone.id),
        });
    }
    let (first, second) = if pending.is_some() || active.compromised.is_some() {
        (active, other)
    } else {
        in_order_of_belief(active, other, receiver)
    };
    Ok(Plan {
        sign_with: vec![first.id],
        fallback: Some(second.id),
    })
}

/// Which secrets sign an attempt to deliver `message`: the signing plan, unless evidence says better.
/// In rules 1 and 2 the pending secret signs alone, fallback the active one; neither happens while one of
/// the two is compromised.
///
/// 1. A receiver **switched early** when of its latest answers more were acceptances of the pending secret
///    alone than of the active one alone ([`Evidence::switched_early`]). Under the signing plan it would
///    refuse one exchange of every delivery until somebody promotes, which in mode `staged` may take weeks;
///    and of a half-deployed fleet most machines would. A receiver that reads every signature is left to
///    the plan, which already carries both.
/// 2. A **canary** is evidence, and costs one refused exchange where the receiver lacks the secret. Only
///    while a rotation in mode `proven` is staged, for the share of messages that the evidence allows
///    ([`crate::proof::Evidence::canary_percent`]).
/// 3. In the overlap, a receiver that **accepts the new secret**, by the last answer to it alone, gets it
///    first, fallback the old one: one that accepts both would otherwise get the old one for ever, for
///    each acceptance confirms the belief, and the old one would seem to be needed.
pub fn delivery_plan(
    keyring: &Keyring,
    receiver: &ReceiverView,
    evidence: Option<&Evidence>,
    message: MessageId,
    scheme: Scheme,
    now: Timestamp,
) -> Result<Plan, NoLiveSecret> {
    let active = keyring.active().ok_or(NoLiveSecret)?;
    let sound = |secret: &&SecretVersion| secret.compromised.is_none();
    let pending = keyring.pending().filter(sound);
    if let Some(pending) = pending.filter(|_| sound(&active)) {
        let co_signs = lists_are_read(receiver.class) && scheme.carries_many_signatures();
        let switched = !co_signs && switched_early(keyring, evidence);
        if switched || is_canary(message, canary_percent(keyring, evidence)) {
            return Ok(Plan {
                sign_with: vec![pending.id],
                fallback: Some(active.id),
            });
        }
    }
    let plan = signing_plan(keyring, receiver, scheme, now)?;
    let swapped = plan.fallback == Some(active.id) && plan.sign_with.len() == 1;
    if swapped && takes_the_new_one(keyring, evidence, now) {
        return Ok(Plan {
            sign_with: vec![active.id],
            fallback: plan.sign_with.first().copied(),
        });
    }
    Ok(plan)
}

/// Whether a rotation is in its overlap and the receiver accepts the secret it brought.
fn takes_the_new_one(keyring: &Keyring, evidence: Option<&Evidence>, now: Timestamp) -> bool {
    let Some(rotation) = keyring.open_rotation(now) else {
        return false;
    };
    let overlap = matches!(rotation.stage.at(now), Stage::Overlap { .. });
    overlap && of_its_rotation(keyring, evidence).is_some_and(Evidence::accepts_new)
}

/// The evidence, if it is about the keyring's latest rotation.
fn of_its_rotation<'a>(keyring: &Keyring, evidence: Option<&'a Evidence>) -> Option<&'a Evidence> {
    let rotation = keyring.rotation.as_ref()?.id;
    evidence.filter(|evidence| evidence.rotation == rotation)
}

/// The secret that the keyring's latest rotation brought.
fn brought(keyring: &Keyring) -> Option<SecretId> {
    Some(keyring.rotation.as_ref()?.to)
}

/// Whether the receiver showed that it rather holds the pending secret than the active one.
fn switched_early(keyring: &Keyring, evidence: Option<&Evidence>) -> bool {
    of_its_rotation(keyring, evidence).is_some_and(Evidence::switched_early)
}

fn canary_percent(keyring: &Keyring, evidence: Option<&Evidence>) -> u8 {
    let Some(rotation) = &keyring.rotation else {
        return 0;
    };
    match (rotation.mode, rotation.stage) {
        (Mode::Proven { policy }, Stage::Staged) => of_its_rotation(keyring, evidence)
            .map_or(0, |evidence| evidence.canary_percent(&policy)),
        (
            Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. } | Mode::Proven { .. },
            Stage::Staged
            | Stage::Overlap { .. }
            | Stage::Completed { .. }
            | Stage::Cancelled { .. }
            | Stage::Undone { .. },
        ) => 0,
    }
}

const fn lists_are_read(class: ReceiverClass) -> bool {
    match class {
        ReceiverClass::ListAware => true,
        ReceiverClass::FirstOnly
        | ReceiverClass::LastOnly
        | ReceiverClass::Single
        | ReceiverClass::DoesNotVerify
        | ReceiverClass::Unreachable
        | ReceiverClass::Unknown => false,
    }
}

fn in_order_of_belief<'a>(
    active: &'a SecretVersion,
    retiring: &'a SecretVersion,
    receiver: &ReceiverView,
) -> (&'a SecretVersion, &'a SecretVersion) {
    let believed = receiver.belief.map(|belief| belief.secret);
    let older_first = retiring.version < active.version;
    if believed == Some(retiring.id) || (believed != Some(active.id) && older_first) {
        (retiring, active)
    } else {
        (active, retiring)
    }
}

/// The overlap of a rotation that names none: the longer of a day and the time over which a
/// delivery may be retried, and a day more for people; at most [`limits::OVERLAP_MAX`].
///
/// Longer than the retry horizon, so that a message accepted before the rotation is still retried
/// under a key its receiver knew then.
pub const fn default_overlap(retry_horizon: Millis) -> Millis {
    let base = if retry_horizon > limits::OVERLAP_DEFAULT_MIN {
        retry_horizon
    } else {
        limits::OVERLAP_DEFAULT_MIN
    };
    let overlap = base.saturating_add(limits::OVERLAP_GRACE);
    if overlap > limits::OVERLAP_MAX {
        limits::OVERLAP_MAX
    } else {
        overlap
    }
}

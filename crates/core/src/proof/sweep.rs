//! What a proven rotation needs next: one decision that a sweep takes again and again.

use super::evidence::Evidence;
use super::policy::{OnDeadline, ProofPolicy};
use super::proved::{NotProven, Proof, prove};
use crate::id::EndpointId;
use crate::limits;
use crate::rotation::{Mode, Rotation, Stage};
use crate::time::{HOUR, Timestamp};

/// What a rotation needs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing but more evidence or more time.
    Wait(NotProven),
    /// Every endpoint that counts is proved, and the rotation promotes itself.
    Promote(Proof),
    /// Every endpoint that counts is proved, and the owner promotes.
    AskOwner(Proof),
    /// The old secret is about to go: ask these endpoints, each at its time, whether they refuse it.
    /// One that cannot be asked holds nothing up.
    AskReleased(Vec<(EndpointId, Timestamp)>),
    /// The old secret was not needed for the quiet time: retire it.
    Finish,
    /// The old secret is still needed and its end is near: move it there.
    Extend(Timestamp),
    /// The old secret signs until its end or until it is quiet.
    Watch,
    /// It is not in mode `proven`, or it is over.
    Nothing,
}

/// How long before the end of the old secret its receivers are asked whether they refuse it, at most.
const ASK_BEFORE: u64 = HOUR;

/// What `rotation` needs at `now`, given the evidence of every endpoint that counts.
///
/// 1. While staged: proof, or waiting for it. The deadline changes nothing here: without proof the old
///    secret stays active, and only the owner may cancel or force.
/// 2. In overlap, when no endpoint needed the old secret for the quiet time, and its owner did not ask that
///    it stays until later ([`Rotation::kept_until`]): ask each whether it refuses
///    it now ([`super::Released::ask_at`]), then finish, whether or not they still accept it. The quiet time does
///    not begin before an endpoint accepted the new secret alone, and silence does not end it
///    ([`Evidence::quiet_at`]): without evidence the deadline decides.
/// 3. In overlap, while the old secret is not quiet and the policy extends: when half of `extendMillis` is left
///    to its end (or half of the time from the opening to it, if that is shorter), move the end if an endpoint
///    needed the old secret since the promotion, or was asked and never accepted the new one
///    ([`Evidence::needed_old_since`]). So far ahead, because nothing brings it back once its end has passed (G4): a
///    server that is down for less does not miss the moment. At most the longest overlap from now.
/// 4. In overlap, while it is not quiet and its end is not moved: within an hour of it (or of a quarter of
///    `extendMillis`, if that is shorter) ask as in 2, so that the end comes before the quiet time is over by its
///    length alone.
/// 5. Idempotent: the same rotation, evidence and time give the same step, and a step that was taken
///    is not given again. What time alone changes of it, it changes at [`turns_at`].
pub fn next_step(
    rotation: &Rotation,
    endpoints: &[(EndpointId, Option<Evidence>)],
    now: Timestamp,
) -> Step {
    let Mode::Proven { policy } = rotation.mode else {
        return Step::Nothing;
    };
    match rotation.stage.at(now) {
        Stage::Staged => match prove(&policy, rotation.id, endpoints, now) {
            Ok(proof) if policy.promote_by_itself => Step::Promote(proof),
            Ok(proof) => Step::AskOwner(proof),
            Err(missing) => Step::Wait(missing),
        },
        Stage::Overlap { retire_at } => {
            let since = rotation
                .promotion
                .as_ref()
                .map_or(rotation.opened_at, |made| made.at);
            let is_kept = rotation.kept_at(now).is_some();
            if let Some(quiet_at) = quiet_at(&policy, rotation, endpoints, since)
                && now >= quiet_at
                && !is_kept
            {
                let unasked = unasked(&policy, rotation, endpoints, quiet_at, now);
                return if unasked.is_empty() {
                    Step::Finish
                } else {
                    Step::AskReleased(unasked)
                };
            }
            let needed = || {
                endpoints.iter().any(|(_, evidence)| {
                    Evidence::about(*evidence, rotation.id).needed_old_since(since)
                })
            };
            let extends = policy.on_deadline == OnDeadline::Extend;
            if extends && now >= extends_at(&policy, rotation, retire_at) && needed() {
                let latest = now.after(limits::OVERLAP_MAX);
                return Step::Extend(retire_at.after(policy.extend_millis).min(latest));
            }
            let asks_at = asks_at(&policy, retire_at);
            if now < asks_at {
                return Step::Watch;
            }
            let unasked = unasked(&policy, rotation, endpoints, asks_at, now);
            if unasked.is_empty() {
                Step::Watch
            } else {
                Step::AskReleased(unasked)
            }
        }
        Stage::Completed { .. } | Stage::Cancelled { .. } | Stage::Undone { .. } => Step::Nothing,
    }
}

/// When time alone next changes what `rotation` may need: the end of its old secret comes near enough to be moved,
/// or to ask about. `None` when it does not.
pub fn turns_at(rotation: &Rotation, now: Timestamp) -> Option<Timestamp> {
    let (Mode::Proven { policy }, Stage::Overlap { retire_at }) =
        (rotation.mode, rotation.stage.at(now))
    else {
        return None;
    };
    [
        extends_at(&policy, rotation, retire_at),
        asks_at(&policy, retire_at),
    ]
    .into_iter()
    .filter(|at| now < *at)
    .min()
}

/// From when on the end of the old secret moves if it is needed. Once it moved by `extendMillis`, that is
/// `extendMillis` later: it moves no more often than it would at its very end.
fn extends_at(policy: &ProofPolicy, rotation: &Rotation, retire_at: Timestamp) -> Timestamp {
    let whole = retire_at.since(rotation.opened_at);
    retire_at.before(policy.extend_millis.min(whole) / 2)
}

/// From when on receivers are asked whether they refuse an old secret that goes at its end.
fn asks_at(policy: &ProofPolicy, retire_at: Timestamp) -> Timestamp {
    retire_at.before(ASK_BEFORE.min(policy.extend_millis / 4))
}

/// From when on no endpoint needs the old secret, as far as is known now; `None` while one does.
fn quiet_at(
    policy: &ProofPolicy,
    rotation: &Rotation,
    endpoints: &[(EndpointId, Option<Evidence>)],
    since: Timestamp,
) -> Option<Timestamp> {
    endpoints.iter().try_fold(since, |latest, (_, evidence)| {
        let known = Evidence::about(*evidence, rotation.id);
        Some(known.quiet_at(policy, since)?.max(latest))
    })
}

/// The endpoints that were not asked enough since the old secret was about to go, and when to ask.
fn unasked(
    policy: &ProofPolicy,
    rotation: &Rotation,
    endpoints: &[(EndpointId, Option<Evidence>)],
    since: Timestamp,
    now: Timestamp,
) -> Vec<(EndpointId, Timestamp)> {
    endpoints
        .iter()
        .filter_map(|(endpoint, evidence)| {
            let released = Evidence::about(*evidence, rotation.id).released;
            Some((*endpoint, released.ask_at(policy, since, now)?))
        })
        .collect()
}

//! What a proven rotation needs next: one decision that a sweep takes again and again.

use super::evidence::{Evidence, NotProven, Proof, prove};
use super::policy::{OnDeadline, ProofPolicy};
use crate::id::EndpointId;
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
    /// The old secret was not needed for the quiet time: retire it.
    Finish,
    /// The old secret is still needed and its end is near: move it there.
    Extend(Timestamp),
    /// The old secret signs until its end or until it is quiet.
    Watch,
    /// It is not in mode `proven`, or it is over.
    Nothing,
}

/// How long before the end of the old secret it is moved: a sweep that is late, or a restart, must
/// not let it pass.
const EXTEND_BEFORE: u64 = HOUR;

/// What `rotation` needs at `now`, given the evidence of every endpoint that counts.
///
/// 1. While staged: proof, or waiting for it. The deadline changes nothing here: without proof the old
///    secret stays active, and only the owner may cancel or force.
/// 2. In overlap, when no endpoint needed the old secret for the quiet time: finish.
/// 3. In overlap, within an hour of the old secret's end (or of a quarter of what is left to extend,
///    if that is shorter), while it is not quiet and the policy extends: move the end.
/// 4. Idempotent: the same rotation, evidence and time give the same step, and a step that was taken
///    is not given again.
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
            if is_quiet(&policy, rotation, endpoints, since, now) {
                return Step::Finish;
            }
            let before = EXTEND_BEFORE.min(policy.extend_millis / 4);
            match policy.on_deadline {
                OnDeadline::Extend if now >= retire_at.before(before) => {
                    Step::Extend(retire_at.after(policy.extend_millis))
                }
                OnDeadline::Extend | OnDeadline::Cut => Step::Watch,
            }
        }
        Stage::Completed { .. } | Stage::Cancelled { .. } | Stage::Undone { .. } => Step::Nothing,
    }
}

fn is_quiet(
    policy: &ProofPolicy,
    rotation: &Rotation,
    endpoints: &[(EndpointId, Option<Evidence>)],
    since: Timestamp,
    now: Timestamp,
) -> bool {
    endpoints.iter().all(|(_, evidence)| {
        evidence
            .filter(|evidence| evidence.rotation == rotation.id)
            .unwrap_or(Evidence::new(rotation.id))
            .is_quiet(policy, since, now)
    })
}

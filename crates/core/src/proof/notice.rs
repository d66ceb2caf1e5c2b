//! Notices: what the owner of a rotation is told while it is open, each thing once.
//!
//! A change that someone made is in the audit log when it happens. What time and evidence do to a
//! rotation (it is proved, it makes no progress, its deadline comes near, a receiver turns out to
//! verify nothing) is in no command, so the sweep that looks at rotations asks [`notices`] and writes
//! the answer into the audit log, together with the [`Noted`] that keeps it from being said again.

use serde::{Deserialize, Serialize};

use super::evidence::Evidence;
use super::learning::policy_of;
use super::policy::ProofPolicy;
use super::proved::prove;
use super::standing::Standing;
use super::sweep::{Step, next_step};
use crate::id::{EndpointId, RotationId};
use crate::rotation::{Mode, Rotation, Stage};
use crate::time::Timestamp;

/// What was said about the latest rotation of a keyring. Stored as JSON, one for each keyring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Noted {
    /// The rotation.
    pub rotation: RotationId,
    /// That it is proved.
    pub proved: bool,
    /// That it stalled, and still it does.
    pub stalled: bool,
    /// That this deadline is near.
    pub deadline_near: Option<Timestamp>,
    /// That these do not verify.
    pub do_not_verify: Vec<EndpointId>,
}

impl Noted {
    /// Nothing was said yet.
    pub const fn new(rotation: RotationId) -> Self {
        Self {
            rotation,
            proved: false,
            stalled: false,
            deadline_near: None,
            do_not_verify: Vec::new(),
        }
    }
}

/// One thing to say about a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Every endpoint that counts is proved.
    Proved {
        /// How many they are.
        endpoints: usize,
        /// The fewest passes in a row of any of them.
        passes: u32,
    },
    /// It makes no progress.
    Stalled {
        /// The first endpoint that does not; none where none counts.
        endpoint: Option<EndpointId>,
        /// How many do not.
        endpoints: usize,
        /// Why not.
        stall: Stall,
    },
    /// Its deadline is near.
    DeadlineNear {
        /// When that is.
        deadline: Timestamp,
    },
    /// The receiver of an endpoint verifies nothing.
    DoesNotVerify {
        /// The endpoint.
        endpoint: EndpointId,
    },
}

/// Why a rotation makes no progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// No endpoint accepted anything lately, so there is none to prove it by.
    NobodyCounts,
    /// Nothing was asked yet. Whoever knows the endpoint says why it cannot be.
    NotAsked,
    /// It verifies nothing.
    DoesNotVerify,
    /// It does not answer in a way that says anything.
    Unreachable,
    /// It refuses the new secret.
    Refuses {
        /// Last at this time.
        last: Timestamp,
    },
    /// It accepts and refuses the new secret by turns, as a half-deployed fleet does.
    Mixed {
        /// Runs of passes that a refusal ended.
        broken: u32,
        /// When it last refused.
        last: Timestamp,
    },
    /// It accepted the new secret before, and nothing came since that would complete the proof.
    Silent {
        /// When it last accepted it.
        last: Timestamp,
    },
}

impl Stall {
    /// The word that the audit log and events use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NobodyCounts => "nobody_counts",
            Self::NotAsked => "not_asked",
            Self::DoesNotVerify => "does_not_verify",
            Self::Unreachable => "unreachable",
            Self::Refuses { .. } => "refuses",
            Self::Mixed { .. } => "mixed",
            Self::Silent { .. } => "silent",
        }
    }

    /// When the answer that it is about came, if it is about one.
    pub const fn last(self) -> Option<Timestamp> {
        match self {
            Self::NobodyCounts | Self::NotAsked | Self::DoesNotVerify | Self::Unreachable => None,
            Self::Refuses { last } | Self::Mixed { last, .. } | Self::Silent { last } => Some(last),
        }
    }
}

/// Broken runs, of passes or of controls, from which on passes and refusals by turns are no accident.
const MIXED_FROM: u32 = 3;

/// Whether an endpoint makes no progress towards the proof of a rotation, and why not. The first line
/// that holds:
///
/// 1. It is proved: no.
/// 2. The rotation is open for less than `stalledAfterMillis`: no.
/// 3. Three or more runs of passes were broken, the last refusal is younger than
///    `stalledAfterMillis`: it answers by turns, and the passes in between are no progress.
/// 4. A random key was accepted three or more times, refused in between, and lately: some of its machines verify
///    nothing, and what the others accept is no progress. A maintenance page is one time, however long it is there.
/// 5. Something was accepted within `stalledAfterMillis`: no, it makes progress.
/// 6. Otherwise yes, for the reason that its standing names.
pub fn stall(
    policy: &ProofPolicy,
    opened_at: Timestamp,
    evidence: &Evidence,
    now: Timestamp,
) -> Option<Stall> {
    let standing = evidence.standing(policy, now);
    if matches!(standing, Standing::Proved { .. }) {
        return None;
    }
    let long_ago = |at: Timestamp| now >= at.after(policy.stalled_after_millis);
    if !long_ago(opened_at) {
        return None;
    }
    if let Some(last) = evidence.refused_at
        && evidence.broken >= MIXED_FROM
        && !long_ago(last)
    {
        let broken = evidence.broken;
        return Some(Stall::Mixed { broken, last });
    }
    let caught = evidence
        .control
        .filter(|control| control.accepted >= MIXED_FROM);
    if caught.is_some_and(|control| {
        let last = control.refused_again_at.unwrap_or(control.at);
        !long_ago(last)
    }) {
        return Some(Stall::DoesNotVerify);
    }
    if evidence.passed_at.is_some_and(|at| !long_ago(at)) {
        return None;
    }
    Some(match standing {
        Standing::DoesNotVerify { .. } => Stall::DoesNotVerify,
        Standing::NotAsked => Stall::NotAsked,
        Standing::Unreachable => Stall::Unreachable,
        Standing::NotReady { refused_at } => Stall::Refuses { last: refused_at },
        Standing::Collecting { .. }
        | Standing::AwaitingControl { .. }
        | Standing::HoldingDown { .. }
        | Standing::Proved { .. } => match evidence.passed_at {
            Some(last) => Stall::Silent { last },
            None => Stall::Unreachable,
        },
    })
}

/// What to say about `rotation` at `now` that `noted` does not hold yet, and what holds it.
///
/// 1. Only a rotation that is open has notices; while staged only one of mode `proven`.
/// 2. While staged: that it is proved, once.
/// 3. While staged: that a receiver does not verify, once for each, however often it is asked again.
/// 4. While staged: that it stalled ([`stall`]) when any endpoint does, or when none counts for
///    `stalledAfterMillis`; again only after it made progress in between.
/// 5. Before its deadline, by `deadlineNearMillis` or a quarter of the time to it, and at the latest when it is about
///    to be moved ([`next_step`]): that it is near, once for each deadline. While staged the deadline is the policy's, in overlap the end of the old secret.
/// 6. In modes `overlap` and `staged`, whose end is a time and waits for nobody, that is said only while an
///    endpoint is not known to hold the new secret ([`Evidence::holds_new`]).
/// 7. Idempotent: with what it returned as `noted` it says nothing more at the same time.
pub fn notices(
    rotation: &Rotation,
    endpoints: &[(EndpointId, Option<Evidence>)],
    noted: Option<&Noted>,
    now: Timestamp,
) -> (Vec<Notice>, Noted) {
    let mut told = noted
        .filter(|noted| noted.rotation == rotation.id)
        .cloned()
        .unwrap_or(Noted::new(rotation.id));
    let mut said = Vec::new();
    let policy = policy_of(rotation);
    let proven = matches!(rotation.mode, Mode::Proven { .. });
    let Some(deadline) = rotation.deadline_at(now) else {
        return (said, told);
    };
    if rotation.stage == Stage::Staged {
        while_staged(&policy, rotation, endpoints, now, &mut told, &mut said);
    }
    let holds_new =
        |evidence: &Option<Evidence>| Evidence::about(*evidence, rotation.id).holds_new();
    if !proven && endpoints.iter().all(|(_, evidence)| holds_new(evidence)) {
        return (said, told);
    }
    let before = policy
        .deadline_near_millis
        .min(deadline.since(rotation.opened_at) / 4);
    let moves = || matches!(next_step(rotation, endpoints, now), Step::Extend(_));
    if told.deadline_near != Some(deadline) && (now >= deadline.before(before) || moves()) {
        told.deadline_near = Some(deadline);
        said.push(Notice::DeadlineNear { deadline });
    }
    (said, told)
}

fn while_staged(
    policy: &ProofPolicy,
    rotation: &Rotation,
    endpoints: &[(EndpointId, Option<Evidence>)],
    now: Timestamp,
    told: &mut Noted,
    said: &mut Vec<Notice>,
) {
    if let Ok(proof) = prove(policy, rotation.id, endpoints, now) {
        told.stalled = false;
        if !std::mem::replace(&mut told.proved, true) {
            let passes = proof.endpoints().iter().map(|(_, passes)| *passes).min();
            said.push(Notice::Proved {
                endpoints: proof.endpoints().len(),
                passes: passes.unwrap_or(0),
            });
        }
        return;
    }
    let mut stalled = Vec::new();
    for (endpoint, evidence) in endpoints {
        let evidence = Evidence::about(*evidence, rotation.id);
        let standing = evidence.standing(policy, now);
        let fools = matches!(standing, Standing::DoesNotVerify { .. });
        if fools && !told.do_not_verify.contains(endpoint) {
            told.do_not_verify.push(*endpoint);
            said.push(Notice::DoesNotVerify {
                endpoint: *endpoint,
            });
        }
        let stall = stall(policy, rotation.opened_at, &evidence, now);
        stalled.extend(stall.map(|stall| (*endpoint, stall)));
    }
    let old = now >= rotation.opened_at.after(policy.stalled_after_millis);
    let first = match stalled.first() {
        Some((endpoint, stall)) => Some((Some(*endpoint), *stall)),
        None if endpoints.is_empty() && old => Some((None, Stall::NobodyCounts)),
        None => None,
    };
    match first {
        Some((endpoint, stall)) if !told.stalled => {
            told.stalled = true;
            said.push(Notice::Stalled {
                endpoint,
                endpoints: stalled.len(),
                stall,
            });
        }
        Some(_) => {}
        None => told.stalled = false,
    }
}

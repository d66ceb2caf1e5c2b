//! What probes and deliveries have shown of an endpoint's receiver: kept per endpoint.
//!
//! In memory it is always as of the last answer; on disk it may be a little older. What a crash takes
//! are the answers of the last moments, of both kinds alike: passes that must be collected again, and
//! refusals that the hold-down and the control after the last pass would meet again.

use serde::{Deserialize, Serialize};

use super::control::Verdict;
use super::evidence::Evidence;
use super::rehearsal::Finding;
use crate::receiver::ReceiverClass;
use crate::time::Timestamp;

/// Findings about one endpoint's receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Findings {
    /// The last rehearsal.
    pub rehearsed: Option<Rehearsed>,
    /// Evidence about the latest rotation that had any.
    pub evidence: Option<Evidence>,
    /// When a test event was last accepted: an endpoint that never got a delivery may be probed then.
    pub tested_at: Option<Timestamp>,
}

/// A rehearsal that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsed {
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
    /// When it ended.
    pub at: Timestamp,
    /// When a delivery that carried two signatures was refused since, although the rehearsal had found
    /// that every signature is read: behind the URL may be another receiver by now, or several kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubted_at: Option<Timestamp>,
}

impl Rehearsed {
    /// The class to plan by: what was found, unless deliveries contradict it.
    pub const fn class(&self) -> ReceiverClass {
        match self.doubted_at {
            Some(_) => ReceiverClass::Unknown,
            None => self.finding.class,
        }
    }

    /// What was found, in one sentence, and what contradicts it.
    pub fn words(&self) -> String {
        let found = self.finding.words();
        match self.doubted_at {
            Some(at) => format!(
                "{found}; but a delivery with two signatures was refused at {at}, so it is treated as unknown: rehearse again"
            ),
            None => found,
        }
    }

    /// What that means for a rotation, in one sentence; `is_pending` says whether a new secret waits to be activated.
    pub const fn consequence(&self, is_pending: bool) -> &'static str {
        match self.doubted_at {
            Some(_) => {
                "a rotation signs with one secret and repairs a refusal with the other at once; \
                 rehearse again to find out how it verifies"
            }
            None => self.finding.consequence(is_pending),
        }
    }
}

impl Findings {
    /// The class of the receiver: that of the last rehearsal that told one, `unknown` without. A
    /// rehearsal that found the receiver unreachable does not unsay an earlier one, so it is not kept
    /// when there is one.
    pub fn class(&self) -> ReceiverClass {
        self.rehearsed
            .map_or(ReceiverClass::Unknown, |rehearsed| rehearsed.class())
    }

    /// Whether its receiver is known to answer 500 to a signature that does not match.
    pub fn throws(&self) -> bool {
        let rehearsed = self.rehearsed.is_some_and(|found| found.finding.throws);
        rehearsed || self.evidence.is_some_and(|evidence| evidence.throws())
    }

    /// What of this is about the receiver at the URL that the endpoint has had since `retargeted_at`.
    #[must_use]
    pub fn since(self, retargeted_at: Option<Timestamp>) -> Self {
        let Some(since) = retargeted_at else {
            return self;
        };
        Self {
            rehearsed: self.rehearsed.filter(|found| found.at >= since),
            evidence: self
                .evidence
                .filter(|evidence| evidence.latest_at() >= Some(since)),
            tested_at: self.tested_at.filter(|at| *at >= since),
        }
    }

    /// The findings after a delivery that carried two signatures was refused.
    #[must_use]
    pub fn doubted(self, at: Timestamp) -> Self {
        let rehearsed = self.rehearsed.map(|found| Rehearsed {
            doubted_at: found.doubted_at.or((at >= found.at).then_some(at)),
            ..found
        });
        Self { rehearsed, ..self }
    }

    /// Whether its receiver is known to accept any signature: the latest of rehearsals and controls that
    /// told says so.
    pub fn does_not_verify(&self) -> bool {
        let rehearsed = self.rehearsed.map(|found| {
            let fooled = found.finding.class == ReceiverClass::DoesNotVerify;
            (found.at, fooled)
        });
        let control = self.evidence.and_then(|evidence| evidence.control);
        let control = control.map(|control| {
            let fooled = control.verdict == Verdict::AcceptsAnything;
            (control.at, fooled)
        });
        // Of the same moment the one that warns.
        rehearsed.max(control).is_some_and(|(_, fooled)| fooled)
    }

    /// The findings after a rehearsal.
    #[must_use]
    pub fn after_rehearsal(self, rehearsed: Rehearsed) -> Self {
        let told = !matches!(
            rehearsed.finding.class,
            ReceiverClass::Unreachable | ReceiverClass::Unknown
        );
        if told || self.rehearsed.is_none() {
            Self {
                rehearsed: Some(rehearsed),
                ..self
            }
        } else {
            self
        }
    }
}

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
}

impl Findings {
    /// The class of the receiver: that of the last rehearsal that told one, `unknown` without. A
    /// rehearsal that found the receiver unreachable does not unsay an earlier one, so it is not kept
    /// when there is one.
    pub fn class(&self) -> ReceiverClass {
        self.rehearsed
            .map_or(ReceiverClass::Unknown, |rehearsed| rehearsed.finding.class)
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

//! *Released*: what a receiver answered to the old secret alone, and so whether it still accepts it.
//!
//! A receiver that accepts the new secret may go on accepting the old one. The only way to see from
//! outside that it does not is a message signed with the old secret alone that is refused. It is asked
//! when the old secret is about to be retired, while it may still sign (G4), and by command.
//!
//! What is proved, and no more: that so many requests were refused. Another machine of the same fleet
//! may still hold the old secret.

use serde::{Deserialize, Serialize};

use super::policy::ProofPolicy;
use super::rehearsal::ProbeAnswer;
use crate::time::Timestamp;

/// How often a receiver is asked by itself: so many refusals in a row, or so many times no answer.
pub const RELEASED_ASKED: u32 = 3;

/// Answers to requests that were signed with the old secret alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Released {
    /// Refusals in a row, since the last one that was accepted.
    pub refusals: u32,
    /// When the latest was refused.
    pub refused_at: Option<Timestamp>,
    /// When the latest was accepted.
    pub accepted_at: Option<Timestamp>,
    /// Requests in a row without an answer that says anything.
    pub silent: u32,
    /// When the latest was sent.
    pub asked_at: Option<Timestamp>,
}

/// Whether a receiver has dropped the old secret, as far as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Nobody asked.
    NotAsked,
    /// The latest answer refused the old secret.
    Released {
        /// Refusals in a row.
        refusals: u32,
        /// When the latest request was sent.
        at: Timestamp,
    },
    /// The latest answer accepted the old secret.
    StillAccepts {
        /// When that request was sent.
        at: Timestamp,
    },
    /// It was asked, and no answer said anything about the secret.
    NoAnswer {
        /// When the latest request was sent.
        at: Timestamp,
    },
}

impl Release {
    /// The word that the API and pages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Released { .. } => "released",
            Self::StillAccepts { .. } => "still_accepts",
            Self::NoAnswer { .. } => "no_answer",
        }
    }

    /// When the request was sent whose answer says so.
    pub const fn at(self) -> Option<Timestamp> {
        match self {
            Self::NotAsked => None,
            Self::Released { at, .. } | Self::StillAccepts { at } | Self::NoAnswer { at } => {
                Some(at)
            }
        }
    }
}

impl Released {
    /// What is known after one more answer. Answers may arrive out of order; times only grow.
    ///
    /// `throws` says that the receiver answers 500 to signatures that do not match: then a 500 is a
    /// refusal, and elsewhere it says nothing.
    #[must_use]
    pub fn after(mut self, answer: ProbeAnswer, throws: bool, sent_at: Timestamp) -> Self {
        self.asked_at = self.asked_at.max(Some(sent_at));
        let refused = match answer {
            ProbeAnswer::Accepted => {
                self.accepted_at = self.accepted_at.max(Some(sent_at));
                self.refusals = 0;
                self.silent = 0;
                return self;
            }
            ProbeAnswer::Refused => true,
            ProbeAnswer::Threw => throws,
            ProbeAnswer::Silent => false,
        };
        if refused {
            self.refused_at = self.refused_at.max(Some(sent_at));
            self.refusals = self.refusals.saturating_add(1);
            self.silent = 0;
        } else {
            self.silent = self.silent.saturating_add(1);
        }
        self
    }

    /// What the answers say. The latest one that tells counts; of two of the same moment the acceptance.
    pub fn verdict(&self) -> Release {
        match (self.accepted_at, self.refused_at, self.asked_at) {
            (Some(at), refused_at, _) if Some(at) >= refused_at => Release::StillAccepts { at },
            (_, Some(at), _) => Release::Released {
                refusals: self.refusals.max(1),
                at,
            },
            (_, None, Some(at)) => Release::NoAnswer { at },
            (_, None, None) => Release::NotAsked,
        }
    }

    /// When to ask next, at the earliest, once the old secret is about to go at `since`.
    ///
    /// 1. Now, if nothing was asked since then.
    /// 2. Never again once it accepted, refused [`RELEASED_ASKED`] times in a row, or was silent so
    ///    many times.
    /// 3. Otherwise after the policy's time between two probes.
    pub fn ask_at(
        &self,
        policy: &ProofPolicy,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let Some(asked_at) = self.asked_at.filter(|asked_at| *asked_at >= since) else {
            return Some(now);
        };
        let accepts = self.accepted_at.is_some_and(|at| at >= since)
            && matches!(self.verdict(), Release::StillAccepts { .. });
        if accepts || self.refusals >= RELEASED_ASKED || self.silent >= RELEASED_ASKED {
            return None;
        }
        Some(asked_at.after(policy.probe_every_millis).max(now))
    }
}

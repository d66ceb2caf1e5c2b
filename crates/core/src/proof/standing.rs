//! Where an endpoint stands on the way to proof, and the words for it.

use serde::{Deserialize, Serialize};

use super::policy::ProofPolicy;
use crate::time::Timestamp;

/// Where an endpoint stands on the way to proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "standing",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum Standing {
    /// Nothing was asked yet.
    NotAsked,
    /// It accepted a random key, last: nothing can be proved about it until it refuses one.
    DoesNotVerify {
        /// When that control was sent.
        at: Timestamp,
    },
    /// It does not answer in a way that says anything: neither ready nor not ready.
    Unreachable,
    /// The last request signed with the new secret alone was refused.
    NotReady {
        /// When it was sent.
        refused_at: Timestamp,
    },
    /// Passes are being collected.
    Collecting {
        /// Passes in a row.
        passes: u32,
        /// Passes that are needed.
        needed: u32,
    },
    /// Enough passes; a random key must still be refused, near in time and often enough.
    AwaitingControl {
        /// Passes in a row.
        passes: u32,
        /// Controls in a row that were refused.
        controls: u32,
        /// Controls in a row that are needed.
        controls_needed: u32,
    },
    /// Enough passes; nothing may be refused until then.
    HoldingDown {
        /// Passes in a row.
        passes: u32,
        /// When the hold-down is over.
        until: Timestamp,
    },
    /// Proved.
    Proved {
        /// Passes in a row.
        passes: u32,
        /// The smallest stale share, in percent, that they rule out with the policy's confidence.
        rules_out_percent: u8,
    },
}

impl Standing {
    /// Every word of [`Standing::as_str`], in the order of the way.
    pub const WORDS: [&'static str; 8] = [
        "not_asked",
        "does_not_verify",
        "unreachable",
        "not_ready",
        "collecting",
        "awaiting_control",
        "holding_down",
        "proved",
    ];

    /// The word that the API and pages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::DoesNotVerify { .. } => "does_not_verify",
            Self::Unreachable => "unreachable",
            Self::NotReady { .. } => "not_ready",
            Self::Collecting { .. } => "collecting",
            Self::AwaitingControl { .. } => "awaiting_control",
            Self::HoldingDown { .. } => "holding_down",
            Self::Proved { .. } => "proved",
        }
    }

    /// The same in a sentence for people: what was seen, and no more.
    pub fn words(self, policy: &ProofPolicy) -> String {
        let phrase = self.phrase(policy);
        match self.moment() {
            Some(at) => format!("{phrase} at {at}"),
            None => phrase,
        }
    }

    /// The time that ends the sentence, if it ends with one.
    pub const fn moment(self) -> Option<Timestamp> {
        match self {
            Self::DoesNotVerify { at } => Some(at),
            Self::NotReady { refused_at } => Some(refused_at),
            Self::HoldingDown { until, .. } => Some(until),
            Self::NotAsked
            | Self::Unreachable
            | Self::Collecting { .. }
            | Self::AwaitingControl { .. }
            | Self::Proved { .. } => None,
        }
    }

    /// The sentence without the time that ends it, for whoever says times in a way of their own.
    pub fn phrase(self, policy: &ProofPolicy) -> String {
        let confidence = policy.confidence_percent;
        match self {
            Self::NotAsked => "nothing was asked yet".to_owned(),
            Self::DoesNotVerify { .. } => {
                "it verifies nothing, so nothing can be proved: a request signed with a random key was accepted, last"
                    .to_owned()
            }
            Self::Unreachable => {
                "it does not answer in a way that says anything about the new secret".to_owned()
            }
            Self::NotReady { .. } => "it refused the new secret, last".to_owned(),
            Self::Collecting { passes, needed } if passes >= needed => format!(
                "{passes} requests signed with the new secret were accepted in a row, but the last of them is older than the policy's window: it is asked again"
            ),
            Self::Collecting { passes, needed } => {
                format!("{passes} of {needed} requests signed with the new secret were accepted in a row")
            }
            Self::AwaitingControl {
                passes,
                controls,
                controls_needed,
            } if controls < controls_needed => format!(
                "{passes} in a row were accepted; {controls} of {controls_needed} requests signed with a random key were refused in a row"
            ),
            Self::AwaitingControl { passes, .. } => format!(
                "{passes} in a row were accepted; no request signed with a random key was refused near the last of them yet"
            ),
            Self::HoldingDown { passes, .. } => format!(
                "{passes} in a row were accepted; proved, if nothing is refused before the hold-down ends"
            ),
            Self::Proved {
                passes,
                rules_out_percent,
            } => format!(
                "{passes} of {passes} were accepted and a random key was refused: rules out {rules_out_percent} % stale at {confidence} %"
            ),
        }
    }
}

//! Controls: what a receiver answers to a random key alone, and so whether it verifies at all.
//!
//! The latest one counts. A receiver that accepts one may have shown a maintenance page in that moment, so it
//! is asked again; one that verifies nothing accepts the next one too.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The answer to a control: a probe signed with a random key alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Control {
    /// What it says.
    pub verdict: Verdict,
    /// When the control was sent.
    pub at: Timestamp,
    /// With what it was refused: what the receiver answers to a signature that does not match. `None` where
    /// that is not known: it was accepted, or the 500 of a single control, which a broken receiver answers too.
    #[serde(default)]
    pub status: Option<u16>,
    /// When the first one was sent that was refused after one that was accepted, if any was: what was accepted
    /// before then proves nothing.
    #[serde(default)]
    pub refused_again_at: Option<Timestamp>,
}

/// What a control says about the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Refused: it verifies.
    Verifies,
    /// Answered 500: it verifies, and throws when a signature does not match. Then a 500 to the new
    /// secret is a refusal.
    Throws,
    /// Accepted: it does not verify.
    AcceptsAnything,
}

impl Control {
    /// The latest control, after `known`, which was the latest before.
    pub(super) fn after(
        known: Option<Self>,
        verdict: Verdict,
        status: Option<u16>,
        at: Timestamp,
    ) -> Self {
        let was = known.map(|known| known.verdict);
        let (status, refused_again_at) = match verdict {
            Verdict::AcceptsAnything => (None, None),
            Verdict::Verifies | Verdict::Throws => (
                status.filter(|_| verdict == Verdict::Verifies || was == Some(Verdict::Throws)),
                if was == Some(Verdict::AcceptsAnything) {
                    Some(at)
                } else {
                    known.and_then(|known| known.refused_again_at)
                },
            ),
        };
        Self {
            verdict,
            at,
            status,
            refused_again_at,
        }
    }

    /// Whether it was accepted.
    pub(super) fn is_fooled(&self) -> bool {
        self.verdict == Verdict::AcceptsAnything
    }
}

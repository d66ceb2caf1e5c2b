//! A memory of few answers: which of two secrets a receiver rather holds, while the two are mixed.

use serde::{Deserialize, Serialize};

/// The latest [`Latest::ANSWERS`] answers to requests that one secret alone signed: how many were accepted.
///
/// One bit an answer, the newest lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latest(u8);

impl Latest {
    /// How many answers are kept. A receiver that switched refuses at most this many requests, and those under
    /// way, before the new secret comes first; of a half-deployed fleet fewer would say less.
    pub const ANSWERS: u32 = 4;

    const ALL: u8 = (1 << Self::ANSWERS) - 1;

    /// As if all had been accepted: where a secret starts that served until now.
    pub const fn all_accepted() -> Self {
        Self(Self::ALL)
    }

    /// As if none had been: where a secret starts that nobody has yet.
    pub const fn none_accepted() -> Self {
        Self(0)
    }

    /// With one more answer; the oldest is forgotten.
    #[must_use]
    pub fn then(self, accepted: bool) -> Self {
        Self((self.0 << 1 | u8::from(accepted)) & Self::ALL)
    }

    /// How many of them were accepted, 0 to [`Latest::ANSWERS`].
    pub const fn accepted(self) -> u32 {
        self.0.count_ones()
    }
}

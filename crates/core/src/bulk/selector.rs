//! Which keyrings: everything that is named must hold, of each list one entry is enough.

use std::collections::BTreeMap;

use hookturn_verify::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::id::{ClientId, KeyringId, SecretId};
use crate::rotation::Keyring;
use crate::time::{Millis, Timestamp};
use crate::workspace::App;

/// Which keyrings of a workspace.
///
/// A keyring is selected by its *active* secret: what only an old one matches needs no rotation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Selector {
    /// Every keyring: so that nothing is rotated because a filter was forgotten.
    pub all: bool,
    /// Those that sign for an endpoint of one of these apps.
    pub apps: Vec<ClientId>,
    /// Those that sign for an endpoint of an app with all these labels.
    pub labels: BTreeMap<String, String>,
    /// These.
    pub keyrings: Vec<KeyringId>,
    /// Those whose active secret is at least this old, in milliseconds.
    pub older_than_millis: Option<Millis>,
    /// Those whose active secret has one of these fingerprints.
    #[serde(with = "fingerprints")]
    pub fingerprints: Vec<Fingerprint>,
    /// Those whose active secret is one of these: what a search for leaked strings found.
    pub secrets: Option<Vec<SecretId>>,
}

/// A selector that names nothing, and does not say that it means everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("name at least one criterion, or `all` to rotate every keyring of the workspace")]
pub struct EmptySelector;

/// A keyring with what a selector looks at.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// It.
    pub keyring: &'a Keyring,
    /// The apps of the endpoints that it signs for.
    pub apps: &'a [&'a App],
}

impl Selector {
    /// Whether it says which keyrings it means.
    pub fn check(&self) -> Result<(), EmptySelector> {
        let named = Self {
            all: false,
            ..self.clone()
        };
        if self.all || named != Self::default() {
            Ok(())
        } else {
            Err(EmptySelector)
        }
    }

    /// Whether a keyring is meant.
    ///
    /// 1. One without an active secret never is: there is nothing to rotate from.
    /// 2. One that signs for no app (its endpoints are deleted) never is.
    /// 3. Everything that is named must hold; of a list one entry is enough. Apps and labels must hold
    ///    of the same app.
    pub fn selects(&self, candidate: Candidate<'_>, now: Timestamp) -> bool {
        let Some(active) = candidate.keyring.active() else {
            return false;
        };
        let app_matches = |app: &&App| {
            (self.apps.is_empty() || self.apps.contains(&app.id))
                && self
                    .labels
                    .iter()
                    .all(|(name, value)| app.labels.get(name) == Some(value))
        };
        candidate.apps.iter().any(app_matches)
            && (self.keyrings.is_empty() || self.keyrings.contains(&candidate.keyring.id))
            && self
                .older_than_millis
                .is_none_or(|age| now >= active.created_at.after(age))
            && (self.fingerprints.is_empty() || self.fingerprints.contains(&active.fingerprint))
            && self
                .secrets
                .as_ref()
                .is_none_or(|secrets| secrets.contains(&active.id))
    }
}

/// Fingerprints as a list of texts.
mod fingerprints {
    use hookturn_verify::Fingerprint;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        prints: &[Fingerprint],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(prints.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Fingerprint>, D::Error> {
        let parse = |text: &String| {
            text.parse()
                .map_err(|_| D::Error::custom("not a fingerprint: expected 8 hex digits"))
        };
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(parse)
            .collect()
    }
}

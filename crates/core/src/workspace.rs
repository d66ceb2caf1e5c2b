//! Who owns what: workspaces, their apps, and the API keys that act for them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::endpoint::{HeaderRenames, Preset};
use crate::id::{ApiKeyId, ClientId, EndpointId, KeyringId, WorkspaceId};
use crate::limits;
use crate::time::Timestamp;

/// One customer account of the operator. Owns apps, API keys and one shared keyring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Unique among workspaces; `default` is the one made when the store is empty.
    pub name: String,
    /// Compare-and-swap counter, 1 for the first stored form.
    pub version: u64,
    /// The keyring that endpoints with `keyring: "workspace"` use; empty until its first secret.
    pub shared_keyring: KeyringId,
    /// What its owner may choose.
    pub settings: WorkspaceSettings,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its stored form last changed.
    pub updated_at: Timestamp,
}

/// Settings of a workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkspaceSettings {
    /// Whether a secret may be read again after the answer that created it.
    pub reveal_secrets: RevealPolicy,
    /// White label: other header names for a preset, so that receivers need no change.
    pub header_names: BTreeMap<Preset, HeaderRenames>,
    /// Overlap, in seconds, that a dialect's rotate call gives; `None` or 0 rotates at once.
    pub rotation_overlap_seconds: Option<u32>,
    /// The app that receives Hookturn's own events (types `hookturn.*`), if any.
    pub operational_app: Option<ClientId>,
}

/// Whether the value of a secret can be revealed later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RevealPolicy {
    /// With the `secrets` scope, audited.
    #[default]
    Allowed,
    /// Never: lost values are replaced by a rotation.
    Never,
}

/// A consumer of webhooks in a workspace (`clientId`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// The public name, unique in its workspace.
    pub id: ClientId,
    /// The workspace that owns it.
    pub workspace: WorkspaceId,
    /// For people.
    pub name: String,
    /// Free text pairs for selecting many apps at once.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Overlap, in seconds, of a dialect's rotate call for this app; overrides the workspace's.
    #[serde(default)]
    pub rotation_overlap_seconds: Option<u32>,
    /// The endpoint that is the app's one webhook configuration in the Hopae dialect, once it has
    /// one. It is an endpoint like any other, and may be gone: then the app has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_endpoint: Option<EndpointId>,
    /// Compare-and-swap counter, 1 for the first stored form.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its stored form last changed.
    pub updated_at: Timestamp,
}

/// An API key. Its text is shown once and never stored; the hash finds it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// Its id, safe to show and log.
    pub id: ApiKeyId,
    /// For people.
    pub name: String,
    /// What it can reach.
    pub reach: Reach,
    /// What it may do there.
    pub scopes: Scopes,
    /// SHA-256 of the key's text. The text has 256 random bits, so a plain hash cannot be guessed.
    pub hash: [u8; 32],
    /// The text's last four characters, so that people can tell keys apart.
    pub hint: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused, if it expires.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// Compare-and-swap counter, 1 for the first stored form.
    pub version: u64,
}

impl ApiKey {
    /// Whether the key opens anything at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expiry| now < expiry)
    }
}

/// What an API key can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Reach {
    /// Every workspace; text `sk_operator_…`.
    Operator,
    /// One workspace; text `sk_workspace_test_…` or `sk_workspace_prod_…`.
    Workspace {
        /// Which one.
        workspace: WorkspaceId,
        /// A word in the key's text, so that a test key is not pasted into production.
        environment: Environment,
    },
}

/// What kind of use a workspace key was made for. Both behave alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Environment {
    /// `sk_workspace_test_…`
    #[default]
    Test,
    /// `sk_workspace_prod_…`
    Prod,
}

/// One thing a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Publish messages.
    Publish,
    /// Create and change apps, endpoints, API keys and settings.
    Manage,
    /// Create, reveal and rotate secrets.
    Secrets,
    /// Read everything except the value of a secret.
    Read,
}

impl Scope {
    /// Every scope, in the order they are listed.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Manage, Self::Secrets, Self::Read];

    /// The word in API and command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Manage => "manage",
            Self::Secrets => "secrets",
            Self::Read => "read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not one of the four scopes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope: expected publish, manage, secrets or read")]
pub struct ParseScopeError;

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or(ParseScopeError)
    }
}

/// A set of scopes, stored as the list of their words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Scope>", into = "Vec<Scope>")]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub const EVERY: Self = Self(0b1111);

    /// Whether `scope` is in the set.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// The scopes in the set, in listing order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .into_iter()
            .filter(move |scope| self.contains(*scope))
    }

    /// Whether every scope of `other` is in this set too.
    pub const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is allowed.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(
            scopes
                .into_iter()
                .fold(0, |set, scope| set | 1 << scope as u8),
        )
    }
}

impl From<Vec<Scope>> for Scopes {
    fn from(scopes: Vec<Scope>) -> Self {
        scopes.into_iter().collect()
    }
}

impl From<Scopes> for Vec<Scope> {
    fn from(scopes: Scopes) -> Self {
        scopes.iter().collect()
    }
}

/// The text is no API key that an operator may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an API key needs at least {} printable characters without spaces, after `sk_…_` if it begins so; make one with `openssl rand -hex 32`",
    limits::API_KEY_CHARS_MIN
)]
pub struct WeakKeyText;

/// Checks the text of a key that was chosen and not drawn. It is kept as a plain hash, so it must be
/// hard to guess.
pub fn check_key_text(text: &str) -> Result<(), WeakKeyText> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    // What every key begins with is no secret.
    let prefixes = ["sk_operator_", "sk_workspace_test_", "sk_workspace_prod_"];
    let prefix = prefixes.into_iter().find(|prefix| text.starts_with(prefix));
    let own = text.len() - prefix.map_or(0, str::len);
    if printable && own >= limits::API_KEY_CHARS_MIN {
        Ok(())
    } else {
        Err(WeakKeyText)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_begins_with_does_not_count() {
        for (text, strong) in [
            ("0123456789abcdef", true),
            ("0123456789abcde", false),
            ("sk_workspace_test_", false),
            ("sk_workspace_test_0123456789abcde", false),
            ("sk_workspace_test_0123456789abcdef", true),
            ("sk_operator_0123456789abcdef", true),
            ("0123456789 abcdef", false),
        ] {
            assert_eq!(check_key_text(text).is_ok(), strong, "{text}");
        }
    }

    #[test]
    fn scopes_are_stored_as_words() {
        let scopes: Scopes = [Scope::Publish, Scope::Read].into_iter().collect();
        assert_eq!(
            serde_json::to_string(&scopes).unwrap(),
            r#"["publish","read"]"#
        );
        assert_eq!(
            serde_json::from_str::<Scopes>(r#"["read","publish"]"#).unwrap(),
            scopes
        );
        assert!(scopes.contains(Scope::Read) && !scopes.contains(Scope::Secrets));
        assert!(Scopes::EVERY.covers(scopes) && !scopes.covers(Scopes::EVERY));
    }
}

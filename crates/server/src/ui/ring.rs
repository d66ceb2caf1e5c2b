//! Keyrings and their secrets as pages show them. The words for states are those of the signer
//! ([`SecretStatus`]), asked at the time of the page.

use std::sync::Arc;

use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::draw;
use hookturn_core::rotation::{
    KeyKind, Keyring, KeyringOwner, SecretState, SecretStatus, SecretVersion,
};
use hookturn_core::time::Timestamp;

use super::UiState;
use super::error::UiError;
use super::text::{When, visible};
use super::visitor::Visitor;

/// A keyring and whom it signs for.
#[derive(Debug, Clone)]
pub struct Ring {
    /// Its id.
    pub id: String,
    /// Whom it signs for, in words.
    pub title: String,
    /// Whether it is the workspace's shared one.
    pub is_shared: bool,
    /// Whether its secrets are Ed25519 keys.
    pub is_ed25519: bool,
    /// The endpoints that sign with it.
    pub users: Vec<User>,
    /// What forms name as the version they were made from.
    pub version: u64,
    /// When this was read, in milliseconds: what forms name as the time they were made.
    pub seen: i64,
    /// What a form that makes a secret holds of its own, so that it is carried out once.
    pub once: String,
}

/// An endpoint that signs with a keyring.
#[derive(Debug, Clone)]
pub struct User {
    /// Its page, relative to the base.
    pub path: String,
    /// Its URL, or its id where it has none.
    pub url: String,
    /// Its preset.
    pub preset: &'static str,
}

/// A secret, never its value.
#[derive(Debug, Clone)]
pub struct SecretView {
    /// Its id.
    pub id: String,
    /// Its name, or its number in the keyring.
    pub name: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// What it is now.
    pub status: SecretStatus,
    /// When it was made.
    pub created: When,
    /// Since when it is what it is.
    pub since: Option<When>,
    /// When it will be retired.
    pub retires: Option<When>,
    /// Since when it is known to have leaked.
    pub compromised: Option<When>,
}

impl User {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let url = endpoint.url.as_ref();
        Self {
            path: format!("apps/{}/endpoints/{}", endpoint.app, endpoint.id),
            url: url.map_or_else(|| endpoint.id.to_string(), |url| visible(url.as_str())),
            preset: endpoint.preset.as_str(),
        }
    }
}

impl Ring {
    /// A keyring and the endpoints that sign with it.
    fn new(keyring: &Keyring, users: &[Arc<Endpoint>], now: Timestamp, once: String) -> Self {
        let title = match keyring.owner {
            KeyringOwner::Shared => "Shared keyring".to_owned(),
            KeyringOwner::Endpoint { endpoint } => {
                let own = users.iter().find(|user| user.id == endpoint);
                own.map_or_else(|| endpoint.to_string(), |own| User::new(own).url)
            }
        };
        Self {
            id: keyring.id.to_string(),
            title,
            is_shared: keyring.owner == KeyringOwner::Shared,
            is_ed25519: keyring.kind == KeyKind::Ed25519,
            users: users.iter().map(|user| User::new(user)).collect(),
            version: keyring.version,
            seen: now.as_millis(),
            once,
        }
    }

    /// The keyring of that id with its endpoints.
    pub(super) async fn of(
        ui: &UiState,
        visitor: &Visitor,
        keyring: &Keyring,
    ) -> Result<Self, UiError> {
        let users = ui.service.keyring_endpoints(&visitor.caller, keyring.id);
        let users = users.await;
        let users = users.map_err(|error| UiError::service(&error, &visitor.base))?;
        let once = hex::encode(draw::<16>(ui.entropy.as_ref()));
        Ok(Self::new(keyring, &users, ui.clock.now(), once))
    }
}

impl SecretView {
    pub(super) fn new(secret: &SecretVersion, now: Timestamp) -> Self {
        let (since, retires) = match secret.state {
            SecretState::Pending => (None, None),
            SecretState::Active { since } => (Some(since), None),
            SecretState::Retiring { since, retire_at } if now < retire_at => {
                (Some(since), Some(retire_at))
            }
            SecretState::Retiring { retire_at: at, .. }
            | SecretState::Retired { at }
            | SecretState::Destroyed { at } => (Some(at), None),
        };
        let when = |at| When::new(at, now);
        let unnamed = || format!("Secret {}", secret.version);
        Self {
            id: secret.id.to_string(),
            name: secret.name.as_deref().map_or_else(unnamed, visible),
            fingerprint: secret.fingerprint.to_string(),
            status: secret.status(now),
            created: when(secret.created_at),
            since: since.map(when),
            retires: retires.map(when),
            compromised: secret.compromised.map(when),
        }
    }

    /// What the state means for deliveries, in a few words.
    pub fn meaning(&self) -> &'static str {
        match self.status {
            SecretStatus::Pending => "waits to be activated",
            SecretStatus::Active => "signs",
            SecretStatus::Retiring => "still signs beside the active one",
            SecretStatus::Retired => "signs no longer",
            SecretStatus::Destroyed => "erased",
        }
    }

    /// The class that colours the state.
    pub fn tone(&self) -> &'static str {
        match self.status {
            SecretStatus::Active if self.compromised.is_some() => "bad",
            SecretStatus::Active => "good",
            SecretStatus::Pending | SecretStatus::Retiring => "warn",
            SecretStatus::Retired | SecretStatus::Destroyed => "",
        }
    }

    /// Whether it waits to be activated.
    pub fn is_pending(&self) -> bool {
        self.status == SecretStatus::Pending
    }

    /// Whether it signs no longer and its value is still kept.
    pub fn is_retired(&self) -> bool {
        self.status == SecretStatus::Retired
    }

    /// Whether its value is erased.
    pub fn is_destroyed(&self) -> bool {
        self.status == SecretStatus::Destroyed
    }
}

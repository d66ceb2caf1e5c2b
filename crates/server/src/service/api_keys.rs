//! API keys: made, listed, revoked; and the first one of an empty store.
//!
//! A key's text is in the answer that makes it and nowhere else: its SHA-256 finds it again. No key
//! makes one that can do, reach or outlive more than itself.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Changes, Context, Subject};
use hookturn_core::id::{ApiKeyId, KeyringId, WorkspaceId, draw};
use hookturn_core::rotation::{KeyKind, Keyring, KeyringOwner};
use hookturn_core::store::{Page, Shown, Write};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{
    ApiKey, Environment, Reach, Scope, Scopes, Workspace, WorkspaceSettings, check_key_text,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::access::DEFAULT_WORKSPACE;
use super::page::Listed;
use super::{Caller, Decision, Recording, Service, ServiceError, check_name};

/// What a new key shall be.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// For people.
    pub name: String,
    /// What it can reach.
    pub reach: NewReach,
    /// What it may do; at least one.
    pub scopes: Scopes,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
}

/// What a new key can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewReach {
    /// Every workspace; only operators make these.
    Operator,
    /// The caller's workspace.
    Workspace(Environment),
}

/// A key and its text, shown once.
#[derive(Clone)]
pub struct NewKey {
    /// The key as it is stored.
    pub key: ApiKey,
    /// Its text.
    pub text: Zeroizing<String>,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("key", &self.key.id)
            .finish_non_exhaustive()
    }
}

/// A key and when it was last used.
#[derive(Debug, Clone)]
pub struct ListedKey {
    /// The key.
    pub key: Arc<ApiKey>,
    /// When it was last used, as far as known.
    pub last_used_at: Option<Timestamp>,
}

impl Service {
    /// Makes a key. Needs `manage`, and every scope that the new key gets.
    pub async fn create_api_key(
        &self,
        caller: &Caller,
        input: NewApiKey,
        recording: Option<Recording<'_, NewKey>>,
    ) -> Result<NewKey, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        for scope in input.scopes.iter() {
            self.require(caller, scope).await?;
        }
        if input.reach == NewReach::Operator {
            self.require_operator(caller).await?;
        }
        check_name("/name", &input.name)?;
        if input.scopes.is_empty() {
            return Err(ServiceError::invalid("/scopes", "at least one scope"));
        }
        self.change(caller, recording, |now| {
            check_expiry(caller, input.expires_at, now)?;
            let reach = match input.reach {
                NewReach::Operator => Reach::Operator,
                NewReach::Workspace(environment) => Reach::Workspace {
                    workspace: caller.workspace,
                    environment,
                },
            };
            let text = self.key_text(reach);
            let key = ApiKey {
                expires_at: input.expires_at,
                ..self.new_key(&text, &input.name, reach, input.scopes, now)
            };
            Ok(Decision {
                shows: Some(Shown::ApiKey(key.id)),
                writes: vec![Write::ApiKey(key.clone())],
                audit: vec![entry(AuditAction::ApiKeyCreated, &key)],
                out: NewKey { key, text },
            })
        })
        .await
    }

    /// A page of the keys that reach the caller's workspace, newest first; operators see theirs
    /// too. Needs `manage`.
    pub async fn api_keys(
        &self,
        caller: &Caller,
        page: Page<ApiKeyId>,
    ) -> Result<Listed<ListedKey>, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        let keys = self.live.api_keys().into_iter().rev();
        let visible = keys.filter(|key| is_visible(caller, key));
        let listed = Listed::of(visible, &page, |key| key.id);
        Ok(listed.map(|key| ListedKey {
            last_used_at: self.live.api_key_used_at(key.id),
            key,
        }))
    }

    /// One key that the caller sees in the list. Needs `manage`.
    pub async fn api_key(&self, caller: &Caller, id: ApiKeyId) -> Result<ListedKey, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        Ok(ListedKey {
            key: self.own_api_key(caller, id)?,
            last_used_at: self.live.api_key_used_at(id),
        })
    }

    /// Revokes a key, at once and for good. Revoking a revoked key changes nothing. Needs `manage` and no
    /// more, also for a key that may do more than the caller's: a key that leaked must die at the hands of
    /// whoever notices first, and nobody gains anything by it. Workspace keys do not see an operator's.
    pub async fn revoke_api_key(
        &self,
        caller: &Caller,
        id: ApiKeyId,
        recording: Option<Recording<'_, ApiKey>>,
    ) -> Result<ApiKey, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        self.change(caller, recording, |now| {
            let key = self.own_api_key(caller, id)?;
            if key.revoked_at.is_some() {
                return Ok(Decision {
                    shows: None,
                    writes: Vec::new(),
                    audit: Vec::new(),
                    out: ApiKey::clone(&key),
                });
            }
            let revoked = ApiKey {
                revoked_at: Some(now),
                version: key.version + 1,
                ..ApiKey::clone(&key)
            };
            Ok(Decision {
                shows: None,
                writes: vec![Write::ApiKey(revoked.clone())],
                audit: vec![entry(AuditAction::ApiKeyRevoked, &revoked)],
                out: revoked,
            })
        })
        .await
    }

    /// Gives a key another end. An earlier one needs `manage`; a later one also what it would need to
    /// make such a key, since that is what it amounts to. A revoked key stays revoked.
    pub async fn expire_api_key(
        &self,
        caller: &Caller,
        id: ApiKeyId,
        expires_at: Timestamp,
    ) -> Result<ListedKey, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        let known = self.own_api_key(caller, id)?;
        if known.expires_at.is_some_and(|expiry| expiry < expires_at) {
            for scope in known.scopes.iter() {
                self.require(caller, scope).await?;
            }
        }
        self.change(caller, None, |now| {
            let key = self.own_api_key(caller, id)?;
            if key.version != known.version {
                // What was checked above was of another version.
                let message = "the key was changed at the same time; try again";
                return Err(ServiceError::conflict("concurrent_change", message));
            }
            if key.revoked_at.is_some() {
                let message = "the key is revoked, which is for good: make another one";
                return Err(ServiceError::conflict("api_key_revoked", message));
            }
            check_expiry(caller, Some(expires_at), now)?;
            if key.expires_at == Some(expires_at) {
                return Ok(Decision::nothing(ListedKey {
                    key,
                    last_used_at: self.live.api_key_used_at(id),
                }));
            }
            let changed = ApiKey {
                expires_at: Some(expires_at),
                version: key.version + 1,
                ..ApiKey::clone(&key)
            };
            let audit = Changes::new()
                .optional(
                    "expiresAt",
                    key.expires_at.as_ref(),
                    changed.expires_at.as_ref(),
                )
                .write(entry(AuditAction::ApiKeyExpiryChanged, &changed));
            Ok(Decision {
                shows: None,
                writes: vec![Write::ApiKey(changed.clone())],
                audit: vec![audit],
                out: ListedKey {
                    key: Arc::new(changed),
                    last_used_at: self.live.api_key_used_at(id),
                },
            })
        })
        .await
    }

    fn own_api_key(&self, caller: &Caller, id: ApiKeyId) -> Result<Arc<ApiKey>, ServiceError> {
        let found = self.live.api_key(id);
        if let Some(foreign) = found.as_deref()
            && let Reach::Workspace { workspace, .. } = foreign.reach
            && workspace != caller.workspace
        {
            self.note_foreign(caller, workspace);
        }
        found
            .filter(|key| is_visible(caller, key))
            .ok_or(ServiceError::not_found("API key"))
    }

    /// A text for the first key of a store that has no workspace: an operator's. It is to be shown before
    /// [`Service::bootstrap`] makes the key.
    pub fn first_key_text(&self) -> Option<Zeroizing<String>> {
        let is_empty = self.live.workspaces().is_empty();
        is_empty.then(|| self.key_text(Reach::Operator))
    }

    /// Makes workspace `default` and a key with every scope, if the store has no workspace.
    ///
    /// A text that starts with `sk_operator_` makes an operator's key, any other a key of the
    /// workspace. Returns the key when it was made.
    pub async fn bootstrap(&self, text: String) -> Result<Option<NewKey>, ServiceError> {
        if !self.live.workspaces().is_empty() {
            return Ok(None);
        }
        let text = Zeroizing::new(text);
        check_bootstrap_text(&text)?;
        let now = self.clock.now();
        let workspace = WorkspaceId::new(now, self.entropy.as_ref());
        let context = Context {
            actor: Actor::Bootstrap,
            request_id: None,
            reason: None,
        };
        let made = self
            .commit(workspace, &context, None, |now| {
                let reach = reach_of(&text, workspace);
                let text = text.clone();
                let key = self.new_key(&text, "bootstrap", reach, Scopes::EVERY, now);
                let (mut writes, mut audit, _) =
                    self.new_workspace(workspace, DEFAULT_WORKSPACE, now);
                writes.push(Write::ApiKey(key.clone()));
                writes.push(self.first_mark_key());
                audit.push(entry(AuditAction::ApiKeyCreated, &key));
                Ok(Decision {
                    shows: None,
                    writes,
                    audit,
                    out: NewKey { key, text },
                })
            })
            .await;
        match made {
            Ok(key) => Ok(Some(key)),
            // Another node was first: the name is unique.
            Err(ServiceError::Conflict {
                code: "already_exists",
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The writes that make a workspace with its empty shared keyring.
    pub(super) fn new_workspace(
        &self,
        id: WorkspaceId,
        name: &str,
        now: Timestamp,
    ) -> (Vec<Write>, Vec<AuditEntry>, Workspace) {
        let keyring = Keyring {
            version: 1,
            ..Keyring::new(
                KeyringId::new(now, self.entropy.as_ref()),
                id,
                KeyringOwner::Shared,
                KeyKind::Symmetric,
            )
        };
        let workspace = Workspace {
            id,
            name: name.to_owned(),
            version: 1,
            shared_keyring: keyring.id,
            settings: WorkspaceSettings::default(),
            created_at: now,
            updated_at: now,
        };
        let subject = Subject {
            keyring: Some(keyring.id),
            ..Subject::default()
        };
        let audit = vec![
            AuditEntry::new(AuditAction::WorkspaceCreated, Subject::default()).with("name", name),
            AuditEntry::new(AuditAction::KeyringCreated, subject),
        ];
        let writes = vec![Write::Workspace(workspace.clone()), Write::Keyring(keyring)];
        (writes, audit, workspace)
    }

    fn new_key(
        &self,
        text: &str,
        name: &str,
        reach: Reach,
        scopes: Scopes,
        now: Timestamp,
    ) -> ApiKey {
        let tail = text.char_indices().rev().nth(3).map_or(0, |(at, _)| at);
        ApiKey {
            id: ApiKeyId::new(now, self.entropy.as_ref()),
            name: name.to_owned(),
            reach,
            scopes,
            hash: Sha256::digest(text.as_bytes()).into(),
            hint: text[tail..].to_owned(),
            created_at: now,
            expires_at: None,
            revoked_at: None,
            version: 1,
        }
    }

    /// The prefix of the reach and 256 random bits.
    fn key_text(&self, reach: Reach) -> Zeroizing<String> {
        let random = Zeroizing::new(draw::<32>(self.entropy.as_ref()));
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str(prefix_of(reach));
        URL_SAFE_NO_PAD.encode_string(random.as_slice(), &mut text);
        text
    }
}

const fn prefix_of(reach: Reach) -> &'static str {
    match reach {
        Reach::Operator => "sk_operator_",
        Reach::Workspace {
            environment: Environment::Test,
            ..
        } => "sk_workspace_test_",
        Reach::Workspace {
            environment: Environment::Prod,
            ..
        } => "sk_workspace_prod_",
    }
}

fn reach_of(text: &str, workspace: WorkspaceId) -> Reach {
    if text.starts_with("sk_operator_") {
        return Reach::Operator;
    }
    let environment = if text.starts_with("sk_workspace_prod_") {
        Environment::Prod
    } else {
        Environment::Test
    };
    Reach::Workspace {
        workspace,
        environment,
    }
}

fn is_visible(caller: &Caller, key: &ApiKey) -> bool {
    match key.reach {
        Reach::Operator => caller.key.reach == Reach::Operator,
        Reach::Workspace { workspace, .. } => workspace == caller.workspace,
    }
}

fn check_expiry(
    caller: &Caller,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), ServiceError> {
    const POINTER: &str = "/expiresAt";
    if expires_at.is_some_and(|expiry| expiry <= now) {
        return Err(ServiceError::invalid(POINTER, "must be in the future"));
    }
    match caller.key.expires_at {
        Some(own) if expires_at.is_none_or(|expiry| expiry > own) => Err(ServiceError::invalid(
            POINTER,
            format!("a key cannot outlive the key that makes it, which expires at {own}"),
        )),
        Some(_) | None => Ok(()),
    }
}

fn check_bootstrap_text(text: &str) -> Result<(), ServiceError> {
    check_key_text(text).map_err(|weak| ServiceError::invalid("", weak))
}

fn entry(action: AuditAction, key: &ApiKey) -> AuditEntry {
    let subject = Subject {
        api_key: Some(key.id),
        ..Subject::default()
    };
    let scopes: Vec<_> = key.scopes.iter().map(Scope::as_str).collect();
    let entry = AuditEntry::new(action, subject)
        .with("name", &key.name)
        .with("scopes", scopes.join(" "));
    let entry = match key.reach {
        Reach::Operator => entry.with("reach", "operator"),
        Reach::Workspace { environment, .. } => entry.with("reach", "workspace").with(
            "environment",
            match environment {
                Environment::Test => "test",
                Environment::Prod => "prod",
            },
        ),
    };
    match key.expires_at {
        Some(expiry) => entry.with("expiresAt", expiry),
        None => entry,
    }
}

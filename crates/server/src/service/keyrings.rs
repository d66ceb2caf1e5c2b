//! Keyrings and their secrets: KORE's *Create* and *Activate*, reveal, compromise.
//!
//! Every command goes through `core::rotation::apply` and is stored by comparing the keyring's
//! version, so that a keyring moves by whole commands only (G5).

use std::sync::Arc;

use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject};
use hookturn_core::endpoint::{Endpoint, EndpointState};
use hookturn_core::id::{KeyringId, RotationId, SecretId};
use hookturn_core::rotation::{
    Applied, Command, KeyKind, Keyring, KeyringOwner, Rejected, Rotation, SecretVersion, apply,
    default_overlap,
};
use hookturn_core::store::{Shown, Write};
use hookturn_core::time::{Millis, Timestamp};
use hookturn_core::workspace::{RevealPolicy, Scope};
use hookturn_verify::{PublicKey, Secret};
use tokio::sync::MutexGuard;
use zeroize::Zeroizing;

use super::{Caller, Decision, Recording, Service, ServiceError, check_text, check_version};

mod dissolve;
mod shared;
mod values;

pub(super) use dissolve::dissolve;
pub use shared::SharedPatch;
pub use values::SecretOnce;
pub(super) use values::{read_value, schemes_of, writes_of};

/// What a new secret shall be.
#[derive(Debug, Clone, Default)]
pub struct NewSecretInput {
    /// What its owner calls it.
    pub name: Option<String>,
    /// A value to import; generated without.
    pub value: Option<Zeroizing<String>>,
    /// How long the old secret stays after this one is activated, in milliseconds.
    pub overlap: Option<Millis>,
    /// Whether a pending secret may be destroyed to make room.
    pub replace_pending: bool,
    /// Why.
    pub reason: Option<String>,
}

/// A secret that was made.
#[derive(Debug, Clone)]
pub struct CreatedSecret {
    /// It, with its value.
    pub once: SecretOnce,
    /// The staged rotation that brings it; none for the first secret.
    pub rotation: Option<Rotation>,
    /// The keyring as it is now.
    pub keyring: Keyring,
}

/// A secret that changed.
#[derive(Debug, Clone)]
pub struct ChangedSecret {
    /// It.
    pub secret: SecretVersion,
    /// The keyring as it is now.
    pub keyring: Keyring,
}

impl Service {
    /// One keyring. Needs `read`.
    pub async fn keyring(
        &self,
        caller: &Caller,
        id: KeyringId,
    ) -> Result<Arc<Keyring>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        self.own_keyring(caller, id)
    }

    /// The keyrings of the workspace whose endpoints are not deleted, oldest first. Needs `read`.
    pub async fn keyrings(&self, caller: &Caller) -> Result<Vec<Arc<Keyring>>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let mut keyrings = self.live.keyrings(caller.workspace);
        keyrings.retain(|keyring| self.serves(keyring));
        Ok(keyrings)
    }

    /// The endpoints that sign with a keyring. Needs `read`.
    pub async fn keyring_endpoints(
        &self,
        caller: &Caller,
        id: KeyringId,
    ) -> Result<Vec<Arc<Endpoint>>, ServiceError> {
        let keyring = self.keyring(caller, id).await?;
        Ok(self.live.keyring_users(&keyring))
    }

    /// Whether a keyring's endpoint is there; a shared one always serves.
    pub(super) fn serves(&self, keyring: &Keyring) -> bool {
        match keyring.owner {
            KeyringOwner::Shared => true,
            KeyringOwner::Endpoint { endpoint } => self
                .live
                .endpoint(endpoint)
                .is_some_and(|e| !matches!(e.state, EndpointState::Deleted { .. })),
        }
    }

    /// The caller's keyring of that id, unless its endpoint is deleted.
    pub(super) fn own_keyring(
        &self,
        caller: &Caller,
        id: KeyringId,
    ) -> Result<Arc<Keyring>, ServiceError> {
        let found = self.live.keyring(id);
        if let Some(foreign) = found.as_deref()
            && foreign.workspace != caller.workspace
        {
            self.note_foreign(caller, foreign.workspace);
        }
        found
            .filter(|keyring| keyring.workspace == caller.workspace && self.serves(keyring))
            .ok_or(ServiceError::not_found("keyring"))
    }

    /// The secret of that id in a keyring of the caller's.
    fn own_secret(
        &self,
        caller: &Caller,
        keyring: &Keyring,
        id: SecretId,
    ) -> Result<SecretVersion, ServiceError> {
        let found = known_secret(keyring, id);
        if found.is_err() {
            self.note_foreign_secret(caller, id);
        }
        found
    }

    /// The turn of a keyring, whose past is written down first: what time did to its secrets is in the
    /// audit log as done by nobody, not as done by whoever comes next.
    pub(super) async fn keyring_turn(
        &self,
        id: KeyringId,
    ) -> Result<MutexGuard<'_, ()>, ServiceError> {
        let turn = self.keyring_turns.of(&id).await;
        if let Some(keyring) = self.live.keyring(id) {
            self.settle_keyring(&keyring).await?;
        }
        Ok(turn)
    }

    /// Makes or imports a secret: the first one is active at once, a later one pending in a staged
    /// rotation. Needs `secrets`.
    pub async fn create_secret(
        &self,
        caller: &Caller,
        keyring: KeyringId,
        input: NewSecretInput,
        if_match: Option<u64>,
        recording: Option<Recording<'_, CreatedSecret>>,
    ) -> Result<CreatedSecret, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        let caller = &check_words(caller, input.name.as_deref(), input.reason.as_deref())?;
        let turn = self.keyring_turn(keyring).await?;
        self.change_in_turn(turn, caller, recording, |now| {
            let keyring = self.own_keyring(caller, keyring)?;
            check_version(if_match, keyring.version)?;
            let value = self.value_for(&keyring, input.value.as_ref())?;
            let secret = self.named(&value, input.name.clone(), now);
            let id = secret.id;
            let command = Command::CreateSecret {
                secret,
                rotation: RotationId::new(now, self.entropy.as_ref()),
                overlap: input
                    .overlap
                    .unwrap_or_else(|| self.default_overlap(&keyring)),
                replace_pending: input.replace_pending,
                reason: caller.reason.clone(),
            };
            let applied = apply(&keyring, command, now)?;
            let rotation = applied.rotations.iter().find(|r| r.to == id).cloned();
            self.with_new_secret(applied, id, value, |once, keyring| CreatedSecret {
                once,
                rotation,
                keyring,
            })
        })
        .await
    }

    /// Makes a pending secret the active one. Needs `secrets`.
    pub async fn activate_secret(
        &self,
        caller: &Caller,
        keyring: KeyringId,
        secret: SecretId,
        overlap: Option<Millis>,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ChangedSecret>>,
    ) -> Result<ChangedSecret, ServiceError> {
        let command = Command::Activate { secret, overlap };
        self.command_on_secret(caller, keyring, secret, command, if_match, recording)
            .await
    }

    /// Marks a secret as leaked; what that does to it, `apply` says. Needs `secrets`.
    pub async fn compromise_secret(
        &self,
        caller: &Caller,
        keyring: KeyringId,
        secret: SecretId,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ChangedSecret>>,
    ) -> Result<ChangedSecret, ServiceError> {
        let command = Command::Compromise { secret };
        self.command_on_secret(caller, keyring, secret, command, if_match, recording)
            .await
    }

    /// Erases the value of a retired secret. Needs `secrets`.
    pub async fn destroy_secret(
        &self,
        caller: &Caller,
        keyring: KeyringId,
        secret: SecretId,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ChangedSecret>>,
    ) -> Result<ChangedSecret, ServiceError> {
        let command = Command::Destroy { secret };
        self.command_on_secret(caller, keyring, secret, command, if_match, recording)
            .await
    }

    /// Changes what a secret is called. What is so already changes nothing, the keyring's version included.
    /// Needs `secrets`.
    pub async fn rename_secret(
        &self,
        caller: &Caller,
        keyring: KeyringId,
        secret: SecretId,
        name: Option<String>,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ChangedSecret>>,
    ) -> Result<ChangedSecret, ServiceError> {
        if let Some(name) = &name {
            check_text("/name", name)?;
        }
        let command = Command::Rename { secret, name };
        self.command_on_secret(caller, keyring, secret, command, if_match, recording)
            .await
    }

    async fn command_on_secret(
        &self,
        caller: &Caller,
        keyring: KeyringId,
        secret: SecretId,
        command: Command,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ChangedSecret>>,
    ) -> Result<ChangedSecret, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        let turn = self.keyring_turn(keyring).await?;
        self.change_in_turn(turn, caller, recording, |now| {
            let keyring = self.own_keyring(caller, keyring)?;
            check_version(if_match, keyring.version)?;
            let known = self.own_secret(caller, &keyring, secret)?;
            if is_called_so_already(&command, &known) {
                return Ok(Decision::nothing(ChangedSecret {
                    secret: known,
                    keyring: Keyring::clone(&keyring),
                }));
            }
            let applied = apply(&keyring, command.clone(), now)?;
            let writes = writes_of(&applied);
            // A command never forgets the secret it names.
            let secret = known_secret(&applied.keyring, secret)?;
            Ok(Decision {
                shows: None,
                writes,
                audit: applied.audit,
                out: ChangedSecret {
                    secret,
                    keyring: applied.keyring,
                },
            })
        })
        .await
    }

    /// The value of a secret, if the workspace's policy lets it be seen again. The reveal is in the
    /// audit log before the value leaves. Needs `secrets`.
    pub async fn reveal_secret(
        &self,
        caller: &Caller,
        keyring: KeyringId,
        secret: SecretId,
    ) -> Result<SecretOnce, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        let keyring = self.own_keyring(caller, keyring)?;
        let secret = self.own_secret(caller, &keyring, secret)?;
        match self.own_workspace(caller)?.settings.reveal_secrets {
            RevealPolicy::Allowed => {}
            RevealPolicy::Never => {
                self.note_unshown(caller, Some(secret.id)).await;
                return Err(ServiceError::conflict(
                    "reveal_disabled",
                    "this workspace never shows a secret again: a lost one is replaced by a rotation",
                ));
            }
        }
        let Some(value) = self.unseal(secret.id)? else {
            return Err(ServiceError::conflict(
                "secret_destroyed",
                format!("the value of secret {} is erased", secret.id),
            ));
        };
        self.store
            .audit(
                caller.workspace,
                caller.context(),
                vec![revealed(keyring.id, &secret)],
                self.clock.now(),
            )
            .await?;
        Ok(SecretOnce { secret, value })
    }

    /// The public half of an Ed25519 secret, which receivers verify with; `None` for a symmetric or
    /// a destroyed one. Needs `read`.
    pub async fn public_key(
        &self,
        caller: &Caller,
        keyring: KeyringId,
        secret: SecretId,
    ) -> Result<Option<PublicKey>, ServiceError> {
        let keyring = self.keyring(caller, keyring).await?;
        let secret = self.own_secret(caller, &keyring, secret)?;
        match keyring.kind {
            KeyKind::Symmetric => Ok(None),
            KeyKind::Ed25519 => Ok(self.unseal(secret.id)?.and_then(|value| value.public_key())),
        }
    }

    /// Writes down what time has done to keyrings, if this node leads: retired secrets, completed rotations; and how many
    /// denied attempts were left out of the audit log. Returns how many keyrings changed. Signing
    /// never waits for it.
    pub async fn settle(&self) -> Result<usize, ServiceError> {
        self.settle_denials().await;
        if !self.store.leads() {
            return Ok(0);
        }
        let mut settled = 0;
        for keyring in self.live.to_settle(self.clock.now()) {
            settled += usize::from(self.settle_keyring(&keyring).await?);
        }
        Ok(settled)
    }

    /// The same for one keyring. Returns whether it changed.
    async fn settle_keyring(&self, keyring: &Keyring) -> Result<bool, ServiceError> {
        let now = self.clock.now();
        if keyring.settle_due_at().is_none_or(|due| due > now) {
            return Ok(false);
        }
        let context = Context {
            actor: Actor::System,
            request_id: None,
            reason: Some("its time has come".to_owned()),
        };
        let done = self
            .commit(keyring.workspace, &context, None, |now| {
                let keyring = self
                    .live
                    .keyring(keyring.id)
                    .ok_or(ServiceError::not_found("keyring"))?;
                let applied = apply(&keyring, Command::Settle, now)?;
                Ok(Decision {
                    shows: None,
                    writes: writes_of(&applied),
                    audit: self.with_knowledge(&applied, now),
                    out: (),
                })
            })
            .await;
        match done {
            Ok(()) => Ok(true),
            // Another command settled it on its way.
            Err(ServiceError::Rejected(Rejected::NothingToSettle)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The overlap of a rotation that names none: see `core::rotation::default_overlap`.
    pub fn default_overlap(&self, keyring: &Keyring) -> Millis {
        let horizons = self
            .live
            .keyring_users(keyring)
            .into_iter()
            .map(|endpoint| endpoint.retry.horizon(endpoint.timeout_millis));
        default_overlap(horizons.max().unwrap_or(0))
    }

    /// The value for a new secret of a keyring: the given one if all its endpoints can sign with
    /// it, or a generated one.
    pub(super) fn value_for(
        &self,
        keyring: &Keyring,
        given: Option<&Zeroizing<String>>,
    ) -> Result<Secret, ServiceError> {
        let users = self.live.keyring_users(keyring);
        let schemes = schemes_of(users.iter().map(AsRef::as_ref));
        let given = read_value(given, keyring.kind, schemes)?;
        Ok(self.new_value(given.as_ref(), keyring.kind))
    }

    /// The decision of a command that brought a new secret and answers with it: its writes and the
    /// sealed value.
    pub(super) fn with_new_secret<T>(
        &self,
        applied: Applied,
        id: SecretId,
        value: Secret,
        out: impl FnOnce(SecretOnce, Keyring) -> T,
    ) -> Result<Decision<T>, ServiceError> {
        let secret = known_secret(&applied.keyring, id)?;
        let mut writes = writes_of(&applied);
        writes.push(Write::Secret(self.seal(&applied.keyring, &secret, &value)));
        writes.extend(self.marking(&applied.keyring, id, &value)?);
        Ok(Decision {
            shows: Some(Shown::Secret {
                id,
                fingerprint: secret.fingerprint,
            }),
            writes,
            audit: applied.audit,
            out: out(SecretOnce { secret, value }, applied.keyring),
        })
    }
}

/// Checks the words that come with a new secret. The reason is the caller's for this one call, so
/// that it stands in every audit entry of it; without one, it is that of the whole request.
pub(crate) fn check_words(
    caller: &Caller,
    name: Option<&str>,
    reason: Option<&str>,
) -> Result<Caller, ServiceError> {
    if let Some(name) = name {
        check_text("/name", name)?;
    }
    caller.because(reason)
}

/// Whether a command gives a secret the name it has.
fn is_called_so_already(command: &Command, known: &SecretVersion) -> bool {
    matches!(command, Command::Rename { name, .. } if *name == known.name)
}

/// The secret of that id in a keyring.
fn known_secret(keyring: &Keyring, id: SecretId) -> Result<SecretVersion, ServiceError> {
    keyring
        .secret(id)
        .cloned()
        .ok_or(ServiceError::not_found("secret"))
}

/// What is recorded when a secret's value is shown.
pub(super) fn revealed(keyring: KeyringId, secret: &SecretVersion) -> AuditEntry {
    let subject = Subject {
        keyring: Some(keyring),
        secret: Some(secret.id),
        ..Subject::default()
    };
    let mut entry = AuditEntry::new(AuditAction::SecretRevealed, subject);
    entry.fingerprint = Some(secret.fingerprint);
    entry
}

/// A rotation with its stage as it is at `now`.
pub(super) fn as_of(mut rotation: Rotation, now: Timestamp) -> Rotation {
    rotation.stage = rotation.stage.at(now);
    rotation
}

//! The workspace's shared keyring as KORE's API knows it: one active secret, at most one pending,
//! and nothing else.
//!
//! The rules are those of every keyring; what differs is how little is asked. A new secret takes
//! the place of a pending one without a question, and activating one stops the old one at once. Whoever
//! wants an overlap uses the native API on the same keyring.

use hookturn_core::id::SecretId;
use hookturn_core::rotation::{Command, Keyring, SecretStatus, apply_all};

use super::{
    Arc, Caller, ChangedSecret, CreatedSecret, Decision, NewSecretInput, Recording, Scope, Service,
    ServiceError, known_secret, writes_of,
};
use crate::service::check_name;

/// What shall change about a secret of the shared keyring.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedPatch {
    /// What it shall be called.
    pub name: Option<String>,
    /// Whether it shall be the active one.
    pub activate: bool,
}

impl Service {
    /// The workspace's shared keyring. Needs `read`.
    pub async fn shared_keyring(&self, caller: &Caller) -> Result<Arc<Keyring>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        self.own_shared_keyring(caller)
    }

    fn own_shared_keyring(&self, caller: &Caller) -> Result<Arc<Keyring>, ServiceError> {
        let workspace = self.own_workspace(caller)?;
        self.own_keyring(caller, workspace.shared_keyring)
    }

    /// Makes a secret: the first one is active, a later one pending in the place of the one that was.
    /// Needs `secrets`.
    pub async fn create_shared_secret(
        &self,
        caller: &Caller,
        name: String,
        recording: Option<Recording<'_, CreatedSecret>>,
    ) -> Result<CreatedSecret, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        check_name("/name", &name)?;
        let keyring = self.own_workspace(caller)?.shared_keyring;
        let input = NewSecretInput {
            name: Some(name),
            value: None,
            overlap: Some(0),
            replace_pending: true,
            reason: None,
        };
        self.create_secret(caller, keyring, input, None, recording)
            .await
    }

    /// Renames a secret, makes it the active one, or both as one change. What is so already stays as
    /// it is. Needs `secrets`.
    pub async fn change_shared_secret(
        &self,
        caller: &Caller,
        secret: SecretId,
        patch: SharedPatch,
    ) -> Result<ChangedSecret, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        if let Some(name) = &patch.name {
            check_name("/name", name)?;
        }
        let keyring = self.own_workspace(caller)?.shared_keyring;
        let turn = self.keyring_turn(keyring).await?;
        self.change_in_turn(turn, caller, None, |now| {
            let keyring = self.own_shared_keyring(caller)?;
            let known = self.own_secret(caller, &keyring, secret)?;
            let status = known.status(now);
            let mut commands = Vec::new();
            match status {
                SecretStatus::Pending if patch.activate => commands.push(Command::Activate {
                    secret,
                    overlap: Some(0),
                }),
                SecretStatus::Active | SecretStatus::Pending => {}
                SecretStatus::Retiring | SecretStatus::Retired | SecretStatus::Destroyed => {
                    let message = format!(
                        "secret {secret} is {status}: only the active and the pending secret can be changed"
                    );
                    return Err(ServiceError::conflict("secret_disabled", message));
                }
            }
            if let Some(name) = patch.name.as_ref()
                && known.name.as_ref() != Some(name)
            {
                let name = Some(name.clone());
                commands.push(Command::Rename { secret, name });
            }
            if commands.is_empty() {
                return Ok(Decision::nothing(ChangedSecret {
                    secret: known,
                    keyring: Keyring::clone(&keyring),
                }));
            }
            let applied = apply_all(&keyring, commands, now)?;
            Ok(Decision {
                shows: None,
                writes: writes_of(&applied),
                out: ChangedSecret {
                    secret: known_secret(&applied.keyring, secret)?,
                    keyring: applied.keyring,
                },
                audit: applied.audit,
            })
        })
        .await
    }
}

//! Rotations: moves of a keyring from its active secret to the next.
//!
//! A rotation is found by its id alone; what may be done to it, the rotation machine decides.

use hookturn_core::id::{KeyringId, RotationId};
use hookturn_core::proof::ProofPolicy;
use hookturn_core::rotation::{Command, Grounds, Keyring, Mode, Rejected, Rotation, apply};
use hookturn_core::store::Page;
use hookturn_core::time::{Millis, Timestamp};
use hookturn_core::workspace::Scope;
use zeroize::Zeroizing;

use super::keyrings::{SecretOnce, as_of, check_words, writes_of};
use super::page::{Listed, fetch};
use super::{Caller, Decision, Recording, Service, ServiceError, check_version};

/// How a rotation shall move; [`Mode`] without its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeName {
    /// See [`Mode::Immediate`].
    Immediate,
    /// See [`Mode::Overlap`].
    Overlap,
    /// See [`Mode::Staged`].
    Staged,
    /// See [`Mode::Proven`].
    Proven,
}

/// What a new rotation shall be.
#[derive(Debug, Clone)]
pub struct NewRotation {
    /// How it moves.
    pub mode: ModeName,
    /// How long the old secret stays, in milliseconds; the keyring's default without.
    pub overlap: Option<Millis>,
    /// For mode `proven`: how much proof is enough; the default without.
    pub policy: Option<ProofPolicy>,
    /// For mode `proven`: when the old secret goes at the latest, in place of the policy's time from now.
    pub deadline_at: Option<Timestamp>,
    /// What the new secret is called.
    pub name: Option<String>,
    /// A value to import; generated without.
    pub value: Option<Zeroizing<String>>,
    /// Why.
    pub reason: Option<String>,
}

/// A rotation that was opened, with the new secret's value.
#[derive(Debug, Clone)]
pub struct OpenedRotation {
    /// It, as it is now.
    pub rotation: Rotation,
    /// The new secret.
    pub once: SecretOnce,
    /// The keyring as it is now.
    pub keyring: Keyring,
}

/// A rotation that changed.
#[derive(Debug, Clone)]
pub struct ChangedRotation {
    /// It, as it is now.
    pub rotation: Rotation,
    /// The keyring as it is now.
    pub keyring: Keyring,
}

/// Which rotations to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RotationFilter {
    /// Only of this keyring.
    pub keyring: Option<KeyringId>,
    /// Only open ones.
    pub open: bool,
}

impl Service {
    /// Opens a rotation. Needs `secrets`.
    pub async fn open_rotation(
        &self,
        caller: &Caller,
        keyring: KeyringId,
        input: NewRotation,
        if_match: Option<u64>,
        recording: Option<Recording<'_, OpenedRotation>>,
    ) -> Result<OpenedRotation, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        let input = with_deadline(input, self.clock.now())?;
        check_numbers(&input)?;
        let caller = &check_words(caller, input.name.as_deref(), input.reason.as_deref())?;
        let turn = self.keyring_turn(keyring).await?;
        self.change_in_turn(turn, caller, recording, |now| {
            let keyring = self.own_keyring(caller, keyring)?;
            check_version(if_match, keyring.version)?;
            let value = self.value_for(&keyring, input.value.as_ref())?;
            let secret = self.named(&value, input.name.clone(), now);
            let secret_id = secret.id;
            let id = RotationId::new(now, self.entropy.as_ref());
            let mode = self.mode_for(&keyring, &input);
            self.check_provable(&keyring, mode, now)?;
            let command = Command::Rotate {
                rotation: id,
                mode,
                secret,
                reason: caller.reason.clone(),
            };
            let applied = apply(&keyring, command, now)?;
            let rotation = opened(&applied.rotations, id, now)?;
            self.with_new_secret(applied, secret_id, value, |once, keyring| OpenedRotation {
                rotation,
                once,
                keyring,
            })
        })
        .await
    }

    fn mode_for(&self, keyring: &Keyring, input: &NewRotation) -> Mode {
        let overlap = || {
            input
                .overlap
                .unwrap_or_else(|| self.default_overlap(keyring))
        };
        match input.mode {
            ModeName::Immediate => Mode::Immediate,
            ModeName::Overlap => Mode::Overlap { overlap: overlap() },
            ModeName::Staged => Mode::Staged { overlap: overlap() },
            ModeName::Proven => {
                let policy = input.policy.unwrap_or_default();
                Mode::Proven { policy }
            }
        }
    }

    /// One rotation. Needs `read`.
    pub async fn rotation(
        &self,
        caller: &Caller,
        id: RotationId,
    ) -> Result<Rotation, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let now = self.clock.now();
        Ok(as_of(self.stored_rotation(caller, id).await?, now))
    }

    pub(super) async fn stored_rotation(
        &self,
        caller: &Caller,
        id: RotationId,
    ) -> Result<Rotation, ServiceError> {
        let found = self.store.rotation(caller.workspace, id).await?;
        if found.is_none() {
            self.note_foreign_rotation(caller, id);
        }
        found
            .filter(|rotation| rotation.workspace == caller.workspace)
            .ok_or(ServiceError::not_found("rotation"))
    }

    /// A page of rotations, newest first. Needs `read`.
    pub async fn rotations(
        &self,
        caller: &Caller,
        filter: RotationFilter,
        page: Page<RotationId>,
    ) -> Result<Listed<Rotation>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        if let Some(keyring) = filter.keyring {
            self.own_keyring(caller, keyring)?;
        }
        let now = self.clock.now();
        if filter.open {
            return Ok(self.open_rotations(caller, filter.keyring, page, now));
        }
        let (wider, limit) = fetch(page);
        let found = self
            .store
            .rotations(caller.workspace, filter.keyring, wider)
            .await?;
        Ok(Listed::cut(found, limit).map(|rotation| as_of(rotation, now)))
    }

    fn open_rotations(
        &self,
        caller: &Caller,
        keyring: Option<KeyringId>,
        page: Page<RotationId>,
        now: Timestamp,
    ) -> Listed<Rotation> {
        let keyrings = self.live.keyrings(caller.workspace);
        let mut open: Vec<_> = keyrings
            .iter()
            .filter(|found| keyring.is_none_or(|wanted| wanted == found.id))
            .filter_map(|keyring| keyring.open_rotation(now).cloned())
            .collect();
        open.sort_by_key(|rotation| std::cmp::Reverse(rotation.id));
        Listed::of(open, &page, |rotation| rotation.id)
    }

    /// Makes the pending secret of a staged rotation the active one. In mode `proven` that takes the
    /// proof as it stands now, or `force`, which is in the audit log. Needs `secrets`.
    pub async fn promote_rotation(
        &self,
        caller: &Caller,
        rotation: RotationId,
        force: bool,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ChangedRotation>>,
    ) -> Result<ChangedRotation, ServiceError> {
        let command = |keyring: &Keyring, now| Command::Promote {
            rotation,
            grounds: if force {
                Grounds::Force
            } else {
                self.grounds_now(keyring, now)
            },
        };
        self.command_on_rotation(caller, rotation, command, if_match, recording)
            .await
    }

    /// Lets the retiring secret sign until a later time. Needs `secrets`.
    pub async fn extend_rotation(
        &self,
        caller: &Caller,
        rotation: RotationId,
        retire_at: Timestamp,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ChangedRotation>>,
    ) -> Result<ChangedRotation, ServiceError> {
        let command = |_: &Keyring, _| Command::Extend {
            rotation,
            retire_at,
            is_asked: true,
        };
        self.command_on_rotation(caller, rotation, command, if_match, recording)
            .await
    }

    /// Makes the old secret active again. Needs `secrets`.
    pub async fn undo_rotation(
        &self,
        caller: &Caller,
        rotation: RotationId,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ChangedRotation>>,
    ) -> Result<ChangedRotation, ServiceError> {
        let command = |_: &Keyring, _| Command::Undo { rotation };
        self.command_on_rotation(caller, rotation, command, if_match, recording)
            .await
    }

    /// Retires the retiring secret now. When this is answered no signer of this node signs with it.
    /// Needs `secrets`.
    pub async fn finish_rotation(
        &self,
        caller: &Caller,
        rotation: RotationId,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ChangedRotation>>,
    ) -> Result<ChangedRotation, ServiceError> {
        let command = |_: &Keyring, _| Command::Finish { rotation };
        self.command_on_rotation(caller, rotation, command, if_match, recording)
            .await
    }

    /// Drops the pending secret of a staged rotation. Needs `secrets`.
    pub async fn cancel_rotation(
        &self,
        caller: &Caller,
        rotation: RotationId,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ChangedRotation>>,
    ) -> Result<ChangedRotation, ServiceError> {
        let command = |_: &Keyring, _| Command::Cancel { rotation };
        self.command_on_rotation(caller, rotation, command, if_match, recording)
            .await
    }

    async fn command_on_rotation(
        &self,
        caller: &Caller,
        id: RotationId,
        command: impl Fn(&Keyring, Timestamp) -> Command + Send + Sync,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ChangedRotation>>,
    ) -> Result<ChangedRotation, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        // A rotation never changes its keyring; everything else is read again on every try.
        let keyring = self.stored_rotation(caller, id).await?.keyring;
        let turn = self.keyring_turn(keyring).await?;
        self.change_in_turn(turn, caller, recording, |now| {
            let keyring = self.own_keyring(caller, keyring)?;
            check_version(if_match, keyring.version)?;
            let applied = apply(&keyring, command(&keyring, now), now)?;
            let rotation = opened(&applied.rotations, id, now)?;
            Ok(Decision {
                shows: None,
                writes: writes_of(&applied),
                audit: self.with_knowledge(&applied, now),
                out: ChangedRotation {
                    rotation,
                    keyring: applied.keyring,
                },
            })
        })
        .await
    }
}

/// The same with its deadline as the policy says it: a span from the opening.
fn with_deadline(input: NewRotation, now: Timestamp) -> Result<NewRotation, ServiceError> {
    let Some(deadline) = input.deadline_at else {
        return Ok(input);
    };
    let refused = |message| Err(ServiceError::invalid("/deadlineAt", message));
    if input.mode != ModeName::Proven {
        return refused("belongs to mode proven: use overlapSeconds with another mode");
    }
    if deadline <= now {
        return refused("must be later than now");
    }
    let policy = ProofPolicy {
        deadline_millis: deadline.since(now),
        ..input.policy.unwrap_or_default()
    };
    match policy.check() {
        Err(invalid) if invalid.field == "deadlineMillis" => refused(invalid.reason),
        Err(_) | Ok(()) => Ok(NewRotation {
            deadline_at: None,
            policy: Some(policy),
            ..input
        }),
    }
}

/// Checks the numbers of a new rotation before anything is looked at: what cannot work is refused
/// with its field, whatever the keyring is like.
fn check_numbers(input: &NewRotation) -> Result<(), ServiceError> {
    let overlap = |message| Err(ServiceError::invalid("/overlapSeconds", message));
    match input.mode {
        ModeName::Immediate if input.overlap.is_some_and(|overlap| overlap > 0) => {
            overlap("an immediate rotation has no overlap: use mode overlap")
        }
        ModeName::Proven if input.overlap.is_some() => {
            overlap("mode proven takes its times from its policy: quietMillis and deadlineMillis")
        }
        ModeName::Immediate | ModeName::Overlap | ModeName::Staged if input.policy.is_some() => {
            let message = "belongs to mode proven: leave it out with another mode";
            Err(ServiceError::invalid("/policy", message))
        }
        ModeName::Immediate | ModeName::Overlap | ModeName::Staged | ModeName::Proven => {
            let checked = input.policy.map_or(Ok(()), |policy| policy.check());
            checked.map_err(|invalid| Rejected::InvalidPolicy(invalid).into())
        }
    }
}

/// The rotation of that id among those a command wrote: the machine returns every one it touched.
fn opened(
    rotations: &[Rotation],
    id: RotationId,
    now: Timestamp,
) -> Result<Rotation, ServiceError> {
    rotations
        .iter()
        .find(|rotation| rotation.id == id)
        .map(|rotation| as_of(rotation.clone(), now))
        .ok_or(ServiceError::not_found("rotation"))
}

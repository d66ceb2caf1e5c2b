//! The state machine: one command on one keyring, decided whole.

use std::fmt::Display;

use super::{
    Command, Keyring, Mode, NewSecret, Rejected, Rotation, SecretState, SecretStatus,
    SecretVersion, Stage,
};
use crate::audit::{AuditAction, AuditEntry, Subject};
use crate::id::{RotationId, SecretId};
use crate::limits;
use crate::time::{Millis, Timestamp};

/// What a command changed: everything that is to be stored in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The keyring as it is now; its version is one more than before.
    pub keyring: Keyring,
    /// The rotations that are new or changed, oldest first: at most two (one ends, one opens).
    pub rotations: Vec<Rotation>,
    /// The secrets whose sealed values are to be erased.
    pub destroyed: Vec<SecretId>,
    /// What was done, in order.
    pub audit: Vec<AuditEntry>,
}

/// Decides what `command` does to `keyring` at `now`.
///
/// 1. First what time has done is written down: a secret past its `retireAt` is retired (as of
///    that moment) and its rotation completed. A refused command writes down nothing, this
///    included; `Settle` alone is refused when there is nothing to write down.
/// 2. *Create*: the first secret of a keyring becomes active at once, without a rotation. Every
///    later one becomes pending and opens a staged rotation. While another is pending it is
///    refused, unless asked to replace: then the pending one is destroyed and its rotation
///    cancelled. While an overlap is open it is refused.
/// 3. *Rotate* is refused without an active secret and, in every mode but `immediate`, while a
///    rotation is open: a live secret is never thrown away by accident. `overlap` makes the new
///    secret active and the old one retiring; `staged` makes the new one pending.
/// 4. *Rotate immediate* is never refused for what is open, for it is the answer to a leak:
///    afterwards the new secret is the only one that signs. The active and a retiring secret are
///    retired at once, an open overlap thereby completed; a pending one is destroyed, its rotation
///    cancelled.
/// 5. *Activate* and *promote* make the pending secret active and the old one retiring for the
///    rotation's overlap (activate may name another); with an overlap of 0 the old one is
///    retired at once and the rotation is completed.
/// 6. *Extend* moves the end of the retiring secret to a later time, at most the longest overlap
///    from now. *Finish* retires it now. Both also work on the secret that an undo left retiring.
/// 7. *Undo* is the same move backwards with the same overlap: the old secret is active again, the
///    new one retires when the rotation's overlap has passed from now (at once for 0). Until then
///    it only serves receivers that had switched, as co-signer or fallback. It is refused unless
///    this is the latest rotation, is in overlap or completed, and the old secret is neither
///    destroyed nor compromised. The rotation is over: the next one may start at once, and retires
///    the undone secret if it is still retiring, since its owner has given it up.
/// 8. *Cancel* destroys the pending secret; it never becomes active.
/// 9. *Compromise* marks a secret. An active one goes on signing alone until it is rotated away:
///    silence would lose messages. A retiring one is retired at once and a pending one destroyed,
///    with the end of their rotation, because a compromised secret neither co-signs nor is a
///    fallback. Rotating away from or undoing a compromised secret retires it at once.
/// 10. *Destroy* erases a retired secret. *Rename* changes a name.
/// 11. A secret whose id or fingerprint the keyring remembers cannot be added again, so that a
///     secret that must not sign does not come back as a new one.
/// 12. A keyring that remembers as many secrets as it may forgets its oldest destroyed one, and
///     destroys its oldest retired one for that if need be; adding a secret is never refused.
pub fn apply(keyring: &Keyring, command: Command, now: Timestamp) -> Result<Applied, Rejected> {
    let mut change = Change::new(keyring, now);
    let settled = change.settle();
    match command {
        Command::CreateSecret {
            secret,
            rotation,
            overlap,
            replace_pending,
            reason,
        } => change.create(secret, rotation, overlap, replace_pending, reason)?,
        Command::Rotate {
            rotation,
            mode,
            secret,
            reason,
        } => change.rotate(rotation, mode, secret, reason)?,
        Command::Activate { secret, overlap } => change.activate(secret, overlap)?,
        Command::Promote { rotation } => {
            let rotation = change.latest_staged(rotation)?;
            change.promote(rotation);
        }
        Command::Extend {
            rotation,
            retire_at,
        } => change.extend(rotation, retire_at)?,
        Command::Finish { rotation } => change.finish(rotation)?,
        Command::Undo { rotation } => change.undo(rotation)?,
        Command::Cancel { rotation } => {
            let rotation = change.latest_staged(rotation)?;
            change.cancel(rotation, "cancelled");
        }
        Command::Compromise { secret } => change.compromise(secret)?,
        Command::Destroy { secret } => change.destroy(secret)?,
        Command::Rename { secret, name } => change.rename(secret, name)?,
        Command::Settle if settled => {}
        Command::Settle => return Err(Rejected::NothingToSettle),
    }
    Ok(change.into_applied())
}

/// A keyring in the middle of one command.
struct Change {
    now: Timestamp,
    keyring: Keyring,
    rotations: Vec<Rotation>,
    destroyed: Vec<SecretId>,
    audit: Vec<AuditEntry>,
}

/// The commands, in the order of the list above.
impl Change {
    fn new(keyring: &Keyring, now: Timestamp) -> Self {
        let mut keyring = keyring.clone();
        keyring.version += 1;
        Self {
            now,
            keyring,
            rotations: Vec::new(),
            destroyed: Vec::new(),
            audit: Vec::new(),
        }
    }

    fn into_applied(self) -> Applied {
        Applied {
            keyring: self.keyring,
            rotations: self.rotations,
            destroyed: self.destroyed,
            audit: self.audit,
        }
    }

    fn settle(&mut self) -> bool {
        let due: Vec<(SecretId, Timestamp)> = self
            .keyring
            .secrets
            .iter()
            .filter_map(|secret| match secret.state {
                SecretState::Retiring { retire_at, .. } if self.now >= retire_at => {
                    Some((secret.id, retire_at))
                }
                SecretState::Retiring { .. }
                | SecretState::Pending
                | SecretState::Active { .. }
                | SecretState::Retired { .. }
                | SecretState::Destroyed { .. } => None,
            })
            .collect();
        for &(secret, retire_at) in &due {
            self.retire(secret, retire_at, "expired");
        }
        !due.is_empty()
    }

    fn create(
        &mut self,
        secret: NewSecret,
        rotation: RotationId,
        overlap: Millis,
        replace_pending: bool,
        reason: Option<String>,
    ) -> Result<(), Rejected> {
        check_text("reason", reason.as_deref())?;
        check_overlap(overlap)?;
        self.check_new(&secret)?;
        let Some(active) = self.keyring.active().map(|active| active.id) else {
            let state = SecretState::Active { since: self.now };
            self.add(secret, state);
            return Ok(());
        };
        if let Some(open) = self.keyring.open_rotation(self.now).cloned() {
            match open.stage {
                Stage::Staged if replace_pending => {
                    self.audit_secret(open.to, AuditAction::SecretReplaced, &[("by", &secret.id)]);
                    self.cancel(open, "replaced");
                }
                Stage::Staged => {
                    return Err(Rejected::PendingExists {
                        secret: open.to,
                        rotation: open.id,
                    });
                }
                Stage::Overlap { .. }
                | Stage::Completed { .. }
                | Stage::Cancelled { .. }
                | Stage::Undone { .. } => return Err(rotation_open(&open)),
            }
        }
        self.open(rotation, Mode::Staged { overlap }, active, secret, reason);
        Ok(())
    }

    fn rotate(
        &mut self,
        rotation: RotationId,
        mode: Mode,
        secret: NewSecret,
        reason: Option<String>,
    ) -> Result<(), Rejected> {
        check_text("reason", reason.as_deref())?;
        check_overlap(mode.overlap())?;
        self.check_new(&secret)?;
        let Some(active) = self.keyring.active().map(|active| active.id) else {
            return Err(Rejected::NoActiveSecret);
        };
        let open = self.keyring.open_rotation(self.now).cloned();
        match (mode, open) {
            (Mode::Proven, _) => {
                return Err(Rejected::ModeNotOffered {
                    mode: mode.as_str(),
                });
            }
            (Mode::Overlap { .. } | Mode::Staged { .. }, Some(open)) => {
                return Err(rotation_open(&open));
            }
            (Mode::Immediate, Some(open)) if open.stage == Stage::Staged => {
                self.cancel(open, "superseded");
            }
            (Mode::Immediate, Some(open)) => self.retire(open.from, self.now, "superseded"),
            (Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. }, None) => {}
        }
        self.open(rotation, mode, active, secret, reason);
        Ok(())
    }

    fn activate(&mut self, id: SecretId, overlap: Option<Millis>) -> Result<(), Rejected> {
        check_overlap(overlap.unwrap_or(0))?;
        let secret = self.known(id)?;
        let status = secret.status(self.now);
        let staged = self.keyring.open_rotation(self.now).cloned();
        match staged {
            Some(mut rotation) if status == SecretStatus::Pending && rotation.to == id => {
                if let Some(overlap) = overlap {
                    rotation.mode = Mode::Staged { overlap };
                }
                self.promote(rotation);
                Ok(())
            }
            Some(_) | None => Err(Rejected::NotPending { secret: id, status }),
        }
    }

    fn promote(&mut self, rotation: Rotation) {
        let overlap = rotation.mode.overlap();
        self.audit_rotation(&rotation, AuditAction::RotationPromoted);
        self.hand_over(rotation, overlap);
    }

    fn extend(&mut self, id: RotationId, retire_at: Timestamp) -> Result<(), Rejected> {
        let (rotation, secret, present) = self.latest_retiring(id)?;
        if retire_at <= present {
            return Err(Rejected::NotLater { retire_at: present });
        }
        if retire_at > self.now.after(limits::OVERLAP_MAX) {
            return Err(Rejected::OverlapTooLong);
        }
        let stage = match rotation.stage {
            Stage::Undone { at, .. } => Stage::Undone { at, retire_at },
            Stage::Staged
            | Stage::Overlap { .. }
            | Stage::Completed { .. }
            | Stage::Cancelled { .. } => Stage::Overlap { retire_at },
        };
        let rotation = Rotation { stage, ..rotation };
        self.audit_rotation(&rotation, AuditAction::RotationExtended);
        self.put_rotation(rotation);
        if let Some(SecretVersion {
            state: SecretState::Retiring { since, .. },
            ..
        }) = self.keyring.secret(secret)
        {
            let since = *since;
            let state = SecretState::Retiring { since, retire_at };
            let until = retire_at.to_string();
            self.set_state(
                secret,
                state,
                AuditAction::SecretRetiring,
                &[("retireAt", &until)],
            );
        }
        Ok(())
    }

    fn finish(&mut self, id: RotationId) -> Result<(), Rejected> {
        let (rotation, secret, _) = self.latest_retiring(id)?;
        self.audit_rotation(&rotation, AuditAction::RotationFinished);
        self.retire(secret, self.now, "finished");
        Ok(())
    }

    fn undo(&mut self, id: RotationId) -> Result<(), Rejected> {
        let rotation = self.latest(id)?;
        let stage = rotation.stage;
        match stage {
            Stage::Overlap { .. } | Stage::Completed { .. } => {}
            Stage::Staged | Stage::Cancelled { .. } | Stage::Undone { .. } => {
                return Err(Rejected::NothingToUndo {
                    rotation: id,
                    stage,
                });
            }
        }
        // A secret that was forgotten had been destroyed.
        let old = match self.keyring.secret(rotation.from) {
            Some(old) if old.status(self.now) != SecretStatus::Destroyed => old,
            Some(_) | None => {
                return Err(Rejected::UndoDestroyed {
                    secret: rotation.from,
                });
            }
        };
        if old.compromised.is_some() {
            return Err(Rejected::UndoCompromised { secret: old.id });
        }
        let (old, new) = (rotation.from, rotation.to);
        let span = if self.is_compromised(new) {
            0
        } else {
            rotation.mode.overlap()
        };
        let undone = Rotation {
            stage: Stage::Undone {
                at: self.now,
                retire_at: self.now.after(span),
            },
            ..rotation
        };
        self.audit_rotation(&undone, AuditAction::RotationUndone);
        self.put_rotation(undone);
        self.make_active(old);
        self.stop_being_active(new, span, "undone");
        Ok(())
    }

    fn cancel(&mut self, rotation: Rotation, cause: &str) {
        let pending = rotation.to;
        let cancelled = Rotation {
            stage: Stage::Cancelled { at: self.now },
            ..rotation
        };
        self.audit_rotation(&cancelled, AuditAction::RotationCancelled);
        self.put_rotation(cancelled);
        self.erase(pending, cause);
    }

    fn compromise(&mut self, id: SecretId) -> Result<(), Rejected> {
        let secret = self.known(id)?;
        if let Some(since) = secret.compromised {
            return Err(Rejected::AlreadyCompromised { secret: id, since });
        }
        let status = secret.status(self.now);
        let now = self.now;
        self.update(id, |secret| secret.compromised = Some(now));
        self.audit_secret(id, AuditAction::SecretCompromised, &[("status", &status)]);
        match status {
            SecretStatus::Active | SecretStatus::Retired | SecretStatus::Destroyed => {}
            SecretStatus::Retiring => self.retire(id, self.now, "compromised"),
            SecretStatus::Pending => {
                if let Some(rotation) = self.keyring.open_rotation(self.now).cloned() {
                    self.cancel(rotation, "compromised");
                }
            }
        }
        Ok(())
    }

    fn destroy(&mut self, id: SecretId) -> Result<(), Rejected> {
        let status = self.known(id)?.status(self.now);
        match status {
            SecretStatus::Retired => {
                self.erase(id, "asked");
                Ok(())
            }
            SecretStatus::Pending
            | SecretStatus::Active
            | SecretStatus::Retiring
            | SecretStatus::Destroyed => Err(Rejected::NotRetired { secret: id, status }),
        }
    }

    fn rename(&mut self, id: SecretId, name: Option<String>) -> Result<(), Rejected> {
        check_text("name", name.as_deref())?;
        self.known(id)?;
        self.update(id, |secret| secret.name = name);
        self.audit_secret(id, AuditAction::SecretRenamed, &[]);
        Ok(())
    }
}

/// The moves that commands are made of. Each keeps secrets and the latest rotation in step.
impl Change {
    /// Opens a rotation from the active secret and moves as far as its mode goes by itself.
    fn open(
        &mut self,
        id: RotationId,
        mode: Mode,
        from: SecretId,
        secret: NewSecret,
        reason: Option<String>,
    ) {
        // Only an undone secret can still be retiring here: its owner has given it up.
        if let Some(abandoned) = self.keyring.retiring(self.now).map(|secret| secret.id) {
            self.retire(abandoned, self.now, "superseded");
        }
        let rotation = Rotation {
            id,
            keyring: self.keyring.id,
            workspace: self.keyring.workspace,
            mode,
            opened_at: self.now,
            from,
            to: secret.id,
            stage: Stage::Staged,
            reason,
            version: 0,
        };
        self.audit_rotation(&rotation, AuditAction::RotationOpened);
        self.add(secret, SecretState::Pending);
        match mode {
            Mode::Staged { .. } | Mode::Proven => self.put_rotation(rotation),
            Mode::Immediate => self.hand_over(rotation, 0),
            Mode::Overlap { overlap } => self.hand_over(rotation, overlap),
        }
    }

    /// The new secret becomes active; the old one retiring for `overlap`, or retired at once.
    fn hand_over(&mut self, rotation: Rotation, overlap: Millis) {
        let (old, new) = (rotation.from, rotation.to);
        let retire_at = self.now.after(overlap);
        self.put_rotation(Rotation {
            stage: Stage::Overlap { retire_at },
            ..rotation
        });
        self.make_active(new);
        self.stop_being_active(old, overlap, "rotated");
    }

    fn make_active(&mut self, id: SecretId) {
        let state = SecretState::Active { since: self.now };
        let was = self
            .keyring
            .secret(id)
            .map_or(SecretStatus::Pending, |secret| secret.status(self.now));
        self.set_state(id, state, AuditAction::SecretActivated, &[("was", &was)]);
    }

    fn stop_being_active(&mut self, id: SecretId, overlap: Millis, cause: &str) {
        if overlap == 0 || self.is_compromised(id) {
            self.retire(id, self.now, cause);
            return;
        }
        let retire_at = self.now.after(overlap);
        let state = SecretState::Retiring {
            since: self.now,
            retire_at,
        };
        self.set_state(
            id,
            state,
            AuditAction::SecretRetiring,
            &[("cause", &cause), ("retireAt", &retire_at)],
        );
    }

    /// Retires a secret as of `at`; completes the rotation that let it sign until now.
    fn retire(&mut self, id: SecretId, at: Timestamp, cause: &str) {
        self.set_state(
            id,
            SecretState::Retired { at },
            AuditAction::SecretRetired,
            &[("cause", &cause), ("at", &at)],
        );
        let Some(rotation) = self.keyring.rotation.clone() else {
            return;
        };
        let stage = match rotation.stage {
            Stage::Overlap { .. } if rotation.from == id => Stage::Completed { at },
            Stage::Undone {
                at: undone,
                retire_at,
            } if rotation.to == id && retire_at != at => Stage::Undone {
                at: undone,
                retire_at: at,
            },
            Stage::Staged
            | Stage::Overlap { .. }
            | Stage::Completed { .. }
            | Stage::Cancelled { .. }
            | Stage::Undone { .. } => return,
        };
        let rotation = Rotation { stage, ..rotation };
        if matches!(stage, Stage::Completed { .. }) {
            self.audit_rotation(&rotation, AuditAction::RotationCompleted);
        }
        self.put_rotation(rotation);
    }

    fn erase(&mut self, id: SecretId, cause: &str) {
        let state = SecretState::Destroyed { at: self.now };
        self.set_state(
            id,
            state,
            AuditAction::SecretDestroyed,
            &[("cause", &cause)],
        );
        self.destroyed.push(id);
    }

    fn add(&mut self, secret: NewSecret, state: SecretState) {
        self.make_room();
        let version = self.keyring.next_secret_version;
        self.keyring.next_secret_version += 1;
        let id = secret.id;
        self.keyring.secrets.push(SecretVersion {
            id,
            version,
            name: secret.name,
            fingerprint: secret.fingerprint,
            created_at: self.now,
            state,
            compromised: None,
        });
        let status = state.status(self.now);
        self.audit_secret(id, AuditAction::SecretCreated, &[("status", &status)]);
    }

    fn make_room(&mut self) {
        if self.keyring.secrets.len() < limits::SECRETS_PER_KEYRING {
            return;
        }
        let oldest = |change: &Self, wanted: SecretStatus| {
            let mut secrets = change.keyring.secrets.iter();
            secrets
                .find(|secret| secret.status(change.now) == wanted)
                .map(|secret| secret.id)
        };
        let forgotten = oldest(self, SecretStatus::Destroyed).or_else(|| {
            let retired = oldest(self, SecretStatus::Retired)?;
            self.erase(retired, "forgotten");
            Some(retired)
        });
        self.keyring
            .secrets
            .retain(|secret| Some(secret.id) != forgotten);
    }
}

/// Looking up, writing and noting down.
impl Change {
    fn known(&self, id: SecretId) -> Result<&SecretVersion, Rejected> {
        self.keyring
            .secret(id)
            .ok_or(Rejected::UnknownSecret { secret: id })
    }

    fn is_compromised(&self, id: SecretId) -> bool {
        self.keyring
            .secret(id)
            .is_some_and(|secret| secret.compromised.is_some())
    }

    fn latest(&self, id: RotationId) -> Result<Rotation, Rejected> {
        let latest = self.keyring.rotation.as_ref();
        latest
            .filter(|rotation| rotation.id == id)
            .cloned()
            .ok_or(Rejected::NotLatestRotation {
                rotation: id,
                latest: latest.map(|rotation| rotation.id),
            })
    }

    fn latest_staged(&self, id: RotationId) -> Result<Rotation, Rejected> {
        let rotation = self.latest(id)?;
        match rotation.stage {
            Stage::Staged => Ok(rotation),
            stage @ (Stage::Overlap { .. }
            | Stage::Completed { .. }
            | Stage::Cancelled { .. }
            | Stage::Undone { .. }) => Err(Rejected::NotStaged {
                rotation: id,
                stage,
            }),
        }
    }

    fn latest_retiring(&self, id: RotationId) -> Result<(Rotation, SecretId, Timestamp), Rejected> {
        let rotation = self.latest(id)?;
        match (rotation.leaving(), self.keyring.retiring(self.now)) {
            (Some((leaving, retire_at)), Some(_)) => Ok((rotation, leaving, retire_at)),
            (Some(_) | None, None) | (None, Some(_)) => Err(Rejected::NothingRetiring {
                rotation: id,
                stage: rotation.stage,
            }),
        }
    }

    fn check_new(&self, secret: &NewSecret) -> Result<(), Rejected> {
        check_text("name", secret.name.as_deref())?;
        let same = |known: &&SecretVersion| {
            known.id == secret.id || known.fingerprint == secret.fingerprint
        };
        match self.keyring.secrets.iter().find(same) {
            None => Ok(()),
            Some(existing) => Err(Rejected::DuplicateSecret {
                existing: existing.id,
                status: existing.status(self.now),
            }),
        }
    }

    fn update(&mut self, id: SecretId, change: impl FnOnce(&mut SecretVersion)) {
        if let Some(secret) = self.keyring.secrets.iter_mut().find(|s| s.id == id) {
            change(secret);
        }
    }

    fn set_state(
        &mut self,
        id: SecretId,
        state: SecretState,
        action: AuditAction,
        detail: &[(&str, &dyn Display)],
    ) {
        self.update(id, |secret| secret.state = state);
        self.audit_secret(id, action, detail);
    }

    /// Makes `rotation` the latest; its version grows once per command.
    fn put_rotation(&mut self, mut rotation: Rotation) {
        match self.rotations.iter_mut().find(|r| r.id == rotation.id) {
            Some(stored) => {
                rotation.version = stored.version;
                *stored = rotation.clone();
            }
            None => {
                rotation.version += 1;
                self.rotations.push(rotation.clone());
            }
        }
        self.keyring.rotation = Some(rotation);
    }

    fn audit_secret(&mut self, id: SecretId, action: AuditAction, detail: &[(&str, &dyn Display)]) {
        let rotation = self.keyring.rotation.as_ref();
        let subject = Subject {
            keyring: Some(self.keyring.id),
            secret: Some(id),
            rotation: rotation
                .filter(|rotation| rotation.from == id || rotation.to == id)
                .map(|rotation| rotation.id),
            ..self.subject()
        };
        let entry = AuditEntry {
            fingerprint: self.keyring.secret(id).map(|secret| secret.fingerprint),
            ..AuditEntry::new(action, subject)
        };
        self.audit.push(
            detail
                .iter()
                .fold(entry, |entry, (name, value)| entry.with(name, value)),
        );
    }

    fn audit_rotation(&mut self, rotation: &Rotation, action: AuditAction) {
        let subject = Subject {
            rotation: Some(rotation.id),
            ..self.subject()
        };
        let entry = AuditEntry::new(action, subject)
            .with("mode", rotation.mode.as_str())
            .with("from", rotation.from)
            .with("to", rotation.to);
        let entry = match rotation.leaving() {
            Some((_, retire_at)) => entry.with("retireAt", retire_at),
            None => entry,
        };
        self.audit.push(entry);
    }

    fn subject(&self) -> Subject {
        Subject {
            endpoint: match self.keyring.owner {
                super::KeyringOwner::Endpoint { endpoint } => Some(endpoint),
                super::KeyringOwner::Shared => None,
            },
            keyring: Some(self.keyring.id),
            ..Subject::default()
        }
    }
}

fn rotation_open(open: &Rotation) -> Rejected {
    Rejected::RotationOpen {
        open: open.id,
        stage: open.stage,
    }
}

const fn check_overlap(overlap: Millis) -> Result<(), Rejected> {
    if overlap > limits::OVERLAP_MAX {
        Err(Rejected::OverlapTooLong)
    } else {
        Ok(())
    }
}

fn check_text(field: &'static str, text: Option<&str>) -> Result<(), Rejected> {
    match text {
        Some(text) if text.len() > limits::TEXT_BYTES => Err(Rejected::TextTooLong { field }),
        Some(_) | None => Ok(()),
    }
}

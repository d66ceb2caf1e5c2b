//! A keyring in the middle of one command: the moves that commands are made of.
//!
//! Each move keeps the secrets and the latest rotation in step, and notes every change of a
//! secret's state for the audit log; nothing else writes a state.

use std::fmt::Display;

use hookturn_verify::Fingerprint;

use super::apply::{Applied, check_text};
use super::{
    Keyring, KeyringOwner, Mode, NewSecret, PromotionGrounds, Rejected, Rotation, SecretState,
    SecretStatus, SecretVersion, Stage,
};
use crate::audit::{AuditAction, AuditEntry, Subject};
use crate::id::{RotationId, SecretId};
use crate::limits;
use crate::time::{Millis, Timestamp};

/// A keyring in the middle of one command.
pub(super) struct Change {
    pub(super) now: Timestamp,
    pub(super) keyring: Keyring,
    pub(super) rotations: Vec<Rotation>,
    pub(super) destroyed: Vec<SecretId>,
    pub(super) forgotten: Vec<SecretId>,
    pub(super) audit: Vec<AuditEntry>,
}

impl Change {
    pub(super) fn new(keyring: &Keyring, now: Timestamp) -> Self {
        let mut keyring = keyring.clone();
        keyring.version += 1;
        Self {
            now,
            keyring,
            rotations: Vec::new(),
            destroyed: Vec::new(),
            forgotten: Vec::new(),
            audit: Vec::new(),
        }
    }

    pub(super) fn into_applied(self) -> Applied {
        Applied {
            keyring: self.keyring,
            rotations: self.rotations,
            destroyed: self.destroyed,
            forgotten: self.forgotten,
            audit: self.audit,
        }
    }
}

/// The moves that commands are made of. Each keeps secrets and the latest rotation in step.
impl Change {
    /// Opens a rotation from the active secret and moves as far as its mode goes by itself.
    pub(super) fn open(
        &mut self,
        id: RotationId,
        mode: Mode,
        from: SecretId,
        secret: NewSecret,
        reason: Option<String>,
    ) {
        // Either an undone secret or the old one of an overlap: an immediate rotation cuts both short.
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
            promotion: None,
            kept_until: None,
            version: 0,
        };
        self.audit_rotation_to(
            &rotation,
            AuditAction::RotationOpened,
            Some(secret.fingerprint),
        );
        self.put_rotation(rotation.clone());
        self.add(secret);
        match mode {
            Mode::Staged { .. } | Mode::Proven { .. } => {}
            Mode::Immediate => self.hand_over(rotation, 0),
            Mode::Overlap { overlap } => self.hand_over(rotation, overlap),
        }
    }

    /// The new secret becomes active; the old one retiring for `overlap`, or retired at once.
    pub(super) fn hand_over(&mut self, rotation: Rotation, overlap: Millis) {
        let (old, new) = (rotation.from, rotation.to);
        let retire_at = self.now.after(overlap);
        self.put_rotation(Rotation {
            stage: Stage::Overlap { retire_at },
            ..rotation
        });
        self.make_active(new);
        self.stop_being_active(old, overlap, "rotated");
    }

    pub(super) fn make_active(&mut self, id: SecretId) {
        let state = SecretState::Active { since: self.now };
        let was = self
            .keyring
            .secret(id)
            .map_or(SecretStatus::Pending, |secret| secret.status(self.now));
        self.set_state(id, state, AuditAction::SecretActivated, &[("was", &was)]);
    }

    pub(super) fn stop_being_active(&mut self, id: SecretId, overlap: Millis, cause: &str) {
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

    /// Moves the end of a retiring secret.
    pub(super) fn retire_later(&mut self, id: SecretId, until: Timestamp) {
        self.update(id, |secret| {
            if let SecretState::Retiring { retire_at, .. } = &mut secret.state {
                *retire_at = until;
            }
        });
        self.audit_secret(id, AuditAction::SecretRetiring, &[("retireAt", &until)]);
    }

    /// Retires a secret as of `at`; completes the rotation that let it sign until now.
    pub(super) fn retire(&mut self, id: SecretId, at: Timestamp, cause: &str) {
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

    pub(super) fn erase(&mut self, id: SecretId, cause: &str) {
        let state = SecretState::Destroyed { at: self.now };
        self.set_state(
            id,
            state,
            AuditAction::SecretDestroyed,
            &[("cause", &cause)],
        );
        self.destroyed.push(id);
    }

    /// Adds a secret as pending; whoever makes it active notes that too.
    pub(super) fn add(&mut self, secret: NewSecret) {
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
            renamed_at: None,
            state: SecretState::Pending,
            compromised: None,
        });
        self.audit_secret(id, AuditAction::SecretCreated, &[]);
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
            self.forgotten.push(retired);
            Some(retired)
        });
        self.keyring
            .secrets
            .retain(|secret| Some(secret.id) != forgotten);
    }
}

/// Looking up, writing and noting down.
impl Change {
    pub(super) fn known(&self, id: SecretId) -> Result<&SecretVersion, Rejected> {
        self.keyring
            .secret(id)
            .ok_or(Rejected::UnknownSecret { secret: id })
    }

    pub(super) fn is_compromised(&self, id: SecretId) -> bool {
        self.keyring
            .secret(id)
            .is_some_and(|secret| secret.compromised.is_some())
    }

    pub(super) fn latest(&self, id: RotationId) -> Result<Rotation, Rejected> {
        let latest = self.keyring.rotation.as_ref();
        latest
            .filter(|rotation| rotation.id == id)
            .cloned()
            .ok_or(Rejected::NotLatestRotation {
                rotation: id,
                latest: latest.map(|rotation| rotation.id),
            })
    }

    pub(super) fn latest_staged(&self, id: RotationId) -> Result<Rotation, Rejected> {
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

    pub(super) fn latest_retiring(
        &self,
        id: RotationId,
    ) -> Result<(Rotation, SecretId, Timestamp), Rejected> {
        let rotation = self.latest(id)?;
        match (rotation.leaving(), self.keyring.retiring(self.now)) {
            (Some((leaving, retire_at)), Some(_)) => Ok((rotation, leaving, retire_at)),
            (Some(_) | None, None) | (None, Some(_)) => Err(Rejected::NothingRetiring {
                rotation: id,
                stage: rotation.stage,
            }),
        }
    }

    pub(super) fn check_new(&self, secret: &NewSecret) -> Result<(), Rejected> {
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

    pub(super) fn update(&mut self, id: SecretId, change: impl FnOnce(&mut SecretVersion)) {
        if let Some(secret) = self.keyring.secrets.iter_mut().find(|s| s.id == id) {
            change(secret);
        }
    }

    pub(super) fn set_state(
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
    pub(super) fn put_rotation(&mut self, mut rotation: Rotation) {
        let stored = self.rotations.iter_mut().find(|r| r.id == rotation.id);
        if let Some(stored) = stored {
            rotation.version = stored.version;
            *stored = rotation.clone();
        } else {
            rotation.version += 1;
            self.rotations.push(rotation.clone());
        }
        self.keyring.rotation = Some(rotation);
    }

    pub(super) fn audit_secret(
        &mut self,
        id: SecretId,
        action: AuditAction,
        detail: &[(&str, &dyn Display)],
    ) {
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

    /// Notes what was done to a rotation, with the secret it brings and its fingerprint.
    pub(super) fn audit_rotation(&mut self, rotation: &Rotation, action: AuditAction) {
        let brought = self.keyring.secret(rotation.to);
        let fingerprint = brought.map(|secret| secret.fingerprint);
        self.audit_rotation_to(rotation, action, fingerprint);
    }

    /// The same before the keyring has that secret.
    fn audit_rotation_to(
        &mut self,
        rotation: &Rotation,
        action: AuditAction,
        fingerprint: Option<Fingerprint>,
    ) {
        let subject = Subject {
            secret: fingerprint.map(|_| rotation.to),
            rotation: Some(rotation.id),
            ..self.subject()
        };
        let entry = AuditEntry {
            fingerprint,
            ..AuditEntry::new(action, subject)
        };
        let entry = entry
            .with("mode", rotation.mode.as_str())
            .with("from", rotation.from)
            .with("to", rotation.to);
        let entry = match rotation.promotion.as_ref().map(|made| &made.grounds) {
            Some(PromotionGrounds::Proof { .. }) => entry.with("grounds", "proof"),
            Some(PromotionGrounds::Force) => entry.with("grounds", "force"),
            Some(PromotionGrounds::Asked) | None => entry,
        };
        let entry = match rotation.leaving() {
            Some((_, retire_at)) => entry.with("retireAt", retire_at),
            None => entry,
        };
        self.audit.push(entry);
    }

    fn subject(&self) -> Subject {
        Subject {
            endpoint: match self.keyring.owner {
                KeyringOwner::Endpoint { endpoint } => Some(endpoint),
                KeyringOwner::Shared => None,
            },
            keyring: Some(self.keyring.id),
            ..Subject::default()
        }
    }
}

//! The independent model of keyrings: what the audit log says, and nothing else.
//!
//! It reads the entries of committed changes in their order and keeps, for each secret, where it is in
//! its life. It never asks the code under test; where that code's own documents say something else
//! than the log explains, the log lacks an entry or the document is wrong (G9).

use std::collections::BTreeMap;

use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context};
use hookturn_core::id::{KeyringId, RotationId, SecretId};
use hookturn_core::rotation::{Keyring, SecretStatus};
use hookturn_core::time::Timestamp;
use hookturn_verify::Secret;

/// Where a secret is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Pending,
    Active,
    /// Until this time, that millisecond excluded.
    Retiring(Timestamp),
    Retired,
    Destroyed,
}

/// One secret.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) keyring: KeyringId,
    pub(crate) life: Life,
    pub(crate) compromised: bool,
    /// What it was before, with the version of the view that each change made where several nodes share the store:
    /// a node may not have followed yet.
    pub(crate) before: Vec<(Life, i64)>,
    /// Its value, planted to be looked for, and to tell who signed.
    pub(crate) value: Option<Secret>,
}

/// The rotation that is open on a keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) rotation: RotationId,
    pub(crate) proven: bool,
    pub(crate) to: SecretId,
}

/// Every secret and open rotation there is.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) secrets: BTreeMap<SecretId, Known>,
    pub(crate) open: BTreeMap<KeyringId, Open>,
    /// How often anything of a keyring changed.
    epochs: BTreeMap<KeyringId, u64>,
    /// The version of the view that the change makes which is taken in, and those that keyrings last changed with.
    pub(crate) version: i64,
    versions: BTreeMap<KeyringId, i64>,
}

/// A promotion, to be held against what was seen on the wire (G7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promoted {
    pub(crate) keyring: KeyringId,
    pub(crate) rotation: RotationId,
    pub(crate) proven: bool,
    pub(crate) grounds: Option<String>,
    pub(crate) by_owner: bool,
}

/// A guarantee that was broken, and how.
pub(crate) type Broken = (&'static str, String);

impl Life {
    /// Whether what is in this part of its life may sign anything at `now`.
    pub(crate) fn is_live(self, now: Timestamp) -> bool {
        match self {
            Self::Pending | Self::Active => true,
            Self::Retiring(until) => now < until,
            Self::Retired | Self::Destroyed => false,
        }
    }
}

impl Known {
    /// Whether it may sign anything at `now`.
    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        self.life.is_live(now)
    }

    /// Whether a receiver that holds it must get what is sent: it is live, and no compromised key
    /// beside the active one.
    pub(crate) fn serves(&self, now: Timestamp) -> bool {
        self.is_live(now) && (self.life == Life::Active || !self.compromised)
    }

    fn status(&self, now: Timestamp) -> SecretStatus {
        match self.life {
            Life::Pending => SecretStatus::Pending,
            Life::Active => SecretStatus::Active,
            Life::Retiring(until) if now < until => SecretStatus::Retiring,
            Life::Retiring(_) | Life::Retired => SecretStatus::Retired,
            Life::Destroyed => SecretStatus::Destroyed,
        }
    }
}

impl Ledger {
    pub(crate) fn epoch(&self, keyring: KeyringId) -> u64 {
        self.epochs.get(&keyring).copied().unwrap_or(0)
    }

    /// With which version of the view a keyring last changed.
    pub(crate) fn version_of(&self, keyring: KeyringId) -> i64 {
        self.versions.get(&keyring).copied().unwrap_or(0)
    }

    /// The active secret of a keyring.
    pub(crate) fn active(&self, keyring: KeyringId) -> Option<SecretId> {
        let mut of = self.secrets.iter();
        of.find(|(_, known)| known.keyring == keyring && known.life == Life::Active)
            .map(|(id, _)| *id)
    }

    /// Takes a committed change in: its entries, in order.
    pub(crate) fn take(
        &mut self,
        entries: &[AuditEntry],
        context: &Context,
    ) -> Result<Vec<Promoted>, Broken> {
        let mut promoted = Vec::new();
        for entry in entries {
            if let Some(keyring) = entry.subject.keyring {
                *self.epochs.entry(keyring).or_default() += 1;
                self.versions.insert(keyring, self.version);
                self.take_one(keyring, entry, context, &mut promoted)?;
            }
        }
        for keyring in entries.iter().filter_map(|entry| entry.subject.keyring) {
            self.check_counts(keyring)?;
        }
        Ok(promoted)
    }

    fn take_one(
        &mut self,
        keyring: KeyringId,
        entry: &AuditEntry,
        context: &Context,
        promoted: &mut Vec<Promoted>,
    ) -> Result<(), Broken> {
        match &entry.action {
            AuditAction::SecretCreated => {
                let id = subject(entry.subject.secret, entry)?;
                self.secrets.insert(
                    id,
                    Known {
                        keyring,
                        life: Life::Pending,
                        compromised: false,
                        before: Vec::new(),
                        value: None,
                    },
                );
            }
            AuditAction::SecretActivated => self.live(entry, Life::Active)?,
            AuditAction::SecretRetiring => {
                let until = detail(entry, "retireAt")?.parse();
                let until = until.map_err(|_| ("G9", format!("no time in {entry:?}")))?;
                self.live(entry, Life::Retiring(until))?;
            }
            AuditAction::SecretRetired => self.live(entry, Life::Retired)?,
            AuditAction::SecretDestroyed => self.live(entry, Life::Destroyed)?,
            AuditAction::SecretCompromised => {
                let version = self.version;
                let known = self.known(entry)?;
                known.before.push((known.life, version));
                known.compromised = true;
            }
            AuditAction::RotationOpened => self.opened(keyring, entry)?,
            AuditAction::RotationPromoted => promoted.push(Promoted {
                keyring,
                rotation: subject(entry.subject.rotation, entry)?,
                proven: detail(entry, "mode")? == "proven",
                grounds: entry.detail.get("grounds").cloned(),
                by_owner: matches!(context.actor, Actor::ApiKey(_)),
            }),
            AuditAction::RotationCompleted
            | AuditAction::RotationCancelled
            | AuditAction::RotationUndone => {
                let ended = subject(entry.subject.rotation, entry)?;
                if self
                    .open
                    .get(&keyring)
                    .is_some_and(|open| open.rotation == ended)
                {
                    self.open.remove(&keyring);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn opened(&mut self, keyring: KeyringId, entry: &AuditEntry) -> Result<(), Broken> {
        let to = detail(entry, "to")?.parse();
        let open = Open {
            rotation: subject(entry.subject.rotation, entry)?,
            proven: detail(entry, "mode")? == "proven",
            to: to.map_err(|_| ("G9", format!("no secret in {entry:?}")))?,
        };
        match self.open.insert(keyring, open) {
            None => Ok(()),
            Some(other) => Err((
                "G5",
                format!(
                    "rotation {} opened while {} was open",
                    open.rotation, other.rotation
                ),
            )),
        }
    }

    fn known(&mut self, entry: &AuditEntry) -> Result<&mut Known, Broken> {
        let id = subject(entry.subject.secret, entry)?;
        self.secrets.get_mut(&id).ok_or_else(|| {
            (
                "G9",
                format!("an entry about a secret that was never made: {entry:?}"),
            )
        })
    }

    fn live(&mut self, entry: &AuditEntry, life: Life) -> Result<(), Broken> {
        let version = self.version;
        let known = self.known(entry)?;
        known.before.push((known.life, version));
        if known.life == Life::Destroyed {
            return Err(("G4", format!("a destroyed secret came back: {entry:?}")));
        }
        known.life = life;
        Ok(())
    }

    /// At most one active secret and one pending, counted from the log (G5).
    fn check_counts(&self, keyring: KeyringId) -> Result<(), Broken> {
        for life in [Life::Active, Life::Pending] {
            let of = self
                .secrets
                .values()
                .filter(|known| known.keyring == keyring);
            let count = of.filter(|known| known.life == life).count();
            if count > 1 {
                return Err(("G5", format!("{count} secrets of {keyring} are {life:?}")));
            }
        }
        Ok(())
    }

    /// Whether the stored document is what the log explains (G9), and has no two of what it may have one
    /// of (G5).
    pub(crate) fn compare(&self, stored: &Keyring, now: Timestamp) -> Result<(), Broken> {
        let count = |status| {
            let of = stored.secrets.iter();
            of.filter(|secret| secret.status(now) == status).count()
        };
        if count(SecretStatus::Active) > 1 || count(SecretStatus::Pending) > 1 {
            return Err(("G5", format!("two of a kind: {stored:?}")));
        }
        for secret in &stored.secrets {
            let explained = self
                .secrets
                .get(&secret.id)
                .map(|known| (known.status(now), known.compromised, known.keyring));
            let found = (secret.status(now), secret.compromised.is_some(), stored.id);
            if explained != Some(found) {
                let id = secret.id;
                return Err((
                    "G9",
                    format!("secret {id} is {found:?}, and the audit log explains {explained:?}"),
                ));
            }
        }
        let open = stored.open_rotation(now).map(|rotation| rotation.id);
        let explained = self.open.get(&stored.id).map(|open| open.rotation);
        // An overlap that ended by its date is written down later.
        if open.is_some() && open != explained {
            let what =
                format!("rotation {open:?} is open, and the audit log explains {explained:?}");
            return Err(("G9", what));
        }
        Ok(())
    }
}

fn subject<Id>(id: Option<Id>, entry: &AuditEntry) -> Result<Id, Broken> {
    id.ok_or_else(|| ("G9", format!("an entry without its subject: {entry:?}")))
}

fn detail<'e>(entry: &'e AuditEntry, name: &str) -> Result<&'e str, Broken> {
    let found = entry.detail.get(name).map(String::as_str);
    found.ok_or_else(|| ("G9", format!("an entry without its {name}: {entry:?}")))
}

//! The stored documents: keyrings, their secrets, and rotations, with the questions one may ask.
//!
//! They are kept as JSON (camelCase, times as RFC 3339 texts). A document that cannot be is not
//! repaired: [`Keyring::check`] names what is wrong with it.

use std::collections::BTreeSet;
use std::fmt;

use hookturn_verify::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, KeyringId, RotationId, SecretId, WorkspaceId};
use crate::proof::ProofPolicy;
use crate::time::{Millis, Timestamp};

/// Whom a keyring signs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum KeyringOwner {
    /// One endpoint: the default.
    #[serde(rename_all = "camelCase")]
    Endpoint {
        /// The endpoint that owns the keyring.
        endpoint: EndpointId,
    },
    /// Every endpoint of the workspace that asks for it: KORE's model.
    Shared,
}

/// What kind of key the secrets of a keyring are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// `whsec_…`: one text that signs and verifies, for every scheme with an HMAC or a digest.
    #[default]
    Symmetric,
    /// `whsk_…`: signs; its public half `whpk_…` verifies (Standard Webhooks `v1a`).
    Ed25519,
}

/// The secrets that sign for one endpoint or for many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keyring {
    /// The keyring's id.
    pub id: KeyringId,
    /// The workspace that owns it.
    pub workspace: WorkspaceId,
    /// Whom it signs for.
    pub owner: KeyringOwner,
    /// What kind of key its secrets are.
    #[serde(default)]
    pub kind: KeyKind,
    /// Grows by one with every applied command; the store compares it and swaps.
    pub version: u64,
    /// The number the next secret gets.
    pub next_secret_version: u32,
    /// Every secret it remembers, oldest first, destroyed ones included, at most
    /// [`crate::limits::SECRETS_PER_KEYRING`].
    pub secrets: Vec<SecretVersion>,
    /// The latest rotation, open or over. It stays here when it is over because it is the one
    /// that can still be undone.
    pub rotation: Option<Rotation>,
}

/// One version of a signing key: never its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretVersion {
    /// The secret's id.
    pub id: SecretId,
    /// Counts from 1 in its keyring, in the order of creation.
    pub version: u32,
    /// What its owner calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The first 8 hex digits of SHA-256 of its value.
    #[serde(with = "crate::fingerprint")]
    pub fingerprint: Fingerprint,
    /// When it was made or imported.
    pub created_at: Timestamp,
    /// When its name was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_at: Option<Timestamp>,
    /// Where it is in its life. Ask [`SecretVersion::status`] what that means at a given time.
    pub state: SecretState,
    /// Since when it is known to have leaked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised: Option<Timestamp>,
}

/// Where a secret is in its life, as last written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "state",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum SecretState {
    /// Made, and waiting for someone to activate it.
    Pending,
    /// The one that signs.
    Active {
        /// When it became active.
        since: Timestamp,
    },
    /// Still signs beside the active one, until a moment that is already fixed.
    Retiring {
        /// When it stopped being the active one.
        since: Timestamp,
        /// From this millisecond on it is retired, whether or not anything wrote that down.
        retire_at: Timestamp,
    },
    /// Signs no longer; its value is kept, so that the rotation can be undone.
    Retired {
        /// When it signed for the last time at the latest.
        at: Timestamp,
    },
    /// Its value is erased.
    Destroyed {
        /// When.
        at: Timestamp,
    },
}

/// What a secret is at a given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretStatus {
    /// Waits to be activated.
    Pending,
    /// Signs.
    Active,
    /// Signs beside the active one.
    Retiring,
    /// Signs no longer.
    Retired,
    /// Erased.
    Destroyed,
}

impl SecretStatus {
    /// The word that the API, the store and pages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
            Self::Destroyed => "destroyed",
        }
    }
}

impl fmt::Display for SecretStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SecretState {
    /// What the state means at `now`: the one predicate for signer, API and pages.
    ///
    /// A retiring secret is retired from `retire_at` on, that millisecond included (G4).
    pub fn status(self, now: Timestamp) -> SecretStatus {
        match self {
            Self::Pending => SecretStatus::Pending,
            Self::Active { .. } => SecretStatus::Active,
            Self::Retiring { retire_at, .. } if now < retire_at => SecretStatus::Retiring,
            Self::Retiring { .. } | Self::Retired { .. } => SecretStatus::Retired,
            Self::Destroyed { .. } => SecretStatus::Destroyed,
        }
    }
}

impl SecretVersion {
    /// What the secret is at `now`.
    pub fn status(&self, now: Timestamp) -> SecretStatus {
        self.state.status(now)
    }
}

/// How a rotation moves from one secret to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "mode",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum Mode {
    /// The new secret signs at once and the old one is retired at once.
    Immediate,
    /// The new secret signs now; the old one co-signs or is the fallback for a while.
    Overlap {
        /// For how long, in milliseconds; 0 retires the old one at once.
        #[serde(rename = "overlapMillis")]
        overlap: Millis,
    },
    /// The new secret waits until someone activates it; then as `overlap`.
    Staged {
        /// For how long the old one stays after the activation, in milliseconds.
        #[serde(rename = "overlapMillis")]
        overlap: Millis,
    },
    /// Staged, and promoted by recorded proof or an audited force (G7).
    Proven {
        /// How much proof is enough, and when the old secret goes.
        policy: ProofPolicy,
    },
}

impl Mode {
    /// Every word of [`Mode::as_str`].
    pub const WORDS: [&'static str; 4] = ["immediate", "overlap", "staged", "proven"];

    /// The word that the API, the store and pages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::Overlap { .. } => "overlap",
            Self::Staged { .. } => "staged",
            Self::Proven { .. } => "proven",
        }
    }

    /// For how long the secret that stops being active may still sign, in milliseconds: in mode
    /// `proven` the quiet time, which its deadline makes longer ([`Rotation::overlap_from`]).
    pub const fn overlap(self) -> Millis {
        match self {
            Self::Immediate => 0,
            Self::Overlap { overlap } | Self::Staged { overlap } => overlap,
            Self::Proven { policy } => policy.quiet_millis,
        }
    }
}

/// Where a rotation is, as last written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "stage",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum Stage {
    /// The new secret is pending.
    Staged,
    /// The new secret is active, the old one retiring.
    Overlap {
        /// When the old secret is retired and the rotation over.
        retire_at: Timestamp,
    },
    /// The old secret is retired.
    Completed {
        /// When it was retired.
        at: Timestamp,
    },
    /// The new secret was dropped before it was ever active.
    Cancelled {
        /// When.
        at: Timestamp,
    },
    /// The old secret is active again. The rotation is over; the new secret may still be retiring,
    /// so that receivers that already switched have the same window for the way back.
    Undone {
        /// When.
        at: Timestamp,
        /// When the new secret is retired: `at` itself when the mode has no overlap.
        retire_at: Timestamp,
    },
}

impl Stage {
    /// The word that the API, the store and pages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Overlap { .. } => "overlap",
            Self::Completed { .. } => "completed",
            Self::Cancelled { .. } => "cancelled",
            Self::Undone { .. } => "undone",
        }
    }

    /// What the stage is at `now`: an overlap is completed from its `retire_at` on.
    pub fn at(self, now: Timestamp) -> Self {
        match self {
            Self::Overlap { retire_at } if now >= retire_at => Self::Completed { at: retire_at },
            Self::Staged
            | Self::Overlap { .. }
            | Self::Completed { .. }
            | Self::Cancelled { .. }
            | Self::Undone { .. } => self,
        }
    }

    /// Whether a rotation in this stage is open, so that no second one may start.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Staged | Self::Overlap { .. } => true,
            Self::Completed { .. } | Self::Cancelled { .. } | Self::Undone { .. } => false,
        }
    }

    /// Whether a second rotation would throw away a live secret at `now`: while this one is open, and
    /// after an undo for as long as the secret it brought stays live.
    pub fn is_in_the_way(self, now: Timestamp) -> bool {
        match self.at(now) {
            Self::Staged | Self::Overlap { .. } => true,
            Self::Undone { retire_at, .. } => now < retire_at,
            Self::Completed { .. } | Self::Cancelled { .. } => false,
        }
    }
}

/// One move of a keyring from its active secret to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// The rotation's id.
    pub id: RotationId,
    /// The keyring it moves.
    pub keyring: KeyringId,
    /// The workspace that owns the keyring.
    pub workspace: WorkspaceId,
    /// How it moves.
    #[serde(flatten)]
    pub mode: Mode,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// The secret that was active when it opened.
    pub from: SecretId,
    /// The secret it brings.
    pub to: SecretId,
    /// Where it is. Ask [`Stage::at`] what that means at a given time.
    #[serde(flatten)]
    pub stage: Stage,
    /// Why it was opened, in its owner's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When its new secret became active, and on what grounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
    /// Until when its owner asked that the retiring secret stays, by extending the rotation. Until then
    /// nothing that is known of its use retires it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<Timestamp>,
    /// Grows by one with every applied command that changed the rotation.
    pub version: u64,
}

/// How the new secret of a rotation became active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promotion {
    /// When.
    pub at: Timestamp,
    /// On what grounds.
    #[serde(flatten)]
    pub grounds: PromotionGrounds,
}

/// On what grounds a new secret became active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "grounds", rename_all = "snake_case")]
pub enum PromotionGrounds {
    /// Its mode asks for none.
    Asked,
    /// Recorded proof.
    Proof {
        /// What was proved about each endpoint.
        endpoints: Vec<ProvedEndpoint>,
    },
    /// Its owner's word against missing proof.
    Force,
}

/// What was proved about one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProvedEndpoint {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Passes in a row of the new secret alone.
    pub passes: u32,
}

impl Keyring {
    /// A keyring without secrets. Nothing can be signed with it until its first secret is made.
    pub const fn new(
        id: KeyringId,
        workspace: WorkspaceId,
        owner: KeyringOwner,
        kind: KeyKind,
    ) -> Self {
        Self {
            id,
            workspace,
            owner,
            kind,
            version: 0,
            next_secret_version: 1,
            secrets: Vec::new(),
            rotation: None,
        }
    }

    /// The secret of that id, in whatever state.
    pub fn secret(&self, id: SecretId) -> Option<&SecretVersion> {
        self.secrets.iter().find(|secret| secret.id == id)
    }

    /// The active secret. Once a keyring has had one it always has one.
    pub fn active(&self) -> Option<&SecretVersion> {
        self.secrets
            .iter()
            .find(|secret| matches!(secret.state, SecretState::Active { .. }))
    }

    /// The secret that waits to be activated.
    pub fn pending(&self) -> Option<&SecretVersion> {
        self.secrets
            .iter()
            .find(|secret| secret.state == SecretState::Pending)
    }

    /// The secret that still signs beside the active one at `now`.
    pub fn retiring(&self, now: Timestamp) -> Option<&SecretVersion> {
        self.secrets
            .iter()
            .find(|secret| secret.status(now) == SecretStatus::Retiring)
    }

    /// The rotation that is open at `now`.
    pub fn open_rotation(&self, now: Timestamp) -> Option<&Rotation> {
        self.rotation
            .as_ref()
            .filter(|rotation| rotation.stage.at(now).is_open())
    }

    /// The rotation that no other one but an immediate may come after at `now`: an open one, and an
    /// undone one whose new secret is live still, because receivers that hold it were promised that.
    pub fn rotation_in_the_way(&self, now: Timestamp) -> Option<&Rotation> {
        self.rotation
            .as_ref()
            .filter(|rotation| rotation.stage.is_in_the_way(now))
    }

    /// When [`super::Command::Settle`] has something to write down. Signing never waits for it.
    pub fn settle_due_at(&self) -> Option<Timestamp> {
        self.secrets
            .iter()
            .filter_map(|secret| match secret.state {
                SecretState::Retiring { retire_at, .. } => Some(retire_at),
                SecretState::Pending
                | SecretState::Active { .. }
                | SecretState::Retired { .. }
                | SecretState::Destroyed { .. } => None,
            })
            .min()
    }

    /// Whether the document can be: what every reader of stored keyrings asks before using one.
    ///
    /// 1. At most one secret is active, one pending, one retiring (G5); ids and version numbers
    ///    are distinct, and version numbers below the next one.
    /// 2. A secret is pending if and only if the latest rotation is staged and brings it.
    /// 3. A secret is retiring only because the latest rotation says so, with the same `retireAt`.
    /// 4. Where there is a pending or retiring secret or a rotation, there is an active secret.
    /// 5. No pending or retiring secret is compromised.
    pub fn check(&self) -> Result<(), ImpossibleKeyring> {
        let count = |wanted: fn(&SecretState) -> bool| {
            self.secrets.iter().filter(|s| wanted(&s.state)).count()
        };
        let active = count(|state| matches!(state, SecretState::Active { .. }));
        let pending = count(|state| matches!(state, SecretState::Pending));
        let retiring = count(|state| matches!(state, SecretState::Retiring { .. }));
        if active > 1 || pending > 1 || retiring > 1 {
            return Err(ImpossibleKeyring::TwoOfAKind);
        }
        if !self.is_well_numbered() {
            return Err(ImpossibleKeyring::BadNumbers);
        }
        if active == 0 && (pending + retiring > 0 || self.rotation.is_some()) {
            return Err(ImpossibleKeyring::NoActive);
        }
        self.check_rotation()?;
        let helps_out = |state: &SecretState| {
            matches!(state, SecretState::Pending | SecretState::Retiring { .. })
        };
        let leaked = |secret: &SecretVersion| secret.compromised.is_some();
        if self
            .secrets
            .iter()
            .any(|secret| leaked(secret) && helps_out(&secret.state))
        {
            return Err(ImpossibleKeyring::CompromisedHelper);
        }
        Ok(())
    }

    fn is_well_numbered(&self) -> bool {
        let below_next = |secret: &SecretVersion| secret.version < self.next_secret_version;
        let ids: BTreeSet<SecretId> = self.secrets.iter().map(|secret| secret.id).collect();
        ids.len() == self.secrets.len()
            && self.secrets.iter().all(below_next)
            && self
                .secrets
                .windows(2)
                .all(|pair| pair[0].version < pair[1].version)
    }

    /// Rules 2 and 3 of [`Keyring::check`].
    fn check_rotation(&self) -> Result<(), ImpossibleKeyring> {
        let rotation = self.rotation.as_ref();
        let awaited = rotation.and_then(|rotation| match rotation.stage {
            Stage::Staged => Some(rotation.to),
            Stage::Overlap { .. }
            | Stage::Completed { .. }
            | Stage::Cancelled { .. }
            | Stage::Undone { .. } => None,
        });
        if self.pending().map(|secret| secret.id) != awaited {
            return Err(ImpossibleKeyring::PendingWithoutRotation);
        }
        let leaving = self.secrets.iter().find_map(|secret| match secret.state {
            SecretState::Retiring { retire_at, .. } => Some((secret.id, retire_at)),
            SecretState::Pending
            | SecretState::Active { .. }
            | SecretState::Retired { .. }
            | SecretState::Destroyed { .. } => None,
        });
        let agrees = match (leaving, rotation.and_then(Rotation::leaving)) {
            (None, None) => true,
            // An undone rotation keeps its date after the secret is retired.
            (None, Some(_)) => !rotation.is_some_and(|rotation| rotation.stage.is_open()),
            (Some(_), None) => false,
            (Some(leaving), Some(expected)) => leaving == expected,
        };
        if agrees {
            Ok(())
        } else {
            Err(ImpossibleKeyring::RetiringWithoutRotation)
        }
    }
}

impl Rotation {
    /// For how long the old secret stays when the new one becomes active at `now`, in milliseconds:
    /// the mode's overlap, and in mode `proven` until its deadline if that is later.
    pub fn overlap_from(&self, now: Timestamp) -> Millis {
        match self.mode {
            Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. } => self.mode.overlap(),
            Mode::Proven { policy } => {
                let deadline = self.opened_at.after(policy.deadline_millis);
                policy.quiet_millis.max(deadline.since(now))
            }
        }
    }

    /// The deadline at `now`: of mode `proven` the policy's while it is staged, and in an overlap of whatever mode
    /// the end of the old secret, which may have moved. A staged rotation of another mode waits without one.
    pub fn deadline_at(&self, now: Timestamp) -> Option<Timestamp> {
        match (self.stage.at(now), self.mode) {
            (Stage::Staged, Mode::Proven { policy }) => {
                Some(self.opened_at.after(policy.deadline_millis))
            }
            (Stage::Overlap { retire_at }, _) => Some(retire_at),
            (Stage::Staged, Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. })
            | (Stage::Completed { .. } | Stage::Cancelled { .. } | Stage::Undone { .. }, _) => None,
        }
    }

    /// Until when the retiring secret of an overlap stays whether or not it is needed, because somebody extended the
    /// rotation; while that time is to come.
    pub fn kept_at(&self, now: Timestamp) -> Option<Timestamp> {
        let overlap = matches!(self.stage.at(now), Stage::Overlap { .. });
        self.kept_until.filter(|until| overlap && now < *until)
    }

    /// The secret this rotation lets sign until a fixed moment, and that moment.
    pub fn leaving(&self) -> Option<(SecretId, Timestamp)> {
        match self.stage {
            Stage::Overlap { retire_at } => Some((self.from, retire_at)),
            Stage::Undone { retire_at, .. } => Some((self.to, retire_at)),
            Stage::Staged | Stage::Completed { .. } | Stage::Cancelled { .. } => None,
        }
    }
}

/// A stored keyring that no sequence of commands can have made: its row is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImpossibleKeyring {
    /// Two active, two pending or two retiring secrets.
    #[error("more than one secret is active, pending or retiring")]
    TwoOfAKind,
    /// Ids or version numbers repeat or are out of order.
    #[error("secret ids or version numbers repeat or are out of order")]
    BadNumbers,
    /// No active secret although there must be one.
    #[error("no secret is active although the keyring has been used")]
    NoActive,
    /// A pending secret and the latest rotation do not agree.
    #[error("the pending secret and the latest rotation do not agree")]
    PendingWithoutRotation,
    /// A retiring secret and the latest rotation do not agree.
    #[error("the retiring secret and the latest rotation do not agree")]
    RetiringWithoutRotation,
    /// A pending or retiring secret is compromised.
    #[error("a compromised secret is pending or retiring")]
    CompromisedHelper,
}

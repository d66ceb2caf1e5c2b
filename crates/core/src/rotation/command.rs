//! What may be asked of a keyring, and every reason for which it is refused.

use hookturn_verify::Fingerprint;

use super::{Mode, SecretStatus, Stage};
use crate::id::{RotationId, SecretId};
use crate::limits;
use crate::proof::{InvalidPolicy, Proof};
use crate::time::{DAY, Millis, Timestamp};

/// A secret that was just made or imported; its value is sealed and stored elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSecret {
    /// The id it will have.
    pub id: SecretId,
    /// The first 8 hex digits of SHA-256 of its value.
    pub fingerprint: Fingerprint,
    /// What its owner calls it.
    pub name: Option<String>,
}

/// A change that someone asks of a keyring. [`super::apply()`] says what each does, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// KORE's *Create*: the first secret becomes active, every later one pending.
    CreateSecret {
        /// The secret.
        secret: NewSecret,
        /// The id of the staged rotation this opens; unused for the first secret.
        rotation: RotationId,
        /// The overlap of that rotation when it is promoted, in milliseconds.
        overlap: Millis,
        /// Whether a pending secret may be destroyed to make room.
        replace_pending: bool,
        /// Why.
        reason: Option<String>,
    },
    /// Opens a rotation to a new secret.
    Rotate {
        /// The id of the rotation.
        rotation: RotationId,
        /// How to move.
        mode: Mode,
        /// The secret to move to.
        secret: NewSecret,
        /// Why.
        reason: Option<String>,
    },
    /// KORE's *Activate*: promotes the rotation that brings this pending secret.
    Activate {
        /// The pending secret.
        secret: SecretId,
        /// For how long the old one stays, in milliseconds; `None` as the rotation was opened.
        overlap: Option<Millis>,
    },
    /// Makes the pending secret of a staged rotation the active one.
    Promote {
        /// The staged rotation.
        rotation: RotationId,
        /// On what grounds. Mode `proven` takes proof or force; `staged` asks for none.
        grounds: Grounds,
    },
    /// Lets the retiring secret sign for longer.
    Extend {
        /// The rotation.
        rotation: RotationId,
        /// The new, later end.
        retire_at: Timestamp,
        /// Whether the owner asked for it: then it stays until there, whatever is known of its use.
        is_asked: bool,
    },
    /// Retires the retiring secret now.
    Finish {
        /// The rotation.
        rotation: RotationId,
    },
    /// Makes the old secret active again.
    Undo {
        /// The rotation.
        rotation: RotationId,
    },
    /// Drops the pending secret.
    Cancel {
        /// The staged rotation.
        rotation: RotationId,
    },
    /// Marks a secret as leaked.
    Compromise {
        /// The secret.
        secret: SecretId,
    },
    /// Erases the value of a retired secret.
    Destroy {
        /// The secret.
        secret: SecretId,
    },
    /// Changes what a secret is called.
    Rename {
        /// The secret.
        secret: SecretId,
        /// The new name; `None` takes it away.
        name: Option<String>,
    },
    /// Writes down what time has done: the retiring secret is retired, its rotation completed.
    /// Bookkeeping only; signing never depends on it.
    Settle,
}

/// On what grounds a staged rotation shall be promoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grounds {
    /// Because its owner says so.
    Asked,
    /// Because every endpoint that counts is proved.
    Proof(Proof),
    /// Because its owner says so against missing proof.
    Force,
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// There is nothing to rotate from.
    #[error("the keyring has no active secret: create the first secret")]
    NoActiveSecret,
    /// Another rotation is open, or was undone and its new secret is live still.
    #[error("rotation {open} {}", in_the_way(stage))]
    RotationOpen {
        /// The rotation that is in the way.
        open: RotationId,
        /// Where it is.
        stage: Stage,
    },
    /// A secret is pending already.
    #[error(
        "secret {secret} is pending in rotation {rotation}: activate it, cancel the rotation, or \
         ask to replace the pending secret"
    )]
    PendingExists {
        /// The pending secret.
        secret: SecretId,
        /// The staged rotation that brings it.
        rotation: RotationId,
    },
    /// The keyring has no such secret.
    #[error("secret {secret} is not in this keyring: list its secrets")]
    UnknownSecret {
        /// What was asked for.
        secret: SecretId,
    },
    /// The keyring already knows this secret, perhaps as one that must never sign again.
    #[error(
        "this secret is already in the keyring as {existing} ({status}): generate or import \
         another one"
    )]
    DuplicateSecret {
        /// The secret with the same id or fingerprint.
        existing: SecretId,
        /// What that one is.
        status: SecretStatus,
    },
    /// Only a pending secret can be activated.
    #[error("secret {secret} is {status}, only a pending secret can be activated")]
    NotPending {
        /// What was asked for.
        secret: SecretId,
        /// What it is.
        status: SecretStatus,
    },
    /// Only a retired secret can be destroyed.
    #[error(
        "secret {secret} is {status}, only a retired secret can be destroyed: cancel a pending \
         one, finish the rotation of a retiring one, rotate away from an active one"
    )]
    NotRetired {
        /// What was asked for.
        secret: SecretId,
        /// What it is.
        status: SecretStatus,
    },
    /// It was marked before.
    #[error(
        "secret {secret} is marked as compromised since {since}{}",
        match status {
            SecretStatus::Active => ": it signs until you rotate away from it",
            SecretStatus::Pending | SecretStatus::Retiring | SecretStatus::Retired
            | SecretStatus::Destroyed => " and signs nothing: nothing is left to do about it",
        }
    )]
    AlreadyCompromised {
        /// What was asked for.
        secret: SecretId,
        /// Since when.
        since: Timestamp,
        /// What it is.
        status: SecretStatus,
    },
    /// Not the latest rotation, so nothing about it can change any longer.
    #[error("rotation {rotation} is not the latest one of this keyring: only the latest changes")]
    NotLatestRotation {
        /// What was asked for.
        rotation: RotationId,
        /// The latest one, when there is one.
        latest: Option<RotationId>,
    },
    /// Promote and cancel need a pending secret.
    #[error(
        "rotation {rotation} is {}, only a staged rotation can be promoted or cancelled",
        stage.as_str()
    )]
    NotStaged {
        /// The rotation.
        rotation: RotationId,
        /// Where it is.
        stage: Stage,
    },
    /// Extend and finish need a retiring secret.
    #[error(
        "rotation {rotation} is {} and has no retiring secret, so there is no end to move and nothing \
         to retire{}",
        stage.as_str(),
        match stage {
            Stage::Staged => ": promote or cancel it",
            Stage::Overlap { .. } | Stage::Completed { .. } | Stage::Cancelled { .. }
            | Stage::Undone { .. } => "",
        }
    )]
    NothingRetiring {
        /// The rotation.
        rotation: RotationId,
        /// Where it is.
        stage: Stage,
    },
    /// The new end is not later than the present one.
    #[error("the secret retires at {retire_at} already: name a later time, or finish it now")]
    NotLater {
        /// The present end.
        retire_at: Timestamp,
    },
    /// The new end is too late.
    #[error("the secret may sign for at most {} days from now", limits::OVERLAP_MAX / DAY)]
    RetiresTooLate,
    /// The overlap is longer than allowed.
    #[error("the overlap may last at most {} days from now", limits::OVERLAP_MAX / DAY)]
    OverlapTooLong,
    /// The new secret of the rotation was never active.
    #[error("rotation {rotation} is {}, there is nothing to undo{}", stage.as_str(), match stage {
        Stage::Staged => ": cancel it to drop the pending secret",
        Stage::Overlap { .. } | Stage::Completed { .. } | Stage::Cancelled { .. }
        | Stage::Undone { .. } => ": open a new rotation",
    })]
    NothingToUndo {
        /// The rotation.
        rotation: RotationId,
        /// Where it is.
        stage: Stage,
    },
    /// The old secret's value is gone.
    #[error("secret {secret} is destroyed and cannot come back: open a new rotation")]
    UndoDestroyed {
        /// The old secret.
        secret: SecretId,
    },
    /// The old secret leaked.
    #[error("secret {secret} is compromised and must not sign again: open a new rotation")]
    UndoCompromised {
        /// The old secret.
        secret: SecretId,
    },
    /// A name or reason is too long.
    #[error("{field} is longer than {} characters", limits::TEXT_CHARS)]
    TextTooLong {
        /// `name` or `reason`.
        field: &'static str,
    },
    /// There is no proof, and nobody forced it.
    #[error(
        "rotation {rotation} is not proved: wait for its proof, or force the promotion and risk \
         refused deliveries"
    )]
    NotProven {
        /// The rotation.
        rotation: RotationId,
    },
    /// The policy of a proven rotation cannot work.
    #[error("the policy cannot work: {0}")]
    InvalidPolicy(InvalidPolicy),
    /// Time has done nothing that is not written down.
    #[error("nothing to settle")]
    NothingToSettle,
}

/// What a rotation does that is in the way of another, and what can be done about it.
fn in_the_way(stage: &Stage) -> String {
    let (word, moves) = match stage {
        Stage::Undone { retire_at, .. } => {
            return format!(
                "was undone, and the secret it brought stays live until {retire_at}, so that receivers \
                 that deployed it lose nothing while they go back: wait until then, finish that rotation \
                 first, which retires its secret at once, or rotate with mode immediate, which replaces it"
            );
        }
        Stage::Staged => (stage.as_str(), "promote or cancel"),
        Stage::Overlap { .. } | Stage::Completed { .. } | Stage::Cancelled { .. } => {
            (stage.as_str(), "finish or undo")
        }
    };
    format!("is open ({word}): {moves} it first, or rotate with mode immediate")
}

impl Rejected {
    /// The stable word for this reason, for problem documents and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoActiveSecret => "no_active_secret",
            Self::RotationOpen { .. } => "rotation_open",
            Self::PendingExists { .. } => "pending_exists",
            Self::UnknownSecret { .. } => "unknown_secret",
            Self::DuplicateSecret { .. } => "duplicate_secret",
            Self::NotPending { .. } => "not_pending",
            Self::NotRetired { .. } => "not_retired",
            Self::AlreadyCompromised { .. } => "already_compromised",
            Self::NotLatestRotation { .. } => "not_latest_rotation",
            Self::NotStaged { .. } => "not_staged",
            Self::NothingRetiring { .. } => "nothing_retiring",
            Self::NotLater { .. } => "not_later",
            Self::RetiresTooLate => "retires_too_late",
            Self::OverlapTooLong => "overlap_too_long",
            Self::NothingToUndo { .. } => "nothing_to_undo",
            Self::UndoDestroyed { .. } => "undo_destroyed",
            Self::UndoCompromised { .. } => "undo_compromised",
            Self::TextTooLong { .. } => "text_too_long",
            Self::NotProven { .. } => "not_proven",
            Self::InvalidPolicy(_) => "invalid_policy",
            Self::NothingToSettle => "nothing_to_settle",
        }
    }
}

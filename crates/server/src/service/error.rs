//! Why a use case did not happen. One type for the whole boundary; no variant ever holds a secret.

use std::error::Error;
use std::fmt;

use hookturn_core::rotation::Rejected;
use hookturn_core::store::StoreError;
use hookturn_core::time::Millis;
use hookturn_core::workspace::Scope;

use crate::store::seal::OpenError;

/// Why nothing was done. Unless a variant says otherwise, nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// There is no such thing, or it belongs to another workspace.
    #[error("{what} not found")]
    NotFound {
        /// What kind of thing: `app`, `endpoint`, `keyring`…
        what: &'static str,
    },
    /// The key lacks a scope. The attempt is in the audit log.
    #[error("the API key lacks the scope {needs}")]
    Forbidden {
        /// The scope.
        needs: Scope,
    },
    /// Only an operator's key may do this. The attempt is in the audit log.
    #[error("only an operator's API key may do this")]
    OperatorOnly,
    /// No key, or one that is unknown, expired or revoked: which of them is not told.
    #[error("the API key is missing, unknown, expired or revoked")]
    Unauthorized,
    /// A field of the request cannot be.
    #[error("{pointer}: {message}")]
    Invalid {
        /// JSON pointer of the field in the request; empty for the whole.
        pointer: String,
        /// What is wrong with it.
        message: String,
    },
    /// A field of the request is needed and not there.
    #[error("{pointer} is required")]
    Missing {
        /// JSON pointer of the field in the request.
        pointer: String,
        /// Why it is needed.
        message: String,
    },
    /// The keyring's rules forbid it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// It does not fit what is there.
    #[error("{message}")]
    Conflict {
        /// A stable word.
        code: &'static str,
        /// What is in the way and what to do.
        message: String,
    },
    /// `if_match` named another version than the current one.
    #[error("it was changed meanwhile: its version is {current} now; read it again")]
    PreconditionFailed {
        /// The current version.
        current: u64,
    },
    /// The idempotency key got its answer while this request ran: look it up again and replay.
    #[error("the idempotency key has been used")]
    IdempotencyKeyUsed,
    /// The payload exceeds its bound.
    #[error("{what} has more than {limit} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its bound in bytes.
        limit: usize,
    },
    /// The store is stopping. Whether the change happened is unknown: repeat with the same
    /// idempotency key.
    #[error("the server is stopping; try again")]
    Unavailable,
    /// More is waiting to be stored than the store takes.
    #[error("too much is waiting to be stored; nothing was stored, try again soon")]
    Busy,
    /// The store's disk is full, read-only or failing, or its database is away.
    #[error("the store cannot write at the moment; nothing was stored, try again later")]
    Unwritable,
    /// A page of the store's database is damaged.
    #[error(
        "the store's database is damaged; nothing was stored: stop the server, run `hookturn doctor`, and restore a backup"
    )]
    Damaged,
    /// This node has not heard from its database for too long to know whom it may let in, and whether what it would refuse
    /// is still so.
    #[error(
        "this node does not hear from its database, and what it knows may be old; nothing was done, try again"
    )]
    Behind,
    /// The store lost its database while it stored this.
    #[error(
        "the store lost its database; whether this was stored is not known: look before you repeat it"
    )]
    Uncertain,
    /// The key asks more often than it may.
    #[error("the API key asks more often than it may")]
    RateLimited {
        /// When the next request will be taken, from now.
        wait_millis: Millis,
    },
    /// The endpoint got as many probes by command as it may, or its host did.
    #[error("{message}")]
    ProbesUsedUp {
        /// What was used up, and what is kept.
        message: String,
        /// When there is room again, from now.
        wait_millis: Millis,
    },
    /// An entry of the audit log is there and cannot be read.
    #[error("audit entry {seq} cannot be read: it was damaged or changed after it was written")]
    AuditUnreadable {
        /// Its number.
        seq: u64,
        /// What is wrong with its row.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Something failed that no request can cause.
    #[error("internal failure")]
    Internal(#[source] Box<dyn Error + Send + Sync>),
}

impl ServiceError {
    /// A refused field.
    pub(crate) fn invalid(pointer: impl Into<String>, message: impl fmt::Display) -> Self {
        Self::Invalid {
            pointer: pointer.into(),
            message: message.to_string(),
        }
    }

    /// A field that is needed and not there.
    pub(crate) fn missing(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Missing {
            pointer: pointer.into(),
            message: message.into(),
        }
    }

    /// The same error for a request whose fields are members of `parent`.
    pub(crate) fn below(mut self, parent: &str) -> Self {
        if let Self::Invalid { pointer, .. } | Self::Missing { pointer, .. } = &mut self {
            pointer.insert_str(0, parent);
        }
        self
    }

    pub(crate) const fn not_found(what: &'static str) -> Self {
        Self::NotFound { what }
    }

    pub(crate) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict {
            code,
            message: message.into(),
        }
    }

    /// Others changed the same thing every time.
    pub(crate) fn concurrent_change() -> Self {
        Self::conflict(
            "concurrent_change",
            "too many changes of the same thing at once; nothing was changed, try again",
        )
    }

    /// The stable word for problem documents and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Forbidden { .. } => "forbidden",
            Self::OperatorOnly => "operator_only",
            Self::Unauthorized => "unauthorized",
            Self::Invalid { .. } | Self::Missing { .. } => "invalid",
            Self::RateLimited { .. } => "rate_limited",
            Self::ProbesUsedUp { .. } => "probes_used_up",
            Self::Rejected(rejected) => rejected.code(),
            Self::Conflict { code, .. } => code,
            Self::PreconditionFailed { .. } => "precondition_failed",
            Self::IdempotencyKeyUsed => "idempotency_key_used",
            Self::TooLarge { .. } => "too_large",
            Self::Unavailable | Self::Busy | Self::Behind => "unavailable",
            Self::Unwritable | Self::Uncertain => "store_unwritable",
            Self::Damaged => "store_damaged",
            Self::AuditUnreadable { .. } => "audit_unreadable",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { what } => Self::Conflict {
                code: "concurrent_change",
                message: format!("{what} was changed at the same time; try again"),
            },
            StoreError::Duplicate { what } => Self::Conflict {
                code: "already_exists",
                message: format!("{what} already exists; choose another"),
            },
            StoreError::IdempotencyKeyUsed => Self::IdempotencyKeyUsed,
            StoreError::Stopped => Self::Unavailable,
            StoreError::Busy => Self::Busy,
            // The writer has logged the cause.
            StoreError::Unwritable { .. } => Self::Unwritable,
            StoreError::Damaged { .. } => Self::Damaged,
            StoreError::Uncertain => Self::Uncertain,
            other => match unreadable_entry(&other) {
                Some(seq) => Self::AuditUnreadable {
                    seq,
                    source: Box::new(other),
                },
                None => Self::Internal(Box::new(other)),
            },
        }
    }
}

/// The number of the audit entry that an error is about.
fn unreadable_entry(error: &StoreError) -> Option<u64> {
    match error {
        StoreError::ImpossibleRow {
            table: "audit",
            row,
            ..
        } => row.parse().ok(),
        _ => None,
    }
}

impl From<OpenError> for ServiceError {
    fn from(error: OpenError) -> Self {
        Self::Internal(Box::new(error))
    }
}

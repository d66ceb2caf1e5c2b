//! From the service's errors to problem documents.

use hookturn_core::rotation::Rejected;
use hookturn_core::time::SECOND;

use super::problem::{Code, Problem};
use crate::service::ServiceError;

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::NotFound { what } => Self::not_found(what),
            ServiceError::Forbidden { needs } => Self::new(
                Code::Forbidden,
                format!("the API key lacks the scope `{needs}`: use a key that has it"),
            )
            .with("needsScope", needs.as_str()),
            ServiceError::OperatorOnly => Self::new(
                Code::Forbidden,
                "only an operator's API key (sk_operator_…) may do this",
            ),
            ServiceError::Unauthorized => Self::new(
                Code::Unauthorized,
                "the API key is unknown, expired or revoked",
            ),
            ServiceError::Invalid { pointer, message } => Self::field(pointer, message),
            ServiceError::Missing { pointer, message } => Self::missing_field(pointer, message),
            ServiceError::RateLimited { wait_millis } => {
                let seconds = u32::try_from(wait_millis.div_ceil(SECOND)).unwrap_or(u32::MAX);
                Self::new(
                    Code::RateLimited,
                    "this API key asks more often than it may: nothing was done, wait and repeat",
                )
                .retry_after(seconds)
            }
            ServiceError::ProbesUsedUp {
                message,
                wait_millis,
            } => {
                let seconds = u32::try_from(wait_millis.div_ceil(SECOND)).unwrap_or(u32::MAX);
                Self::new(Code::ProbesUsedUp, message).retry_after(seconds.max(1))
            }
            ServiceError::Rejected(rejected) => rejected.into(),
            ServiceError::Conflict {
                code: "concurrent_change",
                message,
            } => Self::new(Code::Contended, message).retry_after(1),
            ServiceError::Conflict { code, message } => Self::new(Code::State(code), message),
            ServiceError::PreconditionFailed { current } => Self::new(
                Code::PreconditionFailed,
                format!("nothing was changed: the version is {current} now; read it again"),
            )
            .with("currentVersion", current),
            ServiceError::IdempotencyKeyUsed => Self::new(
                Code::IdempotencyInProgress,
                "the same Idempotency-Key got its answer meanwhile: repeat the request to get it",
            )
            .retry_after(1),
            ServiceError::TooLarge { what, limit } => Self::new(
                Code::TooLarge,
                format!("nothing was stored: {what} has at most {limit} bytes"),
            ),
            ServiceError::Unavailable => Self::new(
                Code::Unavailable,
                "the server is stopping; whether the change was stored is unknown: repeat it \
                 with the same Idempotency-Key",
            )
            .retry_after(1),
            ServiceError::Busy => Self::new(
                Code::Unavailable,
                "more is waiting to be stored than this server takes; nothing was stored, try \
                 again soon",
            )
            .retry_after(1),
            ServiceError::Behind => Self::new(
                Code::Unavailable,
                "nothing was done: this node does not hear from its database, and what it knows may be old; \
                 try again, or ask another node",
            )
            .retry_after(1),
            ServiceError::Unwritable => Self::store_unwritable("nothing was stored: "),
            ServiceError::Damaged => Self::store_damaged("nothing was stored: "),
            ServiceError::Uncertain => Self::store_unwritable(
                "whether this was stored is not known (repeat it with the same Idempotency-Key): ",
            ),
            ServiceError::AuditUnreadable { seq, source } => Self::new(
                Code::AuditUnreadable,
                format!(
                    "entry {seq} of the audit log cannot be read: it was damaged or changed after it \
                     was written. The entries before it are listed; compare with a backup or an \
                     earlier export"
                ),
            )
            .with("entry", seq)
            .caused_by(source),
            ServiceError::Internal(source) => Self::internal(source),
        }
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        let problem = Self::new(Code::State(rejected.code()), rejected.to_string());
        match rejected {
            Rejected::UnknownSecret { .. } => Self::not_found("secret"),
            Rejected::RotationOpen { open, .. } => problem.with("openRotationId", open.to_string()),
            Rejected::PendingExists { secret, rotation } => problem
                .with("openRotationId", rotation.to_string())
                .with("pendingSecretId", secret.to_string()),
            Rejected::DuplicateSecret { existing, .. } => {
                problem.with("existingSecretId", existing.to_string())
            }
            Rejected::RetiresTooLate => Self::field("/retireAt", rejected.to_string()),
            Rejected::OverlapTooLong => Self::field("/overlapSeconds", rejected.to_string()),
            Rejected::TextTooLong { field } => {
                Self::field(format!("/{field}"), rejected.to_string())
            }
            Rejected::InvalidPolicy(ref invalid) => {
                Self::field(format!("/policy/{}", invalid.field), invalid.reason)
            }
            Rejected::NotLater { retire_at } => problem.with("retireAt", retire_at.to_string()),
            Rejected::NotLatestRotation { latest, .. } => match latest {
                Some(latest) => problem.with("latestRotationId", latest.to_string()),
                None => problem,
            },
            Rejected::NoActiveSecret
            | Rejected::NotProven { .. }
            | Rejected::NotPending { .. }
            | Rejected::NotRetired { .. }
            | Rejected::AlreadyCompromised { .. }
            | Rejected::NotStaged { .. }
            | Rejected::NothingRetiring { .. }
            | Rejected::NothingToUndo { .. }
            | Rejected::UndoDestroyed { .. }
            | Rejected::UndoCompromised { .. }
            | Rejected::NothingToSettle => problem,
        }
    }
}

//! A form that makes something is carried out once: sent again, because its answer was lost or its page was
//! loaded anew, it gets the same answer and makes nothing.
//!
//! Every page holds a random text, which its forms repeat: an idempotency key like those of the API. The
//! answer is kept sealed beside the change, bound to the API key of the session, for as long as theirs. A
//! form that says other things by now is another form.

use hookturn_core::store::IdempotencyKey;
use zeroize::Zeroizing;

use super::UiState;
use super::error::UiError;
use super::visitor::Visitor;
use crate::service::idempotency::{self, InFlightGuard, Lookup};
use crate::service::{Recording, ServiceError};

/// What to do with a form.
pub(super) enum Asked {
    /// It is carried out, and its answer recorded if the form can be told from others.
    First(Option<Once>),
    /// It was answered: what was kept of that.
    Again(Zeroizing<Vec<u8>>),
}

/// The place of an answer, held while the form is carried out.
pub(super) struct Once {
    key: IdempotencyKey,
    fingerprint: [u8; 32],
    _guard: InFlightGuard,
}

impl Once {
    /// The place that was taken for a form.
    pub(super) fn new(key: IdempotencyKey, fingerprint: [u8; 32], guard: InFlightGuard) -> Self {
        Self {
            key,
            fingerprint,
            _guard: guard,
        }
    }

    /// Records the answer that `render` writes down.
    pub(super) fn record<'a, T>(
        &self,
        render: &'a (dyn Fn(&T) -> Vec<u8> + Send + Sync),
    ) -> Recording<'a, T> {
        Recording {
            key: self.key,
            fingerprint: self.fingerprint,
            render,
        }
    }
}

/// Looks whether the visitor's form was answered before. `place` tells it from the same page's others.
pub(super) async fn asked(ui: &UiState, visitor: &Visitor, place: &str) -> Result<Asked, UiError> {
    let Some((once, fingerprint)) = &visitor.form else {
        return Ok(Asked::First(None));
    };
    let told = |error: ServiceError| UiError::service(&error, &visitor.base);
    let caller = &visitor.caller;
    let path = format!("dashboard {} {place}", caller.key.id);
    let key = idempotency::key(caller.workspace, "POST", &path, once);
    let found = ui.service.lookup(caller, key, *fingerprint).await;
    match found.map_err(told)? {
        Lookup::Fresh(guard) => Ok(Asked::First(Some(Once::new(key, *fingerprint, guard)))),
        Lookup::Replay(kept) => Ok(Asked::Again(kept)),
        Lookup::InProgress => Err(told(in_progress())),
        Lookup::Mismatch => Ok(Asked::First(None)),
    }
}

/// The same form is on its way already.
pub(super) fn in_progress() -> ServiceError {
    let message = "the same form is being carried out; load the page again in a moment";
    ServiceError::conflict("idempotency_in_progress", message)
}

//! What becomes of events that were refused: operators see them with the reason, and publish them again once that is
//! mended, or remove them. Left alone they are kept until the retention is over.
//!
//! Payloads are not shown: they are in the database, whose users put them there.

use std::sync::Arc;

use hookturn_core::audit::{AuditAction, AuditEntry, Subject};
use hookturn_core::store::Page;
use hookturn_core::workspace::Scope;
use uuid::Uuid;

use crate::service::page::{Listed, fetch};
use crate::service::{Caller, Service, ServiceError};
use crate::store::outbox::{Mending, Outbox, Remedy};

pub use crate::store::outbox::{Refused, RefusedPlace};

impl Service {
    /// Applications publish in this outbox. To be said once, before anything is asked.
    pub fn use_outbox(&self, outbox: Arc<dyn Outbox>) {
        let _said_before = self.outbox.set(outbox);
    }

    /// The events that were refused, of all workspaces, the last first: none where there is no outbox. Operators
    /// only; needs `read`.
    pub async fn refused_events(
        &self,
        caller: &Caller,
        page: Page<RefusedPlace>,
    ) -> Result<Listed<Refused>, ServiceError> {
        self.require_operator(caller).await?;
        self.require(caller, Scope::Read).await?;
        let Some(outbox) = self.outbox.get() else {
            return Ok(Listed::cut(Vec::new(), 0));
        };
        let (wider, limit) = fetch(page);
        Ok(Listed::cut(outbox.refused(wider).await?, limit))
    }

    /// Publishes a refused event again: it is looked at as if it had been published now. Operators only; needs
    /// `manage`.
    pub async fn retry_refused(&self, caller: &Caller, event: Uuid) -> Result<(), ServiceError> {
        self.mend(caller, event, Remedy::Retry).await
    }

    /// Removes a refused event. Operators only; needs `manage`.
    pub async fn drop_refused(&self, caller: &Caller, event: Uuid) -> Result<(), ServiceError> {
        self.mend(caller, event, Remedy::Drop).await
    }

    async fn mend(&self, caller: &Caller, event: Uuid, remedy: Remedy) -> Result<(), ServiceError> {
        self.require_operator(caller).await?;
        self.require(caller, Scope::Manage).await?;
        let nothing = ServiceError::not_found("refused event");
        let Some(outbox) = self.outbox.get() else {
            return Err(nothing);
        };
        let action = match remedy {
            Remedy::Retry => AuditAction::RefusedEventRetried,
            Remedy::Drop => AuditAction::RefusedEventDropped,
        };
        let mending = Mending {
            event,
            remedy,
            context: caller.context(),
            entry: AuditEntry::new(action, Subject::default()).with("event", event),
            at: self.clock.now(),
        };
        if outbox.mend(mending).await? {
            Ok(())
        } else {
            Err(nothing)
        }
    }
}

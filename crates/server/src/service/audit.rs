//! The audit log, read and proven.

use hookturn_core::audit::{Broken, Head, Recorded, verify_chain};
use hookturn_core::limits;
use hookturn_core::workspace::Scope;

use super::page::{Listed, bounded};
use super::{Caller, Service, ServiceError};

/// What a proof of the audit log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditProof {
    /// Every entry follows from the one before. Compare the head with one that was kept elsewhere:
    /// only that shows whether the end was cut off.
    Whole {
        /// The last entry.
        head: Head,
    },
    /// An entry does not.
    Broken(Broken),
}

impl Service {
    /// A page of the workspace's audit log, oldest first, after entry number `after` (0 for the
    /// beginning). Needs `read`.
    pub async fn audit_log(
        &self,
        caller: &Caller,
        after: u64,
        limit: usize,
    ) -> Result<Listed<Recorded>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let limit = bounded(limit);
        let entries = self
            .store
            .audit_log(caller.workspace, after, limit + 1)
            .await?;
        Ok(Listed::cut(entries, limit))
    }

    /// Proves the workspace's audit log from its first entry. Needs `read`.
    pub async fn verify_audit(&self, caller: &Caller) -> Result<AuditProof, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let mut head = Head::START;
        loop {
            let entries = self
                .store
                .audit_log(caller.workspace, head.seq, limits::RECOVER_BLOCK)
                .await?;
            if entries.is_empty() {
                return Ok(AuditProof::Whole { head });
            }
            head = match verify_chain(head, &entries) {
                Ok(head) => head,
                Err(broken) => return Ok(AuditProof::Broken(broken)),
            };
        }
    }
}

//! The audit log, read and proven.

use hookturn_core::audit::{Broken, Damage, Head, Recorded, verify_chain};
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
    /// beginning). It ends before an entry that cannot be read; the next page is that error. Needs
    /// `read`.
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
        let short = entries.len() <= limit;
        let last = entries.last().map(|last| last.seq);
        let mut listed = Listed::cut(entries, limit);
        if let (true, Some(last)) = (short, last) {
            // Whoever reads on learns what ended the page: nothing more, or an entry that cannot be read.
            let next = self.store.audit_log(caller.workspace, last, 1).await;
            listed.has_more = next.is_err();
        }
        Ok(listed)
    }

    /// Proves the workspace's audit log from its first entry. Needs `read`.
    pub async fn verify_audit(&self, caller: &Caller) -> Result<AuditProof, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let mut head = Head::START;
        loop {
            let page = self
                .store
                .audit_log(caller.workspace, head.seq, limits::RECOVER_BLOCK)
                .await;
            let entries = match page.map_err(ServiceError::from) {
                Ok(entries) => entries,
                Err(ServiceError::AuditUnreadable { seq, .. }) => {
                    let why = Damage::Unreadable;
                    return Ok(AuditProof::Broken(Broken { seq, why }));
                }
                Err(error) => return Err(error),
            };
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

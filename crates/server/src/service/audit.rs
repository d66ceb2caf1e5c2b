//! The audit log, read, searched and proven.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hookturn_core::audit::{Actor, Broken, Damage, Head, Recorded, verify_chain};
use hookturn_core::id::WorkspaceId;
use hookturn_core::limits;
use hookturn_core::time::Timestamp;
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

/// Blocks of [`limits::RECOVER_BLOCK`] entries that one search looks at: what a page may take.
const SEARCH_BLOCKS: usize = 10;

/// Which entries to find. What is `None` matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// The action, or the beginning of one that ends with a dot, such as `secret.`.
    pub action: Option<String>,
    /// Who.
    pub actor: Option<Actor>,
    /// Any id that the entry is about or tells of, or the fingerprint of its secret.
    pub subject: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

impl AuditFilter {
    /// Whether an entry is one of those.
    pub fn takes(&self, recorded: &Recorded) -> bool {
        let entry = &recorded.entry;
        let action = self.action.as_ref().is_none_or(|wanted| {
            let known = entry.action.as_str();
            known == wanted || (wanted.ends_with('.') && known.starts_with(wanted.as_str()))
        });
        let subject = || {
            self.subject.as_ref().is_none_or(|wanted| {
                let print = entry.fingerprint.map(|print| print.to_string());
                print.as_ref() == Some(wanted)
                    || entry.subject.ids().any(|(_, id)| id == *wanted)
                    || entry.detail.values().any(|told| told == wanted)
            })
        };
        action
            && self
                .actor
                .is_none_or(|actor| actor == recorded.context.actor)
            && self.since.is_none_or(|since| recorded.at >= since)
            && self.until.is_none_or(|until| recorded.at < until)
            && subject()
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFound {
    /// The entries, newest first.
    pub entries: Vec<Recorded>,
    /// Entries below this number were not looked at; `None` when the beginning was reached.
    pub rest_below: Option<u64>,
}

/// When each workspace's log was last found whole, and up to where; as long as this process lives.
#[derive(Debug, Default)]
pub(super) struct Proofs(Mutex<HashMap<WorkspaceId, (Head, Timestamp)>>);

impl Proofs {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<WorkspaceId, (Head, Timestamp)>) -> T) -> T {
        // One insert or look at a time: a panic elsewhere leaves a whole map.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Service {
    /// Searches the workspace's audit log from its end, or from below entry `before`, for at most
    /// `limit` entries. It looks at a bounded number of entries and says where it stopped. Needs `read`.
    pub async fn search_audit(
        &self,
        caller: &Caller,
        filter: &AuditFilter,
        before: Option<u64>,
        limit: usize,
    ) -> Result<AuditFound, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let limit = bounded(limit);
        let mut below = match before {
            Some(before) => before,
            None => self.store.audit_head(caller.workspace).await? + 1,
        };
        let mut entries = Vec::new();
        for _ in 0..SEARCH_BLOCKS {
            let after = below.saturating_sub(1 + limits::RECOVER_BLOCK as u64);
            let size = usize::try_from(below.saturating_sub(1 + after)).unwrap_or(0);
            if size == 0 {
                break;
            }
            let block = self.store.audit_log(caller.workspace, after, size).await?;
            for recorded in block.into_iter().rev() {
                below = recorded.seq;
                if filter.takes(&recorded) {
                    entries.push(recorded);
                }
                if entries.len() == limit {
                    break;
                }
            }
            if entries.len() == limit {
                break;
            }
            below = after + 1;
        }
        let rest_below = (below > 1).then_some(below);
        Ok(AuditFound {
            entries,
            rest_below,
        })
    }

    /// A block of the log for an export, oldest first, after entry number `after`. Needs `read`.
    pub async fn audit_block(
        &self,
        caller: &Caller,
        after: u64,
    ) -> Result<Vec<Recorded>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let block = limits::RECOVER_BLOCK;
        Ok(self.store.audit_log(caller.workspace, after, block).await?)
    }

    /// Up to which entry the workspace's log was last found whole, and when, if it was since the
    /// start of this process. Needs `read`.
    pub async fn audit_proof(
        &self,
        caller: &Caller,
    ) -> Result<Option<(Head, Timestamp)>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let known = |proofs: &mut HashMap<_, _>| proofs.get(&caller.workspace).copied();
        Ok(self.audit_proofs.with(known))
    }

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
                let proof = (head, self.clock.now());
                self.audit_proofs
                    .with(|proofs| proofs.insert(caller.workspace, proof));
                return Ok(AuditProof::Whole { head });
            }
            head = match verify_chain(head, &entries) {
                Ok(head) => head,
                Err(broken) => {
                    self.audit_proofs
                        .with(|proofs| proofs.remove(&caller.workspace));
                    return Ok(AuditProof::Broken(broken));
                }
            };
        }
    }
}

//! Upkeep: retention, backup and counts.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::PoisonError;

use hookturn_core::id::EndpointId;
use hookturn_core::store::{Progress, StoreError, StoreStats};
use hookturn_core::time::{HOUR, Millis, Timestamp};

use super::{Backups, Contents, Outcome};

/// How long a deleted endpoint outlives the retention, as in the embedded engine.
const ENDPOINT_GRACE: Millis = HOUR;
/// What an empty store takes; there is no disk to measure.
const BYTES: u64 = 1;

impl Contents {
    /// Settled deliveries first, then messages that nothing needs, then bulk rotations that are over, then
    /// expired answers, and endpoints once nothing older is left.
    pub(super) fn prune(
        &mut self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
        forgotten: &mut Vec<EndpointId>,
    ) -> Progress<()> {
        let mut removed = self.traffic.prune_settled(before, limit);
        removed += self.traffic.prune_messages(before, limit - removed);
        removed += self.documents.bulks.prune(before, limit - removed);
        let expired = self.answers.values().filter(|one| one.expires_at <= now);
        let expired = expired.map(|one| one.key.0).take(limit - removed);
        for key in expired.collect::<Vec<_>>() {
            self.answers.remove(&key);
            removed += 1;
        }
        let done = removed < limit;
        if done {
            let traffic = &self.traffic;
            let deleted_before = before.before(ENDPOINT_GRACE);
            *forgotten = self
                .documents
                .forget(deleted_before, |endpoint| traffic.has_due(endpoint));
        }
        Progress {
            rows: removed,
            resume: (!done).then_some(()),
        }
    }

    pub(super) fn stats(&self) -> StoreStats {
        StoreStats {
            due: self.traffic.pending_count() as u64,
            oldest_due_at: self.traffic.earliest(),
            bytes: BYTES,
        }
    }
}

impl Backups {
    /// Keeps a copy under `path`. An empty file is made there, so that a path is taken once.
    pub(super) fn write(&self, path: PathBuf, contents: &Contents) -> Outcome<()> {
        let made = OpenOptions::new().write(true).create_new(true).open(&path);
        made.map_err(|source| StoreError::Engine {
            step: "write the backup",
            source: Box::new(source),
        })?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(path, contents.clone());
        Ok(())
    }
}

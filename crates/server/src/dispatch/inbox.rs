//! A shard's inbox: batches from other threads, one wake-up for as many as are waiting.

use std::sync::{Mutex, PoisonError};

use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::store::Due;
use hookturn_core::time::Timestamp;
use tokio::sync::Notify;

/// Something a shard should know.
pub(super) enum Note {
    /// Rows that were just accepted.
    Accepted(Vec<Due>),
    /// Rows that another node accepted, perhaps a while ago.
    Told(Vec<Due>),
    /// An endpoint was written.
    Changed(EndpointId),
    /// Someone queued rows of this endpoint by hand.
    Requeued(WorkspaceId, EndpointId),
    /// There are, or may be, rows of this endpoint on disk that are due then.
    Due(WorkspaceId, EndpointId, Timestamp),
    /// Shards were given up: their endpoints are another node's now.
    Disowned,
    /// The clock may have moved.
    Look,
    /// Stop when the exchanges in flight are recorded.
    Drain,
}

#[derive(Default)]
pub(super) struct Inbox {
    notes: Mutex<Vec<Note>>,
    waiting: Notify,
}

impl Inbox {
    pub(super) fn put(&self, note: Note) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let first = notes.is_empty();
        notes.push(note);
        drop(notes);
        // The shard takes everything at once, so only the first note has to wake it.
        if first {
            self.waiting.notify_one();
        }
    }

    pub(super) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn arrived(&self) {
        self.waiting.notified().await;
    }
}

//! The outbox: events that an application published in its own transactions, as an engine hands them over.
//!
//! Only an engine whose database applications share has one.

use bytes::Bytes;
use hookturn_core::id::WorkspaceId;
use hookturn_core::store::{IdempotencyRecord, NewMessage, StoreFuture};
use hookturn_core::time::Timestamp;

/// Where an event stands: its transaction, and its place within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The number of the transaction, as the database writes it.
    pub transaction: String,
    /// From 1.
    pub number: i64,
}

/// An event that was published and is no message yet. Nothing of it but its workspace was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where it stands.
    pub place: Place,
    /// The id of the app.
    pub app: String,
    /// What happened.
    pub event_type: String,
    /// The publisher's own id of the event.
    pub event_id: Option<String>,
    /// A JSON text.
    pub payload: Bytes,
}

/// What became of published events: all of it happens, or nothing.
#[derive(Debug, Default)]
pub struct Settling {
    /// Those that leave the outbox.
    pub taken: Vec<Place>,
    /// What some of them become, in order.
    pub messages: Vec<NewMessage>,
    /// What keeps their event ids from becoming another message.
    pub answers: Vec<IdempotencyRecord>,
    /// Those of `taken` that are kept with a reason.
    pub refused: Vec<(Place, String)>,
    /// When it happens.
    pub at: Timestamp,
}

/// An engine's outbox.
pub trait Outbox: Send + Sync {
    /// The first events that nothing can come before any more, in order, at most `limit`.
    fn published(&self, limit: usize) -> StoreFuture<'_, Vec<Published>>;

    /// Settles events in one transaction. A conflict when one of them is not there any more, or another server
    /// is at it; [`StoreError::IdempotencyKeyUsed`](hookturn_core::store::StoreError::IdempotencyKeyUsed) when an
    /// event id was used meanwhile.
    fn settle(&self, settling: Settling) -> StoreFuture<'_, ()>;

    /// How long ago the oldest event was published that is no message yet, in milliseconds; 0 without one.
    fn oldest_age(&self) -> StoreFuture<'_, u64>;
}

//! The outbox: events that an application published in its own transactions, as an engine hands them over.
//!
//! Only an engine whose database applications share has one.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use hookturn_core::audit::{AuditEntry, Context};
use hookturn_core::id::WorkspaceId;
use hookturn_core::store::{IdempotencyRecord, NewMessage, Page, StoreFuture};
use hookturn_core::time::Timestamp;
use uuid::Uuid;

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
    /// The version of the live view that all this was decided from, or an earlier one.
    pub view: u64,
    /// When it happens.
    pub at: Timestamp,
}

/// Where a refused event stands among them: its time, and its id, which `publish` returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusedPlace {
    /// When it was refused, in microseconds since the epoch.
    pub micros: i64,
    /// Its id.
    pub id: Uuid,
}

impl fmt::Display for RefusedPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.micros, self.id)
    }
}

/// The text is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsePlaceError;

impl FromStr for RefusedPlace {
    type Err = ParsePlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (micros, id) = text.split_once('.').ok_or(ParsePlaceError)?;
        Ok(Self {
            micros: micros.parse().map_err(|_| ParsePlaceError)?,
            id: id.parse().map_err(|_| ParsePlaceError)?,
        })
    }
}

/// An event that could not become a message, and is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it stands.
    pub place: RefusedPlace,
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The id of the app, as it was given.
    pub app: String,
    /// What happened.
    pub event_type: String,
    /// The publisher's own id of the event.
    pub event_id: Option<String>,
    /// The size of its payload.
    pub payload_bytes: u64,
    /// When it was published.
    pub published_at: Timestamp,
    /// Why it was refused.
    pub reason: String,
}

/// What is done with a refused event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It is published again, behind what waits.
    Retry,
    /// It is removed.
    Drop,
}

/// A [`Remedy`] for one event, and what the audit log of its workspace is told of it.
#[derive(Debug, Clone)]
pub struct Mending {
    /// The id of the event.
    pub event: Uuid,
    /// What is done.
    pub remedy: Remedy,
    /// By whom.
    pub context: Context,
    /// What is written down, in the same transaction.
    pub entry: AuditEntry,
    /// When.
    pub at: Timestamp,
}

/// An engine's outbox.
pub trait Outbox: Send + Sync {
    /// The first events that nothing can come before any more, in order, at most `limit`.
    fn published(&self, limit: usize) -> StoreFuture<'_, Vec<Published>>;

    /// Settles events in one transaction. A conflict when one of them is not there any more, another server
    /// is at it, or another node changed since what they were judged by; [`StoreError::IdempotencyKeyUsed`](hookturn_core::store::StoreError::IdempotencyKeyUsed) when an
    /// event id was used meanwhile.
    fn settle(&self, settling: Settling) -> StoreFuture<'_, ()>;

    /// How long ago the oldest event was published that is no message yet, in milliseconds; 0 without one.
    fn oldest_age(&self) -> StoreFuture<'_, u64>;

    /// The events that were refused, of all workspaces, the last first.
    fn refused(&self, page: Page<RefusedPlace>) -> StoreFuture<'_, Vec<Refused>>;

    /// Publishes a refused event again, or removes it. Whether there was one.
    fn mend(&self, mending: Mending) -> StoreFuture<'_, bool>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let place = RefusedPlace {
            micros: 1_784_505_600_000_001,
            id: Uuid::from_bytes([7; 16]),
        };
        assert_eq!(place.to_string().parse(), Ok(place));
        for text in [
            "",
            "7",
            "7.",
            ".x",
            "x.07070707-0707-0707-0707-070707070707",
        ] {
            assert_eq!(text.parse::<RefusedPlace>(), Err(ParsePlaceError), "{text}");
        }
    }
}

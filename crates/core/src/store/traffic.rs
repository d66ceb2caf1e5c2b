//! Messages on their way in, due rows, and what becomes of them.

use std::sync::Arc;

use super::IdempotencyRecord;
use crate::delivery::{Attempt, Next};
use crate::endpoint::Endpoint;
use crate::id::{DeliveryId, EndpointId, WorkspaceId};
use crate::limits;
use crate::message::Message;
use crate::receiver::ReceiverView;
use crate::time::{Millis, Timestamp};

/// Messages to accept together.
#[derive(Debug, Clone)]
pub struct Accept {
    /// The messages, each with its deliveries.
    pub messages: Vec<NewMessage>,
    /// The answer to replay for the same idempotency key.
    pub idempotency: Option<IdempotencyRecord>,
}

/// A message and the deliveries it becomes.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// The message.
    pub message: Arc<Message>,
    /// One per endpoint that wants it; due at the message's `accepted_at`.
    pub deliveries: Vec<(DeliveryId, EndpointId)>,
}

/// A due row: one pending delivery with what sending it needs.
#[derive(Debug, Clone)]
pub struct Due {
    /// Its id.
    pub delivery: DeliveryId,
    /// Where it goes.
    pub endpoint: EndpointId,
    /// Its place in the endpoint's queue, and when it is due unless `not_before` is later. With
    /// the id and `not_before` it is the token that a finish must present.
    pub due_at: Timestamp,
    /// Not to be sent before this time: set on ordered endpoints, whose rows wait in their place.
    pub not_before: Timestamp,
    /// Attempts made so far, over the whole life of the delivery.
    pub attempts: u32,
    /// Attempts made when the delivery was last queued by hand; 0 if it never was.
    pub attempts_before_requeue: u32,
    /// What it carries.
    pub message: Arc<Message>,
}

/// What came of a due delivery.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The row as it was read. If it has moved meanwhile (someone queued it by hand), the attempt
    /// is recorded and the row stays where it is.
    pub due: Due,
    /// The attempt; none when the endpoint went away first.
    pub attempt: Option<Attempt>,
    /// What follows.
    pub next: Next,
    /// Whether a retry keeps its place in the queue and only waits: the rule of ordered endpoints. One that
    /// is ordered by now has it kept in any case.
    pub keeps_place: bool,
    /// When that was decided.
    pub at: Timestamp,
}

/// What is remembered of a receiver between deliveries.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceiverState {
    /// Class and belief: what the signing plan asks for.
    pub view: ReceiverView,
    /// Since when nothing was accepted, if the last attempt failed.
    pub failing_since: Option<Timestamp>,
    /// Failed attempts since then, counted up to [`limits::DISABLE_AFTER_FAILURES`].
    pub failures: u32,
    /// When it last accepted a delivery or a test event, as of the last stored change.
    pub accepted_at: Option<Timestamp>,
    /// That it asked to be left alone, if it did. Whether that still counts says [`ReceiverState::held`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// A receiver asked to be left alone for a time: 429 or 503 with `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// When the exchange began in which it asked.
    pub since: Timestamp,
    /// Until when, at most [`limits::RETRY_AFTER_MAX`] after its answer.
    pub until: Timestamp,
    /// What it answered.
    pub status: u16,
}

impl Hold {
    /// Why nothing is sent, in words that fit after "nothing is sent because".
    pub fn because(&self) -> String {
        format!("the receiver answered {} with Retry-After", self.status)
    }
}

impl ReceiverState {
    /// What of this is about the receiver at the URL that the endpoint has had since `retargeted_at`.
    #[must_use]
    pub fn since(self, retargeted_at: Option<Timestamp>) -> Self {
        let old = |at: Option<Timestamp>| at.is_some() && at < retargeted_at;
        if retargeted_at.is_none() {
            return self;
        }
        let failing = !old(self.failing_since);
        Self {
            view: ReceiverView {
                belief: self.view.belief.filter(|belief| !old(Some(belief.at))),
                ..self.view
            },
            failing_since: self.failing_since.filter(|_| failing),
            failures: if failing { self.failures } else { 0 },
            accepted_at: self.accepted_at.filter(|at| !old(Some(*at))),
            hold: self.hold.filter(|hold| !old(Some(hold.since))),
        }
    }

    /// Until when nothing is sent to `endpoint` because its receiver asked for that. A receiver at a former
    /// URL does not count, nor what it asked for before the endpoint's owner enabled it.
    pub fn held(&self, endpoint: &Endpoint, now: Timestamp) -> Option<Hold> {
        let void_before = endpoint.retargeted_at.max(endpoint.resumed_at);
        self.hold
            .filter(|hold| now < hold.until && Some(hold.since) >= void_before)
    }

    /// An attempt failed. Returns whether that is worth storing: a count that no longer matters is not.
    pub fn note_failure(&mut self, now: Timestamp) -> bool {
        self.failing_since.get_or_insert(now);
        let counted = self.failures < limits::DISABLE_AFTER_FAILURES;
        self.failures += u32::from(counted);
        counted
    }

    /// An attempt was accepted. Returns whether that ended a time of failing.
    pub fn note_success(&mut self) -> bool {
        self.failures = 0;
        self.failing_since.take().is_some()
    }

    /// Whether nothing was accepted for so long that nothing more should be sent: `disable_after` has
    /// passed since the first failure, and there were at least [`limits::DISABLE_AFTER_FAILURES`].
    pub fn failed_too_long(&self, now: Timestamp, disable_after: Millis) -> bool {
        self.failures >= limits::DISABLE_AFTER_FAILURES
            && self
                .failing_since
                .is_some_and(|since| now.since(since) >= disable_after)
    }
}

/// A block of due rows of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct DueBlock {
    /// The earliest rows, in order of due time, then delivery id.
    pub rows: Vec<Due>,
    /// When the first row that is not in `rows` is due, if there is one.
    pub next_due_at: Option<Timestamp>,
}

/// Which due rows to read.
#[derive(Debug, Clone, Copy)]
pub struct DueQuery {
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Of which endpoint.
    pub endpoint: EndpointId,
    /// Only rows due at or before this time.
    pub until: Timestamp,
    /// At most this many rows.
    pub limit: usize,
    /// Stop after this many bytes of payload (at least one row is returned).
    pub payload_bytes: usize,
}

//! The store: the one place where state survives.
//!
//! [`Store`] has one method per atomic step. Each either happened whole and survives a crash from
//! the moment its future is ready with `Ok`, or did not happen. Whoever calls it has decided before:
//! the store compares versions and writes, it never thinks.
//!
//! Configuration (workspaces, apps, endpoints, keyrings, keys) is small, versioned and changed by
//! [`Store::change`]. Traffic (messages, due deliveries, attempts, settled deliveries) is large,
//! append-mostly and goes through [`Store::accept`] and [`Store::finish`].
//!
//! The due rows *are* the queue. A delivery is pending exactly while it has one; the same
//! transaction that removes it writes how the delivery settled.
//!
//! What an engine must do beyond this text is in the conformance suite, which every engine passes
//! unchanged.

use std::collections::HashSet;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hookturn_verify::Fingerprint;

use crate::audit::{AuditEntry, Context, Recorded};
use crate::bulk::{Bulk, BulkItem, ItemCounts, ItemKind};
use crate::delivery::{Attempt, CodeClass, Delivery, DeliveryStatus, Next};
use crate::endpoint::Endpoint;
use crate::id::{
    ApiKeyId, BulkId, ClientId, DeliveryId, EndpointId, KeyringId, MessageId, RotationId,
    ScheduleId, SecretId, WorkspaceId,
};
use crate::limits;
use crate::message::{EventType, Message};
use crate::proof::{Findings, Noted};
use crate::receiver::ReceiverView;
use crate::rotation::{Keyring, Rotation};
use crate::schedule::{Schedule, ScheduleNote};
use crate::time::{Millis, Timestamp};
use crate::workspace::{ApiKey, App, Workspace};

/// What was counted of a workspace lately, so that it outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFigures {
    /// Whose.
    pub workspace: WorkspaceId,
    /// When something was last counted.
    pub at: Timestamp,
    /// The counts; what the bytes mean is known to whoever counts.
    pub counted: Vec<u8>,
}

/// What every method of [`Store`] returns.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Someone else changed the same thing first. Nothing was written; read again and decide anew.
    #[error("{what} was changed by another request at the same time")]
    Conflict {
        /// Which thing, with its id.
        what: String,
    },
    /// The idempotency key already has an answer. Nothing was written; read it and replay.
    #[error("the idempotency key has been used")]
    IdempotencyKeyUsed,
    /// A name that must be unique is taken. Nothing was written.
    #[error("{what} already exists")]
    Duplicate {
        /// Which thing.
        what: String,
    },
    /// A stored row cannot be: it was damaged or written by other software.
    #[error("the row {row} of table {table} cannot be read in column {column}")]
    ImpossibleRow {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The key of the row as text.
        row: String,
        /// What was wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// More is waiting than the store takes. Nothing was written; try again soon.
    #[error("too much is waiting to be stored")]
    Busy,
    /// The store is stopping or its writer is gone. Whether the step happened is unknown.
    #[error("the store has stopped")]
    Stopped,
    /// The engine cannot write at the moment: its disk is full, read-only or failing, or its database
    /// cannot be reached. Nothing of the step was written, and the same step can succeed once that is
    /// mended.
    #[error(
        "the store cannot write to {step}: its disk is full, read-only or failing, or its database is away"
    )]
    Unwritable {
        /// What it was doing.
        step: &'static str,
        /// The engine's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database is damaged: a page of it is not what was written. Nothing of the step was written, and
    /// no repetition will help.
    #[error("the database is damaged: the store failed to {step}")]
    Damaged {
        /// What it was doing.
        step: &'static str,
        /// The engine's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine lost its database between a commit and its answer: whether the step happened is not
    /// known yet. The engine finds it out before it writes anything else.
    #[error("the store lost its database while it stored this; whether it did is not known yet")]
    Uncertain,
    /// The engine failed. Nothing of the step was written unless the engine says otherwise.
    #[error("the store failed to {step}")]
    Engine {
        /// What it was doing.
        step: &'static str,
        /// The engine's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// One write of a [`Change`]. A value's `version` is the one it will have; the stored version must
/// be exactly one less (version 1 must not exist yet), or the whole change is a conflict.
#[derive(Debug, Clone)]
pub enum Write {
    /// Inserts or replaces a workspace. Its name is unique.
    Workspace(Workspace),
    /// Inserts or replaces an API key. Its hash is unique.
    ApiKey(ApiKey),
    /// Inserts or replaces an app.
    App(App),
    /// Removes an app. Its endpoints must be written as deleted in the same change.
    RemoveApp {
        /// Its workspace.
        workspace: WorkspaceId,
        /// The app.
        app: ClientId,
        /// The version that is removed.
        version: u64,
    },
    /// Inserts or replaces an endpoint.
    Endpoint(Endpoint),
    /// Inserts or replaces a keyring.
    Keyring(Keyring),
    /// Inserts or replaces a rotation. Its version is the version of its keyring at the time, so
    /// it is not compared on its own.
    Rotation(Rotation),
    /// Keeps the sealed value of a secret. It is unmarked until [`Write::Mark`].
    Secret(SealedSecret),
    /// Keeps the mark by which a secret is found again, also when its value is erased. Of a secret
    /// that was erased before it was marked nothing is kept.
    Mark(MarkedSecret),
    /// Keeps the sealed key of the marks if the present one is still `old`; else it is a conflict.
    MarkKey {
        /// The new one.
        sealed: Arc<[u8]>,
        /// The one it replaces; none for the first.
        old: Option<Arc<[u8]>>,
    },
    /// Inserts or replaces a bulk rotation.
    Bulk(Bulk),
    /// Inserts or replaces an item of one.
    BulkItem(BulkItem),
    /// Replaces what probes and deliveries have shown of an endpoint's receiver. It has no version: the
    /// last one counts. Of a deleted endpoint nothing is kept.
    Findings {
        /// The endpoint's workspace.
        workspace: WorkspaceId,
        /// The endpoint.
        endpoint: EndpointId,
        /// What was found.
        findings: Findings,
    },
    /// Replaces what the owner of a keyring was told about its open rotation. It has no version: the last
    /// one counts, and one sweep writes it.
    Noted {
        /// The keyring's workspace.
        workspace: WorkspaceId,
        /// The keyring.
        keyring: KeyringId,
        /// What was said.
        noted: Noted,
    },
    /// Moves the place up to which a workspace's audit log was reported, and accepts the messages that
    /// report what stands in between: as [`Store::accept`] does, and both or neither. A conflict when the
    /// place is not `after` (0 at first), so that nothing is reported twice.
    Reported {
        /// The workspace whose log it is.
        workspace: WorkspaceId,
        /// The number of the last entry that was reported before.
        after: u64,
        /// That of the last one that is reported now.
        through: u64,
        /// The messages, of whichever workspaces.
        messages: Vec<NewMessage>,
    },
    /// Inserts or replaces a schedule.
    Schedule(Schedule),
    /// Removes a schedule, and with it what it did for its keyrings.
    RemoveSchedule {
        /// Its workspace.
        workspace: WorkspaceId,
        /// The schedule.
        schedule: ScheduleId,
        /// The version that is removed.
        version: u64,
    },
    /// Replaces what a schedule did for a keyring. It has no version: what must not happen twice is in the
    /// same change as the keyring, which has one. Of a removed schedule nothing is kept.
    ScheduleNote {
        /// The workspace of both.
        workspace: WorkspaceId,
        /// The schedule.
        schedule: ScheduleId,
        /// The keyring.
        keyring: KeyringId,
        /// What it did.
        note: ScheduleNote,
    },
    /// Erases the sealed value of a destroyed secret. Its mark stays.
    EraseSecret {
        /// Its workspace.
        workspace: WorkspaceId,
        /// Its keyring.
        keyring: KeyringId,
        /// The secret.
        secret: SecretId,
        /// Whether every idempotent answer that shows it is erased too. Their keys stay used until they
        /// expire.
        answers: bool,
    },
    /// Queues a delivery again, due at `at`, whatever its state; its retry policy starts anew. It must
    /// still be as it is given here, and its message must still be there, or the whole change is a
    /// conflict.
    Requeue {
        /// As it was read.
        delivery: Delivery,
        /// From when on it is due.
        at: Timestamp,
    },
}

/// The sealed value of a secret: an AEAD box bound to workspace, keyring, id and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its keyring.
    pub keyring: KeyringId,
    /// The secret.
    pub secret: SecretId,
    /// Its version within the keyring, from 1.
    pub version: u32,
    /// Header (with the id of the master key), nonce, ciphertext and tag.
    pub sealed: Arc<[u8]>,
}

/// By which a secret is found without being known: HMAC-SHA-256 of the SHA-256 of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretMark(pub [u8; 32]);

/// A secret and its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkedSecret {
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its keyring.
    pub keyring: KeyringId,
    /// The secret.
    pub secret: SecretId,
    /// Its mark.
    pub mark: SecretMark,
}

/// Which items of a bulk rotation to read.
#[derive(Debug, Clone, Copy)]
pub struct BulkItemQuery {
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Of which bulk rotation.
    pub bulk: BulkId,
    /// From this position on.
    pub from: u32,
    /// Up to but not including this one.
    pub until: u32,
    /// Only of this kind.
    pub kind: Option<ItemKind>,
    /// At most this many.
    pub limit: usize,
}

/// Several writes that happen together, with who asked for them and the answer they got.
#[derive(Debug, Clone)]
pub struct Change {
    /// The workspace whose audit chain records it.
    pub workspace: WorkspaceId,
    /// What to write, in order.
    pub writes: Vec<Write>,
    /// What to record in the audit log, in order.
    pub audit: Vec<AuditEntry>,
    /// Who did it, and in which request.
    pub context: Context,
    /// When.
    pub at: Timestamp,
    /// The answer to replay for the same idempotency key.
    pub idempotency: Option<IdempotencyRecord>,
}

impl Change {
    /// Whether it moves items of a bulk rotation, for which nobody waits. An engine may let it wait a few
    /// milliseconds for something that somebody waits for.
    pub fn moves_items(&self) -> bool {
        let item = |write: &Write| matches!(write, Write::BulkItem(_));
        self.idempotency.is_none() && self.writes.iter().any(item)
    }
}

/// The stored answer of a request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Which key, within what it is bound to.
    pub key: IdempotencyKey,
    /// SHA-256 of what the same key must repeat: the body.
    pub fingerprint: [u8; 32],
    /// The sealed answer: it may hold a secret. `None` once it was erased with the secret it shows.
    pub sealed_response: Option<Bytes>,
    /// What it shows that is shown once, if it does.
    pub shows: Option<Shows>,
    /// From when on the key is free again.
    pub expires_at: Timestamp,
}

/// A value that an idempotent answer shows, and whom it was shown to first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shows {
    /// Whose value.
    pub what: Shown,
    /// The API key whose request made it.
    pub to: ApiKeyId,
}

/// Something whose value is shown in the answer that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shown {
    /// A secret.
    Secret {
        /// Its id.
        id: SecretId,
        /// Its fingerprint, which the audit log names also when its keyring has forgotten it.
        fingerprint: Fingerprint,
    },
    /// The text of an API key.
    ApiKey(ApiKeyId),
}

/// SHA-256 over workspace, method, path and the caller's key: what an answer is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(pub [u8; 32]);

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

/// Everything that is configured, as loaded at the start.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    /// All workspaces.
    pub workspaces: Vec<Workspace>,
    /// All keys, revoked and expired ones too.
    pub api_keys: Vec<ApiKey>,
    /// All apps.
    pub apps: Vec<App>,
    /// All endpoints; deleted ones only while something refers to them.
    pub endpoints: Vec<Endpoint>,
    /// All keyrings.
    pub keyrings: Vec<Keyring>,
    /// All sealed secrets.
    pub secrets: Vec<SealedSecret>,
    /// What is remembered of receivers.
    pub receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    /// What probes and deliveries have shown of receivers.
    pub findings: Vec<(EndpointId, Findings)>,
    /// What owners were told about the latest rotations of their keyrings.
    pub noted: Vec<(KeyringId, Noted)>,
    /// Up to which entry the audit logs were reported, where any was, and whether entries follow it.
    pub reported: Vec<ReportedLog>,
    /// All schedules.
    pub schedules: Vec<Schedule>,
    /// What they did for keyrings.
    pub schedule_notes: Vec<(ScheduleId, KeyringId, ScheduleNote)>,
    /// Last use of keys, where known.
    pub api_key_uses: Vec<(ApiKeyId, Timestamp)>,
    /// Bulk rotations that are not over, without their items.
    pub bulks: Vec<Bulk>,
    /// The sealed key of the marks, once there is one.
    pub mark_key: Option<Arc<[u8]>>,
}

/// How far the audit log of a workspace was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedLog {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The number of the last entry that was reported; 0 for none.
    pub through: u64,
    /// Whether later entries are there.
    pub more: bool,
}

/// A page request over ids that sort by time, newest first.
#[derive(Debug, Clone, Copy)]
pub struct Page<Id> {
    /// Only ids strictly before this one.
    pub before: Option<Id>,
    /// At most this many.
    pub limit: usize,
}

/// Which deliveries to list.
#[derive(Debug, Clone)]
pub struct DeliveryQuery {
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Of which app.
    pub app: ClientId,
    /// Only in this state.
    pub status: Option<DeliveryStatus>,
    /// Only for this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Only of this event type.
    pub event_type: Option<EventType>,
    /// Only of this message.
    pub message: Option<MessageId>,
    /// Only created at or after this time.
    pub since: Option<Timestamp>,
    /// Only created before this time.
    pub until: Option<Timestamp>,
    /// Which page.
    pub page: Page<DeliveryId>,
}

/// Which deliveries to look for, in one app or in all of a workspace, with how much effort.
///
/// A search looks at deliveries one after the other in the order of their ids and stops at its limit or
/// when its effort is spent, whichever filters it has: so its time does not grow with what is stored.
#[derive(Debug, Clone)]
pub struct DeliverySearch {
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Of which app; of all of them without.
    pub app: Option<ClientId>,
    /// Only in this state.
    pub status: Option<DeliveryStatus>,
    /// Only those whose last attempt ended so.
    pub class: Option<CodeClass>,
    /// Only for this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Only of this event type.
    pub event_type: Option<EventType>,
    /// Only of this message.
    pub message: Option<MessageId>,
    /// Only this one.
    pub delivery: Option<DeliveryId>,
    /// Only created at or after this time.
    pub since: Option<Timestamp>,
    /// Only created before this time.
    pub until: Option<Timestamp>,
    /// Only with these bytes somewhere in the message's payload.
    pub text: Option<String>,
    /// Where to begin, and which way to go.
    pub from: SearchFrom,
    /// Stop when so many are found.
    pub limit: usize,
    /// Stop when about so many rows were looked at; what a row costs beyond itself (an attempt, a
    /// payload) is counted as several.
    pub effort: u32,
    /// Whether the last attempt of each is wanted.
    pub with_attempts: bool,
}

/// Where a search begins, and which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchFrom {
    /// At the newest, to the older ones.
    Newest,
    /// Strictly before this one, to the older ones.
    OlderThan(DeliveryId),
    /// Strictly after this one, to the newer ones.
    NewerThan(DeliveryId),
}

/// What a search found.
#[derive(Debug, Clone, Default)]
pub struct DeliveriesFound {
    /// Newest first, whichever way it went.
    pub items: Vec<FoundDelivery>,
    /// The last delivery that was looked at, found or not, if there may be more beyond it.
    pub resume: Option<DeliveryId>,
}

/// A delivery and how it last went.
#[derive(Debug, Clone)]
pub struct FoundDelivery {
    /// It.
    pub delivery: Delivery,
    /// Its last attempt, if there was one and it was wanted.
    pub last_attempt: Option<Attempt>,
}

/// Which settled deliveries to queue again.
#[derive(Debug, Clone, Copy)]
pub struct RecoverQuery {
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Of which app.
    pub app: ClientId,
    /// Of which endpoint.
    pub endpoint: EndpointId,
    /// Created at or after this time.
    pub since: Timestamp,
    /// Created before this time.
    pub until: Timestamp,
    /// Which of them: exhausted or delivered; `Pending` selects nothing.
    pub status: DeliveryStatus,
}

/// How far a block-wise step came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<Id> {
    /// Rows changed (or counted, in a dry run) by this block.
    pub rows: usize,
    /// Where to go on, or `None` when nothing is left.
    pub resume: Option<Id>,
}

/// A hint that due work changed. Hints are sent after the commit and may be late, never wrong: the
/// due rows are the truth.
#[derive(Debug)]
pub enum Hint {
    /// Rows accepted by this node, ready to be sent without reading them back.
    Accepted(Vec<Due>),
    /// Rows accepted by another node, which told of them with what they carry. They may have been heard late: read from
    /// the database before, or sent.
    Told(Vec<Due>),
    /// An endpoint was written: its state, limits or target may be new.
    Endpoint(Arc<Endpoint>),
    /// Rows of this endpoint were queued by hand or moved.
    Requeued(WorkspaceId, EndpointId),
    /// There are, or may be, rows of this endpoint on disk that are due then: another node accepted them, or sent
    /// to the endpoint before.
    Due(WorkspaceId, EndpointId, Timestamp),
}

/// Who is told about due work.
pub trait HintSink: Send + Sync {
    /// Called after every commit that changed due work. Must not block.
    fn hint(&self, hints: Vec<Hint>);
}

/// What the store knows about itself, for pages, metrics and the doctor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Due rows.
    pub due: u64,
    /// Due time of the earliest, if there is one.
    pub oldest_due_at: Option<Timestamp>,
    /// Bytes on disk.
    pub bytes: u64,
}

/// How far the nodes that share a store have followed a change: see [`Store::fence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Nodes that might have signed by what was before, this one included.
    pub nodes: u32,
    /// Those of them that said that they follow it. The others signed nothing any more when the fence was done,
    /// unless it was given up.
    pub confirmed: u32,
    /// How long that took.
    pub millis: Millis,
    /// Whether no node signs by what was before any more; not if the fence was given up first.
    pub closed: bool,
}

impl Fence {
    /// That of a store which nobody shares.
    pub const ALONE: Self = Self {
        nodes: 1,
        confirmed: 1,
        millis: 0,
        closed: true,
    };
}

/// For whom a fence waits: see [`Store::fence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FenceFor {
    /// For the nodes that answer. One that has been silent until its last confirmation ran out is not waited for: it
    /// follows before it answers anybody.
    Answering,
    /// For all of them, the silent ones included: until none can sign by what was before.
    All,
}

/// The store. See the module text for the rules that every method shares.
pub trait Store: Send + Sync {
    // ----- nodes that share it -----

    /// The version of the live view as it is now. What is decided from the view, and handed to
    /// [`Store::change_as_of`] with a version that was read before, is not stored if another node changed
    /// meanwhile what it may rest on.
    fn view(&self) -> u64 {
        0
    }

    /// The same as [`Store::change`] for what was decided from a view that was at least of this version. It is a
    /// `Conflict` if another node changed its workspace since: decide again.
    fn change_as_of(&self, change: Change, _view: u64) -> StoreFuture<'_, ()> {
        self.change(change)
    }

    /// Waits until no node answers, or signs, by anything that was before the changes that were answered: each node
    /// said that it follows them, or its last confirmation ran out. Takes two seconds at most.
    fn fence(&self, _whom: FenceFor) -> StoreFuture<'_, Fence> {
        Box::pin(std::future::ready(Ok(Fence::ALONE)))
    }

    /// Waits until the live view is confirmed, and so shows every change that was answered by any node: for two seconds
    /// at most, and not at all when the database is known to be away. Whether it is.
    fn confirmed(&self) -> StoreFuture<'_, bool> {
        Box::pin(std::future::ready(Ok(true)))
    }

    /// Whether this node sends what is due for an endpoint.
    fn owns(&self, _endpoint: EndpointId) -> bool {
        true
    }

    /// Whether this node does what one node does for all.
    fn leads(&self) -> bool {
        true
    }

    /// The workspaces whose audit log holds entries that were not reported, if others may have added some that
    /// this node was not told of.
    fn unreported(&self) -> StoreFuture<'_, Vec<WorkspaceId>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    // ----- configuration -----

    /// Reads everything that is configured.
    fn load(&self) -> StoreFuture<'_, Configuration>;

    /// Writes a change whole or not at all, with its audit entries and its idempotent answer.
    ///
    /// Errors: `Conflict` when a version is not the expected one, `Duplicate` for a taken unique
    /// name, `IdempotencyKeyUsed` when the key has a live answer. Concurrent changes of one thing
    /// have exactly one winner. When it is ready, the engine's live view already shows the change.
    fn change(&self, change: Change) -> StoreFuture<'_, ()>;

    /// Records audit entries that change nothing, such as a reveal or a denied attempt.
    fn audit(
        &self,
        workspace: WorkspaceId,
        context: Context,
        entries: Vec<AuditEntry>,
        at: Timestamp,
    ) -> StoreFuture<'_, ()>;

    /// A page of the audit log, oldest first, starting after `after` (0 for the beginning).
    ///
    /// It ends before an entry that cannot be read. When that is the first one of the page, the error
    /// is `ImpossibleRow` of the table `audit` with the entry's number as its row.
    fn audit_log(
        &self,
        workspace: WorkspaceId,
        after: u64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Recorded>>;

    /// The number of the last entry of the audit log; 0 when it is empty.
    fn audit_head(&self, workspace: WorkspaceId) -> StoreFuture<'_, u64>;

    /// The stored answer for a key, unless it expired by `now`.
    fn idempotent_answer(
        &self,
        key: IdempotencyKey,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<IdempotencyRecord>>;

    /// One rotation.
    fn rotation(&self, workspace: WorkspaceId, id: RotationId)
    -> StoreFuture<'_, Option<Rotation>>;

    /// A page of rotations, newest first, of one keyring or of all.
    fn rotations(
        &self,
        workspace: WorkspaceId,
        keyring: Option<KeyringId>,
        page: Page<RotationId>,
    ) -> StoreFuture<'_, Vec<Rotation>>;

    /// The secrets that have one of these marks, destroyed ones included, in order of their ids.
    fn marked(&self, marks: Vec<SecretMark>) -> StoreFuture<'_, Vec<MarkedSecret>>;

    /// Secrets that have a value and no mark yet, the oldest first.
    fn unmarked(&self, limit: usize) -> StoreFuture<'_, Vec<SecretId>>;

    /// One bulk rotation.
    fn bulk(&self, workspace: WorkspaceId, id: BulkId) -> StoreFuture<'_, Option<Bulk>>;

    /// A page of bulk rotations, newest first.
    fn bulks(&self, workspace: WorkspaceId, page: Page<BulkId>) -> StoreFuture<'_, Vec<Bulk>>;

    /// Items of a bulk rotation, in their order.
    fn bulk_items(&self, query: BulkItemQuery) -> StoreFuture<'_, Vec<BulkItem>>;

    /// How many items of a bulk rotation are in which state, from a position up to but not including
    /// another.
    fn bulk_counts(
        &self,
        workspace: WorkspaceId,
        bulk: BulkId,
        from: u32,
        until: u32,
    ) -> StoreFuture<'_, ItemCounts>;

    /// Replaces sealed values by the same secrets sealed under another master key, each only if
    /// its stored bytes are still `old`. Returns how many were replaced.
    fn reseal(&self, swaps: Vec<(SealedSecret, Arc<[u8]>)>) -> StoreFuture<'_, usize>;

    /// Remembers when keys were last used.
    fn touch_api_keys(&self, uses: Vec<(ApiKeyId, Timestamp)>) -> StoreFuture<'_, ()>;

    /// Keeps what was counted of workspaces, each in place of what was kept of it before, and forgets those
    /// of before this time; what is kept of others stays. All in one transaction.
    fn keep_figures(&self, kept: Vec<KeptFigures>, forget_before: Timestamp)
    -> StoreFuture<'_, ()>;

    /// What was kept of at most so many workspaces, the latest first.
    fn kept_figures(&self, limit: usize) -> StoreFuture<'_, Vec<KeptFigures>>;

    // ----- traffic -----

    /// Accepts messages: messages, due rows and idempotent answer in one synced transaction. When
    /// it is ready the messages may be acknowledged (G1). Hints follow the commit.
    ///
    /// Errors: `Busy` at once when more is waiting than the engine bounds, `IdempotencyKeyUsed`.
    fn accept(&self, accept: Accept) -> StoreFuture<'_, ()>;

    /// The same for messages whose endpoints were chosen from a view that was at least of this version. It is a
    /// `Conflict`, and nothing is accepted, if another node changed apps or endpoints of their workspace since: choose
    /// again.
    fn accept_as_of(&self, accept: Accept, _view: u64) -> StoreFuture<'_, ()> {
        self.accept(accept)
    }

    /// Records what came of due deliveries, and receivers that changed, in one transaction: each
    /// attempt, the removal of its due row, and either the next due row or the settled delivery.
    ///
    /// The rows finish in the order of the calls. The future may be dropped: the work is queued
    /// when the method returns and rides with the next commit. A crash before that commit leaves
    /// the due row, so that the same message is sent again (G2).
    fn finish(
        &self,
        finishes: Vec<Finish>,
        receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    ) -> StoreFuture<'static, ()>;

    /// Reads a block of due rows of one endpoint. Everything handed to `finish` before this call
    /// is already applied.
    fn due(&self, query: DueQuery) -> StoreFuture<'_, DueBlock>;

    /// The same for a caller that holds some of the rows, in the form in which they are stored: the engine may leave those
    /// out of the block, and need not read their messages. They count against the limit all the same.
    fn due_beside(&self, query: DueQuery, held: HashSet<DeliveryId>) -> StoreFuture<'_, DueBlock> {
        drop(held);
        self.due(query)
    }

    /// When the earliest row of each endpoint with due rows is due.
    fn due_endpoints(&self) -> StoreFuture<'_, Vec<(WorkspaceId, EndpointId, Timestamp)>>;

    /// A block of settled deliveries that can be queued again, in order of their ids after `after`.
    /// [`Write::Requeue`] does it.
    fn recoverable(
        &self,
        query: RecoverQuery,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Delivery>>;

    /// One message.
    fn message(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        id: MessageId,
    ) -> StoreFuture<'_, Option<Arc<Message>>>;

    /// A page of messages, newest first, created in `[since, until)`.
    fn messages(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        page: Page<MessageId>,
    ) -> StoreFuture<'_, Vec<Arc<Message>>>;

    /// One delivery with its attempts, oldest first.
    fn delivery(
        &self,
        workspace: WorkspaceId,
        id: DeliveryId,
    ) -> StoreFuture<'_, Option<(Delivery, Vec<Attempt>)>>;

    /// A page of deliveries, newest first.
    fn deliveries(&self, query: DeliveryQuery) -> StoreFuture<'_, Vec<Delivery>>;

    /// Looks for deliveries with a bounded effort; see [`DeliverySearch`].
    fn search(&self, search: DeliverySearch) -> StoreFuture<'_, DeliveriesFound>;

    /// Event types that were published in a workspace, sorted.
    fn event_types(&self, workspace: WorkspaceId) -> StoreFuture<'_, Vec<EventType>>;

    // ----- upkeep -----

    /// Removes a block of messages accepted before `before` whose deliveries are all settled, with
    /// those deliveries and attempts; of bulk rotations that were over before `before`, each after its
    /// items, and of items from before it whose bulk rotation was never written; and of idempotent answers
    /// expired by `now`. Audit entries are never removed, nor rotations. `resume` is set while more is left.
    fn prune(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> StoreFuture<'_, Progress<()>>;

    /// Writes a consistent copy to `path`, which must not exist, while everything goes on.
    fn backup(&self, path: PathBuf) -> StoreFuture<'_, ()>;

    /// Counts for pages and metrics; may take milliseconds, so not for the hot path.
    fn stats(&self) -> StoreFuture<'_, StoreStats>;

    /// Waits until everything queued before this call is durable.
    fn flush(&self) -> StoreFuture<'_, ()>;
}

/// How often a block-wise step yields to other work, in milliseconds between blocks.
pub const BLOCK_PAUSE: Millis = 5;

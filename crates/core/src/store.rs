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

use crate::audit::{AuditEntry, Context, Recorded};
use crate::bulk::{Bulk, BulkItem, ItemCounts};
use crate::delivery::{Attempt, Delivery};
use crate::endpoint::Endpoint;
use crate::id::{
    ApiKeyId, BulkId, ClientId, DeliveryId, EndpointId, KeyringId, MessageId, RotationId, SecretId,
    WorkspaceId,
};
use crate::message::{EventType, Message};
use crate::rotation::Rotation;
use crate::time::{Millis, Timestamp};

mod change;
mod error;
mod reading;
mod sharing;
mod traffic;

pub use change::{
    Change, IdempotencyKey, IdempotencyRecord, MarkedSecret, SealedSecret, SecretMark, Shown,
    Shows, Write,
};
pub use error::StoreError;
pub use reading::{
    BulkItemQuery, Configuration, DeliveriesFound, DeliveryQuery, DeliverySearch, FoundDelivery,
    KeptFigures, Page, Progress, RecoverQuery, ReportedLog, SearchFrom, StoreStats,
};
pub use sharing::{Fence, FenceFor};
pub use traffic::{Accept, Due, DueBlock, DueQuery, Finish, Hold, NewMessage, ReceiverState};

/// What every method of [`Store`] returns.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

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

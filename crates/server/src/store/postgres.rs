//! The engine for many nodes: PostgreSQL 15 or newer, as the store of record.
//!
//! One thread owns the only writing connection of this process ([`writer`]). It takes whatever waits, writes
//! it in one transaction as a few statements over arrays, and answers after the commit, so that one sync
//! pays for many. Readers have a few connections of their own ([`reader`]) and see the last commit. Isolation
//! is *read committed*: what must not be overwritten is compared by version in the statement that writes it,
//! and the head of an audit chain is locked.
//!
//! **Spreading.** The schema is one that a distributed PostgreSQL (Citus, Yugabyte) takes as it is. Such a
//! database places rows by a column, and can promise uniqueness only within a key that begins with it. So:
//!
//! - every key begins with the workspace, and every statement of the hot path names it;
//! - there is no foreign key: what belongs together is written together, and removed together;
//! - there is no sequence: ids are made by the nodes and sort by time, and the audit log counts within its
//!   workspace, in a row that is locked there;
//! - what is unique over all workspaces is a table keyed by that alone: the name of a workspace, the hash
//!   of an API key, the key of an idempotent answer. An index that is not unique (the mark of a leaked secret,
//!   the expiry of an answer) may span workspaces, because such a question may be asked everywhere.
//!
//! **Time.** Messages, attempts and settled deliveries stand in partitions of a day ([`days`]) and are never
//! changed but for a late attempt's count; retention drops whole days. What changes all the time is the
//! `due` table, which holds pending deliveries only.
//!
//! **Nodes.** Any number of equal processes share a database. Each has a row and a lease, without which it can write
//! nothing ([`node`]); each follows what the others change before it writes or signs anything ([`view`]); and the
//! shards of the endpoints are divided among them ([`review`]), those of one that does not live any more too
//! ([`takeover`]). A change that retires a key waits until every node follows it
//! ([`fence`](super::sharing::fence)). They agree on time by the clock of the database
//! ([`skew`](super::sharing::skew)), and tell each other what there is to look at ([`ear`]).

mod absence;
mod accepting;
mod backup;
mod bulks;
mod configuration;
mod connect;
mod days;
mod due;
mod ear;
mod effects;
mod examine;
mod fence;
mod figures;
pub(in crate::store) mod filling;
mod finishing;
mod group;
mod ledger;
mod listing;
mod loading;
mod marks;
mod master_key;
mod migrate;
mod node;
mod outbox;
mod planned;
mod reader;
mod requeue;
mod review;
mod rows;
mod searching;
mod session;
mod standing;
mod takeover;
mod thread;
mod tls;
mod transaction;
mod upkeep;
mod view;
mod writer;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hookturn_core::audit::{AuditEntry, Context, Recorded};
use hookturn_core::bulk::{Bulk, BulkItem, ItemCounts};
use hookturn_core::delivery::{Attempt, Delivery};
use hookturn_core::id::{
    ApiKeyId, BulkId, ClientId, DeliveryId, EndpointId, KeyringId, MessageId, RotationId, SecretId,
    WorkspaceId,
};
use hookturn_core::limits;
use hookturn_core::message::{EventType, Message};
use hookturn_core::rotation::Rotation;
use hookturn_core::store::{
    Accept, BulkItemQuery, Change, Configuration, DeliveriesFound, DeliveryQuery, DeliverySearch,
    DueBlock, DueQuery, Fence, FenceFor, Finish, HintSink, IdempotencyKey, IdempotencyRecord,
    KeptFigures, MarkedSecret, Page, Progress, ReceiverState, RecoverQuery, SealedSecret,
    SecretMark, Store, StoreError, StoreFuture, StoreStats,
};
use hookturn_core::time::Timestamp;

use super::live::Live;
use super::owned::Owned;
use super::seal::Sealer;
use super::sharing;
use super::waiting::Waiting;
use absence::Absence;
use due::DueReads;
use node::Node;
use reader::Readers;
use writer::{Answer, Work, Writer};

pub use backup::{backup_beside, restore};
pub use connect::{OpenError, Target};
pub use examine::{Examined, examine};
pub use migrate::{Plan, PlannedStep, apply as migrate, plan};
pub use node::Holder;
pub use session::Gone;
pub use standing::{Figures, Standing};

/// The store on PostgreSQL. Cloning is cheap; the threads stop when the last clone is dropped, after what
/// was queued is written.
#[derive(Clone)]
pub struct PostgresStore {
    writer: Arc<Writer>,
    readers: Arc<Readers>,
    due_reads: Arc<DueReads>,
    waiting: Waiting,
    target: Arc<Target>,
    live: Arc<Live>,
    sharing: Sharing,
    node: uuid::Uuid,
    said: Arc<fence::LastSaid>,
    absence: Absence,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// How to open the store on PostgreSQL.
pub struct PostgresOptions {
    /// The database. Its schema `hookturn` is made when missing.
    pub target: Target,
    /// Kept as of every commit.
    pub live: Arc<Live>,
    /// Told about due work after every commit.
    pub hints: Arc<dyn HintSink>,
    /// How the database is shared with other nodes.
    pub sharing: Sharing,
}

/// How a database is shared with other nodes, and what is shared with the rest of this one.
#[derive(Debug, Clone)]
pub struct Sharing {
    /// How long a node may be silent before the others take over what it has.
    pub lease: Duration,
    /// Which shards this node owns: none until the store is open.
    pub owned: Arc<Owned>,
    /// How it stands among the others.
    pub standing: Arc<Standing>,
    /// What seals here: it follows which master key is current for all nodes. Without one this node says of no key that it
    /// has it.
    pub sealer: Option<Arc<Sealer>>,
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            lease: Duration::from_millis(limits::LEASE_DEFAULT),
            owned: Arc::new(Owned::none()),
            standing: Arc::default(),
            sealer: None,
        }
    }
}

impl PostgresStore {
    /// Connects, joins the nodes of the database, migrates, loads the live view and starts the threads.
    ///
    /// A database into which a store is being copied is refused: half of it is not there.
    pub async fn open(options: PostgresOptions) -> Result<Self, OpenError> {
        let node = Node::new(options.sharing.lease).having(options.sharing.sealer.as_deref());
        let absence = Absence::default();
        let writer = Arc::new(Writer::start(&options, &node, absence.clone()).await?);
        let readers = Arc::new(Readers::start(&options.target, absence.clone())?);
        let store = Self {
            writer,
            due_reads: DueReads::new(&readers),
            readers,
            waiting: Waiting::default(),
            target: Arc::new(options.target),
            live: options.live,
            sharing: options.sharing,
            node: node.id,
            said: Arc::default(),
            absence,
        };
        let half = store.meta(filling::PLACE).await;
        if half.map_err(OpenError::Failed)?.is_some() {
            // Given back at once: whoever goes on copying need not wait.
            store.close().await.map_err(OpenError::Failed)?;
            return Err(OpenError::HalfCopied {
                database: store.target.name(),
            });
        }
        Ok(store)
    }

    /// How many transactions were committed since the start: with the number of steps it tells how
    /// many share one sync.
    pub fn commits(&self) -> u64 {
        self.writer.commits()
    }

    /// How many reads of due rows there were since the start, each for whoever asked then.
    pub fn due_reads(&self) -> u64 {
        self.due_reads.count()
    }

    /// Whether the last transaction could not be written, or there is no connection.
    pub fn cannot_write(&self) -> bool {
        self.writer.cannot_write()
    }

    /// Waits until this node was taken over. It has stopped sending then, and must end.
    pub fn until_gone(&self) -> impl Future<Output = Gone> + Send + use<> {
        self.writer.until_gone()
    }

    /// Which shards this node owns.
    pub fn owned(&self) -> Arc<Owned> {
        Arc::clone(&self.sharing.owned)
    }

    /// How this node stands among those that share the database.
    pub fn figures(&self) -> Figures {
        self.sharing.standing.figures()
    }

    /// Writes what was queued and leaves in order, so that nobody need wait for this node.
    /// Whatever is asked later is refused.
    pub fn close(&self) -> StoreFuture<'_, ()> {
        self.step(Work::Leave)
    }

    /// Writes something small, so that [`PostgresStore::cannot_write`] learns whether the database takes
    /// it again.
    pub fn try_writing(&self) -> StoreFuture<'_, ()> {
        self.put_meta("write_check", b"ok".to_vec())
    }

    /// A value kept beside the data, such as the box that tells whether a master key fits.
    pub fn meta(&self, key: &'static str) -> StoreFuture<'_, Option<Vec<u8>>> {
        self.readers
            .read(move |session| async move { configuration::meta(&session, key).await })
    }

    /// Keeps such a value.
    pub fn put_meta(&self, key: &'static str, value: Vec<u8>) -> StoreFuture<'_, ()> {
        self.step(Work::PutMeta { key, value })
    }

    /// Keeps such a value unless there is one.
    pub fn put_first_meta(&self, key: &'static str, value: Vec<u8>) -> StoreFuture<'_, ()> {
        self.step(Work::PutFirstMeta { key, value })
    }

    /// Makes the master key of this id current for all nodes, by the box that says so, if each of them has it.
    /// Returns the names of those that have not; nothing is changed then.
    pub fn make_current(&self, key_id: &str, check: Vec<u8>) -> StoreFuture<'_, Vec<String>> {
        let answer = self.writer.order(Work::MasterKey {
            id: key_id.to_owned(),
            check: check.into(),
        });
        Box::pin(async move {
            match answer.await? {
                Answer::Lacking(nodes) => Ok(nodes),
                Answer::Done | Answer::Replaced(_) | Answer::Pruned(_) => Err(StoreError::Stopped),
            }
        })
    }

    /// Queues work whose answer is that it is done.
    fn step(&self, work: Work) -> StoreFuture<'static, ()> {
        let answer = self.writer.order(work);
        Box::pin(async move { answer.await.map(drop) })
    }
}

impl Store for PostgresStore {
    fn view(&self) -> u64 {
        self.live.version()
    }

    fn change_as_of(&self, change: Change, view: u64) -> StoreFuture<'_, ()> {
        self.step(Work::Change(Box::new(change), view))
    }

    fn fence(&self, whom: FenceFor) -> StoreFuture<'_, Fence> {
        let version = i64::try_from(self.live.version()).unwrap_or(i64::MAX);
        Box::pin(async move {
            let said = |moment| self.said.since(&self.readers, self.node, moment);
            Ok(sharing::fence::close(said, version, whom).await)
        })
    }

    fn confirmed(&self) -> StoreFuture<'_, bool> {
        let until = self.live.until_confirmed();
        Box::pin(async move {
            Ok(tokio::select! {
                biased;
                () = until => true,
                () = self.absence.outlasts(reader::PATIENCE) => false,
                () = tokio::time::sleep(sharing::lease::GRACE) => false,
            })
        })
    }

    fn owns(&self, endpoint: EndpointId) -> bool {
        self.sharing.owned.owns(endpoint)
    }

    fn leads(&self) -> bool {
        self.sharing.owned.leads()
    }

    fn unreported(&self) -> StoreFuture<'_, Vec<WorkspaceId>> {
        self.readers
            .read(move |session| async move { planned::unreported(&session).await })
    }

    fn load(&self) -> StoreFuture<'_, Configuration> {
        self.readers
            .read(move |session| async move { loading::load(&session).await })
    }

    fn change(&self, change: Change) -> StoreFuture<'_, ()> {
        self.change_as_of(change, self.live.version())
    }

    fn audit(
        &self,
        workspace: WorkspaceId,
        context: Context,
        entries: Vec<AuditEntry>,
        at: Timestamp,
    ) -> StoreFuture<'_, ()> {
        self.step(Work::Audit {
            workspace,
            context,
            entries,
            at,
        })
    }

    fn audit_log(
        &self,
        workspace: WorkspaceId,
        after: u64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Recorded>> {
        self.readers.read(move |session| async move {
            ledger::audit_log(&session, workspace, after, limit).await
        })
    }

    fn audit_head(&self, workspace: WorkspaceId) -> StoreFuture<'_, u64> {
        self.readers
            .read(move |session| async move { ledger::audit_head(&session, workspace).await })
    }

    fn idempotent_answer(
        &self,
        key: IdempotencyKey,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<IdempotencyRecord>> {
        self.readers
            .read(move |session| async move { ledger::idempotent_answer(&session, key, now).await })
    }

    fn rotation(
        &self,
        workspace: WorkspaceId,
        id: RotationId,
    ) -> StoreFuture<'_, Option<Rotation>> {
        self.readers.read(move |session| async move {
            configuration::rotation(&session, workspace, id).await
        })
    }

    fn rotations(
        &self,
        workspace: WorkspaceId,
        keyring: Option<KeyringId>,
        page: Page<RotationId>,
    ) -> StoreFuture<'_, Vec<Rotation>> {
        self.readers.read(move |session| async move {
            configuration::rotations(&session, workspace, keyring, page).await
        })
    }

    fn marked(&self, marks: Vec<SecretMark>) -> StoreFuture<'_, Vec<MarkedSecret>> {
        self.readers
            .read(move |session| async move { marks::marked(&session, &marks).await })
    }

    fn unmarked(&self, limit: usize) -> StoreFuture<'_, Vec<SecretId>> {
        self.readers
            .read(move |session| async move { marks::unmarked(&session, limit).await })
    }

    fn bulk(&self, workspace: WorkspaceId, id: BulkId) -> StoreFuture<'_, Option<Bulk>> {
        self.readers
            .read(move |session| async move { bulks::bulk(&session, workspace, id).await })
    }

    fn bulks(&self, workspace: WorkspaceId, page: Page<BulkId>) -> StoreFuture<'_, Vec<Bulk>> {
        self.readers
            .read(move |session| async move { bulks::bulks(&session, workspace, page).await })
    }

    fn bulk_items(&self, query: BulkItemQuery) -> StoreFuture<'_, Vec<BulkItem>> {
        self.readers
            .read(move |session| async move { bulks::items(&session, query).await })
    }

    fn bulk_counts(
        &self,
        workspace: WorkspaceId,
        bulk: BulkId,
        from: u32,
        until: u32,
    ) -> StoreFuture<'_, ItemCounts> {
        self.readers.read(move |session| async move {
            bulks::counts(&session, workspace, bulk, from, until).await
        })
    }

    fn reseal(&self, swaps: Vec<(SealedSecret, Arc<[u8]>)>) -> StoreFuture<'_, usize> {
        let answer = self.writer.order(Work::Reseal(swaps));
        Box::pin(async move {
            match answer.await? {
                Answer::Replaced(count) => Ok(count),
                Answer::Done | Answer::Pruned(_) | Answer::Lacking(_) => Err(StoreError::Stopped),
            }
        })
    }

    fn touch_api_keys(&self, uses: Vec<(ApiKeyId, Timestamp)>) -> StoreFuture<'_, ()> {
        self.step(Work::Touch(uses))
    }

    fn keep_figures(
        &self,
        kept: Vec<KeptFigures>,
        forget_before: Timestamp,
    ) -> StoreFuture<'_, ()> {
        self.step(Work::Figures {
            kept,
            forget_before,
        })
    }

    fn kept_figures(&self, limit: usize) -> StoreFuture<'_, Vec<KeptFigures>> {
        self.readers
            .read(move |session| async move { figures::kept(&session, limit).await })
    }

    fn accept(&self, accept: Accept) -> StoreFuture<'_, ()> {
        self.accept_as_of(accept, self.live.version())
    }

    fn accept_as_of(&self, accept: Accept, view: u64) -> StoreFuture<'_, ()> {
        match self.waiting.admit(&accept) {
            Ok(share) => self.step(Work::Accept(accept, view, share)),
            Err(busy) => Box::pin(std::future::ready(Err(busy))),
        }
    }

    fn finish(
        &self,
        finishes: Vec<Finish>,
        receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    ) -> StoreFuture<'static, ()> {
        self.step(Work::Finish {
            finishes,
            receivers,
        })
    }

    fn due(&self, query: DueQuery) -> StoreFuture<'_, DueBlock> {
        self.due_beside(query, HashSet::new())
    }

    fn due_beside(&self, query: DueQuery, held: HashSet<DeliveryId>) -> StoreFuture<'_, DueBlock> {
        // The barrier makes every finish queued before this call visible to the reader.
        let barrier = self.writer.order(Work::Barrier);
        Box::pin(async move {
            barrier.await?;
            self.due_reads.read(query, held).await
        })
    }

    fn due_endpoints(&self) -> StoreFuture<'_, Vec<(WorkspaceId, EndpointId, Timestamp)>> {
        self.readers
            .read(move |session| async move { due::due_endpoints(&session).await })
    }

    fn recoverable(
        &self,
        query: RecoverQuery,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Delivery>> {
        self.readers.read(move |session| async move {
            requeue::recoverable(&session, query, after, limit).await
        })
    }

    fn message(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        id: MessageId,
    ) -> StoreFuture<'_, Option<Arc<Message>>> {
        self.readers.read(move |session| async move {
            listing::message(&session, workspace, app, id).await
        })
    }

    fn messages(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        page: Page<MessageId>,
    ) -> StoreFuture<'_, Vec<Arc<Message>>> {
        self.readers.read(move |session| async move {
            listing::messages(&session, workspace, app, since, until, page).await
        })
    }

    fn delivery(
        &self,
        workspace: WorkspaceId,
        id: DeliveryId,
    ) -> StoreFuture<'_, Option<(Delivery, Vec<Attempt>)>> {
        self.readers
            .read(move |session| async move { listing::delivery(&session, workspace, id).await })
    }

    fn deliveries(&self, query: DeliveryQuery) -> StoreFuture<'_, Vec<Delivery>> {
        self.readers
            .read(move |session| async move { listing::deliveries(&session, &query).await })
    }

    fn search(&self, search: DeliverySearch) -> StoreFuture<'_, DeliveriesFound> {
        self.readers
            .read(move |session| async move { searching::search(&session, &search).await })
    }

    fn event_types(&self, workspace: WorkspaceId) -> StoreFuture<'_, Vec<EventType>> {
        self.readers
            .read(move |session| async move { listing::event_types(&session, workspace).await })
    }

    fn prune(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> StoreFuture<'_, Progress<()>> {
        let answer = self.writer.order(Work::Prune { before, now, limit });
        Box::pin(async move {
            match answer.await? {
                Answer::Pruned(progress) => Ok(progress),
                Answer::Done | Answer::Replaced(_) | Answer::Lacking(_) => Err(StoreError::Stopped),
            }
        })
    }

    fn backup(&self, path: PathBuf) -> StoreFuture<'_, ()> {
        self.readers
            .read_at_length(move |session| async move { backup::backup(&session, &path).await })
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.readers
            .read(move |session| async move { upkeep::stats(&session).await })
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        self.step(Work::Barrier)
    }
}

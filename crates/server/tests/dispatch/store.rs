//! The real store, watched, with faults on demand.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hookturn::store::sqlite::SqliteStore;
use hookturn_core::audit::{AuditEntry, Context, Recorded};
use hookturn_core::bulk::{Bulk, BulkItem, ItemCounts};
use hookturn_core::delivery::{Attempt, Delivery};
use hookturn_core::id::{
    ApiKeyId, BulkId, ClientId, DeliveryId, EndpointId, KeyringId, MessageId, RotationId, SecretId,
    WorkspaceId,
};
use hookturn_core::message::{EventType, Message};
use hookturn_core::rotation::Rotation;
use hookturn_core::store::{
    Accept, BulkItemQuery, Change, Configuration, DeliveriesFound, DeliveryQuery, DeliverySearch,
    DueBlock, DueQuery, Finish, IdempotencyKey, IdempotencyRecord, KeptFigures, MarkedSecret, Page,
    Progress, ReceiverState, RecoverQuery, SealedSecret, SecretMark, Store, StoreError,
    StoreFuture, StoreStats,
};
use hookturn_core::time::Timestamp;
use tokio::sync::watch;

pub(crate) struct Watched {
    pub(crate) inner: SqliteStore,
    /// Changes whenever something was written or refused.
    pub(crate) progress: watch::Sender<u64>,
    /// So many more finishes fail.
    pub(crate) failing_finishes: AtomicUsize,
    /// So many more reads of due rows fail.
    pub(crate) failing_reads: AtomicUsize,
    /// Finishes asked for, failed ones too.
    pub(crate) finishes: AtomicUsize,
    /// Reads of due rows asked for, failed ones too.
    pub(crate) reads: AtomicUsize,
    /// The most rows that one read asked for.
    pub(crate) widest_read: AtomicUsize,
}

fn takes_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        left.checked_sub(1)
    })
    .is_ok()
}

fn broken<'a, T: Send + 'a>(step: &'static str) -> StoreFuture<'a, T> {
    Box::pin(async move {
        Err(StoreError::Engine {
            step,
            source: "the test says so".into(),
        })
    })
}

impl Watched {
    pub(crate) fn new(inner: SqliteStore) -> Self {
        Self {
            inner,
            progress: watch::Sender::new(0),
            failing_finishes: AtomicUsize::new(0),
            failing_reads: AtomicUsize::new(0),
            finishes: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            widest_read: AtomicUsize::new(0),
        }
    }

    fn noted<'a, T: Send + 'a>(&'a self, step: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        Box::pin(async move {
            let result = step.await;
            self.progress.send_modify(|count| *count += 1);
            result
        })
    }
}

impl Store for Watched {
    fn load(&self) -> StoreFuture<'_, Configuration> {
        self.inner.load()
    }
    fn change(&self, change: Change) -> StoreFuture<'_, ()> {
        self.noted(self.inner.change(change))
    }
    fn audit(
        &self,
        workspace: WorkspaceId,
        context: Context,
        entries: Vec<AuditEntry>,
        at: Timestamp,
    ) -> StoreFuture<'_, ()> {
        self.inner.audit(workspace, context, entries, at)
    }
    fn audit_log(
        &self,
        workspace: WorkspaceId,
        after: u64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Recorded>> {
        self.inner.audit_log(workspace, after, limit)
    }
    fn audit_head(&self, workspace: WorkspaceId) -> StoreFuture<'_, u64> {
        self.inner.audit_head(workspace)
    }
    fn idempotent_answer(
        &self,
        key: IdempotencyKey,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<IdempotencyRecord>> {
        self.inner.idempotent_answer(key, now)
    }
    fn rotation(
        &self,
        workspace: WorkspaceId,
        id: RotationId,
    ) -> StoreFuture<'_, Option<Rotation>> {
        self.inner.rotation(workspace, id)
    }
    fn rotations(
        &self,
        workspace: WorkspaceId,
        keyring: Option<KeyringId>,
        page: Page<RotationId>,
    ) -> StoreFuture<'_, Vec<Rotation>> {
        self.inner.rotations(workspace, keyring, page)
    }
    fn marked(&self, marks: Vec<SecretMark>) -> StoreFuture<'_, Vec<MarkedSecret>> {
        self.inner.marked(marks)
    }
    fn unmarked(&self, limit: usize) -> StoreFuture<'_, Vec<SecretId>> {
        self.inner.unmarked(limit)
    }
    fn bulk(&self, workspace: WorkspaceId, id: BulkId) -> StoreFuture<'_, Option<Bulk>> {
        self.inner.bulk(workspace, id)
    }
    fn bulks(&self, workspace: WorkspaceId, page: Page<BulkId>) -> StoreFuture<'_, Vec<Bulk>> {
        self.inner.bulks(workspace, page)
    }
    fn bulk_items(&self, query: BulkItemQuery) -> StoreFuture<'_, Vec<BulkItem>> {
        self.inner.bulk_items(query)
    }
    fn bulk_counts(
        &self,
        workspace: WorkspaceId,
        bulk: BulkId,
        from: u32,
        until: u32,
    ) -> StoreFuture<'_, ItemCounts> {
        self.inner.bulk_counts(workspace, bulk, from, until)
    }
    fn reseal(&self, swaps: Vec<(SealedSecret, Arc<[u8]>)>) -> StoreFuture<'_, usize> {
        self.inner.reseal(swaps)
    }
    fn keep_figures(
        &self,
        kept: Vec<KeptFigures>,
        forget_before: Timestamp,
    ) -> StoreFuture<'_, ()> {
        self.inner.keep_figures(kept, forget_before)
    }
    fn kept_figures(&self, limit: usize) -> StoreFuture<'_, Vec<KeptFigures>> {
        self.inner.kept_figures(limit)
    }
    fn touch_api_keys(&self, uses: Vec<(ApiKeyId, Timestamp)>) -> StoreFuture<'_, ()> {
        self.inner.touch_api_keys(uses)
    }
    fn accept(&self, accept: Accept) -> StoreFuture<'_, ()> {
        self.noted(self.inner.accept(accept))
    }
    fn finish(
        &self,
        finishes: Vec<Finish>,
        receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    ) -> StoreFuture<'static, ()> {
        self.finishes.fetch_add(1, Ordering::SeqCst);
        let step = if takes_one(&self.failing_finishes) {
            broken("finish")
        } else {
            self.inner.finish(finishes, receivers)
        };
        let progress = self.progress.clone();
        Box::pin(async move {
            let result = step.await;
            progress.send_modify(|count| *count += 1);
            result
        })
    }
    fn due(&self, query: DueQuery) -> StoreFuture<'_, DueBlock> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.widest_read.fetch_max(query.limit, Ordering::SeqCst);
        if takes_one(&self.failing_reads) {
            return self.noted(broken("read due rows"));
        }
        self.noted(self.inner.due(query))
    }
    fn due_endpoints(&self) -> StoreFuture<'_, Vec<(WorkspaceId, EndpointId, Timestamp)>> {
        self.inner.due_endpoints()
    }
    fn recoverable(
        &self,
        query: RecoverQuery,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Delivery>> {
        self.inner.recoverable(query, after, limit)
    }
    fn message(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        id: MessageId,
    ) -> StoreFuture<'_, Option<Arc<Message>>> {
        self.inner.message(workspace, app, id)
    }
    fn messages(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        page: Page<MessageId>,
    ) -> StoreFuture<'_, Vec<Arc<Message>>> {
        self.inner.messages(workspace, app, since, until, page)
    }
    fn delivery(
        &self,
        workspace: WorkspaceId,
        id: DeliveryId,
    ) -> StoreFuture<'_, Option<(Delivery, Vec<Attempt>)>> {
        self.inner.delivery(workspace, id)
    }
    fn deliveries(&self, query: DeliveryQuery) -> StoreFuture<'_, Vec<Delivery>> {
        self.inner.deliveries(query)
    }

    fn search(&self, search: DeliverySearch) -> StoreFuture<'_, DeliveriesFound> {
        self.inner.search(search)
    }
    fn event_types(&self, workspace: WorkspaceId) -> StoreFuture<'_, Vec<EventType>> {
        self.inner.event_types(workspace)
    }
    fn prune(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> StoreFuture<'_, Progress<()>> {
        self.inner.prune(before, now, limit)
    }
    fn backup(&self, path: PathBuf) -> StoreFuture<'_, ()> {
        self.inner.backup(path)
    }
    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.inner.stats()
    }
    fn flush(&self) -> StoreFuture<'_, ()> {
        self.inner.flush()
    }
}

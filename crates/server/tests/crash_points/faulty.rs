//! The real embedded store behind a fault: its n-th step loses the request or its answer, or is where
//! the process dies or the caller goes away.

use std::future::{pending, poll_fn};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

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
use tokio::sync::Notify;

/// What happens at a step of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not reach the store; the service is told that the outcome is unknown.
    RequestLost,
    /// The store does it; the service is told that the outcome is unknown.
    AnswerLost,
    /// The process dies before it.
    DiesBefore,
    /// The process dies after it, before anyone hears of it.
    DiesAfter,
    /// The caller hangs up while the store is at it.
    CallerGone,
}

impl Fault {
    pub(crate) const ALL: [Self; 5] = [
        Self::RequestLost,
        Self::AnswerLost,
        Self::DiesBefore,
        Self::DiesAfter,
        Self::CallerGone,
    ];

    /// Whether the request never gets an answer, so that the test has to end it.
    pub(crate) fn leaves_no_answer(self) -> bool {
        match self {
            Self::RequestLost | Self::AnswerLost => false,
            Self::DiesBefore | Self::DiesAfter | Self::CallerGone => true,
        }
    }
}

/// A store with one fault at most.
pub(crate) struct FaultyStore {
    inner: Arc<SqliteStore>,
    plan: Mutex<Plan>,
    struck: Notify,
    left: Notify,
}

#[derive(Default)]
struct Plan {
    /// Steps since it was set.
    steps: usize,
    fault: Option<(usize, Fault)>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<SqliteStore>) -> Self {
        Self {
            inner,
            plan: Mutex::default(),
            struck: Notify::new(),
            left: Notify::new(),
        }
    }

    /// Counts steps anew, and plans a fault at one of them.
    pub(crate) fn plan(&self, fault: Option<(usize, Fault)>) {
        *self.lock() = Plan { steps: 0, fault };
    }

    /// Steps since the last plan.
    pub(crate) fn steps(&self) -> usize {
        self.lock().steps
    }

    /// Waits for a fault that leaves its request without an answer.
    pub(crate) async fn struck(&self) {
        self.struck.notified().await;
    }

    /// Lets a step go on whose caller has gone.
    pub(crate) fn caller_left(&self) {
        self.left.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fault(&self) -> Option<Fault> {
        let mut plan = self.lock();
        let step = plan.steps;
        plan.steps += 1;
        plan.fault
            .filter(|(at, _)| *at == step)
            .map(|(_, fault)| fault)
    }

    fn step<'a, T: Send + 'a>(
        &'a self,
        call: impl FnOnce(&'a SqliteStore) -> StoreFuture<'a, T> + Send + 'a,
    ) -> StoreFuture<'a, T> {
        let Some(fault) = self.next_fault() else {
            return call(&self.inner);
        };
        Box::pin(async move {
            match fault {
                Fault::RequestLost => {}
                Fault::AnswerLost => drop(call(&self.inner).await?),
                Fault::DiesBefore => self.never_answer().await,
                Fault::DiesAfter => {
                    drop(call(&self.inner).await?);
                    self.never_answer().await;
                }
                Fault::CallerGone => {
                    let mut under_way = call(&self.inner);
                    let asked =
                        poll_fn(|context| Poll::Ready(under_way.as_mut().poll(context))).await;
                    self.struck.notify_one();
                    self.left.notified().await;
                    return match asked {
                        Poll::Ready(answer) => answer,
                        Poll::Pending => under_way.await,
                    };
                }
            }
            Err(StoreError::Stopped)
        })
    }

    async fn never_answer(&self) {
        self.struck.notify_one();
        pending::<()>().await;
    }
}

/// Steps of requests count; what runs beside them (the last use of keys) does not, so that the n-th
/// step is the same one every time.
impl Store for FaultyStore {
    fn change(&self, change: Change) -> StoreFuture<'_, ()> {
        self.step(|store| store.change(change))
    }

    fn audit(
        &self,
        workspace: WorkspaceId,
        context: Context,
        entries: Vec<AuditEntry>,
        at: Timestamp,
    ) -> StoreFuture<'_, ()> {
        self.step(move |store| store.audit(workspace, context, entries, at))
    }

    fn idempotent_answer(
        &self,
        key: IdempotencyKey,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<IdempotencyRecord>> {
        self.step(move |store| store.idempotent_answer(key, now))
    }

    fn rotation(
        &self,
        workspace: WorkspaceId,
        id: RotationId,
    ) -> StoreFuture<'_, Option<Rotation>> {
        self.step(move |store| store.rotation(workspace, id))
    }

    fn rotations(
        &self,
        workspace: WorkspaceId,
        keyring: Option<KeyringId>,
        page: Page<RotationId>,
    ) -> StoreFuture<'_, Vec<Rotation>> {
        self.step(move |store| store.rotations(workspace, keyring, page))
    }

    fn load(&self) -> StoreFuture<'_, Configuration> {
        self.inner.load()
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

    fn marked(&self, marks: Vec<SecretMark>) -> StoreFuture<'_, Vec<MarkedSecret>> {
        self.step(move |store| store.marked(marks))
    }
    fn unmarked(&self, limit: usize) -> StoreFuture<'_, Vec<SecretId>> {
        self.step(move |store| store.unmarked(limit))
    }
    fn bulk(&self, workspace: WorkspaceId, id: BulkId) -> StoreFuture<'_, Option<Bulk>> {
        self.step(move |store| store.bulk(workspace, id))
    }
    fn bulks(&self, workspace: WorkspaceId, page: Page<BulkId>) -> StoreFuture<'_, Vec<Bulk>> {
        self.step(move |store| store.bulks(workspace, page))
    }
    fn bulk_items(&self, query: BulkItemQuery) -> StoreFuture<'_, Vec<BulkItem>> {
        self.step(move |store| store.bulk_items(query))
    }
    fn bulk_counts(
        &self,
        workspace: WorkspaceId,
        bulk: BulkId,
        from: u32,
        until: u32,
    ) -> StoreFuture<'_, ItemCounts> {
        self.step(move |store| store.bulk_counts(workspace, bulk, from, until))
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
        self.step(move |store| store.kept_figures(limit))
    }
    fn touch_api_keys(&self, uses: Vec<(ApiKeyId, Timestamp)>) -> StoreFuture<'_, ()> {
        self.inner.touch_api_keys(uses)
    }

    fn accept(&self, accept: Accept) -> StoreFuture<'_, ()> {
        self.inner.accept(accept)
    }

    fn finish(
        &self,
        finishes: Vec<Finish>,
        receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    ) -> StoreFuture<'static, ()> {
        self.inner.finish(finishes, receivers)
    }

    fn due(&self, query: DueQuery) -> StoreFuture<'_, DueBlock> {
        self.inner.due(query)
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

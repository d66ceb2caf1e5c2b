//! The store of a simulation: the model engine behind a writer's queue that is slow, loses requests and
//! loses answers, and that a crash empties.
//!
//! Writes and reads of due work go through one queue in the order of their calls, as in the embedded
//! engine: what was handed in before a crash and is not committed is gone, and nothing else is.
//!
//! The store of one of several nodes hands everything to the node's [writer](crate::member) instead, and reads over its
//! [link](crate::link).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use hookturn::store::model::ModelStore;
use hookturn::store::sharing::lease::GRACE;
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
    DueBlock, DueQuery, Fence, FenceFor, Finish, IdempotencyKey, IdempotencyRecord, KeptFigures,
    MarkedSecret, Page, Progress, ReceiverState, RecoverQuery, SealedSecret, SecretMark, Store,
    StoreError, StoreFuture, StoreStats, Write,
};
use hookturn_core::time::{Clock, Timestamp};
use tokio::sync::{Notify, oneshot};
use tokio::task::coop::unconstrained;
use tokio::time::timeout;

use crate::base::{Answer, Work};
use crate::clock::SimClock;
use crate::judge::Judge;
use crate::member::Asked;
use crate::membership::Membership;
use crate::mutant::Mutant;
use crate::random::Random;

/// What the store does at the moment. Survives crashes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) requests_lost: u16,
    pub(crate) answers_lost: u16,
    pub(crate) slow_millis: u64,
}

/// What happens to one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Happens,
    RequestLost,
    AnswerLost,
}

/// What the store stands on, for all processes of a run.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) judge: Arc<Mutex<Judge>>,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) faults: Arc<Mutex<Faults>>,
    pub(crate) random: Arc<Mutex<Random>>,
    /// What becomes of what nodes tell each other.
    pub(crate) notices: Arc<Mutex<Random>>,
    pub(crate) mutant: Mutant,
}

type Job = Box<dyn FnOnce(&Inside, Fate) + Send>;

/// The model engine, with the judge beside it.
pub(crate) struct Inside {
    pub(crate) model: ModelStore,
    pub(crate) ground: Ground,
}

/// One process's store.
pub(crate) struct SimStore {
    inside: Arc<Inside>,
    queue: Mutex<VecDeque<Job>>,
    waiting: Notify,
    /// If several nodes share the database.
    member: Option<Membership>,
}

/// The result of a step of the model, which is ready at once.
pub(crate) fn now<T>(step: StoreFuture<'_, T>) -> Result<T, StoreError> {
    unconstrained(step)
        .now_or_never()
        .expect("the model engine answers at once")
}

impl SimStore {
    pub(crate) fn new(model: ModelStore, ground: Ground) -> Self {
        Self {
            inside: Arc::new(Inside { model, ground }),
            queue: Mutex::default(),
            waiting: Notify::new(),
            member: None,
        }
    }

    /// The store of one of several nodes.
    pub(crate) fn of(member: Membership) -> Self {
        Self {
            inside: Arc::clone(&member.node.link.base.inside),
            queue: Mutex::default(),
            waiting: Notify::new(),
            member: Some(member),
        }
    }

    /// Leaves the other nodes in order, after what was queued is written.
    pub(crate) async fn leave(&self) {
        if let Some(member) = &self.member {
            let _ = member.step(Asked::Leave).await;
        }
    }

    /// The writer: takes whatever waits, after as long as it takes, for as long as the process lives.
    pub(crate) async fn write(self: Arc<Self>) {
        loop {
            self.waiting.notified().await;
            let ground = &self.inside.ground;
            let slow = ground.faults.lock().unwrap().slow_millis;
            let wait = ground.random.lock().unwrap().below(slow + 1);
            if wait > 0 {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            let batch = std::mem::take(&mut *self.queue.lock().unwrap());
            for job in batch {
                job(&self.inside, ground.fate());
            }
        }
    }

    /// Queues a step. It happens whether or not anyone waits for its answer.
    fn step<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Inside) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        self.step_or(step, || Err(StoreError::Stopped))
    }

    fn step_or<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Inside) -> Result<T, StoreError> + Send + 'static,
        lost: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |inside, fate| {
            let result = match fate {
                Fate::Happens => step(inside),
                Fate::RequestLost => lost(),
                Fate::AnswerLost => {
                    let _ = step(inside);
                    Err(StoreError::Stopped)
                }
            };
            let _ = answer.send(result);
        });
        self.queue.lock().unwrap().push_back(job);
        self.waiting.notify_one();
        Box::pin(async move { answered.await.unwrap_or(Err(StoreError::Stopped)) })
    }

    /// A read, which may fail.
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ModelStore) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        if let Some(member) = &self.member {
            return member.read(read);
        }
        let result = match self.inside.ground.fate() {
            Fate::Happens | Fate::AnswerLost => read(&self.inside.model),
            Fate::RequestLost => Err(StoreError::Stopped),
        };
        Box::pin(std::future::ready(result))
    }
}

impl Ground {
    fn fate(&self) -> Fate {
        let faults = *self.faults.lock().unwrap();
        let mut random = self.random.lock().unwrap();
        let fate = if random.chance(faults.requests_lost) {
            Fate::RequestLost
        } else if random.chance(faults.answers_lost) {
            Fate::AnswerLost
        } else {
            return Fate::Happens;
        };
        drop(random);
        self.judge.lock().unwrap().counts.store_faults += 1;
        fate
    }
}

impl Inside {
    pub(crate) fn change(&self, mut change: Change) -> Result<(), StoreError> {
        match self.ground.mutant {
            Mutant::ForgetsAnswers => change.idempotency = None,
            Mutant::DropsAuditEntry if change.audit.len() > 1 => drop(change.audit.pop()),
            _ => {}
        }
        let seen = change.clone();
        now(self.model.change(change))?;
        let mut judge = self.ground.judge.lock().unwrap();
        judge.changed(&seen, self.ground.clock.now());
        if self.ground.mutant == Mutant::LeaksSecret {
            for write in &seen.writes {
                if let Write::Secret(sealed) = write
                    && let Some(value) = judge.value(sealed.secret)
                {
                    tracing::info!(value = value.expose(), "kept a secret");
                }
            }
        }
        Ok(())
    }

    pub(crate) fn accept(&self, accept: Accept) -> Result<(), StoreError> {
        let seen = accept.clone();
        now(self.model.accept(accept))?;
        let now = self.ground.clock.now();
        self.ground.judge.lock().unwrap().accepted(&seen, now);
        Ok(())
    }

    pub(crate) fn finish(
        &self,
        finishes: Vec<Finish>,
        receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    ) -> Result<(), StoreError> {
        let mut judge = self.ground.judge.lock().unwrap();
        for finish in &finishes {
            judge.finished(finish);
        }
        drop(judge);
        now(self.model.finish(finishes, receivers))
    }

    pub(crate) fn due(&self, query: DueQuery) -> Result<DueBlock, StoreError> {
        let mut block = now(self.model.due(query))?;
        match self.ground.mutant {
            Mutant::HidesDueRow => drop(block.rows.pop()),
            Mutant::BreaksOrder => block.rows.reverse(),
            _ => {}
        }
        Ok(block)
    }
}

impl Store for SimStore {
    fn view(&self) -> u64 {
        let member = self.member.as_ref();
        member.map_or(0, |member| member.node.live.version())
    }

    fn change_as_of(&self, change: Change, view: u64) -> StoreFuture<'_, ()> {
        match &self.member {
            Some(member) => member.step(Asked::Change(Box::new(change), view)),
            None => self.change(change),
        }
    }

    fn fence(&self, whom: FenceFor) -> StoreFuture<'_, Fence> {
        let version = self.view();
        Box::pin(async move {
            Ok(match &self.member {
                Some(member) => member.fence(version, whom).await,
                None => Fence::ALONE,
            })
        })
    }

    fn confirmed(&self) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let Some(member) = &self.member else {
                return Ok(true);
            };
            let confirmed = member.node.live.until_confirmed();
            Ok(timeout(GRACE, confirmed).await.is_ok())
        })
    }

    fn owns(&self, endpoint: EndpointId) -> bool {
        let member = self.member.as_ref();
        member.is_none_or(|member| member.node.owned.owns(endpoint))
    }

    fn leads(&self) -> bool {
        let member = self.member.as_ref();
        member.is_none_or(|member| member.node.owned.leads())
    }

    fn change(&self, change: Change) -> StoreFuture<'_, ()> {
        if self.member.is_some() {
            return self.change_as_of(change, self.view());
        }
        self.step(|inside| inside.change(change))
    }

    fn audit(
        &self,
        workspace: WorkspaceId,
        context: Context,
        entries: Vec<AuditEntry>,
        at: Timestamp,
    ) -> StoreFuture<'_, ()> {
        if let Some(member) = &self.member {
            return member.write(Work::Audit(workspace, context, entries, at));
        }
        self.step(move |inside| now(inside.model.audit(workspace, context, entries, at)))
    }

    fn accept_as_of(&self, accept: Accept, view: u64) -> StoreFuture<'_, ()> {
        match &self.member {
            Some(member) => member.step(Asked::Accept(accept, view)),
            None => self.accept(accept),
        }
    }

    fn accept(&self, accept: Accept) -> StoreFuture<'_, ()> {
        if self.member.is_some() {
            return self.accept_as_of(accept, self.view());
        }
        let too_early = self.inside.ground.mutant == Mutant::AnswersTooEarly;
        let lost = move || {
            if too_early {
                Ok(())
            } else {
                Err(StoreError::Stopped)
            }
        };
        self.step_or(|inside| inside.accept(accept), lost)
    }

    fn finish(
        &self,
        finishes: Vec<Finish>,
        receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    ) -> StoreFuture<'static, ()> {
        if let Some(member) = &self.member {
            return member.write(Work::Finish(finishes, receivers));
        }
        self.step(|inside| inside.finish(finishes, receivers))
    }

    fn due(&self, query: DueQuery) -> StoreFuture<'_, DueBlock> {
        if let Some(member) = &self.member {
            return member.due(query);
        }
        self.step(move |inside| inside.due(query))
    }

    fn reseal(&self, swaps: Vec<(SealedSecret, Arc<[u8]>)>) -> StoreFuture<'_, usize> {
        if let Some(member) = &self.member {
            let answer = member.order(Asked::Write(Work::Reseal(swaps)));
            return Box::pin(async move {
                match answer.await? {
                    Answer::Replaced(count) => Ok(count),
                    Answer::Done | Answer::Pruned(_) => Err(StoreError::Stopped),
                }
            });
        }
        self.step(|inside| now(inside.model.reseal(swaps)))
    }

    fn keep_figures(
        &self,
        kept: Vec<KeptFigures>,
        forget_before: Timestamp,
    ) -> StoreFuture<'_, ()> {
        if let Some(member) = &self.member {
            return member.write(Work::Figures(kept, forget_before));
        }
        self.step(move |inside| now(inside.model.keep_figures(kept, forget_before)))
    }
    fn kept_figures(&self, limit: usize) -> StoreFuture<'_, Vec<KeptFigures>> {
        self.read(move |model| now(model.kept_figures(limit)))
    }
    fn touch_api_keys(&self, uses: Vec<(ApiKeyId, Timestamp)>) -> StoreFuture<'_, ()> {
        if let Some(member) = &self.member {
            return member.write(Work::Touch(uses));
        }
        self.step(|inside| now(inside.model.touch_api_keys(uses)))
    }

    fn prune(
        &self,
        before: Timestamp,
        at: Timestamp,
        limit: usize,
    ) -> StoreFuture<'_, Progress<()>> {
        if let Some(member) = &self.member {
            let answer = member.order(Asked::Write(Work::Prune(before, at, limit)));
            return Box::pin(async move {
                match answer.await? {
                    Answer::Pruned(progress) => Ok(progress),
                    Answer::Done | Answer::Replaced(_) => Err(StoreError::Stopped),
                }
            });
        }
        self.step(move |inside| now(inside.model.prune(before, at, limit)))
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        if let Some(member) = &self.member {
            return member.step(Asked::Barrier);
        }
        self.step(|_| Ok(()))
    }

    // What a process reads to begin with never fails: it would not begin.

    fn load(&self) -> StoreFuture<'_, Configuration> {
        self.inside.model.load()
    }

    fn due_endpoints(&self) -> StoreFuture<'_, Vec<(WorkspaceId, EndpointId, Timestamp)>> {
        if let Some(member) = &self.member {
            return member.read(|model| now(model.due_endpoints()));
        }
        self.inside.model.due_endpoints()
    }

    fn audit_log(
        &self,
        workspace: WorkspaceId,
        after: u64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Recorded>> {
        self.read(move |model| now(model.audit_log(workspace, after, limit)))
    }

    fn idempotent_answer(
        &self,
        key: IdempotencyKey,
        at: Timestamp,
    ) -> StoreFuture<'_, Option<IdempotencyRecord>> {
        self.read(move |model| now(model.idempotent_answer(key, at)))
    }

    fn rotation(
        &self,
        workspace: WorkspaceId,
        id: RotationId,
    ) -> StoreFuture<'_, Option<Rotation>> {
        self.read(move |model| now(model.rotation(workspace, id)))
    }

    fn rotations(
        &self,
        workspace: WorkspaceId,
        keyring: Option<KeyringId>,
        page: Page<RotationId>,
    ) -> StoreFuture<'_, Vec<Rotation>> {
        self.read(move |model| now(model.rotations(workspace, keyring, page)))
    }

    fn audit_head(&self, workspace: WorkspaceId) -> StoreFuture<'_, u64> {
        self.read(move |model| now(model.audit_head(workspace)))
    }

    fn search(&self, search: DeliverySearch) -> StoreFuture<'_, DeliveriesFound> {
        self.read(move |model| now(model.search(search)))
    }

    fn marked(&self, marks: Vec<SecretMark>) -> StoreFuture<'_, Vec<MarkedSecret>> {
        self.read(move |model| now(model.marked(marks)))
    }

    fn unmarked(&self, limit: usize) -> StoreFuture<'_, Vec<SecretId>> {
        self.read(move |model| now(model.unmarked(limit)))
    }

    fn bulk(&self, workspace: WorkspaceId, id: BulkId) -> StoreFuture<'_, Option<Bulk>> {
        self.read(move |model| now(model.bulk(workspace, id)))
    }

    fn bulks(&self, workspace: WorkspaceId, page: Page<BulkId>) -> StoreFuture<'_, Vec<Bulk>> {
        self.read(move |model| now(model.bulks(workspace, page)))
    }

    fn bulk_items(&self, query: BulkItemQuery) -> StoreFuture<'_, Vec<BulkItem>> {
        self.read(move |model| now(model.bulk_items(query)))
    }

    fn bulk_counts(
        &self,
        workspace: WorkspaceId,
        bulk: BulkId,
        from: u32,
        until: u32,
    ) -> StoreFuture<'_, ItemCounts> {
        self.read(move |model| now(model.bulk_counts(workspace, bulk, from, until)))
    }

    fn recoverable(
        &self,
        query: RecoverQuery,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Delivery>> {
        self.read(move |model| now(model.recoverable(query, after, limit)))
    }

    fn message(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        id: MessageId,
    ) -> StoreFuture<'_, Option<Arc<Message>>> {
        self.read(move |model| now(model.message(workspace, app, id)))
    }

    fn messages(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        page: Page<MessageId>,
    ) -> StoreFuture<'_, Vec<Arc<Message>>> {
        self.read(move |model| now(model.messages(workspace, app, since, until, page)))
    }

    fn delivery(
        &self,
        workspace: WorkspaceId,
        id: DeliveryId,
    ) -> StoreFuture<'_, Option<(Delivery, Vec<Attempt>)>> {
        self.read(move |model| now(model.delivery(workspace, id)))
    }

    fn deliveries(&self, query: DeliveryQuery) -> StoreFuture<'_, Vec<Delivery>> {
        self.read(move |model| now(model.deliveries(query)))
    }

    fn event_types(&self, workspace: WorkspaceId) -> StoreFuture<'_, Vec<EventType>> {
        self.read(move |model| now(model.event_types(workspace)))
    }

    fn backup(&self, path: PathBuf) -> StoreFuture<'_, ()> {
        self.inside.model.backup(path)
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.read(move |model| now(model.stats()))
    }
}

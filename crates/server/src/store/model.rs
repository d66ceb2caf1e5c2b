//! The model engine: the store's contract in plain maps, for simulations and as a second reading of
//! the conformance suite.
//!
//! A [`Disk`] is what survives a crash: a value that another process may open again, and that a test
//! may look at. A [`ModelStore`] is one process's engine on it. Every step is decided and written
//! under one lock and is committed when the method returns, so its futures are ready at once, in the
//! order of the calls. There are no threads, no clock and no randomness: the same calls do the same.
//!
//! Not promised: speed with many rows (lists are walked), and durability of any kind.

mod bulks;
mod configuration;
mod planned;
mod traffic;
mod upkeep;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hookturn_core::audit::{self, AuditEntry, Context, Head, Recorded};
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
    Due, DueBlock, DueQuery, Finish, Hint, HintSink, IdempotencyKey, IdempotencyRecord,
    KeptFigures, MarkedSecret, Page, Progress, ReceiverState, RecoverQuery, ReportedLog,
    SealedSecret, SecretMark, Shown, Store, StoreError, StoreFuture, StoreStats, Write,
};
use hookturn_core::time::{Clock, Timestamp};
use tokio::task::coop::consume_budget;

use super::happened::Happened;
use super::live::Live;
use configuration::Documents;
use traffic::Traffic;

/// What survives the process: cloning the handle is the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Contents>>);

/// Everything that is stored.
#[derive(Debug, Clone, Default)]
struct Contents {
    documents: Documents,
    traffic: Traffic,
    audit: BTreeMap<WorkspaceId, Vec<Recorded>>,
    answers: BTreeMap<[u8; 32], IdempotencyRecord>,
}

/// Backups by the path they were asked for: there are no files here.
#[derive(Debug, Clone, Default)]
pub struct Backups(Arc<Mutex<BTreeMap<PathBuf, Contents>>>);

/// One process's engine.
pub struct ModelStore {
    disk: Disk,
    live: Arc<Live>,
    hints: Arc<dyn HintSink>,
    backups: Backups,
    places: Option<Arc<dyn Clock>>,
}

/// What a committed step means for whoever is in memory.
#[derive(Default)]
struct Effects {
    writes: Vec<Write>,
    reseals: Vec<(SealedSecret, Arc<[u8]>)>,
    receivers: Vec<(EndpointId, ReceiverState)>,
    requeued: Vec<(WorkspaceId, EndpointId)>,
    accepted: Vec<Due>,
    forgotten: Vec<EndpointId>,
    /// Workspaces whose audit log grew.
    grown: Vec<WorkspaceId>,
}

type Outcome<T> = Result<T, StoreError>;

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        // Steps are decided before they are written, and writing cannot fail.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another disk with what this one holds now.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// Everything that is configured.
    pub fn configuration(&self) -> Configuration {
        self.lock().load()
    }

    /// Every delivery that is stored, pending or settled, in order of their ids.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.lock().traffic.all()
    }

    /// Every due row of an endpoint, in the order of its queue.
    pub fn due(&self, endpoint: EndpointId) -> Vec<Due> {
        self.lock().traffic.queue(endpoint)
    }

    /// When the earliest due row is due.
    pub fn earliest(&self) -> Option<Timestamp> {
        self.lock().traffic.earliest()
    }

    /// The attempts of a delivery, oldest first.
    pub fn attempts(&self, delivery: DeliveryId) -> Vec<Attempt> {
        self.lock().traffic.attempts(delivery)
    }

    /// The audit log of a workspace after entry number `after`.
    pub fn audit_log(&self, workspace: WorkspaceId, after: u64) -> Vec<Recorded> {
        let contents = self.lock();
        let log = contents
            .audit
            .get(&workspace)
            .map_or(&[][..], Vec::as_slice);
        let from = usize::try_from(after).unwrap_or(usize::MAX).min(log.len());
        log[from..].to_vec()
    }

    /// Everything that is stored, as text, but for sealed bytes: what a search for secrets reads.
    pub fn dump(&self) -> String {
        format!("{:?}", self.lock())
    }

    /// Every sealed value and answer, as bytes.
    pub fn sealed(&self) -> Vec<Vec<u8>> {
        let contents = self.lock();
        let secrets = contents.documents.secrets.values();
        let answers = contents.answers.values();
        secrets
            .map(|secret| secret.sealed.to_vec())
            .chain(answers.filter_map(|answer| Some(answer.sealed_response.as_ref()?.to_vec())))
            .collect()
    }
}

impl Backups {
    /// The disk of a backup, if there is one under that path.
    pub fn restore(&self, path: &std::path::Path) -> Option<Disk> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = kept.get(path)?.clone();
        Some(Disk(Arc::new(Mutex::new(contents))))
    }
}

impl ModelStore {
    /// Opens a disk: the live view is loaded, hints go to `hints`, backups to `backups`.
    pub fn open(disk: Disk, live: Arc<Live>, hints: Arc<dyn HintSink>, backups: Backups) -> Self {
        live.reset(disk.configuration());
        Self {
            disk,
            live,
            hints,
            backups,
            places: None,
        }
    }

    /// The same engine as the one that several nodes share: the place of a message in an ordered queue is the time at
    /// which it is accepted here, by this clock, whatever the clock of its node says.
    #[must_use]
    pub fn placing_by(self, clock: Arc<dyn Clock>) -> Self {
        Self {
            places: Some(clock),
            ..self
        }
    }

    /// One step: whole and answered at once, or refused with nothing written.
    fn step<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Contents, &mut Effects) -> Outcome<T>,
    ) -> StoreFuture<'static, T> {
        let mut effects = Effects::default();
        let result = step(&mut self.disk.lock(), &mut effects);
        if result.is_ok() {
            effects.happen(&self.live, self.hints.as_ref());
        }
        answer(result)
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Contents) -> T,
    ) -> StoreFuture<'static, T> {
        let found = read(&self.disk.lock());
        answer(Ok(found))
    }
}

/// The answer of a step that happened. It is ready at once, but for a caller that has used up its turn:
/// others on its thread have theirs.
fn answer<T: Send + 'static>(result: Outcome<T>) -> StoreFuture<'static, T> {
    Box::pin(async move {
        consume_budget().await;
        result
    })
}

impl Effects {
    /// Tells the live view and whoever listens.
    fn happen(self, live: &Live, sink: &dyn HintSink) {
        let mut hints: Vec<Hint> = Vec::new();
        for (workspace, endpoint) in self.requeued {
            let told = matches!(hints.last(), Some(Hint::Requeued(_, last)) if *last == endpoint);
            if !told {
                hints.push(Hint::Requeued(workspace, endpoint));
            }
        }
        let happened = Happened {
            writes: self.writes,
            reseals: self.reseals,
            receivers: self.receivers,
            accepted: self.accepted,
            hints,
            forgotten: self.forgotten,
            audited: self.grown,
        };
        happened.tell(live, sink);
    }
}

impl Contents {
    fn load(&self) -> Configuration {
        let reported = self.documents.workspaces().map(|workspace| {
            let through = self.documents.planned.reported(workspace);
            let log = self.audit.get(&workspace).and_then(|log| log.last());
            ReportedLog {
                workspace,
                through,
                more: log.is_some_and(|last| last.seq > through),
            }
        });
        Configuration {
            reported: reported.collect(),
            ..self.documents.load()
        }
    }

    /// Refuses a key that has a live answer; the answer is kept by [`Contents::keep_answer`].
    fn check_answer(&self, answer: Option<&IdempotencyRecord>, now: Timestamp) -> Outcome<()> {
        let used = answer
            .and_then(|answer| self.answers.get(&answer.key.0))
            .is_some_and(|known| known.expires_at > now);
        if used {
            Err(StoreError::IdempotencyKeyUsed)
        } else {
            Ok(())
        }
    }

    fn keep_answer(&mut self, answer: Option<IdempotencyRecord>) {
        if let Some(answer) = answer {
            self.answers.insert(answer.key.0, answer);
        }
    }

    /// An erased secret is in no answer any more.
    fn erase_answers(&mut self, erased: SecretId) {
        for answer in self.answers.values_mut() {
            let what = answer.shows.map(|shows| shows.what);
            if matches!(what, Some(Shown::Secret { id, .. }) if id == erased) {
                answer.sealed_response = None;
            }
        }
    }

    fn append(
        &mut self,
        workspace: WorkspaceId,
        context: &Context,
        entries: Vec<AuditEntry>,
        at: Timestamp,
    ) {
        if entries.is_empty() {
            return;
        }
        let log = self.audit.entry(workspace).or_default();
        for entry in entries {
            let head = log.last().map_or(Head::START, Recorded::head);
            log.push(audit::chain(head, at, workspace, context.clone(), entry));
        }
    }

    /// Decided on a copy of the documents, which are few; requeues are checked before any is written.
    fn change(&mut self, change: Change, effects: &mut Effects) -> Outcome<()> {
        self.check_answer(change.idempotency.as_ref(), change.at)?;
        let mut documents = self.documents.clone();
        let mut requeues = Vec::new();
        let mut reports = Vec::new();
        for write in &change.writes {
            match write {
                Write::Requeue { delivery, at } => requeues.push((delivery, *at)),
                other => documents.write(other)?,
            }
            if let Write::Reported { messages, .. } = write {
                reports.extend(messages.iter().cloned());
            }
        }
        self.traffic.check_new(&reports, &documents)?;
        self.traffic.check_requeues(&requeues)?;
        for (delivery, at) in requeues {
            self.traffic.requeue(delivery, at);
            effects
                .requeued
                .push((delivery.workspace, delivery.endpoint));
        }
        let accepted = reports.into_iter();
        effects.accepted = accepted
            .flat_map(|new| self.traffic.accept(new, |_| None))
            .collect();
        let before = std::mem::replace(&mut self.documents, documents);
        let was_ordered = |id| {
            let known = before.endpoints.get(id);
            known.is_some_and(|endpoint| endpoint.ordered)
        };
        for write in &change.writes {
            if let Write::Endpoint(endpoint) = write
                && endpoint.ordered
                && !was_ordered(&endpoint.id)
            {
                self.traffic.put_in_order(endpoint.id, endpoint.updated_at);
            }
            if let Write::EraseSecret {
                secret,
                answers: true,
                ..
            } = write
            {
                self.erase_answers(*secret);
            }
        }
        self.keep_answer(change.idempotency);
        if !change.audit.is_empty() {
            effects.grown.push(change.workspace);
        }
        self.append(change.workspace, &change.context, change.audit, change.at);
        effects.writes = change.writes;
        Ok(())
    }

    fn accept(
        &mut self,
        accept: Accept,
        place: Option<Timestamp>,
        effects: &mut Effects,
    ) -> Outcome<()> {
        let first = accept.messages.first();
        let now = first.map_or(Timestamp::EPOCH, |new| new.message.accepted_at);
        self.check_answer(accept.idempotency.as_ref(), now)?;
        self.traffic.check_new(&accept.messages, &self.documents)?;
        self.keep_answer(accept.idempotency);
        let endpoints = &self.documents.endpoints;
        let ordered = |id| endpoints.get(&id).is_some_and(|known| known.ordered);
        effects.accepted = accept
            .messages
            .into_iter()
            .flat_map(|new| self.traffic.accept(new, |id| place.filter(|_| ordered(id))))
            .collect();
        Ok(())
    }

    fn finish(
        &mut self,
        finishes: &[Finish],
        receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
        effects: &mut Effects,
    ) {
        for finish in finishes {
            if let Some(endpoint) = self.documents.endpoints.get(&finish.due.endpoint) {
                let keeps_place = finish.keeps_place || endpoint.ordered;
                self.traffic.finish(finish, keeps_place);
            }
        }
        for (_, endpoint, receiver) in receivers {
            if self.documents.endpoints.contains_key(&endpoint) {
                self.documents.receivers.insert(endpoint, receiver.clone());
                effects.receivers.push((endpoint, receiver));
            }
        }
    }
}

impl Store for ModelStore {
    fn load(&self) -> StoreFuture<'_, Configuration> {
        self.read(Contents::load)
    }

    fn change(&self, change: Change) -> StoreFuture<'_, ()> {
        self.step(|contents, effects| contents.change(change, effects))
    }

    fn audit(
        &self,
        workspace: WorkspaceId,
        context: Context,
        entries: Vec<AuditEntry>,
        at: Timestamp,
    ) -> StoreFuture<'_, ()> {
        self.step(|contents, effects| {
            contents.documents.known_workspace(workspace)?;
            effects.grown.push(workspace);
            contents.append(workspace, &context, entries, at);
            Ok(())
        })
    }

    fn audit_log(
        &self,
        workspace: WorkspaceId,
        after: u64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Recorded>> {
        let mut log = self.disk.audit_log(workspace, after);
        log.truncate(limit);
        answer(Ok(log))
    }

    fn idempotent_answer(
        &self,
        key: IdempotencyKey,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<IdempotencyRecord>> {
        self.read(|contents| {
            let found = contents.answers.get(&key.0).cloned();
            found.filter(|answer| answer.expires_at > now)
        })
    }

    fn rotation(
        &self,
        workspace: WorkspaceId,
        id: RotationId,
    ) -> StoreFuture<'_, Option<Rotation>> {
        self.read(|contents| {
            let found = contents.documents.rotations.get(&id).cloned();
            found.filter(|rotation| rotation.workspace == workspace)
        })
    }

    fn rotations(
        &self,
        workspace: WorkspaceId,
        keyring: Option<KeyringId>,
        page: Page<RotationId>,
    ) -> StoreFuture<'_, Vec<Rotation>> {
        self.read(|contents| contents.documents.rotations(workspace, keyring, page))
    }

    fn reseal(&self, swaps: Vec<(SealedSecret, Arc<[u8]>)>) -> StoreFuture<'_, usize> {
        self.step(|contents, effects| Ok(contents.documents.reseal(swaps, &mut effects.reseals)))
    }

    fn touch_api_keys(&self, uses: Vec<(ApiKeyId, Timestamp)>) -> StoreFuture<'_, ()> {
        self.step(|contents, _| {
            contents.documents.touch(uses);
            Ok(())
        })
    }

    fn keep_figures(
        &self,
        kept: Vec<KeptFigures>,
        forget_before: Timestamp,
    ) -> StoreFuture<'_, ()> {
        self.step(move |contents, _| {
            contents.documents.keep_figures(kept, forget_before);
            Ok(())
        })
    }

    fn kept_figures(&self, limit: usize) -> StoreFuture<'_, Vec<KeptFigures>> {
        self.read(|contents| contents.documents.kept_figures(limit))
    }

    fn accept(&self, accept: Accept) -> StoreFuture<'_, ()> {
        let place = self.places.as_ref().map(|clock| clock.now());
        self.step(|contents, effects| contents.accept(accept, place, effects))
    }

    fn finish(
        &self,
        finishes: Vec<Finish>,
        receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    ) -> StoreFuture<'static, ()> {
        self.step(|contents, effects| {
            contents.finish(&finishes, receivers, effects);
            Ok(())
        })
    }

    fn marked(&self, marks: Vec<SecretMark>) -> StoreFuture<'_, Vec<MarkedSecret>> {
        self.read(|contents| contents.documents.marks.find(&marks))
    }

    fn unmarked(&self, limit: usize) -> StoreFuture<'_, Vec<SecretId>> {
        self.read(|contents| contents.documents.unmarked(limit))
    }

    fn bulk(&self, workspace: WorkspaceId, id: BulkId) -> StoreFuture<'_, Option<Bulk>> {
        self.read(|contents| contents.documents.bulks.get(workspace, id))
    }

    fn bulks(&self, workspace: WorkspaceId, page: Page<BulkId>) -> StoreFuture<'_, Vec<Bulk>> {
        self.read(|contents| contents.documents.bulks.list(workspace, page))
    }

    fn bulk_items(&self, query: BulkItemQuery) -> StoreFuture<'_, Vec<BulkItem>> {
        self.read(|contents| contents.documents.bulks.items(&query))
    }

    fn bulk_counts(
        &self,
        workspace: WorkspaceId,
        bulk: BulkId,
        from: u32,
        until: u32,
    ) -> StoreFuture<'_, ItemCounts> {
        let count = |contents: &Contents| {
            let bulks = &contents.documents.bulks;
            bulks.counts(workspace, bulk, from, until)
        };
        self.read(count)
    }

    fn audit_head(&self, workspace: WorkspaceId) -> StoreFuture<'_, u64> {
        self.read(|contents| {
            let log = contents.audit.get(&workspace);
            log.and_then(|log| log.last()).map_or(0, |last| last.seq)
        })
    }

    fn due(&self, query: DueQuery) -> StoreFuture<'_, DueBlock> {
        self.read(|contents| contents.traffic.block(&query, &contents.documents))
    }

    fn due_endpoints(&self) -> StoreFuture<'_, Vec<(WorkspaceId, EndpointId, Timestamp)>> {
        self.read(|contents| contents.traffic.due_endpoints())
    }

    fn recoverable(
        &self,
        query: RecoverQuery,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Delivery>> {
        self.read(|contents| contents.traffic.recoverable(&query, after, limit))
    }

    fn message(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        id: MessageId,
    ) -> StoreFuture<'_, Option<Arc<Message>>> {
        self.read(|contents| contents.traffic.message(workspace, app, id))
    }

    fn messages(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        page: Page<MessageId>,
    ) -> StoreFuture<'_, Vec<Arc<Message>>> {
        self.read(|contents| {
            contents
                .traffic
                .messages(workspace, app, since, until, page)
        })
    }

    fn delivery(
        &self,
        workspace: WorkspaceId,
        id: DeliveryId,
    ) -> StoreFuture<'_, Option<(Delivery, Vec<Attempt>)>> {
        self.read(|contents| {
            let found = contents.traffic.find(id);
            found
                .filter(|delivery| delivery.workspace == workspace)
                .map(|delivery| (delivery, contents.traffic.attempts(id)))
        })
    }

    fn deliveries(&self, query: DeliveryQuery) -> StoreFuture<'_, Vec<Delivery>> {
        self.read(|contents| contents.traffic.listed(&query))
    }

    fn search(&self, search: DeliverySearch) -> StoreFuture<'_, DeliveriesFound> {
        self.read(|contents| contents.traffic.search(&search))
    }

    fn event_types(&self, workspace: WorkspaceId) -> StoreFuture<'_, Vec<EventType>> {
        self.read(|contents| contents.traffic.event_types(workspace))
    }

    fn prune(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> StoreFuture<'_, Progress<()>> {
        self.step(|contents, effects| {
            Ok(contents.prune(before, now, limit.max(1), &mut effects.forgotten))
        })
    }

    fn backup(&self, path: PathBuf) -> StoreFuture<'_, ()> {
        let written = self.backups.write(path, &self.disk.lock());
        answer(written)
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.read(Contents::stats)
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        self.read(|_| ())
    }
}

impl std::fmt::Debug for ModelStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelStore").finish_non_exhaustive()
    }
}

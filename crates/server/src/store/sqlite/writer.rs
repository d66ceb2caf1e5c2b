//! The writer thread and its group commit.
//!
//! A step is a closure over [`Tx`]. Its effects on memory (live view, hints, numbers) are collected
//! in [`Effects`] and happen only after the commit. A *guarded* step runs inside a savepoint: when it
//! fails, only its own writes are undone. An unguarded step must not fail after its first write; if
//! it does so all the same, the whole batch is rolled back and every step of it is told. The same
//! happens when a step panics: the thread outlives it and takes the next batch.
//!
//! Numbers are published before the commit, so that a reader never meets a row whose number it does
//! not know; until then no committed row holds them. A rollback takes them back.

use std::error::Error as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::store::{
    Due, Hint, HintSink, ReceiverState, SealedSecret, StoreError, StoreFuture, Write,
};
use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::checkpoint::{self, Checkpointer};
use super::open::OpenError;
use super::rows::{NewNumber, Numbers};
use super::{Damage, SqliteOptions, failed};
use crate::store::happened::Happened;
use crate::store::live::Live;
use crate::telemetry::troubles::Troubles;

/// Steps that share one transaction at most: beyond this a sync is no longer what costs.
pub(super) const BATCH_STEPS: usize = 2_048;
/// Rows that share one transaction at most, so that one commit stays within milliseconds.
const BATCH_ROWS: usize = 8_192;
/// How long steps that nobody waits for may wait for one that somebody waits for.
pub(super) const PATIENCE: Duration = Duration::from_millis(4);
/// What the thread does, as the log says it when it fails.
const TRANSACTION: &str = "write a transaction";
/// Rows from which they wait no longer: their own transaction would grow long.
const PATIENT_ROWS: usize = 64;

/// The open transaction, as a step sees it.
pub(super) struct Tx<'a> {
    pub(super) connection: &'a Connection,
    pub(super) numbers: &'a Numbers,
    live: &'a Live,
    pub(super) effects: Effects,
}

/// What happens in memory once the transaction is committed.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) writes: Vec<Write>,
    pub(super) reseals: Vec<(SealedSecret, Arc<[u8]>)>,
    pub(super) receivers: Vec<(EndpointId, ReceiverState)>,
    pub(super) accepted: Vec<Due>,
    pub(super) hints: Vec<Hint>,
    pub(super) numbers: Vec<NewNumber>,
    pub(super) forgotten: Vec<EndpointId>,
    /// Workspaces whose audit log grew.
    pub(super) audited: Vec<WorkspaceId>,
}

/// Where the effects stood before a guarded step.
struct Mark([usize; 8]);

impl Effects {
    fn mark(&self) -> Mark {
        Mark([
            self.writes.len(),
            self.reseals.len(),
            self.receivers.len(),
            self.accepted.len(),
            self.hints.len(),
            self.numbers.len(),
            self.forgotten.len(),
            self.audited.len(),
        ])
    }

    fn undo_to(&mut self, mark: &Mark) {
        let Mark(
            [
                writes,
                reseals,
                receivers,
                accepted,
                hints,
                numbers,
                forgotten,
                audited,
            ],
        ) = *mark;
        self.writes.truncate(writes);
        self.reseals.truncate(reseals);
        self.receivers.truncate(receivers);
        self.accepted.truncate(accepted);
        self.hints.truncate(hints);
        self.numbers.truncate(numbers);
        self.forgotten.truncate(forgotten);
        self.audited.truncate(audited);
    }

    /// Tells the live view and whoever listens.
    fn happen(self, live: &Live, numbers: &Numbers, sink: &dyn HintSink) {
        for endpoint in &self.forgotten {
            numbers.forget_endpoint(*endpoint);
        }
        let happened = Happened {
            writes: self.writes,
            reseals: self.reseals,
            receivers: self.receivers,
            accepted: self.accepted,
            hints: self.hints,
            forgotten: self.forgotten,
            audited: self.audited,
        };
        happened.tell(live, sink);
    }
}

/// The step could not be undone alone: the batch must be rolled back.
struct Abort;

/// What the writer must know of a step before it runs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// How many rows it writes, about.
    pub(super) rows: usize,
    /// Whether it may be refused halfway, so that its own writes must be undone alone.
    pub(super) guarded: bool,
    /// Whether nobody waits for its answer: then it rides with the next transaction that somebody waits
    /// for, if one begins within [`PATIENCE`]. At a low rate that halves the syncs.
    pub(super) patient: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            rows: 1,
            guarded: false,
            patient: false,
        }
    }
}

trait Step: Send {
    fn shape(&self) -> Shape;
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Abort>;
    /// Whether it was run, and failed because of the disk.
    fn could_not_write(&self) -> bool;
    /// Tells what it found out about the file.
    fn tell(&self, damage: &Damage);
    fn answer(self: Box<Self>, fate: Fate);
}

/// What became of a transaction, and so of the steps in it that did not fail themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Committed,
    RolledBack,
    /// Rolled back because of the disk.
    Unwritable,
    /// Rolled back because of a damaged page.
    Damaged,
}

struct Typed<T, F> {
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    shape: Shape,
}

impl<T, F> Step for Typed<T, F>
where
    T: Send,
    F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send,
{
    fn shape(&self) -> Shape {
        self.shape
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Abort> {
        let Some(work) = self.work.take() else {
            return Ok(());
        };
        if !self.shape.guarded {
            let before = tx.connection.total_changes();
            let result = work(tx);
            let undo = match &result {
                Ok(_) => false,
                Err(
                    StoreError::Engine { .. }
                    | StoreError::Unwritable { .. }
                    | StoreError::Damaged { .. },
                ) => true,
                Err(_) => tx.connection.total_changes() != before,
            };
            self.result = Some(result);
            return if undo { Err(Abort) } else { Ok(()) };
        }
        let mark = tx.effects.mark();
        let run = |sql| {
            tx.connection
                .prepare_cached(sql)
                .and_then(|mut s| s.execute([]))
        };
        run("SAVEPOINT step").map_err(|_| Abort)?;
        let result = work(tx);
        let failed = result.is_err();
        self.result = Some(result);
        let run = |sql| {
            tx.connection
                .prepare_cached(sql)
                .and_then(|mut s| s.execute([]))
        };
        if failed {
            run("ROLLBACK TO step").map_err(|_| Abort)?;
            tx.effects.undo_to(&mark);
        }
        run("RELEASE step").map_err(|_| Abort)?;
        Ok(())
    }

    fn could_not_write(&self) -> bool {
        matches!(self.result, Some(Err(StoreError::Unwritable { .. })))
    }

    fn tell(&self, damage: &Damage) {
        if let Some(result) = &self.result {
            damage.look(result);
        }
    }

    fn answer(self: Box<Self>, fate: Fate) {
        const STEP: &str = "commit";
        let rolled_back = "the transaction was rolled back; nothing of it was kept";
        let result = match (self.result, fate) {
            (Some(Ok(_)) | None, Fate::RolledBack) => Err(StoreError::Engine {
                step: STEP,
                source: rolled_back.into(),
            }),
            (Some(Ok(_)) | None, Fate::Unwritable) => Err(StoreError::Unwritable {
                step: STEP,
                source: rolled_back.into(),
            }),
            (Some(Ok(_)) | None, Fate::Damaged) => Err(StoreError::Damaged {
                step: STEP,
                source: rolled_back.into(),
            }),
            (Some(result), _) => result,
            (None, Fate::Committed) => Err(StoreError::Stopped),
        };
        // The caller may have gone away; what was asked has happened all the same.
        let _ = self.reply.send(result);
    }
}

enum Order {
    Step(Box<dyn Step>),
    Stop,
}

/// The handle of the writer thread.
pub(super) struct Writer {
    orders: mpsc::Sender<Order>,
    commits: Arc<AtomicU64>,
    cannot_write: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(
        mut connection: Connection,
        options: &SqliteOptions,
        numbers: Arc<Numbers>,
        patience: Duration,
        damage: Damage,
    ) -> Result<Self, OpenError> {
        let (orders, inbox) = mpsc::channel();
        let wal_pages = watch_wal(&mut connection)?;
        let checkpointer = Checkpointer::start(&options.path)?;
        let commits = Arc::new(AtomicU64::new(0));
        let cannot_write = Arc::new(AtomicBool::new(false));
        let thread = Thread {
            connection,
            inbox,
            commits: Arc::clone(&commits),
            cannot_write: Arc::clone(&cannot_write),
            numbers,
            live: Arc::clone(&options.live),
            sink: Arc::clone(&options.hints),
            wal_pages,
            checkpointer,
            patience,
            damage,
            troubles: Troubles::default(),
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || thread.run())
            .map_err(OpenError::Thread)?;
        Ok(Self {
            orders,
            commits,
            cannot_write,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// How many transactions were committed since the start.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Whether the last transaction that wrote something could not, because of the disk.
    pub(super) fn cannot_write(&self) -> bool {
        self.cannot_write.load(Ordering::Relaxed)
    }

    /// Queues a step that does not fail after its first write. It is queued when this returns,
    /// whether or not the future is awaited.
    pub(super) fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        self.step_of(Shape::default(), work)
    }

    /// Queues a step that may be refused halfway; then only its own writes are undone.
    pub(super) fn guarded_step<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        let shape = Shape {
            rows: 4,
            guarded: true,
            ..Shape::default()
        };
        self.step_of(shape, work)
    }

    /// Queues a step of a known shape.
    pub(super) fn step_of<T: Send + 'static>(
        &self,
        shape: Shape,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        let (reply, answer) = oneshot::channel();
        let step = Typed {
            work: Some(work),
            result: None,
            reply,
            shape,
        };
        // When the thread is gone the reply is dropped with the order, and the answer says so.
        let _ = self.orders.send(Order::Step(Box::new(step)));
        Box::pin(async move { answer.await.unwrap_or(Err(StoreError::Stopped)) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// Replaces SQLite's own checkpoint after 1,000 pages by a count that we act on.
fn watch_wal(connection: &mut Connection) -> Result<Arc<AtomicI32>, OpenError> {
    let pages = Arc::new(AtomicI32::new(0));
    let seen = Arc::clone(&pages);
    connection
        .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count| {
            seen.store(count, Ordering::Relaxed);
            Ok(())
        }))
        .map_err(OpenError::Engine)?;
    Ok(pages)
}

struct Thread {
    connection: Connection,
    inbox: mpsc::Receiver<Order>,
    commits: Arc<AtomicU64>,
    cannot_write: Arc<AtomicBool>,
    numbers: Arc<Numbers>,
    live: Arc<Live>,
    sink: Arc<dyn HintSink>,
    wal_pages: Arc<AtomicI32>,
    checkpointer: Checkpointer,
    patience: Duration,
    damage: Damage,
    /// What the log says while the disk takes no writes.
    troubles: Troubles,
}

impl Thread {
    fn run(self) {
        let mut batch: Vec<Box<dyn Step>> = Vec::with_capacity(BATCH_STEPS);
        while let Ok(Order::Step(first)) = self.inbox.recv() {
            batch.push(first);
            let stopping = self.gather(&mut batch);
            self.commit(&mut batch);
            self.checkpointer
                .after_commit(&self.connection, self.wal_pages.load(Ordering::Relaxed));
            if stopping {
                break;
            }
        }
        checkpoint::on_close(&self.connection);
    }

    /// Adds what shares the transaction of the first step: whatever waits already, and, while nobody waits
    /// for any of it, whatever comes while it is patient. Returns whether the thread was told to stop.
    fn gather(&self, batch: &mut Vec<Box<dyn Step>>) -> bool {
        let shapes = batch.iter().map(|step| step.shape());
        let (mut rows, mut patient) = shapes.fold((0, true), |(rows, patient), shape| {
            (rows + shape.rows, patient && shape.patient)
        });
        let until = Instant::now() + self.patience;
        while batch.len() < BATCH_STEPS && rows < BATCH_ROWS {
            let order = match self.inbox.try_recv() {
                Err(TryRecvError::Empty) if patient && rows < PATIENT_ROWS => self
                    .inbox
                    .recv_timeout(until.saturating_duration_since(Instant::now()))
                    .ok(),
                order => order.ok(),
            };
            match order {
                Some(Order::Step(step)) => {
                    rows += step.shape().rows;
                    patient &= step.shape().patient;
                    batch.push(step);
                }
                Some(Order::Stop) => return true,
                None => break,
            }
        }
        false
    }

    fn commit(&self, batch: &mut Vec<Box<dyn Step>>) {
        let changes = self.connection.total_changes();
        let ended = self.transact(batch);
        // Known before anyone is answered, so that who was refused finds readiness off.
        self.damage.look(&ended);
        for step in batch.iter() {
            step.tell(&self.damage);
        }
        let fate = match ended {
            Ok(effects) => {
                let changed = self.connection.total_changes() - changes;
                // Barriers change nothing, and there are many.
                if changed > 0 {
                    tracing::debug!(
                        steps = batch.len(),
                        changed,
                        "a store transaction was committed"
                    );
                }
                effects.happen(&self.live, &self.numbers, self.sink.as_ref());
                if changed > 0 {
                    self.troubles.worked(TRANSACTION);
                }
                Fate::Committed
            }
            Err(error @ StoreError::Unwritable { .. }) => {
                self.troubles.failed(TRANSACTION, &error);
                self.roll_back();
                Fate::Unwritable
            }
            Err(error) => {
                tracing::error!(error = %error, cause = ?error.source().map(ToString::to_string), steps = batch.len(), "a store transaction was rolled back");
                self.roll_back();
                if self.damage.is_known() {
                    Fate::Damaged
                } else {
                    Fate::RolledBack
                }
            }
        };
        // For the same reason.
        if fate == Fate::Unwritable || batch.iter().any(|step| step.could_not_write()) {
            self.cannot_write.store(true, Ordering::Relaxed);
        } else if fate == Fate::Committed && self.connection.total_changes() != changes {
            self.cannot_write.store(false, Ordering::Relaxed);
        }
        batch.drain(..).for_each(|step| step.answer(fate));
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    fn transact(&self, batch: &mut [Box<dyn Step>]) -> Result<Effects, StoreError> {
        let run = |sql| {
            self.connection
                .prepare_cached(sql)
                .and_then(|mut s| s.execute([]))
                .map_err(failed("commit"))
        };
        run("BEGIN IMMEDIATE")?;
        // A step owns what it captured and leaves nothing in memory but effects, which are dropped
        // with the batch: nothing half done can be seen after it unwinds.
        let effects = catch_unwind(AssertUnwindSafe(|| self.run_all(batch)))
            .unwrap_or_else(|_| Err(aborted("a step panicked")))?;
        self.numbers.publish(&effects.numbers);
        if let Err(error) = run("COMMIT") {
            self.numbers.retract(&effects.numbers);
            return Err(error);
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(effects)
    }

    fn run_all(&self, batch: &mut [Box<dyn Step>]) -> Result<Effects, StoreError> {
        let mut tx = Tx {
            connection: &self.connection,
            numbers: &self.numbers,
            live: &self.live,
            effects: Effects::default(),
        };
        for step in batch {
            step.run(&mut tx).map_err(|Abort| {
                let why = "a step failed and could not be undone alone";
                if step.could_not_write() {
                    let (step, source) = ("write", why.into());
                    StoreError::Unwritable { step, source }
                } else {
                    aborted(why)
                }
            })?;
        }
        Ok(tx.effects)
    }
}

fn aborted(why: &'static str) -> StoreError {
    StoreError::Engine {
        step: "write",
        source: why.into(),
    }
}

impl Tx<'_> {
    /// The number of a workspace that must exist.
    pub(super) fn workspace(&self, id: WorkspaceId) -> Result<i64, StoreError> {
        let fresh = self.effects.numbers.iter().find_map(|new| match new {
            NewNumber::Workspace(known, number) if *known == id => Some(*number),
            _ => None,
        });
        fresh
            .or_else(|| self.numbers.workspace(id))
            .ok_or_else(|| unknown("workspace", &id))
    }

    /// Whether an endpoint keeps the order of acceptance.
    pub(super) fn is_ordered(&self, id: EndpointId) -> bool {
        let mut writes = self.effects.writes.iter().rev();
        let fresh = writes.find_map(|write| match write {
            Write::Endpoint(known) if known.id == id => Some(known.ordered),
            _ => None,
        });
        fresh.unwrap_or_else(|| self.live.endpoint(id).is_some_and(|known| known.ordered))
    }

    /// The number of an endpoint that must exist.
    pub(super) fn endpoint(&self, id: EndpointId) -> Result<i64, StoreError> {
        let fresh = self.effects.numbers.iter().find_map(|new| match new {
            NewNumber::Endpoint(_, known, number) if *known == id => Some(*number),
            _ => None,
        });
        fresh
            .or_else(|| self.numbers.endpoint(id))
            .ok_or_else(|| unknown("endpoint", &id))
    }
}

fn unknown(kind: &'static str, id: &dyn std::fmt::Display) -> StoreError {
    StoreError::Conflict {
        what: format!("{kind} {id}"),
    }
}

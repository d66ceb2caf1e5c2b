//! The writer: one connection, one transaction for whatever waits.
//!
//! A thread of its own drives the connection and the batches, so that nothing is handed from one thread
//! to another between a commit and the answers. It takes whatever is waiting, writes all of it in one
//! transaction, commits, applies the effects to memory ([`Effects`]), and only then answers.
//!
//! Messages that are accepted and deliveries that are finished do not depend on each other, so those of a
//! batch are written *together*, by a few statements over arrays (a finish follows the answer to its accept,
//! and two finishes of one delivery are kept apart). Everything else is written in its turn, between two
//! such groups, and may be refused by itself: it has a savepoint.
//!
//! What goes wrong together is undone, and the batch is written once more *one by one*: each piece of work
//! has a savepoint then, and only what cannot be written is refused.
//!
//! When the connection is lost before the commit, nothing was written, and everyone is told so. When it is
//! lost during the commit, everyone is told that the effect is unknown, and the writer asks the
//! database for the fate of that transaction as soon as it is back: what was committed happens in memory
//! before anything else is written, so that no signer goes on with a keyring that has moved on (G4).

use std::collections::{BTreeSet, HashSet};
use std::error::Error as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hookturn_core::audit::{AuditEntry, Context};
use hookturn_core::id::{ApiKeyId, EndpointId, WorkspaceId};
use hookturn_core::message::EventType;
use hookturn_core::store::{
    Accept, Change, Finish, HintSink, KeptFigures, Progress, ReceiverState, SealedSecret,
    StoreError, Write,
};
use hookturn_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::{OpenError, Session, Target};
use super::days::{self, Day};
use super::effects::Effects;
use super::group::Group;
use super::rows::{Outcome, column, failed, first, run};
use super::upkeep::{self, Sweep};
use super::{PostgresOptions, configuration, figures, ledger, open_for_writing};
use crate::store::live::Live;
use crate::store::waiting::Share;

/// Pieces of work that share one transaction at most.
const BATCH_WORKS: usize = 2_048;
/// Rows that share one transaction at most, so that one commit stays within tens of milliseconds.
const BATCH_ROWS: usize = 8_192;
/// How long a transaction may take, after which its connection is given up.
const TRANSACTION: Duration = Duration::from_secs(30);
/// How long to wait before connecting again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// How long to wait for a transaction whose commit is still going on.
const UNDECIDED: Duration = Duration::from_millis(50);

/// What can be asked of the writer.
pub(super) enum Work {
    Change(Box<Change>),
    Audit {
        workspace: WorkspaceId,
        context: Context,
        entries: Vec<AuditEntry>,
        at: Timestamp,
    },
    Reseal(Vec<(SealedSecret, Arc<[u8]>)>),
    Touch(Vec<(ApiKeyId, Timestamp)>),
    Figures {
        kept: Vec<KeptFigures>,
        forget_before: Timestamp,
    },
    /// With its share of the bound on what waits, held until it is written.
    Accept(
        Accept,
        #[expect(dead_code, reason = "held, not read")] Share,
    ),
    Finish {
        finishes: Vec<Finish>,
        receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    },
    Prune {
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    },
    PutMeta {
        key: &'static str,
        value: Vec<u8>,
    },
    /// Nothing: its answer says that everything before it is durable.
    Barrier,
}

impl Work {
    fn rows(&self) -> usize {
        match self {
            Self::Change(change) => change.writes.len() + change.audit.len() + 1,
            Self::Accept(accept, _) => {
                let rows = accept.messages.iter().map(|new| 1 + new.deliveries.len());
                rows.sum()
            }
            Self::Finish { finishes, .. } => finishes.len(),
            Self::Figures { kept, .. } => kept.len() + 1,
            Self::Prune { limit, .. } => *limit,
            Self::Audit { .. }
            | Self::Reseal(_)
            | Self::Touch(_)
            | Self::PutMeta { .. }
            | Self::Barrier => 1,
        }
    }
}

/// What it answers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Answer {
    #[default]
    Done,
    Replaced(usize),
    Pruned(Progress<()>),
}

/// Work, and who waits for its answer.
struct Order {
    work: Work,
    waiter: Waiter,
}

/// The open transaction, as a piece of work sees it.
pub(super) struct Tx<'a> {
    pub(super) session: &'a Session,
    pub(super) effects: Effects,
    live: &'a Live,
    memory: &'a Memory,
}

/// What the writer knows of the database as of the last commit.
#[derive(Default)]
struct Memory {
    days: BTreeSet<Day>,
    event_types: HashSet<(WorkspaceId, EventType)>,
    sweep: Sweep,
}

impl Tx<'_> {
    fn writes(&self) -> impl Iterator<Item = &Write> {
        self.effects.writes.iter()
    }

    /// Refuses a workspace that does not exist.
    pub(super) fn known_workspace(&self, id: WorkspaceId) -> Outcome<()> {
        let fresh = |write: &Write| matches!(write, Write::Workspace(known) if known.id == id);
        if self.live.workspace(id).is_some() || self.writes().any(fresh) {
            return Ok(());
        }
        Err(StoreError::Conflict {
            what: format!("workspace {id}"),
        })
    }

    /// Refuses an endpoint that does not exist.
    pub(super) fn known_endpoint(&self, id: EndpointId) -> Outcome<()> {
        let fresh = |write: &Write| matches!(write, Write::Endpoint(known) if known.id == id);
        let forgotten = self.effects.forgotten.contains(&id);
        if !forgotten && (self.live.endpoint(id).is_some() || self.writes().any(fresh)) {
            return Ok(());
        }
        Err(StoreError::Conflict {
            what: format!("endpoint {id}"),
        })
    }

    pub(super) fn knows_type(&self, workspace: WorkspaceId, name: &EventType) -> bool {
        let key = (workspace, name.clone());
        self.memory.event_types.contains(&key) || self.effects.event_types.contains(&key)
    }

    pub(super) fn days(&self) -> impl Iterator<Item = Day> {
        let known = self.memory.days.iter().chain(&self.effects.days);
        known
            .copied()
            .filter(|day| !self.effects.dropped.contains(day) || self.effects.days.contains(day))
    }

    pub(super) fn knows_day(&self, day: Day) -> bool {
        let known = self.memory.days.contains(&day) && !self.effects.dropped.contains(&day);
        known || self.effects.days.contains(&day)
    }

    /// How far pruning came.
    pub(super) fn sweep(&self) -> Sweep {
        let latest = self.effects.sweep.as_ref();
        latest.unwrap_or(&self.memory.sweep).clone()
    }
}

/// The handle of the writer's thread.
pub(super) struct Writer {
    /// Gone when the thread is to end, after what was queued.
    orders: Option<mpsc::UnboundedSender<Order>>,
    commits: Arc<AtomicU64>,
    cannot_write: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(options: &PostgresOptions) -> Result<Self, OpenError> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OpenError::Thread)?;
        let commits = Arc::new(AtomicU64::new(0));
        let cannot_write = Arc::new(AtomicBool::new(false));
        let thread = Thread {
            target: options.target.clone(),
            live: Arc::clone(&options.live),
            sink: Arc::clone(&options.hints),
            inbox,
            session: None,
            memory: Memory::default(),
            unsettled: None,
            retry: Retry::new(),
            commits: Arc::clone(&commits),
            cannot_write: Arc::clone(&cannot_write),
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || runtime.block_on(thread.run()))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            orders: Some(orders),
            commits,
            cannot_write,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// How many transactions were committed since the start.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Whether the last transaction that wrote something could not.
    pub(super) fn cannot_write(&self) -> bool {
        self.cannot_write.load(Ordering::Relaxed)
    }

    /// Queues work: it is queued when this returns, whether or not the future is awaited.
    pub(super) fn order(&self, work: Work) -> impl Future<Output = Outcome<Answer>> + Send + use<> {
        let (waiter, answer) = oneshot::channel();
        if let Some(orders) = &self.orders {
            // When the thread is gone the waiter is dropped with the order, and the answer says so.
            let _ = orders.send(Order { work, waiter });
        }
        async move { answer.await.unwrap_or(Err(StoreError::Stopped)) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.orders = None;
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

/// When to connect again.
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Retry {
    fn new() -> Self {
        Self {
            at: Instant::now(),
            pause: RETRY_FIRST,
        }
    }

    fn later(&mut self) {
        self.at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(RETRY_LAST);
    }
}

/// A transaction whose commit was not answered, with what it does to memory if it happened.
struct Unsettled {
    transaction: String,
    effects: Effects,
}

/// How a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Together,
    OneByOne,
}

/// The answers of a batch so far, in its order.
pub(super) type Answers = Vec<Outcome<Answer>>;

type Waiter = oneshot::Sender<Outcome<Answer>>;

struct Thread {
    target: Target,
    live: Arc<Live>,
    sink: Arc<dyn HintSink>,
    inbox: mpsc::UnboundedReceiver<Order>,
    session: Option<Session>,
    memory: Memory,
    unsettled: Option<Unsettled>,
    retry: Retry,
    commits: Arc<AtomicU64>,
    cannot_write: Arc<AtomicBool>,
}

impl Thread {
    async fn run(mut self) {
        self.connect().await;
        loop {
            let first = if self.session.is_some() {
                self.inbox.recv().await
            } else if let Ok(first) = timeout_at(self.retry.at, self.inbox.recv()).await {
                first
            } else {
                self.connect().await;
                continue;
            };
            let Some(first) = first else {
                return;
            };
            let (mut works, mut waiters) = (Vec::new(), Vec::new());
            let mut rows = 0;
            let mut next = Ok(first);
            while let Ok(Order { work, waiter }) = next {
                rows += work.rows();
                works.push(work);
                waiters.push(waiter);
                if works.len() >= BATCH_WORKS || rows >= BATCH_ROWS {
                    break;
                }
                next = self.inbox.try_recv();
            }
            self.commit(works, waiters).await;
        }
    }

    /// Connects, learns the fate of what was under way when the last connection was lost, and what the
    /// writer has to know. Without success it is tried again later.
    async fn connect(&mut self) {
        match timeout(TRANSACTION, self.try_connecting()).await {
            Ok(Ok(session)) => {
                self.session = Some(session);
                self.retry = Retry::new();
                self.cannot_write.store(false, Ordering::Relaxed);
                return;
            }
            Ok(Err(error)) => {
                let cause = error.source().map(ToString::to_string);
                tracing::warn!(%error, cause, "the store cannot write: no connection to its database");
            }
            Err(_) => tracing::warn!("the store cannot write: its database does not answer"),
        }
        self.cannot_write.store(true, Ordering::Relaxed);
        self.retry.later();
    }

    async fn try_connecting(&mut self) -> Outcome<Session> {
        let session =
            open_for_writing(&self.target)
                .await
                .map_err(|error| StoreError::Unwritable {
                    step: "connect to the database",
                    source: Box::new(error),
                })?;
        // Rows that are joined to arrays are few, and the tables may have grown since they were last
        // counted: a plan is made once, and it is the one by the keys. An answer means that the log was
        // synced (G1), whatever the database's default is; waiting for replicas is left to it.
        let settings =
            "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
                        SET plan_cache_mode = force_generic_plan;
                        SELECT set_config('synchronous_commit', 'on', false)
                        WHERE current_setting('synchronous_commit') = 'off'";
        run(&session, "connect to the database", settings).await?;
        if let Some(unsettled) = &self.unsettled {
            let committed = fate(&session, &unsettled.transaction).await?;
            let settled = self.unsettled.take().filter(|_| committed);
            if let Some(Unsettled { effects, .. }) = settled {
                self.happen(effects);
            }
        }
        self.memory.days = days::known(&session).await?;
        Ok(session)
    }

    fn happen(&mut self, effects: Effects) {
        let memory = &mut self.memory;
        memory.days.retain(|day| !effects.dropped.contains(day));
        memory.days.extend(&effects.days);
        memory
            .event_types
            .extend(effects.event_types.iter().cloned());
        if let Some(sweep) = &effects.sweep {
            memory.sweep = sweep.clone();
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        effects.happen(&self.live, self.sink.as_ref());
    }

    async fn commit(&mut self, works: Vec<Work>, waiters: Vec<Waiter>) {
        let answers = if works.iter().all(|work| matches!(work, Work::Barrier)) {
            works.iter().map(|_| Ok(Answer::Done)).collect()
        } else {
            match self.transact(&works).await {
                Ok(answers) => answers,
                Err(error) => {
                    let cause = error.source().map(ToString::to_string);
                    tracing::error!(%error, cause, works = works.len(), "a store transaction did not happen, or may not have");
                    works.iter().map(|_| Err(again(&error))).collect()
                }
            }
        };
        // What they hold of the bound on what waits is given back first.
        drop(works);
        for (waiter, answer) in waiters.into_iter().zip(answers) {
            // The caller may have gone away; what was asked has happened all the same.
            let _ = waiter.send(answer);
        }
    }

    /// Writes a batch; an error is everyone's.
    async fn transact(&mut self, works: &[Work]) -> Outcome<Answers> {
        if self.session.is_none() && self.retry.at <= Instant::now() {
            self.connect().await;
        }
        let Some(session) = self.session.take() else {
            return Err(StoreError::Unwritable {
                step: "commit",
                source: "there is no connection to the database; nothing was written".into(),
            });
        };
        let deadline = Instant::now() + TRANSACTION;
        let mut written = self
            .attempt(&session, works, Manner::Together, deadline)
            .await;
        if written.is_err() && !session.is_closed() && Instant::now() < deadline {
            written = match run(&session, "roll back", "ROLLBACK").await {
                Ok(()) => {
                    self.attempt(&session, works, Manner::OneByOne, deadline)
                        .await
                }
                Err(error) => Err(error),
            };
        }
        let (transaction, answers, effects) = match written {
            Ok(written) => written,
            Err(error) => {
                self.after_failure(session).await;
                return Err(error);
            }
        };
        match timeout_at(deadline, run(&session, "commit", "COMMIT")).await {
            Ok(Ok(())) => {
                self.session = Some(session);
                self.cannot_write.store(false, Ordering::Relaxed);
                self.happen(effects);
                Ok(answers)
            }
            // Refused by a database that is still there: it rolled back.
            Ok(Err(error)) if !session.is_closed() => {
                self.after_failure(session).await;
                Err(error)
            }
            Ok(Err(_)) | Err(_) => {
                self.unsettled = Some(Unsettled {
                    transaction,
                    effects,
                });
                self.lost();
                Err(StoreError::Engine {
                    step: "commit",
                    source: "the connection was lost before the answer; whether it happened is not known yet"
                        .into(),
                })
            }
        }
    }

    /// Keeps a connection that is still good.
    async fn after_failure(&mut self, session: Session) {
        self.cannot_write.store(true, Ordering::Relaxed);
        let good = timeout(RETRY_LAST, run(&session, "roll back", "ROLLBACK")).await;
        if matches!(good, Ok(Ok(()))) {
            self.session = Some(session);
        } else {
            self.lost();
        }
    }

    fn lost(&mut self) {
        self.cannot_write.store(true, Ordering::Relaxed);
        self.retry.later();
    }

    async fn attempt(
        &self,
        session: &Session,
        works: &[Work],
        manner: Manner,
        deadline: Instant,
    ) -> Outcome<(String, Answers, Effects)> {
        let written = timeout_at(deadline, self.write_all(session, works, manner)).await;
        written.unwrap_or_else(|_| {
            Err(StoreError::Unwritable {
                step: "write",
                source: "the database does not answer; nothing was written".into(),
            })
        })
    }

    async fn write_all(
        &self,
        session: &Session,
        works: &[Work],
        manner: Manner,
    ) -> Outcome<(String, Answers, Effects)> {
        let transaction = begin(session).await?;
        let mut tx = Tx {
            session,
            effects: Effects::default(),
            live: &self.live,
            memory: &self.memory,
        };
        let mut answers: Answers = works.iter().map(|_| Ok(Answer::Done)).collect();
        let mut group = Group::default();
        for (index, work) in works.iter().enumerate() {
            let grouped = matches!(work, Work::Accept(..) | Work::Finish { .. });
            if grouped && manner == Manner::Together {
                if !group.takes(work) {
                    std::mem::take(&mut group)
                        .write(&mut tx, &mut answers)
                        .await?;
                }
                group.add(index, work);
                continue;
            }
            std::mem::take(&mut group)
                .write(&mut tx, &mut answers)
                .await?;
            answers[index] = guarded(&mut tx, work).await?;
        }
        group.write(&mut tx, &mut answers).await?;
        Ok((transaction, answers, tx.effects))
    }
}

/// Begins a transaction and returns the name by which its fate can be asked for.
async fn begin(session: &Session) -> Outcome<String> {
    let sql = "BEGIN; SELECT pg_current_xact_id()::text";
    let told = session.simple_query(sql).await.map_err(failed("begin"))?;
    let name = told.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(name.unwrap_or_default().to_owned())
}

/// Whether a transaction was committed. While it is still going on, which a server that has not noticed the
/// lost connection may be, this waits.
async fn fate(session: &Session, transaction: &str) -> Outcome<bool> {
    let sql = "SELECT pg_xact_status($1::text::xid8)";
    loop {
        let found = first(
            session,
            "ask for the fate of a commit",
            sql,
            &[&transaction],
        )
        .await?;
        let status: Option<String> = found.map_or(Ok(None), |row| column(&row, 0))?;
        match status.as_deref() {
            Some("committed") => return Ok(true),
            Some("in progress") => tokio::time::sleep(UNDECIDED).await,
            // Aborted, or so long ago that the database has forgotten it.
            _ => return Ok(false),
        }
    }
}

/// One piece of work that is undone alone when it is refused. The outer error is of the transaction.
async fn guarded(tx: &mut Tx<'_>, work: &Work) -> Outcome<Outcome<Answer>> {
    if matches!(work, Work::Barrier) {
        return Ok(Ok(Answer::Done));
    }
    let mark = tx.effects.mark();
    run(tx.session, "write", "SAVEPOINT work").await?;
    let answer = alone(tx, work).await;
    if answer.is_err() {
        run(tx.session, "write", "ROLLBACK TO SAVEPOINT work").await?;
        tx.effects.undo_to(&mark);
        if matches!(work, Work::Prune { .. }) {
            // What was passed may not have been: the next sweep begins anew.
            tx.effects.sweep = Some(Sweep::default());
        }
    }
    run(tx.session, "write", "RELEASE SAVEPOINT work").await?;
    Ok(answer)
}

async fn alone(tx: &mut Tx<'_>, work: &Work) -> Outcome<Answer> {
    match work {
        Work::Change(change) => configuration::change(tx, change).await?,
        Work::Audit {
            workspace,
            context,
            entries,
            at,
        } => ledger::append_audit(tx, *workspace, context, entries, *at).await?,
        Work::Reseal(swaps) => return configuration::reseal(tx, swaps).await.map(Answer::Replaced),
        Work::Touch(uses) => configuration::touch_api_keys(tx.session, uses).await?,
        Work::Figures {
            kept,
            forget_before,
        } => figures::keep(tx.session, kept, *forget_before).await?,
        Work::Accept(..) | Work::Finish { .. } => return Group::alone(tx, work).await,
        Work::Prune { before, now, limit } => {
            let progress = upkeep::prune(tx, *before, *now, *limit).await?;
            return Ok(Answer::Pruned(progress));
        }
        Work::PutMeta { key, value } => configuration::put_meta(tx.session, key, value).await?,
        Work::Barrier => {}
    }
    Ok(Answer::Done)
}

/// The same error for another caller.
fn again(error: &StoreError) -> StoreError {
    let told = |source: &(dyn std::error::Error + Send + Sync)| source.to_string().into();
    match error {
        StoreError::Unwritable { step, source } => StoreError::Unwritable {
            step,
            source: told(source.as_ref()),
        },
        StoreError::Engine { step, source } => StoreError::Engine {
            step,
            source: told(source.as_ref()),
        },
        other => StoreError::Engine {
            step: "commit",
            source: other.to_string().into(),
        },
    }
}

//! The writer's thread: batches while the database is there, patience while it is away.
//!
//! **A loss.** When the connection is lost before the commit, nothing was written, and everyone is told so.
//! When it is lost during the commit, everyone is told that the effect is unknown ([`StoreError::Uncertain`]),
//! and it is found out before anything else is written ([`session`]). From the loss on nothing
//! is signed, whoever asks to write is refused at once, and the connection is sought in the background.
//!
//! **What was sent is recorded.** A finish is the only record of an exchange that has happened: it is never
//! refused because of a loss, but *held*, and written first when the database is back. Held finishes are
//! bounded by the exchanges that may be open, because none begins meanwhile.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hookturn_core::store::{HintSink, StoreError};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::PostgresOptions;
use super::connect::{OpenError, Session, Target};
use super::effects::Effects;
use super::rows::{Outcome, is_fatal, run};
use super::session::{self, Away, Back, Owned};
use super::tenure::{GRACE, HEARTBEAT, Tenure};
use super::transaction::{Manner, Memory, write_all};
use super::writer::{Answer, Answers, Order, Work};
use crate::store::live::Live;

pub(super) use super::session::Gone;

/// Pieces of work that share one transaction at most.
const BATCH_WORKS: usize = 2_048;
/// Rows that share one transaction at most, so that one commit stays within tens of milliseconds.
const BATCH_ROWS: usize = 8_192;
/// How long a transaction may take, after which its connection is given up.
const TRANSACTION: Duration = Duration::from_secs(15);
/// How long to wait before connecting again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// How long a store that is closed while its database is away tries to record what it holds.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// A transaction whose commit was not answered, with what it does to memory if it happened, and the finishes
/// in it, which are written again if it did not.
struct Unsettled {
    number: i64,
    effects: Effects,
    finishes: Vec<Order>,
}

/// Why a batch was not written.
enum Failed {
    /// The database refused it. Nothing was written.
    Refused(StoreError),
    /// The connection was lost before the commit. Nothing was written.
    Lost(StoreError),
    /// The connection was lost during the commit.
    Unknown(Box<Effects>),
}

/// What came up while the database was away.
enum Aside {
    Back(Result<Back, Away>),
    Asked(Option<Order>),
}

pub(super) struct Thread {
    target: Target,
    live: Arc<Live>,
    sink: Arc<dyn HintSink>,
    inbox: mpsc::UnboundedReceiver<Order>,
    tenure: Tenure,
    /// Of the last transaction that was begun.
    number: i64,
    session: Option<Session>,
    ended: Arc<Notify>,
    /// When the round trip began that last showed that the lock is held.
    confirmed: Instant,
    memory: Memory,
    unsettled: Option<Unsettled>,
    held: Vec<Order>,
    coming_back: Option<JoinHandle<Result<Back, Away>>>,
    pause: Duration,
    leaving: Option<Order>,
    commits: Arc<AtomicU64>,
    cannot_write: Arc<AtomicBool>,
    gone: watch::Sender<Option<Gone>>,
}

impl Thread {
    pub(super) fn new(
        options: &PostgresOptions,
        inbox: mpsc::UnboundedReceiver<Order>,
        commits: Arc<AtomicU64>,
        cannot_write: Arc<AtomicBool>,
        gone: watch::Sender<Option<Gone>>,
    ) -> Self {
        Self {
            target: options.target.clone(),
            live: Arc::clone(&options.live),
            sink: Arc::clone(&options.hints),
            inbox,
            tenure: Tenure::new(),
            number: 0,
            session: None,
            ended: Arc::default(),
            confirmed: Instant::now(),
            memory: Memory::default(),
            unsettled: None,
            held: Vec::new(),
            coming_back: None,
            pause: Duration::ZERO,
            leaving: None,
            commits,
            cannot_write,
            gone,
        }
    }

    pub(super) async fn run(mut self, ready: oneshot::Sender<Result<(), OpenError>>) {
        self.live.confirm_no_longer();
        match session::open(&self.target, &mut self.tenure, &self.live).await {
            Ok((owned, loaded)) => {
                self.live.reset(loaded);
                self.have(owned);
                let _ = ready.send(Ok(()));
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        }
        while let Some(orders) = self.next().await {
            self.write(orders).await;
            if self.leaving.is_some() {
                break;
            }
        }
        self.leave().await;
    }

    fn have(&mut self, owned: Owned) {
        self.session = Some(owned.session);
        self.ended = owned.ended;
        self.memory.days = owned.days;
        self.pause = Duration::ZERO;
        self.cannot_write.store(false, Ordering::Relaxed);
        self.confirm(owned.confirmed);
    }

    /// The lock was held at this moment: whoever takes it later waits for as long as this is believed.
    fn confirm(&mut self, begun: Instant) {
        self.confirmed = begun;
        self.live.confirm_until(begun + GRACE);
    }

    /// The next batch, or nothing when it is time to end.
    async fn next(&mut self) -> Option<Vec<Order>> {
        loop {
            if self.session.is_none() {
                if !self.wait_for_the_database().await {
                    return None;
                }
                continue;
            }
            if !self.held.is_empty() {
                return Some(std::mem::take(&mut self.held));
            }
            tokio::select! {
                biased;
                () = self.ended.notified() => self.lose(),
                first = self.inbox.recv() => return first.map(|first| self.batch(first)),
                () = sleep_until(self.confirmed + HEARTBEAT) => self.beat().await,
            }
        }
    }

    /// Takes whatever waits behind the first order.
    fn batch(&mut self, first: Order) -> Vec<Order> {
        let (mut orders, mut rows) = (Vec::new(), 0);
        let mut next = Ok(first);
        while let Ok(order) = next {
            if matches!(order.work, Work::Leave) {
                self.leaving = Some(order);
                break;
            }
            rows += order.work.rows();
            orders.push(order);
            if orders.len() >= BATCH_WORKS || rows >= BATCH_ROWS {
                break;
            }
            next = self.inbox.try_recv();
        }
        orders
    }

    /// Shows that the lock is held while nothing is written.
    async fn beat(&mut self) {
        let Some(session) = &self.session else {
            return;
        };
        match timeout(GRACE, session::round_trip(session)).await {
            Ok(Ok(begun)) => self.confirm(begun),
            Ok(Err(_)) | Err(_) => self.lose(),
        }
    }

    /// The connection is lost: nothing is signed until it is back.
    fn lose(&mut self) {
        self.live.confirm_no_longer();
        self.session = None;
        if !self.cannot_write.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the store lost its database: nothing is sent or accepted until it is back, and what was sent is recorded then"
            );
        }
    }

    // ----- while the database is away -----

    /// Seeks the connection and answers whoever asks meanwhile. Returns whether it is back; otherwise it is
    /// time to end.
    async fn wait_for_the_database(&mut self) -> bool {
        loop {
            let coming_back = self.coming_back.get_or_insert_with(|| {
                tokio::spawn(session::come_back(
                    Instant::now() + self.pause,
                    self.target.clone(),
                    self.tenure.clone(),
                    Arc::clone(&self.live),
                ))
            });
            let aside = tokio::select! {
                biased;
                back = coming_back => Aside::Back(back.unwrap_or(Err(Away::Unreachable(StoreError::Stopped)))),
                order = self.inbox.recv() => Aside::Asked(order),
            };
            match aside {
                Aside::Back(back) => {
                    if let Some(back) = self.came_back(back) {
                        return back;
                    }
                }
                Aside::Asked(Some(order)) if !matches!(order.work, Work::Leave) => {
                    self.put_off(order);
                }
                Aside::Asked(last) => {
                    self.leaving = last;
                    return self.last_chance().await;
                }
            }
        }
    }

    /// What an attempt to come back means: to go on, to end, or to try again.
    fn came_back(&mut self, back: Result<Back, Away>) -> Option<bool> {
        self.coming_back = None;
        match back {
            Ok((owned, written)) => {
                if let Some(unsettled) = self.unsettled.take() {
                    let committed = unsettled.number <= written;
                    self.settle(unsettled, committed);
                }
                self.have(owned);
                tracing::info!(held = self.held.len(), "the store has its database again");
                Some(true)
            }
            Err(Away::Unreachable(error)) => {
                session::warn(&error);
                self.cannot_write.store(true, Ordering::Relaxed);
                self.pause = (self.pause * 2).clamp(RETRY_FIRST, RETRY_LAST);
                None
            }
            Err(Away::Gone(gone)) => {
                tracing::error!("{gone}");
                let _ = self.gone.send(Some(gone));
                Some(false)
            }
        }
    }

    /// The fate of the transaction that was under way is known.
    fn settle(&mut self, unsettled: Unsettled, committed: bool) {
        if committed {
            self.happen(unsettled.effects);
            for order in unsettled.finishes {
                order.answer(Ok(Answer::Done));
            }
        } else {
            self.held.splice(0..0, unsettled.finishes);
        }
    }

    fn put_off(&mut self, order: Order) {
        let nothing_waits = self.held.is_empty() && self.unsettled.is_none();
        match &order.work {
            Work::Finish { .. } => self.held.push(order),
            Work::Barrier if nothing_waits => order.answer(Ok(Answer::Done)),
            _ => order.answer(Err(away())),
        }
    }

    /// The store is closed: one more look whether the database is there, if there is something to record.
    async fn last_chance(&mut self) -> bool {
        let waits = !self.held.is_empty() || self.unsettled.is_some();
        if waits
            && let Some(coming_back) = self.coming_back.take()
            && let Ok(Ok(back)) = timeout(LAST_CHANCE, coming_back).await
            && self.came_back(back) == Some(true)
        {
            return true;
        }
        false
    }

    // ----- writing -----

    fn happen(&mut self, effects: Effects) {
        self.memory.learn(&effects);
        self.commits.fetch_add(1, Ordering::Relaxed);
        effects.happen(&self.live, self.sink.as_ref());
    }

    async fn write(&mut self, orders: Vec<Order>) {
        if orders
            .iter()
            .all(|order| matches!(order.work, Work::Barrier))
        {
            for order in orders {
                order.answer(Ok(Answer::Done));
            }
            return;
        }
        let works: Vec<&Work> = orders.iter().map(|order| &order.work).collect();
        match self.transact(&works).await {
            Ok(answers) => {
                for (order, answer) in orders.into_iter().zip(answers) {
                    order.answer(answer);
                }
            }
            Err(failed) => self.explain(failed, orders),
        }
    }

    /// Tells everyone of a batch what became of it.
    fn explain(&mut self, failed: Failed, orders: Vec<Order>) {
        let (error, lost) = match &failed {
            Failed::Refused(error) => (error, false),
            Failed::Lost(error) => (error, true),
            Failed::Unknown(_) => (&StoreError::Uncertain, true),
        };
        let cause = error.source().map(ToString::to_string);
        tracing::error!(%error, cause, works = orders.len(), "a store transaction did not happen, or may not have");
        let mut finishes = Vec::new();
        for order in orders {
            if lost && matches!(order.work, Work::Finish { .. }) {
                finishes.push(order);
            } else {
                order.answer(Err(again(error)));
            }
        }
        match failed {
            Failed::Refused(_) => {}
            Failed::Lost(_) => self.held.splice(0..0, finishes).for_each(drop),
            Failed::Unknown(effects) => {
                self.unsettled = Some(Unsettled {
                    number: self.number,
                    effects: *effects,
                    finishes,
                });
            }
        }
    }

    /// Writes a batch; an error is everyone's.
    async fn transact(&mut self, works: &[&Work]) -> Result<Answers, Failed> {
        let Some(session) = self.session.take() else {
            return Err(Failed::Lost(away()));
        };
        let deadline = Instant::now() + TRANSACTION;
        self.number += 1;
        let mut begun = Instant::now();
        let mut written = self
            .attempt(&session, works, Manner::Together, deadline)
            .await;
        if written.is_err() && !session.is_closed() && Instant::now() < deadline {
            begun = Instant::now();
            written = match run(&session, "roll back", "ROLLBACK").await {
                Ok(()) => {
                    self.attempt(&session, works, Manner::OneByOne, deadline)
                        .await
                }
                Err(error) => Err(error),
            };
        }
        let (answers, effects) = match written {
            Ok(written) => written,
            Err(error) => return Err(self.after_failure(session, error).await),
        };
        self.confirm(begun);
        let begun = Instant::now();
        match timeout_at(deadline, run(&session, "commit", "COMMIT")).await {
            Ok(Ok(())) => {
                self.session = Some(session);
                self.cannot_write.store(false, Ordering::Relaxed);
                self.confirm(begun);
                self.happen(effects);
                Ok(answers)
            }
            // Refused by a database that goes on: it rolled back. One that ends may have committed before.
            Ok(Err(error)) if !session.is_closed() && !is_fatal(&error) => {
                Err(self.after_failure(session, error).await)
            }
            Ok(Err(_)) | Err(_) => {
                drop(session);
                self.lose();
                Err(Failed::Unknown(Box::new(effects)))
            }
        }
    }

    /// Keeps a connection that is still good.
    async fn after_failure(&mut self, session: Session, error: StoreError) -> Failed {
        let good = timeout(GRACE, run(&session, "roll back", "ROLLBACK")).await;
        if matches!(good, Ok(Ok(()))) {
            self.cannot_write.store(true, Ordering::Relaxed);
            self.session = Some(session);
            Failed::Refused(error)
        } else {
            drop(session);
            self.lose();
            Failed::Lost(StoreError::Unwritable {
                step: "commit",
                source: Box::new(error),
            })
        }
    }

    async fn attempt(
        &self,
        session: &Session,
        works: &[&Work],
        manner: Manner,
        deadline: Instant,
    ) -> Outcome<(Answers, Effects)> {
        let written = async {
            self.tenure.begin(session, self.number).await?;
            write_all(session, works, manner, &self.live, &self.memory).await
        };
        timeout_at(deadline, written).await.unwrap_or_else(|_| {
            Err(StoreError::Unwritable {
                step: "write",
                source: "the database does not answer; nothing was written".into(),
            })
        })
    }

    /// Gives the database back, and tells those who still wait that nothing more happens here.
    async fn leave(&mut self) {
        self.live.confirm_no_longer();
        if let Some(session) = self.session.take() {
            let left = timeout(GRACE, self.tenure.leave(&session)).await;
            if !matches!(left, Ok(Ok(()))) {
                tracing::warn!(
                    "the database could not be told that this process ends; the next one waits for a moment"
                );
            }
        }
        if let Some(coming_back) = self.coming_back.take() {
            coming_back.abort();
        }
        let unsettled = self.unsettled.take().map(|unsettled| unsettled.finishes);
        for order in unsettled
            .into_iter()
            .flatten()
            .chain(std::mem::take(&mut self.held))
        {
            order.answer(Err(StoreError::Stopped));
        }
        if let Some(order) = self.leaving.take() {
            order.answer(Ok(Answer::Done));
        }
    }
}

/// There is no connection.
fn away() -> StoreError {
    StoreError::Unwritable {
        step: "commit",
        source: "there is no connection to the database; nothing was written".into(),
    }
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
        StoreError::Uncertain => StoreError::Uncertain,
        other => StoreError::Engine {
            step: "commit",
            source: other.to_string().into(),
        },
    }
}

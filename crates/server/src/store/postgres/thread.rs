//! The writer's thread: batches while the database is there, patience while it is away.
//!
//! **A loss.** When the connection is lost before the commit, nothing was written, and everyone is told so.
//! When it is lost during the commit, everyone is told that the effect is unknown ([`StoreError::Uncertain`]),
//! and it is found out before anything else is written ([`session`]). From the loss on nothing
//! is signed, whoever asks to write is refused at once, and the connection is sought in the background.
//!
//! **What was sent is recorded.** A finish is the only record of an exchange that has happened: it is never
//! refused because of a loss, or because its transaction took too long (this process may have been stopped in the
//! middle of it), but *held*, and written first when the database is back. Held finishes are
//! bounded by the exchanges that may be open, because none begins meanwhile. Only a node that was taken over drops
//! them: their deliveries are another node's, and are sent again.
//!
//! **The others.** Every transaction shows that this node lives and how far it follows the others, and follows them
//! before it writes ([`view`]). At every heartbeat, and when the ear hears of something, the shards are
//! [reviewed](super::review).

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hookturn_core::store::{HintSink, StoreError};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::PostgresOptions;
use super::absence::Absence;
use super::connect::{OpenError, Session, Target};
use super::ear::{Ear, Voice};
use super::effects::Effects;
use super::node::{Begun, Node, Word};
use super::rows::{Outcome, again, execute, is_deadlock, is_fatal, run};
use super::session::{self, Away, Back, Seat};
use super::standing::Standing;
use super::transaction::{Head, Manner, Memory, write_all};
use super::view;
use super::writer::{Answer, Answers, Order, Work};
use crate::store::live::Live;
use crate::store::owned::Owned;
use crate::store::seal::Sealer;
use crate::store::sharing::lease::{GRACE, HEARTBEAT, confirmed_until};
use crate::store::sharing::view::Recent;
use crate::telemetry::troubles::Troubles;

mod away;
mod sharing;

pub(super) use super::session::Gone;

/// Pieces of work that share one transaction at most.
const BATCH_WORKS: usize = 2_048;
/// Rows that share one transaction at most, so that one commit stays within tens of milliseconds.
const BATCH_ROWS: usize = 8_192;
/// How often a batch is written once more because it and another node's waited for each other.
const DEADLOCKS: usize = 3;
/// What it does, as the log says it when it fails.
const TRANSACTION: &str = "write a transaction";
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
    /// It took too long, and the connection is still good. Nothing was written.
    Late(StoreError),
    /// The connection was lost before the commit. Nothing was written.
    Lost(StoreError),
    /// The connection was lost during the commit.
    Unknown(Box<Effects>),
}

pub(super) struct Thread {
    target: Target,
    live: Arc<Live>,
    sink: Arc<dyn HintSink>,
    inbox: mpsc::UnboundedReceiver<Order>,
    node: Node,
    voice: Arc<Voice>,
    owned: Arc<Owned>,
    standing: Arc<Standing>,
    sealer: Option<Arc<Sealer>>,
    /// Of the last transaction that was begun.
    number: i64,
    session: Option<Session>,
    ended: Arc<Notify>,
    /// When the last transaction began that was committed: it renewed the lease.
    renewed: Option<Instant>,
    /// When the shards were last looked at.
    reviewed: Instant,
    upkeep: sharing::Upkeep,
    /// The version of the view that is in memory.
    applied: i64,
    recent: Recent,
    /// The row of this node says that it was taken over.
    taken_over: bool,
    memory: Memory,
    unsettled: Option<Unsettled>,
    held: Vec<Order>,
    coming_back: Option<JoinHandle<Result<Back, Away>>>,
    pause: Duration,
    leaving: Option<Order>,
    commits: Arc<AtomicU64>,
    cannot_write: Arc<AtomicBool>,
    absence: Absence,
    gone: watch::Sender<Option<Gone>>,
    /// What the log says of what fails and is tried again.
    troubles: Troubles,
}

impl Thread {
    pub(super) fn new(
        options: &PostgresOptions,
        node: Node,
        inbox: mpsc::UnboundedReceiver<Order>,
        commits: Arc<AtomicU64>,
        cannot_write: Arc<AtomicBool>,
        absence: Absence,
        gone: watch::Sender<Option<Gone>>,
    ) -> Self {
        let owned = Arc::clone(&options.sharing.owned);
        Self {
            target: options.target.clone(),
            live: Arc::clone(&options.live),
            sink: Arc::clone(&options.hints),
            inbox,
            node,
            voice: Arc::new(Voice::new(
                Arc::clone(&owned),
                options.sharing.sealer.clone(),
            )),
            owned,
            standing: Arc::clone(&options.sharing.standing),
            sealer: options.sharing.sealer.clone(),
            number: 0,
            session: None,
            ended: Arc::default(),
            renewed: None,
            reviewed: Instant::now(),
            upkeep: sharing::Upkeep::default(),
            applied: 0,
            recent: Recent::default(),
            taken_over: false,
            memory: Memory::default(),
            unsettled: None,
            held: Vec::new(),
            coming_back: None,
            pause: Duration::ZERO,
            leaving: None,
            commits,
            cannot_write,
            absence,
            gone,
            troubles: Troubles::default(),
        }
    }

    pub(super) async fn run(mut self, ready: oneshot::Sender<Result<(), OpenError>>) {
        self.live.confirm_no_longer();
        match session::open(&self.target, &self.node, &self.live).await {
            Ok((seat, loaded)) => {
                let version = loaded.version;
                self.live.reset(loaded.configuration);
                self.follow_master_key(loaded.master_key.as_deref());
                self.live.shows(version.cast_unsigned());
                (self.applied, self.recent) = (version, Recent::begin(version));
                self.have(seat);
                self.share().await;
                let _ = ready.send(Ok(()));
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        }
        let ear = tokio::spawn(
            Ear {
                target: self.target.clone(),
                node: self.node.clone(),
                voice: Arc::clone(&self.voice),
                sink: Arc::clone(&self.sink),
            }
            .run(),
        );
        while let Some(orders) = self.next().await {
            self.write(orders).await;
            if self.leaving.is_some() {
                break;
            }
        }
        ear.abort();
        self.leave().await;
    }

    fn have(&mut self, seat: Seat) {
        self.session = Some(seat.session);
        self.ended = seat.ended;
        self.memory.days = seat.days;
        self.pause = Duration::ZERO;
        self.cannot_write.store(false, Ordering::Relaxed);
        self.absence.ends();
        // Looked at before anything else is written.
        self.reviewed = Instant::now() - HEARTBEAT;
    }

    /// The view was current when this transaction began: it is believed for a while, as far as the lease goes.
    fn confirm(&self, begun: Instant) {
        if let Some(renewed) = self.renewed {
            let until = confirmed_until(begun, renewed, self.node.lease);
            self.live.confirm_until(until);
        }
    }

    /// A transaction that began then was committed: the lease is renewed, and this node can judge others.
    fn renew(&mut self, begun: Instant) {
        self.renewed = Some(begun);
        self.voice.renewed(begun);
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
            if self.reviewed.elapsed() >= HEARTBEAT {
                self.share().await;
                continue;
            }
            let (voice, owned) = (Arc::clone(&self.voice), Arc::clone(&self.owned));
            tokio::select! {
                biased;
                () = self.ended.notified() => self.lose(),
                // Every transaction follows the others as it begins.
                first = self.inbox.recv() => return first.map(|first| self.batch(first)),
                () = voice.poked.notified() => self.follow().await,
                () = owned.ended() => self.share().await,
                () = sleep_until(self.reviewed + HEARTBEAT) => self.share().await,
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

    /// The connection is lost: nothing is signed until it is back.
    fn lose(&mut self) {
        self.live.confirm_no_longer();
        self.session = None;
        self.absence.begins();
        if !self.cannot_write.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the store lost its database: nothing is sent or accepted until it is back, and what was sent is recorded then"
            );
        }
    }

    // ----- writing -----

    fn happen(&mut self, effects: Effects) {
        self.memory.learn(&effects);
        self.commits.fetch_add(1, Ordering::Relaxed);
        if let Some(version) = effects.view {
            self.applied = version;
        }
        self.follow_master_key(effects.master_key.as_deref());
        effects.happen(&self.live, self.sink.as_ref(), &self.voice);
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
                self.troubles.worked(TRANSACTION);
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
            Failed::Late(error) | Failed::Lost(error) => (error, true),
            Failed::Unknown(_) => (&StoreError::Uncertain, true),
        };
        if lost || matches!(error, StoreError::Unwritable { .. }) {
            self.troubles.failed(TRANSACTION, error);
        } else {
            let cause = error.source().map(ToString::to_string);
            tracing::error!(%error, cause, works = orders.len(), "a store transaction did not happen");
        }
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
            Failed::Late(_) | Failed::Lost(_) => {
                self.held.splice(0..0, finishes).for_each(drop);
            }
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
        let deadline = Instant::now() + self.node.longest_transaction();
        self.number += 1;
        let written = self.write_patiently(&session, works, deadline).await;
        let (answers, effects, begun) = match written {
            Ok(written) => written,
            Err(error) if self.taken_over => {
                drop(session);
                self.lose();
                return Err(Failed::Lost(error));
            }
            Err(error) => {
                let late = Instant::now() >= deadline;
                return Err(match self.after_failure(session, error).await {
                    Failed::Refused(error) if late => Failed::Late(error),
                    failed => failed,
                });
            }
        };
        self.confirm(begun.at);
        match timeout_at(deadline, run(&session, "commit", "COMMIT")).await {
            Ok(Ok(())) => {
                self.session = Some(session);
                self.cannot_write.store(false, Ordering::Relaxed);
                self.renew(begun.at);
                self.confirm(begun.at);
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

    /// Writes a batch into a transaction: together, once more if it and another node's waited for each other, and
    /// at last one by one.
    async fn write_patiently(
        &mut self,
        session: &Session,
        works: &[&Work],
        deadline: Instant,
    ) -> Outcome<(Answers, Effects, Begun)> {
        let mut deadlocks = 0;
        let mut manner = Manner::Together;
        loop {
            let error = match self.attempt(session, works, manner, deadline).await {
                Ok(written) => return Ok(written),
                Err(error) => error,
            };
            let again = !self.taken_over && !session.is_closed() && Instant::now() < deadline;
            let deadlock = is_deadlock(&error) && deadlocks < DEADLOCKS;
            if !again || (manner == Manner::OneByOne && !deadlock) {
                return Err(error);
            }
            run(session, "roll back", "ROLLBACK").await?;
            if deadlock {
                deadlocks += 1;
            } else {
                manner = Manner::OneByOne;
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
        &mut self,
        session: &Session,
        works: &[&Work],
        manner: Manner,
        deadline: Instant,
    ) -> Outcome<(Answers, Effects, Begun)> {
        let written = async {
            let begun = self.begin(session).await?;
            let version = if works.iter().any(|work| work.changes_view()) {
                self.hold_head(session).await?
            } else {
                None
            };
            let head = match version {
                Some(_) if self.standing.lacks_master_key() => Head::Keyless,
                Some(_) => Head::Held,
                None => Head::Free,
            };
            let known = (&*self.live, &self.memory, &self.recent);
            let (answers, mut effects) = write_all(session, works, manner, known, head).await?;
            if let Some(version) = version {
                view::record(session, version, self.node.id, &effects.keys()).await?;
                effects.view = Some(version);
            }
            Ok((answers, effects, begun))
        };
        timeout_at(deadline, written).await.unwrap_or_else(|_| {
            Err(StoreError::Unwritable {
                step: "write",
                source: "the database does not answer; nothing was written".into(),
            })
        })
    }

    /// What this node says of itself.
    fn word(&self) -> Word {
        Word {
            number: self.number,
            view: self.applied,
            able: self.standing.is_able(),
        }
    }

    /// Begins a transaction, and follows the other nodes if this one is behind.
    async fn begin(&mut self, session: &Session) -> Outcome<Begun> {
        let began = self.standing.uncorrected();
        let Some(begun) = self.node.begin(session, self.word()).await? else {
            self.taken_over = true;
            return Err(taken_over());
        };
        self.standing.measure(&begun, began);
        self.standing.follows(begun.head - self.applied);
        if begun.head > self.applied {
            self.catch_up(session, begun.head).await?;
            let sql = "UPDATE node SET view = $2 WHERE id = $1";
            execute(session, "begin", sql, &[&self.node.id, &self.applied]).await?;
        }
        self.confirm(begun.at);
        Ok(begun)
    }

    /// Counts the head of the view up, and follows what came before it.
    async fn hold_head(&mut self, session: &Session) -> Outcome<Option<i64>> {
        let Some(version) = view::lock(session).await? else {
            return Ok(None);
        };
        if version - 1 > self.applied {
            self.catch_up(session, version - 1).await?;
        }
        Ok(Some(version))
    }

    /// Takes what other nodes changed into memory, as of one commit. It stays there whatever becomes of the
    /// transaction in which it was read: it is committed.
    async fn catch_up(&mut self, session: &Session, known: i64) -> Outcome<()> {
        let mut news = view::catch_up(session, self.applied).await?;
        if !news.is_whole(self.applied, known) {
            let why = "it does not know what the others changed while it was away";
            self.is_gone(Gone::to(why));
            self.taken_over = true;
            return Err(StoreError::Unwritable {
                step: "follow the other nodes",
                source: why.into(),
            });
        }
        self.recent.remember(news.told.drain(..));
        let findings = std::mem::take(&mut news.findings);
        let effects = Effects {
            writes: news.writes,
            forgotten: news.forgotten,
            view: Some(news.version),
            ..Effects::default()
        };
        self.applied = news.version;
        // Before anybody decides by the new version: what was sealed before is refused, and sealed again.
        self.follow_master_key(news.master_key.as_deref());
        for (endpoint, found) in findings {
            self.live.take_findings(endpoint, found);
        }
        effects.happen(&self.live, self.sink.as_ref(), &self.voice);
        Ok(())
    }

    /// Seals with the master key that is current for all nodes, if it was given.
    fn follow_master_key(&self, check: Option<&[u8]>) {
        if let (Some(sealer), Some(check)) = (&self.sealer, check) {
            sealer.follow(check);
            self.standing.master_key(sealer.missing());
        }
    }

    /// This process is no node of the database any more.
    fn is_gone(&mut self, gone: Gone) {
        tracing::error!("{gone}");
        self.live.confirm_no_longer();
        self.give_up_everything();
        let _ = self.gone.send(Some(gone));
    }

    /// Leaves in order, and tells those who still wait that nothing more happens here.
    async fn leave(&mut self) {
        self.live.confirm_no_longer();
        self.give_up_everything();
        if let Some(session) = self.session.take() {
            let left = timeout(GRACE, self.node.leave(&session)).await;
            if !matches!(left, Ok(Ok(()))) {
                tracing::warn!(
                    "the database could not be told that this process ends; the others wait for its lease"
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

/// The row of this node says so; its next connection finds out what that means.
fn taken_over() -> StoreError {
    StoreError::Unwritable {
        step: "begin",
        source: "this node was taken over; nothing was written".into(),
    }
}

/// There is no connection.
fn away() -> StoreError {
    StoreError::Unwritable {
        step: "commit",
        source: "there is no connection to the database; nothing was written".into(),
    }
}

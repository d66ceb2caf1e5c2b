//! The engine of one of several nodes: what `store::postgres::thread` does, statement by statement, with the same
//! decisions (`store::sharing`), on the simulated database.
//!
//! It is the part of the simulation that is written a second time, because the real one is made of SQL. Its order of
//! steps is that of the real one: begin, measure the clock, follow the others, confirm; write; commit, renew, and only
//! then apply to memory and answer. What was sent is held while the database is away, and written first when it is
//! back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookturn::dispatch::Inboxes;
use hookturn::store::happened::Happened;
use hookturn::store::live::Live;
use hookturn::store::owned::Owned;
use hookturn::store::sharing::keys::keys_of;
use hookturn::store::sharing::lease::{
    GRACE, HEARTBEAT, confirmed_until, longest_transaction, patience,
};
use hookturn::store::sharing::skew::{self, Skew, Trip};
use hookturn::store::sharing::view::{Recent, is_whole};
use hookturn_core::id::EndpointId;
use hookturn_core::proof::Findings;
use hookturn_core::shard::Shard;
use hookturn_core::store::{Accept, Change, StoreError, Write};
use hookturn_core::time::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use uuid::Uuid;

use crate::base::{Answer, Begun, Effects, Session, Word, Work};
use crate::clock::NodeClock;
use crate::ear::Voice;
use crate::link::{Link, Lost, Way};
use crate::mutant::Mutant;

mod away;
mod sharing;

/// How long to wait before the head is asked for again while another node has it.
const PAUSE: Duration = Duration::from_millis(10);

/// What is asked of the engine.
pub(crate) enum Asked {
    Write(Work),
    /// With the version of the view that it was decided from.
    Change(Box<Change>, u64),
    /// With the version of the view that its endpoints were chosen from.
    Accept(Accept, u64),
    Barrier,
    Leave,
}

/// What is asked, and who waits for the answer.
pub(crate) struct Order {
    pub(crate) asked: Asked,
    pub(crate) waiter: oneshot::Sender<Result<Answer, StoreError>>,
}

impl Order {
    fn answer(self, answer: Result<Answer, StoreError>) {
        let _ = self.waiter.send(answer);
    }

    const fn is_finish(&self) -> bool {
        matches!(self.asked, Asked::Write(Work::Finish(..)))
    }

    fn changes_view(&self) -> bool {
        match &self.asked {
            Asked::Change(change, _) => keys_of(change).next().is_some(),
            Asked::Write(Work::Reseal(_)) => true,
            _ => false,
        }
    }
}

/// What the parts of a node have in common.
pub(crate) struct Node {
    pub(crate) id: Uuid,
    pub(crate) lease: Duration,
    pub(crate) link: Link,
    pub(crate) live: Arc<Live>,
    pub(crate) owned: Arc<Owned>,
    pub(crate) inboxes: Inboxes,
    pub(crate) clock: Arc<NodeClock>,
    pub(crate) voice: Voice,
    /// Set when it was taken over: it ends.
    pub(crate) gone: Mutex<bool>,
    pub(crate) nodes: std::sync::atomic::AtomicUsize,
}

impl Node {
    pub(crate) fn mutant(&self) -> Mutant {
        self.link.base.inside.ground.mutant
    }

    pub(crate) fn is_gone(&self) -> bool {
        *self.gone.lock().unwrap()
    }
}

/// A transaction whose commit was not answered.
struct Unsettled {
    number: i64,
    effects: Arc<Mutex<Option<Effects>>>,
    finishes: Vec<Order>,
}

/// Why a batch was not written.
enum Failed {
    Lost,
    /// During the commit.
    Unknown(Arc<Mutex<Option<Effects>>>),
}

/// The writer of a node.
pub(crate) struct Writer {
    pub(crate) node: Arc<Node>,
    inbox: mpsc::UnboundedReceiver<Order>,
    number: i64,
    session: Option<Session>,
    renewed: Option<Instant>,
    reviewed: Instant,
    received: Option<Instant>,
    applied: i64,
    recent: Recent,
    skew: Skew,
    taken_over: bool,
    unsettled: Option<Unsettled>,
    held: Vec<Order>,
    pause: Duration,
    leaving: Option<Order>,
    /// Told when the first round is over.
    ready: Option<Arc<Notify>>,
}

impl Writer {
    /// The writer of a node that has joined in `session` and loaded what is configured as of `version`.
    pub(crate) fn new(
        node: Arc<Node>,
        inbox: mpsc::UnboundedReceiver<Order>,
        (session, version): (Session, i64),
        ready: Arc<Notify>,
    ) -> Self {
        Self {
            node,
            inbox,
            number: 0,
            session: Some(session),
            renewed: None,
            reviewed: Instant::now(),
            received: None,
            applied: version,
            recent: Recent::begin(version),
            skew: Skew::default(),
            taken_over: false,
            unsettled: None,
            held: Vec::new(),
            pause: Duration::ZERO,
            leaving: None,
            ready: Some(ready),
        }
    }

    pub(crate) async fn run(mut self) {
        self.share().await;
        if let Some(ready) = self.ready.take() {
            ready.notify_one();
        }
        while let Some(orders) = self.next().await {
            self.write(orders).await;
            if self.leaving.is_some() {
                break;
            }
        }
        self.leave().await;
    }

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
            let (node, owned) = (Arc::clone(&self.node), Arc::clone(&self.node.owned));
            tokio::select! {
                biased;
                first = self.inbox.recv() => return first.map(|first| self.batch(first)),
                () = node.voice.poked.notified() => self.follow().await,
                () = owned.ended() => self.share().await,
                () = sleep_until(self.reviewed + HEARTBEAT) => self.share().await,
            }
        }
    }

    fn batch(&mut self, first: Order) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut next = Ok(first);
        while let Ok(order) = next {
            if matches!(order.asked, Asked::Leave) {
                self.leaving = Some(order);
                break;
            }
            orders.push(order);
            next = self.inbox.try_recv();
        }
        orders
    }

    fn lose(&mut self) {
        self.node.live.confirm_no_longer();
        if let Some(session) = self.session.take() {
            let base = &self.node.link.base;
            // Its end is on the way to the database, unless nothing gets there.
            if !self.node.link.is_cut(Way::There) {
                base.end(session);
            }
            let mut judge = base.inside.ground.judge.lock().unwrap();
            judge.counts.confirmations_lost += 1;
        }
    }

    /// The view was current when this round trip began: it is believed for a while, as far as the lease goes.
    fn confirm(&self, begun: Instant) {
        if let Some(renewed) = self.renewed {
            let mut until = confirmed_until(begun, renewed, self.node.lease);
            if self.node.mutant() == Mutant::SignsPastGrace {
                until += Duration::from_mins(1);
            }
            self.node.live.confirm_until(until);
        }
    }

    fn renew(&mut self, begun: Instant) {
        self.renewed = Some(begun);
        self.node.voice.renewed(begun);
    }

    fn word(&self) -> Word {
        Word {
            number: self.number,
            view: self.applied,
            able: !self.skew.is_off || self.node.mutant() == Mutant::IgnoresItsClock,
        }
    }

    /// Takes in what the beginning of a transaction showed of the database's clock.
    fn measure(&mut self, at: Instant, clock: Timestamp, begun: &Begun) {
        let trip = Trip {
            began: clock.as_millis(),
            ended: self.node.clock.uncorrected().as_millis(),
            took: i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX),
            database: begun.clock.as_millis(),
        };
        self.skew = skew::judge(self.skew, trip);
        self.node.clock.correct(match self.node.mutant() {
            Mutant::CorrectsTheWrongWay => -3 * self.skew.correction,
            _ => self.skew.correction,
        });
    }

    // ----- writing -----

    async fn write(&mut self, orders: Vec<Order>) {
        if orders
            .iter()
            .all(|order| matches!(order.asked, Asked::Barrier))
        {
            for order in orders {
                order.answer(Ok(Answer::Done));
            }
            return;
        }
        match self.transact(&orders).await {
            Ok(answers) => {
                for (order, answer) in orders.into_iter().zip(answers) {
                    order.answer(answer);
                }
            }
            Err(failed) => self.explain(failed, orders),
        }
    }

    fn explain(&mut self, failed: Failed, orders: Vec<Order>) {
        let mut finishes = Vec::new();
        for order in orders {
            if order.is_finish() {
                finishes.push(order);
            } else {
                order.answer(Err(match failed {
                    Failed::Lost => lost(),
                    Failed::Unknown(_) => StoreError::Uncertain,
                }));
            }
        }
        match failed {
            Failed::Lost => self.held.splice(0..0, finishes).for_each(drop),
            Failed::Unknown(effects) => {
                self.unsettled = Some(Unsettled {
                    number: self.number,
                    effects,
                    finishes,
                });
            }
        }
    }

    async fn transact(
        &mut self,
        orders: &[Order],
    ) -> Result<Vec<Result<Answer, StoreError>>, Failed> {
        let deadline = Instant::now() + longest_transaction(self.node.lease);
        let Some(session) = self.session else {
            return Err(Failed::Lost);
        };
        self.number += 1;
        let prepared = timeout_at(deadline, self.prepare(session, orders)).await;
        let (at, works, version) = match prepared {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(Lost)) => {
                self.lose();
                return Err(Failed::Lost);
            }
            Err(_) => {
                self.roll_back(session).await;
                return Err(Failed::Lost);
            }
        };
        self.confirm(at);
        let effects = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&effects);
        let commit = self.node.link.trip(session, move |base| {
            let (answers, effects) = base.commit(session, works, version)?;
            // What a commit did is known to whoever asks for its fate later, answered or not.
            *kept.lock().unwrap() = Some(effects);
            Some(answers)
        });
        if let Ok(Ok(Some(answers))) = timeout_at(deadline, commit).await {
            self.renew(at);
            self.confirm(at);
            let effects = effects.lock().unwrap().take().unwrap_or_default();
            self.happen(effects);
            Ok(barriers(orders, answers))
        } else {
            self.lose();
            Err(Failed::Unknown(effects))
        }
    }

    /// A transaction took too long, and its connection may still be good: this node may have been stopped in the middle.
    async fn roll_back(&mut self, session: Session) {
        let trip = self
            .node
            .link
            .trip(session, move |base| base.roll_back(session));
        if !matches!(timeout(GRACE, trip).await, Ok(Ok(()))) {
            self.lose();
        }
    }

    /// Begins a transaction, follows the others, and takes the head if it is to be changed.
    async fn prepare(
        &mut self,
        session: Session,
        orders: &[Order],
    ) -> Result<(Instant, Vec<Work>, Option<i64>), Lost> {
        let at = self.begin(session).await?;
        let version = if orders.iter().any(Order::changes_view) {
            self.hold_head(session).await?
        } else {
            None
        };
        let works = orders.iter().filter_map(|order| match &order.asked {
            Asked::Write(Work::Reseal(_)) if version.is_none() => Some(Work::Busy),
            Asked::Write(work) => Some(work.clone()),
            Asked::Change(change, _) if version.is_none() && keys_of(change).next().is_some() => {
                Some(Work::Busy)
            }
            Asked::Change(change, seen) => Some(match self.recent.refuse(change, *seen) {
                Err(error) if version.is_some() => Work::Refused(error.to_string()),
                _ => Work::Change(change.clone()),
            }),
            Asked::Accept(accept, seen) => Some(match self.recent.refuse_accept(accept, *seen) {
                Err(error) if self.node.mutant() != Mutant::AcceptsForWhoWasThere => {
                    Work::Refused(error.to_string())
                }
                _ => Work::Accept(accept.clone()),
            }),
            Asked::Barrier | Asked::Leave => None,
        });
        Ok((at, works.collect(), version))
    }

    async fn begin(&mut self, session: Session) -> Result<Instant, Lost> {
        let (at, clock) = (Instant::now(), self.node.clock.uncorrected());
        let (me, word) = (self.node.id, self.word());
        let trip = self
            .node
            .link
            .trip(session, move |base| base.begin(session, me, word));
        let Some(begun) = trip.await? else {
            self.taken_over = true;
            return Err(Lost);
        };
        self.measure(at, clock, &begun);
        if begun.head > self.applied {
            self.catch_up(session, begun.head).await?;
            let view = self.applied;
            let say = self
                .node
                .link
                .trip(session, move |base| base.say_view(session, view));
            say.await?;
        }
        self.confirm(at);
        Ok(at)
    }

    async fn hold_head(&mut self, session: Session) -> Result<Option<i64>, Lost> {
        let until = Instant::now() + patience(self.node.lease);
        loop {
            let lock = self
                .node
                .link
                .trip(session, move |base| base.lock_head(session));
            if let Some(version) = lock.await? {
                if version - 1 > self.applied {
                    self.catch_up(session, version - 1).await?;
                }
                return Ok(Some(version));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            sleep(PAUSE).await;
        }
    }

    /// Takes what other nodes changed into memory, as of one commit.
    async fn catch_up(&mut self, session: Session, known: i64) -> Result<(), Lost> {
        let applied = self.applied;
        let trip = self
            .node
            .link
            .trip(session, move |base| base.catch_up(applied));
        let news = trip.await?;
        if !is_whole(news.versions, (applied, news.version), known) {
            self.is_gone();
            return Err(Lost);
        }
        self.recent.remember(news.told);
        let (mut writes, mut findings) = (Vec::new(), Vec::new());
        for write in news.writes {
            match write {
                Write::Findings {
                    endpoint,
                    findings: found,
                    ..
                } => findings.push((endpoint, found)),
                other => writes.push(other),
            }
        }
        self.take_findings(findings);
        self.applied = news.version;
        self.happen(Effects {
            writes,
            reseals: news.reseals,
            view: Some(news.version),
            ..Effects::default()
        });
        Ok(())
    }

    fn take_findings(&self, findings: Vec<(EndpointId, Findings)>) {
        for (endpoint, found) in findings {
            self.node.live.take_findings(endpoint, found);
        }
    }

    /// What happens in memory once something is committed.
    fn happen(&mut self, effects: Effects) {
        let node = &self.node;
        if let Some(version) = effects.view {
            self.applied = version;
        }
        node.voice
            .tell(&node.owned, &effects.accepted, &effects.hints);
        let happened = Happened {
            writes: effects.writes,
            reseals: effects.reseals,
            receivers: effects.receivers,
            accepted: effects.accepted,
            hints: effects.hints,
            forgotten: Vec::new(),
            audited: effects.audited,
        };
        happened.tell(&node.live, &node.inboxes);
        if let Some(version) = effects.view {
            node.live.shows(version.cast_unsigned());
        }
    }

    // ----- ending -----

    /// This process is no node of the database any more.
    fn is_gone(&mut self) {
        self.node.live.confirm_no_longer();
        self.give_up_everything();
        self.taken_over = true;
        *self.node.gone.lock().unwrap() = true;
    }

    fn give_up_everything(&self) {
        for shard in Shard::all() {
            self.node.owned.give_up(shard);
        }
    }

    async fn leave(mut self) {
        self.node.live.confirm_no_longer();
        self.give_up_everything();
        if let Some(session) = self.session.take()
            && !self.taken_over
        {
            let me = self.node.id;
            let left = self.node.link.trip(session, move |base| base.leave(me));
            let _ = timeout(GRACE, left).await;
        }
        let unsettled = self.unsettled.take().map(|unsettled| unsettled.finishes);
        for order in unsettled.into_iter().flatten().chain(self.held) {
            order.answer(Err(StoreError::Stopped));
        }
        if let Some(order) = self.leaving {
            order.answer(Ok(Answer::Done));
        }
    }
}

/// The answers of a batch in its order: a barrier has waited for the others.
fn barriers(
    orders: &[Order],
    answers: Vec<Result<Answer, StoreError>>,
) -> Vec<Result<Answer, StoreError>> {
    let mut answers = answers.into_iter();
    let of = |order: &Order| match order.asked {
        Asked::Barrier | Asked::Leave => Ok(Answer::Done),
        Asked::Write(_) | Asked::Change(..) | Asked::Accept(..) => {
            answers.next().unwrap_or(Err(StoreError::Stopped))
        }
    };
    orders.iter().map(of).collect()
}

/// There is no connection; nothing was written.
fn lost() -> StoreError {
    StoreError::Unwritable {
        step: "commit",
        source: "there is no connection to the database; nothing was written".into(),
    }
}

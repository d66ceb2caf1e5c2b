//! The database that the nodes of a simulation share: rows of nodes with their leases, owners of shards, versions of
//! what every node holds in memory, sessions and the transactions in them, over the model engine.
//!
//! It does what `store::postgres` has its database do, statement by statement, at the moment at which the statement
//! arrives. A transaction is decided and written at its commit, under the locks that it took before: that of its
//! node's row, and that of the head of the view if it changes what nodes hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use hookturn::store::live::Live;
use hookturn::store::model::{Backups, Disk, ModelStore};
use hookturn::store::sharing::fence::Said;
use hookturn::store::sharing::keys::keys_of;
use hookturn::store::sharing::lease::Other;
use hookturn::store::sharing::view::Told;
use hookturn_core::id::EndpointId;
use hookturn_core::shard::SHARDS;
use hookturn_core::store::{
    Configuration, Hint, HintSink, SealedSecret, Store as _, StoreError, Write,
};
use hookturn_core::time::{Clock as _, Millis, Timestamp};
use tokio::time::Instant;
use uuid::Uuid;

use crate::engine::{Ground, Inside, now};
use crate::mutant::Mutant;

mod shards;
mod words;

pub(crate) use words::{Answer, Begun, Effects, Mailbox, Named, News, Notice, Session, Word, Work};

/// The row of a node.
#[derive(Debug, Clone)]
struct Row {
    id: Uuid,
    machine: usize,
    lease: Millis,
    lease_until: Timestamp,
    view: Option<i64>,
    able: bool,
    written: i64,
    session: Session,
    left: bool,
    taken_over: bool,
    /// Its process has ended: those on its machine know.
    ended: bool,
}

impl Row {
    const fn works(&self) -> bool {
        !self.left && !self.taken_over
    }

    /// When it renewed its lease last.
    const fn renewed_at(&self) -> Timestamp {
        self.lease_until.before(self.lease)
    }
}

/// What an open transaction will have written of its node's row.
#[derive(Debug, Clone, Copy)]
struct Open {
    node: Uuid,
    word: Word,
    holds_head: bool,
}

/// A version of what every node holds.
#[derive(Debug, Clone)]
struct Version {
    told: Vec<Told>,
    writes: Vec<Write>,
    reseals: Vec<(SealedSecret, Arc<[u8]>)>,
}

/// Hints of the model engine, until they are taken.
#[derive(Default)]
struct Collected(Mutex<Vec<Hint>>);

impl HintSink for Collected {
    fn hint(&self, hints: Vec<Hint>) {
        self.0.lock().unwrap().extend(hints);
    }
}

struct State {
    nodes: Vec<Row>,
    head: i64,
    versions: Vec<Version>,
    owners: Vec<Option<Uuid>>,
    head_held_by: Option<Session>,
    sessions: BTreeMap<Session, Option<Open>>,
    next_session: u64,
    listening: BTreeMap<Session, Arc<Mailbox>>,
    /// Endpoints that keep the order of acceptance.
    ordered: BTreeSet<EndpointId>,
    /// It answers nobody.
    away: bool,
}

/// The database.
pub(crate) struct Base {
    pub(crate) inside: Arc<Inside>,
    hints: Arc<Collected>,
    state: Mutex<State>,
}

impl Base {
    pub(crate) fn new(disk: Disk, ground: Ground) -> Self {
        let hints = Arc::new(Collected::default());
        let live = Arc::new(Live::default());
        let told = Arc::clone(&hints) as Arc<dyn HintSink>;
        let model = ModelStore::open(disk, live, told, Backups::default());
        let model = model.placing_by(Arc::clone(&ground.clock) as _);
        Self {
            inside: Arc::new(Inside { model, ground }),
            hints,
            state: Mutex::new(State {
                nodes: Vec::new(),
                head: 0,
                versions: Vec::new(),
                owners: vec![None; usize::from(SHARDS)],
                head_held_by: None,
                sessions: BTreeMap::new(),
                next_session: 0,
                listening: BTreeMap::new(),
                ordered: BTreeSet::new(),
                away: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn now(&self) -> Timestamp {
        self.inside.ground.clock.now()
    }

    fn mutant(&self) -> Mutant {
        self.inside.ground.mutant
    }

    /// The database goes away, with all its sessions, or is there again.
    pub(crate) fn set_away(&self, away: bool) {
        let mut state = self.state();
        state.away = away;
        if away {
            let all: Vec<Session> = state.sessions.keys().copied().collect();
            for session in all {
                state.end(session);
            }
        }
    }

    pub(crate) fn is_away(&self) -> bool {
        self.state().away
    }

    // ----- sessions -----

    pub(crate) fn connect(&self) -> Session {
        let mut state = self.state();
        let session = Session(state.next_session);
        state.next_session += 1;
        state.sessions.insert(session, None);
        session
    }

    pub(crate) fn is_open(&self, session: Session) -> bool {
        self.state().sessions.contains_key(&session)
    }

    /// A session ends: what it had begun did not happen.
    pub(crate) fn end(&self, session: Session) {
        self.state().end(session);
    }

    pub(crate) fn listen(&self, session: Session) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::default());
        let mut state = self.state();
        state.listening.insert(session, Arc::clone(&mailbox));
        mailbox
    }

    pub(crate) fn notify(&self, notice: &Notice) {
        self.state().notify(notice);
    }

    // ----- nodes -----

    pub(crate) fn join(&self, session: Session, id: Uuid, machine: usize, lease: Millis) {
        let lease_until = self.now().after(lease);
        self.state().nodes.push(Row {
            id,
            machine,
            lease,
            lease_until,
            view: None,
            able: false,
            written: 0,
            session,
            left: false,
            taken_over: false,
            ended: false,
        });
    }

    /// Everything configured, as of a version.
    pub(crate) fn load(&self) -> (Configuration, i64) {
        let loaded = now(self.inside.model.load()).unwrap_or_default();
        (loaded, self.state().head)
    }

    /// Begins a transaction by writing to the node's row; nothing if it was taken over.
    pub(crate) fn begin(&self, session: Session, node: Uuid, word: Word) -> Option<Begun> {
        let unfenced = self.mutant() == Mutant::StaleNodeWrites;
        let clock = self.now();
        let mut state = self.state();
        if !unfenced && !state.row(node)?.works() {
            return None;
        }
        let word = match self.mutant() {
            Mutant::ConfirmsBeforeItFollows => Word {
                view: state.head,
                ..word
            },
            _ => word,
        };
        let open = Open {
            node,
            word,
            holds_head: false,
        };
        state.sessions.insert(session, Some(open));
        Some(Begun {
            head: state.head,
            clock,
        })
    }

    /// The same in a transaction of its own.
    pub(crate) fn show(&self, session: Session, node: Uuid, word: Word) -> Option<Begun> {
        let begun = self.begin(session, node, word)?;
        let now = self.now();
        let mut state = self.state();
        state.write_row(session, now);
        Some(begun)
    }

    /// Says in the open transaction how far the node follows now.
    pub(crate) fn say_view(&self, session: Session, view: i64) {
        if let Some(Some(open)) = self.state().sessions.get_mut(&session) {
            open.word.view = view;
        }
    }

    /// The open transaction does not happen, and the session goes on.
    pub(crate) fn roll_back(&self, session: Session) {
        self.state().close(session);
    }

    pub(crate) fn catch_up(&self, applied: i64) -> News {
        let skips = self.mutant() == Mutant::SkipsAChange;
        let state = self.state();
        let mut news = News {
            version: state.head.max(applied),
            ..News::default()
        };
        let after = usize::try_from(applied).unwrap_or(usize::MAX);
        for version in state.versions.iter().skip(after) {
            news.versions += 1;
            news.told.extend(version.told.iter().cloned());
            if skips && news.versions % 3 == 1 {
                continue;
            }
            news.writes.extend(version.writes.iter().cloned());
            news.reseals.extend(version.reseals.iter().cloned());
        }
        news
    }

    /// Takes the head for the open transaction: the version that it will make. Nothing while another one has it.
    pub(crate) fn lock_head(&self, session: Session) -> Option<i64> {
        let mut state = self.state();
        if state.head_held_by.is_some_and(|holder| holder != session) {
            return None;
        }
        state.head_held_by = Some(session);
        if let Some(Some(open)) = state.sessions.get_mut(&session) {
            open.holds_head = true;
        }
        Some(state.head + 1)
    }

    /// What nodes other than this one follow.
    pub(crate) fn said(&self, me: Uuid) -> Vec<Said> {
        let now = self.now();
        let state = self.state();
        let others = state.nodes.iter().filter(|row| row.id != me && row.works());
        let said = |row: &Row| {
            let silent = now.since(row.renewed_at());
            row.view.map(|view| Said { view, silent })
        };
        others.filter_map(said).collect()
    }

    pub(crate) fn others(&self, me: Uuid) -> Vec<Other> {
        let now = self.now();
        let state = self.state();
        let machine = state.row(me).map(|row| row.machine);
        let others = state.nodes.iter().filter(|row| row.id != me && row.works());
        others
            .map(|row| Other {
                id: row.id,
                written: row.written,
                lease: row.lease,
                lease_is_out: row.lease_until < now,
                process_ended: row.ended && Some(row.machine) == machine,
            })
            .collect()
    }

    /// Takes a node over, unless it came back. Returns whether it did.
    pub(crate) fn take_over(&self, dead: Uuid, process_ended: bool) -> bool {
        let hasty = self.mutant() == Mutant::TakesOverTooEarly;
        let now = self.now();
        let mut state = self.state();
        let Some(row) = state.row(dead).cloned() else {
            return false;
        };
        state.end(row.session);
        let is_out = process_ended || hasty || row.lease_until < now;
        if !row.works() || !is_out {
            return false;
        }
        if let Some(row) = state.row_mut(dead) {
            row.taken_over = true;
        }
        state.free_shards_of(dead);
        drop(state);
        let mut judge = self.inside.ground.judge.lock().unwrap();
        judge.taken_over(dead, (row.lease_until, process_ended), now);
        true
    }

    /// Goes on in a new session: the number of the last transaction that was committed.
    pub(crate) fn go_on(&self, session: Session, me: Uuid) -> Option<i64> {
        let unfenced = self.mutant() == Mutant::StaleNodeWrites;
        let mut state = self.state();
        let before = state.row(me)?.session;
        if before != session {
            state.end(before);
        }
        let row = state.row_mut(me)?;
        if !unfenced && !row.works() {
            return None;
        }
        row.session = session;
        Some(row.written)
    }

    pub(crate) fn leave(&self, me: Uuid) {
        let mut state = self.state();
        if let Some(row) = state.row_mut(me) {
            row.left = true;
        }
        state.free_shards_of(me);
        state.notify(&Notice::Shards);
    }

    /// Its process has ended.
    pub(crate) fn has_ended(&self, node: Uuid) {
        if let Some(row) = self.state().row_mut(node) {
            row.ended = true;
        }
    }

    // ----- writing -----

    /// Writes and commits. Nothing if the session has ended meanwhile.
    pub(crate) fn commit(
        &self,
        session: Session,
        works: Vec<Work>,
        version: Option<i64>,
    ) -> Option<(Vec<Result<Answer, StoreError>>, Effects)> {
        let open = self.state().sessions.get(&session).copied().flatten()?;
        let judge = &self.inside.ground.judge;
        judge.lock().unwrap().commits(Some((open.node, version)));
        let mut effects = Effects::default();
        let mut told = Vec::new();
        let mut answers = Vec::with_capacity(works.len());
        for work in works {
            let keys: Vec<_> = match &work {
                Work::Change(change) => keys_of(change).collect(),
                _ => Vec::new(),
            };
            let answer = self.write(work, &mut effects);
            if answer.is_ok() {
                told.extend(keys);
            }
            answers.push(answer);
        }
        self.collect_hints(&mut effects);
        judge.lock().unwrap().commits(None);
        let now = self.now();
        let mut state = self.state();
        if let Some(version) = version {
            state.head = version;
            let tell = |key| Told { version, key };
            state.versions.push(Version {
                told: told.into_iter().map(tell).collect(),
                writes: effects.writes.clone(),
                reseals: effects.reseals.clone(),
            });
            state.notify(&Notice::View);
        }
        effects.view = version;
        state.write_row(session, now);
        Some((answers, effects))
    }

    fn write(&self, work: Work, effects: &mut Effects) -> Result<Answer, StoreError> {
        let model = &self.inside.model;
        match work {
            Work::Change(change) => {
                self.inside.change((*change).clone())?;
                if !change.audit.is_empty() {
                    effects.audited.push(change.workspace);
                }
                let ordered = change.writes.iter().filter_map(|write| match write {
                    Write::Endpoint(endpoint) if endpoint.ordered => Some(endpoint.id),
                    _ => None,
                });
                self.state().ordered.extend(ordered);
                effects.writes.extend(change.writes);
            }
            Work::Refused(what) => return Err(StoreError::Conflict { what }),
            Work::Busy => {
                return Err(StoreError::Unwritable {
                    step: "change what all nodes hold",
                    source: "another node is in the middle of a change".into(),
                });
            }
            Work::Audit(workspace, context, entries, at) => {
                now(model.audit(workspace, context, entries, at))?;
                effects.audited.push(workspace);
            }
            Work::Accept(accept) => self.inside.accept(accept)?,
            Work::Finish(finishes, receivers) => {
                self.inside.finish(finishes, receivers.clone())?;
                let learned = receivers.into_iter();
                let learned = learned.map(|(_, endpoint, receiver)| (endpoint, receiver));
                effects.receivers.extend(learned);
            }
            Work::Reseal(swaps) => {
                let count = now(model.reseal(swaps.clone()))?;
                effects.reseals.extend(swaps);
                return Ok(Answer::Replaced(count));
            }
            Work::Touch(uses) => now(model.touch_api_keys(uses))?,
            Work::Figures(kept, before) => now(model.keep_figures(kept, before))?,
            Work::Prune(before, at, limit) => {
                return now(model.prune(before, at, limit)).map(Answer::Pruned);
            }
        }
        Ok(Answer::Done)
    }

    /// What the engine told: rows of ordered endpoints are read back, because others accept for them too.
    fn collect_hints(&self, effects: &mut Effects) {
        let hints = std::mem::take(&mut *self.hints.0.lock().unwrap());
        let ordered = &self.state().ordered;
        for hint in hints {
            match hint {
                Hint::Accepted(rows) => {
                    for row in rows {
                        if ordered.contains(&row.endpoint) {
                            let (workspace, at) = (row.message.workspace, row.message.accepted_at);
                            effects.hints.push(Hint::Due(workspace, row.endpoint, at));
                        } else {
                            effects.accepted.push(row);
                        }
                    }
                }
                // Each node makes these from what it takes in, or from what others say.
                Hint::Endpoint(_) | Hint::Told(_) => {}
                other => effects.hints.push(other),
            }
        }
    }
}

impl State {
    fn row(&self, id: Uuid) -> Option<&Row> {
        self.nodes.iter().find(|row| row.id == id)
    }

    fn row_mut(&mut self, id: Uuid) -> Option<&mut Row> {
        self.nodes.iter_mut().find(|row| row.id == id)
    }

    /// The open transaction of a session is committed: what it wrote to its node's row is there.
    fn write_row(&mut self, session: Session, now: Timestamp) {
        let open = self.sessions.get(&session).copied().flatten();
        if let Some(open) = open
            && let Some(row) = self.row_mut(open.node)
        {
            row.written = open.word.number;
            row.view = Some(open.word.view);
            row.able = open.word.able;
            row.lease_until = now.after(row.lease);
        }
        self.close(session);
    }

    /// The open transaction of a session is over.
    fn close(&mut self, session: Session) {
        self.release(session);
        if let Some(open) = self.sessions.get_mut(&session) {
            *open = None;
        }
    }

    fn release(&mut self, session: Session) {
        if self.head_held_by == Some(session) {
            self.head_held_by = None;
        }
    }

    fn end(&mut self, session: Session) {
        self.release(session);
        self.sessions.remove(&session);
        if let Some(mailbox) = self.listening.remove(&session) {
            mailbox.arrived.notify_one();
        }
    }

    fn free_shards_of(&mut self, node: Uuid) {
        for owner in &mut self.owners {
            *owner = owner.filter(|owner| *owner != node);
        }
    }

    fn notify(&self, notice: &Notice) {
        for mailbox in self.listening.values() {
            mailbox.notices.lock().unwrap().push(notice.clone());
            mailbox.arrived.notify_one();
        }
    }
}

/// For how long something lasted, in milliseconds.
pub(crate) fn millis_since(since: Instant) -> Millis {
    Millis::try_from(since.elapsed().as_millis()).unwrap_or(Millis::MAX)
}

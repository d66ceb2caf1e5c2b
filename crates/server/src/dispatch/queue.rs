//! The queue of one endpoint: a window of its due rows, and what may be sent of it now.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use hookturn_core::endpoint::{Endpoint, EndpointState};
use hookturn_core::id::{DeliveryId, WorkspaceId};
use hookturn_core::store::{Due, DueBlock, ReceiverState};
use hookturn_core::time::Timestamp;

use super::batch::{Batch, Rules};
use super::limits::{Health, RateLimit};
use crate::courier::request::Prepared;

#[cfg(test)]
pub(super) mod tests;

/// Rows kept in memory for one endpoint; beyond this they stay on disk until there is room.
/// (Tests use a small window, so that they overflow it.)
const WINDOW: usize = if cfg!(test) { 16 } else { 1_024 };
/// Rows in memory below which the next block is read.
const LOW: usize = WINDOW / 4;
/// Rows that a block adds.
const BLOCK: usize = WINDOW / 2;
/// Payload bytes kept in memory for one endpoint, whatever the number of rows.
const WINDOW_BYTES: usize = if cfg!(test) { 2_048 } else { 8 * 1024 * 1024 };
/// Payload bytes in memory below which the next block is read.
const LOW_BYTES: usize = WINDOW_BYTES / 4;
/// Payload bytes that a block adds.
const BLOCK_BYTES: usize = WINDOW_BYTES / 2;

/// What is on disk beyond the rows in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// Nothing that this queue does not hold.
    Empty,
    /// The earliest row that it does not hold is due then.
    Due(Timestamp),
}

/// What a queue wants to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Send the batch that `pop` returns.
    Send,
    /// Read a block of at most this size of rows that are due by now.
    Read {
        /// Rows.
        rows: usize,
        /// Bytes of payload.
        bytes: usize,
    },
    /// Nothing before this time, unless something happens.
    WaitUntil(Timestamp),
    /// Nothing until something happens.
    Rest,
}

/// What a lane of permits an endpoint waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InRound {
    /// In none.
    Nowhere,
    /// In that of healthy endpoints.
    Healthy,
    /// In that of suspects.
    Suspect,
}

/// A row as it was when it was finished: tells whether a block brings it from before or from after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    due_at: Timestamp,
    not_before: Timestamp,
    attempts: u32,
    attempts_before_requeue: u32,
}

impl Token {
    pub(super) fn of(row: &Due) -> Self {
        Self {
            due_at: row.due_at,
            not_before: row.not_before,
            attempts: row.attempts,
            attempts_before_requeue: row.attempts_before_requeue,
        }
    }
}

pub(super) struct Queue {
    pub(super) workspace: WorkspaceId,
    pub(super) endpoint: Option<std::sync::Arc<Endpoint>>,
    pub(super) prepared: Option<Rc<Prepared>>,
    pub(super) receiver: ReceiverState,
    /// In which tenure of its shard it was made: see [`Owned::tenure`](crate::store::owned::Owned::tenure).
    pub(super) tenure: u32,
    /// Whether the store failed to take `receiver`.
    pub(super) receiver_unstored: bool,
    pub(super) health: Health,
    /// Until when the live view says that the breaker is open.
    pub(super) breaker_told: Option<Timestamp>,
    pub(super) rate: RateLimit,
    pub(super) in_flight: u32,
    /// The rate limit lets nothing through before.
    pub(super) rate_until: Timestamp,
    /// Nothing is sent, read or given up before: the store failed, or nothing could be sent.
    pub(super) rest_until: Timestamp,
    /// Which of the shard's rounds holds it already.
    pub(super) in_round: InRound,
    /// The earliest of the shard's timers for it.
    pub(super) wake_at: Option<Timestamp>,
    ready: VecDeque<Due>,
    ready_bytes: usize,
    /// Rows in memory, in flight, or finished but not yet committed, with their payload bytes: what
    /// a block may bring again.
    known: HashMap<DeliveryId, usize>,
    known_bytes: usize,
    disk: Disk,
    reading: bool,
    /// Someone queued rows by hand: those in memory may have changed on disk.
    refresh: bool,
    /// Whether the block that is being read was asked for because of that.
    refreshing: bool,
    /// What a block that is being read says may be old: a finish failed meanwhile, of which perhaps only the
    /// answer was lost, or rows were put in order.
    distrusted: bool,
    /// Rows whose finish was committed while a block was being read, as they were: the block may
    /// still have them so, or have them again because someone queued them by hand since.
    committed_while_reading: HashMap<DeliveryId, Token>,
    /// Rows that are under way in a form that someone may have changed by queueing them by hand: the
    /// finish of the old form leaves the new one on disk, where it must be looked for.
    perhaps_moved: HashSet<DeliveryId>,
    /// Rows that were under way when the endpoint began to keep the order: what became of them is known
    /// before anything is read or sent.
    before_order: HashSet<DeliveryId>,
}

impl Queue {
    pub(super) fn new(workspace: WorkspaceId, receiver: ReceiverState) -> Self {
        Self {
            workspace,
            endpoint: None,
            prepared: None,
            receiver,
            tenure: 0,
            receiver_unstored: false,
            health: Health::default(),
            breaker_told: None,
            rate: RateLimit::default(),
            in_flight: 0,
            rate_until: Timestamp::EPOCH,
            rest_until: Timestamp::EPOCH,
            in_round: InRound::Nowhere,
            wake_at: None,
            ready: VecDeque::new(),
            ready_bytes: 0,
            known: HashMap::new(),
            known_bytes: 0,
            disk: Disk::Empty,
            reading: false,
            refresh: false,
            refreshing: false,
            distrusted: false,
            committed_while_reading: HashMap::new(),
            perhaps_moved: HashSet::new(),
            before_order: HashSet::new(),
        }
    }

    pub(super) fn ordered(&self) -> bool {
        self.endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.ordered)
    }

    /// Whether it can be forgotten: no rows, and nothing in it that the next row would need.
    pub(super) fn is_idle(&self) -> bool {
        let empty = self.known.is_empty() && self.disk == Disk::Empty && !self.reading;
        let serves = self.endpoint.as_ref().is_some_and(|endpoint| {
            endpoint.state.takes_messages()
                && (self.receiver.failing_since.is_some()
                    || endpoint.rate_limit_per_second.is_some())
        });
        empty && self.in_flight == 0 && !serves && !self.receiver_unstored
    }

    /// Takes a row that was just accepted, or leaves it on disk when the window is full or when
    /// earlier rows must come first.
    pub(super) fn accept(&mut self, row: Due, now: Timestamp) {
        let behind_disk = if self.ordered() {
            self.reading || self.disk != Disk::Empty
        } else {
            self.disk_waits_for_room(now)
        };
        self.take(row, behind_disk);
    }

    /// Takes a row that another node accepted and told of, or leaves it on disk. An ordered endpoint's come from disk
    /// only; and of an endpoint that this node has not heard of yet it is not known whether it is ordered.
    pub(super) fn told(&mut self, row: Due, now: Timestamp) {
        let unordered = self
            .endpoint
            .as_ref()
            .is_some_and(|endpoint| !endpoint.ordered);
        self.take(row, !unordered || self.disk_waits_for_room(now));
    }

    fn take(&mut self, row: Due, behind_disk: bool) {
        let full = self.ready.len() >= WINDOW || self.ready_bytes >= WINDOW_BYTES;
        if behind_disk || full {
            self.on_disk(row.due_at);
        } else if self.know(&row) {
            self.push(row);
        }
    }

    /// Whether rows on disk are to be sent before what comes now. While they are being read, or are about to be, what
    /// comes need not wait for them, which under load never ends: a block does not bring again what is known. But
    /// what fills the window does not pass rows for which there was no room, or they would wait for ever.
    fn disk_waits_for_room(&self, now: Timestamp) -> bool {
        let is_due = match self.disk {
            Disk::Empty => false,
            Disk::Due(at) => at <= now,
        };
        (self.reading || is_due) && !self.is_low()
    }

    /// Whether a row is in memory, or under way.
    pub(super) fn knows(&self, delivery: DeliveryId) -> bool {
        self.known.contains_key(&delivery)
    }

    /// Notes that a row is in memory. Returns whether that is new.
    fn know(&mut self, row: &Due) -> bool {
        let bytes = row.message.payload.len();
        let new = self.known.insert(row.delivery, bytes).is_none();
        self.known_bytes += if new { bytes } else { 0 };
        new
    }

    fn forget(&mut self, delivery: DeliveryId) {
        self.known_bytes -= self.known.remove(&delivery).unwrap_or(0);
    }

    fn push(&mut self, row: Due) {
        self.ready_bytes += row.message.payload.len();
        self.ready.push_back(row);
    }

    /// What is remembered of the receiver at the endpoint's present URL is all that is known of its health at first.
    pub(super) fn recall(&mut self, now: Timestamp) {
        let retargeted_at = self.endpoint.as_ref().and_then(|known| known.retargeted_at);
        let since = self.receiver.failing_since;
        if let Some(since) = since.filter(|since| Some(*since) >= retargeted_at) {
            self.health = Health::remembered(self.receiver.failures, now.since(since));
        }
    }

    /// The endpoint was written. If it has another URL, what is remembered of the receiver at the former one
    /// is forgotten, what that one asked for too. Returns whether it was.
    pub(super) fn retarget(&mut self, endpoint: &Endpoint) -> bool {
        let known = self.endpoint.as_ref().map(|known| known.retargeted_at);
        if known == Some(endpoint.retargeted_at) {
            return false;
        }
        let receiver = std::mem::take(&mut self.receiver);
        self.receiver = receiver.since(endpoint.retargeted_at);
        self.health = Health::default();
        self.breaker_told = None;
        true
    }

    /// Someone queued rows by hand: some are on disk now, and those in memory may have changed. Whoever
    /// does that does not want to wait until a time that the receiver once asked for. Returns whether it
    /// had asked for one.
    pub(super) fn requeued(&mut self) -> bool {
        self.refresh = true;
        let waiting: HashSet<_> = self.ready.iter().map(|row| row.delivery).collect();
        let committed = &self.committed_while_reading;
        let under_way = self
            .known
            .keys()
            .filter(|id| !waiting.contains(id) && !committed.contains_key(id));
        self.perhaps_moved.extend(under_way);
        self.on_disk(Timestamp::EPOCH);
        self.receiver.hold.take().is_some()
    }

    /// There is, or may be, a row on disk that is due at `at`.
    pub(super) fn on_disk(&mut self, at: Timestamp) {
        self.disk = match self.disk {
            Disk::Empty => Disk::Due(at),
            Disk::Due(known) => Disk::Due(known.min(at)),
        };
    }

    /// Its shard was given up: what is on disk is another node's to read.
    pub(super) fn give_away(&mut self) {
        self.disk = Disk::Empty;
        self.refresh = false;
    }

    /// What to do at `now`, apart from the shard's own permits.
    pub(super) fn wish(&self, now: Timestamp) -> Wish {
        let Some(endpoint) = &self.endpoint else {
            return Wish::Rest;
        };
        match endpoint.state {
            EndpointState::Paused { .. } => return Wish::Rest,
            _ if now < self.rest_until => return self.after_rest(),
            EndpointState::Enabled => {}
            // What waits is exhausted at once, block by block.
            EndpointState::Disabled { .. } | EndpointState::Deleted { .. } => {
                return if self.ready.is_empty() {
                    self.wish_to_read(Timestamp::FAR_FUTURE)
                } else {
                    Wish::Send
                };
            }
        }
        if endpoint.ordered && !self.before_order.is_empty() {
            return Wish::Rest;
        }
        // On an ordered endpoint a block must not be older than the last finish, and nothing may
        // pass a row that a block is about to bring.
        let busy = endpoint.ordered && self.in_flight > 0;
        let read = self.wish_to_read(now);
        if (self.is_low() || self.refresh) && !busy && read != Wish::Rest {
            return read;
        }
        // What was queued by hand is about to be read as it is now: sent in the form of before, it would be sent once more.
        if self.refresh || self.refreshing {
            return Wish::Rest;
        }
        let Some(earliest) = self.earliest_sendable(now) else {
            return match self.disk {
                Disk::Due(at) if !self.reading && !busy => Wish::WaitUntil(at.max(now)),
                Disk::Due(_) | Disk::Empty => Wish::Rest,
            };
        };
        let held = self.receiver.held(endpoint, now).map(|hold| hold.until);
        let closed = held.max(self.health.closed_again_at(now));
        let not_before = closed
            .unwrap_or(earliest)
            .max(earliest)
            .max(self.rate_until);
        if now < not_before {
            return Wish::WaitUntil(not_before);
        }
        if endpoint.ordered && self.reading {
            return Wish::Rest;
        }
        let window = if endpoint.ordered {
            1
        } else {
            self.health.window(endpoint.max_in_flight)
        };
        if self.in_flight >= window {
            Wish::Rest
        } else {
            Wish::Send
        }
    }

    /// The rest matters only to a queue that would do something.
    fn after_rest(&self) -> Wish {
        if self.ready.is_empty() && self.disk == Disk::Empty {
            Wish::Rest
        } else {
            Wish::WaitUntil(self.rest_until)
        }
    }

    fn is_low(&self) -> bool {
        self.ready.len() < LOW && self.ready_bytes < LOW_BYTES
    }

    fn wish_to_read(&self, until: Timestamp) -> Wish {
        match self.disk {
            // Known rows come again in the block, so they are asked for on top.
            Disk::Due(at) if !self.reading && at <= until => {
                let (rows, bytes) = if self.is_low() {
                    (BLOCK, BLOCK_BYTES)
                } else {
                    (0, 0)
                };
                Wish::Read {
                    rows: (self.known.len() + rows).max(1),
                    bytes: self.known_bytes + bytes,
                }
            }
            Disk::Due(_) | Disk::Empty => Wish::Rest,
        }
    }

    /// When the first row in memory may be sent: on an ordered endpoint that is the head, whatever
    /// the others say. Others wait in their place only if the endpoint was ordered before.
    fn earliest_sendable(&self, now: Timestamp) -> Option<Timestamp> {
        let head = self.ready.front()?.not_before;
        if head <= now || self.ordered() {
            return Some(head);
        }
        self.ready.iter().map(|row| row.not_before).min()
    }

    /// What to send next, or to give up: a row, with those that share its request.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<Batch> {
        let endpoint = self.endpoint.as_ref()?;
        let rules = Rules {
            places: endpoint.preset.messages_per_request(),
            ordered: endpoint.ordered,
        };
        let index = if rules.ordered {
            0
        } else {
            let sendable = |row: &Due| row.not_before <= now;
            self.ready.iter().position(sendable).unwrap_or(0)
        };
        let batch = Batch::take(&mut self.ready, index, rules, now)?;
        for row in batch.rows() {
            self.ready_bytes -= row.message.payload.len();
            if self.refresh || self.refreshing {
                self.perhaps_moved.insert(row.delivery);
            }
        }
        Some(batch)
    }

    /// Puts back what could not be sent after all.
    pub(super) fn unpop(&mut self, batch: Batch) {
        for row in batch.into_rows().rev() {
            self.before_order.remove(&row.delivery);
            self.ready_bytes += row.message.payload.len();
            self.ready.push_front(row);
        }
    }

    pub(super) fn reading(&mut self) {
        self.reading = true;
        self.refreshing = std::mem::take(&mut self.refresh);
        self.disk = Disk::Empty;
    }

    /// Rows that the block which is being read need not bring: those that are known, unless somebody may have changed
    /// them. One that is queued by hand from now on is told of, and read again.
    pub(super) fn held(&self) -> HashSet<DeliveryId> {
        if self.refreshing || !self.perhaps_moved.is_empty() {
            return HashSet::new();
        }
        self.known.keys().copied().collect()
    }

    /// Takes a block that was read, or nothing when reading failed. One that was read while a finish failed
    /// is read again: if that finish happened after all, a row of before it would be sent for nothing, and
    /// its next finish would find the row changed and leave it on disk, where nobody looks for it.
    pub(super) fn block(&mut self, block: Option<DueBlock>, now: Timestamp, retry_at: Timestamp) {
        self.reading = false;
        let refreshing = std::mem::take(&mut self.refreshing);
        let failed = block.is_none();
        let block = block.filter(|_| !self.distrusted);
        self.distrusted = false;
        let committed = std::mem::take(&mut self.committed_while_reading);
        let stale = |row: &Due| committed.get(&row.delivery) == Some(&Token::of(row));
        for delivery in committed.keys() {
            self.forget(*delivery);
        }
        let Some(mut block) = block else {
            self.refresh |= refreshing;
            self.on_disk(Timestamp::EPOCH);
            if failed {
                self.rest_until = self.rest_until.max(retry_at);
            }
            return;
        };
        if refreshing {
            self.replace_by(&block.rows);
        }
        block
            .rows
            .retain(|row| !stale(row) && !self.known.contains_key(&row.delivery));
        if let Some(at) = block.next_due_at {
            self.on_disk(at);
        }
        let gives_up = self
            .endpoint
            .as_ref()
            .is_some_and(|endpoint| !endpoint.state.takes_messages());
        for row in block.rows {
            // Asked for while the endpoint was disabled, or while the window had room.
            let early = row.due_at > now && !gives_up;
            if early || self.ready.len() >= WINDOW + BLOCK {
                self.on_disk(row.due_at);
                break;
            }
            self.know(&row);
            self.push(row);
        }
    }

    /// Rows in memory take the form they have on disk. Those that the block had no room for are read again: in the form of
    /// before they would be sent, and their new form would stay on disk, where nobody looks for it.
    fn replace_by(&mut self, rows: &[Due]) {
        let fresh: HashMap<_, _> = rows.iter().map(|row| (row.delivery, row)).collect();
        for row in std::mem::take(&mut self.ready) {
            if let Some(fresh) = fresh.get(&row.delivery) {
                self.ready.push_back((*fresh).clone());
            } else {
                self.ready_bytes -= row.message.payload.len();
                self.forget(row.delivery);
                self.on_disk(row.due_at);
            }
        }
    }

    /// The finish of a row is committed, or failed: it is gone from disk, or due at `again_at`.
    pub(super) fn committed(
        &mut self,
        delivery: DeliveryId,
        token: Token,
        again_at: Option<Timestamp>,
    ) {
        if self.reading {
            self.committed_while_reading.insert(delivery, token);
        } else {
            self.forget(delivery);
        }
        self.before_order.remove(&delivery);
        if let Some(at) = again_at {
            self.on_disk(at);
        }
        if self.perhaps_moved.remove(&delivery) {
            self.on_disk(Timestamp::EPOCH);
        }
    }

    /// The finish of a row could not be stored, as far as is known: the row is read again, whatever a block
    /// that is on its way says of it. What stands behind it on an ordered endpoint must not be sent before
    /// it, so all of it is read again.
    pub(super) fn unrecorded(&mut self, delivery: DeliveryId) {
        self.forget(delivery);
        self.distrusted = self.reading;
        self.perhaps_moved.remove(&delivery);
        self.before_order.remove(&delivery);
        if self.ordered() {
            self.back_to_disk();
        }
        self.on_disk(Timestamp::EPOCH);
    }

    /// A row of an ordered endpoint was not delivered: it keeps its place and waits there, or it is
    /// exhausted. Its finish is queued, and reads come after it, so the row may come again at once, and
    /// nothing after it may be sent before. An exhausted one that could not be recorded comes again too.
    pub(super) fn held_in_place(&mut self, row: &Due) {
        self.back_to_disk();
        self.committed(row.delivery, Token::of(row), Some(row.due_at));
    }

    /// The endpoint keeps the order from now on. What waited for its retry has its place before what was accepted
    /// since, on disk: the head is found there.
    pub(super) fn put_in_order(&mut self) {
        self.back_to_disk();
        let committed = &self.committed_while_reading;
        let under_way = self.known.keys().filter(|id| !committed.contains_key(id));
        self.before_order.extend(under_way);
        self.distrusted |= self.reading;
        self.on_disk(Timestamp::EPOCH);
    }

    /// Forgets the rows that are not in flight: they are read again when they may be sent.
    pub(super) fn back_to_disk(&mut self) {
        let Some(first) = self.ready.iter().map(|row| row.due_at).min() else {
            return;
        };
        for row in std::mem::take(&mut self.ready) {
            self.forget(row.delivery);
        }
        self.ready_bytes = 0;
        self.on_disk(first);
    }
}

//! The queue of one endpoint: a window of its due rows, and what may be sent of it now.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

use hookturn_core::endpoint::{Endpoint, EndpointState};
use hookturn_core::id::{DeliveryId, WorkspaceId};
use hookturn_core::store::{Due, DueBlock, ReceiverState};
use hookturn_core::time::Timestamp;

use super::limits::{Health, RateLimit};
use crate::courier::request::Prepared;

/// Rows kept in memory for one endpoint; beyond this they stay on disk until there is room.
const WINDOW: usize = 1_024;
/// Rows in memory below which the next block is read.
const LOW: usize = WINDOW / 4;

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
    /// Send the row that `pop` returns.
    Send,
    /// Read a block of this many rows that are due by now.
    Read(usize),
    /// Nothing before this time, unless something happens.
    WaitUntil(Timestamp),
    /// Nothing until something happens.
    Rest,
}

pub(super) struct Queue {
    pub(super) workspace: WorkspaceId,
    pub(super) endpoint: Option<std::sync::Arc<Endpoint>>,
    pub(super) prepared: Option<Rc<Prepared>>,
    pub(super) receiver: ReceiverState,
    pub(super) health: Health,
    pub(super) rate: RateLimit,
    pub(super) in_flight: u32,
    /// Nothing is sent before: a 429 or 503 with `Retry-After`, or a store that failed.
    pub(super) hold_until: Timestamp,
    /// Whether the shard's round holds it already.
    pub(super) in_round: bool,
    ready: VecDeque<Due>,
    /// Rows in memory, in flight, or finished but not yet committed: what a block may bring again.
    known: HashSet<DeliveryId>,
    disk: Disk,
    reading: bool,
    /// Rows whose finish was committed while a block was being read: the block may still have them.
    committed_while_reading: Vec<DeliveryId>,
}

impl Queue {
    pub(super) fn new(workspace: WorkspaceId, receiver: ReceiverState) -> Self {
        Self {
            workspace,
            endpoint: None,
            prepared: None,
            receiver,
            health: Health::default(),
            rate: RateLimit::default(),
            in_flight: 0,
            hold_until: Timestamp::EPOCH,
            in_round: false,
            ready: VecDeque::new(),
            known: HashSet::new(),
            disk: Disk::Empty,
            reading: false,
            committed_while_reading: Vec::new(),
        }
    }

    fn ordered(&self) -> bool {
        self.endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.ordered)
    }

    /// Rows of which nothing is decided yet, as far as memory knows.
    pub(super) fn is_idle(&self) -> bool {
        self.known.is_empty() && self.disk == Disk::Empty && !self.reading
    }

    /// Takes a row that was just accepted, or leaves it on disk when the window is full or when
    /// earlier rows on an ordered endpoint must come first.
    pub(super) fn accept(&mut self, row: Due, now: Timestamp) {
        let behind_disk = match self.disk {
            Disk::Empty => self.reading,
            Disk::Due(at) => self.ordered() || self.reading || at <= now,
        };
        if behind_disk || self.ready.len() >= WINDOW {
            self.on_disk(row.due_at);
        } else if self.known.insert(row.delivery) {
            self.ready.push_back(row);
        }
    }

    /// There is, or may be, a row on disk that is due at `at`.
    pub(super) fn on_disk(&mut self, at: Timestamp) {
        self.disk = match self.disk {
            Disk::Empty => Disk::Due(at),
            Disk::Due(known) => Disk::Due(known.min(at)),
        };
    }

    /// What to do at `now`, apart from the shard's own permits.
    pub(super) fn wish(&mut self, now: Timestamp) -> Wish {
        let Some(endpoint) = &self.endpoint else {
            return Wish::Rest;
        };
        match endpoint.state {
            EndpointState::Enabled => {}
            EndpointState::Paused { .. } => return Wish::Rest,
            // What waits is exhausted at once, block by block.
            EndpointState::Disabled { .. } | EndpointState::Deleted { .. } => {
                return if self.ready.is_empty() {
                    self.wish_to_read(Timestamp::FAR_FUTURE)
                } else {
                    Wish::Send
                };
            }
        }
        // On an ordered endpoint a block must not be older than the last finish, and nothing may
        // pass a row that a block is about to bring.
        let busy = endpoint.ordered && self.in_flight > 0;
        if self.ready.len() < LOW
            && !busy
            && let Wish::Read(rows) = self.wish_to_read(now)
        {
            return Wish::Read(rows);
        }
        let closed = self
            .hold_until
            .max(self.health.closed_again_at(now).unwrap_or(Timestamp::EPOCH));
        let Some(head) = self.ready.front() else {
            return match self.disk {
                Disk::Due(at) if !self.reading => Wish::WaitUntil(at.max(now)),
                Disk::Due(_) | Disk::Empty => Wish::Rest,
            };
        };
        let not_before = closed.max(head.not_before);
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

    fn wish_to_read(&self, until: Timestamp) -> Wish {
        match self.disk {
            // Known rows come again in the block, so they are asked for on top.
            Disk::Due(at) if !self.reading && at <= until => {
                Wish::Read(self.known.len() + WINDOW / 2)
            }
            Disk::Due(_) | Disk::Empty => Wish::Rest,
        }
    }

    /// The next row to send.
    pub(super) fn pop(&mut self) -> Option<Due> {
        self.ready.pop_front()
    }

    /// Puts back what could not be sent after all.
    pub(super) fn unpop(&mut self, row: Due) {
        self.ready.push_front(row);
    }

    pub(super) fn reading(&mut self) {
        self.reading = true;
        self.disk = Disk::Empty;
    }

    /// Takes a block that was read, or nothing when reading failed.
    pub(super) fn block(&mut self, block: Option<DueBlock>, retry_at: Timestamp) {
        self.reading = false;
        if let Some(block) = block {
            for row in block.rows {
                if self.known.insert(row.delivery) {
                    self.ready.push_back(row);
                }
            }
            if let Some(at) = block.next_due_at {
                self.on_disk(at);
            }
        } else {
            self.on_disk(Timestamp::EPOCH);
            self.hold_until = self.hold_until.max(retry_at);
        }
        for delivery in std::mem::take(&mut self.committed_while_reading) {
            self.known.remove(&delivery);
        }
    }

    /// The finish of a row is committed: it is gone from disk, or due again at `again_at`.
    pub(super) fn committed(&mut self, delivery: DeliveryId, again_at: Option<Timestamp>) {
        if self.reading {
            self.committed_while_reading.push(delivery);
            // A block that is under way may miss the row's new place.
        } else {
            self.known.remove(&delivery);
        }
        if let Some(at) = again_at {
            self.on_disk(at);
        }
    }

    /// A row of an ordered endpoint keeps its place and waits there. Its finish is queued, and reads
    /// come after it, so the row may come again at once, and nothing after it may be sent before.
    pub(super) fn held_in_place(&mut self, row: &Due) {
        self.back_to_disk();
        self.known.remove(&row.delivery);
        self.on_disk(row.due_at);
    }

    /// Forgets the rows that are not in flight: they are read again when they may be sent.
    pub(super) fn back_to_disk(&mut self) {
        if let Some(first) = self.ready.front() {
            let at = first.due_at;
            for row in self.ready.drain(..) {
                self.known.remove(&row.delivery);
            }
            self.on_disk(at);
        }
    }
}

//! One delivery shard: a thread, its endpoints' queues, its connections.
//!
//! The loop takes what arrived, decides what may be sent, starts it, and hands what was finished to
//! the store in one batch. Attempts, reads and commits are local tasks that come back as [`Event`]s.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hookturn_core::endpoint::EndpointState;
use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::store::{Due, DueBlock, Finish, ReceiverState};
use hookturn_core::time::{Millis, SECOND, Timestamp};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::Instant;

use self::recording::Finished;
use super::Parts;
use super::batch::Batch;
use super::brought::{Brought, is_sure};
use super::inbox::{Inbox, Note};
use super::queue::{InRound, Queue};
use crate::courier::{Attempted, NotSent};
use crate::outbound::Client;
use crate::store::owned::Flight;
use crate::telemetry::troubles::Troubles;

mod lessons;
mod recording;
mod sending;

/// How long a queue rests when nothing could be sent or stored through no fault of its receiver.
const REST: Millis = 10 * SECOND;
/// The longest sleep: the wall clock may step, and timers are wall times.
const LONGEST_SLEEP: Millis = SECOND;

/// Something that a local task brings back.
enum Event {
    Attempted(EndpointId, Batch, bool, Box<Result<Attempted, NotSent>>),
    /// With the tenure of the shard in which it was asked for.
    Block(EndpointId, u32, Option<DueBlock>),
    Committed(Vec<Finished>, bool),
    Disabled,
}

#[derive(Default)]
struct Events {
    arrived: RefCell<Vec<Event>>,
    waiting: Notify,
}

impl Events {
    fn put(&self, event: Event) {
        self.arrived.borrow_mut().push(event);
        self.waiting.notify_one();
    }
}

/// Open exchanges and waiting endpoints of healthy or of suspected receivers.
#[derive(Default)]
struct Lane {
    open: u32,
    round: VecDeque<EndpointId>,
}

struct Shard {
    parts: Arc<Parts>,
    inbox: Arc<Inbox>,
    client: Rc<Client>,
    events: Rc<Events>,
    queues: HashMap<EndpointId, Queue>,
    /// Of all queues, also of those that were forgotten.
    brought: Brought,
    healthy: Lane,
    suspect: Lane,
    timers: BinaryHeap<Reverse<(Timestamp, EndpointId)>>,
    finishes: Vec<Finish>,
    receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    /// Those of the finishes that are not handed in yet.
    flights: Vec<Flight>,
    commits_open: usize,
    reads_open: usize,
    disables_open: usize,
    /// What the log says of the store while it is away.
    troubles: Rc<Troubles>,
    draining: bool,
}

pub(super) fn run(runtime: &tokio::runtime::Runtime, parts: Arc<Parts>, inbox: Arc<Inbox>) {
    LocalSet::new().block_on(runtime, run_here(parts, inbox));
}

/// The same on the caller's own `LocalSet`.
pub(super) async fn run_here(parts: Arc<Parts>, inbox: Arc<Inbox>) {
    let client = Rc::new(Client::new(Arc::clone(&parts.client)));
    let brought = Brought::begin(parts.clock.now(), Instant::now());
    let shard = Shard {
        parts,
        inbox,
        client,
        events: Rc::default(),
        queues: HashMap::new(),
        brought,
        healthy: Lane::default(),
        suspect: Lane::default(),
        timers: BinaryHeap::new(),
        finishes: Vec::new(),
        receivers: Vec::new(),
        flights: Vec::new(),
        commits_open: 0,
        reads_open: 0,
        disables_open: 0,
        troubles: Rc::default(),
        draining: false,
    };
    shard.run().await;
}

impl Shard {
    async fn run(mut self) {
        loop {
            let now = self.parts.clock.now();
            self.take_notes(now);
            self.take_events(now);
            self.fire_timers(now);
            if !self.draining && self.parts.live.is_confirmed() {
                self.pump(now);
            }
            self.hand_in();
            if self.draining && self.nothing_open() {
                return;
            }
            let events = Rc::clone(&self.events);
            if !events.arrived.borrow().is_empty() {
                tokio::task::yield_now().await;
                continue;
            }
            // In a fixed order: each only says that there is something to look at, and the same run
            // must do the same thing twice.
            tokio::select! {
                biased;
                () = self.inbox.arrived() => {}
                () = events.waiting.notified() => {}
                () = tokio::time::sleep(self.sleep(now)) => {}
            }
        }
    }

    fn nothing_open(&self) -> bool {
        let exchanges = self.healthy.open + self.suspect.open;
        exchanges == 0 && self.commits_open + self.reads_open + self.disables_open == 0
    }

    fn sleep(&self, now: Timestamp) -> Duration {
        let next = self
            .timers
            .peek()
            .map_or(LONGEST_SLEEP, |Reverse((at, _))| at.since(now));
        Duration::from_millis(next.min(LONGEST_SLEEP))
    }

    fn take_notes(&mut self, now: Timestamp) {
        for note in self.inbox.take() {
            match note {
                Note::Accepted(rows) => {
                    for row in rows {
                        let id = row.endpoint;
                        if !self.parts.owned.owns(id) {
                            continue;
                        }
                        let workspace = row.message.workspace;
                        self.queue(workspace, id).accept(row, now);
                        self.call_up(id);
                    }
                }
                Note::Told(rows) => self.told(rows, now),
                Note::Changed(id) => self.changed(id),
                Note::Requeued(workspace, id) if self.parts.owned.owns(id) => {
                    let queue = self.queue(workspace, id);
                    if queue.requeued() {
                        let receiver = queue.receiver.clone();
                        self.receivers.push((workspace, id, receiver));
                    }
                    self.call_up(id);
                }
                Note::Due(workspace, id, at) if self.parts.owned.owns(id) => {
                    self.queue(workspace, id).on_disk(at);
                    self.call_up(id);
                }
                Note::Disowned => self.disown(),
                Note::Requeued(..) | Note::Due(..) | Note::Look => {}
                Note::Drain => self.draining = true,
            }
        }
    }

    /// Takes rows that another node accepted, or reads them: see [`brought`](super::brought).
    fn told(&mut self, rows: Vec<Due>, now: Timestamp) {
        let knows_all = self.brought.knows_all(now, Instant::now());
        for row in rows {
            let id = row.endpoint;
            let Some(held) = self.parts.owned.held_for(id) else {
                continue;
            };
            if self.brought.has(row.delivery) {
                continue;
            }
            let queue = self.queue(row.message.workspace, id);
            if knows_all && is_sure(&row, held, now) {
                queue.told(row, now);
            } else {
                queue.on_disk(row.due_at);
            }
            self.call_up(id);
        }
    }

    fn queue(&mut self, workspace: WorkspaceId, id: EndpointId) -> &mut Queue {
        let clock = &self.parts.clock;
        let live = &self.parts.live;
        let tenure = self.parts.owned.tenure(id);
        // Somebody else sent to the endpoint since: what is remembered of it is old.
        if self
            .queues
            .get(&id)
            .is_some_and(|queue| queue.tenure != tenure && queue.in_flight == 0)
        {
            self.queues.remove(&id);
        }
        self.queues.entry(id).or_insert_with(|| {
            let mut queue = Queue::new(workspace, (*live.receiver(id)).clone());
            queue.endpoint = live.endpoint(id);
            queue.tenure = tenure;
            queue.recall(clock.now());
            queue
        })
    }

    /// Forgets the queues of endpoints that are another node's. One with an exchange under way goes when that
    /// has ended.
    fn disown(&mut self) {
        let owned = Arc::clone(&self.parts.owned);
        for (id, queue) in &mut self.queues {
            if !owned.owns(*id) {
                queue.back_to_disk();
            }
        }
        self.queues
            .retain(|id, queue| owned.owns(*id) || queue.in_flight > 0);
    }

    /// An endpoint was written: its target may be new, its rows may have to wait or to go.
    fn changed(&mut self, id: EndpointId) {
        let Some(endpoint) = self.parts.live.endpoint(id) else {
            return;
        };
        if !self.parts.owned.owns(id) {
            return;
        }
        let Some(queue) = self.queues.get_mut(&id) else {
            if endpoint.state.takes_messages() {
                return;
            }
            // Rows of the past may still wait for an endpoint that never had a queue here.
            self.queue(endpoint.workspace, id).on_disk(Timestamp::EPOCH);
            self.call_up(id);
            return;
        };
        if !matches!(endpoint.state, EndpointState::Enabled) || endpoint.ordered {
            queue.back_to_disk();
        }
        if endpoint.ordered && !queue.ordered() {
            queue.put_in_order();
        }
        if !endpoint.state.takes_messages() {
            queue.on_disk(Timestamp::EPOCH);
        }
        if queue.retarget(&endpoint) {
            self.parts.live.note_breaker(id, None);
        }
        queue.prepared = None;
        queue.endpoint = Some(endpoint);
        self.call_up(id);
    }

    /// Gives an endpoint a place in the round, unless it has one.
    fn call_up(&mut self, id: EndpointId) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let (wanted, lane) = if queue.health.is_suspect() {
            (InRound::Suspect, &mut self.suspect)
        } else {
            (InRound::Healthy, &mut self.healthy)
        };
        // A place in the other round, which may be stuck, is left behind and no longer counts.
        if std::mem::replace(&mut queue.in_round, wanted) != wanted {
            lane.round.push_back(id);
        }
    }

    /// Calls an endpoint up at a later time, unless it is called up before that anyway.
    fn wake(&mut self, id: EndpointId, at: Timestamp) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        if queue.wake_at.is_none_or(|known| at < known) {
            queue.wake_at = Some(at);
            self.timers.push(Reverse((at, id)));
        }
    }

    fn fire_timers(&mut self, now: Timestamp) {
        while let Some(Reverse((at, id))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            // An earlier timer that was pushed later has taken its place.
            if let Some(queue) = self.queues.get_mut(&id)
                && queue.wake_at == Some(at)
            {
                queue.wake_at = None;
                self.call_up(id);
            }
        }
    }
}

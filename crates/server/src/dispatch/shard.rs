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

use hookturn_core::delivery::{Attempt, ExchangeResult, ExhaustedReason, Next, after_attempt};
use hookturn_core::endpoint::{DisabledReason, EndpointState};
use hookturn_core::id::{DeliveryId, EndpointId, WorkspaceId, draw};
use hookturn_core::limits::RETRY_AFTER_MAX;
use hookturn_core::receiver::{ReceiverView, belief_after};
use hookturn_core::store::{Due, DueBlock, DueQuery, Finish, ReceiverState};
use hookturn_core::time::{DAY, Millis, SECOND, Timestamp};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::inbox::{Inbox, Note};
use super::limits::{HEALTHY_LANE, SUSPECT_LANE, Sign};
use super::queue::{InRound, Queue, Token, Wish};
use super::{Parts, disable::disable};
use crate::courier::request::Prepared;
use crate::courier::{Attempted, NotSent};
use crate::outbound::Client;

/// Attempts one endpoint may start before the next one has its turn.
const TURN: usize = 16;
/// How long a queue rests when nothing could be sent or stored through no fault of its receiver.
const REST: Millis = 10 * SECOND;
/// The longest sleep: the wall clock may step, and timers are wall times.
const LONGEST_SLEEP: Millis = SECOND;
/// How often a receiver's last acceptance is written down when nothing else changed.
const ACCEPTED_STALE: Millis = DAY;

/// Something that a local task brings back.
enum Event {
    Attempted(EndpointId, Due, bool, Box<Result<Attempted, NotSent>>),
    Block(EndpointId, Option<DueBlock>),
    Committed(Vec<Finished>, bool),
    Disabled,
}

/// A finish that was handed to the store.
struct Finished {
    endpoint: EndpointId,
    delivery: DeliveryId,
    token: Token,
    afterwards: Afterwards,
}

/// What a committed finish means for the queue.
#[derive(Debug, Clone, Copy)]
enum Afterwards {
    Gone,
    DueAgain(Timestamp),
    /// The row waits in its place; the queue let go of it when it was finished.
    InPlace,
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
    healthy: Lane,
    suspect: Lane,
    timers: BinaryHeap<Reverse<(Timestamp, EndpointId)>>,
    finishes: Vec<Finish>,
    receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    commits_open: usize,
    reads_open: usize,
    disables_open: usize,
    draining: bool,
}

pub(super) fn run(runtime: &tokio::runtime::Runtime, parts: Arc<Parts>, inbox: Arc<Inbox>) {
    let client = Rc::new(Client::new(Arc::clone(&parts.client)));
    let shard = Shard {
        parts,
        inbox,
        client,
        events: Rc::default(),
        queues: HashMap::new(),
        healthy: Lane::default(),
        suspect: Lane::default(),
        timers: BinaryHeap::new(),
        finishes: Vec::new(),
        receivers: Vec::new(),
        commits_open: 0,
        reads_open: 0,
        disables_open: 0,
        draining: false,
    };
    LocalSet::new().block_on(runtime, shard.run());
}

impl Shard {
    async fn run(mut self) {
        loop {
            let now = self.parts.clock.now();
            self.take_notes(now);
            self.take_events(now);
            self.fire_timers(now);
            if !self.draining {
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
            tokio::select! {
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

    // ----- what arrives -----

    fn take_notes(&mut self, now: Timestamp) {
        for note in self.inbox.take() {
            match note {
                Note::Accepted(rows) => {
                    for row in rows {
                        let id = row.endpoint;
                        let workspace = row.message.workspace;
                        self.queue(workspace, id).accept(row, now);
                        self.call_up(id);
                    }
                }
                Note::Changed(id) => self.changed(id),
                Note::Requeued(workspace, id) => {
                    self.queue(workspace, id).requeued();
                    self.call_up(id);
                }
                Note::Look => {}
                Note::Drain => self.draining = true,
            }
        }
    }

    fn queue(&mut self, workspace: WorkspaceId, id: EndpointId) -> &mut Queue {
        let live = &self.parts.live;
        self.queues.entry(id).or_insert_with(|| {
            let mut queue = Queue::new(workspace, (*live.receiver(id)).clone());
            queue.endpoint = live.endpoint(id);
            queue
        })
    }

    /// An endpoint was written: its target may be new, its rows may have to wait or to go.
    fn changed(&mut self, id: EndpointId) {
        let Some(endpoint) = self.parts.live.endpoint(id) else {
            return;
        };
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
        if !endpoint.state.takes_messages() {
            queue.on_disk(Timestamp::EPOCH);
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

    // ----- what is sent -----

    fn pump(&mut self, now: Timestamp) {
        self.pump_lane(now, false);
        self.pump_lane(now, true);
    }

    fn pump_lane(&mut self, now: Timestamp, suspect: bool) {
        let limit = if suspect { SUSPECT_LANE } else { HEALTHY_LANE };
        loop {
            let lane = if suspect {
                &mut self.suspect
            } else {
                &mut self.healthy
            };
            if lane.open >= limit {
                return;
            }
            let Some(id) = lane.round.pop_front() else {
                return;
            };
            if self.turn(id, now, suspect, limit) {
                self.call_up(id);
            }
        }
    }

    /// One endpoint's turn. Returns whether it has more to do in this round.
    fn turn(&mut self, id: EndpointId, now: Timestamp, suspect: bool, limit: u32) -> bool {
        let Some(queue) = self.queues.get_mut(&id) else {
            return false;
        };
        let place = if suspect {
            InRound::Suspect
        } else {
            InRound::Healthy
        };
        if queue.in_round != place {
            return false;
        }
        queue.in_round = InRound::Nowhere;
        for _ in 0..TURN {
            let open = if suspect {
                self.suspect.open
            } else {
                self.healthy.open
            };
            let Some(queue) = self.queues.get_mut(&id) else {
                return false;
            };
            match queue.wish(now) {
                Wish::Send if open >= limit => return true,
                Wish::Send => self.send_next(id, now, suspect),
                Wish::Read { rows, bytes } => self.read(id, now, rows, bytes),
                Wish::WaitUntil(at) => {
                    self.wake(id, at);
                    return false;
                }
                Wish::Rest => {
                    if queue.is_idle() {
                        self.queues.remove(&id);
                    }
                    return false;
                }
            }
        }
        true
    }

    fn send_next(&mut self, id: EndpointId, now: Timestamp, suspect: bool) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let Some(endpoint) = queue.endpoint.clone() else {
            return;
        };
        if let Some(per_second) = endpoint.rate_limit_per_second
            && endpoint.state == EndpointState::Enabled
            && let Err(at) = queue.rate.take(per_second, now)
        {
            queue.hold_until = queue.hold_until.max(at);
            return;
        }
        let Some(row) = queue.pop(now) else { return };
        match endpoint.state {
            EndpointState::Enabled | EndpointState::Paused { .. } => {
                self.attempt(id, row, now, suspect);
            }
            EndpointState::Disabled { .. } => {
                self.give_up(row, ExhaustedReason::EndpointDisabled, now);
            }
            EndpointState::Deleted { .. } => {
                self.give_up(row, ExhaustedReason::EndpointDeleted, now);
            }
        }
    }

    fn give_up(&mut self, due: Due, reason: ExhaustedReason, now: Timestamp) {
        let next = Next::Exhausted(reason);
        self.finishes.push(Finish {
            due,
            attempt: None,
            next,
            keeps_place: false,
            at: now,
        });
    }

    fn attempt(&mut self, id: EndpointId, row: Due, now: Timestamp, suspect: bool) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let Some(view) = self.parts.live.signing(id) else {
            self.give_up(row, ExhaustedReason::EndpointDeleted, now);
            return;
        };
        let stale = |known: &Rc<Prepared>| !known.is_for(&view.endpoint, &view.workspace);
        if queue.prepared.as_ref().is_none_or(stale) {
            match Prepared::new(Arc::clone(&view.endpoint), Arc::clone(&view.workspace)) {
                Ok(prepared) => queue.prepared = Some(Rc::new(prepared)),
                Err(error) => {
                    tracing::warn!(endpoint = %id, error = %error, "an endpoint cannot be sent to; its deliveries wait");
                    queue.unpop(row);
                    queue.rest_until = now.after(REST);
                    return;
                }
            }
        }
        let Some(prepared) = queue.prepared.clone() else {
            return;
        };
        queue.in_flight += 1;
        let known = queue.receiver.view;
        let lane = if suspect {
            &mut self.suspect
        } else {
            &mut self.healthy
        };
        lane.open += 1;
        self.parts.metrics.attempt_begins();
        let (parts, client, events) = (
            Arc::clone(&self.parts),
            Rc::clone(&self.client),
            Rc::clone(&self.events),
        );
        tokio::task::spawn_local(async move {
            let number = row.attempts + 1;
            let made = parts
                .courier
                .attempt(&client, &prepared, &row.message, number, known)
                .await;
            events.put(Event::Attempted(id, row, suspect, Box::new(made)));
        });
    }

    fn read(&mut self, id: EndpointId, now: Timestamp, limit: usize, payload_bytes: usize) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        queue.reading();
        self.reads_open += 1;
        let until = match queue
            .endpoint
            .as_ref()
            .map(|endpoint| endpoint.state.takes_messages())
        {
            Some(true) => now,
            // What a disabled endpoint still has is exhausted now, whenever it would be due.
            Some(false) | None => Timestamp::FAR_FUTURE,
        };
        let query = DueQuery {
            workspace: queue.workspace,
            endpoint: id,
            until,
            limit,
            payload_bytes,
        };
        // A read comes after every finish that was handed in before it.
        self.hand_in();
        let parts = Arc::clone(&self.parts);
        let events = Rc::clone(&self.events);
        tokio::task::spawn_local(async move {
            let block = parts.store.due(query).await;
            if let Err(error) = &block {
                tracing::error!(endpoint = %id, error = %error, "due deliveries could not be read; they are tried again");
            }
            events.put(Event::Block(id, block.ok()));
        });
    }

    // ----- what comes back -----

    fn take_events(&mut self, now: Timestamp) {
        let events = std::mem::take(&mut *self.events.arrived.borrow_mut());
        for event in events {
            match event {
                Event::Attempted(id, row, suspect, made) => {
                    self.attempted(id, row, suspect, *made, now);
                }
                Event::Block(id, block) => {
                    self.reads_open -= 1;
                    if let Some(queue) = self.queues.get_mut(&id) {
                        queue.block(block, now, now.after(REST));
                    }
                    self.call_up(id);
                }
                Event::Committed(rows, happened) => self.committed(rows, happened, now),
                Event::Disabled => self.disables_open -= 1,
            }
        }
    }

    fn committed(&mut self, rows: Vec<Finished>, happened: bool, now: Timestamp) {
        self.commits_open -= 1;
        for finished in rows {
            let id = finished.endpoint;
            let Some(queue) = self.queues.get_mut(&id) else {
                continue;
            };
            let again_at = match finished.afterwards {
                // The row is as it was: it is read and sent again (G2), after a rest.
                _ if !happened => {
                    queue.receiver_unstored = true;
                    queue.rest_until = now.after(REST);
                    Some(Timestamp::EPOCH)
                }
                Afterwards::InPlace => continue,
                Afterwards::Gone => None,
                Afterwards::DueAgain(at) => Some(at),
            };
            queue.committed(finished.delivery, finished.token, again_at);
            self.call_up(id);
        }
    }

    fn attempted(
        &mut self,
        id: EndpointId,
        row: Due,
        suspect: bool,
        made: Result<Attempted, NotSent>,
        now: Timestamp,
    ) {
        let lane = if suspect {
            &mut self.suspect
        } else {
            &mut self.healthy
        };
        lane.open -= 1;
        self.parts.metrics.attempt_ends();
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        queue.in_flight -= 1;
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                tracing::error!(endpoint = %id, error = %chain(&error), "nothing was sent; the delivery waits");
                queue.unpop(row);
                queue.rest_until = now.after(REST);
                self.call_up(id);
                return;
            }
        };
        let Some(endpoint) = queue.endpoint.clone() else {
            return;
        };
        let policy_attempt = made
            .attempt
            .number
            .saturating_sub(row.attempts_before_requeue);
        let random = u32::from_be_bytes(draw(self.parts.entropy.as_ref()));
        let next = after_attempt(
            &endpoint,
            &made.attempt,
            policy_attempt,
            made.ended_at,
            random,
        );
        self.parts.metrics.attempted(&made.attempt, &next);
        queue
            .health
            .note(sign(&made.attempt), endpoint.max_in_flight, now);
        if let Some(wait) = asked_to_wait(&made.attempt) {
            queue.hold_until = queue.hold_until.max(now.after(wait));
        }
        let changed = remember(&mut queue.receiver, &made, now);
        if changed || std::mem::take(&mut queue.receiver_unstored) {
            self.receivers
                .push((queue.workspace, id, queue.receiver.clone()));
        }
        if let Some(reason) = must_disable(&next, &queue.receiver, now, self.parts.disable_after) {
            let (parts, events) = (Arc::clone(&self.parts), Rc::clone(&self.events));
            self.disables_open += 1;
            tokio::task::spawn_local(async move {
                disable(&parts, id, reason).await;
                events.put(Event::Disabled);
            });
        }
        let keeps_place = endpoint.ordered && matches!(next, Next::RetryAt(_));
        if keeps_place {
            queue.held_in_place(&row);
        }
        self.finishes.push(Finish {
            due: row,
            attempt: Some(made.attempt),
            next,
            keeps_place,
            at: now,
        });
        self.call_up(id);
    }

    /// Hands everything that was finished in this turn of the loop to the store.
    fn hand_in(&mut self) {
        if self.finishes.is_empty() && self.receivers.is_empty() {
            return;
        }
        let finishes = std::mem::take(&mut self.finishes);
        let rows: Vec<_> = finishes
            .iter()
            .map(|finish| {
                let afterwards = match finish.next {
                    Next::RetryAt(_) if finish.keeps_place => Afterwards::InPlace,
                    Next::RetryAt(at) => Afterwards::DueAgain(at),
                    Next::Delivered | Next::Exhausted(_) => Afterwards::Gone,
                };
                Finished {
                    endpoint: finish.due.endpoint,
                    delivery: finish.due.delivery,
                    token: Token::of(&finish.due),
                    afterwards,
                }
            })
            .collect();
        let committed = self
            .parts
            .store
            .finish(finishes, std::mem::take(&mut self.receivers));
        self.commits_open += 1;
        let events = Rc::clone(&self.events);
        tokio::task::spawn_local(async move {
            let result = committed.await;
            if let Err(error) = &result {
                tracing::error!(error = %error, "attempts could not be recorded; their messages will be sent again");
            }
            events.put(Event::Committed(rows, result.is_ok()));
        });
    }
}

/// What an attempt says about the endpoint's health: an answer about the message is an answer.
fn sign(attempt: &Attempt) -> Sign {
    match attempt.decisive().map(|exchange| &exchange.result) {
        Some(ExchangeResult::Answered(answer)) if answer.status < 500 && answer.status != 429 => {
            Sign::Answered {
                took: Millis::from(attempt.duration_millis),
            }
        }
        Some(ExchangeResult::Answered(_) | ExchangeResult::Failed(_)) | None => Sign::Unwell,
    }
}

/// How long a 429 or 503 asks everyone to wait, cut to what is obeyed.
fn asked_to_wait(attempt: &Attempt) -> Option<Millis> {
    match &attempt.decisive()?.result {
        ExchangeResult::Answered(answer) if matches!(answer.status, 429 | 503) => answer
            .retry_after_millis
            .map(|wait| wait.min(RETRY_AFTER_MAX)),
        ExchangeResult::Answered(_) | ExchangeResult::Failed(_) => None,
    }
}

/// Takes what an attempt taught into the receiver's state. Returns whether that is worth storing: a
/// belief that changed its key, the first failures, the first success after one.
fn remember(state: &mut ReceiverState, made: &Attempted, now: Timestamp) -> bool {
    let key = |view: &ReceiverView| view.belief.map(|belief| belief.secret);
    let known = key(&state.view);
    // Applied to what is known by now: attempts of one endpoint overlap, and one that began with an
    // older belief and learnt nothing must not bring that back.
    for exchange in &made.evidence {
        state.view.belief = belief_after(state.view.belief, *exchange);
    }
    let mut changed = key(&state.view) != known;
    if made.attempt.accepted() {
        changed |= state.note_success();
        if state
            .accepted_at
            .is_none_or(|at| now.since(at) >= ACCEPTED_STALE)
        {
            state.accepted_at = Some(now);
            changed = true;
        }
    } else {
        changed |= state.note_failure(now);
    }
    changed
}

/// Whether the endpoint must be disabled: on 410 at once, or when nothing was accepted for too long,
/// this attempt included.
fn must_disable(
    next: &Next,
    receiver: &ReceiverState,
    now: Timestamp,
    disable_after: Millis,
) -> Option<DisabledReason> {
    if matches!(next, Next::Exhausted(ExhaustedReason::Gone)) {
        return Some(DisabledReason::Gone);
    }
    receiver
        .failed_too_long(now, disable_after)
        .then_some(DisabledReason::Failing)
}

/// An error with its causes on one line: logged once, here.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

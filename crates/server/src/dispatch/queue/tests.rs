//! The queue against a model of the disk: random courses of accepting, here and at other nodes, which tell of it
//! early, late or never; of reading, sending, finishing, failing to commit, queueing by hand, pausing and beginning to keep the order.
//!
//! Whatever the course: once everything succeeds, every row has been sent and nothing is left; no
//! attempt was made twice but after a commit that failed, or because someone queued the delivery by
//! hand while it was under way; first acceptances of what was accepted since the endpoint is ordered
//! came in order, and after all that was accepted before; every request of an event stream carries rows of one type and one fate; and the
//! queue remembers nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use hookturn_core::endpoint::{BodyForm, Method, Preset, ProbeSettings};
use hookturn_core::id::{ClientId, EndpointId, KeyringId, MessageId};
use hookturn_core::message::{EventFilter, EventType, Message};
use hookturn_core::store::Hold;
use hookturn_core::time::Millis;
use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::from_millis(1_784_505_600_000);
const REST: Millis = 10_000;

#[derive(Debug, Clone, Copy)]
enum Op {
    /// Accepts so many rows.
    Accept(u8),
    /// Another node accepts so many rows.
    AcceptElsewhere(u8),
    /// It is heard of one of these: with what it carries, or only that there is something.
    Hear(u8, bool),
    /// The shard's loop: notes, events, then what the queue wishes, at most so many sends.
    Turn(u8),
    /// The same, and what is handed in before a read cannot be stored.
    FailingTurn(u8),
    /// Some exchange in flight ends.
    Finish(u8, Outcome),
    /// The writer does something with everything that is queued.
    Commit(Fate),
    /// A block that was asked for is read from the last commit, or one that was read arrives.
    Snapshot,
    /// Someone queues a delivery by hand.
    Requeue(u8),
    Advance(u16),
    Pause(bool),
    /// The endpoint is ordered from now on.
    KeepOrder,
}

/// What becomes of finishes that were handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Happens,
    Fails,
    /// They are committed, and the queue hears that they failed.
    AnswerLost,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Accepted,
    Failed(u16),
    Exhausted,
}

fn op() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Accepted),
        3 => (0_u16..3_000).prop_map(Outcome::Failed),
        1 => Just(Outcome::Exhausted),
    ];
    prop_oneof![
        4 => (1_u8..12).prop_map(Op::Accept),
        2 => (1_u8..6).prop_map(Op::AcceptElsewhere),
        6 => (any::<u8>(), any::<bool>()).prop_map(|(which, whole)| Op::Hear(which, whole)),
        8 => (0_u8..6).prop_map(Op::Turn),
        2 => (1_u8..6).prop_map(Op::FailingTurn),
        6 => (any::<u8>(), outcome).prop_map(|(which, outcome)| Op::Finish(which, outcome)),
        6 => prop_oneof![
            10 => Just(Fate::Happens),
            1 => Just(Fate::Fails),
            1 => Just(Fate::AnswerLost),
        ].prop_map(Op::Commit),
        4 => Just(Op::Snapshot),
        2 => any::<u8>().prop_map(Op::Requeue),
        3 => (0_u16..4_000).prop_map(Op::Advance),
        1 => any::<bool>().prop_map(Op::Pause),
        1 => Just(Op::KeepOrder),
    ]
}

struct Finished {
    row: Due,
    outcome: Outcome,
    at: Timestamp,
    /// Whether the queue knew that it keeps its place.
    in_place: bool,
}

enum Note {
    Accepted(Due),
    Told(Due),
    Due,
    Requeued,
    Ordered,
}

enum Event {
    Committed(DeliveryId, Token, Option<Timestamp>),
    Unrecorded(DeliveryId),
    Block(DueBlock),
}

struct Asked {
    until: Timestamp,
    rows: usize,
    bytes: usize,
}

struct World {
    queue: Queue,
    now: Timestamp,
    preset: Preset,
    /// Whether the store has the endpoint so; the queue hears of it later.
    ordered: bool,
    /// How many rows had been made by then.
    made_before_order: usize,
    disk: BTreeMap<(Timestamp, DeliveryId), Due>,
    /// The last form of settled rows.
    settled: BTreeMap<DeliveryId, Due>,
    made: Vec<DeliveryId>,
    /// Accepted elsewhere, and not heard of yet.
    unheard: Vec<Due>,
    /// What blocks brought: the shard remembers it.
    brought: HashSet<DeliveryId>,
    in_flight: Vec<Batch>,
    writing: Vec<Finished>,
    notes: Vec<Note>,
    events: Vec<Event>,
    asked: Option<Asked>,
    read: Option<DueBlock>,
    sent: HashMap<(DeliveryId, u32), usize>,
    failed_commits: HashMap<(DeliveryId, u32), usize>,
    requeues: HashMap<DeliveryId, usize>,
    accepted: Vec<DeliveryId>,
    exhausted: HashSet<DeliveryId>,
    reads: usize,
}

fn endpoint(preset: Preset, ordered: bool, state: EndpointState) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        id: EndpointId::from_bytes([1; 16]),
        workspace: WorkspaceId::from_bytes([2; 16]),
        app: ClientId::FIRST,
        description: String::new(),
        url: None,
        retargeted_at: None,
        resumed_at: None,
        preset,
        method: Method::Post,
        body_form: BodyForm::Json,
        events: EventFilter::try_from(Vec::new()).unwrap(),
        headers: BTreeMap::new(),
        keyring: KeyringId::from_bytes([3; 16]),
        state,
        retry: preset.retry(),
        timeout_millis: 15_000,
        connect_timeout_millis: 5_000,
        max_in_flight: 3,
        rate_limit_per_second: None,
        ordered,
        probe: ProbeSettings::default(),
        version: 1,
        created_at: START,
        updated_at: START,
    })
}

pub(in crate::dispatch) fn row_accepted_at(number: u32, at: Timestamp) -> Due {
    let id = u128::from(number).to_be_bytes();
    let event_type = if number.is_multiple_of(3) {
        "order.sent"
    } else {
        "order.paid"
    };
    let message = Message {
        id: MessageId::from_bytes(id),
        workspace: WorkspaceId::from_bytes([2; 16]),
        app: ClientId::FIRST,
        event_type: EventType::new(event_type).unwrap(),
        event_id: None,
        payload: Bytes::from(vec![b'1'; 20 + (number * 37 % 130) as usize]),
        accepted_at: at,
    };
    Due {
        delivery: DeliveryId::from_bytes(id),
        endpoint: EndpointId::from_bytes([1; 16]),
        due_at: at,
        not_before: at,
        attempts: 0,
        attempts_before_requeue: 0,
        message: Arc::new(message),
    }
}

impl World {
    fn new(preset: Preset, ordered: bool) -> Self {
        let mut queue = Queue::new(WorkspaceId::from_bytes([2; 16]), ReceiverState::default());
        queue.endpoint = Some(endpoint(preset, ordered, EndpointState::Enabled));
        Self {
            queue,
            now: START,
            preset,
            ordered,
            made_before_order: 0,
            disk: BTreeMap::new(),
            settled: BTreeMap::new(),
            made: Vec::new(),
            unheard: Vec::new(),
            brought: HashSet::new(),
            in_flight: Vec::new(),
            writing: Vec::new(),
            notes: Vec::new(),
            events: Vec::new(),
            asked: None,
            read: None,
            sent: HashMap::new(),
            failed_commits: HashMap::new(),
            requeues: HashMap::new(),
            accepted: Vec::new(),
            exhausted: HashSet::new(),
            reads: 0,
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Accept(count) => (0..count).for_each(|_| self.accept()),
            Op::AcceptElsewhere(count) => (0..count).for_each(|_| self.accept_elsewhere()),
            Op::Hear(which, whole) => self.hear(usize::from(which), whole),
            Op::Turn(sends) => self.turn(sends, Fate::Happens),
            Op::FailingTurn(sends) => self.turn(sends, Fate::Fails),
            Op::Finish(which, outcome) => self.finish(usize::from(which), outcome),
            Op::Commit(fate) => self.commit(fate),
            Op::Snapshot => self.snapshot(),
            Op::Requeue(which) => self.requeue(usize::from(which)),
            Op::Advance(millis) => self.now = self.now.after(millis.into()),
            Op::Pause(paused) => self.pause(paused),
            Op::KeepOrder => self.keep_order(),
        }
        let held = self.queue.ready.len();
        assert!(held <= WINDOW + BLOCK, "{held} rows in memory");
        let bytes: usize = self
            .queue
            .ready
            .iter()
            .map(|row| row.message.payload.len())
            .sum();
        assert_eq!(bytes, self.queue.ready_bytes);
        assert!(
            bytes <= WINDOW_BYTES + BLOCK_BYTES + 200,
            "{bytes} bytes in memory"
        );
        assert_eq!(
            self.queue.known.values().sum::<usize>(),
            self.queue.known_bytes
        );
    }

    fn accept(&mut self) {
        let row = self.make();
        self.notes.push(Note::Accepted(row));
    }

    fn accept_elsewhere(&mut self) {
        // Of those of an ordered endpoint nobody tells more than that they are there.
        if self.ordered {
            return self.accept();
        }
        let row = self.make();
        self.unheard.push(row);
    }

    fn hear(&mut self, which: usize, whole: bool) {
        if self.unheard.is_empty() {
            return;
        }
        let row = self.unheard.remove(which % self.unheard.len());
        self.notes
            .push(if whole { Note::Told(row) } else { Note::Due });
    }

    fn make(&mut self) -> Due {
        let number = u32::try_from(self.made.len()).unwrap() + 1;
        let row = row_accepted_at(number, self.now);
        self.made.push(row.delivery);
        self.disk.insert((row.due_at, row.delivery), row.clone());
        row
    }

    fn turn(&mut self, sends: u8, stored: Fate) {
        self.take_in();
        for _ in 0..sends {
            match self.queue.wish(self.now) {
                Wish::Send => {
                    let batch = self.queue.pop(self.now).unwrap();
                    assert!(batch.len() <= self.preset.messages_per_request());
                    assert!(!self.queue.ordered() || self.in_flight.is_empty());
                    self.queue.in_flight += 1;
                    for row in batch.rows() {
                        assert!(row.not_before <= self.now, "sent too early");
                        let first = batch.first();
                        assert_eq!(row.message.event_type, first.message.event_type);
                        assert_eq!(row.attempts, first.attempts);
                        *self.sent.entry((row.delivery, row.attempts)).or_default() += 1;
                    }
                    self.in_flight.push(batch);
                }
                Wish::Read { rows, bytes } => {
                    self.queue.reading();
                    self.reads += 1;
                    // A read comes after every finish that was handed in before it.
                    self.commit(stored);
                    let until = self.now;
                    self.asked = Some(Asked { until, rows, bytes });
                }
                Wish::WaitUntil(at) => {
                    assert!(at > self.now, "a wait that is over spins");
                    return;
                }
                Wish::Rest => return,
            }
        }
    }

    fn take_in(&mut self) {
        for note in std::mem::take(&mut self.notes) {
            match note {
                Note::Accepted(row) => self.queue.accept(row, self.now),
                Note::Told(row) if self.brought.contains(&row.delivery) => {}
                Note::Told(row) => self.queue.told(row, self.now),
                Note::Due => self.queue.on_disk(Timestamp::EPOCH),
                Note::Requeued => {
                    self.queue.requeued();
                }
                Note::Ordered => {
                    self.queue.put_in_order();
                    let known = self.queue.endpoint.as_ref().unwrap();
                    self.queue.endpoint = Some(endpoint(self.preset, true, known.state.clone()));
                }
            }
        }
        let rest = self.now.after(REST);
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Committed(delivery, token, again_at) => {
                    self.queue.committed(delivery, token, again_at);
                }
                Event::Unrecorded(delivery) => {
                    self.queue.rest_until = rest;
                    self.queue.unrecorded(delivery);
                }
                Event::Block(block) => {
                    let ids: Vec<_> = block.rows.iter().map(|row| row.delivery).collect();
                    self.queue.block(Some(block), self.now, rest);
                    let brought = ids.into_iter().filter(|id| self.queue.knows(*id));
                    self.brought.extend(brought);
                }
            }
        }
    }

    fn finish(&mut self, which: usize, outcome: Outcome) {
        if self.in_flight.is_empty() {
            return;
        }
        let batch = self.in_flight.remove(which % self.in_flight.len());
        self.queue.in_flight -= 1;
        for row in batch.into_rows() {
            self.finish_row(row, outcome);
        }
    }

    fn finish_row(&mut self, row: Due, outcome: Outcome) {
        let in_place = self.queue.ordered();
        match outcome {
            Outcome::Accepted if !self.accepted.contains(&row.delivery) => {
                self.accepted.push(row.delivery);
            }
            Outcome::Failed(_) | Outcome::Exhausted if in_place => {
                self.queue.held_in_place(&row);
            }
            Outcome::Accepted | Outcome::Failed(_) | Outcome::Exhausted => {}
        }
        let at = self.now;
        self.writing.push(Finished {
            row,
            outcome,
            at,
            in_place,
        });
    }

    fn commit(&mut self, fate: Fate) {
        for finished in std::mem::take(&mut self.writing) {
            let Finished {
                row,
                outcome,
                at,
                in_place,
            } = finished;
            let (delivery, token) = (row.delivery, Token::of(&row));
            if fate != Fate::Happens {
                *self
                    .failed_commits
                    .entry((delivery, row.attempts))
                    .or_default() += 1;
                self.events.push(Event::Unrecorded(delivery));
            }
            if fate == Fate::Fails {
                continue;
            }
            let mut again_at = None;
            let mut next = Due {
                attempts: row.attempts + 1,
                ..row.clone()
            };
            let found = self.take_as_read(&row);
            match outcome {
                Outcome::Failed(wait) => {
                    next.not_before = at.after(wait.into());
                    if !self.ordered {
                        next.due_at = next.not_before;
                    }
                    again_at = Some(next.not_before);
                    if let Some(found) = found {
                        next.attempts_before_requeue = found.attempts_before_requeue;
                        self.disk.insert((next.due_at, delivery), next);
                    }
                    if in_place {
                        continue;
                    }
                }
                Outcome::Accepted | Outcome::Exhausted => {
                    if matches!(outcome, Outcome::Exhausted) {
                        self.exhausted.insert(delivery);
                    }
                    if found.is_some() {
                        self.settled.insert(delivery, next);
                    }
                }
            }
            if fate == Fate::Happens {
                self.events
                    .push(Event::Committed(delivery, token, again_at));
            }
        }
    }

    /// Takes a row from disk if it is as it was read. One that someone queued by hand meanwhile stays,
    /// with the attempt counted.
    fn take_as_read(&mut self, row: &Due) -> Option<Due> {
        let key = (row.due_at, row.delivery);
        if self
            .disk
            .get(&key)
            .is_some_and(|found| found.not_before == row.not_before)
        {
            return self.disk.remove(&key);
        }
        let mut moved = self.disk.values_mut();
        if let Some(moved) = moved.find(|found| found.delivery == row.delivery) {
            moved.attempts = moved.attempts.max(row.attempts + 1);
        }
        None
    }

    fn snapshot(&mut self) {
        if let Some(block) = self.read.take() {
            self.events.push(Event::Block(block));
            return;
        }
        let Some(Asked { until, rows, bytes }) = self.asked.take() else {
            return;
        };
        let mut block = DueBlock::default();
        let mut taken = 0;
        for row in self.disk.values() {
            if row.due_at > until || block.rows.len() == rows || taken > bytes {
                block.next_due_at = Some(row.due_at);
                break;
            }
            taken += row.message.payload.len();
            block.rows.push(row.clone());
        }
        self.read = Some(block);
    }

    fn requeue(&mut self, which: usize) {
        let Some(delivery) = self.made.get(which % self.made.len().max(1)).copied() else {
            return;
        };
        let pending = self
            .disk
            .iter()
            .find(|((_, id), _)| *id == delivery)
            .map(|(key, _)| *key);
        let row = match (pending, self.settled.remove(&delivery)) {
            (Some(key), _) => {
                let mut row = self.disk.remove(&key).unwrap();
                row.due_at = row.due_at.min(self.now);
                // It always changes, so that a finish of the row as it was does not fit any more.
                row.not_before = row.not_before.before(1).min(self.now);
                row
            }
            (None, Some(mut row)) => {
                (row.due_at, row.not_before) = (self.now, self.now);
                row
            }
            (None, None) => return,
        };
        *self.requeues.entry(delivery).or_default() += 1;
        let attempts_before_requeue = row.attempts;
        let row = Due {
            attempts_before_requeue,
            ..row
        };
        self.disk.insert((row.due_at, delivery), row);
        self.notes.push(Note::Requeued);
    }

    fn pause(&mut self, paused: bool) {
        let state = if paused {
            EndpointState::Paused { since: self.now }
        } else {
            EndpointState::Enabled
        };
        let ordered = self.queue.ordered();
        if paused || ordered {
            self.queue.back_to_disk();
        }
        self.queue.endpoint = Some(endpoint(self.preset, ordered, state));
    }

    fn keep_order(&mut self) {
        if self.ordered {
            return;
        }
        self.ordered = true;
        self.made_before_order = self.made.len();
        let now = (self.now.after(1), DeliveryId::from_bytes([0; 16]));
        for (_, row) in self.disk.split_off(&now) {
            let due_at = row.message.accepted_at;
            let row = Due { due_at, ..row };
            self.disk.insert((due_at, row.delivery), row);
        }
        self.notes.push(Note::Ordered);
    }

    /// Lets everything succeed until nothing is left.
    fn settle(&mut self) {
        self.pause(false);
        // What nobody tells of is found when the node looks through what is due.
        self.notes.push(Note::Due);
        for _ in 0..10_000 {
            self.run(Op::Turn(16));
            while !self.in_flight.is_empty() {
                self.finish(0, Outcome::Accepted);
            }
            self.commit(Fate::Happens);
            self.snapshot();
            self.snapshot();
            let quiet = self.notes.is_empty() && self.events.is_empty();
            match self.queue.wish(self.now) {
                Wish::Rest if quiet && self.asked.is_none() && self.read.is_none() => return,
                Wish::WaitUntil(at) if quiet => self.now = at,
                Wish::Rest | Wish::WaitUntil(_) | Wish::Send | Wish::Read { .. } => {}
            }
        }
        panic!("it never comes to an end");
    }

    fn check(&self) {
        assert!(self.disk.is_empty(), "left on disk: {:?}", self.disk.keys());
        assert!(self.queue.is_idle(), "it remembers {:?}", self.queue.known);
        assert!(self.queue.committed_while_reading.is_empty());
        assert!(self.queue.perhaps_moved.is_empty());
        for delivery in &self.made {
            assert!(
                self.sent.contains_key(&(*delivery, 0)),
                "{delivery} was never sent"
            );
        }
        for (attempt, times) in &self.sent {
            let failed = self.failed_commits.get(attempt).copied().unwrap_or(0);
            let asked_for = self.requeues.get(&attempt.0).copied().unwrap_or(0);
            let causes = 1 + failed + asked_for;
            assert!(*times <= causes, "{attempt:?} was sent {times} times");
        }
        if self.ordered {
            let before = self.made.get(..self.made_before_order).unwrap();
            let first: Vec<_> = self
                .accepted
                .iter()
                .filter(|delivery| !self.exhausted.contains(delivery))
                .skip_while(|delivery| before.contains(delivery))
                .collect();
            assert!(first.is_sorted(), "out of order: {first:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn g1_g2_every_row_is_sent_and_none_twice_without_a_cause(
        ordered in any::<bool>(),
        stream in any::<bool>(),
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let preset = if stream { Preset::KoreStream } else { Preset::Standard };
        let mut world = World::new(preset, ordered);
        for op in ops {
            world.run(op);
        }
        world.settle();
        world.check();
    }
}

#[test]
fn a_row_queued_by_hand_while_a_block_is_read_is_not_taken_for_the_one_that_settled() {
    let mut world = World::new(Preset::Standard, false);
    world.run(Op::Accept(1));
    world.run(Op::Turn(1));
    world.run(Op::Finish(0, Outcome::Accepted));
    // Finished and queued again in one commit, before the shard looks at either.
    world.commit(Fate::Happens);
    world.requeue(0);
    let committed = std::mem::take(&mut world.events);
    world.run(Op::Turn(1));
    world.snapshot();
    world.snapshot();
    world.events.splice(0..0, committed);
    world.settle();
    world.check();
    assert_eq!(world.sent.len(), 2);
}

#[test]
fn a_window_that_is_full_of_large_rows_is_not_read_in_circles() {
    let mut world = World::new(Preset::Standard, false);
    world.run(Op::Accept(200));
    world.settle();
    world.check();
    assert!(world.reads <= 60, "{} reads for 200 rows", world.reads);
}

/// What stands behind a row that waits in its place is not sent before it when that could not be stored:
/// the block that was asked for meanwhile brings the row as it was.
#[test]
fn g2_a_retry_that_could_not_be_stored_keeps_its_place() {
    let mut world = World::new(Preset::Standard, true);
    world.run(Op::Accept(3));
    world.run(Op::Turn(1));
    world.run(Op::Finish(0, Outcome::Failed(1_000)));
    world.run(Op::FailingTurn(1));
    world.run(Op::Turn(1));
    world.settle();
    world.check();
    assert_eq!(world.accepted, world.made);
}

/// A finish that happened although it was answered as failed leaves another row on disk than the block
/// has that was read before it: that row is found, and not sent as it was.
#[test]
fn g1_a_block_from_before_a_finish_that_failed_is_read_again() {
    let mut world = World::new(Preset::Standard, false);
    world.run(Op::Accept(1));
    world.run(Op::Turn(1));
    world.queue.on_disk(Timestamp::EPOCH);
    world.run(Op::Turn(1));
    world.snapshot();
    world.run(Op::Finish(0, Outcome::Failed(1_000)));
    world.commit(Fate::AnswerLost);
    world.snapshot();
    world.settle();
    world.check();
    let attempts: HashSet<u32> = world.sent.keys().map(|(_, attempts)| *attempts).collect();
    assert_eq!(attempts, HashSet::from([0, 1]));
    assert!(
        world.sent.values().all(|times| *times == 1),
        "{:?}",
        world.sent
    );
}

/// What somebody retries by hand while its receiver is waited for goes out as it is then, and not as it was too.
#[test]
fn g2_what_is_queued_by_hand_while_it_is_held_is_sent_once() {
    let mut world = World::new(Preset::Standard, false);
    world.run(Op::Accept(3));
    world.queue.receiver.hold = Some(Hold {
        until: START.after(40_000),
        since: START,
        status: 503,
    });
    world.run(Op::Turn(3));
    assert!(world.sent.is_empty(), "the receiver asked for a pause");
    world.run(Op::Requeue(1));
    world.run(Op::Turn(3));
    assert!(world.sent.is_empty(), "it is read first");
    world.settle();
    assert_eq!(world.sent.len(), 3);
    world.check();
}

/// Rows that another node tells of need not wait for a block, which does not bring them once more.
#[test]
fn g2_what_is_told_while_a_block_is_read_is_sent_at_once_and_once() {
    let mut world = World::new(Preset::Standard, false);
    world.run(Op::AcceptElsewhere(2));
    world.run(Op::Hear(0, false));
    world.run(Op::Turn(1));
    world.snapshot();
    world.run(Op::Hear(0, true));
    world.run(Op::Turn(2));
    assert_eq!(world.sent.len(), 1, "one is in memory");
    world.run(Op::Finish(0, Outcome::Accepted));
    world.commit(Fate::Happens);
    world.run(Op::Turn(0));
    // The block from before it was sent.
    world.snapshot();
    assert_eq!(world.reads, 1);
    world.settle();
    world.check();
}

/// What a block brought was sent, recorded and forgotten when the other node's word of it comes at last.
#[test]
fn g2_what_is_told_after_a_block_brought_it_is_not_sent_again() {
    let mut world = World::new(Preset::Standard, false);
    world.run(Op::AcceptElsewhere(1));
    world.notes.push(Note::Due);
    world.settle();
    assert!(world.queue.is_idle());
    world.run(Op::Hear(0, true));
    world.settle();
    world.check();
}

/// However much is told: what was on disk before gets its turn.
#[test]
fn rows_on_disk_do_not_starve_behind_what_is_told() {
    let mut world = World::new(Preset::Standard, false);
    let oldest = world.make().delivery;
    world.queue.on_disk(Timestamp::EPOCH);
    for _ in 0..2 * WINDOW {
        world.run(Op::AcceptElsewhere(2));
        world.run(Op::Hear(0, true));
        world.run(Op::Hear(0, true));
        world.run(Op::Advance(1));
        world.run(Op::Turn(1));
        world.run(Op::Finish(0, Outcome::Accepted));
        world.run(Op::Commit(Fate::Happens));
        world.snapshot();
        world.snapshot();
    }
    assert!(world.accepted.contains(&oldest));
    world.settle();
    world.check();
}

#[test]
fn nothing_is_told_past_the_window_or_past_the_order() {
    let mut world = World::new(Preset::Standard, false);
    let rows: Vec<Due> = (0..WINDOW + 3).map(|_| world.make()).collect();
    for row in rows {
        world.queue.told(row, START);
    }
    assert_eq!(world.queue.disk, Disk::Due(START));
    assert_eq!(world.queue.known.len(), world.queue.ready.len());
    assert!(world.queue.ready.len() <= WINDOW && !world.queue.is_low());
    world.settle();
    world.check();
    for unordered in [true, false] {
        let mut world = World::new(Preset::Standard, !unordered);
        if unordered {
            world.queue.endpoint = None;
        }
        let row = world.make();
        world.queue.told(row, START);
        assert!(world.queue.ready.is_empty(), "it is not known, or ordered");
        world.settle();
        world.check();
    }
}

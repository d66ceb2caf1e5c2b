//! Turns: which endpoint of a host is probed next.
//!
//! 1. One probe at a time to a host, as long as its endpoints answer within [`PROMPT`].
//! 2. Endpoints whose latest probe took longer, most often because it timed out, are slow: they share one place
//!    of their own and hold up nobody else.
//! 3. A probe that has been under way for longer than [`PROMPT`] holds that place, and no more the one of rule 1.
//! 4. However many hang that were not known for it, at most [`OPEN_AT_ONCE`] probes are under way to a host.
//! 5. Of those that wait for the same place, the one goes first that was asked longest ago; of several that never
//!    were, the one that came first. A sweep's endpoint waits as long as it is looked at again from time to time,
//!    a command until it is given up.
//! 6. At most [`limits::PROBES_PER_HOST_SECOND`] a second.
//!
//! What is remembered is forgotten with a restart: until they were asked once, nobody is slow then.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use hookturn_core::id::EndpointId;
use hookturn_core::limits;
use hookturn_core::time::{Millis, SECOND, Timestamp};
use tokio::time::Instant;

/// How long an endpoint may take to answer without being slow.
const PROMPT: Duration = Duration::from_secs(2);
/// Probes under way to one host, whatever becomes of them.
const OPEN_AT_ONCE: usize = 4;
/// Endpoints of one host that wait for their turn in tasks: as many as a host takes between two sweeps. Of slow ones
/// it is one, when their place is free.
const QUEUED: usize = 16;
/// How long an endpoint waits that no sweep looks at any more.
const WANTED_FOR: Duration = Duration::from_secs(3);
/// How long it is remembered that an endpoint was slow.
const REMEMBERED: Duration = Duration::from_hours(1);
/// Endpoints of one host whose latest probe is remembered. Those that are forgotten were asked longest ago.
const KNOWN: usize = 1_024;
/// How often it is looked what can be forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Why a host has no room for a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) enum NoRoom {
    /// Others are under way, or come first.
    Busy {
        /// Whether one to the endpoint itself is under way.
        to_itself: bool,
        /// How many are under way to other endpoints of the host.
        to_others: usize,
    },
    /// It got as many as it may in this second.
    UsedUp {
        /// How long until the next second.
        wait_millis: Millis,
    },
}

/// Hosts that a probe is under way to or waited for, and those that were slow.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    of: HashMap<String, Host>,
    tidied: Option<Instant>,
}

impl Hosts {
    /// A host. From time to time the others that rest are forgotten.
    pub(super) fn at(&mut self, host: &str, now: Instant, time: Timestamp) -> &mut Host {
        if self.tidied.is_none_or(|at| now >= at + TIDY_EVERY) {
            self.tidied = Some(now);
            self.of.retain(|_, host| host.tidy(now, time));
        }
        self.of.entry(host.to_owned()).or_default()
    }

    /// A host that somebody waits for or is at.
    pub(super) fn known(&mut self, host: &str) -> Option<&mut Host> {
        self.of.get_mut(host)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }
}

/// What is under way to a host, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Host {
    second: Second,
    open: BTreeMap<u64, Open>,
    known: HashMap<EndpointId, Known>,
    waiting: Waiting,
    /// Endpoints that a sweep's task waits for or asks.
    tasks: HashSet<EndpointId>,
    /// Numbers of turns and of those that wait, in the order in which they came.
    last_number: u64,
    slow_at: Option<Instant>,
}

/// What a host got in the second that began at `since`.
#[derive(Debug, Default)]
struct Second {
    since: Timestamp,
    probes: u32,
}

/// A turn that was taken.
#[derive(Debug)]
struct Open {
    endpoint: EndpointId,
    since: Instant,
    is_slow: bool,
    /// When the probe that is under way was sent; a turn may have several.
    asked_at: Instant,
    /// Whether an earlier one took longer than it may.
    was_slow: bool,
}

impl Open {
    /// Whether it holds the place of slow ones.
    fn holds_slow(&self, now: Instant) -> bool {
        self.is_slow || now.duration_since(self.since) > PROMPT
    }

    fn answered(&mut self, now: Instant) {
        self.was_slow |= now.duration_since(self.asked_at) > PROMPT;
        self.asked_at = now;
    }
}

/// The latest turn of an endpoint.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    number: u64,
    is_slow: bool,
}

/// Those that wait for a host, in the order of rule 5.
#[derive(Debug, Default)]
struct Waiting {
    /// The number of the latest turn of its endpoint, 0 for none, and its own.
    order: BTreeSet<(u64, u64)>,
    of: HashMap<u64, Waits>,
    swept: HashMap<EndpointId, u64>,
}

#[derive(Debug)]
struct Waits {
    endpoint: EndpointId,
    asked: u64,
    seen: Instant,
    /// Whether a task waits that takes the turn as soon as it can.
    in_task: bool,
}

impl Waits {
    fn is_there(&self, now: Instant) -> bool {
        self.in_task || now.duration_since(self.seen) < WANTED_FOR
    }
}

impl Waiting {
    fn enter(&mut self, number: u64, waits: Waits) {
        self.order.insert((waits.asked, number));
        self.of.insert(number, waits);
    }

    fn leave(&mut self, number: u64) {
        if let Some(waits) = self.of.remove(&number) {
            self.order.remove(&(waits.asked, number));
            if self.swept.get(&waits.endpoint) == Some(&number) {
                self.swept.remove(&waits.endpoint);
            }
        }
    }

    /// Says that it waits still, and when its endpoint was asked.
    fn renew(&mut self, number: u64, asked: u64, now: Instant) -> Option<EndpointId> {
        let waits = self.of.get_mut(&number)?;
        waits.seen = now;
        if waits.asked != asked {
            self.order.remove(&(waits.asked, number));
            self.order.insert((asked, number));
            waits.asked = asked;
        }
        Some(waits.endpoint)
    }

    fn tidy(&mut self, now: Instant) {
        let gone = self.of.iter().filter(|(_, waits)| !waits.is_there(now));
        for number in gone.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.leave(number);
        }
    }
}

impl Host {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn asked(&self, endpoint: EndpointId) -> u64 {
        self.known.get(&endpoint).map_or(0, |known| known.number)
    }

    fn is_slow(&self, endpoint: EndpointId, now: Instant) -> bool {
        let known = self.known.get(&endpoint).is_some_and(|known| known.is_slow);
        let mut open = self.open.values();
        known || open.any(|open| open.endpoint == endpoint && open.holds_slow(now))
    }

    /// Those that wait for the same place, in order.
    fn line(&self, slow: bool, now: Instant) -> impl Iterator<Item = (u64, &Waits)> {
        let order = self.waiting.order.iter();
        let waiting = order.filter_map(|(_, number)| Some((*number, self.waiting.of.get(number)?)));
        waiting.filter(move |(_, waits)| {
            waits.is_there(now) && self.is_slow(waits.endpoint, now) == slow
        })
    }

    /// Whether it is one of the first so many.
    fn is_among(&self, first: usize, number: u64, slow: bool, now: Instant) -> bool {
        let mut first = self.line(slow, now).take(first);
        first.any(|(one, _)| one == number)
    }

    /// Whether it goes before all others. Where many wait without a task, those with one do not wait for them; of slow
    /// ones each has to wait so long that none may pass another.
    fn is_next(&self, number: u64, slow: bool, now: Instant) -> bool {
        let mut line = self.line(slow, now);
        let next = line.find(|(_, waits)| slow || waits.in_task);
        next.is_some_and(|(next, _)| next == number)
    }

    /// Whether the place is free: rules 1 to 4.
    fn is_free(&self, slow: bool, now: Instant) -> bool {
        let mut open = self.open.values();
        self.open.len() < OPEN_AT_ONCE && !open.any(|open| open.holds_slow(now) == slow)
    }

    /// A sweep wants to ask an endpoint. Returns the number by which its task is to wait, unless it has one or others
    /// come before it.
    pub(super) fn want(&mut self, endpoint: EndpointId, now: Instant) -> Option<u64> {
        if self.tasks.contains(&endpoint) {
            return None;
        }
        let asked = self.asked(endpoint);
        let number = match self.waiting.swept.get(&endpoint) {
            Some(number) => *number,
            None => self.enter(endpoint, false, now),
        };
        self.waiting.renew(number, asked, now);
        let slow = self.is_slow(endpoint, now);
        let places = match (slow, self.is_free(slow, now)) {
            (true, true) => 1,
            (true, false) => 0,
            (false, _) if self.open.len() >= OPEN_AT_ONCE => 0,
            (false, _) => QUEUED,
        };
        if !self.is_among(places, number, slow, now) {
            return None;
        }
        if let Some(waits) = self.waiting.of.get_mut(&number) {
            waits.in_task = true;
        }
        self.tasks.insert(endpoint);
        Some(number)
    }

    /// A sweep's task is over, whether it had its turn or not: then its endpoint keeps its place in the order.
    pub(super) fn release(&mut self, endpoint: EndpointId, number: u64, now: Instant) {
        self.tasks.remove(&endpoint);
        if let Some(waits) = self.waiting.of.get_mut(&number) {
            (waits.in_task, waits.seen) = (false, now);
        }
    }

    /// A command waits for its turn.
    pub(super) fn come(&mut self, endpoint: EndpointId, now: Instant) -> u64 {
        self.enter(endpoint, true, now)
    }

    fn enter(&mut self, endpoint: EndpointId, is_command: bool, now: Instant) -> u64 {
        let number = self.number();
        let waits = Waits {
            endpoint,
            asked: self.asked(endpoint),
            seen: now,
            in_task: is_command,
        };
        self.waiting.enter(number, waits);
        if !is_command {
            self.waiting.swept.insert(endpoint, number);
        }
        number
    }

    /// A command waits no more.
    pub(super) fn go(&mut self, number: u64) {
        self.waiting.leave(number);
    }

    /// The turn of one that waits in a task, if it is its turn. Returns the number to end it by.
    pub(super) fn take(
        &mut self,
        number: u64,
        now: Instant,
        time: Timestamp,
    ) -> Result<u64, NoRoom> {
        let Some(endpoint) = self.waiting.of.get(&number).map(|waits| waits.endpoint) else {
            return Err(self.busy(None));
        };
        self.waiting.renew(number, self.asked(endpoint), now);
        let slow = self.is_slow(endpoint, now);
        if !self.is_next(number, slow, now) || !self.is_free(slow, now) {
            return Err(self.busy(Some(endpoint)));
        }
        self.count(time)?;
        self.waiting.leave(number);
        let turn = self.number();
        self.know(endpoint, turn, slow);
        let open = Open {
            endpoint,
            since: now,
            is_slow: slow,
            asked_at: now,
            was_slow: false,
        };
        self.open.insert(turn, open);
        Ok(turn)
    }

    fn busy(&self, endpoint: Option<EndpointId>) -> NoRoom {
        let to_itself = self.open.values();
        let to_itself = to_itself.filter(|open| Some(open.endpoint) == endpoint);
        let to_itself = to_itself.count();
        NoRoom::Busy {
            to_itself: to_itself > 0,
            to_others: self.open.len() - to_itself,
        }
    }

    /// Counts one more probe in the second of `time`, or says how long that has no room.
    pub(super) fn count(&mut self, time: Timestamp) -> Result<(), NoRoom> {
        let second = &mut self.second;
        if second.is_over(time) {
            (second.since, second.probes) = (time, 0);
        }
        if second.probes >= limits::PROBES_PER_HOST_SECOND {
            let wait_millis = second.since.after(SECOND).since(time);
            return Err(NoRoom::UsedUp { wait_millis });
        }
        second.probes += 1;
        Ok(())
    }

    /// The probe of a turn was answered, or given up; another may follow in the same turn.
    pub(super) fn answered(&mut self, turn: u64, now: Instant) {
        if let Some(open) = self.open.get_mut(&turn) {
            open.answered(now);
        }
    }

    /// Another probe of the turn is sent.
    pub(super) fn asks(&mut self, turn: u64, now: Instant) {
        if let Some(open) = self.open.get_mut(&turn) {
            open.asked_at = now;
        }
    }

    pub(super) fn end(&mut self, turn: u64, now: Instant) {
        if let Some(mut open) = self.open.remove(&turn) {
            open.answered(now);
            self.know(open.endpoint, turn, open.was_slow);
            if open.was_slow {
                self.slow_at = Some(now);
            }
        }
    }

    fn know(&mut self, endpoint: EndpointId, number: u64, is_slow: bool) {
        if self.known.len() >= KNOWN
            && !self.known.contains_key(&endpoint)
            && let Some(oldest) = self.known.iter().min_by_key(|(_, known)| known.number)
        {
            let oldest = *oldest.0;
            self.known.remove(&oldest);
        }
        let known = self.known.entry(endpoint).or_default();
        known.number = known.number.max(number);
        known.is_slow = is_slow;
    }

    /// Forgets who waits no more. Returns whether there is anything left to know about it.
    fn tidy(&mut self, now: Instant, time: Timestamp) -> bool {
        self.waiting.tidy(now);
        let is_used =
            !self.open.is_empty() || !self.tasks.is_empty() || !self.waiting.of.is_empty();
        let was_slow = self.slow_at.is_some_and(|at| now < at + REMEMBERED);
        is_used || was_slow || !self.second.is_over(time)
    }
}

impl Second {
    fn is_over(&self, now: Timestamp) -> bool {
        // Before its beginning: the clock was set back.
        now < self.since || now >= self.since.after(SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Timestamp = Timestamp::from_millis(1_000_000);

    fn id(number: u128) -> EndpointId {
        EndpointId::from_bytes(number.to_be_bytes())
    }

    fn busy(to_itself: bool, to_others: usize) -> NoRoom {
        NoRoom::Busy {
            to_itself,
            to_others,
        }
    }

    /// A host at which a second passes with every look, so that rule 6 is out of the way.
    struct At {
        host: Host,
        now: Instant,
        time: Timestamp,
    }

    impl At {
        fn new() -> Self {
            let now = Instant::now();
            let host = Host::default();
            let time = TIME;
            Self { host, now, time }
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
            self.time = self.time.after(seconds * SECOND);
        }

        /// A turn that a command takes now.
        fn take(&mut self, endpoint: u128) -> Result<u64, NoRoom> {
            let number = self.host.come(id(endpoint), self.now);
            let turn = self.host.take(number, self.now, self.time);
            self.host.go(number);
            turn
        }

        /// Answers after so many seconds.
        fn ask(&mut self, endpoint: u128, seconds: u64) {
            let turn = self.take(endpoint).unwrap();
            self.pass(seconds);
            self.host.end(turn, self.now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn g10_slow_endpoints_share_a_place_beside_that_of_the_others() {
        let mut at = At::new();
        at.ask(1, 15);
        at.ask(2, 15);
        at.ask(3, 0);
        let slow = at.take(1).unwrap();
        assert_eq!(at.take(2), Err(busy(false, 1)), "they share one");
        assert_eq!(at.take(1), Err(busy(true, 0)));
        at.ask(3, 0);
        let prompt = at.take(3).unwrap();
        assert_eq!(at.take(4), Err(busy(false, 2)), "one at a time");
        at.host.end(prompt, at.now);
        at.host.end(slow, at.now);
        // One that was slow and answers at once is slow no more.
        let slow = at.take(2).unwrap();
        at.ask(1, 0);
        at.host.end(slow, at.now);
    }

    #[tokio::test(start_paused = true)]
    async fn g10_a_host_that_hangs_has_a_few_probes_open_and_no_more() {
        let mut at = At::new();
        let mut open = Vec::new();
        for endpoint in 1..=100 {
            if let Ok(turn) = at.take(endpoint) {
                open.push(turn);
            }
            at.pass(1);
        }
        assert_eq!(open.len(), OPEN_AT_ONCE);
        // Those that are known for it leave room for those that are not.
        for turn in open {
            at.host.end(turn, at.now);
        }
        let known = [1, 4, 7, 10].map(|endpoint| at.take(endpoint).is_ok());
        assert_eq!(known, [true, false, false, false]);
        assert!(at.take(101).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn g10_who_was_asked_longest_ago_goes_first() {
        let mut at = At::new();
        for endpoint in [3, 1, 2] {
            at.ask(endpoint, 0);
        }
        let all = [1, 2, 3, 4, 5];
        let numbers = all.map(|endpoint| at.host.come(id(endpoint), at.now));
        let mut order = Vec::new();
        while order.len() < all.len() {
            for (endpoint, number) in all.into_iter().zip(numbers) {
                if let Ok(turn) = at.host.take(number, at.now, at.time) {
                    order.push(endpoint);
                    at.host.end(turn, at.now);
                }
            }
        }
        assert_eq!(order, [4, 5, 3, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn g10_a_sweep_gives_tasks_to_the_first_few_and_keeps_the_order_of_the_others() {
        let mut at = At::new();
        let numbers: Vec<_> = (1..=40).map(|one| at.host.want(id(one), at.now)).collect();
        assert_eq!(numbers.iter().flatten().count(), QUEUED);
        assert_eq!(at.host.want(id(1), at.now), None, "it has its task");
        let first = numbers[0].unwrap();
        let turn = at.host.take(first, at.now, at.time).unwrap();
        at.host.end(turn, at.now);
        at.host.release(id(1), first, at.now);
        assert_eq!(at.host.want(id(40), at.now), None, "others came before it");
        assert_eq!(at.host.want(id(1), at.now), None, "it was asked");
        assert!(at.host.want(id(17), at.now).is_some());
        // Nobody looks at the others any more: nobody waits for them.
        for (number, endpoint) in numbers.into_iter().flatten().zip(1..) {
            at.host.release(id(endpoint), number, at.now);
        }
        at.pass(WANTED_FOR.as_secs());
        assert!(at.host.want(id(40), at.now).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn g10_a_slow_endpoint_has_a_task_when_its_place_is_free() {
        let mut at = At::new();
        (1..=3).for_each(|endpoint| at.ask(endpoint, 15));
        let first = at.host.want(id(1), at.now).unwrap();
        let turn = at.host.take(first, at.now, at.time).unwrap();
        assert_eq!(at.host.want(id(2), at.now), None, "the place is taken");
        at.pass(1);
        assert_eq!(at.host.want(id(3), at.now), None);
        at.host.end(turn, at.now);
        at.host.release(id(1), first, at.now);
        assert_eq!(at.take(3), Err(busy(false, 0)), "the second comes first");
        assert_eq!(at.host.want(id(3), at.now), None);
        let second = at.host.want(id(2), at.now).unwrap();
        assert!(at.host.take(second, at.now, at.time).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn g10_a_host_is_forgotten_when_it_rests() {
        let mut hosts = Hosts::default();
        let (now, time) = (Instant::now(), TIME);
        let host = hosts.at("a", now, time);
        let number = host.come(id(1), now);
        let turn = host.take(number, now, time).unwrap();
        let (late, later) = (now + Duration::from_secs(20), time.after(20 * SECOND));
        hosts.at("b", late, later);
        assert_eq!(hosts.len(), 2, "a probe is under way");
        hosts.known("a").unwrap().end(turn, late);
        let hour = late + REMEMBERED - Duration::from_secs(1);
        hosts.at("c", hour, later.after(10 * SECOND));
        assert_eq!(hosts.len(), 2, "it was slow");
        let over = late + REMEMBERED;
        hosts.at("d", over, later.after(20 * SECOND));
        assert_eq!(hosts.len(), 1);
    }
}

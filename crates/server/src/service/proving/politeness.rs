//! Politeness: how many probes a receiver gets, and that its owner can look at them.
//!
//! Two bounds beside the policy's own budget for an endpoint: one probe at a time to a host, and at
//! most [`limits::PROBES_PER_HOST_SECOND`] of them a second, however many endpoints it serves. Probes that people
//! ask for have the same bounds, and a budget of their own for an endpoint ([`budget`]). A few wait for
//! their turn, so that one follows the other ([`Politeness::queue`]); whoever finds no place among them is
//! looked at again by a later sweep, which begins with those that were looked at longest ago.
//!
//! The last probes of an endpoint are remembered in memory: what was asked, and what came back. They
//! are for people to look at; what follows from them is in the findings, which are stored. After a
//! restart the list begins anew.

mod budget;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{EndpointId, RotationId, SecretId};
use hookturn_core::limits;
use hookturn_core::proof::{ProbeAnswer, ProbeKey};
use hookturn_core::time::{Clock, Millis, SECOND, Timestamp};

use crate::courier::Probed;
pub(in crate::service) use budget::Allowance;
use budget::Budget;

/// How soon whoever waits for a turn looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Endpoints of one host that are probed or wait for that: as many as a host takes between two sweeps.
const QUEUED: usize = 16;
/// How long one waits in the queue: a host that does not answer must not fill it with others' places.
const QUEUED_FOR: Duration = Duration::from_secs(1);

/// A probe that was sent, as its endpoint's owner may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenProbe {
    /// What it was for.
    pub purpose: ProbePurpose,
    /// The keys that signed it, in order; `None` stands for a key that nobody holds.
    pub signed_with: Vec<Option<SecretId>>,
    /// What came back.
    pub probed: Probed,
    /// What that says.
    pub answer: ProbeAnswer,
}

/// What a probe was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbePurpose {
    /// To find out how the receiver verifies.
    Rehearsal,
    /// To find out whether it holds what a rotation brings.
    Rotation(RotationId),
}

/// Hosts that a probe is under way to, and the last probes of each endpoint.
#[derive(Debug, Default)]
pub(in crate::service) struct Politeness {
    hosts: Mutex<HashMap<String, Host>>,
    queues: Queues,
    budget: Budget,
    seen: Mutex<Seen>,
}

/// Endpoints that are probed or wait for that, by host.
type Queues = Arc<Mutex<HashMap<String, HashSet<EndpointId>>>>;

/// What a host got in the second that began at `since`.
#[derive(Debug, Clone, Copy)]
struct Host {
    busy: bool,
    since: Timestamp,
    probes: u32,
}

impl Host {
    /// Counts one more probe in the second of `now`, or says how long that has no room.
    fn count(&mut self, now: Timestamp) -> Result<(), Millis> {
        // Before its beginning: the clock was set back.
        if now < self.since || now >= self.since.after(SECOND) {
            (self.since, self.probes) = (now, 0);
        }
        if self.probes >= limits::PROBES_PER_HOST_SECOND {
            return Err(self.since.after(SECOND).since(now));
        }
        self.probes += 1;
        Ok(())
    }
}

/// Why a host has no room for a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) enum NoRoom {
    /// One is under way.
    Busy,
    /// It got as many as it may in this second.
    UsedUp {
        /// How long until the next second.
        wait_millis: Millis,
    },
}

#[derive(Debug, Default)]
struct Seen {
    probes: HashMap<EndpointId, VecDeque<SeenProbe>>,
    /// Endpoints in the order of their first remembered probe.
    order: VecDeque<EndpointId>,
}

/// Holds a host while a probe, or a rehearsal, is under way to it.
pub(in crate::service) struct Turn<'a> {
    politeness: &'a Politeness,
    host: String,
}

/// A place in the queue of a host; it is free again when this is dropped.
pub(super) struct QueuePlace {
    queues: Queues,
    host: String,
    endpoint: EndpointId,
}

impl Politeness {
    /// A place in the queue of its host, unless none is left or the endpoint has one.
    pub(super) fn queue(&self, endpoint: &Endpoint) -> Option<QueuePlace> {
        let host = endpoint.url.as_ref()?.url().authority();
        self.queue_at(host, endpoint.id)
    }

    fn queue_at(&self, host: &str, endpoint: EndpointId) -> Option<QueuePlace> {
        let mut queues = locked(&self.queues);
        let queue = queues.entry(host.to_owned()).or_default();
        (queue.len() < QUEUED && queue.insert(endpoint)).then(|| QueuePlace {
            queues: Arc::clone(&self.queues),
            host: host.to_owned(),
            endpoint,
        })
    }

    /// The turn to probe an endpoint now, if its host has room.
    pub(super) fn take(&self, endpoint: &Endpoint, now: Timestamp) -> Result<Turn<'_>, NoRoom> {
        let url = endpoint.url.as_ref().ok_or(NoRoom::Busy)?;
        self.take_host(url.url().authority().to_owned(), now)
    }

    /// Takes `probes` out of the budget of what people may ask an endpoint; or says how long until there
    /// is room for so many.
    pub(in crate::service) fn allow(
        &self,
        endpoint: EndpointId,
        probes: u32,
        now: Timestamp,
    ) -> Result<Allowance<'_>, Millis> {
        self.budget.take(endpoint, probes, now)
    }

    /// Waits for the turn; none for an endpoint without a URL.
    pub(in crate::service) async fn wait(
        &self,
        endpoint: &Endpoint,
        clock: &dyn Clock,
    ) -> Option<Turn<'_>> {
        endpoint.url.as_ref()?;
        loop {
            if let Ok(turn) = self.take(endpoint, clock.now()) {
                return Some(turn);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The same for one in the queue, which is not there for ever.
    pub(super) async fn wait_queued(
        &self,
        endpoint: &Endpoint,
        clock: &dyn Clock,
    ) -> Option<Turn<'_>> {
        let turn = tokio::time::timeout(QUEUED_FOR, self.wait(endpoint, clock));
        turn.await.ok().flatten()
    }

    fn take_host(&self, host: String, now: Timestamp) -> Result<Turn<'_>, NoRoom> {
        let mut hosts = self.hosts();
        // Those that rest need no remembering.
        hosts.retain(|_, host| host.busy || now < host.since.after(SECOND));
        let fresh = Host {
            busy: false,
            since: now,
            probes: 0,
        };
        let known = hosts.entry(host.clone()).or_insert(fresh);
        if known.busy {
            return Err(NoRoom::Busy);
        }
        known
            .count(now)
            .map_err(|wait_millis| NoRoom::UsedUp { wait_millis })?;
        known.busy = true;
        Ok(Turn {
            politeness: self,
            host,
        })
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a probe, and forgets the oldest ones.
    pub(super) fn remember(
        &self,
        endpoint: EndpointId,
        purpose: ProbePurpose,
        keys: &[ProbeKey],
        probed: Probed,
    ) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.probes.contains_key(&endpoint) {
            if seen.order.len() >= limits::PROBED_ENDPOINTS_SHOWN
                && let Some(oldest) = seen.order.pop_front()
            {
                seen.probes.remove(&oldest);
            }
            seen.order.push_back(endpoint);
        }
        let shown = seen.probes.entry(endpoint).or_default();
        if shown.len() >= limits::PROBES_SHOWN {
            shown.pop_front();
        }
        let signed_with = keys.iter().map(|key| match key {
            ProbeKey::Secret(id) | ProbeKey::Former(id) => Some(*id),
            ProbeKey::Random => None,
        });
        shown.push_back(SeenProbe {
            purpose,
            signed_with: signed_with.collect(),
            answer: ProbeAnswer::of(probed.status),
            probed,
        });
    }

    /// The last probes of an endpoint, newest first.
    pub(super) fn seen(&self, endpoint: EndpointId) -> Vec<SeenProbe> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = seen.probes.get(&endpoint);
        shown.into_iter().flatten().rev().cloned().collect()
    }
}

impl Turn<'_> {
    /// Waits until the second has room for one more probe of this turn, and counts it.
    pub(super) async fn another(&self, clock: &dyn Clock) {
        let count = || {
            let mut hosts = self.politeness.hosts();
            let known = hosts.get_mut(&self.host);
            known.is_none_or(|host| host.count(clock.now()).is_ok())
        };
        while !count() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(host) = self.politeness.hosts().get_mut(&self.host) {
            host.busy = false;
        }
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let mut queues = locked(&self.queues);
        if let Some(queue) = queues.get_mut(&self.host) {
            queue.remove(&self.endpoint);
            if queue.is_empty() {
                queues.remove(&self.host);
            }
        }
    }
}

fn locked(queues: &Queues) -> MutexGuard<'_, HashMap<String, HashSet<EndpointId>>> {
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn a_host_gets_one_probe_at_a_time_and_so_many_a_second() {
        let politeness = Politeness::default();
        let take = |host: &str, now| politeness.take_host(host.to_owned(), now);
        let first = take("a", NOW);
        let told = |turn: Result<Turn<'_>, NoRoom>| turn.err();
        assert!(first.is_ok());
        assert_eq!(told(take("a", NOW)), Some(NoRoom::Busy), "one at a time");
        assert!(take("b", NOW).is_ok(), "another host is another matter");
        drop(first);
        let taken = (0..100).filter(|_| take("a", NOW).is_ok()).count();
        assert_eq!(taken, limits::PROBES_PER_HOST_SECOND as usize - 1);
        let soon = NoRoom::UsedUp { wait_millis: 400 };
        assert_eq!(told(take("a", NOW.after(600))), Some(soon));
        let later = NOW.after(SECOND);
        assert!(take("a", later).is_ok(), "the next second has its own");
        assert_eq!(politeness.hosts().len(), 1, "who rests is forgotten");
        assert!(take("a", NOW).is_ok(), "a clock that was set back");
    }

    #[test]
    fn a_few_endpoints_of_a_host_have_a_place_in_its_queue() {
        let politeness = Politeness::default();
        let id = |number: u128| EndpointId::from_bytes(number.to_be_bytes());
        let queue = |host: &str, number| politeness.queue_at(host, id(number));
        let mut places: Vec<QueuePlace> = (1..=40).filter_map(|one| queue("a", one)).collect();
        assert_eq!(places.len(), QUEUED);
        assert!(queue("a", 41).is_none(), "no place is left");
        let other = queue("b", 41);
        assert!(other.is_some(), "another host is another matter");
        assert!(queue("b", 41).is_none(), "it has its place");
        places.truncate(1);
        assert!(queue("a", 41).is_some(), "a place was given back");
        drop(other);
        assert_eq!(
            locked(&politeness.queues).len(),
            1,
            "who rests is forgotten"
        );
    }

    #[test]
    fn the_last_probes_are_remembered_newest_first() {
        let politeness = Politeness::default();
        let endpoint = |number: u128| EndpointId::from_bytes(number.to_be_bytes());
        let send = |number, at| {
            let probed = Probed {
                sent_at: Timestamp::from_millis(at),
                status: Some(401),
                failure: None,
            };
            let purpose = ProbePurpose::Rehearsal;
            politeness.remember(endpoint(number), purpose, &[ProbeKey::Random], probed);
        };
        (0..40).for_each(|at| send(1, at));
        let seen = politeness.seen(endpoint(1));
        assert_eq!(seen.len(), limits::PROBES_SHOWN);
        assert_eq!(seen[0].probed.sent_at, Timestamp::from_millis(39));
        assert_eq!(
            (seen[0].answer, &seen[0].signed_with),
            (ProbeAnswer::Refused, &vec![None])
        );
        (2..)
            .take(limits::PROBED_ENDPOINTS_SHOWN)
            .for_each(|number| send(number, 0));
        assert!(
            politeness.seen(endpoint(1)).is_empty(),
            "the oldest makes room"
        );
        assert_eq!(politeness.seen(endpoint(2)).len(), 1);
    }
}

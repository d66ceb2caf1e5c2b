//! Politeness: how many probes a receiver gets, and that its owner can look at them.
//!
//! Two bounds beside the policy's own budget for an endpoint: one probe at a time to a host whose endpoints answer
//! at once, a few to one where some hang, and at most [`limits::PROBES_PER_HOST_SECOND`] of them a second, however
//! many endpoints it serves. [`turns`] says who comes next. Probes that people ask for have the same bounds and wait
//! in the same order, and have a budget of their own for an endpoint ([`budget`]). A few wait for their turn in
//! tasks, so that one follows the other ([`Politeness::queue`]); whoever finds no place among them is looked at again
//! by a later sweep, and keeps its place in the order.
//!
//! The last probes of an endpoint are remembered in memory: what was asked, and what came back. They
//! are for people to look at; what follows from them is in the findings, which are stored. After a
//! restart the list begins anew.

mod budget;
mod turns;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{EndpointId, RotationId, SecretId};
use hookturn_core::limits;
use hookturn_core::proof::{ProbeAnswer, ProbeKey};
use hookturn_core::time::{Clock, Millis, Timestamp};
use tokio::time::Instant;

use crate::courier::Probed;
pub(in crate::service) use budget::Allowance;
use budget::Budget;
pub(in crate::service) use turns::NoRoom;
use turns::{Host, Hosts};

/// How soon whoever waits for a turn looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
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

/// Who is probed, who waits for that, and the last probes of each endpoint.
#[derive(Debug, Default)]
pub(in crate::service) struct Politeness {
    hosts: Shared,
    budget: Budget,
    seen: Mutex<Seen>,
}

type Shared = Arc<Mutex<Hosts>>;

#[derive(Debug, Default)]
struct Seen {
    probes: HashMap<EndpointId, VecDeque<SeenProbe>>,
    /// Endpoints in the order of their first remembered probe.
    order: VecDeque<EndpointId>,
}

/// Held while a probe, or a rehearsal, is under way to a host.
pub(in crate::service) struct Turn {
    hosts: Shared,
    host: String,
    number: u64,
}

/// A sweep's place in the queue of a host; it is free again when this is dropped.
pub(super) struct QueuePlace {
    hosts: Shared,
    host: String,
    endpoint: EndpointId,
    number: u64,
}

/// A command that waits; it waits no more when this is dropped.
struct Waiting {
    hosts: Shared,
    host: String,
    number: u64,
}

impl Politeness {
    /// A place in the queue of its host, unless others come first or the endpoint has one.
    pub(super) fn queue(&self, endpoint: &Endpoint, clock: &dyn Clock) -> Option<QueuePlace> {
        let host = host_of(endpoint)?;
        let now = Instant::now();
        let number = locked(&self.hosts)
            .at(&host, now, clock.now())
            .want(endpoint.id, now)?;
        Some(QueuePlace {
            hosts: Arc::clone(&self.hosts),
            host,
            endpoint: endpoint.id,
            number,
        })
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
    ) -> Option<Turn> {
        let waiting = self.come(endpoint, clock)?;
        loop {
            if let Ok(turn) = take(&waiting.hosts, &waiting.host, waiting.number, clock) {
                return Some(turn);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The same for so long at most. Does not wait for the next second.
    pub(super) async fn wait_at_most(
        &self,
        endpoint: &Endpoint,
        patience: Duration,
        clock: &dyn Clock,
    ) -> Result<Turn, NoRoom> {
        let nowhere = NoRoom::Busy {
            to_itself: false,
            to_others: 0,
        };
        let waiting = self.come(endpoint, clock).ok_or(nowhere)?;
        let until = Instant::now() + patience;
        loop {
            match take(&waiting.hosts, &waiting.host, waiting.number, clock) {
                Err(NoRoom::Busy { .. }) if Instant::now() < until => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                turn => return turn,
            }
        }
    }

    fn come(&self, endpoint: &Endpoint, clock: &dyn Clock) -> Option<Waiting> {
        let host = host_of(endpoint)?;
        let now = Instant::now();
        let number = locked(&self.hosts)
            .at(&host, now, clock.now())
            .come(endpoint.id, now);
        Some(Waiting {
            hosts: Arc::clone(&self.hosts),
            host,
            number,
        })
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

impl QueuePlace {
    /// Waits for the turn, though not for ever: whoever finds none is looked at again by a later sweep.
    pub(super) async fn wait(&self, clock: &dyn Clock) -> Option<Turn> {
        let turn = async {
            loop {
                if let Ok(turn) = take(&self.hosts, &self.host, self.number, clock) {
                    return turn;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(QUEUED_FOR, turn).await.ok()
    }
}

impl Turn {
    /// Waits until the second has room for one more probe of this turn, and counts it.
    pub(super) async fn another(&self, clock: &dyn Clock) {
        let at = |look: &mut dyn FnMut(&mut Host) -> bool| {
            let mut hosts = locked(&self.hosts);
            hosts.known(&self.host).is_none_or(look)
        };
        at(&mut |host| {
            host.answered(self.number, Instant::now());
            true
        });
        while !at(&mut |host| host.count(clock.now()).is_ok()) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        at(&mut |host| {
            host.asks(self.number, Instant::now());
            true
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(host) = locked(&self.hosts).known(&self.host) {
            host.end(self.number, Instant::now());
        }
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        if let Some(host) = locked(&self.hosts).known(&self.host) {
            host.release(self.endpoint, self.number, Instant::now());
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(host) = locked(&self.hosts).known(&self.host) {
            host.go(self.number);
        }
    }
}

fn take(hosts: &Shared, host: &str, number: u64, clock: &dyn Clock) -> Result<Turn, NoRoom> {
    let (now, time) = (Instant::now(), clock.now());
    let taken = locked(hosts).at(host, now, time).take(number, now, time)?;
    Ok(Turn {
        hosts: Arc::clone(hosts),
        host: host.to_owned(),
        number: taken,
    })
}

fn host_of(endpoint: &Endpoint) -> Option<String> {
    let url = endpoint.url.as_ref()?;
    Some(url.url().authority().to_owned())
}

fn locked(hosts: &Shared) -> MutexGuard<'_, Hosts> {
    hosts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

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

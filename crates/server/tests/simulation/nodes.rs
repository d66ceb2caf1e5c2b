//! What the judge knows of several nodes: who lives, what each may not know yet, and who may send what.

use std::collections::BTreeMap;

use hookturn::store::sharing::lease::GRACE;
use hookturn::store::sharing::skew::BOUND;
use hookturn_core::time::{Millis, SECOND, Timestamp};
use tokio::time::Instant;
use uuid::Uuid;

use crate::base::millis_since;
use crate::judge::{Judge, Sender};
use crate::ledger::Broken;

/// How long after the end of a lease a node is taken over at the latest.
const TAKE_OVER: Millis = 2 * SECOND;
/// How long a node that nothing else is wrong with has to find out how wrong its clock is, and to say so. A connection that it
/// opened while something was may hang for three seconds.
const MEASURED: Millis = 5 * SECOND;

/// A node as it really is.
#[derive(Debug, Clone, Copy)]
struct Fact {
    name: usize,
    lease: Millis,
    /// It does not send any more: crashed, left, or taken over.
    over: bool,
    /// Since when nothing disturbed it or the database.
    well: Option<Instant>,
    /// When something was last done to it alone.
    troubled: Option<Instant>,
}

/// Everything about nodes.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    facts: BTreeMap<Uuid, Fact>,
    /// Who commits at the moment, and which version of the view.
    commits: Option<(Uuid, Option<i64>)>,
    /// When each version was committed.
    versions: BTreeMap<i64, Instant>,
    /// Up to which one a fence was closed.
    fenced: i64,
}

impl Nodes {
    pub(crate) fn started(&mut self, node: Uuid, lease: Millis) -> usize {
        let name = self.facts.len();
        let fact = Fact {
            name,
            lease,
            over: false,
            well: None,
            troubled: Some(Instant::now()),
        };
        self.facts.insert(node, fact);
        name
    }

    pub(crate) fn name(&self, node: Uuid) -> String {
        let fact = self.facts.get(&node);
        fact.map_or(String::new(), |fact| format!("node {}", fact.name))
    }

    pub(crate) fn is_over(&mut self, node: Uuid) {
        if let Some(fact) = self.facts.get_mut(&node) {
            fact.over = true;
            fact.well = None;
        }
    }

    /// Whether something disturbs a node, or the database, now.
    pub(crate) fn set_well(&mut self, node: Uuid, well: bool) {
        if let Some(fact) = self.facts.get_mut(&node) {
            fact.well = match (well && !fact.over, fact.well) {
                (true, None) => Some(Instant::now()),
                (true, since) => since,
                (false, _) => None,
            };
        }
    }

    /// Something is done to one node alone.
    pub(crate) fn trouble(&mut self, node: Uuid) {
        if let Some(fact) = self.facts.get_mut(&node) {
            fact.well = None;
            fact.troubled = Some(Instant::now());
        }
    }

    pub(crate) fn committing(&self) -> Option<Uuid> {
        self.commits.map(|(node, _)| node)
    }

    pub(crate) fn version(&self) -> i64 {
        self.commits.and_then(|(_, version)| version).unwrap_or(0)
    }

    /// How far the clocks of nodes may be apart, in milliseconds; nothing where there is one.
    pub(crate) fn fair(&self) -> Millis {
        if self.facts.is_empty() { 0 } else { SECOND / 3 }
    }

    /// Whether a node may sign by what was before a version: no fence was closed over it, and no node's last round
    /// trip before it was longer ago than what it shows may be believed.
    pub(crate) fn may_be_unknown(&self, version: i64) -> bool {
        let committed = self.versions.get(&version);
        version > self.fenced && committed.is_some_and(|at| at.elapsed() <= GRACE)
    }

    /// Who sends must own the endpoint, and nobody else may have sent the same and not recorded it.
    pub(crate) fn judge_sender(
        &self,
        sender: &Sender,
        number: u32,
        under_way: Option<Uuid>,
    ) -> Result<(), Broken> {
        let name = self.name(sender.node);
        if !sender.owns {
            let what = format!("message {number} was sent by {name}, which does not own it");
            return Err(("G2", what));
        }
        let other = under_way.filter(|other| *other != sender.node);
        if let Some(other) = other.filter(|other| !self.facts[other].over) {
            let other = self.name(other);
            let what =
                format!("message {number} was sent by {name} while it was under way at {other}");
            return Err(("G2", what));
        }
        Ok(())
    }

    /// Whether a node whose lease ended then should have been taken over long ago.
    fn is_late(&self, dead: Uuid, lease_until: Timestamp, now: Timestamp) -> bool {
        let late = now.since(lease_until);
        let Some(fact) = self.facts.get(&dead) else {
            return false;
        };
        let watched = |other: &Fact| {
            let since = other.well.map_or(0, millis_since);
            other.name != fact.name && since > fact.lease + late
        };
        late > TAKE_OVER && self.facts.values().any(watched)
    }
}

impl Judge {
    /// A transaction is committed: by whom, and which version of the view it makes. Nothing when that is over.
    pub(crate) fn commits(&mut self, commits: Option<(Uuid, Option<i64>)>) {
        self.nodes.commits = commits;
        if let Some(version) = commits.and_then(|(_, version)| version) {
            self.nodes.versions.insert(version, Instant::now());
        }
    }

    /// A call was answered that waited for the fence of this version, or might have been.
    pub(crate) fn fence_closed(&mut self, version: i64) {
        self.counts.fences += 1;
        self.nodes.fenced = self.nodes.fenced.max(version);
    }

    /// A node was taken over: not a moment too early, and not too late.
    pub(crate) fn taken_over(
        &mut self,
        dead: Uuid,
        (lease_until, process_ended): (Timestamp, bool),
        now: Timestamp,
    ) {
        let name = self.nodes.name(dead);
        self.note(format_args!("{now} {name} is taken over"));
        self.counts.take_overs += 1;
        if let Some(fact) = self.nodes.facts.get(&dead).copied()
            && !fact.over
        {
            let calm = fact
                .troubled
                .is_none_or(|at| millis_since(at) > 2 * fact.lease);
            if calm {
                let what = format!("{name} was taken over, and nothing was wrong with it");
                self.find(Err(("G2", what)));
            }
        }
        if !process_ended {
            self.watch_lease(dead, lease_until, now);
        }
        self.nodes.is_over(dead);
    }

    /// A node whose clock is off by more than the bound says that it may own nothing (G4), and one whose clock is not
    /// may (G1), once it had the time to measure it.
    pub(crate) fn watch_clock(&mut self, node: Uuid, wrong_millis: i64, able: bool) {
        let known = self.nodes.facts.get(&node);
        let well = known.and_then(|fact| fact.well).map_or(0, millis_since);
        if well <= MEASURED || able != (wrong_millis.abs() > BOUND) {
            return;
        }
        let guarantee = if able { "G4" } else { "G1" };
        let (name, says) = (self.nodes.name(node), if able { "" } else { "not " });
        let what =
            format!("the clock of {name} is wrong by {wrong_millis} ms, and it is {says}able");
        self.find(Err((guarantee, what)));
    }

    /// A node whose lease is out is taken over in time.
    pub(crate) fn watch_lease(&mut self, node: Uuid, lease_until: Timestamp, now: Timestamp) {
        if self.nodes.is_late(node, lease_until, now) {
            let name = self.nodes.name(node);
            let what = format!("{name} lived until {lease_until}, and nobody took over by {now}");
            self.find(Err(("G1", what)));
        }
    }
}

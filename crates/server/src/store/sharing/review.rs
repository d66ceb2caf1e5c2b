//! What a node gives up and takes, from the list of nodes and of owners.
//!
//! Shards are shared by the nodes that show themselves. One that has not for [`ABSENT`] keeps what it has until it is
//! taken over, and is dealt nothing more: what a dead node left would wait for it as long again. Only free shards
//! depend on that, so it does no harm when a node that is merely slow is taken for absent.

use std::time::Duration;

use hookturn_core::shard::{Plan, Shard, plan};
use hookturn_core::time::Millis;
use uuid::Uuid;

use super::lease::HEARTBEAT;
use crate::store::owned::Owned;

/// After how long of silence a node is dealt no shards.
pub const ABSENT: Duration = HEARTBEAT.saturating_mul(2);

/// A node that may own shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub id: Uuid,
    /// How long ago it renewed its lease, by the database's clock.
    pub silent: Millis,
}

/// The nodes and the owners, as one look shows them.
#[derive(Debug)]
pub struct Seen {
    members: Vec<Member>,
    owners: Vec<Option<Uuid>>,
}

/// What a review comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Shards that are ours already and were not known to be: the answer to taking them was lost.
    pub adopt: Vec<Shard>,
    /// Free shards to take.
    pub claim: Vec<Shard>,
    /// Shards of which nothing is under way any more.
    pub free: Vec<Shard>,
}

impl Steps {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Seen {
    /// A look. `members` are the nodes that may own shards, in the order in which they joined; `owners` stand in the
    /// order of their shards.
    pub const fn new(members: Vec<Member>, owners: Vec<Option<Uuid>>) -> Self {
        Self { members, owners }
    }

    /// Who owns a shard.
    pub fn owner(&self, shard: Shard) -> Option<Uuid> {
        self.owners
            .get(usize::from(shard.number()))
            .copied()
            .flatten()
    }

    /// How many nodes share the database.
    pub fn nodes(&self) -> usize {
        self.members.len()
    }

    /// What this node has to do. Gives up what it has too much of.
    pub fn steps(&self, me: Uuid, owned: &Owned) -> Steps {
        let owners = Shard::all().map(|shard| (shard, self.owner(shard)));
        let absent = Millis::try_from(ABSENT.as_millis()).unwrap_or(Millis::MAX);
        let there = |member: &&Member| member.id == me || member.silent < absent;
        let members = self.members.iter().filter(there).map(|member| member.id);
        let members: Vec<Uuid> = members.collect();
        let Plan { release, claim } = plan(me, &members, owners);
        let mut steps = Steps {
            claim,
            ..Steps::default()
        };
        for shard in Shard::all().filter(|shard| self.owner(*shard) == Some(me)) {
            if release.contains(&shard) {
                if owned.give_up(shard) {
                    steps.free.push(shard);
                }
            } else if !owned.has(shard) {
                steps.adopt.push(shard);
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hookturn_core::id::EndpointId;
    use hookturn_core::shard::SHARDS;

    use super::*;

    const ME: Uuid = Uuid::from_bytes([1; 16]);
    const OTHER: Uuid = Uuid::from_bytes([2; 16]);

    fn seen(members: &[Uuid], owners: impl Fn(u16) -> Option<Uuid>) -> Seen {
        let members = members.iter().map(|id| Member { id: *id, silent: 0 });
        Seen::new(members.collect(), (0..SHARDS).map(owners).collect())
    }

    #[test]
    fn a_shard_is_freed_when_nothing_is_under_way_for_it() {
        let owned = Arc::new(Owned::none());
        for shard in Shard::all() {
            owned.take(shard);
        }
        let busy = EndpointId::from_bytes([7; 16]);
        let flight = owned.begin(busy).unwrap();
        // This node is not able any more.
        let seen = seen(&[OTHER], |_| Some(ME));
        let steps = seen.steps(ME, &owned);
        assert_eq!(steps.free.len(), usize::from(SHARDS) - 1);
        assert!(!steps.free.contains(&Shard::of(busy)));
        assert!(!owned.owns(busy), "nothing more begins");
        drop(flight);
        assert!(seen.steps(ME, &owned).free.contains(&Shard::of(busy)));
    }

    #[test]
    fn a_shard_that_the_database_says_is_ours_is_ours() {
        let owned = Arc::new(Owned::none());
        let seen = seen(&[ME, OTHER], |n| Some(if n % 2 == 0 { ME } else { OTHER }));
        let steps = seen.steps(ME, &owned);
        assert_eq!(steps.adopt.len(), usize::from(SHARDS) / 2);
        assert!(steps.claim.is_empty() && steps.free.is_empty());
        for shard in &steps.adopt {
            owned.take(*shard);
        }
        assert!(seen.steps(ME, &owned).is_empty());
    }

    #[test]
    fn what_is_free_is_not_kept_for_a_node_that_is_silent() {
        let owned = Owned::none();
        let look = |silent, owner: Option<Uuid>| {
            let members = [(ME, 5_000), (OTHER, silent)];
            let members = members.map(|(id, silent)| Member { id, silent });
            // A third of all was a dead node's.
            let owners = |n: u16| match n % 3 {
                0 => Some(ME),
                1 => Some(OTHER),
                _ => owner,
            };
            Seen::new(members.to_vec(), (0..SHARDS).map(owners).collect())
        };
        for shard in Shard::all().filter(|shard| shard.number() % 3 == 0) {
            owned.take(shard);
        }
        let half = usize::from(SHARDS) / 2 - owned.count();
        assert_eq!(look(999, None).steps(ME, &owned).claim.len(), half);
        let all = look(1_000, None).steps(ME, &owned);
        assert_eq!(all.claim.len(), usize::from(SHARDS) / 3);
        assert!(all.free.is_empty(), "what it has is not touched");
        // It is back: everything is shared again.
        for shard in all.claim {
            owned.take(shard);
        }
        let held = owned.count();
        let back = look(0, Some(ME)).steps(ME, &owned);
        assert_eq!(back.free.len(), held - usize::from(SHARDS) / 2);
    }
}

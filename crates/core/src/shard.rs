//! Shards: which of several nodes on one database sends to which endpoint. Pure.
//!
//! An endpoint belongs to one of [`SHARDS`] shards by its id, for ever. A shard has at most one owner, and only
//! its owner sends what is due for its endpoints. Each node decides for itself, from the same list of nodes and
//! owners, what it has too much of and what it may take ([`plan`]): nobody directs. Two that decide at the same
//! moment from different lists are kept apart by the database, which gives a free shard to one of them.
//!
//! The owner of the [first](Shard::FIRST) shard also does what one node does for all: schedules, retention,
//! operational events, the steps of rotations.

use std::collections::HashMap;
use std::hash::Hash;

use crate::id::EndpointId;
use crate::time::Millis;

/// How many shards there are: enough that a few dozen nodes share them evenly, few enough that the list of all
/// is read in one look. It never changes, because it says which shard an endpoint is in.
pub const SHARDS: u16 = 256;

/// One of the [`SHARDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl Shard {
    /// Its owner does what one node does for all.
    pub const FIRST: Self = Self(0);

    /// The shard of an endpoint: what is left of its [place](Self::place_of) by the number of shards.
    pub fn of(endpoint: EndpointId) -> Self {
        let left = Self::place_of(endpoint) % u64::from(SHARDS);
        // What is below `SHARDS` fits.
        Self(u16::try_from(left).unwrap_or_default())
    }

    /// The place of an endpoint, however many shards there are: FNV-1a over its id, folded.
    pub fn place_of(endpoint: EndpointId) -> u64 {
        let hash = endpoint
            .to_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        hash ^ (hash >> 32)
    }

    /// The shard of a number, if there is one.
    pub fn new(number: u16) -> Option<Self> {
        (number < SHARDS).then_some(Self(number))
    }

    /// Its number, below [`SHARDS`].
    pub const fn number(self) -> u16 {
        self.0
    }

    /// All of them, in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..SHARDS).map(Self)
    }
}

/// What a node is to do about its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<S = Shard> {
    /// Shards to give up, each when what is under way for it has ended.
    pub release: Vec<S>,
    /// Free shards to take.
    pub claim: Vec<S>,
}

impl<S> Default for Plan<S> {
    /// Nothing.
    fn default() -> Self {
        Self {
            release: Vec::new(),
            claim: Vec::new(),
        }
    }
}

/// Decides what `me` gives up and takes. `members` are the nodes that may own shards, in the order in which
/// they joined; `owners` are all shards, in order, and who has them.
///
/// 1. Who may not own any gives up all it has.
/// 2. Each member is due as many shards as every other; those that do not divide go to the members that joined
///    first. So whoever joins last makes nobody's share grow, and no more moves than has to.
/// 3. Who has more gives up the surplus, the last shards first.
/// 4. Who has fewer takes free ones until it has its share. It never takes what somebody has.
/// 5. The free ones are dealt out to those who have fewer, in the order in which they joined. So of members that
///    decide from the same list no two take the same one, and what a node left is taken in one round by all of
///    them, not shard by shard by whoever is first.
pub fn plan<N: Copy + Eq + Hash, S>(
    me: N,
    members: &[N],
    owners: impl IntoIterator<Item = (S, Option<N>)>,
) -> Plan<S> {
    let mut held: HashMap<N, usize> = members.iter().map(|member| (*member, 0)).collect();
    let (mut mine, mut free, mut all) = (Vec::new(), Vec::new(), 0);
    for (shard, owner) in owners {
        all += 1;
        let Some(owner) = owner else {
            free.push(shard);
            continue;
        };
        if let Some(held) = held.get_mut(&owner) {
            *held += 1;
        }
        if owner == me {
            mine.push(shard);
        }
    }
    let share = |rank: usize| all / members.len() + usize::from(rank < all % members.len());
    let Some(rank) = members.iter().position(|member| *member == me) else {
        return Plan {
            release: mine,
            claim: Vec::new(),
        };
    };
    if mine.len() >= share(rank) {
        return Plan {
            release: mine.split_off(share(rank)),
            claim: Vec::new(),
        };
    }
    let lacks = |(rank, member): (usize, &N)| share(rank).saturating_sub(held[member]);
    let before: usize = members.iter().enumerate().take(rank).map(lacks).sum();
    let wanted = share(rank) - mine.len();
    Plan {
        release: Vec::new(),
        claim: free.into_iter().skip(before).take(wanted).collect(),
    }
}

/// What one node knows of another that has not left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// Whether the lease of the other is out, by the database's clock.
    pub lease_is_out: bool,
    /// For how long the watcher, by its own clock, has seen it write nothing.
    pub silent: Millis,
    /// How long its lease is.
    pub lease: Millis,
    /// Whether its process is known to have ended: it ran on the watcher's own machine.
    pub process_ended: bool,
}

/// Whether what a node has may be taken over.
///
/// 1. A process that has ended will never write again.
/// 2. Otherwise its lease must be out by the database's clock, **and** the watcher must itself have seen
///    nothing of it for as long. A database that was away for longer than a lease, or whose clock was set, makes
///    every lease run out at once; nobody is silent then in the eyes of those who are back first.
pub const fn may_be_taken_over(node: &Watched) -> bool {
    node.process_ended || (node.lease_is_out && node.silent >= node.lease)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every shard and its owner.
    fn list(owners: &[Option<u32>]) -> Vec<(Shard, Option<u32>)> {
        Shard::all().zip(owners.iter().copied()).collect()
    }

    /// Lets every member act on what it sees, one after the other, until nobody has anything to do. Returns how
    /// many shards changed hands.
    fn settle(owners: &mut [Option<u32>], members: &[u32]) -> usize {
        let mut moved = 0;
        for _ in 0..10 {
            let mut quiet = true;
            for me in members {
                let plan = plan(*me, members, list(owners));
                quiet &= plan == Plan::default();
                for shard in plan.release {
                    owners[usize::from(shard.number())] = None;
                }
                for shard in plan.claim {
                    owners[usize::from(shard.number())] = Some(*me);
                    moved += 1;
                }
            }
            if quiet {
                return moved;
            }
        }
        panic!("it never settles: {owners:?}");
    }

    fn counts(owners: &[Option<u32>], members: &[u32]) -> Vec<usize> {
        let of = |me: &u32| owners.iter().filter(|owner| **owner == Some(*me)).count();
        members.iter().map(of).collect()
    }

    #[test]
    fn the_shard_of_an_endpoint_never_changes_and_shards_are_about_even() {
        let id = |n: u128| EndpointId::from_bytes(n.to_be_bytes());
        assert_eq!(Shard::of(id(0)).number(), Shard::of(id(0)).number());
        let known = [0_u128, 1, 0x0197_0000_0000_7000_8000_0000_0000_0001]
            .map(|n| Shard::of(id(n)).number());
        assert_eq!(known, KNOWN);
        let mut held = vec![0_u32; usize::from(SHARDS)];
        for n in 0..256_000_u128 {
            held[usize::from(Shard::of(id(n << 20 | 7)).number())] += 1;
        }
        assert!(
            held.iter().all(|count| (500..2_000).contains(count)),
            "{held:?}"
        );
    }

    /// Endpoints that exist are where these say.
    const KNOWN: [u16; 3] = [220, 11, 61];

    #[test]
    fn the_first_node_takes_everything_and_nobody_else_is_asked() {
        let mut owners = vec![None; usize::from(SHARDS)];
        assert_eq!(settle(&mut owners, &[1]), usize::from(SHARDS));
        assert_eq!(counts(&owners, &[1]), [usize::from(SHARDS)]);
    }

    #[test]
    fn a_node_that_joins_gets_its_share_and_nothing_else_moves() {
        let mut owners = vec![None; usize::from(SHARDS)];
        settle(&mut owners, &[1]);
        let members: Vec<u32> = (1..=5).collect();
        for size in 2..=5 {
            let moved = settle(&mut owners, &members[..size]);
            let counts = counts(&owners, &members[..size]);
            assert_eq!(moved, *counts.last().unwrap(), "{counts:?}");
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
        // What one node does for all stays where it is.
        assert_eq!(owners[0], Some(1));
    }

    #[test]
    fn what_a_node_leaves_is_shared_by_the_others() {
        let mut owners = vec![None; usize::from(SHARDS)];
        settle(&mut owners, &[1, 2, 3]);
        for owner in &mut owners {
            *owner = owner.filter(|owner| *owner != 1);
        }
        settle(&mut owners, &[2, 3]);
        assert_eq!(counts(&owners, &[2, 3]), [128, 128]);
        assert!(owners[0].is_some());
    }

    #[test]
    fn who_may_not_own_shards_gives_up_all_of_them() {
        let plan = plan(1, &[2, 3], list(&[Some(1); SHARDS as usize]));
        assert_eq!(plan.release.len(), usize::from(SHARDS));
        assert!(plan.claim.is_empty());
    }

    #[test]
    fn nobody_takes_what_somebody_has() {
        let owners: Vec<_> = (0..SHARDS)
            .map(|shard| (shard % 3 > 0).then_some(1))
            .collect();
        let plan = plan(2, &[1, 2], list(&owners));
        assert!(!plan.claim.is_empty());
        assert!(plan.claim.iter().all(|shard| shard.number() % 3 == 0));
        assert!(plan.release.is_empty());
    }

    #[test]
    fn members_that_decide_from_the_same_list_take_every_free_shard_once() {
        // The second has all it may have, and what nobody of them has is another's.
        let owners: Vec<_> = (0..SHARDS)
            .map(|shard| match shard {
                0..64 => Some(2),
                64..70 => Some(9),
                _ => None,
            })
            .collect();
        let members = [1, 2, 3, 4];
        let mut taken: Vec<u16> = Vec::new();
        for me in members {
            let plan = plan(me, &members, list(&owners));
            assert!(plan.release.is_empty());
            taken.extend(plan.claim.iter().map(|shard| shard.number()));
        }
        taken.sort_unstable();
        assert_eq!(taken, (70..SHARDS).collect::<Vec<_>>());
    }

    #[test]
    fn a_node_is_taken_over_when_it_ended_or_was_silent_for_its_lease_in_both_clocks() {
        let node = Watched {
            lease_is_out: true,
            silent: 10_000,
            lease: 10_000,
            process_ended: false,
        };
        assert!(may_be_taken_over(&node));
        // The database was away, or its clock was set.
        assert!(!may_be_taken_over(&Watched {
            silent: 9_999,
            ..node
        }));
        // It renewed in between.
        assert!(!may_be_taken_over(&Watched {
            lease_is_out: false,
            ..node
        }));
        let ended = Watched {
            lease_is_out: false,
            silent: 0,
            process_ended: true,
            ..node
        };
        assert!(may_be_taken_over(&ended));
    }
}

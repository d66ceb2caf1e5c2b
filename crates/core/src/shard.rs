//! Shards: which of several nodes on one database sends to which endpoint. Pure.
//!
//! An endpoint belongs to one of [`SHARDS`] shards by its id, for ever. A shard has at most one owner, and only
//! its owner sends what is due for its endpoints. Each node decides for itself, from the same list of nodes and
//! owners, what it has too much of and what it may take ([`plan`]): nobody directs. Two that decide at the same
//! moment from different lists are kept apart by the database, which gives a free shard to one of them.
//!
//! The owner of the [first](Shard::FIRST) shard also does what one node does for all: schedules, retention,
//! operational events, the steps of rotations.

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

    /// The shard of an endpoint: FNV-1a over its id, folded.
    pub fn of(endpoint: EndpointId) -> Self {
        let hash = endpoint
            .to_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let folded = hash ^ (hash >> 32);
        // What is below `SHARDS` fits.
        Self(u16::try_from(folded % u64::from(SHARDS)).unwrap_or_default())
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Shards to give up, each when what is under way for it has ended.
    pub release: Vec<Shard>,
    /// Free shards to take.
    pub claim: Vec<Shard>,
}

/// Decides what `me` gives up and takes. `members` are the nodes that may own shards, in the order in which
/// they joined; `owner` says who owns a shard.
///
/// 1. Who may not own any gives up all it has.
/// 2. Each member is due as many shards as every other; those that do not divide go to the members that joined
///    first. So whoever joins last makes nobody's share grow, and no more moves than has to.
/// 3. Who has more gives up the surplus, the last shards first.
/// 4. Who has fewer takes free ones until it has its share. It never takes what somebody has.
pub fn plan<N: Copy + Eq>(me: N, members: &[N], owner: impl Fn(Shard) -> Option<N>) -> Plan {
    let mine: Vec<Shard> = Shard::all()
        .filter(|shard| owner(*shard) == Some(me))
        .collect();
    let share = share(me, members);
    if mine.len() >= share {
        return Plan {
            release: mine[share..].to_vec(),
            claim: Vec::new(),
        };
    }
    let free = Shard::all().filter(|shard| owner(*shard).is_none());
    Plan {
        release: Vec::new(),
        claim: free.take(share - mine.len()).collect(),
    }
}

fn share<N: Copy + Eq>(me: N, members: &[N]) -> usize {
    let Some(rank) = members.iter().position(|member| *member == me) else {
        return 0;
    };
    let (all, nodes) = (usize::from(SHARDS), members.len());
    all / nodes + usize::from(rank < all % nodes)
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

    /// Lets every member act on what it sees, one after the other, until nobody has anything to do. Returns how
    /// many shards changed hands.
    fn settle(owners: &mut [Option<u32>], members: &[u32]) -> usize {
        let mut moved = 0;
        for _ in 0..10 {
            let mut quiet = true;
            for me in members {
                let plan = plan(*me, members, |shard| owners[usize::from(shard.number())]);
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
        let plan = plan(1, &[2, 3], |_| Some(1));
        assert_eq!(plan.release.len(), usize::from(SHARDS));
        assert!(plan.claim.is_empty());
    }

    #[test]
    fn nobody_takes_what_somebody_has() {
        let plan = plan(2, &[1, 2], |shard| (shard.number() % 3 > 0).then_some(1));
        assert!(plan.claim.iter().all(|shard| shard.number() % 3 == 0));
        assert!(plan.release.is_empty());
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

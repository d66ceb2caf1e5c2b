//! The nodes and who owns what.

use hookturn_core::shard::{Plan, plan};

use crate::traffic::Random;

/// More than it ever takes.
const ROUNDS_MAX: usize = 2_000;

/// What it took until nobody had anything left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Rounds in which somebody did something. The server's nodes look twice a second, and when another says that
    /// it freed shards.
    pub(crate) rounds: usize,
    /// How many times a shard was taken.
    pub(crate) moved: usize,
}

/// Nodes in the order in which they joined, and the owner of each shard.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    owners: Vec<Option<usize>>,
    members: Vec<usize>,
    next: usize,
    random: Random,
}

impl Map {
    /// Nodes that started at once, of which none owns anything yet.
    pub(crate) fn new(shards: usize, nodes: usize, seed: u64) -> Self {
        Self {
            owners: vec![None; shards],
            members: (0..nodes).collect(),
            next: nodes,
            random: Random::new(seed),
        }
    }

    /// Lets all nodes look at the same moment and act in any order, until nobody has anything to do.
    pub(crate) fn settle(&mut self) -> Settled {
        let mut moved = 0;
        for rounds in 0..ROUNDS_MAX {
            let mut plans: Vec<(usize, Plan<usize>)> = Vec::new();
            for me in &self.members {
                let owners = self.owners.iter().copied().enumerate();
                let plan = plan(*me, &self.members, owners);
                if plan != Plan::default() {
                    plans.push((*me, plan));
                }
            }
            if plans.is_empty() {
                return Settled { rounds, moved };
            }
            self.random.shuffle(&mut plans);
            for (me, plan) in plans {
                moved += self.act(me, plan);
            }
        }
        panic!("it never settles: {:?}", self.held());
    }

    /// As the database does it: a free shard is given to whoever asks first.
    fn act(&mut self, me: usize, plan: Plan<usize>) -> usize {
        for shard in plan.release {
            self.owners[shard] = None;
        }
        let mut taken = 0;
        for shard in plan.claim {
            if self.owners[shard].is_none() {
                self.owners[shard] = Some(me);
                taken += 1;
            }
        }
        taken
    }

    /// One more node.
    pub(crate) fn join(&mut self) -> Settled {
        let rank = self.members.len();
        self.next += 1;
        self.come_back(self.next, rank)
    }

    /// A node at a place in the order.
    pub(crate) fn come_back(&mut self, node: usize, rank: usize) -> Settled {
        self.members.insert(rank, node);
        self.settle()
    }

    /// The node at this place leaves, or is taken over.
    pub(crate) fn leave(&mut self, rank: usize) -> Settled {
        let node = self.members.remove(rank);
        self.free(&[node]);
        self.settle()
    }

    /// So many of those that joined first leave at once.
    pub(crate) fn leave_first(&mut self, count: usize) -> Settled {
        let gone: Vec<usize> = self.members.drain(..count).collect();
        self.free(&gone);
        self.settle()
    }

    fn free(&mut self, gone: &[usize]) {
        for owner in &mut self.owners {
            *owner = owner.filter(|owner| !gone.contains(owner));
        }
    }

    /// The node at a place in the order.
    pub(crate) fn member(&self, rank: usize) -> usize {
        self.members[rank]
    }

    /// The place of a shard's owner in the order.
    pub(crate) fn rank_of(&self, shard: usize) -> usize {
        let owner = self.owners[shard].unwrap();
        self.members.iter().position(|node| *node == owner).unwrap()
    }

    pub(crate) fn owners(&self) -> Vec<Option<usize>> {
        self.owners.clone()
    }

    /// How many shards have another owner than they had.
    pub(crate) fn changed_since(&self, before: &[Option<usize>]) -> usize {
        let pairs = self.owners.iter().zip(before);
        pairs.filter(|(now, before)| now != before).count()
    }

    /// How many shards each node has, in the order of the nodes.
    pub(crate) fn held(&self) -> Vec<usize> {
        let of = |node: &usize| {
            let owned = self.owners.iter().filter(|owner| **owner == Some(*node));
            owned.count()
        };
        self.members.iter().map(of).collect()
    }

    /// By how much the most and the least differ.
    pub(crate) fn imbalance(&self) -> usize {
        let held = self.held();
        held.iter().max().unwrap() - held.iter().min().unwrap()
    }
}

//! The shard map with many nodes: how much moves when one joins or leaves, how long it takes, and how evenly
//! traffic falls.
//!
//! What decides is [`hookturn_core::shard::plan`] itself, called for every node; the database is a list of owners
//! that gives a free shard to whoever asks first. All nodes of a round look at the same moment and act in an order
//! that a seed draws, which is the hardest there is: a notification wakes them together.
//!
//! `cargo xtask shards` prints the table of `docs/scaling.md`; the tests hold that page to it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod map;
mod table;
mod traffic;

use map::{Map, Settled};
use table::Row;

/// The shards that there are, and how many there could be.
const SHARDS: [usize; 3] = [256, 4_096, 16_384];
const NODES: [usize; 6] = [2, 3, 10, 100, 256, 1_000];
const SEED: u64 = 7;

/// What `cargo xtask shards` prints.
#[test]
#[ignore = "cargo xtask shards: it takes seconds with optimisation, and minutes without"]
fn as_asked() {
    println!("{}", table::HEAD);
    for shards in SHARDS {
        for nodes in NODES {
            println!("{}", Row::of(shards, nodes, SEED));
        }
    }
}

#[test]
fn the_page_shows_what_is_printed() {
    let page = include_str!("../../../../docs/scaling.md");
    assert!(page.contains(table::HEAD), "{}", table::HEAD);
    for nodes in [3, 100] {
        let row = Row::of(SHARDS[0], nodes, SEED).to_string();
        assert!(page.lines().any(|line| line == row), "{row}");
    }
}

/// What the page promises of every size, at small and at large ones.
#[test]
fn shares_differ_by_one_and_no_more_moves_than_has_to() {
    for (shards, nodes) in [(256, 2), (256, 3), (256, 10), (256, 1_000), (4_096, 1_000)] {
        let size = format!("{shards} shards, {nodes} nodes");
        let mut map = Map::new(shards, nodes, SEED);
        let all_at_once = Settled {
            rounds: 1,
            moved: shards,
        };
        assert_eq!(map.settle(), all_at_once, "{size}");
        assert!(map.imbalance() <= 1, "{size}");
        let before = map.owners();
        let least = shards / (nodes + 1);
        let joined = map.join();
        assert_eq!(joined.moved, least, "{size}");
        assert!(joined.rounds <= 2 && map.imbalance() <= 1, "{size}");
        assert_eq!(map.changed_since(&before), least, "{size}");
        // The largest takes seconds without optimisation.
        let ranks = [0, nodes / 2, nodes];
        let looked_at = if shards * nodes > 1_000_000 { 1 } else { 3 };
        for rank in ranks.into_iter().take(looked_at) {
            let mut map = map.clone();
            let had = map.held()[rank];
            let before = map.owners();
            let left = map.leave(rank);
            assert_eq!(left.moved, had, "{size}, the node {rank} leaves");
            assert!(left.rounds <= 1 && map.imbalance() <= 1, "{size}");
            assert_eq!(map.changed_since(&before), had, "{size}");
        }
    }
}

/// A node whose clock was off comes back to its old place in the order, not to the last.
#[test]
fn one_that_comes_back_to_its_place_moves_its_share_alone() {
    for (shards, nodes) in [(256, 3), (256, 10), (1_024, 100)] {
        for rank in [0, 1, nodes - 1] {
            let mut map = Map::new(shards, nodes, SEED);
            map.settle();
            let node = map.member(rank);
            map.leave(rank);
            let back = map.come_back(node, rank);
            assert_eq!(back.moved, map.held()[rank]);
            assert!(back.rounds <= 2 && map.imbalance() <= 1);
        }
    }
}

/// Half of the nodes go at once, as when a zone fails.
#[test]
fn what_half_of_the_nodes_left_is_taken_in_one_round() {
    for (shards, nodes) in [(256, 10), (256, 1_000)] {
        let mut map = Map::new(shards, nodes, SEED);
        map.settle();
        let left: usize = map.held()[..nodes / 2].iter().sum();
        let settled = map.leave_first(nodes / 2);
        assert_eq!(
            settled,
            Settled {
                rounds: 1,
                moved: left
            }
        );
        assert!(map.imbalance() <= 1);
    }
}

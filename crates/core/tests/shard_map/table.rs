//! One line of the table for each size.

use std::fmt;

use crate::map::{Map, Settled};
use crate::traffic::{Traffic, busiest, loads};

/// The first lines of the table.
pub(crate) const HEAD: &str = "\
| shards | nodes | shards each | all start | one joins | the fullest leaves | busiest: even 10,000 | even 1,000,000 | skewed 1,000,000 |
|---|---|---|---|---|---|---|---|---|";

/// Draws of ids of which the mean is shown.
const DRAWS: u32 = 5;

/// What one size comes to.
pub(crate) struct Row {
    shards: usize,
    nodes: usize,
    each: (usize, usize),
    start: Settled,
    join: Settled,
    leave: Settled,
    busiest: [f64; 3],
}

impl Row {
    pub(crate) fn of(shards: usize, nodes: usize, seed: u64) -> Self {
        let mut map = Map::new(shards, nodes, seed);
        let start = map.settle();
        let held = map.held();
        let join = map.clone().join();
        let leave = map.clone().leave(0);
        let mean = |endpoints, traffic| {
            let draw = |draw: u32| {
                let loads = loads(shards, endpoints, traffic, seed + u64::from(draw));
                busiest(&map, &loads)
            };
            (1..=DRAWS).map(draw).sum::<f64>() / f64::from(DRAWS)
        };
        Self {
            shards,
            nodes,
            each: (*held.iter().min().unwrap(), *held.iter().max().unwrap()),
            start,
            join,
            leave,
            busiest: [
                mean(10_000, Traffic::Even),
                mean(1_000_000, Traffic::Even),
                mean(1_000_000, Traffic::Skewed),
            ],
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = self.each;
        let each = if least == most {
            format!("{least}")
        } else {
            format!("{least}–{most}")
        };
        let [few, many, skewed] = self.busiest;
        write!(
            f,
            "| {} | {} | {each} | {} | {} | {} | {few:.2} | {many:.2} | {skewed:.1} |",
            self.shards,
            self.nodes,
            told(self.start),
            told(self.join),
            told(self.leave)
        )
    }
}

fn told(settled: Settled) -> String {
    match settled {
        Settled { moved: 0, .. } => "none".to_owned(),
        Settled { rounds: 1, moved } => format!("{moved} in 1 round"),
        Settled { rounds, moved } => format!("{moved} in {rounds} rounds"),
    }
}

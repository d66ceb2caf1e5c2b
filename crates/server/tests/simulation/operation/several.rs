//! Scenarios with several nodes: who shares the database, and what is done to each.

use serde::{Deserialize, Serialize};

use super::{
    Ask, Command, Deployment, Health, ModeWord, Operation, Scenario, Setup, operation, setup, weave,
};
use crate::random::Random;

/// Nodes there are at most.
pub(crate) const NODES_MAX: u64 = 4;

/// The nodes that share a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sharing {
    /// How wrong the clock of each machine is at first, in milliseconds; one node on each.
    pub(crate) clocks: Vec<i64>,
    /// How long a node may be silent.
    pub(crate) lease_millis: u64,
    /// Whether all run on one machine, and see at once when a process ends.
    pub(crate) one_machine: bool,
}

/// What is done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Trouble {
    /// Stopped for so long, and goes on then as if nothing had been.
    Paused { millis: u64 },
    /// Cut off from the database for so long.
    Cut { millis: u64 },
    /// What it says does not arrive at the database for so long: that it lives, and how far it follows.
    Unheard { millis: u64 },
    /// What the database says does not arrive at the node for so long: whatever it asks happens, unconfirmed.
    Unanswered { millis: u64 },
    /// Its process dies, and another one starts after so long.
    Crashed { millis: u64 },
    /// It stops in order, and another process starts after so long.
    Restarted { millis: u64 },
    /// A node joins on a machine that had none.
    Joined,
    /// The machine's clock is stepped: this is how wrong it is from now on.
    Clock { wrong_millis: i64 },
}

impl Scenario {
    /// The scenario of a seed with several nodes.
    pub(crate) fn of_several(seed: u64) -> Self {
        let mut random = Random::new(seed, "several");
        let count = random.between(1, 3);
        let endpoints = (0..count).map(|_| Setup {
            paced: random.chance(400),
            ..setup(&mut random)
        });
        let mut endpoints: Vec<_> = endpoints.collect();
        let nodes = random.between(2, NODES_MAX);
        let length = random.between(12, 40);
        let wild = random.chance(300);
        // How often something is done to a node, in a thousand operations.
        let trouble = random.pick(&[0, 120, 200, 300]);
        let mut operations: Vec<_> = (0..length)
            .map(|_| {
                if random.chance(trouble) {
                    to_nodes(&mut random, nodes)
                } else {
                    elsewhere(operation(&mut random, count, wild))
                }
            })
            .collect();
        if random.chance(350) {
            weave(&mut operations, &mut random);
        } else if random.chance(450) {
            hurry(&mut operations, &mut random, count, nodes);
        } else if random.chance(500) {
            // What waits in the memory of a node that is stopped.
            for setup in &mut endpoints {
                setup.paced = true;
            }
            doze(&mut operations, &mut random, count, nodes);
        } else {
            hand_over(&mut operations, &mut random, count, nodes);
        }
        for operation in &mut operations {
            let node = u8::try_from(random.below(nodes)).unwrap_or(0);
            operation.ask_node(node);
        }
        let mut newcomers = Random::new(seed, "newcomers");
        if newcomers.chance(500) {
            super::newcomers::arrive(&mut operations, &mut newcomers, count, nodes);
        }
        let clock = |random: &mut Random| match random.below(10) {
            0..=3 => 0,
            4..=8 => i64::try_from(random.below(1_600)).unwrap_or(0) - 800,
            _ => random.pick(&[-2_000, 2_000]),
        };
        Self {
            seed,
            endpoints,
            operations,
            nodes: Some(Sharing {
                clocks: (0..nodes).map(|_| clock(&mut random)).collect(),
                lease_millis: random.pick(&[3_000, 3_000, 6_000]),
                one_machine: random.chance(200),
            }),
        }
    }
}

impl Operation {
    fn ask_node(&mut self, asked: u8) {
        match self {
            Self::Publish { node, .. } | Self::Repeat { node, .. } => *node = asked,
            Self::Ask(ask) => ask.node = asked,
            _ => {}
        }
    }
}

/// The database is one that answers, and its faults are losses of connections: fewer of them are enough. Its clock is
/// stepped by little: what is due after hours has waited for as long elsewhere.
fn elsewhere(operation: Operation) -> Operation {
    match operation {
        Operation::Store {
            requests_lost,
            answers_lost,
            slow_millis,
        } => Operation::Store {
            requests_lost: requests_lost / 5,
            answers_lost: answers_lost / 5,
            slow_millis,
        },
        Operation::Jump { millis } => Operation::Jump {
            millis: millis.clamp(-20_000, 20_000),
        },
        other => other,
    }
}

fn to_nodes(random: &mut Random, nodes: u64) -> Operation {
    if random.chance(80) {
        return Operation::Outage {
            millis: random.pick(&[300, 2_500, 9_000]),
        };
    }
    let node = u8::try_from(random.below(nodes)).unwrap_or(0);
    let short_or_long = [200, 1_200, 1_900, 2_600, 4_500, 9_000];
    let what = match random.below(16) {
        0..=3 => Trouble::Paused {
            millis: random.pick(&short_or_long),
        },
        4..=5 => Trouble::Cut {
            millis: random.pick(&short_or_long),
        },
        6..=7 => Trouble::Unheard {
            millis: random.pick(&short_or_long),
        },
        8..=9 => Trouble::Unanswered {
            millis: random.pick(&short_or_long),
        },
        10..=11 => Trouble::Crashed {
            millis: random.pick(&[50, 1_000, 6_000]),
        },
        12 => Trouble::Restarted {
            millis: random.pick(&[0, 500, 4_000]),
        },
        13 => Trouble::Joined,
        _ => Trouble::Clock {
            wrong_millis: random.pick(&[-2_000, -600, -250, 0, 250, 600, 2_000]),
        },
    };
    Operation::Node { node, what }
}

/// Retires keys in full traffic while something is wrong with a node: what a fence is for.
fn hurry(operations: &mut Vec<Operation>, random: &mut Random, endpoints: u64, nodes: u64) {
    for _ in 0..random.between(1, 3) {
        let endpoint = u8::try_from(random.below(endpoints)).unwrap_or(0);
        let ask = |command| {
            Operation::Ask(Ask {
                endpoint,
                command,
                patience_millis: None,
                wait: true,
                node: 0,
            })
        };
        let traffic = Operation::Publish {
            count: 5,
            batch: true,
            node: 0,
        };
        let deploy = Operation::Deploy {
            endpoint,
            to: Deployment::Beside,
        };
        let open = Command::Open {
            mode: random.pick(&[ModeWord::Immediate, ModeWord::Overlap, ModeWord::Overlap]),
            overlap_millis: random.pick(&[300, 300, 1_000]),
        };
        let story = [
            traffic.clone(),
            to_nodes(random, nodes),
            traffic.clone(),
            ask(open),
            traffic.clone(),
            deploy,
            Operation::Run {
                millis: random.pick(&[200, 700, 1_500]),
            },
            traffic,
        ];
        let at = usize::try_from(random.below(operations.len() as u64 + 1)).unwrap_or(0);
        operations.splice(at..at, story).for_each(drop);
    }
}

/// Nodes are stopped with something to send, for longer than their leases, and go on when others have taken it over and
/// retired what they would sign with.
fn doze(operations: &mut Vec<Operation>, random: &mut Random, endpoints: u64, nodes: u64) {
    for _ in 0..random.between(1, 2) {
        let endpoint = u8::try_from(random.below(endpoints)).unwrap_or(0);
        let traffic = Operation::Publish {
            count: 5,
            batch: true,
            node: 0,
        };
        let open = Operation::Ask(Ask {
            endpoint,
            command: Command::Open {
                mode: random.pick(&[ModeWord::Immediate, ModeWord::Overlap]),
                overlap_millis: 300,
            },
            patience_millis: None,
            wait: true,
            node: 0,
        });
        let mut story = vec![traffic.clone(), traffic.clone()];
        for node in (0..nodes).filter_map(|node| u8::try_from(node).ok()) {
            if random.chance(500) {
                let millis = random.pick(&[2_600, 4_500, 9_000]);
                let what = Trouble::Paused { millis };
                story.push(Operation::Node { node, what });
            }
        }
        story.extend([
            open,
            Operation::Run {
                millis: random.pick(&[1_500, 4_000, 8_000]),
            },
            traffic,
            Operation::Run { millis: 2_500 },
        ]);
        let at = usize::try_from(random.below(operations.len() as u64 + 1)).unwrap_or(0);
        operations.splice(at..at, story).for_each(drop);
    }
}

/// Shards change hands while exchanges are under way for them: a node joins or is able again, or is not any more.
fn hand_over(operations: &mut Vec<Operation>, random: &mut Random, endpoints: u64, nodes: u64) {
    for _ in 0..random.between(1, 3) {
        let endpoint = u8::try_from(random.below(endpoints)).unwrap_or(0);
        let node = u8::try_from(random.below(nodes)).unwrap_or(0);
        let clock = |wrong_millis| Operation::Node {
            node,
            what: Trouble::Clock { wrong_millis },
        };
        let traffic = Operation::Publish {
            count: 5,
            batch: false,
            node: 0,
        };
        let what = random.pick(&[
            Trouble::Joined,
            Trouble::Restarted { millis: 0 },
            Trouble::Clock {
                wrong_millis: 2_000,
            },
            Trouble::Clock {
                wrong_millis: -2_000,
            },
        ]);
        let story = [
            Operation::Health {
                endpoint,
                health: random.pick(&[Health::Slow { millis: 800 }, Health::Hanging]),
            },
            traffic.clone(),
            Operation::Node { node, what },
            traffic.clone(),
            Operation::Run { millis: 1_500 },
            traffic,
            clock(0),
            Operation::Run { millis: 700 },
            Operation::Health {
                endpoint,
                health: Health::Well,
            },
        ];
        let at = usize::try_from(random.below(operations.len() as u64 + 1)).unwrap_or(0);
        operations.splice(at..at, story).for_each(drop);
    }
}

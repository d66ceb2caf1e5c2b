//! What a simulation does: a setup and a list of operations, as data that can be kept, cut and replayed.

use serde::{Deserialize, Serialize};

use crate::random::Random;

mod newcomers;
mod several;

pub(crate) use several::{Sharing, Trouble};

/// A whole simulation. The same scenario does the same thing, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scenario {
    /// Feeds every stream of chance.
    pub(crate) seed: u64,
    /// Endpoints with their receivers.
    pub(crate) endpoints: Vec<Setup>,
    /// What happens, in order.
    pub(crate) operations: Vec<Operation>,
    /// The nodes that share the database; with none of them, one process has its store to itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nodes: Option<Sharing>,
}

/// One endpoint and what stands behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) scheme: SchemeName,
    pub(crate) class: Class,
    /// Machines behind the URL; requests reach them in turns.
    pub(crate) hosts: u8,
    /// Whether deliveries keep the order of acceptance.
    pub(crate) ordered: bool,
    /// Whether the workspace's shared keyring signs.
    pub(crate) shared: bool,
    /// Whether it gets a few requests a second at most, so that what is due waits in memory.
    #[serde(default)]
    pub(crate) paced: bool,
    /// Whether it wants messages of [`EVERY_TYPE`] only.
    #[serde(default)]
    pub(crate) picky: bool,
}

/// What most messages are of, and what every endpoint wants.
pub(crate) const EVERY_TYPE: &str = "thing.happened";
/// What every third message is of.
const OTHER_TYPE: &str = "thing.passed";

/// The type of the message with this number.
pub(crate) const fn event_type_of(number: u32) -> &'static str {
    if number % 3 == 2 {
        OTHER_TYPE
    } else {
        EVERY_TYPE
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SchemeName {
    Standard,
    Hopae,
    Github,
}

/// How a receiver verifies, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Class {
    ListAware,
    FirstOnly,
    LastOnly,
    /// List-aware, and answers 500 to a bad signature.
    Throws,
    DoesNotVerify,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Operation {
    /// Publishes so many messages, in one request or in one each.
    Publish {
        count: u8,
        batch: bool,
        #[serde(default)]
        node: u8,
    },
    /// Lets so much time pass.
    Run { millis: u64 },
    /// Steps the wall clock.
    Jump { millis: i64 },
    /// Someone asks for something.
    Ask(Ask),
    /// Someone asks for another endpoint. It is the next one in number once it is made.
    Create {
        setup: Setup,
        #[serde(default)]
        node: u8,
    },
    /// Someone sends an earlier request again, under the same idempotency key: the one so many back.
    Repeat {
        back: u8,
        #[serde(default)]
        node: u8,
    },
    /// The receiver's owner deploys the secret that is to come, or the active one.
    Deploy { endpoint: u8, to: Deployment },
    /// The receiver gets better or worse.
    Health { endpoint: u8, health: Health },
    /// What the network does to a receiver's traffic from now on, in a thousand.
    Network {
        endpoint: u8,
        requests_lost: u16,
        answers_lost: u16,
    },
    /// What the store does from now on: faults in a thousand, and the longest a step takes.
    Store {
        requests_lost: u16,
        answers_lost: u16,
        slow_millis: u64,
    },
    /// The process dies here and now; another one starts on what is committed.
    Crash,
    /// Removes what is past its retention of a day.
    Prune,
    /// Something is done to one of several nodes.
    Node { node: u8, what: Trouble },
    /// The shared database answers nobody for so long.
    Outage { millis: u64 },
}

/// A request to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) endpoint: u8,
    pub(crate) command: Command,
    /// After how long the caller hangs up, if it does.
    pub(crate) patience_millis: Option<u64>,
    /// Whether the next operation waits for the answer.
    pub(crate) wait: bool,
    /// Which node is asked.
    #[serde(default)]
    pub(crate) node: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Command {
    Open {
        mode: ModeWord,
        overlap_millis: u64,
    },
    Promote {
        force: bool,
    },
    Extend {
        by_millis: u64,
    },
    Undo,
    Finish,
    Cancel,
    /// KORE's *Create*: a pending secret.
    CreateSecret {
        replace: bool,
    },
    /// KORE's *Activate*.
    Activate,
    /// The active secret has leaked, or the other one.
    Compromise {
        active: bool,
    },
    Destroy,
    Reveal,
    Rehearse,
    Switch {
        to: SwitchWord,
    },
    /// Sends the oldest delivery of the endpoint again.
    Retry,
    /// Sends all exhausted ones again.
    Recover,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ModeWord {
    Immediate,
    Overlap,
    Staged,
    Proven,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SwitchWord {
    Enabled,
    Paused,
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deployment {
    /// Every host holds it, and nothing else.
    All,
    /// The first half of the hosts.
    Half,
    /// Every host holds it beside what it held.
    Beside,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Health {
    Well,
    /// Answers everything with this status.
    Failing {
        status: u16,
    },
    /// Well and failing in turns.
    Flapping {
        status: u16,
    },
    /// Takes the request and answers nothing.
    Hanging,
    /// Closes the connection on each request.
    Resetting,
    /// Takes no connection.
    Refusing,
    /// Answers this late.
    Slow {
        millis: u64,
    },
}

impl Scenario {
    /// The scenario of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed, "scenario");
        let count = random.between(1, 3);
        let endpoints: Vec<_> = (0..count).map(|_| setup(&mut random)).collect();
        let length = random.between(12, 45);
        // Some runs are calm, so that what takes a while gets to its end.
        let wild = random.chance(650);
        let mut operations: Vec<_> = (0..length)
            .map(|_| operation(&mut random, count, wild))
            .collect();
        if random.chance(350) {
            weave(&mut operations, &mut random);
        }
        let mut newcomers = Random::new(seed, "newcomers");
        if newcomers.chance(400) {
            newcomers::arrive(&mut operations, &mut newcomers, count, 1);
        }
        Self {
            seed,
            endpoints,
            operations,
            nodes: None,
        }
    }
}

/// Puts the whole way of a proven rotation between the operations, in its order.
fn weave(operations: &mut Vec<Operation>, random: &mut Random) {
    let ask = |command| {
        Operation::Ask(Ask {
            endpoint: 0,
            command,
            patience_millis: None,
            wait: true,
            node: 0,
        })
    };
    let traffic = Operation::Publish {
        count: 4,
        batch: false,
        node: 0,
    };
    let story = [
        traffic.clone(),
        Operation::Run { millis: 700 },
        ask(Command::Rehearse),
        ask(Command::Open {
            mode: ModeWord::Proven,
            overlap_millis: 0,
        }),
        traffic.clone(),
        Operation::Run { millis: 1_500 },
        Operation::Deploy {
            endpoint: 0,
            to: Deployment::All,
        },
        Operation::Run { millis: 3_000 },
        traffic.clone(),
        Operation::Run { millis: 3_000 },
        traffic,
        Operation::Run { millis: 8_000 },
    ];
    let mut from = 0;
    for chapter in story {
        let gap = random.below(3);
        from = (from + usize::try_from(gap).unwrap_or(0)).min(operations.len());
        operations.insert(from, chapter);
        from += 1;
    }
}

fn setup(random: &mut Random) -> Setup {
    use Class::{DoesNotVerify, FirstOnly, LastOnly, ListAware, Throws};
    use SchemeName::{Github, Hopae, Standard};
    Setup {
        scheme: random.pick(&[Standard, Standard, Standard, Hopae, Github]),
        class: random.pick(&[
            ListAware,
            ListAware,
            FirstOnly,
            FirstOnly,
            LastOnly,
            Throws,
            DoesNotVerify,
        ]),
        hosts: random.pick(&[1, 1, 1, 4]),
        ordered: random.chance(200),
        shared: random.chance(150),
        paced: false,
        picky: false,
    }
}

fn operation(random: &mut Random, endpoints: u64, wild: bool) -> Operation {
    let endpoint = u8::try_from(random.below(endpoints)).unwrap_or(0);
    let roll = random.below(if wild { 1_000 } else { 760 });
    match roll {
        0..=219 => Operation::Publish {
            count: u8::try_from(random.between(1, 5)).unwrap_or(1),
            batch: random.chance(300),
            node: 0,
        },
        220..=399 => Operation::Run {
            millis: random.pick(&[1, 40, 200, 700, 1_500, 3_000, 8_000]),
        },
        400..=659 => Operation::Ask(Ask {
            endpoint,
            command: command(random),
            patience_millis: (wild && random.chance(120)).then(|| random.below(40)),
            wait: !random.chance(250),
            node: 0,
        }),
        660..=739 => Operation::Deploy {
            endpoint,
            to: random.pick(&[
                Deployment::All,
                Deployment::All,
                Deployment::Half,
                Deployment::Beside,
            ]),
        },
        740..=779 => Operation::Repeat {
            back: u8::try_from(random.below(4)).unwrap_or(0),
            node: 0,
        },
        780..=859 => Operation::Health {
            endpoint,
            health: health(random),
        },
        860..=889 => Operation::Network {
            endpoint,
            requests_lost: random.pick(&[0, 0, 100, 400]),
            answers_lost: random.pick(&[0, 0, 100, 400]),
        },
        890..=929 => Operation::Store {
            requests_lost: random.pick(&[0, 0, 50, 300]),
            answers_lost: random.pick(&[0, 0, 50, 300]),
            slow_millis: random.pick(&[0, 5, 30, 400]),
        },
        930..=954 => Operation::Crash,
        955..=984 => Operation::Jump {
            millis: random.pick(&[
                1,
                900,
                -900,
                20_000,
                -20_000,
                3_600_000,
                -3_600_000,
                100_000_000,
            ]),
        },
        _ => Operation::Prune,
    }
}

fn command(random: &mut Random) -> Command {
    use ModeWord::{Immediate, Overlap, Proven, Staged};
    match random.below(100) {
        0..=37 => Command::Open {
            mode: random.pick(&[Immediate, Overlap, Overlap, Staged, Proven, Proven, Proven]),
            overlap_millis: random.pick(&[0, 300, 2_000, 10_000, 60_000]),
        },
        38..=47 => Command::Promote {
            force: random.chance(300),
        },
        48..=52 => Command::Extend {
            by_millis: random.pick(&[500, 10_000]),
        },
        53..=59 => Command::Undo,
        60..=64 => Command::Finish,
        65..=68 => Command::Cancel,
        69..=71 => Command::CreateSecret {
            replace: random.chance(500),
        },
        72..=74 => Command::Activate,
        75..=78 => Command::Compromise {
            active: random.chance(500),
        },
        79..=80 => Command::Destroy,
        81..=83 => Command::Reveal,
        84..=89 => Command::Rehearse,
        90..=94 => Command::Switch {
            to: random.pick(&[
                SwitchWord::Enabled,
                SwitchWord::Enabled,
                SwitchWord::Paused,
                SwitchWord::Disabled,
            ]),
        },
        95..=97 => Command::Retry,
        _ => Command::Recover,
    }
}

fn health(random: &mut Random) -> Health {
    match random.below(12) {
        0..=4 => Health::Well,
        5..=6 => Health::Failing {
            status: random.pick(&[500, 503, 429, 404, 401]),
        },
        7 => Health::Flapping {
            status: random.pick(&[500, 503]),
        },
        8 => Health::Hanging,
        9 => Health::Resetting,
        10 => Health::Refusing,
        _ => Health::Slow {
            millis: random.pick(&[50, 800]),
        },
    }
}

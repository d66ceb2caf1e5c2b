//! What is run: one value for each row of the table.

use std::time::Duration;

/// How a scenario loads the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As fast as the whole path goes.
    Closed,
    /// A fixed number of requests a second.
    Paced(u32),
    /// Half of what the same server just did as fast as it went.
    HalfOfMaximum,
    /// A quarter of that, with reads and rotations beside it.
    Mixed,
    /// Rotations beside this many deliveries a second.
    Rotations(Through, Tempo, u32),
    /// A bulk rotation of every keyring beside a load.
    Storm(Manner),
    /// Pages of the dashboard over a large store.
    Dashboard,
    /// A backlog of paused endpoints, let go.
    Drain,
    /// Starting, idling and stopping.
    Start,
    /// As fast as it goes on one node, and on two of the same database, in turns.
    Nodes,
    /// Changes of keys on three nodes.
    Fence(Nodes),
    /// As fast as it goes on an empty database and on one that holds many messages, in turns.
    Stored,
    /// What messages and deliveries take of everything.
    Costs,
}

/// How the nodes of a fence are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nodes {
    AllAnswer,
    /// One of them is stopped where it is.
    OneIsSilent,
}

/// The API through which is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Through {
    Native,
    /// The Hopae dialect's `rotate-secret`.
    Hopae,
}

/// When a rotation is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tempo {
    /// By each connection when its last one was answered: as fast as they go.
    Closed,
    /// This many a second over all connections, at fixed times whatever the server does.
    Paced(u32),
}

/// How the keyrings of a storm move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Overlap,
    Immediate,
}

impl Manner {
    /// The word of the API.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Immediate => "immediate",
        }
    }
}

/// One row.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) connections: usize,
    pub(crate) payload_bytes: usize,
    /// Apps, over which the requests take turns.
    pub(crate) apps: u32,
    /// Endpoints of each app.
    pub(crate) fan_out: u32,
    pub(crate) messages: u32,
}

/// The run that the throughput and CPU targets speak of.
pub(crate) const SINGLE: &str = "256c-256b-f1-m1";
/// The same with batches.
pub(crate) const BATCH: &str = "256c-256b-f1-m100";
pub(crate) const START: &str = "start";
pub(crate) const MIXED: &str = "mixed";
pub(crate) const ROTATIONS: &str = "rotations";
/// The same through the Hopae dialect.
pub(crate) const ROTATIONS_HOPAE: &str = "rotations-hopae";
/// Twice as many a second as the target asks for, at a set pace: what a rotation takes.
pub(crate) const ROTATIONS_PACED: &str = "rotations-1000";
pub(crate) const ROTATIONS_HOPAE_PACED: &str = "rotations-hopae-1000";
pub(crate) const STORM: &str = "storm";
/// The same without an overlap, over a quarter of the endpoints.
pub(crate) const STORM_IMMEDIATE: &str = "storm-immediate";
pub(crate) const DASHBOARD: &str = "dashboard";
pub(crate) const PACED: &str = "paced-100";
pub(crate) const HALF: &str = "paced-half";
pub(crate) const DRAIN: &str = "drain";
pub(crate) const ONE_NODE: &str = "one-node";
pub(crate) const TWO_NODES: &str = "two-nodes";
pub(crate) const FENCE: &str = "fence";
pub(crate) const FENCE_SILENT: &str = "fence-silent";
pub(crate) const EMPTY: &str = "empty";
pub(crate) const STORED: &str = "stored";
pub(crate) const COSTS: &str = "costs";

/// Apps of the scenarios on several nodes, so that every node has endpoints of its own.
const APPS: u32 = 32;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Time of one load.
    pub(crate) time: Duration,
    /// Messages of one load at most; deliveries are as many times more as there are endpoints.
    pub(crate) max_messages: u64,
    /// Messages of the drained backlog.
    pub(crate) backlog: u64,
    /// Endpoints of the storm.
    pub(crate) endpoints: u32,
    /// Messages a second beside the storm.
    pub(crate) storm_per_second: u32,
    /// Deliveries in the dashboard's store.
    pub(crate) deliveries: u64,
    /// Apps in the dashboard's store.
    pub(crate) apps: u32,
    /// Messages that are stored before the row `stored`.
    pub(crate) stored: u64,
    /// Starts of the server.
    pub(crate) starts: u32,
}

impl Effort {
    pub(crate) fn new(quick: bool, seconds: Option<u64>) -> Self {
        let time = seconds.unwrap_or(if quick { 2 } else { 8 }).clamp(1, 120);
        Self {
            time: Duration::from_secs(time),
            max_messages: time * 200_000,
            backlog: if quick { 20_000 } else { 100_000 },
            endpoints: if quick { 1_000 } else { 10_000 },
            storm_per_second: 1_000,
            deliveries: if quick { 100_000 } else { 1_000_000 },
            apps: 1_000,
            stored: if quick { 100_000 } else { 1_000_000 },
            starts: if quick { 5 } else { 11 },
        }
    }

    /// Each of the two measurements of the ceiling beside a run.
    pub(crate) fn ceiling(&self) -> Duration {
        (self.time / 4).max(Duration::from_millis(750))
    }

    /// The load before a measured one: it fills pools and caches, or tells the maximum.
    pub(crate) fn warm_up(&self) -> Duration {
        (self.time / 4).clamp(Duration::from_millis(500), Duration::from_secs(2))
    }
}

/// Small messages, one a request, for one endpoint.
pub(crate) fn single(name: &str, kind: Kind, connections: usize) -> Scenario {
    Scenario {
        name: name.to_owned(),
        kind,
        connections,
        payload_bytes: 256,
        apps: 1,
        fan_out: 1,
        messages: 1,
    }
}

/// All scenarios of the embedded store, in the order of the table.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all = vec![single(START, Kind::Start, 1)];
    for messages in [1, 100] {
        for fan_out in [1, 10] {
            for payload_bytes in [256, 2048] {
                for connections in [64, 256] {
                    all.push(Scenario {
                        name: format!("{connections}c-{payload_bytes}b-f{fan_out}-m{messages}"),
                        kind: Kind::Closed,
                        connections,
                        payload_bytes,
                        apps: 1,
                        fan_out,
                        messages,
                    });
                }
            }
        }
    }
    all.push(single(PACED, Kind::Paced(100), 64));
    all.push(single(HALF, Kind::HalfOfMaximum, 64));
    all.push(single(MIXED, Kind::Mixed, 64));
    for (name, through, tempo) in [
        (ROTATIONS, Through::Native, Tempo::Closed),
        (ROTATIONS_HOPAE, Through::Hopae, Tempo::Closed),
        (ROTATIONS_PACED, Through::Native, Tempo::Paced(1_000)),
        (ROTATIONS_HOPAE_PACED, Through::Hopae, Tempo::Paced(1_000)),
    ] {
        all.push(single(name, Kind::Rotations(through, tempo, 1_000), 64));
    }
    all.push(single(STORM, Kind::Storm(Manner::Overlap), 64));
    all.push(single(STORM_IMMEDIATE, Kind::Storm(Manner::Immediate), 64));
    all.push(single(DASHBOARD, Kind::Dashboard, 1));
    all.push(Scenario {
        messages: 100,
        ..single(DRAIN, Kind::Drain, 256)
    });
    all.push(single(COSTS, Kind::Costs, 256));
    all
}

/// All scenarios of a store on PostgreSQL, in the order of the table.
pub(crate) fn on_postgres() -> Vec<Scenario> {
    let many = |name: &str, kind, connections| Scenario {
        apps: APPS,
        ..single(name, kind, connections)
    };
    vec![
        single(START, Kind::Start, 1),
        single(SINGLE, Kind::Closed, 256),
        Scenario {
            messages: 100,
            ..single(BATCH, Kind::Closed, 256)
        },
        single(PACED, Kind::Paced(100), 64),
        many(TWO_NODES, Kind::Nodes, 256),
        many(FENCE, Kind::Fence(Nodes::AllAnswer), 64),
        many(FENCE_SILENT, Kind::Fence(Nodes::OneIsSilent), 64),
        single(STORED, Kind::Stored, 256),
        single(COSTS, Kind::Costs, 256),
    ]
}

impl Scenario {
    /// Concurrent deliveries to one endpoint, so that all of them together use as many connections as
    /// the ceiling does.
    pub(crate) fn max_in_flight(&self) -> u32 {
        let all = u32::try_from(self.connections).unwrap_or(u32::MAX);
        (all / self.fan_out / self.apps).max(1)
    }
}

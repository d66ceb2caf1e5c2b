//! Changes of keys on three nodes under load: how long until no node can sign by what was before.
//!
//! Half of the changes are rotations of mode `immediate`, half are the `finish` of one of mode `overlap`; the keys
//! are those that sign the deliveries of the run. Judged is what `Hookturn-Fence` says and the whole answer, from
//! sending the request.
//!
//! Where one node is silent it is stopped with SIGSTOP for less than its lease and continued. It is not published
//! to meanwhile; what is for its endpoints is sent when it goes on.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::api::{request, text};
use crate::fixture::{Bench, Fixture};
use crate::histogram::Histogram;
use crate::http::{Connection, read_head};
use crate::load::{Pace, Plan};
use crate::number::{Epoch, Error};
use crate::report::Row;
use crate::scenario::{Nodes, Scenario};

const NODES: usize = 3;
/// Messages a second beside the changes.
const PER_SECOND: u32 = 500;
/// Changes a second that are judged, over all connections, where every node answers.
const CHANGES: u32 = 40;
/// Connections that change keys, each those of its own endpoints.
const CONNECTIONS: usize = 16;
/// How long a node is stopped: its lease is 10 s, and was renewed at most half a second before.
const SILENT: Duration = Duration::from_secs(7);
/// The load before and after that.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_secs(2);

/// What the changes came to.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fence {
    pub(crate) changes: u64,
    /// Those that a node did not confirm.
    pub(crate) unconfirmed: u64,
    /// What the answers say of the fence.
    pub(crate) told_p50_ms: f64,
    pub(crate) told_p99_ms: f64,
    /// From sending a change to its answer.
    pub(crate) answer_p50_ms: f64,
    pub(crate) answer_p99_ms: f64,
}

impl Fence {
    fn note(&self) -> String {
        format!(
            "{} changes of keys on {NODES} nodes, {} not confirmed by all; fence p50 {:.1} ms, p99 {:.1} ms; answer p50 {:.1} ms, p99 {:.1} ms",
            self.changes,
            self.unconfirmed,
            self.told_p50_ms,
            self.told_p99_ms,
            self.answer_p50_ms,
            self.answer_p99_ms,
        )
    }
}

pub(crate) async fn run(bench: &Bench, scenario: &Scenario, nodes: Nodes) -> Result<Row, Error> {
    let mut fixture = Fixture::start(bench, scenario).await?;
    while fixture.nodes().len() < NODES {
        fixture.join().await?;
    }
    let pace = Pace::Paced {
        per_second: PER_SECOND,
    };
    let warm_up = fixture.plan(pace, bench.effort.warm_up());
    fixture.measure(&warm_up).await?;
    let keyrings: Vec<String> = fixture
        .endpoints
        .iter()
        .map(|endpoint| endpoint.keyring.clone())
        .collect();
    let changing = Changing::of(&keyrings, bench.epoch);
    let addrs = fixture.addrs();
    let measured = match nodes {
        Nodes::AllAnswer => {
            let plan = fixture.plan(pace, bench.effort.time);
            fixture
                .measure_beside(&plan, async |_, _, _| {
                    changing.run(&addrs, Some(CHANGES)).await
                })
                .await?
        }
        Nodes::OneIsSilent => {
            let others = &addrs[..NODES - 1];
            let third = fixture.process(NODES - 1).ok_or("a node is missing")?;
            let plan = Plan {
                addrs: others.into(),
                ..fixture.plan(pace, BEFORE + SILENT + AFTER)
            };
            fixture
                .measure_beside(&plan, async |_, _, _| {
                    sleep(BEFORE).await;
                    third.pause()?;
                    let changed = timeout(SILENT, changing.run(others, None)).await;
                    third.go_on()?;
                    if let Ok(changed) = changed {
                        changed?;
                    }
                    std::future::pending().await
                })
                .await?
        }
    };
    let fence = changing.fence();
    let mut row = measured.row(&scenario.name);
    row.notes.push(fence.note());
    row.fence = Some(fence);
    fixture.finish(measured.started, row)
}

/// Keyrings whose keys are changed.
struct Changing {
    epoch: Epoch,
    /// For each connection those that are its own.
    keyrings: Vec<Vec<String>>,
    told: RefCell<Histogram>,
    answered: RefCell<Histogram>,
    unconfirmed: Cell<u64>,
}

impl Changing {
    fn of(keyrings: &[String], epoch: Epoch) -> Self {
        let each = keyrings.len().div_ceil(CONNECTIONS).max(1);
        Self {
            epoch,
            keyrings: keyrings.chunks(each).map(<[String]>::to_vec).collect(),
            told: RefCell::new(Histogram::new()),
            answered: RefCell::new(Histogram::new()),
            unconfirmed: Cell::new(0),
        }
    }

    /// Changes keys until it is dropped or a change fails: so many a second, or each when the one before was
    /// answered.
    async fn run(&self, addrs: &[SocketAddr], per_second: Option<u32>) -> Result<(), Error> {
        let begun = Instant::now();
        let count = u32::try_from(self.keyrings.len())?;
        let workers = (0..count).zip(&self.keyrings).zip(addrs.iter().cycle());
        let workers = workers.map(|((number, own), addr)| {
            let turns = per_second.map(|per_second| {
                let every = Duration::from_secs(1) * count / per_second;
                (begun + every * number / count, every)
            });
            self.change(*addr, own, turns)
        });
        try_join_all(workers).await.map(drop)
    }

    async fn change(
        &self,
        addr: SocketAddr,
        own: &[String],
        turns: Option<(Instant, Duration)>,
    ) -> Result<(), Error> {
        let mut connection = Connection::open(addr).await?;
        for (turn, keyring) in (0_u32..).zip(own.iter().cycle()) {
            if let Some((first, every)) = turns {
                sleep_until(first + every * turn).await;
            }
            let open = format!("/v1/keyrings/{keyring}/rotations");
            // Every keyring has both in its turns.
            let round = turn / u32::try_from(own.len())?;
            if round.is_multiple_of(2) {
                self.judged(&mut connection, addr, &open, r#"{"mode":"immediate"}"#)
                    .await?;
            } else {
                let opened = post(&mut connection, addr, &open, r#"{"mode":"overlap"}"#).await?;
                let finish = format!("/v1/rotations/{}/finish", text(&opened.body, "id")?);
                self.judged(&mut connection, addr, &finish, "{}").await?;
            }
        }
        Ok(())
    }

    /// A change that is answered when no node can sign by what was before.
    async fn judged(
        &self,
        connection: &mut Connection,
        addr: SocketAddr,
        path: &str,
        body: &str,
    ) -> Result<(), Error> {
        let sent = self.epoch.now();
        let answer = post(connection, addr, path, body).await?;
        let took = self.epoch.now().saturating_sub(sent);
        let [nodes, confirmed, millis] = answer
            .fence
            .ok_or("a change of keys was answered without its fence")?;
        if confirmed < nodes {
            self.unconfirmed.set(self.unconfirmed.get() + 1);
        }
        self.told.borrow_mut().record(millis * 1_000_000);
        self.answered.borrow_mut().record(took);
        Ok(())
    }

    fn fence(&self) -> Fence {
        let (told, answered) = (self.told.borrow(), self.answered.borrow());
        let millis = |of: &Histogram, share| {
            let time = of.per_mille(share).unwrap_or_default();
            time.as_secs_f64() * 1e3
        };
        Fence {
            changes: answered.total(),
            unconfirmed: self.unconfirmed.get(),
            told_p50_ms: millis(&told, 500),
            told_p99_ms: millis(&told, 990),
            answer_p50_ms: millis(&answered, 500),
            answer_p99_ms: millis(&answered, 990),
        }
    }
}

struct Answered {
    body: Value,
    fence: Option<[u64; 3]>,
}

async fn post(
    connection: &mut Connection,
    addr: SocketAddr,
    path: &str,
    body: &str,
) -> Result<Answered, Error> {
    let request = request(addr, "POST", path, body.as_bytes());
    let answer = connection.exchange(&request).await?;
    if !(200..300).contains(&answer.status) {
        let words = String::from_utf8_lossy(answer.body);
        return Err(format!("POST {path} answered {}: {words}", answer.status).into());
    }
    Ok(Answered {
        fence: fence(answer.head),
        body: serde_json::from_slice(answer.body)?,
    })
}

/// Nodes, how many confirmed, and milliseconds, of `nodes=3, confirmed=3, millis=12`.
pub(crate) fn fence(head: &[u8]) -> Option<[u64; 3]> {
    let mut told = None;
    read_head(head, |name, value| {
        if name.eq_ignore_ascii_case(b"hookturn-fence") {
            told = std::str::from_utf8(value).ok();
        }
    })?;
    let numbers: Option<Vec<u64>> = told?
        .split(", ")
        .map(|part| part.split_once('=')?.1.parse().ok())
        .collect();
    numbers?.try_into().ok()
}

//! The storm: every keyring of many endpoints rotated by one bulk rotation while messages flow.
//!
//! Each endpoint has an app and a keyring of its own, as customers do, and the messages take turns over all
//! of them. One load runs from before the bulk to after it, so that the server, its connections and its
//! caches are the same; the windows are cut from it afterwards, the one before as long as the bulk is
//! expected to take, the one after as long as it took. The window of the bulk is compared with both together,
//! because equal loads differ from one to the next: what before and after differ by is no growth. What arrived
//! is verified with the secret of the endpoint's making and the one it was rotated to, which is revealed after
//! the load.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::api::{Api, Endpoint, make_many, publish, text};
use crate::fixture::{Bench, store_dir};
use crate::histogram::Histogram;
use crate::load::{self, Load, Pace, Plan, Stop};
use crate::number::{Epoch, Error, float, rate};
use crate::process::Server;
use crate::receiver::Receiver;
use crate::report::Row;
use crate::scenario::{Manner, Scenario};
use crate::signatures::Keys;
use crate::storm_books::{Books, Times, Windows, compare, missing};

/// Rotations that the bulk opens in one of its four steps a second: the default of a bulk rotation.
const CONCURRENCY: u32 = 50;
const STEPS_PER_SECOND: u32 = 4;
/// Connections that make the endpoints and read their secrets.
const SETTERS: u32 = 64;
/// Deliveries under way to one endpoint.
const IN_FLIGHT: u32 = 16;
/// The load before the first window: connections are opened and caches filled.
const WARM_UP: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_secs(2);
/// How often the bulk rotation is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// A bulk that takes so many times as long as its pace asks for is given up.
const PATIENCE: u32 = 5;
/// Without an arrival for this long, what is missing counts as lost: longer than the first retries.
const QUIET: Duration = Duration::from_secs(20);

/// What a storm came to.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Storm {
    pub(crate) mode: &'static str,
    pub(crate) endpoints: u32,
    pub(crate) rotated: u32,
    pub(crate) per_second: u32,
    pub(crate) bulk_seconds: f64,
    pub(crate) unsigned: u64,
    pub(crate) by_old: u64,
    pub(crate) by_new: u64,
    pub(crate) before: Receipts,
    pub(crate) during: Receipts,
    pub(crate) after: Receipts,
    /// Processor time of the server in a second of each window, as a percentage of one core.
    pub(crate) cpu_percent: [f64; 3],
    /// Before and after together.
    pub(crate) beside: Receipts,
}

/// Times from when a message was due to its arrival.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Receipts {
    pub(crate) messages: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// The p99 of the median second.
    pub(crate) second_p99_ms: Option<f64>,
}

impl Receipts {
    fn of(times: &Times) -> Self {
        let all = times.all();
        let second = times.median_second(990);
        Self {
            messages: all.total(),
            p50_ms: millis(&all, 500),
            p99_ms: millis(&all, 990),
            second_p99_ms: second.map(|second| second.as_secs_f64() * 1e3),
        }
    }
}

impl Storm {
    /// How many times the p99 of before and after is that of during.
    pub(crate) fn growth(&self) -> Option<f64> {
        let beside = self.beside.p99_ms.filter(|beside| *beside > 0.0)?;
        Some(self.during.p99_ms? / beside)
    }

    /// The same of the median seconds.
    fn growth_of_a_second(&self) -> Option<f64> {
        let beside = self.beside.second_p99_ms.filter(|beside| *beside > 0.0)?;
        Some(self.during.second_p99_ms? / beside)
    }

    /// What it came to, for people.
    pub(crate) fn notes(&self) -> Vec<String> {
        let window = |window: Receipts| {
            format!(
                "p50 {:.2} ms, p99 {:.2} ms, of the median second {:.2} ms, of {}",
                window.p50_ms.unwrap_or_default(),
                window.p99_ms.unwrap_or_default(),
                window.second_p99_ms.unwrap_or_default(),
                window.messages
            )
        };
        let [cpu_before, cpu_during, cpu_after] = self.cpu_percent;
        vec![
            format!(
                "{} of {} keyrings rotated ({}) in {:.1} s, {:.0}/s, beside {} messages/s",
                self.rotated,
                self.endpoints,
                self.mode,
                self.bulk_seconds,
                f64::from(self.rotated) / self.bulk_seconds.max(f64::EPSILON),
                self.per_second,
            ),
            format!(
                "receipt before: {}; during: {}; after: {}; before and after: {}; p99 x{:.2}, of the median second x{:.2}",
                window(self.before),
                window(self.during),
                window(self.after),
                window(self.beside),
                self.growth().unwrap_or_default(),
                self.growth_of_a_second().unwrap_or_default()
            ),
            format!(
                "server: {cpu_before:.0} % of a core before, {cpu_during:.0} % during, {cpu_after:.0} % after"
            ),
            format!(
                "signatures: {} by the first secret, {} by the new one, {} by none that may sign",
                self.by_old, self.by_new, self.unsigned
            ),
        ]
    }
}

fn millis(times: &Histogram, share: u64) -> Option<f64> {
    times.per_mille(share).map(|time| time.as_secs_f64() * 1e3)
}

/// What the script beside the load saw.
struct Seen {
    windows: Windows,
    bulk: Duration,
    rotated: u32,
    /// Processor time of the server in each window.
    cpu: [Duration; 3],
}

impl Seen {
    fn cpu_percent(&self) -> [f64; 3] {
        let Windows {
            before,
            during,
            after,
        } = &self.windows;
        [(0, before), (1, during), (2, after)].map(|(place, window): (usize, _)| {
            let seconds = Duration::from_nanos(window.end - window.start).as_secs_f64();
            100.0 * self.cpu[place].as_secs_f64() / seconds.max(f64::EPSILON)
        })
    }
}

/// Runs a storm.
pub(crate) async fn run(bench: &Bench, scenario: &Scenario, manner: Manner) -> Result<Row, Error> {
    let count = match manner {
        Manner::Overlap => bench.effort.endpoints,
        // The same pace for a shorter time.
        Manner::Immediate => (bench.effort.endpoints / 4).max(1),
    };
    let store = store_dir(&bench.dir)?;
    let receiver = Receiver::keeping(bench.epoch)?;
    let server = Server::start(&bench.binary, store.path())?;
    let addr = server.addr();
    let made = make_many(addr, count, SETTERS, async |api, number| {
        let app = api.create_app().await?;
        let url = receiver.url(number);
        let endpoint = api.create_endpoint(&app, &url, IN_FLIGHT).await?;
        Ok((app, endpoint))
    })
    .await?;
    let requests: Arc<[Arc<[u8]>]> = made
        .iter()
        .map(|(app, _)| publish(addr, app, 1, scenario.payload_bytes))
        .collect();
    let expected =
        (Duration::from_secs(1) * count / (CONCURRENCY * STEPS_PER_SECOND)).max(SHORTEST);
    let plan = Plan {
        addrs: [addr].into(),
        requests,
        messages: 1,
        fan_out: 1,
        connections: scenario.connections,
        pace: Pace::Paced {
            per_second: bench.effort.storm_per_second,
        },
        time: WARM_UP + expected * (2 * PATIENCE + 1),
        max_messages: u64::MAX,
        stop: Stop::default(),
    };
    let (mut load, seen) = try_join(
        load::run(&plan, &receiver, bench.epoch),
        script(&server, bench.epoch, manner, expected, plan.stop.clone()),
    )
    .await?;
    drained(&mut load, &receiver).await;
    let keys = keys(&server, &made).await?;
    let memory = server.memory()?;
    let stopped = server.stop()?;
    // Closed after the server has stopped, so that a late duplicate counts too.
    let retired = (manner == Manner::Immediate).then_some(seen.windows.after.start);
    let books = compare(
        &mut load.published,
        &receiver.arrivals(),
        &receiver.take_kept(),
        &keys,
        &seen.windows,
        retired,
    );
    let row = Row {
        peak_memory_mb: Some(float(memory.peak) / 1e6),
        stop_ms: Some(stopped.as_secs_f64() * 1e3),
        strange: receiver.strange(),
        ..row(&scenario.name, &load, &books)
    };
    let asked = (manner, count, bench.effort.storm_per_second);
    Ok(with_storm(row, asked, &seen, &books))
}

/// Waits, rotates everything, and waits again; the load goes on beside it until it is told to stop.
async fn script(
    server: &Server,
    epoch: Epoch,
    manner: Manner,
    expected: Duration,
    stop: Stop,
) -> Result<Seen, Error> {
    sleep(WARM_UP).await;
    let (start, cpu_start) = (epoch.now(), server.cpu()?);
    sleep(expected).await;
    let (began, cpu_began) = (epoch.now(), server.cpu()?);
    // Opened now: the server closes connections that nobody used for so long.
    let mut api = Api::open(server.addr()).await?;
    let wanted = json!({
        "selector": { "all": true },
        "mode": manner.as_str(),
        "concurrency": CONCURRENCY,
        "reason": "the storm of the bench",
    });
    let bulk = api.call("POST", "/v1/bulk-rotations", &wanted).await?;
    let path = format!("/v1/bulk-rotations/{}", text(&bulk, "id")?);
    let given_up = Instant::now() + expected * PATIENCE;
    let (ended, rotated) = loop {
        sleep(LOOK).await;
        let progress = api.call("GET", &path, &Value::Null).await?;
        let ended = epoch.now();
        let count = |kind: &str| {
            let count = progress["counts"][kind].as_u64().unwrap_or_default();
            u32::try_from(count).unwrap_or_default()
        };
        match progress["state"].as_str() {
            Some("completed") => break (ended, count("done")),
            Some("running") if Instant::now() < given_up => {}
            _ => return Err(format!("the bulk rotation does not complete: {progress}").into()),
        }
    };
    let (bulk, cpu_ended) = (Duration::from_nanos(ended - began), server.cpu()?);
    sleep(bulk).await;
    let (end, cpu_end) = (epoch.now(), server.cpu()?);
    stop.now();
    Ok(Seen {
        windows: Windows {
            before: start..began,
            during: began..ended,
            after: ended..end,
        },
        bulk,
        rotated,
        cpu: [
            cpu_began.saturating_sub(cpu_start),
            cpu_ended.saturating_sub(cpu_began),
            cpu_end.saturating_sub(cpu_ended),
        ],
    })
}

/// Waits until everything accepted has arrived, or nothing has for a long time.
async fn drained(load: &mut Load, receiver: &Receiver) {
    let mut count = None;
    let mut changed = Instant::now();
    while changed.elapsed() < QUIET {
        let now = receiver.count();
        if count != Some(now) {
            count = Some(now);
            changed = Instant::now();
            if missing(&mut load.published, &receiver.arrivals()) == 0 {
                return;
            }
        }
        sleep(LOOK).await;
    }
}

/// The secrets of every endpoint: the one that its making showed, and the active one, revealed.
async fn keys(server: &Server, made: &[(String, Endpoint)]) -> Result<Vec<Keys>, Error> {
    let count = u32::try_from(made.len())?;
    make_many(server.addr(), count, SETTERS, async |api, number| {
        let (_, endpoint) = &made[number as usize];
        let path = format!("/v1/keyrings/{}", endpoint.keyring);
        let keyring = api.call("GET", &path, &Value::Null).await?;
        let secrets = keyring["secrets"].as_array().into_iter().flatten();
        let active = secrets
            .filter(|secret| secret["status"] == "active")
            .map(|secret| text(secret, "id"))
            .next()
            .ok_or("a keyring has no active secret")??;
        let path = format!("{path}/secrets/{active}/reveal");
        let revealed = api.call("POST", &path, &Value::Null).await?;
        Keys::new(&endpoint.secret, &text(&revealed, "value")?)
    })
    .await
}

fn row(name: &str, load: &Load, books: &Books) -> Row {
    let publishing = Duration::from_nanos(load.answered - load.started);
    let per_second = Some(rate(load.accepted, publishing));
    let during = books.during.all();
    let mut notes = Vec::new();
    notes.extend(
        load.refusal
            .iter()
            .map(|words| format!("first refusal: {words}")),
    );
    Row {
        requests_per_second: per_second,
        deliveries_per_second: per_second,
        accept_p50_ms: millis(&load.accept, 500),
        accept_p99_ms: millis(&load.accept, 990),
        accept_p999_ms: millis(&load.accept, 999),
        receipt_p50_ms: millis(&during, 500),
        receipt_p99_ms: millis(&during, 990),
        lost: Some(books.lost),
        duplicates: Some(books.duplicates),
        unacknowledged: books.unacknowledged,
        refused: load.refused,
        broken: load.broken,
        notes,
        ..Row::named(name)
    }
}

fn with_storm(
    mut row: Row,
    (manner, endpoints, per_second): (Manner, u32, u32),
    seen: &Seen,
    books: &Books,
) -> Row {
    let storm = Storm {
        mode: manner.as_str(),
        endpoints,
        per_second,
        rotated: seen.rotated,
        bulk_seconds: seen.bulk.as_secs_f64(),
        unsigned: books.unsigned,
        by_old: books.by_old,
        by_new: books.by_new,
        before: Receipts::of(&books.before),
        during: Receipts::of(&books.during),
        after: Receipts::of(&books.after),
        cpu_percent: seen.cpu_percent(),
        beside: Receipts::of(&books.beside),
    };
    row.notes.extend(storm.notes());
    row.rotations_per_second = Some(rate(u64::from(seen.rotated), seen.bulk));
    row.storm = Some(storm);
    row
}

//! What messages and deliveries take: bytes, transactions, statements, round trips, processor time.
//!
//! Each is a difference over a load, between two looks at a server that has nothing to do. A message to one endpoint
//! is one delivery with one attempt; from fan-out 1 and 10 together follows what each of both takes by itself. What a
//! node does when nothing happens is a row of its own, for each second.
//!
//! On PostgreSQL: bytes of its log, growth of the partitions of messages, attempts and settled deliveries (the queue
//! is rewritten in place and does not grow with what went through it), processor time of all its processes.
//! Statements and round trips are counted in a run of their own, because counting takes time: by
//! `pg_stat_statements`, and by a [wire](crate::wire). Of the embedded store: bytes of its file after the end, and
//! what the kernel wrote for the server, the log included.

use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::fixture::{Bench, Fixture, Measured, Spent};
use crate::load::Pace;
use crate::number::{Error, float};
use crate::place::{Engine, Place};
use crate::scenario::{Kind, Scenario, single};
use crate::table::{Align, Table};

/// Statistics reach the views of the database within a second, and the heartbeat of a node sends them.
const SETTLE: Duration = Duration::from_millis(1_500);
/// How long a node is looked at that has nothing to do.
const IDLE: Duration = Duration::from_secs(10);
/// A set pace lasts longer, for so little happens in a second.
const PACED_TIMES: u32 = 2;

/// A load whose costs are looked at.
struct Load {
    name: &'static str,
    /// Messages a second; as fast as it goes without.
    per_second: Option<u32>,
    fan_out: u32,
    messages: u32,
}

const LOADS: [Load; 6] = [
    load("idle", Some(0), 1, 1),
    load("100/s", Some(100), 1, 1),
    load("1000/s", Some(1_000), 1, 1),
    load(FAN_OUT_1, None, 1, 1),
    load(FAN_OUT_10, None, 10, 1),
    load("fan-out 1, batches", None, 1, 100),
];

const FAN_OUT_1: &str = "fan-out 1";
const FAN_OUT_10: &str = "fan-out 10";

const fn load(name: &'static str, per_second: Option<u32>, fan_out: u32, messages: u32) -> Load {
    Load {
        name,
        per_second,
        fan_out,
        messages,
    }
}

/// What one load took, in all.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cost {
    pub(crate) load: String,
    pub(crate) seconds: f64,
    pub(crate) messages: u64,
    pub(crate) fan_out: u32,
    pub(crate) server_micros: f64,
    pub(crate) database: Option<OfDatabase>,
    pub(crate) file: Option<OfFile>,
}

/// Of PostgreSQL, in all.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OfDatabase {
    pub(crate) micros: f64,
    pub(crate) wal_bytes: f64,
    /// Images of whole pages in it: each page once after each checkpoint.
    pub(crate) wal_pages: f64,
    pub(crate) syncs: f64,
    pub(crate) table_bytes: f64,
    pub(crate) index_bytes: f64,
    pub(crate) commits: f64,
    /// Of each message or second, from a run of their own.
    pub(crate) statements: Option<f64>,
    pub(crate) round_trips: Option<f64>,
}

/// Of the embedded store, in all.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OfFile {
    /// Of each message, those before the load included.
    pub(crate) bytes_each: f64,
    pub(crate) written_bytes: f64,
}

impl Cost {
    /// What is divided by: messages, or seconds where there were none.
    fn units(&self) -> f64 {
        if self.messages == 0 {
            self.seconds.max(f64::EPSILON)
        } else {
            float(self.messages)
        }
    }
}

/// Runs all loads.
pub(crate) async fn run(bench: &Bench) -> Result<Vec<Cost>, Error> {
    let mut costs = Vec::new();
    for load in &LOADS {
        let place = Place::make(bench).await?;
        let mut cost = measure(bench, load, place).await?;
        if let Some(database) = &mut cost.database
            && let Some(place) = Place::counting(bench).await?
        {
            let (statements, round_trips) = count(bench, load, place).await?;
            database.statements = Some(statements);
            database.round_trips = Some(round_trips);
        }
        costs.push(cost);
    }
    Ok(costs)
}

fn scenario(load: &Load) -> Scenario {
    Scenario {
        fan_out: load.fan_out,
        messages: load.messages,
        ..single(load.name, Kind::Closed, 256)
    }
}

/// Publishes, or does nothing where nothing is published.
async fn publish(
    bench: &Bench,
    fixture: &mut Fixture,
    load: &Load,
) -> Result<Option<Measured>, Error> {
    let time = bench.effort.time;
    let plan = match load.per_second {
        None => fixture.closed(time),
        Some(0) => {
            sleep(IDLE).await;
            return Ok(None);
        }
        Some(per_second) => fixture.plan(Pace::Paced { per_second }, time * PACED_TIMES),
    };
    fixture.measure(&plan).await.map(Some)
}

async fn measure(bench: &Bench, load: &Load, place: Place) -> Result<Cost, Error> {
    let mut fixture = Fixture::start_in(bench, &scenario(load), place).await?;
    let warm_up = fixture.closed(bench.effort.warm_up());
    fixture.measure(&warm_up).await?;
    let before = Look::at(&fixture, true).await?;
    let measured = publish(bench, &mut fixture, load).await?;
    let after = Look::at(&fixture, false).await?;
    let (messages, started, seconds) = match &measured {
        Some(measured) => (
            measured.deliveries / u64::from(load.fan_out),
            measured.started,
            measured.elapsed,
        ),
        None => (0, u64::MAX, IDLE + SETTLE),
    };
    let mut cost = Cost {
        load: load.name.to_owned(),
        seconds: seconds.as_secs_f64(),
        messages,
        fan_out: load.fan_out,
        server_micros: micros(after.spent.server, before.spent.server),
        database: after.of_database_since(&before),
        file: None,
    };
    if bench.engine == Engine::Sqlite {
        fixture.part().await?;
        let file = fixture.place().file().ok_or("there is no file")?;
        let all = float(fixture.accepted().max(1));
        cost.file = Some(OfFile {
            bytes_each: float(std::fs::metadata(file)?.len()) / all,
            written_bytes: after.written - before.written,
        });
    }
    let row = fixture.finish(started, crate::report::Row::named(load.name))?;
    match (row.lost, row.duplicates) {
        (Some(0), Some(0)) => Ok(cost),
        books => Err(format!("{}: lost and duplicates are {books:?}", load.name).into()),
    }
}

/// Statements and round trips of each message or second.
async fn count(bench: &Bench, load: &Load, place: Place) -> Result<(f64, f64), Error> {
    let mut fixture = Fixture::start_in(bench, &scenario(load), place).await?;
    let warm_up = fixture.closed(bench.effort.warm_up());
    fixture.measure(&warm_up).await?;
    let before = Counted::at(&fixture).await?;
    let measured = publish(bench, &mut fixture, load).await?;
    let after = Counted::at(&fixture).await?;
    let units = measured.map_or((IDLE + SETTLE).as_secs_f64(), |measured| {
        float(measured.deliveries / u64::from(load.fan_out)).max(1.0)
    });
    Ok((
        (after.statements - before.statements) / units,
        (after.round_trips - before.round_trips) / units,
    ))
}

fn micros(after: Duration, before: Duration) -> f64 {
    after.saturating_sub(before).as_secs_f64() * 1e6
}

/// The state of a server that has nothing to do.
struct Look {
    spent: Spent,
    written: f64,
    database: Option<Database>,
}

#[derive(Clone, Copy)]
struct Database {
    wal_bytes: f64,
    wal_pages: f64,
    syncs: f64,
    table_bytes: f64,
    index_bytes: f64,
    commits: f64,
}

impl Look {
    /// Waits until everything is counted, and looks. The first one of two lets a checkpoint go before.
    async fn at(fixture: &Fixture, first: bool) -> Result<Self, Error> {
        let client = match fixture.place().cluster() {
            Some((cluster, name)) => Some((cluster.connect(name).await?, name)),
            None => None,
        };
        if let Some((client, _)) = client.as_ref().filter(|_| first) {
            client.batch_execute("CHECKPOINT").await?;
        }
        sleep(SETTLE).await;
        let mut written = 0;
        for node in fixture.nodes() {
            written += node.written()?;
        }
        // Before the question, whose own time belongs to nothing.
        let spent = fixture.spent()?;
        let database = match &client {
            Some((client, name)) => Some(Database::at(client, name).await?),
            None => None,
        };
        Ok(Self {
            spent,
            written: float(written),
            database,
        })
    }

    fn of_database_since(&self, before: &Self) -> Option<OfDatabase> {
        let (after, before, spent) = (
            self.database?,
            before.database?,
            self.spent.database.zip(before.spent.database)?,
        );
        Some(OfDatabase {
            micros: micros(spent.0, spent.1),
            wal_bytes: after.wal_bytes - before.wal_bytes,
            wal_pages: after.wal_pages - before.wal_pages,
            syncs: after.syncs - before.syncs,
            table_bytes: after.table_bytes - before.table_bytes,
            index_bytes: after.index_bytes - before.index_bytes,
            commits: after.commits - before.commits,
            statements: None,
            round_trips: None,
        })
    }
}

impl Database {
    async fn at(client: &Client, name: &str) -> Result<Self, Error> {
        let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8, wal_fpi::float8, wal_sync::float8,
                          tables::float8, indexes::float8,
                          (SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = $1)
                   FROM pg_stat_wal, (
                       SELECT coalesce(sum(pg_relation_size(c.oid)) FILTER (WHERE c.relkind = 'r'), 0) AS tables,
                              coalesce(sum(pg_relation_size(c.oid)) FILTER (WHERE c.relkind = 'i'), 0) AS indexes
                       FROM pg_class c WHERE c.relnamespace = 'hookturn'::regnamespace
                         AND c.relname ~ '^(message|attempt|settled)_[0-9]{8}') AS sizes";
        let row = client.query_one(sql, &[&name]).await?;
        Ok(Self {
            wal_bytes: row.get(0),
            wal_pages: row.get(1),
            syncs: row.get(2),
            table_bytes: row.get(3),
            index_bytes: row.get(4),
            commits: row.get(5),
        })
    }
}

struct Counted {
    statements: f64,
    round_trips: f64,
}

impl Counted {
    async fn at(fixture: &Fixture) -> Result<Self, Error> {
        sleep(SETTLE).await;
        let place = fixture.place();
        let (cluster, name) = place.cluster().ok_or("there is no database")?;
        let wire = place.wire().ok_or("there is no wire")?;
        let round_trips = float(wire.turns());
        let client = cluster.connect(name).await?;
        let sql = "SELECT coalesce(sum(calls), 0)::float8 FROM pg_stat_statements
                   WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                     AND toplevel AND query NOT LIKE '%pg_stat_statements%'";
        let statements = client.query_one(sql, &[]).await?.get(0);
        Ok(Self {
            statements,
            round_trips,
        })
    }
}

// ----- the report -----

/// The costs as text: of each message, of each second where there are none.
pub(crate) fn text(costs: &[Cost]) -> String {
    let table = if costs.iter().any(|cost| cost.database.is_some()) {
        on_postgres(costs)
    } else {
        embedded(costs)
    };
    format!("{table}{LEGEND}")
}

const LEGEND: &str = "\
For each message with its deliveries and attempts, what an idle server does meanwhile included; idle: for each second.
A message and a delivery by themselves follow from fan-out 1 and 10. CPU in microseconds.
";

type Number = fn(&OfDatabase) -> f64;

fn on_postgres(costs: &[Cost]) -> Table {
    let mut table = Table::new(&[
        ("costs", Align::Left),
        ("messages", Align::Right),
        ("msg/s", Align::Right),
        ("WAL B", Align::Right),
        ("of it pages", Align::Right),
        ("tables B", Align::Right),
        ("indexes B", Align::Right),
        ("commits", Align::Right),
        ("syncs", Align::Right),
        ("statements", Align::Right),
        ("round trips", Align::Right),
        ("server us", Align::Right),
        ("database us", Align::Right),
    ]);
    let numbers: [(Number, usize); 6] = [
        (|of| of.wal_bytes, 0),
        (|of| of.wal_pages * PAGE, 0),
        (|of| of.table_bytes, 0),
        (|of| of.index_bytes, 0),
        (|of| of.commits, 4),
        (|of| of.syncs, 4),
    ];
    for cost in costs {
        let Some(database) = &cost.database else {
            continue;
        };
        let each = |value: f64, digits: usize| format!("{:.digits$}", value / cost.units());
        let mut cells = head(cost);
        cells.extend(
            numbers
                .iter()
                .map(|(of, digits)| each(of(database), *digits)),
        );
        cells.push(or_dash(database.statements, 3));
        cells.push(or_dash(database.round_trips, 3));
        cells.push(each(cost.server_micros, 1));
        cells.push(each(database.micros, 1));
        table.push(cells);
    }
    for (name, which) in PARTS {
        let of = |number: Number| {
            let value = |cost: &Cost| Some(number(cost.database.as_ref()?) / cost.units());
            or_dash(Apart::of(costs, value).as_ref().map(which), 0)
        };
        let mut cells = vec![name.to_owned(), String::new(), String::new()];
        cells.extend(numbers[..4].iter().map(|(number, _)| of(*number)));
        cells.extend([String::new(), String::new(), String::new(), String::new()]);
        let server = Apart::of(costs, |cost| Some(cost.server_micros / cost.units()));
        cells.push(or_dash(server.as_ref().map(which), 1));
        let value = |cost: &Cost| Some(cost.database.as_ref()?.micros / cost.units());
        cells.push(or_dash(Apart::of(costs, value).as_ref().map(which), 1));
        table.push(cells);
    }
    table
}

/// Bytes of a page of PostgreSQL: an image of one takes at most as many.
const PAGE: f64 = 8_192.0;

fn embedded(costs: &[Cost]) -> Table {
    let mut table = Table::new(&[
        ("costs", Align::Left),
        ("messages", Align::Right),
        ("msg/s", Align::Right),
        ("file B", Align::Right),
        ("written B", Align::Right),
        ("server us", Align::Right),
    ]);
    for cost in costs {
        let Some(file) = &cost.file else { continue };
        let mut cells = head(cost);
        cells.push(if cost.messages == 0 {
            "-".to_owned()
        } else {
            format!("{:.0}", file.bytes_each)
        });
        cells.push(format!("{:.0}", file.written_bytes / cost.units()));
        cells.push(format!("{:.1}", cost.server_micros / cost.units()));
        table.push(cells);
    }
    for (name, which) in PARTS {
        let of = |value: fn(&Cost) -> Option<f64>, digits| {
            or_dash(Apart::of(costs, value).as_ref().map(which), digits)
        };
        table.push(vec![
            name.to_owned(),
            String::new(),
            String::new(),
            of(|cost| Some(cost.file.as_ref()?.bytes_each), 0),
            of(
                |cost| Some(cost.file.as_ref()?.written_bytes / cost.units()),
                0,
            ),
            of(|cost| Some(cost.server_micros / cost.units()), 1),
        ]);
    }
    table
}

fn head(cost: &Cost) -> Vec<String> {
    let rate = float(cost.messages) / cost.seconds.max(f64::EPSILON);
    vec![
        cost.load.clone(),
        cost.messages.to_string(),
        format!("{rate:.0}"),
    ]
}

/// Which of two parts.
type Which = fn(&Apart) -> f64;

const PARTS: [(&str, Which); 2] = [
    ("  a message by itself", |apart| apart.message),
    ("  a delivery with its attempt", |apart| apart.delivery),
];

/// What a message takes by itself, and what each of its deliveries adds.
pub(crate) struct Apart {
    pub(crate) message: f64,
    pub(crate) delivery: f64,
}

impl Apart {
    /// From what a message took with one endpoint and with several.
    pub(crate) fn of(costs: &[Cost], value: impl Fn(&Cost) -> Option<f64>) -> Option<Self> {
        let find = |name: &str| costs.iter().find(|cost| cost.load == name);
        let (one, many) = (find(FAN_OUT_1)?, find(FAN_OUT_10)?);
        let (of_one, of_many) = (value(one)?, value(many)?);
        let delivery = (of_many - of_one) / f64::from(many.fan_out - one.fan_out);
        Some(Self {
            message: of_one - delivery,
            delivery,
        })
    }
}

fn or_dash(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

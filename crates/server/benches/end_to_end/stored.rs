//! An empty database and one that holds many messages, on one cluster, in turns.
//!
//! The stored messages are those of the endpoint that the load is for, all settled, spread evenly over twenty days.
//! One day of them is written by the store's own code; the days before are that day again, with the times in their
//! ids and columns moved by whole days, copied by the database. Then the tables are vacuumed and analyzed, as they
//! would be after twenty days, and a checkpoint is made. Both databases have a server that runs all the time, and
//! take turns.

use bytes::Bytes;
use futures_util::future::try_join_all;
use hookturn::telemetry::SystemClock;
use hookturn_core::id::MessageId;
use hookturn_core::time::{Clock, DAY, Timestamp};
use serde::Serialize;
use tokio::time::Instant;

use crate::api::payload;
use crate::fill::{DAYS, fill_day};
use crate::fixture::{Bench, Fixture};
use crate::nodes::{TURNS, Turns};
use crate::number::{Error, float};
use crate::place::Place;
use crate::report::Row;
use crate::scenario::{EMPTY, STORED, Scenario};

/// What the database held.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stored {
    pub(crate) messages: u64,
    pub(crate) filled_seconds: f64,
    pub(crate) database_mb: f64,
}

pub(crate) async fn run(bench: &Bench, scenario: &Scenario) -> Result<Vec<Row>, Error> {
    let place = Place::make(bench).await?;
    let beside = place.beside(bench, STORED).await?;
    let mut empty = Fixture::start_in(bench, scenario, place).await?;
    let mut full = Fixture::start_in(bench, scenario, beside).await?;
    full.part().await?;
    let stored = fill(&full, bench.effort.stored, scenario.payload_bytes).await?;
    full.join().await?;
    let (mut of_empty, mut of_full) = (Turns::default(), Turns::default());
    for fixture in [&mut empty, &mut full] {
        let warm_up = fixture.closed(bench.effort.warm_up());
        fixture.measure(&warm_up).await?;
    }
    for _ in 0..TURNS {
        of_empty.take(&mut empty, bench.effort.time).await?;
        of_full.take(&mut full, bench.effort.time).await?;
    }
    let (row, began) = of_empty.row(EMPTY)?;
    let of_empty = empty.finish(began, row)?;
    let (mut row, began) = of_full.row(STORED)?;
    row.notes.push(format!(
        "{} messages in {:.0} MB, filled in {:.0} s",
        stored.messages, stored.database_mb, stored.filled_seconds
    ));
    row.stored = Some(stored);
    Ok(vec![of_empty, full.finish(began, row)?])
}

/// Fills a database whose server was stopped.
pub(crate) async fn fill(
    full: &Fixture,
    messages: u64,
    payload_bytes: usize,
) -> Result<Stored, Error> {
    let (cluster, name) = full
        .place()
        .cluster()
        .ok_or("only a database is filled so")?;
    let endpoint = full.endpoints.first().ok_or("there is no endpoint")?;
    let began = Instant::now();
    let each_day = (messages / DAYS).max(1);
    let yesterday = yesterday();
    let body = Bytes::from(payload(payload_bytes));
    let day = (yesterday, each_day);
    fill_day(&cluster.url(name), &endpoint.id, body, day).await?;
    let copied = COPIES.iter().map(|copy| async move {
        let client = cluster.connect(name).await?;
        client.batch_execute(EARLIER).await?;
        for days in 1..DAYS {
            client
                .batch_execute(&copy_of(copy, yesterday, days))
                .await?;
        }
        let (table, ..) = copy;
        let vacuum = format!("VACUUM (ANALYZE) hookturn.{table}");
        client.batch_execute(&vacuum).await?;
        Ok::<_, Error>(())
    });
    try_join_all(copied).await?;
    let client = cluster.connect(name).await?;
    client.batch_execute("CHECKPOINT").await?;
    let sql =
        "SELECT (SELECT count(*) FROM hookturn.settled), pg_database_size(current_database())";
    let found = client.query_one(sql, &[]).await?;
    let (stored, bytes): (i64, i64) = (found.get(0), found.get(1));
    let stored = stored.max(0).cast_unsigned();
    if stored + DAYS < each_day * DAYS {
        return Err(format!("only {stored} of {messages} messages were stored").into());
    }
    Ok(Stored {
        messages: stored,
        filled_seconds: began.elapsed().as_secs_f64(),
        database_mb: float(bytes.max(0).cast_unsigned()) / 1e6,
    })
}

/// The first moment of the day before this one, in UTC.
fn yesterday() -> Timestamp {
    let day = i64::try_from(DAY).unwrap_or(i64::MAX);
    let today = SystemClock.now().as_millis() / day * day;
    Timestamp::from_millis(today).before(DAY)
}

/// The same id, made earlier: its first 48 bits are the time in milliseconds.
const EARLIER: &str = "CREATE FUNCTION pg_temp.earlier(id uuid, millis bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint - millis), 12, '0')
            || right(replace(id::text, '-', ''), 20))::uuid $$";

/// What is copied: a table, the column that it is partitioned by, and its columns some time earlier.
const COPIES: [(&str, &str, &str); 3] = [
    (
        "message",
        "id",
        "workspace, app, pg_temp.earlier(id, MILLIS), event_type, event_id, accepted_at - MILLIS, payload",
    ),
    (
        "attempt",
        "delivery",
        "workspace, pg_temp.earlier(delivery, MILLIS), number, app, record",
    ),
    (
        "settled",
        "delivery",
        "workspace, app, pg_temp.earlier(delivery, MILLIS), endpoint, pg_temp.earlier(message, MILLIS), event_type, attempts,
         settled_at - MILLIS, exhausted",
    ),
];

/// The statement that makes a day of the one that was written.
fn copy_of((table, key, columns): &(&str, &str, &str), day: Timestamp, earlier: u64) -> String {
    let millis = earlier * DAY;
    let columns = columns.replace("MILLIS", &millis.to_string());
    let first = |at: Timestamp| uuid::Uuid::from_bytes(MessageId::first_at(at).to_bytes());
    let (from, before) = (first(day), first(day.after(DAY)));
    format!(
        "INSERT INTO hookturn.{table} SELECT {columns} FROM hookturn.{table}
         WHERE {key} >= '{from}' AND {key} < '{before}'"
    )
}

//! Days: the partitions of messages, attempts and settled deliveries.
//!
//! A row belongs to the day in which its id was made, so a partition is a range of ids. Days are made
//! ahead (when the store opens, and by every sweep), and by the writer for an id whose day is missing, in
//! the transaction that needs it: there is no partition for what fits nowhere, because each new one would
//! have to search it. A day is attached, never declared in place, which would lock out every reader.

use std::collections::BTreeSet;

use hookturn_core::id::DeliveryId;
use hookturn_core::time::{DAY, Timestamp};
use tokio_postgres::Row;

use super::connect::{SCHEMA, Session};
use super::rows::{Outcome, collect, column, rows, run, uuid};
use crate::store::encoding::impossible;

/// What is partitioned.
pub(super) const TABLES: [&str; 3] = ["message", "attempt", "settled"];
/// How many days are made ahead, today included.
const AHEAD: i64 = 3;
/// Days are made by one at a time.
const LOCK: i64 = 0x686b_746e_0001;

/// One day, counted from 1970-01-01 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Day(i64);

impl Day {
    pub(super) const fn of(time: Timestamp) -> Self {
        Self(time.as_millis() / DAY.cast_signed())
    }

    /// Its first moment.
    pub(super) const fn begins(self) -> Timestamp {
        Timestamp::from_millis(self.0 * DAY.cast_signed())
    }

    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Today and what is made ahead of it.
    pub(super) fn ahead(now: Timestamp) -> impl Iterator<Item = Self> {
        (0..AHEAD).map(move |more| Self(Self::of(now).0 + more))
    }

    /// The partition of a table.
    pub(super) fn partition(self, table: &str) -> String {
        let begins = self.begins().to_string();
        // The first ten characters are the date: 2026-07-20.
        let date: String = begins.chars().take(10).filter(|c| *c != '-').collect();
        format!("{table}_{date}")
    }

    /// The inverse of [`Day::partition`].
    fn of_partition(table: &str, partition: &str) -> Option<Self> {
        let date = partition.strip_prefix(table)?.strip_prefix('_')?;
        let (year, month, day) = (date.get(..4)?, date.get(4..6)?, date.get(6..)?);
        let begins = format!("{year}-{month}-{day}T00:00:00Z");
        begins.parse().ok().map(Self::of)
    }

    /// From which id on, and before which.
    fn range(self) -> (uuid::Uuid, uuid::Uuid) {
        let first = |day: Self| uuid(DeliveryId::first_at(day.begins()).to_bytes());
        (first(self), first(self.next()))
    }
}

/// The days there are.
pub(super) async fn known(session: &Session) -> Outcome<BTreeSet<Day>> {
    let sql = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'message'::regclass";
    let read = |row: &Row| {
        let name: &str = column(row, 0)?;
        Day::of_partition("message", name)
            .ok_or_else(|| impossible("message", "partition", &name, "not the name of a day"))
    };
    let days = collect(session, "list the days", sql, &[], read).await?;
    Ok(days.into_iter().collect())
}

/// What the database's clock says.
pub(super) async fn now(session: &Session) -> Outcome<Timestamp> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let found = rows(session, "read the clock", sql, &[]).await?;
    let millis = found.first().map_or(Ok(0), |row| column(row, 0))?;
    Ok(Timestamp::from_millis(millis))
}

/// Makes those of `wanted` that are missing, within the open transaction.
pub(super) async fn make(session: &Session, wanted: impl Iterator<Item = Day>) -> Outcome<()> {
    const STEP: &str = "make a day's partitions";
    let lock = format!("SELECT pg_advisory_xact_lock({LOCK})");
    run(session, STEP, &lock).await?;
    let there = known(session).await?;
    for day in wanted.filter(|day| !there.contains(day)) {
        let (from, before) = day.range();
        for table in TABLES {
            let name = day.partition(table);
            let sql = format!(
                "CREATE TABLE {SCHEMA}.{name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS
                     INCLUDING STORAGE INCLUDING INDEXES);
                 ALTER TABLE {table} ATTACH PARTITION {SCHEMA}.{name} FOR VALUES FROM ('{from}') TO ('{before}')"
            );
            run(session, STEP, &sql).await?;
        }
    }
    Ok(())
}

/// How long dropping a day waits for those who read it; it is tried again by the next sweep.
const PATIENCE: &str = "200ms";

/// Removes a day with everything in it, within the open transaction. Returns about how many rows it had.
pub(super) async fn drop_whole(session: &Session, day: Day) -> Outcome<u64> {
    const STEP: &str = "remove a day past its retention";
    let names: Vec<String> = TABLES.iter().map(|table| day.partition(table)).collect();
    let sql = "SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint FROM pg_class
               WHERE relnamespace = $1::text::regnamespace AND relname = ANY($2)";
    let found = rows(session, STEP, sql, &[&SCHEMA, &names]).await?;
    let about: i64 = found.first().map_or(Ok(0), |row| column(row, 0))?;
    let sql = format!(
        "SET LOCAL lock_timeout = '{PATIENCE}'; DROP TABLE {}; SET LOCAL lock_timeout = '2s'",
        names.join(", ")
    );
    run(session, STEP, &sql).await?;
    Ok(about.max(0).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_named_by_its_date_and_holds_the_ids_that_were_made_in_it() {
        let noon = Timestamp::from_millis(1_784_505_600_000 + 12 * 3_600_000);
        let day = Day::of(noon);
        assert_eq!(day.partition("message"), "message_20260720");
        assert_eq!(Day::of_partition("message", "message_20260720"), Some(day));
        assert_eq!(Day::of_partition("message", "message_pkey"), None);
        let (from, before) = day.range();
        let id = uuid(DeliveryId::first_at(noon).to_bytes());
        assert!(from < id && id < before);
        assert_eq!(day.next().range().0, before);
    }

    #[test]
    fn the_last_day_that_a_time_can_have_is_a_range_too() {
        let (from, before) = Day::of(Timestamp::FAR_FUTURE.before(DAY)).range();
        assert!(from < before);
    }
}

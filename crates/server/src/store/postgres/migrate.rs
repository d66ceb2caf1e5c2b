//! The schema of the database: made and brought up to date under a lock, in one transaction.
//!
//! A step only adds (tables, columns, indexes); what an older version still reads goes in a later one.

use tokio_postgres::Transaction;

use super::connect::{OpenError, SCHEMA};

/// The steps, in order; the database remembers which it has seen.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
];

/// The newest schema of this version.
pub(super) fn newest() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Locks the schema against others that begin at the same time. "hktn", as in the embedded engine's file.
const LOCK: i64 = 0x686b_746e;

/// Brings the schema up to date. What is newer than this version is refused.
pub(super) async fn migrate(tx: &Transaction<'_>) -> Result<(), OpenError> {
    tx.batch_execute(&format!("SELECT pg_advisory_xact_lock({LOCK})"))
        .await
        .map_err(OpenError::Migration)?;
    let found = schema(tx).await.map_err(OpenError::Migration)?;
    let known = newest();
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    for (number, sql) in (1..).zip(MIGRATIONS) {
        if number > found {
            let step = format!("{sql}; INSERT INTO migration (number) VALUES ({number});");
            tx.batch_execute(&step)
                .await
                .map_err(OpenError::Migration)?;
        }
    }
    Ok(())
}

/// How many steps the database has seen.
async fn schema(tx: &Transaction<'_>) -> Result<i32, tokio_postgres::Error> {
    // Asked first: a user who may not create a schema may still use the one that is there.
    let there = "SELECT to_regclass($1) IS NOT NULL";
    let there = tx
        .query_one(there, &[&format!("{SCHEMA}.migration")])
        .await?;
    if !there.get::<_, bool>(0) {
        let make = format!(
            "CREATE SCHEMA IF NOT EXISTS {SCHEMA};
             CREATE TABLE migration (number integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());"
        );
        tx.batch_execute(&make).await?;
    }
    let seen = "SELECT coalesce(max(number), 0) FROM migration";
    tx.query_one(seen, &[]).await.map(|row| row.get(0))
}

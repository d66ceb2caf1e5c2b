//! A look at a database from beside it: what is there, who works on it, how far away it is.

use std::time::Duration;

use hookturn_core::time::Timestamp;
use tokio::time::Instant;
use tokio_postgres::Row;

use super::connect::{OpenError, Session, Target};
use super::node::{self, Holder};
use super::rows::{Outcome, collect, column, first};
use super::{configuration, days, filling, migrate, session, upkeep};
use crate::store::seal::SealedUnder;

/// What was found.
#[derive(Debug, Clone)]
pub struct Examined {
    /// Host and name of the database.
    pub database: String,
    /// The version of the server.
    pub server: String,
    /// The schema; 0 when there is none.
    pub schema: i32,
    /// The newest schema of this version.
    pub newest: i32,
    /// Who works on it, in order of coming.
    pub holders: Vec<Holder>,
    /// Whether an answer means that the log was synced, whatever this version asks for.
    pub durable: bool,
    /// Whether only a part of a store was copied into it so far.
    pub half_copied: bool,
    /// Bytes of all tables.
    pub bytes: u64,
    /// The value kept under the key that was asked for.
    pub meta: Option<Vec<u8>>,
    /// What is sealed, by master key.
    pub sealed: Vec<SealedUnder>,
    /// How long a question takes to and fro.
    pub round_trip: Duration,
    /// What its clock said at about the end of this look.
    pub now: Timestamp,
}

/// Looks at a database without changing it. `meta` names a kept value to return.
pub async fn examine(target: &Target, meta: &'static str) -> Result<Examined, OpenError> {
    let failed = OpenError::Failed;
    let mut session = target.reach().await?;
    let tx = session.transaction().await.map_err(OpenError::Migration)?;
    let plan = migrate::plan_of(&tx).await?;
    drop(tx);
    let sql = "SELECT current_setting('server_version'), current_setting('fsync')::boolean";
    let told = first(&session, "look at the database", sql, &[]).await;
    let (server, durable) = match told.map_err(failed)? {
        Some(row) => (
            column(&row, 0).map_err(failed)?,
            column(&row, 1).map_err(failed)?,
        ),
        None => (String::new(), false),
    };
    let mut examined = Examined {
        database: target.name(),
        server,
        schema: plan.found,
        newest: plan.known,
        holders: node::holders(&session).await.map_err(failed)?,
        durable,
        half_copied: false,
        bytes: 0,
        meta: None,
        sealed: Vec::new(),
        round_trip: Duration::ZERO,
        now: Timestamp::EPOCH,
    };
    if plan.found > 0 {
        examined.bytes = upkeep::stats(&session).await.map_err(failed)?.bytes;
        let kept = configuration::meta(&session, meta).await;
        examined.meta = kept.map_err(failed)?;
        let copying = configuration::meta(&session, filling::PLACE).await;
        examined.half_copied = copying.map_err(failed)?.is_some();
        examined.sealed = sealed(&session).await.map_err(failed)?;
    }
    let begun: Instant = session::round_trip(&session).await.map_err(failed)?;
    examined.round_trip = begun.elapsed();
    examined.now = days::now(&session).await.map_err(failed)?;
    Ok(examined)
}

/// What is sealed under which master key: by the ids in the boxes.
async fn sealed(session: &Session) -> Outcome<Vec<SealedUnder>> {
    let sql = "SELECT encode(substring(sealed FROM 2 FOR 8), 'hex'),
                      count(*) FILTER (WHERE secret), count(*) FILTER (WHERE NOT secret)
               FROM (SELECT sealed, true FROM secret
                     UNION ALL SELECT value, true FROM meta WHERE key = 'mark_key'
                     UNION ALL SELECT response, false FROM idempotency WHERE response <> ''
                         AND expires_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS boxes (sealed, secret)
               GROUP BY 1 ORDER BY 1";
    let read = |row: &Row| {
        let (secrets, answers): (i64, i64) = (column(row, 1)?, column(row, 2)?);
        Ok(SealedUnder {
            key_id: column(row, 0)?,
            secrets: secrets.cast_unsigned(),
            answers: answers.cast_unsigned(),
        })
    };
    collect(session, "look what is sealed", sql, &[], read).await
}

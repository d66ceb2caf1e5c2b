//! Who works on the database: one process, for as long as its connection lasts.
//!
//! **The lock.** The owner holds an advisory lock in the session that it writes with, so nobody who lost it
//! can write: the lock and the connection end together. A second process is refused, and told who has it.
//!
//! **The epoch.** Each owner is one more than the last, in the row of its shard. A process that was cut off
//! takes the lock again and goes on if the epoch is still its own; otherwise there was someone else
//! meanwhile, what it holds in memory is old, and it ends.
//!
//! **The grace.** An owner signs only while a round trip on that session began less than [`GRACE`] ago
//! ([`Live::confirm_until`](crate::store::live::Live::confirm_until)). Its session ended before anybody else
//! could get the lock; so whoever gets it waits for as long, and then nobody signs with a key that the new
//! owner retires (G4). One that stopped in order said so, and is not waited for.
//!
//! A shard is all there is for now. Several are several rows, each with a lock of its own.

use std::fmt;
use std::time::Duration;

use hookturn_core::id::draw;
use hookturn_core::store::StoreError;
use tokio::time::Instant;
use tokio_postgres::{Row, SimpleQueryMessage};

use super::connect::{SCHEMA, Session};
use super::rows::{Outcome, column, failed, first, rows, run};
use crate::telemetry::SystemEntropy;

/// How long what was confirmed may be believed.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How often it is confirmed when nothing is written.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long the lock is waited for: a session whose process ended may linger for a moment.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// "hktn", as the locks of the schema and of its days.
const LOCK: i64 = 0x686b_746e_0002;
const SHARD: i32 = 0;
const STEP: &str = "take the database";

/// The part of a host's name that is told: the database cuts names off at 63 bytes.
const HOST_BYTES: usize = 24;

/// This process, as the database and other processes see it.
#[derive(Debug, Clone)]
pub(super) struct Tenure {
    name: String,
    epoch: i64,
}

/// Who has the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    name: String,
    address: Option<String>,
    since: Option<String>,
    backend: i32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(address) = &self.address {
            write!(f, ", from {address}")?;
        }
        if let Some(since) = &self.since {
            write!(f, ", since {since}")?;
        }
        Ok(())
    }
}

impl Tenure {
    pub(super) fn new() -> Self {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        let host: String = host.chars().filter(char::is_ascii_graphic).collect();
        let host = host.get(..HOST_BYTES).unwrap_or(&host);
        let id = hex::encode(draw::<4>(&SystemEntropy));
        Self {
            name: format!("hookturn on {host}, process {}, {id}", std::process::id()),
            epoch: 0,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes the lock for this session, or says who has it. An earlier session of this process is ended.
    pub(super) async fn lock(&self, session: &Session) -> Outcome<Result<(), Holder>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sql = format!("SELECT pg_try_advisory_lock({LOCK})");
            let found = first(session, STEP, &sql, &[]).await?;
            if found.map_or(Ok(false), |row| column(&row, 0))? {
                return Ok(Ok(()));
            }
            if let Some(holder) = holder(session).await? {
                if holder.name == self.name {
                    let end = "SELECT pg_terminate_backend($1)";
                    rows(session, STEP, end, &[&holder.backend]).await?;
                } else if Instant::now() >= deadline {
                    return Ok(Err(holder));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Begins a tenure under the lock. Returns whether the last owner said that it ended.
    pub(super) async fn take(&mut self, session: &Session) -> Outcome<bool> {
        let sql = "WITH before AS (SELECT left_at FROM shard_owner WHERE shard = $1)
                   INSERT INTO shard_owner (shard, epoch, holder) VALUES ($1, 1, $2)
                   ON CONFLICT (shard) DO UPDATE
                   SET epoch = shard_owner.epoch + 1, holder = excluded.holder, written = 0,
                       taken_at = clock_timestamp(), left_at = NULL
                   RETURNING epoch, NOT EXISTS (SELECT FROM before WHERE left_at IS NULL)";
        let taken = first(session, STEP, sql, &[&SHARD, &self.name]).await?;
        let Some(row) = taken else {
            return Ok(false);
        };
        self.epoch = column(&row, 0)?;
        column(&row, 1)
    }

    /// Begins the owner's transaction of this number; each is greater than those that were committed.
    pub(super) async fn begin(&self, session: &Session, number: i64) -> Outcome<()> {
        let sql = format!(
            "BEGIN; UPDATE shard_owner SET written = {number} WHERE shard = {SHARD} AND epoch = {}",
            self.epoch
        );
        let told = session.simple_query(&sql).await.map_err(failed("begin"))?;
        let ours = told
            .iter()
            .any(|message| matches!(message, SimpleQueryMessage::CommandComplete(1)));
        if ours {
            return Ok(());
        }
        Err(StoreError::Unwritable {
            step: "begin",
            source: "another process took the database; nothing was written".into(),
        })
    }

    /// The number of the last transaction that was committed, unless somebody else began a tenure since this
    /// one. Asked under the lock, so that nothing of this one is still going on.
    pub(super) async fn goes_on(&self, session: &Session) -> Outcome<Option<i64>> {
        let sql = "SELECT written FROM shard_owner WHERE shard = $1 AND epoch = $2 AND holder = $3";
        let found = first(session, STEP, sql, &[&SHARD, &self.epoch, &self.name]).await?;
        found.map(|row| column(&row, 0)).transpose()
    }

    /// Ends the tenure and gives the lock back. Nothing may be signed any more.
    pub(super) async fn leave(&self, session: &Session) -> Outcome<()> {
        let sql =
            "UPDATE shard_owner SET left_at = clock_timestamp() WHERE shard = $1 AND epoch = $2";
        first(session, STEP, sql, &[&SHARD, &self.epoch]).await?;
        run(session, STEP, &format!("SELECT pg_advisory_unlock({LOCK})")).await
    }
}

/// Who has the lock. What the sessions of other users are called is hidden from this one; then the row
/// tells who took it last.
pub(super) async fn holder(session: &Session) -> Outcome<Option<Holder>> {
    let (high, low) = (LOCK >> 32, LOCK & 0xffff_ffff);
    let sql = format!(
        "SELECT l.pid, nullif(a.application_name, ''), host(a.client_addr),
                to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
         FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND l.classid = {high} AND l.objid = {low}
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    let read = |row: &Row| -> Outcome<Holder> {
        let name: Option<String> = column(row, 1)?;
        Ok(Holder {
            name: name.unwrap_or_default(),
            address: column(row, 2)?,
            since: column(row, 3)?,
            backend: column(row, 0)?,
        })
    };
    let Some(row) = first(session, STEP, &sql, &[]).await? else {
        return Ok(None);
    };
    let mut holder = read(&row)?;
    if holder.name.is_empty() {
        holder.name = last(session).await?;
    }
    Ok(Some(holder))
}

/// Who took the shard last, if anybody did.
async fn last(session: &Session) -> Outcome<String> {
    let there = "SELECT to_regclass($1) IS NOT NULL";
    let table = format!("{SCHEMA}.shard_owner");
    let there = first(session, STEP, there, &[&table]).await?;
    if there.map_or(Ok(false), |row| column(&row, 0))? {
        let sql = "SELECT holder FROM shard_owner WHERE shard = $1";
        if let Some(row) = first(session, STEP, sql, &[&SHARD]).await? {
            return column(&row, 0);
        }
    }
    Ok("a process of another user of the database".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_name_of_its_own_that_the_database_keeps_whole() {
        let (one, other) = (Tenure::new(), Tenure::new());
        assert_ne!(one.name, other.name);
        assert!(one.name.len() < 64, "{}", one.name);
        assert!(one.name.contains(&std::process::id().to_string()));
    }
}

//! One node of those that share a database: its row, its lease, and the fence that every transaction begins with.
//!
//! **The fence.** Each transaction of a node begins by writing to the node's own row, unless that row says
//! that the node was taken over ([`Node::begin`]). So whoever takes a node over, by writing exactly that, knows that
//! the other can commit nothing from that moment on: no accepted message, no change, no outcome of an attempt. What
//! it sent and could not record is due at the new owner, and is sent once more with the same id (G2).
//!
//! **The lease.** The same write renews the lease, by the clock of the database. A node that renewed nothing for
//! as long as that is taken over by another ([`takeover`](super::takeover)).
//!
//! **The grace.** A node signs until [`GRACE`](lease::GRACE) after the beginning of the last round trip that showed
//! that its view of the keys was current
//! ([`Live::confirm_until`](crate::store::live::Live::confirm_until)), and not beyond its
//! lease less a margin. The moment from which the lease counts at the database lies after the beginning of that
//! round trip, and only a lease whose renewal is *committed* is counted on: who takes over sees it, or finds the
//! row locked and the session of the other ended. So when a node is taken over, its last confirmation ended at
//! least [`MARGIN`](lease::MARGIN) before: the new owner need not wait, and two never send at once.
//!
//! One process of a version that knows no nodes holds a lock alone; nodes hold it together. So neither works beside
//! the other.

use std::fmt;
use std::time::Duration;

use hookturn_core::id::draw;
use hookturn_core::store::StoreError;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use tokio::time::Instant;
use tokio_postgres::{Row, SimpleQueryMessage};
use uuid::Uuid;

use super::connect::Session;
use super::rows::{Outcome, column, execute, failed, first, rows, run};
use crate::store::seal::{MasterKey, Sealer};
use crate::store::sharing::lease;
use crate::telemetry::SystemEntropy;

/// How long the lock is waited for: a session whose process ended may linger for a moment.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a session of ours that we lost is given to end by itself.
const ENDS_ITSELF: Duration = Duration::from_millis(300);
/// How long one that was told to end is waited for.
const ENDING_MILLIS: i64 = 5_000;
/// "hktn", as the locks of the schema and of its days.
const LOCK: i64 = 0x686b_746e_0002;
const STEP: &str = "join the database";

/// How long ago a node renewed its lease, in milliseconds by the database's clock, as a column of its row.
pub(super) const SILENT: &str =
    "lease_millis - (extract(epoch FROM lease_until - clock_timestamp()) * 1000)::bigint";

/// The part of a host's name that is told: the database cuts names off at 63 bytes.
const HOST_BYTES: usize = 24;

/// Where a process runs: what has ended there need not be waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine(String);

impl Machine {
    /// This one: this boot of it, and the part of it in which the numbers of processes mean the same.
    pub(super) fn here() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let space = std::fs::read_link("/proc/self/ns/pid");
        match (boot, space) {
            (Ok(boot), Ok(space)) => Self(format!("{} {}", boot.trim(), space.display())),
            // Nobody is on the same machine then.
            _ => Self(hex::encode(draw::<16>(&SystemEntropy))),
        }
    }

    /// One that another node told of.
    pub(super) const fn of(text: String) -> Self {
        Self(text)
    }

    /// Whether a process of this number runs on it no more; only known of the machine this is asked on. The kernel is
    /// asked, and not `/proc`, which may hide the processes of other users.
    pub(super) fn has_ended(&self, here: &Self, process: i32) -> bool {
        let process = Pid::from_raw(process).filter(|_| process > 0);
        let asked = process.map(test_kill_process);
        self == here && asked == Some(Err(Errno::SRCH))
    }
}

/// This process, as the database and the other nodes see it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) id: Uuid,
    name: String,
    pub(super) machine: Machine,
    pub(super) lease: Duration,
    /// The ids of the master keys that it was given, if it says so.
    master_keys: Option<Vec<String>>,
}

/// Who has the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    name: String,
    address: Option<String>,
    since: Option<String>,
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

/// Whether a lock is shared with other nodes, or held by one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Together,
    Alone,
}

/// What the beginning of a transaction showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    /// When the round trip began.
    pub(super) at: Instant,
    /// The version of what all nodes hold in memory.
    pub(super) head: i64,
    /// What the database's clock said, in milliseconds since the epoch.
    pub(super) clock: i64,
}

/// What a node says of itself at the beginning of a transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    /// Greater than the numbers of all transactions that were committed.
    pub(super) number: i64,
    /// How far it has followed.
    pub(super) view: i64,
    /// Whether it may own shards.
    pub(super) able: bool,
}

impl Node {
    pub(super) fn new(lease: Duration) -> Self {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        let host: String = host.chars().filter(char::is_ascii_graphic).collect();
        let host = host.get(..HOST_BYTES).unwrap_or(&host);
        let id = draw::<16>(&SystemEntropy);
        let short = hex::encode(&id[..4]);
        Self {
            id: Uuid::from_bytes(id),
            name: format!(
                "hookturn on {host}, process {}, {short}",
                std::process::id()
            ),
            machine: Machine::here(),
            lease,
            master_keys: None,
        }
    }

    /// The same, which says that it has these master keys.
    pub(super) fn having(self, sealer: Option<&Sealer>) -> Self {
        let ids = |sealer: &Sealer| sealer.master_keys().iter().map(MasterKey::id).collect();
        Self {
            master_keys: sealer.map(ids),
            ..self
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes the lock for this session, or says who has it.
    pub(super) async fn lock(session: &Session, hold: Hold) -> Outcome<Result<(), Holder>> {
        let deadline = Instant::now() + PATIENCE;
        let sql = match hold {
            Hold::Together => format!("SELECT pg_try_advisory_lock_shared({LOCK})"),
            Hold::Alone => format!("SELECT pg_try_advisory_lock({LOCK})"),
        };
        loop {
            let found = first(session, STEP, &sql, &[]).await?;
            if found.map_or(Ok(false), |row| column(&row, 0))? {
                return Ok(Ok(()));
            }
            if let Some(holder) = holders(session).await?.into_iter().next()
                && Instant::now() >= deadline
            {
                return Ok(Err(holder));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// How long it waits for a lock of another node, which may have stopped in the middle of a transaction: far
    /// less than its own lease, which it does not renew meanwhile.
    pub(super) fn patience(&self) -> Duration {
        lease::patience(self.lease)
    }

    /// How long one transaction may take, after which its connection is given up: its lease must not run out.
    pub(super) fn longest_transaction(&self) -> Duration {
        lease::longest_transaction(self.lease)
    }

    /// Writes the row of a process that has just started. It may own shards from its first transaction on.
    pub(super) async fn join(&self, session: &Session) -> Outcome<()> {
        let sql = "INSERT INTO node (id, name, machine, process, lease_millis, lease_until, able, backend, backend_start,
                                     master_keys)
                   SELECT $1, $2, $3, $4, $5, clock_timestamp() + $5::integer * interval '1 millisecond', false,
                          pid, backend_start, $6
                   FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let process = i32::try_from(std::process::id()).unwrap_or(0);
        let lease = i32::try_from(self.lease.as_millis()).unwrap_or(i32::MAX);
        execute(
            session,
            STEP,
            sql,
            &[
                &self.id,
                &self.name,
                &self.machine.0,
                &process,
                &lease,
                &self.master_keys,
            ],
        )
        .await?;
        let old = "DELETE FROM node WHERE coalesce(left_at, taken_over_at) < clock_timestamp() - interval '1 day'";
        execute(session, STEP, old, &[]).await.map(drop)
    }

    /// Goes on in a new session. Ends the one before, so that nothing of it is still going on, and returns the
    /// number of the last transaction that was committed; nothing if the node was taken over meanwhile.
    pub(super) async fn go_on(&self, session: &Session) -> Outcome<Option<i64>> {
        self.let_session_end(session).await?;
        end_session(session, self.id).await?;
        let sql = "UPDATE node SET backend = a.pid, backend_start = a.backend_start
                   FROM pg_stat_activity a
                   WHERE a.pid = pg_backend_pid() AND node.id = $1
                     AND node.taken_over_at IS NULL AND node.left_at IS NULL
                   RETURNING node.written";
        let found = first(session, STEP, sql, &[&self.id]).await?;
        found.map(|row| column(&row, 0)).transpose()
    }

    /// Lets the session that was lost end by itself: what was sent to it last, a commit perhaps, may not have been
    /// read yet.
    async fn let_session_end(&self, session: &Session) -> Outcome<()> {
        let deadline = Instant::now() + ENDS_ITSELF;
        let sql = "SELECT EXISTS (SELECT FROM node n JOIN pg_stat_activity a
                       ON a.pid = n.backend AND a.backend_start = n.backend_start
                       WHERE n.id = $1 AND a.pid <> pg_backend_pid())";
        while Instant::now() < deadline {
            let found = first(session, STEP, sql, &[&self.id]).await?;
            if !found.map_or(Ok(false), |row| column(&row, 0))? {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Begins a transaction. Nothing if the node was taken over: then nothing was begun, either.
    pub(super) async fn begin(&self, session: &Session, word: Word) -> Outcome<Option<Begun>> {
        let begun = self.say(session, "BEGIN", word).await?;
        if begun.is_none() {
            run(session, "begin", "ROLLBACK").await?;
        }
        Ok(begun)
    }

    /// Shows that the node lives, in one round trip. What it shows need not outlive the database.
    pub(super) async fn show(&self, session: &Session, word: Word) -> Outcome<Option<Begun>> {
        self.say(session, "SET LOCAL synchronous_commit = off", word)
            .await
    }

    /// Writes to the node's row, in one transaction with what comes `first`.
    async fn say(
        &self,
        session: &Session,
        first: &'static str,
        word: Word,
    ) -> Outcome<Option<Begun>> {
        const STEP: &str = "begin";
        let at = Instant::now();
        let sql = format!(
            "{first}; UPDATE node SET written = {}, view = {}, able = {}, \
             lease_until = clock_timestamp() + interval '{} milliseconds' \
             WHERE id = '{}' AND taken_over_at IS NULL AND left_at IS NULL \
             RETURNING (SELECT version FROM view_head WHERE id = 0), (extract(epoch FROM clock_timestamp()) * 1000)::bigint",
            word.number,
            word.view,
            word.able,
            self.lease.as_millis(),
            self.id
        );
        let told = session.simple_query(&sql).await.map_err(failed(STEP))?;
        let row = told.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let Some(row) = row else {
            return Ok(None);
        };
        let number = |place: usize| row.get(place).and_then(|text| text.parse::<i64>().ok());
        let (Some(head), Some(clock)) = (number(0), number(1)) else {
            return Err(StoreError::Engine {
                step: STEP,
                source: "the head of the view cannot be read".into(),
            });
        };
        Ok(Some(Begun { at, head, clock }))
    }

    /// Ends in order: the shards are free, and nobody waits for this node. Nothing may be signed any more.
    pub(super) async fn leave(&self, session: &Session) -> Outcome<()> {
        run(session, STEP, "BEGIN").await?;
        let sql = "UPDATE node SET left_at = clock_timestamp() WHERE id = $1";
        execute(session, STEP, sql, &[&self.id]).await?;
        free_shards_of(session, self.id).await?;
        super::ear::say(session, "shards").await?;
        run(session, STEP, "COMMIT").await?;
        run(
            session,
            STEP,
            &format!("SELECT pg_advisory_unlock_shared({LOCK})"),
        )
        .await
    }
}

/// Frees the shards of a node that owns nothing any more.
pub(super) async fn free_shards_of(session: &Session, node: Uuid) -> Outcome<u64> {
    let sql = "UPDATE shard_owner SET node = NULL, holder = '', epoch = epoch + 1 WHERE node = $1";
    execute(session, STEP, sql, &[&node]).await
}

/// Ends the session that a node writes with, if it is another one than this, and waits until it has ended.
pub(super) async fn end_session(session: &Session, node: Uuid) -> Outcome<()> {
    let sql = "SELECT pg_terminate_backend(a.pid, $2) FROM node n
               JOIN pg_stat_activity a ON a.pid = n.backend AND a.backend_start = n.backend_start
               WHERE n.id = $1 AND a.pid <> pg_backend_pid()";
    rows(session, STEP, sql, &[&node, &ENDING_MILLIS])
        .await
        .map(drop)
}

/// Who has the lock, in order of coming. What the sessions of other users are called is hidden from this one;
/// then the rows tell.
pub(super) async fn holders(session: &Session) -> Outcome<Vec<Holder>> {
    let (high, low) = (LOCK >> 32, LOCK & 0xffff_ffff);
    let sql = format!(
        "SELECT nullif(a.application_name, ''), host(a.client_addr),
                to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
         FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
           AND l.classid = {high} AND l.objid = {low}
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         ORDER BY a.backend_start"
    );
    let mut holders = Vec::new();
    for row in rows(session, STEP, &sql, &[]).await? {
        holders.push(holder(&row)?);
    }
    Ok(holders)
}

fn holder(row: &Row) -> Outcome<Holder> {
    let name: Option<String> = column(row, 0)?;
    let hidden = || "a process of another user of the database".to_owned();
    Ok(Holder {
        name: name.unwrap_or_else(hidden),
        address: column(row, 1)?,
        since: column(row, 2)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_name_of_its_own_that_the_database_keeps_whole() {
        let lease = Duration::from_secs(10);
        let (one, other) = (Node::new(lease), Node::new(lease));
        assert_ne!(one.name, other.name);
        assert_ne!(one.id, other.id);
        assert!(one.name.len() < 64, "{}", one.name);
        assert!(one.name.contains(&std::process::id().to_string()));
    }

    #[test]
    fn a_process_of_this_machine_has_ended_when_there_is_none_of_its_number() {
        let here = Machine::here();
        let ours = i32::try_from(std::process::id()).unwrap();
        assert!(!here.has_ended(&here, ours));
        // Larger than any that a kernel gives out.
        assert!(here.has_ended(&here, i32::MAX));
        let elsewhere = Machine("elsewhere".to_owned());
        assert!(!elsewhere.has_ended(&here, i32::MAX));
    }
}

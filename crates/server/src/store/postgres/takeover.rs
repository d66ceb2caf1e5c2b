//! Taking over what a node left that does not live any more.
//!
//! Whether it lives is decided by [`Silence::dead`], from what the database and this node's own clock say. Whoever
//! takes over ends the session of the other first, so that a process which stopped in the middle of a transaction
//! holds no row any more; then writes into its row that it was taken over, unless it renewed its lease in between;
//! and frees its shards, in the same transaction. From that commit on the other can write nothing
//! ([`node`](super::node)), and the living share its shards.

use hookturn_core::time::Millis;
use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use super::connect::Session;
use super::node::{Machine, Node, end_session, free_shards_of};
use super::rows::{Outcome, collect, column, execute, run};
use crate::store::sharing::lease::{Other, Silence};

const STEP: &str = "take over from another node";
/// How long a row of a node whose session has ended is waited for.
const PATIENCE: &str = "3s";

/// A node that may be taken over.
#[derive(Debug)]
pub(super) struct Dead {
    id: Uuid,
    name: String,
    /// Its lease need not be out.
    process_ended: bool,
}

/// A node as its row tells.
struct Found {
    id: Uuid,
    name: String,
    machine: Machine,
    process: i32,
    lease: i32,
    written: i64,
    lease_is_out: bool,
}

impl Found {
    fn as_watched(&self, me: &Node) -> Other {
        Other {
            id: self.id,
            written: self.written,
            lease: Millis::try_from(self.lease).unwrap_or(0),
            lease_is_out: self.lease_is_out,
            process_ended: self.machine.has_ended(&me.machine, self.process),
        }
    }
}

fn read(row: &Row) -> Outcome<Found> {
    Ok(Found {
        id: column(row, 0)?,
        name: column(row, 1)?,
        machine: Machine::of(column(row, 2)?),
        process: column(row, 3)?,
        lease: column(row, 4)?,
        written: column(row, 5)?,
        lease_is_out: column(row, 6)?,
    })
}

/// The other nodes that may be taken over now.
pub(super) async fn dead(
    session: &Session,
    me: &Node,
    silence: &mut Silence,
    now: Instant,
) -> Outcome<Vec<Dead>> {
    let sql =
        "SELECT id, name, machine, process, lease_millis, written, lease_until < clock_timestamp()
               FROM node WHERE left_at IS NULL AND taken_over_at IS NULL AND id <> $1";
    let rows = collect(session, STEP, sql, &[&me.id], read).await?;
    let others: Vec<Other> = rows.iter().map(|row| row.as_watched(me)).collect();
    let dead = silence.dead(&others, now);
    let named = |id: Uuid| {
        let row = rows.iter().find(|row| row.id == id)?;
        Some(Dead {
            id,
            name: row.name.clone(),
            process_ended: row.as_watched(me).process_ended,
        })
    };
    Ok(dead.into_iter().filter_map(named).collect())
}

/// Takes a node over. Returns how many shards are free by it: none if somebody else was first, or if it lives.
pub(super) async fn take_over(session: &Session, me: &Node, dead: &Dead) -> Outcome<u64> {
    end_session(session, dead.id).await?;
    let begin = format!("BEGIN; SET LOCAL lock_timeout = '{PATIENCE}'");
    run(session, STEP, &begin).await?;
    let taken = mark(session, me, dead).await;
    let end = if taken.is_ok() { "COMMIT" } else { "ROLLBACK" };
    run(session, STEP, end).await?;
    let taken = taken?;
    if let Some(shards) = taken {
        tracing::warn!(
            node = %dead.name, shards, ended = dead.process_ended,
            "another node does not live any more: its shards are shared by the others, and what it had not recorded is sent again"
        );
    }
    Ok(taken.unwrap_or(0))
}

async fn mark(session: &Session, me: &Node, dead: &Dead) -> Outcome<Option<u64>> {
    // Looked at once more: it may have come back, and renewed its lease.
    let sql = "UPDATE node SET taken_over_at = clock_timestamp(), taken_over_by = $2
               WHERE id = $1 AND taken_over_at IS NULL AND left_at IS NULL
                 AND ($3 OR lease_until < clock_timestamp())";
    let marked = execute(session, STEP, sql, &[&dead.id, &me.id, &dead.process_ended]).await?;
    if marked == 0 {
        return Ok(None);
    }
    free_shards_of(session, dead.id).await.map(Some)
}

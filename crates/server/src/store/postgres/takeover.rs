//! Taking over what a node left that does not live any more.
//!
//! Whether it lives is decided by [`hookturn_core::shard::may_be_taken_over`], from what the database and this node's
//! own clock say. Whoever takes over ends the session of the other first, so that a process which stopped in the
//! middle of a transaction holds no row any more; then writes into its row that it was taken over, unless it
//! renewed its lease in between; and frees its shards, in the same transaction. From that commit on the other can
//! write nothing ([`node`](super::node)), and the living share its shards.

use std::collections::HashMap;

use hookturn_core::shard::{Watched, may_be_taken_over};
use hookturn_core::time::Millis;
use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use super::connect::Session;
use super::node::{Machine, Node, end_session, free_shards_of};
use super::rows::{Outcome, collect, column, execute, run};

const STEP: &str = "take over from another node";
/// How long a row of a node whose session has ended is waited for.
const PATIENCE: &str = "3s";

/// Since when each node was seen to write nothing: its last number, and when that was seen first.
#[derive(Debug, Default)]
pub(super) struct Silence(HashMap<Uuid, (i64, Instant)>);

impl Silence {
    /// For how long a node has been silent, now that it is seen with this number.
    fn of(&mut self, node: Uuid, written: i64, now: Instant) -> Millis {
        let seen = self.0.entry(node).or_insert((written, now));
        if seen.0 != written {
            *seen = (written, now);
        }
        Millis::try_from(now.duration_since(seen.1).as_millis()).unwrap_or(Millis::MAX)
    }
}

/// A node that may be taken over.
#[derive(Debug)]
pub(super) struct Dead {
    id: Uuid,
    name: String,
    /// Its lease need not be out.
    process_ended: bool,
}

/// A node as its row tells.
struct Other {
    id: Uuid,
    name: String,
    machine: Machine,
    process: i32,
    lease: i32,
    written: i64,
    lease_is_out: bool,
}

fn read(row: &Row) -> Outcome<Other> {
    Ok(Other {
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
    let others = collect(session, STEP, sql, &[&me.id], read).await?;
    silence
        .0
        .retain(|id, _| others.iter().any(|other| other.id == *id));
    let mut dead = Vec::new();
    for other in others {
        let watched = Watched {
            lease_is_out: other.lease_is_out,
            silent: silence.of(other.id, other.written, now),
            lease: Millis::try_from(other.lease).unwrap_or(0),
            process_ended: other.machine.has_ended(&me.machine, other.process),
        };
        if may_be_taken_over(&watched) {
            dead.push(Dead {
                id: other.id,
                name: other.name,
                process_ended: watched.process_ended,
            });
        }
    }
    Ok(dead)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn whoever_writes_is_not_silent() {
        let (mut silence, node, now) = (
            Silence::default(),
            Uuid::from_bytes([1; 16]),
            Instant::now(),
        );
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(silence.of(node, 7, at(0)), 0);
        assert_eq!(silence.of(node, 7, at(4)), 4_000);
        assert_eq!(silence.of(node, 8, at(5)), 0);
        assert_eq!(silence.of(node, 8, at(15)), 10_000);
    }
}

//! Upkeep: retention and counts.
//!
//! Days go whole: when everything of a day is past its retention and nothing pending is as old, its
//! partitions are dropped, which costs the same however much they hold. What is pending keeps its day and
//! the later ones; from those, and from the day in which the retention ends, rows are removed one by one.

use std::collections::{BTreeMap, HashSet};

use hookturn_core::id::{DeliveryId, EndpointId, MessageId, WorkspaceId};
use hookturn_core::store::{Progress, StoreStats};
use hookturn_core::time::{HOUR, Millis, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::bulks;
use super::connect::{SCHEMA, Session};
use super::days::{self, Day};
use super::due::due_endpoints;
use super::outbox;
use super::rows::{Outcome, collect, column, execute, first, id, rows, run, uuid};
use super::transaction::Tx;
use crate::store::encoding::{MADE_WITHIN, as_i64};

/// How long a deleted endpoint outlives the retention: a message that was accepted in the moments of
/// its deletion may still have made a delivery for it.
const ENDPOINT_GRACE: Millis = HOUR;

/// Messages that one step of a sweep looks at.
const LOOKED_AT: i64 = 10_000;

const MESSAGES: &str = "remove messages past their retention";
const DELIVERIES: &str = "remove deliveries past their retention";

/// How far a sweep came: it removes what is older than `before`, kind by kind, and never looks twice at what
/// it has passed. What settles behind it goes with the next one.
#[derive(Debug, Clone, Default)]
pub(super) struct Sweep {
    before: Option<Timestamp>,
    stage: Stage,
}

#[derive(Debug, Clone, Default)]
enum Stage {
    /// Whole days.
    #[default]
    Days,
    /// Settled deliveries of the apps after this one.
    Settled(Uuid, String),
    /// Messages after this one.
    Messages(Uuid, String, Uuid),
    /// Bulk rotations that are over, expired answers, then endpoints that nothing refers to any more.
    Rest,
}

/// Removes a block of at most `limit` rows of what is older than `before`. A dropped day counts as about
/// as many rows as it had, `limit` at most.
///
/// A delivery that is still pending keeps its message and its attempts, however old they are.
pub(super) async fn prune(
    tx: &mut Tx<'_>,
    before: Timestamp,
    now: Timestamp,
    limit: usize,
) -> Outcome<Progress<()>> {
    let limit = limit.max(1);
    let mut sweep = tx.sweep();
    if sweep.before.is_none_or(|known| before < known) {
        sweep = Sweep {
            before: Some(before),
            stage: Stage::Days,
        };
        super::accepting::make_days(tx, Day::ahead(now).map(Day::begins)).await?;
    }
    let swept = sweep.before.unwrap_or(before);
    let mut removed = 0;
    while removed < limit {
        let room = limit - removed;
        let (gone, next) = match &sweep.stage {
            Stage::Days => drop_day(tx, swept, room).await?,
            Stage::Settled(workspace, app) => {
                prune_settled(tx.session, swept, (*workspace, app), room).await?
            }
            Stage::Messages(workspace, app, id) => {
                prune_messages(tx.session, swept, (*workspace, app, *id), room).await?
            }
            Stage::Rest => {
                let bulks = bulks::prune(tx.session, swept, room).await?;
                removed += bulks;
                let room = room - bulks;
                let sql = "DELETE FROM idempotency WHERE key = ANY(ARRAY(
                               SELECT key FROM idempotency WHERE expires_at <= $1 LIMIT $2))";
                let step = "remove expired answers";
                let values: [&(dyn ToSql + Sync); 2] = [&now.as_millis(), &as_i64(room as u64)];
                let gone = usize::try_from(execute(tx.session, step, sql, &values).await?);
                let gone = gone.unwrap_or(room);
                if gone < room {
                    forget_endpoints(tx, swept).await?;
                    outbox::forget_refused(tx.session, swept).await?;
                    tx.effects.sweep = Some(Sweep::default());
                    return Ok(Progress {
                        rows: removed + gone,
                        resume: (before > swept).then_some(()),
                    });
                }
                (gone, Stage::Rest)
            }
        };
        removed += gone;
        // A step that looked at much and removed nothing gives others their turn.
        let stays = matches!(
            (&sweep.stage, &next),
            (Stage::Messages(..), Stage::Messages(..))
        );
        sweep.stage = next;
        if stays {
            break;
        }
    }
    tx.effects.sweep = Some(sweep);
    Ok(Progress {
        rows: removed,
        resume: Some(()),
    })
}

/// Drops the earliest day of which nothing is needed any more, if there is one.
async fn drop_day(tx: &mut Tx<'_>, before: Timestamp, room: usize) -> Outcome<(usize, Stage)> {
    const STEP: &str = "remove a day past its retention";
    let rows_next = || Stage::Settled(Uuid::nil(), String::new());
    let oldest = oldest_pending(tx.session).await?;
    // A delivery is made soon after its message, perhaps on the next day.
    let needed = oldest.map_or(Timestamp::FAR_FUTURE, |id| {
        id.created_at().before(MADE_WITHIN)
    });
    let end = |day: Day| day.next().begins();
    let day = tx.days().find(|day| end(*day) <= before.min(needed));
    let Some(day) = day else {
        return Ok((0, rows_next()));
    };
    run(tx.session, STEP, "SAVEPOINT day").await?;
    match days::drop_whole(tx.session, day).await {
        Ok(about) => {
            tx.effects.dropped.push(day);
            tx.effects.days.retain(|known| *known != day);
            let rows = usize::try_from(about).unwrap_or(room).clamp(1, room);
            Ok((rows, Stage::Days))
        }
        Err(error) => {
            // Someone reads it for long, a backup perhaps: another sweep drops it.
            tracing::debug!(%error, "a day past its retention could not be removed yet");
            run(tx.session, STEP, "ROLLBACK TO SAVEPOINT day").await?;
            Ok((0, rows_next()))
        }
    }
}

async fn oldest_pending(session: &Session) -> Outcome<Option<DeliveryId>> {
    // A loose index scan: one step per workspace.
    let sql = "WITH RECURSIVE oldest AS (
            (SELECT workspace, delivery FROM due ORDER BY workspace, delivery LIMIT 1)
            UNION ALL
            SELECT next.* FROM oldest CROSS JOIN LATERAL (
                SELECT workspace, delivery FROM due WHERE workspace > oldest.workspace
                ORDER BY workspace, delivery LIMIT 1) next)
        SELECT delivery FROM oldest ORDER BY delivery LIMIT 1";
    let found = first(session, "find the oldest delivery", sql, &[]).await?;
    found.map(|row| id(&row, 0)).transpose()
}

/// Removes settled deliveries of the next app that has old ones, whether or not the app still exists, with
/// their attempts.
async fn prune_settled(
    session: &Session,
    before: Timestamp,
    (workspace, app): (Uuid, &str),
    room: usize,
) -> Outcome<(usize, Stage)> {
    let first_young = uuid(DeliveryId::first_at(before).to_bytes());
    let sql =
        "SELECT workspace, app FROM settled WHERE (workspace, app) > ($1, $2) AND delivery < $3
               ORDER BY workspace, app LIMIT 1";
    let values: [&(dyn ToSql + Sync); 3] = [&workspace, &app, &first_young];
    let Some(owner) = first(session, DELIVERIES, sql, &values).await? else {
        return Ok((0, Stage::Messages(Uuid::nil(), String::new(), Uuid::nil())));
    };
    let (owner, owned): (Uuid, String) = (column(&owner, 0)?, column(&owner, 1)?);
    let sql = "SELECT delivery FROM settled WHERE workspace = $1 AND app = $2 AND delivery < $3
               ORDER BY delivery LIMIT $4";
    let values: [&(dyn ToSql + Sync); 4] = [&owner, &owned, &first_young, &as_i64(room as u64)];
    let read = |row: &Row| column::<Uuid>(row, 0);
    let old = collect(session, DELIVERIES, sql, &values, read).await?;
    let settled = "DELETE FROM settled WHERE workspace = $1 AND app = $2 AND delivery = ANY($3)";
    let attempts = "DELETE FROM attempt WHERE workspace = $1 AND delivery = ANY($2)";
    let of_settled: [&(dyn ToSql + Sync); 3] = [&owner, &owned, &old];
    let of_attempts: [&(dyn ToSql + Sync); 2] = [&owner, &old];
    futures_util::try_join!(
        execute(session, DELIVERIES, settled, &of_settled),
        execute(session, DELIVERIES, attempts, &of_attempts),
    )?;
    let next = if old.len() < room {
        Stage::Settled(owner, owned)
    } else {
        Stage::Settled(workspace, app.to_owned())
    };
    Ok((old.len(), next))
}

/// One message of a block: its workspace, its app, its id.
type Key = (Uuid, String, MessageId);

/// Removes those of the next messages that no delivery needs.
async fn prune_messages(
    session: &Session,
    before: Timestamp,
    (workspace, app, after): (Uuid, &str, Uuid),
    room: usize,
) -> Outcome<(usize, Stage)> {
    let first_young = uuid(MessageId::first_at(before).to_bytes());
    let sql = "SELECT workspace, app, id FROM message WHERE (workspace, app, id) > ($1, $2, $3) AND id < $4
               ORDER BY workspace, app, id LIMIT $5";
    let values: [&(dyn ToSql + Sync); 5] = [&workspace, &app, &after, &first_young, &LOOKED_AT];
    let read = |row: &Row| -> Outcome<Key> { Ok((column(row, 0)?, column(row, 1)?, id(row, 2)?)) };
    let block = collect(session, MESSAGES, sql, &values, read).await?;
    let needed = needed(session, &block).await?;
    let mut gone: BTreeMap<(Uuid, &str), Vec<Uuid>> = BTreeMap::new();
    let (mut removed, mut last) = (0, None);
    for (workspace, app, id) in &block {
        let bytes = uuid(id.to_bytes());
        if !needed.contains(id) {
            if removed == room {
                break;
            }
            gone.entry((*workspace, app.as_str()))
                .or_default()
                .push(bytes);
            removed += 1;
        }
        last = Some(Stage::Messages(*workspace, app.clone(), bytes));
    }
    for ((workspace, app), ids) in &gone {
        let sql = "DELETE FROM message WHERE workspace = $1 AND app = $2 AND id = ANY($3)";
        execute(session, MESSAGES, sql, &[workspace, app, ids]).await?;
    }
    let whole = i64::try_from(block.len()).is_ok_and(|rows| rows < LOOKED_AT) && removed < room;
    Ok((removed, last.filter(|_| !whole).unwrap_or(Stage::Rest)))
}

/// The messages of a block for which there is a delivery, pending or settled: what settled can be queued
/// again as long as it is seen. A delivery is made with its message, so their ids are near.
async fn needed(session: &Session, block: &[Key]) -> Outcome<HashSet<MessageId>> {
    let mut spans: BTreeMap<(Uuid, &str), (MessageId, MessageId)> = BTreeMap::new();
    for (workspace, app, id) in block {
        let span = spans.entry((*workspace, app)).or_insert((*id, *id));
        *span = (span.0.min(*id), span.1.max(*id));
    }
    let mut needed = HashSet::new();
    for ((workspace, app), (from, last)) in spans {
        let from = uuid(DeliveryId::first_at(from.created_at()).to_bytes());
        let before = last.created_at().after(MADE_WITHIN);
        let before = uuid(DeliveryId::first_at(before).to_bytes());
        let sql = "SELECT message FROM due
                   WHERE workspace = $1 AND app = $2 AND delivery >= $3 AND delivery < $4
                   UNION ALL
                   SELECT message FROM settled
                   WHERE workspace = $1 AND app = $2 AND delivery >= $3 AND delivery < $4";
        let values: [&(dyn ToSql + Sync); 4] = [&workspace, &app, &from, &before];
        let read = |row: &Row| id::<MessageId>(row, 0);
        needed.extend(collect(session, MESSAGES, sql, &values, read).await?);
    }
    Ok(needed)
}

/// Deleted endpoints go when no delivery refers to them any more. Their settled deliveries are older
/// than their deletion (but for the grace), and everything older than `before` is gone by now.
async fn forget_endpoints(tx: &mut Tx<'_>, before: Timestamp) -> Outcome<()> {
    const STEP: &str = "forget deleted endpoints";
    let sql = "DELETE FROM endpoint WHERE deleted_at < $1
               AND NOT EXISTS (SELECT FROM due WHERE due.workspace = endpoint.workspace
                               AND due.endpoint = endpoint.id)
               RETURNING workspace, id";
    let deleted_before = before.before(ENDPOINT_GRACE).as_millis();
    let read = |row: &Row| Ok((id(row, 0)?, id(row, 1)?));
    let gone: Vec<(WorkspaceId, EndpointId)> =
        collect(tx.session, STEP, sql, &[&deleted_before], read).await?;
    for (workspace, endpoint) in gone {
        let sql = "DELETE FROM findings WHERE workspace = $1 AND endpoint = $2";
        let key = (uuid(workspace.to_bytes()), uuid(endpoint.to_bytes()));
        execute(tx.session, STEP, sql, &[&key.0, &key.1]).await?;
        tx.effects.forgotten.push(endpoint);
    }
    Ok(())
}

pub(super) async fn stats(session: &Session) -> Outcome<StoreStats> {
    let sql = "SELECT (SELECT count(*) FROM due),
                      (SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
                       WHERE relnamespace = $1::text::regnamespace AND relkind = 'r')";
    let found = rows(session, "count", sql, &[&SCHEMA]).await?;
    let (due, bytes): (i64, i64) = match found.first() {
        Some(row) => (column(row, 0)?, column(row, 1)?),
        None => (0, 0),
    };
    let earliest = due_endpoints(session).await?;
    Ok(StoreStats {
        due: due.max(0).cast_unsigned(),
        oldest_due_at: earliest.into_iter().map(|(_, _, due_at)| due_at).min(),
        bytes: bytes.max(0).cast_unsigned(),
    })
}

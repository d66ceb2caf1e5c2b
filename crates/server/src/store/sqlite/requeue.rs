//! Queueing by hand: one delivery again, or some of those that settled.
//!
//! A pending row that is queued again always changes (at least its `not_before`, by a millisecond),
//! so that the finish of an attempt that is under way finds that it moved and leaves it alone.

use hookturn_core::delivery::{Delivery, DeliveryState, DeliveryStatus};
use hookturn_core::id::DeliveryId;
use hookturn_core::store::{Hint, RecoverQuery, StoreError};
use hookturn_core::time::Timestamp;
use rusqlite::params;

use super::configuration::{collect, execute};
use super::listing::{SETTLED, find_delivery, settled_at};
use super::reader::At;
use super::rows::as_i64;
use super::writer::Tx;

type Outcome<T> = Result<T, StoreError>;

/// Queues a delivery that is still as it was `seen`.
pub(super) fn requeue(tx: &mut Tx<'_>, seen: &Delivery, now: Timestamp) -> Outcome<()> {
    const STEP: &str = "queue a delivery again";
    let at = At {
        connection: tx.connection,
        numbers: tx.numbers,
    };
    let known = find_delivery(&at, seen.workspace, seen.id)?;
    let queued = known.as_ref() == Some(seen)
        && match seen.state {
            DeliveryState::Pending { .. } => {
                let sql =
                    "UPDATE due SET due_at = min(due_at, ?2), not_before = min(not_before - 1, ?2),
                                  attempts_before_requeue = attempts WHERE delivery = ?1";
                let values = params![seen.id.to_bytes(), now.as_millis()];
                execute(tx, STEP, sql, values)? > 0
            }
            DeliveryState::Delivered { .. } | DeliveryState::Exhausted { .. } => {
                unsettle(tx, seen, now)?
            }
        };
    if !queued {
        return Err(StoreError::Conflict {
            what: format!("delivery {}", seen.id),
        });
    }
    // Those of one endpoint come together, and dispatch is told once.
    let told = matches!(tx.effects.hints.last(),
        Some(Hint::Requeued(_, endpoint)) if *endpoint == seen.endpoint);
    if !told {
        let hint = Hint::Requeued(seen.workspace, seen.endpoint);
        tx.effects.hints.push(hint);
    }
    Ok(())
}

/// Turns a settled delivery back into a due row. It stays settled, and the answer is `false`, when its
/// message was pruned: there is nothing left to send.
fn unsettle(tx: &Tx<'_>, delivery: &Delivery, now: Timestamp) -> Outcome<bool> {
    const STEP: &str = "queue a delivery again";
    let workspace = tx.workspace(delivery.workspace)?;
    let app = delivery.app.as_str();
    let id = delivery.id.to_bytes();
    let sql = "INSERT INTO due (endpoint, due_at, delivery, message, attempts, attempts_before_requeue, not_before)
               SELECT s.endpoint, ?4, s.delivery, m.number, s.attempts, s.attempts, ?4
               FROM settled s JOIN message m ON m.workspace = s.workspace AND m.app = s.app AND m.id = s.message
               WHERE s.workspace = ?1 AND s.app = ?2 AND s.delivery = ?3";
    if execute(tx, STEP, sql, params![workspace, app, id, now.as_millis()])? == 0 {
        return Ok(false);
    }
    let sql = "DELETE FROM settled WHERE workspace = ? AND app = ? AND delivery = ?";
    execute(tx, STEP, sql, params![workspace, app, id]).map(|_| true)
}

/// Settled deliveries whose message is still there.
pub(super) fn recoverable(
    at: &At<'_>,
    query: RecoverQuery,
    after: Option<DeliveryId>,
    limit: usize,
) -> Outcome<Vec<Delivery>> {
    let filter = match query.status {
        DeliveryStatus::Exhausted => "exhausted IS NOT NULL",
        DeliveryStatus::Delivered => "exhausted IS NULL",
        DeliveryStatus::Pending => return Ok(Vec::new()),
    };
    let (Some(workspace), Some(endpoint)) = (
        at.numbers.workspace(query.workspace),
        at.endpoint_of(query.workspace, query.endpoint),
    ) else {
        return Ok(Vec::new());
    };
    let sql = format!(
        "{SETTLED} WHERE workspace = ? AND app = ? AND delivery > ? AND delivery >= ? AND delivery < ?
         AND endpoint = ? AND {filter}
         AND EXISTS (SELECT 1 FROM message m WHERE m.workspace = settled.workspace
                     AND m.app = settled.app AND m.id = settled.message)
         ORDER BY delivery LIMIT ?"
    );
    let values = params![
        workspace,
        query.app.as_str(),
        after.map_or([0; 16], DeliveryId::to_bytes),
        DeliveryId::first_at(query.since).to_bytes(),
        DeliveryId::first_at(query.until).to_bytes(),
        endpoint,
        as_i64(limit as u64)
    ];
    collect(
        at.connection,
        "find deliveries to recover",
        &sql,
        values,
        |row| settled_at(at, query.workspace, row),
    )
}

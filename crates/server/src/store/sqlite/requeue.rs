//! Queueing by hand: one delivery again, or a block of those that settled.
//!
//! A pending row that is queued again always changes (at least its `not_before`, by a millisecond),
//! so that the finish of an attempt that is under way finds that it moved and leaves it alone.

use hookturn_core::delivery::{Delivery, DeliveryState, DeliveryStatus};
use hookturn_core::id::{DeliveryId, WorkspaceId};
use hookturn_core::store::{Hint, Progress, RecoverQuery, StoreError};
use hookturn_core::time::Timestamp;
use rusqlite::params;

use super::configuration::{collect, execute};
use super::listing::{SETTLED, find_delivery, settled_at};
use super::reader::At;
use super::rows::as_i64;
use super::writer::Tx;

type Outcome<T> = Result<T, StoreError>;

pub(super) fn requeue(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    delivery: DeliveryId,
    now: Timestamp,
) -> Outcome<Option<Delivery>> {
    let at = At {
        connection: tx.connection,
        numbers: tx.numbers,
    };
    let Some(known) = find_delivery(&at, workspace, delivery)? else {
        return Ok(None);
    };
    match known.state {
        DeliveryState::Pending { .. } => {
            let sql =
                "UPDATE due SET due_at = min(due_at, ?2), not_before = min(not_before - 1, ?2),
                              attempts_before_requeue = attempts WHERE delivery = ?1";
            execute(
                tx,
                "queue a delivery again",
                sql,
                params![delivery.to_bytes(), now.as_millis()],
            )?;
        }
        DeliveryState::Delivered { .. } | DeliveryState::Exhausted { .. } => {
            if !unsettle(tx, &known, now)? {
                return Ok(None);
            }
        }
    }
    tx.effects
        .hints
        .push(Hint::Requeued(workspace, known.endpoint));
    Ok(Some(Delivery {
        state: DeliveryState::Pending { due_at: now },
        ..known
    }))
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

pub(super) fn recover(
    tx: &mut Tx<'_>,
    query: RecoverQuery,
    after: Option<DeliveryId>,
    now: Timestamp,
    limit: usize,
) -> Outcome<Progress<DeliveryId>> {
    let at = At {
        connection: tx.connection,
        numbers: tx.numbers,
    };
    let found = recoverable_rows(&at, query, after, limit)?;
    let mut queued = 0;
    for delivery in &found {
        queued += usize::from(unsettle(tx, delivery, now)?);
    }
    if queued > 0 {
        tx.effects
            .hints
            .push(Hint::Requeued(query.workspace, query.endpoint));
    }
    Ok(Progress {
        rows: queued,
        ..progress(&found, limit)
    })
}

pub(super) fn recoverable(
    at: &At<'_>,
    query: RecoverQuery,
    after: Option<DeliveryId>,
    limit: usize,
) -> Outcome<Progress<DeliveryId>> {
    recoverable_rows(at, query, after, limit).map(|found| progress(&found, limit))
}

fn progress(found: &[Delivery], limit: usize) -> Progress<DeliveryId> {
    let resume = found
        .last()
        .filter(|_| found.len() == limit)
        .map(|delivery| delivery.id);
    Progress {
        rows: found.len(),
        resume,
    }
}

fn recoverable_rows(
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
         AND endpoint = ? AND {filter} ORDER BY delivery LIMIT ?"
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

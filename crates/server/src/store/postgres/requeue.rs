//! Queueing by hand: one delivery again, or some of those that settled.
//!
//! A pending row that is queued again always changes (at least its `not_before`, by a millisecond),
//! so that the finish of an attempt that is under way finds that it moved and leaves it alone.

use hookturn_core::delivery::{Delivery, DeliveryState, DeliveryStatus};
use hookturn_core::id::DeliveryId;
use hookturn_core::store::{Hint, RecoverQuery, StoreError};
use hookturn_core::time::Timestamp;

use super::connect::Session;
use super::listing::find_delivery;
use super::rows::{Outcome, SETTLED, collect, delivery_at, execute, uuid};
use super::transaction::Tx;
use crate::store::encoding::as_i64;

const STEP: &str = "queue a delivery again";

/// Queues a delivery that is still as it was `seen`.
pub(super) async fn requeue(tx: &mut Tx<'_>, seen: &Delivery, now: Timestamp) -> Outcome<()> {
    let known = find_delivery(tx.session, seen.workspace, seen.id).await?;
    let queued = known.as_ref() == Some(seen)
        && match seen.state {
            DeliveryState::Pending { .. } => hasten(tx.session, seen, now).await?,
            DeliveryState::Delivered { .. } | DeliveryState::Exhausted { .. } => {
                unsettle(tx.session, seen, now).await?
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

/// Moves a due row to the front of what is due.
async fn hasten(session: &Session, delivery: &Delivery, now: Timestamp) -> Outcome<bool> {
    let key = (
        uuid(delivery.workspace.to_bytes()),
        uuid(delivery.id.to_bytes()),
    );
    let sql = "UPDATE due SET due_at = least(due_at, $3), not_before = least(not_before - 1, $3),
                      attempts_before_requeue = attempts
               WHERE workspace = $1 AND delivery = $2";
    let changed = execute(session, STEP, sql, &[&key.0, &key.1, &now.as_millis()]).await?;
    Ok(changed > 0)
}

/// Turns a settled delivery back into a due row. It stays settled, and the answer is `false`, when its
/// message was pruned: there is nothing left to send.
async fn unsettle(session: &Session, delivery: &Delivery, now: Timestamp) -> Outcome<bool> {
    let key = (
        uuid(delivery.workspace.to_bytes()),
        uuid(delivery.id.to_bytes()),
        uuid(delivery.message.to_bytes()),
    );
    let app = delivery.app.as_str();
    let sql = "WITH gone AS (
                   DELETE FROM settled WHERE workspace = $1 AND app = $4 AND delivery = $2
                   AND EXISTS (SELECT FROM message WHERE workspace = $1 AND app = $4 AND id = $3)
                   RETURNING *)
               INSERT INTO due (workspace, delivery, endpoint, due_at, not_before, app, message, event_type,
                                attempts, attempts_before_requeue)
               SELECT workspace, delivery, endpoint, $5, $5, app, message, event_type, attempts, attempts FROM gone";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&key.0, &key.1, &key.2, &app, &now.as_millis()];
    let queued = execute(session, STEP, sql, &values).await?;
    Ok(queued > 0)
}

/// Settled deliveries whose message is still there.
pub(super) async fn recoverable(
    session: &Session,
    query: RecoverQuery,
    after: Option<DeliveryId>,
    limit: usize,
) -> Outcome<Vec<Delivery>> {
    let filter = match query.status {
        DeliveryStatus::Exhausted => "exhausted IS NOT NULL",
        DeliveryStatus::Delivered => "exhausted IS NULL",
        DeliveryStatus::Pending => return Ok(Vec::new()),
    };
    let sql = format!(
        "{SETTLED} WHERE workspace = $1 AND app = $2 AND delivery > $3 AND delivery >= $4 AND delivery < $5
         AND endpoint = $6 AND {filter}
         AND EXISTS (SELECT FROM message m WHERE m.workspace = settled.workspace
                     AND m.app = settled.app AND m.id = settled.message)
         ORDER BY delivery LIMIT $7"
    );
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
        &uuid(query.workspace.to_bytes()),
        &query.app.as_str(),
        &uuid(after.map_or([0; 16], DeliveryId::to_bytes)),
        &uuid(DeliveryId::first_at(query.since).to_bytes()),
        &uuid(DeliveryId::first_at(query.until).to_bytes()),
        &uuid(query.endpoint.to_bytes()),
        &as_i64(limit as u64),
    ];
    let step = "find deliveries to recover";
    collect(session, step, &sql, &values, delivery_at).await
}

//! Reading what is due.

use std::sync::Arc;

use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::store::{Due, DueBlock, DueQuery};
use hookturn_core::time::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connect::Session;
use super::rows::{MESSAGE, Outcome, collect, count, first, id, message_at, time, uuid};
use crate::store::encoding::as_i64;

/// The payloads that are beyond the bound on bytes are left where they are.
pub(super) async fn due(session: &Session, query: DueQuery) -> Outcome<DueBlock> {
    const STEP: &str = "read due deliveries";
    let sql = format!(
        "SELECT * FROM (
             SELECT {MESSAGE}, due_at, delivery, attempts, attempts_before_requeue, not_before,
                    sum(octet_length(payload)) OVER (
                        ORDER BY due_at, delivery ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS earlier
             FROM (SELECT workspace, app, message AS id, due_at, delivery, attempts, attempts_before_requeue,
                          not_before
                   FROM due WHERE workspace = $1 AND endpoint = $2 AND due_at <= $3
                   ORDER BY due_at, delivery LIMIT $4) d
             JOIN message USING (workspace, app, id)) found
         WHERE coalesce(earlier, 0) <= $5 ORDER BY due_at, delivery"
    );
    let (workspace, endpoint) = (
        uuid(query.workspace.to_bytes()),
        uuid(query.endpoint.to_bytes()),
    );
    let values: [&(dyn ToSql + Sync); 5] = [
        &workspace,
        &endpoint,
        &query.until.as_millis(),
        &as_i64(query.limit as u64),
        &as_i64(query.payload_bytes as u64),
    ];
    let read = |row: &Row| due_row(&query, row);
    let rows = collect(session, STEP, &sql, &values, read).await?;
    let last = rows.last().map_or((i64::MIN, [0; 16]), |row: &Due| {
        (row.due_at.as_millis(), row.delivery.to_bytes())
    });
    let sql = "SELECT due_at FROM due WHERE workspace = $1 AND endpoint = $2 AND (due_at, delivery) > ($3, $4)
               ORDER BY due_at, delivery LIMIT 1";
    let values: [&(dyn ToSql + Sync); 4] = [&workspace, &endpoint, &last.0, &uuid(last.1)];
    let next = first(session, STEP, sql, &values).await?;
    let next_due_at = next.map(|row| time(&row, 0)).transpose()?;
    Ok(DueBlock { rows, next_due_at })
}

fn due_row(query: &DueQuery, row: &Row) -> Outcome<Due> {
    Ok(Due {
        delivery: id(row, 7)?,
        endpoint: query.endpoint,
        due_at: time(row, 6)?,
        not_before: time(row, 10)?,
        attempts: count(row, 8, "due", "attempts")?,
        attempts_before_requeue: count(row, 9, "due", "attempts_before_requeue")?,
        message: Arc::new(message_at(query.workspace, row, 0)?),
    })
}

/// A loose index scan: one step per endpoint, however many rows each has.
const EARLIEST: &str = "WITH RECURSIVE earliest AS (
        (SELECT workspace, endpoint, due_at FROM due ORDER BY workspace, endpoint, due_at LIMIT 1)
        UNION ALL
        SELECT next.* FROM earliest CROSS JOIN LATERAL (
            SELECT workspace, endpoint, due_at FROM due
            WHERE (workspace, endpoint) > (earliest.workspace, earliest.endpoint)
            ORDER BY workspace, endpoint, due_at LIMIT 1) next)
    SELECT workspace, endpoint, due_at FROM earliest";

pub(super) async fn due_endpoints(
    session: &Session,
) -> Outcome<Vec<(WorkspaceId, EndpointId, Timestamp)>> {
    let step = "find endpoints with due deliveries";
    let read = |row: &Row| Ok((id(row, 0)?, id(row, 1)?, time(row, 2)?));
    collect(session, step, EARLIEST, &[], read).await
}

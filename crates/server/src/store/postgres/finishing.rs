//! Finishing: attempts, the rows that move, and the deliveries that settle, each by one statement for a
//! whole batch.
//!
//! 1. The attempt is recorded, under the next free number if another one has its own already.
//! 2. The row as it was read moves to its next time, or makes room for the settled delivery.
//! 3. If there is no such row any more, someone queued the delivery by hand meanwhile: what stands there
//!    now learns of the attempt and stays.
//! 4. A row of an endpoint that keeps the order keeps its place, also if whoever sent it did not know of that
//!    yet.
//!
//! Two finishes of one delivery are never in one statement: the later one must find what the earlier one
//! left ([`waves`]). An endpoint that was forgotten has no deliveries left, so there is nothing to finish.

use std::collections::{HashMap, HashSet};

use hookturn_core::delivery::{Attempt, ExhaustedReason, Next};
use hookturn_core::id::{DeliveryId, EndpointId, WorkspaceId};
use hookturn_core::store::{Due, Finish, ReceiverState};
use hookturn_core::time::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::connect::Session;
use super::rows::{Outcome, as_i32, collect, column, execute, first, id, uuid};
use super::transaction::Tx;
use crate::store::encoding::{attempt_to_record, to_document};

/// Splits finishes, in their order, so that no part has two of one delivery.
pub(super) fn waves<'f>(finishes: impl Iterator<Item = &'f Finish>) -> Vec<Vec<&'f Finish>> {
    let mut waves: Vec<Vec<&Finish>> = Vec::new();
    let mut seen: HashMap<DeliveryId, usize> = HashMap::new();
    for finish in finishes {
        let wave = seen.entry(finish.due.delivery).or_default();
        if waves.len() <= *wave {
            waves.push(Vec::new());
        }
        waves[*wave].push(finish);
        *wave += 1;
    }
    waves
}

/// Finishes one wave.
pub(super) async fn finish(tx: &Tx<'_>, finishes: &[&Finish]) -> Outcome<()> {
    let session = tx.session;
    let numbers = record_attempts(session, finishes).await?;
    let number = |finish: &Finish| {
        let known = numbers.get(&finish.due.delivery);
        known.copied().unwrap_or(finish.due.attempts)
    };
    let (mut settling, mut waiting) = (Vec::new(), Vec::new());
    for finish in finishes {
        let (due, attempts) = (&finish.due, number(finish));
        match finish.next {
            Next::RetryAt(at) => {
                let keeps_place = finish.keeps_place || tx.is_ordered(due.endpoint);
                let place = if keeps_place { due.due_at } else { at };
                waiting.push((due, place, at, attempts));
            }
            Next::Delivered => settling.push((*finish, attempts, None)),
            Next::Exhausted(reason) => settling.push((*finish, attempts, Some(reason))),
        }
    }
    let (settled, postponed) =
        futures_util::try_join!(settle(session, &settling), postpone(session, &waiting))?;
    if settled.len() + postponed.len() == finishes.len() {
        return Ok(());
    }
    let as_read: HashSet<DeliveryId> = settled.into_iter().chain(postponed).collect();
    for finish in finishes {
        if finish.attempt.is_some() && !as_read.contains(&finish.due.delivery) {
            count_late_attempt(session, &finish.due, number(finish)).await?;
        }
    }
    Ok(())
}

/// Records the attempts of a wave; returns the number under which each is kept.
async fn record_attempts(
    session: &Session,
    finishes: &[&Finish],
) -> Outcome<HashMap<DeliveryId, u32>> {
    let made: Vec<(&Due, &Attempt)> = finishes
        .iter()
        .filter_map(|finish| Some((&finish.due, finish.attempt.as_ref()?)))
        .collect();
    let mut numbers: HashMap<DeliveryId, u32> = made
        .iter()
        .map(|(due, attempt)| (due.delivery, attempt.number))
        .collect();
    let kept = insert_attempts(session, &made).await?;
    if kept.len() == made.len() {
        return Ok(numbers);
    }
    // A delivery that is queued by hand while it is being sent may be sent twice at once, and both
    // attempts count from the same row.
    let kept: HashSet<DeliveryId> = kept.into_iter().collect();
    for (due, attempt) in made {
        if !kept.contains(&due.delivery) {
            let number = next_number(session, due).await?;
            let renumbered = Attempt {
                number,
                ..attempt.clone()
            };
            insert_attempts(session, &[(due, &renumbered)]).await?;
            numbers.insert(due.delivery, number);
        }
    }
    Ok(numbers)
}

/// Returns of which deliveries the attempt was kept.
async fn insert_attempts(session: &Session, made: &[(&Due, &Attempt)]) -> Outcome<Vec<DeliveryId>> {
    if made.is_empty() {
        return Ok(Vec::new());
    }
    let all = || made.iter();
    let workspaces: Vec<Uuid> = all()
        .map(|(due, _)| uuid(due.message.workspace.to_bytes()))
        .collect();
    let deliveries: Vec<Uuid> = all()
        .map(|(due, _)| uuid(due.delivery.to_bytes()))
        .collect();
    let numbers: Vec<i32> = all().map(|(_, attempt)| as_i32(attempt.number)).collect();
    let apps: Vec<&str> = all().map(|(due, _)| due.message.app.as_str()).collect();
    let records: Vec<Vec<u8>> = all()
        .map(|(_, attempt)| attempt_to_record(attempt))
        .collect::<Outcome<_>>()?;
    let sql = "INSERT INTO attempt (workspace, delivery, number, app, record)
               SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::bytea[])
               ON CONFLICT DO NOTHING RETURNING delivery";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&workspaces, &deliveries, &numbers, &apps, &records];
    collect(session, "record attempts", sql, &values, |row| id(row, 0)).await
}

async fn next_number(session: &Session, due: &Due) -> Outcome<u32> {
    let sql = "SELECT coalesce(max(number), 0) FROM attempt WHERE workspace = $1 AND delivery = $2";
    let (workspace, delivery) = key(due);
    let step = "number an attempt";
    let last = first(session, step, sql, &[&workspace, &delivery]).await?;
    let last: i32 = last.map_or(Ok(0), |row| column(&row, 0))?;
    Ok(last.max(0).cast_unsigned() + 1)
}

fn key(due: &Due) -> (Uuid, Uuid) {
    let workspace = uuid(due.message.workspace.to_bytes());
    (workspace, uuid(due.delivery.to_bytes()))
}

/// The columns by which rows are found as they were read.
#[derive(Default)]
struct AsRead {
    workspaces: Vec<Uuid>,
    deliveries: Vec<Uuid>,
    endpoints: Vec<Uuid>,
    due_at: Vec<i64>,
    not_before: Vec<i64>,
}

impl AsRead {
    fn of<'d>(rows: impl Iterator<Item = &'d Due>) -> Self {
        let mut columns = Self::default();
        for due in rows {
            let (workspace, delivery) = key(due);
            columns.workspaces.push(workspace);
            columns.deliveries.push(delivery);
            columns.endpoints.push(uuid(due.endpoint.to_bytes()));
            columns.due_at.push(due.due_at.as_millis());
            columns.not_before.push(due.not_before.as_millis());
        }
        columns
    }
}

/// Moves due rows; returns those that were still as read.
async fn postpone(
    session: &Session,
    waiting: &[(&Due, Timestamp, Timestamp, u32)],
) -> Outcome<Vec<DeliveryId>> {
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let known = AsRead::of(waiting.iter().map(|row| row.0));
    let places: Vec<i64> = waiting.iter().map(|row| row.1.as_millis()).collect();
    let not_before: Vec<i64> = waiting.iter().map(|row| row.2.as_millis()).collect();
    let attempts: Vec<i32> = waiting.iter().map(|row| as_i32(row.3)).collect();
    let sql = "UPDATE due SET due_at = given.place, not_before = given.later, attempts = given.attempts
               FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[],
                           $6::bigint[], $7::bigint[], $8::integer[])
                   AS given (workspace, delivery, endpoint, due_at, not_before, place, later, attempts)
               WHERE due.workspace = given.workspace AND due.delivery = given.delivery
                 AND due.endpoint = given.endpoint
                 AND due.due_at = given.due_at AND due.not_before = given.not_before
               RETURNING due.delivery";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 8] = [
        &known.workspaces,
        &known.deliveries,
        &known.endpoints,
        &known.due_at,
        &known.not_before,
        &places,
        &not_before,
        &attempts,
    ];
    let read = |row: &Row| id(row, 0);
    collect(session, "postpone deliveries", sql, &values, read).await
}

/// Replaces due rows by settled deliveries; returns those that were still as read.
async fn settle(
    session: &Session,
    settling: &[(&Finish, u32, Option<ExhaustedReason>)],
) -> Outcome<Vec<DeliveryId>> {
    if settling.is_empty() {
        return Ok(Vec::new());
    }
    let all = || settling.iter();
    let known = AsRead::of(all().map(|row| &row.0.due));
    let of =
        |row: &(&Finish, u32, Option<ExhaustedReason>)| std::sync::Arc::clone(&row.0.due.message);
    let messages: Vec<_> = all().map(of).collect();
    let apps: Vec<&str> = messages.iter().map(|m| m.app.as_str()).collect();
    let ids: Vec<Uuid> = messages.iter().map(|m| uuid(m.id.to_bytes())).collect();
    let event_types: Vec<&str> = messages.iter().map(|m| m.event_type.as_str()).collect();
    let attempts: Vec<i32> = all().map(|row| as_i32(row.1)).collect();
    let settled_at: Vec<i64> = all().map(|row| row.0.at.as_millis()).collect();
    let exhausted: Vec<Option<&str>> = all()
        .map(|row| row.2.map(ExhaustedReason::as_str))
        .collect();
    let sql = "WITH gone AS (
                   DELETE FROM due
                   USING unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::text[],
                                $7::uuid[], $8::text[], $9::integer[], $10::bigint[], $11::text[])
                       AS given (workspace, delivery, endpoint, due_at, not_before, app,
                                 message, event_type, attempts, settled_at, exhausted)
                   WHERE due.workspace = given.workspace AND due.delivery = given.delivery
                     AND due.endpoint = given.endpoint
                     AND due.due_at = given.due_at AND due.not_before = given.not_before
                   RETURNING given.*)
               INSERT INTO settled (workspace, app, delivery, endpoint, message, event_type, attempts,
                                    settled_at, exhausted)
               SELECT workspace, app, delivery, endpoint, message, event_type, attempts, settled_at, exhausted
               FROM gone RETURNING delivery";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 11] = [
        &known.workspaces,
        &known.deliveries,
        &known.endpoints,
        &known.due_at,
        &known.not_before,
        &apps,
        &ids,
        &event_types,
        &attempts,
        &settled_at,
        &exhausted,
    ];
    let read = |row: &Row| id(row, 0);
    collect(session, "settle deliveries", sql, &values, read).await
}

/// Tells a delivery that moved while it was being sent that there is one more attempt. A retry policy
/// that was started anew by hand does not count it, for it began before.
async fn count_late_attempt(session: &Session, due: &Due, number: u32) -> Outcome<()> {
    const STEP: &str = "count a late attempt";
    let (workspace, delivery) = key(due);
    let number = as_i32(number);
    let sql = "UPDATE due SET attempts = greatest(attempts, $3),
                      attempts_before_requeue = CASE WHEN attempts < $3 THEN $3 ELSE attempts_before_requeue END
               WHERE workspace = $1 AND delivery = $2";
    if execute(session, STEP, sql, &[&workspace, &delivery, &number]).await? == 1 {
        return Ok(());
    }
    let app = due.message.app.as_str();
    let sql = "UPDATE settled SET attempts = greatest(attempts, $4)
               WHERE workspace = $1 AND app = $3 AND delivery = $2";
    if execute(session, STEP, sql, &[&workspace, &delivery, &app, &number]).await? == 1 {
        return Ok(());
    }
    // Pruned meanwhile: nothing would ever find the attempt again.
    let sql = "DELETE FROM attempt WHERE workspace = $1 AND delivery = $2";
    execute(session, STEP, sql, &[&workspace, &delivery])
        .await
        .map(drop)
}

/// Remembers receivers; of one endpoint the last one counts.
pub(super) async fn remember(
    tx: &mut Tx<'_>,
    receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
) -> Outcome<()> {
    let mut latest: HashMap<EndpointId, (WorkspaceId, ReceiverState)> = HashMap::new();
    for (workspace, endpoint, receiver) in receivers {
        if tx.known_endpoint(endpoint).is_ok() {
            latest.insert(endpoint, (workspace, receiver));
        }
    }
    if latest.is_empty() {
        return Ok(());
    }
    let (mut workspaces, mut endpoints, mut documents) = (Vec::new(), Vec::new(), Vec::new());
    for (endpoint, (workspace, receiver)) in &latest {
        workspaces.push(uuid(workspace.to_bytes()));
        endpoints.push(uuid(endpoint.to_bytes()));
        documents.push(to_document("endpoint", receiver)?);
    }
    let sql = "UPDATE endpoint SET receiver = given.document, receiver_at = clock_timestamp()
               FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS given (workspace, endpoint, document)
               WHERE endpoint.workspace = given.workspace AND endpoint.id = given.endpoint";
    let step = "remember receivers";
    execute(
        tx.session,
        step,
        sql,
        &[&workspaces, &endpoints, &documents],
    )
    .await?;
    let known = latest
        .into_iter()
        .map(|(endpoint, (_, receiver))| (endpoint, receiver));
    tx.effects.receivers.extend(known);
    Ok(())
}

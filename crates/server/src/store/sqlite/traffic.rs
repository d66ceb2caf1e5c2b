//! Traffic: messages, due rows, attempts and settled deliveries.
//!
//! A message and an attempt are written once and never changed. A due row lives while its delivery
//! is pending; the transaction that removes it writes the settled row.

use std::sync::Arc;

use hookturn_core::delivery::{Attempt, ExhaustedReason, Next};
use hookturn_core::id::{EndpointId, MessageId, WorkspaceId};
use hookturn_core::message::{EventType, Message};
use hookturn_core::store::{
    Accept, Due, DueBlock, DueQuery, Finish, NewMessage, ReceiverState, StoreError,
};
use hookturn_core::time::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::configuration::{collect, execute, write_unique};
use super::failed;
use super::ledger::put_idempotent_answer;
use super::reader::At;
use super::rows::{self, NewNumber, Numbers, as_i64, impossible, to_document};
use super::writer::Tx;

type Outcome<T> = Result<T, StoreError>;

// ----- accepting -----

pub(super) fn accept(tx: &mut Tx<'_>, accept: Accept) -> Outcome<()> {
    if let Some(record) = &accept.idempotency {
        let now = accept
            .messages
            .first()
            .map_or(Timestamp::EPOCH, |new| new.message.accepted_at);
        put_idempotent_answer(tx, record, now)?;
    }
    accept
        .messages
        .into_iter()
        .try_for_each(|new| accept_message(tx, new))
}

pub(super) fn accept_message(tx: &mut Tx<'_>, new: NewMessage) -> Outcome<()> {
    const STEP: &str = "accept a message";
    let message = &new.message;
    let workspace = tx.workspace(message.workspace)?;
    let endpoints = new
        .deliveries
        .iter()
        .map(|(_, endpoint)| tx.endpoint(*endpoint))
        .collect::<Outcome<Vec<_>>>()?;
    let event_type = event_type_number(tx, workspace, &message.event_type)?;
    let accepted_at = message.accepted_at.as_millis();
    let sql = "INSERT INTO message (workspace, app, id, event_type, event_id, accepted_at, payload)
               VALUES (?, ?, ?, ?, ?, ?, ?)";
    let values = params![
        workspace,
        message.app.as_str(),
        message.id.to_bytes(),
        event_type,
        message.event_id,
        accepted_at,
        &message.payload[..]
    ];
    if write_unique(tx, STEP, sql, values)?.is_none() {
        return Err(StoreError::Duplicate {
            what: format!("message {}", message.id),
        });
    }
    let number = tx.connection.last_insert_rowid();
    for ((delivery, endpoint), to) in new.deliveries.into_iter().zip(endpoints) {
        let sql = "INSERT INTO due (endpoint, due_at, delivery, message, attempts, attempts_before_requeue, not_before)
                   VALUES (?1, ?2, ?3, ?4, 0, 0, ?2)";
        execute(
            tx,
            STEP,
            sql,
            params![to, accepted_at, delivery.to_bytes(), number],
        )?;
        tx.effects.accepted.push(Due {
            delivery,
            endpoint,
            due_at: message.accepted_at,
            not_before: message.accepted_at,
            attempts: 0,
            attempts_before_requeue: 0,
            message: Arc::clone(message),
        });
    }
    Ok(())
}

fn event_type_number(tx: &mut Tx<'_>, workspace: i64, name: &EventType) -> Outcome<i64> {
    if let Some(number) = tx.numbers.event_type(workspace, name) {
        return Ok(number);
    }
    let fresh = tx.effects.numbers.iter().find_map(|new| match new {
        NewNumber::EventType(owner, known, number) if *owner == workspace && known == name => {
            Some(*number)
        }
        _ => None,
    });
    if let Some(number) = fresh {
        return Ok(number);
    }
    let sql = "INSERT INTO event_type (workspace, name) VALUES (?, ?)";
    execute(
        tx,
        "note an event type",
        sql,
        params![workspace, name.as_str()],
    )?;
    let number = tx.connection.last_insert_rowid();
    tx.effects
        .numbers
        .push(NewNumber::EventType(workspace, name.clone(), number));
    Ok(number)
}

// ----- finishing -----

pub(super) fn finish(
    tx: &mut Tx<'_>,
    finishes: &[Finish],
    receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
) -> Outcome<()> {
    finishes
        .iter()
        .try_for_each(|finish| finish_one(tx, finish))?;
    for (_, endpoint, receiver) in receivers {
        let Ok(number) = tx.endpoint(endpoint) else {
            continue;
        };
        let document = to_document("endpoint", &receiver)?;
        let sql = "UPDATE endpoint SET receiver = ? WHERE number = ?";
        execute(tx, "remember a receiver", sql, params![document, number])?;
        tx.effects.receivers.push((endpoint, receiver));
    }
    Ok(())
}

/// 1. The attempt is recorded, under the next free number if another one has its own already.
/// 2. The row as it was read moves to its next time, or makes room for the settled delivery.
/// 3. If there is no such row any more, someone queued the delivery by hand meanwhile: what stands
///    there now learns of the attempt and stays.
/// 4. A row of an endpoint that keeps the order keeps its place, also if whoever sent it did not know
///    of that yet.
///
/// An endpoint that was forgotten has no deliveries left, so there is nothing to finish.
fn finish_one(tx: &mut Tx<'_>, finish: &Finish) -> Outcome<()> {
    let due = &finish.due;
    let Ok(endpoint) = tx.endpoint(due.endpoint) else {
        return Ok(());
    };
    let attempts = match &finish.attempt {
        Some(attempt) => record_attempt(tx, due, attempt)?,
        None => due.attempts,
    };
    let as_read = match finish.next {
        Next::RetryAt(at) => {
            let keeps_place = finish.keeps_place || tx.is_ordered(due.endpoint);
            let place = if keeps_place { due.due_at } else { at };
            postpone(tx, endpoint, due, place, at, attempts)?
        }
        Next::Delivered => settle(tx, endpoint, finish, attempts, None)?,
        Next::Exhausted(reason) => settle(tx, endpoint, finish, attempts, Some(reason))?,
    };
    if !as_read && finish.attempt.is_some() {
        count_late_attempt(tx, due, attempts)?;
    }
    Ok(())
}

/// Returns the number under which the attempt is kept.
fn record_attempt(tx: &Tx<'_>, due: &Due, attempt: &Attempt) -> Outcome<u32> {
    const STEP: &str = "record an attempt";
    let delivery = due.delivery.to_bytes();
    let app = due.message.app;
    let sql = "INSERT INTO attempt (delivery, number, app, record) VALUES (?, ?, ?, ?)
               ON CONFLICT DO NOTHING";
    let record = rows::attempt_to_record(attempt)?;
    let values = params![delivery, attempt.number, app.as_str(), record];
    if execute(tx, STEP, sql, values)? == 1 {
        return Ok(attempt.number);
    }
    // A delivery that is queued by hand while it is being sent may be sent twice at once, and both
    // attempts count from the same row.
    let last = "SELECT max(number) FROM attempt WHERE delivery = ?";
    let last: u32 = tx
        .connection
        .prepare_cached(last)
        .and_then(|mut s| s.query_row([delivery], |row| rows::count(row, 0)))
        .map_err(failed(STEP))?;
    let number = last + 1;
    let renumbered = Attempt {
        number,
        ..attempt.clone()
    };
    let record = rows::attempt_to_record(&renumbered)?;
    execute(
        tx,
        STEP,
        sql,
        params![delivery, number, app.as_str(), record],
    )?;
    Ok(number)
}

/// Moves a due row; returns whether it was still as read.
fn postpone(
    tx: &Tx<'_>,
    endpoint: i64,
    due: &Due,
    place: Timestamp,
    not_before: Timestamp,
    attempts: u32,
) -> Outcome<bool> {
    let sql = "UPDATE due SET due_at = ?5, not_before = ?6, attempts = ?7
               WHERE endpoint = ?1 AND due_at = ?2 AND delivery = ?3 AND not_before = ?4";
    let values = params![
        endpoint,
        due.due_at.as_millis(),
        due.delivery.to_bytes(),
        due.not_before.as_millis(),
        place.as_millis(),
        not_before.as_millis(),
        attempts
    ];
    execute(tx, "postpone a delivery", sql, values).map(|changed| changed == 1)
}

/// Replaces a due row by a settled delivery; returns whether it was still as read.
fn settle(
    tx: &mut Tx<'_>,
    endpoint: i64,
    finish: &Finish,
    attempts: u32,
    exhausted: Option<ExhaustedReason>,
) -> Outcome<bool> {
    const STEP: &str = "settle a delivery";
    let (due, message) = (&finish.due, &finish.due.message);
    let delivery = due.delivery.to_bytes();
    let sql =
        "DELETE FROM due WHERE endpoint = ? AND due_at = ? AND delivery = ? AND not_before = ?";
    let values = params![
        endpoint,
        due.due_at.as_millis(),
        delivery,
        due.not_before.as_millis()
    ];
    if execute(tx, STEP, sql, values)? == 0 {
        return Ok(false);
    }
    let workspace = tx.workspace(message.workspace)?;
    let event_type = event_type_number(tx, workspace, &message.event_type)?;
    let sql = "INSERT INTO settled (workspace, app, delivery, endpoint, message, event_type, attempts, settled_at, exhausted)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let values = params![
        workspace,
        message.app.as_str(),
        delivery,
        endpoint,
        message.id.to_bytes(),
        event_type,
        attempts,
        finish.at.as_millis(),
        exhausted.map(ExhaustedReason::as_str)
    ];
    execute(tx, STEP, sql, values).map(|_| true)
}

/// Tells a delivery that moved while it was being sent that there is one more attempt. A retry policy
/// that was started anew by hand does not count it, for it began before.
fn count_late_attempt(tx: &Tx<'_>, due: &Due, number: u32) -> Outcome<()> {
    const STEP: &str = "count a late attempt";
    let delivery = due.delivery.to_bytes();
    let sql = "UPDATE due SET attempts = max(attempts, ?2),
                      attempts_before_requeue = iif(attempts < ?2, ?2, attempts_before_requeue)
               WHERE delivery = ?1";
    if execute(tx, STEP, sql, params![delivery, number])? == 1 {
        return Ok(());
    }
    let workspace = tx.workspace(due.message.workspace)?;
    let app = due.message.app;
    let sql = "UPDATE settled SET attempts = max(attempts, ?4)
               WHERE workspace = ?1 AND app = ?2 AND delivery = ?3";
    let values = params![workspace, app.as_str(), delivery, number];
    if execute(tx, STEP, sql, values)? == 1 {
        return Ok(());
    }
    // Pruned meanwhile: nothing would ever find the attempt again.
    let sql = "DELETE FROM attempt WHERE delivery = ?";
    execute(tx, STEP, sql, [delivery]).map(drop)
}

// ----- the queue -----

pub(super) fn due(at: &At<'_>, query: DueQuery) -> Outcome<DueBlock> {
    const STEP: &str = "read due deliveries";
    let Some(endpoint) = at.endpoint_of(query.workspace, query.endpoint) else {
        return Ok(DueBlock::default());
    };
    let sql = "SELECT d.due_at, d.delivery, d.attempts, d.attempts_before_requeue, d.not_before,
                      m.app, m.id, m.event_type, m.event_id, m.accepted_at, m.payload
               FROM due d JOIN message m ON m.number = d.message
               WHERE d.endpoint = ? AND d.due_at <= ? ORDER BY d.due_at, d.delivery LIMIT ?";
    let mut statement = at.connection.prepare_cached(sql).map_err(failed(STEP))?;
    let values = params![
        endpoint,
        query.until.as_millis(),
        as_i64((query.limit as u64).saturating_add(1))
    ];
    let mut found = statement.query(values).map_err(failed(STEP))?;
    let mut block = DueBlock::default();
    let mut bytes = 0;
    while let Some(row) = found.next().map_err(failed(STEP))? {
        if block.rows.len() == query.limit || bytes > query.payload_bytes {
            block.next_due_at = Some(rows::time(row, 0).map_err(failed(STEP))?);
            return Ok(block);
        }
        let message = message_at(at.numbers, query.workspace, row, 5)?;
        bytes += message.payload.len();
        block
            .rows
            .push(due_row(row, query.endpoint, message).map_err(failed(STEP))?);
    }
    let sql = "SELECT due_at FROM due WHERE endpoint = ? AND due_at > ? ORDER BY due_at LIMIT 1";
    block.next_due_at = at
        .connection
        .prepare_cached(sql)
        .and_then(|mut s| {
            s.query_row(params![endpoint, query.until.as_millis()], |row| {
                rows::time(row, 0)
            })
            .optional()
        })
        .map_err(failed(STEP))?;
    Ok(block)
}

/// Puts what waits for its retry where it was accepted, so that nothing which was accepted since passes it. An
/// endpoint that kept the order before has every row in its place, and one may be on its way.
pub(super) fn put_in_order(tx: &Tx<'_>, endpoint: EndpointId, now: Timestamp) -> Outcome<()> {
    let sql =
        "UPDATE due SET due_at = (SELECT accepted_at FROM message m WHERE m.number = due.message)
               WHERE endpoint = ? AND due_at > ?";
    let values = params![tx.endpoint(endpoint)?, now.as_millis()];
    execute(tx, "put deliveries in order", sql, values).map(drop)
}

fn due_row(row: &Row<'_>, endpoint: EndpointId, message: Message) -> rusqlite::Result<Due> {
    Ok(Due {
        delivery: rows::id(row, 1)?,
        endpoint,
        due_at: rows::time(row, 0)?,
        not_before: rows::time(row, 4)?,
        attempts: rows::count(row, 2)?,
        attempts_before_requeue: rows::count(row, 3)?,
        message: Arc::new(message),
    })
}

/// Reads `app, id, event_type, event_id, accepted_at, payload` from column `from` on.
pub(super) fn message_at(
    numbers: &Numbers,
    workspace: WorkspaceId,
    row: &Row<'_>,
    from: usize,
) -> Outcome<Message> {
    let read = |row: &Row<'_>| {
        let event_type: i64 = row.get(from + 2)?;
        let message = (
            rows::client_id(row, from)?,
            rows::id::<MessageId>(row, from + 1)?,
            event_type,
        );
        Ok((
            message,
            row.get(from + 3)?,
            rows::time(row, from + 4)?,
            row.get::<_, Vec<u8>>(from + 5)?,
        ))
    };
    let ((app, id, event_type), event_id, accepted_at, payload) =
        read(row).map_err(failed("read a message"))?;
    let event_type = numbers
        .event_type_of(event_type)
        .ok_or_else(|| impossible("message", "event_type", &id, "no such event type"))?;
    Ok(Message {
        id,
        workspace,
        app,
        event_type,
        event_id,
        payload: payload.into(),
        accepted_at,
    })
}

pub(super) fn due_endpoints(at: &At<'_>) -> Outcome<Vec<(WorkspaceId, EndpointId, Timestamp)>> {
    // A loose index scan: one step per endpoint, however many rows each has.
    let sql = "WITH RECURSIVE waiting(endpoint) AS (
                   SELECT min(endpoint) FROM due
                   UNION ALL
                   SELECT (SELECT min(endpoint) FROM due WHERE endpoint > waiting.endpoint)
                   FROM waiting WHERE waiting.endpoint IS NOT NULL)
               SELECT endpoint, (SELECT min(due_at) FROM due d WHERE d.endpoint = waiting.endpoint)
               FROM waiting WHERE endpoint IS NOT NULL";
    collect(
        at.connection,
        "find endpoints with due deliveries",
        sql,
        [],
        |row| {
            let number: i64 = row.get(0)?;
            let due_at = rows::time(row, 1)?;
            Ok(match at.numbers.endpoint_of(number) {
                Some((workspace, endpoint)) => Ok((workspace, endpoint, due_at)),
                None => Err(impossible("due", "endpoint", &number, "no such endpoint")),
            })
        },
    )
}

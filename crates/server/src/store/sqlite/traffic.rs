//! Traffic: messages, due rows, attempts and settled deliveries.
//!
//! A message and an attempt are written once and never changed. A due row lives while its delivery
//! is pending; the transaction that removes it writes the settled row.

use std::sync::Arc;

use hookturn_core::delivery::{
    Attempt, Delivery, DeliveryState, DeliveryStatus, ExhaustedReason, Next,
};
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, MessageId, WorkspaceId};
use hookturn_core::message::{EventType, Message};
use hookturn_core::store::{
    Accept, DeliveryQuery, Due, DueBlock, DueQuery, Finish, Hint, NewMessage, Page, Progress,
    ReceiverState, RecoverQuery, StoreError,
};
use hookturn_core::time::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::configuration::{collect, execute};
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

fn accept_message(tx: &mut Tx<'_>, new: NewMessage) -> Outcome<()> {
    const STEP: &str = "accept a message";
    let message = &new.message;
    let workspace = tx.workspace(message.workspace)?;
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
    execute(tx, STEP, sql, values)?;
    let number = tx.connection.last_insert_rowid();
    for (delivery, endpoint) in new.deliveries {
        let to = tx.endpoint(endpoint)?;
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
        let document = to_document("endpoint", &receiver)?;
        let sql = "UPDATE endpoint SET receiver = ? WHERE number = ?";
        execute(
            tx,
            "remember a receiver",
            sql,
            params![document, tx.endpoint(endpoint)?],
        )?;
        tx.effects.receivers.push((endpoint, receiver));
    }
    Ok(())
}

fn finish_one(tx: &mut Tx<'_>, finish: &Finish) -> Outcome<()> {
    const STEP: &str = "record an attempt";
    let due = &finish.due;
    let message = &due.message;
    let endpoint = tx.endpoint(due.endpoint)?;
    let delivery = due.delivery.to_bytes();
    if let Some(attempt) = &finish.attempt {
        // The same attempt can come twice only if a crash lost the first record of it.
        let sql =
            "INSERT OR REPLACE INTO attempt (delivery, number, app, record) VALUES (?, ?, ?, ?)";
        let record = rows::attempt_to_record(attempt)?;
        execute(
            tx,
            STEP,
            sql,
            params![delivery, attempt.number, message.app.as_str(), record],
        )?;
    }
    let attempts = finish
        .attempt
        .as_ref()
        .map_or(due.attempts, |attempt| attempt.number);
    let key = (endpoint, due.due_at.as_millis());
    let exhausted = match finish.next {
        Next::RetryAt(at) => {
            let place = if finish.keeps_place { due.due_at } else { at };
            let sql = "UPDATE due SET due_at = ?4, not_before = ?5, attempts = ?6
                       WHERE endpoint = ?1 AND due_at = ?2 AND delivery = ?3";
            let values = params![
                key.0,
                key.1,
                delivery,
                place.as_millis(),
                at.as_millis(),
                attempts
            ];
            return execute(tx, STEP, sql, values).map(drop);
        }
        Next::Delivered => None,
        Next::Exhausted(reason) => Some(reason.as_str()),
    };
    let sql = "DELETE FROM due WHERE endpoint = ? AND due_at = ? AND delivery = ?";
    if execute(tx, STEP, sql, params![key.0, key.1, delivery])? == 0 {
        return Ok(());
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
        exhausted
    ];
    execute(tx, STEP, sql, values).map(drop)
}

// ----- the queue -----

pub(super) fn due(at: &At<'_>, query: DueQuery) -> Outcome<DueBlock> {
    const STEP: &str = "read due deliveries";
    let Some(endpoint) = at.numbers.endpoint(query.endpoint) else {
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
        as_i64(query.limit as u64 + 1)
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
fn message_at(
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
            let sql = "UPDATE due SET due_at = min(due_at, ?2), not_before = min(not_before, ?2),
                              attempts_before_requeue = attempts WHERE delivery = ?1";
            execute(
                tx,
                "queue a delivery again",
                sql,
                params![delivery.to_bytes(), now.as_millis()],
            )?;
        }
        DeliveryState::Delivered { .. } | DeliveryState::Exhausted { .. } => {
            unsettle(tx, &known, now)?;
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

/// Turns a settled delivery back into a due row.
fn unsettle(tx: &Tx<'_>, delivery: &Delivery, now: Timestamp) -> Outcome<()> {
    const STEP: &str = "queue a delivery again";
    let workspace = tx.workspace(delivery.workspace)?;
    let app = delivery.app.as_str();
    let id = delivery.id.to_bytes();
    let sql = "INSERT INTO due (endpoint, due_at, delivery, message, attempts, attempts_before_requeue, not_before)
               SELECT s.endpoint, ?4, s.delivery, m.number, s.attempts, s.attempts, ?4
               FROM settled s JOIN message m ON m.workspace = s.workspace AND m.app = s.app AND m.id = s.message
               WHERE s.workspace = ?1 AND s.app = ?2 AND s.delivery = ?3";
    execute(tx, STEP, sql, params![workspace, app, id, now.as_millis()])?;
    let sql = "DELETE FROM settled WHERE workspace = ? AND app = ? AND delivery = ?";
    execute(tx, STEP, sql, params![workspace, app, id]).map(drop)
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
    for delivery in &found {
        unsettle(tx, delivery, now)?;
    }
    tx.effects
        .hints
        .push(Hint::Requeued(query.workspace, query.endpoint));
    Ok(progress(&found, limit))
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

const SETTLED: &str = "SELECT delivery, endpoint, message, event_type, attempts, settled_at, exhausted, app FROM settled";

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
        at.numbers.endpoint(query.endpoint),
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

// ----- reading -----

fn settled_at(
    at: &At<'_>,
    workspace: WorkspaceId,
    row: &Row<'_>,
) -> rusqlite::Result<Outcome<Delivery>> {
    let id: DeliveryId = rows::id(row, 0)?;
    let (endpoint, event_type): (i64, i64) = (row.get(1)?, row.get(3)?);
    let settled_at = rows::time(row, 5)?;
    let state = match row.get_ref(6)?.as_str_or_null()? {
        None => DeliveryState::Delivered { at: settled_at },
        Some(word) => match ExhaustedReason::from_word(word) {
            Some(reason) => DeliveryState::Exhausted {
                at: settled_at,
                reason,
            },
            None => {
                return Ok(Err(impossible(
                    "settled",
                    "exhausted",
                    &id,
                    "an unknown word",
                )));
            }
        },
    };
    let Some((_, endpoint)) = at.numbers.endpoint_of(endpoint) else {
        return Ok(Err(impossible(
            "settled",
            "endpoint",
            &id,
            "no such endpoint",
        )));
    };
    let Some(event_type) = at.numbers.event_type_of(event_type) else {
        return Ok(Err(impossible(
            "settled",
            "event_type",
            &id,
            "no such event type",
        )));
    };
    let (message, attempts, app) = (
        rows::id(row, 2)?,
        rows::count(row, 4)?,
        rows::client_id(row, 7)?,
    );
    Ok(Ok(Delivery {
        id,
        workspace,
        app,
        endpoint,
        message,
        event_type,
        attempts,
        state,
    }))
}

const PENDING: &str = "SELECT d.delivery, d.endpoint, m.id, m.event_type, d.attempts, max(d.due_at, d.not_before), m.app
                       FROM due d JOIN message m ON m.number = d.message";

fn pending_at(at: &At<'_>, row: &Row<'_>) -> rusqlite::Result<Outcome<Delivery>> {
    let id: DeliveryId = rows::id(row, 0)?;
    let (endpoint, event_type): (i64, i64) = (row.get(1)?, row.get(3)?);
    let Some((workspace, endpoint)) = at.numbers.endpoint_of(endpoint) else {
        return Ok(Err(impossible("due", "endpoint", &id, "no such endpoint")));
    };
    let Some(event_type) = at.numbers.event_type_of(event_type) else {
        return Ok(Err(impossible(
            "message",
            "event_type",
            &id,
            "no such event type",
        )));
    };
    let state = DeliveryState::Pending {
        due_at: rows::time(row, 5)?,
    };
    let (message, attempts, app) = (
        rows::id(row, 2)?,
        rows::count(row, 4)?,
        rows::client_id(row, 6)?,
    );
    Ok(Ok(Delivery {
        id,
        workspace,
        app,
        endpoint,
        message,
        event_type,
        attempts,
        state,
    }))
}

/// One delivery, pending or settled. A settled row is found by its app, which its first attempt
/// names; a delivery that settled without an attempt is looked for in every app.
fn find_delivery(at: &At<'_>, workspace: WorkspaceId, id: DeliveryId) -> Outcome<Option<Delivery>> {
    const STEP: &str = "read a delivery";
    let sql = format!("{PENDING} WHERE d.delivery = ?");
    let pending = collect(at.connection, STEP, &sql, [id.to_bytes()], |row| {
        pending_at(at, row)
    })?;
    if let Some(pending) = pending.into_iter().next() {
        return Ok(Some(pending).filter(|delivery| delivery.workspace == workspace));
    }
    let Some(number) = at.numbers.workspace(workspace) else {
        return Ok(None);
    };
    let sql = format!(
        "{SETTLED} WHERE workspace = ?1 AND delivery = ?2 AND app IN (
             SELECT app FROM attempt WHERE delivery = ?2
             UNION ALL SELECT id FROM app WHERE workspace = ?1 AND NOT EXISTS (SELECT 1 FROM attempt WHERE delivery = ?2))"
    );
    let values = params![number, id.to_bytes()];
    let settled = collect(at.connection, STEP, &sql, values, |row| {
        settled_at(at, workspace, row)
    })?;
    Ok(settled.into_iter().next())
}

pub(super) fn delivery(
    at: &At<'_>,
    workspace: WorkspaceId,
    id: DeliveryId,
) -> Outcome<Option<(Delivery, Vec<Attempt>)>> {
    let Some(delivery) = find_delivery(at, workspace, id)? else {
        return Ok(None);
    };
    let sql = "SELECT record FROM attempt WHERE delivery = ? ORDER BY number";
    let attempts = collect(
        at.connection,
        "read attempts",
        sql,
        [id.to_bytes()],
        |row| Ok(rows::attempt_from_record(&id, row.get_ref(0)?.as_blob()?)),
    )?;
    Ok(Some((delivery, attempts)))
}

pub(super) fn deliveries(at: &At<'_>, query: &DeliveryQuery) -> Outcome<Vec<Delivery>> {
    let wanted = |status| query.status.is_none_or(|only| only == status);
    let mut found = Vec::new();
    if wanted(DeliveryStatus::Pending) {
        found.extend(listed(at, query, DeliveryStatus::Pending)?);
    }
    if wanted(DeliveryStatus::Delivered) || wanted(DeliveryStatus::Exhausted) {
        found.extend(listed(
            at,
            query,
            query.status.unwrap_or(DeliveryStatus::Delivered),
        )?);
    }
    found.sort_unstable_by_key(|delivery| std::cmp::Reverse(delivery.id));
    found.truncate(query.page.limit);
    Ok(found)
}

fn listed(at: &At<'_>, query: &DeliveryQuery, kind: DeliveryStatus) -> Outcome<Vec<Delivery>> {
    const STEP: &str = "list deliveries";
    let Some(workspace) = at.numbers.workspace(query.workspace) else {
        return Ok(Vec::new());
    };
    let endpoint = match query.endpoint.map(|id| at.numbers.endpoint(id)) {
        Some(None) => return Ok(Vec::new()),
        Some(number) => number,
        None => None,
    };
    let event_type = match query
        .event_type
        .as_ref()
        .map(|name| at.numbers.event_type(workspace, name))
    {
        Some(None) => return Ok(Vec::new()),
        Some(number) => number,
        None => None,
    };
    let (from, before) = id_range(query);
    let pending = kind == DeliveryStatus::Pending;
    let exhausted = match query.status {
        Some(DeliveryStatus::Exhausted) => "AND exhausted IS NOT NULL",
        Some(DeliveryStatus::Delivered) => "AND exhausted IS NULL",
        Some(DeliveryStatus::Pending) | None => "",
    };
    let sql = if pending {
        format!("{PENDING} WHERE m.workspace = ?1 AND m.app = ?2 AND d.delivery >= ?3 AND d.delivery < ?4
                 AND (?5 IS NULL OR d.endpoint = ?5) AND (?6 IS NULL OR m.event_type = ?6)
                 AND (?7 IS NULL OR m.id = ?7) ORDER BY d.delivery DESC LIMIT ?8")
    } else {
        format!(
            "{SETTLED} WHERE workspace = ?1 AND app = ?2 AND delivery >= ?3 AND delivery < ?4
                 AND (?5 IS NULL OR endpoint = ?5) AND (?6 IS NULL OR event_type = ?6)
                 AND (?7 IS NULL OR message = ?7) {exhausted} ORDER BY delivery DESC LIMIT ?8"
        )
    };
    let values = params![
        workspace,
        query.app.as_str(),
        from.to_bytes(),
        before.to_bytes(),
        endpoint,
        event_type,
        query.message.map(MessageId::to_bytes),
        as_i64(query.page.limit as u64)
    ];
    collect(at.connection, STEP, &sql, values, |row| {
        if pending {
            pending_at(at, row)
        } else {
            settled_at(at, query.workspace, row)
        }
    })
}

/// The ids a query can match: `[from, before)`. Deliveries are made with their message.
fn id_range(query: &DeliveryQuery) -> (DeliveryId, DeliveryId) {
    let last = DeliveryId::from_bytes([0xff; 16]);
    let since = query
        .since
        .map_or(DeliveryId::from_bytes([0; 16]), DeliveryId::first_at);
    let until = query.until.map_or(last, DeliveryId::first_at);
    let (made, made_before) = query.message.map_or((since, last), |message| {
        let at = message.created_at();
        (
            DeliveryId::first_at(at),
            DeliveryId::first_at(at.after(60_000)),
        )
    });
    (
        since.max(made),
        until
            .min(made_before)
            .min(query.page.before.unwrap_or(last)),
    )
}

const MESSAGE: &str = "SELECT app, id, event_type, event_id, accepted_at, payload FROM message";

pub(super) fn message(
    at: &At<'_>,
    workspace: WorkspaceId,
    app: ClientId,
    id: MessageId,
) -> Outcome<Option<Arc<Message>>> {
    let Some(number) = at.numbers.workspace(workspace) else {
        return Ok(None);
    };
    let sql = format!("{MESSAGE} WHERE workspace = ? AND app = ? AND id = ?");
    let values = params![number, app.as_str(), id.to_bytes()];
    let found = collect(at.connection, "read a message", &sql, values, |row| {
        Ok(message_at(at.numbers, workspace, row, 0).map(Arc::new))
    })?;
    Ok(found.into_iter().next())
}

pub(super) fn messages(
    at: &At<'_>,
    workspace: WorkspaceId,
    app: ClientId,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    page: Page<MessageId>,
) -> Outcome<Vec<Arc<Message>>> {
    let Some(number) = at.numbers.workspace(workspace) else {
        return Ok(Vec::new());
    };
    let last = MessageId::from_bytes([0xff; 16]);
    let from = since.map_or(MessageId::from_bytes([0; 16]), MessageId::first_at);
    let before = until
        .map_or(last, MessageId::first_at)
        .min(page.before.unwrap_or(last));
    let sql = format!(
        "{MESSAGE} WHERE workspace = ? AND app = ? AND id >= ? AND id < ? ORDER BY id DESC LIMIT ?"
    );
    let values = params![
        number,
        app.as_str(),
        from.to_bytes(),
        before.to_bytes(),
        as_i64(page.limit as u64)
    ];
    collect(at.connection, "list messages", &sql, values, |row| {
        Ok(message_at(at.numbers, workspace, row, 0).map(Arc::new))
    })
}

pub(super) fn event_types(at: &At<'_>, workspace: WorkspaceId) -> Outcome<Vec<EventType>> {
    Ok(at
        .numbers
        .workspace(workspace)
        .map(|number| at.numbers.event_types(number))
        .unwrap_or_default())
}

//! Reading traffic: messages and deliveries, one by one and in pages.
//!
//! A delivery is read from its due row while it is pending and from its settled row after. Both reads
//! of a page happen in one snapshot.

use std::sync::Arc;

use hookturn_core::delivery::{Attempt, Delivery, DeliveryState, DeliveryStatus};
use hookturn_core::id::{ClientId, DeliveryId, MessageId, WorkspaceId};
use hookturn_core::message::{EventType, Message};
use hookturn_core::store::{DeliveryQuery, Page, StoreError};
use hookturn_core::time::Timestamp;
use rusqlite::{Row, params};

use super::configuration::collect;
use super::reader::At;
use super::rows::{self, as_i64, impossible};
use super::traffic::message_at;
use crate::store::encoding::{exhausted_from_word, range_of_query};

type Outcome<T> = Result<T, StoreError>;

pub(super) const SETTLED: &str = "SELECT delivery, endpoint, message, event_type, attempts, settled_at, exhausted, app FROM settled";

pub(super) fn settled_at(
    at: &At<'_>,
    workspace: WorkspaceId,
    row: &Row<'_>,
) -> rusqlite::Result<Outcome<Delivery>> {
    let id: DeliveryId = rows::id(row, 0)?;
    let (endpoint, event_type): (i64, i64) = (row.get(1)?, row.get(3)?);
    let settled_at = rows::time(row, 5)?;
    let exhausted = match exhausted_from_word(&id, row.get_ref(6)?.as_str_or_null()?) {
        Ok(exhausted) => exhausted,
        Err(error) => return Ok(Err(error)),
    };
    let state = match exhausted {
        None => DeliveryState::Delivered { at: settled_at },
        Some(reason) => DeliveryState::Exhausted {
            at: settled_at,
            reason,
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
/// names; a delivery that settled without an attempt is looked for in every app that has or had an
/// endpoint.
pub(super) fn find_delivery(
    at: &At<'_>,
    workspace: WorkspaceId,
    id: DeliveryId,
) -> Outcome<Option<Delivery>> {
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
             UNION SELECT app FROM endpoint WHERE workspace = ?1 AND NOT EXISTS (SELECT 1 FROM attempt WHERE delivery = ?2))"
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
    let endpoint = match query.endpoint.map(|id| at.endpoint_of(query.workspace, id)) {
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
    let (from, before) = range_of_query(query);
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

pub(super) fn event_types(at: &At<'_>, workspace: WorkspaceId) -> Vec<EventType> {
    at.numbers
        .workspace(workspace)
        .map(|number| at.numbers.event_types(number))
        .unwrap_or_default()
}

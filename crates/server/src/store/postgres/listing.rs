//! Reading traffic: messages and deliveries, one by one and in pages.
//!
//! A delivery is read from its due row while it is pending and from its settled row after. Whatever must
//! agree is read by one statement, which sees one commit.

use std::sync::Arc;

use hookturn_core::delivery::{Attempt, Delivery, DeliveryStatus};
use hookturn_core::id::{ClientId, DeliveryId, MessageId, WorkspaceId};
use hookturn_core::message::{EventType, Message};
use hookturn_core::store::{DeliveryQuery, Page};
use hookturn_core::time::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connect::Session;
use super::rows::{
    MESSAGE, Outcome, PENDING, SETTLED, collect, column, delivery_at, event_type, first,
    message_at, uuid,
};
use crate::store::encoding::{as_i64, attempt_from_record, range_of_query};

/// One delivery, pending or settled. A settled row is found by its app, which its first attempt names; a
/// delivery that settled without an attempt is looked for in every app that has or had an endpoint.
fn one_delivery() -> String {
    format!(
        "{PENDING} WHERE workspace = $1 AND delivery = $2
         UNION ALL
         {SETTLED} WHERE workspace = $1 AND delivery = $2 AND app IN (
             SELECT app FROM attempt WHERE workspace = $1 AND delivery = $2
             UNION SELECT app FROM endpoint WHERE workspace = $1
                 AND NOT EXISTS (SELECT FROM attempt WHERE workspace = $1 AND delivery = $2))"
    )
}

pub(super) async fn find_delivery(
    session: &Session,
    workspace: WorkspaceId,
    id: DeliveryId,
) -> Outcome<Option<Delivery>> {
    let key = (uuid(workspace.to_bytes()), uuid(id.to_bytes()));
    let sql = one_delivery();
    let found = first(session, "read a delivery", &sql, &[&key.0, &key.1]).await?;
    found.as_ref().map(delivery_at).transpose()
}

pub(super) async fn delivery(
    session: &Session,
    workspace: WorkspaceId,
    id: DeliveryId,
) -> Outcome<Option<(Delivery, Vec<Attempt>)>> {
    let key = (uuid(workspace.to_bytes()), uuid(id.to_bytes()));
    let sql = format!(
        "SELECT found.*, ARRAY(SELECT record FROM attempt WHERE workspace = $1 AND delivery = $2 ORDER BY number)
         FROM ({}) found",
        one_delivery()
    );
    let found = first(session, "read a delivery", &sql, &[&key.0, &key.1]).await?;
    let Some(row) = found else {
        return Ok(None);
    };
    let records: Vec<&[u8]> = column(&row, 10)?;
    let attempts = records
        .into_iter()
        .map(|record| attempt_from_record(&id, record))
        .collect::<Outcome<_>>()?;
    Ok(Some((delivery_at(&row)?, attempts)))
}

pub(super) async fn deliveries(session: &Session, query: &DeliveryQuery) -> Outcome<Vec<Delivery>> {
    const FILTER: &str = "workspace = $1 AND app = $2 AND delivery >= $3 AND delivery < $4
         AND ($5::uuid IS NULL OR endpoint = $5) AND ($6::text IS NULL OR event_type = $6)
         AND ($7::uuid IS NULL OR message = $7)";
    const ORDER: &str = "ORDER BY delivery DESC LIMIT $8";
    let pending = format!("({PENDING} WHERE {FILTER} {ORDER})");
    let settled = |which: &str| format!("({SETTLED} WHERE {FILTER} {which} {ORDER})");
    let sql = match query.status {
        None => format!("{pending} UNION ALL {} {ORDER}", settled("")),
        Some(DeliveryStatus::Pending) => pending,
        Some(DeliveryStatus::Delivered) => settled("AND exhausted IS NULL"),
        Some(DeliveryStatus::Exhausted) => settled("AND exhausted IS NOT NULL"),
    };
    let (from, before) = range_of_query(query);
    let values: [&(dyn ToSql + Sync); 8] = [
        &uuid(query.workspace.to_bytes()),
        &query.app.as_str(),
        &uuid(from.to_bytes()),
        &uuid(before.to_bytes()),
        &query.endpoint.map(|id| uuid(id.to_bytes())),
        &query.event_type.as_ref().map(EventType::as_str),
        &query.message.map(|id| uuid(id.to_bytes())),
        &as_i64(query.page.limit as u64),
    ];
    collect(session, "list deliveries", &sql, &values, delivery_at).await
}

pub(super) async fn message(
    session: &Session,
    workspace: WorkspaceId,
    app: ClientId,
    id: MessageId,
) -> Outcome<Option<Arc<Message>>> {
    let key = (uuid(workspace.to_bytes()), uuid(id.to_bytes()));
    let sql =
        format!("SELECT {MESSAGE} FROM message WHERE workspace = $1 AND app = $2 AND id = $3");
    let values: [&(dyn ToSql + Sync); 3] = [&key.0, &app.as_str(), &key.1];
    let found = first(session, "read a message", &sql, &values).await?;
    let read = |row: &Row| message_at(workspace, row, 0).map(Arc::new);
    found.as_ref().map(read).transpose()
}

pub(super) async fn messages(
    session: &Session,
    workspace: WorkspaceId,
    app: ClientId,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    page: Page<MessageId>,
) -> Outcome<Vec<Arc<Message>>> {
    let last = MessageId::from_bytes([0xff; 16]);
    let from = since.map_or(MessageId::from_bytes([0; 16]), MessageId::first_at);
    let before = until
        .map_or(last, MessageId::first_at)
        .min(page.before.unwrap_or(last));
    let sql = format!(
        "SELECT {MESSAGE} FROM message WHERE workspace = $1 AND app = $2 AND id >= $3 AND id < $4
         ORDER BY id DESC LIMIT $5"
    );
    let values: [&(dyn ToSql + Sync); 5] = [
        &uuid(workspace.to_bytes()),
        &app.as_str(),
        &uuid(from.to_bytes()),
        &uuid(before.to_bytes()),
        &as_i64(page.limit as u64),
    ];
    let read = |row: &Row| message_at(workspace, row, 0).map(Arc::new);
    collect(session, "list messages", &sql, &values, read).await
}

pub(super) async fn event_types(
    session: &Session,
    workspace: WorkspaceId,
) -> Outcome<Vec<EventType>> {
    let sql = r#"SELECT name FROM event_type WHERE workspace = $1 ORDER BY name COLLATE "C""#;
    let workspace = uuid(workspace.to_bytes());
    let read = |row: &Row| event_type(row, 0, "event_type");
    collect(session, "list event types", sql, &[&workspace], read).await
}

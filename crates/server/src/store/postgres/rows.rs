//! Statements and their rows: one way to run each, and the readers of columns.
//!
//! What the columns hold is the same in every engine ([`encoding`](crate::store::encoding)), but for ids,
//! which are UUIDs here.

use hookturn_core::delivery::{Delivery, DeliveryState};
use hookturn_core::id::{ClientId, DeliveryId, WorkspaceId};
use hookturn_core::message::{EventType, Message};
use hookturn_core::store::StoreError;
use hookturn_core::time::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::types::{FromSql, ToSql};
use uuid::Uuid;

use super::connect::Session;
use crate::store::encoding::{IdColumn, exhausted_from_word, impossible};

pub(super) type Outcome<T> = Result<T, StoreError>;
/// The values of a statement.
pub(super) type Values<'a> = [&'a (dyn ToSql + Sync)];

/// Turns the engine's error into the store's, naming what it was doing.
pub(super) fn failed(step: &'static str) -> impl FnOnce(tokio_postgres::Error) -> StoreError {
    move |source| {
        let unwritable = cannot_write(&source);
        let source = Box::new(source);
        if unwritable {
            StoreError::Unwritable { step, source }
        } else {
            StoreError::Engine { step, source }
        }
    }
}

/// Whether what is wrong is the database as a whole: gone, full, stopping or a replica; or another node, which holds
/// something and does not go on. The same step can
/// succeed once that is mended.
fn cannot_write(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        None => {
            let source = std::error::Error::source(error);
            error.is_closed() || source.is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
        }
        Some(code) => {
            // Insufficient resources, operator intervention, connection exceptions.
            let class = code.code().get(..2).unwrap_or_default();
            let busy = [
                SqlState::READ_ONLY_SQL_TRANSACTION,
                SqlState::LOCK_NOT_AVAILABLE,
            ];
            matches!(class, "53" | "57" | "08") || busy.contains(code)
        }
    }
}

/// Whether the server ended the session with this error: what it did before may have happened.
pub(super) fn is_fatal(error: &StoreError) -> bool {
    let (StoreError::Engine { source, .. } | StoreError::Unwritable { source, .. }) = error else {
        return false;
    };
    let source = source.downcast_ref::<tokio_postgres::Error>();
    let said = source.and_then(tokio_postgres::Error::as_db_error);
    said.and_then(DbError::parsed_severity)
        .is_some_and(|severity| matches!(severity, Severity::Fatal | Severity::Panic))
}

/// Whether a unique key refused a row.
pub(super) fn is_duplicate(error: &StoreError) -> bool {
    let StoreError::Engine { source, .. } = error else {
        return false;
    };
    let source = source.downcast_ref::<tokio_postgres::Error>();
    source.and_then(tokio_postgres::Error::code) == Some(&SqlState::UNIQUE_VIOLATION)
}

/// Whether a lock was waited for in vain.
pub(super) fn is_lock_timeout(error: &StoreError) -> bool {
    has_code(error, &SqlState::LOCK_NOT_AVAILABLE)
}

/// Whether two transactions waited for each other, and this one was chosen to end: it may succeed at once.
pub(super) fn is_deadlock(error: &StoreError) -> bool {
    has_code(error, &SqlState::T_R_DEADLOCK_DETECTED)
}

fn has_code(error: &StoreError, code: &SqlState) -> bool {
    let (StoreError::Engine { source, .. } | StoreError::Unwritable { source, .. }) = error else {
        return false;
    };
    let source = source.downcast_ref::<tokio_postgres::Error>();
    source.and_then(tokio_postgres::Error::code) == Some(code)
}

/// Runs one statement and returns how many rows it changed.
pub(super) async fn execute(
    session: &Session,
    step: &'static str,
    sql: &str,
    values: &Values<'_>,
) -> Outcome<u64> {
    let statement = session.prepare_cached(sql).await.map_err(failed(step))?;
    session
        .execute(&statement, values)
        .await
        .map_err(failed(step))
}

/// The rows of a query.
pub(super) async fn rows(
    session: &Session,
    step: &'static str,
    sql: &str,
    values: &Values<'_>,
) -> Outcome<Vec<Row>> {
    let statement = session.prepare_cached(sql).await.map_err(failed(step))?;
    session
        .query(&statement, values)
        .await
        .map_err(failed(step))
}

/// The first row of a query, if it has one.
pub(super) async fn first(
    session: &Session,
    step: &'static str,
    sql: &str,
    values: &Values<'_>,
) -> Outcome<Option<Row>> {
    let found = rows(session, step, sql, values).await?;
    Ok(found.into_iter().next())
}

/// Collects the rows of a query as what `read` makes of them.
pub(super) async fn collect<T>(
    session: &Session,
    step: &'static str,
    sql: &str,
    values: &Values<'_>,
    read: impl FnMut(&Row) -> Outcome<T>,
) -> Outcome<Vec<T>> {
    let found = rows(session, step, sql, values).await?;
    found.iter().map(read).collect()
}

/// A statement without values or rows, such as `COMMIT`.
pub(super) async fn run(session: &Session, step: &'static str, sql: &str) -> Outcome<()> {
    session.batch_execute(sql).await.map_err(failed(step))
}

/// The same error for another caller.
pub(super) fn again(error: &StoreError) -> StoreError {
    let told = |source: &(dyn std::error::Error + Send + Sync)| source.to_string().into();
    match error {
        StoreError::Unwritable { step, source } => StoreError::Unwritable {
            step,
            source: told(source.as_ref()),
        },
        StoreError::Engine { step, source } => StoreError::Engine {
            step,
            source: told(source.as_ref()),
        },
        StoreError::Uncertain => StoreError::Uncertain,
        other => StoreError::Engine {
            step: "commit",
            source: other.to_string().into(),
        },
    }
}

/// How an id is written.
pub(super) fn uuid(bytes: [u8; 16]) -> Uuid {
    Uuid::from_bytes(bytes)
}

/// A column of a type that the schema fixes.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Outcome<T> {
    row.try_get(index).map_err(failed("read a row"))
}

pub(super) fn id<T: IdColumn>(row: &Row, index: usize) -> Outcome<T> {
    column::<Uuid>(row, index).map(|id| T::from_column(id.into_bytes()))
}

pub(super) fn time(row: &Row, index: usize) -> Outcome<Timestamp> {
    column(row, index).map(Timestamp::from_millis)
}

/// A count that is never negative.
pub(super) fn count(
    row: &Row,
    index: usize,
    table: &'static str,
    name: &'static str,
) -> Outcome<u32> {
    let number: i32 = column(row, index)?;
    u32::try_from(number).map_err(|error| impossible(table, name, &number, error))
}

/// How a count is written: those of deliveries are far below 2³¹.
pub(super) fn as_i32(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) fn client_id(row: &Row, index: usize, table: &'static str) -> Outcome<ClientId> {
    let text: &str = column(row, index)?;
    text.parse()
        .map_err(|error| impossible(table, "app", &text, error))
}

pub(super) fn event_type(row: &Row, index: usize, table: &'static str) -> Outcome<EventType> {
    let text: &str = column(row, index)?;
    EventType::new(text).map_err(|error| impossible(table, "event_type", &text, error))
}

/// The columns of [`message_at`].
pub(super) const MESSAGE: &str = "app, id, event_type, event_id, accepted_at, payload";

/// Reads a message from column `from` on.
pub(super) fn message_at(workspace: WorkspaceId, row: &Row, from: usize) -> Outcome<Message> {
    Ok(Message {
        id: id(row, from + 1)?,
        workspace,
        app: client_id(row, from, "message")?,
        event_type: event_type(row, from + 2, "message")?,
        event_id: column(row, from + 3)?,
        payload: column::<Vec<u8>>(row, from + 5)?.into(),
        accepted_at: time(row, from + 4)?,
    })
}

/// A pending delivery as [`delivery_at`] reads it.
pub(super) const PENDING: &str =
    "SELECT workspace, delivery, app, endpoint, message, event_type, attempts,
    greatest(due_at, not_before) AS at, true AS pending, NULL::text AS exhausted FROM due";
/// A settled one.
pub(super) const SETTLED: &str =
    "SELECT workspace, delivery, app, endpoint, message, event_type, attempts,
    settled_at AS at, false AS pending, exhausted FROM settled";

/// Reads a delivery, pending or settled.
pub(super) fn delivery_at(row: &Row) -> Outcome<Delivery> {
    let delivery: DeliveryId = id(row, 1)?;
    let pending: bool = column(row, 8)?;
    let table = if pending { "due" } else { "settled" };
    let at = time(row, 7)?;
    let state = if pending {
        DeliveryState::Pending { due_at: at }
    } else {
        match exhausted_from_word(&delivery, column(row, 9)?)? {
            None => DeliveryState::Delivered { at },
            Some(reason) => DeliveryState::Exhausted { at, reason },
        }
    };
    Ok(Delivery {
        id: delivery,
        workspace: id(row, 0)?,
        app: client_id(row, 2, table)?,
        endpoint: id(row, 3)?,
        message: id(row, 4)?,
        event_type: event_type(row, 5, table)?,
        attempts: count(row, 6, table, "attempts")?,
        state,
    })
}

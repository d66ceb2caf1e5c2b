//! Events that could not become messages: listed, published again, removed.

use hookturn_core::id::WorkspaceId;
use hookturn_core::store::Page;
use hookturn_core::time::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::super::connect::Session;
use super::super::ledger::append_audit;
use super::super::rows::{Outcome, collect, column, execute, first, id};
use super::super::transaction::Tx;
use crate::store::outbox::{Mending, Refused, RefusedPlace, Remedy};

const READ: &str = "read refused events";
const MEND: &str = "take care of a refused event";

/// A time of the database in microseconds since the epoch.
const MICROS: &str = "(extract(epoch FROM refused_at) * 1000000)::bigint";

pub(in crate::store::postgres) async fn list(
    session: &Session,
    page: Page<RefusedPlace>,
) -> Outcome<Vec<Refused>> {
    let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
    let (micros, before) = match page.before {
        Some(place) => (Some(place.micros), Some(place.id)),
        None => (None, None),
    };
    // The time alone, roughly, is a range of the index; the two together are the order.
    let sql = format!(
        "SELECT {MICROS}, id, workspace, app, event_type, event_id, octet_length(payload)::bigint,
                (extract(epoch FROM published_at) * 1000)::bigint, reason
         FROM outbox_refused
         WHERE $1::bigint IS NULL
            OR (refused_at < to_timestamp($1 / 1000000.0) + interval '1 second' AND ({MICROS}, id) < ($1, $2::uuid))
         ORDER BY refused_at DESC, id DESC LIMIT $3"
    );
    let values: [&(dyn ToSql + Sync); 3] = [&micros, &before, &limit];
    collect(session, READ, &sql, &values, read).await
}

fn read(row: &Row) -> Outcome<Refused> {
    Ok(Refused {
        place: RefusedPlace {
            micros: column(row, 0)?,
            id: column(row, 1)?,
        },
        workspace: id(row, 2)?,
        app: column(row, 3)?,
        event_type: column(row, 4)?,
        event_id: column(row, 5)?,
        payload_bytes: column::<i64>(row, 6)?.cast_unsigned(),
        published_at: Timestamp::from_millis(column(row, 7)?),
        reason: column(row, 8)?,
    })
}

/// Returns how many events it was done with: one or none.
pub(in crate::store::postgres) async fn mend(tx: &mut Tx<'_>, mending: &Mending) -> Outcome<usize> {
    let event = mending.event;
    let whose = "SELECT workspace FROM outbox_refused WHERE id = $1 FOR UPDATE";
    let Some(row) = first(tx.session, MEND, whose, &[&event]).await? else {
        return Ok(0);
    };
    let (workspace, key): (WorkspaceId, Uuid) = (id(&row, 0)?, column(&row, 0)?);
    if mending.remedy == Remedy::Retry {
        publish_again(tx.session, key, event).await?;
    }
    let gone = "DELETE FROM outbox_refused WHERE workspace = $1 AND id = $2";
    execute(tx.session, MEND, gone, &[&key, &event]).await?;
    let (context, entries) = (&mending.context, std::slice::from_ref(&mending.entry));
    append_audit(tx, workspace, context, entries, mending.at).await?;
    Ok(1)
}

/// As `publish` does it, without its checks: what they find was found, and what they cannot find is looked at again
/// when the event is taken.
async fn publish_again(session: &Session, workspace: Uuid, event: Uuid) -> Outcome<()> {
    let sql = "INSERT INTO outbox (workspace, xact, seq, id, app, event_type, event_id, payload, published_at)
               SELECT workspace, pg_current_xact_id(),
                      (SELECT coalesce(max(seq), 0) + 1 FROM outbox WHERE xact = pg_current_xact_id()),
                      id, app, event_type, event_id, payload, clock_timestamp()
               FROM outbox_refused WHERE workspace = $1 AND id = $2";
    execute(session, MEND, sql, &[&workspace, &event]).await?;
    let wake = "SELECT pg_notify('hookturn_outbox', '')";
    first(session, MEND, wake, &[]).await.map(drop)
}

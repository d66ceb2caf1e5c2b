//! Accepting messages: one statement for the messages of a whole batch, one for their due rows.
//!
//! **Order.** An ordered endpoint gets its messages in the order of their acceptance, whichever nodes accept them. So
//! their place is by the clock of the database, at the statement that queues them: what is accepted after another
//! was acknowledged has a later one. And they are not handed over in memory but read from the database, where those
//! that other nodes accepted stand too.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::message::EventType;
use hookturn_core::store::{Accept, Due, Hint, NewMessage, StoreError};
use hookturn_core::time::Timestamp;
use uuid::Uuid;

use super::days::{self, Day};
use super::rows::{Outcome, execute, uuid};
use super::transaction::Tx;

const STEP: &str = "accept messages";

/// When an accept happens, for its idempotency key.
pub(super) fn accepted_at(accept: &Accept) -> Timestamp {
    let first = accept.messages.first();
    first.map_or(Timestamp::EPOCH, |new| new.message.accepted_at)
}

/// Refuses messages of an unknown workspace or for an unknown endpoint, before anything is written.
pub(super) fn check(tx: &Tx<'_>, messages: &[NewMessage]) -> Outcome<()> {
    for new in messages {
        tx.known_workspace(new.message.workspace)?;
        for (_, endpoint) in &new.deliveries {
            tx.known_endpoint(*endpoint)?;
        }
    }
    Ok(())
}

/// Makes what the rows of these messages need to stand in: their days, and the names of their types.
pub(super) async fn prepare(tx: &mut Tx<'_>, messages: &[&NewMessage]) -> Outcome<()> {
    let made = messages.iter().flat_map(|new| {
        let deliveries = new.deliveries.iter().map(|(id, _)| id.created_at());
        deliveries.chain([new.message.id.created_at()])
    });
    make_days(tx, made).await?;
    let fresh: BTreeSet<(WorkspaceId, EventType)> = messages
        .iter()
        .map(|new| &new.message)
        .filter(|message| !tx.knows_type(message.workspace, &message.event_type))
        .map(|message| (message.workspace, message.event_type.clone()))
        .collect();
    if fresh.is_empty() {
        return Ok(());
    }
    let workspaces: Vec<Uuid> = fresh.iter().map(|(id, _)| uuid(id.to_bytes())).collect();
    let names: Vec<&str> = fresh.iter().map(|(_, name)| name.as_str()).collect();
    let sql = "INSERT INTO event_type (workspace, name)
               SELECT * FROM unnest($1::uuid[], $2::text[]) ON CONFLICT DO NOTHING";
    execute(tx.session, "note event types", sql, &[&workspaces, &names]).await?;
    tx.effects.event_types.extend(fresh);
    Ok(())
}

/// Makes the days of these times that are missing.
pub(super) async fn make_days(
    tx: &mut Tx<'_>,
    times: impl Iterator<Item = Timestamp>,
) -> Outcome<()> {
    let missing: HashSet<Day> = times
        .map(Day::of)
        .filter(|day| !tx.knows_day(*day))
        .collect();
    if !missing.is_empty() {
        days::make(tx.session, missing.iter().copied()).await?;
        tx.effects.days.extend(missing);
    }
    Ok(())
}

/// Writes messages that were prepared.
pub(super) async fn messages(tx: &Tx<'_>, messages: &[&NewMessage]) -> Outcome<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let all = || messages.iter().map(|new| &*new.message);
    let workspaces: Vec<Uuid> = all().map(|m| uuid(m.workspace.to_bytes())).collect();
    let apps: Vec<&str> = all().map(|m| m.app.as_str()).collect();
    let ids: Vec<Uuid> = all().map(|m| uuid(m.id.to_bytes())).collect();
    let event_types: Vec<&str> = all().map(|m| m.event_type.as_str()).collect();
    let event_ids: Vec<Option<&str>> = all().map(|m| m.event_id.as_deref()).collect();
    let accepted_at: Vec<i64> = all().map(|m| m.accepted_at.as_millis()).collect();
    let payloads: Vec<&[u8]> = all().map(|m| Bytes::as_ref(&m.payload)).collect();
    let sql = "INSERT INTO message (workspace, app, id, event_type, event_id, accepted_at, payload)
               SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::bytea[])";
    execute(
        tx.session,
        STEP,
        sql,
        &[
            &workspaces,
            &apps,
            &ids,
            &event_types,
            &event_ids,
            &accepted_at,
            &payloads,
        ],
    )
    .await
    .map(drop)
}

/// Writes their due rows.
pub(super) async fn due_rows(tx: &Tx<'_>, messages: &[&NewMessage]) -> Outcome<()> {
    let all = || {
        let of = |new: &&NewMessage| {
            let message = Arc::clone(&new.message);
            let deliveries = new.deliveries.clone();
            deliveries
                .into_iter()
                .map(move |(id, endpoint)| (id, endpoint, Arc::clone(&message)))
        };
        messages.iter().flat_map(of)
    };
    let rows: Vec<_> = all().collect();
    if rows.is_empty() {
        return Ok(());
    }
    let workspaces: Vec<Uuid> = rows
        .iter()
        .map(|row| uuid(row.2.workspace.to_bytes()))
        .collect();
    let deliveries: Vec<Uuid> = rows.iter().map(|row| uuid(row.0.to_bytes())).collect();
    let endpoints: Vec<Uuid> = rows.iter().map(|row| uuid(row.1.to_bytes())).collect();
    let due_at: Vec<i64> = rows
        .iter()
        .map(|row| row.2.accepted_at.as_millis())
        .collect();
    let apps: Vec<&str> = rows.iter().map(|row| row.2.app.as_str()).collect();
    let ids: Vec<Uuid> = rows.iter().map(|row| uuid(row.2.id.to_bytes())).collect();
    let event_types: Vec<&str> = rows.iter().map(|row| row.2.event_type.as_str()).collect();
    let ordered: Vec<bool> = rows.iter().map(|row| tx.is_ordered(row.1)).collect();
    let sql = "INSERT INTO due (workspace, delivery, endpoint, due_at, not_before, app, message, event_type,
                                attempts, attempts_before_requeue)
               SELECT workspace, delivery, endpoint, place, place, app, message, event_type, 0, 0
               FROM (SELECT *, CASE WHEN ordered THEN (extract(epoch FROM clock_timestamp()) * 1000)::bigint
                                    ELSE due_at END AS place
                     FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::uuid[], $7::text[],
                                 $8::boolean[])
                         AS given (workspace, delivery, endpoint, due_at, app, message, event_type, ordered)
                     OFFSET 0) placed";
    let step = "queue deliveries";
    execute(
        tx.session,
        step,
        sql,
        &[
            &workspaces,
            &deliveries,
            &endpoints,
            &due_at,
            &apps,
            &ids,
            &event_types,
            &ordered,
        ],
    )
    .await
    .map(drop)
}

/// Tells, after the commit, that these rows are due.
pub(super) fn announce(tx: &mut Tx<'_>, new: &NewMessage) {
    let message = &new.message;
    let row = |(delivery, endpoint): &(_, EndpointId)| Due {
        delivery: *delivery,
        endpoint: *endpoint,
        due_at: message.accepted_at,
        not_before: message.accepted_at,
        attempts: 0,
        attempts_before_requeue: 0,
        message: Arc::clone(message),
    };
    for delivery in &new.deliveries {
        if tx.is_ordered(delivery.1) {
            let hint = Hint::Due(message.workspace, delivery.1, message.accepted_at);
            tx.effects.hints.push(hint);
        } else {
            tx.effects.accepted.push(row(delivery));
        }
    }
}

/// Accepts messages within a change: checked, prepared, written and announced.
pub(super) async fn accept_all(tx: &mut Tx<'_>, new: &[NewMessage]) -> Outcome<()> {
    check(tx, new)?;
    let all: Vec<&NewMessage> = new.iter().collect();
    prepare(tx, &all).await?;
    messages(tx, &all).await?;
    due_rows(tx, &all).await?;
    for new in all {
        announce(tx, new);
    }
    Ok(())
}

/// What a refused key says of the messages that came with one that is there already.
pub(super) fn duplicate(messages: &[NewMessage]) -> StoreError {
    let what = match messages {
        [new] => format!("message {}", new.message.id),
        several => format!("one of {} messages", several.len()),
    };
    StoreError::Duplicate { what }
}

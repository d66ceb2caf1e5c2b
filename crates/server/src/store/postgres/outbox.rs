//! The outbox in the database: what `publish` (of the schema) wrote, read in an order that nothing disturbs.
//!
//! **Order.** Transactions get their numbers when they first write and commit in any order. So a row is read only
//! when every transaction with a lower number has ended (the lowest open one is `xmin` of a snapshot): what is read
//! is a beginning of the whole in (transaction, place), and stays one. An open transaction with a lower number, of
//! any application of the server, holds everything behind it back.
//!
//! **Other servers' numbers.** A dump that is restored elsewhere brings rows whose transactions this server never
//! had. One that is visible and has a number at or beyond the next one is such a row; these come first.
//!
//! **Once.** Whoever makes messages of rows deletes them in the same transaction, under a lock, and gives up if
//! one of them is not there any more.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use hookturn_core::store::{Page, StoreError, StoreFuture};
use hookturn_core::time::Timestamp;
use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, Row};
use uuid::Uuid;

use super::PostgresStore;
use super::accepting::accept_all;
use super::connect::{Session, Target};
use super::ledger::put_idempotent_answer;
use super::rows::{Outcome, collect, column, execute, first, id, uuid};
use super::transaction::Tx;
use super::writer::{Answer, Work};
use crate::store::outbox::{Mending, Outbox, Place, Published, Refused, RefusedPlace, Settling};

pub(super) mod refused;

const READ: &str = "read the outbox";
const SETTLE: &str = "take events out of the outbox";
/// Who holds it settles. The number before it is that of the hint, in the schema.
const LOCK: i64 = 0x686b_746e_00f1;
/// Refused events that one sweep removes.
const FORGOTTEN: i64 = 1_000;
/// How long to wait before listening again after a loss.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);

impl Outbox for PostgresStore {
    fn published(&self, limit: usize) -> StoreFuture<'_, Vec<Published>> {
        self.readers
            .read(move |session| async move { published(&session, limit).await })
    }

    fn settle(&self, settling: Settling) -> StoreFuture<'_, ()> {
        self.step(Work::Outbox(Box::new(settling)))
    }

    fn oldest_age(&self) -> StoreFuture<'_, u64> {
        self.readers
            .read(|session| async move { oldest_age(&session).await })
    }

    fn refused(&self, page: Page<RefusedPlace>) -> StoreFuture<'_, Vec<Refused>> {
        self.readers
            .read(move |session| async move { refused::list(&session, page).await })
    }

    fn mend(&self, mending: Mending) -> StoreFuture<'_, bool> {
        let answer = self.writer.order(Work::Mend(Box::new(mending)));
        Box::pin(async move {
            match answer.await? {
                Answer::Replaced(count) => Ok(count > 0),
                Answer::Done | Answer::Pruned(_) | Answer::Lacking(_) => Err(StoreError::Stopped),
            }
        })
    }
}

impl PostgresStore {
    /// Tells `hint` when something may have been published, for as long as it is polled. A hint only: one that
    /// is lost with a connection is not repeated.
    pub async fn listen(&self, hint: &Notify) {
        loop {
            if let Err(error) = hear(&self.target, hint).await {
                tracing::debug!(%error, "nobody tells what is published; it is looked for all the same");
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }
}

/// Listens until the connection ends.
async fn hear(target: &Target, hint: &Notify) -> Result<(), tokio_postgres::Error> {
    let mut config = target.config().clone();
    config.application_name("hookturn outbox");
    let (client, mut connection) = config.connect(target.connector()).await?;
    let mut heard = stream::poll_fn(move |context| connection.poll_message(context));
    let asked = client.batch_execute("LISTEN hookturn_outbox");
    let mut asked = std::pin::pin!(asked);
    let mut listening = false;
    loop {
        tokio::select! {
            done = &mut asked, if !listening => {
                done?;
                listening = true;
                // What was published before.
                hint.notify_one();
            }
            message = heard.next() => match message {
                Some(Ok(AsyncMessage::Notification(_))) => hint.notify_one(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
}

async fn published(session: &Session, limit: usize) -> Outcome<Vec<Published>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let elsewhere = "xact >= (SELECT pg_snapshot_xmax(pg_current_snapshot()))";
    let settled = "xact < (SELECT pg_snapshot_xmin(pg_current_snapshot()))";
    for which in [elsewhere, settled] {
        // By the numbers: `xact` alone would be the text that is read.
        let sql = format!(
            "SELECT workspace, xact::text, seq, app, event_type, event_id, payload
             FROM outbox WHERE {which} ORDER BY outbox.xact, outbox.seq LIMIT $1"
        );
        let found = collect(session, READ, &sql, &[&limit], read).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

fn read(row: &Row) -> Outcome<Published> {
    Ok(Published {
        place: Place {
            workspace: id(row, 0)?,
            transaction: column(row, 1)?,
            number: column(row, 2)?,
        },
        app: column(row, 3)?,
        event_type: column(row, 4)?,
        event_id: column(row, 5)?,
        payload: column::<Vec<u8>>(row, 6)?.into(),
    })
}

async fn oldest_age(session: &Session) -> Outcome<u64> {
    let sql = "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(published_at)) * 1000, 0)::bigint
               FROM outbox";
    let found = first(session, READ, sql, &[]).await?;
    let age: i64 = found.map_or(Ok(0), |row| column(&row, 0))?;
    Ok(age.max(0).cast_unsigned())
}

/// Makes messages of events, and keeps those that cannot be one. Refused when another node changed what that was
/// decided by: an app that it made, and answered, would not exist, and an endpoint would get nothing.
pub(super) async fn settle(tx: &mut Tx<'_>, settling: &Settling) -> Outcome<()> {
    let of = |workspace| {
        let mut taken = settling.taken.iter();
        taken.any(|place| place.workspace == workspace)
    };
    tx.recent.refuse_choice(of, settling.view)?;
    let lock = format!("SELECT pg_try_advisory_xact_lock({LOCK})");
    let alone = first(tx.session, SETTLE, &lock, &[]).await?;
    if !alone.map_or(Ok(false), |row| column(&row, 0))? {
        return Err(taken_by_another());
    }
    keep_refused(tx.session, &settling.refused).await?;
    let (workspaces, transactions, numbers) = columns(settling.taken.iter());
    let sql = "DELETE FROM outbox o
               USING unnest($1::uuid[], $2::text[], $3::bigint[]) AS taken (workspace, xact, seq)
               WHERE o.workspace = taken.workspace AND o.xact = taken.xact::xid8 AND o.seq = taken.seq";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&workspaces, &transactions, &numbers];
    let gone = execute(tx.session, SETTLE, sql, &values).await?;
    if gone != settling.taken.len() as u64 {
        return Err(taken_by_another());
    }
    for answer in &settling.answers {
        put_idempotent_answer(tx.session, answer, settling.at).await?;
    }
    accept_all(tx, &settling.messages).await
}

async fn keep_refused(session: &Session, refused: &[(Place, String)]) -> Outcome<()> {
    if refused.is_empty() {
        return Ok(());
    }
    let (workspaces, transactions, numbers) = columns(refused.iter().map(|(place, _)| place));
    let reasons: Vec<&str> = refused.iter().map(|(_, reason)| reason.as_str()).collect();
    let sql = "INSERT INTO outbox_refused (workspace, id, app, event_type, event_id, payload, published_at,
                                           refused_at, reason)
               SELECT o.workspace, o.id, o.app, o.event_type, o.event_id, o.payload, o.published_at,
                      clock_timestamp(), taken.reason
               FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[]) AS taken (workspace, xact, seq, reason)
               JOIN outbox o ON o.workspace = taken.workspace AND o.xact = taken.xact::xid8 AND o.seq = taken.seq";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&workspaces, &transactions, &numbers, &reasons];
    execute(session, SETTLE, sql, &values).await.map(drop)
}

fn columns<'p>(places: impl Iterator<Item = &'p Place>) -> (Vec<Uuid>, Vec<&'p str>, Vec<i64>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for place in places {
        columns.0.push(uuid(place.workspace.to_bytes()));
        columns.1.push(place.transaction.as_str());
        columns.2.push(place.number);
    }
    columns
}

fn taken_by_another() -> StoreError {
    StoreError::Conflict {
        what: "the outbox".to_owned(),
    }
}

/// Removes what was refused before that time: as much as one sweep takes of it.
pub(super) async fn forget_refused(session: &Session, before: Timestamp) -> Outcome<()> {
    let sql = "DELETE FROM outbox_refused WHERE (workspace, id) IN (
                   SELECT workspace, id FROM outbox_refused
                   WHERE refused_at < to_timestamp(0) + $1::bigint * interval '1 millisecond'
                   ORDER BY refused_at LIMIT $2)";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&before.as_millis(), &FORGOTTEN];
    let step = "forget refused events";
    execute(session, step, sql, &values).await.map(drop)
}

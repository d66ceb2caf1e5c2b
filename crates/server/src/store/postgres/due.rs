//! Reading what is due: the rows of all endpoints that are asked for at the same moment, by one statement.
//!
//! Where other nodes accept much for the endpoints of this one, each of these is read some tens of times a second, and
//! statements for each cost the database more than the rows. So reads begin at a [`PACE`], and each is for everybody
//! who waits then.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookturn_core::id::{DeliveryId, EndpointId, WorkspaceId};
use hookturn_core::message::Message;
use hookturn_core::store::{Due, DueBlock, DueQuery, StoreError};
use hookturn_core::time::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::connect::Session;
use super::reader::Readers;
use super::rows::{
    MESSAGE, Outcome, again, collect, column, count, id, message_at, rows, time, uuid,
};
use crate::store::encoding::as_i64;

const STEP: &str = "read due deliveries";
/// Reads under way at once, each on a connection of its own.
const AT_ONCE: usize = 2;
/// From the beginning of one to that of the next, at least: who asks meanwhile is read for together. Whoever asks after
/// a pause need not wait.
const PACE: Duration = Duration::from_millis(10);
/// Endpoints that one read is for at most.
const ENDPOINTS: usize = 256;
/// Rows that it asks for at most, unless one endpoint alone asks for more.
const ROWS: usize = 8_192;
/// Bytes of payload that it asks for at most, unless one endpoint alone asks for more.
const PAYLOAD_BYTES: usize = 32 * 1024 * 1024;

/// Reads of due rows: who asks, and how many statements are under way.
pub(super) struct DueReads {
    readers: Arc<Readers>,
    queue: Mutex<Queue>,
    /// Those that began.
    begun: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Asked>,
    under_way: usize,
    /// When the latest read began, or will.
    begun: Option<Instant>,
}

struct Asked {
    wanted: Wanted,
    waiter: oneshot::Sender<Outcome<DueBlock>>,
}

/// A block that is asked for.
struct Wanted {
    query: DueQuery,
    /// Rows that the caller holds: they are not brought again.
    held: HashSet<DeliveryId>,
}

impl DueReads {
    pub(super) fn new(readers: &Arc<Readers>) -> Arc<Self> {
        Arc::new(Self {
            readers: Arc::clone(readers),
            queue: Mutex::default(),
            begun: AtomicU64::new(0),
        })
    }

    /// How many statements there were.
    pub(super) fn count(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Reads a block without the rows that the caller holds, together with what others ask for.
    pub(super) async fn read(
        self: &Arc<Self>,
        query: DueQuery,
        held: HashSet<DeliveryId>,
    ) -> Outcome<DueBlock> {
        let (waiter, answer) = oneshot::channel();
        let wanted = Wanted { query, held };
        self.with(|queue| queue.waiting.push_back(Asked { wanted, waiter }));
        self.go_on();
        answer.await.unwrap_or(Err(StoreError::Stopped))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Queue) -> T) -> T {
        // Pushed to or taken from at once: a panic elsewhere leaves a whole queue.
        act(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sees to it that those who wait are read for.
    fn go_on(self: &Arc<Self>) {
        let Some(begin_at) = self.with(|queue| queue.begin(Instant::now())) else {
            return;
        };
        let reads = Arc::clone(self);
        self.readers.detach(async move {
            sleep_until(begin_at).await;
            reads.read_for_all().await;
            reads.with(|queue| queue.under_way -= 1);
            reads.go_on();
        });
    }

    /// Reads for everybody who waits now.
    async fn read_for_all(&self) {
        let asked = self.with(Queue::take);
        if asked.is_empty() {
            return;
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        let split = |asked: Asked| (asked.wanted, asked.waiter);
        let (wanted, waiters): (Vec<Wanted>, Vec<_>) = asked.into_iter().map(split).unzip();
        let found = self
            .readers
            .read_due(move |session| async move { blocks(&session, &wanted).await })
            .await;
        let mut found = found.map(Vec::into_iter);
        for waiter in waiters {
            let block = match &mut found {
                Ok(blocks) => blocks.next().unwrap_or(Err(StoreError::Stopped)),
                Err(error) => Err(again(error)),
            };
            // Whoever went away does not need it.
            let _ = waiter.send(block);
        }
    }
}

impl Queue {
    /// When the next read begins, if somebody waits and not too many are under way: it is counted as one of them from now.
    fn begin(&mut self, now: Instant) -> Option<Instant> {
        if self.waiting.is_empty() || self.under_way >= AT_ONCE {
            return None;
        }
        self.under_way += 1;
        let at = self.begun.map_or(now, |begun| now.max(begun + PACE));
        self.begun = Some(at);
        Some(at)
    }

    /// For whom the next read is.
    fn take(&mut self) -> Vec<Asked> {
        let (mut taken, mut rows, mut bytes) = (Vec::new(), 0_usize, 0_usize);
        while let Some(next) = self.waiting.front() {
            let query = &next.wanted.query;
            rows = rows.saturating_add(query.limit);
            bytes = bytes.saturating_add(query.payload_bytes);
            let full = taken.len() >= ENDPOINTS || rows > ROWS || bytes > PAYLOAD_BYTES;
            if full && !taken.is_empty() {
                break;
            }
            taken.extend(self.waiting.pop_front());
        }
        taken
    }
}

/// Reads the blocks that were asked for, in their order: first the rows, then the messages of those that the caller does
/// not hold. A row that cannot be read is an error of its own block.
async fn blocks(session: &Session, wanted: &[Wanted]) -> Outcome<Vec<Outcome<DueBlock>>> {
    let scanned = scan(session, wanted).await?;
    let mut blocks = Vec::with_capacity(wanted.len());
    let mut missing = Vec::new();
    for (place, (wanted, scanned)) in wanted.iter().zip(scanned).enumerate() {
        let block = scanned.map(|mut rows| {
            let in_time = rows.partition_point(|row| row.due_at <= wanted.query.until);
            let left = rows.split_off(in_time.min(wanted.query.limit));
            rows.retain(|row| !wanted.held.contains(&row.delivery));
            missing.extend(rows.iter().map(|row| (place, row.app.clone(), row.message)));
            (rows, left.first().map(|row| row.due_at))
        });
        blocks.push(block);
    }
    let mut messages = messages(session, wanted, &missing).await?.into_iter();
    let block = |block: Outcome<(Vec<Scanned>, Option<Timestamp>)>| {
        block.and_then(|(rows, next)| whole(rows, next, &mut messages))
    };
    Ok(blocks.into_iter().map(block).collect())
}

/// A row of the queue, without its message.
struct Scanned {
    endpoint: EndpointId,
    app: String,
    message: Uuid,
    due_at: Timestamp,
    delivery: DeliveryId,
    attempts: u32,
    attempts_before_requeue: u32,
    not_before: Timestamp,
}

/// For each that is wanted the rows that are due by its time, one more than its limit, and the first that is due later.
async fn scan(session: &Session, wanted: &[Wanted]) -> Outcome<Vec<Outcome<Vec<Scanned>>>> {
    const COLUMNS: &str =
        "app, message, due_at, delivery, attempts, attempts_before_requeue, not_before";
    let sql = format!(
        "SELECT asked.place, found.* FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[])
             WITH ORDINALITY AS asked (workspace, endpoint, until, rows, place)
         CROSS JOIN LATERAL (
             (SELECT {COLUMNS} FROM due
              WHERE due.workspace = asked.workspace AND due.endpoint = asked.endpoint
                AND due.due_at <= asked.until
              ORDER BY due_at, delivery LIMIT asked.rows)
             UNION ALL
             (SELECT {COLUMNS} FROM due
              WHERE due.workspace = asked.workspace AND due.endpoint = asked.endpoint
                AND due.due_at > asked.until
              ORDER BY due_at, delivery LIMIT 1)) found
         ORDER BY asked.place, found.due_at, found.delivery"
    );
    let queries = || wanted.iter().map(|wanted| wanted.query);
    let workspaces: Vec<Uuid> = queries().map(|q| uuid(q.workspace.to_bytes())).collect();
    let endpoints: Vec<Uuid> = queries().map(|q| uuid(q.endpoint.to_bytes())).collect();
    let until: Vec<i64> = queries().map(|q| q.until.as_millis()).collect();
    let limits: Vec<i64> = queries()
        .map(|q| as_i64(q.limit.saturating_add(1) as u64))
        .collect();
    let values: [&(dyn ToSql + Sync); 4] = [&workspaces, &endpoints, &until, &limits];
    let mut found: Vec<Outcome<Vec<Scanned>>> = wanted.iter().map(|_| Ok(Vec::new())).collect();
    for row in rows(session, STEP, &sql, &values).await? {
        let place: i64 = column(&row, 0)?;
        let asked = usize::try_from(place - 1).ok();
        let Some((wanted, of)) = asked.and_then(|at| wanted.get(at).zip(found.get_mut(at))) else {
            continue;
        };
        match (scanned(wanted.query.endpoint, &row), &mut *of) {
            (Ok(row), Ok(rows)) => rows.push(row),
            (Err(error), Ok(_)) => *of = Err(error),
            (_, Err(_)) => {}
        }
    }
    Ok(found)
}

fn scanned(endpoint: EndpointId, row: &Row) -> Outcome<Scanned> {
    Ok(Scanned {
        endpoint,
        app: column(row, 1)?,
        message: column(row, 2)?,
        due_at: time(row, 3)?,
        delivery: id(row, 4)?,
        attempts: count(row, 5, "due", "attempts")?,
        attempts_before_requeue: count(row, 6, "due", "attempts_before_requeue")?,
        not_before: time(row, 7)?,
    })
}

/// The messages of rows, each with the place of who wants it, in order; nothing for those that are beyond the bound on
/// bytes of a place, whose payloads are left where they are. Each is looked for by its key, and never by a scan,
/// whatever the database expects of arrays that it has not seen.
async fn messages(
    session: &Session,
    wanted: &[Wanted],
    missing: &[(usize, String, Uuid)],
) -> Outcome<Vec<Option<Outcome<Message>>>> {
    let sql = format!(
        "SELECT {MESSAGE}, n FROM (
             SELECT asked.app, asked.id, event_type, event_id, accepted_at, payload, n, bytes,
                    sum(octet_length(payload)) OVER (
                        PARTITION BY place ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS earlier
             FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::bigint[])
                 WITH ORDINALITY AS asked (workspace, app, id, place, bytes, n)
             CROSS JOIN LATERAL (
                 SELECT event_type, event_id, accepted_at, payload FROM message
                 WHERE message.workspace = asked.workspace AND message.app = asked.app AND message.id = asked.id
                 OFFSET 0) m) found
         WHERE coalesce(earlier, 0) <= bytes"
    );
    let mut found: Vec<Option<Outcome<Message>>> = missing.iter().map(|_| None).collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let of = |place: usize| wanted[place].query;
    let workspaces: Vec<Uuid> = missing
        .iter()
        .map(|(place, ..)| uuid(of(*place).workspace.to_bytes()))
        .collect();
    let apps: Vec<&str> = missing.iter().map(|(_, app, _)| app.as_str()).collect();
    let ids: Vec<Uuid> = missing.iter().map(|(.., id)| *id).collect();
    let places: Vec<i64> = missing
        .iter()
        .map(|(place, ..)| as_i64(*place as u64))
        .collect();
    let bytes: Vec<i64> = missing
        .iter()
        .map(|(place, ..)| as_i64(of(*place).payload_bytes as u64))
        .collect();
    let values: [&(dyn ToSql + Sync); 5] = [&workspaces, &apps, &ids, &places, &bytes];
    for row in rows(session, STEP, &sql, &values).await? {
        let n: i64 = column(&row, 6)?;
        let at = usize::try_from(n - 1).ok();
        if let Some(((place, ..), of_row)) =
            at.and_then(|at| missing.get(at).zip(found.get_mut(at)))
        {
            *of_row = Some(message_at(of(*place).workspace, &row, 0));
        }
    }
    Ok(found)
}

/// A block of these rows with their messages, which come in the same order. It ends before the first whose message was left
/// where it is.
fn whole(
    rows: Vec<Scanned>,
    next_due_at: Option<Timestamp>,
    messages: &mut impl Iterator<Item = Option<Outcome<Message>>>,
) -> Outcome<DueBlock> {
    let mut block = DueBlock {
        rows: Vec::with_capacity(rows.len()),
        next_due_at,
    };
    let (mut broken, mut ended) = (None, false);
    // All are taken, for the next block's stand behind them.
    for (row, message) in rows.into_iter().zip(messages) {
        match message {
            _ if ended => {}
            None => {
                block.next_due_at = Some(row.due_at);
                ended = true;
            }
            Some(Err(error)) => broken = broken.or(Some(error)),
            Some(Ok(message)) => block.rows.push(Due {
                delivery: row.delivery,
                endpoint: row.endpoint,
                due_at: row.due_at,
                not_before: row.not_before,
                attempts: row.attempts,
                attempts_before_requeue: row.attempts_before_requeue,
                message: Arc::new(message),
            }),
        }
    }
    broken.map_or(Ok(block), Err)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(limits: &[(usize, usize)]) -> Queue {
        let mut queue = Queue::default();
        for (limit, payload_bytes) in limits {
            let query = DueQuery {
                workspace: WorkspaceId::from_bytes([1; 16]),
                endpoint: EndpointId::from_bytes([2; 16]),
                until: Timestamp::EPOCH,
                limit: *limit,
                payload_bytes: *payload_bytes,
            };
            let held = HashSet::new();
            let wanted = Wanted { query, held };
            let (waiter, _) = oneshot::channel();
            queue.waiting.push_back(Asked { wanted, waiter });
        }
        queue
    }

    #[test]
    fn whoever_waits_is_read_for_at_once_within_bounds() {
        let many = vec![(1, 1); ENDPOINTS + 10];
        let mut waiting = queue(&many);
        assert_eq!(waiting.take().len(), ENDPOINTS);
        assert_eq!(waiting.take().len(), 10);
        for large in [(ROWS, 1), (1, PAYLOAD_BYTES), (usize::MAX, usize::MAX)] {
            let mut waiting = queue(&[large, large, (1, 1)]);
            assert_eq!(waiting.take().len(), 1, "{large:?}");
            assert!(!waiting.take().is_empty(), "{large:?}");
        }
        assert!(queue(&[]).take().is_empty());
    }

    #[test]
    fn only_so_many_reads_are_under_way_and_none_right_after_another() {
        let now = Instant::now();
        assert_eq!(queue(&[]).begin(now), None);
        let mut waiting = queue(&[(ROWS, 1); 4]);
        assert_eq!(waiting.begin(now), Some(now), "the first need not wait");
        assert_eq!(waiting.begin(now), Some(now + PACE));
        assert_eq!(waiting.begin(now), None, "two are under way");
        waiting.under_way -= 1;
        let later = now + 10 * PACE;
        assert_eq!(waiting.begin(later), Some(later));
    }
}

//! Upkeep: retention, backup and counts.

use std::collections::HashSet;
use std::path::Path;

use hookturn_core::id::{DeliveryId, EndpointId};
use hookturn_core::store::{Progress, StoreError, StoreStats};
use hookturn_core::time::{HOUR, Millis, Timestamp};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::configuration::{collect, execute};
use super::reader::At;
use super::rows::{self, as_i64};
use super::writer::Tx;
use super::{bulks, failed, restored};

/// Pages copied per step of a backup, so that other readers get their turn.
const BACKUP_PAGES: i32 = 512;

/// How long a deleted endpoint outlives the retention: a message that was accepted in the moments of
/// its deletion may still have made a delivery for it.
const ENDPOINT_GRACE: Millis = HOUR;

const MESSAGES: &str = "remove messages past their retention";

/// Due rows that one step of a sweep looks at, and messages: both are only read past.
const LOOKED_AT: usize = 10_000;

/// How far a sweep over old messages came.
///
/// A message goes when no due row needs it, and there is no index that would tell from the message.
/// So a sweep first collects, block by block, which messages the old due rows need, and then walks
/// the messages, block by block as well: a step never looks twice at what an earlier one has seen,
/// however much a paused endpoint holds back.
///
/// What was collected stays right between the steps. Every step first removes all settled deliveries
/// that are old enough, so that none of those can be queued again; what is pending and old is in the
/// collection when its place is passed, and what settles afterwards is only kept for one sweep too
/// long. That holds for steps that were committed: a sweep whose step failed begins anew.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// It removes what is older than this; nothing was begun without.
    before: Option<Timestamp>,
    stage: Stage,
    /// Numbers of the messages that old due rows need.
    needed: HashSet<i64>,
}

#[derive(Debug)]
enum Stage {
    /// Due rows up to this delivery were looked at.
    Collecting([u8; 16]),
    /// Messages up to this number were looked at.
    Removing(i64),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Collecting([0; 16])
    }
}

/// Removes a block of at most `limit` rows of what is older than `before`: settled deliveries with
/// their attempts, then messages that no due row refers to, then bulk rotations that are over, then expired
/// answers; and, once nothing older is left, deleted endpoints that nothing refers to.
///
/// A delivery that is still pending keeps its message and its attempts, however old they are.
pub(super) fn prune(
    tx: &mut Tx<'_>,
    sweep: &mut Sweep,
    before: Timestamp,
    now: Timestamp,
    limit: usize,
) -> Result<Progress<()>, StoreError> {
    let limit = limit.max(1);
    let mut removed = prune_settled(tx, before, limit)?;
    let mut swept = false;
    // A message outlasts its settled deliveries: those can be queued again as long as they are seen.
    if removed < limit {
        if sweep.before.is_none_or(|known| before < known) {
            *sweep = Sweep {
                before: Some(before),
                ..Sweep::default()
            };
        }
        let (gone, ended) = prune_messages(tx, sweep, limit - removed)?;
        removed += gone;
        swept = ended;
    }
    if swept && removed < limit {
        removed += bulks::prune(tx, before, limit - removed)?;
    }
    if swept && removed < limit {
        let sql = "DELETE FROM idempotency WHERE key IN (
                       SELECT key FROM idempotency WHERE expires_at <= ?1 LIMIT ?2)";
        let values = params![now.as_millis(), as_i64((limit - removed) as u64)];
        removed += execute(tx, "remove expired answers", sql, values)?;
    }
    let done = swept && removed < limit;
    if done {
        forget_endpoints(tx, before)?;
        *sweep = Sweep::default();
    }
    Ok(Progress {
        rows: removed,
        resume: (!done).then_some(()),
    })
}

/// Settled deliveries of every app that has some, whether or not the app still exists.
fn prune_settled(tx: &Tx<'_>, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
    const STEP: &str = "remove deliveries past their retention";
    let oldest = DeliveryId::first_at(before).to_bytes();
    let mut removed = 0;
    let mut owner = (0, String::new());
    while removed < limit {
        let sql = "SELECT workspace, app FROM settled WHERE (workspace, app) > (?, ?)
                   ORDER BY workspace, app LIMIT 1";
        let next = collect(tx.connection, STEP, sql, params![owner.0, owner.1], |row| {
            Ok(Ok((row.get(0)?, row.get(1)?)))
        })?;
        let Some(next) = next.into_iter().next() else {
            break;
        };
        owner = next;
        let sql = "DELETE FROM settled WHERE workspace = ?1 AND app = ?2 AND delivery IN (
                       SELECT delivery FROM settled WHERE workspace = ?1 AND app = ?2
                       AND delivery < ?3 ORDER BY delivery LIMIT ?4) RETURNING delivery";
        let rows = as_i64((limit - removed) as u64);
        let values = params![owner.0, owner.1, oldest, rows];
        let gone = collect(tx.connection, STEP, sql, values, |row| {
            Ok(Ok(row.get::<_, [u8; 16]>(0)?))
        })?;
        for delivery in &gone {
            let sql = "DELETE FROM attempt WHERE delivery = ?";
            execute(tx, STEP, sql, [delivery])?;
        }
        removed += gone.len();
    }
    Ok(removed)
}

/// One step of a sweep: how many messages it removed, and whether the sweep is at its end.
fn prune_messages(
    tx: &Tx<'_>,
    sweep: &mut Sweep,
    limit: usize,
) -> Result<(usize, bool), StoreError> {
    let Some(before) = sweep.before else {
        return Ok((0, true));
    };
    if let Stage::Collecting(after) = sweep.stage {
        match collect_needed(tx, before, after, &mut sweep.needed)? {
            Some(last) => {
                sweep.stage = Stage::Collecting(last);
                return Ok((0, false));
            }
            None => sweep.stage = Stage::Removing(0),
        }
    }
    let Stage::Removing(from) = &mut sweep.stage else {
        return Ok((0, false));
    };
    remove_unneeded(tx, before, from, &sweep.needed, limit)
}

/// Notes which messages a block of old due rows needs. Where to go on, if that was not all of them.
fn collect_needed(
    tx: &Tx<'_>,
    before: Timestamp,
    after: [u8; 16],
    needed: &mut HashSet<i64>,
) -> Result<Option<[u8; 16]>, StoreError> {
    let sql = "SELECT delivery, message FROM due WHERE delivery > ?1 AND delivery < ?2
               ORDER BY delivery LIMIT ?3";
    let values = params![
        after,
        DeliveryId::first_at(before).to_bytes(),
        as_i64(LOOKED_AT as u64)
    ];
    let block = collect(tx.connection, MESSAGES, sql, values, |row| {
        Ok(Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?)))
    })?;
    needed.extend(block.iter().map(|(_, message)| *message));
    let last = block.last().map(|(delivery, _)| *delivery);
    Ok(last.filter(|_| block.len() == LOOKED_AT))
}

/// Messages stand in order of acceptance, so the oldest are at the beginning, and the first young one
/// is the end.
fn remove_unneeded(
    tx: &Tx<'_>,
    before: Timestamp,
    from: &mut i64,
    needed: &HashSet<i64>,
    limit: usize,
) -> Result<(usize, bool), StoreError> {
    let sql = "SELECT number, accepted_at FROM message WHERE number > ?1 ORDER BY number LIMIT ?2";
    let values = params![*from, as_i64(LOOKED_AT as u64)];
    let block = collect(tx.connection, MESSAGES, sql, values, |row| {
        Ok(Ok((row.get::<_, i64>(0)?, rows::time(row, 1)?)))
    })?;
    let mut removed = 0;
    for (number, accepted_at) in &block {
        if *accepted_at >= before {
            return Ok((removed, true));
        }
        if removed == limit {
            return Ok((removed, false));
        }
        if !needed.contains(number) {
            removed += execute(
                tx,
                MESSAGES,
                "DELETE FROM message WHERE number = ?",
                [number],
            )?;
        }
        *from = *number;
    }
    Ok((removed, block.len() < LOOKED_AT))
}

/// Deleted endpoints go when no delivery refers to them any more. Their settled deliveries are older
/// than their deletion (but for the grace), and everything older than `before` is gone by now.
fn forget_endpoints(tx: &mut Tx<'_>, before: Timestamp) -> Result<(), StoreError> {
    const STEP: &str = "forget deleted endpoints";
    let sql = "DELETE FROM endpoint WHERE deleted_at < ?1
               AND NOT EXISTS (SELECT 1 FROM due WHERE due.endpoint = endpoint.number)
               RETURNING id";
    let values = [before.before(ENDPOINT_GRACE).as_millis()];
    let gone: Vec<EndpointId> = collect(tx.connection, STEP, sql, values, |row| {
        Ok(Ok(rows::id(row, 0)?))
    })?;
    tx.effects.forgotten.extend(gone);
    Ok(())
}

/// Copies the database, page by page, to a new file that only its owner can read. A commit in between
/// starts the copy over inside SQLite, which the read transaction of every query prevents: the copy
/// is the state at its beginning.
pub(super) fn backup(at: &At<'_>, path: &Path) -> Result<(), StoreError> {
    const STEP: &str = "write the backup";
    let refused = |source: std::io::Error| StoreError::Engine {
        step: STEP,
        source: Box::new(source),
    };
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    // Half a backup must not be taken for one, whatever ends this process: it has its name when it is whole.
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    if path.exists() {
        return Err(refused(std::io::ErrorKind::AlreadyExists.into()));
    }
    let _left_by_one_that_was_ended = std::fs::remove_file(part);
    file.open(part).map_err(refused)?;
    let copied = copy(at.connection, part).map_err(failed(STEP));
    let marked = copied.and_then(|()| restored::mark(part).map_err(refused));
    let named = marked.and_then(|()| std::fs::rename(part, path).map_err(refused));
    if named.is_err() {
        let _ = std::fs::remove_file(part);
    }
    named
}

fn copy(from: &Connection, path: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut to = Connection::open_with_flags(path, flags)?;
    to.execute_batch("PRAGMA synchronous = FULL")?;
    // The caller's read transaction takes its snapshot with its first read.
    from.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))?;
    let backup = Backup::new(from, &mut to)?;
    loop {
        match backup.step(BACKUP_PAGES)? {
            StepResult::Done => break,
            StepResult::More => {}
            // Nobody else knows the new file, and the source is in a transaction already.
            _ => {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                    Some("the copy is locked by another program".to_owned()),
                ));
            }
        }
    }
    drop(backup);
    // A copy of a damaged database is no backup.
    let health: String = to.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if health == "ok" {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(format!(
            "the database is damaged, so its copy would be too: {health}"
        )),
    ))
}

pub(super) fn stats(at: &At<'_>) -> Result<StoreStats, StoreError> {
    const STEP: &str = "count";
    let number = |sql: &str| -> Result<Option<i64>, StoreError> {
        at.connection
            .prepare_cached(sql)
            .and_then(|mut s| s.query_row([], |row| row.get(0)).optional())
            .map(Option::flatten)
            .map_err(failed(STEP))
    };
    let pages = number("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?;
    let due = number("SELECT count(*) FROM due")?;
    let oldest = super::traffic::due_endpoints(at)?
        .into_iter()
        .map(|(_, _, due_at)| due_at)
        .min();
    Ok(StoreStats {
        due: due.unwrap_or(0).cast_unsigned(),
        oldest_due_at: oldest,
        bytes: pages.unwrap_or(0).cast_unsigned(),
    })
}

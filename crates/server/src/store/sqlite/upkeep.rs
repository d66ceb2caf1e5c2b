//! Upkeep: retention, backup and counts.

use std::path::Path;

use hookturn_core::id::{DeliveryId, EndpointId};
use hookturn_core::store::{Progress, StoreError, StoreStats};
use hookturn_core::time::{HOUR, Millis, Timestamp};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::configuration::{collect, execute};
use super::failed;
use super::reader::At;
use super::rows::{self, as_i64};
use super::writer::Tx;

/// Pages copied per step of a backup, so that other readers get their turn.
const BACKUP_PAGES: i32 = 512;

/// How long a deleted endpoint outlives the retention: a message that was accepted in the moments of
/// its deletion may still have made a delivery for it.
const ENDPOINT_GRACE: Millis = HOUR;

/// Removes a block of at most `limit` rows of what is older than `before`: settled deliveries with
/// their attempts, then messages that no due row refers to, then expired answers; and, once nothing
/// older is left, deleted endpoints that nothing refers to.
///
/// A delivery that is still pending keeps its message and its attempts, however old they are.
pub(super) fn prune(
    tx: &mut Tx<'_>,
    before: Timestamp,
    now: Timestamp,
    limit: usize,
) -> Result<Progress<()>, StoreError> {
    let limit = limit.max(1);
    let mut removed = prune_settled(tx, before, limit)?;
    // A message outlasts its settled deliveries: those can be queued again as long as they are seen.
    if removed < limit {
        removed += prune_messages(tx, before, limit - removed)?;
    }
    if removed < limit {
        let sql = "DELETE FROM idempotency WHERE key IN (
                       SELECT key FROM idempotency WHERE expires_at <= ?1 LIMIT ?2)";
        let values = params![now.as_millis(), as_i64((limit - removed) as u64)];
        removed += execute(tx, "remove expired answers", sql, values)?;
    }
    let done = removed < limit;
    if done {
        forget_endpoints(tx, before)?;
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

/// Messages stand in order of acceptance, so the oldest are at the beginning. Those that a due row
/// still needs are skipped; there are few, for they are older than the retention.
fn prune_messages(tx: &Tx<'_>, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
    const STEP: &str = "remove messages past their retention";
    let sql = "SELECT number, accepted_at FROM message
               WHERE number NOT IN (SELECT message FROM due WHERE delivery < ?1)
               ORDER BY number LIMIT ?2";
    let values = params![
        DeliveryId::first_at(before).to_bytes(),
        as_i64(limit as u64)
    ];
    let first = collect(tx.connection, STEP, sql, values, |row| {
        Ok(Ok((row.get::<_, i64>(0)?, rows::time(row, 1)?)))
    })?;
    let mut removed = 0;
    for (number, _) in first
        .into_iter()
        .take_while(|(_, accepted_at)| *accepted_at < before)
    {
        removed += execute(tx, STEP, "DELETE FROM message WHERE number = ?", [number])?;
    }
    Ok(removed)
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
    file.open(path).map_err(refused)?;
    let copied = copy(at.connection, path).map_err(failed(STEP));
    if copied.is_err() {
        // Half a backup must not be taken for one.
        let _ = std::fs::remove_file(path);
    }
    copied
}

fn copy(from: &Connection, path: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut to = Connection::open_with_flags(path, flags)?;
    to.execute_batch("PRAGMA synchronous = FULL")?;
    // A read transaction takes its snapshot with its first read.
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

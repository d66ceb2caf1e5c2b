//! Upkeep: retention, backup and counts.

use std::path::Path;

use hookturn_core::endpoint::{Endpoint, EndpointState};
use hookturn_core::id::{DeliveryId, EndpointId};
use hookturn_core::store::{Progress, StoreError, StoreStats};
use hookturn_core::time::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::configuration::{collect, execute};
use super::failed;
use super::reader::At;
use super::rows::{self, as_i64, from_document};
use super::writer::Tx;

/// Pages copied per step of a backup, so that other readers get their turn.
const BACKUP_PAGES: i32 = 512;

/// Removes a block of what is older than `before`: settled deliveries with their attempts, messages
/// that no due row refers to, expired answers, and deleted endpoints that nothing refers to.
///
/// A delivery that is still pending keeps its message and its attempts, however old they are.
pub(super) fn prune(
    tx: &mut Tx<'_>,
    before: Timestamp,
    now: Timestamp,
    limit: usize,
) -> Result<Progress<()>, StoreError> {
    const STEP: &str = "remove what is past its retention";
    let rows = as_i64(limit as u64);
    let oldest = DeliveryId::first_at(before).to_bytes();
    let mut removed = 0;
    let mut full = false;
    let mut block = |changed: usize| {
        removed += changed;
        full |= changed == limit;
    };
    let sql = "DELETE FROM attempt WHERE (delivery, number) IN (
                   SELECT delivery, number FROM attempt WHERE delivery < ?1
                   AND NOT EXISTS (SELECT 1 FROM due WHERE due.delivery = attempt.delivery) LIMIT ?2)";
    block(execute(tx, STEP, sql, params![oldest, rows])?);
    let sql = "DELETE FROM settled WHERE (workspace, app, delivery) IN (
                   SELECT s.workspace, s.app, s.delivery FROM app a JOIN settled s
                   ON s.workspace = a.workspace AND s.app = a.id AND s.delivery < ?1 LIMIT ?2)";
    block(execute(tx, STEP, sql, params![oldest, rows])?);
    // What a deleted app left behind is not reached through `app`.
    let sql = "DELETE FROM settled WHERE (workspace, app, delivery) IN (
                   SELECT s.workspace, s.app, s.delivery FROM endpoint e JOIN settled s ON s.endpoint = e.number
                   WHERE s.delivery < ?1 AND NOT EXISTS (
                       SELECT 1 FROM app a WHERE a.workspace = s.workspace AND a.id = s.app)
                   AND e.document LIKE '%\"state\":\"deleted\"%' LIMIT ?2)";
    block(execute(tx, STEP, sql, params![oldest, rows])?);
    block(prune_messages(tx, before, rows)?);
    let sql = "DELETE FROM idempotency WHERE key IN (
                   SELECT key FROM idempotency WHERE expires_at <= ?1 LIMIT ?2)";
    block(execute(tx, STEP, sql, params![now.as_millis(), rows])?);
    forget_endpoints(tx, before)?;
    Ok(Progress {
        rows: removed,
        resume: full.then_some(()),
    })
}

/// Messages stand in order of acceptance, so the oldest are at the beginning. Those that a due row
/// still needs are skipped; there are few, for they are older than the retention.
fn prune_messages(tx: &Tx<'_>, before: Timestamp, rows: i64) -> Result<usize, StoreError> {
    const STEP: &str = "remove messages past their retention";
    let sql = "SELECT number, accepted_at FROM message
               WHERE number NOT IN (SELECT message FROM due WHERE delivery < ?1)
               ORDER BY number LIMIT ?2";
    let values = params![DeliveryId::first_at(before).to_bytes(), rows];
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

/// Deleted endpoints go when no delivery refers to them any more.
fn forget_endpoints(tx: &mut Tx<'_>, before: Timestamp) -> Result<(), StoreError> {
    const STEP: &str = "forget deleted endpoints";
    let sql =
        "SELECT id, document, number FROM endpoint WHERE document LIKE '%\"state\":\"deleted\"%'
               AND NOT EXISTS (SELECT 1 FROM due WHERE due.endpoint = endpoint.number)";
    let found = collect(tx.connection, STEP, sql, [], |row| {
        let id: EndpointId = rows::id(row, 0)?;
        let number: i64 = row.get(2)?;
        let endpoint = from_document::<Endpoint>("endpoint", &id, row.get_ref(1)?.as_str()?);
        Ok(endpoint.map(|endpoint| (endpoint, number)))
    })?;
    for (endpoint, number) in found {
        // Its settled deliveries are older than its deletion, and gone once that is past retention.
        if matches!(endpoint.state, EndpointState::Deleted { since } if since < before) {
            execute(tx, STEP, "DELETE FROM endpoint WHERE number = ?", [number])?;
            tx.effects.forgotten.push(endpoint.id);
        }
    }
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
            StepResult::Done => return Ok(()),
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
    // The earliest of each endpoint by the loose scan of `due_endpoints` would be exact too; the
    // oldest delivery id is as good for an age and one step.
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

//! The ledger: the audit chain of each workspace, and the answers that idempotency keys replay.

use hookturn_core::audit::{self, AuditEntry, Context, Head, Recorded};
use hookturn_core::id::{SecretId, WorkspaceId};
use hookturn_core::store::{IdempotencyKey, IdempotencyRecord, StoreError};
use hookturn_core::time::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::configuration::{collect, execute};
use super::failed;
use super::reader::At;
use super::rows::{self, as_i64, to_document};
use super::writer::Tx;
use crate::store::encoding::{self, shows_from_columns, shows_to_columns};

type Outcome<T> = Result<T, StoreError>;

// ----- idempotent answers -----

pub(super) fn put_idempotent_answer(
    tx: &Tx<'_>,
    record: &IdempotencyRecord,
    now: Timestamp,
) -> Outcome<()> {
    let (shows, fingerprint) = shows_to_columns(record);
    let sql = "INSERT INTO idempotency (key, fingerprint, response, expires_at, shows, shown_fingerprint, shown_to)
               VALUES (?1, ?2, ?3, ?4, ?6, ?7, ?8)
               ON CONFLICT (key) DO UPDATE
               SET fingerprint = excluded.fingerprint, response = excluded.response, expires_at = excluded.expires_at,
                   shows = excluded.shows, shown_fingerprint = excluded.shown_fingerprint,
                   shown_to = excluded.shown_to
               WHERE expires_at <= ?5";
    let values = params![
        record.key.0,
        record.fingerprint,
        record.sealed_response.as_deref().unwrap_or_default(),
        record.expires_at.as_millis(),
        now.as_millis(),
        shows,
        fingerprint,
        record.shows.map(|shows| shows.to.to_bytes()),
    ];
    match execute(tx, "keep an idempotent answer", sql, values)? {
        0 => Err(StoreError::IdempotencyKeyUsed),
        _ => Ok(()),
    }
}

/// Erases the answers that show a secret. An empty answer is an erased one: a box never is.
pub(super) fn erase_answers_showing(tx: &Tx<'_>, secret: SecretId) -> Outcome<()> {
    let sql = "UPDATE idempotency SET response = x'' WHERE shows = ? AND response <> x''";
    let values = [secret.to_string()];
    execute(tx, "erase the answers that show a secret", sql, values).map(drop)
}

pub(super) fn idempotent_answer(
    at: &At<'_>,
    key: IdempotencyKey,
    now: Timestamp,
) -> Outcome<Option<IdempotencyRecord>> {
    const STEP: &str = "read an idempotent answer";
    let sql = "SELECT fingerprint, response, expires_at, shows, shown_fingerprint, shown_to
               FROM idempotency WHERE key = ? AND expires_at > ?";
    let read = |row: &Row<'_>| {
        let response: Vec<u8> = row.get(1)?;
        let record = IdempotencyRecord {
            key,
            fingerprint: row.get(0)?,
            sealed_response: (!response.is_empty()).then(|| response.into()),
            shows: None,
            expires_at: rows::time(row, 2)?,
        };
        let shows: (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
        Ok((record, shows, row.get::<_, Option<[u8; 16]>>(5)?))
    };
    let found = at
        .connection
        .prepare_cached(sql)
        .and_then(|mut s| {
            s.query_row(params![key.0, now.as_millis()], read)
                .optional()
        })
        .map_err(failed(STEP))?;
    let Some((record, shows, to)) = found else {
        return Ok(None);
    };
    let columns = (shows.0.as_deref(), shows.1.as_deref());
    let shows = shows_from_columns(key, columns, to)?;
    Ok(Some(IdempotencyRecord { shows, ..record }))
}

// ----- audit -----

pub(super) fn append_audit(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    context: &Context,
    entries: Vec<AuditEntry>,
    at: Timestamp,
) -> Outcome<()> {
    const STEP: &str = "append to the audit log";
    if entries.is_empty() {
        return Ok(());
    }
    let number = tx.workspace(workspace)?;
    let head = "SELECT seq, hash FROM audit WHERE workspace = ? ORDER BY seq DESC LIMIT 1";
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?));
    let found = tx
        .connection
        .prepare_cached(head)
        .and_then(|mut s| s.query_row([number], read).optional())
        .map_err(failed(STEP))?;
    let mut head = found.map_or(Head::START, |(seq, hash)| Head {
        seq: seq.cast_unsigned(),
        hash,
    });
    for entry in entries {
        let recorded = audit::chain(head, at, workspace, context.clone(), entry);
        head = recorded.head();
        let document = to_document("audit", &recorded)?;
        let sql = "INSERT INTO audit (workspace, seq, document, hash) VALUES (?, ?, ?, ?)";
        execute(
            tx,
            STEP,
            sql,
            params![number, as_i64(head.seq), document, head.hash],
        )?;
    }
    tx.effects.audited.push(workspace);
    Ok(())
}

pub(super) fn audit_head(at: &At<'_>, workspace: WorkspaceId) -> Outcome<u64> {
    let Some(number) = at.numbers.workspace(workspace) else {
        return Ok(0);
    };
    let sql = "SELECT seq FROM audit WHERE workspace = ? ORDER BY seq DESC LIMIT 1";
    at.connection
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row([number], |row| row.get::<_, i64>(0)).optional())
        .map(|seq| seq.unwrap_or(0).cast_unsigned())
        .map_err(failed("read the head of the audit log"))
}

pub(super) fn audit_log(
    at: &At<'_>,
    workspace: WorkspaceId,
    after: u64,
    limit: usize,
) -> Outcome<Vec<Recorded>> {
    let Some(number) = at.numbers.workspace(workspace) else {
        return Ok(Vec::new());
    };
    let sql = "SELECT seq, document, hash FROM audit WHERE workspace = ? AND seq > ? ORDER BY seq LIMIT ?";
    let values = params![number, as_i64(after), as_i64(limit as u64)];
    let mut entries = collect(at.connection, "read the audit log", sql, values, |row| {
        let seq: i64 = row.get(0)?;
        Ok(Ok(recorded(seq, row)))
    })?;
    // A page ends before what cannot be read: what comes before it is still proof.
    let damaged = entries.iter().position(Result::is_err);
    if let Some(place) = damaged.filter(|place| *place > 0) {
        entries.truncate(place);
    }
    entries.into_iter().collect()
}

/// An entry in its place.
fn recorded(seq: i64, row: &Row<'_>) -> Outcome<Recorded> {
    let unreadable =
        |column, error: rusqlite::Error| rows::impossible("audit", column, &seq, error);
    let hash: [u8; 32] = row.get(2).map_err(|error| unreadable("hash", error))?;
    let document: String = row.get(1).map_err(|error| unreadable("document", error))?;
    encoding::recorded(seq, &document, hash)
}

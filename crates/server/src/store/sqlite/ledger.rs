//! The ledger: the audit chain of each workspace, and the answers that idempotency keys replay.

use hookturn_core::audit::{self, AuditEntry, Context, Head, Recorded};
use hookturn_core::id::WorkspaceId;
use hookturn_core::store::{IdempotencyKey, IdempotencyRecord, StoreError};
use hookturn_core::time::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::configuration::{collect, execute};
use super::failed;
use super::reader::At;
use super::rows::{self, as_i64, from_document, to_document};
use super::writer::Tx;

type Outcome<T> = Result<T, StoreError>;

// ----- idempotent answers -----

pub(super) fn put_idempotent_answer(
    tx: &Tx<'_>,
    record: &IdempotencyRecord,
    now: Timestamp,
) -> Outcome<()> {
    let sql = "INSERT INTO idempotency (key, fingerprint, response, expires_at) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (key) DO UPDATE
               SET fingerprint = excluded.fingerprint, response = excluded.response, expires_at = excluded.expires_at
               WHERE expires_at <= ?5";
    let values = params![
        record.key.0,
        record.fingerprint,
        &record.sealed_response[..],
        record.expires_at.as_millis(),
        now.as_millis()
    ];
    match execute(tx, "keep an idempotent answer", sql, values)? {
        0 => Err(StoreError::IdempotencyKeyUsed),
        _ => Ok(()),
    }
}

pub(super) fn idempotent_answer(
    at: &At<'_>,
    key: IdempotencyKey,
    now: Timestamp,
) -> Outcome<Option<IdempotencyRecord>> {
    let sql = "SELECT fingerprint, response, expires_at FROM idempotency WHERE key = ? AND expires_at > ?";
    let read = |row: &Row<'_>| {
        Ok(IdempotencyRecord {
            key,
            fingerprint: row.get(0)?,
            sealed_response: row.get::<_, Vec<u8>>(1)?.into(),
            expires_at: rows::time(row, 2)?,
        })
    };
    at.connection
        .prepare_cached(sql)
        .and_then(|mut s| {
            s.query_row(params![key.0, now.as_millis()], read)
                .optional()
        })
        .map_err(failed("read an idempotent answer"))
}

// ----- audit -----

pub(super) fn append_audit(
    tx: &Tx<'_>,
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
    collect(at.connection, "read the audit log", sql, values, |row| {
        let seq: i64 = row.get(0)?;
        let hash: [u8; 32] = row.get(2)?;
        let recorded = from_document::<Recorded>("audit", &seq, row.get_ref(1)?.as_str()?);
        // The column is what the next entry was chained to; whoever changed it changed the log.
        Ok(recorded.map(|recorded| Recorded { hash, ..recorded }))
    })
}

//! The ledger: the audit chain of each workspace, and the answers that idempotency keys replay.

use hookturn_core::audit::{self, AuditEntry, Context, Head, Recorded};
use hookturn_core::id::{SecretId, WorkspaceId};
use hookturn_core::store::{IdempotencyKey, IdempotencyRecord, StoreError};
use hookturn_core::time::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::connect::Session;
use super::rows::{Outcome, column, execute, first, rows, time, uuid};
use super::transaction::Tx;
use crate::store::encoding::{
    self, as_i64, impossible, shows_from_columns, shows_to_columns, to_document,
};

// ----- idempotent answers -----

/// Keeps an answer, or refuses: its key has one that has not expired by `now`.
pub(super) async fn put_idempotent_answer(
    session: &Session,
    record: &IdempotencyRecord,
    now: Timestamp,
) -> Outcome<()> {
    let (shows, fingerprint) = shows_to_columns(record);
    let sql = "INSERT INTO idempotency (key, fingerprint, response, expires_at, shows, shown_fingerprint, shown_to)
               VALUES ($1, $2, $3, $4, $6, $7, $8)
               ON CONFLICT (key) DO UPDATE
               SET fingerprint = excluded.fingerprint, response = excluded.response, expires_at = excluded.expires_at,
                   shows = excluded.shows, shown_fingerprint = excluded.shown_fingerprint,
                   shown_to = excluded.shown_to
               WHERE idempotency.expires_at <= $5";
    let response = record.sealed_response.as_deref().unwrap_or_default();
    let (expires_at, now) = (record.expires_at.as_millis(), now.as_millis());
    let to = record.shows.map(|shows| uuid(shows.to.to_bytes()));
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 8] = [
        &&record.key.0[..],
        &&record.fingerprint[..],
        &response,
        &expires_at,
        &now,
        &shows,
        &fingerprint,
        &to,
    ];
    match execute(session, "keep an idempotent answer", sql, &values).await? {
        0 => Err(StoreError::IdempotencyKeyUsed),
        _ => Ok(()),
    }
}

/// Erases the answers that show a secret. An empty answer is an erased one: a box never is.
pub(super) async fn erase_answers_showing(session: &Session, secret: SecretId) -> Outcome<()> {
    let sql = "UPDATE idempotency SET response = '' WHERE shows = $1 AND response <> ''";
    let step = "erase the answers that show a secret";
    execute(session, step, sql, &[&secret.to_string()])
        .await
        .map(drop)
}

pub(super) async fn idempotent_answer(
    session: &Session,
    key: IdempotencyKey,
    now: Timestamp,
) -> Outcome<Option<IdempotencyRecord>> {
    let sql = "SELECT fingerprint, response, expires_at, shows, shown_fingerprint, shown_to
               FROM idempotency WHERE key = $1 AND expires_at > $2";
    let step = "read an idempotent answer";
    let found = first(session, step, sql, &[&&key.0[..], &now.as_millis()]).await?;
    let Some(row) = found else {
        return Ok(None);
    };
    let name = hex::encode(key.0);
    let fingerprint: &[u8] = column(&row, 0)?;
    let fingerprint = fingerprint
        .try_into()
        .map_err(|error| impossible("idempotency", "fingerprint", &name, error))?;
    let response: Vec<u8> = column(&row, 1)?;
    let shown_to: Option<Uuid> = column(&row, 5)?;
    let columns = (column(&row, 3)?, column(&row, 4)?);
    Ok(Some(IdempotencyRecord {
        key,
        fingerprint,
        sealed_response: (!response.is_empty()).then(|| response.into()),
        shows: shows_from_columns(key, columns, shown_to.map(Uuid::into_bytes))?,
        expires_at: time(&row, 2)?,
    }))
}

// ----- audit -----

/// Makes the head of a new workspace's chain.
pub(super) async fn begin_audit(session: &Session, workspace: WorkspaceId) -> Outcome<()> {
    let sql = "INSERT INTO audit_head (workspace, seq, hash) VALUES ($1, $2, $3)";
    let values = (as_i64(Head::START.seq), &Head::START.hash[..]);
    let id = uuid(workspace.to_bytes());
    execute(
        session,
        "begin an audit log",
        sql,
        &[&id, &values.0, &values.1],
    )
    .await
    .map(drop)
}

/// Chains entries to the head, which is locked until the transaction ends.
pub(super) async fn append_audit(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    context: &Context,
    entries: &[AuditEntry],
    at: Timestamp,
) -> Outcome<()> {
    const STEP: &str = "append to the audit log";
    if entries.is_empty() {
        return Ok(());
    }
    let id = uuid(workspace.to_bytes());
    let sql = "SELECT seq, hash FROM audit_head WHERE workspace = $1 FOR UPDATE";
    let Some(row) = first(tx.session, STEP, sql, &[&id]).await? else {
        return Err(StoreError::Conflict {
            what: format!("workspace {workspace}"),
        });
    };
    let seq: i64 = column(&row, 0)?;
    let hash = hash_at(&row, 1, "audit_head", &workspace)?;
    let mut head = Head {
        seq: seq.cast_unsigned(),
        hash,
    };
    let (mut seqs, mut documents, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        let recorded = audit::chain(head, at, workspace, context.clone(), entry.clone());
        head = recorded.head();
        documents.push(to_document("audit", &recorded)?);
        seqs.push(as_i64(head.seq));
        hashes.push(head.hash.to_vec());
    }
    let sql = "INSERT INTO audit (workspace, seq, document, hash)
               SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::bytea[])";
    execute(tx.session, STEP, sql, &[&id, &seqs, &documents, &hashes]).await?;
    let sql = "UPDATE audit_head SET seq = $2, hash = $3 WHERE workspace = $1";
    let values = (as_i64(head.seq), &head.hash[..]);
    execute(tx.session, STEP, sql, &[&id, &values.0, &values.1]).await?;
    tx.effects.audited.push(workspace);
    Ok(())
}

pub(super) async fn audit_head(session: &Session, workspace: WorkspaceId) -> Outcome<u64> {
    let sql = "SELECT seq FROM audit WHERE workspace = $1 ORDER BY seq DESC LIMIT 1";
    let step = "read the head of the audit log";
    let found = first(session, step, sql, &[&uuid(workspace.to_bytes())]).await?;
    let seq: i64 = found.map_or(Ok(0), |row| column(&row, 0))?;
    Ok(seq.cast_unsigned())
}

pub(super) async fn audit_log(
    session: &Session,
    workspace: WorkspaceId,
    after: u64,
    limit: usize,
) -> Outcome<Vec<Recorded>> {
    let sql = "SELECT seq, document, hash FROM audit WHERE workspace = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    let values = (
        uuid(workspace.to_bytes()),
        as_i64(after),
        as_i64(limit as u64),
    );
    let step = "read the audit log";
    let found = rows(session, step, sql, &[&values.0, &values.1, &values.2]).await?;
    let mut entries: Vec<Outcome<Recorded>> = found.iter().map(recorded).collect();
    // A page ends before what cannot be read: what comes before it is still proof.
    let damaged = entries.iter().position(Result::is_err);
    if let Some(place) = damaged.filter(|place| *place > 0) {
        entries.truncate(place);
    }
    entries.into_iter().collect()
}

fn recorded(row: &Row) -> Outcome<Recorded> {
    let seq: i64 = column(row, 0)?;
    let hash = hash_at(row, 2, "audit", &seq)?;
    encoding::recorded(seq, column(row, 1)?, hash)
}

fn hash_at(
    row: &Row,
    index: usize,
    table: &'static str,
    name: &dyn std::fmt::Display,
) -> Outcome<[u8; 32]> {
    let hash: &[u8] = column(row, index)?;
    hash.try_into()
        .map_err(|error: std::array::TryFromSliceError| impossible(table, "hash", name, error))
}

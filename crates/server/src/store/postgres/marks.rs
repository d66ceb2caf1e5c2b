//! Marks: by which secrets are found without being known. See `service::leaks`.
//!
//! Every secret has a row from its birth, without a mark until one is given; a row without a mark goes
//! with the value, for nothing could be marked any more. The sealed key of the marks is a value of `meta`.

use hookturn_core::id::{KeyringId, SecretId, WorkspaceId};
use hookturn_core::store::{MarkedSecret, SealedSecret, SecretMark};
use tokio_postgres::Row;

use super::configuration::{STEP, meta, swapped};
use super::connect::Session;
use super::rows::{Outcome, collect, column, execute, id, uuid};
use crate::store::encoding::{as_i64, impossible};

/// Under this name `meta` holds the sealed key.
const KEY: &str = "mark_key";

pub(super) async fn expect_mark(session: &Session, secret: &SealedSecret) -> Outcome<()> {
    let key = (
        uuid(secret.workspace.to_bytes()),
        uuid(secret.keyring.to_bytes()),
        uuid(secret.secret.to_bytes()),
    );
    let sql = "INSERT INTO secret_mark (workspace, keyring, secret) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    execute(session, STEP, sql, &[&key.0, &key.1, &key.2])
        .await
        .map(drop)
}

pub(super) async fn expect_none(
    session: &Session,
    workspace: WorkspaceId,
    keyring: KeyringId,
    secret: SecretId,
) -> Outcome<()> {
    let key = (
        uuid(workspace.to_bytes()),
        uuid(keyring.to_bytes()),
        uuid(secret.to_bytes()),
    );
    let sql = "DELETE FROM secret_mark
               WHERE workspace = $1 AND keyring = $2 AND secret = $3 AND mark IS NULL";
    execute(session, STEP, sql, &[&key.0, &key.1, &key.2])
        .await
        .map(drop)
}

pub(super) async fn keep_mark(session: &Session, marked: &MarkedSecret) -> Outcome<()> {
    let key = (
        uuid(marked.workspace.to_bytes()),
        uuid(marked.keyring.to_bytes()),
        uuid(marked.secret.to_bytes()),
    );
    let sql =
        "UPDATE secret_mark SET mark = $4 WHERE workspace = $1 AND keyring = $2 AND secret = $3";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&key.0, &key.1, &key.2, &&marked.mark.0[..]];
    execute(session, STEP, sql, &values).await.map(drop)
}

pub(super) async fn keep_key(session: &Session, sealed: &[u8], old: Option<&[u8]>) -> Outcome<()> {
    let changed = match old {
        None => {
            let sql = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            execute(session, STEP, sql, &[&KEY, &sealed]).await?
        }
        Some(old) => {
            let sql = "UPDATE meta SET value = $2 WHERE key = $1 AND value = $3";
            execute(session, STEP, sql, &[&KEY, &sealed, &old]).await?
        }
    };
    swapped(changed, "the key of the", &"marks")
}

pub(super) async fn load_key(session: &Session) -> Outcome<Option<Vec<u8>>> {
    meta(session, KEY).await
}

pub(super) async fn marked(session: &Session, marks: &[SecretMark]) -> Outcome<Vec<MarkedSecret>> {
    let marks: Vec<&[u8]> = marks.iter().map(|mark| &mark.0[..]).collect();
    let sql = "SELECT workspace, keyring, secret, mark FROM secret_mark WHERE mark = ANY($1) ORDER BY secret";
    let read = |row: &Row| {
        let secret: SecretId = id(row, 2)?;
        let mark: &[u8] = column(row, 3)?;
        let mark = mark
            .try_into()
            .map_err(|error| impossible("secret_mark", "mark", &secret, error))?;
        Ok(MarkedSecret {
            workspace: id(row, 0)?,
            keyring: id(row, 1)?,
            secret,
            mark: SecretMark(mark),
        })
    };
    let step = "find secrets by their marks";
    collect(session, step, sql, &[&marks], read).await
}

pub(super) async fn unmarked(session: &Session, limit: usize) -> Outcome<Vec<SecretId>> {
    let sql = "SELECT secret FROM secret_mark WHERE mark IS NULL ORDER BY secret LIMIT $1";
    let limit = as_i64(limit as u64);
    let step = "find secrets without a mark";
    collect(session, step, sql, &[&limit], |row| id(row, 0)).await
}

//! Marks: by which secrets are found without being known. See `service::leaks`.
//!
//! Every secret has a row from its birth, without a mark until one is given; a row without a mark goes
//! with the value, for nothing could be marked any more. The sealed key of the marks is a value of `meta`.

use hookturn_core::id::{KeyringId, SecretId};
use hookturn_core::store::{MarkedSecret, SealedSecret, SecretMark, StoreError};
use rusqlite::{Connection, Row, params};

use super::configuration::{STEP, collect, execute, swapped};
use super::reader::At;
use super::rows::{self, as_i64, impossible};
use super::writer::Tx;

type Outcome<T> = Result<T, StoreError>;

/// Under this name `meta` holds the sealed key.
const KEY: &str = "mark_key";

pub(super) fn expect_mark(tx: &Tx<'_>, workspace: i64, secret: &SealedSecret) -> Outcome<()> {
    let sql = "INSERT INTO secret_mark (workspace, keyring, secret) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
    let (keyring, secret) = (secret.keyring.to_bytes(), secret.secret.to_bytes());
    execute(tx, STEP, sql, params![workspace, keyring, secret]).map(drop)
}

pub(super) fn expect_none(
    tx: &Tx<'_>,
    workspace: i64,
    keyring: KeyringId,
    secret: SecretId,
) -> Outcome<()> {
    let sql = "DELETE FROM secret_mark WHERE workspace = ? AND keyring = ? AND secret = ? AND mark IS NULL";
    let values = params![workspace, keyring.to_bytes(), secret.to_bytes()];
    execute(tx, STEP, sql, values).map(drop)
}

pub(super) fn keep_mark(tx: &Tx<'_>, marked: &MarkedSecret) -> Outcome<()> {
    let workspace = tx.workspace(marked.workspace)?;
    let sql = "UPDATE secret_mark SET mark = ? WHERE workspace = ? AND keyring = ? AND secret = ?";
    let (keyring, secret) = (marked.keyring.to_bytes(), marked.secret.to_bytes());
    let values = params![&marked.mark.0[..], workspace, keyring, secret];
    execute(tx, STEP, sql, values).map(drop)
}

pub(super) fn keep_key(tx: &Tx<'_>, sealed: &[u8], old: Option<&[u8]>) -> Outcome<()> {
    let changed = match old {
        None => {
            let sql = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING";
            execute(tx, STEP, sql, params![KEY, sealed])?
        }
        Some(old) => {
            let sql = "UPDATE meta SET value = ? WHERE key = ? AND value = ?";
            execute(tx, STEP, sql, params![sealed, KEY, old])?
        }
    };
    swapped(changed, "the key of the", &"marks")
}

pub(super) fn load_key(connection: &Connection) -> Outcome<Option<Vec<u8>>> {
    let sql = "SELECT value FROM meta WHERE key = ?";
    let found = collect(connection, "load the configuration", sql, [KEY], |row| {
        Ok(Ok(row.get(0)?))
    })?;
    Ok(found.into_iter().next())
}

pub(super) fn marked(at: &At<'_>, marks: &[SecretMark]) -> Outcome<Vec<MarkedSecret>> {
    let sql = "SELECT workspace, keyring, secret FROM secret_mark WHERE mark = ? ORDER BY secret";
    let mut found = Vec::new();
    for mark in marks {
        let read = |row: &Row<'_>| {
            let secret: SecretId = rows::id(row, 2)?;
            let (number, keyring) = (row.get(0)?, rows::id(row, 1)?);
            let workspace = at.numbers.workspace_of(number);
            let missing = || impossible("secret_mark", "workspace", &secret, "no such workspace");
            Ok(workspace.ok_or_else(missing).map(|workspace| MarkedSecret {
                workspace,
                keyring,
                secret,
                mark: *mark,
            }))
        };
        let step = "find a secret by its mark";
        found.extend(collect(at.connection, step, sql, [&mark.0[..]], read)?);
    }
    Ok(found)
}

pub(super) fn unmarked(at: &At<'_>, limit: usize) -> Outcome<Vec<SecretId>> {
    let sql = "SELECT secret FROM secret_mark WHERE mark IS NULL ORDER BY secret LIMIT ?";
    let step = "find secrets without a mark";
    collect(at.connection, step, sql, [as_i64(limit as u64)], |row| {
        Ok(Ok(rows::id(row, 0)?))
    })
}

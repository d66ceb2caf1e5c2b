//! Configuration: versioned documents changed by compare-and-swap, and sealed secrets.

use std::sync::Arc;

use hookturn_core::endpoint::{Endpoint, EndpointState};
use hookturn_core::id::{
    ApiKeyId, ClientId, EndpointId, KeyringId, RotationId, SecretId, WorkspaceId,
};
use hookturn_core::proof::Findings;
use hookturn_core::rotation::{Keyring, Rotation};
use hookturn_core::store::{Change, Page, SealedSecret, StoreError, Write};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{ApiKey, App, Workspace};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::ledger::{append_audit, erase_answers_showing, put_idempotent_answer};
use super::planned;
use super::reader::At;
use super::requeue::requeue;
use super::rows::{self, NewNumber, as_i64, from_document, to_document};
use super::traffic::put_in_order;
use super::writer::Tx;
use super::{bulks, failed, marks};
use crate::store::seal::SealedUnder;

type Outcome<T> = Result<T, StoreError>;

pub(super) const STEP: &str = "change the configuration";

/// Runs one statement and returns how many rows it changed.
pub(super) fn execute(
    tx: &Tx<'_>,
    step: &'static str,
    sql: &str,
    values: impl Params,
) -> Outcome<usize> {
    tx.connection
        .prepare_cached(sql)
        .and_then(|mut s| s.execute(values))
        .map_err(failed(step))
}

/// Collects the rows of a query. `read` fails with the engine's error or with the store's.
pub(super) fn collect<T>(
    connection: &Connection,
    step: &'static str,
    sql: &str,
    values: impl Params,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<Outcome<T>>,
) -> Outcome<Vec<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(failed(step))?;
    let mut rows = statement.query(values).map_err(failed(step))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed(step))? {
        found.push(read(row).map_err(failed(step))??);
    }
    Ok(found)
}

// ----- changes -----

pub(super) fn change(tx: &mut Tx<'_>, change: Change) -> Outcome<()> {
    if let Some(record) = &change.idempotency {
        put_idempotent_answer(tx, record, change.at)?;
    }
    for write in &change.writes {
        apply_write(tx, write)?;
    }
    append_audit(
        tx,
        change.workspace,
        &change.context,
        change.audit,
        change.at,
    )?;
    tx.effects.writes.extend(change.writes);
    Ok(())
}

fn apply_write(tx: &mut Tx<'_>, write: &Write) -> Outcome<()> {
    match write {
        Write::Workspace(workspace) => put_workspace(tx, workspace),
        Write::ApiKey(key) => put_api_key(tx, key),
        Write::App(app) => put_app(tx, app),
        Write::RemoveApp {
            workspace,
            app,
            version,
        } => remove_app(tx, *workspace, *app, *version),
        Write::Endpoint(endpoint) => put_endpoint(tx, endpoint),
        Write::Keyring(keyring) => put_keyring(tx, keyring),
        Write::Rotation(rotation) => put_rotation(tx, rotation),
        Write::Secret(secret) => keep_secret(tx, secret),
        Write::Mark(marked) => marks::keep_mark(tx, marked),
        Write::MarkKey { sealed, old } => marks::keep_key(tx, sealed, old.as_deref()),
        Write::Bulk(bulk) => bulks::put_bulk(tx, bulk),
        Write::BulkItem(item) => bulks::put_item(tx, item),
        Write::Findings {
            endpoint, findings, ..
        } => keep_findings(tx, *endpoint, findings),
        Write::Noted {
            workspace,
            keyring,
            noted,
        } => planned::keep_noted(tx, *workspace, *keyring, noted),
        Write::Reported {
            workspace,
            after,
            through,
            messages,
        } => planned::report(tx, *workspace, (*after, *through), messages),
        Write::Schedule(schedule) => planned::put_schedule(tx, schedule),
        Write::RemoveSchedule {
            workspace,
            schedule,
            version,
        } => planned::remove_schedule(tx, *workspace, *schedule, *version),
        Write::ScheduleNote {
            workspace,
            schedule,
            keyring,
            note,
        } => planned::keep_schedule_note(tx, *workspace, (*schedule, *keyring), note),
        Write::EraseSecret {
            workspace,
            keyring,
            secret,
            answers,
        } => erase_secret(tx, *workspace, *keyring, *secret, *answers),
        Write::Requeue { delivery, at } => requeue(tx, delivery, *at),
    }
}

fn keep_findings(tx: &mut Tx<'_>, endpoint: EndpointId, findings: &Findings) -> Outcome<()> {
    let document = to_document("findings", findings)?;
    let sql = "INSERT INTO findings (endpoint, document)
        SELECT number, ?2 FROM endpoint WHERE id = ?1 AND deleted_at IS NULL
        ON CONFLICT (endpoint) DO UPDATE SET document = ?2";
    execute(tx, STEP, sql, params![endpoint.to_bytes(), document])?;
    Ok(())
}

fn put_workspace(tx: &mut Tx<'_>, workspace: &Workspace) -> Outcome<()> {
    let id = workspace.id.to_bytes();
    let document = to_document("workspace", workspace)?;
    let values = params![id, workspace.name, as_i64(workspace.version), document];
    let first = workspace.version == 1;
    let sql = if first {
        "INSERT INTO workspace (id, name, version, document) VALUES (?1, ?2, ?3, ?4)"
    } else {
        "UPDATE workspace SET name = ?2, version = ?3, document = ?4 WHERE id = ?1 AND version = ?3 - 1"
    };
    let known = "SELECT 1 FROM workspace WHERE id = ?";
    let changed = match write_unique(tx, STEP, sql, values)? {
        Some(changed) => changed,
        None if first && exists(tx, known, [id])? => 0,
        None => {
            return Err(StoreError::Duplicate {
                what: format!("a workspace named {}", workspace.name),
            });
        }
    };
    swapped(changed, "workspace", &workspace.id)?;
    if first {
        let number = tx.connection.last_insert_rowid();
        let fresh = NewNumber::Workspace(workspace.id, number);
        tx.effects.numbers.push(fresh);
    }
    Ok(())
}

fn put_api_key(tx: &Tx<'_>, key: &ApiKey) -> Outcome<()> {
    let id = key.id.to_bytes();
    let document = to_document("api_key", key)?;
    let values = params![id, key.hash, as_i64(key.version), document];
    let first = key.version == 1;
    let sql = if first {
        "INSERT INTO api_key (id, hash, version, document) VALUES (?1, ?2, ?3, ?4)"
    } else {
        "UPDATE api_key SET hash = ?2, version = ?3, document = ?4 WHERE id = ?1 AND version = ?3 - 1"
    };
    let changed = match write_unique(tx, STEP, sql, values)? {
        Some(changed) => changed,
        None if first && exists(tx, "SELECT 1 FROM api_key WHERE id = ?", [id])? => 0,
        None => {
            return Err(StoreError::Duplicate {
                what: "an API key with this text".to_owned(),
            });
        }
    };
    swapped(changed, "API key", &key.id)
}

fn put_app(tx: &Tx<'_>, app: &App) -> Outcome<()> {
    let workspace = tx.workspace(app.workspace)?;
    let document = to_document("app", app)?;
    let values = params![workspace, app.id.as_str(), as_i64(app.version), document];
    let sql = if app.version == 1 {
        "INSERT INTO app (workspace, id, version, document) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE app SET version = ?3, document = ?4 WHERE workspace = ?1 AND id = ?2 AND version = ?3 - 1"
    };
    swapped(execute(tx, STEP, sql, values)?, "app", &app.id)
}

fn remove_app(tx: &Tx<'_>, workspace: WorkspaceId, app: ClientId, version: u64) -> Outcome<()> {
    let workspace = tx.workspace(workspace)?;
    let sql = "DELETE FROM app WHERE workspace = ? AND id = ? AND version = ?";
    let values = params![workspace, app.as_str(), as_i64(version)];
    swapped(execute(tx, STEP, sql, values)?, "app", &app)
}

fn put_endpoint(tx: &mut Tx<'_>, endpoint: &Endpoint) -> Outcome<()> {
    let workspace = tx.workspace(endpoint.workspace)?;
    let document = to_document("endpoint", endpoint)?;
    let deleted_at = match endpoint.state {
        EndpointState::Deleted { since } => Some(since.as_millis()),
        EndpointState::Enabled | EndpointState::Paused { .. } | EndpointState::Disabled { .. } => {
            None
        }
    };
    let values = params![
        workspace,
        endpoint.app.as_str(),
        endpoint.id.to_bytes(),
        as_i64(endpoint.version),
        document,
        deleted_at
    ];
    let first = endpoint.version == 1;
    let sql = if first {
        "INSERT INTO endpoint (workspace, app, id, version, document, deleted_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE endpoint SET version = ?4, document = ?5, deleted_at = ?6
         WHERE id = ?3 AND workspace = ?1 AND app = ?2 AND version = ?4 - 1"
    };
    swapped(execute(tx, STEP, sql, values)?, "endpoint", &endpoint.id)?;
    if first {
        let number = tx.connection.last_insert_rowid();
        let fresh = NewNumber::Endpoint(endpoint.workspace, endpoint.id, number);
        tx.effects.numbers.push(fresh);
    } else if endpoint.ordered && !tx.is_ordered(endpoint.id) {
        put_in_order(tx, endpoint.id, endpoint.updated_at)?;
    }
    Ok(())
}

fn put_keyring(tx: &Tx<'_>, keyring: &Keyring) -> Outcome<()> {
    let workspace = tx.workspace(keyring.workspace)?;
    let document = to_document("keyring", keyring)?;
    let values = params![
        workspace,
        keyring.id.to_bytes(),
        as_i64(keyring.version),
        document
    ];
    let sql = if keyring.version == 1 {
        "INSERT INTO keyring (workspace, id, version, document) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE keyring SET version = ?3, document = ?4 WHERE workspace = ?1 AND id = ?2 AND version = ?3 - 1"
    };
    swapped(execute(tx, STEP, sql, values)?, "keyring", &keyring.id)
}

fn put_rotation(tx: &Tx<'_>, rotation: &Rotation) -> Outcome<()> {
    let workspace = tx.workspace(rotation.workspace)?;
    let document = to_document("rotation", rotation)?;
    let sql = "INSERT INTO rotation (workspace, id, keyring, document) VALUES (?, ?, ?, ?)
               ON CONFLICT (workspace, id) DO UPDATE SET document = excluded.document";
    let values = params![
        workspace,
        rotation.id.to_bytes(),
        rotation.keyring.to_bytes(),
        document
    ];
    execute(tx, STEP, sql, values).map(drop)
}

fn keep_secret(tx: &Tx<'_>, secret: &SealedSecret) -> Outcome<()> {
    let workspace = tx.workspace(secret.workspace)?;
    let sql = "INSERT INTO secret (workspace, keyring, id, version, sealed) VALUES (?, ?, ?, ?, ?)";
    let values = params![
        workspace,
        secret.keyring.to_bytes(),
        secret.secret.to_bytes(),
        secret.version,
        &secret.sealed[..]
    ];
    match write_unique(tx, STEP, sql, values)? {
        Some(_) => marks::expect_mark(tx, workspace, secret),
        None => Err(StoreError::Duplicate {
            what: format!("secret {}", secret.secret),
        }),
    }
}

fn erase_secret(
    tx: &Tx<'_>,
    workspace: WorkspaceId,
    keyring: KeyringId,
    secret: SecretId,
    answers: bool,
) -> Outcome<()> {
    let workspace = tx.workspace(workspace)?;
    let sql = "DELETE FROM secret WHERE workspace = ? AND keyring = ? AND id = ?";
    let values = params![workspace, keyring.to_bytes(), secret.to_bytes()];
    let id = secret;
    overwriting(tx, || {
        execute(tx, STEP, sql, values)?;
        if answers {
            erase_answers_showing(tx, id)?;
        }
        Ok(())
    })?;
    marks::expect_none(tx, workspace, keyring, secret)
}

/// Has the engine write zeros over what `erase` removes, which it otherwise leaves in free space. The
/// write-ahead log holds older pages until its next round, and a stopped store has no log.
fn overwriting<T>(tx: &Tx<'_>, erase: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let set = |sql| tx.connection.execute_batch(sql).map_err(failed(STEP));
    set("PRAGMA secure_delete = ON")?;
    let erased = erase();
    set("PRAGMA secure_delete = OFF")?;
    erased
}

pub(super) fn swapped(changed: usize, kind: &str, id: &dyn std::fmt::Display) -> Outcome<()> {
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict {
            what: format!("{kind} {id}"),
        })
    }
}

/// Runs a statement and returns how many rows it changed, or `None` when a unique column refused it.
pub(super) fn write_unique(
    tx: &Tx<'_>,
    step: &'static str,
    sql: &str,
    values: impl Params,
) -> Outcome<Option<usize>> {
    let written = tx
        .connection
        .prepare_cached(sql)
        .and_then(|mut s| s.execute(values));
    match written {
        Ok(changed) => Ok(Some(changed)),
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) =>
        {
            Ok(None)
        }
        Err(error) => Err(failed(step)(error)),
    }
}

fn exists(tx: &Tx<'_>, sql: &str, values: impl Params) -> Outcome<bool> {
    tx.connection
        .prepare_cached(sql)
        .and_then(|mut s| s.exists(values))
        .map_err(failed(STEP))
}

// ----- rotations -----

pub(super) fn rotation(
    at: &At<'_>,
    workspace: WorkspaceId,
    id: RotationId,
) -> Outcome<Option<Rotation>> {
    let Some(number) = at.numbers.workspace(workspace) else {
        return Ok(None);
    };
    let sql = "SELECT document FROM rotation WHERE workspace = ? AND id = ?";
    let found = collect(
        at.connection,
        "read a rotation",
        sql,
        params![number, id.to_bytes()],
        |row| Ok(from_document("rotation", &id, row.get_ref(0)?.as_str()?)),
    )?;
    Ok(found.into_iter().next())
}

pub(super) fn rotations(
    at: &At<'_>,
    workspace: WorkspaceId,
    keyring: Option<KeyringId>,
    page: Page<RotationId>,
) -> Outcome<Vec<Rotation>> {
    const STEP: &str = "list rotations";
    let Some(number) = at.numbers.workspace(workspace) else {
        return Ok(Vec::new());
    };
    let before = page.before.map_or([0xff; 16], RotationId::to_bytes);
    let limit = as_i64(page.limit as u64);
    let read = |row: &Row<'_>| {
        let id: RotationId = rows::id(row, 0)?;
        Ok(from_document("rotation", &id, row.get_ref(1)?.as_str()?))
    };
    if let Some(keyring) = keyring {
        let sql = "SELECT id, document FROM rotation WHERE workspace = ? AND keyring = ? AND id < ? ORDER BY id DESC LIMIT ?";
        let values = params![number, keyring.to_bytes(), before, limit];
        return collect(at.connection, STEP, sql, values, read);
    }
    let sql =
        "SELECT id, document FROM rotation WHERE workspace = ? AND id < ? ORDER BY id DESC LIMIT ?";
    let values = params![number, before, limit];
    collect(at.connection, STEP, sql, values, read)
}

// ----- sealed values, keys, meta -----

pub(super) fn reseal(tx: &mut Tx<'_>, swaps: Vec<(SealedSecret, Arc<[u8]>)>) -> Outcome<usize> {
    let mut replaced = 0;
    for (fresh, old) in swaps {
        let workspace = tx.workspace(fresh.workspace)?;
        let sql = "UPDATE secret SET sealed = ?1 WHERE workspace = ?2 AND keyring = ?3 AND id = ?4 AND sealed = ?5";
        let values = params![
            &fresh.sealed[..],
            workspace,
            fresh.keyring.to_bytes(),
            fresh.secret.to_bytes(),
            &old[..]
        ];
        if overwriting(tx, || execute(tx, "re-seal a secret", sql, values))? == 1 {
            replaced += 1;
            tx.effects.reseals.push((fresh, old));
        }
    }
    Ok(replaced)
}

pub(super) fn touch_api_keys(tx: &Tx<'_>, uses: &[(ApiKeyId, Timestamp)]) -> Outcome<()> {
    for (key, used_at) in uses {
        let sql =
            "UPDATE api_key SET last_used_at = max(coalesce(last_used_at, 0), ?) WHERE id = ?";
        execute(
            tx,
            "note the use of a key",
            sql,
            params![used_at.as_millis(), key.to_bytes()],
        )?;
    }
    Ok(())
}

pub(super) fn meta(at: &At<'_>, key: &str) -> Outcome<Option<Vec<u8>>> {
    at.connection
        .query_row("SELECT value FROM meta WHERE key = ?", [key], |row| {
            row.get(0)
        })
        .optional()
        .map_err(failed("read a setting"))
}

pub(super) fn put_meta(tx: &Tx<'_>, key: &str, value: &[u8]) -> Outcome<()> {
    let sql = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    execute(tx, "keep a setting", sql, params![key, value]).map(drop)
}

/// What is sealed under which master key: by the ids in the boxes. Answers are counted as long as they are kept.
pub(super) fn sealed(at: &At<'_>) -> Outcome<Vec<SealedUnder>> {
    let sql = "SELECT lower(hex(substr(sealed, 2, 8))), sum(secret), sum(1 - secret)
               FROM (SELECT sealed, 1 AS secret FROM secret
                     UNION ALL SELECT value, 1 FROM meta WHERE key = 'mark_key'
                     UNION ALL SELECT response, 0 FROM idempotency WHERE length(response) > 0)
               GROUP BY 1 ORDER BY 1";
    collect(at.connection, "look what is sealed", sql, [], |row| {
        let (secrets, answers): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(Ok(SealedUnder {
            key_id: row.get(0)?,
            secrets: secrets.cast_unsigned(),
            answers: answers.cast_unsigned(),
        }))
    })
}

//! Configuration: versioned documents changed by compare-and-swap, sealed secrets, the audit chain
//! and idempotent answers.

use std::sync::Arc;

use hookturn_core::audit::{self, AuditEntry, Context, Head, Recorded};
use hookturn_core::id::{ApiKeyId, EndpointId, KeyringId, RotationId, WorkspaceId};
use hookturn_core::rotation::{Keyring, Rotation};
use hookturn_core::store::{
    Change, Configuration, IdempotencyKey, IdempotencyRecord, Page, SealedSecret, StoreError, Write,
};
use hookturn_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::failed;
use super::reader::At;
use super::rows::{self, NewNumber, Numbers, as_i64, from_document, impossible, to_document};
use super::writer::Tx;

type Outcome<T> = Result<T, StoreError>;

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
    const STEP: &str = "change the configuration";
    match write {
        Write::Workspace(workspace) => {
            let id = workspace.id.to_bytes();
            let document = to_document("workspace", workspace)?;
            let version = as_i64(workspace.version);
            if workspace.version == 1 {
                let sql = "INSERT INTO workspace (id, name, version, document) VALUES (?, ?, ?, ?)";
                insert_unique(
                    tx,
                    STEP,
                    sql,
                    params![id, workspace.name, version, document],
                    || format!("a workspace named {}", workspace.name),
                )?;
                let number = tx.connection.last_insert_rowid();
                tx.effects
                    .numbers
                    .push(NewNumber::Workspace(workspace.id, number));
                return Ok(());
            }
            let sql = "UPDATE workspace SET name = ?2, version = ?3, document = ?4 WHERE id = ?1 AND version = ?3 - 1";
            let changed = execute(
                tx,
                STEP,
                sql,
                params![id, workspace.name, version, document],
            )?;
            swapped(changed, "workspace", &workspace.id)
        }
        Write::ApiKey(key) => {
            let (id, version) = (key.id.to_bytes(), as_i64(key.version));
            let document = to_document("api_key", key)?;
            if key.version == 1 {
                let sql = "INSERT INTO api_key (id, hash, version, document) VALUES (?, ?, ?, ?)";
                return insert_unique(
                    tx,
                    STEP,
                    sql,
                    params![id, key.hash, version, document],
                    || "this API key".to_owned(),
                );
            }
            let sql =
                "UPDATE api_key SET version = ?2, document = ?3 WHERE id = ?1 AND version = ?2 - 1";
            swapped(
                execute(tx, STEP, sql, params![id, version, document])?,
                "API key",
                &key.id,
            )
        }
        Write::App(app) => {
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
        Write::RemoveApp {
            workspace,
            app,
            version,
        } => {
            let number = tx.workspace(*workspace)?;
            let sql = "DELETE FROM app WHERE workspace = ? AND id = ? AND version = ?";
            swapped(
                execute(
                    tx,
                    STEP,
                    sql,
                    params![number, app.as_str(), as_i64(*version)],
                )?,
                "app",
                app,
            )
        }
        Write::Endpoint(endpoint) => {
            let workspace = tx.workspace(endpoint.workspace)?;
            let (id, version) = (endpoint.id.to_bytes(), as_i64(endpoint.version));
            let document = to_document("endpoint", endpoint)?;
            if endpoint.version == 1 {
                let sql = "INSERT INTO endpoint (workspace, id, version, document) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
                let changed = execute(tx, STEP, sql, params![workspace, id, version, document])?;
                let number = tx.connection.last_insert_rowid();
                let fresh = NewNumber::Endpoint(endpoint.workspace, endpoint.id, number);
                tx.effects.numbers.push(fresh);
                return swapped(changed, "endpoint", &endpoint.id);
            }
            let sql = "UPDATE endpoint SET version = ?2, document = ?3 WHERE id = ?1 AND version = ?2 - 1";
            swapped(
                execute(tx, STEP, sql, params![id, version, document])?,
                "endpoint",
                &endpoint.id,
            )
        }
        Write::Keyring(keyring) => put_keyring(tx, keyring),
        Write::Rotation(rotation) => {
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
        Write::Secret(secret) => {
            let workspace = tx.workspace(secret.workspace)?;
            let sql = "INSERT INTO secret (workspace, keyring, id, version, sealed) VALUES (?, ?, ?, ?, ?)";
            let values = params![
                workspace,
                secret.keyring.to_bytes(),
                secret.secret.to_bytes(),
                secret.version,
                &secret.sealed[..]
            ];
            insert_unique(tx, STEP, sql, values, || {
                format!("secret {}", secret.secret)
            })
        }
        Write::EraseSecret {
            workspace,
            keyring,
            secret,
        } => {
            let number = tx.workspace(*workspace)?;
            let sql = "DELETE FROM secret WHERE workspace = ? AND keyring = ? AND id = ?";
            execute(
                tx,
                STEP,
                sql,
                params![number, keyring.to_bytes(), secret.to_bytes()],
            )
            .map(drop)
        }
    }
}

fn put_keyring(tx: &Tx<'_>, keyring: &Keyring) -> Outcome<()> {
    const STEP: &str = "change a keyring";
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

fn swapped(changed: usize, kind: &str, id: &dyn std::fmt::Display) -> Outcome<()> {
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict {
            what: format!("{kind} {id}"),
        })
    }
}

fn insert_unique(
    tx: &Tx<'_>,
    step: &'static str,
    sql: &str,
    values: impl Params,
    what: impl FnOnce() -> String,
) -> Outcome<()> {
    match tx
        .connection
        .prepare_cached(sql)
        .and_then(|mut s| s.execute(values))
    {
        Ok(_) => Ok(()),
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) =>
        {
            Err(StoreError::Duplicate { what: what() })
        }
        Err(error) => Err(failed(step)(error)),
    }
}

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

pub(super) fn audit_log(
    at: &At<'_>,
    workspace: WorkspaceId,
    after: u64,
    limit: usize,
) -> Outcome<Vec<Recorded>> {
    let Some(number) = at.numbers.workspace(workspace) else {
        return Ok(Vec::new());
    };
    let sql =
        "SELECT seq, document FROM audit WHERE workspace = ? AND seq > ? ORDER BY seq LIMIT ?";
    let values = params![number, as_i64(after), as_i64(limit as u64)];
    collect(at.connection, "read the audit log", sql, values, |row| {
        let seq: i64 = row.get(0)?;
        Ok(from_document("audit", &seq, row.get_ref(1)?.as_str()?))
    })
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
    match keyring {
        Some(keyring) => {
            let sql = "SELECT id, document FROM rotation WHERE workspace = ? AND keyring = ? AND id < ? ORDER BY id DESC LIMIT ?";
            collect(
                at.connection,
                STEP,
                sql,
                params![number, keyring.to_bytes(), before, limit],
                read,
            )
        }
        None => {
            let sql = "SELECT id, document FROM rotation WHERE workspace = ? AND id < ? ORDER BY id DESC LIMIT ?";
            collect(
                at.connection,
                STEP,
                sql,
                params![number, before, limit],
                read,
            )
        }
    }
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
        if execute(tx, "re-seal a secret", sql, values)? == 1 {
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

// ----- loading -----

pub(super) fn load(connection: &Connection, numbers: &Numbers) -> Outcome<Configuration> {
    const STEP: &str = "load the configuration";
    let mut loaded = Configuration::default();
    let mut known = Vec::new();
    loaded.workspaces = collect(
        connection,
        STEP,
        "SELECT id, document, number FROM workspace",
        [],
        |row| {
            let id: WorkspaceId = rows::id(row, 0)?;
            known.push(NewNumber::Workspace(id, row.get(2)?));
            Ok(from_document("workspace", &id, row.get_ref(1)?.as_str()?))
        },
    )?;
    numbers.publish(&std::mem::take(&mut known));
    loaded.api_keys = collect(
        connection,
        STEP,
        "SELECT id, document, last_used_at FROM api_key",
        [],
        |row| {
            let id: ApiKeyId = rows::id(row, 0)?;
            if let Some(used_at) = row.get::<_, Option<i64>>(2)? {
                loaded
                    .api_key_uses
                    .push((id, Timestamp::from_millis(used_at)));
            }
            Ok(from_document("api_key", &id, row.get_ref(1)?.as_str()?))
        },
    )?;
    loaded.apps = collect(
        connection,
        STEP,
        "SELECT id, document FROM app",
        [],
        |row| {
            let id: String = row.get(0)?;
            Ok(from_document("app", &id, row.get_ref(1)?.as_str()?))
        },
    )?;
    let sql = "SELECT id, document, number, workspace, receiver FROM endpoint";
    loaded.endpoints = collect(connection, STEP, sql, [], |row| {
        let id: EndpointId = rows::id(row, 0)?;
        let Some(workspace) = numbers.workspace_of(row.get(3)?) else {
            return Ok(Err(impossible(
                "endpoint",
                "workspace",
                &id,
                "no such workspace",
            )));
        };
        known.push(NewNumber::Endpoint(workspace, id, row.get(2)?));
        if let Some(receiver) = row.get::<_, Option<String>>(4)? {
            match from_document("endpoint", &id, &receiver) {
                Ok(receiver) => loaded.receivers.push((workspace, id, receiver)),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(from_document("endpoint", &id, row.get_ref(1)?.as_str()?))
    })?;
    loaded.keyrings = collect(
        connection,
        STEP,
        "SELECT id, document FROM keyring",
        [],
        |row| {
            let id: KeyringId = rows::id(row, 0)?;
            let keyring = from_document::<Keyring>("keyring", &id, row.get_ref(1)?.as_str()?);
            Ok(keyring.and_then(|keyring| match keyring.check() {
                Ok(()) => Ok(keyring),
                Err(error) => Err(impossible("keyring", "document", &id, error)),
            }))
        },
    )?;
    loaded.secrets = collect(
        connection,
        STEP,
        "SELECT workspace, keyring, id, version, sealed FROM secret",
        [],
        |row| {
            let secret = rows::id(row, 2)?;
            let Some(workspace) = numbers.workspace_of(row.get(0)?) else {
                return Ok(Err(impossible(
                    "secret",
                    "workspace",
                    &secret,
                    "no such workspace",
                )));
            };
            let sealed = Arc::from(row.get::<_, Vec<u8>>(4)?);
            Ok(Ok(SealedSecret {
                workspace,
                keyring: rows::id(row, 1)?,
                secret,
                version: rows::count(row, 3)?,
                sealed,
            }))
        },
    )?;
    collect(
        connection,
        STEP,
        "SELECT number, workspace, name FROM event_type",
        [],
        |row| {
            let number: i64 = row.get(0)?;
            match hookturn_core::message::EventType::new(row.get_ref(2)?.as_str()?) {
                Ok(name) => known.push(NewNumber::EventType(row.get(1)?, name, number)),
                Err(error) => return Ok(Err(impossible("event_type", "name", &number, error))),
            }
            Ok(Ok(()))
        },
    )?;
    numbers.publish(&known);
    Ok(loaded)
}

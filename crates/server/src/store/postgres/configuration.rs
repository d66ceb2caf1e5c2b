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
use tokio_postgres::Row;

use super::connect::Session;
use super::ledger::{append_audit, begin_audit, erase_answers_showing, put_idempotent_answer};
use super::planned;
use super::requeue::requeue;
use super::rows::{Outcome, collect, column, execute, first, id, uuid};
use super::transaction::Tx;
use super::{bulks, marks};
use crate::store::encoding::{as_i64, from_document, to_document};
use crate::store::sharing::keys::keys_of;

pub(super) const STEP: &str = "change the configuration";

// ----- changes -----

pub(super) async fn change(tx: &mut Tx<'_>, change: &Change) -> Outcome<()> {
    if let Some(record) = &change.idempotency {
        put_idempotent_answer(tx.session, record, change.at).await?;
    }
    for write in &change.writes {
        apply_write(tx, write).await?;
    }
    append_audit(
        tx,
        change.workspace,
        &change.context,
        &change.audit,
        change.at,
    )
    .await?;
    tx.effects.keys.extend(keys_of(change));
    tx.effects.writes.extend(change.writes.iter().cloned());
    Ok(())
}

async fn apply_write(tx: &mut Tx<'_>, write: &Write) -> Outcome<()> {
    let session = tx.session;
    match write {
        Write::Workspace(workspace) => put_workspace(session, workspace).await,
        Write::ApiKey(key) => put_api_key(session, key).await,
        Write::App(app) => put_app(session, app).await,
        Write::RemoveApp {
            workspace,
            app,
            version,
        } => remove_app(session, *workspace, *app, *version).await,
        Write::Endpoint(endpoint) => put_endpoint(tx, endpoint).await,
        Write::Keyring(keyring) => put_keyring(session, keyring).await,
        Write::Rotation(rotation) => put_rotation(session, rotation).await,
        Write::Secret(secret) => keep_secret(session, secret).await,
        Write::Mark(marked) => marks::keep_mark(session, marked).await,
        Write::MarkKey { sealed, old } => marks::keep_key(session, sealed, old.as_deref()).await,
        Write::Bulk(bulk) => bulks::put_bulk(session, bulk).await,
        Write::BulkItem(item) => bulks::put_item(session, item).await,
        Write::Findings {
            workspace,
            endpoint,
            findings,
        } => keep_findings(session, *workspace, *endpoint, findings).await,
        Write::Noted {
            workspace,
            keyring,
            noted,
        } => planned::keep_noted(session, *workspace, *keyring, noted).await,
        Write::Reported {
            workspace,
            after,
            through,
            messages,
        } => planned::report(tx, *workspace, (*after, *through), messages).await,
        Write::Schedule(schedule) => planned::put_schedule(session, schedule).await,
        Write::RemoveSchedule {
            workspace,
            schedule,
            version,
        } => planned::remove_schedule(session, *workspace, *schedule, *version).await,
        Write::ScheduleNote {
            workspace,
            schedule,
            keyring,
            note,
        } => planned::keep_schedule_note(session, *workspace, (*schedule, *keyring), note).await,
        Write::EraseSecret {
            workspace,
            keyring,
            secret,
            answers,
        } => erase_secret(session, *workspace, *keyring, *secret, *answers).await,
        Write::Requeue { delivery, at } => requeue(tx, delivery, *at).await,
    }
}

async fn keep_findings(
    session: &Session,
    workspace: WorkspaceId,
    endpoint: EndpointId,
    findings: &Findings,
) -> Outcome<()> {
    let document = to_document("findings", findings)?;
    let (workspace, endpoint) = (uuid(workspace.to_bytes()), uuid(endpoint.to_bytes()));
    let sql = "INSERT INTO findings (workspace, endpoint, document)
        SELECT workspace, id, $3 FROM endpoint WHERE workspace = $1 AND id = $2 AND deleted_at IS NULL
        ON CONFLICT (workspace, endpoint) DO UPDATE SET document = excluded.document";
    execute(session, STEP, sql, &[&workspace, &endpoint, &document])
        .await
        .map(drop)
}

async fn put_workspace(session: &Session, workspace: &Workspace) -> Outcome<()> {
    let id = uuid(workspace.id.to_bytes());
    let document = to_document("workspace", workspace)?;
    let version = as_i64(workspace.version);
    let sql = if workspace.version == 1 {
        "INSERT INTO workspace (workspace, version, document) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE workspace SET version = $2, document = $3 WHERE workspace = $1 AND version = $2::bigint - 1"
    };
    let changed = execute(session, STEP, sql, &[&id, &version, &document]).await?;
    swapped(changed, "workspace", &workspace.id)?;
    let sql = "DELETE FROM workspace_name WHERE workspace = $1 AND name <> $2";
    if workspace.version > 1 {
        execute(session, STEP, sql, &[&id, &workspace.name]).await?;
    }
    let taken = StoreError::Duplicate {
        what: format!("a workspace named {}", workspace.name),
    };
    let sql = "INSERT INTO workspace_name (name, workspace) VALUES ($1, $2)
        ON CONFLICT (name) DO UPDATE SET workspace = excluded.workspace
        WHERE workspace_name.workspace = excluded.workspace";
    if execute(session, STEP, sql, &[&workspace.name, &id]).await? == 0 {
        return Err(taken);
    }
    if workspace.version == 1 {
        begin_audit(session, workspace.id).await?;
    }
    Ok(())
}

async fn put_api_key(session: &Session, key: &ApiKey) -> Outcome<()> {
    let id = uuid(key.id.to_bytes());
    let document = to_document("api_key", key)?;
    let (hash, version) = (&key.hash[..], as_i64(key.version));
    let sql = if key.version == 1 {
        "INSERT INTO api_key (id, hash, version, document) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE api_key SET hash = $2, version = $3, document = $4 WHERE id = $1 AND version = $3::bigint - 1"
    };
    let changed = execute(session, STEP, sql, &[&id, &hash, &version, &document]).await?;
    swapped(changed, "API key", &key.id)?;
    if key.version > 1 {
        let sql = "DELETE FROM api_key_hash WHERE api_key = $1 AND hash <> $2";
        execute(session, STEP, sql, &[&id, &hash]).await?;
    }
    let sql = "INSERT INTO api_key_hash (hash, api_key) VALUES ($1, $2)
        ON CONFLICT (hash) DO UPDATE SET api_key = excluded.api_key
        WHERE api_key_hash.api_key = excluded.api_key";
    match execute(session, STEP, sql, &[&hash, &id]).await? {
        0 => Err(StoreError::Duplicate {
            what: "an API key with this text".to_owned(),
        }),
        _ => Ok(()),
    }
}

async fn put_app(session: &Session, app: &App) -> Outcome<()> {
    let workspace = uuid(app.workspace.to_bytes());
    let document = to_document("app", app)?;
    let sql = if app.version == 1 {
        "INSERT INTO app (workspace, id, version, document) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE app SET version = $3, document = $4 WHERE workspace = $1 AND id = $2 AND version = $3::bigint - 1"
    };
    let (name, version) = (app.id.as_str(), as_i64(app.version));
    let changed = execute(
        session,
        STEP,
        sql,
        &[&workspace, &name, &version, &document],
    )
    .await?;
    swapped(changed, "app", &app.id)
}

async fn remove_app(
    session: &Session,
    workspace: WorkspaceId,
    app: ClientId,
    version: u64,
) -> Outcome<()> {
    let workspace = uuid(workspace.to_bytes());
    let sql = "DELETE FROM app WHERE workspace = $1 AND id = $2 AND version = $3";
    let values = (app.as_str(), as_i64(version));
    let changed = execute(session, STEP, sql, &[&workspace, &values.0, &values.1]).await?;
    swapped(changed, "app", &app)
}

async fn put_endpoint(tx: &Tx<'_>, endpoint: &Endpoint) -> Outcome<()> {
    let session = tx.session;
    let (workspace, id) = (
        uuid(endpoint.workspace.to_bytes()),
        uuid(endpoint.id.to_bytes()),
    );
    let document = to_document("endpoint", endpoint)?;
    let deleted_at = match endpoint.state {
        EndpointState::Deleted { since } => Some(since.as_millis()),
        EndpointState::Enabled | EndpointState::Paused { .. } | EndpointState::Disabled { .. } => {
            None
        }
    };
    let (app, version) = (endpoint.app.as_str(), as_i64(endpoint.version));
    let sql = if endpoint.version == 1 {
        "INSERT INTO endpoint (workspace, app, id, version, document, deleted_at)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE endpoint SET version = $4, document = $5, deleted_at = $6
         WHERE workspace = $1 AND app = $2 AND id = $3 AND version = $4::bigint - 1"
    };
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&workspace, &app, &id, &version, &document, &deleted_at];
    let changed = execute(session, STEP, sql, &values).await?;
    swapped(changed, "endpoint", &endpoint.id)?;
    if endpoint.ordered && endpoint.version > 1 && !tx.is_ordered(endpoint.id) {
        put_in_order(session, endpoint).await?;
    }
    Ok(())
}

/// Puts what waits for its retry where it was accepted, so that nothing which was accepted since passes it. An
/// endpoint that kept the order before has every row in its place, and one may be on its way.
async fn put_in_order(session: &Session, endpoint: &Endpoint) -> Outcome<()> {
    let sql = "UPDATE due SET due_at = message.accepted_at FROM message
               WHERE due.workspace = $1 AND due.endpoint = $2 AND due.due_at > $3
                 AND message.workspace = due.workspace AND message.app = due.app AND message.id = due.message";
    let (workspace, id) = (
        uuid(endpoint.workspace.to_bytes()),
        uuid(endpoint.id.to_bytes()),
    );
    let now = endpoint.updated_at.as_millis();
    execute(session, STEP, sql, &[&workspace, &id, &now])
        .await
        .map(drop)
}

async fn put_keyring(session: &Session, keyring: &Keyring) -> Outcome<()> {
    let (workspace, id) = (
        uuid(keyring.workspace.to_bytes()),
        uuid(keyring.id.to_bytes()),
    );
    let document = to_document("keyring", keyring)?;
    let version = as_i64(keyring.version);
    let sql = if keyring.version == 1 {
        "INSERT INTO keyring (workspace, id, version, document) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE keyring SET version = $3, document = $4 WHERE workspace = $1 AND id = $2 AND version = $3::bigint - 1"
    };
    let changed = execute(session, STEP, sql, &[&workspace, &id, &version, &document]).await?;
    swapped(changed, "keyring", &keyring.id)
}

async fn put_rotation(session: &Session, rotation: &Rotation) -> Outcome<()> {
    let workspace = uuid(rotation.workspace.to_bytes());
    let (id, keyring) = (
        uuid(rotation.id.to_bytes()),
        uuid(rotation.keyring.to_bytes()),
    );
    let document = to_document("rotation", rotation)?;
    let sql = "INSERT INTO rotation (workspace, id, keyring, document) VALUES ($1, $2, $3, $4)
               ON CONFLICT (workspace, id) DO UPDATE SET document = excluded.document";
    execute(session, STEP, sql, &[&workspace, &id, &keyring, &document])
        .await
        .map(drop)
}

async fn keep_secret(session: &Session, secret: &SealedSecret) -> Outcome<()> {
    let workspace = uuid(secret.workspace.to_bytes());
    let (keyring, id) = (
        uuid(secret.keyring.to_bytes()),
        uuid(secret.secret.to_bytes()),
    );
    let version = i64::from(secret.version);
    let sql =
        "INSERT INTO secret (workspace, keyring, id, version, sealed) VALUES ($1, $2, $3, $4, $5)
               ON CONFLICT DO NOTHING";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&workspace, &keyring, &id, &version, &&secret.sealed[..]];
    match execute(session, STEP, sql, &values).await? {
        0 => Err(StoreError::Duplicate {
            what: format!("secret {}", secret.secret),
        }),
        _ => marks::expect_mark(session, secret).await,
    }
}

/// What is erased is gone from every answer of the database at once, and from its files when it is next
/// vacuumed there.
async fn erase_secret(
    session: &Session,
    workspace: WorkspaceId,
    keyring: KeyringId,
    secret: SecretId,
    answers: bool,
) -> Outcome<()> {
    let key = (
        uuid(workspace.to_bytes()),
        uuid(keyring.to_bytes()),
        uuid(secret.to_bytes()),
    );
    let sql = "DELETE FROM secret WHERE workspace = $1 AND keyring = $2 AND id = $3";
    execute(session, STEP, sql, &[&key.0, &key.1, &key.2]).await?;
    if answers {
        erase_answers_showing(session, secret).await?;
    }
    marks::expect_none(session, workspace, keyring, secret).await
}

pub(super) fn swapped(changed: u64, kind: &str, id: &dyn std::fmt::Display) -> Outcome<()> {
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict {
            what: format!("{kind} {id}"),
        })
    }
}

// ----- rotations -----

pub(super) async fn rotation(
    session: &Session,
    workspace: WorkspaceId,
    id: RotationId,
) -> Outcome<Option<Rotation>> {
    let key = (uuid(workspace.to_bytes()), uuid(id.to_bytes()));
    let sql = "SELECT document FROM rotation WHERE workspace = $1 AND id = $2";
    let found = first(session, "read a rotation", sql, &[&key.0, &key.1]).await?;
    found
        .map(|row| from_document("rotation", &id, column(&row, 0)?))
        .transpose()
}

pub(super) async fn rotations(
    session: &Session,
    workspace: WorkspaceId,
    keyring: Option<KeyringId>,
    page: Page<RotationId>,
) -> Outcome<Vec<Rotation>> {
    const STEP: &str = "list rotations";
    let workspace = uuid(workspace.to_bytes());
    let before = uuid(page.before.map_or([0xff; 16], RotationId::to_bytes));
    let limit = as_i64(page.limit as u64);
    let read = |row: &Row| {
        let rotation: RotationId = id(row, 0)?;
        from_document("rotation", &rotation, column(row, 1)?)
    };
    if let Some(keyring) = keyring {
        let keyring = uuid(keyring.to_bytes());
        let sql =
            "SELECT id, document FROM rotation WHERE workspace = $1 AND keyring = $2 AND id < $3
                   ORDER BY id DESC LIMIT $4";
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&workspace, &keyring, &before, &limit];
        return collect(session, STEP, sql, &values, read).await;
    }
    let sql = "SELECT id, document FROM rotation WHERE workspace = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
    collect(session, STEP, sql, &[&workspace, &before, &limit], read).await
}

// ----- sealed values, keys, meta -----

pub(super) async fn reseal(tx: &mut Tx<'_>, swaps: &[(SealedSecret, Arc<[u8]>)]) -> Outcome<usize> {
    let mut replaced = 0;
    for (fresh, old) in swaps {
        let key = (
            uuid(fresh.workspace.to_bytes()),
            uuid(fresh.keyring.to_bytes()),
            uuid(fresh.secret.to_bytes()),
        );
        let sql = "UPDATE secret SET sealed = $4
                   WHERE workspace = $1 AND keyring = $2 AND id = $3 AND sealed = $5";
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&key.0, &key.1, &key.2, &&fresh.sealed[..], &&old[..]];
        if execute(tx.session, "re-seal a secret", sql, &values).await? == 1 {
            replaced += 1;
            tx.effects.reseals.push((fresh.clone(), Arc::clone(old)));
        }
    }
    Ok(replaced)
}

pub(super) async fn touch_api_keys(
    session: &Session,
    uses: &[(ApiKeyId, Timestamp)],
) -> Outcome<()> {
    for (key, used_at) in uses {
        let (key, used_at) = (uuid(key.to_bytes()), used_at.as_millis());
        let sql = "UPDATE api_key SET last_used_at = greatest(last_used_at, $2) WHERE id = $1";
        execute(session, "note the use of a key", sql, &[&key, &used_at]).await?;
    }
    Ok(())
}

pub(super) async fn meta(session: &Session, key: &str) -> Outcome<Option<Vec<u8>>> {
    let sql = "SELECT value FROM meta WHERE key = $1";
    let found = first(session, "read a setting", sql, &[&key]).await?;
    found.map(|row| column(&row, 0)).transpose()
}

pub(super) async fn put_meta(session: &Session, key: &str, value: &[u8]) -> Outcome<()> {
    let sql = "INSERT INTO meta (key, value) VALUES ($1, $2)
               ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    execute(session, "keep a setting", sql, &[&key, &value])
        .await
        .map(drop)
}

pub(super) async fn put_first_meta(session: &Session, key: &str, value: &[u8]) -> Outcome<()> {
    let sql = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING";
    execute(session, "keep a setting", sql, &[&key, &value])
        .await
        .map(drop)
}

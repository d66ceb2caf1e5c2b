//! Loading: everything configured, as of one commit, read once at the start. What changes later is followed by
//! [`view`](super::view).

use std::sync::Arc;

use hookturn_core::id::{ApiKeyId, EndpointId, KeyringId, WorkspaceId};
use hookturn_core::rotation::Keyring;
use hookturn_core::store::{Configuration, SealedSecret};
use tokio_postgres::Row;

use super::connect::Session;
use super::rows::{Outcome, collect, column, first, id, rows, run, time};
use super::{bulks, marks, planned};
use crate::store::encoding::{from_document, impossible};

pub(super) const STEP: &str = "load the configuration";

/// Reads everything configured.
pub(super) async fn load(session: &Session) -> Outcome<Configuration> {
    load_as_of(session).await.map(|(loaded, _)| loaded)
}

/// The same, with the version of the view that it is as of.
pub(super) async fn load_as_of(session: &Session) -> Outcome<(Configuration, i64)> {
    let begin = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
    run(session, STEP, begin).await?;
    let loaded = read_as_of(session).await;
    run(session, STEP, "COMMIT").await?;
    loaded
}

async fn read_as_of(session: &Session) -> Outcome<(Configuration, i64)> {
    let loaded = read_all(session).await?;
    let sql = "SELECT version FROM view_head";
    let head = first(session, STEP, sql, &[]).await?;
    Ok((loaded, head.map_or(Ok(0), |row| column(&row, 0))?))
}

async fn read_all(session: &Session) -> Outcome<Configuration> {
    let mut loaded = Configuration::default();
    let read = |row: &Row| {
        let workspace: WorkspaceId = id(row, 0)?;
        from_document("workspace", &workspace, column(row, 1)?)
    };
    let sql = "SELECT workspace, document FROM workspace ORDER BY workspace";
    loaded.workspaces = collect(session, STEP, sql, &[], read).await?;
    let read = |row: &Row| {
        let name: &str = column(row, 0)?;
        from_document("app", &name, column(row, 1)?)
    };
    let sql = "SELECT id, document FROM app";
    loaded.apps = collect(session, STEP, sql, &[], read).await?;
    loaded.keyrings = keyrings(session).await?;
    loaded.secrets = secrets(session).await?;
    api_keys(session, &mut loaded).await?;
    endpoints(session, &mut loaded).await?;
    let read = |row: &Row| {
        let endpoint: EndpointId = id(row, 0)?;
        let found = from_document("findings", &endpoint, column(row, 1)?)?;
        Ok((endpoint, found))
    };
    let sql = "SELECT endpoint, document FROM findings";
    loaded.findings = collect(session, STEP, sql, &[], read).await?;
    loaded.bulks = bulks::load_open(session).await?;
    loaded.mark_key = marks::load_key(session).await?.map(Arc::from);
    planned::load(session, &mut loaded).await?;
    Ok(loaded)
}

async fn keyrings(session: &Session) -> Outcome<Vec<Keyring>> {
    let read = |row: &Row| {
        let keyring: KeyringId = id(row, 0)?;
        let known = from_document::<Keyring>("keyring", &keyring, column(row, 1)?)?;
        match known.check() {
            Ok(()) => Ok(known),
            Err(error) => Err(impossible("keyring", "document", &keyring, error)),
        }
    };
    let sql = "SELECT id, document FROM keyring";
    collect(session, STEP, sql, &[], read).await
}

async fn secrets(session: &Session) -> Outcome<Vec<SealedSecret>> {
    let read = |row: &Row| {
        let secret = id(row, 2)?;
        let version: i64 = column(row, 3)?;
        let version = u32::try_from(version)
            .map_err(|error| impossible("secret", "version", &secret, error))?;
        Ok(SealedSecret {
            workspace: id(row, 0)?,
            keyring: id(row, 1)?,
            secret,
            version,
            sealed: Arc::from(column::<&[u8]>(row, 4)?),
        })
    };
    let sql = "SELECT workspace, keyring, id, version, sealed FROM secret";
    collect(session, STEP, sql, &[], read).await
}

async fn api_keys(session: &Session, loaded: &mut Configuration) -> Outcome<()> {
    let sql = "SELECT id, document, last_used_at FROM api_key";
    for row in rows(session, STEP, sql, &[]).await? {
        let key: ApiKeyId = id(&row, 0)?;
        if column::<Option<i64>>(&row, 2)?.is_some() {
            loaded.api_key_uses.push((key, time(&row, 2)?));
        }
        let document = from_document("api_key", &key, column(&row, 1)?)?;
        loaded.api_keys.push(document);
    }
    Ok(())
}

async fn endpoints(session: &Session, loaded: &mut Configuration) -> Outcome<()> {
    let sql = "SELECT id, workspace, document, receiver FROM endpoint";
    for row in rows(session, STEP, sql, &[]).await? {
        let endpoint: EndpointId = id(&row, 0)?;
        if let Some(receiver) = column::<Option<&str>>(&row, 3)? {
            let receiver = from_document("endpoint", &endpoint, receiver)?;
            loaded.receivers.push((id(&row, 1)?, endpoint, receiver));
        }
        let document = from_document("endpoint", &endpoint, column(&row, 2)?)?;
        loaded.endpoints.push(document);
    }
    Ok(())
}

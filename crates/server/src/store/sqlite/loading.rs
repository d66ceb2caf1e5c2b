//! Loading: everything configured, read once at the start, with the small numbers of its rows.

use std::sync::Arc;

use hookturn_core::id::{ApiKeyId, EndpointId, KeyringId, WorkspaceId};
use hookturn_core::message::EventType;
use hookturn_core::proof::Findings;
use hookturn_core::rotation::Keyring;
use hookturn_core::store::{Configuration, SealedSecret, StoreError};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{App, Workspace};
use rusqlite::{Connection, Row};

use super::configuration::collect;
use super::planned;
use super::rows::{self, NewNumber, Numbers, from_document, impossible};
use super::{bulks, marks};

type Outcome<T> = Result<T, StoreError>;

pub(super) const STEP: &str = "load the configuration";

/// Reads everything configured, and publishes the numbers of workspaces, endpoints and event types.
pub(super) fn load(connection: &Connection, numbers: &Numbers) -> Outcome<Configuration> {
    let mut loaded = Configuration {
        // First, because the others refer to a workspace by its number.
        workspaces: workspaces(connection, numbers)?,
        apps: apps(connection)?,
        keyrings: keyrings(connection)?,
        secrets: secrets(connection, numbers)?,
        ..Configuration::default()
    };
    api_keys(connection, &mut loaded)?;
    endpoints(connection, numbers, &mut loaded)?;
    loaded.findings = findings(connection)?;
    loaded.bulks = bulks::load_open(connection)?;
    loaded.mark_key = marks::load_key(connection)?.map(Arc::from);
    planned::load(connection, numbers, &mut loaded)?;
    event_types(connection, numbers)?;
    Ok(loaded)
}

fn workspaces(connection: &Connection, numbers: &Numbers) -> Outcome<Vec<Workspace>> {
    let mut known = Vec::new();
    let sql = "SELECT id, document, number FROM workspace";
    let workspaces = collect(connection, STEP, sql, [], |row| {
        let id: WorkspaceId = rows::id(row, 0)?;
        known.push(NewNumber::Workspace(id, row.get(2)?));
        Ok(from_document("workspace", &id, row.get_ref(1)?.as_str()?))
    })?;
    numbers.publish(&known);
    Ok(workspaces)
}

fn api_keys(connection: &Connection, loaded: &mut Configuration) -> Outcome<()> {
    let sql = "SELECT id, document, last_used_at FROM api_key";
    loaded.api_keys = collect(connection, STEP, sql, [], |row| {
        let id: ApiKeyId = rows::id(row, 0)?;
        if let Some(used_at) = row.get::<_, Option<i64>>(2)? {
            let used_at = Timestamp::from_millis(used_at);
            loaded.api_key_uses.push((id, used_at));
        }
        Ok(from_document("api_key", &id, row.get_ref(1)?.as_str()?))
    })?;
    Ok(())
}

fn apps(connection: &Connection) -> Outcome<Vec<App>> {
    let sql = "SELECT id, document FROM app";
    collect(connection, STEP, sql, [], |row| {
        let id: String = row.get(0)?;
        Ok(from_document("app", &id, row.get_ref(1)?.as_str()?))
    })
}

fn endpoints(
    connection: &Connection,
    numbers: &Numbers,
    loaded: &mut Configuration,
) -> Outcome<()> {
    let mut known = Vec::new();
    let sql = "SELECT id, document, number, workspace, receiver FROM endpoint";
    loaded.endpoints = collect(connection, STEP, sql, [], |row| {
        let id: EndpointId = rows::id(row, 0)?;
        let workspace = match owner(numbers, "endpoint", &id, row.get(3)?) {
            Ok(workspace) => workspace,
            Err(error) => return Ok(Err(error)),
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
    numbers.publish(&known);
    Ok(())
}

fn findings(connection: &Connection) -> Outcome<Vec<(EndpointId, Findings)>> {
    let sql = "SELECT endpoint.id, findings.document FROM findings
        JOIN endpoint ON endpoint.number = findings.endpoint";
    collect(connection, STEP, sql, [], |row| {
        let id: EndpointId = rows::id(row, 0)?;
        let document = row.get_ref(1)?.as_str()?;
        Ok(from_document("findings", &id, document).map(|found| (id, found)))
    })
}

fn keyrings(connection: &Connection) -> Outcome<Vec<Keyring>> {
    let sql = "SELECT id, document FROM keyring";
    collect(connection, STEP, sql, [], |row| {
        let id: KeyringId = rows::id(row, 0)?;
        let keyring = from_document::<Keyring>("keyring", &id, row.get_ref(1)?.as_str()?);
        Ok(keyring.and_then(|keyring| match keyring.check() {
            Ok(()) => Ok(keyring),
            Err(error) => Err(impossible("keyring", "document", &id, error)),
        }))
    })
}

fn secrets(connection: &Connection, numbers: &Numbers) -> Outcome<Vec<SealedSecret>> {
    let sql = "SELECT workspace, keyring, id, version, sealed FROM secret";
    let read = |row: &Row<'_>| {
        let secret = rows::id(row, 2)?;
        let (keyring, version) = (rows::id(row, 1)?, rows::count(row, 3)?);
        let sealed = Arc::from(row.get::<_, Vec<u8>>(4)?);
        let workspace = owner(numbers, "secret", &secret, row.get(0)?);
        Ok(workspace.map(|workspace| SealedSecret {
            workspace,
            keyring,
            secret,
            version,
            sealed,
        }))
    };
    collect(connection, STEP, sql, [], read)
}

fn event_types(connection: &Connection, numbers: &Numbers) -> Outcome<()> {
    let sql = "SELECT number, workspace, name FROM event_type";
    let known = collect(connection, STEP, sql, [], |row| {
        let (number, workspace): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(match EventType::new(row.get_ref(2)?.as_str()?) {
            Ok(name) => Ok(NewNumber::EventType(workspace, name, number)),
            Err(error) => Err(impossible("event_type", "name", &number, error)),
        })
    })?;
    numbers.publish(&known);
    Ok(())
}

/// The workspace of a number in the row `id` of `table`.
pub(super) fn owner(
    numbers: &Numbers,
    table: &'static str,
    id: &dyn std::fmt::Display,
    number: i64,
) -> Outcome<WorkspaceId> {
    numbers
        .workspace_of(number)
        .ok_or_else(|| impossible(table, "workspace", id, "no such workspace"))
}

//! The things that every node holds in memory, by kind and name.

use hookturn_core::id::WorkspaceId;
use hookturn_core::store::{Change, SealedSecret, Write};
use uuid::Uuid;

use crate::store::encoding::{IdColumn, impossible};
use crate::store::postgres::rows::{Outcome, uuid};

/// One thing that every node holds in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::store::postgres) struct Key {
    pub(super) kind: &'static str,
    pub(super) workspace: WorkspaceId,
    /// What it is found by within its workspace: its id, or two with a colon in between.
    pub(super) name: String,
}

/// The kinds of things, as they are written in `view_change`.
pub(super) mod kind {
    pub(in super::super) const WORKSPACE: &str = "workspace";
    pub(in super::super) const API_KEY: &str = "api_key";
    pub(in super::super) const APP: &str = "app";
    pub(in super::super) const ENDPOINT: &str = "endpoint";
    pub(in super::super) const KEYRING: &str = "keyring";
    pub(in super::super) const SECRET: &str = "secret";
    pub(in super::super) const BULK: &str = "bulk";
    pub(in super::super) const MARK_KEY: &str = "mark_key";
    pub(in super::super) const FINDINGS: &str = "findings";
    pub(in super::super) const NOTED: &str = "noted";
    pub(in super::super) const REPORTED: &str = "reported";
    pub(in super::super) const SCHEDULE: &str = "schedule";
    pub(in super::super) const SCHEDULE_NOTE: &str = "schedule_note";
    pub(in super::super) const MASTER_KEY: &str = "master_key";

    pub(in super::super) const ALL: [&str; 14] = [
        WORKSPACE,
        API_KEY,
        APP,
        ENDPOINT,
        KEYRING,
        SECRET,
        BULK,
        MARK_KEY,
        FINDINGS,
        NOTED,
        REPORTED,
        SCHEDULE,
        SCHEDULE_NOTE,
        MASTER_KEY,
    ];
    /// Every decision rests on these: a workspace may be any name's, and anything may have been sealed.
    pub(in super::super) const RESTED_ON_BY_ALL: [&str; 2] = [WORKSPACE, MASTER_KEY];
    /// A decision may rest on these without writing them.
    pub(in super::super) const RESTED_ON: [&str; 5] = [APP, ENDPOINT, KEYRING, SCHEDULE, BULK];
}

/// What a write changes of what every node holds in memory; nothing for what only the database has. `of` is the
/// workspace of the change, for what has none.
fn key_of(write: &Write, of: WorkspaceId) -> Option<Key> {
    let text = |bytes: [u8; 16]| uuid(bytes).to_string();
    let (kind, workspace, name) = match write {
        Write::Workspace(known) => (kind::WORKSPACE, known.id, String::new()),
        Write::ApiKey(key) => (kind::API_KEY, of, text(key.id.to_bytes())),
        Write::App(app) => (kind::APP, app.workspace, app.id.to_string()),
        Write::RemoveApp { workspace, app, .. } => (kind::APP, *workspace, app.to_string()),
        Write::Endpoint(known) => (kind::ENDPOINT, known.workspace, text(known.id.to_bytes())),
        Write::Keyring(known) => (kind::KEYRING, known.workspace, text(known.id.to_bytes())),
        Write::Secret(secret) => return Some(secret_key(secret)),
        Write::EraseSecret {
            workspace,
            keyring,
            secret,
            ..
        } => {
            let name = format!("{}:{}", text(keyring.to_bytes()), text(secret.to_bytes()));
            (kind::SECRET, *workspace, name)
        }
        Write::Bulk(bulk) => (kind::BULK, bulk.workspace, text(bulk.id.to_bytes())),
        Write::MarkKey { .. } => (kind::MARK_KEY, of, String::new()),
        Write::Findings {
            workspace,
            endpoint,
            ..
        } => (kind::FINDINGS, *workspace, text(endpoint.to_bytes())),
        Write::Noted {
            workspace, keyring, ..
        } => (kind::NOTED, *workspace, text(keyring.to_bytes())),
        Write::Reported { workspace, .. } => (kind::REPORTED, *workspace, String::new()),
        Write::Schedule(known) => (kind::SCHEDULE, known.workspace, text(known.id.to_bytes())),
        Write::RemoveSchedule {
            workspace,
            schedule,
            ..
        } => (kind::SCHEDULE, *workspace, text(schedule.to_bytes())),
        Write::ScheduleNote {
            workspace,
            schedule,
            keyring,
            ..
        } => {
            let name = format!("{}:{}", text(schedule.to_bytes()), text(keyring.to_bytes()));
            (kind::SCHEDULE_NOTE, *workspace, name)
        }
        Write::Rotation(_) | Write::Mark(_) | Write::BulkItem(_) | Write::Requeue { .. } => {
            return None;
        }
    };
    Some(Key {
        kind,
        workspace,
        name,
    })
}

/// The sealed value of a secret.
pub(in crate::store::postgres) fn secret_key(secret: &SealedSecret) -> Key {
    let (keyring, id) = (
        uuid(secret.keyring.to_bytes()),
        uuid(secret.secret.to_bytes()),
    );
    Key {
        kind: kind::SECRET,
        workspace: secret.workspace,
        name: format!("{keyring}:{id}"),
    }
}

/// Which master key is current.
pub(in crate::store::postgres) fn master_key() -> Key {
    Key {
        kind: kind::MASTER_KEY,
        workspace: WorkspaceId::from_bytes([0; 16]),
        name: String::new(),
    }
}

/// Everything that a change changes of what every node holds in memory.
pub(in crate::store::postgres) fn keys_of(change: &Change) -> impl Iterator<Item = Key> {
    let of = change.workspace;
    change
        .writes
        .iter()
        .filter_map(move |write| key_of(write, of))
}

impl Key {
    /// The id that is the whole name, or a part of it.
    pub(super) fn id<T: IdColumn>(&self, part: usize) -> Outcome<T> {
        let text = self.name.split(':').nth(part).unwrap_or_default();
        let id = Uuid::parse_str(text);
        let id = id.map_err(|error| impossible("view_change", "names", &self.name, error))?;
        Ok(T::from_column(id.into_bytes()))
    }
}

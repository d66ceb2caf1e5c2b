//! The things that every node holds in memory, by kind and name: what a change tells the other nodes to read anew.

use hookturn_core::id::WorkspaceId;
use hookturn_core::store::{Change, SealedSecret, StoreError, Write};
use uuid::Uuid;

use crate::store::encoding::{IdColumn, impossible};

const fn uuid(bytes: [u8; 16]) -> Uuid {
    Uuid::from_bytes(bytes)
}

/// One thing that every node holds in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// One of [`kind::ALL`].
    pub kind: &'static str,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// What it is found by within its workspace: its id, or two with a colon in between.
    pub name: String,
}

/// The kinds of things, as they are written in `view_change`.
#[expect(missing_docs, reason = "each is named as it is written")]
pub mod kind {
    pub const WORKSPACE: &str = "workspace";
    pub const API_KEY: &str = "api_key";
    pub const APP: &str = "app";
    pub const ENDPOINT: &str = "endpoint";
    pub const KEYRING: &str = "keyring";
    pub const SECRET: &str = "secret";
    pub const BULK: &str = "bulk";
    pub const MARK_KEY: &str = "mark_key";
    pub const FINDINGS: &str = "findings";
    pub const NOTED: &str = "noted";
    pub const REPORTED: &str = "reported";
    pub const SCHEDULE: &str = "schedule";
    pub const SCHEDULE_NOTE: &str = "schedule_note";
    pub const MASTER_KEY: &str = "master_key";

    /// Every one.
    pub const ALL: [&str; 14] = [
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
    pub const RESTED_ON_BY_ALL: [&str; 2] = [WORKSPACE, MASTER_KEY];
    /// Which endpoints a message is for rests on these.
    pub const SENT_BY: [&str; 3] = [WORKSPACE, APP, ENDPOINT];
    /// A decision may rest on these without writing them.
    pub const RESTED_ON: [&str; 5] = [APP, ENDPOINT, KEYRING, SCHEDULE, BULK];
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
pub fn secret_key(secret: &SealedSecret) -> Key {
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
pub fn master_key() -> Key {
    Key {
        kind: kind::MASTER_KEY,
        workspace: WorkspaceId::from_bytes([0; 16]),
        name: String::new(),
    }
}

/// Everything that a change changes of what every node holds in memory.
pub fn keys_of(change: &Change) -> impl Iterator<Item = Key> {
    let of = change.workspace;
    change
        .writes
        .iter()
        .filter_map(move |write| key_of(write, of))
}

impl Key {
    /// The id that is the whole name, or a part of it.
    pub(in crate::store) fn id<T: IdColumn>(&self, part: usize) -> Result<T, StoreError> {
        let text = self.name.split(':').nth(part).unwrap_or_default();
        let id = Uuid::parse_str(text);
        let id = id.map_err(|error| impossible("view_change", "names", &self.name, error))?;
        Ok(T::from_column(id.into_bytes()))
    }
}

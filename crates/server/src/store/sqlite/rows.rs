//! Rows: how columns of this engine are read, beside what every engine writes alike
//! ([`encoding`](crate::store::encoding)).
//!
//! A workspace, an endpoint and an event type have a small number in this database only.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use hookturn_core::id::{ClientId, EndpointId, WorkspaceId};
use hookturn_core::message::EventType;
use hookturn_core::time::Timestamp;
use rusqlite::Row;

pub(super) use crate::store::encoding::{
    IdColumn, as_i64, attempt_from_record, attempt_to_record, from_document, impossible,
    to_document,
};

/// The numbers of committed workspaces, endpoints and event types, both ways.
#[derive(Debug, Default)]
pub(super) struct Numbers(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    workspaces: HashMap<WorkspaceId, i64>,
    workspace_of: HashMap<i64, WorkspaceId>,
    endpoints: HashMap<EndpointId, i64>,
    endpoint_of: HashMap<i64, (WorkspaceId, EndpointId)>,
    event_types: HashMap<i64, HashMap<EventType, i64>>,
    event_type_of: HashMap<i64, EventType>,
}

/// A number that the open transaction gave out.
#[derive(Debug, Clone)]
pub(super) enum NewNumber {
    Workspace(WorkspaceId, i64),
    Endpoint(WorkspaceId, EndpointId, i64),
    EventType(i64, EventType, i64),
}

impl Numbers {
    fn with<T>(&self, read: impl FnOnce(&Known) -> T) -> T {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn publish(&self, fresh: &[NewNumber]) {
        if fresh.is_empty() {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for number in fresh {
            match number {
                NewNumber::Workspace(id, number) => {
                    known.workspaces.insert(*id, *number);
                    known.workspace_of.insert(*number, *id);
                }
                NewNumber::Endpoint(workspace, id, number) => {
                    known.endpoints.insert(*id, *number);
                    known.endpoint_of.insert(*number, (*workspace, *id));
                }
                NewNumber::EventType(workspace, name, number) => {
                    known.event_type_of.insert(*number, name.clone());
                    known
                        .event_types
                        .entry(*workspace)
                        .or_default()
                        .insert(name.clone(), *number);
                }
            }
        }
    }

    /// Takes back what was published for a transaction that was not committed.
    pub(super) fn retract(&self, fresh: &[NewNumber]) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for number in fresh {
            match number {
                NewNumber::Workspace(id, number) => {
                    known.workspaces.remove(id);
                    known.workspace_of.remove(number);
                }
                NewNumber::Endpoint(_, id, number) => {
                    known.endpoints.remove(id);
                    known.endpoint_of.remove(number);
                }
                NewNumber::EventType(workspace, name, number) => {
                    known.event_type_of.remove(number);
                    if let Some(names) = known.event_types.get_mut(workspace) {
                        names.remove(name);
                    }
                }
            }
        }
    }

    /// Forgets an endpoint whose row is gone. Its number is never given out again.
    pub(super) fn forget_endpoint(&self, id: EndpointId) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.endpoints.remove(&id) {
            known.endpoint_of.remove(&number);
        }
    }

    pub(super) fn workspace(&self, id: WorkspaceId) -> Option<i64> {
        self.with(|known| known.workspaces.get(&id).copied())
    }

    pub(super) fn endpoint(&self, id: EndpointId) -> Option<i64> {
        self.with(|known| known.endpoints.get(&id).copied())
    }

    pub(super) fn endpoint_of(&self, number: i64) -> Option<(WorkspaceId, EndpointId)> {
        self.with(|known| known.endpoint_of.get(&number).copied())
    }

    pub(super) fn workspace_of(&self, number: i64) -> Option<WorkspaceId> {
        self.with(|known| known.workspace_of.get(&number).copied())
    }

    pub(super) fn event_type(&self, workspace: i64, name: &EventType) -> Option<i64> {
        self.with(|known| known.event_types.get(&workspace)?.get(name).copied())
    }

    pub(super) fn event_type_of(&self, number: i64) -> Option<EventType> {
        self.with(|known| known.event_type_of.get(&number).cloned())
    }

    pub(super) fn event_types(&self, workspace: i64) -> Vec<EventType> {
        self.with(|known| {
            let of = known.event_types.get(&workspace);
            let mut names: Vec<_> = of.into_iter().flat_map(HashMap::keys).cloned().collect();
            names.sort();
            names
        })
    }
}

fn bad_column(
    index: usize,
    source: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Blob, Box::new(source))
}

pub(super) fn id<T: IdColumn>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    row.get::<_, [u8; 16]>(index).map(T::from_column)
}

pub(super) fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    row.get(index).map(Timestamp::from_millis)
}

pub(super) fn client_id(row: &Row<'_>, index: usize) -> rusqlite::Result<ClientId> {
    row.get_ref(index)?
        .as_str()?
        .parse()
        .map_err(|error| bad_column(index, error))
}

pub(super) fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u32> {
    let number: i64 = row.get(index)?;
    u32::try_from(number).map_err(|error| bad_column(index, error))
}

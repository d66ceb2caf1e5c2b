//! Rows: how values are written into columns and read back, encoder and decoder side by side.
//!
//! - An id is its 16 bytes. A time is its milliseconds. A configured thing is a JSON document.
//! - An attempt is one byte of format, then the postcard encoding of [`Attempt`].
//! - A workspace, an endpoint and an event type have a small number in this file only.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{PoisonError, RwLock};

use hookturn_core::delivery::Attempt;
use hookturn_core::id::{
    ApiKeyId, BulkId, ClientId, DeliveryId, EndpointId, KeyringId, MessageId, RotationId,
    ScheduleId, SecretId, WorkspaceId,
};
use hookturn_core::message::EventType;
use hookturn_core::store::StoreError;
use hookturn_core::time::Timestamp;
use rusqlite::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;

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

/// A column value that is an id.
pub(super) trait IdColumn: Sized {
    fn from_column(bytes: [u8; 16]) -> Self;
}

macro_rules! id_columns {
    ($($id:ty),*) => {$(
        impl IdColumn for $id {
            fn from_column(bytes: [u8; 16]) -> Self {
                Self::from_bytes(bytes)
            }
        }
    )*};
}
id_columns!(
    ApiKeyId,
    BulkId,
    DeliveryId,
    EndpointId,
    KeyringId,
    MessageId,
    RotationId,
    ScheduleId,
    SecretId,
    WorkspaceId
);

/// An impossible row, by table, column and key.
pub(super) fn impossible(
    table: &'static str,
    column: &'static str,
    row: &dyn Display,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::ImpossibleRow {
        table,
        column,
        row: row.to_string(),
        source: source.into(),
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

/// A configured thing as its JSON document.
pub(super) fn to_document<T: Serialize>(
    table: &'static str,
    value: &T,
) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| impossible(table, "document", &"new", error))
}

/// The inverse of [`to_document`].
pub(super) fn from_document<T: DeserializeOwned>(
    table: &'static str,
    row: &dyn Display,
    document: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(document).map_err(|error| impossible(table, "document", row, error))
}

const ATTEMPT_FORMAT: u8 = 1;

/// An attempt as bytes.
pub(super) fn attempt_to_record(attempt: &Attempt) -> Result<Vec<u8>, StoreError> {
    postcard::to_extend(attempt, vec![ATTEMPT_FORMAT])
        .map_err(|error| impossible("attempt", "record", &attempt.number, error))
}

/// The inverse of [`attempt_to_record`].
pub(super) fn attempt_from_record(row: &dyn Display, record: &[u8]) -> Result<Attempt, StoreError> {
    match record.split_first() {
        Some((&ATTEMPT_FORMAT, rest)) => {
            postcard::from_bytes(rest).map_err(|error| impossible("attempt", "record", row, error))
        }
        Some(_) | None => Err(impossible("attempt", "record", row, "an unknown format")),
    }
}

/// Versions and sequence numbers are far below 2⁶³.
pub(super) fn as_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookturn_core::delivery::{
        Answer, Exchange, ExchangeFailure, ExchangeReason, ExchangeResult, SignedWith, Timings,
    };
    use proptest::prelude::*;

    prop_compose! {
        fn any_exchange()(
            answered in any::<bool>(), status in any::<u16>(), body in any::<Vec<u8>>(),
            truncated in any::<bool>(), retry_after_millis in any::<Option<u64>>(),
            reason in prop::sample::select(&ExchangeReason::ALL[..]), keys in prop::collection::vec(any::<([u8; 16], [u8; 4])>(), 0..3),
            timestamp in any::<i64>(), text in ".{0,80}", micros in any::<u32>(),
        ) -> Exchange {
            Exchange {
                reason,
                signed_with: keys.into_iter().map(|(id, print)| SignedWith {
                    secret: SecretId::from_bytes(id), fingerprint: hex::encode(print).parse().unwrap(),
                }).collect(),
                timestamp,
                signature: text.clone(),
                result: if answered {
                    ExchangeResult::Answered(Answer {
                        status, headers: vec![(text.clone(), text)], body, truncated, retry_after_millis,
                    })
                } else {
                    ExchangeResult::Failed(ExchangeFailure { kind: text.clone(), detail: text })
                },
                timings: Timings { dns: micros, total: micros, ..Timings::default() },
            }
        }
    }

    proptest! {
        #[test]
        fn attempts_round_trip(
            number in any::<u32>(), millis in 0_i64..4_000_000_000_000, duration in any::<u32>(),
            exchanges in prop::collection::vec(any_exchange(), 1..3),
        ) {
            let attempt = Attempt {
                number, started_at: Timestamp::from_millis(millis), duration_millis: duration, exchanges,
            };
            let record = attempt_to_record(&attempt).unwrap();
            prop_assert_eq!(attempt_from_record(&"x", &record).unwrap(), attempt);
        }

        #[test]
        fn a_damaged_attempt_is_an_error_and_never_a_panic(record in any::<Vec<u8>>()) {
            let _ = attempt_from_record(&"x", &record);
        }
    }
}

//! Reading everything for a copy into another engine, in the order of keys and in pieces.
//!
//! Nobody else writes meanwhile: whoever copies holds the lock of the database. What is read is as of the last
//! commit, and has the form in which the other engine keeps it ([`layout`](crate::store::copying::layout)).

use std::path::Path;

use hookturn_core::id::DeliveryId;
use hookturn_core::store::StoreError;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::open::{self, OpenError};
use super::rows::impossible;
use super::{DatabaseLock, failed};
use crate::store::copying::layout::{Kind, Order, Part, Table};
use crate::store::copying::sum::{RowWriter, Sum};

type Outcome<T> = Result<T, StoreError>;

const STEP: &str = "read the store that is copied";
/// The value by which one store is told from another: it is sealed with a random nonce.
const IDENTITY: &str = "master_key_check";

/// A value of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::store) enum KeyValue {
    Number(i64),
    Words(String),
    Blob(#[serde(with = "hex::serde")] Vec<u8>),
}

impl KeyValue {
    /// What comes before every value of its kind that a key has.
    fn before_all(order: Order) -> Self {
        match order {
            Order::Number => Self::Number(i64::MIN),
            Order::Words => Self::Words(String::new()),
            Order::Blob => Self::Blob(Vec::new()),
        }
    }

    fn read(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Integer(number) => Some(Self::Number(number)),
            ValueRef::Text(text) => String::from_utf8(text.to_vec()).ok().map(Self::Words),
            ValueRef::Blob(bytes) => Some(Self::Blob(bytes.to_vec())),
            ValueRef::Null | ValueRef::Real(_) => None,
        }
    }

    fn bound(&self) -> Value {
        match self {
            Self::Number(number) => Value::Integer(*number),
            Self::Words(text) => Value::Text(text.clone()),
            Self::Blob(bytes) => Value::Blob(bytes.clone()),
        }
    }
}

/// Where a part is read on: behind this key. Empty at its beginning.
pub(in crate::store) type Key = Vec<KeyValue>;

/// Rows that are written together.
#[derive(Debug, Default)]
pub(in crate::store) struct Piece {
    /// They, one behind the other, each as [`RowWriter`] writes it.
    pub(in crate::store) rows: Vec<u8>,
    pub(in crate::store) count: u64,
    /// Ids of the days that they stand in, each once.
    pub(in crate::store) dated: Vec<DeliveryId>,
    /// Where the next piece begins; none when this was the last of its part.
    pub(in crate::store) next: Option<Key>,
}

/// How much a piece holds.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Room {
    pub(in crate::store) rows: u64,
    pub(in crate::store) bytes: usize,
}

/// The embedded store, to be read.
pub(in crate::store) struct Source {
    connection: Connection,
    // Held as long as it is read. One that is only counted has none.
    _lock: Option<DatabaseLock>,
}

impl Source {
    /// Locks the database and brings its schema up to date.
    pub(in crate::store) fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = super::lock(path)?;
        drop(open::open_for_writing(path)?);
        Ok(Self {
            connection: open::open_for_reading(path)?,
            _lock: Some(lock),
        })
    }

    /// Opens it to be counted, changing nothing, also beside a running server. One whose schema is older than
    /// this version's is refused.
    pub(in crate::store) fn look(path: &Path) -> Result<Self, OpenError> {
        let connection = open::open_to_look(path)?;
        open::prepare_file(&connection, path)?;
        open::must_be_current(&connection, path)?;
        Ok(Self {
            connection,
            _lock: None,
        })
    }

    /// By what this store is told from others, as text.
    pub(in crate::store) fn identity(&self) -> Outcome<String> {
        let sql = "SELECT value FROM meta WHERE key = ?";
        let mut query = self.connection.prepare(sql).map_err(failed(STEP))?;
        let mut rows = query.query([IDENTITY]).map_err(failed(STEP))?;
        let value: Vec<u8> = match rows.next().map_err(failed(STEP))? {
            Some(row) => row.get(0).map_err(failed(STEP))?,
            None => Vec::new(),
        };
        Ok(hex::encode(Sha256::digest(value)))
    }

    /// The rows of a part behind a key, as many as there is room for.
    pub(in crate::store) fn piece(
        &self,
        (table, part): (&Table, &Part),
        after: &Key,
        room: Room,
    ) -> Outcome<Piece> {
        let mut piece = Piece::default();
        let mut day = None;
        let mut last = None;
        self.each(table, part, after, |row, writer| {
            if piece.count >= room.rows || piece.rows.len() >= room.bytes {
                return Ok(false);
            }
            piece.rows.extend_from_slice(writer.row());
            piece.count += 1;
            if let Some(id) = dated(table, row)? {
                let made = id.created_at().as_millis().div_euclid(DAY_MILLIS);
                if day.replace(made) != Some(made) {
                    piece.dated.push(id);
                }
            }
            last = Some(key_of(table, part, row)?);
            Ok(true)
        })
        .map(|whole| {
            piece.next = if whole { None } else { last };
            piece
        })
    }

    /// How many rows a table has, and their sum.
    pub(in crate::store) fn sum(&self, table: &Table) -> Outcome<Sum> {
        let mut sum = Sum::default();
        for part in table.parts {
            self.each(table, part, &Key::new(), |_, writer| {
                sum.add(writer.row());
                Ok(true)
            })?;
        }
        Ok(sum)
    }

    /// How many rows a table has.
    pub(in crate::store) fn count(&self, table: &Table) -> Outcome<u64> {
        let mut count = 0;
        for part in table.parts {
            let sql = format!("SELECT count(*) FROM ({})", part.select);
            let mut query = self.connection.prepare(&sql).map_err(failed(STEP))?;
            let values = rusqlite::params_from_iter(bound(part, &Key::new()));
            let rows: i64 = query
                .query_row(values, |row| row.get(0))
                .map_err(failed(STEP))?;
            count += rows.cast_unsigned();
        }
        Ok(count)
    }

    /// How many attempts there are, those included whose delivery is gone: nothing leads to them, and they are
    /// not copied.
    pub(in crate::store) fn attempts(&self) -> Outcome<u64> {
        let sql = "SELECT count(*) FROM attempt";
        let mut query = self.connection.prepare(sql).map_err(failed(STEP))?;
        let count: i64 = query
            .query_row([], |row| row.get(0))
            .map_err(failed(STEP))?;
        Ok(count.cast_unsigned())
    }

    /// Hands out the rows of a part behind a key until there is no more, or `take` says no. Returns whether
    /// there was no more.
    fn each(
        &self,
        table: &Table,
        part: &Part,
        after: &Key,
        mut take: impl FnMut(&Row<'_>, &RowWriter) -> Outcome<bool>,
    ) -> Outcome<bool> {
        let mut query = self
            .connection
            .prepare_cached(part.select)
            .map_err(failed(STEP))?;
        let values = rusqlite::params_from_iter(bound(part, after));
        let mut rows = query.query(values).map_err(failed(STEP))?;
        let mut writer = RowWriter::default();
        while let Some(row) = rows.next().map_err(failed(STEP))? {
            write_row(table, part, row, &mut writer)?;
            if !take(row, &writer)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1_000;

fn bound(part: &Part, after: &Key) -> Vec<Value> {
    if after.is_empty() {
        let first = part.key.iter().copied().map(KeyValue::before_all);
        return first.map(|value| value.bound()).collect();
    }
    after.iter().map(KeyValue::bound).collect()
}

/// The columns behind those of the table.
fn key_of(table: &Table, part: &Part, row: &Row<'_>) -> Outcome<Key> {
    let from = table.columns.len();
    (from..from + part.key.len())
        .map(|index| {
            let value = row.get_ref(index).map_err(failed(STEP))?;
            let odd = || impossible(table.name, "key", &"unknown", "not a key");
            KeyValue::read(value).ok_or_else(odd)
        })
        .collect()
}

fn dated(table: &Table, row: &Row<'_>) -> Outcome<Option<DeliveryId>> {
    let Some(index) = table.dated else {
        return Ok(None);
    };
    let bytes: [u8; 16] = row.get(index).map_err(failed(STEP))?;
    Ok(Some(DeliveryId::from_bytes(bytes)))
}

fn write_row(table: &Table, part: &Part, row: &Row<'_>, writer: &mut RowWriter) -> Outcome<()> {
    writer.begin(table.columns.len());
    for (index, (name, kind)) in table.columns.iter().enumerate() {
        let value = row.get_ref(index).map_err(failed(STEP))?;
        let written = match (value, kind) {
            (ValueRef::Null, _) => name.ends_with('?') && writer.value(None),
            (ValueRef::Blob(bytes), Kind::Uuid) => bytes.len() == 16 && writer.value(Some(bytes)),
            (ValueRef::Blob(bytes), Kind::Bytes) => writer.value(Some(bytes)),
            // PostgreSQL keeps no text with a zero in it.
            (ValueRef::Text(text), Kind::Text) => {
                std::str::from_utf8(text).is_ok() && !text.contains(&0) && writer.value(Some(text))
            }
            (ValueRef::Integer(number), Kind::Big) => writer.value(Some(&number.to_be_bytes())),
            (ValueRef::Integer(number), Kind::Int) => {
                i32::try_from(number).is_ok_and(|number| writer.value(Some(&number.to_be_bytes())))
            }
            (ValueRef::Integer(number @ (0 | 1)), Kind::Bool) => {
                writer.value(Some(&[u8::from(number == 1)]))
            }
            _ => false,
        };
        if !written {
            let key = key_of(table, part, row).map_or_else(|_| "?".to_owned(), |key| told(&key));
            return Err(impossible(
                table.name,
                name.trim_end_matches('?'),
                &key,
                "it cannot be what it is: nothing, of another kind, or of what is not there",
            ));
        }
    }
    Ok(())
}

/// A key for people.
fn told(key: &Key) -> String {
    let values: Vec<String> = key
        .iter()
        .map(|value| match value {
            KeyValue::Number(number) => number.to_string(),
            KeyValue::Words(text) => text.clone(),
            KeyValue::Blob(bytes) => hex::encode(bytes),
        })
        .collect();
    values.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::copying::layout::parts;

    /// A piece is found where the one before it ended: whoever read or sorted all rows for each would never get to
    /// the end of a large store.
    #[test]
    fn each_piece_begins_in_an_index_that_is_in_its_order() {
        let directory = tempfile::tempdir().unwrap();
        let source = Source::open(&directory.path().join("hookturn.db")).unwrap();
        for (table, part) in parts() {
            let sql = format!("EXPLAIN QUERY PLAN {}", part.select);
            let mut query = source.connection.prepare(&sql).unwrap();
            let values = rusqlite::params_from_iter(bound(part, &Key::new()));
            let plan = query.query_map(values, |row| row.get(3)).unwrap();
            let plan: Vec<String> = plan.collect::<Result<_, _>>().unwrap();
            let sought = plan[0].starts_with("SEARCH") && plan[0].contains('>');
            let sorted = plan.iter().any(|step| step.ends_with("TREE FOR ORDER BY"));
            let scanned = plan.iter().any(|step| step.starts_with("SCAN"));
            assert!(sought && !sorted && !scanned, "{}: {plan:#?}", table.name);
        }
    }
}

//! Filling a database piece by piece with the rows of another store.
//!
//! Each piece is one transaction, with the place at which the next one begins: a copy that is broken off goes on
//! there. As long as the place is kept (in `meta`, as [`PLACE`]), no server starts on the database. Nobody else
//! works on it meanwhile: the owner's lock is held.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use hookturn_core::store::StoreError;

use super::backup::alone;
use super::configuration::{meta, put_meta};
use super::connect::{OpenError, SCHEMA, Session, Target};
use super::days::{self, Day};
use super::migrate;
use super::rows::{Outcome, collect, column, execute, failed, first, run};
use crate::store::copying::layout::{NOT_COPIED, TABLES, Table};
use crate::store::copying::sum::Sum;
use crate::store::sqlite::export::Piece;

/// Under this name `meta` holds how far a copy came, until it is complete.
pub(in crate::store) const PLACE: &str = "copying";

const FILL: &str = "write a piece of the copy";
const SUM: &str = "read the copy back";
/// How the binary form of `COPY` begins: its mark, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// How it ends, in the place of a row's number of columns.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// What is in a database that is to be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Found {
    /// No row of a store.
    Nothing,
    /// A part of a copy, with its place.
    Half(Vec<u8>),
    /// Something else.
    Other {
        /// A table that has rows.
        table: String,
    },
}

/// A database that is being filled.
pub(in crate::store) struct Filling {
    session: Session,
}

/// Looks what is in a database, changing nothing.
pub(in crate::store) async fn look(target: &Target) -> Result<Found, OpenError> {
    let mut session = target.reach().await?;
    let tx = session.transaction().await.map_err(OpenError::Migration)?;
    let plan = migrate::plan_of(&tx).await?;
    drop(tx);
    if plan.found == 0 {
        return Ok(Found::Nothing);
    }
    found(&session).await.map_err(OpenError::Failed)
}

async fn found(session: &Session) -> Outcome<Found> {
    if let Some(place) = meta(session, PLACE).await? {
        return Ok(Found::Half(place));
    }
    for table in tables(session).await? {
        let sql = format!("SELECT EXISTS (SELECT FROM {table})");
        let row = first(session, FILL, &sql, &[]).await?;
        if row.map_or(Ok(false), |row| column(&row, 0))? {
            return Ok(Found::Other { table });
        }
    }
    Ok(Found::Nothing)
}

/// The tables that there are, whether this version copies them or not.
async fn tables(session: &Session) -> Outcome<Vec<String>> {
    let sql = "SELECT relname::text FROM pg_class
               WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'p')
                 AND NOT relispartition AND relname <> ALL($2) ORDER BY relname";
    collect(session, FILL, sql, &[&SCHEMA, &NOT_COPIED], |row| {
        column(row, 0)
    })
    .await
}

impl Filling {
    /// Takes the database, brings its schema up to date, and says what is in it.
    pub(in crate::store) async fn begin(target: &Target) -> Result<(Self, Found), OpenError> {
        let session = alone(target).await?;
        let found = found(&session).await.map_err(OpenError::Failed)?;
        Ok((Self { session }, found))
    }

    /// Writes rows and the place that follows them, both or neither.
    pub(in crate::store) async fn write(
        &self,
        table: &Table,
        piece: Piece,
        place: &[u8],
    ) -> Outcome<()> {
        let session = &self.session;
        run(session, FILL, "BEGIN").await?;
        let written = self.write_within(table, piece, place).await;
        let end = if written.is_ok() {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        let ended = run(session, FILL, end).await;
        written.and(ended)
    }

    async fn write_within(&self, table: &Table, piece: Piece, place: &[u8]) -> Outcome<()> {
        let session = &self.session;
        let made = piece.dated.iter().map(|id| Day::of(id.created_at()));
        if !piece.dated.is_empty() {
            days::make(session, made).await?;
        }
        let sql = format!(
            "COPY {} ({}) FROM STDIN (FORMAT binary)",
            table.name,
            table.column_list()
        );
        let sink = session.copy_in(&sql).await.map_err(failed(FILL))?;
        let mut sink = std::pin::pin!(sink);
        for part in [
            Bytes::from_static(HEADER),
            Bytes::from(piece.rows),
            Bytes::copy_from_slice(&TRAILER),
        ] {
            sink.send(part).await.map_err(failed(FILL))?;
        }
        let count = sink.finish().await.map_err(failed(FILL))?;
        if count != piece.count {
            let why = format!("{count} rows were written of {}", piece.count);
            return Err(StoreError::Engine {
                step: FILL,
                source: why.into(),
            });
        }
        put_meta(session, PLACE, place).await
    }

    /// Keeps the first place, before there is a row.
    pub(in crate::store) async fn mark(&self, place: &[u8]) -> Outcome<()> {
        put_meta(&self.session, PLACE, place).await
    }

    /// How many rows a table has, and their sum. The place of the copy does not count.
    pub(in crate::store) async fn sum(&self, table: &Table) -> Outcome<Sum> {
        let but_the_place = if table.name == "meta" {
            format!(" WHERE key <> '{PLACE}'")
        } else {
            String::new()
        };
        let sql = format!(
            "COPY (SELECT {} FROM {}{but_the_place}) TO STDOUT (FORMAT binary)",
            table.column_list(),
            table.name
        );
        let rows = self.session.copy_out(&sql).await.map_err(failed(SUM))?;
        let mut rows = std::pin::pin!(rows);
        let mut reading = Rows::default();
        let mut sum = Sum::default();
        while let Some(bytes) = rows.next().await {
            reading.read(&bytes.map_err(failed(SUM))?, &mut sum)?;
        }
        Ok(sum)
    }

    /// Counts what was written for the planner, and ends the copy: a server may start.
    pub(in crate::store) async fn complete(&self) -> Outcome<()> {
        let names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        let analyze = format!("ANALYZE {}", names.join(", "));
        run(&self.session, "count the copy", &analyze).await?;
        let sql = "DELETE FROM meta WHERE key = $1";
        execute(&self.session, FILL, sql, &[&PLACE]).await.map(drop)
    }
}

/// Takes the binary form of `COPY` apart, wherever its messages end.
#[derive(Default)]
struct Rows {
    begun: bool,
    rest: BytesMut,
}

impl Rows {
    fn read(&mut self, bytes: &[u8], sum: &mut Sum) -> Outcome<()> {
        self.rest.extend_from_slice(bytes);
        if !self.begun {
            if self.rest.len() < HEADER.len() {
                return Ok(());
            }
            if self.rest.split_to(HEADER.len()) != HEADER {
                return Err(odd());
            }
            self.begun = true;
        }
        while let Some(length) = row_length(&self.rest)? {
            sum.add(&self.rest.split_to(length));
        }
        Ok(())
    }
}

fn odd() -> StoreError {
    StoreError::Engine {
        step: SUM,
        source: "the database sent what is not the binary form of COPY".into(),
    }
}

/// How long the first row is, if all of it is here and it is not the end.
fn row_length(bytes: &[u8]) -> Outcome<Option<usize>> {
    let Some((count, _)) = bytes.split_first_chunk::<2>() else {
        return Ok(None);
    };
    if *count == TRAILER {
        return Ok(None);
    }
    let count = usize::try_from(i16::from_be_bytes(*count)).map_err(|_| odd())?;
    let mut at = 2;
    for _ in 0..count {
        let Some((length, _)) = bytes.get(at..).and_then(<[u8]>::split_first_chunk::<4>) else {
            return Ok(None);
        };
        at += 4;
        match i32::from_be_bytes(*length) {
            -1 => {}
            length => at += usize::try_from(length).map_err(|_| odd())?,
        }
    }
    Ok((at <= bytes.len()).then_some(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::copying::sum::RowWriter;

    /// Messages may end anywhere, also within a length.
    #[test]
    fn rows_are_read_however_their_bytes_arrive() {
        let mut writer = RowWriter::default();
        let mut all = HEADER.to_vec();
        let mut wanted = Sum::default();
        for value in [Some(&b"one"[..]), None, Some(&[0xff; 300])] {
            writer.begin(2);
            assert!(writer.value(value) && writer.value(Some(b"")));
            wanted.add(writer.row());
            all.extend_from_slice(writer.row());
        }
        all.extend_from_slice(&TRAILER);
        for size in [1, 2, 3, 7, 64, all.len()] {
            let (mut rows, mut sum) = (Rows::default(), Sum::default());
            for bytes in all.chunks(size) {
                rows.read(bytes, &mut sum).unwrap();
            }
            assert_eq!(sum, wanted, "{size}");
        }
        let (mut rows, mut sum) = (Rows::default(), Sum::default());
        assert!(rows.read(&[7; 64], &mut sum).is_err());
    }
}

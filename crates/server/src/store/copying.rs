//! Copying an embedded store into a PostgreSQL database.
//!
//! ```text
//! for each part of each table, in the order of its key:
//!     read a piece behind the last key ─► one transaction: the rows + the place of the next piece
//! then, of every table: count and sum of the rows here and there; the same, or it is no copy
//! ```
//!
//! **Whole or not at all, in the end.** A copy that is broken off, at whatever moment, goes on where the last
//! committed piece ended. Until every table was compared no server starts on the database. What is compared is read
//! anew on both sides, not remembered from the way.
//!
//! **Nothing is translated** but numbers into the ids that they stand for: sealed values stay in their boxes, whose
//! place (workspace, keyring, id, version) is the same there, so the same master key opens them; the audit chain is
//! the same to the byte; what was due is due; answers of idempotency keys are replayed.
//!
//! Not promised: that the embedded store is of no use afterwards. It is as it was, and whoever starts a server on
//! it sends what the copy sends too.

pub(in crate::store) mod layout;
pub(in crate::store) mod sum;

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use hookturn_core::store::StoreError;
use serde::{Deserialize, Serialize};

use super::postgres::filling::{self, Filling, Found};
use super::postgres::{OpenError as DatabaseError, Target};
use super::sqlite::OpenError;
use super::sqlite::export::{Key, Piece, Room, Source};
use layout::{TABLES, VERSION, parts};

pub use layout::tables_of_the_copy;
pub use sum::Sum;

/// How much a piece holds unless told otherwise: a commit for each must not count, and memory must not either.
const ROOM: Room = Room {
    rows: 20_000,
    bytes: 8 * 1024 * 1024,
};

/// Why there is no copy, or not the whole of it yet. The embedded store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The embedded store cannot be opened.
    #[error(transparent)]
    Source(#[from] OpenError),
    /// The database cannot be opened.
    #[error(transparent)]
    Target(#[from] DatabaseError),
    /// There is something in the database.
    #[error(
        "the database {database} has rows already (in {table}); nothing was changed: copy into an empty one"
    )]
    NotEmpty {
        /// Host and name of the database.
        database: String,
        /// A table that has some.
        table: String,
    },
    /// There is a part of another copy in the database.
    #[error(
        "the database {database} holds a part of a copy of another store, or by another version; nothing was changed: go on with that one, or drop the schema hookturn there and begin again"
    )]
    OtherCopy {
        /// Host and name of the database.
        database: String,
    },
    /// A row could not be read or written.
    #[error("the copy is not complete; run the command again, and it goes on where it ended")]
    Broken(#[source] StoreError),
    /// Someone asked to stop.
    #[error("the copy was stopped; run the command again, and it goes on where it ended")]
    Stopped,
    /// What was written is not what is there.
    #[error(
        "the copy is not the same as the store, in {}; no server starts on it: drop the schema hookturn in the database and copy again, and let no server run on the store meanwhile",
        listed(tables)
    )]
    Differs {
        /// The tables.
        tables: Vec<Difference>,
    },
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> Self {
        Self::Broken(error)
    }
}

/// A table that was copied, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedTable {
    /// Its name.
    pub name: &'static str,
    /// Its rows, the same on both sides.
    pub sum: Sum,
}

/// A table that is not the same on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub table: &'static str,
    /// What the store has.
    pub here: Sum,
    /// What its copy has.
    pub there: Sum,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, here, there } = self;
        if here.rows == there.rows {
            let rows = here.rows;
            write!(
                f,
                "{table} ({rows} rows on both sides, with other values: SHA-256 sum {here} here, {there} there)"
            )
        } else {
            write!(f, "{table} ({} rows here, {} there)", here.rows, there.rows)
        }
    }
}

fn listed(tables: &[Difference]) -> String {
    let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
    tables.join(", ")
}

/// What a copy came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Every table, compared.
    pub tables: Vec<CopiedTable>,
    /// Attempts whose delivery is gone. Nothing leads to them, and they were left out.
    pub stray_attempts: u64,
}

/// What a copy would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Every table with its number of rows.
    pub tables: Vec<(&'static str, u64)>,
    /// Whether a copy was begun, which would go on.
    pub begun: bool,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is done at the moment.
    pub doing: Doing,
    /// The table.
    pub table: &'static str,
    /// Its rows that were written by this run.
    pub rows: u64,
}

/// What a copy does with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Rows are written.
    Writing,
    /// Both sides are read and compared.
    Comparing,
}

/// Where a copy goes on, as the database keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    version: u32,
    /// Of which store.
    source: String,
    /// The number of the part.
    part: usize,
    /// The key behind which it goes on.
    after: Key,
}

impl Place {
    fn to_bytes(&self) -> Result<Vec<u8>, CopyError> {
        serde_json::to_vec(self).map_err(|error| {
            CopyError::Broken(StoreError::Engine {
                step: "keep the place of the copy",
                source: Box::new(error),
            })
        })
    }
}

/// Copies the embedded store at `from`, in pieces of `rows` rows at most, or goes on with a copy that was begun.
/// `progress` is told after every piece, and may stop it there.
pub async fn copy(
    from: &Path,
    to: &Target,
    rows: Option<u64>,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Copied, CopyError> {
    let room = Room {
        rows: rows.unwrap_or(ROOM.rows).max(1),
        ..ROOM
    };
    let source = Source::open(from)?;
    let (filling, found) = Filling::begin(to).await?;
    let place = go_on(&source, to, found)?;
    filling.mark(&place.to_bytes()?).await?;
    write(&source, &filling, place, room, &mut progress).await?;
    let copied = compare(&source, &filling, &mut progress).await?;
    filling.complete().await?;
    Ok(copied)
}

/// Says what [`copy`] would do, and does nothing. A server may run on the store.
pub async fn plan(from: &Path, to: &Target) -> Result<Planned, CopyError> {
    let source = Source::look(from)?;
    let found = filling::look(to).await?;
    let begun = matches!(found, Found::Half(_));
    go_on(&source, to, found)?;
    let counted = TABLES
        .iter()
        .map(|table| Ok((table.name, source.count(table)?)));
    Ok(Planned {
        tables: counted.collect::<Result<_, StoreError>>()?,
        begun,
    })
}

/// Where to begin, or to go on.
fn go_on(source: &Source, to: &Target, found: Found) -> Result<Place, CopyError> {
    let begin = Place {
        version: VERSION,
        source: source.identity()?,
        part: 0,
        after: Key::new(),
    };
    match found {
        Found::Nothing => Ok(begin),
        Found::Half(kept) => match serde_json::from_slice::<Place>(&kept) {
            Ok(place) if place.version == VERSION && place.source == begin.source => Ok(place),
            Ok(_) | Err(_) => Err(CopyError::OtherCopy {
                database: to.name(),
            }),
        },
        Found::Other { table } => Err(CopyError::NotEmpty {
            database: to.name(),
            table,
        }),
    }
}

async fn write(
    source: &Source,
    filling: &Filling,
    mut place: Place,
    room: Room,
    progress: &mut impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<(), CopyError> {
    for (number, (table, part)) in parts().enumerate().skip(place.part) {
        let mut rows = 0;
        loop {
            let after = if place.part == number {
                std::mem::take(&mut place.after)
            } else {
                Key::new()
            };
            let mut piece: Piece = source.piece((table, part), &after, room)?;
            if piece.count == 0 {
                break;
            }
            let next = piece.next.take();
            let ended = next.is_none();
            place.part = if ended { number + 1 } else { number };
            place.after = next.unwrap_or_default();
            rows += piece.count;
            filling.write(table, piece, &place.to_bytes()?).await?;
            let told = Progress {
                doing: Doing::Writing,
                table: table.name,
                rows,
            };
            if progress(told).is_break() {
                return Err(CopyError::Stopped);
            }
            if ended {
                break;
            }
        }
    }
    Ok(())
}

/// Reads both sides anew.
async fn compare(
    source: &Source,
    filling: &Filling,
    progress: &mut impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Copied, CopyError> {
    let (mut tables, mut differ) = (Vec::new(), Vec::new());
    let mut copied_attempts = 0;
    for table in TABLES {
        let (here, there) = (source.sum(table)?, filling.sum(table).await?);
        if here != there {
            differ.push(Difference {
                table: table.name,
                here,
                there,
            });
        }
        if table.name == "attempt" {
            copied_attempts = here.rows;
        }
        tables.push(CopiedTable {
            name: table.name,
            sum: here,
        });
        let told = Progress {
            doing: Doing::Comparing,
            table: table.name,
            rows: here.rows,
        };
        if progress(told).is_break() {
            return Err(CopyError::Stopped);
        }
    }
    if !differ.is_empty() {
        return Err(CopyError::Differs { tables: differ });
    }
    Ok(Copied {
        tables,
        stray_attempts: source.attempts()?.saturating_sub(copied_attempts),
    })
}

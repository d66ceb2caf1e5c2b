//! Backups: one file with every table, as of one commit.
//!
//! The file is a line that says what it is, then frames: a letter for the kind, the length in four bytes,
//! the bytes. `H` says which schema it has and which days, `T` names a table and its columns, `D` is a piece
//! of that table as `COPY` writes it, and `E` ends the file with the SHA-256 of everything before. The tables
//! are those of the catalog, so that none can be forgotten here.

use std::path::Path;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use hookturn_core::store::StoreError;
use hookturn_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio_postgres::Row;

use super::configuration::meta;
use super::connect::{OpenError, SCHEMA, Session, Target};
use super::days::{self, Day};
use super::filling::PLACE;
use super::migrate;
use super::node::{Hold, Node};
use super::rows::{Outcome, collect, column, failed, first, run};
use crate::store::sharing::lease::GRACE;

const STEP: &str = "write the backup";
const RESTORE: &str = "restore the backup";
const MAGIC: &[u8] = b"hookturn backup of a postgresql store, format 1\n";
/// No frame is longer: `COPY` sends a row at a time.
const FRAME_BYTES: u32 = 64 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    schema: i32,
    days: Vec<Timestamp>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Table {
    name: String,
    columns: Vec<String>,
}

impl Table {
    fn columns(&self) -> String {
        let quoted: Vec<String> = self
            .columns
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        quoted.join(", ")
    }
}

fn broken(
    step: &'static str,
    what: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Engine {
        step,
        source: what.into(),
    }
}

// ----- writing -----

struct Writer {
    file: BufWriter<File>,
    digest: Sha256,
}

impl Writer {
    async fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.digest.update(bytes);
        self.file
            .write_all(bytes)
            .await
            .map_err(|error| broken(STEP, error))
    }

    async fn frame(&mut self, kind: u8, bytes: &[u8]) -> Outcome<()> {
        let length = u32::try_from(bytes.len()).map_err(|error| broken(STEP, error))?;
        self.write(&[kind]).await?;
        self.write(&length.to_be_bytes()).await?;
        self.write(bytes).await
    }

    async fn json(&mut self, kind: u8, value: &impl Serialize) -> Outcome<()> {
        let text = serde_json::to_vec(value).map_err(|error| broken(STEP, error))?;
        self.frame(kind, &text).await
    }

    async fn end(mut self) -> Outcome<()> {
        let digest = self.digest.clone().finalize();
        self.frame(b'E', &digest).await?;
        let flushed = self.file.flush().await;
        flushed.map_err(|error| broken(STEP, error))?;
        let synced = self.file.get_ref().sync_all().await;
        synced.map_err(|error| broken(STEP, error))
    }
}

/// Begins what sees one commit.
async fn begin(session: &Session) -> Outcome<()> {
    let sql = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
    run(session, STEP, sql).await
}

/// Writes what one commit left into a new file.
pub(super) async fn backup(session: &Session, path: &Path) -> Outcome<()> {
    let written = match begin(session).await {
        Ok(()) => write_file(session, path).await,
        Err(error) => Err(error),
    };
    let ended = run(session, STEP, "ROLLBACK").await;
    written.and(ended)
}

/// Writes a new file that only its owner can read. Half a backup is taken away again.
async fn write_file(session: &Session, path: &Path) -> Outcome<()> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    let file = options
        .open(path)
        .await
        .map_err(|error| broken(STEP, error))?;
    let writer = Writer {
        file: BufWriter::with_capacity(256 * 1024, file),
        digest: Sha256::new(),
    };
    let written = write_all(session, writer).await;
    if written.is_err() {
        let _ = tokio::fs::remove_file(path).await;
    }
    written
}

async fn write_all(session: &Session, mut writer: Writer) -> Outcome<()> {
    writer.write(MAGIC).await?;
    let days = days::known(session).await?;
    let header = Header {
        schema: migrate::newest(),
        days: days.into_iter().map(Day::begins).collect(),
    };
    writer.json(b'H', &header).await?;
    for table in tables(session).await? {
        writer.json(b'T', &table).await?;
        let sql = format!(
            "COPY (SELECT {} FROM {}) TO STDOUT",
            table.columns(),
            table.name
        );
        let rows = session.copy_out(&sql).await.map_err(failed(STEP))?;
        let mut rows = std::pin::pin!(rows);
        while let Some(piece) = rows.next().await {
            writer.frame(b'D', &piece.map_err(failed(STEP))?).await?;
        }
    }
    writer.end().await
}

/// Every table but the partitions, whose rows are those of their whole, and what is of the database: the list
/// of migrations, who works on it, and how they follow each other.
async fn tables(session: &Session) -> Outcome<Vec<Table>> {
    let sql = "SELECT c.relname::text, array_agg(a.attname::text ORDER BY a.attnum)
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
               WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'p')
                 AND NOT c.relispartition AND c.relname NOT IN ('migration', 'shard_owner', 'node', 'view_head', 'view_change')
                 AND a.attnum > 0 AND NOT a.attisdropped
               GROUP BY c.relname ORDER BY c.relname";
    let read = |row: &Row| {
        Ok(Table {
            name: column(row, 0)?,
            columns: column(row, 1)?,
        })
    };
    collect(session, STEP, sql, &[&SCHEMA], read).await
}

// ----- restoring -----

struct Reader {
    file: BufReader<File>,
    digest: Sha256,
}

impl Reader {
    async fn open(path: &Path) -> Outcome<Self> {
        let file = File::open(path)
            .await
            .map_err(|error| broken(RESTORE, error))?;
        let mut reader = Self {
            file: BufReader::with_capacity(256 * 1024, file),
            digest: Sha256::new(),
        };
        let mut magic = [0; MAGIC.len()];
        let whole = reader.file.read_exact(&mut magic).await.is_ok();
        if !whole || magic != MAGIC {
            return Err(broken(
                RESTORE,
                "the file is no backup of this kind of store",
            ));
        }
        reader.digest.update(magic);
        Ok(reader)
    }

    /// The next frame; the last one is the end, and has the right digest.
    async fn frame(&mut self) -> Outcome<(u8, Bytes)> {
        let cut = |error: std::io::Error| broken(RESTORE, error);
        let mut head = [0; 5];
        self.file.read_exact(&mut head).await.map_err(cut)?;
        let length = (&head[1..]).get_u32();
        if length > FRAME_BYTES {
            return Err(broken(RESTORE, "the backup is damaged"));
        }
        let mut bytes = BytesMut::zeroed(length as usize);
        self.file.read_exact(&mut bytes).await.map_err(cut)?;
        if head[0] == b'E' && self.digest.clone().finalize()[..] != bytes[..] {
            return Err(broken(
                RESTORE,
                "the backup is damaged: its digest does not fit",
            ));
        }
        self.digest.update(head);
        self.digest.update(&bytes);
        Ok((head[0], bytes.freeze()))
    }
}

fn parsed<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Outcome<T> {
    serde_json::from_slice(bytes).map_err(|error| broken(RESTORE, error))
}

/// Copies a database that another process may work on. One into which a store is being copied is refused: what would be
/// restored from the file looks whole and is not.
pub async fn backup_beside(target: &Target, path: &Path) -> Result<Outcome<()>, OpenError> {
    let mut session = target.reach().await?;
    let tx = session.transaction().await.map_err(OpenError::Migration)?;
    let plan = migrate::plan_of(&tx).await?;
    drop(tx);
    if plan.found == 0 {
        return Ok(Err(broken(STEP, "there is no store in this database")));
    }
    // In the transaction that the file is of.
    begin(&session).await.map_err(OpenError::Failed)?;
    if is_half(&session).await.map_err(OpenError::Failed)? {
        return Err(OpenError::HalfCopied {
            database: target.name(),
        });
    }
    // The connection ends with the transaction.
    Ok(write_file(&session, path).await)
}

/// Whether only a part of a store was copied into the database so far.
async fn is_half(session: &Session) -> Outcome<bool> {
    Ok(meta(session, PLACE).await?.is_some())
}

/// Fills an empty database from a backup, whole or not at all. A backup of a database into which a store was being copied,
/// which former versions made, is refused.
pub async fn restore(target: &Target, path: &Path) -> Result<Outcome<()>, OpenError> {
    let session = alone(target).await?;
    if let Err(error) = restore_into(&session, path).await {
        return Ok(Err(error));
    }
    if is_half(&session).await.map_err(OpenError::Failed)? {
        return Err(OpenError::HalfBackedUp);
    }
    Ok(run(&session, RESTORE, "COMMIT").await)
}

/// A connection to a database on which no server works as long as it lasts, with its schema up to date.
pub(super) async fn alone(target: &Target) -> Result<Session, OpenError> {
    let name = Node::new(GRACE).name().to_owned();
    let mut session = target.reach_as(&name, || {}).await?;
    let locked = Node::lock(&session, Hold::Alone).await;
    if let Err(holder) = locked.map_err(OpenError::Failed)? {
        return Err(OpenError::InUse {
            database: target.name(),
            holder,
        });
    }
    let tx = session.transaction().await.map_err(OpenError::Migration)?;
    migrate::migrate(&tx).await?;
    tx.commit().await.map_err(OpenError::Migration)?;
    Ok(session)
}

/// Writes everything in a transaction that is left open.
async fn restore_into(session: &Session, path: &Path) -> Outcome<()> {
    let mut reader = Reader::open(path).await?;
    run(session, RESTORE, "BEGIN").await?;
    let filled = "SELECT EXISTS (SELECT FROM workspace) OR EXISTS (SELECT FROM meta)";
    let filled = first(session, RESTORE, filled, &[]).await?;
    if filled.map_or(Ok(false), |row| column(&row, 0))? {
        let why = "the database is not empty; nothing was changed: restore into a new one";
        return Err(broken(RESTORE, why));
    }
    let (kind, header) = reader.frame().await?;
    let header: Header = match kind {
        b'H' => parsed(&header)?,
        _ => return Err(broken(RESTORE, "the backup is damaged")),
    };
    if header.schema > migrate::newest() {
        let why = "the backup was written by a newer hookturn; restore it with that one";
        return Err(broken(RESTORE, why));
    }
    days::make(session, header.days.into_iter().map(Day::of)).await?;
    fill(session, &mut reader).await
}

async fn fill(session: &Session, reader: &mut Reader) -> Outcome<()> {
    let mut frame = reader.frame().await?;
    loop {
        let table: Table = match frame.0 {
            b'T' => parsed(&frame.1)?,
            b'E' => return Ok(()),
            _ => return Err(broken(RESTORE, "the backup is damaged")),
        };
        let sql = format!("COPY {} ({}) FROM STDIN", table.name, table.columns());
        let sink = session.copy_in(&sql).await.map_err(failed(RESTORE))?;
        let mut sink = std::pin::pin!(sink);
        frame = reader.frame().await?;
        while frame.0 == b'D' {
            sink.send(frame.1).await.map_err(failed(RESTORE))?;
            frame = reader.frame().await?;
        }
        sink.finish().await.map_err(failed(RESTORE))?;
    }
}

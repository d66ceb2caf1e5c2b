//! What was counted lately, kept so that it outlives a restart.

use hookturn_core::store::{KeptFigures, StoreError};
use hookturn_core::time::Timestamp;
use rusqlite::params;

use super::configuration::{collect, execute};
use super::reader::At;
use super::rows::{self, as_i64};
use super::writer::Tx;

type Outcome<T> = Result<T, StoreError>;

const STEP: &str = "keep what was counted";

pub(super) fn keep(tx: &Tx<'_>, kept: &[KeptFigures], forget_before: Timestamp) -> Outcome<()> {
    for one in kept {
        let sql = "INSERT INTO figures (workspace, at, counted) VALUES (?, ?, ?)
                   ON CONFLICT (workspace) DO UPDATE SET at = excluded.at, counted = excluded.counted";
        let (workspace, at) = (one.workspace.to_bytes(), one.at.as_millis());
        execute(tx, STEP, sql, params![workspace, at, one.counted])?;
    }
    let sql = "DELETE FROM figures WHERE at < ?";
    execute(tx, STEP, sql, params![forget_before.as_millis()]).map(drop)
}

pub(super) fn kept(at: &At<'_>, limit: usize) -> Outcome<Vec<KeptFigures>> {
    let sql = "SELECT workspace, at, counted FROM figures ORDER BY at DESC, workspace LIMIT ?";
    let limit = as_i64(limit as u64);
    collect(
        at.connection,
        "read what was counted",
        sql,
        [limit],
        |row| {
            Ok(Ok(KeptFigures {
                workspace: rows::id(row, 0)?,
                at: Timestamp::from_millis(row.get(1)?),
                counted: row.get(2)?,
            }))
        },
    )
}

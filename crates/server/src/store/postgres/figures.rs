//! What was counted lately, kept so that it outlives a restart.

use hookturn_core::store::KeptFigures;
use hookturn_core::time::Timestamp;
use tokio_postgres::Row;

use super::connect::Session;
use super::rows::{Outcome, collect, column, execute, id, time, uuid};
use crate::store::encoding::as_i64;

const STEP: &str = "keep what was counted";

pub(super) async fn keep(
    session: &Session,
    kept: &[KeptFigures],
    forget_before: Timestamp,
) -> Outcome<()> {
    for one in kept {
        let (workspace, at) = (uuid(one.workspace.to_bytes()), one.at.as_millis());
        let sql = "INSERT INTO figures (workspace, at, counted) VALUES ($1, $2, $3)
                   ON CONFLICT (workspace) DO UPDATE SET at = excluded.at, counted = excluded.counted";
        execute(session, STEP, sql, &[&workspace, &at, &one.counted]).await?;
    }
    let sql = "DELETE FROM figures WHERE at < $1";
    let before = forget_before.as_millis();
    execute(session, STEP, sql, &[&before]).await.map(drop)
}

pub(super) async fn kept(session: &Session, limit: usize) -> Outcome<Vec<KeptFigures>> {
    let sql = "SELECT workspace, at, counted FROM figures ORDER BY at DESC, workspace LIMIT $1";
    let limit = as_i64(limit as u64);
    let read = |row: &Row| {
        Ok(KeptFigures {
            workspace: id(row, 0)?,
            at: time(row, 1)?,
            counted: column(row, 2)?,
        })
    };
    collect(session, "read what was counted", sql, &[&limit], read).await
}

//! What happens without being asked for: how far audit logs were reported, what owners were told about
//! their rotations, schedules and what they did.

use hookturn_core::id::{KeyringId, ScheduleId, WorkspaceId};
use hookturn_core::proof::Noted;
use hookturn_core::schedule::{Schedule, ScheduleNote};
use hookturn_core::store::{Configuration, NewMessage, ReportedLog};
use tokio_postgres::Row;

use super::accepting::accept_all;
use super::configuration::{STEP, swapped};
use super::connect::Session;
use super::loading;
use super::rows::{Outcome, collect, column, execute, id, uuid};
use super::transaction::Tx;
use crate::store::encoding::{as_i64, from_document, to_document};

// ----- writing -----

pub(super) async fn keep_noted(
    session: &Session,
    workspace: WorkspaceId,
    keyring: KeyringId,
    noted: &Noted,
) -> Outcome<()> {
    let key = (uuid(workspace.to_bytes()), uuid(keyring.to_bytes()));
    let document = to_document("noted", noted)?;
    let sql = "INSERT INTO noted (workspace, keyring, document) VALUES ($1, $2, $3)
               ON CONFLICT (workspace, keyring) DO UPDATE SET document = excluded.document";
    execute(session, STEP, sql, &[&key.0, &key.1, &document])
        .await
        .map(drop)
}

pub(super) async fn report(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    (after, through): (u64, u64),
    messages: &[NewMessage],
) -> Outcome<()> {
    tx.known_workspace(workspace)?;
    let id = uuid(workspace.to_bytes());
    let sql = if after == 0 {
        "INSERT INTO reported (workspace, seq) VALUES ($1, $3)
         ON CONFLICT (workspace) DO UPDATE SET seq = $3 WHERE reported.seq = $2"
    } else {
        "UPDATE reported SET seq = $3 WHERE workspace = $1 AND seq = $2"
    };
    let (after, through) = (as_i64(after), as_i64(through));
    let moved = execute(tx.session, STEP, sql, &[&id, &after, &through]).await?;
    swapped(moved, "the reported part of the audit log of", &workspace)?;
    accept_all(tx, messages).await
}

pub(super) async fn put_schedule(session: &Session, schedule: &Schedule) -> Outcome<()> {
    let (workspace, id) = (
        uuid(schedule.workspace.to_bytes()),
        uuid(schedule.id.to_bytes()),
    );
    let document = to_document("schedule", schedule)?;
    let version = as_i64(schedule.version);
    let sql = if schedule.version == 1 {
        "INSERT INTO schedule (workspace, id, version, document) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE schedule SET version = $3, document = $4 WHERE workspace = $1 AND id = $2 AND version = $3::bigint - 1"
    };
    let changed = execute(session, STEP, sql, &[&workspace, &id, &version, &document]).await?;
    swapped(changed, "schedule", &schedule.id)
}

pub(super) async fn remove_schedule(
    session: &Session,
    workspace: WorkspaceId,
    schedule: ScheduleId,
    version: u64,
) -> Outcome<()> {
    let (workspace, id) = (uuid(workspace.to_bytes()), uuid(schedule.to_bytes()));
    let version = as_i64(version);
    let sql = "DELETE FROM schedule WHERE workspace = $1 AND id = $2 AND version = $3";
    let gone = execute(session, STEP, sql, &[&workspace, &id, &version]).await?;
    swapped(gone, "schedule", &schedule)?;
    let sql = "DELETE FROM schedule_note WHERE workspace = $1 AND schedule = $2";
    execute(session, STEP, sql, &[&workspace, &id])
        .await
        .map(drop)
}

pub(super) async fn keep_schedule_note(
    session: &Session,
    workspace: WorkspaceId,
    (schedule, keyring): (ScheduleId, KeyringId),
    note: &ScheduleNote,
) -> Outcome<()> {
    let workspace = uuid(workspace.to_bytes());
    let (id, keyring) = (uuid(schedule.to_bytes()), uuid(keyring.to_bytes()));
    let document = to_document("schedule_note", note)?;
    // A schedule that is gone opens nothing: whoever noted this decides again.
    let sql = "INSERT INTO schedule_note (workspace, schedule, keyring, document)
        SELECT workspace, id, $3, $4 FROM schedule WHERE workspace = $1 AND id = $2 FOR SHARE
        ON CONFLICT (workspace, schedule, keyring) DO UPDATE SET document = excluded.document";
    let kept = execute(session, STEP, sql, &[&workspace, &id, &keyring, &document]).await?;
    swapped(kept, "schedule", &schedule)
}

/// The workspaces whose audit log goes on after what was reported of it.
pub(super) async fn unreported(session: &Session) -> Outcome<Vec<WorkspaceId>> {
    let sql = "SELECT h.workspace FROM audit_head h LEFT JOIN reported r USING (workspace)
               WHERE h.seq > coalesce(r.seq, 0)";
    let step = "find audit entries to report";
    collect(session, step, sql, &[], |row| id(row, 0)).await
}

// ----- loading -----

pub(super) async fn load(session: &Session, loaded: &mut Configuration) -> Outcome<()> {
    const STEP: &str = loading::STEP;
    let sql = "SELECT keyring, document FROM noted";
    let read = |row: &Row| {
        let keyring: KeyringId = id(row, 0)?;
        from_document("noted", &keyring, column(row, 1)?).map(|noted| (keyring, noted))
    };
    loaded.noted = collect(session, STEP, sql, &[], read).await?;
    let sql = "SELECT workspace, coalesce(r.seq, 0), coalesce(h.seq, 0)
        FROM workspace LEFT JOIN reported r USING (workspace) LEFT JOIN audit_head h USING (workspace)";
    let read = |row: &Row| {
        let (through, last): (i64, i64) = (column(row, 1)?, column(row, 2)?);
        Ok(ReportedLog {
            workspace: id(row, 0)?,
            through: through.cast_unsigned(),
            more: last > through,
        })
    };
    loaded.reported = collect(session, STEP, sql, &[], read).await?;
    let sql = "SELECT id, document FROM schedule";
    let read = |row: &Row| {
        let schedule: ScheduleId = id(row, 0)?;
        from_document("schedule", &schedule, column(row, 1)?)
    };
    loaded.schedules = collect(session, STEP, sql, &[], read).await?;
    let sql = "SELECT schedule, keyring, document FROM schedule_note";
    let read = |row: &Row| {
        let (schedule, keyring): (ScheduleId, KeyringId) = (id(row, 0)?, id(row, 1)?);
        let note = from_document("schedule_note", &schedule, column(row, 2)?);
        note.map(|note| (schedule, keyring, note))
    };
    loaded.schedule_notes = collect(session, STEP, sql, &[], read).await?;
    Ok(())
}

//! What happens without being asked for: how far audit logs were reported, what owners were told about
//! their rotations, schedules and what they did.
//!
//! - `reported`: a workspace's number and the number of the last audit entry that was reported.
//! - `noted`, `schedule`, `schedule_note`: JSON documents with the field names of the domain types.

use hookturn_core::id::{KeyringId, ScheduleId, WorkspaceId};
use hookturn_core::proof::Noted;
use hookturn_core::schedule::{Schedule, ScheduleNote};
use hookturn_core::store::{Configuration, NewMessage, ReportedLog, StoreError};
use rusqlite::{Connection, params};

use super::configuration::{STEP, collect, execute, swapped};
use super::loading::{self, owner};
use super::rows::{self, Numbers, as_i64, from_document, to_document};
use super::traffic::accept_message;
use super::writer::Tx;

type Outcome<T> = Result<T, StoreError>;

// ----- writing -----

pub(super) fn keep_noted(
    tx: &Tx<'_>,
    workspace: WorkspaceId,
    keyring: KeyringId,
    noted: &Noted,
) -> Outcome<()> {
    let workspace = tx.workspace(workspace)?;
    let document = to_document("noted", noted)?;
    let sql = "INSERT INTO noted (workspace, keyring, document) VALUES (?, ?, ?)
               ON CONFLICT (workspace, keyring) DO UPDATE SET document = excluded.document";
    execute(
        tx,
        STEP,
        sql,
        params![workspace, keyring.to_bytes(), document],
    )
    .map(drop)
}

pub(super) fn report(
    tx: &mut Tx<'_>,
    workspace: WorkspaceId,
    (after, through): (u64, u64),
    messages: &[NewMessage],
) -> Outcome<()> {
    let number = tx.workspace(workspace)?;
    let sql = if after == 0 {
        "INSERT INTO reported (workspace, seq) VALUES (?1, ?3)
         ON CONFLICT (workspace) DO UPDATE SET seq = ?3 WHERE seq = ?2"
    } else {
        "UPDATE reported SET seq = ?3 WHERE workspace = ?1 AND seq = ?2"
    };
    let values = params![number, as_i64(after), as_i64(through)];
    let moved = execute(tx, STEP, sql, values)?;
    swapped(moved, "the reported part of the audit log of", &workspace)?;
    messages
        .iter()
        .try_for_each(|new| accept_message(tx, new.clone()))
}

pub(super) fn put_schedule(tx: &Tx<'_>, schedule: &Schedule) -> Outcome<()> {
    let workspace = tx.workspace(schedule.workspace)?;
    let document = to_document("schedule", schedule)?;
    let values = params![
        workspace,
        schedule.id.to_bytes(),
        as_i64(schedule.version),
        document
    ];
    let sql = if schedule.version == 1 {
        "INSERT INTO schedule (workspace, id, version, document) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE schedule SET version = ?3, document = ?4 WHERE workspace = ?1 AND id = ?2 AND version = ?3 - 1"
    };
    swapped(execute(tx, STEP, sql, values)?, "schedule", &schedule.id)
}

pub(super) fn remove_schedule(
    tx: &Tx<'_>,
    workspace: WorkspaceId,
    schedule: ScheduleId,
    version: u64,
) -> Outcome<()> {
    let number = tx.workspace(workspace)?;
    let sql = "DELETE FROM schedule WHERE workspace = ? AND id = ? AND version = ?";
    let values = params![number, schedule.to_bytes(), as_i64(version)];
    swapped(execute(tx, STEP, sql, values)?, "schedule", &schedule)?;
    let sql = "DELETE FROM schedule_note WHERE workspace = ? AND schedule = ?";
    execute(tx, STEP, sql, params![number, schedule.to_bytes()]).map(drop)
}

pub(super) fn keep_schedule_note(
    tx: &Tx<'_>,
    workspace: WorkspaceId,
    (schedule, keyring): (ScheduleId, KeyringId),
    note: &ScheduleNote,
) -> Outcome<()> {
    let workspace = tx.workspace(workspace)?;
    let document = to_document("schedule_note", note)?;
    let sql = "INSERT INTO schedule_note (workspace, schedule, keyring, document)
        SELECT ?1, ?2, ?3, ?4 FROM schedule WHERE workspace = ?1 AND id = ?2
        ON CONFLICT (workspace, schedule, keyring) DO UPDATE SET document = excluded.document";
    let values = params![workspace, schedule.to_bytes(), keyring.to_bytes(), document];
    // A schedule that is gone opens nothing: whoever noted this decides again.
    let kept = execute(tx, STEP, sql, values)?;
    swapped(kept, "schedule", &schedule)
}

// ----- loading -----

pub(super) fn load(
    connection: &Connection,
    numbers: &Numbers,
    loaded: &mut Configuration,
) -> Outcome<()> {
    const STEP: &str = loading::STEP;
    let sql = "SELECT keyring, document FROM noted";
    loaded.noted = collect(connection, STEP, sql, [], |row| {
        let keyring: KeyringId = rows::id(row, 0)?;
        let document = row.get_ref(1)?.as_str()?;
        Ok(from_document("noted", &keyring, document).map(|noted| (keyring, noted)))
    })?;
    let sql = "SELECT number, coalesce(seq, 0),
            coalesce((SELECT max(seq) FROM audit WHERE workspace = number), 0)
        FROM workspace LEFT JOIN reported ON reported.workspace = number";
    loaded.reported = collect(connection, STEP, sql, [], |row| {
        let number: i64 = row.get(0)?;
        let (through, last): (i64, i64) = (row.get(1)?, row.get(2)?);
        let workspace = owner(numbers, "reported", &number, number);
        Ok(workspace.map(|workspace| ReportedLog {
            workspace,
            through: through.cast_unsigned(),
            more: last > through,
        }))
    })?;
    let sql = "SELECT id, document FROM schedule";
    loaded.schedules = collect(connection, STEP, sql, [], |row| {
        let id: ScheduleId = rows::id(row, 0)?;
        Ok(from_document("schedule", &id, row.get_ref(1)?.as_str()?))
    })?;
    let sql = "SELECT schedule, keyring, document FROM schedule_note";
    loaded.schedule_notes = collect(connection, STEP, sql, [], |row| {
        let (schedule, keyring): (ScheduleId, KeyringId) = (rows::id(row, 0)?, rows::id(row, 1)?);
        let note = from_document("schedule_note", &schedule, row.get_ref(2)?.as_str()?);
        Ok(note.map(|note| (schedule, keyring, note)))
    })?;
    Ok(())
}

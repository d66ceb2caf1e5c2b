//! What happens without being asked for: how far audit logs were reported, what owners were told, schedules
//! and what they did.

use std::collections::BTreeMap;

use hookturn_core::id::{KeyringId, ScheduleId, WorkspaceId};
use hookturn_core::proof::Noted;
use hookturn_core::schedule::{Schedule, ScheduleNote};
use hookturn_core::store::Configuration;

use super::Outcome;
use super::configuration::{conflict, next_version};

/// All of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Planned {
    noted: BTreeMap<KeyringId, Noted>,
    reported: BTreeMap<WorkspaceId, u64>,
    schedules: BTreeMap<ScheduleId, Schedule>,
    notes: BTreeMap<(ScheduleId, KeyringId), ScheduleNote>,
}

impl Planned {
    pub(super) fn note(&mut self, keyring: KeyringId, noted: &Noted) {
        self.noted.insert(keyring, noted.clone());
    }

    /// The number of the last entry of a workspace's log that was reported.
    pub(super) fn reported(&self, workspace: WorkspaceId) -> u64 {
        self.reported.get(&workspace).copied().unwrap_or(0)
    }

    pub(super) fn report(
        &mut self,
        workspace: WorkspaceId,
        after: u64,
        through: u64,
    ) -> Outcome<()> {
        if self.reported(workspace) != after {
            return Err(conflict(
                "the reported part of the audit log of",
                &workspace,
            ));
        }
        self.reported.insert(workspace, through);
        Ok(())
    }

    pub(super) fn put(&mut self, schedule: &Schedule) -> Outcome<()> {
        let known = self.schedules.get(&schedule.id).map(|known| known.version);
        next_version(known, schedule.version, "schedule", &schedule.id)?;
        self.schedules.insert(schedule.id, schedule.clone());
        Ok(())
    }

    pub(super) fn remove(&mut self, schedule: ScheduleId, version: u64) -> Outcome<()> {
        let known = self.schedules.get(&schedule).map(|known| known.version);
        if known != Some(version) {
            return Err(conflict("schedule", &schedule));
        }
        self.schedules.remove(&schedule);
        self.notes.retain(|(of, _), _| *of != schedule);
        Ok(())
    }

    pub(super) fn put_note(
        &mut self,
        schedule: ScheduleId,
        keyring: KeyringId,
        note: &ScheduleNote,
    ) -> Outcome<()> {
        if !self.schedules.contains_key(&schedule) {
            return Err(conflict("schedule", &schedule));
        }
        self.notes.insert((schedule, keyring), *note);
        Ok(())
    }

    pub(super) fn load(&self, loaded: &mut Configuration) {
        let noted = self.noted.iter();
        loaded.noted = noted.map(|(id, noted)| (*id, noted.clone())).collect();
        loaded.schedules = self.schedules.values().cloned().collect();
        let notes = self.notes.iter();
        loaded.schedule_notes = notes
            .map(|((schedule, keyring), note)| (*schedule, *keyring, *note))
            .collect();
    }
}

//! The part of the live view that is about what happens without being asked for: reporting, notices,
//! schedules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hookturn_core::id::{KeyringId, ScheduleId, WorkspaceId};
use hookturn_core::proof::Noted;
use hookturn_core::schedule::{Schedule, ScheduleNote};
use hookturn_core::store::{ReportedLog, Write};

use super::Live;

#[derive(Debug, Default)]
pub(super) struct Planned {
    noted: HashMap<KeyringId, Noted>,
    reported: HashMap<WorkspaceId, u64>,
    /// Workspaces whose audit log may hold entries that were not reported.
    unreported: BTreeSet<WorkspaceId>,
    schedules: BTreeMap<ScheduleId, Arc<Schedule>>,
    schedule_notes: HashMap<(ScheduleId, KeyringId), ScheduleNote>,
}

impl Planned {
    pub(super) fn of(
        noted: Vec<(KeyringId, Noted)>,
        reported: Vec<ReportedLog>,
        schedules: Vec<Schedule>,
        notes: Vec<(ScheduleId, KeyringId, ScheduleNote)>,
    ) -> Self {
        let more = reported.iter().filter(|log| log.more);
        Self {
            noted: noted.into_iter().collect(),
            unreported: more.map(|log| log.workspace).collect(),
            reported: reported
                .into_iter()
                .map(|log| (log.workspace, log.through))
                .collect(),
            schedules: schedules
                .into_iter()
                .map(|schedule| (schedule.id, Arc::new(schedule)))
                .collect(),
            schedule_notes: notes
                .into_iter()
                .map(|(schedule, keyring, note)| ((schedule, keyring), note))
                .collect(),
        }
    }

    /// Applies a committed write, if it is about this part.
    pub(super) fn apply(&mut self, write: Write) {
        match write {
            Write::Noted { keyring, noted, .. } => {
                self.noted.insert(keyring, noted);
            }
            Write::Reported {
                workspace, through, ..
            } => {
                self.reported.insert(workspace, through);
            }
            Write::Schedule(schedule) => {
                self.schedules.insert(schedule.id, Arc::new(schedule));
            }
            Write::RemoveSchedule { schedule, .. } => {
                self.schedules.remove(&schedule);
                self.schedule_notes.retain(|(of, _), _| *of != schedule);
            }
            Write::ScheduleNote {
                schedule,
                keyring,
                note,
                ..
            } => {
                self.schedule_notes.insert((schedule, keyring), note);
            }
            Write::Workspace(_)
            | Write::ApiKey(_)
            | Write::App(_)
            | Write::RemoveApp { .. }
            | Write::Endpoint(_)
            | Write::Keyring(_)
            | Write::Rotation(_)
            | Write::Secret(_)
            | Write::Mark(_)
            | Write::MarkKey { .. }
            | Write::Bulk(_)
            | Write::BulkItem(_)
            | Write::Findings { .. }
            | Write::EraseSecret { .. }
            | Write::Requeue { .. } => {}
        }
    }
}

impl Live {
    /// What the owner of a keyring was told about its latest rotation.
    pub fn noted(&self, keyring: KeyringId) -> Option<Noted> {
        self.read().planned.noted.get(&keyring).cloned()
    }

    /// Up to which entry a workspace's audit log was reported.
    pub fn reported(&self, workspace: WorkspaceId) -> u64 {
        let view = self.read();
        view.planned.reported.get(&workspace).copied().unwrap_or(0)
    }

    /// The workspaces whose audit log grew since the last call, or was not reported whole.
    pub fn take_unreported(&self) -> BTreeSet<WorkspaceId> {
        if self.read().planned.unreported.is_empty() {
            return BTreeSet::new();
        }
        self.write(|view| std::mem::take(&mut view.planned.unreported))
    }

    /// The audit log of these workspaces may hold entries that were not reported. Engines call this after
    /// every commit that added some.
    pub fn note_audited(&self, workspaces: &[WorkspaceId]) {
        self.write(|view| view.planned.unreported.extend(workspaces));
    }

    /// One schedule.
    pub fn schedule(&self, id: ScheduleId) -> Option<Arc<Schedule>> {
        self.read().planned.schedules.get(&id).cloned()
    }

    /// Every schedule, in order of creation.
    pub fn schedules(&self) -> Vec<Arc<Schedule>> {
        self.read().planned.schedules.values().cloned().collect()
    }

    /// What a schedule did for a keyring.
    pub fn schedule_note(&self, schedule: ScheduleId, keyring: KeyringId) -> ScheduleNote {
        let view = self.read();
        let note = view.planned.schedule_notes.get(&(schedule, keyring));
        note.copied().unwrap_or_default()
    }
}

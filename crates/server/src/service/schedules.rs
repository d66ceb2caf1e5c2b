//! Schedules: made, changed, shown, and carried out.
//!
//! The sweep ([`Service::open_scheduled`]) takes no input and is idempotent: what `core::schedule` says is
//! due is opened in one change with the note for which due time, by comparing the keyring's version, so
//! that no due time is opened for twice, whoever sweeps and wherever it is interrupted. It opens in mode
//! `proven` or not at all: a keyring that cannot be proved at the moment is left as it is, with the reason
//! in the schedule's answer and, once for each due time and reason, in the audit log; and it is tried again.
//!
//! The new secret's value is in no answer. Whoever deploys it reads it by an audited reveal, so a
//! workspace that never reveals has no scheduled rotations of symmetric secrets.

use std::sync::{Arc, Mutex, PoisonError};

use hookturn_core::audit::{AuditAction, AuditEntry, Context, Subject};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{ClientId, KeyringId, RotationId, ScheduleId, draw};
use hookturn_core::limits;
use hookturn_core::proof::ProofPolicy;
use hookturn_core::rotation::{Command, KeyKind, Keyring, KeyringOwner, Mode, SecretState, apply};
use hookturn_core::schedule::{
    Blocked, DateBlackout, Facts, InvalidSchedule, Opened, Opening, Schedule, ScheduleNote,
    Selector, Skipped, Timing, WeeklyBlackout, Zone, next_opening, preview,
};
use hookturn_core::store::{Page, Write};
use hookturn_core::time::{Millis, SECOND, Timestamp};
use hookturn_core::workspace::{RevealPolicy, Scope};

use super::page::Listed;
use super::proving::system;
use super::{Caller, Decision, Recording, Service, ServiceError, check_name, check_version};

/// How long the sweep rests when nothing is due: what is blocked is tried again, and what a command has
/// brought forward is found, within this time, in milliseconds.
const REST: Millis = 10 * SECOND;

/// Keyrings that are skipped, and that are shown with an answer at most.
const SKIPPED_SHOWN: usize = 50;

/// What a new schedule shall be.
#[derive(Debug, Clone)]
pub struct NewSchedule {
    /// For people.
    pub name: String,
    /// For which keyrings.
    pub selector: Selector,
    /// When.
    pub timing: Timing,
    /// Where days and times are meant.
    pub zone: Zone,
    /// See [`Schedule::jitter_seconds`].
    pub jitter_seconds: u32,
    /// See [`Schedule::weekly_blackouts`].
    pub weekly_blackouts: Vec<WeeklyBlackout>,
    /// See [`Schedule::date_blackouts`].
    pub date_blackouts: Vec<DateBlackout>,
    /// The policy of the rotations.
    pub policy: ProofPolicy,
    /// Whether it opens nothing at first.
    pub paused: bool,
}

/// What to change of a schedule; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct SchedulePatch {
    /// For people.
    pub name: Option<String>,
    /// When.
    pub timing: Option<Timing>,
    /// Where days and times are meant.
    pub zone: Option<Zone>,
    /// See [`Schedule::jitter_seconds`].
    pub jitter_seconds: Option<u32>,
    /// See [`Schedule::weekly_blackouts`].
    pub weekly_blackouts: Option<Vec<WeeklyBlackout>>,
    /// See [`Schedule::date_blackouts`].
    pub date_blackouts: Option<Vec<DateBlackout>>,
    /// The policy of the rotations.
    pub policy: Option<ProofPolicy>,
    /// Whether it opens nothing.
    pub paused: Option<bool>,
}

/// A schedule with what comes of it.
#[derive(Debug, Clone)]
pub struct ShownSchedule {
    /// It.
    pub schedule: Schedule,
    /// How many keyrings it is for.
    pub keyrings: usize,
    /// The next openings of all of them together, earliest first.
    pub openings: Vec<(KeyringId, Opening)>,
    /// The keyrings for which a rotation is due that cannot be opened, earliest first.
    pub skipped: Vec<(KeyringId, Skipped)>,
    /// The latest rotations that it opened, latest first.
    pub opened: Vec<(KeyringId, Opened)>,
}

/// When the sweep has to look again.
#[derive(Debug, Default)]
pub(super) struct Scheduling(Mutex<Option<Look>>);

#[derive(Debug, Clone, Copy)]
struct Look {
    /// When it looked last.
    at: Timestamp,
    /// When something is due, or its rest is over.
    next: Timestamp,
    /// The version of the live view that it looked at: another node may have changed something since.
    view: u64,
}

impl Scheduling {
    /// Whether it is time to look: also when the clock was set back.
    fn is_due(&self, now: Timestamp, view: u64) -> bool {
        let look = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        look.is_none_or(|look| now >= look.next || now < look.at || view != look.view)
    }

    fn set(&self, look: Option<Look>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = look;
    }
}

/// What a schedule asks for one keyring now.
enum Asked {
    /// Nothing before this time, or nothing at all.
    Nothing(Option<Timestamp>),
    /// Open a rotation for this due time.
    Open(Timestamp),
    /// One is due at this time and cannot be opened.
    Skip(Timestamp, Blocked),
}

impl Service {
    /// Makes a schedule. Needs `secrets`.
    pub async fn create_schedule(
        &self,
        caller: &Caller,
        input: NewSchedule,
        recording: Option<Recording<'_, ShownSchedule>>,
    ) -> Result<ShownSchedule, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        check_name("/name", &input.name)?;
        let seed = u64::from_be_bytes(draw(self.entropy.as_ref()));
        let made = self
            .change(caller, recording, |now| {
                self.check_selector(caller, input.selector)?;
                let all = self.live.schedules();
                let own = all.iter().filter(|s| s.workspace == caller.workspace);
                if own.count() >= limits::SCHEDULES_PER_WORKSPACE {
                    let most = limits::SCHEDULES_PER_WORKSPACE;
                    let message = format!("a workspace has at most {most} schedules: delete one");
                    return Err(ServiceError::conflict("too_many_schedules", message));
                }
                let input = input.clone();
                let schedule = Schedule {
                    id: ScheduleId::new(now, self.entropy.as_ref()),
                    workspace: caller.workspace,
                    name: input.name,
                    selector: input.selector,
                    timing: input.timing,
                    zone: input.zone,
                    jitter_seconds: input.jitter_seconds,
                    weekly_blackouts: input.weekly_blackouts,
                    date_blackouts: input.date_blackouts,
                    policy: input.policy,
                    paused: input.paused,
                    seed,
                    since: now,
                    version: 1,
                    created_at: now,
                    updated_at: now,
                };
                self.put(schedule, AuditAction::ScheduleCreated, now)
            })
            .await;
        self.scheduling.set(None);
        made
    }

    /// One schedule. Needs `read`.
    pub async fn schedule(
        &self,
        caller: &Caller,
        id: ScheduleId,
    ) -> Result<ShownSchedule, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let schedule = self.own_schedule(caller, id)?;
        Ok(self.shown_schedule(Schedule::clone(&schedule), self.clock.now()))
    }

    /// A page of schedules, newest first. Needs `read`.
    pub async fn schedules(
        &self,
        caller: &Caller,
        page: Page<ScheduleId>,
    ) -> Result<Listed<Arc<Schedule>>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let mut own = self.live.schedules();
        own.retain(|schedule| schedule.workspace == caller.workspace);
        Ok(Listed::of(own.into_iter().rev(), &page, |schedule| {
            schedule.id
        }))
    }

    /// Changes a schedule. New times and a resumed one count from now on; what is so already changes
    /// nothing, its version included. Needs `secrets`.
    pub async fn patch_schedule(
        &self,
        caller: &Caller,
        id: ScheduleId,
        patch: SchedulePatch,
        if_match: Option<u64>,
    ) -> Result<ShownSchedule, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        if let Some(name) = &patch.name {
            check_name("/name", name)?;
        }
        let patched = self
            .change(caller, None, |now| {
                let old = self.own_schedule(caller, id)?;
                check_version(if_match, old.version)?;
                let new = patched(&old, patch.clone(), now);
                if new == *old {
                    return Ok(Decision::nothing(self.shown_schedule(new, now)));
                }
                let new = Schedule {
                    version: old.version + 1,
                    updated_at: now,
                    ..new
                };
                self.put(new, AuditAction::ScheduleUpdated, now)
            })
            .await;
        self.scheduling.set(None);
        patched
    }

    /// Deletes a schedule. Rotations that it opened stay as they are. Needs `secrets`.
    pub async fn delete_schedule(
        &self,
        caller: &Caller,
        id: ScheduleId,
        if_match: Option<u64>,
    ) -> Result<(), ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        self.change(caller, None, |_| {
            let old = self.own_schedule(caller, id)?;
            check_version(if_match, old.version)?;
            Ok(Decision {
                writes: vec![Write::RemoveSchedule {
                    workspace: old.workspace,
                    schedule: id,
                    version: old.version,
                }],
                audit: vec![entry(&old, AuditAction::ScheduleDeleted)],
                out: (),
                shows: None,
            })
        })
        .await
    }

    fn own_schedule(&self, caller: &Caller, id: ScheduleId) -> Result<Arc<Schedule>, ServiceError> {
        let found = self.live.schedule(id);
        if let Some(foreign) = found.as_deref()
            && foreign.workspace != caller.workspace
        {
            self.note_foreign(caller, foreign.workspace);
        }
        found
            .filter(|schedule| schedule.workspace == caller.workspace)
            .ok_or(ServiceError::not_found("schedule"))
    }

    fn check_selector(&self, caller: &Caller, selector: Selector) -> Result<(), ServiceError> {
        match selector {
            Selector::Workspace => Ok(()),
            Selector::Keyring { keyring } => match self.own_keyring(caller, keyring) {
                Ok(_) => Ok(()),
                Err(_) => Err(ServiceError::invalid("/keyringId", "no such keyring")),
            },
            Selector::App { app } => match self.live.app(caller.workspace, app) {
                Some(_) => Ok(()),
                None => Err(ServiceError::invalid("/clientId", "no such app")),
            },
        }
    }

    /// The decision to store a schedule, once it was checked.
    fn put(
        &self,
        schedule: Schedule,
        action: AuditAction,
        now: Timestamp,
    ) -> Result<Decision<ShownSchedule>, ServiceError> {
        schedule
            .check()
            .map_err(|InvalidSchedule { field, reason }| ServiceError::invalid(field, reason))?;
        Ok(Decision {
            writes: vec![Write::Schedule(schedule.clone())],
            audit: vec![entry(&schedule, action)],
            out: self.shown_schedule(schedule, now),
            shows: None,
        })
    }

    fn shown_schedule(&self, schedule: Schedule, now: Timestamp) -> ShownSchedule {
        let keyrings = self.selected(&schedule);
        let (mut first, mut skipped, mut opened) = (Vec::new(), Vec::new(), Vec::new());
        for keyring in &keyrings {
            let note = self.live.schedule_note(schedule.id, keyring.id);
            opened.extend(note.opened.map(|opened| (keyring.id, opened)));
            let facts = facts_of(keyring, note);
            match next_opening(&schedule, &facts, now) {
                Ok(opening) if opening.opens_at <= now => {
                    match self.blocked(&schedule, keyring, now) {
                        Some(why) => skipped.push((keyring.id, skip(note, opening.due, why, now))),
                        None => first.push((opening, facts)),
                    }
                }
                Ok(opening) => first.push((opening, facts)),
                Err(_) => {}
            }
        }
        // The earliest openings of all are among those of the keyrings that come first.
        first.sort_by_key(|(opening, facts)| (opening.opens_at, facts.keyring));
        first.truncate(limits::PREVIEW_OPENINGS);
        let mut openings: Vec<_> = first
            .iter()
            .flat_map(|(_, facts)| {
                let coming = preview(&schedule, facts, now, limits::PREVIEW_OPENINGS);
                coming.into_iter().map(|opening| (facts.keyring, opening))
            })
            .collect();
        openings.sort_by_key(|(keyring, opening)| (opening.opens_at, *keyring));
        openings.truncate(limits::PREVIEW_OPENINGS);
        skipped.sort_by_key(|(keyring, skipped)| (skipped.due, *keyring));
        skipped.truncate(SKIPPED_SHOWN);
        opened.sort_by_key(|(_, opened): &(_, Opened)| std::cmp::Reverse(opened.at));
        opened.truncate(limits::PREVIEW_OPENINGS);
        ShownSchedule {
            schedule,
            keyrings: keyrings.len(),
            openings,
            skipped,
            opened,
        }
    }

    /// The keyrings that a schedule is for. Those that never had a secret sign for nobody.
    fn selected(&self, schedule: &Schedule) -> Vec<Arc<Keyring>> {
        let mut keyrings = match schedule.selector {
            Selector::Keyring { keyring } => self.live.keyring(keyring).into_iter().collect(),
            Selector::App { app } => self.keyrings_of(schedule, app),
            Selector::Workspace => self.live.keyrings(schedule.workspace),
        };
        keyrings.retain(|keyring| {
            keyring.workspace == schedule.workspace
                && !keyring.secrets.is_empty()
                && self.serves(keyring)
        });
        keyrings
    }

    fn keyrings_of(&self, schedule: &Schedule, app: ClientId) -> Vec<Arc<Keyring>> {
        let endpoints = self.live.endpoints(schedule.workspace, app);
        endpoints
            .iter()
            .filter_map(|endpoint| self.live.keyring(endpoint.keyring))
            .filter(|keyring| matches!(keyring.owner, KeyringOwner::Endpoint { .. }))
            .collect()
    }

    /// Opens the rotations that schedules ask for now, a bounded number of them. Returns how many. One that
    /// fails holds up none of the others, and is tried again.
    pub async fn open_scheduled(&self) -> Result<usize, ServiceError> {
        let (now, view) = (self.clock.now(), self.store.view());
        if !self.scheduling.is_due(now, view) {
            return Ok(0);
        }
        let mut next = now.after(REST);
        let (mut opened, mut failed) = (0, Ok(()));
        for schedule in self.live.schedules() {
            for keyring in self.selected(&schedule) {
                match self.asked(&schedule, &keyring, now) {
                    Asked::Nothing(until) => next = until.map_or(next, |until| until.min(next)),
                    Asked::Skip(due, why) if self.is_noted(&schedule, &keyring, due, why) => {}
                    // The others follow with the next look.
                    Asked::Open(_) | Asked::Skip(..) if opened >= limits::OPENINGS_AT_ONCE => {
                        next = now;
                    }
                    Asked::Open(_) | Asked::Skip(..) => {
                        opened += 1;
                        if let Err(error) = self.carry_out(schedule.id, keyring.id).await {
                            failed = Err(error);
                        }
                    }
                }
            }
        }
        let at = now;
        self.scheduling.set(Some(Look { at, next, view }));
        failed.map(|()| opened)
    }

    fn asked(&self, schedule: &Schedule, keyring: &Keyring, now: Timestamp) -> Asked {
        let note = self.live.schedule_note(schedule.id, keyring.id);
        match next_opening(schedule, &facts_of(keyring, note), now) {
            Err(_) => Asked::Nothing(None),
            Ok(opening) if now < opening.opens_at => Asked::Nothing(Some(opening.opens_at)),
            Ok(opening) => match self.blocked(schedule, keyring, now) {
                Some(why) => Asked::Skip(opening.due, why),
                None => Asked::Open(opening.due),
            },
        }
    }

    fn is_noted(
        &self,
        schedule: &Schedule,
        keyring: &Keyring,
        due: Timestamp,
        why: Blocked,
    ) -> bool {
        let note = self.live.schedule_note(schedule.id, keyring.id);
        note.skipped
            .is_some_and(|known| (known.due, known.why) == (due, why))
    }

    /// Why a rotation in mode `proven` cannot be opened now, if it cannot.
    fn blocked(&self, schedule: &Schedule, keyring: &Keyring, now: Timestamp) -> Option<Blocked> {
        if keyring.rotation_in_the_way(now).is_some() {
            return Some(Blocked::RotationOpen);
        }
        let reveal = self.live.workspace(schedule.workspace);
        let reveal = reveal.map(|workspace| workspace.settings.reveal_secrets);
        if keyring.kind == KeyKind::Symmetric && reveal == Some(RevealPolicy::Never) {
            return Some(Blocked::RevealDisabled);
        }
        let mode = Mode::Proven {
            policy: schedule.policy,
        };
        match self.check_provable(keyring, mode, now) {
            Ok(()) => {
                let counted = self.endpoints_that_count(keyring, mode, now);
                let fooled = |one: &Arc<Endpoint>| self.live.findings(one.id).does_not_verify();
                counted.iter().any(fooled).then_some(Blocked::DoesNotVerify)
            }
            Err(error) => Some(match error.code() {
                "endpoint_not_enabled" => Blocked::EndpointNotEnabled,
                "never_contacted" => Blocked::NeverContacted,
                "nothing_to_prove" => Blocked::NothingToProve,
                _ => Blocked::NotProvable,
            }),
        }
    }

    /// Opens or skips what a schedule asks for a keyring, decided on what is there when it is stored.
    async fn carry_out(
        &self,
        schedule: ScheduleId,
        keyring: KeyringId,
    ) -> Result<(), ServiceError> {
        let Some(workspace) = self.live.keyring(keyring).map(|keyring| keyring.workspace) else {
            return Ok(());
        };
        let context = Context {
            reason: Some(format!("schedule {schedule}")),
            ..system()
        };
        let _turn = self.keyring_turns.of(&keyring).await;
        self.commit(workspace, &context, None, |now| {
            let (Some(schedule), Some(keyring)) =
                (self.live.schedule(schedule), self.live.keyring(keyring))
            else {
                return Ok(Decision::nothing(()));
            };
            match self.asked(&schedule, &keyring, now) {
                Asked::Nothing(_) => Ok(Decision::nothing(())),
                Asked::Skip(due, why) => Ok(self.skipping(&schedule, &keyring, due, why, now)),
                Asked::Open(due) => self.opening(&schedule, &keyring, due, &context, now),
            }
        })
        .await
    }

    fn opening(
        &self,
        schedule: &Schedule,
        keyring: &Keyring,
        due: Timestamp,
        context: &Context,
        now: Timestamp,
    ) -> Result<Decision<()>, ServiceError> {
        let value = self.value_for(keyring, None)?;
        let secret = self.named(&value, None, now);
        let (id, rotation) = (secret.id, RotationId::new(now, self.entropy.as_ref()));
        let command = Command::Rotate {
            rotation,
            mode: Mode::Proven {
                policy: schedule.policy,
            },
            secret,
            reason: context.reason.clone(),
        };
        let mut applied = apply(keyring, command, now)?;
        for entry in &mut applied.audit {
            if entry.action == AuditAction::RotationOpened {
                *entry = entry
                    .clone()
                    .with("schedule", schedule.id)
                    .with("dueAt", due);
            }
        }
        let mut decision = self.with_new_secret(applied, id, value, |_, _| ())?;
        decision.writes.push(Write::ScheduleNote {
            workspace: schedule.workspace,
            schedule: schedule.id,
            keyring: keyring.id,
            note: ScheduleNote {
                opened: Some(Opened {
                    due,
                    rotation,
                    at: now,
                }),
                skipped: None,
            },
        });
        Ok(decision)
    }

    fn skipping(
        &self,
        schedule: &Schedule,
        keyring: &Keyring,
        due: Timestamp,
        why: Blocked,
        now: Timestamp,
    ) -> Decision<()> {
        let note = self.live.schedule_note(schedule.id, keyring.id);
        let endpoint = match keyring.owner {
            KeyringOwner::Endpoint { endpoint } => Some(endpoint),
            KeyringOwner::Shared => None,
        };
        let subject = Subject {
            app: endpoint.and_then(|id| Some(self.live.endpoint(id)?.app)),
            endpoint,
            keyring: Some(keyring.id),
            ..Subject::default()
        };
        let entry = AuditEntry::new(AuditAction::ScheduleSkipped, subject)
            .with("schedule", schedule.id)
            .with("name", &schedule.name)
            .with("dueAt", due)
            .with("why", why.as_str())
            .with("words", why.words());
        Decision {
            writes: vec![Write::ScheduleNote {
                workspace: schedule.workspace,
                schedule: schedule.id,
                keyring: keyring.id,
                note: ScheduleNote {
                    skipped: Some(skip(note, due, why, now)),
                    ..note
                },
            }],
            audit: vec![entry],
            out: (),
            shows: None,
        }
    }
}

fn facts_of(keyring: &Keyring, note: ScheduleNote) -> Facts {
    let active_since = keyring.active().and_then(|secret| match secret.state {
        SecretState::Active { since } => Some(since),
        SecretState::Pending
        | SecretState::Retiring { .. }
        | SecretState::Retired { .. }
        | SecretState::Destroyed { .. } => None,
    });
    Facts {
        keyring: keyring.id,
        active_since,
        opened_for: note.opened.map(|opened| opened.due),
    }
}

/// That a rotation is skipped, since when it is for this reason.
fn skip(note: ScheduleNote, due: Timestamp, why: Blocked, now: Timestamp) -> Skipped {
    note.skipped
        .filter(|known| (known.due, known.why) == (due, why))
        .unwrap_or(Skipped {
            due,
            why,
            since: now,
        })
}

fn patched(old: &Schedule, patch: SchedulePatch, now: Timestamp) -> Schedule {
    let resumed = old.paused && patch.paused == Some(false);
    let other_times = patch.timing.is_some_and(|timing| timing != old.timing)
        || patch.zone.as_ref().is_some_and(|zone| *zone != old.zone);
    let old = old.clone();
    Schedule {
        name: patch.name.unwrap_or(old.name),
        timing: patch.timing.unwrap_or(old.timing),
        zone: patch.zone.unwrap_or(old.zone),
        jitter_seconds: patch.jitter_seconds.unwrap_or(old.jitter_seconds),
        weekly_blackouts: patch.weekly_blackouts.unwrap_or(old.weekly_blackouts),
        date_blackouts: patch.date_blackouts.unwrap_or(old.date_blackouts),
        policy: patch.policy.unwrap_or(old.policy),
        paused: patch.paused.unwrap_or(old.paused),
        since: if resumed || other_times {
            now
        } else {
            old.since
        },
        ..old
    }
}

fn entry(schedule: &Schedule, action: AuditAction) -> AuditEntry {
    let subject = match schedule.selector {
        Selector::Workspace => Subject::default(),
        Selector::Keyring { keyring } => Subject {
            keyring: Some(keyring),
            ..Subject::default()
        },
        Selector::App { app } => Subject {
            app: Some(app),
            ..Subject::default()
        },
    };
    AuditEntry::new(action, subject)
        .with("schedule", schedule.id)
        .with("name", &schedule.name)
}

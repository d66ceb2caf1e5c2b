//! Schedules: rules by which rotations of mode `proven` are opened without anyone asking.
//!
//! A schedule says for which keyrings ([`Selector`]), when ([`Timing`], jitter, blackouts) and with which
//! [`ProofPolicy`]. It opens a rotation and does nothing else: the new secret waits until it is proved,
//! as if a person had opened it, and nothing here promotes or falls back to another mode.
//!
//! All of it is decided purely: [`next_opening`] from the schedule, what is known of the keyring and the
//! time. Time zones are those of the database that is compiled in, so that the same schedule means the
//! same on every machine.

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{ClientId, KeyringId, RotationId, ScheduleId, WorkspaceId};
use crate::limits;
use crate::proof::{InvalidPolicy, ProofPolicy};
use crate::time::{DAY, Millis, SECOND, Timestamp};

mod calendar;

pub use calendar::{
    Calendar, DateBlackout, Day, ParseError, TimeOfDay, Weekday, WeeklyBlackout, Zone,
};

/// A rule by which rotations are opened. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Its id.
    pub id: ScheduleId,
    /// The workspace that owns it.
    pub workspace: WorkspaceId,
    /// For people.
    pub name: String,
    /// For which keyrings.
    pub selector: Selector,
    /// When.
    pub timing: Timing,
    /// Where the days and times of timing and blackouts are meant.
    pub zone: Zone,
    /// Each opening is put off by up to so many seconds, by keyring and due time.
    pub jitter_seconds: u32,
    /// When nothing is opened, every week.
    pub weekly_blackouts: Vec<WeeklyBlackout>,
    /// On which days nothing is opened.
    pub date_blackouts: Vec<DateBlackout>,
    /// The policy of the rotations.
    pub policy: ProofPolicy,
    /// Whether it opens nothing at the moment.
    pub paused: bool,
    /// What its jitter is drawn from: random, once.
    pub seed: u64,
    /// Since when it counts: when it was made, was given other keyrings or times, or was resumed.
    pub since: Timestamp,
    /// Compare-and-swap counter, 1 for the first stored form.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// For which keyrings a schedule opens rotations. Keyrings that never had a secret are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Selector {
    /// For one, which may be the shared one.
    Keyring {
        /// Which.
        keyring: KeyringId,
    },
    /// For those that the endpoints of an app have for themselves.
    App {
        /// Which app.
        app: ClientId,
    },
    /// For all of the workspace, the shared one included.
    Workspace,
}

/// When a rotation is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Timing {
    /// When the active secret is so many times 24 hours old, and again each time as much later.
    Age {
        /// How many.
        days: u16,
    },
    /// By the calendar.
    Calendar(Calendar),
}

/// A schedule that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct InvalidSchedule {
    /// The field, as a JSON pointer into the API's form.
    pub field: String,
    /// What is wrong and what is allowed.
    pub reason: &'static str,
}

/// What is known of a keyring that a schedule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Which one.
    pub keyring: KeyringId,
    /// Since when its active secret is active.
    pub active_since: Option<Timestamp>,
    /// The latest due time for which this schedule opened a rotation of it.
    pub opened_for: Option<Timestamp>,
}

/// When the next rotation of a keyring is due, and when it may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// When it is due. No due time is opened for twice.
    pub due: Timestamp,
    /// When it may be opened: not before it is due, and in no blackout.
    pub opens_at: Timestamp,
}

/// Why a schedule opens nothing for a keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Never {
    /// It is paused.
    Paused,
    /// The keyring has no active secret, so there is nothing to rotate from.
    NoActiveSecret,
    /// Its blackouts leave no time.
    AlwaysBlackedOut,
}

/// Why a rotation that is due cannot be opened in mode `proven` at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blocked {
    /// Another one is open, or was undone and its new secret is live still.
    RotationOpen,
    /// The endpoint is not enabled.
    EndpointNotEnabled,
    /// The endpoint never accepted anything, so it gets no probes.
    NeverContacted,
    /// No endpoint of a shared keyring accepted anything lately.
    NothingToProve,
    /// Nothing can be proved for another reason, such as probes that are turned off.
    NotProvable,
    /// A receiver is known to accept any signature.
    DoesNotVerify,
    /// Secrets are not shown again in this workspace, so nobody could get the new one.
    RevealDisabled,
}

impl Blocked {
    /// The word that API and audit log use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RotationOpen => "rotation_open",
            Self::EndpointNotEnabled => "endpoint_not_enabled",
            Self::NeverContacted => "never_contacted",
            Self::NothingToProve => "nothing_to_prove",
            Self::NotProvable => "not_provable",
            Self::DoesNotVerify => "does_not_verify",
            Self::RevealDisabled => "reveal_disabled",
        }
    }

    /// The same in words, with what helps.
    pub const fn words(self) -> &'static str {
        match self {
            Self::RotationOpen => {
                "another rotation is open, or was undone while its secret stays live: finish, undo or \
                 cancel it, or wait for its end"
            }
            Self::EndpointNotEnabled => "the endpoint is not enabled: enable it",
            Self::NeverContacted => {
                "the endpoint never accepted anything, so nothing can be proved: send a test event"
            }
            Self::NothingToProve => {
                "no endpoint of this keyring accepted a delivery lately, so nothing can be proved"
            }
            Self::NotProvable => "nothing can be proved about the receiver: rehearse it to see why",
            Self::DoesNotVerify => {
                "the receiver accepted a request signed with a random key, so nothing can be proved: \
                 make it verify and rehearse it, or rotate by hand with mode overlap"
            }
            Self::RevealDisabled => {
                "this workspace never shows a secret again, so nobody could get the new one: allow \
                 it, or rotate by hand"
            }
        }
    }
}

/// What a schedule did for one keyring. Stored as JSON beside the schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScheduleNote {
    /// The latest rotation that it opened.
    pub opened: Option<Opened>,
    /// Why the one that is due was not opened yet.
    pub skipped: Option<Skipped>,
}

/// A rotation that a schedule opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opened {
    /// The due time it was opened for.
    pub due: Timestamp,
    /// The rotation.
    pub rotation: RotationId,
    /// When it was opened.
    pub at: Timestamp,
}

/// A rotation that is due and cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// Since when it is due.
    pub due: Timestamp,
    /// Why it cannot be opened.
    pub why: Blocked,
    /// Since when that is known.
    pub since: Timestamp,
}

impl Schedule {
    /// Whether the schedule can work, each field within its bounds.
    pub fn check(&self) -> Result<(), InvalidSchedule> {
        let refused = |field: &str, reason| {
            Err(InvalidSchedule {
                field: field.to_owned(),
                reason,
            })
        };
        match self.timing {
            Timing::Age { days } if !(1..=limits::SCHEDULE_DAYS_MAX).contains(&days) => {
                return refused("/everyDays", "must be from 1 to 3650");
            }
            Timing::Calendar(Calendar { every_months, .. })
                if !(1..=12).contains(&every_months) || !12_u8.is_multiple_of(every_months) =>
            {
                return refused("/calendar/everyMonths", "must be 1, 2, 3, 4, 6 or 12");
            }
            Timing::Calendar(Calendar { day_of_month, .. })
                if !(1..=31).contains(&day_of_month) =>
            {
                return refused("/calendar/dayOfMonth", "must be from 1 to 31");
            }
            Timing::Age { .. } | Timing::Calendar(_) => {}
        }
        if self.jitter_seconds > limits::JITTER_SECONDS_MAX {
            return refused("/jitterSeconds", "must be at most 604800, a week");
        }
        if self.weekly_blackouts.len() > limits::BLACKOUTS {
            return refused("/weeklyBlackouts", "has more than 50 entries");
        }
        if self.date_blackouts.len() > limits::BLACKOUTS {
            return refused("/dateBlackouts", "has more than 50 entries");
        }
        for (index, weekly) in self.weekly_blackouts.iter().enumerate() {
            if weekly.begins() == weekly.ends() {
                let field = format!("/weeklyBlackouts/{index}/untilTime");
                return refused(&field, "ends when it begins");
            }
        }
        for (index, dates) in self.date_blackouts.iter().enumerate() {
            if dates.until < dates.from {
                let field = format!("/dateBlackouts/{index}/until");
                return refused(&field, "is before from");
            }
        }
        if self.free_from(self.since).is_none() {
            return refused("/weeklyBlackouts", "leave no time to open a rotation");
        }
        match self.policy.check() {
            Ok(()) => Ok(()),
            Err(InvalidPolicy { field, reason }) => refused(&format!("/policy/{field}"), reason),
        }
    }

    /// Whether nothing may be opened at `at`.
    pub fn in_blackout(&self, at: Timestamp) -> bool {
        self.blackout_end(at).is_some()
    }

    /// The first time from `at` on that is in no blackout, unless they leave none.
    fn free_from(&self, at: Timestamp) -> Option<Timestamp> {
        // Each step leaves one entry behind; weekly ones that overlap come up once a week.
        let mut free = at;
        for _ in 0..=4 * limits::BLACKOUTS {
            match self.blackout_end(free) {
                Some(end) => free = end,
                None => return Some(free),
            }
        }
        None
    }

    /// The latest end of the blackouts that hold `at`.
    fn blackout_end(&self, at: Timestamp) -> Option<Timestamp> {
        let local = self.zone.local(at);
        let weekly = self.weekly_blackouts.iter().filter(|b| b.holds(local));
        let weekly = weekly.map(|blackout| blackout.next_end(local));
        let dates = self.date_blackouts.iter().filter(|b| b.holds(local));
        let dates = dates.map(|blackout| DateTime::from(blackout.until.next()));
        let end = weekly.chain(dates).max()?;
        Some(self.zone.instant_after(end, at))
    }

    /// The first time from `at` on that is in no blackout, and where that is the end of one, put off by `jitter`, or
    /// by a half, a quarter, … of it where that falls into another: so what waited for the end is not opened all at
    /// once.
    fn spread_from(&self, at: Timestamp, jitter: Millis) -> Option<Timestamp> {
        let free = self.free_from(at)?;
        if free == at {
            return Some(free);
        }
        (0..Millis::BITS)
            .map(|halved| free.after(jitter >> halved))
            .find(|put_off| !self.in_blackout(*put_off))
            .or(Some(free))
    }

    fn jitter(&self, keyring: KeyringId, due: Timestamp) -> Millis {
        let most = u64::from(self.jitter_seconds) * SECOND;
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(keyring.to_bytes());
        hash.update(due.as_millis().to_be_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let drawn = hash.iter().take(8);
        drawn.fold(0, |drawn, byte| drawn << 8 | u64::from(*byte)) % (most + 1)
    }
}

/// When the next rotation of a keyring is to be opened.
///
/// 1. A paused schedule opens nothing, and a keyring without an active secret has nothing to rotate from.
/// 2. By age, due times are the activation of the active secret plus 1, 2, 3, … times the age. By the
///    calendar they are its dates after the schedule counts and after the active secret became active:
///    a younger secret has had its rotation.
/// 3. No due time at or before one that was opened for comes again, wherever the clock goes.
/// 4. Of several due times that passed, the latest counts: what was missed is made up for once. If none
///    has passed, the next one.
/// 5. It opens at its due time, or when the schedule began to count if that is later, put off by the
///    jitter: the same for the same keyring and due time, and at most `jitterSeconds`.
/// 6. What falls into a blackout is put off to its end, and again if that falls into another, and from there by the
///    jitter once more, or by as much of it as ends in no blackout: a half, a quarter, and so on. What is late is not
///    opened in a blackout either, and opened as soon as that ends.
pub fn next_opening(schedule: &Schedule, facts: &Facts, now: Timestamp) -> Result<Opening, Never> {
    if schedule.paused {
        return Err(Never::Paused);
    }
    let since = facts.active_since.ok_or(Never::NoActiveSecret)?;
    let due = match schedule.timing {
        Timing::Age { days } => due_by_age(since, days, facts.opened_for, now),
        Timing::Calendar(calendar) => {
            let after = schedule.since.max(since);
            let after = facts.opened_for.map_or(after, |opened| opened.max(after));
            due_by_calendar(calendar, &schedule.zone, after, now)
        }
    };
    let start = due.max(schedule.since);
    let jitter = schedule.jitter(facts.keyring, due);
    let planned = schedule
        .spread_from(start.after(jitter), jitter)
        .ok_or(Never::AlwaysBlackedOut)?;
    let opens_at = if planned <= now && schedule.in_blackout(now) {
        schedule.free_from(now).ok_or(Never::AlwaysBlackedOut)?
    } else {
        planned
    };
    Ok(Opening { due, opens_at })
}

/// The next openings of a keyring, at most `count`, if each is proved as soon as it is opened.
pub fn preview(schedule: &Schedule, facts: &Facts, now: Timestamp, count: usize) -> Vec<Opening> {
    let mut openings = Vec::with_capacity(count);
    let (mut facts, mut now) = (*facts, now);
    while openings.len() < count {
        let Ok(opening) = next_opening(schedule, &facts, now) else {
            break;
        };
        now = now.max(opening.opens_at);
        facts.opened_for = Some(opening.due);
        facts.active_since = Some(now);
        openings.push(opening);
    }
    openings
}

fn due_by_age(
    since: Timestamp,
    days: u16,
    opened_for: Option<Timestamp>,
    now: Timestamp,
) -> Timestamp {
    let age = u64::from(days.max(1)) * DAY;
    let passed = now.since(since) / age;
    // Opened for a time that belongs to an older secret: nothing of this one was opened.
    let done = opened_for.map_or(0, |opened| opened.since(since) / age);
    since.after(passed.max(done + 1).saturating_mul(age))
}

fn due_by_calendar(calendar: Calendar, zone: &Zone, after: Timestamp, now: Timestamp) -> Timestamp {
    if let Some(passed) = calendar.last_by(zone, now).filter(|at| *at > after) {
        return passed;
    }
    calendar.first_after(zone, after.max(now))
}

//! Schedules: rules by which rotations of mode `proven` are opened without anyone asking.
//!
//! A schedule says for which keyrings ([`Selector`]), when ([`Timing`], jitter, blackouts) and with which
//! [`ProofPolicy`]. It opens a rotation and does nothing else: the new secret waits until it is proved,
//! as if a person had opened it, and nothing here promotes or falls back to another mode.
//!
//! All of it is decided purely: [`next_opening`] from the schedule, what is known of the keyring and the
//! time. Time zones are those of the database that is compiled in, so that the same schedule means the
//! same on every machine.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use jiff::ToSpan as _;
use jiff::civil::{Date, DateTime};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::id::{ClientId, KeyringId, RotationId, ScheduleId, WorkspaceId};
use crate::limits;
use crate::proof::{InvalidPolicy, ProofPolicy};
use crate::time::{DAY, HOUR, MINUTE, Millis, SECOND, Timestamp};

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

/// A day of the month and a time of the day, in every n-th month from January on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Calendar {
    /// In which months: 1 all, 3 January, April, July and October; a divisor of 12.
    pub every_months: u8,
    /// 1 to 31; the last day of a shorter month.
    pub day_of_month: u8,
    /// The time. One that the clocks skip is moved behind the gap, of one that comes twice the first counts.
    pub time: TimeOfDay,
}

/// A part of every week, from one time up to another, which does not belong to it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeeklyBlackout {
    /// The day on which it begins.
    pub from_day: Weekday,
    /// The time at which it begins.
    pub from_time: TimeOfDay,
    /// The day on which it ends, perhaps in the next week.
    pub until_day: Weekday,
    /// The time at which it ends.
    pub until_time: TimeOfDay,
}

/// Whole days, the last one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DateBlackout {
    /// The first day.
    pub from: Day,
    /// The last day.
    pub until: Day,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are the days of the week")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// Hours and minutes of a day: `03:30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOfDay {
    hour: u8,
    minute: u8,
}

/// A day of the calendar: `2026-12-24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(Date);

/// A time zone of the IANA database, such as `Europe/Berlin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// The text is none of what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be {0}")]
pub struct ParseError(&'static str);

impl FromStr for TimeOfDay {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const EXPECTED: ParseError = ParseError("a time from 00:00 to 23:59");
        let bytes: [u8; 5] = text.as_bytes().try_into().map_err(|_| EXPECTED)?;
        let digits = [bytes[0], bytes[1], bytes[3], bytes[4]];
        if bytes[2] != b':' || !digits.iter().all(u8::is_ascii_digit) {
            return Err(EXPECTED);
        }
        let [a, b, c, d] = digits.map(|digit| digit - b'0');
        let (hour, minute) = (a * 10 + b, c * 10 + d);
        if hour > 23 || minute > 59 {
            return Err(EXPECTED);
        }
        Ok(Self { hour, minute })
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

impl FromStr for Day {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const EXPECTED: ParseError = ParseError("a date from 1970-01-01 to 9998-12-31");
        let date: Date = text.parse().map_err(|_| EXPECTED)?;
        // One form only: the parser takes others too.
        if date.to_string() == text && (1970..=9998).contains(&date.year()) {
            Ok(Self(date))
        } else {
            Err(EXPECTED)
        }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);
}

impl FromStr for Zone {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        static KNOWN: OnceLock<TimeZoneDatabase> = OnceLock::new();
        if text == "UTC" {
            return Ok(Self::UTC);
        }
        KNOWN
            .get_or_init(TimeZoneDatabase::bundled)
            .get(text)
            .map(Self)
            .map_err(|_| ParseError("a time zone of the IANA database such as Europe/Berlin"))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(TimeOfDay, Day, Zone);

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
    /// Another one is open.
    RotationOpen,
    /// The endpoint is not enabled.
    EndpointNotEnabled,
    /// The endpoint never accepted anything, so it gets no probes.
    NeverContacted,
    /// No endpoint of a shared keyring accepted anything lately.
    NothingToProve,
    /// Nothing can be proved for another reason, such as probes that are turned off.
    NotProvable,
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
            Self::RevealDisabled => "reveal_disabled",
        }
    }

    /// The same in words, with what helps.
    pub const fn words(self) -> &'static str {
        match self {
            Self::RotationOpen => "another rotation is open: finish, undo or cancel it",
            Self::EndpointNotEnabled => "the endpoint is not enabled: enable it",
            Self::NeverContacted => {
                "the endpoint never accepted anything, so nothing can be proved: send a test event"
            }
            Self::NothingToProve => {
                "no endpoint of this keyring accepted a delivery lately, so nothing can be proved"
            }
            Self::NotProvable => "nothing can be proved about the receiver: rehearse it to see why",
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

    fn jitter(&self, keyring: KeyringId, due: Timestamp) -> Millis {
        let most = u64::from(self.jitter_seconds) * SECOND;
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(keyring.to_bytes());
        hash.update(due.as_millis().to_be_bytes());
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(hash.finalize());
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) % (most + 1)
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
/// 6. What falls into a blackout is put off to its end, and again if that falls into another. What is late
///    is not opened in a blackout either.
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
            due_by_calendar(&calendar, &schedule.zone, after, now)
        }
    };
    let start = due.max(schedule.since);
    let start = start.after(schedule.jitter(facts.keyring, due));
    let planned = schedule.free_from(start).ok_or(Never::AlwaysBlackedOut)?;
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

fn due_by_calendar(
    calendar: &Calendar,
    zone: &Zone,
    after: Timestamp,
    now: Timestamp,
) -> Timestamp {
    if let Some(passed) = calendar.last_by(zone, now).filter(|at| *at > after) {
        return passed;
    }
    calendar.first_after(zone, after.max(now))
}

impl Calendar {
    /// The occurrence of a month that is `offset` months from that of `date`, if it has one.
    fn of_month(&self, zone: &Zone, date: Date, offset: i32) -> Option<Timestamp> {
        let first = date.first_of_month().checked_add(offset.months()).ok()?;
        let month = first.month().cast_unsigned();
        if !(month - 1).is_multiple_of(self.every_months.max(1)) {
            return None;
        }
        let day = self.day_of_month.cast_signed().min(first.days_in_month());
        let day = Date::new(first.year(), first.month(), day).ok()?;
        zone.instant(self.time.on(day))
    }

    /// The latest occurrence at or before `by`.
    fn last_by(&self, zone: &Zone, by: Timestamp) -> Option<Timestamp> {
        let date = zone.local(by).date();
        (-13..=1)
            .rev()
            .filter_map(|offset| self.of_month(zone, date, offset))
            .find(|at| *at <= by)
    }

    /// The first occurrence after `after`.
    fn first_after(&self, zone: &Zone, after: Timestamp) -> Timestamp {
        let date = zone.local(after).date();
        (-1..=13)
            .filter_map(|offset| self.of_month(zone, date, offset))
            .find(|at| *at > after)
            .unwrap_or(Timestamp::FAR_FUTURE)
    }
}

impl TimeOfDay {
    fn on(self, date: Date) -> DateTime {
        // Both are within their bounds.
        date.at(self.hour.cast_signed(), self.minute.cast_signed(), 0, 0)
    }

    const fn millis(self) -> Millis {
        self.hour as u64 * HOUR + self.minute as u64 * MINUTE
    }
}

impl Day {
    fn next(self) -> Date {
        self.0.tomorrow().unwrap_or(Date::MAX)
    }
}

/// Milliseconds of a week.
const WEEK: Millis = 7 * DAY;

impl WeeklyBlackout {
    const fn begins(&self) -> Millis {
        self.from_day as u64 * DAY + self.from_time.millis()
    }

    const fn ends(&self) -> Millis {
        self.until_day as u64 * DAY + self.until_time.millis()
    }

    fn holds(&self, local: DateTime) -> bool {
        let (from, until, at) = (self.begins(), self.ends(), in_week(local));
        if from < until {
            (from..until).contains(&at)
        } else {
            at >= from || at < until
        }
    }

    /// The first end after `local`, by the clock on the wall.
    fn next_end(&self, local: DateTime) -> DateTime {
        let ahead = (self.ends() + WEEK - in_week(local)) % WEEK;
        let ahead = if ahead == 0 { WEEK } else { ahead };
        local
            .checked_add(ahead.cast_signed().milliseconds())
            .unwrap_or(DateTime::MAX)
    }
}

/// How far into its week a time is, from Monday on.
fn in_week(local: DateTime) -> Millis {
    let day = local.weekday().to_monday_zero_offset().cast_unsigned();
    let seconds = [
        (local.hour(), 3_600),
        (local.minute(), 60),
        (local.second(), 1),
    ];
    let seconds = seconds
        .iter()
        .map(|(count, worth)| u64::from(count.cast_unsigned()) * worth);
    let millis = u64::from(local.millisecond().cast_unsigned());
    u64::from(day) * DAY + seconds.sum::<u64>() * SECOND + millis
}

impl DateBlackout {
    fn holds(&self, local: DateTime) -> bool {
        (self.from.0..=self.until.0).contains(&local.date())
    }
}

impl Zone {
    fn local(&self, at: Timestamp) -> DateTime {
        // A Timestamp has a text of four-digit year, which is within what jiff takes.
        let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
        self.0.to_datetime(at)
    }

    /// The time of a reading of the clock; of one that is skipped the one behind the gap, of one that
    /// comes twice the first.
    fn instant(&self, local: DateTime) -> Option<Timestamp> {
        let at = self.0.to_ambiguous_timestamp(local).compatible().ok()?;
        Some(Timestamp::from_millis(at.as_millisecond()))
    }

    /// The same, but later than `at`: when the clock is set back, the reading may come again.
    fn instant_after(&self, local: DateTime, at: Timestamp) -> Timestamp {
        let first = self.instant(local).filter(|first| *first > at);
        let second = || {
            let second = self.0.to_ambiguous_timestamp(local).later().ok()?;
            let second = Timestamp::from_millis(second.as_millisecond());
            (second > at).then_some(second)
        };
        first.or_else(second).unwrap_or(at.after(MINUTE))
    }
}

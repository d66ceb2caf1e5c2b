//! What the form of a schedule holds: as it is shown, and as it is read.

use hookturn_core::schedule::{
    Calendar, DateBlackout, Schedule, Selector, Timing, Weekday, WeeklyBlackout, Zone,
};
use hookturn_core::time::SECOND;
use serde::Deserialize;

use super::super::super::form::{Control, Field, Wrong};
use super::super::super::span;
use super::super::super::text::visible;
use crate::service::schedules::{NewSchedule, SchedulePatch};

/// Where the service's pointers show up.
pub(super) const POINTERS: &[(&str, &str)] = &[
    ("/name", "name"),
    ("/keyringId", "which"),
    ("/clientId", "which"),
    ("/everyDays", "days"),
    ("/calendar/everyMonths", "months"),
    ("/calendar/dayOfMonth", "day"),
    ("/jitterSeconds", "jitter"),
    ("/weeklyBlackouts", "weekly"),
    ("/dateBlackouts", "dates"),
];

const KINDS: &[(&str, &str)] = &[
    ("workspace", "every keyring of the workspace"),
    ("app", "the keyrings of an app's endpoints"),
    ("keyring", "one keyring"),
];
const TIMINGS: &[(&str, &str)] = &[
    ("age", "by the age of the active secret"),
    ("calendar", "by the calendar"),
];
const MONTHS: &[(&str, &str)] = &[
    ("1", "every month"),
    ("2", "every 2 months"),
    ("3", "every 3 months"),
    ("4", "every 4 months"),
    ("6", "every 6 months"),
    ("12", "every January"),
];

/// What the fields are about: the first one of each group.
pub(super) const GROUPS: &[(&str, &str)] = &[
    ("name", ""),
    ("kind", "Which keyrings"),
    ("timing", "When a rotation is due"),
    ("jitter", "When none is opened"),
    ("paused", ""),
];

/// What was typed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::ui) struct Typed {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) which: String,
    pub(super) timing: String,
    pub(super) days: String,
    pub(super) months: String,
    pub(super) day: String,
    pub(super) time: String,
    pub(super) zone: String,
    pub(super) jitter: String,
    pub(super) weekly: String,
    pub(super) dates: String,
    pub(super) paused: String,
    pub(super) version: u64,
    pub(super) was: String,
}

/// The fields of the form, those of a new schedule or those that can be changed.
#[rustfmt::skip]
pub(super) fn fields(typed: &Typed, is_new: bool, wrong: &Wrong) -> Vec<Field> {
    let field = |name, label, value: &str, hint, control| Field {
        name, label, value: value.to_owned(), hint, error: wrong.with(name), control,
    };
    let (line, number) = (Control::Line("text"), Control::Line("number"));
    let mut fields = vec![field("name", "Name", &typed.name, "For people.", line)];
    if is_new {
        fields.push(field("kind", "For", &typed.kind, "It stays.", Control::Choice(KINDS)));
        fields.push(field("which", "Which app or keyring", &typed.which, "A client id, or the id of a keyring. Empty for the workspace.", line));
    }
    fields.extend([
        field("timing", "Rotations are due", &typed.timing, "", Control::Choice(TIMINGS)),
        field("days", "By age: after so many days", &typed.days, "1 to 3650.", number),
        field("months", "By the calendar: in which months", &typed.months, "", Control::Choice(MONTHS)),
        field("day", "By the calendar: day of the month", &typed.day, "1 to 31; the last day of a shorter month.", number),
        field("time", "By the calendar: time", &typed.time, "Such as 04:00.", line),
        field("zone", "Time zone", &typed.zone, "Of calendar and blackouts, such as Europe/Berlin.", line),
        field("jitter", "Put each off by up to", &typed.jitter, "So that not all happen at once, such as 1 h.", line),
        field("weekly", "Never in these parts of a week", &typed.weekly, "One a line, such as friday 18:00 - monday 08:00.", Control::Area(3)),
        field("dates", "Never on these days", &typed.dates, "One a line, such as 2026-12-20 - 2027-01-02; both included.", Control::Area(3)),
    ]);
    if is_new {
        fields.push(field("paused", "Make it paused", &typed.paused, "It opens nothing until it is resumed.", Control::Tick));
    }
    fields
}

impl Typed {
    /// What the form of a new schedule begins with.
    pub(super) fn of_new() -> Self {
        let text = str::to_owned;
        Self {
            kind: text("workspace"),
            timing: text("age"),
            days: text("90"),
            months: text("3"),
            day: text("1"),
            time: text("04:00"),
            zone: text("UTC"),
            jitter: text("1 h"),
            ..Self::default()
        }
    }

    /// What the form of a schedule that exists begins with.
    pub(super) fn of(schedule: &Schedule) -> Self {
        let lines = |texts: Vec<String>| texts.join("\n");
        let known = Self {
            name: schedule.name.clone(),
            zone: schedule.zone.to_string(),
            jitter: span::write(u64::from(schedule.jitter_seconds) * SECOND),
            weekly: lines(
                schedule
                    .weekly_blackouts
                    .iter()
                    .copied()
                    .map(weekly_text)
                    .collect(),
            ),
            dates: lines(
                schedule
                    .date_blackouts
                    .iter()
                    .copied()
                    .map(dates_text)
                    .collect(),
            ),
            version: schedule.version,
            ..Self::of_new()
        };
        match schedule.timing {
            Timing::Age { days } => Self {
                timing: "age".to_owned(),
                days: days.to_string(),
                ..known
            },
            Timing::Calendar(calendar) => Self {
                timing: "calendar".to_owned(),
                months: calendar.every_months.to_string(),
                day: calendar.day_of_month.to_string(),
                time: calendar.time.to_string(),
                ..known
            },
        }
    }

    /// The schedule to make, or what was wrong.
    pub(super) fn new_schedule(&self) -> Result<NewSchedule, Wrong> {
        let mut wrong = Wrong::default();
        let selector = self.selector(&mut wrong);
        let patch = self.read(&mut wrong);
        match (selector, patch.timing, patch.zone) {
            (Some(selector), Some(timing), Some(zone)) if wrong.is_empty() => Ok(NewSchedule {
                name: self.name.clone(),
                selector,
                timing,
                zone,
                jitter_seconds: patch.jitter_seconds.unwrap_or_default(),
                weekly_blackouts: patch.weekly_blackouts.unwrap_or_default(),
                date_blackouts: patch.date_blackouts.unwrap_or_default(),
                policy: hookturn_core::proof::ProofPolicy::default(),
                paused: self.paused == "on",
            }),
            _ => Err(wrong),
        }
    }

    /// What to change of a schedule, or what was wrong.
    pub(super) fn patch(&self) -> Result<SchedulePatch, Wrong> {
        let mut wrong = Wrong::default();
        let patch = self.read(&mut wrong);
        if wrong.is_empty() {
            Ok(patch)
        } else {
            Err(wrong)
        }
    }

    fn selector(&self, wrong: &mut Wrong) -> Option<Selector> {
        let which = self.which.trim();
        let read = match self.kind.as_str() {
            "app" => which.parse().ok().map(|app| Selector::App { app }),
            "keyring" => which
                .parse()
                .ok()
                .map(|keyring| Selector::Keyring { keyring }),
            _ => Some(Selector::Workspace),
        };
        if read.is_none() {
            let what = if self.kind == "app" {
                "expected a client id, such as HqTRDIYa"
            } else {
                "expected the id of a keyring, such as kr_01kxyd5209e0080ex9c8twsqwy"
            };
            wrong.note("which", what);
        }
        read
    }

    fn read(&self, wrong: &mut Wrong) -> SchedulePatch {
        let timing = if self.timing == "calendar" {
            let every_months = read("months", &self.months, "a whole number", wrong);
            let day_of_month = read("day", &self.day, "a whole number", wrong);
            let time = read("time", &self.time, "a time from 00:00 to 23:59", wrong);
            match (every_months, day_of_month, time) {
                (Some(every_months), Some(day_of_month), Some(time)) => {
                    Some(Timing::Calendar(Calendar {
                        every_months,
                        day_of_month,
                        time,
                    }))
                }
                _ => None,
            }
        } else {
            let days = read("days", &self.days, "a whole number", wrong);
            days.map(|days| Timing::Age { days })
        };
        SchedulePatch {
            name: Some(self.name.clone()),
            timing,
            zone: read::<Zone>(
                "zone",
                &self.zone,
                "a time zone such as Europe/Berlin",
                wrong,
            ),
            jitter_seconds: self.jitter(wrong),
            weekly_blackouts: Some(lines("weekly", &self.weekly, weekly, wrong)),
            date_blackouts: Some(lines("dates", &self.dates, dates, wrong)),
            policy: None,
            paused: None,
        }
    }

    fn jitter(&self, wrong: &mut Wrong) -> Option<u32> {
        let text = self.jitter.trim();
        if text.is_empty() {
            return Some(0);
        }
        match span::read(text) {
            Ok(millis) => Some(u32::try_from(millis / SECOND).unwrap_or(u32::MAX)),
            Err(why) => {
                wrong.note("jitter", why);
                None
            }
        }
    }
}

fn read<T: std::str::FromStr>(
    name: &'static str,
    text: &str,
    what: &str,
    wrong: &mut Wrong,
) -> Option<T> {
    let read = text.trim().parse().ok();
    if read.is_none() {
        wrong.note(name, format!("expected {what}"));
    }
    read
}

/// The lines of a field, each read.
fn lines<T>(
    name: &'static str,
    text: &str,
    read: impl Fn(&str) -> Option<T>,
    wrong: &mut Wrong,
) -> Vec<T> {
    let mut all = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match read(line) {
            Some(one) => all.push(one),
            None => wrong.note(
                name,
                format!("{}: expected a line as in the example", visible(line)),
            ),
        }
    }
    all
}

/// A part of every week as it is typed and shown.
pub(super) fn weekly_text(blackout: WeeklyBlackout) -> String {
    format!(
        "{} {} - {} {}",
        word(blackout.from_day),
        blackout.from_time,
        word(blackout.until_day),
        blackout.until_time
    )
}

/// The inverse of [`weekly_text`].
fn weekly(line: &str) -> Option<WeeklyBlackout> {
    let (from, until) = line.split_once(" - ")?;
    let end = |text: &str| {
        let (day, time) = text.trim().split_once(' ')?;
        Some((weekday(day)?, time.trim().parse().ok()?))
    };
    let ((from_day, from_time), (until_day, until_time)) = (end(from)?, end(until)?);
    Some(WeeklyBlackout {
        from_day,
        from_time,
        until_day,
        until_time,
    })
}

/// Days as they are typed and shown.
pub(super) fn dates_text(blackout: DateBlackout) -> String {
    format!("{} - {}", blackout.from, blackout.until)
}

/// The inverse of [`dates_text`]; one day alone too.
fn dates(line: &str) -> Option<DateBlackout> {
    let (from, until) = line.split_once(" - ").unwrap_or((line, line));
    Some(DateBlackout {
        from: from.trim().parse().ok()?,
        until: until.trim().parse().ok()?,
    })
}

const WEEK: [(Weekday, &str); 7] = [
    (Weekday::Monday, "monday"),
    (Weekday::Tuesday, "tuesday"),
    (Weekday::Wednesday, "wednesday"),
    (Weekday::Thursday, "thursday"),
    (Weekday::Friday, "friday"),
    (Weekday::Saturday, "saturday"),
    (Weekday::Sunday, "sunday"),
];

fn word(day: Weekday) -> &'static str {
    let known = WEEK.iter().find(|(known, _)| *known == day);
    known.map_or("", |(_, word)| word)
}

fn weekday(text: &str) -> Option<Weekday> {
    let known = WEEK
        .iter()
        .find(|(_, word)| word.eq_ignore_ascii_case(text));
    known.map(|(day, _)| *day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blackouts_are_read_as_they_are_shown() {
        let text = "friday 18:00 - monday 08:00";
        assert_eq!(weekly_text(weekly(text).unwrap()), text);
        let text = "2026-12-20 - 2027-01-02";
        assert_eq!(dates_text(dates(text).unwrap()), text);
        assert_eq!(dates("2026-12-24"), dates("2026-12-24 - 2026-12-24"));
        for wrong in [
            "",
            "friday 18:00",
            "friday - monday",
            "freitag 18:00 - monday 08:00",
        ] {
            assert_eq!(weekly(wrong), None, "{wrong}");
        }
        for wrong in ["", "2026-13-01", "2026-12-20 -", "christmas"] {
            assert_eq!(dates(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_at_its_field() {
        let typed = Typed {
            kind: "app".to_owned(),
            which: "?".to_owned(),
            days: "-1".to_owned(),
            zone: "Europe/Atlantis".to_owned(),
            jitter: "soon".to_owned(),
            weekly: "always".to_owned(),
            dates: "never".to_owned(),
            ..Typed::of_new()
        };
        let wrong = typed.new_schedule().unwrap_err();
        for field in ["which", "days", "zone", "jitter", "weekly", "dates"] {
            assert!(wrong.with(field).is_some(), "{field}");
        }
        assert!(Typed::of_new().new_schedule().is_ok());
    }
}

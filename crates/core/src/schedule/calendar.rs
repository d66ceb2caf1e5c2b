//! The calendar of schedules: days, times and zones, and what they mean on the clock.
//!
//! A reading of the clock on the wall is no point in time yet: it may be skipped, or come twice. The two
//! functions of [`Zone`] that make it one say which; everything else here goes through them.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use jiff::ToSpan as _;
use jiff::civil::{Date, DateTime};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::{DAY, HOUR, MINUTE, Millis, SECOND, Timestamp};

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

impl Calendar {
    /// The occurrence of a month that is `offset` months from that of `date`, if it has one.
    pub(super) fn of_month(self, zone: &Zone, date: Date, offset: i32) -> Option<Timestamp> {
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
    pub(super) fn last_by(self, zone: &Zone, by: Timestamp) -> Option<Timestamp> {
        let date = zone.local(by).date();
        (-13..=1)
            .rev()
            .filter_map(|offset| self.of_month(zone, date, offset))
            .find(|at| *at <= by)
    }

    /// The first occurrence after `after`.
    pub(super) fn first_after(self, zone: &Zone, after: Timestamp) -> Timestamp {
        let date = zone.local(after).date();
        (-1..=13)
            .filter_map(|offset| self.of_month(zone, date, offset))
            .find(|at| *at > after)
            .unwrap_or(Timestamp::FAR_FUTURE)
    }
}

impl TimeOfDay {
    pub(super) fn on(self, date: Date) -> DateTime {
        // Both are within their bounds.
        date.at(self.hour.cast_signed(), self.minute.cast_signed(), 0, 0)
    }

    pub(super) const fn millis(self) -> Millis {
        self.hour as u64 * HOUR + self.minute as u64 * MINUTE
    }
}

impl Day {
    pub(super) fn next(self) -> Date {
        self.0.tomorrow().unwrap_or(Date::MAX)
    }
}

/// Milliseconds of a week.
const WEEK: Millis = 7 * DAY;

impl WeeklyBlackout {
    pub(super) const fn begins(self) -> Millis {
        self.from_day as u64 * DAY + self.from_time.millis()
    }

    pub(super) const fn ends(self) -> Millis {
        self.until_day as u64 * DAY + self.until_time.millis()
    }

    pub(super) fn holds(self, local: DateTime) -> bool {
        let (from, until, at) = (self.begins(), self.ends(), in_week(local));
        if from < until {
            (from..until).contains(&at)
        } else {
            at >= from || at < until
        }
    }

    /// The first end after `local`, by the clock on the wall.
    pub(super) fn next_end(self, local: DateTime) -> DateTime {
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
    pub(super) fn holds(self, local: DateTime) -> bool {
        (self.from.0..=self.until.0).contains(&local.date())
    }
}

impl Zone {
    pub(super) fn local(&self, at: Timestamp) -> DateTime {
        // A Timestamp has a text of four-digit year, which is within what jiff takes.
        let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
        self.0.to_datetime(at)
    }

    /// The time of a reading of the clock; of one that is skipped the one behind the gap, of one that
    /// comes twice the first.
    pub(super) fn instant(&self, local: DateTime) -> Option<Timestamp> {
        let at = self.0.to_ambiguous_timestamp(local).compatible().ok()?;
        Some(Timestamp::from_millis(at.as_millisecond()))
    }

    /// The same, but later than `at`: when the clock is set back, the reading may come again.
    pub(super) fn instant_after(&self, local: DateTime, at: Timestamp) -> Timestamp {
        let first = self.instant(local).filter(|first| *first > at);
        let second = || {
            let second = self.0.to_ambiguous_timestamp(local).later().ok()?;
            let second = Timestamp::from_millis(second.as_millisecond());
            (second > at).then_some(second)
        };
        first.or_else(second).unwrap_or(at.after(MINUTE))
    }
}

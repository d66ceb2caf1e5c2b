//! Points in time and spans, in whole milliseconds.
//!
//! Inside Hookturn a time is an `i64` count of milliseconds since 1970-01-01T00:00:00Z; text forms
//! (RFC 3339, HTTP dates, KORE's date) exist only at the edges.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: milliseconds since the Unix epoch. Serialised as an RFC 3339 text in UTC,
/// or as its number where the format is binary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// A span of time in milliseconds, never negative.
pub type Millis = u64;

/// Milliseconds in a second.
pub const SECOND: Millis = 1_000;
/// Milliseconds in a minute.
pub const MINUTE: Millis = 60 * SECOND;
/// Milliseconds in an hour.
pub const HOUR: Millis = 60 * MINUTE;
/// Milliseconds in a day of 24 hours.
pub const DAY: Millis = 24 * HOUR;

/// The latest time that has an RFC 3339 text of four-digit year: 9999-12-30T22:00:00Z.
const LATEST: i64 = 253_402_207_200_000;

impl Timestamp {
    /// The earliest time Hookturn accepts.
    pub const EPOCH: Self = Self(0);
    /// Later than anything that is scheduled.
    pub const FAR_FUTURE: Self = Self(LATEST);

    /// From milliseconds since the epoch, clamped to what has a text form.
    pub const fn from_millis(millis: i64) -> Self {
        if millis < 0 {
            Self(0)
        } else if millis > LATEST {
            Self(LATEST)
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch: what signature schemes put into their headers.
    pub const fn as_seconds(self) -> i64 {
        self.0 / 1_000
    }

    /// This time moved later by `span` milliseconds, at most [`Timestamp::FAR_FUTURE`].
    pub const fn after(self, span: Millis) -> Self {
        let span = if span > LATEST as u64 {
            LATEST
        } else {
            span.cast_signed()
        };
        Self::from_millis(self.0.saturating_add(span))
    }

    /// This time moved earlier by `span` milliseconds, at least the epoch.
    pub const fn before(self, span: Millis) -> Self {
        let span = if span > LATEST as u64 {
            LATEST
        } else {
            span.cast_signed()
        };
        Self::from_millis(self.0.saturating_sub(span))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Millis {
        let span = self.0 - earlier.0;
        if span < 0 { 0 } else { span.cast_unsigned() }
    }
}

/// The text is not an RFC 3339 date and time between 1970 and 9999.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 date and time such as 2026-11-21T20:00:00Z")]
pub struct ParseTimestampError;

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    /// What is later than [`Timestamp::FAR_FUTURE`] is that: people write the end of the year 9999 for "never".
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<jiff::Timestamp>() {
            Ok(parsed) if parsed.as_millisecond() < 0 => Err(ParseTimestampError),
            Ok(parsed) => Ok(Self::from_millis(parsed.as_millisecond())),
            Err(_) if is_end_of_9999(text) => Ok(Self::FAR_FUTURE),
            Err(_) => Err(ParseTimestampError),
        }
    }
}

/// Whether a text is a whole date and time of the last days that RFC 3339 can write, which are not points in
/// time for jiff: in another offset they would be of the year 10000.
fn is_end_of_9999(text: &str) -> bool {
    jiff::fmt::temporal::Pieces::parse(text).is_ok_and(|pieces| {
        pieces.date() >= jiff::civil::date(9999, 12, 30)
            && pieces.time().is_some()
            && pieces.offset().is_some()
    })
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Self::from_millis);
        }
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The wall clock, injected at the edge so that tests and simulations own time.
pub trait Clock: Send + Sync {
    /// The time now. It may step backwards; nothing may rely on it being monotonic.
    fn now(&self) -> Timestamp;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_has_milliseconds_and_utc() {
        assert_eq!(
            Timestamp::from_millis(1_784_505_600_000).to_string(),
            "2026-07-20T00:00:00.000Z"
        );
        assert!("yesterday".parse::<Timestamp>().is_err());
        assert!("1969-12-31T23:59:59Z".parse::<Timestamp>().is_err());
    }

    #[test]
    fn the_last_times_that_can_be_written_are_the_latest() {
        for late in [
            "9999-12-30T22:00:00.001Z",
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999999+14:00",
            "9999-12-31T00:00:00-12:00",
        ] {
            assert_eq!(late.parse(), Ok(Timestamp::FAR_FUTURE), "{late}");
        }
        for bad in [
            "9999-12-32T00:00:00Z",
            "9999-12-31",
            "9999-12-31T23:59:59",
            "10000-01-01T00:00:00Z",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(millis in 0..=LATEST) {
            let time = Timestamp::from_millis(millis);
            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }

        #[test]
        fn arithmetic_stays_in_range(millis in any::<i64>(), span in any::<u64>()) {
            let time = Timestamp::from_millis(millis);
            prop_assert!(time.after(span) >= time);
            prop_assert!(time.before(span) <= time);
            prop_assert!(time.after(span) <= Timestamp::FAR_FUTURE);
        }
    }
}

//! Spans of time as people write them into a form: `90 s`, `15 min`, `36 h`, `2 d`.

use hookturn_core::time::{DAY, HOUR, MINUTE, Millis, SECOND};

/// Units, longest first, with the word that is written and those that are read.
const UNITS: [(Millis, &str, &[&str]); 5] = [
    (DAY, "d", &["d", "day", "days"]),
    (HOUR, "h", &["h", "hour", "hours"]),
    (MINUTE, "min", &["m", "min", "minute", "minutes"]),
    (SECOND, "s", &["s", "sec", "second", "seconds"]),
    (1, "ms", &["ms", "millisecond", "milliseconds"]),
];

/// What is told when a text is none.
const EXPECTED: &str = "write a number and a unit, such as 15 min, 36 h or 2 d";

/// The span in the longest unit that says it exactly.
pub(super) fn write(span: Millis) -> String {
    let fitting = UNITS.iter().find(|(unit, ..)| span.is_multiple_of(*unit));
    match fitting {
        Some((unit, word, _)) if span > 0 => format!("{} {word}", span / unit),
        Some(_) | None => "0 s".to_owned(),
    }
}

/// The span that a text says; 0 needs no unit.
pub(super) fn read(text: &str) -> Result<Millis, &'static str> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: Millis = number.parse().map_err(|_| EXPECTED)?;
    let unit = unit.trim().to_ascii_lowercase();
    if unit.is_empty() && number == 0 {
        return Ok(0);
    }
    let (unit, ..) = UNITS
        .iter()
        .find(|(_, _, words)| words.contains(&unit.as_str()))
        .ok_or(EXPECTED)?;
    number.checked_mul(*unit).ok_or(EXPECTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for span in [0, 1, 200, SECOND, 90 * SECOND, 36 * HOUR, 2 * DAY] {
            assert_eq!(read(&write(span)), Ok(span), "{}", write(span));
        }
        assert_eq!(write(36 * HOUR), "36 h");
        assert_eq!(write(48 * HOUR), "2 d");
    }

    #[test]
    fn people_write_units_in_several_ways() {
        assert_eq!(read(" 15minutes "), Ok(15 * MINUTE));
        assert_eq!(read("1 Day"), Ok(DAY));
        assert_eq!(read("0"), Ok(0));
        for wrong in [
            "",
            "5",
            "h",
            "-1 h",
            "1.5 h",
            "3 fortnights",
            "99999999999999999999 d",
            "18446744073709551615 d",
        ] {
            assert_eq!(read(wrong), Err(EXPECTED), "{wrong}");
        }
    }
}

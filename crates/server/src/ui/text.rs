//! How values are written on pages.

use hookturn_core::time::{Millis, Timestamp};

/// A time: how long ago or ahead it is, with the absolute one for those who focus it.
#[derive(Debug, Clone, Copy)]
pub struct When {
    at: Timestamp,
    now: Timestamp,
}

impl When {
    /// `at`, seen from `now`.
    pub const fn new(at: Timestamp, now: Timestamp) -> Self {
        Self { at, now }
    }

    /// RFC 3339, UTC, in milliseconds.
    pub fn absolute(self) -> String {
        self.at.to_string()
    }

    /// Like `12 s ago`, `in 3 h`, `now`.
    pub fn relative(self) -> String {
        let (span, ahead) = if self.at > self.now {
            (self.at.since(self.now), true)
        } else {
            (self.now.since(self.at), false)
        };
        match (duration(span), ahead) {
            (None, _) => "now".to_owned(),
            (Some(span), true) => format!("in {span}"),
            (Some(span), false) => format!("{span} ago"),
        }
    }
}

/// The largest whole unit of a span; none below a second.
fn duration(span: Millis) -> Option<String> {
    const UNITS: [(Millis, &str); 4] = [
        (24 * 3_600_000, "d"),
        (3_600_000, "h"),
        (60_000, "min"),
        (1_000, "s"),
    ];
    let (unit, word) = UNITS.iter().find(|(unit, _)| span >= *unit)?;
    Some(format!("{} {word}", span / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_their_largest_unit() {
        let now = Timestamp::from_millis(1_784_505_600_000);
        let said = |at| When::new(at, now).relative();
        assert_eq!(said(now), "now");
        assert_eq!(said(now.before(999)), "now");
        assert_eq!(said(now.before(12_000)), "12 s ago");
        assert_eq!(said(now.after(3 * 3_600_000 + 5)), "in 3 h");
        assert_eq!(said(now.before(49 * 3_600_000)), "2 d ago");
    }
}

//! How values are written on pages.

use std::fmt::Write as _;

use hookturn_core::text::is_hidden;
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

    /// How long it is away from now, without saying which way: like `12 s`.
    pub fn span(self) -> String {
        let span = self.now.since(self.at).max(self.at.since(self.now));
        duration(span).unwrap_or_else(|| "less than 1 s".to_owned())
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

/// A word with an icon and a colour: none of them alone says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// `good`, `warn`, `bad` or `soft`: what the style sheet knows.
    pub tone: &'static str,
    /// A sign that a screen reader skips.
    pub icon: &'static str,
    /// The word.
    pub word: &'static str,
}

impl State {
    /// All went well.
    pub const fn good(word: &'static str) -> Self {
        Self::new("good", "✓", word)
    }

    /// It goes on, or waits for someone.
    pub const fn waiting(word: &'static str) -> Self {
        Self::new("warn", "◷", word)
    }

    /// It failed, or stands still.
    pub const fn bad(word: &'static str) -> Self {
        Self::new("bad", "✕", word)
    }

    /// It is over.
    pub const fn over(word: &'static str) -> Self {
        Self::new("soft", "–", word)
    }

    const fn new(tone: &'static str, icon: &'static str, word: &'static str) -> Self {
        Self { tone, icon, word }
    }
}

/// Foreign text as it may be read: what would change how the text around it reads (control characters,
/// marks of direction, characters without width) is written out. Templates escape the rest.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) || (c.is_control() && !matches!(c, '\n' | '\t')) {
            // Writing to a text cannot fail.
            let _ = write!(shown, "⟨U+{:04X}⟩", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Bytes as text, at most so many of them; and how many are left out.
pub fn excerpt(bytes: &[u8], at_most: usize) -> (String, usize) {
    let end = bytes.len().min(at_most);
    (
        visible(&String::from_utf8_lossy(&bytes[..end])),
        bytes.len() - end,
    )
}

/// Microseconds as milliseconds, or as seconds when there are many.
pub fn span(micros: u32) -> String {
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        10_000..10_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{} s", micros / 1_000_000),
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
        assert_eq!(When::new(now.before(12_000), now).span(), "12 s");
        assert_eq!(When::new(now, now).span(), "less than 1 s");
    }

    #[test]
    fn what_changes_how_text_reads_is_written_out() {
        assert_eq!(
            visible("a\u{202e}b\u{200b}\u{1b}[1m"),
            "a⟨U+202E⟩b⟨U+200B⟩⟨U+001B⟩[1m"
        );
        assert_eq!(visible("<b>\n\tä&"), "<b>\n\tä&");
        assert_eq!(excerpt("ab\u{feff}".as_bytes(), 2), ("ab".to_owned(), 3));
    }

    #[test]
    fn spans_have_a_unit_that_fits() {
        assert_eq!(span(1_250), "1.2 ms");
        assert_eq!(span(25_000), "25 ms");
        assert_eq!(span(12_000_000), "12 s");
    }
}

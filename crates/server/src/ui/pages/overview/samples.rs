//! The first page as it is rendered for its samples.

use hookturn_core::time::{HOUR, MINUTE, Timestamp};

use super::super::super::frame::{Frame, Part};
use super::super::super::text::{State, When, visible};
use super::chart::Chart;
use super::needs::Need;
use super::{Numbers, Overview, spans};
use crate::telemetry::tally::{Counts, Span};

const NOW: Timestamp = Timestamp::from_millis(1_784_505_600_000);

impl Overview {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let empty = || Self {
            frame: Frame::sample(Part::Overview, "Overview"),
            spans: spans(Span::Hour),
            numbers: Some(Numbers {
                only_since: Some(When::new(NOW.before(MINUTE), NOW)),
                is_incomplete: false,
                sum: Counts::default(),
                success: None,
                p95: None,
                chart: Chart::new(&[(NOW, Counts::default())], MINUTE, NOW),
            }),
            backlog: None,
            needs: Vec::new(),
            is_new: true,
        };
        let bar = |minutes, delivered, retried, exhausted| {
            let counts = Counts {
                delivered,
                retried,
                exhausted,
            };
            (NOW.before(minutes * MINUTE), counts)
        };
        let cells = [bar(2, 900, 40, 0), bar(1, 0, 0, 0), bar(0, 1_000, 0, 3)];
        let full = Self {
            spans: spans(Span::Day),
            numbers: Some(Numbers {
                only_since: None,
                is_incomplete: true,
                sum: bar(0, 1_900, 40, 3).1,
                success: Some("97.7 %".to_owned()),
                p95: Some("120 ms".to_owned()),
                chart: Chart::new(&cells, MINUTE, NOW),
            }),
            backlog: Some((When::new(NOW.before(HOUR), NOW), 2)),
            needs: needs(),
            is_new: false,
            ..empty()
        };
        let crowded = Self {
            numbers: None,
            is_new: false,
            ..empty()
        };
        vec![
            ("overview-empty", empty()),
            ("overview", full),
            ("overview-uncounted", crowded),
        ]
    }
}

fn needs() -> Vec<Need> {
    let need = |state, path: &str, name: &str, note: &str| Need {
        state,
        path: path.to_owned(),
        name: visible(name),
        note: visible(note),
        since: Some(When::new(NOW.before(HOUR), NOW)),
    };
    vec![
        need(
            State::bad("failing"),
            "apps/HqTRDIYa/endpoints/ep_1",
            "https://shop.example/<script>alert(1)</script>\u{202e}",
            "10 attempts or more in a row were not accepted",
        ),
        need(
            State::waiting("rotation open"),
            "rotations/rot_1",
            "Shared keyring",
            "proven: waits for proof: 1 of 3 endpoints proved",
        ),
        Need {
            since: None,
            ..need(State::waiting("more"), "secrets", "3 more", "old secrets")
        },
    ]
}

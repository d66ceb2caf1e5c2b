//! The pages about schedules as they are rendered for their samples.

use hookturn_core::time::{DAY, Timestamp};

use super::super::super::frame::{Frame, Part};
use super::super::super::stale;
use super::super::super::text::{State, When, visible};
use super::{Coming, OneSchedule, ScheduleView, Schedules};

const NOW: Timestamp = Timestamp::from_millis(1_784_505_600_000);
const HOSTILE: &str = "<script>alert(1)</script>\u{202e}";

fn schedule(is_paused: bool) -> ScheduleView {
    ScheduleView {
        id: "sch_1".to_owned(),
        name: visible(HOSTILE),
        state: if is_paused {
            State::waiting("paused")
        } else {
            State::good("running")
        },
        is_paused,
        timing: "when the active secret is 90 days old".to_owned(),
        selector: "the endpoints of app HqTRDIYa".to_owned(),
        link: Some("apps/HqTRDIYa".to_owned()),
        limits: vec!["not friday 18:00 - monday 08:00".to_owned()],
        version: 2,
        made: When::new(NOW.before(DAY), NOW),
    }
}

impl Schedules {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |rows: Vec<ScheduleView>| Self {
            frame: Frame::sample(Part::Rotations, "Schedules"),
            next: (!rows.is_empty()).then(|| "sch_1".to_owned()),
            is_later: false,
            rows,
        };
        let no_link = ScheduleView {
            link: None,
            ..schedule(true)
        };
        vec![
            ("schedules-empty", sample(Vec::new())),
            ("schedules", sample(vec![schedule(false), no_link])),
        ]
    }
}

impl OneSchedule {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let empty = || Self {
            frame: Frame::sample(Part::Rotations, "Schedule"),
            schedule: schedule(true),
            keyrings: 0,
            openings: Vec::new(),
            skipped: Vec::new(),
            opened: Vec::new(),
            stale: None,
        };
        let coming = |at, note: &str| Coming {
            path: "keyrings/kr_1".to_owned(),
            title: visible(HOSTILE),
            at: When::new(at, NOW),
            note: note.to_owned(),
        };
        let full = Self {
            schedule: schedule(false),
            keyrings: 3,
            openings: vec![coming(NOW.after(DAY), "")],
            skipped: vec![coming(
                NOW.before(DAY),
                "the endpoint is not enabled: enable it",
            )],
            opened: vec![coming(NOW.before(DAY), "")],
            ..empty()
        };
        let refused = Self {
            stale: Some(stale::sample("schedules/sch_1".to_owned())),
            ..empty()
        };
        vec![
            ("schedule-empty", empty()),
            ("schedule", full),
            ("schedule-error", refused),
        ]
    }
}

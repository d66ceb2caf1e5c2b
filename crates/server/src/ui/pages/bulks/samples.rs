//! The pages about bulk rotations as they are rendered for their samples.

use hookturn_core::bulk::{ItemCounts, ItemKind};
use hookturn_core::time::{HOUR, Timestamp};

use super::super::super::form::Wrong;
use super::super::super::frame::{Frame, Part};
use super::super::super::text::{State, When, visible};
use super::form::{BulkForm, Plan, Typed};
use super::{BulkView, Bulks, Item, OneBulk, counted, state_of};

const NOW: Timestamp = Timestamp::from_millis(1_784_505_600_000);
const HOSTILE: &str = "<script>alert(1)</script>\u{202e}";

fn frame() -> Frame {
    Frame::sample(Part::Rotations, "Bulk rotations")
}

fn bulk(state: State, is_running: bool, is_open: bool) -> BulkView {
    BulkView {
        id: "bulk_1".to_owned(),
        state,
        words: "It opens rotations, wave after wave.".to_owned(),
        mode: "proven",
        keyrings: 200,
        wave: (2, 4),
        wave_at: is_open.then(|| When::new(NOW.after(HOUR), NOW)),
        started: When::new(NOW.before(HOUR), NOW),
        reason: visible(HOSTILE),
        selected: vec![visible(HOSTILE)],
        is_running,
        is_open,
    }
}

impl Bulks {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |rows: Vec<BulkView>| Self {
            frame: frame(),
            next: (!rows.is_empty()).then(|| "bulk_1".to_owned()),
            is_later: !rows.is_empty(),
            rows,
        };
        let running = bulk(State::waiting("running"), true, true);
        vec![
            ("bulks-empty", sample(Vec::new())),
            ("bulks", sample(vec![running])),
        ]
    }
}

impl OneBulk {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let counts = ItemCounts {
            waiting: 180,
            running: 10,
            stalled: 1,
            done: 8,
            failed: 1,
        };
        let sample = |bulk: BulkView, items: Vec<Item>, error: Option<&str>| Self {
            frame: frame(),
            counts: counted(counts, Some(ItemKind::Failed)),
            behind: 10,
            kind: Some("failed"),
            next: (!items.is_empty()).then_some(50),
            items,
            from: 0,
            bulk,
            error: error.map(str::to_owned),
        };
        let item = |kind, place| Item {
            place,
            keyring: "kr_1".to_owned(),
            title: visible(HOSTILE),
            state: state_of(kind),
            rotation: (kind != ItemKind::Waiting).then(|| "rot_1".to_owned()),
            note: visible(HOSTILE),
            released: "2 still accept the old secret".to_owned(),
        };
        let items = vec![item(ItemKind::Failed, 1), item(ItemKind::Waiting, 2)];
        let running = || bulk(State::waiting("running"), true, true);
        let stopped = bulk(State::bad("stopped"), false, true);
        let over = bulk(State::good("completed"), false, false);
        vec![
            ("bulk", sample(running(), items, None)),
            ("bulk-stopped", sample(stopped, Vec::new(), None)),
            ("bulk-over", sample(over, Vec::new(), None)),
            (
                "bulk-error",
                sample(running(), Vec::new(), Some("it is over")),
            ),
        ]
    }
}

impl BulkForm {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let typed = Typed::default();
        let sample = |wrong: &Wrong, plan| Self::new(frame(), &typed, wrong, plan);
        let plan = |obstacles: Vec<(usize, String)>, may_start| Plan {
            parts: vec![("apps", HOSTILE.to_owned())],
            mode: "proven".to_owned(),
            keyrings: 200,
            waves: vec![2, 18, 80, 100],
            obstacles,
            first: vec![(
                "kr_1".to_owned(),
                visible(HOSTILE),
                "0a1b2c3d".to_owned(),
                visible(HOSTILE),
            )],
            may_start,
        };
        let mut wrong = Wrong::default();
        for field in ["", "apps", "waves", "mode"] {
            wrong.note(field, "cannot be so");
        }
        let fine = Wrong::default();
        let obstacles = vec![(3, visible(HOSTILE))];
        vec![
            ("bulk-new", sample(&fine, None)),
            ("bulk-new-error", sample(&wrong, None)),
            ("bulk-plan", sample(&fine, Some(plan(obstacles, true)))),
            (
                "bulk-plan-empty",
                sample(&fine, Some(plan(Vec::new(), false))),
            ),
        ]
    }
}

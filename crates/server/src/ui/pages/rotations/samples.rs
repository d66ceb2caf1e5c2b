//! The pages about rotations as they are rendered for their samples.

use hookturn_core::rotation::SecretStatus;
use hookturn_core::time::{HOUR, Timestamp};

use super::super::super::frame::{Frame, Part};
use super::super::super::problems::Problems;
use super::super::super::stale::Stale;
use super::super::super::text::{When, visible};
use super::super::keyrings::sample_parts as parts;
use super::actions::every_action;
use super::panel::{EndpointView, Panel, StepView};
use super::{OneRotation, Rotations, Row};

const NOW: Timestamp = Timestamp::from_millis(1_784_505_600_000);

impl Rotations {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |rows: Vec<Row>, open: bool| Self {
            frame: Frame::sample(Part::Rotations, "Rotations"),
            next: (!rows.is_empty()).then(|| "rot_1".to_owned()),
            rows,
            open,
            keyring: open.then(|| "kr_1".to_owned()),
            is_later: false,
        };
        let row = Row {
            id: "rot_1".to_owned(),
            title: "<b>https://receiver.example</b>".to_owned(),
            mode: "proven",
            stage: "staged",
            is_open: true,
            opened: When::new(NOW.before(HOUR), NOW),
            reason: visible("\u{202e}yearly"),
        };
        vec![
            ("rotations-empty", sample(Vec::new(), false)),
            ("rotations", sample(vec![row], false)),
            ("rotations-none-open", sample(Vec::new(), true)),
        ]
    }
}

fn panel(stage: &'static str, endpoints: Vec<EndpointView>) -> Panel {
    let is_open = matches!(stage, "staged" | "overlap");
    let when = |at| When::new(at, NOW);
    let step = |word| StepView {
        word,
        is_now: word == stage,
        is_done: word == "opened",
    };
    Panel {
        id: "rot_1".to_owned(),
        mode: "proven",
        stage,
        is_open,
        is_moving: is_open,
        sentence: "Both secrets are live.",
        steps: ["opened", "staged", "overlap", "completed"]
            .map(step)
            .to_vec(),
        opened: when(NOW.before(HOUR)),
        reason: Some("<b>yearly</b>".to_owned()),
        from: Some(parts::secret("sec_1", SecretStatus::Retiring)),
        to: Some(parts::secret("sec_2", SecretStatus::Active)),
        retires: Some(when(NOW.after(HOUR))),
        ended: (!is_open).then(|| when(NOW)),
        promoted: Some(("proved by 1 endpoint".to_owned(), when(NOW))),
        proved: endpoints.len(),
        endpoints,
        last_needed: Some(when(NOW)),
        is_proven: true,
        is_kept: false,
        kept_before_end: None,
        extends: true,
    }
}

impl OneRotation {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |panel: Panel, refused: &str, problems: Problems, stale: Option<Stale>| Self {
            frame: Frame::sample(Part::Rotations, "Rotation"),
            ring: Some(parts::ring()),
            actions: if panel.is_open {
                every_action()
            } else {
                Vec::new()
            },
            mark: "3.staged.1".to_owned(),
            panel,
            reason: "<b>because</b>".to_owned(),
            by: "1 d".to_owned(),
            refused: refused.to_owned(),
            problems,
            stale,
        };
        let endpoint = EndpointView {
            user: parts::ring().users[0].clone(),
            standing: "not ready".to_owned(),
            tone: "bad",
            words: "it refused the new secret, last".to_owned(),
            class: Some("list_aware"),
            moment: Some(When::new(NOW, NOW)),
            is_behind: true,
            passes: 245,
            needed: 59,
            counted: 59,
            of_probes: 10,
            of_deliveries: 2,
            refusals: 1,
            canary_percent: 10,
            passed: Some(When::new(NOW, NOW)),
            old_needed: None,
        };
        let none = Problems::default;
        let mut wrong = Problems::field("by", "write a number and a unit");
        wrong.add("reason", "say why");
        vec![
            (
                "rotation-empty",
                sample(panel("staged", Vec::new()), "", none(), None),
            ),
            (
                "rotation",
                sample(panel("overlap", vec![endpoint]), "", none(), None),
            ),
            (
                "rotation-over",
                sample(panel("completed", Vec::new()), "", none(), None),
            ),
            (
                "rotation-error",
                sample(panel("overlap", Vec::new()), "extend", wrong, None),
            ),
            (
                "rotation-changed",
                sample(
                    panel("overlap", Vec::new()),
                    "finish",
                    none(),
                    Some(parts::stale()),
                ),
            ),
        ]
    }
}

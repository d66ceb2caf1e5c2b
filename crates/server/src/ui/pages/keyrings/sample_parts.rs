//! The pages about keyrings as they are rendered for their samples.

use hookturn_core::endpoint::Preset;
use hookturn_core::rotation::SecretStatus;
use hookturn_core::time::{DAY, HOUR, Timestamp};
use hookturn_verify::{HeaderNames, Scheme};
use zeroize::Zeroizing;

use super::super::super::frame::{Frame, Part};
use super::super::super::problems::Problems;
use super::super::super::ring::{Ring, SecretView, User};
use super::super::super::snippets::snippets;
use super::super::super::stale::{Change, Stale};
use super::super::super::text::{When, visible};
use super::rotate::Rotate;
use super::secret::OneSecret;
use super::value::{Cause, SHOWN_SECONDS, SecretValue};
use super::{OneKeyring, OpenRotation, Row, Secrets};

const NOW: Timestamp = Timestamp::from_millis(1_784_505_600_000);

/// A hostile text, which a page must show as text.
const HOSTILE: &str = "\u{202e}<script>alert(1)</script>";

pub(in crate::ui::pages) fn ring() -> Ring {
    Ring {
        id: "kr_1".to_owned(),
        title: visible(&format!("https://receiver.example/{HOSTILE}")),
        is_shared: false,
        is_ed25519: false,
        users: vec![User {
            path: "apps/app_1/endpoints/ep_1".to_owned(),
            url: visible(&format!("https://receiver.example/{HOSTILE}")),
            preset: "standard",
        }],
        version: 3,
        seen: NOW.as_millis(),
        once: "0".repeat(32),
    }
}

pub(in crate::ui::pages) fn secret(id: &str, status: SecretStatus) -> SecretView {
    SecretView {
        id: id.to_owned(),
        name: visible(HOSTILE),
        fingerprint: "0a1b2c3d".to_owned(),
        status,
        created: When::new(NOW.before(DAY), NOW),
        since: Some(When::new(NOW.before(HOUR), NOW)),
        retires: (status == SecretStatus::Retiring).then(|| When::new(NOW.after(HOUR), NOW)),
        compromised: (status == SecretStatus::Retired).then(|| When::new(NOW, NOW)),
    }
}

pub(in crate::ui::pages) fn stale() -> Stale {
    Stale {
        reload: "keyrings/kr_1".to_owned(),
        changes: vec![Change {
            at: When::new(NOW.before(2_000), NOW),
            action: "secret.activated".to_owned(),
            actor: visible(HOSTILE),
            fingerprint: Some("0a1b2c3d".to_owned()),
        }],
    }
}

fn open() -> OpenRotation {
    OpenRotation {
        id: "rot_1".to_owned(),
        mode: "staged",
        stage: "staged",
        may_activate: true,
        overlap: "2 d".to_owned(),
    }
}

impl Secrets {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |rows: Vec<Row>, query: &str| Self {
            frame: Frame::sample(Part::Secrets, "Secrets"),
            next: (!rows.is_empty()).then_some(50),
            rows,
            shown_query: visible(query),
            query: query.to_owned(),
            is_later: false,
        };
        let full = Row {
            ring: ring(),
            active: Some(secret("sec_1", SecretStatus::Active)),
            other: Some(secret("sec_2", SecretStatus::Pending)),
            rotation: Some(open()),
        };
        let bare = Row {
            ring: Ring {
                is_shared: true,
                users: Vec::new(),
                ..ring()
            },
            active: None,
            other: None,
            rotation: None,
        };
        vec![
            ("secrets-empty", sample(Vec::new(), "")),
            ("secrets", sample(vec![bare, full], "")),
            ("secrets-nothing-matches", sample(Vec::new(), HOSTILE)),
        ]
    }
}

impl OneKeyring {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |secrets: Vec<SecretView>, problems: Problems, stale: Option<Stale>| Self {
            frame: Frame::sample(Part::Secrets, "A keyring"),
            ring: ring(),
            rotation: (!secrets.is_empty()).then(open),
            pending: secrets.iter().find(|secret| secret.is_pending()).cloned(),
            has_active: !secrets.is_empty(),
            secrets,
            name: HOSTILE.to_owned(),
            replaces: true,
            overlap: "2 d".to_owned(),
            problems,
            stale,
        };
        let all = || {
            let states = [
                SecretStatus::Pending,
                SecretStatus::Active,
                SecretStatus::Retiring,
                SecretStatus::Retired,
                SecretStatus::Destroyed,
            ];
            states
                .map(|status| secret(status.as_str(), status))
                .to_vec()
        };
        let mut wrong = Problems::field("name", "longer than 256 bytes");
        wrong.add("overlap", "write a number and a unit");
        wrong.add("value", "too short");
        vec![
            (
                "keyring-empty",
                sample(Vec::new(), Problems::default(), None),
            ),
            ("keyring", sample(all(), Problems::default(), None)),
            ("keyring-error", sample(all(), wrong, None)),
            (
                "keyring-changed",
                sample(all(), Problems::whole(visible(HOSTILE)), Some(stale())),
            ),
        ]
    }
}

impl OneSecret {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |status: SecretStatus, may_reveal: bool, problems: Problems| Self {
            frame: Frame::sample(Part::Secrets, "A secret"),
            ring: ring(),
            secret: secret("sec_1", status),
            name: HOSTILE.to_owned(),
            may_reveal,
            public_key: Some("whpk_sample".to_owned()),
            snippets: snippets(Preset::Standard, &HeaderNames::of(Scheme::Standard), false),
            shown_seconds: SHOWN_SECONDS,
            stale: (!problems.is_empty()).then(stale),
            problems,
        };
        let wrong = Problems::field("name", "longer than 256 bytes");
        vec![
            (
                "secret",
                sample(SecretStatus::Active, true, Problems::default()),
            ),
            (
                "secret-pending",
                sample(SecretStatus::Pending, false, Problems::default()),
            ),
            (
                "secret-retired",
                sample(SecretStatus::Retired, true, Problems::default()),
            ),
            ("secret-error", sample(SecretStatus::Active, true, wrong)),
        ]
    }
}

impl SecretValue {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |cause, public_key| {
            let value = (Zeroizing::new("whsec_sample".to_owned()), public_key);
            let names = HeaderNames::of(Scheme::Hopae);
            Self::new(
                Frame::sample(Part::Secrets, "The value of a secret"),
                ring(),
                secret("sec_1", SecretStatus::Active),
                value,
                cause,
                snippets(Preset::Hopae, &names, false),
            )
        };
        let rotated = Cause::Rotated {
            rotation: "rot_1".to_owned(),
            mode: "proven",
        };
        vec![
            (
                "secret-value",
                sample(rotated, Some("whpk_sample".to_owned())),
            ),
            ("secret-value-first", sample(Cause::First, None)),
            ("secret-value-revealed", sample(Cause::Revealed, None)),
        ]
    }
}

impl Rotate {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |is_leak: bool, leakable: Vec<SecretView>, problems: Problems| {
            let active = secret("sec_1", SecretStatus::Active);
            let frame = Frame::sample(Part::Secrets, "Rotate");
            Self::sample(frame, ring(), (active, leakable), is_leak, problems)
        };
        let one = || vec![secret("sec_1", SecretStatus::Active)];
        let mut wrong = Problems::field("mode", "choose a mode");
        for field in [
            "overlap",
            "confidence",
            "hold_down",
            "deadline",
            "reason",
            "value",
        ] {
            wrong.add(field, visible(HOSTILE));
        }
        vec![
            ("rotate", sample(false, one(), Problems::default())),
            ("rotate-error", sample(false, one(), wrong)),
            ("rotate-leak", sample(true, one(), Problems::default())),
            (
                "rotate-leak-error",
                sample(true, one(), Problems::field("leaked", "choose the secret")),
            ),
            (
                "rotate-leak-empty",
                sample(true, Vec::new(), Problems::default()),
            ),
        ]
    }
}

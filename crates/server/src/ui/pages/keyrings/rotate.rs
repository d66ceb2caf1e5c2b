//! Opens a rotation: the mode and its window, or the way out of a leak, which is another form and looks
//! like one.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use hookturn_core::id::{KeyringId, SecretId};
use hookturn_core::proof::{OnDeadline, ProofPolicy};
use hookturn_core::rotation::{Keyring, Rejected, SecretStatus};
use hookturn_core::time::{HOUR, Millis};
use hookturn_core::workspace::Scope;
use http::StatusCode;
use serde::Deserialize;

use super::super::super::error::{UiError, status_of};
use super::super::super::frame::{Frame, Part, page};
use super::super::super::once::Once;
use super::super::super::problems::{Fields, Problems};
use super::super::super::ring::{Ring, SecretView};
use super::super::super::stale::Stale;
use super::super::super::visitor::{Sent, Visitor};
use super::super::super::{UiState, span};
use super::once::{self, Asked};
use super::value::{Cause, SecretValue};
use super::{OpenRotation, given, id, keyring, stale};
use crate::service::ServiceError;
use crate::service::keyrings::check_words;
use crate::service::rotation::{ModeName, NewRotation, OpenedRotation};

/// The fields of the forms.
const FIELDS: &Fields = &[
    ("/name", "name"),
    ("/reason", "reason"),
    ("/overlapSeconds", "overlap"),
    ("/secret", "value"),
];

/// The fields of the policy that the form has, by the names that the API gives them.
const POLICY: &Fields = &[
    ("confidencePercent", "confidence"),
    ("stalePercent", "stale_share"),
    ("holdDownMillis", "hold_down"),
    ("probeEveryMillis", "probe_every"),
    ("probeBackOffMaxMillis", "probe_every"),
    ("probesPerHour", "probes_per_hour"),
    ("quietMillis", "quiet"),
    ("deadlineMillis", "deadline"),
];

/// The page.
#[derive(Debug, Template)]
#[template(path = "rotate.html")]
pub struct Rotate {
    /// Around it.
    pub frame: Frame,
    /// The keyring.
    pub ring: Ring,
    /// The modes, in order.
    pub modes: &'static [ModeChoice],
    /// Whether a secret leaked: the other form.
    pub is_leak: bool,
    /// Secrets that may have leaked: those whose value receivers may still hold.
    pub leakable: Vec<SecretView>,
    /// The secret that signs.
    pub active: Option<SecretView>,
    /// The rotation that is open.
    pub rotation: Option<OpenRotation>,
    /// The overlap that is taken when none is named.
    pub default_overlap: String,
    /// What was typed.
    pub typed: Typed,
    /// What was wrong.
    pub problems: Problems,
    /// What happened meanwhile.
    pub stale: Option<Stale>,
}

/// A mode, and what it does to deliveries.
#[derive(Debug, Clone, Copy)]
pub struct ModeChoice {
    /// The word.
    pub word: &'static str,
    /// What it does.
    pub consequence: &'static str,
    /// For the service.
    name: ModeName,
}

/// The modes.
const MODES: &[ModeChoice] = &[
    ModeChoice {
        word: "proven",
        consequence: "Nothing changes at first. Inert requests and a small share of deliveries ask the receiver whether it holds the new secret; when that is proved, the new secret becomes active by itself, and the old one retires when it is needed no longer. No delivery is lost.",
        name: ModeName::Proven,
    },
    ModeChoice {
        word: "staged",
        consequence: "Nothing changes for deliveries until you activate the new secret: hand it over first. Then the old one stays live for the overlap.",
        name: ModeName::Staged,
    },
    ModeChoice {
        word: "overlap",
        consequence: "Both secrets are live from now until the overlap ends: what the receiver refuses with one is sent again at once with the other. After that, a receiver that still has the old secret refuses.",
        name: ModeName::Overlap,
    },
    ModeChoice {
        word: "immediate",
        consequence: "The old secret stops at once. Until the receiver has the new one it refuses every delivery, and they are retried on their schedule.",
        name: ModeName::Immediate,
    },
];

/// What was typed into the forms.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Typed {
    version: u64,
    seen: i64,
    /// The mode's word.
    pub mode: String,
    /// How long the old secret stays.
    pub overlap: String,
    /// What the new secret is called.
    pub name: String,
    /// Why.
    pub reason: String,
    value: String,
    once: String,
    /// Which secret leaked.
    pub leaked: String,
    /// How sure to be, in percent.
    pub confidence: String,
    /// The share of a fleet that may not go unnoticed.
    pub stale_share: String,
    /// How long nothing may be refused.
    pub hold_down: String,
    /// Time between two probes.
    pub probe_every: String,
    /// Probes in any hour.
    pub probes_per_hour: String,
    /// How long the old secret must not be needed.
    pub quiet: String,
    /// When the old secret retires at the latest.
    pub deadline: String,
    /// What happens then: `extend` or `cut`.
    pub on_deadline: String,
    /// Who promotes: `itself` or `owner`.
    pub promote: String,
}

impl std::fmt::Debug for Typed {
    /// Without a value that was to be imported.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Typed")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Default for Typed {
    fn default() -> Self {
        let policy = ProofPolicy::default();
        Self {
            version: 0,
            seen: 0,
            mode: "proven".to_owned(),
            overlap: String::new(),
            name: String::new(),
            reason: String::new(),
            value: String::new(),
            once: String::new(),
            leaked: String::new(),
            confidence: policy.confidence_percent.to_string(),
            stale_share: policy.stale_percent.to_string(),
            hold_down: span::write(policy.hold_down_millis),
            probe_every: span::write(policy.probe_every_millis),
            probes_per_hour: policy.probes_per_hour.to_string(),
            quiet: span::write(policy.quiet_millis),
            deadline: span::write(policy.deadline_millis),
            on_deadline: "extend".to_owned(),
            promote: "itself".to_owned(),
        }
    }
}

impl Typed {
    /// Whether a mode is the one that is chosen.
    pub fn is_mode(&self, word: &str) -> bool {
        self.mode == word
    }

    /// All that it says, to tell it from another form.
    fn says(&self) -> [&str; 14] {
        [
            &self.mode,
            &self.overlap,
            &self.name,
            &self.reason,
            &self.value,
            &self.leaked,
            &self.confidence,
            &self.stale_share,
            &self.hold_down,
            &self.probe_every,
            &self.quiet,
            &self.deadline,
            &self.on_deadline,
            &self.promote,
        ]
    }

    fn policy(&self, problems: &mut Problems) -> ProofPolicy {
        let default = ProofPolicy::default();
        ProofPolicy {
            confidence_percent: number(&self.confidence, "confidence", problems)
                .unwrap_or(default.confidence_percent),
            stale_percent: number(&self.stale_share, "stale_share", problems)
                .unwrap_or(default.stale_percent),
            hold_down_millis: time(&self.hold_down, "hold_down", problems)
                .unwrap_or(default.hold_down_millis),
            probe_every_millis: time(&self.probe_every, "probe_every", problems)
                .unwrap_or(default.probe_every_millis),
            probes_per_hour: number(&self.probes_per_hour, "probes_per_hour", problems)
                .unwrap_or(default.probes_per_hour),
            quiet_millis: time(&self.quiet, "quiet", problems).unwrap_or(default.quiet_millis),
            deadline_millis: time(&self.deadline, "deadline", problems)
                .unwrap_or(default.deadline_millis),
            on_deadline: if self.on_deadline == "cut" {
                OnDeadline::Cut
            } else {
                OnDeadline::Extend
            },
            promote_by_itself: self.promote != "owner",
            ..default
        }
    }

    /// The rotation that the form asks for.
    fn asked(&self) -> Result<NewRotation, Problems> {
        let mut problems = Problems::default();
        let mode = MODES.iter().find(|choice| choice.word == self.mode);
        let mode = mode.map(|choice| choice.name);
        if mode.is_none() {
            problems.add("mode", "choose a mode");
        }
        let mode = mode.unwrap_or(ModeName::Proven);
        // One that was typed for a mode without it is refused beside its field, not dropped.
        let has_window = mode != ModeName::Proven;
        let overlap = given(&self.overlap).filter(|_| has_window);
        let overlap = overlap.and_then(|text| time(&text, "overlap", &mut problems));
        let policy = (mode == ModeName::Proven).then(|| self.policy(&mut problems));
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(NewRotation {
            mode,
            overlap,
            deadline_at: None,
            policy,
            name: given(&self.name),
            value: given(&self.value).map(Into::into),
            reason: given(&self.reason),
        })
    }
}

fn number<T: std::str::FromStr>(
    text: &str,
    field: &'static str,
    problems: &mut Problems,
) -> Option<T> {
    let read = text.trim().parse().ok();
    if read.is_none() {
        problems.add(field, "write a whole number");
    }
    read
}

fn time(text: &str, field: &'static str, problems: &mut Problems) -> Option<Millis> {
    match span::read(text) {
        Ok(span) => Some(span),
        Err(message) => {
            problems.add(field, message);
            None
        }
    }
}

impl Rotate {
    async fn of(
        ui: &UiState,
        visitor: &Visitor,
        keyring: &Keyring,
        is_leak: bool,
        typed: Typed,
    ) -> Result<Self, UiError> {
        let ring = Ring::of(ui, visitor, keyring).await?;
        let now = ui.clock.now();
        let frame = Frame::new(ui, visitor, Part::Secrets, "Rotate");
        let overlap = ui.service.default_overlap(keyring);
        let overlap = format!("about {}", span::write(overlap.next_multiple_of(HOUR)));
        let view = |secret| SecretView::new(secret, now);
        let active = keyring.active().map(view);
        let rotation = OpenRotation::of(keyring, now);
        let leakable = keyring.secrets.iter().rev();
        let leakable = leakable.filter(|secret| {
            secret.compromised.is_none() && secret.status(now) != SecretStatus::Destroyed
        });
        let leakable = leakable.map(view).collect();
        Ok(Self {
            frame,
            ring,
            modes: MODES,
            is_leak,
            leakable,
            active,
            rotation,
            default_overlap: overlap,
            typed,
            problems: Problems::default(),
            stale: None,
        })
    }

    pub(super) fn sample(
        frame: Frame,
        ring: Ring,
        (active, leakable): (SecretView, Vec<SecretView>),
        is_leak: bool,
        problems: Problems,
    ) -> Self {
        Self {
            frame,
            ring,
            modes: MODES,
            is_leak,
            leakable,
            active: Some(active),
            rotation: None,
            default_overlap: "about 2 d".to_owned(),
            typed: Typed::default(),
            problems,
            stale: None,
        }
    }

    /// The page after a form that was refused.
    async fn refused(
        ui: &UiState,
        visitor: &Visitor,
        id: KeyringId,
        is_leak: bool,
        (error, mut typed): (&ServiceError, Typed),
    ) -> Result<Response, UiError> {
        let seen = typed.seen;
        // A value to import is not sent back.
        typed.value = String::new();
        if let ServiceError::PreconditionFailed { .. } = error {
            let keyring = keyring(ui, visitor, id).await?;
            let mut shown = Self::of(ui, visitor, &keyring, is_leak, typed).await?;
            let reload = format!("keyrings/{id}");
            shown.stale = Some(stale(ui, visitor, id, seen, reload).await?);
            return Ok(page(StatusCode::PRECONDITION_FAILED, &shown));
        }
        let (mut problems, status) = Problems::refused(error, visitor, FIELDS)?;
        if let ServiceError::Rejected(Rejected::InvalidPolicy(invalid)) = error
            && let Some((_, field)) = POLICY.iter().find(|(known, _)| *known == invalid.field)
        {
            problems = Problems::field(field, invalid.reason);
        }
        let keyring = keyring(ui, visitor, id).await?;
        let mut shown = Self::of(ui, visitor, &keyring, is_leak, typed).await?;
        shown.problems = problems;
        Ok(page(status, &shown))
    }
}

/// Which of the two forms.
#[derive(Debug, Default, Deserialize)]
pub(in crate::ui) struct Which {
    #[serde(default)]
    leaked: Option<String>,
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    Path(path): Path<String>,
    Query(which): Query<Which>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    let may = ui.service.require(&visitor.caller, Scope::Secrets).await;
    may.map_err(|error| UiError::service(&error, &visitor.base))?;
    let keyring = keyring(&ui, &visitor, id(&path, "keyring", &visitor)?).await?;
    let is_leak = which.leaked.is_some();
    let typed = Typed {
        leaked: which.leaked.unwrap_or_default(),
        ..Typed::default()
    };
    let shown = Rotate::of(&ui, &visitor, &keyring, is_leak, typed).await?;
    Ok(page(StatusCode::OK, &shown))
}

pub(in crate::ui) async fn open(
    State(ui): State<UiState>,
    Path(path): Path<String>,
    sent: Sent<Typed>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let id: KeyringId = id(&path, "keyring", &visitor)?;
    let asked = match fields.asked() {
        Ok(asked) => asked,
        Err(problems) => {
            let keyring = keyring(&ui, &visitor, id).await?;
            let mut shown = Rotate::of(&ui, &visitor, &keyring, false, fields).await?;
            shown.problems = problems;
            return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, &shown));
        }
    };
    let once = match once::asked(&ui, &visitor, id, &fields.once, &fields.says()).await? {
        Asked::Again(response) => return Ok(response),
        Asked::Fresh(once) => Some(once),
        Asked::Other => None,
    };
    let version = Some(fields.version);
    match open_and_show(&ui, &visitor, id, asked, (version, once)).await? {
        Ok(response) => Ok(response),
        Err(error) => Rotate::refused(&ui, &visitor, id, false, (&error, fields)).await,
    }
}

/// Opens a rotation and shows the new value.
async fn open_and_show(
    ui: &UiState,
    visitor: &Visitor,
    id: KeyringId,
    asked: NewRotation,
    (version, once): (Option<u64>, Option<Once>),
) -> Result<Result<Response, ServiceError>, UiError> {
    let kept = |opened: &OpenedRotation| {
        let rotation = &opened.rotation;
        once::kept(&opened.once, Some(rotation), rotation.mode.as_str())
    };
    let recording = once.as_ref().map(|once| once.record(&kept));
    let opened = ui
        .service
        .open_rotation(&visitor.caller, id, asked, version, recording)
        .await;
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error)),
    };
    let cause = Cause::Rotated {
        rotation: opened.rotation.id.to_string(),
        mode: opened.rotation.mode.as_str(),
    };
    let shown = SecretValue::of(ui, visitor, &opened.keyring, &opened.once, cause).await?;
    Ok(Ok(page(StatusCode::CREATED, &shown)))
}

/// A secret leaked: it is marked, and when it is the one that signs, replaced at once.
pub(in crate::ui) async fn leaked(
    State(ui): State<UiState>,
    Path(path): Path<String>,
    sent: Sent<Typed>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let id: KeyringId = id(&path, "keyring", &visitor)?;
    let Ok(secret) = fields.leaked.parse::<SecretId>() else {
        let keyring = keyring(&ui, &visitor, id).await?;
        let mut shown = Rotate::of(&ui, &visitor, &keyring, true, fields).await?;
        shown.problems = Problems::field("leaked", "choose the secret that leaked");
        return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, &shown));
    };
    let once = match once::asked(&ui, &visitor, id, &fields.once, &fields.says()).await? {
        Asked::Again(response) => return Ok(response),
        Asked::Fresh(once) => Some(once),
        Asked::Other => None,
    };
    // All that is typed is looked at first: a secret that is marked must not wait for a name to be mended.
    let (name, reason) = (given(&fields.name), given(&fields.reason));
    let because = check_words(&visitor.caller, name.as_deref(), reason.as_deref());
    let marked = match because {
        Ok(caller) => {
            let version = Some(fields.version);
            ui.service
                .compromise_secret(&caller, id, secret, version, None)
                .await
        }
        Err(error) => Err(error),
    };
    let marked = match marked {
        Ok(marked) => marked,
        Err(error) => return Rotate::refused(&ui, &visitor, id, true, (&error, fields)).await,
    };
    let signs = marked
        .keyring
        .active()
        .is_some_and(|active| active.id == secret);
    if !signs {
        let to = format!("{}keyrings/{id}", visitor.base);
        return Ok(axum::response::IntoResponse::into_response(
            axum::response::Redirect::to(&to),
        ));
    }
    let asked = NewRotation {
        mode: ModeName::Immediate,
        overlap: None,
        deadline_at: None,
        policy: None,
        name,
        value: None,
        reason,
    };
    let version = Some(marked.keyring.version);
    match open_and_show(&ui, &visitor, id, asked, (version, once)).await? {
        Ok(response) => Ok(response),
        Err(error) => {
            tracing::warn!(keyring = %id, %error, "a secret is marked as leaked and was not replaced");
            let keyring = keyring(&ui, &visitor, id).await?;
            let mut shown = Rotate::of(&ui, &visitor, &keyring, false, fields).await?;
            let told = format!(
                "it is marked as leaked, and signs until it is replaced, which failed: {error}; rotate with mode immediate"
            );
            shown.problems = Problems::whole(told);
            Ok(page(status_of(&error), &shown))
        }
    }
}

//! Keyrings: the list of them, and one with its secrets, where KORE's *Create* and *Activate* are.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::id::KeyringId;
use hookturn_core::rotation::{Keyring, Mode, Stage};
use hookturn_core::time::Timestamp;
use http::StatusCode;
use serde::Deserialize;

use super::super::error::UiError;
use super::super::frame::{Frame, Part, page};
use super::super::problems::{Fields, Problems};
use super::super::ring::{Ring, SecretView};
use super::super::stale::Stale;
use super::super::text::visible;
use super::super::visitor::{Sent, Visitor};
use super::super::{UiState, span};
use crate::service::ServiceError;
use crate::service::audit::AuditFilter;
use crate::service::keyrings::{CreatedSecret, NewSecretInput};

mod once;
pub mod rotate;
pub(super) mod sample_parts;
pub mod secret;
pub mod value;

use once::Asked;
use value::{Cause, SecretValue};

/// Keyrings on one page.
const ROWS: usize = 50;

/// The fields of a new secret.
const CREATE: &Fields = &[("/name", "name"), ("/secret", "value")];

/// The field of an activation.
const ACTIVATE: &Fields = &[("/overlapSeconds", "overlap")];

/// The list of keyrings.
#[derive(Debug, Template)]
#[template(path = "secrets.html")]
pub struct Secrets {
    /// Around it.
    pub frame: Frame,
    /// The keyrings, the shared one first.
    pub rows: Vec<Row>,
    /// What was looked for.
    pub query: String,
    /// The same as it may be read.
    pub shown_query: String,
    /// Whether this is not the first page.
    pub is_later: bool,
    /// The first row of the next page, if there are more.
    pub next: Option<usize>,
}

/// One keyring.
#[derive(Debug, Clone)]
pub struct Row {
    /// It.
    pub ring: Ring,
    /// The secret that signs.
    pub active: Option<SecretView>,
    /// The one that waits or leaves.
    pub other: Option<SecretView>,
    /// The open rotation, with its mode and stage.
    pub rotation: Option<OpenRotation>,
}

/// A rotation that is open.
#[derive(Debug, Clone)]
pub struct OpenRotation {
    /// Its id.
    pub id: String,
    /// How it moves.
    pub mode: &'static str,
    /// Where it is.
    pub stage: &'static str,
    /// Whether its new secret is pending and its owner may activate it without proof.
    pub may_activate: bool,
    /// How long the old secret stays after that.
    pub overlap: String,
}

/// What to list.
#[derive(Debug, Default, Deserialize)]
pub(in crate::ui) struct Wanted {
    #[serde(default)]
    q: String,
    #[serde(default)]
    from: usize,
}

impl OpenRotation {
    fn of(keyring: &Keyring, now: Timestamp) -> Option<Self> {
        let open = keyring.open_rotation(now)?;
        Some(Self {
            id: open.id.to_string(),
            mode: open.mode.as_str(),
            stage: open.stage.at(now).as_str(),
            may_activate: open.stage == Stage::Staged && !matches!(open.mode, Mode::Proven { .. }),
            overlap: span::write(open.mode.overlap()),
        })
    }
}

impl Row {
    fn new(ring: Ring, keyring: &Keyring, now: Timestamp) -> Self {
        let other = keyring.pending().or(keyring.retiring(now));
        Self {
            ring,
            active: keyring.active().map(|secret| SecretView::new(secret, now)),
            other: other.map(|secret| SecretView::new(secret, now)),
            rotation: OpenRotation::of(keyring, now),
        }
    }

    /// Whether a text is in its id, the URL of an endpoint, or the name or fingerprint of a live secret.
    fn holds(&self, text: &str) -> bool {
        let secrets = [&self.active, &self.other];
        let mut secrets = secrets.into_iter().flatten();
        self.ring.id == text
            || self.ring.title.contains(text)
            || self.ring.users.iter().any(|user| user.url.contains(text))
            || secrets.any(|secret| secret.name.contains(text) || secret.fingerprint == text)
    }
}

pub(in crate::ui) async fn list(
    State(ui): State<UiState>,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Response, UiError> {
    let keyrings = ui.service.keyrings(&visitor.caller).await;
    let mut keyrings = keyrings.map_err(|error| UiError::service(&error, &visitor.base))?;
    keyrings.sort_by_key(|keyring| match keyring.owner {
        hookturn_core::rotation::KeyringOwner::Shared => 0,
        hookturn_core::rotation::KeyringOwner::Endpoint { .. } => 1,
    });
    let now = ui.clock.now();
    let text = wanted.q.trim();
    let (mut rows, mut next) = (Vec::new(), None);
    for (at, keyring) in keyrings.iter().enumerate().skip(wanted.from) {
        let ring = Ring::of(&ui, &visitor, keyring).await?;
        let row = Row::new(ring, keyring, now);
        if !text.is_empty() && !row.holds(text) {
            continue;
        }
        if rows.len() == ROWS {
            next = Some(at);
            break;
        }
        rows.push(row);
    }
    let secrets = Secrets {
        frame: Frame::new(&ui, &visitor, Part::Secrets, "Secrets"),
        rows,
        shown_query: visible(text),
        query: text.to_owned(),
        is_later: wanted.from > 0,
        next,
    };
    Ok(page(StatusCode::OK, &secrets))
}

/// One keyring with its secrets.
#[derive(Debug, Template)]
#[template(path = "keyring.html")]
pub struct OneKeyring {
    /// Around it.
    pub frame: Frame,
    /// It.
    pub ring: Ring,
    /// Its secrets, newest first.
    pub secrets: Vec<SecretView>,
    /// The open rotation.
    pub rotation: Option<OpenRotation>,
    /// The secret that waits.
    pub pending: Option<SecretView>,
    /// Whether one signs.
    pub has_active: bool,
    /// What was typed for a new secret.
    pub name: String,
    /// Whether the pending one was to be replaced by it.
    pub replaces: bool,
    /// What was typed for the overlap of an activation.
    pub overlap: String,
    /// What was wrong.
    pub problems: Problems,
    /// What happened meanwhile.
    pub stale: Option<Stale>,
}

/// What every form about a keyring has: what it was made from.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(in crate::ui) struct Seen {
    pub(super) version: u64,
    pub(super) seen: i64,
}

/// An id in a path; what is none names nothing.
pub(super) fn id<T: std::str::FromStr>(
    text: &str,
    what: &'static str,
    visitor: &Visitor,
) -> Result<T, UiError> {
    let missing = |_| UiError::service(&ServiceError::not_found(what), &visitor.base);
    text.parse().map_err(missing)
}

/// The keyring of that id.
pub(super) async fn keyring(
    ui: &UiState,
    visitor: &Visitor,
    id: KeyringId,
) -> Result<std::sync::Arc<Keyring>, UiError> {
    let found = ui.service.keyring(&visitor.caller, id).await;
    found.map_err(|error| UiError::service(&error, &visitor.base))
}

/// What happened to a keyring since a form was made.
pub(super) async fn stale(
    ui: &UiState,
    visitor: &Visitor,
    keyring: KeyringId,
    seen: i64,
    reload: String,
) -> Result<Stale, UiError> {
    let filter = AuditFilter {
        subject: Some(keyring.to_string()),
        ..AuditFilter::default()
    };
    Stale::since(ui, visitor, filter, seen, reload).await
}

impl OneKeyring {
    async fn of(ui: &UiState, visitor: &Visitor, id: KeyringId) -> Result<Self, UiError> {
        let keyring = keyring(ui, visitor, id).await?;
        let ring = Ring::of(ui, visitor, &keyring).await?;
        let now = ui.clock.now();
        let rotation = OpenRotation::of(&keyring, now);
        let overlap = rotation.as_ref().map(|open| open.overlap.clone());
        let secrets = keyring.secrets.iter().rev();
        Ok(Self {
            frame: Frame::new(ui, visitor, Part::Secrets, &ring.title),
            secrets: secrets.map(|secret| SecretView::new(secret, now)).collect(),
            pending: keyring.pending().map(|secret| SecretView::new(secret, now)),
            has_active: keyring.active().is_some(),
            overlap: overlap.unwrap_or_default(),
            rotation,
            ring,
            name: String::new(),
            replaces: false,
            problems: Problems::default(),
            stale: None,
        })
    }

    /// The page after a form that was refused.
    async fn refused(
        ui: &UiState,
        visitor: &Visitor,
        id: KeyringId,
        error: &ServiceError,
        (seen, fields): (Seen, &Fields),
    ) -> Result<(Self, StatusCode), UiError> {
        if let ServiceError::PreconditionFailed { .. } = error {
            let mut shown = Self::of(ui, visitor, id).await?;
            let reload = format!("keyrings/{id}");
            shown.stale = Some(stale(ui, visitor, id, seen.seen, reload).await?);
            return Ok((shown, StatusCode::PRECONDITION_FAILED));
        }
        let (problems, status) = Problems::refused(error, visitor, fields)?;
        let mut shown = Self::of(ui, visitor, id).await?;
        shown.problems = problems;
        Ok((shown, status))
    }
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    Path(keyring): Path<String>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    let id = id(&keyring, "keyring", &visitor)?;
    Ok(page(
        StatusCode::OK,
        &OneKeyring::of(&ui, &visitor, id).await?,
    ))
}

/// The form of a new secret.
#[derive(Deserialize)]
pub(in crate::ui) struct Create {
    version: u64,
    seen: i64,
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    replace_pending: Option<String>,
    #[serde(default)]
    once: String,
}

/// A text of a form, unless it is blank.
pub(super) fn given(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

pub(in crate::ui) async fn create(
    State(ui): State<UiState>,
    Path(keyring): Path<String>,
    sent: Sent<Create>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let id: KeyringId = id(&keyring, "keyring", &visitor)?;
    let input = NewSecretInput {
        name: given(&fields.name),
        value: given(&fields.value).map(Into::into),
        overlap: None,
        replace_pending: fields.replace_pending.is_some(),
        reason: None,
    };
    let replaces = fields.replace_pending.as_deref().unwrap_or_default();
    let says = [fields.name.as_str(), &fields.value, replaces];
    let once = match once::asked(&ui, &visitor, id, &fields.once, &says).await? {
        Asked::Again(response) => return Ok(response),
        Asked::Fresh(once) => Some(once),
        Asked::Other => None,
    };
    let kept = |made: &CreatedSecret| once::kept(&made.once, made.rotation.as_ref(), "created");
    let recording = once.as_ref().map(|once| once.record(&kept));
    let version = Some(fields.version);
    let made = ui
        .service
        .create_secret(&visitor.caller, id, input, version, recording)
        .await;
    match made {
        Ok(made) => {
            let cause = match &made.rotation {
                Some(rotation) => Cause::Staged {
                    rotation: rotation.id.to_string(),
                },
                None => Cause::First,
            };
            let shown = SecretValue::of(&ui, &visitor, &made.keyring, &made.once, cause).await?;
            Ok(page(StatusCode::CREATED, &shown))
        }
        Err(error) => {
            let seen = Seen {
                version: fields.version,
                seen: fields.seen,
            };
            let refused = OneKeyring::refused(&ui, &visitor, id, &error, (seen, CREATE));
            let (mut shown, status) = refused.await?;
            shown.name = fields.name;
            shown.replaces = fields.replace_pending.is_some();
            Ok(page(status, &shown))
        }
    }
}

/// The form that activates the pending secret.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct Activate {
    version: u64,
    seen: i64,
    #[serde(default)]
    overlap: String,
}

pub(in crate::ui) async fn activate(
    State(ui): State<UiState>,
    Path((keyring, secret)): Path<(String, String)>,
    sent: Sent<Activate>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let id: KeyringId = id(&keyring, "keyring", &visitor)?;
    let secret = self::id(&secret, "secret", &visitor)?;
    let overlap = match given(&fields.overlap).as_deref().map(span::read) {
        None => None,
        Some(Ok(overlap)) => Some(overlap),
        Some(Err(message)) => {
            let mut shown = OneKeyring::of(&ui, &visitor, id).await?;
            shown.problems = Problems::field("overlap", message);
            shown.overlap = fields.overlap;
            return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, &shown));
        }
    };
    let version = Some(fields.version);
    let activated = ui
        .service
        .activate_secret(&visitor.caller, id, secret, overlap, version, None)
        .await;
    match activated {
        Ok(changed) => {
            let to = changed.keyring.rotation.map_or_else(
                || format!("{}keyrings/{id}", visitor.base),
                |rotation| format!("{}rotations/{}", visitor.base, rotation.id),
            );
            Ok(Redirect::to(&to).into_response())
        }
        Err(error) => {
            let seen = Seen {
                version: fields.version,
                seen: fields.seen,
            };
            let refused = OneKeyring::refused(&ui, &visitor, id, &error, (seen, ACTIVATE));
            let (mut shown, status) = refused.await?;
            shown.overlap = fields.overlap;
            Ok(page(status, &shown))
        }
    }
}

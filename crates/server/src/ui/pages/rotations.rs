//! Rotations: the list, and one as it goes on, with what may be done to it.
//!
//! The panel of an open rotation is asked for again every two seconds where scripts run; without them the
//! page is loaded again. When the rotation changed since the page was made, the answer brings its
//! forms too, so that nobody presses a button that means something else by now; and whoever is faster
//! than that sends a version that is gone, and is told what happened.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse as _, Response};
use hookturn_core::id::{KeyringId, RotationId};
use hookturn_core::rotation::Rotation;
use hookturn_core::store::Page;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use super::super::UiState;
use super::super::error::UiError;
use super::super::frame::{Frame, Part, page};
use super::super::problems::Problems;
use super::super::ring::Ring;
use super::super::stale::Stale;
use super::super::text::{When, visible};
use super::super::visitor::Visitor;
use super::keyrings::id;
use crate::service::ServiceError;
use crate::service::rotation::RotationFilter;

pub mod actions;
pub mod panel;
mod samples;

use actions::Action;
use panel::Panel;

/// Rotations on one page.
const ROWS: usize = 50;

/// Tells htmx to replace the panel whole, so that it stops asking or asks with another version.
const RESWAP: HeaderName = HeaderName::from_static("hx-reswap");
/// Tells htmx to load the page again, which leads to sign in.
const REFRESH: HeaderName = HeaderName::from_static("hx-refresh");

/// The list.
#[derive(Debug, Template)]
#[template(path = "rotations.html")]
pub struct Rotations {
    /// Around it.
    pub frame: Frame,
    /// The rotations, newest first.
    pub rows: Vec<Row>,
    /// Whether only open ones are listed.
    pub open: bool,
    /// Only of this keyring.
    pub keyring: Option<String>,
    /// Whether this is not the first page.
    pub is_later: bool,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// One rotation.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// Whom its keyring signs for.
    pub title: String,
    /// How it moves.
    pub mode: &'static str,
    /// Where it is.
    pub stage: &'static str,
    /// Whether it is open.
    pub is_open: bool,
    /// When it was opened.
    pub opened: When,
    /// Why.
    pub reason: String,
}

/// What to list.
#[derive(Debug, Default, Deserialize)]
pub(in crate::ui) struct Wanted {
    #[serde(default)]
    state: String,
    #[serde(default)]
    keyring: String,
    #[serde(default)]
    before: String,
}

/// Whom the keyring of a rotation signs for; the id of one that is gone.
async fn title(ui: &UiState, visitor: &Visitor, id: KeyringId) -> Result<String, UiError> {
    match ui.service.keyring(&visitor.caller, id).await {
        Ok(keyring) => Ok(Ring::of(ui, visitor, &keyring).await?.title),
        Err(ServiceError::NotFound { .. }) => Ok(format!("{id} (deleted)")),
        Err(error) => Err(UiError::service(&error, &visitor.base)),
    }
}

pub(in crate::ui) async fn list(
    State(ui): State<UiState>,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Response, UiError> {
    let keyring = match wanted.keyring.as_str() {
        "" => None,
        text => Some(id::<KeyringId>(text, "keyring", &visitor)?),
    };
    let before = match wanted.before.as_str() {
        "" => None,
        text => Some(id::<RotationId>(text, "rotation", &visitor)?),
    };
    let filter = RotationFilter {
        keyring,
        open: wanted.state == "open",
    };
    let part = Page {
        before,
        limit: ROWS,
    };
    let listed = ui.service.rotations(&visitor.caller, filter, part).await;
    let listed = listed.map_err(|error| UiError::service(&error, &visitor.base))?;
    let now = ui.clock.now();
    let mut rows = Vec::with_capacity(listed.items.len());
    for rotation in &listed.items {
        let stage = rotation.stage.at(now);
        rows.push(Row {
            id: rotation.id.to_string(),
            title: title(&ui, &visitor, rotation.keyring).await?,
            mode: rotation.mode.as_str(),
            stage: stage.as_str(),
            is_open: stage.is_open(),
            opened: When::new(rotation.opened_at, now),
            reason: rotation.reason.as_deref().map(visible).unwrap_or_default(),
        });
    }
    let last = listed.items.last().map(|rotation| rotation.id.to_string());
    let rotations = Rotations {
        frame: Frame::new(&ui, &visitor, Part::Rotations, "Rotations"),
        rows,
        open: filter.open,
        keyring: keyring.map(|id| id.to_string()),
        is_later: before.is_some(),
        next: last.filter(|_| listed.has_more),
    };
    Ok(page(StatusCode::OK, &rotations))
}

/// One rotation.
#[derive(Debug, Template)]
#[template(path = "rotation.html")]
pub struct OneRotation {
    /// Around it.
    pub frame: Frame,
    /// Its keyring; none when that is gone with its endpoint.
    pub ring: Option<Ring>,
    /// How it stands.
    pub panel: Panel,
    /// What the forms were made from, for the page to say when it asks again.
    pub mark: String,
    /// What may be done.
    pub actions: Vec<Action>,
    /// What was typed as a reason.
    pub reason: String,
    /// What was typed as the time to add.
    pub by: String,
    /// Which action the form was that was refused.
    pub refused: String,
    /// What was wrong.
    pub problems: Problems,
    /// What happened meanwhile.
    pub stale: Option<Stale>,
}

/// The panel alone, for a page that is open.
#[derive(Debug, Template)]
#[template(path = "rotation_news.html")]
struct News<'a> {
    frame: &'a Frame,
    ring: &'a Option<Ring>,
    panel: &'a Panel,
    mark: &'a str,
    actions: &'a [Action],
    reason: &'a str,
    by: &'a str,
    refused: &'a str,
    problems: &'a Problems,
    has_changed: bool,
}

impl OneRotation {
    async fn of(ui: &UiState, visitor: &Visitor, id: RotationId) -> Result<Self, UiError> {
        let told = |error: ServiceError| UiError::service(&error, &visitor.base);
        let rotation: Rotation = ui
            .service
            .rotation(&visitor.caller, id)
            .await
            .map_err(told)?;
        let keyring = match ui.service.keyring(&visitor.caller, rotation.keyring).await {
            Ok(keyring) => Some(keyring),
            // The keyring of a deleted endpoint is gone, its rotations are history.
            Err(ServiceError::NotFound { .. }) => None,
            Err(error) => return Err(told(error)),
        };
        let now = ui.clock.now();
        let (ring, standings) = match &keyring {
            Some(keyring) => {
                let standings = ui.service.standings(&visitor.caller, &rotation).await;
                let ring = Ring::of(ui, visitor, keyring).await?;
                (Some(ring), standings.map_err(told)?)
            }
            None => (None, Vec::new()),
        };
        let panel = Panel::new(&rotation, keyring.as_deref(), &standings, now);
        let actions = match &keyring {
            Some(keyring) if visitor.may(hookturn_core::workspace::Scope::Secrets) => {
                actions::possible(&rotation, keyring, &panel, now)
            }
            Some(_) | None => Vec::new(),
        };
        let version = ring.as_ref().map_or(0, |ring| ring.version);
        Ok(Self {
            // What is proved decides which promotion is offered, while there is one.
            mark: format!(
                "{version}.{}.{}",
                panel.stage,
                if panel.is_staged() { panel.proved } else { 0 }
            ),
            frame: Frame::new(ui, visitor, Part::Rotations, "Rotation"),
            ring,
            panel,
            actions,
            reason: String::new(),
            by: "1 d".to_owned(),
            refused: String::new(),
            problems: Problems::default(),
            stale: None,
        })
    }
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    Path(rotation): Path<String>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    let id = id(&rotation, "rotation", &visitor)?;
    Ok(page(
        StatusCode::OK,
        &OneRotation::of(&ui, &visitor, id).await?,
    ))
}

/// What the page was made from.
#[derive(Debug, Default, Deserialize)]
pub(in crate::ui) struct Known {
    #[serde(default)]
    mark: String,
}

pub(in crate::ui) async fn news(
    State(ui): State<UiState>,
    Path(rotation): Path<String>,
    Query(known): Query<Known>,
    visitor: Result<Visitor, UiError>,
) -> Response {
    let news = match visitor {
        Ok(visitor) => news_for(&ui, &visitor, &rotation, &known).await,
        Err(error) => Err(error),
    };
    match news {
        Ok(response) => response,
        Err(UiError::SignedOut { .. }) => ([(REFRESH, "true")], Html("")).into_response(),
        // The panel stays as it is: a page about an error has no place in it.
        Err(error) => ([(RESWAP, "none")], error).into_response(),
    }
}

async fn news_for(
    ui: &UiState,
    visitor: &Visitor,
    rotation: &str,
    known: &Known,
) -> Result<Response, UiError> {
    let shown = OneRotation::of(ui, visitor, id(rotation, "rotation", visitor)?).await?;
    let has_changed = shown.mark != known.mark;
    let news = News {
        frame: &shown.frame,
        ring: &shown.ring,
        panel: &shown.panel,
        mark: &shown.mark,
        actions: &shown.actions,
        reason: &shown.reason,
        by: &shown.by,
        refused: &shown.refused,
        problems: &shown.problems,
        has_changed,
    };
    let mut response = page(StatusCode::OK, &news);
    if has_changed {
        let whole = HeaderValue::from_static("outerHTML");
        response.headers_mut().insert(RESWAP, whole);
    }
    Ok(response)
}

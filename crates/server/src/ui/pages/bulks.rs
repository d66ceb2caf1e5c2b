//! Bulk rotations: the list, and one with its waves and keyrings, while it goes on.
//!
//! A page of one that is running asks again every two seconds where scripts run; without them it is loaded
//! again. What may be done to it says so itself: a command that its state does not take is refused with
//! the reason, so that none is carried out on another state than its sender meant.

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use hookturn_core::bulk::{Bulk, BulkCommand, BulkState, ItemCounts, ItemKind, ItemState};
use hookturn_core::id::BulkId;
use hookturn_core::proof::Release;
use hookturn_core::store::Page;
use hookturn_core::time::Timestamp;
use http::StatusCode;
use serde::Deserialize;

use super::super::UiState;
use super::super::error::{UiError, status_of};
use super::super::frame::{Frame, Part, page};
use super::super::ring::Ring;
use super::super::text::{State as Shown, When, visible};
use super::super::visitor::{Sent, Visitor};
use super::apps::endpoint::NoFields;
use super::keyrings::id;
use crate::service::ServiceError;
use crate::service::bulk::{BulkProgress, ShownItem};

pub mod form;
mod samples;

/// Bulk rotations on one page of the list, and keyrings on one page of a bulk rotation.
const ROWS: usize = 50;

/// Every path of bulk rotations.
pub(in crate::ui) fn routes() -> Router<UiState> {
    Router::new()
        .route("/bulk-rotations", get(list).post(form::start))
        .route("/bulk-rotations/new", get(form::new))
        .route("/bulk-rotations/plan", post(form::plan))
        .route("/bulk-rotations/{bulk}", get(show))
        .route("/bulk-rotations/{bulk}/{command}", post(command))
}

/// The list.
#[derive(Debug, Template)]
#[template(path = "bulks.html")]
pub struct Bulks {
    /// Around it.
    pub frame: Frame,
    /// The bulk rotations, newest first.
    pub rows: Vec<BulkView>,
    /// Where the next page begins.
    pub next: Option<String>,
    /// Whether this is not the first page.
    pub is_later: bool,
}

/// A bulk rotation as pages show it.
#[derive(Debug, Clone)]
pub struct BulkView {
    /// Its id.
    pub id: String,
    /// Where it is.
    pub state: Shown,
    /// The same in a sentence.
    pub words: String,
    /// How its keyrings move.
    pub mode: &'static str,
    /// How many keyrings it has.
    pub keyrings: u32,
    /// The present wave, from 1, and how many there are.
    pub wave: (u32, usize),
    /// When the present wave may begin, if that is ahead.
    pub wave_at: Option<When>,
    /// When it was started.
    pub started: When,
    /// Why.
    pub reason: String,
    /// Which keyrings, in words.
    pub selected: Vec<String>,
    /// Whether it moves by itself.
    pub is_running: bool,
    /// Whether it can still open rotations.
    pub is_open: bool,
}

impl BulkView {
    fn new(bulk: &Bulk, now: Timestamp) -> Self {
        let state = match bulk.state {
            BulkState::Running => Shown::waiting("running"),
            BulkState::Paused { .. } => Shown::waiting("paused"),
            BulkState::Stopped { .. } => Shown::bad("stopped"),
            BulkState::Completed { .. } => Shown::good("completed"),
            BulkState::Cancelled { .. } => Shown::over("cancelled"),
        };
        Self {
            id: bulk.id.to_string(),
            state,
            words: words(bulk.state),
            mode: bulk.manner.as_str(),
            keyrings: bulk.keyrings(),
            wave: (bulk.wave + 1, bulk.wave_ends.len()),
            wave_at: (bulk.wave_at > now && bulk.state.is_open())
                .then(|| When::new(bulk.wave_at, now)),
            started: When::new(bulk.created_at, now),
            reason: bulk
                .context
                .reason
                .as_deref()
                .map(visible)
                .unwrap_or_default(),
            selected: form::selected(&bulk.selector),
            is_running: bulk.state == BulkState::Running,
            is_open: bulk.state.is_open(),
        }
    }
}

/// Where a bulk rotation is, and what that means.
fn words(state: BulkState) -> String {
    match state {
        BulkState::Running => "It opens rotations, wave after wave.".to_owned(),
        BulkState::Paused { .. } => {
            "It opens nothing until it is resumed; what it opened goes on.".to_owned()
        }
        BulkState::Stopped { failed, of, .. } => format!(
            "{failed} of {of} rotations of this wave failed, so it stopped: look at the failed ones, then resume or cancel it."
        ),
        BulkState::Completed { .. } => "Everything it was to open was opened or tried.".to_owned(),
        BulkState::Cancelled { .. } => "It opens nothing more; what it opened goes on.".to_owned(),
    }
}

/// Where a list begins.
#[derive(Debug, Default, Deserialize)]
pub(in crate::ui) struct From {
    #[serde(default)]
    before: String,
}

pub(in crate::ui) async fn list(
    State(ui): State<UiState>,
    visitor: Visitor,
    Query(from): Query<From>,
) -> Result<Response, UiError> {
    let before = match from.before.as_str() {
        "" => None,
        text => Some(id::<BulkId>(text, "bulk rotation", &visitor)?),
    };
    let asked = Page {
        before,
        limit: ROWS,
    };
    let listed = ui.service.bulks(&visitor.caller, asked).await;
    let listed = listed.map_err(|error| UiError::service(&error, &visitor.base))?;
    let now = ui.clock.now();
    let last = listed.items.last().map(|bulk| bulk.id.to_string());
    let bulks = Bulks {
        frame: Frame::new(&ui, &visitor, Part::Rotations, "Bulk rotations"),
        next: last.filter(|_| listed.has_more),
        rows: listed
            .items
            .iter()
            .map(|bulk| BulkView::new(bulk, now))
            .collect(),
        is_later: before.is_some(),
    };
    Ok(page(StatusCode::OK, &bulks))
}

/// One bulk rotation.
#[derive(Debug, Template)]
#[template(path = "bulk.html")]
pub struct OneBulk {
    /// Around it.
    pub frame: Frame,
    /// It.
    pub bulk: BulkView,
    /// What became of its keyrings: kind, how many, and whether only these are listed.
    pub counts: Vec<(&'static str, u32, bool)>,
    /// How many are behind it, whichever way they ended.
    pub behind: u32,
    /// The kind that is listed alone.
    pub kind: Option<&'static str>,
    /// The keyrings, in its order.
    pub items: Vec<Item>,
    /// The position of the first one of the next page.
    pub next: Option<u32>,
    /// The position of the first one of this page.
    pub from: u32,
    /// What was wrong with the last command.
    pub error: Option<String>,
}

/// One keyring of a bulk rotation.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its place, from 1.
    pub place: u32,
    /// The keyring's id.
    pub keyring: String,
    /// Whom it signs for.
    pub title: String,
    /// What became of it.
    pub state: Shown,
    /// Its rotation, if it was opened.
    pub rotation: Option<String>,
    /// Where that is now, or why there is none.
    pub note: String,
    /// What is known of receivers that still accept the old secret.
    pub released: String,
}

impl Item {
    async fn of(ui: &UiState, visitor: &Visitor, shown: ShownItem) -> Result<Self, UiError> {
        let id = shown.item.keyring;
        let title = match ui.service.keyring(&visitor.caller, id).await {
            Ok(keyring) => Ring::of(ui, visitor, &keyring).await?.title,
            Err(ServiceError::NotFound { .. }) => format!("{id} (deleted)"),
            Err(error) => return Err(UiError::service(&error, &visitor.base)),
        };
        let state = &shown.item.state;
        let stage = shown.rotation.as_ref().map(|rotation| {
            let stage = rotation.stage.at(ui.clock.now());
            stage.as_str().to_owned()
        });
        let note = match state {
            ItemState::Failed { message, .. } => visible(message),
            _ => stage.unwrap_or_default(),
        };
        let open = shown
            .releases
            .iter()
            .filter(|(_, release)| matches!(release, Release::StillAccepts { .. }))
            .count();
        let released = match open {
            0 => String::new(),
            count => format!("{count} still accept the old secret"),
        };
        Ok(Self {
            place: shown.item.position + 1,
            keyring: id.to_string(),
            title,
            state: state_of(state.kind()),
            rotation: state.rotation().map(|rotation| rotation.to_string()),
            note,
            released,
        })
    }
}

const fn state_of(kind: ItemKind) -> Shown {
    match kind {
        ItemKind::Waiting => Shown::over("waiting"),
        ItemKind::Running => Shown::waiting("running"),
        ItemKind::Stalled => Shown::waiting("stalled"),
        ItemKind::Done => Shown::good("done"),
        ItemKind::Failed => Shown::bad("failed"),
    }
}

fn counted(mut counts: ItemCounts, only: Option<ItemKind>) -> Vec<(&'static str, u32, bool)> {
    ItemKind::ALL
        .map(|kind| (kind.as_str(), *counts.of(kind), only == Some(kind)))
        .to_vec()
}

/// Which keyrings to list.
#[derive(Debug, Default, Deserialize)]
pub(in crate::ui) struct Wanted {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    from: u32,
}

impl OneBulk {
    async fn of(
        ui: &UiState,
        visitor: &Visitor,
        progress: &BulkProgress,
        wanted: &Wanted,
    ) -> Result<Self, UiError> {
        let kind = wanted.kind.parse::<ItemKind>().ok();
        let service = &ui.service;
        let found = service.bulk_items(&visitor.caller, progress.bulk.id, kind, wanted.from, ROWS);
        let found = found
            .await
            .map_err(|error| UiError::service(&error, &visitor.base))?;
        let last = found.items.last().map(|last| last.item.position + 1);
        let mut items = Vec::with_capacity(found.items.len());
        for item in found.items {
            items.push(Item::of(ui, visitor, item).await?);
        }
        let counts = progress.counts;
        Ok(Self {
            frame: Frame::new(ui, visitor, Part::Rotations, "Bulk rotation"),
            bulk: BulkView::new(&progress.bulk, ui.clock.now()),
            counts: counted(counts, kind),
            behind: counts.done + counts.failed + counts.stalled,
            kind: kind.map(ItemKind::as_str),
            items,
            next: last.filter(|_| found.has_more),
            from: wanted.from,
            error: None,
        })
    }
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    Path(bulk): Path<String>,
    Query(wanted): Query<Wanted>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    let id = id::<BulkId>(&bulk, "bulk rotation", &visitor)?;
    let progress = ui.service.bulk(&visitor.caller, id).await;
    let progress = progress.map_err(|error| UiError::service(&error, &visitor.base))?;
    let shown = OneBulk::of(&ui, &visitor, &progress, &wanted).await?;
    Ok(page(StatusCode::OK, &shown))
}

pub(in crate::ui) async fn command(
    State(ui): State<UiState>,
    Path((bulk, command)): Path<(String, String)>,
    sent: Sent<NoFields>,
) -> Result<Response, UiError> {
    let visitor = sent.visitor;
    let told = |error: &ServiceError| UiError::service(error, &visitor.base);
    let id = id::<BulkId>(&bulk, "bulk rotation", &visitor)?;
    let command = match command.as_str() {
        "pause" => BulkCommand::Pause,
        "resume" => BulkCommand::Resume,
        "cancel" => BulkCommand::Cancel,
        _ => return Err(told(&ServiceError::not_found("command"))),
    };
    let service = &ui.service;
    let done = service.command_bulk(&visitor.caller, id, command, None, None);
    match done.await {
        Ok(_) => {
            let back = format!("{}bulk-rotations/{id}", visitor.base);
            Ok(Redirect::to(&back).into_response())
        }
        Err(error @ ServiceError::Conflict { .. }) => {
            let progress = service.bulk(&visitor.caller, id).await;
            let progress = progress.map_err(|error| told(&error))?;
            let mut shown = OneBulk::of(&ui, &visitor, &progress, &Wanted::default()).await?;
            shown.error = Some(error.to_string());
            Ok(page(status_of(&error), &shown))
        }
        Err(error) => Err(told(&error)),
    }
}

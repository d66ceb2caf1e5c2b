//! Schedules: the list, and one with what comes of it and what it could not open.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use hookturn_core::id::{KeyringId, ScheduleId};
use hookturn_core::schedule::{Schedule, Selector, Timing};
use hookturn_core::store::Page;
use hookturn_core::time::{SECOND, Timestamp};
use http::StatusCode;
use serde::Deserialize;

use super::super::error::{UiError, status_of};
use super::super::frame::{Frame, Part, page};
use super::super::ring::Ring;
use super::super::stale::Stale;
use super::super::text::{State as Shown, When, visible};
use super::super::visitor::{Sent, Visitor};
use super::super::{UiState, span};
use super::keyrings::id;
use crate::service::ServiceError;
use crate::service::schedules::{SchedulePatch, ShownSchedule};

pub mod form;
mod samples;
mod values;

/// Schedules on one page.
const ROWS: usize = 50;

/// Every path of schedules.
pub(in crate::ui) fn routes() -> Router<UiState> {
    Router::new()
        .route("/schedules", get(list).post(form::create))
        .route("/schedules/new", get(form::new))
        .route("/schedules/{schedule}", get(show))
        .route(
            "/schedules/{schedule}/edit",
            get(form::edit).post(form::change),
        )
        .route("/schedules/{schedule}/state", post(switch))
        .route("/schedules/{schedule}/delete", post(delete))
}

/// The list.
#[derive(Debug, Template)]
#[template(path = "schedules.html")]
pub struct Schedules {
    /// Around it.
    pub frame: Frame,
    /// The schedules, newest first.
    pub rows: Vec<ScheduleView>,
    /// Whether this is not the first page.
    pub is_later: bool,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// A schedule as pages show it.
#[derive(Debug, Clone)]
pub struct ScheduleView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it opens anything.
    pub state: Shown,
    /// Whether it is paused.
    pub is_paused: bool,
    /// When rotations are due, in words.
    pub timing: String,
    /// For which keyrings, in words.
    pub selector: String,
    /// The page of what it is for, if it is one thing.
    pub link: Option<String>,
    /// By how much openings are put off, and when nothing is opened.
    pub limits: Vec<String>,
    /// The version that forms change.
    pub version: u64,
    /// When it was made.
    pub made: When,
}

impl ScheduleView {
    fn new(schedule: &Schedule, now: Timestamp) -> Self {
        let (selector, link) = match schedule.selector {
            Selector::Workspace => ("every keyring of the workspace".to_owned(), None),
            Selector::App { app } => (
                format!("the endpoints of app {app}"),
                Some(format!("apps/{app}")),
            ),
            Selector::Keyring { keyring } => (
                format!("keyring {keyring}"),
                Some(format!("keyrings/{keyring}")),
            ),
        };
        Self {
            id: schedule.id.to_string(),
            name: visible(&schedule.name),
            state: if schedule.paused {
                Shown::waiting("paused")
            } else {
                Shown::good("running")
            },
            is_paused: schedule.paused,
            timing: timing(schedule),
            selector,
            link,
            limits: limits(schedule),
            version: schedule.version,
            made: When::new(schedule.created_at, now),
        }
    }
}

/// When rotations are due.
fn timing(schedule: &Schedule) -> String {
    match schedule.timing {
        Timing::Age { days } => format!("when the active secret is {days} days old"),
        Timing::Calendar(calendar) => {
            let months = match calendar.every_months {
                1 => "every month".to_owned(),
                12 => "every January".to_owned(),
                count => format!("every {count} months from January on"),
            };
            format!(
                "{months}, on day {} at {} ({})",
                calendar.day_of_month, calendar.time, schedule.zone
            )
        }
    }
}

/// What holds openings up.
fn limits(schedule: &Schedule) -> Vec<String> {
    let jitter = (schedule.jitter_seconds > 0).then(|| {
        let most = span::write(u64::from(schedule.jitter_seconds) * SECOND);
        format!("each put off by up to {most}")
    });
    let weekly = schedule.weekly_blackouts.iter();
    let weekly = weekly.map(|blackout| format!("not {}", values::weekly_text(*blackout)));
    let dates = schedule.date_blackouts.iter();
    let dates = dates.map(|blackout| format!("not {}", values::dates_text(*blackout)));
    jitter.into_iter().chain(weekly).chain(dates).collect()
}

/// Where the list begins.
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
        text => Some(id::<ScheduleId>(text, "schedule", &visitor)?),
    };
    let asked = Page {
        before,
        limit: ROWS,
    };
    let listed = ui.service.schedules(&visitor.caller, asked).await;
    let listed = listed.map_err(|error| UiError::service(&error, &visitor.base))?;
    let now = ui.clock.now();
    let last = listed.items.last().map(|last| last.id.to_string());
    let row = |schedule: &Arc<Schedule>| ScheduleView::new(schedule, now);
    let schedules = Schedules {
        frame: Frame::new(&ui, &visitor, Part::Rotations, "Schedules"),
        rows: listed.items.iter().map(row).collect(),
        is_later: before.is_some(),
        next: last.filter(|_| listed.has_more),
    };
    Ok(page(StatusCode::OK, &schedules))
}

/// One schedule.
#[derive(Debug, Template)]
#[template(path = "schedule.html")]
pub struct OneSchedule {
    /// Around it.
    pub frame: Frame,
    /// It.
    pub schedule: ScheduleView,
    /// How many keyrings it is for.
    pub keyrings: usize,
    /// What it will open next.
    pub openings: Vec<Coming>,
    /// What is due and could not be opened.
    pub skipped: Vec<Coming>,
    /// What it opened last.
    pub opened: Vec<Coming>,
    /// What happened since the page was loaded whose form was refused.
    pub stale: Option<Stale>,
}

/// Something that a schedule did or will do for a keyring.
#[derive(Debug, Clone)]
pub struct Coming {
    /// The page of its keyring or rotation.
    pub path: String,
    /// Whom the keyring signs for.
    pub title: String,
    /// When it was or will be.
    pub at: When,
    /// Since when it is due, or why it was not opened.
    pub note: String,
}

impl OneSchedule {
    async fn of(ui: &UiState, visitor: &Visitor, shown: ShownSchedule) -> Result<Self, UiError> {
        let now = ui.clock.now();
        let keyring_path = |id| format!("keyrings/{id}");
        let mut openings = Vec::new();
        for (keyring, opening) in shown.openings {
            openings.push(Coming {
                path: keyring_path(keyring),
                title: title(ui, visitor, keyring).await?,
                at: When::new(opening.opens_at, now),
                note: String::new(),
            });
        }
        let mut skipped = Vec::new();
        for (keyring, one) in shown.skipped {
            skipped.push(Coming {
                path: keyring_path(keyring),
                title: title(ui, visitor, keyring).await?,
                at: When::new(one.due, now),
                note: one.why.words().to_owned(),
            });
        }
        let mut opened = Vec::new();
        for (keyring, one) in shown.opened {
            opened.push(Coming {
                path: format!("rotations/{}", one.rotation),
                title: title(ui, visitor, keyring).await?,
                at: When::new(one.at, now),
                note: String::new(),
            });
        }
        Ok(Self {
            frame: Frame::new(ui, visitor, Part::Rotations, "Schedule"),
            schedule: ScheduleView::new(&shown.schedule, now),
            keyrings: shown.keyrings,
            openings,
            skipped,
            opened,
            stale: None,
        })
    }
}

/// Whom a keyring signs for.
async fn title(ui: &UiState, visitor: &Visitor, id: KeyringId) -> Result<String, UiError> {
    match ui.service.keyring(&visitor.caller, id).await {
        Ok(keyring) => Ok(Ring::of(ui, visitor, &keyring).await?.title),
        Err(ServiceError::NotFound { .. }) => Ok(format!("{id} (deleted)")),
        Err(error) => Err(UiError::service(&error, &visitor.base)),
    }
}

/// A schedule of the visitor's workspace.
async fn known(ui: &UiState, visitor: &Visitor, text: &str) -> Result<ShownSchedule, UiError> {
    let id = id::<ScheduleId>(text, "schedule", visitor)?;
    let shown = ui.service.schedule(&visitor.caller, id).await;
    shown.map_err(|error| UiError::service(&error, &visitor.base))
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    Path(schedule): Path<String>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    let shown = known(&ui, &visitor, &schedule).await?;
    let shown = OneSchedule::of(&ui, &visitor, shown).await?;
    Ok(page(StatusCode::OK, &shown))
}

/// The form that pauses, resumes or deletes.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct Switch {
    version: u64,
    #[serde(default)]
    seen: i64,
    #[serde(default)]
    to: String,
}

/// The page with what happened meanwhile, where somebody else was first.
async fn refused(
    ui: &UiState,
    visitor: &Visitor,
    schedule: &str,
    error: &ServiceError,
    seen: i64,
) -> Result<Response, UiError> {
    match error {
        ServiceError::PreconditionFailed { .. } => {
            let shown = known(ui, visitor, schedule).await?;
            let subject = shown.schedule.id.to_string();
            let mut shown = OneSchedule::of(ui, visitor, shown).await?;
            let reload = format!("schedules/{subject}");
            shown.stale = Some(Stale::of(ui, visitor, subject, seen, reload).await?);
            Ok(page(status_of(error), &shown))
        }
        error => Err(UiError::service(error, &visitor.base)),
    }
}

pub(in crate::ui) async fn switch(
    State(ui): State<UiState>,
    Path(schedule): Path<String>,
    sent: Sent<Switch>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let id = id::<ScheduleId>(&schedule, "schedule", &visitor)?;
    let patch = SchedulePatch {
        paused: Some(fields.to == "paused"),
        ..SchedulePatch::default()
    };
    let version = Some(fields.version);
    let done = ui
        .service
        .patch_schedule(&visitor.caller, id, patch, version);
    match done.await {
        Ok(_) => Ok(Redirect::to(&format!("{}schedules/{id}", visitor.base)).into_response()),
        Err(error) => refused(&ui, &visitor, &schedule, &error, fields.seen).await,
    }
}

pub(in crate::ui) async fn delete(
    State(ui): State<UiState>,
    Path(schedule): Path<String>,
    sent: Sent<Switch>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let id = id::<ScheduleId>(&schedule, "schedule", &visitor)?;
    let version = Some(fields.version);
    let done = ui.service.delete_schedule(&visitor.caller, id, version);
    match done.await {
        Ok(()) => Ok(Redirect::to(&format!("{}schedules", visitor.base)).into_response()),
        Err(error) => refused(&ui, &visitor, &schedule, &error, fields.seen).await,
    }
}

//! One app: its endpoints, its name and labels, and how it is deleted.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::endpoint::{DisabledReason, Endpoint, EndpointState};
use hookturn_core::id::ClientId;
use hookturn_core::limits;
use hookturn_core::store::Page;
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::App;
use http::StatusCode;
use serde::Deserialize;

use super::super::super::UiState;
use super::super::super::error::{UiError, status_of};
use super::super::super::form::{self, Changed, Control, Field, Wrong, changes, snapshot};
use super::super::super::frame::{Frame, Part, page};
use super::super::super::stale::{self, Stale};
use super::super::super::text::{State as Shown, When, visible};
use super::super::super::visitor::{Sent, Visitor};
use crate::service::ServiceError;
use crate::service::apps::AppPatch;

/// The page of an app.
#[derive(Debug, Template)]
#[template(path = "app.html")]
pub struct AppPage {
    /// Around it.
    pub frame: Frame,
    /// Its `clientId`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: When,
    /// Its endpoints, newest first.
    pub endpoints: Vec<EndpointRow>,
    /// The form that changes it.
    pub fields: Vec<Field>,
    /// What was wrong with the form as a whole.
    pub error: Option<String>,
    /// What somebody else changed meanwhile.
    pub changed: Vec<Changed>,
    /// The version that the form changes.
    pub version: u64,
    /// What the form showed when it was opened.
    pub was: String,
    /// What happened since the page was loaded whose deletion was refused.
    pub stale: Option<Stale>,
    /// What was typed to confirm its deletion.
    pub confirm_name: String,
    /// What was wrong with the form that deletes it.
    pub delete_error: Option<String>,
}

/// An endpoint in the list.
#[derive(Debug)]
pub struct EndpointRow {
    /// Its id.
    pub id: String,
    /// Where it goes.
    pub url: String,
    /// What its owner says about it.
    pub description: String,
    /// Whether it takes deliveries.
    pub state: Shown,
    /// What more there is to say about that.
    pub note: String,
    /// Its preset.
    pub preset: &'static str,
    /// Its event types.
    pub events: String,
}

/// The form.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::ui) struct AppForm {
    name: String,
    #[serde(default)]
    labels: String,
    version: u64,
    #[serde(default)]
    was: String,
}

/// The form that deletes it.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct Deletion {
    #[serde(default)]
    confirm_name: String,
    version: u64,
    #[serde(default)]
    seen: i64,
}

/// Whether an endpoint takes deliveries, in a word.
pub(in crate::ui::pages) fn state_of(state: &EndpointState) -> Shown {
    match state {
        EndpointState::Enabled => Shown::good("enabled"),
        EndpointState::Paused { .. } => Shown::waiting("paused"),
        EndpointState::Disabled { .. } => Shown::bad("disabled"),
        EndpointState::Deleted { .. } => Shown::over("deleted"),
    }
}

/// Why it is so, and since when.
pub(in crate::ui::pages) fn note_of(state: &EndpointState, now: Timestamp) -> String {
    let said = |since: Timestamp| When::new(since, now).relative();
    match state {
        EndpointState::Enabled => String::new(),
        EndpointState::Paused { since } => format!("deliveries wait since {}", said(*since)),
        EndpointState::Disabled { since, reason } => {
            let why = match reason {
                DisabledReason::ByOwner => "by its owner",
                DisabledReason::Gone => "because the receiver answered 410 Gone",
                DisabledReason::Failing => "because nothing was accepted for too long",
            };
            format!("{why}, {}", said(*since))
        }
        EndpointState::Deleted { since } => said(*since),
    }
}

impl EndpointRow {
    fn new(endpoint: &Endpoint, now: Timestamp) -> Self {
        let entries = endpoint.events.entries();
        Self {
            id: endpoint.id.to_string(),
            url: endpoint
                .url
                .as_ref()
                .map_or_else(|| "no URL yet".to_owned(), |url| visible(url.as_str())),
            description: visible(&endpoint.description),
            state: state_of(&endpoint.state),
            note: note_of(&endpoint.state, now),
            preset: endpoint.preset.as_str(),
            events: if entries.is_empty() {
                "all".to_owned()
            } else {
                entries.join(", ")
            },
        }
    }
}

fn fields(name: &str, labels: &str, wrong: &Wrong) -> Vec<Field> {
    let field = |name, label, value: &str, hint, control| Field {
        name,
        label,
        value: value.to_owned(),
        hint,
        error: wrong.with(name),
        control,
    };
    vec![
        field("name", "Name", name, "For people.", Control::Line("text")),
        field(
            "labels",
            "Labels",
            labels,
            "One a line, name=value; at most 20.",
            Control::Area(3),
        ),
    ]
}

fn fields_of(app: &App) -> Vec<Field> {
    fields(&app.name, &form::lines(&app.labels, "="), &Wrong::default())
}

impl AppPage {
    fn new(ui: &UiState, visitor: &Visitor, app: &App, endpoints: &[Arc<Endpoint>]) -> Self {
        let now = ui.clock.now();
        let fields = fields_of(app);
        let title = visible(&app.name);
        Self {
            frame: Frame::new(ui, visitor, Part::Apps, title.clone()),
            id: app.id.to_string(),
            name: title,
            created: When::new(app.created_at, now),
            endpoints: endpoints
                .iter()
                .map(|endpoint| EndpointRow::new(endpoint, now))
                .collect(),
            was: snapshot(&fields),
            fields,
            error: None,
            changed: Vec::new(),
            version: app.version,
            stale: None,
            confirm_name: String::new(),
            delete_error: None,
        }
    }

    async fn of(ui: &UiState, visitor: &Visitor, id: ClientId) -> Result<Self, UiError> {
        let told = |error: ServiceError| UiError::service(&error, &visitor.base);
        let app = ui.service.app(&visitor.caller, id).await.map_err(told)?;
        let all = Page {
            before: None,
            limit: limits::ENDPOINTS_PER_APP,
        };
        let endpoints = ui.service.endpoints(&visitor.caller, id, all).await;
        let endpoints = endpoints.map_err(told)?.items;
        let mut shown = Self::new(ui, visitor, &app, &endpoints);
        for (row, endpoint) in shown.endpoints.iter_mut().zip(&endpoints) {
            let receiver = ui.service.receiver(&visitor.caller, id, endpoint.id).await;
            let failing = receiver.map_err(told)?.failing_since;
            if let (Some(since), true) = (failing, row.note.is_empty()) {
                let since = When::new(since, ui.clock.now()).relative();
                row.note = format!("its receiver fails since {since}");
            }
        }
        Ok(shown)
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let now = Timestamp::from_millis(1_784_505_600_000);
        let fields = fields("shop", "team=payments", &Wrong::default());
        let empty = || Self {
            frame: Frame::sample(Part::Apps, "shop"),
            id: "HqTRDIYa".to_owned(),
            name: "shop".to_owned(),
            created: When::new(now.before(60_000), now),
            endpoints: Vec::new(),
            was: snapshot(&fields),
            fields: fields.clone(),
            error: None,
            changed: Vec::new(),
            version: 3,
            stale: None,
            confirm_name: String::new(),
            delete_error: None,
        };
        let row = |id: &str, state: Shown| EndpointRow {
            id: id.to_owned(),
            url: "https://shop.example/hooks".to_owned(),
            description: visible("\u{202e}<b>bold</b>"),
            state,
            note: "3 min ago".to_owned(),
            preset: "standard",
            events: "invoice.*, user.created".to_owned(),
        };
        let full = Self {
            endpoints: vec![
                row("ep_01kxyd5209e0080ex9c8twsqwy", Shown::good("enabled")),
                row("ep_01kxyd5209e0080ex9c8twsqwz", Shown::bad("disabled")),
            ],
            ..empty()
        };
        let mut wrong = Wrong::default();
        wrong.note("name", "must not be blank");
        let refused = Self {
            fields: super::app::fields("", "x", &wrong),
            error: Some("it was changed meanwhile".to_owned()),
            changed: vec![Changed {
                label: "Name",
                was: "shop".to_owned(),
                now: "store".to_owned(),
                yours: String::new(),
            }],
            stale: Some(stale::sample("apps/HqTRDIYa".to_owned())),
            delete_error: Some("type the app's name".to_owned()),
            ..empty()
        };
        vec![
            ("app-empty", empty()),
            ("app", full),
            ("app-error", refused),
        ]
    }
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, UiError> {
    let id = super::values::app_id(&id, &visitor)?;
    Ok(page(StatusCode::OK, &AppPage::of(&ui, &visitor, id).await?))
}

pub(in crate::ui) async fn change(
    State(ui): State<UiState>,
    Path(id): Path<String>,
    sent: Sent<AppForm>,
) -> Result<Response, UiError> {
    let Sent {
        visitor,
        fields: typed,
    } = sent;
    let id = super::values::app_id(&id, &visitor)?;
    let (status, wrong) = match form::pairs(&typed.labels, '=') {
        Err(why) => {
            let mut wrong = Wrong::default();
            wrong.note("labels", why);
            (StatusCode::UNPROCESSABLE_ENTITY, wrong)
        }
        Ok(labels) => {
            let patch = AppPatch {
                name: Some(typed.name.clone()),
                labels: Some(labels),
                ..AppPatch::default()
            };
            let version = Some(typed.version);
            let changed = ui
                .service
                .patch_app(&visitor.caller, id, patch, version, None);
            match changed.await {
                Ok(_) => {
                    let back = format!("{}apps/{id}", visitor.base);
                    return Ok(Redirect::to(&back).into_response());
                }
                Err(error @ (ServiceError::NotFound { .. } | ServiceError::Forbidden { .. })) => {
                    return Err(UiError::service(&error, &visitor.base));
                }
                Err(error) => {
                    let names = [("/name", "name"), ("/labels", "labels")];
                    (status_of(&error), Wrong::of(&error, &names))
                }
            }
        }
    };
    let mut shown = AppPage::of(&ui, &visitor, id).await?;
    let typed_fields = fields(&typed.name, &typed.labels, &wrong);
    if status == StatusCode::PRECONDITION_FAILED {
        shown.changed = changes(&typed.was, &shown.fields, &typed_fields);
    } else {
        // What is wrong must not hide that somebody else changes it too.
        shown.version = typed.version;
        shown.was = typed.was;
    }
    shown.fields = typed_fields;
    shown.error = wrong.with("");
    Ok(page(status, &shown))
}

pub(in crate::ui) async fn delete(
    State(ui): State<UiState>,
    Path(id): Path<String>,
    sent: Sent<Deletion>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let id = super::values::app_id(&id, &visitor)?;
    let mut shown = AppPage::of(&ui, &visitor, id).await?;
    let app = ui.service.app(&visitor.caller, id).await;
    let app = app.map_err(|error| UiError::service(&error, &visitor.base))?;
    shown.confirm_name.clone_from(&fields.confirm_name);
    if fields.confirm_name.trim() != app.name.trim() {
        shown.delete_error =
            Some("nothing was deleted: this is not the name of the app".to_owned());
        return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, &shown));
    }
    let version = Some(fields.version);
    match ui
        .service
        .delete_app(&visitor.caller, id, version, None)
        .await
    {
        Ok(()) => Ok(Redirect::to(&format!("{}apps", visitor.base)).into_response()),
        Err(error @ ServiceError::PreconditionFailed { .. }) => {
            let reload = format!("apps/{id}");
            let stale = Stale::of(&ui, &visitor, id.to_string(), fields.seen, reload);
            shown.stale = Some(stale.await?);
            Ok(page(status_of(&error), &shown))
        }
        Err(error) => {
            shown.delete_error = Some(error.to_string());
            Ok(page(status_of(&error), &shown))
        }
    }
}

//! Apps and their endpoints: the list, each app, each endpoint, and the forms that change them.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use hookturn_core::id::ClientId;
use hookturn_core::store::Page;
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::App;
use http::StatusCode;
use serde::Deserialize;

use super::super::UiState;
use super::super::error::{UiError, status_of};
use super::super::frame::{Frame, Part, page};
use super::super::once::{self, Asked};
use super::super::text::{When, visible};
use super::super::visitor::{Sent, Visitor};
use crate::service::ServiceError;
use crate::service::apps::{AppPlace, NewApp};

pub mod app;
pub mod endpoint;
pub mod endpoint_form;
pub mod switches;
pub mod values;

/// Apps on one page.
const ROWS: usize = 50;

/// Every path of apps and endpoints.
pub(in crate::ui) fn routes() -> Router<UiState> {
    const ENDPOINT: &str = "/apps/{app}/endpoints/{endpoint}";
    let below = |rest: &str| format!("{ENDPOINT}/{rest}");
    Router::new()
        .route("/apps", get(list).post(create))
        .route("/apps/{app}", get(app::show).post(app::change))
        .route("/apps/{app}/delete", post(app::delete))
        .route("/apps/{app}/endpoints/new", get(endpoint_form::new))
        .route("/apps/{app}/endpoints", post(endpoint_form::create))
        .route(ENDPOINT, get(endpoint::show))
        .route(
            &below("edit"),
            get(endpoint_form::edit).post(endpoint_form::change),
        )
        .route(&below("state"), post(switches::switch))
        .route(&below("delete"), post(switches::delete))
        .route(&below("test"), post(endpoint::test))
        .route(&below("verify"), post(endpoint::verify))
}

/// The list.
#[derive(Debug, Template)]
#[template(path = "apps.html")]
pub struct Apps {
    /// Around it.
    pub frame: Frame,
    /// The apps, newest first.
    pub rows: Vec<Row>,
    /// Where the next page begins, if there is one.
    pub older: Option<String>,
    /// Whether this is not the first page.
    pub is_later: bool,
    /// What was typed for a new app.
    pub name: String,
    /// What was wrong with it.
    pub error: Option<String>,
}

/// One app.
#[derive(Debug)]
pub struct Row {
    /// The `clientId`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: When,
}

/// The form of a new app.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct Name {
    name: String,
}

/// Where a page begins.
#[derive(Debug, Default, Deserialize)]
pub(in crate::ui) struct From {
    #[serde(default)]
    before: String,
}

impl From {
    /// A place in the list is the time and the id of an app; anything else is the beginning.
    fn place(&self) -> Option<AppPlace> {
        let (millis, id) = self.before.split_once('-')?;
        Some(AppPlace {
            created_at: Timestamp::from_millis(millis.parse().ok()?),
            id: id.parse::<ClientId>().ok()?,
        })
    }
}

impl Apps {
    async fn of(ui: &UiState, visitor: &Visitor, from: &From) -> Result<Self, UiError> {
        let before = from.place();
        let page = Page {
            before,
            limit: ROWS,
        };
        let listed = ui.service.apps(&visitor.caller, page).await;
        let listed = listed.map_err(|error| UiError::service(&error, &visitor.base))?;
        let now = ui.clock.now();
        let place = |app: &Arc<App>| format!("{}-{}", app.created_at.as_millis(), app.id);
        let older = listed.items.last().filter(|_| listed.has_more).map(place);
        let row = |app: Arc<App>| Row {
            id: app.id.to_string(),
            name: visible(&app.name),
            created: When::new(app.created_at, now),
        };
        Ok(Self {
            frame: Frame::new(ui, visitor, Part::Apps, "Apps"),
            rows: listed.items.into_iter().map(row).collect(),
            older,
            is_later: before.is_some(),
            name: String::new(),
            error: None,
        })
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let empty = || Self {
            frame: Frame::sample(Part::Apps, "Apps"),
            rows: Vec::new(),
            older: None,
            is_later: false,
            name: String::new(),
            error: None,
        };
        let now = Timestamp::from_millis(1_784_505_600_000);
        let row = |id: &str, name: &str| Row {
            id: id.to_owned(),
            name: visible(name),
            created: When::new(now.before(3_600_000), now),
        };
        let rows = vec![
            row("HqTRDIYa", "shop"),
            row("HqTRDIYb", "<script>alert(1)</script>\u{202e}gnp"),
        ];
        let full = Self {
            rows,
            older: Some("1-HqTRDIYb".to_owned()),
            is_later: true,
            ..empty()
        };
        let refused = Self {
            error: Some("must not be blank".to_owned()),
            ..empty()
        };
        vec![
            ("apps-empty", empty()),
            ("apps", full),
            ("apps-error", refused),
        ]
    }
}

pub(in crate::ui) async fn list(
    State(ui): State<UiState>,
    visitor: Visitor,
    Query(from): Query<From>,
) -> Result<Response, UiError> {
    Ok(page(StatusCode::OK, &Apps::of(&ui, &visitor, &from).await?))
}

pub(in crate::ui) async fn create(
    State(ui): State<UiState>,
    sent: Sent<Name>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let new = NewApp {
        name: fields.name.clone(),
        ..NewApp::default()
    };
    let led_to = |id: &str| Redirect::to(&format!("{}apps/{id}", visitor.base)).into_response();
    let once = match once::asked(&ui, &visitor, "apps").await? {
        Asked::Again(kept) => return Ok(led_to(&String::from_utf8_lossy(&kept))),
        Asked::First(once) => once,
    };
    let record = |app: &App| app.id.to_string().into_bytes();
    let recording = once.as_ref().map(|once| once.record(&record));
    let (status, told) = match ui.service.create_app(&visitor.caller, new, recording).await {
        Ok(app) => return Ok(led_to(&app.id.to_string())),
        Err(ServiceError::Invalid { message, .. } | ServiceError::Missing { message, .. }) => {
            (StatusCode::UNPROCESSABLE_ENTITY, message)
        }
        Err(error) => (status_of(&error), error.to_string()),
    };
    let mut apps = Apps::of(&ui, &visitor, &From::default()).await?;
    apps.name = fields.name;
    apps.error = Some(told);
    Ok(page(status, &apps))
}

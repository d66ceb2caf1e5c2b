//! The list of apps, and the form that makes one.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::store::Page;
use hookturn_core::workspace::App;
use http::StatusCode;
use serde::Deserialize;

use super::super::UiState;
use super::super::error::{UiError, status_of};
use super::super::frame::{Frame, Part, page};
use super::super::text::When;
use super::super::visitor::{Sent, Visitor};
use crate::service::ServiceError;
use crate::service::apps::NewApp;

/// Apps on one page.
const ROWS: usize = 50;

/// The list.
#[derive(Debug, Template)]
#[template(path = "apps.html")]
pub struct Apps {
    /// Around it.
    pub frame: Frame,
    /// The apps, newest first.
    pub rows: Vec<Row>,
    /// Whether there are more than are shown.
    pub has_more: bool,
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

impl Apps {
    async fn of(ui: &UiState, visitor: &Visitor) -> Result<Self, UiError> {
        let page = Page {
            before: None,
            limit: ROWS,
        };
        let listed = ui.service.apps(&visitor.caller, page).await;
        let listed = listed.map_err(|error| UiError::service(&error, &visitor.base))?;
        let now = ui.clock.now();
        let row = |app: Arc<App>| Row {
            id: app.id.to_string(),
            name: app.name.clone(),
            created: When::new(app.created_at, now),
        };
        Ok(Self {
            frame: Frame::new(ui, visitor, Part::Apps, "Apps"),
            rows: listed.items.into_iter().map(row).collect(),
            has_more: listed.has_more,
            name: String::new(),
            error: None,
        })
    }
}

pub(in crate::ui) async fn list(
    State(ui): State<UiState>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    Ok(page(StatusCode::OK, &Apps::of(&ui, &visitor).await?))
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
    match ui.service.create_app(&visitor.caller, new, None).await {
        Ok(_) => Ok(Redirect::to(&format!("{}apps", visitor.base)).into_response()),
        Err(ServiceError::Invalid { message, .. } | ServiceError::Missing { message, .. }) => {
            let mut apps = Apps::of(&ui, &visitor).await?;
            apps.name = fields.name;
            apps.error = Some(message);
            Ok(page(StatusCode::UNPROCESSABLE_ENTITY, &apps))
        }
        Err(error) => {
            let mut apps = Apps::of(&ui, &visitor).await?;
            apps.name = fields.name;
            apps.error = Some(error.to_string());
            Ok(page(status_of(&error), &apps))
        }
    }
}

//! What the command palette leads to: the pages and actions that a key may use, and its apps.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use hookturn_core::store::Page;
use hookturn_core::workspace::Scope;
use serde::Serialize;

use super::super::UiState;
use super::super::error::UiError;
use super::super::frame::{Frame, Part};
use super::super::text::visible;
use super::super::visitor::Visitor;

/// Apps that are named.
const APPS: usize = 200;

/// Actions with the scope that they need.
const ACTIONS: &[(&str, &str, Scope)] = &[
    ("New app", "apps#name", Scope::Manage),
    ("New bulk rotation", "bulk-rotations/new", Scope::Secrets),
    ("New schedule", "schedules/new", Scope::Secrets),
];

/// Pages that the navigation does not name.
const PAGES: &[(&str, &str)] = &[
    ("Bulk rotations", "bulk-rotations"),
    ("Schedules", "schedules"),
    ("Open rotations", "rotations?state=open"),
    ("Exhausted deliveries", "deliveries?status=exhausted"),
    ("Pending deliveries", "deliveries?status=pending"),
];

/// One thing to go to.
#[derive(Debug, Serialize)]
struct Command {
    name: String,
    /// What it is.
    kind: &'static str,
    /// Where it is, relative to the base.
    path: String,
}

impl Command {
    fn new(name: &str, kind: &'static str, path: impl Into<String>) -> Self {
        Self {
            name: visible(name),
            kind,
            path: path.into(),
        }
    }
}

pub(in crate::ui) async fn list(
    State(ui): State<UiState>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    let frame = Frame::new(&ui, &visitor, Part::Overview, "");
    let parts = frame.parts.iter().filter(|(_, path, _)| frame.lists(path));
    let parts = parts.map(|(_, path, word)| Command::new(word, "page", *path));
    let pages = PAGES
        .iter()
        .map(|(word, path)| Command::new(word, "page", *path));
    let actions = ACTIONS
        .iter()
        .filter(|(.., scope)| visitor.may(*scope))
        .map(|(word, path, _)| Command::new(word, "action", *path));
    let asked = Page {
        before: None,
        limit: APPS,
    };
    let apps = ui.service.apps(&visitor.caller, asked).await;
    let apps = apps.map_err(|error| UiError::service(&error, &visitor.base))?;
    let apps = apps.items.iter();
    let apps = apps.map(|app| Command::new(&app.name, "app", format!("apps/{}", app.id)));
    let all: Vec<_> = parts.chain(pages).chain(actions).chain(apps).collect();
    Ok(Json(all).into_response())
}

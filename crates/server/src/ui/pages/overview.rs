//! The first page.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::super::UiState;
use super::super::frame::{Frame, Part, page};
use super::super::visitor::Visitor;

/// Numbers, and what needs attention.
#[derive(Debug, Template)]
#[template(path = "overview.html")]
pub struct Overview {
    /// Around it.
    pub frame: Frame,
}

pub(in crate::ui) async fn show(State(ui): State<UiState>, visitor: Visitor) -> Response {
    let overview = Overview {
        frame: Frame::new(&ui, &visitor, Part::Overview, "Overview"),
    };
    page(StatusCode::OK, &overview)
}

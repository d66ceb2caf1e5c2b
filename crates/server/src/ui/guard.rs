//! The headers of every answer of the dashboard, and that what was begun is ended.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::UiState;
use super::error::UiError;
use super::frame::base;

/// Nothing but our own files, no inline script or style, no frame around or inside.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'self'";

/// What a page must not be: framed, sniffed, kept, or named to other sites.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// Adds them to every answer.
pub(super) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    dress(response.headers_mut());
    response
}

/// Adds them to one. A page that does not say otherwise is not kept by a cache.
pub(super) fn dress(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// Answers "try again" instead of a refusal that may rest on what is not so any more: see `service::fencing`.
pub(super) async fn unless_behind(
    State(ui): State<UiState>,
    request: Request,
    next: Next,
) -> Response {
    let base = base(request.headers());
    let response = next.run(request).await;
    match ui.service.unless_behind(response.status()) {
        Ok(()) => response,
        Err(behind) => UiError::service(&behind, &base).into_response(),
    }
}

/// Runs what may change something in a task of its own, so that it finishes although its visitor left.
pub(super) async fn finish(State(ui): State<UiState>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let attended = ui.finishing.run(next.run(request)).await;
    attended.unwrap_or_else(|ended| {
        tracing::error!(error = %ended, "a form was not answered");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

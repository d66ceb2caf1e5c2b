//! Parts of pages that ask for news of themselves.
//!
//! None is replaced by a page of another kind: where its answer leads elsewhere (to sign in) the whole page
//! is loaded again, and an error leaves it as it is.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, HeaderValue};

/// What htmx sends with every request, and what tells it to load the page again or to replace nothing.
const ASKED_BY_HTMX: HeaderName = HeaderName::from_static("hx-request");
const REFRESH: HeaderName = HeaderName::from_static("hx-refresh");
const RESWAP: HeaderName = HeaderName::from_static("hx-reswap");

/// Keeps a part as the module says.
pub(super) async fn keep(request: Request, next: Next) -> Response {
    let is_part = request.headers().contains_key(ASKED_BY_HTMX);
    let mut response = next.run(request).await;
    if is_part && response.status().is_redirection() {
        return ([(REFRESH, "true")], "").into_response();
    }
    if is_part && !response.status().is_success() {
        let none = HeaderValue::from_static("none");
        response.headers_mut().insert(RESWAP, none);
    }
    response
}

//! KORE Wireless' API of webhook secrets, at `/kore/v1`, over the workspace's shared keyring.
//!
//! The contract. The first secret is `active`; every later one is `pending` and takes the place of the
//! one that was, whose value is erased. `Status: active` on the pending one activates it, and the old
//! one stops at once. A disabled secret is not listed. The value is in the answer that made it and in
//! no other. Every answer below `/kore/v1` that is not a success, whoever gives it, has KORE's form
//! (`problem`).
//!
//! What KORE's page does not say is decided here: `code` is a stable word of ours and `info` names
//! the request; a wrong field is a 400; a disabled secret that is changed is a 409; `last_modified`
//! is RFC 3339 in UTC with milliseconds; links to pages are absolute, as KORE's examples are.

use axum::Router;
use axum::routing::{get, patch, post};

use super::super::ApiState;

mod document;
pub(super) mod problem;
mod secrets;

pub use document::openapi;

/// Everything below this path is the dialect's.
pub(super) const BASE: &str = "/kore/v1";
/// Where its OpenAPI document is.
pub(super) const DOCUMENT: &str = "/kore/v1/openapi.json";

/// All routes.
pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/kore/v1/secrets", post(secrets::create).get(secrets::list))
        .route("/kore/v1/secrets/{secretId}", patch(secrets::change))
        .route(DOCUMENT, get(document::document))
}

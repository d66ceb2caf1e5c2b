//! The Hopae dialect: the workspace webhooks of Hopae Connect at `/connect/v1`.
//!
//! An app there has one webhook configuration; here that is the app's *primary endpoint*, which
//! `service::endpoints` knows how to make, change and rotate. What is decided in this module is
//! form only: names of fields, seconds for milliseconds, `limit` and `offset`, and error bodies.
//!
//! 1. `webhook_config`, the old spelling, is the same resource as `webhook-config`: the same
//!    handlers, and an idempotency key of the one is replayed on the other.
//! 2. Bodies are read as JSON whatever they are declared as, since a script that sends `{}` with
//!    `curl -d` declares a form. Unknown fields are refused; `null` is like an absent field.
//! 3. The secret is in the answers about the webhook configuration only, never in those about apps.
//!
//! Not promised: calls of Hopae that have nothing to do with webhooks.

use axum::Router;
use axum::routing::{get, post};

use super::super::ApiState;

mod apps;
mod body;
mod config;
pub(super) mod error;
mod openapi;

pub use openapi::openapi;

/// Everything below this path is the dialect's.
pub(super) const BASE: &str = "/connect/v1";
/// Where its OpenAPI document is.
pub(super) const DOCUMENT: &str = "/connect/v1/openapi.json";

/// All routes: the documented ones first, then the old spelling.
pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/connect/v1/apps", post(apps::create).get(apps::list))
        .route(
            "/connect/v1/apps/{clientId}",
            get(apps::get).patch(apps::patch).delete(apps::delete),
        )
        .route(
            "/connect/v1/apps/{clientId}/webhook-config",
            get(config::get).patch(config::patch),
        )
        .route(
            "/connect/v1/apps/{clientId}/webhook-config/rotate-secret",
            post(config::rotate_secret),
        )
        .route(
            "/connect/v1/apps/{clientId}/webhook_config",
            get(config::get).patch(config::patch),
        )
        .route(
            "/connect/v1/apps/{clientId}/webhook_config/rotate-secret",
            post(config::rotate_secret),
        )
        .route(DOCUMENT, get(openapi::document))
}

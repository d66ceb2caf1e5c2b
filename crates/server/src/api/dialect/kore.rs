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
use axum::middleware::from_fn;
use axum::routing::any;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::ApiState;
use super::super::problem::{Code, Problem};

mod document;
mod problem;
mod secrets;

pub use document::openapi;

/// Where the dialect is.
const BASE: &str = "/kore/v1";

/// The routes with what their handlers say about themselves.
fn routes() -> (Router<ApiState>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(document::frame())
        .routes(routes!(secrets::create, secrets::list))
        .routes(routes!(secrets::change))
        .routes(routes!(document::document))
        .split_for_parts()
}

/// The dialect. Everything below its base is its own, also what does not exist.
pub(super) fn router() -> Router<ApiState> {
    let (router, _) = routes();
    router
        .route(BASE, any(no_route))
        .route("/kore/v1/", any(no_route))
        .route("/kore/v1/{*rest}", any(no_route))
        .method_not_allowed_fallback(no_method)
        .layer(from_fn(problem::render))
}

async fn no_route() -> Problem {
    Problem::new(
        Code::NotFound,
        "there is no such path: /kore/v1/openapi.json lists all of them",
    )
}

async fn no_method() -> Problem {
    // axum adds the Allow header.
    Problem::new(
        Code::MethodNotAllowed,
        "the path does not have this method: the Allow header lists those it has",
    )
}

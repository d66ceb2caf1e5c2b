//! Every route, the scope it needs, and what else is true of it.
//!
//! [`ROUTES`] is the table that the OpenAPI document is completed from and that the tests walk: a
//! route that is missing here fails them. The scope that is enforced is in the handler's type; the
//! same tests prove that table and type agree.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hookturn_core::workspace::Scope;
use http::{HeaderMap, Uri};

use super::dialect::{self, Dialect};
use super::problem::{Code, Problem};
use super::{ApiState, edge, health, openapi, v1};

/// One route of the API.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    /// The method.
    pub(super) method: &'static str,
    /// The path, with parameters in braces.
    pub(super) path: &'static str,
    /// The scope it needs; none for what is public.
    pub(super) scope: Option<Scope>,
    /// What else is true of it.
    pub(super) kind: Kind,
}

/// What else is true of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Plain,
    /// It is a list with `limit` and `cursor`.
    List,
    /// It changes something whose version `If-Match` may name.
    Versioned,
    /// It carries a batch, so its body may be larger.
    Batch,
}

const fn route(
    method: &'static str,
    path: &'static str,
    scope: Option<Scope>,
    kind: Kind,
) -> Route {
    Route {
        method,
        path,
        scope,
        kind,
    }
}

const PUBLISH: Option<Scope> = Some(Scope::Publish);
const MANAGE: Option<Scope> = Some(Scope::Manage);
const SECRETS: Option<Scope> = Some(Scope::Secrets);
const READ: Option<Scope> = Some(Scope::Read);

const APP: &str = "/v1/apps/{clientId}";
const ENDPOINTS: &str = "/v1/apps/{clientId}/endpoints";
const ENDPOINT: &str = "/v1/apps/{clientId}/endpoints/{endpointId}";
const SECRET_LIST: &str = "/v1/keyrings/{keyringId}/secrets";
const SCHEDULE: &str = "/v1/schedules/{scheduleId}";

const MESSAGES: &str = "/v1/apps/{clientId}/messages";
const BATCH: &str = "/v1/apps/{clientId}/messages/batch";

/// Where messages are published: the busy road.
pub(super) const PUBLISHING: &[&str] = &[MESSAGES, BATCH];

/// Every route.
#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    route("get", "/livez", None, Kind::Plain),
    route("get", "/readyz", None, Kind::Plain),
    route("get", "/metrics", None, Kind::Plain),
    route("get", "/openapi.json", None, Kind::Plain),
    route("post", "/v1/apps", MANAGE, Kind::Plain),
    route("get", "/v1/apps", READ, Kind::List),
    route("get", APP, READ, Kind::Plain),
    route("patch", APP, MANAGE, Kind::Versioned),
    route("delete", APP, MANAGE, Kind::Versioned),
    route("post", ENDPOINTS, MANAGE, Kind::Plain),
    route("get", ENDPOINTS, READ, Kind::List),
    route("get", ENDPOINT, READ, Kind::Plain),
    route("patch", ENDPOINT, MANAGE, Kind::Versioned),
    route("delete", ENDPOINT, MANAGE, Kind::Versioned),
    route("post", "/v1/apps/{clientId}/endpoints/{endpointId}/test", MANAGE, Kind::Plain),
    route("post", "/v1/apps/{clientId}/endpoints/{endpointId}/recover", MANAGE, Kind::Plain),
    route("post", MESSAGES, PUBLISH, Kind::Plain),
    route("get", MESSAGES, READ, Kind::List),
    route("post", BATCH, PUBLISH, Kind::Batch),
    route("get", "/v1/apps/{clientId}/messages/{messageId}", READ, Kind::Plain),
    route("get", "/v1/apps/{clientId}/deliveries", READ, Kind::List),
    route("get", "/v1/deliveries/{deliveryId}", READ, Kind::Plain),
    route("post", "/v1/deliveries/{deliveryId}/retry", MANAGE, Kind::Plain),
    route("get", "/v1/keyrings/{keyringId}", READ, Kind::Plain),
    route("get", SECRET_LIST, READ, Kind::List),
    route("post", SECRET_LIST, SECRETS, Kind::Versioned),
    route("post", "/v1/keyrings/{keyringId}/secrets/{secretId}/activate", SECRETS, Kind::Versioned),
    route("post", "/v1/keyrings/{keyringId}/secrets/{secretId}/reveal", SECRETS, Kind::Plain),
    route("post", "/v1/keyrings/{keyringId}/secrets/{secretId}/compromise", SECRETS, Kind::Versioned),
    route("post", "/v1/keyrings/{keyringId}/rotations", SECRETS, Kind::Versioned),
    route("get", "/v1/rotations", READ, Kind::List),
    route("get", "/v1/rotations/{rotationId}", READ, Kind::Plain),
    route("post", "/v1/rotations/{rotationId}/promote", SECRETS, Kind::Versioned),
    route("post", "/v1/rotations/{rotationId}/extend", SECRETS, Kind::Versioned),
    route("post", "/v1/rotations/{rotationId}/undo", SECRETS, Kind::Versioned),
    route("post", "/v1/rotations/{rotationId}/finish", SECRETS, Kind::Versioned),
    route("post", "/v1/rotations/{rotationId}/cancel", SECRETS, Kind::Versioned),
    route("post", "/v1/endpoints/{endpointId}/rehearse", SECRETS, Kind::Plain),
    route("get", "/v1/endpoints/{endpointId}/probes", READ, Kind::Plain),
    route("post", "/v1/rotations/{rotationId}/released", SECRETS, Kind::Versioned),
    route("post", "/v1/bulk-rotations", SECRETS, Kind::Plain),
    route("get", "/v1/bulk-rotations", READ, Kind::List),
    route("get", "/v1/bulk-rotations/{bulkId}", READ, Kind::Plain),
    route("get", "/v1/bulk-rotations/{bulkId}/items", READ, Kind::List),
    route("post", "/v1/bulk-rotations/{bulkId}/pause", SECRETS, Kind::Versioned),
    route("post", "/v1/bulk-rotations/{bulkId}/resume", SECRETS, Kind::Versioned),
    route("post", "/v1/bulk-rotations/{bulkId}/cancel", SECRETS, Kind::Versioned),
    route("post", "/v1/leaks/search", SECRETS, Kind::Plain),
    route("post", "/v1/schedules", SECRETS, Kind::Plain),
    route("get", "/v1/schedules", READ, Kind::List),
    route("get", SCHEDULE, READ, Kind::Plain),
    route("patch", SCHEDULE, SECRETS, Kind::Versioned),
    route("delete", SCHEDULE, SECRETS, Kind::Versioned),
    route("get", "/v1/audit", READ, Kind::List),
    route("get", "/v1/event-types", READ, Kind::List),
    route("post", "/v1/workspaces", MANAGE, Kind::Plain),
    route("get", "/v1/workspaces", READ, Kind::List),
    route("get", "/v1/workspaces/{workspaceId}", READ, Kind::Plain),
    route("patch", "/v1/workspaces/{workspaceId}", MANAGE, Kind::Versioned),
    route("post", "/v1/master-key/rotate", MANAGE, Kind::Plain),
    route("get", "/v1/outbox/refused", READ, Kind::List),
    route("post", "/v1/outbox/refused/{refusedEventId}/retry", MANAGE, Kind::Plain),
    route("delete", "/v1/outbox/refused/{refusedEventId}", MANAGE, Kind::Plain),
    route("post", "/v1/api-keys", MANAGE, Kind::Plain),
    route("get", "/v1/api-keys", MANAGE, Kind::List),
    route("patch", "/v1/api-keys/{apiKeyId}", MANAGE, Kind::Plain),
    route("delete", "/v1/api-keys/{apiKeyId}", MANAGE, Kind::Plain),
];

/// What answers a browser at a path that leads nowhere; none for a program, which gets a problem.
pub type Lost = fn(&HeaderMap) -> Option<Response>;

/// The API over its state.
pub fn router(state: ApiState, lost: Lost) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::document))
        .merge(v1::routes())
        .merge(dialect::router())
        .fallback(async move |uri: Uri, headers: HeaderMap| {
            lost(&headers).unwrap_or_else(|| no_route(&uri).into_response())
        })
        .method_not_allowed_fallback(no_method)
        // Bodies are bounded where they are read, by the bound of their route.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(state.clone(), edge))
        .with_state(state)
}

fn no_route(uri: &Uri) -> Problem {
    let document = dialect::of(uri.path()).map_or("/openapi.json", Dialect::document);
    Problem::new(
        Code::NotFound,
        format!("there is no such path: {document} lists all of them"),
    )
}

async fn no_method() -> Problem {
    // axum adds the Allow header.
    Problem::new(
        Code::MethodNotAllowed,
        "the path does not have this method: the Allow header lists those it has",
    )
}

//! The native API: HTTP in front of the service.
//!
//! A handler extracts its arguments, makes one service call and converts the result. What all of
//! them share is here and below: [`problem`] (every error), `auth` (who calls and may they),
//! `idempotency` (the same POST twice), `json` and `room` (bodies), `page` (lists), `router` (every route and
//! the scope it needs), [`openapi()`] (the document made of them). Other products' APIs over the same
//! service are in `dialect`.
//!
//! The guarantees: an answer 202 follows the commit (G1); every error is a problem document, or what
//! a dialect has for one, with the request's id; no error and no log line holds a value that a caller sent, except names of
//! fields and ids (G8). A request that goes well is logged at the level `debug` only.
//!
//! Not here: connection limits, header timeouts and draining, which belong to whoever serves the
//! router.

use std::fmt;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hookturn_core::id::{Entropy, draw};
use hookturn_core::store::Fence;
use http::{HeaderName, HeaderValue, header};
use tokio::time::Instant;

use crate::service::Service;
use crate::service::fencing::Fenced;
use crate::service::proving::Prober;

mod auth;
mod convert;
mod dialect;
mod finishing;
mod health;
mod idempotency;
mod json;
mod openapi;
mod page;
pub mod problem;
mod room;
mod router;
mod said;
mod schema;
mod unread;
mod v1;
mod webhooks;

pub use dialect::hopae::openapi as hopae_openapi;
pub use dialect::kore::openapi as kore_openapi;
pub use health::{Readiness, Ready};
pub use openapi::openapi;
pub use room::Room;
pub use router::{Lost, router};

pub use crate::service::finishing::Finishing;
pub use crate::service::test_events::{TestFuture, TestReport, TestSender};

use problem::Problem;

/// What the handlers stand on. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The use cases.
    pub service: Arc<Service>,
    /// Whether traffic is welcome.
    pub ready: Readiness,
    /// What `/metrics` shows.
    pub metrics: Arc<dyn Metrics>,
    /// Sends test events.
    pub tests: Arc<dyn TestSender>,
    /// Sends probes.
    pub prober: Arc<dyn Prober>,
    /// The requests that finish although their client left.
    pub finishing: Finishing,
    /// What large bodies may take of memory.
    pub room: Room,
    /// Where request ids come from.
    pub entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState")
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}

/// Counters and gauges of the whole process.
pub trait Metrics: Send + Sync {
    /// All of them in the OpenMetrics text format.
    fn render(&self) -> String;

    /// So many messages were answered 202.
    fn accepted(&self, messages: usize);

    /// A change of keys was answered when this fence was closed.
    fn fenced(&self, _fence: &Fence) {}
    /// Whether requests are welcome. Told before they are rendered; nobody else need know.
    fn ready(&self, _ready: bool) {}
}

/// The id of one request: made here, never taken from the caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RequestId(uuid::Uuid);

impl RequestId {
    fn new(entropy: &dyn Entropy) -> Self {
        Self(uuid::Builder::from_random_bytes(draw(entropy)).into_uuid())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// How many nodes might have signed by what was before a change of keys, how many said that they follow it, and how
/// long it took until none of them could.
const FENCE: HeaderName = HeaderName::from_static("hookturn-fence");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The outermost step of every request: gives it an id, and writes out its problem if it has one.
async fn edge(State(api): State<ApiState>, mut request: Request, next: Next) -> Response {
    let id = RequestId::new(api.entropy.as_ref());
    let dialect = dialect::of(request.uri().path());
    request.extensions_mut().insert(id);
    let (request, unread) = unread::watch(request);
    let mut request = said::keep(request);
    let fenced = fenced(&mut request);
    let place = room::place(&api.room, &mut request);
    let (method, route) = (request.method().clone(), route(&request));
    let begun = Instant::now();
    let mut response = if finishing::finishes(&request) {
        let attended = api.finishing.run(next.run(request)).await;
        attended.unwrap_or_else(|ended| Problem::internal(ended).into_response())
    } else {
        next.run(request).await
    };
    drop(place);
    if response.extensions().get::<Problem>().is_some()
        && let Err(behind) = api.service.unless_behind(response.status())
    {
        response = Problem::from(behind).into_response();
    }
    finish(&mut response, dialect, id);
    tell_fence(&api, &fenced, &mut response);
    tracing::debug!(
        %method,
        route = route.as_ref().map_or("", MatchedPath::as_str),
        status = response.status().as_u16(),
        millis = begun.elapsed().as_millis(),
        request_id = %id,
        "answered a request",
    );
    if unread.is_some_and(|body| body.is_left()) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// What a request that may change a key keeps of the fence of that. Publishing never does.
fn fenced(request: &mut Request) -> Fenced {
    if request.method().is_safe() || request.uri().path().ends_with("/messages") {
        return Fenced::default();
    }
    let fenced = Fenced::asked();
    request.extensions_mut().insert(fenced.clone());
    fenced
}

/// Says how far the nodes followed, and how long that took.
fn tell_fence(api: &ApiState, fenced: &Fenced, response: &mut Response) {
    let Some(fence) = fenced.get() else {
        return;
    };
    api.metrics.fenced(&fence);
    let told = format!(
        "nodes={}, confirmed={}, millis={}",
        fence.nodes, fence.confirmed, fence.millis
    );
    if let Ok(value) = HeaderValue::try_from(told) {
        response.headers_mut().insert(FENCE, value);
    }
}

/// The answer to a request that may not reach the router, because it is not one that HTTP allows. Its
/// connection ends with it: where such a request ends is a matter of opinion.
pub fn refusal(entropy: &dyn Entropy, path: &str, problem: Problem) -> Response {
    let mut response = problem.into_response();
    finish(&mut response, dialect::of(path), RequestId::new(entropy));
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// What every answer has: its problem written out if it has one, and the request's id.
fn finish(response: &mut Response, dialect: Option<dialect::Dialect>, id: RequestId) {
    let mut buffer = uuid::Uuid::encode_buffer();
    let text = id.0.hyphenated().encode_lower(&mut buffer);
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        report(&problem, text);
        match dialect {
            Some(dialect) => dialect.render(&problem, response, text),
            None => problem.render(response, text),
        }
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(REQUEST_ID, value);
    }
    // Answers may hold a secret that is shown once.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// The route of a request, not its path, which may hold anything. Only for the log.
fn route(request: &Request) -> Option<MatchedPath> {
    let logged = tracing::enabled!(tracing::Level::DEBUG);
    let route = request.extensions().get::<MatchedPath>();
    route.filter(|_| logged).cloned()
}

/// The one place where the cause of an internal error is logged.
fn report(problem: &Problem, request_id: &str) {
    let Some(source) = problem.source() else {
        return;
    };
    let mut chain = source.to_string();
    let mut next = source.source();
    while let Some(cause) = next {
        chain.push_str(": ");
        chain.push_str(&cause.to_string());
        next = cause.source();
    }
    tracing::error!(request_id, code = problem.code().as_str(), %chain, "a request failed");
}

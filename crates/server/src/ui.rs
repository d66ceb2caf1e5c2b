//! The dashboard: pages that the server renders, at `/`.
//!
//! The cast. A [`visitor`] is somebody with a session, who may do what the API key of that session may;
//! a page ([`pages`]) asks the service and renders a template of `templates/`; [`assets`] are the style
//! sheet and the scripts, compiled into the binary. [`frame`] is what every page has around it.
//!
//! What holds for every answer (see [`guard`]): a Content-Security-Policy without `unsafe-*` that
//! lets nothing in from elsewhere; no page is kept by a cache; no other site may frame it.
//!
//! What holds for every form: it is a POST that repeats the session's form token, and a browser that
//! says it comes from another origin is refused. What a key may not do is not shown, and refused by the
//! service all the same.
//!
//! Every link is relative to the `<base>` of its page, so the dashboard works behind a path prefix,
//! which the reverse proxy takes off and names in `X-Forwarded-Prefix`.
//!
//! Absent on purpose: a build step, a font, a picture beside the mark, an inline script or style, a dialog of the
//! browser's own.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use hookturn_core::id::Entropy;
use hookturn_core::time::Clock;

use crate::service::Service;
use crate::service::finishing::Finishing;
use crate::service::inbox::Inbox;
use crate::service::test_events::TestSender;
use crate::telemetry::metrics::Metrics;
use live::Streams;

pub mod assets;
mod compressed;
mod error;
pub mod form;
pub mod frame;
mod guard;
pub mod live;
mod once;
pub mod pages;
mod part;
mod problems;
mod reading;
mod ring;
mod rotating;
pub mod snippets;
mod span;
mod stale;
pub mod text;
mod visitor;

pub use error::nowhere;
pub use guard::CONTENT_SECURITY_POLICY;
pub use reading::Reading;

/// What the pages stand on.
#[derive(Clone)]
pub struct UiState {
    /// The use cases.
    pub service: Arc<Service>,
    /// The time, for what is said relative to now.
    pub clock: Arc<dyn Clock>,
    /// Where request ids come from.
    pub entropy: Arc<dyn Entropy>,
    /// Sends test events.
    pub tests: Arc<dyn TestSender>,
    /// The requests that finish although their client left.
    pub finishing: Finishing,
    /// The forms that are read.
    pub reading: Reading,
    /// The streams of live updates.
    pub streams: Streams,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// The test inbox.
    pub inbox: Arc<Inbox>,
}

impl fmt::Debug for UiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UiState").finish_non_exhaustive()
    }
}

/// Every page and asset.
pub fn router(state: UiState) -> Router {
    Router::new()
        .route("/", get(pages::overview::show))
        .route(
            "/sign-in",
            get(pages::sign_in::show).post(pages::sign_in::sign_in),
        )
        .route("/sign-out", post(pages::sign_in::sign_out))
        .route("/assets/{name}", get(assets::serve))
        .merge(pages::apps::routes())
        .merge(pages::deliveries::routes())
        .route("/palette", get(pages::palette::list))
        .merge(pages::inbox::routes())
        .merge(pages::bulks::routes())
        .merge(pages::schedules::routes())
        .merge(rotating::routes())
        .layer(from_fn_with_state(state.clone(), guard::finish))
        .layer(from_fn_with_state(state.clone(), guard::unless_behind))
        .layer(from_fn(part::keep))
        .layer(from_fn(guard::headers))
        .layer(from_fn(compressed::pages))
        .with_state(state)
}

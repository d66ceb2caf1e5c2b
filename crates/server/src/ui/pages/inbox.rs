//! The built-in test inbox: the first run, and what arrived for an endpoint there.
//!
//! While a request is waited for, the page asks again by itself where scripts run; without them it is
//! loaded again. Then it stands still, so that nothing moves under its reader's eyes.

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use hookturn_core::id::{ClientId, EndpointId};
use hookturn_core::time::Timestamp;
use http::StatusCode;
use serde::Deserialize;

use super::super::UiState;
use super::super::error::{UiError, status_of};
use super::super::frame::{Frame, Part, page};
use super::super::once::{self, Asked};
use super::super::text::{State as Shown, When, excerpt, visible};
use super::super::visitor::{Sent, Visitor};
use super::apps::endpoint::NoFields;
use super::apps::values::endpoint_id;
use crate::service::inbox::{FirstRun, INBOX_HOST, InboxRequest, KEPT_BYTES};

/// Every path of the inbox.
pub(in crate::ui) fn routes() -> Router<UiState> {
    Router::new()
        .route("/first-run", post(first_run))
        .route("/inbox/{app}/{endpoint}", get(show).post(send))
}

/// What arrived for an endpoint.
#[derive(Debug, Template)]
#[template(path = "inbox.html")]
pub struct InboxPage {
    /// Around it.
    pub frame: Frame,
    /// Its app.
    pub app: String,
    /// Its id.
    pub id: String,
    /// Its URL.
    pub url: String,
    /// Its keyring.
    pub keyring: String,
    /// Whether it is at the inbox at all.
    pub is_here: bool,
    /// Since when a request is waited for, in milliseconds, if none came since.
    pub waits_since: Option<i64>,
    /// What was wrong with the last thing that was asked for.
    pub error: Option<String>,
    /// The requests, newest first.
    pub requests: Vec<Arrived>,
}

/// A request that arrived.
#[derive(Debug)]
pub struct Arrived {
    /// When.
    pub at: When,
    /// Whether its signature is valid.
    pub state: Shown,
    /// By which secret, or why it is not.
    pub signed: String,
    /// Method and path.
    pub line: String,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// The beginning of its body.
    pub body: String,
    /// Bytes of the body that are not shown.
    pub cut: usize,
}

impl Arrived {
    fn new(request: &InboxRequest, now: Timestamp) -> Self {
        let (state, signed) = match &request.signed {
            Ok(fingerprint) => (
                Shown::good("signature valid"),
                format!("by secret {fingerprint}"),
            ),
            Err(why) => (Shown::bad("signature not valid"), visible(why)),
        };
        let (body, _) = excerpt(&request.body, KEPT_BYTES);
        let hidden = || "configured by the endpoint's owner, not kept".to_owned();
        let headers = request.headers.iter().map(|(name, value)| {
            let value = value.as_deref().map_or_else(hidden, visible);
            (visible(name), value)
        });
        Self {
            at: When::new(request.at, now),
            state,
            signed,
            line: format!("{} {}", request.method, visible(&request.path)),
            headers: headers.collect(),
            body,
            cut: request.body_bytes - request.body.len(),
        }
    }
}

impl InboxPage {
    async fn of(
        ui: &UiState,
        visitor: &Visitor,
        path: (&str, &str),
        since: i64,
    ) -> Result<Self, UiError> {
        let (app, id) = endpoint_id(path, visitor)?;
        let endpoint = ui.service.endpoint(&visitor.caller, app, id).await;
        let endpoint = endpoint.map_err(|error| UiError::service(&error, &visitor.base))?;
        let now = ui.clock.now();
        let url = endpoint.url.as_ref();
        let arrived = ui.inbox.received(id);
        let newest = arrived.first().map_or(0, |newest| newest.at.as_millis());
        Ok(Self {
            frame: Frame::new(ui, visitor, Part::Apps, "Test inbox"),
            app: app.to_string(),
            id: id.to_string(),
            url: url.map_or_else(String::new, |url| visible(url.as_str())),
            keyring: endpoint.keyring.to_string(),
            is_here: url.is_some_and(|url| url.url().host_str() == Some(INBOX_HOST)),
            waits_since: (newest < since || arrived.is_empty()).then_some(since),
            error: None,
            requests: arrived
                .iter()
                .map(|request| Arrived::new(request, now))
                .collect(),
        })
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let now = Timestamp::from_millis(1_784_505_600_000);
        let empty = || Self {
            frame: Frame::sample(Part::Apps, "Test inbox"),
            app: "HqTRDIYa".to_owned(),
            id: "ep_01kxyd5209e0080ex9c8twsqwy".to_owned(),
            url: format!("http://{INBOX_HOST}/0123456789abcdef"),
            keyring: "kr_1".to_owned(),
            is_here: true,
            waits_since: Some(now.as_millis()),
            error: None,
            requests: Vec::new(),
        };
        let request = |signed| InboxRequest {
            at: now.before(2_000),
            method: "POST".to_owned(),
            path: "/0123456789abcdef".to_owned(),
            headers: vec![
                ("webhook-id".to_owned(), Some("msg_1".to_owned())),
                ("x-evil".to_owned(), Some("<script>\u{202e}".to_owned())),
                ("authorization".to_owned(), None),
            ],
            body: "{\"note\":\"</pre><script>\u{202e}\"}".into(),
            body_bytes: 20_000,
            signed,
        };
        let known = hookturn_verify::Secret::generate([7; 32]).fingerprint();
        let full = Self {
            requests: [
                request(Ok(known)),
                request(Err("no secret <b> matched".to_owned())),
            ]
            .map(|request| Arrived::new(&request, now))
            .into(),
            ..empty()
        };
        let refused = Self {
            is_here: false,
            error: Some("the endpoint is disabled".to_owned()),
            ..empty()
        };
        vec![
            ("inbox-empty", empty()),
            ("inbox", full),
            ("inbox-error", refused),
        ]
    }
}

/// What is waited for.
#[derive(Debug, Default, Deserialize)]
pub(in crate::ui) struct Wanted {
    /// A request since then, in milliseconds.
    #[serde(default)]
    since: i64,
}

/// Where a request since `now` is waited for, relative to the base.
fn waiting(app: ClientId, id: EndpointId, now: Timestamp) -> String {
    format!("inbox/{app}/{id}?since={}", now.as_millis())
}

fn led_to(visitor: &Visitor, inbox: &str) -> Response {
    Redirect::to(&format!("{}{inbox}", visitor.base)).into_response()
}

pub(in crate::ui) async fn first_run(
    State(ui): State<UiState>,
    sent: Sent<NoFields>,
) -> Result<Response, UiError> {
    let visitor = sent.visitor;
    let once = match once::asked(&ui, &visitor, "first-run").await? {
        Asked::Again(kept) => return Ok(led_to(&visitor, &String::from_utf8_lossy(&kept))),
        Asked::First(once) => once,
    };
    let now = ui.clock.now();
    let inbox = |made: &FirstRun| waiting(made.app, made.endpoint, now);
    let record = |made: &FirstRun| inbox(made).into_bytes();
    let recording = once.as_ref().map(|once| once.record(&record));
    let made = ui.service.first_run(&visitor.caller, recording).await;
    let made = made.map_err(|error| UiError::service(&error, &visitor.base))?;
    Ok(led_to(&visitor, &inbox(&made)))
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    Path((app, endpoint)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    let shown = InboxPage::of(&ui, &visitor, (&app, &endpoint), wanted.since).await?;
    Ok(page(StatusCode::OK, &shown))
}

pub(in crate::ui) async fn send(
    State(ui): State<UiState>,
    Path((app, endpoint)): Path<(String, String)>,
    sent: Sent<NoFields>,
) -> Result<Response, UiError> {
    let visitor = sent.visitor;
    let (to, id) = endpoint_id((&app, &endpoint), &visitor)?;
    let once = match once::asked(&ui, &visitor, &format!("inbox {id}")).await? {
        Asked::Again(kept) => return Ok(led_to(&visitor, &String::from_utf8_lossy(&kept))),
        Asked::First(once) => once,
    };
    let inbox = waiting(to, id, ui.clock.now());
    let record = |_: &FirstRun| inbox.clone().into_bytes();
    let recording = once.as_ref().map(|once| once.record(&record));
    let sent = ui.service.send_sample(&visitor.caller, to, id, recording);
    match sent.await {
        Ok(_) => Ok(led_to(&visitor, &inbox)),
        Err(error) => {
            let mut shown = InboxPage::of(&ui, &visitor, (&app, &endpoint), 0).await?;
            shown.error = Some(error.to_string());
            Ok(page(status_of(&error), &shown))
        }
    }
}

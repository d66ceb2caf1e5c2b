//! One endpoint: how it fares, how it is configured, a test event, and a look at a captured request.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use hookturn_core::delivery::Exchange;
use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{ClientId, EndpointId};
use hookturn_core::store::SearchFrom;
use hookturn_core::time::Timestamp;
use http::StatusCode;
use serde::Deserialize;

use super::super::super::UiState;
use super::super::super::error::{UiError, status_of};
use super::super::super::frame::{Frame, Part, page};
use super::super::super::stale::{self, Stale};
use super::super::super::text::{State as Shown, When, visible};
use super::super::super::visitor::{Sent, Visitor};
use super::super::deliveries::row::Row;
use super::super::deliveries::verify::{Pasted, VerifyBox};
use super::app::{note_of, state_of};
use super::switches::{Offer, offers};
use super::values::endpoint_id;
use crate::service::inbox::INBOX_HOST;
use crate::service::inspecting::Health;
use crate::service::searching::Search;
use crate::service::test_events::TestReport;

/// Deliveries shown on the page.
const RECENT: usize = 10;

/// The page of an endpoint.
#[derive(Debug, Template)]
#[template(path = "endpoint.html")]
pub struct EndpointPage {
    /// Around it.
    pub frame: Frame,
    /// Its app.
    pub app: String,
    /// Its id.
    pub id: String,
    /// Where it goes, or none yet.
    pub url: Option<String>,
    /// What its owner says about it.
    pub description: String,
    /// The version that the switches change.
    pub version: u64,
    /// What was wrong with the last thing that was asked for.
    pub error: Option<String>,
    /// What happened since the page was loaded whose form was refused.
    pub stale: Option<Stale>,
    /// How it fares.
    pub health: HealthBox,
    /// How it is configured, by name.
    pub facts: Vec<(&'static str, String)>,
    /// Its keyring.
    pub keyring: String,
    /// The switches that it has now.
    pub offers: Vec<Offer>,
    /// What came of a test event.
    pub tested: Option<Tested>,
    /// The latest deliveries.
    pub recent: Vec<Row>,
    /// A look at a captured request.
    pub verify: VerifyBox,
    /// Whether it is at the built-in test inbox.
    pub is_inbox: bool,
}

/// How an endpoint fares.
#[derive(Debug)]
pub struct HealthBox {
    /// Whether it takes deliveries.
    pub state: Shown,
    /// Why, and since when.
    pub note: String,
    /// How the receiver answers.
    pub receiver: Shown,
    /// When it last accepted.
    pub accepted: Option<When>,
    /// Since when nothing was accepted, and after how many attempts.
    pub failing: Option<(When, u32)>,
    /// The last delivery that was given up.
    pub exhausted: Option<(String, When)>,
    /// Until when nothing is sent because the receiver asked for that, and why.
    pub held: Option<(When, String)>,
    /// Until when the breaker lets nothing through.
    pub breaker: Option<When>,
    /// What is known of how it checks signatures.
    pub class: &'static str,
}

/// What came of a test event.
#[derive(Debug)]
pub struct Tested {
    /// In a word.
    pub state: Shown,
    /// The code of the answer, if there was one.
    pub code: Option<u16>,
    /// What happened and what to do about it.
    pub summary: String,
    /// The id that the receiver saw.
    pub message: String,
    /// How long it took, in milliseconds.
    pub millis: u32,
}

impl HealthBox {
    /// The word for a receiver that asked to wait.
    pub fn waits(&self) -> Shown {
        Shown::waiting("held")
    }

    /// The word for a breaker that is open.
    pub fn open(&self) -> Shown {
        Shown::waiting("open")
    }

    /// The word for one that is not.
    pub fn closed(&self) -> Shown {
        Shown::good("closed")
    }

    fn new(endpoint: &Endpoint, health: &Health, now: Timestamp) -> Self {
        let when = |at| When::new(at, now);
        let known = &health.receiver;
        let failing = known
            .failing_since
            .map(|since| (when(since), known.failures));
        Self {
            state: state_of(&endpoint.state),
            note: note_of(&endpoint.state, now),
            receiver: match (known.failing_since, known.accepted_at) {
                (Some(_), _) => Shown::bad("failing"),
                (None, Some(_)) => Shown::good("accepting"),
                (None, None) => Shown::over("nothing accepted yet"),
            },
            accepted: known.accepted_at.map(when),
            failing,
            exhausted: health
                .last_exhausted
                .map(|(id, at)| (id.to_string(), when(at))),
            held: health
                .standstill
                .held
                .map(|hold| (when(hold.until), hold.because())),
            breaker: health.standstill.breaker_open_until.map(when),
            class: health.class.as_str(),
        }
    }
}

impl From<&TestReport> for Tested {
    fn from(report: &TestReport) -> Self {
        let accepted = report.attempt.accepted();
        let decisive = report.attempt.decisive();
        Self {
            state: match (accepted, report.connected) {
                (true, _) => Shown::good("accepted"),
                (false, true) => Shown::bad("not accepted"),
                (false, false) => Shown::bad("not connected"),
            },
            code: decisive.and_then(Exchange::status),
            summary: visible(&report.summary),
            message: report.message.to_string(),
            millis: report.attempt.duration_millis,
        }
    }
}

fn facts(endpoint: &Endpoint) -> Vec<(&'static str, String)> {
    let entries = endpoint.events.entries();
    let retries = endpoint.retry.delays_millis.len();
    let rate = endpoint
        .rate_limit_per_second
        .map_or_else(|| "no limit".to_owned(), |rate| format!("{rate} a second"));
    let headers: Vec<_> = endpoint.headers.keys().map(|name| visible(name)).collect();
    let none_or = |text: String| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text
        }
    };
    vec![
        ("Preset", endpoint.preset.as_str().to_owned()),
        ("Signature", endpoint.preset.scheme().as_str().to_owned()),
        (
            "Event types",
            if entries.is_empty() {
                "all".to_owned()
            } else {
                entries.join(", ")
            },
        ),
        ("Custom headers", none_or(headers.join(", "))),
        ("Attempts of a delivery", format!("up to {}", retries + 1)),
        (
            "Longest time of one",
            format!("{} ms", endpoint.timeout_millis),
        ),
        ("At once", endpoint.max_in_flight.to_string()),
        ("Rate", rate),
        (
            "Order",
            if endpoint.ordered { "kept" } else { "not kept" }.to_owned(),
        ),
    ]
}

impl EndpointPage {
    pub(super) async fn of(
        ui: &UiState,
        visitor: &Visitor,
        (app, id): (ClientId, EndpointId),
    ) -> Result<Self, UiError> {
        let caller = &visitor.caller;
        let told = |error| UiError::service(&error, &visitor.base);
        let endpoint = ui.service.endpoint(caller, app, id).await.map_err(told)?;
        let health = ui.service.endpoint_health(caller, app, id).await;
        let health = health.map_err(told)?;
        let search = Search {
            app: Some(app),
            endpoint: Some(id),
            ..Search::default()
        };
        let recent = ui
            .service
            .search_deliveries(caller, &search, SearchFrom::Newest, RECENT);
        let recent = recent.await.map_err(told)?;
        let now = ui.clock.now();
        let url = endpoint.url.as_ref().map(|url| visible(url.as_str()));
        let title = url.clone().unwrap_or_else(|| "Endpoint".to_owned());
        Ok(Self {
            frame: Frame::new(ui, visitor, Part::Apps, title),
            app: app.to_string(),
            id: id.to_string(),
            url,
            description: visible(&endpoint.description),
            version: endpoint.version,
            error: None,
            stale: None,
            health: HealthBox::new(&endpoint, &health, now),
            facts: facts(&endpoint),
            keyring: endpoint.keyring.to_string(),
            offers: offers(endpoint.state.as_str(), health.standstill.held.is_some()),
            tested: None,
            recent: recent
                .items
                .iter()
                .map(|found| Row::new(ui, visitor, found, now))
                .collect(),
            verify: VerifyBox::to(format!("apps/{app}/endpoints/{id}/verify")),
            is_inbox: endpoint
                .url
                .as_ref()
                .is_some_and(|url| url.url().host_str() == Some(INBOX_HOST)),
        })
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let now = Timestamp::from_millis(1_784_505_600_000);
        let when = When::new(now.before(90_000), now);
        let id = "ep_01kxyd5209e0080ex9c8twsqwy";
        let empty = || Self {
            frame: Frame::sample(Part::Apps, "https://shop.example/hooks"),
            app: "HqTRDIYa".to_owned(),
            id: id.to_owned(),
            url: None,
            description: String::new(),
            version: 2,
            error: None,
            stale: None,
            health: HealthBox {
                state: Shown::bad("disabled"),
                note: "by its owner, 2 d ago".to_owned(),
                receiver: Shown::over("nothing accepted yet"),
                accepted: None,
                failing: None,
                exhausted: None,
                held: None,
                breaker: None,
                class: "unknown",
            },
            facts: vec![("Preset", "hopae".to_owned())],
            keyring: "kr_01kxyd5209e0080ex9c8twsqwy".to_owned(),
            offers: offers("disabled", false),
            tested: None,
            recent: Vec::new(),
            verify: VerifyBox::to(format!("apps/HqTRDIYa/endpoints/{id}/verify")),
            is_inbox: false,
        };
        let tested = |state, code| Tested {
            state,
            code,
            summary: visible("connected, but not accepted: it said \"<script>\u{202e}\""),
            message: "msg_01kxyd5209e0080ex9c8twsqwy".to_owned(),
            millis: 37,
        };
        let full = Self {
            url: Some("https://shop.example/hooks".to_owned()),
            description: visible("production\u{202e}"),
            health: HealthBox {
                state: Shown::good("enabled"),
                note: String::new(),
                receiver: Shown::bad("failing"),
                accepted: Some(when),
                failing: Some((when, 12)),
                exhausted: Some(("dlv_01kxyd5209e0080ex9c8twsqwy".to_owned(), when)),
                held: Some((
                    When::new(now.after(3_600_000), now),
                    "the receiver answered 503 with Retry-After".to_owned(),
                )),
                breaker: Some(When::new(now.after(30_000), now)),
                class: "list_aware",
            },
            facts: vec![
                ("Preset", "standard".to_owned()),
                ("Rate", "5 a second".to_owned()),
            ],
            offers: offers("enabled", true),
            recent: Row::samples(),
            is_inbox: true,
            tested: Some(tested(Shown::good("accepted"), Some(204))),
            ..empty()
        };
        let refused = Self {
            error: Some("nothing was done".to_owned()),
            stale: Some(stale::sample(format!("apps/HqTRDIYa/endpoints/{id}"))),
            tested: Some(tested(Shown::bad("not connected"), None)),
            verify: VerifyBox::sample_refused(),
            ..empty()
        };
        vec![
            ("endpoint-empty", empty()),
            ("endpoint", full),
            ("endpoint-error", refused),
        ]
    }
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    visitor: Visitor,
    Path((app, id)): Path<(String, String)>,
) -> Result<Response, UiError> {
    let ids = endpoint_id((&app, &id), &visitor)?;
    let shown = EndpointPage::of(&ui, &visitor, ids).await?;
    Ok(page(StatusCode::OK, &shown))
}

/// A form of nothing but its token.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct NoFields {}

pub(in crate::ui) async fn test(
    State(ui): State<UiState>,
    Path((app, id)): Path<(String, String)>,
    sent: Sent<NoFields>,
) -> Result<Response, UiError> {
    let visitor = sent.visitor;
    let told = |error| UiError::service(&error, &visitor.base);
    let (app, id) = endpoint_id((&app, &id), &visitor)?;
    let scope = hookturn_core::workspace::Scope::Manage;
    let may = ui.service.require(&visitor.caller, scope).await;
    may.map_err(told)?;
    let endpoint = ui.service.endpoint(&visitor.caller, app, id).await;
    let endpoint = endpoint.map_err(told)?;
    let report = ui.tests.send_test(&visitor.caller, endpoint).await;
    let mut shown = EndpointPage::of(&ui, &visitor, (app, id)).await?;
    let status = match report {
        Ok(report) => {
            shown.tested = Some(Tested::from(&report));
            StatusCode::OK
        }
        Err(error) => {
            shown.error = Some(error.to_string());
            status_of(&error)
        }
    };
    Ok(page(status, &shown))
}

pub(in crate::ui) async fn verify(
    State(ui): State<UiState>,
    Path((app, id)): Path<(String, String)>,
    sent: Sent<Pasted>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let ids = endpoint_id((&app, &id), &visitor)?;
    let mut shown = EndpointPage::of(&ui, &visitor, ids).await?;
    let status = shown.verify.check(&ui, &visitor, ids, fields).await;
    Ok(page(status, &shown))
}

//! Sending many deliveries again: first a count of what that means, then, when it is confirmed, doing it.
//!
//! What was done is kept when all of it is done: the same form sent again shows that and queues nothing.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use hookturn_core::delivery::DeliveryStatus;
use hookturn_core::id::DeliveryId;
use hookturn_core::limits;
use hookturn_core::store::SearchFrom;
use hookturn_core::time::Timestamp;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::super::super::UiState;
use super::super::super::error::{UiError, status_of};
use super::super::super::frame::{Frame, Part, page};
use super::super::super::once::{self, Asked, Once};
use super::super::super::visitor::{Sent, Visitor};
use super::filter::Filter;
use crate::service::ServiceError;
use crate::service::searching::Retried;

/// What is about to be sent again, or was.
#[derive(Debug, Template)]
#[template(path = "deliveries_retry.html")]
pub struct Retry {
    /// Around it.
    pub frame: Frame,
    /// What it is about.
    pub what: &'static str,
    /// The filters and ids, as the form that confirms repeats them.
    pub parts: Vec<(String, String)>,
    /// The filters in words.
    pub filters: Vec<(String, String)>,
    /// How many, and whether there are more than were looked at.
    pub count: usize,
    /// See `count`.
    pub has_more: bool,
    /// How many were left out, each reason with its number.
    pub left_out: Vec<(String, usize)>,
    /// Whether it has been done.
    pub done: bool,
    /// Back to the list.
    pub back: String,
    /// Why nothing was done.
    pub error: Option<String>,
}

/// What was done, as it is kept for the same form sent again.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Done {
    count: usize,
    has_more: bool,
    left_out: Vec<(String, usize)>,
    parts: Vec<(String, String)>,
}

/// The form, with names that may stand in it several times.
type Pairs = Vec<(String, String)>;

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = pairs.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

fn ids(pairs: &[(String, String)], name: &str) -> Vec<DeliveryId> {
    let named = pairs.iter().filter(|(known, _)| known == name);
    let ids = named.filter_map(|(_, text)| text.parse().ok());
    ids.take(limits::TICKED).collect()
}

impl Retry {
    fn new(ui: &UiState, visitor: &Visitor, filter: &Filter, what: &'static str) -> Self {
        let filters = filter.parts().into_iter();
        let filters: Vec<_> = filters
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self {
            frame: Frame::new(ui, visitor, Part::Deliveries, "Send again"),
            what,
            parts: filters.clone(),
            filters,
            count: 0,
            has_more: false,
            left_out: Vec::new(),
            done: false,
            back: filter.link(None),
            error: None,
        }
    }

    fn matching(&mut self, retried: &Retried) {
        self.count = retried.queued;
        self.has_more = retried.resume.is_some();
        if retried.left_out > 0 {
            let why = "their endpoint takes nothing now, or their message is gone";
            self.left_out.push((why.to_owned(), retried.left_out));
        }
    }

    /// Keeps what was done.
    async fn keep(
        &self,
        ui: &UiState,
        visitor: &Visitor,
        once: Option<Once>,
    ) -> Result<(), UiError> {
        let done = Done {
            count: self.count,
            has_more: self.has_more,
            left_out: self.left_out.clone(),
            parts: self.parts.clone(),
        };
        // A list of texts and numbers always becomes JSON.
        let record = |done: &Done| serde_json::to_vec(done).unwrap_or_default();
        let recording = once.as_ref().map(|once| once.record(&record));
        let kept = ui.service.keep_answer(&visitor.caller, done, recording);
        let kept = kept.await.map(drop);
        kept.map_err(|error| UiError::service(&error, &visitor.base))
    }

    /// Shows what was done when the form was sent before.
    fn again(&mut self, kept: &[u8]) -> Result<(), UiError> {
        let done: Done =
            serde_json::from_slice(kept).map_err(|_| UiError::unreadable(&self.frame.base))?;
        self.count = done.count;
        self.has_more = done.has_more;
        self.left_out = done.left_out;
        self.parts = done.parts;
        self.done = true;
        Ok(())
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |count, done| Self {
            frame: Frame::sample(Part::Deliveries, "Send again"),
            what: "all",
            parts: vec![("status".to_owned(), "exhausted".to_owned())],
            filters: vec![("text".to_owned(), "<script>".to_owned())],
            count,
            has_more: count > 0,
            left_out: vec![("the endpoint is disabled: enable it first".to_owned(), 3)],
            done,
            back: "deliveries?status=exhausted".to_owned(),
            error: None,
        };
        let refused = Self {
            error: Some("the API key lacks the scope manage".to_owned()),
            ..sample(0, false)
        };
        vec![
            ("deliveries-retry-empty", sample(0, false)),
            ("deliveries-retry", sample(1_200, false)),
            ("deliveries-retry-done", sample(1_200, true)),
            ("deliveries-retry-error", refused),
        ]
    }
}

pub(in crate::ui) async fn retry(
    State(ui): State<UiState>,
    sent: Sent<Pairs>,
) -> Result<Response, UiError> {
    let Sent {
        visitor,
        fields: pairs,
    } = sent;
    let filter = Filter::of_pairs(&pairs);
    let what = match value(&pairs, "what") {
        Some("all") => "all",
        Some("page") => "page",
        Some("ticked") | None => "ticked",
        Some(_) => return Err(UiError::unreadable(&visitor.base)),
    };
    let confirmed = value(&pairs, "confirmed").is_some();
    let mut shown = Retry::new(&ui, &visitor, &filter, what);
    let once = match once::asked(&ui, &visitor, "deliveries/retry").await? {
        Asked::First(once) => once,
        Asked::Again(kept) => {
            shown.again(&kept)?;
            return Ok(page(StatusCode::OK, &shown));
        }
    };
    let done = match what {
        "all" => all(&ui, &visitor, &mut shown, filter, &pairs, confirmed).await?,
        what => {
            let name = if what == "page" { "shown" } else { "d" };
            some(
                &ui,
                &visitor,
                &mut shown,
                name,
                ids(&pairs, name),
                confirmed,
            )
            .await
        }
    };
    match done {
        Ok(()) => {
            shown.done = confirmed;
            shown
                .keep(&ui, &visitor, once.filter(|_| confirmed))
                .await?;
            Ok(page(StatusCode::OK, &shown))
        }
        Err(error) => Ok(refused(shown, &error)),
    }
}

/// Everything that matches, as far as one request goes.
async fn all(
    ui: &UiState,
    visitor: &Visitor,
    shown: &mut Retry,
    mut filter: Filter,
    pairs: &[(String, String)],
    confirmed: bool,
) -> Result<Result<(), ServiceError>, UiError> {
    // What is made after the count is not in what the visitor confirms.
    let upper = value(pairs, "upper").and_then(|text| text.parse::<Timestamp>().ok());
    let upper = upper.unwrap_or_else(|| ui.clock.now());
    let from = value(pairs, "from").and_then(|text| text.parse().ok());
    shown.parts.push(("upper".to_owned(), upper.to_string()));
    if filter.until.is_empty() {
        filter.until = upper.to_string();
    }
    let Ok(search) = filter.search() else {
        return Err(UiError::unreadable(&visitor.base));
    };
    let from = from.map_or(SearchFrom::Newest, SearchFrom::OlderThan);
    let retried = ui
        .service
        .retry_matching(&visitor.caller, &search, from, !confirmed);
    let retried = match retried.await {
        Ok(retried) => retried,
        Err(error) => return Ok(Err(error)),
    };
    if let (true, Some(resume)) = (confirmed, retried.resume) {
        shown.parts.push(("from".to_owned(), resume.to_string()));
    } else if let Some(from) = value(pairs, "from") {
        shown.parts.push(("from".to_owned(), from.to_owned()));
    }
    shown.matching(&retried);
    Ok(Ok(()))
}

fn refused(mut shown: Retry, error: &ServiceError) -> Response {
    shown.error = Some(error.to_string());
    page(status_of(error), &shown)
}

/// Those that were named.
async fn some(
    ui: &UiState,
    visitor: &Visitor,
    shown: &mut Retry,
    name: &str,
    named: Vec<DeliveryId>,
    confirmed: bool,
) -> Result<(), ServiceError> {
    let fields = named.iter().map(|id| (name.to_owned(), id.to_string()));
    shown.parts.extend(fields);
    if named.is_empty() {
        let message = "nothing was ticked: go back and tick some".to_owned();
        return Err(ServiceError::invalid("/d", message));
    }
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    for id in named {
        let done = if confirmed {
            let queued = ui.service.retry_delivery(&visitor.caller, id, None).await;
            queued.map(drop)
        } else {
            would_retry(ui, visitor, id).await
        };
        match done {
            Ok(()) => shown.count += 1,
            Err(error @ (ServiceError::Forbidden { .. } | ServiceError::Unauthorized)) => {
                return Err(error);
            }
            Err(error) => *left_out.entry(error.to_string()).or_default() += 1,
        }
    }
    shown.left_out = left_out.into_iter().collect();
    Ok(())
}

/// Whether sending one again would be taken, as far as that can be told before.
async fn would_retry(ui: &UiState, visitor: &Visitor, id: DeliveryId) -> Result<(), ServiceError> {
    let (delivery, _) = ui.service.delivery(&visitor.caller, id).await?;
    if delivery.state.status() == DeliveryStatus::Pending {
        // It is sent at once instead of later.
        return Ok(());
    }
    ui.service.can_send_again(&delivery)
}

//! Deliveries: the list with its filters, sending many again, and a close look at one.

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use hookturn_core::id::DeliveryId;
use hookturn_core::store::SearchFrom;
use hookturn_core::time::Timestamp;
use http::StatusCode;

use super::super::UiState;
use super::super::error::{UiError, status_of};
use super::super::form::{Field, Wrong};
use super::super::frame::{Frame, Part, page};
use super::super::live;
use super::super::text::When;
use super::super::visitor::Visitor;
use crate::service::ServiceError;
use crate::service::searching::Found;

pub mod bulk;
pub mod exchange;
mod filter;
pub mod inspect;
pub mod row;
pub mod verify;

use filter::Filter;
use row::Row;

/// Deliveries on one page.
const ROWS: usize = 50;

/// Every path of deliveries.
pub(in crate::ui) fn routes() -> Router<UiState> {
    Router::new()
        .route("/deliveries", get(list))
        .route("/deliveries/live", get(follow))
        .route("/deliveries/retry", post(bulk::retry))
        .route("/deliveries/{delivery}", get(inspect::show))
        .route("/deliveries/{delivery}/retry", post(inspect::retry))
        .route("/deliveries/{delivery}/verify", post(inspect::verify))
}

/// The list.
#[derive(Debug, Template)]
#[template(path = "deliveries.html")]
pub struct Deliveries {
    /// Around it.
    pub frame: Frame,
    /// The filters.
    pub fields: Vec<Field>,
    /// The filters as they go with other forms.
    pub parts: Vec<(&'static str, String)>,
    /// What was wrong with the filters as a whole.
    pub error: Option<String>,
    /// Whether any field of the filters was wrong, so that nothing was looked for.
    pub refused: bool,
    /// The deliveries, newest first.
    pub rows: Vec<Row>,
    /// The page with older ones.
    pub older: Option<String>,
    /// The page with newer ones.
    pub newer: Option<String>,
    /// How far back was looked, when that was not as far as it goes.
    pub looked_back_to: Option<When>,
    /// Where new ones are counted; only on the first page.
    pub live: Option<String>,
    /// The first page.
    pub newest: String,
}

impl Deliveries {
    fn new(frame: Frame, filter: &Filter, wrong: &Wrong) -> Self {
        let parts = filter.parts().into_iter();
        Self {
            frame,
            fields: filter.fields(wrong),
            parts: parts
                .map(|(name, value)| (name, value.to_owned()))
                .collect(),
            error: wrong.with(""),
            refused: !wrong.is_empty(),
            rows: Vec::new(),
            older: None,
            newer: None,
            looked_back_to: None,
            live: None,
            newest: filter.link(None),
        }
    }

    fn with(mut self, (ui, visitor): (&UiState, &Visitor), filter: &Filter, found: &Found) -> Self {
        let now = ui.clock.now();
        let rows = found.items.iter();
        self.rows = rows.map(|item| Row::new(ui, visitor, item, now)).collect();
        self.older = found.older.map(|id| filter.link(Some(("before", id))));
        self.newer = found.newer.map(|id| filter.link(Some(("after", id))));
        let looked_to = found.older.filter(|_| found.cut_short);
        self.looked_back_to = looked_to.map(|id| When::new(id.created_at(), now));
        if found.newer.is_none() {
            // What is made in this millisecond counts as seen: it would be counted twice otherwise.
            let newest = found.items.first().map(|item| item.delivery.id);
            let than = newest.unwrap_or(DeliveryId::first_at(now.after(1)));
            let link = filter.link(Some(("after", than)));
            self.live = Some(link.replacen("deliveries?", "deliveries/live?", 1));
        }
        self
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |filter: &Filter, wrong: &Wrong| {
            Self::new(Frame::sample(Part::Deliveries, "Deliveries"), filter, wrong)
        };
        let (all, fine) = (Filter::default(), Wrong::default());
        let some = Filter {
            status: "exhausted".to_owned(),
            text: "\"><script>alert(1)</script>\u{202e}".to_owned(),
            ..Filter::default()
        };
        let now = Timestamp::from_millis(1_784_505_600_000);
        let id = DeliveryId::first_at(now);
        let full = Self {
            rows: Row::samples(),
            older: Some(some.link(Some(("before", id)))),
            newer: Some(some.link(Some(("after", id)))),
            live: Some("deliveries/live?after=x".to_owned()),
            ..sample(&some, &fine)
        };
        let cut_short = Self {
            older: Some(some.link(Some(("before", id)))),
            looked_back_to: Some(When::new(now.before(7_200_000), now)),
            ..sample(&some, &fine)
        };
        let mut wrong = Wrong::default();
        wrong.note("endpoint", "expected an id like ep_…");
        wrong.note("", "too much is waiting");
        vec![
            ("deliveries-empty", sample(&all, &fine)),
            ("deliveries-nothing-matches", sample(&some, &fine)),
            ("deliveries-cut-short", cut_short),
            ("deliveries", full),
            ("deliveries-error", sample(&some, &wrong)),
        ]
    }
}

pub(in crate::ui) async fn list(
    State(ui): State<UiState>,
    visitor: Visitor,
    Query(filter): Query<Filter>,
) -> Result<Response, UiError> {
    let frame = Frame::new(&ui, &visitor, Part::Deliveries, "Deliveries");
    let search = match filter.search() {
        Ok(search) => search,
        Err(wrong) => {
            let shown = Deliveries::new(frame, &filter, &wrong);
            return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, &shown));
        }
    };
    let service = &ui.service;
    let look = |from| service.search_deliveries(&visitor.caller, &search, from, ROWS);
    let mut found = look(filter.from()).await;
    let at_the_top = |found: &Found| found.newer.is_none();
    if matches!(filter.from(), SearchFrom::NewerThan(_)) && found.as_ref().is_ok_and(at_the_top) {
        // The first page, whole.
        found = look(SearchFrom::Newest).await;
    }
    match found {
        Ok(found) => {
            let shown = Deliveries::new(frame, &filter, &Wrong::default());
            let shown = shown.with((&ui, &visitor), &filter, &found);
            Ok(page(StatusCode::OK, &shown))
        }
        Err(error) => {
            let (wrong, status) = refusal(&error, &visitor)?;
            Ok(page(status, &Deliveries::new(frame, &filter, &wrong)))
        }
    }
}

/// What is told beside the filters, or on a page of its own where no filter is to blame.
fn refusal(error: &ServiceError, visitor: &Visitor) -> Result<(Wrong, StatusCode), UiError> {
    match error {
        ServiceError::Invalid { .. } => {
            Ok((Wrong::of(error, &[("/text", "text")]), status_of(error)))
        }
        ServiceError::NotFound { what: "app" } => {
            let mut wrong = Wrong::default();
            wrong.note("app", "there is no such app");
            Ok((wrong, StatusCode::NOT_FOUND))
        }
        other => Err(UiError::service(other, &visitor.base)),
    }
}

/// The stream of how many newer ones there are.
pub(in crate::ui) async fn follow(
    State(ui): State<UiState>,
    visitor: Visitor,
    Query(filter): Query<Filter>,
) -> Result<Response, UiError> {
    let (Ok(search), SearchFrom::NewerThan(than)) = (filter.search(), filter.from()) else {
        return Err(UiError::unreadable(&visitor.base));
    };
    Ok(live::of_newer(ui, visitor, search, than))
}

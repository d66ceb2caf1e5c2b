//! The first page: how deliveries went lately, and what needs somebody.
//!
//! The figures are counted in memory and outlive a restart (see [`crate::telemetry::tally`]), so that the
//! page answers at once whatever is stored, and it says what they cover. What waits and what needs
//! somebody is asked when the page is made.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use hookturn_core::time::Timestamp;
use http::StatusCode;
use serde::Deserialize;

use super::super::UiState;
use super::super::error::UiError;
use super::super::frame::{Frame, Part, page};
use super::super::text::When;
use super::super::visitor::Visitor;
use crate::service::attention::Backlog;
use crate::telemetry::tally::{Counts, Figures, Span};

pub mod chart;
pub mod needs;
mod samples;

use chart::Chart;
use needs::Need;

/// Numbers, and what needs attention.
#[derive(Debug, Template)]
#[template(path = "overview.html")]
pub struct Overview {
    /// Around it.
    pub frame: Frame,
    /// The spans that can be chosen: word in the path, words for people, whether it is the present one.
    pub spans: Vec<(&'static str, &'static str, bool)>,
    /// The figures, unless none are kept for this workspace.
    pub numbers: Option<Numbers>,
    /// Since when the oldest delivery that is due waits, and for how many endpoints any does.
    pub backlog: Option<(When, usize)>,
    /// What needs somebody.
    pub needs: Vec<Need>,
    /// Whether there is no endpoint yet.
    pub is_new: bool,
}

/// The figures of a span.
#[derive(Debug)]
pub struct Numbers {
    /// Since when they are counted, if that is within the span: then they cover less than it.
    pub only_since: Option<When>,
    /// Whether what was counted before the server started is not read yet.
    pub is_incomplete: bool,
    /// What followed the attempts.
    pub sum: Counts,
    /// The share of attempts that were accepted, as text; none without attempts.
    pub success: Option<String>,
    /// 95 of 100 attempts took at most so long.
    pub p95: Option<String>,
    /// The same over time.
    pub chart: Chart,
}

/// What to show.
#[derive(Debug, Default, Deserialize)]
pub(in crate::ui) struct Wanted {
    #[serde(default)]
    span: String,
}

const fn word(span: Span) -> (&'static str, &'static str) {
    match span {
        Span::Hour => ("hour", "Last hour"),
        Span::Day => ("day", "Last day"),
        Span::Week => ("week", "Last week"),
    }
}

/// The spans with the one that is shown.
fn spans(shown: Span) -> Vec<(&'static str, &'static str, bool)> {
    let each = |span| {
        let (path, words) = word(span);
        (path, words, span == shown)
    };
    Span::ALL.map(each).to_vec()
}

/// A share in percent with one decimal, never rounded up to all.
fn percent(part: u64, all: u64) -> Option<String> {
    let thousandths = (u128::from(part) * 1_000).checked_div(u128::from(all))?;
    Some(format!("{}.{} %", thousandths / 10, thousandths % 10))
}

/// Milliseconds as people say them.
fn millis(span: u32) -> String {
    match span {
        0..10_000 => format!("{span} ms"),
        _ => format!("{} s", span / 1_000),
    }
}

impl Numbers {
    fn new(figures: &Figures, span: Span, now: Timestamp) -> Option<Self> {
        let since = figures.since?;
        let first = figures.cells.first().map_or(now, |(at, _)| *at);
        Some(Self {
            only_since: (since > first).then(|| When::new(since, now)),
            is_incomplete: figures.is_incomplete,
            sum: figures.sum,
            success: percent(figures.sum.delivered, figures.sum.all()),
            p95: figures.p95_millis.map(millis),
            chart: Chart::new(&figures.cells, span.step(), now),
        })
    }
}

/// The age of a backlog as the page says it.
fn age(backlog: Backlog, now: Timestamp) -> Option<(When, usize)> {
    let oldest = backlog.oldest?;
    Some((When::new(oldest, now), backlog.endpoints))
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Response, UiError> {
    let told = |error| UiError::service(&error, &visitor.base);
    let named = |span: &Span| word(*span).0 == wanted.span;
    let span = Span::ALL.into_iter().find(named).unwrap_or(Span::Hour);
    let caller = &visitor.caller;
    let backlog = ui.service.backlog(caller).await.map_err(told)?;
    let attention = ui.service.attention(caller).await.map_err(told)?;
    let needs = needs::of(&ui, &visitor, &attention).await?;
    let now = ui.clock.now();
    let figures = ui.metrics.tally().figures(caller.workspace, span, now);
    let overview = Overview {
        spans: spans(span),
        numbers: Numbers::new(&figures, span, now),
        backlog: age(backlog, now),
        needs,
        is_new: attention.endpoints_in_all == 0,
        frame: Frame::new(&ui, &visitor, Part::Overview, "Overview"),
    };
    Ok(page(StatusCode::OK, &overview))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_all_only_when_nothing_is_missing() {
        assert_eq!(percent(0, 0), None);
        assert_eq!(percent(9_999, 10_000).as_deref(), Some("99.9 %"));
        assert_eq!(percent(3, 3).as_deref(), Some("100.0 %"));
        assert_eq!(percent(1, 3).as_deref(), Some("33.3 %"));
        assert_eq!(percent(u64::MAX, u64::MAX).as_deref(), Some("100.0 %"));
    }
}

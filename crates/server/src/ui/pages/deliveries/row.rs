//! A delivery in a list.

use hookturn_core::delivery::{Attempt, Delivery, DeliveryState, ExchangeResult, ExhaustedReason};
use hookturn_core::id::{DeliveryId, EndpointId, MessageId, WorkspaceId};
use hookturn_core::message::EventType;
use hookturn_core::store::FoundDelivery;
use hookturn_core::time::Timestamp;

use super::super::super::UiState;
use super::super::super::text::{State, When, visible};
use super::super::super::visitor::Visitor;

/// Characters of an endpoint's URL that a list shows.
const URL_CHARS: usize = 60;

/// One delivery.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// The code of the last answer, or the kind of failure.
    pub code: Option<String>,
    /// Why it was given up, if it was.
    pub why: &'static str,
    /// Its event type.
    pub event_type: String,
    /// Where it goes.
    pub endpoint: String,
    /// The endpoint's page, or nothing when it is gone.
    pub endpoint_link: String,
    /// The app's name.
    pub app: String,
    /// Made of at most.
    pub attempts: String,
    /// When it is attempted next.
    pub next: Option<When>,
    /// How long the last attempt took, in milliseconds.
    pub took: Option<u32>,
    /// When it was made.
    pub made: When,
}

/// Where a delivery stands, in a word.
pub(in crate::ui::pages) fn state_of(state: DeliveryState) -> State {
    match state {
        DeliveryState::Pending { .. } => State::waiting("pending"),
        DeliveryState::Delivered { .. } => State::good("delivered"),
        DeliveryState::Exhausted { .. } => State::bad("exhausted"),
    }
}

/// Why a delivery was given up, in words.
pub(in crate::ui::pages) fn why_of(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending { .. } | DeliveryState::Delivered { .. } => "",
        DeliveryState::Exhausted { reason, .. } => match reason {
            ExhaustedReason::AttemptsUsed => "every attempt failed",
            ExhaustedReason::NotRetried => "a failure that is not retried",
            ExhaustedReason::Gone => "the receiver answered 410 Gone",
            ExhaustedReason::EndpointDisabled => "the endpoint was disabled while it waited",
            ExhaustedReason::EndpointDeleted => "the endpoint was deleted while it waited",
            ExhaustedReason::UrlTooLong => "its parameters make the URL too long",
        },
    }
}

/// The code of an attempt's last answer, or the kind of failure.
pub(in crate::ui::pages) fn code_of(attempt: &Attempt) -> Option<String> {
    attempt.decisive().map(|exchange| match &exchange.result {
        ExchangeResult::Answered(answer) => answer.status.to_string(),
        ExchangeResult::Failed(failure) => visible(&failure.kind),
    })
}

impl Row {
    pub(in crate::ui::pages) fn new(
        ui: &UiState,
        visitor: &Visitor,
        found: &FoundDelivery,
        now: Timestamp,
    ) -> Self {
        let delivery = &found.delivery;
        let endpoint = ui
            .service
            .endpoint_shown(&visitor.caller, delivery.endpoint);
        let most = endpoint.as_ref().map_or_else(
            || "?".to_owned(),
            |endpoint| (endpoint.retry.delays_millis.len() + 1).to_string(),
        );
        let label = endpoint.as_ref().map_or_else(
            || "an endpoint that is gone".to_owned(),
            |endpoint| match (&endpoint.url, endpoint.description.is_empty()) {
                (_, false) => visible(&endpoint.description),
                (Some(url), true) => visible(&shortened(url.as_str())),
                (None, true) => endpoint.id.to_string(),
            },
        );
        let is_there = endpoint.is_some_and(|endpoint| {
            !matches!(
                endpoint.state,
                hookturn_core::endpoint::EndpointState::Deleted { .. }
            )
        });
        let app = ui.service.app_name(&visitor.caller, delivery.app);
        let link = format!("apps/{}/endpoints/{}", delivery.app, delivery.endpoint);
        Self {
            endpoint: label,
            endpoint_link: if is_there { link } else { String::new() },
            app: visible(&app.unwrap_or_else(|| delivery.app.to_string())),
            attempts: format!("{}/{most}", delivery.attempts),
            ..Self::of(delivery, found.last_attempt.as_ref(), now)
        }
    }

    fn of(delivery: &Delivery, last: Option<&Attempt>, now: Timestamp) -> Self {
        let next = match delivery.state {
            DeliveryState::Pending { due_at } => Some(When::new(due_at, now)),
            DeliveryState::Delivered { .. } | DeliveryState::Exhausted { .. } => None,
        };
        Self {
            id: delivery.id.to_string(),
            state: state_of(delivery.state),
            code: last.and_then(code_of),
            why: why_of(delivery.state),
            event_type: delivery.event_type.as_str().to_owned(),
            endpoint: String::new(),
            endpoint_link: String::new(),
            app: String::new(),
            attempts: String::new(),
            next,
            took: last.map(|attempt| attempt.duration_millis),
            made: When::new(delivery.id.created_at(), now),
        }
    }

    /// Rows of every state, for samples.
    pub fn samples() -> Vec<Self> {
        let now = Timestamp::from_millis(1_784_505_600_000);
        let states = [
            DeliveryState::Pending {
                due_at: now.after(300_000),
            },
            DeliveryState::Delivered { at: now },
            DeliveryState::Exhausted {
                at: now,
                reason: ExhaustedReason::AttemptsUsed,
            },
        ];
        let row = |(index, state): (u8, DeliveryState)| Self {
            code: Some("503".to_owned()),
            endpoint: visible("<script>\u{202e}"),
            app: "shop".to_owned(),
            attempts: "3/8".to_owned(),
            took: Some(41),
            ..Self::of(&sample(index, state), None, now)
        };
        (0_u8..).zip(states).map(row).collect()
    }
}

/// A delivery for samples.
#[expect(
    clippy::expect_used,
    reason = "the texts are an id and a type; if they were not, the test that renders samples would fail"
)]
pub(in crate::ui::pages) fn sample(index: u8, state: DeliveryState) -> Delivery {
    let mut id = DeliveryId::first_at(Timestamp::from_millis(1_784_505_000_000)).to_bytes();
    id[15] = index;
    Delivery {
        id: DeliveryId::from_bytes(id),
        workspace: WorkspaceId::from_bytes([1; 16]),
        app: "HqTRDIYa".parse().expect("a client id"),
        endpoint: EndpointId::from_bytes([2; 16]),
        message: MessageId::from_bytes([3; 16]),
        event_type: EventType::new("invoice.paid").expect("an event type"),
        attempts: 3,
        state,
    }
}

fn shortened(url: &str) -> String {
    let plain = url.split_once("://").map_or(url, |(_, rest)| rest);
    let mut cut: String = plain.chars().take(URL_CHARS).collect();
    if cut.len() < plain.len() {
        cut.push('…');
    }
    cut
}

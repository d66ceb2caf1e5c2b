//! A close look at one delivery: its course, each attempt, and who signed what.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::delivery::{
    Answer, DeliveryState, Exchange, ExchangeFailure, ExchangeReason, ExchangeResult,
    ExhaustedReason, SignedWith, Timings,
};
use hookturn_core::endpoint::EndpointState;
use hookturn_core::id::{DeliveryId, SecretId};
use hookturn_core::time::Timestamp;
use http::StatusCode;
use serde::Deserialize;

use super::super::super::UiState;
use super::super::super::error::{UiError, status_of};
use super::super::super::frame::{Frame, Part, page};
use super::super::super::text::{State as Shown, When, excerpt, visible};
use super::super::super::visitor::{Sent, Visitor};
use super::exchange::{AttemptView, ExchangeView};
use super::row::{sample, state_of, why_of};
use super::verify::{Pasted, VerifyBox};
use crate::service::ServiceError;
use crate::service::inspecting::{Inspected, SentHeader, SentRequest};

/// Bytes of a payload that the page shows.
const PAYLOAD_BYTES: usize = 64 * 1024;

/// The page of a delivery.
#[derive(Debug, Template)]
#[template(path = "delivery.html")]
pub struct Inspector {
    /// Around it.
    pub frame: Frame,
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: Shown,
    /// Why it was given up, if it was.
    pub why: &'static str,
    /// Its event type.
    pub event_type: String,
    /// The message.
    pub message: String,
    /// The publisher's own id of the event.
    pub event_id: Option<String>,
    /// The app, by id and name.
    pub app: (String, String),
    /// The endpoint, by id and what it is called; the page of one that is gone is not linked.
    pub endpoint: (String, String),
    /// Whether the endpoint has a page.
    pub endpoint_is_there: bool,
    /// When it was made.
    pub made: When,
    /// When it is attempted next.
    pub next: Option<When>,
    /// When it was settled.
    pub settled: Option<When>,
    /// Made of at most.
    pub attempts_of: String,
    /// The attempts, oldest first.
    pub attempts: Vec<AttemptView>,
    /// The payload as published, and the bytes that are left out.
    pub payload: Option<(String, usize)>,
    /// What was wrong with the last thing that was asked for.
    pub error: Option<String>,
    /// A look at a captured request; only while the endpoint is there.
    pub verify: Option<VerifyBox>,
}

impl Inspector {
    fn new(ui: &UiState, visitor: &Visitor, inspected: &Inspected) -> Self {
        let now = ui.clock.now();
        let frame = Frame::new(ui, visitor, Part::Deliveries, "Delivery");
        let attempts = inspected.attempts.iter();
        let attempts = attempts
            .map(|attempt| AttemptView::new(&ui.service, inspected, attempt, now))
            .collect();
        Self {
            attempts,
            ..Self::around(frame, inspected, now)
        }
    }

    /// Everything but the attempts.
    fn around(frame: Frame, inspected: &Inspected, now: Timestamp) -> Self {
        let delivery = &inspected.delivery;
        let when = |at| When::new(at, now);
        let endpoint = inspected.endpoint.as_ref();
        let (next, settled) = match delivery.state {
            DeliveryState::Pending { due_at } => (Some(when(due_at)), None),
            DeliveryState::Delivered { at } | DeliveryState::Exhausted { at, .. } => {
                (None, Some(when(at)))
            }
        };
        let endpoint_is_there = endpoint
            .is_some_and(|endpoint| !matches!(endpoint.state, EndpointState::Deleted { .. }));
        let url = endpoint.and_then(|endpoint| endpoint.url.as_ref());
        let called = url.map_or_else(
            || delivery.endpoint.to_string(),
            |url| visible(url.as_str()),
        );
        let app = inspected.app.as_ref();
        let app = app.map_or_else(|| "a removed app".to_owned(), |app| visible(&app.name));
        let message = inspected.message.as_ref();
        let most = endpoint.map_or_else(
            || "?".to_owned(),
            |endpoint| (endpoint.retry.delays_millis.len() + 1).to_string(),
        );
        let verify = format!("deliveries/{}/verify", delivery.id);
        Self {
            frame,
            id: delivery.id.to_string(),
            state: state_of(delivery.state),
            why: why_of(delivery.state),
            event_type: delivery.event_type.as_str().to_owned(),
            message: delivery.message.to_string(),
            event_id: message.and_then(|message| message.event_id.as_deref().map(visible)),
            app: (delivery.app.to_string(), app),
            endpoint: (delivery.endpoint.to_string(), called),
            endpoint_is_there,
            made: when(delivery.id.created_at()),
            next,
            settled,
            attempts_of: format!("{} of at most {most}", delivery.attempts),
            attempts: Vec::new(),
            payload: message.map(|message| excerpt(&message.payload, PAYLOAD_BYTES)),
            error: None,
            verify: endpoint_is_there.then(|| VerifyBox::to(verify)),
        }
    }

    async fn of(ui: &UiState, visitor: &Visitor, id: &str) -> Result<(Self, Inspected), UiError> {
        let told = |error: ServiceError| UiError::service(&error, &visitor.base);
        let id: DeliveryId = id
            .parse()
            .map_err(|_| told(ServiceError::not_found("delivery")))?;
        let inspected = ui.service.inspect(&visitor.caller, id).await;
        let inspected = inspected.map_err(told)?;
        Ok((Self::new(ui, visitor, &inspected), inspected))
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let now = Timestamp::from_millis(1_784_505_600_000);
        let hostile = "</pre><script>alert(1)</script><b onclick=x>\u{202e}\u{0}";
        let waiting = DeliveryState::Pending {
            due_at: now.after(5_000),
        };
        let given_up = DeliveryState::Exhausted {
            at: now,
            reason: ExhaustedReason::AttemptsUsed,
        };
        let of = |state, sample_of| {
            let inspected = Inspected {
                delivery: sample(0, state),
                attempts: Vec::new(),
                app: None,
                endpoint: None,
                keyring: None,
                message: None,
            };
            let frame = Frame::sample(Part::Deliveries, "Delivery");
            (sample_of, Self::around(frame, &inspected, now), inspected)
        };
        let (name, empty, _) = of(waiting, "delivery-empty");
        let (full_name, full, inspected) = of(given_up, "delivery");
        let answered = ExchangeResult::Answered(Answer {
            status: 401,
            headers: vec![("x-<b>".to_owned(), hostile.to_owned())],
            body: hostile.repeat(200).into_bytes(),
            truncated: true,
            retry_after_millis: None,
        });
        let failed = ExchangeResult::Failed(ExchangeFailure {
            kind: "timeout".to_owned(),
            detail: hostile.to_owned(),
        });
        let attempt = |number| AttemptView {
            number,
            at: When::new(now, now),
            state: Shown::bad("refused"),
            code: Some("401".to_owned()),
            millis: 40,
            summary: visible(hostile),
            exchanges: [answered.clone(), failed.clone()]
                .into_iter()
                .enumerate()
                .map(|(index, result)| sample_exchange(&inspected, (number, index), result, now))
                .collect(),
        };
        let full = Self {
            attempts: vec![attempt(1), attempt(2)],
            payload: Some((visible(&hostile.repeat(100)), 512)),
            event_id: Some(visible(hostile)),
            endpoint_is_there: true,
            ..full
        };
        let (refused_name, refused, _) = of(given_up, "delivery-error");
        let refused = Self {
            error: Some("the endpoint is disabled: enable it first".to_owned()),
            verify: Some(VerifyBox::sample_refused()),
            ..refused
        };
        vec![(name, empty), (full_name, full), (refused_name, refused)]
    }
}

fn sample_exchange(
    inspected: &Inspected,
    (number, index): (u32, usize),
    result: ExchangeResult,
    now: Timestamp,
) -> ExchangeView {
    let header = |name: &str, value: Option<&str>| SentHeader {
        name: name.to_owned(),
        value: value.map(str::to_owned),
    };
    let signer = |byte| SignedWith {
        secret: SecretId::from_bytes([byte; 16]),
        fingerprint: hookturn_verify::Secret::generate([byte; 32]).fingerprint(),
    };
    let exchange = Exchange {
        reason: if index == 0 {
            ExchangeReason::Plan
        } else {
            ExchangeReason::Fallback
        },
        signed_with: vec![signer(1), signer(2)],
        timestamp: 1_784_505_600,
        signature: "v1,AAAA v1,BBBB".to_owned(),
        result,
        timings: Timings {
            total: 40_000,
            ..Timings::default()
        },
        resent: index == 1,
    };
    let sent = SentRequest {
        method: "POST",
        url: "https://shop.example/hooks?<script>".to_owned(),
        headers: vec![header("webhook-id", Some("msg_1")), header("x-env", None)],
        body: "{\"a\":\"<script>\"}".into(),
        may_be_batch: true,
    };
    let id = format!("a{number}-{}", index + 1);
    ExchangeView::new(id, inspected, &exchange, Some(&sent), now)
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, UiError> {
    let (shown, _) = Inspector::of(&ui, &visitor, &id).await?;
    Ok(page(StatusCode::OK, &shown))
}

/// A form of nothing but its token.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct NoFields {}

pub(in crate::ui) async fn retry(
    State(ui): State<UiState>,
    Path(id): Path<String>,
    sent: Sent<NoFields>,
) -> Result<Response, UiError> {
    let visitor = sent.visitor;
    let (mut shown, inspected) = Inspector::of(&ui, &visitor, &id).await?;
    let id = inspected.delivery.id;
    match ui.service.retry_delivery(&visitor.caller, id, None).await {
        Ok(_) => {
            let back = format!("{}deliveries/{id}", visitor.base);
            Ok(Redirect::to(&back).into_response())
        }
        Err(error) => {
            shown.error = Some(error.to_string());
            Ok(page(status_of(&error), &shown))
        }
    }
}

pub(in crate::ui) async fn verify(
    State(ui): State<UiState>,
    Path(id): Path<String>,
    sent: Sent<Pasted>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let (mut shown, inspected) = Inspector::of(&ui, &visitor, &id).await?;
    let ids = (inspected.delivery.app, inspected.delivery.endpoint);
    let Some(verify) = shown.verify.as_mut() else {
        let gone = ServiceError::not_found("endpoint");
        return Err(UiError::service(&gone, &visitor.base));
    };
    let status = verify.check(&ui, &visitor, ids, fields).await;
    Ok(page(status, &shown))
}

//! Deliveries: what became of each message at each endpoint, and sending again by hand.

use std::collections::HashMap;

use axum::extract::State;
use hookturn_core::delivery::{
    Attempt, Delivery, DeliveryState, DeliveryStatus, Exchange, ExchangeResult, ExhaustedReason,
};
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, MessageId, SecretId};
use hookturn_core::limits;
use hookturn_core::message::EventType;
use hookturn_core::store::Page;
use hookturn_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Ids, Manage, Read};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, Nothing};
use super::super::page::{PageView, Query};
use super::super::schema;
use super::page_answer;
use crate::service::deliveries::{DeliveryFilter, Recover, Recovered};

/// One message for one endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
pub(in crate::api) struct DeliveryView {
    /// Its id.
    #[schema(value_type = schema::DeliveryIdText)]
    id: DeliveryId,
    /// The app the message was published to.
    #[schema(value_type = schema::ClientIdText)]
    client_id: ClientId,
    /// Where it goes.
    #[schema(value_type = schema::EndpointIdText)]
    endpoint_id: EndpointId,
    /// What it carries.
    #[schema(value_type = schema::MessageIdText)]
    message_id: MessageId,
    /// The message's event type.
    #[schema(value_type = schema::EventTypeText)]
    event_type: EventType,
    /// Where it stands.
    #[schema(value_type = schema::DeliveryStatusText)]
    status: DeliveryStatus,
    /// Attempts made so far.
    attempt_count: u32,
    /// When it was made.
    #[schema(value_type = schema::TimeText)]
    created_at: Timestamp,
    /// Not before this time it is attempted next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    due_at: Option<Timestamp>,
    /// When it was delivered or exhausted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    settled_at: Option<Timestamp>,
    /// Why it is not attempted again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::ExhaustedReasonText>)]
    exhausted_reason: Option<ExhaustedReason>,
}

impl DeliveryView {
    fn new(delivery: &Delivery) -> Self {
        let (due_at, settled_at, exhausted_reason) = match delivery.state {
            DeliveryState::Pending { due_at } => (Some(due_at), None, None),
            DeliveryState::Delivered { at } => (None, Some(at), None),
            DeliveryState::Exhausted { at, reason } => (None, Some(at), Some(reason)),
        };
        Self {
            id: delivery.id,
            client_id: delivery.app,
            endpoint_id: delivery.endpoint,
            message_id: delivery.message,
            event_type: delivery.event_type.clone(),
            status: delivery.state.status(),
            attempt_count: delivery.attempts,
            created_at: delivery.id.created_at(),
            due_at,
            settled_at,
            exhausted_reason,
        }
    }
}

/// A delivery with its attempts.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct DeliveryDetail {
    /// The delivery.
    #[serde(flatten)]
    delivery: DeliveryView,
    /// Its attempts, oldest first.
    attempts: Vec<AttemptView>,
}

/// One try to hand a delivery over.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Attempt)]
pub(in crate::api) struct AttemptView {
    /// 1 for the first.
    number: u32,
    /// Whether the receiver accepted.
    accepted: bool,
    /// When it began.
    #[schema(value_type = schema::TimeText)]
    started_at: Timestamp,
    /// How long it took.
    duration_millis: u32,
    /// What was sent and answered: one exchange, or two when the first was refused and another
    /// secret signed the second.
    exchanges: Vec<ExchangeView>,
}

impl AttemptView {
    pub(super) fn new(attempt: &Attempt, names: &Names) -> Self {
        Self {
            number: attempt.number,
            accepted: attempt.accepted(),
            started_at: attempt.started_at,
            duration_millis: attempt.duration_millis,
            exchanges: attempt
                .exchanges
                .iter()
                .map(|exchange| ExchangeView::new(exchange, names))
                .collect(),
        }
    }
}

/// One HTTP request and what came of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Exchange)]
pub(in crate::api) struct ExchangeView {
    /// Which rule chose the secrets that signed.
    #[schema(value_type = schema::ExchangeReasonText)]
    reason: hookturn_core::delivery::ExchangeReason,
    /// The same in a sentence.
    because: &'static str,
    /// The secrets that signed, in the order of their signatures. Empty when there was no connection
    /// that could take the request: nothing is signed before that.
    signed_with: Vec<SignedWithView>,
    /// The Unix seconds that were signed; those of the exchange's end when nothing was.
    timestamp: i64,
    /// The value of the signature header; empty when nothing was signed.
    signature: String,
    /// What was answered; absent when there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<ResponseView>,
    /// Why there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureView>,
    /// Where the time went.
    timings: TimingsView,
    /// Whether the request was written twice: a connection that had been kept alive ended before a byte of its
    /// answer, so the request went once more over a new one, signed anew. The receiver may have processed both,
    /// which have the same message id. The other members are of the last one that was signed.
    resent: bool,
}

/// A secret that signed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SignedWith)]
pub(in crate::api) struct SignedWithView {
    /// Which one.
    #[schema(value_type = schema::SecretIdText)]
    secret_id: SecretId,
    /// What its owner calls it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Its fingerprint.
    #[schema(value_type = schema::FingerprintText)]
    fingerprint: String,
}

/// What secrets are called.
pub(super) type Names = HashMap<SecretId, String>;

/// What is kept of a receiver's answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Response)]
pub(in crate::api) struct ResponseView {
    /// The HTTP status.
    #[schema(minimum = 100, maximum = 999)]
    status: u16,
    /// Its headers, at most 64 and, over HTTP/1.1, 4 KiB of them.
    headers: Vec<HeaderView>,
    /// At most 16 KiB of the body, less by what many or large headers take; bytes that are not UTF-8 replaced.
    body: String,
    /// Whether the body was longer, or there were more or larger headers.
    truncated: bool,
}

/// A header.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Header)]
pub(in crate::api) struct HeaderView {
    /// Its name.
    name: String,
    /// Its value.
    value: String,
}

/// Why there was no answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Failure)]
pub(in crate::api) struct FailureView {
    /// A stable word, such as `timeout`.
    kind: String,
    /// A sentence for people.
    detail: String,
}

/// Where the time of an exchange went, in microseconds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Timings)]
pub(in crate::api) struct TimingsView {
    /// Resolving the name.
    dns: u32,
    /// Connecting.
    connect: u32,
    /// The TLS handshake.
    tls: u32,
    /// From the request to the first byte of the response.
    first_byte: u32,
    /// All of it.
    total: u32,
}

impl ExchangeView {
    fn new(exchange: &Exchange, names: &Names) -> Self {
        let (response, failure) = match &exchange.result {
            ExchangeResult::Answered(answer) => (
                Some(ResponseView {
                    status: answer.status,
                    headers: answer
                        .headers
                        .iter()
                        .cloned()
                        .map(|(name, value)| HeaderView { name, value })
                        .collect(),
                    body: String::from_utf8_lossy(&answer.body).into_owned(),
                    truncated: answer.truncated,
                }),
                None,
            ),
            ExchangeResult::Failed(failure) => (
                None,
                Some(FailureView {
                    kind: failure.kind.clone(),
                    detail: failure.detail.clone(),
                }),
            ),
        };
        let timings = exchange.timings;
        Self {
            reason: exchange.reason,
            because: exchange.reason.words(),
            signed_with: exchange
                .signed_with
                .iter()
                .map(|signer| SignedWithView {
                    secret_id: signer.secret,
                    name: names.get(&signer.secret).cloned(),
                    fingerprint: signer.fingerprint.to_string(),
                })
                .collect(),
            timestamp: exchange.timestamp,
            signature: exchange.signature.clone(),
            response,
            failure,
            timings: TimingsView {
                dns: timings.dns,
                connect: timings.connect,
                tls: timings.tls,
                first_byte: timings.first_byte,
                total: timings.total,
            },
            resent: exchange.resent,
        }
    }
}

const LIST: &str = "deliveries";

/// The word of a status in a query.
struct Status(DeliveryStatus);

impl std::str::FromStr for Status {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [
            DeliveryStatus::Pending,
            DeliveryStatus::Delivered,
            DeliveryStatus::Exhausted,
        ]
        .into_iter()
        .find(|status| status.as_str() == text)
        .map(Self)
        .ok_or(())
    }
}

/// The text of an event type in a query.
struct TypeText(EventType);

impl std::str::FromStr for TypeText {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        EventType::new(text).map(Self).map_err(drop)
    }
}

/// List an app's deliveries, newest first.
#[utoipa::path(get, path = "/v1/apps/{clientId}/deliveries", tag = "Deliveries", operation_id = "listDeliveries",
    params(
        ("status" = Option<schema::DeliveryStatusText>, Query, description = "Only in this state."),
        ("endpointId" = Option<schema::EndpointIdText>, Query, description = "Only for this endpoint."),
        ("eventType" = Option<schema::EventTypeText>, Query, description = "Only of this event type."),
        ("messageId" = Option<schema::MessageIdText>, Query, description = "Only of this message."),
        ("since" = Option<schema::TimeText>, Query, description = "Made at or after this time."),
        ("until" = Option<schema::TimeText>, Query, description = "Made before this time."),
    ),
    responses((status = 200, description = "A page.", body = PageView<DeliveryView>)))]
pub(in crate::api) async fn list(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(app): Ids<ClientId>,
    mut query: Query,
) -> Outcome {
    let page = Page {
        before: query.take_cursor(LIST)?,
        limit: query.take_limit()?,
    };
    let status: Option<Status> = query.take("status", "pending, delivered or exhausted")?;
    let event_type: Option<TypeText> = query.take("eventType", "an event type")?;
    let (since, until) = query.take_span()?;
    let filter = DeliveryFilter {
        status: status.map(|status| status.0),
        endpoint: query.take("endpointId", "the id of an endpoint")?,
        event_type: event_type.map(|text| text.0),
        message: query.take("messageId", "the id of a message")?,
        since,
        until,
    };
    let uri = query.finish()?;
    let listed = api
        .service
        .deliveries(&call.caller, app, filter, page)
        .await?;
    Ok(page_answer(listed, LIST, &uri, |delivery| {
        (delivery.id, DeliveryView::new(&delivery))
    }))
}

/// Get a delivery with its attempts.
#[utoipa::path(get, path = "/v1/deliveries/{deliveryId}", tag = "Deliveries", operation_id = "getDelivery",
    responses((status = 200, description = "The delivery.", body = DeliveryDetail)))]
pub(in crate::api) async fn get(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(id): Ids<DeliveryId>,
) -> Outcome {
    let (delivery, attempts) = api.service.delivery(&call.caller, id).await?;
    let names = api.service.secret_names(delivery.endpoint);
    Ok(Answer::ok(&DeliveryDetail {
        delivery: DeliveryView::new(&delivery),
        attempts: attempts
            .iter()
            .map(|attempt| AttemptView::new(attempt, &names))
            .collect(),
    }))
}

/// Queue a delivery again, whatever its state. Its retry policy starts anew.
#[utoipa::path(post, path = "/v1/deliveries/{deliveryId}/retry", tag = "Deliveries", operation_id = "retryDelivery",
    responses((status = 202, description = "Queued, due now.", body = DeliveryView)))]
pub(in crate::api) async fn retry(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids(id): Ids<DeliveryId>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let _: Nothing = body.parse_or_default()?;
    let render =
        |queued: &Delivery| Answer::json(http::StatusCode::ACCEPTED, &DeliveryView::new(queued));
    let record = |queued: &Delivery| render(queued).to_bytes();
    let queued = api
        .service
        .retry_delivery(&call.caller, id, once.record(&record))
        .await;
    Ok(render(&once.settle(&api.service, queued).await?))
}

/// Which settled deliveries of an endpoint to queue again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct RecoverDeliveries {
    /// Made at or after this time.
    #[schema(value_type = schema::TimeText)]
    since: Timestamp,
    /// Made before this time; now without it.
    #[schema(value_type = Option<schema::TimeText>)]
    until: Option<Timestamp>,
    /// Which of them; the exhausted ones without it.
    #[schema(value_type = Option<schema::SettledText>)]
    status: Option<Settled>,
    /// Only count them.
    #[serde(default)]
    dry_run: bool,
}

/// The states of deliveries that can be queued again.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Settled {
    Exhausted,
    Delivered,
}

/// What a recover did.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Recovered)]
pub(in crate::api) struct RecoveredView {
    /// Deliveries queued again, or counted in a dry run.
    count: usize,
    /// Whether there are more than one call works through: call again.
    has_more: bool,
    /// Whether they were only counted.
    dry_run: bool,
}

/// Queue an endpoint's settled deliveries of a span of time again, or count them.
#[utoipa::path(post, path = "/v1/apps/{clientId}/endpoints/{endpointId}/recover", tag = "Deliveries", operation_id = "recoverDeliveries",
    request_body = RecoverDeliveries,
    responses((status = 200, description = "Done.", body = RecoveredView)))]
pub(in crate::api) async fn recover(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids((app, endpoint)): Ids<(ClientId, EndpointId)>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: RecoverDeliveries = body.parse()?;
    let input = Recover {
        since: asked.since,
        until: asked.until,
        status: match asked.status {
            Some(Settled::Delivered) => DeliveryStatus::Delivered,
            Some(Settled::Exhausted) | None => DeliveryStatus::Exhausted,
        },
        dry_run: asked.dry_run,
    };
    let render = |done: &Recovered| {
        Answer::ok(&RecoveredView {
            count: done.count,
            has_more: done.has_more,
            dry_run: asked.dry_run,
        })
    };
    let record = |done: &Recovered| render(done).to_bytes();
    let done = api
        .service
        .recover(&call.caller, app, endpoint, input, once.record(&record))
        .await;
    Ok(render(&once.settle(&api.service, done).await?))
}

//! Messages: publishing, which is the hot path, and reading them back.
//!
//! A payload is checked to be JSON that receivers can read and otherwise left alone: what is stored is
//! a slice of the request's own bytes.

use std::borrow::Cow;

use axum::extract::State;
use bytes::Bytes;
use hookturn_core::id::{ClientId, MessageId};
use hookturn_core::limits;
use hookturn_core::message::{EventType, Message};
use hookturn_core::store::Page;
use hookturn_core::time::Timestamp;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Ids, Publish, Read};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::JsonBody;
use super::super::page::{PageView, Query};
use super::super::problem::{Code, Problem};
use super::super::schema;
use super::page_answer;
use crate::service::messages::NewMessageInput;

/// A message to publish.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct NewMessage<'a> {
    /// What happened.
    #[serde(borrow)]
    #[schema(value_type = schema::EventTypeText)]
    event_type: Cow<'a, str>,
    /// Any JSON value, at most 256 KiB, that receivers can read: at most 62 arrays and objects deep,
    /// numbers within the range of a double, no half surrogates. Its bytes are delivered as they are sent.
    #[serde(borrow)]
    #[schema(value_type = schema::AnyJson)]
    payload: &'a RawValue,
    /// The publisher's own id of the event.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    event_id: Option<Cow<'a, str>>,
}

/// Messages to publish, all or none.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct NewMessages<'a> {
    /// Them, in order.
    #[serde(borrow)]
    #[schema(value_type = Vec<NewMessage<'static>>, min_items = 1, max_items = 1000)]
    messages: Vec<NewMessage<'a>>,
}

/// A message that was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Accepted {
    /// Its id.
    #[schema(value_type = schema::MessageIdText)]
    id: MessageId,
}

/// Messages that were accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct AcceptedBatch<'a> {
    /// Their ids, in the order they were given.
    #[schema(value_type = Vec<schema::MessageIdText>)]
    ids: &'a [MessageId],
}

/// An accepted event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Message)]
pub(in crate::api) struct MessageView {
    /// Its id.
    #[schema(value_type = schema::MessageIdText)]
    id: MessageId,
    /// The app it was published to.
    #[schema(value_type = schema::ClientIdText)]
    client_id: ClientId,
    /// What happened.
    #[schema(value_type = schema::EventTypeText)]
    event_type: EventType,
    /// The publisher's own id of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    /// When it was accepted.
    #[schema(value_type = schema::TimeText)]
    accepted_at: Timestamp,
    /// Its bytes as published. Absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = schema::AnyJson, required = false)]
    payload: Option<Box<RawValue>>,
}

impl MessageView {
    fn new(message: &Message) -> Self {
        Self {
            id: message.id,
            client_id: message.app,
            event_type: message.event_type.clone(),
            event_id: message.event_id.clone(),
            accepted_at: message.accepted_at,
            payload: None,
        }
    }

    fn with_payload(message: &Message) -> Result<Self, Problem> {
        let text = String::from_utf8(message.payload.to_vec()).map_err(Problem::internal)?;
        Ok(Self {
            payload: Some(RawValue::from_string(text).map_err(Problem::internal)?),
            ..Self::new(message)
        })
    }
}

/// Checks a message whose JSON is fine; `pointer` is where it stands in `body`.
fn input(body: &Bytes, asked: NewMessage<'_>, pointer: &str) -> Result<NewMessageInput, Problem> {
    let event_type = EventType::new(&asked.event_type)
        .map_err(|error| Problem::field(format!("{pointer}/eventType"), error.to_string()))?;
    let payload = asked.payload.get();
    if payload.len() > limits::PAYLOAD_BYTES {
        let detail = format!("a payload has at most {} bytes", limits::PAYLOAD_BYTES);
        let problem = Problem::new(Code::TooLarge, "nothing was stored: a payload is too large");
        return Err(problem.at(format!("{pointer}/payload"), detail));
    }
    Ok(NewMessageInput {
        event_type,
        payload: body.slice_ref(payload.as_bytes()),
        event_id: asked.event_id.map(Cow::into_owned),
    })
}

/// Publish a message.
#[utoipa::path(post, path = "/v1/apps/{clientId}/messages", tag = "Messages", operation_id = "publish",
    request_body = NewMessage<'static>,
    responses((status = 202, description = "Stored durably; it will be delivered or visibly exhausted.", body = Accepted)))]
pub(in crate::api) async fn publish(
    State(api): State<ApiState>,
    call: Call<Publish>,
    Ids(app): Ids<ClientId>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let input = input(&body.bytes, body.parse()?, "")?;
    let render = |id: &MessageId| Answer::json(StatusCode::ACCEPTED, &Accepted { id: *id });
    let record = |id: &MessageId| render(id).to_bytes();
    let id = api
        .service
        .publish(&call.caller, app, input, once.record(&record))
        .await;
    let id = once.settle(&api.service, id).await?;
    api.metrics.accepted(1);
    Ok(render(&id))
}

/// Publish many messages, all or none.
#[utoipa::path(post, path = "/v1/apps/{clientId}/messages/batch", tag = "Messages", operation_id = "publishBatch",
    request_body = NewMessages<'static>,
    responses((status = 202, description = "All stored durably.", body = AcceptedBatch<'static>)))]
pub(in crate::api) async fn publish_batch(
    State(api): State<ApiState>,
    call: Call<Publish>,
    Ids(app): Ids<ClientId>,
    body: JsonBody<{ limits::BATCH_BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: NewMessages<'_> = body.parse()?;
    if !(1..=limits::BATCH_MESSAGES).contains(&asked.messages.len()) {
        let detail = format!("expected 1 to {} messages", limits::BATCH_MESSAGES);
        return Err(Problem::field("/messages", detail).into());
    }
    let inputs: Result<Vec<_>, _> = (0..)
        .zip(asked.messages)
        .map(|(index, asked): (usize, _)| input(&body.bytes, asked, &format!("/messages/{index}")))
        .collect();
    let render = |ids: &Vec<MessageId>| Answer::json(StatusCode::ACCEPTED, &AcceptedBatch { ids });
    let record = |ids: &Vec<MessageId>| render(ids).to_bytes();
    let ids = api
        .service
        .publish_batch(&call.caller, app, inputs?, once.record(&record))
        .await;
    let ids = once.settle(&api.service, ids).await?;
    api.metrics.accepted(ids.len());
    Ok(render(&ids))
}

const LIST: &str = "messages";

/// List an app's messages, newest first, without their payloads.
#[utoipa::path(get, path = "/v1/apps/{clientId}/messages", tag = "Messages", operation_id = "listMessages",
    params(
        ("since" = Option<schema::TimeText>, Query, description = "Accepted at or after this time."),
        ("until" = Option<schema::TimeText>, Query, description = "Accepted before this time."),
    ),
    responses((status = 200, description = "A page.", body = PageView<MessageView>)))]
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
    let (since, until) = query.take_span()?;
    let uri = query.finish()?;
    let listed = api
        .service
        .messages(&call.caller, app, since, until, page)
        .await?;
    Ok(page_answer(listed, LIST, &uri, |message| {
        (message.id, MessageView::new(&message))
    }))
}

/// Get a message with its payload.
#[utoipa::path(get, path = "/v1/apps/{clientId}/messages/{messageId}", tag = "Messages", operation_id = "getMessage",
    responses((status = 200, description = "The message.", body = MessageView)))]
pub(in crate::api) async fn get(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids((app, id)): Ids<(ClientId, MessageId)>,
) -> Outcome {
    let message = api.service.message(&call.caller, app, id).await?;
    Ok(Answer::ok(&MessageView::with_payload(&message)?))
}

//! The outbox: what applications published in their own transactions and could not be accepted.

use axum::extract::State;
use hookturn_core::id::WorkspaceId;
use hookturn_core::limits;
use hookturn_core::store::Page;
use hookturn_core::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::ApiState;
use super::super::auth::{Call, Ids, Manage, Read};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, Nothing};
use super::super::page::{PageView, Query};
use super::super::problem::Problem;
use super::super::schema;
use super::page_answer;
use crate::service::ServiceError;
use crate::service::outbox::Refused;

/// An event that could not become a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RefusedEvent)]
pub(in crate::api) struct RefusedView {
    /// Its id, which `hookturn.publish` returned.
    #[schema(value_type = schema::RefusedEventIdText)]
    id: String,
    /// The workspace of the app.
    #[schema(value_type = schema::WorkspaceIdText)]
    workspace_id: WorkspaceId,
    /// The app, as it was given.
    client_id: String,
    /// What happened, as it was given.
    event_type: String,
    /// The publisher's own id of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    /// The size of its payload.
    payload_bytes: u64,
    /// When it was published.
    #[schema(value_type = schema::TimeText)]
    published_at: Timestamp,
    /// When it was refused.
    #[schema(value_type = schema::TimeText)]
    refused_at: Timestamp,
    /// Why, in a sentence.
    reason: String,
}

impl RefusedView {
    fn new(refused: Refused) -> Self {
        Self {
            id: refused.place.id.to_string(),
            workspace_id: refused.workspace,
            client_id: refused.app,
            event_type: refused.event_type,
            event_id: refused.event_id,
            payload_bytes: refused.payload_bytes,
            published_at: refused.published_at,
            refused_at: Timestamp::from_millis(refused.place.micros / 1_000),
            reason: refused.reason,
        }
    }
}

const LIST: &str = "outbox-refused";

/// The id in a path. One that cannot be an id names nothing: 404.
fn event_of(text: &str) -> Result<Uuid, Problem> {
    text.parse()
        .map_err(|_| Problem::from(ServiceError::not_found("refused event")))
}

/// List the events of the outbox that could not become messages, the last first, of all workspaces. Operators only.
///
/// They are kept until the retention is over. Payloads are not shown.
#[utoipa::path(get, path = "/v1/outbox/refused", tag = "Outbox", operation_id = "listRefusedEvents",
    responses((status = 200, description = "A page.", body = PageView<RefusedView>)))]
pub(in crate::api) async fn list(
    State(api): State<ApiState>,
    call: Call<Read>,
    mut query: Query,
) -> Outcome {
    let page = Page {
        before: query.take_cursor(LIST)?,
        limit: query.take_limit()?,
    };
    let uri = query.finish()?;
    let listed = api.service.refused_events(&call.caller, page).await?;
    Ok(page_answer(listed, LIST, &uri, |refused| {
        (refused.place, RefusedView::new(refused))
    }))
}

/// Publish a refused event again, when what it was refused for is mended. Operators only.
///
/// It is looked at as if it were published now, behind what waits: if it is refused again, it is in the list again.
/// Sending it twice publishes it once: the second is answered 404, unless it has the first one's idempotency key.
#[utoipa::path(post, path = "/v1/outbox/refused/{refusedEventId}/retry", tag = "Outbox",
    operation_id = "retryRefusedEvent",
    responses((status = 204, description = "It waits in the outbox.")))]
pub(in crate::api) async fn retry(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids(event): Ids<String>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let _: Nothing = body.parse_or_default()?;
    let event = event_of(&event)?;
    api.service.retry_refused(&call.caller, event).await?;
    let record = |&(): &()| Answer::no_content().to_bytes();
    // Not one step with the change: one that is broken off in between is answered 404 when it is repeated.
    let kept = api
        .service
        .keep_answer(&call.caller, (), once.record(&record));
    once.settle(&api.service, kept.await).await?;
    Ok(Answer::no_content())
}

/// Remove a refused event, with its payload. Operators only.
#[utoipa::path(delete, path = "/v1/outbox/refused/{refusedEventId}", tag = "Outbox",
    operation_id = "dropRefusedEvent",
    responses((status = 204, description = "Removed.")))]
pub(in crate::api) async fn drop(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids(event): Ids<String>,
) -> Outcome {
    let event = event_of(&event)?;
    api.service.drop_refused(&call.caller, event).await?;
    Ok(Answer::no_content())
}

//! The event types that were published in a workspace.

use axum::extract::State;
use hookturn_core::message::EventType;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Read};
use super::super::idempotency::Outcome;
use super::super::page::{PageView, Query};
use super::super::schema;
use super::page_answer;
use crate::service::page::Listed;

/// An event type that was published.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PublishedEventType)]
pub(in crate::api) struct EventTypeView {
    /// Its text.
    #[schema(value_type = schema::EventTypeText)]
    name: EventType,
}

const LIST: &str = "event-types";

/// List the event types that were published, sorted.
#[utoipa::path(get, path = "/v1/event-types", tag = "Messages", operation_id = "listEventTypes",
    responses((status = 200, description = "A page.", body = PageView<EventTypeView>)))]
pub(in crate::api) async fn list(
    State(api): State<ApiState>,
    call: Call<Read>,
    mut query: Query,
) -> Outcome {
    let after: Option<String> = query.take_cursor(LIST)?;
    let limit = query.take_limit()?;
    let uri = query.finish()?;
    let types = api.service.event_types(&call.caller).await?;
    let mut items: Vec<_> = types
        .into_iter()
        .filter(|name| after.as_deref().is_none_or(|after| name.as_str() > after))
        .take(limit + 1)
        .collect();
    let has_more = items.len() > limit;
    items.truncate(limit);
    Ok(page_answer(
        Listed { items, has_more },
        LIST,
        &uri,
        |name: EventType| (name.as_str().to_owned(), EventTypeView { name }),
    ))
}

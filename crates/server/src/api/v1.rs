//! The resources of `/v1`, one module each: what is asked, what is shown, and the handlers.

use std::fmt::Display;

use axum::Router;
use axum::routing::{delete, get, patch, post};
use serde::Serialize;
use utoipa::OpenApi;

use super::ApiState;
use super::idempotency::Answer;
use super::page::{ListUri, PageView, cursor};
use crate::service::page::Listed;

mod api_keys;
mod apps;
mod audit;
mod bulk;
mod deliveries;
mod endpoints;
mod event_types;
mod keyrings;
mod leaks;
mod master_key;
mod messages;
mod outbox;
mod probe;
mod proving;
mod released;
mod rotations;
mod schedules;
mod workspaces;

/// The routes, as they are served.
#[expect(clippy::too_many_lines, reason = "a table: one entry for each path")]
pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/v1/apps", post(apps::create).get(apps::list))
        .route(
            "/v1/apps/{clientId}",
            get(apps::get).patch(apps::patch).delete(apps::delete),
        )
        .route(
            "/v1/apps/{clientId}/endpoints",
            post(endpoints::create).get(endpoints::list),
        )
        .route(
            "/v1/apps/{clientId}/endpoints/{endpointId}",
            get(endpoints::get)
                .patch(endpoints::patch)
                .delete(endpoints::delete),
        )
        .route(
            "/v1/apps/{clientId}/endpoints/{endpointId}/test",
            post(endpoints::test),
        )
        .route(
            "/v1/apps/{clientId}/endpoints/{endpointId}/recover",
            post(deliveries::recover),
        )
        .route(
            "/v1/apps/{clientId}/messages",
            post(messages::publish).get(messages::list),
        )
        .route(
            "/v1/apps/{clientId}/messages/batch",
            post(messages::publish_batch),
        )
        .route(
            "/v1/apps/{clientId}/messages/{messageId}",
            get(messages::get),
        )
        .route("/v1/apps/{clientId}/deliveries", get(deliveries::list))
        .route("/v1/deliveries/{deliveryId}", get(deliveries::get))
        .route("/v1/deliveries/{deliveryId}/retry", post(deliveries::retry))
        .route("/v1/keyrings/{keyringId}", get(keyrings::get))
        .route(
            "/v1/keyrings/{keyringId}/secrets",
            post(keyrings::create_secret).get(keyrings::list_secrets),
        )
        .route(
            "/v1/keyrings/{keyringId}/secrets/{secretId}/activate",
            post(keyrings::activate),
        )
        .route(
            "/v1/keyrings/{keyringId}/secrets/{secretId}/reveal",
            post(keyrings::reveal),
        )
        .route(
            "/v1/keyrings/{keyringId}/secrets/{secretId}/compromise",
            post(keyrings::compromise),
        )
        .route("/v1/keyrings/{keyringId}/rotations", post(rotations::open))
        .route("/v1/rotations", get(rotations::list))
        .route("/v1/rotations/{rotationId}", get(rotations::get))
        .route(
            "/v1/rotations/{rotationId}/promote",
            post(rotations::promote),
        )
        .route("/v1/rotations/{rotationId}/extend", post(rotations::extend))
        .route("/v1/rotations/{rotationId}/undo", post(rotations::undo))
        .route("/v1/rotations/{rotationId}/finish", post(rotations::finish))
        .route("/v1/rotations/{rotationId}/cancel", post(rotations::cancel))
        .route(
            "/v1/endpoints/{endpointId}/rehearse",
            post(proving::rehearse),
        )
        .route("/v1/endpoints/{endpointId}/probes", get(proving::probes))
        .route("/v1/rotations/{rotationId}/released", post(released::ask))
        .route("/v1/bulk-rotations", post(bulk::start).get(bulk::list))
        .route("/v1/bulk-rotations/{bulkId}", get(bulk::get))
        .route("/v1/bulk-rotations/{bulkId}/items", get(bulk::items))
        .route("/v1/bulk-rotations/{bulkId}/pause", post(bulk::pause))
        .route("/v1/bulk-rotations/{bulkId}/resume", post(bulk::resume))
        .route("/v1/bulk-rotations/{bulkId}/cancel", post(bulk::cancel))
        .route("/v1/leaks/search", post(leaks::search))
        .route(
            "/v1/schedules",
            post(schedules::create).get(schedules::list),
        )
        .route(
            "/v1/schedules/{scheduleId}",
            get(schedules::get)
                .patch(schedules::patch)
                .delete(schedules::delete),
        )
        .route("/v1/audit", get(audit::list))
        .route("/v1/event-types", get(event_types::list))
        .route(
            "/v1/workspaces",
            post(workspaces::create).get(workspaces::list),
        )
        .route(
            "/v1/workspaces/{workspaceId}",
            get(workspaces::get).patch(workspaces::patch),
        )
        .route("/v1/api-keys", post(api_keys::create).get(api_keys::list))
        .route(
            "/v1/api-keys/{apiKeyId}",
            patch(api_keys::expire).delete(api_keys::revoke),
        )
        .route("/v1/master-key/rotate", post(master_key::rotate))
        .route("/v1/outbox/refused", get(outbox::list))
        .route(
            "/v1/outbox/refused/{refusedEventId}/retry",
            post(outbox::retry),
        )
        .route("/v1/outbox/refused/{refusedEventId}", delete(outbox::drop))
}

/// What their handlers say about themselves.
#[derive(OpenApi)]
#[openapi(paths(
    apps::create,
    apps::list,
    apps::get,
    apps::patch,
    apps::delete,
    endpoints::create,
    endpoints::list,
    endpoints::get,
    endpoints::patch,
    endpoints::delete,
    endpoints::test,
    deliveries::recover,
    messages::publish,
    messages::list,
    messages::publish_batch,
    messages::get,
    deliveries::list,
    deliveries::get,
    deliveries::retry,
    keyrings::get,
    keyrings::create_secret,
    keyrings::list_secrets,
    keyrings::activate,
    keyrings::reveal,
    keyrings::compromise,
    rotations::open,
    rotations::list,
    rotations::get,
    rotations::promote,
    rotations::extend,
    rotations::undo,
    rotations::finish,
    rotations::cancel,
    proving::rehearse,
    proving::probes,
    released::ask,
    bulk::start,
    bulk::list,
    bulk::get,
    bulk::items,
    bulk::pause,
    bulk::resume,
    bulk::cancel,
    leaks::search,
    schedules::create,
    schedules::list,
    schedules::get,
    schedules::patch,
    schedules::delete,
    audit::list,
    event_types::list,
    workspaces::create,
    workspaces::list,
    workspaces::get,
    workspaces::patch,
    api_keys::create,
    api_keys::list,
    api_keys::expire,
    api_keys::revoke,
    master_key::rotate,
    outbox::list,
    outbox::retry,
    outbox::drop,
))]
struct Described;

/// The same routes, as they are described: made only when somebody asks, for it takes more memory than they do.
pub(super) fn described() -> utoipa::openapi::OpenApi {
    Described::openapi()
}

/// The answer to a list: `form` gives each item's place in the list and its form.
fn page_answer<T, P: Display, V: Serialize>(
    listed: Listed<T>,
    list: &str,
    uri: &ListUri,
    form: impl FnMut(T) -> (P, V),
) -> Answer {
    let (places, data): (Vec<P>, Vec<V>) = listed.items.into_iter().map(form).unzip();
    let next_cursor = match places.last() {
        Some(end) if listed.has_more => Some(cursor(list, end)),
        Some(_) | None => None,
    };
    let link = next_cursor.as_deref().map(|cursor| uri.next_link(cursor));
    Answer::ok(&PageView {
        data,
        has_more: listed.has_more,
        next_cursor,
    })
    .link(link)
}

//! The resources of `/v1`, one module each: what is asked, what is shown, and the handlers.

use std::fmt::Display;

use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

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

/// The routes.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(apps::create, apps::list))
        .routes(routes!(apps::get, apps::patch, apps::delete))
        .routes(routes!(endpoints::create, endpoints::list))
        .routes(routes!(endpoints::get, endpoints::patch, endpoints::delete))
        .routes(routes!(endpoints::test))
        .routes(routes!(deliveries::recover))
        .routes(routes!(messages::publish, messages::list))
        .routes(routes!(messages::publish_batch))
        .routes(routes!(messages::get))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::get))
        .routes(routes!(deliveries::retry))
        .routes(routes!(keyrings::get))
        .routes(routes!(keyrings::create_secret, keyrings::list_secrets))
        .routes(routes!(keyrings::activate))
        .routes(routes!(keyrings::reveal))
        .routes(routes!(keyrings::compromise))
        .routes(routes!(rotations::open))
        .routes(routes!(rotations::list))
        .routes(routes!(rotations::get))
        .routes(routes!(rotations::promote))
        .routes(routes!(rotations::extend))
        .routes(routes!(rotations::undo))
        .routes(routes!(rotations::finish))
        .routes(routes!(rotations::cancel))
        .routes(routes!(proving::rehearse))
        .routes(routes!(proving::probes))
        .routes(routes!(released::ask))
        .routes(routes!(bulk::start, bulk::list))
        .routes(routes!(bulk::get))
        .routes(routes!(bulk::items))
        .routes(routes!(bulk::pause))
        .routes(routes!(bulk::resume))
        .routes(routes!(bulk::cancel))
        .routes(routes!(leaks::search))
        .routes(routes!(schedules::create, schedules::list))
        .routes(routes!(schedules::get, schedules::patch, schedules::delete))
        .routes(routes!(audit::list))
        .routes(routes!(event_types::list))
        .routes(routes!(workspaces::create, workspaces::list))
        .routes(routes!(workspaces::get, workspaces::patch))
        .routes(routes!(api_keys::create, api_keys::list))
        .routes(routes!(api_keys::expire, api_keys::revoke))
        .routes(routes!(master_key::rotate))
        .routes(routes!(outbox::list))
        .routes(routes!(outbox::retry))
        .routes(routes!(outbox::drop))
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

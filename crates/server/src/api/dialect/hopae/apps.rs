//! Apps, each with its webhook configuration.

use std::ops::RangeInclusive;

use axum::extract::State;
use hookturn_core::id::ClientId;
use hookturn_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::super::ApiState;
use super::super::super::auth::{Call, Ids, Manage, Read};
use super::super::super::idempotency::{Answer, Outcome};
use super::super::super::json::Object;
use super::super::super::page::Query;
use super::super::super::problem::{Problem, looks_secret};
use super::super::super::schema;
use super::BASE;
use super::body::Body;
use super::config::{ConfigView, PatchConfig};
use crate::service::endpoints::{ConfiguredApp, ConfiguredAppPatch};

/// Apps on one page when `limit` is not given.
const LIMIT_DEFAULT: usize = 20;
const LIMITS: RangeInclusive<usize> = 1..=100;
const OFFSETS: RangeInclusive<usize> = 0..=2_147_483_647;
/// Longest value of a query parameter that an error repeats, in characters.
const VALUE_CHARS: usize = 64;

/// An app to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateApp {
    /// For people.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    name: String,
}

/// What to change of an app. What is absent or `null` stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PatchApp {
    /// For people.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    name: Option<String>,
    /// Its webhook configuration; what is absent in it stays as well.
    #[schema(value_type = Option<PatchConfig>)]
    webhook_config: Option<Object<PatchConfig>>,
}

/// An app.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = App)]
pub(super) struct AppView {
    /// For people.
    name: String,
    /// Its id: 8 letters and digits.
    #[schema(value_type = schema::ClientIdText)]
    client_id: ClientId,
    /// Where and how its events are delivered.
    webhook_config: ConfigView,
    /// When it was made.
    #[schema(value_type = schema::TimeText)]
    created_at: Timestamp,
    /// When it or its webhook configuration last changed.
    #[schema(value_type = schema::TimeText)]
    updated_at: Timestamp,
}

impl AppView {
    fn new(configured: &ConfiguredApp) -> Self {
        let app = &configured.app;
        let primary = configured.primary.as_deref();
        Self {
            name: app.name.clone(),
            client_id: app.id,
            webhook_config: ConfigView::new(primary),
            created_at: app.created_at,
            updated_at: primary.map_or(app.updated_at, |e| e.updated_at.max(app.updated_at)),
        }
    }
}

/// Some of the apps.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AppPage)]
pub(super) struct PageView {
    /// The apps, newest first.
    #[schema(max_items = 100)]
    data: Vec<AppView>,
    /// How many apps there are.
    total: usize,
    /// How many were asked for.
    #[schema(minimum = 1, maximum = 100)]
    limit: usize,
    /// How many newer ones were passed over.
    offset: usize,
}

/// Make an app. It has a secret from the start, and no URL yet.
#[utoipa::path(post, path = "/connect/v1/apps", tag = "Apps", operation_id = "createApp",
    request_body = CreateApp,
    responses((status = 201, description = "Made.", body = AppView)))]
pub(super) async fn create(State(api): State<ApiState>, call: Call<Manage>, body: Body) -> Outcome {
    let once = call.once(&api, &body.0).await?;
    let asked: CreateApp = body.parse()?;
    let render = |made: &ConfiguredApp| {
        Answer::created(format!("{BASE}/apps/{}", made.app.id), &AppView::new(made))
    };
    let record = |made: &ConfiguredApp| render(made).to_bytes();
    let made = api
        .service
        .create_configured_app(&call.caller, asked.name, once.record(&record))
        .await;
    Ok(render(&once.settle(&api.service, made).await?))
}

/// List apps, newest first.
#[utoipa::path(get, path = "/connect/v1/apps", tag = "Apps", operation_id = "listApps",
    responses((status = 200, description = "Some of the apps.", body = PageView)))]
pub(super) async fn list(
    State(api): State<ApiState>,
    call: Call<Read>,
    mut query: Query,
) -> Outcome {
    let limit = take(&mut query, "limit", LIMITS)?.unwrap_or(LIMIT_DEFAULT);
    let offset = take(&mut query, "offset", OFFSETS)?.unwrap_or_default();
    query.finish()?;
    let (apps, total) = api
        .service
        .configured_apps(&call.caller, offset, limit)
        .await?;
    Ok(Answer::ok(&PageView {
        data: apps.iter().map(AppView::new).collect(),
        total,
        limit,
        offset,
    }))
}

/// A whole number of the query.
fn take(
    query: &mut Query,
    name: &'static str,
    range: RangeInclusive<usize>,
) -> Result<Option<usize>, Problem> {
    let Some(text) = query.take::<String>(name, "a whole number")? else {
        return Ok(None);
    };
    if let Some(number) = text.parse().ok().filter(|number| range.contains(number)) {
        return Ok(Some(number));
    }
    let (least, most) = (range.start(), range.end());
    let expected = format!("expected a whole number from {least} to {most}");
    let problem = Problem::parameter(name, expected);
    if looks_secret(&text) || text.chars().count() > VALUE_CHARS {
        return Err(problem);
    }
    Err(problem.with("value", text))
}

/// Get an app.
#[utoipa::path(get, path = "/connect/v1/apps/{clientId}", tag = "Apps", operation_id = "getApp",
    responses((status = 200, description = "The app.", body = AppView)))]
pub(super) async fn get(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(id): Ids<ClientId>,
) -> Outcome {
    let app = api.service.configured_app(&call.caller, id).await?;
    Ok(Answer::ok(&AppView::new(&app)))
}

/// Change an app and its webhook configuration.
#[utoipa::path(patch, path = "/connect/v1/apps/{clientId}", tag = "Apps", operation_id = "updateApp",
    request_body = PatchApp,
    responses((status = 200, description = "As it is now.", body = AppView)))]
pub(super) async fn patch(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids(id): Ids<ClientId>,
    body: Body,
) -> Outcome {
    let asked: PatchApp = body.parse()?;
    let patch = ConfiguredAppPatch {
        name: asked.name,
        webhook_config: asked.webhook_config.map(|asked| asked.0.into()),
    };
    let patched = api.service.patch_configured_app(&call.caller, id, patch);
    let app = patched.await.map_err(|error| body.locate(error))?;
    Ok(Answer::ok(&AppView::new(&app)))
}

/// Delete an app, its webhooks and their secrets.
#[utoipa::path(delete, path = "/connect/v1/apps/{clientId}", tag = "Apps", operation_id = "deleteApp",
    responses((status = 200, description = "Deleted; this is what it was.", body = AppView)))]
pub(super) async fn delete(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids(id): Ids<ClientId>,
) -> Outcome {
    let was = api.service.delete_configured_app(&call.caller, id).await?;
    Ok(Answer::ok(&AppView::new(&was)))
}

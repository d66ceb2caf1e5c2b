//! Apps: the consumers of webhooks in a workspace.

use std::collections::BTreeMap;

use axum::extract::State;
use hookturn_core::id::{ClientId, EndpointId};
use hookturn_core::limits;
use hookturn_core::store::Page;
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::App;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Ids, Manage, Read};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, Whole, given, nullable, reset};
use super::super::page::{PageView, Query};
use super::super::schema;
use super::page_answer;
use crate::service::apps::{AppPatch, AppPlace, NewApp};

/// An app to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct CreateApp {
    /// For people.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    name: String,
    /// Free text pairs, at most 20.
    #[serde(default)]
    #[schema(value_type = schema::Labels)]
    labels: BTreeMap<String, String>,
    /// Overlap of a dialect's rotate call, in seconds; the workspace's without it.
    #[schema(value_type = Option<u32>, maximum = 2_592_000)]
    rotation_overlap_seconds: Option<Whole<u32>>,
    /// Why; kept in the audit log.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

/// What to change of an app. What is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct PatchApp {
    /// For people. It cannot be `null`.
    #[serde(default, deserialize_with = "given")]
    #[schema(
        value_type = String,
        required = false,
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    name: Option<String>,
    /// Free text pairs, as a whole; `null` for none.
    #[serde(default, deserialize_with = "reset")]
    #[schema(value_type = Option<schema::Labels>)]
    labels: Option<BTreeMap<String, String>>,
    /// Overlap of a dialect's rotate call, in seconds; `null` for the workspace's.
    #[expect(
        clippy::option_option,
        reason = "absent, null and a value are three things"
    )]
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>, maximum = 2_592_000)]
    rotation_overlap_seconds: Option<Option<Whole<u32>>>,
    /// Why; kept in the audit log.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

/// A consumer of webhooks.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = App)]
pub(in crate::api) struct AppView {
    /// Its public name in paths, unique in its workspace.
    #[schema(value_type = schema::ClientIdText)]
    client_id: ClientId,
    /// For people.
    name: String,
    /// Free text pairs.
    labels: BTreeMap<String, String>,
    /// Overlap of a dialect's rotate call, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_overlap_seconds: Option<u32>,
    /// The endpoint that is the app's webhook configuration in the Hopae dialect, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::EndpointIdText>)]
    primary_endpoint_id: Option<EndpointId>,
    /// Grows with every change; the ETag.
    version: u64,
    /// When it was made.
    #[schema(value_type = schema::TimeText)]
    created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = schema::TimeText)]
    updated_at: Timestamp,
}

impl AppView {
    fn new(app: &App) -> Self {
        Self {
            client_id: app.id,
            name: app.name.clone(),
            labels: app.labels.clone(),
            rotation_overlap_seconds: app.rotation_overlap_seconds,
            primary_endpoint_id: app.primary_endpoint,
            version: app.version,
            created_at: app.created_at,
            updated_at: app.updated_at,
        }
    }
}

/// Make an app.
#[utoipa::path(post, path = "/v1/apps", tag = "Apps", operation_id = "createApp",
    request_body = CreateApp,
    responses((status = 201, description = "Made.", body = AppView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn create(
    State(api): State<ApiState>,
    call: Call<Manage>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: CreateApp = body.parse()?;
    let caller = call.because(asked.reason.as_deref())?;
    let input = NewApp {
        name: asked.name,
        labels: asked.labels,
        rotation_overlap_seconds: asked.rotation_overlap_seconds.map(Whole::get),
    };
    let render = |app: &App| {
        Answer::created(format!("/v1/apps/{}", app.id), &AppView::new(app)).version(app.version)
    };
    let record = |app: &App| render(app).to_bytes();
    let made = api
        .service
        .create_app(&caller, input, once.record(&record))
        .await;
    Ok(render(&once.settle(&api.service, made).await?))
}

const LIST: &str = "apps";

/// List apps, newest first.
#[utoipa::path(get, path = "/v1/apps", tag = "Apps", operation_id = "listApps",
    responses((status = 200, description = "A page.", body = PageView<AppView>)))]
pub(in crate::api) async fn list(
    State(api): State<ApiState>,
    call: Call<Read>,
    mut query: Query,
) -> Outcome {
    let before = query.take_cursor::<Place>(LIST)?.map(|place| place.0);
    let limit = query.take_limit()?;
    let uri = query.finish()?;
    let listed = api
        .service
        .apps(&call.caller, Page { before, limit })
        .await?;
    Ok(page_answer(listed, LIST, &uri, |app| {
        (Place(AppPlace::of(&app)), AppView::new(&app))
    }))
}

/// The text of an app's place in its list: time and id.
struct Place(AppPlace);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}~{}", self.0.created_at.as_millis(), self.0.id)
    }
}

impl std::str::FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (millis, id) = text.split_once('~').ok_or(())?;
        Ok(Self(AppPlace {
            created_at: Timestamp::from_millis(millis.parse().map_err(drop)?),
            id: id.parse().map_err(drop)?,
        }))
    }
}

/// Get an app.
#[utoipa::path(get, path = "/v1/apps/{clientId}", tag = "Apps", operation_id = "getApp",
    responses((status = 200, description = "The app.", body = AppView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn get(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(id): Ids<ClientId>,
) -> Outcome {
    let app = api.service.app(&call.caller, id).await?;
    Ok(Answer::ok(&AppView::new(&app)).version(app.version))
}

/// Change an app.
#[utoipa::path(patch, path = "/v1/apps/{clientId}", tag = "Apps", operation_id = "patchApp",
    request_body = PatchApp,
    responses((status = 200, description = "As it is now.", body = AppView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn patch(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids(id): Ids<ClientId>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let asked: PatchApp = body.parse()?;
    let caller = call.because(asked.reason.as_deref())?;
    let patch = AppPatch {
        name: asked.name,
        labels: asked.labels,
        rotation_overlap_seconds: asked
            .rotation_overlap_seconds
            .map(|seconds| seconds.map(Whole::get)),
    };
    let app = api
        .service
        .patch_app(&caller, id, patch, call.if_match()?, None)
        .await?;
    Ok(Answer::ok(&AppView::new(&app)).version(app.version))
}

/// Delete an app, its endpoints and their secrets.
#[utoipa::path(delete, path = "/v1/apps/{clientId}", tag = "Apps", operation_id = "deleteApp",
    responses((status = 204, description = "Deleted.")))]
pub(in crate::api) async fn delete(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids(id): Ids<ClientId>,
) -> Outcome {
    api.service
        .delete_app(&call.caller, id, call.if_match()?, None)
        .await?;
    Ok(Answer::no_content())
}

//! Workspaces: customer accounts of the operator.

use std::collections::BTreeMap;

use axum::extract::State;
use hookturn_core::endpoint::{HeaderRenames, Preset};
use hookturn_core::id::{ClientId, KeyringId, WorkspaceId};
use hookturn_core::limits;
use hookturn_core::store::Page;
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{RevealPolicy, Workspace};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Ids, Manage, Read};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, Whole, given, nullable, reset};
use super::super::page::{PageView, Query};
use super::super::schema;
use super::page_answer;
use crate::service::workspaces::WorkspacePatch;

/// A workspace to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct CreateWorkspace {
    /// Unique; used in `Hookturn-Workspace`.
    #[schema(
        max_length = 256,
        pattern = "^[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*$"
    )]
    name: String,
    /// Why; kept in the audit log.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

/// What to change of a workspace. What is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct PatchWorkspace {
    /// Unique; used in `Hookturn-Workspace`. It cannot be `null`.
    #[serde(default, deserialize_with = "given")]
    #[schema(
        value_type = String,
        required = false,
        max_length = 256,
        pattern = "^[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*$"
    )]
    name: Option<String>,
    /// Whether secrets can be revealed; changing it needs the scope `secrets` too. `null` for the default.
    #[serde(default, deserialize_with = "reset")]
    #[schema(value_type = Option<schema::RevealPolicyText>)]
    reveal_secrets: Option<RevealPolicy>,
    /// Other header names, by preset, as a whole; `null` for none.
    #[serde(default, deserialize_with = "reset")]
    #[schema(value_type = Option<BTreeMap<schema::PresetText, HeaderNames>>)]
    header_names: Option<BTreeMap<Preset, HeaderRenames>>,
    /// Overlap of a dialect's rotate call, in seconds; `null` to rotate at once.
    #[expect(
        clippy::option_option,
        reason = "absent, null and a value are three things"
    )]
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>, maximum = 2_592_000)]
    rotation_overlap_seconds: Option<Option<Whole<u32>>>,
    /// The app that receives Hookturn's own events; `null` for none.
    #[expect(
        clippy::option_option,
        reason = "absent, null and a value are three things"
    )]
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<schema::ClientIdText>)]
    operational_app: Option<Option<ClientId>>,
    /// Why; kept in the audit log.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

/// Header names that replace those of a preset. What is absent stays as it is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct HeaderNames {
    /// Instead of `webhook-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256, pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
    id: Option<String>,
    /// Instead of `webhook-timestamp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256, pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
    timestamp: Option<String>,
    /// Instead of the scheme's signature header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256, pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
    signature: Option<String>,
}

/// A customer account of the operator.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Workspace)]
pub(in crate::api) struct WorkspaceView {
    /// Its id.
    #[schema(value_type = schema::WorkspaceIdText)]
    id: WorkspaceId,
    /// Unique among workspaces.
    name: String,
    /// The keyring that endpoints with `keyring: "workspace"` use.
    #[schema(value_type = schema::KeyringIdText)]
    shared_keyring_id: KeyringId,
    /// Whether secrets can be revealed.
    #[schema(value_type = schema::RevealPolicyText)]
    reveal_secrets: RevealPolicy,
    /// Other header names, by preset.
    header_names: BTreeMap<&'static str, HeaderNames>,
    /// Overlap of a dialect's rotate call, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_overlap_seconds: Option<u32>,
    /// The app that receives Hookturn's own events.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::ClientIdText>)]
    operational_app: Option<ClientId>,
    /// Grows with every change; the ETag.
    version: u64,
    /// When it was made.
    #[schema(value_type = schema::TimeText)]
    created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = schema::TimeText)]
    updated_at: Timestamp,
}

impl WorkspaceView {
    fn new(workspace: &Workspace) -> Self {
        let settings = &workspace.settings;
        let names = |renames: &HeaderRenames| HeaderNames {
            id: renames.id.clone(),
            timestamp: renames.timestamp.clone(),
            signature: renames.signature.clone(),
        };
        Self {
            id: workspace.id,
            name: workspace.name.clone(),
            shared_keyring_id: workspace.shared_keyring,
            reveal_secrets: settings.reveal_secrets,
            header_names: settings
                .header_names
                .iter()
                .map(|(preset, renames)| (preset.as_str(), names(renames)))
                .collect(),
            rotation_overlap_seconds: settings.rotation_overlap_seconds,
            operational_app: settings.operational_app,
            version: workspace.version,
            created_at: workspace.created_at,
            updated_at: workspace.updated_at,
        }
    }
}

/// Make a workspace. Operators only.
#[utoipa::path(post, path = "/v1/workspaces", tag = "Access", operation_id = "createWorkspace",
    request_body = CreateWorkspace,
    responses((status = 201, description = "Made.", body = WorkspaceView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn create(
    State(api): State<ApiState>,
    call: Call<Manage>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: CreateWorkspace = body.parse()?;
    let caller = call.because(asked.reason.as_deref())?;
    let render = |made: &Workspace| {
        let place = format!("/v1/workspaces/{}", made.id);
        Answer::created(place, &WorkspaceView::new(made)).version(made.version)
    };
    let record = |made: &Workspace| render(made).to_bytes();
    let made = api
        .service
        .create_workspace(&caller, asked.name, once.record(&record))
        .await;
    Ok(render(&once.settle(&api.service, made).await?))
}

const LIST: &str = "workspaces";

/// List the workspaces that the key reaches, newest first.
#[utoipa::path(get, path = "/v1/workspaces", tag = "Access", operation_id = "listWorkspaces",
    responses((status = 200, description = "A page.", body = PageView<WorkspaceView>)))]
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
    let listed = api.service.workspaces(&call.caller, page).await?;
    Ok(page_answer(listed, LIST, &uri, |workspace| {
        (workspace.id, WorkspaceView::new(&workspace))
    }))
}

/// Get a workspace, by its id or its name.
#[utoipa::path(get, path = "/v1/workspaces/{workspaceId}", tag = "Access", operation_id = "getWorkspace",
    responses((status = 200, description = "The workspace.", body = WorkspaceView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn get(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(called): Ids<String>,
) -> Outcome {
    let id = api.service.workspace_called(&called)?;
    let workspace = api.service.workspace(&call.caller, id).await?;
    Ok(Answer::ok(&WorkspaceView::new(&workspace)).version(workspace.version))
}

/// Change a workspace, by its id or its name.
#[utoipa::path(patch, path = "/v1/workspaces/{workspaceId}", tag = "Access", operation_id = "patchWorkspace",
    request_body = PatchWorkspace,
    responses((status = 200, description = "As it is now.", body = WorkspaceView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn patch(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids(called): Ids<String>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let asked: PatchWorkspace = body.parse()?;
    let caller = call.because(asked.reason.as_deref())?;
    let id = api.service.workspace_called(&called)?;
    let patch = WorkspacePatch {
        name: asked.name,
        reveal_secrets: asked.reveal_secrets,
        header_names: asked.header_names,
        rotation_overlap_seconds: asked
            .rotation_overlap_seconds
            .map(|seconds| seconds.map(Whole::get)),
        operational_app: asked.operational_app,
    };
    let workspace = api
        .service
        .patch_workspace(&caller, id, patch, call.if_match()?, None)
        .await?;
    Ok(Answer::ok(&WorkspaceView::new(&workspace)).version(workspace.version))
}

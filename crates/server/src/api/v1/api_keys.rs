//! API keys: made, listed, revoked. The text of a key is in the answer that makes it and nowhere
//! else.

use axum::extract::State;
use hookturn_core::id::{ApiKeyId, WorkspaceId};
use hookturn_core::limits;
use hookturn_core::store::Page;
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{ApiKey, Environment, Reach, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Ids, Manage};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, or_default};
use super::super::page::{PageView, Query};
use super::super::schema;
use super::page_answer;
use crate::service::api_keys::{ListedKey, NewApiKey, NewKey, NewReach};

/// A key to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct CreateApiKey {
    /// For people.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    name: String,
    /// What it may do; never more than the key that makes it.
    #[schema(value_type = Vec<schema::ScopeText>, min_items = 1, max_items = 4)]
    scopes: Vec<Scope>,
    /// What it reaches: this workspace without it.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(value_type = Option<schema::ReachText>)]
    reach: ReachWord,
    /// A word in its text.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(value_type = Option<schema::EnvironmentText>)]
    environment: Environment,
    /// From when on it is refused.
    #[schema(value_type = Option<schema::TimeText>)]
    expires_at: Option<Timestamp>,
    /// Why; kept in the audit log.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum ReachWord {
    Operator,
    #[default]
    Workspace,
}

/// An API key, never its text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKey)]
pub(in crate::api) struct ApiKeyView {
    /// Its id, safe to show and log.
    #[schema(value_type = schema::ApiKeyIdText)]
    id: ApiKeyId,
    /// For people.
    name: String,
    /// What it reaches.
    #[schema(value_type = schema::ReachText)]
    reach: ReachWord,
    /// The workspace it reaches, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::WorkspaceIdText>)]
    workspace_id: Option<WorkspaceId>,
    /// The word in its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::EnvironmentText>)]
    environment: Option<Environment>,
    /// What it may do.
    #[schema(value_type = Vec<schema::ScopeText>)]
    scopes: Vec<Scope>,
    /// The last four characters of its text.
    hint: String,
    /// When it was made.
    #[schema(value_type = schema::TimeText)]
    created_at: Timestamp,
    /// From when on it is refused, if it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    expires_at: Option<Timestamp>,
    /// When it was revoked, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    revoked_at: Option<Timestamp>,
    /// When it was last used, about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    last_used_at: Option<Timestamp>,
}

impl ApiKeyView {
    fn new(key: &ApiKey, last_used_at: Option<Timestamp>) -> Self {
        let (reach, workspace_id, environment) = match key.reach {
            Reach::Operator => (ReachWord::Operator, None, None),
            Reach::Workspace {
                workspace,
                environment,
            } => (ReachWord::Workspace, Some(workspace), Some(environment)),
        };
        Self {
            id: key.id,
            name: key.name.clone(),
            reach,
            workspace_id,
            environment,
            scopes: key.scopes.iter().collect(),
            hint: key.hint.clone(),
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            last_used_at,
        }
    }
}

/// When a key ends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct ExpireApiKey {
    /// From when on it is refused; in the future, and not after the end of the key that asks.
    #[schema(value_type = schema::TimeText)]
    expires_at: Timestamp,
    /// Why.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

/// A new API key with its text.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct NewApiKeyView {
    /// The key as it is listed from now on.
    #[serde(flatten)]
    details: ApiKeyView,
    /// Its text, shown this once. Store it like a password.
    #[schema(example = "sk_workspace_test_…")]
    key: String,
}

/// Make a key.
#[utoipa::path(post, path = "/v1/api-keys", tag = "Access", operation_id = "createApiKey",
    request_body = CreateApiKey,
    responses((status = 201, description = "Made; its text is in `key` this once.", body = NewApiKeyView)))]
pub(in crate::api) async fn create(
    State(api): State<ApiState>,
    call: Call<Manage>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: CreateApiKey = body.parse()?;
    let caller = call.because(asked.reason.as_deref())?;
    let input = NewApiKey {
        name: asked.name,
        reach: match asked.reach {
            ReachWord::Operator => NewReach::Operator,
            ReachWord::Workspace => NewReach::Workspace(asked.environment),
        },
        scopes: asked.scopes.into_iter().collect(),
        expires_at: asked.expires_at,
    };
    let render = |made: &NewKey| {
        let view = NewApiKeyView {
            details: ApiKeyView::new(&made.key, None),
            key: made.text.to_string(),
        };
        Answer::created(format!("/v1/api-keys/{}", made.key.id), &view)
    };
    let record = |made: &NewKey| render(made).to_bytes();
    let made = api
        .service
        .create_api_key(&caller, input, once.record(&record))
        .await;
    Ok(render(&once.settle(&api.service, made).await?))
}

const LIST: &str = "api-keys";

/// List keys, newest first. An operator's keys are shown to operators only.
#[utoipa::path(get, path = "/v1/api-keys", tag = "Access", operation_id = "listApiKeys",
    responses((status = 200, description = "A page.", body = PageView<ApiKeyView>)))]
pub(in crate::api) async fn list(
    State(api): State<ApiState>,
    call: Call<Manage>,
    mut query: Query,
) -> Outcome {
    let page = Page {
        before: query.take_cursor(LIST)?,
        limit: query.take_limit()?,
    };
    let uri = query.finish()?;
    let listed = api.service.api_keys(&call.caller, page).await?;
    let view = |key: ListedKey| (key.key.id, ApiKeyView::new(&key.key, key.last_used_at));
    Ok(page_answer(listed, LIST, &uri, view))
}

/// Give a key another end: from then on it is refused.
#[utoipa::path(patch, path = "/v1/api-keys/{apiKeyId}", tag = "Access", operation_id = "expireApiKey",
    request_body = ExpireApiKey,
    responses((status = 200, description = "The key as it is now.", body = ApiKeyView)))]
pub(in crate::api) async fn expire(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids(id): Ids<ApiKeyId>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let asked: ExpireApiKey = body.parse()?;
    let caller = call.because(asked.reason.as_deref())?;
    let changed = api
        .service
        .expire_api_key(&caller, id, asked.expires_at)
        .await?;
    Ok(Answer::ok(&ApiKeyView::new(
        &changed.key,
        changed.last_used_at,
    )))
}

/// Revoke a key: it is refused from now on. Once more changes nothing.
///
/// `manage` is enough, also for a key of the workspace that may do more: nobody gains a right by taking one
/// away, and a key that leaked must die at once.
#[utoipa::path(delete, path = "/v1/api-keys/{apiKeyId}", tag = "Access", operation_id = "revokeApiKey",
    responses((status = 204, description = "Revoked.")))]
pub(in crate::api) async fn revoke(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids(id): Ids<ApiKeyId>,
) -> Outcome {
    api.service.revoke_api_key(&call.caller, id, None).await?;
    Ok(Answer::no_content())
}

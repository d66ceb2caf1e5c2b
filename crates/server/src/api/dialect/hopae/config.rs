//! The webhook configuration of an app, and the rotation of its secret.

use axum::extract::State;
use hookturn_core::endpoint::{Endpoint, EndpointState, Preset};
use hookturn_core::id::ClientId;
use hookturn_core::time::SECOND;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::super::ApiState;
use super::super::super::auth::{Call, Ids, Manage, Read, Secrets};
use super::super::super::idempotency::{Answer, Outcome};
use super::super::super::json::Whole;
use super::super::super::schema;
use super::BASE;
use super::body::Body;
use crate::service::endpoints::{PrimaryConfig, PrimaryPatch, ShownSecret};
use crate::service::keyrings::SecretOnce;

/// Where and how the events of an app are delivered, without the secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookConfig)]
pub(super) struct ConfigView {
    /// Where deliveries go. Absent until it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "uri", max_length = 2048)]
    url: Option<String>,
    /// Whether events are delivered.
    enabled: bool,
    /// Retries after the first attempt: after 1 s, 5 s, 30 s, and 30 s for each further one.
    #[schema(minimum = 0, maximum = 30, default = 3)]
    retry_attempts: usize,
    /// Longest time of one attempt, in seconds.
    #[schema(minimum = 1, maximum = 60, default = 10)]
    timeout_seconds: u64,
    /// Which event types are delivered; all of them when empty.
    #[schema(value_type = Vec<schema::EventFilterText>)]
    events: Vec<String>,
}

impl ConfigView {
    /// What an endpoint is; without one, what a new one would be.
    pub(super) fn new(endpoint: Option<&Endpoint>) -> Self {
        let Some(endpoint) = endpoint else {
            return Self {
                url: None,
                enabled: false,
                retry_attempts: Preset::Hopae.retry().delays_millis.len(),
                timeout_seconds: Preset::Hopae.timeout_millis() / SECOND,
                events: Vec::new(),
            };
        };
        Self {
            url: endpoint.url.as_ref().map(|url| url.as_str().to_owned()),
            enabled: matches!(endpoint.state, EndpointState::Enabled),
            retry_attempts: endpoint.retry.delays_millis.len(),
            // The native API may set parts of a second.
            timeout_seconds: endpoint.timeout_millis.div_ceil(SECOND),
            events: endpoint.events.clone().into(),
        }
    }
}

/// The same with the current secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookConfigWithSecret)]
pub(super) struct ConfigWithSecretView {
    #[serde(flatten)]
    config: ConfigView,
    /// The current secret; `whsec_****` and its last four characters for keys without the scope
    /// `secrets` and where the workspace never shows a secret again. Absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_****abc1")]
    secret: Option<String>,
}

impl ConfigWithSecretView {
    fn new(config: &PrimaryConfig) -> Self {
        Self {
            config: ConfigView::new(config.endpoint.as_deref()),
            secret: config.secret.as_ref().map(|secret| match secret {
                ShownSecret::Value(value) => value.expose().to_owned(),
                ShownSecret::Redacted { last } => format!("whsec_****{last}"),
            }),
        }
    }
}

/// What to change. What is absent or `null` stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PatchWebhookConfig)]
pub(super) struct PatchConfig {
    /// Where deliveries go.
    #[schema(format = "uri", max_length = 2048, pattern = "^https?://")]
    url: Option<String>,
    /// Whether events are delivered. `true` needs a URL.
    enabled: Option<bool>,
    /// Retries after the first attempt.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 30)]
    retry_attempts: Option<Whole<u32>>,
    /// Longest time of one attempt, in seconds.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 60)]
    timeout_seconds: Option<Whole<u32>>,
    /// Which event types are delivered, as a whole; all of them when empty.
    #[schema(value_type = Option<Vec<schema::EventFilterText>>, max_items = 200)]
    events: Option<Vec<String>>,
}

impl From<PatchConfig> for PrimaryPatch {
    fn from(asked: PatchConfig) -> Self {
        Self {
            url: asked.url,
            enabled: asked.enabled,
            retry_attempts: asked.retry_attempts.map(Whole::get),
            timeout_seconds: asked.timeout_seconds.map(Whole::get),
            events: asked.events,
        }
    }
}

/// The webhook configuration of an app, with its current secret.
#[utoipa::path(get, path = "/connect/v1/apps/{clientId}/webhook-config", tag = "Webhooks", operation_id = "getWebhookConfig",
    responses((status = 200, description = "The configuration.", body = ConfigWithSecretView)))]
pub(super) async fn get(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(app): Ids<ClientId>,
) -> Outcome {
    let config = api.service.primary_config(&call.caller, app).await?;
    Ok(Answer::ok(&ConfigWithSecretView::new(&config)))
}

/// Change the webhook configuration of an app.
#[utoipa::path(patch, path = "/connect/v1/apps/{clientId}/webhook-config", tag = "Webhooks", operation_id = "updateWebhookConfig",
    request_body = PatchConfig,
    responses((status = 200, description = "As it is now.", body = ConfigWithSecretView)))]
pub(super) async fn patch(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids(app): Ids<ClientId>,
    body: Body,
) -> Outcome {
    let asked: PatchConfig = body.parse()?;
    let patched = api.service.patch_primary(&call.caller, app, asked.into());
    let config = patched.await.map_err(|error| body.locate(error))?;
    Ok(Answer::ok(&ConfigWithSecretView::new(&config)))
}

/// A new secret.
#[derive(Serialize, ToSchema)]
#[schema(as = RotatedSecret)]
pub(super) struct SecretView<'a> {
    /// It signs every attempt that starts from now on.
    #[schema(pattern = "^whsec_[0-9a-f]{64}$")]
    secret: &'a str,
}

/// Make a new secret, which signs from now on. The body is empty.
///
/// The old secret is retired at once, unless the app or the workspace says
/// `rotationOverlapSeconds`: then both are live for so long, deliveries are signed with the one the
/// receiver holds, and another rotation meanwhile is a conflict that changes nothing.
#[utoipa::path(post, path = "/connect/v1/apps/{clientId}/webhook-config/rotate-secret", tag = "Webhooks", operation_id = "rotateWebhookSecret",
    responses((status = 200, description = "The new secret.", body = SecretView<'static>)))]
pub(super) async fn rotate_secret(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids(app): Ids<ClientId>,
    body: Body,
) -> Outcome {
    let path = format!("{BASE}/apps/{app}/webhook-config/rotate-secret");
    let once = call.once_at(&api, &path, body.canonical()).await?;
    body.must_be_empty()?;
    let render = |once: &SecretOnce| {
        Answer::ok(&SecretView {
            secret: once.value.expose(),
        })
    };
    let record = |once: &SecretOnce| render(once).to_bytes();
    let rotated = api
        .service
        .rotate_primary(&call.caller, app, once.record(&record))
        .await;
    Ok(render(&once.settle(&api.service, rotated).await?))
}

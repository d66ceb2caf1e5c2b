//! `/v1/leaks/search`: which secret a leaked string is.

use axum::extract::State;
use hookturn_core::id::{ClientId, EndpointId, KeyringId, SecretId, WorkspaceId};
use hookturn_core::limits;
use hookturn_core::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Secrets};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::JsonBody;
use super::super::schema;
use super::keyrings::{GivenSecret, SecretView};
use crate::service::leaks::{FoundSecret, LeakFinding, LeakHash, LeakSearch};

/// SHA-256 in a request: 64 lowercase hex digits, and in no other spelling.
#[derive(Debug, Clone, Copy)]
pub(super) struct HashText(pub(super) LeakHash);

impl<'de> Deserialize<'de> for HashText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match hex::decode_to_slice(text.as_bytes(), &mut bytes) {
            Ok(()) if lower => Ok(Self(LeakHash(bytes))),
            Ok(()) | Err(_) => Err(de::Error::custom(
                "expected SHA-256 as 64 lowercase hex digits",
            )),
        }
    }
}

/// Strings that may be secrets. Give hashes where you can: then the strings stay where they are.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct SearchLeaks {
    /// SHA-256 of each string.
    #[serde(default)]
    #[schema(value_type = Vec<schema::LeakHashText>, max_items = 200)]
    hashes: Vec<HashText>,
    /// A string itself; also looked for as the part of a secret after `whsec_` or `whsk_`.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 512)]
    text: Option<GivenSecret>,
    /// Why.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct LeakReport {
    /// How many secrets were found.
    found: usize,
    /// One for each hash, in the order they were given; that of a text comes last.
    data: Vec<LeakView>,
}

/// What was found for one string.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Leak)]
struct LeakView {
    /// SHA-256 of the string.
    #[schema(value_type = schema::LeakHashText)]
    hash: String,
    /// The secrets that are this string; several when it was imported several times.
    secrets: Vec<LeakedSecretView>,
}

/// A secret that is known to somebody who should not know it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LeakedSecret)]
struct LeakedSecretView {
    /// Its id.
    #[schema(value_type = schema::SecretIdText)]
    secret_id: SecretId,
    /// Its keyring.
    #[schema(value_type = schema::KeyringIdText)]
    keyring_id: KeyringId,
    /// Its workspace.
    #[schema(value_type = schema::WorkspaceIdText)]
    workspace_id: WorkspaceId,
    /// The name of the workspace.
    workspace: String,
    /// It as it is listed; nothing when its keyring has forgotten it.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<SecretView>,
    /// What signs with its keyring, the first 20.
    endpoints: Vec<LeakedEndpointView>,
    /// How many endpoints sign with its keyring.
    endpoint_count: usize,
    /// What it means and what to do, in a sentence.
    words: &'static str,
    /// Commands to give next, in order.
    commands: Vec<String>,
}

/// An endpoint that signs with a keyring.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LeakedEndpoint)]
struct LeakedEndpointView {
    /// Its id.
    #[schema(value_type = schema::EndpointIdText)]
    endpoint_id: EndpointId,
    /// Its app.
    #[schema(value_type = schema::ClientIdText)]
    client_id: ClientId,
    /// Where its deliveries go.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl LeakReport {
    fn new(findings: &[LeakFinding], now: Timestamp) -> Self {
        let view = |finding: &LeakFinding| LeakView {
            hash: hex::encode(finding.hash.0),
            secrets: finding
                .found
                .iter()
                .map(|found| LeakedSecretView::new(found, now))
                .collect(),
        };
        Self {
            found: findings.iter().map(|finding| finding.found.len()).sum(),
            data: findings.iter().map(view).collect(),
        }
    }
}

impl LeakedSecretView {
    fn new(found: &FoundSecret, now: Timestamp) -> Self {
        let endpoints = found.endpoints.iter().map(|endpoint| LeakedEndpointView {
            endpoint_id: endpoint.id,
            client_id: endpoint.app,
            url: endpoint.url.as_ref().map(|url| url.url().to_string()),
        });
        Self {
            secret_id: found.id,
            keyring_id: found.keyring,
            workspace_id: found.workspace.id,
            workspace: found.workspace.name.clone(),
            secret: found
                .secret
                .as_ref()
                .map(|secret| SecretView::new(secret, now)),
            endpoints: endpoints.collect(),
            endpoint_count: found.endpoint_count,
            words: found.advice.words,
            commands: found.advice.commands.clone(),
        }
    }
}

/// Find out which secret a leaked string is.
///
/// A workspace's key searches its workspace, an operator's all of them. Retired and destroyed secrets are
/// found too. Each search is in the audit log, found or not; what was searched for is not. One API key may
/// search 100 times at once and once a second in the long run.
#[utoipa::path(post, path = "/v1/leaks/search", tag = "Secrets", operation_id = "searchLeaks",
    request_body = SearchLeaks,
    responses((status = 200, description = "What was found.", body = LeakReport)))]
pub(in crate::api) async fn search(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let _running = call.once(&api, &body.bytes).await?;
    let asked: SearchLeaks = body.parse()?;
    let caller = call.because(asked.reason.as_deref())?;
    let search = LeakSearch {
        hashes: asked.hashes.iter().map(|hash| hash.0).collect(),
        text: asked.text.map(GivenSecret::into_inner),
    };
    let findings = api.service.search_leaks(&caller, search).await?;
    Ok(Answer::ok(&LeakReport::new(&findings, api.service.now())))
}

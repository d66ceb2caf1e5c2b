//! Keyrings and their secrets. Values leave in the answer that made them, and by an audited reveal;
//! everything else shows fingerprints.

use std::fmt;

use axum::extract::State;
use hookturn_core::id::{EndpointId, KeyringId, SecretId};
use hookturn_core::limits;
use hookturn_core::proof::Rehearsed;
use hookturn_core::rotation::{KeyKind, Keyring, KeyringOwner, SecretState, SecretVersion};
use hookturn_core::time::{Millis, SECOND, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::super::ApiState;
use super::super::auth::{Call, Ids, Read, Secrets};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, Whole, Why};
use super::super::page::{PageView, Query};
use super::super::schema;
use super::page_answer;
use super::proving::FindingView;
use super::rotations::RotationView;
use crate::service::keyrings::{ChangedSecret, CreatedSecret, NewSecretInput, SecretOnce};
use crate::service::page::Listed;

/// The value of a secret in a request. Wiped when dropped, and not in `Debug`.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub(super) struct GivenSecret(Zeroizing<String>);

impl From<String> for GivenSecret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl GivenSecret {
    /// For the service.
    pub(super) fn into_inner(self) -> Zeroizing<String> {
        self.0
    }
}

impl fmt::Debug for GivenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenSecret")
    }
}

/// Seconds of the API in milliseconds.
pub(super) fn millis(seconds: Option<Whole<u32>>) -> Option<Millis> {
    seconds.map(|Whole(seconds)| Millis::from(seconds) * SECOND)
}

/// A secret to make or import.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct CreateSecret {
    /// What its owner calls it.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    name: Option<String>,
    /// A value to import; generated without it.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 512,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    secret: Option<GivenSecret>,
    /// How long the old secret stays once this one is activated, in seconds.
    #[schema(value_type = Option<u32>, maximum = 2_592_000)]
    overlap_seconds: Option<Whole<u32>>,
    /// Whether a pending secret may be destroyed to make room.
    #[serde(default)]
    replace_pending: bool,
    /// Why.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

/// How to activate a pending secret.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct ActivateSecret {
    /// How long the old secret stays, in seconds; as its rotation says without it.
    #[schema(value_type = Option<u32>, maximum = 2_592_000)]
    overlap_seconds: Option<Whole<u32>>,
    /// Why.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

/// One version of a signing key, never its value.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Secret)]
pub(in crate::api) struct SecretView {
    /// Its id.
    #[schema(value_type = schema::SecretIdText)]
    id: SecretId,
    /// Counts from 1 in its keyring.
    version: u32,
    /// What its owner calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The first 8 hex digits of SHA-256 of its value.
    #[schema(value_type = schema::FingerprintText)]
    fingerprint: String,
    /// Where it is in its life.
    #[schema(value_type = schema::SecretStatusText)]
    status: &'static str,
    /// When it was made or imported.
    #[schema(value_type = schema::TimeText)]
    created_at: Timestamp,
    /// When it became what it is; for a retiring one, when it stopped being the active one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    since: Option<Timestamp>,
    /// From when on a retiring secret signs no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    retire_at: Option<Timestamp>,
    /// Since when it is known to have leaked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    compromised_at: Option<Timestamp>,
}

impl SecretView {
    pub(super) fn new(secret: &SecretVersion, now: Timestamp) -> Self {
        let (since, retire_at) = match secret.state {
            SecretState::Pending => (None, None),
            SecretState::Active { since } => (Some(since), None),
            SecretState::Retiring { since, retire_at } if now < retire_at => {
                (Some(since), Some(retire_at))
            }
            SecretState::Retiring { retire_at: at, .. }
            | SecretState::Retired { at }
            | SecretState::Destroyed { at } => (Some(at), None),
        };
        Self {
            id: secret.id,
            version: secret.version,
            name: secret.name.clone(),
            fingerprint: secret.fingerprint.to_string(),
            status: secret.status(now).as_str(),
            created_at: secret.created_at,
            since,
            retire_at,
            compromised_at: secret.compromised,
        }
    }
}

/// A secret with its value. It is shown this once; store it like a password.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct SecretWithValue {
    /// The secret as it is listed from now on.
    #[serde(flatten)]
    details: SecretView,
    /// Its value.
    #[schema(example = "whsec_…")]
    value: String,
    /// What receivers verify with, when the key is an Ed25519 one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whpk_…")]
    public_key: Option<String>,
}

impl SecretWithValue {
    pub(super) fn new(once: &SecretOnce, now: Timestamp) -> Self {
        Self {
            details: SecretView::new(&once.secret, now),
            value: once.value.expose().to_owned(),
            public_key: once.value.public_key().map(|key| key.to_string()),
        }
    }
}

/// The answer to making a secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct CreatedSecretView {
    /// The secret, with its value this once.
    #[serde(flatten)]
    secret: SecretWithValue,
    /// The staged rotation that brings it; none for the first secret, which is active at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<RotationView>,
}

/// The secrets that sign for one endpoint or for many.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Keyring)]
pub(in crate::api) struct KeyringView {
    /// Its id.
    #[schema(value_type = schema::KeyringIdText)]
    id: KeyringId,
    /// What kind of keys it holds.
    #[schema(value_type = schema::KeyKindText)]
    secret_type: KeyKind,
    /// Whether it is the workspace's, for every endpoint that asks for it.
    shared: bool,
    /// The endpoint it signs for, if it is one's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::EndpointIdText>)]
    endpoint_id: Option<EndpointId>,
    /// Every secret it remembers, oldest first.
    secrets: Vec<SecretView>,
    /// The rotation that is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_rotation: Option<RotationView>,
    /// How the receivers it signs for verify, as rehearsals found out: 200 at most.
    receivers: Vec<RehearsedReceiver>,
    /// Grows with every command; the ETag.
    version: u64,
    /// When it was made.
    #[schema(value_type = schema::TimeText)]
    created_at: Timestamp,
}

/// What rehearsals found out about a receiver.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RehearsedReceiver {
    /// The endpoint in front of it.
    #[schema(value_type = schema::EndpointIdText)]
    endpoint_id: EndpointId,
    /// What the last rehearsal found; absent while there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    rehearsed: Option<FindingView>,
}

impl KeyringView {
    fn new(
        keyring: &Keyring,
        receivers: Vec<(EndpointId, Option<Rehearsed>)>,
        now: Timestamp,
    ) -> Self {
        Self {
            id: keyring.id,
            secret_type: keyring.kind,
            shared: keyring.owner == KeyringOwner::Shared,
            endpoint_id: match keyring.owner {
                KeyringOwner::Endpoint { endpoint } => Some(endpoint),
                KeyringOwner::Shared => None,
            },
            secrets: keyring
                .secrets
                .iter()
                .map(|secret| SecretView::new(secret, now))
                .collect(),
            open_rotation: keyring
                .open_rotation(now)
                .map(|rotation| RotationView::new(rotation, now)),
            receivers: receivers
                .into_iter()
                .map(|(endpoint_id, rehearsed)| RehearsedReceiver {
                    endpoint_id,
                    rehearsed: rehearsed
                        .as_ref()
                        .map(|found| FindingView::new(found, keyring.pending().is_some())),
                })
                .collect(),
            version: keyring.version,
            created_at: keyring.id.created_at(),
        }
    }
}

/// Get a keyring.
#[utoipa::path(get, path = "/v1/keyrings/{keyringId}", tag = "Secrets", operation_id = "getKeyring",
    responses((status = 200, description = "The keyring.", body = KeyringView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn get(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(id): Ids<KeyringId>,
) -> Outcome {
    let keyring = api.service.keyring(&call.caller, id).await?;
    let receivers = api.service.receivers(&call.caller, &keyring).await?;
    let view = KeyringView::new(&keyring, receivers, api.service.now());
    Ok(Answer::ok(&view).version(keyring.version))
}

const LIST: &str = "secrets";

/// List a keyring's secrets, newest first.
#[utoipa::path(get, path = "/v1/keyrings/{keyringId}/secrets", tag = "Secrets", operation_id = "listSecrets",
    responses((status = 200, description = "A page.", body = PageView<SecretView>,
        headers(("ETag" = String, description = "The keyring's version.")))))]
pub(in crate::api) async fn list_secrets(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(id): Ids<KeyringId>,
    mut query: Query,
) -> Outcome {
    let before: Option<u32> = query.take_cursor(LIST)?;
    let limit = query.take_limit()?;
    let uri = query.finish()?;
    let keyring = api.service.keyring(&call.caller, id).await?;
    let now = api.service.now();
    let mut items: Vec<_> = keyring
        .secrets
        .iter()
        .rev()
        .filter(|secret| before.is_none_or(|before| secret.version < before))
        .take(limit + 1)
        .collect();
    let has_more = items.len() > limit;
    items.truncate(limit);
    let listed = Listed { items, has_more };
    Ok(page_answer(listed, LIST, &uri, |secret| {
        (secret.version, SecretView::new(secret, now))
    })
    .version(keyring.version))
}

/// Make or import a secret. The first one is active at once; a later one waits in a staged rotation.
#[utoipa::path(post, path = "/v1/keyrings/{keyringId}/secrets", tag = "Secrets", operation_id = "createSecret",
    request_body = Option<CreateSecret>,
    responses((status = 201, description = "Made; its value is shown this once.", body = CreatedSecretView,
        headers(("ETag" = String, description = "The keyring's version.")))))]
pub(in crate::api) async fn create_secret(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids(id): Ids<KeyringId>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: CreateSecret = body.parse_or_default()?;
    let input = NewSecretInput {
        name: asked.name,
        value: asked.secret.map(GivenSecret::into_inner),
        overlap: millis(asked.overlap_seconds),
        replace_pending: asked.replace_pending,
        reason: asked.reason,
    };
    let now = api.service.now();
    let render = |made: &CreatedSecret| {
        let view = CreatedSecretView {
            secret: SecretWithValue::new(&made.once, now),
            rotation: made
                .rotation
                .as_ref()
                .map(|rotation| RotationView::new(rotation, now)),
        };
        // Secrets are shown by their keyring.
        Answer::created(format!("/v1/keyrings/{}", made.keyring.id), &view)
            .version(made.keyring.version)
    };
    let record = |made: &CreatedSecret| render(made).to_bytes();
    let made = api
        .service
        .create_secret(
            &call.caller,
            id,
            input,
            call.if_match()?,
            once.record(&record),
        )
        .await;
    Ok(render(&once.settle(&api.service, made).await?))
}

fn changed(changed: &ChangedSecret, now: Timestamp) -> Answer {
    Answer::ok(&SecretView::new(&changed.secret, now)).version(changed.keyring.version)
}

/// Make a pending secret the active one.
#[utoipa::path(post, path = "/v1/keyrings/{keyringId}/secrets/{secretId}/activate", tag = "Secrets", operation_id = "activateSecret",
    request_body = Option<ActivateSecret>,
    responses((status = 200, description = "It signs from now on.", body = SecretView,
        headers(("ETag" = String, description = "The keyring's version.")))))]
pub(in crate::api) async fn activate(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids((keyring, secret)): Ids<(KeyringId, SecretId)>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: ActivateSecret = body.parse_or_default()?;
    let caller = call.because(asked.reason.as_deref())?;
    let overlap = millis(asked.overlap_seconds);
    let record = |out: &ChangedSecret| changed(out, api.service.now()).to_bytes();
    let out = api
        .service
        .activate_secret(
            &caller,
            keyring,
            secret,
            overlap,
            call.if_match()?,
            once.record(&record),
        )
        .await;
    Ok(changed(
        &once.settle(&api.service, out).await?,
        api.service.now(),
    ))
}

/// Show the value of a secret again, if the workspace allows it. Recorded in the audit log first.
#[utoipa::path(post, path = "/v1/keyrings/{keyringId}/secrets/{secretId}/reveal", tag = "Secrets", operation_id = "revealSecret",
    request_body = Option<Why>,
    responses((status = 200, description = "The secret with its value.", body = SecretWithValue)))]
pub(in crate::api) async fn reveal(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids((keyring, secret)): Ids<(KeyringId, SecretId)>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let _running = call.once(&api, &body.bytes).await?;
    let why: Why = body.parse_or_default()?;
    let caller = call.because(why.reason.as_deref())?;
    let once = api.service.reveal_secret(&caller, keyring, secret).await?;
    Ok(Answer::ok(&SecretWithValue::new(&once, api.service.now())))
}

/// A secret that was marked as leaked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct CompromisedSecret {
    /// It, as it is now.
    #[serde(flatten)]
    secret: SecretView,
    /// What happens to deliveries, those under way included, in a sentence.
    effect: &'static str,
    /// What to do next, in a sentence.
    next: &'static str,
}

impl CompromisedSecret {
    fn new(secret: &SecretVersion, now: Timestamp) -> Self {
        let marked_now = |at: Timestamp| secret.compromised == Some(at);
        let (effect, next) = match secret.state {
            SecretState::Active { .. } => (
                "it goes on signing, because receivers verify with it and silence would lose messages; it is no fallback and no canary falls back to it",
                "rotate away from it with mode immediate, and hand the new secret over at once",
            ),
            SecretState::Retired { at } if marked_now(at) => (
                "it was retired at once and its rotation is completed: what is not signed yet is signed with the active secret alone, retries included; requests on the wire arrive as they were signed",
                DROP_IT,
            ),
            SecretState::Destroyed { at } if marked_now(at) => (
                "it was waiting to be activated: it is destroyed and its rotation cancelled; deliveries go on with the active secret alone",
                "open a new rotation, and hand its secret over another way",
            ),
            SecretState::Pending
            | SecretState::Retiring { .. }
            | SecretState::Retired { .. }
            | SecretState::Destroyed { .. } => (
                "it signed nothing any more: nothing changes for deliveries, and no undo brings it back",
                DROP_IT,
            ),
        };
        Self {
            secret: SecretView::new(secret, now),
            effect,
            next,
        }
    }
}

/// What is left to do about a secret that is marked and signs nothing: to ask would be to sign with it.
const DROP_IT: &str = "make sure that every receiver has dropped it: it signs nothing any more, not even a probe, so it \
    can no longer be asked who still accepts it";

/// Mark a secret as leaked: it never co-signs, is never a fallback, and no undo brings it back.
#[utoipa::path(post, path = "/v1/keyrings/{keyringId}/secrets/{secretId}/compromise", tag = "Secrets", operation_id = "compromiseSecret",
    request_body = Option<Why>,
    responses((status = 200, description = "Marked.", body = CompromisedSecret,
        headers(("ETag" = String, description = "The keyring's version.")))))]
pub(in crate::api) async fn compromise(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids((keyring, secret)): Ids<(KeyringId, SecretId)>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let why: Why = body.parse_or_default()?;
    let caller = call.because(why.reason.as_deref())?;
    let answer = |out: &ChangedSecret| {
        Answer::ok(&CompromisedSecret::new(&out.secret, api.service.now()))
            .version(out.keyring.version)
    };
    let record = |out: &ChangedSecret| answer(out).to_bytes();
    let out = api
        .service
        .compromise_secret(
            &caller,
            keyring,
            secret,
            call.if_match()?,
            once.record(&record),
        )
        .await;
    Ok(answer(&once.settle(&api.service, out).await?))
}

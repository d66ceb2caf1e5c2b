//! The master key: rotated online, by operators.

use axum::extract::State;
use hookturn_core::limits;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Manage};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, Why};
use crate::service::master_key::Resealed;

/// What a rotation of the master key did.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MasterKeyRotation)]
pub(in crate::api) struct ResealedView {
    /// The id of the key that seals now: 16 hexadecimal digits, no secret.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    key_id: String,
    /// Secrets that were sealed again.
    secrets: usize,
}

/// Seal every secret with a new master key, while deliveries go on. Operators only.
///
/// Without an idempotency key, sending it twice rotates twice, which is harmless.
#[utoipa::path(post, path = "/v1/master-key/rotate", tag = "Access", operation_id = "rotateMasterKey",
    request_body = Option<Why>,
    responses((status = 200, description = "Rotated.", body = ResealedView),
        (status = 409, description = "The key comes from the environment and has no successor there, or a node lacks the new one; nothing was changed.")))]
pub(in crate::api) async fn rotate(
    State(api): State<ApiState>,
    call: Call<Manage>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let why: Why = body.parse_or_default()?;
    let caller = call.because(why.reason.as_deref())?;
    let render = |done: &Resealed| {
        Answer::ok(&ResealedView {
            key_id: done.key_id.clone(),
            secrets: done.secrets,
        })
    };
    let record = |done: &Resealed| render(done).to_bytes();
    let done = api.service.rotate_master_key(&caller).await?;
    // Not one step with the rotation, which is many: one that is broken off in between is done again.
    let kept = api
        .service
        .keep_answer(&caller, done, once.record(&record))
        .await;
    Ok(render(&once.settle(&api.service, kept).await?))
}

//! The master key: rotated online, by operators.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Manage};
use super::super::idempotency::{Answer, Outcome};

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
/// Sending it twice rotates twice, which is harmless; an idempotency key is not recorded.
#[utoipa::path(post, path = "/v1/master-key/rotate", tag = "Access", operation_id = "rotateMasterKey",
    responses((status = 200, description = "Rotated.", body = ResealedView),
        (status = 409, description = "The key comes from the environment and has no successor there, or a node lacks the new one; nothing was changed.")))]
pub(in crate::api) async fn rotate(State(api): State<ApiState>, call: Call<Manage>) -> Outcome {
    let done = api.service.rotate_master_key(&call.caller).await?;
    Ok(Answer::ok(&ResealedView {
        key_id: done.key_id,
        secrets: done.secrets,
    }))
}

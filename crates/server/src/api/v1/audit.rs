//! The audit log: what was done, by whom, chained by hashes.

use std::collections::BTreeMap;

use axum::extract::State;
use hookturn_core::audit::Recorded;
use hookturn_core::id::WorkspaceId;
use hookturn_core::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Read};
use super::super::idempotency::Outcome;
use super::super::page::{PageView, Query};
use super::super::schema;
use super::page_answer;

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub(in crate::api) struct AuditView {
    /// Its place in the chain: 1, 2, 3, … without a gap.
    seq: u64,
    /// When it was written.
    #[schema(value_type = schema::TimeText)]
    at: Timestamp,
    /// The workspace it belongs to.
    #[schema(value_type = schema::WorkspaceIdText)]
    workspace_id: WorkspaceId,
    /// Who: the id of an API key, or `local`, `bootstrap`, `system`, `unknown`.
    actor: String,
    /// What was done, such as `secret.revealed`.
    action: String,
    /// In which request.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// Why, in their words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What it was done to, by kind of id.
    subject: BTreeMap<String, String>,
    /// The fingerprint of the secret it was done to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::FingerprintText>)]
    fingerprint: Option<String>,
    /// More, by name. Never a secret.
    detail: BTreeMap<String, String>,
    /// The hash of the entry before, in hex; zeros for the first.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    previous_hash: String,
    /// The hash of this entry, in hex.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    hash: String,
}

impl AuditView {
    fn new(recorded: Recorded) -> Self {
        Self {
            seq: recorded.seq,
            at: recorded.at,
            workspace_id: recorded.workspace,
            actor: recorded.context.actor.to_string(),
            action: recorded.entry.action.to_string(),
            request_id: recorded.context.request_id,
            reason: recorded.context.reason,
            subject: recorded
                .entry
                .subject
                .ids()
                .map(|(name, id)| (name.to_owned(), id))
                .collect(),
            fingerprint: recorded.entry.fingerprint.map(|print| print.to_string()),
            detail: recorded.entry.detail,
            previous_hash: hex::encode(recorded.previous_hash),
            hash: hex::encode(recorded.hash),
        }
    }
}

const LIST: &str = "audit";

/// List the audit log, oldest first.
#[utoipa::path(get, path = "/v1/audit", tag = "Audit", operation_id = "listAudit",
    responses((status = 200, description = "A page.", body = PageView<AuditView>)))]
pub(in crate::api) async fn list(
    State(api): State<ApiState>,
    call: Call<Read>,
    mut query: Query,
) -> Outcome {
    let after = query.take_cursor(LIST)?.unwrap_or(0);
    let limit = query.take_limit()?;
    let uri = query.finish()?;
    let listed = api.service.audit_log(&call.caller, after, limit).await?;
    Ok(page_answer(listed, LIST, &uri, |entry| {
        (entry.seq, AuditView::new(entry))
    }))
}

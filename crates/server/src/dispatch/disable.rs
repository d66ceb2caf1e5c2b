//! Disabling an endpoint from within: the receiver said 410, or failed for too long.

use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject};
use hookturn_core::endpoint::{DisabledReason, Endpoint, EndpointState};
use hookturn_core::id::EndpointId;
use hookturn_core::store::{Change, StoreError, Write};

use super::Parts;

/// Disables an endpoint that is enabled or paused, with an audit entry, which becomes an
/// operational event.
///
/// A concurrent change wins and this decides again on what it left.
pub(super) async fn disable(parts: &Parts, id: EndpointId, reason: DisabledReason) {
    loop {
        let Some(endpoint) = parts.live.endpoint(id) else {
            return;
        };
        if !endpoint.state.takes_messages() {
            return;
        }
        match parts.store.change(disabled(parts, &endpoint, reason)).await {
            Ok(()) => {
                tracing::info!(endpoint = %id, why = word(reason), "an endpoint was disabled; the audit log has it");
                return;
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => {
                tracing::error!(endpoint = %id, error = %error, "an endpoint could not be disabled; it is tried again at its next failure");
                return;
            }
        }
    }
}

fn disabled(parts: &Parts, endpoint: &Endpoint, reason: DisabledReason) -> Change {
    let now = parts.clock.now();
    let subject = Subject {
        app: Some(endpoint.app),
        endpoint: Some(endpoint.id),
        ..Subject::default()
    };
    let entry = AuditEntry::new(AuditAction::EndpointDisabled, subject).with("why", word(reason));
    Change {
        workspace: endpoint.workspace,
        writes: vec![Write::Endpoint(Endpoint {
            state: EndpointState::Disabled { since: now, reason },
            version: endpoint.version + 1,
            updated_at: now,
            ..endpoint.clone()
        })],
        audit: vec![entry],
        context: Context {
            actor: Actor::System,
            request_id: None,
            reason: None,
        },
        at: now,
        idempotency: None,
    }
}

const fn word(reason: DisabledReason) -> &'static str {
    match reason {
        DisabledReason::ByOwner => "byOwner",
        DisabledReason::Gone => "gone",
        DisabledReason::Failing => "failing",
    }
}

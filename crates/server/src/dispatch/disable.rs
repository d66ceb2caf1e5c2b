//! Disabling an endpoint from within: the receiver said 410, or failed for too long.

use serde_json::json;
use std::sync::Arc;

use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject};
use hookturn_core::endpoint::{DisabledReason, Endpoint, EndpointState};
use hookturn_core::id::{DeliveryId, EndpointId, MessageId, Sequence};
use hookturn_core::message::{EventType, Message};
use hookturn_core::store::{Accept, Change, NewMessage, StoreError, Write};

use super::Parts;

/// Disables an endpoint that is enabled or paused, with an audit entry and, where the workspace has
/// an operational app, an event of type `hookturn.endpoint.disabled`.
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
                return announce(parts, &endpoint, reason).await;
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

/// Publishes the operational event, best effort: the audit entry is the record.
async fn announce(parts: &Parts, endpoint: &Endpoint, reason: DisabledReason) {
    let Some(workspace) = parts.live.workspace(endpoint.workspace) else {
        return;
    };
    let Some(app) = workspace.settings.operational_app else {
        return;
    };
    let Ok(event_type) = EventType::new("hookturn.endpoint.disabled") else {
        return;
    };
    let Some(endpoints) = parts.live.fan_out(workspace.id, app, &event_type) else {
        return;
    };
    let place = Sequence::default().next(parts.clock.now());
    let payload = json!({
        "clientId": endpoint.app,
        "endpointId": endpoint.id,
        "url": endpoint.url,
        "reason": word(reason),
        "at": place.at,
    });
    let message = Message {
        id: MessageId::at_place(place, parts.entropy.as_ref()),
        workspace: workspace.id,
        app,
        event_type,
        event_id: None,
        payload: payload.to_string().into(),
        accepted_at: place.at,
    };
    let deliveries = endpoints
        .into_iter()
        .map(|to| (DeliveryId::at_place(place, parts.entropy.as_ref()), to))
        .collect();
    let accept = Accept {
        messages: vec![NewMessage {
            message: Arc::new(message),
            deliveries,
        }],
        idempotency: None,
    };
    if let Err(error) = parts.store.accept(accept).await {
        tracing::warn!(endpoint = %endpoint.id, error = %error, "the event about a disabled endpoint was not published; the audit log has it");
    }
}

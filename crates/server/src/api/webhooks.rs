//! The `webhooks` section of the OpenAPI document: what endpoints of the preset `standard` receive.
//!
//! One entry for messages of any type, and one for each type of operational event, whose payload is
//! Hookturn's own.

use hookturn_core::operational::{REPORTED, event_type};
use serde_json::{Map, Value, json};

/// The section.
pub(super) fn webhooks() -> Value {
    let any = json!({ "$ref": "#/components/schemas/AnyJson" });
    let mut webhooks = Map::new();
    let about = "Sent to the endpoint's URL with the payload exactly as it was published, signed as Standard Webhooks says: over `webhook-id`, `webhook-timestamp` and the body, joined by dots. Verify before parsing, and refuse timestamps older or newer than five minutes. During a rotation the header may list two signatures; one that matches is enough. The same `webhook-id` may come more than once.";
    webhooks.insert(
        "delivery".to_owned(),
        webhook("delivery", "A message for an endpoint", about, &any),
    );
    for (action, meaning) in REPORTED {
        let Some(event_type) = event_type(action) else {
            continue;
        };
        let about = format!(
            "{meaning} An operational event: a message of the type `{}` for the app that the workspace's setting `operationalApp` or the server's configuration names, signed, retried and logged like any other.",
            event_type.as_str()
        );
        let payload = json!({ "allOf": [
            { "$ref": "#/components/schemas/OperationalEvent" },
            { "type": "object", "properties": { "type": { "const": event_type.as_str() } } }
        ] });
        let name = event_type.as_str().to_owned();
        let entry = webhook(&name, meaning, &about, &payload);
        webhooks.insert(name, entry);
    }
    Value::Object(webhooks)
}

fn webhook(operation: &str, summary: &str, about: &str, payload: &Value) -> Value {
    let header = |name: &str| json!({ "$ref": format!("#/components/parameters/{name}") });
    json!({ "post": {
        "summary": summary,
        "description": about,
        "operationId": operation,
        "parameters": [
            header("WebhookId"),
            header("WebhookTimestamp"),
            header("WebhookSignature")
        ],
        "requestBody": { "required": true, "content": { "application/json": { "schema": payload } } },
        "responses": {
            "2XX": { "description": "Accepted. Anything else is tried again by the endpoint's retry policy." },
            "410": { "description": "Gone: the endpoint is disabled and nothing is sent to it again." },
            "429": { "description": "Later, please: `Retry-After` is obeyed, up to a day." },
            "503": { "description": "Later, please: `Retry-After` is obeyed, up to a day." }
        },
        "security": []
    } })
}

/// The headers that every webhook has, by their names in `components.parameters`.
pub(super) fn headers() -> [(&'static str, Value); 3] {
    let header = |name: &str, description: &str, pattern: &str| {
        json!({ "name": name, "in": "header", "required": true, "description": description,
            "schema": { "type": "string", "pattern": pattern } })
    };
    [
        (
            "WebhookId",
            header(
                "webhook-id",
                "The id of the message: the same on every attempt.",
                "^msg_[0-9a-z]{26}$",
            ),
        ),
        (
            "WebhookTimestamp",
            header(
                "webhook-timestamp",
                "Unix seconds at which this attempt was signed.",
                "^[1-9][0-9]*$",
            ),
        ),
        (
            "WebhookSignature",
            header(
                "webhook-signature",
                "`v1,` and base64 of HMAC-SHA256, or `v1a,` and base64 of Ed25519; several are separated by one space.",
                "^v1a?,[A-Za-z0-9+/=]+( v1a?,[A-Za-z0-9+/=]+)*$",
            ),
        ),
    ]
}

/// The schema of the payload of operational events.
pub(super) fn operational_event() -> Value {
    let kind = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let text = |about: &str| json!({ "type": "string", "description": about });
    let types: Vec<String> = REPORTED
        .iter()
        .filter_map(|(action, _)| Some(event_type(action)?.as_str().to_owned()))
        .collect();
    let fingerprint =
        |about: &str| json!({ "type": "string", "pattern": "^[0-9a-f]{8}$", "description": about });
    json!({
        "type": "object",
        "description": "What happened to rotations, secrets and endpoints, as it is in the audit log: ids, fingerprints, names, times and words, never the value of a secret. Members that do not apply are absent.",
        "required": ["type", "at", "words", "workspaceId", "workspace", "sequence", "by"],
        "properties": {
            "type": { "type": "string", "enum": types, "description": "The event type." },
            "at": { "type": "string", "format": "date-time", "description": "When it happened." },
            "words": text("What happened, in a sentence."),
            "workspaceId": kind("WorkspaceId"),
            "workspace": text("The name of the workspace it happened in."),
            "sequence": { "type": "integer", "minimum": 1, "description": "The number of the entry in the workspace's audit log: with `workspaceId` it names the event." },
            "by": text("Who did it: the id of an API key, or `system`, `local`, `bootstrap`."),
            "reason": text("Why, in their own words."),
            "clientId": kind("ClientId"),
            "app": text("The app's name."),
            "endpointId": kind("EndpointId"),
            "url": text("The endpoint's URL."),
            "keyringId": kind("KeyringId"),
            "rotationId": kind("RotationId"),
            "secretId": kind("SecretId"),
            "secretName": text("What its owner calls the secret."),
            "fingerprint": fingerprint("Of the secret: of a rotation, the one it brings."),
            "fromFingerprint": fingerprint("Of the secret that the rotation moves away from."),
            "detail": { "type": "object", "additionalProperties": { "type": "string" },
                "description": "More by name, as in the audit log: `mode`, `grounds`, `retireAt`, `deadline`, `stage`, `passes`, `endpoints`, `why`, `last`, `schedule`, `dueAt`." }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Head, Subject, chain};
    use hookturn_core::id::{ClientId, EndpointId, KeyringId, RotationId, SecretId, WorkspaceId};
    use hookturn_core::operational::{Event, Names};
    use hookturn_core::time::Timestamp;

    use super::*;
    use crate::telemetry::SystemEntropy;

    #[test]
    fn every_member_of_an_event_is_described_and_every_required_one_is_there() {
        let schema = operational_event();
        let described: BTreeSet<&str> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let (now, entropy) = (Timestamp::from_millis(1_784_505_600_000), &SystemEntropy);
        let subject = Subject {
            app: Some(ClientId::new(entropy)),
            endpoint: Some(EndpointId::new(now, entropy)),
            keyring: Some(KeyringId::new(now, entropy)),
            secret: Some(SecretId::new(now, entropy)),
            rotation: Some(RotationId::new(now, entropy)),
            ..Subject::default()
        };
        let fingerprint = "3f9c01ab".parse().ok();
        let names = Names {
            workspace: "default".to_owned(),
            app: Some("shop".to_owned()),
            url: Some("https://example.com/".to_owned()),
            secret: Some("blue".to_owned()),
            from: fingerprint,
            on_deadline: Some("cut"),
        };
        for (action, _) in REPORTED {
            let mut entry = AuditEntry::new(action.clone(), subject).with("why", "gone");
            entry.fingerprint = fingerprint;
            let context = Context {
                actor: Actor::System,
                request_id: None,
                reason: Some("because".to_owned()),
            };
            let workspace = WorkspaceId::new(now, entropy);
            let recorded = chain(Head::START, now, workspace, context, entry);
            let event_type = event_type(action).unwrap();
            let event = Event::of(&event_type, &recorded, &names);
            let sent = serde_json::to_value(&event).unwrap();
            let sent = sent.as_object().unwrap();
            for member in sent.keys() {
                assert!(described.contains(member.as_str()), "{member}");
            }
            for member in schema["required"].as_array().unwrap() {
                assert!(sent.contains_key(member.as_str().unwrap()), "{member}");
            }
            assert!(!event.words.is_empty() && event.words.len() < 512);
        }
        assert_eq!(event_type(&AuditAction::AppCreated), None);
    }
}

//! The OpenAPI 3.1 document of the dialect.
//!
//! As for the native API, handlers describe what is theirs and the rest follows from a table here:
//! security, parameters, and every error that can be answered.

use std::sync::OnceLock;

use axum::response::{IntoResponse, Response};
use hookturn_core::workspace::Scope;
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::super::super::openapi::{BEFORE_HANDLERS, ErrorForm, error_responses};
use super::super::super::schema;
use super::error::ErrorDocument;
use super::{DOCUMENT, apps, config};

/// What handlers say about themselves, and what does not come from one.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hookturn, Hopae dialect",
        description = "The workspace webhooks of Hopae Connect, served by Hookturn: change the base URL and keep the script.",
    ),
    tags(
        (name = "Apps", description = "Consumers of webhooks."),
        (name = "Webhooks", description = "The webhook configuration of an app, and its secret."),
    ),
    paths(
        apps::create,
        apps::list,
        apps::get,
        apps::patch,
        apps::delete,
        config::get,
        config::patch,
        config::rotate_secret,
    ),
    components(schemas(
        ErrorDocument,
        schema::ClientIdText,
        schema::AnyJson,
    ))
)]
struct Described;

/// The OpenAPI document of the Hopae dialect as indented JSON, the same for the same build.
pub fn openapi() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = serde_json::to_string_pretty(&complete()).unwrap_or_default();
        text.push('\n');
        text
    })
}

/// This document.
pub(super) async fn document() -> Response {
    let mut response = openapi().into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

const APPS: &str = "/connect/v1/apps";
const APP: &str = "/connect/v1/apps/{clientId}";
const CONFIG: &str = "/connect/v1/apps/{clientId}/webhook-config";
const ROTATE: &str = "/connect/v1/apps/{clientId}/webhook-config/rotate-secret";
/// The spelling that is documented, and the one that is kept for old scripts.
const SPELLINGS: (&str, &str) = ("webhook-config", "webhook_config");

/// Every operation and the scope its handler's type names.
const OPERATIONS: &[(&str, &str, Scope)] = &[
    ("post", APPS, Scope::Manage),
    ("get", APPS, Scope::Read),
    ("get", APP, Scope::Read),
    ("patch", APP, Scope::Manage),
    ("delete", APP, Scope::Manage),
    ("get", CONFIG, Scope::Read),
    ("patch", CONFIG, Scope::Manage),
    ("post", ROTATE, Scope::Secrets),
];

fn complete() -> Value {
    let mut document = serde_json::to_value(Described::openapi()).unwrap_or_default();
    for (method, path, scope) in OPERATIONS {
        let operation = &mut document["paths"][path][method];
        if operation.is_object() {
            complete_operation(operation, method, path, *scope);
        }
    }
    document["paths"][ROTATE]["post"]["requestBody"] = empty_body();
    add_old_spelling(&mut document);
    let mut document_responses = json!({ "200": {
        "description": "OpenAPI 3.1.",
        "headers": { "X-Request-Id": { "$ref": "#/components/headers/RequestId" } },
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/AnyJson" } } }
    } });
    for status in BEFORE_HANDLERS.iter().chain(&["500"]) {
        document_responses[*status] = error_of(status);
    }
    document["paths"][DOCUMENT] = json!({ "get": {
        "operationId": "getOpenapi",
        "summary": "This document.",
        "security": [],
        "responses": document_responses
    } });
    document["components"]["securitySchemes"] = json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key: `sk_workspace_test_…`, `sk_workspace_prod_…` or `sk_operator_…`."
        }
    });
    document["components"]["responses"] = errors();
    document["components"]["parameters"] = parameters();
    document["components"]["headers"] = headers();
    document["webhooks"] = webhooks();
    document
}

fn complete_operation(operation: &mut Value, method: &str, path: &str, scope: Scope) {
    operation["security"] = json!([{ "bearer": [] }]);
    operation["x-required-scope"] = scope.as_str().into();
    let mut parameters = vec![shared("Workspace"), shared("Reason")];
    let mut statuses = vec!["401", "403", "404", "429", "500", "503"];
    statuses.extend(BEFORE_HANDLERS);
    if path.contains("{clientId}") {
        parameters.push(shared("ClientId"));
    }
    if (method, path) == ("get", APPS) {
        parameters.extend([shared("Limit"), shared("Offset")]);
    }
    if method == "post" {
        parameters.push(shared("IdempotencyKey"));
    }
    if matches!(method, "post" | "patch") {
        statuses.push("413");
    }
    if method != "get" {
        statuses.push("409");
    }
    operation["parameters"] = parameters.into();
    let replayed = method == "post";
    if let Some(responses) = operation["responses"].as_object_mut() {
        for (status, response) in responses.iter_mut() {
            let headers = &mut response["headers"];
            headers["X-Request-Id"] = json!({ "$ref": "#/components/headers/RequestId" });
            if replayed {
                headers["Idempotency-Replayed"] =
                    json!({ "$ref": "#/components/headers/Replayed" });
            }
            if status == "201" {
                headers["Location"] = json!({ "$ref": "#/components/headers/Location" });
            }
        }
        for status in statuses {
            responses.insert(status.to_owned(), error_of(status));
        }
    }
}

fn error_of(status: &str) -> Value {
    json!({ "$ref": format!("#/components/responses/Error{status}") })
}

/// The body of a call that has none: absent, or an object without members.
fn empty_body() -> Value {
    json!({
        "required": false,
        "description": "None, or an empty object.",
        "content": { "application/json": {
            "schema": { "type": "object", "additionalProperties": false, "maxProperties": 0 } } }
    })
}

/// The same operations under the old spelling, marked as such.
fn add_old_spelling(document: &mut Value) {
    let (new, old) = SPELLINGS;
    for path in [CONFIG, ROTATE] {
        let mut item = document["paths"][path].clone();
        for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
            let id = operation["operationId"].as_str().unwrap_or_default();
            operation["operationId"] = format!("{id}OldSpelling").into();
            operation["deprecated"] = true.into();
        }
        document["paths"][path.replace(new, old)] = item;
    }
}

fn shared(name: &str) -> Value {
    json!({ "$ref": format!("#/components/parameters/{name}") })
}

/// Statuses of errors and when they come.
const ERRORS: &[(&str, &str)] = &[
    (
        "400",
        "`VALIDATION_MISSING_PARAMETER` or `VALIDATION_INVALID_PARAMETER`: `details.parameter` says which.",
    ),
    (
        "401",
        "`AUTH_INVALID_CREDENTIALS`: the API key is missing, unknown, expired or revoked.",
    ),
    ("403", "`AUTH_FORBIDDEN`: the API key lacks the scope."),
    (
        "404",
        "`RESOURCE_NOT_FOUND`: there is no such thing in this workspace.",
    ),
    (
        "405",
        "`RESOURCE_METHOD_NOT_ALLOWED`: the path has other methods; the header `Allow` lists them.",
    ),
    (
        "408",
        "`VALIDATION_REQUEST_TIMEOUT`: the request line and headers did not come in time. Nothing was done.",
    ),
    (
        "409",
        "`RESOURCE_CONFLICT`, `IDEMPOTENCY_KEY_CONFLICT` or `IDEMPOTENCY_REQUEST_IN_PROGRESS`. Nothing was changed.",
    ),
    (
        "413",
        "`VALIDATION_PAYLOAD_TOO_LARGE`: the body is too large.",
    ),
    (
        "414",
        "`VALIDATION_URI_TOO_LONG`: the path and query are longer than any of this API.",
    ),
    (
        "429",
        "`RATE_LIMIT_EXCEEDED`: the API key asks more often than it may. Nothing was done.",
    ),
    (
        "431",
        "`VALIDATION_HEADERS_TOO_LARGE`: the request line and headers are too large, or the headers too many. Over HTTP/2 a head of more than 256 KiB gets the bare status, without a body.",
    ),
    (
        "500",
        "`SYSTEM_INTERNAL_ERROR`: the server's log has the cause under `request_id`.",
    ),
    (
        "503",
        "`SYSTEM_UNAVAILABLE`: starting, stopping, or the store does not answer.",
    ),
];

fn errors() -> Value {
    let form = ErrorForm {
        prefix: "Error",
        content_type: "application/json",
        schema: "Error",
    };
    error_responses(&form, ERRORS.iter().copied())
}

fn parameters() -> Value {
    json!({
        "ClientId": {
            "name": "clientId", "in": "path", "required": true,
            "schema": { "$ref": "#/components/schemas/ClientId" }
        },
        "Workspace": {
            "name": "Hookturn-Workspace", "in": "header", "required": false,
            "description": "Id or name of the workspace that an operator's key acts in; a workspace's key needs none.",
            "schema": { "type": "string" }
        },
        "Reason": {
            "name": "Hookturn-Reason", "in": "header", "required": false,
            "description": "Why, for the audit log.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]([ -~]*[!-~])?$" }
        },
        "Limit": {
            "name": "limit", "in": "query", "required": false,
            "description": "How many apps to answer.",
            "schema": { "type": "integer", "minimum": 1, "maximum": 100, "default": 20 }
        },
        "Offset": {
            "name": "offset", "in": "query", "required": false,
            "description": "How many of the newest apps to pass over.",
            "schema": { "type": "integer", "minimum": 0, "maximum": 2_147_483_647, "default": 0 }
        },
        "IdempotencyKey": {
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "Repeat a request under the same key and it happens once; the first answer is replayed for 24 hours. Bound to workspace, method and path.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255 }
        }
    })
}

fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "The id of this request, for the log and the audit log.",
            "schema": { "type": "string", "format": "uuid" }
        },
        "Replayed": {
            "description": "`true` when the answer was given before under the same Idempotency-Key; absent otherwise.",
            "schema": { "type": "string", "const": "true" }
        },
        "Location": {
            "description": "Where the new app is.",
            "schema": { "type": "string", "format": "uri-reference" }
        }
    })
}

/// What the URL of a webhook configuration receives.
fn webhooks() -> Value {
    json!({
        "delivery": { "post": {
            "summary": "An event for an app",
            "description": "Signed with HMAC-SHA256 over `<t>.<body>` under the UTF-8 text of the whole secret, `whsec_` included. Refuse times that are more than 300 seconds away, and remember `eventId`: the same event may come more than once.",
            "operationId": "delivery",
            "parameters": [
                { "name": "X-Hopae-Signature", "in": "header", "required": true,
                  "description": "Unix seconds and one signature, never two.",
                  "schema": { "type": "string", "pattern": "^t=[1-9][0-9]*,v1=[0-9a-f]{64}$" } }
            ],
            "requestBody": { "required": true, "content": { "application/json": { "schema": {
                "type": "object",
                "required": ["event", "eventId", "timestamp", "apiVersion", "clientId", "data"],
                "properties": {
                    "event": { "type": "string", "examples": ["verification.completed"] },
                    "eventId": { "type": "string", "description": "The publisher's own, or `evt_…`." },
                    "timestamp": { "type": "string", "format": "date-time" },
                    "apiVersion": { "type": "string", "const": "v1" },
                    "clientId": { "$ref": "#/components/schemas/ClientId" },
                    "data": { "$ref": "#/components/schemas/AnyJson" }
                } } } } },
            "responses": {
                "2XX": { "description": "Accepted. Anything else is tried again after 1 s, 5 s and 30 s, or as often as `retryAttempts` says." },
                "410": { "description": "Gone: the webhook is disabled and nothing is sent to it again." }
            },
            "security": []
        } }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn document() -> Value {
        serde_json::from_str(openapi()).unwrap()
    }

    #[test]
    fn every_route_is_in_the_document_under_both_spellings() {
        let document = document();
        let mut found = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let old = operation["deprecated"] == true;
                assert_eq!(old, path.contains(SPELLINGS.1), "{method} {path}");
                found.insert((method.clone(), path.replace(SPELLINGS.1, SPELLINGS.0), old));
            }
        }
        let mut wanted = BTreeSet::from([("get".to_owned(), DOCUMENT.to_owned(), false)]);
        for (method, path, _) in OPERATIONS {
            wanted.insert(((*method).to_owned(), (*path).to_owned(), false));
            if path.contains(SPELLINGS.0) {
                wanted.insert(((*method).to_owned(), (*path).to_owned(), true));
            }
        }
        assert_eq!(found, wanted);
    }

    #[test]
    fn every_reference_leads_somewhere_and_operations_have_ids_of_their_own() {
        fn walk(value: &Value, document: &Value, ids: &mut Vec<String>) {
            match value {
                Value::Object(members) => {
                    if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{target}");
                    }
                    if let Some(id) = members.get("operationId").and_then(Value::as_str) {
                        ids.push(id.to_owned());
                    }
                    members
                        .values()
                        .for_each(|value| walk(value, document, ids));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, document, ids)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let document = document();
        let mut ids = Vec::new();
        walk(&document, &document, &mut ids);
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert_eq!(document["openapi"], "3.1.0");
    }

    #[test]
    fn the_checked_in_document_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api/hopae.openapi.json");
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        // `cargo xtask openapi` writes it anew.
        assert!(
            stored == openapi(),
            "docs/api/hopae.openapi.json is not what `hookturn openapi hopae` prints: \
             write it anew"
        );
    }
}

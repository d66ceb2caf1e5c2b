//! The OpenAPI 3.1 document of the dialect: what it answers here, not what KORE's own says.
//!
//! Handlers describe what is theirs; security, shared headers and every error are added here.

use std::sync::OnceLock;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::super::super::openapi::{BEFORE_HANDLERS, ErrorForm, error_responses};
use super::super::super::schema;
use super::problem::ErrorView;
use super::secrets;

/// What handlers say about themselves, and what does not come from one.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hookturn, dialect of KORE",
        description = "KORE's API of webhook secrets over the workspace's shared keyring. One secret is active and signs; at most one is pending.",
    ),
    tags(
        (name = "Secrets", description = "The secrets of the workspace's shared keyring."),
        (name = "Document", description = "This document."),
    ),
    paths(secrets::create, secrets::list, secrets::change, document),
    components(schemas(ErrorView, schema::SecretIdText, schema::AnyJson))
)]
struct Described;

/// The document as indented JSON, the same for the same build.
pub fn openapi() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = serde_json::to_string_pretty(&complete()).unwrap_or_default();
        text.push('\n');
        text
    })
}

/// This document.
#[utoipa::path(get, path = "/kore/v1/openapi.json", tag = "Document", operation_id = "getDocument",
    responses((status = 200, description = "OpenAPI 3.1.", body = schema::AnyJson)))]
pub(super) async fn document() -> Response {
    let mut response = openapi().into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// Statuses of errors, when they come, and which methods answer them.
const ERRORS: &[(&str, &str, &[&str])] = &[
    (
        "400",
        "The body is not JSON, or a field, parameter or header is not valid.",
        &["post", "get", "patch"],
    ),
    (
        "401",
        "The API key is missing, unknown, expired or revoked.",
        &["post", "get", "patch"],
    ),
    (
        "403",
        "The API key lacks the scope.",
        &["post", "get", "patch"],
    ),
    (
        "404",
        "There is no such secret, or no such workspace.",
        &["post", "get", "patch"],
    ),
    (
        "405",
        "The path has other methods; the header `Allow` lists them.",
        &["post", "get", "patch"],
    ),
    (
        "408",
        "The request line and headers did not come in time; nothing was done.",
        &["post", "get", "patch"],
    ),
    (
        "409",
        "Nothing was changed. `rotation_open`: the native API gave the last rotation of this keyring an overlap, which is not over, or undid one whose secret is live still; create again when it is over, or finish it. `secret_disabled`: the secret is neither active nor pending. `not_proven`: the pending secret belongs to a rotation that waits for proof. `contended`: others changed the same thing. `idempotency_in_progress`: the first request with this Idempotency-Key is still running.",
        &["post", "patch"],
    ),
    ("413", "The body is too large.", &["post", "patch"]),
    (
        "414",
        "The path and query are longer than any of this API.",
        &["post", "get", "patch"],
    ),
    (
        "422",
        "`idempotency_mismatch`: the Idempotency-Key was used with another request. A field that is not valid is a 400.",
        &["post"],
    ),
    (
        "429",
        "The API key asks more often than it may; `Retry-After` says when to come back.",
        &["post", "get", "patch"],
    ),
    (
        "431",
        "The request line and headers are too large, or the headers too many. Over HTTP/2 a head of more than 256 KiB gets the bare status, without a body.",
        &["post", "get", "patch"],
    ),
    (
        "500",
        "Internal error; the log has the cause.",
        &["post", "get", "patch"],
    ),
    (
        "503",
        "Stopping, or the store does not answer.",
        &["post", "get", "patch"],
    ),
];

fn complete() -> Value {
    let mut document = serde_json::to_value(Described::openapi()).unwrap_or_default();
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, item) in paths {
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                complete_operation(path, method, operation);
            }
        }
    }
    document["components"]["securitySchemes"] = json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key of Hookturn: `sk_operator_…`, `sk_workspace_test_…` or `sk_workspace_prod_…`."
        }
    });
    document["components"]["responses"] = errors();
    document["components"]["parameters"] = parameters();
    document["components"]["headers"] = json!({
        "RequestId": {
            "description": "The id of this request, for the log and the audit log.",
            "schema": { "type": "string", "format": "uuid" }
        },
        "Replayed": {
            "description": "`true` when the answer was given before under the same Idempotency-Key.",
            "schema": { "type": "string", "const": "true" }
        }
    });
    document
}

fn complete_operation(path: &str, method: &str, operation: &mut Value) {
    let public = path.ends_with("/openapi.json");
    let mut parameters = Vec::new();
    if public {
        operation["security"] = json!([]);
    } else {
        let scope = if method == "get" { "read" } else { "secrets" };
        operation["security"] = json!([{ "bearer": [] }]);
        operation["x-required-scope"] = scope.into();
        parameters.extend(["Workspace", "Reason"]);
    }
    if path.contains("{secretId}") {
        parameters.push("SecretId");
    }
    if method == "post" {
        parameters.push("IdempotencyKey");
    }
    let mut all: Vec<_> = parameters
        .into_iter()
        .map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }))
        .collect();
    if let Some(own) = operation["parameters"].as_array() {
        all.extend(own.iter().cloned());
    }
    if !all.is_empty() {
        operation["parameters"] = all.into();
    }
    let success = if method == "post" { "201" } else { "200" };
    let headers = &mut operation["responses"][success]["headers"];
    headers["X-Request-Id"] = json!({ "$ref": "#/components/headers/RequestId" });
    if method == "post" {
        headers["Idempotency-Replayed"] = json!({ "$ref": "#/components/headers/Replayed" });
    }
    let is_public = |status| status == "500" || BEFORE_HANDLERS.contains(&status);
    for (status, _, methods) in ERRORS {
        if methods.contains(&method) && (!public || is_public(status)) {
            operation["responses"][status] =
                json!({ "$ref": format!("#/components/responses/Error{status}") });
        }
    }
}

fn errors() -> Value {
    let form = ErrorForm {
        prefix: "Error",
        content_type: "application/json",
        schema: "Error",
    };
    error_responses(
        &form,
        ERRORS
            .iter()
            .map(|(status, description, _)| (*status, *description)),
    )
}

fn parameters() -> Value {
    json!({
        "Workspace": {
            "name": "Hookturn-Workspace", "in": "header", "required": false,
            "description": "Id or name of the workspace that an operator's key acts in; `default` without it.",
            "schema": { "type": "string" }
        },
        "Reason": {
            "name": "Hookturn-Reason", "in": "header", "required": false,
            "description": "Why, for the audit log.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]([ -~]*[!-~])?$" }
        },
        "IdempotencyKey": {
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "Repeat a request under the same key and it happens once; the first answer, value included, is replayed for 24 hours. 1 to 255 visible ASCII characters, no spaces.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" }
        },
        "SecretId": {
            "name": "secretId", "in": "path", "required": true,
            "schema": { "$ref": "#/components/schemas/SecretId" }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{target}");
                    }
                    members.values().for_each(|value| walk(value, document));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, document)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let document: Value = serde_json::from_str(openapi()).unwrap();
        walk(&document, &document);
        assert_eq!(document["openapi"], "3.1.0");
        let paths: Vec<_> = document["paths"].as_object().unwrap().keys().collect();
        assert_eq!(
            paths,
            [
                "/kore/v1/openapi.json",
                "/kore/v1/secrets",
                "/kore/v1/secrets/{secretId}"
            ]
        );
    }

    #[test]
    fn the_checked_in_document_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api/kore.openapi.json");
        let stored = std::fs::read_to_string(&path).unwrap();
        assert!(
            stored == openapi(),
            "docs/api/kore.openapi.json is not what `hookturn openapi kore` prints: write it anew"
        );
    }
}

//! The OpenAPI 3.1 document.
//!
//! Handlers describe what is theirs: body, success, summary. What follows from a rule is added
//! here from the table of routes, so that no handler can forget it: security, path parameters,
//! `limit` and `cursor`, `Idempotency-Key`, `If-Match`, and every problem that can be answered.

use std::sync::OnceLock;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::problem::ProblemDocument;
use super::router::{Kind, ROUTES, Route};
use super::{health, schema, v1, webhooks};

/// What handlers outside `/v1` say about themselves, and what does not come from one.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hookturn",
        description = "Accepts events, signs them, delivers them to endpoints, and rotates the signing secrets without stopping a delivery.",
    ),
    tags(
        (name = "Apps", description = "Consumers of webhooks."),
        (name = "Endpoints", description = "URLs of an app, with everything that decides how deliveries reach them."),
        (name = "Messages", description = "Accepted events."),
        (name = "Deliveries", description = "One message for one endpoint, with its attempts."),
        (name = "Secrets", description = "Keyrings and the secrets in them."),
        (name = "Rotations", description = "Moves of a keyring from one active secret to the next."),
        (name = "Bulk rotations", description = "Many rotations at once, in waves."),
        (name = "Schedules", description = "Rules by which rotations are opened."),
        (name = "Access", description = "Workspaces and API keys."),
        (name = "Outbox", description = "What applications published in transactions of their own."),
        (name = "Audit", description = "What was done, by whom."),
        (name = "Health", description = "For load balancers and metric collectors."),
    ),
    paths(health::livez, health::readyz, health::metrics, document),
    components(schemas(
        ProblemDocument,
        schema::ClientIdText,
        schema::WorkspaceIdText,
        schema::ApiKeyIdText,
        schema::EndpointIdText,
        schema::KeyringIdText,
        schema::SecretIdText,
        schema::RotationIdText,
        schema::BulkIdText,
        schema::ScheduleIdText,
        schema::MessageIdText,
        schema::DeliveryIdText,
        schema::RefusedEventIdText,
        schema::AnyJson,
    ))
)]
struct Described;

/// The OpenAPI document as indented JSON, the same for the same build.
pub fn openapi() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = serde_json::to_string_pretty(&complete()).unwrap_or_default();
        text.push('\n');
        text
    })
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "Health",
    responses((status = 200, description = "OpenAPI 3.1.", body = schema::AnyJson)))]
pub(super) async fn document() -> Response {
    let mut response = openapi().into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn complete() -> Value {
    let mut api = Described::openapi();
    api.merge(v1::described());
    let mut document = serde_json::to_value(api).unwrap_or_default();
    for route in ROUTES {
        let operation = &mut document["paths"][route.path][route.method];
        if operation.is_object() {
            complete_operation(operation, route);
        }
    }
    document["components"]["securitySchemes"] = json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key: `sk_operator_…`, `sk_workspace_test_…` or `sk_workspace_prod_…`."
        }
    });
    document["components"]["responses"] = problems();
    document["components"]["parameters"] = parameters();
    for (name, header) in webhooks::headers() {
        document["components"]["parameters"][name] = header;
    }
    document["components"]["headers"] = headers();
    document["components"]["schemas"]["OperationalEvent"] = webhooks::operational_event();
    document["webhooks"] = webhooks::webhooks();
    document
}

/// What every path of every API can answer before a handler is asked: the request is not one that HTTP allows,
/// its method is another, its head did not come in time or is too large.
pub(super) const BEFORE_HANDLERS: &[&str] = &["400", "405", "408", "414", "431"];

fn complete_operation(operation: &mut Value, route: &Route) {
    let mut parameters = path_parameters(route.path);
    let mut statuses = vec!["500"];
    statuses.extend(BEFORE_HANDLERS);
    match route.scope {
        None => operation["security"] = json!([]),
        Some(scope) => {
            operation["security"] = json!([{ "bearer": [] }]);
            operation["x-required-scope"] = scope.as_str().into();
            parameters.extend([shared("Workspace"), shared("Reason")]);
            statuses.extend(["401", "403", "404", "429", "503"]);
        }
    }
    if route.path == "/readyz" {
        statuses.push("503");
    }
    if route.kind == Kind::List {
        parameters.extend([shared("Limit"), shared("Cursor")]);
    }
    if route.kind == Kind::Versioned {
        parameters.push(shared("IfMatch"));
        statuses.push("412");
    }
    if route.method == "post" {
        parameters.push(shared("IdempotencyKey"));
    }
    if matches!(route.method, "post" | "patch") {
        statuses.extend(["409", "413", "415", "422"]);
    }
    if route.method == "delete" {
        statuses.push("409");
    }
    if let Some(own) = operation["parameters"].as_array() {
        parameters.extend(own.iter().cloned());
    }
    // An absent body is allowed, a body `null` is not.
    let schema = &mut operation["requestBody"]["content"]["application/json"]["schema"];
    if let Some(choice) = schema["oneOf"].get(0).cloned() {
        *schema = choice;
    }
    if operation["requestBody"]["content"]["application/json"]["schema"].is_null()
        && let Some(members) = operation.as_object_mut()
    {
        members.remove("requestBody");
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    for status in statuses {
        operation["responses"][status] =
            json!({ "$ref": format!("#/components/responses/Problem{status}") });
    }
    complete_success(operation, route);
}

fn complete_success(operation: &mut Value, route: &Route) {
    let Some(responses) = operation["responses"].as_object_mut() else {
        return;
    };
    for (status, response) in responses {
        if !status.starts_with('2') {
            continue;
        }
        let headers = &mut response["headers"];
        headers["X-Request-Id"] = json!({ "$ref": "#/components/headers/RequestId" });
        if route.method == "post" {
            headers["Idempotency-Replayed"] = json!({ "$ref": "#/components/headers/Replayed" });
        }
        if route.kind == Kind::List {
            headers["Link"] = json!({ "$ref": "#/components/headers/Next" });
        }
        if is_fenced(route) {
            headers["Hookturn-Fence"] = json!({ "$ref": "#/components/headers/Fence" });
        }
        if status == "201" {
            headers["Location"] = json!({ "$ref": "#/components/headers/Location" });
        }
    }
}

/// Whether its answer may wait until no node signs by what was before: keys are changed, a keyring comes or goes, or
/// an answer is replayed, which may be that of such a change.
fn is_fenced(route: &Route) -> bool {
    match (route.method, route.path) {
        ("post", path) => path.starts_with("/v1/") && !path.ends_with("/messages"),
        ("delete", "/v1/apps/{clientId}" | "/v1/apps/{clientId}/endpoints/{endpointId}") => true,
        (method, path) => method != "get" && path.starts_with("/v1/api-keys/"),
    }
}

fn shared(name: &str) -> Value {
    json!({ "$ref": format!("#/components/parameters/{name}") })
}

fn path_parameters(path: &str) -> Vec<Value> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let mut letters = name.chars();
            let first = letters.next().map(|c| c.to_ascii_uppercase());
            let kind: String = first.into_iter().chain(letters).collect();
            let mut parameter = json!({
                "name": name,
                "in": "path",
                "required": true,
                "schema": { "$ref": format!("#/components/schemas/{kind}") }
            });
            if kind == "WorkspaceId" {
                parameter["description"] = "Its id or its name.".into();
                parameter["schema"] = json!({
                    "type": "string",
                    "maxLength": 256,
                    "pattern": "^[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*$"
                });
            }
            parameter
        })
        .collect()
}

/// Statuses of problems and when they come.
const PROBLEMS: &[(&str, &str)] = &[
    (
        "400",
        "The body is not JSON or not UTF-8, a parameter or header is not valid, or the request is not valid HTTP.",
    ),
    (
        "401",
        "The API key is missing, unknown, expired or revoked.",
    ),
    (
        "403",
        "The API key lacks the scope, or is not an operator's.",
    ),
    ("404", "There is no such thing in this workspace."),
    (
        "405",
        "The path has other methods; the header `Allow` lists them.",
    ),
    (
        "408",
        "The request line and headers did not come in time; nothing was done.",
    ),
    (
        "409",
        "The state of the resource does not allow it, or the first request with this Idempotency-Key is still running.",
    ),
    (
        "412",
        "If-Match names another version than the current one.",
    ),
    ("413", "The body or the payload is too large."),
    ("414", "The path and query are longer than any of this API."),
    (
        "415",
        "The body is not declared as application/json, or has a Content-Encoding.",
    ),
    (
        "422",
        "A field is unknown, missing, of another type or out of bounds, or the Idempotency-Key was used with another path or body.",
    ),
    (
        "429",
        "This API key asks more often than it may (`rate_limited`), or the receiver got as many probes by command as it may (`probes_used_up`); nothing was done.",
    ),
    (
        "431",
        "The request line and headers are larger than 32 KiB, or the headers more than 100. Over HTTP/2 a head of more than 256 KiB gets the bare status, without a body.",
    ),
    ("500", "Internal error; the log has the cause."),
    (
        "503",
        "Starting, draining, too busy, or the store cannot write at the moment.",
    ),
];

/// The form of an API's errors, for its document.
pub(super) struct ErrorForm {
    /// What the names of the responses begin with, before the status.
    pub(super) prefix: &'static str,
    /// Their content type.
    pub(super) content_type: &'static str,
    /// The name of their schema.
    pub(super) schema: &'static str,
}

/// One response for each status, with the headers that come with it whichever API answers.
pub(super) fn error_responses<'a>(
    form: &ErrorForm,
    statuses: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Value {
    let mut responses = Map::new();
    for (status, description) in statuses {
        let mut headers = json!({
            "X-Request-Id": { "$ref": "#/components/headers/RequestId" }
        });
        if status == "401" {
            headers["WWW-Authenticate"] =
                json!({ "schema": { "type": "string" }, "description": "`Bearer`." });
        }
        if status == "405" {
            headers["Allow"] = json!({ "schema": { "type": "string" }, "description": "The methods that the path has." });
        }
        if status == "415" {
            headers["Accept-Encoding"] = json!({ "schema": { "type": "string" },
                "description": "`identity`, when the body had another Content-Encoding." });
        }
        if matches!(status, "409" | "429" | "503") {
            headers["Retry-After"] = json!({ "schema": { "type": "integer", "minimum": 1 },
                "description": "Seconds after which the same request may succeed, where waiting helps." });
        }
        let schema = format!("#/components/schemas/{}", form.schema);
        responses.insert(
            format!("{}{status}", form.prefix),
            json!({
                "description": description,
                "headers": headers,
                "content": { form.content_type: { "schema": { "$ref": schema } } }
            }),
        );
    }
    Value::Object(responses)
}

fn problems() -> Value {
    let form = ErrorForm {
        prefix: "Problem",
        content_type: "application/problem+json",
        schema: "Problem",
    };
    error_responses(&form, PROBLEMS.iter().copied())
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
            "description": "Why, for the audit log; a `reason` in the body goes before it.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]([ -~]*[!-~])?$" }
        },
        "Limit": {
            "name": "limit", "in": "query", "required": false,
            "description": "Items on the page.",
            "schema": { "type": "integer", "minimum": 1, "maximum": 200, "default": 50 }
        },
        "Cursor": {
            "name": "cursor", "in": "query", "required": false,
            "description": "`nextCursor` of the page before.",
            "schema": { "type": "string", "pattern": "^[A-Za-z0-9_-]*$" }
        },
        "IdempotencyKey": {
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "Repeat a request under the same key and it happens once; the first answer is replayed for 24 hours. A key is the workspace's: with another path or body it is a 422, and that is not carried out.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" }
        },
        "IfMatch": {
            "name": "If-Match", "in": "header", "required": false,
            "description": "The ETag of an earlier answer: change only if nothing changed since.",
            "example": "\"1\"",
            "schema": { "type": "string", "minLength": 1, "pattern": "^(\\*|\"[0-9]+\")$" }
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
            "description": "`true` when the answer was given before under the same Idempotency-Key.",
            "schema": { "type": "string", "const": "true" }
        },
        "Next": {
            "description": "The next page, `rel=\"next\"`.",
            "schema": { "type": "string" }
        },
        "Fence": {
            "description": "When a key was changed, or an answer is replayed: how many nodes might have signed by what was before, how many of them said that they follow the change, and after how many milliseconds none could sign by it any more. Of the others the last confirmation ran out. Absent otherwise.",
            "example": "nodes=3, confirmed=3, millis=12",
            "schema": { "type": "string", "pattern": "^nodes=[0-9]+, confirmed=[0-9]+, millis=[0-9]+$" }
        },
        "Location": {
            "description": "Where the new resource is.",
            "schema": { "type": "string", "format": "uri-reference" }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use hookturn_core::workspace::Scope;

    use super::*;

    fn document() -> Value {
        serde_json::from_str(openapi()).unwrap()
    }

    #[test]
    fn every_route_is_in_the_document_and_in_the_table() {
        let document = document();
        let mut documented = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                documented.insert((method.clone(), path.clone()));
            }
        }
        let table: BTreeSet<_> = ROUTES
            .iter()
            .map(|route| (route.method.to_owned(), route.path.to_owned()))
            .collect();
        assert_eq!(documented, table);
    }

    #[test]
    fn every_operation_names_its_statuses_and_its_scope() {
        let document = document();
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method];
            assert!(operation["operationId"].is_string(), "{route:?}");
            let statuses = operation["responses"].as_object().unwrap();
            assert!(statuses.keys().any(|s| s.starts_with('2')), "{route:?}");
            assert!(statuses.contains_key("500"), "{route:?}");
            for status in BEFORE_HANDLERS {
                assert!(statuses.contains_key(*status), "{status} of {route:?}");
            }
            assert_eq!(
                operation["x-required-scope"].as_str(),
                route.scope.map(Scope::as_str),
                "{route:?}"
            );
            assert_eq!(statuses.contains_key("401"), route.scope.is_some());
        }
    }

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
        let document = document();
        walk(&document, &document);
        assert_eq!(document["openapi"], "3.1.0");
        assert!(document["webhooks"]["delivery"]["post"].is_object());
    }

    #[test]
    fn the_checked_in_document_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api/openapi.json");
        let stored = std::fs::read_to_string(&path).unwrap();
        // `hookturn openapi > docs/api/openapi.json` writes it anew.
        assert!(
            stored == openapi(),
            "docs/api/openapi.json is not what `hookturn openapi` prints: write it anew"
        );
    }
}

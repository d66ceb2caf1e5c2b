//! Every answer that these tests get is held against the OpenAPI document: its status, the names of its headers and
//! the members of its problem are declared for its operation. What a made-up client finds is in `tests/judges`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use http::Method;
use serde_json::Value;

use super::Reply;

pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(hookturn::api::openapi()).unwrap());

/// Headers that the document does not speak of: they belong to HTTP, not to the API.
const OF_HTTP: &[&str] = &[
    "cache-control",
    "connection",
    "content-length",
    "content-type",
];

/// Fails unless the document promises this answer. What is no path of it is another API's.
#[track_caller]
pub(crate) fn check(method: &Method, path: &str, reply: &Reply) {
    let Some(item) = item(path) else {
        return;
    };
    let operation = item.get(method.as_str().to_ascii_lowercase());
    // What a path does not have, each of its operations says in the same way.
    let operation = operation.or_else(|| item.as_object()?.values().next());
    let status = reply.status.as_str();
    let response = resolved(&operation.unwrap()["responses"][status]);
    let place = format!("{method} {path}: {status}");
    assert!(response.is_object(), "{place} is not declared");
    let declared: BTreeSet<String> = names(&response["headers"])
        .map(str::to_ascii_lowercase)
        .collect();
    for name in reply.headers.keys() {
        let name = name.as_str();
        let is_declared = declared.contains(name) || OF_HTTP.contains(&name);
        assert!(is_declared, "{place}: the header {name} is not declared");
    }
    if reply.header("content-type") == Some("application/problem+json") {
        check_members("Problem", &reply.json(), &place);
        for error in reply.json()["errors"].as_array().into_iter().flatten() {
            check_members("FieldError", error, &place);
        }
    }
}

#[track_caller]
fn check_members(schema: &str, value: &Value, place: &str) {
    let declared = &DOCUMENT["components"]["schemas"][schema]["properties"];
    for name in names(value) {
        assert!(
            !declared[name].is_null(),
            "{place}: {schema} does not declare {name}"
        );
    }
}

pub(crate) fn names(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_object()
        .into_iter()
        .flat_map(|members| members.keys().map(String::as_str))
}

fn resolved(value: &'static Value) -> &'static Value {
    let target = value["$ref"].as_str();
    let target = target.and_then(|target| DOCUMENT.pointer(target.strip_prefix('#')?));
    target.unwrap_or(value)
}

/// The operations of a path: of the template with the fewest parameters that fits.
fn item(path: &str) -> Option<&'static Value> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let fitting = paths.iter().filter(|(template, _)| fits(template, path));
    fitting
        .min_by_key(|(template, _)| template.matches('{').count())
        .map(|(_, item)| item)
}

fn fits(template: &str, path: &str) -> bool {
    let (mut parts, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (parts.next(), given.next()) {
            (None, None) => return true,
            (Some(part), Some(given)) if part == given || part.starts_with('{') => {}
            _ => return false,
        }
    }
}

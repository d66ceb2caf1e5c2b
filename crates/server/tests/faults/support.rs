//! What every test here stands on: the binary as a child process, a client that writes bytes, and
//! receivers that write a book.
//!
//! Nothing sleeps. A wait is for an event (a line of the log, a request that arrived, the end of a
//! process) or asks again at short intervals; each has a bound and says what it waited for.

pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod receiver;

use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};

use http::Api;

/// How long anything that should happen soon may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits for a future within a bound.
pub(crate) async fn within<T>(bound: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(bound, future).await;
    ended.unwrap_or_else(|_| panic!("{what}: did not happen within {bound:?}"))
}

/// Asks again and again until there is an answer, within a bound.
pub(crate) async fn eventually<T>(
    bound: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let asking = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            if let Some(value) = ask().await {
                return value;
            }
        }
    };
    within(bound, what, asking).await
}

/// A number that whoever runs the tests may set.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests themselves are set up by their environment"
)]
pub(crate) fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")),
    )
}

/// Makes an app and returns its client id.
pub(crate) async fn app(api: &Api) -> String {
    let made = api.created("/v1/apps", &json!({"name": "fixture"})).await;
    text(&made, "clientId")
}

/// A member that must be a text.
pub(crate) fn text(value: &Value, member: &str) -> String {
    match value[member].as_str() {
        Some(text) => text.to_owned(),
        None => panic!("no text {member} in {value}"),
    }
}

/// An endpoint as it was made.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) keyring: String,
    pub(crate) secret: String,
}

/// Makes an endpoint; `more` is merged into the request.
pub(crate) async fn endpoint(api: &Api, app: &str, url: &str, more: Value) -> Endpoint {
    let mut body = json!({ "url": url });
    merge(&mut body, more);
    let made = api
        .created(&format!("/v1/apps/{app}/endpoints"), &body)
        .await;
    Endpoint {
        id: text(&made, "id"),
        keyring: text(&made, "keyringId"),
        secret: text(&made["secret"], "value"),
    }
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// Publishes one message and returns its id.
pub(crate) async fn publish(api: &Api, app: &str, event_type: &str, payload: Value) -> String {
    let body = json!({"eventType": event_type, "payload": payload});
    let reply = api
        .post(&format!("/v1/apps/{app}/messages"), Some(&body))
        .await;
    assert_eq!(reply.status, 202, "{reply:?}");
    text(&reply.json(), "id")
}

/// Every item of a list.
pub(crate) async fn list(api: &Api, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut next = format!(
        "{path}{}limit=200",
        if path.contains('?') { '&' } else { '?' }
    );
    loop {
        let page = api.get(&next).await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        items.extend(page["data"].as_array().cloned().unwrap_or_default());
        let Some(cursor) = page["nextCursor"].as_str() else {
            return items;
        };
        next = format!(
            "{path}{}limit=200&cursor={cursor}",
            if path.contains('?') { '&' } else { '?' }
        );
    }
}

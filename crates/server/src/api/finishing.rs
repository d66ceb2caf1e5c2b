//! Which requests of the API finish although their client left (see [`Finishing`]): all that may change
//! something, except publishing without a key. That is one commit, which happens whole or not at all
//! whoever waits for it, and the busiest road there is.
//!
//! [`Finishing`]: crate::service::finishing::Finishing

use axum::extract::{MatchedPath, Request};
use http::Method;

use super::{idempotency, router};

/// Whether a request is one of those that finish.
pub(super) fn finishes(request: &Request) -> bool {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return false;
    }
    let route = request.extensions().get::<MatchedPath>();
    let publishes = route.is_some_and(|route| is_publishing(route.as_str()));
    !publishes || request.headers().contains_key(idempotency::HEADER)
}

pub(super) fn is_publishing(route: &str) -> bool {
    router::PUBLISHING.contains(&route)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookturn_core::workspace::Scope;

    #[test]
    fn what_only_publishes_is_what_only_needs_the_scope_to_publish() {
        for route in router::ROUTES.iter().filter(|route| route.method == "post") {
            let publishes = route.scope == Some(Scope::Publish);
            assert_eq!(is_publishing(route.path), publishes, "{}", route.path);
        }
    }

    #[test]
    fn every_request_that_may_change_something_finishes() {
        for (method, key, wanted) in [
            ("GET", true, false),
            ("HEAD", true, false),
            ("POST", false, true),
            ("PATCH", false, true),
            ("DELETE", false, true),
            ("PUT", true, true),
        ] {
            let mut request = Request::builder().method(method).uri("/connect/v1/apps");
            if key {
                request = request.header(idempotency::HEADER, "k");
            }
            let request = request.body(axum::body::Body::empty()).unwrap();
            assert_eq!(finishes(&request), wanted, "{method}");
        }
    }
}

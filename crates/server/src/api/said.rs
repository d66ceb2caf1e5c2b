//! The reason in a body that no handler reads.
//!
//! A key that lacks the scope is refused before the handler has the body, and the caller's words for it
//! are in there: many calls of the native API take a `reason`. So the body of such a call is kept where
//! whoever refuses it can still read it: some of it, for a short time, for a live key only.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use super::{dialect, finishing};

/// How much is read for a reason, and for how long: of what takes one, nothing is larger.
const BYTES: usize = 16 * 1024;
const TIME: Duration = Duration::from_secs(2);

/// The body of a request, for whoever comes first.
#[derive(Clone)]
pub(super) struct Said(Arc<Mutex<Body>>);

/// What the handler reads.
struct Kept(Arc<Mutex<Body>>);

/// Keeps the body of a request that may hold a reason. Dialects take none, and publishing is the busy
/// road.
pub(super) fn keep(request: Request) -> Request {
    let route = request.extensions().get::<MatchedPath>();
    let takes_reason = route.is_some_and(|route| {
        dialect::of(route.as_str()).is_none() && !finishing::is_publishing(route.as_str())
    });
    if !takes_reason || request.body().is_end_stream() {
        return request;
    }
    let (mut parts, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body));
    parts.extensions.insert(Said(Arc::clone(&body)));
    Request::from_parts(parts, Body::new(Kept(body)))
}

/// All that is looked at.
#[derive(Deserialize)]
struct Why {
    reason: Option<String>,
}

impl Said {
    /// The reason in the body, if it has one. The body is used up by that.
    pub(super) async fn reason(&self) -> Option<String> {
        let body = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let read = tokio::time::timeout(TIME, Limited::new(body, BYTES).collect());
        let bytes = read.await.ok()?.ok()?.to_bytes();
        serde_json::from_slice::<Why>(&bytes).ok()?.reason
    }
}

impl Kept {
    fn with<T>(&self, with: impl FnOnce(Pin<&mut Body>) -> T) -> T {
        // One reader at a time, and a body that panicked is read no further by anyone.
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        with(Pin::new(&mut *body))
    }
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|body| body.poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}

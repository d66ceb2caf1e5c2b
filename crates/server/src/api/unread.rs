//! Bodies that nobody read: an answer that comes before them ends the connection, and says so.
//!
//! A caller without a key, or with one that may not, is answered before the body is read, so that
//! strangers cannot make the server read. HTTP/1.1 has no way to skip what is still to come, so the
//! connection is closed after the answer (RFC 9112, section 9.3). A client that is told, by
//! `Connection: close`, opens another one; one that is not loses its next request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use bytes::Bytes;
use http::Version;
use http_body::{Frame, SizeHint};

/// Whether the body of a request was read to its end.
pub(super) struct Watch(Arc<AtomicBool>);

impl Watch {
    /// Whether some of it is left.
    pub(super) fn is_left(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

/// A body that notes its end.
struct Watched {
    inner: Body,
    ended: Arc<AtomicBool>,
}

/// Watches the body of a request that has one. A stream of HTTP/2 ends alone: there is nothing to say.
pub(super) fn watch(request: Request) -> (Request, Option<Watch>) {
    if request.version() >= Version::HTTP_2 || request.body().is_end_stream() {
        return (request, None);
    }
    let ended = Arc::new(AtomicBool::new(false));
    let watch = Watch(Arc::clone(&ended));
    let request = request.map(|inner| Body::new(Watched { inner, ended }));
    (request, Some(watch))
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.inner.is_end_stream() {
            self.ended.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

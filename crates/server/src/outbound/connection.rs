//! One open connection to a receiver.
//!
//! HTTP/1.1 connections are driven by the task that uses them: no task of their own, no channel wake
//! between two tasks for each request, nothing that runs while idle. What a receiver does to an idle
//! connection is noticed when it is taken from the pool, before a byte is written to it. HTTP/2
//! connections serve many exchanges at once and have a task.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use hookturn_core::limits::ATTEMPT_BYTES;

use super::stream::{Allowance, Stream};

/// A request as hyper takes it.
pub(super) type Message = http::Request<Full<Bytes>>;
/// What comes back when nothing was answered: the error, and the message if it was never written.
pub(super) type Unanswered = TrySendError<Message>;

pub(super) enum Connection {
    H1(H1),
    H2(H2),
}

/// The state machine of an HTTP/1.1 connection.
type Driver = http1::Connection<TokioIo<Stream>, Full<Bytes>>;

/// An HTTP/1.1 connection with the state machine that runs it.
pub(super) struct H1 {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` once it has ended.
    driver: Option<Pin<Box<Driver>>>,
    allowance: Arc<Allowance>,
    remote: SocketAddr,
    /// When the pool gives it up.
    pub(super) idle_until: Instant,
}

impl H1 {
    pub(super) fn new(
        sender: http1::SendRequest<Full<Bytes>>,
        driver: Driver,
        allowance: Arc<Allowance>,
        remote: SocketAddr,
    ) -> Self {
        Self {
            sender,
            driver: Some(Box::pin(driver)),
            allowance,
            remote,
            idle_until: Instant::now(),
        }
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Sends the message and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        message: Message,
    ) -> Result<http::Response<Incoming>, Unanswered> {
        self.allowance.set(ATTEMPT_BYTES as u64);
        let mut answer = pin!(unconstrained(self.sender.try_send_request(message)));
        // Only `drive` below can complete the answer, so the answer needs no waker of its own; it is
        // unconstrained because an exhausted task budget would rely on that waker.
        std::future::poll_fn(|cx| {
            drive(&mut self.driver, cx);
            answer
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
    }

    /// The next frame of the body.
    pub(super) async fn frame(
        &mut self,
        body: &mut Incoming,
    ) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        std::future::poll_fn(|cx| self.poll_frame(body, cx)).await
    }

    /// The next frame of the body, if it is already here.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut unwatched = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut unwatched) {
            return Poll::Ready(frame);
        }
        // Asking made room for one; fetch it in the same turn if it is there.
        drive(&mut self.driver, cx);
        Pin::new(body).poll_frame(&mut unwatched)
    }

    /// Whether another request can be sent, after the body was read to its end.
    pub(super) async fn is_reusable(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            drive(&mut self.driver, cx);
            Poll::Ready(())
        })
        .await;
        self.driver.is_some() && self.sender.is_ready()
    }
}

fn drive(driver: &mut Option<Pin<Box<Driver>>>, cx: &mut Context<'_>) {
    // An error reaches the request or the body that it belongs to; here it only ends the connection.
    if let Some(running) = driver
        && running.as_mut().poll(cx).is_ready()
    {
        *driver = None;
    }
}

/// A handle of an HTTP/2 connection; clones share it.
#[derive(Clone)]
pub(super) struct H2 {
    sender: http2::SendRequest<Full<Bytes>>,
    allowance: Arc<Allowance>,
    remote: SocketAddr,
    id: u64,
}

impl H2 {
    /// Allowed before the first exchange: settings and the like.
    pub(super) const OPENING_BYTES: u64 = 16 * 1024;
    /// Most that unused allowances add up to: a hundred exchanges.
    const ALLOWANCE_MAX: u64 = 100 * ATTEMPT_BYTES as u64;

    pub(super) fn new(
        sender: http2::SendRequest<Full<Bytes>>,
        allowance: Arc<Allowance>,
        remote: SocketAddr,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            sender,
            allowance,
            remote,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Tells connections apart, so that a broken one is not confused with its successor.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends the message and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        message: Message,
    ) -> Result<http::Response<Incoming>, Unanswered> {
        self.allowance
            .grant(ATTEMPT_BYTES as u64, Self::ALLOWANCE_MAX);
        self.sender.try_send_request(message).await
    }
}

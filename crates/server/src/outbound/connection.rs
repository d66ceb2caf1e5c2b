//! One open connection to a receiver.
//!
//! HTTP/1.1 connections are driven by the task that uses them: no task of their own, no channel wake
//! between two tasks for each request, nothing that runs while idle. What a receiver does to an idle
//! connection is noticed when it is taken from the pool, before a byte is written to it. HTTP/2
//! connections serve many exchanges at once and have a task.
//!
//! A request is signed when its connection can take it, and must not wait in a queue afterwards (G4).
//! So each kind says beforehand whether it is ready: [`H1::is_ready`] before each request, and
//! [`H2::claim`] for a stream that the receiver allows now, rather than when another one ends.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use hookturn_core::limits::ATTEMPT_BYTES;

use super::config::RESPONSE_HEAD_BYTES;
use super::stream::{Allowance, Stream};

/// Bytes of an answer up to the end of its head: the largest head, and a quarter of it in
/// informational responses.
const BEFORE_BODY_BYTES: u64 = (RESPONSE_HEAD_BYTES + RESPONSE_HEAD_BYTES / 4) as u64;

/// A request as hyper takes it.
pub(super) type Message = http::Request<Full<Bytes>>;
/// What comes back when nothing was answered: the error, and the message if it was never written.
pub(super) type Unanswered = TrySendError<Message>;

pub(super) enum Connection {
    H1(H1),
    H2(Claimed),
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
        self.allowance.begin_answer(BEFORE_BODY_BYTES);
        let mut answer = pin!(unconstrained(self.sender.try_send_request(message)));
        // Written in this turn of the task, whatever is left of its budget.
        unconstrained(drive_once(&mut self.driver, &self.allowance)).await;
        // Only `drive` below can complete the answer, so the answer needs no waker of its own; it is
        // unconstrained because an exhausted task budget would rely on that waker.
        let answer = std::future::poll_fn(|cx| {
            drive(&mut self.driver, &self.allowance, cx);
            answer
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
        })
        .await;
        if answer.is_ok() {
            self.allowance.set(ATTEMPT_BYTES as u64);
        }
        answer
    }

    /// Whether nothing of an answer came since a message was sent that got none.
    pub(super) fn is_unanswered(&self) -> bool {
        self.allowance.is_untouched(BEFORE_BODY_BYTES)
    }

    /// Whether headers of the answer were left out.
    pub(super) fn head_was_cut(&self) -> bool {
        self.allowance.head_was_cut()
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
        drive(&mut self.driver, &self.allowance, cx);
        Pin::new(body).poll_frame(&mut unwatched)
    }

    /// Whether a request that is sent now is written at once: on a new or idle connection, or after
    /// the body was read to its end.
    pub(super) async fn is_ready(&mut self) -> bool {
        drive_once(&mut self.driver, &self.allowance).await;
        self.driver.is_some() && self.sender.is_ready()
    }
}

async fn drive_once(driver: &mut Option<Pin<Box<Driver>>>, allowance: &Allowance) {
    std::future::poll_fn(|cx| {
        drive(driver, allowance, cx);
        Poll::Ready(())
    })
    .await;
}

fn drive(driver: &mut Option<Pin<Box<Driver>>>, allowance: &Allowance, cx: &mut Context<'_>) {
    allowance.begin_turn();
    // An error reaches the request or the body that it belongs to; here it only ends the connection.
    if let Some(running) = driver
        && running.as_mut().poll(cx).is_ready()
    {
        *driver = None;
    }
}

/// The state machine of an HTTP/2 connection.
type SharedDriver = http2::Connection<TokioIo<Stream>, Full<Bytes>, TokioExecutor>;

/// A handle of an HTTP/2 connection; clones share it.
#[derive(Clone)]
pub(super) struct H2 {
    sender: http2::SendRequest<Full<Bytes>>,
    /// Run by a task, asked for the receiver's settings by the handles; `None` once it has ended.
    driver: Arc<Mutex<Option<SharedDriver>>>,
    allowance: Arc<Allowance>,
    remote: SocketAddr,
    id: u64,
    /// Exchanges on it now.
    open: Arc<AtomicUsize>,
}

/// An HTTP/2 connection with room for one exchange, which is given back on drop.
pub(super) struct Claimed(H2);

impl H2 {
    /// Allowed before the first exchange: settings and the like.
    pub(super) const OPENING_BYTES: u64 = 16 * 1024;
    /// Most that unused allowances add up to: a hundred exchanges.
    const ALLOWANCE_MAX: u64 = 100 * Self::EXCHANGE_BYTES;
    /// Allowed for each exchange: the largest head, and the body that is kept.
    const EXCHANGE_BYTES: u64 = BEFORE_BODY_BYTES + ATTEMPT_BYTES as u64;

    /// Starts the task that runs the connection. It ends by itself when the last handle is gone and no
    /// stream is open.
    pub(super) fn start(
        sender: http2::SendRequest<Full<Bytes>>,
        driver: SharedDriver,
        allowance: Arc<Allowance>,
        remote: SocketAddr,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let driver = Arc::new(Mutex::new(Some(driver)));
        let driven = Arc::clone(&driver);
        tokio::spawn(std::future::poll_fn(move |cx| {
            let mut driver = locked(&driven);
            if let Some(running) = &mut *driver
                && Pin::new(running).poll(cx).is_pending()
            {
                return Poll::Pending;
            }
            *driver = None;
            Poll::Ready(())
        }));
        Self {
            sender,
            driver,
            allowance,
            remote,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            open: Arc::default(),
        }
    }

    /// Tells connections apart, so that a broken one is not confused with its successor.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Why the connection was cut off, if it was.
    pub(super) fn cut_off(&self) -> Option<&str> {
        self.allowance.cut_off()
    }

    /// How many streams the receiver allows at once, as far as it has said.
    fn most_streams(&self) -> usize {
        locked(&self.driver)
            .as_ref()
            .map_or(0, SharedDriver::current_max_send_streams)
    }

    /// Whether the receiver allows one more stream now.
    pub(super) fn has_room(&self) -> bool {
        self.open.load(Ordering::Relaxed) < self.most_streams()
    }

    /// Room for one exchange, if the receiver allows one more stream now.
    pub(super) fn claim(&self) -> Option<Claimed> {
        let most = self.most_streams();
        let one_more = |open| (open < most).then_some(open + 1);
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Claimed(self.clone()))
    }
}

fn locked(driver: &Mutex<Option<SharedDriver>>) -> MutexGuard<'_, Option<SharedDriver>> {
    // hyper's state machine ends its connection when it panics; the rest of it stays readable.
    driver.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claimed {
    /// The first exchange on a new connection, before the receiver has said how many it allows.
    pub(super) fn first(connection: H2) -> Self {
        connection.open.fetch_add(1, Ordering::Relaxed);
        Self(connection)
    }

    /// The connection it is on.
    pub(super) fn connection(&self) -> &H2 {
        &self.0
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.0.remote
    }

    /// Sends the message and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        message: Message,
    ) -> Result<http::Response<Incoming>, Unanswered> {
        let Self(connection) = self;
        connection
            .allowance
            .grant(H2::EXCHANGE_BYTES, H2::ALLOWANCE_MAX);
        connection.sender.try_send_request(message).await
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

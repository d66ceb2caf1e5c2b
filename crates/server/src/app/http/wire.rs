//! The bytes of one connection, as hyper sees them.
//!
//! hyper refuses what is not HTTP, or has too much of it, below every service: with a bare status, or
//! with none where bytes of the request are still to come, because a connection that is closed over
//! unread bytes is reset and takes the answer with it. People who meet that see a connection that
//! ends. So hyper's own refusals are held back here, and [`answer`] says the same as a problem
//! document when hyper is done, and stays until the client has it. So it does for a request whose head
//! came in part and no further in time: hyper closes without a word.
//!
//! An answer is in the words of whose path the request was for. Which request that is, and how far it came,
//! is not said by hyper, and followed beside it ([`Place`]).

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use hookturn_core::time::Clock;
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::api;
use crate::api::problem::{Code, Problem};

use super::place::Place;
use super::{Edge, HEAD_BYTES, HEADER_TIME};

/// What is read and dropped after a refusal, so that the client sees it: time and bytes.
const REST_TIME: Duration = Duration::from_secs(1);
const REST_BYTES: u64 = 1024 * 1024;

/// A refusal of hyper's own.
struct HeldBack {
    status: u16,
    /// The `date` line it came with.
    date: Option<String>,
}

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client did not send a request within the time it has for one.
    TooLate,
    /// Anything else.
    Other,
}

/// What is left when hyper is done.
pub(super) struct Left {
    stream: TcpStream,
    held_back: Option<HeldBack>,
    place: Place,
    /// How many requests hyper has made of the bytes.
    taken: Arc<AtomicUsize>,
}

impl Left {
    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Where it is left. Empty while hyper has the connection.
pub(super) type Remains = Arc<Mutex<Option<Left>>>;

/// A connection for hyper.
pub(super) struct Wire {
    /// `None` only while it is dropped.
    left: Option<Left>,
    remains: Remains,
}

impl Wire {
    /// `taken` is counted up with every request that hyper hands on.
    pub(super) fn new(stream: TcpStream, taken: Arc<AtomicUsize>) -> (Self, Remains) {
        let remains = Remains::default();
        let left = Left {
            stream,
            held_back: None,
            place: Place::default(),
            taken,
        };
        let wire = Self {
            left: Some(left),
            remains: Arc::clone(&remains),
        };
        (wire, remains)
    }

    fn left(&mut self) -> io::Result<&mut Left> {
        self.left
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut remains = self.remains.lock().unwrap_or_else(PoisonError::into_inner);
        *remains = self.left.take();
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.left()?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut left.stream).poll_read(cx, buf);
        let taken = left.taken();
        left.place.came(&buf.filled()[before..], taken);
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left = self.left()?;
        if let Some(refusal) = refusal(buf) {
            left.held_back = Some(refusal);
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut left.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.left()?.stream).poll_flush(cx)
    }

    /// Done when hyper is: there may be something to say first.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Whether these bytes are a refusal that hyper made: every answer of the router has a request id.
fn refusal(bytes: &[u8]) -> Option<HeldBack> {
    let status = [400, 414, 431].into_iter().find(|status: &u16| {
        bytes
            .strip_prefix(b"HTTP/1.1 ")
            .or_else(|| bytes.strip_prefix(b"HTTP/1.0 "))
            .is_some_and(|rest| rest.starts_with(status.to_string().as_bytes()))
    })?;
    let head = std::str::from_utf8(bytes).ok()?.split("\r\n\r\n").next()?;
    let line = |name: &str| head.lines().find(|line| line.starts_with(name));
    if line("x-request-id:").is_some() {
        return None;
    }
    Some(HeldBack {
        status,
        date: line("date:").map(str::to_owned),
    })
}

fn problem(status: u16, left: &Left) -> Problem {
    let is_request_line = || left.place.is_request_line(left.taken(), HEAD_BYTES);
    match status {
        431 if !is_request_line() => head_too_large(),
        431 | 414 => uri_too_long(),
        _ => Problem::new(
            Code::MalformedRequest,
            "nothing was done: the request line or a header is not what HTTP allows, such as a name \
             with a space in it or a second, different Content-Length",
        ),
    }
}

pub(super) fn head_too_large() -> Problem {
    Problem::new(
        Code::HeadTooLarge,
        "nothing was done: the request line and headers have at most 32 KiB together, and there are at \
         most 100 headers",
    )
}

pub(super) fn uri_too_long() -> Problem {
    Problem::new(
        Code::UriTooLong,
        "nothing was done: the path and query are longer than any of this API",
    )
}

fn too_late() -> Problem {
    let seconds = HEADER_TIME.as_secs();
    Problem::new(
        Code::RequestTimeout,
        format!(
            "nothing was done: the request line and headers did not come within {seconds} seconds"
        ),
    )
}

/// Gives the refusal that was held back, or that is still due, and ends the connection so that the client
/// sees it.
pub(super) async fn answer(remains: &Remains, end: End, Edge(entropy, clock): &Edge) {
    let left = remains
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut left) = left else {
        return;
    };
    let (problem, date) = match left.held_back.take() {
        Some(held_back) => (problem(held_back.status, &left), held_back.date),
        None if end == End::TooLate && left.place.is_half_a_head(left.taken()) => {
            (too_late(), date(clock.as_ref()))
        }
        None => {
            let _gone = left.stream.shutdown().await;
            return;
        }
    };
    let path = left.place.path(left.taken());
    let response = api::refusal(entropy.as_ref(), &path, problem);
    let bytes = written(response, date.as_deref()).await;
    // A client that breaks off is its own affair.
    let finish = async {
        left.stream.write_all(&bytes).await?;
        left.stream.shutdown().await?;
        let mut rest = (&mut left.stream).take(REST_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _out_of_patience = tokio::time::timeout(REST_TIME, finish).await;
}

/// The `date` line of now.
fn date(clock: &dyn Clock) -> Option<String> {
    let now = jiff::Timestamp::from_second(clock.now().as_seconds()).ok()?;
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    let text = printer.timestamp_to_rfc9110_string(&now).ok()?;
    Some(format!("date: {text}"))
}

/// The response as HTTP/1.1 writes it.
async fn written(response: Response, date: Option<&str>) -> Vec<u8> {
    let (head, body) = response.into_parts();
    // A problem document is there as a whole.
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let body = body.unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    if let Some(date) = date {
        bytes.extend_from_slice(date.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

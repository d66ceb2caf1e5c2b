//! The bytes of one connection, as hyper sees them.
//!
//! hyper refuses what is not HTTP, or has too much of it, below every service: with a bare status, or
//! with none where bytes of the request are still to come, because a connection that is closed over
//! unread bytes is reset and takes the answer with it. People who meet that see a connection that
//! ends. So hyper's own refusals are held back here, and [`answer`] says the same as a problem
//! document when hyper is done, and stays until the client has it. So it does for a request whose head
//! came in part and no further in time: hyper closes without a word.
//!
//! Where in a request the bytes stand is not said by hyper, and followed here as far as the answers need
//! it ([`Place`]).

use std::io;
use std::pin::Pin;
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

/// Where in the requests of a connection the bytes stand that came last.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    /// Bytes of the line under way.
    line: usize,
    /// Whether the line under way has nothing but its end so far.
    line_is_blank: bool,
    /// Whether the line before was not blank: then the one under way belongs to a head, or to a body.
    within: bool,
    /// Whether something of a request came since the last answer.
    begun: bool,
    /// Whether the first bytes were those of HTTP/2; `None` before the first.
    http2: Option<bool>,
}

impl Place {
    fn came(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.http2.get_or_insert_with(|| bytes.starts_with(b"PRI"));
        self.begun |= !is_blank(bytes);
        let Some(end) = memchr::memrchr(b'\n', bytes) else {
            self.line_is_blank = (self.line == 0 || self.line_is_blank) && is_blank(bytes);
            self.line += bytes.len();
            return;
        };
        let (before, after) = (&bytes[..end], &bytes[end + 1..]);
        self.within = match memchr::memrchr(b'\n', before) {
            Some(start) => !is_blank(&before[start..]),
            None => !((self.line == 0 || self.line_is_blank) && is_blank(before)),
        };
        self.line = after.len();
        self.line_is_blank = is_blank(after);
    }

    fn answered(&mut self) {
        self.begun = false;
    }

    /// Whether a head that is too large has nothing but a request line so far. With requests that follow
    /// one another it is not known where in the bytes this one begins; but before a request line there is
    /// a blank line, or a body, before which there is one.
    fn is_request_line(&self, too_large: usize) -> bool {
        !self.within && self.line >= too_large
    }

    /// Whether a client waits for an answer to half a head.
    fn is_half_a_head(&self) -> bool {
        self.begun && self.http2 != Some(true)
    }
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// What is left when hyper is done.
pub(super) struct Left {
    stream: TcpStream,
    held_back: Option<HeldBack>,
    place: Place,
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
    pub(super) fn new(stream: TcpStream) -> (Self, Remains) {
        let remains = Remains::default();
        let left = Left {
            stream,
            held_back: None,
            place: Place::default(),
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
        left.place.came(&buf.filled()[before..]);
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
        left.place.answered();
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

fn problem(status: u16, place: &Place) -> Problem {
    match status {
        431 if !place.is_request_line(HEAD_BYTES) => head_too_large(),
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
        Some(held_back) => (problem(held_back.status, &left.place), held_back.date),
        None if end == End::TooLate && left.place.is_half_a_head() => {
            (too_late(), date(clock.as_ref()))
        }
        None => {
            let _gone = left.stream.shutdown().await;
            return;
        }
    };
    let response = api::refusal(entropy.as_ref(), "", problem);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn place(bytes: &[u8], piece: usize) -> Place {
        let mut place = Place::default();
        for bytes in bytes.chunks(piece) {
            place.came(bytes);
        }
        place
    }

    #[test]
    fn a_request_line_is_told_from_headers_wherever_it_stands() {
        let long = "p".repeat(50);
        let get = "GET / HTTP/1.1\r\nhost: x\r\n";
        let post = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
        for (text, line) in [
            (format!("GET /{long}"), true),
            (format!("\r\nGET /{long}"), true),
            (format!("{get}\r\nGET /{long}"), true),
            (format!("{post}GET /{long}"), true),
            (format!("{get}x-long: {long}"), false),
            (format!("{get}\r\n{get}x-long: {long}"), false),
            (format!("{post}{get}x-long: {long}"), false),
            (format!("{get}\r\n{get}x: y\r\n\r\n"), false),
            (format!("{get}\r\n{get}x: y\r\n\r\nGET /"), false),
        ] {
            for piece in [1, 2, 3, 7, text.len()] {
                let place = place(text.as_bytes(), piece);
                assert_eq!(place.is_request_line(50), line, "{text:?} by {piece}");
            }
        }
    }

    #[test]
    fn half_a_head_is_what_came_since_the_last_answer() {
        assert!(!place(b"", 1).is_half_a_head());
        assert!(!place(b"\r\n", 1).is_half_a_head());
        assert!(!place(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24).is_half_a_head());
        let mut place = place(b"POST / HTTP/1.1\r\n", 4);
        assert!(place.is_half_a_head());
        place.answered();
        assert!(!place.is_half_a_head());
        place.came(b"\r\n");
        assert!(!place.is_half_a_head());
        place.came(b"G");
        assert!(place.is_half_a_head());
    }
}

//! The bytes of one connection, as hyper sees them.
//!
//! hyper refuses what is not HTTP, or has too much of it, below every service: with a bare status, or
//! with none where bytes of the request are still to come, because a connection that is closed over
//! unread bytes is reset and takes the answer with it. People who meet that see a connection that
//! ends. So hyper's own refusals are held back here, and [`answer`] says the same as a problem
//! document when hyper is done, and stays until the client has it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use hookturn_core::id::Entropy;
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::api;
use crate::api::problem::{Code, Problem};

/// What is read and dropped after a refusal, so that the client sees it: time and bytes.
const REST_TIME: Duration = Duration::from_secs(1);
const REST_BYTES: u64 = 1024 * 1024;

/// A refusal of hyper's own.
struct HeldBack {
    status: u16,
    /// The `date` line it came with.
    date: Option<String>,
}

/// What is left when hyper is done.
pub(super) struct Left {
    stream: TcpStream,
    held_back: Option<HeldBack>,
    /// Whether the request line of the last request came to its end.
    line_ended: bool,
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
            line_ended: false,
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
        if !left.line_ended {
            left.line_ended = memchr::memchr(b'\n', &buf.filled()[before..]).is_some();
        }
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
        left.line_ended = false;
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

fn problem(status: u16, line_ended: bool) -> Problem {
    match status {
        431 if line_ended => Problem::new(
            Code::HeadTooLarge,
            "nothing was done: the request line and headers have at most 32 KiB together, and there \
             are at most 100 headers",
        ),
        431 | 414 => Problem::new(
            Code::UriTooLong,
            "nothing was done: the path and query are longer than any of this API",
        ),
        _ => Problem::new(
            Code::MalformedRequest,
            "nothing was done: the request line or a header is not what HTTP allows, such as a name \
             with a space in it or a second, different Content-Length",
        ),
    }
}

/// Gives the refusal that hyper held back, and ends the connection so that the client sees it.
pub(super) async fn answer(remains: &Remains, entropy: &dyn Entropy) {
    let left = remains
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut left) = left else {
        return;
    };
    let Some(held_back) = &left.held_back else {
        let _gone = left.stream.shutdown().await;
        return;
    };
    let problem = problem(held_back.status, left.line_ended);
    let response = api::refusal(entropy, "", problem);
    let bytes = written(response, held_back.date.as_deref()).await;
    // A client that breaks off is its own affair.
    let finish = async {
        left.stream.write_all(&bytes).await?;
        left.stream.shutdown().await?;
        let mut rest = (&mut left.stream).take(REST_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _out_of_patience = tokio::time::timeout(REST_TIME, finish).await;
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

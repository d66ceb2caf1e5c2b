//! One exchange on one connection: the request out, the bounded answer in.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use hookturn_core::limits::{RESPONSE_BODY_BYTES, RESPONSE_HEADERS};

use super::connect::micros;
use super::connection::{Claimed, H1, Message, Unanswered};
use super::frames::{CUT, NOTE, TOO_LARGE};
use super::head::TooLarge;
use super::outcome::{Failure, FailureKind, Response, RetryAfter, Timings};
use super::stream::Exceeded;
use super::target::Target;

/// Body bytes beyond what is kept that are thrown away to save the connection; more closes it.
const DISCARDED_BYTES: usize = 8 * 1024;

/// What a header takes beside its name and value: its place in the list, and the allocation of a name
/// that is not a usual one.
const FIELD_BYTES: usize = size_of::<(HeaderName, HeaderValue)>() + 64;

/// Memory that a head may take without taking from what is kept of the body: three or four headers. Head and body together stay within
/// [`ATTEMPT_BYTES`](hookturn_core::limits::ATTEMPT_BYTES), buffers included.
const USUAL_HEAD_BYTES: usize = 512;

/// Bodies of unknown length start in a buffer of this size.
const SHORT_BODY_BYTES: usize = 2 * 1024;

/// How far an exchange has come: what a timeout is reported by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Dns,
    Connect,
    Tls,
    Head,
    Body,
}

impl Phase {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Dns => "looking up the name",
            Self::Connect => "connecting",
            Self::Tls => "in the TLS handshake",
            Self::Head => "waiting for the response's headers",
            Self::Body => "reading the response's body",
        }
    }
}

/// What is known of an exchange while it runs; survives when the deadline cuts it off.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) started: Instant,
    pub(super) phase: Phase,
    pub(super) timings: Timings,
    pub(super) reused: bool,
    pub(super) remote: Option<SocketAddr>,
    /// A connection that was kept alive ended when the request was written on it, and it was written
    /// once more.
    pub(super) resent: bool,
    /// The HTTP/2 connection in use.
    pub(super) h2: Option<u64>,
    /// The status, once the head of the answer was read.
    pub(super) status: Option<u16>,
}

impl Trace {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            phase: Phase::Dns,
            timings: Timings::default(),
            reused: false,
            remote: None,
            resent: false,
            h2: None,
            status: None,
        }
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// The failure with what came before it, where the request was sent twice.
    pub(super) fn with_the_first_try(&self, failure: Failure) -> Failure {
        if !self.resent {
            return failure;
        }
        let Failure { kind, detail } = failure;
        let before =
            "was sent before on a connection that was kept alive and ended without an answer";
        Failure::new(kind, format!("{detail} (the same request {before})"))
    }

    fn head_arrived(&mut self, status: u16) {
        self.timings.first_byte = Some(micros(self.started));
        self.status = Some(status);
        self.phase = Phase::Body;
    }
}

/// Why an exchange on one connection came to nothing.
pub(super) enum Stopped<E> {
    /// Nothing of the request was written, or the receiver said that it ignored it: it may be sent
    /// again over another connection.
    Unsent,
    /// The caller has no headers for it any longer: nothing was written.
    Withheld(E),
    /// The request was written on a connection of HTTP/1.1 that had been kept alive, and that ended before a
    /// byte of the answer. Most often the receiver closed it while the request was on its way, and never
    /// read it; but it may have been processed.
    Stale(Failure),
    /// The request may have been processed.
    Failed(Failure),
}

impl<E> From<Failure> for Stopped<E> {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What an HTTP/1.1 exchange leaves behind.
pub(super) struct Finished {
    pub(super) response: Response,
    /// Whether the connection can serve another request.
    pub(super) reusable: bool,
    /// How long the receiver says it keeps the connection.
    pub(super) announced: Option<Duration>,
}

/// Sends over HTTP/1.1.
pub(super) async fn over_h1<E>(
    connection: &mut H1,
    compose: impl FnOnce() -> Result<Message, E>,
    target: &Target,
    trace: &mut Trace,
) -> Result<Finished, Stopped<E>> {
    trace.enter(Phase::Head);
    trace.remote = Some(connection.remote());
    if !connection.is_ready().await {
        return Err(Stopped::Unsent);
    }
    let mut message = compose().map_err(Stopped::Withheld)?;
    *message.uri_mut() = target.origin_form().clone();
    *message.version_mut() = http::Version::HTTP_11;
    message
        .headers_mut()
        .insert(HOST, target.host_header().clone());
    let answer = match connection.send(message).await {
        Ok(answer) => answer,
        Err(unanswered) => {
            let is_stale = trace.reused && connection.is_unanswered();
            return Err(match stopped(unanswered, trace) {
                Stopped::Failed(failure) if is_stale => Stopped::Stale(failure),
                stopped => stopped,
            });
        }
    };
    let (head, mut body) = answer.into_parts();
    trace.head_arrived(head.status.as_u16());
    let reusable = !closes(&head.headers);
    let announced = announced_idle(&head.headers);
    let head = KeptHead::new(head, connection.head_was_cut());
    let mut kept = Kept::for_body(&body, &head);
    while !kept.full {
        // A body may come in thousands of pieces; others have their turn in between.
        consume_budget().await;
        match connection.frame(&mut body).await {
            Some(Ok(frame)) => kept.add(&frame.into_data().unwrap_or_default()),
            Some(Err(error)) => return Err(broken(&error, trace).into()),
            None => break,
        }
    }
    let ended = !kept.full || rest_is_here(connection, &mut body).await;
    let reusable = reusable && ended && connection.is_ready().await;
    Ok(Finished {
        announced,
        reusable,
        response: kept.into_response(head),
    })
}

/// Sends over HTTP/2.
pub(super) async fn over_h2<E>(
    claimed: &mut Claimed,
    compose: impl FnOnce() -> Result<Message, E>,
    target: &Target,
    trace: &mut Trace,
) -> Result<Response, Stopped<E>> {
    trace.enter(Phase::Head);
    trace.remote = Some(claimed.remote());
    trace.h2 = Some(claimed.connection().id());
    let mut message = compose().map_err(Stopped::Withheld)?;
    *message.uri_mut() = target.absolute_form().clone();
    *message.version_mut() = http::Version::HTTP_2;
    message.headers_mut().remove(HOST);
    let answer = match claimed.send(message).await {
        Ok(answer) => answer,
        Err(unanswered) => return Err(stopped_h2(unanswered, claimed, trace)),
    };
    let (mut head, mut body) = answer.into_parts();
    // Among others of this name, if the receiver has any: ours is the last.
    let note = head.headers.get_all(NOTE).iter().next_back().cloned();
    head.headers.remove(NOTE);
    if note.as_ref().is_some_and(|note| note == TOO_LARGE) {
        return Err(Failure::new(FailureKind::HeadTooLarge, TooLarge.to_string()).into());
    }
    trace.head_arrived(head.status.as_u16());
    let head = KeptHead::new(head, note.is_some_and(|note| note == CUT));
    let mut kept = Kept::for_body(&body, &head);
    while !kept.full {
        match body.frame().await {
            Some(Ok(frame)) => kept.add(&frame.into_data().unwrap_or_default()),
            Some(Err(error)) => return Err(broken_h2(&error, claimed, trace).into()),
            None => break,
        }
    }
    // Dropping the body resets the stream, if there was more of it.
    Ok(kept.into_response(head))
}

/// The part of a head that is kept, in less memory than a map takes: a body comes beside it.
struct KeptHead {
    status: u16,
    fields: Vec<(HeaderName, HeaderValue)>,
    truncated: bool,
    retry_after: Option<RetryAfter>,
}

impl KeptHead {
    /// `cut` says whether headers were left out before they were parsed.
    fn new(head: http::response::Parts, cut: bool) -> Self {
        let retry_after = head.headers.get(RETRY_AFTER).and_then(RetryAfter::parse);
        let truncated = cut || head.headers.len() > RESPONSE_HEADERS;
        let mut fields = Vec::with_capacity(head.headers.len().min(RESPONSE_HEADERS));
        let mut last = None;
        // Moved, because a copy of a name takes memory of its own. A name comes with the first of its
        // values.
        for (name, value) in head.headers.into_iter().take(RESPONSE_HEADERS) {
            last = name.or(last);
            fields.extend(last.clone().map(|name| (name, value)));
        }
        Self {
            status: head.status.as_u16(),
            fields,
            truncated,
            retry_after,
        }
    }

    /// The memory it takes.
    fn bytes(&self) -> usize {
        let bytes = |(name, value): &(HeaderName, HeaderValue)| {
            FIELD_BYTES + name.as_str().len() + value.len()
        };
        self.fields.iter().map(bytes).sum()
    }
}

/// The part of a body that is kept.
struct Kept {
    bytes: BytesMut,
    /// How many bytes that may be.
    most: usize,
    truncated: bool,
    /// Nothing more is read.
    full: bool,
}

impl Kept {
    fn for_body(body: &Incoming, head: &KeptHead) -> Self {
        let beyond = head.bytes().saturating_sub(USUAL_HEAD_BYTES);
        let most = RESPONSE_BODY_BYTES.saturating_sub(beyond);
        let announced = body.size_hint().exact().unwrap_or(0);
        let room = usize::try_from(announced).map_or(most, |bytes| bytes.min(most));
        Self {
            bytes: BytesMut::with_capacity(room),
            most,
            truncated: false,
            full: body.is_end_stream(),
        }
    }

    fn add(&mut self, data: &Bytes) {
        let room = self.most - self.bytes.len();
        let wanted = self.bytes.len() + room.min(data.len());
        if wanted > self.bytes.capacity() && wanted > SHORT_BODY_BYTES {
            // Growing step by step would hold two large buffers at each step.
            self.bytes.reserve(room);
        }
        self.bytes.extend_from_slice(&data[..room.min(data.len())]);
        if data.len() > room {
            self.truncated = true;
            self.full = true;
        }
    }

    fn into_response(self, head: KeptHead) -> Response {
        Response {
            status: head.status,
            retry_after: head.retry_after,
            headers_truncated: head.truncated,
            headers: head.fields.into_iter().collect(),
            body: self.bytes.freeze(),
            truncated: self.truncated,
        }
    }
}

/// Throws the rest of a body away if it is short and already here; never waits for it.
async fn rest_is_here(connection: &mut H1, body: &mut Incoming) -> bool {
    if body.is_end_stream() {
        return true;
    }
    let mut left = DISCARDED_BYTES;
    std::future::poll_fn(|cx| {
        loop {
            match connection.poll_frame(body, cx) {
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Ready(Some(Ok(frame))) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    if bytes > left {
                        return Poll::Ready(false);
                    }
                    left -= bytes;
                }
                Poll::Ready(Some(Err(_))) | Poll::Pending => return Poll::Ready(false),
            }
        }
    })
    .await
}

fn closes(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// `Keep-Alive: timeout=5` means that the receiver closes after five idle seconds; a second less
/// keeps a request from crossing that close on the wire.
fn announced_idle(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("keep-alive")?.to_str().ok()?;
    let seconds = text
        .split(',')
        .find_map(|part| part.trim().strip_prefix("timeout="))?;
    let seconds: u64 = seconds.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.saturating_sub(1)))
}

fn stopped<E>(mut unanswered: Unanswered, trace: &Trace) -> Stopped<E> {
    if unanswered.take_message().is_some() || was_ignored(unanswered.error()) {
        return Stopped::Unsent;
    }
    Stopped::Failed(broken(unanswered.error(), trace))
}

/// Whether the receiver says that it did not process the request (RFC 9113, section 8.7).
fn was_ignored(error: &hyper::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<h2::Error>())
        .any(|h2| h2.is_remote() && h2.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// The same over HTTP/2.
fn stopped_h2<E>(unanswered: Unanswered, claimed: &Claimed, trace: &Trace) -> Stopped<E> {
    match stopped(unanswered, trace) {
        Stopped::Failed(failure) => Stopped::Failed(cut_off(claimed).unwrap_or(failure)),
        stopped => stopped,
    }
}

fn broken_h2(error: &hyper::Error, claimed: &Claimed, trace: &Trace) -> Failure {
    cut_off(claimed).unwrap_or_else(|| broken(error, trace))
}

/// The failure of an exchange on a connection that we ended.
fn cut_off(claimed: &Claimed) -> Option<Failure> {
    let why = claimed.connection().cut_off()?;
    Some(Failure::new(FailureKind::BadResponse, why))
}

/// What h2 found wrong with what came, if it did.
fn violation(error: &hyper::Error) -> Option<h2::Reason> {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<h2::Error>())
        .filter(|h2| h2.is_library())
        .find_map(h2::Error::reason)
        .filter(|reason| *reason != h2::Reason::NO_ERROR)
}

/// Whether an error of ours, from below the parser, is the cause.
fn is_due_to<E: std::error::Error + 'static>(error: &hyper::Error) -> bool {
    causes(error).any(|cause| {
        cause.is::<E>()
            || cause
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
                .is_some_and(<dyn std::error::Error + Send + Sync>::is::<E>)
    })
}

/// A failure after the request was handed to the connection.
fn broken(error: &hyper::Error, trace: &Trace) -> Failure {
    if is_due_to::<Exceeded>(error) {
        return Failure::new(FailureKind::BadResponse, Exceeded.to_string());
    }
    if is_due_to::<TooLarge>(error) {
        return Failure::new(FailureKind::HeadTooLarge, TooLarge.to_string());
    }
    if let Some(reason) = violation(error) {
        return Failure::new(
            FailureKind::BadResponse,
            format!("the response is not valid HTTP/2: {}", reason.description()),
        );
    }
    let innermost = causes(error).last().map(ToString::to_string);
    if error.is_parse_too_large() {
        return Failure::new(FailureKind::HeadTooLarge, TooLarge.to_string());
    }
    if error.is_parse() {
        return Failure::new(
            FailureKind::BadResponse,
            format!("the response is not valid HTTP: {error}"),
        );
    }
    if let Some(malformed) = malformed_body(error) {
        return Failure::new(
            FailureKind::BadResponse,
            format!("the body of the response is not valid HTTP: {malformed}"),
        );
    }
    let place = match (trace.status, trace.reused) {
        (Some(status), _) => format!("in the middle of its response (status {status})"),
        (None, true) => "that was kept alive, before it answered the next request".to_owned(),
        (None, false) => "before it answered".to_owned(),
    };
    let cause = innermost.unwrap_or_else(|| error.to_string());
    Failure::new(
        FailureKind::Reset,
        format!("the receiver ended the connection {place}: {cause}"),
    )
}

/// What the decoder of chunks and trailers found wrong, if it did. Its errors have these kinds; a connection that
/// breaks has others, and what TLS finds wrong has a cause of its own.
fn malformed_body(error: &hyper::Error) -> Option<&std::io::Error> {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .filter(|io| {
            !io.get_ref()
                .is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
        })
        .find(|io| matches!(io.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput))
}

/// An error and what lies under it.
fn causes<'a>(
    error: &'a hyper::Error,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(
        Some(error as &'a (dyn std::error::Error + 'static)),
        |cause| cause.source(),
    )
}

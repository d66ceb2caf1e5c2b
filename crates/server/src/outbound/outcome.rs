//! What came of an exchange: always a value, never an error that escapes.

use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::Bytes;
use hookturn_core::time::Timestamp;
use http::{HeaderMap, HeaderValue};

/// One exchange with a receiver, whatever came of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The receiver's answer, or why there is none.
    pub result: Result<Response, Failure>,
    /// Where the time went.
    pub timings: Timings,
    /// Whether the request went over a connection that had served another one before.
    pub reused: bool,
    /// Whether the request was sent a second time, over a new connection, because one that had been kept
    /// alive ended before the first byte of an answer. The receiver may have processed both.
    pub resent: bool,
    /// The address that was connected to, as far as it came.
    pub remote: Option<SocketAddr>,
}

/// Where the time of an exchange went, in microseconds. The first three are `None` when there was no
/// such step: a reused connection, a literal address, plain HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Looking the name up.
    pub dns: Option<u64>,
    /// Connecting, to the first of the addresses that answered.
    pub connect: Option<u64>,
    /// The TLS handshake.
    pub tls: Option<u64>,
    /// From the start to the end of the response's headers.
    pub first_byte: Option<u64>,
    /// The whole exchange.
    pub total: u64,
}

/// A complete answer: status, headers, and the beginning of the body.
#[derive(Debug, Clone)]
pub struct Response {
    /// The final status; informational ones are skipped, redirects are not followed.
    pub status: u16,
    /// At most [`RESPONSE_HEADERS`](hookturn_core::limits::RESPONSE_HEADERS).
    pub headers: HeaderMap,
    /// Whether there were more headers than what was kept.
    pub headers_truncated: bool,
    /// At most [`RESPONSE_BODY_BYTES`](hookturn_core::limits::RESPONSE_BODY_BYTES), less by
    /// what many or large headers take, as received: nothing is decompressed.
    pub body: Bytes,
    /// Whether the body was longer than what was kept.
    pub truncated: bool,
    /// When the receiver asks to be tried again.
    pub retry_after: Option<RetryAfter>,
}

/// The value of a `Retry-After` header (RFC 9110, section 10.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// In so many seconds from now.
    Seconds(u64),
    /// At this time, in seconds since the Unix epoch.
    At(u64),
}

impl RetryAfter {
    /// Reads a header value; `None` when it is neither a number nor a date.
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // Too many digits for a number is still "very late", which the caller cuts.
            return Some(Self::Seconds(text.parse().unwrap_or(u64::MAX)));
        }
        seconds_of(text).map(Self::At)
    }

    /// The earliest time the receiver wants to be tried again.
    pub fn due(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Seconds(seconds) => now.after(seconds.saturating_mul(1_000)),
            Self::At(seconds) => Timestamp::EPOCH.after(seconds.saturating_mul(1_000)),
        }
    }
}

/// A date in one of the three forms of RFC 9110, section 5.6.7, or as mail has it, in seconds since the Unix epoch.
fn seconds_of(text: &str) -> Option<u64> {
    if let Ok(date) = httpdate::parse_http_date(text) {
        let since = date.duration_since(SystemTime::UNIX_EPOCH);
        return since.ok().map(|since| since.as_secs());
    }
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    let date = parser.parse_timestamp(text).ok()?;
    u64::try_from(date.as_second()).ok()
}

/// Why there is no complete answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// What kind of failure, for code.
    pub kind: FailureKind,
    /// What happened, for people; at most [`Failure::DETAIL_BYTES`].
    pub detail: String,
}

impl Failure {
    /// Longest detail, in bytes: it is stored with the attempt.
    pub const DETAIL_BYTES: usize = 512;

    pub(super) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > Self::DETAIL_BYTES {
            let end = detail.floor_char_boundary(Self::DETAIL_BYTES);
            detail.truncate(end);
        }
        Self { kind, detail }
    }
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The address policy refused.
    Refused,
    /// The name has no address, or could not be looked up.
    Dns,
    /// No address accepted a connection.
    Connect,
    /// There was no usable connection within the connect timeout.
    ConnectTimeout,
    /// The TLS handshake failed, most often over the certificate.
    Tls,
    /// There was no complete answer before the deadline.
    Timeout,
    /// The receiver closed the connection before its answer was complete.
    Reset,
    /// The answer is not HTTP.
    BadResponse,
    /// The answer's head is larger than is read.
    HeadTooLarge,
}

impl FailureKind {
    /// Every kind, for tables and documentation.
    pub const ALL: [Self; 9] = [
        Self::Refused,
        Self::Dns,
        Self::Connect,
        Self::ConnectTimeout,
        Self::Tls,
        Self::Timeout,
        Self::Reset,
        Self::BadResponse,
        Self::HeadTooLarge,
    ];

    /// A stable code for the store, APIs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::BadResponse => "bad_response",
            Self::HeadTooLarge => "head_too_large",
        }
    }

    /// The kind with this code.
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == code)
    }

    /// What the endpoint's owner can do about it, in one plain sentence.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Refused => {
                "use a public https address, or ask the operator to allow this network"
            }
            Self::Dns => {
                "check the spelling of the host name, that its DNS records are public and that its \
                 name servers answer"
            }
            Self::Connect => {
                "check that the server is running, that the port is right and that its firewall \
                 lets Hookturn in"
            }
            Self::ConnectTimeout => {
                "check that the server is reachable from outside: packets seem to be dropped, most \
                 often by a firewall"
            }
            Self::Tls => {
                "check that the certificate names this host, is not expired and comes with its \
                 chain, and that TLS 1.2 or 1.3 is on"
            }
            Self::Timeout => {
                "answer at once and do the work later, from a queue; or raise the endpoint's timeout"
            }
            Self::Reset => {
                "look for a crash, a proxy limit or a restart on the server at that time; it closed \
                 the connection before it had answered"
            }
            Self::BadResponse => "check that the port speaks HTTP, and https if the URL says so",
            Self::HeadTooLarge => "answer with fewer and shorter headers; a webhook needs none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<RetryAfter> {
        RetryAfter::parse(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        assert_eq!(parse("0"), Some(RetryAfter::Seconds(0)));
        assert_eq!(parse(" 120 "), Some(RetryAfter::Seconds(120)));
        assert_eq!(
            parse("99999999999999999999999"),
            Some(RetryAfter::Seconds(u64::MAX))
        );
        for date in [
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "Wednesday, 21-Oct-15 07:28:00 GMT",
            "Wed Oct 21 07:28:00 2015",
            "Wed, 21 Oct 2015 09:28:00 +0200",
        ] {
            let at = Some(RetryAfter::At(1_445_412_480));
            assert_eq!(parse(date), at, "{date}");
        }
        for nonsense in ["", "-1", "1.5", "soon", "Wed, 21 Oct 1915 07:28:00 GMT"] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn g10_retry_after_never_leaves_the_range_of_times() {
        let now = Timestamp::from_millis(1_000);
        assert_eq!(
            RetryAfter::Seconds(2).due(now),
            Timestamp::from_millis(3_000)
        );
        assert_eq!(RetryAfter::At(5).due(now), Timestamp::from_millis(5_000));
        for late in [RetryAfter::Seconds(u64::MAX), RetryAfter::At(u64::MAX)] {
            assert_eq!(late.due(now), Timestamp::FAR_FUTURE);
        }
    }

    #[test]
    fn every_kind_has_its_own_code_and_advice() {
        for kind in FailureKind::ALL {
            assert_eq!(FailureKind::parse(kind.as_str()), Some(kind));
            assert!(kind.advice().len() > 20);
        }
        assert_eq!(FailureKind::parse("unknown"), None);
    }

    #[test]
    fn g10_a_detail_is_cut_at_a_character() {
        let failure = Failure::new(FailureKind::Tls, "ä".repeat(1_000));
        assert_eq!(failure.detail.len(), Failure::DETAIL_BYTES);
        let failure = Failure::new(FailureKind::Tls, format!("x{}", "ä".repeat(1_000)));
        assert_eq!(failure.detail.len(), Failure::DETAIL_BYTES - 1);
    }
}

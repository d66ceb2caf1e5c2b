//! Deliveries and attempts: one message for one endpoint, and each try to hand it over.
//!
//! A delivery is pending, delivered or exhausted, never anything else and never none of them (G1).
//! [`after_attempt`] is the one place that decides what follows an attempt.

use hookturn_verify::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::id::{ClientId, DeliveryId, EndpointId, MessageId, SecretId, WorkspaceId};
use crate::limits;
use crate::message::EventType;
use crate::retry::RetryOn;
use crate::time::{Millis, Timestamp};

/// One message for one endpoint, as lists and pages show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// The workspace it belongs to.
    pub workspace: WorkspaceId,
    /// The app the message was published to.
    pub app: ClientId,
    /// Where it goes.
    pub endpoint: EndpointId,
    /// What it carries.
    pub message: MessageId,
    /// The message's event type.
    pub event_type: EventType,
    /// Attempts made so far.
    pub attempts: u32,
    /// Where it stands.
    pub state: DeliveryState,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It will be attempted.
    Pending {
        /// Not before this time.
        due_at: Timestamp,
    },
    /// The receiver answered 2xx.
    Delivered {
        /// When.
        at: Timestamp,
    },
    /// It will not be attempted again, unless someone asks for it.
    Exhausted {
        /// When that was decided.
        at: Timestamp,
        /// Why.
        reason: ExhaustedReason,
    },
}

/// The words of [`DeliveryState`], for filters and lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeliveryStatus {
    /// See [`DeliveryState::Pending`].
    Pending,
    /// See [`DeliveryState::Delivered`].
    Delivered,
    /// See [`DeliveryState::Exhausted`].
    Exhausted,
}

impl DeliveryStatus {
    /// The word in API and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Exhausted => "exhausted",
        }
    }
}

impl DeliveryState {
    /// The word for it.
    pub const fn status(&self) -> DeliveryStatus {
        match self {
            Self::Pending { .. } => DeliveryStatus::Pending,
            Self::Delivered { .. } => DeliveryStatus::Delivered,
            Self::Exhausted { .. } => DeliveryStatus::Exhausted,
        }
    }
}

/// Why a delivery will not be attempted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExhaustedReason {
    /// Every attempt of the policy failed.
    AttemptsUsed,
    /// The policy does not retry this failure.
    NotRetried,
    /// The receiver answered 410; its endpoint is disabled.
    Gone,
    /// The endpoint was disabled while the delivery waited.
    EndpointDisabled,
    /// The endpoint was deleted while the delivery waited.
    EndpointDeleted,
    /// A callback by GET whose parameters make its URL longer than
    /// [`limits::GET_TARGET_BYTES`]; nothing was sent.
    UrlTooLong,
}

impl ExhaustedReason {
    /// The word in API, pages and stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsUsed => "attemptsUsed",
            Self::NotRetried => "notRetried",
            Self::Gone => "gone",
            Self::EndpointDisabled => "endpointDisabled",
            Self::EndpointDeleted => "endpointDeleted",
            Self::UrlTooLong => "urlTooLong",
        }
    }

    /// The inverse of [`ExhaustedReason::as_str`].
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::AttemptsUsed,
            Self::NotRetried,
            Self::Gone,
            Self::EndpointDisabled,
            Self::EndpointDeleted,
            Self::UrlTooLong,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == word)
    }
}

/// One try to hand a delivery over: one exchange, or two when the first was refused and the plan
/// has a fallback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first of the delivery.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_millis: u32,
    /// What was sent and answered, in order. At least one.
    pub exchanges: Vec<Exchange>,
}

impl Attempt {
    /// The exchange that decided the attempt: the last one.
    pub fn decisive(&self) -> Option<&Exchange> {
        self.exchanges.last()
    }

    /// Whether the receiver accepted.
    pub fn accepted(&self) -> bool {
        self.decisive().is_some_and(Exchange::accepted)
    }
}

/// One HTTP request and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// Why these keys signed.
    pub reason: ExchangeReason,
    /// The secrets that signed, in the order of their signatures. None when the exchange ended before
    /// a connection could take the request: nothing is signed before that.
    pub signed_with: Vec<SignedWith>,
    /// The Unix seconds that were signed; those of the exchange's end when nothing was.
    pub timestamp: i64,
    /// The value of the signature header: proof of what was sent, no secret. Empty when nothing was
    /// signed.
    pub signature: String,
    /// What came back.
    pub result: ExchangeResult,
    /// Where the time went.
    pub timings: Timings,
    /// Whether the request was written twice: a connection that had been kept alive ended before a byte of
    /// its answer, so the request went once more over a new one, signed anew. The receiver may have
    /// processed both. All of the above is of the last one that was signed.
    // Records are stored by position, and the store keeps this beside those of its first format.
    #[serde(skip)]
    pub resent: bool,
}

impl Exchange {
    /// Whether the receiver answered 2xx.
    pub fn accepted(&self) -> bool {
        matches!(&self.result, ExchangeResult::Answered(answer) if (200..300).contains(&answer.status))
    }

    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        match &self.result {
            ExchangeResult::Answered(answer) => Some(answer.status),
            ExchangeResult::Failed(_) => None,
        }
    }
}

/// How an attempt ended, by the first digit of the code it was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CodeClass {
    /// 2xx: accepted.
    #[serde(rename = "2xx")]
    Accepted,
    /// 3xx, which is not followed.
    #[serde(rename = "3xx")]
    Redirect,
    /// 4xx: refused.
    #[serde(rename = "4xx")]
    Refused,
    /// 5xx: the receiver failed.
    #[serde(rename = "5xx")]
    Failed,
    /// Any other code.
    #[serde(rename = "other")]
    Other,
    /// No answer.
    #[serde(rename = "none")]
    NoAnswer,
}

impl CodeClass {
    /// All of them, in the order they are listed.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::Redirect,
        Self::Refused,
        Self::Failed,
        Self::Other,
        Self::NoAnswer,
    ];

    /// The word in links and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "2xx",
            Self::Redirect => "3xx",
            Self::Refused => "4xx",
            Self::Failed => "5xx",
            Self::Other => "other",
            Self::NoAnswer => "none",
        }
    }

    /// That of an attempt: of its last exchange.
    pub fn of(attempt: &Attempt) -> Self {
        match attempt.decisive().and_then(Exchange::status) {
            Some(200..=299) => Self::Accepted,
            Some(300..=399) => Self::Redirect,
            Some(400..=499) => Self::Refused,
            Some(500..=599) => Self::Failed,
            Some(_) => Self::Other,
            None => Self::NoAnswer,
        }
    }
}

/// Why an exchange was signed the way it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExchangeReason {
    /// The signing plan, no more is known: nothing was signed, or the record is older than the reasons
    /// below.
    Plan,
    /// The first exchange was refused in a way that can be about the signature.
    Fallback,
    // Records are stored by position: new reasons come last.
    /// One secret was live.
    Steady,
    /// Two secrets were live, and the receiver reads every signature: both signed.
    CoSigned,
    /// There were two, and this is the one the receiver was believed to hold, or of which it accepted more while
    /// the new one was waiting.
    Belief,
    /// Two were live, and nothing was believed: the older one, which had every receiver.
    NoBelief,
    /// A new secret was waiting: the current one.
    Current,
    /// A new secret was waiting, and this delivery was one of those that try it first.
    Canary,
    /// The active one had leaked and may not be the fallback, so it came first.
    Compromised,
}

impl ExchangeReason {
    /// All of them, in the order of their positions.
    pub const ALL: [Self; 9] = [
        Self::Plan,
        Self::Fallback,
        Self::Steady,
        Self::CoSigned,
        Self::Belief,
        Self::NoBelief,
        Self::Current,
        Self::Canary,
        Self::Compromised,
    ];

    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Fallback => "fallback",
            Self::Steady => "steady",
            Self::CoSigned => "coSigned",
            Self::Belief => "belief",
            Self::NoBelief => "noBelief",
            Self::Current => "current",
            Self::Canary => "canary",
            Self::Compromised => "compromised",
        }
    }

    /// Why these secrets signed, in a sentence.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Plan => "nothing was signed, or it is not known why this secret was",
            Self::Fallback => {
                "the exchange before was refused in a way that can be about the signature, so the other \
                 live secret signed"
            }
            Self::Steady => "it was the only live secret",
            Self::CoSigned => "two secrets were live and the receiver reads every signature",
            Self::Belief => {
                "there were two secrets, and the receiver's latest answers spoke for this one"
            }
            Self::NoBelief => {
                "two secrets were live and it was not known which one the receiver holds: the older one \
                 goes first"
            }
            Self::Current => "a new secret was waiting, and the current one goes first",
            Self::Canary => {
                "a canary: one of the deliveries that try the new secret before it is promoted"
            }
            Self::Compromised => {
                "the active secret had leaked and is never a fallback, so it goes first"
            }
        }
    }
}

/// A secret that signed, by what can be shown of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedWith {
    /// Which one.
    pub secret: SecretId,
    /// Its fingerprint.
    #[serde(with = "crate::fingerprint")]
    pub fingerprint: Fingerprint,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExchangeResult {
    /// A complete HTTP response.
    Answered(Answer),
    /// None.
    Failed(ExchangeFailure),
}

/// What is kept of a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// At most [`limits::RESPONSE_HEADERS`], values as text with foreign bytes replaced.
    pub headers: Vec<(String, String)>,
    /// At most [`limits::RESPONSE_BODY_BYTES`].
    pub body: Vec<u8>,
    /// Whether the body was longer, or there were more or larger headers.
    pub truncated: bool,
    /// What `Retry-After` asked for, in milliseconds from the answer, if it did.
    pub retry_after_millis: Option<Millis>,
}

/// Why there was no response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeFailure {
    /// A stable word, such as `timeout` or `refusedAddress`.
    pub kind: String,
    /// A sentence for people.
    pub detail: String,
}

/// Where the time of an exchange went, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Resolving the name; zero when the connection was reused.
    pub dns: u32,
    /// Connecting; zero when the connection was reused.
    pub connect: u32,
    /// TLS handshake; zero when the connection was reused or plain.
    pub tls: u32,
    /// From the request to the first byte of the response.
    pub first_byte: u32,
    /// All of it.
    pub total: u32,
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Done.
    Delivered,
    /// Another attempt, not before this time.
    RetryAt(Timestamp),
    /// No more attempts.
    Exhausted(ExhaustedReason),
}

/// Decides what follows `attempt`, which ended at `now`.
///
/// 1. 2xx: delivered.
/// 2. 410: exhausted; the caller disables the endpoint.
/// 3. A failure that the policy does not retry: exhausted.
/// 4. The policy has another retry: at its time, or later if `Retry-After` on 429 or 503 asks for
///    it (cut to [`limits::RETRY_AFTER_MAX`]).
/// 5. Otherwise exhausted.
///
/// `policy_attempt` counts the attempts since the delivery was last queued by hand, this one
/// included, so that a manual retry gets the whole policy again. `random` is uniform.
pub fn after_attempt(
    endpoint: &Endpoint,
    attempt: &Attempt,
    policy_attempt: u32,
    now: Timestamp,
    random: u32,
) -> Next {
    let decisive = attempt.decisive().map(|exchange| &exchange.result);
    let (status, retry_after) = match decisive {
        Some(ExchangeResult::Answered(answer)) => (Some(answer.status), answer.retry_after_millis),
        Some(ExchangeResult::Failed(_)) | None => (None, None),
    };
    if attempt.accepted() {
        return Next::Delivered;
    }
    if status == Some(410) {
        return Next::Exhausted(ExhaustedReason::Gone);
    }
    if !is_retried(endpoint.retry.retry_on, status) {
        return Next::Exhausted(ExhaustedReason::NotRetried);
    }
    let Some(planned) = endpoint.retry.next_at(policy_attempt, now, random) else {
        return Next::Exhausted(ExhaustedReason::AttemptsUsed);
    };
    let asked = match (status, retry_after) {
        (Some(429 | 503), Some(wait)) => now.after(wait.min(limits::RETRY_AFTER_MAX)),
        _ => planned,
    };
    Next::RetryAt(planned.max(asked))
}

fn is_retried(policy: RetryOn, status: Option<u16>) -> bool {
    match policy {
        RetryOn::AnyFailure => true,
        RetryOn::TransientOnly => match status {
            Some(status) => matches!(status, 408 | 423 | 500..=599),
            None => true,
        },
    }
}

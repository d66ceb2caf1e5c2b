//! What is known about the verifier behind an endpoint: its class and the key it holds.
//!
//! Both are evidence, never configuration: the class comes from a rehearsal (or stays `unknown`),
//! the belief from exchanges that were signed with one key alone. Neither decides *whether* a
//! message is delivered, only in which order keys are tried; a wrong belief costs one refused
//! exchange, which the fallback of the signing plan repairs within the same attempt.

use serde::{Deserialize, Serialize};

use crate::id::SecretId;
use crate::limits;
use crate::time::Timestamp;

/// How the receiver treats a request that carries several signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiverClass {
    /// Accepts when any of the signatures matches, as every official library does.
    ListAware,
    /// Reads the first signature and ignores the others.
    FirstOnly,
    /// Reads the last signature and ignores the others.
    LastOnly,
    /// Its scheme carries one signature.
    Single,
    /// Accepts anything, a signature by a random key included.
    DoesNotVerify,
    /// Did not answer the rehearsal in a way that says anything.
    Unreachable,
    /// Never rehearsed.
    #[default]
    Unknown,
}

impl ReceiverClass {
    /// The word that the API, the store and pages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ListAware => "list_aware",
            Self::FirstOnly => "first_only",
            Self::LastOnly => "last_only",
            Self::Single => "single",
            Self::DoesNotVerify => "does_not_verify",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
        }
    }
}

/// The last key that alone got a 2xx from the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Belief {
    /// The secret that signed alone.
    pub secret: SecretId,
    /// When that exchange was sent.
    pub at: Timestamp,
}

/// What the signing plan needs to know about one endpoint's receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverView {
    /// How it treats several signatures.
    #[serde(default)]
    pub class: ReceiverClass,
    /// The key it is believed to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub belief: Option<Belief>,
}

/// One finished exchange that was signed with one key alone: evidence about the receiver's key.
///
/// An exchange that carried two signatures says nothing about which of them matched and never
/// becomes one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// The one key that signed.
    pub signed_with: SecretId,
    /// When the request was sent; also orders evidence that arrives late.
    pub sent_at: Timestamp,
    /// The status of the response; `None` for a timeout, a network error or a broken response.
    pub status: Option<u16>,
}

/// Whether a refusal may be about the signature, so that the other key is worth one more exchange.
///
/// 1. 400, 401, 403 and 422 may be.
/// 2. 500 may be while it is not known that the receiver holds the key that signed: some verifiers
///    throw on a bad signature.
/// 3. Everything else is not: 2xx is no refusal; 3xx, 404, 408, 410, 425, 429 and the other 5xx
///    have other causes.
pub const fn may_be_about_signature(status: u16, belief_known: bool) -> bool {
    match status {
        400 | 401 | 403 | 422 => true,
        500 => !belief_known,
        _ => false,
    }
}

/// Whether the fallback of a signing plan is due after its first exchange.
///
/// A belief counts in rule 2 of [`may_be_about_signature`] only
///
/// 1. when it is about the very key that signed: while a secret is staged the current one signs first
///    even for a receiver that is believed to hold the pending one, and its 500 is then all but
///    certainly about the signature;
/// 2. and for the `first` attempt of a delivery: behind an endpoint may be hosts that hold different
///    keys, and what was believed of one of them did not help this message;
/// 3. and unless the receiver is known to answer 500 to a wrong signature (`throws`).
pub fn fallback_is_due(
    belief: Option<Belief>,
    exchange: Exchange,
    first: bool,
    throws: bool,
) -> bool {
    let believed = belief.is_some_and(|known| known.secret == exchange.signed_with);
    let belief_known = first && !throws && believed;
    exchange
        .status
        .is_some_and(|status| may_be_about_signature(status, belief_known))
}

/// What to believe after an exchange that was signed with one key alone.
///
/// 1. An exchange sent before the present belief's evidence changes nothing. One that is older by more
///    than any exchange takes is not late: the clock was set back, and it is the newer one.
/// 2. A 2xx: the receiver holds the key that signed.
/// 3. A 400, 401, 403, 422 or 500 to the believed key: nothing is believed any longer. This is
///    what lets a receiver that answers 500 to a bad signature switch keys: the next attempt has
///    no belief, so its 500 is followed by the fallback.
/// 4. Everything else says nothing about keys and changes nothing.
pub fn belief_after(belief: Option<Belief>, exchange: Exchange) -> Option<Belief> {
    let is_late = |known: Belief| {
        exchange.sent_at < known.at && known.at.since(exchange.sent_at) <= limits::TIMEOUT_MAX
    };
    if belief.is_some_and(is_late) {
        return belief;
    }
    match exchange.status {
        Some(200..=299) => Some(Belief {
            secret: exchange.signed_with,
            at: exchange.sent_at,
        }),
        Some(status) if may_be_about_signature(status, false) => {
            belief.filter(|known| known.secret != exchange.signed_with)
        }
        Some(_) | None => belief,
    }
}

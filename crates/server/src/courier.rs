//! The courier: one attempt, from signing plan to record.
//!
//! An attempt is one exchange, or two when the first was refused in a way that can be about the
//! signature and the plan has a fallback. Everything is decided when a connection, handshakes
//! included, can take the request, and not before (G3, G4): the live view and the signing plan are
//! asked then, for the fallback once more, and the signature covers exactly the bytes on the wire.
//! The record is of what was signed then. An exchange that got no connection signed nothing. One whose
//! kept-alive connection turned out to be gone is written once more, signed anew
//! ([`Client::send`]); its record says so, and is of what was signed last.
//!
//! The courier stores nothing and retries nothing. Deliveries (`dispatch`) and test events
//! (`service`) share it, so that both are signed and recorded the same way.

mod callback;
pub mod keys;
pub mod request;
pub mod verdict;

use std::sync::Arc;

use hookturn_core::delivery::{
    Answer, Attempt, Exchange, ExchangeFailure, ExchangeReason, ExchangeResult, SignedWith, Timings,
};
use hookturn_core::endpoint::Preset;
use hookturn_core::id::{EndpointId, MessageId, SecretId};
use hookturn_core::message::Message;
use hookturn_core::proof::ProbeKey;
use hookturn_core::receiver::{self, ReceiverView, fallback_is_due, may_be_about_signature};
use hookturn_core::rotation::{
    Keyring, Plan, SecretStatus, SecretVersion, delivery_plan, signing_plan,
};
use hookturn_core::time::{Clock, Timestamp};
use hookturn_verify::{Scheme, Secret, Signer};
use http::HeaderMap;
use tokio::time::Instant;

use crate::outbound::{self, Client, Sending};
use crate::store::live::{Live, SigningView};
use keys::{KeyCache, KeyError};
use request::{Outgoing, PrepareError, Prepared};

/// Makes attempts. Shared by everything that sends.
pub struct Courier {
    live: Arc<Live>,
    keys: KeyCache,
    clock: Arc<dyn Clock>,
}

/// An attempt that was made, and what it taught about the receiver.
#[derive(Debug)]
pub struct Attempted {
    /// For the record.
    pub attempt: Attempt,
    /// What its exchanges say about the receiver's key, in order.
    pub evidence: Vec<receiver::Exchange>,
    /// When a request that carried two signatures was sent and refused.
    pub refused_both_at: Option<Timestamp>,
    /// When the last exchange ended.
    pub ended_at: Timestamp,
}

/// Why nothing was sent. None of these is the receiver's doing, and none is an attempt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotSent {
    /// The endpoint was deleted before the request could be signed.
    #[error("the endpoint is gone")]
    EndpointGone,
    /// The keyring has no active secret; nothing is ever sent unsigned (G3).
    #[error("the keyring has no active secret: create one")]
    NoLiveSecret,
    /// The secret that the fallback or a probe is to be signed with was retired, or found
    /// compromised, before it could sign.
    #[error("the secret may no longer sign")]
    Withdrawn,
    /// The store has lost touch with its database: someone else may have retired the keys (G4).
    #[error("the store cannot confirm which keys are live; nothing is signed until it can")]
    Unconfirmed,
    /// A secret's value cannot be used.
    #[error("a signing key cannot be used")]
    Key(#[from] KeyError),
    /// The endpoint's URL or headers cannot be used.
    #[error("the endpoint cannot be sent to")]
    Prepare(#[from] PrepareError),
}

/// What the exchanges of one attempt have in common.
struct Errand<'a> {
    client: &'a Client,
    prepared: &'a Prepared,
    outgoing: Outgoing<'a>,
    /// The first message, which says whether the request is a canary.
    message: MessageId,
    known: ReceiverView,
}

/// Which exchange of an attempt, and so which keys may sign it.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// Those of the signing plan.
    First,
    /// This one alone, if it still may.
    Fallback(SecretId),
}

/// What was signed when the connection was ready.
struct Signature {
    at: Timestamp,
    plan: Plan,
    reason: ExchangeReason,
    record: Vec<SignedWith>,
    timestamp: i64,
    text: String,
    throws: bool,
}

/// An exchange that was made, and the signature that went out, if it came to one.
struct Made {
    exchange: Exchange,
    signed: Option<(Timestamp, Plan)>,
    /// Whether the receiver is known to answer 500 to a wrong signature.
    throws: bool,
}

impl Courier {
    /// A courier that reads configuration from `live`.
    pub fn new(live: Arc<Live>, keys: KeyCache, clock: Arc<dyn Clock>) -> Self {
        Self { live, keys, clock }
    }

    /// Makes attempt number `number` of delivering `messages` (at least one) in one request. `known`
    /// is what the caller knows of the receiver; it may be newer than what the store knows.
    pub async fn attempt(
        &self,
        client: &Client,
        prepared: &Prepared,
        messages: &[&Message],
        number: u32,
        known: ReceiverView,
    ) -> Result<Attempted, NotSent> {
        let begun = Instant::now();
        let started_at = self.clock.now();
        let errand = Errand {
            client,
            prepared,
            outgoing: prepared.outgoing(messages)?,
            message: messages
                .first()
                .map_or(MessageId::from_bytes([0; 16]), |first| first.id),
            known,
        };
        let first = self.exchange(&errand, Turn::First).await?;
        let mut evidence = Vec::from_iter(first.evidence());
        let fallback = first.fallback(known, number == 1);
        let refused_both_at = first.refused_both_at();
        let mut exchanges = vec![first.exchange];
        if let Some(other) = fallback {
            match self.exchange(&errand, Turn::Fallback(other)).await {
                Ok(second) => {
                    evidence.extend(second.evidence());
                    exchanges.push(second.exchange);
                }
                // The first exchange happened and stands for the attempt.
                Err(NotSent::Withdrawn | NotSent::EndpointGone | NotSent::Unconfirmed) => {}
                Err(error) => {
                    tracing::error!(endpoint = %prepared.endpoint().id, secret = %other, error = %error, "the fallback could not be signed; the attempt is recorded without it");
                }
            }
        }
        let duration_millis = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
        Ok(Attempted {
            attempt: Attempt {
                number,
                started_at,
                duration_millis,
                exchanges,
            },
            evidence,
            refused_both_at,
            ended_at: self.clock.now(),
        })
    }

    async fn exchange(&self, errand: &Errand<'_>, turn: Turn) -> Result<Made, NotSent> {
        let mut signature = None;
        let request = errand.prepared.request(&errand.outgoing);
        let sent = errand.client.send(request, || {
            let (signed, headers) = self.sign(errand, turn)?;
            signature = Some(signed);
            Ok::<_, NotSent>(headers)
        });
        let answer = sent.await?;
        let now = self.clock.now();
        let timings = timings(&answer.timings);
        let result = recorded(answer.result, now);
        let throws = signature.as_ref().is_some_and(|made| made.throws);
        let (signed, reason, record, timestamp, text) = match signature {
            Some(made) => (
                Some((made.at, made.plan)),
                made.reason,
                made.record,
                made.timestamp,
                made.text,
            ),
            None => (
                None,
                turn.reason_unsigned(),
                Vec::new(),
                now.as_seconds(),
                String::new(),
            ),
        };
        let exchange = Exchange {
            reason,
            signed_with: record,
            timestamp,
            signature: text,
            timings,
            result,
            resent: answer.resent,
        };
        log_exchange(errand, &exchange);
        Ok(Made {
            exchange,
            signed,
            throws,
        })
    }

    /// What signing for an endpoint needs at this moment, as long as nobody else can change it.
    fn signing(&self, endpoint: EndpointId) -> Result<SigningView, NotSent> {
        let view = self.live.signing(endpoint);
        // Asked after the view was read: it was confirmed then.
        if !self.live.is_confirmed() {
            return Err(NotSent::Unconfirmed);
        }
        view.ok_or(NotSent::EndpointGone)
    }

    /// Signs with the keys that are live at this moment.
    fn sign(&self, errand: &Errand<'_>, turn: Turn) -> Result<(Signature, HeaderMap), NotSent> {
        let endpoint = errand.prepared.endpoint();
        let scheme = endpoint.preset.scheme();
        let view = self.signing(endpoint.id)?;
        let now = self.clock.now();
        let (plan, reason) = match turn {
            Turn::First => {
                let plan = plan_of(&view, errand, scheme, now)?;
                let reason = plan.reason(
                    &view.keyring,
                    &errand.known,
                    view.findings.evidence.as_ref(),
                );
                (plan, reason)
            }
            Turn::Fallback(key) if may_be_fallback(&view.keyring, key, scheme, now) => {
                let plan = Plan {
                    sign_with: vec![key],
                    fallback: None,
                };
                (plan, ExchangeReason::Fallback)
            }
            Turn::Fallback(_) => return Err(NotSent::Withdrawn),
        };
        let signers = self
            .keys
            .signers(&self.live, &view.keyring, scheme, &plan.sign_with)?;
        let signed = errand.prepared.sign(&errand.outgoing, &signers, now)?;
        let record = std::iter::zip(&plan.sign_with, &signers)
            .map(|(secret, signer)| SignedWith {
                secret: *secret,
                fingerprint: signer.fingerprint(),
            })
            .collect();
        let signature = Signature {
            at: now,
            plan,
            reason,
            record,
            timestamp: signed.timestamp,
            text: signed.signature,
            throws: view.findings.throws(),
        };
        Ok((signature, signed.headers))
    }
}

/// What an operator who follows a delivery wants to read. Secrets go by their fingerprints; URL, headers,
/// payload, signature and the receiver's words stay in the record.
fn log_exchange(errand: &Errand<'_>, exchange: &Exchange) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let signed_with: Vec<_> = exchange
        .signed_with
        .iter()
        .map(|signed| signed.fingerprint.to_string())
        .collect();
    let (status, failure) = match &exchange.result {
        ExchangeResult::Answered(answer) => (Some(answer.status), None),
        ExchangeResult::Failed(failure) => (None, Some(failure.kind.as_str())),
    };
    tracing::debug!(
        endpoint = %errand.prepared.endpoint().id,
        message = %errand.message,
        why = ?exchange.reason,
        ?signed_with,
        status,
        failure,
        resent = exchange.resent,
        micros = exchange.timings.total,
        "an exchange ended"
    );
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// When it was signed, or found to go nowhere.
    pub sent_at: Timestamp,
    /// The status of the answer; `None` when there was none.
    pub status: Option<u16>,
    /// Why there was no answer, in words.
    pub failure: Option<String>,
}

impl Courier {
    /// Sends a probe: `message` in one exchange, signed with `keys` in this order, where `random`
    /// stands for the key that nobody holds. A secret signs only while it is live (G4). Nothing is
    /// recorded, and it is sent at most once, so it goes over a connection of its own.
    pub async fn probe(
        &self,
        client: &Client,
        prepared: &Prepared,
        message: &Message,
        keys: &[ProbeKey],
        random: &Secret,
    ) -> Result<Probed, NotSent> {
        let outgoing = prepared.outgoing(&[message])?;
        let mut sent_at = None;
        let request = outbound::Request {
            sending: Sending::AtMostOnce,
            ..prepared.request(&outgoing)
        };
        let sent = client.send(request, || {
            let now = self.clock.now();
            let signers = self.probe_signers(prepared, keys, random, now)?;
            let signed = prepared.sign(&outgoing, &signers, now)?;
            sent_at = Some(now);
            Ok::<_, NotSent>(signed.headers)
        });
        let (status, failure) = match sent.await?.result {
            Ok(response) => (Some(response.status), None),
            Err(failure) => (None, Some(failure.detail)),
        };
        let endpoint = prepared.endpoint().id;
        tracing::debug!(%endpoint, message = %message.id, status, "a probe ended");
        Ok(Probed {
            sent_at: sent_at.unwrap_or_else(|| self.clock.now()),
            status,
            failure,
        })
    }

    fn probe_signers(
        &self,
        prepared: &Prepared,
        keys: &[ProbeKey],
        random: &Secret,
        now: Timestamp,
    ) -> Result<Vec<Arc<Signer>>, NotSent> {
        let endpoint = prepared.endpoint();
        let scheme = endpoint.preset.scheme();
        let view = self.signing(endpoint.id)?;
        let signer = |key: &ProbeKey| match key {
            ProbeKey::Random => Signer::new(scheme, random)
                .map(Arc::new)
                .map_err(|_| NotSent::Withdrawn),
            ProbeKey::Secret(id) | ProbeKey::Former(id) if may_probe(&view.keyring, *key, now) => {
                let mut signers = self.keys.signers(
                    &self.live,
                    &view.keyring,
                    scheme,
                    std::slice::from_ref(id),
                )?;
                signers.pop().ok_or(NotSent::Withdrawn)
            }
            ProbeKey::Secret(_) | ProbeKey::Former(_) => Err(NotSent::Withdrawn),
        };
        keys.iter().map(signer).collect()
    }
}

/// Whether this key may sign a probe now. A secret may while it is live, and not compromised unless it
/// signs anyway. A former one may while it is retiring; once it is retired it never signs again (G4).
fn may_probe(keyring: &Keyring, key: ProbeKey, now: Timestamp) -> bool {
    let status = |id| {
        let secret = keyring.secret(id)?;
        Some((secret.status(now), secret.compromised.is_none()))
    };
    match key {
        ProbeKey::Random => true,
        ProbeKey::Secret(id) => status(id).is_some_and(|(status, sound)| match status {
            SecretStatus::Active => true,
            SecretStatus::Pending | SecretStatus::Retiring => sound,
            SecretStatus::Retired | SecretStatus::Destroyed => false,
        }),
        ProbeKey::Former(id) => status(id).is_some_and(|(status, _)| match status {
            SecretStatus::Retiring => true,
            SecretStatus::Pending
            | SecretStatus::Active
            | SecretStatus::Retired
            | SecretStatus::Destroyed => false,
        }),
    }
}

/// The plan of the first exchange: the class is what the last rehearsal found.
fn plan_of(
    view: &SigningView,
    errand: &Errand<'_>,
    scheme: Scheme,
    now: Timestamp,
) -> Result<Plan, NotSent> {
    let findings = &view.findings;
    let receiver = ReceiverView {
        class: findings
            .rehearsed
            .map_or(errand.known.class, |rehearsed| rehearsed.class()),
        ..errand.known
    };
    let evidence = findings.evidence.as_ref();
    delivery_plan(
        &view.keyring,
        &receiver,
        evidence,
        errand.message,
        scheme,
        now,
    )
    .map_err(|_| NotSent::NoLiveSecret)
}

/// Whether this key may sign the second exchange of an attempt now.
fn may_be_fallback(keyring: &Keyring, key: SecretId, scheme: Scheme, now: Timestamp) -> bool {
    let anyone = ReceiverView::default();
    let Ok(plan) = signing_plan(keyring, &anyone, scheme, now) else {
        return false;
    };
    let live = plan.sign_with.contains(&key) || plan.fallback == Some(key);
    // The active key signs even when compromised, but as a fallback no such key is used.
    let sound = |secret: &SecretVersion| secret.compromised.is_none();
    live && keyring.secret(key).is_some_and(sound)
}

impl Turn {
    /// The reason of an exchange that ended before anything was signed.
    const fn reason_unsigned(self) -> ExchangeReason {
        match self {
            Self::First => ExchangeReason::Plan,
            Self::Fallback(_) => ExchangeReason::Fallback,
        }
    }
}

impl Made {
    /// What it says about the receiver's key, if one key alone signed.
    fn evidence(&self) -> Option<receiver::Exchange> {
        match &self.signed {
            Some((at, plan)) if plan.sign_with.len() == 1 => Some(self.seen(*at, plan)),
            Some(_) | None => None,
        }
    }

    /// The key to try next, if there is one and the refusal can be about the signature.
    fn fallback(&self, known: ReceiverView, first: bool) -> Option<SecretId> {
        let (at, plan) = self.signed.as_ref()?;
        let due = fallback_is_due(known.belief, self.seen(*at, plan), first, self.throws);
        plan.fallback.filter(|_| due)
    }

    /// When it was sent, if two keys signed and it was refused in a way that tells of signatures.
    fn refused_both_at(&self) -> Option<Timestamp> {
        let (at, plan) = self.signed.as_ref()?;
        let status = self.exchange.status()?;
        let refused = plan.sign_with.len() > 1 && may_be_about_signature(status, !self.throws);
        refused.then_some(*at)
    }

    fn seen(&self, sent_at: Timestamp, plan: &Plan) -> receiver::Exchange {
        receiver::Exchange {
            signed_with: plan.sign_with[0],
            sent_at,
            status: self.exchange.status(),
        }
    }
}

impl std::fmt::Debug for Courier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Courier").finish_non_exhaustive()
    }
}

/// Whether a message of this preset needs an active secret that `keyring` does not have.
pub fn can_sign(keyring: &Keyring, preset: Preset, now: Timestamp) -> bool {
    signing_plan(keyring, &ReceiverView::default(), preset.scheme(), now).is_ok()
}

fn timings(measured: &outbound::Timings) -> Timings {
    let micros = |value: Option<u64>| u32::try_from(value.unwrap_or(0)).unwrap_or(u32::MAX);
    Timings {
        dns: micros(measured.dns),
        connect: micros(measured.connect),
        tls: micros(measured.tls),
        first_byte: micros(measured.first_byte),
        total: micros(Some(measured.total)),
    }
}

fn recorded(
    result: Result<outbound::Response, outbound::Failure>,
    now: Timestamp,
) -> ExchangeResult {
    match result {
        Ok(response) => ExchangeResult::Answered(Answer {
            status: response.status,
            headers: response
                .headers
                .iter()
                .map(|(name, value)| {
                    (
                        name.as_str().to_owned(),
                        String::from_utf8_lossy(value.as_bytes()).into_owned(),
                    )
                })
                .collect(),
            body: response.body.into(),
            truncated: response.truncated || response.headers_truncated,
            retry_after_millis: response.retry_after.map(|after| after.due(now).since(now)),
        }),
        Err(failure) => ExchangeResult::Failed(ExchangeFailure {
            kind: failure.kind.as_str().to_owned(),
            detail: failure.detail,
        }),
    }
}

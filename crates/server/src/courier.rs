//! The courier: one attempt, from signing plan to record.
//!
//! An attempt is one exchange, or two when the first was refused in a way that can be about the
//! signature and the plan has a fallback. Everything is decided when it is sent (G3): the keys are
//! those that are live at that moment, and the signature covers exactly the bytes on the wire. The
//! plan is asked again before the fallback, because a key may have been retired meanwhile (G4).
//!
//! The courier stores nothing and retries nothing. Deliveries (`dispatch`) and test events
//! (`service`) share it, so that both are signed and recorded the same way.

mod callback;
pub mod keys;
pub mod request;

use std::sync::Arc;

use hookturn_core::delivery::{
    Answer, Attempt, Exchange, ExchangeFailure, ExchangeReason, ExchangeResult, SignedWith, Timings,
};
use hookturn_core::endpoint::Preset;
use hookturn_core::id::SecretId;
use hookturn_core::message::Message;
use hookturn_core::receiver::{self, ReceiverView, fallback_is_due};
use hookturn_core::rotation::{Keyring, signing_plan};
use hookturn_core::time::{Clock, Timestamp};
use tokio::time::Instant;

use crate::outbound::{self, Client};
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
    /// When the last exchange ended.
    pub ended_at: Timestamp,
}

/// Why nothing was sent. None of these is the receiver's doing, and none is an attempt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotSent {
    /// The keyring has no active secret; nothing is ever sent unsigned (G3).
    #[error("the keyring has no active secret: create one")]
    NoLiveSecret,
    /// A secret's value cannot be used.
    #[error("a signing key cannot be used")]
    Key(#[from] KeyError),
    /// The endpoint's URL or headers cannot be used.
    #[error("the endpoint cannot be sent to")]
    Prepare(#[from] PrepareError),
}

/// What one exchange is signed with, and why.
struct Signing<'a> {
    reason: ExchangeReason,
    keys: &'a [SecretId],
}

impl Courier {
    /// A courier that reads configuration from `live`.
    pub fn new(live: Arc<Live>, keys: KeyCache, clock: Arc<dyn Clock>) -> Self {
        Self { live, keys, clock }
    }

    /// Makes attempt number `number` of delivering `messages` (at least one) in one request, signed as `view` (read just now) says. `known` is what the caller knows of
    /// the receiver; it may be newer than what the store knows.
    pub async fn attempt(
        &self,
        client: &Client,
        prepared: &Prepared,
        view: SigningView,
        messages: &[&Message],
        number: u32,
        known: ReceiverView,
    ) -> Result<Attempted, NotSent> {
        let begun = Instant::now();
        let started_at = self.clock.now();
        let scheme = prepared.endpoint().preset.scheme();
        let plan = signing_plan(&view.keyring, &known, scheme, started_at)
            .map_err(|_| NotSent::NoLiveSecret)?;
        let outgoing = prepared.outgoing(messages)?;
        let mut exchanges = Vec::with_capacity(1);
        let signing = Signing {
            reason: ExchangeReason::Plan,
            keys: &plan.sign_with,
        };
        let (first, learnt) = self
            .exchange(client, prepared, &view, &outgoing, signing)
            .await?;
        let mut evidence = Vec::from_iter(learnt);
        let refused = fallback_is_due(
            known.belief,
            receiver::Exchange {
                signed_with: plan.sign_with[0],
                sent_at: started_at,
                status: first.status(),
            },
        );
        exchanges.push(first);
        if let Some(other) = plan.fallback.filter(|_| refused)
            && let Some(view) = self.still_live(prepared, other)
        {
            let signing = Signing {
                reason: ExchangeReason::Fallback,
                keys: &[other],
            };
            let second = self
                .exchange(client, prepared, &view, &outgoing, signing)
                .await;
            match second {
                Ok((second, learnt)) => {
                    exchanges.push(second);
                    evidence.extend(learnt);
                }
                // The first exchange happened and stands for the attempt.
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
            ended_at: self.clock.now(),
        })
    }

    /// The view to sign the fallback with, if the plan of this moment still allows that key.
    fn still_live(&self, prepared: &Prepared, key: SecretId) -> Option<SigningView> {
        let view = self.live.signing(prepared.endpoint().id)?;
        let scheme = prepared.endpoint().preset.scheme();
        let anyone = ReceiverView::default();
        let plan = signing_plan(&view.keyring, &anyone, scheme, self.clock.now()).ok()?;
        let live = plan.sign_with.contains(&key) || plan.fallback == Some(key);
        // The active key signs even when compromised, but as a fallback no such key is used.
        let sound = view
            .keyring
            .secret(key)
            .is_some_and(|secret| secret.compromised.is_none());
        (live && sound).then_some(view)
    }

    async fn exchange(
        &self,
        client: &Client,
        prepared: &Prepared,
        view: &SigningView,
        outgoing: &Outgoing<'_>,
        signing: Signing<'_>,
    ) -> Result<(Exchange, Option<receiver::Exchange>), NotSent> {
        let sent_at = self.clock.now();
        let signers = self.keys.signers(
            &self.live,
            &view.keyring,
            prepared.endpoint().preset.scheme(),
            signing.keys,
        )?;
        let signed = prepared.sign(outgoing, &signers, sent_at)?;
        let answer = client.send(signed.request).await;
        let exchange = Exchange {
            reason: signing.reason,
            signed_with: signing
                .keys
                .iter()
                .zip(&signers)
                .map(|(secret, signer)| SignedWith {
                    secret: *secret,
                    fingerprint: signer.fingerprint(),
                })
                .collect(),
            timestamp: signed.timestamp,
            signature: signed.signature,
            timings: timings(&answer.timings),
            result: recorded(answer.result, self.clock.now()),
        };
        let learnt = match *signing.keys {
            [only] => Some(receiver::Exchange {
                signed_with: only,
                sent_at,
                status: exchange.status(),
            }),
            _ => None,
        };
        Ok((exchange, learnt))
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
            truncated: response.truncated,
            retry_after_millis: response.retry_after.map(|after| after.due(now).since(now)),
        }),
        Err(failure) => ExchangeResult::Failed(ExchangeFailure {
            kind: failure.kind.as_str().to_owned(),
            detail: failure.detail,
        }),
    }
}

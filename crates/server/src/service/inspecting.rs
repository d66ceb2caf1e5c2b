//! Looking closely: what was sent to a receiver and who signed it, and whether a request that somebody
//! captured is one of ours.
//!
//! What is stored of a request is its signature and the seconds it was signed at. The rest is made again
//! from the message and the endpoint as it is configured now, which is said wherever it is shown.

use std::sync::Arc;

use bytes::Bytes;
use hookturn_core::delivery::{Attempt, Delivery, Exchange};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{ClientId, DeliveryId, EndpointId};
use hookturn_core::message::Message;
use hookturn_core::receiver::ReceiverClass;
use hookturn_core::rotation::{Keyring, SecretVersion};
use hookturn_core::store::{Hold, ReceiverState};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{App, Scope};
use hookturn_verify::{Received, Verifier, VerifyError};

use super::{Caller, Service, ServiceError};
use crate::courier::request::{Prepared, header_names};
pub use crate::courier::verdict::{Verdict, verdict};

/// A delivery with everything that is known around it.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The delivery.
    pub delivery: Delivery,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// Its app, unless it was removed.
    pub app: Option<Arc<App>>,
    /// Its endpoint, unless nothing is left of it.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The keyring that signs for the endpoint, unless nothing is left of it.
    pub keyring: Option<Arc<Keyring>>,
    /// What it carries.
    pub message: Option<Arc<Message>>,
}

/// A request as it was sent, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentRequest {
    /// The method.
    pub method: &'static str,
    /// The whole URL.
    pub url: String,
    /// Its headers but for what the HTTP client adds.
    pub headers: Vec<SentHeader>,
    /// Its body.
    pub body: Bytes,
    /// Whether other events may have travelled in the same request, which are not in `body`.
    pub may_be_batch: bool,
}

/// A header of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentHeader {
    /// Its name.
    pub name: String,
    /// Its value; none for one that the endpoint's owner configured, which may be a secret.
    pub value: Option<String>,
}

/// How an endpoint fares.
#[derive(Debug, Clone)]
pub struct Health {
    /// What is known of its receiver.
    pub receiver: Arc<ReceiverState>,
    /// How it checks signatures, as its last rehearsal found.
    pub class: ReceiverClass,
    /// Whether nothing is sent for a time.
    pub standstill: Standstill,
    /// The last delivery that was given up, and when.
    pub last_exhausted: Option<(DeliveryId, Timestamp)>,
}

/// Why nothing is sent to an endpoint for a time, although it is enabled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standstill {
    /// Its receiver asked for that.
    pub held: Option<Hold>,
    /// Until when, because too many attempts failed in a row. Only the node that sends to it knows.
    pub breaker_open_until: Option<Timestamp>,
}

/// A request that somebody captured.
#[derive(Debug, Clone, Default)]
pub struct CapturedRequest {
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body, in each form that it may have had before it was pasted; the likeliest first.
    pub bodies: Vec<Vec<u8>>,
}

/// What a captured request proved.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The secret that made the signature.
    pub secret: SecretVersion,
    /// When, if its scheme says so.
    pub at: Option<Timestamp>,
    /// The message's id, if its scheme signs it.
    pub id: Option<String>,
    /// Which form of the body it was.
    pub form: usize,
}

/// What came of looking at a captured request.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Who signed it, or why that cannot be said.
    pub result: Result<Signed, VerifyError>,
    /// Secrets of the keyring that were tried.
    pub tried: usize,
    /// Secrets whose value is erased, so that they could not be tried.
    pub erased: usize,
}

impl Service {
    /// A delivery with everything around it. Needs `read`.
    pub async fn inspect(
        &self,
        caller: &Caller,
        id: DeliveryId,
    ) -> Result<Inspected, ServiceError> {
        let (delivery, attempts) = self.delivery(caller, id).await?;
        let message = self
            .store
            .message(caller.workspace, delivery.app, delivery.message)
            .await?;
        let endpoint = self.live.endpoint(delivery.endpoint);
        Ok(Inspected {
            app: self.live.app(caller.workspace, delivery.app),
            keyring: endpoint
                .as_ref()
                .and_then(|endpoint| self.live.keyring(endpoint.keyring)),
            endpoint,
            message,
            delivery,
            attempts,
        })
    }

    /// An endpoint of the caller's workspace as lists name it, deleted ones too while anything is left.
    pub fn endpoint_shown(&self, caller: &Caller, id: EndpointId) -> Option<Arc<Endpoint>> {
        let endpoint = self.live.endpoint(id);
        endpoint.filter(|endpoint| endpoint.workspace == caller.workspace)
    }

    /// The name of an app of the caller's workspace, unless it was removed.
    pub fn app_name(&self, caller: &Caller, id: ClientId) -> Option<String> {
        let app = self.live.app(caller.workspace, id)?;
        Some(app.name.clone())
    }

    /// The request of an exchange, made again; none when the endpoint or the message is gone, or nothing
    /// was signed.
    pub fn sent_request(&self, inspected: &Inspected, exchange: &Exchange) -> Option<SentRequest> {
        let endpoint = inspected.endpoint.as_ref()?;
        let message = inspected.message.as_deref()?;
        if exchange.signed_with.is_empty() {
            return None;
        }
        let workspace = self.live.workspace(endpoint.workspace)?;
        let prepared = Prepared::new(Arc::clone(endpoint), workspace).ok()?;
        let outgoing = prepared.outgoing(&[message]).ok()?;
        let at = Timestamp::from_millis(exchange.timestamp.saturating_mul(1_000));
        let signed = prepared
            .signed(&outgoing, exchange.signature.clone(), at)
            .ok()?;
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            let custom = endpoint
                .headers
                .keys()
                .any(|custom| custom.eq_ignore_ascii_case(name.as_str()));
            SentHeader {
                name: name.to_string(),
                value: (!custom).then(|| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            }
        };
        Some(SentRequest {
            method: endpoint.method.as_str(),
            url: outgoing.url(),
            headers: signed.headers.iter().map(header).collect(),
            body: outgoing.body().clone(),
            may_be_batch: endpoint.preset.messages_per_request() > 1,
        })
    }

    /// How an endpoint fares. Needs `read`.
    pub async fn endpoint_health(
        &self,
        caller: &Caller,
        app: ClientId,
        id: EndpointId,
    ) -> Result<Health, ServiceError> {
        let endpoint = self.endpoint(caller, app, id).await?;
        Ok(Health {
            receiver: self.live.receiver(endpoint.id),
            class: self.live.findings(endpoint.id).class(),
            standstill: self.standstill(&endpoint),
            last_exhausted: self.last_exhausted(caller, endpoint.id).await?,
        })
    }

    /// Why nothing is sent to an endpoint of the caller's for a time, if nothing is.
    pub fn standstill(&self, endpoint: &Endpoint) -> Standstill {
        let now = self.clock.now();
        let breaker = self.live.breaker(endpoint.id);
        Standstill {
            held: self.live.receiver(endpoint.id).held(endpoint, now),
            breaker_open_until: breaker.filter(|until| *until > now),
        }
    }

    /// Whether the receiver of an endpoint asked to be left alone until later than `now`.
    pub(super) fn is_held(&self, endpoint: &Endpoint, now: Timestamp) -> bool {
        self.live
            .receiver(endpoint.id)
            .held(endpoint, now)
            .is_some()
    }

    /// Says which secret of an endpoint's keyring signed a request, whatever its age. Needs `read`: it
    /// tells nothing of a secret that its fingerprint does not.
    pub async fn check_captured(
        &self,
        caller: &Caller,
        app: ClientId,
        endpoint: EndpointId,
        captured: &CapturedRequest,
    ) -> Result<Checked, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let endpoint = self.own_endpoint(caller, app, endpoint)?;
        let keyring = self.own_keyring(caller, endpoint.keyring)?;
        let names = header_names(endpoint.preset, &*self.own_workspace(caller)?);
        // Its age is told, not judged.
        let mut verifier = Verifier::new(endpoint.preset.scheme())
            .header_names(names)
            .tolerance_seconds(u32::MAX);
        let mut tried = Vec::new();
        // The newest first: they are the likeliest, and the first that matches is named.
        for secret in keyring.secrets.iter().rev() {
            let Some(value) = self.unseal(secret.id)? else {
                continue;
            };
            // One that its scheme cannot use never signed in it.
            if let Ok(with) = verifier.clone().secret(secret.id.to_string(), &value) {
                verifier = with;
                tried.push(secret);
            }
        }
        let url = endpoint.url.as_ref().map_or("", |url| url.as_str());
        let now = self.clock.now().as_seconds();
        let result = check_forms(&verifier, endpoint.method.as_str(), url, captured, now);
        Ok(Checked {
            result: result.map(|(proved, form)| Signed {
                secret: tried[proved.secret].clone(),
                at: proved
                    .timestamp
                    .map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1_000))),
                id: proved.id,
                form,
            }),
            tried: tried.len(),
            erased: keyring.secrets.len() - tried.len(),
        })
    }
}

/// The first form of the body that verifies, or why the likeliest one does not.
fn check_forms(
    verifier: &Verifier,
    method: &str,
    url: &str,
    captured: &CapturedRequest,
    now: i64,
) -> Result<(hookturn_verify::Verified, usize), VerifyError> {
    let headers: Vec<(&str, &[u8])> = captured
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let check = |body: &[u8]| {
        let received = Received {
            method,
            url,
            headers: &headers,
            body,
        };
        verifier.verify(&received, now)
    };
    let mut refused = None;
    for (form, body) in captured.bodies.iter().enumerate() {
        match check(body) {
            Ok(proved) => return Ok((proved, form)),
            Err(why) => {
                refused.get_or_insert(why);
            }
        }
    }
    Err(refused.unwrap_or(VerifyError::NoMatch { signatures: 0 }))
}

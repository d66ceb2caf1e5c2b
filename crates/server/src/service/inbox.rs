//! The built-in test inbox: a receiver inside this process, for whoever wants to see a delivery before
//! they have a receiver of their own.
//!
//! An endpoint whose URL is on [`INBOX_HOST`] is delivered to like any other: a due row, the signing plan,
//! a request over HTTP/1.1 on a connection. That connection is a pipe within the process, so that no
//! address is opened for it and no address policy is widened. At its other end this receiver checks the
//! signature with the published verifier, against the secrets that are live at that moment, and answers
//! 200 or 401 as a receiver does that has deployed each of them.
//!
//! A request belongs to the endpoint whose secret signed it. One that no secret of the endpoints with its
//! URL signed is kept only if there is a single such endpoint, so that nobody reads what is another's by
//! taking the same URL.
//!
//! Bounded: [`REQUESTS`] requests of [`INBOXES`] endpoints, each with at most [`KEPT_BYTES`] of its body,
//! in memory: they are gone when the server stops. Values of headers that the endpoint's owner configured
//! are not kept, for they may be secrets.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hookturn_core::endpoint::{Endpoint, EndpointState};
use hookturn_core::id::EndpointId;
use hookturn_core::limits::STREAM_BODY_BYTES;
use hookturn_core::rotation::SecretStatus;
use hookturn_core::time::{Clock, Timestamp};
use hookturn_verify::{Fingerprint, Received, Verifier};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::DuplexStream;

use crate::courier::keys::open_secret;
use crate::courier::request::header_names;
use crate::outbound::{Dial, Dialling, Wire};
use crate::store::live::Live;
use crate::store::seal::Sealer;

pub use crate::outbound::INBOX_HOST;

mod first_run;

pub use first_run::FirstRun;

/// Requests that are kept of one endpoint.
pub const REQUESTS: usize = 20;
/// Bytes that are kept of a body.
pub const KEPT_BYTES: usize = 16 * 1024;
/// Endpoints whose requests are kept; that which was silent longest gives way.
pub const INBOXES: usize = 32;
/// Bytes that are on their way in one direction.
const PIPE_BYTES: usize = 16 * 1024;
/// Largest head of a request, in bytes: all that an endpoint may have configured fits.
const HEAD_BYTES: usize = 64 * 1024;
/// Time for the head of a request on a connection that is kept.
const HEAD_TIME: Duration = Duration::from_mins(1);

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct InboxRequest {
    /// When.
    pub at: Timestamp,
    /// Its method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Its headers; none for a value that the endpoint's owner configured.
    pub headers: Vec<(String, Option<String>)>,
    /// The beginning of its body.
    pub body: Bytes,
    /// How long the body was.
    pub body_bytes: usize,
    /// Which secret signed it, or why none did.
    pub signed: Result<Fingerprint, String>,
}

/// See the module text.
pub struct Inbox {
    live: Arc<Live>,
    sealer: Arc<Sealer>,
    clock: Arc<dyn Clock>,
    runtime: tokio::runtime::Handle,
    kept: Mutex<HashMap<EndpointId, VecDeque<Arc<InboxRequest>>>>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl Inbox {
    /// An empty inbox whose receiver runs on the caller's runtime.
    pub fn new(live: Arc<Live>, sealer: Arc<Sealer>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            live,
            sealer,
            clock,
            runtime: tokio::runtime::Handle::current(),
            kept: Mutex::default(),
        })
    }

    /// What connects to it.
    pub fn dialer(self: &Arc<Self>) -> Arc<dyn Dial> {
        Arc::new(Way(Arc::clone(self)))
    }

    /// What arrived for an endpoint, newest first. Whoever shows it has asked whose the endpoint is.
    pub fn received(&self, endpoint: EndpointId) -> Vec<Arc<InboxRequest>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = kept.get(&endpoint).into_iter().flatten();
        requests.rev().cloned().collect()
    }

    async fn serve(self: Arc<Self>, far: DuplexStream) {
        let inbox = service_fn(move |request| {
            let inbox = Arc::clone(&self);
            async move { Ok::<_, Infallible>(inbox.take(request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(far), inbox)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection to the test inbox ended early");
        }
    }

    async fn take(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let answer = match Limited::new(body, STREAM_BODY_BYTES + KEPT_BYTES)
            .collect()
            .await
        {
            Ok(body) => self.judge(&head, &body.to_bytes()),
            Err(_) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        };
        let (status, words) = match answer {
            Ok(Ok(fingerprint)) => {
                let words = format!("signature valid, by secret {fingerprint}\n");
                (StatusCode::OK, words)
            }
            Ok(Err(why)) => (StatusCode::UNAUTHORIZED, format!("{why}\n")),
            Err(status) => (status, "nobody has this inbox\n".to_owned()),
        };
        let mut response = Response::new(Full::from(words));
        *response.status_mut() = status;
        response
    }

    /// Finds out whose request it is and keeps it: who signed it, or the status of the answer when it is
    /// nobody's.
    fn judge(&self, head: &Parts, body: &[u8]) -> Result<Result<Fingerprint, String>, StatusCode> {
        let candidates = self.endpoints_at(head.uri.path());
        let judged: Vec<_> = candidates
            .iter()
            .map(|endpoint| self.verify(endpoint, head, body))
            .collect();
        let place = match judged.iter().position(Result::is_ok) {
            Some(place) => place,
            None if candidates.len() == 1 => 0,
            None => return Err(StatusCode::NOT_FOUND),
        };
        let signed = judged[place].clone();
        self.keep(&candidates[place], head, body, signed.clone());
        Ok(signed)
    }

    /// The endpoints whose URL has this path on the inbox's host.
    fn endpoints_at(&self, path: &str) -> Vec<Arc<Endpoint>> {
        let mut all = self.live.all_endpoints();
        all.retain(|endpoint| {
            let here = |url: &url::Url| url.host_str() == Some(INBOX_HOST) && url.path() == path;
            !matches!(endpoint.state, EndpointState::Deleted { .. })
                && endpoint.url.as_ref().is_some_and(|url| here(url.url()))
        });
        all
    }

    /// Which live secret of the endpoint signed a request.
    fn verify(
        &self,
        endpoint: &Endpoint,
        head: &Parts,
        body: &[u8],
    ) -> Result<Fingerprint, String> {
        let gone = || "the endpoint is gone".to_owned();
        let view = self.live.signing(endpoint.id).ok_or_else(gone)?;
        let now = self.clock.now();
        let names = header_names(endpoint.preset, &view.workspace);
        let mut verifier = Verifier::new(endpoint.preset.scheme()).header_names(names);
        for secret in view.keyring.secrets.iter().rev() {
            if !matches!(
                secret.status(now),
                SecretStatus::Pending | SecretStatus::Active | SecretStatus::Retiring
            ) {
                continue;
            }
            let Ok(value) = open_secret(&self.sealer, &self.live, secret.id) else {
                continue;
            };
            // One that its scheme cannot use never signs in it.
            if let Ok(with) = verifier.clone().secret(secret.id.to_string(), &value) {
                verifier = with;
            }
        }
        let headers: Vec<(&str, &[u8])> = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        let received = Received {
            method: head.method.as_str(),
            url: endpoint.url.as_ref().map_or("", |url| url.as_str()),
            headers: &headers,
            body,
        };
        let verified = verifier.verify(&received, now.as_seconds());
        verified
            .map(|proved| proved.fingerprint)
            .map_err(|why| why.to_string())
    }

    fn keep(
        &self,
        endpoint: &Endpoint,
        head: &Parts,
        body: &[u8],
        signed: Result<Fingerprint, String>,
    ) {
        let configured = |name: &str| {
            let mut names = endpoint.headers.keys();
            names.any(|known| known.eq_ignore_ascii_case(name))
        };
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            let text = || String::from_utf8_lossy(value.as_bytes()).into_owned();
            let value = (!configured(name.as_str())).then(text);
            (name.to_string(), value)
        };
        let request = InboxRequest {
            at: self.clock.now(),
            method: head.method.to_string(),
            path: head.uri.to_string(),
            headers: head.headers.iter().map(header).collect(),
            body_bytes: body.len(),
            // A copy, so that a large body is not held whole for its beginning.
            body: Bytes::copy_from_slice(&body[..body.len().min(KEPT_BYTES)]),
            signed,
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.contains_key(&endpoint.id) && kept.len() >= INBOXES {
            let silent = kept
                .iter()
                .min_by_key(|(_, all)| all.back().map(|last| last.at));
            if let Some(silent) = silent.map(|(id, _)| *id) {
                kept.remove(&silent);
            }
        }
        let requests = kept.entry(endpoint.id).or_default();
        if requests.len() >= REQUESTS {
            requests.pop_front();
        }
        requests.push_back(Arc::new(request));
    }
}

/// The way to an inbox: a pipe instead of a connection.
struct Way(Arc<Inbox>);

impl Dial for Way {
    fn dial(&self, _: std::net::SocketAddr) -> Dialling<'_> {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        self.0.runtime.spawn(Arc::clone(&self.0).serve(far));
        Box::pin(async move { Ok(Box::new(near) as Box<dyn Wire>) })
    }
}

//! `Idempotency-Key` on every POST.
//!
//! 1. A key is 1 to 255 visible ASCII characters (in a dialect: any), given once; anything else is
//!    a 400.
//! 2. It is the workspace's, and bound to the request it first came with: method, path and body, for
//!    `/v1/api-keys` the caller's key too. With another request it is a 422, and that is not carried out.
//!    Hopae documents that its keys are bound to method and path: there the same key on another path is
//!    another key, and another body is a 409.
//! 3. While the first request runs, the same key is a 409 that may be repeated.
//! 4. The answer is stored, sealed, in the transaction of the change it answers, and replayed for
//!    24 hours with `Idempotency-Replayed: true`. Only answers of changes are stored: a refused
//!    request changed nothing, and the same key may try again.
//! 5. `test` changes nothing here, but a receiver sees it: its answer is stored after the exchange, so
//!    that a repeated call does not send again. (A crash between the two sends again, as for deliveries.)
//!    A client that leaves meanwhile changes nothing: see [`super::finishing`].
//! 6. An answer that shows a secret's value or an API key's text is replayed to the API key that asked
//!    first; to another one as a reveal would be; to nobody once the secret is destroyed, for its
//!    answer is erased with it (409, and the key stays used). Every such replay is in the audit log:
//!    `service::idempotency`.
//! 7. The answer of `reveal` is not stored: every showing of a value is asked of the workspace's policy
//!    and written to the audit log, and a value that is erased is nowhere any more. The key keeps two
//!    from running at once, and a repeated call answers the same as long as the secret may be shown.
//!    Neither is that of a leak search, which is asked anew and written to the audit log each time.

use std::fmt;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hookturn_core::limits;
use hookturn_core::store::IdempotencyKey;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::problem::{Code, Problem};
use crate::service::idempotency::{self as keys, InFlightGuard, Lookup};
use crate::service::{Caller, Recording, Service, ServiceError};

/// The request header.
pub(super) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer was stored before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A successful answer: what is sent, and what is stored to be sent again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    status: u16,
    location: Option<String>,
    version: Option<u64>,
    link: Option<String>,
    body: Vec<u8>,
    #[serde(skip)]
    replayed: bool,
}

impl Answer {
    /// An answer with a JSON body.
    pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        Self {
            status: status.as_u16(),
            location: None,
            version: None,
            link: None,
            // Views hold texts, numbers and maps with text keys: nothing JSON cannot say.
            body: serde_json::to_vec(body).unwrap_or_default(),
            replayed: false,
        }
    }

    /// 200 with a JSON body.
    pub(super) fn ok(body: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// 201 with a JSON body, at `location`.
    pub(super) fn created(location: String, body: &impl Serialize) -> Self {
        Self {
            location: Some(location),
            ..Self::json(StatusCode::CREATED, body)
        }
    }

    /// 204.
    pub(super) fn no_content() -> Self {
        Self {
            status: 204,
            location: None,
            version: None,
            link: None,
            body: Vec::new(),
            replayed: false,
        }
    }

    /// The same with an `ETag`.
    pub(super) fn version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// The same with a `Link` to the next page.
    pub(super) fn link(mut self, link: Option<String>) -> Self {
        self.link = link;
        self
    }

    /// The stored form: postcard, of a struct whose fields only ever grow at the end.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, postcard::Error> {
        let stored: Self = postcard::from_bytes(bytes)?;
        Ok(Self {
            replayed: true,
            ..stored
        })
    }
}

impl fmt::Debug for Answer {
    /// Without the body: it may hold a secret that is shown once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = Response::new(axum::body::Body::from(Bytes::from(self.body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if status != StatusCode::NO_CONTENT {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
        }
        let mut put = |name: HeaderName, value: Option<String>| {
            if let Some(value) = value.and_then(|text| HeaderValue::try_from(text).ok()) {
                headers.insert(name, value);
            }
        };
        put(header::LOCATION, self.location);
        put(
            header::ETAG,
            self.version.map(|version| format!("\"{version}\"")),
        );
        put(header::LINK, self.link);
        if self.replayed {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// Why a handler ends early: a problem, or an answer that was given before.
#[derive(Debug)]
pub(super) enum Stop {
    /// Something is wrong.
    Problem(Problem),
    /// The idempotency key has an answer.
    Replay(Answer),
}

impl<E: Into<Problem>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Problem(error.into())
    }
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            Self::Replay(answer) => answer.into_response(),
        }
    }
}

/// What a handler answers.
pub(super) type Outcome = Result<Answer, Stop>;

/// A request that may be one of several with the same key. While it lives, the others are refused.
#[derive(Debug)]
pub(super) struct Once {
    keyed: Option<Keyed>,
}

#[derive(Debug)]
struct Keyed {
    caller: Caller,
    key: IdempotencyKey,
    fingerprint: [u8; 32],
    _running: InFlightGuard,
}

impl Once {
    /// How to record the answer with the change, if the request has a key.
    pub(super) fn record<'a, T>(
        &self,
        render: &'a (dyn Fn(&T) -> Vec<u8> + Send + Sync),
    ) -> Option<Recording<'a, T>> {
        self.keyed.as_ref().map(|keyed| Recording {
            key: keyed.key,
            fingerprint: keyed.fingerprint,
            render,
        })
    }

    /// What came of the change. When the same request on another way was first, its answer.
    pub(super) async fn settle<T>(
        &self,
        service: &Service,
        result: Result<T, ServiceError>,
    ) -> Result<T, Stop> {
        match (result, &self.keyed) {
            (Ok(out), _) => Ok(out),
            (Err(ServiceError::IdempotencyKeyUsed), Some(keyed)) => {
                let found = service
                    .replay(&keyed.caller, keyed.key, keyed.fingerprint)
                    .await;
                Err(match found.map_err(Problem::from)? {
                    Some(known) => stop(known),
                    // It expired within this very request.
                    None => in_progress().into(),
                })
            }
            (Err(error), _) => Err(Problem::from(error).into()),
        }
    }
}

/// Begins a POST: finds out whether it was answered before.
pub(super) async fn begin(
    service: &Service,
    caller: &Caller,
    given: Option<&str>,
    scope: KeyScope,
    (method, path): (&str, &str),
    body: &[u8],
) -> Result<Once, Stop> {
    let Some(given) = given else {
        return Ok(Once { keyed: None });
    };
    // The text of an API key goes to the key that asked for it, and to no other of the workspace: a
    // replay must not hand out more than its caller may do.
    let asker = match path {
        "/v1/api-keys" => caller.key.id.to_string(),
        _ => String::new(),
    };
    let (key, fingerprint) = match scope {
        KeyScope::Workspace => (
            keys::key(caller.workspace, "", "", given),
            fingerprint(&[method, path, &asker], body),
        ),
        KeyScope::Path => (
            keys::key(caller.workspace, method, path, given),
            fingerprint(&[], body),
        ),
    };
    match service
        .lookup(caller, key, fingerprint)
        .await
        .map_err(Problem::from)?
    {
        Lookup::Fresh(guard) => Ok(Once {
            keyed: Some(Keyed {
                caller: caller.clone(),
                key,
                fingerprint,
                _running: guard,
            }),
        }),
        known @ (Lookup::Replay(_) | Lookup::InProgress | Lookup::Mismatch) => Err(stop(known)),
    }
}

/// What a request is: SHA-256 over its parts, each preceded by its length, and its body.
fn fingerprint(parts: &[&str], body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(body);
    hash.finalize().into()
}

fn stop(known: Lookup) -> Stop {
    match known {
        Lookup::Replay(bytes) => match Answer::from_bytes(&bytes) {
            Ok(answer) => Stop::Replay(answer),
            Err(damaged) => Problem::internal(damaged).into(),
        },
        Lookup::Mismatch => Problem::new(
            Code::IdempotencyMismatch,
            "nothing was stored: repeat the first request as it was, path and body, or use a new Idempotency-Key",
        )
        .into(),
        Lookup::Fresh(_) | Lookup::InProgress => in_progress().into(),
    }
}

fn in_progress() -> Problem {
    Problem::new(
        Code::IdempotencyInProgress,
        "wait for the first request with this Idempotency-Key, then repeat this one to get its answer",
    )
    .retry_after(1)
}

/// What a key belongs to: only there it stands for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyScope {
    /// The workspace.
    Workspace,
    /// One method and path of the workspace.
    Path,
}

/// Which texts are keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// Visible ASCII.
    Visible,
    /// Any characters that a header carries.
    Any,
}

impl Alphabet {
    const fn name(self) -> &'static str {
        match self {
            Self::Visible => "visible ASCII characters",
            Self::Any => "characters",
        }
    }
}

/// The key of a request, checked.
pub(super) fn read(headers: &HeaderMap, alphabet: Alphabet) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    // What is not UTF-8 is the older Latin-1: the same characters are the same key.
    let text = match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().copied().map(char::from).collect(),
    };
    let sound = (1..=limits::IDEMPOTENCY_KEY_CHARS).contains(&text.chars().count())
        && (alphabet == Alphabet::Any || text.bytes().all(|byte| byte.is_ascii_graphic()))
        && values.next().is_none();
    if sound {
        Ok(Some(text))
    } else {
        Err(Problem::new(
            Code::InvalidIdempotencyKey,
            format!(
                "nothing was stored: send one Idempotency-Key of 1 to {} {}",
                limits::IDEMPOTENCY_KEY_CHARS,
                alphabet.name()
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_answer_comes_back_whole_and_marked() {
        let answer = Answer::created(
            "/v1/apps/a1B2c3D4".to_owned(),
            &serde_json::json!({"id": 1}),
        )
        .version(3);
        let stored = Answer::from_bytes(&answer.to_bytes()).unwrap();
        assert_eq!(
            stored,
            Answer {
                replayed: true,
                ..answer
            }
        );
        let response = stored.into_response();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["etag"], "\"3\"");
        assert_eq!(response.headers()["location"], "/v1/apps/a1B2c3D4");
        assert_eq!(response.headers()["idempotency-replayed"], "true");
        assert!(Answer::from_bytes(b"").is_err());
    }

    #[test]
    fn keys_are_visible_ascii_given_once() {
        let with = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
            }
            read(&headers, Alphabet::Visible)
        };
        assert!(with(&[]).unwrap().is_none());
        assert!(with(&[b"a"]).unwrap().is_some());
        assert!(with(&[&[b'x'; 255]]).unwrap().is_some());
        for bad in [
            &[&b""[..]][..],
            &[&[b'x'; 256]],
            &[b"a b"],
            &[b"a\xff"],
            &[b"a", b"b"],
        ] {
            assert_eq!(
                with(bad).unwrap_err().code(),
                Code::InvalidIdempotencyKey,
                "{bad:?}"
            );
        }
    }
}

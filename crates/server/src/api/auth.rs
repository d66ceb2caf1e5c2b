//! Who calls, for which workspace, and whether their key may.
//!
//! What this node knows of keys and all else is confirmed first, if it is not: `service::fencing`. Then:
//!
//! 1. `Authorization: Bearer <key>`, given once; the scheme's case does not matter. Anything else
//!    is a 401.
//! 2. An operator key chooses a workspace by `Hookturn-Workspace: <id or name>` (`default` without
//!    it). A workspace key reaches its own only.
//! 3. A key that asks more often than it may is refused before anything else is looked at.
//! 4. Query parameters belong to lists: any other call with one is a 400.
//! 5. The scope is part of the handler's type: `Call<Manage>`. It is checked before the body is
//!    read, so that strangers cannot make the server read bodies.
//! 6. `Hookturn-Reason` says why, for the audit log; a `reason` in the body goes before it.
//! 7. Whoever is refused is in the audit log before the refusal is answered, with the route and the
//!    ids in its path; see `service::denials` for how much of it. Of a live key that lacks the scope
//!    the reason in the body is in the log too ([`Said`]); nobody else's body is read.

use std::marker::PhantomData;

use axum::extract::{FromRequestParts, MatchedPath, Path};
use hookturn_core::audit::Subject;
use hookturn_core::limits;
use hookturn_core::workspace::Scope;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use serde::de::DeserializeOwned;

use super::dialect;
use super::idempotency::{self, Once, Stop};
use super::problem::{Code, Problem};
use super::room::Place;
use super::router::{Kind, ROUTES};
use super::said::Said;
use super::{ApiState, RequestId};
use crate::service::denials::{Asked, Refused};
use crate::service::fencing::Fenced;
use crate::service::{Caller, ServiceError};

/// Chooses the workspace of an operator key.
pub(super) const WORKSPACE: HeaderName = HeaderName::from_static("hookturn-workspace");

/// Says why a call is made.
pub(super) const REASON: HeaderName = HeaderName::from_static("hookturn-reason");

/// A scope as a type.
pub(super) trait Needs: Send + Sync + 'static {
    /// The scope.
    const SCOPE: Scope;
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) enum $name {}

        impl Needs for $name {
            const SCOPE: Scope = Scope::$name;
        }
    )*};
}

scopes! {
    /// The call publishes.
    Publish;
    /// The call changes configuration.
    Manage;
    /// The call touches secrets.
    Secrets;
    /// The call reads.
    Read;
}

/// An authenticated request whose key has the scope `N`.
#[derive(Debug)]
pub(super) struct Call<N> {
    /// Who calls.
    pub(super) caller: Caller,
    method: Method,
    uri: Uri,
    idempotency_key: Option<String>,
    if_match: Option<HeaderValue>,
    scope: PhantomData<N>,
}

impl<N: Needs> FromRequestParts<ApiState> for Call<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, Problem> {
        let request_id = parts.extensions.get::<RequestId>().copied();
        let request_id = request_id.unwrap_or_default().to_string();
        let reason = reason(&parts.headers)?;
        api.service.confirmed().await?;
        let key = match bearer(&parts.headers) {
            Ok(text) => match api.service.authenticate(text) {
                Ok(key) => key,
                Err(error) => {
                    let refused = refused(parts, Some(text), request_id, reason);
                    api.service.note_refused(refused).await;
                    return Err(error.into());
                }
            },
            Err(problem) => {
                let refused = refused(parts, None, request_id, reason);
                api.service.note_refused(refused).await;
                return Err(problem);
            }
        };
        let workspace = workspace(&parts.headers)?;
        api.service.pace(&key)?;
        let asking = || asked(parts);
        let service = &api.service;
        let mut caller = service.caller_asking(key, workspace, request_id, reason, asking)?;
        if let Some(place) = parts.extensions.get::<Place>() {
            place.belongs_to(caller.workspace);
        }
        if let Some(fenced) = parts.extensions.get::<Fenced>() {
            caller.fenced = fenced.clone();
        }
        // Publishing is the busy road and names nothing that is anyone else's: only who is refused
        // there is described.
        if N::SCOPE != Scope::Publish || !caller.may(N::SCOPE) {
            caller.asked = asked(parts);
        }
        if !caller.may(N::SCOPE)
            && let Some(said) = parts.extensions.get::<Said>()
        {
            let reason = said.reason().await;
            // One that would be refused says nothing.
            caller = caller.because(reason.as_deref()).unwrap_or(caller);
        }
        api.service.require(&caller, N::SCOPE).await?;
        if let Some(query) = parts.uri.query() {
            refuse_query(parts, query)?;
        }
        let idempotency_key = idempotency_key(parts)?;
        Ok(Self {
            caller,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            idempotency_key,
            if_match: parts.headers.get(header::IF_MATCH).cloned(),
            scope: PhantomData,
        })
    }
}

impl<N: Needs> Call<N> {
    /// Begins a POST with this body: see [`idempotency`].
    pub(super) async fn once(&self, api: &ApiState, body: &[u8]) -> Result<Once, Stop> {
        self.once_at(api, self.uri.path(), body).await
    }

    /// The same for a resource that has several paths: `path` stands for all of them.
    pub(super) async fn once_at(
        &self,
        api: &ApiState,
        path: &str,
        body: &[u8],
    ) -> Result<Once, Stop> {
        let place = (self.method.as_str(), path);
        let given = self.idempotency_key.as_deref();
        let scope = dialect::key_scope(path);
        idempotency::begin(&api.service, &self.caller, given, scope, place, body).await
    }

    /// Who calls, with the reason that the body gives, if it gives one.
    pub(super) fn because(&self, reason: Option<&str>) -> Result<Caller, ServiceError> {
        self.caller.because(reason)
    }

    /// The version that `If-Match` asks for. A tag that is not one of ours matches no version.
    pub(super) fn if_match(&self) -> Result<Option<u64>, Problem> {
        let Some(value) = &self.if_match else {
            return Ok(None);
        };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(None);
        }
        let tag = text
            .strip_prefix("W/")
            .unwrap_or(text)
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .filter(|tag| !tag.contains('"'));
        match tag {
            // A weak tag never matches: RFC 9110, section 13.1.1.
            Some(_) if text.starts_with("W/") => Ok(Some(u64::MAX)),
            Some(tag) => Ok(Some(tag.parse().unwrap_or(u64::MAX))),
            None => Err(Problem::header(
                "If-Match",
                "send it with the one ETag of an earlier answer",
            )),
        }
    }
}

/// A list takes its parameters by name and refuses the rest itself; every other call takes none, so
/// that a filter or a `dryRun` put in the wrong place is not silently ignored.
fn refuse_query(parts: &Parts, query: &str) -> Result<(), Problem> {
    let path = parts
        .extensions
        .get::<MatchedPath>()
        .map(MatchedPath::as_str);
    let is_list = parts.method == Method::GET
        && !ROUTES.iter().any(|route| {
            route.method == "get" && Some(route.path) == path && route.kind != Kind::List
        });
    match url::form_urlencoded::parse(query.as_bytes()).next() {
        // The value is not repeated.
        Some((name, _)) if !is_list => Err(Problem::parameter(
            &name,
            "this call takes no query parameters; what it takes stands in the body or in a header",
        )),
        Some(_) | None => Ok(()),
    }
}

/// The key of a POST. In a dialect that says so, a key that cannot be one is refused on every call that
/// changes something: a script that sends one counts on it.
fn idempotency_key(parts: &Parts) -> Result<Option<String>, Problem> {
    let path = parts.uri.path();
    let is_post = parts.method == Method::POST;
    if !is_post && (parts.method == Method::GET || !dialect::checks_every_key(path)) {
        return Ok(None);
    }
    let key = idempotency::read(&parts.headers, dialect::key_alphabet(path))?;
    Ok(key.filter(|_| is_post))
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    let text = match (first, second) {
        (Some(value), None) => value.to_str().unwrap_or_default(),
        (None | Some(_), _) => "",
    };
    text.split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty())
        .ok_or_else(|| {
            Problem::new(
                Code::Unauthorized,
                "send the API key as `Authorization: Bearer sk_…`",
            )
        })
}

fn workspace(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    headers
        .get(WORKSPACE)
        .map(|value| {
            value.to_str().map_err(|_| {
                Problem::header(
                    "Hookturn-Workspace",
                    "holds the id or the name of a workspace",
                )
            })
        })
        .transpose()
}

/// Why, in the caller's words.
fn reason(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(REASON).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let sound = (1..=limits::TEXT_CHARS).contains(&text.len()) && values.next().is_none();
    if sound && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(Some(text.to_owned()));
    }
    Err(Problem::header(
        "Hookturn-Reason",
        format!(
            "send it once, with 1 to {} printable ASCII characters; other text goes into the member \
             `reason` of the body, where a call has one",
            limits::TEXT_CHARS
        ),
    ))
}

fn refused<'a>(
    parts: &'a Parts,
    bearer: Option<&'a str>,
    request_id: String,
    reason: Option<String>,
) -> Refused<'a> {
    Refused {
        bearer,
        session_of: None,
        request_id,
        reason,
        workspace: workspace(&parts.headers).ok().flatten(),
        asked: asked(parts),
    }
}

/// What a request asks for: its route, and the parts of its path that are ids.
fn asked(parts: &Parts) -> Asked {
    let Some(route) = parts.extensions.get::<MatchedPath>() else {
        return Asked::default();
    };
    let mut subject = Subject::default();
    for (name, text) in route.as_str().split('/').zip(parts.uri.path().split('/')) {
        match name {
            "{clientId}" => subject.app = text.parse().ok(),
            "{endpointId}" => subject.endpoint = text.parse().ok(),
            "{keyringId}" => subject.keyring = text.parse().ok(),
            "{secretId}" => subject.secret = text.parse().ok(),
            "{rotationId}" => subject.rotation = text.parse().ok(),
            "{messageId}" => subject.message = text.parse().ok(),
            "{deliveryId}" => subject.delivery = text.parse().ok(),
            "{apiKeyId}" => subject.api_key = text.parse().ok(),
            _ => {}
        }
    }
    Asked {
        route: Some(format!("{} {}", parts.method, route.as_str())),
        subject,
    }
}

/// The ids in a path. One that cannot be an id names nothing: 404.
#[derive(Debug)]
pub(super) struct Ids<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Ids<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(ids)) => Ok(Self(ids)),
            Err(_) => Err(Problem::new(
                Code::NotFound,
                "a part of the path is not an id of the kind that belongs there",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_read_from_one_bearer_header() {
        for (values, wanted) in [
            (&["Bearer sk_a"][..], Some("sk_a")),
            (&["bearer  sk_a "], Some("sk_a")),
            (&["BEARER sk_a"], Some("sk_a")),
            (&[], None),
            (&["Basic sk_a"], None),
            (&["Bearer"], None),
            (&["Bearer "], None),
            (&["Bearer a", "Bearer b"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(bearer(&headers).ok(), wanted, "{values:?}");
        }
    }
}

//! Who looks at a page, and the forms they send.

use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request};
use hookturn_core::id::draw;
use hookturn_core::workspace::Scope;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::UiState;
use super::error::UiError;
use super::frame::base;
use crate::service::denials::{Asked, Refused};
use crate::service::sessions::Session;
use crate::service::{Caller, ServiceError};

/// The cookie of a session.
const COOKIE: &str = "hookturn_session";

/// Somebody with a session, on one request.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// Who they are to the service.
    pub(super) caller: Caller,
    /// Their session.
    pub(super) session: Session,
    /// What links of the page are relative to.
    pub(super) base: String,
    /// Path and query of the page, relative to that.
    pub(super) here: String,
    /// What their form holds of its own, and the SHA-256 of all that it says.
    pub(super) form: Option<(String, [u8; 32])>,
}

impl Visitor {
    /// Whether their key has a scope: what it has not is not shown.
    pub(super) fn may(&self, scope: Scope) -> bool {
        self.caller.may(scope)
    }
}

impl FromRequestParts<UiState> for Visitor {
    type Rejection = UiError;

    async fn from_request_parts(parts: &mut Parts, ui: &UiState) -> Result<Self, UiError> {
        let base = base(&parts.headers);
        let asked = parts.uri.path_and_query().map(ToString::to_string);
        let confirmed = ui.service.confirmed().await;
        confirmed.map_err(|behind| UiError::service(&behind, &base))?;
        let cookie = session_cookie(&parts.headers).filter(|cookie| !cookie.is_empty());
        let session = cookie.and_then(|cookie| ui.service.session(cookie));
        // Where somebody is led back to: never to what only a form is sent to.
        let page = || match parts.method {
            Method::GET => asked.clone(),
            _ => referred(&parts.headers, &base),
        };
        let Some(session) = session else {
            let (asked, has_ended) = (page(), cookie.is_some());
            return Err(UiError::SignedOut {
                base,
                asked,
                has_ended,
            });
        };
        let id = uuid::Builder::from_random_bytes(draw(ui.entropy.as_ref())).into_uuid();
        match ui.service.session_caller(&session, id.to_string()) {
            Ok(caller) => {
                ui.service
                    .pace(&caller.key)
                    .map_err(|error| UiError::service(&error, &base))?;
                Ok(Self {
                    caller,
                    session,
                    base,
                    here: asked.unwrap_or_default().trim_start_matches('/').to_owned(),
                    form: None,
                })
            }
            // Revoked or expired meanwhile.
            Err(ServiceError::Unauthorized) => {
                let known = ui.service.unless_behind(StatusCode::UNAUTHORIZED);
                known.map_err(|behind| UiError::service(&behind, &base))?;
                let route = parts.extensions.get::<MatchedPath>();
                let route = route.map(|route| format!("{} {}", parts.method, route.as_str()));
                let refused = Refused {
                    session_of: Some(session.key),
                    request_id: id.to_string(),
                    asked: Asked {
                        route,
                        ..Asked::default()
                    },
                    ..Refused::default()
                };
                ui.service.note_refused(refused).await;
                let (asked, has_ended) = (page(), true);
                Err(UiError::SignedOut {
                    base,
                    asked,
                    has_ended,
                })
            }
            Err(_) => Err(UiError::SignedOut {
                base,
                asked: None,
                has_ended: true,
            }),
        }
    }
}

/// A form that a visitor sent from one of our pages.
#[derive(Debug)]
pub(super) struct Sent<T> {
    /// Who.
    pub(super) visitor: Visitor,
    /// Its fields.
    pub(super) fields: T,
}

/// What every form has beside its fields.
#[derive(Deserialize)]
struct Token {
    form_token: String,
    #[serde(default)]
    once: String,
}

impl<T: DeserializeOwned> FromRequest<UiState> for Sent<T> {
    type Rejection = UiError;

    async fn from_request(request: Request, ui: &UiState) -> Result<Self, UiError> {
        let (mut parts, body) = request.into_parts();
        let mut visitor = Visitor::from_request_parts(&mut parts, ui).await?;
        refuse_foreign(&parts.headers, &visitor.base)?;
        let unreadable = || UiError::unreadable(&visitor.base);
        let form = ui.reading.form(&parts.headers, body).await;
        let form = form.ok_or_else(unreadable)?;
        let sent: Token = serde_urlencoded::from_bytes(&form).map_err(|_| unreadable())?;
        let expected = visitor.session.form_token.as_bytes();
        if !bool::from(sent.form_token.as_bytes().ct_eq(expected)) {
            return Err(UiError::foreign(&visitor.base));
        }
        let fields = serde_urlencoded::from_bytes(&form).map_err(|_| unreadable())?;
        if !sent.once.is_empty() {
            visitor.form = Some((sent.once, Sha256::digest(&form).into()));
        }
        Ok(Self { visitor, fields })
    }
}

/// The page that a form was on, as its browser names it: path and query, relative to the base.
fn referred(headers: &HeaderMap, base: &str) -> Option<String> {
    let referrer = headers.get(header::REFERER)?.to_str().ok()?;
    let (_, rest) = referrer.split_once("://")?;
    let (_, path) = rest.split_at(rest.find('/')?);
    path.strip_prefix(base).map(str::to_owned)
}

/// Refuses what a browser says comes from another origin. Old browsers say nothing; the token and the
/// cookie's `SameSite` hold for them.
pub(super) fn refuse_foreign(headers: &HeaderMap, base: &str) -> Result<(), UiError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return Err(UiError::foreign(base));
    }
    let Some(origin) = text(header::ORIGIN.as_str()) else {
        return Ok(());
    };
    let host = text("x-forwarded-host").or(text(header::HOST.as_str()));
    let same = origin
        .split_once("://")
        .is_some_and(|(_, authority)| Some(authority) == host);
    if same {
        Ok(())
    } else {
        Err(UiError::foreign(base))
    }
}

/// The `Set-Cookie` that begins a session, or ends it with an empty cookie.
pub(super) fn set_cookie(cookie: &str, base: &str, headers: &HeaderMap) -> String {
    let secure = headers
        .get("x-forwarded-proto")
        .is_some_and(|scheme| scheme.as_bytes() == b"https");
    let secure = if secure { "; Secure" } else { "" };
    let age = if cookie.is_empty() { "; Max-Age=0" } else { "" };
    format!("{COOKIE}={cookie}; Path={base}; HttpOnly; SameSite=Strict{secure}{age}")
}

fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

//! What a visitor sees when a page or a form cannot be answered.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use hookturn_core::rotation::Rejected;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::assets::{ASSETS, Assets};
use super::frame::{base, page};
use super::guard::dress;
use crate::service::ServiceError;

/// Why there is no page.
#[derive(Debug)]
pub(super) enum UiError {
    /// No session, or one that ended. The visitor is led to sign in, and back to what they asked for.
    SignedOut {
        /// What links are relative to.
        base: String,
        /// Path and query that were asked for.
        asked: Option<String>,
        /// Whether there was a session, which has ended.
        has_ended: bool,
    },
    /// Anything that is told on a page of its own.
    Told {
        /// What links are relative to.
        base: String,
        /// The answer's status.
        status: StatusCode,
        /// What happened, what was kept, what to do next.
        message: String,
        /// What to do next, where the message does not say.
        advice: &'static str,
        /// How long to wait before the next try, in seconds.
        retry_after: Option<u64>,
    },
}

/// The page of an error.
#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    /// What links are relative to.
    base: &'a str,
    /// The status as a number.
    status: u16,
    /// What happened, what was kept, what to do next.
    message: &'a str,
    /// What to do next, where the message does not say.
    advice: &'static str,
    /// The files that pages load.
    assets: &'static Assets,
}

impl UiError {
    fn told(status: StatusCode, base: &str, message: impl Into<String>) -> Self {
        Self::Told {
            base: base.to_owned(),
            status,
            message: message.into(),
            advice: "",
            retry_after: None,
        }
    }

    /// A form that does not come from a page of ours.
    pub(super) fn foreign(base: &str) -> Self {
        Self::told(
            StatusCode::FORBIDDEN,
            base,
            "nothing was changed: the form does not belong to this session; load its page again",
        )
    }

    /// A form without its fields.
    pub(super) fn unreadable(base: &str) -> Self {
        Self::told(
            StatusCode::BAD_REQUEST,
            base,
            "nothing was changed: the form could not be read; load its page again",
        )
    }

    /// What the service refused, where no field of a form is to blame.
    pub(super) fn service(error: &ServiceError, base: &str) -> Self {
        let status = status_of(error);
        let retry_after = match error {
            ServiceError::RateLimited { wait_millis }
            | ServiceError::ProbesUsedUp { wait_millis, .. } => Some(wait_millis.div_ceil(1_000)),
            _ => None,
        };
        // That the database is away is in the log already, once.
        if status.is_server_error() && !matches!(error, ServiceError::Behind) {
            tracing::error!(error = %crate::telemetry::explain(error), "a page could not be answered");
        }
        Self::Told {
            base: base.to_owned(),
            status,
            message: error.to_string(),
            advice: advice(error),
            retry_after,
        }
    }
}

/// What a visitor can do about what the service refused.
fn advice(error: &ServiceError) -> &'static str {
    match error {
        ServiceError::Forbidden { .. } | ServiceError::OperatorOnly => {
            "Sign in with a key that may, or ask whoever made yours."
        }
        ServiceError::RateLimited { .. }
        | ServiceError::ProbesUsedUp { .. }
        | ServiceError::Unavailable
        | ServiceError::Busy
        | ServiceError::Behind
        | ServiceError::Unwritable => "Wait a moment, then load the page again.",
        ServiceError::AuditUnreadable { .. }
        | ServiceError::Uncertain
        | ServiceError::Internal(_) => {
            "Load the page again. If a form led here, look whether it was carried out before you send it \
             again. Whoever runs the server finds the reason in its log."
        }
        ServiceError::PreconditionFailed { .. } | ServiceError::IdempotencyKeyUsed => {
            "Go back, load the page again, and do it again if it still fits."
        }
        ServiceError::NotFound { .. } => "The address is mistyped, or what it showed is gone.",
        ServiceError::Damaged
        | ServiceError::Unauthorized
        | ServiceError::Invalid { .. }
        | ServiceError::Missing { .. }
        | ServiceError::Rejected(_)
        | ServiceError::Conflict { .. }
        | ServiceError::TooLarge { .. } => "",
    }
}

/// The status of what the service refused.
pub(super) fn status_of(error: &ServiceError) -> StatusCode {
    match error {
        ServiceError::NotFound { .. } => StatusCode::NOT_FOUND,
        ServiceError::Forbidden { .. } | ServiceError::OperatorOnly => StatusCode::FORBIDDEN,
        ServiceError::Unauthorized => StatusCode::UNAUTHORIZED,
        ServiceError::Invalid { .. }
        | ServiceError::Missing { .. }
        // A field is to blame, and not what is so.
        | ServiceError::Rejected(
            Rejected::OverlapTooLong
            | Rejected::RetiresTooLate
            | Rejected::NotLater { .. }
            | Rejected::InvalidPolicy(_),
        ) => StatusCode::UNPROCESSABLE_ENTITY,
        ServiceError::Rejected(_)
        | ServiceError::Conflict { .. }
        | ServiceError::IdempotencyKeyUsed => StatusCode::CONFLICT,
        ServiceError::PreconditionFailed { .. } => StatusCode::PRECONDITION_FAILED,
        ServiceError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ServiceError::RateLimited { .. } | ServiceError::ProbesUsedUp { .. } => {
            StatusCode::TOO_MANY_REQUESTS
        }
        ServiceError::Unavailable
        | ServiceError::Busy
        | ServiceError::Behind
        | ServiceError::Unwritable
        | ServiceError::Damaged
        | ServiceError::Uncertain => StatusCode::SERVICE_UNAVAILABLE,
        ServiceError::AuditUnreadable { .. } | ServiceError::Internal(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// Answers a path that leads nowhere with a page, if it is a browser that asks.
pub fn nowhere(asked: &HeaderMap) -> Option<Response> {
    let accepts = asked.get(header::ACCEPT)?.to_str().ok()?;
    if !accepts.contains("text/html") {
        return None;
    }
    let message = "there is no such page: the address is mistyped, or what it showed is gone";
    let mut response = UiError::told(StatusCode::NOT_FOUND, &base(asked), message).into_response();
    dress(response.headers_mut());
    Some(response)
}

impl IntoResponse for UiError {
    fn into_response(self) -> Response {
        match self {
            Self::SignedOut {
                base,
                asked,
                has_ended,
            } => {
                let back = asked
                    .map(|asked| asked.trim_start_matches('/').to_owned())
                    .filter(|asked| !asked.is_empty());
                let ended = has_ended.then(|| "1".to_owned());
                let parts = [("back", back), ("ended", ended)];
                let given = parts
                    .into_iter()
                    .filter_map(|(name, part)| Some((name, part?)));
                let query = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(given)
                    .finish();
                let query = if query.is_empty() {
                    query
                } else {
                    format!("?{query}")
                };
                Redirect::to(&format!("{base}sign-in{query}")).into_response()
            }
            Self::Told {
                base,
                status,
                message,
                advice,
                retry_after,
            } => {
                let error = ErrorPage {
                    base: &base,
                    status: status.as_u16(),
                    message: &message,
                    advice,
                    assets: &ASSETS,
                };
                let mut response = page(status, &error);
                if let Some(seconds) = retry_after {
                    response
                        .headers_mut()
                        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                }
                response
            }
        }
    }
}

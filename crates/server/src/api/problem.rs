//! What went wrong, as RFC 9457 problem documents.
//!
//! [`Code`] is the one list of errors: it answers the status, the title and whether asking again
//! helps. A [`Problem`] is a code with what there is to say about this request; it travels as an
//! extension of an empty response until the `edge` of the API writes the body, because only there is the
//! request id known. The source of a problem never reaches the caller: the edge logs it once.
//!
//! Nothing that a caller sent is repeated in a problem except names of fields and ids: a secret may
//! stand anywhere in a body, also where a number belongs.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident, $retry:literal, $title:literal;)*) => {
        /// Every error of the native API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name,)*
            /// A conflict with the state of a resource, named by the service.
            State(&'static str),
        }

        impl Code {
            /// Every code that this module names.
            pub const KNOWN: &'static [Self] = &[$(Self::$name),*];

            /// The stable word in `code` and `type`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                    Self::State(word) => word,
                }
            }

            /// The HTTP status.
            pub const fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                    Self::State(_) => StatusCode::CONFLICT,
                }
            }

            /// Whether the same request can succeed later without a change.
            pub const fn retry_helps(self) -> bool {
                match self {
                    $(Self::$name => $retry,)*
                    Self::State(_) => false,
                }
            }

            /// The same for every problem of this code.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                    Self::State(_) => "The state of the resource does not allow this",
                }
            }
        }
    };
}

codes! {
    /// The request is not one that HTTP allows.
    MalformedRequest = "malformed_request", BAD_REQUEST, false, "The request is not valid HTTP";
    /// The body is not JSON.
    MalformedJson = "malformed_json", BAD_REQUEST, false, "The body is not valid JSON";
    /// The body is not UTF-8.
    InvalidUtf8 = "invalid_utf8", BAD_REQUEST, false, "The body is not UTF-8";
    /// The body could not be read to its end.
    IncompleteBody = "incomplete_body", BAD_REQUEST, true, "The body ended early";
    /// A query parameter is unknown or has an impossible value.
    InvalidParameter = "invalid_parameter", BAD_REQUEST, false, "A query parameter is not valid";
    /// A request header is not what it must be.
    InvalidHeader = "invalid_header", BAD_REQUEST, false, "A request header is not valid";
    /// `Idempotency-Key` is empty, too long or not visible ASCII.
    InvalidIdempotencyKey = "invalid_idempotency_key", BAD_REQUEST, false, "The Idempotency-Key is not valid";
    /// No key, or one that opens nothing.
    Unauthorized = "unauthorized", UNAUTHORIZED, false, "A valid API key is needed";
    /// The key lacks a scope or reach.
    Forbidden = "forbidden", FORBIDDEN, false, "The API key may not do this";
    /// No such thing, or not in this workspace.
    NotFound = "not_found", NOT_FOUND, false, "Not found";
    /// The path exists with other methods.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, false, "The path does not have this method";
    /// The head of the request did not come in time.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, true, "The request did not come in time";
    /// A request with the same idempotency key is still running.
    IdempotencyInProgress = "idempotency_in_progress", CONFLICT, true, "The first request with this Idempotency-Key is still running";
    /// Others changed the same thing all the time.
    Contended = "contended", CONFLICT, true, "Other requests changed the same thing at the same time";
    /// `If-Match` names another version.
    PreconditionFailed = "precondition_failed", PRECONDITION_FAILED, false, "The resource has another version";
    /// The body or the payload in it is too large.
    TooLarge = "too_large", PAYLOAD_TOO_LARGE, false, "The body or the payload is too large";
    /// The body is not declared as JSON.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, false, "The body must be application/json";
    /// The body is compressed.
    UnsupportedEncoding = "unsupported_encoding", UNSUPPORTED_MEDIA_TYPE, false, "The body must not be encoded";
    /// The path and query are too long.
    UriTooLong = "uri_too_long", URI_TOO_LONG, false, "The path is too long";
    /// The request line and headers together are too large, or too many.
    HeadTooLarge = "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, false, "The headers are too large or too many";
    /// A field of the body is unknown, missing, of another type or out of bounds.
    InvalidField = "invalid_field", UNPROCESSABLE_ENTITY, false, "A field of the body is not valid";
    /// The same idempotency key came with another request.
    IdempotencyMismatch = "idempotency_mismatch", UNPROCESSABLE_ENTITY, false, "The Idempotency-Key was used with another request";
    /// The key asks more often than it may.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, true, "Too many requests with this API key";
    /// An endpoint or its host got as many probes as they may.
    ProbesUsedUp = "probes_used_up", TOO_MANY_REQUESTS, true, "Too many probes to this receiver";
    /// An entry of the audit log was damaged.
    AuditUnreadable = "audit_unreadable", INTERNAL_SERVER_ERROR, false, "An entry of the audit log cannot be read";
    /// Our fault.
    Internal = "internal", INTERNAL_SERVER_ERROR, true, "Internal error";
    /// The disk of the store is full, read-only or failing, or its database is away.
    StoreUnwritable = "store_unwritable", SERVICE_UNAVAILABLE, true, "The store cannot write at the moment";
    /// A page of the embedded store is damaged.
    StoreDamaged = "store_damaged", SERVICE_UNAVAILABLE, false, "The database of the server is damaged";
    /// Starting, draining, or the store does not answer.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, true, "Not available at the moment";
}

/// When to ask again while the store cannot write: a disk is not cleaned up within a second.
const UNWRITABLE_SECONDS: u32 = 10;

/// What is wrong with one field of the body, one query parameter or one header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldError {
    /// Where in the body: an RFC 6901 JSON pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/url")]
    pub pointer: Option<String>,
    /// Which query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "limit")]
    pub parameter: Option<String>,
    /// Which request header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Hookturn-Reason")]
    pub header: Option<String>,
    /// What is expected there.
    #[schema(example = "the scheme must be https")]
    pub detail: String,
    /// Whether there is nothing, where something is needed: dialects tell the two apart.
    #[serde(skip)]
    pub missing: bool,
}

/// An error answer. Cheap to move; see the module text.
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    retry_after_seconds: Option<u32>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Whether a text that a caller sent may be a secret, which no answer repeats: it has the mark of one, or
/// 32 hexadecimal digits in a row.
pub(super) fn looks_secret(text: &str) -> bool {
    text.starts_with("sk_")
        || ["whsec_", "whsk_", "sk_operator_", "sk_workspace_"]
            .iter()
            .any(|mark| text.contains(mark))
        || text
            .as_bytes()
            .split(|byte| !byte.is_ascii_hexdigit())
            .any(|run| run.len() >= 32)
}

impl Problem {
    /// Longest name that a caller made up and an answer repeats, in characters.
    pub(super) const NAME_CHARS: usize = 64;

    /// A problem of this code. `detail` says what happened and what to do next.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            members: Map::new(),
            retry_after_seconds: None,
            source: None,
        }))
    }

    /// A field of the body that is not valid.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(
            Code::InvalidField,
            "nothing was stored: correct the fields listed in `errors`",
        )
        .at(pointer, detail)
    }

    /// A query parameter that is not valid. Its name may be the caller's own.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Self {
        let name = if looks_secret(name) {
            "(hidden)".to_owned()
        } else {
            name.chars().take(Self::NAME_CHARS).collect()
        };
        let mut problem = Self::new(
            Code::InvalidParameter,
            "correct the query parameters listed in `errors`",
        );
        problem.0.errors.push(FieldError {
            pointer: None,
            parameter: Some(name),
            header: None,
            detail: detail.into(),
            missing: false,
        });
        problem
    }

    /// A request header that is not valid.
    pub fn header(name: &str, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(
            Code::InvalidHeader,
            "nothing was changed: correct the headers listed in `errors`",
        );
        problem.0.errors.push(FieldError {
            pointer: None,
            parameter: None,
            header: Some(name.to_owned()),
            detail: detail.into(),
            missing: false,
        });
        problem
    }

    /// No such resource, or one that the caller must not know of.
    pub fn not_found(what: &str) -> Self {
        Self::new(
            Code::NotFound,
            format!("there is no such {what} in this workspace"),
        )
    }

    /// An error of ours; `source` is logged, never shown.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(
            Code::Internal,
            "the request failed on our side; the log has the cause under this request id",
        )
        .caused_by(source)
    }

    /// The same with what caused it: logged, never shown.
    pub(super) fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// The store cannot write; `kept` says what that means for the request.
    pub(super) fn store_unwritable(kept: &str) -> Self {
        Self::new(
            Code::StoreUnwritable,
            format!(
                "{kept}the disk of the store is full, read-only or failing, or its database is away; \
                 whoever runs the server finds the cause in its log, and it goes on by itself once \
                 that is mended"
            ),
        )
        .retry_after(UNWRITABLE_SECONDS)
    }

    /// The store is damaged; `kept` says what that means for the request.
    pub(super) fn store_damaged(kept: &str) -> Self {
        Self::new(
            Code::StoreDamaged,
            format!(
                "{kept}the server's database is damaged. What can still be read of it is there, and is \
                 delivered; nothing new is accepted until whoever runs the server stops it, looks with \
                 `hookturn doctor`, and restores a backup"
            ),
        )
    }

    /// The same with one more field error. Names in the pointer may be the caller's own.
    pub fn at(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let pointer: String = pointer.into();
        let names = pointer.split('/');
        let shown: Vec<_> = names
            .map(|name| if looks_secret(name) { "" } else { name })
            .collect();
        self.0.errors.push(FieldError {
            pointer: Some(shown.join("/")),
            parameter: None,
            header: None,
            detail: detail.into(),
            missing: false,
        });
        self
    }

    /// A field of the body that is needed and not there.
    pub fn missing_field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut problem = Self::field(pointer, detail);
        for error in &mut problem.0.errors {
            error.missing = true;
        }
        problem
    }

    /// The same with an extension member.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// The same with `Retry-After`.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_seconds = Some(seconds);
        self
    }

    /// Its code.
    pub const fn code(&self) -> Code {
        self.0.code
    }

    /// What happened, and what to do next.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Fields, parameters or headers that are not valid.
    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// Extension members.
    pub const fn members(&self) -> &Map<String, Value> {
        &self.0.members
    }

    /// What caused it, for the log.
    pub fn source(&self) -> Option<&(dyn Error + Send + Sync)> {
        self.0.source.as_deref()
    }

    fn document(&self, request_id: &str) -> Value {
        let Inner {
            code,
            detail,
            errors,
            members,
            ..
        } = &*self.0;
        let mut document = Map::new();
        let mut put = |name: &str, value: Value| document.insert(name.to_owned(), value);
        put(
            "type",
            format!("urn:hookturn:problem:{}", code.as_str()).into(),
        );
        put("title", code.title().into());
        put("status", code.status().as_u16().into());
        put("detail", detail.clone().into());
        put("code", code.as_str().into());
        put("requestId", request_id.into());
        put("retryable", code.retry_helps().into());
        if !errors.is_empty() {
            put(
                "errors",
                serde_json::to_value(errors).unwrap_or(Value::Null),
            );
        }
        document.extend(
            members
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        Value::Object(document)
    }

    /// Writes the problem into its response, whose other headers stay.
    pub(super) fn render(&self, response: &mut Response, request_id: &str) {
        let body = self.document(request_id).to_string();
        self.render_as(response, "application/problem+json", body);
    }

    /// Writes a body that says the same in whatever form, and the headers that belong to it.
    pub(super) fn render_as(
        &self,
        response: &mut Response,
        content_type: &'static str,
        body: String,
    ) {
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if self.0.code == Code::Unauthorized {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"hookturn\""),
            );
        }
        if self.0.code == Code::UnsupportedEncoding {
            headers.insert(
                header::ACCEPT_ENCODING,
                HeaderValue::from_static("identity"),
            );
        }
        if let Some(seconds) = self.0.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        *response.body_mut() = Body::from(body);
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// What went wrong: RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub(super) struct ProblemDocument {
    /// Names the kind of problem: `urn:hookturn:problem:` and the code.
    #[schema(format = "uri", example = "urn:hookturn:problem:not_found")]
    r#type: String,
    /// The same for every problem of this code.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened, and what to do next.
    detail: String,
    /// A stable word for programs.
    #[schema(pattern = "^[a-z0-9_]+$")]
    code: String,
    /// The same as the header `X-Request-Id`.
    #[schema(format = "uuid")]
    request_id: String,
    /// Whether the same request can succeed later without a change.
    retryable: bool,
    /// Fields, parameters or headers that are not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<FieldError>>,
    /// The rotation that is open, when that is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_rotation_id: Option<String>,
    /// The secret that is pending already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_secret_id: Option<String>,
    /// The secret of the keyring that has this value already.
    #[serde(skip_serializing_if = "Option::is_none")]
    existing_secret_id: Option<String>,
    /// The rotation that is the latest, when another one was to be undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_rotation_id: Option<String>,
    /// When the old secret retires anyway, when it was to be put off to a time that is not later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "date-time")]
    retire_at: Option<String>,
    /// The line at which the body stops being JSON, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    /// The column there.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u64>,
    /// The version the resource has, when `If-Match` named another.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_version: Option<u64>,
    /// The scope that the key lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    needs_scope: Option<String>,
    /// The number of the audit entry that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_words_with_an_error_status() {
        let mut words: Vec<_> = Code::KNOWN.iter().map(|code| code.as_str()).collect();
        words.sort_unstable();
        let count = words.len();
        words.dedup();
        assert_eq!(words.len(), count);
        for code in Code::KNOWN {
            assert!(code.status().as_u16() >= 400, "{code:?}");
            assert!(!code.title().is_empty());
        }
    }

    #[test]
    fn a_document_shows_no_source() {
        let problem = Problem::internal("the disk said whsec_hidden");
        let text = problem.document("req").to_string();
        assert!(!text.contains("whsec_hidden"), "{text}");
        assert!(problem.source().is_some());
    }
}

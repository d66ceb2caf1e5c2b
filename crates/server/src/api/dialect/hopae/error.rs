//! Errors as Hopae writes them: `{"error":{"code","message","details"?},"request_id"}`.
//!
//! Hopae publishes ten codes. Seven answers have none there: 405, 408, 413, 414, 429, 431 and 503. They get
//! codes of the same families, so that whoever looks at the beginning of a code is right about them.

use std::borrow::Cow;

use axum::response::Response;
use http::StatusCode;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::super::super::problem::{Code, FieldError, Problem};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident;)*) => {
        /// Every error of the dialect.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Word {
            $($(#[$doc])* $name,)*
        }

        impl Word {
            const ALL: &'static [Self] = &[$(Self::$name),*];

            const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            const fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                }
            }
        }
    };
}

words! {
    /// The API key is missing, unknown, expired or revoked.
    InvalidCredentials = "AUTH_INVALID_CREDENTIALS", UNAUTHORIZED;
    /// The API key may not do this.
    Forbidden = "AUTH_FORBIDDEN", FORBIDDEN;
    /// Something needed is not there.
    MissingParameter = "VALIDATION_MISSING_PARAMETER", BAD_REQUEST;
    /// Something is not what it must be.
    InvalidParameter = "VALIDATION_INVALID_PARAMETER", BAD_REQUEST;
    /// The body is too large.
    PayloadTooLarge = "VALIDATION_PAYLOAD_TOO_LARGE", PAYLOAD_TOO_LARGE;
    /// The path and query are too long.
    UriTooLong = "VALIDATION_URI_TOO_LONG", URI_TOO_LONG;
    /// The headers are too large or too many.
    HeadersTooLarge = "VALIDATION_HEADERS_TOO_LARGE", REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// No such thing in this workspace, or no such path.
    NotFound = "RESOURCE_NOT_FOUND", NOT_FOUND;
    /// The path exists with other methods.
    MethodNotAllowed = "RESOURCE_METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED;
    /// The state of the resource does not allow it.
    Conflict = "RESOURCE_CONFLICT", CONFLICT;
    /// The same idempotency key came with another body.
    KeyConflict = "IDEMPOTENCY_KEY_CONFLICT", CONFLICT;
    /// The first request with this idempotency key is still running.
    RequestInProgress = "IDEMPOTENCY_REQUEST_IN_PROGRESS", CONFLICT;
    /// The request came too slowly.
    RequestTimeout = "VALIDATION_REQUEST_TIMEOUT", REQUEST_TIMEOUT;
    /// The API key asks more often than it may.
    RateLimited = "RATE_LIMIT_EXCEEDED", TOO_MANY_REQUESTS;
    /// Our fault.
    Internal = "SYSTEM_INTERNAL_ERROR", INTERNAL_SERVER_ERROR;
    /// Starting, stopping, or the store does not answer.
    Unavailable = "SYSTEM_UNAVAILABLE", SERVICE_UNAVAILABLE;
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl PartialSchema for Word {
    fn schema() -> RefOr<Schema> {
        let words = Self::ALL.iter().map(|word| word.as_str());
        let object = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .enum_values(Some(words))
            .description(Some("A stable word for programs."));
        RefOr::T(Schema::Object(object.build()))
    }
}

impl ToSchema for Word {
    fn name() -> Cow<'static, str> {
        "ErrorCode".into()
    }
}

/// An error answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorDocument {
    error: ErrorView,
    /// The same as the header `X-Request-Id`.
    #[schema(format = "uuid")]
    request_id: String,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorView {
    /// A stable word for programs.
    code: Word,
    /// What happened, and what to do next.
    message: String,
    /// More, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Details>)]
    details: Option<Map<String, Value>>,
}

/// What the documentation says of `details`; there may be more members.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct Details {
    /// The field of the body (with dots between levels), the query parameter or the header.
    #[schema(example = "webhookConfig.url")]
    parameter: Option<String>,
    /// What was given, if it is a number or a boolean, or a query parameter.
    value: Option<Value>,
}

/// Writes a problem into its response.
pub(in crate::api::dialect) fn render(
    problem: &Problem,
    response: &mut Response,
    request_id: &str,
) {
    let word = word(problem);
    let first = problem.errors().first();
    let parameter = first.map_or_else(
        || default_parameter(problem.code()).map(str::to_owned),
        |error| Some(parameter(error)),
    );
    let message = match (first, &parameter) {
        (Some(error), Some(name)) => format!("{name}: {}", error.detail),
        (Some(_) | None, _) => problem.detail().to_owned(),
    };
    let mut details = problem.members().clone();
    if let Some(name) = parameter {
        details.insert("parameter".to_owned(), name.into());
    }
    let document = ErrorDocument {
        error: ErrorView {
            code: word,
            message,
            details: (!details.is_empty()).then_some(details),
        },
        request_id: request_id.to_owned(),
    };
    *response.status_mut() = word.status();
    // Texts and JSON values always serialise.
    let body = serde_json::to_string(&document).unwrap_or_default();
    problem.render_as(response, "application/json", body);
}

fn word(problem: &Problem) -> Word {
    match problem.code() {
        Code::Unauthorized => Word::InvalidCredentials,
        Code::Forbidden => Word::Forbidden,
        Code::InvalidField if problem.errors().iter().any(|error| error.missing) => {
            Word::MissingParameter
        }
        Code::InvalidField
        | Code::InvalidParameter
        | Code::InvalidHeader
        | Code::InvalidIdempotencyKey
        | Code::MalformedJson
        | Code::InvalidUtf8
        | Code::IncompleteBody
        | Code::UnsupportedMediaType
        | Code::UnsupportedEncoding
        | Code::MalformedRequest => Word::InvalidParameter,
        Code::UriTooLong => Word::UriTooLong,
        Code::HeadTooLarge => Word::HeadersTooLarge,
        Code::RequestTimeout => Word::RequestTimeout,
        Code::TooLarge => Word::PayloadTooLarge,
        Code::NotFound => Word::NotFound,
        Code::MethodNotAllowed => Word::MethodNotAllowed,
        Code::Contended | Code::PreconditionFailed | Code::State(_) => Word::Conflict,
        Code::IdempotencyMismatch => Word::KeyConflict,
        Code::IdempotencyInProgress => Word::RequestInProgress,
        Code::RateLimited | Code::ProbesUsedUp => Word::RateLimited,
        Code::Internal | Code::AuditUnreadable => Word::Internal,
        Code::Unavailable | Code::StoreUnwritable | Code::StoreDamaged => Word::Unavailable,
    }
}

/// What a problem without a field is about.
const fn default_parameter(code: Code) -> Option<&'static str> {
    match code {
        Code::InvalidIdempotencyKey | Code::IdempotencyMismatch => Some("Idempotency-Key"),
        Code::MalformedJson
        | Code::InvalidUtf8
        | Code::IncompleteBody
        | Code::TooLarge
        | Code::UnsupportedMediaType
        | Code::UnsupportedEncoding
        | Code::InvalidField
        | Code::InvalidParameter => Some("body"),
        Code::MalformedRequest
        | Code::RequestTimeout
        | Code::UriTooLong
        | Code::HeadTooLarge
        | Code::Unauthorized
        | Code::Forbidden
        | Code::NotFound
        | Code::MethodNotAllowed
        | Code::Contended
        | Code::PreconditionFailed
        | Code::State(_)
        | Code::IdempotencyInProgress
        | Code::InvalidHeader
        | Code::RateLimited
        | Code::ProbesUsedUp
        | Code::Internal
        | Code::AuditUnreadable
        | Code::Unavailable
        | Code::StoreUnwritable
        | Code::StoreDamaged => None,
    }
}

/// The name of a query parameter or a header as it is, that of a field as its JSON pointer with dots.
fn parameter(error: &FieldError) -> String {
    if let Some(name) = error.parameter.as_ref().or(error.header.as_ref()) {
        return name.clone();
    }
    let pointer = error.pointer.as_deref().unwrap_or_default();
    let names = pointer.split('/').skip(1);
    let names: Vec<String> = names
        .map(|name| name.replace("~1", "/").replace("~0", "~"))
        .collect();
    if names.is_empty() {
        "body".to_owned()
    } else {
        names.join(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct_and_belong_to_a_family_and_an_error_status() {
        let mut words: Vec<_> = Word::ALL.iter().map(|word| word.as_str()).collect();
        words.sort_unstable();
        let count = words.len();
        words.dedup();
        assert_eq!(words.len(), count);
        for word in Word::ALL {
            let status = word.status().as_u16();
            let family = match word.as_str().split('_').next().unwrap() {
                "AUTH" => 401..=403,
                "VALIDATION" => 400..=431,
                "RESOURCE" => 404..=409,
                "IDEMPOTENCY" => 409..=409,
                "RATE" => 429..=429,
                "SYSTEM" => 500..=503,
                other => panic!("{other}"),
            };
            assert!(family.contains(&status), "{word:?} {status}");
        }
    }

    #[test]
    fn fields_are_named_with_dots() {
        for (pointer, wanted) in [
            ("", "body"),
            ("/url", "url"),
            ("/webhookConfig/events/3", "webhookConfig.events.3"),
            ("/a~1b~0c", "a/b~c"),
        ] {
            let problem = Problem::field(pointer, "x");
            assert_eq!(parameter(&problem.errors()[0]), wanted);
        }
    }

    #[test]
    fn an_internal_error_shows_no_source() {
        let mut response = Response::default();
        let problem = Problem::internal("the disk said whsec_hidden");
        render(
            &problem,
            &mut response,
            "3f9c01ab-0000-4000-8000-000000000000",
        );
        assert_eq!(response.status(), 500);
        let shown = format!("{response:?}");
        assert!(!shown.contains("whsec_hidden"), "{shown}");
    }
}

//! What an endpoint may be: bounds and rules, each refusal with the field it is about.

use std::collections::BTreeMap;

use hookturn_core::endpoint::{Endpoint, EndpointState, Method, Preset};
use hookturn_core::limits;
use hookturn_core::message::{EventFilter, InvalidEventFilter};
use hookturn_core::time::{Millis, SECOND};

use super::super::{ServiceError, check_text};

/// Names that belong to HTTP itself, to the body, or to the route of the request.
const RESERVED_NAMES: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Beginnings of names that a sender of webhooks signs or identifies with.
const RESERVED_PREFIXES: &[&str] = &[
    "hookturn-",
    "kore-",
    "svix-",
    "webhook-",
    "x-github-",
    "x-hookturn-",
    "x-hopae-",
    "x-hub-",
];

/// Checks everything about an endpoint but its URL's address, its app and its keyring.
pub(super) fn check(endpoint: &Endpoint) -> Result<(), ServiceError> {
    check_text("/description", &endpoint.description)?;
    check_headers(&endpoint.headers)?;
    if endpoint.method == Method::Get && endpoint.preset != Preset::Kore {
        let message = "GET is for the preset kore only";
        return Err(ServiceError::invalid("/method", message));
    }
    if endpoint.url.is_none() && !matches!(endpoint.state, EndpointState::Disabled { .. }) {
        let message = "only a disabled endpoint may have no URL";
        return Err(ServiceError::invalid("/url", message));
    }
    endpoint
        .retry
        .validate()
        .map_err(|error| ServiceError::invalid("/retry", error))?;
    check_span(
        "/timeoutMillis",
        endpoint.timeout_millis,
        limits::TIMEOUT_MIN,
        limits::TIMEOUT_MAX,
    )?;
    check_span(
        "/connectTimeoutMillis",
        endpoint.connect_timeout_millis,
        SECOND.min(endpoint.timeout_millis),
        endpoint.timeout_millis,
    )?;
    if !(1..=limits::IN_FLIGHT_PER_ENDPOINT).contains(&endpoint.max_in_flight) {
        let message = format!("1 to {}", limits::IN_FLIGHT_PER_ENDPOINT);
        return Err(ServiceError::invalid("/maxInFlight", message));
    }
    if endpoint.rate_limit_per_second == Some(0) {
        let message = "at least 1; pause the endpoint to send nothing";
        return Err(ServiceError::invalid("/rateLimitPerSecond", message));
    }
    Ok(())
}

fn check_span(
    pointer: &str,
    millis: Millis,
    least: Millis,
    most: Millis,
) -> Result<(), ServiceError> {
    if (least..=most).contains(&millis) {
        Ok(())
    } else {
        let message = format!("{least} to {most} milliseconds");
        Err(ServiceError::invalid(pointer, message))
    }
}

/// Reads a list of event types and prefixes.
pub(super) fn events(entries: Vec<String>) -> Result<EventFilter, ServiceError> {
    EventFilter::try_from(entries).map_err(|error| match error {
        InvalidEventFilter::Entry { index } => {
            ServiceError::invalid(format!("/events/{index}"), error)
        }
        InvalidEventFilter::TooMany => ServiceError::invalid("/events", error),
    })
}

fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), ServiceError> {
    if headers.len() > limits::CUSTOM_HEADERS {
        let message = format!("at most {} custom headers", limits::CUSTOM_HEADERS);
        return Err(ServiceError::invalid("/headers", message));
    }
    let mut bytes = 0;
    let mut seen: Vec<String> = Vec::new();
    for (name, value) in headers {
        let pointer = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
        check_custom_header(name, value)
            .map_err(|message| ServiceError::invalid(&*pointer, message))?;
        let lower = name.to_ascii_lowercase();
        if seen.contains(&lower) {
            return Err(ServiceError::invalid(pointer, "the same name twice"));
        }
        seen.push(lower);
        bytes += name.len() + value.len();
    }
    if bytes > limits::CUSTOM_HEADERS_BYTES {
        let message = format!("more than {} bytes together", limits::CUSTOM_HEADERS_BYTES);
        return Err(ServiceError::invalid("/headers", message));
    }
    Ok(())
}

/// Checks one custom header: a name that is free to use, and a value without line breaks.
fn check_custom_header(name: &str, value: &str) -> Result<(), String> {
    check_header_name(name)?;
    let lower = name.to_ascii_lowercase();
    if let Some(prefix) = RESERVED_PREFIXES
        .iter()
        .find(|prefix| lower.starts_with(**prefix))
    {
        return Err(format!("names that start with {prefix} are the sender's"));
    }
    if name.len() + value.len() > limits::CUSTOM_HEADER_BYTES {
        return Err(format!("longer than {} bytes", limits::CUSTOM_HEADER_BYTES));
    }
    if !value
        .bytes()
        .all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
    {
        return Err("the value holds characters other than printable ASCII".to_owned());
    }
    Ok(())
}

/// Checks that a text can name a header of ours or of the endpoint's owner.
pub(in crate::service) fn check_header_name(name: &str) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > limits::TEXT_BYTES || !name.bytes().all(token) {
        return Err("not the name of a header".to_owned());
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED_NAMES.contains(&&*lower) {
        return Err(format!("{lower} is set by the sender"));
    }
    Ok(())
}

//! What an endpoint may be: bounds and rules, each refusal with the field it is about.

use std::collections::BTreeMap;

use hookturn_core::endpoint::{BodyForm, Endpoint, EndpointState, HeaderRenames, Method, Preset};
use hookturn_core::limits;
use hookturn_core::message::{EventFilter, InvalidEventFilter};
use hookturn_core::payload;
use hookturn_core::retry::InvalidRetryPolicy;
use hookturn_core::time::{Millis, SECOND};
use hookturn_core::workspace::WorkspaceSettings;

use super::super::{ServiceError, check_text};
use crate::outbound::headers::{check_custom_header, check_custom_headers, is_connection};

/// Headers that no white label may take, besides those of the connection: they say what the request is,
/// or whom it comes from.
const FIXED_NAMES: [&str; 6] = [
    "accept-encoding",
    "authorization",
    "content-type",
    "cookie",
    "date",
    "user-agent",
];

/// Beginnings of names in which Hookturn speaks itself.
const OWN_PREFIXES: [&str; 2] = ["hookturn-", "x-hookturn-"];

/// Checks everything about an endpoint but its URL's address, its app and its keyring.
pub(super) fn check(
    endpoint: &Endpoint,
    workspace: &WorkspaceSettings,
) -> Result<(), ServiceError> {
    check_text("/description", &endpoint.description)?;
    check_headers(
        &endpoint.headers,
        workspace.header_names.get(&endpoint.preset),
    )?;
    if endpoint.method == Method::Get && endpoint.preset != Preset::Kore {
        let message = "GET is for the preset kore only";
        return Err(ServiceError::invalid("/method", message));
    }
    if endpoint.body_form == BodyForm::Form && endpoint.preset != Preset::Kore {
        let message = "form is for the preset kore only";
        return Err(ServiceError::invalid("/bodyForm", message));
    }
    if endpoint.url.is_none() && !matches!(endpoint.state, EndpointState::Disabled { .. }) {
        let message = "only a disabled endpoint may have no URL";
        return Err(ServiceError::invalid("/url", message));
    }
    endpoint.retry.validate().map_err(|error| {
        let field = match error {
            InvalidRetryPolicy::TooMany => "/retry/delaysMillis".to_owned(),
            InvalidRetryPolicy::TooLong { index } => format!("/retry/delaysMillis/{index}"),
            InvalidRetryPolicy::Jitter => "/retry/jitterPercent".to_owned(),
        };
        ServiceError::invalid(field, error)
    })?;
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
    match &endpoint.probe.body {
        Some(body) => check_probe_body(body),
        None => Ok(()),
    }
}

/// Checks that receivers can read the body of a probe, and that it is small: it is sent often.
fn check_probe_body(body: &str) -> Result<(), ServiceError> {
    if body.len() > limits::PROBE_BODY_BYTES {
        let message = format!("at most {} bytes", limits::PROBE_BODY_BYTES);
        return Err(ServiceError::invalid("/probe/body", message));
    }
    payload::check(body.as_bytes()).map_err(|error| ServiceError::invalid("/probe/body", error))
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

/// Checks the custom headers; `renames` are the names that the workspace's white label uses.
fn check_headers(
    headers: &BTreeMap<String, String>,
    renames: Option<&HeaderRenames>,
) -> Result<(), ServiceError> {
    for (name, value) in headers {
        let refuse = |message: &dyn std::fmt::Display| {
            let pointer = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
            ServiceError::invalid(pointer, message)
        };
        check_custom_header(name, value).map_err(|error| refuse(&error))?;
        let is_renamed = renames.is_some_and(|renames| {
            [&renames.id, &renames.timestamp, &renames.signature]
                .into_iter()
                .flatten()
                .any(|ours| ours.eq_ignore_ascii_case(name))
        });
        if is_renamed {
            return Err(refuse(&"the workspace's white label uses this name"));
        }
    }
    let pairs = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    check_custom_headers(pairs).map_err(|error| ServiceError::invalid("/headers", error))
}

/// Checks that a white label may give a header this name.
pub(in crate::service) fn check_header_name(name: &str) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > limits::TEXT_CHARS || !name.bytes().all(token) {
        return Err("not the name of a header".to_owned());
    }
    let lower = name.to_ascii_lowercase();
    let is_own = OWN_PREFIXES.iter().any(|own| lower.starts_with(own));
    if is_own || is_connection(&lower) || FIXED_NAMES.contains(&&*lower) {
        return Err("this cannot be the name of another header".to_owned());
    }
    Ok(())
}

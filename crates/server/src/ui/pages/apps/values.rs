//! What the form of an endpoint holds: as it is shown, and as it is read.

use hookturn_core::endpoint::{BodyForm, Endpoint, Method, Preset};
use hookturn_core::id::{ClientId, EndpointId};
use hookturn_core::retry::{RetryOn, RetryPolicy};
use hookturn_core::rotation::KeyKind;
use hookturn_core::time::{DAY, HOUR, MINUTE, Millis, SECOND};
use serde::Deserialize;

use super::super::super::error::UiError;
use super::super::super::form::{self, Control, Field, Wrong};
use super::super::super::visitor::Visitor;
use crate::service::ServiceError;
use crate::service::endpoints::{Defaulted, EndpointPatch, KeyringChoice, NewEndpoint};

/// The `clientId` of a path.
pub(in crate::ui::pages) fn app_id(text: &str, visitor: &Visitor) -> Result<ClientId, UiError> {
    text.parse()
        .map_err(|_| UiError::service(&ServiceError::not_found("app"), &visitor.base))
}

/// App and endpoint of a path.
pub(in crate::ui::pages) fn endpoint_id(
    (app, endpoint): (&str, &str),
    visitor: &Visitor,
) -> Result<(ClientId, EndpointId), UiError> {
    let endpoint = endpoint
        .parse()
        .map_err(|_| UiError::service(&ServiceError::not_found("endpoint"), &visitor.base))?;
    Ok((app_id(app, visitor)?, endpoint))
}

/// What was typed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::ui) struct Typed {
    pub(super) url: String,
    pub(super) description: String,
    pub(super) preset: String,
    pub(super) keyring: String,
    pub(super) events: String,
    pub(super) headers: String,
    pub(super) timeout: String,
    pub(super) connect_timeout: String,
    pub(super) in_flight: String,
    pub(super) rate: String,
    pub(super) delays: String,
    pub(super) jitter: String,
    pub(super) retry_on: String,
    pub(super) ordered: String,
    pub(super) method: String,
    pub(super) body_form: String,
    pub(super) version: u64,
    pub(super) was: String,
}

/// Where the service's pointers show up.
pub(super) const POINTERS: &[(&str, &str)] = &[
    ("/url", "url"),
    ("/description", "description"),
    ("/events", "events"),
    ("/headers", "headers"),
    ("/keyring", "keyring"),
    ("/secretType", "keyring"),
    ("/timeoutMillis", "timeout"),
    ("/connectTimeoutMillis", "connect_timeout"),
    ("/maxInFlight", "in_flight"),
    ("/rateLimitPerSecond", "rate"),
    ("/retry/delaysMillis", "delays"),
    ("/retry/jitterPercent", "jitter"),
    ("/method", "method"),
    ("/bodyForm", "body_form"),
];

const PRESETS: &[(&str, &str)] = &[
    ("standard", "standard: Standard Webhooks"),
    ("hopae", "hopae: Hopae Connect"),
    ("kore", "kore: KORE Wireless callbacks"),
    ("kore-stream", "kore-stream: KORE Wireless event streams"),
    ("github", "github: X-Hub-Signature-256"),
];
const KEYRINGS: &[(&str, &str)] = &[
    ("own", "its own, symmetric"),
    ("ed25519", "its own, Ed25519 (standard only)"),
    ("shared", "the workspace's shared one"),
];
const METHODS: &[(&str, &str)] = &[("POST", "POST"), ("GET", "GET (kore only)")];
const BODIES: &[(&str, &str)] = &[("json", "JSON"), ("form", "form (kore only)")];
const RETRIES: &[(&str, &str)] = &[
    ("any", "any failure but 410"),
    ("transient", "408, 423, 5xx and no answer"),
];

/// The fields of the form, those of a new endpoint or those that can be changed.
#[rustfmt::skip]
pub(super) fn fields(typed: &Typed, is_new: bool, wrong: &Wrong) -> Vec<Field> {
    let field = |name, label, value: &str, hint, control| Field {
        name, label, value: value.to_owned(), hint, error: wrong.with(name), control,
    };
    let line = Control::Line("text");
    let number = Control::Line("number");
    let mut fields = vec![
        field("url", "URL", &typed.url, "Where deliveries go.", Control::Line("url")),
        field("description", "Description", &typed.description, "For people.", line),
    ];
    if is_new {
        fields.push(field("preset", "Preset", &typed.preset, "Signature, headers, body and retries of a known sender. It stays.", Control::Choice(PRESETS)));
        fields.push(field("keyring", "Signed by", &typed.keyring, "Its own keyring gets a first secret, shown once. It stays.", Control::Choice(KEYRINGS)));
    }
    fields.extend([
        field("events", "Event types", &typed.events, "One a line; prefix.* for all that begin so. Empty: all.", Control::Area(4)),
        field("headers", "Custom headers", &typed.headers, "One a line, name: value. Sent with every delivery; at most 20.", Control::Area(4)),
        field("timeout", "Longest time of one attempt", &typed.timeout, "1s to 60s. Empty: as the preset says.", line),
        field("connect_timeout", "Longest time to connect", &typed.connect_timeout, "Within the time above. Empty: as the preset says.", line),
        field("in_flight", "Attempts at once", &typed.in_flight, "1 to 1000. Empty: as the operator configured.", number),
        field("rate", "Attempts per second", &typed.rate, "Empty: no limit.", number),
        field("delays", "Wait before each retry", &typed.delays, "As many retries as entries, like 5s 5m 30m 2h. Empty: as the preset says; none: no retry.", line),
        field("jitter", "Stretch each wait by up to (percent)", &typed.jitter, "0 to 100.", number),
        field("retry_on", "Retry after", &typed.retry_on, "", Control::Choice(RETRIES)),
        field("ordered", "Keep the order", &typed.ordered, "One delivery at a time; a failed one holds those after it.", Control::Tick),
        field("method", "Method", &typed.method, "", Control::Choice(METHODS)),
        field("body_form", "Body", &typed.body_form, "", Control::Choice(BODIES)),
    ]);
    fields
}

impl Typed {
    /// What the form of a new endpoint begins with.
    pub(super) fn of_new() -> Self {
        Self {
            preset: Preset::default().as_str().to_owned(),
            keyring: "own".to_owned(),
            retry_on: "any".to_owned(),
            method: "POST".to_owned(),
            body_form: "json".to_owned(),
            ..Self::default()
        }
    }

    /// What the form of an endpoint that exists begins with.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let retry = &endpoint.retry;
        let delays: Vec<_> = retry.delays_millis.iter().copied().map(span).collect();
        Self {
            url: endpoint
                .url
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            description: endpoint.description.clone(),
            events: endpoint.events.entries().join("\n"),
            headers: form::lines(&endpoint.headers, ": "),
            timeout: span(endpoint.timeout_millis),
            connect_timeout: span(endpoint.connect_timeout_millis),
            in_flight: endpoint.max_in_flight.to_string(),
            rate: endpoint
                .rate_limit_per_second
                .map_or_else(String::new, |rate| rate.to_string()),
            delays: if delays.is_empty() {
                "none".to_owned()
            } else {
                delays.join(" ")
            },
            jitter: retry.jitter_percent.to_string(),
            retry_on: match retry.retry_on {
                RetryOn::AnyFailure => "any",
                RetryOn::TransientOnly => "transient",
            }
            .to_owned(),
            ordered: if endpoint.ordered { "on" } else { "" }.to_owned(),
            method: endpoint.method.as_str().to_owned(),
            body_form: endpoint.body_form.as_str().to_owned(),
            version: endpoint.version,
            ..Self::default()
        }
    }

    /// The endpoint to make, or what was wrong.
    pub(super) fn new_endpoint(&self) -> Result<NewEndpoint, Wrong> {
        let mut wrong = Wrong::default();
        let preset = self.preset.parse::<Preset>();
        if let Err(error) = &preset {
            wrong.note("preset", error.to_string());
        }
        let preset = preset.unwrap_or_default();
        let url = self.url.trim();
        if url.is_empty() {
            wrong.note("url", "is required");
        }
        let patch = self.read(&preset.retry(), &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(NewEndpoint {
            url: Some(url.to_owned()),
            description: self.description.clone(),
            preset,
            method: patch.method.unwrap_or_default(),
            body_form: patch.body_form.unwrap_or_default(),
            events: patch.events.unwrap_or_default(),
            headers: patch.headers.unwrap_or_default(),
            keyring: match self.keyring.as_str() {
                "shared" => KeyringChoice::Shared,
                kind => KeyringChoice::Own {
                    kind: if kind == "ed25519" {
                        KeyKind::Ed25519
                    } else {
                        KeyKind::Symmetric
                    },
                    secret: None,
                    secret_name: None,
                },
            },
            retry: patch.retry,
            timeout_millis: patch.timeout_millis,
            connect_timeout_millis: patch.connect_timeout_millis,
            max_in_flight: patch.max_in_flight,
            rate_limit_per_second: patch.rate_limit_per_second.flatten(),
            ordered: self.ordered == "on",
            ..NewEndpoint::default()
        })
    }

    /// What to change of an endpoint, or what was wrong.
    pub(super) fn patch(&self, old: &Endpoint) -> Result<EndpointPatch, Wrong> {
        let mut wrong = Wrong::default();
        let mut patch = self.read(&old.retry, &mut wrong);
        // An endpoint that has no URL yet may stay without.
        let url = self.url.trim();
        patch.url = (!url.is_empty()).then(|| url.to_owned());
        if url.is_empty() && old.url.is_some() {
            wrong.note("url", "is required");
        }
        // What was emptied is as its field says.
        patch.defaulted = [
            (&self.timeout, Defaulted::Timeout),
            (&self.connect_timeout, Defaulted::ConnectTimeout),
            (&self.in_flight, Defaulted::MaxInFlight),
        ]
        .into_iter()
        .filter(|(typed, _)| typed.trim().is_empty())
        .map(|(_, field)| field)
        .collect();
        if wrong.is_empty() {
            Ok(patch)
        } else {
            Err(wrong)
        }
    }

    fn read(&self, retry: &RetryPolicy, wrong: &mut Wrong) -> EndpointPatch {
        let headers = form::pairs(&self.headers, ':');
        if let Err(why) = &headers {
            wrong.note("headers", why.clone());
        }
        let words = self.events.split([',', '\n', '\r', ' ']);
        let events = words.filter(|word| !word.is_empty()).map(str::to_owned);
        EndpointPatch {
            url: None,
            description: Some(self.description.clone()),
            method: Some(if self.method == "GET" {
                Method::Get
            } else {
                Method::Post
            }),
            body_form: Some(if self.body_form == "form" {
                BodyForm::Form
            } else {
                BodyForm::Json
            }),
            events: Some(events.collect()),
            headers: headers.ok(),
            state: None,
            retry: self.retry(retry, wrong),
            timeout_millis: optional_span("timeout", &self.timeout, wrong),
            connect_timeout_millis: optional_span("connect_timeout", &self.connect_timeout, wrong),
            max_in_flight: number("in_flight", &self.in_flight, wrong),
            rate_limit_per_second: Some(number("rate", &self.rate, wrong)),
            ordered: Some(self.ordered == "on"),
            probe: None,
            defaulted: Vec::new(),
        }
    }

    /// The retry policy, if any part of it was typed.
    fn retry(&self, known: &RetryPolicy, wrong: &mut Wrong) -> Option<RetryPolicy> {
        let delays = self.delays.trim();
        let jitter = number("jitter", &self.jitter, wrong);
        let delays_millis = match delays {
            "" => known.delays_millis.clone(),
            "none" => Vec::new(),
            typed => {
                let words = typed.split([' ', ',']).filter(|word| !word.is_empty());
                let read: Option<Vec<_>> = words.map(parse_span).collect();
                read.unwrap_or_else(|| {
                    wrong.note("delays", "expected times such as 5s 5m 30m 2h");
                    Vec::new()
                })
            }
        };
        let retry_on = match self.retry_on.as_str() {
            "transient" => RetryOn::TransientOnly,
            "any" => RetryOn::AnyFailure,
            _ => known.retry_on,
        };
        let policy = RetryPolicy {
            delays_millis,
            jitter_percent: jitter.unwrap_or(known.jitter_percent),
            retry_on,
        };
        // A new form offers the commonest choice: it means nothing until something else is typed.
        let untouched = delays.is_empty() && jitter.is_none();
        (!untouched).then_some(policy)
    }
}

fn optional_span(name: &'static str, text: &str, wrong: &mut Wrong) -> Option<Millis> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let read = parse_span(text);
    if read.is_none() {
        wrong.note(name, "expected a time such as 15s or 1500ms");
    }
    read
}

fn number<T: std::str::FromStr>(name: &'static str, text: &str, wrong: &mut Wrong) -> Option<T> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let read = text.parse().ok();
    if read.is_none() {
        wrong.note(name, "expected a whole number");
    }
    read
}

const UNITS: [(&str, Millis); 5] = [
    ("ms", 1),
    ("d", DAY),
    ("h", HOUR),
    ("m", MINUTE),
    ("s", SECOND),
];

fn parse_span(text: &str) -> Option<Millis> {
    let (number, unit) = UNITS
        .iter()
        .find_map(|(word, unit)| Some((text.strip_suffix(word)?, unit)))?;
    number.parse::<Millis>().ok()?.checked_mul(*unit)
}

fn span(millis: Millis) -> String {
    let mut units = UNITS;
    units.sort_unstable_by_key(|(_, unit)| std::cmp::Reverse(*unit));
    let fitting = units
        .into_iter()
        .find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
    match fitting {
        Some((word, unit)) => format!("{}{word}", millis / unit),
        None => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_they_are_written() {
        for millis in [0, 1, 1_500, 5_000, 300_000, 7_200_000, 86_400_000, 90_000] {
            assert_eq!(parse_span(&span(millis)), Some(millis), "{}", span(millis));
        }
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "99999999999999999999d",
            "99999999999999d",
        ] {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    #[test]
    fn a_preset_keeps_its_retries_unless_others_are_typed() {
        let mut typed = Typed {
            url: "https://a.example/".to_owned(),
            preset: "kore".to_owned(),
            ..Typed::of_new()
        };
        assert_eq!(typed.new_endpoint().unwrap().retry, None);
        typed.delays = "5s, 5m".to_owned();
        let retry = typed.new_endpoint().unwrap().retry.unwrap();
        assert_eq!(retry.delays_millis, [5_000, 300_000]);
        assert_eq!(retry.jitter_percent, Preset::Kore.retry().jitter_percent);
        typed.delays = "none".to_owned();
        let retry = typed.new_endpoint().unwrap().retry.unwrap();
        assert!(retry.delays_millis.is_empty());
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let typed = Typed {
            headers: "x".to_owned(),
            timeout: "soon".to_owned(),
            rate: "many".to_owned(),
            delays: "later".to_owned(),
            ..Typed::of_new()
        };
        let wrong = typed.new_endpoint().unwrap_err();
        for field in ["url", "headers", "timeout", "rate", "delays"] {
            assert!(wrong.with(field).is_some(), "{field}");
        }
    }
}

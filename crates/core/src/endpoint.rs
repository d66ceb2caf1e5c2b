//! Endpoints: where the deliveries of an app go, and how.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use hookturn_verify::Scheme;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use crate::id::{ClientId, EndpointId, KeyringId, WorkspaceId};
use crate::limits;
use crate::message::{EventFilter, EventType};
use crate::retry::RetryPolicy;
use crate::time::{Millis, SECOND, Timestamp};

/// A URL of an app, with everything that decides how deliveries reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// The workspace that owns it.
    pub workspace: WorkspaceId,
    /// The app it belongs to.
    pub app: ClientId,
    /// For people.
    pub description: String,
    /// Where deliveries go. Only a disabled endpoint may have none (a fresh Hopae app).
    pub url: Option<TargetUrl>,
    /// When its URL was last replaced, if ever: what was seen of a receiver before was seen of another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retargeted_at: Option<Timestamp>,
    /// When its owner last enabled it, if ever since it was made: what a receiver asked for before is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// Scheme, headers, body form and defaults.
    pub preset: Preset,
    /// `POST`, or `GET` for KORE callbacks.
    pub method: Method,
    /// How the payload becomes the body of a KORE callback.
    #[serde(default)]
    pub body_form: BodyForm,
    /// Which event types it wants.
    pub events: EventFilter,
    /// Sent with every delivery, after ours.
    pub headers: BTreeMap<String, String>,
    /// The keyring that signs.
    pub keyring: KeyringId,
    /// Whether and since when it takes deliveries.
    pub state: EndpointState,
    /// When a failed delivery is tried again.
    pub retry: RetryPolicy,
    /// Longest time of one exchange in milliseconds, over DNS, connect, TLS, headers and body.
    pub timeout_millis: Millis,
    /// Longest time to connect in milliseconds, within the timeout.
    pub connect_timeout_millis: Millis,
    /// Exchanges that may be open to it at once.
    pub max_in_flight: u32,
    /// Attempts per second, if limited.
    pub rate_limit_per_second: Option<u32>,
    /// Whether deliveries keep the order of acceptance: one at a time, a failure holds the rest.
    pub ordered: bool,
    /// Whether and with what it is probed.
    #[serde(default)]
    pub probe: ProbeSettings,
    /// Compare-and-swap counter, 1 for the first stored form.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its stored form last changed.
    pub updated_at: Timestamp,
}

/// Whether an endpoint takes deliveries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum EndpointState {
    /// Messages become deliveries and are sent.
    Enabled,
    /// Messages become deliveries that wait until it is enabled again.
    Paused {
        /// Since when.
        since: Timestamp,
    },
    /// Messages make no delivery; what was waiting is exhausted with this reason.
    Disabled {
        /// Since when.
        since: Timestamp,
        /// Why.
        reason: DisabledReason,
    },
    /// Gone for its owner; kept until nothing refers to it.
    Deleted {
        /// Since when.
        since: Timestamp,
    },
}

impl EndpointState {
    /// The word in API and pages.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Paused { .. } => "paused",
            Self::Disabled { .. } => "disabled",
            Self::Deleted { .. } => "deleted",
        }
    }

    /// Whether a new message makes a delivery for it.
    pub const fn takes_messages(&self) -> bool {
        matches!(self, Self::Enabled | Self::Paused { .. })
    }
}

/// Whether and with what an endpoint is probed: inert requests that ask its receiver about secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeSettings {
    /// Whether it gets any.
    pub mode: ProbeMode,
    /// Their event type; [`ProbeSettings::EVENT_TYPE`] without.
    pub event_type: Option<EventType>,
    /// Their body, JSON of at most [`limits::PROBE_BODY_BYTES`]; [`ProbeSettings::BODY`] without.
    pub body: Option<String>,
}

impl ProbeSettings {
    /// The event type of probes unless an owner chooses another.
    pub const EVENT_TYPE: &'static str = "hookturn.probe";
    /// Their body unless an owner chooses another.
    pub const BODY: &'static str = r#"{"probe":true}"#;

    /// The body to send.
    pub fn body(&self) -> &str {
        self.body.as_deref().unwrap_or(Self::BODY)
    }
}

/// Whether an endpoint is probed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProbeMode {
    /// When a rehearsal or a rotation asks.
    #[default]
    On,
    /// Never. Real deliveries alone are evidence then, and the negative control is missing, so
    /// nothing is proved.
    Off,
}

/// Why an endpoint is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DisabledReason {
    /// Its owner said so, or it has no URL yet.
    ByOwner,
    /// The receiver answered 410 Gone.
    Gone,
    /// Nothing was accepted for the policy's time.
    Failing,
}

/// HTTP method of a delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// The rule.
    #[default]
    Post,
    /// KORE callbacks only: no body, the payload's members are parameters of the URL.
    Get,
}

impl Method {
    /// `POST` or `GET`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Get => "GET",
        }
    }
}

/// How the payload becomes the body of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BodyForm {
    /// As its preset says; JSON in every one of them.
    #[default]
    Json,
    /// KORE callbacks only: the payload's members as `application/x-www-form-urlencoded`.
    Form,
}

impl BodyForm {
    /// The word in API and command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Form => "form",
        }
    }
}

/// The shape of a known sender: scheme, headers, body form and retry policy.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Standard Webhooks; the payload as published.
    #[default]
    Standard,
    /// Hopae Connect: its header and envelope.
    Hopae,
    /// KORE Wireless callbacks: the payload without insignificant white space.
    Kore,
    /// KORE Wireless event streams: an array of CloudEvents.
    KoreStream,
    /// GitHub: `X-Hub-Signature-256` over the payload as published.
    Github,
}

impl Preset {
    /// All presets, in the order they are listed.
    pub const ALL: [Self; 5] = [
        Self::Standard,
        Self::Hopae,
        Self::Kore,
        Self::KoreStream,
        Self::Github,
    ];

    /// The word in API and command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Hopae => "hopae",
            Self::Kore => "kore",
            Self::KoreStream => "kore-stream",
            Self::Github => "github",
        }
    }

    /// How its requests are signed.
    pub const fn scheme(self) -> Scheme {
        match self {
            Self::Standard => Scheme::Standard,
            Self::Hopae => Scheme::Hopae,
            Self::Kore | Self::KoreStream => Scheme::Kore,
            Self::Github => Scheme::Github,
        }
    }

    /// Its documented retry policy.
    pub fn retry(self) -> RetryPolicy {
        match self {
            Self::Standard | Self::Github => RetryPolicy::standard(),
            Self::Hopae => RetryPolicy::hopae(3),
            Self::Kore => RetryPolicy::kore(),
            Self::KoreStream => RetryPolicy::kore_stream(),
        }
    }

    /// Its documented time limit of one exchange, in milliseconds.
    pub const fn timeout_millis(self) -> Millis {
        match self {
            Self::Standard | Self::Kore => 15 * SECOND,
            Self::Hopae | Self::Github => 10 * SECOND,
            Self::KoreStream => 5 * SECOND,
        }
    }

    /// How many messages of one type one request may carry.
    pub const fn messages_per_request(self) -> usize {
        match self {
            Self::KoreStream => limits::STREAM_EVENTS,
            Self::Standard | Self::Hopae | Self::Kore | Self::Github => 1,
        }
    }

    /// Its documented time limit to connect, in milliseconds.
    pub const fn connect_timeout_millis(self) -> Millis {
        5 * SECOND
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not the name of a preset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown preset: expected standard, hopae, kore, kore-stream or github")]
pub struct ParsePresetError;

impl FromStr for Preset {
    type Err = ParsePresetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|preset| preset.as_str() == text)
            .ok_or(ParsePresetError)
    }
}

/// White label: header names that replace those of a preset. What is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HeaderRenames {
    /// Instead of `webhook-id` (or `kore-idempotency-token`).
    pub id: Option<String>,
    /// Instead of `webhook-timestamp`.
    pub timestamp: Option<String>,
    /// Instead of the scheme's signature header.
    pub signature: Option<String>,
}

/// The URL of an endpoint: parsed once, with the configured text kept, because KORE signs the text
/// and a parser that adds a trailing slash would break every signature.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetUrl {
    text: String,
    url: Url,
}

/// Why a text is not the URL of an endpoint. Whether its address is allowed is another question,
/// answered by the outbound policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Longer than [`limits::URL_BYTES`].
    #[error("a URL has at most {} bytes", limits::URL_BYTES)]
    TooLong,
    /// Not an absolute URL.
    #[error("not an absolute URL such as https://example.com/webhooks")]
    Syntax,
    /// Neither http nor https.
    #[error("the scheme must be https (or http, where the operator allows it)")]
    Scheme,
    /// User name or password inside.
    #[error("user name and password do not belong into a URL; use a custom header")]
    Credentials,
    /// White space or a control character inside, which parsers drop without a word.
    #[error("a URL holds no white space or control characters")]
    WhiteSpace,
}

impl TargetUrl {
    /// Checks the form of `text`.
    pub fn new(text: &str) -> Result<Self, InvalidUrl> {
        let target = Self::read(text)?;
        // Browsers' rules take `https:host`, `https:/host` and backslashes for it; others do not.
        let host = text
            .get(target.url.scheme().len()..)
            .and_then(|rest| rest.strip_prefix("://"));
        if host.is_none_or(|host| host.starts_with(['/', '\\'])) {
            return Err(InvalidUrl::Syntax);
        }
        Ok(target)
    }

    /// Reads one that was stored: what was taken once is there, also if it would be refused today.
    fn read(text: &str) -> Result<Self, InvalidUrl> {
        if text.len() > limits::URL_BYTES {
            return Err(InvalidUrl::TooLong);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidUrl::WhiteSpace);
        }
        let url = Url::parse(text).map_err(|_| InvalidUrl::Syntax)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidUrl::Scheme);
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidUrl::Syntax);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidUrl::Credentials);
        }
        Ok(Self {
            text: text.to_owned(),
            url,
        })
    }

    /// As configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As parsed.
    pub fn url(&self) -> &Url {
        &self.url
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for TargetUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for TargetUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::read(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_text_is_kept() {
        let target = TargetUrl::new("https://testendpoint.com").unwrap();
        assert_eq!(target.as_str(), "https://testendpoint.com");
        assert_eq!(target.url().as_str(), "https://testendpoint.com/");
    }

    #[test]
    fn unusable_urls_are_refused_with_a_reason() {
        for (text, reason) in [
            ("ftp://example.com", InvalidUrl::Scheme),
            ("/webhooks", InvalidUrl::Syntax),
            ("https://", InvalidUrl::Syntax),
            ("https:example.com", InvalidUrl::Syntax),
            ("https:/example.com", InvalidUrl::Syntax),
            ("https:///example.com", InvalidUrl::Syntax),
            (r"https:\\example.com\", InvalidUrl::Syntax),
            (r"https://\example.com", InvalidUrl::Syntax),
            ("https://me:pw@example.com", InvalidUrl::Credentials),
            ("https://exa\tmple.com", InvalidUrl::WhiteSpace),
        ] {
            assert_eq!(TargetUrl::new(text), Err(reason), "{text}");
        }
        assert_eq!(
            TargetUrl::new(&format!("https://a.b/{}", "x".repeat(2_100))),
            Err(InvalidUrl::TooLong)
        );
    }

    #[test]
    fn preset_words_match_their_serialised_form() {
        for preset in Preset::ALL {
            assert_eq!(serde_json::to_value(preset).unwrap(), preset.as_str());
            assert_eq!(preset.as_str().parse::<Preset>().unwrap(), preset);
        }
    }
}

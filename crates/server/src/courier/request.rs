//! What goes over the wire: target, headers and body of each preset, and the signature over them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use hookturn_core::endpoint::{BodyForm, Endpoint, Method, Preset};
use hookturn_core::limits::GET_TARGET_BYTES;
use hookturn_core::message::Message;
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::Workspace;
use hookturn_verify::{Content, HeaderNames, SignError, Signer, sign};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::callback::parameters;
use crate::outbound::{Refused, Request, Sending, Target};

/// Everything about an endpoint that is the same for all its requests, parsed once.
#[derive(Debug)]
pub struct Prepared {
    endpoint: Arc<Endpoint>,
    workspace: Arc<Workspace>,
    target: Arc<Target>,
    url: String,
    /// Custom headers, content type.
    headers: HeaderMap,
    id: Option<HeaderName>,
    timestamp: Option<HeaderName>,
    signature: HeaderName,
}

/// Why an endpoint cannot be sent to. Its configuration was checked when it was written, so this
/// means that it is disabled or that a rule became stricter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// It has no URL.
    #[error("the endpoint has no URL")]
    NoUrl,
    /// The URL cannot be used.
    #[error("the endpoint's URL cannot be used")]
    Target(#[from] Refused),
    /// A header name or value cannot be sent.
    #[error("the header {name} cannot be sent")]
    Header {
        /// Its name.
        name: String,
    },
    /// A callback by GET whose parameters make its URL longer than servers take.
    #[error(
        "the payload makes path and query {bytes} bytes long; a callback by GET has at most {GET_TARGET_BYTES}"
    )]
    UrlTooLong {
        /// Path and query.
        bytes: usize,
    },
    /// Two headers of the request have one name, so that one of them would be missing.
    #[error(
        "the request would go out without its header {name} as it was made: another header has the same \
         name; give the workspace's headers names that differ"
    )]
    Overwritten {
        /// The name that two have.
        name: String,
    },
    /// There is nothing to send.
    #[error("there is no message to send")]
    NoMessage,
    /// The scheme refused to sign.
    #[error("the request cannot be signed")]
    Sign(#[from] SignError),
}

/// What a request carries, the same for every exchange of an attempt: each is signed anew over it.
#[derive(Debug)]
pub struct Outgoing<'a> {
    first: &'a Message,
    id: String,
    body: Bytes,
    target: Arc<Target>,
}

impl Outgoing<'_> {
    /// The whole URL it goes to, parameters of a callback by GET included.
    pub fn url(&self) -> String {
        self.target.absolute_form().to_string()
    }

    /// The bytes that are signed and sent.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// The headers of a request, with what the record keeps of its signature.
#[derive(Debug)]
pub struct Signed {
    /// All that the outbound client does not set itself.
    pub headers: HeaderMap,
    /// The Unix seconds that were signed.
    pub timestamp: i64,
    /// The value of the signature header.
    pub signature: String,
}

impl Prepared {
    /// Parses an endpoint's URL and headers.
    pub fn new(endpoint: Arc<Endpoint>, workspace: Arc<Workspace>) -> Result<Self, PrepareError> {
        let url = endpoint.url.as_ref().ok_or(PrepareError::NoUrl)?;
        let target = Arc::new(Target::new(url.url())?);
        let url = url.as_str().to_owned();
        let mut headers = HeaderMap::with_capacity(endpoint.headers.len() + 4);
        for (name, value) in &endpoint.headers {
            let value = HeaderValue::from_str(value)
                .map_err(|_| PrepareError::Header { name: name.clone() })?;
            headers.append(header_name(name)?, value);
        }
        if endpoint.method == Method::Post {
            let form = match endpoint.body_form {
                BodyForm::Json => "application/json",
                BodyForm::Form => "application/x-www-form-urlencoded",
            };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(form));
        }
        let names = header_names(endpoint.preset, &workspace);
        let optional =
            |name: &Option<Cow<'static, str>>| name.as_deref().map(header_name).transpose();
        Ok(Self {
            id: optional(&names.id)?,
            timestamp: optional(&names.timestamp)?,
            signature: header_name(&names.signature)?,
            target,
            url,
            headers,
            endpoint,
            workspace,
        })
    }

    /// The endpoint it was made from.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Whether its requests go over TLS.
    pub fn is_tls(&self) -> bool {
        self.target.is_tls()
    }

    /// Whether it still describes these.
    pub fn is_for(&self, endpoint: &Arc<Endpoint>, workspace: &Arc<Workspace>) -> bool {
        self.endpoint.version == endpoint.version && self.workspace.version == workspace.version
    }

    /// What a request that carries these messages consists of. The same for every attempt of the same
    /// messages.
    pub fn outgoing<'a>(&self, messages: &[&'a Message]) -> Result<Outgoing<'a>, PrepareError> {
        let first = *messages.first().ok_or(PrepareError::NoMessage)?;
        debug_assert!(
            messages.len() <= self.endpoint.preset.messages_per_request(),
            "more messages than a request of this preset carries"
        );
        Ok(Outgoing {
            first,
            id: request_id(messages),
            body: self.body(first, messages),
            target: self.target(first)?,
        })
    }

    fn body(&self, first: &Message, messages: &[&Message]) -> Bytes {
        if self.endpoint.method == Method::Get {
            return Bytes::new();
        }
        match self.endpoint.preset {
            Preset::Standard | Preset::Github => first.payload.clone(),
            Preset::Hopae => hopae_envelope(first),
            Preset::Kore => match self.endpoint.body_form {
                BodyForm::Json => minified(&first.payload),
                BodyForm::Form => parameters(&first.payload).into(),
            },
            Preset::KoreStream => cloud_events(messages),
        }
    }

    /// Where a request goes: the configured URL, to which a callback by GET adds its parameters. They
    /// are not signed: the signed text ends before the query.
    fn target(&self, first: &Message) -> Result<Arc<Target>, PrepareError> {
        let (Method::Get, Some(url)) = (self.endpoint.method, &self.endpoint.url) else {
            return Ok(Arc::clone(&self.target));
        };
        let parameters = parameters(&first.payload);
        if parameters.is_empty() {
            return Ok(Arc::clone(&self.target));
        }
        let mut url = url.url().clone();
        let query = match url.query() {
            Some(known) if !known.is_empty() => format!("{known}&{parameters}"),
            Some(_) | None => parameters,
        };
        let bytes = url.path().len() + 1 + query.len();
        if bytes > GET_TARGET_BYTES {
            return Err(PrepareError::UrlTooLong { bytes });
        }
        url.set_query(Some(&query));
        Ok(Arc::new(Target::new(&url)?))
    }

    /// The request that carries it, without its headers: that of a delivery.
    pub fn request(&self, outgoing: &Outgoing<'_>) -> Request {
        Request {
            method: match self.endpoint.method {
                Method::Post => http::Method::POST,
                Method::Get => http::Method::GET,
            },
            target: Arc::clone(&outgoing.target),
            body: outgoing.body.clone(),
            timeout_millis: self.endpoint.timeout_millis,
            connect_timeout_millis: self.endpoint.connect_timeout_millis,
            sending: Sending::AtLeastOnce,
        }
    }

    /// Signs a request with the given keys at `now`.
    pub fn sign(
        &self,
        outgoing: &Outgoing<'_>,
        signers: &[Arc<Signer>],
        now: Timestamp,
    ) -> Result<Signed, PrepareError> {
        let timestamp = now.as_seconds();
        let content = Content {
            id: &outgoing.id,
            timestamp,
            method: self.endpoint.method.as_str(),
            url: &self.url,
            body: &outgoing.body,
        };
        let keys: Vec<&Signer> = signers.iter().map(Arc::as_ref).collect();
        let signature = sign(self.endpoint.preset.scheme(), &keys, &content)?;
        self.signed(outgoing, signature, now)
    }

    /// The headers of a request that was signed so at `now`.
    pub fn signed(
        &self,
        outgoing: &Outgoing<'_>,
        signature: String,
        now: Timestamp,
    ) -> Result<Signed, PrepareError> {
        let timestamp = now.as_seconds();
        let seconds = timestamp.to_string();
        let mut headers = self.headers.clone();
        let mut put = |name: &HeaderName, value: &str| -> Result<(), PrepareError> {
            let value = HeaderValue::from_str(value).map_err(|_| PrepareError::Header {
                name: name.to_string(),
            })?;
            headers.insert(name.clone(), value);
            Ok(())
        };
        put(&self.signature, &signature)?;
        if let Some(name) = &self.id {
            put(name, &outgoing.id)?;
        }
        if let Some(name) = &self.timestamp {
            put(name, &seconds)?;
        }
        match self.endpoint.preset {
            Preset::Standard | Preset::Hopae => {}
            Preset::Kore | Preset::KoreStream => put(&http::header::DATE, &kore_date(now))?,
            Preset::Github => put(&GITHUB_EVENT, outgoing.first.event_type.as_str())?,
        }
        self.check_whole(&headers, &outgoing.id, &seconds, &signature)?;
        Ok(Signed {
            headers,
            timestamp,
            signature,
        })
    }

    /// The last look before a request leaves: names are checked when they are configured, but may have been
    /// stored by a version that did not.
    fn check_whole(
        &self,
        headers: &HeaderMap,
        id: &str,
        timestamp: &str,
        signature: &str,
    ) -> Result<(), PrepareError> {
        let made = [
            (Some(&self.signature), signature),
            (self.id.as_ref(), id),
            (self.timestamp.as_ref(), timestamp),
        ];
        for (name, value) in made {
            let Some(name) = name else { continue };
            let mut sent = headers.get_all(name).into_iter();
            let is_whole = sent.next().is_some_and(|sent| sent == value) && sent.next().is_none();
            if !is_whole {
                return Err(PrepareError::Overwritten {
                    name: name.to_string(),
                });
            }
        }
        Ok(())
    }
}

const GITHUB_EVENT: HeaderName = HeaderName::from_static("x-github-event");

/// What a preset's requests carry besides the names of [`preset_header_names`], and nobody renames.
pub fn extra_header_name(preset: Preset) -> Option<HeaderName> {
    match preset {
        Preset::Standard | Preset::Hopae => None,
        Preset::Kore | Preset::KoreStream => Some(http::header::DATE),
        Preset::Github => Some(GITHUB_EVENT),
    }
}

fn header_name(name: &str) -> Result<HeaderName, PrepareError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| PrepareError::Header {
        name: name.to_owned(),
    })
}

/// The id of a request: that of its message, or one made from those of all of its messages, so that a
/// batch that is sent again as it was, in whatever order, has the same.
fn request_id(messages: &[&Message]) -> String {
    if let [only] = messages {
        return only.id.to_string();
    }
    let mut ids: Vec<_> = messages.iter().map(|message| message.id).collect();
    ids.sort_unstable();
    let digest = ids.iter().fold(Sha256::new(), |digest, id| {
        digest.chain_update(id.to_bytes())
    });
    format!("batch_{}", hex::encode(&digest.finalize()[..16]))
}

/// The header names of a preset: the scheme's, and what the preset adds.
pub fn preset_header_names(preset: Preset) -> HeaderNames {
    let mut names = HeaderNames::of(preset.scheme());
    match preset {
        Preset::Standard | Preset::Hopae => {}
        Preset::Kore | Preset::KoreStream => {
            names.id = Some(Cow::Borrowed("kore-idempotency-token"));
        }
        Preset::Github => names.id = Some(Cow::Borrowed("x-github-delivery")),
    }
    names
}

/// The header names of a preset in a workspace: its own, and what the workspace renames.
pub fn header_names(preset: Preset, workspace: &Workspace) -> HeaderNames {
    let mut names = preset_header_names(preset);
    if let Some(renames) = workspace.settings.header_names.get(&preset) {
        let renamed = |name: &Option<String>| name.clone().map(Cow::Owned);
        names.id = names.id.map(|id| renamed(&renames.id).unwrap_or(id));
        names.timestamp = names
            .timestamp
            .map(|at| renamed(&renames.timestamp).unwrap_or(at));
        names.signature = renamed(&renames.signature).unwrap_or(names.signature);
    }
    names
}

/// Hopae's envelope around the payload.
fn hopae_envelope(message: &Message) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope<'a> {
        event: &'a str,
        event_id: Cow<'a, str>,
        timestamp: String,
        api_version: &'static str,
        client_id: &'a str,
        data: &'a RawValue,
    }
    let id = message.id.to_string();
    let event_id = match &message.event_id {
        Some(given) => Cow::Borrowed(given.as_str()),
        None => Cow::Owned(id.replacen("msg_", "evt_", 1)),
    };
    json(&Envelope {
        event: message.event_type.as_str(),
        event_id,
        timestamp: message.accepted_at.to_string(),
        api_version: "v1",
        client_id: message.app.as_str(),
        data: raw(&message.payload),
    })
}

/// KORE's event streams: an array of CloudEvents.
fn cloud_events(messages: &[&Message]) -> Bytes {
    #[derive(Serialize)]
    struct CloudEvent<'a> {
        data: &'a RawValue,
        id: Cow<'a, str>,
        time: String,
        r#type: &'a str,
        source: &'static str,
        specversion: &'static str,
        datacontenttype: &'static str,
    }
    let minified: Vec<Bytes> = messages
        .iter()
        .map(|message| minified(&message.payload))
        .collect();
    let events: Vec<_> = messages
        .iter()
        .zip(&minified)
        .map(|(message, data)| CloudEvent {
            data: raw(data),
            id: message
                .event_id
                .as_deref()
                .map_or_else(|| message.id.to_string().into(), Cow::Borrowed),
            time: message.accepted_at.to_string(),
            r#type: message.event_type.as_str(),
            source: "hookturn",
            specversion: "1.0",
            datacontenttype: "application/json",
        })
        .collect();
    json(&events)
}

fn json<T: Serialize>(value: &T) -> Bytes {
    // Borrowed texts and raw JSON always serialise.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// A payload as JSON that is not looked into again.
fn raw(payload: &[u8]) -> &RawValue {
    // Payloads are checked on accept; `null` stands for one that was damaged on disk.
    serde_json::from_slice(payload).unwrap_or(RawValue::NULL)
}

/// JSON without insignificant white space: what KORE signs. Strings are kept byte by byte.
pub(super) fn minified(payload: &Bytes) -> Bytes {
    let mut in_string = false;
    let mut escaped = false;
    let kept: Vec<u8> = payload
        .iter()
        .copied()
        .filter(|byte| {
            if in_string {
                in_string = escaped || *byte != b'"';
                escaped = !escaped && *byte == b'\\';
                return true;
            }
            in_string = *byte == b'"';
            !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
        })
        .collect();
    if kept.len() == payload.len() {
        payload.clone()
    } else {
        kept.into()
    }
}

/// KORE's date: `%Y-%m-%dT%H:%M:%SZ`.
fn kore_date(now: Timestamp) -> String {
    let text = Timestamp::from_millis(now.as_seconds() * 1_000).to_string();
    text.replace(".000Z", "Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookturn_core::id::{MessageId, WorkspaceId};
    use hookturn_core::message::EventType;

    fn message(payload: &str) -> Message {
        Message {
            id: MessageId::from_bytes([1; 16]),
            workspace: WorkspaceId::from_bytes([2; 16]),
            app: "HqTRDIYH".parse().unwrap(),
            event_type: EventType::new("verification.completed").unwrap(),
            event_id: Some("evt_test_0001".to_owned()),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            accepted_at: Timestamp::from_millis(1_784_505_600_000),
        }
    }

    #[test]
    fn hopae_wraps_the_payload_without_touching_it() {
        let body = hopae_envelope(&message(
            r#"{"verificationId":"058ff1aa613a40a883d367a07d7b3713", "status":1.0}"#,
        ));
        assert_eq!(
            std::str::from_utf8(&body).unwrap(),
            r#"{"event":"verification.completed","eventId":"evt_test_0001","timestamp":"2026-07-20T00:00:00.000Z","apiVersion":"v1","clientId":"HqTRDIYH","data":{"verificationId":"058ff1aa613a40a883d367a07d7b3713", "status":1.0}}"#
        );
    }

    #[test]
    fn kore_drops_white_space_outside_strings_only() {
        for (given, wanted) in [
            (
                "{\"a\" : \"b c\\\" d\" ,\n\"e\":\t[1, 2]}",
                "{\"a\":\"b c\\\" d\",\"e\":[1,2]}",
            ),
            ("{\"a\":\"\\\\\" , \"b\":1}", "{\"a\":\"\\\\\",\"b\":1}"),
            ("[]", "[]"),
        ] {
            let kept = minified(&Bytes::from_static(given.as_bytes()));
            assert_eq!(std::str::from_utf8(&kept).unwrap(), wanted);
        }
    }

    #[test]
    fn kore_dates_have_no_fraction() {
        assert_eq!(
            kore_date(Timestamp::from_millis(1_784_505_600_789)),
            "2026-07-20T00:00:00Z"
        );
    }

    #[test]
    fn a_cloud_event_array_carries_type_and_data() {
        let one = message("{\"test_id\": 1}");
        let events: serde_json::Value = serde_json::from_slice(&cloud_events(&[&one])).unwrap();
        assert_eq!(events[0]["type"], "verification.completed");
        assert_eq!(events[0]["data"]["test_id"], 1);
        assert_eq!(events[0]["specversion"], "1.0");
    }
}

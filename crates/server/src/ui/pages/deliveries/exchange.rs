//! One exchange of an attempt, as the inspector shows it: who signed, what was sent, what came back.

use std::fmt::Write as _;

use hookturn_core::delivery::{Answer, Attempt, Exchange, ExchangeResult, SignedWith, Timings};
use hookturn_core::limits;
use hookturn_core::time::Timestamp;

use super::super::super::text::{State, When, excerpt, span, visible};
use super::row::code_of;
use crate::service::Service;
use crate::service::inspecting::{Inspected, SentRequest, verdict};

/// Longest body that stands in a command to copy, in bytes; a longer one is read from a file.
const CURL_BODY_BYTES: usize = 16 * 1024;

/// One attempt.
#[derive(Debug, Clone)]
pub struct AttemptView {
    /// 1 for the first.
    pub number: u32,
    /// When it began.
    pub at: When,
    /// How it ended, in a word.
    pub state: State,
    /// The code of the answer, or the kind of failure.
    pub code: Option<String>,
    /// How long it took, in milliseconds.
    pub millis: u32,
    /// What happened and what to do about it.
    pub summary: String,
    /// What was sent and answered, in order.
    pub exchanges: Vec<ExchangeView>,
}

/// One exchange.
#[derive(Debug, Clone)]
pub struct ExchangeView {
    /// What its ids on the page begin with.
    pub id: String,
    /// Why these keys signed.
    pub reason: &'static str,
    /// When it was signed.
    pub signed_at: String,
    /// Each signature with the secret that made it.
    pub signatures: Vec<SignatureView>,
    /// What was sent, as far as it can be told.
    pub request: Option<RequestView>,
    /// What came back.
    pub answer: Option<AnswerView>,
    /// Why nothing came back.
    pub failure: Option<(String, String)>,
    /// Where the time went.
    pub timings: Vec<(&'static str, String)>,
    /// Whether the request was written twice.
    pub resent: bool,
}

/// A signature and who made it.
#[derive(Debug, Clone)]
pub struct SignatureView {
    /// As it stood in the header.
    pub value: String,
    /// What its owner calls the secret.
    pub secret: String,
    /// The secret's fingerprint.
    pub fingerprint: String,
    /// What the secret is now.
    pub state: State,
    /// Whether it is known to have leaked.
    pub leaked: bool,
}

/// A request.
#[derive(Debug, Clone)]
pub struct RequestView {
    /// Method and URL.
    pub line: String,
    /// Headers; without a value where that may be a secret.
    pub headers: Vec<(String, Option<String>)>,
    /// A command that sends it again.
    pub curl: String,
    /// Whether other events may have been in it.
    pub may_be_batch: bool,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct AnswerView {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
    /// Bytes of the body that were kept.
    pub bytes: usize,
    /// Whether the body was longer.
    pub is_cut: bool,
}

impl AttemptView {
    pub(super) fn new(
        service: &Service,
        inspected: &Inspected,
        attempt: &Attempt,
        now: Timestamp,
    ) -> Self {
        let endpoint = inspected.endpoint.as_ref();
        let url = endpoint.and_then(|endpoint| endpoint.url.as_ref());
        let tls = url.is_some_and(|url| url.url().scheme() == "https");
        let accepted = attempt.accepted();
        let exchanges = attempt.exchanges.iter().enumerate();
        Self {
            number: attempt.number,
            at: When::new(attempt.started_at, now),
            state: if accepted {
                State::good("accepted")
            } else if attempt.decisive().and_then(Exchange::status).is_some() {
                State::bad("refused")
            } else {
                State::bad("no answer")
            },
            code: code_of(attempt),
            millis: attempt.duration_millis,
            summary: visible(&verdict(attempt, tls).summary),
            exchanges: exchanges
                .map(|(index, exchange)| {
                    let id = format!("a{}-{}", attempt.number, index + 1);
                    let sent = service.sent_request(inspected, exchange);
                    ExchangeView::new(id, inspected, exchange, sent.as_ref(), now)
                })
                .collect(),
        }
    }
}

impl ExchangeView {
    pub(super) fn new(
        id: String,
        inspected: &Inspected,
        exchange: &Exchange,
        sent: Option<&SentRequest>,
        now: Timestamp,
    ) -> Self {
        let (answer, failure) = match &exchange.result {
            ExchangeResult::Answered(answer) => (Some(AnswerView::new(answer)), None),
            ExchangeResult::Failed(failed) => {
                (None, Some((visible(&failed.kind), visible(&failed.detail))))
            }
        };
        let at = Timestamp::from_millis(exchange.timestamp.saturating_mul(1_000));
        Self {
            id,
            reason: exchange.reason.words(),
            signed_at: at.to_string(),
            signatures: signatures(inspected, exchange, now),
            request: sent.map(|sent| RequestView::new(sent, exchange)),
            answer,
            failure,
            timings: timings(exchange.timings),
            resent: exchange.resent,
        }
    }
}

impl AnswerView {
    fn new(answer: &Answer) -> Self {
        let (body, _) = excerpt(&answer.body, limits::RESPONSE_BODY_BYTES);
        let headers = answer.headers.iter();
        Self {
            status: answer.status,
            headers: headers
                .map(|(name, value)| (visible(name), visible(value)))
                .collect(),
            body,
            bytes: answer.body.len(),
            is_cut: answer.truncated,
        }
    }
}

impl RequestView {
    fn new(sent: &SentRequest, exchange: &Exchange) -> Self {
        let headers = sent.headers.iter();
        Self {
            line: visible(&format!("{} {}", sent.method, sent.url)),
            headers: headers
                .map(|header| (visible(&header.name), header.value.as_deref().map(visible)))
                .collect(),
            curl: curl(sent, exchange),
            may_be_batch: sent.may_be_batch,
        }
    }
}

/// Each signature of the header with the secret that made it: they stand in the same order.
fn signatures(inspected: &Inspected, exchange: &Exchange, now: Timestamp) -> Vec<SignatureView> {
    let signers = exchange.signed_with.iter();
    let mut values = if exchange.signed_with.len() > 1 {
        exchange.signature.split(' ').collect::<Vec<_>>()
    } else {
        vec![exchange.signature.as_str()]
    }
    .into_iter();
    signers
        .map(|signer| {
            let value = values.next().unwrap_or_default();
            signature(inspected, signer, value, now)
        })
        .collect()
}

fn signature(
    inspected: &Inspected,
    signer: &SignedWith,
    value: &str,
    now: Timestamp,
) -> SignatureView {
    let keyring = inspected.keyring.as_ref();
    let known = keyring.and_then(|keyring| keyring.secret(signer.secret));
    let (secret, state) = match known {
        Some(secret) => {
            let name = match &secret.name {
                Some(name) => visible(name),
                None => format!("version {}", secret.version),
            };
            let word = secret.status(now).as_str();
            let state = match word {
                "active" => State::good(word),
                "pending" | "retiring" => State::waiting(word),
                _ => State::over(word),
            };
            (name, state)
        }
        None => (signer.secret.to_string(), State::over("forgotten")),
    };
    SignatureView {
        value: visible(value),
        secret,
        fingerprint: signer.fingerprint.to_string(),
        state,
        leaked: known.is_some_and(|secret| secret.compromised.is_some()),
    }
}

fn timings(timings: Timings) -> Vec<(&'static str, String)> {
    let step = |micros: u32| match micros {
        0 => "no such step".to_owned(),
        micros => span(micros),
    };
    vec![
        ("Look up the name", step(timings.dns)),
        ("Connect", step(timings.connect)),
        ("TLS handshake", step(timings.tls)),
        ("First byte", step(timings.first_byte)),
        ("In all", span(timings.total)),
    ]
}

/// A command that sends the request again, for a shell. Headers of the endpoint's owner are named and left
/// to be filled in: they may hold a secret.
fn curl(sent: &SentRequest, exchange: &Exchange) -> String {
    let mut lines = vec![format!(
        "curl --request {} {}",
        sent.method,
        quoted(&sent.url)
    )];
    for header in &sent.headers {
        let value = match &header.value {
            Some(value) => value.clone(),
            None => format!("<value of {}>", header.name),
        };
        lines.push(format!(
            "--header {}",
            quoted(&format!("{}: {value}", header.name))
        ));
    }
    if sent.body.len() > CURL_BODY_BYTES {
        lines.push("--data-binary @payload.json".to_owned());
    } else if !sent.body.is_empty() {
        let body = String::from_utf8_lossy(&sent.body);
        lines.push(format!("--data-binary {}", quoted(&body)));
    }
    let at = Timestamp::from_millis(exchange.timestamp.saturating_mul(1_000));
    format!(
        "# signed at {at}: a receiver that checks the time refuses it when that is too long ago\n{}",
        lines.join(" \\\n  ")
    )
}

/// A word of a shell, whatever is in it. What would hide in a terminal is written as an escape.
fn quoted(text: &str) -> String {
    let hides = |c: char| {
        let alone = c.to_string();
        visible(&alone) != alone
    };
    if !text.chars().any(hides) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut word = String::from("$'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => word.extend(['\\', c]),
            c if hides(c) => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a text cannot fail.
                    let _ = write!(word, "\\x{byte:02x}");
                }
            }
            c => word.push(c),
        }
    }
    word.push('\'');
    word
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::service::inspecting::SentHeader;

    #[test]
    fn a_command_holds_any_text_and_no_custom_value() {
        let sent = SentRequest {
            method: "POST",
            url: "https://a.example/it's".to_owned(),
            headers: vec![SentHeader {
                name: "authorization".to_owned(),
                value: None,
            }],
            body: Bytes::from_static("{\"a\":\"'; rm -rf / #\u{202e}\"}".as_bytes()),
            may_be_batch: false,
        };
        let exchange = Exchange {
            reason: hookturn_core::delivery::ExchangeReason::Plan,
            signed_with: Vec::new(),
            timestamp: 1_784_505_600,
            signature: String::new(),
            result: ExchangeResult::Answered(Answer {
                status: 200,
                headers: Vec::new(),
                body: Vec::new(),
                truncated: false,
                retry_after_millis: None,
            }),
            timings: Timings::default(),
            resent: false,
        };
        let command = curl(&sent, &exchange);
        assert!(
            command.contains(r"'https://a.example/it'\''s'"),
            "{command}"
        );
        assert!(
            command.contains("'authorization: <value of authorization>'"),
            "{command}"
        );
        let body = r#"$'{"a":"\'; rm -rf / #\xe2\x80\xae"}'"#;
        assert!(command.contains(body), "{command}");
    }
}

//! What came of an attempt, in plain words, for the owner of the endpoint. Pure.

use hookturn_core::delivery::{
    Answer, Attempt, Exchange, ExchangeFailure, ExchangeReason, ExchangeResult,
};

use crate::outbound::FailureKind;

/// Characters of a receiver's answer that are quoted.
const EXCERPT_CHARS: usize = 200;

/// What an attempt says to the owner of an endpoint.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether a connection stood, TLS included.
    pub connected: bool,
    /// What happened and what to do about it.
    pub summary: String,
}

/// Reads an attempt, made with TLS if `tls`. Whether the connection stood is sure only for one that was made
/// over a connection of its own.
pub fn verdict(attempt: &Attempt, tls: bool) -> Verdict {
    let Some(last) = attempt.decisive() else {
        return Verdict {
            connected: false,
            summary: "nothing was sent".to_owned(),
        };
    };
    match &last.result {
        ExchangeResult::Answered(answer) => Verdict {
            connected: true,
            summary: if last.accepted() {
                accepted(attempt, last, answer)
            } else {
                refused(attempt, last, answer)
            },
        },
        ExchangeResult::Failed(failure) => {
            // An exchange before this one was answered, over the same connection or another.
            let connected = attempt.exchanges.len() > 1 || stood(last, failure, tls);
            Verdict {
                connected,
                summary: failed(last, failure, connected),
            }
        }
    }
}

fn accepted(attempt: &Attempt, last: &Exchange, answer: &Answer) -> String {
    let status = answer.status;
    match (last.reason, attempt.exchanges.first()) {
        (ExchangeReason::Fallback, Some(first)) => format!(
            "connected and accepted: the receiver answered {status} to the signature of secret {}, \
             after it had refused that of secret {} with {}",
            signers(last),
            signers(first),
            first.status().unwrap_or_default()
        ),
        _ => {
            format!("connected and accepted: the receiver answered {status}")
        }
    }
}

fn refused(attempt: &Attempt, last: &Exchange, answer: &Answer) -> String {
    let said = match excerpt(&answer.body) {
        Some(said) => format!(" and said \"{said}\""),
        None => String::new(),
    };
    let secrets: Vec<_> = attempt.exchanges.iter().map(signers).collect();
    let advice = match answer.status {
        300..=399 => {
            "redirects are not followed: configure the address that it points to".to_owned()
        }
        400 | 401 | 403 | 422 => format!(
            "if it checks signatures, look whether it holds secret {}",
            secrets.join(" or ")
        ),
        404 | 405 => "check the path and the method of the endpoint".to_owned(),
        410 => "a delivery that is answered so disables the endpoint".to_owned(),
        429 => "it asks for fewer requests: set a rate limit".to_owned(),
        _ => "look into the receiver's own log".to_owned(),
    };
    let status = last.status().unwrap_or_default();
    format!("connected, but not accepted: the receiver answered {status}{said}; {advice}")
}

fn failed(last: &Exchange, failure: &ExchangeFailure, connected: bool) -> String {
    let what = if connected {
        "connected, but there was no answer that can be read"
    } else {
        "not connected"
    };
    let detail = &failure.detail;
    match FailureKind::parse(&failure.kind) {
        Some(kind) => {
            // Who took the connection is no firewall that drops packets.
            let handshake = kind == FailureKind::ConnectTimeout && last.timings.connect > 0;
            let advice = if handshake {
                "the server took the connection but did not end the TLS handshake: check that the port \
                 speaks https"
            } else {
                kind.advice()
            };
            format!("{what} ({}): {detail}; {advice}", kind.as_str())
        }
        None => format!("{what} ({}): {detail}", failure.kind),
    }
}

/// Whether the connection stood when an exchange failed.
fn stood(exchange: &Exchange, failure: &ExchangeFailure, tls: bool) -> bool {
    match FailureKind::parse(&failure.kind) {
        Some(
            FailureKind::Refused
            | FailureKind::Dns
            | FailureKind::Connect
            | FailureKind::ConnectTimeout
            | FailureKind::Tls,
        )
        | None => false,
        Some(FailureKind::Reset | FailureKind::BadResponse | FailureKind::HeadTooLarge) => true,
        // The deadline covers the way to a connection too: it stood if its last step took time.
        Some(FailureKind::Timeout) => {
            let last_step = if tls {
                exchange.timings.tls
            } else {
                exchange.timings.connect
            };
            last_step > 0
        }
    }
}

/// The fingerprints of the secrets that signed.
fn signers(exchange: &Exchange) -> String {
    let prints: Vec<_> = exchange
        .signed_with
        .iter()
        .map(|signer| signer.fingerprint.to_string())
        .collect();
    prints.join(" and ")
}

/// The beginning of an answer on one line, without control characters.
fn excerpt(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let line = words.join(" ");
    let mut cut: String = line.chars().take(EXCERPT_CHARS).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    (!cut.is_empty()).then_some(cut)
}

#[cfg(test)]
mod tests {
    use hookturn_core::delivery::{SignedWith, Timings};
    use hookturn_core::id::SecretId;
    use hookturn_core::time::Timestamp;
    use hookturn_verify::Secret;

    use super::*;

    fn answered(status: u16, body: &str) -> ExchangeResult {
        ExchangeResult::Answered(Answer {
            status,
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
            truncated: false,
            retry_after_millis: None,
        })
    }

    fn failure(kind: FailureKind) -> ExchangeResult {
        ExchangeResult::Failed(ExchangeFailure {
            kind: kind.as_str().to_owned(),
            detail: "what happened".to_owned(),
        })
    }

    fn exchange(reason: ExchangeReason, secret: &str, result: ExchangeResult) -> Exchange {
        Exchange {
            reason,
            signed_with: vec![SignedWith {
                secret: SecretId::from_bytes([1; 16]),
                fingerprint: Secret::parse(secret).unwrap().fingerprint(),
            }],
            timestamp: 0,
            signature: String::new(),
            result,
            timings: Timings::default(),
            resent: false,
        }
    }

    fn attempt(exchanges: Vec<Exchange>) -> Attempt {
        Attempt {
            number: 1,
            started_at: Timestamp::EPOCH,
            duration_millis: 1,
            exchanges,
        }
    }

    fn plan(result: ExchangeResult) -> Attempt {
        attempt(vec![exchange(ExchangeReason::Plan, "secret12345", result)])
    }

    #[test]
    fn an_answer_is_told_with_its_status_what_it_said_and_what_to_do() {
        let print = Secret::parse("secret12345")
            .unwrap()
            .fingerprint()
            .to_string();
        for (status, body, wanted) in [
            (204, "", "connected and accepted: the receiver answered 204".to_owned()),
            (
                401,
                " bad\r\n signature\u{1b}[1m",
                format!("connected, but not accepted: the receiver answered 401 and said \"bad signature [1m\"; if it checks signatures, look whether it holds secret {print}"),
            ),
            (302, "", "connected, but not accepted: the receiver answered 302; redirects are not followed: configure the address that it points to".to_owned()),
            (404, "", "connected, but not accepted: the receiver answered 404; check the path and the method of the endpoint".to_owned()),
            (503, "", "connected, but not accepted: the receiver answered 503; look into the receiver's own log".to_owned()),
        ] {
            let told = verdict(&plan(answered(status, body)), true);
            let wanted = Verdict { connected: true, summary: wanted };
            assert_eq!(told, wanted);
        }
        let long = verdict(&plan(answered(500, &"ä".repeat(300))), true).summary;
        assert!(
            long.contains(&format!("\"{}…\"", "ä".repeat(200))),
            "{long}"
        );
    }

    #[test]
    fn a_fallback_that_was_accepted_names_both_secrets() {
        let both = attempt(vec![
            exchange(ExchangeReason::Plan, "secret12345", answered(401, "")),
            exchange(
                ExchangeReason::Fallback,
                "a35974bdf1c769b8bb",
                answered(200, ""),
            ),
        ]);
        let told = verdict(&both, false).summary;
        for part in [
            "answered 200",
            "with 401",
            &signers(&both.exchanges[0]),
            &signers(&both.exchanges[1]),
        ] {
            assert!(told.contains(part), "{part} is missing: {told}");
        }
    }

    #[test]
    fn every_failure_is_told_with_its_kind_and_what_to_do() {
        for kind in FailureKind::ALL {
            let told = verdict(&plan(failure(kind)), true);
            let connected = matches!(
                kind,
                FailureKind::Reset | FailureKind::BadResponse | FailureKind::HeadTooLarge
            );
            assert_eq!(told.connected, connected, "{told:?}");
            let start = if connected {
                "connected, but"
            } else {
                "not connected"
            };
            assert!(told.summary.starts_with(start), "{told:?}");
            for part in [kind.as_str(), "what happened", kind.advice()] {
                assert!(told.summary.contains(part), "{told:?}");
            }
        }
    }

    #[test]
    fn a_timeout_after_the_handshake_was_connected() {
        let mut late = plan(failure(FailureKind::Timeout));
        late.exchanges[0].timings.connect = 80;
        assert!(verdict(&late, false).connected);
        assert!(!verdict(&late, true).connected, "the handshake did not end");
        late.exchanges[0].timings.tls = 900;
        assert!(verdict(&late, true).connected);
    }
}

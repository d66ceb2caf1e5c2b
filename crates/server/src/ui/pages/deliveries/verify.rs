//! The box that says who signed a captured request.

use std::borrow::Cow;

use hookturn_core::id::{ClientId, EndpointId};
use hookturn_core::time::Timestamp;
use http::StatusCode;
use serde::Deserialize;

use super::super::super::UiState;
use super::super::super::error::status_of;
use super::super::super::text::{State, When, visible};
use super::super::super::visitor::Visitor;
use crate::service::ServiceError;
use crate::service::inspecting::{CapturedRequest, Checked};

/// Seconds that receivers commonly let a signature be old.
const USUAL_TOLERANCE: u64 = 300;

/// What was pasted.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct Pasted {
    #[serde(default)]
    headers: String,
    #[serde(default)]
    body: String,
}

/// The box.
#[derive(Debug, Clone, Default)]
pub struct VerifyBox {
    /// Where its form goes.
    pub action: String,
    /// The headers that were pasted.
    pub headers: String,
    /// What was wrong with them.
    pub headers_error: Option<String>,
    /// The body that was pasted.
    pub body: String,
    /// What came of it.
    pub told: Option<Told>,
}

/// What came of a look.
#[derive(Debug, Clone)]
pub struct Told {
    /// In a word.
    pub state: State,
    /// In sentences.
    pub lines: Vec<String>,
}

impl VerifyBox {
    /// An empty box whose form goes there.
    pub fn to(action: String) -> Self {
        Self {
            action,
            ..Self::default()
        }
    }

    /// Looks at what was pasted, and keeps it.
    pub(in crate::ui) async fn check(
        &mut self,
        ui: &UiState,
        visitor: &Visitor,
        (app, endpoint): (ClientId, EndpointId),
        pasted: Pasted,
    ) -> StatusCode {
        self.headers = pasted.headers;
        self.body = pasted.body;
        let headers = match header_lines(&self.headers) {
            Ok(headers) => headers,
            Err(why) => {
                self.headers_error = Some(why);
                return StatusCode::UNPROCESSABLE_ENTITY;
            }
        };
        let captured = CapturedRequest {
            headers,
            bodies: forms_of(&self.body),
        };
        let caller = &visitor.caller;
        let checked = ui.service.check_captured(caller, app, endpoint, &captured);
        match checked.await {
            Ok(checked) => {
                self.told = Some(tell(&checked, ui.clock.now()));
                StatusCode::OK
            }
            Err(error) => {
                self.told = Some(refused(&error));
                status_of(&error)
            }
        }
    }

    /// A box whose last look found nothing.
    pub fn sample_refused() -> Self {
        Self {
            headers: "<script>".to_owned(),
            headers_error: Some("line 1: expected name: value".to_owned()),
            body: "</textarea><script>alert(1)</script>".to_owned(),
            told: Some(Told {
                state: State::bad("not signed by this endpoint"),
                lines: vec!["header webhook-id is missing".to_owned()],
            }),
            ..Self::to("apps/a/endpoints/b/verify".to_owned())
        }
    }
}

fn refused(error: &ServiceError) -> Told {
    Told {
        state: State::bad("not looked at"),
        lines: vec![error.to_string()],
    }
}

/// The headers of pasted lines. A request line, white space around and what `curl` puts before its own
/// are taken as they come.
fn header_lines(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut headers = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim().trim_start_matches(['>', '<']).trim();
        let request_line = number == 0 && line.contains(" HTTP/");
        if line.is_empty() || request_line {
            continue;
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("line {}: expected name: value", number + 1))?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(headers)
}

/// What a pasted body may have been: browsers send every line end as two characters, and people paste
/// one more at the end.
fn forms_of(body: &str) -> Vec<Vec<u8>> {
    let single: Cow<'_, str> = body.replace("\r\n", "\n").into();
    let mut forms: Vec<Vec<u8>> = Vec::new();
    for form in [
        single.as_ref(),
        body,
        single.trim_end_matches('\n'),
        body.trim_end_matches(['\r', '\n']),
        single.trim(),
    ] {
        if !forms.iter().any(|known| known == form.as_bytes()) {
            forms.push(form.as_bytes().to_vec());
        }
    }
    forms
}

fn tell(checked: &Checked, now: Timestamp) -> Told {
    match &checked.result {
        Ok(signed) => {
            let secret = &signed.secret;
            let name = secret.name.as_deref().map_or_else(
                || format!("version {}", secret.version),
                |name| format!("\"{}\"", visible(name)),
            );
            let mut lines = vec![format!(
                "signed by secret {name}, fingerprint {}, which is {} now",
                secret.fingerprint,
                secret.status(now)
            )];
            if secret.compromised.is_some() {
                lines.push("this secret is marked as leaked: who holds it can sign too".to_owned());
            }
            if let Some(at) = signed.at {
                let apart = now.since(at).max(at.since(now)) / 1_000;
                let said = When::new(at, now).relative();
                lines.push(if apart > USUAL_TOLERANCE {
                    format!("signed {said}: a receiver that allows 5 minutes refuses it now")
                } else {
                    format!("signed {said}")
                });
            }
            if let Some(id) = &signed.id {
                lines.push(format!("its message is {}", visible(id)));
            }
            if signed.form > 0 {
                let words = "white space at the ends of its lines was mended: pasting changes it";
                lines.push(words.to_owned());
            }
            Told {
                state: State::good("signature valid"),
                lines,
            }
        }
        Err(why) => {
            let plural = if checked.tried == 1 { "" } else { "s" };
            let mut lines = vec![
                visible(&why.to_string()),
                format!("{} secret{plural} of its keyring were tried", checked.tried),
            ];
            if checked.erased > 0 {
                lines.push(format!(
                    "{} more are erased and cannot be tried",
                    checked.erased
                ));
            }
            Told {
                state: State::bad("not signed by this endpoint"),
                lines,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pasted_headers_are_read_as_people_paste_them() {
        let pasted = "POST /hook HTTP/1.1\r\n> Webhook-Id: msg_1\r\n\r\nwebhook-timestamp : 5\n";
        let read = header_lines(pasted).unwrap();
        let expected = [("webhook-id", "msg_1"), ("webhook-timestamp", "5")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read, expected);
        assert!(header_lines("nonsense").is_err());
    }

    #[test]
    fn a_body_is_tried_as_it_may_have_been() {
        let forms = forms_of("{\r\n}\r\n");
        assert_eq!(forms[0], b"{\n}\n");
        assert!(forms.contains(&b"{\r\n}\r\n".to_vec()));
        assert!(forms.contains(&b"{\n}".to_vec()));
        assert_eq!(forms_of("{}"), [b"{}"]);
    }
}

//! What is looked for: each secret in every form in which it could lie around.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shorter forms are found by chance.
const SHORTEST: usize = 8;

/// Forms of planted secrets, each with what it is.
#[derive(Default)]
pub(super) struct Needles(Vec<(String, Vec<u8>)>);

impl Needles {
    /// Looks for this text from now on, and for the bytes it stands for.
    pub(super) fn plant(&mut self, what: &str, text: &str) {
        self.forms(what, text.as_bytes());
        let inner = text.rsplit('_').next().unwrap_or(text);
        if inner.len() < text.len() {
            self.forms(&format!("inside {what}"), inner.as_bytes());
        }
        if let Ok(key) = hex::decode(inner) {
            self.forms(&format!("key of {what}"), &key);
        }
        let unpadded = inner.trim_end_matches('=');
        if let Ok(key) = STANDARD_NO_PAD.decode(unpadded) {
            self.forms(&format!("key of {what}"), &key);
        }
    }

    fn forms(&mut self, what: &str, bytes: &[u8]) {
        let mut push = |form: &str, needle: Vec<u8>| {
            if needle.len() >= SHORTEST {
                self.0.push((format!("{what} {form}"), needle));
            }
        };
        push("as it is", bytes.to_vec());
        push("in hexadecimal", hex::encode(bytes).into_bytes());
        push(
            "in capital hexadecimal",
            hex::encode_upper(bytes).into_bytes(),
        );
        push(
            "as a list of numbers",
            format!("{bytes:?}")[1..].trim_end_matches(']').into(),
        );
        // In base64, bytes look different at each of three places; the ends depend on neighbours.
        for shift in 0..3 {
            let shifted = [vec![0; shift], bytes.to_vec()].concat();
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let text = engine.encode(&shifted);
                let end = text.len().saturating_sub(2);
                let start = if shift == 0 { 0 } else { 4 };
                if start < end {
                    push("in base64", text[start..end].into());
                }
            }
        }
        push("in padded base64", STANDARD.encode(bytes).into_bytes());
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether anything is in there.
    pub(super) fn finds(&self, hay: &[u8]) -> bool {
        self.found(hay).is_some()
    }

    fn found(&self, hay: &[u8]) -> Option<(&str, usize)> {
        self.0.iter().find_map(|(what, needle)| {
            let at = find(hay, needle)?;
            Some((what.as_str(), at))
        })
    }

    /// Fails on the first hit.
    pub(super) fn search(&self, place: &str, hay: &[u8]) {
        if let Some((what, at)) = self.found(hay) {
            let from = at.saturating_sub(300);
            let around = String::from_utf8_lossy(&hay[from..hay.len().min(at + 100)]);
            panic!("{what} is in {place}: …{around}…");
        }
    }
}

/// The first place of a needle. The first byte is sought alone, which is what makes it fast enough
/// for some megabytes of log and some hundred needles.
fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, rest) = needle.split_first()?;
    let mut from = 0;
    while let Some(step) = hay.get(from..)?.iter().position(|byte| byte == first) {
        let at = from + step;
        if hay[at + 1..].starts_with(rest) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

//! What is looked for: each secret in every form in which it could lie around.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Forms of planted secrets, each with what it is.
#[derive(Default)]
pub(super) struct Needles {
    forms: Vec<(String, Vec<u8>)>,
    /// Which of them begin with these eight bytes.
    beginnings: HashMap<u64, Vec<usize>>,
}

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
            if let Some(beginning) = needle.first_chunk() {
                let beginning = u64::from_be_bytes(*beginning);
                let known = self.beginnings.entry(beginning).or_default();
                known.push(self.forms.len());
                self.forms.push((format!("{what} {form}"), needle));
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
        self.forms.len()
    }

    /// Whether anything is in there.
    pub(super) fn finds(&self, hay: &[u8]) -> bool {
        self.found(hay).is_some()
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the last two of eight bytes"
    )]
    /// The first hit. One pass over all bytes, because logs are long and needles are many; forms
    /// shorter than eight bytes are not planted, chance would find them.
    fn found(&self, hay: &[u8]) -> Option<(&str, usize)> {
        let mut lasts = vec![false; 1 << 16];
        for beginning in self.beginnings.keys() {
            lasts[usize::from(*beginning as u16)] = true;
        }
        let mut window = 0_u64;
        for (end, byte) in (1..).zip(hay) {
            window = window << 8 | u64::from(*byte);
            if end < 8 || !lasts[usize::from(window as u16)] {
                continue;
            }
            let begun = self.beginnings.get(&window).into_iter().flatten();
            let hit = begun
                .map(|at| &self.forms[*at])
                .find(|(_, needle)| hay[end - 8..].starts_with(needle));
            if let Some((what, _)) = hit {
                return Some((what, end - 8));
            }
        }
        None
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

//! Standard Webhooks: `<id>.<timestamp>.<body>`, HMAC-SHA256 as `v1` or Ed25519 as `v1a`.
//!
//! Writing is strict, because some libraries answer 500 to a doubled space or a bare word. Reading
//! takes every token, skips versions it does not know, and accepts canonical base64 only.

use super::{Parts, Presented, Value};
use crate::encoding::{decode_base64_exact, push_base64};

/// The most signatures that are read from one header. An Ed25519 check costs some 50 µs, so an
/// unbounded list would let a stranger keep a receiver busy.
pub(crate) const MAX_SIGNATURES: usize = 32;

/// A rotation needs two signatures; the room is for senders that list more.
const _: () = assert!(MAX_SIGNATURES >= 2);

pub(crate) fn parts<'a>(id: &'a str, timestamp: &'a [u8], body: &'a [u8]) -> Parts<'a> {
    [id.as_bytes(), b".", timestamp, b".", body]
}

/// An id that cannot be confused with what follows it, and that survives as a header value.
pub(crate) fn is_id(id: &[u8]) -> bool {
    !id.is_empty()
        && id
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b'.')
}

/// Appends one token, after exactly one space if it is not the first.
pub(crate) fn push_token(out: &mut String, value: &Value) {
    if !out.is_empty() {
        out.push(' ');
    }
    match value {
        Value::Digest(bytes) => {
            out.push_str("v1,");
            push_base64(out, bytes);
        }
        Value::Ed25519(bytes) => {
            out.push_str("v1a,");
            push_base64(out, bytes);
        }
    }
}

/// Reads every signature of a version we know. `Err` when there is none to compare.
pub(crate) fn read(header: &[u8]) -> Result<Vec<Presented>, &'static str> {
    let mut presented = Vec::new();
    let mut damaged = None;
    let tokens = header
        .split(|byte| *byte == b' ')
        .filter(|token| !token.is_empty());
    for (position, token) in (0..).zip(tokens) {
        if presented.len() == MAX_SIGNATURES {
            return Err("it holds more than 32 signatures");
        }
        let value = if let Some(text) = token.strip_prefix(b"v1,") {
            decode_base64_exact(text)
                .map(Value::Digest)
                .ok_or("a v1 signature is not the padded standard base64 of 32 bytes")
        } else if let Some(text) = token.strip_prefix(b"v1a,") {
            decode_base64_exact(text)
                .map(Value::Ed25519)
                .ok_or("a v1a signature is not the padded standard base64 of 64 bytes")
        } else {
            continue;
        };
        match value {
            Ok(value) => presented.push(Presented { position, value }),
            Err(what) => damaged = Some(what),
        }
    }
    if presented.is_empty() {
        return Err(damaged.unwrap_or("it holds no v1 or v1a signature"));
    }
    Ok(presented)
}

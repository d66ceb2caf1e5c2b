//! Hopae Connect: `t=<seconds>,v1=<64 lowercase hex>`, HMAC-SHA256 over `<t>.<body>`, keyed with the
//! text of the whole secret. Stripe's form is the same.
//!
//! The published verifier builds a map from the pairs: a repeated name keeps its last value, names
//! that it does not know are ignored, nothing is trimmed. Reading here does exactly that, so that
//! what verifies here verifies there; writing never puts two `v1` in one header.

use super::{Parts, Presented};
use crate::encoding::{Decimal, decode_hex, parse_seconds, push_hex};

pub(crate) fn parts<'a>(timestamp: &'a [u8], body: &'a [u8]) -> Parts<'a> {
    [timestamp, b".", body, b"", b""]
}

pub(crate) fn write(timestamp: &Decimal, digest: &[u8; 32]) -> String {
    let mut out = String::with_capacity("t=,v1=".len() + timestamp.as_bytes().len() + 64);
    out.push_str("t=");
    out.extend(timestamp.as_bytes().iter().copied().map(char::from));
    out.push_str(",v1=");
    push_hex(&mut out, digest);
    out
}

/// What a header claims.
pub(crate) struct Claim<'a> {
    /// The text of `t`, as it was signed.
    pub(crate) timestamp: &'a [u8],
    /// The same in Unix seconds.
    pub(crate) seconds: i64,
    pub(crate) presented: Presented,
}

pub(crate) fn read(header: &[u8]) -> Result<Claim<'_>, &'static str> {
    let (mut timestamp, mut signature) = (None, None);
    for pair in header.split(|byte| *byte == b',') {
        if let Some(value) = pair.strip_prefix(b"t=") {
            timestamp = Some(value);
        } else if let Some(value) = pair.strip_prefix(b"v1=") {
            signature = Some(value);
        }
    }
    let timestamp = timestamp.ok_or("it holds no t=<seconds>")?;
    let seconds = parse_seconds(timestamp).ok_or("t is not a number of Unix seconds")?;
    let signature = signature.ok_or("it holds no v1=<signature>")?;
    let digest = decode_hex(signature).ok_or("v1 is not 64 lowercase hex digits")?;
    Ok(Claim {
        timestamp,
        seconds,
        presented: Presented::only(digest),
    })
}

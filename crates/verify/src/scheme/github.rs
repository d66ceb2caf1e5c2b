//! GitHub: `sha256=<64 lowercase hex>`, HMAC-SHA256 over the body alone, keyed with the secret's text.

use super::{Parts, Presented};
use crate::encoding::{decode_hex, push_hex};

const PREFIX: &str = "sha256=";

pub(crate) fn parts(body: &[u8]) -> Parts<'_> {
    [body, b"", b"", b"", b""]
}

pub(crate) fn write(digest: &[u8; 32]) -> String {
    let mut out = String::with_capacity(PREFIX.len() + 64);
    out.push_str(PREFIX);
    push_hex(&mut out, digest);
    out
}

pub(crate) fn read(header: &[u8]) -> Result<Presented, &'static str> {
    let text = header
        .strip_prefix(PREFIX.as_bytes())
        .ok_or("it does not start with sha256= (sha1= is not supported)")?;
    decode_hex(text)
        .map(Presented::only)
        .ok_or("sha256 is not 64 lowercase hex digits")
}

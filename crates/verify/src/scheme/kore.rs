//! KORE Wireless: lowercase hex of SHA-256 over secret, method, URL and body, without separators.
//!
//! The URL is the configured text, cut at the first `?` or `#` and otherwise left alone: a URL
//! parser that adds a slash breaks the signature. The scheme is weak by construction and offered
//! for compatibility.

use std::borrow::Cow;

use super::{Parts, Presented};
use crate::encoding::{decode_hex, push_hex};

pub(crate) fn parts<'a>(method: &'a str, url: &'a str, body: &'a [u8]) -> Parts<'a> {
    [
        method.as_bytes(),
        signed_url(url).as_bytes(),
        body,
        b"",
        b"",
    ]
}

/// The method in capitals, as it is signed.
pub(crate) fn signed_method(method: &str) -> Cow<'_, str> {
    if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
        Cow::Owned(method.to_ascii_uppercase())
    } else {
        Cow::Borrowed(method)
    }
}

/// The part of the URL that is signed.
pub(crate) fn signed_url(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

pub(crate) fn write(digest: &[u8; 32]) -> String {
    let mut out = String::with_capacity(64);
    push_hex(&mut out, digest);
    out
}

pub(crate) fn read(header: &[u8]) -> Result<Presented, &'static str> {
    if header.is_empty() {
        return Err("it is empty; the sender's account has no secret");
    }
    decode_hex(header)
        .map(Presented::only)
        .ok_or("it is not 64 lowercase hex digits")
}

//! The schemes: which bytes are signed, with which key, and how the signature is written down.
//!
//! | scheme | key | signed bytes | header value |
//! |---|---|---|---|
//! | `standard` | base64 after `whsec_` (HMAC-SHA256), or Ed25519 | `id.timestamp.body` | `v1,<base64>` or `v1a,<base64>`, joined by one space |
//! | `hopae` | the whole text (HMAC-SHA256) | `timestamp.body` | `t=<timestamp>,v1=<hex>` |
//! | `kore` | the whole text, as a prefix (SHA-256) | secret, method, URL, body | `<hex>` |
//! | `github` | the whole text (HMAC-SHA256) | `body` | `sha256=<hex>` |
//!
//! One file per scheme, each with the same three duties: say what is signed, write the header, read
//! the header. Everything else (keys, comparison, clocks) is shared, so that signing and verifying
//! cannot drift apart.

pub(crate) mod github;
pub(crate) mod hopae;
pub(crate) mod kore;
pub(crate) mod standard;

use std::fmt;
use std::str::FromStr;

use crate::error::SchemeError;

/// How a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Scheme {
    /// [Standard Webhooks](https://www.standardwebhooks.com), `v1` and `v1a`. The one to choose.
    Standard,
    /// Hopae Connect, `t=…,v1=…`: the form that Stripe uses, too.
    Hopae,
    /// KORE Wireless. Weak by construction (a plain digest without separators: it allows length
    /// extension, and bytes can move between URL and body): use it for compatibility only.
    Kore,
    /// GitHub, `sha256=…` over the body alone, without a timestamp.
    Github,
}

impl Scheme {
    /// Every scheme, in the order of their introduction.
    pub const ALL: [Self; 4] = [Self::Standard, Self::Hopae, Self::Kore, Self::Github];

    /// The name, as [`FromStr`] reads it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Hopae => "hopae",
            Self::Kore => "kore",
            Self::Github => "github",
        }
    }

    /// Whether one header can carry several signatures. Hopae's form could, but its published
    /// verifier keeps the last `v1` only.
    pub const fn carries_many_signatures(self) -> bool {
        match self {
            Self::Standard => true,
            Self::Hopae | Self::Kore | Self::Github => false,
        }
    }

    /// Whether a timestamp is signed, so that a receiver can refuse old requests.
    pub const fn is_timestamped(self) -> bool {
        match self {
            Self::Standard | Self::Hopae => true,
            Self::Kore | Self::Github => false,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Scheme {
    type Err = SchemeError;

    fn from_str(text: &str) -> Result<Self, SchemeError> {
        Self::ALL
            .into_iter()
            .find(|scheme| scheme.as_str() == text)
            .ok_or(SchemeError)
    }
}

/// The signed bytes as slices, so that nothing has to be copied together. Unused slots are empty.
pub(crate) type Parts<'a> = [&'a [u8]; 5];

/// A signature as it was found in a header, decoded.
#[derive(Clone, Copy)]
pub(crate) struct Presented {
    /// Its position in the header, counted over all signatures, known or not.
    pub(crate) position: u32,
    pub(crate) value: Value,
}

/// The decoded bytes of a signature.
#[derive(Clone, Copy)]
pub(crate) enum Value {
    /// HMAC-SHA256 or SHA-256.
    Digest([u8; 32]),
    /// Ed25519.
    Ed25519([u8; 64]),
}

impl Presented {
    /// The signature of a scheme that carries one.
    pub(crate) const fn only(digest: [u8; 32]) -> Self {
        Self {
            position: 0,
            value: Value::Digest(digest),
        }
    }
}

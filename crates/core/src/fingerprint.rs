//! How a secret's fingerprint is written into stored documents: its eight hex digits as text.
//!
//! `hookturn-verify` knows nothing of serde, so fields say
//! `#[serde(with = "crate::fingerprint")]` (or `crate::fingerprint::option`).

use std::borrow::Cow;

use hookturn_verify::Fingerprint;
use serde::{Deserialize, Deserializer, Serializer, de};

/// Writes the eight hex digits.
pub fn serialize<S: Serializer>(
    fingerprint: &Fingerprint,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(fingerprint)
}

/// Reads the eight hex digits.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
    parse(&Cow::<'de, str>::deserialize(deserializer)?)
}

fn parse<E: de::Error>(text: &str) -> Result<Fingerprint, E> {
    text.parse()
        .map_err(|_| E::custom("not a fingerprint: expected 8 hex digits"))
}

/// The same for a field that may be absent.
pub mod option {
    use super::{Cow, Deserialize, Deserializer, Fingerprint, Serializer, parse};

    /// Writes the eight hex digits, or nothing.
    pub fn serialize<S: Serializer>(
        fingerprint: &Option<Fingerprint>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match fingerprint {
            Some(fingerprint) => super::serialize(fingerprint, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads the eight hex digits, or nothing.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Fingerprint>, D::Error> {
        Option::<Cow<'de, str>>::deserialize(deserializer)?
            .map(|text| parse(&text))
            .transpose()
    }
}

//! Identifiers: UUID version 7 inside, a prefix and 26 characters outside.
//!
//! The text form is the kind's prefix, an underscore and the 128 bits in lowercase Crockford
//! base 32 (the ULID alphabet), for example `msg_01k9x6z8e5f3v9m2c7q4t1h0ab`. It sorts by creation
//! time, holds no dot (Standard Webhooks forbids one) and is what KORE documents for its secrets.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::Timestamp;

/// A source of unpredictable bytes, injected at the edge so that simulations can seed it.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` with cryptographically secure random data.
    fn fill(&self, bytes: &mut [u8]);
}

/// Draws `N` random bytes.
pub fn draw<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// Gives out times that never step back and ids that sort in the order they were asked for, also
/// within one millisecond: what keeps the order of acceptance on ordered endpoints.
#[derive(Debug, Default)]
pub struct Sequence {
    last: Mutex<(Timestamp, u32)>,
}

/// One place in a [`Sequence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The time of the place: `now`, or the latest time given out if the clock stepped back.
    pub at: Timestamp,
    counter: u32,
}

impl Sequence {
    const COUNTER_BITS: u32 = 26;

    /// The next place.
    pub fn next(&self, now: Timestamp) -> Place {
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *last = match *last {
            (at, _) if now > at => (now, 0),
            (at, counter) if counter + 1 < 1 << Self::COUNTER_BITS => (at, counter + 1),
            // 67 million ids in one millisecond: borrow the next one.
            (at, _) => (at.after(1), 0),
        };
        Place {
            at: last.0,
            counter: last.1,
        }
    }
}

impl Place {
    /// Ten bytes for a version 7 UUID: the counter in the 26 highest free bits, then random ones.
    /// The UUID's version overlays the upper half of byte 0, its variant two bits of byte 2.
    fn ordered_bytes(self, entropy: &dyn Entropy) -> [u8; 10] {
        let mut bytes: [u8; 10] = draw(entropy);
        let [.., high, low] = (self.counter >> 14).to_be_bytes();
        bytes[0] = high;
        bytes[1] = low;
        let [.., six, eight] = (self.counter & 0x3fff).to_be_bytes();
        bytes[2] = six;
        bytes[3] = eight;
        bytes
    }
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_LEN: usize = 26;

fn encode(bits: u128) -> [u8; TEXT_LEN] {
    let mut text = [0; TEXT_LEN];
    for (position, place) in text.iter_mut().enumerate() {
        let shift = 5 * (TEXT_LEN - 1 - position);
        *place = ALPHABET[(bits >> shift) as usize & 31];
    }
    text
}

fn decode(text: &[u8]) -> Option<u128> {
    // The first character carries three bits; a larger one would not fit into 128.
    if text.len() != TEXT_LEN || !(b'0'..=b'7').contains(&text[0]) {
        return None;
    }
    text.iter().try_fold(0_u128, |bits, letter| {
        let digit = ALPHABET.iter().position(|known| known == letter)?;
        Some(bits << 5 | digit as u128)
    })
}

/// The text is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind} id: expected `{prefix}_` and 26 characters of 0-9 a-z")]
pub struct ParseIdError {
    /// What kind of thing the id should have named.
    pub kind: &'static str,
    /// The prefix that this kind carries.
    pub prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The prefix of the text form, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id that sorts by `now`; two of the same millisecond differ by 74 random bits.
            pub fn new(now: Timestamp, entropy: &dyn Entropy) -> Self {
                let millis = now.as_millis().cast_unsigned();
                let id = uuid::Builder::from_unix_timestamp_millis(millis, &draw(entropy));
                Self(id.into_uuid().as_u128())
            }

            /// A new id that sorts after all ids of earlier places of the same sequence.
            pub fn at_place(place: Place, entropy: &dyn Entropy) -> Self {
                let millis = place.at.as_millis().cast_unsigned();
                let random = place.ordered_bytes(entropy);
                let id = uuid::Builder::from_unix_timestamp_millis(millis, &random);
                Self(id.into_uuid().as_u128())
            }

            /// The 16 bytes that stores keep, in sorting order.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// The inverse of `to_bytes`.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }

            /// When the id was made, as its first 48 bits say.
            pub const fn created_at(self) -> Timestamp {
                Timestamp::from_millis((self.0 >> 80) as i64)
            }

            /// The smallest id that could have been made at `time`: a bound for range queries.
            pub const fn first_at(time: Timestamp) -> Self {
                Self((time.as_millis().cast_unsigned() as u128) << 80)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = encode(self.0);
                f.write_str(concat!($prefix, "_"))?;
                f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(|rest| decode(rest.as_bytes()))
                    .map(Self)
                    .ok_or(ParseIdError { kind: $kind, prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.to_bytes().serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if !deserializer.is_human_readable() {
                    return <[u8; 16]>::deserialize(deserializer).map(Self::from_bytes);
                }
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A customer account of the operator.
    WorkspaceId = "ws", "workspace";
    /// An API key (never its text).
    ApiKeyId = "key", "API key";
    /// A URL of an app.
    EndpointId = "ep", "endpoint";
    /// The secrets that sign for one endpoint or for many.
    KeyringId = "kr", "keyring";
    /// One version of a signing key. The prefix is the one KORE documents.
    SecretId = "whs", "secret";
    /// A move of a keyring from one active secret to the next.
    RotationId = "rot", "rotation";
    /// Many rotations that were asked for at once.
    BulkId = "blk", "bulk rotation";
    /// A rule by which rotations are opened.
    ScheduleId = "sch", "schedule";
    /// One accepted event.
    MessageId = "msg", "message";
    /// One message for one endpoint.
    DeliveryId = "dlv", "delivery";
}

/// The public name of an app (`clientId`): eight letters and digits, unique in its workspace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId([u8; 8]);

impl ClientId {
    /// Sorts before every client id: a bound for range queries.
    pub const FIRST: Self = Self([0; 8]);

    /// A new random client id: 8 of 62 characters, 47 bits.
    pub fn new(entropy: &dyn Entropy) -> Self {
        const LETTERS: &[u8; 62] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut text = [0; 8];
        let mut filled = 0;
        while filled < text.len() {
            for byte in draw::<16>(entropy) {
                // 248 is the largest multiple of 62 below 256: larger bytes would favour letters.
                if byte < 248 && filled < text.len() {
                    text[filled] = LETTERS[usize::from(byte) % 62];
                    filled += 1;
                }
            }
        }
        Self(text)
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for ClientId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = ParseIdError {
            kind: "client",
            prefix: "8 letters or digits, no prefix",
        };
        let bytes: [u8; 8] = text.as_bytes().try_into().map_err(|_| error.clone())?;
        if bytes.iter().all(u8::is_ascii_alphanumeric) {
            Ok(Self(bytes))
        } else {
            Err(error)
        }
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ClientId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ClientId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Counting;
    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            for (value, byte) in (0_u8..).zip(bytes) {
                *byte = value.wrapping_mul(37);
            }
        }
    }

    #[test]
    fn ids_carry_their_time() {
        let now = Timestamp::from_millis(1_784_505_600_123);
        let id = MessageId::new(now, &Counting);
        assert_eq!(id.created_at(), now);
        assert!(MessageId::first_at(now) <= id);
        assert!(id < MessageId::first_at(now.after(1)));
    }

    #[test]
    fn ids_of_a_sequence_sort_in_the_order_they_were_asked_for() {
        let sequence = Sequence::default();
        let now = Timestamp::from_millis(1_784_505_600_123);
        let mut last = MessageId::at_place(sequence.next(now), &Counting);
        for step in 0..40_000_u64 {
            // The clock stands still, steps back and goes on.
            let clock = if step % 3 == 0 {
                now.before(50)
            } else {
                now.after(step / 1_000)
            };
            let next = MessageId::at_place(sequence.next(clock), &Counting);
            assert!(next > last, "step {step}");
            last = next;
        }
    }

    #[test]
    fn a_client_id_is_eight_letters_or_digits() {
        let id = ClientId::new(&Counting);
        assert_eq!(id.to_string().parse::<ClientId>().unwrap(), id);
        assert!("HqTRDIY".parse::<ClientId>().is_err());
        assert!("HqTRDIY-".parse::<ClientId>().is_err());
    }

    proptest! {
        #[test]
        fn text_round_trips_and_sorts_like_bytes(a in any::<u128>(), b in any::<u128>()) {
            let (x, y) = (SecretId(a), SecretId(b));
            prop_assert_eq!(x.to_string().parse::<SecretId>().unwrap(), x);
            prop_assert_eq!(SecretId::from_bytes(x.to_bytes()), x);
            prop_assert_eq!(x.to_string().cmp(&y.to_string()), x.cmp(&y));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<MessageId>();
            let _ = text.parse::<ClientId>();
        }
    }
}

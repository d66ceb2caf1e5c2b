//! Secrets, public keys and fingerprints.
//!
//! A [`Secret`] keeps its text, because three of the four schemes sign with the text itself, and
//! the decoded key where there is one. It never prints itself: `Debug` shows the fingerprint, and
//! [`Secret::expose`] is the one way to the text.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::encoding::{decode_base64, decode_base64_exact, decode_hex, push_base64, push_hex};
use crate::error::{FingerprintError, SecretError};
use crate::scheme::Scheme;

const SYMMETRIC_PREFIX: &str = "whsec_";
const SIGNING_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";

/// The longest secret, in characters of its text. The longest real ones have 95.
const MAX_TEXT_CHARS: usize = 512;
/// What Standard Webhooks allows for the decoded key, in bytes.
const STANDARD_KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// One signing key in its text form.
///
/// `Debug` shows the fingerprint, comparison takes constant time, and the memory is wiped on drop.
#[derive(Clone)]
pub struct Secret {
    text: Zeroizing<String>,
    key: Key,
    fingerprint: Fingerprint,
}

/// What the text decodes to.
#[derive(Clone)]
enum Key {
    /// The text is the key, and nothing else.
    Text,
    /// `whsec_` and valid base64 of any length.
    Decoded(Zeroizing<Vec<u8>>),
    /// `whsk_`. The key wipes itself.
    Ed25519(Box<SigningKey>),
}

impl Secret {
    /// Reads a secret: any text of 1 to 512 characters without control characters.
    ///
    /// A text that starts with `whsk_` must be an Ed25519 key pair (base64 of the 32 byte seed and
    /// the 32 byte public key), and `whpk_`, which is a public key, is refused. Everything else is
    /// accepted here; whether a scheme can use it, [`Secret::usable_for`] tells.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        if text.is_empty() {
            return Err(SecretError::Empty);
        }
        if text.chars().count() > MAX_TEXT_CHARS {
            return Err(SecretError::TooLong {
                characters: text.chars().count(),
                limit: MAX_TEXT_CHARS,
            });
        }
        if text.chars().any(char::is_control) {
            return Err(SecretError::ControlCharacter);
        }
        if text.starts_with(PUBLIC_PREFIX) {
            return Err(SecretError::PublicKeyNotSecret);
        }
        if let Some(encoded) = text.strip_prefix(SIGNING_PREFIX) {
            let key = signing_key(encoded)?;
            return Ok(Self::from_signing_key(text.to_owned(), key));
        }
        let key = text
            .strip_prefix(SYMMETRIC_PREFIX)
            .and_then(decode_key)
            .map_or(Key::Text, Key::Decoded);
        let fingerprint = Fingerprint::of(text.as_bytes());
        Ok(Self {
            text: Zeroizing::new(text.to_owned()),
            key,
            fingerprint,
        })
    }

    /// Makes a symmetric secret that every scheme accepts: `whsec_` and 64 lowercase hex digits.
    ///
    /// `random` must come from a cryptographic generator.
    pub fn generate(mut random: [u8; 32]) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(SYMMETRIC_PREFIX.len() + 64));
        text.push_str(SYMMETRIC_PREFIX);
        push_hex(&mut text, &random);
        random.zeroize();
        // 64 hex digits are base64 of 48 bytes without padding.
        let key = decode_key(&text[SYMMETRIC_PREFIX.len()..]).map_or(Key::Text, Key::Decoded);
        let fingerprint = Fingerprint::of(text.as_bytes());
        Self {
            text,
            key,
            fingerprint,
        }
    }

    /// Makes an Ed25519 secret, `whsk_…`, for Standard Webhooks.
    ///
    /// `seed` must come from a cryptographic generator.
    pub fn generate_ed25519(mut seed: [u8; 32]) -> Self {
        let key = SigningKey::from_bytes(&seed);
        seed.zeroize();
        let pair = Zeroizing::new(key.to_keypair_bytes());
        let mut text = String::with_capacity(SIGNING_PREFIX.len() + 88);
        text.push_str(SIGNING_PREFIX);
        push_base64(&mut text, pair.as_slice());
        Self::from_signing_key(text, key)
    }

    /// Whether the scheme can sign with this secret.
    ///
    /// Standard Webhooks needs `whsec_` and base64 of 24 to 64 bytes, or `whsk_`. The other
    /// schemes take any text that is not an Ed25519 key.
    pub fn usable_for(&self, scheme: Scheme) -> Result<(), SecretError> {
        match (&self.key, scheme) {
            (Key::Ed25519(_), Scheme::Standard) => Ok(()),
            (Key::Ed25519(_), _) => Err(SecretError::Ed25519NotInScheme { scheme }),
            (_, Scheme::Standard) => self.standard_key().map(|_| ()),
            (_, Scheme::Hopae | Scheme::Kore | Scheme::Github) => Ok(()),
        }
    }

    /// The text. The one way to read it: search for this name to see where secrets go.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The short public name of this secret.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The public half of an Ed25519 secret.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.signing_key().map(|key| PublicKey(key.verifying_key()))
    }

    pub(crate) fn signing_key(&self) -> Option<&SigningKey> {
        match &self.key {
            Key::Ed25519(key) => Some(key),
            Key::Text | Key::Decoded(_) => None,
        }
    }

    /// The symmetric key as Standard Webhooks decodes it.
    pub(crate) fn standard_key(&self) -> Result<&[u8], SecretError> {
        match &self.key {
            Key::Decoded(key) if STANDARD_KEY_BYTES.contains(&key.len()) => Ok(key),
            Key::Decoded(key) => Err(SecretError::KeyLength { bytes: key.len() }),
            Key::Text if self.text.starts_with(SYMMETRIC_PREFIX) => Err(SecretError::Base64),
            Key::Text | Key::Ed25519(_) => Err(SecretError::Prefix),
        }
    }

    fn from_signing_key(text: String, key: SigningKey) -> Self {
        let fingerprint = PublicKey(key.verifying_key()).fingerprint();
        Self {
            text: Zeroizing::new(text),
            key: Key::Ed25519(Box::new(key)),
            fingerprint,
        }
    }
}

/// Decodes what follows `whsec_`; `None` when it is not padded standard base64.
fn decode_key(encoded: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new([0; MAX_TEXT_CHARS]);
    let length = decode_base64(encoded.as_bytes(), buffer.as_mut_slice())?;
    Some(Zeroizing::new(buffer[..length].to_vec()))
}

fn signing_key(encoded: &str) -> Result<SigningKey, SecretError> {
    let pair = decode_base64_exact::<64>(encoded.as_bytes())
        .map(Zeroizing::new)
        .ok_or(SecretError::Ed25519Key {
            what: "whsk_ must be followed by the base64 of 64 bytes",
        })?;
    SigningKey::from_keypair_bytes(&pair).map_err(|_| SecretError::Ed25519Key {
        what: "its public half does not belong to its private half",
    })
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.text.as_bytes().ct_eq(other.text.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.fingerprint)
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        Self::parse(text)
    }
}

/// The public half of an Ed25519 secret, `whpk_…`: verifies, cannot sign.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The short public name, the same as that of the secret it belongs to.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.to_string().as_bytes())
    }

    pub(crate) fn verifying_key(&self) -> &VerifyingKey {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(PUBLIC_PREFIX.len() + 44);
        text.push_str(PUBLIC_PREFIX);
        push_base64(&mut text, self.0.as_bytes());
        f.pad(&text)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let refuse = |what| SecretError::PublicKey { what };
        let encoded = text
            .strip_prefix(PUBLIC_PREFIX)
            .ok_or(refuse("it must start with whpk_"))?;
        let bytes = decode_base64_exact::<32>(encoded.as_bytes())
            .ok_or(refuse("whpk_ must be followed by the base64 of 32 bytes"))?;
        let key =
            VerifyingKey::from_bytes(&bytes).map_err(|_| refuse("it is no point of the curve"))?;
        if key.is_weak() {
            return Err(refuse("it is a weak point, under which anyone can sign"));
        }
        Ok(Self(key))
    }
}

/// The first four bytes of SHA-256 of a secret's text: shown wherever a secret is meant.
///
/// For an Ed25519 secret it is taken of the `whpk_` text, so that both sides can compare. It
/// names a secret; it proves nothing. For a secret that people thought up it helps guessing, as
/// any hash does; generated ones have nothing to fear.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 4]);

impl Fingerprint {
    /// Takes the four bytes as they were stored.
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The four bytes.
    pub const fn to_bytes(self) -> [u8; 4] {
        self.0
    }

    fn of(text: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(text).into();
        let [a, b, c, d, ..] = digest;
        Self([a, b, c, d])
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(8);
        push_hex(&mut text, &self.0);
        f.pad(&text)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        decode_hex(text.as_bytes())
            .map(Self)
            .ok_or(FingerprintError)
    }
}

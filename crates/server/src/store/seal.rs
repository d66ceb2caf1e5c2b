//! Sealing: how secrets and idempotent answers rest on disk.
//!
//! A box is XChaCha20-Poly1305 under a 256-bit master key. Its associated data names the place it
//! belongs to, so that a box copied to another row does not open.
//!
//! ```text
//! byte 0        format, 1
//! bytes 1..9    id of the master key (8 bytes of a hash of it)
//! bytes 9..33   nonce, random
//! bytes 33..    ciphertext and 16-byte tag
//! ```
//!
//! There is one *current* master key, which seals, and any number of others, which only open. Which one is current
//! is said by the store: it keeps a box ([`CHECK`]) that the current key sealed. So servers that share a store seal with
//! the same key, in whatever order theirs were given, and a key that was given is not used before
//! `hookturn master-key rotate` made it current. That command then seals everything again.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hookturn_core::id::{Entropy, draw};
use hookturn_core::store::{IdempotencyKey, SealedSecret};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Under this name a store keeps the box whose key is current: it opens with a master key that fits.
pub const CHECK: &str = "master_key_check";

const FORMAT: u8 = 1;
const KEY_ID: std::ops::Range<usize> = 1..9;
const NONCE: std::ops::Range<usize> = 9..33;
const TAG_BYTES: usize = 16;
/// By how much a box is longer than what is in it.
pub(in crate::store) const BOX_BYTES: usize = NONCE.end + TAG_BYTES;
/// Tells boxes apart: no two have the same nonce.
pub(in crate::store) type Nonce = [u8; 24];

/// The nonce of a box; none if it is not a box.
pub(in crate::store) fn nonce_of(sealed: &[u8]) -> Option<Nonce> {
    sealed.get(NONCE)?.try_into().ok()
}

/// A 256-bit master key. Shows only its id; wiped on drop.
#[derive(Clone)]
pub struct MasterKey {
    id: [u8; 8],
    bytes: Zeroizing<[u8; 32]>,
}

/// The text is not a master key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a master key is 64 hexadecimal digits (make one with `openssl rand -hex 32`)")]
pub struct ParseMasterKeyError;

impl MasterKey {
    /// A new random key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::from_bytes(draw(entropy))
    }

    fn from_bytes(bytes: [u8; 32]) -> Self {
        let digest = Sha256::new()
            .chain_update(b"hookturn master key id\0")
            .chain_update(bytes)
            .finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        Self {
            id,
            bytes: Zeroizing::new(bytes),
        }
    }

    /// Reads a list of keys: texts of 64 hexadecimal digits separated by commas or white space, the
    /// current one first.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ParseMasterKeyError> {
        let mut keys = Vec::new();
        for word in text
            .split([',', ' ', '\n', '\r', '\t'])
            .filter(|word| !word.is_empty())
        {
            let mut bytes = Zeroizing::new([0; 32]);
            hex::decode_to_slice(word, bytes.as_mut()).map_err(|_| ParseMasterKeyError)?;
            keys.push(Self::from_bytes(*bytes));
        }
        if keys.is_empty() {
            Err(ParseMasterKeyError)
        } else {
            Ok(keys)
        }
    }

    /// The text form, for the key file only.
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.bytes.as_ref()))
    }

    /// The id that boxes carry, as 16 hexadecimal digits.
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id())
    }
}

/// What a store has of boxes under one master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedUnder {
    /// The id of the key.
    pub key_id: String,
    /// Secrets, and the key of their marks.
    pub secrets: u64,
    /// Idempotent answers that did not expire.
    pub answers: u64,
}

/// Where a box belongs: its associated data.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// The value of a secret; every field but `sealed` is bound.
    Secret(&'a SealedSecret),
    /// An idempotent answer.
    Answer(IdempotencyKey),
    /// The constant that tells whether a master key fits a store.
    Check,
    /// A session of the dashboard, which its browser keeps.
    Session,
    /// The key of the marks by which secrets are found.
    MarkKey,
    /// Due rows that one node tells the others of. A box of another layout has another place.
    Told,
}

impl Place<'_> {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Secret(secret) => [
                b"hookturn secret 1\0".as_slice(),
                &secret.workspace.to_bytes(),
                &secret.keyring.to_bytes(),
                &secret.secret.to_bytes(),
                &secret.version.to_be_bytes(),
            ]
            .concat(),
            Self::Answer(key) => [b"hookturn answer 1\0".as_slice(), &key.0].concat(),
            Self::Check => b"hookturn check 1\0".to_vec(),
            Self::Session => b"hookturn session 1\0".to_vec(),
            Self::MarkKey => b"hookturn mark key 1\0".to_vec(),
            Self::Told => b"hookturn told 1\0".to_vec(),
        }
    }
}

/// Why a box does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Sealed under a key that is not in the list.
    #[error("sealed under master key {key_id}, which is not configured")]
    UnknownKey {
        /// The id in the box's header.
        key_id: String,
    },
    /// Not a box, or of a newer format.
    #[error("not a sealed box of a known format")]
    Format,
    /// Damaged, or moved from another place.
    #[error("the sealed box is damaged or belongs to another place")]
    Damaged,
}

/// The id of the master key that a box is sealed under; none if it is not a box.
pub fn key_of(sealed: &[u8]) -> Option<String> {
    let is_box = sealed.first() == Some(&FORMAT) && sealed.len() >= BOX_BYTES;
    is_box.then(|| hex::encode(&sealed[KEY_ID]))
}

/// Seals under the current master key, opens under any configured one.
pub struct Sealer {
    keys: RwLock<Arc<[MasterKey]>>,
    /// The id of the current key if it was not given.
    missing: RwLock<Option<String>>,
    entropy: Arc<dyn Entropy>,
}

impl Sealer {
    /// `keys` must not be empty; the first is current.
    pub fn new(keys: Vec<MasterKey>, entropy: Arc<dyn Entropy>) -> Self {
        assert!(!keys.is_empty(), "a sealer needs a master key");
        Self {
            keys: RwLock::new(keys.into()),
            missing: RwLock::default(),
            entropy,
        }
    }

    fn keys(&self) -> Arc<[MasterKey]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the list; the first is current.
    pub fn replace_keys(&self, keys: Vec<MasterKey>) {
        assert!(!keys.is_empty(), "a sealer needs a master key");
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
        self.lacks(None);
    }

    fn lacks(&self, missing: Option<String>) {
        *self.missing.write().unwrap_or_else(PoisonError::into_inner) = missing;
    }

    /// The key of this box, which the store keeps as [`CHECK`], is current from now on. One that was not given is
    /// remembered as [missing](Self::missing).
    pub fn follow(&self, check: &[u8]) {
        let Some(id) = key_of(check) else {
            return;
        };
        let mut keys = self.master_keys();
        match keys.iter().position(|key| key.id() == id) {
            Some(place) => {
                keys[..=place].rotate_right(1);
                self.replace_keys(keys);
            }
            None => self.lacks(Some(id)),
        }
    }

    /// The id of the current key, if it is not among those that were given: nothing may be sealed then, and what is
    /// sealed anew cannot be opened.
    pub fn missing(&self) -> Option<String> {
        let missing = self.missing.read();
        missing.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configured keys, the current one first.
    pub fn master_keys(&self) -> Vec<MasterKey> {
        self.keys().to_vec()
    }

    /// Seals `plain` for `place`.
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
        self.seal_under(&self.keys()[0], place, plain)
    }

    /// The box by which a store says that this key is current.
    pub fn check_of(&self, key: &MasterKey) -> Vec<u8> {
        self.seal_under(key, Place::Check, b"hookturn")
    }

    fn seal_under(&self, key: &MasterKey, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
        let nonce: Nonce = draw(self.entropy.as_ref());
        let payload = Payload {
            msg: plain,
            aad: &place.bytes(),
        };
        let sealed = XChaCha20Poly1305::new((&*key.bytes).into())
            .encrypt(&XNonce::from(nonce), payload)
            .unwrap_or_else(|_| {
                unreachable!("a secret is far shorter than the cipher's limit of 256 GiB")
            });
        [&[FORMAT], key.id.as_slice(), &nonce, &sealed].concat()
    }

    /// Opens a box that was sealed for `place`.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if sealed.first() != Some(&FORMAT) || sealed.len() < BOX_BYTES {
            return Err(OpenError::Format);
        }
        let keys = self.keys();
        let key = keys
            .iter()
            .find(|key| key.id == sealed[KEY_ID])
            .ok_or_else(|| OpenError::UnknownKey {
                key_id: hex::encode(&sealed[KEY_ID]),
            })?;
        let nonce = nonce_of(sealed).ok_or(OpenError::Format)?;
        let payload = Payload {
            msg: &sealed[NONCE.end..],
            aad: &place.bytes(),
        };
        XChaCha20Poly1305::new((&*key.bytes).into())
            .decrypt(&XNonce::from(nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| OpenError::Damaged)
    }

    /// Whether a box is sealed under one of the keys.
    pub fn knows(&self, sealed: &[u8]) -> bool {
        let keys = self.keys();
        sealed.len() > KEY_ID.end && keys.iter().any(|key| key.id == sealed[KEY_ID])
    }

    /// Whether a box is sealed under the current key.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        sealed.len() > KEY_ID.end && sealed[KEY_ID] == self.keys()[0].id
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("keys", &self.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::SystemEntropy;
    use hookturn_core::id::{KeyringId, SecretId, WorkspaceId};

    fn sealer() -> Sealer {
        let entropy = Arc::new(SystemEntropy);
        Sealer::new(vec![MasterKey::generate(entropy.as_ref())], entropy)
    }

    fn secret(version: u32) -> SealedSecret {
        SealedSecret {
            workspace: WorkspaceId::from_bytes([1; 16]),
            keyring: KeyringId::from_bytes([2; 16]),
            secret: SecretId::from_bytes([3; 16]),
            version,
            sealed: Arc::from([]),
        }
    }

    #[test]
    fn g8_a_box_opens_only_in_its_place_and_under_its_key() {
        let sealer = sealer();
        let closed = sealer.seal(Place::Secret(&secret(1)), b"whsec_planted");
        assert!(!closed.windows(7).any(|window| window == b"planted"));
        assert_eq!(
            &**sealer.open(Place::Secret(&secret(1)), &closed).unwrap(),
            b"whsec_planted"
        );
        assert_eq!(
            sealer.open(Place::Secret(&secret(2)), &closed),
            Err(OpenError::Damaged)
        );
        assert_eq!(sealer.open(Place::Check, &closed), Err(OpenError::Damaged));
        let stranger = self::sealer();
        assert!(matches!(
            stranger.open(Place::Secret(&secret(1)), &closed),
            Err(OpenError::UnknownKey { .. })
        ));
    }

    #[test]
    fn a_damaged_box_never_opens() {
        let sealer = sealer();
        let closed = sealer.seal(Place::Check, b"hello");
        for position in 0..closed.len() {
            let mut damaged = closed.clone();
            damaged[position] ^= 1;
            assert!(
                sealer.open(Place::Check, &damaged).is_err(),
                "byte {position}"
            );
        }
        for length in 0..closed.len() {
            assert!(
                sealer.open(Place::Check, &closed[..length]).is_err(),
                "cut at {length}"
            );
        }
    }

    #[test]
    fn older_keys_open_and_the_first_seals() {
        let sealer = sealer();
        let old = sealer.seal(Place::Check, b"x");
        let mut keys = sealer.master_keys();
        keys.insert(0, MasterKey::generate(&SystemEntropy));
        sealer.replace_keys(keys);
        assert!(!sealer.is_current(&old));
        assert!(sealer.open(Place::Check, &old).is_ok());
        assert!(sealer.is_current(&sealer.seal(Place::Check, b"x")));
    }

    #[test]
    fn the_key_of_the_stores_box_seals_whatever_the_order_they_were_given_in() {
        let [a, b, c] = [0; 3].map(|_| MasterKey::generate(&SystemEntropy));
        let keys = vec![a.clone(), b.clone(), c.clone()];
        let sealer = Sealer::new(keys, Arc::new(SystemEntropy));
        let elsewhere = Sealer::new(vec![b.clone()], Arc::new(SystemEntropy));
        sealer.follow(&elsewhere.check_of(&b));
        let ids: Vec<_> = sealer.master_keys().iter().map(MasterKey::id).collect();
        assert_eq!(ids, [b.id(), a.id(), c.id()]);
        let sealed = sealer.seal(Place::Check, b"x");
        assert_eq!(key_of(&sealed), Some(b.id()));
        assert!(elsewhere.knows(&sealed) && sealer.missing().is_none());
        // One that was not given.
        elsewhere.follow(&sealer.check_of(&c));
        assert_eq!(elsewhere.missing(), Some(c.id()));
        elsewhere.follow(&sealed);
        assert_eq!(elsewhere.missing(), None);
    }

    #[test]
    fn debug_shows_ids_only() {
        let key = MasterKey::generate(&SystemEntropy);
        let text = key.expose();
        assert!(!format!("{key:?}").contains(&text[..16]) || key.id() == text[..16]);
        assert_eq!(MasterKey::parse_list(&text).unwrap()[0].id(), key.id());
        assert!(MasterKey::parse_list("not hex").is_err());
    }
}

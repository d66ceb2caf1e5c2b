//! Signing: a [`Signer`] is a key made ready for one scheme, [`sign`] writes the header value.
//!
//! The hot path of a sender: one allocation per request, for the header itself.

use std::fmt;

use ed25519_dalek::ed25519::signature::MultipartSigner as _;
use ed25519_dalek::{Signature, SigningKey};

use crate::encoding::Decimal;
use crate::error::{SecretError, SignError};
use crate::key::Keyed;
use crate::scheme::{Parts, Scheme, Value, github, hopae, kore, standard};
use crate::secret::{Fingerprint, Secret};

/// A secret made ready to sign in one scheme. Make it once, use it for every request.
#[derive(Clone)]
pub struct Signer {
    scheme: Scheme,
    fingerprint: Fingerprint,
    key: Key,
}

#[derive(Clone)]
enum Key {
    Keyed(Keyed),
    Ed25519(Box<SigningKey>),
}

impl Signer {
    /// Expands the secret for the scheme; fails as [`Secret::usable_for`] does.
    pub fn new(scheme: Scheme, secret: &Secret) -> Result<Self, SecretError> {
        secret.usable_for(scheme)?;
        let key = match secret.signing_key() {
            Some(key) => Key::Ed25519(Box::new(key.clone())),
            None => Key::Keyed(Keyed::new(scheme, secret)?),
        };
        Ok(Self {
            scheme,
            fingerprint: secret.fingerprint(),
            key,
        })
    }

    /// The scheme this key signs in.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The short public name of the secret.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The signature in a scheme that knows digests alone.
    fn digest(&self, parts: &Parts<'_>) -> Result<[u8; 32], SignError> {
        match &self.key {
            Key::Keyed(key) => Ok(key.digest(parts)),
            // `new` makes Ed25519 signers for the standard scheme only.
            Key::Ed25519(_) => Err(SignError::SchemeMismatch {
                scheme: self.scheme,
                signer: Scheme::Standard,
            }),
        }
    }

    /// The signature in the standard scheme.
    fn value(&self, parts: &Parts<'_>) -> Value {
        match &self.key {
            Key::Keyed(key) => Value::Digest(key.digest(parts)),
            Key::Ed25519(key) => {
                let signature: Signature = key.multipart_sign(parts);
                Value::Ed25519(signature.to_bytes())
            }
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, {})", self.scheme, self.fingerprint)
    }
}

/// What is signed. A scheme reads the fields it signs and ignores the others.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// Message id, the same over all retries: visible ASCII without a dot (`standard`).
    pub id: &'a str,
    /// Time of this attempt in Unix seconds, not negative (`standard`, `hopae`).
    pub timestamp: i64,
    /// Method of the request; signed in capitals (`kore`).
    pub method: &'a str,
    /// The URL as it was configured, not as a parser writes it (`kore`).
    pub url: &'a str,
    /// The very bytes on the wire.
    pub body: &'a [u8],
}

/// Signs, and returns the value of the signature header.
///
/// Standard Webhooks takes any number of keys and writes their signatures in the same order,
/// joined by exactly one space; the other schemes take exactly one.
pub fn sign(
    scheme: Scheme,
    signers: &[&Signer],
    content: &Content<'_>,
) -> Result<String, SignError> {
    let Some(first) = signers.first() else {
        return Err(SignError::NoSigner);
    };
    if signers.len() > 1 && !scheme.carries_many_signatures() {
        return Err(SignError::OneSignatureOnly {
            scheme,
            signers: signers.len(),
        });
    }
    if let Some(stranger) = signers.iter().find(|signer| signer.scheme != scheme) {
        return Err(SignError::SchemeMismatch {
            scheme,
            signer: stranger.scheme,
        });
    }
    match scheme {
        Scheme::Standard => sign_standard(signers, content),
        Scheme::Hopae => {
            let timestamp = Decimal::new(content.timestamp).ok_or(SignError::Timestamp)?;
            let digest = first.digest(&hopae::parts(timestamp.as_bytes(), content.body))?;
            Ok(hopae::write(&timestamp, &digest))
        }
        Scheme::Kore => {
            if content.method.is_empty() || kore::signed_url(content.url).is_empty() {
                return Err(SignError::Target);
            }
            let method = kore::signed_method(content.method);
            let digest = first.digest(&kore::parts(&method, content.url, content.body))?;
            Ok(kore::write(&digest))
        }
        Scheme::Github => Ok(github::write(&first.digest(&github::parts(content.body))?)),
    }
}

fn sign_standard(signers: &[&Signer], content: &Content<'_>) -> Result<String, SignError> {
    if !standard::is_id(content.id.as_bytes()) {
        return Err(SignError::Id);
    }
    let timestamp = Decimal::new(content.timestamp).ok_or(SignError::Timestamp)?;
    let parts = standard::parts(content.id, timestamp.as_bytes(), content.body);
    // `v1,` and 44 digits of base64, and a space; Ed25519 signatures are longer and grow the text.
    let mut out = String::with_capacity(signers.len() * 48);
    for signer in signers {
        standard::push_token(&mut out, &signer.value(&parts));
    }
    Ok(out)
}

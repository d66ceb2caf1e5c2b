//! Keys in the form that computing needs: absorbed into a hash state once, then only copied.
//!
//! Copying an initialised HMAC state saves two of the compressions that every signature would
//! otherwise repeat. The states wipe themselves on drop.

use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::ZeroizeOnDrop;

use crate::error::SecretError;
use crate::scheme::{Parts, Scheme};
use crate::secret::Secret;

type HmacSha256 = Hmac<Sha256>;

/// Fails to compile when a dependency is built without the feature that wipes its keys. `Hmac` has
/// no such mark of its own; it is two SHA-256 states and their buffer, which the mark covers.
const _: () = {
    const fn wiped_on_drop<T: ZeroizeOnDrop>() {}
    wiped_on_drop::<Sha256>();
    wiped_on_drop::<SigningKey>();
};

/// A hash state that has absorbed a symmetric key.
#[derive(Clone)]
pub(crate) enum Keyed {
    /// HMAC-SHA256.
    Mac(HmacSha256),
    /// SHA-256 of the secret and what follows it.
    Prefix(Sha256),
}

impl Keyed {
    /// Absorbs the secret as the scheme prescribes. The caller has dealt with Ed25519 already.
    pub(crate) fn new(scheme: Scheme, secret: &Secret) -> Result<Self, SecretError> {
        let text = secret.expose().as_bytes();
        match scheme {
            Scheme::Standard => secret.standard_key().and_then(mac),
            Scheme::Hopae | Scheme::Github => mac(text),
            Scheme::Kore => Ok(Self::Prefix(Sha256::new_with_prefix(text))),
        }
    }

    pub(crate) fn digest(&self, parts: &Parts<'_>) -> [u8; 32] {
        match self {
            Self::Mac(state) => {
                let mut state = state.clone();
                for part in parts {
                    state.update(part);
                }
                state.finalize().into_bytes().into()
            }
            Self::Prefix(state) => {
                let mut state = state.clone();
                for part in parts {
                    state.update(part);
                }
                state.finalize().into()
            }
        }
    }
}

fn mac(key: &[u8]) -> Result<Keyed, SecretError> {
    // HMAC takes keys of every length; the type does not say so.
    HmacSha256::new_from_slice(key)
        .map(Keyed::Mac)
        .map_err(|_| SecretError::KeyLength { bytes: key.len() })
}

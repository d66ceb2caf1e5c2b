//! Signing keys in memory: opened and expanded once per secret and scheme.
//!
//! The cache never decides whether a key may sign: the signing plan does, on every exchange. It only
//! holds what the plan asked for before, and forgets what the store no longer has.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use hookturn_core::id::SecretId;
use hookturn_core::rotation::Keyring;
use hookturn_verify::{Scheme, Secret, Signer};

use crate::store::live::Live;
use crate::store::seal::{OpenError, Place, Sealer};

/// Entries from which the cache looks for secrets that are gone.
const SWEEP_FROM: usize = 1_024;

/// Expanded signing keys by secret and scheme.
pub struct KeyCache {
    sealer: Arc<Sealer>,
    signers: RwLock<Cached>,
}

#[derive(Default)]
struct Cached {
    by_secret: HashMap<(SecretId, Scheme), Arc<Signer>>,
    sweep_at: usize,
}

/// Why a secret cannot sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Its value is not in the store.
    #[error("the value of secret {secret} is not in the store")]
    Missing {
        /// Which secret.
        secret: SecretId,
    },
    /// Its sealed value does not open.
    #[error("the value of secret {secret} cannot be opened")]
    Sealed {
        /// Which secret.
        secret: SecretId,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// Its value does not fit the scheme.
    #[error("secret {secret} does not fit scheme {scheme}")]
    Unfit {
        /// Which secret.
        secret: SecretId,
        /// Which scheme.
        scheme: Scheme,
        /// Why.
        #[source]
        source: hookturn_verify::SecretError,
    },
}

impl KeyCache {
    /// An empty cache.
    pub fn new(sealer: Arc<Sealer>) -> Self {
        Self {
            sealer,
            signers: RwLock::default(),
        }
    }

    /// The signers of `keys`, in their order.
    pub fn signers(
        &self,
        live: &Live,
        keyring: &Keyring,
        scheme: Scheme,
        keys: &[SecretId],
    ) -> Result<Vec<Arc<Signer>>, KeyError> {
        keys.iter()
            .map(|key| self.signer(live, keyring, scheme, *key))
            .collect()
    }

    fn signer(
        &self,
        live: &Live,
        keyring: &Keyring,
        scheme: Scheme,
        secret: SecretId,
    ) -> Result<Arc<Signer>, KeyError> {
        let known = self.signers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(signer) = known.by_secret.get(&(secret, scheme)) {
            return Ok(Arc::clone(signer));
        }
        drop(known);
        debug_assert!(
            keyring.secret(secret).is_some(),
            "a plan names secrets of its keyring"
        );
        let value = open_secret(&self.sealer, live, secret)?;
        let signer = Signer::new(scheme, &value).map_err(|source| KeyError::Unfit {
            secret,
            scheme,
            source,
        })?;
        let signer = Arc::new(signer);
        let mut cached = self.signers.write().unwrap_or_else(PoisonError::into_inner);
        cached
            .by_secret
            .insert((secret, scheme), Arc::clone(&signer));
        if cached.by_secret.len() > cached.sweep_at.max(SWEEP_FROM) {
            cached
                .by_secret
                .retain(|(secret, _), _| live.sealed_secret(*secret).is_some());
            // Only half as many again before the next sweep, so that sweeping stays cheap.
            cached.sweep_at = cached.by_secret.len() + cached.by_secret.len() / 2;
        }
        Ok(signer)
    }
}

/// Opens the value of a secret.
pub fn open_secret(sealer: &Sealer, live: &Live, secret: SecretId) -> Result<Secret, KeyError> {
    let held = live
        .sealed_secret(secret)
        .ok_or(KeyError::Missing { secret })?;
    let text = sealer
        .open(Place::Secret(&held), &held.sealed)
        .map_err(|source| KeyError::Sealed { secret, source })?;
    let damaged = |_| KeyError::Sealed {
        secret,
        source: OpenError::Damaged,
    };
    let text = std::str::from_utf8(&text).map_err(damaged)?;
    Secret::parse(text).map_err(|_| KeyError::Sealed {
        secret,
        source: OpenError::Damaged,
    })
}

//! The values of secrets: generated or imported, sealed for the store, opened to be shown.
//!
//! These are the only functions of the service that hold a value.

use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{SecretId, draw};
use hookturn_core::rotation::{Applied, KeyKind, Keyring, NewSecret, SecretVersion};
use hookturn_core::store::{SealedSecret, Write};
use hookturn_core::time::Timestamp;
use hookturn_verify::{Scheme, Secret};
use zeroize::Zeroizing;

use super::super::{Service, ServiceError};
use crate::store::seal::Place;

/// Where a request gives a secret's value.
const POINTER: &str = "/secret";

/// A secret and its value, shown once.
#[derive(Debug, Clone)]
pub struct SecretOnce {
    /// The secret as it is stored.
    pub secret: SecretVersion,
    /// Its value. `Debug` shows the fingerprint only.
    pub value: Secret,
}

impl Service {
    /// The value a request gave, checked for every scheme it shall sign in; or a generated one.
    pub(in crate::service) fn new_value(&self, given: Option<&Secret>, kind: KeyKind) -> Secret {
        match (given, kind) {
            (Some(given), _) => given.clone(),
            (None, KeyKind::Symmetric) => Secret::generate(draw(self.entropy.as_ref())),
            (None, KeyKind::Ed25519) => Secret::generate_ed25519(draw(self.entropy.as_ref())),
        }
    }

    /// What the rotation machine needs to know of a value.
    pub(in crate::service) fn named(
        &self,
        value: &Secret,
        name: Option<String>,
        now: Timestamp,
    ) -> NewSecret {
        NewSecret {
            id: SecretId::new(now, self.entropy.as_ref()),
            fingerprint: value.fingerprint(),
            name,
        }
    }

    /// Seals the value of a secret that `keyring` knows, bound to its place there.
    pub(in crate::service) fn seal(
        &self,
        keyring: &Keyring,
        secret: &SecretVersion,
        value: &Secret,
    ) -> SealedSecret {
        let mut sealed = SealedSecret {
            workspace: keyring.workspace,
            keyring: keyring.id,
            secret: secret.id,
            version: secret.version,
            sealed: [].into(),
        };
        let bytes = self
            .sealer
            .seal(Place::Secret(&sealed), value.expose().as_bytes());
        sealed.sealed = bytes.into();
        sealed
    }

    /// The stored value of a secret; `None` if it was erased.
    pub(in crate::service) fn unseal(&self, id: SecretId) -> Result<Option<Secret>, ServiceError> {
        let Some(sealed) = self.live.sealed_secret(id) else {
            return Ok(None);
        };
        let text = self.sealer.open(Place::Secret(&sealed), &sealed.sealed)?;
        let text = std::str::from_utf8(&text).map_err(|e| ServiceError::Internal(Box::new(e)))?;
        let value = Secret::parse(text).map_err(|error| ServiceError::Internal(Box::new(error)))?;
        Ok(Some(value))
    }
}

/// What to write for a command that was applied, without the value of a new secret.
pub(in crate::service) fn writes_of(applied: &Applied) -> Vec<Write> {
    let keyring = &applied.keyring;
    let mut writes = vec![Write::Keyring(keyring.clone())];
    writes.extend(applied.rotations.iter().cloned().map(Write::Rotation));
    writes.extend(applied.destroyed.iter().map(|secret| Write::EraseSecret {
        workspace: keyring.workspace,
        keyring: keyring.id,
        secret: *secret,
        // One that is forgotten was pushed out by newer ones, and nobody wished its end: the promise to
        // repeat an answer for a day holds for it.
        answers: !applied.forgotten.contains(secret),
    }));
    writes
}

/// Reads a given value and checks that a keyring of this kind can sign with it in these schemes.
pub(in crate::service) fn read_value(
    given: Option<&Zeroizing<String>>,
    kind: KeyKind,
    schemes: impl IntoIterator<Item = Scheme>,
) -> Result<Option<Secret>, ServiceError> {
    let Some(text) = given else { return Ok(None) };
    let value = Secret::parse(text).map_err(|error| ServiceError::invalid(POINTER, error))?;
    match (kind, value.public_key()) {
        (KeyKind::Symmetric, None) | (KeyKind::Ed25519, Some(_)) => {}
        (KeyKind::Symmetric, Some(_)) => {
            let message = "this keyring holds symmetric secrets, and whsk_ is an Ed25519 key";
            return Err(ServiceError::invalid(POINTER, message));
        }
        (KeyKind::Ed25519, None) => {
            let message = "this keyring holds Ed25519 keys, which start with whsk_";
            return Err(ServiceError::invalid(POINTER, message));
        }
    }
    for scheme in schemes {
        value
            .usable_for(scheme)
            .map_err(|error| ServiceError::invalid(POINTER, error))?;
    }
    Ok(Some(value))
}

/// The schemes that a keyring's endpoints sign in, each once.
pub(in crate::service) fn schemes_of<'a>(
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
) -> Vec<Scheme> {
    let mut schemes: Vec<_> = endpoints
        .into_iter()
        .map(|endpoint| endpoint.preset.scheme())
        .collect();
    schemes.sort_unstable();
    schemes.dedup();
    schemes
}

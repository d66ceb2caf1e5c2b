//! Rotating the master key: everything sealed is sealed again while the server runs.
//!
//! The order makes a crash harmless. First the new key is kept beside the old one ([`MasterKeys`]). Then the box that
//! says which key is current is written anew: from that commit on every server of the store seals with the new
//! one, and a change that was sealed before and is not stored yet is decided again. Then every value is sealed
//! again, block by block. A crash anywhere leaves values under either key, and both are known; running the command
//! again finishes the job. A server starts only if it has a key for every value.
//!
//! Where several servers share a store, all of them must have been given the new key before: the box is written
//! in a transaction that looks at what each says of itself. One that has only the old one and comes at that very
//! moment is refused at its start, or sees that it lacks the current key, and changes and sends nothing
//! ([`Sealer::missing`](crate::store::seal::Sealer::missing)).
//!
//! Idempotent answers are not sealed again: they expire within a day. Former keys open them until then,
//! so several are kept.

use std::sync::Arc;

use hookturn_core::audit::{AuditAction, AuditEntry, Subject};
use hookturn_core::store::{SealedSecret, StoreError, StoreFuture};

use super::{Caller, Service, ServiceError};
use crate::store::seal::{MasterKey, Place};

/// Values that are sealed again in one step.
const BLOCK: usize = 200;

/// A value sealed again, and the bytes it replaces.
type Swap = (SealedSecret, Arc<[u8]>);

/// Where master keys are kept.
pub trait MasterKeys: Send + Sync {
    /// The keys to go on with, the new current one first and `present` after it, durable when this
    /// returns. A sentence for people when the place cannot make one.
    fn next(&self, present: &[MasterKey]) -> Result<Vec<MasterKey>, String>;

    /// Forgets the oldest of many keys. Called only when nothing but expiring answers is sealed under
    /// a former one. Returns those that are left.
    fn forget_oldest(&self, present: &[MasterKey]) -> Result<Vec<MasterKey>, String> {
        Ok(present.to_vec())
    }

    /// Keeps the box that tells which master key is current.
    fn keep_check(&self, sealed: Vec<u8>) -> StoreFuture<'_, ()>;

    /// The same for all servers of a store that several share, provided that each has the key of this id. Returns
    /// those that have not; then nothing was changed.
    fn make_current(&self, _key_id: &str, sealed: Vec<u8>) -> StoreFuture<'_, Vec<String>> {
        let kept = self.keep_check(sealed);
        Box::pin(async move { kept.await.map(|()| Vec::new()) })
    }
}

/// What a rotation of the master key did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    /// The id of the key that seals now.
    pub key_id: String,
    /// Values that were sealed again.
    pub secrets: usize,
}

impl Service {
    /// Seals every secret with a new master key, online. Operators only.
    pub async fn rotate_master_key(&self, caller: &Caller) -> Result<Resealed, ServiceError> {
        self.require_operator(caller).await?;
        // Two at once would each make a key; the second waits and then makes its own.
        let _one = self.master_key_turn.lock().await;
        let present = self.sealer.master_keys();
        let keys = self
            .master_keys
            .next(&present)
            .map_err(|message| ServiceError::Conflict {
                code: "master_key_not_rotated",
                message,
            })?;
        let key_id = keys[0].id();
        self.make_current(keys).await?;
        let mut secrets = 0;
        loop {
            let block = self.stale_secrets()?;
            if block.is_empty() {
                break;
            }
            secrets += self.store.reseal(block).await?;
        }
        self.reseal_mark_key(caller).await?;
        match self.master_keys.forget_oldest(&self.sealer.master_keys()) {
            Ok(left) => self.sealer.replace_keys(left),
            Err(message) => tracing::warn!(message, "old master keys are kept"),
        }
        let entry = AuditEntry::new(AuditAction::MasterKeyRotated, Subject::default())
            .with("keyId", &key_id)
            .with("secrets", secrets);
        self.store
            .audit(
                caller.workspace,
                caller.context(),
                vec![entry],
                self.clock.now(),
            )
            .await?;
        Ok(Resealed { key_id, secrets })
    }

    /// Lets the first of these keys seal from now on. Whoever decided under the former one has stored it when this
    /// returns, or decides again.
    async fn make_current(&self, keys: Vec<MasterKey>) -> Result<(), ServiceError> {
        let _nobody_decides = self.sealing.write().await;
        let check = self.sealer.check_of(&keys[0]);
        let lacking = self.master_keys.make_current(&keys[0].id(), check).await?;
        if lacking.is_empty() {
            self.sealer.replace_keys(keys);
            return Ok(());
        }
        Err(ServiceError::Conflict {
            code: "master_key_not_rotated",
            message: format!(
                "not every node has the new master key: {} lacks it. Start it again with the new key and the present \
                 one, then rotate; nothing was changed",
                lacking.join(" and ")
            ),
        })
    }

    /// A block of values that are not sealed with the current key, each sealed again.
    fn stale_secrets(&self) -> Result<Vec<Swap>, ServiceError> {
        let stale = |secret: &Arc<SealedSecret>| !self.sealer.is_current(&secret.sealed);
        let block = self
            .live
            .sealed_secrets()
            .into_iter()
            .filter(stale)
            .take(BLOCK);
        block
            .map(|secret| {
                let place = Place::Secret(&secret);
                let value = self.sealer.open(place, &secret.sealed).map_err(|source| {
                    StoreError::Engine {
                        step: "seal a secret again",
                        source: Box::new(source),
                    }
                })?;
                let fresh = Arc::from(self.sealer.seal(place, &value));
                let old = Arc::clone(&secret.sealed);
                Ok((
                    SealedSecret {
                        sealed: fresh,
                        ..SealedSecret::clone(&secret)
                    },
                    old,
                ))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    #[tokio::test]
    async fn every_secret_is_sealed_again_and_opens_without_the_old_key() {
        let bench = Bench::new().await;
        let app = bench.app().await;
        let mut made = Vec::new();
        for _ in 0..3 {
            made.push(bench.endpoint(app).await);
        }
        let before = bench.service.sealer.master_keys();
        let done = bench
            .service
            .rotate_master_key(&bench.operator)
            .await
            .unwrap();
        assert_eq!(done.secrets, 3);
        assert_ne!(done.key_id, before[0].id());
        let current = vec![bench.service.sealer.master_keys()[0].clone()];
        bench.service.sealer.replace_keys(current);
        for created in made {
            let once = created.once.unwrap();
            let keyring = created.endpoint.keyring;
            let revealed = bench
                .service
                .reveal_secret(&bench.owner, keyring, once.secret.id)
                .await
                .unwrap();
            assert_eq!(revealed.value, once.value);
        }
    }

    /// A rotation that broke off before anything was sealed again, and then another one.
    #[tokio::test]
    async fn a_rotation_that_broke_off_is_finished_by_the_next() {
        let bench = Bench::new().await;
        let app = bench.app().await;
        let created = bench.endpoint(app).await;
        let present = bench.service.sealer.master_keys();
        let next = bench.service.master_keys.next(&present).unwrap();
        bench.service.sealer.replace_keys(next);
        let done = bench
            .service
            .rotate_master_key(&bench.operator)
            .await
            .unwrap();
        assert_eq!(done.secrets, 1);
        let once = created.once.unwrap();
        let keyring = created.endpoint.keyring;
        let revealed = bench
            .service
            .reveal_secret(&bench.owner, keyring, once.secret.id)
            .await;
        assert_eq!(revealed.unwrap().value, once.value);
    }

    #[tokio::test]
    async fn only_an_operator_rotates_it() {
        let bench = Bench::new().await;
        let refused = bench.service.rotate_master_key(&bench.owner).await;
        assert!(
            matches!(refused, Err(ServiceError::OperatorOnly)),
            "{refused:?}"
        );
    }
}

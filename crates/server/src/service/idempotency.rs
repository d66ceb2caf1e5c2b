//! Idempotency keys: which answer a repeated request gets.
//!
//! An answer is stored in the transaction of its change, so the key has an answer exactly when the
//! change happened. While a request runs on this node its key is in a set in memory; on another
//! node the store's uniqueness decides, and the loser replays.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hookturn_core::id::WorkspaceId;
use hookturn_core::store::IdempotencyKey;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Caller, Decision, Recording, Service, ServiceError};
use crate::store::seal::Place;

/// What is known of an idempotency key.
#[derive(Debug)]
pub enum Lookup {
    /// Nothing: go on, and keep the guard until the answer is stored.
    Fresh(InFlightGuard),
    /// The answer as it was rendered.
    Replay(Zeroizing<Vec<u8>>),
    /// The same request is running.
    InProgress,
    /// The key was used with another request.
    Mismatch,
}

/// The keys of requests that run on this node, each with its fingerprint.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<Mutex<HashMap<IdempotencyKey, [u8; 32]>>>);

/// Holds a key while its request runs.
#[derive(Debug)]
pub struct InFlightGuard {
    in_flight: InFlight,
    key: IdempotencyKey,
}

impl InFlight {
    fn keys<T>(&self, with: impl FnOnce(&mut HashMap<IdempotencyKey, [u8; 32]>) -> T) -> T {
        // One insert or remove at a time: a panic elsewhere leaves a whole map.
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.in_flight.keys(|keys| keys.remove(&self.key));
    }
}

/// What an answer is bound to: SHA-256 over workspace, method, path and the caller's key, each
/// preceded by its length in bytes as a big-endian u64.
pub fn key(workspace: WorkspaceId, method: &str, path: &str, key: &str) -> IdempotencyKey {
    let workspace = workspace.to_bytes();
    let mut hash = Sha256::new_with_prefix(b"hookturn idempotency 1");
    for part in [
        workspace.as_slice(),
        method.as_bytes(),
        path.as_bytes(),
        key.as_bytes(),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    IdempotencyKey(hash.finalize().into())
}

impl Service {
    /// What to do with a request that carries this key. Takes the key's place if it is free.
    pub async fn lookup(
        &self,
        key: IdempotencyKey,
        fingerprint: [u8; 32],
    ) -> Result<Lookup, ServiceError> {
        let running = self.in_flight.keys(|keys| {
            let running = keys.get(&key).copied();
            keys.entry(key).or_insert(fingerprint);
            running
        });
        if let Some(running) = running {
            return Ok(if running == fingerprint {
                Lookup::InProgress
            } else {
                Lookup::Mismatch
            });
        }
        // Taken first and looked up second: the twin that finished in between is in the store.
        let guard = InFlightGuard {
            in_flight: self.in_flight.clone(),
            key,
        };
        match self.replay(key, fingerprint).await? {
            Some(found) => Ok(found),
            None => Ok(Lookup::Fresh(guard)),
        }
    }

    /// Keeps the answer of a request that changed nothing here, so that the same key gets it again.
    pub async fn keep_answer<T: Clone + Send + Sync>(
        &self,
        caller: &Caller,
        out: T,
        recording: Option<Recording<'_, T>>,
    ) -> Result<T, ServiceError> {
        if recording.is_none() {
            return Ok(out);
        }
        self.change(caller, recording, |_| {
            Ok(Decision {
                writes: Vec::new(),
                audit: Vec::new(),
                out: out.clone(),
            })
        })
        .await
    }

    /// The answer that is stored for a key, without taking its place: what a request asks after
    /// [`ServiceError::IdempotencyKeyUsed`]. `None` if there is none.
    pub async fn replay(
        &self,
        key: IdempotencyKey,
        fingerprint: [u8; 32],
    ) -> Result<Option<Lookup>, ServiceError> {
        let Some(record) = self.store.idempotent_answer(key, self.clock.now()).await? else {
            return Ok(None);
        };
        if record.fingerprint != fingerprint {
            return Ok(Some(Lookup::Mismatch));
        }
        let answer = self
            .sealer
            .open(Place::Answer(key), &record.sealed_response)?;
        Ok(Some(Lookup::Replay(answer)))
    }
}

//! Idempotency keys: which answer a repeated request gets.
//!
//! An answer is stored in the transaction of its change, so the key has an answer exactly when the
//! change happened. While a request runs on this node its key is in a set in memory; on another
//! node the store's uniqueness decides, and the loser replays.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hookturn_core::audit::{AuditAction, AuditEntry, Subject};
use hookturn_core::id::WorkspaceId;
use hookturn_core::store::{IdempotencyKey, Shown, Shows};
use hookturn_core::workspace::{RevealPolicy, Scope};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Caller, Decision, Recording, Service, ServiceError, fencing};
use crate::store::seal::{OpenError, Place};

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

/// What an answer is stored under: SHA-256 over workspace, method, path and the caller's key, each
/// preceded by its length in bytes as a big-endian u64. Where a key is the workspace's whatever the path,
/// method and path are empty, and part of the fingerprint instead.
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
        caller: &Caller,
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
        match self.replay(caller, key, fingerprint).await? {
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
                shows: None,
                writes: Vec::new(),
                audit: Vec::new(),
                out: out.clone(),
            })
        })
        .await
    }

    /// The answer that is stored for a key, without taking its place: what a request asks after
    /// [`ServiceError::IdempotencyKeyUsed`]. `None` if there is none.
    ///
    /// 1. Another request than the first is a mismatch.
    /// 2. An answer whose master key was rotated away is refused, and nothing is done anew.
    /// 3. An answer that was erased with the secret it shows is refused, and nothing is done anew. Only
    ///    a secret that its keyring forgot to make room keeps its answer until that expires.
    /// 4. An answer that shows a value is given to the API key that asked first, whatever the
    ///    workspace's policy says: it repeats a call whose answer was its own.
    /// 5. Another key gets it as it would get a reveal: with the scope `secrets`, and where the policy
    ///    lets values be seen again. Otherwise it is refused, and that is in the audit log.
    /// 6. Every showing is in the audit log before the value leaves.
    pub async fn replay(
        &self,
        caller: &Caller,
        key: IdempotencyKey,
        fingerprint: [u8; 32],
    ) -> Result<Option<Lookup>, ServiceError> {
        let Some(record) = self.store.idempotent_answer(key, self.clock.now()).await? else {
            return Ok(None);
        };
        if record.fingerprint != fingerprint {
            return Ok(Some(Lookup::Mismatch));
        }
        let Some(sealed) = record.sealed_response else {
            return Err(destroyed(record.shows));
        };
        let answer = match self.sealer.open(Place::Answer(key), &sealed) {
            Err(OpenError::UnknownKey { .. }) => return Err(sealed_away()),
            opened => opened?,
        };
        if let Some(shows) = record.shows {
            self.show_again(caller, shows).await?;
        }
        // Its first request may have been broken off between its change and the fence of that.
        self.close_fence(&caller.fenced, Some(fencing::Needed::KEYS))
            .await?;
        Ok(Some(Lookup::Replay(answer)))
    }

    async fn show_again(&self, caller: &Caller, shows: Shows) -> Result<(), ServiceError> {
        if let Shown::Secret { id, .. } = shows.what
            && shows.to != caller.key.id
        {
            self.require(caller, Scope::Secrets).await?;
            if self.own_workspace(caller)?.settings.reveal_secrets == RevealPolicy::Never {
                self.note_unshown(caller, Some(id)).await;
                return Err(ServiceError::conflict(
                    "reveal_disabled",
                    "another API key made this request, and this workspace never shows a secret \
                     again: nothing was done. Repeat it with the key that made it, or make \
                     another secret",
                ));
            }
        }
        let entry = self.shown_again(shows.what);
        self.note_shown(caller, shows.what, entry).await
    }

    /// What is recorded when a replay shows a value.
    pub(super) fn shown_again(&self, what: Shown) -> AuditEntry {
        let entry = match what {
            Shown::Secret { id, fingerprint } => {
                let sealed = self.live.sealed_secret(id);
                let subject = Subject {
                    keyring: sealed.map(|sealed| sealed.keyring),
                    secret: Some(id),
                    ..Subject::default()
                };
                AuditEntry {
                    fingerprint: Some(fingerprint),
                    ..AuditEntry::new(AuditAction::SecretRevealed, subject)
                }
            }
            Shown::ApiKey(key) => {
                let subject = Subject {
                    api_key: Some(key),
                    ..Subject::default()
                };
                AuditEntry::new(AuditAction::ApiKeyRevealed, subject)
            }
        };
        entry.with("by", "replay")
    }
}

/// The master key under which an answer was sealed is kept no longer.
fn sealed_away() -> ServiceError {
    ServiceError::conflict(
        "answer_unreadable",
        "this request was done before, but its answer can no longer be read: the master key that sealed \
         it was rotated away. Nothing was done now; look for what the first request made, or use a new \
         Idempotency-Key to do it once more",
    )
}

fn destroyed(shows: Option<Shows>) -> ServiceError {
    let what = match shows.map(|shows| shows.what) {
        Some(Shown::Secret { id, .. }) => format!(" {id}"),
        Some(Shown::ApiKey(_)) | None => String::new(),
    };
    ServiceError::conflict(
        "secret_destroyed",
        format!(
            "this request was answered before, with the value of secret{what}, which is destroyed: \
             the value is nowhere any more, and nothing was done. Use a new Idempotency-Key to make \
             another secret"
        ),
    )
}

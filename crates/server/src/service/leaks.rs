//! Leaks: which secret a string is that turned up where it should not be.
//!
//! The cast. The *hash* of a string is its SHA-256: whoever found the string can make it, and need not
//! send the string anywhere. The *mark* of a secret is HMAC-SHA-256 of the hash of its text, under a key
//! of this store alone. Marks are kept in the store; a search turns hashes into marks and looks them up,
//! so it opens no sealed value, and it finds secrets whose value is erased. The signers' cache of opened
//! keys would not do: it holds what signed lately, and nothing that is retired or destroyed.
//!
//! The guarantee (G8): the database alone tells nobody whether a guess is right. The key of the marks is
//! random and sealed under the master key, not derived from it: a new master key then seals it again and
//! no mark changes, also not the marks of secrets whose text nobody has any more. A search is refused when
//! one API key asks too often, and is in the audit log before it is answered, found or not; what was
//! searched for is not.
//!
//! A secret gets its mark in the change that makes it. Secrets that are older than marks are unmarked
//! until [`Service::mark_secrets`] has come to them, at the start and before every search; it is
//! idempotent and may stop anywhere.
//!
//! Who finds what: a workspace's key finds the secrets of its workspace, an operator's those of all.
//!
//! Not promised: that a string which was found nowhere is harmless. A secret that was forgotten by its
//! keyring is found, but nothing is known of it any more.

use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{KeyringId, RotationId, SecretId, WorkspaceId, draw};
use hookturn_core::limits;
use hookturn_core::rotation::{Keyring, SecretStatus, SecretVersion};
use hookturn_core::store::{Change, MarkedSecret, SecretMark, StoreError, Write};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{Reach, Scope, Workspace};
use hookturn_verify::Secret;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Caller, Decision, Service, ServiceError, pace};
use crate::store::seal::Place;

/// How often one API key may search.
pub(super) const PACE: pace::Pace = pace::Pace {
    requests_per_second: limits::LEAK_SEARCHES_PER_SECOND,
    burst: limits::LEAK_SEARCH_BURST,
};

/// Secrets that are marked in one step.
const BLOCK: usize = 500;
/// Endpoints that are named for one secret; a shared keyring may have many more.
const NAMED: usize = 20;

/// SHA-256 of a string that may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeakHash(pub [u8; 32]);

impl LeakHash {
    /// The hash of a string.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

/// What is to be searched for.
#[derive(Debug, Clone, Default)]
pub struct LeakSearch {
    /// Hashes of strings.
    pub hashes: Vec<LeakHash>,
    /// A string itself; also looked for as the part after `whsec_` or `whsk_`.
    pub text: Option<Zeroizing<String>>,
}

/// What was found for one hash.
#[derive(Debug, Clone)]
pub struct LeakFinding {
    /// The hash that was asked for; of a text, its own.
    pub hash: LeakHash,
    /// The secrets with that text: several when one was imported several times.
    pub found: Vec<FoundSecret>,
}

/// A secret that is known to somebody who should not know it.
#[derive(Debug, Clone)]
pub struct FoundSecret {
    /// Its workspace.
    pub workspace: Arc<Workspace>,
    /// Its keyring.
    pub keyring: KeyringId,
    /// The secret.
    pub id: SecretId,
    /// It as its keyring knows it; none when it was forgotten there.
    pub secret: Option<SecretVersion>,
    /// Endpoints that sign with its keyring, the first few.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// How many there are.
    pub endpoint_count: usize,
    /// What it means and what to do.
    pub advice: Advice,
}

/// What a found secret means, and what to do, as commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// In a sentence.
    pub words: &'static str,
    /// Commands to give, in order.
    pub commands: Vec<String>,
}

impl Service {
    // ----- marks -----

    fn mark_key(&self) -> Result<Option<Zeroizing<Vec<u8>>>, ServiceError> {
        let sealed = self.live.mark_key();
        let open = |sealed: Arc<[u8]>| self.sealer.open(Place::MarkKey, &sealed);
        Ok(sealed.map(open).transpose()?)
    }

    /// The write that gives a store its key.
    pub(super) fn first_mark_key(&self) -> Write {
        let key = Zeroizing::new(draw::<32>(self.entropy.as_ref()));
        Write::MarkKey {
            sealed: self.sealer.seal(Place::MarkKey, key.as_ref()).into(),
            old: None,
        }
    }

    /// The write that marks a new secret; none while there is no key yet.
    pub(super) fn marking(
        &self,
        keyring: &Keyring,
        secret: SecretId,
        value: &Secret,
    ) -> Result<Option<Write>, ServiceError> {
        let marked = |key: Zeroizing<Vec<u8>>| {
            Write::Mark(MarkedSecret {
                workspace: keyring.workspace,
                keyring: keyring.id,
                secret,
                mark: mark(&key, LeakHash::of(value.expose())),
            })
        };
        Ok(self.mark_key()?.map(marked))
    }

    /// Marks the secrets that have no mark yet, block by block. Returns how many.
    pub async fn mark_secrets(&self) -> Result<usize, ServiceError> {
        let mut marked = 0;
        loop {
            let block = self.store.unmarked(BLOCK).await?;
            if block.is_empty() {
                return Ok(marked);
            }
            let key = self.kept_mark_key().await?;
            let mut writes = Vec::with_capacity(block.len());
            for secret in &block {
                // One that was destroyed meanwhile is not unmarked any more.
                let (Some(held), Some(value)) =
                    (self.live.sealed_secret(*secret), self.unseal(*secret)?)
                else {
                    continue;
                };
                writes.push(Write::Mark(MarkedSecret {
                    workspace: held.workspace,
                    keyring: held.keyring,
                    secret: *secret,
                    mark: mark(&key, LeakHash::of(value.expose())),
                }));
            }
            marked += writes.len();
            self.write_for_system(writes).await?;
        }
    }

    async fn kept_mark_key(&self) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
        if self.live.mark_key().is_none() {
            match self.write_for_system(vec![self.first_mark_key()]).await {
                // Somebody else made one.
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.mark_key()?.ok_or(ServiceError::Unavailable)
    }

    pub(super) async fn write_for_system(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        // A store with secrets has a workspace; without one there is nothing to write.
        let Some(workspace) = self.default_workspace().filter(|_| !writes.is_empty()) else {
            return Ok(());
        };
        let change = Change {
            workspace,
            writes,
            audit: Vec::new(),
            context: Context {
                actor: Actor::System,
                request_id: None,
                reason: None,
            },
            at: self.clock.now(),
            idempotency: None,
        };
        self.store.change(change).await
    }

    /// Seals the key of the marks with the current master key.
    pub(super) async fn reseal_mark_key(&self, caller: &Caller) -> Result<(), ServiceError> {
        self.commit(caller.workspace, &caller.context(), None, |_| {
            let stale = self.live.mark_key();
            let Some(old) = stale.filter(|sealed| !self.sealer.is_current(sealed)) else {
                return Ok(Decision::nothing(()));
            };
            let key = self.sealer.open(Place::MarkKey, &old)?;
            let sealed = self.sealer.seal(Place::MarkKey, &key).into();
            let mut decision = Decision::nothing(());
            decision.writes.push(Write::MarkKey {
                sealed,
                old: Some(old),
            });
            Ok(decision)
        })
        .await
    }

    // ----- searching -----

    /// Which secrets have one of these texts. Needs `secrets`; see the module text.
    pub async fn search_leaks(
        &self,
        caller: &Caller,
        search: LeakSearch,
    ) -> Result<Vec<LeakFinding>, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        let asked = asked_for(&search)?;
        self.leak_pacer
            .take(caller.key.id, self.clock.now())
            .map_err(|wait_millis| ServiceError::RateLimited { wait_millis })?;
        let found = self
            .secrets_with(caller, asked.iter().flat_map(|(_, hashes)| hashes))
            .await?;
        let now = self.clock.now();
        let mut findings = Vec::with_capacity(asked.len());
        for (hash, hashes) in asked {
            let of_hash = found
                .iter()
                .filter(|(found, _)| hashes.contains(found))
                .filter_map(|(_, marked)| self.describe(caller, marked, now));
            findings.push(LeakFinding {
                hash,
                found: of_hash.collect(),
            });
        }
        self.note_search(caller, &findings).await?;
        Ok(findings)
    }

    /// The marked secrets of these hashes that the caller may know of.
    pub(super) async fn secrets_with(
        &self,
        caller: &Caller,
        hashes: impl Iterator<Item = &LeakHash>,
    ) -> Result<Vec<(LeakHash, MarkedSecret)>, ServiceError> {
        self.mark_secrets().await?;
        let Some(key) = self.mark_key()? else {
            return Ok(Vec::new());
        };
        let asked: Vec<(SecretMark, LeakHash)> =
            hashes.map(|hash| (mark(&key, *hash), *hash)).collect();
        let marks = asked.iter().map(|(mark, _)| *mark).collect();
        let mut found = self.store.marked(marks).await?;
        if let Reach::Workspace { workspace, .. } = caller.key.reach {
            found.retain(|marked| marked.workspace == workspace);
        }
        let hash_of = |marked: MarkedSecret| {
            let (_, hash) = asked.iter().find(|(mark, _)| *mark == marked.mark)?;
            Some((*hash, marked))
        };
        Ok(found.into_iter().filter_map(hash_of).collect())
    }

    fn describe(
        &self,
        caller: &Caller,
        marked: &MarkedSecret,
        now: Timestamp,
    ) -> Option<FoundSecret> {
        let workspace = self.live.workspace(marked.workspace)?;
        let keyring = self.live.keyring(marked.keyring);
        let secret = keyring
            .as_deref()
            .and_then(|keyring| keyring.secret(marked.secret).cloned());
        let mut endpoints = keyring
            .as_deref()
            .map(|keyring| self.live.keyring_users(keyring))
            .unwrap_or_default();
        let endpoint_count = endpoints.len();
        endpoints.truncate(NAMED);
        let leaves = keyring
            .as_deref()
            .and_then(|keyring| keyring.rotation.as_ref())
            .filter(|rotation| rotation.from == marked.secret)
            .map(|rotation| rotation.id);
        let there = match caller.key.reach {
            Reach::Operator => format!(" --workspace {}", workspace.id),
            Reach::Workspace { .. } => String::new(),
        };
        let advice = advice(marked, secret.as_ref(), leaves, endpoint_count, &there, now);
        Some(FoundSecret {
            workspace,
            keyring: marked.keyring,
            id: marked.secret,
            secret,
            endpoints,
            endpoint_count,
            advice,
        })
    }

    /// Writes down that somebody searched: in the caller's log, and in the log of whom a found secret
    /// belongs to.
    async fn note_search(
        &self,
        caller: &Caller,
        findings: &[LeakFinding],
    ) -> Result<(), ServiceError> {
        let found: Vec<&FoundSecret> = findings.iter().flat_map(|one| &one.found).collect();
        let summary = AuditEntry::new(AuditAction::LeakSearched, Subject::default())
            .with("strings", findings.len())
            .with("found", found.len());
        let mut logs: Vec<(WorkspaceId, Vec<AuditEntry>)> = vec![(caller.workspace, vec![summary])];
        for found in found {
            let subject = Subject {
                keyring: Some(found.keyring),
                secret: Some(found.id),
                ..Subject::default()
            };
            let mut entry = AuditEntry::new(AuditAction::LeakFound, subject);
            entry.fingerprint = found.secret.as_ref().map(|secret| secret.fingerprint);
            let owner = found.workspace.id;
            match logs.iter_mut().find(|(workspace, _)| *workspace == owner) {
                Some((_, entries)) => entries.push(entry),
                None => logs.push((owner, vec![entry])),
            }
        }
        let now = self.clock.now();
        for (workspace, entries) in logs {
            self.store
                .audit(workspace, caller.context(), entries, now)
                .await?;
        }
        Ok(())
    }
}

/// The hashes to answer for, each with the hashes that count as it.
fn asked_for(search: &LeakSearch) -> Result<Vec<(LeakHash, Vec<LeakHash>)>, ServiceError> {
    if search.hashes.len() > limits::LEAK_HASHES {
        let message = format!("more than {} hashes; ask in parts", limits::LEAK_HASHES);
        return Err(ServiceError::invalid("/hashes", message));
    }
    let mut asked: Vec<_> = search
        .hashes
        .iter()
        .map(|hash| (*hash, vec![*hash]))
        .collect();
    if let Some(text) = &search.text {
        if text.is_empty() || text.chars().count() > limits::SECRET_CHARS {
            let message = format!("must be 1 to {} characters", limits::SECRET_CHARS);
            return Err(ServiceError::invalid("/text", message));
        }
        asked.push((LeakHash::of(text), hashes_of(text)));
    }
    if asked.is_empty() {
        let message = "name hashes to search for, or a text";
        return Err(ServiceError::missing("/hashes", message));
    }
    Ok(asked)
}

/// The hashes under which a string may be found: its own, and those of it as the part after a prefix.
pub fn hashes_of(text: &str) -> Vec<LeakHash> {
    let mut hashes = vec![LeakHash::of(text)];
    for prefix in ["whsec_", "whsk_"] {
        if !text.starts_with(prefix) {
            let whole = Zeroizing::new(format!("{prefix}{text}"));
            hashes.push(LeakHash::of(&whole));
        }
    }
    hashes
}

fn mark(key: &[u8], hash: LeakHash) -> SecretMark {
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of every length")
    };
    SecretMark(mac.chain_update(hash.0).finalize().into_bytes().into())
}

/// What to do about a leaked secret, by what it is now.
fn advice(
    marked: &MarkedSecret,
    secret: Option<&SecretVersion>,
    leaves: Option<RotationId>,
    endpoints: usize,
    there: &str,
    now: Timestamp,
) -> Advice {
    let (keyring, id) = (marked.keyring, marked.secret);
    let mark = format!("hookturn secret compromise {keyring} {id}{there}");
    let rotate =
        format!("hookturn rotation open {keyring} --mode immediate --reason leaked{there}");
    let ask = leaves.map(|rotation| format!("hookturn rotation released {rotation}{there}"));
    let advise = |words, commands| Advice { words, commands };
    let Some(secret) = secret else {
        return advise(
            "it was a secret of this keyring, is destroyed and forgotten, and signs nothing; check that no receiver still accepts it",
            Vec::new(),
        );
    };
    match secret.status(now) {
        SecretStatus::Active if endpoints == 0 => advise(
            "it signs nothing any more, because no endpoint uses its keyring; check that no receiver still accepts it",
            Vec::new(),
        ),
        SecretStatus::Active if secret.compromised.is_some() => advise(
            "it signs, and is marked as leaked: rotate away from it now, and hand the new secret over at once",
            vec![rotate],
        ),
        SecretStatus::Active => advise(
            "it signs: mark it, rotate away from it now, and hand the new secret over at once; or rotate with mode overlap first, ask who still accepts it, and mark it then",
            vec![mark, rotate],
        ),
        SecretStatus::Pending => advise(
            "it is not active, but live already: it signs probes and a share of deliveries, co-signs, and signs what is refused with the active one. Mark it, which drops it and cancels its rotation, and open a new rotation",
            vec![mark],
        ),
        SecretStatus::Retiring => advise(
            "it may still sign: ask whether receivers still accept it, while that can be asked, then mark it, which retires it at once",
            ask.into_iter().chain([mark]).collect(),
        ),
        SecretStatus::Retired if secret.compromised.is_some() => advise(
            "it was retired, is marked as leaked and never signs again; check that no receiver still accepts it",
            Vec::new(),
        ),
        SecretStatus::Retired => advise(
            "it was retired and signs nothing, unless an undo brings it back: mark it, which rules that out, and check that no receiver still accepts it",
            vec![mark],
        ),
        SecretStatus::Destroyed => advise(
            "it is destroyed and signs nothing; check that no receiver still accepts it",
            Vec::new(),
        ),
    }
}

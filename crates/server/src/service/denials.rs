//! Denied attempts in the audit log, as many as a disk can take.
//!
//! Who is refused can ask again at once, so what is written down of it is bounded: of each API key
//! [`limits::DENIALS_AT_ONCE`] attempts and one more every [`limits::DENIAL_EVERY`]; of all keys of a
//! workspace together [`limits::DENIALS_OF_WORKSPACE`] times as much, because a key costs nothing;
//! of everyone without a known key together as much as of one key. What is left out is counted, and
//! the count is in the next entry of the same key (`leftOut`); [`Service::settle`] writes it when no
//! attempt follows. A count that was not written yet is lost with the process.
//!
//! Where an entry goes: into the log of the workspace that was acted in. An attempt to reach what
//! belongs to another workspace goes into the log of its owner, and only there: the one who asked
//! must not learn from a log of their own that the thing exists.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject};
use hookturn_core::id::{ApiKeyId, RotationId, WorkspaceId};
use hookturn_core::limits;
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{ApiKey, Reach};
use sha2::{Digest, Sha256};

use super::{Caller, Service};

/// What a request asked for, as far as it may be written down: never what a caller typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Method and path of the route, with its parameters in braces.
    pub route: Option<String>,
    /// The ids in the path.
    pub subject: Subject,
}

/// A request that showed no live key.
#[derive(Debug, Clone, Default)]
pub struct Refused<'a> {
    /// The text it showed as its key, if any.
    pub bearer: Option<&'a str>,
    /// Its id.
    pub request_id: String,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// What it asked for.
    pub asked: Asked,
}

/// Whose attempts are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Suspect {
    Key(ApiKeyId),
    Workspace(WorkspaceId),
    Unknown,
}

#[derive(Debug)]
struct Budget {
    tokens: u32,
    full: u32,
    refilled_at: Timestamp,
    left_out: u64,
    /// Where the last attempt belongs: what was left out is written there.
    workspace: WorkspaceId,
}

impl Budget {
    fn new(full: u32, now: Timestamp, workspace: WorkspaceId) -> Self {
        Self {
            tokens: full,
            full,
            refilled_at: now,
            left_out: 0,
            workspace,
        }
    }

    /// Adds what has grown since the last time: `full / DENIALS_AT_ONCE` every `DENIAL_EVERY`.
    fn refill(&mut self, now: Timestamp) {
        let passed = now.since(self.refilled_at) / limits::DENIAL_EVERY;
        if passed == 0 {
            return;
        }
        self.refilled_at = self.refilled_at.after(passed * limits::DENIAL_EVERY);
        let grown = passed.saturating_mul(u64::from(self.full / limits::DENIALS_AT_ONCE));
        let tokens = u64::from(self.tokens).saturating_add(grown);
        self.tokens = u32::try_from(tokens).map_or(self.full, |tokens| tokens.min(self.full));
    }
}

/// What may still be written of whom.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<HashMap<Suspect, Budget>>);

impl Denials {
    fn budgets<T>(&self, with: impl FnOnce(&mut HashMap<Suspect, Budget>) -> T) -> T {
        // Numbers only: a panic elsewhere leaves a usable map.
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether an attempt may be written, and how many before it were not. Otherwise it is counted.
    fn admit(
        &self,
        suspect: Suspect,
        home: Option<WorkspaceId>,
        place: WorkspaceId,
        now: Timestamp,
    ) -> Option<u64> {
        self.budgets(|budgets| {
            let common = home.is_none_or(|home| {
                let full = limits::DENIALS_AT_ONCE * limits::DENIALS_OF_WORKSPACE;
                let budget = budgets
                    .entry(Suspect::Workspace(home))
                    .or_insert_with(|| Budget::new(full, now, place));
                budget.refill(now);
                budget.tokens > 0
            });
            let budget = budgets
                .entry(suspect)
                .or_insert_with(|| Budget::new(limits::DENIALS_AT_ONCE, now, place));
            budget.refill(now);
            budget.workspace = place;
            if !common || budget.tokens == 0 {
                budget.left_out += 1;
                return None;
            }
            budget.tokens -= 1;
            let left_out = std::mem::take(&mut budget.left_out);
            if let Some(home) = home
                && let Some(common) = budgets.get_mut(&Suspect::Workspace(home))
            {
                common.tokens -= 1;
            }
            Some(left_out)
        })
    }

    /// Counts that can be written by now, each once; forgets whom nothing is known of any more.
    fn overdue(&self, now: Timestamp) -> Vec<(Suspect, WorkspaceId, u64)> {
        self.budgets(|budgets| {
            let mut overdue = Vec::new();
            budgets.retain(|suspect, budget| {
                budget.refill(now);
                if budget.left_out > 0 && budget.tokens > 0 {
                    budget.tokens -= 1;
                    let left_out = std::mem::take(&mut budget.left_out);
                    overdue.push((*suspect, budget.workspace, left_out));
                }
                budget.tokens < budget.full || budget.left_out > 0
            });
            overdue
        })
    }
}

impl Service {
    /// Writes down that a caller's key did not suffice. `needs` is a scope, or `operator`.
    pub(super) async fn note_denied(&self, caller: &Caller, needs: &str) {
        let entry = AuditEntry {
            fingerprint: self.fingerprint_of(caller),
            ..AuditEntry::new(AuditAction::AccessDenied, subject_of(caller))
        };
        let entry = entry.with("cause", "not allowed").with("needs", needs);
        let noted = self.admitted(caller, caller.workspace, entry);
        self.write_denied(noted).await;
    }

    /// Writes down that a request showed no live key: which key it was if it is known, and why it
    /// opens nothing. What is not known goes into the log of the workspace that operators act in.
    pub async fn note_refused(&self, refused: Refused<'_>) {
        let now = self.clock.now();
        let key = refused.bearer.and_then(|text| {
            let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            self.live.api_key_by_hash(&hash)
        });
        let (actor, suspect, cause) = match &key {
            Some(key) if key.revoked_at.is_some() => {
                (Actor::ApiKey(key.id), Suspect::Key(key.id), "revoked key")
            }
            Some(key) => (Actor::ApiKey(key.id), Suspect::Key(key.id), "expired key"),
            None if refused.bearer.is_some() => (Actor::Unknown, Suspect::Unknown, "unknown key"),
            None => (Actor::Unknown, Suspect::Unknown, "no key"),
        };
        let home = key.as_deref().and_then(home_of);
        let Some(place) = home.or_else(|| self.default_workspace()) else {
            return;
        };
        let Some(left_out) = self.denials.admit(suspect, home, place, now) else {
            return;
        };
        let subject = Subject {
            api_key: key.as_deref().map(|key| key.id),
            ..refused.asked.subject
        };
        let entry = AuditEntry::new(AuditAction::AccessDenied, subject).with("cause", cause);
        let entry = complete(entry, refused.asked.route.as_deref(), left_out);
        let context = Context {
            actor,
            request_id: Some(refused.request_id),
            reason: refused.reason,
        };
        self.write_denied(Some((place, context, entry))).await;
    }

    /// Writes down that a caller named what belongs to `owner`, another workspace. The answer, which
    /// is that of a thing that does not exist, does not wait for it.
    pub(super) fn note_foreign(&self, caller: &Caller, owner: WorkspaceId) {
        let entry = AuditEntry::new(AuditAction::AccessDenied, subject_of(caller))
            .with("cause", "belongs to another workspace");
        let Some((place, context, entry)) = self.admitted(caller, owner, entry) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let store = Arc::clone(&self.store);
        let now = self.clock.now();
        runtime.spawn(async move {
            let noted = store.audit(place, context, vec![entry], now).await;
            if let Err(error) = noted {
                tracing::warn!(%error, "a denied request was not audited");
            }
        });
    }

    /// The same for a rotation. Only the latest one of a keyring is known of other workspaces.
    pub(super) fn note_foreign_rotation(&self, caller: &Caller, id: RotationId) {
        let keyrings = self.live.workspaces().into_iter().flat_map(|workspace| {
            let other = workspace.id != caller.workspace;
            other
                .then(|| self.live.keyrings(workspace.id))
                .into_iter()
                .flatten()
        });
        let latest = |keyring: &Arc<hookturn_core::rotation::Keyring>| {
            keyring
                .rotation
                .as_ref()
                .is_some_and(|rotation| rotation.id == id)
        };
        if let Some(keyring) = keyrings.into_iter().find(latest) {
            self.note_foreign(caller, keyring.workspace);
        }
    }

    /// Writes down what was left out and can be written by now.
    pub(super) async fn settle_denials(&self) {
        for (suspect, workspace, left_out) in self.denials.overdue(self.clock.now()) {
            let (actor, api_key) = match suspect {
                Suspect::Key(key) => (Actor::ApiKey(key), Some(key)),
                // A workspace's budget counts nothing of its own.
                Suspect::Workspace(_) | Suspect::Unknown => (Actor::Unknown, None),
            };
            let subject = Subject {
                api_key,
                ..Subject::default()
            };
            let entry = AuditEntry::new(AuditAction::AccessDenied, subject)
                .with("cause", "more of the same than is written down");
            let context = Context {
                actor,
                request_id: None,
                reason: None,
            };
            let entry = complete(entry, None, left_out);
            self.write_denied(Some((workspace, context, entry))).await;
        }
    }

    fn admitted(
        &self,
        caller: &Caller,
        place: WorkspaceId,
        entry: AuditEntry,
    ) -> Option<(WorkspaceId, Context, AuditEntry)> {
        let now = self.clock.now();
        let suspect = Suspect::Key(caller.key.id);
        let left_out = self
            .denials
            .admit(suspect, home_of(&caller.key), place, now)?;
        let entry = complete(entry, caller.asked.route.as_deref(), left_out);
        Some((place, caller.context(), entry))
    }

    async fn write_denied(&self, noted: Option<(WorkspaceId, Context, AuditEntry)>) {
        let Some((workspace, context, entry)) = noted else {
            return;
        };
        let now = self.clock.now();
        let written = self.store.audit(workspace, context, vec![entry], now).await;
        if let Err(error) = written {
            // The answer stays a refusal: nothing was opened because the log could not be kept.
            tracing::warn!(%error, "a denied request was not audited");
        }
    }

    /// The fingerprint of the secret that a request names, if it is one of the caller's workspace.
    fn fingerprint_of(&self, caller: &Caller) -> Option<hookturn_verify::Fingerprint> {
        let subject = &caller.asked.subject;
        let keyring = match subject.keyring {
            Some(keyring) => keyring,
            None => self.live.workspace(caller.workspace)?.shared_keyring,
        };
        let keyring = self.live.keyring(keyring)?;
        let secret = keyring.secret(subject.secret?)?;
        (keyring.workspace == caller.workspace).then_some(secret.fingerprint)
    }
}

fn home_of(key: &ApiKey) -> Option<WorkspaceId> {
    match key.reach {
        Reach::Operator => None,
        Reach::Workspace { workspace, .. } => Some(workspace),
    }
}

/// What was named, and by which key.
fn subject_of(caller: &Caller) -> Subject {
    let named = caller.asked.subject;
    Subject {
        // A key that is named is what the attempt was about; who made it is the actor.
        api_key: named.api_key.or(Some(caller.key.id)),
        ..named
    }
}

fn complete(entry: AuditEntry, route: Option<&str>, left_out: u64) -> AuditEntry {
    let entry = match route {
        Some(route) => entry.with("route", route),
        None => entry,
    };
    match left_out {
        0 => entry,
        left_out => entry.with("leftOut", left_out),
    }
}

#[cfg(test)]
mod tests {
    use hookturn_core::time::MINUTE;

    use super::*;
    use crate::telemetry::SystemEntropy;

    fn ids(now: Timestamp) -> (WorkspaceId, [ApiKeyId; 30]) {
        let key = |_| ApiKeyId::new(now, &SystemEntropy);
        (
            WorkspaceId::new(now, &SystemEntropy),
            std::array::from_fn(key),
        )
    }

    #[test]
    fn one_key_is_written_down_some_times_and_then_counted() {
        let now = Timestamp::from_millis(1_784_505_600_000);
        let (home, keys) = ids(now);
        let denials = Denials::default();
        let attempt = |key: usize, at| denials.admit(Suspect::Key(keys[key]), Some(home), home, at);
        let written = (0..1_000).filter(|_| attempt(0, now).is_some()).count();
        assert_eq!(written, limits::DENIALS_AT_ONCE as usize);
        assert_eq!(attempt(1, now), Some(0), "another key has its own");
        assert_eq!(denials.overdue(now.after(MINUTE - 1)), []);
        // The next attempt tells how many were not written.
        assert_eq!(attempt(0, now.after(MINUTE)), Some(980));
        assert_eq!(attempt(0, now.after(MINUTE)), None);
        // Or the sweep does, once.
        let later = now.after(2 * MINUTE);
        assert_eq!(denials.overdue(later), [(Suspect::Key(keys[0]), home, 1)]);
        assert_eq!(denials.overdue(later), []);
        // Whoever is quiet for long enough is forgotten.
        denials.overdue(now.after(100 * MINUTE));
        assert!(denials.budgets(|budgets| budgets.is_empty()));
    }

    #[test]
    fn many_keys_of_one_workspace_are_bounded_together() {
        let now = Timestamp::from_millis(1_784_505_600_000);
        let (home, keys) = ids(now);
        let denials = Denials::default();
        let mut written = 0;
        for _ in 0..100 {
            for key in keys {
                let admitted = denials.admit(Suspect::Key(key), Some(home), home, now);
                written += u32::from(admitted.is_some());
            }
        }
        assert_eq!(
            written,
            limits::DENIALS_AT_ONCE * limits::DENIALS_OF_WORKSPACE
        );
    }
}

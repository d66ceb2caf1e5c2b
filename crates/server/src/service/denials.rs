//! Denied attempts in the audit log, as many as a disk can take.
//!
//! Who is refused can ask again at once, so what is written down of it is bounded, see [`budget`]. What
//! is left out is counted for each key and route, and the count is in the next entry of the same pair
//! (`leftOut`); [`Service::settle`] writes it when no attempt follows. A count that was not written yet
//! is lost with the process.
//!
//! Where an entry goes:
//!
//! 1. Into the log of the workspace that was acted in.
//! 2. An attempt to reach what belongs to another workspace goes into the log of its owner, and only
//!    there: the one who asked must not learn from a log of their own that the thing exists.
//! 3. A dead key's goes into the log of the key's workspace. Without a known key it is that of the secret
//!    or keyring that was aimed at, and else the one that operators act in.
//!
//! An attempt that was aimed at a secret carries its id and fingerprint ([`Service::aim`]), as far as
//! that secret belongs to the workspace in whose log it stands.

use std::sync::Arc;

use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject};
use hookturn_core::id::{ClientId, RotationId, SecretId, WorkspaceId};
use hookturn_core::rotation::{Keyring, SecretVersion};
use hookturn_core::store::Shown;
use hookturn_core::workspace::{ApiKey, Reach};
use sha2::{Digest, Sha256};

use super::{Caller, Service, ServiceError};

mod budget;

pub(super) use budget::Budgets;
use budget::{Counted, Home, Overdue, Who};

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

/// An entry on its way: where it goes, and who made it necessary.
type Noted = (WorkspaceId, Context, AuditEntry);

impl Service {
    /// Writes down that a caller's key did not suffice. `needs` is a scope, or `operator`.
    pub(super) async fn note_denied(&self, caller: &Caller, needs: &str) {
        let noted = self.admitted(caller, caller.workspace, |entry| {
            entry.with("cause", "not allowed").with("needs", needs)
        });
        self.write_denied(noted).await;
    }

    /// Writes down that a value may not be seen again in this workspace, whatever the key may.
    pub(super) async fn note_unshown(&self, caller: &Caller, secret: Option<SecretId>) {
        let mut caller = caller.clone();
        let subject = &mut caller.asked.subject;
        subject.secret = subject.secret.or(secret);
        let noted = self.admitted(&caller, caller.workspace, |entry| {
            entry.with("cause", "this workspace never shows a secret again")
        });
        self.write_denied(noted).await;
    }

    /// Writes down that a request showed no live key: which key it was if it is known, and why it
    /// opens nothing.
    pub async fn note_refused(&self, refused: Refused<'_>) {
        let now = self.clock.now();
        let key = refused.bearer.and_then(|text| {
            let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            self.live.api_key_by_hash(&hash)
        });
        let (actor, who, cause) = match &key {
            Some(key) if key.revoked_at.is_some() => {
                (Actor::ApiKey(key.id), Who::Key(key.id), "revoked key")
            }
            Some(key) => (Actor::ApiKey(key.id), Who::Key(key.id), "expired key"),
            None if refused.bearer.is_some() => (Actor::Unknown, Who::Unknown, "unknown key"),
            None => (Actor::Unknown, Who::Unknown, "no key"),
        };
        let Asked { route, subject } = refused.asked;
        let home = key.as_deref().map_or(Home::Nowhere, home_of);
        let place = match home {
            Home::Workspace(home) => Some(home),
            Home::Everywhere | Home::Nowhere => self
                .named_keyring(&subject)
                .map(|keyring| keyring.workspace)
                .or_else(|| self.default_workspace()),
        };
        let Some(place) = place else { return };
        let counted = Counted::attempts(who, route.clone());
        let Some(left_out) = self.budgets.admit(counted, home, place, now) else {
            return;
        };
        let subject = Subject {
            api_key: key.as_deref().map(|key| key.id),
            ..subject
        };
        let entry = AuditEntry::new(AuditAction::AccessDenied, subject).with("cause", cause);
        let entry = self.aimed(place, entry, route.as_deref());
        let entry = complete(entry, route.as_deref(), left_out);
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
        let noted = self.admitted(caller, owner, |entry| {
            entry.with("cause", "belongs to another workspace")
        });
        let (Some(noted), Ok(runtime)) = (noted, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let (place, context, entry) = noted;
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
        let workspaces = self.live.workspaces().into_iter();
        let others = workspaces.filter(|workspace| workspace.id != caller.workspace);
        let owner = others
            .map(|workspace| workspace.id)
            .find(|owner| self.keyring_rotating(*owner, id).is_some());
        if let Some(owner) = owner {
            self.note_foreign(caller, owner);
        }
    }

    /// The same for a secret. One whose value is erased is nobody's any more.
    pub(super) fn note_foreign_secret(&self, caller: &Caller, id: SecretId) {
        let owner = self.live.sealed_secret(id).map(|sealed| sealed.workspace);
        if let Some(owner) = owner.filter(|owner| *owner != caller.workspace) {
            self.note_foreign(caller, owner);
        }
    }

    /// The same for an app.
    pub(super) fn note_foreign_app(&self, caller: &Caller, id: ClientId) {
        let workspaces = self.live.workspaces().into_iter();
        let owner = workspaces
            .map(|workspace| workspace.id)
            .find(|owner| *owner != caller.workspace && self.live.app(*owner, id).is_some());
        if let Some(owner) = owner {
            let mut caller = caller.clone();
            caller.asked.subject.app = Some(id);
            self.note_foreign(&caller, owner);
        }
    }

    /// Writes down that a value was shown again by the replay of an idempotent answer, before it is
    /// shown. Of many replays to one key as many are written as of denied attempts; the others are
    /// counted (`leftOut`): that this key saw this value is in the log already.
    pub(super) async fn note_shown(
        &self,
        caller: &Caller,
        what: Shown,
        entry: AuditEntry,
    ) -> Result<(), ServiceError> {
        let now = self.clock.now();
        let place = caller.workspace;
        let counted = Counted::Showings(caller.key.id, what);
        let Some(left_out) = self.budgets.admit(counted, Home::Everywhere, place, now) else {
            return Ok(());
        };
        let entry = complete(entry, caller.asked.route.as_deref(), left_out);
        let written = self.store.audit(place, caller.context(), vec![entry], now);
        Ok(written.await?)
    }

    /// Writes down what was left out and can be written by now.
    pub(super) async fn settle_denials(&self) {
        for overdue in self.budgets.overdue(self.clock.now()) {
            let Overdue {
                counted,
                workspace,
                left_out,
            } = overdue;
            let (actor, entry) = self.summary(&counted);
            let route = match &counted {
                Counted::Attempts { route, .. } => route.as_deref(),
                Counted::Rest(_) | Counted::Common(_) | Counted::Showings(..) => None,
            };
            let context = Context {
                actor,
                request_id: None,
                reason: None,
            };
            let entry = complete(entry, route, left_out);
            self.write_denied(Some((workspace, context, entry))).await;
        }
    }

    /// Who is counted, and the entry that says how often.
    fn summary(&self, counted: &Counted) -> (Actor, AuditEntry) {
        let denied = |key, cause| {
            let subject = Subject {
                api_key: key,
                ..Subject::default()
            };
            AuditEntry::new(AuditAction::AccessDenied, subject).with("cause", cause)
        };
        let more = "more of the same than is written down";
        match counted {
            Counted::Attempts { who, .. } => match who {
                Who::Key(key) => (Actor::ApiKey(*key), denied(Some(*key), more)),
                Who::Unknown => (Actor::Unknown, denied(None, more)),
            },
            // A common budget counts nothing of its own.
            Counted::Rest(_) | Counted::Common(_) => (
                Actor::System,
                denied(None, "of more keys and routes than are counted apart"),
            ),
            Counted::Showings(key, what) => (Actor::ApiKey(*key), self.shown_again(*what)),
        }
    }

    /// The entry of an attempt of the caller's that may be written into the log of `place`.
    fn admitted(
        &self,
        caller: &Caller,
        place: WorkspaceId,
        describe: impl FnOnce(AuditEntry) -> AuditEntry,
    ) -> Option<Noted> {
        let now = self.clock.now();
        let route = caller.asked.route.as_deref();
        let counted = Counted::attempts(Who::Key(caller.key.id), route.map(str::to_owned));
        let left_out = self
            .budgets
            .admit(counted, home_of(&caller.key), place, now)?;
        let entry = AuditEntry::new(AuditAction::AccessDenied, subject_of(caller));
        let entry = self.aimed(place, describe(entry), route);
        Some((place, caller.context(), complete(entry, route, left_out)))
    }

    async fn write_denied(&self, noted: Option<Noted>) {
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
}

/// What an attempt was aimed at.
impl Service {
    /// The entry with the secret that its attempt was aimed at, if that one belongs to `place`.
    fn aimed(&self, place: WorkspaceId, entry: AuditEntry, route: Option<&str>) -> AuditEntry {
        let Some((keyring, secret)) = self.aim(place, &entry.subject, route) else {
            return entry;
        };
        AuditEntry {
            subject: Subject {
                keyring: Some(keyring.id),
                secret: Some(secret.id),
                ..entry.subject
            },
            fingerprint: Some(secret.fingerprint),
            ..entry
        }
    }

    /// The secret of `place` that a request was aimed at:
    ///
    /// 1. the one it names;
    /// 2. the one that the rotation it names brings;
    /// 3. the active one of the keyring it names, unless it only wanted to read;
    /// 4. the active one of the app it names, where the route is about the app's one webhook
    ///    configuration.
    fn aim(
        &self,
        place: WorkspaceId,
        subject: &Subject,
        route: Option<&str>,
    ) -> Option<(Arc<Keyring>, SecretVersion)> {
        let route = route.unwrap_or_default();
        let keyring = if let Some(rotation) = subject.rotation {
            self.keyring_rotating(place, rotation)?
        } else if let Some(keyring) = self.named_keyring(subject) {
            keyring
        } else if subject.secret.is_some() {
            let shared = self.live.workspace(place)?.shared_keyring;
            self.live.keyring(shared)?
        } else if route.contains("/webhook-config") {
            let app = self.live.app(place, subject.app?)?;
            let primary = self.live.endpoint(app.primary_endpoint?)?;
            self.live.keyring(primary.keyring)?
        } else {
            return None;
        };
        let secret = match (subject.secret, &keyring.rotation, subject.rotation) {
            (Some(named), _, _) => keyring.secret(named),
            (None, Some(rotation), Some(_)) => keyring.secret(rotation.to),
            (None, _, _) if subject.keyring.is_some() && route.starts_with("GET ") => None,
            (None, _, _) => keyring.active(),
        };
        let secret = secret.cloned()?;
        (keyring.workspace == place).then_some((keyring, secret))
    }

    /// The keyring that holds the secret that is named, or is named itself.
    fn named_keyring(&self, subject: &Subject) -> Option<Arc<Keyring>> {
        let sealed = subject.secret.and_then(|id| self.live.sealed_secret(id));
        let named = sealed.map(|sealed| sealed.keyring).or(subject.keyring);
        self.live.keyring(named?)
    }

    /// The keyring of `owner` whose latest rotation is this one.
    fn keyring_rotating(&self, owner: WorkspaceId, id: RotationId) -> Option<Arc<Keyring>> {
        let mut keyrings = self.live.keyrings(owner).into_iter();
        keyrings.find(|keyring| {
            let latest = keyring.rotation.as_ref();
            latest.is_some_and(|rotation| rotation.id == id)
        })
    }
}

const fn home_of(key: &ApiKey) -> Home {
    match key.reach {
        Reach::Operator => Home::Everywhere,
        Reach::Workspace { workspace, .. } => Home::Workspace(workspace),
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

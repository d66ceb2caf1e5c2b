//! Denied attempts in the audit log, as many as a disk can take.
//!
//! Who is refused can ask again at once, so what is written down of it is bounded, see [`budget`]. What
//! is left out is counted for each key, route and log, and the count is in the next entry of the same
//! three (`leftOut`); [`Service::settle`] writes it when no attempt follows. A count that was not written
//! yet is lost with the process.
//!
//! Where an entry goes:
//!
//! 1. Into the log of the workspace that was acted in; with a dead key, in which it would have been.
//! 2. If the request names what another workspace has, into the log of that one too.
//! 3. Only there, if the key would have sufficed for a thing of its own: a thing that does not exist
//!    leaves no entry, and the one who asked must not learn from their log that this one does.
//! 4. Without a known key it is the workspace that has what the request names, else the workspace it
//!    names, else the one that operators act in.
//!
//! An attempt that was aimed at a keyring or a secret carries its id and the secret's fingerprint
//! ([`Service::aim`]), as far as it belongs to the workspace in whose log it stands. It costs the same to
//! find it whatever the number of workspaces and keyrings: strangers ask for it too.

use std::sync::Arc;

use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject};
use hookturn_core::id::{ApiKeyId, ClientId, RotationId, SecretId, WorkspaceId};
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
    /// The key whose session it showed instead.
    pub session_of: Option<ApiKeyId>,
    /// Its id.
    pub request_id: String,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// The workspace it named, by id or name.
    pub workspace: Option<&'a str>,
    /// What it asked for.
    pub asked: Asked,
}

/// An entry on its way: where it goes, and who made it necessary.
type Noted = (WorkspaceId, Context, AuditEntry);

impl Service {
    /// Writes down that a caller's key did not suffice. `needs` is a scope, or `operator`.
    pub(super) async fn note_denied(&self, caller: &Caller, needs: &str) {
        let owner = self.owner_of(&caller.asked.subject);
        let owner = owner.filter(|owner| *owner != caller.workspace);
        for place in [Some(caller.workspace), owner].into_iter().flatten() {
            let noted = self.admitted(caller, place, |entry| {
                entry.with("cause", "not allowed").with("needs", needs)
            });
            self.write_denied(noted).await;
        }
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
        let key = key.or_else(|| self.live.api_key(refused.session_of?));
        let (actor, who, cause) = match &key {
            Some(key) if key.revoked_at.is_some() => {
                (Actor::ApiKey(key.id), Who::Key(key.id), "revoked key")
            }
            Some(key) => (Actor::ApiKey(key.id), Who::Key(key.id), "expired key"),
            None if refused.bearer.is_some() => (Actor::Unknown, Who::Unknown, "unknown key"),
            None => (Actor::Unknown, Who::Unknown, "no key"),
        };
        let home = key.as_deref().map_or(Home::Nowhere, home_of);
        let owner = self.owner_of(&refused.asked.subject);
        let places = match home {
            Home::Workspace(home) => [Some(home), owner.filter(|owner| *owner != home)],
            Home::Everywhere | Home::Nowhere => {
                let named = refused.workspace.and_then(|text| self.workspace_id(text));
                let place = owner.or(named).or_else(|| self.default_workspace());
                [place, None]
            }
        };
        let Asked { route, subject } = refused.asked;
        let subject = Subject {
            api_key: key.as_deref().map(|key| key.id),
            ..subject
        };
        let context = Context {
            actor,
            request_id: Some(refused.request_id),
            reason: refused.reason,
        };
        for place in places.into_iter().flatten() {
            let counted = Counted::attempts(who, route.clone(), place);
            let Some(left_out) = self.budgets.admit(counted, home, place, now) else {
                continue;
            };
            let entry = AuditEntry::new(AuditAction::AccessDenied, subject).with("cause", cause);
            let entry = self.aimed(place, entry, route.as_deref());
            let entry = complete(entry, route.as_deref(), left_out);
            self.write_denied(Some((place, context.clone(), entry)))
                .await;
        }
    }

    /// Writes down that a caller named what belongs to `owner`, another workspace. The answer, which
    /// is that of a thing that does not exist, does not wait for it: it must not come later than that.
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
        let keyring = self.live.keyring_rotating(id);
        let owner = keyring.map(|keyring| keyring.workspace);
        if let Some(owner) = owner.filter(|owner| *owner != caller.workspace) {
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
        let owner = self.live.app_home(id);
        if let Some(owner) = owner.filter(|owner| *owner != caller.workspace) {
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
        let counted = Counted::attempts(Who::Key(caller.key.id), route.map(str::to_owned), place);
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
    /// The entry with the keyring and the secret that its attempt was aimed at, if they belong to `place`.
    fn aimed(&self, place: WorkspaceId, entry: AuditEntry, route: Option<&str>) -> AuditEntry {
        let route = route.unwrap_or_default();
        let Some((keyring, secret)) = self.aim(place, &entry.subject, route) else {
            return entry;
        };
        AuditEntry {
            subject: Subject {
                keyring: Some(keyring.id),
                secret: secret.as_ref().map(|secret| secret.id),
                ..entry.subject
            },
            fingerprint: secret.map(|secret| secret.fingerprint),
            ..entry
        }
    }

    /// What a request was aimed at: a keyring of `place`, and in it the secret
    ///
    /// 1. that it names;
    /// 2. that the rotation it names brings;
    /// 3. that is active, unless the request only wanted to read about the keyring.
    fn aim(
        &self,
        place: WorkspaceId,
        subject: &Subject,
        route: &str,
    ) -> Option<(Arc<Keyring>, Option<SecretVersion>)> {
        let keyring = self.aimed_keyring(place, subject, route)?;
        let configures = subject.app.is_some() && is_webhook_config(route);
        let secret = match (subject.secret, &keyring.rotation, subject.rotation) {
            (Some(named), _, _) => Some(keyring.secret(named)?),
            (None, Some(rotation), Some(_)) => keyring.secret(rotation.to),
            (None, _, _) if route.starts_with("GET ") && !configures => None,
            (None, _, _) => keyring.active(),
        };
        let secret = secret.cloned();
        (keyring.workspace == place).then_some((keyring, secret))
    }

    /// The keyring that a request was aimed at:
    ///
    /// 1. that of the rotation it names, of the secret, or the one it names itself;
    /// 2. that of the endpoint it names, where the route asks its receiver about secrets or ends them;
    /// 3. that of an app's primary endpoint, where the route is about the app's one webhook
    ///    configuration, which shows the secret;
    /// 4. the one that is shared in `place`, where the route knows no other.
    fn aimed_keyring(
        &self,
        place: WorkspaceId,
        subject: &Subject,
        route: &str,
    ) -> Option<Arc<Keyring>> {
        if let Some(rotation) = subject.rotation {
            return self.live.keyring_rotating(rotation);
        }
        if let Some(keyring) = self.named_keyring(subject) {
            return Some(keyring);
        }
        let ends = route.starts_with("DELETE ") || route.ends_with("/rehearse");
        if let Some(endpoint) = subject.endpoint.filter(|_| ends) {
            return self.live.keyring(self.live.endpoint(endpoint)?.keyring);
        }
        if is_webhook_config(route) {
            let app = self.live.app(place, subject.app?)?;
            let primary = self.live.endpoint(app.primary_endpoint?)?;
            return self.live.keyring(primary.keyring);
        }
        if subject.secret.is_some() || route.contains(SHARED_SECRETS) {
            let shared = self.live.workspace(place)?.shared_keyring;
            return self.live.keyring(shared);
        }
        None
    }

    /// The keyring that holds the secret that is named, or is named itself.
    fn named_keyring(&self, subject: &Subject) -> Option<Arc<Keyring>> {
        let sealed = subject.secret.and_then(|id| self.live.sealed_secret(id));
        let named = sealed.map(|sealed| sealed.keyring).or(subject.keyring);
        self.live.keyring(named?)
    }

    /// The workspace that has what is named.
    fn owner_of(&self, subject: &Subject) -> Option<WorkspaceId> {
        let keyring = self.named_keyring(subject).or_else(|| {
            let rotation = subject.rotation?;
            self.live.keyring_rotating(rotation)
        });
        if let Some(keyring) = keyring {
            return Some(keyring.workspace);
        }
        let endpoint = subject.endpoint.and_then(|id| self.live.endpoint(id));
        if let Some(endpoint) = endpoint {
            return Some(endpoint.workspace);
        }
        if let Some(home) = subject.app.and_then(|id| self.live.app_home(id)) {
            return Some(home);
        }
        match self.live.api_key(subject.api_key?)?.reach {
            Reach::Workspace { workspace, .. } => Some(workspace),
            Reach::Operator => None,
        }
    }
}

/// The secrets of KORE's API: those of the shared keyring, which its paths do not name.
const SHARED_SECRETS: &str = " /kore/v1/secrets";

/// Whether a route is about an app's one webhook configuration, in either spelling.
fn is_webhook_config(route: &str) -> bool {
    route.contains("/webhook-config") || route.contains("/webhook_config")
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

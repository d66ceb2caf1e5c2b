//! The live view: everything configured, in memory, as of the last commit.
//!
//! The engine that commits a change applies it here *before* the change is answered. So whoever got
//! an answer knows that no signer on this node still reads the old keyring (G4), and the acceptor
//! and the signers never ask the disk. Readers get `Arc`s of immutable values; nobody can change one
//! in place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use hookturn_core::bulk::Bulk;
use hookturn_core::endpoint::{Endpoint, EndpointState};
use hookturn_core::id::{
    ApiKeyId, BulkId, ClientId, EndpointId, KeyringId, RotationId, SecretId, WorkspaceId,
};
use hookturn_core::message::EventType;
use hookturn_core::proof::Findings;
use hookturn_core::rotation::{Keyring, KeyringOwner};
use hookturn_core::store::{Configuration, ReceiverState, SealedSecret, Write};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{ApiKey, App, Workspace};
use tokio::time::Instant;

mod confirmed;
mod findings;
mod planned;

/// Everything configured. Cheap to read from any thread.
#[derive(Debug, Default)]
pub struct Live {
    view: RwLock<View>,
    confirmed: confirmed::Confirmed,
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct View {
    workspaces: BTreeMap<WorkspaceId, Arc<Workspace>>,
    api_keys: BTreeMap<ApiKeyId, Arc<ApiKey>>,
    api_key_by_hash: HashMap<[u8; 32], ApiKeyId>,
    api_key_uses: HashMap<ApiKeyId, Timestamp>,
    apps: BTreeMap<(WorkspaceId, ClientId), AppView>,
    /// In which workspace an app is.
    app_homes: HashMap<ClientId, WorkspaceId>,
    endpoints: HashMap<EndpointId, Arc<Endpoint>>,
    keyrings: HashMap<KeyringId, Arc<Keyring>>,
    /// Whose latest rotation it is.
    latest_rotations: HashMap<RotationId, KeyringId>,
    secrets: HashMap<SecretId, Arc<SealedSecret>>,
    receivers: HashMap<EndpointId, Arc<ReceiverState>>,
    findings: HashMap<EndpointId, Findings>,
    /// Until when nothing is sent to an endpoint that failed too often in a row.
    breakers: HashMap<EndpointId, Timestamp>,
    /// Endpoints whose findings changed since they were last stored, with what was stored.
    unsaved: BTreeMap<EndpointId, Findings>,
    /// Keyrings whose latest rotation is open, as last written down.
    open: BTreeSet<KeyringId>,
    /// When time will have done something to a keyring that is to be written down.
    settle_due: BTreeSet<(Timestamp, KeyringId)>,
    /// Keyrings with an open rotation about which something is new since it was last asked.
    stirred: BTreeSet<KeyringId>,
    /// Bulk rotations that are not over.
    bulks: BTreeMap<BulkId, Arc<Bulk>>,
    /// The sealed key of the marks.
    mark_key: Option<Arc<[u8]>>,
    planned: planned::Planned,
    /// Endpoints that sign with a keyring that is not theirs alone.
    shared_users: HashMap<KeyringId, BTreeSet<EndpointId>>,
}

#[derive(Debug)]
struct AppView {
    app: Arc<App>,
    /// In order of creation.
    endpoints: BTreeSet<EndpointId>,
}

/// What signing for one endpoint needs, read at one moment.
#[derive(Debug, Clone)]
pub struct SigningView {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Its keyring.
    pub keyring: Arc<Keyring>,
    /// What is known of its receiver.
    pub receiver: Arc<ReceiverState>,
    /// What probes and deliveries have shown of it.
    pub findings: Findings,
    /// Its workspace: white-label header names.
    pub workspace: Arc<Workspace>,
}

impl Live {
    fn read(&self) -> RwLockReadGuard<'_, View> {
        // A view is replaced value by value; a panic elsewhere cannot leave one half written.
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        change(&mut self.view.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces everything by what was loaded.
    pub fn reset(&self, loaded: Configuration) {
        let mut view = View::default();
        for workspace in loaded.workspaces {
            view.apply(Write::Workspace(workspace));
        }
        for key in loaded.api_keys {
            view.apply(Write::ApiKey(key));
        }
        for app in loaded.apps {
            view.apply(Write::App(app));
        }
        for endpoint in loaded.endpoints {
            view.apply(Write::Endpoint(endpoint));
        }
        for keyring in loaded.keyrings {
            view.apply(Write::Keyring(keyring));
        }
        for secret in loaded.secrets {
            view.apply(Write::Secret(secret));
        }
        for (_, endpoint, receiver) in loaded.receivers {
            view.receivers.insert(endpoint, Arc::new(receiver));
        }
        view.findings = loaded.findings.into_iter().collect();
        view.planned = planned::Planned::of(
            loaded.noted,
            loaded.reported,
            loaded.schedules,
            loaded.schedule_notes,
        );
        view.api_key_uses = loaded.api_key_uses.into_iter().collect();
        for bulk in loaded.bulks {
            view.apply(Write::Bulk(bulk));
        }
        view.mark_key = loaded.mark_key;
        self.write(|current| *current = view);
    }

    /// Whether what is signed from this view now is signed with keys that nobody can have retired:
    /// always, unless the engine has to confirm it.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed.now()
    }

    /// Waits until it is.
    pub fn until_confirmed(&self) -> impl Future<Output = ()> + Send + '_ {
        self.confirmed.until_now()
    }

    /// Nobody else can change anything before this moment. Only engines call this.
    pub fn confirm_until(&self, moment: Instant) {
        self.confirmed.until(moment);
    }

    /// Someone else may change something from now on. Only engines call this.
    pub fn confirm_no_longer(&self) {
        self.confirmed.no_longer();
    }

    /// How often what several nodes share was changed, as far as this view shows it; 0 where nobody shares it.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// The view shows everything up to this version now. Only engines call this.
    pub fn shows(&self, version: u64) {
        self.version.store(version, Ordering::SeqCst);
    }

    /// Applies committed writes. Only engines call this.
    pub fn apply(&self, writes: Vec<Write>) {
        self.write(|view| writes.into_iter().for_each(|write| view.apply(write)));
    }

    /// Replaces what is known of a receiver. Only engines call this.
    pub fn put_receiver(&self, endpoint: EndpointId, receiver: ReceiverState) {
        self.write(|view| view.receivers.insert(endpoint, Arc::new(receiver)));
    }

    /// Remembers when another node saw a key used. Only engines call this.
    pub fn note_api_key_use(&self, key: ApiKeyId, at: Timestamp) {
        self.write(|view| {
            let known = view.api_key_uses.entry(key).or_insert(at);
            *known = at.max(*known);
        });
    }

    /// Forgets a deleted endpoint that nothing refers to any more. Only engines call this.
    pub fn forget_endpoint(&self, endpoint: EndpointId) {
        self.write(|view| {
            view.endpoints.remove(&endpoint);
            view.receivers.remove(&endpoint);
            view.findings.remove(&endpoint);
            view.breakers.remove(&endpoint);
            view.unsaved.remove(&endpoint);
        });
    }

    /// Replaces the sealed value of a secret if it still is `old`. Only engines call this.
    pub fn reseal(&self, fresh: &SealedSecret, old: &[u8]) {
        self.write(|view| {
            if let Some(held) = view.secrets.get_mut(&fresh.secret)
                && *held.sealed == *old
            {
                *held = Arc::new(fresh.clone());
            }
        });
    }

    /// Remembers the last use of a key; returns whether it is news worth storing.
    pub fn touch_api_key(&self, key: ApiKeyId, now: Timestamp, stale_millis: u64) -> bool {
        let known = self.read().api_key_uses.get(&key).copied();
        if known.is_some_and(|known| now.since(known) < stale_millis) {
            return false;
        }
        self.write(|view| view.api_key_uses.insert(key, now));
        true
    }

    /// When a key was last used, as far as known.
    pub fn api_key_used_at(&self, key: ApiKeyId) -> Option<Timestamp> {
        self.read().api_key_uses.get(&key).copied()
    }

    /// One workspace.
    pub fn workspace(&self, id: WorkspaceId) -> Option<Arc<Workspace>> {
        self.read().workspaces.get(&id).cloned()
    }

    /// The workspace of a name.
    pub fn workspace_named(&self, name: &str) -> Option<Arc<Workspace>> {
        self.read()
            .workspaces
            .values()
            .find(|workspace| workspace.name == name)
            .cloned()
    }

    /// All workspaces in order of creation.
    pub fn workspaces(&self) -> Vec<Arc<Workspace>> {
        self.read().workspaces.values().cloned().collect()
    }

    /// The API key whose text has this SHA-256.
    pub fn api_key_by_hash(&self, hash: &[u8; 32]) -> Option<Arc<ApiKey>> {
        let view = self.read();
        view.api_keys.get(view.api_key_by_hash.get(hash)?).cloned()
    }

    /// One API key.
    pub fn api_key(&self, id: ApiKeyId) -> Option<Arc<ApiKey>> {
        self.read().api_keys.get(&id).cloned()
    }

    /// All API keys in order of creation.
    pub fn api_keys(&self) -> Vec<Arc<ApiKey>> {
        self.read().api_keys.values().cloned().collect()
    }

    /// One app.
    pub fn app(&self, workspace: WorkspaceId, id: ClientId) -> Option<Arc<App>> {
        self.read()
            .apps
            .get(&(workspace, id))
            .map(|view| Arc::clone(&view.app))
    }

    /// The workspace that has an app of this id.
    pub fn app_home(&self, id: ClientId) -> Option<WorkspaceId> {
        self.read().app_homes.get(&id).copied()
    }

    /// The apps of a workspace, newest first.
    pub fn apps(&self, workspace: WorkspaceId) -> Vec<Arc<App>> {
        let first = ClientId::FIRST;
        let view = self.read();
        let mut apps: Vec<_> = view
            .apps
            .range((workspace, first)..)
            .take_while(|((owner, _), _)| *owner == workspace)
            .map(|(_, view)| Arc::clone(&view.app))
            .collect();
        apps.sort_by_key(|app| std::cmp::Reverse((app.created_at, app.id)));
        apps
    }

    /// One endpoint, deleted ones too.
    pub fn endpoint(&self, id: EndpointId) -> Option<Arc<Endpoint>> {
        self.read().endpoints.get(&id).cloned()
    }

    /// The endpoints of an app that are not deleted, oldest first.
    pub fn endpoints(&self, workspace: WorkspaceId, app: ClientId) -> Vec<Arc<Endpoint>> {
        let view = self.read();
        let Some(app) = view.apps.get(&(workspace, app)) else {
            return Vec::new();
        };
        app.endpoints
            .iter()
            .filter_map(|id| view.endpoints.get(id).cloned())
            .collect()
    }

    /// Every endpoint, deleted ones too, in no order.
    pub fn all_endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.read().endpoints.values().cloned().collect()
    }

    /// The endpoints of an app that take a message of this type now; `None` without such an app.
    pub fn fan_out(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        event_type: &EventType,
    ) -> Option<Vec<EndpointId>> {
        let view = self.read();
        let app = view.apps.get(&(workspace, app))?;
        let wants = |id: &&EndpointId| {
            view.endpoints.get(id).is_some_and(|endpoint| {
                endpoint.state.takes_messages() && endpoint.events.wants(event_type)
            })
        };
        Some(app.endpoints.iter().filter(wants).copied().collect())
    }

    /// What signing for an endpoint needs; `None` if it is unknown.
    pub fn signing(&self, id: EndpointId) -> Option<SigningView> {
        let view = self.read();
        let endpoint = Arc::clone(view.endpoints.get(&id)?);
        let keyring = Arc::clone(view.keyrings.get(&endpoint.keyring)?);
        let workspace = Arc::clone(view.workspaces.get(&endpoint.workspace)?);
        let receiver = view.receivers.get(&id).cloned().unwrap_or_default();
        let findings = view.findings_of(id);
        Some(SigningView {
            endpoint,
            keyring,
            receiver,
            findings,
            workspace,
        })
    }

    /// Notes until when the breaker of an endpoint is open, or that it is closed. Only dispatch calls this.
    pub fn note_breaker(&self, endpoint: EndpointId, open_until: Option<Timestamp>) {
        self.write(|view| match open_until {
            Some(until) => view.breakers.insert(endpoint, until),
            None => view.breakers.remove(&endpoint),
        });
    }

    /// Until when nothing is sent to an endpoint, as far as its breaker was last noted to say.
    pub fn breaker(&self, endpoint: EndpointId) -> Option<Timestamp> {
        self.read().breakers.get(&endpoint).copied()
    }

    /// What is known of a receiver.
    pub fn receiver(&self, id: EndpointId) -> Arc<ReceiverState> {
        let view = self.read();
        let known = view.receivers.get(&id).cloned().unwrap_or_default();
        match view.retargeted_at(id) {
            Some(since) => Arc::new((*known).clone().since(Some(since))),
            None => known,
        }
    }

    /// One keyring.
    pub fn keyring(&self, id: KeyringId) -> Option<Arc<Keyring>> {
        self.read().keyrings.get(&id).cloned()
    }

    /// The keyring whose latest rotation is this one.
    pub fn keyring_rotating(&self, id: RotationId) -> Option<Arc<Keyring>> {
        let view = self.read();
        let keyring = view.latest_rotations.get(&id)?;
        view.keyrings.get(keyring).cloned()
    }

    /// The keyrings of a workspace.
    pub fn keyrings(&self, workspace: WorkspaceId) -> Vec<Arc<Keyring>> {
        let view = self.read();
        let mut keyrings: Vec<_> = view
            .keyrings
            .values()
            .filter(|keyring| keyring.workspace == workspace)
            .cloned()
            .collect();
        keyrings.sort_by_key(|keyring| keyring.id);
        keyrings
    }

    /// The keyrings whose latest rotation is open, as last written down.
    pub fn open_keyrings(&self) -> Vec<Arc<Keyring>> {
        let view = self.read();
        let open = view.open.iter();
        open.filter_map(|id| view.keyrings.get(id).cloned())
            .collect()
    }

    /// The keyrings with an open rotation about which something is new since the last call: they were
    /// written, or a receiver answered.
    pub fn take_stirred(&self) -> BTreeSet<KeyringId> {
        // Nothing is new almost always, and a look is cheaper than a lock for writing.
        if self.read().stirred.is_empty() {
            return BTreeSet::new();
        }
        self.write(|view| std::mem::take(&mut view.stirred))
    }

    /// The keyrings to which time has done something by `now` that is not written down.
    pub fn to_settle(&self, now: Timestamp) -> Vec<Arc<Keyring>> {
        let view = self.read();
        view.settle_due
            .iter()
            .take_while(|(due, _)| *due <= now)
            .filter_map(|(_, keyring)| view.keyrings.get(keyring).cloned())
            .collect()
    }

    /// The bulk rotations that are not over, oldest first.
    pub fn open_bulks(&self) -> Vec<Arc<Bulk>> {
        self.read().bulks.values().cloned().collect()
    }

    /// One bulk rotation that is not over.
    pub fn open_bulk(&self, id: BulkId) -> Option<Arc<Bulk>> {
        self.read().bulks.get(&id).cloned()
    }

    /// The sealed key of the marks, once there is one.
    pub fn mark_key(&self) -> Option<Arc<[u8]>> {
        self.read().mark_key.clone()
    }

    /// The endpoints that sign with a keyring and are not deleted.
    pub fn keyring_users(&self, keyring: &Keyring) -> Vec<Arc<Endpoint>> {
        let view = self.read();
        let found = |id: &EndpointId| {
            view.endpoints
                .get(id)
                .filter(|e| !matches!(e.state, EndpointState::Deleted { .. }))
                .cloned()
        };
        match keyring.owner {
            KeyringOwner::Endpoint { endpoint: id } => found(&id).into_iter().collect(),
            KeyringOwner::Shared => view
                .shared_users
                .get(&keyring.id)
                .into_iter()
                .flatten()
                .filter_map(found)
                .collect(),
        }
    }

    /// The sealed value of a secret, unless it was destroyed.
    pub fn sealed_secret(&self, id: SecretId) -> Option<Arc<SealedSecret>> {
        self.read().secrets.get(&id).cloned()
    }

    /// Every sealed value, for re-sealing.
    pub fn sealed_secrets(&self) -> Vec<Arc<SealedSecret>> {
        self.read().secrets.values().cloned().collect()
    }
}

impl View {
    fn apply(&mut self, write: Write) {
        match write {
            Write::Workspace(workspace) => {
                self.workspaces.insert(workspace.id, Arc::new(workspace));
            }
            Write::ApiKey(key) => {
                if let Some(old) = self.api_keys.get(&key.id) {
                    self.api_key_by_hash.remove(&old.hash);
                }
                self.api_key_by_hash.insert(key.hash, key.id);
                self.api_keys.insert(key.id, Arc::new(key));
            }
            Write::App(app) => {
                let key = (app.workspace, app.id);
                self.app_homes.insert(app.id, app.workspace);
                let app = Arc::new(app);
                self.apps
                    .entry(key)
                    .and_modify(|view| view.app = Arc::clone(&app))
                    .or_insert_with(|| AppView {
                        app,
                        endpoints: BTreeSet::new(),
                    });
            }
            Write::RemoveApp { workspace, app, .. } => {
                self.apps.remove(&(workspace, app));
                self.app_homes.remove(&app);
            }
            Write::Endpoint(endpoint) => self.put_endpoint(endpoint),
            Write::Keyring(keyring) => self.put_keyring(keyring),
            Write::Rotation(_) | Write::Requeue { .. } | Write::Mark(_) | Write::BulkItem(_) => {}
            Write::MarkKey { sealed, .. } => self.mark_key = Some(sealed),
            Write::Bulk(bulk) => {
                if bulk.state.is_open() {
                    self.bulks.insert(bulk.id, Arc::new(bulk));
                } else {
                    self.bulks.remove(&bulk.id);
                }
            }
            Write::Secret(secret) => {
                self.secrets.insert(secret.secret, Arc::new(secret));
            }
            // What is in memory is never older than what is stored.
            Write::Findings {
                endpoint, findings, ..
            } => {
                self.findings.entry(endpoint).or_insert(findings);
            }
            Write::EraseSecret { secret, .. } => {
                self.secrets.remove(&secret);
            }
            planned @ (Write::Noted { .. }
            | Write::Reported { .. }
            | Write::Schedule(_)
            | Write::RemoveSchedule { .. }
            | Write::ScheduleNote { .. }) => self.planned.apply(planned),
        }
    }

    fn put_keyring(&mut self, keyring: Keyring) {
        let id = keyring.id;
        if let Some(due) = self.keyrings.get(&id).and_then(|old| old.settle_due_at()) {
            self.settle_due.remove(&(due, id));
        }
        if let Some(due) = keyring.settle_due_at() {
            self.settle_due.insert((due, id));
        }
        if keyring
            .rotation
            .as_ref()
            .is_some_and(|rotation| rotation.stage.is_open())
        {
            self.open.insert(id);
            self.stirred.insert(id);
        } else {
            self.open.remove(&id);
            self.stirred.remove(&id);
        }
        let latest = keyring.rotation.as_ref().map(|rotation| rotation.id);
        let old = self.keyrings.insert(id, Arc::new(keyring));
        if let Some(old) = old.and_then(|old| old.rotation.as_ref().map(|rotation| rotation.id)) {
            self.latest_rotations.remove(&old);
        }
        if let Some(latest) = latest {
            self.latest_rotations.insert(latest, id);
        }
    }

    fn put_endpoint(&mut self, endpoint: Endpoint) {
        let deleted = matches!(endpoint.state, EndpointState::Deleted { .. });
        if let Some(old) = self.endpoints.get(&endpoint.id)
            && old.keyring != endpoint.keyring
            && let Some(users) = self.shared_users.get_mut(&old.keyring)
        {
            users.remove(&endpoint.id);
        }
        let users = self.shared_users.entry(endpoint.keyring).or_default();
        if deleted {
            users.remove(&endpoint.id)
        } else {
            users.insert(endpoint.id)
        };
        if let Some(app) = self.apps.get_mut(&(endpoint.workspace, endpoint.app)) {
            if deleted {
                app.endpoints.remove(&endpoint.id);
            } else {
                app.endpoints.insert(endpoint.id);
            }
        }
        self.endpoints.insert(endpoint.id, Arc::new(endpoint));
    }
}

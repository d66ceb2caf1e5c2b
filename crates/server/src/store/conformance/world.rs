//! The world of a case: one store, its live view and hints, and values to put into it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject};
use hookturn_core::bulk::{Bulk, BulkItem, BulkState, ItemState, Manner, Pacing, Selector};
use hookturn_core::delivery::{
    Answer, Attempt, Exchange, ExchangeReason, ExchangeResult, Next, Timings,
};
use hookturn_core::endpoint::{BodyForm, Endpoint, EndpointState, Method, Preset, ProbeSettings};
use hookturn_core::id::{
    ApiKeyId, BulkId, ClientId, DeliveryId, EndpointId, Entropy, KeyringId, MessageId, RotationId,
    SecretId, Sequence, WorkspaceId,
};
use hookturn_core::message::{EventFilter, EventType, Message};
use hookturn_core::rotation::{KeyKind, Keyring, KeyringOwner, Mode, Rotation, Stage};
use hookturn_core::store::{
    Accept, Change, DeliveryQuery, Due, DueBlock, DueQuery, Finish, IdempotencyKey,
    IdempotencyRecord, NewMessage, Page, SealedSecret, Store, Write,
};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{ApiKey, App, Reach, Scope, Scopes, Workspace, WorkspaceSettings};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use super::{Engine, Recorder};
use crate::store::live::Live;

/// When the worlds begin.
pub const START: Timestamp = Timestamp::from_millis(1_784_505_600_000);

/// Predictable bytes.
struct Seeded(Mutex<StdRng>);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        let mut random = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        random.fill_bytes(bytes);
    }
}

/// One store with all that belongs to it.
pub struct World<'e, E: Engine> {
    engine: &'e E,
    place: E::Place,
    store: Option<Arc<dyn Store>>,
    /// Kept by the store.
    pub live: Arc<Live>,
    /// What the store said.
    pub hints: Arc<Recorder>,
    entropy: Seeded,
    sequence: Sequence,
}

/// A workspace with one app and two endpoints.
pub struct Tenant {
    /// The workspace.
    pub workspace: Workspace,
    /// Its app.
    pub app: App,
    /// The app's endpoints.
    pub endpoints: [Endpoint; 2],
}

impl<'e, E: Engine> World<'e, E> {
    /// An empty world.
    pub async fn new(engine: &'e E) -> Self {
        let place = engine.fresh().await;
        Self::at(engine, place).await
    }

    /// The world that a backup holds.
    pub async fn of_backup(engine: &'e E, backup: &std::path::Path) -> Self {
        let place = engine.restore(backup).await;
        Self::at(engine, place).await
    }

    async fn at(engine: &'e E, place: E::Place) -> Self {
        let mut world = Self {
            engine,
            place,
            store: None,
            live: Arc::default(),
            hints: Arc::default(),
            entropy: Seeded(Mutex::new(StdRng::seed_from_u64(7))),
            sequence: Sequence::default(),
        };
        world.open().await;
        world
    }

    async fn open(&mut self) {
        self.live = Arc::default();
        let (live, hints) = (Arc::clone(&self.live), Arc::clone(&self.hints));
        self.store = Some(self.engine.open(&self.place, live, hints).await);
    }

    /// Stops the store in order and starts it again.
    pub async fn restart(&mut self) {
        self.store = None;
        self.open().await;
    }

    /// Goes on with what a crash would leave.
    pub async fn crash(&mut self) {
        let left = self.engine.crash(&self.place).await;
        self.store = None;
        self.place = left;
        self.open().await;
    }

    /// Stops the store and lets the engine check what it left.
    pub async fn close_and_check(mut self) {
        self.store = None;
        self.engine.check(&self.place).await;
    }

    /// See [`Engine::rewrite_audit`].
    pub async fn rewrite_audit(&self) -> bool {
        self.engine.rewrite_audit(&self.place).await
    }

    /// Where the store is.
    pub fn place(&self) -> &E::Place {
        &self.place
    }

    /// See [`Engine::backup_path`].
    pub fn backup_path(&self) -> std::path::PathBuf {
        self.engine.backup_path(&self.place)
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    // ----- values -----

    /// A workspace of this name, version 1.
    pub fn workspace(&self, name: &str) -> Workspace {
        Workspace {
            id: WorkspaceId::new(START, &self.entropy),
            name: name.to_owned(),
            version: 1,
            shared_keyring: KeyringId::new(START, &self.entropy),
            settings: WorkspaceSettings::default(),
            created_at: START,
            updated_at: START,
        }
    }

    /// An API key for everything, version 1.
    pub fn api_key(&self) -> ApiKey {
        ApiKey {
            id: ApiKeyId::new(START, &self.entropy),
            name: "a key".to_owned(),
            reach: Reach::Operator,
            scopes: Scope::ALL.into_iter().collect::<Scopes>(),
            hash: hookturn_core::id::draw(&self.entropy),
            hint: "abcd".to_owned(),
            created_at: START,
            expires_at: None,
            revoked_at: None,
            version: 1,
        }
    }

    /// An app, version 1.
    pub fn app(&self, workspace: WorkspaceId) -> App {
        App {
            id: ClientId::new(&self.entropy),
            workspace,
            name: "an app".to_owned(),
            labels: BTreeMap::from([("tier".to_owned(), "gold".to_owned())]),
            rotation_overlap_seconds: Some(60),
            primary_endpoint: Some(EndpointId::new(START, &self.entropy)),
            version: 1,
            created_at: START,
            updated_at: START,
        }
    }

    /// An enabled endpoint, version 1, with the id of a keyring that need not exist.
    pub fn endpoint(&self, app: &App) -> Endpoint {
        Endpoint {
            id: EndpointId::at_place(self.sequence.next(START), &self.entropy),
            workspace: app.workspace,
            app: app.id,
            description: String::new(),
            url: None,
            retargeted_at: None,
            resumed_at: None,
            preset: Preset::Standard,
            method: Method::Post,
            body_form: BodyForm::Json,
            events: EventFilter::default(),
            headers: BTreeMap::new(),
            keyring: KeyringId::new(START, &self.entropy),
            state: EndpointState::Enabled,
            retry: Preset::Standard.retry(),
            timeout_millis: 15_000,
            connect_timeout_millis: 5_000,
            max_in_flight: 10,
            rate_limit_per_second: None,
            ordered: false,
            probe: ProbeSettings::default(),
            version: 1,
            created_at: START,
            updated_at: START,
        }
    }

    /// The empty keyring of an endpoint, version 1.
    pub fn keyring(&self, endpoint: &Endpoint) -> Keyring {
        let owner = KeyringOwner::Endpoint {
            endpoint: endpoint.id,
        };
        Keyring {
            version: 1,
            ..Keyring::new(
                endpoint.keyring,
                endpoint.workspace,
                owner,
                KeyKind::Symmetric,
            )
        }
    }

    /// A finished rotation.
    pub fn rotation(&self, keyring: &Keyring) -> Rotation {
        Rotation {
            id: RotationId::at_place(self.sequence.next(START), &self.entropy),
            keyring: keyring.id,
            workspace: keyring.workspace,
            mode: Mode::Overlap { overlap: 1_000 },
            opened_at: START,
            from: SecretId::new(START, &self.entropy),
            to: SecretId::new(START, &self.entropy),
            stage: Stage::Completed { at: START },
            reason: None,
            promotion: None,
            kept_until: None,
            version: 1,
        }
    }

    /// A running bulk rotation, version 1, with this many items that wait.
    pub fn bulk(&self, workspace: WorkspaceId, items: u32) -> (Bulk, Vec<BulkItem>) {
        let bulk = Bulk {
            id: BulkId::at_place(self.sequence.next(START), &self.entropy),
            workspace,
            selector: Selector {
                all: true,
                ..Selector::default()
            },
            manner: Manner::Immediate,
            pacing: Pacing::default(),
            context: context(),
            wave_ends: vec![items],
            wave: 0,
            wave_at: START,
            forgiven: 0,
            state: BulkState::Running,
            version: 1,
            created_at: START,
        };
        let item = |position| BulkItem {
            bulk: bulk.id,
            workspace,
            position,
            keyring: KeyringId::new(START, &self.entropy),
            state: ItemState::Waiting,
            version: 1,
        };
        let items = (0..items).map(item).collect();
        (bulk, items)
    }

    /// A sealed value: bytes that only have to come back.
    pub fn secret(&self, keyring: &Keyring, sealed: &[u8]) -> SealedSecret {
        SealedSecret {
            workspace: keyring.workspace,
            keyring: keyring.id,
            secret: SecretId::new(START, &self.entropy),
            version: 1,
            sealed: sealed.into(),
        }
    }

    /// An answer that expires one second after the start.
    pub fn answer(&self, body: &'static [u8]) -> IdempotencyRecord {
        IdempotencyRecord {
            key: IdempotencyKey(hookturn_core::id::draw(&self.entropy)),
            fingerprint: [3; 32],
            sealed_response: Some(Bytes::from_static(body)),
            shows: None,
            expires_at: START.after(1_000),
        }
    }

    /// A change at the start, by the system, with one audit entry.
    pub fn changing(&self, workspace: WorkspaceId, writes: Vec<Write>) -> Change {
        Change {
            workspace,
            writes,
            audit: vec![entry()],
            context: context(),
            at: START,
            idempotency: None,
        }
    }

    /// Writes, and expects that to work.
    pub async fn write(&self, workspace: WorkspaceId, writes: Vec<Write>) {
        let change = self.changing(workspace, writes);
        self.store().change(change).await.unwrap();
    }

    /// A stored tenant; its name is its workspace's.
    pub async fn tenant(&self, name: &str) -> Tenant {
        let workspace = self.workspace(name);
        let app = self.app(workspace.id);
        let endpoints = [self.endpoint(&app), self.endpoint(&app)];
        let mut writes = vec![Write::Workspace(workspace.clone()), Write::App(app.clone())];
        for endpoint in &endpoints {
            writes.push(Write::Keyring(self.keyring(endpoint)));
            writes.push(Write::Endpoint(endpoint.clone()));
        }
        self.write(workspace.id, writes).await;
        Tenant {
            workspace,
            app,
            endpoints,
        }
    }

    /// A message for these endpoints, with a payload of `{}` and white space.
    pub fn message(
        &self,
        app: &App,
        at: Timestamp,
        event_type: &str,
        bytes: usize,
        to: &[&Endpoint],
    ) -> NewMessage {
        let place = self.sequence.next(at);
        let payload = format!("{{{}}}", " ".repeat(bytes.saturating_sub(2)));
        let message = Message {
            id: MessageId::at_place(place, &self.entropy),
            workspace: app.workspace,
            app: app.id,
            event_type: EventType::new(event_type).unwrap(),
            event_id: Some("event-1".to_owned()),
            payload: payload.into(),
            accepted_at: at,
        };
        let deliveries = to.iter().map(|endpoint| {
            let place = self.sequence.next(at);
            (DeliveryId::at_place(place, &self.entropy), endpoint.id)
        });
        NewMessage {
            message: Arc::new(message),
            deliveries: deliveries.collect(),
        }
    }

    /// Accepts one message of type `thing.happened` for one endpoint; returns its due row.
    pub async fn accept_one(&self, tenant: &Tenant, at: Timestamp) -> Due {
        let to = &tenant.endpoints[0];
        let new = self.message(&tenant.app, at, "thing.happened", 16, &[to]);
        self.accept(new.clone()).await;
        accepted(&new).remove(0)
    }

    /// Accepts one message, and expects that to work.
    pub async fn accept(&self, new: NewMessage) {
        let accept = Accept {
            messages: vec![new],
            idempotency: None,
        };
        self.store().accept(accept).await.unwrap();
    }

    /// Finishes rows, and expects that to work.
    pub async fn finish(&self, finishes: Vec<Finish>) {
        self.store().finish(finishes, Vec::new()).await.unwrap();
    }

    /// Queues a delivery again as it is now, if there is one; the change that does it is returned.
    pub async fn requeueing(
        &self,
        workspace: WorkspaceId,
        id: DeliveryId,
        at: Timestamp,
    ) -> Option<Change> {
        let (delivery, _) = self.store().delivery(workspace, id).await.unwrap()?;
        Some(self.changing(workspace, vec![Write::Requeue { delivery, at }]))
    }

    /// Queues a delivery that must be there again.
    pub async fn requeue(&self, workspace: WorkspaceId, id: DeliveryId, at: Timestamp) {
        let change = self.requeueing(workspace, id, at).await.unwrap();
        self.store().change(change).await.unwrap();
    }

    /// Everything due of an endpoint until a time.
    pub async fn due(&self, endpoint: &Endpoint, until: Timestamp) -> DueBlock {
        let query = DueQuery {
            workspace: endpoint.workspace,
            endpoint: endpoint.id,
            until,
            limit: 10_000,
            payload_bytes: usize::MAX,
        };
        self.store().due(query).await.unwrap()
    }
}

/// An audit entry.
pub fn entry() -> AuditEntry {
    AuditEntry::new(AuditAction::WorkspaceUpdated, Subject::default()).with("why", "a test")
}

/// The system, in no request.
pub const fn context() -> Context {
    Context {
        actor: Actor::System,
        request_id: None,
        reason: None,
    }
}

/// The due rows that a message becomes.
pub fn accepted(new: &NewMessage) -> Vec<Due> {
    let row = |(delivery, endpoint): &(DeliveryId, EndpointId)| Due {
        delivery: *delivery,
        endpoint: *endpoint,
        due_at: new.message.accepted_at,
        not_before: new.message.accepted_at,
        attempts: 0,
        attempts_before_requeue: 0,
        message: Arc::clone(&new.message),
    };
    new.deliveries.iter().map(row).collect()
}

/// An attempt with one answer.
pub fn attempt(number: u32, status: u16) -> Attempt {
    Attempt {
        number,
        started_at: START,
        duration_millis: 12,
        exchanges: vec![Exchange {
            reason: ExchangeReason::Plan,
            signed_with: Vec::new(),
            timestamp: START.as_seconds(),
            signature: "v1,signature".to_owned(),
            result: ExchangeResult::Answered(Answer {
                status,
                headers: Vec::new(),
                body: b"thanks".to_vec(),
                truncated: false,
                retry_after_millis: None,
            }),
            timings: Timings::default(),
            resent: false,
        }],
    }
}

/// The next attempt of a row and what follows.
pub fn finished(due: &Due, status: u16, next: Next) -> Finish {
    Finish {
        attempt: Some(attempt(due.attempts + 1, status)),
        due: due.clone(),
        next,
        keeps_place: false,
        at: due.due_at.after(20),
    }
}

/// Every delivery of an app on one page.
pub fn all_of(app: &App) -> DeliveryQuery {
    DeliveryQuery {
        workspace: app.workspace,
        app: app.id,
        status: None,
        endpoint: None,
        event_type: None,
        message: None,
        since: None,
        until: None,
        page: Page {
            before: None,
            limit: 10_000,
        },
    }
}

/// The fields by which due rows are compared.
pub fn keys(rows: &[Due]) -> Vec<(DeliveryId, EndpointId, Timestamp, Timestamp, u32, u32)> {
    rows.iter()
        .map(|due| {
            (
                due.delivery,
                due.endpoint,
                due.due_at,
                due.not_before,
                due.attempts,
                due.attempts_before_requeue,
            )
        })
        .collect()
}

//! A whole sender without its HTTP side: store, service, courier and shards, on a clock that the
//! test moves.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hookturn::courier::Courier;
use hookturn::courier::keys::KeyCache;
use hookturn::dispatch::{self, Dispatch, Inboxes};
use hookturn::outbound::{AddressPolicy, ClientConfig, SystemResolver};
use hookturn::service::apps::NewApp;
use hookturn::service::deliveries::DeliveryFilter;
use hookturn::service::endpoints::{CreatedEndpoint, EndpointPatch, NewEndpoint, Switch};
use hookturn::service::master_key::MasterKeys;
use hookturn::service::messages::NewMessageInput;
use hookturn::service::rotation::{ModeName, NewRotation, OpenedRotation};
use hookturn::service::{self, Caller, Service, TargetPolicy};
use hookturn::store::live::Live;
use hookturn::store::seal::{MasterKey, Sealer};
use hookturn::store::sqlite::{SqliteOptions, SqliteStore};
use hookturn::telemetry::metrics::Metrics;
use hookturn_core::delivery::{Attempt, Delivery, DeliveryStatus};
use hookturn_core::endpoint::{Endpoint, Preset};
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, Entropy, KeyringId, MessageId};
use hookturn_core::message::EventType;
use hookturn_core::store::{Hint, HintSink, Page, Store, StoreFuture};
use hookturn_core::time::{Clock, DAY, Millis, Timestamp};
use hookturn_verify::{Secret, Verifier};

use crate::receiver::{BOUND, IDENTITY, Receiver, status};
use crate::store::Watched;

const API_KEY: &str = "sk_operator_0123456789abcdef0123456789abcdef0123456789";
pub(crate) const START: Timestamp = Timestamp::from_millis(1_784_505_600_000);

pub(crate) struct ManualClock(AtomicI64);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// SplitMix64: every run draws the same.
struct Seeded(AtomicU64);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

struct AnyTarget;

impl TargetPolicy for AnyTarget {
    fn check(&self, _: &url::Url) -> Result<(), String> {
        Ok(())
    }
}

/// What is between the store and the shards: it may say that another node accepted what this one did, and hold hints back.
#[derive(Default)]
pub(crate) struct Overheard {
    inboxes: Mutex<Option<Inboxes>>,
    pub(crate) as_told: AtomicBool,
    pub(crate) holds: AtomicBool,
    held: Mutex<Vec<Hint>>,
}

impl HintSink for Overheard {
    fn hint(&self, hints: Vec<Hint>) {
        let as_told = self.as_told.load(Ordering::SeqCst);
        let hints = hints.into_iter().map(|hint| match hint {
            Hint::Accepted(rows) if as_told => Hint::Told(rows),
            other => other,
        });
        let mut held = self.held.lock().unwrap();
        held.extend(hints);
        if !self.holds.load(Ordering::SeqCst)
            && let Some(inboxes) = &*self.inboxes.lock().unwrap()
        {
            inboxes.hint(std::mem::take(&mut *held));
        }
    }
}

impl Overheard {
    pub(crate) fn release(&self) {
        self.holds.store(false, Ordering::SeqCst);
        self.hint(Vec::new());
    }
}

/// What runs between two restarts.
struct Running {
    store: Arc<Watched>,
    service: Arc<Service>,
    live: Arc<Live>,
    inboxes: Inboxes,
    dispatch: Option<Dispatch>,
    caller: Caller,
}

pub(crate) struct Rig {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) app: ClientId,
    entropy: Arc<Seeded>,
    running: Option<Running>,
    directory: tempfile::TempDir,
    shards: usize,
    pub(crate) disable_after: Millis,
    pub(crate) overheard: Arc<Overheard>,
}

/// These tests never rotate the master key.
struct FixedMasterKey;

impl MasterKeys for FixedMasterKey {
    fn next(&self, _: &[MasterKey]) -> Result<Vec<MasterKey>, String> {
        Err("the master key of this test is fixed".to_owned())
    }

    fn keep_check(&self, _: Vec<u8>) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with_shards(1).await
    }

    pub(crate) async fn with_shards(shards: usize) -> Self {
        let mut rig = Self {
            clock: Arc::new(ManualClock(AtomicI64::new(START.as_millis()))),
            app: ClientId::FIRST,
            entropy: Arc::new(Seeded(AtomicU64::new(7))),
            running: None,
            directory: tempfile::tempdir().unwrap(),
            shards,
            disable_after: 5 * DAY,
            overheard: Arc::default(),
        };
        rig.start().await;
        rig.app = rig.new_app().await;
        rig
    }

    pub(crate) async fn new_app(&self) -> ClientId {
        let input = NewApp {
            name: "shop".to_owned(),
            ..NewApp::default()
        };
        let app = self.service().create_app(self.caller(), input, None).await;
        app.unwrap().id
    }

    pub(crate) async fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let mut running = self.open_store().await;
        let dispatch = Dispatch::start(self.parts(&running), running.inboxes.clone()).await;
        running.dispatch = Some(dispatch.unwrap());
        self.running = Some(running);
    }

    async fn open_store(&self) -> Running {
        let live = Arc::new(Live::default());
        let inboxes = Inboxes::new(self.shards);
        *self.overheard.inboxes.lock().unwrap() = Some(inboxes.clone());
        let store = SqliteStore::open(SqliteOptions {
            path: self.path(),
            live: Arc::clone(&live),
            hints: Arc::clone(&self.overheard) as _,
        });
        let store = Arc::new(Watched::new(store.unwrap()));
        let service = Arc::new(Service::new(service::Parts {
            store: Arc::clone(&store) as _,
            live: Arc::clone(&live),
            sealer: self.sealer(),
            clock: Arc::clone(&self.clock) as _,
            entropy: Arc::clone(&self.entropy) as _,
            targets: Arc::new(AnyTarget),
            master_keys: Arc::new(FixedMasterKey),
            settings: service::Settings::default(),
        }));
        service.bootstrap(API_KEY.to_owned()).await.unwrap();
        let key = service.authenticate(API_KEY).unwrap();
        let caller = service.caller_for(key, None, "req_1", None).unwrap();
        Running {
            store,
            service,
            live,
            inboxes,
            dispatch: None,
            caller,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("hookturn.db")
    }

    fn sealer(&self) -> Arc<Sealer> {
        let keys = MasterKey::parse_list(&"5a".repeat(32)).unwrap();
        Arc::new(Sealer::new(keys, Arc::clone(&self.entropy) as _))
    }

    fn parts(&self, running: &Running) -> dispatch::Parts {
        let policy = AddressPolicy {
            allow_nets: vec!["127.0.0.0/8".parse().unwrap()],
            allow_http: true,
        };
        let roots = IDENTITY.0.as_bytes();
        let client = ClientConfig::new(policy, Arc::new(SystemResolver::new()), Some(roots));
        dispatch::Parts {
            store: Arc::clone(&running.store) as _,
            live: Arc::clone(&running.live),
            owned: Arc::default(),
            courier: Arc::new(Courier::new(
                Arc::clone(&running.live),
                KeyCache::new(self.sealer()),
                Arc::clone(&self.clock) as _,
            )),
            client: Arc::new(client.unwrap()),
            clock: Arc::clone(&self.clock) as _,
            entropy: Arc::clone(&self.entropy) as _,
            metrics: Arc::new(Metrics::default()),
            disable_after: self.disable_after,
        }
    }

    /// Drains and closes everything.
    pub(crate) async fn stop(&mut self) {
        let running = self.running.take().expect("it runs");
        running.dispatch.as_ref().unwrap().drain().await;
        // Closing the store joins its threads, which must not block this runtime's.
        tokio::task::spawn_blocking(move || drop(running))
            .await
            .unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    pub(crate) fn service(&self) -> &Service {
        &self.running().service
    }

    pub(crate) fn store(&self) -> &Watched {
        &self.running().store
    }

    pub(crate) fn live(&self) -> &Live {
        &self.running().live
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.running().caller
    }

    pub(crate) async fn drain(&self) {
        self.running().dispatch.as_ref().unwrap().drain().await;
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves the clock and tells the shards.
    pub(crate) fn advance(&self, by: Millis) {
        self.clock
            .0
            .fetch_add(i64::try_from(by).unwrap(), Ordering::SeqCst);
        self.running().inboxes.wake();
    }

    // ----- what there is -----

    pub(crate) async fn endpoint_with(&self, input: NewEndpoint) -> CreatedEndpoint {
        self.endpoint_in(self.app, input).await
    }

    pub(crate) async fn endpoint_in(&self, app: ClientId, input: NewEndpoint) -> CreatedEndpoint {
        let made = self
            .service()
            .create_endpoint(self.caller(), app, input, None)
            .await;
        made.unwrap()
    }

    pub(crate) async fn endpoint(&self, url: String) -> CreatedEndpoint {
        self.endpoint_with(NewEndpoint {
            url: Some(url),
            ..NewEndpoint::default()
        })
        .await
    }

    pub(crate) async fn patch(&self, endpoint: EndpointId, patch: EndpointPatch) -> Endpoint {
        let caller = self.caller();
        let patched = self
            .service()
            .patch_endpoint(caller, self.app, endpoint, patch, None, None);
        patched.await.unwrap()
    }

    pub(crate) async fn switch(&self, endpoint: EndpointId, state: Switch) {
        let patch = EndpointPatch {
            state: Some(state),
            ..EndpointPatch::default()
        };
        self.patch(endpoint, patch).await;
    }

    pub(crate) async fn rotate(
        &self,
        keyring: KeyringId,
        mode: ModeName,
        overlap: Option<Millis>,
    ) -> OpenedRotation {
        let input = NewRotation {
            mode,
            overlap,
            deadline_at: None,
            policy: None,
            name: None,
            value: None,
            reason: None,
        };
        let opened = self
            .service()
            .open_rotation(self.caller(), keyring, input, None, None);
        opened.await.unwrap()
    }

    // ----- what happens -----

    pub(crate) async fn publish(&self, payload: &str) -> MessageId {
        self.publish_to(self.app, payload).await
    }

    pub(crate) async fn publish_to(&self, app: ClientId, payload: &str) -> MessageId {
        let published = self
            .service()
            .publish(self.caller(), app, input(payload), None);
        published.await.unwrap()
    }

    pub(crate) async fn publish_many(
        &self,
        payloads: impl Iterator<Item = String>,
    ) -> Vec<MessageId> {
        let inputs: Vec<_> = payloads.map(|payload| input(&payload)).collect();
        let mut ids = Vec::with_capacity(inputs.len());
        for batch in inputs.chunks(1_000) {
            let published =
                self.service()
                    .publish_batch(self.caller(), self.app, batch.to_vec(), None);
            ids.extend(published.await.unwrap());
        }
        ids
    }

    /// Publishes events of these types together.
    pub(crate) async fn publish_events(
        &self,
        events: impl Iterator<Item = (&str, String)>,
    ) -> Vec<MessageId> {
        let inputs: Vec<_> = events
            .map(|(event_type, payload)| NewMessageInput {
                event_type: EventType::new(event_type).unwrap(),
                ..input(&payload)
            })
            .collect();
        let published = self
            .service()
            .publish_batch(self.caller(), self.app, inputs, None);
        published.await.unwrap()
    }

    /// Waits until the store's contents satisfy `check`.
    pub(crate) async fn until<T>(&self, what: &str, check: impl AsyncFn() -> Option<T>) -> T {
        let mut progress = self.store().progress.subscribe();
        loop {
            progress.mark_unchanged();
            if let Some(found) = check().await {
                return found;
            }
            let changed = tokio::time::timeout(BOUND, progress.changed()).await;
            changed
                .unwrap_or_else(|_| panic!("did not happen: {what}"))
                .unwrap();
        }
    }

    /// The one delivery of a message, with its attempts.
    pub(crate) async fn delivery_of(&self, message: MessageId) -> (Delivery, Vec<Attempt>) {
        let filter = DeliveryFilter {
            message: Some(message),
            ..DeliveryFilter::default()
        };
        let found = self.deliveries(filter).await;
        assert_eq!(found.len(), 1, "deliveries of {message}");
        self.service()
            .delivery(self.caller(), found[0].id)
            .await
            .unwrap()
    }

    pub(crate) async fn deliveries(&self, filter: DeliveryFilter) -> Vec<Delivery> {
        let mut all = Vec::new();
        let mut before = None;
        loop {
            let page = Page { before, limit: 200 };
            let listed = self
                .service()
                .deliveries(self.caller(), self.app, filter.clone(), page)
                .await;
            let listed = listed.unwrap();
            before = listed.items.last().map(|delivery: &Delivery| delivery.id);
            all.extend(listed.items);
            if !listed.has_more {
                return all;
            }
        }
    }

    pub(crate) async fn until_attempts(
        &self,
        message: MessageId,
        count: usize,
    ) -> (Delivery, Vec<Attempt>) {
        self.until("an attempt is recorded", async || {
            let (delivery, attempts) = self.delivery_of(message).await;
            (attempts.len() >= count).then_some((delivery, attempts))
        })
        .await
    }

    pub(crate) async fn until_settled(&self, message: MessageId) -> (Delivery, Vec<Attempt>) {
        let settled = self
            .until("the delivery settles", async || {
                let (delivery, attempts) = self.delivery_of(message).await;
                (delivery.state.status() != DeliveryStatus::Pending).then_some((delivery, attempts))
            })
            .await;
        let filter = DeliveryFilter {
            message: Some(message),
            status: Some(settled.0.state.status()),
            ..DeliveryFilter::default()
        };
        let listed = self.deliveries(filter).await;
        assert_eq!(
            listed,
            std::slice::from_ref(&settled.0),
            "the list and the delivery agree"
        );
        settled
    }

    pub(crate) async fn until_nothing_is_due(&self) {
        self.until("nothing is due", async || {
            let stats = self.store().stats().await.unwrap();
            (stats.due == 0).then_some(())
        })
        .await;
    }

    pub(crate) async fn requeue(&self, delivery: DeliveryId) {
        let queued = self.service().retry_delivery(self.caller(), delivery, None);
        queued.await.unwrap();
    }

    pub(crate) async fn audit_actions(&self) -> Vec<(String, serde_json::Value)> {
        let log = self
            .service()
            .audit_log(self.caller(), 0, 200)
            .await
            .unwrap();
        log.items
            .iter()
            .map(|recorded| {
                let action = recorded.entry.action.as_str().to_owned();
                (action, serde_json::to_value(&recorded.entry).unwrap())
            })
            .collect()
    }
}

fn input(payload: &str) -> NewMessageInput {
    NewMessageInput {
        event_type: EventType::new("order.paid").unwrap(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        event_id: None,
    }
}

/// A verifier that holds these secrets.
pub(crate) fn verifier(preset: Preset, secrets: &[(&str, &Secret)]) -> Verifier {
    secrets.iter().fold(
        Verifier::new(preset.scheme()).diagnose(false),
        |verifier, (name, secret)| verifier.secret(*name, secret).unwrap(),
    )
}

/// Something else for the shards to do: when it is delivered, they have also looked at what came
/// before it.
pub(crate) struct Marker {
    app: ClientId,
    receiver: Receiver,
}

impl Marker {
    pub(crate) async fn new(rig: &Rig) -> Self {
        let receiver = Receiver::new(&rig.clock, |_| status(200)).await;
        let app = rig.new_app().await;
        let input = NewEndpoint {
            url: Some(receiver.url()),
            ..NewEndpoint::default()
        };
        rig.endpoint_in(app, input).await;
        Self { app, receiver }
    }

    pub(crate) async fn pass(&mut self, rig: &Rig) {
        rig.publish_to(self.app, "{}").await;
        self.receiver.next().await;
    }
}

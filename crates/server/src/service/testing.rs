//! What the service's tests stand on: the real embedded store in a directory of its own, a clock
//! that moves by hand, and callers of every kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use hookturn_core::delivery::{ExhaustedReason, Next};
use hookturn_core::id::{ClientId, EndpointId, draw};
use hookturn_core::message::EventType;
use hookturn_core::store::{
    DueQuery, Finish, Hint, HintSink, IdempotencyKey, Page, Store, StoreFuture,
};
use hookturn_core::time::{Clock, Millis, Timestamp};
use hookturn_core::workspace::{Environment, Scope, Scopes, Workspace};

use super::api_keys::{NewApiKey, NewKey, NewReach};
use super::apps::NewApp;
use super::endpoints::{CreatedEndpoint, NewEndpoint};
use super::messages::NewMessageInput;
use super::{Caller, Parts, Service, Settings, TargetPolicy, idempotency};
use crate::service::master_key::MasterKeys;
use crate::store::live::Live;
use crate::store::seal::{MasterKey, Sealer};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::telemetry::SystemEntropy;

/// A clock that stands still until it is moved.
pub(super) struct HandClock(AtomicI64);

impl HandClock {
    pub(super) fn advance(&self, span: Millis) {
        self.0.fetch_add(span.cast_signed(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Refuses one host.
struct NotInternal;

impl TargetPolicy for NotInternal {
    fn check(&self, url: &url::Url) -> Result<(), String> {
        match url.host_str() {
            Some("internal.example") => Err("internal.example is a private address".to_owned()),
            Some(_) | None => Ok(()),
        }
    }
}

struct Deaf;

impl HintSink for Deaf {
    fn hint(&self, _: Vec<Hint>) {}
}

/// A service on a fresh store with workspace `default`, an operator and the workspace's owner.
pub(super) struct Bench {
    pub(super) service: Arc<Service>,
    pub(super) store: Arc<SqliteStore>,
    pub(super) live: Arc<Live>,
    pub(super) clock: Arc<HandClock>,
    pub(super) operator: Caller,
    pub(super) owner: Caller,
    directory: tempfile::TempDir,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let (service, store, live, clock, directory) = empty();
        let text = service.first_key_text().unwrap().as_str().to_owned();
        let first = service.bootstrap(text).await.unwrap().unwrap();
        let operator = service
            .caller_for(Arc::new(first.key), None, "req_operator", None)
            .unwrap();
        let owner = key_of(&service, &operator, Scopes::EVERY).await;
        let owner = service
            .caller_for(Arc::new(owner.key), None, "req_owner", None)
            .unwrap();
        Self {
            service,
            store,
            live,
            clock,
            operator,
            owner,
            directory,
        }
    }

    /// Changes the database as someone would who goes round the server.
    pub(super) fn damage(&self, statements: &[&str]) {
        let path = self.directory.path().join("hookturn.db");
        let connection = rusqlite::Connection::open(path).unwrap();
        for sql in statements {
            connection.execute_batch(sql).unwrap();
        }
    }

    /// A caller in the owner's workspace with these scopes only.
    pub(super) async fn limited(&self, scopes: &[Scope]) -> Caller {
        let scopes = scopes.iter().copied().collect();
        let made = key_of(&self.service, &self.owner, scopes).await;
        self.service
            .caller_for(Arc::new(made.key), None, "req_limited", None)
            .unwrap()
    }

    /// The owner of another workspace.
    pub(super) async fn stranger(&self) -> Caller {
        let other = self.workspace("other").await;
        let there = self.operator_in(&other);
        let made = key_of(&self.service, &there, Scopes::EVERY).await;
        self.service
            .caller_for(Arc::new(made.key), None, "req_stranger", None)
            .unwrap()
    }

    pub(super) async fn workspace(&self, name: &str) -> Workspace {
        self.service
            .create_workspace(&self.operator, name.to_owned(), None)
            .await
            .unwrap()
    }

    pub(super) fn operator_in(&self, workspace: &Workspace) -> Caller {
        let key = Arc::clone(&self.operator.key);
        self.service
            .caller_for(key, Some(&workspace.name), "req_operator", None)
            .unwrap()
    }

    pub(super) async fn app(&self) -> ClientId {
        let input = NewApp {
            name: "shop".to_owned(),
            ..NewApp::default()
        };
        let app = self.service.create_app(&self.owner, input, None).await;
        app.unwrap().id
    }

    pub(super) async fn endpoint(&self, app: ClientId) -> CreatedEndpoint {
        self.service
            .create_endpoint(&self.owner, app, endpoint_input(), None)
            .await
            .unwrap()
    }

    /// Settles everything that is due for an endpoint as exhausted.
    pub(super) async fn exhaust(&self, endpoint: EndpointId) {
        let query = DueQuery {
            workspace: self.owner.workspace,
            endpoint,
            until: self.clock.now(),
            limit: 1_000,
            payload_bytes: 1 << 20,
        };
        let due = self.store.due(query).await.unwrap().rows;
        let finish = |due| Finish {
            due,
            attempt: None,
            next: Next::Exhausted(ExhaustedReason::AttemptsUsed),
            keeps_place: false,
            at: self.clock.now(),
        };
        let finishes = due.into_iter().map(finish).collect();
        self.store.finish(finishes, Vec::new()).await.unwrap();
    }

    /// Every byte that the store put on disk.
    pub(super) async fn disk(&self) -> Vec<u8> {
        self.store.flush().await.unwrap();
        let mut bytes = Vec::new();
        for file in std::fs::read_dir(self.directory.path()).unwrap() {
            bytes.extend(std::fs::read(file.unwrap().path()).unwrap());
        }
        bytes
    }
}

/// Makes a new master key and keeps it nowhere but in the sealer.
struct KeptInMemory(Arc<SqliteStore>);

impl MasterKeys for KeptInMemory {
    fn next(&self, present: &[MasterKey]) -> Result<Vec<MasterKey>, String> {
        let mut keys = vec![MasterKey::generate(&SystemEntropy)];
        keys.extend_from_slice(present);
        Ok(keys)
    }

    fn keep_check(&self, sealed: Vec<u8>) -> StoreFuture<'_, ()> {
        self.0.put_meta("master_key_check", sealed)
    }
}

/// A service on a store that nobody has bootstrapped.
pub(super) fn empty() -> (
    Arc<Service>,
    Arc<SqliteStore>,
    Arc<Live>,
    Arc<HandClock>,
    tempfile::TempDir,
) {
    let directory = tempfile::tempdir().unwrap();
    let live = Arc::new(Live::default());
    let store = SqliteStore::open(SqliteOptions {
        path: directory.path().join("hookturn.db"),
        live: Arc::clone(&live),
        hints: Arc::new(Deaf),
    });
    let store = Arc::new(store.unwrap());
    let clock = Arc::new(HandClock(AtomicI64::new(1_784_505_600_000)));
    let entropy = Arc::new(SystemEntropy);
    let master = MasterKey::generate(entropy.as_ref());
    let service = Service::new(Parts {
        store: Arc::clone(&store) as Arc<dyn Store>,
        live: Arc::clone(&live),
        sealer: Arc::new(Sealer::new(vec![master], entropy.clone())),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        entropy,
        targets: Arc::new(NotInternal),
        master_keys: Arc::new(KeptInMemory(Arc::clone(&store))),
        settings: Settings::default(),
    });
    (Arc::new(service), store, live, clock, directory)
}

async fn key_of(service: &Service, caller: &Caller, scopes: Scopes) -> NewKey {
    let input = key_input(scopes);
    service.create_api_key(caller, input, None).await.unwrap()
}

pub(super) fn key_input(scopes: Scopes) -> NewApiKey {
    NewApiKey {
        name: "ci".to_owned(),
        reach: NewReach::Workspace(Environment::Test),
        scopes,
        expires_at: None,
    }
}

pub(super) fn endpoint_input() -> NewEndpoint {
    NewEndpoint {
        url: Some("https://receiver.example/hooks".to_owned()),
        ..NewEndpoint::default()
    }
}

pub(super) fn message(event_type: &str) -> NewMessageInput {
    NewMessageInput {
        event_type: EventType::new(event_type).unwrap(),
        payload: Bytes::from_static(br#"{"total": 12}"#),
        event_id: None,
    }
}

pub(super) fn first_page<Id>() -> Page<Id> {
    Page {
        before: None,
        limit: 50,
    }
}

/// An idempotency key that nobody used.
pub(super) fn fresh_key(caller: &Caller) -> IdempotencyKey {
    let random = hex::encode(draw::<16>(&SystemEntropy));
    idempotency::key(caller.workspace, "POST", "/v1/test", &random)
}

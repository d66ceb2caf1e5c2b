//! One server in one process, without a network: the API over the service over a faulty store, and its
//! death and return.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::body::Body;
use hookturn::api::{
    ApiState, Finishing, Metrics, Readiness, Room, TestFuture, TestSender, router,
};
use hookturn::service::master_key::MasterKeys;
use hookturn::service::pace::Pace;
use hookturn::service::proving::{ProbeFuture, Prober};
use hookturn::service::{Caller, Parts, Service, Settings, TargetPolicy};
use hookturn::store::live::Live;
use hookturn::store::seal::{MasterKey, Sealer};
use hookturn::store::sqlite::{SqliteOptions, SqliteStore};
use hookturn::telemetry::SystemEntropy;
use hookturn_core::audit::{AuditAction, Head, Recorded, verify_chain};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::proof::ProbeKey;
use hookturn_core::store::{Configuration, Hint, HintSink, Page, Store as _, StoreFuture};
use hookturn_core::time::{Clock, Millis, Timestamp};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::faulty::FaultyStore;

const DATABASE: &str = "hookturn.db";
/// What survives a process: the file, and the log of what is not in it yet.
const FILES: [&str; 2] = [DATABASE, "hookturn.db-wal"];

fn api_key() -> String {
    format!("sk_workspace_test_{}", "cafe".repeat(16))
}

/// A clock that stands still until it is moved.
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// One process with its data.
pub(crate) struct World {
    pub(crate) store: Arc<FaultyStore>,
    pub(crate) service: Arc<Service>,
    live: Arc<Live>,
    router: Router,
    /// The requests that finish without their callers.
    pub(crate) finishing: Finishing,
    clock: Arc<HandClock>,
    master: MasterKey,
    directory: TempDir,
}

/// A request that can be sent again.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    /// Whether it was given before.
    pub(crate) fn replayed(&self) -> bool {
        let header = self.headers.get("idempotency-replayed");
        header.is_some_and(|value| value == "true")
    }
}

/// Everything that the rotation of a keyring may change, without what chance decides (ids and values),
/// so that two worlds in the same state have the same shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    keyrings: Vec<Value>,
    rotations: Vec<Value>,
    sealed_values: usize,
    endpoints: usize,
    audit: Vec<Value>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(HandClock(AtomicI64::new(1_784_505_600_000)));
        let master = MasterKey::generate(&SystemEntropy);
        let world = Self::open(tempfile::tempdir().unwrap(), clock, master);
        world.service.bootstrap(api_key()).await.unwrap();
        world
    }

    fn open(directory: TempDir, clock: Arc<HandClock>, master: MasterKey) -> Self {
        let live = Arc::new(Live::default());
        let inner = SqliteStore::open(SqliteOptions {
            path: directory.path().join(DATABASE),
            live: Arc::clone(&live),
            hints: Arc::new(Nobody),
        });
        let store = Arc::new(FaultyStore::new(Arc::new(inner.unwrap())));
        let entropy = Arc::new(SystemEntropy);
        let service = Arc::new(Service::new(Parts {
            store: Arc::clone(&store) as _,
            live: Arc::clone(&live),
            sealer: Arc::new(Sealer::new(vec![master.clone()], entropy.clone())),
            clock: Arc::clone(&clock) as _,
            entropy: entropy.clone(),
            targets: Arc::new(Nobody),
            master_keys: Arc::new(Nobody),
            // Sixty-four callers share a key, and a fast machine gets them through in no time.
            settings: Settings {
                pace: Pace {
                    requests_per_second: 0,
                    burst: 1,
                },
                ..Settings::default()
            },
        }));
        let ready = Readiness::default();
        let finishing = Finishing::default();
        let state = ApiState {
            service: Arc::clone(&service),
            ready,
            metrics: Arc::new(Nobody),
            tests: Arc::new(Nobody),
            prober: Arc::new(Nobody),
            finishing: finishing.clone(),
            room: Room::default(),
            entropy,
        };
        let router = router(state, |_| None);
        Self {
            store,
            service,
            live,
            router,
            finishing,
            clock,
            master,
            directory,
        }
    }

    /// What the next process finds when this one dies now: the files as they are at this moment.
    pub(crate) async fn dies(self) -> Self {
        // The last use of a key may be on its way; nothing of the request is.
        self.settled().await;
        let left = tempfile::tempdir().unwrap();
        for file in FILES {
            copy(file, self.directory.path(), left.path());
        }
        Self::open(left, self.clock, self.master)
    }

    /// Waits for everything that is under way in the store.
    pub(crate) async fn settled(&self) {
        self.store.flush().await.unwrap();
    }

    pub(crate) fn advance(&self, span: Millis) {
        self.clock.0.fetch_add(span.cast_signed(), Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Sends a POST under a key.
    pub(crate) fn post(&self, ask: &Ask, key: &str) -> impl Future<Output = Reply> + use<> {
        let request = Request::post(&ask.path)
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", api_key()))
            .body(Body::from(ask.body.to_string()));
        send(self.router.clone(), request.unwrap())
    }

    /// A POST that must succeed, on the way to where a test begins.
    pub(crate) async fn must(&self, path: &str, body: Value) -> Value {
        let ask = Ask {
            path: path.to_owned(),
            body,
        };
        let key = hookturn_core::id::draw::<16>(&SystemEntropy);
        let reply = self
            .post(&ask, &format!("{key:02x?}").replace(' ', ""))
            .await;
        assert!(reply.status.is_success(), "{ask:?}: {reply:?}");
        reply.body
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let request = Request::get(path)
            .header("authorization", format!("Bearer {}", api_key()))
            .body(Body::empty());
        let reply = send(self.router.clone(), request.unwrap()).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {reply:?}");
        reply.body
    }

    /// Checks that no keyring has two of what it may have one of (G5), and that memory shows what the
    /// disk has. Answers what the disk has.
    pub(crate) async fn check_keyrings(&self) -> Configuration {
        let stored = self.store.load().await.unwrap();
        for keyring in &stored.keyrings {
            let shown = self.live.keyring(keyring.id);
            assert_eq!(shown.as_deref(), Some(keyring), "memory and disk differ");
            let count = |state: &str| {
                let states = keyring
                    .secrets
                    .iter()
                    .map(|secret| secret.status(self.now()));
                states.filter(|status| status.as_str() == state).count()
            };
            assert!(count("active") <= 1 && count("pending") <= 1, "{keyring:?}");
        }
        stored
    }

    /// The audit log of the first workspace after an entry.
    pub(crate) async fn audit_since(&self, entry: u64) -> Vec<Recorded> {
        let workspace = self.live.workspaces()[0].id;
        let mut read = Vec::new();
        let mut after = entry;
        loop {
            let page = self.store.audit_log(workspace, after, 1000).await.unwrap();
            let Some(last) = page.last() else { return read };
            after = last.seq;
            read.extend(page);
        }
    }

    /// What is on disk. Checks on the way the keyrings, that no keyring has two open rotations (G5), and
    /// that the audit log is whole (G9).
    pub(crate) async fn shape(&self) -> Shape {
        let stored = self.check_keyrings().await;
        let workspace = stored.workspaces[0].id;
        let page = Page {
            before: None,
            limit: 100,
        };
        let rotations = self.store.rotations(workspace, None, page).await.unwrap();
        for keyring in &stored.keyrings {
            let of = rotations.iter().filter(|one| one.keyring == keyring.id);
            let open = of.filter(|one| one.stage.at(self.now()).is_open()).count();
            assert!(open <= 1, "{rotations:?}");
        }
        let audit = self.audit_since(0).await;
        verify_chain(Head::START, &audit).unwrap();
        let keyrings = stored.keyrings.iter().map(|one| plain(&json!(one)));
        let rotations = rotations.iter().map(|one| plain(&json!(one)));
        Shape {
            keyrings: in_order(keyrings),
            rotations: in_order(rotations),
            sealed_values: stored.secrets.len(),
            endpoints: stored.endpoints.len(),
            // A replay that shows a value is written down, and changes nothing.
            audit: audit
                .iter()
                .map(|one| &one.entry.action)
                .filter(|action| **action != AuditAction::SecretRevealed)
                .map(|action| json!(action))
                .collect(),
        }
    }
}

/// In an order of their own: ids made within one millisecond have none.
fn in_order(plain: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut plain: Vec<Value> = plain.collect();
    plain.sort_by_key(Value::to_string);
    plain
}

/// Without ids and fingerprints.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| {
                let member = match name.as_str() {
                    "fingerprint" => Value::Null,
                    _ => plain(member),
                };
                (name.clone(), member)
            })
            .collect(),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::String(text) => match text.split_once('_') {
            Some((kind @ ("kr" | "whs" | "rot" | "ws" | "ep"), _)) => kind.into(),
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

async fn send(router: Router, request: Request<Body>) -> Reply {
    let response = router.oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Reply {
        status: head.status,
        headers: head.headers,
        body: serde_json::from_slice(&bytes).unwrap(),
    }
}

fn copy(file: &str, from: &Path, to: &Path) {
    std::fs::copy(from.join(file), to.join(file)).unwrap();
}

/// Stands for everything that takes no part here.
struct Nobody;

impl HintSink for Nobody {
    fn hint(&self, _: Vec<Hint>) {}
}

impl TargetPolicy for Nobody {
    fn check(&self, _: &url::Url) -> Result<(), String> {
        Ok(())
    }
}

impl Metrics for Nobody {
    fn render(&self) -> String {
        String::new()
    }

    fn accepted(&self, _: usize) {}
}

impl Prober for Nobody {
    fn probe<'a>(&'a self, _: &'a Endpoint, _: &'a [ProbeKey]) -> ProbeFuture<'a> {
        unreachable!("no probe is asked for here")
    }
}

impl TestSender for Nobody {
    fn send_test<'a>(&'a self, _: &'a Caller, _: Arc<Endpoint>) -> TestFuture<'a> {
        unreachable!("no test event is asked for here")
    }
}

impl MasterKeys for Nobody {
    fn next(&self, _: &[MasterKey]) -> Result<Vec<MasterKey>, String> {
        Err("the master key stays".to_owned())
    }

    fn keep_check(&self, _: Vec<u8>) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

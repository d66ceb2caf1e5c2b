//! What the tests stand on: the whole API on a store in a directory of its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hookturn::api::{
    ApiState, Finishing, Metrics, Readiness, Room, TestFuture, TestReport, TestSender, router,
};
use hookturn::courier::Probed;
use hookturn::service::master_key::MasterKeys;
use hookturn::service::proving::{ProbeFuture, Prober};
use hookturn::service::{Caller, Parts, Service, Settings, TargetPolicy};
use hookturn::store::live::Live;
use hookturn::store::postgres::{PostgresOptions, PostgresStore, Sharing};
use hookturn::store::seal::{MasterKey, Sealer};
use hookturn::store::sqlite::{SqliteOptions, SqliteStore};
use hookturn::telemetry::{SystemClock, SystemEntropy};
use hookturn_core::delivery::{Answer, Attempt, Exchange, ExchangeReason, ExchangeResult, Timings};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::MessageId;
use hookturn_core::proof::ProbeKey;
use hookturn_core::store::{Hint, HintSink, Store, StoreFuture};
use hookturn_core::time::{Clock, Timestamp};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::engine;

#[path = "document.rs"]
pub(crate) mod document;

pub(crate) struct Bench {
    pub(crate) router: Router,
    pub(crate) ready: Readiness,
    /// An operator's key with every scope.
    pub(crate) operator: String,
    /// A key of workspace `default` with every scope.
    pub(crate) owner: String,
    tests: AlwaysAccepts,
    _directory: tempfile::TempDir,
}

/// An answer, read to its end.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        self.json()
    }

    /// Checks that this is a whole problem document and returns it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.json();
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(problem["code"], code, "{}", self.text);
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:hookturn:problem:{code}"));
        assert_eq!(problem["requestId"].as_str(), self.header("x-request-id"));
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        problem
    }

    /// The pointer of the first field error.
    pub(crate) fn pointer(&self) -> String {
        self.json()["errors"][0]["pointer"]
            .as_str()
            .unwrap_or("none")
            .to_owned()
    }
}

/// A request in the making.
pub(crate) struct Ask<'a> {
    bench: &'a Bench,
    request: http::request::Builder,
    body: Bytes,
}

impl Ask<'_> {
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = http::HeaderValue::from_bytes(value.as_ref()).unwrap();
        self.request = self.request.header(name, value);
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.raw("application/json", body.to_string())
    }

    pub(crate) fn raw(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut ask = self.header("content-type", content_type);
        ask.body = body.into();
        ask
    }

    /// The same, declared as something else.
    pub(crate) fn declared(self, content_type: &str) -> Self {
        let ask = self.undeclared();
        ask.header("content-type", content_type)
    }

    /// The same, without a word about what the body is.
    pub(crate) fn undeclared(mut self) -> Self {
        if let Some(headers) = self.request.headers_mut() {
            headers.remove("content-type");
        }
        self
    }

    pub(crate) async fn send(self) -> Reply {
        let request = self.request.body(Body::from(self.body)).unwrap();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let response = self.bench.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let reply = Reply {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        };
        document::check(&method, uri.path(), &reply);
        reply
    }
}

/// A clock that stands still until it is moved.
pub(crate) struct HandClock(AtomicI64);

impl HandClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_784_505_600_000)))
    }

    pub(crate) fn advance(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

struct Deaf;

impl HintSink for Deaf {
    fn hint(&self, _: Vec<Hint>) {}
}

/// Refuses one host, as the address policy would.
struct NotInternal;

impl TargetPolicy for NotInternal {
    fn check(&self, url: &url::Url) -> Result<(), String> {
        match url.host_str() {
            Some("internal.example") => Err("internal.example is a private address".to_owned()),
            Some(_) | None => Ok(()),
        }
    }
}

struct NoMetrics;

impl Metrics for NoMetrics {
    fn render(&self) -> String {
        "# EOF\n".to_owned()
    }

    fn accepted(&self, _: usize) {}
}

/// A receiver that answers 204 to every test event, and counts them.
#[derive(Clone, Default)]
struct AlwaysAccepts(Arc<AtomicUsize>);

impl Prober for AlwaysAccepts {
    fn probe<'a>(&'a self, _: &'a Endpoint, _: &'a [ProbeKey]) -> ProbeFuture<'a> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            Ok(Probed {
                sent_at: SystemClock.now(),
                status: Some(204),
                failure: None,
            })
        })
    }
}

impl TestSender for AlwaysAccepts {
    fn send_test<'a>(&'a self, _: &'a Caller, _: Arc<Endpoint>) -> TestFuture<'a> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let now = SystemClock.now();
        let exchange = Exchange {
            reason: ExchangeReason::Plan,
            signed_with: Vec::new(),
            timestamp: now.as_seconds(),
            signature: "v1,abc".to_owned(),
            result: ExchangeResult::Answered(Answer {
                status: 204,
                headers: vec![("server".to_owned(), "test".to_owned())],
                body: Vec::new(),
                truncated: false,
                retry_after_millis: None,
            }),
            timings: Timings::default(),
            resent: false,
        };
        Box::pin(async move {
            Ok(TestReport {
                message: MessageId::new(now, &SystemEntropy),
                connected: true,
                summary: "connected and accepted: the receiver answered 204".to_owned(),
                attempt: Attempt {
                    number: 1,
                    started_at: now,
                    duration_millis: 3,
                    exchanges: vec![exchange],
                },
            })
        })
    }
}

/// Makes a new master key and keeps it nowhere but in the sealer.
struct KeptInMemory;

impl MasterKeys for KeptInMemory {
    fn next(&self, present: &[MasterKey]) -> Result<Vec<MasterKey>, String> {
        let mut keys = vec![MasterKey::generate(&SystemEntropy)];
        keys.extend_from_slice(present);
        Ok(keys)
    }

    fn keep_check(&self, _: Vec<u8>) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A new store of the engine that these tests run on.
async fn open_store(directory: &Path, live: &Arc<Live>) -> Arc<dyn Store> {
    let (live, hints) = (Arc::clone(live), Arc::new(Deaf));
    if engine::is_postgres() {
        let target = engine::fresh().await;
        let options = PostgresOptions {
            target,
            live,
            hints,
            sharing: Sharing::default(),
        };
        return Arc::new(PostgresStore::open(options).await.unwrap());
    }
    let path = directory.join("hookturn.db");
    Arc::new(SqliteStore::open(SqliteOptions { path, live, hints }).unwrap())
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default(), Arc::new(SystemClock)).await
    }

    /// The same with settings and a clock of the test's own.
    pub(crate) async fn with(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let live = Arc::new(Live::default());
        let store = open_store(directory.path(), &live).await;
        let entropy = Arc::new(SystemEntropy);
        let master = MasterKey::generate(entropy.as_ref());
        let service = Arc::new(Service::new(Parts {
            store,
            live,
            sealer: Arc::new(Sealer::new(vec![master], entropy.clone())),
            clock,
            entropy: entropy.clone(),
            targets: Arc::new(NotInternal),
            master_keys: Arc::new(KeptInMemory),
            settings,
        }));
        let first = service
            .bootstrap(format!("sk_operator_{}", "k".repeat(43)))
            .await
            .unwrap()
            .unwrap();
        let ready = Readiness::default();
        let tests = AlwaysAccepts::default();
        let state = ApiState {
            service,
            ready: ready.clone(),
            metrics: Arc::new(NoMetrics),
            tests: Arc::new(tests.clone()),
            prober: Arc::new(tests.clone()),
            finishing: Finishing::default(),
            room: Room::default(),
            entropy,
        };
        let router = router(state, |_| None);
        let mut bench = Self {
            router,
            ready,
            operator: first.text.to_string(),
            owner: String::new(),
            tests,
            _directory: directory,
        };
        bench.owner = bench
            .key(&["publish", "manage", "secrets", "read"], "default")
            .await;
        bench
    }

    /// How many test events were sent.
    pub(crate) fn tests_sent(&self) -> usize {
        self.tests.0.load(Ordering::SeqCst)
    }

    /// A request without a key.
    pub(crate) fn anonymous(&self, method: &str, path: &str) -> Ask<'_> {
        Ask {
            bench: self,
            request: Request::builder().method(method).uri(path),
            body: Bytes::new(),
        }
    }

    /// A request with this key.
    pub(crate) fn with_key(&self, key: &str, method: &str, path: &str) -> Ask<'_> {
        self.anonymous(method, path)
            .header("authorization", format!("Bearer {key}"))
    }

    /// A request of the owner of workspace `default`.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask<'_> {
        self.with_key(&self.owner, method, path)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path).send().await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.ask("POST", path).json(&body).send().await
    }

    /// Makes a workspace key.
    pub(crate) async fn key(&self, scopes: &[&str], workspace: &str) -> String {
        let made = self
            .with_key(&self.operator, "POST", "/v1/api-keys")
            .header("hookturn-workspace", workspace)
            .json(&json!({ "name": "k", "scopes": scopes }))
            .send()
            .await
            .ok();
        made["key"].as_str().unwrap().to_owned()
    }

    /// Makes an app and returns its path.
    pub(crate) async fn app(&self) -> String {
        let made = self.post("/v1/apps", json!({ "name": "shop" })).await.ok();
        format!("/v1/apps/{}", made["clientId"].as_str().unwrap())
    }

    /// Makes an endpoint of an app.
    pub(crate) async fn endpoint(&self, app: &str) -> Value {
        let body = json!({ "url": "https://example.com/hooks" });
        self.post(&format!("{app}/endpoints"), body).await.ok()
    }
}

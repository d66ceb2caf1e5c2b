//! Hostile receivers through the whole server (G10): every attempt ends in time with a reason, memory
//! stays bounded, and a healthy endpoint beside them hardly notices.

mod receivers;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::support::http::Api;
use crate::support::process::{Server, Setup};
use crate::support::receiver::Receiver;
use crate::support::{SOON, app, endpoint, eventually, list, publish, setting, text};

use receivers::{Hostile, gallery};

/// The timeout of the hostile endpoints, and what may come on top of it on a busy machine.
const TIMEOUT_MILLIS: u64 = 1_000;
const SLACK_MILLIS: u64 = 500;
/// Messages for each hostile endpoint: fewer than open its breaker.
const HOSTILE_MESSAGES: usize = 8;
/// Exchanges that a hostile endpoint may have open at once.
const HOSTILE_IN_FLIGHT: usize = 4;
/// Memory an attempt may take, and what a server may grow by for other reasons, in bytes.
const ATTEMPT_BYTES: u64 = 64 * 1024;
const OTHER_GROWTH: u64 = 8 * 1024 * 1024;
/// The healthy endpoint's load: a message every 10 ms, for this many.
const PACE: Duration = Duration::from_millis(10);
const HEALTHY_MESSAGES: usize = 400;
/// The hostile endpoints' load beside it: a message for each of them this often.
const ATTACK_PACE: Duration = Duration::from_millis(500);
/// What counts as hardly noticed on a machine that also runs the receivers, without optimisation and
/// beside other tests: far below the hostile endpoints' timeout, which is what a delivery that waits
/// behind one of them would take.
const CLOSE: Duration = Duration::from_millis(50);
/// How often latency is measured before it counts as grown: the machine may be busy.
const TRIES: usize = 4;

/// The healthy neighbour: its app, and when each of its messages arrived.
struct Healthy {
    app: String,
    _receiver: Receiver,
    arrived: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Healthy {
    async fn new(api: &Api) -> Self {
        let arrived = Arc::new(Mutex::new(HashMap::new()));
        let book = Arc::clone(&arrived);
        let receiver = Receiver::start(move |arrival| {
            let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
            book.insert(arrival.id().to_owned(), arrival.at);
            async { 204 }
        })
        .await;
        let app = app(api).await;
        endpoint(api, &app, &receiver.url(), json!({})).await;
        Self {
            app,
            _receiver: receiver,
            arrived,
        }
    }

    /// Publishes at a steady pace; p99 of the time from the 202 to the receipt.
    async fn p99(&self, api: &Api) -> Duration {
        let mut ticks = tokio::time::interval(PACE);
        let mut accepted = Vec::new();
        for n in 0..HEALTHY_MESSAGES {
            ticks.tick().await;
            let id = publish(api, &self.app, "healthy", json!(n)).await;
            accepted.push((id, Instant::now()));
        }
        let mut times: Vec<Duration> = Vec::new();
        for (id, at) in accepted {
            let received = eventually(SOON, "a healthy delivery", async || {
                let book = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
                book.get(&id).copied()
            })
            .await;
            // The receiver may see it before the publisher sees its answer.
            times.push(received.saturating_duration_since(at));
        }
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }
}

/// A thread of its own for the hostile receivers: their floods are not to delay the healthy one,
/// whose latency is measured.
struct Apart(Option<Runtime>);

impl Apart {
    fn new() -> Self {
        let one = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        Self(Some(one.unwrap()))
    }

    async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        self.0.as_ref().unwrap().spawn(future).await.unwrap()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Stand {
    _dir: tempfile::TempDir,
    _apart: Apart,
    server: Server,
    api: Api,
    hostile: Vec<Hostile>,
    app: String,
    /// The ids of the hostile endpoints, in their order.
    endpoints: Vec<String>,
}

impl Stand {
    async fn new(with_tls: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let apart = Apart::new();
        let (mut hostile, roots) = apart.run(gallery()).await;
        hostile.retain(|one| with_tls || one.url.starts_with("http:"));
        let roots_file = dir.path().join("roots.pem");
        std::fs::write(&roots_file, roots).unwrap();
        let setup = Setup::new(&dir.path().join("data"));
        let setup = setup.with("HOOKTURN_EXTRA_ROOTS_FILE", roots_file.to_str().unwrap());
        let server = setup.with("HOOKTURN_LOG", "warn").start().await;
        let api = server.api();
        let app = app(&api).await;
        let mut endpoints = Vec::new();
        for one in &hostile {
            let more = json!({
                "timeoutMillis": TIMEOUT_MILLIS,
                "connectTimeoutMillis": TIMEOUT_MILLIS,
                "maxInFlight": HOSTILE_IN_FLIGHT,
                "retry": {"delaysMillis": []},
            });
            endpoints.push(endpoint(&api, &app, &one.url, more).await.id);
        }
        Self {
            _dir: dir,
            _apart: apart,
            server,
            api,
            hostile,
            app,
            endpoints,
        }
    }

    async fn attack(&self, pace: Duration) {
        let mut ticks = tokio::time::interval(pace);
        for n in 0..HOSTILE_MESSAGES {
            ticks.tick().await;
            publish(&self.api, &self.app, "hostile", json!(n)).await;
        }
    }

    /// Waits until every hostile delivery is settled.
    async fn over(&self) {
        let pending = format!("/v1/apps/{}/deliveries?status=pending&limit=1", self.app);
        let bound = Duration::from_mins(1);
        eventually(bound, "the end of hostile deliveries", async || {
            let page = self.api.get(&pending).await.json();
            page["data"].as_array()?.is_empty().then_some(())
        })
        .await;
    }

    /// Every attempt at an endpoint.
    async fn attempts(&self, endpoint: &str) -> Vec<Value> {
        let path = format!("/v1/apps/{}/deliveries?endpointId={endpoint}", self.app);
        let mut attempts = Vec::new();
        for delivery in list(&self.api, &path).await {
            let path = format!("/v1/deliveries/{}", text(&delivery, "id"));
            let detail = self.api.get(&path).await.json();
            attempts.extend(detail["attempts"].as_array().cloned().unwrap());
        }
        attempts
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g10_hostile_attempts_end_in_time_with_a_reason_and_little_memory() {
    let stand = Stand::new(true).await;
    let healthy = Healthy::new(&stand.api).await;
    healthy.p99(&stand.api).await;
    let before = stand.server.peak_memory();
    stand.attack(Duration::from_millis(1)).await;
    stand.over().await;
    let growth = stand.server.peak_memory() - before;
    let open = u64::try_from(HOSTILE_IN_FLIGHT * stand.hostile.len()).unwrap();
    let bound = ATTEMPT_BYTES * open + OTHER_GROWTH;
    println!("hostile: peak memory {before} bytes before, grown by {growth}, bound {bound}");
    assert!(growth <= bound, "peak memory grew by {growth} bytes");
    for (one, endpoint) in stand.hostile.iter().zip(&stand.endpoints) {
        let attempts = stand.attempts(endpoint).await;
        assert_eq!(attempts.len(), HOSTILE_MESSAGES, "{}", one.name);
        let took = |attempt: &Value| attempt["durationMillis"].as_u64().unwrap();
        let longest = attempts.iter().map(took).max();
        println!("hostile: {}: at most {longest:?} ms", one.name);
        for attempt in attempts {
            let took = took(&attempt);
            let what = format!("{}: {attempt}", one.name);
            assert!(took <= TIMEOUT_MILLIS + SLACK_MILLIS, "{what}");
            let exchange = &attempt["exchanges"][0];
            let found = match exchange["failure"]["kind"].as_str() {
                Some(kind) => kind.to_owned(),
                None => exchange["response"]["status"].to_string(),
            };
            assert!(one.ends.contains(&found.as_str()), "{what}");
            let body = exchange["response"]["body"].as_str().unwrap_or_default();
            // Bytes that are not UTF-8 are replaced by three.
            assert!(body.len() <= 3 * 16 * 1024, "{}", one.name);
        }
    }
    let log = stand.server.stop().await.join("\n");
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g10_a_healthy_endpoint_hardly_notices_hostile_neighbours() {
    let strict = setting("HOOKTURN_STRICT") == Some(1);
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        // New ones each time: the breakers of those that were attacked stay open for a while.
        // Without optimisation a TLS handshake takes tens of milliseconds of the two cores that this
        // test shares with the receivers, which says nothing about a release build. The strict check
        // has it.
        let stand = Stand::new(strict).await;
        let healthy = Healthy::new(&stand.api).await;
        healthy.p99(&stand.api).await;
        let alone = healthy.p99(&stand.api).await;
        let (beside, ()) = tokio::join!(healthy.p99(&stand.api), stand.attack(ATTACK_PACE));
        stand.over().await;
        stand.server.stop().await;
        let ratio = beside.as_secs_f64() / alone.as_secs_f64();
        println!("hostile: p99 {alone:?} alone, {beside:?} beside hostile endpoints, x{ratio:.2}");
        let close = !strict && beside.saturating_sub(alone) < CLOSE;
        if ratio < 1.2 || close {
            return;
        }
        seen.push((alone, beside));
    }
    panic!("p99 grew in every one of {TRIES} tries: {seen:?}");
}

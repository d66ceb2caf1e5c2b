//! The database goes away under load, and comes back: nothing acknowledged is lost, what was sent is recorded,
//! and who asks meanwhile is told when to come again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use hookturn::cli::exit::Exit;

use crate::cutter::Cutter;
use crate::desk::Desk;
use crate::support::cluster::cluster;
use crate::support::postmaster::Postmaster;
use crate::support::{Api, Captured, Receiver, Server, within_deadline};

/// Clients that publish at once, each message in its turn.
const CLIENTS: usize = 4;
/// What the log calls the step that comes back to the database.
const CONNECTION: &str = "connect to the database";
/// How often the log tells of each step that fails: when it begins and of two more reasons, and as often a minute later.
const TOLD_MAX: usize = 6;

/// Publishes until it is told to end; keeps what was acknowledged.
struct Load {
    over: Arc<AtomicBool>,
    acknowledged: watch::Receiver<usize>,
    refused: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(api: &Api, app: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicUsize::new(0));
        let (count, acknowledged) = watch::channel(0);
        let clients = (0..CLIENTS).map(|_| {
            let (api, over, count) = (api.clone(), Arc::clone(&over), count.clone());
            let refused = Arc::clone(&refused);
            let path = format!("/v1/apps/{app}/messages");
            tokio::spawn(async move {
                let mut taken = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    let body = r#"{"eventType":"order.paid","payload":{}}"#.to_owned();
                    let answer = api.exchange(Method::POST, &path, &[], body).await;
                    if answer.status() == StatusCode::ACCEPTED {
                        let view: Value = serde_json::from_slice(answer.body()).unwrap();
                        taken.push(view["id"].as_str().unwrap().to_owned());
                        count.send_modify(|count| *count += 1);
                    } else {
                        let shown = String::from_utf8_lossy(answer.body()).into_owned();
                        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{shown}");
                        assert!(answer.headers().contains_key("retry-after"), "{shown}");
                        refused.fetch_add(1, Ordering::SeqCst);
                    }
                }
                taken
            })
        });
        let clients = clients.collect();
        Self {
            over,
            acknowledged,
            refused,
            clients,
        }
    }

    /// Waits until so many more were acknowledged.
    async fn more(&mut self, more: usize) {
        let wanted = *self.acknowledged.borrow() + more;
        let reached = self.acknowledged.wait_for(|count| *count >= wanted);
        within_deadline("messages are accepted", reached)
            .await
            .unwrap();
    }

    async fn end(self) -> BTreeSet<String> {
        self.over.store(true, Ordering::SeqCst);
        let mut all = BTreeSet::new();
        for client in self.clients {
            all.extend(client.await.unwrap());
        }
        all
    }
}

async fn status_of(api: &Api, path: &str) -> StatusCode {
    api.exchange(Method::GET, path, &[], String::new())
        .await
        .status()
}

/// Asks until the server says so.
async fn until_ready(api: &Api, ready: bool) {
    let wanted = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let asked = async { while status_of(api, "/readyz").await != wanted {} };
    within_deadline("readiness follows the database", asked).await;
}

/// Takes requests until every one of these messages came; the same one may come again.
async fn receive_all(receiver: &mut Receiver, wanted: &BTreeSet<String>) {
    let mut came: BTreeMap<String, usize> = BTreeMap::new();
    while !wanted.iter().all(|id| came.contains_key(id)) {
        let request: Captured = receiver.next().await;
        *came
            .entry(request.header("webhook-id").to_owned())
            .or_default() += 1;
    }
}

async fn app_for(api: &Api, receiver: &Receiver) -> String {
    let app = api.create_app("shop").await;
    api.create_endpoint(&app, &json!({ "url": receiver.origin() }))
        .await;
    app
}

/// How often the server tried to come back in the first loss of its database, once its log says so.
async fn attempts(server: &Server) -> u64 {
    let said = async {
        loop {
            let log = server.log();
            let over = |line: &&str| line.contains("works again") && line.contains(CONNECTION);
            if let Some(line) = log.lines().find(over) {
                let (_, tries) = line.split_once("tries=").unwrap();
                let digits = tries.split(|c: char| !c.is_ascii_digit()).next();
                return digits.unwrap().parse().unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    within_deadline("the log says that the database is back", said).await
}

/// Failures of background steps that a log tells of, for each step.
fn failures_of_steps(log: &str) -> BTreeMap<&str, usize> {
    let mut failures = BTreeMap::new();
    for line in log.lines() {
        if let Some((_, step)) = line.split_once("a background step fail")
            && let Some((_, step)) = step.split_once("step=\"")
            && let Some((step, _)) = step.split_once('"')
        {
            *failures.entry(step).or_default() += 1;
        }
    }
    failures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_nothing_acknowledged_is_lost_when_postgresql_is_killed_under_load_and_started_again() {
    let mut postgres = Postmaster::start().await;
    let desk = Desk::on(&postgres.url("postgres"));
    let mut receiver = Receiver::start().await;
    let server = desk.serve().await;
    let api = server.api();
    let app = app_for(&api, &receiver).await;
    let mut load = Load::start(&api, &app);
    for _ in 0..3 {
        load.more(30).await;
        postgres.kill();
        until_ready(&api, false).await;
        let refused = load.refused.load(Ordering::SeqCst);
        // It lives, and says that it is not ready; who asks for data is told to come again.
        assert_eq!(status_of(&api, "/livez").await, StatusCode::OK);
        let path = format!("/v1/apps/{app}/messages");
        assert_eq!(
            status_of(&api, &path).await,
            StatusCode::SERVICE_UNAVAILABLE
        );
        let waited = async {
            while load.refused.load(Ordering::SeqCst) < refused + 50 {
                tokio::task::yield_now().await;
            }
        };
        within_deadline("messages are refused", waited).await;
        postgres.run().await;
        until_ready(&api, true).await;
    }
    // Hundreds were refused; the database was sought a few times, and the log does not repeat itself.
    assert!(attempts(&server).await < 30, "{}", server.log());
    let log = server.log();
    let failures = failures_of_steps(&log);
    assert!(failures.contains_key(CONNECTION), "{log}");
    let often = failures.values().any(|told| *told > TOLD_MAX);
    assert!(!often, "{failures:?}");
    load.more(30).await;
    let acknowledged = load.end().await;
    receive_all(&mut receiver, &acknowledged).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_nothing_acknowledged_is_lost_when_connections_to_the_database_are_cut() {
    let postgres = Postmaster::start().await;
    let cutter = Cutter::start(postgres.port()).await;
    let desk = Desk::on(&cutter.url("postgres"));
    let mut receiver = Receiver::start().await;
    let server = desk.serve().await;
    let api = server.api();
    let app = app_for(&api, &receiver).await;
    let mut load = Load::start(&api, &app);
    for round in 0..12 {
        load.more(10).await;
        if round % 4 == 3 {
            cutter.open(false);
            until_ready(&api, false).await;
            cutter.open(true);
        } else {
            cutter.cut();
        }
        until_ready(&api, true).await;
    }
    let acknowledged = load.end().await;
    receive_all(&mut receiver, &acknowledged).await;
    server.stop().await;
}

/// The receiver answers while the database is away. The exchange is recorded when it is back, and not made
/// a second time.
#[tokio::test]
async fn g2_an_exchange_that_ends_while_the_database_is_away_is_recorded_and_not_repeated() {
    let mut postgres = Postmaster::start().await;
    let desk = Desk::on(&postgres.url("postgres"));
    let answers = Arc::new(Semaphore::new(0));
    let permits = Arc::clone(&answers);
    let mut receiver = Receiver::answering_later(move |_| {
        let permits = Arc::clone(&permits);
        async move {
            permits.acquire().await.unwrap().forget();
            StatusCode::NO_CONTENT
        }
    })
    .await;
    let server = desk.serve().await;
    let api = server.api();
    let app = app_for(&api, &receiver).await;
    let message = api.publish(&app, "order.paid", "{}").await;
    assert_eq!(receiver.next().await.header("webhook-id"), message);
    postgres.kill();
    until_ready(&api, false).await;
    answers.add_permits(100);
    postgres.run().await;
    until_ready(&api, true).await;
    let path = format!("/v1/apps/{app}/deliveries?status=delivered");
    let recorded = async {
        loop {
            let found = api.get(&path).await;
            if let Some(delivery) = found["data"].as_array().unwrap().first() {
                return delivery.clone();
            }
        }
    };
    let delivery = within_deadline("the exchange is recorded", recorded).await;
    assert_eq!(delivery["messageId"], message.as_str());
    assert_eq!(delivery["attemptCount"], 1, "{delivery}");
    // The next thing that comes is the next message.
    let next = api.publish(&app, "order.paid", "{}").await;
    assert_eq!(receiver.next().await.header("webhook-id"), next);
    server.stop().await;
}

/// Another server takes over while this one is cut off from the database: this one ends, and says why.
#[tokio::test]
async fn g4_a_server_that_was_taken_over_ends_by_itself() {
    let postgres = Postmaster::start().await;
    let cutter = Cutter::start(postgres.port()).await;
    let lease = [("HOOKTURN_LEASE_SECONDS", "3")];
    let away = Desk::on(&cutter.url("postgres"));
    let lost = away.serve_with(&away.url, &lease).await;
    let app = lost.api().create_app("shop").await;
    cutter.open(false);
    until_ready(&lost.api(), false).await;
    let desk = Desk::on(&postgres.url("postgres"));
    let next = desk.serve().await;
    let taken = async {
        while !next.log().contains("another node does not live") {
            tokio::task::yield_now().await;
        }
    };
    within_deadline("the other takes over", taken).await;
    cutter.open(true);
    let (code, log) = lost.ended().await;
    assert_eq!(code, Some(i32::from(Exit::DatabaseInUse.code())), "{log}");
    assert!(log.contains("this node was taken over"), "{log}");
    let found = next.api().get(&format!("/v1/apps/{app}")).await;
    assert_eq!(found["name"], "shop");
    next.stop().await;
}

/// A server that is told to stop while its database is away ends in time, and leaves what was due.
#[tokio::test]
async fn a_server_stops_while_its_database_is_away() {
    let desk = Desk::new().await;
    let receiver = Receiver::start().await;
    let server = desk.serve().await;
    app_for(&server.api(), &receiver).await;
    let database = desk.url.rsplit('/').next().unwrap();
    let client = cluster().connect("postgres").await;
    let shut = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false");
    client.batch_execute(&shut).await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    client.query(cut, &[&database]).await.unwrap();
    until_ready(&server.api(), false).await;
    server.stop().await;
}

//! SIGTERM: nothing that was begun is lost. A second one: at once, and nothing is lost either.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;

use crate::support::http::{Connection, Request};
use crate::support::process::Setup;
use crate::support::receiver::Receiver;
use crate::support::{SOON, app, endpoint, eventually, list, publish, within};

/// A receiver that answers when it is allowed to.
async fn holding() -> (Receiver, Arc<Notify>) {
    let release = Arc::new(Notify::new());
    let waiting = Arc::clone(&release);
    let receiver = Receiver::start(move |_| {
        let waiting = Arc::clone(&waiting);
        async move {
            waiting.notified().await;
            204
        }
    })
    .await;
    (receiver, release)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_everything_under_way_finish() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let mut server = setup.start().await;
    let api = server.api();
    let (receiver, release) = holding().await;
    let app = app(&api).await;
    endpoint(&api, &app, &receiver.url(), json!({})).await;
    let delivered = publish(&api, &app, "a.b", json!(1)).await;
    receiver.arrived(1).await;

    // A request of which half has come.
    let body = br#"{"eventType":"a.b","payload":2}"#;
    let path = format!("/v1/apps/{app}/messages");
    let bytes = api.request("POST", &path).body(body).bytes();
    let (first, second) = bytes.split_at(bytes.len() - 10);
    let mut half = Connection::open(server.address).await.unwrap();
    half.write(first).await.unwrap();
    // The server has read it: it answers others that came later.
    assert_eq!(api.get("/readyz").await.status, 200);

    server.terminate();
    server.said("stopping").await;
    // A load balancer that asks on a new connection is told before the listener goes.
    let refused = eventually(SOON, "a 503 of /readyz", async || {
        let asked = api.try_send(Request::new("GET", "/readyz")).await;
        match asked {
            Ok(reply) => (reply.status == 503).then_some(Ok(reply)),
            Err(error) => Some(Err(error)),
        }
    })
    .await;
    let refused = refused.expect("the listener went before readiness was seen to be off");
    assert_eq!(refused.json()["code"], "unavailable");

    half.write(second).await.unwrap();
    let answer = within(SOON, "the answer", half.reply()).await.unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
    release.notify_one();
    // The second message may be sent before the end or after the next start.
    release.notify_one();
    let status = server.ended(SOON).await;
    assert_eq!(status.code(), Some(0), "{:#?}", server.lines());
    let gone = Connection::open(server.address).await.err();
    assert_eq!(gone.unwrap().kind(), ErrorKind::ConnectionRefused);

    release.notify_one();
    let server = setup.start().await;
    let api = server.api();
    let path = format!("/v1/apps/{app}/deliveries?status=delivered");
    let done = eventually(SOON, "both deliveries", async || {
        release.notify_one();
        let done = list(&api, &path).await;
        (done.len() == 2).then_some(done)
    })
    .await;
    let first = done.iter().find(|one| one["messageId"] == delivered);
    // It was recorded before the end: not sent a second time.
    assert_eq!(first.unwrap()["attemptCount"], 1);
    assert_eq!(*receiver.count.borrow(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_server_stops_soon_and_closes_idle_connections() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).start().await;
    let mut idle = Connection::open(server.address).await.unwrap();
    idle.write(&Request::new("GET", "/livez").bytes())
        .await
        .unwrap();
    assert_eq!(idle.reply().await.unwrap().status, 200);
    server.terminate();
    let status = server.ended(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(0));
    assert!(idle.rest().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_second_signal_stops_at_once_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let mut server = setup.start().await;
    let api = server.api();
    let (receiver, release) = holding().await;
    let app = app(&api).await;
    let slow = json!({"timeoutMillis": 60_000});
    endpoint(&api, &app, &receiver.url(), slow).await;
    let id = publish(&api, &app, "a.b", json!(1)).await;
    receiver.arrived(1).await;
    server.terminate();
    server.said("stopping").await;
    server.terminate();
    let status = server.ended(Duration::from_secs(3)).await;
    assert_eq!(status.code(), Some(0), "{:#?}", server.lines());

    let server = setup.start().await;
    let api = server.api();
    receiver.arrived(2).await;
    let path = format!("/v1/apps/{app}/deliveries?status=delivered&messageId={id}");
    eventually(SOON, "the delivery", async || {
        release.notify_waiters();
        release.notify_one();
        (list(&api, &path).await.len() == 1).then_some(())
    })
    .await;
    server.stop().await;
}

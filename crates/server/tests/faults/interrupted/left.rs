//! Clients that leave while their request runs: it finishes, and the same Idempotency-Key gets its answer.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::Notify;

use crate::support::http::{Api, Connection, Reply, Request};
use crate::support::process::{Server, Setup};
use crate::support::receiver::Receiver;
use crate::support::{SOON, app, endpoint, eventually};

/// An endpoint whose receiver answers when it is told to, and a test event that its client left.
struct Left {
    receiver: Receiver,
    answer: Arc<Notify>,
    path: String,
}

impl Left {
    async fn during_a_test_event(server: &Server) -> Self {
        let answer = Arc::new(Notify::new());
        let told = Arc::clone(&answer);
        let receiver = Receiver::start(move |_| {
            let told = Arc::clone(&told);
            async move {
                told.notified().await;
                204
            }
        })
        .await;
        let api = server.api();
        let app = app(&api).await;
        let made = endpoint(&api, &app, &receiver.url(), json!({})).await;
        let left = Self {
            receiver,
            answer,
            path: format!("/v1/apps/{app}/endpoints/{}/test", made.id),
        };
        let mut client = Connection::open(server.address).await.unwrap();
        client.write(&left.request(&api).bytes()).await.unwrap();
        left.receiver.arrived(1).await;
        drop(client);
        // The server has seen that it is gone: it answers many that came later.
        for _ in 0..20 {
            assert_eq!(api.get("/v1/apps").await.status, 200);
        }
        left
    }

    fn request(&self, api: &Api) -> Request {
        api.request("POST", &self.path)
            .header("idempotency-key", "left")
    }

    /// The same request until the first one is over, which must have an answer by then.
    async fn replayed(&self, api: &Api) {
        let reply = eventually(SOON, "the answer of the first request", async || {
            let reply = api.send(self.request(api)).await;
            (!is_running(&reply)).then_some(reply)
        })
        .await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("idempotency-replayed"), Some("true"));
        assert_eq!(reply.json()["accepted"], true, "{reply:?}");
        assert_eq!(*self.receiver.count.borrow(), 1, "it was sent again");
    }
}

fn is_running(reply: &Reply) -> bool {
    reply.status == 409 && reply.json()["code"] == "idempotency_in_progress"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_a_test_event_whose_client_left_is_sent_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start().await;
    let left = Left::during_a_test_event(&server).await;
    let api = server.api();
    let meanwhile = api.send(left.request(&api)).await;
    assert!(is_running(&meanwhile), "{meanwhile:?}");
    left.answer.notify_one();
    left.replayed(&api).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_sigterm_waits_for_a_request_whose_client_left() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let mut server = setup.start().await;
    let left = Left::during_a_test_event(&server).await;
    server.terminate();
    server.said("stopping").await;
    // The listener goes after the requests of those who stayed.
    eventually(SOON, "the end of the listener", async || {
        Connection::open(server.address).await.err()
    })
    .await;
    left.answer.notify_one();
    let status = server.ended(SOON).await;
    assert_eq!(status.code(), Some(0), "{:#?}", server.lines());

    let server = setup.start().await;
    left.replayed(&server.api()).await;
    server.stop().await;
}

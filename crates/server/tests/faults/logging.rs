//! What the log tells an operator: nothing of what goes well, until they ask for it.

use serde_json::json;

use crate::support::process::Setup;
use crate::support::receiver::Receiver;
use crate::support::{SOON, app, endpoint, eventually, list, publish};

/// The log of a server that delivered one message, and the message's delivery.
async fn delivering(filter: &str) -> (String, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).with("HOOKTURN_LOG", filter);
    let server = setup.start().await;
    let api = server.api();
    let receiver = Receiver::start(|_| async { 204 }).await;
    let app = app(&api).await;
    let made = endpoint(&api, &app, &receiver.url(), json!({})).await;
    let message = publish(&api, &app, "log.test", json!({"planted": "in-the-payload"})).await;
    let path = format!("/v1/apps/{app}/deliveries?status=delivered");
    let delivered = eventually(SOON, "the delivery", async || list(&api, &path).await.pop()).await;
    let log = server.stop().await.join("\n");
    assert!(!log.contains(&made.secret), "{log}");
    let delivery = delivered["id"].as_str().unwrap().to_owned();
    (log, message, delivery)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_debug_tells_what_became_of_a_delivery_and_no_secret() {
    let (log, message, delivery) = delivering("info,hookturn=debug").await;
    let line = |words: &[&str]| {
        let found = log
            .lines()
            .find(|line| line.contains("DEBUG") && words.iter().all(|word| line.contains(word)));
        assert!(found.is_some(), "{words:?} are in no line of: {log}");
    };
    line(&[
        "answered a request",
        "method=POST",
        "route=\"/v1/apps/{clientId}/messages\"",
        "status=202",
    ]);
    line(&[
        "an exchange ended",
        &message,
        "signed_with=[\"",
        "status=204",
    ]);
    line(&["an attempt was made", &delivery, "attempt=1", "Delivered"]);
    line(&["attempts were recorded", "deliveries=1"]);
    line(&["a store transaction was committed", "steps="]);
    line(&["a checkpoint ended", "pages="]);
    for foreign in ["in-the-payload", "/hook"] {
        assert!(!log.contains(foreign), "{foreign} is in: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_logged_of_a_delivery_that_goes_well() {
    let (log, message, delivery) = delivering("info").await;
    assert!(!log.contains("DEBUG"), "{log}");
    assert!(!log.contains(&message) && !log.contains(&delivery), "{log}");
}

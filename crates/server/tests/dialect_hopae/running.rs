//! The running program: what is on the wire, and what survives a restart, a kill and a connection
//! that breaks between request and answer.

use hookturn_verify::{Content, Scheme, Secret, Signer, sign};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::desk::APPS;
use crate::support::{Api, Receiver, Server, within_deadline};

/// Makes an app and answers its id.
async fn app(api: &Api) -> String {
    let made = api.post(APPS, &json!({ "name": "shop" })).await;
    made["clientId"].as_str().unwrap().to_owned()
}

async fn configure(api: &Api, app: &str, config: Value) {
    let path = format!("{APPS}/{app}/webhook-config");
    let (status, answer) = api.send(Method::PATCH, &path, config.to_string()).await;
    assert_eq!(status, 200, "{answer:?}");
}

async fn secret(api: &Api, app: &str) -> Value {
    api.get(&format!("{APPS}/{app}/webhook-config")).await["secret"].clone()
}

/// Rotates under a key until it is answered, and says whether the answer was a replay.
async fn rotate(api: &Api, app: &str, key: &str) -> (Value, bool) {
    let path = format!("{APPS}/{app}/webhook-config/rotate-secret");
    within_deadline("a rotation is answered", async {
        loop {
            let headers = [("idempotency-key", key)];
            let answer = api
                .exchange(Method::POST, &path, &headers, String::new())
                .await;
            let body: Value = serde_json::from_slice(answer.body()).unwrap();
            if answer.status() == StatusCode::OK {
                let replayed = answer.headers().contains_key("idempotency-replayed");
                return (body["secret"].clone(), replayed);
            }
            // The call whose answer was lost may still be at work.
            assert_eq!(body["error"]["code"], "IDEMPOTENCY_REQUEST_IN_PROGRESS");
        }
    })
    .await
}

/// Sends a rotation and hangs up without waiting for its answer.
async fn rotate_and_hang_up(api: &Api, app: &str, idempotency_key: &str) {
    let request = format!(
        "POST {APPS}/{app}/webhook-config/rotate-secret HTTP/1.1\r\nhost: {}\r\nauthorization: \
         Bearer {}\r\nidempotency-key: {idempotency_key}\r\ncontent-length: 0\r\n\r\n",
        api.address, api.key
    );
    within_deadline("a rotation is sent", async {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
    })
    .await;
}

async fn rotations(api: &Api) -> usize {
    api.get("/v1/rotations").await["data"]
        .as_array()
        .unwrap()
        .len()
}

#[tokio::test]
async fn g5_an_answer_is_replayed_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let app = app(&server.api()).await;
    let (rotated, replayed) = rotate(&server.api(), &app, "k-1").await;
    assert!(!replayed);
    server.stop().await;
    // Sealed: the value of a rotation is nowhere in what is stored.
    let value = rotated.as_str().unwrap().as_bytes();
    for file in std::fs::read_dir(data.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(value.len()).any(|window| window == value));
    }
    let server = Server::start(data.path()).await;
    let api = server.api();
    assert_eq!(rotate(&api, &app, "k-1").await, (rotated.clone(), true));
    assert_eq!(secret(&api, &app).await, rotated);
    assert_eq!(rotations(&api).await, 1);
    server.stop().await;
}

#[tokio::test]
async fn g5_a_lost_answer_is_found_again_under_its_key() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path()).await;
    let app = app(&server.api()).await;
    for round in 0..12 {
        let key = format!("k-{round}");
        rotate_and_hang_up(&server.api(), &app, &key).await;
        if round % 3 == 2 {
            // Killed at whatever moment that is.
            drop(server);
            server = Server::start(data.path()).await;
        }
        let api = server.api();
        let (rotated, _) = rotate(&api, &app, &key).await;
        assert_eq!(secret(&api, &app).await, rotated);
        assert_eq!(rotate(&api, &app, &key).await, (rotated, true));
        assert_eq!(rotations(&api).await, round + 1);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_delivery_has_hopaes_header_and_envelope() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut receiver = Receiver::start().await;
    let app = app(&api).await;
    let url = format!("{}/hooks", receiver.origin());
    let events = json!(["verification.*"]);
    configure(
        &api,
        &app,
        json!({ "url": url, "enabled": true, "events": events }),
    )
    .await;
    let payload = r#"{"status": "completed", "score": 1.0}"#;
    // Not wanted by the filter: the first request is about the second message.
    api.publish(&app, "billing.paid", "{}").await;
    let id = api.publish(&app, "verification.completed", payload).await;
    let captured = receiver.next().await;
    assert_eq!(
        (captured.method.as_str(), captured.path.as_str()),
        ("POST", "/hooks")
    );
    assert_eq!(captured.header("content-type"), "application/json");
    let signature = captured.header("x-hopae-signature");
    let (time, value) = signature
        .strip_prefix("t=")
        .unwrap()
        .split_once(",v1=")
        .unwrap();
    assert!(
        time.bytes().all(|byte| byte.is_ascii_digit()),
        "{signature}"
    );
    assert!(
        value.len() == 64
            && value
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    );
    let body: Value = serde_json::from_slice(&captured.body).unwrap();
    let wanted = json!({
        "event": "verification.completed", "eventId": id.replacen("msg_", "evt_", 1),
        "timestamp": body["timestamp"], "apiVersion": "v1", "clientId": app,
        "data": { "status": "completed", "score": 1.0 },
    });
    assert_eq!(body, wanted);
    assert!(
        captured
            .text()
            .ends_with(&format!(r#","data":{payload}}}"#))
    );
    body["timestamp"]
        .as_str()
        .unwrap()
        .parse::<hookturn_core::time::Timestamp>()
        .unwrap();
    // A publisher's own event id is the receiver's.
    let path = format!("/v1/apps/{app}/messages");
    let own = json!({ "eventType": "verification.failed", "payload": 1, "eventId": "evt_own" });
    api.post(&path, &own).await;
    let captured = receiver.next().await;
    let body: Value = serde_json::from_slice(&captured.body).unwrap();
    assert_eq!(body["eventId"], "evt_own");
    server.stop().await;
}

#[tokio::test]
async fn g4_retries_are_counted_per_app_and_signed_with_the_secret_of_their_moment() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut receiver = Receiver::answering(|_| StatusCode::SERVICE_UNAVAILABLE).await;
    let app = app(&api).await;
    let config = json!({ "url": receiver.origin(), "enabled": true, "retryAttempts": 1 });
    configure(&api, &app, config).await;
    let before = secret(&api, &app).await;
    api.publish(&app, "verification.failed", "{}").await;
    let first = receiver.next().await;
    let (after, _) = rotate(&api, &app, "k-1").await;
    let retry = receiver.next().await;
    for (captured, secret) in [(&first, &before), (&retry, &after)] {
        let secret: Secret = secret.as_str().unwrap().parse().unwrap();
        let signature = captured.header("x-hopae-signature");
        let time: i64 = signature[2..].split(',').next().unwrap().parse().unwrap();
        let content = Content {
            id: "",
            timestamp: time,
            method: "POST",
            url: "",
            body: &captured.body,
        };
        let signer = Signer::new(Scheme::Hopae, &secret).unwrap();
        let wanted = sign(Scheme::Hopae, &[&signer], &content);
        assert_eq!(signature, wanted.unwrap());
    }
    assert_eq!(first.body, retry.body);
    let delivery = within_deadline("the delivery is exhausted", async {
        loop {
            let path = format!("/v1/apps/{app}/deliveries?status=exhausted");
            let listed = api.get(&path).await;
            if let Some(delivery) = listed["data"].get(0) {
                return delivery["id"].as_str().unwrap().to_owned();
            }
        }
    })
    .await;
    let delivery = api.get(&format!("/v1/deliveries/{delivery}")).await;
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{delivery}");
    server.stop().await;
}

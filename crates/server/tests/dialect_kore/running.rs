//! The dialect of the running program, as a script and a receiver written for KORE see it.

use http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Api, Captured, Receiver, Server};

const VECTORS: &str = include_str!("../../../verify/tests/vectors/kore.json");

/// `kore-signature` as KORE's page says it is made, by other code than the server's.
fn signature(secret: &str, url: &str, request: &Captured) -> String {
    let mut digest = Sha256::new();
    for part in [secret, &request.method, url, request.text()] {
        digest.update(part);
    }
    hex::encode(digest.finalize())
}

async fn kore(api: &Api, method: Method, path: &str, body: &Value) -> Value {
    let path = format!("/kore/v1/secrets{path}");
    let (status, answer) = api.send(method, &path, body.to_string()).await;
    assert!(status.is_success(), "{status} {answer:?}");
    serde_json::from_slice(&answer).unwrap()
}

fn text<'a>(view: &'a Value, name: &str) -> &'a str {
    view[name].as_str().unwrap()
}

#[tokio::test]
async fn activate_changes_the_key_of_the_next_request_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let mut receiver = Receiver::start().await;
    let api = server.api();
    let first = kore(&api, Method::POST, "", &json!({"Name": "first"})).await;
    let app = api.create_app("shop").await;
    let url = format!("{}/hooks", receiver.origin());
    let asked = json!({"url": format!("{url}?cbs=kore"), "preset": "kore", "keyring": "workspace"});
    api.post(&format!("/v1/apps/{app}/endpoints"), &asked).await;
    api.publish(&app, "order.paid", r#"{"a":1}"#).await;
    let seen = receiver.next().await;
    assert_eq!(
        seen.header("kore-signature"),
        signature(text(&first, "secret"), &url, &seen)
    );
    assert_eq!(seen.path, "/hooks?cbs=kore");
    assert!(!seen.header("kore-idempotency-token").is_empty());

    let second = kore(&api, Method::POST, "", &json!({"Name": "second"})).await;
    let path = format!("/{}", text(&second, "id"));
    kore(&api, Method::PATCH, &path, &json!({"Status": "active"})).await;
    server.stop().await;
    let server = Server::start(directory.path()).await;
    let api = server.api();
    let page = kore(&api, Method::GET, "", &Value::Null).await;
    assert_eq!(page["meta_data"]["count"], 1);
    assert_eq!(page["data"][0]["id"], second["id"]);
    api.publish(&app, "order.paid", r#"{"a":2}"#).await;
    let seen = receiver.next().await;
    assert_eq!(
        seen.header("kore-signature"),
        signature(text(&second, "secret"), &url, &seen)
    );
    server.stop().await;
}

#[tokio::test]
async fn the_published_secrets_and_json_bodies_are_signed_on_the_wire() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let api = server.api();
    let workspaces = api.get("/v1/workspaces").await;
    let keyring = text(&workspaces["data"][0], "sharedKeyringId").to_owned();
    let app = api.create_app("shop").await;
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let mut receiver = Receiver::start().await;
    let url = receiver.origin();
    let mut json_bodies = 0;
    for vector in vectors["vectors"].as_array().unwrap() {
        let import = json!({"secret": vector["secret"], "name": vector["name"]});
        let made = api
            .post(&format!("/v1/keyrings/{keyring}/secrets"), &import)
            .await;
        if made["status"] == "pending" {
            let path = format!("/{}", text(&made, "id"));
            kore(&api, Method::PATCH, &path, &json!({"Status": "active"})).await;
        } else {
            let asked = json!({"url": url, "preset": "kore", "keyring": "workspace"});
            api.post(&format!("/v1/apps/{app}/endpoints"), &asked).await;
        }
        let body = text(vector, "body");
        if serde_json::from_str::<Value>(body).is_err() {
            continue;
        }
        json_bodies += 1;
        api.publish(&app, "order.paid", body).await;
        let seen = receiver.next().await;
        assert_eq!(seen.text(), body, "sent as it was published");
        let wanted = signature(text(vector, "secret"), &url, &seen);
        assert_eq!(seen.header("kore-signature"), wanted);
        // The same digest over the vector's own URL is the published one.
        let published = signature(text(vector, "secret"), text(&vectors, "url"), &seen);
        assert_eq!(published, text(vector, "signature"));
    }
    assert_eq!(json_bodies, 2);
    server.stop().await;
}

/// The token names the event, as KORE documents: at whichever endpoint, however often it is sent.
#[tokio::test]
async fn an_event_has_one_token_at_two_endpoints_and_another_event_another() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let api = server.api();
    let mut receiver = Receiver::start().await;
    let app = api.create_app("shop").await;
    for _ in 0..2 {
        let endpoint = json!({ "url": receiver.origin(), "preset": "kore" });
        api.create_endpoint(&app, &endpoint).await;
    }
    let mut tokens = Vec::new();
    for payload in ["1", "2"] {
        let message = api.publish(&app, "order.paid", payload).await;
        for _ in 0..2 {
            let seen = receiver.next().await;
            assert_eq!(seen.text(), payload);
            assert_eq!(seen.header("kore-idempotency-token"), message);
        }
        tokens.push(message);
    }
    assert_ne!(tokens[0], tokens[1]);
    server.stop().await;
}

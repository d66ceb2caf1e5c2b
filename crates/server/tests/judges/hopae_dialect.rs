//! The Hopae dialect from end to end: an app made, configured and rotated by its calls, and Stripe's
//! libraries, whose header has the same form, as the judges of what its receiver gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::panel::{Hearing, Receiving};
use crate::support::{Api, Captured, Receiver, SecretValue, Server};

const APPS: &str = "/connect/v1/apps";
const PAYLOAD: &str = r#"{"verificationId":"058ff1aa", "name":"naïve – 東京 🦘"}"#;

/// An app that delivers to a receiver, all of it by the dialect.
struct Customer {
    api: Api,
    app: String,
    receiver: Receiver,
    receiving: Receiving,
}

impl Customer {
    async fn new(api: Api, receiver: Receiver) -> Self {
        let made = api.post(APPS, &json!({ "name": "customer" })).await;
        let app = made["clientId"].as_str().unwrap().to_owned();
        let url = format!("{}/hooks", receiver.origin());
        let config = json!({ "url": url, "enabled": true });
        let path = format!("{APPS}/{app}/webhook-config");
        let (status, answer) = api.send(Method::PATCH, &path, config.to_string()).await;
        assert_eq!(status, 200, "{answer:?}");
        let receiving = Receiving {
            scheme: "hopae",
            url,
        };
        Self {
            api,
            app,
            receiver,
            receiving,
        }
    }

    /// The secret that `GET webhook-config` shows.
    async fn secret(&self) -> SecretValue {
        let path = format!("{APPS}/{}/webhook-config", self.app);
        value(&self.api.get(&path).await)
    }

    async fn rotate(&self) -> SecretValue {
        let path = format!("{APPS}/{}/webhook-config/rotate-secret", self.app);
        value(&self.api.post(&path, &json!({})).await)
    }

    async fn deliver(&mut self) -> Captured {
        self.publish().await;
        self.receiver.next().await
    }

    async fn publish(&self) {
        let event = "verification.completed";
        self.api.publish(&self.app, event, PAYLOAD).await;
    }

    fn hear(
        &self,
        hearing: &mut Hearing,
        when: &str,
        captured: &Captured,
        holds: &SecretValue,
        lacks: &SecretValue,
    ) {
        assert_eq!(
            captured.header("x-hopae-signature").matches("v1=").count(),
            1
        );
        let name = format!("dialect, {when}");
        hearing.accepts(&name, &self.receiving, holds, captured);
        let name = format!("{name}, the other secret");
        hearing.rejects(&name, &self.receiving, lacks, captured);
    }
}

fn value(answer: &Value) -> SecretValue {
    SecretValue {
        value: answer["secret"].as_str().unwrap().to_owned(),
        public_key: None,
    }
}

#[tokio::test]
async fn stripes_libraries_accept_through_an_immediate_rotation() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let mut hearing = Hearing::open();
    let mut customer = Customer::new(server.api(), Receiver::start().await).await;
    let old = customer.secret().await;
    let before = customer.deliver().await;
    let new = customer.rotate().await;
    assert_eq!(customer.secret().await.value, new.value);
    let after = customer.deliver().await;
    customer.hear(&mut hearing, "before", &before, &old, &new);
    customer.hear(&mut hearing, "after", &after, &new, &old);
    server.stop().await;
    hearing.close().await;
}

#[tokio::test]
async fn g6_stripes_libraries_accept_through_an_overlap_whenever_the_receiver_switches() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let mut hearing = Hearing::open();
    let switched = Arc::new(AtomicBool::new(false));
    let refuse_once = Arc::clone(&switched);
    let receiver = Receiver::answering(move |_| {
        if refuse_once.swap(false, Ordering::SeqCst) {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        }
    });
    let mut customer = Customer::new(server.api(), receiver.await).await;
    let path = format!("/v1/apps/{}", customer.app);
    let setting = json!({ "rotationOverlapSeconds": 3600 }).to_string();
    let (status, _) = customer.api.send(Method::PATCH, &path, setting).await;
    assert_eq!(status, 200);
    // In order, so that each is signed after the one before it was recorded.
    let app = customer.api.get(&path).await;
    let endpoint = app["primaryEndpointId"].as_str().unwrap();
    let ordered = json!({ "ordered": true }).to_string();
    let endpoint = format!("{path}/endpoints/{endpoint}");
    let (status, _) = customer.api.send(Method::PATCH, &endpoint, ordered).await;
    assert_eq!(status, 200);

    let old = customer.secret().await;
    customer.deliver().await;
    let new = customer.rotate().await;
    let not_switched = customer.deliver().await;
    customer.hear(&mut hearing, "not switched", &not_switched, &old, &new);
    switched.store(true, Ordering::SeqCst);
    customer.publish().await;
    let refused = customer.receiver.next().await;
    let fallback = customer.receiver.next().await;
    customer.hear(&mut hearing, "refused", &refused, &old, &new);
    customer.hear(&mut hearing, "fallback", &fallback, &new, &old);
    assert_eq!(refused.body, fallback.body);
    let followed = customer.deliver().await;
    customer.hear(&mut hearing, "followed", &followed, &new, &old);
    server.stop().await;
    hearing.close().await;
}

/// Rotates from outside 64 times at once, each on a connection of its own and under the key that `key`
/// gives it, and answers the secrets of those that were answered with one.
async fn storm(customer: &Customer, key: impl Fn(usize) -> String) -> Vec<String> {
    let path = format!("{APPS}/{}/webhook-config/rotate-secret", customer.app);
    let calls = (0..64).map(|number| {
        let (key, path) = (key(number), &path);
        async move {
            let headers = [("idempotency-key", key.as_str())];
            let api = &customer.api;
            let answer = api
                .exchange(Method::POST, path, &headers, String::new())
                .await;
            let body: Value = serde_json::from_slice(answer.body()).unwrap();
            if answer.status() == StatusCode::OK {
                return Some(body["secret"].as_str().unwrap().to_owned());
            }
            assert_eq!(answer.status(), StatusCode::CONFLICT, "{body}");
            assert_eq!(body["error"]["code"], "IDEMPOTENCY_REQUEST_IN_PROGRESS");
            None
        }
    });
    let answers = futures_util::future::join_all(calls).await;
    answers.into_iter().flatten().collect()
}

fn held(value: &str) -> SecretValue {
    SecretValue {
        value: value.to_owned(),
        public_key: None,
    }
}

#[tokio::test]
async fn g5_64_calls_from_outside_rotate_once_under_one_key_and_each_once_under_their_own() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let mut hearing = Hearing::open();
    let mut customer = Customer::new(server.api(), Receiver::start().await).await;
    let first = customer.secret().await;
    let mut once = storm(&customer, |_| "one key".to_owned()).await;
    once.sort();
    once.dedup();
    let [rotated] = &once[..] else {
        panic!("one rotation has one secret, not {}", once.len());
    };
    assert_eq!(customer.secret().await.value, *rotated);
    let seen = customer.deliver().await;
    customer.hear(&mut hearing, "one key", &seen, &held(rotated), &first);

    let all = storm(&customer, |number| format!("key {number}")).await;
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), 64, "none is lost and none is twice");
    let current = customer.secret().await;
    assert!(distinct.contains(&current.value));
    let seen = customer.deliver().await;
    let name = "dialect, 64 keys";
    hearing.accepts(name, &customer.receiving, &current, &seen);
    for lost in all.iter().filter(|secret| **secret != current.value) {
        hearing.rejects(name, &customer.receiving, &held(lost), &seen);
    }
    // Every call finds its own secret again under its own key.
    let again = storm(&customer, |number| format!("key {number}")).await;
    assert_eq!(again, all);
    let rotations = customer.api.get("/v1/rotations?limit=200").await;
    assert_eq!(rotations["data"].as_array().unwrap().len(), 65);
    server.stop().await;
    hearing.close().await;
}

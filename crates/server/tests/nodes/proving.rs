//! Proven rotations where several nodes send: each endpoint is asked by the node that sends to it, and one node takes
//! the steps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::desk::Desk;
use crate::fleet::{Crowd, signer, until_settled, until_shared};
use crate::support::{Api, Captured, Receiver, within_deadline};

/// Which secrets the receiver holds, by path.
type Held = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

fn is_held(held: &Held, request: &Captured) -> bool {
    let held = held.lock().unwrap();
    let secrets = held.get(&request.path).map(Vec::as_slice);
    let secrets: Vec<&str> = secrets
        .unwrap_or_default()
        .iter()
        .map(String::as_str)
        .collect();
    signer(request, &secrets).is_some()
}

/// A policy whose times are those of a test.
fn policy() -> Value {
    json!({
        "confidencePercent": 80,
        "stalePercent": 20,
        "holdDownMillis": 200,
        "probeEveryMillis": 5,
        "probeBackOffMaxMillis": 100,
        "probesPerHour": 100_000,
        "quietMillis": 300,
        "deadlineMillis": 600_000,
        "canaryPercent": [10, 50, 50],
    })
}

/// Opens a proven rotation as soon as the node knows that the endpoint accepted something.
async fn open(api: &Api, keyring: &str) -> Value {
    let path = format!("/v1/keyrings/{keyring}/rotations");
    let body = json!({ "mode": "proven", "policy": policy() }).to_string();
    let opened = async {
        loop {
            let (status, answer) = api.send(Method::POST, &path, body.clone()).await;
            let answer = serde_json::from_slice(&answer).unwrap();
            if status == StatusCode::CREATED {
                return answer;
            }
            assert_eq!(status, StatusCode::CONFLICT, "{answer}");
        }
    };
    within_deadline("the rotation is opened", opened).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_a_proven_rotation_proves_itself_whichever_nodes_send() {
    let desk = Desk::new().await;
    let (one, other) = (desk.serve().await, desk.serve().await);
    until_shared(&[&one, &other]).await;
    let apis = [one.api(), other.api()];
    let held = Held::default();
    let holds = Arc::clone(&held);
    let receiver = Receiver::answering(move |request| {
        if is_held(&holds, request) {
            StatusCode::NO_CONTENT
        } else {
            StatusCode::UNAUTHORIZED
        }
    });
    let mut crowd = Crowd::make(&apis[0], 3, receiver.await).await;
    for (number, endpoint) in crowd.endpoints.iter().enumerate() {
        let first = vec![endpoint.secret.value.clone()];
        held.lock().unwrap().insert(format!("/{number}"), first);
    }
    apis[0].publish(&crowd.app, "order.paid", "{}").await;
    until_settled(&apis[0], &crowd.app).await;
    let mut rotations = Vec::new();
    for (number, endpoint) in crowd.endpoints.iter().enumerate() {
        let opened = open(&apis[number % 2], &endpoint.keyring_id).await;
        let value = opened["secret"]["value"].as_str().unwrap().to_owned();
        let path = format!("/{number}");
        held.lock().unwrap().get_mut(&path).unwrap().push(value);
        rotations.push(opened["id"].as_str().unwrap().to_owned());
    }
    for (number, id) in rotations.iter().enumerate() {
        // Asked at the node that did not open it.
        let api = &apis[(number + 1) % 2];
        let path = format!("/v1/rotations/{id}");
        let over = async {
            loop {
                apis[number % 2]
                    .publish(&crowd.app, "order.paid", "{}")
                    .await;
                crowd.receiver.next().await;
                let rotation = api.get(&path).await;
                if rotation["promotion"].is_object() {
                    return rotation;
                }
            }
        };
        let rotation = within_deadline("the rotation proves itself", over).await;
        assert_eq!(rotation["promotion"]["grounds"], "proof", "{rotation}");
    }
    until_settled(&apis[0], &crowd.app).await;
    let path = format!("/v1/apps/{}/deliveries?status=exhausted", crowd.app);
    let lost = apis[0].get(&path).await;
    assert_eq!(lost["data"], json!([]));
    one.stop().await;
    other.stop().await;
}

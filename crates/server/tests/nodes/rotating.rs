//! Rotations where several nodes sign: one winner, one answer, and none that signs with what was retired.

use std::collections::BTreeMap;

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::desk::Desk;
use crate::fleet::{Crowd, delivery_of, signer, until_shared};
use crate::support::{Api, Receiver};

async fn open(api: &Api, keyring: &str, key: Option<&str>) -> Response<bytes::Bytes> {
    let path = format!("/v1/keyrings/{keyring}/rotations");
    let headers: Vec<_> = key
        .map(|key| ("idempotency-key", key))
        .into_iter()
        .collect();
    let body = json!({ "mode": "immediate" }).to_string();
    api.exchange(Method::POST, &path, &headers, body).await
}

fn parsed(answer: &Response<bytes::Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

/// The fence of an answer: nodes, how many confirmed, milliseconds.
fn fence(answer: &Response<bytes::Bytes>) -> [u64; 3] {
    let told = answer.headers()["hookturn-fence"].to_str().unwrap();
    let numbers: Vec<u64> = told
        .split(", ")
        .map(|part| part.split_once('=').unwrap().1.parse().unwrap())
        .collect();
    numbers.try_into().unwrap()
}

/// Every message that is published after the answer is signed with the new secret, whichever node sends it; and
/// the nodes follow long before the grace ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g4_after_an_immediate_rotation_is_answered_no_node_signs_with_the_old_secret() {
    let desk = Desk::new().await;
    let (one, other) = (desk.serve().await, desk.serve().await);
    until_shared(&[&one, &other]).await;
    let (here, there) = (one.api(), other.api());
    let mut crowd = Crowd::make(&here, 8, Receiver::start().await).await;
    let mut secrets: Vec<Vec<String>> = crowd
        .endpoints
        .iter()
        .map(|endpoint| vec![endpoint.secret.value.clone()])
        .collect();
    // From which secret on each message must be signed, by path.
    let mut newest: BTreeMap<(String, String), usize> = BTreeMap::new();
    for round in 0..12 {
        let place = round % crowd.endpoints.len();
        let id = there.publish(&crowd.app, "order.paid", "{}").await;
        for delivery in crowd.deliveries_of(&id) {
            newest.entry(delivery).or_insert(0);
        }
        let answer = open(&here, &crowd.endpoints[place].keyring_id, None).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        let [nodes, confirmed, millis] = fence(&answer);
        assert_eq!((nodes, confirmed), (2, 2));
        assert!(millis < 1_500, "{millis} ms");
        let value = parsed(&answer)["secret"]["value"]
            .as_str()
            .unwrap()
            .to_owned();
        secrets[place].push(value);
        for api in [&here, &there] {
            let id = api.publish(&crowd.app, "order.paid", "{}").await;
            for (path, id) in crowd.deliveries_of(&id) {
                let number: usize = path[1..].parse().unwrap();
                newest.insert((path, id), secrets[number].len() - 1);
            }
        }
    }
    let mut missing = newest.clone();
    while !missing.is_empty() {
        let request = crowd.receiver.next().await;
        let delivery = delivery_of(&request);
        let number: usize = delivery.0[1..].parse().unwrap();
        let known: Vec<&str> = secrets[number].iter().map(String::as_str).collect();
        let by = signer(&request, &known).unwrap();
        assert!(
            by >= newest[&delivery],
            "{delivery:?} was signed with a retired secret"
        );
        missing.remove(&delivery);
    }
    one.stop().await;
    other.stop().await;
}

/// A node that hangs does not keep a leaked secret alive: the rotation is answered when its confirmation has run
/// out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g4_a_node_that_does_not_answer_is_waited_for_until_it_cannot_sign() {
    let desk = Desk::new().await;
    let (one, other) = (desk.serve().await, desk.serve().await);
    until_shared(&[&one, &other]).await;
    let api = one.api();
    let crowd = Crowd::make(&api, 1, Receiver::start().await).await;
    other.pause();
    let answer = open(&api, &crowd.endpoints[0].keyring_id, None).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let [nodes, confirmed, millis] = fence(&answer);
    assert_eq!((nodes, confirmed), (2, 1));
    assert!((2_000..4_000).contains(&millis), "{millis} ms");
    other.go_on();
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_of_rotations_at_two_nodes_at_once_one_wins_each_time() {
    let desk = Desk::new().await;
    let (one, other) = (desk.serve().await, desk.serve().await);
    until_shared(&[&one, &other]).await;
    let (here, there) = (one.api(), other.api());
    let crowd = Crowd::make(&here, 1, Receiver::start().await).await;
    let keyring = &crowd.endpoints[0].keyring_id;
    let path = format!("/v1/keyrings/{keyring}/rotations");
    let staged = || json!({ "mode": "staged" }).to_string();
    for _ in 0..10 {
        let asked = [&here, &there].map(|api| api.send(Method::POST, &path, staged()));
        let answers = futures_util::future::join_all(asked).await;
        let mut statuses: Vec<_> = answers.iter().map(|(status, _)| *status).collect();
        statuses.sort();
        assert_eq!(
            statuses,
            [StatusCode::CREATED, StatusCode::CONFLICT],
            "{answers:?}"
        );
        let won = answers
            .iter()
            .find(|(status, _)| status.is_success())
            .unwrap();
        let won: Value = serde_json::from_slice(&won.1).unwrap();
        let open = there.get("/v1/rotations?state=open").await;
        assert_eq!(open["data"].as_array().unwrap().len(), 1);
        assert_eq!(open["data"][0]["id"], won["id"]);
        let cancel = format!("/v1/rotations/{}/cancel", won["id"].as_str().unwrap());
        there.post(&cancel, &json!({})).await;
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_the_same_idempotency_key_at_two_nodes_is_one_rotation_with_one_answer() {
    let desk = Desk::new().await;
    let (one, other) = (desk.serve().await, desk.serve().await);
    until_shared(&[&one, &other]).await;
    let (here, there) = (one.api(), other.api());
    let crowd = Crowd::make(&here, 1, Receiver::start().await).await;
    let keyring = &crowd.endpoints[0].keyring_id;
    for round in 0..10 {
        let key = format!("the same {round}").replace(' ', "-");
        let asked = [&here, &there, &here].map(|api| open(api, keyring, Some(&key)));
        let answers = futures_util::future::join_all(asked).await;
        let done: Vec<_> = answers
            .iter()
            .filter(|answer| answer.status() == StatusCode::CREATED)
            .collect();
        // At one node a twin that runs is told to come again.
        let told = answers
            .iter()
            .all(|answer| matches!(answer.status(), StatusCode::CREATED | StatusCode::CONFLICT));
        assert!(told && !done.is_empty(), "{answers:?}");
        let last = open(&there, keyring, Some(&key)).await;
        for answer in done {
            assert_eq!(answer.body(), last.body());
        }
    }
    let secrets = here.get(&format!("/v1/keyrings/{keyring}/secrets")).await;
    assert_eq!(secrets["data"].as_array().unwrap().len(), 11);
    one.stop().await;
    other.stop().await;
}

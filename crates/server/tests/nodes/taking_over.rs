//! What becomes of the work of a node that does not live any more, and of the node.

use std::collections::BTreeSet;

use hookturn::cli::exit::Exit;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::desk::Desk;
use crate::fleet::{
    Crowd, LEASE, SHARDS, delivery_of, lateness_of_takeovers, metric, shards, until_settled,
    until_shared,
};
use crate::support::{Api, Receiver, Server, within_deadline};

/// Of a node that hangs for less.
const LONG_LEASE: (&str, &str) = ("HOOKTURN_LEASE_SECONDS", "60");

async fn two_with_a_short_lease(desk: &Desk) -> (Server, Server) {
    let one = desk.serve_with(&desk.url, &[LEASE]).await;
    let other = desk.serve_with(&desk.url, &[LEASE]).await;
    until_shared(&[&one, &other]).await;
    (one, other)
}

/// Publishes to either node until the other has taken over; both take messages until the one is gone.
async fn publish(api: &Api, app: &str, number: usize) -> Option<String> {
    let path = format!("/v1/apps/{app}/messages");
    let body = format!(r#"{{"eventType":"order.paid","payload":{{"n":{number}}}}}"#);
    let (status, answer) = api.send(Method::POST, &path, body).await;
    if status != StatusCode::ACCEPTED {
        return None;
    }
    let view: Value = serde_json::from_slice(&answer).unwrap();
    Some(view["id"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_what_a_killed_node_had_is_sent_by_the_other() {
    let desk = Desk::new().await;
    let (one, other) = two_with_a_short_lease(&desk).await;
    let mut crowd = Crowd::make(&one.api(), 8, Receiver::start().await).await;
    let mut wanted = BTreeSet::new();
    for number in 0..40 {
        let node = if number % 2 == 0 { &one } else { &other };
        let id = publish(&node.api(), &crowd.app, number).await.unwrap();
        wanted.extend(crowd.deliveries_of(&id));
    }
    one.kill().await;
    for number in 0..10 {
        let id = publish(&other.api(), &crowd.app, number).await.unwrap();
        wanted.extend(crowd.deliveries_of(&id));
    }
    until_shared(&[&other]).await;
    crowd.receive(&wanted).await;
    until_settled(&other.api(), &crowd.app).await;
    other.stop().await;
}

/// Stopped for longer than its lease: the other node takes over within the lease and two seconds, and sends
/// everything. When the first goes on, it sends nothing, records nothing, and ends with a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_node_that_hung_for_longer_than_its_lease_neither_signs_nor_records_and_ends() {
    let desk = Desk::new().await;
    let (one, other) = two_with_a_short_lease(&desk).await;
    let mut crowd = Crowd::make(&one.api(), 8, Receiver::start().await).await;
    one.pause();
    let mut wanted = BTreeSet::new();
    for number in 0..10 {
        let id = publish(&other.api(), &crowd.app, number).await.unwrap();
        wanted.extend(crowd.deliveries_of(&id));
    }
    until_shared(&[&other]).await;
    let late = lateness_of_takeovers(&desk).await[0];
    assert!((0.0..2.0).contains(&late), "{late} s");
    let before = crowd.receive(&wanted).await;
    assert!(before.values().all(|count| *count == 1), "{before:?}");
    until_settled(&other.api(), &crowd.app).await;
    one.go_on();
    let (code, log) = one.ended().await;
    assert_eq!(code, Some(i32::from(Exit::DatabaseInUse.code())), "{log}");
    assert!(log.contains("this node was taken over"), "{log}");
    // The next thing that comes anywhere is the next message.
    let id = publish(&other.api(), &crowd.app, 99).await.unwrap();
    for _ in 0..crowd.endpoints.len() {
        assert_eq!(delivery_of(&crowd.receiver.next().await).1, id);
    }
    other.stop().await;
}

/// Of an ordered endpoint each message comes after the one before, whichever nodes accepted them, and whichever
/// sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_order_holds_whichever_nodes_accept_and_when_another_takes_over() {
    let desk = Desk::new().await;
    let (one, other) = two_with_a_short_lease(&desk).await;
    let (here, there) = (one.api(), other.api());
    let mut receiver = Receiver::start().await;
    let app = here.create_app("shop").await;
    for number in 0..6 {
        let url = format!("{}/{number}", receiver.origin());
        let asked = json!({ "url": url, "ordered": true });
        here.create_endpoint(&app, &asked).await;
    }
    let mut published = Vec::new();
    for number in 0..40 {
        let api = if number % 2 == 0 { &here } else { &there };
        published.push(publish(api, &app, number).await.unwrap());
    }
    one.pause();
    for number in 40..60 {
        published.push(publish(&there, &app, number).await.unwrap());
    }
    let mut came: Vec<Vec<String>> = vec![Vec::new(); 6];
    while came.iter().any(|of| of.len() < published.len()) {
        let (path, id) = delivery_of(&receiver.next().await);
        let of = &mut came[path[1..].parse::<usize>().unwrap()];
        // What was sent and not recorded comes once more.
        if !of.contains(&id) {
            of.push(id);
        }
    }
    for of in came {
        assert_eq!(of, published);
    }
    one.go_on();
    one.ended().await;
    other.stop().await;
}

/// What a dead node had is not kept for one that hangs: it would wait for it as long again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_nothing_is_dealt_to_a_node_that_hangs() {
    let desk = Desk::new().await;
    let (one, other) = two_with_a_short_lease(&desk).await;
    let hanging = desk.serve_with(&desk.url, &[LONG_LEASE]).await;
    until_shared(&[&one, &other, &hanging]).await;
    let (api, kept) = (other.api(), shards(&hanging.api()).await);
    hanging.pause();
    one.kill().await;
    let dealt = async { while shards(&api).await < SHARDS - kept {} };
    within_deadline("the living node has all that is free", dealt).await;
    let late = lateness_of_takeovers(&desk).await;
    assert_eq!(late.len(), 1, "nobody was taken over but the dead one");
    hanging.go_on();
    until_shared(&[&other, &hanging]).await;
    other.stop().await;
    hanging.stop().await;
}

/// A node that left is no longer counted, and one that was taken over neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_counts_those_that_live() {
    let desk = Desk::new().await;
    let (one, other) = two_with_a_short_lease(&desk).await;
    let api = other.api();
    assert!((metric(&api, "hookturn_nodes").await - 2.0).abs() < f64::EPSILON);
    one.kill().await;
    until_shared(&[&other]).await;
    let counted = async { while metric(&api, "hookturn_nodes").await > 1.0 {} };
    within_deadline("the killed node is not counted", counted).await;
    other.stop().await;
}

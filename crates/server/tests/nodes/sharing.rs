//! Nodes that share a database: each sends what is due for its own shards, whoever accepted it, and each knows at once
//! what another made.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::json;

use crate::cutter::Cutter;
use crate::desk::Desk;
use crate::fleet::{Crowd, SHARDS, shards, until_ready_is, until_settled, until_shared};
use crate::support::postmaster::Postmaster;
use crate::support::{Api, Receiver};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_what_either_node_accepts_is_sent_once() {
    let desk = Desk::new().await;
    let (one, other) = (desk.serve().await, desk.serve().await);
    until_shared(&[&one, &other]).await;
    let mut crowd = Crowd::make(&one.api(), 12, Receiver::start().await).await;
    let mut wanted = BTreeSet::new();
    for number in 0..20 {
        let node = if number % 2 == 0 { &one } else { &other };
        let id = node.api().publish(&crowd.app, "order.paid", "{}").await;
        wanted.extend(crowd.deliveries_of(&id));
    }
    let came = crowd.receive(&wanted).await;
    let twice: Vec<_> = came.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(came.len(), wanted.len());
    until_settled(&other.api(), &crowd.app).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_at_one_node_is_there_at_the_other_when_it_is_answered() {
    let desk = Desk::new().await;
    let (one, other) = (desk.serve().await, desk.serve().await);
    let mut receiver = Receiver::start().await;
    let (here, there) = (one.api(), other.api());
    for number in 0..10 {
        let app = here.create_app(&format!("app {number}")).await;
        let asked = json!({ "url": receiver.origin() });
        let endpoint = there.create_endpoint(&app, &asked).await;
        let id = here.publish(&app, "order.paid", "{}").await;
        assert_eq!(receiver.next().await.header("webhook-id"), id);
        let workspaces = here.get("/v1/workspaces").await;
        let path = workspaces["data"][0]["id"].as_str().unwrap();
        let path = format!("/v1/workspaces/{path}");
        let asked = json!({ "name": format!("name-{number}") });
        let patched = here.send(Method::PATCH, &path, asked.to_string()).await;
        assert_eq!(patched.0, StatusCode::OK, "{patched:?}");
        assert_eq!(there.get(&path).await["name"], asked["name"]);
        let path = format!("/v1/apps/{app}/endpoints/{}", endpoint.id);
        there.send(Method::DELETE, &path, String::new()).await;
        let (status, _) = here.send(Method::GET, &path, String::new()).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
    one.stop().await;
    other.stop().await;
}

/// A node that was stopped for a while knows nothing of what was made meanwhile. It looks before it refuses anything,
/// and before it accepts anything for the endpoints that it knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_node_that_was_stopped_knows_what_was_made_meanwhile_before_it_answers() {
    let desk = Desk::new().await;
    let (one, other) = (desk.serve().await, desk.serve().await);
    until_shared(&[&one, &other]).await;
    let (here, mut receiver) = (one.api(), Receiver::start().await);
    for round in 0..3 {
        other.pause();
        let asked = json!({ "name": "made meanwhile", "scopes": ["publish", "manage", "read"] });
        let made = here.post("/v1/api-keys", &asked).await;
        let key = made["key"].as_str().unwrap().to_owned().leak();
        let app = here.create_app(&format!("app {round}")).await;
        let asked = json!({ "url": receiver.origin() });
        let endpoint = here.create_endpoint(&app, &asked).await;
        other.go_on();
        let there = Api { key, ..other.api() };
        let id = there.publish(&app, "order.paid", "{}").await;
        assert_eq!(receiver.next().await.header("webhook-id"), id);
        let path = format!("/v1/apps/{app}/endpoints/{}", endpoint.id);
        let (status, _) = there.send(Method::GET, &path, String::new()).await;
        assert_eq!(status, StatusCode::OK);
    }
    one.stop().await;
    other.stop().await;
}

/// A node that cannot ask the database lets nobody in by what it knew, and refuses nobody by it either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_database_answers_nobody_by_what_it_knew() {
    let postgres = Postmaster::start().await;
    let cutter = Cutter::start(postgres.port()).await;
    let desk = Desk::on(&postgres.url("postgres"));
    let one = desk.serve().await;
    let other = desk.serve_with(&cutter.url("postgres"), &[]).await;
    let (here, there) = (one.api(), other.api());
    let known = here.create_app("known").await;
    let nowhere = format!("/v1/apps/{}", known.replace(|c| c != '_', "0"));
    let (status, _) = there.send(Method::GET, &nowhere, String::new()).await;
    assert!(status.is_client_error(), "{status}");
    let asked = json!({ "name": "revoked meanwhile", "scopes": ["read"] });
    let revoked = here.post("/v1/api-keys", &asked).await;
    cutter.open(false);
    until_ready_is(&there, StatusCode::SERVICE_UNAVAILABLE).await;
    let app = here.create_app("made meanwhile").await;
    let asked = json!({ "name": "made meanwhile", "scopes": ["read"] });
    let made = here.post("/v1/api-keys", &asked).await;
    let key = made["key"].as_str().unwrap().to_owned().leak();
    let fresh = Api {
        key,
        ..there.clone()
    };
    let path = format!("/v1/api-keys/{}", revoked["id"].as_str().unwrap());
    here.send(Method::DELETE, &path, String::new()).await;
    let revoked = Api {
        key: revoked["key"].as_str().unwrap().to_owned().leak(),
        ..there.clone()
    };
    for (api, path) in [
        (&revoked, format!("/v1/apps/{known}")),
        (&there, format!("/v1/apps/{known}")),
        (&there, format!("/v1/apps/{app}")),
        (&there, format!("/v1/apps/{app}/endpoints")),
        (&fresh, format!("/v1/apps/{known}")),
    ] {
        let answer = api.exchange(Method::GET, &path, &[], String::new()).await;
        let shown = String::from_utf8_lossy(answer.body()).into_owned();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{shown}");
        assert_eq!(answer.headers()["retry-after"], "1", "{shown}");
        assert!(shown.contains("what it knows may be old"), "{shown}");
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for key in [key, revoked.key] {
        let signs_in = there.exchange(Method::POST, "/sign-in", &form, format!("key={key}"));
        assert_eq!(signs_in.await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    cutter.open(true);
    until_ready_is(&there, StatusCode::OK).await;
    let path = format!("/v1/apps/{known}");
    let (status, _) = revoked.send(Method::GET, &path, String::new()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        fresh.get(&format!("/v1/apps/{app}")).await["name"],
        "made meanwhile"
    );
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_node_that_leaves_in_order_hands_its_shards_over_at_once() {
    let desk = Desk::new().await;
    let (one, other) = (desk.serve().await, desk.serve().await);
    until_shared(&[&one, &other]).await;
    let mut crowd = Crowd::make(&one.api(), 8, Receiver::start().await).await;
    let mut wanted = BTreeSet::new();
    for _ in 0..10 {
        let id = other.api().publish(&crowd.app, "order.paid", "{}").await;
        wanted.extend(crowd.deliveries_of(&id));
    }
    one.stop().await;
    until_shared(&[&other]).await;
    assert_eq!(shards(&other.api()).await, SHARDS);
    crowd.receive(&wanted).await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_node_gets_its_share() {
    let desk = Desk::new().await;
    let (one, two) = (desk.serve().await, desk.serve().await);
    until_shared(&[&one, &two]).await;
    let three = desk.serve().await;
    until_shared(&[&one, &two, &three]).await;
    for node in [one, two, three] {
        node.stop().await;
    }
}

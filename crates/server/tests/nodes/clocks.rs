//! Nodes agree on time by the database's clock; one whose own is far off says so, and sends nothing.

use http::StatusCode;
use serde_json::json;

use crate::desk::Desk;
use crate::fleet::{CLOCK_SHIFT, SHARDS, shards, until_ready_is, until_shared};
use crate::support::Receiver;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_two_seconds_off_is_not_ready_and_owns_nothing() {
    let desk = Desk::new().await;
    let right = desk.serve().await;
    for shift in ["2000", "-2000"] {
        let wrong = desk.serve_with(&desk.url, &[(CLOCK_SHIFT, shift)]).await;
        let told = until_ready_is(&wrong.api(), StatusCode::SERVICE_UNAVAILABLE).await;
        assert!(told.contains("clock of this machine is off"), "{told}");
        until_shared(&[&right]).await;
        assert_eq!(shards(&right.api()).await, SHARDS);
        assert_eq!(shards(&wrong.api()).await, 0);
        assert!(wrong.log().contains("clock is off"), "{}", wrong.log());
        wrong.stop().await;
    }
    until_ready_is(&right.api(), StatusCode::OK).await;
    right.stop().await;
}

/// What a node whose clock is a little off accepts and signs is as if it were right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g4_a_node_whose_clock_is_a_little_off_goes_by_the_databases() {
    let desk = Desk::new().await;
    let slow = desk.serve_with(&desk.url, &[(CLOCK_SHIFT, "-700")]).await;
    let right = desk.serve().await;
    until_shared(&[&slow, &right]).await;
    until_ready_is(&slow.api(), StatusCode::OK).await;
    let receiver = Receiver::start().await;
    let app = slow.api().create_app("shop").await;
    let asked = json!({ "url": receiver.origin() });
    let endpoint = slow.api().create_endpoint(&app, &asked).await;
    let made = right.api().create_app("later").await;
    let of = async |app: &str| {
        let found = right.api().get(&format!("/v1/apps/{app}")).await;
        found["createdAt"].as_str().unwrap().to_owned()
    };
    // Made one after the other, at nodes that are 0.7 s apart.
    assert!(of(&app).await < of(&made).await, "{}", endpoint.id);
    slow.stop().await;
    right.stop().await;
}

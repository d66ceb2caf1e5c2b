//! Probes that people ask for have a budget, and an answer that says so and when to ask again.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::World;
use crate::support::within_deadline;

/// Whatever runs out first on this machine: what the host may get in a second, or the endpoint in an hour.
#[tokio::test]
async fn g10_whoever_rehearses_without_end_is_told_to_wait() {
    let world = World::new(json!({})).await.contacted().await;
    let path = format!("/v1/endpoints/{}/rehearse", world.endpoint.id);
    let refused = within_deadline("a rehearsal is refused", async {
        loop {
            let body = "{}".to_owned();
            let answer = world.api.exchange(Method::POST, &path, &[], body).await;
            if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                return answer;
            }
            assert_eq!(answer.status(), StatusCode::OK);
        }
    })
    .await;
    let wait: u32 = refused.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=3_600).contains(&wait), "{wait}");
    let problem: Value = serde_json::from_slice(refused.body()).unwrap();
    assert_eq!(
        (&problem["code"], &problem["retryable"]),
        (&json!("probes_used_up"), &json!(true))
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("nothing was sent: "), "{detail}");
    world.server.stop().await;
}

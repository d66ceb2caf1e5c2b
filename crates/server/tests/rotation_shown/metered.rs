//! What `/metrics` says of an open rotation is what the API says, and it is gone when the rotation is over.

use std::collections::BTreeMap;

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Api, World};
use crate::support::within_deadline;

/// The series that name a rotation: its name, with the label that not all have, and its value.
async fn series(api: &Api, rotation: &str) -> BTreeMap<String, f64> {
    let (status, page) = api.send(Method::GET, "/metrics", String::new()).await;
    assert!(status.is_success());
    let page = String::from_utf8(page.to_vec()).unwrap();
    let of_it = page.lines().filter(|line| line.contains(rotation));
    let named = of_it.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap();
        let standing = labels.split_once("standing=");
        let standing = standing.map_or("", |(_, word)| word.trim_matches(['"', '}']));
        (format!("{name}{standing}"), value.parse().unwrap())
    });
    named.collect()
}

/// The same as the API says it.
fn said(evidence: &Value) -> BTreeMap<String, f64> {
    let number = |field: &str| evidence[field].as_f64();
    let seconds = |field: &str| {
        let at: Timestamp = evidence[field].as_str()?.parse().unwrap();
        Some(f64::from(i32::try_from(at.as_second()).unwrap()))
    };
    let all = [
        ("passes", number("passes")),
        ("passes_needed", number("needed")),
        (
            "ruled_out_ratio",
            number("rulesOutPercent").map(|percent| percent / 100.0),
        ),
        ("probe_passes_total", number("probePasses")),
        ("delivery_passes_total", number("deliveryPasses")),
        ("refusals_total", number("refusals")),
        ("canaries_total", number("canaries")),
        ("fallbacks_total", number("fallbacks")),
        ("old_needed_total", number("oldNeeded")),
        ("first_pass_timestamp_seconds", seconds("firstPassAt")),
        ("last_pass_timestamp_seconds", seconds("lastPassAt")),
        ("last_refusal_timestamp_seconds", seconds("lastRefusalAt")),
        ("last_fallback_timestamp_seconds", seconds("lastFallbackAt")),
    ];
    let mut said: BTreeMap<_, _> = all
        .into_iter()
        .filter_map(|(name, value)| Some((format!("hookturn_rotation_{name}"), value?)))
        .collect();
    let standing = evidence["standing"].as_str().unwrap();
    said.insert(format!("hookturn_rotation_standing{standing}"), 1.0);
    said
}

#[tokio::test]
async fn the_metrics_of_a_rotation_are_what_the_api_says_until_it_is_over() {
    let mut world = World::new(json!({})).await.contacted().await;
    let overlap = json!({ "mode": "overlap", "overlapSeconds": 3_600 });
    let opened = world.api.rotate(&world.endpoint.keyring_id, &overlap).await;
    // The test event that made contact.
    world.receiver.next().await;
    // Both secrets are refused; then whichever comes first is accepted, by the retry as well.
    for (status, requests) in [(401, 2), (200, 1)] {
        world.answers(status);
        world.api.publish(&world.app, "shown.metered", "{}").await;
        for _ in 0..requests {
            world.receiver.next().await;
        }
    }
    let path = format!("/v1/rotations/{}", opened.id);
    within_deadline("both say the same", async {
        loop {
            let evidence = world.api.get(&path).await["endpoints"][0].take();
            let metered = series(&world.api, &opened.id).await;
            let counted = evidence["refusals"].as_u64() >= Some(1)
                && (evidence["passes"].as_u64() > Some(0)
                    || evidence["oldNeeded"].as_u64() > Some(0));
            if counted && metered == said(&evidence) {
                assert!(metered.len() >= 12, "{metered:?}");
                return;
            }
        }
    })
    .await;
    let finish = format!("{path}/finish");
    world.api.post(&finish, &json!({})).await;
    within_deadline("its series are gone", async {
        while !series(&world.api, &opened.id).await.is_empty() {}
    })
    .await;
    world.server.stop().await;
}

//! What is said of a rotation is what is so: which one is open, what can be moved, who cannot be asked, and
//! what can still be done about a leaked secret.

use hookturn::telemetry::SystemClock;
use hookturn_core::time::{Clock as _, DAY};
use serde_json::{Value, json};

use super::World;

fn days_from_now(days: u64) -> String {
    SystemClock.now().after(days * DAY).to_string()
}

#[tokio::test]
async fn refusals_name_the_open_rotation_the_field_and_what_is_possible() {
    let world = World::new(json!({})).await;
    let open = world
        .api
        .rotate(&world.endpoint.keyring_id, &json!({ "mode": "overlap" }))
        .await;
    // That it never accepted anything is no reason while another one is open.
    let (status, problem) = world
        .refused(&world.rotations(), &json!({ "mode": "proven" }))
        .await;
    assert_eq!((status, &problem["code"]), (409, &json!("rotation_open")));
    assert_eq!(problem["openRotationId"], json!(open.id));
    let extend = format!("/v1/rotations/{}/extend", open.id);
    let late = json!({ "retireAt": days_from_now(31) });
    let (status, problem) = world.refused(&extend, &late).await;
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (422, &json!("/retireAt")),
        "{problem}"
    );
    world
        .api
        .post(&format!("/v1/rotations/{}/finish", open.id), &json!({}))
        .await;
    let staged = world
        .api
        .rotate(&world.endpoint.keyring_id, &json!({ "mode": "staged" }))
        .await;
    let finish = format!("/v1/rotations/{}/finish", staged.id);
    let (status, problem) = world.refused(&finish, &json!({})).await;
    assert_eq!(status, 409);
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.ends_with("nothing to retire: promote or cancel it"),
        "{detail}"
    );
    world.server.stop().await;
}

#[tokio::test]
async fn a_deadline_may_be_a_time() {
    let world = World::new(json!({})).await.contacted().await;
    for (body, message) in [
        (json!({ "mode": "overlap" }), "mode proven"),
        (json!({ "mode": "proven" }), "30 days"),
    ] {
        let mut body = body;
        body["deadlineAt"] = json!(days_from_now(31));
        let (status, problem) = world.refused(&world.rotations(), &body).await;
        let error = &problem["errors"][0];
        assert_eq!((status, &error["pointer"]), (422, &json!("/deadlineAt")));
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains(message), "{detail}");
    }
    let early = json!({ "mode": "proven", "deadlineAt": "2020-01-01T00:00:00Z" });
    let (_, problem) = world.refused(&world.rotations(), &early).await;
    assert_eq!(problem["errors"][0]["pointer"], "/deadlineAt");
    let at = days_from_now(9);
    let asked = json!({ "mode": "proven", "deadlineAt": at });
    let opened = world.api.rotate(&world.endpoint.keyring_id, &asked).await;
    let shown = world.api.get(&format!("/v1/rotations/{}", opened.id)).await;
    let millis = shown["policy"]["deadlineMillis"].as_u64().unwrap();
    let nine_days = 9 * 24 * 60 * 60 * 1_000;
    assert!(
        (nine_days - 60_000..=nine_days).contains(&millis),
        "{millis}"
    );
    // It is shown as a time, and in the overlap it is the end of the old secret.
    assert_eq!(shown["deadlineAt"], at, "{shown}");
    let promote = format!("/v1/rotations/{}/promote", opened.id);
    let promoted = world.api.post(&promote, &json!({ "force": true })).await;
    assert_eq!(promoted["deadlineAt"], at, "{promoted}");
    assert_eq!(promoted["retireAt"], at, "{promoted}");
    let finish = format!("/v1/rotations/{}/finish", opened.id);
    let over = world.api.post(&finish, &json!({})).await;
    assert!(over.get("deadlineAt").is_none(), "{over}");
    world.server.stop().await;
}

#[tokio::test]
async fn an_extended_rotation_says_until_when_it_keeps_the_old_secret() {
    let world = World::new(json!({})).await.contacted().await;
    let proven = json!({ "mode": "proven" });
    let opened = world.api.rotate(&world.endpoint.keyring_id, &proven).await;
    let rotation = format!("/v1/rotations/{}", opened.id);
    let promote = format!("{rotation}/promote");
    let promoted = world.api.post(&promote, &json!({ "force": true })).await;
    assert!(promoted.get("keptUntil").is_none(), "{promoted}");
    let until = days_from_now(20);
    let extend = format!("{rotation}/extend");
    let answer = world.api.post(&extend, &json!({ "retireAt": until })).await;
    for said in [answer, world.api.get(&rotation).await] {
        assert_eq!(said["keptUntil"], until, "{said}");
        assert_eq!(said["retireAt"], until, "{said}");
        let deliveries = said["deliveries"].as_str().unwrap();
        assert!(
            deliveries
                .contains("not sooner, because somebody extended it, later while it is needed"),
            "{deliveries}"
        );
    }
    world.server.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_asked_any_more_says_why_and_what_helps() {
    let world = World::new(json!({})).await.contacted().await;
    let proven = json!({ "mode": "proven" });
    let opened = world.api.rotate(&world.endpoint.keyring_id, &proven).await;
    let standing = async || -> Value {
        let path = format!("/v1/rotations/{}", opened.id);
        world.api.get(&path).await["endpoints"][0].take()
    };
    assert!(standing().await.get("unasked").is_none());
    for (fields, code, helps) in [
        (
            json!({ "probe": { "mode": "off" } }),
            "probes_off",
            "turn them on",
        ),
        (
            json!({ "state": "disabled" }),
            "endpoint_not_enabled",
            "enable it",
        ),
    ] {
        world.patch(&fields).await;
        let said = standing().await;
        assert_eq!(said["unasked"], code, "{said}");
        let words = said["words"].as_str().unwrap();
        assert!(
            words.starts_with("it cannot be asked, because") && words.contains(helps),
            "{words}"
        );
        // What is staged cannot be finished.
        assert!(
            words.contains("promote with force, or cancel the rotation")
                && !words.contains("finish"),
            "{words}"
        );
    }
    let promote = format!("/v1/rotations/{}/promote", opened.id);
    world.api.post(&promote, &json!({ "force": true })).await;
    let said = standing().await;
    let words = said["words"].as_str().unwrap();
    assert!(
        words.contains("enable it, or finish the rotation") && !words.contains("cancel"),
        "{words}"
    );
    let finish = format!("/v1/rotations/{}/finish", opened.id);
    let over = world.api.post(&finish, &json!({})).await;
    assert_eq!(over["stage"], "completed");
    world.server.stop().await;
}

#[tokio::test]
async fn what_is_marked_as_leaked_can_not_be_asked_about_and_nobody_is_sent_to_ask() {
    let world = World::new(json!({})).await.contacted().await;
    let keyring = format!("/v1/keyrings/{}", world.endpoint.keyring_id);
    let old = world.api.get(&keyring).await["secrets"][0]["id"].take();
    let mark = format!("{keyring}/secrets/{}/compromise", old.as_str().unwrap());
    let overlap = json!({ "mode": "overlap" });
    world.api.rotate(&world.endpoint.keyring_id, &overlap).await;
    let marked = world.api.post(&mark, &json!({})).await;
    let next = marked["next"].as_str().unwrap();
    assert!(
        next.contains("can no longer be asked") && !next.contains("/released"),
        "{next}"
    );
    let (status, problem) = world.refused(&mark, &json!({})).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("already_compromised"))
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.ends_with("nothing is left to do about it"),
        "{detail}"
    );
    // The active one signs until it is replaced.
    let secrets = world.api.get(&keyring).await["secrets"].take();
    let active = secrets.as_array().unwrap().iter();
    let active = active.clone().find(|secret| secret["status"] == "active");
    let id = active.unwrap()["id"].as_str().unwrap();
    let mark = format!("{keyring}/secrets/{id}/compromise");
    world.api.post(&mark, &json!({})).await;
    let (_, problem) = world.refused(&mark, &json!({})).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("rotate away from it"), "{detail}");
    world.server.stop().await;
}

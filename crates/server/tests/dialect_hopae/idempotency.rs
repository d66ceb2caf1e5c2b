//! `Idempotency-Key` as Hopae's page says: up to 255 characters, 24 hours, bound to workspace,
//! method and path.

use std::collections::BTreeSet;

use hookturn::service::Settings;
use serde_json::json;

use crate::bench::{Bench, HandClock, Reply};
use crate::desk::{APPS, Desk, checked, refused};

/// A rotation under a key with any body, on any path.
async fn rotate_at(desk: &Desk, path: &str, key: &str, body: &str) -> Reply {
    let ask = desk.bench.ask("POST", path).header("idempotency-key", key);
    let reply = match body {
        "" => ask.send().await,
        body => ask.raw("application/json", body.to_owned()).send().await,
    };
    checked("POST", path, reply)
}

#[tokio::test]
async fn g5_the_same_key_gets_the_same_secret_whatever_an_empty_body_looks_like() {
    let desk = Desk::new().await;
    let new = desk.rotate_path();
    let old = new.replace("webhook-config", "webhook_config");
    let first = rotate_at(&desk, &new, "k-1", "").await;
    assert_eq!(first.header("idempotency-replayed"), None);
    for path in [&new, &old] {
        for body in ["", "{}", " { } ", "\n"] {
            let again = rotate_at(&desk, path, "k-1", body).await;
            assert_eq!(again.status, 200, "{body:?}");
            assert_eq!(again.text, first.text, "{body:?}");
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
        }
    }
    assert_eq!(first.json()["secret"], desk.secret().await);
    assert_eq!(desk.audit(&["rotation.opened"]).await.len(), 1);
    // A replay is the answer of that time, not the state of now.
    let newer = desk.rotated().await;
    let again = rotate_at(&desk, &new, "k-1", "").await;
    assert_eq!(again.text, first.text);
    assert_eq!(desk.secret().await, newer);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_a_conflict() {
    let desk = Desk::new().await;
    let path = desk.rotate_path();
    rotate_at(&desk, &path, "k-1", "").await.ok();
    for body in [r#"{"a":1}"#, "[]", "{"] {
        let reply = rotate_at(&desk, &path, "k-1", body).await;
        refused(
            &reply,
            409,
            "IDEMPOTENCY_KEY_CONFLICT",
            Some("Idempotency-Key"),
        );
    }
    let create = |name: &'static str| {
        let ask = desk
            .bench
            .ask("POST", APPS)
            .header("idempotency-key", "k-1");
        async move {
            checked(
                "POST",
                APPS,
                ask.json(&json!({ "name": name })).send().await,
            )
        }
    };
    let (first, again) = (create("bank").await, create("bank").await);
    assert_eq!((first.status.as_u16(), &first.text), (201, &again.text));
    assert_eq!(first.header("location"), again.header("location"));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let other = create("other").await;
    refused(
        &other,
        409,
        "IDEMPOTENCY_KEY_CONFLICT",
        Some("Idempotency-Key"),
    );
}

#[tokio::test]
async fn keys_are_bound_to_the_app_and_the_workspace() {
    let desk = Desk::new().await;
    let other = Desk::over(desk.bench).await;
    let first = rotate_at(&other, &other.rotate_path(), "k-1", "")
        .await
        .ok();
    let neighbour = format!("{APPS}/{}/webhook-config/rotate-secret", desk.app);
    let second = rotate_at(&other, &neighbour, "k-1", "").await;
    assert_eq!(second.header("idempotency-replayed"), None);
    assert_ne!(second.json()["secret"], first["secret"]);
}

#[tokio::test]
async fn a_key_is_one_to_255_characters() {
    let desk = Desk::new().await;
    let ask = |keys: Vec<Vec<u8>>| {
        let mut ask = desk.bench.ask("POST", &desk.rotate_path());
        for key in keys {
            ask = ask.header("idempotency-key", key);
        }
        async { checked("POST", &desk.rotate_path(), ask.send().await) }
    };
    let long = |letter: &str, count| letter.repeat(count).into_bytes();
    for sound in [
        long("x", 255),
        long("é", 255),
        b"two words".to_vec(),
        b"\xe9\xff".to_vec(),
    ] {
        let first = ask(vec![sound.clone()]).await;
        assert_eq!(first.status, 200, "{sound:?}");
        assert_eq!(ask(vec![sound.clone()]).await.text, first.text, "{sound:?}");
    }
    let one = b"a".to_vec();
    for bad in [
        vec![vec![]],
        vec![long("x", 256)],
        vec![long("é", 256)],
        vec![one.clone(), one],
    ] {
        let reply = ask(bad).await;
        let code = "VALIDATION_INVALID_PARAMETER";
        refused(&reply, 400, code, Some("Idempotency-Key"));
    }
}

#[tokio::test]
async fn a_key_is_free_again_after_24_hours_and_after_a_refusal() {
    let clock = HandClock::new();
    let desk = Desk::over(Bench::with(Settings::default(), clock.clone()).await).await;
    let path = desk.rotate_path();
    let first = rotate_at(&desk, &path, "k-1", "").await;
    clock.advance(24 * 3_600_000 - 1);
    assert_eq!(rotate_at(&desk, &path, "k-1", "").await.text, first.text);
    clock.advance(1);
    let next = rotate_at(&desk, &path, "k-1", "").await;
    assert_eq!(next.header("idempotency-replayed"), None);
    assert_ne!(next.text, first.text);
    assert_eq!(rotate_at(&desk, &path, "k-2", "[]").await.status, 400);
    assert_eq!(rotate_at(&desk, &path, "k-2", "").await.status, 200);
}

/// Rotates 64 times at once, each under the key that `key` gives it.
async fn storm(desk: &Desk, key: impl Fn(usize) -> String) -> Vec<Reply> {
    let calls = (0..64).map(|number| {
        let key = key(number);
        async move { desk.rotate(Some(&key)).await }
    });
    futures_util::future::join_all(calls).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g5_64_calls_with_one_key_rotate_once() {
    let desk = Desk::new().await;
    let replies = storm(&desk, |_| "k-1".to_owned()).await;
    let mut secrets = BTreeSet::new();
    for reply in &replies {
        if reply.status == 200 {
            secrets.insert(reply.json()["secret"].as_str().unwrap().to_owned());
        } else {
            refused(reply, 409, "IDEMPOTENCY_REQUEST_IN_PROGRESS", None);
            assert_eq!(reply.header("retry-after"), Some("1"));
        }
    }
    assert_eq!(Vec::from_iter(secrets), [desk.secret().await]);
    assert_eq!(desk.audit(&["rotation.opened"]).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g5_64_calls_with_keys_of_their_own_rotate_in_some_order() {
    let desk = Desk::new().await;
    let replies = storm(&desk, |number| format!("k-{number}")).await;
    let mut secrets = BTreeSet::new();
    for (number, reply) in replies.into_iter().enumerate() {
        let again = desk.rotate(Some(&format!("k-{number}"))).await;
        assert_eq!(again.text, reply.text);
        secrets.insert(reply.ok()["secret"].as_str().unwrap().to_owned());
    }
    assert_eq!(secrets.len(), 64);
    assert!(secrets.contains(&desk.secret().await));
    // Every one of them was a secret of the app: its fingerprint is in the log, in the order in
    // which they were active.
    let log = desk.bench.get("/v1/audit?limit=200").await.ok();
    let next = log["nextCursor"].as_str().map(str::to_owned);
    let mut entries = log["data"].as_array().unwrap().clone();
    if let Some(cursor) = next {
        let path = format!("/v1/audit?limit=200&cursor={cursor}");
        entries.extend(
            desk.bench.get(&path).await.ok()["data"]
                .as_array()
                .unwrap()
                .clone(),
        );
    }
    let activated: BTreeSet<_> = entries
        .iter()
        .filter(|entry| entry["action"] == "secret.activated")
        .map(|entry| entry["fingerprint"].as_str().unwrap().to_owned())
        .collect();
    for secret in &secrets {
        let secret: hookturn_verify::Secret = secret.parse().unwrap();
        let fingerprint = secret.fingerprint().to_string();
        assert!(activated.contains(&fingerprint), "{fingerprint}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g5_64_first_calls_for_an_app_of_the_native_api_make_one_endpoint() {
    let desk = Desk::new().await;
    let native = desk.bench.app().await;
    let desk = Desk {
        app: native.rsplit('/').next().unwrap().to_owned(),
        ..desk
    };
    for reply in storm(&desk, |number| format!("k-{number}")).await {
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    let endpoints = desk.bench.get(&format!("{native}/endpoints")).await.ok();
    assert_eq!(endpoints["data"].as_array().unwrap().len(), 1);
}

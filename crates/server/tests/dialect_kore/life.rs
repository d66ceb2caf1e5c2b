//! The life cycle of secrets, call by call.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::bench::{Bench, Reply};
use crate::calls::{SECRETS, actions, change, create, error, keyring, listed};

fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    wanted
        .iter()
        .map(|(name, status)| ((*name).to_owned(), (*status).to_owned()))
        .collect()
}

#[tokio::test]
async fn the_first_is_active_later_ones_are_pending_and_activate_swaps_them() {
    let bench = Bench::new().await;
    assert_eq!(listed(&bench).await, []);
    let first = create(&bench, "first").await;
    assert_eq!(first["status"], "active");
    let value = first["secret"].as_str().unwrap();
    assert_eq!((&value[..6], value.len()), ("whsec_", 70));
    let id = first["id"].as_str().unwrap();
    let ulid = id.strip_prefix("whs_").unwrap();
    assert!(
        ulid.len() == 26
            && ulid
                .bytes()
                .all(|b| b"0123456789abcdefghjkmnpqrstvwxyz".contains(&b)),
        "{id}"
    );
    let time = first["last_modified"].as_str().unwrap();
    let parsed: hookturn_core::time::Timestamp = time.parse().unwrap();
    assert_eq!(parsed.to_string(), time);

    let second = create(&bench, "second").await;
    assert_eq!(second["status"], "pending");
    let both = pairs(&[("first", "active"), ("second", "pending")]);
    assert_eq!(listed(&bench).await, both);

    // Every later one replaces the pending one, which is destroyed.
    let seen = actions(&bench, 0).await.len();
    let third = create(&bench, "third").await;
    assert_eq!(third["status"], "pending");
    let both = pairs(&[("first", "active"), ("third", "pending")]);
    assert_eq!(listed(&bench).await, both);
    let done = actions(&bench, seen).await;
    for action in ["secret.replaced", "secret.destroyed", "secret.created"] {
        assert!(done.iter().any(|known| known == action), "{done:?}");
    }
    error(
        &change(&bench, &second, json!({"Status": "active"})).await,
        409,
    );

    let activated = change(&bench, &third, json!({"Status": "active"}))
        .await
        .ok();
    assert_eq!(
        (&activated["id"], &activated["status"]),
        (&third["id"], &json!("active"))
    );
    assert!(activated["last_modified"].as_str() >= third["last_modified"].as_str());
    assert_eq!(listed(&bench).await, pairs(&[("third", "active")]));
    // The old one stopped at once: nothing is retiring.
    let path = keyring(&bench).await;
    let native = bench.get(&path).await.ok();
    let states: Vec<_> = native["secrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["status"])
        .collect();
    assert_eq!(states, ["retired", "destroyed", "active"]);
    assert_eq!(native.get("openRotation"), None);
}

#[tokio::test]
async fn a_change_is_one_change_and_what_is_so_stays_so() {
    let bench = Bench::new().await;
    let first = create(&bench, "first").await;
    let second = create(&bench, "second").await;
    let seen = actions(&bench, 0).await.len();
    for nothing in [
        json!({}),
        json!({"Status": "active"}),
        json!({"Name": "first"}),
    ] {
        let same = change(&bench, &first, nothing.clone()).await.ok();
        assert_eq!(same["status"], "active", "{nothing}");
        assert_eq!(same["last_modified"], first["last_modified"], "{nothing}");
    }
    let same = change(&bench, &second, json!({"Name": "second"}))
        .await
        .ok();
    assert_eq!(same["status"], "pending");
    assert_eq!(actions(&bench, seen).await, [""; 0]);

    let renamed = change(&bench, &first, json!({"Name": "spring"})).await.ok();
    assert_eq!(
        (&renamed["name"], &renamed["status"]),
        (&json!("spring"), &json!("active"))
    );
    let version = |view: Value| view["version"].as_u64().unwrap();
    let path = keyring(&bench).await;
    let before = version(bench.get(&path).await.ok());
    let both = json!({"Name": "autumn", "Status": "active"});
    let changed = change(&bench, &second, both).await.ok();
    assert_eq!(
        (&changed["name"], &changed["status"]),
        (&json!("autumn"), &json!("active"))
    );
    assert_eq!(version(bench.get(&path).await.ok()), before + 1);
    // A refused name changes nothing of the rest.
    let third = create(&bench, "third").await;
    let refused = json!({"Name": " ", "Status": "active"});
    error(&change(&bench, &third, refused).await, 400);
    let wanted = pairs(&[("autumn", "active"), ("third", "pending")]);
    assert_eq!(listed(&bench).await, wanted);
}

/// Query, then names of the page, count, number, size, and the queries of the links.
type Row = (
    &'static str,
    &'static [&'static str],
    u64,
    u64,
    u64,
    Option<&'static str>,
    Option<&'static str>,
);

const PAGES: &[Row] = &[
    ("", &["a", "p"], 2, 1, 10, None, None),
    ("?status=active", &["a"], 1, 1, 10, None, None),
    ("?status=pending", &["p"], 1, 1, 10, None, None),
    (
        "?page_size=1",
        &["a"],
        2,
        1,
        1,
        None,
        Some("page_size=1&page_number=2"),
    ),
    (
        "?page_size=1&page_number=2",
        &["p"],
        2,
        2,
        1,
        Some("page_size=1&page_number=1"),
        None,
    ),
    (
        "?page_number=2",
        &[],
        2,
        2,
        10,
        Some("page_size=10&page_number=1"),
        None,
    ),
    (
        "?status=pending&page_size=1&page_number=9",
        &[],
        1,
        9,
        1,
        Some("page_size=1&page_number=1&status=pending"),
        None,
    ),
    (
        "?page_size=1000&page_number=2147483647",
        &[],
        2,
        2_147_483_647,
        1_000,
        Some("page_size=1000&page_number=1"),
        None,
    ),
];

#[tokio::test]
async fn pages_are_counted_and_linked() {
    let bench = Bench::new().await;
    create(&bench, "a").await;
    create(&bench, "p").await;
    for (query, names, count, number, size, previous, next) in PAGES {
        let reply = bench
            .ask("GET", &format!("{SECRETS}{query}"))
            .header("host", "hooks.example:8080")
            .header("x-forwarded-proto", "https")
            .send()
            .await
            .ok();
        let shown: Vec<_> = reply["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| &s["name"])
            .collect();
        assert_eq!(shown, *names, "{query}");
        let link = |query: Option<&str>| {
            query.map(|query| format!("https://hooks.example:8080{SECRETS}?{query}"))
        };
        let wanted = json!({
            "count": count, "page_number": number, "page_size": size,
            "previous_page_url": link(*previous), "next_page_url": link(*next),
        });
        assert_eq!(reply["meta_data"], wanted, "{query}");
    }
    let bare = bench.get(&format!("{SECRETS}?page_size=1")).await.ok();
    let next = bare["meta_data"]["next_page_url"].as_str().unwrap();
    assert_eq!(next, "/kore/v1/secrets?page_size=1&page_number=2");
}

#[tokio::test]
async fn the_value_is_in_the_answer_that_made_it_and_in_its_replay() {
    let bench = Bench::new().await;
    create(&bench, "first").await;
    let ask = |name: &'static str| {
        bench
            .ask("POST", SECRETS)
            .header("idempotency-key", "k-1")
            .json(&json!({ "Name": name }))
            .send()
    };
    let (made, again) = (ask("second").await, ask("second").await);
    assert_eq!((made.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(made.text, again.text);
    assert_eq!(made.header("idempotency-replayed"), None);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(error(&ask("third").await, 422), "idempotency_mismatch");
    let value = made.json()["secret"].as_str().unwrap().to_owned();
    let path = keyring(&bench).await;
    for path in [SECRETS, &path, "/v1/audit?limit=200"] {
        assert!(!bench.get(path).await.text.contains(&value), "{path}");
    }
    let made = made.json();
    let changed = change(&bench, &made, json!({"Status": "active"})).await;
    assert!(!changed.text.contains(&value));
    assert_eq!(listed(&bench).await, pairs(&[("second", "active")]));
}

#[tokio::test]
async fn a_native_overlap_is_not_cut_short_by_the_dialect() {
    let bench = Bench::new().await;
    let path = keyring(&bench).await;
    create(&bench, "old").await;
    let opened = bench
        .post(
            &format!("{path}/rotations"),
            json!({"mode": "overlap", "name": "new"}),
        )
        .await
        .ok();
    // The retiring one is disabled for KORE: not listed, not changed.
    assert_eq!(listed(&bench).await, pairs(&[("new", "active")]));
    let refused = bench.post(SECRETS, json!({"Name": "next"})).await;
    assert_eq!(error(&refused, 409), "rotation_open");
    let rotation = format!("/v1/rotations/{}", opened["id"].as_str().unwrap());
    for part in [
        "nothing was made",
        opened["retireAt"].as_str().unwrap(),
        &rotation,
    ] {
        assert!(refused.text.contains(part), "{part}: {}", refused.text);
    }
    // Rotating immediately is nothing that this dialect knows.
    assert!(!refused.text.contains("immediate"), "{}", refused.text);
    let undone = bench
        .ask("POST", &format!("{rotation}/undo"))
        .send()
        .await
        .ok();
    assert_eq!(undone["stage"], "undone");
    assert_eq!(listed(&bench).await, pairs(&[("old", "active")]));
    // What the undo keeps is not thrown away either, until it is ended.
    let refused = bench.post(SECRETS, json!({"Name": "next"})).await;
    assert_eq!(error(&refused, 409), "rotation_open");
    let finish = format!("{rotation}/finish");
    for part in ["was undone", undone["retireAt"].as_str().unwrap(), &finish] {
        assert!(refused.text.contains(part), "{part}: {}", refused.text);
    }
    bench.ask("POST", &finish).send().await.ok();
    create(&bench, "next").await;
}

#[tokio::test]
async fn g5_concurrent_creates_leave_one_active_and_one_pending() {
    let bench = Bench::new().await;
    let names: Vec<_> = (0..24).map(|number| format!("n{number}")).collect();
    let asks = names
        .iter()
        .map(|name| bench.post(SECRETS, json!({ "Name": name })));
    let replies = futures_util::future::join_all(asks).await;
    let mut values = BTreeSet::new();
    for reply in &replies {
        if reply.status == 201 {
            values.insert(reply.json()["secret"].as_str().unwrap().to_owned());
        } else {
            assert_eq!(error(reply, 409), "contended");
        }
    }
    let made = replies.iter().filter(|reply| reply.status == 201).count();
    assert!(made >= 2 && values.len() == made, "{made}");
    // Every secret that was answered is in the keyring: active, pending, or replaced and destroyed.
    let native = bench.get(&keyring(&bench).await).await.ok();
    let known = |status: &str| {
        let secrets = native["secrets"].as_array().unwrap();
        secrets.iter().filter(|s| s["status"] == status).count()
    };
    assert_eq!((known("active"), known("pending")), (1, 1));
    assert_eq!(known("destroyed"), made - 2);
    assert_eq!(listed(&bench).await.len(), 2);
}

#[tokio::test]
async fn g5_concurrent_activations_happen_once() {
    let bench = Bench::new().await;
    create(&bench, "old").await;
    let pending = create(&bench, "new").await;
    let seen = actions(&bench, 0).await.len();
    let asks = (0..24).map(|_| change(&bench, &pending, json!({"Status": "active"})));
    let replies: Vec<Reply> = futures_util::future::join_all(asks).await;
    for reply in replies {
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(reply.json()["status"], "active");
    }
    let done = actions(&bench, seen).await;
    let activations = done.iter().filter(|a| *a == "secret.activated").count();
    assert_eq!(activations, 1, "{done:?}");
    assert_eq!(listed(&bench).await, pairs(&[("new", "active")]));
}

#[tokio::test]
async fn an_endpoint_waits_for_the_first_secret_and_keys_stay_in_their_workspace() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let asked = json!({"url": "https://example.com", "preset": "kore", "keyring": "workspace"});
    let endpoints = format!("{app}/endpoints");
    let refused = bench.post(&endpoints, asked.clone()).await;
    let problem = refused.problem(409, "shared_keyring_empty");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("create the first secret")
    );
    let first = create(&bench, "first").await;
    assert_eq!(bench.post(&endpoints, asked).await.status, 201);

    bench
        .with_key(&bench.operator, "POST", "/v1/workspaces")
        .json(&json!({"name": "other"}))
        .send()
        .await
        .ok();
    let stranger = bench.key(&["secrets", "read"], "other").await;
    let list = bench.with_key(&stranger, "GET", SECRETS).send().await.ok();
    assert_eq!(list["data"], json!([]));
    let path = format!("{SECRETS}/{}", first["id"].as_str().unwrap());
    let foreign = bench
        .with_key(&stranger, "PATCH", &path)
        .json(&json!({"Name": "mine"}))
        .send()
        .await;
    assert_eq!(error(&foreign, 404), "not_found");
    // An operator names the workspace.
    let there = bench
        .with_key(&bench.operator, "POST", SECRETS)
        .header("hookturn-workspace", "other")
        .json(&json!({"Name": "theirs"}))
        .send()
        .await
        .ok();
    assert_eq!(there["status"], "active");
}

#[tokio::test]
async fn g5_creates_and_activations_that_meet_lose_no_secret() {
    let bench = Bench::new().await;
    create(&bench, "first").await;
    let one = async |number: usize| {
        let name = json!({ "Name": format!("n{number}") });
        let made = bench.post(SECRETS, name).await;
        if made.status != 201 {
            assert_eq!(error(&made, 409), "contended");
            return 0;
        }
        let changed = change(&bench, &made.json(), json!({"Status": "active"})).await;
        // Someone's newer secret may have taken its place meanwhile; nothing else may go wrong.
        if changed.status != 200 {
            let code = error(&changed, 409);
            assert!(["secret_disabled", "contended"].contains(&&*code), "{code}");
        }
        1
    };
    let made = futures_util::future::join_all((0..16).map(one)).await;
    let made: usize = made.into_iter().sum();
    let native = bench.get(&keyring(&bench).await).await.ok();
    let secrets = native["secrets"].as_array().unwrap();
    assert_eq!(
        secrets.len(),
        made + 1,
        "every secret that was answered is known"
    );
    let count = |status: &str| secrets.iter().filter(|s| s["status"] == status).count();
    assert_eq!(count("active"), 1);
    assert!(count("pending") <= 1 && count("retiring") == 0);
}

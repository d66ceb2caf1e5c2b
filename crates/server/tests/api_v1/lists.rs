//! Pages, versions and conditions.

use serde_json::{Value, json};

use crate::bench::Bench;

/// Reads a list page by page, following `nextCursor` and checking `Link`.
async fn pages(bench: &Bench, list: &str, limit: usize) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let separator = if list.contains('?') { '&' } else { '?' };
    let mut path = format!("{list}{separator}limit={limit}");
    loop {
        let reply = bench.get(&path).await;
        let link = reply.header("link").map(str::to_owned);
        let page = reply.ok();
        pages.push(page["data"].as_array().unwrap().clone());
        assert!(pages.len() < 100);
        if page["nextCursor"].is_null() {
            assert_eq!((page["hasMore"].as_bool(), link), (Some(false), None));
            return pages;
        }
        assert_eq!(page["hasMore"], true);
        let link = link.unwrap();
        let next = link
            .strip_prefix('<')
            .and_then(|l| l.strip_suffix(">; rel=\"next\""));
        next.unwrap().clone_into(&mut path);
        assert!(path.contains(&format!("limit={limit}")), "{path}");
    }
}

fn ids(pages: &[Vec<Value>], field: &str) -> Vec<String> {
    pages
        .concat()
        .iter()
        .map(|item| item[field].to_string())
        .collect()
}

#[tokio::test]
async fn every_list_is_whole_and_without_repetition() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    for n in 0..4 {
        bench
            .post("/v1/apps", json!({"name": n.to_string()}))
            .await
            .ok();
        let endpoint = bench.endpoint(&app).await;
        let keyring = endpoint["keyringId"].as_str().unwrap();
        bench
            .post(
                &format!("/v1/keyrings/{keyring}/rotations"),
                json!({"mode": "staged"}),
            )
            .await
            .ok();
        bench
            .post("/v1/api-keys", json!({"name": "k", "scopes": ["read"]}))
            .await
            .ok();
        let message = json!({"eventType": format!("type.{n}"), "payload": n});
        bench.post(&format!("{app}/messages"), message).await.ok();
    }
    for (list, field, count) in [
        ("/v1/apps".to_owned(), "clientId", 5),
        (format!("{app}/endpoints"), "id", 4),
        (format!("{app}/messages"), "id", 4),
        // 1 + 2 + 3 + 4 endpoints existed when the messages came.
        (format!("{app}/deliveries"), "id", 10),
        (
            format!("{app}/deliveries?status=pending&eventType=type.3"),
            "id",
            4,
        ),
        ("/v1/rotations".to_owned(), "id", 4),
        ("/v1/rotations?state=open".to_owned(), "id", 4),
        ("/v1/api-keys".to_owned(), "id", 5),
        ("/v1/event-types".to_owned(), "name", 4),
        ("/v1/workspaces".to_owned(), "id", 1),
    ] {
        let whole = ids(&pages(&bench, &list, 200).await, field);
        let pieces = pages(&bench, &list, 3).await;
        assert_eq!(ids(&pieces, field), whole, "{list}");
        assert_eq!(whole.len(), count, "{list}");
        assert!(pieces.iter().all(|page| page.len() <= 3), "{list}");
    }
    let audit = ids(&pages(&bench, "/v1/audit", 7).await, "seq");
    let expected: Vec<_> = (1..=audit.len()).map(|seq| seq.to_string()).collect();
    assert_eq!(audit, expected);
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let bench = Bench::new().await;
    for _ in 0..2 {
        bench.app().await;
    }
    let page = bench.get("/v1/apps?limit=1").await.ok();
    let cursor = page["nextCursor"].as_str().unwrap();
    let reply = bench.get(&format!("/v1/audit?cursor={cursor}")).await;
    reply.problem(400, "invalid_parameter");
}

#[tokio::test]
async fn if_match_guards_every_versioned_change() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    let endpoint = format!("{app}/endpoints/{}", endpoint["id"].as_str().unwrap());
    for path in [&app, &endpoint] {
        let etag = bench.get(path).await.header("etag").unwrap().to_owned();
        let patch = |tag: String| {
            let body = if path.contains("endpoints") {
                json!({"description": "new"})
            } else {
                json!({"name": "new"})
            };
            bench
                .ask("PATCH", path)
                .header("if-match", tag)
                .json(&body)
                .send()
        };
        let changed = patch(etag.clone()).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        let now = changed.header("etag").unwrap().to_owned();
        assert_ne!(now, etag);
        for stale in [etag, format!("W/{now}"), "\"other\"".to_owned()] {
            let problem = patch(stale).await.problem(412, "precondition_failed");
            assert_eq!(format!("\"{}\"", problem["currentVersion"]), now);
        }
        assert_eq!(patch("*".to_owned()).await.status, 200);
        let stale = bench
            .ask("DELETE", path)
            .header("if-match", "\"1\"")
            .send()
            .await;
        stale.problem(412, "precondition_failed");
    }
}

#[tokio::test]
async fn if_match_guards_keyrings_and_rotations() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    let keyring = format!("/v1/keyrings/{}", endpoint["keyringId"].as_str().unwrap());
    let first = bench.get(&keyring).await.header("etag").unwrap().to_owned();
    let rotate = |tag: String| {
        bench
            .ask("POST", &format!("{keyring}/rotations"))
            .header("if-match", tag)
            .json(&json!({"mode": "staged"}))
            .send()
    };
    let opened = rotate(first.clone()).await;
    assert_eq!(opened.status, 201, "{}", opened.text);
    let second = opened.header("etag").unwrap().to_owned();
    let rotation = format!("/v1/rotations/{}", opened.ok()["id"].as_str().unwrap());
    assert_eq!(
        bench.get(&rotation).await.header("etag"),
        Some(second.as_str())
    );
    assert_eq!(
        bench
            .get(&format!("{keyring}/secrets"))
            .await
            .header("etag"),
        Some(second.as_str())
    );
    for action in ["promote", "cancel", "undo", "finish"] {
        let path = format!("{rotation}/{action}");
        let stale = bench
            .ask("POST", &path)
            .header("if-match", &first)
            .send()
            .await;
        stale.problem(412, "precondition_failed");
    }
    let path = format!("{rotation}/promote");
    let promoted = bench
        .ask("POST", &path)
        .header("if-match", &second)
        .send()
        .await;
    assert_eq!(promoted.ok()["stage"], "overlap");
}

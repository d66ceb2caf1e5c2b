//! The first run: one button, and a signed request is seen.

use http::StatusCode;
use serde_json::json;

use crate::apps::signed_in;
use crate::browser::{Browser, Page};
use crate::support::within_deadline;
use crate::{started, started_by_operator};

/// Where a form led, without what is waited for there.
fn path(page: &Page) -> String {
    let (path, since) = page.location().split_once("?since=").unwrap();
    assert!(since.parse::<i64>().is_ok(), "{since}");
    path.to_owned()
}

/// The page of an inbox once so many requests are on it.
async fn arrived(browser: &mut Browser, path: &str, count: usize) -> Page {
    within_deadline("requests arrive at the inbox", async {
        loop {
            let page = browser.get(path).await;
            assert_eq!(page.status, StatusCode::OK, "{}", page.text);
            if page.text.matches("<article").count() == count {
                return page;
            }
        }
    })
    .await
}

#[tokio::test]
async fn one_button_shows_a_request_with_a_valid_signature() {
    let (server, _data) = started().await;
    let (mut browser, token) = signed_in(&server).await;
    let overview = browser.get("/").await;
    assert!(overview.text.contains(r#"action="first-run""#));
    let fields = [("form_token", token.as_str())];
    let made = browser.post("/first-run", &fields).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.text);
    let inbox = path(&made);
    let page = arrived(&mut browser, &inbox, 1).await;
    for shown in ["signature valid", "POST /", "webhook-signature", "orderId"] {
        assert!(page.text.contains(shown), "{shown}: {}", page.text);
    }
    // Again, from the page and by the button: the same endpoint gets one more each.
    let sent = browser.post(&inbox, &fields).await;
    assert_eq!(
        (sent.status, path(&sent)),
        (StatusCode::SEE_OTHER, inbox.clone())
    );
    let again = browser.post("/first-run", &fields).await;
    assert_eq!(path(&again), inbox);
    arrived(&mut browser, &inbox, 3).await;
    let endpoint = inbox.replacen("/inbox/", "/apps/", 1);
    let (app, id) = endpoint.rsplit_once('/').unwrap();
    let endpoint = browser.get(&format!("{app}/endpoints/{id}")).await;
    assert!(endpoint.text.contains(&inbox[1..]), "{}", endpoint.text);
    assert!(endpoint.text.contains("delivered"), "{}", endpoint.text);
    let overview = browser.get("/").await;
    assert!(!overview.text.contains("first-run"), "{}", overview.text);
    server.stop().await;
}

#[tokio::test]
async fn the_inbox_checks_with_what_is_live_and_keeps_twenty() {
    let (server, _data) = started().await;
    let (mut browser, token) = signed_in(&server).await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let hostile = "</pre><script>alert(1)</script>\u{202e}";
    let endpoint = json!({
        "url": "http://inbox.hookturn.invalid/shop",
        "preset": "hopae",
        "headers": { "x-token": "s3cret" },
    });
    let endpoint = api.create_endpoint(&app, &endpoint).await;
    let inbox = format!("/inbox/{app}/{}", endpoint.id);
    let page = browser.get(&inbox).await;
    assert!(page.text.contains("Nothing arrived yet"), "{}", page.text);
    let overlap = json!({ "mode": "overlap", "overlapSeconds": 3600 });
    api.rotate(&endpoint.keyring_id, &overlap).await;
    let payload = json!({ "note": hostile.repeat(1_000) }).to_string();
    for _ in 0..21 {
        api.publish(&app, "invoice.paid", &payload).await;
    }
    crate::deliveries::settled(&api, &app, 21).await;
    let page = arrived(&mut browser, &inbox, 20).await;
    assert_eq!(page.text.matches("signature valid").count(), 20);
    for raw in ["<script>alert", "\u{202e}", "s3cret", "signature not valid"] {
        assert!(!page.text.contains(raw), "{raw:?}");
    }
    assert!(page.text.contains("more bytes are not kept"));
    // A probe with a random key is refused, as a receiver refuses it that verifies.
    let rehearse = format!("/v1/endpoints/{}/rehearse", endpoint.id);
    let found = api.post(&rehearse, &json!({})).await;
    assert_eq!(found["class"], "single", "{found}");
    let page = format!("/apps/{app}/endpoints/{}", endpoint.id);
    let page = browser.get(&page).await;
    let class = "<dt>Checks signatures</dt><dd>single</dd>";
    assert!(page.text.contains(class), "{}", page.text);
    let page = browser.get(&inbox).await;
    assert!(page.text.contains("signature not valid"), "{}", page.text);
    // Whoever may only look does not send.
    let key = json!({ "name": "reader", "scopes": ["read"] });
    let key = api.post("/v1/api-keys", &key).await;
    let mut reader = Browser::with_key(&server, key["key"].as_str().unwrap());
    reader.sign_in("").await;
    let page = reader.get(&inbox).await;
    assert!(!page.text.contains("Send an event"), "{}", page.text);
    let token_of_reader = page.form_token();
    for action in [inbox.as_str(), "/first-run"] {
        let fields = [("form_token", token_of_reader.as_str())];
        let refused = reader.post(action, &fields).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{action}");
    }
    let foreign = [("form_token", token.as_str())];
    let refused = reader.post("/first-run", &foreign).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    server.stop().await;
}

#[tokio::test]
async fn what_arrived_is_shown_to_its_workspace_alone() {
    let (server, _data) = started_by_operator().await;
    let (mut browser, token) = signed_in(&server).await;
    let fields = [("form_token", token.as_str())];
    let made = browser.post("/first-run", &fields).await;
    let inbox = path(&made);
    arrived(&mut browser, &inbox, 1).await;
    let api = server.api();
    api.post("/v1/workspaces", &json!({ "name": "elsewhere" }))
        .await;
    let key = json!({ "name": "k", "scopes": ["read", "manage", "publish"] }).to_string();
    let there = [("hookturn-workspace", "elsewhere")];
    let made = api.exchange(http::Method::POST, "/v1/api-keys", &there, key);
    let made: serde_json::Value = serde_json::from_slice(made.await.body()).unwrap();
    let mut other = Browser::with_key(&server, made["key"].as_str().unwrap());
    other.sign_in("").await;
    assert_eq!(other.get(&inbox).await.status, StatusCode::NOT_FOUND);
    let part = [("hx-request", "true")];
    assert_eq!(
        other.get_with(&inbox, &part).await.header("hx-reswap"),
        "none"
    );
    // The same URL in another workspace gets what its own secret signed, and nothing else.
    let url = browser.get(&inbox).await.text;
    let (_, url) = url.split_once("http://inbox.hookturn.invalid/").unwrap();
    let url = format!("http://inbox.hookturn.invalid/{}", &url[..32]);
    let app = json!({ "name": "theirs" }).to_string();
    let app = api
        .exchange(http::Method::POST, "/v1/apps", &there, app)
        .await;
    let app: serde_json::Value = serde_json::from_slice(app.body()).unwrap();
    let app = app["clientId"].as_str().unwrap();
    let endpoint = json!({ "url": url }).to_string();
    let path_of = format!("/v1/apps/{app}/endpoints");
    let made = api
        .exchange(http::Method::POST, &path_of, &there, endpoint)
        .await;
    let made: serde_json::Value = serde_json::from_slice(made.body()).unwrap();
    let same = format!("/inbox/{app}/{}", made["id"].as_str().unwrap());
    let fields = [("form_token", token.as_str())];
    browser.post(&inbox, &fields).await;
    arrived(&mut browser, &inbox, 2).await;
    arrived(&mut other, &same, 0).await;
    let theirs = other.get("/").await.form_token();
    let fields = [("form_token", theirs.as_str())];
    assert_eq!(path(&other.post("/first-run", &fields).await), same);
    arrived(&mut other, &same, 1).await;
    arrived(&mut browser, &inbox, 2).await;
    server.stop().await;
}

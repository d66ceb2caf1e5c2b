//! Apps and endpoints: made, changed, switched and deleted by forms.

use http::{Method, StatusCode};
use serde_json::json;

use crate::browser::{Browser, Page};
use crate::started;
use crate::support::{Receiver, Server};

/// A browser that is signed in, and its form token.
pub(crate) async fn signed_in(server: &Server) -> (Browser, String) {
    let mut browser = Browser::new(server);
    browser.sign_in("").await;
    let token = browser.get("/apps").await.form_token();
    (browser, token)
}

/// The value of a hidden field.
pub(crate) fn hidden(page: &Page, name: &str) -> String {
    let start = format!(r#"name="{name}" value=""#);
    let (_, rest) = page.text.split_once(&start).unwrap();
    let raw = rest.split('"').next().unwrap();
    raw.replace("&#34;", "\"").replace("&#38;", "&")
}

#[tokio::test]
async fn an_endpoint_is_made_by_a_form_that_keeps_what_was_typed() {
    let (server, _data) = started().await;
    let (mut browser, token) = signed_in(&server).await;
    let made = browser
        .post("/apps", &[("name", "shop"), ("form_token", &token)])
        .await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.text);
    let app = made.location().to_owned();
    let page = browser.get(&app).await;
    assert!(page.text.contains("No endpoint yet"), "{}", page.text);
    let form = browser.get(&format!("{app}/endpoints/new")).await;
    assert_eq!(form.status, StatusCode::OK, "{}", form.text);
    let fields = [
        ("form_token", token.as_str()),
        ("url", "ftp://shop.example/"),
        ("preset", "standard"),
        ("description", "the \"shop\""),
        ("timeout", "15s"),
    ];
    let refused = browser.post(&format!("{app}/endpoints"), &fields).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let told = "the scheme must be https";
    assert!(refused.text.contains(told), "{}", refused.text);
    for kept in ["ftp://shop.example/", "the &#34;shop&#34;", "15s"] {
        assert!(refused.text.contains(kept), "{kept}: {}", refused.text);
    }
    let mut fields = fields.to_vec();
    fields[1].1 = "http://127.0.0.1:9/hook";
    let made = browser.post(&format!("{app}/endpoints"), &fields).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.text.matches("whsec_").count(), 1, "shown this once");
    let page = browser.get(&app).await;
    assert!(page.text.contains("http://127.0.0.1:9/hook"));
    assert!(!page.text.contains("whsec_"), "{}", page.text);
    server.stop().await;
}

#[tokio::test]
async fn a_concurrent_change_is_shown_and_what_was_typed_is_kept() {
    let (server, _data) = started().await;
    let (mut browser, token) = signed_in(&server).await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let endpoint = json!({ "url": "http://127.0.0.1:9/a", "description": "old" });
    let id = api.create_endpoint(&app, &endpoint).await.id;
    let path = format!("/apps/{app}/endpoints/{id}");
    let form = browser.get(&format!("{path}/edit")).await;
    let (version, was) = (hidden(&form, "version"), hidden(&form, "was"));
    let theirs = json!({ "description": "theirs" }).to_string();
    let (status, _) = api.send(Method::PATCH, &format!("/v1{path}"), theirs).await;
    assert_eq!(status, StatusCode::OK);
    let mut fields = vec![
        ("form_token", token),
        ("version", version),
        ("was", was),
        ("url", "http://127.0.0.1:9/mine".to_owned()),
        ("description", "mine".to_owned()),
    ];
    let raced = browser.post_all(&format!("{path}/edit"), &fields).await;
    assert_eq!(raced.status, StatusCode::PRECONDITION_FAILED);
    assert!(raced.text.contains("Somebody else changed this"));
    for shown in ["old</td>", "theirs</td>", "mine</td>", "9/mine"] {
        assert!(raced.text.contains(shown), "{shown}: {}", raced.text);
    }
    // Only what they changed is told: the URL is the visitor's own affair.
    assert!(!raced.text.contains("9/a</td>"), "{}", raced.text);
    fields[1].1 = hidden(&raced, "version");
    fields[2].1 = hidden(&raced, "was");
    let stored = browser.post_all(&format!("{path}/edit"), &fields).await;
    assert_eq!(stored.status, StatusCode::SEE_OTHER, "{}", stored.text);
    let now = api.get(&format!("/v1{path}")).await;
    assert_eq!(now["description"], "mine");
    assert_eq!(now["url"], "http://127.0.0.1:9/mine");
    server.stop().await;
}

#[tokio::test]
async fn an_app_changes_by_version_and_goes_only_by_its_name() {
    let (server, _data) = started().await;
    let (mut browser, token) = signed_in(&server).await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let path = format!("/apps/{app}");
    let page = browser.get(&path).await;
    let fields = |labels: &str, page: &Page| {
        vec![
            ("form_token", token.clone()),
            ("version", hidden(page, "version")),
            ("was", hidden(page, "was")),
            ("name", "store".to_owned()),
            ("labels", labels.to_owned()),
        ]
    };
    let refused = browser.post_all(&path, &fields("no sign", &page)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused.text.contains("line 1: expected"),
        "{}",
        refused.text
    );
    let stored = browser.post_all(&path, &fields("team=pay", &page)).await;
    assert_eq!(stored.status, StatusCode::SEE_OTHER, "{}", stored.text);
    let raced = browser.post_all(&path, &fields("team=other", &page)).await;
    assert_eq!(raced.status, StatusCode::PRECONDITION_FAILED);
    assert!(raced.text.contains("team=pay</td>"), "{}", raced.text);
    let page = browser.get(&path).await;
    let version = hidden(&page, "version");
    let mut deletion = vec![
        ("form_token", token.clone()),
        ("version", version),
        ("confirm_name", "shop".to_owned()),
    ];
    let kept = browser.post_all(&format!("{path}/delete"), &deletion).await;
    assert_eq!(kept.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(kept.text.contains("nothing was deleted"), "{}", kept.text);
    deletion[2].1 = "store".to_owned();
    let gone = browser.post_all(&format!("{path}/delete"), &deletion).await;
    assert_eq!(gone.location(), "/apps", "{}", gone.text);
    assert_eq!(browser.get(&path).await.status, StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn an_endpoint_is_tested_paused_and_deleted() {
    let (server, _data) = started().await;
    let mut receiver = Receiver::start().await;
    let (mut browser, token) = signed_in(&server).await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let endpoint = json!({ "url": format!("{}/hook", receiver.origin()) });
    let made = api.create_endpoint(&app, &endpoint).await;
    let path = format!("/apps/{app}/endpoints/{}", made.id);
    let form_token = [("form_token", token.as_str())];
    let tested = browser.post(&format!("{path}/test"), &form_token).await;
    assert_eq!(tested.status, StatusCode::OK, "{}", tested.text);
    assert!(tested.text.contains("the receiver answered 204"));
    let sent = receiver.next().await;
    // What the receiver got is verified by pasting it.
    let headers: Vec<_> = sent
        .headers
        .iter()
        .map(|(n, v)| format!("{n}: {v}"))
        .collect();
    let headers = headers.join("\r\n");
    let mut pasted = vec![
        ("form_token", token.as_str()),
        ("headers", headers.as_str()),
        ("body", sent.text()),
    ];
    let verified = browser.post(&format!("{path}/verify"), &pasted).await;
    assert!(
        verified.text.contains("signature valid"),
        "{}",
        verified.text
    );
    assert!(verified.text.contains("which is active now"));
    let changed = sent.text().replace("true", "false");
    pasted[2].1 = &changed;
    let refused = browser.post(&format!("{path}/verify"), &pasted).await;
    assert!(refused.text.contains("not signed by this endpoint"));
    assert!(!refused.text.contains("whsec_"), "{}", refused.text);
    pasted[1].1 = "nonsense";
    let unread = browser.post(&format!("{path}/verify"), &pasted).await;
    assert_eq!(unread.status, StatusCode::UNPROCESSABLE_ENTITY);

    let page = browser.get(&path).await;
    let version = hidden(&page, "version");
    let mut switch = vec![
        ("form_token", token.clone()),
        ("version", version.clone()),
        ("to", "paused".to_owned()),
    ];
    let paused = browser.post_all(&format!("{path}/state"), &switch).await;
    assert_eq!(paused.status, StatusCode::SEE_OTHER, "{}", paused.text);
    let stale = browser.post_all(&format!("{path}/state"), &switch).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    let page = browser.get(&path).await;
    assert!(page.text.contains("deliveries wait since"), "{}", page.text);
    switch[1].1 = hidden(&page, "version");
    let gone = browser.post_all(&format!("{path}/delete"), &switch).await;
    assert_eq!(gone.location(), format!("/apps/{app}"), "{}", gone.text);
    assert_eq!(browser.get(&path).await.status, StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn what_a_key_may_not_do_is_not_shown_and_refused() {
    let (server, _data) = started().await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let endpoint = json!({ "url": "http://127.0.0.1:9/a" });
    let id = api.create_endpoint(&app, &endpoint).await.id;
    let key = json!({ "name": "reader", "scopes": ["read"], "reach": "workspace" });
    let key = api.post("/v1/api-keys", &key).await;
    let key = key["key"].as_str().unwrap().to_owned();
    let mut browser = Browser::new(&server);
    browser.post("/sign-in", &[("key", &key)]).await;
    let path = format!("/apps/{app}/endpoints/{id}");
    let page = browser.get(&path).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    for hidden in ["/test", "/state", "/delete", "/edit"] {
        let link = format!("{id}{hidden}");
        assert!(!page.text.contains(&link), "{link}: {}", page.text);
    }
    let token = page.form_token();
    let fields = [
        ("form_token", token.as_str()),
        ("version", "1"),
        ("to", "paused"),
    ];
    for action in ["test", "state", "delete"] {
        let refused = browser.post(&format!("{path}/{action}"), &fields).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{action}");
    }
    let rename = [
        ("form_token", token.as_str()),
        ("version", "2"),
        ("name", "x"),
    ];
    let refused = browser.post(&format!("/apps/{app}"), &rename).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let all = [("form_token", token.as_str()), ("what", "all")];
    let refused = browser.post("/deliveries/retry", &all).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let keyring = api.get(&format!("/v1/apps/{app}/endpoints/{id}")).await;
    let keyring = keyring["keyringId"].as_str().unwrap().to_owned();
    for form in [
        format!("/apps/{app}/endpoints/new"),
        format!("{path}/edit"),
        format!("/keyrings/{keyring}/rotate"),
        format!("/keyrings/{keyring}/rotate?leaked=1"),
    ] {
        let refused = browser.get(&form).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{form}");
    }
    server.stop().await;
}

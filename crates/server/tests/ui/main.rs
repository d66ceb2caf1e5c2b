//! The dashboard, from outside: over HTTP as a browser without scripts would use it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod apps;
mod browser;
mod bulks;
mod deliveries;
mod forms;
mod inbox;
mod overview;
mod resent;
mod rotating;
mod samples;
mod schedules;
mod states;
#[expect(
    dead_code,
    unused_imports,
    reason = "these tests use a part of it only"
)]
#[path = "../support/mod.rs"]
mod support;

use browser::Browser;
use http::StatusCode;
use support::Server;

async fn started() -> (Server, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    (Server::start(data.path()).await, data)
}

/// A server whose first key is an operator's, for what needs several workspaces.
async fn started_by_operator() -> (Server, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let key = "sk_operator_of_the_running_server_0001";
    (Server::start_with_key(data.path(), key).await, data)
}

#[tokio::test]
async fn whoever_is_not_signed_in_is_led_to_sign_in_and_back() {
    let (server, _data) = started().await;
    let mut browser = Browser::new(&server);
    let page = browser.get("/apps?x=1").await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    assert_eq!(page.location(), "/sign-in?back=apps%3Fx%3D1");
    // A part of a page that asks by itself has the page loaded again, and is not replaced by sign in.
    let part = browser.get_with("/apps", &[("hx-request", "true")]).await;
    assert_eq!(part.header("hx-refresh"), "true");
    assert_eq!((part.status, part.text.as_str()), (StatusCode::OK, ""));
    let page = browser.get("/sign-in?back=apps").await;
    assert!(
        page.text.contains(r#"name="back" value="apps""#),
        "{}",
        page.text
    );
    let page = browser.sign_in("apps").await;
    assert_eq!(
        (page.status, page.location()),
        (StatusCode::SEE_OTHER, "/apps")
    );
    let cookie = page.header("set-cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    assert!(
        !cookie.contains(browser.key()),
        "the key is not in the cookie"
    );
    let page = browser.get("/apps").await;
    assert!(page.text.contains("No app yet"), "{}", page.text);
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_key_is_refused_on_the_form_and_too_many_wait() {
    let (server, _data) = started().await;
    let mut browser = Browser::new(&server);
    let wrong = [
        ("key", "sk_workspace_test_wrong"),
        ("back", "https://evil.example/"),
    ];
    let mut statuses = Vec::new();
    for _ in 0..15 {
        let page = browser.post("/sign-in", &wrong).await;
        assert!(!page.text.contains("evil"), "another site is not led to");
        statuses.push(page.status);
    }
    assert_eq!(statuses[0], StatusCode::UNAUTHORIZED);
    assert_eq!(statuses[14], StatusCode::TOO_MANY_REQUESTS);
    // Whoever has the right key is not kept out by those who try wrong ones.
    browser.sign_in("").await;
    assert_eq!(browser.get("/apps").await.status, StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn pages_are_compressed_for_browsers_that_take_it() {
    let (server, _data) = started().await;
    let mut browser = Browser::new(&server);
    browser.sign_in("").await;
    for path in ["/", "/deliveries", "/audit"] {
        let plain = browser.get(path).await;
        assert_eq!(plain.header("content-encoding"), "", "{path}");
        let packed = browser
            .get_with(path, &[("accept-encoding", "br, gzip")])
            .await;
        assert_eq!(packed.status, StatusCode::OK);
        assert_eq!(packed.header("content-encoding"), "gzip", "{path}");
        assert!(packed.header("vary").contains("accept-encoding"), "{path}");
        assert!(packed.bytes < plain.bytes / 2, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn every_answer_has_a_strict_policy_and_no_page_is_kept() {
    let (server, _data) = started().await;
    let mut browser = Browser::new(&server);
    browser.sign_in("").await;
    for path in ["/", "/apps", "/sign-in", "/assets/nothing.css"] {
        let page = browser.get(path).await;
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        for inline in ["<script>", " style=", " onclick="] {
            assert!(!page.text.contains(inline), "{path} has {inline}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_form_needs_its_token_and_its_own_origin() {
    let (server, _data) = started().await;
    let mut browser = Browser::new(&server);
    browser.sign_in("").await;
    let token = browser.get("/apps").await.form_token();
    let forged = browser
        .post("/apps", &[("name", "x"), ("form_token", "0000")])
        .await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    let foreign = [("origin", "https://evil.example")];
    let fields = [("name", "x"), ("form_token", token.as_str())];
    let foreign = browser.post_with("/apps", &fields, &foreign).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    let hostile = "<script>alert(1)</script>\u{202e}";
    let fields = [("name", hostile), ("form_token", token.as_str())];
    let made = browser.post("/apps", &fields).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.text);
    let listed = browser.get("/apps").await;
    assert!(!listed.text.contains("<script>alert"), "{}", listed.text);
    let fields = [("name", ""), ("form_token", token.as_str())];
    let refused = browser.post("/apps", &fields).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused.text.contains(r#"id="name-error""#),
        "{}",
        refused.text
    );
    server.stop().await;
}

#[tokio::test]
async fn a_session_ends_at_sign_out_and_outlives_a_restart() {
    let (server, data) = started().await;
    let mut browser = Browser::new(&server);
    browser.sign_in("").await;
    let token = browser.get("/apps").await.form_token();
    server.stop().await;
    let server = Server::start(data.path()).await;
    browser.moves_to(&server);
    assert_eq!(browser.get("/apps").await.status, StatusCode::OK);
    let cookie = browser.cookie();
    let out = browser
        .post("/sign-out", &[("form_token", token.as_str())])
        .await;
    assert_eq!(out.location(), "/sign-in");
    browser.keep(cookie);
    assert_eq!(browser.get("/apps").await.status, StatusCode::SEE_OTHER);
    server.stop().await;
}

#[tokio::test]
async fn links_follow_the_prefix_that_a_proxy_took_off() {
    let (server, _data) = started().await;
    let mut browser = Browser::new(&server);
    let prefix = [("x-forwarded-prefix", "/tools/hooks")];
    let page = browser.get_with("/apps", &prefix).await;
    assert_eq!(page.location(), "/tools/hooks/sign-in?back=apps");
    let page = browser.get_with("/sign-in", &prefix).await;
    assert!(
        page.text.contains(r#"<base href="/tools/hooks/">"#),
        "{}",
        page.text
    );
    let page = browser
        .get_with("/sign-in", &[("x-forwarded-prefix", "/a\"><script>")])
        .await;
    assert!(page.text.contains(r#"<base href="/">"#), "{}", page.text);
    server.stop().await;
}

#[tokio::test]
async fn the_cookie_of_a_session_is_for_https_alone_where_a_proxy_says_so() {
    let (server, _data) = started().await;
    let mut browser = Browser::new(&server);
    let key = browser.key().to_owned();
    let fields = [("key", key.as_str())];
    for (scheme, is_secure) in [("https", true), ("http", false)] {
        let told = [("x-forwarded-proto", scheme)];
        let page = browser.post_with("/sign-in", &fields, &told).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);
        let cookie = page.header("set-cookie");
        assert_eq!(cookie.contains("; Secure"), is_secure, "{scheme}: {cookie}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_form_that_comes_after_its_session_leads_back_to_its_page() {
    let (server, _data) = started().await;
    let mut browser = Browser::new(&server);
    browser.sign_in("").await;
    browser.keep(Some("hookturn_session=over".to_owned()));
    let fields = [("name", "too late"), ("form_token", "0")];
    for (referrer, leads) in [
        (
            "http://hooks.example/apps?x=1",
            "/sign-in?back=apps%3Fx%3D1&ended=1",
        ),
        ("http://hooks.example/", "/sign-in?ended=1"),
        ("nonsense", "/sign-in?ended=1"),
    ] {
        let told = [("referer", referrer)];
        let late = browser.post_with("/apps", &fields, &told).await;
        assert_eq!(late.status, StatusCode::SEE_OTHER, "{}", late.text);
        assert_eq!(late.location(), leads, "{referrer}");
    }
    let page = browser.get("/sign-in?ended=1").await;
    assert!(
        page.text.contains("Your session has ended"),
        "{}",
        page.text
    );
    server.stop().await;
}

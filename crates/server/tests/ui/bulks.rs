//! Bulk rotations: planned, started once, watched, paused, resumed and cancelled by forms.

use http::{Method, StatusCode};
use serde_json::json;

use crate::apps::{hidden, signed_in};
use crate::browser::{Browser, Page};
use crate::started;
use crate::support::{Server, within_deadline};

/// The hidden fields of the form that starts what was planned.
fn planned(page: &Page) -> Vec<(String, String)> {
    let (_, form) = page
        .text
        .split_once(r#"<form method="post" novalidate action="bulk-rotations">"#)
        .unwrap();
    let (form, _) = form.split_once("</form>").unwrap();
    let fields = form.split(r#"<input type="hidden" name=""#).skip(1);
    fields
        .map(|field| {
            let (name, rest) = field.split_once(r#"" value=""#).unwrap();
            let (value, _) = rest.split_once('"').unwrap();
            (
                name.to_owned(),
                value.replace("&#60;", "<").replace("&#62;", ">"),
            )
        })
        .collect()
}

async fn send(browser: &mut Browser, path: &str, fields: &[(String, String)]) -> Page {
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.as_str()));
    browser.post(path, &fields.collect::<Vec<_>>()).await
}

/// An app with so many endpoints, each with a keyring of its own.
async fn app_with(server: &Server, endpoints: usize) -> String {
    let api = server.api();
    let app = api.create_app("shop").await;
    for number in 0..endpoints {
        let url = format!("http://127.0.0.1:9/{number}");
        api.create_endpoint(&app, &json!({ "url": url })).await;
    }
    app
}

#[tokio::test]
async fn a_plan_rotates_nothing_and_its_start_happens_once() {
    let (server, _data) = started().await;
    let (mut browser, token) = signed_in(&server).await;
    let list = browser.get("/bulk-rotations").await;
    assert!(list.text.contains("No bulk rotation yet"), "{}", list.text);
    let app = app_with(&server, 3).await;
    let typed = |apps: &str, mode: &str| {
        [
            ("form_token", token.as_str()),
            ("apps", apps),
            ("mode", mode),
            ("waves", "100"),
            ("reason", "<b>yearly"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    };
    // What is wrong is told beside its field, and what was typed is kept.
    let wrong = send(
        &mut browser,
        "/bulk-rotations/plan",
        &typed("no app", "staged"),
    )
    .await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        wrong.text.contains("no: expected a client id"),
        "{}",
        wrong.text
    );
    assert!(wrong.text.contains("no app</textarea>"), "{}", wrong.text);
    let nothing = send(&mut browser, "/bulk-rotations/plan", &typed("", "staged")).await;
    assert_eq!(nothing.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        nothing.text.contains("name at least one"),
        "{}",
        nothing.text
    );
    let plan = send(&mut browser, "/bulk-rotations/plan", &typed(&app, "staged")).await;
    assert_eq!(plan.status, StatusCode::OK, "{}", plan.text);
    assert!(
        plan.text.contains("Plan: 3 keyrings, staged"),
        "{}",
        plan.text
    );
    assert!(
        browser
            .get("/rotations")
            .await
            .text
            .contains("No rotation yet")
    );
    let fields = planned(&plan);
    let started = send(&mut browser, "/bulk-rotations", &fields).await;
    assert_eq!(started.status, StatusCode::SEE_OTHER, "{}", started.text);
    let again = send(&mut browser, "/bulk-rotations", &fields).await;
    assert_eq!(again.location(), started.location(), "{}", again.text);
    let bulk = started.location().to_owned();
    let done = within_deadline("the bulk rotation completes", async {
        loop {
            let page = browser.get(&bulk).await;
            if page.text.contains("> completed</span>") {
                return page;
            }
        }
    })
    .await;
    for shown in ["3 of 3 keyrings", "3 done", "&#60;b&#62;yearly"] {
        assert!(done.text.contains(shown), "{shown}: {}", done.text);
    }
    assert!(!done.text.contains("/pause"), "{}", done.text);
    let failed = browser.get(&format!("{bulk}?kind=failed")).await;
    assert!(
        failed.text.contains("no keyring of it is failed"),
        "{}",
        failed.text
    );
    let list = browser.get("/bulk-rotations").await;
    assert_eq!(list.text.matches(r#"href="bulk-rotations/blk_"#).count(), 1);
    // It is over: a command that comes late is refused with the reason.
    let late = [("form_token", token.as_str())];
    let late = browser.post(&format!("{bulk}/pause"), &late).await;
    assert_eq!(late.status, StatusCode::CONFLICT, "{}", late.text);
    assert!(late.text.contains("start a new one"), "{}", late.text);
    server.stop().await;
}

#[tokio::test]
async fn one_is_paused_resumed_and_cancelled() {
    let (server, _data) = started().await;
    let (mut browser, token) = signed_in(&server).await;
    let app = app_with(&server, 4).await;
    let body = json!({
        "selector": { "apps": [app] }, "mode": "staged", "waves": [25, 100], "pauseSeconds": 3_600,
    });
    let made = server.api().post("/v1/bulk-rotations", &body).await;
    let path = format!("/bulk-rotations/{}", made["id"].as_str().unwrap());
    let fields = [("form_token", token.as_str())];
    for (command, state, offered) in [
        ("pause", "paused", "/resume"),
        ("resume", "running", "/pause"),
        ("cancel", "cancelled", "bulk-rotations"),
    ] {
        let sent = browser.post(&format!("{path}/{command}"), &fields).await;
        assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.text);
        let page = browser.get(sent.location()).await;
        assert!(
            page.text.contains(&format!("> {state}</span>")),
            "{}",
            page.text
        );
        assert!(page.text.contains(offered), "{offered}: {}", page.text);
        assert_eq!(page.text.contains("hx-get"), state == "running");
    }
    let unknown = browser.post(&format!("{path}/explode"), &fields).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let key = json!({ "name": "reader", "scopes": ["read"] });
    let key = server.api().post("/v1/api-keys", &key).await;
    let mut reader = Browser::with_key(&server, key["key"].as_str().unwrap());
    reader.sign_in("").await;
    let page = reader.get("/bulk-rotations").await;
    assert!(!page.text.contains("bulk-rotations/new"), "{}", page.text);
    let token = hidden(&page, "form_token");
    let fields = [("form_token", token.as_str())];
    let new = reader.get("/bulk-rotations/new").await;
    assert_eq!(new.status, StatusCode::FORBIDDEN);
    for action in ["/bulk-rotations/plan", "/bulk-rotations"] {
        let all = [
            fields[0],
            ("all", "on"),
            ("waves", "100"),
            ("mode", "staged"),
            ("once", "1"),
        ];
        let refused = reader.post(action, &all).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{action}");
    }
    let refused = reader.post(&format!("{path}/resume"), &fields).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let (status, _) = server
        .api()
        .send(Method::GET, &format!("/v1{path}"), String::new())
        .await;
    assert_eq!(status, StatusCode::OK);
    server.stop().await;
}

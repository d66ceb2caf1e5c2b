//! The first page: its figures, and what needs somebody.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::apps::signed_in;
use crate::browser::Browser;
use crate::deliveries::settled;
use crate::support::{Receiver, Server, within_deadline};
use crate::{started, started_by_operator};

/// The value that a figure of the page shows.
fn figure<'a>(page: &'a str, name: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("<dt>{name}</dt><dd>")).unwrap();
    rest.split("</dd>").next().unwrap()
}

#[tokio::test]
async fn an_empty_workspace_says_what_to_do() {
    let (server, _data) = started().await;
    let (mut browser, _) = signed_in(&server).await;
    let page = browser.get("/").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.text.contains("Nothing is delivered yet"),
        "{}",
        page.text
    );
    assert!(page.text.contains("No attempt was made"), "{}", page.text);
    assert!(page.text.contains("Nothing does"), "{}", page.text);
    assert_eq!(figure(&page.text, "Delivered"), "0");
    assert_eq!(figure(&page.text, "Backlog age"), "none");
    server.stop().await;
}

#[tokio::test]
async fn what_was_delivered_and_what_was_not_is_counted_and_drawn() {
    let (mut server, data) = started().await;
    let (mut browser, _) = signed_in(&server).await;
    let api = server.api();
    let receiver = Receiver::start().await;
    let app = api.create_app("shop").await;
    let endpoint = json!({ "url": format!("{}/hook", receiver.origin()) });
    api.create_endpoint(&app, &endpoint).await;
    for _ in 0..2 {
        api.publish(&app, "order.paid", "{}").await;
    }
    settled(&api, &app, 2).await;
    for span in ["hour", "day", "week", "anything"] {
        let page = browser.get(&format!("/?span={span}")).await;
        assert_eq!(figure(&page.text, "Delivered"), "2", "{}", page.text);
        assert_eq!(figure(&page.text, "Success rate"), "100.0 %");
        assert!(page.text.contains(r#"<path class="delivered""#));
        assert!(!page.text.contains(r#"<path class="exhausted""#));
        assert!(page.text.contains("Counted "), "{}", page.text);
    }
    // They outlive a restart, and go on.
    for delivered in 3..5 {
        server.stop().await;
        server = Server::start(data.path()).await;
        browser.moves_to(&server);
        let api = server.api();
        api.publish(&app, "order.paid", "{}").await;
        settled(&api, &app, delivered).await;
        let page = within_deadline("what was counted is read", async {
            loop {
                let page = browser.get("/").await;
                if !page.text.contains("Not complete yet") {
                    return page;
                }
            }
        });
        let page = page.await;
        let figure = figure(&page.text, "Delivered");
        assert_eq!(figure, delivered.to_string(), "{}", page.text);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_needs_somebody_is_told_with_where_it_is_dealt_with() {
    let (server, _data) = started_by_operator().await;
    let (mut browser, _) = signed_in(&server).await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let url = "http://127.0.0.1:9/a?<script>=1";
    let made = api.create_endpoint(&app, &json!({ "url": url })).await;
    let path = format!("/v1/apps/{app}/endpoints/{}", made.id);
    let disabled = json!({ "state": "disabled" }).to_string();
    let (status, told) = api.send(Method::PATCH, &path, disabled).await;
    assert_eq!(status, StatusCode::OK, "{told:?}");
    let staged = json!({ "mode": "staged" });
    let rotation = api.rotate(&made.keyring_id, &staged).await.id;
    let page = browser.get("/").await;
    for shown in [
        format!(r#"href="apps/{app}/endpoints/{}""#, made.id),
        "by its owner".to_owned(),
        format!(r#"href="rotations/{rotation}""#),
        "waits until somebody activates the new secret".to_owned(),
    ] {
        assert!(page.text.contains(&shown), "{shown}: {}", page.text);
    }
    assert!(!page.text.contains("<script>="), "{}", page.text);
    // Another workspace has its own.
    api.post("/v1/workspaces", &json!({ "name": "elsewhere" }))
        .await;
    let key = json!({ "name": "k", "scopes": ["read"] }).to_string();
    let there = [("hookturn-workspace", "elsewhere")];
    let made = api
        .exchange(Method::POST, "/v1/api-keys", &there, key)
        .await;
    let made: Value = serde_json::from_slice(made.body()).unwrap();
    let mut other = Browser::with_key(&server, made["key"].as_str().unwrap());
    other.sign_in("").await;
    let page = other.get("/").await;
    assert!(page.text.contains("Nothing does"), "{}", page.text);
    assert!(!page.text.contains("Make an app"), "{}", page.text);
    server.stop().await;
}

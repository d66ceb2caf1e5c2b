//! Forms whose connection drops, and which are sent again: nothing is made twice, and what is shown once is
//! shown to whoever did not see it.

use http::StatusCode;
use serde_json::json;

use crate::browser::Browser;
use crate::rotating::form;
use crate::started;
use crate::support::Server;

/// A form that makes something, and where the API lists what there is.
struct Making {
    /// The page that has it.
    page: String,
    /// Where it is sent.
    action: String,
    fields: Vec<(&'static str, &'static str)>,
    listed: String,
    /// What the answer shows of the thing itself.
    shows: &'static str,
}

async fn count(server: &Server, path: &str) -> usize {
    let listed = server.api().get(path).await;
    listed["data"].as_array().unwrap().len()
}

/// Sends the form of a making so often, each time with a connection that drops, and then stays.
async fn sent_again(server: &Server, browser: &mut Browser, making: &Making) {
    let before = count(server, &making.listed).await;
    let page = browser.get(&making.page).await;
    let form = form(&page, making.action.trim_start_matches('/'));
    let typed = |name: &str| making.fields.iter().any(|(typed, _)| *typed == name);
    let kept = form.iter().filter(|(name, _)| !typed(name));
    let kept = kept.map(|(name, value)| (name.as_str(), value.as_str()));
    let fields: Vec<_> = kept.clone().chain(making.fields.iter().copied()).collect();
    browser.post_and_leave(&making.action, &fields, false).await;
    browser.post_and_leave(&making.action, &fields, true).await;
    let mut answer = browser.post(&making.action, &fields).await;
    // The first may still be on its way.
    while answer.status == StatusCode::CONFLICT {
        assert!(
            answer.text.contains("is being carried out"),
            "{}",
            answer.text
        );
        answer = browser.post(&making.action, &fields).await;
    }
    let told = format!("{}{}", answer.location(), answer.text);
    assert!(told.contains(making.shows), "{}: {told}", making.action);
    let again = browser.post(&making.action, &fields).await;
    assert_eq!(again.status, answer.status, "{}", again.text);
    assert_eq!(again.location(), answer.location());
    let after = count(server, &making.listed).await;
    assert_eq!(after, before + 1, "{} was carried out again", making.action);

    let renamed = making.fields.iter().map(|(name, value)| match *name {
        "name" | "description" => (*name, "another"),
        _ => (*name, *value),
    });
    let changed: Vec<_> = kept.chain(renamed).collect();
    let other = browser.post(&making.action, &changed).await;
    if making.action.contains("keyrings") {
        assert_eq!(
            other.status,
            StatusCode::PRECONDITION_FAILED,
            "{}",
            other.text
        );
    } else {
        let after = count(server, &making.listed).await;
        assert_eq!(
            after,
            before + 2,
            "a form that says other things is another"
        );
    }
}

#[tokio::test]
async fn g5_a_form_whose_connection_drops_is_carried_out_once() {
    let (server, _data) = started().await;
    let mut browser = Browser::new(&server);
    browser.sign_in("").await;
    let app = server.api().create_app("resent").await;
    let target = json!({ "url": "http://127.0.0.1:9/" });
    let endpoint = server.api().create_endpoint(&app, &target).await;
    let keyring = format!("/keyrings/{}", endpoint.keyring_id);
    let makings = [
        Making {
            page: "/apps".to_owned(),
            action: "/apps".to_owned(),
            fields: vec![("name", "once")],
            listed: "/v1/apps?limit=100".to_owned(),
            shows: "/apps/",
        },
        Making {
            page: format!("/apps/{app}/endpoints/new"),
            action: format!("/apps/{app}/endpoints"),
            fields: vec![("url", "http://127.0.0.1:9/"), ("description", "once")],
            listed: format!("/v1/apps/{app}/endpoints?limit=100"),
            shows: "whsec_",
        },
        Making {
            page: "/api-keys".to_owned(),
            action: "/api-keys".to_owned(),
            fields: vec![("name", "once"), ("read", "yes")],
            listed: "/v1/api-keys?limit=100".to_owned(),
            shows: "sk_workspace_test_",
        },
        Making {
            page: keyring.clone(),
            action: format!("{keyring}/secrets"),
            fields: vec![("name", "once")],
            listed: format!("/v1{keyring}/secrets?limit=100"),
            shows: "whsec_",
        },
    ];
    for making in &makings {
        sent_again(&server, &mut browser, making).await;
    }
    server.stop().await;
}

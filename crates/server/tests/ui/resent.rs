//! Forms whose connection drops, and which are sent again: nothing is made twice, and what is shown once is
//! shown to whoever did not see it.

use http::StatusCode;
use serde_json::json;

use crate::browser::{Browser, Page};
use crate::deliveries::settled;
use crate::rotating::form;
use crate::started;
use crate::support::{Receiver, Server};

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
    /// How the form is answered that says other things by now.
    other: Other,
}

/// What a form is that was sent, and then says other things.
#[derive(PartialEq, Eq)]
enum Other {
    /// Another form, which makes another thing.
    Makes,
    /// One that is refused, because something has moved.
    Refused(StatusCode),
}

async fn count(server: &Server, path: &str) -> usize {
    let listed = server.api().get(path).await;
    listed["data"].as_array().unwrap().len()
}

/// Sends the form of a making so often, each time with a connection that drops, and then stays.
async fn sent_again(server: &Server, browser: &mut Browser, making: &Making) {
    let page = browser.get(&making.page).await;
    sent_again_from(&page, server, browser, making).await;
}

/// The same with a form of a page that is there.
async fn sent_again_from(page: &Page, server: &Server, browser: &mut Browser, making: &Making) {
    let before = count(server, &making.listed).await;
    let form = form(page, making.action.trim_start_matches('/'));
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
        "name" | "description" | "reason" => (*name, "another"),
        _ => (*name, *value),
    });
    let changed: Vec<_> = kept.chain(renamed).collect();
    let other = browser.post(&making.action, &changed).await;
    let after = count(server, &making.listed).await;
    match making.other {
        Other::Makes => assert_eq!(after, before + 2, "{}", making.action),
        Other::Refused(status) => {
            assert_eq!(
                (other.status, after),
                (status, before + 1),
                "{}",
                other.text
            );
        }
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
            other: Other::Makes,
        },
        Making {
            page: format!("/apps/{app}/endpoints/new"),
            action: format!("/apps/{app}/endpoints"),
            fields: vec![("url", "http://127.0.0.1:9/"), ("description", "once")],
            listed: format!("/v1/apps/{app}/endpoints?limit=100"),
            shows: "whsec_",
            other: Other::Makes,
        },
        Making {
            page: "/api-keys".to_owned(),
            action: "/api-keys".to_owned(),
            fields: vec![("name", "once"), ("read", "yes")],
            listed: "/v1/api-keys?limit=100".to_owned(),
            shows: "sk_workspace_test_",
            other: Other::Makes,
        },
        Making {
            page: keyring.clone(),
            action: format!("{keyring}/secrets"),
            fields: vec![("name", "once")],
            listed: format!("/v1{keyring}/secrets?limit=100"),
            shows: "whsec_",
            other: Other::Refused(StatusCode::PRECONDITION_FAILED),
        },
        Making {
            page: "/schedules/new".to_owned(),
            action: "/schedules".to_owned(),
            fields: vec![
                ("name", "once"),
                ("kind", "workspace"),
                ("timing", "age"),
                ("months", "3"),
            ],
            listed: "/v1/schedules?limit=100".to_owned(),
            shows: "/schedules/",
            other: Other::Makes,
        },
    ];
    for making in &makings {
        sent_again(&server, &mut browser, making).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn g5_a_bulk_rotation_whose_start_is_sent_again_is_started_once() {
    let (server, _data) = started().await;
    let mut browser = Browser::new(&server);
    browser.sign_in("").await;
    let app = server.api().create_app("resent").await;
    for number in 0..2 {
        let target = json!({ "url": format!("http://127.0.0.1:9/{number}") });
        server.api().create_endpoint(&app, &target).await;
    }
    let new = browser.get("/bulk-rotations/new").await;
    let token = new.form_token();
    let typed = [
        ("form_token", token.as_str()),
        ("apps", app.as_str()),
        ("mode", "staged"),
        ("waves", "100"),
        ("reason", "once"),
    ];
    let plan = browser.post("/bulk-rotations/plan", &typed).await;
    let making = Making {
        page: String::new(),
        action: "/bulk-rotations".to_owned(),
        fields: vec![("reason", "once")],
        listed: "/v1/bulk-rotations?limit=100".to_owned(),
        shows: "/bulk-rotations/blk_",
        // Nobody saw the plan of that.
        other: Other::Refused(StatusCode::CONFLICT),
    };
    sent_again_from(&plan, &server, &mut browser, &making).await;
    server.stop().await;
}

/// Sends the form of a page again and again; every answer leads to the same place, or shows the same.
async fn answered_alike(browser: &mut Browser, page: &Page, action: &str) -> Page {
    let fields = form(page, action.trim_start_matches('/'));
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.as_str()));
    let fields: Vec<_> = fields.collect();
    browser.post_and_leave(action, &fields, false).await;
    browser.post_and_leave(action, &fields, true).await;
    let mut first = browser.post(action, &fields).await;
    // The first may still be on its way.
    while first.status == StatusCode::CONFLICT {
        assert!(
            first.text.contains("is being carried out"),
            "{}",
            first.text
        );
        first = browser.post(action, &fields).await;
    }
    let again = browser.post(action, &fields).await;
    assert_eq!(again.status, first.status, "{}", again.text);
    assert_eq!(again.location(), first.location());
    again
}

#[tokio::test]
async fn a_first_run_that_is_sent_again_sends_one_event() {
    let (server, _data) = started().await;
    let mut browser = Browser::new(&server);
    browser.sign_in("").await;
    let overview = browser.get("/").await;
    let made = answered_alike(&mut browser, &overview, "/first-run").await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.text);
    assert_eq!(count(&server, "/v1/apps?limit=100").await, 1);
    let inbox = made.location().to_owned();
    let (path, _) = inbox.split_once('?').unwrap();
    let app = path.split('/').nth(2).unwrap();
    let deliveries = format!("/v1/apps/{app}/deliveries?limit=100");
    assert_eq!(count(&server, &deliveries).await, 1);

    let page = browser.get(path).await;
    answered_alike(&mut browser, &page, path).await;
    assert_eq!(count(&server, &deliveries).await, 2, "one more event");
    server.stop().await;
}

#[tokio::test]
async fn deliveries_that_are_sent_again_twice_by_one_form_are_queued_once() {
    let (server, _data) = started().await;
    let mut browser = Browser::new(&server);
    browser.sign_in("").await;
    let receiver = Receiver::start().await;
    let app = server.api().create_app("resent").await;
    let target = json!({ "url": receiver.origin() });
    server.api().create_endpoint(&app, &target).await;
    for number in 0..3 {
        let payload = json!({ "number": number }).to_string();
        server.api().publish(&app, "order.paid", &payload).await;
    }
    settled(&server.api(), &app, 3).await;
    let list = browser.get(&format!("/deliveries?app={app}")).await;
    let fields = [
        ("form_token", &*list.form_token()),
        ("app", &*app),
        ("what", "all"),
    ];
    let asked = browser.post("/deliveries/retry", &fields).await;
    let done = answered_alike(&mut browser, &asked, "/deliveries/retry").await;
    for shown in ["Queued again", "<strong>3</strong> queued"] {
        assert!(done.text.contains(shown), "{shown}: {}", done.text);
    }
    // Had it been carried out anew, each would have been queued a second time when it was settled.
    settled(&server.api(), &app, 3).await;
    let again = form(&asked, "deliveries/retry");
    let again = again.iter();
    let again: Vec<_> = again
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    browser.post("/deliveries/retry", &again).await;
    for delivery in settled(&server.api(), &app, 3).await {
        let id = delivery["id"].as_str().unwrap();
        let delivery = server.api().get(&format!("/v1/deliveries/{id}")).await;
        let attempts = delivery["attempts"].as_array().unwrap().len();
        assert_eq!(attempts, 2, "{delivery}");
    }
    server.stop().await;
}

//! Schedules: made, changed, paused and deleted by forms; and what the command palette leads to.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::apps::{hidden, signed_in};
use crate::browser::{Browser, Page};
use crate::started;

/// A form with what it is to say.
fn form(
    token: &str,
    page: Option<&Page>,
    typed: &[(&'static str, &str)],
) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("form_token", token.to_owned()),
        ("kind", "workspace".to_owned()),
        ("timing", "age".to_owned()),
        ("days", "90".to_owned()),
        ("zone", "UTC".to_owned()),
    ];
    if let Some(page) = page {
        fields.push(("version", hidden(page, "version")));
        fields.push(("was", hidden(page, "was")));
    }
    for (name, value) in typed {
        fields.retain(|(known, _)| known != name);
        fields.push((name, (*value).to_owned()));
    }
    fields
}

#[tokio::test]
async fn a_schedule_is_made_by_a_form_that_keeps_what_was_typed() {
    let (server, _data) = started().await;
    let (mut browser, token) = signed_in(&server).await;
    let list = browser.get("/schedules").await;
    assert!(list.text.contains("No schedule yet"), "{}", list.text);
    let wrong = [
        ("name", "\"quarterly\""),
        ("days", "0"),
        ("weekly", "always"),
        ("zone", "Europe/Atlantis"),
    ];
    let refused = browser
        .post_all("/schedules", &form(&token, None, &wrong))
        .await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    for told in [
        "always: expected a line",
        "expected a time zone",
        "&#34;quarterly&#34;",
        "Europe/Atlantis",
    ] {
        assert!(refused.text.contains(told), "{told}: {}", refused.text);
    }
    // What the service refuses stands at its field too.
    let wrong = [("name", "x"), ("days", "0")];
    let refused = browser
        .post_all("/schedules", &form(&token, None, &wrong))
        .await;
    assert!(
        refused.text.contains("must be from 1 to 3650"),
        "{}",
        refused.text
    );
    let right = [
        ("name", "<b>quarterly"),
        ("timing", "calendar"),
        ("months", "3"),
        ("day", "1"),
        ("time", "04:00"),
        ("zone", "Europe/Berlin"),
        ("weekly", "friday 18:00 - monday 08:00"),
        ("dates", "2026-12-20 - 2027-01-02"),
        ("jitter", "1 h"),
    ];
    let made = browser
        .post_all("/schedules", &form(&token, None, &right))
        .await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.text);
    let path = made.location().to_owned();
    let page = browser.get(&path).await;
    for shown in [
        "&#60;b&#62;quarterly",
        "every 3 months from January on, on day 1 at 04:00 (Europe/Berlin)",
        "each put off by up to 1 h",
        "not friday 18:00 - monday 08:00",
        "not 2026-12-20 - 2027-01-02",
    ] {
        assert!(page.text.contains(shown), "{shown}: {}", page.text);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_schedule_is_changed_paused_and_deleted_by_version() {
    let (server, _data) = started().await;
    let (mut browser, token) = signed_in(&server).await;
    let schedule = json!({ "name": "old", "everyDays": 30, "timeZone": "Europe/Berlin" });
    let schedule = server.api().post("/v1/schedules", &schedule).await;
    let path = format!("/schedules/{}", schedule["id"].as_str().unwrap());
    // Somebody else is first: what they changed is told, and what was typed is kept.
    let edit = browser.get(&format!("{path}/edit")).await;
    let theirs = json!({ "timeZone": "Asia/Tokyo" }).to_string();
    let (status, _) = server
        .api()
        .send(Method::PATCH, &format!("/v1{path}"), theirs)
        .await;
    assert_eq!(status, StatusCode::OK);
    let mine = [("name", "yearly"), ("days", "365")];
    let change = format!("{path}/edit");
    let raced = browser
        .post_all(&change, &form(&token, Some(&edit), &mine))
        .await;
    assert_eq!(raced.status, StatusCode::PRECONDITION_FAILED);
    for shown in [
        "Somebody else changed this",
        "Asia/Tokyo</td>",
        "Europe/Berlin</td>",
        "yearly",
    ] {
        assert!(raced.text.contains(shown), "{shown}: {}", raced.text);
    }
    let stored = browser
        .post_all(&change, &form(&token, Some(&raced), &mine))
        .await;
    assert_eq!(stored.status, StatusCode::SEE_OTHER, "{}", stored.text);
    let page = browser.get(&path).await;
    assert!(page.text.contains("when the active secret is 365 days old"));
    let fields = |page: &Page, to: &str| {
        vec![
            ("form_token", token.clone()),
            ("version", hidden(page, "version")),
            ("to", to.to_owned()),
        ]
    };
    let paused = browser
        .post_all(&format!("{path}/state"), &fields(&page, "paused"))
        .await;
    assert_eq!(paused.status, StatusCode::SEE_OTHER, "{}", paused.text);
    let shown = browser.get(&path).await;
    assert!(shown.text.contains("It is paused"), "{}", shown.text);
    // The page that was loaded before that means another schedule by now.
    for late in ["state", "delete"] {
        let late = browser
            .post_all(&format!("{path}/{late}"), &fields(&page, "running"))
            .await;
        assert_eq!(
            late.status,
            StatusCode::PRECONDITION_FAILED,
            "{}",
            late.text
        );
        assert!(late.text.contains("schedule.updated"), "{}", late.text);
    }
    let gone = browser
        .post_all(&format!("{path}/delete"), &fields(&shown, ""))
        .await;
    assert_eq!(gone.location(), "/schedules");
    assert_eq!(browser.get(&path).await.status, StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn whoever_may_only_read_makes_and_changes_no_schedule() {
    let (server, _data) = started().await;
    let api = server.api();
    let schedule = json!({ "name": "yearly", "everyDays": 365 });
    let schedule = api.post("/v1/schedules", &schedule).await;
    let path = format!("/schedules/{}", schedule["id"].as_str().unwrap());
    let key = json!({ "name": "reader", "scopes": ["read"] });
    let key = api.post("/v1/api-keys", &key).await;
    let mut reader = Browser::with_key(&server, key["key"].as_str().unwrap());
    reader.sign_in("").await;
    let page = reader.get(&path).await;
    assert_eq!(page.status, StatusCode::OK);
    for hidden in ["/edit", "/state", "/delete"] {
        assert!(!page.text.contains(&format!("{path}{hidden}")), "{hidden}");
    }
    let token = page.form_token();
    let fields = form(&token, None, &[("name", "x"), ("version", "1")]);
    for form in ["/schedules/new", &format!("{path}/edit")] {
        assert_eq!(
            reader.get(form).await.status,
            StatusCode::FORBIDDEN,
            "{form}"
        );
    }
    for action in [
        "/schedules".to_owned(),
        format!("{path}/edit"),
        format!("{path}/state"),
        format!("{path}/delete"),
    ] {
        let refused = reader.post_all(&action, &fields).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{action}");
    }
    // The palette names what the key may use.
    let names = |page: &Page| -> Vec<String> {
        let all: Value = serde_json::from_str(&page.text).unwrap();
        let all = all.as_array().unwrap().iter();
        all.map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    api.create_app("<b>\u{202e}shop").await;
    let theirs = names(&reader.get("/palette").await);
    let (mut browser, _) = signed_in(&server).await;
    let all = names(&browser.get("/palette").await);
    for name in ["Overview", "Schedules", "<b>⟨U+202E⟩shop"] {
        assert!(
            theirs.iter().any(|known| known == name),
            "{name}: {theirs:?}"
        );
    }
    for name in ["API keys", "New app", "New schedule"] {
        assert!(all.iter().any(|known| known == name), "{name}: {all:?}");
        assert!(
            !theirs.iter().any(|known| known == name),
            "{name}: {theirs:?}"
        );
    }
    let unknown = Browser::new(&server).get("/palette").await;
    assert_eq!(unknown.status, StatusCode::SEE_OTHER);
    server.stop().await;
}

#[tokio::test]
async fn the_first_load_is_small() {
    let (server, _data) = started().await;
    let (mut browser, _) = signed_in(&server).await;
    let page = browser.get("/").await;
    let assets = hookturn::ui::assets::ASSETS.all();
    let bytes: usize = assets.iter().map(|asset| asset.compressed_bytes()).sum();
    assert!(
        bytes + page.text.len() <= 60 * 1024,
        "{bytes} and {}",
        page.text.len()
    );
    for asset in assets {
        assert!(page.text.contains(&asset.name), "{}", asset.name);
        let served = browser.get(&format!("/assets/{}", asset.name)).await;
        assert_eq!(served.status, StatusCode::OK, "{}", asset.name);
    }
    server.stop().await;
}

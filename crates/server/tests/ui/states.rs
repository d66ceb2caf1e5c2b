//! The states of every list: empty, with nothing that matches, past its end, and with a store that cannot be
//! read. What is on the list of lists here is all of them; a new list is one more line.

use http::StatusCode;
use serde_json::json;

use crate::apps::signed_in;
use crate::browser::{Browser, Page};
use crate::deliveries::settled;
use crate::started;
use crate::support::{Receiver, Server};

/// What a list says when it has nothing to show.
struct Nothing {
    /// Where the list is.
    path: String,
    /// That there is nothing, and why.
    says: &'static str,
    /// Where somebody goes on: what a link leads to, or the form of the page that is sent.
    leads: String,
}

fn nothing(path: impl Into<String>, says: &'static str, leads: impl Into<String>) -> Nothing {
    Nothing {
        path: path.into(),
        says,
        leads: leads.into(),
    }
}

/// What stands in the boxes of a page that say that there is nothing.
fn boxes(page: &Page) -> Vec<&str> {
    let after = page.text.split("class=\"empty\"").skip(1);
    after
        .map(|box_| box_.split("</div>").next().unwrap())
        .collect()
}

/// The box that says so.
fn the_box<'a>(page: &'a Page, says: &str) -> &'a str {
    let boxes = boxes(page);
    let found = boxes.iter().find(|text| text.contains(says));
    found.unwrap_or_else(|| panic!("no box says {says:?}: {boxes:?} in {}", page.text))
}

async fn shown(browser: &mut Browser, path: &str) -> Page {
    let page = browser.get(&format!("/{path}")).await;
    assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text);
    page
}

/// An app with an endpoint that nothing was published to, and its keyring.
struct Bare {
    app: String,
    endpoint: String,
    keyring: String,
    /// Listens as long as this is there.
    _receiver: Receiver,
}

async fn bare(server: &Server) -> Bare {
    let api = server.api();
    let app = api.create_app("bare").await;
    let receiver = Receiver::start().await;
    let fields = json!({ "url": receiver.origin() });
    let path = format!("/v1/apps/{app}/endpoints");
    let made = api.post(&path, &fields).await;
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    Bare {
        endpoint: text("id"),
        keyring: text("keyringId"),
        app,
        _receiver: receiver,
    }
}

/// The id of the keyring that endpoints may share, which has no secret yet.
async fn shared_keyring(browser: &mut Browser) -> String {
    let page = shown(browser, "secrets").await;
    let (_, rest) = page.text.split_once("href=\"keyrings/").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn every_empty_list_says_what_to_do_next() {
    let (server, _data) = started().await;
    let (mut browser, _) = signed_in(&server).await;
    let ring = shared_keyring(&mut browser).await;
    for list in [
        nothing("apps", "No app yet", "action=\"apps\""),
        nothing("deliveries", "Nothing was published yet", "href=\"./\""),
        nothing("rotations", "No rotation yet", "href=\"secrets\""),
        nothing(
            "bulk-rotations",
            "No bulk rotation yet",
            "href=\"bulk-rotations/new\"",
        ),
        nothing("schedules", "No schedule yet", "href=\"schedules/new\""),
        nothing(
            format!("keyrings/{ring}"),
            "No secret yet",
            format!("action=\"keyrings/{ring}/secrets\""),
        ),
        nothing(
            "",
            "No attempt was made in this time",
            "action=\"first-run\"",
        ),
        nothing("", "Nothing does: every endpoint accepts", "href=\"apps\""),
    ] {
        let page = shown(&mut browser, &list.path).await;
        the_box(&page, list.says);
        assert!(page.text.contains(&list.leads), "{}", list.path);
        assert!(!page.text.contains("Nothing matches"), "{}", list.path);
    }
    // Lists that begin with something: the shared keyring, the key of whoever looks, what was done so far.
    for path in ["secrets", "api-keys", "audit"] {
        let page = shown(&mut browser, path).await;
        assert!(page.text.contains("<tbody>"), "{path}");
    }
    let app = server.api().create_app("empty").await;
    let page = shown(&mut browser, &format!("apps/{app}")).await;
    let text = the_box(&page, "No endpoint yet");
    assert!(text.contains(&format!("href=\"apps/{app}/endpoints/new\"")));
    let bare = bare(&server).await;
    let path = format!("apps/{}/endpoints/{}", bare.app, bare.endpoint);
    let page = shown(&mut browser, &path).await;
    the_box(&page, "Nothing was published for it yet");
    assert!(page.text.contains(&format!("action=\"{path}/test\"")));
    server.stop().await;
}

#[tokio::test]
async fn whoever_may_only_read_is_not_sent_to_what_they_may_not_do() {
    let (server, _data) = started().await;
    let api = server.api();
    let key = json!({ "name": "reader", "scopes": ["read"], "environment": "test" });
    let key = api.post("/v1/api-keys", &key).await;
    let mut browser = Browser::with_key(&server, key["key"].as_str().unwrap());
    browser.sign_in("").await;
    let app = api.create_app("empty").await;
    let ring = shared_keyring(&mut browser).await;
    for (path, says) in [
        (
            format!("apps/{app}"),
            "Your API key may look, and not make any",
        ),
        (
            format!("keyrings/{ring}"),
            "Your API key may look, and not make any",
        ),
        (
            "bulk-rotations".to_owned(),
            "Your API key may look, and not start any",
        ),
        (
            "schedules".to_owned(),
            "Your API key may look, and not make any",
        ),
    ] {
        let page = shown(&mut browser, &path).await;
        let text = the_box(&page, says);
        assert!(!text.contains("href"), "{path}: {text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_filter_that_matches_nothing_says_so_and_leads_out_of_itself() {
    let (server, _data) = started().await;
    let (mut browser, _) = signed_in(&server).await;
    let api = server.api();
    let bare = bare(&server).await;
    api.publish(&bare.app, "invoice.paid", "{}").await;
    settled(&api, &bare.app, 1).await;
    let path = format!("/v1/keyrings/{}/rotations", bare.keyring);
    let over = api.post(&path, &json!({ "mode": "immediate" })).await;
    assert!(over["id"].is_string(), "{over}");
    let selector =
        json!({ "selector": { "keyrings": [bare.keyring] }, "mode": "immediate", "waves": [100] });
    let bulk = api.post("/v1/bulk-rotations", &selector).await;
    let bulk = bulk["id"].as_str().unwrap();
    let ring = shared_keyring(&mut browser).await;
    let all = "href=\"deliveries\"";
    for list in [
        nothing("deliveries?type=nothing.like.it", "Nothing matches", all),
        nothing("deliveries?status=exhausted", "Nothing matches", all),
        nothing("deliveries?text=nowhere", "Nothing matches", all),
        nothing("secrets?q=nowhere", "Nothing matches", "href=\"secrets\""),
        nothing(
            "rotations?state=open",
            "Nothing matches",
            "href=\"rotations\"",
        ),
        nothing(
            format!("rotations?keyring={ring}"),
            "Nothing matches",
            "href=\"rotations\"",
        ),
        nothing(
            format!("bulk-rotations/{bulk}?kind=stalled"),
            "Nothing matches",
            format!("href=\"bulk-rotations/{bulk}\""),
        ),
        nothing("audit?subject=nowhere", "Nothing matches", "href=\"audit\""),
        nothing(
            "audit?action=secret.destroyed",
            "Nothing matches",
            "href=\"audit\"",
        ),
    ] {
        let page = shown(&mut browser, &list.path).await;
        let text = the_box(&page, list.says);
        assert!(text.contains(&list.leads), "{}: {text}", list.path);
        // It is no empty list: what makes a first one is not what helps.
        assert!(!text.contains(" yet."), "{}: {text}", list.path);
        let whole = text.split_once(&list.leads).map(|_| list.leads.as_str());
        let whole = whole.unwrap().trim_start_matches("href=\"");
        let page = shown(&mut browser, whole.trim_end_matches('"')).await;
        assert!(
            page.text.contains("<tbody>"),
            "{} leads to nothing",
            list.path
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn past_its_end_a_list_leads_back_to_its_beginning() {
    let (server, _data) = started().await;
    let (mut browser, _) = signed_in(&server).await;
    let bare = bare(&server).await;
    let oldest = |kind: &str| format!("{kind}_00000000000000000000000000");
    for list in [
        nothing(
            format!("apps?before=1-{}", bare.app),
            "No older app",
            "href=\"apps\"",
        ),
        nothing(
            format!("deliveries?before={}", oldest("dlv")),
            "No older delivery",
            "href=\"deliveries",
        ),
        nothing("secrets?from=1000", "No more keyrings", "href=\"secrets"),
        nothing(
            format!("rotations?before={}", oldest("rot")),
            "No older rotation",
            "href=\"rotations\"",
        ),
        nothing(
            format!("bulk-rotations?before={}", oldest("blk")),
            "No older bulk rotation",
            "href=\"bulk-rotations\"",
        ),
        nothing(
            format!("schedules?before={}", oldest("sch")),
            "No older schedule",
            "href=\"schedules\"",
        ),
        nothing("audit?before=1", "No older entry", "href=\"audit\""),
        nothing(
            format!("api-keys?before={}", oldest("key")),
            "No older key",
            "href=\"api-keys\"",
        ),
    ] {
        let page = shown(&mut browser, &list.path).await;
        let text = the_box(&page, list.says);
        assert!(text.contains(&list.leads), "{}: {text}", list.path);
    }
    server.stop().await;
}

/// Tables that lists are read from; what is not on this list is known in memory.
const TABLES: [&str; 7] = [
    "message",
    "due",
    "attempt",
    "settled",
    "audit",
    "bulk",
    "bulk_item",
];

fn rename(data: &tempfile::TempDir, rename: impl Fn(&str) -> (String, String)) {
    let connection = rusqlite::Connection::open(data.path().join("hookturn.db")).unwrap();
    for table in TABLES {
        let (from, to) = rename(table);
        let sql = format!("ALTER TABLE {from} RENAME TO {to}");
        connection.execute_batch(&sql).unwrap();
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_told_with_what_to_do() {
    let (server, data) = started().await;
    let (mut browser, _) = signed_in(&server).await;
    let bare = bare(&server).await;
    let endpoint = format!("/apps/{}/endpoints/{}", bare.app, bare.endpoint);
    let stored = ["/deliveries", "/bulk-rotations", "/audit", &endpoint];
    let away = |table: &str| (table.to_owned(), format!("{table}_away"));
    let back = |table: &str| (format!("{table}_away"), table.to_owned());
    rename(&data, away);
    for path in stored {
        let page = browser.get(path).await;
        assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        for told in ["This did not work", "Load the page again", "in its log"] {
            assert!(page.text.contains(told), "{path}: {}", page.text);
        }
        for leaked in ["no such table", "SELECT"] {
            assert!(!page.text.contains(leaked), "{path}: {}", page.text);
        }
        // A part that asks by itself stays as it is.
        let part = browser.get_with(path, &[("hx-request", "true")]).await;
        assert_eq!(part.header("hx-reswap"), "none", "{path}");
    }
    // What is known without the store is shown all the same.
    for path in ["/apps", "/secrets", "/schedules", "/api-keys", "/settings"] {
        assert_eq!(browser.get(path).await.status, StatusCode::OK, "{path}");
    }
    rename(&data, back);
    for path in stored {
        assert_eq!(browser.get(path).await.status, StatusCode::OK, "{path}");
    }
    let told = server.log();
    assert!(told.contains("a page could not be answered"), "{told}");
    server.stop().await;
}

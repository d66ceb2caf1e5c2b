//! Deliveries: the list with its filters and pages, the inspector, sending again, and live counts.

use std::net::Ipv4Addr;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::apps::signed_in;
use crate::browser::Browser;
use crate::samples::without_values;
use crate::started;
use crate::support::{Api, Receiver, Server, within_deadline};

/// What no page may show as it is.
const HOSTILE: &str = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\u{202e}\u{200f}";

/// A receiver that refuses everything with 20 KiB of hostile text.
async fn hostile_receiver() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(refuse(stream));
        }
    });
    origin
}

async fn refuse(mut stream: TcpStream) {
    let mut asked = BufReader::new(&mut stream);
    let (mut line, mut length) = (String::new(), 0);
    while asked.read_line(&mut line).await.is_ok_and(|read| read > 2) {
        if let Some((name, value)) = line.trim().split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    asked.read_exact(&mut body).await.unwrap();
    let body = HOSTILE.repeat(20 * 1024 / HOSTILE.len() + 1);
    let head = format!(
        "HTTP/1.1 422 No\r\nx-evil: <script>\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // Whoever has enough hangs up.
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

/// Publishes to an endpoint that is tried once, and waits until that is recorded.
async fn exhausted(api: &Api, url: &str, payload: &str) -> (String, String, String) {
    let app = api.create_app("<script>\u{202e}").await;
    let retry = json!({ "delaysMillis": [], "jitterPercent": 0, "retryOn": "anyFailure" });
    let endpoint = json!({ "url": url, "retry": retry, "headers": { "x-token": "s3cret" } });
    let endpoint = api.create_endpoint(&app, &endpoint).await;
    api.publish(&app, "invoice.paid", payload).await;
    let delivery = settled(api, &app, 1).await.remove(0);
    (
        app,
        endpoint.id,
        delivery["id"].as_str().unwrap().to_owned(),
    )
}

/// An app's deliveries, newest first, once so many of them are settled.
pub(crate) async fn settled(api: &Api, app: &str, count: usize) -> Vec<Value> {
    within_deadline("deliveries settle", async {
        loop {
            let listed = api
                .get(&format!("/v1/apps/{app}/deliveries?limit=200"))
                .await;
            let listed = listed["data"].as_array().unwrap().clone();
            let done = listed
                .iter()
                .filter(|delivery| delivery["status"] != "pending");
            if done.count() == count {
                return listed;
            }
        }
    })
    .await
}

#[tokio::test]
async fn hostile_text_is_shown_as_text() {
    let (server, _data) = started().await;
    let (mut browser, token) = signed_in(&server).await;
    let url = hostile_receiver().await;
    let payload = json!({ "note": HOSTILE.repeat(200) }).to_string();
    let (app, endpoint, delivery) = exhausted(&server.api(), &url, &payload).await;
    let fields = [("form_token", token.as_str())];
    let pages = [
        browser.get("/deliveries").await,
        browser.get(&format!("/deliveries/{delivery}")).await,
        browser.get(&format!("/apps/{app}")).await,
        browser
            .get(&format!("/apps/{app}/endpoints/{endpoint}"))
            .await,
        browser
            .post(&format!("/apps/{app}/endpoints/{endpoint}/test"), &fields)
            .await,
    ];
    for page in &pages {
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        let text = without_values(&page.text);
        for raw in ["<script>", "<img", "\u{202e}", "\u{200f}", "s3cret"] {
            assert!(!text.contains(raw), "{raw:?}: {text}");
        }
    }
    assert!(pages[2].text.contains("its receiver fails since"));
    assert!(pages[3].text.contains("failing"), "{}", pages[3].text);
    let inspector = &pages[1].text;
    for shown in [
        "⟨U+202E⟩",
        "Cut here: the body was longer than the 16384 bytes",
        "422",
        "x-evil: &#60;script&#62;",
        "look whether it holds secret",
        "&#60;value of x-token&#62;",
        "curl --request POST",
        "webhook-signature: v1,",
        "In all",
    ] {
        assert!(inspector.contains(shown), "{shown}: {inspector}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_list_is_filtered_by_its_address_and_paged_both_ways() {
    let (server, _data) = started().await;
    let receiver = Receiver::start().await;
    let (mut browser, _) = signed_in(&server).await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let other = api.create_app("other").await;
    let endpoint = json!({ "url": receiver.origin() });
    api.create_endpoint(&app, &endpoint).await;
    api.create_endpoint(&other, &endpoint).await;
    for index in 0..55 {
        let payload = format!(r#"{{"number":"n{index}n"}}"#);
        api.publish(&app, "invoice.paid", &payload).await;
    }
    api.publish(&other, "user.created", r#"{"number":"n7n"}"#)
        .await;
    settled(&api, &app, 55).await;
    settled(&api, &other, 1).await;
    let count = |text: &str| text.matches(r#"name="shown""#).count();
    let first = browser.get("/deliveries").await;
    assert_eq!(count(&first.text), 50, "{}", first.text);
    let older = link(&first.text, "next");
    let second = browser.get(&older).await;
    assert_eq!(count(&second.text), 6);
    assert!(!second.text.contains(r#"rel="next""#));
    let newer = link(&second.text, "prev");
    let back = browser.get(&newer).await;
    assert_eq!(count(&back.text), 50);
    for (query, wanted) in [
        ("status=delivered", 50),
        ("status=exhausted", 0),
        ("status=pending", 0),
        ("class=2xx&type=user.created", 1),
        ("class=5xx", 0),
        ("text=n7n", 2),
        ("text=n7n&type=user.created", 1),
        ("since=2020-01-01T00:00&type=user.created", 1),
        ("until=2020-01-01T00:00", 0),
    ] {
        let page = browser.get(&format!("/deliveries?{query}")).await;
        assert_eq!(page.status, StatusCode::OK, "{query}");
        assert_eq!(count(&page.text), wanted, "{query}: {}", page.text);
        assert_eq!(
            page.text.contains("Nothing matches"),
            wanted == 0,
            "{query}"
        );
    }
    let page = browser.get(&format!("/deliveries?app={other}")).await;
    assert_eq!(count(&page.text), 1);
    let (_, id) = page.text.split_once(r#"name="shown" value=""#).unwrap();
    let id = id.split('"').next().unwrap();
    let page = browser.get(&format!("/deliveries?id={id}")).await;
    assert_eq!(count(&page.text), 1);
    let page = browser.get("/deliveries?id=nonsense&app=x").await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        page.text.contains("expected an id like dlv_"),
        "{}",
        page.text
    );
    assert!(page.text.contains(r#"value="nonsense""#), "{}", page.text);
    let page = browser.get("/deliveries?app=aaaaaaaa").await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
    assert!(page.text.contains("there is no such app"), "{}", page.text);
    server.stop().await;
}

/// The address behind a link of the pages.
fn link(text: &str, rel: &str) -> String {
    let (before, _) = text.split_once(&format!(r#"" rel="{rel}""#)).unwrap();
    let (_, address) = before.rsplit_once("href=\"").unwrap();
    format!("/{}", address.replace("&#38;", "&"))
}

#[tokio::test]
async fn many_are_sent_again_after_a_count_and_a_word() {
    let (server, _data) = started().await;
    let (mut browser, token) = signed_in(&server).await;
    let api = server.api();
    let url = hostile_receiver().await;
    let (app, endpoint, delivery) = exhausted(&api, &url, "{}").await;
    for _ in 0..3 {
        api.publish(&app, "invoice.paid", "{}").await;
    }
    settled(&api, &app, 4).await;
    let attempts = async |api: &Api, id: &str| {
        let shown = api.get(&format!("/v1/deliveries/{id}")).await;
        shown["attemptCount"].as_u64().unwrap()
    };
    // One, from the inspector.
    let path = format!("/deliveries/{delivery}/retry");
    let done = browser.post(&path, &[("form_token", &token)]).await;
    assert_eq!(done.location(), format!("/deliveries/{delivery}"));
    settled(&api, &app, 4).await;
    assert_eq!(attempts(&api, &delivery).await, 2);
    // What was ticked: counted first.
    let mut fields = vec![
        ("form_token", token.as_str()),
        ("what", "ticked"),
        ("d", &delivery),
        ("shown", "dlv_x"),
    ];
    let asked = browser.post("/deliveries/retry", &fields).await;
    assert!(asked.text.contains("<strong>1</strong> would be queued"));
    assert_eq!(attempts(&api, &delivery).await, 2, "only counted");
    fields.push(("confirmed", "yes"));
    let done = browser.post("/deliveries/retry", &fields).await;
    assert!(
        done.text.contains("<strong>1</strong> queued"),
        "{}",
        done.text
    );
    settled(&api, &app, 4).await;
    assert_eq!(attempts(&api, &delivery).await, 3);
    // Everything that matches, as of the count.
    let mut fields = vec![
        ("form_token", token.as_str()),
        ("what", "all"),
        ("status", "exhausted"),
        ("app", &app),
    ];
    let asked = browser.post("/deliveries/retry", &fields).await;
    assert!(asked.text.contains("<strong>4</strong> would be queued"));
    let upper = crate::apps::hidden(&asked, "upper");
    fields.extend([("confirmed", "yes"), ("upper", &upper)]);
    let done = browser.post("/deliveries/retry", &fields).await;
    assert!(
        done.text.contains("<strong>4</strong> queued"),
        "{}",
        done.text
    );
    settled(&api, &app, 4).await;
    assert_eq!(attempts(&api, &delivery).await, 4);
    // What an endpoint does not take is told, with why.
    let disabled = json!({ "state": "disabled" }).to_string();
    let place = format!("/v1/apps/{app}/endpoints/{endpoint}");
    api.send(http::Method::PATCH, &place, disabled).await;
    let asked = browser.post("/deliveries/retry", &fields[..4]).await;
    assert!(asked.text.contains("4 left out"), "{}", asked.text);
    let path = format!("/deliveries/{delivery}/retry");
    let refused = browser.post(&path, &[("form_token", &token)]).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.text.contains("enable it first"), "{}", refused.text);
    let nothing = [("form_token", token.as_str()), ("what", "ticked")];
    let refused = browser.post("/deliveries/retry", &nothing).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    server.stop().await;
}

/// Reads a stream of events until one has this data.
async fn wait_for(stream: &mut BufReader<TcpStream>, data: &str) {
    within_deadline(data, async {
        let mut line = String::new();
        while line.trim() != format!("data: {data}") {
            line.clear();
            let read = stream.read_line(&mut line).await.unwrap();
            assert!(read > 0, "the stream ended before {data}");
        }
    })
    .await;
}

async fn follow(server: &Server, browser: &Browser, path: &str) -> BufReader<TcpStream> {
    let authority = server.origin().replace("http://", "");
    let mut stream = TcpStream::connect(&authority).await.unwrap();
    let cookie = browser.cookie().unwrap();
    let asked = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\ncookie: {cookie}\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.unwrap();
    BufReader::new(stream)
}

#[tokio::test]
async fn new_deliveries_are_counted_while_the_page_stands_still() {
    let (server, _data) = started().await;
    let receiver = Receiver::start().await;
    let (mut browser, _) = signed_in(&server).await;
    let api = server.api();
    let app = api.create_app("shop").await;
    api.create_endpoint(&app, &json!({ "url": receiver.origin() }))
        .await;
    let page = browser.get(&format!("/deliveries?app={app}")).await;
    let (_, live) = page.text.split_once("data-live=\"").unwrap();
    let live = live.split('"').next().unwrap().replace("&#38;", "&");
    let mut stream = follow(&server, &browser, &format!("/{live}")).await;
    wait_for(&mut stream, "0").await;
    api.publish(&app, "invoice.paid", "{}").await;
    api.publish(&app, "invoice.paid", "{}").await;
    wait_for(&mut stream, "2").await;
    // A stopping server does not wait for it: the deadline of `stop` is longer than a stream's pause,
    // but shorter than a stream.
    server.stop().await;
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
}

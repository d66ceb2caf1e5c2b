//! Secrets, rotations, audit, API keys and settings, with a browser that runs no scripts.

use std::sync::{Arc, Mutex};

use hookturn::telemetry::SystemClock;
use hookturn_core::time::Clock as _;
use hookturn_verify::{Received, Scheme, Secret, Verifier};
use http::StatusCode;
use serde_json::json;

use crate::browser::{Browser, Page};
use crate::support::{Captured, Receiver};
use crate::{Server, started};

/// Looks at a rotation after which one that should be over is given up.
const LOOKS: usize = 3_000;

/// The fields of a form as a browser would send them, found by the form's action.
pub(crate) fn form(page: &Page, action: &str) -> Vec<(String, String)> {
    let begin = format!(r#"action="{action}""#);
    let found = page.text.split_once(&begin);
    let (_, rest) = found.unwrap_or_else(|| panic!("no form {action} in {}", page.text));
    let form = rest.split("</form>").next().unwrap();
    let mut fields = Vec::new();
    for input in form.split("<input ").skip(1) {
        let tag = input.split('>').next().unwrap();
        let is_choice = tag.contains(r#"type="radio""#) || tag.contains(r#"type="checkbox""#);
        if is_choice && !tag.contains(" checked") {
            continue;
        }
        fields.push((attribute(tag, "name"), attribute(tag, "value")));
    }
    for select in form.split("<select ").skip(1) {
        let (tag, options) = select.split_once('>').unwrap();
        let options: Vec<&str> = options
            .split("</select>")
            .next()
            .unwrap()
            .split("<option ")
            .skip(1)
            .collect();
        let selected = options.iter().find(|option| option.contains(" selected"));
        let chosen = selected.or(options.first());
        let value = chosen.map(|option| attribute(option, "value"));
        fields.push((attribute(tag, "name"), value.unwrap_or_default()));
    }
    for area in form.split("<textarea ").skip(1) {
        let (tag, text) = area.split_once(">\n").unwrap();
        let text = text.split("</textarea>").next().unwrap();
        fields.push((attribute(tag, "name"), unescaped(text)));
    }
    fields
}

fn attribute(tag: &str, name: &str) -> String {
    let tag = format!(" {tag}");
    let value = tag.split_once(&format!(" {name}=\""));
    let value = value.map_or("", |(_, rest)| rest.split('"').next().unwrap());
    unescaped(value)
}

fn unescaped(text: &str) -> String {
    [
        ("&#60;", "<"),
        ("&#62;", ">"),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#38;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Sends the form of a page with some fields filled in.
pub(crate) async fn send(
    browser: &mut Browser,
    page: &Page,
    action: &str,
    typed: &[(&str, &str)],
) -> Page {
    let mut fields = form(page, action);
    fields.retain(|(name, _)| !typed.iter().any(|(typed, _)| typed == name));
    let mut all: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    all.extend(typed);
    browser.post(&format!("/{action}"), &all).await
}

/// The ids in links that begin with a path, in the order of the page.
fn linked(page: &Page, path: &str) -> String {
    let (_, rest) = page
        .text
        .split_once(&format!(r#"href="{path}/"#))
        .unwrap_or_else(|| panic!("no link to {path} in {}", page.text));
    rest.split(['"', '/', '?']).next().unwrap().to_owned()
}

/// The value that a page shows.
fn value(page: &Page) -> String {
    let (_, rest) = page
        .text
        .split_once(r#"<code id="secret-value""#)
        .unwrap_or_else(|| panic!("no value in {}", page.text));
    let (_, rest) = rest.split_once('>').unwrap();
    rest.split('<').next().unwrap().to_owned()
}

#[track_caller]
fn shows(page: &Page, status: StatusCode, texts: &[&str]) {
    assert_eq!(page.status, status, "{}", page.text);
    for text in texts {
        assert!(page.text.contains(text), "no {text} in {}", page.text);
    }
}

async fn signed_in(server: &Server) -> Browser {
    let mut browser = Browser::new(server);
    browser.sign_in("").await;
    browser
}

/// The path of the shared keyring, with a first secret.
async fn shared(browser: &mut Browser) -> String {
    let listed = browser.get("/secrets").await;
    shows(&listed, StatusCode::OK, &["Shared keyring", "none yet"]);
    let path = format!("keyrings/{}", linked(&listed, "keyrings"));
    let keyring = browser.get(&format!("/{path}")).await;
    let action = format!("{path}/secrets");
    let made = send(browser, &keyring, &action, &[("name", "first")]).await;
    shows(
        &made,
        StatusCode::CREATED,
        &["shown this once", "hookturn-verify"],
    );
    path
}

#[tokio::test]
async fn a_secret_is_created_activated_and_the_activation_undone() {
    let (server, _data) = started().await;
    let mut browser = signed_in(&server).await;
    let path = shared(&mut browser).await;
    let keyring = browser.get(&format!("/{path}")).await;
    let action = format!("{path}/secrets");
    let hostile = "<script>alert(1)</script>";
    let made = send(&mut browser, &keyring, &action, &[("name", hostile)]).await;
    shows(&made, StatusCode::CREATED, &["pending", "data:text/plain"]);
    assert!(!made.text.contains(hostile));
    let shown = value(&made);
    assert!(shown.starts_with("whsec_"), "{shown}");
    let again = send(&mut browser, &keyring, &action, &[("name", hostile)]).await;
    assert_eq!(value(&again), shown, "the same form gets the same answer");
    let other = send(&mut browser, &keyring, &action, &[("name", "other")]).await;
    shows(
        &other,
        StatusCode::PRECONDITION_FAILED,
        &["It was changed meanwhile"],
    );

    let keyring = browser.get(&format!("/{path}")).await;
    shows(&keyring, StatusCode::OK, &["Activate"]);
    assert!(!keyring.text.contains(&shown), "the value is shown once");
    let (_, rest) = keyring
        .text
        .split_once("/activate\"")
        .map(|(before, rest)| (before.to_owned(), rest))
        .unwrap();
    assert!(rest.contains("You can undo this"));
    let before = keyring.text.split("/activate\"").next().unwrap();
    let secret = before.rsplit('/').next().unwrap();
    let action = format!("{path}/secrets/{secret}/activate");
    let wrong = send(&mut browser, &keyring, &action, &[("overlap", "soon")]).await;
    shows(
        &wrong,
        StatusCode::UNPROCESSABLE_ENTITY,
        &[r#"id="overlap-error""#, r#"value="soon""#],
    );
    let activated = send(&mut browser, &keyring, &action, &[("overlap", "1 h")]).await;
    assert_eq!(
        activated.status,
        StatusCode::SEE_OTHER,
        "{}",
        activated.text
    );
    let at = activated.location().to_owned();
    let rotation = browser.get(&at).await;
    shows(
        &rotation,
        StatusCode::OK,
        &[
            r#"aria-current="step">overlap"#,
            "Undo",
            "Finish now",
            "Extend",
        ],
    );

    let undo = format!("{}/undo", at.trim_start_matches('/'));
    let undone = send(&mut browser, &rotation, &undo, &[("reason", "too early")]).await;
    assert_eq!(undone.location(), at, "{}", undone.text);
    let rotation = browser.get(&at).await;
    shows(
        &rotation,
        StatusCode::OK,
        &[r#"aria-current="step">undone"#, "retiring"],
    );
    let log = browser.get("/audit?action=rotation.undone").await;
    shows(&log, StatusCode::OK, &["too early"]);
    server.stop().await;
}

/// A receiver that accepts what any of the secrets it holds signed.
async fn receiver(held: &Arc<Mutex<Vec<String>>>) -> Receiver {
    let held = Arc::clone(held);
    Receiver::answering(move |captured: &Captured| {
        let mut verifier = Verifier::new(Scheme::Standard);
        for (name, secret) in held.lock().unwrap().iter().enumerate() {
            verifier = verifier
                .secret(name.to_string(), &Secret::parse(secret).unwrap())
                .unwrap();
        }
        let headers: Vec<(&str, &[u8])> = captured
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        let request = Received {
            method: "POST",
            url: "",
            headers: &headers,
            body: &captured.body,
        };
        match verifier.verify(&request, SystemClock.now().as_seconds()) {
            Ok(_) => StatusCode::NO_CONTENT,
            Err(_) => StatusCode::UNAUTHORIZED,
        }
    })
    .await
}

#[tokio::test]
async fn an_overlap_says_first_who_refused_the_new_secret() {
    let (server, _data) = started().await;
    let (api, mut browser) = (server.api(), signed_in(&server).await);
    let held = Arc::default();
    let mut receiver = receiver(&held).await;
    let app = api.create_app("late").await;
    let endpoint = api
        .create_endpoint(&app, &json!({"url": receiver.origin()}))
        .await;
    held.lock().unwrap().push(endpoint.secret.value.clone());
    let delivered = format!("/v1/apps/{app}/deliveries?status=delivered");
    while !api.get(&delivered).await["data"][0].is_object() {
        api.publish(&app, "late.first", "{}").await;
        receiver.next().await;
    }
    let policy =
        json!({"probeEveryMillis": 5, "probeBackOffMaxMillis": 50, "probesPerHour": 100_000});
    let proven = json!({"mode": "proven", "policy": policy});
    let opened = api.rotate(&endpoint.keyring_id, &proven).await;
    let rotation = format!("/v1/rotations/{}", opened.id);
    // It holds the old secret alone, and answers probes with the new one so.
    while api.get(&rotation).await["endpoints"][0]["standing"] != "not_ready" {
        receiver.next().await;
    }
    api.post(&format!("{rotation}/promote"), &json!({"force": true}))
        .await;
    let page = browser.get(&format!("/rotations/{}", opened.id)).await;
    let told = [
        r#"aria-current="step">overlap"#,
        r#">not ready</span><div class="lines">it refused the new secret, last"#,
        "or later, while it is needed",
    ];
    shows(&page, StatusCode::OK, &told);
    for hidden in ["at the latest", "no delivery needed", "never since"] {
        assert!(!page.text.contains(hidden), "{hidden} in {}", page.text);
    }
    server.stop().await;
}

#[tokio::test]
async fn g7_a_proven_rotation_is_watched_to_its_end() {
    let (server, _data) = started().await;
    let (api, mut browser) = (server.api(), signed_in(&server).await);
    let held = Arc::default();
    let mut receiver = receiver(&held).await;
    let app = api.create_app("watched").await;
    let endpoint = api
        .create_endpoint(&app, &json!({"url": receiver.origin()}))
        .await;
    held.lock().unwrap().push(endpoint.secret.value.clone());
    let path = format!("keyrings/{}", endpoint.keyring_id);
    let action = format!("{path}/rotations");
    let quick = [
        ("mode", "proven"),
        ("confidence", "80"),
        ("stale_share", "20"),
        ("probe_every", "5 ms"),
        ("probes_per_hour", "100000"),
        ("hold_down", "200 ms"),
        ("quiet", "300 ms"),
        ("deadline", "10 min"),
    ];
    let rotate = browser.get(&format!("/{path}/rotate")).await;
    let early = send(&mut browser, &rotate, &action, &quick).await;
    shows(
        &early,
        StatusCode::CONFLICT,
        &["send a test event", r#"value="5 ms""#],
    );
    loop {
        api.publish(&app, "watched.first", "{}").await;
        receiver.next().await;
        let delivered = api
            .get(&format!("/v1/apps/{app}/deliveries?status=delivered"))
            .await;
        if delivered["data"][0].is_object() {
            break;
        }
    }
    let impossible = [("mode", "proven"), ("quiet", "30 d"), ("deadline", "1 d")];
    let refused = send(&mut browser, &rotate, &action, &impossible).await;
    let told = [r#"id="deadline-error""#];
    shows(&refused, StatusCode::UNPROCESSABLE_ENTITY, &told);

    let opened = send(&mut browser, &rotate, &action, &quick).await;
    shows(
        &opened,
        StatusCode::CREATED,
        &["finds out when it is there"],
    );
    let again = send(&mut browser, &rotate, &action, &quick).await;
    assert_eq!(value(&again), value(&opened), "nothing was opened twice");
    *held.lock().unwrap() = vec![value(&opened)];
    let rotation = format!("/rotations/{}", linked(&opened, "rotations"));
    let page = browser.get(&rotation).await;
    shows(
        &page,
        StatusCode::OK,
        &["Evidence", "Promote without proof", "hx-get="],
    );
    let (_, asked) = page.text.split_once(r#"hx-get=""#).unwrap();
    let news = format!("/{}", asked.split('"').next().unwrap());
    for look in 0.. {
        assert!(look < LOOKS, "{}", browser.get(&rotation).await.text);
        api.publish(&app, "watched.on", "{}").await;
        receiver.next().await;
        let panel = browser.get(&news).await;
        assert_eq!(panel.text.matches("<h1").count(), 0, "a part of a page");
        if panel.text.contains(r#"aria-current="step">completed"#) {
            shows(
                &panel,
                StatusCode::OK,
                &["hx-swap-oob", "Undo", "proved by 1 endpoint"],
            );
            assert_eq!(panel.header("hx-reswap"), "outerHTML");
            assert!(!panel.text.contains("hx-get="), "it asks no longer");
            break;
        }
    }
    let page = browser.get(&rotation).await;
    shows(
        &page,
        StatusCode::OK,
        &["The new secret alone signs", "Undo"],
    );
    let unknown = browser.get("/rotations/rot_unknown/news").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.header("hx-reswap"), "none");
    browser.keep(None);
    let gone = browser.get(&news).await;
    assert_eq!(gone.header("hx-refresh"), "true", "{}", gone.text);
    server.stop().await;
}

#[tokio::test]
async fn a_concurrent_change_is_shown_and_nothing_is_done() {
    let (server, _data) = started().await;
    let mut browser = signed_in(&server).await;
    let path = shared(&mut browser).await;
    let keyring = browser.get(&format!("/{path}")).await;
    let rotate = browser.get(&format!("/{path}/rotate")).await;
    let action = format!("{path}/rotations");
    let opened = send(
        &mut browser,
        &rotate,
        &action,
        &[("mode", "staged"), ("name", "theirs")],
    )
    .await;
    shows(&opened, StatusCode::CREATED, &["activate it"]);
    let rotation = format!("rotations/{}", linked(&opened, "rotations"));

    let create = format!("{path}/secrets");
    let late = send(&mut browser, &keyring, &create, &[("name", "mine")]).await;
    let told = [
        "It was changed meanwhile",
        "rotation.opened",
        "Load it again",
        r#"value="mine""#,
    ];
    shows(&late, StatusCode::PRECONDITION_FAILED, &told);
    let late = send(
        &mut browser,
        &rotate,
        &action,
        &[("mode", "overlap"), ("reason", "yearly")],
    )
    .await;
    let told = [
        "It was changed meanwhile",
        "rotation.opened",
        r#"value="yearly""#,
    ];
    shows(&late, StatusCode::PRECONDITION_FAILED, &told);

    let page = browser.get(&format!("/{rotation}")).await;
    let cancel = format!("{rotation}/cancel");
    let done = send(&mut browser, &page, &cancel, &[]).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.text);
    let promote = format!("{rotation}/promote");
    let late = send(&mut browser, &page, &promote, &[("reason", "now")]).await;
    shows(
        &late,
        StatusCode::PRECONDITION_FAILED,
        &["rotation.cancelled", "cancelled"],
    );
    server.stop().await;
}

/// The text of a new key with some scopes.
async fn key_with(browser: &mut Browser, scopes: &[&str]) -> String {
    let keys = browser.get("/api-keys").await;
    let mut typed: Vec<(&str, &str)> = vec![("name", "fewer")];
    typed.extend(scopes.iter().map(|scope| (*scope, "yes")));
    let made = send(browser, &keys, "api-keys", &typed).await;
    shows(&made, StatusCode::CREATED, &["shown this once"]);
    let (_, rest) = made.text.split_once(r#"<code id="key-text""#).unwrap();
    let (_, rest) = rest.split_once('>').unwrap();
    rest.split('<').next().unwrap().to_owned()
}

#[tokio::test]
async fn what_a_key_may_not_do_is_not_shown_and_refused() {
    let (server, _data) = started().await;
    let mut owner = signed_in(&server).await;
    let path = shared(&mut owner).await;
    let whole = owner.get(&format!("/{path}")).await;
    let text = key_with(&mut owner, &["read"]).await;
    let mut reader = Browser::with_key(&server, &text);
    reader.sign_in("").await;
    let keyring = reader.get(&format!("/{path}")).await;
    shows(&keyring, StatusCode::OK, &["active"]);
    for hidden in [
        "<form method=\"post\" action=\"keyrings",
        "Rotate",
        "href=\"api-keys\"",
    ] {
        assert!(!keyring.text.contains(hidden), "{hidden}: {}", keyring.text);
    }
    assert_eq!(reader.get("/api-keys").await.status, StatusCode::FORBIDDEN);
    let token = keyring.form_token();
    let version = form(&whole, &format!("{path}/secrets"));
    let version = &version
        .iter()
        .find(|(name, _)| name == "version")
        .unwrap()
        .1;
    let seen = ("seen", "0");
    let fields = [("form_token", token.as_str()), ("version", version), seen];
    for refused in ["secrets", "rotations"] {
        let page = reader.post(&format!("/{path}/{refused}"), &fields).await;
        shows(&page, StatusCode::FORBIDDEN, &["lacks the scope secrets"]);
    }
    let settings = reader.get("/settings").await;
    shows(&settings, StatusCode::OK, &["may look"]);

    let text = key_with(&mut owner, &["read", "manage"]).await;
    let mut manager = Browser::with_key(&server, &text);
    manager.sign_in("").await;
    let settings = manager.get("/settings").await;
    assert!(
        !settings.text.contains("name=\"reveal\""),
        "{}",
        settings.text
    );
    let refused = send(&mut manager, &settings, "settings", &[("reveal", "never")]).await;
    shows(
        &refused,
        StatusCode::FORBIDDEN,
        &["lacks the scope secrets"],
    );
    let denied = owner.get("/audit?action=access.denied").await;
    shows(&denied, StatusCode::OK, &["<code>access.denied</code>"]);
    server.stop().await;
}

#[tokio::test]
async fn g8_a_value_is_revealed_on_request_and_only_where_the_policy_allows() {
    let (server, _data) = started().await;
    let mut browser = signed_in(&server).await;
    let path = shared(&mut browser).await;
    let keyring = browser.get(&format!("/{path}")).await;
    let secret = linked(&keyring, &format!("{path}/secrets"));
    let path = format!("{path}/secrets/{secret}");
    let page = browser.get(&format!("/{path}")).await;
    assert!(!page.text.contains("whsec_"), "{}", page.text);
    let reveal = format!("{path}/reveal");
    let revealed = send(&mut browser, &page, &reveal, &[]).await;
    shows(&revealed, StatusCode::OK, &["goes away by itself"]);
    assert!(value(&revealed).starts_with("whsec_"));
    assert_eq!(revealed.header("refresh"), format!("60; url=/{path}"));
    let log = browser.get("/audit?action=secret.revealed").await;
    shows(&log, StatusCode::OK, &[secret.as_str()]);

    let settings = browser.get("/settings").await;
    let saved = send(&mut browser, &settings, "settings", &[("reveal", "never")]).await;
    assert_eq!(saved.location(), "/settings", "{}", saved.text);
    let refused = send(&mut browser, &page, &reveal, &[]).await;
    shows(
        &refused,
        StatusCode::CONFLICT,
        &["never shows a secret again"],
    );
    assert!(!refused.text.contains("whsec_"));
    server.stop().await;
}

#[tokio::test]
async fn a_leak_is_marked_and_replaced_at_once() {
    let (server, _data) = started().await;
    let mut browser = signed_in(&server).await;
    let path = shared(&mut browser).await;
    let page = browser.get(&format!("/{path}/rotate?leaked")).await;
    shows(&page, StatusCode::OK, &["card danger", "A secret leaked"]);
    let action = format!("{path}/leaked");
    let replaced = send(
        &mut browser,
        &page,
        &action,
        &[("reason", "pasted into a chat")],
    )
    .await;
    shows(
        &replaced,
        StatusCode::CREATED,
        &["It alone signs from now on"],
    );
    let keyring = browser.get(&format!("/{path}")).await;
    shows(&keyring, StatusCode::OK, &["compromised", "retired"]);
    let rotation = linked(&replaced, "rotations");
    let rotation = browser.get(&format!("/rotations/{rotation}")).await;
    shows(
        &rotation,
        StatusCode::OK,
        &["completed", "pasted into a chat", "Nothing can be changed"],
    );
    server.stop().await;
}

/// Whoever tries a key that opens nothing, or a session whose key was revoked, is in the log.
#[tokio::test]
async fn g9_whoever_is_not_let_in_is_in_the_audit_log() {
    let (server, _data) = started().await;
    let api = server.api();
    let mut stranger = Browser::with_key(&server, "sk_workspace_test_wrong");
    let refused = stranger.sign_in("").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let key = json!({ "name": "k", "scopes": ["read"] });
    let made = api.post("/v1/api-keys", &key).await;
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let mut browser = Browser::with_key(&server, key);
    browser.sign_in("").await;
    assert_eq!(browser.get("/audit").await.status, StatusCode::OK);
    let path = format!("/v1/api-keys/{id}");
    let (status, _) = api.send(http::Method::DELETE, &path, String::new()).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(browser.get("/audit").await.status, StatusCode::SEE_OTHER);
    let log = api.get("/v1/audit?limit=200").await;
    let denied: Vec<_> = log["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["action"] == "access.denied")
        .map(|entry| {
            assert!(entry["requestId"].is_string(), "{entry}");
            assert!(!entry.to_string().contains("sk_"), "{entry}");
            let detail = &entry["detail"];
            let texts = [&entry["actor"], &detail["cause"], &detail["route"]];
            texts.map(|text| text.as_str().unwrap_or_default().to_owned())
        })
        .collect();
    assert_eq!(
        denied,
        [
            ["unknown", "unknown key", "POST /sign-in"].map(str::to_owned),
            [id, "revoked key", "GET /audit"].map(str::to_owned),
        ]
    );
    server.stop().await;
}

#[tokio::test]
async fn g9_the_audit_log_is_filtered_exported_and_verified() {
    let (server, _data) = started().await;
    let mut browser = signed_in(&server).await;
    let path = shared(&mut browser).await;
    let keyring = path.trim_start_matches("keyrings/");
    let all = browser.get("/audit").await;
    shows(
        &all,
        StatusCode::OK,
        &["was not verified", "<code>workspace.created</code>"],
    );
    let verified = send(&mut browser, &all, "audit/verify", &[]).await;
    shows(&verified, StatusCode::OK, &["Chain verified up to entry"]);
    shows(
        &browser.get("/audit").await,
        StatusCode::OK,
        &["Chain verified up to entry"],
    );
    let some = browser
        .get(&format!("/audit?subject={keyring}&action=secret.created"))
        .await;
    shows(&some, StatusCode::OK, &["<code>secret.created</code>"]);
    assert!(!some.text.contains("<code>workspace.created</code>"));
    let none = browser.get("/audit?since=2999-01-01T00:00").await;
    shows(&none, StatusCode::OK, &["Nothing matches"]);
    let wrong = browser.get("/audit?since=tomorrow&actor=me").await;
    shows(
        &wrong,
        StatusCode::UNPROCESSABLE_ENTITY,
        &[
            r#"id="since-error""#,
            r#"id="actor-error""#,
            r#"value="tomorrow""#,
        ],
    );

    let export = browser.get("/audit/export").await;
    assert_eq!(
        export.header("content-disposition"),
        "attachment; filename=\"audit.ndjson\""
    );
    let entries: Vec<hookturn_core::audit::Recorded> = export
        .text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let head =
        hookturn_core::audit::verify_chain(hookturn_core::audit::Head::START, &entries).unwrap();
    assert!(
        verified
            .text
            .contains(&format!("{}:{}", head.seq, hex::encode(head.hash)))
    );
    server.stop().await;
}

#[tokio::test]
async fn api_keys_are_made_ended_and_revoked() {
    let (server, _data) = started().await;
    let mut browser = signed_in(&server).await;
    let keys = browser.get("/api-keys").await;
    let typed = [("name", "short"), ("read", "yes"), ("expires", "soon")];
    let wrong = send(&mut browser, &keys, "api-keys", &typed).await;
    shows(
        &wrong,
        StatusCode::UNPROCESSABLE_ENTITY,
        &[r#"id="expires-error""#, r#"value="short""#, "checked"],
    );
    let wrong = send(&mut browser, &keys, "api-keys", &[("name", "none")]).await;
    shows(
        &wrong,
        StatusCode::UNPROCESSABLE_ENTITY,
        &[r#"id="scopes-error""#, "at least one scope"],
    );
    let text = key_with(&mut browser, &["read"]).await;
    let mut other = Browser::with_key(&server, &text);
    other.sign_in("").await;
    assert_eq!(other.get("/secrets").await.status, StatusCode::OK);

    let keys = browser.get("/api-keys").await;
    assert!(!keys.text.contains(&text));
    let path = format!("api-keys/{}", linked(&keys, "api-keys"));
    let page = browser.get(&format!("/{path}")).await;
    let past = [("expires", "2001-01-01T00:00:00Z")];
    let refused = send(&mut browser, &page, &format!("{path}/expire"), &past).await;
    shows(
        &refused,
        StatusCode::UNPROCESSABLE_ENTITY,
        &["must be in the future"],
    );
    let ended = send(
        &mut browser,
        &page,
        &format!("{path}/expire"),
        &[("expires", "1 d")],
    )
    .await;
    assert_eq!(ended.location(), format!("/{path}"), "{}", ended.text);
    let revoked = send(&mut browser, &page, &format!("{path}/revoke"), &[]).await;
    assert_eq!(revoked.location(), "/api-keys", "{}", revoked.text);
    assert_eq!(other.get("/secrets").await.status, StatusCode::SEE_OTHER);
    server.stop().await;
}

#[tokio::test]
async fn settings_keep_what_was_typed_and_tell_what_changed() {
    let (server, _data) = started().await;
    let mut browser = signed_in(&server).await;
    let page = browser.get("/settings").await;
    let typed = [("overlap", "a while"), ("header-standard-id", "x-acme-id")];
    let wrong = send(&mut browser, &page, "settings", &typed).await;
    let kept = [
        r#"id="overlap-error""#,
        r#"value="a while""#,
        r#"value="x-acme-id""#,
    ];
    shows(&wrong, StatusCode::UNPROCESSABLE_ENTITY, &kept);
    let typed = [("header-standard-id", "not a header")];
    let wrong = send(&mut browser, &page, "settings", &typed).await;
    shows(
        &wrong,
        StatusCode::UNPROCESSABLE_ENTITY,
        &[r#"id="header-standard-id-error""#],
    );
    let typed = [("overlap", "1 d"), ("header-standard-id", "x-acme-id")];
    let saved = send(&mut browser, &page, "settings", &typed).await;
    assert_eq!(saved.location(), "/settings", "{}", saved.text);
    let late = send(&mut browser, &page, "settings", &[("overlap", "2 d")]).await;
    let told = [
        "workspace.updated",
        "the overlap is 1 d now, and you have 2 d",
        r#"value="2 d""#,
    ];
    shows(&late, StatusCode::PRECONDITION_FAILED, &told);
    let page = browser.get("/settings").await;
    shows(
        &page,
        StatusCode::OK,
        &[r#"value="x-acme-id""#, r#"value="1 d""#],
    );
    server.stop().await;
}

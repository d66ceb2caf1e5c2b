//! Every form, as two tables: what it says when it is refused, and what it says to whoever was not first.
//! A new form is one more line in each that fits it.

use std::collections::HashMap;

use hookturn::telemetry::SystemClock;
use hookturn_core::time::{Clock as _, HOUR};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::apps::signed_in;
use crate::browser::{Browser, Page};
use crate::deliveries::settled;
use crate::rotating::form;
use crate::started;
use crate::support::{Api, Receiver, Server};

/// What a form of text would make of what is typed if it were not text.
const AWKWARD: &str = "kept <b>\"as\"</b> 'it' & was";

/// Ids by the word that stands for them in the tables: `{app}`, `{endpoint}`…
struct Place(
    HashMap<&'static str, String>,
    #[expect(dead_code, reason = "listens as long as it is there")] Receiver,
);

impl Place {
    fn fill(&self, text: &str) -> String {
        let fill =
            |text: String, (word, id): (&&str, &String)| text.replace(&format!("{{{word}}}"), id);
        self.0.iter().fold(text.to_owned(), fill)
    }
}

async fn post(api: &Api, path: &str, body: Value) -> Value {
    api.post(path, &body).await
}

fn id(made: &Value, name: &str) -> String {
    made[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in {made}"))
        .to_owned()
}

/// A workspace with one of everything that has a form.
async fn furnished(server: &Server) -> Place {
    let api = server.api();
    let receiver = Receiver::start().await;
    let app = api.create_app("shop").await;
    let endpoints = format!("/v1/apps/{app}/endpoints");
    let url = json!({ "url": receiver.origin() });
    let first = post(&api, &endpoints, url.clone()).await;
    let second = post(&api, &endpoints, url.clone()).await;
    let third = post(&api, &endpoints, url).await;
    api.publish(&app, "invoice.paid", "{}").await;
    let delivery = id(&settled(&api, &app, 3).await[0], "id");
    // The second keyring is in an overlap; the third has a pending secret.
    let second = id(&second, "keyringId");
    let third = id(&third, "keyringId");
    let overlap = json!({ "mode": "overlap", "overlapSeconds": 3_600 });
    let overlap = post(&api, &format!("/v1/keyrings/{second}/rotations"), overlap).await;
    let pending = json!({ "name": "next" });
    let pending = post(&api, &format!("/v1/keyrings/{third}/secrets"), pending).await;
    let keyring = id(&first, "keyringId");
    let secrets = api.get(&format!("/v1/keyrings/{keyring}/secrets")).await;
    let key = json!({ "name": "job", "scopes": ["publish"], "environment": "test" });
    let key = post(&api, "/v1/api-keys", key).await;
    let schedule = post(
        &api,
        "/v1/schedules",
        json!({ "name": "yearly", "everyDays": 365 }),
    )
    .await;
    let waiting = format!("/v1/rotations?keyringId={third}");
    let waiting = api.get(&waiting).await;
    let staged = waiting["data"].as_array().unwrap().iter();
    let mut staged = staged.filter(|rotation| rotation["keyringId"] == third.as_str());
    let staged = id(staged.next().unwrap(), "id");
    let pending = pending["secret"]
        .as_object()
        .map_or(&pending, |_| &pending["secret"]);
    Place(
        HashMap::from([
            ("app", app),
            ("endpoint", id(&first, "id")),
            ("keyring", keyring),
            ("secret", id(&secrets["data"][0], "id")),
            ("second", second),
            ("third", third),
            ("overlap", id(&overlap, "id")),
            ("staged", staged),
            ("pending", id(pending, "id")),
            ("delivery", delivery),
            ("key", id(&key, "id")),
            ("schedule", id(&schedule, "id")),
        ]),
        receiver,
    )
}

/// Sends the form of a page with some of its fields typed anew.
async fn typed_into(
    browser: &mut Browser,
    page: &Page,
    action: &str,
    typed: &[(&'static str, String)],
) -> Page {
    let mut fields = form(page, action);
    fields.retain(|(name, _)| !typed.iter().any(|(typed, _)| typed == name));
    let kept = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let typed = typed.iter().map(|(name, value)| (*name, value.as_str()));
    let all: Vec<_> = kept
        .chain(typed)
        .filter(|(name, value)| !(name.is_empty() || *value == ABSENT))
        .collect();
    let path = format!("/{}", action.split('#').next().unwrap());
    let is_search = page
        .text
        .contains(&format!("method=\"get\" action=\"{action}\""));
    if is_search {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        return browser
            .get(&format!("{path}?{}", query.extend_pairs(all).finish()))
            .await;
    }
    browser.post(&path, &all).await
}

/// A tick that is taken away.
const ABSENT: &str = "\u{0}absent";

/// A form that is refused.
struct Refused {
    page: &'static str,
    action: &'static str,
    typed: &'static [(&'static str, &'static str)],
    /// How the tag of the control begins to say what it is that was wrong.
    control: &'static str,
    /// A part of what is said beside it.
    says: &'static str,
}

const fn refused(
    (page, action): (&'static str, &'static str),
    typed: &'static [(&'static str, &'static str)],
    control: &'static str,
    says: &'static str,
) -> Refused {
    Refused {
        page,
        action,
        typed,
        control,
        says,
    }
}

const APP: (&str, &str) = ("apps/{app}", "apps/{app}");
const NEW_ENDPOINT: (&str, &str) = ("apps/{app}/endpoints/new", "apps/{app}/endpoints");
const EDIT_ENDPOINT: (&str, &str) = (
    "apps/{app}/endpoints/{endpoint}/edit",
    "apps/{app}/endpoints/{endpoint}/edit",
);
const ROTATE: (&str, &str) = ("keyrings/{keyring}/rotate", "keyrings/{keyring}/rotations");
const LEAKED: (&str, &str) = (
    "keyrings/{keyring}/rotate?leaked",
    "keyrings/{keyring}/leaked",
);
const BULK: (&str, &str) = ("bulk-rotations/new", "bulk-rotations/plan");
const SCHEDULE: (&str, &str) = ("schedules/new", "schedules");
const KEYS: (&str, &str) = ("api-keys", "api-keys");
const SETTINGS: (&str, &str) = ("settings", "settings");

/// `LONG` stands for a text that is longer than any name may be, `AWKWARD` for one that needs care.
const REFUSED: &[Refused] = &[
    refused(
        ROTATE,
        &[
            ("mode", "overlap"),
            ("overlap", "90 d"),
            ("name", "AWKWARD"),
        ],
        "name=\"overlap\"",
        "at most 30 days",
    ),
    refused(
        (
            "keyrings/{third}",
            "keyrings/{third}/secrets/{pending}/activate",
        ),
        &[("overlap", "90 d")],
        "name=\"overlap\"",
        "at most 30 days",
    ),
    refused(
        ("rotations/{overlap}", "rotations/{overlap}/extend"),
        &[("by", "90 d"), ("reason", "AWKWARD")],
        "id=\"extend-by\"",
        "at most 30 days",
    ),
    refused(SETTINGS, &[("overlap", "90 d")], "name=\"overlap\"", ""),
    refused(
        BULK,
        &[("all", "on"), ("mode", "overlap"), ("overlap", "90 d")],
        "name=\"overlap\"",
        "",
    ),
    refused(
        ("apps", "apps"),
        &[("name", "LONG")],
        "name=\"name\"",
        "longer than 256",
    ),
    refused(
        APP,
        &[("name", "LONG"), ("labels", "a=b")],
        "name=\"name\"",
        "longer than 256",
    ),
    refused(
        APP,
        &[("name", "AWKWARD"), ("labels", "no sign")],
        "name=\"labels\"",
        "line 1: expected",
    ),
    refused(
        ("apps/{app}", "apps/{app}/delete"),
        &[("confirm_name", "AWKWARD")],
        "name=\"confirm_name\"",
        "nothing was deleted",
    ),
    refused(
        NEW_ENDPOINT,
        &[
            ("url", "ftp://x.example/?<b>"),
            ("description", "AWKWARD"),
            ("preset", "github"),
        ],
        "name=\"url\"",
        "the scheme must be https",
    ),
    refused(
        NEW_ENDPOINT,
        &[
            ("url", "https://a.example/"),
            ("events", "a.*.b"),
            ("description", "AWKWARD"),
        ],
        "name=\"events\"",
        "",
    ),
    refused(
        NEW_ENDPOINT,
        &[
            ("url", "https://a.example/"),
            ("headers", "no colon"),
            ("ordered", "on"),
        ],
        "name=\"headers\"",
        "line 1: expected",
    ),
    refused(
        NEW_ENDPOINT,
        &[
            ("url", "https://a.example/"),
            ("timeout", "soon"),
            ("connect_timeout", "1s"),
        ],
        "name=\"timeout\"",
        "",
    ),
    refused(
        NEW_ENDPOINT,
        &[("url", "https://a.example/"), ("connect_timeout", "soon")],
        "name=\"connect_timeout\"",
        "",
    ),
    refused(
        NEW_ENDPOINT,
        &[("url", "https://a.example/"), ("in_flight", "0")],
        "name=\"in_flight\"",
        "",
    ),
    refused(
        NEW_ENDPOINT,
        &[("url", "https://a.example/"), ("rate", "few")],
        "name=\"rate\"",
        "",
    ),
    refused(
        NEW_ENDPOINT,
        &[("url", "https://a.example/"), ("delays", "5s later")],
        "name=\"delays\"",
        "",
    ),
    refused(
        NEW_ENDPOINT,
        &[("url", "https://a.example/"), ("jitter", "200")],
        "name=\"jitter\"",
        "",
    ),
    refused(
        EDIT_ENDPOINT,
        &[("url", "nowhere"), ("description", "AWKWARD")],
        "name=\"url\"",
        "",
    ),
    refused(
        (
            "apps/{app}/endpoints/{endpoint}",
            "apps/{app}/endpoints/{endpoint}/verify#verify",
        ),
        &[("headers", "nonsense"), ("body", "AWKWARD")],
        "name=\"headers\"",
        "line 1: expected",
    ),
    refused(
        (
            "deliveries/{delivery}",
            "deliveries/{delivery}/verify#verify",
        ),
        &[("headers", "nonsense"), ("body", "AWKWARD")],
        "name=\"headers\"",
        "line 1: expected",
    ),
    refused(
        ("deliveries", "deliveries"),
        &[("since", "soon"), ("text", "AWKWARD")],
        "name=\"since\"",
        "",
    ),
    refused(
        ("deliveries", "deliveries"),
        &[("id", "AWKWARD"), ("status", "exhausted")],
        "name=\"id\"",
        "expected an id like",
    ),
    refused(
        ("deliveries", "deliveries"),
        &[("endpoint", "AWKWARD")],
        "name=\"endpoint\"",
        "expected an id like",
    ),
    refused(
        ("keyrings/{third}", "keyrings/{third}/secrets"),
        &[("name", "LONG"), ("replace_pending", "yes")],
        "name=\"name\"",
        "longer than 256",
    ),
    refused(
        ("keyrings/{keyring}", "keyrings/{keyring}/secrets"),
        &[("name", "AWKWARD"), ("value", "short")],
        "name=\"value\"",
        "",
    ),
    refused(
        (
            "keyrings/{third}",
            "keyrings/{third}/secrets/{pending}/activate",
        ),
        &[("overlap", "soon")],
        "name=\"overlap\"",
        "",
    ),
    refused(
        ROTATE,
        &[
            ("mode", "overlap"),
            ("overlap", "soon"),
            ("reason", "AWKWARD"),
        ],
        "name=\"overlap\"",
        "",
    ),
    refused(
        ROTATE,
        &[
            ("mode", "immediate"),
            ("name", "LONG"),
            ("reason", "AWKWARD"),
        ],
        "name=\"name\"",
        "longer than 256",
    ),
    refused(
        ROTATE,
        &[
            ("mode", "immediate"),
            ("name", "AWKWARD"),
            ("reason", "LONG"),
        ],
        "name=\"reason\"",
        "longer than 256",
    ),
    refused(
        ROTATE,
        &[("mode", "proven"), ("confidence", "200"), ("quiet", "3 h")],
        "name=\"confidence\"",
        "",
    ),
    refused(
        ROTATE,
        &[
            ("mode", "proven"),
            ("probe_every", "often"),
            ("promote", "owner"),
        ],
        "name=\"probe_every\"",
        "",
    ),
    refused(
        ROTATE,
        &[
            ("mode", "immediate"),
            ("name", "AWKWARD"),
            ("value", "short"),
        ],
        "name=\"value\"",
        "",
    ),
    refused(
        LEAKED,
        &[("name", "LONG"), ("reason", "AWKWARD")],
        "name=\"name\"",
        "longer than 256",
    ),
    refused(
        (
            "keyrings/{keyring}/secrets/{secret}",
            "keyrings/{keyring}/secrets/{secret}/rename",
        ),
        &[("name", "LONG")],
        "name=\"name\"",
        "longer than 256",
    ),
    refused(
        ("rotations/{overlap}", "rotations/{overlap}/extend"),
        &[("by", "soon"), ("reason", "AWKWARD")],
        "id=\"extend-by\"",
        "",
    ),
    refused(
        ("rotations/{overlap}", "rotations/{overlap}/undo"),
        &[("reason", "LONG")],
        "id=\"undo-reason\"",
        "longer than 256",
    ),
    refused(
        ("audit", "audit"),
        &[("since", "tomorrow"), ("subject", "AWKWARD")],
        "name=\"since\"",
        "write a date and time",
    ),
    refused(
        ("audit", "audit"),
        &[("actor", "AWKWARD"), ("action", "secret.revealed")],
        "name=\"actor\"",
        "",
    ),
    refused(
        KEYS,
        &[("name", "LONG"), ("read", "yes")],
        "name=\"name\"",
        "longer than 256",
    ),
    refused(
        KEYS,
        &[
            ("name", "AWKWARD"),
            ("expires", "soon"),
            ("read", "yes"),
            ("reach", "prod"),
        ],
        "name=\"expires\"",
        "",
    ),
    refused(
        KEYS,
        &[
            ("name", "AWKWARD"),
            ("publish", "\0absent"),
            ("manage", "\0absent"),
            ("secrets", "\0absent"),
            ("read", "\0absent"),
        ],
        "<fieldset",
        "",
    ),
    refused(
        ("api-keys/{key}", "api-keys/{key}/expire"),
        &[("expires", "soon")],
        "name=\"expires\"",
        "",
    ),
    refused(
        SETTINGS,
        &[("overlap", "a while"), ("reveal", "never")],
        "name=\"overlap\"",
        "",
    ),
    refused(
        SETTINGS,
        &[("header-standard-id", "not a header"), ("overlap", "1 d")],
        "name=\"header-standard-id\"",
        "",
    ),
    refused(
        BULK,
        &[("labels", "no sign"), ("reason", "AWKWARD")],
        "name=\"labels\"",
        "line 1: expected",
    ),
    refused(
        BULK,
        &[("all", "on"), ("pause", "soon"), ("mode", "overlap")],
        "name=\"pause\"",
        "",
    ),
    refused(
        BULK,
        &[("all", "on"), ("waves", "50 20"), ("stop_at", "5")],
        "name=\"waves\"",
        "",
    ),
    refused(
        BULK,
        &[("all", "on"), ("concurrency", "0")],
        "name=\"concurrency\"",
        "",
    ),
    refused(
        SCHEDULE,
        &[("name", "AWKWARD"), ("zone", "Europe/Atlantis")],
        "name=\"zone\"",
        "expected a time zone",
    ),
    refused(
        SCHEDULE,
        &[("name", "LONG"), ("days", "30")],
        "name=\"name\"",
        "longer than 256",
    ),
    refused(
        SCHEDULE,
        &[("name", "AWKWARD"), ("weekly", "always")],
        "name=\"weekly\"",
        "expected a line",
    ),
    refused(
        ("schedules/{schedule}/edit", "schedules/{schedule}/edit"),
        &[("name", "AWKWARD"), ("days", "0")],
        "name=\"days\"",
        "",
    ),
];

fn word(value: &str) -> String {
    match value {
        "LONG" => "n".repeat(3_000),
        "AWKWARD" => AWKWARD.to_owned(),
        other => other.to_owned(),
    }
}

/// What is written beside the control of a form that is marked as wrong, or why it is not so.
fn beside(page: &Page, action: &str, control: &str) -> Result<String, String> {
    let begin = format!("action=\"{action}\"");
    let (_, rest) = page.text.split_once(&begin).ok_or("the form is gone")?;
    let form = rest.split("</form>").next().unwrap_or_default();
    let mut tags = form
        .split('<')
        .map(|tag| format!("<{}", tag.split('>').next().unwrap_or_default()));
    let tag = tags
        .find(|tag| tag.contains(control))
        .ok_or("the control is gone")?;
    if !tag.contains("aria-invalid=\"true\"") {
        return Err(format!("not marked: {tag}"));
    }
    let (_, ids) = tag
        .split_once("aria-describedby=\"")
        .ok_or_else(|| format!("nothing beside {tag}"))?;
    let ids = ids.split('"').next().unwrap_or_default();
    let told = ids
        .split(' ')
        .filter_map(|id| form.split_once(&format!("id=\"{id}\"")));
    let told: String = told
        .map(|(_, text)| text.split("</p>").next().unwrap_or_default())
        .collect();
    if told.contains("class=\"hint\"") || told.trim_matches(['>', ' ']).is_empty() {
        return Err(format!("no words beside {tag}: {told}"));
    }
    Ok(told)
}

/// What a form keeps not, on purpose: it would write a secret into a page.
const NEVER_KEPT: [&str; 1] = ["value"];

#[tokio::test]
async fn every_form_says_beside_the_field_what_is_wrong_and_keeps_what_was_typed() {
    let (server, _data) = started().await;
    let (mut browser, _) = signed_in(&server).await;
    let place = furnished(&server).await;
    let mut faults = Vec::new();
    for row in REFUSED {
        let (path, action) = (place.fill(row.page), place.fill(row.action));
        let page = browser.get(&format!("/{path}")).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text);
        let typed: Vec<_> = row
            .typed
            .iter()
            .map(|(name, value)| (*name, word(value)))
            .collect();
        let answer = typed_into(&mut browser, &page, &action, &typed).await;
        let name = format!("{} {:?}", row.action, row.typed);
        let name: String = name.chars().take(120).collect();
        if answer.status != StatusCode::UNPROCESSABLE_ENTITY {
            faults.push(format!("{name}: {}", answer.status));
            continue;
        }
        match beside(&answer, &action, row.control) {
            Ok(told) if told.contains(row.says) => {}
            Ok(told) => faults.push(format!("{name}: says {told}")),
            Err(why) => faults.push(format!("{name}: {why}")),
        }
        let kept = form(&answer, &action);
        for (field, value) in &typed {
            let is_kept = kept.iter().any(|(name, now)| name == field && now == value);
            let is_secret = NEVER_KEPT.contains(field);
            if *value != ABSENT && is_kept == is_secret {
                faults.push(format!("{name}: {field} is kept: {is_kept}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    server.stop().await;
}

/// A form that was made from what is no longer so.
struct Raced {
    page: &'static str,
    action: &'static str,
    typed: &'static [(&'static str, &'static str)],
    /// What somebody else does meanwhile.
    theirs: (Method, &'static str, &'static str),
    /// What is told of that.
    says: &'static [&'static str],
}

const fn raced(
    (page, action): (&'static str, &'static str),
    typed: &'static [(&'static str, &'static str)],
    theirs: (Method, &'static str, &'static str),
    says: &'static [&'static str],
) -> Raced {
    Raced {
        page,
        action,
        typed,
        theirs,
        says,
    }
}

const THEIR_APP: (Method, &str, &str) = (
    Method::PATCH,
    "/v1/apps/{app}",
    r#"{"labels":{"by":"them-N"}}"#,
);
const THEIR_ENDPOINT: (Method, &str, &str) = (
    Method::PATCH,
    "/v1/apps/{app}/endpoints/{endpoint}",
    r#"{"description":"theirs-N"}"#,
);
const THEIR_SCHEDULE: (Method, &str, &str) = (
    Method::PATCH,
    "/v1/schedules/{schedule}",
    r#"{"name":"theirs-N"}"#,
);
const THEIR_SETTINGS: (Method, &str, &str) = (
    Method::PATCH,
    "/v1/workspaces/default",
    r#"{"rotationOverlapSeconds":N}"#,
);
const THEIR_ROTATION: (Method, &str, &str) = (
    Method::POST,
    "/v1/keyrings/{keyring}/rotations",
    r#"{"mode":"immediate"}"#,
);
const THEIR_SECRET: (Method, &str, &str) = (
    Method::POST,
    "/v1/keyrings/{third}/rotations",
    r#"{"mode":"immediate"}"#,
);
const THEIR_END: (Method, &str, &str) = (
    Method::POST,
    "/v1/rotations/{overlap}/extend",
    r#"{"retireAt":"T"}"#,
);

/// In this order: what is deleted or ended last is looked at last.
const RACED: &[Raced] = &[
    raced(APP, &[("name", "mine")], THEIR_APP, &["by=them-", "mine"]),
    raced(
        ("apps/{app}", "apps/{app}/delete"),
        &[("confirm_name", "shop")],
        THEIR_APP,
        &["app.updated"],
    ),
    raced(
        EDIT_ENDPOINT,
        &[("description", "mine")],
        THEIR_ENDPOINT,
        &["theirs-", "mine"],
    ),
    raced(
        (
            "apps/{app}/endpoints/{endpoint}",
            "apps/{app}/endpoints/{endpoint}/state",
        ),
        &[],
        THEIR_ENDPOINT,
        &["endpoint.updated"],
    ),
    raced(
        (
            "apps/{app}/endpoints/{endpoint}",
            "apps/{app}/endpoints/{endpoint}/delete",
        ),
        &[],
        THEIR_ENDPOINT,
        &["endpoint.updated"],
    ),
    raced(
        ("schedules/{schedule}/edit", "schedules/{schedule}/edit"),
        &[("days", "30")],
        THEIR_SCHEDULE,
        &["theirs-"],
    ),
    raced(
        ("schedules/{schedule}", "schedules/{schedule}/state"),
        &[],
        THEIR_SCHEDULE,
        &["schedule.updated"],
    ),
    raced(
        ("schedules/{schedule}", "schedules/{schedule}/delete"),
        &[],
        THEIR_SCHEDULE,
        &["schedule.updated"],
    ),
    raced(
        SETTINGS,
        &[("reveal", "never")],
        THEIR_SETTINGS,
        &["workspace.updated"],
    ),
    raced(
        ("keyrings/{keyring}", "keyrings/{keyring}/secrets"),
        &[("name", "mine")],
        THEIR_ROTATION,
        &["rotation.opened"],
    ),
    raced(
        ROTATE,
        &[("mode", "overlap"), ("reason", "mine")],
        THEIR_ROTATION,
        &["rotation.opened"],
    ),
    raced(
        LEAKED,
        &[("reason", "mine")],
        THEIR_ROTATION,
        &["rotation.opened"],
    ),
    raced(
        (
            "keyrings/{keyring}/secrets/{secret}",
            "keyrings/{keyring}/secrets/{secret}/rename",
        ),
        &[("name", "mine")],
        THEIR_ROTATION,
        &["rotation.opened"],
    ),
    raced(
        (
            "keyrings/{keyring}/secrets/{secret}",
            "keyrings/{keyring}/secrets/{secret}/destroy",
        ),
        &[],
        THEIR_ROTATION,
        &["rotation.opened"],
    ),
    raced(
        ("rotations/{overlap}", "rotations/{overlap}/extend"),
        &[("by", "1 h")],
        THEIR_END,
        &["rotation.extended"],
    ),
    raced(
        ("rotations/{overlap}", "rotations/{overlap}/undo"),
        &[("reason", "mine")],
        THEIR_END,
        &["rotation.extended"],
    ),
    raced(
        ("rotations/{overlap}", "rotations/{overlap}/finish"),
        &[("reason", "mine")],
        THEIR_END,
        &["rotation.extended"],
    ),
    raced(
        (
            "keyrings/{third}",
            "keyrings/{third}/secrets/{pending}/activate",
        ),
        &[("overlap", "1 h")],
        THEIR_SECRET,
        &["rotation."],
    ),
];

#[tokio::test]
async fn whoever_was_not_first_sees_what_changed_and_may_load_it_again() {
    let (server, _data) = started().await;
    let (mut browser, _) = signed_in(&server).await;
    let place = furnished(&server).await;
    let api = server.api();
    let mut faults = Vec::new();
    for (number, row) in RACED.iter().enumerate() {
        let (path, action) = (place.fill(row.page), place.fill(row.action));
        let page = browser.get(&format!("/{path}")).await;
        if !page.text.contains(&format!("action=\"{action}\"")) {
            faults.push(format!("{action}: no such form: {}", page.status));
            continue;
        }
        let (method, there, body) = &row.theirs;
        let later = SystemClock.now().after(HOUR * (number as u64 + 2));
        let body = body.replace('N', &(number + 100).to_string());
        let body = body.replace("\"T\"", &format!("\"{later}\""));
        let (status, told) = api.send(method.clone(), &place.fill(there), body).await;
        assert!(
            status.is_success(),
            "{there}: {status} {}",
            String::from_utf8_lossy(&told)
        );
        let typed: Vec<_> = row
            .typed
            .iter()
            .map(|(name, value)| (*name, word(value)))
            .collect();
        let answer = typed_into(&mut browser, &page, &action, &typed).await;
        if answer.status != StatusCode::PRECONDITION_FAILED {
            faults.push(format!("{action}: {}", answer.status));
            continue;
        }
        let alert = answer.text.split_once("role=\"alert\"");
        let alert = alert.map(|(_, rest)| rest).unwrap_or_default();
        for says in row.says {
            if !alert.contains(says) {
                faults.push(format!("{action}: does not say {says}"));
            }
        }
        let reload = [">Load it again</a>", ">Reload and drop what I typed</a>"];
        if !reload.iter().any(|link| answer.text.contains(link)) {
            faults.push(format!("{action}: cannot be loaded again"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // Nothing was done: all of it is there, as they left it.
    for path in ["apps/{app}/endpoints/{endpoint}", "schedules/{schedule}"] {
        let page = browser.get(&format!("/{}", place.fill(path))).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
    }
    server.stop().await;
}

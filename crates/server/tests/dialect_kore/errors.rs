//! Every error below `/kore/v1` has KORE's form, whoever gives it, and is documented.

use hookturn_core::limits;
use serde_json::json;

use crate::bench::Bench;
use crate::calls::{SECRETS, assert_documented, create, error, keyring};

const ONE: &str = "/kore/v1/secrets/whs_00000000000000000000000000";

/// Method, path, body, status, code, and what the message says.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    u16,
    &'static str,
    &'static str,
);

const BODIES: &[Row] = &[
    (
        "POST",
        SECRETS,
        "",
        400,
        "invalid_field",
        "the body: is missing: send a JSON object",
    ),
    ("POST", SECRETS, "{", 400, "malformed_json", "line 1"),
    (
        "POST",
        SECRETS,
        "{}",
        400,
        "invalid_field",
        "Name: is required",
    ),
    ("POST", SECRETS, "[]", 400, "invalid_field", "the body: "),
    (
        "POST",
        SECRETS,
        r#"{"Name":7}"#,
        400,
        "invalid_field",
        "Name: expected a string",
    ),
    (
        "POST",
        SECRETS,
        r#"{"Name":null}"#,
        400,
        "invalid_field",
        "Name: expected a string",
    ),
    (
        "POST",
        SECRETS,
        r#"{"name":"a"}"#,
        400,
        "invalid_field",
        "name: unknown field; expected `Name`",
    ),
    (
        "POST",
        SECRETS,
        r#"{"Name":"a","Secret":"x"}"#,
        400,
        "invalid_field",
        "Secret: unknown field",
    ),
    (
        "POST",
        SECRETS,
        r#"{"Name":"a","Name":"b"}"#,
        400,
        "invalid_field",
        "Name: is given twice",
    ),
    (
        "POST",
        SECRETS,
        r#"{"Name":""}"#,
        400,
        "invalid_field",
        "Name: must not be blank",
    ),
    (
        "POST",
        SECRETS,
        r#"{"Name":"  "}"#,
        400,
        "invalid_field",
        "Name: must not be blank",
    ),
    (
        "POST",
        SECRETS,
        r#"{"Name":"a\u0007"}"#,
        400,
        "invalid_field",
        "Name: holds a control",
    ),
    (
        "PATCH",
        ONE,
        "",
        400,
        "invalid_field",
        "the body: is missing: send a JSON object",
    ),
    (
        "PATCH",
        ONE,
        r#"{"Status":"pending"}"#,
        400,
        "invalid_field",
        "Status: expected",
    ),
    (
        "PATCH",
        ONE,
        r#"{"Status":"Active"}"#,
        400,
        "invalid_field",
        "Status: expected",
    ),
    (
        "PATCH",
        ONE,
        r#"{"Status":null}"#,
        400,
        "invalid_field",
        "Status: expected",
    ),
    (
        "PATCH",
        ONE,
        r#"{"Name":null}"#,
        400,
        "invalid_field",
        "Name: expected a string",
    ),
    (
        "PATCH",
        ONE,
        r#"{"Name":""}"#,
        400,
        "invalid_field",
        "Name: must not be blank",
    ),
    (
        "PATCH",
        ONE,
        r#"{"Colour":1}"#,
        400,
        "invalid_field",
        "Colour: unknown field",
    ),
    ("PATCH", ONE, r#"{"Name":"a"}"#, 404, "not_found", "secret"),
    (
        "PATCH",
        "/kore/v1/secrets/whs_x",
        r#"{"Name":"a"}"#,
        404,
        "not_found",
        "not an id",
    ),
    (
        "GET",
        "/kore/v1/secrets?status=disabled",
        "",
        400,
        "invalid_parameter",
        "status: expected",
    ),
    (
        "GET",
        "/kore/v1/secrets?page_number=0",
        "",
        400,
        "invalid_parameter",
        "page_number: expected",
    ),
    (
        "GET",
        "/kore/v1/secrets?page_number=2147483648",
        "",
        400,
        "invalid_parameter",
        "page_number: expected",
    ),
    (
        "GET",
        "/kore/v1/secrets?page_size=1001",
        "",
        400,
        "invalid_parameter",
        "page_size: expected",
    ),
    (
        "GET",
        "/kore/v1/secrets?page_size=x",
        "",
        400,
        "invalid_parameter",
        "page_size: expected",
    ),
    (
        "GET",
        "/kore/v1/secrets?colour=red",
        "",
        400,
        "invalid_parameter",
        "colour: unknown",
    ),
];

#[tokio::test]
async fn what_is_asked_wrongly_is_a_clear_error() {
    let bench = Bench::new().await;
    for (method, path, body, status, code, says) in BODIES {
        let reply = bench
            .ask(method, path)
            .raw("application/json", *body)
            .send()
            .await;
        assert_eq!(
            error(&reply, *status),
            *code,
            "{method} {path} {body}: {}",
            reply.text
        );
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(says), "{method} {path} {body}: {message}");
        // Who only asked is not told what became of a change.
        let reads = *method == "GET";
        assert!(!reads || !message.contains("changed"), "{message}");
        assert_documented(method, path, *status);
    }
    let large = format!(r#"{{"Name":"{}"}}"#, "a".repeat(limits::BODY_BYTES));
    for (method, path) in [("POST", SECRETS), ("PATCH", ONE)] {
        let ask = |kind: &str, body: String| bench.ask(method, path).raw(kind, body).send();
        let reply = ask("application/json", large.clone()).await;
        assert_eq!(error(&reply, 413), "too_large");
        let reply = bench
            .ask(method, path)
            .raw("application/json", &b"{\"Name\":\"\xff\"}"[..]);
        assert_eq!(error(&reply.send().await, 400), "invalid_utf8");
        assert_documented(method, path, 413);
    }
    assert_eq!(bench.get(SECRETS).await.ok()["meta_data"]["count"], 0);
}

/// A script that sends JSON by `curl -d` declares a form, and others declare nothing.
#[tokio::test]
async fn a_body_may_be_declared_as_anything() {
    let bench = Bench::new().await;
    for (number, declared) in [
        None,
        Some("application/x-www-form-urlencoded"),
        Some("text/plain"),
        Some("application/json; charset=utf-8"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("secret {number}");
        let ask = |method: &str, path: &str, body: String| {
            let ask = bench.ask(method, path).raw("placeholder", body);
            match declared {
                Some(declared) => ask.declared(declared),
                None => ask.undeclared(),
            }
            .send()
        };
        let made = ask("POST", SECRETS, json!({ "Name": name }).to_string()).await;
        assert_eq!(made.status, 201, "{declared:?}: {}", made.text);
        let path = format!("{SECRETS}/{}", made.json()["id"].as_str().unwrap());
        let active = json!({ "Status": "active" }).to_string();
        let changed = ask("PATCH", &path, active).await.ok();
        assert_eq!(
            (&changed["name"], &changed["status"]),
            (&json!(name), &json!("active"))
        );
    }
}

/// Names are as long as the document says, in characters.
#[tokio::test]
async fn a_name_has_as_many_characters_as_the_document_says() {
    let bench = Bench::new().await;
    for letter in ["a", "é", "🦘"] {
        let longest = letter.repeat(256);
        let made = create(&bench, &longest).await;
        assert_eq!(made["name"], longest.as_str());
        let ask = json!({ "Name": letter.repeat(257) });
        let reply = bench.post(SECRETS, ask).await;
        assert_eq!(error(&reply, 400), "invalid_field");
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains("Name: longer than 256 characters"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn who_may_not_is_told_so_in_the_same_form() {
    let bench = Bench::new().await;
    let reader = bench.key(&["read", "manage", "publish"], "default").await;
    let writer = bench
        .key(&["secrets", "manage", "publish"], "default")
        .await;
    for (method, path, lacking, scope) in [
        ("POST", SECRETS, &reader, "secrets"),
        ("PATCH", ONE, &reader, "secrets"),
        ("GET", SECRETS, &writer, "read"),
    ] {
        let body = json!({"Name": "a"});
        for key in [
            None,
            Some("Bearer sk_workspace_test_wrong"),
            Some("Basic abc"),
        ] {
            let mut ask = bench.anonymous(method, path).json(&body);
            if let Some(key) = key {
                ask = ask.header("authorization", key);
            }
            let reply = ask.send().await;
            assert_eq!(error(&reply, 401), "unauthorized");
            assert!(reply.header("www-authenticate").is_some());
        }
        let reply = bench
            .with_key(lacking, method, path)
            .json(&body)
            .send()
            .await;
        assert_eq!(error(&reply, 403), "forbidden");
        assert!(reply.text.contains(scope), "{}", reply.text);
        let elsewhere = bench
            .ask(method, path)
            .header("hookturn-workspace", "nowhere")
            .json(&body)
            .send()
            .await;
        assert_eq!(error(&elsewhere, 404), "not_found");
        for status in [401, 403, 404] {
            assert_documented(method, path, status);
        }
    }
    for (name, value) in [("idempotency-key", "a b"), ("hookturn-reason", "")] {
        let ask = bench.ask("POST", SECRETS).header(name, value);
        let reply = ask.json(&json!({"Name": "a"})).send().await;
        error(&reply, 400);
    }
}

#[tokio::test]
async fn what_does_not_exist_is_kores_too_below_its_base_and_ours_elsewhere() {
    let bench = Bench::new().await;
    for path in [
        "/kore/v1",
        "/kore/v1/",
        "/kore/v1/secret",
        "/kore/v1/secrets/",
        "/kore/v1/secrets/whs_00000000000000000000000000/activate",
    ] {
        for method in ["GET", "POST", "PATCH"] {
            let reply = bench.ask(method, path).send().await;
            assert_eq!(error(&reply, 404), "not_found", "{method} {path}");
        }
    }
    for (method, path, allow) in [
        ("DELETE", SECRETS, &["GET", "POST"][..]),
        ("PUT", SECRETS, &["GET", "POST"]),
        ("GET", ONE, &["PATCH"]),
        ("DELETE", ONE, &["PATCH"]),
        ("POST", "/kore/v1/openapi.json", &["GET"]),
    ] {
        let reply = bench.ask(method, path).send().await;
        assert_eq!(error(&reply, 405), "method_not_allowed", "{method} {path}");
        for allowed in allow {
            assert!(reply.header("allow").unwrap().contains(allowed), "{path}");
        }
    }
    for path in ["/kore", "/kore/v2/secrets", "/kore/v1x"] {
        bench.get(path).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_secret_that_is_disabled_is_a_conflict() {
    let bench = Bench::new().await;
    let first = create(&bench, "first").await;
    let path = keyring(&bench).await;
    let rotate = json!({"mode": "immediate"});
    bench.post(&format!("{path}/rotations"), rotate).await.ok();
    let path = format!("{SECRETS}/{}", first["id"].as_str().unwrap());
    for body in [json!({"Status": "active"}), json!({"Name": "x"}), json!({})] {
        let reply = bench.ask("PATCH", &path).json(&body).send().await;
        assert_eq!(error(&reply, 409), "secret_disabled");
    }
    assert_documented("PATCH", &path, 409);
    assert_documented("POST", SECRETS, 409);
}

#[tokio::test]
async fn the_document_is_served_and_public() {
    let bench = Bench::new().await;
    let reply = bench.anonymous("GET", "/kore/v1/openapi.json").send().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.text, hookturn::api::kore_openapi());
    // The native document knows nothing of the dialect.
    assert!(!bench.get("/openapi.json").await.text.contains("/kore/"));
}

//! Bad input: refused with a clear problem document that points at the fault, nothing stored, and
//! nothing of what was sent repeated.

use serde_json::{Value, json};

use crate::bench::Bench;

/// A value that must never come back, wherever it was put.
const PLANTED: &str = "whsec_planted0planted0planted0planted0planted0";

struct Case {
    name: &'static str,
    path: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    pointer: &'static str,
}

const MESSAGES: &str = "APP/messages";
const BATCH: &str = "APP/messages/batch";
const ENDPOINTS: &str = "APP/endpoints";
const SECRETS: &str = "KEYRING/secrets";
const ROTATIONS: &str = "KEYRING/rotations";
const JSON: &str = "application/json";

fn case(
    name: &'static str,
    path: &'static str,
    body: impl Into<Vec<u8>>,
    status: u16,
    code: &'static str,
    pointer: &'static str,
) -> Case {
    Case {
        name,
        path,
        content_type: JSON,
        body: body.into(),
        status,
        code,
        pointer,
    }
}

fn field(name: &'static str, path: &'static str, body: &Value, pointer: &'static str) -> Case {
    case(name, path, body.to_string(), 422, "invalid_field", pointer)
}

fn message_of(bytes: usize) -> String {
    let payload = "x".repeat(bytes - 2);
    format!(r#"{{"eventType":"a","payload":"{payload}"}}"#)
}

fn bodies() -> Vec<Case> {
    let malformed = |name, body: &str| case(name, MESSAGES, body, 400, "malformed_json", "none");
    vec![
        malformed("empty", ""),
        malformed("cut", r#"{"eventType":"a","payload":{"#),
        malformed("not JSON", "eventType=a"),
        malformed("two values", r#"{"eventType":"a","payload":1} {}"#),
        malformed("comma", r#"{"eventType":"a","payload":[1,]}"#),
        malformed("NaN", r#"{"eventType":"a","payload":NaN}"#),
        case(
            "non-UTF-8 in the payload",
            MESSAGES,
            b"{\"eventType\":\"a\",\"payload\":\"\xff\"}".to_vec(),
            400,
            "invalid_utf8",
            "none",
        ),
        case(
            "payload one byte too large",
            MESSAGES,
            message_of(256 * 1024 + 1),
            413,
            "too_large",
            "/payload",
        ),
        case(
            "body too large",
            MESSAGES,
            message_of(300 * 1024),
            413,
            "too_large",
            "none",
        ),
        Case {
            content_type: "text/plain",
            ..case(
                "media type",
                MESSAGES,
                "{}",
                415,
                "unsupported_media_type",
                "none",
            )
        },
        case(
            "batch too large",
            BATCH,
            vec![b' '; 8 * 1024 * 1024 + 1],
            413,
            "too_large",
            "none",
        ),
        case(
            "payload too large in a batch",
            BATCH,
            format!(
                r#"{{"messages":[{{"eventType":"a","payload":1}},{}]}}"#,
                message_of(256 * 1024 + 1)
            ),
            413,
            "too_large",
            "/messages/1/payload",
        ),
    ]
}

fn message_fields() -> Vec<Case> {
    let many = vec![json!({"eventType": "a", "payload": 1}); 1_001];
    let bad =
        json!({"messages": [{"eventType": "a", "payload": 1}, {"eventType": "b c", "payload": 2}]});
    let unknown = json!({"messages": [{"eventType": "a", "payload": 1, "colour": PLANTED}]});
    vec![
        field(
            "unknown field",
            MESSAGES,
            &json!({"eventType": "a", "payload": 1, "colour": PLANTED}),
            "/colour",
        ),
        field(
            "no payload",
            MESSAGES,
            &json!({"eventType": "a"}),
            "/payload",
        ),
        field(
            "no event type",
            MESSAGES,
            &json!({"payload": {}}),
            "/eventType",
        ),
        field(
            "number for text",
            MESSAGES,
            &json!({"eventType": 7, "payload": {}}),
            "/eventType",
        ),
        field(
            "bad event type",
            MESSAGES,
            &json!({"eventType": "no spaces", "payload": {}}),
            "/eventType",
        ),
        field(
            "long event id",
            MESSAGES,
            &json!({"eventType": "a", "payload": 1, "eventId": "x".repeat(129)}),
            "/eventId",
        ),
        field("array", MESSAGES, &json!([PLANTED]), ""),
        field("empty batch", BATCH, &json!({"messages": []}), "/messages"),
        field(
            "1,001 messages",
            BATCH,
            &json!({"messages": many}),
            "/messages",
        ),
        field("one bad message", BATCH, &bad, "/messages/1/eventType"),
        field(
            "unknown field in a batch",
            BATCH,
            &unknown,
            "/messages/0/colour",
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn configuration_fields() -> Vec<Case> {
    let url = |text: &str| json!({ "url": text });
    let valid = |name: &str, value: Value| json!({"url": "https://example.com", name: value});
    vec![
        field("no name", "/v1/apps", &json!({}), "/name"),
        field("blank name", "/v1/apps", &json!({"name": "  "}), "/name"),
        field(
            "negative",
            "/v1/apps",
            &json!({"name": "a", "rotationOverlapSeconds": -1}),
            "/rotationOverlapSeconds",
        ),
        field(
            "fraction",
            "/v1/apps",
            &json!({"name": "a", "rotationOverlapSeconds": 1.5}),
            "/rotationOverlapSeconds",
        ),
        field(
            "secret for number",
            "/v1/apps",
            &json!({"name": "a", "rotationOverlapSeconds": PLANTED}),
            "/rotationOverlapSeconds",
        ),
        case(
            "too large a number",
            "/v1/apps",
            r#"{"name":"a","rotationOverlapSeconds":1e999}"#,
            422,
            "invalid_field",
            "/rotationOverlapSeconds",
        ),
        case(
            "given twice",
            "/v1/apps",
            r#"{"name":"a","name":"b"}"#,
            422,
            "invalid_field",
            "/name",
        ),
        field("not a URL", ENDPOINTS, &url("hooks"), "/url"),
        field("ftp", ENDPOINTS, &url("ftp://example.com"), "/url"),
        field(
            "credentials",
            ENDPOINTS,
            &url("https://me:pw@example.com"),
            "/url",
        ),
        field(
            "forbidden address",
            ENDPOINTS,
            &url("https://internal.example/x"),
            "/url",
        ),
        field("no URL", ENDPOINTS, &json!({}), "/url"),
        field(
            "unknown preset",
            ENDPOINTS,
            &valid("preset", json!(PLANTED)),
            "/preset",
        ),
        field(
            "filter",
            ENDPOINTS,
            &valid("events", json!(["ok", "not ok"])),
            "/events/1",
        ),
        field(
            "header",
            ENDPOINTS,
            &valid("headers", json!({"x-a": "1\r\nx-b: 2"})),
            "/headers/x-a",
        ),
        field(
            "timeout",
            ENDPOINTS,
            &valid("timeoutMillis", json!(0)),
            "/timeoutMillis",
        ),
        field(
            "in flight",
            ENDPOINTS,
            &valid("maxInFlight", json!(1_001)),
            "/maxInFlight",
        ),
        field(
            "retry unknown",
            ENDPOINTS,
            &valid("retry", json!({"delaysMillis": [], "x": 1})),
            "/retry/x",
        ),
        field(
            "retry type",
            ENDPOINTS,
            &valid("retry", json!({"delaysMillis": [1, "2"]})),
            "/retry/delaysMillis/1",
        ),
        field(
            "31 retries",
            ENDPOINTS,
            &valid("retry", json!({"delaysMillis": vec![1; 31]})),
            "/retry/delaysMillis",
        ),
        field(
            "a delay above three days",
            ENDPOINTS,
            &valid("retry", json!({"delaysMillis": [1, 2, 259_200_001]})),
            "/retry/delaysMillis/2",
        ),
        field(
            "jitter above 100 %",
            ENDPOINTS,
            &valid("retry", json!({"delaysMillis": [], "jitterPercent": 101})),
            "/retry/jitterPercent",
        ),
        field(
            "secret too short",
            ENDPOINTS,
            &valid("secret", json!("x")),
            "/secret",
        ),
        field(
            "secret with shared keyring",
            ENDPOINTS,
            &json!({"url": "https://example.com", "keyring": "workspace", "secret": PLANTED}),
            "/secret",
        ),
        field(
            "ed25519 with github",
            ENDPOINTS,
            &json!({"url": "https://example.com", "preset": "github", "secretType": "ed25519"}),
            "/secretType",
        ),
        field(
            "secret of a wrong type",
            SECRETS,
            &json!({"secret": [PLANTED]}),
            "/secret",
        ),
        field(
            "mode of a wrong type",
            ROTATIONS,
            &json!({"mode": 5}),
            "/mode",
        ),
        field("no mode", ROTATIONS, &json!({}), "/mode"),
        field(
            "unknown mode",
            ROTATIONS,
            &json!({"mode": PLANTED}),
            "/mode",
        ),
        field(
            "policy",
            ROTATIONS,
            &json!({"mode": "proven", "policy": {"canaryPercent": "all"}}),
            "/policy/canaryPercent",
        ),
        field(
            "overlap",
            ROTATIONS,
            &json!({"mode": "overlap", "overlapSeconds": 2_592_001}),
            "/overlapSeconds",
        ),
        field(
            "overlap of a proven bulk",
            "/v1/bulk-rotations",
            &json!({"selector": {"all": true}, "mode": "proven", "overlapSeconds": 60}),
            "/overlapSeconds",
        ),
        field(
            "long reason",
            ROTATIONS,
            &json!({"mode": "overlap", "reason": "x".repeat(257)}),
            "/reason",
        ),
        field(
            "scope",
            "/v1/api-keys",
            &json!({"name": "a", "scopes": [PLANTED]}),
            "/scopes/0",
        ),
        field(
            "past",
            "/v1/api-keys",
            &json!({"name": "a", "scopes": ["read"], "expiresAt": "2020-01-01T00:00:00Z"}),
            "/expiresAt",
        ),
        field(
            "date",
            "/v1/api-keys",
            &json!({"name": "a", "scopes": ["read"], "expiresAt": "tomorrow"}),
            "/expiresAt",
        ),
    ]
}

#[tokio::test]
async fn bad_bodies_are_refused_with_a_pointer_and_nothing_is_stored() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let endpoint = bench.endpoint(&app).await;
    let keyring = format!("/v1/keyrings/{}", endpoint["keyringId"].as_str().unwrap());
    let audit_before = bench.get("/v1/audit?limit=200").await.ok();
    for case in bodies()
        .into_iter()
        .chain(message_fields())
        .chain(configuration_fields())
    {
        let path = case.path.replace("APP", &app).replace("KEYRING", &keyring);
        let reply = bench
            .ask("POST", &path)
            .raw(case.content_type, case.body)
            .send()
            .await;
        assert_eq!(
            reply.status.as_u16(),
            case.status,
            "{}: {}",
            case.name,
            reply.text
        );
        reply.problem(case.status, case.code);
        assert_eq!(
            reply.pointer(),
            case.pointer,
            "{}: {}",
            case.name,
            reply.text
        );
        assert!(
            !reply.text.contains("planted"),
            "{}: {}",
            case.name,
            reply.text
        );
    }
    let stored = bench.get(&format!("{app}/messages")).await.ok();
    assert_eq!(stored["data"], json!([]));
    let audit_after = bench.get("/v1/audit?limit=200").await.ok();
    assert_eq!(audit_before["data"], audit_after["data"]);
}

#[tokio::test]
async fn malformed_json_is_located_by_line_and_column() {
    let bench = Bench::new().await;
    let reply = bench
        .ask("POST", "/v1/apps")
        .raw(JSON, "{\n  \"name\": oops\n}")
        .send()
        .await;
    let problem = reply.problem(400, "malformed_json");
    assert_eq!(
        (&problem["line"], &problem["column"]),
        (&json!(2), &json!(11))
    );
}

#[tokio::test]
async fn the_largest_payload_and_the_deepest_bytes_are_taken() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let reply = bench
        .ask("POST", &format!("{app}/messages"))
        .raw("application/json; charset=utf-8", message_of(256 * 1024))
        .send()
        .await;
    assert_eq!(reply.status, 202, "{}", reply.text);
}

#[tokio::test]
async fn bad_parameters_and_headers_are_named() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    for (path, parameter) in [
        ("/v1/apps?limit=0", "limit"),
        ("/v1/apps?limit=many", "limit"),
        ("/v1/apps?limit=1&limit=2", "limit"),
        ("/v1/apps?cursor=!!", "cursor"),
        ("/v1/apps?page=2", "page"),
        ("/v1/rotations?state=closed", "state"),
        ("APP/deliveries?status=lost", "status"),
        ("APP/deliveries?since=yesterday", "since"),
        ("APP/deliveries?endpointId=ep_1", "endpointId"),
        (
            "APP/deliveries?since=2026-07-20T12:00:00Z&until=2026-07-20T11:59:59Z",
            "until",
        ),
        (
            "APP/messages?until=2026-07-19T00:00:00Z&since=2026-07-20T00:00:00Z",
            "until",
        ),
    ] {
        let reply = bench.get(&path.replace("APP", &app)).await;
        let problem = reply.problem(400, "invalid_parameter");
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{path}");
    }
    let reply = bench
        .ask("PATCH", &app)
        .header("if-match", "1")
        .json(&json!({}))
        .send()
        .await;
    reply.problem(400, "invalid_header");
}

#[tokio::test]
async fn an_empty_span_is_an_empty_list() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    for list in ["messages", "deliveries"] {
        let span = "since=2026-07-20T12:00:00Z&until=2026-07-20T12:00:00Z";
        let page = bench.get(&format!("{app}/{list}?{span}")).await.ok();
        assert_eq!(page["data"], json!([]));
    }
}

#[tokio::test]
async fn parameters_of_calls_that_take_none_are_refused_and_nothing_happens() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let made = bench.endpoint(&app).await;
    let endpoint = format!("{app}/endpoints/{}", made["id"].as_str().unwrap());
    let keyring = format!("/v1/keyrings/{}", made["keyringId"].as_str().unwrap());
    let before = bench.get("/v1/audit?limit=200").await.ok();
    for (method, path, body) in [
        ("POST", "/v1/apps", json!({"name": "shop"})),
        (
            "POST",
            &format!("{app}/messages"),
            json!({"eventType": "a", "payload": 1}),
        ),
        ("POST", &format!("{endpoint}/test"), json!({})),
        (
            "POST",
            &format!("{endpoint}/recover"),
            json!({"since": "2026-07-20T12:00:00Z"}),
        ),
        (
            "POST",
            &format!("{keyring}/rotations"),
            json!({"mode": "immediate"}),
        ),
        ("PATCH", &app, json!({"name": "other"})),
        ("DELETE", &endpoint, json!({})),
        ("DELETE", &app, json!({})),
        ("GET", &app, json!({})),
        ("GET", &endpoint, json!({})),
    ] {
        let path = format!("{path}?dryRun=planted");
        let reply = bench.ask(method, &path).json(&body).send().await;
        let problem = reply.problem(400, "invalid_parameter");
        assert_eq!(
            problem["errors"][0]["parameter"], "dryRun",
            "{method} {path}"
        );
        assert!(!reply.text.contains("planted"), "{}", reply.text);
    }
    // Only those that look after a load balancer's cache buster take anything.
    assert_eq!(bench.get("/livez?now").await.status, 200);
    let after = bench.get("/v1/audit?limit=200").await.ok();
    assert_eq!(before["data"], after["data"]);
    assert_eq!(
        bench.get(&format!("{app}/messages")).await.ok()["data"],
        json!([])
    );
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems_too() {
    let bench = Bench::new().await;
    bench
        .anonymous("GET", "/v2")
        .send()
        .await
        .problem(404, "not_found");
    let reply = bench.ask("PUT", "/v1/apps").send().await;
    reply.problem(405, "method_not_allowed");
    let allow = reply.header("allow").unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    bench
        .get("/v1/apps/not-an-id")
        .await
        .problem(404, "not_found");
    bench
        .get("/v1/deliveries/msg_00000000000000000000000000")
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn request_ids_are_ours() {
    let bench = Bench::new().await;
    let ask = || bench.ask("GET", "/v1/apps").header("x-request-id", "mine");
    let (first, second) = (ask().send().await, ask().send().await);
    let id = |reply: &crate::bench::Reply| reply.header("x-request-id").unwrap().to_owned();
    assert_ne!(id(&first), "mine");
    assert_ne!(id(&first), id(&second));
    assert_eq!(id(&first).len(), 36);
    assert_eq!(first.header("cache-control"), Some("no-store"));
}

/// G8: also where a name should stand, in every API.
#[tokio::test]
async fn g8_a_secret_in_the_place_of_a_name_is_not_repeated() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let hex = "0123456789abcdef".repeat(4);
    let prefixed = format!("hookturn-{hex}");
    let cut = format!("{}-{hex}", "x".repeat(40));
    let ended = format!("a`, {hex}");
    for secret in [PLANTED, &hex, &prefixed, &cut, &ended] {
        let query = |path: &str| format!("{path}?{}=1", secret.replace(' ', "+"));
        let post = |path: String, body: Value| bench.ask("POST", &path).json(&body).send();
        let endpoint = |value: &str| {
            let url = "https://example.com/hooks";
            json!({ "url": url, "headers": { secret: value } })
        };
        let unknown = json!({ "name": "shop", secret: 1 });
        for reply in [
            bench.get(&query("/v1/apps")).await,
            bench.get(&query(&app)).await,
            bench.get(&query("/connect/v1/apps")).await,
            bench.get(&query("/kore/v1/secrets")).await,
            post(format!("{app}/endpoints"), endpoint("a\r\nb")).await,
            post(format!("{app}/endpoints"), endpoint(&"x".repeat(9_000))).await,
            post("/v1/apps".to_owned(), unknown.clone()).await,
            post("/connect/v1/apps".to_owned(), unknown.clone()).await,
            post("/kore/v1/secrets".to_owned(), unknown.clone()).await,
        ] {
            assert!(reply.status.is_client_error(), "{}", reply.text);
            let planted = ["planted0", "0123456789"];
            let shows = planted.iter().any(|planted| reply.text.contains(planted));
            assert!(!shows, "{secret}: {}", reply.text);
        }
    }
}

//! Bad input over raw HTTP: the right status, a problem that says where, and nothing stored.

mod dialects;
mod heads;
mod payloads;
mod room;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::http::{Api, Connection, Reply, Request};
use crate::support::process::{Server, Setup};
use crate::support::{SOON, app, endpoint, list, publish, text, within};

/// A server with one app and one paused endpoint, and what was counted before anything bad came.
struct Stand {
    _dir: tempfile::TempDir,
    server: Server,
    api: Api,
    app: String,
    before: Vec<usize>,
}

const LISTS: [&str; 4] = [
    "/v1/apps",
    "/v1/workspaces",
    "/v1/api-keys",
    "/v1/rotations",
];

impl Stand {
    async fn new() -> Self {
        Self::with(|setup| setup).await
    }

    async fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = change(Setup::new(dir.path())).start().await;
        let api = server.api();
        let app = app(&api).await;
        let mut stand = Self {
            _dir: dir,
            server,
            api,
            app,
            before: Vec::new(),
        };
        stand.before = stand.counted().await;
        stand
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/apps/{}/{rest}", self.app)
    }

    async fn counted(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for path in LISTS {
            counts.push(list(&self.api, path).await.len());
        }
        for path in ["endpoints", "messages", "deliveries"] {
            counts.push(list(&self.api, &self.path(path)).await.len());
        }
        counts
    }

    /// Nothing came of all that was refused, and the server is as well as before.
    async fn nothing_stored(self) {
        assert_eq!(self.counted().await, self.before);
        let log = self.server.stop().await.join("\n");
        assert!(!log.contains("panicked"), "{log}");
    }

    /// POSTs a body as it is.
    async fn post(&self, rest: &str, body: &[u8]) -> Reply {
        let request = self.api.request("POST", &self.path(rest)).body(body);
        self.api.send(request).await
    }
}

/// Checks the form of a problem and returns it.
fn problem(reply: &Reply, status: u16, code: &str) -> Value {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json"),
        "{reply:?}"
    );
    let problem = reply.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(
        problem["requestId"].as_str(),
        reply.header("x-request-id"),
        "{problem}"
    );
    problem
}

#[tokio::test]
async fn a_wrong_key_is_401_and_says_nothing_else() {
    let stand = Stand::new().await;
    let path = stand.path("messages");
    let body = br#"{"eventType":"a.b","payload":1}"#;
    let good = stand.api.key.clone();
    for authorization in [
        None,
        Some("Bearer ".to_owned()),
        Some("Bearer wrong".to_owned()),
        Some(format!("Bearer {good}0")),
        Some(format!("Bearer {}", &good[..good.len() - 1])),
        Some(format!("Bearer {}", good.to_ascii_uppercase())),
        Some(format!("Basic {good}")),
        Some(good.clone()),
        Some(format!("Bearer {}", "x".repeat(8_000))),
    ] {
        let mut request = Request::new("POST", &path).body(body);
        if let Some(value) = &authorization {
            request = request.header("authorization", value);
        }
        let reply = stand.api.send(request).await;
        problem(&reply, 401, "unauthorized");
        assert!(reply.header("www-authenticate").is_some());
    }
    let twice = stand.api.request("POST", &path).body(body);
    let twice = twice.header("authorization", &format!("Bearer {good}"));
    problem(&stand.api.send(twice).await, 401, "unauthorized");
    stand.nothing_stored().await;
}

#[tokio::test]
async fn an_answer_before_the_body_says_that_the_connection_ends() {
    let stand = Stand::new().await;
    let path = stand.path("messages");
    let body = vec![b' '; 200 * 1024];
    let large = |request: Request| request.body(&body);
    let reader = key(&stand.api, &["read"]).await;
    for (request, status) in [
        (large(Request::new("POST", &path)), 401),
        (large(reader.request("POST", &path)), 403),
        (large(stand.api.request("POST", "/v1/nothing")), 404),
        (large(stand.api.request("PUT", &path)), 405),
        (
            large(stand.api.request("POST", &format!("{path}?x=1"))),
            400,
        ),
    ] {
        let mut connection = Connection::open(stand.server.address).await.unwrap();
        // All but the end of it: the server cannot wait for the rest before it answers.
        let bytes = request.bytes();
        connection.write(&bytes[..bytes.len() - 1]).await.unwrap();
        let reply = within(SOON, "an early answer", connection.reply())
            .await
            .unwrap();
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.header("connection"), Some("close"), "{reply:?}");
        within(SOON, "the end of the connection", connection.rest()).await;
    }
    // A body that was read, or none, leaves the connection open for the next request.
    let mut connection = Connection::open(stand.server.address).await.unwrap();
    for (request, status) in [
        (stand.api.request("POST", &path).body(b"{"), 400),
        (stand.api.request("POST", &path).body(&body), 400),
        (Request::new("GET", "/v1/apps"), 401),
        (stand.api.request("GET", "/v1/apps"), 200),
    ] {
        connection.write(&request.bytes()).await.unwrap();
        let reply = within(SOON, "an answer", connection.reply()).await.unwrap();
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.header("connection"), None, "{reply:?}");
    }
}

/// A key of the first workspace with these scopes.
async fn key(api: &Api, scopes: &[&str]) -> Api {
    let body = json!({"name": "few", "scopes": scopes});
    let made = api.created("/v1/api-keys", &body).await;
    Api {
        key: text(&made, "key"),
        ..api.clone()
    }
}

#[tokio::test]
async fn a_missing_scope_is_403_and_names_it() {
    let mut stand = Stand::new().await;
    let reader = key(&stand.api, &["read"]).await;
    let publisher = key(&stand.api, &["publish"]).await;
    stand.before = stand.counted().await;
    let message = json!({"eventType": "a.b", "payload": 1});
    for (api, method, rest, scope) in [
        (&reader, "POST", "messages", "publish"),
        (&reader, "POST", "endpoints", "manage"),
        (&publisher, "GET", "messages", "read"),
        (&publisher, "POST", "endpoints", "manage"),
    ] {
        let request = api.request(method, &stand.path(rest));
        let request = request.body(message.to_string().as_bytes());
        let problem = problem(&api.send(request).await, 403, "forbidden");
        assert_eq!(problem["needsScope"], scope, "{problem}");
    }
    // A key never makes one that may do more.
    let body = json!({"name": "more", "scopes": ["secrets"]});
    problem(
        &reader.post("/v1/api-keys", Some(&body)).await,
        403,
        "forbidden",
    );
    stand.nothing_stored().await;
}

#[tokio::test]
async fn another_workspaces_things_are_404() {
    let dir = tempfile::tempdir().unwrap();
    let operator_key = format!("sk_operator_{}", "0b5e".repeat(16));
    let setup = Setup::new(dir.path()).with("HOOKTURN_BOOTSTRAP_API_KEY", &operator_key);
    let server = setup.start().await;
    let api = Api {
        key: operator_key,
        ..server.api()
    };
    let app = app(&api).await;
    let made = endpoint(
        &api,
        &app,
        "http://127.0.0.1:9/",
        json!({"state": "paused"}),
    )
    .await;
    let message = json!({"eventType": "a.b", "payload": 1});
    let message_id = publish(&api, &app, "a.b", json!(1)).await;
    let deliveries = list(&api, &format!("/v1/apps/{app}/deliveries")).await;
    let delivery = text(&deliveries[0], "id");
    let other = api
        .created("/v1/workspaces", &json!({"name": "other"}))
        .await;
    let all = json!({"name": "theirs", "scopes": ["publish", "manage", "secrets", "read"]});
    let request = api.request("POST", "/v1/api-keys");
    let request = request.header("hookturn-workspace", &text(&other, "id"));
    let theirs = api.send(request.body(all.to_string().as_bytes())).await;
    let stranger = Api {
        key: text(&theirs.json(), "key"),
        ..server.api()
    };
    assert_eq!(stranger.get("/v1/apps").await.status, 200);
    for (method, path) in [
        ("GET", format!("/v1/apps/{app}")),
        ("PATCH", format!("/v1/apps/{app}")),
        ("DELETE", format!("/v1/apps/{app}")),
        ("POST", format!("/v1/apps/{app}/messages")),
        ("GET", format!("/v1/apps/{app}/messages/{message_id}")),
        ("GET", format!("/v1/apps/{app}/endpoints/{}", made.id)),
        ("DELETE", format!("/v1/apps/{app}/endpoints/{}", made.id)),
        ("POST", format!("/v1/apps/{app}/endpoints/{}/test", made.id)),
        ("GET", format!("/v1/deliveries/{delivery}")),
        ("POST", format!("/v1/deliveries/{delivery}/retry")),
        ("GET", format!("/v1/keyrings/{}", made.keyring)),
        ("POST", format!("/v1/keyrings/{}/secrets", made.keyring)),
        ("POST", format!("/v1/keyrings/{}/rotations", made.keyring)),
    ] {
        let mut request = stranger.request(method, &path);
        request = match (method, path.as_str()) {
            ("POST", path) if path.ends_with("messages") => {
                request.body(message.to_string().as_bytes())
            }
            ("POST", path) if path.ends_with("rotations") => {
                request.body(br#"{"mode":"immediate"}"#)
            }
            ("PATCH", _) => request.body(br#"{"name":"mine"}"#),
            _ => request,
        };
        problem(&stranger.send(request).await, 404, "not_found");
    }
    server.stop().await;
}

/// Body, status, code, pointer of the first error.
const BAD_MESSAGES: &[(&[u8], u16, &str, Option<&str>)] = &[
    (b"", 400, "malformed_json", None),
    (b"{", 400, "malformed_json", None),
    (
        b"{\"eventType\":\"a.b\",\"payload\":}",
        400,
        "malformed_json",
        None,
    ),
    (
        b"{\"eventType\":\"a.b\",\"payload\":1} trailing",
        400,
        "malformed_json",
        None,
    ),
    (
        b"{\"eventType\":\"a.b\",\"payload\":NaN}",
        400,
        "malformed_json",
        None,
    ),
    (
        b"{\"eventType\":\"a.b\",\"payload\":01}",
        400,
        "malformed_json",
        None,
    ),
    (
        b"{\"eventType\":\"a.b\",\"payload\":\"\xff\"}",
        400,
        "invalid_utf8",
        None,
    ),
    (b"\xff\xfe{\x00}\x00", 400, "invalid_utf8", None),
    (
        b"{\"eventType\":\"a.b\"}",
        422,
        "invalid_field",
        Some("/payload"),
    ),
    (b"{\"payload\":1}", 422, "invalid_field", Some("/eventType")),
    (
        b"{\"eventType\":\"a.b\",\"payload\":1,\"colour\":2}",
        422,
        "invalid_field",
        Some("/colour"),
    ),
    (
        b"{\"eventType\":\"a.b\",\"eventType\":\"c\",\"payload\":1}",
        422,
        "invalid_field",
        Some("/eventType"),
    ),
    (
        b"{\"eventType\":7,\"payload\":1}",
        422,
        "invalid_field",
        Some("/eventType"),
    ),
    (
        b"{\"eventType\":\"a b\",\"payload\":1}",
        422,
        "invalid_field",
        Some("/eventType"),
    ),
    (
        b"{\"eventType\":\"\",\"payload\":1}",
        422,
        "invalid_field",
        Some("/eventType"),
    ),
    (b"[]", 422, "invalid_field", Some("")),
    (b"null", 422, "invalid_field", Some("")),
];

#[tokio::test]
async fn messages_that_are_not_messages_are_refused_with_a_pointer() {
    let stand = Stand::new().await;
    for (body, status, code, pointer) in BAD_MESSAGES {
        let reply = stand.post("messages", body).await;
        let problem = problem(&reply, *status, code);
        if let Some(pointer) = pointer {
            assert_eq!(problem["errors"][0]["pointer"], *pointer, "{problem}");
        }
    }
    // A batch is refused as a whole, with the index of what is wrong.
    let batch = json!({"messages": [
        {"eventType": "a.b", "payload": 1},
        {"eventType": "a b", "payload": 2},
    ]});
    let reply = stand
        .post("messages/batch", batch.to_string().as_bytes())
        .await;
    let refused = problem(&reply, 422, "invalid_field");
    assert_eq!(refused["errors"][0]["pointer"], "/messages/1/eventType");
    for messages in [json!([]), vec![batch["messages"][0].clone(); 1_001].into()] {
        let body = json!({ "messages": messages }).to_string();
        let reply = stand.post("messages/batch", body.as_bytes()).await;
        problem(&reply, 422, "invalid_field");
    }
    let plain = stand.api.request("POST", &stand.path("messages"));
    let plain = plain
        .header("content-length", "2")
        .header("content-type", "text/plain");
    let mut bytes = plain.bytes();
    bytes.extend_from_slice(b"{}");
    let reply = raw(&stand.server, &bytes).await;
    problem(&reply, 415, "unsupported_media_type");
    stand.nothing_stored().await;
}

/// What is wrong with an endpoint, and where.
fn bad_endpoints() -> Vec<(Value, &'static str)> {
    let url = "http://127.0.0.1:9/";
    vec![
        (json!({}), "/url"),
        (json!({"url": url, "timeoutMillis": -1}), "/timeoutMillis"),
        (json!({"url": url, "timeoutMillis": 1.5}), "/timeoutMillis"),
        (json!({"url": url, "timeoutMillis": 999}), "/timeoutMillis"),
        (
            json!({"url": url, "timeoutMillis": u64::MAX}),
            "/timeoutMillis",
        ),
        (
            json!({"url": url, "timeoutMillis": "1000"}),
            "/timeoutMillis",
        ),
        (json!({"url": url, "maxInFlight": 0}), "/maxInFlight"),
        (
            json!({"url": url, "maxInFlight": 4_294_967_296_u64}),
            "/maxInFlight",
        ),
        (
            json!({"url": url, "rateLimitPerSecond": 0}),
            "/rateLimitPerSecond",
        ),
        (
            json!({"url": url, "retry": {"delaysMillis": [-5]}}),
            "/retry/delaysMillis/0",
        ),
        (
            json!({"url": url, "retry": {"delaysMillis": [u64::MAX]}}),
            "/retry/delaysMillis/0",
        ),
        (
            json!({"url": url, "retry": {"delaysMillis": vec![1; 31]}}),
            "/retry/delaysMillis",
        ),
        (
            json!({"url": url, "retry": {"delaysMillis": [], "jitterPercent": 300}}),
            "/retry/jitterPercent",
        ),
        (json!({"url": url, "preset": "carrier-pigeon"}), "/preset"),
        (json!({"url": url, "events": ["a b"]}), "/events/0"),
        (
            json!({"url": url, "headers": {"host": "x"}}),
            "/headers/host",
        ),
        (
            json!({"url": url, "headers": {"x": "a\r\nb: c"}}),
            "/headers/x",
        ),
        (
            json!({"url": url, "headers": {"webhook-id": "x"}}),
            "/headers/webhook-id",
        ),
        (json!({"url": url, "secret": "whsec_!!"}), "/secret"),
        (json!({"url": url, "colour": 1}), "/colour"),
        (json!({"url": 5}), "/url"),
        (json!({"url": "not a url"}), "/url"),
        (
            json!({"url": format!("http://127.0.0.1/{}", "x".repeat(3_000))}),
            "/url",
        ),
        (json!({"url": "ftp://127.0.0.1/"}), "/url"),
        (json!({"url": "http://user:pass@127.0.0.1/"}), "/url"),
        (json!({"url": "http://127.0.0.1:0/"}), "/url"),
    ]
}

#[tokio::test]
async fn endpoints_with_impossible_values_are_422_with_a_pointer() {
    let stand = Stand::new().await;
    for (body, pointer) in bad_endpoints() {
        let reply = stand.post("endpoints", body.to_string().as_bytes()).await;
        let problem = problem(&reply, 422, "invalid_field");
        assert_eq!(
            problem["errors"][0]["pointer"], pointer,
            "{body}: {problem}"
        );
    }
    stand.nothing_stored().await;
}

#[tokio::test]
async fn g10_forbidden_targets_are_refused_when_they_are_configured() {
    // What may be allowed is, but never the addresses of metadata services.
    let stand = Stand::with(|setup| setup.with("HOOKTURN_ALLOW_NETS", "0.0.0.0/0,::/0")).await;
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest",
        "http://100.100.100.200/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://[::ffff:169.254.169.254]/",
        "http://metadata.google.internal/",
    ] {
        forbidden(&stand, url).await;
    }
    stand.nothing_stored().await;
    // By default nothing private is, and no plain http.
    let strict = |setup: Setup| {
        let setup = setup.without("HOOKTURN_ALLOW_NETS");
        setup.without("HOOKTURN_ALLOW_HTTP")
    };
    let stand = Stand::with(strict).await;
    for url in [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://10.0.0.1/",
        "https://192.168.1.1/",
        "https://172.16.0.1/",
        "https://0.0.0.0/",
        "https://[fe80::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/",
    ] {
        forbidden(&stand, url).await;
    }
    stand.nothing_stored().await;
}

async fn forbidden(stand: &Stand, url: &str) {
    let body = json!({ "url": url }).to_string();
    let reply = stand.post("endpoints", body.as_bytes()).await;
    assert_eq!(reply.status, 422, "{url}: {reply:?}");
    let problem = problem(&reply, 422, "invalid_field");
    assert_eq!(problem["errors"][0]["pointer"], "/url", "{url}: {problem}");
}

/// Sends bytes on a connection of their own; the first answer.
async fn raw(server: &Server, bytes: &[u8]) -> Reply {
    let mut connection = Connection::open(server.address).await.unwrap();
    // The server may answer and close before all of it is written.
    let _cut = connection.write(bytes).await;
    within(SOON, "an answer", connection.reply()).await.unwrap()
}

#[tokio::test]
async fn strange_paths_methods_and_parameters_are_refused() {
    let stand = Stand::new().await;
    for (method, path, status, code) in [
        ("GET", "/v1/nothing".to_owned(), 404, "not_found"),
        (
            "GET",
            "/v1/apps/../../etc/passwd".to_owned(),
            404,
            "not_found",
        ),
        ("GET", "/v1/apps/%00".to_owned(), 404, "not_found"),
        ("GET", "/v1/apps/%ff%fe".to_owned(), 404, "not_found"),
        ("PUT", "/v1/apps".to_owned(), 405, "method_not_allowed"),
        ("BREW", "/v1/apps".to_owned(), 405, "method_not_allowed"),
        (
            "GET",
            "/v1/apps?limit=-1".to_owned(),
            400,
            "invalid_parameter",
        ),
        (
            "GET",
            "/v1/apps?limit=99999999999999999999".to_owned(),
            400,
            "invalid_parameter",
        ),
        (
            "GET",
            "/v1/apps?colour=1".to_owned(),
            400,
            "invalid_parameter",
        ),
        (
            "GET",
            "/v1/apps?cursor=%ff".to_owned(),
            400,
            "invalid_parameter",
        ),
        (
            "GET",
            stand.path("messages?since=yesterday"),
            400,
            "invalid_parameter",
        ),
        (
            "GET",
            stand.path("deliveries?status=lost"),
            400,
            "invalid_parameter",
        ),
    ] {
        let reply = stand.api.send(stand.api.request(method, &path)).await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        problem(&reply, status, code);
    }
    for key in ["", &"k".repeat(256), "a b"] {
        let request = stand.api.request("POST", &stand.path("messages"));
        let request = request.header("idempotency-key", key);
        let request = request.body(br#"{"eventType":"a.b","payload":1}"#);
        problem(
            &stand.api.send(request).await,
            400,
            "invalid_idempotency_key",
        );
    }
    stand.nothing_stored().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let stand = Stand::new().await;
    let mut bytes = Vec::new();
    for n in 0..50 {
        let path = if n % 2 == 0 { "/livez" } else { "/v1/nothing" };
        bytes.extend(stand.api.request("GET", path).bytes());
    }
    let mut connection = Connection::open(stand.server.address).await.unwrap();
    connection.write(&bytes).await.unwrap();
    for n in 0..50 {
        let reply = within(SOON, "an answer", connection.reply()).await.unwrap();
        assert_eq!(reply.status, if n % 2 == 0 { 200 } else { 404 }, "{n}");
    }
    stand.nothing_stored().await;
}

/// As `nc -N` does: everything is said, and the answers are waited for.
#[tokio::test]
async fn who_closes_its_side_after_its_requests_gets_every_answer() {
    let stand = Stand::new().await;
    let one = stand.api.request("GET", "/livez").bytes();
    let mut stream = TcpStream::connect(stand.server.address).await.unwrap();
    stream.write_all(&one.repeat(10)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answers = Vec::new();
    let all = stream.read_to_end(&mut answers);
    within(SOON, "the end of the answers", all).await.unwrap();
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 10, "{answers}");
}

/// What a slow client sends before it falls silent.
const SLOW: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_dawdle_are_cut_off() {
    let stand = Stand::new().await;
    let began = Instant::now();
    let body = stand.api.request("POST", &stand.path("messages"));
    let body = body.header("content-type", "application/json");
    let body = body.header("content-length", "1000").bytes();
    let silent = [
        ("nothing at all", Vec::new()),
        (
            "half a head",
            b"GET /livez HTTP/1.1\r\nhost: x\r\n".to_vec(),
        ),
        ("a head without its body", body),
    ];
    let mut waiting = tokio::task::JoinSet::new();
    for (what, bytes) in silent {
        let address = stand.server.address;
        waiting.spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            connection.write(&bytes).await.unwrap();
            let rest = tokio::time::timeout(SLOW, connection.rest()).await;
            (what, rest.is_ok())
        });
    }
    let address = stand.server.address;
    waiting.spawn(async move { ("a head that drips", drip(address).await) });
    while let Some(done) = waiting.join_next().await {
        let (what, closed) = done.unwrap();
        assert!(closed, "{what} kept a connection for {:?}", began.elapsed());
    }
    stand.nothing_stored().await;
}

/// Sends a head forever, a line every 100 ms; whether the server put an end to it.
async fn drip(address: std::net::SocketAddr) -> bool {
    let mut connection = Connection::open(address).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let dripping = async {
        let mut sent = connection.write(b"GET /livez HTTP/1.1\r\n").await;
        while sent.is_ok() {
            ticks.tick().await;
            sent = connection.write(b"x-slow: 1\r\n").await;
        }
    };
    tokio::time::timeout(SLOW, dripping).await.is_ok()
}

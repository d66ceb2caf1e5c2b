//! G8 from outside: secrets are planted wherever they can enter, everything is logged at the finest
//! level, and then all that the server leaves behind is searched for them.
//!
//! Searched: both outputs, `/metrics`, every answer but those that must show a secret once, the
//! database with its write-ahead log, a backup, and the command line. Each secret is looked for as
//! text, in hexadecimal and in base64, and so is the key inside a `whsec_…` text. Not searched: the
//! process's own environment, and the key file, which exist to hold them.

mod needles;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use hookturn::app::DATABASE;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::http::{Api, Reply, Request};
use crate::support::process::{Server, Setup, bootstrap_key};
use crate::support::receiver::Receiver;
use crate::support::{app, publish, text};

use needles::Needles;

/// The API, noting every answer that is to be searched.
struct Watched<'a> {
    api: &'a Api,
    answers: Mutex<Vec<Reply>>,
}

impl Watched<'_> {
    fn note(&self, reply: &Reply) {
        self.answers.lock().unwrap().push(reply.clone());
    }

    /// An answer that must not show a secret.
    async fn send(&self, request: Request) -> Reply {
        let reply = self.api.send(request).await;
        self.note(&reply);
        reply
    }

    async fn post(&self, path: &str, body: &[u8]) -> Reply {
        self.send(self.api.request("POST", path).body(body)).await
    }

    /// An answer that must show a secret, once.
    async fn once(&self, path: &str, key: &str, body: &Value) -> Value {
        let request = self.api.request("POST", path);
        let request = request.header("idempotency-key", key);
        let request = request.body(body.to_string().as_bytes());
        let reply = self.api.send(request).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.json()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_no_planted_secret_is_found_in_anything_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut needles = Needles::default();
    let master = "5eedfacecafe0123".repeat(4);
    needles.plant("master key", &master);
    needles.plant("bootstrap key", &bootstrap_key());
    let setup = Setup::new(&data)
        .with("HOOKTURN_MASTER_KEY", &master)
        .with("HOOKTURN_LOG", "trace")
        .with("HOOKTURN_LOG_FORMAT", "json");
    let server = setup.start().await;
    let api = server.api();
    let watched = Watched {
        api: &api,
        answers: Mutex::default(),
    };
    use_secrets(&watched, &mut needles).await;
    misplace_secrets(&watched, &mut needles).await;
    misplace_in_configuration(&data, &mut needles).await;
    look_around(&watched).await;
    over_http2(&api, &mut needles).await;

    let command_line = std::fs::read(format!("/proc/{}/cmdline", server.pid)).unwrap();
    needles.search("the command line", &command_line);
    let backup = dir.path().join("backup.db");
    hookturn::app::backup::backup(&data, &backup).unwrap();
    search_files(&needles, &data);
    needles.search("the backup", &std::fs::read(&backup).unwrap());
    for reply in watched.answers.lock().unwrap().iter() {
        let headers = format!("{:?}", reply.headers);
        needles.search(&format!("an answer: {}", reply.status), &reply.body);
        needles.search("the headers of an answer", headers.as_bytes());
    }
    let log = stop(server).await;
    for level in ["\"TRACE\"", "\"DEBUG\"", "an exchange ended"] {
        assert!(log.contains(level), "no {level} in: {log}");
    }
    needles.search("the log", log.as_bytes());
    search_files(&needles, &data);
    // The search itself finds what is there.
    assert!(needles.count() > 20 && needles.finds(bootstrap_key().as_bytes()));
}

async fn stop(server: Server) -> String {
    server.stop().await.join("\n")
}

/// Database, write-ahead log and whatever else lies beside them.
fn search_files(needles: &Needles, data: &Path) {
    let files: Vec<PathBuf> = std::fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(files.iter().any(|path| path.ends_with(DATABASE)));
    for path in files {
        needles.search(&path.display().to_string(), &std::fs::read(&path).unwrap());
    }
}

/// Secrets go where they belong: generated, imported, rotated, revealed, replayed, and they sign.
async fn use_secrets(watched: &Watched<'_>, needles: &mut Needles) {
    let api = watched.api;
    let receiver = Receiver::start(|_| async { 204 }).await;
    let app = app(api).await;
    let path = format!("/v1/apps/{app}/endpoints");
    let mut keyrings = Vec::new();
    let imported = "whsec_aW1wb3J0ZWQtc2VjcmV0LXBsYW50ZWQtaGVyZQ==";
    needles.plant("imported secret", imported);
    for (name, more) in [
        ("generated", json!({})),
        ("imported", json!({ "secret": imported })),
        ("ed25519", json!({"secretType": "ed25519"})),
        ("hopae", json!({"preset": "hopae"})),
    ] {
        let mut body = json!({"url": receiver.url(), "secretName": name});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let made = watched.once(&path, name, &body).await;
        needles.plant(name, made["secret"]["value"].as_str().unwrap());
        keyrings.push(text(&made, "keyringId"));
    }
    let publisher = json!({"name": "publisher", "scopes": ["publish"]});
    let key = watched.once("/v1/api-keys", "key", &publisher).await;
    needles.plant("API key", key["key"].as_str().unwrap());
    let rotated = "whsec_cm90YXRlZC1pbnRvLXBsYW50ZWQtc2VjcmV0LWhlcmU=";
    needles.plant("imported by a rotation", rotated);
    for (n, keyring) in keyrings.iter().enumerate() {
        let path = format!("/v1/keyrings/{keyring}/rotations");
        let body = match n {
            1 => json!({"mode": "immediate", "secret": rotated}),
            _ => json!({"mode": "overlap", "overlapSeconds": 3_600}),
        };
        let once = format!("rotate-{n}");
        let opened = watched.once(&path, &once, &body).await;
        let again = watched.once(&path, &once, &body).await;
        assert_eq!(opened, again);
        needles.plant("rotated", opened["secret"]["value"].as_str().unwrap());
    }
    publish(api, &app, "planted.test", json!({"n": 1})).await;
    receiver.arrived(4).await;
}

/// Secrets go where they do not belong, and every request with one is refused.
async fn misplace_secrets(watched: &Watched<'_>, needles: &mut Needles) {
    let api = watched.api;
    let app = app(api).await;
    let endpoints = format!("/v1/apps/{app}/endpoints");
    let messages = format!("/v1/apps/{app}/messages");
    let mut secret = |place: &str| {
        let text = format!("whsec_misplaced{}", hex::encode(place));
        needles.plant(place, &text);
        text
    };
    for (method, path) in [("GET", "/v1/apps"), ("POST", messages.as_str())] {
        let wrong = secret(&format!("authorization of {method}"));
        for scheme in ["Bearer", "Basic", "Digest"] {
            let request = Request::new(method, path);
            let reply = watched
                .send(request.header("authorization", &format!("{scheme} {wrong}")))
                .await;
            assert_eq!(reply.status, 401);
        }
    }
    let url = "http://127.0.0.1:9/";
    let refused = [
        format!(
            "{{\"url\":\"{url}\",\"secret\":\"{}\"",
            secret("malformed JSON")
        ),
        format!("{{\"url\":\"{url}\",\"{}\":1}}", secret("unknown field")),
        format!(
            "{{\"url\":\"{url}\",\"hunter2-{}\":1}}",
            secret("inside an unknown field")
        ),
        format!(
            "{{\"url\":\"{url}\",\"timeoutMillis\":\"{}\"}}",
            secret("number")
        ),
        format!("{{\"url\":\"{url}\",\"preset\":\"{}\"}}", secret("variant")),
        format!(
            "{{\"url\":\"{url}\",\"events\":[\"{} !\"]}}",
            secret("event")
        ),
        format!(
            "{{\"url\":\"{url}\",\"secret\":\"{}!\"}}",
            secret("import that is not valid")
        ),
        format!(
            "{{\"url\":\"http://user:{}@127.0.0.1/\"}}",
            secret("userinfo")
        ),
        format!("{{\"url\":\"http://{}@127.0.0.1/\"}}", secret("user")),
        format!(
            "{{\"url\":\"gopher://127.0.0.1/{}\"}}",
            secret("refused URL")
        ),
        format!(
            "{{\"url\":\"{url}\",\"headers\":{{\"x\":\"{}\\r\\n\"}}}}",
            secret("header value")
        ),
        format!(
            "{{\"url\":\"{url}\",\"headers\":{{\"host\":\"{}\"}}}}",
            secret("our header")
        ),
        format!(
            "{{\"url\":\"{url}\",\"secret\":\"{}{}\"}}",
            secret("long import"),
            "x".repeat(600)
        ),
        format!("{{\"url\":\"{url}\"}} {}", secret("after the body")),
    ];
    for body in &refused {
        let reply = watched.post(&endpoints, body.as_bytes()).await;
        assert!((400..500).contains(&reply.status), "{body}: {reply:?}");
    }
    let path = format!("/v1/apps?cursor={}", secret("cursor"));
    assert_eq!(watched.send(api.request("GET", &path)).await.status, 400);
    let path = format!("/v1/apps?limit={}", secret("limit"));
    assert_eq!(watched.send(api.request("GET", &path)).await.status, 400);
    let path = format!("/v1/apps/{}", secret("path"));
    assert_eq!(watched.send(api.request("GET", &path)).await.status, 404);
    let key = secret("idempotency key");
    let request = api
        .request("POST", &messages)
        .header("idempotency-key", &key);
    let stored = request.body(br#"{"eventType":"a.b","payload":1}"#);
    assert_eq!(watched.send(stored).await.status, 202);
    let workspace = secret("workspace header");
    let request = api.request("GET", "/v1/apps");
    let request = request.header("hookturn-workspace", &workspace);
    assert_eq!(watched.send(request).await.status, 404);
    let media = secret("content type");
    let request = api.request("POST", &messages).header("x-ours", &media);
    assert_eq!(watched.send(request.body(b"{")).await.status, 400);
    let mode = format!("{{\"mode\":\"{}\"}}", secret("mode"));
    let reply = watched
        .post("/v1/keyrings/kr_0/rotations", mode.as_bytes())
        .await;
    assert!((400..500).contains(&reply.status));
}

/// HTTP/2 has a library of its own, with log lines of its own.
async fn over_http2(api: &Api, needles: &mut Needles) {
    let wrong = format!("sk_workspace_test_{}", "2b02".repeat(16));
    needles.plant("wrong key over HTTP/2", &wrong);
    let stream = TcpStream::connect(api.address).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let driving = tokio::spawn(connection);
    for (key, status) in [(&api.key, 200), (&wrong, 401)] {
        let request = http::Request::get(format!("http://{}/v1/apps", api.address))
            .header("authorization", format!("Bearer {key}"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let reply = sender.send_request(request).await.unwrap();
        assert_eq!(reply.status(), status);
    }
    driving.abort();
}

/// A server that does not start does not say what secret it was given either.
async fn misplace_in_configuration(data: &Path, needles: &mut Needles) {
    let other = data.with_file_name("other");
    for name in ["HOOKTURN_MASTER_KEY", "HOOKTURN_BOOTSTRAP_API_KEY"] {
        let text = format!("short-{}", name.len());
        let refusal = Setup::new(&other)
            .with("HOOKTURN_LOG", "trace")
            .with(name, &text)
            .refused()
            .await;
        assert!(!refusal.lines.join("\n").contains(&text), "{refusal:?}");
    }
    let wrong = "badc0ffee0ddf00d".repeat(4);
    needles.plant("wrong master key", &wrong);
    let setup = Setup::new(data).with("HOOKTURN_LOG", "trace");
    let refusal = setup.with("HOOKTURN_MASTER_KEY", &wrong).refused().await;
    needles.search("a refusal", refusal.lines.join("\n").as_bytes());
}

/// Reads everything that may be read.
async fn look_around(watched: &Watched<'_>) {
    let api = watched.api;
    for path in [
        "/metrics",
        "/readyz",
        "/openapi.json",
        "/v1/apps?limit=200",
        "/v1/api-keys?limit=200",
        "/v1/audit?limit=200",
        "/v1/rotations?limit=200",
        "/v1/workspaces",
    ] {
        let reply = watched.send(api.request("GET", path)).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        if path == "/metrics" {
            let metrics = String::from_utf8_lossy(&reply.body);
            let none = metrics.contains("hookturn_messages_accepted_total 0");
            assert!(
                !none && metrics.contains("hookturn_messages_accepted_total "),
                "{metrics}"
            );
        }
    }
    let apps = api.get("/v1/apps?limit=200").await.json();
    for app in apps["data"].as_array().unwrap() {
        let app = text(app, "clientId");
        for rest in ["endpoints", "deliveries", "messages"] {
            let path = format!("/v1/apps/{app}/{rest}?limit=200");
            let reply = watched.send(api.request("GET", &path)).await;
            for item in reply.json()["data"].as_array().unwrap() {
                let path = match rest {
                    "endpoints" => format!("/v1/keyrings/{}", text(item, "keyringId")),
                    "deliveries" => format!("/v1/deliveries/{}", text(item, "id")),
                    _ => format!("/v1/apps/{app}/messages/{}", text(item, "id")),
                };
                let reply = watched.send(api.request("GET", &path)).await;
                assert_eq!(reply.status, 200, "{path}");
            }
        }
    }
}

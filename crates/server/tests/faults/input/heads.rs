//! Requests that HTTP does not allow, or that have too much of it, over raw sockets: each gets an answer
//! that says why, and the connection ends.

use serde_json::json;

use super::{Stand, problem};
use crate::support::SOON;
use crate::support::http::{Connection, Request};
use crate::support::process::Server;
use crate::support::within;

/// Sends bytes on a connection of their own and reads it to its end; the one answer in it.
async fn refused(server: &Server, bytes: &[u8], status: u16, code: &str) {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    let mut connection = Connection::open(server.address).await.unwrap();
    // The server may answer and close before all of it is written.
    let _cut = connection.write(bytes).await;
    let reply = within(SOON, "an answer", connection.reply()).await;
    let reply = reply.unwrap_or_else(|error| panic!("{start:?}: {error}"));
    assert_eq!(reply.status, status, "{start:?}: {reply:?}");
    problem(&reply, status, code);
    assert_eq!(reply.header("connection"), Some("close"), "{start:?}");
    assert!(reply.header("date").is_some(), "{start:?}");
    let rest = within(SOON, "the end of a connection", connection.rest()).await;
    assert_eq!(rest, b"", "{start:?}");
}

#[tokio::test]
async fn what_is_not_http_gets_an_answer_and_huge_heads_too() {
    let stand = Stand::new().await;
    let get =
        |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    let long = get("/livez", &format!("x-long: {}\r\n", "z".repeat(200_000)));
    let many = get("/livez", &"x-many: z\r\n".repeat(500));
    let more = get("/livez", &"x-many: z\r\n".repeat(100));
    let path = get(&format!("/{}", "p".repeat(70_000)), "");
    let lengths =
        "POST /v1/apps HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello";
    for (bytes, status, code) in [
        (long.as_str(), 431, "head_too_large"),
        (&many, 431, "head_too_large"),
        (&more, 431, "head_too_large"),
        (&path, 414, "uri_too_long"),
        (lengths, 400, "malformed_request"),
        ("GET /livez HTTP/9.9\r\n\r\n", 400, "malformed_request"),
        (
            "GET /li vez HTTP/1.1\r\nhost: x\r\n\r\n",
            400,
            "malformed_request",
        ),
        (
            "GET /livez HTTP/1.1\r\nbad header: x\r\n\r\n",
            400,
            "malformed_request",
        ),
        (
            "POST /v1/apps HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            400,
            "malformed_request",
        ),
        (
            "POST /v1/apps HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\nhello",
            400,
            "malformed_request",
        ),
        (
            "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}",
            400,
            "malformed_request",
        ),
    ] {
        refused(&stand.server, bytes.as_bytes(), status, code).await;
    }
    // As many headers as fit are no reason to refuse.
    let mut connection = Connection::open(stand.server.address).await.unwrap();
    let fine = get("/livez", &"x-many: z\r\n".repeat(99));
    connection.write(fine.as_bytes()).await.unwrap();
    let reply = within(SOON, "an answer", connection.reply()).await.unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    // A refusal is the last answer of a connection, and takes none of those before it.
    connection
        .write(&[fine.as_bytes(), lengths.as_bytes()].concat())
        .await
        .unwrap();
    for status in [200, 400] {
        let reply = within(SOON, "an answer", connection.reply()).await.unwrap();
        assert_eq!(reply.status, status, "{reply:?}");
    }
    stand.nothing_stored().await;
}

/// RFC 9112, section 3.2.
#[tokio::test]
async fn http_1_1_needs_one_host() {
    let stand = Stand::new().await;
    for headers in [
        "",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nhost: b\r\n",
        "host: a b\r\n",
        "host: a/b\r\n",
        "host: user@a\r\n",
    ] {
        let bytes = format!("GET /livez HTTP/1.1\r\n{headers}\r\n");
        refused(&stand.server, bytes.as_bytes(), 400, "malformed_request").await;
    }
    for line in [
        "GET /livez HTTP/1.1\r\nhost: \r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: a:80\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: [::1]:80\r\n\r\n",
        "GET /livez HTTP/1.0\r\n\r\n",
    ] {
        let reply = super::raw(&stand.server, line.as_bytes()).await;
        assert_eq!(reply.status, 200, "{line:?}: {reply:?}");
    }
    stand.nothing_stored().await;
}

/// Nothing is unpacked: a body that says so is refused as what it is.
#[tokio::test]
async fn encoded_bodies_are_415() {
    let stand = Stand::new().await;
    let path = stand.path("messages");
    let good = json!({"eventType": "a.b", "payload": 1}).to_string();
    let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xec\xc1\x01\x01\x00\x00";
    for (coding, body) in [
        ("gzip", &packed[..]),
        ("GZIP", packed),
        ("identity, br", packed),
        ("deflate", good.as_bytes()),
    ] {
        let request = stand.api.request("POST", &path).body(body);
        let reply = stand
            .api
            .send(request.header("content-encoding", coding))
            .await;
        let problem = problem(&reply, 415, "unsupported_encoding");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("without `Content-Encoding`"), "{detail}");
        assert_eq!(reply.header("accept-encoding"), Some("identity"));
    }
    // What is said to be encoded is not judged as text: the other way round it still is.
    let bare = Request::new("POST", &path)
        .header("authorization", &format!("Bearer {}", stand.api.key))
        .body(packed);
    problem(&stand.api.send(bare).await, 400, "invalid_utf8");
    let plain = stand.api.request("POST", &path).body(b"{}");
    let reply = stand
        .api
        .send(plain.header("content-encoding", "identity"))
        .await;
    problem(&reply, 422, "invalid_field");
    stand.nothing_stored().await;
}

/// Many connections and few files: those that find none wait, and the log is not flooded meanwhile.
#[tokio::test]
async fn running_out_of_files_is_said_once_in_a_while() {
    const FILES: u64 = 64;
    let stand = Stand::with(|setup| setup.with("HOOKTURN_SHARDS", "1")).await;
    stand.server.limit_open_files(FILES);
    let mut open = Vec::new();
    for _ in 0..2 * FILES {
        open.push(Connection::open(stand.server.address).await.unwrap());
    }
    stand.server.said("connections cannot be accepted").await;
    // A tenth of the next warning's time, in which the server tries twenty times.
    let last = open.last_mut().unwrap();
    last.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let wait = std::time::Duration::from_secs(1);
    assert!(
        tokio::time::timeout(wait, last.reply()).await.is_err(),
        "a file was free"
    );
    let last = open.pop().unwrap();
    drop(open);
    let mut last = last;
    let reply = within(SOON, "an answer when files are free", last.reply())
        .await
        .unwrap();
    assert_eq!(reply.status, 200);
    let lines = stand.server.lines();
    let said = lines
        .iter()
        .filter(|line| line.contains("cannot be accepted"))
        .count();
    assert!(said <= 2, "{lines:#?}");
    stand.nothing_stored().await;
}

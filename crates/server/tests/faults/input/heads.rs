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

/// What a refusal is about does not depend on what came before it on the connection.
#[tokio::test]
async fn a_refusal_after_other_answers_names_what_is_too_large() {
    let stand = Stand::new().await;
    let fine = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    // Its body ends without the end of a line.
    let post = stand.api.request("POST", &stand.path("messages"));
    let body = String::from_utf8(post.body(b"{}").bytes()).unwrap();
    let many = "x-many: z\r\n".repeat(100);
    let many = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    let long = "z".repeat(200_000);
    let long = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-long: {long}\r\n\r\n");
    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "p".repeat(70_000));
    for (before, answers) in [
        (fine.to_owned(), 1),
        (fine.repeat(3), 3),
        (format!("{fine}{body}"), 2),
    ] {
        for (last, status, code) in [
            (&many, 431, "head_too_large"),
            (&long, 431, "head_too_large"),
            (&path, 414, "uri_too_long"),
        ] {
            let mut connection = Connection::open(stand.server.address).await.unwrap();
            // The server may answer and close before all of it is written.
            let _cut = connection.write(format!("{before}{last}").as_bytes()).await;
            for _ in 0..answers {
                let reply = within(SOON, "an answer", connection.reply()).await.unwrap();
                assert!([200, 422].contains(&reply.status), "{reply:?}");
            }
            let reply = within(SOON, "an answer", connection.reply()).await.unwrap();
            problem(&reply, status, code);
        }
    }
    stand.nothing_stored().await;
}

/// Who sends half a head, or none, does not keep a connection; who sent half a one is told why.
#[tokio::test]
async fn half_a_head_is_answered_when_its_time_is_over() {
    let stand = Stand::new().await;
    let address = stand.server.address;
    let half = "POST /v1/apps HTTP/1.1\r\nhost: x\r\nx-slow";
    let whole = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let late = async |answered: bool, half: &str| {
        let mut connection = Connection::open(address).await.unwrap();
        if answered {
            connection.write(whole.as_bytes()).await.unwrap();
            let reply = within(SOON, "an answer", connection.reply()).await.unwrap();
            assert_eq!(reply.status, 200, "{reply:?}");
        }
        connection.write(half.as_bytes()).await.unwrap();
        let end = within(2 * SOON, "the end of a connection", connection.rest()).await;
        String::from_utf8(end).unwrap()
    };
    let ends = tokio::join!(
        late(false, half),
        late(true, half),
        late(false, "G"),
        late(false, ""),
        late(true, ""),
        late(false, "PRI * HTTP/2.0\r\n\r\nSM"),
    );
    for end in [&ends.0, &ends.1, &ends.2] {
        let (head, body) = end.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 408 "), "{end}");
        for line in [
            "connection: close",
            "content-type: application/problem+json",
        ] {
            assert!(head.lines().any(|known| known == line), "{end}");
        }
        assert!(head.lines().any(|line| line.starts_with("date: ")), "{end}");
        let document: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(document["code"], "request_timeout", "{end}");
        assert_eq!(document["retryable"], true, "{end}");
    }
    for end in [&ends.3, &ends.4, &ends.5] {
        assert_eq!(end, "", "an answer to nothing");
    }
    stand.nothing_stored().await;
}

/// A body that HTTP does not allow fails again however often it is sent; one that breaks off need not.
#[tokio::test]
async fn malformed_chunks_are_told_from_a_connection_that_broke() {
    let stand = Stand::new().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        stand.path("messages"),
        stand.api.key
    );
    for body in [
        "zz\r\n{}\r\n0\r\n\r\n",
        "-1\r\n",
        "2\r\n{}XX\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
    ] {
        let mut connection = Connection::open(stand.server.address).await.unwrap();
        connection
            .write(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        let reply = within(SOON, "an answer", connection.reply()).await.unwrap();
        let document = problem(&reply, 400, "malformed_request");
        assert_eq!(document["retryable"], false, "{body:?}: {reply:?}");
        assert_eq!(
            reply.header("connection"),
            Some("close"),
            "{body:?}: {reply:?}"
        );
    }
    let mut connection = Connection::open(stand.server.address).await.unwrap();
    connection
        .write(format!("{head}2\r\n{{").as_bytes())
        .await
        .unwrap();
    connection.close_half().await.unwrap();
    let reply = within(SOON, "an answer", connection.reply()).await.unwrap();
    let document = problem(&reply, 400, "incomplete_body");
    assert_eq!(document["retryable"], true, "{reply:?}");
    stand.nothing_stored().await;
}

/// The same words over HTTP/2, where the parser knows no limit of ours.
#[tokio::test]
async fn http_2_heads_that_are_too_large_get_the_same_answer() {
    let stand = Stand::new().await;
    let tcp = tokio::net::TcpStream::connect(stand.server.address)
        .await
        .unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let many = |count: usize, bytes: usize| {
        let mut headers = http::HeaderMap::new();
        for _ in 0..count {
            headers.append("x-many", "z".repeat(bytes).parse().unwrap());
        }
        headers
    };
    let none = http::HeaderMap::new;
    let long = format!("/{}", "p".repeat(40_000));
    for (path, headers, status, code) in [
        ("/livez", many(10, 2_000), 200, ""),
        ("/livez", many(100, 1), 200, ""),
        ("/livez", many(101, 1), 431, "head_too_large"),
        ("/livez", many(10, 4_000), 431, "head_too_large"),
        ("/livez", many(1, 33_000), 431, "head_too_large"),
        ("/livez", many(100, 2_000), 431, "head_too_large"),
        ("/livez", many(5_000, 1), 431, "head_too_large"),
        (&long, none(), 414, "uri_too_long"),
        ("/livez", none(), 200, ""),
    ] {
        let uri = format!("http://hookturn{path}");
        let mut request = http::Request::get(uri).body(()).unwrap();
        *request.headers_mut() = headers;
        let (answer, _) = client.send_request(request, true).unwrap();
        let answer = within(SOON, "an answer", answer).await.unwrap();
        let said = answer.headers().get("content-type").cloned();
        assert_eq!(answer.status(), status, "{path:.20}");
        let mut body = answer.into_body();
        let mut text = Vec::new();
        while let Some(data) = within(SOON, "a body", body.data()).await {
            text.extend_from_slice(&data.unwrap());
        }
        if status != 200 {
            assert_eq!(said.unwrap(), "application/problem+json");
            let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(document["code"], code);
            assert!(document["requestId"].is_string());
        }
    }
    // Beyond what is parsed there is a status, and the connection goes on.
    let mut request = http::Request::get("http://hookturn/livez")
        .body(())
        .unwrap();
    *request.headers_mut() = many(100, 4_000);
    let (answer, _) = client.send_request(request, true).unwrap();
    let answer = within(SOON, "an answer", answer).await.unwrap();
    assert_eq!(answer.status(), 431);
    // As the documents of all three APIs say, it is bare.
    assert!(answer.headers().is_empty(), "{answer:?}");
    assert!(answer.body().is_end_stream(), "{answer:?}");
    let whole = http::Request::get("http://hookturn/livez")
        .body(())
        .unwrap();
    let mut client = client.ready().await.unwrap();
    let (answer, _) = client.send_request(whole, true).unwrap();
    let answer = within(SOON, "an answer", answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(client);
    driving.abort();
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

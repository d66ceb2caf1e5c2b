//! What the listener refuses before routing, over raw sockets: the answer is in the error body of the
//! dialect whose path was asked for, and the native one where that cannot be known.

use futures_util::future::join_all;

use super::{Stand, problem};
use crate::support::http::{Connection, Reply};
use crate::support::process::Server;
use crate::support::{SOON, within};

/// Whose words an answer is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    Native,
    Hopae,
    Kore,
}

/// The code of an error, whose form is checked.
fn code(reply: &Reply, words: Words) -> String {
    let document = reply.json();
    let id = reply.header("x-request-id").unwrap();
    let code = match words {
        Words::Native => return native(reply),
        Words::Hopae => {
            assert_eq!(document["request_id"], id, "{reply:?}");
            assert!(document["error"]["message"].is_string(), "{reply:?}");
            &document["error"]["code"]
        }
        Words::Kore => {
            assert_eq!(document["info"], format!("request {id}"), "{reply:?}");
            assert_eq!(document["status"], reply.status, "{reply:?}");
            &document["code"]
        }
    };
    assert_eq!(reply.header("content-type"), Some("application/json"));
    code.as_str().unwrap_or_default().to_owned()
}

fn native(reply: &Reply) -> String {
    let document = reply.json();
    let code = document["code"].as_str().unwrap_or_default();
    problem(reply, reply.status, code);
    code.to_owned()
}

/// The code that each API has for a status of the listener.
const fn word(status: u16, words: Words) -> &'static str {
    match (words, status) {
        (Words::Hopae, 400) => "VALIDATION_INVALID_PARAMETER",
        (Words::Hopae, 408) => "VALIDATION_REQUEST_TIMEOUT",
        (Words::Hopae, 414) => "VALIDATION_URI_TOO_LONG",
        (Words::Hopae, _) => "VALIDATION_HEADERS_TOO_LARGE",
        (_, 400) => "malformed_request",
        (_, 408) => "request_timeout",
        (_, 414) => "uri_too_long",
        _ => "head_too_large",
    }
}

/// The last answer of a connection, after `before` others, and that the connection ends with it.
async fn refused(server: &Server, bytes: &[u8], before: usize) -> Reply {
    let mut connection = Connection::open(server.address).await.unwrap();
    // The server may answer and close before all of it is written.
    let _cut = connection.write(bytes).await;
    for _ in 0..before {
        within(SOON, "an answer", connection.reply()).await.unwrap();
    }
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(90)]).into_owned();
    let reply = within(2 * SOON, "an answer", connection.reply()).await;
    let reply = reply.unwrap_or_else(|error| panic!("{start:?}: {error}"));
    assert_eq!(reply.header("connection"), Some("close"), "{start:?}");
    let rest = within(SOON, "the end of a connection", connection.rest()).await;
    assert_eq!(rest, b"", "{start:?}");
    reply
}

const BASES: [(&str, Words); 4] = [
    ("/connect/v1/apps", Words::Hopae),
    ("/kore/v1/secrets", Words::Kore),
    ("/v1/apps", Words::Native),
    ("/connect/v10/apps", Words::Native),
];

#[tokio::test]
async fn a_refusal_before_routing_speaks_the_dialect_of_its_path() {
    let stand = Stand::new().await;
    let many = "x-many: z\r\n".repeat(101);
    let long = format!("x-long: {}\r\n", "z".repeat(200_000));
    let query = "q".repeat(70_000);
    for (path, words) in BASES {
        for (text, status) in [
            (format!("GET {path} HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431),
            (format!("GET {path} HTTP/1.1\r\nhost: x\r\n{long}\r\n"), 431),
            (
                format!("GET {path}?{query} HTTP/1.1\r\nhost: x\r\n\r\n"),
                414,
            ),
            (format!("GET {path} HTTP/1.1\r\nbad header: x\r\n\r\n"), 400),
            (
                format!("GET http://x{path} HTTP/1.1\r\nbad header: x\r\n\r\n"),
                400,
            ),
            (format!("GET {path} HTTP/9.9\r\nhost: x\r\n\r\n"), 400),
            (
                format!("GET {path} or not HTTP/1.1\r\nhost: x\r\n\r\n"),
                400,
            ),
            (
                format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n"),
                400,
            ),
            (format!("GET {path} HTTP/1.1\r\n\r\n"), 400),
        ] {
            let start = &text[..text.len().min(90)];
            let reply = refused(&stand.server, text.as_bytes(), 0).await;
            assert_eq!(reply.status, status, "{start:?}: {reply:?}");
            assert_eq!(code(&reply, words), word(status, words), "{start:?}");
        }
    }
    // No path can be seen in these.
    for text in [
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\r\n\r\n",
        "/connect/v1/apps\r\n\r\n",
        "GET  /connect/v1/apps HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let reply = refused(&stand.server, text.as_bytes(), 0).await;
        assert_eq!(reply.status, 400, "{text:?}");
        assert_eq!(code(&reply, Words::Native), "malformed_request", "{text:?}");
    }
    stand.nothing_stored().await;
}

/// A request whose body is read, with what looks like another request in it.
fn whole(stand: &Stand) -> String {
    let body = "{\"colour\": \"\r\n\r\nGET /kore/v1/secrets HTTP/1.1\r\n\"}";
    let post = stand.api.request("POST", &stand.path("messages"));
    String::from_utf8(post.body(body.as_bytes()).bytes()).unwrap()
}

/// One whose body comes in chunks.
fn in_chunks(stand: &Stand) -> String {
    let post = stand.api.request("POST", &stand.path("messages"));
    let post = post.header("content-type", "application/json");
    let post = post.header("Transfer-Encoding", "chunked");
    let head = String::from_utf8(post.bytes()).unwrap();
    format!("{head}1;a=b\r\n{{\r\n01\r\n}}\r\n0\r\nx-trailer: GET / HTTP/1.1\r\n\r\n")
}

/// The refused request is the one that is answered, whatever was sent before and after it.
#[tokio::test]
async fn a_refusal_speaks_for_its_own_request_among_others() {
    let stand = Stand::new().await;
    let live = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let (body, chunks) = (whole(&stand), in_chunks(&stand));
    for (before, answers) in [
        (live.to_owned(), 1),
        (format!("{live}{body}{live}"), 3),
        (format!("{chunks}{live}"), 2),
        (format!("{body}{chunks}"), 2),
    ] {
        for (path, words) in BASES {
            let bad = format!("GET {path} HTTP/1.1\r\nbad header: x\r\n\r\n");
            let after = "GET /kore/v1/secrets HTTP/1.1\r\nhost: x\r\n\r\n";
            let text = format!("{before}{bad}{after}");
            let reply = refused(&stand.server, text.as_bytes(), answers).await;
            assert_eq!(code(&reply, words), word(400, words), "{text:?}");
        }
    }
    stand.nothing_stored().await;
}

/// So does the answer to half a head, where enough of it came; and it comes as well when that half was in
/// the same packet as a whole request.
#[tokio::test]
async fn half_a_head_is_answered_in_the_dialect_it_began_in() {
    let stand = Stand::new().await;
    let live = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let (body, chunks) = (whole(&stand), in_chunks(&stand));
    let mut cases: Vec<(String, usize, Words)> = Vec::new();
    for (path, words) in BASES {
        cases.push((format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-"), 0, words));
        cases.push((format!("POST {path}"), 0, words));
        cases.push((format!("{live}POST {path} HTTP/1.1\r\nho"), 1, words));
        cases.push((format!("{body}{live}POST {path}"), 2, words));
    }
    cases.push(("GET /connect/v1".to_owned(), 0, Words::Native));
    cases.push((format!("{live}G"), 1, Words::Native));
    cases.push((format!("{body}G"), 1, Words::Native));
    cases.push((format!("{chunks}{body}G"), 2, Words::Native));
    cases.push((format!("{chunks}GET /kore/v1/s"), 1, Words::Kore));
    let late = cases.iter().map(async |(text, before, words)| {
        let reply = refused(&stand.server, text.as_bytes(), *before).await;
        assert_eq!(reply.status, 408, "{text:?}: {reply:?}");
        assert_eq!(code(&reply, *words), word(408, *words), "{text:?}");
    });
    // Who sent whole requests only is owed nothing.
    let whole = [live, &body, &chunks].map(async |text| {
        let mut connection = Connection::open(stand.server.address).await.unwrap();
        connection.write(text.as_bytes()).await.unwrap();
        within(SOON, "an answer", connection.reply()).await.unwrap();
        let end = within(2 * SOON, "the end of a connection", connection.rest()).await;
        assert_eq!(String::from_utf8_lossy(&end), "", "{text:?}");
    });
    tokio::join!(join_all(late), join_all(whole));
    stand.nothing_stored().await;
}

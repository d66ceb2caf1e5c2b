//! `hookturn endpoint test`: whether it connected and was accepted, or what failed.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use super::{Ran, Ready, text};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// What arrived of one request: its head and its body.
fn read_request(stream: &mut TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        let arrived = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = arrived.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.parse().unwrap());
            if body.len() >= length {
                return (head.to_owned(), body.to_owned());
            }
        }
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            Ok(_) | Err(_) => return (arrived, String::new()),
        }
    }
}

/// A receiver for one request, and what it receives. Without an answer it holds the connection until
/// the sender closes it.
fn receiver(answer: Option<&'static str>) -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (seen, requests) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = seen.send(read_request(&mut stream));
        if let Some(answer) = answer {
            let _ = stream.write_all(answer.as_bytes());
        }
        let _ = stream.read(&mut [0; 1]);
    });
    (address, requests)
}

/// A server that speaks first, and not TLS.
fn greeter() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
        while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    });
    address
}

fn test(ready: &Ready, url: &str, options: &[&str]) -> Ran {
    let create = ["endpoint", "create", &ready.app, url];
    let made = ready.server.json(&[&create[..], options].concat());
    let id = text(&made, "id");
    ready.server.run(&["endpoint", "test", &ready.app, id])
}

#[test]
fn a_test_event_is_accepted_in_every_form() {
    const JSON: &str = "\r\ncontent-type: application/json\r\n";
    const FORM: &str = "\r\ncontent-type: application/x-www-form-urlencoded\r\n";
    let ready = Ready::new();
    for (options, in_head, in_body) in [
        (
            &["--preset", "standard"][..],
            ["POST /in?k=v HTTP", JSON],
            "\"test\":true",
        ),
        (
            &["--preset", "kore"],
            ["POST /in?k=v HTTP", JSON],
            "\"test\":true",
        ),
        (
            &["--preset", "kore", "--body-form", "form"],
            ["POST /in?k=v HTTP", FORM],
            "&test=true",
        ),
        (
            &["--preset", "kore", "--method", "GET"],
            ["GET /in?k=v&at=", "&test=true HTTP"],
            "",
        ),
        (
            &["--preset", "kore-stream"],
            ["POST /in?k=v HTTP", JSON],
            "\"type\":\"hookturn.test\"",
        ),
    ] {
        let (address, requests) = receiver(Some(OK));
        let tested = test(&ready, &format!("http://{address}/in?k=v"), options);
        let accepted = "connected and accepted: the receiver answered 200\n";
        assert_eq!(tested.done(), accepted, "{options:?}");
        let (head, body) = requests.recv().unwrap();
        for part in in_head {
            assert!(head.contains(part), "{options:?}: {head}");
        }
        assert!(body.contains(in_body), "{options:?}: {body}");
        assert_eq!(body.is_empty(), in_body.is_empty(), "{options:?}: {body}");
    }
}

#[test]
fn an_endpoint_whose_receiver_asked_to_wait_says_until_when_and_why() {
    const BUSY: &str = "HTTP/1.1 503 Busy\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n";
    let ready = Ready::new();
    let (address, requests) = receiver(Some(BUSY));
    let url = format!("http://{address}/");
    let made = ready.server.json(&[
        "endpoint",
        "create",
        &ready.app,
        &url,
        "--retry-delays",
        "1h",
    ]);
    let show = ["endpoint", "show", &ready.app, text(&made, "id")];
    assert!(ready.server.json(&show)["receiver"]["held"].is_null());
    let publish = ["message", "send", &ready.app, "a.b", "--json", "{}"];
    ready.server.run(&publish).done();
    requests.recv().unwrap();
    // Each look is a process of its own: this is many seconds.
    let mut looks = (0..2_000).map(|_| ready.server.json(&show)["receiver"]["held"].clone());
    let held = looks.find(|held| !held.is_null()).unwrap();
    assert_eq!(held["status"], 503);
    let said = ready.server.run(&show).done();
    let until = text(&held, "until");
    let because = "because the receiver answered 503 with Retry-After";
    assert!(
        said.contains(&format!("held until {until} {because}")),
        "{said}"
    );
    let enable = ["endpoint", "enable", &ready.app, text(&made, "id")];
    ready.server.run(&enable).done();
    assert!(ready.server.json(&show)["receiver"]["held"].is_null());
}

#[test]
fn what_failed_is_said_in_plain_words() {
    let ready = Ready::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    let (refusing, _first) = receiver(Some(
        "HTTP/1.1 401 No\r\ncontent-length: 13\r\n\r\nbad signature",
    ));
    let (missing, _second) = receiver(Some("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"));
    let (chatty, _third) = receiver(Some("220 mail.example ESMTP\r\n"));
    let (silent, _fourth) = receiver(None);
    let (dumb, _fifth) = receiver(None);
    let plain = greeter();
    let quick = &["--preset", "kore", "--timeout-per-attempt", "1s"][..];
    let hasty = &["--timeout-per-attempt", "30s", "--connect-timeout", "1s"][..];
    for (url, said) in [
        (
            nobody,
            &[
                "not connected (connect)",
                "check that the server is running",
            ],
        ),
        (
            format!("http://{refusing}/"),
            &[
                "connected, but not accepted: the receiver answered 401 and said \"bad signature\"",
                "look whether it holds secret",
            ],
        ),
        (
            format!("http://{missing}/"),
            &[
                "connected, but not accepted: the receiver answered 404",
                "check the path",
            ],
        ),
        (
            format!("http://{chatty}/"),
            &[
                "connected, but there was no answer that can be read (bad_response)",
                "speaks HTTP",
            ],
        ),
        (
            format!("http://{silent}/"),
            &[
                "connected, but there was no answer that can be read (timeout)",
                "1000 ms",
            ],
        ),
        (
            format!("https://{plain}/"),
            &["not connected (tls)", "certificate"],
        ),
        (
            format!("https://{dumb}/"),
            &[
                "not connected (connect_timeout)",
                "did not end the TLS handshake",
            ],
        ),
    ] {
        // Far from the deadline of the whole exchange, so that it is plain which of them ends it.
        let connecting = said[0].contains("connect_timeout");
        let within = if connecting { hasty } else { quick };
        let tested = test(&ready, &url, within);
        assert_eq!(tested.code, 22, "{url}: {tested:?}");
        for part in said {
            assert!(tested.out.contains(part), "{url}: {tested:?}");
        }
    }
}

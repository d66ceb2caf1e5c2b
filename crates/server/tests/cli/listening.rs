//! `listen`: a receiver that is told apart from a careless one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use crate::support::{Place, SECRETS};

const BODY: &str = "{\"a\": 1}";

/// A listener that is killed when the test ends, whatever happens.
struct Listening {
    child: Child,
    address: String,
}

impl Listening {
    fn start(place: &Place, more: &[&str]) -> Self {
        let mut child = place
            .command()
            .args(["listen", "--port", "0", "--json"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut hints = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = hints
            .find_map(|line| {
                line.unwrap()
                    .strip_prefix("listening on http://")
                    .map(str::to_owned)
            })
            .unwrap();
        Self { child, address }
    }

    /// Sends a request and returns its status line.
    fn send(&self, headers: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let head = format!(
            "POST /hook?x=1 HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A receiver may answer and close before it has read everything.
        let _ = stream.write_all(body);
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits for the end; returns the exit code and the lines that were printed.
    fn end(mut self) -> (i32, Vec<serde_json::Value>) {
        let mut text = String::new();
        let mut out = self.child.stdout.take().unwrap();
        out.read_to_string(&mut text).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        (
            code,
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
        )
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signed(place: &Place, secret: usize) -> String {
    place.file("body", BODY);
    let secrets = place.secrets(&[secret]);
    let headers = place
        .run(&[
            "sign",
            "--scheme",
            "standard",
            "--secret-file",
            secrets,
            "--file",
            "body",
        ])
        .done();
    headers.lines().flat_map(|line| [line, "\r\n"]).collect()
}

#[test]
fn a_signed_request_is_accepted_and_a_tampered_one_refused() {
    let place = Place::new();
    let headers = signed(&place, 1) + "authorization: Bearer planted\r\n";
    let secrets = place.secrets(&[0, 1]);
    let listening = Listening::start(&place, &["--secret-file", secrets, "--count", "2"]);
    assert_eq!(
        listening.send(&headers, BODY.as_bytes()),
        "HTTP/1.1 204 No Content"
    );
    assert_eq!(
        listening.send(&headers, b"{\"a\": 2}"),
        "HTTP/1.1 401 Unauthorized"
    );
    let (code, lines) = listening.end();
    assert_eq!(code, 20, "one of them was not valid");
    assert_eq!(lines[0]["secret"], "second");
    assert_eq!(lines[0]["body"], BODY);
    assert_eq!(lines[0]["target"], "/hook?x=1");
    assert_eq!(lines[1]["reason"], "no_match");
    assert_eq!(lines[1]["answered"], 401);
    let printed = serde_json::to_string(&lines).unwrap();
    assert!(
        !printed.contains("planted") && !printed.contains(SECRETS[1].1),
        "{printed}"
    );
}

#[test]
fn an_unfit_request_is_answered_and_does_not_end_the_listener() {
    let place = Place::new();
    let headers = signed(&place, 0);
    let listening = Listening::start(&place, &["--secret-file", "secrets", "--count", "1"]);
    let large = vec![b' '; 1024 * 1024 + 1];
    assert_eq!(
        listening.send(&headers, &large),
        "HTTP/1.1 413 Payload Too Large"
    );
    let many = "x-a: b\r\n".repeat(200);
    assert!(listening.send(&many, b"").starts_with("HTTP/1.1 431"));
    assert_eq!(
        listening.send(&headers, BODY.as_bytes()),
        "HTTP/1.1 204 No Content"
    );
    let (code, lines) = listening.end();
    assert_eq!((code, lines.len()), (0, 1));
}

#[test]
fn an_answer_can_be_chosen_and_nothing_verified() {
    let place = Place::new();
    let listening = Listening::start(&place, &["--answer", "503", "--count", "1"]);
    assert_eq!(listening.send("", b"x"), "HTTP/1.1 503 Service Unavailable");
    let (code, lines) = listening.end();
    assert_eq!(code, 0);
    assert!(lines[0]["valid"].is_null());
}

#[test]
fn an_occupied_port_has_the_exit_code_of_an_address_and_one_sentence() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = place.run(&["listen", "--port", &port]).refused(15);
    assert!(
        said.starts_with(&format!("error: cannot listen on 127.0.0.1:{port}")),
        "nothing is said before the refusal: {said}"
    );
    assert!(said.contains("--port"), "{said}");
    let help = place.run(&["listen", "--help"]).done();
    assert!(
        help.contains("15  the address cannot be listened on"),
        "{help}"
    );
}

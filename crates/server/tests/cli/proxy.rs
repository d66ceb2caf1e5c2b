//! A road to the server on which an answer gets lost.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

/// One HTTP message: its head, and as much body as that announces.
fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut stream = BufReader::new(stream);
    let (mut message, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        message.extend_from_slice(line.as_bytes());
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(announced) = line.strip_prefix("content-length: ") {
            length = announced.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    message.extend_from_slice(&body);
    message
}

/// Passes two requests on, and swallows the answer of the first. Returns its URL and, when both have
/// come, their Idempotency-Keys.
pub(crate) fn losing_the_first_answer(server: &str) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let upstream = server.trim_start_matches("http://").to_owned();
    let passing = std::thread::spawn(move || {
        let pass = |swallow: bool| {
            let (mut client, _) = listener.accept().unwrap();
            let request = read_message(&mut client);
            let mut server = TcpStream::connect(&upstream).unwrap();
            server.write_all(&request).unwrap();
            let answer = read_message(&mut server);
            if !swallow {
                client.write_all(&answer).unwrap();
            }
            let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
            let key = head
                .lines()
                .find_map(|line| line.strip_prefix("idempotency-key: "));
            key.unwrap_or_default().to_owned()
        };
        vec![pass(true), pass(false)]
    });
    (url, passing)
}

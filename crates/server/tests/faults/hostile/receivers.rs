//! The gallery of receivers that no sender wants to meet.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::support::receiver::{Receiver, read_request};

/// One of them: where it is, and the failure kinds or statuses an attempt there may end with.
pub(super) struct Hostile {
    pub(super) name: &'static str,
    pub(super) url: String,
    pub(super) ends: &'static [&'static str],
    _receiver: Receiver,
}

const TEN_GIB: u64 = 10 * 1024 * 1024 * 1024;
/// How often a dripping receiver sends one byte.
const DRIP: Duration = Duration::from_secs(1);

/// All of them, and the certificates that the server is to trust, as PEM.
pub(super) async fn gallery() -> (Vec<Hostile>, String) {
    let mut all = vec![
        hostile("never answers", &["timeout"], |mut stream| async move {
            until_closed(&mut stream).await;
        })
        .await,
        hostile("1 byte/s head", &["timeout"], |mut stream| async move {
            request(&mut stream).await;
            drip(&mut stream, b"HTTP/1.1 200 OK\r\nx-slow: zzzzzzzz").await;
        })
        .await,
        hostile("1 byte/s body", &["timeout"], |mut stream| async move {
            request(&mut stream).await;
            write(
                &mut stream,
                b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
            )
            .await;
            drip(&mut stream, b"z").await;
        })
        .await,
        hostile("10 GiB body", &["200"], |mut stream| async move {
            request(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {TEN_GIB}\r\n\r\n");
            write(&mut stream, head.as_bytes()).await;
            flood(&mut stream, &[b'z'; 65_536], TEN_GIB).await;
        })
        .await,
        hostile(
            "1 MiB headers",
            &["head_too_large"],
            |mut stream| async move {
                request(&mut stream).await;
                write(&mut stream, b"HTTP/1.1 200 OK\r\n").await;
                let line = format!("x-long: {}\r\n", "z".repeat(1_000));
                flood(&mut stream, line.as_bytes(), 1_048_576).await;
                until_closed(&mut stream).await;
            },
        )
        .await,
        hostile("1xx flood", &["bad_response"], |mut stream| async move {
            request(&mut stream).await;
            let block = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(100);
            flood(&mut stream, block.as_bytes(), TEN_GIB).await;
        })
        .await,
        hostile("gzip bomb", &["200"], |mut stream| async move {
            request(&mut stream).await;
            let head =
                b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n";
            write(&mut stream, head).await;
            // A stored gzip head, then the repeating block that a long run of zeros packs into.
            let mut chunk = b"1000\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec();
            chunk.resize(6 + 0x1000, 0);
            chunk.extend_from_slice(b"\r\n");
            flood(&mut stream, &chunk, TEN_GIB).await;
        })
        .await,
        hostile("reset mid-body", &["reset"], |mut stream| async move {
            request(&mut stream).await;
            write(
                &mut stream,
                b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nabc",
            )
            .await;
        })
        .await,
    ];
    all.push(redirect_chain().await);
    let (wrong, roots) = tls("TLS with a wrong name", &["tls"], "wrong.example").await;
    all.push(wrong);
    // The control: the same with the right name, so that it is the name that was wrong.
    let (right, more_roots) = tls("TLS with the right name", &["204"], "127.0.0.1").await;
    all.push(right);
    (all, roots + &more_roots)
}

async fn hostile<F, B>(name: &'static str, ends: &'static [&'static str], behave: F) -> Hostile
where
    F: Fn(TcpStream) -> B + Send + Sync + 'static,
    B: Future<Output = ()> + Send + 'static,
{
    let receiver = Receiver::raw(behave).await;
    Hostile {
        name,
        url: receiver.url(),
        ends,
        _receiver: receiver,
    }
}

/// Redirects to itself for ever: whoever follows never ends.
async fn redirect_chain() -> Hostile {
    hostile("redirect chain", &["302"], |mut stream| async move {
        let to = stream.local_addr().unwrap();
        let mut buffer = Vec::new();
        while let Ok(Some(_)) = read_request(&mut stream, &mut buffer).await {
            let answer = format!(
                "HTTP/1.1 302 Found\r\nlocation: http://{to}/again\r\ncontent-length: 0\r\n\r\n"
            );
            write(&mut stream, answer.as_bytes()).await;
        }
    })
    .await
}

/// TLS with a certificate for this host, which is the second, as PEM.
pub(super) fn acceptor(host: &str) -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

/// Answers 204 over TLS with a certificate for `name`; the certificate as PEM.
async fn tls(name: &'static str, ends: &'static [&'static str], host: &str) -> (Hostile, String) {
    let (acceptor, root) = acceptor(host);
    let mut one = hostile(name, ends, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut buffer = Vec::new();
            while let Ok(Some(_)) = read_request(&mut stream, &mut buffer).await {
                let _broken = stream.write_all(b"HTTP/1.1 204 Fine\r\n\r\n").await;
            }
        }
    })
    .await;
    one.url = one.url.replace("http://", "https://");
    (one, root)
}

async fn request(stream: &mut TcpStream) {
    let _request = read_request(stream, &mut Vec::new()).await;
}

/// Writes as far as the sender lets it.
async fn write(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).await.is_ok()
}

async fn flood(stream: &mut TcpStream, block: &[u8], total: u64) {
    let mut sent = 0;
    while sent < total && write(stream, block).await {
        sent += block.len() as u64;
    }
}

async fn drip(stream: &mut TcpStream, bytes: &[u8]) {
    let mut ticks = tokio::time::interval(DRIP);
    for byte in bytes.iter().cycle() {
        ticks.tick().await;
        if !write(stream, &[*byte]).await {
            return;
        }
    }
}

async fn until_closed(stream: &mut TcpStream) {
    let _bytes = tokio::io::copy(stream, &mut tokio::io::sink()).await;
}

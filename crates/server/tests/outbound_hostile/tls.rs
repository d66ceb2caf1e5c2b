//! Certificates, versions, and HTTP/2 by negotiation.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hookturn::outbound::{Client, Exchange, FailureKind, Request, RetryAfter, Sending};
use hookturn_core::limits::{RESPONSE_BODY_BYTES, RESPONSE_HEADERS};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::support::{
    Answers, Receiver, answer, config, event, failure, flood, loopback, receiver, request, send,
    send_with,
};

/// A self-signed certificate for one name: the text to trust, and an acceptor that uses it.
fn identity(name: &str, protocols: &[&str]) -> (String, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    (made.cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

fn client(root: Option<&str>) -> Client {
    let resolver = Answers::new(&[&["127.0.0.1"]]);
    Client::new(Arc::new(config(loopback(), resolver, root)))
}

fn url<T>(name: &str, receiver: &Receiver<T>) -> String {
    format!("https://{name}:{}/hook", receiver.address.port())
}

/// A request whose handshake may take as long as a busy machine makes it.
fn patient(url: &str) -> Request {
    Request {
        timeout_millis: 20_000,
        connect_timeout_millis: 20_000,
        sending: Sending::AtLeastOnce,
        ..request(url)
    }
}

/// Answers with the protocol's version and the authority; reports how many requests it served.
async fn polite(acceptor: TlsAcceptor) -> Receiver<usize> {
    receiver(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(tls) = acceptor.accept(stream).await else {
                return 0;
            };
            let requests = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&requests);
            let service = service_fn(move |request: http::Request<Incoming>| {
                counter.fetch_add(1, Ordering::Relaxed);
                let host = match request.uri().authority() {
                    Some(authority) => authority.as_str().to_owned(),
                    None => request.headers()["host"].to_str().unwrap().to_owned(),
                };
                let text = format!("{:?} {host}", request.version());
                async move { Ok::<_, Infallible>(http::Response::new(text)) }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // A client that leaves is how every connection here ends.
            let _ = server.serve_connection(TokioIo::new(tls), service).await;
            requests.load(Ordering::Relaxed)
        }
    })
    .await
}

#[tokio::test]
async fn http2_is_negotiated_and_its_connection_shared() {
    let (root, acceptor) = identity("receiver.example", &["h2", "http/1.1"]);
    let mut receiver = polite(acceptor).await;
    let client = client(Some(&root));
    let url = url("receiver.example", &receiver);
    let first = send(&client, request(&url)).await;
    assert!(!first.reused);
    assert!(first.timings.dns.is_some() && first.timings.tls.is_some());
    let expected = format!("HTTP/2.0 receiver.example:{}", receiver.address.port());
    assert_eq!(answer(first).body, expected);
    let (one, two) = tokio::join!(send(&client, request(&url)), send(&client, request(&url)));
    assert!(one.reused && two.reused);
    assert_eq!(answer(one).body, expected);
    assert_eq!(answer(two).body, expected);
    assert_eq!(client.idle_connections(), 1);
    drop(client);
    assert_eq!(event(&mut receiver.finished).await, 3);
}

#[tokio::test]
async fn http1_is_used_where_the_receiver_has_nothing_else() {
    for protocols in [&["http/1.1"] as &[&str], &[]] {
        let (root, acceptor) = identity("receiver.example", protocols);
        let mut receiver = polite(acceptor).await;
        let client = client(Some(&root));
        let url = url("receiver.example", &receiver);
        for round in 0..3 {
            let exchange = send(&client, request(&url)).await;
            assert_eq!(exchange.reused, round > 0);
            let expected = format!("HTTP/1.1 receiver.example:{}", receiver.address.port());
            assert_eq!(answer(exchange).body, expected);
        }
        drop(client);
        assert_eq!(event(&mut receiver.finished).await, 3);
    }
}

/// Python's `http.server` over TLS answers like this: the end of the connection is the end of the body, and
/// TLS does not say good-bye.
#[tokio::test]
async fn a_receiver_that_leaves_without_the_farewell_of_tls_is_judged_by_its_status() {
    let (root, acceptor) = identity("receiver.example", &[]);
    let server = receiver(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut tls = acceptor.accept(stream).await.unwrap();
            let mut head = [0; 4096];
            let _read = tls.read(&mut head).await.unwrap();
            tls.write_all(b"HTTP/1.0 200 OK\r\n\r\nok").await.unwrap();
            tls.flush().await.unwrap();
            let (mut tcp, _session) = tls.into_inner();
            tcp.shutdown().await.unwrap();
        }
    })
    .await;
    let exchange = send(
        &client(Some(&root)),
        patient(&url("receiver.example", &server)),
    )
    .await;
    let answered = answer(exchange);
    assert_eq!((answered.status, answered.body.as_ref()), (200, &b"ok"[..]));
}

#[tokio::test]
async fn g10_a_certificate_for_another_name_is_refused() {
    let (root, acceptor) = identity("other.example", &["h2"]);
    let mut receiver = polite(acceptor).await;
    let url = url("receiver.example", &receiver);
    let failure = failure(
        send(&client(Some(&root)), request(&url)).await,
        FailureKind::Tls,
    );
    assert!(failure.detail.contains("receiver.example"), "{failure}");
    assert_eq!(event(&mut receiver.finished).await, 0);
}

#[tokio::test]
async fn g10_a_certificate_nobody_vouches_for_is_refused() {
    let (_, acceptor) = identity("receiver.example", &["h2"]);
    let mut receiver = polite(acceptor).await;
    let url = url("receiver.example", &receiver);
    failure(send(&client(None), request(&url)).await, FailureKind::Tls);
    assert_eq!(event(&mut receiver.finished).await, 0);
}

#[tokio::test]
async fn g10_tls_1_0_and_1_1_are_refused() {
    for minor in [1, 2] {
        let receiver = receiver(move |mut stream: TcpStream| async move {
            let mut hello = [0; 4_096];
            assert!(stream.read(&mut hello).await.unwrap() > 0);
            // A server hello of this version: random, no session, ECDHE-RSA-AES128-SHA.
            let mut body = vec![3, minor];
            body.extend_from_slice(&[7; 32]);
            body.extend_from_slice(&[0, 0xc0, 0x13, 0]);
            let length = u8::try_from(body.len()).unwrap();
            let mut record = vec![22, 3, minor, 0, length + 4, 2, 0, 0, length];
            record.extend(body);
            stream.write_all(&record).await.unwrap();
            super::support::until_closed(&mut stream).await;
        })
        .await;
        let url = url("receiver.example", &receiver);
        let failure = failure(send(&client(None), request(&url)).await, FailureKind::Tls);
        assert!(failure.detail.contains("incompatible"), "{failure}");
    }
}

#[tokio::test]
async fn g10_a_handshake_that_never_ends_is_within_the_deadline() {
    let mut silent = receiver(async |mut stream: TcpStream| {
        super::support::until_closed(&mut stream).await;
    })
    .await;
    let mut slow = request(&url("receiver.example", &silent));
    slow.connect_timeout_millis = 100;
    let exchange = send(&client(None), slow).await;
    let failure = failure(exchange, FailureKind::ConnectTimeout);
    assert!(failure.detail.contains("TLS handshake"), "{failure}");
    event(&mut silent.finished).await;
}

/// A client that leaves the arithmetic of handshakes to another runtime, and that runtime.
fn client_beside(root: Option<&str>) -> (Client, tokio::runtime::Runtime) {
    let beside = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let resolver = Answers::new(&[&["127.0.0.1"]]);
    let mut config = config(loopback(), resolver, root);
    config.handshakes = Some(beside.handle().clone());
    (Client::new(Arc::new(config)), beside)
}

#[tokio::test]
async fn handshakes_may_run_beside_the_caller() {
    let (root, acceptor) = identity("receiver.example", &["http/1.1"]);
    let mut receiver = polite(acceptor).await;
    let (client, beside) = client_beside(Some(&root));
    let url = url("receiver.example", &receiver);
    for round in 0..3 {
        let exchange = send(&client, request(&url)).await;
        assert_eq!(exchange.reused, round > 0);
        assert_eq!(answer(exchange).status, 200);
    }
    drop(client);
    assert_eq!(event(&mut receiver.finished).await, 3);
    beside.shutdown_background();
}

#[tokio::test]
async fn g10_a_handshake_beside_the_caller_ends_with_its_exchange() {
    let mut silent = receiver(async |mut stream: TcpStream| {
        super::support::until_closed(&mut stream).await;
    })
    .await;
    let (client, beside) = client_beside(None);
    let mut slow = request(&url("receiver.example", &silent));
    slow.connect_timeout_millis = 100;
    failure(send(&client, slow).await, FailureKind::ConnectTimeout);
    // The receiver sees the connection closed although the client lives on.
    event(&mut silent.finished).await;
    drop(client);
    beside.shutdown_background();
}

#[tokio::test]
async fn g10_plain_http_behind_https_and_floods_instead_of_a_handshake_are_refused() {
    for block in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "\x16\x03\x03\x3f\x00aaaaaaaaa",
    ] {
        let mut receiver = receiver(move |mut stream: TcpStream| async move {
            flood(&mut stream, block.as_bytes(), 1 << 30).await
        })
        .await;
        let url = url("receiver.example", &receiver);
        failure(send(&client(None), request(&url)).await, FailureKind::Tls);
        assert!(event(&mut receiver.finished).await < 64 * 1024 * 1024);
    }
}

/// Answers over HTTP/2 with these headers.
async fn with_headers(count: usize, bytes: usize) -> Exchange {
    let (root, acceptor) = identity("receiver.example", &["h2"]);
    let receiver = receiver(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let tls = acceptor.accept(stream).await.unwrap();
            let service = service_fn(move |_: http::Request<Incoming>| {
                let mut response = http::Response::new("fine".to_owned());
                for n in 0..count {
                    let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
                    let value = http::HeaderValue::try_from("v".repeat(bytes)).unwrap();
                    response.headers_mut().insert(name, value);
                }
                async move { Ok::<_, Infallible>(response) }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(tls), service).await;
        }
    })
    .await;
    let url = url("receiver.example", &receiver);
    send(&client(Some(&root)), patient(&url)).await
}

#[tokio::test]
async fn g10_of_many_headers_over_http2_the_first_are_kept() {
    let few = answer(with_headers(60, 1).await);
    assert!(!few.headers_truncated);
    assert!(!few.headers.contains_key("hookturn-head"));
    for (count, bytes, kept) in [
        (100, 1, RESPONSE_HEADERS),
        (90, 30, RESPONSE_HEADERS),
        (1_500, 10, RESPONSE_HEADERS),
        (500, 110, 0),
        (6, 10_000, 0),
        (1, 60_000, 0),
    ] {
        let response = answer(with_headers(count, bytes).await);
        assert_eq!((response.status, &response.body[..]), (200, &b"fine"[..]));
        assert!(response.headers_truncated, "{count} of {bytes}");
        assert!(!response.headers.contains_key("hookturn-head"));
        let ours = response
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-"));
        let ours = ours.count();
        assert!(
            ours <= RESPONSE_HEADERS && ours + 2 >= kept,
            "{ours} of {count}"
        );
    }
}

#[tokio::test]
async fn g10_a_head_over_http2_that_is_larger_than_is_read_is_its_own_kind_of_failure() {
    for (count, bytes) in [(1_000, 100), (20, 5_000), (1, 100_000), (10, 60_000)] {
        let failure = failure(with_headers(count, bytes).await, FailureKind::HeadTooLarge);
        assert!(failure.detail.contains("64 KiB"), "{failure}");
    }
}

/// A receiver of raw frames: what it sends for the first request, in stream 1, and then nothing.
async fn of_frames(frames: Vec<u8>) -> Exchange {
    let (root, acceptor) = identity("receiver.example", &["h2"]);
    let receiver = receiver(move |stream| {
        let (acceptor, frames) = (acceptor.clone(), frames.clone());
        async move {
            let mut tls = acceptor.accept(stream).await.unwrap();
            tls.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            let mut preface = [0; 24];
            tls.read_exact(&mut preface).await.unwrap();
            loop {
                let mut start = [0; 9];
                tls.read_exact(&mut start).await.unwrap();
                let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
                let mut payload = vec![0; length as usize];
                tls.read_exact(&mut payload).await.unwrap();
                if start[3] == 1 {
                    break;
                }
            }
            // The client may have seen enough before all of it is written.
            let _cut_off = tls.write_all(&frames).await;
            let _cut_off = tls.flush().await;
            let mut rest = [0; 1_024];
            while matches!(tls.read(&mut rest).await, Ok(1..)) {}
        }
    })
    .await;
    let url = url("receiver.example", &receiver);
    send(&client(Some(&root)), patient(&url)).await
}

/// A frame of stream 1.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

#[tokio::test]
async fn informational_responses_over_http2_are_skipped() {
    let early = frame(1, 4, b"\x08\x03103\x00\x04link\x04</a>");
    let last = frame(1, 5, b"\x08\x03202\x0f\x26\x03120");
    let response = answer(of_frames([early.repeat(5), last].concat()).await);
    assert_eq!(response.status, 202);
    assert_eq!(response.retry_after, Some(RetryAfter::Seconds(120)));
    assert!(!response.headers_truncated);
}

#[tokio::test]
async fn g10_what_is_not_http2_is_a_bad_response() {
    let endless = frame(1, 4, b"\x08\x03103").repeat(40_000);
    let continued = [frame(1, 0, b"\x88"), frame(9, 0, b"").repeat(40_000)].concat();
    for (name, frames, words) in [
        ("informational responses without end", endless, "more bytes"),
        ("a push", frame(5, 4, &[0, 0, 0, 2, 0x82]), "told is off"),
        (
            "a head that ends within a field",
            frame(1, 4, b"\x88\x00\x05na"),
            "not valid HTTP/2",
        ),
        (
            "a head without a status",
            frame(1, 4, b"\x00\x01x\x01y"),
            "not valid HTTP/2",
        ),
    ] {
        let failure = failure(of_frames(frames).await, FailureKind::BadResponse);
        assert!(failure.detail.contains(words), "{name}: {failure}");
    }
    failure(of_frames(continued).await, FailureKind::HeadTooLarge);
}

#[tokio::test]
async fn g10_an_endless_body_over_http2_is_not_read() {
    let (root, acceptor) = identity("receiver.example", &["h2"]);
    let offered = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&offered);
    let receiver = receiver(move |stream| {
        let (acceptor, offered) = (acceptor.clone(), Arc::clone(&counter));
        async move {
            let tls = acceptor.accept(stream).await.unwrap();
            let service = service_fn(move |_: http::Request<Incoming>| {
                let offered = Arc::clone(&offered);
                let blocks = futures_util::stream::repeat_with(move || {
                    offered.fetch_add(4_096, Ordering::Relaxed);
                    Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'z'; 4_096])))
                });
                async move { Ok::<_, Infallible>(http::Response::new(StreamBody::new(blocks))) }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(tls), service).await;
        }
    })
    .await;
    let client = client(Some(&root));
    let url = url("receiver.example", &receiver);
    for round in 0..3 {
        let exchange = send(&client, request(&url)).await;
        assert_eq!(exchange.reused, round > 0);
        let response = answer(exchange);
        assert!(response.truncated);
        assert_eq!(response.body.len(), RESPONSE_BODY_BYTES);
    }
    // Windows and the server's own buffers, three times; nothing near endless.
    assert!(offered.load(Ordering::Relaxed) < 16 * 1024 * 1024);
}

#[tokio::test]
async fn g4_headers_are_made_when_the_handshake_is_over() {
    for protocol in ["h2", "http/1.1"] {
        let (root, acceptor) = identity("receiver.example", &[protocol]);
        let made = Arc::new(AtomicUsize::new(0));
        let before = Arc::clone(&made);
        let mut receiver = receiver(move |stream: TcpStream| {
            let (acceptor, made) = (acceptor.clone(), Arc::clone(&before));
            async move {
                // The greeting is here; the client waits for ours.
                stream.readable().await.unwrap();
                let early = made.load(Ordering::SeqCst);
                let mut tls = acceptor.accept(stream).await.unwrap();
                let mut first = [0; 1];
                tls.read_exact(&mut first).await.unwrap();
                early
            }
        })
        .await;
        let client = client(Some(&root));
        let url = url("receiver.example", &receiver);
        send_with(&client, patient(&url), || {
            made.fetch_add(1, Ordering::SeqCst);
            http::HeaderMap::new()
        })
        .await;
        assert_eq!(event(&mut receiver.finished).await, 0, "{protocol}");
        assert_eq!(made.load(Ordering::SeqCst), 1, "{protocol}");
    }
}

/// A receiver that allows one stream at a time, and answers when another one has begun as well.
#[tokio::test]
async fn g4_a_request_never_waits_for_another_ones_stream() {
    let (root, acceptor) = identity("receiver.example", &["h2"]);
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let alone = Arc::new(AtomicUsize::new(1));
    let (meeting, first) = (Arc::clone(&both), Arc::clone(&alone));
    let receiver = receiver(move |stream| {
        let (acceptor, both, alone) = (acceptor.clone(), Arc::clone(&meeting), Arc::clone(&first));
        async move {
            let tls = acceptor.accept(stream).await.unwrap();
            let service = service_fn(move |_: http::Request<Incoming>| {
                let (both, alone) = (Arc::clone(&both), Arc::clone(&alone));
                async move {
                    if alone.swap(0, Ordering::SeqCst) == 0 {
                        both.wait().await;
                    }
                    Ok::<_, Infallible>(http::Response::new(String::new()))
                }
            });
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.max_concurrent_streams(1);
            let _ = server.serve_connection(TokioIo::new(tls), service).await;
        }
    })
    .await;
    let client = client(Some(&root));
    let url = url("receiver.example", &receiver);
    // The receiver's settings have arrived when its first answer has.
    answer(send(&client, patient(&url)).await);
    for round in 0..3 {
        let (one, two) = tokio::join!(send(&client, patient(&url)), send(&client, patient(&url)));
        assert_eq!((one.reused, two.reused), (true, round > 0));
        assert_eq!((answer(one).status, answer(two).status), (200, 200));
        assert_eq!(client.idle_connections(), 2);
    }
}

#[tokio::test]
async fn a_stream_that_the_receiver_refuses_is_sent_again_once() {
    let (root, acceptor) = identity("receiver.example", &["h2"]);
    // Serves one request on each connection and refuses the rest, as a draining server does.
    let receiver = receiver(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let tls = acceptor.accept(stream).await.unwrap();
            let mut connection = h2::server::handshake(tls).await.unwrap();
            let mut served = 0;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                if served > 0 {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                } else {
                    let mut response = http::Response::new(());
                    let made = request.headers()["made"].clone();
                    response.headers_mut().insert("made", made);
                    respond.send_response(response, true).unwrap();
                }
                served += 1;
            }
        }
    })
    .await;
    let client = client(Some(&root));
    let url = url("receiver.example", &receiver);
    let mut made = 0;
    for round in 0..3 {
        let exchange = send_with(&client, request(&url), || {
            made += 1;
            [(http::HeaderName::from_static("made"), made.into())]
                .into_iter()
                .collect()
        })
        .await;
        assert!(!exchange.reused);
        let response = answer(exchange);
        assert_eq!(response.status, 200);
        // What was refused is not sent again as it was: its headers are made anew.
        assert_eq!(response.headers["made"], (2 * round + 1).to_string());
    }
}

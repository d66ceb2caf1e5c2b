//! Kept-alive connections: used again, and given up without harm.

use std::cell::Cell;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hookturn::outbound::{Client, FailureKind, Request, Sending};
use http::HeaderMap;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{
    Answers, answer, client, config, event, failure, loopback, plain, read_request, receiver,
    request, send, send_with, until_closed,
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers `count` requests on a connection, then closes it; reports how many it read.
async fn answering(count: usize) -> super::support::Receiver<usize> {
    receiver(move |mut stream: TcpStream| async move {
        for served in 0..count {
            if read_request(&mut stream).await.is_none() {
                return served;
            }
            stream.write_all(OK).await.unwrap();
        }
        count
    })
    .await
}

#[tokio::test]
async fn keep_alive_connections_are_used_again() {
    let mut receiver = answering(5).await;
    let client = client();
    for round in 0..5 {
        let exchange = send(&client, request(&receiver.url())).await;
        assert_eq!(exchange.reused, round > 0);
        assert_eq!(exchange.timings.connect.is_some(), round == 0);
        assert_eq!(exchange.remote, Some(receiver.address));
        assert_eq!(&answer(exchange).body[..], b"ok");
    }
    assert_eq!(event(&mut receiver.finished).await, 5);
}

#[tokio::test]
async fn concurrent_exchanges_have_a_connection_each_and_all_are_kept() {
    let receiver = answering(2).await;
    let client = client();
    let both = || async {
        let (one, two) = tokio::join!(
            send(&client, request(&receiver.url())),
            send(&client, request(&receiver.url()))
        );
        (one.reused, two.reused)
    };
    assert_eq!(both().await, (false, false));
    assert_eq!(client.idle_connections(), 2);
    assert_eq!(both().await, (true, true));
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_costs_a_new_one_and_no_request() {
    let mut receiver = answering(1).await;
    let client = client();
    let mut made = 0;
    for round in 1..=3 {
        let count = || {
            made += 1;
            HeaderMap::new()
        };
        let exchange = send_with(&client, request(&receiver.url()), count).await;
        assert!(!exchange.reused);
        assert_eq!(answer(exchange).status, 200);
        assert_eq!(
            made, round,
            "nothing is signed for a connection that is gone"
        );
        // The receiver has closed its side when this comes.
        assert_eq!(event(&mut receiver.finished).await, 1);
    }
}

#[tokio::test]
async fn g3_a_request_without_headers_does_not_leave() {
    let mut receiver = answering(2).await;
    let client = client();
    for round in 0..2 {
        answer(send(&client, request(&receiver.url())).await);
        // Over a kept connection, then over a new one.
        for _ in 0..2 {
            let refused = client
                .send(request(&receiver.url()), || Err("no key"))
                .await;
            assert_eq!(refused.unwrap_err(), "no key");
        }
        assert_eq!(event(&mut receiver.finished).await, 1, "{round}");
        assert_eq!(event(&mut receiver.finished).await, 0, "{round}");
    }
}

/// How a receiver meets a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Answers,
    /// Reads it and closes, although it said nothing of that.
    Closes,
    /// Resets the connection, whether it has read the request or not.
    Resets,
    /// Begins an answer and closes.
    Begins,
    /// Reads it and says nothing.
    IsSilent,
}

/// Meets the requests of its first connection in the first ways, those of the second in the second, and so
/// on with the last; reports how many of them it read.
async fn in_ways(ways: &'static [&'static [Way]]) -> super::support::Receiver<Vec<String>> {
    let count = Arc::new(AtomicUsize::new(0));
    receiver(move |mut stream: TcpStream| {
        let n = count.fetch_add(1, Ordering::SeqCst).min(ways.len() - 1);
        async move {
            let mut read = Vec::new();
            for way in ways[n] {
                if *way == Way::Resets {
                    // Closing over unread bytes makes the kernel send a reset.
                    stream.readable().await.unwrap();
                    return read;
                }
                let Some(request) = read_request(&mut stream).await else {
                    return read;
                };
                read.push(request);
                match way {
                    Way::Answers => stream.write_all(OK).await.unwrap(),
                    Way::Begins => stream.write_all(b"HTTP/1.1 2").await.unwrap(),
                    Way::IsSilent => until_closed(&mut stream).await,
                    Way::Closes | Way::Resets => {}
                }
            }
            read
        }
    })
    .await
}

/// Each request of a client with its number.
fn numbered(made: &Cell<u32>) -> HeaderMap {
    made.set(made.get() + 1);
    let number = http::HeaderName::from_static("made");
    [(number, made.get().into())].into_iter().collect()
}

fn numbers(requests: &[String]) -> Vec<u32> {
    let line = |request: &String| {
        let mut lines = request.lines();
        let line = lines.find_map(|line| line.strip_prefix("made: ")).unwrap();
        line.parse().unwrap()
    };
    requests.iter().map(line).collect()
}

/// The receiver closed it while it was idle, and the request crossed that on the wire.
#[tokio::test]
async fn a_kept_connection_that_ends_before_its_answer_costs_a_new_one_and_no_request() {
    for (way, read) in [(Way::Closes, vec![1, 2]), (Way::Resets, vec![1])] {
        let mut receiver = match way {
            Way::Closes => in_ways(&[&[Way::Answers, Way::Closes]]).await,
            _ => in_ways(&[&[Way::Answers, Way::Resets]]).await,
        };
        let client = client();
        let made = Cell::new(0);
        let first = send_with(&client, request(&receiver.url()), || numbered(&made)).await;
        assert!(!first.resent);
        answer(first);
        let exchange = send_with(&client, request(&receiver.url()), || numbered(&made)).await;
        assert!(exchange.resent && !exchange.reused, "{exchange:?}");
        assert!(exchange.timings.connect.is_some());
        assert_eq!(answer(exchange).status, 200);
        assert_eq!(numbers(&event(&mut receiver.finished).await), read);
        // The new connection is kept as any other, and its request was made anew (G4).
        assert_eq!(client.idle_connections(), 1);
        drop(client);
        assert_eq!(numbers(&event(&mut receiver.finished).await), [3]);
    }
}

#[tokio::test]
async fn g10_a_request_is_sent_at_most_once_more() {
    let mut receiver = in_ways(&[&[Way::Answers, Way::Closes], &[Way::Closes]]).await;
    let client = client();
    answer(send(&client, request(&receiver.url())).await);
    let exchange = send(&client, request(&receiver.url())).await;
    assert!(exchange.resent && !exchange.reused);
    let failure = failure(exchange, FailureKind::Reset);
    for part in ["before it answered", "was sent before"] {
        assert!(failure.detail.contains(part), "{failure}");
    }
    assert_eq!(event(&mut receiver.finished).await.len(), 2);
    assert_eq!(event(&mut receiver.finished).await.len(), 1);
    assert!(receiver.finished.try_recv().is_err(), "it came once more");
    // On a connection that nobody used before, nothing is repeated at all.
    let exchange = send(&client, request(&receiver.url())).await;
    assert!(!exchange.resent);
    self::failure(exchange, FailureKind::Reset);
    assert_eq!(event(&mut receiver.finished).await.len(), 1);
    assert!(receiver.finished.try_recv().is_err(), "it came once more");
}

/// What may not be sent twice takes no connection that may be gone: so it fails only where the receiver does.
#[tokio::test]
async fn a_request_that_goes_at_most_once_has_a_connection_of_its_own() {
    let mut receiver = in_ways(&[
        &[Way::Answers, Way::Closes],
        &[Way::Answers, Way::Answers],
        &[Way::Closes],
        &[Way::Answers],
    ])
    .await;
    let client = client();
    let made = Cell::new(0);
    let url = receiver.url();
    let once = || Request {
        sending: Sending::AtMostOnce,
        ..request(&url)
    };
    // One is kept, which the receiver closes over the next request.
    answer(send_with(&client, request(&receiver.url()), || numbered(&made)).await);
    let exchange = send_with(&client, once(), || numbered(&made)).await;
    assert!(!exchange.reused && !exchange.resent, "{exchange:?}");
    assert_eq!(answer(exchange).status, 200);
    assert_eq!(numbers(&event(&mut receiver.finished).await), [2]);
    assert_eq!(client.idle_connections(), 1, "the one that was kept before");
    // A receiver that ends it without an answer has had it, and is not asked again.
    let exchange = send_with(&client, once(), || numbered(&made)).await;
    assert!(!exchange.reused && !exchange.resent, "{exchange:?}");
    let failure = failure(exchange, FailureKind::Reset);
    assert!(!failure.detail.contains("was sent before"), "{failure}");
    assert_eq!(numbers(&event(&mut receiver.finished).await), [3]);
    assert!(receiver.finished.try_recv().is_err(), "it came once more");
    // Others go on over what is kept.
    let exchange = send_with(&client, request(&receiver.url()), || numbered(&made)).await;
    assert!(exchange.resent, "{exchange:?}");
    assert_eq!(numbers(&event(&mut receiver.finished).await), [1, 4]);
    drop(client);
    assert_eq!(numbers(&event(&mut receiver.finished).await), [5]);
}

#[tokio::test]
async fn g10_a_request_whose_answer_began_is_not_sent_again() {
    let mut receiver = in_ways(&[&[Way::Answers, Way::Begins]]).await;
    let client = client();
    answer(send(&client, request(&receiver.url())).await);
    let exchange = send(&client, request(&receiver.url())).await;
    assert!(exchange.reused && !exchange.resent);
    let failure = exchange.result.unwrap_err();
    assert!(!failure.detail.contains("was sent before"), "{failure}");
    assert_eq!(event(&mut receiver.finished).await.len(), 2);
    assert!(receiver.finished.try_recv().is_err(), "it came once more");
}

#[tokio::test]
async fn g10_what_is_sent_once_more_has_the_same_deadline() {
    let mut receiver = in_ways(&[&[Way::Answers, Way::Closes], &[Way::IsSilent]]).await;
    let client = client();
    answer(send(&client, request(&receiver.url())).await);
    let exchange = send(&client, request(&receiver.url())).await;
    assert!(exchange.resent);
    let failure = failure(exchange, FailureKind::Timeout);
    assert!(failure.detail.contains("was sent before"), "{failure}");
    assert_eq!(event(&mut receiver.finished).await.len(), 2);
    assert_eq!(event(&mut receiver.finished).await.len(), 1);
}

/// The secret was retired in between: nothing more is signed, and what was sent is what happened.
#[tokio::test]
async fn g4_what_may_no_longer_be_signed_is_not_sent_once_more() {
    let mut receiver = in_ways(&[&[Way::Answers, Way::Closes]]).await;
    let client = client();
    let mut made = 0;
    for round in 1..=2 {
        let headers = || {
            made += 1;
            let headers = plain().unwrap_or_default();
            if made > 2 { Err("no key") } else { Ok(headers) }
        };
        let exchange = client
            .send(request(&receiver.url()), headers)
            .await
            .unwrap();
        assert!(!exchange.resent);
        if round == 2 {
            failure(exchange, FailureKind::Reset);
        }
    }
    assert_eq!(event(&mut receiver.finished).await.len(), 2);
    assert_eq!(event(&mut receiver.finished).await.len(), 0);
}

#[tokio::test]
async fn a_receiver_that_announces_its_close_is_believed() {
    for header in ["connection: close", "keep-alive: timeout=1"] {
        let receiver = receiver(move |mut stream: TcpStream| async move {
            read_request(&mut stream).await;
            let response = format!("HTTP/1.1 200 OK\r\n{header}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(response.as_bytes()).await.unwrap();
            until_closed(&mut stream).await;
        })
        .await;
        let client = client();
        answer(send(&client, request(&receiver.url())).await);
        assert_eq!(client.idle_connections(), 0, "{header}");
    }
}

#[tokio::test]
async fn g10_bytes_sent_without_a_request_end_the_connection() {
    let mut receiver = receiver(async |mut stream: TcpStream| {
        read_request(&mut stream).await;
        // A second response, made ready for whoever comes next.
        stream.write_all(&[OK, OK].concat()).await.unwrap();
        until_closed(&mut stream).await;
    })
    .await;
    let client = client();
    for _ in 0..2 {
        let exchange = send(&client, request(&receiver.url())).await;
        assert!(!exchange.reused);
        assert_eq!(&answer(exchange).body[..], b"ok");
    }
    event(&mut receiver.finished).await;
}

#[tokio::test]
async fn g10_idle_connections_are_bounded_per_host_and_in_all() {
    let (one, two) = (answering(9).await, answering(9).await);
    let mut config = config(loopback(), Answers::new(&[]), None);
    config.idle_per_host = 2;
    config.idle_total = 3;
    let client = Client::new(Arc::new(config));
    for (receiver, kept) in [(&one, 2), (&two, 3)] {
        let url = receiver.url();
        tokio::join!(
            send(&client, request(&url)),
            send(&client, request(&url)),
            send(&client, request(&url)),
            send(&client, request(&url)),
        );
        assert_eq!(client.idle_connections(), kept);
    }
}

#[tokio::test]
async fn g10_idle_connections_are_closed_in_time() {
    let mut receiver = answering(9).await;
    let mut config = config(loopback(), Answers::new(&[]), None);
    config.idle_for = Duration::from_millis(50);
    let client = Client::new(Arc::new(config));
    answer(send(&client, request(&receiver.url())).await);
    assert_eq!(client.idle_connections(), 1);
    // The sweep closes it: the receiver sees the end after its one request.
    assert_eq!(event(&mut receiver.finished).await, 1);
    assert_eq!(client.idle_connections(), 0);
}

#[tokio::test]
async fn g10_a_dropped_exchange_closes_its_connection() {
    let mut receiver =
        receiver(async |mut stream: TcpStream| until_closed(&mut stream).await).await;
    let client = client();
    let mut slow = request(&receiver.url());
    slow.timeout_millis = 60_000;
    let abandoned =
        tokio::time::timeout(Duration::from_millis(100), client.send(slow, plain)).await;
    assert!(abandoned.is_err());
    event(&mut receiver.finished).await;
    assert_eq!(client.idle_connections(), 0);
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let mut receiver = receiver(async |mut stream: TcpStream| {
        let received = read_request(&mut stream).await.unwrap();
        stream.write_all(OK).await.unwrap();
        received.len() - received.find("\r\n\r\n").unwrap() - 4
    })
    .await;
    let mut large = request(&receiver.url());
    large.body = vec![b'x'; 256 * 1024].into();
    large.timeout_millis = 10_000;
    answer(send(&client(), large).await);
    assert_eq!(event(&mut receiver.finished).await, 256 * 1024);
}

#[test]
fn sends_from_several_threads_and_from_a_local_set() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let exchange = || async {
        let receiver = answering(1).await;
        let client = client();
        let Ok(exchange) = is_send(client.send(request(&receiver.url()), plain)).await;
        answer(exchange).status
    };
    let many = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    assert_eq!(many.block_on(exchange()), 200);
    let single = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    let task = local.spawn_local(exchange());
    assert_eq!(local.block_on(&single, task).unwrap(), 200);
}

/// Runs the reuse test in a process whose environment names proxies that do not exist.
#[test]
fn g10_proxies_of_the_environment_are_ignored() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "connections::keep_alive_connections_are_used_again",
        ])
        .envs(
            ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"]
                .map(|name| (name, "http://127.0.0.1:1")),
        )
        .env_remove("NO_PROXY")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

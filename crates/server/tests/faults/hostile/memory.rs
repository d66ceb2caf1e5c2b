//! What an attempt takes of the server's memory, over plain HTTP and over TLS: what it grows by from
//! some attempts that wait for their receivers to many more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::ATTEMPT_BYTES;
use super::receivers::acceptor;
use crate::support::process::{Server, Setup};
use crate::support::receiver::{Receiver, read_request};
use crate::support::{app, endpoint, eventually, publish};

/// Endpoints, all at the same receiver: a new one gets four exchanges at once.
const ENDPOINTS: usize = 50;
/// Messages that wait when the first and when the second number is taken.
const MESSAGES: [usize; 2] = [1, 4];
/// Longest time until they all do: without optimisation a handshake takes tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(50);
const DRIP: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum Behaviour {
    NeverAnswers,
    /// Sends as much as is kept of a body but one byte, in one piece, and then goes on byte by byte.
    Drips,
}

async fn behave(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    behaviour: Behaviour,
    waiting: &AtomicUsize,
) {
    let Ok(Some(_)) = read_request(&mut stream, &mut Vec::new()).await else {
        return;
    };
    if let Behaviour::Drips = behaviour {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n";
        let body = [b'z'; 16_000];
        if stream.write_all(&[head, &body[..]].concat()).await.is_err() {
            return;
        }
    }
    let _written = stream.flush().await;
    waiting.fetch_add(1, Ordering::Relaxed);
    let mut ticks = tokio::time::interval(DRIP);
    loop {
        ticks.tick().await;
        let drips = matches!(behaviour, Behaviour::Drips);
        if drips && (stream.write_all(b"z").await.is_err() || stream.flush().await.is_err()) {
            return;
        }
    }
}

/// Bytes that each further attempt takes.
async fn per_attempt(behaviour: Behaviour, with_tls: bool) -> u64 {
    let waiting = Arc::new(AtomicUsize::new(0));
    let (acceptor, root) = acceptor("127.0.0.1");
    let counter = Arc::clone(&waiting);
    let receiver = Receiver::raw(move |stream| {
        let (acceptor, waiting) = (acceptor.clone(), Arc::clone(&counter));
        async move {
            if !with_tls {
                behave(stream, behaviour, &waiting).await;
            } else if let Ok(stream) = acceptor.accept(stream).await {
                Box::pin(behave(stream, behaviour, &waiting)).await;
            }
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, root).unwrap();
    let setup = Setup::new(&dir.path().join("data"));
    let setup = setup.with("HOOKTURN_EXTRA_ROOTS_FILE", roots.to_str().unwrap());
    let server = setup.with("HOOKTURN_LOG", "warn").start().await;
    let api = server.api();
    let app = app(&api).await;
    let mut url = receiver.url();
    if with_tls {
        url = url.replace("http://", "https://");
    }
    let more = json!({"timeoutMillis": 60_000, "connectTimeoutMillis": 60_000});
    for _ in 0..ENDPOINTS {
        endpoint(&api, &app, &url, more.clone()).await;
    }
    let mut taken = Vec::new();
    for messages in MESSAGES {
        for n in waiting.load(Ordering::Relaxed) / ENDPOINTS..messages {
            publish(&api, &app, "memory", json!(n)).await;
        }
        eventually(PATIENCE, "attempts that wait", async || {
            (waiting.load(Ordering::Relaxed) == messages * ENDPOINTS).then_some(())
        })
        .await;
        taken.push(settled(&server).await);
    }
    server.kill().await;
    let more = u64::try_from((MESSAGES[1] - MESSAGES[0]) * ENDPOINTS).unwrap();
    taken[1].saturating_sub(taken[0]) / more
}

/// The memory of the server over two drips: what was sent has arrived by then.
async fn settled(server: &Server) -> u64 {
    let mut ticks = tokio::time::interval(DRIP);
    let mut most = 0;
    for _ in 0..3 {
        ticks.tick().await;
        most = most.max(server.memory());
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g10_a_waiting_attempt_takes_little_memory_with_and_without_tls() {
    for behaviour in [Behaviour::NeverAnswers, Behaviour::Drips] {
        for with_tls in [false, true] {
            let bytes = per_attempt(behaviour, with_tls).await;
            println!("memory: {behaviour:?}, TLS {with_tls}: {bytes} bytes an attempt");
            assert!(bytes > 1_024, "nothing was measured");
            assert!(
                bytes <= ATTEMPT_BYTES,
                "{behaviour:?}, TLS {with_tls}: {bytes} bytes"
            );
        }
    }
}

//! The listener: HTTP/1.1 and HTTP/2 on one port, bounded in time and number, with a graceful end.
//!
//! Whatever a client sends, it gets an answer that says what was wrong: what the router never sees,
//! because HTTP does not allow it, is refused here ([`wire`], [`host_refused`]).

mod complaints;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use futures_util::future::Either;
use hookturn_core::id::Entropy;
use http::header::HOST;
use http::{HeaderMap, Request, Version};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::api;
use crate::api::problem::{Code, Problem};

use complaints::Complaints;
use wire::Wire;

/// Connections that may be open at once; the next one waits in the kernel's queue.
const CONNECTIONS: usize = 10_000;
/// Time a client has to send the headers of a request; for the first one, from connecting.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes.
const HEAD_BYTES: usize = 32 * 1024;
/// Time that requests under way have when the server stops.
const LAST_REQUESTS: Duration = Duration::from_secs(15);
/// Pause after an error of `accept` itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until told to stop, then lets the requests under way finish.
pub(super) async fn accept(
    listener: TcpListener,
    router: Router,
    entropy: Arc<dyn Entropy>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEAD_BYTES)
        // Who has said all and waits for the answer may close its side.
        .half_close(true)
        // One write for an answer. Gathering those of pipelined requests, which hyper offers too,
        // loses them when the next request is not HTTP.
        .writev(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256);
    let builder = Arc::new(builder);
    let service = TowerToHyperService::new(router);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut complaints = Complaints::default();
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            break;
        };
        let stream = tokio::select! {
            _ = stopping.changed() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if let Some(times) = complaints.add(Instant::now()) {
                        tracing::warn!(%error, times, "connections cannot be accepted; they wait");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // Answers are small and complete: they must not wait for more.
        let _ = stream.set_nodelay(true);
        let begun = Arc::new(AtomicBool::new(false));
        let noted = {
            let (service, begun) = (service.clone(), Arc::clone(&begun));
            let entropy = Arc::clone(&entropy);
            service_fn(move |request| {
                begun.store(true, Ordering::Relaxed);
                match host_refused(&request) {
                    None => Either::Left(service.call(request)),
                    Some(problem) => {
                        let path = request.uri().path();
                        let answer = api::refusal(entropy.as_ref(), path, problem);
                        Either::Right(std::future::ready(Ok(answer)))
                    }
                }
            })
        };
        let (wire, remains) = Wire::new(stream);
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(wire), noted)
            .into_owned();
        let mut watched = Box::pin(graceful.watch(connection));
        let entropy = Arc::clone(&entropy);
        tokio::spawn(async move {
            let _permit = permit;
            // The header timeout of the builder starts when it knows the version of HTTP, which a
            // client that sends nothing never tells.
            let first = tokio::time::timeout(HEADER_TIME, &mut watched).await;
            if first.is_err() && begun.load(Ordering::Relaxed) {
                // A client that breaks off is its own affair.
                let _ = watched.as_mut().await;
            }
            drop(watched);
            wire::answer(&remains, entropy.as_ref()).await;
        });
    }
    drop(listener);
    if tokio::time::timeout(LAST_REQUESTS, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some requests did not finish in time and were cut off");
    }
}

/// What RFC 9112 (section 3.2) asks of `Host`: one in every HTTP/1.1 request, never two, and a host in
/// it. Whoever stands before this server chooses by it, so both must read the same.
fn host_refused<B>(request: &Request<B>) -> Option<Problem> {
    let hosts = |headers: &HeaderMap| headers.get_all(HOST).iter().count();
    let said = match (request.version(), hosts(request.headers())) {
        (Version::HTTP_11, 0) => "nothing was done: HTTP/1.1 needs the header Host",
        (_, 2..) => "nothing was done: there is more than one header Host",
        (_, 1) if !names_a_host(request.headers()) => {
            "nothing was done: the header Host is not a host, with or without a port"
        }
        _ => return None,
    };
    Some(Problem::new(Code::MalformedRequest, said))
}

fn names_a_host(headers: &HeaderMap) -> bool {
    headers.get(HOST).is_some_and(|value| {
        // Empty is what a client sends that has no host to name.
        value.is_empty()
            || http::uri::Authority::try_from(value.as_bytes())
                .is_ok_and(|authority| !authority.as_str().contains('@'))
    })
}

//! The listener: HTTP/1.1 and HTTP/2 on one port, bounded in time and number, with a graceful end.
//!
//! Whatever a client sends, it gets an answer that says what was wrong: what the router never sees,
//! because HTTP does not allow it or there is too much of it, is refused here ([`wire`], [`refused`]).

mod complaints;
mod place;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use futures_util::future::Either;
use hookturn_core::id::Entropy;
use hookturn_core::time::Clock;
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
use wire::{End, Wire};

/// Connections that may be open at once; the next one waits in the kernel's queue.
const CONNECTIONS: usize = 10_000;
/// Time a client has to send the headers of a request; for the first one, from connecting.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes.
const HEAD_BYTES: usize = 32 * 1024;
/// Most headers of a request: what the parser of HTTP/1.1 takes.
const HEADERS: usize = 100;
/// Largest head of a request that the parser of HTTP/2 takes, in bytes as RFC 9113 counts them (section
/// 6.5.2). Above [`HEAD_BYTES`], so that what is too large is refused in words; beyond this it gets a
/// bare 431.
const HEAD_H2_BYTES: u32 = 256 * 1024;
/// Time that requests under way have when the server stops.
const LAST_REQUESTS: Duration = Duration::from_secs(15);
/// Pause after an error of `accept` itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What answers need that the router does not make.
#[derive(Clone)]
pub(super) struct Edge(pub(super) Arc<dyn Entropy>, pub(super) Arc<dyn Clock>);

/// Serves connections until told to stop, then lets the requests under way finish.
pub(super) async fn accept(
    listener: TcpListener,
    router: Router,
    edge: Edge,
    mut stopping: watch::Receiver<bool>,
) {
    let builder = Arc::new(builder());
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
        let taken = Arc::new(AtomicUsize::new(0));
        let noted = {
            let (service, taken) = (service.clone(), Arc::clone(&taken));
            let entropy = Arc::clone(&edge.0);
            service_fn(move |request| {
                taken.fetch_add(1, Ordering::Relaxed);
                match refused(&request) {
                    None => Either::Left(service.call(request)),
                    Some(problem) => {
                        let path = request.uri().path();
                        let answer = api::refusal(entropy.as_ref(), path, problem);
                        Either::Right(std::future::ready(Ok(answer)))
                    }
                }
            })
        };
        let (wire, remains) = Wire::new(stream, Arc::clone(&taken));
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(wire), noted)
            .into_owned();
        let mut watched = Box::pin(graceful.watch(connection));
        let edge = edge.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // The header timeout of the builder starts when it knows the version of HTTP, which a
            // client that sends nothing never tells.
            let end = match tokio::time::timeout(HEADER_TIME, &mut watched).await {
                Ok(ended) => end_of(ended),
                Err(_) if taken.load(Ordering::Relaxed) > 0 => end_of(watched.as_mut().await),
                Err(_) => End::TooLate,
            };
            drop(watched);
            wire::answer(&remains, end, &edge).await;
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

fn builder() -> Builder<TokioExecutor> {
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
        .max_concurrent_streams(256)
        .max_header_list_size(HEAD_H2_BYTES);
    builder
}

/// A client that breaks off is its own affair; one that was waited for in vain is told.
fn end_of(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) -> End {
    let error = ended.err();
    let error = error.as_ref().and_then(|error| error.downcast_ref());
    if error.is_some_and(hyper::Error::is_timeout) {
        End::TooLate
    } else {
        End::Other
    }
}

/// Why a request is not for the router, if it is not.
fn refused<B>(request: &Request<B>) -> Option<Problem> {
    host_refused(request).or_else(|| head_refused(request))
}

/// HTTP/1.1 is held to the same by its parser.
fn head_refused<B>(request: &Request<B>) -> Option<Problem> {
    if request.version() != Version::HTTP_2 {
        return None;
    }
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |path| path.as_str().len())
        + uri.authority().map_or(0, |host| host.as_str().len());
    let fields = request.headers().iter();
    // As HTTP/1.1 writes them, each with a colon, a space and the end of its line.
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if target > HEAD_BYTES {
        Some(wire::uri_too_long())
    } else if target + fields > HEAD_BYTES || request.headers().len() > HEADERS {
        Some(wire::head_too_large())
    } else {
        None
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

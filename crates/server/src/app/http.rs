//! The listener: HTTP/1.1 and HTTP/2 on one port, bounded in time and number, with a graceful end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

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
    mut stopping: watch::Receiver<bool>,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEAD_BYTES)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256);
    let builder = Arc::new(builder);
    let service = TowerToHyperService::new(router);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            break;
        };
        let stream = tokio::select! {
            _ = stopping.changed() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be accepted");
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
            service_fn(move |request| {
                begun.store(true, Ordering::Relaxed);
                service.call(request)
            })
        };
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(stream), noted)
            .into_owned();
        let mut watched = Box::pin(graceful.watch(connection));
        tokio::spawn(async move {
            let _permit = permit;
            // The header timeout of the builder starts when it knows the version of HTTP, which a
            // client that sends nothing never tells.
            let first = tokio::time::timeout(HEADER_TIME, &mut watched).await;
            if first.is_err() && begun.load(Ordering::Relaxed) {
                // A client that breaks off is its own affair.
                let _ = watched.await;
            }
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

//! What one keep-alive HTTP/1.1 request costs: Hookturn's client beside hyper's own two.
//!
//! `cargo bench -p hookturn --bench outbound [-- REQUESTS]`. Each client runs on one thread with 64
//! connections against a receiver on another thread that answers `200` with two bytes. CPU time is the
//! client thread's own, from the kernel. The order is repeated, because the machine drifts.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that fails has nothing to hand back"
)]

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookturn::outbound::{
    AddressPolicy, Client, ClientConfig, Request, Sending, SystemResolver, Target,
};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 64;
const REQUESTS: u64 = 200_000;
const ROUNDS: usize = 3;
const BODY: &[u8] = &[b'x'; 256];

fn main() {
    let requests = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(REQUESTS);
    let address = start_receiver();
    println!("{}", machine());
    println!(
        "{requests} requests, {CONNECTIONS} connections, {} byte bodies",
        BODY.len()
    );
    println!(
        "{:<28} {:>12} {:>16}",
        "client", "requests/s", "client CPU µs"
    );
    for _ in 0..ROUNDS {
        report("hookturn outbound", requests, &ours(address, requests));
        report(
            "hyper conn, task each",
            requests,
            &hyper_conn(address, requests),
        );
        report(
            "hyper-util legacy client",
            requests,
            &hyper_legacy(address, requests),
        );
    }
}

/// Wall time and CPU time of one run.
struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn report(name: &str, requests: u64, cost: &Cost) {
    let count = f64::from(u32::try_from(requests).unwrap());
    println!(
        "{name:<28} {:>12.0} {:>16.2}",
        count / cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64() * 1e6 / count
    );
}

fn ours(address: SocketAddr, requests: u64) -> Cost {
    measure(requests, async |budget: Rc<Cell<u64>>| {
        let policy = AddressPolicy {
            allow_nets: vec!["127.0.0.1/32".parse().unwrap()],
            allow_http: true,
        };
        let config = ClientConfig::new(policy, Arc::new(SystemResolver::new()), None).unwrap();
        let client = Rc::new(Client::new(Arc::new(config)));
        let url = format!("http://{address}/hook").parse().unwrap();
        let target = Arc::new(Target::new(&url).unwrap());
        on_connections(|| {
            let (client, target, budget) = (client.clone(), target.clone(), budget.clone());
            async move {
                while take(&budget) {
                    let request = Request {
                        method: http::Method::POST,
                        target: target.clone(),
                        body: Bytes::from_static(BODY),
                        timeout_millis: 15_000,
                        connect_timeout_millis: 5_000,
                        sending: Sending::AtLeastOnce,
                    };
                    let made = || Ok::<_, std::convert::Infallible>(headers());
                    let Ok(exchange) = client.send(request, made).await;
                    assert_eq!(exchange.result.unwrap().status, 200);
                }
            }
        })
        .await;
    })
}

fn hyper_conn(address: SocketAddr, requests: u64) -> Cost {
    measure(requests, async |budget: Rc<Cell<u64>>| {
        on_connections(|| {
            let budget = budget.clone();
            async move {
                let stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream))
                        .await
                        .unwrap();
                tokio::task::spawn_local(connection);
                while take(&budget) {
                    sender.ready().await.unwrap();
                    let mut request = request();
                    request
                        .headers_mut()
                        .insert("host", http::HeaderValue::from_static("receiver"));
                    let sent = sender.send_request(request);
                    let response = tokio::time::timeout(Duration::from_secs(15), sent).await;
                    finish(response.unwrap().unwrap()).await;
                }
            }
        })
        .await;
    })
}

fn hyper_legacy(address: SocketAddr, requests: u64) -> Cost {
    measure(requests, async |budget: Rc<Cell<u64>>| {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        #[expect(
            clippy::disallowed_methods,
            reason = "it is what the outbound client is compared with"
        )]
        let client: legacy::Client<_, Full<Bytes>> =
            legacy::Client::builder(TokioExecutor::new()).build(connector);
        let uri: http::Uri = format!("http://{address}/hook").parse().unwrap();
        on_connections(|| {
            let (client, uri, budget) = (client.clone(), uri.clone(), budget.clone());
            async move {
                while take(&budget) {
                    let mut request = request();
                    *request.uri_mut() = uri.clone();
                    let sent = client.request(request);
                    let response = tokio::time::timeout(Duration::from_secs(15), sent).await;
                    finish(response.unwrap().unwrap()).await;
                }
            }
        })
        .await;
    })
}

/// The headers of a signed delivery.
fn headers() -> http::HeaderMap {
    let mut headers = http::HeaderMap::with_capacity(8);
    for (name, value) in [
        ("content-type", "application/json"),
        ("webhook-id", "msg_0192f3a4b5c6d7e8f9a0b1c2d3e4f5a6"),
        ("webhook-timestamp", "1784505600"),
        (
            "webhook-signature",
            "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
        ),
    ] {
        headers.insert(name, http::HeaderValue::from_static(value));
    }
    headers
}

fn request() -> http::Request<Full<Bytes>> {
    let mut request = http::Request::new(Full::new(Bytes::from_static(BODY)));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("/hook");
    *request.headers_mut() = headers();
    request
}

async fn finish(response: http::Response<hyper::body::Incoming>) {
    assert_eq!(response.status(), 200);
    assert_eq!(response.collect().await.unwrap().to_bytes().len(), 2);
}

/// Takes one request from what is left to send.
fn take(budget: &Cell<u64>) -> bool {
    let left = budget.get();
    budget.set(left.saturating_sub(1));
    left > 0
}

async fn on_connections<F: Future<Output = ()> + 'static>(make: impl Fn() -> F) {
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|_| tokio::task::spawn_local(make()))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Runs `work` on one thread; a tenth of the requests warms it up and is not counted.
fn measure(requests: u64, work: impl AsyncFn(Rc<Cell<u64>>)) -> Cost {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        work(Rc::new(Cell::new(requests / 10))).await;
        let (started, before) = (Instant::now(), thread_cpu());
        work(Rc::new(Cell::new(requests))).await;
        Cost {
            wall: started.elapsed(),
            cpu: thread_cpu().saturating_sub(before),
        }
    })
}

/// CPU time of this thread: the first field of its `schedstat`, in nanoseconds.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    let build = if cfg!(debug_assertions) {
        "DEBUG BUILD"
    } else {
        "release build"
    };
    format!("{model}, {cores} cores, Linux {}, {build}", kernel.trim())
}

/// Answers every request that fits its buffer; knows that heads end in an empty line and that bodies
/// have a fixed length.
fn start_receiver() -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(serve(stream));
            }
        });
    });
    told.recv().unwrap()
}

async fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 8_192];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]).await {
        filled += read;
        let Some(head) = buffer[..filled]
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
        else {
            continue;
        };
        if filled < head + 4 + BODY.len() {
            continue;
        }
        filled = 0;
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if stream.write_all(response).await.is_err() {
            return;
        }
    }
}

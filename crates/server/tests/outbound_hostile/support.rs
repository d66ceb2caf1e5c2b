//! Receivers on loopback and a client that may talk to them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hookturn::outbound::{
    AddressPolicy, Client, ClientConfig, Exchange, Failure, FailureKind, Request, Resolve,
    ResolveError, Resolving, Response, Sending, Target,
};
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The deadline of an exchange with a hostile receiver.
pub(crate) const DEADLINE_MILLIS: u64 = 300;
/// How much later than its deadline an exchange may end on a busy machine.
const SLACK: Duration = Duration::from_millis(700);
/// Longest wait for an event that must come.
const EVENT: Duration = Duration::from_secs(10);

/// Answers each lookup with the next list; the last one again and again.
pub(crate) struct Answers(Mutex<VecDeque<Vec<IpAddr>>>);

impl Answers {
    pub(crate) fn new(answers: &[&[&str]]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(
            answers
                .iter()
                .map(|list| list.iter().map(|ip| ip.parse().unwrap()).collect())
                .collect(),
        )))
    }
}

impl Resolve for Answers {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let mut answers = self.0.lock().unwrap();
            let answer = if answers.len() > 1 {
                answers.pop_front()
            } else {
                answers.front().cloned()
            };
            answer.ok_or_else(|| ResolveError(format!("nobody knows {name}")))
        })
    }
}

/// Loopback may be used, over plain HTTP too.
pub(crate) fn loopback() -> AddressPolicy {
    AddressPolicy {
        allow_nets: vec!["127.0.0.1/32".parse().unwrap()],
        allow_http: true,
    }
}

pub(crate) fn config(
    policy: AddressPolicy,
    resolver: Arc<dyn Resolve>,
    roots: Option<&str>,
) -> ClientConfig {
    ClientConfig::new(policy, resolver, roots.map(str::as_bytes)).unwrap()
}

pub(crate) fn client() -> Client {
    Client::new(Arc::new(config(
        loopback(),
        Answers::new(&[&["127.0.0.1"]]),
        None,
    )))
}

pub(crate) fn request(url: &str) -> Request {
    Request {
        method: http::Method::POST,
        target: Arc::new(Target::new(&url.parse().unwrap()).unwrap()),
        body: Bytes::from_static(b"{\"hello\":\"world\"}"),
        timeout_millis: DEADLINE_MILLIS,
        connect_timeout_millis: DEADLINE_MILLIS,
        sending: Sending::AtLeastOnce,
    }
}

/// Nothing but what the client sets itself.
#[expect(
    clippy::unnecessary_wraps,
    reason = "it is what `Client::send` asks for headers"
)]
pub(crate) fn plain() -> Result<HeaderMap, Infallible> {
    Ok(HeaderMap::new())
}

/// Sends without headers, and checks that the exchange ended in time.
pub(crate) async fn send(client: &Client, request: Request) -> Exchange {
    send_with(client, request, HeaderMap::new).await
}

/// Sends with headers that are made when they are asked for.
pub(crate) async fn send_with(
    client: &Client,
    request: Request,
    mut headers: impl FnMut() -> HeaderMap,
) -> Exchange {
    let limit = Duration::from_millis(request.timeout_millis) + SLACK;
    let started = Instant::now();
    let Ok(exchange) = client
        .send(request, || Ok::<_, Infallible>(headers()))
        .await;
    let elapsed = started.elapsed();
    assert!(elapsed < limit, "took {elapsed:?}: {exchange:?}");
    assert!(exchange.timings.total <= u64::try_from(elapsed.as_micros()).unwrap());
    exchange
}

pub(crate) fn answer(exchange: Exchange) -> Response {
    exchange.result.unwrap()
}

pub(crate) fn failure(exchange: Exchange, kind: FailureKind) -> Failure {
    let failure = exchange.result.unwrap_err();
    assert_eq!(failure.kind, kind, "{failure}");
    failure
}

/// Waits for an event that must come.
pub(crate) async fn event<T>(events: &mut mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(EVENT, events.recv())
        .await
        .expect("the event did not come")
        .expect("the receiver is gone")
}

/// A receiver that runs `serve` for every connection and reports what it returns.
pub(crate) struct Receiver<T> {
    pub(crate) address: SocketAddr,
    pub(crate) finished: mpsc::UnboundedReceiver<T>,
    task: tokio::task::JoinHandle<()>,
}

impl<T> Receiver<T> {
    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn receiver<T, F, Fut>(serve: F) -> Receiver<T>
where
    T: Send + 'static,
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, finished) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            let serving = serve(stream);
            tokio::spawn(async move {
                // Nobody listens any more when the test is over.
                let _ = sender.send(serving.await);
            });
        }
    });
    Receiver {
        address,
        finished,
        task,
    }
}

/// Reads one request, head and body; `None` when the connection ends before.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |value| value.parse::<usize>().unwrap());
            if body.len() >= length {
                return Some(text.into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Writes `block` until the other side closes or `most` is reached; how many bytes went out.
pub(crate) async fn flood(stream: &mut TcpStream, block: &[u8], most: u64) -> u64 {
    let mut written = 0;
    while written < most && stream.write_all(block).await.is_ok() {
        written += block.len() as u64;
    }
    written
}

/// Reads until the other side closes.
pub(crate) async fn until_closed(stream: &mut TcpStream) {
    let mut rest = [0; 1_024];
    while matches!(stream.read(&mut rest).await, Ok(1..)) {}
}

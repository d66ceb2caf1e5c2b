//! Receivers: a small HTTP/1.1 server whose answers a test decides, and raw ones that do what they
//! like with a connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// A request as a receiver got it.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Arrival {
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.as_str())
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }
}

type Answer = Pin<Box<dyn Future<Output = u16> + Send>>;
type Decide = dyn Fn(Arrival) -> Answer + Send + Sync;

/// A receiver; it ends when it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    /// Requests that arrived so far.
    pub(crate) count: watch::Receiver<u64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Receiver {
    /// Answers each request with the status that `decide` returns.
    pub(crate) async fn start<F, A>(decide: F) -> Self
    where
        F: Fn(Arrival) -> A + Send + Sync + 'static,
        A: Future<Output = u16> + Send + 'static,
    {
        let decide: Arc<Decide> = Arc::new(move |arrival| Box::pin(decide(arrival)));
        let (counter, count) = watch::channel(0);
        let counter = Arc::new(counter);
        let (address, accepting) = listen(move |stream| {
            let (decide, counter) = (Arc::clone(&decide), Arc::clone(&counter));
            async move {
                // A connection that its client closes or breaks says nothing about the receiver.
                let _closed = serve(stream, &*decide, &counter).await;
            }
        })
        .await;
        Self {
            address,
            count,
            accepting,
        }
    }

    /// Does `behave` with each connection.
    pub(crate) async fn raw<F, B>(behave: F) -> Self
    where
        F: Fn(TcpStream) -> B + Send + Sync + 'static,
        B: Future<Output = ()> + Send + 'static,
    {
        let (_, count) = watch::channel(0);
        let (address, accepting) = listen(behave).await;
        Self {
            address,
            count,
            accepting,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Waits until so many requests have arrived.
    pub(crate) async fn arrived(&self, wanted: u64) {
        let mut count = self.count.clone();
        let waiting = count.wait_for(|count| *count >= wanted);
        let what = format!("{wanted} requests at a receiver");
        let seen = super::within(super::SOON, &what, waiting).await;
        assert!(*seen.unwrap() >= wanted);
    }
}

async fn listen<F, B>(behave: F) -> (SocketAddr, tokio::task::JoinHandle<()>)
where
    F: Fn(TcpStream) -> B + Send + Sync + 'static,
    B: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _delay = stream.set_nodelay(true);
            tokio::spawn(behave(stream));
        }
    });
    (address, accepting)
}

async fn serve(
    mut stream: TcpStream,
    decide: &Decide,
    counter: &watch::Sender<u64>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(arrival) = read_request(&mut stream, &mut buffer).await? {
        let answer = decide(arrival);
        counter.send_modify(|count| *count += 1);
        let status = answer.await;
        let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
    }
    Ok(())
}

/// Reads one request; `None` at the end of the connection.
pub(crate) async fn read_request(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Arrival>> {
    loop {
        if let Some((arrival, used)) = parse(buffer) {
            buffer.drain(..used);
            return Ok(Some(arrival));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(Arrival, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let _line = lines.next()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut arrival = Arrival {
        at: Instant::now(),
        headers,
        body: Vec::new(),
    };
    let length: usize = arrival.header("content-length").parse().unwrap_or(0);
    let body = bytes.get(end + 4..end + 4 + length)?;
    arrival.body = body.to_vec();
    Some((arrival, end + 4 + length))
}

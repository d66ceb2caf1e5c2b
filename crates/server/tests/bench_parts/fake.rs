//! A server that answers as Hookturn's API does, keeps everything in memory, and errs on request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hookturn_core::id::MessageId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc};
use tokio::task::JoinSet;

use crate::http::{Connection, decimal, read_head};

const COURIERS: usize = 8;

/// Every so many deliveries or requests, counted from one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) lost: Option<u64>,
    pub(crate) repeated: Option<u64>,
    pub(crate) refused: Option<u64>,
}

/// A running fake; its tasks end with it.
pub(crate) struct Fake {
    addr: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    faults: Faults,
    urls: Mutex<Vec<String>>,
    queue: mpsc::UnboundedSender<Delivery>,
    requests: AtomicU64,
    deliveries: AtomicU64,
    messages: AtomicU64,
    open: AtomicU64,
    idle: Notify,
}

struct Delivery {
    url: String,
    id: String,
    times: usize,
}

impl Fake {
    pub(crate) async fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (queue, deliveries) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            faults,
            urls: Mutex::default(),
            queue,
            requests: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            open: AtomicU64::new(0),
            idle: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        let deliveries = Arc::new(AsyncMutex::new(deliveries));
        for _ in 0..COURIERS {
            tasks.spawn(deliver(Arc::clone(&state), Arc::clone(&deliveries)));
        }
        let accepting = Arc::clone(&state);
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&accepting)));
            }
        });
        Self {
            addr,
            state,
            _tasks: tasks,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until nothing accepted is left to deliver.
    pub(crate) async fn all_delivered(&self) {
        loop {
            let idle = self.state.idle.notified();
            if self.state.open.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let mut buffer = Vec::new();
    loop {
        let mut length = 0;
        let head = read_head(&buffer, |name, value| {
            if name == b"content-length" {
                length = decimal(value).unwrap();
            }
        });
        if let Some((line, head)) = head.filter(|(_, head)| buffer.len() >= head + length) {
            let line = String::from_utf8(line.to_vec()).unwrap();
            let (status, body) = state.answer(&line, &buffer[head..head + length]);
            buffer.drain(..head + length);
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).await.unwrap();
            continue;
        }
        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

impl State {
    fn answer(&self, line: &str, body: &[u8]) -> (u16, Value) {
        let path = line.split(' ').nth(1).unwrap();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if path.ends_with("/messages") || path.ends_with("/batch") {
            return self.publish(&body);
        }
        if let Some(url) = body["url"].as_str() {
            let mut urls = self.urls.lock().unwrap();
            urls.push(url.to_owned());
            let number = urls.len();
            return (
                201,
                json!({
                    "id": number.to_string(),
                    "keyringId": "kr",
                    "secret": { "value": "whsec_00" },
                }),
            );
        }
        (201, json!({ "clientId": "AbCd1234" }))
    }

    fn publish(&self, body: &Value) -> (u16, Value) {
        if due(self.faults.refused, &self.requests) {
            return (503, json!({ "code": "busy" }));
        }
        let Some(messages) = body["messages"].as_array() else {
            return (202, json!({ "id": self.accept() }));
        };
        let ids: Vec<String> = messages.iter().map(|_| self.accept()).collect();
        (202, json!({ "ids": ids }))
    }

    fn accept(&self) -> String {
        let number = self.messages.fetch_add(1, Ordering::SeqCst);
        let id = MessageId::from_bytes(u128::from(number).to_be_bytes()).to_string();
        for url in self.urls.lock().unwrap().iter() {
            let number = self.deliveries.fetch_add(1, Ordering::SeqCst) + 1;
            let faulty =
                |every: Option<u64>| every.is_some_and(|every| number.is_multiple_of(every));
            let times = match (faulty(self.faults.lost), faulty(self.faults.repeated)) {
                (true, _) => 0,
                (false, true) => 2,
                (false, false) => 1,
            };
            self.open.fetch_add(1, Ordering::SeqCst);
            let delivery = Delivery {
                url: url.clone(),
                id: id.clone(),
                times,
            };
            self.queue.send(delivery).unwrap();
        }
        id
    }
}

fn due(every: Option<u64>, counter: &AtomicU64) -> bool {
    let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
    every.is_some_and(|every| number.is_multiple_of(every))
}

async fn deliver(state: Arc<State>, queue: Arc<AsyncMutex<mpsc::UnboundedReceiver<Delivery>>>) {
    let mut open: Option<Connection> = None;
    loop {
        let Some(delivery) = queue.lock().await.recv().await else {
            return;
        };
        let (host, path) = delivery.url["http://".len()..].split_once('/').unwrap();
        for _ in 0..delivery.times {
            let request = format!(
                "POST /{path} HTTP/1.1\r\nhost: {host}\r\nwebhook-id: {}\r\ncontent-length: 2\r\n\r\n{{}}",
                delivery.id
            );
            let connection = match &mut open {
                Some(connection) => connection,
                none => none.insert(Connection::open(host.parse().unwrap()).await.unwrap()),
            };
            let answer = connection.exchange(request.as_bytes()).await.unwrap();
            assert_eq!(answer.status, 204);
        }
        if state.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            state.idle.notify_waiters();
        }
    }
}

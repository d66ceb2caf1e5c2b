//! Receivers on loopback that answer as the test says and report what they saw.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use hookturn_core::time::{Clock, Timestamp};
use hookturn_verify::{Received, Verified, Verifier, VerifyError, from_fn};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::rig::ManualClock;

/// Longest wait for something that must come.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The test's clock when it arrived.
    pub(crate) at: Timestamp,
    /// Requests open at this receiver then, this one included.
    pub(crate) open: usize,
    /// Counts from 0.
    pub(crate) number: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(key, _)| key == name);
        let found = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} came twice");
        found
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id").unwrap()
    }

    pub(crate) fn verify(&self, verifier: &Verifier) -> Result<Verified, VerifyError> {
        let headers = from_fn(|name| self.header(name).map(str::as_bytes));
        let request = Received {
            method: &self.method,
            url: &self.path,
            headers: &headers,
            body: &self.body,
        };
        verifier.verify(&request, self.at.as_seconds())
    }

    /// The name of the secret that signed.
    pub(crate) fn signer<'v>(&self, verifier: &'v Verifier) -> &'v str {
        let verified = self.verify(verifier).unwrap();
        verifier.name(verified.secret).unwrap()
    }
}

/// What to answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Answer only when the gate has been opened.
    pub(crate) gated: bool,
    /// Close without an answer.
    pub(crate) close: bool,
    /// Close after the answer, unannounced.
    pub(crate) hang_up: bool,
}

pub(crate) fn status(status: u16) -> Reply {
    Reply {
        status,
        ..Reply::default()
    }
}

pub(crate) fn gated(status: u16) -> Reply {
    Reply {
        status,
        gated: true,
        ..Reply::default()
    }
}

/// Answers, and says that the next request needs another connection.
pub(crate) fn parting(status: u16) -> Reply {
    Reply {
        status,
        headers: vec![("connection", "close".to_owned())],
        ..Reply::default()
    }
}

/// Answers, and closes the connection as if it could have been kept.
pub(crate) fn hanging_up(status: u16) -> Reply {
    Reply {
        status,
        hang_up: true,
        ..Reply::default()
    }
}

/// Who receivers over TLS are, the same in the whole process: what to trust, as PEM, and how to shake
/// hands.
pub(crate) static IDENTITY: LazyLock<(String, TlsAcceptor)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (made.cert.pem(), TlsAcceptor::from(Arc::new(config)))
});

/// The door of a receiver over TLS: who comes waits there with the handshake begun.
struct Door {
    open: watch::Sender<bool>,
    waiting: mpsc::UnboundedSender<()>,
}

impl Door {
    async fn pass(&self) {
        let mut open = self.open.subscribe();
        // Nobody may be looking.
        let _ = self.waiting.send(());
        open.wait_for(|open| *open).await.unwrap();
    }
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Shared {
    script: Mutex<Arc<Script>>,
    clock: Arc<ManualClock>,
    open: AtomicUsize,
    most_open: AtomicUsize,
    count: AtomicUsize,
    gate: watch::Sender<bool>,
    door: Option<Door>,
    /// Connections closed.
    closed: watch::Sender<usize>,
    seen: mpsc::UnboundedSender<Seen>,
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    seen: mpsc::UnboundedReceiver<Seen>,
    at_the_door: mpsc::UnboundedReceiver<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    pub(crate) async fn new(
        clock: &Arc<ManualClock>,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(clock, script, false).await
    }

    /// One over TLS, its door closed.
    pub(crate) async fn behind_a_door(
        clock: &Arc<ManualClock>,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(clock, script, true).await
    }

    async fn start(
        clock: &Arc<ManualClock>,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
        with_door: bool,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = mpsc::unbounded_channel();
        let (waiting, at_the_door) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(script)),
            clock: Arc::clone(clock),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            gate: watch::Sender::new(false),
            door: with_door.then(|| Door {
                open: watch::Sender::new(false),
                waiting,
            }),
            closed: watch::Sender::new(0),
            seen: sender,
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    let Some(door) = &shared.door else {
                        return serve(stream, &shared).await;
                    };
                    door.pass().await;
                    // A sender that gave up in the meantime is none.
                    if let Ok(stream) = IDENTITY.1.accept(stream).await {
                        serve(stream, &shared).await;
                    }
                });
            }
        });
        Self {
            address,
            shared,
            seen,
            at_the_door,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.shared.door.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}/hook", self.address)
    }

    /// Someone is at the door, connected, and waits for the handshake.
    pub(crate) async fn knock(&mut self) {
        tokio::time::timeout(BOUND, self.at_the_door.recv())
            .await
            .expect("someone must come")
            .unwrap();
    }

    /// Lets those in who wait at the door, and those who come later, or closes it.
    pub(crate) fn door(&self, open: bool) {
        let door = self.shared.door.as_ref().expect("it has a door");
        door.open.send_replace(open);
    }

    /// Answers otherwise from now on.
    pub(crate) fn answer(&self, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    /// Lets gated answers go, those of the future too.
    pub(crate) fn open_gate(&self) {
        self.shared.gate.send_replace(true);
    }

    /// Waits until this many connections have been closed.
    pub(crate) async fn until_closed(&self, count: usize) {
        let mut closed = self.shared.closed.subscribe();
        tokio::time::timeout(BOUND, closed.wait_for(|closed| *closed >= count))
            .await
            .expect("a connection must be closed")
            .unwrap();
    }

    /// The next request, which must come.
    pub(crate) async fn next(&mut self) -> Seen {
        tokio::time::timeout(BOUND, self.seen.recv())
            .await
            .expect("a request must come")
            .unwrap()
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<Seen> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(self.next().await);
        }
        all
    }

    /// What has arrived and was not taken yet.
    pub(crate) fn rest(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }

    pub(crate) fn most_open(&self) -> usize {
        self.shared.most_open.load(Ordering::SeqCst)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) {
    while let Some(mut seen) = read_request(&mut stream).await {
        seen.at = shared.clock.now();
        seen.open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_open.fetch_max(seen.open, Ordering::SeqCst);
        seen.number = shared.count.fetch_add(1, Ordering::SeqCst);
        let script = Arc::clone(&shared.script.lock().unwrap());
        let reply = script(&seen);
        let _ = shared.seen.send(seen);
        if reply.gated {
            let mut gate = shared.gate.subscribe();
            let mut rest = [0; 1];
            let open = tokio::select! {
                open = gate.wait_for(|open| *open) => open.is_ok(),
                _ = stream.read(&mut rest) => false,
            };
            if !open {
                shared.open.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        }
        // Before the answer: the sender may send the next request as soon as it has it.
        shared.open.fetch_sub(1, Ordering::SeqCst);
        if reply.close || !write_reply(&mut stream, &reply).await || reply.hang_up {
            break;
        }
    }
    drop(stream);
    shared.closed.send_modify(|closed| *closed += 1);
}

async fn write_reply(stream: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> bool {
    let mut head = format!(
        "HTTP/1.1 {} Reason\r\ncontent-length: {}\r\n",
        reply.status,
        reply.body.len()
    );
    for (name, value) in &reply.headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&reply.body);
    stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok()
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let (first, rest) = head.split_once("\r\n").unwrap();
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let headers: Vec<(String, String)> = rest
        .lines()
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().unwrap());
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen {
        method,
        path,
        headers,
        body,
        at: Timestamp::EPOCH,
        open: 0,
        number: 0,
    })
}

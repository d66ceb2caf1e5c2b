//! The receiver of all deliveries: a minimal HTTP/1.1 server that writes every request into the books.
//!
//! One thread, one runtime, one task for each connection, a constant answer. It verifies nothing: the
//! same receiver stands behind the ceiling, so what it costs is the same on both sides of the ratio. One
//! that is *keeping* remembers what was signed, so that it can be verified after the load.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::http::{decimal, read_head};
use crate::number::{Epoch, Nanos};
use crate::signatures::Request;
use crate::tally::{Arrival, message_id};

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
/// Enough for a body of 2 KiB and its head; larger requests make the buffer grow.
const READ_BYTES: usize = 8 * 1024;
/// Requests beyond this are not what the bench sends.
const REQUEST_BYTES: usize = 1024 * 1024;
/// Room made at the start, so that the book does not move while latency is measured.
const BOOK: usize = 1 << 20;

/// A running receiver; it ends when it is dropped.
pub(crate) struct Receiver {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    epoch: Epoch,
    book: Mutex<Vec<Arrival>>,
    /// What was signed, where it is kept: as many as there are in the book.
    kept: Option<Mutex<Vec<Request>>>,
    count: AtomicU64,
    last: AtomicU64,
    strange: AtomicU64,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver {
    /// Listens on a free port of loopback.
    pub(crate) fn start(epoch: Epoch) -> io::Result<Self> {
        Self::listen(epoch, None)
    }

    /// The same, and every request is kept with its signature.
    pub(crate) fn keeping(epoch: Epoch) -> io::Result<Self> {
        Self::listen(epoch, Some(Mutex::default()))
    }

    fn listen(epoch: Epoch, kept: Option<Mutex<Vec<Request>>>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            epoch,
            book: Mutex::new(Vec::with_capacity(BOOK)),
            kept,
            count: AtomicU64::new(0),
            last: AtomicU64::new(0),
            strange: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, theirs) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            addr,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The URL of an endpoint; its number is the path.
    pub(crate) fn url(&self, endpoint: u32) -> String {
        format!("http://{}/{endpoint}", self.addr)
    }

    /// Requests with a message id so far.
    pub(crate) fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Acquire)
    }

    /// When the latest of them came.
    pub(crate) fn last(&self) -> Nanos {
        self.shared.last.load(Ordering::Acquire)
    }

    /// Requests that could not be entered: without a message id, or for a path that is no number.
    pub(crate) fn strange(&self) -> u64 {
        self.shared.strange.load(Ordering::Acquire)
    }

    /// Takes what was kept, in the order of the book.
    pub(crate) fn take_kept(&self) -> Vec<Request> {
        let Some(kept) = &self.shared.kept else {
            return Vec::new();
        };
        std::mem::take(&mut kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The book as it is now.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.shared.book().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Refused only when the thread has ended by itself.
            let _ended = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // A connection that its client closes or breaks says nothing about the receiver.
            let _closed = serve(stream, &shared).await;
        });
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut used = 0;
        while let Some(length) = take(&buffer[used..filled], shared)? {
            used += length;
            stream.write_all(ANSWER).await?;
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if filled == buffer.len() {
            if filled >= REQUEST_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            buffer.resize(filled * 2, 0);
        }
    }
}

/// Enters one complete request into the book and returns its length; `None` while it is incomplete.
fn take(bytes: &[u8], shared: &Shared) -> io::Result<Option<usize>> {
    let mut length = Some(0);
    let mut id = None;
    let (mut id_text, mut timestamp, mut signature): (&[u8], &[u8], &[u8]) = (b"", b"", b"");
    let head = read_head(bytes, |name, value| {
        if name.eq_ignore_ascii_case(b"webhook-id") {
            id = message_id(value);
            id_text = value;
        } else if name.eq_ignore_ascii_case(b"webhook-timestamp") {
            timestamp = value;
        } else if name.eq_ignore_ascii_case(b"webhook-signature") {
            signature = value;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            length = decimal(value);
        }
    });
    let Some((line, head)) = head else {
        return Ok(None);
    };
    let Some(body) = length else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if bytes.len() < head + body {
        return Ok(None);
    }
    match (id, endpoint(line)) {
        (Some(id), Some(endpoint)) => {
            let at = shared.epoch.now();
            let mut book = shared.book();
            book.push(Arrival { id, at, endpoint });
            if let Some(kept) = &shared.kept {
                // Under the book's lock, so that both are in one order.
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push(Request {
                    id: id_text.into(),
                    timestamp: timestamp.into(),
                    signature: signature.into(),
                    body: bytes[head..head + body].into(),
                });
            }
            drop(book);
            shared.last.store(at, Ordering::Release);
            shared.count.fetch_add(1, Ordering::AcqRel);
        }
        _ => {
            shared.strange.fetch_add(1, Ordering::AcqRel);
        }
    }
    Ok(Some(head + body))
}

/// The number in `POST /NUMBER HTTP/1.1`.
fn endpoint(line: &[u8]) -> Option<u32> {
    let path = line.strip_prefix(b"POST /")?;
    let end = path.iter().position(|&byte| byte == b' ')?;
    decimal(&path[..end]).and_then(|number| u32::try_from(number).ok())
}

//! A connection's bytes, counted and taken in turns.
//!
//! A receiver may send informational responses, padding or frames without end, each of them small. The
//! parser bounds what it keeps, not what it works through, so the bytes of a connection are counted
//! below it: every exchange grants a budget, and a receiver that exceeds it is cut off.
//!
//! What is granted may still be milliseconds of work for the parser, such as a thousand informational
//! responses of forty bytes. A delivery shard is one thread, and every other endpoint of it would wait.
//! So an HTTP/1.1 connection reads little in each turn of its task, and has the next one after the
//! others (G10).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::dial::Wire;
use super::head::Head;
use super::tls::Tls;

/// Most that is read in one turn: the whole of a usual answer.
const TURN_BYTES: u64 = 2 * 1024;

/// How many more bytes the receiver may send, and how many of them are read in this turn.
#[derive(Debug)]
pub(super) struct Allowance {
    left: AtomicU64,
    /// Without bound until the first turn begins.
    turn: AtomicU64,
    /// The next byte of an HTTP/1.1 connection begins a head.
    head_begins: AtomicBool,
    /// Headers of the last head were left out.
    head_cut: AtomicBool,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            left: AtomicU64::new(0),
            turn: AtomicU64::new(u64::MAX),
            head_begins: AtomicBool::new(false),
            head_cut: AtomicBool::new(false),
        }
    }
}

/// The receiver sent more than an exchange allows.
#[derive(Debug, thiserror::Error)]
#[error("the receiver sent more bytes than an answer may have")]
pub(super) struct Exceeded;

impl Allowance {
    /// Starts an exchange on a connection that serves one at a time.
    pub(super) fn set(&self, bytes: u64) {
        self.left.store(bytes, Ordering::Relaxed);
    }

    /// Starts an exchange on a connection of HTTP/1.1: a head comes next, of so many bytes at most.
    pub(super) fn begin_answer(&self, bytes: u64) {
        self.set(bytes);
        self.head_cut.store(false, Ordering::Relaxed);
        self.head_begins.store(true, Ordering::Relaxed);
    }

    /// Whether headers of the last head were left out.
    pub(super) fn head_was_cut(&self) -> bool {
        self.head_cut.load(Ordering::Relaxed)
    }

    /// Begins a turn of the connection's task.
    pub(super) fn begin_turn(&self) {
        self.turn.store(TURN_BYTES, Ordering::Relaxed);
    }

    /// How many bytes may be read in this turn.
    fn turn(&self) -> usize {
        usize::try_from(self.turn.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Adds an exchange on a connection that serves many, up to `most` in all.
    pub(super) fn grant(&self, bytes: u64, most: u64) {
        let before = self.left.load(Ordering::Relaxed);
        let more = bytes.min(most.saturating_sub(before));
        self.left.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes what was read; whether it was allowed.
    fn take(&self, bytes: u64) -> bool {
        // Only the connection's own task takes, so nothing is taken in between.
        self.turn.fetch_sub(bytes, Ordering::Relaxed);
        let before = self.left.load(Ordering::Relaxed);
        self.left.fetch_sub(bytes.min(before), Ordering::Relaxed);
        bytes <= before
    }
}

/// TCP, or TLS over it, with the bytes received counted after decryption, and heads of HTTP/1.1 cut.
pub(super) struct Stream {
    transport: Transport,
    head: Head,
    allowance: Arc<Allowance>,
}

pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<Tls>),
    Injected(Box<dyn Wire>),
}

impl Stream {
    pub(super) fn new(transport: Transport, allowance: Arc<Allowance>) -> Self {
        Self {
            transport,
            head: Head::default(),
            allowance,
        }
    }

    /// Reads into what is left of `buf`, as much as this turn and the allowance let it.
    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let room = buf.remaining().min(self.allowance.turn());
        if room == 0 && buf.remaining() > 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        let polled = match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(cx, &mut part),
            Transport::Tls(tls) => Pin::new(tls).poll_read(cx, &mut part),
            Transport::Injected(wire) => Pin::new(wire).poll_read(cx, &mut part),
        };
        let read = part.filled().len();
        if read > 0 && !self.allowance.take(read as u64) {
            return Poll::Ready(Err(io::Error::other(Exceeded)));
        }
        polled.map_ok(|()| read)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.allowance.head_begins.swap(false, Ordering::Relaxed) {
            this.head.begin();
        }
        loop {
            let ready = this.head.ready();
            if !ready.is_empty() {
                let given = ready.len().min(buf.remaining());
                buf.put_slice(&ready[..given]);
                this.head.give(given);
                return Poll::Ready(Ok(()));
            }
            let read = ready!(this.poll_part(cx, buf))?;
            if this.head.is_over() {
                buf.advance(read);
                return Poll::Ready(Ok(()));
            }
            let filled = buf.filled().len();
            let part = &buf.initialize_unfilled_to(read)[..read];
            if read > 0 && this.head.is_usual(part) {
                buf.set_filled(filled + read);
                return Poll::Ready(Ok(()));
            }
            if read == 0 {
                this.head.end();
                if this.head.ready().is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            this.head.take(part).map_err(io::Error::other)?;
            if this.head.was_cut() {
                this.allowance.head_cut.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Transport::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Transport::Injected(wire) => Pin::new(wire).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Transport::Injected(wire) => Pin::new(wire).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Transport::Injected(wire) => Pin::new(wire).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Transport::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Transport::Injected(wire) => Pin::new(wire).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(tcp) => tcp.is_write_vectored(),
            Transport::Tls(tls) => tls.is_write_vectored(),
            Transport::Injected(wire) => wire.is_write_vectored(),
        }
    }
}

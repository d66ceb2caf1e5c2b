//! A connection's bytes, counted and taken in turns.
//!
//! A receiver may send informational responses, padding or frames without end, each of them small. The
//! parser bounds what it keeps, not what it works through, so the bytes of a connection are counted
//! below it: every exchange grants a budget, and a receiver that exceeds it is cut off.
//!
//! What is granted may still be milliseconds of work for the parser, such as a thousand informational
//! responses of forty bytes. A delivery shard is one thread, and every other endpoint of it would wait.
//! So a connection reads little in each turn of its task, and has the next one after the others (G10).
//!
//! Over HTTP/2 this bounds memory too. Its parser runs in a task of its own and keeps what it reads until the
//! exchange takes it. How much that may be is not for the window to say: the parser grants the usual 64 KiB
//! until the receiver confirms the smaller one, which a hostile one never does. Now the exchange takes what
//! came before more is read.
//!
//! Heads are cut here as well, each version's by its own rules ([`Head`], [`Frames`]).

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::dial::Wire;
use super::frames::Frames;
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
    /// Why the connection was cut off, if it was. The parser of HTTP/2 does not hand such errors on.
    cut_off: OnceLock<String>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            left: AtomicU64::new(0),
            turn: AtomicU64::new(u64::MAX),
            head_begins: AtomicBool::new(false),
            head_cut: AtomicBool::new(false),
            cut_off: OnceLock::new(),
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

    /// Whether nothing came since the receiver was allowed so many bytes.
    pub(super) fn is_untouched(&self, bytes: u64) -> bool {
        self.left.load(Ordering::Relaxed) == bytes
    }

    /// Why the connection was cut off, if it was.
    pub(super) fn cut_off(&self) -> Option<&str> {
        self.cut_off.get().map(String::as_str)
    }

    fn cut_off_for<E: std::error::Error + Send + Sync + 'static>(&self, why: E) -> io::Error {
        // The first reason is the reason.
        let _former = self.cut_off.set(why.to_string());
        io::Error::other(why)
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

/// TCP, or TLS over it, with the bytes received counted after decryption, and heads cut.
pub(super) struct Stream {
    transport: Transport,
    heads: Heads,
    allowance: Arc<Allowance>,
}

/// What cuts the heads of the version that is spoken.
enum Heads {
    Http1(Head),
    Http2(Box<Frames>),
}

pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<Tls>),
    Injected(Box<dyn Wire>),
}

impl Stream {
    /// A connection that speaks HTTP/1.1.
    pub(super) fn http1(transport: Transport, allowance: Arc<Allowance>) -> Self {
        Self {
            transport,
            heads: Heads::Http1(Head::default()),
            allowance,
        }
    }

    /// A connection that speaks HTTP/2.
    pub(super) fn http2(transport: Transport, allowance: Arc<Allowance>) -> Self {
        allowance.begin_turn();
        Self {
            transport,
            heads: Heads::Http2(Box::default()),
            allowance,
        }
    }
}

impl Transport {
    /// Reads into what is left of `buf`, as much as this turn and the allowance let it.
    fn poll_part(
        &mut self,
        allowance: &Allowance,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let room = buf.remaining().min(allowance.turn());
        if room == 0 && buf.remaining() > 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        let polled = match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, &mut part),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, &mut part),
            Self::Injected(wire) => Pin::new(wire).poll_read(cx, &mut part),
        };
        let read = part.filled().len();
        if read > 0 && !allowance.take(read as u64) {
            return Poll::Ready(Err(allowance.cut_off_for(Exceeded)));
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
        let Self {
            transport,
            heads,
            allowance,
        } = &mut *self;
        match heads {
            Heads::Http1(head) => poll_http1(transport, head, allowance, cx, buf),
            Heads::Http2(frames) => poll_http2(transport, frames, allowance, cx, buf),
        }
    }
}

fn poll_http1(
    transport: &mut Transport,
    head: &mut Head,
    allowance: &Allowance,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    if allowance.head_begins.swap(false, Ordering::Relaxed) {
        head.begin();
    }
    loop {
        let ready = head.ready();
        if !ready.is_empty() {
            let given = ready.len().min(buf.remaining());
            buf.put_slice(&ready[..given]);
            head.give(given);
            return Poll::Ready(Ok(()));
        }
        let read = ready!(transport.poll_part(allowance, cx, buf))?;
        if head.is_over() {
            buf.advance(read);
            return Poll::Ready(Ok(()));
        }
        let filled = buf.filled().len();
        let part = &buf.initialize_unfilled_to(read)[..read];
        if read > 0 && head.is_usual(part) {
            buf.set_filled(filled + read);
            return Poll::Ready(Ok(()));
        }
        if read == 0 {
            head.end();
            if head.ready().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        head.take(part).map_err(io::Error::other)?;
        if head.was_cut() {
            allowance.head_cut.store(true, Ordering::Relaxed);
        }
    }
}

fn poll_http2(
    transport: &mut Transport,
    frames: &mut Frames,
    allowance: &Allowance,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    loop {
        let ready = frames.ready();
        if !ready.is_empty() {
            let given = ready.len().min(buf.remaining());
            buf.put_slice(&ready[..given]);
            frames.give(given);
            return Poll::Ready(Ok(()));
        }
        if allowance.turn() == 0 {
            // What came is read by the exchanges first.
            allowance.begin_turn();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let read = ready!(transport.poll_part(allowance, cx, buf))?;
        let filled = buf.filled().len();
        let part = &buf.initialize_unfilled_to(read)[..read];
        if read == 0 || frames.is_usual(part) {
            buf.set_filled(filled + read);
            return Poll::Ready(Ok(()));
        }
        frames
            .take(part)
            .map_err(|forbidden| allowance.cut_off_for(forbidden))?;
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

//! A connection's bytes, counted.
//!
//! A receiver may send informational responses, padding or frames without end, each of them small. The
//! parser bounds what it keeps, not what it works through, so the bytes of a connection are counted
//! below it: every exchange grants a budget, and a receiver that exceeds it is cut off.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// How many more bytes the receiver may send.
#[derive(Debug, Default)]
pub(super) struct Allowance(AtomicU64);

/// The receiver sent more than an exchange allows.
#[derive(Debug, thiserror::Error)]
#[error("the receiver sent more bytes than an answer may have")]
pub(super) struct Exceeded;

impl Allowance {
    /// Starts an exchange on a connection that serves one at a time.
    pub(super) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// Adds an exchange on a connection that serves many, up to `most` in all.
    pub(super) fn grant(&self, bytes: u64, most: u64) {
        let before = self.0.load(Ordering::Relaxed);
        let more = bytes.min(most.saturating_sub(before));
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes what was read; whether it was allowed.
    fn take(&self, bytes: u64) -> bool {
        // Only the connection's own task takes, so nothing is taken in between.
        let before = self.0.load(Ordering::Relaxed);
        self.0.fetch_sub(bytes.min(before), Ordering::Relaxed);
        bytes <= before
    }
}

/// TCP, or TLS over it, with the bytes received counted after decryption.
pub(super) struct Stream {
    transport: Transport,
    allowance: Arc<Allowance>,
}

pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) fn new(transport: Transport, allowance: Arc<Allowance>) -> Self {
        Self {
            transport,
            allowance,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Transport::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        };
        let read = (buf.filled().len() - before) as u64;
        if read > 0 && !self.allowance.take(read) {
            return Poll::Ready(Err(io::Error::other(Exceeded)));
        }
        polled
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
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
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
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(tcp) => tcp.is_write_vectored(),
            Transport::Tls(tls) => tls.is_write_vectored(),
        }
    }
}

//! TLS over TCP, one record at a time.
//!
//! The usual stream over rustls lets its buffers double and copies each record's text while it holds
//! the record: 64 KiB for one record of 16. Here rustls works on a buffer that is exactly as long as
//! the record, which is given back before the text is taken. What a connection holds is at most a
//! record and its text for the moment of decryption, and nothing while it waits (G10).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::unbuffered::{EncryptError, InsufficientSizeError, WriteTraffic};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is asked for before a record's length is known: all of a usual answer.
const FIRST_BYTES: usize = 2 * 1024;
/// Largest record, in bytes (RFC 8446, section 5.2). TLS 1.2 allows more, which none of the ciphers here
/// takes.
const RECORD_BYTES: usize = 5 + 16 * 1024 + 256;
/// Most text that is put into one record.
const TEXT_BYTES: usize = 16 * 1024;
/// What a record adds to it, at most.
const OVERHEAD_BYTES: usize = 64;
/// Largest handshake message, in bytes: several times the usual chain of certificates.
const HANDSHAKE_BYTES: usize = 32 * 1024;

/// A connection after its handshake.
pub(super) struct Tls {
    tcp: TcpStream,
    session: UnbufferedClientConnection,
    /// Records, the last of them incomplete.
    incoming: Vec<u8>,
    /// Text that nobody has read yet.
    text: Vec<u8>,
    read: usize,
    /// Records to be sent.
    outgoing: Vec<u8>,
    sent: usize,
    /// The receiver said that nothing more comes.
    ended: bool,
    /// We said so.
    said_end: bool,
}

/// How far the records that are here lead.
enum Step {
    /// The handshake needs more of them.
    Blocked,
    /// The connection stands; so much was encrypted.
    Open(usize),
    /// There is text to be read.
    Text,
}

impl Tls {
    /// Shakes hands.
    pub(super) async fn connect(
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
        tcp: TcpStream,
    ) -> io::Result<Self> {
        let session = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
        let mut tls = Self {
            tcp,
            session,
            incoming: Vec::new(),
            text: Vec::new(),
            read: 0,
            outgoing: Vec::new(),
            sent: 0,
            ended: false,
            said_end: false,
        };
        std::future::poll_fn(|cx| tls.poll_handshake(cx)).await?;
        Ok(tls)
    }

    /// The protocol that was agreed on.
    pub(super) fn alpn_protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let step = self.step(&[]);
            if step.is_err() {
                // The receiver is told why, if it takes it.
                let _told = self.poll_send(cx);
            }
            match step? {
                Step::Open(_) | Step::Text => return self.poll_send(cx),
                Step::Blocked => {
                    ready!(self.poll_send(cx))?;
                    if self.incoming.len() >= HANDSHAKE_BYTES {
                        return Poll::Ready(Err(invalid("the handshake is larger than 32 KiB")));
                    }
                    ready!(self.poll_fill(cx))?;
                }
            }
        }
    }

    /// Works through the records that are here; encrypts `data` if the connection stands.
    fn step(&mut self, data: &[u8]) -> io::Result<Step> {
        let Self {
            session,
            incoming,
            text,
            outgoing,
            ended,
            ..
        } = self;
        let mut decrypted = false;
        loop {
            let UnbufferedStatus { discard, state } = session.process_tls_records(incoming);
            let step = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, outgoing)?;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                // First its record is given back, then the text is taken.
                Ok(ConnectionState::ReadTraffic(_)) if !decrypted => {
                    decrypted = true;
                    None
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    decrypted = false;
                    while let Some(record) = traffic.next_record() {
                        text.extend_from_slice(record.map_err(invalid)?.payload);
                    }
                    data.is_empty().then_some(Step::Text)
                }
                Ok(ConnectionState::PeerClosed) => {
                    *ended = true;
                    None
                }
                Ok(ConnectionState::Closed) => Some(Step::Open(0)),
                Ok(ConnectionState::BlockedHandshake) => Some(Step::Blocked),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    Some(Step::Open(encrypt(&mut traffic, data, outgoing)?))
                }
                Ok(_) => return Err(invalid("the handshake took a turn that clients never take")),
                Err(error) => {
                    give_back(incoming, discard);
                    // What is left to be said is why.
                    let UnbufferedStatus { state, .. } = session.process_tls_records(incoming);
                    if let Ok(ConnectionState::EncodeTlsData(mut data)) = state {
                        encode(&mut data, outgoing)?;
                    }
                    return Err(invalid(error));
                }
            };
            give_back(incoming, discard);
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// Sends what is to be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let rest = &self.outgoing[self.sent..];
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.sent += bytes,
            }
        }
        self.outgoing = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads more of the record that is under way, and nothing of the one after it.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.incoming.len();
        let Some(wanted) = wanted(&self.incoming) else {
            return Poll::Ready(Err(invalid("a record is larger than TLS allows")));
        };
        self.incoming.reserve_exact(wanted);
        self.incoming.resize(before + wanted, 0);
        let mut buf = ReadBuf::new(&mut self.incoming[before..]);
        let polled = Pin::new(&mut self.tcp).poll_read(cx, &mut buf);
        let read = buf.filled().len();
        self.incoming.truncate(before + read);
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
        ready!(polled)?;
        if read == 0 {
            let said = "the connection ended without the end of TLS that says it is complete";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, said)));
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts and begins to send.
    fn poll_encrypt(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        // What was encrypted before goes first, so that no more than one record waits.
        ready!(self.poll_send(cx))?;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Step::Open(bytes @ 1..) = self.step(&data[..data.len().min(TEXT_BYTES)])? else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // The rest goes with the next write or flush.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(bytes)),
        }
    }
}

/// How much to ask for: to the end of the record under way, where its length is known. `None` when it
/// is longer than a record may be.
fn wanted(incoming: &[u8]) -> Option<usize> {
    let mut rest = incoming;
    loop {
        let Some(&[high, low]) = rest.get(3..5) else {
            return Some(FIRST_BYTES);
        };
        let record = 5 + usize::from(u16::from_be_bytes([high, low]));
        match rest.get(record..) {
            Some(next) => rest = next,
            None => return (record <= RECORD_BYTES).then_some(record - rest.len()),
        }
    }
}

/// Gives back what was worked through.
fn give_back(incoming: &mut Vec<u8>, bytes: usize) {
    if bytes >= incoming.len() {
        *incoming = Vec::new();
    } else {
        incoming.drain(..bytes);
    }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) -> io::Result<()> {
    let before = outgoing.len();
    match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
            outgoing.resize(before + required_size, 0);
        }
        Err(error) => return Err(invalid(error)),
        Ok(_) => {}
    }
    let written = data.encode(&mut outgoing[before..]).map_err(invalid)?;
    outgoing.truncate(before + written);
    Ok(())
}

fn encrypt<D>(
    traffic: &mut WriteTraffic<'_, D>,
    data: &[u8],
    outgoing: &mut Vec<u8>,
) -> io::Result<usize> {
    if data.is_empty() {
        return Ok(0);
    }
    let before = outgoing.len();
    outgoing.resize(before + data.len() + OVERHEAD_BYTES, 0);
    let mut written = traffic.encrypt(data, &mut outgoing[before..]);
    if let Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) = written {
        outgoing.resize(before + required_size, 0);
        written = traffic.encrypt(data, &mut outgoing[before..]);
    }
    outgoing.truncate(before + written.as_ref().copied().unwrap_or(0));
    written.map_err(invalid)?;
    Ok(data.len())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let text = &this.text[this.read..];
            if !text.is_empty() {
                let given = text.len().min(buf.remaining());
                buf.put_slice(&text[..given]);
                this.read += given;
                if this.read == this.text.len() {
                    this.text = Vec::new();
                    this.read = 0;
                }
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            let step = this.step(&[]);
            // Answers to the receiver's own requests, such as for new keys.
            if let Poll::Ready(Err(error)) = this.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            if !matches!(step?, Step::Text) && !this.ended {
                match ready!(this.poll_fill(cx)) {
                    // Between two records, without the farewell of TLS, as many receivers end. Whether the
                    // response is complete is for HTTP to say; its status has been read or it has not.
                    Err(error)
                        if error.kind() == io::ErrorKind::UnexpectedEof
                            && this.incoming.is_empty() =>
                    {
                        this.ended = true;
                    }
                    other => other?,
                }
            }
        }
    }
}

impl AsyncWrite for Tls {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_encrypt(cx, buf)
    }

    /// The head of a request and the beginning of its body share a record.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        let first = filled.next().map_or(&[][..], |buf| buf);
        let Some(second) = filled.next() else {
            return self.poll_encrypt(cx, first);
        };
        ready!(self.poll_send(cx))?;
        let mut together = Vec::new();
        for buf in [first, second].into_iter().chain(filled.map(|buf| &**buf)) {
            let room = TEXT_BYTES.saturating_sub(together.len());
            together.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        self.poll_encrypt(cx, &together)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_send(cx))?;
        if !this.said_end {
            this.said_end = true;
            let UnbufferedStatus { state, .. } =
                this.session.process_tls_records(&mut this.incoming);
            if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
                this.outgoing.resize(OVERHEAD_BYTES, 0);
                let written = traffic.queue_close_notify(&mut this.outgoing).unwrap_or(0);
                this.outgoing.truncate(written);
            }
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

//! As little HTTP/1.1 as a load tool needs: keep-alive connections and bodies of a declared length.
//!
//! Written by hand because the tool shares its cores with the server it measures: a general client
//! would cost more than the server's own part. It speaks to servers and clients on loopback that are
//! part of the bench, so anything unexpected is an error rather than something to cope with.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest answer that is waited for: a batch of 1,000 ids has about 34 kB.
const ANSWER_BYTES: usize = 1024 * 1024;
const READ_BYTES: usize = 16 * 1024;

/// Reads a head and gives every field to `field`; `None` while the head is not complete.
/// Returns the first line and the length of the head with its empty line.
pub(crate) fn read_head<'a>(
    bytes: &'a [u8],
    mut field: impl FnMut(&'a [u8], &'a [u8]),
) -> Option<(&'a [u8], usize)> {
    let mut first = None;
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let newline = rest.iter().position(|&byte| byte == b'\n')?;
        let line = rest[..newline].trim_ascii_end();
        at += newline + 1;
        match first {
            None => first = Some(line),
            Some(first) if line.is_empty() => return Some((first, at)),
            Some(_) => {
                if let Some(colon) = line.iter().position(|&byte| byte == b':') {
                    field(&line[..colon], line[colon + 1..].trim_ascii_start());
                }
            }
        }
    }
}

/// A decimal number, such as a content length.
pub(crate) fn decimal(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// One answer, borrowed from its connection until the next exchange.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    /// Status line and fields.
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// A keep-alive connection that carries one exchange after another.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Writes the request, which is a whole head and body, and reads its answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            if filled == self.buffer.len() {
                if filled >= ANSWER_BYTES {
                    return Err(unexpected("the answer is longer than 1 MiB"));
                }
                self.buffer.resize(filled * 2, 0);
            }
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if let Some(shape) = shape(&self.buffer[..filled])? {
                return Ok(Answer {
                    status: shape.status,
                    head: &self.buffer[..shape.head],
                    body: &self.buffer[shape.head..shape.head + shape.body],
                });
            }
        }
    }
}

/// Where the parts of a complete answer are.
struct Shape {
    status: u16,
    head: usize,
    body: usize,
}

fn shape(bytes: &[u8]) -> io::Result<Option<Shape>> {
    let mut length = None;
    let mut chunked = false;
    let head = read_head(bytes, |name, value| {
        if name.eq_ignore_ascii_case(b"content-length") {
            length = decimal(value);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            chunked = true;
        }
    });
    let Some((line, head)) = head else {
        return Ok(None);
    };
    let status = line
        .get(9..12)
        .and_then(decimal)
        .and_then(|code| u16::try_from(code).ok())
        .ok_or_else(|| unexpected("the answer has no status line"))?;
    let body = match (length, status) {
        _ if chunked => return Err(unexpected("the answer comes in chunks")),
        (Some(length), _) => length,
        (None, 204 | 304) => 0,
        (None, _) => return Err(unexpected("the answer has no content length")),
    };
    if bytes.len() < head + body {
        return Ok(None);
    }
    if bytes.len() > head + body {
        return Err(unexpected("there is more than one answer"));
    }
    Ok(Some(Shape { status, head, body }))
}

fn unexpected(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

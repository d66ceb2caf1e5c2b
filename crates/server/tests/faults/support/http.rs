//! As little HTTP/1.1 as the tests need: bytes out, one answer in. By hand, because half of the
//! requests here are ones that no proper client would send.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{SOON, within};

/// One answer.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A request to be written out.
pub(crate) struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self {
            head: format!("{method} {path} HTTP/1.1\r\nhost: hookturn\r\n"),
            body: Vec::new(),
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        for part in [name, ": ", value, "\r\n"] {
            self.head.push_str(part);
        }
        self
    }

    pub(crate) fn body(self, body: &[u8]) -> Self {
        let length = body.len().to_string();
        let mut with = self
            .header("content-type", "application/json")
            .header("content-length", &length);
        with.body = body.to_vec();
        with
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), b"\r\n", &self.body].concat()
    }
}

/// One connection to the server.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Says that nothing more will come, and stays for the answer.
    pub(crate) async fn close_half(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// The next answer. The end of the connection before it is an error.
    pub(crate) async fn reply(&mut self) -> io::Result<Reply> {
        loop {
            if let Some((reply, used)) = parse(&self.buffer)? {
                self.buffer.drain(..used);
                return Ok(reply);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads until the server closes; what it said until then.
    pub(crate) async fn rest(mut self) -> Vec<u8> {
        while let Ok(1..) = self.stream.read_buf(&mut self.buffer).await {}
        self.buffer
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<(Reply, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let strange = || io::Error::from(io::ErrorKind::InvalidData);
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| strange())?;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut reply = Reply {
        status: status.ok_or_else(strange)?,
        headers,
        body: Vec::new(),
    };
    if reply.status == 100 {
        return parse(&bytes[end + 4..])
            .map(|found| found.map(|(reply, used)| (reply, used + end + 4)));
    }
    let length = match reply.header("content-length") {
        Some(text) => text.parse().map_err(|_| strange())?,
        None => 0,
    };
    let body = &bytes[end + 4..];
    if body.len() < length {
        return Ok(None);
    }
    reply.body = body[..length].to_vec();
    Ok(Some((reply, end + 4 + length)))
}

/// The API with a key: one connection for each call.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
}

impl Api {
    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        Request::new(method, path).header("authorization", &format!("Bearer {}", self.key))
    }

    /// Sends a request that must be answered.
    pub(crate) async fn send(&self, request: Request) -> Reply {
        let sent = self.try_send(request).await;
        sent.unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// Sends a request that may fail because the server is gone.
    pub(crate) async fn try_send(&self, request: Request) -> io::Result<Reply> {
        let exchange = async {
            let mut connection = Connection::open(self.address).await?;
            connection.write(&request.bytes()).await?;
            connection.reply().await
        };
        within(SOON, "an answer of the API", exchange).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(self.request("GET", path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Option<&Value>) -> Reply {
        let request = self.request("POST", path);
        self.send(match body {
            Some(body) => request.body(body.to_string().as_bytes()),
            None => request,
        })
        .await
    }

    /// A POST that must be answered with 201.
    pub(crate) async fn created(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, Some(body)).await;
        assert_eq!(reply.status, 201, "{path}: {reply:?}");
        reply.json()
    }
}

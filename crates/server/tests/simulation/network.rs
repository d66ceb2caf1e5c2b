//! The network of a simulation: connections are pipes, and whoever is behind one answers when a request
//! is whole, at that very moment.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use hookturn::outbound::{Dial, Dialling, Wire};
use hookturn_core::time::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::clock::SimClock;
use crate::judge::{Judge, Sender, number_in};
use crate::member::Node;
use crate::receiver::{Answer, Arrived};

/// The port of the first endpoint; each has one of its own.
pub(crate) const FIRST_PORT: u16 = 10_000;

/// Dials receivers by their ports.
pub(crate) struct Net {
    pub(crate) judge: Arc<Mutex<Judge>>,
    pub(crate) clock: Arc<SimClock>,
    /// Who sends, if it is one of several.
    pub(crate) node: Option<Arc<Node>>,
}

impl Dial for Net {
    fn dial(&self, remote: SocketAddr) -> Dialling<'_> {
        let (target, open) = {
            let judge = self.judge.lock().unwrap();
            let mut targets = judge.targets.iter();
            let target = targets.position(|target| target.port == remote.port());
            let target = target.unwrap();
            (target, judge.targets[target].receiver.takes_connections())
        };
        let pipe = Pipe {
            judge: Arc::clone(&self.judge),
            clock: Arc::clone(&self.clock),
            node: self.node.clone(),
            target,
            arriving: Vec::new(),
            about: None,
            answering: Answering::Nothing,
            reader: None,
        };
        Box::pin(async move {
            if open {
                Ok(Box::new(pipe) as Box<dyn Wire>)
            } else {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        })
    }
}

/// One connection, seen from the sender.
struct Pipe {
    judge: Arc<Mutex<Judge>>,
    clock: Arc<SimClock>,
    node: Option<Arc<Node>>,
    target: usize,
    arriving: Vec<u8>,
    /// The number of the message that is being answered.
    about: Option<u32>,
    answering: Answering,
    reader: Option<Waker>,
}

enum Answering {
    Nothing,
    Later(Pin<Box<Sleep>>, u16),
    Now(Vec<u8>),
    Closed,
}

impl Pipe {
    /// Takes the next whole request out of what arrived.
    fn request(&mut self) -> Option<Arrived> {
        let end = self
            .arriving
            .windows(4)
            .position(|four| four == b"\r\n\r\n")?
            + 4;
        let text = std::str::from_utf8(&self.arriving[..end]).ok()?;
        let head: Vec<(String, String)> = text
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = head.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.map_or(Some(0), |(_, value)| value.parse().ok())?;
        if self.arriving.len() < end + length {
            return None;
        }
        let body = self.arriving[end..end + length].to_vec();
        self.arriving.drain(..end + length);
        Some(Arrived { head, body })
    }

    fn answer(&mut self, request: &Arrived) {
        self.about = number_in(&request.body);
        let now = self.clock.now();
        let endpoint = self.judge.lock().unwrap().targets[self.target].id;
        let sender = self.node.as_ref().map(|node| Sender {
            node: node.id,
            owns: node.link.base.owner(endpoint) == Some(node.id),
            excuse: node.clock.excuse(),
        });
        let mut judge = self.judge.lock().unwrap();
        let answer = judge.arrived((self.target, sender), request, now);
        drop(judge);
        self.answering = match answer {
            Answer::Status(status, delay) => Answering::Later(Box::pin(sleep(delay)), status),
            Answer::Never => Answering::Nothing,
            Answer::Close => Answering::Closed,
        };
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Pipe {
    /// An answer reaches its node, which may not be able to sign a fallback any more.
    fn heard(&self) {
        if let (Some(node), Some(number)) = (&self.node, self.about)
            && !node.live.is_confirmed()
        {
            let mut judge = self.judge.lock().unwrap();
            judge.heard_in_vain(self.target, number);
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.answering, Answering::Closed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.arriving.extend_from_slice(bytes);
        if let Some(request) = self.request() {
            self.answer(&request);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Answering::Later(sleep, status) = &mut self.answering {
            let status = *status;
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.heard();
            let text = format!("HTTP/1.1 {status} Sim\r\ncontent-length: 0\r\n\r\n");
            self.answering = Answering::Now(text.into_bytes());
        }
        match std::mem::replace(&mut self.answering, Answering::Nothing) {
            Answering::Now(mut bytes) => {
                let count = bytes.len().min(into.remaining());
                into.put_slice(&bytes[..count]);
                bytes.drain(..count);
                if !bytes.is_empty() {
                    self.answering = Answering::Now(bytes);
                }
                Poll::Ready(Ok(()))
            }
            Answering::Closed => {
                self.answering = Answering::Closed;
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            Answering::Nothing | Answering::Later(..) => {
                self.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

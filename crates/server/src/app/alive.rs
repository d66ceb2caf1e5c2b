//! Whether a server on this machine answers: one request over a connection of its own, as any client makes it.
//!
//! It goes the whole way (the kernel's queue, the task that accepts, the runtime's threads, the router), so an
//! answer proves what a client would find. It does not go through `outbound`: the address is the server's own.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Failure;
use super::process::on_runtime;

/// Where a server that listens on `listen` is found from the same machine.
pub fn address_of(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Asks for a path and returns the status of the answer. No answer in time is an error.
pub fn ask(
    listen: SocketAddr,
    path: &str,
    patience: Duration,
) -> Result<std::io::Result<u16>, Failure> {
    on_runtime(status(address_of(listen), path, patience))
}

/// The same within a runtime, with the address itself.
pub(super) async fn status(
    address: SocketAddr,
    path: &str,
    patience: Duration,
) -> std::io::Result<u16> {
    timeout(patience, exchange(address, path))
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

async fn exchange(address: SocketAddr, path: &str) -> std::io::Result<u16> {
    /// `HTTP/1.1 200`, which is all that is read.
    const STATUS: usize = 12;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = [0; STATUS];
    stream.read_exact(&mut line).await?;
    let line = std::str::from_utf8(&line).ok();
    line.and_then(|line| line.strip_prefix("HTTP/1.1 ")?.parse().ok())
        .ok_or_else(|| Error::new(ErrorKind::InvalidData, "the answer is not one of HTTP/1.1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8090", "127.0.0.1:8090"),
            ("[::]:8090", "[::1]:8090"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            assert_eq!(address_of(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}

//! From an address to a connection, where something else than TCP shall be dialled.
//!
//! The server dials TCP, but for its own test inbox, which it reaches over a pipe. It is also the seam by
//! which a whole sender runs over a network that a test makes up: on a virtual clock, with answers that
//! are lost on purpose.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// Both directions of a connection that speaks HTTP/1.1 without TLS.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// The future of one connection.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>> + Send + 'a>>;

/// Connects to an address that the policy has allowed. Injected, as
/// [`Resolve`](super::resolver::Resolve) is.
pub trait Dial: Send + Sync {
    /// A new connection to `remote`. The caller bounds the time.
    fn dial(&self, remote: SocketAddr) -> Dialling<'_>;
}

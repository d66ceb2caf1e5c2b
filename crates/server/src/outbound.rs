//! The one way out: every request that Hookturn makes to a receiver goes through [`Client`].
//!
//! # Guarantee (G10)
//!
//! A receiver cannot hurt the sender or another receiver:
//!
//! - **Where**: [`AddressPolicy`] is asked at configuration, at send and at connect. Every DNS answer is
//!   classified, a mixed answer is refused whole, and the connection is made only to addresses that were
//!   classified. No redirect is followed, no proxy is read from the environment, and metadata services
//!   are refused whatever is configured. The one name that needs no address is that of the test inbox
//!   ([`INBOX_HOST`]): it is answered within this process, over a pipe.
//! - **Time**: one deadline covers DNS, connect, TLS, headers and body.
//! - **Bytes**: of a head at most 4 KiB and 64 headers are kept and the rest is left out, up to 64 KiB, over
//!   HTTP/1.1 and HTTP/2 alike: a delivery is judged by its status, whatever stands beside it. A larger head is
//!   a failure of its own kind. At most 16 KiB of body is kept and the rest is not read; all bytes of an
//!   exchange together are counted below the parser, so that nothing endless is worked through. Nothing is
//!   decompressed.
//! - **Memory**: what an exchange holds of its answer is at most
//!   [`ATTEMPT_BYTES`](hookturn_core::limits::ATTEMPT_BYTES), its HTTP/1.1 connection and TLS included. A
//!   connection of HTTP/2, which serves many exchanges at once, holds up to 48 KiB of its own beside that. The
//!   parser of HTTP/2 would take several times its bound for a head of many fields, so it gets no more than what
//!   is kept (`frames`).
//! - **Connections**: those kept are bounded per host, in all and in time; those in use by the caller's
//!   permits.
//!
//! # Shape
//!
//! [`Target`] parses an endpoint's URL once. Whatever a receiver does, [`Client::send`] returns a value:
//! an [`Exchange`] holds the answer or a [`Failure`] with its kind, a plain sentence and advice. Headers
//! are made by the caller when a connection stands and can take the request, so that a signature in
//! them is not older than the request on the wire (G4). HTTP/1.1 connections are driven
//! by the task that uses them (`connection`), which costs less than a task and a channel for each;
//! HTTP/2 is used where TLS negotiates it.
//!
//! # Not promised
//!
//! That a failed request was not processed: a receiver may process it and then vanish. Nor that a request
//! reaches the receiver once: where a connection that was kept alive ends before a byte of the answer, it is
//! sent once more. Deliveries carry the same message id each time for that reason; a probe, which must not come
//! twice, goes [at most once](Sending::AtMostOnce).

pub mod address;
mod client;
mod config;
mod connect;
mod connection;
mod dial;
mod exchange;
mod fields;
mod frames;
mod head;
pub mod headers;
mod outcome;
mod pieces;
mod pool;
pub mod resolver;
mod stream;
mod target;
mod tls;

pub use address::{AddressPolicy, Network, Refused, Rule};
pub use client::{Client, Request, Sending};
pub use config::{ClientConfig, ConfigError, RESPONSE_HEAD_BYTES};
pub use dial::{Dial, Dialling, Wire};
pub use headers::{HeaderRefused, check_custom_header, check_custom_headers};
pub use outcome::{Exchange, Failure, FailureKind, Response, RetryAfter, Timings};
pub use resolver::{Resolve, ResolveError, Resolving, SystemResolver};
pub use target::{INBOX_HOST, Target};

//! From a target to a connection: resolve, judge every address, connect to those, shake hands.
//!
//! This is the only place of the product that opens a connection to a receiver.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::address::Refused;
use super::config::{ClientConfig, KEPT_HEAD_BYTES, RESPONSE_HEAD_H2_BYTES};
use super::connection::{Claimed, Connection, H1, H2};
use super::dial::Dial;
use super::exchange::{Phase, Trace};
use super::outcome::{Failure, FailureKind};
use super::stream::{Allowance, Stream, Transport};
use super::target::Target;
use super::tls::Tls;

/// After this time without an answer the next address is tried beside the first (RFC 8305).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried in one exchange.
const ADDRESSES_TRIED: usize = 6;

/// Body bytes of one HTTP/2 stream that may be on their way to us.
const STREAM_WINDOW_BYTES: u32 = 16 * 1024;
/// Body bytes of all streams of one HTTP/2 connection that may be on their way to us.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// A new connection to the target.
pub(super) async fn connect(
    config: &ClientConfig,
    target: &Target,
    trace: &mut Trace,
) -> Result<Connection, Failure> {
    if target.is_inbox() {
        return to_inbox(config, target, trace).await;
    }
    let addresses = addresses(config, target, trace).await?;
    trace.enter(Phase::Connect);
    let started = Instant::now();
    if let Some(dialer) = &config.dialer {
        return over_injected(dialer.as_ref(), &addresses, target, trace).await;
    }
    let (tcp, remote) = dial(&addresses, port(config, target)).await?;
    trace.timings.connect = Some(micros(started));
    trace.remote = Some(remote);
    // Requests are written whole; waiting to fill a segment would only delay them.
    tcp.set_nodelay(true)
        .map_err(|error| connect_failure(remote, &error))?;
    let allowance = Arc::new(Allowance::default());
    if !target.is_tls() {
        let stream = Stream::http1(Transport::Plain(tcp), Arc::clone(&allowance));
        return http1(stream, allowance, remote).await;
    }
    trace.enter(Phase::Tls);
    let started = Instant::now();
    let tls = shake_hands(config, target, tcp).await.map_err(|error| {
        Failure::new(
            FailureKind::Tls,
            format!("the TLS handshake with {} failed: {error}", target.host()),
        )
    })?;
    trace.timings.tls = Some(micros(started));
    let is_http2 = tls.alpn_protocol() == Some(b"h2");
    let transport = Transport::Tls(Box::new(tls));
    if is_http2 {
        let stream = Stream::http2(transport, Arc::clone(&allowance));
        http2(stream, allowance, remote).await
    } else {
        let stream = Stream::http1(transport, Arc::clone(&allowance));
        http1(stream, allowance, remote).await
    }
}

/// A pipe to the test inbox inside this process. Its address is that of nobody.
async fn to_inbox(
    config: &ClientConfig,
    target: &Target,
    trace: &mut Trace,
) -> Result<Connection, Failure> {
    trace.enter(Phase::Connect);
    let inbox = config.inbox.as_deref().ok_or_else(|| {
        let detail = format!(
            "{} is the test inbox, and this process has none",
            target.host()
        );
        Failure::new(FailureKind::Refused, detail)
    })?;
    let nobody = [IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    over_injected(inbox, &nobody, target, trace).await
}

/// A connection by whatever stands in for TCP, to the first of the addresses that were judged.
async fn over_injected(
    dialer: &dyn Dial,
    addresses: &[IpAddr],
    target: &Target,
    trace: &mut Trace,
) -> Result<Connection, Failure> {
    let ip = addresses
        .first()
        .ok_or_else(|| Failure::new(FailureKind::Connect, "there was no address to connect to"))?;
    let remote = SocketAddr::new(*ip, target.port());
    let started = Instant::now();
    let wire = dialer.dial(remote).await;
    let wire = wire.map_err(|error| connect_failure(remote, &error))?;
    trace.timings.connect = Some(micros(started));
    trace.remote = Some(remote);
    let allowance = Arc::new(Allowance::default());
    let stream = Stream::http1(Transport::Injected(wire), Arc::clone(&allowance));
    http1(stream, allowance, remote).await
}

/// Shakes hands, beside the caller's thread where there is a runtime for it: the arithmetic of a
/// handshake takes up to milliseconds, in which a shard would do nothing for anyone else (G10). The
/// stream stays registered with the caller's runtime, which goes on to use it.
async fn shake_hands(
    config: &ClientConfig,
    target: &Target,
    tcp: TcpStream,
) -> std::io::Result<Tls> {
    let handshake = Tls::connect(Arc::clone(&config.tls), target.server_name().clone(), tcp);
    match &config.handshakes {
        None => handshake.await,
        // Dropped with the exchange when its deadline passes, so that nothing shakes on unseen.
        Some(runtime) => AbortOnDropHandle::new(runtime.spawn(handshake))
            .await
            .map_err(std::io::Error::other)?,
    }
}

/// The target's addresses, all of them allowed by the policy.
async fn addresses(
    config: &ClientConfig,
    target: &Target,
    trace: &mut Trace,
) -> Result<Vec<IpAddr>, Failure> {
    if let Some(ip) = target.literal() {
        config.policy.check_addr(ip).map_err(refused)?;
        return Ok(vec![ip]);
    }
    if let Some(known) = config.hosts.get(target.host()) {
        let answers = vec![known.ip];
        config
            .policy
            .check_answers(target.host(), &answers)
            .map_err(refused)?;
        return Ok(answers);
    }
    trace.enter(Phase::Dns);
    let started = Instant::now();
    let answers = config
        .resolver
        .resolve(target.host())
        .await
        .map_err(|error| Failure::new(FailureKind::Dns, error.0))?;
    trace.timings.dns = Some(micros(started));
    config
        .policy
        .check_answers(target.host(), &answers)
        .map_err(refused)?;
    Ok(in_turns(answers))
}

/// The port of the URL, unless the name's address is configured with another.
fn port(config: &ClientConfig, target: &Target) -> u16 {
    let known = config.hosts.get(target.host());
    known
        .and_then(|known| known.port)
        .unwrap_or_else(|| target.port())
}

/// IPv4 and IPv6 in turns, so that a broken family delays and does not prevent. IPv4 first: where
/// servers live, it is the family that is less often half configured.
fn in_turns(answers: Vec<IpAddr>) -> Vec<IpAddr> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = answers.into_iter().partition(IpAddr::is_ipv4);
    let mut ordered = Vec::with_capacity(v4.len() + v6.len());
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    loop {
        let pair = (v4.next(), v6.next());
        if pair == (None, None) {
            ordered.truncate(ADDRESSES_TRIED);
            return ordered;
        }
        ordered.extend(pair.0);
        ordered.extend(pair.1);
    }
}

/// Connects to the first address that answers; the next one starts when the last failed or is slow.
async fn dial(addresses: &[IpAddr], port: u16) -> Result<(TcpStream, SocketAddr), Failure> {
    let mut waiting = addresses.iter().map(|&ip| SocketAddr::new(ip, port));
    let mut trying = FuturesUnordered::new();
    let mut last = None;
    loop {
        if let Some(remote) = waiting.next() {
            trying.push(async move { (TcpStream::connect(remote).await, remote) });
        } else if trying.is_empty() {
            return Err(last.unwrap_or_else(|| {
                Failure::new(FailureKind::Connect, "there was no address to connect to")
            }));
        }
        let patience = if waiting.len() == 0 {
            Duration::MAX
        } else {
            NEXT_ADDRESS_AFTER
        };
        match tokio::time::timeout(patience, trying.next()).await {
            Ok(Some((Ok(tcp), remote))) => return Ok((tcp, remote)),
            Ok(Some((Err(error), remote))) => last = Some(connect_failure(remote, &error)),
            Ok(None) | Err(_) => {}
        }
    }
}

async fn http1(
    stream: Stream,
    allowance: Arc<Allowance>,
    remote: SocketAddr,
) -> Result<Connection, Failure> {
    let (sender, connection) = http1::Builder::new()
        .read_buf_exact_size(Some(KEPT_HEAD_BYTES))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| handshake_failure(&error))?;
    Ok(Connection::H1(H1::new(
        sender, connection, allowance, remote,
    )))
}

async fn http2(
    stream: Stream,
    allowance: Arc<Allowance>,
    remote: SocketAddr,
) -> Result<Connection, Failure> {
    allowance.grant(H2::OPENING_BYTES, H2::OPENING_BYTES);
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(RESPONSE_HEAD_H2_BYTES)
        // So that headers can be left out: none refers to another.
        .header_table_size(0)
        .max_send_buf_size(STREAM_WINDOW_BYTES as usize)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| handshake_failure(&error))?;
    let connection = H2::start(sender, connection, allowance, remote);
    Ok(Connection::H2(Claimed::first(connection)))
}

fn refused(refused: Refused) -> Failure {
    Failure::new(FailureKind::Refused, refused.detail)
}

fn connect_failure(remote: SocketAddr, error: &std::io::Error) -> Failure {
    Failure::new(
        FailureKind::Connect,
        format!("connecting to {remote} failed: {error}"),
    )
}

fn handshake_failure(error: &hyper::Error) -> Failure {
    Failure::new(
        FailureKind::BadResponse,
        format!("the HTTP connection could not be started: {error}"),
    )
}

/// Microseconds since `started`.
pub(super) fn micros(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}

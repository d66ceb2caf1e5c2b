//! The client: policy, pool, connection, exchange, under one deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::USER_AGENT;
use http_body_util::Full;
use tokio::time::{Instant, timeout, timeout_at};

use hookturn_core::limits::TIMEOUT_MAX;
use hookturn_core::time::Millis;

use super::config::ClientConfig;
use super::connect::{connect, micros};
use super::connection::{Claimed, Connection, Message};
use super::exchange::{Phase, Stopped, Trace, over_h1, over_h2};
use super::outcome::{Exchange, Failure, FailureKind, Response};
use super::pool::Pool;
use super::target::Target;

/// A request to a receiver, without its headers: these are made when a connection can take it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method, `POST` for deliveries.
    pub method: http::Method,
    /// Where it goes.
    pub target: Arc<Target>,
    /// The body, sent as it is.
    pub body: Bytes,
    /// Time for everything: DNS, connect, TLS, headers and body; cut to
    /// [`TIMEOUT_MAX`].
    pub timeout_millis: Millis,
    /// Time for DNS, connect and TLS together, within the above.
    pub connect_timeout_millis: Millis,
    /// How often it may be written.
    pub sending: Sending,
}

/// How often a request may be written on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// A connection that was kept alive is used where there is one. Where it turns out to be gone, the
    /// request goes once more: a delivery, which must arrive, and may arrive twice.
    AtLeastOnce,
    /// Never twice: a probe, whose every copy would be another question. So it goes over a connection of
    /// its own, which cannot have been closed before, and costs no wrong "no answer" for that.
    AtMostOnce,
}

/// Sends requests and keeps connections. One for each delivery shard: the connections belong to the
/// runtime that made them.
pub struct Client {
    config: Arc<ClientConfig>,
    pool: Arc<Pool>,
}

impl Client {
    /// A client without connections.
    pub fn new(config: Arc<ClientConfig>) -> Self {
        let pool = Pool::new(config.idle_per_host, config.idle_total, config.idle_for);
        Self {
            config,
            pool: Arc::new(pool),
        }
    }

    /// Idle connections kept now.
    pub fn idle_connections(&self) -> usize {
        self.pool.len()
    }

    /// Sends one request and reads the bounded answer. Whatever the receiver does is in the value.
    ///
    /// `headers` makes the headers, all but `host`, `content-length` and those of the connection,
    /// which the client sets. It is asked when a connection stands, handshakes included, and can
    /// take the request; what it returns is written in the same turn. So a signature in it is as
    /// old as the request on the wire (G4). Its error is returned as it is: then nothing was sent
    /// that a receiver processed.
    ///
    /// A request that goes [at most once](Sending::AtMostOnce) takes no connection that was kept alive, and leaves
    /// none. Another one is written at most once, except when a connection that was kept alive turns out to be
    /// gone: the receiver closed an HTTP/1.1 connection before the first byte of its answer, or it refused
    /// an HTTP/2 stream. Then it goes once more over a new connection, with headers made anew, within the
    /// same deadline. In the first case the receiver may have processed it all the same, and sees the same
    /// message id a second time: [`Exchange::resent`] says so. What fails on a new connection is not
    /// repeated here. Dropping the future closes the connection it used.
    pub async fn send<E>(
        &self,
        request: Request,
        headers: impl FnMut() -> Result<HeaderMap, E>,
    ) -> Result<Exchange, E> {
        let mut trace = Trace::new(Instant::now());
        let sent = match self.config.policy.check_target(&request.target) {
            Ok(()) => self.send_in_time(&request, headers, &mut trace).await,
            Err(refused) => Err(Failure::new(FailureKind::Refused, refused.detail).into()),
        };
        trace.timings.total = micros(trace.started);
        let result = match sent {
            Ok(response) => Ok(response),
            Err(Stopped::Failed(failure) | Stopped::Stale(failure)) => Err(failure),
            Err(Stopped::Unsent) => Err(Failure::new(
                FailureKind::Reset,
                "the receiver closed a new connection before it took the request",
            )),
            Err(Stopped::Withheld(error)) => return Err(error),
        };
        Ok(Exchange {
            result: result.map_err(|failure| trace.with_the_first_try(failure)),
            timings: trace.timings,
            reused: trace.reused,
            resent: trace.resent,
            remote: trace.remote,
        })
    }

    async fn send_in_time<E>(
        &self,
        request: &Request,
        headers: impl FnMut() -> Result<HeaderMap, E>,
        trace: &mut Trace,
    ) -> Result<Response, Stopped<E>> {
        let millis = request.timeout_millis.min(TIMEOUT_MAX);
        let deadline = trace.started + Duration::from_millis(millis);
        if let Ok(result) = timeout_at(deadline, self.attempt(request, headers, trace)).await {
            return result;
        }
        // A receiver that vanished without a word takes its shared connection with it; what follows
        // must not wait on it.
        if let Some(id) = trace.h2 {
            self.pool.forget_h2(request.target.key(), id);
        }
        Err(timed_out(FailureKind::Timeout, millis, trace).into())
    }

    /// Over an idle connection if there is one that still stands, else over a new one.
    async fn attempt<E>(
        &self,
        request: &Request,
        mut headers: impl FnMut() -> Result<HeaderMap, E>,
        trace: &mut Trace,
    ) -> Result<Response, Stopped<E>> {
        let target = &request.target;
        let mut stale = None;
        while let Some(connection) = self.kept(request, trace.started) {
            trace.reused = true;
            let shared = matches!(connection, Connection::H2(_));
            match self
                .exchange(connection, request, &mut headers, trace)
                .await
            {
                Err(Stopped::Unsent) if shared => break,
                Err(Stopped::Unsent) => {}
                Err(Stopped::Stale(failure)) => {
                    // Whatever else is idle may be as stale, and twice is enough.
                    stale = Some(failure);
                    break;
                }
                done => return done,
            }
        }
        trace.reused = false;
        trace.resent = stale.is_some();
        let limit = request.connect_timeout_millis;
        let connection = self.connect(target, limit, trace).await?;
        match (
            self.exchange(connection, request, headers, trace).await,
            stale,
        ) {
            // It may not be signed any longer, but it was sent: that is what came of it.
            (Err(Stopped::Withheld(_)), Some(failure)) => {
                trace.resent = false;
                Err(Stopped::Failed(failure))
            }
            (done, _) => done,
        }
    }

    fn kept(&self, request: &Request, now: Instant) -> Option<Connection> {
        match request.sending {
            Sending::AtLeastOnce => self.pool.take(request.target.key(), now),
            Sending::AtMostOnce => None,
        }
    }

    async fn connect(
        &self,
        target: &Target,
        limit_millis: Millis,
        trace: &mut Trace,
    ) -> Result<Connection, Failure> {
        let limit = Duration::from_millis(limit_millis.min(TIMEOUT_MAX));
        match timeout(limit, connect(&self.config, target, trace)).await {
            Ok(connected) => connected,
            Err(_) => Err(timed_out(FailureKind::ConnectTimeout, limit_millis, trace)),
        }
    }

    /// Sends over this connection and puts it back if it can serve again.
    async fn exchange<E>(
        &self,
        connection: Connection,
        request: &Request,
        headers: impl FnOnce() -> Result<HeaderMap, E>,
        trace: &mut Trace,
    ) -> Result<Response, Stopped<E>> {
        let compose = move || headers().map(|headers| self.message(request, headers));
        let target = &request.target;
        match connection {
            Connection::H1(mut h1) => {
                let finished = over_h1(&mut h1, compose, target, trace).await?;
                if finished.reusable && request.sending == Sending::AtLeastOnce {
                    self.pool
                        .put_h1(target.key(), h1, finished.announced, Instant::now());
                }
                Ok(finished.response)
            }
            Connection::H2(h2) => {
                if !trace.reused && request.sending == Sending::AtLeastOnce {
                    // Others may join while this exchange runs.
                    self.pool
                        .put_h2(target.key(), h2.connection(), Instant::now());
                }
                self.exchange_h2(h2, compose, target, trace).await
            }
        }
    }

    fn message(&self, request: &Request, headers: HeaderMap) -> Message {
        let mut message = Message::new(Full::new(request.body.clone()));
        *message.method_mut() = request.method.clone();
        *message.headers_mut() = headers;
        message
            .headers_mut()
            .entry(USER_AGENT)
            .or_insert_with(|| self.config.user_agent.clone());
        message
    }

    async fn exchange_h2<E>(
        &self,
        mut claimed: Claimed,
        compose: impl FnOnce() -> Result<Message, E>,
        target: &Target,
        trace: &mut Trace,
    ) -> Result<Response, Stopped<E>> {
        let result = over_h2(&mut claimed, compose, target, trace).await;
        if let Err(Stopped::Unsent | Stopped::Failed(_)) = result {
            self.pool.forget_h2(target.key(), claimed.connection().id());
        }
        trace.h2 = None;
        result
    }
}

/// That a limit passed. While the name is looked up, whichever limit that was, there is nobody yet to connect to
/// or to answer: it is the name that failed.
fn timed_out(kind: FailureKind, millis: Millis, trace: &Trace) -> Failure {
    if trace.phase == Phase::Dns {
        return Failure::new(
            FailureKind::Dns,
            format!("the name was not resolved within {millis} ms: no name server answered"),
        );
    }
    let status = match trace.status {
        Some(status) => format!(" (status {status})"),
        None => String::new(),
    };
    Failure::new(
        kind,
        format!(
            "no complete answer within {millis} ms; the time ran out while {}{status}",
            trace.phase.words()
        ),
    )
}

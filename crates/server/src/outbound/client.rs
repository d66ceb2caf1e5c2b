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
use super::connection::{Connection, H2, Message};
use super::exchange::{Stopped, Trace, over_h1, over_h2};
use super::outcome::{Exchange, Failure, FailureKind, Response};
use super::pool::Pool;
use super::target::Target;

/// A request to a receiver.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method, `POST` for deliveries.
    pub method: http::Method,
    /// Where it goes.
    pub target: Arc<Target>,
    /// All headers but `host`, `content-length` and those of the connection, which the client sets.
    pub headers: HeaderMap,
    /// The body, sent as it is.
    pub body: Bytes,
    /// Time for everything: DNS, connect, TLS, headers and body; cut to
    /// [`TIMEOUT_MAX`].
    pub timeout_millis: Millis,
    /// Time for DNS, connect and TLS together, within the above.
    pub connect_timeout_millis: Millis,
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

    /// Sends one request and reads the bounded answer. Whatever happens is in the value.
    ///
    /// The request is written at most once, except when a receiver provably did not process it: it
    /// was never written because the kept-alive connection had been closed, or an HTTP/2 receiver
    /// refused the stream. Then it goes once more over a new connection, within the same deadline.
    /// Dropping the future closes the connection it used.
    pub async fn send(&self, request: Request) -> Exchange {
        let mut trace = Trace::new(Instant::now());
        let result = match self.config.policy.check_target(&request.target) {
            Ok(()) => self.send_in_time(request, &mut trace).await,
            Err(refused) => Err(Failure::new(FailureKind::Refused, refused.detail)),
        };
        trace.timings.total = micros(trace.started);
        Exchange {
            result,
            timings: trace.timings,
            reused: trace.reused,
            remote: trace.remote,
        }
    }

    async fn send_in_time(&self, request: Request, trace: &mut Trace) -> Result<Response, Failure> {
        let millis = request.timeout_millis.min(TIMEOUT_MAX);
        let deadline = trace.started + Duration::from_millis(millis);
        let key = Arc::clone(request.target.key());
        if let Ok(result) = timeout_at(deadline, self.attempt(request, trace)).await {
            return result;
        }
        // A receiver that vanished without a word takes its shared connection with it; what follows
        // must not wait on it.
        if let Some(id) = trace.h2 {
            self.pool.forget_h2(&key, id);
        }
        Err(timed_out(FailureKind::Timeout, millis, trace))
    }

    async fn attempt(&self, request: Request, trace: &mut Trace) -> Result<Response, Failure> {
        let Request {
            method,
            target,
            headers,
            body,
            connect_timeout_millis,
            ..
        } = request;
        let mut message = Message::new(Full::new(body));
        *message.method_mut() = method;
        *message.headers_mut() = headers;
        if !message.headers().contains_key(USER_AGENT) {
            message
                .headers_mut()
                .insert(USER_AGENT, self.config.user_agent.clone());
        }
        while let Some(connection) = self.pool.take(target.key(), trace.started) {
            trace.reused = true;
            let shared = matches!(connection, Connection::H2(_));
            match self.exchange(connection, message, &target, trace).await {
                Ok(response) => return Ok(response),
                Err(Stopped::Failed(failure)) => return Err(failure),
                Err(Stopped::Unsent(unsent)) => message = *unsent,
            }
            if shared {
                break;
            }
        }
        trace.reused = false;
        let connection = self.connect(&target, connect_timeout_millis, trace).await?;
        match self.exchange(connection, message, &target, trace).await {
            Ok(response) => Ok(response),
            Err(Stopped::Failed(failure)) => Err(failure),
            Err(Stopped::Unsent(_)) => Err(Failure::new(
                FailureKind::Reset,
                "the receiver closed a new connection before it took the request",
            )),
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
    async fn exchange(
        &self,
        connection: Connection,
        message: Message,
        target: &Target,
        trace: &mut Trace,
    ) -> Result<Response, Stopped> {
        match connection {
            Connection::H1(mut h1) => {
                let finished = over_h1(&mut h1, message, target, trace).await?;
                if finished.reusable {
                    self.pool
                        .put_h1(target.key(), h1, finished.announced, Instant::now());
                }
                Ok(finished.response)
            }
            Connection::H2(h2) => self.exchange_h2(h2, message, target, trace).await,
        }
    }

    async fn exchange_h2(
        &self,
        mut h2: H2,
        message: Message,
        target: &Target,
        trace: &mut Trace,
    ) -> Result<Response, Stopped> {
        if !trace.reused {
            // Others may join while this exchange runs.
            self.pool.put_h2(target.key(), &h2, Instant::now());
        }
        let result = over_h2(&mut h2, message, target, trace).await;
        if result.is_err() {
            self.pool.forget_h2(target.key(), h2.id());
        }
        trace.h2 = None;
        result
    }
}

fn timed_out(kind: FailureKind, millis: Millis, trace: &Trace) -> Failure {
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

//! The publisher: keep-alive connections that publish in a closed loop or at a set pace.
//!
//! *Closed*: every connection sends its next request when it has its answer, and all of them hold
//! while the backlog (accepted and not yet received) is at its bound, so that the rate is one that the
//! whole path sustains and the run ends soon after the load.
//!
//! *Paced*: requests are due at fixed times whatever the server does, and latency counts from that
//! time, so a server that stalls is charged for everything that had to wait (no coordinated omission).
//!
//! The requests' bytes are made once: nothing is serialised while the load runs. Where there are
//! several they take turns.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};

use crate::histogram::Histogram;
use crate::http::Connection;
use crate::number::{Epoch, Error, Nanos, nanos};
use crate::receiver::Receiver;
use crate::tally::{Published, message_ids};

/// How long the last answers may take after the load's time is over.
const GRACE: Duration = Duration::from_secs(30);
/// How often held connections are told that the backlog has shrunk.
const HOLD: Duration = Duration::from_millis(1);
/// The pacer wakes at most this often: sooner would take the processor from the server.
const PACE_MIN: Duration = Duration::from_micros(250);
/// A connection that fails this often in a row ends the run: the server is gone.
const FAILURES: u32 = 3;

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// As fast as answers come, with at most this many deliveries accepted and not received.
    Closed { backlog: u64 },
    /// This many requests a second.
    Paced { per_second: u32 },
}

/// One load, bounded in time and in messages.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The servers, over which the connections are spread; at least one.
    pub(crate) addrs: Arc<[SocketAddr]>,
    /// Whole requests, head and body, at least one; they take turns.
    pub(crate) requests: Arc<[Arc<[u8]>]>,
    /// Messages in each.
    pub(crate) messages: u64,
    /// Deliveries of each message that the receiver will count; none while endpoints are paused.
    pub(crate) fan_out: u64,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    pub(crate) time: Duration,
    pub(crate) max_messages: u64,
    /// Ends a paced load before its time.
    pub(crate) stop: Stop,
}

/// Tells a paced load that it is enough: no further request is sent, and those under way are answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the publisher saw.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) published: Vec<Published>,
    /// Requests answered 202.
    pub(crate) accepted: u64,
    /// Requests answered otherwise.
    pub(crate) refused: u64,
    /// The first other answer, for the report.
    pub(crate) refusal: Option<String>,
    /// Requests whose connection broke; whether they were accepted is not known.
    pub(crate) broken: u64,
    /// Time from a request's sending (or due time) to its 202.
    pub(crate) accept: Histogram,
    pub(crate) started: Nanos,
    pub(crate) answered: Nanos,
}

struct Shared<'a> {
    plan: &'a Plan,
    receiver: &'a Receiver,
    epoch: Epoch,
    received_before: u64,
    ends: Nanos,
    /// Requests taken by a connection so far.
    taken: Cell<u64>,
    due: Option<Due>,
    backlog_shrank: Notify,
    load: RefCell<Load>,
}

/// The pace: a permit for each request that is due.
struct Due {
    permits: Arc<Semaphore>,
    requests: u64,
    period: Duration,
}

/// Runs the load to its end on the current thread.
pub(crate) async fn run(plan: &Plan, receiver: &Receiver, epoch: Epoch) -> Result<Load, Error> {
    let mut connections = Vec::with_capacity(plan.connections);
    for &addr in plan.addrs.iter().cycle().take(plan.connections) {
        connections.push((addr, Connection::open(addr).await?));
    }
    let started = epoch.now();
    let due = match plan.pace {
        Pace::Closed { .. } => None,
        Pace::Paced { per_second } => Some(Due::new(plan, per_second)),
    };
    let stop_pacer = due
        .as_ref()
        .map(|due| due.spawn(plan.connections, epoch, started))
        .transpose()?;
    let shared = Shared {
        plan,
        receiver,
        epoch,
        received_before: receiver.count(),
        ends: started + nanos(plan.time),
        taken: Cell::new(0),
        due,
        backlog_shrank: Notify::new(),
        load: RefCell::new(Load::new(started, plan)),
    };
    let finished = timeout(plan.time + GRACE, drive(&shared, connections)).await;
    drop(stop_pacer);
    finished.map_err(|_| "the server did not answer within 30 s after the load had ended")??;
    Ok(shared.load.into_inner())
}

/// Runs all connections, and one clock for those that hold: a timer for each would cost more than
/// their requests.
async fn drive(
    shared: &Shared<'_>,
    connections: Vec<(SocketAddr, Connection)>,
) -> Result<(), Error> {
    let workers = connections
        .into_iter()
        .map(|connection| worker(shared, connection));
    let release = async {
        if shared.due.is_some() {
            // A paced load holds nobody.
            std::future::pending::<()>().await;
        }
        loop {
            sleep(HOLD).await;
            if !shared.must_hold() {
                shared.backlog_shrank.notify_waiters();
            }
        }
    };
    tokio::select! {
        finished = futures_util::future::try_join_all(workers) => finished.map(|_| ()),
        () = release => Ok(()),
    }
}

async fn worker(
    shared: &Shared<'_>,
    (addr, mut connection): (SocketAddr, Connection),
) -> Result<(), Error> {
    let mut failures = 0;
    let requests = &shared.plan.requests;
    while let Some((turn, sent)) = shared.next().await {
        let request = usize::try_from(turn).unwrap_or_default() % requests.len();
        match connection.exchange(&requests[request]).await {
            Ok(answer) => {
                shared.record((request, sent), answer.status, answer.body);
                failures = 0;
            }
            Err(error) => {
                shared.load.borrow_mut().broken += 1;
                failures += 1;
                if failures == FAILURES {
                    return Err(format!("a publishing connection keeps breaking: {error}").into());
                }
                connection = Connection::open(addr).await?;
            }
        }
    }
    Ok(())
}

impl Shared<'_> {
    /// Waits for the next request's turn and returns its number and time; `None` when the load is over.
    async fn next(&self) -> Option<(u64, Nanos)> {
        if let Some(due) = &self.due {
            // The pacer never closes the semaphore.
            due.permits.acquire().await.ok()?.forget();
            let index = self.take();
            let offset = due.period.saturating_mul(u32::try_from(index).ok()?);
            let started = self.load.borrow().started;
            let goes_on = index < due.requests && !self.plan.stop.is_told();
            return goes_on.then(|| (index, started + nanos(offset)));
        }
        loop {
            let now = self.epoch.now();
            if now >= self.ends || self.taken.get() * self.plan.messages >= self.plan.max_messages {
                return None;
            }
            if !self.must_hold() {
                return Some((self.take(), now));
            }
            self.backlog_shrank.notified().await;
        }
    }

    fn take(&self) -> u64 {
        self.taken.replace(self.taken.get() + 1)
    }

    fn must_hold(&self) -> bool {
        let Pace::Closed { backlog } = self.plan.pace else {
            return false;
        };
        let accepted = self.load.borrow().accepted * self.plan.messages * self.plan.fan_out;
        let received = self.receiver.count() - self.received_before;
        accepted.saturating_sub(received) >= backlog
    }

    fn record(&self, (request, sent): (usize, Nanos), status: u16, body: &[u8]) {
        let now = self.epoch.now();
        let mut load = self.load.borrow_mut();
        load.answered = now;
        if status == 202 {
            load.accepted += 1;
            load.accept.record(now.saturating_sub(sent));
            let ids = message_ids(body).map(|id| Published { id, sent, request });
            load.published.extend(ids);
            return;
        }
        load.refused += 1;
        if load.refusal.is_none() {
            load.refusal = Some(format!("{status}: {}", String::from_utf8_lossy(body)));
        }
    }
}

impl Load {
    fn new(started: Nanos, plan: &Plan) -> Self {
        let room = usize::try_from(plan.max_messages.min(1 << 20)).unwrap_or_default();
        Self {
            published: Vec::with_capacity(room),
            accepted: 0,
            refused: 0,
            refusal: None,
            broken: 0,
            accept: Histogram::new(),
            started,
            answered: started,
        }
    }
}

impl Due {
    fn new(plan: &Plan, per_second: u32) -> Self {
        let period = Duration::from_secs(1) / per_second.max(1);
        let in_time = plan.time.as_nanos() / period.as_nanos().max(1);
        let most = plan.max_messages / plan.messages.max(1);
        Self {
            permits: Arc::new(Semaphore::new(0)),
            requests: u64::try_from(in_time).unwrap_or(u64::MAX).min(most),
            period,
        }
    }

    /// A plain thread gives out the permits, because the runtime's timer counts in milliseconds.
    /// It ends by itself after the last request, or when the returned sender is dropped.
    fn spawn(
        &self,
        connections: usize,
        epoch: Epoch,
        started: Nanos,
    ) -> Result<mpsc::Sender<()>, Error> {
        let permits = Arc::clone(&self.permits);
        let (requests, period) = (self.requests, self.period);
        let (stop, stopped) = mpsc::channel();
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(move || {
                let mut given = 0;
                while given < requests {
                    let now = Duration::from_nanos(epoch.now().saturating_sub(started));
                    let reached = now.as_nanos() / period.as_nanos().max(1) + 1;
                    let reached = u64::try_from(reached).unwrap_or(u64::MAX).min(requests);
                    permits.add_permits(usize::try_from(reached - given).unwrap_or_default());
                    given = reached;
                    let next = period.saturating_mul(u32::try_from(given).unwrap_or(u32::MAX));
                    let wait = next.saturating_sub(now).max(PACE_MIN);
                    if stopped.recv_timeout(wait) != Err(mpsc::RecvTimeoutError::Timeout) {
                        return;
                    }
                }
                // One more for each connection, so that each finds out that nothing is left.
                permits.add_permits(connections);
            })?;
        Ok(stop)
    }
}

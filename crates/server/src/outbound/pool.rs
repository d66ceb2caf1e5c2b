//! Connections for later requests, bounded per host, in all, and in time.
//!
//! The pool bounds what is kept; how many are in use is bounded by the caller's permits. The most
//! recently used connection is taken first, so that a burst's extra connections age and go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Connection, H1, H2};

/// How often idle connections are looked at while there are any; sooner where they are kept shorter.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Pool {
    state: Mutex<State>,
    idle_per_host: usize,
    idle_total: usize,
    idle_for: Duration,
}

#[derive(Default)]
struct State {
    hosts: HashMap<Arc<str>, HostPool>,
    /// Connections in all hosts.
    kept: usize,
    sweeping: bool,
}

#[derive(Default)]
struct HostPool {
    /// Oldest first.
    h1: Vec<H1>,
    /// Each with the time until which it is kept. More than one where a receiver allows fewer streams
    /// than there are exchanges: a request that waited for another's end would wait with its
    /// signature made.
    h2: Vec<(H2, Instant)>,
}

impl Pool {
    pub(super) fn new(idle_per_host: usize, idle_total: usize, idle_for: Duration) -> Self {
        Self {
            state: Mutex::default(),
            idle_per_host,
            idle_total,
            idle_for,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and every state in between is a valid one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to this host that was open when last looked at.
    pub(super) fn take(&self, key: &str, now: Instant) -> Option<Connection> {
        let mut state = self.lock();
        let State { hosts, kept, .. } = &mut *state;
        let host = hosts.get_mut(key)?;
        let before = host.h2.len();
        host.h2.retain(|(h2, _)| h2.is_open());
        *kept -= before - host.h2.len();
        for (h2, idle_until) in &mut host.h2 {
            if let Some(claimed) = h2.claim() {
                *idle_until = now + self.idle_for;
                return Some(Connection::H2(claimed));
            }
        }
        let taken = host.h1.pop()?;
        if taken.idle_until > now {
            *kept -= 1;
            return Some(Connection::H1(taken));
        }
        // What lies below is older still, except where a receiver announced a longer time.
        let dropped = 1 + host.h1.len();
        host.h1.clear();
        *kept -= dropped;
        None
    }

    /// Keeps a connection for the next request, for at most `announced` if the receiver said so.
    pub(super) fn put_h1(
        self: &Arc<Self>,
        key: &Arc<str>,
        mut connection: H1,
        announced: Option<Duration>,
        now: Instant,
    ) {
        let keep_for = announced.map_or(self.idle_for, |limit| limit.min(self.idle_for));
        if keep_for.is_zero() || self.idle_per_host == 0 || self.idle_total == 0 {
            return;
        }
        connection.idle_until = now + keep_for;
        let mut state = self.lock();
        if !state.has_room(self.idle_total, now) {
            return;
        }
        let host = state.host(key);
        let replaced = host.h1.len() >= self.idle_per_host;
        if replaced {
            host.h1.remove(0);
        }
        host.h1.push(connection);
        state.kept += usize::from(!replaced);
        self.start_sweeping(state);
    }

    /// Shares a connection with later requests, unless one that is shared has room for them.
    pub(super) fn put_h2(self: &Arc<Self>, key: &Arc<str>, connection: &H2, now: Instant) {
        if self.idle_for.is_zero() || self.idle_per_host == 0 || self.idle_total == 0 {
            return;
        }
        let mut state = self.lock();
        if !state.has_room(self.idle_total, now) {
            return;
        }
        let host = state.host(key);
        let serves = |(shared, _): &(H2, Instant)| shared.is_open() && shared.has_room();
        if host.h2.len() < self.idle_per_host && !host.h2.iter().any(serves) {
            host.h2.push((connection.clone(), now + self.idle_for));
            state.kept += 1;
        }
        self.start_sweeping(state);
    }

    /// Shares this connection no more; exchanges that run on it go on.
    pub(super) fn forget_h2(&self, key: &str, id: u64) {
        let mut state = self.lock();
        if let Some(host) = state.hosts.get_mut(key)
            && let Some(at) = host.h2.iter().position(|(shared, _)| shared.id() == id)
        {
            host.h2.remove(at);
            state.kept -= 1;
        }
    }

    /// Connections kept now: idle HTTP/1.1 ones and shared HTTP/2 ones.
    pub(super) fn len(&self) -> usize {
        self.lock().kept
    }

    fn start_sweeping(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if !state.sweeping {
            state.sweeping = true;
            drop(state);
            let period = SWEEP_EVERY.min(self.idle_for);
            tokio::spawn(sweep(Arc::downgrade(self), period));
        }
    }
}

impl HostPool {
    fn connections(&self) -> usize {
        self.h1.len() + self.h2.len()
    }
}

impl State {
    fn host(&mut self, key: &Arc<str>) -> &mut HostPool {
        if !self.hosts.contains_key(key) {
            self.hosts.insert(Arc::clone(key), HostPool::default());
        }
        self.hosts.entry(Arc::clone(key)).or_default()
    }

    /// Whether one more connection may be kept, after a sweep where there are too many.
    fn has_room(&mut self, total: usize, now: Instant) -> bool {
        if self.kept >= total {
            self.sweep(now);
        }
        self.kept < total
    }

    /// Drops what is too old or closed, and hosts without connections.
    fn sweep(&mut self, now: Instant) {
        for host in self.hosts.values_mut() {
            host.h1.retain(|connection| connection.idle_until > now);
            host.h2
                .retain(|(h2, idle_until)| *idle_until > now && h2.is_open());
        }
        self.hosts.retain(|_, host| host.connections() > 0);
        self.kept = self.hosts.values().map(HostPool::connections).sum();
    }
}

/// Runs while there is something idle; the next connection that is kept starts it again.
async fn sweep(pool: Weak<Pool>, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut state = pool.lock();
        state.sweep(Instant::now());
        if state.hosts.is_empty() {
            state.sweeping = false;
            return;
        }
    }
}

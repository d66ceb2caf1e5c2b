//! Dispatch: from due rows to finished attempts.
//!
//! Deliveries run on single-threaded shards. An endpoint belongs to one shard by its id, so that its
//! queue, its permits, its limiter, its breaker and its connections are plain local state.
//!
//! ```text
//! store ──hints──► inbox of a shard ──► queue of an endpoint ──permit──► courier ──► store.finish
//!                                             ▲                                        │
//!                                             └── blocks of due rows ◄── store ◄───────┘
//! ```
//!
//! **The due rows on disk are the truth.** A queue holds a window of them in memory: accepted rows
//! come straight from the commit, those that another node accepted from what it tells, everything else (retries, rows beyond the window, rows left by the
//! last process) is read back in blocks when it is due. Starting up is nothing special: every
//! endpoint with due rows is told that there is something to read.
//!
//! **Bounds (G10).** An endpoint never has more open exchanges than its policy allows; one that does
//! not answer gets fewer ([`limits`]), and endpoints under suspicion share a lane of permits of their
//! own, so that they cannot take those of the others. A deferral (no permit, rate limit, open
//! breaker) is not an attempt.
//!
//! **Nodes.** Where several nodes share a database, each sends to the endpoints of the shards that it
//! [owns](crate::store::owned) and to no other. An attempt begins only for what is owned then, and holds its shard
//! until its record is committed, so that the next owner begins after it.
//!
//! Not promised: that a message is sent only once. A crash between the exchange and the commit of its
//! record sends it again with the same id (G2).

mod batch;
mod brought;
mod disable;
mod inbox;
pub mod limits;
mod queue;
mod shard;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hookturn_core::id::{EndpointId, Entropy};
use hookturn_core::store::{Due, Hint, HintSink, Store, StoreError};
use hookturn_core::time::{Clock, Millis};

use crate::courier::Courier;
use crate::outbound::ClientConfig;
use crate::store::live::Live;
use crate::store::owned::Owned;
use crate::telemetry::metrics::Metrics;
use inbox::{Inbox, Note};

/// The inboxes of the shards. Made before the store, which sends its hints here.
#[derive(Clone)]
pub struct Inboxes(Arc<[Arc<Inbox>]>);

impl Inboxes {
    /// Inboxes for `shards` shards, at least one.
    pub fn new(shards: usize) -> Self {
        Self((0..shards.max(1)).map(|_| Arc::default()).collect())
    }

    /// Makes every shard look at the clock now instead of within a second.
    pub fn wake(&self) {
        self.0.iter().for_each(|inbox| inbox.put(Note::Look));
    }

    /// Makes every shard stop when the exchanges in flight are recorded.
    pub fn drain(&self) {
        self.0.iter().for_each(|inbox| inbox.put(Note::Drain));
    }

    /// Makes every shard forget the queues of endpoints that this node does not own any more.
    pub fn disown(&self) {
        self.0.iter().for_each(|inbox| inbox.put(Note::Disowned));
    }

    fn place_of(&self, endpoint: EndpointId) -> usize {
        // The last bytes of an id are random.
        let [.., a, b] = endpoint.to_bytes();
        usize::from(u16::from_be_bytes([a, b])) % self.0.len()
    }

    fn of(&self, endpoint: EndpointId) -> &Inbox {
        &self.0[self.place_of(endpoint)]
    }

    /// Gives each shard its own of these rows.
    fn divide(&self, rows: Vec<Due>, note: fn(Vec<Due>) -> Note) {
        if let [inbox] = &*self.0 {
            return inbox.put(note(rows));
        }
        let mut by_shard: Vec<Vec<_>> = self.0.iter().map(|_| Vec::new()).collect();
        for row in rows {
            by_shard[self.place_of(row.endpoint)].push(row);
        }
        for (inbox, rows) in self.0.iter().zip(by_shard) {
            if !rows.is_empty() {
                inbox.put(note(rows));
            }
        }
    }
}

impl HintSink for Inboxes {
    fn hint(&self, hints: Vec<Hint>) {
        for hint in hints {
            match hint {
                Hint::Accepted(rows) => self.divide(rows, Note::Accepted),
                Hint::Told(rows) => self.divide(rows, Note::Told),
                Hint::Endpoint(endpoint) => self.of(endpoint.id).put(Note::Changed(endpoint.id)),
                Hint::Requeued(workspace, endpoint) => {
                    self.of(endpoint).put(Note::Requeued(workspace, endpoint));
                }
                Hint::Due(workspace, endpoint, at) => {
                    self.of(endpoint).put(Note::Due(workspace, endpoint, at));
                }
            }
        }
    }
}

/// What the shards work with.
pub struct Parts {
    /// Where due rows come from and attempts go.
    pub store: Arc<dyn Store>,
    /// Configuration as of the last commit.
    pub live: Arc<Live>,
    /// Which endpoints this node sends to.
    pub owned: Arc<Owned>,
    /// Makes the attempts.
    pub courier: Arc<Courier>,
    /// Each shard makes a client of its own from it.
    pub client: Arc<ClientConfig>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Jitter and ids.
    pub entropy: Arc<dyn Entropy>,
    /// Counts attempts.
    pub metrics: Arc<Metrics>,
    /// How long an endpoint may fail without one success before it is disabled.
    pub disable_after: Millis,
}

/// The running shards.
pub struct Dispatch {
    inboxes: Inboxes,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Why the shards could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The due rows could not be read.
    #[error("cannot read what is due")]
    Store(#[from] StoreError),
    /// A thread could not be started.
    #[error("cannot start a delivery shard")]
    Thread(#[from] std::io::Error),
}

impl Dispatch {
    /// Tells every shard what is due and starts them.
    pub async fn start(parts: Parts, inboxes: Inboxes) -> Result<Self, StartError> {
        for (workspace, endpoint, at) in parts.store.due_endpoints().await? {
            inboxes.of(endpoint).put(Note::Due(workspace, endpoint, at));
        }
        let parts = Arc::new(parts);
        let mut threads = Vec::with_capacity(inboxes.0.len());
        for (number, inbox) in inboxes.0.iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (parts, inbox) = (Arc::clone(&parts), Arc::clone(inbox));
            let thread = std::thread::Builder::new()
                .name(format!("shard-{number}"))
                .spawn(move || shard::run(&runtime, parts, inbox))?;
            threads.push(thread);
        }
        Ok(Self {
            inboxes,
            threads: Mutex::new(threads),
        })
    }

    /// Tells the one shard of `inboxes` what is due, and returns the shard: a future for the caller's
    /// own thread, runtime and clock, to be polled within a `LocalSet`. It ends only after a drain, and
    /// dropping it does to the deliveries under way what a crash does.
    ///
    /// This is how a simulation runs dispatch, where nothing may depend on threads.
    pub async fn start_here(
        parts: Parts,
        inboxes: Inboxes,
    ) -> Result<impl Future<Output = ()> + 'static, StoreError> {
        for (workspace, endpoint, at) in parts.store.due_endpoints().await? {
            inboxes.of(endpoint).put(Note::Due(workspace, endpoint, at));
        }
        let inbox = Arc::clone(&inboxes.0[0]);
        Ok(shard::run_here(Arc::new(parts), inbox))
    }

    /// Starts nothing new, waits for the exchanges in flight and for their records. Every exchange
    /// has a deadline, so this ends by itself.
    pub async fn drain(&self) {
        self.inboxes.drain();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().all(|thread| thread.join().is_ok())
        });
        if !matches!(joined.await, Ok(true)) {
            tracing::error!(
                "a delivery shard ended with a panic; what it had not recorded is due again at the next start"
            );
        }
    }
}

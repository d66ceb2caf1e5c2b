//! The writer: one connection, one transaction for whatever waits.
//!
//! A thread of its own drives the connection and the batches ([`thread`](super::thread)), so that nothing is
//! handed from one thread to another between a commit and the answers. It takes whatever is waiting, writes
//! all of it in one transaction ([`transaction`](super::transaction)), commits, applies the effects to memory
//! ([`Effects`](super::effects::Effects)), and only then answers.
//!
//! This is its handle: what can be asked of it, and how.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hookturn_core::audit::{AuditEntry, Context};
use hookturn_core::id::{ApiKeyId, EndpointId, WorkspaceId};
use hookturn_core::store::{
    Accept, Change, Finish, KeptFigures, Progress, ReceiverState, SealedSecret, StoreError,
};
use hookturn_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::PostgresOptions;
use super::absence::Absence;
use super::connect::OpenError;
use super::node::Node;
use super::rows::Outcome;
use super::thread::{Gone, Thread};
use crate::store::outbox::{Mending, Settling};
use crate::store::sharing::keys::keys_of;
use crate::store::waiting::Share;

/// What can be asked of the writer.
pub(super) enum Work {
    /// With the version of the view that it was decided from, or a later one that it is true of as well.
    Change(Box<Change>, u64),
    Audit {
        workspace: WorkspaceId,
        context: Context,
        entries: Vec<AuditEntry>,
        at: Timestamp,
    },
    Reseal(Vec<(SealedSecret, Arc<[u8]>)>),
    Touch(Vec<(ApiKeyId, Timestamp)>),
    Figures {
        kept: Vec<KeptFigures>,
        forget_before: Timestamp,
    },
    /// With the version of the view that its endpoints were chosen from, and its share of the bound on what waits, held
    /// until it is written.
    Accept(
        Accept,
        u64,
        #[expect(dead_code, reason = "held, not read")] Share,
    ),
    Finish {
        finishes: Vec<Finish>,
        receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    },
    Prune {
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    },
    PutMeta {
        key: &'static str,
        value: Vec<u8>,
    },
    /// The same, unless there is one.
    PutFirstMeta {
        key: &'static str,
        value: Vec<u8>,
    },
    /// Another master key seals from now on, if every node has it.
    MasterKey {
        id: String,
        check: Arc<[u8]>,
    },
    Outbox(Box<Settling>),
    Mend(Box<Mending>),
    /// Nothing: its answer says that everything before it is durable.
    Barrier,
    /// Gives the database back. Whatever comes later is refused.
    Leave,
}

impl Work {
    /// Whether it changes what every node holds in memory.
    pub(super) fn changes_view(&self) -> bool {
        match self {
            Self::Change(change, _) => keys_of(change).next().is_some(),
            Self::Reseal(_) | Self::MasterKey { .. } => true,
            Self::Audit { .. }
            | Self::Touch(_)
            | Self::Figures { .. }
            | Self::Accept(..)
            | Self::Finish { .. }
            // Endpoints that it forgets are not used any more: who keeps them in memory keeps them in vain.
            | Self::Prune { .. }
            | Self::PutMeta { .. }
            | Self::PutFirstMeta { .. }
            | Self::Outbox(_)
            | Self::Mend(_)
            | Self::Barrier
            | Self::Leave => false,
        }
    }

    /// What it counts against the bound of a batch.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Change(change, _) => change.writes.len() + change.audit.len() + 1,
            Self::Accept(accept, ..) => {
                let rows = accept.messages.iter().map(|new| 1 + new.deliveries.len());
                rows.sum()
            }
            Self::Finish { finishes, .. } => finishes.len(),
            Self::Figures { kept, .. } => kept.len() + 1,
            Self::Prune { limit, .. } => *limit,
            Self::Outbox(settling) => {
                let made = settling.messages.iter().map(|new| 1 + new.deliveries.len());
                settling.taken.len() + made.sum::<usize>()
            }
            Self::Audit { .. }
            | Self::Reseal(_)
            | Self::Touch(_)
            | Self::PutMeta { .. }
            | Self::PutFirstMeta { .. }
            | Self::MasterKey { .. }
            | Self::Mend(_)
            | Self::Barrier
            | Self::Leave => 1,
        }
    }
}

/// What it answers.
#[derive(Debug, Clone, Default)]
pub(super) enum Answer {
    #[default]
    Done,
    Replaced(usize),
    Pruned(Progress<()>),
    /// The nodes because of which nothing was done.
    Lacking(Vec<String>),
}

/// Work, and who waits for its answer.
pub(super) struct Order {
    pub(super) work: Work,
    waiter: oneshot::Sender<Outcome<Answer>>,
}

impl Order {
    /// The caller may have gone away; what was asked has happened all the same.
    pub(super) fn answer(self, answer: Outcome<Answer>) {
        // What it holds of the bound on what waits is given back first.
        drop(self.work);
        let _ = self.waiter.send(answer);
    }
}

/// The answers of a batch so far, in its order.
pub(super) type Answers = Vec<Outcome<Answer>>;

/// The handle of the writer's thread.
pub(super) struct Writer {
    /// Gone when the thread is to end, after what was queued.
    orders: Option<mpsc::UnboundedSender<Order>>,
    commits: Arc<AtomicU64>,
    cannot_write: Arc<AtomicBool>,
    gone: watch::Receiver<Option<Gone>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread, and waits until it has joined and the database's contents are in the live view.
    pub(super) async fn start(
        options: &PostgresOptions,
        node: &Node,
        absence: Absence,
    ) -> Result<Self, OpenError> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OpenError::Thread)?;
        let commits = Arc::new(AtomicU64::new(0));
        let cannot_write = Arc::new(AtomicBool::new(false));
        let (tell, gone) = watch::channel(None);
        let thread = Thread::new(
            options,
            node.clone(),
            inbox,
            Arc::clone(&commits),
            Arc::clone(&cannot_write),
            absence,
            tell,
        );
        let (ready, opened) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || runtime.block_on(thread.run(ready)))
            .map_err(OpenError::Thread)?;
        let writer = Self {
            orders: Some(orders),
            commits,
            cannot_write,
            gone,
            thread: Mutex::new(Some(thread)),
        };
        let ended = || OpenError::Thread(std::io::Error::other("it ended"));
        opened.await.unwrap_or_else(|_| Err(ended()))?;
        Ok(writer)
    }

    /// How many transactions were committed since the start.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Whether the last transaction that wrote something could not.
    pub(super) fn cannot_write(&self) -> bool {
        self.cannot_write.load(Ordering::Relaxed)
    }

    /// Waits until this node was taken over.
    pub(super) fn until_gone(&self) -> impl Future<Output = Gone> + Send + use<> {
        let mut gone = self.gone.clone();
        async move {
            if let Ok(told) = gone.wait_for(Option::is_some).await
                && let Some(gone) = told.clone()
            {
                return gone;
            }
            // The thread ended in order: nobody else will ever take it from this store.
            std::future::pending().await
        }
    }

    /// Queues work: it is queued when this returns, whether or not the future is awaited.
    pub(super) fn order(&self, work: Work) -> impl Future<Output = Outcome<Answer>> + Send + use<> {
        let (waiter, answer) = oneshot::channel();
        if let Some(orders) = &self.orders {
            // When the thread is gone the waiter is dropped with the order, and the answer says so.
            let _ = orders.send(Order { work, waiter });
        }
        async move { answer.await.unwrap_or(Err(StoreError::Stopped)) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.orders = None;
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

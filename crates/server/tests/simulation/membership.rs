//! The way of one of several nodes to its writer and its database.

use std::sync::Arc;
use std::time::Duration;

use hookturn::store::model::ModelStore;
use hookturn::store::sharing::fence;
use hookturn::store::sharing::lease::HEARTBEAT;
use hookturn_core::store::{DueBlock, DueQuery, Fence, FenceFor, StoreError, StoreFuture};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::base::{Answer, Work};
use crate::link::Lost;
use crate::member::{Asked, Node, Order};
use crate::mutant::Mutant;

/// What its store asks.
pub(crate) struct Membership {
    pub(crate) node: Arc<Node>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
}

/// How long a query may take.
const READ: Duration = Duration::from_secs(30);

impl Membership {
    /// Queues work: it is queued when this returns, whether or not the future is awaited.
    pub(crate) fn order(
        &self,
        asked: Asked,
    ) -> impl Future<Output = Result<Answer, StoreError>> + use<> {
        let (waiter, answer) = oneshot::channel();
        let _ = self.orders.send(Order { asked, waiter });
        async move { answer.await.unwrap_or(Err(StoreError::Stopped)) }
    }

    pub(crate) fn step(&self, asked: Asked) -> StoreFuture<'static, ()> {
        let answer = self.order(asked);
        Box::pin(async move { answer.await.map(drop) })
    }

    pub(crate) fn write(&self, work: Work) -> StoreFuture<'static, ()> {
        self.step(Asked::Write(work))
    }

    pub(crate) fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ModelStore) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        let node = Arc::clone(&self.node);
        Box::pin(async move {
            let asked = node.link.read(move |base| read(&base.inside.model));
            match timeout(READ, asked).await {
                Ok(Ok(found)) => found,
                Ok(Err(Lost)) | Err(_) => Err(Lost.into()),
            }
        })
    }

    /// What was handed in before is committed when the block is read.
    pub(crate) fn due(&self, query: DueQuery) -> StoreFuture<'_, DueBlock> {
        let barrier = self.order(Asked::Barrier);
        Box::pin(async move {
            barrier.await?;
            let node = &self.node;
            let asked = node.link.read(move |base| base.inside.due(query));
            match timeout(READ, asked).await {
                Ok(Ok(found)) => found,
                Ok(Err(Lost)) | Err(_) => Err(Lost.into()),
            }
        })
    }

    pub(crate) async fn fence(&self, version: u64, whom: FenceFor) -> Fence {
        let (node, version) = (&self.node, version.cast_signed());
        let begun = Instant::now();
        let said = |_| async move {
            let me = node.id;
            let said = node.link.read(move |base| base.said(me)).await;
            match node.mutant() {
                // As if there was nobody left to wait for.
                Mutant::GuessesConfirmations if begun.elapsed() >= HEARTBEAT => {
                    Some(Arc::default())
                }
                _ => said.ok().map(Arc::from),
            }
        };
        let fence = match node.mutant() {
            Mutant::FenceDoesNotWait => Fence::ALONE,
            _ => fence::close(said, version, whom).await,
        };
        if fence.closed {
            let mut judge = node.link.base.inside.ground.judge.lock().unwrap();
            judge.fence_closed(version);
        }
        fence
    }
}

//! Reading: a few connections of their own, so that no page waits for the writer.
//!
//! They live on one thread, whoever asks: a caller's runtime may end, and with it what runs there. Whoever
//! no longer waits for an answer drops it, and the query ends all the same.

use std::future::Future;
use std::thread::JoinHandle;
use std::time::Duration;

use deadpool_postgres::{Manager, Object, Pool};
use hookturn_core::store::{StoreError, StoreFuture};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connect::{OpenError, Target};
use super::rows::Outcome;

/// Pages and due blocks do not wait for each other, and a database counts its connections.
const CONNECTIONS: usize = 4;

/// How long a free connection is waited for, or a new one.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a query may take.
const READ: Duration = Duration::from_secs(30);

pub(super) struct Readers {
    pool: Pool,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(target: &Target) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OpenError::Thread)?;
        let manager = Manager::new(target.config().clone(), target.connector());
        let pool = Pool::builder(manager).max_size(CONNECTIONS).build();
        // Only a pool with time limits can fail to be built, and this one has none.
        let pool = pool.map_err(|error| OpenError::Thread(std::io::Error::other(error)))?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("store-reader".to_owned())
            .spawn(move || {
                let _ = runtime.block_on(stopped);
            })
            .map_err(OpenError::Thread)?;
        Ok(Self {
            pool,
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Runs a query on the next free connection.
    pub(super) fn read<T, F>(
        &self,
        query: impl FnOnce(Object) -> F + Send + 'static,
    ) -> StoreFuture<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Outcome<T>> + Send,
    {
        self.read_within(READ, query)
    }

    /// The same for what may take as long as it takes.
    pub(super) fn read_at_length<T, F>(
        &self,
        query: impl FnOnce(Object) -> F + Send + 'static,
    ) -> StoreFuture<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Outcome<T>> + Send,
    {
        self.read_within(Duration::MAX, query)
    }

    fn read_within<T, F>(
        &self,
        limit: Duration,
        query: impl FnOnce(Object) -> F + Send + 'static,
    ) -> StoreFuture<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Outcome<T>> + Send,
    {
        let pool = self.pool.clone();
        let answer = self.runtime.spawn(async move {
            let session = match timeout(CONNECT, pool.get()).await {
                Ok(Ok(session)) => session,
                Ok(Err(error)) => return Err(away(error)),
                Err(error) => return Err(away(error)),
            };
            match timeout(limit, query(session)).await {
                Ok(answer) => answer,
                Err(error) => {
                    // What a query was given up on is not asked again.
                    let _ = pool.retain(|_, _| false);
                    Err(away(error))
                }
            }
        });
        Box::pin(async move { answer.await.unwrap_or(Err(StoreError::Stopped)) })
    }
}

/// The database cannot be asked at the moment.
fn away(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unwritable {
        step: "read",
        source: Box::new(error),
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.pool.close();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

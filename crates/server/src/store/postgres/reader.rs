//! Reading: a few connections of their own, so that no page waits for the writer.
//!
//! They live on one thread, whoever asks: a caller's runtime may end, and with it what runs there. Whoever
//! no longer waits for an answer drops it, and the query ends all the same.
//!
//! A database that goes silent answers nothing and refuses nothing. The writer finds that out within seconds
//! ([`Absence`]), and then nobody waits for a page any longer. Due rows are read by those who wait for the database
//! anyway.

use std::future::{Future, pending};
use std::thread::JoinHandle;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Hook, HookError, Manager, Object, Pool};
use hookturn_core::store::{StoreError, StoreFuture};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::absence::Absence;
use super::connect::{OpenError, Target};
use super::rows::Outcome;

/// For pages and all else. A database counts its connections.
const CONNECTIONS: usize = 4;
/// For due rows, which do not wait for pages.
const DUE_CONNECTIONS: usize = 2;
/// Due rows are always found by their keys, so the statements are planned once for a connection. Planning them anew for
/// each set of arrays takes the database longer than reading the rows.
const DUE_PLANS: &str = "SET plan_cache_mode = force_generic_plan";

/// How long a free connection is waited for, or a new one.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a query may take.
const READ: Duration = Duration::from_secs(30);
/// How long the database may be away before whoever reads is told so.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Readers {
    pool: Pool,
    due: Pool,
    runtime: Handle,
    absence: Absence,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(target: &Target, absence: Absence) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OpenError::Thread)?;
        let builder = || Pool::builder(Manager::new(target.config().clone(), target.connector()));
        // Only a pool with time limits can fail to be built, and these have none.
        let failed = |error| OpenError::Thread(std::io::Error::other(error));
        let pool = builder().max_size(CONNECTIONS).build().map_err(failed)?;
        let planned_once = Hook::async_fn(|session: &mut ClientWrapper, _| {
            Box::pin(async {
                let set = session.batch_execute(DUE_PLANS).await;
                set.map_err(HookError::Backend)
            })
        });
        let due = builder()
            .max_size(DUE_CONNECTIONS)
            .post_create(planned_once)
            .build()
            .map_err(failed)?;
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
            due,
            runtime: handle,
            absence,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Runs what nobody waits for, on the readers' thread.
    pub(super) fn detach(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
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
        self.read_within(&self.pool, READ, Some(self.absence.clone()), query)
    }

    /// The same for due rows.
    pub(super) fn read_due<T, F>(
        &self,
        query: impl FnOnce(Object) -> F + Send + 'static,
    ) -> StoreFuture<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Outcome<T>> + Send,
    {
        self.read_within(&self.due, READ, None, query)
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
        self.read_within(&self.pool, Duration::MAX, None, query)
    }

    /// What a query was given up on is not asked again: it may never answer, also when the database is back.
    fn read_within<T, F>(
        &self,
        pool: &Pool,
        limit: Duration,
        absence: Option<Absence>,
        query: impl FnOnce(Object) -> F + Send + 'static,
    ) -> StoreFuture<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Outcome<T>> + Send,
    {
        let pool = pool.clone();
        let answer = self.runtime.spawn(async move {
            let asked = async {
                let session = match timeout(CONNECT, pool.get()).await {
                    Ok(Ok(session)) => session,
                    Ok(Err(error)) => return Some(Err(away(error))),
                    Err(error) => return Some(Err(away(error))),
                };
                timeout(limit, query(session)).await.ok()
            };
            let given_up = async {
                match absence {
                    Some(absence) => absence.outlasts(PATIENCE).await,
                    None => pending().await,
                }
            };
            let answer = tokio::select! {
                biased;
                answer = asked => answer,
                () = given_up => None,
            };
            answer.unwrap_or_else(|| {
                let _ = pool.retain(|_, _| false);
                Err(away(Absent))
            })
        });
        Box::pin(async move { answer.await.unwrap_or(Err(StoreError::Stopped)) })
    }
}

/// Why nobody waits for an answer.
#[derive(Debug, thiserror::Error)]
#[error("the database does not answer")]
struct Absent;

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
        self.due.close();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

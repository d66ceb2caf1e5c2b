//! Reader threads: a few connections of their own, so that no page waits for the writer and no
//! caller needs a blocking pool.
//!
//! Every query runs in a read transaction of its own: all its statements see one commit, so that a
//! delivery that settles meanwhile is found once, not twice and not never.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::store::{StoreError, StoreFuture};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::open::{self, OpenError};
use super::rows::Numbers;
use super::{Damage, failed};

/// Two readers: pages and due blocks do not wait for each other, and idle memory stays small.
const THREADS: usize = 2;

/// A connection to read with.
pub(super) struct At<'a> {
    pub(super) connection: &'a Connection,
    pub(super) numbers: &'a Numbers,
}

impl At<'_> {
    /// The number of an endpoint of this workspace.
    pub(super) fn endpoint_of(&self, workspace: WorkspaceId, id: EndpointId) -> Option<i64> {
        let number = self.numbers.endpoint(id)?;
        let (owner, _) = self.numbers.endpoint_of(number)?;
        (owner == workspace).then_some(number)
    }
}

type Query = Box<dyn FnOnce(&At<'_>) + Send>;

pub(super) struct Readers {
    queries: Option<mpsc::Sender<Query>>,
    damage: Damage,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(
        path: &Path,
        numbers: &Arc<Numbers>,
        damage: &Damage,
    ) -> Result<Self, OpenError> {
        let (queries, inbox) = mpsc::channel::<Query>();
        let inbox = Arc::new(Mutex::new(inbox));
        let mut threads = Vec::with_capacity(THREADS);
        for _ in 0..THREADS {
            let connection = open::open_for_reading(path)?;
            let (inbox, numbers) = (Arc::clone(&inbox), Arc::clone(numbers));
            let thread = std::thread::Builder::new()
                .name("store-reader".to_owned())
                .spawn(move || serve(&connection, &numbers, &inbox))
                .map_err(OpenError::Thread)?;
            threads.push(thread);
        }
        Ok(Self {
            queries: Some(queries),
            threads,
            damage: damage.clone(),
        })
    }

    /// Runs a query on the next free reader.
    pub(super) fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&At<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let (reply, answer) = oneshot::channel();
        let damage = self.damage.clone();
        if let Some(queries) = &self.queries {
            // If the threads are gone the reply is dropped, and the answer says so.
            let _ = queries.send(Box::new(move |at| {
                let result = in_snapshot(at, query);
                // Known before the answer, so that who is told finds readiness off.
                damage.look(&result);
                let _ = reply.send(result);
            }));
        }
        Box::pin(async move { answer.await.unwrap_or(Err(StoreError::Stopped)) })
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queries = None;
        for thread in self.threads.drain(..) {
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

/// Runs a query on the state at its first read, whatever is committed meanwhile.
pub(super) fn in_snapshot<T>(
    at: &At<'_>,
    query: impl FnOnce(&At<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let run = |sql| {
        at.connection
            .prepare_cached(sql)
            .and_then(|mut s| s.execute([]))
            .map_err(failed("read"))
    };
    run("BEGIN")?;
    // A query keeps nothing: what it holds is dropped when it unwinds.
    let answer = catch_unwind(AssertUnwindSafe(|| query(at)));
    // After a failed read the engine may have ended the transaction itself.
    if !at.connection.is_autocommit() {
        run("COMMIT")?;
    }
    answer.unwrap_or_else(|_| {
        Err(StoreError::Engine {
            step: "read",
            source: "a query panicked".into(),
        })
    })
}

fn serve(connection: &Connection, numbers: &Numbers, inbox: &Mutex<mpsc::Receiver<Query>>) {
    let at = At {
        connection,
        numbers,
    };
    loop {
        let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(query) => query(&at),
            Err(_) => return,
        }
    }
}

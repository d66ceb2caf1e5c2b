//! A wire between nodes and their database, which counts round trips.
//!
//! A round trip begins when a connection carries something to the database after something came back: whatever is
//! sent before the answer to what was sent first belongs to the same one. A long pipeline whose first answers come
//! before its last statements are sent is counted more than once, so the count is an upper bound.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

use crate::cluster::{self, SOCKET};
use crate::number::Error;

const BYTES: usize = 64 * 1024;

/// A socket that leads to the one of a cluster; it ends when it is dropped.
pub(crate) struct Wire {
    directory: TempDir,
    turns: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    pub(crate) fn start(to: PathBuf) -> Result<Self, Error> {
        let directory = tempfile::Builder::new().prefix("hookturn-").tempdir()?;
        let listener = std::os::unix::net::UnixListener::bind(directory.path().join(SOCKET))?;
        listener.set_nonblocking(true)?;
        let turns = Arc::new(AtomicU64::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let counted = Arc::clone(&turns);
        let thread = std::thread::Builder::new()
            .name("wire".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, to, counted) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            directory,
            turns,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The URL of a database through this wire.
    pub(crate) fn url(&self, database: &str) -> String {
        cluster::url(self.directory.path(), database)
    }

    /// Round trips so far, on all connections.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Refused only when the thread has ended by itself.
            let _ended = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

async fn accept(listener: std::os::unix::net::UnixListener, to: PathBuf, turns: Arc<AtomicU64>) {
    let Ok(listener) = UnixListener::from_std(listener) else {
        return;
    };
    while let Ok((node, _)) = listener.accept().await {
        let Ok(database) = UnixStream::connect(&to).await else {
            continue;
        };
        let turns = Arc::clone(&turns);
        let answered = Arc::new(AtomicBool::new(true));
        let ((from_node, to_node), (from_database, to_database)) =
            (node.into_split(), database.into_split());
        let asked = Arc::clone(&answered);
        tokio::spawn(carry(from_node, to_database, move || {
            if asked.swap(false, Ordering::Relaxed) {
                turns.fetch_add(1, Ordering::Relaxed);
            }
        }));
        tokio::spawn(carry(from_database, to_node, move || {
            answered.store(true, Ordering::Relaxed);
        }));
    }
}

/// Carries one direction to its end; dropping the writing half tells the other side.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut came: impl FnMut(),
) {
    let mut buffer = vec![0; BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        came();
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

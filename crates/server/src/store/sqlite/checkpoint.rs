//! Checkpoints: copying the write-ahead log back into the database, on our own terms.
//!
//! SQLite's own checkpoint runs inside a commit and stalls it for tens of milliseconds. Here a
//! thread of its own copies pages while the writer goes on (a PASSIVE checkpoint blocks nobody).
//! Because new pages keep arriving, that alone would never let the log start over; so when it has
//! grown past [`WRITER_PAGES`], the writer finishes the job itself: by then only the pages since the
//! last passive round are left to copy, and the next transaction starts the log from its beginning.

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::open::{self, OpenError};

/// Log pages (4 KiB each) from which the thread is asked to copy: 4 MiB.
const THREAD_PAGES: i32 = 1_024;
/// Log pages from which the writer helps: 32 MiB.
const WRITER_PAGES: i32 = 8_192;

pub(super) struct Checkpointer {
    wake: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(path: &Path) -> Result<Self, OpenError> {
        let connection = open::open_for_checkpoints(path)?;
        // One waiting wake-up is enough: a round copies everything there is.
        let (wake, woken) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                while woken.recv().is_ok() {
                    checkpoint(&connection, "PASSIVE");
                }
            })
            .map_err(OpenError::Thread)?;
        Ok(Self {
            wake: Some(wake),
            thread: Some(thread),
        })
    }

    /// Called by the writer after every commit with the pages now in the log.
    pub(super) fn after_commit(&self, writer: &Connection, pages: i32) {
        if pages >= WRITER_PAGES {
            checkpoint(writer, "PASSIVE");
        } else if pages >= THREAD_PAGES
            && let Some(wake) = &self.wake
        {
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn checkpoint(connection: &Connection, mode: &str) {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let counted = connection.query_row(&sql, [], |row| {
        Ok((row.get::<_, i32>(1)?, row.get::<_, i32>(2)?))
    });
    match counted {
        Ok((pages, copied)) => tracing::debug!(mode, pages, copied, "a checkpoint ended"),
        Err(error) => {
            tracing::warn!(error = %error, "a checkpoint failed; the write-ahead log keeps everything");
        }
    }
}

/// Leaves a database file without a log behind.
pub(super) fn on_close(connection: &Connection) {
    checkpoint(connection, "TRUNCATE");
}

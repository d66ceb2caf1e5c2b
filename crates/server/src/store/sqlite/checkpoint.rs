//! Checkpoints: copying the write-ahead log back into the database, on our own terms.
//!
//! SQLite's own checkpoint runs inside a commit and stalls it for tens of milliseconds. Here a
//! thread of its own copies pages while the writer goes on (a PASSIVE checkpoint blocks nobody).
//! Because new pages keep arriving, that alone would never let the log start over; so when it has
//! grown past [`LONG`], the writer copies what is left after a commit, and its next transaction starts the
//! log from its beginning. Everyone waits for that, so it is done when the thread has just ended a round and
//! little is left ([`LITTLE`]); only a log past [`TOO_LONG`] is not waited for.

use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::open::{self, OpenError};

/// Log pages (4 KiB each) from which the thread is asked to copy: 4 MiB.
const SOME: i32 = 1_024;
/// Log pages from which it should start over: 32 MiB.
const LONG: i32 = 8_192;
/// Log pages at which it must: 64 MiB.
const TOO_LONG: i32 = 16_384;
/// Pages that the writer copies within a millisecond or two: 1 MiB.
const LITTLE: i32 = 256;
const _: () = assert!(LITTLE < SOME && SOME < LONG && LONG < TOO_LONG);

/// What is done about the log after a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Nothing,
    /// The thread copies another round.
    Ask,
    /// The writer copies the rest, so that the log starts over.
    Finish,
}

impl Turn {
    /// With so many pages in the log, of which so many were copied when it was looked last.
    ///
    /// 1. A log that is too long is finished by the writer, whatever is left of it.
    /// 2. A long one when little is left; until then the thread has another round.
    /// 3. From some pages on the thread copies. Below, it is not worth the sync.
    const fn of(pages: i32, copied: i32) -> Self {
        if pages >= TOO_LONG || (pages >= LONG && pages - copied <= LITTLE) {
            Self::Finish
        } else if pages >= SOME {
            Self::Ask
        } else {
            Self::Nothing
        }
    }
}

pub(super) struct Checkpointer {
    wake: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Pages of the log that were copied by the end of the thread's last round.
    copied: Arc<AtomicI32>,
}

impl Checkpointer {
    pub(super) fn start(path: &Path) -> Result<Self, OpenError> {
        let connection = open::open_for_checkpoints(path)?;
        // One waiting wake-up is enough: a round copies everything there is.
        let (wake, woken) = mpsc::sync_channel(1);
        let copied = Arc::new(AtomicI32::new(0));
        let told = Arc::clone(&copied);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                while woken.recv().is_ok() {
                    if let Some(copied) = checkpoint(&connection, "PASSIVE") {
                        told.store(copied, Ordering::Relaxed);
                    }
                }
            })
            .map_err(OpenError::Thread)?;
        Ok(Self {
            wake: Some(wake),
            thread: Some(thread),
            copied,
        })
    }

    /// Called by the writer after every commit with the pages now in the log.
    pub(super) fn after_commit(&self, writer: &Connection, pages: i32) {
        match Turn::of(pages, self.copied.load(Ordering::Relaxed)) {
            Turn::Nothing => {}
            Turn::Ask => {
                if let Some(wake) = &self.wake {
                    let _ = wake.try_send(());
                }
            }
            Turn::Finish => {
                checkpoint(writer, "PASSIVE");
            }
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

/// Returns how many pages of the log are copied now.
fn checkpoint(connection: &Connection, mode: &str) -> Option<i32> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let counted = connection.query_row(&sql, [], |row| {
        Ok((row.get::<_, i32>(1)?, row.get::<_, i32>(2)?))
    });
    match counted {
        Ok((pages, copied)) => {
            tracing::debug!(mode, pages, copied, "a checkpoint ended");
            Some(copied)
        }
        Err(error) => {
            tracing::warn!(error = %error, "a checkpoint failed; the write-ahead log keeps everything");
            None
        }
    }
}

/// Leaves a database file without a log behind.
pub(super) fn on_close(connection: &Connection) {
    checkpoint(connection, "TRUNCATE");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writer_helps_where_little_is_left_or_the_log_is_too_long() {
        for (pages, copied, turn) in [
            (SOME - 1, 0, Turn::Nothing),
            (SOME, 0, Turn::Ask),
            (LONG - 1, LONG - 1, Turn::Ask),
            (LONG, LONG - LITTLE - 1, Turn::Ask),
            (LONG, LONG - LITTLE, Turn::Finish),
            (TOO_LONG - 1, 0, Turn::Ask),
            (TOO_LONG, 0, Turn::Finish),
            // What was copied is of the log before it started over.
            (SOME - 1, LONG, Turn::Nothing),
            (SOME, LONG, Turn::Ask),
        ] {
            assert_eq!(Turn::of(pages, copied), turn, "{pages} {copied}");
        }
    }
}

//! The embedded engine: SQLite in one file, one writer, group commit.
//!
//! One plain thread owns the only writing connection. Whoever wants to write hands it a step; the
//! thread takes whatever is waiting (up to `writer::BATCH_STEPS`), runs it all in one transaction,
//! commits, and only then answers, so that one sync pays for many steps. `synchronous = FULL`: an
//! answer means the write-ahead log reached the disk.
//!
//! Readers have connections and threads of their own and see the last commit. Checkpoints run beside
//! the writer on another thread; the writer helps only when the log has grown too long.
//!
//! After a commit and before the answers, the writer applies the change to the [`Live`] view and
//! hands accepted rows to the [`HintSink`] in one batch.

mod bulks;
mod checkpoint;
mod configuration;
pub(in crate::store) mod export;
mod figures;
mod ledger;
mod listing;
mod loading;
mod marks;
mod open;
mod planned;
mod reader;
mod requeue;
mod restored;
mod rows;
mod searching;
#[cfg(test)]
mod tests;
mod traffic;
mod upkeep;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hookturn_core::audit::{AuditEntry, Context, Recorded};
use hookturn_core::bulk::{Bulk, BulkItem, ItemCounts};
use hookturn_core::delivery::{Attempt, Delivery};
use hookturn_core::id::{
    ApiKeyId, BulkId, ClientId, DeliveryId, EndpointId, KeyringId, MessageId, RotationId, SecretId,
    WorkspaceId,
};
use hookturn_core::message::{EventType, Message};
use hookturn_core::rotation::Rotation;
use hookturn_core::store::{
    Accept, BulkItemQuery, Change, Configuration, DeliveriesFound, DeliveryQuery, DeliverySearch,
    DueBlock, DueQuery, Finish, HintSink, IdempotencyKey, IdempotencyRecord, KeptFigures,
    MarkedSecret, Page, Progress, ReceiverState, RecoverQuery, SealedSecret, SecretMark, Store,
    StoreError, StoreFuture, StoreStats,
};
use hookturn_core::time::Timestamp;
use rusqlite::ErrorCode;

use super::live::Live;
use super::seal::SealedUnder;
use super::waiting::Waiting;
use reader::Readers;
use writer::{Shape, Writer};

pub use open::OpenError;

/// The embedded store. Cloning is cheap; the threads stop when the last clone is dropped.
#[derive(Clone)]
pub struct SqliteStore {
    // First: the last connection to close removes the log, which one that only reads cannot do.
    readers: Arc<Readers>,
    writer: Arc<Writer>,
    waiting: Waiting,
    damage: Damage,
    path: Arc<PathBuf>,
    /// Where pruning goes on.
    sweep: Arc<Mutex<upkeep::Sweep>>,
    // Last, so that the threads have stopped when another process may begin.
    _lock: Arc<File>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// How to open the embedded store.
pub struct SqliteOptions {
    /// The database file; made when missing, with its directory existing.
    pub path: PathBuf,
    /// Kept as of every commit.
    pub live: Arc<Live>,
    /// Told about due work after every commit.
    pub hints: Arc<dyn HintSink>,
}

impl SqliteStore {
    /// Opens or makes the database, migrates it, loads the live view and starts the threads.
    pub fn open(options: SqliteOptions) -> Result<Self, OpenError> {
        let lock = lock(&options.path)?;
        Self::open_locked(options, lock)
    }

    /// The same for whoever had to [`lock`] the database before.
    pub fn open_locked(options: SqliteOptions, lock: DatabaseLock) -> Result<Self, OpenError> {
        Self::open_with(options, lock, writer::PATIENCE)
    }

    fn open_with(
        options: SqliteOptions,
        lock: DatabaseLock,
        patience: Duration,
    ) -> Result<Self, OpenError> {
        let connection = open::open_for_writing(&options.path)?;
        let numbers = Arc::new(rows::Numbers::default());
        let loaded = loading::load(&connection, &numbers).map_err(OpenError::Contents)?;
        options.live.reset(loaded);
        let damage = Damage::default();
        let readers = Readers::start(&options.path, &numbers, &damage)?;
        let writer = Writer::start(connection, &options, numbers, patience, damage.clone())?;
        Ok(Self {
            writer: Arc::new(writer),
            readers: Arc::new(readers),
            waiting: Waiting::default(),
            damage,
            path: Arc::new(options.path),
            sweep: Arc::default(),
            _lock: Arc::new(lock.0),
        })
    }

    fn sweep(&self) -> MutexGuard<'_, upkeep::Sweep> {
        // Taken and put back whole: a panic elsewhere leaves a whole one.
        self.sweep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many transactions were committed since the start: with the number of steps it tells how
    /// many share one sync.
    pub fn commits(&self) -> u64 {
        self.writer.commits()
    }

    /// Whether the last transaction that wrote something could not, because of the disk.
    pub fn cannot_write(&self) -> bool {
        self.writer.cannot_write()
    }

    /// Whether a read or a write has met a page that is damaged. It stays so: the next start may find out
    /// more, and no write mends it.
    pub fn is_damaged(&self) -> bool {
        self.damage.is_known()
    }

    /// Writes something small, so that [`SqliteStore::cannot_write`] learns whether the disk takes it
    /// again.
    pub fn try_writing(&self) -> StoreFuture<'_, ()> {
        self.writer
            .guarded_step(|tx| configuration::put_meta(tx, "write_check", b"ok"))
    }

    /// A value kept beside the data, such as the box that tells whether a master key fits.
    pub fn meta(&self, key: &'static str) -> StoreFuture<'_, Option<Vec<u8>>> {
        self.readers.read(move |at| configuration::meta(at, key))
    }

    /// Keeps such a value.
    pub fn put_meta(&self, key: &'static str, value: Vec<u8>) -> StoreFuture<'_, ()> {
        self.writer
            .step(move |tx| configuration::put_meta(tx, key, &value))
    }
}

/// What reads and writes found out about the file: whether it is damaged.
#[derive(Debug, Clone, Default)]
struct Damage(Arc<AtomicBool>);

impl Damage {
    fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Looks at how a read or a write ended.
    fn look<T>(&self, result: &Result<T, StoreError>) {
        if let Err(error @ StoreError::Damaged { source, .. }) = result
            && !self.0.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%error, cause = %source, "a damaged page was met");
        }
    }
}

/// Keeps other Hookturn processes from the same database while it lives.
#[derive(Debug)]
pub struct DatabaseLock(File);

/// Locks the database at `path`, which need not exist yet, but its directory must.
pub fn lock(path: &Path) -> Result<DatabaseLock, OpenError> {
    open::lock(path).map(DatabaseLock)
}

/// Whether there is a database file at `path`, without a look into it. A file that is empty, and what
/// is no file at all, is an error: it stands where a database was.
pub fn exists(path: &Path) -> Result<bool, OpenError> {
    open::exists(path)
}

/// Writes a consistent copy of the database at `from` to `to`, also while another process has it open.
pub fn backup_beside(from: &Path, to: &Path) -> Result<Result<(), StoreError>, OpenError> {
    let connection = open::open_to_look(from)?;
    // A copy of something else is no backup, and must not take the place of one.
    open::prepare_file(&connection, from)?;
    let at = reader::At {
        connection: &connection,
        numbers: &rows::Numbers::default(),
    };
    Ok(reader::in_snapshot(&at, |at| upkeep::backup(at, to)))
}

/// What a look at a database from beside it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// Size of the file in bytes, the write-ahead log not included.
    pub bytes: u64,
    /// The value kept under the key that was asked for.
    pub meta: Option<Vec<u8>>,
    /// What is sealed, by master key.
    pub sealed: Vec<SealedUnder>,
}

/// Reads the database at `path` without changing it, also while another process has it open: whether
/// it is ours, not newer than this version, and whole. `meta` names a kept value to return.
pub fn examine(path: &Path, meta: &str) -> Result<Examined, OpenError> {
    let connection = open::open_to_look(path)?;
    open::check(&connection, path)?;
    let at = reader::At {
        connection: &connection,
        numbers: &rows::Numbers::default(),
    };
    Ok(Examined {
        bytes: std::fs::metadata(path).map_or(0, |file| file.len()),
        meta: configuration::meta(&at, meta).map_err(OpenError::Contents)?,
        sealed: configuration::sealed(&at).map_err(OpenError::Contents)?,
    })
}

impl Store for SqliteStore {
    fn load(&self) -> StoreFuture<'_, Configuration> {
        self.readers
            .read(|at| loading::load(at.connection, at.numbers))
    }

    fn change(&self, change: Change) -> StoreFuture<'_, ()> {
        let shape = Shape {
            rows: change.writes.len() + change.audit.len() + 1,
            guarded: true,
            patient: change.moves_items(),
        };
        self.writer
            .step_of(shape, move |tx| configuration::change(tx, change))
    }

    fn audit(
        &self,
        workspace: WorkspaceId,
        context: Context,
        entries: Vec<AuditEntry>,
        at: Timestamp,
    ) -> StoreFuture<'_, ()> {
        self.writer
            .guarded_step(move |tx| ledger::append_audit(tx, workspace, &context, entries, at))
    }

    fn audit_log(
        &self,
        workspace: WorkspaceId,
        after: u64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Recorded>> {
        self.readers
            .read(move |at| ledger::audit_log(at, workspace, after, limit))
    }

    fn audit_head(&self, workspace: WorkspaceId) -> StoreFuture<'_, u64> {
        self.readers
            .read(move |at| ledger::audit_head(at, workspace))
    }

    fn idempotent_answer(
        &self,
        key: IdempotencyKey,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<IdempotencyRecord>> {
        self.readers
            .read(move |at| ledger::idempotent_answer(at, key, now))
    }

    fn rotation(
        &self,
        workspace: WorkspaceId,
        id: RotationId,
    ) -> StoreFuture<'_, Option<Rotation>> {
        self.readers
            .read(move |at| configuration::rotation(at, workspace, id))
    }

    fn rotations(
        &self,
        workspace: WorkspaceId,
        keyring: Option<KeyringId>,
        page: Page<RotationId>,
    ) -> StoreFuture<'_, Vec<Rotation>> {
        self.readers
            .read(move |at| configuration::rotations(at, workspace, keyring, page))
    }

    fn marked(&self, marks: Vec<SecretMark>) -> StoreFuture<'_, Vec<MarkedSecret>> {
        self.readers.read(move |at| marks::marked(at, &marks))
    }

    fn unmarked(&self, limit: usize) -> StoreFuture<'_, Vec<SecretId>> {
        self.readers.read(move |at| marks::unmarked(at, limit))
    }

    fn bulk(&self, workspace: WorkspaceId, id: BulkId) -> StoreFuture<'_, Option<Bulk>> {
        self.readers.read(move |at| bulks::bulk(at, workspace, id))
    }

    fn bulks(&self, workspace: WorkspaceId, page: Page<BulkId>) -> StoreFuture<'_, Vec<Bulk>> {
        self.readers
            .read(move |at| bulks::bulks(at, workspace, page))
    }

    fn bulk_items(&self, query: BulkItemQuery) -> StoreFuture<'_, Vec<BulkItem>> {
        self.readers.read(move |at| bulks::items(at, query))
    }

    fn bulk_counts(
        &self,
        workspace: WorkspaceId,
        bulk: BulkId,
        from: u32,
        until: u32,
    ) -> StoreFuture<'_, ItemCounts> {
        self.readers
            .read(move |at| bulks::counts(at, workspace, bulk, from, until))
    }

    fn reseal(&self, swaps: Vec<(SealedSecret, Arc<[u8]>)>) -> StoreFuture<'_, usize> {
        self.writer
            .guarded_step(move |tx| configuration::reseal(tx, swaps))
    }

    fn touch_api_keys(&self, uses: Vec<(ApiKeyId, Timestamp)>) -> StoreFuture<'_, ()> {
        self.writer
            .step(move |tx| configuration::touch_api_keys(tx, &uses))
    }

    fn keep_figures(
        &self,
        kept: Vec<KeptFigures>,
        forget_before: Timestamp,
    ) -> StoreFuture<'_, ()> {
        self.writer
            .guarded_step(move |tx| figures::keep(tx, &kept, forget_before))
    }

    fn kept_figures(&self, limit: usize) -> StoreFuture<'_, Vec<KeptFigures>> {
        self.readers.read(move |at| figures::kept(at, limit))
    }

    fn accept(&self, accept: Accept) -> StoreFuture<'_, ()> {
        // One message is refused before its first write; several, or a key with them, may be refused
        // halfway.
        let guarded = accept.messages.len() > 1 || accept.idempotency.is_some();
        let deliveries = accept.messages.iter().map(|new| 1 + new.deliveries.len());
        let shape = Shape {
            rows: deliveries.sum(),
            guarded,
            patient: false,
        };
        // What is acknowledged might never be found again.
        if self.damage.is_known() {
            return Box::pin(std::future::ready(Err(StoreError::Damaged {
                step: "accept messages",
                source: "an earlier read or write met a damaged page".into(),
            })));
        }
        let share = match self.waiting.admit(&accept) {
            Ok(share) => share,
            Err(busy) => return Box::pin(std::future::ready(Err(busy))),
        };
        self.writer.step_of(shape, move |tx| {
            let _given_back_when_written = share;
            traffic::accept(tx, accept)
        })
    }

    fn finish(
        &self,
        finishes: Vec<Finish>,
        receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    ) -> StoreFuture<'static, ()> {
        let shape = Shape {
            rows: finishes.len(),
            guarded: false,
            // A shard goes on meanwhile, but for what must be recorded before the next one of its order.
            patient: !finishes.iter().any(|finish| finish.keeps_place),
        };
        self.writer
            .step_of(shape, move |tx| traffic::finish(tx, &finishes, receivers))
    }

    fn due(&self, query: DueQuery) -> StoreFuture<'_, DueBlock> {
        // The barrier makes every finish queued before this call visible to the reader.
        let barrier = self.writer.step(|_| Ok(()));
        let block = move |at: &reader::At<'_>| traffic::due(at, query);
        Box::pin(async move {
            barrier.await?;
            self.readers.read(block).await
        })
    }

    fn due_endpoints(&self) -> StoreFuture<'_, Vec<(WorkspaceId, EndpointId, Timestamp)>> {
        self.readers.read(traffic::due_endpoints)
    }

    fn recoverable(
        &self,
        query: RecoverQuery,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Delivery>> {
        self.readers
            .read(move |at| requeue::recoverable(at, query, after, limit))
    }

    fn message(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        id: MessageId,
    ) -> StoreFuture<'_, Option<Arc<Message>>> {
        self.readers
            .read(move |at| listing::message(at, workspace, app, id))
    }

    fn messages(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        page: Page<MessageId>,
    ) -> StoreFuture<'_, Vec<Arc<Message>>> {
        self.readers
            .read(move |at| listing::messages(at, workspace, app, since, until, page))
    }

    fn delivery(
        &self,
        workspace: WorkspaceId,
        id: DeliveryId,
    ) -> StoreFuture<'_, Option<(Delivery, Vec<Attempt>)>> {
        self.readers
            .read(move |at| listing::delivery(at, workspace, id))
    }

    fn deliveries(&self, query: DeliveryQuery) -> StoreFuture<'_, Vec<Delivery>> {
        self.readers.read(move |at| listing::deliveries(at, &query))
    }

    fn search(&self, search: DeliverySearch) -> StoreFuture<'_, DeliveriesFound> {
        self.readers.read(move |at| searching::search(at, &search))
    }

    fn event_types(&self, workspace: WorkspaceId) -> StoreFuture<'_, Vec<EventType>> {
        self.readers
            .read(move |at| Ok(listing::event_types(at, workspace)))
    }

    fn prune(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> StoreFuture<'_, Progress<()>> {
        Box::pin(async move {
            // Kept again only after the commit: a sweep whose step failed begins anew.
            let mut sweep = std::mem::take(&mut *self.sweep());
            let step = self.writer.guarded_step(move |tx| {
                let progress = upkeep::prune(tx, &mut sweep, before, now, limit)?;
                Ok((progress, sweep))
            });
            let (progress, sweep) = step.await?;
            *self.sweep() = sweep;
            Ok(progress)
        })
    }

    fn backup(&self, path: PathBuf) -> StoreFuture<'_, ()> {
        self.readers.read(move |at| upkeep::backup(at, &path))
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.readers.read(upkeep::stats)
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        self.writer.step(|_| Ok(()))
    }
}

/// Turns an engine's error into the store's, naming what it was doing.
fn failed(step: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |source| {
        let (unwritable, damaged) = (cannot_write(&source), is_damaged(&source));
        let source = Box::new(source);
        if damaged {
            StoreError::Damaged { step, source }
        } else if unwritable {
            StoreError::Unwritable { step, source }
        } else {
            StoreError::Engine { step, source }
        }
    }
}

/// Whether a page of the file is not what was written there.
fn is_damaged(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Whether the disk is what is wrong, and not reading it.
fn cannot_write(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ};
    let reading = [SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ];
    error.sqlite_error().is_some_and(|error| match error.code {
        ErrorCode::DiskFull | ErrorCode::ReadOnly => true,
        ErrorCode::SystemIoFailure => !reading.contains(&error.extended_code),
        _ => false,
    })
}

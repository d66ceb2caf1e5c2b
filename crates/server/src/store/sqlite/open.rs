//! Opening the database file: settings of each connection, migrations, and clear refusals.
//!
//! A new database is made under another name and gets its own when it is whole. So a file of that name
//! is a database of ours with its schema, whenever the process ended: one that is empty, or has no
//! tables, has lost what it held, and nothing starts on it as if it were new.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hookturn_core::store::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::restored;

/// Marks a file as Hookturn's: "hktn".
pub(super) const APPLICATION_ID: i32 = 0x686b_746e;
/// The migrations, in order; a database remembers how many it has seen.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
    include_str!("schema/0005.sql"),
    include_str!("schema/0006.sql"),
    include_str!("schema/0007.sql"),
];
/// How long a connection waits for another process that holds a lock, such as a backup.
const BUSY: Duration = Duration::from_secs(5);

/// Why the database could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another kind of file, or damaged.
    #[error(
        "{path} is damaged or not a Hookturn database; restore it from a backup, or move it away to start empty"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The engine's own error.
        #[source]
        source: Option<rusqlite::Error>,
    },
    /// A part of the schema is gone.
    #[error(
        "{path} is damaged: {missing} is missing in it; nothing was changed: restore it from a backup, or move it away to start empty"
    )]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// What should be there: `table message`, `column payload of message`…
        missing: String,
    },
    /// A file without a byte in it.
    #[error(
        "{path} is empty, and a database never is: what it held is lost; nothing was changed: restore it from a backup, or move it away to start empty"
    )]
    Emptied {
        /// The file.
        path: PathBuf,
    },
    /// The file is not there, and the log beside it is.
    #[error(
        "{path} is gone, and its log {path}-wal is still there: what they held is lost without it; nothing was changed: put the database back, restore it from a backup, or move the log away to start empty"
    )]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// A backup, and the log of the database that stood there before.
    #[error(
        "{path} is a backup that was put there, and {path}-wal is the log of what stood there before: together they are neither; nothing was changed: to start from the backup, move {path}-wal and {path}-shm away"
    )]
    LogOfAnother {
        /// The file.
        path: PathBuf,
    },
    /// A directory, a device, or a link to nothing.
    #[error(
        "{path} is not a file, or links to one that is not there; nothing was changed: put the database back, or move this away to start empty"
    )]
    NotAFile {
        /// What has the name of the database.
        path: PathBuf,
    },
    /// Written by a newer Hookturn.
    #[error(
        "{path} has schema {found}, newer than the {known} this version knows; start the newer hookturn, or restore an older backup"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i32,
        /// The newest schema of this version.
        known: i32,
    },
    /// Written by an older Hookturn, and nobody is to bring it up to date now.
    #[error(
        "{path} has schema {found}, older than the {known} of this version; a start of this version brings it up to date, and so does a copy that is no dry run"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i32,
        /// The newest schema of this version.
        known: i32,
    },
    /// A step of the schema failed.
    #[error(
        "{path} could not be brought from schema {found} to {known}: step {number} failed; nothing was changed: check that the disk has room and that nothing but hookturn made tables in it; the hookturn that ran on it before still does, and a backup can be restored"
    )]
    Migration {
        /// The file.
        path: PathBuf,
        /// Its schema, which it still has.
        found: i32,
        /// The newest schema of this version.
        known: i32,
        /// The step.
        number: i32,
        /// What the engine says, without the statement.
        #[source]
        source: Said,
    },
    /// The file or its directory cannot be read or written.
    #[error(
        "{path} cannot be opened for writing; check that the directory exists and belongs to the user hookturn runs as"
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The engine's own error.
        #[source]
        source: rusqlite::Error,
    },
    /// The file can be read, and not written.
    #[error(
        "{path} can be read but not written; check that the file belongs to the user hookturn runs as and that its disk is not read-only; nothing was changed"
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The lock file cannot be made.
    #[error(
        "{path} cannot be created; check that the directory exists and belongs to the user hookturn runs as"
    )]
    NoLock {
        /// The lock file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A new database cannot be put in its place.
    #[error(
        "{path} cannot be made; check that the directory belongs to the user hookturn runs as, and that the disk has room"
    )]
    NotMade {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// Another Hookturn process has it open.
    #[error(
        "{path} is in use by another hookturn process; stop that one first, or choose another --data-dir"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A stored row cannot be.
    #[error("the stored configuration cannot be read")]
    Contents(#[source] StoreError),
    /// A thread could not be started.
    #[error("cannot start a thread for the store")]
    Thread(#[source] std::io::Error),
    /// Anything else the engine says.
    #[error("the database engine failed while opening")]
    Engine(#[source] rusqlite::Error),
}

/// The engine's own words about a statement, which may be pages long itself.
#[derive(Debug)]
pub struct Said(rusqlite::Error);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            rusqlite::Error::SqlInputError { msg, .. } => f.write_str(msg),
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for Said {}

fn classify(path: &Path) -> impl Fn(rusqlite::Error) -> OpenError + '_ {
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged {
            path: path.to_owned(),
            source: Some(source),
        },
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::SystemIoFailure,
        ) => OpenError::Unwritable {
            path: path.to_owned(),
            source,
        },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse {
            path: path.to_owned(),
        },
        _ => OpenError::Engine(source),
    }
}

/// Keeps other Hookturn processes from writing to the same file; released with the process.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let beside = path.with_extension("lock");
    let unwritable = |source: std::io::Error| OpenError::NoLock {
        path: beside.clone(),
        source,
    };
    let file = owners_file(&beside).map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(unwritable(source)),
    }
}

/// Opens a file, making it so that only its owner can read it: payloads are nobody else's business.
fn owners_file(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Whether there is a database file at `path`, without a look into it. What is there and cannot be one
/// is refused.
pub(super) fn exists(path: &Path) -> Result<bool, OpenError> {
    let path_of = || path.to_owned();
    match std::fs::metadata(path) {
        Ok(file) if !file.is_file() => Err(OpenError::NotAFile { path: path_of() }),
        Ok(file) if file.len() == 0 => Err(OpenError::Emptied { path: path_of() }),
        // A link to nothing: what it should lead to may be on a disk that is not there today.
        Err(_) if path.is_symlink() => Err(OpenError::NotAFile { path: path_of() }),
        Ok(_) => Ok(true),
        // What its log holds was acknowledged, and is nothing without it.
        Err(_) if log_of(path).metadata().is_ok_and(|log| log.len() > 0) => {
            Err(OpenError::Gone { path: path_of() })
        }
        // Whatever else stands in the way also stands in the way of making one, which tells.
        Err(_) => Ok(false),
    }
}

/// Where SQLite keeps what is not in the database yet.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Makes a new database beside its place, and gives it its name when it is whole and on the disk.
fn make(path: &Path) -> Result<(), OpenError> {
    let fresh = path.with_added_extension("new");
    let not_made = |source: std::io::Error| OpenError::NotMade {
        path: path.to_owned(),
        source,
    };
    // A start that was broken off leaves one; it never held anything.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(not_made(error)),
        Ok(()) | Err(_) => {}
    }
    // SQLite gives its log the permissions of the database.
    drop(owners_file(&fresh).map_err(not_made)?);
    let connection = connect(&fresh, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Without a journal beside it: what is not whole is thrown away.
    connection
        .execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = FULL;")
        .map_err(classify(&fresh))?;
    migrate(&connection, &fresh)?;
    connection
        .close()
        .map_err(|(_, error)| classify(&fresh)(error))?;
    std::fs::rename(&fresh, path).map_err(not_made)?;
    // The name must survive a crash too.
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))
        .and_then(|directory| directory.sync_all())
        .map_err(not_made)
}

pub(super) fn open_for_writing(path: &Path) -> Result<Connection, OpenError> {
    if !exists(path)? {
        make(path)?;
    }
    if restored::is_backup(path)? {
        drop(connect_to_ours(path)?);
        restored::accept(path)?;
    }
    let connection = connect_to_ours(path)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA journal_size_limit = 67108864;
             PRAGMA cache_size = -32768;",
        )
        .map_err(classify(path))?;
    connection.set_prepared_statement_cache_capacity(128);
    migrate(&connection, path)?;
    Ok(connection)
}

/// Connects to a database of ours that can be written, and has not written yet.
fn connect_to_ours(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // SQLite opens what it may not write all the same, to read it.
    if connection.is_readonly("main").map_err(classify(path))? {
        return Err(OpenError::ReadOnly {
            path: path.to_owned(),
        });
    }
    prepare_file(&connection, path)?;
    Ok(connection)
}

/// Opens it for somebody who only looks, from beside whoever has it open.
pub(super) fn open_to_look(path: &Path) -> Result<Connection, OpenError> {
    // Before SQLite takes the log for its own.
    restored::is_backup(path)?;
    open_for_reading(path)
}

pub(super) fn open_for_reading(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection
        .execute_batch("PRAGMA cache_size = -4096;")
        .map_err(classify(path))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

pub(super) fn open_for_checkpoints(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection
        .execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -256;",
        )
        .map_err(classify(path))?;
    Ok(connection)
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, OpenError> {
    let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags).map_err(classify(path))?;
    connection.busy_timeout(BUSY).map_err(classify(path))?;
    // Without it, SQLite plans some cached statements anew at every use, for the values bound to them.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(classify(path))?;
    connection
        .execute_batch(
            "PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;",
        )
        .map_err(classify(path))?;
    Ok(connection)
}

/// Refuses files that are not ours before anything is written to them.
pub(super) fn prepare_file(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .map_err(classify(path))
    };
    let (application, schema) = (pragma("application_id")?, pragma("user_version")?);
    // Ours are numbered from their first moment.
    if ![APPLICATION_ID, restored::BACKUP_ID].contains(&application) || schema < 1 {
        return Err(OpenError::Damaged {
            path: path.to_owned(),
            source: None,
        });
    }
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    if schema > known {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found: schema,
            known,
        });
    }
    if is_small(path) {
        quick_check(connection, path)?;
    }
    check_schema(connection, schema, path)
}

/// Refuses a schema that would have to be brought up to date first.
pub(super) fn must_be_current(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let found = connection
        .pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))
        .map_err(classify(path))?;
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    if found < known {
        return Err(OpenError::Older {
            path: path.to_owned(),
            found,
            known,
        });
    }
    Ok(())
}

/// Compares what is there with what the migrations up to `schema` make: a statement that meets a
/// missing table fails in the middle of the traffic, and in the engine's words.
fn check_schema(connection: &Connection, schema: i32, path: &Path) -> Result<(), OpenError> {
    let reference = Connection::open_in_memory().map_err(OpenError::Engine)?;
    for (_, sql) in (1..=schema).zip(MIGRATIONS) {
        reference.execute_batch(sql).map_err(OpenError::Engine)?;
    }
    let found = parts(connection).map_err(classify(path))?;
    let wanted = parts(&reference).map_err(OpenError::Engine)?;
    // With a table go its columns and indexes: the table is what to name.
    let missing = wanted
        .difference(&found)
        .max_by_key(|part| part.starts_with("table "));
    match missing {
        None => Ok(()),
        Some(missing) => Err(OpenError::Incomplete {
            path: path.to_owned(),
            missing: missing.clone(),
        }),
    }
}

/// Every table, index, trigger and column of a schema, by kind and name.
fn parts(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let sql = "SELECT type || ' ' || name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'
               UNION ALL
               SELECT 'the column ' || c.name || ' of table ' || t.name
               FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table'";
    let mut statement = connection.prepare(sql)?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

fn quick_check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let health: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(classify(path))?;
    if health == "ok" {
        Ok(())
    } else {
        Err(OpenError::Damaged {
            path: path.to_owned(),
            source: None,
        })
    }
}

/// The same refusals for someone who only looks, with the check of the whole file however large.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    prepare_file(connection, path)?;
    quick_check(connection, path)
}

/// A full check reads the whole file; large ones are left to `hookturn doctor`.
fn is_small(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() < 16 * 1024 * 1024)
}

fn migrate(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: i32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(classify(path))?;
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    if found >= known {
        return Ok(());
    }
    let failed = |number| {
        move |source| match classify(path)(source) {
            OpenError::Engine(source) => OpenError::Migration {
                path: path.to_owned(),
                found,
                known,
                number,
                source: Said(source),
            },
            other => other,
        }
    };
    // All steps or none: dropped before its end, it is rolled back.
    let tx = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
        .map_err(classify(path))?;
    for (number, sql) in (1..).zip(MIGRATIONS) {
        if number > found {
            tx.execute_batch(sql).map_err(failed(number))?;
        }
    }
    let marks = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {known};");
    tx.execute_batch(&marks).map_err(failed(known))?;
    tx.commit().map_err(failed(known))
}

//! A backup that was put in the place of the database.
//!
//! SQLite knows the log of a database by its name alone, and a server that was killed leaves one. Played back over a
//! backup that was put there since, it undoes the backup, or leaves something that was neither. So the header of a backup
//! has a mark of its own. It goes when a store is first opened on it, before anything is written to a log; while it is
//! there, a log beside it is another database's.
//!
//! Whoever calls these has no connection to the file in this process: closing a file gives up the process's locks on
//! it, SQLite's among them (<https://sqlite.org/howtocorrupt.html>, section 2.2).

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::open::{APPLICATION_ID, OpenError, log_of};

/// What a backup has where a database has its [`APPLICATION_ID`]: "hktB".
pub(super) const BACKUP_ID: i32 = 0x686b_7442;
/// Where that stands in a file: big-endian, in the header (<https://sqlite.org/fileformat.html>, section 1.3).
const PLACE: SeekFrom = SeekFrom::Start(68);

/// Marks a whole copy that nobody has open as a backup.
pub(super) fn mark(path: &Path) -> std::io::Result<()> {
    write(path, BACKUP_ID)
}

/// Makes a backup that nobody has open a database.
pub(super) fn accept(path: &Path) -> Result<(), OpenError> {
    write(path, APPLICATION_ID).map_err(|_| OpenError::ReadOnly {
        path: path.to_owned(),
    })
}

/// Whether there is a backup at `path` that no store was opened on yet. One with a log beside it is refused.
pub(super) fn is_backup(path: &Path) -> Result<bool, OpenError> {
    // What cannot be read is refused by SQLite, which says why.
    if !read(path).is_ok_and(|id| id == BACKUP_ID) {
        return Ok(false);
    }
    if log_of(path).metadata().is_ok_and(|log| log.len() > 0) {
        return Err(OpenError::LogOfAnother {
            path: path.to_owned(),
        });
    }
    Ok(true)
}

fn read(path: &Path) -> std::io::Result<i32> {
    let mut file = File::open(path)?;
    file.seek(PLACE)?;
    let mut id = [0; 4];
    file.read_exact(&mut id)?;
    Ok(i32::from_be_bytes(id))
}

fn write(path: &Path, id: i32) -> std::io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.seek(PLACE)?;
    file.write_all(&id.to_be_bytes())?;
    file.sync_all()
}

//! `hookturn backup`: a consistent copy of the database, also while the server runs; `hookturn restore`: the
//! way back, where a backup is not simply a file to put in place.

use std::path::PathBuf;

use clap::Args;

use super::Edge;
use super::exit::{Exit, Failure, Outcome};
use super::output::Output;
use super::serve::{Place, not_started, of_database, of_open};
use crate::app::backup::BackupFailure;
use crate::app::{self, DatabaseError};
use crate::config::StorePlace;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file to write; it must not exist.
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// A file that `hookturn backup` wrote of a PostgreSQL store.
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(asked: &Backup, edge: &Edge, output: &mut Output) -> Outcome {
    let config = asked.place.load(edge)?;
    app::backup::of_store(&config, &asked.file).map_err(|error| failed(&error))?;
    output.line(format!("wrote {}", asked.file.display()))?;
    output.hint("secrets in it are sealed: keep the master key too, and elsewhere");
    Ok(Exit::Done)
}

/// Fills an empty database.
pub(super) fn restore(asked: &Restore, edge: &Edge, output: &mut Output) -> Outcome {
    let config = asked.place.load(edge)?;
    let StorePlace::Postgres(database) = &config.store else {
        let place = config.data_dir.join(app::DATABASE);
        let place = place.display();
        return Err(
            Failure::usage("a backup of the embedded store needs no command to restore it").next(
                format!(
                    "stop the server, move {place}, {place}-wal and {place}-shm away, as many as there are, and copy the file to {place}; for a PostgreSQL store, name it by --store"
                ),
            ),
        );
    };
    app::backup::restore(database, &asked.file).map_err(|error| failed(&error))?;
    output.line(format!("restored {}", asked.file.display()))?;
    output.hint("the secrets in it open with the master key of the store that it was made of");
    Ok(Exit::Done)
}

fn failed(error: &BackupFailure) -> Failure {
    let half = matches!(
        error,
        BackupFailure::Database(DatabaseError::HalfCopied { .. })
    );
    let exit = match error {
        BackupFailure::NoDatabase { .. } => Exit::DataDirectory,
        BackupFailure::Open(error) => of_open(error),
        BackupFailure::Database(error) => of_database(error),
        BackupFailure::Start(error) => return not_started(error),
        _ => Exit::LocalFile,
    };
    let failure = Failure::new(exit, app::explain(error));
    if half {
        // Its sentence says how the copy goes on.
        return failure.next(
            "no backup was written: make it when the copy is complete; until then, back up the store that is copied",
        );
    }
    failure
}

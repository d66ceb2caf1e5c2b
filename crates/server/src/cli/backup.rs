//! `hookturn backup`: a consistent copy of the database, also while the server runs.

use std::path::PathBuf;

use clap::Args;

use super::Edge;
use super::exit::{Exit, Failure, Outcome};
use super::output::Output;
use super::serve::{Place, of_open};
use crate::app;
use crate::app::backup::BackupFailure;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file to write; it must not exist.
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(asked: &Backup, edge: &Edge, output: &mut Output) -> Outcome {
    let config = asked.place.load(edge)?;
    app::backup::backup(&config.data_dir, &asked.file).map_err(|error| {
        let exit = match &error {
            BackupFailure::NoDatabase { .. } => Exit::DataDirectory,
            BackupFailure::Open(error) => of_open(error),
            _ => Exit::LocalFile,
        };
        Failure::new(exit, app::explain(&error))
    })?;
    output.line(format!("wrote {}", asked.file.display()))?;
    output.hint("secrets in it are sealed: keep the master key too, and elsewhere");
    Ok(Exit::Done)
}

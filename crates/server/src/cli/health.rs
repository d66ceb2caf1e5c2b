//! `hookturn health`: whether the server of this configuration answers, for what looks after it without a client of
//! its own, such as a container engine.

use std::time::Duration;

use clap::Args;

use super::Edge;
use super::exit::{Exit, Failure, Outcome};
use super::output::Output;
use super::serve::Serve;
use crate::app::{self, alive};

/// Longest wait for the answer. Whoever asks is impatient too.
const PATIENCE: Duration = Duration::from_secs(4);

#[derive(Debug, Args)]
pub(super) struct Health {
    #[command(flatten)]
    serve: Serve,
    /// Ask whether it takes requests (/readyz), not only whether it answers (/livez).
    #[arg(long)]
    ready: bool,
}

pub(super) fn run(asked: &Health, edge: &Edge, output: &mut Output) -> Outcome {
    let listen = asked.serve.load(edge)?.listen;
    let path = if asked.ready { "/readyz" } else { "/livez" };
    let answer = alive::ask(listen, path, PATIENCE)
        .map_err(|error| Failure::new(Exit::Unreachable, app::explain(&error)))?;
    let place = alive::address_of(listen);
    match answer {
        Ok(200) => {
            output.line(format!("{place} answers {path}"))?;
            Ok(Exit::Done)
        }
        Ok(status) => Err(Failure::new(
            Exit::ServerError,
            format!("{place} answers {path} with {status}"),
        )
        .next("its log says why; it goes on by itself when that is mended")),
        Err(error) => Err(Failure::new(
            Exit::Unreachable,
            format!("{place} does not answer: {error}"),
        )
        .next("look whether the server runs, and listens where this configuration says")),
    }
}

//! `hookturn openapi`: the description of the API.

use clap::{Args, ValueEnum};

use super::exit::{Exit, Outcome};
use super::output::Output;
use crate::app;

/// `hookturn openapi`
#[derive(Debug, Args)]
pub(super) struct Openapi {
    /// Describe a dialect instead of the native API.
    #[arg(long)]
    dialect: Option<Dialect>,
}

/// An API of another product that is served beside the native one.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dialect {
    /// Hopae Connect's webhooks, at /connect/v1.
    Hopae,
}

pub(super) fn run(asked: &Openapi, output: &mut Output) -> Outcome {
    let document = match asked.dialect {
        None => app::openapi(),
        Some(Dialect::Hopae) => app::hopae_openapi(),
    };
    output.bytes(document.as_bytes())?;
    Ok(Exit::Done)
}

//! `hookturn openapi`: the descriptions of the APIs.

use clap::{Args, ValueEnum};

use super::exit::{Exit, Outcome};
use super::output::Output;
use crate::app;

#[derive(Debug, Args)]
pub(super) struct Openapi {
    /// Which API.
    #[arg(value_enum, default_value = "native")]
    api: Api,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Api {
    /// The native one.
    Native,
    /// The dialect of KORE.
    Kore,
}

pub(super) fn run(asked: &Openapi, output: &mut Output) -> Outcome {
    let text = match asked.api {
        Api::Native => app::openapi(),
        Api::Kore => app::kore_openapi(),
    };
    output.bytes(text.as_bytes())?;
    Ok(Exit::Done)
}

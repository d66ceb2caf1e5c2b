//! `hookturn openapi`: the descriptions of the APIs.

use clap::{Args, ValueEnum};

use super::exit::{Exit, Outcome};
use super::output::Output;
use crate::app;

/// `hookturn openapi`
#[derive(Debug, Args)]
pub(super) struct Openapi {
    /// Which API.
    #[arg(value_enum, default_value = "native")]
    api: Api,
}

/// An API that the server has.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Api {
    /// The native one.
    Native,
    /// The dialect of Hopae.
    Hopae,
    /// The dialect of KORE.
    Kore,
}

pub(super) fn run(asked: &Openapi, output: &mut Output) -> Outcome {
    let text = match asked.api {
        Api::Native => app::openapi(),
        Api::Hopae => app::hopae_openapi(),
        Api::Kore => app::kore_openapi(),
    };
    output.bytes(text.as_bytes())?;
    Ok(Exit::Done)
}

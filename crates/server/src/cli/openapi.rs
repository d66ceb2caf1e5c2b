//! `hookturn openapi`: the description of the API.

use super::exit::{Exit, Outcome};
use super::output::Output;
use crate::app;

pub(super) fn run(output: &mut Output) -> Outcome {
    output.bytes(app::openapi().as_bytes())?;
    Ok(Exit::Done)
}

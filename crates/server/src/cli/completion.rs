//! `hookturn completion`: scripts that complete commands in a shell.

use clap::Args;
use clap_complete::Shell;

use super::exit::{Exit, Outcome};
use super::output::Output;

#[derive(Debug, Args)]
pub(super) struct Completion {
    /// Which shell: bash, zsh, fish, powershell or elvish.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(asked: &Completion, output: &mut Output) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut super::command(), "hookturn", &mut script);
    output.bytes(&script)?;
    Ok(Exit::Done)
}

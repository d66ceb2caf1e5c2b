//! `cargo xtask shards`: the shard map with up to a thousand nodes, as the table of `docs/scaling.md`.
//!
//! It is a test of `crates/core`, which calls what decides in the server, built with optimisation.

use crate::steps::{Failure, Steps};
use crate::workspace::Workspace;

/// Prints the table.
pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<(), Failure> {
    let mut map = workspace.cargo(["test", "--release", "--quiet", "--locked"]);
    map.args(["--package", "hookturn-core", "--test", "shard_map"]);
    map.args(["--", "--ignored", "--exact", "--nocapture", "as_asked"]);
    steps.command("shard map", map)?;
    Ok(())
}

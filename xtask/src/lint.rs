//! `cargo xtask lint`: everything that can be said about the code without running it.

use crate::policy;
use crate::steps::{Failure, Outcome, Steps};
use crate::workspace::Workspace;

/// Formatting, clippy, rustdoc, then the dependency policy.
///
/// The policy is always checked by [`policy`], which reads `deny.toml` and needs no tool. Where
/// `cargo deny` is installed it reads the same file and gives a second opinion.
pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<(), Failure> {
    steps.command("format", workspace.cargo(["fmt", "--all", "--check"]))?;
    let mut clippy = workspace.cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--keep-going",
    ]);
    clippy.args(["--", "-D", "warnings"]);
    steps.command("clippy", clippy)?;
    let mut rustdoc = workspace.cargo([
        "doc",
        "--workspace",
        "--no-deps",
        "--locked",
        "--keep-going",
    ]);
    rustdoc.arg("--document-private-items");
    rustdoc.env("RUSTDOCFLAGS", "-D warnings");
    steps.command("rustdoc", rustdoc)?;
    steps.check("dependency policy", || dependency_policy(workspace))?;
    if workspace.has_cargo_tool("deny") {
        let mut deny = workspace.cargo(["deny", "--locked", "check"]);
        deny.args(["bans", "licenses", "sources"]);
        steps.command("cargo deny", deny)?;
    }
    Ok(())
}

fn dependency_policy(workspace: &Workspace) -> Result<Outcome, Failure> {
    let report = policy::check(workspace)?;
    Ok(if report.violations.is_empty() {
        Outcome::Passed(format!("{} packages keep deny.toml", report.packages))
    } else {
        Outcome::Failed(report.violations.join("\n"))
    })
}

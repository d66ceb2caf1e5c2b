//! `cargo xtask test`: install what is missing, then run every test there is.

use std::path::PathBuf;

use crate::install::{self, Judges};
use crate::openapi;
use crate::steps::{Failure, Outcome, Steps};
use crate::workspace::Workspace;

/// The tests whose server runs on either store, which are run once more on PostgreSQL: the native API, the
/// contracts of the dialects, and the zoo of receivers. The conformance suite runs on every engine anyway.
const ON_POSTGRES: &[&str] = &["api_v1", "dialect_hopae", "dialect_kore", "proven"];

/// Tools and judges first; then the judges' own test, the Rust tests, some of them on the other store, the
/// documentation's examples, the fuzz targets and the API description.
pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<(), Failure> {
    steps.check("tools", || install::tools(workspace))?;
    let mut installed = None;
    steps.check("judges", || {
        let (judges, outcome) = install::judges(workspace)?;
        installed = matches!(outcome, Outcome::Passed(_)).then_some(judges);
        Ok(outcome)
    })?;
    match &installed {
        Some(judges) => judge_the_judges(workspace, steps, judges)?,
        None => steps.skip("judges' self-test", "the judges are not installed"),
    }
    rust_tests(workspace, steps, installed.as_ref())?;
    on_postgres(workspace, steps)?;
    steps.command(
        "doc tests",
        workspace.cargo(["test", "--doc", "--workspace", "--locked"]),
    )?;
    fuzz_targets(workspace, steps)?;
    if openapi::is_checked_in(workspace) {
        steps.check("openapi", || openapi::check(workspace))?;
    } else {
        steps.skip("openapi", "nothing is checked in below docs/api");
    }
    Ok(())
}

/// Signs with Python's own hmac and holds every judge to the verdicts it is known for, so that a
/// library that begins to judge otherwise is noticed here and not taken for a fault of ours.
fn judge_the_judges(
    workspace: &Workspace,
    steps: &mut Steps,
    judges: &Judges,
) -> Result<(), Failure> {
    let mut selftest = workspace.command(&judges.python);
    selftest.arg("tests/judges/selftest.py");
    judges.announce(&mut selftest);
    steps.command("judges' self-test", selftest)?;
    Ok(())
}

fn rust_tests(
    workspace: &Workspace,
    steps: &mut Steps,
    judges: Option<&Judges>,
) -> Result<(), Failure> {
    let mut tests = if workspace.has_cargo_tool("nextest") {
        workspace.cargo([
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
        ])
    } else {
        let mut tests = workspace.cargo(["test", "--workspace", "--locked", "--no-fail-fast"]);
        tests.args(["--lib", "--bins", "--tests"]);
        tests
    };
    if let Some(judges) = judges {
        judges.announce(&mut tests);
    }
    steps.command("tests", tests)?;
    Ok(())
}

fn on_postgres(workspace: &Workspace, steps: &mut Steps) -> Result<(), Failure> {
    let mut tests = if workspace.has_cargo_tool("nextest") {
        workspace.cargo(["nextest", "run"])
    } else {
        workspace.cargo(["test"])
    };
    // The same build as that of the whole workspace: another selection of features would compile anew.
    tests.args(["--workspace", "--locked", "--no-fail-fast"]);
    for name in ON_POSTGRES {
        tests.args(["--test", name]);
    }
    tests.env("HOOKTURN_TEST_ENGINE", "postgres");
    steps.command("tests on PostgreSQL", tests)?;
    Ok(())
}

/// Fuzz crates stand outside the workspace, because they need flags of their own to run; that they
/// compile is checked here.
fn fuzz_targets(workspace: &Workspace, steps: &mut Steps) -> Result<(), Failure> {
    let manifests = fuzz_manifests(workspace);
    if manifests.is_empty() {
        steps.skip("fuzz targets", "there is no fuzz crate");
    }
    for manifest in manifests {
        let mut check = workspace.cargo(["check", "--bins", "--manifest-path"]);
        check.arg(&manifest);
        if manifest.with_file_name("Cargo.lock").exists() {
            check.arg("--locked");
        }
        steps.command("fuzz targets", check)?;
    }
    Ok(())
}

/// The repository's own fuzz crate and those of its crates, in a stable order.
fn fuzz_manifests(workspace: &Workspace) -> Vec<PathBuf> {
    let crates = std::fs::read_dir(workspace.root().join("crates"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    let mut manifests: Vec<PathBuf> = std::iter::once(workspace.root().to_path_buf())
        .chain(crates)
        .map(|directory| directory.join("fuzz/Cargo.toml"))
        .filter(|manifest| manifest.exists())
        .collect();
    manifests.sort();
    manifests
}

//! The project's tasks: what CI runs, and what anyone can run with `cargo xtask TASK`.
//!
//! A task is a list of steps. Each step prints a heading, runs, and prints how long it took; the
//! last line of a task counts them. A failed check does not stop the checks after it, so that one
//! run names everything that is wrong; a missing tool does, because nothing after it can be true.
//!
//! The exit code says what happened: 0 everything passed, 1 a check failed, 2 the command line was
//! not understood, 3 something must be installed first, 4 a tool could not be started or a file of
//! the repository could not be read.

mod install;
mod lint;
mod openapi;
mod policy;
mod shards;
mod sim;
mod spdx;
mod steps;
mod test;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use steps::{Failure, Steps};
use workspace::Workspace;

const HELP: &str = "\
The project's tasks.

Usage: cargo xtask <TASK>

Tasks:
  lint              formatting, clippy, rustdoc and the dependency policy of deny.toml
  test              install what the tests need where it is missing, then run every test
  bench [ARGS]      build for release and run the end-to-end bench with ARGS
  sim [OPTIONS]     run the simulation: --seeds N (10000), --from SEED (0), --nodes one|several|both (both), or --replay FILE
  shards            print how shards move and traffic falls with up to 1,000 nodes
  openapi           write the descriptions of docs/api from what the server prints
  openapi --check   fail if one of them differs from it
  help              this text

Exit codes:
  0 passed   1 a check failed   2 usage   3 something must be installed   4 a tool did not start
";

/// One understood command line.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Lint,
    Test,
    Bench(Vec<OsString>),
    Sim(sim::Asked),
    Shards,
    Openapi { check: bool },
    Help,
}

fn main() -> ExitCode {
    let task = match parse(std::env::args_os().skip(1)) {
        Ok(task) => task,
        Err(message) => {
            eprintln!("error: {message}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(task) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

fn run(task: Task) -> Result<ExitCode, Failure> {
    let workspace = Workspace::locate()?;
    let mut steps = Steps::new();
    match task {
        Task::Lint => lint::run(&workspace, &mut steps)?,
        Task::Test => test::run(&workspace, &mut steps)?,
        Task::Bench(arguments) => bench(&workspace, &mut steps, &arguments)?,
        Task::Sim(asked) => sim::run(&workspace, &mut steps, &asked)?,
        Task::Shards => shards::run(&workspace, &mut steps)?,
        Task::Openapi { check: true } => {
            steps.check("openapi", || openapi::check(&workspace))?;
        }
        Task::Openapi { check: false } => {
            steps.check("openapi", || openapi::write(&workspace))?;
        }
        Task::Help => {
            print!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
    }
    Ok(steps.finish())
}

/// Builds first and apart, so that the compiler does not compete with the load it would measure.
fn bench(workspace: &Workspace, steps: &mut Steps, arguments: &[OsString]) -> Result<(), Failure> {
    let built = steps.command(
        "release build",
        workspace.cargo(["build", "--release", "--locked", "--package", "hookturn"]),
    )?;
    if !built {
        return Ok(());
    }
    let mut bench = workspace.cargo(["bench", "--locked", "--package", "hookturn"]);
    bench.args(["--bench", "end_to_end", "--"]).args(arguments);
    steps.command("bench", bench)?;
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Task, String> {
    let Some(name) = arguments.next() else {
        return Ok(Task::Help);
    };
    let rest: Vec<OsString> = arguments.collect();
    let alone = |task: Task| match rest.first() {
        None => Ok(task),
        Some(extra) => Err(format!("unexpected argument `{}`", extra.display())),
    };
    match name.to_str() {
        Some("lint") => alone(Task::Lint),
        Some("test") => alone(Task::Test),
        Some("help" | "--help" | "-h") => alone(Task::Help),
        Some("bench") => Ok(Task::Bench(rest)),
        Some("shards") => alone(Task::Shards),
        Some("sim") => sim::parse(&rest).map(Task::Sim),
        Some("openapi") => match rest.as_slice() {
            [] => Ok(Task::Openapi { check: false }),
            [flag] if flag == "--check" => Ok(Task::Openapi { check: true }),
            [other, ..] => Err(format!("unexpected argument `{}`", other.display())),
        },
        _ => Err(format!("there is no task `{}`", name.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_documented_command_line_is_understood() {
        assert_eq!(parsed(""), Ok(Task::Help));
        assert_eq!(parsed("help"), Ok(Task::Help));
        assert_eq!(parsed("lint"), Ok(Task::Lint));
        assert_eq!(parsed("test"), Ok(Task::Test));
        assert_eq!(parsed("sim"), Ok(Task::Sim(sim::Asked::seeds(10_000, 0))));
        assert_eq!(
            parsed("sim --from 7 --seeds 5"),
            Ok(Task::Sim(sim::Asked::seeds(5, 7)))
        );
        assert_eq!(
            parsed("sim --replay case.json"),
            Ok(Task::Sim(sim::Asked::Replay("case.json".into())))
        );
        assert_eq!(parsed("shards"), Ok(Task::Shards));
        assert_eq!(parsed("openapi"), Ok(Task::Openapi { check: false }));
        assert_eq!(parsed("openapi --check"), Ok(Task::Openapi { check: true }));
        assert_eq!(
            parsed("bench --json x"),
            Ok(Task::Bench(vec!["--json".into(), "x".into()]))
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_rather_than_ignored() {
        for line in [
            "lnit",
            "lint --fix",
            "test filter",
            "openapi --chekc",
            "sim 5",
            "sim --seeds",
            "sim --seeds many",
            "sim --nodes three",
            "sim --replay x --seeds 5",
        ] {
            assert!(parsed(line).is_err(), "`{line}` was accepted");
        }
    }
}

//! Steps: run one thing after another, say what runs, how long it took, and count the outcomes.
//!
//! The last line of a task, `steps: N passed, N failed`, is read by CI; it follows the lines that
//! the test runners print themselves and does not replace them.

use std::fmt;
use std::io;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Why a task cannot go on. A check that merely failed is not one of these: it is counted.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something must be installed first; the text says what and how.
    Missing(String),
    /// A tool could not be started.
    Tool { program: String, source: io::Error },
    /// A file of the repository could not be read, written or understood.
    File { path: String, reason: String },
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Missing(_) => ExitCode::from(3),
            Self::Tool { .. } | Self::File { .. } => ExitCode::from(4),
        }
    }

    pub(crate) fn file(path: &std::path::Path, reason: impl fmt::Display) -> Self {
        Self::File {
            path: path.display().to_string(),
            reason: reason.to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) => f.write_str(what),
            Self::Tool { program, source } => write!(
                f,
                "`{program}` could not be started: {source}; install it or repair its permissions"
            ),
            Self::File { path, reason } => write!(f, "{path}: {reason}"),
        }
    }
}

/// How one check ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It held; the text, if any, is printed.
    Passed(String),
    /// It did not hold; the text says what to do.
    Failed(String),
}

/// The steps of one task, counted as they end.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    passed: usize,
    skipped: usize,
    failed: Vec<String>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Runs `command` with this terminal as its own. True if it exited with 0.
    pub(crate) fn command(&mut self, name: &str, mut command: Command) -> Result<bool, Failure> {
        self.check(name, || {
            Ok(if status(&mut command)? {
                Outcome::Passed(String::new())
            } else {
                Outcome::Failed(format!("failed: {}", line(&command)))
            })
        })
    }

    /// Runs `body` under a heading. True if it passed.
    pub(crate) fn check(
        &mut self,
        name: &str,
        body: impl FnOnce() -> Result<Outcome, Failure>,
    ) -> Result<bool, Failure> {
        eprintln!("\n── {name}");
        let started = monotonic();
        let outcome = body()?;
        let took = seconds(started.elapsed());
        match outcome {
            Outcome::Passed(note) => {
                self.passed += 1;
                eprintln!("{note}{}── {name}: passed in {took}", newline_after(&note));
                Ok(true)
            }
            Outcome::Failed(note) => {
                self.failed.push(name.to_owned());
                eprintln!(
                    "{note}{}── {name}: FAILED after {took}",
                    newline_after(&note)
                );
                Ok(false)
            }
        }
    }

    /// Says that a step did not run, and why: nothing is left out in silence.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        self.skipped += 1;
        eprintln!("\n── {name}\n── {name}: skipped, {reason}");
    }

    /// Prints the closing lines and answers the task's exit code.
    pub(crate) fn finish(self) -> ExitCode {
        if !self.failed.is_empty() {
            eprintln!("\nfailed: {}", self.failed.join(", "));
        }
        println!("\n{}", self.summary());
        if self.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        }
    }

    fn summary(&self) -> String {
        let skipped = match self.skipped {
            0 => String::new(),
            skipped => format!(", {skipped} skipped"),
        };
        format!(
            "steps: {} passed, {} failed{skipped}",
            self.passed,
            self.failed.len()
        )
    }
}

/// Runs a command to its end. True if it exited with 0.
pub(crate) fn status(command: &mut Command) -> Result<bool, Failure> {
    let status = command.status().map_err(|source| Failure::Tool {
        program: program(command),
        source,
    })?;
    Ok(status.success())
}

/// Runs a command to its end and answers its standard output, or `None` if it failed.
pub(crate) fn output(command: &mut Command) -> Result<Option<Vec<u8>>, Failure> {
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|source| Failure::Tool {
            program: program(command),
            source,
        })?;
    Ok(output.status.success().then_some(output.stdout))
}

fn program(command: &Command) -> String {
    command.get_program().display().to_string()
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let mut line = program(command);
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

fn newline_after(note: &str) -> &'static str {
    if note.is_empty() { "" } else { "\n" }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[expect(
    clippy::disallowed_methods,
    reason = "xtask is its own edge and only tells people how long a step took"
)]
fn monotonic() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps_after(outcomes: Vec<Outcome>) -> Steps {
        let mut steps = Steps::new();
        for outcome in outcomes {
            steps.check("one", || Ok(outcome)).unwrap();
        }
        steps
    }

    #[test]
    fn the_closing_line_counts_every_outcome() {
        let mut steps = steps_after(vec![
            Outcome::Passed(String::new()),
            Outcome::Failed("broken".into()),
            Outcome::Passed(String::new()),
        ]);
        assert_eq!(steps.summary(), "steps: 2 passed, 1 failed");
        steps.skip("other", "because");
        assert_eq!(steps.summary(), "steps: 2 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_command_passes_only_with_exit_code_zero() {
        let mut steps = Steps::new();
        assert!(steps.command("true", Command::new("true")).unwrap());
        assert!(!steps.command("false", Command::new("false")).unwrap());
        assert_eq!(steps.summary(), "steps: 1 passed, 1 failed");
    }

    #[test]
    fn a_tool_that_is_not_there_stops_the_task() {
        let failure = Steps::new()
            .command("nothing", Command::new("hookturn-no-such-tool"))
            .unwrap_err();
        assert!(matches!(failure, Failure::Tool { .. }), "{failure}");
    }
}

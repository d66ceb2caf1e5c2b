//! `cargo xtask sim`: the simulation of the server's tests, for as many seeds as asked, or one case again.
//!
//! It is the same program that CI runs a thousand seeds of, built with optimisation. Seeds are divided
//! among as many processes as there are cores; a failing one prints a short scenario to replay.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::Command;

use crate::steps::{Failure, Outcome, Steps};
use crate::workspace::Workspace;

const SEEDS: u64 = 10_000;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// So many seeds from this one on.
    Seeds {
        /// How many.
        count: u64,
        /// The first.
        from: u64,
        /// Of which kind.
        nodes: Nodes,
    },
    /// The scenario in this file.
    Replay(PathBuf),
}

/// What a seed stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nodes {
    /// One process that has its store to itself.
    One,
    /// Several nodes that share a database.
    Several,
    /// Every fourth seed the latter: what CI runs.
    Both,
}

impl Nodes {
    const fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Several => "several",
            Self::Both => "both",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let all = [Self::One, Self::Several, Self::Both];
        let found = all.into_iter().find(|nodes| nodes.name() == text);
        found.ok_or_else(|| format!("--nodes {text} is not one of one, several, both"))
    }
}

impl Asked {
    /// So many seeds of both kinds from this one on.
    #[cfg(test)]
    pub(crate) const fn seeds(count: u64, from: u64) -> Self {
        Self::Seeds {
            count,
            from,
            nodes: Nodes::Both,
        }
    }
}

/// Reads the options.
pub(crate) fn parse(options: &[OsString]) -> Result<Asked, String> {
    let (mut count, mut from, mut nodes, mut replay) = (None, None, None, None);
    for pair in options.chunks(2) {
        let name = pair[0].to_string_lossy();
        let value = pair.get(1).ok_or_else(|| format!("{name} needs a value"))?;
        let number = || {
            let text = value.to_string_lossy();
            text.parse::<u64>()
                .map_err(|_| format!("{name} {text} is no number"))
        };
        match name.as_ref() {
            "--seeds" => count = Some(number()?),
            "--from" => from = Some(number()?),
            "--nodes" => nodes = Some(Nodes::parse(&value.to_string_lossy())?),
            "--replay" => replay = Some(PathBuf::from(value)),
            _ => return Err(format!("unexpected argument `{name}`")),
        }
    }
    match (replay, count, from, nodes) {
        (Some(file), None, None, None) => Ok(Asked::Replay(file)),
        (Some(_), ..) => Err("--replay stands alone".to_owned()),
        (None, count, from, nodes) => Ok(Asked::Seeds {
            count: count.unwrap_or(SEEDS),
            from: from.unwrap_or(0),
            nodes: nodes.unwrap_or(Nodes::Both),
        }),
    }
}

/// Builds the simulation and runs it.
pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, asked: &Asked) -> Result<(), Failure> {
    let mut build = simulation(workspace);
    build.arg("--no-run");
    if !steps.command("optimised build", build)? {
        return Ok(());
    }
    match asked {
        Asked::Replay(file) => {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            let mut replay = case(workspace);
            replay.env("HOOKTURN_SIM_REPLAY", file);
            steps.command("replay", replay)?;
        }
        Asked::Seeds { count, from, nodes } => {
            let cores = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
            let share = count.div_ceil(cores).max(1);
            let parts = (0..cores)
                .map(|part| (from + part * share, from + ((part + 1) * share).min(*count)));
            let parts: Vec<_> = parts.filter(|(first, end)| first < end).collect();
            steps.check("simulation", || in_parts(workspace, &parts, *nodes))?;
        }
    }
    Ok(())
}

fn in_parts(workspace: &Workspace, parts: &[(u64, u64)], nodes: Nodes) -> Result<Outcome, Failure> {
    let mut running = Vec::new();
    for (first, end) in parts {
        let mut part = case(workspace);
        part.env("HOOKTURN_SIM_FROM", first.to_string());
        part.env("HOOKTURN_SIM_SEEDS", (end - first).to_string());
        part.env("HOOKTURN_SIM_NODES", nodes.name());
        running.push(part.spawn().map_err(not_started)?);
    }
    let mut failed = 0;
    for mut part in running {
        let status = part.wait().map_err(not_started)?;
        failed += usize::from(!status.success());
    }
    Ok(if failed == 0 {
        Outcome::Passed(String::new())
    } else {
        Outcome::Failed(format!("{failed} of {} parts found something", parts.len()))
    })
}

fn not_started(source: std::io::Error) -> Failure {
    Failure::Tool {
        program: "cargo".to_owned(),
        source,
    }
}

fn simulation(workspace: &Workspace) -> Command {
    workspace.cargo([
        "test",
        "--release",
        "--locked",
        "--package",
        "hookturn",
        "--test",
        "simulation",
    ])
}

fn case(workspace: &Workspace) -> Command {
    let mut case = simulation(workspace);
    case.args(["--", "--ignored", "--exact", "--nocapture", "as_asked"]);
    case
}

//! The end-to-end bench: one table from one run of the real binary.
//!
//! `cargo xtask bench` runs it. It starts `hookturn serve` as a child on an empty store, publishes over
//! HTTP, receives what is delivered, and compares the books: every accepted message must have arrived
//! once at every endpoint. Beside each throughput stands the *ceiling* of the same minute, so that the
//! ratio can be compared between machines. The last section judges the targets.
//!
//! ```text
//! main -> runs -> fixture -> process   the server, its processor time and memory
//!              |          -> place     its directory, or a database of a PostgreSQL cluster of its own
//!              |          -> load      publishing connections, closed or paced
//!              |          -> rotations rotating connections, beside a paced load
//!              |          -> receiver  the endpoints' side, every id in a book
//!              |          -> tally     lost, duplicates, latency
//!              -> storm -> storm_books       one bulk rotation of everything, every signature verified
//!              -> dashboard -> fill, pages a large store, and a browser that looks at it
//!              -> nodes, fence, stored       several nodes on a database, and a database that holds much
//!              -> costs                 bytes, transactions and processor time of a message
//!              -> ceiling               outbound + verify against the same receiver
//!      -> report -> table               text, targets, JSON
//! ```
//!
//! Everything stays on loopback; every load is bounded in time and in messages. Publisher and receiver
//! share the processor with the server, as they do in the ceiling; what they take is a column.

mod api;
mod ceiling;
mod cluster;
mod costs;
mod dashboard;
mod fence;
mod fill;
mod fixture;
mod histogram;
mod http;
mod load;
mod machine;
mod nodes;
mod number;
mod pages;
mod place;
mod process;
mod receiver;
mod report;
mod rotations;
mod runs;
mod scenario;
mod shared;
mod signatures;
mod stored;
mod storm;
mod storm_books;
mod table;
mod tally;
mod wire;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::fixture::Bench;
use crate::machine::Machine;
use crate::number::{Epoch, Error};
use crate::place::Engine;
use crate::report::{Apart, Report, Row};
use crate::scenario::{Effort, Kind, Scenario};

/// Measure the server end to end and print one table.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// The store that is measured: the embedded one, or PostgreSQL in private clusters of the bench's own
    #[arg(long, value_enum, default_value_t)]
    store: Engine,
    /// About two seconds for each scenario instead of eight
    #[arg(long)]
    quick: bool,
    /// Run only scenarios whose name contains this; may be given more than once
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Seconds of each load (1 to 120)
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Write the report as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Endpoints of the storm (100 to 100,000); 10,000 without, 1,000 with --quick
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=100_000))]
    endpoints: Option<u32>,
    /// Messages a second beside the storm (1 to 100,000); the targets speak of 1,000
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    storm_per_second: u32,
    /// Deliveries in the dashboard's store (1,000 to 100,000,000); 1,000,000 without, 100,000 with --quick
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    deliveries: Option<u64>,
    /// Apps in the dashboard's store (1 to 100,000); at most one for ten deliveries
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    apps: u32,
    /// Messages in the database of the row `stored` (10,000 to 100,000,000); 1,000,000 without, 100,000 with --quick
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    stored: Option<u64>,
    /// Measure this program instead of the one that was built
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_hookturn"))]
    binary: PathBuf,
    /// Make the stores below this directory instead of the build's own
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Exit with 2 when a target is missed
    #[arg(long)]
    strict: bool,
    /// List the scenarios and exit
    #[arg(long)]
    list: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let chosen = choose(arguments.store, &arguments.only)?;
    if arguments.list {
        for scenario in chosen {
            println!("{}", scenario.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(&arguments.dir)?;
    let usual = Effort::new(arguments.quick, arguments.seconds);
    let bench = Bench {
        epoch: Epoch::start(),
        dir: arguments.dir.clone(),
        binary: arguments.binary.clone(),
        engine: arguments.store,
        effort: Effort {
            endpoints: arguments.endpoints.unwrap_or(usual.endpoints),
            apps: arguments.apps,
            storm_per_second: arguments.storm_per_second,
            deliveries: arguments.deliveries.unwrap_or(usual.deliveries),
            stored: arguments.stored.unwrap_or(usual.stored),
            ..usual
        },
    };
    let machine = Machine::look(&bench.dir)?;
    println!("{machine}");
    let report = measure(&bench, machine, &chosen)?;
    report::print(&report);
    if let Some(file) = &arguments.json {
        write_json(file, &report)?;
    }
    Ok(if report.failed() {
        ExitCode::FAILURE
    } else if arguments.strict && report.missed() {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}

fn choose(engine: Engine, only: &[String]) -> Result<Vec<Scenario>, Error> {
    let all = match engine {
        Engine::Sqlite => scenario::all(),
        Engine::Postgres => scenario::on_postgres(),
    };
    let wanted = |scenario: &Scenario| {
        only.is_empty() || only.iter().any(|part| scenario.name.contains(part))
    };
    let chosen: Vec<Scenario> = all.into_iter().filter(wanted).collect();
    if chosen.is_empty() {
        return Err("no scenario has such a name; --list shows them".into());
    }
    Ok(chosen)
}

/// Runs one scenario after another; one that fails leaves its reason in the report.
fn measure(bench: &Bench, machine: Machine, chosen: &[Scenario]) -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut apart = Apart::default();
    if bench.engine == Engine::Postgres {
        apart.database = Some(runtime.block_on(cluster::describe(&bench.dir))?);
    }
    let mut rows = Vec::new();
    for (number, scenario) in (1..).zip(chosen) {
        eprint!("[{number}/{}] {} ... ", chosen.len(), scenario.name);
        let _shown = std::io::stderr().flush();
        let outcome = match scenario.kind {
            Kind::Start => runtime.block_on(runs::starts(bench)).map(|found| {
                apart.starts = Some(found);
                Vec::new()
            }),
            Kind::Costs => runtime.block_on(costs::run(bench)).map(|found| {
                apart.costs = found;
                Vec::new()
            }),
            Kind::Dashboard => runtime
                .block_on(dashboard::run(bench, scenario))
                .map(|found| {
                    apart.dashboard = Some(found);
                    Vec::new()
                }),
            _ => runtime.block_on(runs::run(bench, scenario)),
        };
        match outcome {
            Ok(found) => {
                eprintln!("done");
                rows.extend(found);
            }
            Err(error) => {
                eprintln!("failed: {error}");
                rows.push(Row::failed(&scenario.name, &error.to_string()));
            }
        }
    }
    Ok(Report::new(machine, apart, rows))
}

fn write_json(file: &Path, report: &Report) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(report)?;
    text.push(b'\n');
    std::fs::write(file, text)?;
    Ok(())
}

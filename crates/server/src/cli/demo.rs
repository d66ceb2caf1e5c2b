//! `hookturn demo`: shows rotations that prove themselves under traffic, and leaves the server running.

use clap::Args;
use serde_json::json;

use super::exit::{Exit, Failure, Outcome};
use super::output::Output;
use super::serve;
use crate::app::{self, Signals};
use crate::demo::{Demo, DemoError, Options, Report};

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Asked {
    /// Stop when the table is shown instead of leaving the server running.
    #[arg(long)]
    exit: bool,
    /// Print the result as one JSON document.
    #[arg(long)]
    json: bool,
    /// Messages a second, 20 to 2000; each goes to eight receivers.
    #[arg(long, value_name = "N", default_value_t = 300,
        value_parser = clap::value_parser!(u32).range(20..=2_000))]
    rate: u32,
}

pub(super) fn run(asked: Asked, output: &mut Output) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                Exit::ServeFailed,
                format!("cannot start the runtime: {error}"),
            )
        })?;
    runtime.block_on(show(asked, output))
}

/// Shows it, and stops and removes what it made however it ends. A signal ends it at any moment.
async fn show(asked: Asked, output: &mut Output) -> Outcome {
    // Before there is anything to remove.
    let mut signals = Signals::with_hang_up().map_err(|error| {
        Failure::new(
            Exit::ServeFailed,
            format!("cannot listen for signals: {error}"),
        )
    })?;
    let mut demo = Demo::start().await.map_err(|error| failed(&error))?;
    let shown = tokio::select! {
        outcome = show_all(&mut demo, asked, output) => Some(outcome),
        () = signals.next() => None,
    };
    let outcome = match shown {
        Some(Ok(exit)) => {
            if !asked.exit {
                signals.next().await;
            }
            Ok(exit)
        }
        Some(Err(failure)) => Err(failure),
        None => {
            output.hint("stopped before its end; nothing of the demo is left");
            Ok(Exit::Done)
        }
    };
    demo.stop().await;
    outcome
}

/// Prints everything, and returns what the table came to.
async fn show_all(demo: &mut Demo, asked: Asked, output: &mut Output) -> Outcome {
    let options = Options {
        per_second: asked.rate,
        ..Options::default()
    };
    let report = demo.show(options).await.map_err(|error| failed(&error))?;
    if asked.json {
        // The key opens a store that is gone with the process, and `--json` is for programs.
        let shown = json!({ "report": report, "url": demo.url, "apiKey": demo.key });
        output.line(format!("{shown:#}"))?;
    } else {
        output.line(report.table())?;
        output.line(explained(&report))?;
        if !asked.exit {
            output.line(format!(
                "\nThe server goes on: {}\nAPI key: {}\nStop it with Ctrl-C.",
                demo.url, demo.key
            ))?;
        }
    }
    Ok(if report.is_clean() {
        Exit::Done
    } else {
        Exit::Unexpected
    })
}

/// What the table means, for whoever sees it for the first time.
fn explained(report: &Report) -> String {
    let lost: u64 = report.rows.iter().map(|row| row.lost).sum();
    format!(
        "{} messages to each of {} receivers in {:.1} s, {} lost.\n\
         promoted: the new secret became the active one, by itself, when it was proved and not before.\n\
         proved:   so many requests in a row, signed with the new secret alone, were accepted, and four or\n\
         \x20         more signed with a random key refused. 59 rule out, with 95 % confidence, that more\n\
         \x20         than 5 % of a receiver's machines still lack it. Who accepts a random key proves\n\
         \x20         nothing: that rotation is still open, and the old secret still signs there.\n\
         refused:  requests whose signature the receiver did not accept; each message was delivered at\n\
         \x20         once, signed with the other secret, or by a retry.",
        report.messages,
        report.rows.len(),
        report.seconds,
        lost,
    )
}

fn failed(error: &DemoError) -> Failure {
    match error {
        DemoError::Server(error) => serve::not_started(error),
        other => Failure::new(Exit::ServeFailed, app::explain(other)),
    }
}

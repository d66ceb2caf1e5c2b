//! `hookturn demo`: shows a rotation under traffic, and leaves the server running.

use clap::Args;
use serde_json::json;

use super::exit::{Exit, Failure, Outcome};
use super::serve;
use crate::app;
use crate::demo::{self, DemoError, Options};

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Demo {
    /// Stop when the table is shown instead of leaving the server running.
    #[arg(long)]
    exit: bool,
    /// Print the result as one JSON document.
    #[arg(long)]
    json: bool,
    /// Messages to publish; each goes to six receivers.
    #[arg(long, value_name = "N", default_value_t = 2_000,
        value_parser = clap::value_parser!(u32).range(100..=100_000))]
    messages: u32,
    /// Messages a second.
    #[arg(long, value_name = "N", default_value_t = 400,
        value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate: u32,
}

pub(super) fn run(asked: Demo) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                Exit::ServeFailed,
                format!("cannot start the runtime: {error}"),
            )
        })?;
    runtime.block_on(show(asked))
}

async fn show(asked: Demo) -> Outcome {
    let options = Options {
        messages: asked.messages,
        per_second: asked.rate,
        ..Options::default()
    };
    let demo = demo::run(options).await.map_err(|error| failed(&error))?;
    let clean = demo.report.is_clean();
    if asked.json {
        // The key opens a store that is gone with the process, and `--json` is for programs.
        let shown = json!({ "report": demo.report, "url": demo.url, "apiKey": demo.key });
        println!("{shown:#}");
    } else {
        println!("{}", demo.report.table());
        println!(
            "{} messages to {} receivers in {:.1} s. Every secret was rotated on the way; \"rejected\" are\n\
             requests whose signature the receiver did not accept and that were delivered at once by the\n\
             fallback, signed with the other secret.",
            demo.report.messages,
            demo.report.rows.len(),
            demo.report.seconds,
        );
    }
    if !asked.exit {
        if !asked.json {
            println!(
                "\nThe server goes on: {}\nAPI key: {}\nStop it with Ctrl-C.",
                demo.url, demo.key
            );
        }
        // Without a terminal to press Ctrl-C in, a signal ends it.
        app::until_signal().await.map_err(|error| {
            Failure::new(
                Exit::ServeFailed,
                format!("cannot listen for signals: {error}"),
            )
        })?;
    }
    demo.stop().await;
    Ok(if clean { Exit::Done } else { Exit::Unexpected })
}

fn failed(error: &DemoError) -> Failure {
    match error {
        DemoError::Server(error) => serve::not_started(error),
        other => Failure::new(Exit::ServeFailed, app::explain(other)),
    }
}

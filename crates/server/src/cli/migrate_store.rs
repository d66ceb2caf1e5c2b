//! `hookturn migrate-store`: copies an embedded store into a PostgreSQL database, and says that it is the same.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Edge;
use super::exit::{Exit, Failure, Outcome};
use super::output::{Column, Format, Output};
use super::serve::{not_started, not_usable, of_database, of_open};
use crate::app::copying::{
    self, Copied, CopyError, CopyFailure, Difference, Doing, Planned, Progress,
};
use crate::app::{self, DATABASE};
use crate::config::{self, ConfigError, Database, Flags, StorePlace};

/// A line of progress for so many pieces.
const PIECES: u64 = 25;

#[derive(Debug, Args)]
pub(super) struct MigrateStore {
    /// Data directory of the embedded store; no server may run on it.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// PostgreSQL database, empty or with a part of this copy, as postgres://user@host/database; its password is in
    /// the file that HOOKTURN_STORE_PASSWORD_FILE names.
    #[arg(long, value_name = "URL")]
    to: String,
    /// Say how many rows there are, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Rows that are written in one transaction, at most.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rows: Option<u64>,
}

pub(super) fn run(asked: &MigrateStore, edge: &Edge, output: &mut Output) -> Outcome {
    let to = database(asked, edge)?;
    if asked.dry_run {
        let planned = copying::plan(&asked.from, &to).map_err(|error| failed(&error))?;
        show_plan(&planned, output)?;
        return Ok(Exit::Done);
    }
    let mut pieces = 0_u64;
    let mut last = None;
    let copied = copying::copy(&asked.from, &to, asked.rows, |progress| {
        pieces += 1;
        let at = (progress.doing, progress.table);
        if last.replace(at) != Some(at) || pieces.is_multiple_of(PIECES) {
            output.hint(told(progress));
        }
        ControlFlow::Continue(())
    });
    let copied = copied.map_err(|error| failed(&error))?;
    show(&copied, output)?;
    output.hint(format!(
        "the copy is complete. Give its server the same master key (HOOKTURN_MASTER_KEY_FILE={}, if the store made \
         its own), and do not start one on {} again: both would send what is due",
        asked.from.join("master.key").display(),
        asked.from.join(DATABASE).display(),
    ));
    Ok(Exit::Done)
}

/// The rules for a URL and its password are those of `serve --store`.
fn database(asked: &MigrateStore, edge: &Edge) -> Result<Database, Failure> {
    let flags = Flags {
        data_dir: Some(asked.from.clone()),
        store: Some(asked.to.clone()),
        ..Flags::default()
    };
    let config = config::load(flags, &edge.env).map_err(|error| {
        not_usable(&match error {
            ConfigError::StoreUrl { .. } => ConfigError::StoreUrl { name: "--to" },
            ConfigError::StorePassword { .. } => ConfigError::StorePassword { name: "--to" },
            other => other,
        })
    })?;
    match config.store {
        StorePlace::Postgres(database) => Ok(database),
        StorePlace::Embedded => Err(not_usable(&ConfigError::StoreUrl { name: "--to" })),
    }
}

fn told(progress: Progress) -> String {
    let Progress { doing, table, rows } = progress;
    match doing {
        Doing::Writing => format!("{table}: {rows} rows written"),
        Doing::Comparing => format!("{table}: {rows} rows compared"),
    }
}

fn show_plan(planned: &Planned, output: &mut Output) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[("TABLE", "table"), ("ROWS", "rows")];
    let tables: Vec<Value> = planned
        .tables
        .iter()
        .map(|(table, rows)| json!({ "table": table, "rows": rows }))
        .collect();
    if output.format == Format::Json {
        return output.json(&json!({ "tables": tables, "begun": planned.begun }));
    }
    output.list(COLUMNS, &tables)?;
    output.hint(if planned.begun {
        "nothing was changed; a copy was begun, and would go on"
    } else {
        "nothing was changed"
    });
    Ok(())
}

fn show(copied: &Copied, output: &mut Output) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        ("TABLE", "table"),
        ("ROWS", "rows"),
        ("SHA-256 SUM", "sum"),
        ("COPY", "copy"),
    ];
    let tables: Vec<Value> = copied
        .tables
        .iter()
        .map(|table| {
            json!({ "table": table.name, "rows": table.sum.rows, "sum": table.sum.to_string(), "copy": "the same" })
        })
        .collect();
    if output.format == Format::Json {
        return output.json(&json!({ "tables": tables, "strayAttempts": copied.stray_attempts }));
    }
    output.list(COLUMNS, &tables)?;
    if copied.stray_attempts > 0 {
        output.hint(format!(
            "{} attempts were left out whose deliveries are gone: nothing leads to them",
            copied.stray_attempts
        ));
    }
    Ok(())
}

fn failed(error: &CopyFailure) -> Failure {
    let exit = match error {
        CopyFailure::NoDatabase { .. } => Exit::DataDirectory,
        CopyFailure::Start(error) => return not_started(error),
        CopyFailure::Copy(error) => match error {
            CopyError::Source(error) => of_open(error),
            CopyError::Target(error) => of_database(error),
            CopyError::NotEmpty { .. } | CopyError::OtherCopy { .. } => Exit::Conflict,
            CopyError::Differs { .. } => Exit::CopyDiffers,
            _ => Exit::HalfCopied,
        },
    };
    // The sentence of the failure says what to do.
    let what = app::explain(error);
    let failure = Failure::new(exit, what.as_str());
    match error {
        CopyFailure::Copy(CopyError::Differs { tables }) => {
            let tables: Vec<Value> = tables.iter().map(differing).collect();
            let document = json!({ "detail": what, "exitCode": exit.code(), "tables": tables });
            failure.document(document)
        }
        _ => failure,
    }
}

/// In the words of a copy that is the same.
fn differing(found: &Difference) -> Value {
    json!({
        "table": found.table,
        "rows": found.here.rows,
        "sum": found.here.to_string(),
        "copyRows": found.there.rows,
        "copySum": found.there.to_string(),
        "copy": "not the same",
    })
}

//! The command line of `hookturn`.
//!
//! [`run`] reads arguments and environment once, and hands them down; below it nothing reads the
//! environment, the wall clock or random numbers except through [`Edge`]. Client commands decide
//! purely which request they make (see `plan`) and one function makes it.
//!
//! What scripts may rely on: the exit codes of [`exit::Exit`], and the JSON of `--output json`.
//! Results go to standard output, everything else to standard error. No argument takes a secret.

mod api_key;
mod app;
mod args;
mod audit;
mod backup;
mod bulk;
mod client;
mod completion;
mod delivery;
mod demo;
mod doctor;
mod endpoint;
pub mod exit;
mod health;
mod init;
mod input;
mod leak;
mod listen;
mod master_key;
mod message;
mod migrate;
mod migrate_store;
mod openapi;
mod outbox;
mod output;
mod plan;
mod request;
mod rotation;
mod schedule;
mod secret;
mod serve;
mod sign;
mod verify;
mod workspace;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory as _, FromArgMatches as _};
use hookturn_core::id::Entropy;
use hookturn_core::time::Clock;

use crate::telemetry::{SystemClock, SystemEntropy};
use args::{Cli, Command};
use exit::{Exit, Outcome};
use output::Output;

/// What commands need of the world.
struct Edge {
    env: BTreeMap<String, String>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let matches = match command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return explain(&error, &arguments),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return explain(&error, &arguments),
    };
    let edge = Edge {
        env: environment(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
    };
    let mut output = Output::of_process(cli.output);
    match dispatch(cli.command, &edge, &mut output) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit().into()
        }
    }
}

fn dispatch(command: Command, edge: &Edge, output: &mut Output) -> Outcome {
    match command {
        Command::Serve(serve) => serve::run(&serve, edge),
        Command::Demo(asked) => demo::run(asked, output),
        Command::Doctor(doctor) => doctor::run(&doctor, edge, output),
        Command::Health(asked) => health::run(&asked, edge, output),
        Command::Backup(backup) => backup::run(&backup, edge, output),
        Command::Restore(restore) => backup::restore(&restore, edge, output),
        Command::Migrate(asked) => migrate::run(&asked, edge, output),
        Command::MigrateStore(asked) => migrate_store::run(&asked, edge, output),
        Command::Openapi(asked) => openapi::run(&asked, output),
        Command::Init(init) => init::run(&init, output),
        Command::Listen(listen) => listen::run(&listen, edge, output),
        Command::Sign(sign) => sign::run(&sign, edge, output),
        Command::Verify(verify) => verify::run(&verify, edge, output),
        Command::App(remote) => plan::run(remote, edge, output),
        Command::Endpoint(remote) => plan::run(remote, edge, output),
        Command::Message(remote) => message::run(remote, edge, output),
        Command::Delivery(remote) => plan::run(remote, edge, output),
        Command::Secret(remote) => plan::run(remote, edge, output),
        Command::Rotation(remote) => rotation::run(remote, edge, output),
        Command::Bulk(remote) => bulk::run(remote, edge, output),
        Command::Leak(leak) => leak::run(leak, edge, output),
        Command::Schedule(remote) => plan::run(remote, edge, output),
        Command::ApiKey(remote) => plan::run(remote, edge, output),
        Command::Workspace(remote) => plan::run(remote, edge, output),
        Command::Outbox(remote) => plan::run(remote, edge, output),
        Command::Audit(remote) => audit::run(remote, edge, output),
        Command::MasterKey(remote) => master_key::run(remote, edge, output),
        Command::Completion(completion) => completion::run(&completion, output),
        Command::ExitCodes => {
            output.bytes(Exit::table().as_bytes())?;
            Ok(Exit::Done)
        }
    }
}

/// The one place that reads the environment; it is handed down from here.
fn environment() -> BTreeMap<String, String> {
    // Names and values that are not UTF-8 are none of ours.
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Commands that talk to a server, by their first word.
const REMOTE: &[&str] = &[
    "app",
    "endpoint",
    "message",
    "delivery",
    "secret",
    "rotation",
    "bulk",
    "leak",
    "schedule",
    "api-key",
    "workspace",
    "outbox",
    "audit",
    "master-key",
];

/// The command tree, with the same kind of footer under the help of every command.
fn command() -> clap::Command {
    let mut root = Cli::command();
    root.build();
    root = root.mut_subcommands(|command| {
        let footer = footer(command.get_name());
        with_footer(command, &footer)
    });
    let codes = format!("Exit codes:\n{}", Exit::table());
    root.mut_subcommand("exit-codes", |command| command.after_help(codes))
        .after_help("`hookturn help exit-codes` lists the exit codes.")
}

fn with_footer(command: clap::Command, footer: &str) -> clap::Command {
    command
        .after_help(footer.to_owned())
        .mut_subcommands(|below| with_footer(below, footer))
}

/// How a command can end, by the name of its group.
fn exits(group: &str) -> Vec<Exit> {
    const PLACE: &[Exit] = &[
        Exit::Config,
        Exit::DataDirectory,
        Exit::DatabaseDamaged,
        Exit::DatabaseNewer,
        Exit::MasterKey,
        Exit::DatabaseInUse,
        Exit::ServeFailed,
        Exit::DatabaseUnreachable,
    ];
    const CALL: &[Exit] = &[
        Exit::Refused,
        Exit::Unreachable,
        Exit::ServerError,
        Exit::Unauthorised,
        Exit::NotFound,
        Exit::Conflict,
    ];
    let own: &[&[Exit]] = match group {
        "serve" => &[PLACE, &[Exit::AddressInUse, Exit::HalfCopied]],
        "demo" => &[PLACE, &[Exit::AddressInUse, Exit::Unexpected]],
        "doctor" => &[&[Exit::DataDirectory, Exit::Unhealthy]],
        "health" => &[&[
            Exit::Config,
            Exit::MasterKey,
            Exit::Unreachable,
            Exit::ServerError,
        ]],
        "init" => &[&[Exit::DataDirectory]],
        "backup" | "restore" => &[PLACE, &[Exit::HalfCopied]],
        "migrate" => &[PLACE],
        "migrate-store" => &[
            PLACE,
            &[Exit::Conflict, Exit::HalfCopied, Exit::CopyDiffers],
        ],
        "verify" => &[&[Exit::NotVerified]],
        "listen" => &[&[Exit::AddressInUse, Exit::NotVerified]],
        "audit" => &[CALL, &[Exit::NotVerified]],
        "endpoint" | "rotation" => &[CALL, &[Exit::Unexpected]],
        name if REMOTE.contains(&name) => &[CALL],
        _ => &[],
    };
    let mut all = vec![Exit::Done, Exit::Usage, Exit::LocalFile];
    all.extend(own.iter().copied().flatten());
    all.sort_by_key(|exit| exit.code());
    all
}

fn footer(name: &str) -> String {
    let mut text = String::from("Exit codes:\n");
    for exit in exits(name) {
        let _ = writeln!(text, "  {:>2}  {}", exit.code(), exit.meaning());
    }
    if REMOTE.contains(&name) {
        text.push_str(
            "\nEnvironment: HOOKTURN_SERVER, HOOKTURN_API_KEY or HOOKTURN_API_KEY_FILE, \
             HOOKTURN_WORKSPACE, HOOKTURN_CA_FILE. Flags win.",
        );
    }
    text
}

/// Prints what the parser says. What looks like a secret among the arguments is not repeated.
fn explain(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let mut text = error.render().to_string();
    let mut hidden = false;
    for argument in arguments {
        let argument = argument.to_string_lossy();
        if let Some(start) = ["whsec_", "whsk_", "sk_operator_", "sk_workspace_"]
            .iter()
            .filter_map(|prefix| argument.find(prefix))
            .min()
        {
            text = text.replace(&argument[start..], "(hidden)");
            hidden = true;
        }
    }
    if hidden {
        text.push_str(
            "\nSecrets are never arguments: name a file that holds it, or `-` for standard input.\n",
        );
    }
    if error.use_stderr() {
        let _ = std::io::stderr().write_all(text.as_bytes());
        Exit::Usage.into()
    } else {
        let _ = std::io::stdout().write_all(text.as_bytes());
        Exit::Done.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        command().debug_assert();
    }
}

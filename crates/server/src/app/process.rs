//! The process of `hookturn serve`: its log, its limits, its signals, and how it ends.

use std::io::Write as _;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::server::Server;
use super::supervisor::Supervisor;
use super::{Failure, start_failure};
use crate::config::{Config, LogFormat};

/// Runs a server until it is told to stop. `announce` is given the address when it is ready.
pub fn serve(config: &Config) -> Result<(), Failure> {
    start_logging(config);
    for name in &config.unknown_variables {
        tracing::warn!(variable = %name, "this environment variable is not known; check its spelling");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(start_failure("start the runtime"))?;
    raise_file_limit();
    leave_no_core();
    let ended = runtime.block_on(async {
        let mut signals = Signals::new().map_err(start_failure("listen for signals"))?;
        let server = Server::start(config).await?;
        let _ = writeln!(
            std::io::stderr(),
            "listening on http://{}",
            server.address()
        );
        let supervisor = Supervisor::new(&config.supervisor);
        supervisor.ready(server.address());
        let address = server.address();
        tokio::select! {
            ended = until_ended(server, &mut signals, &supervisor) => ended,
            () = supervisor.watch(address) => Ok(End::Clean),
        }
    });
    if matches!(ended, Ok(End::AtOnce) | Err(Failure::Gone(_))) {
        // Dropping the runtime would wait for the thread that waits for the delivery shards.
        runtime.shutdown_background();
    }
    ended.map(drop)
}

/// Shows a key that nobody can look up again.
pub(super) fn print_first_key(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stderr().lock();
    writeln!(out, "first API key (shown this once): {text}")?;
    out.flush()
}

/// Waits until the server is told to stop, and stops it; or until it must end.
async fn until_ended(
    server: Server,
    signals: &mut Signals,
    supervisor: &Supervisor,
) -> Result<End, Failure> {
    tokio::select! {
        () = signals.next() => {}
        gone = server.until_gone() => return Err(Failure::Gone(gone)),
    }
    supervisor.stopping();
    tracing::info!(
        "stopping: requests and exchanges in flight finish first; signal again to stop at once"
    );
    tokio::select! {
        () = server.stop() => Ok(End::Clean),
        () = signals.next() => {
            tracing::warn!("stopped at once; what was not recorded is due again at the next start");
            Ok(End::AtOnce)
        }
    }
}

/// Runs what a command asks of a database, on a runtime of its own.
pub(super) fn on_runtime<T>(asked: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(start_failure("start the runtime"))?;
    Ok(runtime.block_on(asked))
}

/// How a server that was told to stop ended.
enum End {
    /// Everything under way finished.
    Clean,
    /// The second signal came first.
    AtOnce,
}

/// The signals that tell a process to end. From the moment this is made they are kept until they are asked
/// for, also those that whoever started the process had it ignore.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    /// SIGTERM and SIGINT alike.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: None,
        })
    }

    /// The same with SIGHUP, for what ends with its terminal, unless whoever started it has it outlive that
    /// (`nohup`).
    pub fn with_hang_up() -> std::io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hang_up = if ignores_hang_up(&status) {
            None
        } else {
            Some(signal(SignalKind::hangup())?)
        };
        Ok(Self {
            hang_up,
            ..Self::new()?
        })
    }

    /// Waits for one.
    pub async fn next(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hang_up => {}
        }
    }
}

/// Whether SIGHUP is ignored, by what the kernel says of a process: a mask in hexadecimal, signal 1 first.
fn ignores_hang_up(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 != 0)
}

/// Sends log lines to standard error. A second call changes nothing.
pub fn start_logging(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let _ = match config.log.format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}

/// Takes as many open files as the system permits: every exchange needs one, and the usual soft limit
/// of 1,024 is less than the deliveries of one shard.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = %error, "the limit of open files could not be raised");
    }
}

/// A crash leaves no image of the memory: it would hold the master key and the signing keys (G8).
fn leave_no_core() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps could not be turned off; one would hold secrets");
    }
}

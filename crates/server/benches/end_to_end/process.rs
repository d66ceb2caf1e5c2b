//! The server as a child process: started, waited for, measured through `/proc`, and ended by its id.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::number::Error;

/// The line that says where the server listens.
const READY: &str = "listening on http://";
const READY_WITHIN: Duration = Duration::from_secs(15);
const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// Lines of the server's log that are kept to explain a failure.
const LINES: usize = 20;
/// Clock ticks a second in `/proc`: fixed in the kernel's interface on every architecture we run on.
const TICKS: u64 = 100;

/// A key as an operator would give it. It guards an empty store on loopback for some seconds.
pub(crate) fn api_key() -> String {
    format!("sk_workspace_test_{}", "be7c".repeat(16))
}

/// A running server.
pub(crate) struct Server {
    pid: u32,
    addr: SocketAddr,
    start: Duration,
    exited: Receiver<std::io::Result<ExitStatus>>,
    ended: bool,
    log: Log,
}

type Log = Arc<Mutex<VecDeque<String>>>;

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

impl Server {
    /// Starts `hookturn serve` on the directory and waits until it is ready.
    pub(crate) fn start(binary: &Path, dir: &Path) -> Result<Self, Error> {
        Self::run(binary, |command| command.arg("--data-dir").arg(dir))
    }

    /// Starts a node on a database and waits until it is ready.
    pub(crate) fn start_on(binary: &Path, url: &str, key_file: &Path) -> Result<Self, Error> {
        Self::run(binary, |command| {
            command
                .args(["--store", url])
                .env("HOOKTURN_MASTER_KEY_FILE", key_file)
        })
    }

    fn run(binary: &Path, place: impl FnOnce(&mut Command) -> &mut Command) -> Result<Self, Error> {
        let began = Instant::now();
        let mut command = Command::new(binary);
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            // Nothing of the caller's environment may configure what is measured.
            .env_clear()
            .env("HOOKTURN_BOOTSTRAP_API_KEY", api_key())
            .env("HOOKTURN_ALLOW_NETS", "127.0.0.0/8")
            .env("HOOKTURN_ALLOW_HTTP", "true");
        let mut child = place(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let pid = child.id();
        let stderr = child.stderr.take();
        let log = Log::default();
        let (ready, readiness) = channel();
        let (exit, exited) = channel();
        if let Some(stderr) = stderr {
            let log = Arc::clone(&log);
            std::thread::spawn(move || read_log(stderr, &log, &ready));
        }
        // The only one that reaps the child: until it reports, the process id is the child's.
        std::thread::spawn(move || exit.send(child.wait()));
        let mut server = Self {
            pid,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            start: Duration::ZERO,
            exited,
            ended: false,
            log,
        };
        match readiness.recv_timeout(READY_WITHIN) {
            Ok((addr, at)) => {
                server.addr = addr;
                server.start = at.duration_since(began);
                Ok(server)
            }
            Err(RecvTimeoutError::Timeout) => Err(server.failure("was not ready within 15 s")),
            Err(RecvTimeoutError::Disconnected) => Err(server.failure("ended before it was ready")),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From starting the process to reading its readiness line.
    pub(crate) fn start_time(&self) -> Duration {
        self.start
    }

    /// Processor time of all its threads so far.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        cpu_of(&self.pid.to_string()).map_err(|error| {
            let error = format!("cannot be measured: {error}");
            self.failure(&error)
        })
    }

    /// Bytes that it had the kernel write to disks so far.
    pub(crate) fn written(&self) -> Result<u64, Error> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.pid))?;
        field(&io, "write_bytes:").ok_or_else(|| "/proc/PID/io has no write_bytes".into())
    }

    /// The process, to be stopped where it is and continued while the server is in other hands.
    pub(crate) const fn process(&self) -> Process {
        Process(self.pid)
    }

    pub(crate) fn memory(&self) -> Result<Memory, Error> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        Ok(Memory {
            resident: kibibytes(&status, "VmRSS:")? * 1024,
            peak: kibibytes(&status, "VmHWM:")? * 1024,
        })
    }

    /// Asks it to stop and waits; kills it when it does not. Returns how long stopping took.
    pub(crate) fn stop(mut self) -> Result<Duration, Error> {
        let began = Instant::now();
        signal(Signal::TERM, self.pid)?;
        match self.exited.recv_timeout(STOPS_WITHIN) {
            Ok(status) => {
                self.ended = true;
                let status = status?;
                if status.success() {
                    return Ok(began.elapsed());
                }
                Err(self.failure(&format!("answered SIGTERM with {status}")))
            }
            // Dropping kills it.
            Err(_) => Err(self.failure("did not stop within 30 s of SIGTERM and was killed")),
        }
    }

    fn failure(&self, what: &str) -> Error {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = format!("the server {what}; its last words:");
        for line in log.iter() {
            text.push_str("\n  ");
            text.push_str(line);
        }
        text.into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.ended && self.exited.try_recv().is_err() {
            // Nobody is left to tell; the run has failed or is about to.
            let _signalled = signal(Signal::KILL, self.pid);
            let _reaped = self.exited.recv_timeout(STOPS_WITHIN);
        }
    }
}

/// Reads the log to its end, so that the server never waits for its reader.
fn read_log(stderr: ChildStderr, log: &Log, ready: &Sender<(SocketAddr, Instant)>) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { return };
        if let Some(addr) = address(&line) {
            // The starter hears the first; a later line with an address tells nobody.
            let _heard = ready.send((addr, Instant::now()));
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}

/// The address in a readiness line.
pub(crate) fn address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(READY)?;
    let end = rest
        .find(|letter: char| !(letter.is_ascii_digit() || ".:".contains(letter)))
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// A process of the bench's own that is not reaped yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(u32);

impl Process {
    /// Stops it where it is, as a machine that hangs would.
    pub(crate) fn pause(self) -> Result<(), Error> {
        signal(Signal::STOP, self.0)
    }

    pub(crate) fn go_on(self) -> Result<(), Error> {
        signal(Signal::CONT, self.0)
    }
}

/// Asks a PostgreSQL server to end at once.
pub(crate) fn signal_quit(pid: u32) -> Result<(), Error> {
    signal(Signal::QUIT, pid)
}

fn signal(signal: Signal, pid: u32) -> Result<(), Error> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or("no process has this id")?;
    Ok(kill_process(pid, signal)?)
}

/// Processor time of the bench itself.
pub(crate) fn own_cpu() -> Result<Duration, Error> {
    cpu_of("self")
}

fn cpu_of(pid: &str) -> Result<Duration, Error> {
    Ok(Ticks(stat(pid)?.own).duration())
}

/// Processor time as the kernel counts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticks(u64);

impl Ticks {
    /// Of a process, of its children, and of those of them that have ended.
    pub(crate) fn of_family(pid: u32) -> Result<Self, Error> {
        let parent = stat(&pid.to_string())?;
        let mut ticks = parent.own + parent.ended_children;
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            // One that has ended since is in nobody's sum, and was a moment old.
            if name.starts_with(|letter: char| letter.is_ascii_digit())
                && let Ok(child) = stat(&name)
                && child.parent == u64::from(pid)
            {
                ticks += child.own;
            }
        }
        Ok(Self(ticks))
    }

    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs(1) * u32::try_from(self.0).unwrap_or(u32::MAX)
            / u32::try_from(TICKS).unwrap_or(1)
    }
}

fn stat(pid: &str) -> Result<Stat, Error> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Stat::read(&stat).ok_or_else(|| "/proc/PID/stat has an unknown form".into())
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) parent: u64,
    /// User and system time of all its threads.
    pub(crate) own: u64,
    /// The same of its children that have ended and were waited for.
    pub(crate) ended_children: u64,
}

impl Stat {
    /// Fields 4 and 14 to 17, counted after the name in parentheses, which may hold spaces.
    pub(crate) fn read(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: number(4)?,
            own: number(14)? + number(15)?,
            ended_children: number(16)? + number(17)?,
        })
    }
}

fn kibibytes(status: &str, name: &str) -> Result<u64, Error> {
    field(status, name).ok_or_else(|| format!("/proc/PID/status has no {name}").into())
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

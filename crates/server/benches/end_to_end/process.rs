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
        let began = Instant::now();
        let mut child = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir)
            // Nothing of the caller's environment may configure what is measured.
            .env_clear()
            .env("HOOKTURN_BOOTSTRAP_API_KEY", api_key())
            .env("HOOKTURN_ALLOW_NETS", "127.0.0.0/8")
            .env("HOOKTURN_ALLOW_HTTP", "true")
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

fn signal(signal: Signal, pid: u32) -> Result<(), Error> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or("no process has this id")?;
    Ok(kill_process(pid, signal)?)
}

/// Processor time of the bench itself.
pub(crate) fn own_cpu() -> Result<Duration, Error> {
    cpu_of("self")
}

fn cpu_of(pid: &str) -> Result<Duration, Error> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = ticks(&stat).ok_or("/proc/PID/stat has an unknown form")?;
    Ok(Duration::from_secs(1) * u32::try_from(ticks)? / u32::try_from(TICKS)?)
}

/// User and system time of all threads: fields 14 and 15, counted after the name in parentheses, which
/// may hold spaces.
pub(crate) fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn kibibytes(status: &str, field: &str) -> Result<u64, Error> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .ok_or_else(|| format!("/proc/PID/status has no {field}"))?;
    Ok(value.parse()?)
}

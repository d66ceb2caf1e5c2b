//! `hookturn serve` as a child process: started, waited for, signalled by its id, and reaped.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio::time::Instant;

use super::http::Api;
use super::{SOON, within};

const READY: &str = "listening on http://";

/// The first key of every store here. It opens an empty server on loopback for some seconds.
pub(crate) fn bootstrap_key() -> String {
    format!("sk_workspace_test_{}", "fa17".repeat(16))
}

/// The binary under test, or another build of it by `HOOKTURN_TEST_BINARY`.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests themselves are set up by their environment"
)]
fn binary() -> PathBuf {
    match std::env::var_os("HOOKTURN_TEST_BINARY") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_hookturn").into(),
    }
}

/// How to start a server: a data directory, and an environment that holds nothing else.
#[derive(Clone)]
pub(crate) struct Setup {
    dir: PathBuf,
    listen: String,
    variables: BTreeMap<String, String>,
    survives_file_limits: bool,
    obeys_permissions: bool,
    full_stderr: bool,
}

impl Setup {
    pub(crate) fn new(dir: &Path) -> Self {
        let setup = Self {
            dir: dir.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            variables: BTreeMap::new(),
            survives_file_limits: false,
            obeys_permissions: false,
            full_stderr: false,
        };
        setup
            .with("HOOKTURN_BOOTSTRAP_API_KEY", &bootstrap_key())
            .with("HOOKTURN_ALLOW_NETS", "127.0.0.0/8,::1/128")
            .with("HOOKTURN_ALLOW_HTTP", "true")
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    pub(crate) fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    /// A write beyond the limit of file sizes fails instead of ending the process: a disk that is full.
    pub(crate) fn survives_file_limits(mut self) -> Self {
        self.survives_file_limits = true;
        self
    }

    /// The permissions of files hold for it, also where the tests run as the superuser.
    pub(crate) fn obeys_permissions(mut self) -> Self {
        self.obeys_permissions = true;
        self
    }

    /// What it writes to standard error goes nowhere, and fails.
    pub(crate) fn full_stderr(mut self) -> Self {
        self.full_stderr = true;
        self
    }

    fn command(&self) -> Command {
        if self.obeys_permissions && rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-all", "--inh-caps=-all"]);
            command.arg(binary());
            return command;
        }
        if !self.survives_file_limits {
            return Command::new(binary());
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
        command.arg(binary());
        command
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(&self) -> Server {
        let mut server = self.spawn();
        let ready = within(SOON, "the readiness line", server.ready()).await;
        server.address = ready;
        server.ready_after = server.began.elapsed();
        server
    }

    /// Starts it and waits until it ends by itself.
    pub(crate) async fn refused(&self) -> Refusal {
        let mut server = self.spawn();
        let status = server.ended(SOON).await;
        Refusal {
            code: status.code(),
            lines: server.lines(),
        }
    }

    fn stderr(&self) -> Stdio {
        if !self.full_stderr {
            return Stdio::piped();
        }
        let full = std::fs::File::options().write(true).open("/dev/full");
        full.unwrap().into()
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn spawn(&self) -> Server {
        let began = Instant::now();
        let mut child = self
            .command()
            .arg("serve")
            .args(["--listen", &self.listen])
            .arg("--data-dir")
            .arg(&self.dir)
            .env_clear()
            .envs(&self.variables)
            // A hookturn.toml of the caller must not take part.
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.stderr())
            .spawn()
            .unwrap();
        let pid = child.id();
        let (written, log) = watch::channel(Log::default());
        let written = Arc::new(written);
        let outputs = [
            child
                .stderr
                .take()
                .map(|out| Box::new(out) as Box<dyn Read + Send>),
            child.stdout.take().map(|out| Box::new(out) as _),
        ];
        let readers: Vec<_> = outputs
            .into_iter()
            .flatten()
            .map(|out| {
                let written = Arc::clone(&written);
                std::thread::spawn(move || read(out, &written))
            })
            .collect();
        // The only one that reaps the child: until it reports, the process id is the child's.
        let (exit, exited) = watch::channel(None);
        std::thread::spawn(move || {
            let status = child.wait();
            // The last words come before the news of the end.
            for reader in readers {
                let _ended = reader.join();
            }
            let _heard = exit.send(status.ok());
        });
        Server {
            pid,
            began,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            ready_after: Duration::ZERO,
            exited,
            log,
            peak: Mutex::new(0),
        }
    }
}

/// Everything the child wrote.
type Log = Vec<String>;

fn read(out: impl Read, written: &watch::Sender<Log>) {
    let mut out = BufReader::new(out);
    let mut line = Vec::new();
    while let Ok(1..) = out.read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        written.send_modify(|log| log.push(text));
        line.clear();
    }
}

/// A server that did not start.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: Option<i32>,
    pub(crate) lines: Vec<String>,
}

/// A running server; killed when it is dropped.
pub(crate) struct Server {
    pub(crate) pid: u32,
    began: Instant,
    pub(crate) address: SocketAddr,
    pub(crate) ready_after: Duration,
    exited: watch::Receiver<Option<ExitStatus>>,
    log: watch::Receiver<Log>,
    peak: Mutex<u64>,
}

impl Server {
    /// The API with the first key.
    pub(crate) fn api(&self) -> Api {
        Api {
            address: self.address,
            key: bootstrap_key(),
        }
    }

    pub(crate) async fn ready(&mut self) -> SocketAddr {
        let mut log = self.log.clone();
        let found = |log: &Log| log.iter().find_map(|line| address(line));
        let heard = log.wait_for(|log| found(log).is_some()).await;
        let address = heard.ok().and_then(|log| found(&log));
        address.unwrap_or_else(|| panic!("ended before it was ready: {:#?}", self.lines()))
    }

    /// Everything it wrote so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    /// Waits for a line with this text.
    pub(crate) async fn said(&self, text: &str) {
        let mut log = self.log.clone();
        let waiting = log.wait_for(|log| log.iter().any(|line| line.contains(text)));
        let heard = within(SOON, text, waiting).await.is_ok();
        assert!(heard, "ended without saying {text:?}: {:#?}", self.lines());
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL, and the end of the process.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::KILL);
        self.ended(SOON).await;
    }

    /// Waits for the end.
    pub(crate) async fn ended(&mut self, bound: Duration) -> ExitStatus {
        let waiting = self.exited.wait_for(Option::is_some);
        let status = within(bound, "the end of the process", waiting).await;
        status.unwrap().unwrap()
    }

    /// SIGTERM, and the end of the process; its log.
    pub(crate) async fn stop(mut self) -> Vec<String> {
        self.terminate();
        let status = self.ended(SOON).await;
        assert!(status.success(), "{status}: {:#?}", self.lines());
        self.lines()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid.cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// No file of it may be longer from now on, in bytes; `None` for no limit.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        use rustix::process::{Resource, Rlimit, prlimit};
        let pid = Pid::from_raw(self.pid.cast_signed());
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(pid, Resource::Fsize, limit).unwrap();
    }

    /// It may have so many files open from now on, connections included.
    pub(crate) fn limit_open_files(&self, files: u64) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = Pid::from_raw(self.pid.cast_signed());
        let limit = Rlimit {
            current: Some(files),
            maximum: Some(files),
        };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    }

    /// The memory it has now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// A number of bytes that the kernel tells of it.
    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.and_then(|rest| rest.split_whitespace().next());
        kibibytes.unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The most memory it ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let bytes = self.status("VmHWM:");
        let mut peak = self.peak.lock().unwrap_or_else(PoisonError::into_inner);
        *peak = bytes.max(*peak);
        *peak
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.exited.borrow().is_none()
            && self.exited.has_changed().is_ok()
            && let Some(pid) = Pid::from_raw(self.pid.cast_signed())
        {
            // Nobody is left to tell; the thread that waits reaps it.
            let _signalled = kill_process(pid, Signal::KILL);
        }
    }
}

fn address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(READY)?;
    rest.split_whitespace().next()?.parse().ok()
}

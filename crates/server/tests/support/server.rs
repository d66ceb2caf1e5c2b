//! `hookturn serve` as a child process.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use super::{Api, engine, within_deadline};

/// The key of workspace `default` with every scope.
const API_KEY: &str = "sk_workspace_test_of_the_running_server_0001";

/// A running server on a port of its own, which may deliver to loopback over plain HTTP. It is
/// killed when dropped; [`Server::stop`] ends it cleanly.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    key: &'static str,
    log: Arc<Mutex<String>>,
    ended: oneshot::Receiver<()>,
}

impl Server {
    /// Starts it on a data directory, new or used, and waits until it is ready.
    pub(crate) async fn start(data_dir: &Path) -> Self {
        Self::start_with_key(data_dir, API_KEY).await
    }

    /// The same, with another first key than that of workspace `default`.
    pub(crate) async fn start_with_key(data_dir: &Path, key: &'static str) -> Self {
        Self::start_with(data_dir, key, &[]).await
    }

    /// The same, with more of the environment.
    pub(crate) async fn start_with(
        data_dir: &Path,
        key: &'static str,
        variables: &[(&str, &str)],
    ) -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_on(data_dir, any_port, key, variables).await
    }

    /// Starts it again where one listened that was stopped, for clients that wait for it there.
    pub(crate) async fn start_at(data_dir: &Path, address: SocketAddr, key: &'static str) -> Self {
        Self::start_on(data_dir, address, key, &[]).await
    }

    async fn start_on(
        data_dir: &Path,
        listen: SocketAddr,
        key: &'static str,
        variables: &[(&str, &str)],
    ) -> Self {
        let store = engine::variables(data_dir).await;
        let mut child = Command::new(env!("CARGO_BIN_EXE_hookturn"))
            .args(["serve", "--listen", &listen.to_string(), "--data-dir"])
            .arg(data_dir)
            .current_dir(data_dir)
            .env_clear()
            .env("HOOKTURN_BOOTSTRAP_API_KEY", key)
            .env("HOOKTURN_ALLOW_NETS", "127.0.0.0/8,::1/128")
            .env("HOOKTURN_ALLOW_HTTP", "true")
            .envs(store)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (announce, announced) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let lines = child.stderr.take().unwrap();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || read_log(lines, &kept, announce, end));
        // The guard exists before the first wait, so that a server which never gets ready is killed.
        let mut server = Self {
            child,
            address: listen,
            key,
            log,
            ended,
        };
        let address = within_deadline("the server gets ready", announced).await;
        server.address =
            address.unwrap_or_else(|_| panic!("the server did not start:\n{}", server.log()));
        server
    }

    /// A client of its API.
    pub(crate) fn api(&self) -> Api {
        Api::new(self.address, self.key)
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens, without a slash at the end.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it wrote to standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it ends by itself, and answers how.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String) {
        within_deadline("the server ends", &mut self.ended)
            .await
            .unwrap();
        let status = self.child.wait().unwrap();
        (status.code(), self.log())
    }

    /// Kills it, as a crash would.
    pub(crate) async fn kill(mut self) {
        self.child.kill().unwrap();
        within_deadline("the server is gone", &mut self.ended)
            .await
            .unwrap();
    }

    /// Stops its process where it is, as a machine that hangs would, until it is continued.
    pub(crate) fn pause(&self) {
        let sent = kill_process(Pid::from_child(&self.child), Signal::STOP);
        assert!(sent.is_ok(), "the server was gone:\n{}", self.log());
    }

    /// Lets a stopped process go on.
    pub(crate) fn go_on(&self) {
        let sent = kill_process(Pid::from_child(&self.child), Signal::CONT);
        assert!(sent.is_ok(), "the server was gone:\n{}", self.log());
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends it as an operator would, with SIGTERM, and checks that it ended well.
    pub(crate) async fn stop(mut self) {
        let sent = kill_process(Pid::from_child(&self.child), Signal::TERM);
        assert!(sent.is_ok(), "the server was gone:\n{}", self.log());
        within_deadline("the server stops", &mut self.ended)
            .await
            .unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}:\n{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails when it has ended already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps the log, and tells when the server is ready and when it is gone.
fn read_log(
    lines: ChildStderr,
    log: &Mutex<String>,
    announce: oneshot::Sender<SocketAddr>,
    end: oneshot::Sender<()>,
) {
    let mut announce = Some(announce);
    for line in BufReader::new(lines).lines().map_while(Result::ok) {
        if let Some(address) = line.strip_prefix("listening on http://")
            && let Some(announce) = announce.take()
        {
            let _ = announce.send(address.parse().unwrap());
        }
        let mut log = log.lock().unwrap();
        log.push_str(&line);
        log.push('\n');
    }
    let _ = end.send(());
}

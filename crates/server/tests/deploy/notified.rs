//! What the supervisor of a running server is told, over a socket as systemd has it.

use std::collections::VecDeque;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{DEADLINE, Server};

const KEY: &str = "sk_workspace_test_of_the_running_server_0001";
/// The time after which the supervisor gives up, in microseconds. It is told three times as often.
const WATCHDOG: &str = "600000";

struct Supervisor {
    socket: UnixDatagram,
    lines: VecDeque<String>,
}

impl Supervisor {
    fn on(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self {
            socket,
            lines: VecDeque::new(),
        }
    }

    /// The next line of its news.
    fn next(&mut self) -> String {
        while self.lines.is_empty() {
            let mut news = [0; 1_024];
            let length = self.socket.recv(&mut news).unwrap();
            let news = std::str::from_utf8(&news[..length]).unwrap();
            self.lines.extend(news.lines().map(str::to_owned));
        }
        self.lines.pop_front().unwrap()
    }

    fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let line = self.next();
            if line == wanted {
                return before;
            }
            before.push(line);
        }
    }
}

#[tokio::test]
async fn it_is_told_that_the_server_is_ready_lives_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let mut supervisor = Supervisor::on(UnixDatagram::bind(&path).unwrap());
    let socket = path.display().to_string();
    let variables = [("NOTIFY_SOCKET", &*socket), ("WATCHDOG_USEC", WATCHDOG)];
    let server = Server::start_with(directory.path(), KEY, &variables).await;
    assert_eq!(supervisor.next(), "READY=1");
    let status = format!("STATUS=listening on {}", server.origin());
    assert_eq!(supervisor.next(), status);
    for _ in 0..3 {
        assert_eq!(supervisor.next(), "WATCHDOG=1");
    }
    let stopped = tokio::spawn(server.stop());
    let before = tokio::task::spawn_blocking(move || supervisor.until("STOPPING=1")).await;
    assert!(before.unwrap().iter().all(|line| line == "WATCHDOG=1"));
    stopped.await.unwrap();
}

/// A process that hangs cannot say that it lives, and one that goes on says so again.
#[tokio::test]
async fn a_server_that_does_not_run_is_silent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let mut supervisor = Supervisor::on(UnixDatagram::bind(&path).unwrap());
    let socket = path.display().to_string();
    let variables = [("NOTIFY_SOCKET", &*socket), ("WATCHDOG_USEC", WATCHDOG)];
    let server = Server::start_with(directory.path(), KEY, &variables).await;
    supervisor.until("WATCHDOG=1");
    let pid = Pid::from_raw(server.process().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    // What was said before it was stopped, and then nothing.
    let silence = Duration::from_secs(1);
    supervisor.socket.set_read_timeout(Some(silence)).unwrap();
    let mut news = [0; 1_024];
    while supervisor.socket.recv(&mut news).is_ok() {}
    supervisor.socket.set_read_timeout(Some(DEADLINE)).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    supervisor.until("WATCHDOG=1");
    server.stop().await;
}

/// systemd of some machines has its socket in the abstract namespace.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_socket_without_a_path_is_told_too() {
    use std::os::linux::net::SocketAddrExt as _;
    let directory = tempfile::tempdir().unwrap();
    let name = format!("hookturn-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let mut supervisor = Supervisor::on(UnixDatagram::bind_addr(&address).unwrap());
    let socket = format!("@{name}");
    let variables = [("NOTIFY_SOCKET", &*socket)];
    let server = Server::start_with(directory.path(), KEY, &variables).await;
    assert_eq!(supervisor.next(), "READY=1");
    server.stop().await;
}

/// A supervisor that is gone is no reason not to serve.
#[tokio::test]
async fn without_anybody_to_tell_it_serves_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("nowhere").display().to_string();
    let variables = [("NOTIFY_SOCKET", &*nowhere), ("WATCHDOG_USEC", WATCHDOG)];
    let server = Server::start_with(directory.path(), KEY, &variables).await;
    server.api().create_app("shop").await;
    assert!(server.log().contains("NOTIFY_SOCKET"), "{}", server.log());
    server.stop().await;
}

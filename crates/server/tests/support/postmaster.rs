//! A PostgreSQL server of a test's own, which it can stop, kill and start again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_postgres::NoTls;

use super::within_deadline;

/// The server's own user, as Debian's packages name it: it refuses to run as root.
pub(crate) const USER: &str = "postgres";

/// A server with data of its own, on a socket in its directory and on a port of loopback. It is stopped when
/// it is dropped.
pub(crate) struct Postmaster {
    directory: TempDir,
    port: u16,
    settings: Vec<String>,
    server: Option<Child>,
    log: Arc<Mutex<String>>,
}

impl Postmaster {
    /// Makes an empty cluster and starts it.
    pub(crate) async fn start() -> Self {
        let mut made = Self::make();
        made.run().await;
        made
    }

    /// Makes an empty cluster. It is not started.
    pub(crate) fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        own(directory.path());
        make(directory.path(), &directory.path().join("data"));
        // Nobody else is given it as long as nobody asks for it by number.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        Self {
            directory,
            port,
            settings: vec![
                "listen_addresses=127.0.0.1".to_owned(),
                format!("port={port}"),
            ],
            server: None,
            log: Arc::default(),
        }
    }

    /// A setting for the next start.
    pub(crate) fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Its directory, in which its socket and its data are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its port on loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Starts it and waits until it takes connections.
    pub(crate) async fn run(&mut self) {
        let data = self.directory.path().join("data");
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let mut server = start(self.directory.path(), &data, &settings);
        let lines = BufReader::new(server.stderr.take().unwrap());
        self.server = Some(server);
        let (tell, ready) = oneshot::channel();
        let kept = Arc::clone(&self.log);
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            for line in lines.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if line.contains("database system is ready to accept connections")
                    && let Some(tell) = tell.take()
                {
                    let _ = tell.send(());
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let ready = within_deadline("PostgreSQL takes connections", ready).await;
        assert!(ready.is_ok(), "{}", self.log.lock().unwrap());
    }

    /// Ends it at once, without a checkpoint, as a crash of its machine would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            stop(&mut server);
        }
    }

    /// The URL of a database on its port.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// A connection of the test's own.
    pub(crate) async fn connect(&self, database: &str) -> tokio_postgres::Client {
        let connected = tokio_postgres::connect(&self.url(database), NoTls).await;
        let (client, connection) = connected.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        client
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Lets the server's user write to its directory.
pub(crate) fn own(directory: &Path) {
    if is_root() {
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(directory, open).unwrap();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program of the server, as its user when this is root, ended with this process.
fn program(name: &str) -> Command {
    let path = binaries().join(name);
    if !is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    let user = [
        "--reuid",
        USER,
        "--regid",
        USER,
        "--clear-groups",
        "--pdeathsig",
        "QUIT",
        "--",
    ];
    command.args(user).arg(path);
    command
}

/// Where Debian's packages put the newest server, or where the path has one.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest = versions
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .max();
    match newest {
        Some(version) => PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")),
        None => PathBuf::new(),
    }
}

pub(crate) fn make(directory: &Path, data: &Path) {
    let made = program("initdb")
        .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"])
        .args(["--username", USER, "--pgdata"])
        .arg(data)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(directory.join("log")).unwrap())
        .status();
    assert!(
        made.unwrap().success(),
        "see the log in {}",
        directory.display()
    );
}

/// Starts the server; `settings` win over those it has here.
pub(crate) fn start(directory: &Path, data: &Path, settings: &[&str]) -> Child {
    let usual = ["listen_addresses=", "max_connections=300"];
    let settings = usual.iter().chain(settings);
    program("postgres")
        .arg("-D")
        .arg(data)
        .arg("-k")
        .arg(directory)
        .args(settings.flat_map(|setting| ["-c", setting]))
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Asks the server to stop at once, and waits until it has: nobody will read its files.
pub(crate) fn stop(server: &mut Child) {
    let id = i32::try_from(server.id()).ok();
    if let Some(id) = id.and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(id, rustix::process::Signal::QUIT);
    }
    let _ = server.wait();
}

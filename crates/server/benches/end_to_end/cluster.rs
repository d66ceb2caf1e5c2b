//! A PostgreSQL cluster of the bench's own, with the durability that a cluster has by default.
//!
//! It is made in a directory of its own, listens on a socket in another one and on nothing else, and ends by its
//! process id. Nothing relies on a server that happens to run. Nothing is set but where it listens and, where a
//! caller says so, what it loads; [`describe`] asks the server itself.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::number::Error;
use crate::process::{Ticks, signal_quit};

/// The server's own user, as Debian's packages name it: it refuses to run as root.
const USER: &str = "postgres";
const READY: &str = "database system is ready to accept connections";
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Lines of the server's log that are kept to explain a failure.
const LINES: usize = 20;
/// The name of a socket on the port that is the default.
pub(crate) const SOCKET: &str = ".s.PGSQL.5432";
/// What a master key looks like. It guards secrets that guard nothing: the cluster is removed after the run.
const MASTER_KEY: &str = "a7";

type Log = Arc<Mutex<VecDeque<String>>>;

/// A running cluster; it is ended and removed when it is dropped.
pub(crate) struct Cluster {
    server: Child,
    log: Log,
    sockets: TempDir,
    home: TempDir,
}

impl Cluster {
    /// Makes a cluster below the directory and starts it with these settings more.
    pub(crate) fn start(below: &Path, settings: &[&str]) -> Result<Self, Error> {
        let home = tempfile::Builder::new()
            .prefix("postgres-")
            .tempdir_in(below)?;
        // The path of a socket is short, and a directory of builds may not be.
        let sockets = tempfile::Builder::new().prefix("hookturn-").tempdir()?;
        if is_root() {
            for directory in [home.path(), sockets.path()] {
                std::fs::set_permissions(directory, PermissionsExt::from_mode(0o777))?;
            }
        }
        make(home.path())?;
        let key = MASTER_KEY.repeat(32);
        std::fs::write(home.path().join("master.key"), key)?;
        let mut server = program("postgres")
            .arg("-D")
            .arg(home.path().join("data"))
            .arg("-k")
            .arg(sockets.path())
            .args(["-c", "listen_addresses="])
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("PostgreSQL cannot be started: {error}"))?;
        let (tell, ready) = channel();
        let log = Log::default();
        if let Some(stderr) = server.stderr.take() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || read_log(stderr, &log, &tell));
        }
        let cluster = Self {
            server,
            log,
            sockets,
            home,
        };
        match ready.recv_timeout(READY_WITHIN) {
            Ok(()) => Ok(cluster),
            Err(_) => Err(cluster.failure("PostgreSQL was not ready within 30 s")),
        }
    }

    /// The file with the master key of the nodes.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.home.path().join("master.key")
    }

    /// The socket on which it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.sockets.path().join(SOCKET)
    }

    /// The URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        url(self.sockets.path(), database)
    }

    /// A connection of the bench's own.
    pub(crate) async fn connect(&self, database: &str) -> Result<Client, Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await?;
        // Its end shows at the client, whose next statement fails.
        tokio::spawn(async move {
            let _ended = connection.await;
        });
        Ok(client)
    }

    /// Makes an empty database.
    pub(crate) async fn create_database(&self, name: &str) -> Result<(), Error> {
        let client = self.connect("postgres").await?;
        client
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await?;
        Ok(())
    }

    /// Processor time of all its processes so far, those that ended included.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        Ok(Ticks::of_family(self.server.id())?.duration())
    }

    fn failure(&self, what: &str) -> Error {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = format!("{what}; its last words:");
        for line in log.iter() {
            text.push_str("\n  ");
            text.push_str(line);
        }
        text.into()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // At once and without a checkpoint: nobody will read its files.
        let _signalled = signal_quit(self.server.id());
        let _reaped = self.server.wait();
    }
}

/// What a cluster is and what was set, in its own words.
pub(crate) async fn describe(below: &Path) -> Result<String, Error> {
    let cluster = Cluster::start(below, &[])?;
    let client = cluster.connect("postgres").await?;
    let sql = "SELECT 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1) || '; '
                   || (SELECT string_agg(name || ' ' || current_setting(name), ', ')
                       FROM unnest(ARRAY['fsync', 'synchronous_commit', 'full_page_writes', 'wal_sync_method',
                                         'shared_buffers', 'max_wal_size', 'checkpoint_timeout']) AS name)
                   || '; set on its command line: '
                   || (SELECT string_agg(name, ', ' ORDER BY name) FROM pg_settings WHERE source = 'command line')";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// The URL of a database behind the socket in a directory.
pub(crate) fn url(sockets: &Path, database: &str) -> String {
    let host = sockets.display().to_string().replace('/', "%2F");
    format!("postgres://{USER}@{host}/{database}")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program of the server; as its user when this is root, and ended with this process then.
fn program(name: &str) -> Command {
    let path = binaries().join(name);
    if !is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", USER, "--regid", USER, "--clear-groups"])
        .args(["--pdeathsig", "QUIT", "--"])
        .arg(path);
    command
}

/// Where Debian's packages put the newest server; elsewhere the path has one.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let newest = versions
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .max();
    newest.map_or_else(PathBuf::new, |version| {
        PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))
    })
}

fn make(home: &Path) -> Result<(), Error> {
    let made = program("initdb")
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C"])
        .args(["--username", USER, "--pgdata"])
        .arg(home.join("data"))
        .current_dir(home)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            format!(
                "PostgreSQL's initdb cannot be started: {error}; `cargo xtask test` installs it"
            )
        })?;
    if made.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&made.stderr);
    let home = home.display();
    Err(format!("no cluster could be made in {home}, which user {USER} must reach: {words}").into())
}

/// Reads the log to its end, so that the server never waits for its reader.
fn read_log(stderr: ChildStderr, log: &Log, ready: &Sender<()>) {
    // As it comes: a statement in it may be in any encoding.
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains(READY) {
            // Only the first is waited for.
            let _heard = ready.send(());
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}

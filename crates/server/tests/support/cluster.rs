//! A private PostgreSQL for the tests of one target directory, with a database for each place.
//!
//! It is started by the first test that needs it and stopped when the last one has left, whether they are
//! threads of one process or processes of their own, and however they end. Nobody counts them: each
//! process holds a shared lock on a file, which the kernel gives back. A *guardian* (this test binary,
//! started again, away from the terminal) has the server as its child, waits until it can lock that file
//! for itself alone, stops the server by its process id and removes its data. If the guardian is killed, the
//! kernel stops the server (as root; elsewhere it stays until the next run, which needs the same socket).
//!
//! The server listens on a socket in its own directory and on nothing else. It syncs like any other. A test
//! that stops its server, or needs another kind, has a [`Postmaster`](super::postmaster) of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use rustix::process::{Pid, test_kill_process};
use tokio_postgres::NoTls;

use super::postmaster::{self, USER};

/// Where the guardian is told of its directory.
const DIRECTORY: &str = "HOOKTURN_TEST_CLUSTER";
/// How long the server stays when nobody needs it: the next test may be about to begin.
const LINGER: Duration = Duration::from_secs(2);
/// Databases of tests that are gone which each new one takes away.
const SWEPT: i64 = 3;

/// A running server that stays as long as this process does.
pub(crate) struct Cluster {
    directory: PathBuf,
    _user: File,
}

/// The server, started if it does not run.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let directory = directory();
        fs::create_dir_all(&directory).unwrap();
        // The lock first: who holds it keeps the guardian from stopping what is found running.
        let user = lock_file(&directory, "users");
        user.lock_shared().unwrap();
        let starting = lock_file(&directory, "starting");
        starting.lock().unwrap();
        if !runs(&directory) {
            start_guardian(&directory);
        }
        Cluster {
            directory,
            _user: user,
        }
    })
}

impl Cluster {
    /// Where its socket is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        let host = self.directory.display().to_string().replace('/', "%2F");
        format!("postgres://{USER}@{host}/{database}")
    }

    /// A connection of the test's own, as the server's superuser.
    pub(crate) async fn connect(&self, database: &str) -> tokio_postgres::Client {
        let connected = tokio_postgres::connect(&self.url(database), NoTls).await;
        let (client, connection) = connected.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        client
    }

    /// An empty database of a name that no other test has.
    pub(crate) async fn create_database(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("place_{}_{number}", std::process::id());
        let client = self.connect("postgres").await;
        // Process ids come again.
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        client.batch_execute(&drop).await.unwrap();
        sweep(&client).await;
        let create = format!("CREATE DATABASE {name}");
        client.batch_execute(&create).await.unwrap();
        name
    }
}

/// Takes away databases of processes that have ended: hundreds of tests would fill the disk.
async fn sweep(client: &tokio_postgres::Client) {
    let sql = "SELECT datname::text FROM pg_database WHERE datname LIKE 'place\\_%' ORDER BY oid LIMIT $1";
    for row in client.query(sql, &[&SWEPT]).await.unwrap() {
        let name: String = row.get(0);
        let process = name.split('_').nth(1).and_then(|pid| pid.parse().ok());
        let ended = process
            .and_then(Pid::from_raw)
            .is_some_and(|process| test_kill_process(process).is_err());
        if ended {
            // Another test may take it away at the same time.
            let _ = client
                .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                .await;
        }
    }
}

/// One for each target directory. A socket's path is short, and the server's user must get there.
fn directory() -> PathBuf {
    let target = env!("CARGO_TARGET_TMPDIR");
    let name = target
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    std::env::temp_dir().join(format!("hookturn-postgres-{name:016x}"))
}

fn lock_file(directory: &Path, name: &str) -> File {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    options
        .open(directory.join(format!("{name}.lock")))
        .unwrap()
}

fn socket(directory: &Path) -> PathBuf {
    directory.join(".s.PGSQL.5432")
}

fn runs(directory: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket(directory)).is_ok()
}

#[expect(clippy::zombie_processes, reason = "it outlives this process")]
fn start_guardian(directory: &Path) {
    // The name of the test below, without that of the program.
    let (_, here) = module_path!().split_once("::").unwrap();
    let mut guardian = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{here}::guardian"), "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        // The test harness writes there when a test takes long, as this one may.
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Away from the group that a terminal or a test runner ends.
        .process_group(0)
        .spawn()
        .unwrap();
    let told = BufReader::new(guardian.stderr.take().unwrap());
    let ready = told
        .lines()
        .map_while(Result::ok)
        .any(|line| line.ends_with("the cluster is ready"));
    let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
    assert!(ready, "PostgreSQL did not start: {log}");
}

// ----- the guardian -----

/// Starts the server, waits until nobody needs it, stops it. Does nothing when nobody asks for it.
#[test]
fn guardian() {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let data = directory.join("data");
    // What a guardian that was killed left.
    let _ = fs::remove_dir_all(&data);
    let _ = fs::remove_file(socket(&directory));
    postmaster::own(&directory);
    postmaster::make(&directory, &data);
    let mut server = postmaster::start(&directory, &data, &[]);
    let users = lock_file(&directory, "users");
    let log = BufReader::new(server.stderr.take().unwrap());
    let (gone, ended) = mpsc::channel::<()>();
    let mut kept = File::options()
        .append(true)
        .open(directory.join("log"))
        .unwrap();
    std::thread::spawn(move || {
        // As it comes: a statement in it may be in any encoding.
        for line in log.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            let _ = writeln!(kept, "{line}");
            if line.contains("database system is ready to accept connections") {
                let _ = std::io::stderr().write_all(b"\nthe cluster is ready\n");
            }
        }
        drop(gone);
    });
    loop {
        // Given when the last user has left.
        users.lock().unwrap();
        users.unlock().unwrap();
        if ended.recv_timeout(LINGER) == Err(mpsc::RecvTimeoutError::Disconnected) {
            break;
        }
        // Whoever comes from here on waits for the lock, and starts another server.
        if users.try_lock().is_ok() {
            break;
        }
    }
    postmaster::stop(&mut server);
    let _ = fs::remove_dir_all(&data);
}

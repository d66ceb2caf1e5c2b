//! A private PostgreSQL for the tests of one target directory, with a database for each place.
//!
//! It is started by the first test that needs it and stopped when the last one has left, whether they are
//! threads of one process or processes of their own, and however they end. Nobody counts them: each
//! process holds a shared lock on a file, which the kernel gives back. A *guardian* (this test binary,
//! started again, away from the terminal) has the server as its child, waits until it can lock that file
//! for itself alone, stops the server by its process id and removes its data. If the guardian is killed, the
//! kernel stops the server (as root; elsewhere it stays until the next run, which needs the same socket).
//!
//! The server listens on a socket in its own directory and on nothing else. It syncs like any other.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use tokio_postgres::NoTls;

/// Where the guardian is told of its directory.
const DIRECTORY: &str = "HOOKTURN_TEST_CLUSTER";
/// How long the server stays when nobody needs it: the next test may be about to begin.
const LINGER: Duration = Duration::from_secs(2);
/// The server's own user, as Debian's packages name it: it refuses to run as root.
const USER: &str = "postgres";

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
        let create = format!("CREATE DATABASE {name}");
        client.batch_execute(&create).await.unwrap();
        name
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
    let mut guardian = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cluster::guardian", "--nocapture"])
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
    own(&directory);
    make(&directory, &data);
    let mut server = start(&directory, &data);
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
    stop(&mut server);
    let _ = fs::remove_dir_all(&data);
}

/// Lets the server's user write to its directory.
fn own(directory: &Path) {
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

fn make(directory: &Path, data: &Path) {
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

fn start(directory: &Path, data: &Path) -> Child {
    program("postgres")
        .arg("-D")
        .arg(data)
        .arg("-k")
        .arg(directory)
        .args(["-c", "listen_addresses=", "-c", "max_connections=300"])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Asks the server to stop at once, and waits until it has: nobody will read its files.
fn stop(server: &mut Child) {
    let id = i32::try_from(server.id()).ok();
    if let Some(id) = id.and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(id, rustix::process::Signal::QUIT);
    }
    let _ = server.wait();
}

//! Something between a store and its database that can lose what the two say to each other.
//!
//! It listens on a socket in a directory of its own and carries bytes both ways, until a commit passes by
//! and it was told to lose it. It can also hold everything back, so that neither side hears of the other's end, and let
//! only new connections through again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hookturn::store::postgres::Target;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::support::cluster::cluster;

/// What is lost of the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Lose {
    Nothing,
    /// The database never hears of it.
    Request,
    /// It happens, and nobody is told.
    Answer,
}

/// What it carries.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    held: bool,
    /// Connections of an earlier number are never carried again.
    number: u64,
}

/// How one connection asks whether it is carried.
#[derive(Clone)]
struct Way {
    seen: watch::Receiver<Open>,
    number: u64,
}

impl Way {
    fn of(seen: &watch::Receiver<Open>) -> Self {
        let (seen, number) = (seen.clone(), seen.borrow().number);
        Self { seen, number }
    }

    /// Waits until it is. Returns whether it is at all.
    async fn is_open(&mut self) -> bool {
        let number = self.number;
        let open = |open: &Open| !open.held && open.number == number;
        self.seen.wait_for(open).await.is_ok()
    }
}

pub(crate) struct Proxy {
    directory: TempDir,
    lose: Arc<AtomicU8>,
    open: watch::Sender<Open>,
}

impl Proxy {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(socket(directory.path())).unwrap();
        listener.set_nonblocking(true).unwrap();
        let lose = Arc::new(AtomicU8::new(Lose::Nothing as u8));
        let told = Arc::clone(&lose);
        let (open, seen) = watch::channel(Open::default());
        let mut ended = seen.clone();
        // A thread of its own: a test may block its own while a store that speaks through this one ends.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let listener = UnixListener::from_std(listener).unwrap();
                let carried = async {
                    while let Ok((client, _)) = listener.accept().await {
                        tokio::spawn(carry(client, Arc::clone(&told), Way::of(&seen)));
                    }
                };
                let over = async { while ended.changed().await.is_ok() {} };
                tokio::select! {
                    () = carried => {}
                    () = over => {}
                }
            });
        });
        Self {
            directory,
            lose,
            open,
        }
    }

    /// A database, reached through this.
    pub(crate) fn target(&self, database: &str) -> Target {
        let host = self.directory.path().display().to_string();
        let host = host.replace('/', "%2F");
        Target::parse(&format!("postgres://postgres@{host}/{database}")).unwrap()
    }

    /// Holds everything back from now on, or lets it through again.
    pub(crate) fn hold(&self, hold: bool) {
        self.open.send_modify(|open| open.held = hold);
    }

    /// Lets new connections through; of those that there are, neither side ever hears anything again.
    pub(crate) fn forget(&self) {
        self.open.send_modify(|open| {
            open.held = false;
            open.number += 1;
        });
    }

    /// Loses a part of the next commit, once.
    pub(crate) fn lose(&self, what: Lose) {
        self.lose.store(what as u8, Ordering::SeqCst);
    }
}

fn socket(directory: &Path) -> std::path::PathBuf {
    directory.join(".s.PGSQL.5432")
}

/// Carries what was read, as soon as nothing is held back.
async fn pass(bytes: &[u8], to: &mut (impl AsyncWriteExt + Unpin), way: &mut Way) -> bool {
    way.is_open().await && to.write_all(bytes).await.is_ok()
}

/// Carries one connection until one side ends it, or a commit is lost.
async fn carry(client: UnixStream, lose: Arc<AtomicU8>, mut way: Way) {
    if !way.is_open().await {
        return;
    }
    let server = UnixStream::connect(socket(cluster().directory())).await;
    let (mut from_server, mut to_server) = server.unwrap().into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let mut back = way.clone();
    let answers = tokio::spawn(async move {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
            if !pass(&bytes[..count], &mut to_client, &mut back).await {
                break;
            }
        }
        // That it ended is held back as well.
        back.is_open().await;
        from_server
    });
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
        let said = &bytes[..count];
        let commits = said.windows(7).any(|part| part == b"COMMIT\0");
        let taken = if commits {
            lose.swap(Lose::Nothing as u8, Ordering::SeqCst)
        } else {
            Lose::Nothing as u8
        };
        if taken == Lose::Nothing as u8 {
            if !pass(said, &mut to_server, &mut way).await {
                return;
            }
            continue;
        }
        // The client hears nothing more, whatever the server says.
        answers.abort();
        if taken == Lose::Answer as u8 {
            let _ = to_server.write_all(said).await;
        }
        return;
    }
    answers.abort();
}

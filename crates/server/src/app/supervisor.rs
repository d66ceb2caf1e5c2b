//! News for the supervisor that started the process, such as systemd: ready, alive, stopping.
//!
//! *Alive* is said only while the server's own listener answers `/livez` over a connection of its own
//! ([`alive`]): a process whose runtime hangs, or whose listener is gone, falls silent, and the
//! supervisor ends it. A store that cannot write is not asked about: restarting would lose the records of what was
//! sent, and mend nothing. While the server stops nobody answers at last; then the supervisor's time for
//! stopping is the limit.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::alive;
use crate::config;

/// How often it is told within the time after which it gives up: one answer may be late.
const ASKED: u32 = 3;
/// How long a supervisor may take to read.
const PATIENCE: Duration = Duration::from_secs(1);

/// The supervisor, if there is one.
pub(super) struct Supervisor {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    stopping: AtomicBool,
}

impl Supervisor {
    /// Connects to its socket. One that is not there is logged and not told.
    pub(super) fn new(told: &config::Supervisor) -> Self {
        let socket = told.socket.as_deref().and_then(|name| {
            let connected = connect(name);
            if let Err(error) = &connected {
                tracing::warn!(%error, "the supervisor that NOTIFY_SOCKET names cannot be told anything");
            }
            connected.ok()
        });
        Self {
            socket,
            watchdog: told.watchdog,
            stopping: AtomicBool::new(false),
        }
    }

    /// The server takes requests.
    pub(super) fn ready(&self, address: SocketAddr) {
        self.tell(&format!("READY=1\nSTATUS=listening on http://{address}"));
    }

    /// The server was told to stop.
    pub(super) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.tell("STOPPING=1\nSTATUS=exchanges and requests in flight finish first");
    }

    /// Says that the server lives as long as it does, if somebody wants to hear it.
    pub(super) async fn watch(&self, listen: SocketAddr) {
        let Some(limit) = self.watchdog else {
            return std::future::pending().await;
        };
        let address = alive::address_of(listen);
        let every = limit / ASKED;
        let mut period = interval(every);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            if self.stopping.load(Ordering::Relaxed) {
                self.tell("WATCHDOG=1");
                continue;
            }
            match alive::status(address, "/livez", every).await {
                Ok(200) => self.tell("WATCHDOG=1"),
                Ok(status) => {
                    tracing::error!(status, "/livez answers that this server does not live");
                }
                Err(error) => tracing::error!(
                    %error,
                    "this server does not answer itself: its supervisor will end it if that goes on"
                ),
            }
        }
    }

    fn tell(&self, news: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(news.as_bytes())
        {
            tracing::warn!(%error, "the supervisor was not told");
        }
    }
}

fn connect(name: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    match name.strip_prefix('@') {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.connect_addr(&address)?;
        }
        None => socket.connect(name)?,
    }
    Ok(socket)
}

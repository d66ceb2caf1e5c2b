//! Something between a server and its database that cuts their connections, or lets nothing through.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Cutter {
    address: SocketAddr,
    /// Which generation of connections lives, and whether new ones are made.
    state: watch::Sender<(u64, bool)>,
}

impl Cutter {
    /// Carries connections to a port of loopback.
    pub(crate) async fn start(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, seen) = watch::channel((0, true));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, port, seen.clone()));
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address)
    }

    /// Cuts every connection; new ones are carried.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|(generation, _)| *generation += 1);
    }

    /// Cuts every connection and makes no new ones until it is told to.
    pub(crate) fn open(&self, open: bool) {
        self.state.send_modify(|(generation, known)| {
            *generation += 1;
            *known = open;
        });
    }
}

async fn carry(mut client: TcpStream, port: u16, mut seen: watch::Receiver<(u64, bool)>) {
    let (generation, open) = *seen.borrow_and_update();
    if !open {
        return;
    }
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        return;
    };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = seen.wait_for(|(now, _)| *now != generation) => {}
    }
}

//! Connections that rotate, each the keyrings that are its own, as fast as answers come.
//!
//! Every rotation is `immediate`, through the native API, under an Idempotency-Key of its own: what a
//! careful caller sends, and the most that one costs. The keyring that signs the deliveries of the run is
//! among those that are rotated.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::api::{Api, Endpoint};
use crate::histogram::Histogram;
use crate::http::Connection;
use crate::number::{Epoch, Error, rate};
use crate::process::api_key;
use crate::report::Row;

/// Keyrings of one connection: it comes back to each only after the others.
const KEYRINGS_EACH: usize = 4;
/// Endpoints of one app; more are not allowed than 50.
const ENDPOINTS_EACH_APP: usize = 32;
const BODY: &str = r#"{"mode":"immediate"}"#;
/// Nothing is published for these endpoints; discard, and a port that nothing listens on.
const NOWHERE: &str = "http://127.0.0.1:9/";

/// Keyrings to rotate, and what became of it.
pub(crate) struct Rotating {
    keyrings: Vec<Vec<String>>,
    latency: RefCell<Histogram>,
    done: Cell<u64>,
}

impl Rotating {
    /// Makes the keyrings; `delivering` are those in use by deliveries.
    pub(crate) async fn prepare(
        api: &mut Api,
        delivering: &[Endpoint],
        connections: usize,
    ) -> Result<Self, Error> {
        let wanted = connections * KEYRINGS_EACH;
        let mut all: Vec<String> = delivering.iter().map(|one| one.keyring.clone()).collect();
        while all.len() < wanted {
            let app = api.create_app().await?;
            for _ in 0..ENDPOINTS_EACH_APP.min(wanted - all.len()) {
                all.push(api.create_endpoint(&app, NOWHERE, 1).await?.keyring);
            }
        }
        Ok(Self {
            keyrings: all.chunks(KEYRINGS_EACH).map(<[String]>::to_vec).collect(),
            latency: RefCell::new(Histogram::new()),
            done: Cell::new(0),
        })
    }

    /// Rotates until it is dropped or a rotation fails.
    pub(crate) async fn run(&self, addr: SocketAddr, epoch: Epoch) -> Result<(), Error> {
        let connections = self.keyrings.iter().enumerate();
        let workers = connections.map(|(number, own)| self.rotate(addr, epoch, number, own));
        try_join_all(workers).await.map(|_| ())
    }

    async fn rotate(
        &self,
        addr: SocketAddr,
        epoch: Epoch,
        number: usize,
        keyrings: &[String],
    ) -> Result<(), Error> {
        let mut connection = Connection::open(addr).await?;
        for (turn, keyring) in keyrings.iter().cycle().enumerate() {
            let request = request(addr, keyring, &format!("bench-{number}-{turn}"));
            let sent = epoch.now();
            let answer = connection.exchange(request.as_bytes()).await?;
            if answer.status != 201 {
                let words = String::from_utf8_lossy(answer.body);
                return Err(format!("a rotation was answered {}: {words}", answer.status).into());
            }
            let took = epoch.now().saturating_sub(sent);
            self.latency.borrow_mut().record(took);
            self.done.set(self.done.get() + 1);
        }
        Ok(())
    }

    /// The row with what the rotations came to within the load's time.
    pub(crate) fn complete(&self, row: Row, time: Duration) -> Row {
        let latency = self.latency.borrow();
        let millis = |share| {
            latency
                .per_mille(share)
                .map(|took| took.as_secs_f64() * 1e3)
        };
        let per_second = rate(self.done.get(), time);
        let (p50, p99) = (millis(500), millis(990));
        let mut notes = row.notes.clone();
        notes.push(format!(
            "{per_second:.0} rotations/s over {} connections and {} keyrings, p50 {:.2} ms, p99 {:.2} ms",
            self.keyrings.len(),
            self.keyrings.iter().map(Vec::len).sum::<usize>(),
            p50.unwrap_or_default(),
            p99.unwrap_or_default(),
        ));
        Row {
            rotations_per_second: Some(per_second),
            rotation_p50_ms: p50,
            rotation_p99_ms: p99,
            notes,
            ..row
        }
    }
}

fn request(addr: SocketAddr, keyring: &str, key: &str) -> String {
    format!(
        "POST /v1/keyrings/{keyring}/rotations HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {}\r\n\
         idempotency-key: {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        api_key(),
        BODY.len()
    )
}

//! Connections that rotate, each the keyrings that are its own: as fast as answers come, which tells how many
//! there can be, or at a set pace, which tells how long one takes. A paced one counts from the time it was
//! due, so a server that stalls is charged for all that had to wait.
//!
//! Every rotation is `immediate` and under an Idempotency-Key of its own: what a careful caller sends,
//! and the most that one costs. Through the native API the keyring that signs the deliveries of the run
//! is among those that are rotated; through the Hopae dialect it is the secrets of apps made there.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::api::{Api, Endpoint, text};
use crate::histogram::Histogram;
use crate::http::Connection;
use crate::number::{Epoch, Error, rate};
use crate::process::api_key;
use crate::report::Row;
use crate::scenario::Tempo;

/// Keyrings of one connection: it comes back to each only after the others.
const KEYRINGS_EACH: usize = 4;
/// Endpoints of one app; more are not allowed than 50.
const ENDPOINTS_EACH_APP: usize = 32;
/// Nothing is published for these endpoints; discard, and a port that nothing listens on.
const NOWHERE: &str = "http://127.0.0.1:9/";

/// When one connection's rotations are due.
#[derive(Debug, Clone, Copy)]
struct Turns {
    first: Instant,
    every: Duration,
}

/// Keyrings to rotate, and what became of it.
pub(crate) struct Rotating {
    /// For each connection the paths to which its rotations are posted, one for each keyring.
    paths: Vec<Vec<String>>,
    body: &'static str,
    /// What is answered to a rotation that was made.
    made: u16,
    latency: RefCell<Histogram>,
    done: Cell<u64>,
}

impl Rotating {
    /// Makes the keyrings; `delivering` are those in use by deliveries.
    pub(crate) async fn native(
        api: &mut Api,
        delivering: &[Endpoint],
        connections: usize,
    ) -> Result<Self, Error> {
        let wanted = connections * KEYRINGS_EACH;
        let path = |one: &Endpoint| format!("/v1/keyrings/{}/rotations", one.keyring);
        let mut all: Vec<String> = delivering.iter().map(path).collect();
        while all.len() < wanted {
            let app = api.create_app().await?;
            for _ in 0..ENDPOINTS_EACH_APP.min(wanted - all.len()) {
                all.push(path(&api.create_endpoint(&app, NOWHERE, 1).await?));
            }
        }
        Ok(Self::of(&all, r#"{"mode":"immediate"}"#, 201))
    }

    /// Makes apps through the Hopae dialect; each has a secret of its own.
    pub(crate) async fn hopae(api: &mut Api, connections: usize) -> Result<Self, Error> {
        let mut all = Vec::new();
        for _ in 0..connections * KEYRINGS_EACH {
            let name = json!({ "name": "bench" });
            let made = api.call("POST", "/connect/v1/apps", &name).await?;
            let app = text(&made, "clientId")?;
            all.push(format!(
                "/connect/v1/apps/{app}/webhook-config/rotate-secret"
            ));
        }
        Ok(Self::of(&all, "", 200))
    }

    fn of(paths: &[String], body: &'static str, made: u16) -> Self {
        Self {
            paths: paths
                .chunks(KEYRINGS_EACH)
                .map(<[String]>::to_vec)
                .collect(),
            body,
            made,
            latency: RefCell::new(Histogram::new()),
            done: Cell::new(0),
        }
    }

    /// Rotates until it is dropped or a rotation fails.
    pub(crate) async fn run(
        &self,
        addr: SocketAddr,
        epoch: Epoch,
        tempo: Tempo,
    ) -> Result<(), Error> {
        let count = u32::try_from(self.paths.len())?;
        let begun = Instant::now();
        let workers = (0..count).zip(&self.paths).map(|(number, own)| {
            let turns = match tempo {
                Tempo::Closed => None,
                Tempo::Paced(per_second) => Some(Turns {
                    first: begun + Duration::from_secs(1) * number / per_second,
                    every: Duration::from_secs(1) * count / per_second,
                }),
            };
            self.rotate(addr, epoch, number, (own, turns))
        });
        try_join_all(workers).await.map(|_| ())
    }

    async fn rotate(
        &self,
        addr: SocketAddr,
        epoch: Epoch,
        number: u32,
        (paths, turns): (&[String], Option<Turns>),
    ) -> Result<(), Error> {
        let mut connection = Connection::open(addr).await?;
        for (turn, path) in (0..).zip(paths.iter().cycle()) {
            let request = self.request(addr, path, &format!("bench-{number}-{turn}"));
            let sent = match turns {
                None => epoch.now(),
                Some(Turns { first, every }) => {
                    let due = first + every * turn;
                    sleep_until(due).await;
                    epoch.of(due)
                }
            };
            let answer = connection.exchange(request.as_bytes()).await?;
            if answer.status != self.made {
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
            self.paths.len(),
            self.paths.iter().map(Vec::len).sum::<usize>(),
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

    fn request(&self, addr: SocketAddr, path: &str, key: &str) -> String {
        let body = self.body;
        format!(
            "POST {path} HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {}\r\n\
             idempotency-key: {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            api_key(),
            body.len()
        )
    }
}

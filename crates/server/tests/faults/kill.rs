//! `kill -9` at random moments under load (G1, G2, G4, G5): nothing that was acknowledged is lost.
//!
//! Each round starts the server on the same data directory, repeats what the last round left
//! unanswered, publishes over several connections and rotates a secret, and is killed when so many
//! requests have been written as the seed draws. The receivers live through all of it and write down every request. What
//! counts as failure:
//!
//! 1. A message that was answered 202 is neither accepted by each endpoint nor listed as exhausted.
//! 2. One published text arrives under two message ids, or an id with two texts. Publishers that can
//!    repeat do so with their Idempotency-Key, so they must not make a second message either.
//! 3. A request that no secret of its endpoint signed; or, later than a rotation was answered, one
//!    that the secret it retired signed.
//! 4. A rotation that is repeated with its key answers another secret, or moves the keyring twice.
//! 5. The server is not ready within five seconds.
//!
//! Messages that were never acknowledged may arrive.

mod load;
mod receivers;
mod rotations;

use std::collections::HashSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use crate::support::http::Api;
use crate::support::process::{Server, Setup};
use crate::support::{Endpoint, app, endpoint, eventually, list, setting, text};

use load::Publishers;
use receivers::Books;
use rotations::Rotations;

/// Rounds unless `HOOKTURN_KILL_ROUNDS` says otherwise.
const ROUNDS: u64 = 8;
/// Requests of the publishers that a server lives to see.
const REQUESTS: std::ops::RangeInclusive<u64> = 3..=400;
const READY_WITHIN: Duration = Duration::from_secs(5);
/// How long the last server may take to deliver everything that is due.
const SETTLED_WITHIN: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_g2_nothing_acknowledged_is_lost_by_kill_9() {
    let rounds = setting("HOOKTURN_KILL_ROUNDS").unwrap_or(ROUNDS);
    let seed = setting("HOOKTURN_KILL_SEED").unwrap_or(20_261_121);
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).with("HOOKTURN_LOG", "warn");
    let books = Books::open().await;
    let (app, endpoints) = arrange(&setup, &books).await;
    let mut publishers = Publishers::new(&app);
    let mut rotations = Rotations::new(&endpoints[books.rotated()]);
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds {
        let server = ready(&setup, &mut slowest).await;
        rotations.repeat(&server.api()).await;
        publishers.repeat(&server.api()).await;
        // Counted when a request is written, not when it is answered: death comes while it is under
        // way, anywhere between the socket and the answer.
        let deadly = random.random_range(REQUESTS);
        let rotate_at = random.random_range(0..deadly);
        let written = publishers.written();
        tokio::join!(
            publishers.run(server.api()),
            rotations.open(server.api(), written.clone(), rotate_at),
            async {
                written.reached(deadly).await;
                server.kill().await;
            }
        );
    }
    let server = ready(&setup, &mut slowest).await;
    rotations.repeat(&server.api()).await;
    publishers.repeat(&server.api()).await;
    books.forgive();
    let exhausted = settle(&server.api(), &app, &endpoints).await;
    let log = server.stop().await.join("\n");
    assert!(!log.contains("panicked"), "{log}");

    let summary = books.judge(&publishers, &rotations, &endpoints, &exhausted);
    println!(
        "kill -9: seed {seed}, {rounds} rounds, slowest start {} ms, {}, {summary}",
        slowest.as_millis(),
        rotations.summary(),
    );
}

async fn ready(setup: &Setup, slowest: &mut Duration) -> Server {
    let server = setup.start().await;
    *slowest = server.ready_after.max(*slowest);
    assert!(
        server.ready_after <= READY_WITHIN,
        "ready only after {:?}",
        server.ready_after
    );
    server
}

/// One app with an endpoint for each book.
async fn arrange(setup: &Setup, books: &Books) -> (String, Vec<Endpoint>) {
    let server = setup.start().await;
    let api = server.api();
    let app = app(&api).await;
    let mut endpoints = Vec::new();
    for url in books.urls() {
        let more = json!({"retry": {"delaysMillis": [20, 40, 80]}});
        endpoints.push(endpoint(&api, &app, &url, more).await);
    }
    server.stop().await;
    (app, endpoints)
}

/// Waits until nothing is due any more; which deliveries are exhausted, as endpoint and message.
async fn settle(api: &Api, app: &str, endpoints: &[Endpoint]) -> HashSet<(usize, String)> {
    let pending = format!("/v1/apps/{app}/deliveries?status=pending&limit=1");
    eventually(SETTLED_WITHIN, "the end of all deliveries", async || {
        let page = api.get(&pending).await.json();
        page["data"].as_array()?.is_empty().then_some(())
    })
    .await;
    let exhausted = format!("/v1/apps/{app}/deliveries?status=exhausted");
    let listed = list(api, &exhausted).await;
    listed
        .iter()
        .map(|delivery| {
            let endpoint = text(delivery, "endpointId");
            let at = endpoints.iter().position(|known| known.id == endpoint);
            (at.unwrap(), text(delivery, "messageId"))
        })
        .collect()
}

//! `kill -9` at random moments: nothing that was acknowledged is lost (G1).
//!
//! The parent starts this test binary again as a child that accepts and finishes messages and prints
//! what the store acknowledged, reads until a seeded count, kills the child by its process id, opens
//! the database and compares. Rounds follow each other on the same database.
//! `HOOKTURN_KILL_ROUNDS` sets how many.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use hookturn::store::conformance::Recorder;
use hookturn::store::conformance::world::{START, World, accepted, context, entry, finished};
use hookturn::store::live::Live;
use hookturn::store::sqlite::{SqliteOptions, SqliteStore};
use hookturn::telemetry::{SystemClock, SystemEntropy};
use hookturn_core::audit::{Head, verify_chain};
use hookturn_core::delivery::{DeliveryStatus, Next};
use hookturn_core::id::{ClientId, DeliveryId, MessageId, Sequence, WorkspaceId};
use hookturn_core::message::{EventType, Message};
use hookturn_core::store::{Accept, DueQuery, NewMessage, Store, Write};
use hookturn_core::time::{Clock, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::engine::{Sqlite, check};

const DATABASE: &str = "HOOKTURN_KILL_DATABASE";
const ROUNDS: &str = "HOOKTURN_KILL_ROUNDS";
/// More than one commit's worth of messages under way at once.
const TASKS: usize = 16;

#[expect(clippy::disallowed_methods, reason = "a test's own switches")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn open(path: &Path) -> (SqliteStore, Arc<Live>) {
    let live = Arc::new(Live::default());
    let store = SqliteStore::open(SqliteOptions {
        path: path.to_owned(),
        live: Arc::clone(&live),
        hints: Arc::new(Recorder::default()),
    });
    (store.unwrap(), live)
}

/// Accepts and finishes until it is killed. Does nothing when nobody asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_of_the_kill_test() {
    let Some(path) = variable(DATABASE) else {
        return;
    };
    let (store, live) = open(Path::new(&path));
    let sequence = Arc::new(Sequence::default());
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (store, live) = (store.clone(), Arc::clone(&live));
            let sequence = Arc::clone(&sequence);
            tokio::spawn(async move { work(&store, &live, &sequence).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

async fn work(store: &SqliteStore, live: &Live, sequence: &Sequence) {
    let endpoint = live.all_endpoints().into_iter().next().unwrap();
    let say = |what: &str, id: &dyn std::fmt::Display| {
        // In one write and past the test harness, so that a line is whole or not there. It begins
        // with a line break because the harness's own words may stand before it.
        let words = format!("\nack {what} {id}\n");
        std::io::stdout().write_all(words.as_bytes()).is_ok()
    };
    // The parent kills within a few thousand; the bound ends an orphan.
    for round in 0..20_000 {
        let place = sequence.next(SystemClock.now());
        let message = Message {
            id: MessageId::at_place(place, &SystemEntropy),
            workspace: endpoint.workspace,
            app: endpoint.app,
            event_type: EventType::new("thing.happened").unwrap(),
            event_id: None,
            payload: format!("{{\"round\":{round}}}").into(),
            accepted_at: place.at,
        };
        let new = NewMessage {
            deliveries: vec![(DeliveryId::at_place(place, &SystemEntropy), endpoint.id)],
            message: Arc::new(message),
        };
        let due = accepted(&new).remove(0);
        let accept = Accept {
            messages: vec![new],
            idempotency: None,
        };
        store.accept(accept).await.unwrap();
        let mut heard = say("accepted", &due.delivery);
        if round % 3 != 0 {
            let finish = finished(&due, 200, Next::Delivered);
            store.finish(vec![finish], Vec::new()).await.unwrap();
            heard &= say("delivered", &due.delivery);
        }
        if round % 64 == 0 {
            let audited = store.audit(endpoint.workspace, context(), vec![entry()], START);
            audited.await.unwrap();
            heard &= say("audited", &round);
        }
        if !heard {
            return;
        }
    }
}

/// What the child acknowledged until it was killed after `patience` lines, by delivery.
fn run_and_kill(path: &Path, patience: usize) -> (HashMap<DeliveryId, bool>, u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_of_the_kill_test", "--nocapture"])
        .env(DATABASE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut acknowledged, mut audited, mut lines) = (HashMap::new(), 0, 0);
    let output = BufReader::new(child.stdout.take().unwrap());
    for line in output.lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        let (Some("ack"), Some(what), Some(id)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if what == "audited" {
            audited += 1;
        } else if let Ok(id) = id.parse() {
            // The last line may be cut: then its id is not one.
            *acknowledged.entry(id).or_insert(false) |= what == "delivered";
        }
        lines += 1;
        if lines == patience {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(
        lines >= patience,
        "the child ended by itself after {lines} lines"
    );
    (acknowledged, audited)
}

async fn verify(
    path: &Path,
    (workspace, app): (WorkspaceId, ClientId),
    acknowledged: &HashMap<DeliveryId, bool>,
    audited: u64,
) {
    let (store, live) = open(path);
    for (id, delivered) in acknowledged {
        let found = store.delivery(workspace, *id).await.unwrap();
        let Some((delivery, attempts)) = found else {
            panic!("{id} was acknowledged and is lost");
        };
        let message = store.message(workspace, app, delivery.message).await;
        assert!(message.unwrap().is_some(), "the message of {id} is lost");
        if *delivered {
            assert_eq!(delivery.state.status(), DeliveryStatus::Delivered, "{id}");
            assert_eq!(attempts.len(), 1);
        }
    }
    let mut log = Vec::new();
    loop {
        let page = store.audit_log(workspace, log.len() as u64, 500).await;
        let page = page.unwrap();
        if page.is_empty() {
            break;
        }
        log.extend(page);
    }
    let head = verify_chain(Head::START, &log).unwrap();
    assert!(head.seq > audited, "{} of {audited}", head.seq);
    assert_eq!(live.all_endpoints().len(), 2);
    // Every pending delivery can be read as dispatch will read it.
    let due = store.stats().await.unwrap().due;
    let endpoints = store.due_endpoints().await.unwrap();
    let mut rows = 0;
    for (workspace, endpoint, _) in endpoints {
        let query = DueQuery {
            workspace,
            endpoint,
            until: Timestamp::FAR_FUTURE,
            limit: usize::MAX,
            payload_bytes: usize::MAX,
        };
        rows += store.due(query).await.unwrap().rows.len() as u64;
    }
    assert_eq!(rows, due);
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_nothing_acknowledged_is_lost_by_kill_9() {
    let rounds: u64 = variable(ROUNDS).map_or(20, |text| text.parse().unwrap());
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("hookturn.db");
    let values = World::new(&Sqlite).await;
    let tenant = values.tenant("acme").await;
    let (store, _) = open(&path);
    let mut writes = vec![
        Write::Workspace(tenant.workspace.clone()),
        Write::App(tenant.app.clone()),
    ];
    writes.extend(tenant.endpoints.iter().cloned().map(Write::Endpoint));
    let change = values.changing(tenant.workspace.id, writes);
    store.change(change).await.unwrap();
    drop(store);
    let mut random = StdRng::seed_from_u64(9);
    let mut audited = 0;
    for round in 0..rounds {
        let patience = random.random_range(1..1_500);
        let (acknowledged, more) = run_and_kill(&path, patience);
        audited += more;
        assert!(!acknowledged.is_empty(), "round {round}");
        let owner = (tenant.workspace.id, tenant.app.id);
        verify(&path, owner, &acknowledged, audited).await;
        check(&path);
    }
}

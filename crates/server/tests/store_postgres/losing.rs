//! Losing the connection: nothing that was acknowledged is lost, nothing that was refused is there, and
//! what nobody knows is found out.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookturn::store::conformance::world::{START, World, all_of};
use hookturn::store::conformance::{Engine, Recorder};
use hookturn::store::live::Live;
use hookturn::store::postgres::{PostgresOptions, PostgresStore, Sharing};
use hookturn_core::store::{Accept, HintSink, IdempotencyKey, Store, StoreError, Write};

use tokio::time::Instant;

use super::engine::{Place, Postgres};
use super::proxy::{Lose, Proxy};
use super::support::cluster::cluster;

/// What must come comes within this time, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// The engine with something between the store and its database.
struct Between {
    proxy: Proxy,
    database: Mutex<String>,
}

impl Between {
    fn start() -> Self {
        Self {
            proxy: Proxy::start(),
            database: Mutex::default(),
        }
    }

    fn database(&self) -> String {
        self.database.lock().unwrap().clone()
    }
}

impl Engine for Between {
    type Place = Place;

    async fn fresh(&self) -> Place {
        let place = Place::fresh().await;
        self.database.lock().unwrap().clone_from(&place.database);
        place
    }

    async fn open(
        &self,
        place: &Place,
        live: Arc<Live>,
        hints: Arc<dyn HintSink>,
    ) -> Arc<dyn Store> {
        let options = PostgresOptions {
            target: self.proxy.target(&place.database),
            live,
            hints,
            sharing: Sharing::default(),
        };
        Arc::new(PostgresStore::open(options).await.unwrap())
    }

    async fn crash(&self, place: &Place) -> Place {
        Postgres.crash(place).await
    }

    fn backup_path(&self, place: &Place) -> std::path::PathBuf {
        Postgres.backup_path(place)
    }

    async fn restore(&self, backup: &std::path::Path) -> Place {
        Postgres.restore(backup).await
    }

    async fn check(&self, place: &Place) {
        Postgres.check(place).await;
    }

    async fn rewrite_audit(&self, place: &Place) -> bool {
        Postgres.rewrite_audit(place).await
    }
}

/// Writes as soon as the store is connected again; it refuses at once as long as it is not.
async fn until_it_writes(world: &World<'_, Between>) {
    let again = async {
        while world.store().prune(START, START, 1).await.is_err() {
            while !world.live.is_confirmed() {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn a_lost_commit_is_an_error_and_its_fate_is_found_out_before_anything_else_is_written() {
    for lose in [Lose::Request, Lose::Answer] {
        let engine = Between::start();
        let world = World::new(&engine).await;
        let tenant = world.tenant("acme").await;
        let workspace = tenant.workspace.id;
        let app = world.app(workspace);
        world.hints.take();
        engine.proxy.lose(lose);
        let change = world.changing(workspace, vec![Write::App(app.clone())]);
        let answer = world.store().change(change).await;
        assert!(matches!(answer, Err(StoreError::Uncertain)), "{answer:?}");
        until_it_writes(&world).await;
        let happened = lose == Lose::Answer;
        assert_eq!(world.live.app(workspace, app.id).is_some(), happened);
        let loaded = world.store().load().await.unwrap();
        assert_eq!(loaded.apps.contains(&app), happened);
    }
}

#[tokio::test]
async fn g1_rows_of_a_lost_answer_are_handed_over_when_the_database_is_back() {
    let engine = Between::start();
    let world = World::new(&engine).await;
    let tenant = world.tenant("acme").await;
    let new = world.message(&tenant.app, START, "a", 8, &[&tenant.endpoints[0]]);
    world.hints.take();
    engine.proxy.lose(Lose::Answer);
    let accept = Accept {
        messages: vec![new.clone()],
        idempotency: None,
    };
    assert!(world.store().accept(accept).await.is_err());
    assert!(world.hints.take().is_empty(), "nobody knows yet");
    until_it_writes(&world).await;
    let hints = world.hints.take();
    let [hookturn_core::store::Hint::Accepted(rows)] = &hints[..] else {
        panic!("{hints:?}");
    };
    assert_eq!(rows[0].message, new.message);
    let due = world.due(&tenant.endpoints[0], START).await;
    assert_eq!(due.rows.len(), 1);
}

/// Connections are cut while many accept: what was acknowledged is there, and what was refused with
/// certainty is not.
#[tokio::test]
async fn g1_what_is_accepted_while_connections_are_cut_is_there_and_what_is_refused_is_not() {
    let engine = Between::start();
    let world = World::new(&engine).await;
    let tenant = world.tenant("acme").await;
    let client = cluster().connect(&engine.database()).await;
    let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let new: Vec<_> = (0..30)
            .map(|_| world.message(&tenant.app, START, "a", 8, &[&tenant.endpoints[0]]))
            .collect();
        let asked: Vec<_> = new
            .iter()
            .map(|new| {
                world.store().accept(Accept {
                    messages: vec![new.clone()],
                    idempotency: None,
                })
            })
            .collect();
        if round % 3 == 0 {
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
            client.query(cut, &[]).await.unwrap();
        }
        for (new, answer) in new.iter().zip(asked) {
            match answer.await {
                Ok(()) => acknowledged.push(new.deliveries[0].0),
                Err(StoreError::Unwritable { .. }) => refused.push(new.deliveries[0].0),
                Err(_) => {}
            }
        }
        until_it_writes(&world).await;
    }
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    let mut found = Vec::new();
    for delivery in world.store().deliveries(all_of(&tenant.app)).await.unwrap() {
        found.push(delivery.id);
    }
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|id| !found.contains(id))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    let ghosts: Vec<_> = refused.iter().filter(|id| found.contains(id)).collect();
    assert!(ghosts.is_empty(), "{ghosts:?}");
}

/// A store whose database is gone refuses at once instead of waiting.
#[tokio::test]
async fn a_database_that_is_gone_is_an_error_at_once() {
    let place = Place::fresh().await;
    let store = PostgresStore::open(PostgresOptions {
        target: place.target(),
        live: Arc::new(Live::default()),
        hints: Arc::new(Recorder::default()),
        sharing: Sharing::default(),
    });
    let store = store.await.unwrap();
    store.put_meta("a", b"1".to_vec()).await.unwrap();
    assert!(!store.cannot_write());
    place.shut().await;
    for _ in 0..3 {
        let answer = tokio::time::timeout(PATIENCE, store.put_meta("a", b"2".to_vec())).await;
        let answer = answer.unwrap();
        assert!(
            matches!(answer, Err(StoreError::Unwritable { .. })),
            "{answer:?}"
        );
        assert!(store.cannot_write());
    }
    let read = store.meta("a").await;
    assert!(read.is_err(), "{read:?}");
}

/// A silent database refuses nothing: whoever asks for an idempotent answer is told as soon as the store knows.
#[tokio::test]
async fn nobody_waits_to_read_from_a_database_that_is_away() {
    let engine = Between::start();
    let world = World::new(&engine).await;
    let _tenant = world.tenant("acme").await;
    let key = IdempotencyKey([7; 32]);
    let asked = || world.store().idempotent_answer(key, START);
    assert!(asked().await.unwrap().is_none());
    engine.proxy.hold(true);
    let begun = Instant::now();
    let away = asked().await.unwrap_err();
    assert!(matches!(away, StoreError::Unwritable { .. }), "{away}");
    // A heartbeat, the grace of its answer, and the patience of whoever reads.
    let first = begun.elapsed();
    assert!(first < Duration::from_secs(7), "{first:?}");
    let begun = Instant::now();
    assert!(asked().await.is_err());
    assert!(!world.store().confirmed().await.unwrap());
    let second = begun.elapsed();
    assert!(second < Duration::from_secs(1), "{second:?}");
    engine.proxy.hold(false);
    until_it_writes(&world).await;
    assert!(world.store().confirmed().await.unwrap());
    assert!(asked().await.unwrap().is_none());
}

/// Where a network forgot the connections, nobody hears that they ended: what was asked on one is not waited for when
/// the database is back.
#[tokio::test]
async fn what_was_asked_before_the_database_went_silent_holds_nobody_up_when_it_is_back() {
    let engine = Between::start();
    let world = World::new(&engine).await;
    let _tenant = world.tenant("acme").await;
    let key = IdempotencyKey([7; 32]);
    let asked = || world.store().idempotent_answer(key, START);
    // More than there are connections.
    let many = || futures_util::future::join_all((0..8).map(|_| asked()));
    assert!(many().await.iter().all(Result::is_ok));
    engine.proxy.hold(true);
    assert!(many().await.iter().all(Result::is_err));
    engine.proxy.forget();
    until_it_writes(&world).await;
    let begun = Instant::now();
    let answers = many().await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

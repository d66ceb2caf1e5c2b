//! One process works on a database: a second one is refused, and one that lost it signs and writes nothing.

use std::sync::Arc;
use std::time::Duration;

use hookturn::store::conformance::Recorder;
use hookturn::store::conformance::world::{START, World, finished};
use hookturn::store::live::Live;
use hookturn::store::postgres::{OpenError, PostgresOptions, PostgresStore, Target};
use hookturn_core::delivery::{DeliveryStatus, Next};
use hookturn_core::store::{Accept, DueQuery, StoreError};

use super::engine::{Place, Postgres, open, open_again, shut};
use super::proxy::Proxy;
use super::support::cluster::cluster;

/// What must come comes within this time, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

async fn opened(target: Target) -> (PostgresStore, Arc<Live>) {
    let live = Arc::new(Live::default());
    let store = PostgresStore::open(PostgresOptions {
        target,
        live: Arc::clone(&live),
        hints: Arc::new(Recorder::default()),
    });
    (store.await.unwrap(), live)
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let waited = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    assert!(waited.is_ok(), "{what}");
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_who_has_the_database() {
    let place = Place::fresh().await;
    let first = open(&place.target()).await.unwrap();
    let error = open(&place.target()).await.unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    let ours = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&ours), "{error}");
    first.put_meta("a", b"1".to_vec()).await.unwrap();
    drop(first);
    let second = open(&place.target()).await.unwrap();
    assert_eq!(second.meta("a").await.unwrap().unwrap(), b"1");
}

#[tokio::test]
async fn a_store_that_was_closed_says_so_and_writes_no_more() {
    let place = Place::fresh().await;
    let (store, live) = opened(place.target()).await;
    assert!(live.is_confirmed());
    store.close().await.unwrap();
    assert!(!live.is_confirmed());
    let refused = store.put_meta("a", b"1".to_vec()).await;
    assert!(matches!(refused, Err(StoreError::Stopped)), "{refused:?}");
    let client = cluster().connect(&place.database).await;
    let left = "SELECT left_at IS NOT NULL FROM hookturn.shard_owner";
    assert!(client.query_one(left, &[]).await.unwrap().get::<_, bool>(0));
    drop(open(&place.target()).await.unwrap());
}

/// Nothing is signed from the moment at which the connection ends, and again when it is back.
#[tokio::test]
async fn g4_a_view_is_not_believed_while_the_connection_is_lost() {
    let place = Place::fresh().await;
    let (store, live) = opened(place.target()).await;
    assert!(live.is_confirmed());
    place.shut().await;
    until("the view is believed without a connection", || {
        !live.is_confirmed()
    })
    .await;
    until("the store thinks that it can write", || {
        store.cannot_write()
    })
    .await;
    place.open_again().await;
    until("the view is not believed again", || live.is_confirmed()).await;
    store.put_meta("a", b"1".to_vec()).await.unwrap();
}

/// A process that does not hear that its connection ended must not sign either once another has the database.
/// When it hears of it, it is told that it is gone for good, and cannot record what it sent meanwhile.
#[tokio::test]
async fn g4_whoever_takes_over_waits_until_the_last_one_believes_nothing_more() {
    let place = Place::fresh().await;
    let proxy = Proxy::start();
    let (lost, lost_view) = opened(proxy.target(&place.database)).await;
    assert!(lost_view.is_confirmed());
    proxy.hold(true);
    let cut = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let client = cluster().connect(&place.database).await;
    client.query_one(cut, &[]).await.unwrap();
    let (next, next_view) = opened(place.target()).await;
    assert!(next_view.is_confirmed());
    assert!(!lost_view.is_confirmed(), "two believe their views at once");
    proxy.hold(false);
    let gone = tokio::time::timeout(PATIENCE, lost.until_gone()).await;
    let gone = gone.unwrap().to_string();
    assert!(gone.contains("another hookturn process"), "{gone}");
    let refused = lost.put_meta("a", b"1".to_vec()).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(!lost_view.is_confirmed());
    next.put_meta("a", b"2".to_vec()).await.unwrap();
}

/// Somebody had the database and left again while this process was cut off: what it knows is old.
#[tokio::test]
async fn a_process_that_was_away_notices_that_there_was_another_one_meanwhile() {
    let place = Place::fresh().await;
    let (lost, _live) = opened(place.target()).await;
    // As the other one would have done it.
    let epoch = "UPDATE hookturn.shard_owner SET epoch = epoch + 1, holder = 'another'";
    let inside = cluster().connect(&place.database).await;
    inside.batch_execute(epoch).await.unwrap();
    let cut = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
               WHERE datname = $1 AND application_name LIKE 'hookturn on %'";
    inside.query(cut, &[&place.database]).await.unwrap();
    let gone = tokio::time::timeout(PATIENCE, lost.until_gone()).await;
    assert!(gone.is_ok(), "it went on with what it knew");
}

/// An exchange that happened is recorded when the database is back; until then nobody reads its row as due.
#[tokio::test]
async fn g2_what_was_sent_is_recorded_when_the_database_is_back() {
    let world = World::new(&Postgres).await;
    let tenant = world.tenant("acme").await;
    let database = world.place().database.clone();
    let (app, endpoint) = (&tenant.app, &tenant.endpoints[0]);
    let accept = |new| Accept {
        messages: vec![new],
        idempotency: None,
    };
    let new = world.message(app, START, "a", 8, &[endpoint]);
    let delivery = new.deliveries[0].0;
    world.store().accept(accept(new)).await.unwrap();
    let due = world.due(endpoint, START).await;
    shut(&database).await;
    let record = world.store().finish(
        vec![finished(&due.rows[0], 200, Next::Delivered)],
        Vec::new(),
    );
    let later = world.message(app, START, "a", 8, &[endpoint]);
    let refused = world.store().accept(accept(later)).await;
    assert!(
        matches!(refused, Err(StoreError::Unwritable { .. })),
        "{refused:?}"
    );
    let query = DueQuery {
        workspace: endpoint.workspace,
        endpoint: endpoint.id,
        until: START,
        limit: 10,
        payload_bytes: usize::MAX,
    };
    let read = world.store().due(query).await;
    assert!(
        matches!(read, Err(StoreError::Unwritable { .. })),
        "{read:?}"
    );
    open_again(&database).await;
    tokio::time::timeout(PATIENCE, record)
        .await
        .unwrap()
        .unwrap();
    let stored = world.store().delivery(endpoint.workspace, delivery).await;
    let (stored, attempts) = stored.unwrap().unwrap();
    assert_eq!(stored.state.status(), DeliveryStatus::Delivered);
    assert_eq!(attempts.len(), 1);
    assert!(world.due(endpoint, START).await.rows.is_empty());
}

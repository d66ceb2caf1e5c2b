//! Nodes on one database: they follow each other, and one that was taken over signs and writes nothing.

use std::sync::Arc;
use std::time::Duration;

use hookturn::store::conformance::Recorder;
use hookturn::store::conformance::world::{START, World, finished};
use hookturn::store::live::Live;
use hookturn::store::postgres::{OpenError, PostgresOptions, PostgresStore, Sharing, Target};
use hookturn_core::delivery::{DeliveryStatus, Next};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::store::{Accept, DueQuery, FenceFor, Store as _, StoreError, Write};

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
        sharing: Sharing {
            lease: Duration::from_secs(3),
            ..Sharing::default()
        },
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
async fn a_second_process_joins_and_one_that_works_alone_keeps_others_out() {
    let place = Place::fresh().await;
    let first = open(&place.target()).await.unwrap();
    let second = open(&place.target()).await.unwrap();
    first.put_meta("a", b"1".to_vec()).await.unwrap();
    assert_eq!(second.meta("a").await.unwrap().unwrap(), b"1");
    drop((first, second));
    // As a version does that knows no nodes.
    let alone = cluster().connect(&place.database).await;
    let lock = "SELECT pg_advisory_lock(x'686b746e0002'::bigint)";
    alone.batch_execute(lock).await.unwrap();
    let error = open(&place.target()).await.unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    assert!(
        error.to_string().contains("works on the database alone"),
        "{error}"
    );
}

/// A change at one node is in the view of the other, and confirmed there, when its fence is closed.
#[tokio::test]
async fn a_change_is_in_every_view_when_its_fence_is_closed() {
    let world = World::new(&Postgres).await;
    let tenant = world.tenant("acme").await;
    let (other, other_view) = opened(world.place().target()).await;
    for _ in 0..20 {
        let app = world.app(tenant.workspace.id);
        let change = world.changing(tenant.workspace.id, vec![Write::App(app.clone())]);
        world.store().change(change).await.unwrap();
        let fence = world.store().fence(FenceFor::All).await.unwrap();
        assert!(fence.closed && fence.nodes == 2, "{fence:?}");
        assert_eq!(fence.confirmed, 2, "{fence:?}");
        assert!(other_view.app(tenant.workspace.id, app.id).is_some());
        assert_eq!(other_view.version(), world.live.version());
    }
    drop(other);
}

/// What was decided from a view that another node has changed since is refused, and can be decided again at once.
#[tokio::test]
async fn g5_a_change_that_was_decided_before_anothers_is_a_conflict() {
    let world = World::new(&Postgres).await;
    let tenant = world.tenant("acme").await;
    let workspace = tenant.workspace.id;
    let (other, other_view) = opened(world.place().target()).await;
    let seen = other.view();
    let (one, two) = (world.app(workspace), world.app(workspace));
    let change = world.changing(workspace, vec![Write::App(one)]);
    world.store().change(change).await.unwrap();
    let late = world.changing(workspace, vec![Write::App(two.clone())]);
    let refused = other.change_as_of(late.clone(), seen).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    other
        .change_as_of(late, other_view.version())
        .await
        .unwrap();
    assert!(other_view.app(workspace, two.id).is_some());
}

/// A message whose endpoints were chosen before another node changed one is not accepted: it would miss the endpoint that
/// was answered since. What the other node changed elsewhere does not matter.
#[tokio::test]
async fn g1_a_message_that_was_addressed_before_anothers_change_is_a_conflict() {
    let world = World::new(&Postgres).await;
    let tenant = world.tenant("acme").await;
    let elsewhere = world.tenant("globex").await;
    let (other, other_view) = opened(world.place().target()).await;
    let accept = |seen| {
        let to = &tenant.endpoints[0];
        let messages = vec![world.message(&tenant.app, START, "thing.happened", 16, &[to])];
        let accept = Accept {
            messages,
            idempotency: None,
        };
        other.accept_as_of(accept, seen)
    };
    let seen = other.view();
    let app = Write::App(world.app(elsewhere.workspace.id));
    let change = world.changing(elsewhere.workspace.id, vec![app]);
    world.store().change(change).await.unwrap();
    accept(seen).await.unwrap();
    let seen = other.view();
    let changed = Endpoint {
        version: tenant.endpoints[0].version + 1,
        ..tenant.endpoints[0].clone()
    };
    let change = world.changing(tenant.workspace.id, vec![Write::Endpoint(changed)]);
    world.store().change(change).await.unwrap();
    let refused = accept(seen).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    accept(other_view.version()).await.unwrap();
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
    let left = "SELECT left_at IS NOT NULL FROM hookturn.node";
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

/// A process that does not hear that its connection ended must not sign either once another has its shards.
/// When it hears of it, it is told that it is gone for good, and cannot record what it sent meanwhile.
#[tokio::test]
async fn g4_when_a_node_is_taken_over_it_believes_nothing_any_more_and_writes_nothing() {
    let place = Place::fresh().await;
    let proxy = Proxy::start();
    let (lost, lost_view) = opened(proxy.target(&place.database)).await;
    assert!(lost_view.is_confirmed() && lost.leads());
    proxy.hold(true);
    let (next, next_view) = opened(place.target()).await;
    assert!(!next.leads(), "the lease of the other is not out");
    until("nobody takes over", || next.leads()).await;
    assert!(next_view.is_confirmed());
    assert!(!lost_view.is_confirmed(), "two believe their views at once");
    proxy.hold(false);
    let gone = tokio::time::timeout(PATIENCE, lost.until_gone()).await;
    let gone = gone.unwrap().to_string();
    assert!(gone.contains("another hookturn process"), "{gone}");
    let refused = lost.put_meta("a", b"1".to_vec()).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(!lost_view.is_confirmed() && !lost.leads());
    next.put_meta("a", b"2".to_vec()).await.unwrap();
}

/// Somebody took the node over while it was cut off: what it knows is old.
#[tokio::test]
async fn a_process_that_was_away_notices_that_it_was_taken_over_meanwhile() {
    let place = Place::fresh().await;
    let (lost, _live) = opened(place.target()).await;
    // As the other one would have done it.
    let inside = cluster().connect(&place.database).await;
    let taken = "UPDATE hookturn.node SET taken_over_at = clock_timestamp()";
    inside.batch_execute(taken).await.unwrap();
    let gone = tokio::time::timeout(PATIENCE, lost.until_gone()).await;
    assert!(gone.is_ok(), "it went on with what it knew");
}

/// Connections that are cut for a moment cost nobody its shards.
#[tokio::test]
async fn a_node_that_was_cut_off_for_a_moment_goes_on() {
    let place = Place::fresh().await;
    let (one, one_view) = opened(place.target()).await;
    let (other, other_view) = opened(place.target()).await;
    until("the shards are shared", || {
        one.owned().count() == 128 && other.owned().count() == 128
    })
    .await;
    for _ in 0..3 {
        place.shut().await;
        place.open_again().await;
        until("the views are believed again", || {
            one_view.is_confirmed() && other_view.is_confirmed()
        })
        .await;
    }
    assert_eq!(one.owned().count() + other.owned().count(), 256);
    one.put_meta("a", b"1".to_vec()).await.unwrap();
    other.put_meta("a", b"2".to_vec()).await.unwrap();
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

/// A transaction that takes too long is given up, and what was sent is recorded by the next one: a process that
/// was stopped in the middle of one sends nothing twice.
#[tokio::test]
async fn g2_what_was_sent_is_recorded_after_a_transaction_that_took_too_long() {
    let world = World::new(&Postgres).await;
    let tenant = world.tenant("acme").await;
    let (app, endpoint) = (&tenant.app, &tenant.endpoints[0]);
    let new = world.message(app, START, "a", 8, &[endpoint]);
    let delivery = new.deliveries[0].0;
    let accept = Accept {
        messages: vec![new],
        idempotency: None,
    };
    world.store().accept(accept).await.unwrap();
    let due = world.due(endpoint, START).await;
    // Longer than half a lease, and over before the connection is given up.
    let inside = cluster().connect(&world.place().database).await;
    let slow = "CREATE TABLE public.slow AS SELECT 6 AS seconds;
                CREATE FUNCTION public.dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    PERFORM pg_sleep(seconds) FROM public.slow;
                    RETURN NULL;
                END $$;
                CREATE TRIGGER dawdle BEFORE INSERT ON hookturn.attempt
                    FOR EACH STATEMENT EXECUTE FUNCTION public.dawdle()";
    inside.batch_execute(slow).await.unwrap();
    let record = world.store().finish(
        vec![finished(&due.rows[0], 200, Next::Delivered)],
        Vec::new(),
    );
    let asleep = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND wait_event = 'PgSleep'";
    let dawdling = async {
        while inside
            .query_one(asleep, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
        {}
    };
    tokio::time::timeout(PATIENCE, dawdling).await.unwrap();
    inside
        .batch_execute("DELETE FROM public.slow")
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, record)
        .await
        .unwrap()
        .unwrap();
    let stored = world.store().delivery(endpoint.workspace, delivery).await;
    let (stored, attempts) = stored.unwrap().unwrap();
    assert_eq!(stored.state.status(), DeliveryStatus::Delivered);
    assert_eq!(attempts.len(), 1);
}

/// A node that stopped in the middle of a change holds up the changes of the others, each for a moment, and
/// nothing else.
#[tokio::test]
async fn a_change_is_refused_while_another_node_is_stuck_in_one_and_messages_are_accepted() {
    let world = World::new(&Postgres).await;
    let tenant = world.tenant("acme").await;
    let stuck = cluster().connect(&world.place().database).await;
    let begin = "BEGIN; UPDATE hookturn.view_head SET version = version WHERE id = 0";
    stuck.batch_execute(begin).await.unwrap();
    let app = world.app(tenant.workspace.id);
    let change = world.changing(tenant.workspace.id, vec![Write::App(app)]);
    let new = world.message(&tenant.app, START, "a", 8, &[&tenant.endpoints[0]]);
    let (refused, accepted) = futures_util::join!(
        world.store().change(change.clone()),
        world.store().accept(Accept {
            messages: vec![new],
            idempotency: None,
        })
    );
    assert!(
        matches!(refused, Err(StoreError::Unwritable { .. })),
        "{refused:?}"
    );
    accepted.unwrap();
    stuck.batch_execute("ROLLBACK").await.unwrap();
    world.store().change(change).await.unwrap();
}

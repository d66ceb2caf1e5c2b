//! The outbox as the store hands it over: in which order, and how often.

use std::sync::Arc;

use hookturn::store::conformance::world::{START, World};
use hookturn::store::outbox::{Outbox, Published, Settling};
use hookturn_core::store::{Store, StoreError, Write};

use super::engine::{Place, Postgres, open};
use super::support::cluster::cluster;
use super::support::within_deadline;
use hookturn::store::postgres::PostgresStore;

/// A database with a workspace and an app of it, and the store on it.
async fn made() -> (Place, PostgresStore, String) {
    let place = Place::fresh().await;
    let store = open(&place.target()).await.unwrap();
    let maker = Postgres;
    let world = World::new(&maker).await;
    let workspace = world.workspace("acme");
    let app = world.app(workspace.id);
    let change = world.changing(
        workspace.id,
        vec![Write::Workspace(workspace), Write::App(app.clone())],
    );
    store.change(change).await.unwrap();
    (place, store, app.id.to_string())
}

fn publish(app: &str, number: u32) -> String {
    format!(r#"SELECT hookturn.publish('{app}', 'order.paid', '{{"n":{number}}}')"#)
}

/// What there is to be taken now.
async fn waiting(store: &PostgresStore) -> Vec<Published> {
    store.published(100).await.unwrap()
}

/// The same once it is so much. Transactions of other tests, in other databases of the server, hold it back too.
async fn taken_up(store: &PostgresStore, events: usize) -> Vec<Published> {
    within_deadline("the events can be taken", async {
        loop {
            let found = waiting(store).await;
            if found.len() >= events {
                return found;
            }
        }
    })
    .await
}

fn numbers(published: &[Published]) -> Vec<String> {
    published
        .iter()
        .map(|event| String::from_utf8(event.payload.to_vec()).unwrap())
        .collect()
}

fn taking(published: &[Published]) -> Settling {
    Settling {
        taken: published.iter().map(|event| event.place.clone()).collect(),
        // Judged by what is so when it is settled.
        view: u64::MAX,
        ..Settling::default()
    }
}

#[tokio::test]
async fn what_is_committed_is_there_in_order_and_what_is_rolled_back_never_was() {
    let (place, store, app) = made().await;
    let client = cluster().connect(&place.database).await;
    let run = async |sql: &str| client.batch_execute(sql).await.unwrap();
    run(&publish(&app, 1)).await;
    run("BEGIN").await;
    run(&publish(&app, 2)).await;
    run("SAVEPOINT a").await;
    run(&publish(&app, 99)).await;
    run("ROLLBACK TO SAVEPOINT a").await;
    run(&publish(&app, 3)).await;
    assert_eq!(taken_up(&store, 1).await.len(), 1, "not before the commit");
    run("COMMIT").await;
    run("BEGIN").await;
    run(&publish(&app, 98)).await;
    run("ROLLBACK").await;
    run(&publish(&app, 4)).await;
    let found = taken_up(&store, 4).await;
    assert_eq!(
        numbers(&found),
        [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#, r#"{"n":4}"#]
    );
    // The first few are the first few.
    assert_eq!(store.published(2).await.unwrap(), found[..2]);
    store.settle(taking(&found)).await.unwrap();
    assert_eq!(waiting(&store).await, []);
}

/// A transaction that got its number first may commit last: what came after it waits, and follows it.
#[tokio::test]
async fn an_open_transaction_holds_back_what_would_come_before_it() {
    let (place, store, app) = made().await;
    let slow = cluster().connect(&place.database).await;
    let quick = cluster().connect(&place.database).await;
    slow.batch_execute("BEGIN").await.unwrap();
    slow.batch_execute(&publish(&app, 1)).await.unwrap();
    quick.batch_execute(&publish(&app, 2)).await.unwrap();
    assert_eq!(waiting(&store).await, []);
    assert!(store.oldest_age().await.unwrap() < 60_000);
    slow.batch_execute("COMMIT").await.unwrap();
    let found = taken_up(&store, 2).await;
    assert_eq!(numbers(&found), [r#"{"n":1}"#, r#"{"n":2}"#]);
    // One that began and has not written has no number, and holds up nothing.
    slow.batch_execute("BEGIN; SELECT 1").await.unwrap();
    quick.batch_execute(&publish(&app, 3)).await.unwrap();
    assert_eq!(taken_up(&store, 3).await.len(), 3);
    slow.batch_execute("ROLLBACK").await.unwrap();
}

/// What is read is always a beginning of the whole, however transactions overlap.
#[tokio::test]
async fn nothing_ever_appears_before_what_was_read() {
    let (place, store, app) = made().await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(Arc::new(cluster().connect(&place.database).await));
    }
    let writers = clients.into_iter().enumerate().map(|(writer, client)| {
        let app = app.clone();
        tokio::spawn(async move {
            for round in 0..40_u32 {
                client.batch_execute("BEGIN").await.unwrap();
                for place in 0..=round % 3 {
                    let number = u32::try_from(writer).unwrap() * 1_000_000 + round * 100 + place;
                    client.batch_execute(&publish(&app, number)).await.unwrap();
                    tokio::task::yield_now().await;
                }
                let end = if round % 7 == 6 { "ROLLBACK" } else { "COMMIT" };
                client.batch_execute(end).await.unwrap();
            }
        })
    });
    let writers = futures_util::future::join_all(writers);
    let mut writers = std::pin::pin!(writers);
    let (mut read, mut done) = (Vec::new(), false);
    while !done || store.oldest_age().await.unwrap() > 0 {
        tokio::select! {
            ended = &mut writers, if !done => {
                ended.into_iter().for_each(Result::unwrap);
                done = true;
            }
            found = store.published(7) => {
                let found = found.unwrap();
                if !found.is_empty() {
                    store.settle(taking(&found)).await.unwrap();
                }
                read.extend(found);
            }
        }
    }
    // 40 rounds of one to three, without every seventh.
    let of_a_writer: u32 = (0..40).filter(|r| r % 7 != 6).map(|r| r % 3 + 1).sum();
    assert_eq!(read.len(), usize::try_from(of_a_writer * 6).unwrap());
    let order: Vec<(u64, i64)> = read
        .iter()
        .map(|event| (event.place.transaction.parse().unwrap(), event.place.number))
        .collect();
    assert!(order.is_sorted_by(|a, b| a < b), "{order:?}");
}

#[tokio::test]
async fn events_are_settled_once_and_all_of_them_or_none() {
    let (place, store, app) = made().await;
    let client = cluster().connect(&place.database).await;
    client.batch_execute(&publish(&app, 1)).await.unwrap();
    client.batch_execute(&publish(&app, 2)).await.unwrap();
    let found = taken_up(&store, 2).await;
    let both = (store.settle(taking(&found)), store.settle(taking(&found)));
    let (one, other) = tokio::join!(both.0, both.1);
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    let lost = one.err().or(other.err()).unwrap();
    assert!(matches!(lost, StoreError::Conflict { .. }), "{lost}");
    // One of three that is gone: the others stay.
    client.batch_execute(&publish(&app, 3)).await.unwrap();
    let mut three = taken_up(&store, 1).await;
    three.push(found[0].clone());
    let refused = store.settle(taking(&three)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { .. }), "{refused}");
    assert_eq!(numbers(&taken_up(&store, 1).await), [r#"{"n":3}"#]);
    // Another session is at it.
    let lock = "BEGIN; SELECT pg_advisory_xact_lock(114810724155633)";
    client.batch_execute(lock).await.unwrap();
    let busy = store.settle(taking(&three[..1])).await.unwrap_err();
    assert!(matches!(busy, StoreError::Conflict { .. }), "{busy}");
    client.batch_execute("ROLLBACK").await.unwrap();
    store.settle(taking(&three[..1])).await.unwrap();
}

/// An app that another node made, and answered, would not exist here, and an endpoint would get nothing.
#[tokio::test]
async fn g1_events_are_not_settled_by_what_another_node_has_changed_since() {
    let (place, store, app) = made().await;
    let other = open(&place.target()).await.unwrap();
    let client = cluster().connect(&place.database).await;
    client.batch_execute(&publish(&app, 1)).await.unwrap();
    let found = taken_up(&store, 1).await;
    let judged = store.view();
    let world = World::new(&Postgres).await;
    let workspace = found[0].place.workspace;
    let made = world.changing(workspace, vec![Write::App(world.app(workspace))]);
    other.change(made).await.unwrap();
    let settling = |view| Settling {
        view,
        ..taking(&found)
    };
    let refused = store.settle(settling(judged)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { .. }), "{refused}");
    assert!(store.view() > judged, "it follows by that");
    store.settle(settling(store.view())).await.unwrap();
    assert_eq!(waiting(&store).await, []);
}

#[tokio::test]
async fn what_is_refused_is_kept_with_its_reason_until_it_is_old() {
    let (place, store, app) = made().await;
    let client = cluster().connect(&place.database).await;
    client.batch_execute(&publish(&app, 1)).await.unwrap();
    let found = taken_up(&store, 1).await;
    let mut settling = taking(&found);
    settling.refused = vec![(found[0].place.clone(), "no good".to_owned())];
    store.settle(settling).await.unwrap();
    let kept = "SELECT reason, app, convert_from(payload, 'UTF8') FROM hookturn.outbox_refused";
    let row = client.query_one(kept, &[]).await.unwrap();
    let told: [String; 3] = [row.get(0), row.get(1), row.get(2)];
    assert_eq!(told, ["no good".to_owned(), app, r#"{"n":1}"#.to_owned()]);
    let prune = async |before| {
        while store
            .prune(before, before, 100)
            .await
            .unwrap()
            .resume
            .is_some()
        {}
    };
    prune(START).await;
    assert_eq!(client.query(kept, &[]).await.unwrap().len(), 1);
    prune(hookturn_core::time::Timestamp::FAR_FUTURE.before(hookturn_core::time::DAY * 2)).await;
    assert_eq!(client.query(kept, &[]).await.unwrap().len(), 0);
}

/// Rows of a dump bring the numbers of another server's transactions: they come first, and do not wait for
/// numbers that are years away.
#[tokio::test]
async fn rows_of_another_server_come_first() {
    let (place, store, app) = made().await;
    let client = cluster().connect(&place.database).await;
    client.batch_execute(&publish(&app, 3)).await.unwrap();
    for (transaction, number) in [
        (10_000_000_000_000_000_000_u64, 2),
        (9_000_000_000_000_000_000, 1),
    ] {
        let restored = format!(
            r#"INSERT INTO hookturn.outbox SELECT workspace, '{transaction}'::xid8, 1, gen_random_uuid(), app,
               event_type, NULL, '{{"n":{number}}}', published_at FROM hookturn.outbox WHERE payload = '{{"n":3}}'"#
        );
        client.batch_execute(&restored).await.unwrap();
    }
    for wanted in [&[r#"{"n":1}"#, r#"{"n":2}"#][..], &[r#"{"n":3}"#]] {
        let found = taken_up(&store, wanted.len()).await;
        assert_eq!(numbers(&found), wanted);
        store.settle(taking(&found)).await.unwrap();
    }
}

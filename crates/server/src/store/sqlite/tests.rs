//! What can only be tested from inside: a step that panics, and steps that wait for company.

use std::sync::Arc;
use std::time::Duration;

use super::writer::{Shape, Tx};
use super::{SqliteOptions, SqliteStore};
use crate::store::conformance::Recorder;
use hookturn_core::store::{Store, StoreError, StoreFuture};

fn store() -> (tempfile::TempDir, SqliteStore) {
    store_with(super::writer::PATIENCE)
}

fn store_with(patience: Duration) -> (tempfile::TempDir, SqliteStore) {
    let place = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        path: place.path().join("hookturn.db"),
        live: Arc::default(),
        hints: Arc::new(Recorder::default()),
    };
    let lock = super::lock(&options.path).unwrap();
    let store = SqliteStore::open_with(options, lock, patience);
    (place, store.unwrap())
}

/// Keeps something that nobody waits for.
fn put_patiently(store: &SqliteStore, key: &'static str, rows: usize) -> StoreFuture<'static, ()> {
    let shape = Shape {
        rows,
        patient: true,
        ..Shape::default()
    };
    let put = move |tx: &mut Tx<'_>| super::configuration::put_meta(tx, key, b"kept");
    store.writer.step_of(shape, put)
}

#[tokio::test]
async fn a_patient_step_rides_with_what_somebody_waits_for() {
    let (_place, store) = store_with(Duration::from_hours(1));
    let before = store.commits();
    let first = put_patiently(&store, "first", 1);
    let second = put_patiently(&store, "second", 1);
    store.put_meta("third", b"kept".to_vec()).await.unwrap();
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(store.commits() - before, 1);
    for key in ["first", "second", "third"] {
        assert_eq!(store.meta(key).await.unwrap().unwrap(), b"kept", "{key}");
    }
}

#[tokio::test]
async fn many_patient_rows_wait_for_nobody() {
    let (_place, store) = store_with(Duration::from_hours(1));
    put_patiently(&store, "many", 1_000).await.unwrap();
}

#[tokio::test]
async fn a_patient_step_waits_no_longer_than_patience() {
    let (_place, store) = store();
    put_patiently(&store, "alone", 1).await.unwrap();
    assert_eq!(store.meta("alone").await.unwrap().unwrap(), b"kept");
}

#[tokio::test]
async fn a_store_that_stops_keeps_what_was_patient() {
    let (place, store) = store_with(Duration::from_hours(1));
    let waiting = put_patiently(&store, "last", 1);
    drop(store);
    waiting.await.unwrap();
    let options = SqliteOptions {
        path: place.path().join("hookturn.db"),
        live: Arc::default(),
        hints: Arc::new(Recorder::default()),
    };
    let again = SqliteStore::open(options).unwrap();
    assert_eq!(again.meta("last").await.unwrap().unwrap(), b"kept");
}

#[tokio::test]
async fn a_step_that_panics_is_undone_and_the_writer_goes_on() {
    let (_place, store) = store();
    store.put_meta("before", b"kept".to_vec()).await.unwrap();
    for guarded in [false, true] {
        let answer = store.writer.step_of(
            Shape {
                guarded,
                ..Shape::default()
            },
            |tx| -> Result<(), _> {
                super::configuration::put_meta(tx, "half", b"done")?;
                panic!("a step breaks on purpose");
            },
        );
        let error = answer.await.unwrap_err();
        assert!(matches!(error, StoreError::Engine { .. }), "{error:?}");
        assert_eq!(store.meta("half").await.unwrap(), None);
        store.put_meta("after", vec![guarded.into()]).await.unwrap();
    }
    assert_eq!(store.meta("before").await.unwrap().unwrap(), b"kept");
    assert_eq!(store.meta("after").await.unwrap().unwrap(), [1]);
}

#[tokio::test]
async fn an_unguarded_step_that_fails_after_a_write_leaves_nothing() {
    let (_place, store) = store();
    let answer = store.writer.step(|tx| -> Result<(), _> {
        super::configuration::put_meta(tx, "half", b"done")?;
        Err(StoreError::IdempotencyKeyUsed)
    });
    assert!(answer.await.is_err());
    assert_eq!(store.meta("half").await.unwrap(), None);
    store.flush().await.unwrap();
}

#[tokio::test]
async fn a_query_that_panics_is_answered_and_the_readers_go_on() {
    let (_place, store) = store();
    // More often than there are readers.
    for _ in 0..8 {
        let answer = store
            .readers
            .read(|_| -> Result<(), _> { panic!("a query breaks on purpose") });
        let error = answer.await.unwrap_err();
        assert!(matches!(error, StoreError::Engine { .. }), "{error:?}");
    }
    assert_eq!(store.meta("nothing").await.unwrap(), None);
}

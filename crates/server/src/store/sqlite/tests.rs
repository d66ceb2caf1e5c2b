//! What can only be tested from inside: a step that panics.

use std::sync::Arc;

use super::{SqliteOptions, SqliteStore};
use crate::store::conformance::Recorder;
use hookturn_core::store::{Store, StoreError};

fn store() -> (tempfile::TempDir, SqliteStore) {
    let place = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(SqliteOptions {
        path: place.path().join("hookturn.db"),
        live: Arc::default(),
        hints: Arc::new(Recorder::default()),
    });
    (place, store.unwrap())
}

#[tokio::test]
async fn a_step_that_panics_is_undone_and_the_writer_goes_on() {
    let (_place, store) = store();
    store.put_meta("before", b"kept".to_vec()).await.unwrap();
    for guarded in [false, true] {
        let answer = store.writer.step_of(1, guarded, |tx| -> Result<(), _> {
            super::configuration::put_meta(tx, "half", b"done")?;
            panic!("a step breaks on purpose");
        });
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

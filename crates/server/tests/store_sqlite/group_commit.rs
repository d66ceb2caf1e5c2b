//! Group commit: many steps share one sync, and each still stands for itself.

use std::sync::{Arc, Condvar, Mutex};

use hookturn::store::conformance::Engine;
use hookturn::store::conformance::world::{self, START, World, accepted, finished};
use hookturn::store::live::Live;
use hookturn::store::sqlite::{SqliteOptions, SqliteStore};
use hookturn_core::delivery::Next;
use hookturn_core::store::{Accept, Hint, HintSink, Store, StoreError, Write};

use super::engine::{Sqlite, database};

/// A listener that can hold the writer thread, so that steps pile up behind it.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
    reached: tokio::sync::Notify,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.opened.notify_all();
    }
}

impl HintSink for Gate {
    fn hint(&self, _: Vec<Hint>) {
        let mut closed = self.closed.lock().unwrap();
        if *closed {
            self.reached.notify_one();
        }
        while *closed {
            closed = self.opened.wait(closed).unwrap();
        }
    }
}

/// The suite's world writes the values; the store under test is opened at the same place.
async fn held() -> (tempfile::TempDir, SqliteStore, Arc<Gate>, world::Tenant) {
    let place = Sqlite.fresh().await;
    let gate = Arc::new(Gate::default());
    let store = SqliteStore::open(SqliteOptions {
        path: database(&place),
        live: Arc::new(Live::default()),
        hints: Arc::clone(&gate) as Arc<dyn HintSink>,
    })
    .unwrap();
    let other = World::new(&Sqlite).await;
    let tenant = other.tenant("acme").await;
    let [one, two] = tenant.endpoints.clone();
    let writes = vec![
        Write::Workspace(tenant.workspace.clone()),
        Write::App(tenant.app.clone()),
        Write::Endpoint(one),
        Write::Endpoint(two),
    ];
    let change = other.changing(tenant.workspace.id, writes);
    store.change(change).await.unwrap();
    (place, store, gate, tenant)
}

#[tokio::test]
async fn waiting_steps_share_one_transaction_and_one_refusal_stays_alone() {
    let (_place, store, gate, tenant) = held().await;
    let values = World::new(&Sqlite).await;
    let to = [&tenant.endpoints[0]];
    let message = || values.message(&tenant.app, START, "a", 16, &to);
    let accept = |messages| Accept {
        messages,
        idempotency: None,
    };
    let first = message();
    gate.set(true);
    let holding = store.accept(accept(vec![first.clone()]));
    gate.reached.notified().await;
    let before = store.commits();

    let due = accepted(&first).remove(0);
    let done = store.finish(vec![finished(&due, 200, Next::Delivered)], Vec::new());
    let good: Vec<_> = (0..64)
        .map(|_| store.accept(accept(vec![message()])))
        .collect();
    let nobody = values.endpoint(&tenant.app);
    let lost = values.message(&tenant.app, START, "new.type", 16, &[to[0], &nobody]);
    let halfway = store.accept(accept(vec![message(), lost]));
    let twice = store.accept(accept(vec![first.clone()]));
    let app = values.app(tenant.workspace.id);
    let stale = Write::Endpoint(tenant.endpoints[1].clone());
    let writes = vec![Write::App(app.clone()), stale];
    let refused = store.change(values.changing(tenant.workspace.id, writes));
    let kept = store.change(values.changing(tenant.workspace.id, vec![Write::App(app)]));
    gate.set(false);

    holding.await.unwrap();
    done.await.unwrap();
    for step in good {
        step.await.unwrap();
    }
    assert!(matches!(halfway.await, Err(StoreError::Conflict { .. })));
    assert!(matches!(twice.await, Err(StoreError::Duplicate { .. })));
    assert!(matches!(refused.await, Err(StoreError::Conflict { .. })));
    kept.await.unwrap();
    assert_eq!(store.commits() - before, 1, "69 steps were waiting");
    assert_eq!(store.stats().await.unwrap().due, 64);
}

/// Panics the first time it is told something.
#[derive(Default)]
struct Fragile(std::sync::atomic::AtomicBool);

impl HintSink for Fragile {
    fn hint(&self, _: Vec<Hint>) {
        let before = self.0.swap(true, std::sync::atomic::Ordering::SeqCst);
        assert!(before, "this listener breaks on purpose");
    }
}

#[tokio::test]
async fn a_listener_that_panics_does_not_take_the_store_with_it() {
    let place = Sqlite.fresh().await;
    let store = SqliteStore::open(SqliteOptions {
        path: database(&place),
        live: Arc::new(Live::default()),
        hints: Arc::new(Fragile::default()),
    })
    .unwrap();
    let values = World::new(&Sqlite).await;
    let tenant = values.tenant("acme").await;
    let writes = vec![
        Write::Workspace(tenant.workspace.clone()),
        Write::App(tenant.app.clone()),
        Write::Endpoint(tenant.endpoints[0].clone()),
    ];
    let change = values.changing(tenant.workspace.id, writes);
    store.change(change).await.unwrap();
    let new = values.message(&tenant.app, START, "a", 16, &[&tenant.endpoints[0]]);
    let accept = Accept {
        messages: vec![new],
        idempotency: None,
    };
    store.accept(accept).await.unwrap();
    assert_eq!(store.stats().await.unwrap().due, 1);
}

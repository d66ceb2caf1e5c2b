//! Many steps share a commit, and one that is refused takes nothing with it.

use std::sync::Arc;

use hookturn::store::conformance::Recorder;
use hookturn::store::conformance::world::{START, World, all_of};
use hookturn::store::live::Live;
use hookturn::store::postgres::{PostgresOptions, PostgresStore, Sharing};
use hookturn_core::store::{Accept, Store, StoreError, Write};

use super::engine::{Place, Postgres};

#[tokio::test]
async fn many_accepts_share_a_commit_and_a_refused_one_does_not_spoil_it() {
    // The world only makes values here.
    let world = World::new(&Postgres).await;
    let place = Place::fresh().await;
    let live = Arc::new(Live::default());
    let store = PostgresStore::open(PostgresOptions {
        target: place.target(),
        live: Arc::clone(&live),
        hints: Arc::new(Recorder::default()),
        sharing: Sharing::default(),
    });
    let store = store.await.unwrap();
    let workspace = world.workspace("acme");
    let app = world.app(workspace.id);
    let (endpoint, nobody) = (world.endpoint(&app), world.endpoint(&app));
    let writes = vec![
        Write::Workspace(workspace.clone()),
        Write::App(app.clone()),
        Write::Endpoint(endpoint.clone()),
    ];
    let change = world.changing(workspace.id, writes);
    store.change(change).await.unwrap();
    let known = world.message(&app, START, "a", 8, &[&endpoint]);
    let accept = |new| {
        store.accept(Accept {
            messages: vec![new],
            idempotency: None,
        })
    };
    accept(known.clone()).await.unwrap();
    let before = store.commits();
    let asked: Vec<_> = (0..600)
        .map(|index| match index % 100 {
            // One that is there already: the group it is in is written again, one by one.
            50 => accept(known.clone()),
            51 => accept(world.message(&app, START, "a", 8, &[&nobody])),
            _ => accept(world.message(&app, START, "a", 8, &[&endpoint])),
        })
        .collect();
    let mut accepted = 1;
    for (index, answer) in asked.into_iter().enumerate() {
        match (index % 100, answer.await) {
            (50, answer) => assert!(
                matches!(answer, Err(StoreError::Duplicate { .. })),
                "{answer:?}"
            ),
            (51, answer) => assert!(
                matches!(answer, Err(StoreError::Conflict { .. })),
                "{answer:?}"
            ),
            (_, answer) => {
                answer.unwrap();
                accepted += 1;
            }
        }
    }
    let commits = store.commits() - before;
    assert!((1..60).contains(&commits), "{commits}");
    let found = store.deliveries(all_of(&app)).await.unwrap();
    assert_eq!(found.len(), accepted);
}

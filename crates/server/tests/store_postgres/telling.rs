//! What one node accepts for the endpoints of another is told to it whole, and to nobody else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::poll_fn;
use hookturn::store::conformance::Recorder;
use hookturn::store::conformance::world::{START, World};
use hookturn::store::live::Live;
use hookturn::store::postgres::{PostgresOptions, PostgresStore, Sharing, Target};
use hookturn::store::seal::{MasterKey, Sealer};
use hookturn::telemetry::SystemEntropy;
use hookturn_core::endpoint::Endpoint;
use hookturn_core::message::Message;
use hookturn_core::store::{Accept, Due, FenceFor, Hint, NewMessage, Store as _, Write};
use tokio_postgres::{AsyncMessage, NoTls};

use super::engine::Postgres;
use super::support::cluster::cluster;

/// What must come comes within this time, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(30);
const NEEDLE: &str = "{\"needle\":true}";

async fn opened(target: Target, key: &str) -> (PostgresStore, Arc<Recorder>) {
    let heard = Arc::new(Recorder::default());
    let keys = MasterKey::parse_list(key).unwrap();
    let store = PostgresStore::open(PostgresOptions {
        target,
        live: Arc::new(Live::default()),
        hints: Arc::clone(&heard) as _,
        sharing: Sharing {
            sealer: Some(Arc::new(Sealer::new(keys, Arc::new(SystemEntropy)))),
            ..Sharing::default()
        },
    });
    (store.await.unwrap(), heard)
}

async fn until<T>(what: &str, so: impl Fn() -> Option<T>) -> T {
    let waited = async {
        loop {
            if let Some(found) = so() {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    waited.unwrap_or_else(|_| panic!("{what}"))
}

/// Everything that is said on the channel, as anybody who may connect hears it.
async fn overhear(database: &str) -> Arc<Mutex<String>> {
    let url = cluster().url(database);
    let (client, mut connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let said = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&said);
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                kept.lock().unwrap().push_str(notification.payload());
            }
        }
    });
    client.batch_execute("LISTEN hookturn").await.unwrap();
    // The connection ends with its client.
    std::mem::forget(client);
    said
}

/// A message for an endpoint, which carries the needle.
fn message(world: &World<'_, Postgres>, endpoint: &Endpoint) -> NewMessage {
    let app = world.app(endpoint.workspace);
    let app = hookturn_core::workspace::App {
        id: endpoint.app,
        ..app
    };
    let new = world.message(&app, START, "thing.happened", 2, &[endpoint]);
    let message = Message {
        payload: NEEDLE.into(),
        ..(*new.message).clone()
    };
    NewMessage {
        message: Arc::new(message),
        ..new
    }
}

fn accept(new: NewMessage) -> Accept {
    Accept {
        messages: vec![new],
        idempotency: None,
    }
}

fn told(hints: Vec<Hint>) -> Option<Due> {
    hints.into_iter().find_map(|hint| match hint {
        Hint::Told(rows) => rows.into_iter().next(),
        _ => None,
    })
}

fn named(hints: &[Hint]) -> bool {
    hints.iter().any(|hint| matches!(hint, Hint::Due(..)))
}

#[tokio::test]
async fn g8_a_row_is_told_to_its_owner_whole_and_to_others_sealed() {
    let world = World::new(&Postgres).await;
    let tenant = world.tenant("acme").await;
    let workspace = tenant.workspace.id;
    let key = "5a".repeat(32);
    let place = world.place();
    let (one, heard_by_one) = opened(place.target(), &key).await;
    let (other, heard) = opened(place.target(), &key).await;
    // The world's own store has no key: it stands for one that opens nothing.
    until("the shards are shared", || {
        let owned = one.owned().count() + other.owned().count();
        (owned > 160 && other.owned().count() >= 80).then_some(())
    })
    .await;
    let endpoints: Vec<Endpoint> = std::iter::repeat_with(|| world.endpoint(&tenant.app))
        .take(64)
        .collect();
    let writes = endpoints.iter().cloned().map(Write::Endpoint).collect();
    world.write(workspace, writes).await;
    let fence = world.store().fence(FenceFor::All).await.unwrap();
    assert_eq!(fence.confirmed, 3, "{fence:?}");
    let owned_by = |store: &PostgresStore| {
        let owned = store.owned();
        let found = endpoints.iter().find(|endpoint| owned.owns(endpoint.id));
        found.unwrap().clone()
    };
    let said = overhear(&place.database).await;

    let new = message(&world, &owned_by(&other));
    one.accept(accept(new.clone())).await.unwrap();
    let row = until("the owner is told", || told(heard.take())).await;
    assert_eq!((row.delivery, row.endpoint), new.deliveries[0]);
    assert_eq!(*row.message, *new.message);
    assert_eq!((row.due_at, row.attempts), (START, 0));
    assert_eq!(other.due_reads(), 0, "nothing was read");

    // Who cannot open it hears that there is something.
    let world_owns = |endpoint: &&Endpoint| world.store().owns(endpoint.id);
    let keyless = endpoints.iter().find(world_owns).unwrap();
    world.hints.take();
    one.accept(accept(message(&world, keyless))).await.unwrap();
    until("who has no key is told nothing", || {
        named(&world.hints.take()).then_some(())
    })
    .await;

    // And who has nothing to seal with says no more than that.
    heard_by_one.take();
    let new = message(&world, &owned_by(&one));
    world.store().accept(accept(new)).await.unwrap();
    until("who has no key tells nothing", || {
        named(&heard_by_one.take()).then_some(())
    })
    .await;
    let said = said.lock().unwrap().clone();
    assert!(said.len() > 3 * 65, "something was overheard");
    assert!(!said.contains("needle") && !said.contains("thing.happened"));
}

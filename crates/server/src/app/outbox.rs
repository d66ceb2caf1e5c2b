//! Looking into the outbox: on a hint of the database, and on a period, since a hint can be lost and what an open
//! transaction holds back comes without one.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::sweeps::Parts;
use crate::store::outbox::Outbox as _;
use crate::store::postgres::PostgresStore;

/// How often it is looked without a hint.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is looked how old the oldest event is.
const MEASURE: Duration = Duration::from_secs(15);

/// Makes messages of what applications publish, for as long as the server runs. The embedded store has no outbox.
pub(super) async fn pick_up(parts: &Parts) {
    let Some(store) = parts.engine.outbox() else {
        return;
    };
    let hint = Notify::new();
    let mut stopping = parts.stopping.clone();
    tokio::select! {
        _ = stopping.changed() => {}
        () = store.listen(&hint) => {}
        () = look(parts, store, &hint) => {}
        () = measure(parts, store) => {}
    }
}

/// Being broken off where it waits does no harm: what it asked of the store happens whole or not at all.
async fn look(parts: &Parts, store: &PostgresStore, hint: &Notify) {
    loop {
        let next = Instant::now() + LOOK;
        // One node takes them, so that they are taken in their order.
        while parts.store.leads() && take(parts, store).await {}
        tokio::select! {
            () = sleep_until(next) => {}
            () = hint.notified() => {}
        }
    }
}

/// Takes what is there. Returns whether there is more.
async fn take(parts: &Parts, store: &PostgresStore) -> bool {
    let taken = parts.service.take_published(store).await;
    parts.troubles.note("take events of the outbox", &taken);
    match taken {
        Ok(taken) => {
            parts
                .metrics
                .outbox(taken.accepted, taken.repeated, taken.refused);
            taken.more
        }
        Err(_) => false,
    }
}

async fn measure(parts: &Parts, store: &PostgresStore) {
    let mut period = tokio::time::interval(MEASURE);
    loop {
        period.tick().await;
        let age = store.oldest_age().await;
        parts.troubles.note("look how old the outbox is", &age);
        if let Ok(age) = age {
            parts.metrics.outbox_age(age);
        }
    }
}

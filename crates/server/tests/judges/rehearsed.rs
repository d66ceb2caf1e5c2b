//! Stands in for the rehearsal that finds out how a receiver treats several signatures.

use std::path::Path;
use std::sync::Arc;

use hookturn::app::DATABASE;
use hookturn::store::live::Live;
use hookturn::store::sqlite::{SqliteOptions, SqliteStore};
use hookturn_core::receiver::{ReceiverClass, ReceiverView};
use hookturn_core::store::{Hint, HintSink, ReceiverState, Store as _};

struct NobodyDelivers;

impl HintSink for NobodyDelivers {
    fn hint(&self, _: Vec<Hint>) {}
}

/// Remembers of every receiver that it reads lists, in the database of a server that is stopped.
pub(crate) async fn all_read_lists(data_dir: &Path) {
    let store = SqliteStore::open(SqliteOptions {
        path: data_dir.join(DATABASE),
        live: Arc::new(Live::default()),
        hints: Arc::new(NobodyDelivers),
    })
    .unwrap();
    let configured = store.load().await.unwrap();
    let receivers = configured.endpoints.iter().map(|endpoint| {
        let state = ReceiverState {
            view: ReceiverView {
                class: ReceiverClass::ListAware,
                belief: None,
            },
            ..ReceiverState::default()
        };
        (endpoint.workspace, endpoint.id, state)
    });
    store.finish(Vec::new(), receivers.collect()).await.unwrap();
}

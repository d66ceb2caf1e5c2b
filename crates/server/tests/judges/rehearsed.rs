//! Stands in for the rehearsal that finds out how a receiver treats several signatures.

use std::path::Path;
use std::sync::Arc;

use hookturn::app::DATABASE;
use hookturn::store::live::Live;
use hookturn::store::sqlite::{SqliteOptions, SqliteStore};
use hookturn::telemetry::SystemClock;
use hookturn_core::audit::{Actor, Context};
use hookturn_core::proof::{Finding, Findings, Rehearsed};
use hookturn_core::receiver::ReceiverClass;
use hookturn_core::store::{Change, Hint, HintSink, Store as _, Write};
use hookturn_core::time::Clock as _;

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
    let at = SystemClock.now();
    let finding = Finding {
        class: ReceiverClass::ListAware,
        throws: false,
        refused_current: false,
        odd_status: None,
    };
    let findings = Findings::default().after_rehearsal(Rehearsed {
        finding,
        at,
        doubted_at: None,
    });
    for endpoint in &configured.endpoints {
        let write = Write::Findings {
            workspace: endpoint.workspace,
            endpoint: endpoint.id,
            findings,
        };
        let change = Change {
            workspace: endpoint.workspace,
            writes: vec![write],
            audit: Vec::new(),
            context: Context {
                actor: Actor::System,
                request_id: None,
                reason: None,
            },
            at,
            idempotency: None,
        };
        store.change(change).await.unwrap();
    }
}

//! What happens in memory once a transaction is committed, alike for every engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::store::{Due, Hint, HintSink, ReceiverState, SealedSecret, Write};

use super::live::Live;

/// What a committed transaction did.
#[derive(Debug, Default)]
pub struct Happened {
    /// What was configured.
    pub writes: Vec<Write>,
    /// Secrets that were sealed again, with what they were before.
    pub reseals: Vec<(SealedSecret, Arc<[u8]>)>,
    /// What was learned about receivers.
    pub receivers: Vec<(EndpointId, ReceiverState)>,
    /// Rows that can be sent from memory.
    pub accepted: Vec<Due>,
    /// What else there is to look at.
    pub hints: Vec<Hint>,
    /// Deleted endpoints that nothing refers to any more.
    pub forgotten: Vec<EndpointId>,
    /// Workspaces whose audit log grew.
    pub audited: Vec<WorkspaceId>,
}

impl Happened {
    /// Live view first, then hints: whoever follows a hint must see the new configuration.
    pub fn tell(self, live: &Live, sink: &dyn HintSink) {
        let mut hints = self.hints;
        hints.extend(self.writes.iter().filter_map(|write| match write {
            Write::Endpoint(endpoint) => Some(Hint::Endpoint(Arc::new(endpoint.clone()))),
            _ => None,
        }));
        if !self.writes.is_empty() {
            live.apply(self.writes);
        }
        if !self.audited.is_empty() {
            live.note_audited(&self.audited);
        }
        for (fresh, old) in &self.reseals {
            live.reseal(fresh, old);
        }
        for (endpoint, receiver) in self.receivers {
            live.put_receiver(endpoint, receiver);
        }
        for endpoint in self.forgotten {
            live.forget_endpoint(endpoint);
        }
        if !self.accepted.is_empty() {
            hints.push(Hint::Accepted(self.accepted));
        }
        // What is committed stays committed, whatever becomes of its listener.
        if !hints.is_empty() && catch_unwind(AssertUnwindSafe(|| sink.hint(hints))).is_err() {
            tracing::error!("a listener for due work panicked; the due rows in the store are kept");
        }
    }
}

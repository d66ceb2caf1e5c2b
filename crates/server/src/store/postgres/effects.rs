//! What happens in memory once a transaction is committed: the live view, the hints, and what the writer
//! itself knows of the database.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::message::EventType;
use hookturn_core::store::{Due, Hint, HintSink, ReceiverState, SealedSecret, Write};

use super::days::Day;
use super::upkeep::Sweep;
use crate::store::live::Live;

#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) writes: Vec<Write>,
    pub(super) reseals: Vec<(SealedSecret, Arc<[u8]>)>,
    pub(super) receivers: Vec<(EndpointId, ReceiverState)>,
    pub(super) accepted: Vec<Due>,
    pub(super) hints: Vec<Hint>,
    pub(super) forgotten: Vec<EndpointId>,
    /// Workspaces whose audit log grew.
    pub(super) audited: Vec<WorkspaceId>,
    /// Event types that were published for the first time.
    pub(super) event_types: Vec<(WorkspaceId, EventType)>,
    /// Days that were made.
    pub(super) days: Vec<Day>,
    /// Days that were removed.
    pub(super) dropped: Vec<Day>,
    /// How far pruning came, if it did.
    pub(super) sweep: Option<Sweep>,
}

/// Where the effects stood before a step that may be undone.
pub(super) struct Mark([usize; 10]);

impl Effects {
    pub(super) fn mark(&self) -> Mark {
        Mark([
            self.writes.len(),
            self.reseals.len(),
            self.receivers.len(),
            self.accepted.len(),
            self.hints.len(),
            self.forgotten.len(),
            self.audited.len(),
            self.event_types.len(),
            self.days.len(),
            self.dropped.len(),
        ])
    }

    pub(super) fn undo_to(&mut self, mark: &Mark) {
        let Mark(
            [
                writes,
                reseals,
                receivers,
                accepted,
                hints,
                forgotten,
                audited,
                event_types,
                days,
                dropped,
            ],
        ) = *mark;
        self.writes.truncate(writes);
        self.reseals.truncate(reseals);
        self.receivers.truncate(receivers);
        self.accepted.truncate(accepted);
        self.hints.truncate(hints);
        self.forgotten.truncate(forgotten);
        self.audited.truncate(audited);
        self.event_types.truncate(event_types);
        self.days.truncate(days);
        self.dropped.truncate(dropped);
    }

    /// Live view first, then hints: whoever follows a hint must see the new configuration.
    pub(super) fn happen(self, live: &Live, sink: &dyn HintSink) {
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
            tracing::error!(
                "a listener for due work panicked; the due rows in the database are kept"
            );
        }
    }
}

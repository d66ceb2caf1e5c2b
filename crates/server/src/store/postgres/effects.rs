//! What happens in memory once a transaction is committed: the live view, the hints, and what the writer
//! itself knows of the database.

use std::collections::HashSet;
use std::sync::Arc;

use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::message::EventType;
use hookturn_core::store::{Due, Hint, HintSink, ReceiverState, SealedSecret, Write};

use super::days::Day;
use super::ear::Voice;
use super::upkeep::Sweep;
use crate::store::happened::Happened;
use crate::store::live::Live;
use crate::store::sharing::keys::{Key, secret_key};

#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) writes: Vec<Write>,
    /// What they change of what every node holds.
    pub(super) keys: Vec<Key>,
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
    /// The box of the master key that is current from now on, if another one is.
    pub(super) master_key: Option<Arc<[u8]>>,
    /// The version of the view that it makes, if it changes what every node holds.
    pub(super) view: Option<i64>,
}

/// Where the effects stood before a step that may be undone.
pub(super) struct Mark([usize; 11]);

impl Effects {
    pub(super) fn mark(&self) -> Mark {
        Mark([
            self.writes.len(),
            self.keys.len(),
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
                keys,
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
        self.keys.truncate(keys);
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

    /// The things that every node holds and that it changes.
    pub(super) fn keys(&self) -> HashSet<Key> {
        let resealed = self.reseals.iter().map(|(secret, _)| secret_key(secret));
        self.keys.iter().cloned().chain(resealed).collect()
    }

    /// Tells the live view and whoever listens, here and on other nodes.
    pub(super) fn happen(self, live: &Live, sink: &dyn HintSink, voice: &Voice) {
        voice.tell(&self.accepted, &self.hints);
        let view = self.view;
        let happened = Happened {
            writes: self.writes,
            reseals: self.reseals,
            receivers: self.receivers,
            accepted: self.accepted,
            hints: self.hints,
            forgotten: self.forgotten,
            audited: self.audited,
        };
        happened.tell(live, sink);
        if let Some(version) = view {
            live.shows(version.cast_unsigned());
        }
    }
}

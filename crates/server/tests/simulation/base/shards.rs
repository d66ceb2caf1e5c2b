//! Who owns which shard, by the database.

use hookturn::store::sharing::review::{Member, Seen, Steps};
use hookturn_core::id::EndpointId;
use hookturn_core::shard::Shard;
use hookturn_core::store::{ReceiverState, Store as _};
use hookturn_core::time::Timestamp;
use uuid::Uuid;

use super::{Base, Row, Session};
use crate::engine::now;

impl Base {
    pub(crate) fn look(&self) -> Seen {
        let state = self.state();
        let now = self.now();
        let members = state.nodes.iter().filter(|row| row.works() && row.able);
        let member = |row: &Row| Member {
            id: row.id,
            silent: now.since(row.renewed_at()),
        };
        Seen::new(members.map(member).collect(), state.owners.clone())
    }

    /// Who owns the shard of an endpoint.
    pub(crate) fn owner(&self, endpoint: EndpointId) -> Option<Uuid> {
        self.state().owners[usize::from(Shard::of(endpoint).number())]
    }

    /// Whether a node may own shards, by its own word.
    pub(crate) fn is_able(&self, node: Uuid) -> bool {
        self.state().row(node).is_some_and(|row| row.able)
    }

    /// Until when each node that works has its lease.
    pub(crate) fn leases(&self) -> Vec<(Uuid, Timestamp)> {
        let state = self.state();
        let works = state.nodes.iter().filter(|row| row.works());
        works.map(|row| (row.id, row.lease_until)).collect()
    }

    /// Frees and takes shards, and commits. Returns those that are the node's now and were not before, with what is
    /// known of their receivers.
    pub(crate) fn share(
        &self,
        session: Session,
        me: Uuid,
        steps: &Steps,
    ) -> (Vec<Shard>, Vec<(EndpointId, ReceiverState)>) {
        let now = self.now();
        let mut taken = steps.adopt.clone();
        {
            let mut state = self.state();
            for shard in &steps.free {
                let owner = &mut state.owners[usize::from(shard.number())];
                if *owner == Some(me) {
                    *owner = None;
                }
            }
            for shard in &steps.claim {
                let owner = &mut state.owners[usize::from(shard.number())];
                if owner.is_none() {
                    *owner = Some(me);
                    taken.push(*shard);
                }
            }
            state.write_row(session, now);
        }
        let mut receivers = self.receivers();
        receivers.retain(|(endpoint, _)| taken.contains(&Shard::of(*endpoint)));
        (taken, receivers)
    }

    /// What is remembered of every receiver.
    pub(crate) fn receivers(&self) -> Vec<(EndpointId, ReceiverState)> {
        let loaded = now(self.inside.model.load()).unwrap_or_default();
        let of = loaded.receivers.into_iter();
        of.map(|(_, endpoint, receiver)| (endpoint, receiver))
            .collect()
    }
}

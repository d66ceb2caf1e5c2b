//! What became of rotations that their bulk does not wait for.
//!
//! An item that stalled, or whose bulk was paused, stopped, cancelled or completed meanwhile, still says in
//! the end what its rotation became. One look of the sweep reads one block of items of one bulk, in turn, so
//! that it costs the same whatever there is; a bulk that is over and has no such item is not looked at again.
//! Which ones are over and have some is found out anew after a start.

use std::collections::BTreeSet;

use hookturn_core::bulk::{Bulk, BulkState, ItemKind, Manner};
use hookturn_core::id::{BulkId, WorkspaceId};
use hookturn_core::limits;
use hookturn_core::store::{BulkItemQuery, Page};

use super::super::{Service, ServiceError};

/// Items that are looked at in one step.
const BLOCK: usize = 200;

type Name = (WorkspaceId, BulkId);

/// Where the look goes on.
#[derive(Debug, Default)]
pub(in super::super) struct Following {
    /// Whether those were found that were over when the server started.
    found: bool,
    /// Bulks that were open when it was looked last.
    open: BTreeSet<Name>,
    /// Bulks that are over and may have items that are not.
    over: BTreeSet<Name>,
    /// The block that is next, if it is not the first of a bulk, and the bulk that was looked at last.
    at: Option<Place>,
}

/// A block of items, by its beginning.
#[derive(Debug, Clone, Copy)]
struct Place {
    bulk: Name,
    kind: ItemKind,
    from: u32,
    /// Whether this round found an item of that bulk.
    seen: bool,
}

impl Following {
    /// The next block: the rest of a bulk that was begun, else the first of the bulk whose turn is next.
    fn turn(&self) -> Option<Place> {
        let known = |bulk: &Name| self.open.contains(bulk) || self.over.contains(bulk);
        if let Some(place) = self.at
            && known(&place.bulk)
            && (place.from > 0 || place.kind == ItemKind::Running)
        {
            return Some(place);
        }
        let all: BTreeSet<&Name> = self.open.union(&self.over).collect();
        let later = self.at.and_then(|last| {
            let mut later = all.iter().filter(|name| ***name > last.bulk);
            later.next().copied()
        });
        let bulk = *later.or_else(|| all.first().copied())?;
        Some(Place {
            bulk,
            kind: ItemKind::Stalled,
            from: 0,
            seen: false,
        })
    }
}

impl Service {
    /// Another node takes the steps of bulk rotations: what is known of those that are over is found out anew when
    /// this one does.
    pub async fn leave_bulks(&self) {
        *self.bulks_followed.lock().await = Following::default();
    }

    /// Looks at the next block of items that are stalled, or run in a bulk that does not, and writes down
    /// what their rotations became.
    pub(super) async fn follow_items(&self) -> Result<(), ServiceError> {
        let mut following = self.bulks_followed.lock().await;
        if !following.found {
            following.over = self.bulks_over().await?;
            following.found = true;
        }
        let open = self.live.open_bulks();
        let waiting = open.iter().filter(|bulk| waits(bulk));
        let open: BTreeSet<Name> = waiting.map(|bulk| (bulk.workspace, bulk.id)).collect();
        let ended: Vec<Name> = following.open.difference(&open).copied().collect();
        following.over.extend(ended);
        following.open = open;
        following.at = match following.turn() {
            Some(place) => Some(self.follow_block(place, &mut following.over).await?),
            None => None,
        };
        Ok(())
    }

    /// Settles the items of a block. Returns where to go on: the first block of this bulk when it is done
    /// with it.
    async fn follow_block(
        &self,
        place: Place,
        over: &mut BTreeSet<Name>,
    ) -> Result<Place, ServiceError> {
        let _turn = self.bulk_turn.lock().await;
        let (workspace, id) = place.bulk;
        let ended = Place {
            kind: ItemKind::Stalled,
            from: 0,
            ..place
        };
        let Some(bulk) = self.store.bulk(workspace, id).await? else {
            over.remove(&place.bulk);
            return Ok(ended);
        };
        let items = self.store.bulk_items(BulkItemQuery {
            workspace,
            bulk: id,
            from: place.from,
            until: u32::MAX,
            kind: Some(place.kind),
            limit: BLOCK,
        });
        let items = items.await?;
        let seen = place.seen || !items.is_empty();
        let next = items.last().map(|last| last.position.saturating_add(1));
        let next = next.filter(|_| items.len() == BLOCK);
        let settled = self.settled(&bulk, items).await?;
        if !settled.is_empty() {
            self.write_step(&bulk, settled, Vec::new()).await?;
        }
        Ok(match (next, place.kind) {
            (Some(from), _) => Place {
                from,
                seen,
                ..place
            },
            // Those of a bulk that runs are waited for by its own steps.
            (None, ItemKind::Stalled) if bulk.state != BulkState::Running => Place {
                kind: ItemKind::Running,
                from: 0,
                seen,
                ..place
            },
            (None, _) => {
                if !bulk.state.is_open() && !seen {
                    over.remove(&place.bulk);
                }
                ended
            }
        })
    }

    /// Every bulk that is over and waited for proofs.
    async fn bulks_over(&self) -> Result<BTreeSet<Name>, ServiceError> {
        let mut over = BTreeSet::new();
        for workspace in self.live.workspaces() {
            let mut before = None;
            loop {
                let limit = limits::PAGE_MAX;
                let page = self
                    .store
                    .bulks(workspace.id, Page { before, limit })
                    .await?;
                before = page.last().map(|bulk| bulk.id);
                let full = page.len() == limit;
                let ended = page
                    .into_iter()
                    .filter(|bulk| waits(bulk) && !bulk.state.is_open());
                over.extend(ended.map(|bulk| (bulk.workspace, bulk.id)));
                if !full {
                    break;
                }
            }
        }
        Ok(over)
    }
}

/// Whether rotations of this bulk are waited for.
const fn waits(bulk: &Bulk) -> bool {
    matches!(bulk.manner, Manner::Proven { .. })
}

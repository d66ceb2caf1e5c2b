//! Bulk rotations with their items, and the marks of secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hookturn_core::bulk::{Bulk, BulkItem, ItemCounts};
use hookturn_core::id::{BulkId, SecretId, WorkspaceId};
use hookturn_core::store::{BulkItemQuery, MarkedSecret, Page, SecretMark};
use hookturn_core::time::Timestamp;

use super::Outcome;
use super::configuration::{conflict, next_version};

/// Every bulk rotation, and the items of each by their positions.
#[derive(Debug, Clone, Default)]
pub(super) struct Bulks {
    bulks: BTreeMap<BulkId, Bulk>,
    items: BTreeMap<(BulkId, u32), BulkItem>,
}

impl Bulks {
    pub(super) fn put(&mut self, bulk: &Bulk) -> Outcome<()> {
        let known = self.bulks.get(&bulk.id).map(|known| known.version);
        next_version(known, bulk.version, "bulk rotation", &bulk.id)?;
        self.bulks.insert(bulk.id, bulk.clone());
        Ok(())
    }

    pub(super) fn put_item(&mut self, item: &BulkItem) -> Outcome<()> {
        let place = (item.bulk, item.position);
        let known = self.items.get(&place).map(|known| known.version);
        next_version(known, item.version, "an item of bulk rotation", &item.bulk)?;
        self.items.insert(place, item.clone());
        Ok(())
    }

    pub(super) fn open(&self) -> Vec<Bulk> {
        let all = self.bulks.values();
        all.filter(|bulk| bulk.state.is_open()).cloned().collect()
    }

    pub(super) fn get(&self, workspace: WorkspaceId, id: BulkId) -> Option<Bulk> {
        let found = self.bulks.get(&id);
        found.filter(|bulk| bulk.workspace == workspace).cloned()
    }

    pub(super) fn list(&self, workspace: WorkspaceId, page: Page<BulkId>) -> Vec<Bulk> {
        let newest_first = self.bulks.values().rev();
        newest_first
            .filter(|bulk| bulk.workspace == workspace)
            .filter(|bulk| page.before.is_none_or(|before| bulk.id < before))
            .take(page.limit)
            .cloned()
            .collect()
    }

    /// Removes at most `limit` rows of bulk rotations that were over before that time, and of those laid out
    /// before it that never began, items first.
    pub(super) fn prune(&mut self, before: Timestamp, limit: usize) -> usize {
        let is_past = |bulk: &Bulk| bulk.state.over_at().is_some_and(|at| at < before);
        let past = self.bulks.values().filter(|bulk| is_past(bulk));
        let past = past.map(|bulk| bulk.id);
        let made_before = BulkId::first_at(before);
        let laid_out = self.items.keys().map(|(bulk, _)| *bulk);
        let laid_out = laid_out.filter(|id| *id < made_before && !self.bulks.contains_key(id));
        let gone: BTreeSet<_> = past.chain(laid_out).collect();
        let mut removed = 0;
        for bulk in gone {
            let items = self.items.range((bulk, 0)..=(bulk, u32::MAX));
            let items: Vec<_> = items.map(|(place, _)| *place).collect();
            for place in items.into_iter().take(limit - removed) {
                self.items.remove(&place);
                removed += 1;
            }
            if removed == limit {
                break;
            }
            removed += usize::from(self.bulks.remove(&bulk).is_some());
        }
        removed
    }

    fn within(
        &self,
        workspace: WorkspaceId,
        bulk: BulkId,
        from: u32,
        until: u32,
    ) -> impl Iterator<Item = &BulkItem> {
        // A range that ends before it begins is empty, and no range of a map.
        let places = (bulk, from)..(bulk, until.max(from));
        let items = self.items.range(places).map(|(_, item)| item);
        items.filter(move |item| item.workspace == workspace)
    }

    pub(super) fn items(&self, query: &BulkItemQuery) -> Vec<BulkItem> {
        self.within(query.workspace, query.bulk, query.from, query.until)
            .filter(|item| query.kind.is_none_or(|kind| item.state.kind() == kind))
            .take(query.limit)
            .cloned()
            .collect()
    }

    pub(super) fn counts(
        &self,
        workspace: WorkspaceId,
        bulk: BulkId,
        from: u32,
        until: u32,
    ) -> ItemCounts {
        let mut counts = ItemCounts::default();
        for item in self.within(workspace, bulk, from, until) {
            *counts.of(item.state.kind()) += 1;
        }
        counts
    }
}

/// The marks, and the sealed key that they are made with.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    key: Option<Arc<[u8]>>,
    marks: BTreeMap<SecretId, MarkedSecret>,
}

impl Marks {
    pub(super) fn key(&self) -> Option<Arc<[u8]>> {
        self.key.clone()
    }

    pub(super) fn put_key(&mut self, sealed: &Arc<[u8]>, old: Option<&Arc<[u8]>>) -> Outcome<()> {
        if self.key.as_ref() != old {
            return Err(conflict("the key of the", &"marks"));
        }
        self.key = Some(Arc::clone(sealed));
        Ok(())
    }

    /// Keeps a mark. `has_value` says whether the secret still has one: what was erased before it was
    /// marked stays unmarked.
    pub(super) fn put(&mut self, marked: &MarkedSecret, has_value: bool) {
        if has_value || self.marks.contains_key(&marked.secret) {
            self.marks.insert(marked.secret, *marked);
        }
    }

    pub(super) fn is_marked(&self, secret: SecretId) -> bool {
        self.marks.contains_key(&secret)
    }

    pub(super) fn find(&self, marks: &[SecretMark]) -> Vec<MarkedSecret> {
        let of = |mark: &SecretMark| {
            let mark = *mark;
            self.marks.values().filter(move |one| one.mark == mark)
        };
        marks.iter().flat_map(of).copied().collect()
    }
}

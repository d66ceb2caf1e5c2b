//! Pages of lists, newest first.

use hookturn_core::limits;
use hookturn_core::store::Page;

/// One page and whether more follow. The cursor of the next page is the last item's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// The items, newest first unless the method says otherwise.
    pub items: Vec<T>,
    /// Whether more follow.
    pub has_more: bool,
}

impl<T> Listed<T> {
    /// Cuts what was fetched with one item more than asked for.
    pub(super) fn cut(mut items: Vec<T>, limit: usize) -> Self {
        let has_more = items.len() > limit;
        items.truncate(limit);
        Self { items, has_more }
    }

    /// The page of a list that is in memory: newest first, each item's place by `place`.
    pub(super) fn of<Id: PartialOrd>(
        items: impl IntoIterator<Item = T>,
        page: &Page<Id>,
        place: impl Fn(&T) -> Id,
    ) -> Self {
        let limit = bounded(page.limit);
        let rest = items.into_iter().filter(|item| {
            page.before
                .as_ref()
                .is_none_or(|before| place(item) < *before)
        });
        Self::cut(rest.take(limit + 1).collect(), limit)
    }

    /// The same page of something else.
    pub(super) fn map<U>(self, convert: impl FnMut(T) -> U) -> Listed<U> {
        Listed {
            items: self.items.into_iter().map(convert).collect(),
            has_more: self.has_more,
        }
    }
}

/// A page size within its bounds.
pub(super) fn bounded(limit: usize) -> usize {
    limit.clamp(1, limits::PAGE_MAX)
}

/// The page to fetch in order to know whether more follow, and the size to cut it to.
pub(super) fn fetch<Id>(page: Page<Id>) -> (Page<Id>, usize) {
    let limit = bounded(page.limit);
    let wider = Page {
        before: page.before,
        limit: limit + 1,
    };
    (wider, limit)
}

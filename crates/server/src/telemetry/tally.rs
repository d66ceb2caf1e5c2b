//! What came of deliveries lately, for each workspace: counted in memory, for the first page of the
//! dashboard.
//!
//! Counting costs a delivery well under a microsecond and reading costs what is shown, however many
//! deliveries are stored. Whoever shows the figures also says since when they were counted.
//!
//! They outlive a restart: what changed is kept in the store about once a minute, one small row for each
//! workspace ([`Tally::changed`], [`Tally::kept`]), and read back after the server is ready
//! ([`Tally::restore`]), so that no start waits for it. A server that is killed forgets what was counted since
//! the last time. Where several nodes share a store each counts its own attempts, and a start finds what the
//! node that wrote last had counted.
//!
//! Bounded: at most [`WORKSPACES`] workspaces, each with at most twice the cells of three spans. When
//! there are more, one that was silent for a while gives way; while all of them are busy, a further one
//! is not counted, and its figures say so.
//!
//! Not promised: exactness of times. How long attempts took is known by the rounded bound above it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use hookturn_core::delivery::Next;
use hookturn_core::id::WorkspaceId;
use hookturn_core::store::KeptFigures;
use hookturn_core::time::{HOUR, MINUTE, Millis, Timestamp};
use serde::{Deserialize, Serialize};

/// Workspaces that are counted at once.
pub const WORKSPACES: usize = 1_000;
/// How long figures go back, and so how long they are worth keeping.
pub const HORIZON: Millis = Span::Week.step() * (Span::Week.cells() as Millis);
/// The form in which figures are kept; what is of another one is left alone.
const FORM: u32 = 1;
/// How long a workspace must have been silent before another one takes its place.
const SILENT: Millis = MINUTE;

/// Bounds of how long attempts took, in milliseconds; what is longer than the last is counted with it.
const BOUNDS: [u32; 51] = [
    1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300, 400,
    500, 600, 800, 1_000, 1_200, 1_500, 2_000, 2_500, 3_000, 4_000, 5_000, 6_000, 8_000, 10_000,
    12_000, 15_000, 20_000, 25_000, 30_000, 40_000, 50_000, 60_000, 70_000, 80_000, 90_000,
    100_000, 120_000,
];

/// How far back figures go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// 60 minutes.
    Hour,
    /// 96 quarters of an hour.
    Day,
    /// 84 times two hours.
    Week,
}

impl Span {
    /// Each of them, shortest first.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// How long one cell is.
    pub const fn step(self) -> Millis {
        match self {
            Self::Hour => MINUTE,
            Self::Day => 15 * MINUTE,
            Self::Week => 2 * HOUR,
        }
    }

    /// How many cells it has.
    pub const fn cells(self) -> u16 {
        match self {
            Self::Hour => 60,
            Self::Day => 96,
            Self::Week => 84,
        }
    }

    fn cell_of(self, at: Timestamp) -> i64 {
        at.as_millis().div_euclid(self.step().cast_signed())
    }
}

/// What followed the attempts of deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// They were accepted.
    pub delivered: u64,
    /// They are tried again.
    pub retried: u64,
    /// They were given up.
    pub exhausted: u64,
}

impl Counts {
    /// All of them.
    pub const fn all(self) -> u64 {
        self.delivered + self.retried + self.exhausted
    }

    fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.retried += other.retried;
        self.exhausted += other.exhausted;
    }
}

/// What is known of a span.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Since when it is counted; none when it is not.
    pub since: Option<Timestamp>,
    /// Each cell of the span by its beginning, oldest first, those without anything too.
    pub cells: Vec<(Timestamp, Counts)>,
    /// All cells together.
    pub sum: Counts,
    /// 95 of 100 attempts took at most so many milliseconds; none without attempts.
    pub p95_millis: Option<u32>,
    /// Whether what was counted before the server started is not read yet.
    pub is_incomplete: bool,
}

/// One cell.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Cell {
    counts: Counts,
    /// Attempts by the position of their bound in [`BOUNDS`]; only those that there are.
    took: Vec<(u8, u64)>,
}

impl Cell {
    fn take(&mut self, bound: u8, attempts: u64) {
        match self.took.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, count)) => *count += attempts,
            None => self.took.push((bound, attempts)),
        }
    }

    fn add(&mut self, other: &Self) {
        self.counts.add(other.counts);
        for (bound, attempts) in &other.took {
            self.take(*bound, *attempts);
        }
    }
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    since: Timestamp,
    last: Timestamp,
    /// By position in [`Span::ALL`].
    spans: [BTreeMap<i64, Cell>; Span::ALL.len()],
    /// Whether something was counted that is not kept.
    #[serde(skip)]
    is_fresh: bool,
}

impl Counted {
    /// Adds what was counted at another time.
    fn add(&mut self, other: &Self) {
        self.since = self.since.min(other.since);
        self.last = self.last.max(other.last);
        for ((span, cells), others) in Span::ALL.into_iter().zip(&mut self.spans).zip(&other.spans)
        {
            for (number, cell) in others {
                cells.entry(*number).or_default().add(cell);
            }
            trim(cells, span);
        }
    }
}

/// What was counted before the clock was set back is dropped when it is in the way.
fn trim(cells: &mut BTreeMap<i64, Cell>, span: Span) {
    while cells.len() > 2 * usize::from(span.cells()) {
        cells.pop_first();
    }
}

/// A workspace's figures as they are kept.
#[derive(Serialize, Deserialize)]
struct Record {
    form: u32,
    /// The bounds that the positions are of.
    bounds: Vec<u32>,
    counted: Counted,
}

#[derive(Debug, Default)]
struct Kept {
    since: Option<Timestamp>,
    /// Whether what was kept is still to be read.
    is_restoring: bool,
    has_dropped: bool,
    of: HashMap<WorkspaceId, Counted>,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Kept>);

impl Tally {
    fn with<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        // Counts only grow; a panic elsewhere leaves none of them half written.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counting begins.
    pub fn begin(&self, now: Timestamp) {
        self.with(|kept| {
            kept.since.get_or_insert(now);
        });
    }

    /// Counting begins, and what was kept by an earlier run is yet to be restored.
    pub fn begin_again(&self, now: Timestamp) {
        self.begin(now);
        self.with(|kept| kept.is_restoring = true);
    }

    /// The workspaces of which something was counted since they were last kept.
    pub fn changed(&self) -> Vec<WorkspaceId> {
        self.with(|kept| {
            let fresh = kept.of.iter().filter(|(_, counted)| counted.is_fresh);
            fresh.map(|(workspace, _)| *workspace).collect()
        })
    }

    /// What is to be kept of a workspace. From here on it counts as kept: whoever fails to keep it says so by
    /// [`Tally::not_kept`]. Nothing while what was kept before is not restored: it would be lost.
    pub fn kept(&self, workspace: WorkspaceId) -> Option<KeptFigures> {
        let counted = self.with(|kept| {
            let is_restoring = kept.is_restoring;
            let counted = kept.of.get_mut(&workspace).filter(|_| !is_restoring)?;
            counted.is_fresh = false;
            Some(counted.clone())
        })?;
        // Apart from the lock: whoever counts does not wait for it.
        let at = counted.last;
        let record = Record {
            form: FORM,
            bounds: BOUNDS.to_vec(),
            counted,
        };
        let counted = serde_json::to_vec(&record).ok()?;
        Some(KeptFigures {
            workspace,
            at,
            counted,
        })
    }

    /// What was to be kept of a workspace could not be.
    pub fn not_kept(&self, workspace: WorkspaceId) {
        self.with(|kept| {
            if let Some(counted) = kept.of.get_mut(&workspace) {
                counted.is_fresh = true;
            }
        });
    }

    /// Adds what was kept to what was counted since the start. What cannot be read is left out, and how many
    /// that were is answered.
    pub fn restore(&self, found: &[KeptFigures], now: Timestamp) -> usize {
        let mut left_out = 0;
        for one in found {
            let read = serde_json::from_slice::<Record>(&one.counted).ok();
            let read = read.filter(|record| record.form == FORM && record.bounds == BOUNDS);
            let Some(Record { counted, .. }) = read else {
                left_out += 1;
                continue;
            };
            self.with(|kept| {
                kept.since = Some(
                    kept.since
                        .map_or(counted.since, |since| since.min(counted.since)),
                );
                if let Some(place) = kept.place_of(one.workspace, now) {
                    let was_fresh = place.is_fresh;
                    if place.last == Timestamp::default() {
                        (place.since, place.last) = (counted.since, counted.last);
                    }
                    place.add(&counted);
                    place.is_fresh = was_fresh;
                }
            });
        }
        self.restored();
        left_out
    }

    /// There is nothing more to restore, or it could not be read.
    pub fn restored(&self) {
        self.with(|kept| kept.is_restoring = false);
    }

    /// An attempt that took so long ended, and this follows for each of its deliveries.
    pub(super) fn count(
        &self,
        workspace: WorkspaceId,
        next: &Next,
        deliveries: usize,
        took_millis: u32,
        now: Timestamp,
    ) {
        let count = deliveries as u64;
        let mut counts = Counts::default();
        match next {
            Next::Delivered => counts.delivered = count,
            Next::RetryAt(_) => counts.retried = count,
            Next::Exhausted(_) => counts.exhausted = count,
        }
        let bound = BOUNDS.partition_point(|bound| *bound < took_millis);
        let bound = u8::try_from(bound.min(BOUNDS.len() - 1)).unwrap_or(u8::MAX);
        self.with(|kept| {
            let Some(counted) = kept.place_of(workspace, now) else {
                return;
            };
            counted.last = now;
            counted.is_fresh = true;
            for (span, cells) in Span::ALL.into_iter().zip(&mut counted.spans) {
                let cell = cells.entry(span.cell_of(now)).or_default();
                cell.counts.add(counts);
                cell.take(bound, 1);
                trim(cells, span);
            }
        });
    }

    /// What is known of a workspace.
    pub fn figures(&self, workspace: WorkspaceId, span: Span, now: Timestamp) -> Figures {
        let last = span.cell_of(now);
        let first = last - i64::from(span.cells()) + 1;
        let begins = |cell: i64| Timestamp::from_millis(cell * span.step().cast_signed());
        self.with(|kept| {
            let known = kept.of.get(&workspace);
            let full = kept.of.len() >= WORKSPACES;
            let mut figures = Figures {
                since: match known {
                    Some(counted) => Some(counted.since),
                    None if full => None,
                    None if kept.has_dropped => Some(now),
                    None => kept.since,
                },
                is_incomplete: kept.is_restoring,
                ..Figures::default()
            };
            let position = Span::ALL.iter().position(|one| *one == span).unwrap_or(0);
            let cells = known.map(|counted| &counted.spans[position]);
            let mut took = [0; BOUNDS.len()];
            for number in first..=last {
                let cell = cells.and_then(|cells| cells.get(&number));
                let counts = cell.map(|cell| cell.counts).unwrap_or_default();
                for (bound, count) in cell.map_or(&[][..], |cell| &cell.took) {
                    took[usize::from(*bound)] += count;
                }
                figures.sum.add(counts);
                figures.cells.push((begins(number), counts));
            }
            figures.p95_millis = percentile_95(&took);
            figures
        })
    }
}

impl Kept {
    /// Where a workspace is counted, if there is room.
    fn place_of(&mut self, workspace: WorkspaceId, now: Timestamp) -> Option<&mut Counted> {
        if !self.of.contains_key(&workspace) && self.of.len() >= WORKSPACES {
            let silent = self.of.iter().min_by_key(|(_, counted)| counted.last);
            let (silent, _) = silent.filter(|(_, one)| now.since(one.last) >= SILENT)?;
            let silent = *silent;
            self.of.remove(&silent);
            self.has_dropped = true;
        }
        let since = self.since.filter(|_| !self.has_dropped);
        let counted = self.of.entry(workspace).or_insert_with(|| Counted {
            since: since.unwrap_or(now),
            ..Counted::default()
        });
        Some(counted)
    }
}

/// The lowest bound that at least 95 of 100 do not exceed.
fn percentile_95(took: &[u64; BOUNDS.len()]) -> Option<u32> {
    let all: u64 = took.iter().sum();
    let enough = (all * 95).div_ceil(100);
    let mut seen = 0;
    let within = took.iter().zip(BOUNDS).find(|(count, _)| {
        seen += **count;
        seen >= enough
    });
    within.filter(|_| all > 0).map(|(_, bound)| bound)
}

#[cfg(test)]
mod tests {
    use hookturn_core::delivery::ExhaustedReason;
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_784_505_600_000);

    fn workspace(number: u128) -> WorkspaceId {
        WorkspaceId::from_bytes(number.to_be_bytes())
    }

    #[test]
    fn what_was_counted_is_in_its_cell_and_leaves_with_its_span() {
        let tally = Tally::default();
        tally.begin(NOW.before(HOUR));
        tally.count(workspace(1), &Next::Delivered, 3, 7, NOW.before(MINUTE));
        tally.count(workspace(1), &Next::RetryAt(NOW), 1, 900, NOW);
        let given_up = Next::Exhausted(ExhaustedReason::AttemptsUsed);
        tally.count(workspace(1), &given_up, 1, 900, NOW);
        tally.count(workspace(2), &Next::Delivered, 1, 1, NOW);
        let hour = tally.figures(workspace(1), Span::Hour, NOW);
        assert_eq!(hour.since, Some(NOW.before(HOUR)));
        assert_eq!(hour.cells.len(), 60);
        assert_eq!(hour.cells[59].0, NOW);
        let counts = Counts {
            delivered: 0,
            retried: 1,
            exhausted: 1,
        };
        assert_eq!(hour.cells[59].1, counts);
        assert_eq!(hour.cells[58].1.delivered, 3);
        assert_eq!(hour.sum.all(), 5);
        assert_eq!(hour.p95_millis, Some(1_000));
        let later = NOW.after(HOUR);
        assert_eq!(tally.figures(workspace(1), Span::Hour, later).sum.all(), 0);
        assert_eq!(
            tally.figures(workspace(1), Span::Hour, later).p95_millis,
            None
        );
        assert_eq!(tally.figures(workspace(1), Span::Day, later).sum.all(), 5);
        assert_eq!(tally.figures(workspace(1), Span::Week, later).sum.all(), 5);
    }

    #[test]
    fn there_is_room_for_so_many_and_the_figures_say_since_when() {
        let tally = Tally::default();
        tally.begin(NOW);
        let rooms = WORKSPACES as u128;
        for number in 0..rooms {
            tally.count(workspace(number), &Next::Delivered, 1, 1, NOW);
        }
        tally.count(workspace(rooms), &Next::Delivered, 1, 1, NOW);
        let outside = tally.figures(workspace(rooms), Span::Hour, NOW);
        assert_eq!((outside.since, outside.sum.all()), (None, 0));
        let later = NOW.after(SILENT);
        tally.count(workspace(rooms), &Next::Delivered, 1, 1, later);
        let inside = tally.figures(workspace(rooms), Span::Hour, later);
        assert_eq!((inside.since, inside.sum.all()), (Some(later), 1));
    }

    #[test]
    fn a_clock_that_jumps_leaves_the_memory_bounded() {
        let tally = Tally::default();
        for hour in 0..1_000 {
            let at = NOW.before(hour * HOUR);
            tally.count(workspace(1), &Next::Delivered, 1, 1, at);
        }
        let kept = tally.with(|kept| {
            let counted = &kept.of[&workspace(1)];
            counted.spans.iter().map(BTreeMap::len).max()
        });
        assert!(kept <= Some(2 * 96), "{kept:?}");
    }

    #[test]
    fn what_was_kept_is_added_to_what_was_counted_since_the_start() {
        let before = Tally::default();
        before.begin(NOW.before(HOUR));
        before.count(workspace(1), &Next::Delivered, 3, 7, NOW.before(MINUTE));
        before.count(workspace(2), &Next::RetryAt(NOW), 1, 900, NOW);
        assert_eq!(before.changed().len(), 2);
        let kept: Vec<_> = [1, 2].map(|id| before.kept(workspace(id)).unwrap()).into();
        assert_eq!(before.changed(), []);
        before.not_kept(workspace(2));
        assert_eq!(before.changed(), [workspace(2)]);

        let after = Tally::default();
        after.begin_again(NOW.after(MINUTE));
        after.count(workspace(1), &Next::Delivered, 2, 7, NOW.after(MINUTE));
        let begun = after.figures(workspace(1), Span::Hour, NOW.after(MINUTE));
        assert!(begun.is_incomplete);
        assert_eq!(
            (begun.sum.delivered, begun.since),
            (2, Some(NOW.after(MINUTE)))
        );
        assert_eq!(
            after.kept(workspace(1)),
            None,
            "it would replace what is not read yet"
        );
        let broken = KeptFigures {
            counted: b"{}".to_vec(),
            ..kept[0].clone()
        };
        let found = [kept[0].clone(), kept[1].clone(), broken];
        assert_eq!(after.restore(&found, NOW.after(MINUTE)), 1);
        for span in Span::ALL {
            let whole = after.figures(workspace(1), span, NOW.after(MINUTE));
            assert!(!whole.is_incomplete);
            assert_eq!(
                (whole.sum.delivered, whole.since),
                (5, Some(NOW.before(HOUR)))
            );
            assert_eq!(whole.p95_millis, Some(8));
            assert_eq!(
                after
                    .figures(workspace(2), span, NOW.after(MINUTE))
                    .sum
                    .retried,
                1
            );
        }
        assert_eq!(after.changed(), [workspace(1)]);
        let again = after.kept(workspace(1)).unwrap();
        let third = Tally::default();
        third.begin_again(NOW.after(HOUR));
        third.restore(&[again], NOW.after(HOUR));
        let day = third.figures(workspace(1), Span::Day, NOW.after(HOUR));
        assert_eq!(day.sum.delivered, 5);
    }

    #[test]
    fn a_busy_week_of_a_workspace_is_kept_in_a_small_row() {
        let tally = Tally::default();
        tally.begin(NOW);
        for minute in 0..7 * 24 * 60 {
            for took in [3, 40, 500] {
                let at = NOW.after(minute * MINUTE);
                tally.count(workspace(1), &Next::Delivered, 1, took, at);
            }
        }
        let bytes = tally.kept(workspace(1)).unwrap().counted.len();
        assert!(bytes < 64 * 1024, "{bytes}");
    }

    proptest! {
        #[test]
        fn the_percentile_is_the_lowest_bound_that_is_enough(
            millis in prop::collection::vec(0_u32..130_000, 1..200)
        ) {
            let tally = Tally::default();
            for took in &millis {
                tally.count(workspace(1), &Next::Delivered, 1, *took, NOW);
            }
            let said = tally.figures(workspace(1), Span::Hour, NOW).p95_millis.unwrap();
            let within = |bound: u32| millis.iter().filter(|took| **took <= bound).count();
            let last = *BOUNDS.last().unwrap();
            prop_assert!(said == last || within(said) * 100 >= millis.len() * 95);
            let below = BOUNDS.iter().rev().find(|bound| **bound < said);
            prop_assert!(below.is_none_or(|bound| within(*bound) * 100 < millis.len() * 95));
        }
    }
}

//! Bars over time, drawn as SVG without a library: one path for each of delivered, retried and
//! exhausted, stacked. The same numbers stand in a table beside it, so that the picture says nothing
//! that text does not.

use std::fmt::Write as _;

use hookturn_core::time::{Millis, Timestamp};

use super::super::super::text::When;
use crate::telemetry::tally::Counts;

/// Units of the drawing: the width of a bar with its gap, that of the bar, and the height of the highest.
const STEP: usize = 10;
const BAR: usize = 8;
const HEIGHT: u64 = 100;

/// A picture and its table.
#[derive(Debug)]
pub struct Chart {
    /// Width of the drawing.
    pub width: usize,
    /// The outlines of the bars: class and path. Empty when there is nothing to draw.
    pub paths: Vec<(&'static str, String)>,
    /// The most that a bar stands for.
    pub most: u64,
    /// When the first bar begins.
    pub first: When,
    /// How long one bar is, in minutes.
    pub minutes: u64,
    /// The bars that stand for anything, newest first.
    pub rows: Vec<(When, Counts)>,
}

impl Chart {
    pub(super) fn new(cells: &[(Timestamp, Counts)], step: Millis, now: Timestamp) -> Self {
        let most = cells.iter().map(|(_, counts)| counts.all()).max();
        let most = most.unwrap_or(0);
        let mut outlines = [String::new(), String::new(), String::new()];
        for (place, (_, counts)) in cells.iter().enumerate() {
            let mut below = 0;
            let parts = [counts.delivered, counts.retried, counts.exhausted];
            for (outline, part) in outlines.iter_mut().zip(parts) {
                bar(outline, place * STEP, (below, below + part), most);
                below += part;
            }
        }
        let paths = ["delivered", "retried", "exhausted"].into_iter();
        let paths = paths.zip(outlines).filter(|(_, path)| !path.is_empty());
        let rows = cells.iter().rev().filter(|(_, counts)| counts.all() > 0);
        Self {
            width: cells.len() * STEP,
            paths: paths.collect(),
            most,
            first: When::new(cells.first().map_or(now, |(at, _)| *at), now),
            minutes: step / 60_000,
            rows: rows
                .map(|(at, counts)| (When::new(*at, now), *counts))
                .collect(),
        }
    }
}

/// A bar from one count up to another, where `most` is the whole height. What there is at all is seen.
fn bar(outline: &mut String, left: usize, (from, to): (u64, u64), most: u64) {
    if from == to {
        return;
    }
    let height = |count: u64| {
        let scaled = u128::from(count) * u128::from(HEIGHT) / u128::from(most.max(1));
        u64::try_from(scaled).unwrap_or(HEIGHT)
    };
    let (bottom, top) = (height(from), height(to));
    let top = top.max(bottom + 1).min(HEIGHT);
    let bottom = bottom.min(top.saturating_sub(1));
    // Writing to a text cannot fail.
    let _ = write!(
        outline,
        "M{left} {}V{}h{BAR}V{}z",
        HEIGHT - bottom,
        HEIGHT - top,
        HEIGHT - bottom
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(delivered: u64, retried: u64, exhausted: u64) -> Counts {
        Counts {
            delivered,
            retried,
            exhausted,
        }
    }

    #[test]
    fn bars_stand_on_each_other_and_the_smallest_is_seen() {
        let now = Timestamp::from_millis(120_000);
        let cells = [
            (Timestamp::from_millis(0), counts(50, 25, 25)),
            (Timestamp::from_millis(60_000), counts(0, 0, 0)),
            (now, counts(1_000_000, 0, 1)),
        ];
        let chart = Chart::new(&cells[..1], 60_000, now);
        let path = |name| {
            &chart
                .paths
                .iter()
                .find(|(known, _)| *known == name)
                .unwrap()
                .1
        };
        assert_eq!(path("delivered"), "M0 100V50h8V100z");
        assert_eq!(path("retried"), "M0 50V25h8V50z");
        assert_eq!(path("exhausted"), "M0 25V0h8V25z");
        let chart = Chart::new(&cells, 60_000, now);
        assert_eq!((chart.most, chart.rows.len()), (1_000_001, 2));
        let exhausted = &chart.paths.iter().find(|(name, _)| *name == "exhausted");
        assert_eq!(exhausted.unwrap().1, "M0 100V99h8V100zM20 1V0h8V1z");
        assert!(Chart::new(&[], 60_000, now).paths.is_empty());
    }
}

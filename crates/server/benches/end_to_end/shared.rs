//! What is asked of a store that several nodes share.

use crate::number::float;
use crate::report::{Row, Starts, Target, at_least, at_most};
use crate::scenario::{BATCH, EMPTY, FENCE, FENCE_SILENT, ONE_NODE, SINGLE, STORED, TWO_NODES};

/// The targets of a store on PostgreSQL.
pub(crate) fn targets(starts: Option<&Starts>, rows: &[Row]) -> Vec<Target> {
    let row = |name: &str| rows.iter().find(|row| row.scenario == name);
    let rate = |name: &str| row(name)?.deliveries_per_second;
    let ratio = |one: &str, other: &str| Some(rate(one)? / rate(other)?);
    let told = |name: &str| Some(row(name)?.fence?.told_p99_ms);
    let answer = |name: &str| Some(row(name)?.fence?.answer_p99_ms);
    let single = rows.iter().filter(|row| row.scenario != BATCH);
    let peaks = single.filter_map(|row| row.peak_memory_mb);
    let stored = row(STORED).and_then(|row| row.stored);
    let stored = stored.map_or_else(
        || "with many stored messages / empty".to_owned(),
        |stored| {
            format!(
                "with {:.1} million stored messages / empty",
                float(stored.messages) / 1e6
            )
        },
    );
    vec![
        at_least(
            "one node, one message a request",
            row(SINGLE).and_then(Row::percent),
            5.0,
            "% of ceiling",
        ),
        at_least("two nodes / one node", ratio(TWO_NODES, ONE_NODE), 1.0, "x"),
        at_most(
            "fence p99, three nodes that answer",
            told(FENCE),
            100.0,
            "ms",
        ),
        at_most("the whole answer, p99", answer(FENCE), 100.0, "ms"),
        at_most(
            "fence p99, one of three is silent",
            told(FENCE_SILENT),
            2_500.0,
            "ms",
        ),
        at_most("the whole answer, p99", answer(FENCE_SILENT), 2_500.0, "ms"),
        at_most(
            "idle memory of a node",
            starts.and_then(|starts| starts.idle_memory_mb),
            80.0,
            "MB",
        ),
        at_most(
            "peak memory of a node, one message a request",
            peaks.reduce(f64::max),
            80.0,
            "MB",
        ),
        at_least(&stored, ratio(STORED, EMPTY), 0.9, "x"),
    ]
}

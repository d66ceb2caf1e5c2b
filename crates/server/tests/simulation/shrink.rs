//! From a failing scenario to a short one that fails the same way: first in halves, then in ever smaller
//! pieces, at last one by one, until nothing can be left out.

use crate::mutant::Mutant;
use crate::operation::{Operation, Scenario};
use crate::run::run;

/// Runs that a shrink may take.
const RUNS_MAX: usize = 2_000;

/// The shortest list found of which the first broken guarantee is still `guarantee`.
pub(crate) fn shrink(scenario: &Scenario, mutant: Mutant, guarantee: &str) -> Scenario {
    let mut runs = 0;
    let mut fails = |operations: &[Operation]| {
        runs += 1;
        let shorter = Scenario {
            operations: operations.to_vec(),
            ..scenario.clone()
        };
        let broken = run(&shorter, mutant).broken;
        runs <= RUNS_MAX && broken.is_some_and(|(found, _)| found == guarantee)
    };
    let mut kept = scenario.operations.clone();
    let mut piece = kept.len().div_ceil(2);
    while piece > 0 {
        let mut from = 0;
        let mut shorter = false;
        while from < kept.len() {
            let to = (from + piece).min(kept.len());
            let without: Vec<_> = kept[..from].iter().chain(&kept[to..]).cloned().collect();
            if fails(&without) {
                kept = without;
                shorter = true;
            } else {
                from = to;
            }
        }
        // One pass over single operations may make another one worth while.
        piece = if piece == 1 && shorter { 1 } else { piece / 2 };
    }
    Scenario {
        operations: kept,
        ..scenario.clone()
    }
}

//! What runs add up to.

use std::fmt;
use std::ops::AddAssign;

/// Counts of one run or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) operations: u64,
    pub(crate) messages: u64,
    pub(crate) requests: u64,
    pub(crate) taken: u64,
    pub(crate) changes: u64,
    pub(crate) rotations: u64,
    pub(crate) promotions: u64,
    pub(crate) asked: u64,
    pub(crate) replayed: u64,
    pub(crate) store_faults: u64,
    pub(crate) crashes: u64,
    pub(crate) clock_steps: u64,
    pub(crate) nodes: u64,
    pub(crate) troubles: u64,
    pub(crate) pauses: u64,
    pub(crate) confirmations_lost: u64,
    pub(crate) clocks_wrong: u64,
    pub(crate) take_overs: u64,
    pub(crate) fences: u64,
    pub(crate) endpoints: u64,
    pub(crate) reaches: u64,
    pub(crate) told: u64,
    pub(crate) told_late: u64,
    pub(crate) millis: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.operations += other.operations;
        self.messages += other.messages;
        self.requests += other.requests;
        self.taken += other.taken;
        self.changes += other.changes;
        self.rotations += other.rotations;
        self.promotions += other.promotions;
        self.asked += other.asked;
        self.replayed += other.replayed;
        self.store_faults += other.store_faults;
        self.crashes += other.crashes;
        self.clock_steps += other.clock_steps;
        self.nodes += other.nodes;
        self.troubles += other.troubles;
        self.pauses += other.pauses;
        self.confirmations_lost += other.confirmations_lost;
        self.clocks_wrong += other.clocks_wrong;
        self.take_overs += other.take_overs;
        self.fences += other.fences;
        self.endpoints += other.endpoints;
        self.reaches += other.reaches;
        self.told += other.told;
        self.told_late += other.told_late;
        self.millis += other.millis;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("operations", self.operations),
            ("messages accepted", self.messages),
            ("requests on the wire", self.requests),
            ("requests taken by receivers", self.taken),
            ("changes committed", self.changes),
            ("rotations opened", self.rotations),
            ("promotions", self.promotions),
            ("commands asked", self.asked),
            ("answers repeated by key", self.replayed),
            ("faults of the store", self.store_faults),
            ("crashes", self.crashes),
            ("steps of the wall clock", self.clock_steps),
            ("nodes started that share a database", self.nodes),
            ("troubles of one of them", self.troubles),
            ("pauses among these", self.pauses),
            ("confirmations lost", self.confirmations_lost),
            ("clocks of nodes set wrong", self.clocks_wrong),
            ("take-overs", self.take_overs),
            ("fences closed", self.fences),
            ("endpoints made between messages", self.endpoints),
            ("deliveries that a message had to make", self.reaches),
            ("rows heard of with what they carry", self.told),
            ("notifications of rows that came late", self.told_late),
            ("seconds simulated, steps left out", self.millis / 1_000),
        ];
        for (what, count) in rows {
            writeln!(f, "{count:>14}  {what}")?;
        }
        Ok(())
    }
}

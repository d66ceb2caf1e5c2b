//! The simulation: the whole sender on a virtual clock, over a store and a network that fail on purpose,
//! driven by a list of operations and a seed.
//!
//! **What is real**: the service with every rotation mode, the proving sweep and its probes, idempotent
//! answers and the audit log; dispatch with its queues on one shard; the courier, which signs when a
//! connection can take the request; the outbound client down to the bytes of HTTP/1.1; the rotation
//! machine; sealing. **What is made up**: the engine (`store::model`, which passes the conformance suite)
//! behind a writer's queue that is slow, loses requests and loses answers; the network (pipes); the
//! receivers, which verify with the published verifier; the clock (tokio's, paused, and stepped on
//! purpose); randomness. One thread, no real time: the same scenario does the same, byte for byte.
//!
//! **Several nodes**: or two to four such senders ([`together`]), each with its own memory and wall clock, stopped, cut off,
//! crashed and restarted one by one, on one simulated database ([`base`]) by the decisions of `store::sharing`. What is
//! real and what is made up of it is in `docs/simulation.md`.
//!
//! **What counts as failure**, after every operation and at the very moment where that is when it shows:
//!
//! - G1: an acknowledged message is not stored; a delivery is neither pending nor settled and was not
//!   pruned; one is recorded as delivered that nobody took; one has not settled at the end, when
//!   everything works and had the time; a message does not reach an endpoint that wants its type and of which a caller
//!   had been told before the message was sent that it takes messages, whichever nodes the two were; a part of the
//!   server panicked. A node whose lease is out is not taken over within two seconds more by one that is well.
//! - G2: a message goes out under two ids, or another than it is stored under; on an ordered endpoint one
//!   is taken before an earlier one that still waits. A node sends what is in another's shard, or what another
//!   that lives has sent and not recorded, or what is recorded as settled; one is taken over that nothing was wrong with.
//! - G3: a request is unsigned, or signed by a key that is no live one of its endpoint's keyring; an
//!   exchange is recorded that nobody saw.
//! - G4: a retired, destroyed or cancelled key signs; a compromised one co-signs or is a fallback. With several
//!   nodes: after a fence was closed over the change, or two seconds after its commit.
//! - G5: two active or two pending secrets, two open rotations; two answers under one idempotency key.
//! - G6: an attempt fails because of its signature although the receiver was well and held, throughout,
//!   a key that serves (for a receiver that answers 500: three attempts in a row).
//! - G7: a proven rotation is promoted on anything but recorded proof, for which the passes and a refused
//!   control were on the wire, or an audited force; or proof about a receiver that does not verify.
//! - G8: the value of a secret stands in a change, an attempt, the audit log, an error, a log line, or
//!   anywhere in the store outside a sealed box.
//! - G9: the audit chain does not verify; a stored keyring is in a state that the log does not explain.
//!
//! Keyrings are judged by a model that reads the audit log and never asks the code under test.
//! What is not simulated is in `docs/simulation.md`, with how to run more and how to replay.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ask;
mod base;
mod clock;
mod ear;
mod engine;
mod host;
mod judge;
mod ledger;
mod link;
mod logs;
mod member;
mod membership;
mod mutant;
mod network;
mod nodes;
mod operation;
mod process;
mod random;
mod receiver;
mod report;
mod run;
mod shrink;
mod together;

use crate::mutant::Mutant;
use crate::operation::Scenario;
use crate::report::Counts;
use crate::run::{Outcome, run};

/// Every guarantee that is looked at.
const ALL: [&str; 9] = ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9"];

/// What a seed stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One process that has its store to itself.
    Alone,
    /// Several nodes that share a database.
    Several,
    /// Every fourth the latter, and the others the former.
    Both,
}

impl Kind {
    fn scenario(self, seed: u64) -> Scenario {
        match self {
            Self::Several => Scenario::of_several(seed),
            Self::Both if seed % 4 == 3 => Scenario::of_several(seed),
            Self::Alone | Self::Both => Scenario::of(seed),
        }
    }
}

/// Finds the first seed of a range that breaks one of these guarantees, and shrinks it.
fn search(
    kind: Kind,
    seeds: std::ops::Range<u64>,
    mutant: Mutant,
    wanted: &[&str],
) -> (Counts, Option<Failure>) {
    let mut counts = Counts::default();
    for seed in seeds {
        let scenario = kind.scenario(seed);
        let outcome = run(&scenario, mutant);
        counts += outcome.counts;
        let broken = outcome.broken.map(|(guarantee, _)| guarantee);
        if let Some(guarantee) = broken.filter(|one| wanted.contains(one)) {
            let short = shrink::shrink(&scenario, mutant, guarantee);
            let again = run(&short, mutant);
            return (
                counts,
                Some(Failure {
                    guarantee,
                    short,
                    again,
                }),
            );
        }
    }
    (counts, None)
}

/// A seed that failed.
struct Failure {
    guarantee: &'static str,
    short: Scenario,
    again: Outcome,
}

impl Failure {
    /// Everything that whoever looks into it needs.
    fn tell(&self) -> String {
        let (seed, guarantee) = (self.short.seed, self.guarantee);
        let list = serde_json::to_string(&self.short).unwrap();
        let what = self.again.broken.as_ref().map(|(_, what)| what.as_str());
        let what = what.unwrap_or("not when it is run again");
        let trace = &self.again.trace;
        format!(
            "seed {seed} broke {guarantee}: {what}\n\n{trace}\nto replay it, save this as FILE and run `cargo xtask sim --replay FILE`:\n\n{list}\n"
        )
    }
}

fn holds(seeds: std::ops::Range<u64>) {
    let (_, failure) = search(Kind::Both, seeds, Mutant::None, &ALL);
    if let Some(failure) = failure {
        panic!("{}", failure.tell());
    }
}

/// A thousand seeds, in parts that run beside each other.
macro_rules! seeds {
    ($($name:ident: $from:literal;)+) => {$(
        #[test]
        fn $name() {
            holds($from..$from + 125);
        }
    )+};
}

seeds! {
    g1_to_g9_hold_for_the_seeds_from_0: 0;
    g1_to_g9_hold_for_the_seeds_from_125: 125;
    g1_to_g9_hold_for_the_seeds_from_250: 250;
    g1_to_g9_hold_for_the_seeds_from_375: 375;
    g1_to_g9_hold_for_the_seeds_from_500: 500;
    g1_to_g9_hold_for_the_seeds_from_625: 625;
    g1_to_g9_hold_for_the_seeds_from_750: 750;
    g1_to_g9_hold_for_the_seeds_from_875: 875;
}

/// What the simulation found once, and what must not come back.
#[test]
fn g1_g2_g6_g7_what_was_found_once_does_not_come_back() {
    for case in [
        include_str!("cases/retry_not_stored_keeps_its_place.json"),
        include_str!("cases/shared_keyring_short_look_back.json"),
        include_str!("cases/stale_block_after_lost_answer.json"),
        include_str!("cases/throwing_fleet_half_switched.json"),
        include_str!("cases/exhausted_not_recorded_in_order.json"),
        include_str!("cases/unconfirmed_before_its_fallback.json"),
        include_str!("cases/hung_before_its_clock_was_right.json"),
        include_str!("cases/broken_non_verifier_answers_controls_with_500.json"),
        include_str!("cases/all_clocks_set_within_a_round_trip.json"),
        include_str!("cases/ordered_endpoint_changed_by_a_clock_behind.json"),
        include_str!("cases/told_late_after_a_clock_set_back.json"),
        include_str!("cases/told_to_a_process_that_began_behind.json"),
    ] {
        let outcome = run(&serde_json::from_str(case).unwrap(), Mutant::None);
        assert_eq!(outcome.broken, None, "{case}\n{}", outcome.trace);
    }
}

/// Every tenth of them is run again: the same bytes.
#[test]
fn a_seed_run_twice_does_the_same_byte_for_byte() {
    let alone = (0..200).step_by(10).map(Scenario::of);
    let several = (0..200).step_by(20).map(Scenario::of_several);
    for scenario in alone.chain(several) {
        let seed = scenario.seed;
        let (first, second) = (run(&scenario, Mutant::None), run(&scenario, Mutant::None));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert!(first.trace.len() > 1_000, "seed {seed} did nothing");
    }
}

/// What is to go wrong with several nodes does, in every few seeds.
#[test]
fn nodes_are_stopped_lose_confirmations_and_have_wrong_clocks() {
    let mut counts = Counts::default();
    for seed in 0..20 {
        counts += run(&Scenario::of_several(seed), Mutant::None).counts;
    }
    let happened = [
        counts.pauses,
        counts.confirmations_lost,
        counts.clocks_wrong,
        counts.take_overs,
        counts.fences,
        counts.told,
        counts.told_late,
        counts.endpoints,
        counts.reaches,
    ];
    assert!(happened.iter().all(|count| *count >= 10), "{counts}");
}

/// What is printed for a failing seed is the scenario, whole.
#[test]
fn a_scenario_survives_being_written_down() {
    for scenario in (0..100).flat_map(|seed| [Scenario::of(seed), Scenario::of_several(seed)]) {
        let text = serde_json::to_string(&scenario).unwrap();
        assert_eq!(serde_json::from_str::<Scenario>(&text).unwrap(), scenario);
    }
}

/// Seeds within which each deliberate defect must show.
const FOUND_WITHIN: u64 = 150;
/// The same where there are several nodes.
const FOUND_WITHIN_WITH_NODES: u64 = 500;

/// Each deliberate defect is found, as what it is, and shrinks to a list that a person can read.
#[test]
fn every_deliberate_defect_is_found() {
    for (mutant, guarantees) in Mutant::ALL {
        let (_, failure) = search(Kind::Alone, 0..FOUND_WITHIN, mutant, guarantees);
        let failure = failure.unwrap_or_else(|| panic!("{mutant:?} is not found"));
        let guarantee = failure.guarantee;
        let length = failure.short.operations.len();
        println!(
            "{mutant:?} found by seed {} as {guarantee}, {length} operations",
            failure.short.seed
        );
        // What shows within milliseconds only cannot lose many operations.
        assert!(length <= 30, "{mutant:?}: {}", failure.tell());
        let again = run(&failure.short, mutant);
        assert_eq!(again.trace, failure.again.trace, "{mutant:?}");
    }
}

/// A part of the deliberate defects of nodes that share a database: each is found, as what it is, and when it is run
/// again it is found again.
fn are_found(mutants: &[(Mutant, &[&str])]) {
    let mut missed = Vec::new();
    for (mutant, guarantees) in mutants {
        let found = (0..FOUND_WITHIN_WITH_NODES).find_map(|seed| {
            let outcome = run(&Scenario::of_several(seed), *mutant);
            let broken = outcome.broken.as_ref().map(|(guarantee, _)| *guarantee);
            let wanted = broken.filter(|broken| guarantees.contains(broken));
            wanted.map(|broken| (seed, broken, outcome))
        });
        let Some((seed, guarantee, outcome)) = found else {
            missed.push(mutant);
            continue;
        };
        println!(
            "{mutant:?} found by seed {seed} as {guarantee}: {:?}",
            outcome.broken
        );
        let again = run(&Scenario::of_several(seed), *mutant);
        assert_eq!(again.trace, outcome.trace, "{mutant:?}");
    }
    assert!(missed.is_empty(), "{missed:?} are not found");
}

#[test]
fn every_deliberate_defect_of_pauses_is_found() {
    are_found(&Mutant::OF_PAUSES);
}

#[test]
fn every_deliberate_defect_of_confirmations_is_found() {
    are_found(&Mutant::OF_CONFIRMATIONS);
}

#[test]
fn every_deliberate_defect_of_clocks_is_found() {
    are_found(&Mutant::OF_CLOCKS);
}

#[test]
fn every_deliberate_defect_of_owners_is_found() {
    are_found(&Mutant::OF_OWNERS);
}

#[test]
fn every_deliberate_defect_of_telling_is_found() {
    are_found(&Mutant::OF_TELLING);
}

#[test]
fn every_deliberate_defect_of_reach_is_found() {
    are_found(&Mutant::OF_REACH);
}

/// What `cargo xtask sim` runs: the seeds, or the scenario, that the environment names.
#[test]
#[ignore = "run by `cargo xtask sim`"]
#[expect(
    clippy::disallowed_methods,
    reason = "how the task passes its options to a test, and how long that took by the wall"
)]
fn as_asked() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    if let Ok(file) = std::env::var("HOOKTURN_SIM_REPLAY") {
        let text = std::fs::read_to_string(file).unwrap();
        let outcome = run(&serde_json::from_str(&text).unwrap(), Mutant::None);
        println!("{}{}", outcome.trace, outcome.counts);
        assert_eq!(outcome.broken, None);
        return;
    }
    let from = number("HOOKTURN_SIM_FROM").unwrap_or(0);
    let seeds = number("HOOKTURN_SIM_SEEDS").unwrap_or(1_000);
    let kind = match std::env::var("HOOKTURN_SIM_NODES").as_deref() {
        Ok("one") => Kind::Alone,
        Ok("several") => Kind::Several,
        _ => Kind::Both,
    };
    let begun = std::time::Instant::now();
    let (counts, failure) = search(kind, from..from + seeds, Mutant::None, &ALL);
    let took = begun.elapsed().as_secs_f64();
    if let Some(failure) = failure {
        panic!("{}", failure.tell());
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = seeds as f64 / took;
    println!(
        "seeds {from} to {}: nothing broken; {rate:.0} seeds/s\n{counts}",
        from + seeds - 1
    );
}

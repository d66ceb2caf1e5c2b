//! Proof against receivers of every kind, driven as a sweep drives it, with a clock that is a number.

use hookturn_core::id::{EndpointId, MessageId, RotationId};
use hookturn_core::proof::{
    Evidence, Observed, ProbeAnswer, ProofPolicy, Question, Standing, is_canary, prove,
    required_controls, required_passes,
};
use hookturn_core::time::{DAY, HOUR, MINUTE, SECOND, Timestamp};
use proptest::prelude::*;

const START: Timestamp = Timestamp::from_millis(1_784_505_600_000);

fn rotation() -> RotationId {
    RotationId::from_bytes([7; 16])
}

fn endpoint() -> EndpointId {
    EndpointId::from_bytes([3; 16])
}

/// A small generator with a seed, so that a failing run can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    }

    /// True once in `of` times.
    fn once_in(&mut self, of: u64) -> bool {
        self.roll().is_multiple_of(of)
    }
}

/// Probes as often as the policy allows until it is proved or `end` is past.
fn probe_until(
    policy: &ProofPolicy,
    end: Timestamp,
    mut receiver: impl FnMut(Question, Timestamp) -> Option<u16>,
) -> (Evidence, Option<Timestamp>) {
    let mut evidence = Evidence::new(rotation());
    let mut now = START;
    while now < end {
        if matches!(evidence.standing(policy, now), Standing::Proved { .. }) {
            return (evidence, Some(now));
        }
        let (at, question) = evidence.next_probe(policy, now);
        now = at;
        let observed = match question {
            Question::NewSecret => Observed::Probe,
            Question::Control => Observed::Control,
        };
        let answer = ProbeAnswer::of(receiver(question, now));
        evidence = evidence.after(policy, observed, answer, now);
    }
    (evidence, None)
}

fn correct(question: Question) -> u16 {
    match question {
        Question::NewSecret => 204,
        Question::Control => 401,
    }
}

#[test]
fn g7_a_correct_receiver_is_proved_after_the_passes_and_the_hold_down() {
    let policy = ProofPolicy::default();
    let (evidence, proved) = probe_until(&policy, START.after(DAY), |q, _| Some(correct(q)));
    let proved = proved.unwrap();
    assert!(evidence.run >= required_passes(&policy, 0));
    assert!(proved >= evidence.enough_at.unwrap().after(policy.hold_down_millis));
    assert!(proved < START.after(HOUR), "{evidence:?}");
    let proof = prove(&policy, rotation(), &[(endpoint(), Some(evidence))], proved).unwrap();
    assert_eq!(proof.endpoints(), [(endpoint(), evidence.run)]);
}

#[test]
fn g7_what_verifies_nothing_is_never_proved() {
    let policy = ProofPolicy::default();
    let (evidence, proved) = probe_until(&policy, START.after(DAY), |_, _| Some(200));
    assert_eq!(proved, None);
    let standing = evidence.standing(&policy, START.after(DAY));
    assert!(
        matches!(standing, Standing::DoesNotVerify { at } if Some(at) == evidence.probed_at),
        "{standing:?}"
    );
    // One that stops verifying after it was almost proved, too.
    let mut asked = 0;
    let (evidence, proved) = probe_until(&policy, START.after(DAY), |question, _| {
        asked += 1;
        if asked > 50 {
            Some(200)
        } else {
            Some(correct(question))
        }
    });
    assert_eq!(proved, None, "{evidence:?}");
}

#[test]
fn what_accepted_a_control_is_asked_again_later_and_later_and_by_controls_alone() {
    let policy = ProofPolicy::default();
    let mut asked = Vec::new();
    let (evidence, _) = probe_until(&policy, START.after(DAY), |question, now| {
        assert_eq!(question, Question::Control);
        asked.push(now);
        Some(200)
    });
    let pauses: Vec<_> = asked.windows(2).map(|two| two[1].since(two[0])).collect();
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!(pauses[0], 2 * policy.probe_every_millis);
    assert_eq!(*pauses.last().unwrap(), policy.probe_back_off_max_millis);
    let standing = evidence.standing(&policy, START.after(DAY));
    let last = asked.last().unwrap();
    assert_eq!(standing, Standing::DoesNotVerify { at: *last });
    assert!(standing.words(&policy).ends_with(&format!("at {last}")));
}

#[test]
fn g7_a_page_that_accepts_everything_for_a_while_delays_the_proof_and_leaves_nothing_in_it() {
    let policy = ProofPolicy::default();
    for (begins, ends) in [(0, SECOND), (5 * MINUTE, 70 * MINUTE)] {
        let (begins, ends) = (START.after(begins), START.after(ends));
        // So many passes that a control falls into that time.
        let policy = ProofPolicy {
            stale_percent: 2,
            probes_per_hour: 500,
            control_every_millis: 20 * MINUTE,
            ..policy
        };
        let (evidence, proved) = probe_until(&policy, START.after(DAY), |question, now| {
            Some(if now >= begins && now < ends {
                200
            } else {
                correct(question)
            })
        });
        let refused_again = evidence.control.unwrap().refused_again_at.unwrap();
        assert!(refused_again >= ends);
        assert!(evidence.run_since.unwrap() >= refused_again);
        assert!(evidence.run >= required_passes(&policy, 0));
        assert_eq!(evidence.broken, 0);
        assert!(proved.unwrap() < ends.after(3 * HOUR), "{evidence:?}");
    }
}

#[test]
fn g7_what_was_accepted_before_a_control_was_refused_again_counts_for_nothing() {
    let policy = ProofPolicy::default();
    let at = |seconds: u64| START.after(seconds * SECOND);
    let pass = |evidence: Evidence, at| {
        evidence.after(&policy, Observed::Delivery, ProbeAnswer::Accepted, at)
    };
    let control = |evidence: Evidence, status, at| {
        evidence.after_status(&policy, Observed::Control, Some(status), at)
    };
    let mut evidence = pass(control(Evidence::new(rotation()), 401, at(0)), at(1));
    assert_eq!((evidence.run, evidence.canary_percent(&policy)), (1, 1));
    evidence = control(evidence, 200, at(2));
    assert_eq!((evidence.run, evidence.canary_percent(&policy)), (0, 0));
    let fooled = Standing::DoesNotVerify { at: at(2) };
    evidence = pass(evidence, at(3));
    assert_eq!(evidence.standing(&policy, at(3)), fooled);
    evidence = control(evidence, 503, at(4));
    assert_eq!(
        evidence.standing(&policy, at(4)),
        fooled,
        "silence unsays nothing"
    );
    evidence = control(evidence, 401, at(6));
    assert_eq!((evidence.run, evidence.unanswered), (0, 0));
    // Sent before, answered only now.
    evidence = pass(evidence, at(5));
    assert_eq!(evidence.run, 0);
    evidence = pass(evidence, at(6));
    assert_eq!((evidence.run, evidence.delivery_passes), (1, 4));
    // A control that was refused before and is answered late says nothing either.
    evidence = control(control(evidence, 200, at(8)), 401, at(7));
    assert_eq!(
        evidence.standing(&policy, at(8)),
        Standing::DoesNotVerify { at: at(8) }
    );
}

#[test]
fn silence_is_neither_ready_nor_not_ready() {
    let policy = ProofPolicy::default();
    for status in [None, Some(503), Some(429), Some(404), Some(500)] {
        let (evidence, proved) = probe_until(&policy, START.after(DAY), |_, _| status);
        assert_eq!(proved, None);
        let standing = evidence.standing(&policy, START.after(DAY));
        assert_eq!(standing, Standing::Unreachable, "{status:?}");
        assert_eq!(evidence.refusals, 0, "{status:?}");
        // Nor is it anything else for what it answered before it fell silent.
        let fell_silent = START.after(HOUR);
        for before in [401, 204] {
            // One per cent needs some 300 passes: more than an hour has room for.
            let policy = ProofPolicy {
                stale_percent: 1,
                probes_per_hour: 100,
                ..policy
            };
            let (evidence, proved) = probe_until(&policy, START.after(DAY), |question, now| {
                if now >= fell_silent {
                    return status;
                }
                Some(match question {
                    Question::NewSecret => before,
                    Question::Control => 401,
                })
            });
            assert_eq!(proved, None);
            assert_eq!(
                evidence.standing(&policy, START.after(DAY)),
                Standing::Unreachable,
                "{before} and then {status:?}"
            );
        }
    }
}

#[test]
fn a_verifier_that_throws_is_proved_when_it_has_deployed() {
    let policy = ProofPolicy::default();
    let deployed = START.after(2 * HOUR);
    let (evidence, proved) = probe_until(&policy, START.after(DAY), |question, now| {
        Some(match question {
            Question::NewSecret if now >= deployed => 200,
            Question::NewSecret | Question::Control => 500,
        })
    });
    assert!(proved.unwrap() > deployed);
    // Nothing was accepted before it deployed, so its 500 could have been anything.
    assert_eq!((evidence.refusals, evidence.broken), (0, 0));
}

#[test]
fn a_500_is_a_refusal_where_something_else_is_accepted_meanwhile() {
    let policy = ProofPolicy::default();
    let mut evidence = Evidence::new(rotation());
    let mut now = START;
    let after = |evidence: Evidence, observed, status, now| {
        evidence.after(&policy, observed, ProbeAnswer::of(Some(status)), now)
    };
    for _ in 0..40 {
        let (at, question) = evidence.next_probe(&policy, now);
        now = at;
        let observed = match question {
            Question::NewSecret => Observed::Probe,
            Question::Control => Observed::Control,
        };
        evidence = after(evidence, observed, 500, now);
        // A delivery, signed with the secret it still holds.
        evidence = after(evidence, Observed::Current, 200, now);
    }
    let standing = evidence.standing(&policy, now);
    assert!(
        matches!(standing, Standing::NotReady { .. }),
        "{standing:?}"
    );
    // Then it breaks: whatever is asked is answered 500, deliveries included.
    for _ in 0..4 {
        let (at, question) = evidence.next_probe(&policy, now);
        now = at;
        let observed = match question {
            Question::NewSecret => Observed::Probe,
            Question::Control => Observed::Control,
        };
        evidence = after(evidence, observed, 500, now);
        evidence = after(evidence, Observed::Current, 500, now);
    }
    assert_eq!(evidence.standing(&policy, now), Standing::Unreachable);
    // The longest time between two probes was reached on the way, controls included.
    let (at, _) = evidence.next_probe(&policy, now);
    assert_eq!(at, now.after(policy.probe_back_off_max_millis));
}

#[test]
fn g7_a_500_ends_a_run_of_a_fleet_that_throws() {
    let policy = ProofPolicy::default();
    let mut fooled = 0;
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let (_, proved) = probe_until(&policy, START.after(DAY), |question, _| {
            let stale = question == Question::NewSecret && dice.once_in(20);
            Some(match question {
                Question::NewSecret if !stale => 204,
                Question::NewSecret | Question::Control => 500,
            })
        });
        fooled += u32::from(proved.is_some());
    }
    assert!(fooled <= 15, "{fooled} of 300");
}

#[test]
fn g7_a_fleet_that_is_five_percent_stale_is_proved_in_at_most_five_percent_of_runs() {
    let policy = ProofPolicy::default();
    let trials = 1_000;
    let mut fooled = 0;
    for seed in 0..trials {
        let mut dice = Dice(seed);
        // A day of patience, some 5,000 probes: every further run is another chance to be fooled.
        let (_, proved) = probe_until(&policy, START.after(DAY), |question, _| {
            let stale = question == Question::NewSecret && dice.once_in(20);
            if stale {
                Some(401)
            } else {
                Some(correct(question))
            }
        });
        fooled += u32::from(proved.is_some());
    }
    let share = f64::from(fooled) / f64::from(u32::try_from(trials).unwrap());
    // The hold-down asks on while it waits, so far fewer are fooled than the budget allows.
    assert!(share <= 0.05, "{share}");
}

/// It is asked for all of its rotation, a hundred times a day and more: with one refused control before the passes
/// and one after them, two of a hundred such rotations would be proved.
#[test]
fn g7_what_verifies_nothing_and_refuses_one_percent_at_random_is_not_proved_until_its_deadline() {
    let policy = ProofPolicy::default();
    let mut taken_in = 0;
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut passes = 0;
        let end = START.after(policy.deadline_millis);
        let (evidence, proved) = probe_until(&policy, end, |question, _| {
            passes += u32::from(question == Question::NewSecret);
            Some(if dice.once_in(100) { 401 } else { 200 })
        });
        assert_eq!(proved, None, "seed {seed}: {evidence:?}");
        taken_in += u32::from(passes > 0);
    }
    // For a while it was taken for one that verifies, nearly always.
    assert!(taken_in > 250, "{taken_in}");
}

/// Fleets of four of which some machines hold the new secret, and the others verify nothing: each probe reaches one of
/// them by chance. Once one of those accepted a control, four that are refused in a row are no proof.
#[test]
fn g7_a_fleet_of_which_some_machines_verify_nothing_is_not_proved_once_it_was_caught() {
    let policy = ProofPolicy::default();
    for open in 1..=3 {
        let (mut caught, mut four_in_a_row) = (0, 0);
        for seed in 0..100 {
            let mut dice = Dice(seed);
            let (mut accepted, mut in_a_row, mut longest) = (false, 0, 0);
            let (evidence, proved) = probe_until(&policy, START.after(2 * DAY), |question, _| {
                let verifies = dice.roll() % 4 >= open;
                if question == Question::NewSecret {
                    return Some(204);
                }
                accepted |= !verifies;
                in_a_row = if verifies { in_a_row + 1 } else { 0 };
                longest = if accepted { in_a_row.max(longest) } else { 0 };
                Some(if verifies { 401 } else { 200 })
            });
            if accepted {
                assert_eq!(proved, None, "seed {seed}: {evidence:?}");
                caught += 1;
            }
            four_in_a_row += u32::from(longest >= 4);
        }
        assert!(caught > 50, "{open}: {caught}");
        assert!(open == 3 || four_in_a_row > 50, "{open}: {four_in_a_row}");
    }
}

/// What it costs to be caught by a maintenance page, however long it was there: controls and passes take turns.
#[test]
fn a_page_that_accepted_everything_costs_as_many_controls_as_passes() {
    for (page, probes_per_hour) in [(HOUR, 240), (20 * HOUR, 240), (HOUR, 30)] {
        let policy = ProofPolicy {
            probes_per_hour,
            ..ProofPolicy::default()
        };
        let ends = START.after(page);
        let (evidence, proved) = probe_until(&policy, START.after(3 * DAY), |question, now| {
            Some(if now < ends { 200 } else { correct(question) })
        });
        assert_eq!(evidence.controls(&policy), (59, 59));
        let hours = if probes_per_hour == 240 { 2 } else { 7 };
        assert!(proved.unwrap() < ends.after(hours * HOUR), "{evidence:?}");
    }
}

/// What the controls cost: two more probes than one before the passes and one after, and no time beyond the
/// hold-down. Also after a page that accepted everything, and where one answer in twenty is a 503.
#[test]
fn a_correct_receiver_is_proved_with_as_many_controls_as_are_needed() {
    let policy = ProofPolicy::default();
    let mut most = 0;
    for seed in 0..1_000 {
        let mut dice = Dice(seed);
        let page = START.after((seed % 4) * HOUR);
        let mut controls = 0;
        let (evidence, proved) = probe_until(&policy, START.after(DAY), |question, now| {
            if now < page {
                return Some(200);
            }
            controls += u32::from(question == Question::Control);
            Some(if dice.once_in(20) {
                503
            } else {
                correct(question)
            })
        });
        let control = evidence.control.unwrap();
        let needed = required_controls(&policy, control.accepted);
        assert!(proved.is_some(), "seed {seed}: {evidence:?}");
        assert!(control.refusals >= needed);
        if page == START {
            assert_eq!((needed, control.refusals), (4, 4));
            most = most.max(controls);
            let quickest = evidence.enough_at.unwrap().after(policy.hold_down_millis);
            assert!(proved.unwrap() < quickest.after(MINUTE));
        }
    }
    assert!((4..10).contains(&most), "{most}");
}

#[test]
fn a_correct_receiver_that_fails_now_and_then_is_proved() {
    let policy = ProofPolicy::default();
    for seed in 0..1_000 {
        let mut dice = Dice(seed);
        let (evidence, proved) = probe_until(&policy, START.after(DAY), |question, _| {
            // One request in ten is lost to restarts, timeouts and overload.
            if dice.once_in(10) {
                Some(503)
            } else {
                Some(correct(question))
            }
        });
        assert!(proved.is_some(), "seed {seed}: {evidence:?}");
        assert_eq!(evidence.refusals, 0);
    }
}

#[test]
fn a_rolling_fleet_pays_for_its_broken_runs_and_is_proved_in_the_end() {
    let policy = ProofPolicy::default();
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let (evidence, proved) = probe_until(&policy, START.after(3 * DAY), |question, now| {
            // Four machines, one deployed every half hour.
            let minutes =
                (now.as_millis() - START.as_millis()) / i64::try_from(30 * MINUTE).unwrap();
            let deployed = u64::try_from(minutes.min(4)).unwrap();
            let reached = dice.roll() % 4;
            match question {
                Question::NewSecret if reached >= deployed => Some(401),
                Question::NewSecret | Question::Control => Some(correct(question)),
            }
        });
        let proved = proved.unwrap();
        assert!(proved >= START.after(2 * HOUR), "seed {seed}: {evidence:?}");
    }
}

#[test]
fn canaries_begin_after_a_pass_and_end_with_a_refusal() {
    let policy = ProofPolicy::default();
    let at = |seconds: u64| START.after(seconds * SECOND);
    let mut evidence = Evidence::new(rotation());
    assert_eq!(evidence.canary_percent(&policy), 0);
    evidence = evidence.after(&policy, Observed::Probe, ProbeAnswer::Accepted, at(0));
    assert_eq!(
        evidence.canary_percent(&policy),
        0,
        "no control was refused"
    );
    evidence = evidence.after(&policy, Observed::Control, ProbeAnswer::Refused, at(1));
    assert_eq!(evidence.canary_percent(&policy), 1);
    for second in 2..40 {
        evidence = evidence.after(
            &policy,
            Observed::Delivery,
            ProbeAnswer::Accepted,
            at(second),
        );
    }
    assert_eq!(evidence.canary_percent(&policy), 50);
    evidence = evidence.after(&policy, Observed::Delivery, ProbeAnswer::Refused, at(41));
    assert_eq!(evidence.canary_percent(&policy), 0);
    assert_eq!(evidence.broken, 1);
}

#[test]
fn a_receiver_that_has_switched_gets_the_new_secret_first() {
    let policy = ProofPolicy::default();
    let mut evidence = Evidence::new(rotation());
    let mut hear = |observed, answer| {
        evidence = evidence.after(&policy, observed, answer, START);
        evidence.canary_percent(&policy)
    };
    // Each message is refused under the current secret, and accepted under the new one.
    for percent in [0, 0, 100] {
        assert_eq!(hear(Observed::Current, ProbeAnswer::Refused), percent);
        assert_eq!(hear(Observed::Delivery, ProbeAnswer::Accepted), percent);
    }
    // One machine of its fleet did not, and then more of them.
    for percent in [100, 0] {
        assert_eq!(hear(Observed::Delivery, ProbeAnswer::Refused), 100);
        assert_eq!(hear(Observed::Current, ProbeAnswer::Accepted), percent);
    }
    assert_eq!(
        hear(Observed::Delivery, ProbeAnswer::Accepted),
        0,
        "no control was refused"
    );
}

#[test]
fn the_share_of_canaries_is_the_share_that_was_asked_for() {
    for percent in [0, 1, 10, 50, 100] {
        let chosen = (0..100_000_u128)
            .filter(|n| {
                let mut dice = Dice(u64::try_from(*n).unwrap());
                let bytes = (u128::from(dice.roll()) << 64 | u128::from(dice.roll())).to_be_bytes();
                is_canary(MessageId::from_bytes(bytes), percent)
            })
            .count();
        let wanted = usize::from(percent) * 1_000;
        assert!(chosen.abs_diff(wanted) <= 500, "{percent} %: {chosen}");
    }
}

#[test]
fn probes_that_are_rarer_than_controls_may_be_take_turns_with_them() {
    // Backing off, and by the policy itself: neither may ask for controls alone.
    let rare = ProofPolicy {
        probe_every_millis: MINUTE,
        control_every_millis: MINUTE,
        ..ProofPolicy::default()
    };
    let backed_off = ProofPolicy {
        probe_back_off_max_millis: HOUR,
        control_every_millis: MINUTE,
        ..ProofPolicy::default()
    };
    for (policy, deployed) in [(rare, START), (backed_off, START.after(6 * HOUR))] {
        let end = START.after(24 * HOUR);
        let (_, proved) = probe_until(&policy, end, |question, now| {
            let holds = question == Question::NewSecret && now >= deployed;
            Some(if holds { 204 } else { 401 })
        });
        assert!(proved.is_some(), "{policy:?}");
    }
}

#[test]
fn a_policy_that_could_prove_nothing_without_traffic_and_has_no_canaries_is_refused() {
    let silent = ProofPolicy {
        canary_percent: [0, 0, 0],
        ..ProofPolicy::default()
    };
    assert_eq!(silent.check(), Ok(()));
    let window = ProofPolicy {
        window_millis: 20 * SECOND,
        hold_down_millis: SECOND,
        ..silent
    };
    let budget = ProofPolicy {
        probes_per_hour: 1,
        window_millis: HOUR,
        ..silent
    };
    for (policy, field) in [(window, "windowMillis"), (budget, "probesPerHour")] {
        assert_eq!(policy.check().unwrap_err().field, field);
        // With traffic the canaries can.
        let canaries = ProofPolicy {
            canary_percent: [0, 0, 1],
            ..policy
        };
        assert_eq!(canaries.check(), Ok(()));
    }
    let (_, proved) = probe_until(&budget, START.after(200 * HOUR), |question, _| {
        Some(correct(question))
    });
    assert_eq!(proved, None);
}

#[test]
fn no_passes_to_the_next_share_are_taken_for_one() {
    let share = |canary_passes| {
        let policy = ProofPolicy {
            canary_passes,
            ..ProofPolicy::default()
        };
        assert_eq!(policy.check(), Ok(()));
        let mut evidence = Evidence::new(rotation());
        evidence = evidence.after(&policy, Observed::Control, ProbeAnswer::Refused, START);
        [0; 3].map(|_| {
            evidence = evidence.after(&policy, Observed::Probe, ProbeAnswer::Accepted, START);
            evidence.canary_percent(&policy)
        })
    };
    assert_eq!(share(0), [1, 10, 50]);
    assert_eq!(share(0), share(1));
}

#[test]
fn the_old_secret_is_quiet_only_after_the_quiet_time() {
    let policy = ProofPolicy::default();
    let promoted = START;
    let pass = |evidence: Evidence, at| {
        evidence.after(&policy, Observed::Probe, ProbeAnswer::Accepted, at)
    };
    let evidence = pass(Evidence::new(rotation()), promoted);
    let quiet = promoted.after(policy.quiet_millis);
    // Nothing was heard when the time is over: that is no quiet, but silence.
    for at in [promoted, quiet.before(1)] {
        assert!(!pass(evidence, at).is_quiet(&policy, promoted, quiet.after(DAY)));
    }
    let heard = pass(evidence, quiet);
    assert!(!heard.is_quiet(&policy, promoted, quiet.before(1)));
    assert!(heard.is_quiet(&policy, promoted, quiet));
    let needed = evidence.after(
        &policy,
        Observed::Delivery,
        ProbeAnswer::Refused,
        promoted.after(HOUR),
    );
    let needed = needed.after(
        &policy,
        Observed::Old,
        ProbeAnswer::Accepted,
        promoted.after(HOUR),
    );
    assert!(!pass(needed, quiet).is_quiet(&policy, promoted, quiet.after(DAY)));
    let quiet = quiet.after(HOUR);
    assert!(pass(needed, quiet).is_quiet(&policy, promoted, quiet));
}

/// Whatever a receiver answers but an acceptance of the new secret alone: the old one may be what it holds, and is
/// why a message that both signed is accepted.
#[test]
fn g6_the_quiet_time_does_not_begin_before_the_new_secret_alone_was_accepted() {
    let policy = ProofPolicy::default();
    let late = START.after(policy.deadline_millis);
    for (answer, control) in [
        (ProbeAnswer::Threw, ProbeAnswer::Threw),
        (ProbeAnswer::Silent, ProbeAnswer::Silent),
        (ProbeAnswer::Silent, ProbeAnswer::Refused),
        (ProbeAnswer::Refused, ProbeAnswer::Refused),
    ] {
        let forced = Evidence::new(rotation())
            .after(&policy, Observed::Control, control, START)
            .after(&policy, Observed::Probe, answer, START.after(SECOND));
        assert_eq!(forced.quiet_at(&policy, START), None, "{answer:?}");
        assert!(forced.needed_old_since(START), "{answer:?}");
        // Deployed after longer than the quiet time: it begins there.
        let pass = |evidence: Evidence, at| {
            evidence.after(&policy, Observed::Probe, ProbeAnswer::Accepted, at)
        };
        let deployed = pass(forced, late);
        let quiet = late.after(policy.quiet_millis);
        assert!(!deployed.is_quiet(&policy, START, quiet.after(DAY)));
        assert_eq!(pass(deployed, quiet).quiet_at(&policy, START), Some(quiet));
    }
    let nobody_asked = Evidence::new(rotation());
    assert_eq!(nobody_asked.quiet_at(&policy, START), None);
    assert!(!nobody_asked.needed_old_since(START));
}

fn observed() -> impl Strategy<Value = Observed> {
    prop_oneof![
        1 => Just(Observed::Current),
        4 => Just(Observed::Probe),
        4 => Just(Observed::Delivery),
        1 => Just(Observed::Control),
        1 => Just(Observed::Old),
    ]
}

fn answer() -> impl Strategy<Value = ProbeAnswer> {
    prop_oneof![
        8 => Just(ProbeAnswer::Accepted),
        2 => Just(ProbeAnswer::Refused),
        1 => Just(ProbeAnswer::Threw),
        1 => Just(ProbeAnswer::Silent),
    ]
}

proptest! {
    /// Whatever happened, in whatever order it arrived: proved means that the last `passes` answers to
    /// the new secret were accepted, enough controls were refused near them and none accepted since.
    #[test]
    fn g7_proved_is_never_said_without_its_evidence(
        history in prop::collection::vec((observed(), answer(), 0_u64..120_000), 0..400),
        wait in 0_u64..3 * HOUR,
    ) {
        let policy = ProofPolicy {
            confidence_percent: 80,
            stale_percent: 20,
            hold_down_millis: MINUTE,
            ..ProofPolicy::default()
        };
        let mut now = START;
        let mut evidence = Evidence::new(rotation());
        let mut unbroken = 0;
        let mut last_control = None;
        let (mut in_a_row, mut accepted) = (0, 0);
        for (observed, answer, pause) in history {
            now = now.after(pause);
            evidence = evidence.after(&policy, observed, answer, now);
            match (observed, answer) {
                (Observed::Probe | Observed::Delivery, ProbeAnswer::Accepted) => unbroken += 1,
                (Observed::Probe | Observed::Delivery, ProbeAnswer::Refused) => unbroken = 0,
                (Observed::Control, ProbeAnswer::Accepted) => {
                    let caught = last_control != Some(true);
                    last_control = Some(true);
                    accepted += u32::from(caught);
                    in_a_row = 0;
                }
                (Observed::Control, ProbeAnswer::Refused | ProbeAnswer::Threw) => {
                    // What was accepted while a random key was proves nothing.
                    if last_control == Some(true) {
                        unbroken = 0;
                    }
                    last_control = Some(false);
                    in_a_row += 1;
                }
                _ => {}
            }
        }
        let now = now.after(wait);
        if let Standing::Proved { passes, .. } = evidence.standing(&policy, now) {
            prop_assert!(passes >= required_passes(&policy, 0));
            prop_assert!(unbroken >= passes, "{unbroken} {evidence:?}");
            prop_assert_eq!(last_control, Some(false));
            prop_assert!(in_a_row >= required_controls(&policy, accepted), "{in_a_row} {evidence:?}");
        }
        let canaries = evidence.canary_percent(&policy);
        prop_assert!(canaries == 0 || evidence.switched_early() || last_control == Some(false));
    }

    /// Whatever policy is accepted without canaries proves a receiver that holds the new secret.
    #[test]
    fn accepted_policies_prove_by_probes_alone(
        every in 200_u64..10_000,
        per_hour in 1_u32..400,
        control_every in 1_u64..20_000,
        window in 2_u64..3 * HOUR,
        held in 0_u64..100,
    ) {
        let policy = ProofPolicy {
            confidence_percent: 80,
            stale_percent: 20,
            canary_percent: [0, 0, 0],
            probe_every_millis: every,
            probes_per_hour: per_hour,
            control_every_millis: control_every,
            window_millis: window,
            hold_down_millis: window * held / 100,
            ..ProofPolicy::default()
        };
        if policy.check().is_ok() {
            let end = START.after(policy.hold_down_millis + 60 * HOUR);
            let (evidence, proved) = probe_until(&policy, end, |question, _| Some(correct(question)));
            prop_assert!(proved.is_some(), "{policy:?} {evidence:?}");
        }
    }

    /// The budget of probes holds for any receiver.
    #[test]
    fn g10_probes_stay_within_their_budget(
        statuses in prop::collection::vec(prop_oneof![Just(Some(200)), Just(Some(401)), Just(None)], 1..50),
        per_hour in 1_u32..20,
    ) {
        let policy = ProofPolicy { probes_per_hour: per_hour, ..ProofPolicy::default() };
        let mut sent: Vec<Timestamp> = Vec::new();
        let mut asked = 0;
        probe_until(&policy, START.after(12 * HOUR), |question, now| {
            sent.push(now);
            asked += 1;
            match question {
                Question::Control => Some(401),
                Question::NewSecret => statuses[asked % statuses.len()],
            }
        });
        for (index, first) in sent.iter().enumerate() {
            let within = sent[index..].iter().take_while(|at| **at < first.after(HOUR)).count();
            // Two hours that follow each other may meet in one window.
            prop_assert!(within <= 2 * usize::try_from(per_hour).unwrap());
        }
    }
}

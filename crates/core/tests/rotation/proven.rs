//! A proven rotation from opening to completion, as a sweep moves it.

use hookturn_core::id::EndpointId;
use hookturn_core::limits;
use hookturn_core::proof::{
    Evidence, Observed, OnDeadline, ProbeAnswer, ProofPolicy, RELEASED_ASKED, Release, Released,
    Standing, Step, learn, learn_attempt, next_step, required_controls, required_passes, turns_at,
};
use hookturn_core::receiver::Exchange;
use hookturn_core::rotation::{Command, Grounds, Mode, Rotation, Stage};
use hookturn_core::time::{DAY, HOUR, Timestamp};

use crate::support::{Bench, at, proof, rotate, rotation_id, secret_id};

const ENDPOINT: EndpointId = EndpointId::from_bytes([3; 16]);

fn opened(policy: ProofPolicy) -> Bench {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, Mode::Proven { policy }));
    bench
}

fn rotation(bench: &Bench) -> &Rotation {
    bench.keyring.rotation.as_ref().expect("a rotation is open")
}

#[expect(
    clippy::large_types_passed_by_value,
    reason = "cases read better with values"
)]
fn step(bench: &Bench, evidence: Evidence, now: Timestamp) -> Step {
    next_step(rotation(bench), &[(ENDPOINT, Some(evidence))], now)
}

fn passed(policy: &ProofPolicy, times: u32, now: Timestamp) -> Evidence {
    let mut evidence = Evidence::new(rotation_id(2));
    for _ in 0..times {
        evidence = evidence.after(policy, Observed::Probe, ProbeAnswer::Accepted, now);
    }
    for _ in 0..required_controls(policy, 0) {
        evidence = evidence.after(policy, Observed::Control, ProbeAnswer::Refused, now);
    }
    evidence
}

fn promoted(policy: ProofPolicy) -> Bench {
    let mut bench = opened(policy);
    let grounds = Grounds::Proof(proof(rotation_id(2), at(HOUR)));
    let rotation = rotation_id(2);
    bench.run(at(HOUR), Command::Promote { rotation, grounds });
    bench
}

#[test]
fn g7_step_1_waits_for_proof_and_says_what_is_missing() {
    let policy = ProofPolicy::default();
    let bench = opened(policy);
    let needed = required_passes(&policy, 0);
    let almost = passed(&policy, needed - 1, at(0));
    let Step::Wait(missing) = step(&bench, almost, at(DAY - 1)) else {
        panic!("it is not proved");
    };
    let passes = needed - 1;
    assert_eq!(
        missing.missing,
        [(ENDPOINT, Standing::Collecting { passes, needed })]
    );
    let enough = passed(&policy, needed, at(0));
    let until = at(policy.hold_down_millis);
    let Step::Wait(held) = step(&bench, enough, at(policy.hold_down_millis - 1)) else {
        panic!("it is held down");
    };
    assert_eq!(
        held.missing,
        [(
            ENDPOINT,
            Standing::HoldingDown {
                passes: needed,
                until
            }
        )]
    );
    assert!(matches!(step(&bench, enough, until), Step::Promote(_)));
    // Past the deadline nothing else happens: without proof the old secret stays.
    let late = at(policy.deadline_millis + DAY);
    assert!(matches!(step(&bench, almost, late), Step::Wait(_)));
}

#[test]
fn step_1_leaves_the_promotion_to_an_owner_who_asked_for_that() {
    let policy = ProofPolicy {
        promote_by_itself: false,
        ..ProofPolicy::default()
    };
    let bench = opened(policy);
    let enough = passed(&policy, required_passes(&policy, 0), at(0));
    assert!(matches!(
        step(&bench, enough, at(HOUR - 1)),
        Step::AskOwner(_)
    ));
}

#[test]
fn g7_step_1_needs_every_endpoint_of_a_shared_keyring() {
    let policy = ProofPolicy::default();
    let bench = opened(policy);
    let other = EndpointId::from_bytes([4; 16]);
    let enough = passed(&policy, required_passes(&policy, 0), at(0));
    let foreign = Evidence {
        rotation: rotation_id(1),
        ..enough
    };
    for (second, standing) in [
        (None, Standing::NotAsked),
        (Some(foreign), Standing::NotAsked),
    ] {
        let endpoints = [(ENDPOINT, Some(enough)), (other, second)];
        let Step::Wait(missing) = next_step(rotation(&bench), &endpoints, at(HOUR - 1)) else {
            panic!("one endpoint is not proved");
        };
        assert_eq!(missing.missing, [(other, standing)]);
    }
    assert!(matches!(
        next_step(rotation(&bench), &[], at(HOUR)),
        Step::Wait(_)
    ));
}

/// The receiver refused the old secret alone as often as it is asked, from `since` on.
#[expect(
    clippy::large_types_passed_by_value,
    reason = "cases read better with values"
)]
fn released(policy: &ProofPolicy, evidence: Evidence, since: Timestamp) -> Evidence {
    (0..u64::from(RELEASED_ASKED)).fold(evidence, |evidence, number| {
        let sent_at = since.after(number);
        evidence.after(policy, Observed::Released, ProbeAnswer::Refused, sent_at)
    })
}

/// The new secret alone was accepted once more at `now`.
#[expect(
    clippy::large_types_passed_by_value,
    reason = "cases read better with values"
)]
fn heard(policy: &ProofPolicy, evidence: Evidence, now: Timestamp) -> Evidence {
    evidence.after(policy, Observed::Probe, ProbeAnswer::Accepted, now)
}

#[test]
fn step_2_retires_the_old_secret_when_it_is_quiet() {
    let policy = ProofPolicy::default();
    let bench = promoted(policy);
    let evidence = passed(&policy, 60, at(0));
    let quiet = at(HOUR + policy.quiet_millis);
    // Proved, and then it answered nothing for longer than the quiet time.
    let silent = probed(&policy, evidence, at(2 * HOUR), &[ProbeAnswer::Silent; 9]);
    assert_eq!(step(&bench, silent, quiet.after(DAY)), Step::Watch);
    assert_eq!(step(&bench, evidence, quiet), Step::Watch);
    assert_eq!(step(&bench, evidence, quiet.before(1)), Step::Watch);
    let asked = released(&policy, heard(&policy, evidence, quiet), quiet);
    assert_eq!(step(&bench, asked, quiet), Step::Finish);
    // A delivery that the old secret got accepted says nothing of one that accepts the new one too; one that only
    // the old secret got accepted starts the quiet time again.
    let answered = |evidence, number, status| {
        let exchange = Exchange {
            signed_with: secret_id(number),
            sent_at: at(2 * HOUR),
            status: Some(status),
        };
        learn(Some(evidence), rotation(&bench), exchange)
    };
    assert_eq!(answered(evidence, 1, 200).old_needed, 0);
    let needed = answered(answered(evidence, 2, 401), 1, 200);
    assert_eq!(needed.old_needed, 1);
    assert_eq!(step(&bench, needed, quiet), Step::Watch);
    let quiet = at(2 * HOUR + policy.quiet_millis);
    let needed = heard(&policy, needed, quiet);
    assert_eq!(
        step(&bench, released(&policy, needed, quiet), quiet),
        Step::Finish
    );
}

/// It holds the old secret alone and accepts messages that both signed, because of it.
#[test]
fn g6_step_3_lets_the_deadline_decide_where_the_new_secret_alone_was_never_accepted() {
    for on_deadline in [OnDeadline::Extend, OnDeadline::Cut] {
        let policy = ProofPolicy {
            on_deadline,
            ..ProofPolicy::default()
        };
        let mut bench = opened(policy);
        let rotation = rotation_id(2);
        let grounds = Grounds::Force;
        bench.run(at(HOUR), Command::Promote { rotation, grounds });
        let end = at(policy.deadline_millis);
        let near = match on_deadline {
            OnDeadline::Extend => end.before(policy.extend_millis / 2),
            OnDeadline::Cut => end.before(HOUR),
        };
        for answer in [ProbeAnswer::Threw, ProbeAnswer::Silent] {
            let never = Evidence::new(rotation).after(
                &policy,
                Observed::Control,
                ProbeAnswer::Threw,
                at(0),
            );
            let never = probed(&policy, never, at(2 * HOUR), &[answer; 9]);
            assert_eq!(step(&bench, never, near.before(1)), Step::Watch);
            let expected = match on_deadline {
                OnDeadline::Extend => {
                    Step::Extend(at(policy.deadline_millis + policy.extend_millis))
                }
                OnDeadline::Cut => Step::AskReleased(vec![(ENDPOINT, near)]),
            };
            assert_eq!(step(&bench, never, near), expected);
        }
        // One that nobody could ask moves no deadline.
        let unasked = |now| step(&bench, Evidence::new(rotation), now);
        let asked = end.before(HOUR);
        assert_eq!(unasked(asked.before(1)), Step::Watch);
        assert_eq!(unasked(asked), Step::AskReleased(vec![(ENDPOINT, asked)]));
    }
}

/// What is known after these answers to probes with the new secret, each a minute after the last.
#[expect(
    clippy::large_types_passed_by_value,
    reason = "cases read better with values"
)]
fn probed(
    policy: &ProofPolicy,
    evidence: Evidence,
    since: Timestamp,
    answers: &[ProbeAnswer],
) -> Evidence {
    let minutes = (0_u64..).map(|minute| since.after(minute * 60_000));
    let answers = answers.iter().zip(minutes);
    answers.fold(evidence, |evidence, (answer, sent_at)| {
        evidence.after(policy, Observed::Probe, *answer, sent_at)
    })
}

#[test]
fn step_2_keeps_the_old_secret_while_the_receiver_refuses_the_new_one_and_nothing_is_delivered() {
    let policy = ProofPolicy::default();
    let bench = promoted(policy);
    let quiet = at(HOUR + policy.quiet_millis);
    let control = |evidence: Evidence, answer| {
        evidence.after(&policy, Observed::Control, answer, at(3 * HOUR))
    };
    // Promoted by force before the receiver deployed; and rolled back after it was proved.
    let never = control(Evidence::new(rotation_id(2)), ProbeAnswer::Refused);
    for before in [never, passed(&policy, 60, at(0))] {
        let refused = probed(&policy, before, at(2 * HOUR), &[ProbeAnswer::Refused]);
        let asked = refused.after(&policy, Observed::Released, ProbeAnswer::Accepted, quiet);
        for late in [quiet, quiet.after(5 * DAY)] {
            assert_eq!(step(&bench, refused, late), Step::Watch);
            assert_eq!(step(&bench, asked, late), Step::Watch, "whatever else");
        }
        let near = at(policy.deadline_millis).before(policy.extend_millis / 2);
        let later = at(policy.deadline_millis + policy.extend_millis);
        assert_eq!(step(&bench, refused, near), Step::Extend(later));
        // Silence says nothing about it, and does not unsay the refusal.
        let silent = probed(&policy, refused, at(3 * HOUR), &[ProbeAnswer::Silent; 4]);
        assert_eq!(step(&bench, silent, quiet.after(DAY)), Step::Watch);
        // Deployed: the quiet time runs from the last refusal.
        let deployed = probed(&policy, refused, at(2 * HOUR + 1), &[ProbeAnswer::Accepted]);
        assert_eq!(
            step(&bench, heard(&policy, deployed, quiet), quiet),
            Step::Watch
        );
        let quiet = at(2 * HOUR + 1 + policy.quiet_millis);
        let deployed = heard(&policy, deployed, quiet);
        assert_eq!(
            step(&bench, deployed, quiet),
            Step::AskReleased(vec![(ENDPOINT, quiet)])
        );
        // One that verifies nothing needs no secret.
        let fooled = control(refused, ProbeAnswer::Accepted);
        let fooled = fooled.after(&policy, Observed::Control, ProbeAnswer::Accepted, quiet);
        assert_ne!(step(&bench, fooled, quiet), Step::Watch);
    }
    // A delivery may be refused for what is in it.
    let delivered = passed(&policy, 60, at(0)).after(
        &policy,
        Observed::Delivery,
        ProbeAnswer::Refused,
        at(2 * HOUR),
    );
    let delivered = heard(&policy, delivered, quiet);
    assert_ne!(step(&bench, delivered, quiet), Step::Watch);
    // The policy may cut all the same.
    let policy = ProofPolicy {
        on_deadline: OnDeadline::Cut,
        ..policy
    };
    let bench = promoted(policy);
    let refused = probed(
        &policy,
        passed(&policy, 60, at(0)),
        at(2 * HOUR),
        &[ProbeAnswer::Refused],
    );
    let near = at(policy.deadline_millis).before(HOUR);
    assert_eq!(
        step(&bench, refused, near),
        Step::AskReleased(vec![(ENDPOINT, near)])
    );
}

#[test]
fn step_3_extends_nothing_that_nobody_needed() {
    let policy = ProofPolicy::default();
    let mut bench = opened(policy);
    let late = at(policy.deadline_millis + DAY);
    let grounds = Grounds::Proof(proof(rotation_id(2), late));
    let rotation_id = rotation_id(2);
    bench.run(
        late,
        Command::Promote {
            rotation: rotation_id,
            grounds,
        },
    );
    // The end is that of the quiet time, because the deadline had passed before.
    let end = late.after(policy.quiet_millis);
    assert_eq!(rotation(&bench).stage, Stage::Overlap { retire_at: end });
    let evidence = passed(&policy, 60, late);
    let near = end.before(60_000);
    assert_eq!(
        step(&bench, evidence, near),
        Step::AskReleased(vec![(ENDPOINT, near)])
    );
    let asked = released(&policy, evidence, near);
    assert_eq!(step(&bench, asked, near), Step::Watch);
    let needed = Evidence {
        old_needed: 1,
        old_needed_at: Some(late.after(1)),
        ..evidence
    };
    assert_eq!(
        step(&bench, needed, near),
        Step::Extend(end.after(policy.extend_millis))
    );
}

#[test]
fn what_was_proved_stays_proved_while_the_next_control_is_due() {
    let policy = ProofPolicy::default();
    let evidence = passed(&policy, 60, at(0));
    let pass = at(policy.control_every_millis);
    let due = evidence.after(&policy, Observed::Probe, ProbeAnswer::Accepted, pass);
    let staged = opened(policy);
    let standing = |bench: &Bench, evidence: &Evidence| {
        evidence
            .standing_in(rotation(bench), &policy, pass.after(1))
            .as_str()
    };
    assert_eq!(standing(&staged, &due), "awaiting_control");
    let bench = promoted(policy);
    assert_eq!(standing(&bench, &due), "proved");
    // A delivery that needs the old secret begins no hold-down that anything would wait for.
    let needed = Evidence {
        old_needed_at: Some(at(1)),
        ..evidence
    };
    let words = |bench: &Bench| needed.standing_in(rotation(bench), &policy, at(2)).as_str();
    assert_eq!(words(&staged), "holding_down");
    assert_eq!(words(&bench), "proved");
    // What never had a control after its passes was not proved.
    let mut never = Evidence::new(rotation_id(2));
    for _ in 0..60 {
        never = never.after(&policy, Observed::Probe, ProbeAnswer::Accepted, pass);
    }
    assert_eq!(standing(&bench, &never), "awaiting_control");
    let refused = due.after(&policy, Observed::Probe, ProbeAnswer::Refused, pass);
    assert_eq!(standing(&bench, &refused), "not_ready");
}

#[test]
fn what_was_proved_stays_proved_when_its_passes_grow_old() {
    let policy = ProofPolicy::default();
    let proved = passed(&policy, 60, at(0));
    let late = at(policy.window_millis + HOUR);
    let standing = |bench: &Bench| proved.standing_in(rotation(bench), &policy, late);
    assert_eq!(standing(&promoted(policy)).as_str(), "proved");
    // While it is waited for, they are too old to count, and the words say so.
    let waiting = standing(&opened(policy));
    assert_eq!(waiting.as_str(), "collecting");
    assert!(
        waiting.phrase(&policy).contains("older than"),
        "{waiting:?}"
    );
}

#[test]
fn step_2_retires_no_secret_before_the_time_its_owner_asked_for() {
    let policy = ProofPolicy::default();
    let quiet = at(HOUR + policy.quiet_millis);
    let evidence = heard(&policy, passed(&policy, 60, at(0)), quiet);
    let evidence = released(&policy, evidence, quiet);
    let asked_for = at(policy.deadline_millis + 2 * policy.quiet_millis);
    let extended = |is_asked| {
        let mut bench = promoted(policy);
        let rotation = rotation_id(2);
        let extend = Command::Extend {
            rotation,
            retire_at: asked_for,
            is_asked,
        };
        bench.run(at(HOUR), extend);
        bench
    };
    assert_eq!(step(&extended(true), evidence, quiet), Step::Watch);
    // What the sweep moved by itself still goes when nobody needs it.
    assert_eq!(step(&extended(false), evidence, quiet), Step::Finish);
}

#[test]
fn step_2_asks_whether_the_old_secret_is_refused_before_it_goes() {
    let policy = ProofPolicy::default();
    let bench = promoted(policy);
    let quiet = at(HOUR + policy.quiet_millis);
    // What was asked before it was quiet is not asked of now.
    let known = heard(&policy, passed(&policy, 60, at(0)), quiet);
    let early = released(&policy, known, quiet.before(HOUR));
    let ask = |evidence, now| step(&bench, evidence, now);
    assert_eq!(
        ask(early, quiet),
        Step::AskReleased(vec![(ENDPOINT, quiet)])
    );
    for (answer, times) in [
        (ProbeAnswer::Accepted, 1),
        (ProbeAnswer::Silent, RELEASED_ASKED),
        (ProbeAnswer::Threw, RELEASED_ASKED),
        (ProbeAnswer::Refused, RELEASED_ASKED),
    ] {
        let mut evidence = known;
        let mut now = quiet;
        for _ in 0..times {
            assert_eq!(ask(evidence, now), Step::AskReleased(vec![(ENDPOINT, now)]));
            evidence = evidence.after(&policy, Observed::Released, answer, now);
            now = now.after(policy.probe_every_millis);
        }
        // Whatever it answered, it holds nothing up.
        assert_eq!(ask(evidence, now), Step::Finish, "{answer:?}");
        assert!(evidence.is_quiet(&policy, at(HOUR), quiet), "{answer:?}");
    }
}

#[test]
fn the_latest_answer_to_the_old_secret_says_whether_it_is_released() {
    let none = Released::default();
    assert_eq!(none.verdict(), Release::NotAsked);
    let accepted = none.after(ProbeAnswer::Accepted, false, at(1));
    assert_eq!(accepted.verdict(), Release::StillAccepts { at: at(1) });
    let silent = accepted.after(ProbeAnswer::Silent, false, at(2));
    assert_eq!(silent.verdict(), Release::StillAccepts { at: at(1) });
    let dropped = silent.after(ProbeAnswer::Refused, false, at(3));
    let dropped = dropped.after(ProbeAnswer::Refused, false, at(4));
    let expected = Release::Released {
        refusals: 2,
        at: at(4),
    };
    assert_eq!(dropped.verdict(), expected);
    // A 500 is a refusal where the receiver throws, and silence elsewhere.
    let threw = |throws| none.after(ProbeAnswer::Threw, throws, at(5)).verdict();
    assert_eq!(threw(false), Release::NoAnswer { at: at(5) });
    assert!(matches!(threw(true), Release::Released { .. }));
}

#[test]
fn step_3_moves_the_end_while_the_old_secret_is_needed_and_the_policy_extends() {
    for on_deadline in [OnDeadline::Extend, OnDeadline::Cut] {
        let policy = ProofPolicy {
            on_deadline,
            ..ProofPolicy::default()
        };
        let mut bench = promoted(policy);
        let end = at(policy.deadline_millis);
        assert_eq!(rotation(&bench).stage, Stage::Overlap { retire_at: end });
        let evidence = Evidence {
            old_needed: 1,
            old_needed_at: Some(end.before(2 * HOUR)),
            ..passed(&policy, 60, at(0))
        };
        let near = match on_deadline {
            OnDeadline::Extend => end.before(policy.extend_millis / 2),
            OnDeadline::Cut => end.before(HOUR),
        };
        assert_eq!(step(&bench, evidence, near.before(1)), Step::Watch);
        match (on_deadline, step(&bench, evidence, near)) {
            (OnDeadline::Extend, Step::Extend(retire_at)) => {
                let rotation = rotation_id(2);
                bench.run(
                    near,
                    Command::Extend {
                        rotation,
                        retire_at,
                        is_asked: false,
                    },
                );
                assert_eq!(step(&bench, evidence, near), Step::Watch, "taken once");
            }
            (OnDeadline::Cut, Step::AskReleased(asked)) => {
                assert_eq!(asked, [(ENDPOINT, near)]);
                let asked = released(&policy, evidence, near);
                assert_eq!(step(&bench, asked, near), Step::Watch);
                assert_eq!(step(&bench, evidence, end), Step::Nothing);
            }
            (_, other) => panic!("{other:?}"),
        }
    }
}

/// Promoted by force at `promoted_at`; its receiver refuses the new secret ever after.
fn forced(policy: ProofPolicy, promoted_at: Timestamp) -> (Bench, Evidence) {
    let mut bench = opened(policy);
    let rotation = rotation_id(2);
    let grounds = Grounds::Force;
    bench.run(promoted_at, Command::Promote { rotation, grounds });
    let never = Evidence::new(rotation);
    let refuses = [ProbeAnswer::Refused; 3];
    (
        bench,
        probed(&policy, never, promoted_at.before(HOUR), &refuses),
    )
}

#[test]
fn g6_step_3_leaves_half_of_the_extension_for_a_server_that_is_down() {
    for (deadline, extend, ahead) in [
        (14 * DAY, DAY, DAY / 2),
        (14 * DAY, 10 * DAY, 5 * DAY),
        // The time to the deadline is shorter than the extension.
        (30_000, 60_000, 15_000),
        (16_000, 4_000, 2_000),
        (16_000, limits::EXTEND_MIN, limits::EXTEND_MIN / 2),
    ] {
        let policy = ProofPolicy {
            deadline_millis: deadline,
            extend_millis: extend,
            quiet_millis: 6_000,
            hold_down_millis: 0,
            ..ProofPolicy::default()
        };
        assert_eq!(policy.check(), Ok(()));
        let (mut bench, refused) = forced(policy, at(1_000));
        let mut end = at(deadline);
        let mut moves = end.before(ahead);
        for _ in 0..3 {
            let due = turns_at(rotation(&bench), moves.before(1));
            assert_eq!(due, Some(moves), "{deadline} {extend}");
            assert_eq!(step(&bench, refused, moves.before(1)), Step::Watch);
            // It is as good later, up to the very end: whoever was down for less moves it then.
            let later = end.after(extend);
            for now in [moves, end.before(1)] {
                assert_eq!(step(&bench, refused, now), Step::Extend(later));
            }
            let command = Command::Extend {
                rotation: rotation_id(2),
                retire_at: later,
                is_asked: false,
            };
            bench.run(moves, command);
            assert_eq!(step(&bench, refused, moves), Step::Watch, "taken once");
            // The next move is no sooner than a whole extension after the one at the old end would be.
            (end, moves) = (later, later.before(extend / 2));
        }
    }
}

#[test]
fn g6_step_3_moves_the_end_no_further_than_an_overlap_may_last() {
    let policy = ProofPolicy {
        extend_millis: limits::OVERLAP_MAX,
        deadline_millis: limits::OVERLAP_MAX,
        ..ProofPolicy::default()
    };
    let (mut bench, refused) = forced(policy, at(2 * HOUR));
    let mut now = at(limits::OVERLAP_MAX / 2);
    for _ in 0..3 {
        let latest = now.after(limits::OVERLAP_MAX);
        assert_eq!(step(&bench, refused, now), Step::Extend(latest));
        let command = Command::Extend {
            rotation: rotation_id(2),
            retire_at: latest,
            is_asked: false,
        };
        bench.run(now, command);
        assert_eq!(step(&bench, refused, now), Step::Watch, "taken once");
        now = turns_at(rotation(&bench), now).expect("its end comes near again");
    }
}

#[test]
fn time_alone_changes_the_step_only_when_it_is_said_to() {
    for on_deadline in [OnDeadline::Extend, OnDeadline::Cut] {
        let policy = ProofPolicy {
            on_deadline,
            ..ProofPolicy::default()
        };
        assert_eq!(turns_at(rotation(&opened(policy)), at(0)), None);
        let bench = promoted(policy);
        let end = at(policy.deadline_millis);
        let turns = |now| turns_at(rotation(&bench), now);
        let (moves, asks) = (end.before(policy.extend_millis / 2), end.before(HOUR));
        assert_eq!(turns(at(HOUR)), Some(moves));
        assert_eq!(turns(moves), Some(asks));
        assert_eq!(turns(asks), None);
        assert_eq!(turns(end), None);
    }
}

#[test]
fn other_modes_learn_what_is_needed_and_have_no_steps() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, Mode::Overlap { overlap: DAY }));
    let exchange = |number, status| Exchange {
        signed_with: secret_id(number),
        sent_at: at(5),
        status: Some(status),
    };
    let evidence = learn(None, rotation(&bench), exchange(1, 204));
    assert_eq!((evidence.old_needed, evidence.run), (1, 0));
    let evidence = learn(Some(evidence), rotation(&bench), exchange(2, 204));
    assert_eq!((evidence.old_needed, evidence.run), (1, 1));
    let evidence = learn(Some(evidence), rotation(&bench), exchange(2, 401));
    assert_eq!((evidence.refusals, evidence.run), (1, 0));
    let unchanged = learn(Some(evidence), rotation(&bench), exchange(7, 204));
    assert_eq!(unchanged, evidence, "another key says nothing");
    assert_eq!(step(&bench, evidence, at(6)), Step::Nothing);
}

#[test]
fn attempts_are_counted_as_canaries_and_fallbacks() {
    let bench = opened(ProofPolicy::default());
    let exchange = |number, status, when| Exchange {
        signed_with: secret_id(number),
        sent_at: at(when),
        status: Some(status),
    };
    // An ordinary delivery, a canary that is refused and repaired, one that is accepted, and an
    // ordinary one that the new secret repairs.
    let attempts = [
        vec![exchange(1, 204, 1)],
        vec![exchange(2, 401, 2), exchange(1, 204, 3)],
        vec![exchange(2, 204, 4)],
        vec![exchange(1, 401, 5), exchange(2, 204, 6)],
    ];
    let mut evidence = None;
    for attempt in &attempts {
        evidence = learn_attempt(evidence, rotation(&bench), attempt);
    }
    let evidence = evidence.expect("it learned");
    assert_eq!((evidence.canaries, evidence.fallbacks), (2, 2));
    assert_eq!(evidence.fallback_at, Some(at(6)));
    assert_eq!((evidence.run, evidence.refusals), (2, 1));
}

#[test]
fn every_command_says_what_happens_to_deliveries() {
    let staged = Mode::Staged { overlap: DAY };
    let rotation = rotation_id(2);
    let said = |bench: &Bench, now| {
        let rotation = bench
            .keyring
            .rotation
            .as_ref()
            .expect("there is a rotation");
        rotation.deliveries(at(now))
    };
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, staged));
    assert!(said(&bench, 0).contains("go on with the old secret"));
    let mut cancelled = Bench {
        keyring: bench.keyring.clone(),
    };
    cancelled.run(at(1), Command::Cancel { rotation });
    assert!(said(&cancelled, 1).contains("carries the old secret alone"));
    let grounds = Grounds::Asked;
    bench.run(at(1), Command::Promote { rotation, grounds });
    let end = at(1 + DAY).to_string();
    assert!(said(&bench, 1).contains(&format!("until {end} each delivery")));
    // When its time is over it says so, whether or not anything noted it.
    assert!(said(&bench, 2 * DAY).contains("carries the new secret alone"));
    bench.run(at(2), Command::Undo { rotation });
    assert!(said(&bench, 2).contains("the active one again"));
    bench.run(at(3), Command::Finish { rotation });
    assert!(said(&bench, 3).contains("carries the old secret alone"));
}

#[test]
fn an_overlap_says_whether_its_end_moves() {
    for (on_deadline, expected) in [
        (
            OnDeadline::Extend,
            "no longer, later while it is needed) each",
        ),
        (
            OnDeadline::Cut,
            "(sooner when the old secret is needed no longer) each",
        ),
    ] {
        let bench = promoted(ProofPolicy {
            on_deadline,
            ..ProofPolicy::default()
        });
        let said = rotation(&bench).deliveries(at(2 * HOUR));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn an_overlap_that_was_extended_promises_no_earlier_end() {
    for (on_deadline, expected) in [
        (
            OnDeadline::Extend,
            "(not sooner, because somebody extended it, later while it is needed) each",
        ),
        (
            OnDeadline::Cut,
            "(not sooner, because somebody extended it) each",
        ),
    ] {
        let mut bench = promoted(ProofPolicy {
            on_deadline,
            ..ProofPolicy::default()
        });
        let retire_at = at(20 * DAY);
        let extend = |retire_at, is_asked| Command::Extend {
            rotation: rotation(&bench).id,
            retire_at,
            is_asked,
        };
        let (asked, moved) = (extend(retire_at, true), extend(at(21 * DAY), false));
        bench.run(at(2 * HOUR), asked);
        assert_eq!(rotation(&bench).kept_at(at(3 * HOUR)), Some(retire_at));
        let said = rotation(&bench).deliveries(at(3 * HOUR));
        assert!(said.contains(expected), "{said}");
        // Where the end moved by itself after that, it may go from the time on that was asked for.
        bench.run(at(4 * HOUR), moved);
        let said = rotation(&bench).deliveries(at(5 * HOUR));
        assert!(said.contains(&format!("not before {retire_at}")), "{said}");
        assert_eq!(rotation(&bench).kept_at(retire_at), None);
        let said = rotation(&bench).deliveries(retire_at);
        assert!(said.contains("(sooner when the old"), "{said}");
    }
}

//! The signing plan: DESIGN's table as data, and its numbered list line by line.

use hookturn_core::id::{MessageId, SecretId};
use hookturn_core::limits;
use hookturn_core::proof::{Evidence, Observed, ProbeAnswer, ProofPolicy};
use hookturn_core::receiver::{
    Belief, Exchange, ReceiverClass, ReceiverView, belief_after, fallback_is_due,
    may_be_about_signature,
};
use hookturn_core::rotation::{
    Command, Grounds, Mode, Plan, default_overlap, delivery_plan, signing_plan,
};
use hookturn_core::time::{DAY, HOUR, Timestamp};
use hookturn_verify::Scheme;

use crate::support::{Bench, OVERLAP, at, empty_keyring, rotate, rotation_id, secret_id};

const EVERYONE_ELSE: [ReceiverClass; 6] = [
    ReceiverClass::FirstOnly,
    ReceiverClass::LastOnly,
    ReceiverClass::Single,
    ReceiverClass::DoesNotVerify,
    ReceiverClass::Unreachable,
    ReceiverClass::Unknown,
];

fn believing(class: ReceiverClass, number: u32) -> ReceiverView {
    let secret = secret_id(number);
    ReceiverView {
        class,
        belief: Some(Belief { secret, at: at(0) }),
    }
}

fn unbelieving(class: ReceiverClass) -> ReceiverView {
    ReceiverView {
        class,
        belief: None,
    }
}

fn planned(bench: &Bench, receiver: ReceiverView, scheme: Scheme, now: Timestamp) -> Plan {
    signing_plan(&bench.keyring, &receiver, scheme, now).expect("the keyring has an active secret")
}

fn alone(number: u32) -> Plan {
    Plan {
        sign_with: vec![secret_id(number)],
        fallback: None,
    }
}

/// Both, and when that is refused one of them alone.
fn both(first: u32, second: u32, alone: u32) -> Plan {
    Plan {
        sign_with: vec![secret_id(first), secret_id(second)],
        fallback: Some(secret_id(alone)),
    }
}

fn first_then(first: u32, fallback: u32) -> Plan {
    Plan {
        sign_with: vec![secret_id(first)],
        fallback: Some(secret_id(fallback)),
    }
}

/// Secret 1 active, 2 pending.
fn staged() -> Bench {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, Mode::Staged { overlap: OVERLAP }));
    bench
}

/// Secret 2 active, 1 retiring.
fn overlapping() -> Bench {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, Mode::Overlap { overlap: OVERLAP }));
    bench
}

#[test]
fn rule_1_no_active_secret_no_plan() {
    let receiver = ReceiverView::default();
    let plan = signing_plan(&empty_keyring(), &receiver, Scheme::Standard, at(0));
    assert!(plan.is_err());
}

#[test]
fn rule_1_a_compromised_active_secret_still_signs() {
    let mut bench = Bench::new();
    bench.run(
        at(0),
        Command::Compromise {
            secret: secret_id(1),
        },
    );
    let receiver = ReceiverView::default();
    assert_eq!(planned(&bench, receiver, Scheme::Standard, at(0)), alone(1));
}

#[test]
fn g4_rule_2_a_key_past_its_date_is_gone_although_nothing_settled() {
    let bench = overlapping();
    for class in EVERYONE_ELSE.into_iter().chain([ReceiverClass::ListAware]) {
        let receiver = believing(class, 1);
        let last = planned(&bench, receiver, Scheme::Standard, at(OVERLAP - 1));
        let mut keys: Vec<SecretId> = last.sign_with;
        keys.extend(last.fallback);
        assert!(keys.contains(&secret_id(1)), "{class:?}");
        assert_eq!(
            planned(&bench, receiver, Scheme::Standard, at(OVERLAP)),
            alone(2)
        );
    }
}

/// No command makes such keyrings; the plan does not rely on that.
#[test]
fn rule_2_a_compromised_key_never_helps_out() {
    for (mut bench, helper, expected) in [(staged(), 1, 1), (overlapping(), 0, 2)] {
        bench.keyring.secrets[helper].compromised = Some(at(0));
        for class in EVERYONE_ELSE.into_iter().chain([ReceiverClass::ListAware]) {
            for receiver in [unbelieving(class), believing(class, 1), believing(class, 2)] {
                assert_eq!(
                    planned(&bench, receiver, Scheme::Standard, at(1)),
                    alone(expected)
                );
            }
        }
    }
}

#[test]
fn rule_3_steady_is_the_active_secret_alone() {
    let bench = Bench::new();
    for scheme in Scheme::ALL {
        for class in EVERYONE_ELSE.into_iter().chain([ReceiverClass::ListAware]) {
            assert_eq!(planned(&bench, unbelieving(class), scheme, at(0)), alone(1));
            assert_eq!(
                planned(&bench, believing(class, 9), scheme, at(0)),
                alone(1)
            );
        }
    }
}

#[test]
fn rule_4_a_list_aware_receiver_gets_both_the_active_first_and_then_what_it_is_believed_to_hold() {
    let class = ReceiverClass::ListAware;
    for (receiver, alone) in [
        (unbelieving(class), 1),
        (believing(class, 1), 1),
        (believing(class, 2), 2),
    ] {
        assert_eq!(
            planned(&staged(), receiver, Scheme::Standard, at(1)),
            both(1, 2, alone)
        );
        assert_eq!(
            planned(&overlapping(), receiver, Scheme::Standard, at(1)),
            both(2, 1, alone)
        );
    }
}

#[test]
fn g4_rule_4_a_compromised_secret_is_no_fallback_of_both() {
    let mut bench = staged();
    let secret = secret_id(1);
    bench.run(at(1), Command::Compromise { secret });
    let receiver = believing(ReceiverClass::ListAware, 1);
    let plan = planned(&bench, receiver, Scheme::Standard, at(1));
    assert_eq!(plan, both(1, 2, 2));
}

#[test]
fn rule_4_a_scheme_with_one_signature_never_gets_two() {
    let receiver = believing(ReceiverClass::ListAware, 2);
    for scheme in [Scheme::Hopae, Scheme::Kore, Scheme::Github] {
        assert_eq!(
            planned(&staged(), receiver, scheme, at(1)),
            first_then(1, 2)
        );
        assert_eq!(
            planned(&overlapping(), receiver, scheme, at(1)),
            first_then(2, 1)
        );
    }
}

#[test]
fn rule_5_staged_for_everyone_else_is_current_then_pending() {
    for scheme in Scheme::ALL {
        for class in EVERYONE_ELSE {
            for receiver in [unbelieving(class), believing(class, 1), believing(class, 2)] {
                assert_eq!(
                    planned(&staged(), receiver, scheme, at(1)),
                    first_then(1, 2)
                );
            }
        }
    }
}

#[test]
fn rule_6_a_compromised_active_secret_comes_first_so_that_it_is_no_fallback() {
    let mut bench = overlapping();
    bench.run(
        at(1),
        Command::Compromise {
            secret: secret_id(2),
        },
    );
    for class in EVERYONE_ELSE {
        for receiver in [unbelieving(class), believing(class, 1), believing(class, 2)] {
            assert_eq!(
                planned(&bench, receiver, Scheme::Github, at(1)),
                first_then(2, 1)
            );
        }
    }
}

#[test]
fn rule_7_overlap_for_everyone_else_is_the_believed_key_then_the_other() {
    for scheme in Scheme::ALL {
        for class in EVERYONE_ELSE {
            let plan = |receiver| planned(&overlapping(), receiver, scheme, at(1));
            assert_eq!(plan(believing(class, 1)), first_then(1, 2));
            assert_eq!(plan(believing(class, 2)), first_then(2, 1));
            assert_eq!(plan(unbelieving(class)), first_then(1, 2));
            assert_eq!(plan(believing(class, 9)), first_then(1, 2));
        }
    }
}

#[test]
fn rule_7_after_an_undo_the_older_secret_comes_first_unless_belief_says_otherwise() {
    let mut bench = overlapping();
    bench.run(
        at(1),
        Command::Undo {
            rotation: rotation_id(2),
        },
    );
    let class = ReceiverClass::Unknown;
    let plan = |receiver, now| planned(&bench, receiver, Scheme::Standard, now);
    assert_eq!(plan(unbelieving(class), at(1)), first_then(1, 2));
    assert_eq!(plan(believing(class, 2), at(1)), first_then(2, 1));
    assert_eq!(plan(believing(class, 2), at(1 + OVERLAP)), alone(1));
    assert_eq!(
        plan(unbelieving(ReceiverClass::ListAware), at(1)),
        both(1, 2, 1)
    );
}

#[test]
fn a_refusal_may_be_about_the_signature_only_for_these_statuses() {
    for status in 100..600 {
        let always = [400, 401, 403, 422].contains(&status);
        assert_eq!(may_be_about_signature(status, true), always, "{status}");
        assert_eq!(
            may_be_about_signature(status, false),
            always || status == 500,
            "{status}"
        );
    }
}

fn exchange(number: u32, sent_at: Timestamp, status: Option<u16>) -> Exchange {
    Exchange {
        signed_with: secret_id(number),
        sent_at,
        status,
    }
}

#[test]
fn a_500_calls_for_the_fallback_unless_the_signing_key_is_the_believed_one() {
    let believed = believing(ReceiverClass::Unknown, 1).belief;
    let due = |belief, exchange| fallback_is_due(belief, exchange, true, false);
    assert!(!due(believed, exchange(1, at(1), Some(500))));
    assert!(due(believed, exchange(2, at(1), Some(500))));
    assert!(due(None, exchange(1, at(1), Some(500))));
    assert!(due(believed, exchange(1, at(1), Some(401))));
    assert!(!due(None, exchange(1, at(1), None)));
    assert!(!due(None, exchange(1, at(1), Some(204))));
    // A later attempt does not trust what did not help the message before.
    let later = |status| fallback_is_due(believed, exchange(1, at(1), Some(status)), false, false);
    assert!(later(500) && later(401) && !later(503) && !later(204));
    // One that is known to throw says by a 500 what others say by a 401.
    let throws = |status| fallback_is_due(believed, exchange(1, at(1), Some(status)), true, true);
    assert!(throws(500) && throws(401) && !throws(503) && !throws(204));
}

#[test]
fn belief_follows_its_four_rules() {
    let old = Belief {
        secret: secret_id(1),
        at: at(10),
    };
    let new = Belief {
        secret: secret_id(2),
        at: at(20),
    };
    let cases = [
        ("1: late evidence", exchange(2, at(9), Some(200)), Some(old)),
        (
            "2: accepted in the same millisecond",
            exchange(2, at(10), Some(200)),
            Some(Belief { at: at(10), ..new }),
        ),
        ("2: accepted", exchange(2, at(20), Some(200)), Some(new)),
        (
            "2: accepted with 299",
            exchange(2, at(20), Some(299)),
            Some(new),
        ),
        (
            "3: the believed key refused",
            exchange(1, at(20), Some(401)),
            None,
        ),
        (
            "3: the believed key met 500",
            exchange(1, at(20), Some(500)),
            None,
        ),
        (
            "3: another key refused",
            exchange(2, at(20), Some(401)),
            Some(old),
        ),
        ("4: redirect", exchange(1, at(20), Some(302)), Some(old)),
        ("4: not found", exchange(1, at(20), Some(404)), Some(old)),
        ("4: unavailable", exchange(1, at(20), Some(503)), Some(old)),
        ("4: no answer", exchange(1, at(20), None), Some(old)),
    ];
    for (name, exchange, expected) in cases {
        assert_eq!(belief_after(Some(old), exchange), expected, "{name}");
    }
}

#[test]
fn the_default_overlap_covers_the_retry_horizon_and_a_day_for_people() {
    assert_eq!(default_overlap(0), 2 * DAY);
    assert_eq!(default_overlap(HOUR), 2 * DAY);
    assert_eq!(default_overlap(3 * DAY), 4 * DAY);
    assert_eq!(default_overlap(300 * DAY), limits::OVERLAP_MAX);
    assert_eq!(default_overlap(u64::MAX), limits::OVERLAP_MAX);
}

/// Evidence of so many passes that half of the deliveries are canaries.
fn many_passes() -> Evidence {
    let policy = ProofPolicy::default();
    let mut evidence = Evidence::new(rotation_id(2));
    evidence = evidence.after(&policy, Observed::Control, ProbeAnswer::Refused, at(0));
    for _ in 0..40 {
        evidence = evidence.after(&policy, Observed::Probe, ProbeAnswer::Accepted, at(0));
    }
    evidence
}

/// The plans of a thousand messages to a list-aware receiver.
fn plans(bench: &Bench, evidence: Option<&Evidence>) -> Vec<Plan> {
    let receiver = believing(ReceiverClass::ListAware, 1);
    (0..1_000_u128)
        .map(|number| {
            let message = MessageId::from_bytes(number.to_be_bytes());
            delivery_plan(
                &bench.keyring,
                &receiver,
                evidence,
                message,
                Scheme::Standard,
                at(1),
            )
            .expect("the keyring has an active secret")
        })
        .collect()
}

#[test]
fn canaries_are_signed_with_the_pending_secret_and_repaired_by_the_active() {
    let mut bench = Bench::new();
    let policy = ProofPolicy::default();
    bench.run(at(0), rotate(2, Mode::Proven { policy }));
    let evidence = many_passes();
    let canary = Plan {
        sign_with: vec![secret_id(2)],
        fallback: Some(secret_id(1)),
    };
    let planned = plans(&bench, Some(&evidence));
    let canaries = planned.iter().filter(|plan| **plan == canary).count();
    assert!((400..600).contains(&canaries), "{canaries} of 1,000");
    let receiver = believing(ReceiverClass::ListAware, 1);
    let ordinary = signing_plan(&bench.keyring, &receiver, Scheme::Standard, at(1))
        .expect("the keyring has an active secret");
    let known = |plan: &Plan| *plan == canary || *plan == ordinary;
    assert!(planned.iter().all(known));
    // Neither without evidence nor with that of another rotation.
    let foreign = Evidence {
        rotation: rotation_id(3),
        ..evidence
    };
    assert!(!plans(&bench, None).contains(&canary));
    assert!(!plans(&bench, Some(&foreign)).contains(&canary));
    // The active secret may not be a fallback once it leaked, so there are no canaries.
    let mut leaked = Bench {
        keyring: bench.keyring.clone(),
    };
    let secret = secret_id(1);
    leaked.run(at(1), Command::Compromise { secret });
    assert!(!plans(&leaked, Some(&evidence)).contains(&canary));
    // And none after the promotion.
    let rotation = rotation_id(2);
    let grounds = Grounds::Force;
    bench.run(at(1), Command::Promote { rotation, grounds });
    assert!(!plans(&bench, Some(&evidence)).contains(&canary));
}

/// Evidence of rotation 2 after `messages` that the active secret got refused, each accepted under the
/// pending one.
fn switched(messages: u32) -> Evidence {
    let policy = ProofPolicy::default();
    (0..messages).fold(Evidence::new(rotation_id(2)), |evidence, _| {
        evidence
            .after(&policy, Observed::Current, ProbeAnswer::Refused, at(0))
            .after(&policy, Observed::Delivery, ProbeAnswer::Accepted, at(0))
    })
}

fn delivered(bench: &Bench, receiver: ReceiverView, evidence: Option<&Evidence>) -> Plan {
    let message = MessageId::from_bytes([7; 16]);
    let scheme = Scheme::Standard;
    delivery_plan(&bench.keyring, &receiver, evidence, message, scheme, at(1))
        .expect("the keyring has an active secret")
}

#[test]
fn g6_a_receiver_that_switched_early_gets_the_pending_secret_first() {
    let policy = ProofPolicy::default();
    let mut proving = Bench::new();
    proving.run(at(0), rotate(2, Mode::Proven { policy }));
    let known = switched(3);
    let hear = |evidence: Evidence, observed, answer| {
        (0..4).fold(evidence, |evidence, _| {
            evidence.after(&policy, observed, answer, at(0))
        })
    };
    let nothing = Evidence::new(rotation_id(2));
    let (refused, accepted) = (ProbeAnswer::Refused, ProbeAnswer::Accepted);
    let of_former = Evidence {
        rotation: rotation_id(1),
        ..known
    };
    let others = [
        // Two messages may be chance.
        Some(switched(2)),
        // It refuses both, or accepts both, or has moved back.
        Some(hear(nothing, Observed::Current, refused)),
        Some(hear(nothing, Observed::Delivery, accepted)),
        Some(hear(known, Observed::Current, accepted)),
        Some(hear(known, Observed::Delivery, refused)),
        Some(of_former),
        None,
    ];
    for bench in [&staged(), &proving] {
        for class in EVERYONE_ELSE {
            for receiver in [believing(class, 1), believing(class, 2), unbelieving(class)] {
                let plan = |evidence| delivered(bench, receiver, evidence);
                assert_eq!(plan(Some(&known)), first_then(2, 1));
                for other in &others {
                    assert_eq!(plan(other.as_ref()), first_then(1, 2), "{other:?}");
                }
            }
        }
    }
    let lists = believing(ReceiverClass::ListAware, 2);
    assert_eq!(delivered(&staged(), lists, Some(&known)), both(1, 2, 2));
}

#[test]
fn g4_a_receiver_that_switched_early_gets_no_compromised_secret_in_its_place() {
    let known = switched(3);
    let receiver = believing(ReceiverClass::Single, 2);
    for number in [1, 2] {
        let mut bench = staged();
        let secret = secret_id(number);
        bench.run(at(1), Command::Compromise { secret });
        let plan = delivered(&bench, receiver, Some(&known));
        let by_plan = planned(&bench, receiver, Scheme::Standard, at(1));
        assert_eq!(plan, by_plan, "{number}");
        assert_ne!(plan, first_then(2, 1), "{number}");
    }
}

#[test]
fn g6_in_the_overlap_a_receiver_that_accepts_the_new_secret_gets_it_first() {
    let policy = ProofPolicy::default();
    let new =
        |evidence: Evidence, answer, now| evidence.after(&policy, Observed::Delivery, answer, now);
    let nothing = Evidence::new(rotation_id(2));
    let accepted = new(nothing, ProbeAnswer::Accepted, at(1));
    let refused = new(accepted, ProbeAnswer::Refused, at(2));
    for class in EVERYONE_ELSE {
        // It accepted the old one last: it may hold both.
        let receiver = believing(class, 1);
        let plan = |evidence: &Evidence| delivered(&overlapping(), receiver, Some(evidence));
        assert_eq!(plan(&accepted), first_then(2, 1));
        assert_eq!(plan(&refused), first_then(1, 2));
        assert_eq!(plan(&nothing), first_then(1, 2));
    }
    // The old one is needed by whom the new one did not satisfy, and by nobody else.
    let old = |evidence: Evidence, now| {
        let answer = ProbeAnswer::Accepted;
        evidence
            .after(&policy, Observed::Old, answer, now)
            .old_needed
    };
    assert_eq!(old(nothing, at(3)), 1);
    assert_eq!(old(accepted, at(3)), 0);
    assert_eq!(old(refused, at(3)), 1);
}

#[test]
fn every_plan_says_why_it_signs_with_what_it_does() {
    use hookturn_core::delivery::ExchangeReason;
    let steady = Bench::new();
    let mut leaked = overlapping();
    let secret = secret_id(2);
    leaked.run(at(1), Command::Compromise { secret });
    let single = ReceiverClass::Single;
    let cases = [
        (&steady, unbelieving(single), ExchangeReason::Steady),
        (&staged(), believing(single, 2), ExchangeReason::Current),
        (&overlapping(), believing(single, 2), ExchangeReason::Belief),
        (
            &overlapping(),
            unbelieving(single),
            ExchangeReason::NoBelief,
        ),
        (&leaked, believing(single, 1), ExchangeReason::Compromised),
        (
            &overlapping(),
            believing(ReceiverClass::ListAware, 1),
            ExchangeReason::CoSigned,
        ),
    ];
    for (bench, receiver, reason) in cases {
        let plan = planned(bench, receiver, Scheme::Standard, at(2));
        assert_eq!(
            plan.reason(&bench.keyring, &receiver, None),
            reason,
            "{plan:?}"
        );
    }
    let canary = first_then(2, 1);
    let receiver = believing(single, 1);
    assert_eq!(
        canary.reason(&staged().keyring, &receiver, None),
        ExchangeReason::Canary
    );
    let policy = ProofPolicy::default();
    let accepted = Evidence::new(rotation_id(2)).after(
        &policy,
        Observed::Delivery,
        ProbeAnswer::Accepted,
        at(0),
    );
    let former = Evidence {
        rotation: rotation_id(1),
        ..accepted
    };
    let new_first = first_then(2, 1);
    let reason = |evidence| new_first.reason(&overlapping().keyring, &receiver, Some(evidence));
    assert_eq!(reason(&accepted), ExchangeReason::Belief);
    assert_eq!(reason(&former), ExchangeReason::NoBelief);
    let early = switched(3);
    assert_eq!(
        canary.reason(&staged().keyring, &believing(single, 2), Some(&early)),
        ExchangeReason::Belief
    );
    // Also where the old one was the last that it accepted alone: so the words may not claim the contrary.
    assert_eq!(
        canary.reason(&staged().keyring, &believing(single, 1), Some(&early)),
        ExchangeReason::Belief
    );
    let words = ExchangeReason::Belief.words();
    assert!(!words.contains("last accepted"), "{words}");
}

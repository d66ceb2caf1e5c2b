//! Notices: what the owner of a rotation is told, and that each thing is told once.

use hookturn_core::id::{EndpointId, KeyringId, RotationId, SecretId, WorkspaceId};
use hookturn_core::proof::{
    Evidence, Noted, Notice, Observed, ProbeAnswer, ProofPolicy, Stall, notices,
};
use hookturn_core::rotation::{Mode, Rotation, Stage};
use hookturn_core::time::{DAY, HOUR, MINUTE, Timestamp};

const START: Timestamp = Timestamp::from_millis(1_784_505_600_000);

fn rotation(mode: Mode, stage: Stage) -> Rotation {
    Rotation {
        id: RotationId::from_bytes([7; 16]),
        keyring: KeyringId::from_bytes([1; 16]),
        workspace: WorkspaceId::from_bytes([2; 16]),
        mode,
        opened_at: START,
        from: SecretId::from_bytes([4; 16]),
        to: SecretId::from_bytes([5; 16]),
        stage,
        reason: None,
        promotion: None,
        kept_until: None,
        version: 1,
    }
}

fn proven(stage: Stage) -> Rotation {
    let policy = ProofPolicy::default();
    rotation(Mode::Proven { policy }, stage)
}

fn endpoint(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 16])
}

/// Answers one after the other, a minute apart, the last one at `end`.
fn answered(end: Timestamp, answers: &[(Observed, ProbeAnswer)]) -> Evidence {
    let policy = ProofPolicy::default();
    let mut evidence = Evidence::new(RotationId::from_bytes([7; 16]));
    let mut at = answers.iter().skip(1).fold(end, |at, _| at.before(MINUTE));
    for (observed, answer) in answers {
        evidence = evidence.after(&policy, *observed, *answer, at);
        at = at.after(MINUTE);
    }
    evidence
}

const REFUSED_CONTROL: (Observed, ProbeAnswer) = (Observed::Control, ProbeAnswer::Refused);
const ACCEPTED_CONTROL: (Observed, ProbeAnswer) = (Observed::Control, ProbeAnswer::Accepted);
const PASS: (Observed, ProbeAnswer) = (Observed::Probe, ProbeAnswer::Accepted);
const REFUSAL: (Observed, ProbeAnswer) = (Observed::Probe, ProbeAnswer::Refused);
const SILENCE: (Observed, ProbeAnswer) = (Observed::Probe, ProbeAnswer::Silent);

fn stall_after(evidence: Option<&Evidence>, now: Timestamp) -> Option<Stall> {
    let (said, _) = notices(
        &proven(Stage::Staged),
        &[(endpoint(1), evidence.copied())],
        None,
        now,
    );
    said.iter().find_map(|notice| match notice {
        Notice::Stalled { stall, .. } => Some(*stall),
        _ => None,
    })
}

#[test]
fn a_rotation_stalls_for_the_reason_that_its_receiver_gives() {
    let day = START.after(DAY);
    let old = START.after(HOUR);
    let mixed = [PASS, REFUSAL, PASS, REFUSAL, PASS, REFUSAL, PASS];
    // Some machines of its fleet verify, and the others accept a random key.
    let half_open = [ACCEPTED_CONTROL, REFUSED_CONTROL, PASS].repeat(3);
    let page = [&[ACCEPTED_CONTROL; 9][..], &[REFUSED_CONTROL, PASS]].concat();
    let cases = [
        (None, Some(Stall::NotAsked)),
        (Some(answered(old, &[SILENCE])), Some(Stall::Unreachable)),
        (
            Some(answered(old, &[ACCEPTED_CONTROL])),
            Some(Stall::DoesNotVerify),
        ),
        (
            Some(answered(old, &[REFUSED_CONTROL, REFUSAL])),
            Some(Stall::Refuses { last: old }),
        ),
        (
            Some(answered(START, &[REFUSED_CONTROL, PASS])),
            Some(Stall::Silent { last: START }),
        ),
        // Passes go on, so it makes progress.
        (Some(answered(old, &[REFUSED_CONTROL, PASS])), None),
        (Some(answered(day, &half_open)), Some(Stall::DoesNotVerify)),
        (Some(answered(day, &page)), None),
        (
            Some(answered(day, &mixed)),
            Some(Stall::Mixed {
                broken: 3,
                last: day.before(MINUTE),
            }),
        ),
    ];
    for (evidence, wanted) in cases {
        assert_eq!(stall_after(evidence.as_ref(), day), wanted, "{evidence:?}");
        assert_eq!(
            stall_after(evidence.as_ref(), day.before(1)),
            None,
            "{evidence:?}"
        );
    }
    let (said, _) = notices(&proven(Stage::Staged), &[], None, day);
    let nobody = Notice::Stalled {
        endpoint: None,
        endpoints: 0,
        stall: Stall::NobodyCounts,
    };
    assert_eq!(said, [nobody]);
}

#[test]
fn each_thing_is_said_once_and_a_stall_again_after_progress() {
    let staged = proven(Stage::Staged);
    let mut noted: Option<Noted> = None;
    let mut say = |evidence: Evidence, now: Timestamp| {
        let endpoints = [(endpoint(1), Some(evidence)), (endpoint(2), Some(evidence))];
        let (said, told) = notices(&staged, &endpoints, noted.as_ref(), now);
        noted = Some(told);
        said
    };
    let day = START.after(DAY);
    let fool = answered(START, &[ACCEPTED_CONTROL]);
    let said = say(fool, START);
    assert_eq!(said.len(), 2, "one for each receiver: {said:?}");
    assert!(say(fool, START.after(HOUR)).is_empty());
    let said = say(fool, day);
    assert!(
        matches!(said[..], [Notice::Stalled { endpoints: 2, .. }]),
        "{said:?}"
    );
    assert!(say(fool, day.after(1)).is_empty());
    // It makes progress, and stops again.
    let passing = answered(day.after(HOUR), &[REFUSED_CONTROL, PASS]);
    assert!(say(passing, day.after(HOUR)).is_empty());
    let said = say(passing, day.after(HOUR + DAY));
    assert!(matches!(said[..], [Notice::Stalled { .. }]), "{said:?}");
    // Enough passes, as many controls, and the hold-down.
    let now = day.after(3 * DAY);
    let mut answers = vec![PASS; 56];
    answers.extend([[REFUSED_CONTROL, PASS]; 3].as_flattened());
    answers.push(REFUSED_CONTROL);
    let proved = answered(now.before(HOUR), &answers);
    let said = say(proved, now);
    assert_eq!(
        said,
        [Notice::Proved {
            endpoints: 2,
            passes: 59
        }]
    );
    assert!(say(proved, now.after(1)).is_empty());
}

#[test]
fn a_deadline_is_near_once_for_each_deadline() {
    let policy = ProofPolicy::default();
    let end = START.after(policy.deadline_millis);
    let near = |rotation: &Rotation, noted: Option<&Noted>, now| {
        let evidence = answered(now, &[REFUSED_CONTROL, PASS]);
        let (said, noted) = notices(rotation, &[(endpoint(1), Some(evidence))], noted, now);
        let near = said.into_iter().find_map(|notice| match notice {
            Notice::DeadlineNear { deadline } => Some(deadline),
            _ => None,
        });
        (near, noted)
    };
    let staged = proven(Stage::Staged);
    let (said, noted) = near(&staged, None, end.before(DAY + 1));
    assert_eq!(said, None);
    let (said, noted) = near(&staged, Some(&noted), end.before(DAY));
    assert_eq!(said, Some(end));
    let (said, noted) = near(&staged, Some(&noted), end.after(DAY));
    assert_eq!(said, None);
    // Promoted and extended: another deadline.
    let later = end.after(2 * DAY);
    let overlap = proven(Stage::Overlap { retire_at: later });
    let (said, noted) = near(&overlap, Some(&noted), later.before(DAY));
    assert_eq!(said, Some(later));
    assert_eq!(near(&overlap, Some(&noted), later.before(1)).0, None);
    // A short rotation is not near its end from the beginning on.
    let short = ProofPolicy {
        deadline_millis: 4 * HOUR,
        quiet_millis: HOUR,
        ..policy
    };
    let short = rotation(Mode::Proven { policy: short }, Stage::Staged);
    assert_eq!(near(&short, None, START.after(3 * HOUR - 1)).0, None);
    assert_eq!(
        near(&short, None, START.after(3 * HOUR)).0,
        Some(START.after(4 * HOUR))
    );
}

#[test]
fn a_deadline_that_is_about_to_move_is_near() {
    let policy = ProofPolicy {
        extend_millis: 6 * DAY,
        ..ProofPolicy::default()
    };
    let end = START.after(policy.deadline_millis);
    let overlap = rotation(Mode::Proven { policy }, Stage::Overlap { retire_at: end });
    let say = |answer, now| {
        let evidence = answered(START.after(HOUR), &[REFUSED_CONTROL, answer]);
        notices(&overlap, &[(endpoint(1), Some(evidence))], None, now).0
    };
    let near = [Notice::DeadlineNear { deadline: end }];
    let moves = end.before(3 * DAY);
    assert_eq!(say(REFUSAL, moves.before(1)), []);
    assert_eq!(say(REFUSAL, moves), near);
    // One that moves for nobody is near when the policy says so.
    assert_eq!(say(PASS, moves), []);
    assert_eq!(say(PASS, end.before(DAY)), near);
}

#[test]
fn an_overlap_is_near_its_end_while_someone_is_not_known_to_hold_the_new_secret() {
    let end = START.after(4 * DAY);
    let mode = Mode::Overlap { overlap: 4 * DAY };
    let overlap = rotation(mode, Stage::Overlap { retire_at: end });
    let switched = answered(START.after(DAY), &[REFUSAL, PASS]);
    let needed = (Observed::Old, ProbeAnswer::Accepted);
    let needs_old = answered(START.after(DAY), &[PASS, REFUSAL, needed]);
    let near = |endpoints: &[Option<Evidence>], now| {
        let endpoints: Vec<_> = (1..).map(endpoint).zip(endpoints.iter().copied()).collect();
        let (said, noted) = notices(&overlap, &endpoints, None, now);
        assert!(
            notices(&overlap, &endpoints, Some(&noted), now)
                .0
                .is_empty()
        );
        said == [Notice::DeadlineNear { deadline: end }]
    };
    let day_before = end.before(DAY);
    assert!(near(&[None], day_before));
    assert!(near(&[Some(needs_old)], day_before));
    assert!(near(&[Some(switched), Some(needs_old)], day_before));
    assert!(!near(&[Some(switched)], day_before));
    assert!(!near(&[Some(needs_old)], day_before.before(1)));
    assert!(!near(&[Some(needs_old)], end));
}

#[test]
fn staged_and_rotations_that_are_over_say_nothing() {
    let over = [
        proven(Stage::Completed { at: START }),
        proven(Stage::Cancelled { at: START }),
        proven(Stage::Undone {
            at: START,
            retire_at: START,
        }),
        rotation(Mode::Staged { overlap: DAY }, Stage::Staged),
        rotation(
            Mode::Overlap { overlap: DAY },
            Stage::Overlap {
                retire_at: START.after(DAY),
            },
        ),
    ];
    for rotation in over {
        let (said, _) = notices(
            &rotation,
            &[(endpoint(1), None)],
            None,
            START.after(30 * DAY),
        );
        assert!(said.is_empty(), "{rotation:?}: {said:?}");
    }
}

#[test]
fn that_a_receiver_does_not_verify_is_said_once_however_often_it_is_asked() {
    let rotation = proven(Stage::Staged);
    let mut noted = None;
    let mut said = 0;
    let mut answers = Vec::new();
    for (nth, answer) in [
        ACCEPTED_CONTROL,
        ACCEPTED_CONTROL,
        REFUSED_CONTROL,
        PASS,
        ACCEPTED_CONTROL,
    ]
    .into_iter()
    .enumerate()
    {
        answers.push(answer);
        let now = START.after(MINUTE * u64::try_from(nth).unwrap());
        let evidence = [(endpoint(1), Some(answered(now, &answers)))];
        let (notices, told) = notices(&rotation, &evidence, noted.as_ref(), now);
        said += notices.len();
        noted = Some(told);
    }
    assert_eq!(said, 1);
    assert_eq!(noted.unwrap().do_not_verify, [endpoint(1)]);
}

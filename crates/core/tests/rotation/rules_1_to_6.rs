//! The numbered list of `apply`, line by line: opening, promoting, extending and finishing.

use hookturn_core::audit::AuditAction;
use hookturn_core::limits;
use hookturn_core::proof::ProofPolicy;
use hookturn_core::rotation::{
    Applied, Command, Grounds, Keyring, Mode, Rejected, SecretState, SecretStatus, Stage, apply,
};
use hookturn_core::time::{HOUR, Timestamp};

use crate::support::{
    Bench, OVERLAP, OVERLAPPING, STAGED, at, create, empty_keyring, promote, proof, rotate,
    rotation_id, secret_id, stage,
};

fn actions(applied: &Applied) -> Vec<&str> {
    applied.audit.iter().map(|e| e.action.as_str()).collect()
}

#[test]
fn rule_1_time_is_written_down_before_the_command() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    let applied = bench.run(at(OVERLAP + HOUR), rotate(3, OVERLAPPING));
    let [first, second] = applied.rotations.as_slice() else {
        panic!("both rotations changed: {:?}", applied.rotations);
    };
    assert_eq!(first.stage, Stage::Completed { at: at(OVERLAP) });
    assert_eq!(second.id, rotation_id(3));
    let old = bench.keyring.secret(secret_id(1)).unwrap();
    assert_eq!(old.state, SecretState::Retired { at: at(OVERLAP) });
}

#[test]
fn rule_1_settle_is_refused_when_there_is_nothing_to_write_down() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.refuse(at(0), Command::Settle),
        Rejected::NothingToSettle
    );
    bench.run(at(0), rotate(2, OVERLAPPING));
    assert_eq!(bench.keyring.settle_due_at(), Some(at(OVERLAP)));
    assert_eq!(
        bench.refuse(at(OVERLAP - 1), Command::Settle),
        Rejected::NothingToSettle
    );
    let applied = bench.run(at(OVERLAP), Command::Settle);
    assert_eq!(actions(&applied), ["secret.retired", "rotation.completed"]);
    assert_eq!(bench.keyring.settle_due_at(), None);
    assert_eq!(
        bench.refuse(at(OVERLAP), Command::Settle),
        Rejected::NothingToSettle
    );
}

#[test]
fn rule_2_the_first_secret_is_active_and_later_ones_are_pending() {
    let mut bench = Bench::new();
    assert_eq!(bench.status(1, at(0)), SecretStatus::Active);
    assert_eq!(bench.keyring.rotation, None);
    let applied = bench.run(at(1), create(2, false));
    assert_eq!(bench.status(2, at(1)), SecretStatus::Pending);
    assert_eq!(stage(&applied), Stage::Staged);
    assert_eq!(bench.status(1, at(1)), SecretStatus::Active);
}

#[test]
fn rule_2_a_pending_secret_is_replaced_only_on_request() {
    let mut bench = Bench::new();
    bench.run(at(1), create(2, false));
    assert_eq!(
        bench.refuse(at(2), create(3, false)),
        Rejected::PendingExists {
            secret: secret_id(2),
            rotation: rotation_id(2)
        }
    );
    let applied = bench.run(at(2), create(3, true));
    assert_eq!(applied.destroyed, [secret_id(2)]);
    assert_eq!(applied.rotations[0].stage, Stage::Cancelled { at: at(2) });
    assert_eq!(bench.status(2, at(2)), SecretStatus::Destroyed);
    assert_eq!(bench.status(3, at(2)), SecretStatus::Pending);
    assert_eq!(
        actions(&applied),
        [
            "secret.replaced",
            "rotation.cancelled",
            "secret.destroyed",
            "rotation.opened",
            "secret.created"
        ]
    );
}

#[test]
fn rule_2_no_secret_is_created_during_an_overlap() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    assert!(matches!(
        bench.refuse(at(1), create(3, true)),
        Rejected::RotationOpen { open, .. } if open == rotation_id(2)
    ));
    bench.run(at(OVERLAP), create(3, false));
}

#[test]
fn rule_3_a_second_rotation_is_refused_with_the_id_of_the_open_one() {
    for first in [OVERLAPPING, STAGED] {
        for second in [OVERLAPPING, STAGED] {
            let mut bench = Bench::new();
            bench.run(at(0), rotate(2, first));
            assert!(matches!(
                bench.refuse(at(1), rotate(3, second)),
                Rejected::RotationOpen { open, .. } if open == rotation_id(2)
            ));
        }
    }
}

#[test]
fn rule_3_an_empty_keyring_has_nothing_to_rotate_from() {
    let bench = Bench {
        keyring: empty_keyring(),
    };
    assert_eq!(
        bench.refuse(at(0), rotate(1, Mode::Immediate)),
        Rejected::NoActiveSecret
    );
}

fn proven() -> Mode {
    Mode::Proven {
        policy: ProofPolicy::default(),
    }
}

#[test]
fn rule_3_proven_makes_the_new_secret_pending() {
    let mut bench = Bench::new();
    let applied = bench.run(at(0), rotate(2, proven()));
    assert_eq!(stage(&applied), Stage::Staged);
    assert_eq!(bench.status(2, at(0)), SecretStatus::Pending);
    let policy = ProofPolicy {
        deadline_millis: 1,
        ..ProofPolicy::default()
    };
    let refused = Bench::new().refuse(at(0), rotate(2, Mode::Proven { policy }));
    assert_eq!(refused.code(), "invalid_policy");
}

#[test]
fn g7_a_proven_rotation_is_promoted_by_its_own_proof_or_by_force_only() {
    let asked = |rotation, grounds| Command::Promote { rotation, grounds };
    let id = rotation_id(2);
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, proven()));
    let activate = Command::Activate {
        secret: secret_id(2),
        overlap: None,
    };
    let unproved = Rejected::NotProven { rotation: id };
    let foreign = Grounds::Proof(proof(rotation_id(3), at(1)));
    assert_eq!(bench.refuse(at(1), asked(id, Grounds::Asked)), unproved);
    assert_eq!(bench.refuse(at(1), asked(id, foreign)), unproved);
    assert_eq!(bench.refuse(at(1), activate), unproved);
    for (grounds, word) in [
        (Grounds::Proof(proof(id, at(1))), "proof"),
        (Grounds::Force, "force"),
    ] {
        let applied = apply(&bench.keyring, asked(id, grounds), at(1)).unwrap();
        let deadline = at(0).after(ProofPolicy::default().deadline_millis);
        assert_eq!(
            stage(&applied),
            Stage::Overlap {
                retire_at: deadline
            }
        );
        let promoted = applied
            .audit
            .iter()
            .find(|entry| entry.action == AuditAction::RotationPromoted);
        assert_eq!(promoted.unwrap().detail.get("grounds").unwrap(), word);
    }
}

#[test]
fn rule_3_an_overlap_lasts_to_the_millisecond() {
    let mut bench = Bench::new();
    let applied = bench.run(at(0), rotate(2, OVERLAPPING));
    assert_eq!(
        stage(&applied),
        Stage::Overlap {
            retire_at: at(OVERLAP)
        }
    );
    assert_eq!(bench.status(1, at(OVERLAP - 1)), SecretStatus::Retiring);
    assert_eq!(bench.status(1, at(OVERLAP)), SecretStatus::Retired);
    assert!(bench.keyring.open_rotation(at(OVERLAP - 1)).is_some());
    assert!(bench.keyring.open_rotation(at(OVERLAP)).is_none());
}

#[test]
fn rule_4_immediate_leaves_one_live_secret_whatever_was_open() {
    let undone = Command::Undo {
        rotation: rotation_id(2),
    };
    let before: [&[Command]; 4] = [
        &[],
        &[rotate(2, STAGED)],
        &[rotate(2, OVERLAPPING)],
        &[rotate(2, OVERLAPPING), undone],
    ];
    for commands in before {
        let mut bench = Bench::new();
        for command in commands {
            bench.run(at(0), command.clone());
        }
        let applied = bench.run(at(1), rotate(9, Mode::Immediate));
        assert_eq!(stage(&applied), Stage::Completed { at: at(1) });
        let live = |keyring: &Keyring| {
            let secrets = keyring.secrets.iter();
            secrets
                .filter(|s| {
                    !matches!(
                        s.state,
                        SecretState::Retired { .. } | SecretState::Destroyed { .. }
                    )
                })
                .map(|s| s.id)
                .collect::<Vec<_>>()
        };
        assert_eq!(live(&bench.keyring), [secret_id(9)], "after {commands:?}");
        assert_eq!(bench.keyring.check(), Ok(()));
    }
}

#[test]
fn rule_4_immediate_drops_a_pending_secret_for_good() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, STAGED));
    let applied = bench.run(at(1), rotate(3, Mode::Immediate));
    assert_eq!(applied.destroyed, [secret_id(2)]);
    assert_eq!(applied.rotations[0].stage, Stage::Cancelled { at: at(1) });
}

#[test]
fn rule_5_activate_takes_the_named_overlap_or_the_rotations_own() {
    for (named, expected) in [(None, OVERLAP), (Some(HOUR), HOUR)] {
        let mut bench = Bench::new();
        bench.run(at(0), rotate(2, STAGED));
        let activate = Command::Activate {
            secret: secret_id(2),
            overlap: named,
        };
        let applied = bench.run(at(5), activate);
        assert_eq!(
            stage(&applied),
            Stage::Overlap {
                retire_at: at(5 + expected)
            }
        );
        assert_eq!(bench.status(2, at(5)), SecretStatus::Active);
        assert_eq!(bench.status(1, at(5)), SecretStatus::Retiring);
    }
}

#[test]
fn rule_5_without_overlap_the_old_secret_is_retired_at_once() {
    let mut bench = Bench::new();
    bench.run(at(0), create(2, false));
    let applied = bench.run(at(5), promote(2));
    assert_eq!(stage(&applied), Stage::Completed { at: at(5) });
    assert_eq!(bench.status(1, at(5)), SecretStatus::Retired);
}

#[test]
fn rule_5_only_a_pending_secret_is_activated() {
    let bench = Bench::new();
    let activate = |number| Command::Activate {
        secret: secret_id(number),
        overlap: None,
    };
    let status = SecretStatus::Active;
    assert_eq!(
        bench.refuse(at(0), activate(1)),
        Rejected::NotPending {
            secret: secret_id(1),
            status
        }
    );
    let unknown = Rejected::UnknownSecret {
        secret: secret_id(7),
    };
    assert_eq!(bench.refuse(at(0), activate(7)), unknown);
}

#[test]
fn rule_6_extend_moves_the_end_later_within_the_limit() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    let extend = |retire_at: Timestamp| Command::Extend {
        rotation: rotation_id(2),
        retire_at,
        is_asked: true,
    };
    assert_eq!(
        bench.refuse(at(1), extend(at(OVERLAP))),
        Rejected::NotLater {
            retire_at: at(OVERLAP)
        }
    );
    assert_eq!(
        bench.refuse(at(1), extend(at(limits::OVERLAP_MAX + 2))),
        Rejected::RetiresTooLate
    );
    bench.run(at(1), extend(at(limits::OVERLAP_MAX + 1)));
    assert_eq!(
        bench.status(1, at(limits::OVERLAP_MAX)),
        SecretStatus::Retiring
    );
    assert_eq!(
        bench.status(1, at(limits::OVERLAP_MAX + 1)),
        SecretStatus::Retired
    );
}

#[test]
fn rule_6_an_overlap_that_has_ended_is_not_extended() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    let retire_at = at(2 * OVERLAP);
    let refused = bench.refuse(
        at(OVERLAP),
        Command::Extend {
            rotation: rotation_id(2),
            retire_at,
            is_asked: true,
        },
    );
    assert_eq!(refused.code(), "nothing_retiring");
}

#[test]
fn rule_6_finish_retires_now() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    let applied = bench.run(
        at(7),
        Command::Finish {
            rotation: rotation_id(2),
        },
    );
    assert_eq!(stage(&applied), Stage::Completed { at: at(7) });
    assert_eq!(bench.status(1, at(7)), SecretStatus::Retired);
    let again = bench.refuse(
        at(8),
        Command::Finish {
            rotation: rotation_id(2),
        },
    );
    assert_eq!(again.code(), "nothing_retiring");
}

#[test]
fn rule_6_the_way_back_is_extended_and_finished_too() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    bench.run(
        at(1),
        Command::Undo {
            rotation: rotation_id(2),
        },
    );
    let retire_at = at(3 * OVERLAP);
    bench.run(
        at(2),
        Command::Extend {
            rotation: rotation_id(2),
            retire_at,
            is_asked: true,
        },
    );
    assert_eq!(bench.status(2, at(3 * OVERLAP - 1)), SecretStatus::Retiring);
    let applied = bench.run(
        at(3),
        Command::Finish {
            rotation: rotation_id(2),
        },
    );
    assert_eq!(
        stage(&applied),
        Stage::Undone {
            at: at(1),
            retire_at: at(3)
        }
    );
    assert_eq!(bench.status(2, at(3)), SecretStatus::Retired);
}

#[test]
fn an_overlap_above_the_limit_is_refused_by_every_command() {
    let long = limits::OVERLAP_MAX + 1;
    let mut bench = Bench::new();
    let overlap = rotate(2, Mode::Overlap { overlap: long });
    assert_eq!(bench.refuse(at(0), overlap), Rejected::OverlapTooLong);
    bench.run(at(0), create(2, false));
    let activate = Command::Activate {
        secret: secret_id(2),
        overlap: Some(long),
    };
    assert_eq!(bench.refuse(at(0), activate), Rejected::OverlapTooLong);
}

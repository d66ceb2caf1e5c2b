//! The numbered list of `apply`, line by line: undoing, cancelling, leaks, and what is forgotten.

use hookturn_core::audit::AuditAction;
use hookturn_core::limits;
use hookturn_core::proof::ProofPolicy;
use hookturn_core::rotation::{Command, Grounds, Mode, Rejected, SecretStatus, Stage};
use hookturn_core::time::DAY;

use crate::support::{
    Bench, OVERLAP, OVERLAPPING, STAGED, at, create, new_secret, promote, rotate, rotation_id,
    secret_id, stage,
};

#[test]
fn rule_7_undo_is_the_same_move_backwards() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    let applied = bench.run(
        at(9),
        Command::Undo {
            rotation: rotation_id(2),
        },
    );
    assert_eq!(
        stage(&applied),
        Stage::Undone {
            at: at(9),
            retire_at: at(9 + OVERLAP)
        }
    );
    assert_eq!(bench.status(1, at(9)), SecretStatus::Active);
    assert_eq!(bench.status(2, at(9)), SecretStatus::Retiring);
    assert_eq!(bench.status(2, at(9 + OVERLAP)), SecretStatus::Retired);
    assert!(bench.keyring.open_rotation(at(9)).is_none());
    let again = bench.refuse(
        at(10),
        Command::Undo {
            rotation: rotation_id(2),
        },
    );
    assert_eq!(again.code(), "nothing_to_undo");
}

#[test]
fn rule_7_the_undone_secret_has_the_time_that_the_old_one_had_left_if_that_is_longer() {
    let rotation = rotation_id(2);
    let (undone, extended) = (at(9), at(9 + 20 * DAY));
    let end = |bench: &mut Bench| match stage(&bench.run(undone, Command::Undo { rotation })) {
        Stage::Undone { retire_at, .. } => retire_at,
        other => panic!("{other:?}"),
    };
    // Extended by days.
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, Mode::Overlap { overlap: 3_000 }));
    bench.run(
        at(1),
        Command::Extend {
            rotation,
            retire_at: extended,
            is_asked: true,
        },
    );
    assert_eq!(end(&mut bench), extended);
    assert_eq!(
        bench.status(2, at(9 + 20 * DAY - 1)),
        SecretStatus::Retiring
    );
    assert_eq!(bench.status(2, extended), SecretStatus::Retired);
    // Proven: the old secret would have lived until the deadline, which is longer than the quiet time.
    let policy = ProofPolicy::default();
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, Mode::Proven { policy }));
    bench.run(
        at(1),
        Command::Promote {
            rotation,
            grounds: Grounds::Force,
        },
    );
    assert_eq!(end(&mut bench), at(0).after(policy.deadline_millis));
}

#[test]
fn rule_7_undo_works_after_the_overlap_and_after_immediate() {
    for (mode, new_is) in [
        (OVERLAPPING, SecretStatus::Retiring),
        (Mode::Immediate, SecretStatus::Retired),
    ] {
        let mut bench = Bench::new();
        bench.run(at(0), rotate(2, mode));
        let later = at(3 * OVERLAP);
        bench.run(
            later,
            Command::Undo {
                rotation: rotation_id(2),
            },
        );
        assert_eq!(bench.status(1, later), SecretStatus::Active);
        assert_eq!(bench.status(2, later), new_is);
    }
}

#[test]
fn rule_7_the_next_rotation_starts_at_once_in_mode_immediate_and_ends_what_the_undo_kept() {
    let mut bench = undone_at_1();
    let applied = bench.run(at(2), rotate(3, Mode::Immediate));
    assert_eq!(bench.status(2, at(2)), SecretStatus::Retired);
    assert_eq!(
        applied.rotations[0].stage,
        Stage::Undone {
            at: at(1),
            retire_at: at(2)
        }
    );
    let late = bench.refuse(
        at(3),
        Command::Undo {
            rotation: rotation_id(2),
        },
    );
    assert_eq!(late.code(), "not_latest_rotation");
}

/// An overlap that was undone at 1, so that its new secret is retiring until 1 + OVERLAP.
fn undone_at_1() -> Bench {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    bench.run(
        at(1),
        Command::Undo {
            rotation: rotation_id(2),
        },
    );
    bench
}

#[test]
fn rules_2_3_and_7_no_rotation_throws_away_the_secret_that_an_undo_keeps() {
    let proven = Mode::Proven {
        policy: ProofPolicy::default(),
    };
    let openings = || {
        let modes = [OVERLAPPING, STAGED, proven].map(|mode| rotate(3, mode));
        modes.into_iter().chain([create(3, false), create(3, true)])
    };
    let end = 1 + OVERLAP;
    for opening in openings() {
        for moment in [2, end - 1] {
            let refused = undone_at_1().refuse(at(moment), opening.clone());
            assert!(
                matches!(refused, Rejected::RotationOpen { open, stage: Stage::Undone { .. } }
                    if open == rotation_id(2)),
                "{refused:?}"
            );
            // What is kept, until when, and what can be done.
            let words = refused.to_string();
            let until = format!("stays live until {}", at(end));
            for part in [until.as_str(), "finish that rotation", "mode immediate"] {
                assert!(words.contains(part), "{part} in {words}");
            }
        }
        // By time it is over, and by finishing it.
        undone_at_1().run(at(end), opening.clone());
        let mut finished = undone_at_1();
        let rotation = rotation_id(2);
        finished.run(at(2), Command::Finish { rotation });
        assert_eq!(finished.status(2, at(2)), SecretStatus::Retired);
        finished.run(at(3), opening);
    }
}

#[test]
fn rule_7_an_undo_that_keeps_nothing_hinders_nothing() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, Mode::Immediate));
    let rotation = rotation_id(2);
    bench.run(at(1), Command::Undo { rotation });
    bench.run(at(2), rotate(3, STAGED));
}

#[test]
fn rule_7_undo_is_refused_while_staged_and_after_cancel() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, STAGED));
    let undo = Command::Undo {
        rotation: rotation_id(2),
    };
    let staged = bench.refuse(at(1), undo.clone());
    assert!(
        staged
            .to_string()
            .ends_with("cancel it to drop the pending secret"),
        "{staged}"
    );
    bench.run(
        at(1),
        Command::Cancel {
            rotation: rotation_id(2),
        },
    );
    assert_eq!(bench.refuse(at(2), undo).code(), "nothing_to_undo");
}

#[test]
fn g4_undo_never_brings_back_a_destroyed_or_compromised_secret() {
    for (command, code) in [
        (
            Command::Destroy {
                secret: secret_id(1),
            },
            "undo_destroyed",
        ),
        (
            Command::Compromise {
                secret: secret_id(1),
            },
            "undo_compromised",
        ),
    ] {
        let mut bench = Bench::new();
        bench.run(at(0), rotate(2, Mode::Immediate));
        bench.run(at(1), command);
        let refused = bench.refuse(
            at(2),
            Command::Undo {
                rotation: rotation_id(2),
            },
        );
        assert_eq!(refused.code(), code);
    }
}

#[test]
fn rule_8_cancel_destroys_the_pending_secret() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, STAGED));
    let applied = bench.run(
        at(1),
        Command::Cancel {
            rotation: rotation_id(2),
        },
    );
    assert_eq!(stage(&applied), Stage::Cancelled { at: at(1) });
    assert_eq!(applied.destroyed, [secret_id(2)]);
    let promote = bench.refuse(at(2), promote(2));
    assert_eq!(promote.code(), "not_staged");
}

#[test]
fn rule_8_an_overlap_is_not_cancelled() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    let refused = bench.refuse(
        at(1),
        Command::Cancel {
            rotation: rotation_id(2),
        },
    );
    assert_eq!(refused.code(), "not_staged");
}

#[test]
fn rule_9_a_compromised_active_secret_signs_until_it_is_rotated_away_at_once() {
    let mut bench = Bench::new();
    bench.run(
        at(0),
        Command::Compromise {
            secret: secret_id(1),
        },
    );
    assert_eq!(bench.status(1, at(0)), SecretStatus::Active);
    let applied = bench.run(at(1), rotate(2, OVERLAPPING));
    assert_eq!(bench.status(1, at(1)), SecretStatus::Retired);
    assert_eq!(stage(&applied), Stage::Completed { at: at(1) });
}

#[test]
fn rule_9_a_compromised_retiring_secret_is_retired_at_once() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    let applied = bench.run(
        at(1),
        Command::Compromise {
            secret: secret_id(1),
        },
    );
    assert_eq!(stage(&applied), Stage::Completed { at: at(1) });
    assert_eq!(bench.status(1, at(1)), SecretStatus::Retired);
}

#[test]
fn rule_9_a_compromised_pending_secret_is_destroyed() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, STAGED));
    let applied = bench.run(
        at(1),
        Command::Compromise {
            secret: secret_id(2),
        },
    );
    assert_eq!(applied.destroyed, [secret_id(2)]);
    assert_eq!(stage(&applied), Stage::Cancelled { at: at(1) });
}

#[test]
fn rule_9_undoing_a_compromised_secret_retires_it_at_once() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    bench.run(
        at(1),
        Command::Compromise {
            secret: secret_id(2),
        },
    );
    let applied = bench.run(
        at(2),
        Command::Undo {
            rotation: rotation_id(2),
        },
    );
    assert_eq!(
        stage(&applied),
        Stage::Undone {
            at: at(2),
            retire_at: at(2)
        }
    );
    assert_eq!(bench.status(2, at(2)), SecretStatus::Retired);
    let again = bench.refuse(
        at(3),
        Command::Compromise {
            secret: secret_id(2),
        },
    );
    assert_eq!(
        again,
        Rejected::AlreadyCompromised {
            secret: secret_id(2),
            since: at(1),
            status: SecretStatus::Retired,
        }
    );
}

#[test]
fn rule_10_only_a_retired_secret_is_destroyed() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    for number in [1, 2] {
        let refused = bench.refuse(
            at(1),
            Command::Destroy {
                secret: secret_id(number),
            },
        );
        assert_eq!(refused.code(), "not_retired");
    }
    let applied = bench.run(
        at(OVERLAP),
        Command::Destroy {
            secret: secret_id(1),
        },
    );
    assert_eq!(applied.destroyed, [secret_id(1)]);
    assert_eq!(bench.status(1, at(OVERLAP)), SecretStatus::Destroyed);
}

#[test]
fn rule_10_a_name_is_changed_and_noted() {
    let mut bench = Bench::new();
    let name = Some("blue".to_owned());
    let applied = bench.run(
        at(0),
        Command::Rename {
            secret: secret_id(1),
            name: name.clone(),
        },
    );
    assert_eq!(bench.keyring.secret(secret_id(1)).unwrap().name, name);
    assert_eq!(applied.audit[0].action, AuditAction::SecretRenamed);
    let name = Some("x".repeat(limits::TEXT_CHARS + 1));
    let refused = bench.refuse(
        at(1),
        Command::Rename {
            secret: secret_id(1),
            name,
        },
    );
    assert_eq!(refused, Rejected::TextTooLong { field: "name" });
}

#[test]
fn g4_rule_11_a_known_secret_is_not_added_again() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, Mode::Immediate));
    bench.run(
        at(0),
        Command::Destroy {
            secret: secret_id(1),
        },
    );
    let mut same_value = new_secret(1);
    same_value.id = secret_id(3);
    let command = Command::Rotate {
        rotation: rotation_id(3),
        mode: Mode::Immediate,
        secret: same_value,
        reason: None,
    };
    let status = SecretStatus::Destroyed;
    assert_eq!(
        bench.refuse(at(1), command),
        Rejected::DuplicateSecret {
            existing: secret_id(1),
            status
        }
    );
}

#[test]
fn rule_12_a_full_keyring_forgets_destroyed_secrets_and_then_destroys_retired_ones() {
    let full = u32::try_from(limits::SECRETS_PER_KEYRING).unwrap();
    let mut bench = Bench::new();
    for number in 2..=full {
        bench.run(at(u64::from(number)), rotate(number, Mode::Immediate));
    }
    bench.run(
        at(100),
        Command::Destroy {
            secret: secret_id(30),
        },
    );
    let applied = bench.run(at(101), rotate(full + 1, Mode::Immediate));
    assert!(bench.keyring.secret(secret_id(30)).is_none());
    assert!(applied.destroyed.is_empty());
    let applied = bench.run(at(102), rotate(full + 2, Mode::Immediate));
    assert_eq!(applied.destroyed, [secret_id(1)]);
    assert!(bench.keyring.secret(secret_id(1)).is_none());
    assert_eq!(bench.keyring.secrets.len(), limits::SECRETS_PER_KEYRING);
    // Everything that is still live is still there, and the last rotation can be undone.
    bench.run(
        at(103),
        Command::Undo {
            rotation: rotation_id(full + 2),
        },
    );
    assert_eq!(bench.status(full + 1, at(103)), SecretStatus::Active);
}

//! The numbered list of `apply`, line by line.

use hookturn_core::audit::AuditAction;
use hookturn_core::limits;
use hookturn_core::rotation::{
    Applied, Command, ImpossibleKeyring, Keyring, Mode, Rejected, SecretState, SecretStatus, Stage,
};
use hookturn_core::time::{HOUR, Timestamp};

use crate::support::{
    Bench, OVERLAP, at, create, empty_keyring, new_secret, rotate, rotation_id, secret_id,
};

const OVERLAPPING: Mode = Mode::Overlap { overlap: OVERLAP };
const STAGED: Mode = Mode::Staged { overlap: OVERLAP };

fn stage(applied: &Applied) -> Stage {
    applied.rotations.last().expect("a rotation changed").stage
}

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

#[test]
fn rule_3_proven_is_refused_with_its_reason() {
    let reason = Bench::new().refuse(at(0), rotate(2, Mode::Proven));
    assert_eq!(reason.code(), "mode_not_offered");
    assert!(reason.to_string().contains("no proof yet"), "{reason}");
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
    let applied = bench.run(
        at(5),
        Command::Promote {
            rotation: rotation_id(2),
        },
    );
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
    };
    assert_eq!(
        bench.refuse(at(1), extend(at(OVERLAP))),
        Rejected::NotLater {
            retire_at: at(OVERLAP)
        }
    );
    assert_eq!(
        bench.refuse(at(1), extend(at(limits::OVERLAP_MAX + 2))),
        Rejected::OverlapTooLong
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
fn rule_7_the_next_rotation_may_start_at_once_and_gives_the_undone_secret_up() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    bench.run(
        at(1),
        Command::Undo {
            rotation: rotation_id(2),
        },
    );
    let applied = bench.run(at(2), rotate(3, STAGED));
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
    let promote = bench.refuse(
        at(2),
        Command::Promote {
            rotation: rotation_id(2),
        },
    );
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
            since: at(1)
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
    let name = Some("x".repeat(limits::TEXT_BYTES + 1));
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

#[test]
fn the_stored_form_is_camel_case_with_tags() {
    let mut bench = Bench::new();
    let applied = bench.run(at(0), rotate(2, OVERLAPPING));
    let rotation = serde_json::to_value(&applied.rotations[0]).unwrap();
    assert_eq!(
        rotation,
        serde_json::json!({
            "id": rotation_id(2).to_string(),
            "keyring": bench.keyring.id.to_string(),
            "workspace": bench.keyring.workspace.to_string(),
            "mode": "overlap",
            "overlapMillis": OVERLAP,
            "openedAt": "2027-01-15T08:00:00.000Z",
            "from": secret_id(1).to_string(),
            "to": secret_id(2).to_string(),
            "stage": "overlap",
            "retireAt": "2027-01-17T08:00:00.000Z",
            "version": 1,
        })
    );
    let keyring = serde_json::to_value(&bench.keyring).unwrap();
    assert_eq!(
        keyring["secrets"][0]["state"],
        serde_json::json!({
            "state": "retiring",
            "since": "2027-01-15T08:00:00.000Z",
            "retireAt": "2027-01-17T08:00:00.000Z",
        })
    );
    assert_eq!(keyring["secrets"][1]["fingerprint"], "00000002");
    assert_eq!(keyring["owner"]["kind"], "endpoint");
}

#[test]
fn a_keyring_that_cannot_be_is_named() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, OVERLAPPING));
    let sound = bench.keyring;
    let damaged = |damage: fn(&mut Keyring)| {
        let mut keyring = sound.clone();
        damage(&mut keyring);
        keyring.check()
    };
    let active = SecretState::Active { since: at(0) };
    let mut two = sound.clone();
    two.secrets[0].state = active;
    assert_eq!(two.check(), Err(ImpossibleKeyring::TwoOfAKind));
    assert_eq!(
        damaged(|keyring| keyring.secrets.swap(0, 1)),
        Err(ImpossibleKeyring::BadNumbers)
    );
    assert_eq!(
        damaged(|keyring| keyring.secrets.truncate(1)),
        Err(ImpossibleKeyring::NoActive)
    );
    assert_eq!(
        damaged(|keyring| keyring.secrets[0].state = SecretState::Pending),
        Err(ImpossibleKeyring::PendingWithoutRotation)
    );
    assert_eq!(
        damaged(|keyring| keyring.rotation = None),
        Err(ImpossibleKeyring::RetiringWithoutRotation)
    );
    assert_eq!(damaged(|_| ()), Ok(()));
}

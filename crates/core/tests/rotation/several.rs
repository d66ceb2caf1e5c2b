//! Several commands as one change.

use hookturn_core::audit::AuditAction;
use hookturn_core::rotation::{Command, SecretStatus, apply_all};

use crate::support::{Bench, STAGED, at, rotate, secret_id};

fn activate(number: u32) -> Command {
    Command::Activate {
        secret: secret_id(number),
        overlap: Some(0),
    }
}

fn rename(number: u32, name: &str) -> Command {
    Command::Rename {
        secret: secret_id(number),
        name: Some(name.to_owned()),
    }
}

#[test]
fn the_version_grows_once_and_every_step_is_audited() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, STAGED));
    let before = &bench.keyring;
    let staged = before.rotation.as_ref().unwrap().version;
    let applied = apply_all(before, [activate(2), rename(2, "autumn")], at(5)).unwrap();
    assert_eq!(applied.keyring.version, before.version + 1);
    assert_eq!(applied.rotations.len(), 1);
    assert_eq!(applied.rotations[0].version, staged + 1);
    let secret = applied.keyring.secret(secret_id(2)).unwrap();
    assert_eq!(secret.status(at(5)), SecretStatus::Active);
    assert_eq!(secret.name.as_deref(), Some("autumn"));
    assert_eq!(secret.renamed_at, Some(at(5)));
    let actions: Vec<_> = applied.audit.iter().map(|entry| &entry.action).collect();
    assert_eq!(
        actions,
        [
            &AuditAction::RotationPromoted,
            &AuditAction::SecretActivated,
            &AuditAction::SecretRetired,
            &AuditAction::RotationCompleted,
            &AuditAction::SecretRenamed,
        ]
    );
    assert!(
        applied
            .audit
            .iter()
            .all(|entry| entry.fingerprint.is_some())
    );
    applied.keyring.check().unwrap();
}

#[test]
fn one_refused_command_refuses_all() {
    let mut bench = Bench::new();
    bench.run(at(0), rotate(2, STAGED));
    let long = "x".repeat(257);
    let refused = apply_all(&bench.keyring, [activate(2), rename(2, &long)], at(5));
    assert_eq!(refused.unwrap_err().code(), "text_too_long");
    let refused = apply_all(&bench.keyring, [activate(2), activate(2)], at(5));
    assert_eq!(refused.unwrap_err().code(), "not_pending");
}

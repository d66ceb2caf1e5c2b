//! The stored form of keyrings and rotations, and the ones that cannot be.

use hookturn_core::rotation::{ImpossibleKeyring, Keyring, SecretState};

use crate::support::{Bench, OVERLAP, OVERLAPPING, at, rotate, rotation_id, secret_id};

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
    assert_eq!(
        damaged(|keyring| keyring.secrets[0].compromised = Some(at(0))),
        Err(ImpossibleKeyring::CompromisedHelper)
    );
    assert_eq!(damaged(|_| ()), Ok(()));
}

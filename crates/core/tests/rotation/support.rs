//! Small constructors that the tests share.

use hookturn_core::id::{EndpointId, KeyringId, RotationId, SecretId, WorkspaceId};
use hookturn_core::proof::{
    Evidence, Observed, ProbeAnswer, Proof, ProofPolicy, prove, required_controls, required_passes,
};
use hookturn_core::rotation::{
    Applied, Command, Grounds, KeyKind, Keyring, KeyringOwner, Mode, NewSecret, Rejected,
    SecretStatus, Stage, apply,
};
use hookturn_core::time::{HOUR, Millis, Timestamp};
use hookturn_verify::Fingerprint;

/// The overlap that tests use when its length does not matter.
pub(crate) const OVERLAP: Millis = 48 * HOUR;

/// `millis` after the moment at which every test starts.
pub(crate) fn at(millis: Millis) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000).after(millis)
}

pub(crate) fn secret_id(number: u32) -> SecretId {
    SecretId::from_bytes(u128::from(number).to_be_bytes())
}

pub(crate) fn rotation_id(number: u32) -> RotationId {
    RotationId::from_bytes(u128::from(number).to_be_bytes())
}

pub(crate) fn new_secret(number: u32) -> NewSecret {
    NewSecret {
        id: secret_id(number),
        fingerprint: Fingerprint::from_bytes(number.to_be_bytes()),
        name: None,
    }
}

pub(crate) fn empty_keyring() -> Keyring {
    Keyring::new(
        KeyringId::from_bytes([1; 16]),
        WorkspaceId::from_bytes([2; 16]),
        KeyringOwner::Endpoint {
            endpoint: EndpointId::from_bytes([3; 16]),
        },
        KeyKind::Symmetric,
    )
}

pub(crate) fn create(number: u32, replace_pending: bool) -> Command {
    Command::CreateSecret {
        secret: new_secret(number),
        rotation: rotation_id(number),
        overlap: 0,
        replace_pending,
        reason: None,
    }
}

/// A rotation to secret `number`, whose id has the same number.
pub(crate) fn rotate(number: u32, mode: Mode) -> Command {
    Command::Rotate {
        rotation: rotation_id(number),
        mode,
        secret: new_secret(number),
        reason: None,
    }
}

/// Promotes a rotation because its owner says so.
pub(crate) fn promote(number: u32) -> Command {
    Command::Promote {
        rotation: rotation_id(number),
        grounds: Grounds::Asked,
    }
}

/// Proof for a rotation, from the evidence of one endpoint.
pub(crate) fn proof(rotation: RotationId, now: Timestamp) -> Proof {
    let policy = ProofPolicy::default();
    let mut evidence = Evidence::new(rotation);
    let begun = now.before(policy.hold_down_millis);
    for _ in 0..required_passes(&policy, 0) {
        evidence = evidence.after(&policy, Observed::Probe, ProbeAnswer::Accepted, begun);
    }
    for _ in 0..required_controls(&policy, 0) {
        evidence = evidence.after(&policy, Observed::Control, ProbeAnswer::Refused, begun);
    }
    let endpoint = EndpointId::from_bytes([9; 16]);
    prove(&policy, rotation, &[(endpoint, Some(evidence))], now).expect("it is proved")
}

/// A keyring on which commands are tried one after the other.
pub(crate) struct Bench {
    pub(crate) keyring: Keyring,
}

impl Bench {
    /// Secret 1 is active since the start.
    pub(crate) fn new() -> Self {
        let mut bench = Self {
            keyring: empty_keyring(),
        };
        bench.run(at(0), create(1, false));
        bench
    }

    /// Applies a command that must be accepted.
    #[track_caller]
    pub(crate) fn run(&mut self, now: Timestamp, command: Command) -> Applied {
        let applied = apply(&self.keyring, command, now).expect("the command is accepted");
        self.keyring = applied.keyring.clone();
        applied
    }

    /// Applies a command that must be refused.
    #[track_caller]
    pub(crate) fn refuse(&self, now: Timestamp, command: Command) -> Rejected {
        apply(&self.keyring, command, now).expect_err("the command is refused")
    }

    /// What a secret is at `now`.
    #[track_caller]
    pub(crate) fn status(&self, number: u32, now: Timestamp) -> SecretStatus {
        let secret = self.keyring.secret(secret_id(number));
        secret.expect("the keyring knows the secret").status(now)
    }
}

pub(crate) const OVERLAPPING: Mode = Mode::Overlap { overlap: OVERLAP };
pub(crate) const STAGED: Mode = Mode::Staged { overlap: OVERLAP };

/// The stage of the last rotation that a command changed.
#[track_caller]
pub(crate) fn stage(applied: &Applied) -> Stage {
    applied.rotations.last().expect("a rotation changed").stage
}

//! G3, G4 and G5 over random command sequences with random time steps.
//!
//! The sequences aim: they hit open rotations and existing secrets most of the time, and time
//! likes to stop one millisecond before, exactly at, and one after the end of an overlap. The
//! clock also steps backwards, as wall clocks do.

use std::collections::{BTreeMap, BTreeSet};

use hookturn_core::audit::{AuditAction, AuditEntry};
use hookturn_core::id::{RotationId, SecretId};
use hookturn_core::limits;
use hookturn_core::proof::ProofPolicy;
use hookturn_core::receiver::{Belief, ReceiverClass, ReceiverView};
use hookturn_core::rotation::{
    Applied, Command, Grounds, Keyring, Mode, PromotionGrounds, Rotation, SecretState,
    SecretStatus, Stage, apply, signing_plan,
};
use hookturn_core::time::{DAY, HOUR, Millis, Timestamp};
use hookturn_verify::Scheme;
use proptest::prelude::*;

use crate::support::{Bench, at, empty_keyring, new_secret, proof, rotate, rotation_id, secret_id};

#[derive(Debug, Clone)]
enum Wait {
    Not,
    For(Millis),
    /// To the end of the overlap, one millisecond before or after it.
    ToTheEnd(i8),
    Back(Millis),
}

/// A command before it is known what the keyring holds.
#[derive(Debug, Clone)]
enum Wish {
    Create {
        overlap: Millis,
        replace_pending: bool,
    },
    Rotate(Mode),
    /// A rotation whose secret is already known.
    RotateToKnown(Mode, prop::sample::Index),
    Activate(prop::sample::Index, Option<Millis>),
    ActivatePending(Option<Millis>),
    Promote(Ground),
    Extend(Millis),
    Finish,
    Undo,
    Cancel,
    /// A command for a rotation that is over or never was.
    UndoOther(u32),
    Compromise(prop::sample::Index),
    Destroy(prop::sample::Index),
    Rename(prop::sample::Index, Option<String>),
    Settle,
}

fn waits() -> impl Strategy<Value = Wait> {
    prop_oneof![
        3 => Just(Wait::Not),
        3 => (1..HOUR).prop_map(Wait::For),
        2 => (1..40 * DAY).prop_map(Wait::For),
        4 => (-1_i8..=1).prop_map(Wait::ToTheEnd),
        1 => (1..2 * DAY).prop_map(Wait::Back),
    ]
}

fn overlaps() -> impl Strategy<Value = Millis> {
    prop_oneof![
        Just(0),
        Just(1),
        1..DAY,
        Just(limits::OVERLAP_MAX),
        Just(limits::OVERLAP_MAX + 1)
    ]
}

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![
        3 => Just(Mode::Immediate),
        6 => overlaps().prop_map(|overlap| Mode::Overlap { overlap }),
        6 => overlaps().prop_map(|overlap| Mode::Staged { overlap }),
        4 => policies().prop_map(|policy| Mode::Proven { policy }),
    ]
}

fn policies() -> impl Strategy<Value = ProofPolicy> {
    let default = ProofPolicy::default();
    prop_oneof![
        3 => Just(default),
        2 => Just(ProofPolicy { quiet_millis: HOUR, deadline_millis: DAY, ..default }),
        1 => Just(ProofPolicy { deadline_millis: 31 * DAY, ..default }),
    ]
}

/// On what grounds a promotion is asked for.
#[derive(Debug, Clone, Copy)]
enum Ground {
    Asked,
    Force,
    Proof,
    ProofOfAnother,
}

fn grounds() -> impl Strategy<Value = Ground> {
    prop_oneof![
        2 => Just(Ground::Asked),
        1 => Just(Ground::Force),
        2 => Just(Ground::Proof),
        1 => Just(Ground::ProofOfAnother),
    ]
}

fn wishes() -> impl Strategy<Value = Wish> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (overlaps(), any::<bool>())
            .prop_map(|(overlap, replace_pending)| Wish::Create { overlap, replace_pending }),
        8 => modes().prop_map(Wish::Rotate),
        1 => (modes(), index()).prop_map(|(mode, known)| Wish::RotateToKnown(mode, known)),
        1 => (index(), prop::option::of(overlaps())).prop_map(|(s, o)| Wish::Activate(s, o)),
        4 => prop::option::of(overlaps()).prop_map(Wish::ActivatePending),
        6 => grounds().prop_map(Wish::Promote),
        2 => (1..60 * DAY).prop_map(Wish::Extend),
        2 => Just(Wish::Finish),
        6 => Just(Wish::Undo),
        2 => Just(Wish::Cancel),
        1 => (0_u32..40).prop_map(Wish::UndoOther),
        3 => index().prop_map(Wish::Compromise),
        3 => index().prop_map(Wish::Destroy),
        1 => (index(), prop::option::of("[a-z]{0,8}")).prop_map(|(s, n)| Wish::Rename(s, n)),
        3 => Just(Wish::Settle),
    ]
}

fn command(wish: Wish, keyring: &Keyring, number: u32, now: Timestamp) -> Command {
    let pick = |index: prop::sample::Index| match keyring.secrets.as_slice() {
        [] => secret_id(0),
        secrets => index.get(secrets).id,
    };
    let latest = keyring
        .rotation
        .as_ref()
        .map_or(rotation_id(0), |rotation| rotation.id);
    match wish {
        Wish::Create {
            overlap,
            replace_pending,
        } => Command::CreateSecret {
            secret: new_secret(number),
            rotation: rotation_id(number),
            overlap,
            replace_pending,
            reason: None,
        },
        Wish::Rotate(mode) => rotate(number, mode),
        Wish::RotateToKnown(mode, known) => {
            let mut secret = new_secret(number);
            secret.id = pick(known);
            Command::Rotate {
                rotation: rotation_id(number),
                mode,
                secret,
                reason: None,
            }
        }
        Wish::Activate(secret, overlap) => Command::Activate {
            secret: pick(secret),
            overlap,
        },
        Wish::ActivatePending(overlap) => Command::Activate {
            secret: keyring.pending().map_or(secret_id(0), |secret| secret.id),
            overlap,
        },
        Wish::Promote(ground) => Command::Promote {
            rotation: latest,
            grounds: match ground {
                Ground::Asked => Grounds::Asked,
                Ground::Force => Grounds::Force,
                Ground::Proof => Grounds::Proof(proof(latest, now)),
                Ground::ProofOfAnother => Grounds::Proof(proof(rotation_id(9_999), now)),
            },
        },
        Wish::Extend(span) => Command::Extend {
            rotation: latest,
            retire_at: now.after(span),
            is_asked: true,
        },
        Wish::Finish => Command::Finish { rotation: latest },
        Wish::Undo => Command::Undo { rotation: latest },
        Wish::Cancel => Command::Cancel { rotation: latest },
        Wish::UndoOther(other) => Command::Undo {
            rotation: rotation_id(other),
        },
        Wish::Compromise(secret) => Command::Compromise {
            secret: pick(secret),
        },
        Wish::Destroy(secret) => Command::Destroy {
            secret: pick(secret),
        },
        Wish::Rename(secret, name) => Command::Rename {
            secret: pick(secret),
            name,
        },
        Wish::Settle => Command::Settle,
    }
}

fn later(now: Timestamp, wait: &Wait, keyring: &Keyring) -> Timestamp {
    match wait {
        Wait::Not => now,
        Wait::For(span) => now.after(*span),
        Wait::Back(span) => now.before(*span),
        Wait::ToTheEnd(offset) => match keyring.settle_due_at() {
            Some(end) => Timestamp::from_millis(end.as_millis() + i64::from(*offset)),
            None => now,
        },
    }
}

/// What an outside observer remembers, in order to catch what a single step cannot show.
#[derive(Default)]
struct Observer {
    rotations: BTreeMap<RotationId, Rotation>,
    /// Written down as retired: may only come back by an undo.
    retired: BTreeSet<SecretId>,
    /// Destroyed, which a cancelled secret is too: may never come back.
    destroyed: BTreeSet<SecretId>,
}

impl Observer {
    fn check(&mut self, before: &Keyring, command: &Command, applied: &Applied, now: Timestamp) {
        let after = &applied.keyring;
        assert_eq!(
            after.version,
            before.version + 1,
            "one command, one version"
        );
        assert_eq!(after.check(), Ok(()));
        self.check_return_of_the_dead(after, command);
        check_retired_early(before, command, after, now);
        self.check_rotations(applied, now);
        check_audit(before, applied);
        let text = serde_json::to_string(after).expect("a keyring has a JSON form");
        assert_eq!(
            &serde_json::from_str::<Keyring>(&text).expect("it is read back"),
            after,
            "{text}"
        );
        if matches!(
            command,
            Command::Rotate {
                mode: Mode::Immediate,
                ..
            }
        ) {
            let live = after.secrets.iter().filter(|s| {
                matches!(
                    s.status(now),
                    SecretStatus::Pending | SecretStatus::Active | SecretStatus::Retiring
                )
            });
            assert_eq!(live.count(), 1, "after immediate one secret is live");
        }
    }

    /// G4 across steps.
    fn check_return_of_the_dead(&mut self, after: &Keyring, command: &Command) {
        for secret in &after.secrets {
            let live = match secret.state {
                SecretState::Retired { .. } => {
                    self.retired.insert(secret.id);
                    false
                }
                SecretState::Destroyed { .. } => {
                    self.destroyed.insert(secret.id);
                    false
                }
                SecretState::Pending
                | SecretState::Active { .. }
                | SecretState::Retiring { .. } => true,
            };
            if !live {
                continue;
            }
            assert!(
                !self.destroyed.contains(&secret.id),
                "a destroyed secret came back"
            );
            if self.retired.remove(&secret.id) {
                let Command::Undo { rotation } = command else {
                    panic!("a retired secret came back by {command:?}");
                };
                assert_eq!(self.rotations[rotation].from, secret.id);
                assert!(
                    secret.compromised.is_none(),
                    "a compromised secret came back"
                );
            }
        }
    }

    /// G5 for rotations: over every record that was ever stored, at most one is open.
    fn check_rotations(&mut self, applied: &Applied, now: Timestamp) {
        for rotation in &applied.rotations {
            let text = serde_json::to_string(rotation).expect("a rotation has a JSON form");
            let read: Rotation = serde_json::from_str(&text).expect("it is read back");
            assert_eq!(&read, rotation);
            let known = self.rotations.insert(rotation.id, rotation.clone());
            let version = known.map_or(0, |known| known.version);
            assert_eq!(rotation.version, version + 1, "one command, one version");
            check_grounds(rotation);
        }
        if let Some(changed) = applied.rotations.last() {
            assert_eq!(applied.keyring.rotation.as_ref(), Some(changed));
        }
        let open = self
            .rotations
            .values()
            .filter(|rotation| rotation.stage.is_open());
        assert!(open.count() <= 1, "two rotations are open");
        let open_now = self
            .rotations
            .values()
            .filter(|r| r.stage.at(now).is_open());
        assert_eq!(
            open_now.count() == 1,
            applied.keyring.open_rotation(now).is_some()
        );
    }
}

/// A secret that receivers may hold is cut short by nothing but a command that says so.
fn check_retired_early(before: &Keyring, command: &Command, after: &Keyring, now: Timestamp) {
    let Some(retiring) = before.retiring(now).map(|secret| secret.id) else {
        return;
    };
    let status = after.secret(retiring).map(|secret| secret.status(now));
    if status == Some(SecretStatus::Retired) {
        assert!(
            matches!(
                command,
                Command::Finish { .. }
                    | Command::Compromise { .. }
                    | Command::Rotate {
                        mode: Mode::Immediate,
                        ..
                    }
            ),
            "a live secret was thrown away by {command:?}"
        );
    }
}

/// G7: where a proven rotation's new secret was ever active, there was proof or force.
fn check_grounds(rotation: &Rotation) {
    let grounds = rotation.promotion.as_ref().map(|made| &made.grounds);
    let promoted = match rotation.stage {
        Stage::Staged | Stage::Cancelled { .. } => false,
        Stage::Overlap { .. } | Stage::Completed { .. } | Stage::Undone { .. } => true,
    };
    if let (Mode::Proven { .. }, true) = (rotation.mode, promoted) {
        assert!(
            matches!(
                grounds,
                Some(PromotionGrounds::Proof { .. } | PromotionGrounds::Force)
            ),
            "promoted without proof: {rotation:?}"
        );
    }
    if !promoted {
        assert_eq!(grounds, None);
    }
}

/// Every change of a secret's state is named, with the secret's fingerprint.
fn check_audit(before: &Keyring, applied: &Applied) {
    let named = |id: SecretId, action: &AuditAction| {
        let about = |entry: &&AuditEntry| entry.subject.secret == Some(id);
        applied
            .audit
            .iter()
            .filter(about)
            .any(|entry| entry.action == *action)
    };
    let mut destroyed = BTreeSet::new();
    for secret in &applied.keyring.secrets {
        let old = before.secret(secret.id);
        if old.is_none() {
            assert!(named(secret.id, &AuditAction::SecretCreated));
        }
        if old.map(|old| old.state) != Some(secret.state) {
            let action = match secret.state {
                SecretState::Pending => AuditAction::SecretCreated,
                SecretState::Active { .. } => AuditAction::SecretActivated,
                SecretState::Retiring { .. } => AuditAction::SecretRetiring,
                SecretState::Retired { .. } => AuditAction::SecretRetired,
                SecretState::Destroyed { .. } => {
                    destroyed.insert(secret.id);
                    AuditAction::SecretDestroyed
                }
            };
            assert!(
                named(secret.id, &action),
                "{action} of {} is not noted",
                secret.id
            );
        }
        if old.is_some_and(|old| old.compromised != secret.compromised) {
            assert!(named(secret.id, &AuditAction::SecretCompromised));
        }
    }
    for forgotten in before
        .secrets
        .iter()
        .filter(|s| applied.keyring.secret(s.id).is_none())
    {
        if !matches!(forgotten.state, SecretState::Destroyed { .. }) {
            assert!(named(forgotten.id, &AuditAction::SecretDestroyed));
            destroyed.insert(forgotten.id);
        }
    }
    let erased: BTreeSet<SecretId> = applied.destroyed.iter().copied().collect();
    assert_eq!(
        erased, destroyed,
        "what is destroyed is what is to be erased"
    );
    for entry in &applied.audit {
        assert_eq!(entry.subject.keyring, Some(applied.keyring.id));
        assert!(entry.subject.secret.is_some() == entry.fingerprint.is_some());
    }
}

const CLASSES: [ReceiverClass; 7] = [
    ReceiverClass::ListAware,
    ReceiverClass::FirstOnly,
    ReceiverClass::LastOnly,
    ReceiverClass::Single,
    ReceiverClass::DoesNotVerify,
    ReceiverClass::Unreachable,
    ReceiverClass::Unknown,
];

/// G3, G4 and G5 for every plan that the keyring can give at `when`.
fn check_plans(keyring: &Keyring, when: Timestamp) {
    let count = |wanted| {
        keyring
            .secrets
            .iter()
            .filter(|s| s.status(when) == wanted)
            .count()
    };
    assert!(count(SecretStatus::Active) <= 1, "two active");
    assert!(count(SecretStatus::Pending) <= 1, "two pending");
    assert!(count(SecretStatus::Retiring) <= 1, "two retiring");
    let beliefs = keyring.secrets.iter().map(|s| {
        Some(Belief {
            secret: s.id,
            at: when,
        })
    });
    for belief in beliefs.chain([None]) {
        for class in CLASSES {
            for scheme in [Scheme::Standard, Scheme::Hopae] {
                check_plan(keyring, ReceiverView { class, belief }, scheme, when);
            }
        }
    }
}

fn check_plan(keyring: &Keyring, receiver: ReceiverView, scheme: Scheme, when: Timestamp) {
    let plan = signing_plan(keyring, &receiver, scheme, when);
    let Some(active) = keyring.active() else {
        assert!(plan.is_err() && keyring.secrets.is_empty());
        return;
    };
    let plan = plan.expect("an active secret gives a plan");
    let many = receiver.class == ReceiverClass::ListAware && scheme == Scheme::Standard;
    assert!((1..=if many { 2 } else { 1 }).contains(&plan.sign_with.len()));
    let alone = |key: &SecretId| plan.sign_with.contains(key);
    let both = plan.sign_with.len() == 2;
    assert_eq!(both, plan.fallback.as_ref().is_some_and(alone));
    let other = plan.fallback.filter(|_| !both);
    let keys: Vec<SecretId> = plan.sign_with.iter().copied().chain(other).collect();
    assert!(keys.len() <= 2 && keys.contains(&active.id));
    for (place, id) in keys.iter().enumerate() {
        let secret = keyring
            .secret(*id)
            .expect("plans name secrets of the keyring");
        match secret.status(when) {
            SecretStatus::Active | SecretStatus::Retiring => {}
            SecretStatus::Pending => assert_eq!(place, 1, "a pending secret never leads"),
            dead @ (SecretStatus::Retired | SecretStatus::Destroyed) => {
                panic!("a {dead} secret signs")
            }
        }
        if secret.compromised.is_some() {
            assert!(
                place == 0 && *id == active.id,
                "a compromised secret helps out"
            );
        }
    }
    assert!(keys.first() != keys.get(1));
}

fn moments(keyring: &Keyring, now: Timestamp) -> Vec<Timestamp> {
    let mut moments = vec![
        now,
        now.after(1),
        now.after(40 * DAY),
        Timestamp::FAR_FUTURE,
    ];
    if let Some(end) = keyring.settle_due_at() {
        moments.extend([end.before(1), end, end.after(1)]);
    }
    moments
}

fn walk(steps: Vec<(Wait, Wish)>, first: u32) -> BTreeSet<&'static str> {
    let mut seen = BTreeSet::new();
    let mut now = at(100 * DAY);
    let mut observer = Observer::default();
    let mut keyring = if first > 0 {
        Bench::new().keyring
    } else {
        empty_keyring()
    };
    for ((wait, wish), number) in steps.into_iter().zip(2..) {
        now = later(now, &wait, &keyring);
        let command = command(wish, &keyring, number, now);
        let outcome = apply(&keyring, command.clone(), now);
        assert_eq!(
            apply(&keyring, command.clone(), now),
            outcome,
            "not deterministic"
        );
        match outcome {
            Ok(applied) => {
                observer.check(&keyring, &command, &applied, now);
                seen.extend(
                    applied
                        .rotations
                        .iter()
                        .map(|rotation| rotation.stage.as_str()),
                );
                keyring = applied.keyring;
            }
            Err(rejected) => {
                assert!(!rejected.to_string().is_empty());
                seen.insert(rejected.code());
            }
        }
        for when in moments(&keyring, now) {
            check_plans(&keyring, when);
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn g3_g4_g5_hold_after_every_command(
        steps in prop::collection::vec((waits(), wishes()), 1..40),
        first in 0_u32..4,
    ) {
        walk(steps, first);
    }
}

/// The generator is worth something only if it reaches every stage and every refusal it can.
#[test]
fn the_random_walks_reach_every_stage_and_refusal() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let strategy = prop::collection::vec((waits(), wishes()), 30..40);
    let mut seen = BTreeSet::new();
    for round in 0..200 {
        let steps = strategy.new_tree(&mut runner).unwrap().current();
        seen.append(&mut walk(steps, round % 4));
    }
    let expected = [
        "staged",
        "overlap",
        "completed",
        "cancelled",
        "undone",
        "no_active_secret",
        "rotation_open",
        "pending_exists",
        "unknown_secret",
        "duplicate_secret",
        "not_pending",
        "not_retired",
        "already_compromised",
        "not_latest_rotation",
        "not_staged",
        "nothing_retiring",
        "not_later",
        "overlap_too_long",
        "nothing_to_undo",
        "undo_destroyed",
        "undo_compromised",
        "not_proven",
        "invalid_policy",
        "nothing_to_settle",
    ];
    let missing: Vec<_> = expected
        .iter()
        .filter(|word| !seen.contains(*word))
        .collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}

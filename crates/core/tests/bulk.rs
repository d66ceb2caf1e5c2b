//! Bulk rotations: which keyrings, in which waves, and what a sweep does next.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};

use hookturn_core::audit::{Actor, Context};
use hookturn_core::bulk::{
    Arrangement, Bulk, BulkCommand, BulkItem, BulkRejected, BulkState, BulkStep, Candidate,
    ItemCounts, ItemKind, ItemState, Manner, Pacing, Selector, arrange, next,
};
use hookturn_core::id::{
    BulkId, ClientId, EndpointId, KeyringId, RotationId, SecretId, WorkspaceId,
};
use hookturn_core::proof::ProofPolicy;
use hookturn_core::rotation::{
    Command, KeyKind, Keyring, KeyringOwner, Mode, NewSecret, Rotation, apply,
};
use hookturn_core::time::{DAY, HOUR, Timestamp};
use hookturn_core::workspace::App;
use proptest::prelude::*;

const START: Timestamp = Timestamp::from_millis(1_784_505_600_000);
const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([1; 16]);
const BULK: BulkId = BulkId::from_bytes([2; 16]);

fn keyring_id(number: u32) -> KeyringId {
    KeyringId::from_bytes(u128::from(number).to_be_bytes())
}

fn rotation_id(number: u32) -> RotationId {
    RotationId::from_bytes(u128::from(number).to_be_bytes())
}

fn bulk(keyrings: u32, pacing: Pacing, manner: Manner) -> (Bulk, Vec<BulkItem>) {
    let Arrangement {
        keyrings,
        wave_ends,
    } = arrange((0..keyrings).map(keyring_id), &pacing.waves);
    let items = (0..).zip(keyrings).map(|(position, keyring)| BulkItem {
        bulk: BULK,
        workspace: WORKSPACE,
        position,
        keyring,
        state: ItemState::Waiting,
        version: 1,
    });
    let bulk = Bulk {
        id: BULK,
        workspace: WORKSPACE,
        selector: Selector {
            all: true,
            ..Selector::default()
        },
        manner,
        pacing,
        context: Context {
            actor: Actor::System,
            request_id: None,
            reason: None,
        },
        wave_ends,
        wave: 0,
        wave_at: START,
        forgiven: 0,
        state: BulkState::Running,
        version: 1,
        created_at: START,
    };
    (bulk, items.collect())
}

fn counts(bulk: &Bulk, items: &[BulkItem]) -> ItemCounts {
    let (from, until) = bulk.wave_span();
    let mut counts = ItemCounts::default();
    for item in items {
        if (from..until).contains(&item.position) {
            *counts.of(item.state.kind()) += 1;
        }
    }
    counts
}

fn failed(at: Timestamp) -> ItemState {
    ItemState::Failed {
        rotation: None,
        code: "rotation_open".to_owned(),
        message: "another one is open".to_owned(),
        at,
    }
}

fn proven() -> Manner {
    Manner::Proven {
        policy: ProofPolicy::default(),
    }
}

#[test]
fn waves_end_at_their_share_and_none_is_empty() {
    for (keyrings, ends) in [
        (0, vec![]),
        (1, vec![1]),
        (3, vec![1, 2, 3]),
        (1_000, vec![10, 100, 500, 1_000]),
        (10_001, vec![101, 1_001, 5_001, 10_001]),
    ] {
        let arranged = arrange((0..keyrings).map(keyring_id), &Pacing::default().waves);
        assert_eq!(arranged.wave_ends, ends, "{keyrings}");
    }
}

#[test]
fn impossible_pacings_name_the_field() {
    let good = Pacing::default();
    assert_eq!(good.check(), Ok(()));
    let waves = |waves: &[u8]| Pacing {
        waves: waves.to_vec(),
        ..Pacing::default()
    };
    let cases = [
        (waves(&[]), "waves"),
        (waves(&[0, 100]), "waves"),
        (waves(&[50]), "waves"),
        (waves(&[50, 10, 100]), "waves"),
        (waves(&[100, 100]), "waves"),
        (
            Pacing {
                concurrency: 0,
                ..Pacing::default()
            },
            "concurrency",
        ),
        (
            Pacing {
                stop_at_failed_percent: 101,
                ..Pacing::default()
            },
            "stopAtFailedPercent",
        ),
        (
            Pacing {
                pause_millis: 31 * DAY,
                ..Pacing::default()
            },
            "pauseSeconds",
        ),
    ];
    for (pacing, field) in cases {
        assert_eq!(pacing.check().unwrap_err().field, field);
    }
}

fn keyring_with(secret: u8, created_at: Timestamp) -> Keyring {
    let owner = KeyringOwner::Endpoint {
        endpoint: EndpointId::from_bytes([4; 16]),
    };
    let keyring = Keyring::new(keyring_id(1), WORKSPACE, owner, KeyKind::Symmetric);
    let command = Command::CreateSecret {
        secret: NewSecret {
            id: SecretId::from_bytes([secret; 16]),
            fingerprint: hex::encode([secret; 4]).parse().unwrap(),
            name: None,
        },
        rotation: rotation_id(0),
        overlap: 0,
        replace_pending: false,
        reason: None,
    };
    apply(&keyring, command, created_at).unwrap().keyring
}

fn app(id: &str, labels: &[(&str, &str)]) -> App {
    App {
        id: id.parse().unwrap(),
        workspace: WORKSPACE,
        name: id.to_owned(),
        labels: labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        rotation_overlap_seconds: None,
        primary_endpoint: None,
        version: 1,
        created_at: START,
        updated_at: START,
    }
}

#[test]
fn everything_that_is_named_must_hold() {
    let keyring = keyring_with(7, START);
    let shop = app("shopshop", &[("tier", "gold"), ("region", "eu")]);
    let other = app("otherapp", &[("tier", "iron")]);
    let apps = [&shop, &other];
    let now = START.after(90 * DAY);
    let candidate = Candidate {
        keyring: &keyring,
        apps: &apps,
    };
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    };
    let ids = |texts: &[&str]| -> Vec<ClientId> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    let all = Selector {
        all: true,
        ..Selector::default()
    };
    let named = |name: fn(&mut Selector)| {
        let mut selector = Selector::default();
        name(&mut selector);
        selector
    };
    let by_app = |texts: &[&str], pairs: &[(&str, &str)]| Selector {
        apps: ids(texts),
        labels: labels(pairs),
        ..Selector::default()
    };
    let cases = [
        (all.clone(), true),
        (by_app(&["shopshop"], &[]), true),
        (by_app(&["absentxx"], &[]), false),
        (by_app(&[], &[("tier", "gold")]), true),
        (by_app(&[], &[("tier", "gold"), ("region", "us")]), false),
        // Both hold, but of different apps.
        (by_app(&["otherapp"], &[("tier", "gold")]), false),
        (named(|by| by.keyrings = vec![keyring_id(1)]), true),
        (named(|by| by.keyrings = vec![keyring_id(2)]), false),
        (named(|by| by.older_than_millis = Some(90 * DAY)), true),
        (named(|by| by.older_than_millis = Some(90 * DAY + 1)), false),
        (
            named(|by| by.fingerprints = vec!["07070707".parse().unwrap()]),
            true,
        ),
        (
            named(|by| by.fingerprints = vec!["08070707".parse().unwrap()]),
            false,
        ),
        (
            named(|by| by.secrets = Some(vec![SecretId::from_bytes([7; 16])])),
            true,
        ),
        // A search that found nothing selects nothing, and is no empty selector.
        (named(|by| by.secrets = Some(Vec::new())), false),
    ];
    let none = Selector::default();
    for (selector, selected) in cases {
        assert!(selector.check().is_ok(), "{selector:?}");
        assert_eq!(selector.selects(candidate, now), selected, "{selector:?}");
        let stored = serde_json::to_string(&selector).unwrap();
        assert_eq!(serde_json::from_str::<Selector>(&stored).unwrap(), selector);
    }
    assert!(none.check().is_err());
    let nobody = Candidate {
        keyring: &keyring,
        apps: &[],
    };
    assert!(!all.selects(nobody, now), "an endpoint that is gone");
}

#[test]
fn an_item_settles_by_what_its_rotation_became() {
    let pacing = Pacing::default();
    let (bulk, items) = bulk(1, pacing.clone(), proven());
    let rotation = rotation_id(9);
    let running = items[0].moved(ItemState::opened(bulk.manner, rotation, START));
    let keyring = keyring_with(1, START);
    let rotate = Command::Rotate {
        rotation,
        mode: Mode::Staged { overlap: HOUR },
        secret: NewSecret {
            id: SecretId::from_bytes([9; 16]),
            fingerprint: "09090909".parse().unwrap(),
            name: None,
        },
        reason: None,
    };
    let staged = apply(&keyring, rotate, START).unwrap().keyring;
    let open = staged.rotation.as_ref();
    let settled = |known: Option<&Rotation>, now| running.settled(known, &pacing, now);
    let of = |keyring: &Keyring| keyring.rotation.clone().unwrap();
    assert_eq!(settled(open, START.after(DAY - 1)), None);
    let late = START.after(DAY);
    assert!(matches!(
        settled(open, late),
        Some(ItemState::Stalled { .. })
    ));
    let cancel = apply(&staged, Command::Cancel { rotation }, START).unwrap();
    let cancelled = of(&cancel.keyring);
    let activate = Command::Activate {
        secret: SecretId::from_bytes([9; 16]),
        overlap: None,
    };
    let promoted = of(&apply(&staged, activate, START).unwrap().keyring);
    let done = settled(Some(&promoted), START);
    assert!(matches!(done, Some(ItemState::Done { .. })), "{done:?}");
    let another = Rotation {
        id: rotation_id(10),
        ..promoted.clone()
    };
    for (known, word) in [
        (Some(&cancelled), "cancelled"),
        (Some(&another), "gone"),
        (None, "gone"),
    ] {
        match settled(known, START) {
            Some(ItemState::Failed {
                code,
                rotation: Some(found),
                ..
            }) => {
                assert_eq!((code.as_str(), found), (word, rotation));
            }
            other => panic!("{other:?}"),
        }
    }
    // One that stalled is not waited for, and still told of.
    let stalled = running.moved(ItemState::Stalled { rotation, at: late });
    let settled = |known| stalled.settled(known, &pacing, late.after(DAY));
    assert_eq!(settled(open), None);
    let kinds = [Some(&promoted), Some(&cancelled), None]
        .map(|known| settled(known).map(|state| state.kind()));
    let failed_kind = Some(ItemKind::Failed);
    assert_eq!(kinds, [Some(ItemKind::Done), failed_kind, failed_kind]);
    assert_eq!(items[0].settled(Some(&promoted), &pacing, late), None);
    // A stored item and bulk come back as they were.
    for item in [&items[0], &running, &running.moved(failed(late))] {
        let stored = serde_json::to_string(item).unwrap();
        assert_eq!(&serde_json::from_str::<BulkItem>(&stored).unwrap(), item);
    }
    let stored = serde_json::to_string(&bulk).unwrap();
    assert_eq!(serde_json::from_str::<Bulk>(&stored).unwrap(), bulk);
}

#[test]
fn commands_follow_the_state() {
    let (running, _) = bulk(10, Pacing::default(), Manner::Immediate);
    let now = START.after(5);
    let paused = running.command(BulkCommand::Pause, 0, now).unwrap();
    assert_eq!(paused.state, BulkState::Paused { at: now });
    assert_eq!(next(&paused, ItemCounts::default(), now), BulkStep::Nothing);
    let refused = paused.command(BulkCommand::Pause, 0, now).unwrap_err();
    assert_eq!(refused.code(), "bulk_not_running");
    let refused = running.command(BulkCommand::Resume, 0, now).unwrap_err();
    assert_eq!(refused, BulkRejected::Running);
    let resumed = paused.command(BulkCommand::Resume, 3, now).unwrap();
    assert_eq!((resumed.state, resumed.forgiven), (BulkState::Running, 0));
    let stopped = running
        .took(BulkStep::Stop { failed: 3, of: 10 }, now)
        .unwrap();
    let resumed = stopped.command(BulkCommand::Resume, 3, now).unwrap();
    assert_eq!((resumed.state, resumed.forgiven), (BulkState::Running, 3));
    let cancelled = stopped.command(BulkCommand::Cancel, 3, now).unwrap();
    for command in [BulkCommand::Pause, BulkCommand::Resume, BulkCommand::Cancel] {
        assert!(matches!(
            cancelled.command(command, 0, now),
            Err(BulkRejected::Over { .. })
        ));
    }
}

/// What a run of a bulk met.
struct Run {
    bulk: Bulk,
    items: Vec<BulkItem>,
    opened: BTreeMap<KeyringId, u32>,
}

/// Drives a bulk as a sweep does, with a crash between any two writes: what a lost sweep decided is
/// forgotten, what it wrote is not.
fn drive(
    keyrings: u32,
    pacing: &Pacing,
    manner: Manner,
    fails: &BTreeSet<u32>,
    crashes: &[u8],
) -> Run {
    let (mut bulk, mut items) = bulk(keyrings, pacing.clone(), manner);
    let mut opened = BTreeMap::new();
    let mut now = START;
    for sweep in 0..20_000_usize {
        now = now.after(1_000);
        let counted = counts(&bulk, &items);
        let step = next(&bulk, counted, now);
        let survives = crashes.get(sweep).copied().unwrap_or(u8::MAX);
        match step {
            BulkStep::Open(count) => {
                assert!(counted.running + count <= pacing.concurrency);
                let (from, until) = bulk.wave_span();
                let waiting: Vec<usize> = (from..until)
                    .filter_map(|position| usize::try_from(position).ok())
                    .filter(|index| items[*index].state == ItemState::Waiting)
                    .take(usize::try_from(count).unwrap())
                    .collect();
                for index in waiting.into_iter().take(usize::from(survives)) {
                    let item = &items[index];
                    let state = if fails.contains(&item.position) {
                        failed(now)
                    } else {
                        *opened.entry(item.keyring).or_insert(0) += 1;
                        ItemState::opened(manner, rotation_id(item.position), now)
                    };
                    items[index] = item.moved(state);
                }
            }
            BulkStep::Wait => {
                // Proof arrives for the oldest one.
                if let Some(index) = items
                    .iter()
                    .position(|item| matches!(item.state, ItemState::Running { .. }))
                    && let ItemState::Running { rotation, .. } = items[index].state
                {
                    items[index] = items[index].moved(ItemState::Done { rotation, at: now });
                }
            }
            BulkStep::Advance(_) | BulkStep::Stop { .. } | BulkStep::Complete => {
                if survives > 0 {
                    bulk = bulk.took(step, now).unwrap();
                }
            }
            BulkStep::Nothing => break,
        }
    }
    Run {
        bulk,
        items,
        opened,
    }
}

fn any_pacing() -> impl Strategy<Value = Pacing> {
    (
        prop::collection::btree_set(1_u8..100, 0..5),
        1_u32..20,
        0_u64..5_000,
    )
        .prop_map(|(waves, concurrency, pause_millis)| Pacing {
            waves: waves.into_iter().chain([100]).collect(),
            concurrency,
            pause_millis,
            stop_at_failed_percent: 100,
            ..Pacing::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_keyring_is_in_one_wave(
        numbers in prop::collection::btree_set(any::<u32>(), 0..300), pacing in any_pacing(),
    ) {
        let arranged = arrange(numbers.iter().map(|number| keyring_id(*number)), &pacing.waves);
        let found: BTreeSet<_> = arranged.keyrings.iter().copied().collect();
        prop_assert_eq!(found.len(), arranged.keyrings.len());
        prop_assert_eq!(found, numbers.iter().map(|number| keyring_id(*number)).collect());
        prop_assert!(arranged.wave_ends.windows(2).all(|pair| pair[0] < pair[1]));
        let last = arranged.wave_ends.last().copied().unwrap_or(0);
        prop_assert_eq!(usize::try_from(last).unwrap(), numbers.len());
        // The order is that of the ids alone.
        let again = arrange(numbers.iter().rev().map(|number| keyring_id(*number)), &pacing.waves);
        prop_assert_eq!(again, arranged);
    }

    #[test]
    fn a_bulk_ends_and_rotates_every_keyring_once_whatever_crashes(
        keyrings in 1_u32..120,
        pacing in any_pacing(),
        fails in prop::collection::btree_set(0_u32..120, 0..20),
        crashes in prop::collection::vec(0_u8..4, 0..200),
        waits in any::<bool>(),
    ) {
        let manner = if waits { proven() } else { Manner::Immediate };
        let run = drive(keyrings, &pacing, manner, &fails, &crashes);
        let state = run.bulk.state;
        prop_assert!(matches!(state, BulkState::Completed { .. }), "{:?}", state);
        prop_assert!(run.opened.values().all(|times| *times == 1));
        for item in &run.items {
            prop_assert_eq!(run.opened.contains_key(&item.keyring), !fails.contains(&item.position));
            prop_assert!(matches!(item.state.kind(), ItemKind::Done | ItemKind::Failed));
        }
    }

    #[test]
    fn nothing_more_is_opened_once_too_many_failed(
        keyrings in 1_u32..200,
        percent in 0_u8..100,
        concurrency in 1_u32..20,
    ) {
        let pacing = Pacing {
            waves: vec![10, 100],
            stop_at_failed_percent: percent,
            concurrency,
            ..Pacing::default()
        };
        let everyone: BTreeSet<u32> = (0..keyrings).collect();
        let run = drive(keyrings, &pacing, Manner::Immediate, &everyone, &[]);
        let of = keyrings.div_ceil(10);
        let BulkState::Stopped { failed, of: size, .. } = run.bulk.state else {
            return Err(TestCaseError::fail(format!("{:?}", run.bulk.state)));
        };
        prop_assert_eq!(size, of);
        prop_assert!(failed * 100 > of * u32::from(percent));
        // What failed beyond the threshold was tried together with the failure that passed it.
        prop_assert!((failed - concurrency.min(failed)) * 100 <= of * u32::from(percent));
        prop_assert_eq!(run.bulk.wave, 0);
    }
}

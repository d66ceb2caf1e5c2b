//! Bulk rotations: what is selected, how it goes on after a stop, and that nothing is rotated twice.

use std::time::Duration;

use hookturn_core::bulk::{BulkCommand, BulkState, ItemCounts, ItemKind, Manner, Pacing, Selector};
use hookturn_core::id::{BulkId, KeyringId};
use hookturn_core::proof::{Evidence, Findings, ProofPolicy};
use hookturn_core::store::{ReceiverState, Store as _};
use hookturn_core::time::{DAY, HOUR};
use hookturn_core::workspace::{RevealPolicy, Scope};

use super::super::bulk::{Following, NewBulk, StartedBulk};
use super::super::leaks::LeakHash;
use super::super::rotation::{ModeName, NewRotation};
use super::super::testing::{Bench, endpoint_input};
use super::super::{Caller, ServiceError};

async fn keyrings(bench: &Bench, count: usize) -> Vec<KeyringId> {
    let mut made = Vec::new();
    let mut app = bench.app().await;
    for number in 0..count {
        if number % 40 == 39 {
            app = bench.app().await;
        }
        let created = bench
            .service
            .create_endpoint(&bench.owner, app, endpoint_input(), None);
        made.push(created.await.unwrap().endpoint.keyring);
    }
    made
}

fn all(manner: Manner) -> NewBulk {
    NewBulk {
        selector: Selector {
            all: true,
            ..Selector::default()
        },
        hashes: Vec::new(),
        manner,
        pacing: Pacing {
            concurrency: 7,
            ..Pacing::default()
        },
        dry_run: false,
    }
}

async fn start(bench: &Bench, input: NewBulk) -> StartedBulk {
    let started = bench.service.start_bulk(&bench.owner, input, None).await;
    started.unwrap()
}

async fn counts(bench: &Bench, id: BulkId) -> (BulkState, ItemCounts) {
    let progress = bench.service.bulk(&bench.owner, id).await.unwrap();
    (progress.bulk.state, progress.counts)
}

/// Sweeps until it is not running any more.
async fn run(bench: &Bench, id: BulkId) -> (BulkState, ItemCounts) {
    for _ in 0..1_000 {
        bench.service.advance_bulks(Duration::ZERO).await.unwrap();
        bench.clock.advance(250);
        let now = counts(bench, id).await;
        if now.0 != BulkState::Running {
            return now;
        }
    }
    panic!("it does not end");
}

fn overlap() -> NewRotation {
    NewRotation {
        mode: ModeName::Overlap,
        overlap: Some(HOUR),
        deadline_at: None,
        policy: None,
        name: None,
        value: None,
        reason: None,
    }
}

async fn open_overlap(bench: &Bench, keyring: KeyringId) {
    let opened = bench
        .service
        .open_rotation(&bench.owner, keyring, overlap(), None, None);
    opened.await.unwrap();
}

#[tokio::test]
async fn every_keyring_gets_one_new_secret_and_the_report_names_the_failures() {
    let bench = Bench::new().await;
    let keyrings = keyrings(&bench, 60).await;
    open_overlap(&bench, keyrings[3]).await;
    let version = |keyring| bench.live.keyring(keyring).unwrap().secrets.len();
    let planned = start(
        &bench,
        NewBulk {
            dry_run: true,
            ..all(Manner::Overlap { overlap: None })
        },
    )
    .await;
    assert_eq!(planned.keyrings.len(), 60);
    assert_eq!(planned.bulk.wave_ends, [1, 6, 30, 60]);
    let obstacles: Vec<_> = planned
        .keyrings
        .iter()
        .filter_map(|one| one.obstacle.as_ref().map(|(code, _)| code.as_str()))
        .collect();
    assert_eq!(obstacles, ["rotation_open"]);
    assert!(
        bench.live.open_bulks().is_empty(),
        "a dry run starts nothing"
    );
    let mut input = all(Manner::Overlap { overlap: None });
    input.pacing.stop_at_failed_percent = 100;
    let started = start(&bench, input).await;
    let order = |started: &StartedBulk| -> Vec<_> {
        started.keyrings.iter().map(|one| one.keyring.id).collect()
    };
    assert_eq!(
        order(&started),
        order(&planned),
        "what was looked at is done"
    );
    let (state, counts) = run(&bench, started.bulk.id).await;
    assert!(matches!(state, BulkState::Completed { .. }), "{state:?}");
    assert_eq!((counts.done, counts.failed), (59, 1));
    for keyring in &keyrings {
        assert_eq!(version(*keyring), 2);
    }
    let failed =
        bench
            .service
            .bulk_items(&bench.owner, started.bulk.id, Some(ItemKind::Failed), 0, 10);
    let failed = failed.await.unwrap().items;
    assert_eq!(failed[0].item.keyring, keyrings[3]);
    // Over is over: another sweep finds nothing to do.
    bench.service.advance_bulks(Duration::ZERO).await.unwrap();
    assert_eq!(version(keyrings[0]), 2);
}

#[tokio::test]
async fn it_stops_at_too_many_failures_and_goes_on_when_told() {
    let bench = Bench::new().await;
    let keyrings = keyrings(&bench, 20).await;
    for keyring in &keyrings[..10] {
        open_overlap(&bench, *keyring).await;
    }
    let mut input = all(Manner::Overlap { overlap: None });
    input.pacing.waves = vec![100];
    input.pacing.concurrency = 1;
    let id = start(&bench, input).await.bulk.id;
    let (state, counted) = run(&bench, id).await;
    let BulkState::Stopped { failed, of, .. } = state else {
        panic!("{state:?}");
    };
    assert_eq!((failed, of), (3, 20));
    assert!(counted.waiting > 0);
    let command = |command| {
        bench
            .service
            .command_bulk(&bench.owner, id, command, None, None)
    };
    let refused = command(BulkCommand::Pause).await.unwrap_err();
    assert_eq!(refused.code(), "bulk_not_running");
    for _ in 0..10 {
        command(BulkCommand::Resume).await.unwrap();
        let (state, counted) = run(&bench, id).await;
        if matches!(state, BulkState::Completed { .. }) {
            assert_eq!((counted.done, counted.failed), (10, 10));
            return;
        }
    }
    panic!("it never completed");
}

#[tokio::test]
async fn paused_it_opens_nothing_and_cancelled_it_stays_so() {
    let bench = Bench::new().await;
    keyrings(&bench, 30).await;
    let mut input = all(Manner::Immediate);
    input.pacing.waves = vec![100];
    let id = start(&bench, input).await.bulk.id;
    bench.service.advance_bulks(Duration::ZERO).await.unwrap();
    let version = bench
        .service
        .bulk(&bench.owner, id)
        .await
        .unwrap()
        .bulk
        .version;
    let stale = bench.service.command_bulk(
        &bench.owner,
        id,
        BulkCommand::Pause,
        Some(version + 1),
        None,
    );
    let stale = stale.await.unwrap_err();
    assert!(matches!(stale, ServiceError::PreconditionFailed { .. }));
    for command in [BulkCommand::Pause, BulkCommand::Cancel] {
        let done = bench
            .service
            .command_bulk(&bench.owner, id, command, None, None);
        done.await.unwrap();
        let (_, before) = counts(&bench, id).await;
        assert_eq!(before.done, 7);
        bench.service.advance_bulks(Duration::ZERO).await.unwrap();
        assert_eq!(counts(&bench, id).await.1, before);
    }
    let log = bench
        .store
        .audit_log(bench.owner.workspace, 0, 10_000)
        .await;
    let log = log.unwrap();
    let actions: Vec<_> = log
        .iter()
        .map(|entry| entry.entry.action.to_string())
        .filter(|action| action.starts_with("bulk."))
        .collect();
    assert_eq!(actions, ["bulk.started", "bulk.paused", "bulk.cancelled"]);
    let opened = log
        .iter()
        .filter(|entry| entry.entry.detail.get("bulk") == Some(&id.to_string()));
    // Three commands and seven rotations, all in the name of who asked.
    let actors: Vec<_> = opened.map(|entry| entry.context.actor).collect();
    assert_eq!(actors.len(), 10);
    assert!(actors.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Only endpoints that accepted something can be proved; a rotation that is not proved holds its place
/// until the patience is over.
#[tokio::test]
async fn a_proven_bulk_waits_for_proof_with_patience() {
    let bench = Bench::new().await;
    let keyrings = keyrings(&bench, 3).await;
    for keyring in &keyrings[..2] {
        let keyring = bench.live.keyring(*keyring).unwrap();
        let endpoint = bench.live.keyring_users(&keyring)[0].id;
        let known = ReceiverState {
            accepted_at: Some(bench.service.now()),
            ..ReceiverState::default()
        };
        bench.live.put_receiver(endpoint, known);
    }
    let policy = ProofPolicy::default();
    let mut input = all(Manner::Proven { policy });
    input.pacing.waves = vec![100];
    input.pacing.stop_at_failed_percent = 50;
    let id = start(&bench, input).await.bulk.id;
    bench.service.advance_bulks(Duration::ZERO).await.unwrap();
    bench.service.advance_bulks(Duration::ZERO).await.unwrap();
    let (state, counted) = counts(&bench, id).await;
    assert_eq!(state, BulkState::Running);
    assert_eq!((counted.running, counted.failed), (2, 1));
    let rotation = bench
        .live
        .keyring(keyrings[0])
        .unwrap()
        .rotation
        .clone()
        .unwrap();
    let promoted = bench
        .service
        .promote_rotation(&bench.owner, rotation.id, true, None, None);
    promoted.await.unwrap();
    bench.service.advance_bulks(Duration::ZERO).await.unwrap();
    assert_eq!(counts(&bench, id).await.1.done, 1);
    bench.clock.advance(DAY);
    let (state, counted) = run(&bench, id).await;
    assert!(matches!(state, BulkState::Completed { .. }), "{state:?}");
    assert_eq!((counted.stalled, counted.done, counted.failed), (1, 1, 1));
    // The stalled one goes on by itself, and what becomes of it is told, after a restart too.
    let stalled = bench.live.keyring(keyrings[1]).unwrap();
    let rotation = stalled.open_rotation(bench.service.now()).unwrap().id;
    for _ in 0..3 {
        bench.service.advance_bulks(Duration::ZERO).await.unwrap();
    }
    assert_eq!(counts(&bench, id).await.1.stalled, 1);
    *bench.service.bulks_followed.lock().await = Following::default();
    let promoted = bench
        .service
        .promote_rotation(&bench.owner, rotation, true, None, None);
    promoted.await.unwrap();
    for _ in 0..3 {
        bench.service.advance_bulks(Duration::ZERO).await.unwrap();
    }
    let counted = counts(&bench, id).await.1;
    assert_eq!((counted.stalled, counted.done, counted.failed), (0, 2, 1));
    let items = bench
        .service
        .bulk_items(&bench.owner, id, Some(ItemKind::Done), 0, 10);
    let items = items.await.unwrap().items;
    assert!(
        items
            .iter()
            .any(|item| item.item.state.rotation() == Some(rotation))
    );
}

/// A bulk that does not run any more still says what its rotations came to.
#[tokio::test]
async fn rotations_of_a_bulk_that_was_paused_and_cancelled_are_still_told_of() {
    let bench = Bench::new().await;
    let keyrings = keyrings(&bench, 3).await;
    for keyring in &keyrings {
        let keyring = bench.live.keyring(*keyring).unwrap();
        let endpoint = bench.live.keyring_users(&keyring)[0].id;
        let known = ReceiverState {
            accepted_at: Some(bench.service.now()),
            ..ReceiverState::default()
        };
        bench.live.put_receiver(endpoint, known);
    }
    let policy = ProofPolicy::default();
    let mut input = all(Manner::Proven { policy });
    input.pacing.waves = vec![100];
    let id = start(&bench, input).await.bulk.id;
    bench.service.advance_bulks(Duration::ZERO).await.unwrap();
    let rotation = |keyring| {
        let keyring = bench.live.keyring(keyring).unwrap();
        keyring.rotation.as_ref().unwrap().id
    };
    let sweep = async || {
        for _ in 0..4 {
            bench.service.advance_bulks(Duration::ZERO).await.unwrap();
        }
        counts(&bench, id).await.1
    };
    let command = async |command| {
        let said = bench
            .service
            .command_bulk(&bench.owner, id, command, None, None);
        said.await.unwrap();
    };
    command(BulkCommand::Pause).await;
    let cancel = bench
        .service
        .cancel_rotation(&bench.owner, rotation(keyrings[0]), None, None);
    cancel.await.unwrap();
    let counted = sweep().await;
    assert_eq!((counted.running, counted.failed), (2, 1));
    command(BulkCommand::Cancel).await;
    let promote =
        bench
            .service
            .promote_rotation(&bench.owner, rotation(keyrings[1]), true, None, None);
    promote.await.unwrap();
    let counted = sweep().await;
    assert_eq!((counted.running, counted.done, counted.failed), (1, 1, 1));
    // One whose keyring went on to another rotation before anyone looked.
    let first = rotation(keyrings[2]);
    let service = &bench.service;
    let promote = service.promote_rotation(&bench.owner, first, true, None, None);
    promote.await.unwrap();
    let finish = service.finish_rotation(&bench.owner, first, None, None);
    finish.await.unwrap();
    open_overlap(&bench, keyrings[2]).await;
    assert_ne!(rotation(keyrings[2]), first);
    let counted = sweep().await;
    assert_eq!((counted.running, counted.done, counted.failed), (0, 2, 1));
}

#[tokio::test]
async fn a_leaked_string_selects_the_keyring_it_signs_for() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(bench.endpoint(app).await);
    }
    let leaked = made[2].once.as_ref().unwrap();
    let by = |hashes: Vec<LeakHash>| NewBulk {
        selector: Selector::default(),
        hashes,
        ..all(Manner::Immediate)
    };
    let hash = LeakHash::of(leaked.value.expose());
    let started = start(&bench, by(vec![hash])).await;
    assert_eq!(started.keyrings.len(), 1);
    assert_eq!(started.keyrings[0].keyring.id, made[2].endpoint.keyring);
    run(&bench, started.bulk.id).await;
    // It signs nothing any more, so nothing is left to rotate.
    let again = bench
        .service
        .start_bulk(&bench.owner, by(vec![hash]), None)
        .await;
    assert_eq!(again.unwrap_err().code(), "nothing_selected");
    let print = NewBulk {
        selector: Selector {
            fingerprints: vec![made[0].once.as_ref().unwrap().secret.fingerprint],
            ..Selector::default()
        },
        ..all(Manner::Immediate)
    };
    assert_eq!(start(&bench, print).await.keyrings.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_place() {
    let bench = Bench::new().await;
    keyrings(&bench, 1).await;
    let try_it = async |caller: &Caller, input: NewBulk| {
        let tried = bench.service.start_bulk(caller, input, None).await;
        tried.map(drop).unwrap_err()
    };
    let mut nothing = all(Manner::Immediate);
    nothing.selector.all = false;
    let mut waves = all(Manner::Immediate);
    waves.pacing.waves = vec![50];
    for (input, place) in [(nothing, "/selector"), (waves, "/waves")] {
        match try_it(&bench.owner, input).await {
            ServiceError::Invalid { pointer, .. } => assert_eq!(pointer, place),
            other => panic!("{other:?}"),
        }
    }
    let reader = bench.limited(&[Scope::Read]).await;
    let refused = try_it(&reader, all(Manner::Immediate)).await;
    assert!(matches!(refused, ServiceError::Forbidden { .. }));
    let stranger = bench.stranger().await;
    let id = start(&bench, all(Manner::Immediate)).await.bulk.id;
    let foreign = bench.service.bulk(&stranger, id).await.unwrap_err();
    assert!(matches!(foreign, ServiceError::NotFound { .. }));
    let mut workspace = bench
        .live
        .workspace(bench.owner.workspace)
        .unwrap()
        .as_ref()
        .clone();
    workspace.settings.reveal_secrets = RevealPolicy::Never;
    workspace.version += 1;
    let writes = vec![hookturn_core::store::Write::Workspace(workspace)];
    bench.service.write_for_system(writes).await.unwrap();
    let refused = try_it(&bench.owner, all(Manner::Immediate)).await;
    assert_eq!(refused.code(), "reveal_disabled");
}

/// A process that dies between any two steps: the next one finds what was opened, and opens the rest.
#[tokio::test]
async fn what_another_process_takes_over_is_rotated_once() {
    let bench = Bench::new().await;
    let keyrings = keyrings(&bench, 25).await;
    let mut input = all(Manner::Immediate);
    input.pacing.waves = vec![40, 100];
    let id = start(&bench, input).await.bulk.id;
    for _ in 0..2 {
        bench.service.advance_bulks(Duration::ZERO).await.unwrap();
    }
    // All that another process would know is what the store holds.
    let loaded = bench.store.load().await.unwrap();
    assert_eq!(loaded.bulks.len(), 1);
    bench.live.reset(loaded);
    let (state, counted) = run(&bench, id).await;
    assert!(matches!(state, BulkState::Completed { .. }));
    assert_eq!(counted.done, 25);
    for keyring in keyrings {
        assert_eq!(bench.live.keyring(keyring).unwrap().secrets.len(), 2);
    }
}

/// Two sweeps at once, as of two processes: the item's version lets one of them open it.
#[tokio::test]
async fn two_sweeps_at_once_open_each_rotation_once() {
    let bench = Bench::new().await;
    let keyrings = keyrings(&bench, 12).await;
    let mut input = all(Manner::Immediate);
    input.pacing.waves = vec![100];
    let id = start(&bench, input).await.bulk.id;
    while counts(&bench, id).await.0 == BulkState::Running {
        let (one, other) = tokio::join!(
            bench.service.advance_bulks(Duration::ZERO),
            bench.service.advance_bulks(Duration::ZERO)
        );
        one.and(other).unwrap();
    }
    for keyring in keyrings {
        assert_eq!(bench.live.keyring(keyring).unwrap().secrets.len(), 2);
    }
}

/// Findings of rotations are shown with the items that opened them.
#[tokio::test]
async fn an_item_shows_who_still_accepts_the_old_secret() {
    use hookturn_core::proof::{Observed, ProbeAnswer, Release};
    let bench = Bench::new().await;
    let keyrings = keyrings(&bench, 2).await;
    let id = start(&bench, all(Manner::Immediate)).await.bulk.id;
    run(&bench, id).await;
    let keyring = bench.live.keyring(keyrings[0]).unwrap();
    let rotation = keyring.rotation.as_ref().unwrap().id;
    let endpoint = bench.live.keyring_users(&keyring)[0].id;
    let now = bench.service.now();
    bench.live.find(endpoint, |known| Findings {
        evidence: Some(Evidence::new(rotation).after(
            &ProofPolicy::default(),
            Observed::Released,
            ProbeAnswer::Accepted,
            now,
        )),
        ..known
    });
    let items = bench.service.bulk_items(&bench.owner, id, None, 0, 10);
    let items = items.await.unwrap().items;
    let shown = |keyring| {
        let item = items.iter().find(|item| item.item.keyring == keyring);
        item.unwrap().releases.clone()
    };
    assert_eq!(
        shown(keyrings[0]),
        [(endpoint, Release::StillAccepts { at: now })]
    );
    assert!(matches!(shown(keyrings[1])[0].1, Release::NotAsked));
}

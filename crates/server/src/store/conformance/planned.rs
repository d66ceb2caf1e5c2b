//! What happens without being asked for: reporting, notices, schedules.

use std::sync::Arc;

use hookturn_core::id::{KeyringId, RotationId, ScheduleId};
use hookturn_core::proof::{Noted, ProofPolicy};
use hookturn_core::schedule::{
    Blocked, Opened, Schedule, ScheduleNote, Selector, Skipped, Timing, Zone,
};
use hookturn_core::store::{Change, Hint, NewMessage, StoreError, Write};

use super::Engine;
use super::world::{START, Tenant, World, context};

fn reporting(tenant: &Tenant, (after, through): (u64, u64), messages: Vec<NewMessage>) -> Change {
    let workspace = tenant.workspace.id;
    Change {
        workspace,
        writes: vec![Write::Reported {
            workspace,
            after,
            through,
            messages,
        }],
        audit: Vec::new(),
        context: context(),
        at: START,
        idempotency: None,
    }
}

/// The place up to which a log was reported moves with the messages or not at all, and from where it
/// stands only: whoever comes second, or after a crash, reports nothing again.
pub async fn g1_a_report_is_accepted_with_its_place_or_not_at_all(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("other").await);
    let (workspace, to) = (tenant.workspace.id, &tenant.endpoints[0]);
    let about = |world: &World<'_, _>| {
        let own = world.message(&tenant.app, START, "hookturn.a", 8, &[to]);
        let elsewhere = world.message(&other.app, START, "hookturn.a", 8, &[&other.endpoints[1]]);
        vec![own, elsewhere]
    };
    world.hints.take();
    let first = reporting(&tenant, (0, 1), about(&world));
    let twice = reporting(&tenant, (0, 1), about(&world));
    world.store().change(first).await.unwrap();
    assert_eq!(world.live.reported(workspace), 1);
    let hints = world.hints.take();
    let rows = hints.iter().map(|hint| match hint {
        Hint::Accepted(rows) => rows.len(),
        Hint::Told(_) | Hint::Endpoint(_) | Hint::Requeued(..) | Hint::Due(..) => 0,
    });
    assert_eq!(rows.sum::<usize>(), 2);
    for crash in [false, true] {
        let refused = world.store().change(twice.clone()).await;
        assert!(
            matches!(refused, Err(StoreError::Conflict { .. })),
            "{refused:?}"
        );
        assert_eq!(world.live.reported(workspace), 1);
        assert_eq!(world.due(to, START).await.rows.len(), 1);
        assert_eq!(world.due(&other.endpoints[1], START).await.rows.len(), 1);
        if crash {
            world.crash().await;
        } else {
            world.restart().await;
        }
    }
    let skipping = reporting(&tenant, (2, 3), Vec::new());
    assert!(world.store().change(skipping).await.is_err());
    let next = reporting(&tenant, (1, 3), Vec::new());
    world.store().change(next).await.unwrap();
    assert_eq!(world.live.reported(workspace), 3);
}

/// Whoever reports is told of every log that grew, once, also after a restart, and of no other.
pub async fn a_log_that_grew_is_unreported_until_it_is_reported(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let (tenant, other) = (world.tenant("acme").await, world.tenant("other").await);
    let (one, two) = (tenant.workspace.id, other.workspace.id);
    let both = [one, two].into();
    assert_eq!(world.live.take_unreported(), both);
    assert!(world.live.take_unreported().is_empty());
    world.restart().await;
    assert_eq!(world.live.take_unreported(), both);
    let last = |log: Vec<hookturn_core::audit::Recorded>| log.last().unwrap().seq;
    let seen = last(world.store().audit_log(one, 0, 100).await.unwrap());
    let done = reporting(&tenant, (0, seen), Vec::new());
    world.store().change(done).await.unwrap();
    assert!(world.live.take_unreported().is_empty());
    world.restart().await;
    assert_eq!(world.live.take_unreported(), [two].into());
    let entry = super::world::entry();
    let recorded = world.store().audit(one, context(), vec![entry], START);
    recorded.await.unwrap();
    assert_eq!(world.live.take_unreported(), [one].into());
    // A change that was refused grew nothing.
    let stale = world.changing(one, vec![Write::App(tenant.app.clone())]);
    assert!(world.store().change(stale).await.is_err());
    assert!(world.live.take_unreported().is_empty());
}

/// What an owner was told is what was written last.
pub async fn what_an_owner_was_told_survives_a_restart(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let (workspace, keyring) = (tenant.workspace.id, tenant.endpoints[0].keyring);
    assert_eq!(world.live.noted(keyring), None);
    for proved in [false, true] {
        let noted = Noted {
            proved,
            deadline_near: Some(START),
            do_not_verify: vec![tenant.endpoints[0].id],
            ..Noted::new(RotationId::from_bytes([9; 16]))
        };
        let write = Write::Noted {
            workspace,
            keyring,
            noted: noted.clone(),
        };
        world.write(workspace, vec![write]).await;
        assert_eq!(world.live.noted(keyring).as_ref(), Some(&noted));
        world.restart().await;
        assert_eq!(world.live.noted(keyring).as_ref(), Some(&noted));
    }
}

fn schedule(tenant: &Tenant, version: u64) -> Schedule {
    Schedule {
        id: ScheduleId::from_bytes([5; 16]),
        workspace: tenant.workspace.id,
        name: "yearly".to_owned(),
        selector: Selector::App { app: tenant.app.id },
        timing: Timing::Age { days: 365 },
        zone: "Europe/Berlin".parse::<Zone>().unwrap(),
        jitter_seconds: 60,
        weekly_blackouts: Vec::new(),
        date_blackouts: Vec::new(),
        policy: ProofPolicy::default(),
        paused: version > 1,
        seed: u64::MAX,
        since: START,
        version,
        created_at: START,
        updated_at: START,
    }
}

/// A schedule is changed by version with one winner, survives a restart with what it did, and takes that
/// with it when it is removed.
pub async fn g5_a_schedule_has_one_winner_and_takes_its_notes_with_it(engine: &impl Engine) {
    let mut world = World::new(engine).await;
    let tenant = world.tenant("acme").await;
    let workspace = tenant.workspace.id;
    let keyring: KeyringId = tenant.endpoints[0].keyring;
    let first = schedule(&tenant, 1);
    let note = |write: ScheduleNote| Write::ScheduleNote {
        workspace,
        schedule: first.id,
        keyring,
        note: write,
    };
    let done = ScheduleNote {
        opened: Some(Opened {
            due: START,
            rotation: RotationId::from_bytes([8; 16]),
            at: START.after(5),
        }),
        skipped: Some(Skipped {
            due: START.after(9),
            why: Blocked::NeverContacted,
            since: START.after(10),
        }),
    };
    let refused = |write: Write| {
        let change = world.changing(workspace, vec![write]);
        let store = Arc::clone(world.store());
        async move { matches!(store.change(change).await, Err(StoreError::Conflict { .. })) }
    };
    assert!(refused(note(done)).await, "there is no schedule yet");
    assert!(refused(Write::Schedule(schedule(&tenant, 2))).await);
    let writes = vec![Write::Schedule(first.clone()), note(done)];
    world.write(workspace, writes).await;
    assert!(refused(Write::Schedule(first.clone())).await);
    let second = schedule(&tenant, 2);
    let asked: Vec<_> = (0..16)
        .map(|_| tokio::spawn(refused(Write::Schedule(second.clone()))))
        .collect();
    let mut winners = 0;
    for lost in asked {
        winners += usize::from(!lost.await.unwrap());
    }
    assert_eq!(winners, 1);
    world.restart().await;
    assert_eq!(world.live.schedule(first.id).as_deref(), Some(&second));
    assert_eq!(world.live.schedule_note(first.id, keyring), done);
    let remove = |version| Write::RemoveSchedule {
        workspace,
        schedule: first.id,
        version,
    };
    let stale = world.changing(workspace, vec![remove(1)]);
    assert!(world.store().change(stale).await.is_err());
    world.write(workspace, vec![remove(2)]).await;
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        assert!(world.live.schedules().is_empty());
        let gone = world.live.schedule_note(first.id, keyring);
        assert_eq!(gone, ScheduleNote::default());
    }
}

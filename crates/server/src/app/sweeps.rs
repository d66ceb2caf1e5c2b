//! Background work on a signal and on a period: it takes no input and may run at any time.
//!
//! Where several nodes share a database, what one node does for all is done by the one that *leads*: the owner of the
//! first shard. Its writes are fenced as all are, so that one that is taken over in the middle writes nothing more; and
//! each step is decided again inside the change that stores it, so that two that lead for a moment do nothing twice.

use std::sync::Arc;
use std::time::Duration;

use hookturn_core::limits::EVIDENCE_METERED;
use hookturn_core::store::{Hint, HintSink as _, Store};
use hookturn_core::time::{Clock, DAY, Millis};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::engine::Engine;
use super::outbox;
use crate::api::{Readiness, Ready};
use crate::dispatch::Inboxes;
use crate::service::Service;
use crate::service::proving::Prober;
use crate::store::owned::Owned;
use crate::telemetry::metrics::{Metrics, NodeFigures};
use crate::telemetry::tally;
use crate::telemetry::troubles::Troubles;

/// How often it is looked whether the store takes writes, and tried while it does not.
const WATCH: Duration = Duration::from_millis(500);
/// How often keyrings are settled. Bookkeeping only: signing never waits for it.
const SETTLE: Duration = Duration::from_secs(1);
/// How often proven rotations are looked at: what is due is asked, what is proved moves on.
const PROVE: Duration = Duration::from_millis(250);
/// How often bulk rotations take a step.
const BULK: Duration = Duration::from_millis(250);
/// Over how long the rotations of such a step are spread: most of the time to the next one.
const BULK_SPREAD: Duration = Duration::from_millis(200);
/// How often it is looked whether the audit logs have news for operational endpoints.
const REPORT: Duration = Duration::from_millis(250);
/// How often it is looked whether other nodes wrote into the audit logs.
const FIND: Duration = Duration::from_secs(1);
/// How often due rows are looked for that a node was told of in vain, where there are several nodes.
const LOOK: Duration = Duration::from_secs(5);
/// How often the metrics of the nodes are taken.
const STAND: Duration = Duration::from_secs(1);
/// How often it is looked whether there is something to say about open rotations.
const NOTE: Duration = Duration::from_secs(1);
/// How often schedules are looked at. They speak of minutes.
const OPEN: Duration = Duration::from_secs(1);
/// How often what is past its retention is removed.
const PRUNE: Duration = Duration::from_mins(10);
/// How often the figures of the overview are kept: a server that is killed loses as much of them.
const KEEP: Duration = Duration::from_mins(1);
/// Workspaces whose figures are kept in one transaction.
const FIGURES: usize = 50;
/// How often the store counts itself for the metrics.
const COUNT: Duration = Duration::from_secs(15);
/// How often the evidence of open rotations is taken for the metrics: more often than anybody scrapes.
const METER: Duration = Duration::from_secs(2);
/// Rows one pruning step removes of each kind, so that a commit stays within milliseconds.
const PRUNE_ROWS: usize = 500;
/// Pause between pruning steps.
const PRUNE_PAUSE: Duration = Duration::from_millis(hookturn_core::store::BLOCK_PAUSE);

pub(super) struct Parts {
    pub(super) service: Arc<Service>,
    pub(super) prober: Arc<dyn Prober>,
    pub(super) inboxes: Inboxes,
    /// Which shards this node owns.
    pub(super) owned: Arc<Owned>,
    pub(super) store: Arc<dyn Store>,
    /// The engine below it, which knows whether its disk or its database takes writes.
    pub(super) engine: Engine,
    pub(super) ready: Readiness,
    pub(super) metrics: Arc<Metrics>,
    /// What the log says of the steps that fail.
    pub(super) troubles: Troubles,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) retention_days: u32,
    pub(super) stopping: watch::Receiver<bool>,
}

pub(super) async fn run(parts: Parts) {
    // Apart, because removing what is old can take minutes.
    tokio::join!(
        keep_house(&parts),
        watch_store(&parts),
        prove(&parts),
        rotate_in_bulk(&parts),
        report(&parts),
        keep_figures(&parts),
        meter_evidence(&parts),
        look_for_due(&parts),
        forget_queues(&parts),
        outbox::pick_up(&parts),
    );
}

/// Restores what the overview's figures were before the start, which waits for nothing of it, and keeps them
/// while the server runs and when it stops.
async fn keep_figures(parts: &Parts) {
    let tally = parts.metrics.tally();
    match parts.store.kept_figures(tally::WORKSPACES).await {
        Ok(kept) => {
            let left_out = tally.restore(&kept, parts.clock.now());
            if left_out > 0 {
                tracing::warn!(
                    left_out,
                    "figures of the overview were kept in another form; they begin anew"
                );
            }
        }
        Err(error) => {
            tally.restored();
            parts
                .troubles
                .failed("read what was counted before the start", &error);
        }
    }
    let mut keep = period(KEEP);
    let mut stopping = parts.stopping.clone();
    loop {
        tokio::select! {
            _ = stopping.changed() => return store_figures(parts).await,
            _ = keep.tick() => store_figures(parts).await,
        }
    }
}

/// Keeps what was counted since the last time; nothing is written while nothing happens.
async fn store_figures(parts: &Parts) {
    let tally = parts.metrics.tally();
    let changed = tally.changed();
    for some in changed.chunks(FIGURES) {
        let kept = some.iter().filter_map(|workspace| tally.kept(*workspace));
        let forget_before = parts.clock.now().before(tally::HORIZON);
        let stored = parts.store.keep_figures(kept.collect(), forget_before);
        let stored = stored.await;
        parts.troubles.note("keep what was counted", &stored);
        if stored.is_err() {
            for workspace in some {
                tally.not_kept(*workspace);
            }
            return;
        }
    }
}

/// Takes steps of bulk rotations for as long as the server runs, once everything is marked that was made
/// before there were marks.
async fn rotate_in_bulk(parts: &Parts) {
    match parts.service.mark_secrets().await {
        Ok(0) => {}
        Ok(marked) => tracing::info!(marked, "secrets can be found by their hash now"),
        Err(error) => {
            tracing::error!(%error, "secrets could not be marked; the next leak search tries again");
        }
    }
    let mut step = period(BULK);
    let mut stopping = parts.stopping.clone();
    loop {
        tokio::select! {
            _ = stopping.changed() => return,
            _ = step.tick() => {
                if !parts.store.leads() {
                    parts.service.leave_bulks().await;
                    continue;
                }
                let advanced = parts.service.advance_bulks(BULK_SPREAD).await;
                parts.troubles.note("go on with bulk rotations", &advanced);
            }
        }
    }
}

async fn keep_house(parts: &Parts) {
    let (mut settle, mut prune, mut count) = (period(SETTLE), period(PRUNE), period(COUNT));
    let mut stopping = parts.stopping.clone();
    loop {
        tokio::select! {
            _ = stopping.changed() => return,
            _ = settle.tick() => settle_keyrings(parts).await,
            _ = prune.tick() => if parts.store.leads() { remove_old(parts).await },
            _ = count.tick() => count_store(parts).await,
        }
    }
}

/// Tells the metrics what is known of the receivers of open rotations. From memory alone.
async fn meter_evidence(parts: &Parts) {
    let mut meter = period(METER);
    let mut stopping = parts.stopping.clone();
    loop {
        tokio::select! {
            _ = stopping.changed() => return,
            _ = meter.tick() => {
                parts.metrics.evidence(parts.service.rotation_evidence(EVIDENCE_METERED));
            }
        }
    }
}

/// Moves proven rotations for as long as the server runs. Probes that are under way when it stops are
/// given up: an answer that nobody waits for proves nothing.
async fn prove(parts: &Parts) {
    let mut look = period(PROVE);
    let mut stopping = parts.stopping.clone();
    let mut probes = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopping.changed() => return keep_findings(parts).await,
            _ = look.tick() => {
                while probes.try_join_next().is_some() {}
                let moved = parts.service.prove_rotations(&parts.prober, &mut probes).await;
                parts.troubles.note("move proven rotations", &moved);
                keep_findings(parts).await;
            }
        }
    }
}

/// Opens what schedules ask for, notes what time did to rotations, and reports it all. What is written
/// when the server stops is reported after the next start.
async fn report(parts: &Parts) {
    let (mut report, mut note, mut open) = (period(REPORT), period(NOTE), period(OPEN));
    let mut find = period(FIND);
    let mut stopping = parts.stopping.clone();
    let service = &parts.service;
    loop {
        if !parts.store.leads() {
            tokio::select! {
                _ = stopping.changed() => return,
                _ = note.tick() => continue,
            }
        }
        let (what, done) = tokio::select! {
            _ = stopping.changed() => return,
            _ = find.tick() => ("find what is to be reported", service.find_unreported().await),
            _ = open.tick() => ("open what schedules ask for", service.open_scheduled().await.map(drop)),
            _ = note.tick() => ("note what time did to rotations", service.note_rotations().await),
            _ = report.tick() => ("report operational events", service.report_events().await.map(drop)),
        };
        parts.troubles.note(what, &done);
    }
}

/// Looks for due rows of shards that were taken, and from time to time for those that another node told of in
/// vain: the due rows are the truth.
async fn look_for_due(parts: &Parts) {
    let (mut look, mut stand) = (period(LOOK), period(STAND));
    let mut stopping = parts.stopping.clone();
    loop {
        tokio::select! {
            _ = stopping.changed() => return,
            () = parts.owned.to_look() => tell_due(parts).await,
            _ = look.tick() => if shares(parts) { tell_due(parts).await },
            _ = stand.tick() => count_nodes(parts),
        }
    }
}

fn shares(parts: &Parts) -> bool {
    parts
        .engine
        .figures()
        .is_some_and(|figures| figures.nodes > 1)
}

/// Tells the delivery shards what is due for endpoints of this node.
async fn tell_due(parts: &Parts) {
    let due = parts.store.due_endpoints().await;
    parts.troubles.note("look for due deliveries", &due);
    if let Ok(due) = due {
        let ours = due.into_iter().filter(|(_, id, _)| parts.owned.owns(*id));
        let hints = ours.map(|(workspace, endpoint, at)| Hint::Due(workspace, endpoint, at));
        parts.inboxes.hint(hints.collect());
    } else {
        parts.owned.look();
        tokio::time::sleep(STAND).await;
    }
}

fn count_nodes(parts: &Parts) {
    if let Some(figures) = parts.engine.figures() {
        let skew_millis = i32::try_from(figures.skew_millis).unwrap_or(i32::MAX);
        parts.metrics.nodes(&NodeFigures {
            nodes: figures.nodes,
            shards: figures.shards,
            behind: figures.behind,
            skew_seconds: f64::from(skew_millis) / 1_000.0,
        });
    }
}

/// Lets the delivery shards forget what is another node's from now on.
async fn forget_queues(parts: &Parts) {
    let mut stopping = parts.stopping.clone();
    loop {
        tokio::select! {
            _ = stopping.changed() => return,
            () = parts.owned.lost() => parts.inboxes.disown(),
        }
    }
}

async fn keep_findings(parts: &Parts) {
    let kept = parts.service.keep_findings().await;
    let step = "store what was found about receivers";
    parts.troubles.note(step, &kept);
}

fn period(every: Duration) -> Interval {
    let mut period = interval(every);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    period
}

/// Looks at the store for as long as the server runs.
async fn watch_store(parts: &Parts) {
    let mut watch = period(WATCH);
    let mut stopping = parts.stopping.clone();
    loop {
        tokio::select! {
            _ = stopping.changed() => return,
            _ = watch.tick() => follow_store(parts).await,
        }
    }
}

/// Readiness follows the store: off for good when a page of it was found to be damaged; off when a write failed because of its disk, or its database is away; on again
/// when one succeeds.
async fn follow_store(parts: &Parts) {
    if parts.engine.is_damaged() {
        if !matches!(parts.ready.get(), Ready::Damaged | Ready::Draining) {
            parts.ready.set_damaged();
            tracing::error!(
                "not ready, and not again until a restart: the database is damaged; nothing new is accepted; stop \
                 the server, run `hookturn doctor`, and restore a backup"
            );
        }
        return;
    }
    let was_down = parts.ready.get() == Ready::StoreDown;
    if parts.engine.cannot_write() {
        if !was_down {
            parts.ready.set_store_down();
            tracing::error!("not ready: the store cannot write; it is tried again until it can");
        }
        // What it says is kept in `cannot_write`, and every failure is in the log.
        let _ = parts.engine.try_writing().await;
    }
    if was_down && !parts.engine.cannot_write() {
        parts.ready.set_ready();
        tracing::info!("ready again: the store can write");
    }
    follow_the_others(parts);
}

/// Readiness follows what this node has in common with the others as well: off while its clock is too far from the
/// database's, or while it lacks the master key that is current.
fn follow_the_others(parts: &Parts) {
    let figures = parts.engine.figures().unwrap_or_default();
    let ready = &parts.ready;
    match ready.get() {
        Ready::Yes | Ready::ClockOff | Ready::NoMasterKey => {
            if figures.lacks_master_key {
                ready.set_no_master_key();
            } else if figures.clock_is_off {
                ready.set_clock_off();
            } else {
                ready.set_ready();
            }
        }
        Ready::Starting | Ready::Draining | Ready::StoreDown | Ready::Damaged => {}
    }
}

async fn settle_keyrings(parts: &Parts) {
    // Nothing signs by it: keyrings sign as they should all the same.
    let settled = parts.service.settle().await;
    parts.troubles.note("settle keyrings", &settled);
}

async fn remove_old(parts: &Parts) {
    let retention = Millis::from(parts.retention_days) * DAY;
    loop {
        let now = parts.clock.now();
        match parts
            .store
            .prune(now.before(retention), now, PRUNE_ROWS)
            .await
        {
            Ok(progress) if progress.resume.is_some() && !*parts.stopping.borrow() => {
                tokio::time::sleep(PRUNE_PAUSE).await;
            }
            result => {
                tracing::debug!(
                    days = parts.retention_days,
                    "looked for what is past its retention"
                );
                let step = "remove what is past its retention";
                return parts.troubles.note(step, &result);
            }
        }
    }
}

async fn count_store(parts: &Parts) {
    let counted = parts.store.stats().await;
    parts.metrics.store(counted.as_ref().ok().copied());
    parts.troubles.note("count the store", &counted);
    let figures = parts.service.rotation_figures();
    parts.metrics.rotations(&figures.open, &figures.standing);
}

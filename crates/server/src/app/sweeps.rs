//! Background work on a signal and on a period: it takes no input and may run at any time.

use std::sync::Arc;
use std::time::Duration;

use hookturn_core::store::Store;
use hookturn_core::time::{Clock, DAY, Millis};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::log_step;
use crate::service::Service;
use crate::telemetry::metrics::Metrics;

/// How often keyrings are settled. Bookkeeping only: signing never waits for it.
const SETTLE: Duration = Duration::from_secs(1);
/// How often what is past its retention is removed.
const PRUNE: Duration = Duration::from_mins(10);
/// How often the store counts itself for the metrics.
const COUNT: Duration = Duration::from_secs(15);
/// Rows one pruning step removes of each kind, so that a commit stays within milliseconds.
const PRUNE_ROWS: usize = 500;
/// Pause between pruning steps.
const PRUNE_PAUSE: Duration = Duration::from_millis(hookturn_core::store::BLOCK_PAUSE);

pub(super) struct Parts {
    pub(super) service: Arc<Service>,
    pub(super) store: Arc<dyn Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) retention_days: u32,
    pub(super) stopping: watch::Receiver<bool>,
}

pub(super) async fn run(mut parts: Parts) {
    let period = |every| {
        let mut period = interval(every);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        period
    };
    let (mut settle, mut prune, mut count) = (period(SETTLE), period(PRUNE), period(COUNT));
    let mut stopping = parts.stopping.clone();
    loop {
        tokio::select! {
            _ = stopping.changed() => return,
            _ = settle.tick() => settle_keyrings(&parts).await,
            _ = prune.tick() => remove_old(&mut parts).await,
            _ = count.tick() => count_store(&parts).await,
        }
    }
}

async fn settle_keyrings(parts: &Parts) {
    if let Err(error) = parts.service.settle().await {
        tracing::error!(error = %error, "keyrings could not be settled; they sign as they should all the same");
    }
}

async fn remove_old(parts: &mut Parts) {
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
            result => return log_step("remove what is past its retention", result.map(drop)),
        }
    }
}

async fn count_store(parts: &Parts) {
    match parts.store.stats().await {
        Ok(stats) => parts.metrics.store(stats.due, stats.bytes),
        Err(error) => log_step("count the store", Err(error)),
    }
}

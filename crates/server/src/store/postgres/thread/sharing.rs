//! The writer as one of several nodes: it shows that it lives, follows the others, and shares the shards with them.

use std::time::Duration;

use hookturn_core::shard::Shard;
use tokio::time::{Instant, timeout};

use super::{Thread, taken_over};
use crate::store::postgres::connect::Session;
use crate::store::postgres::review::{self, Remembered};
use crate::store::postgres::rows::{Outcome, run};
use crate::store::postgres::{ear, view};
use crate::store::sharing::lease::GRACE;
use crate::store::sharing::review::{Seen, Steps};

/// How long the look at the shards may take.
const LOOK: Duration = Duration::from_secs(5);
/// How often it is read what the others learned about their receivers.
const RECEIVERS: Duration = Duration::from_secs(1);
/// How often it is read which API keys the others saw used.
const USES: Duration = Duration::from_secs(10);
/// How often what everyone has followed is forgotten.
const PRUNE: Duration = Duration::from_mins(1);
/// What it does, as the log says it when it fails.
const STEP: &str = "share the shards";

/// When what is done once in a while was last done.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    receivers: Option<Instant>,
    pruned: Option<Instant>,
    uses: Option<Instant>,
}

fn is_due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= every);
    if due {
        *last = Some(Instant::now());
    }
    due
}

impl Thread {
    /// Shows that this node lives, and follows the others.
    pub(super) async fn follow(&mut self) {
        if self.voice.take_reshare() {
            return self.share().await;
        }
        self.beat().await;
    }

    /// The same, and reviews the shards.
    pub(super) async fn share(&mut self) {
        self.reviewed = Instant::now();
        self.beat().await;
        let Some(session) = self.session.take() else {
            return;
        };
        match timeout(LOOK, self.review(&session)).await {
            Ok(Ok(())) => {
                self.troubles.worked(STEP);
                self.session = Some(session);
            }
            Ok(Err(error)) => {
                self.troubles.failed(STEP, &error);
                let good = timeout(LOOK, run(&session, "roll back", "ROLLBACK")).await;
                if matches!(good, Ok(Ok(()))) {
                    self.session = Some(session);
                } else {
                    self.lose();
                }
            }
            Err(_) => self.lose(),
        }
    }

    async fn beat(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        if let Ok(Ok(())) = timeout(GRACE, self.show(&session)).await {
            self.session = Some(session);
        } else {
            drop(session);
            self.lose();
        }
    }

    /// Shows that this node lives, and takes in what is new; then shows that as well, because others wait for it.
    async fn show(&mut self, session: &Session) -> Outcome<()> {
        loop {
            self.number += 1;
            let began = self.standing.uncorrected();
            let Some(begun) = self.node.show(session, self.word()).await? else {
                return Err(taken_over());
            };
            self.standing.measure(&begun, began);
            self.standing.follows(begun.head - self.applied);
            self.renew(begun.at);
            if begun.head <= self.applied {
                self.confirm(begun.at);
                return Ok(());
            }
            self.catch_up(session, begun.head).await?;
        }
    }

    async fn review(&mut self, session: &Session) -> Outcome<()> {
        let seen = review::look(session).await?;
        let steps = seen.steps(self.node.id, &self.owned);
        if !steps.is_empty() {
            self.take_steps(session, &steps).await?;
        }
        self.standing.shares(seen.nodes(), self.owned.count());
        self.look_around(session, &seen).await
    }

    async fn take_steps(&mut self, session: &Session, steps: &Steps) -> Outcome<()> {
        self.number += 1;
        if self.node.begin(session, self.word()).await?.is_none() {
            return Err(taken_over());
        }
        let taken = review::share(session, &self.node, steps).await?;
        let receivers = review::receivers(session, &taken).await?;
        run(session, "share the shards", "COMMIT").await?;
        for (endpoint, receiver) in receivers {
            self.live.put_receiver(endpoint, receiver);
        }
        for shard in &taken {
            self.owned.take(*shard);
        }
        tracing::info!(
            taken = taken.len(),
            given_up = steps.free.len(),
            owned = self.owned.count(),
            "shards changed hands"
        );
        if !steps.free.is_empty() {
            ear::say(session, "shards").await?;
        }
        Ok(())
    }

    /// What is done once in a while where there are others.
    async fn look_around(&mut self, session: &Session, seen: &Seen) -> Outcome<()> {
        if self.owned.leads() && is_due(&mut self.upkeep.pruned, PRUNE) {
            view::prune(session).await?;
        }
        if seen.nodes() > 1 && is_due(&mut self.upkeep.receivers, RECEIVERS) {
            let learned = review::recent_receivers(session).await?;
            let theirs = |(endpoint, _): &Remembered| !self.owned.owns(*endpoint);
            for (endpoint, receiver) in learned.into_iter().filter(theirs) {
                self.live.put_receiver(endpoint, receiver);
            }
        }
        if seen.nodes() > 1 && is_due(&mut self.upkeep.uses, USES) {
            for (key, at) in review::recent_uses(session).await? {
                self.live.note_api_key_use(key, at);
            }
        }
        Ok(())
    }

    /// Nothing more begins here.
    pub(super) fn give_up_everything(&self) {
        for shard in Shard::all() {
            self.owned.give_up(shard);
        }
    }
}

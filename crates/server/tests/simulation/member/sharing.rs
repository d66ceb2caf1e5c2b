//! The writer as one of several nodes: it shows that it lives, follows the others, and shares the shards with them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hookturn::store::sharing::review::{Seen, Steps};
use hookturn_core::shard::Shard;
use tokio::time::{Instant, timeout};

use super::{GRACE, Writer};
use crate::base::{Notice, Session};
use crate::link::Lost;
use crate::mutant::Mutant;

/// How long the look at the shards may take.
const LOOK: Duration = Duration::from_secs(5);
/// How often it is read what the others learned about their receivers.
const RECEIVERS: Duration = Duration::from_secs(1);

impl Writer {
    /// Shows that this node lives, and follows the others.
    pub(super) async fn follow(&mut self) {
        if self.node.voice.take_reshare() {
            return self.share().await;
        }
        self.beat().await;
    }

    /// The same, and reviews the shards.
    pub(super) async fn share(&mut self) {
        self.reviewed = Instant::now();
        self.beat().await;
        let Some(session) = self.session else {
            return;
        };
        if !matches!(timeout(LOOK, self.review(session)).await, Ok(Ok(()))) {
            self.lose();
        }
    }

    async fn beat(&mut self) {
        let Some(session) = self.session else {
            return;
        };
        if !matches!(timeout(GRACE, self.show(session)).await, Ok(Ok(()))) {
            self.lose();
        }
    }

    async fn show(&mut self, session: Session) -> Result<(), Lost> {
        loop {
            self.number += 1;
            let (at, clock) = (Instant::now(), self.node.clock.uncorrected());
            let (me, word) = (self.node.id, self.word());
            let trip = self
                .node
                .link
                .trip(session, move |base| base.show(session, me, word));
            let begun = trip.await?.ok_or(Lost)?;
            self.measure(at, clock, &begun);
            self.renew(at);
            if begun.head <= self.applied {
                self.confirm(at);
                return Ok(());
            }
            self.catch_up(session, begun.head).await?;
        }
    }

    async fn review(&mut self, session: Session) -> Result<(), Lost> {
        let seen = self
            .node
            .link
            .trip(session, crate::base::Base::look)
            .await?;
        let mut steps = seen.steps(self.node.id, &self.node.owned);
        if self.node.mutant() == Mutant::GivesUpTooEarly {
            // As if nothing was ever under way.
            steps.free.extend(self.release_all(&seen, &steps));
        }
        if !steps.is_empty() {
            self.take_steps(session, steps).await?;
        }
        self.node.nodes.store(seen.nodes(), Ordering::SeqCst);
        self.look_around(session, &seen).await
    }

    /// The shards that are not owned here any more, and that the database still has as ours.
    fn release_all(&self, seen: &Seen, steps: &Steps) -> Vec<Shard> {
        let me = self.node.id;
        let mine = Shard::all().filter(|shard| seen.owner(*shard) == Some(me));
        mine.filter(|shard| {
            !self.node.owned.has(*shard)
                && !steps.free.contains(shard)
                && !steps.adopt.contains(shard)
        })
        .collect()
    }

    async fn take_steps(&mut self, session: Session, steps: Steps) -> Result<(), Lost> {
        self.number += 1;
        let (me, word) = (self.node.id, self.word());
        let begin = self
            .node
            .link
            .trip(session, move |base| base.begin(session, me, word));
        begin.await?.ok_or(Lost)?;
        let gives = !steps.free.is_empty();
        let share = self
            .node
            .link
            .trip(session, move |base| base.share(session, me, &steps));
        let (taken, receivers) = share.await?;
        for (endpoint, receiver) in receivers {
            self.node.live.put_receiver(endpoint, receiver);
        }
        for shard in &taken {
            self.node.owned.take(*shard);
        }
        if gives {
            let say = self
                .node
                .link
                .trip(session, |base| base.notify(&Notice::Shards));
            say.await?;
        }
        Ok(())
    }

    /// What is done once in a while where there are others.
    async fn look_around(&mut self, session: Session, seen: &Seen) -> Result<(), Lost> {
        let due = self.received.is_none_or(|last| last.elapsed() >= RECEIVERS);
        if seen.nodes() > 1 && due {
            self.received = Some(Instant::now());
            let learned = self
                .node
                .link
                .trip(session, crate::base::Base::receivers)
                .await?;
            let owned = Arc::clone(&self.node.owned);
            for (endpoint, receiver) in learned {
                if !owned.owns(endpoint) {
                    self.node.live.put_receiver(endpoint, receiver);
                }
            }
        }
        Ok(())
    }
}

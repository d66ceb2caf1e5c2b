//! What a shard sends: turns of endpoints, the attempts they start, the blocks they read.

use std::rc::Rc;
use std::sync::Arc;

use hookturn_core::delivery::{ExhaustedReason, Next};
use hookturn_core::endpoint::EndpointState;
use hookturn_core::id::EndpointId;
use hookturn_core::store::{DueQuery, Finish};
use hookturn_core::time::{Millis, Timestamp};

use super::super::batch::Batch;
use super::super::limits::{HEALTHY_LANE, SUSPECT_LANE};
use super::super::queue::{InRound, Wish};
use super::{Event, REST, Shard};
use crate::courier::request::Prepared;

/// Attempts one endpoint may start before the next one has its turn.
const TURN: usize = 16;

/// How much later than now a row may be due that a block brings. A block is read some time after it is asked for, and
/// rows are accepted meanwhile: without them every block under load would name one more to be read at once. What is
/// not due when the block arrives is left where it is.
const READ_AHEAD: Millis = 250;

impl Shard {
    pub(super) fn pump(&mut self, now: Timestamp) {
        self.pump_lane(now, false);
        self.pump_lane(now, true);
    }

    fn pump_lane(&mut self, now: Timestamp, suspect: bool) {
        let limit = if suspect { SUSPECT_LANE } else { HEALTHY_LANE };
        loop {
            let lane = if suspect {
                &mut self.suspect
            } else {
                &mut self.healthy
            };
            if lane.open >= limit {
                return;
            }
            let Some(id) = lane.round.pop_front() else {
                return;
            };
            if self.turn(id, now, suspect, limit) {
                self.call_up(id);
            }
        }
    }

    /// One endpoint's turn. Returns whether it has more to do in this round.
    fn turn(&mut self, id: EndpointId, now: Timestamp, suspect: bool, limit: u32) -> bool {
        let Some(queue) = self.queues.get_mut(&id) else {
            return false;
        };
        let place = if suspect {
            InRound::Suspect
        } else {
            InRound::Healthy
        };
        if queue.in_round != place {
            return false;
        }
        queue.in_round = InRound::Nowhere;
        if !self.parts.owned.owns(id) {
            queue.back_to_disk();
            queue.give_away();
            if queue.in_flight == 0 {
                self.queues.remove(&id);
            }
            return false;
        }
        for _ in 0..TURN {
            let open = if suspect {
                self.suspect.open
            } else {
                self.healthy.open
            };
            let Some(queue) = self.queues.get_mut(&id) else {
                return false;
            };
            match queue.wish(now) {
                Wish::Send if open >= limit => return true,
                Wish::Send => self.send_next(id, now, suspect),
                Wish::Read { rows, bytes } => self.read(id, now, rows, bytes),
                Wish::WaitUntil(at) => {
                    self.wake(id, at);
                    return false;
                }
                Wish::Rest => {
                    if queue.is_idle() {
                        self.queues.remove(&id);
                    }
                    return false;
                }
            }
        }
        true
    }

    fn send_next(&mut self, id: EndpointId, now: Timestamp, suspect: bool) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let Some(endpoint) = queue.endpoint.clone() else {
            return;
        };
        if let Some(per_second) = endpoint.rate_limit_per_second
            && endpoint.state == EndpointState::Enabled
            && let Err(at) = queue.rate.take(per_second, now)
        {
            queue.rate_until = at;
            tracing::debug!(endpoint = %id, until = %at, "the rate limit is reached: deliveries wait");
            return;
        }
        let Some(flight) = self.parts.owned.begin(id) else {
            // Another node's from this moment on, which reads the rows from the database.
            queue.back_to_disk();
            queue.give_away();
            return;
        };
        let Some(mut batch) = queue.pop(now) else {
            return;
        };
        batch.flight = Some(flight);
        match endpoint.state {
            EndpointState::Enabled | EndpointState::Paused { .. } => {
                self.attempt(id, batch, now, suspect);
            }
            EndpointState::Disabled { .. } => {
                self.give_up(batch, ExhaustedReason::EndpointDisabled, now);
            }
            EndpointState::Deleted { .. } => {
                self.give_up(batch, ExhaustedReason::EndpointDeleted, now);
            }
        }
    }

    pub(super) fn give_up(&mut self, mut batch: Batch, reason: ExhaustedReason, now: Timestamp) {
        self.flights.extend(batch.flight.take());
        let endpoint = batch.first().endpoint;
        tracing::debug!(%endpoint, deliveries = batch.len(), ?reason, "deliveries are given up");
        self.finishes.extend(batch.into_rows().map(|due| Finish {
            due,
            attempt: None,
            next: Next::Exhausted(reason),
            keeps_place: false,
            at: now,
        }));
    }

    fn attempt(&mut self, id: EndpointId, batch: Batch, now: Timestamp, suspect: bool) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let Some(view) = self.parts.live.signing(id) else {
            self.give_up(batch, ExhaustedReason::EndpointDeleted, now);
            return;
        };
        let stale = |known: &Rc<Prepared>| !known.is_for(&view.endpoint, &view.workspace);
        if queue.prepared.as_ref().is_none_or(stale) {
            match Prepared::new(Arc::clone(&view.endpoint), Arc::clone(&view.workspace)) {
                Ok(prepared) => queue.prepared = Some(Rc::new(prepared)),
                Err(error) => {
                    tracing::warn!(endpoint = %id, error = %error, "an endpoint cannot be sent to; its deliveries wait");
                    queue.unpop(batch);
                    queue.rest_until = now.after(REST);
                    return;
                }
            }
        }
        let Some(prepared) = queue.prepared.clone() else {
            return;
        };
        queue.in_flight += 1;
        let known = queue.receiver.view;
        let lane = if suspect {
            &mut self.suspect
        } else {
            &mut self.healthy
        };
        lane.open += 1;
        self.parts.metrics.attempt_begins();
        let (parts, client, events) = (
            Arc::clone(&self.parts),
            Rc::clone(&self.client),
            Rc::clone(&self.events),
        );
        tokio::task::spawn_local(async move {
            let number = batch.first().attempts + 1;
            let made = parts
                .courier
                .attempt(&client, &prepared, &batch.messages(), number, known)
                .await;
            events.put(Event::Attempted(id, batch, suspect, Box::new(made)));
        });
    }

    fn read(&mut self, id: EndpointId, now: Timestamp, limit: usize, payload_bytes: usize) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        queue.reading();
        let tenure = queue.tenure;
        self.reads_open += 1;
        let until = match queue
            .endpoint
            .as_ref()
            .map(|endpoint| endpoint.state.takes_messages())
        {
            Some(true) => now.after(READ_AHEAD),
            // What a disabled endpoint still has is exhausted now, whenever it would be due.
            Some(false) | None => Timestamp::FAR_FUTURE,
        };
        let query = DueQuery {
            workspace: queue.workspace,
            endpoint: id,
            until,
            limit,
            payload_bytes,
        };
        let held = queue.held();
        // A read comes after every finish that was handed in before it.
        self.hand_in();
        let parts = Arc::clone(&self.parts);
        let events = Rc::clone(&self.events);
        let troubles = Rc::clone(&self.troubles);
        tokio::task::spawn_local(async move {
            let block = parts.store.due_beside(query, held).await;
            troubles.note("read due deliveries", &block);
            match &block {
                Ok(block) => {
                    tracing::debug!(endpoint = %id, rows = block.rows.len(), "due deliveries were read");
                }
                Err(error) => {
                    tracing::debug!(endpoint = %id, error = %error, "due deliveries could not be read");
                }
            }
            events.put(Event::Block(id, tenure, block.ok()));
        });
    }
}

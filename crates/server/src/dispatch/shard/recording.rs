//! What comes back to a shard: attempts, blocks and commits, and the records handed to the store.

use std::rc::Rc;
use std::sync::Arc;

use hookturn_core::delivery::{Attempt, ExhaustedReason, Next, after_attempt};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{DeliveryId, EndpointId, draw};
use hookturn_core::store::Finish;
use hookturn_core::time::Timestamp;
use tokio::time::Instant;

use super::super::batch::Batch;
use super::super::disable::disable;
use super::super::queue::Token;
use super::lessons::{must_disable, remember, sign};
use super::{Event, REST, Shard};
use crate::courier::request::PrepareError;
use crate::courier::{Attempted, NotSent};

/// A finish that was handed to the store.
pub(super) struct Finished {
    endpoint: EndpointId,
    delivery: DeliveryId,
    token: Token,
    afterwards: Afterwards,
}

/// What a committed finish means for the queue.
#[derive(Debug, Clone, Copy)]
enum Afterwards {
    Gone,
    DueAgain(Timestamp),
    /// The row waits in its place; the queue let go of it when it was finished.
    InPlace,
}

impl Shard {
    pub(super) fn take_events(&mut self, now: Timestamp) {
        let events = std::mem::take(&mut *self.events.arrived.borrow_mut());
        for event in events {
            match event {
                Event::Attempted(id, batch, suspect, made) => {
                    self.attempted(id, batch, suspect, *made, now);
                }
                Event::Block(id, tenure, block) => {
                    self.reads_open -= 1;
                    if let Some(queue) = self.queues.get_mut(&id)
                        && queue.tenure == tenure
                    {
                        // Nobody tells a sole owner of anything.
                        let mut brought = match &block {
                            Some(block) if self.parts.owned.is_shared() => block.rows.clone(),
                            Some(_) | None => Vec::new(),
                        };
                        queue.block(block, now, now.after(REST));
                        brought.retain(|row| queue.knows(row.delivery));
                        self.brought.note(&brought, now, Instant::now());
                    }
                    self.call_up(id);
                }
                Event::Committed(rows, happened) => self.committed(rows, happened, now),
                Event::Disabled => self.disables_open -= 1,
            }
        }
    }

    fn committed(&mut self, rows: Vec<Finished>, happened: bool, now: Timestamp) {
        self.commits_open -= 1;
        tracing::debug!(deliveries = rows.len(), happened, "attempts were recorded");
        for finished in rows {
            let id = finished.endpoint;
            let Some(queue) = self.queues.get_mut(&id) else {
                continue;
            };
            if !happened {
                // The row is as it was: it is read and sent again (G2), after a rest.
                queue.receiver_unstored = true;
                queue.rest_until = now.after(REST);
                queue.unrecorded(finished.delivery);
                self.call_up(id);
                continue;
            }
            let again_at = match finished.afterwards {
                Afterwards::InPlace => continue,
                Afterwards::Gone => None,
                Afterwards::DueAgain(at) => Some(at),
            };
            queue.committed(finished.delivery, finished.token, again_at);
            self.call_up(id);
        }
    }

    fn attempted(
        &mut self,
        id: EndpointId,
        batch: Batch,
        suspect: bool,
        made: Result<Attempted, NotSent>,
        now: Timestamp,
    ) {
        let lane = if suspect {
            &mut self.suspect
        } else {
            &mut self.healthy
        };
        lane.open -= 1;
        self.parts.metrics.attempt_ends();
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        queue.in_flight -= 1;
        let made = match made {
            Ok(made) => made,
            // No attempt will ever fit; the receiver has no part in it.
            Err(NotSent::Prepare(PrepareError::UrlTooLong { .. })) => {
                self.give_up(batch, ExhaustedReason::UrlTooLong, now);
                self.call_up(id);
                return;
            }
            // It goes on when the store can, which is nobody's fault here.
            Err(NotSent::Unconfirmed) => {
                queue.unpop(batch);
                self.call_up(id);
                return;
            }
            Err(error) => {
                tracing::error!(endpoint = %id, error = %chain(&error), "nothing was sent; the delivery waits");
                queue.unpop(batch);
                queue.rest_until = now.after(REST);
                self.call_up(id);
                return;
            }
        };
        self.record(id, batch, made, now);
        self.call_up(id);
    }

    /// Decides what follows an attempt, the same for each of the deliveries that its request carried.
    fn record(&mut self, id: EndpointId, mut batch: Batch, made: Attempted, now: Timestamp) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let Some(endpoint) = queue.endpoint.clone() else {
            return;
        };
        let policy_attempt = made
            .attempt
            .number
            .saturating_sub(batch.first().attempts_before_requeue);
        let random = u32::from_be_bytes(draw(self.parts.entropy.as_ref()));
        let next = after_attempt(
            &endpoint,
            &made.attempt,
            policy_attempt,
            made.ended_at,
            random,
        );
        let (workspace, of) = (endpoint.workspace, batch.len());
        self.parts
            .metrics
            .attempted(workspace, &made.attempt, &next, of, now);
        log_attempt(id, &batch, &made.attempt, next);
        let keeps_place = endpoint.ordered && matches!(next, Next::RetryAt(_));
        if endpoint.ordered && next != Next::Delivered {
            batch.rows().for_each(|row| queue.held_in_place(row));
        }
        self.learn(id, &endpoint, &made, next, now);
        self.flights.extend(batch.flight.take());
        let attempts = std::iter::repeat_n(made.attempt, batch.len());
        let finished = batch
            .into_rows()
            .zip(attempts)
            .map(|(due, attempt)| Finish {
                due,
                attempt: Some(attempt),
                next,
                keeps_place,
                at: now,
            });
        self.finishes.extend(finished);
    }

    /// Takes what an attempt taught into the endpoint's health and its receiver's state.
    fn learn(
        &mut self,
        id: EndpointId,
        endpoint: &Endpoint,
        made: &Attempted,
        next: Next,
        now: Timestamp,
    ) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        queue
            .health
            .note(sign(&made.attempt), endpoint.max_in_flight, now);
        let open_until = queue.health.closed_again_at(now);
        if let Some(until) = open_until {
            tracing::debug!(endpoint = %id, %until, "the breaker is open: deliveries wait");
        }
        // Closed and closed before is the rule, and tells nobody.
        if open_until != std::mem::replace(&mut queue.breaker_told, open_until) {
            self.parts.live.note_breaker(id, open_until);
        }
        let live = &self.parts.live;
        let about_keys = live.learn(id, &made.evidence, made.refused_both_at);
        // What is over, or void since the owner enabled the endpoint, does not stand in the way of what is asked now.
        queue.receiver.hold = queue.receiver.held(endpoint, now);
        let retargeted_at = endpoint.retargeted_at;
        let changed = remember(&mut queue.receiver, made, about_keys, retargeted_at, now);
        if let Some(hold) = queue.receiver.held(endpoint, now) {
            tracing::debug!(endpoint = %id, until = %hold.until, "the receiver asked to wait");
        }
        if changed || std::mem::take(&mut queue.receiver_unstored) {
            self.receivers
                .push((queue.workspace, id, queue.receiver.clone()));
        }
        if let Some(reason) = must_disable(&next, &queue.receiver, now, self.parts.disable_after) {
            let (parts, events) = (Arc::clone(&self.parts), Rc::clone(&self.events));
            self.disables_open += 1;
            tokio::task::spawn_local(async move {
                disable(&parts, id, reason).await;
                events.put(Event::Disabled);
            });
        }
    }

    /// Hands everything that was finished in this turn of the loop to the store.
    pub(super) fn hand_in(&mut self) {
        if self.finishes.is_empty() && self.receivers.is_empty() {
            return;
        }
        let finishes = std::mem::take(&mut self.finishes);
        let rows: Vec<_> = finishes
            .iter()
            .map(|finish| {
                let afterwards = match finish.next {
                    Next::RetryAt(_) if finish.keeps_place => Afterwards::InPlace,
                    Next::RetryAt(at) => Afterwards::DueAgain(at),
                    Next::Delivered | Next::Exhausted(_) => Afterwards::Gone,
                };
                Finished {
                    endpoint: finish.due.endpoint,
                    delivery: finish.due.delivery,
                    token: Token::of(&finish.due),
                    afterwards,
                }
            })
            .collect();
        let committed = self
            .parts
            .store
            .finish(finishes, std::mem::take(&mut self.receivers));
        self.commits_open += 1;
        let events = Rc::clone(&self.events);
        let flights = std::mem::take(&mut self.flights);
        let troubles = Rc::clone(&self.troubles);
        tokio::task::spawn_local(async move {
            let result = committed.await;
            drop(flights);
            // What is not recorded is sent again.
            troubles.note("record attempts", &result);
            events.put(Event::Committed(rows, result.is_ok()));
        });
    }
}

/// What an operator who follows a delivery wants to read; the courier tells of each exchange.
fn log_attempt(id: EndpointId, batch: &Batch, attempt: &Attempt, next: Next) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    for row in batch.rows() {
        tracing::debug!(endpoint = %id, delivery = %row.delivery, message = %row.message.id, attempt = attempt.number, in_request = batch.len(), millis = attempt.duration_millis, ?next, "an attempt was made");
    }
}

/// An error with its causes on one line: logged once, here.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

//! Traffic: messages, due rows, attempts and settled deliveries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hookturn_core::delivery::{Attempt, CodeClass, Delivery, DeliveryState, Next};
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, MessageId, WorkspaceId};
use hookturn_core::message::{EventType, Message};
use hookturn_core::store::{
    DeliveriesFound, DeliveryQuery, DeliverySearch, Due, DueBlock, DueQuery, Finish, FoundDelivery,
    NewMessage, Page, RecoverQuery, SearchFrom, StoreError,
};
use hookturn_core::time::Timestamp;

use super::Outcome;
use super::configuration::Documents;

/// Where a due row stands: endpoint, place in its queue, id.
type Place = (EndpointId, Timestamp, DeliveryId);

/// Messages and what became of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic {
    messages: BTreeMap<MessageId, Arc<Message>>,
    event_types: BTreeMap<WorkspaceId, BTreeSet<EventType>>,
    due: BTreeMap<Place, Due>,
    places: BTreeMap<DeliveryId, Place>,
    settled: BTreeMap<DeliveryId, Delivery>,
    attempts: BTreeMap<(DeliveryId, u32), Attempt>,
}

// ----- accepting -----

impl Traffic {
    pub(super) fn check_new(&self, new: &[NewMessage], documents: &Documents) -> Outcome<()> {
        let mut ids = BTreeSet::new();
        for NewMessage {
            message,
            deliveries,
        } in new
        {
            documents.known_workspace(message.workspace)?;
            if self.messages.contains_key(&message.id) || !ids.insert(message.id) {
                return Err(StoreError::Duplicate {
                    what: format!("message {}", message.id),
                });
            }
            for (_, endpoint) in deliveries {
                if !documents.endpoints.contains_key(endpoint) {
                    return Err(StoreError::Conflict {
                        what: format!("endpoint {endpoint}"),
                    });
                }
            }
        }
        Ok(())
    }

    /// `place` says where a message stands in the queue of an endpoint, if that is not when it was accepted.
    pub(super) fn accept(
        &mut self,
        new: NewMessage,
        place: impl Fn(EndpointId) -> Option<Timestamp>,
    ) -> Vec<Due> {
        let NewMessage {
            message,
            deliveries,
        } = new;
        let types = self.event_types.entry(message.workspace).or_default();
        types.insert(message.event_type.clone());
        self.messages.insert(message.id, Arc::clone(&message));
        let rows = deliveries.into_iter().map(|(delivery, endpoint)| {
            let due_at = place(endpoint).unwrap_or(message.accepted_at);
            Due {
                delivery,
                endpoint,
                due_at,
                not_before: due_at,
                attempts: 0,
                attempts_before_requeue: 0,
                message: Arc::clone(&message),
            }
        });
        let rows: Vec<Due> = rows.collect();
        for row in &rows {
            self.put(row.clone());
        }
        rows
    }

    fn put(&mut self, row: Due) {
        let place = (row.endpoint, row.due_at, row.delivery);
        self.places.insert(row.delivery, place);
        self.due.insert(place, row);
    }

    fn take(&mut self, delivery: DeliveryId) -> Option<Due> {
        let place = self.places.remove(&delivery)?;
        self.due.remove(&place)
    }

    fn row(&self, delivery: DeliveryId) -> Option<&Due> {
        self.due.get(self.places.get(&delivery)?)
    }
}

// ----- finishing -----

impl Traffic {
    /// As the contract says: the attempt is recorded, the row as it was read moves or settles, and a
    /// row that moved meanwhile stays and learns of the attempt.
    pub(super) fn finish(&mut self, finish: &Finish, keeps_place: bool) {
        let due = &finish.due;
        let attempts = match &finish.attempt {
            Some(attempt) => self.record(due.delivery, attempt),
            None => due.attempts,
        };
        let as_read = self.row(due.delivery).is_some_and(|row| {
            row.endpoint == due.endpoint
                && row.due_at == due.due_at
                && row.not_before == due.not_before
        });
        if !as_read {
            if finish.attempt.is_some() {
                self.count_late(due.delivery, attempts);
            }
            return;
        }
        let Some(row) = self.take(due.delivery) else {
            return;
        };
        let state = match finish.next {
            Next::RetryAt(at) => {
                let due_at = if keeps_place { row.due_at } else { at };
                self.put(Due {
                    due_at,
                    not_before: at,
                    attempts,
                    ..row
                });
                return;
            }
            Next::Delivered => DeliveryState::Delivered { at: finish.at },
            Next::Exhausted(reason) => DeliveryState::Exhausted {
                at: finish.at,
                reason,
            },
        };
        let settled = delivery_of(&row, attempts, state);
        self.settled.insert(settled.id, settled);
    }

    /// Puts what waits for its retry where it was accepted.
    pub(super) fn put_in_order(&mut self, endpoint: EndpointId, now: Timestamp) {
        let waiting = self.queue(endpoint).into_iter();
        for row in waiting.filter(|row| row.due_at > now) {
            self.take(row.delivery);
            let due_at = row.message.accepted_at;
            self.put(Due { due_at, ..row });
        }
    }

    /// Keeps an attempt under its number, or the next free one; returns which.
    fn record(&mut self, delivery: DeliveryId, attempt: &Attempt) -> u32 {
        let taken = self.attempts.contains_key(&(delivery, attempt.number));
        let last = self.attempts_of(delivery).map(|(number, _)| number).max();
        let number = match last {
            Some(last) if taken => last + 1,
            Some(_) | None => attempt.number,
        };
        let kept = Attempt {
            number,
            ..attempt.clone()
        };
        self.attempts.insert((delivery, number), kept);
        number
    }

    fn count_late(&mut self, delivery: DeliveryId, number: u32) {
        if let Some(mut row) = self.take(delivery) {
            if row.attempts < number {
                row.attempts = number;
                row.attempts_before_requeue = number;
            }
            self.put(row);
        } else if let Some(settled) = self.settled.get_mut(&delivery) {
            settled.attempts = settled.attempts.max(number);
        } else {
            // Pruned meanwhile: nothing would ever find the attempt again.
            self.remove_attempts(delivery);
        }
    }

    fn attempts_of(&self, delivery: DeliveryId) -> impl Iterator<Item = (u32, &Attempt)> {
        let range = (delivery, 0)..=(delivery, u32::MAX);
        let found = self.attempts.range(range);
        found.map(|((_, number), attempt)| (*number, attempt))
    }

    pub(super) fn attempts(&self, delivery: DeliveryId) -> Vec<Attempt> {
        let found = self.attempts_of(delivery);
        found.map(|(_, attempt)| attempt.clone()).collect()
    }

    fn remove_attempts(&mut self, delivery: DeliveryId) {
        self.attempts.retain(|(of, _), _| *of != delivery);
    }
}

// ----- queueing by hand -----

impl Traffic {
    pub(super) fn check_requeues(&self, requeues: &[(&Delivery, Timestamp)]) -> Outcome<()> {
        let mut once = BTreeSet::new();
        for (seen, _) in requeues {
            let as_seen = self.find(seen.id).as_ref() == Some(*seen);
            let sendable = self.messages.contains_key(&seen.message);
            if !as_seen || !sendable || !once.insert(seen.id) {
                return Err(StoreError::Conflict {
                    what: format!("delivery {}", seen.id),
                });
            }
        }
        Ok(())
    }

    /// A pending row always changes, by at least a millisecond of its `not_before`.
    pub(super) fn requeue(&mut self, seen: &Delivery, now: Timestamp) {
        let Some(message) = self.messages.get(&seen.message).cloned() else {
            return;
        };
        let row = match self.take(seen.id) {
            Some(row) => Due {
                due_at: row.due_at.min(now),
                not_before: row.not_before.before(1).min(now),
                attempts_before_requeue: row.attempts,
                ..row
            },
            None => Due {
                delivery: seen.id,
                endpoint: seen.endpoint,
                due_at: now,
                not_before: now,
                attempts: seen.attempts,
                attempts_before_requeue: seen.attempts,
                message,
            },
        };
        self.settled.remove(&seen.id);
        self.put(row);
    }

    pub(super) fn recoverable(
        &self,
        query: &RecoverQuery,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> Vec<Delivery> {
        let from = DeliveryId::first_at(query.since);
        let before = DeliveryId::first_at(query.until);
        let wanted = |delivery: &&Delivery| {
            delivery.workspace == query.workspace
                && delivery.app == query.app
                && delivery.endpoint == query.endpoint
                && delivery.state.status() == query.status
                && delivery.id >= from
                && delivery.id < before
                && after.is_none_or(|after| delivery.id > after)
                && self.messages.contains_key(&delivery.message)
        };
        let settled = self.settled.values();
        settled.filter(wanted).take(limit).cloned().collect()
    }
}

// ----- reading -----

impl Traffic {
    pub(super) fn queue(&self, endpoint: EndpointId) -> Vec<Due> {
        self.of(endpoint).cloned().collect()
    }

    fn of(&self, endpoint: EndpointId) -> impl Iterator<Item = &Due> {
        let first = (endpoint, Timestamp::EPOCH, DeliveryId::from_bytes([0; 16]));
        let rows = self.due.range(first..);
        rows.take_while(move |((of, ..), _)| *of == endpoint)
            .map(|(_, row)| row)
    }

    pub(super) fn earliest(&self) -> Option<Timestamp> {
        self.due.keys().map(|(_, at, _)| *at).min()
    }

    pub(super) fn block(&self, query: &DueQuery, documents: &Documents) -> DueBlock {
        let known = documents.endpoints.get(&query.endpoint);
        if known.is_none_or(|known| known.workspace != query.workspace) {
            return DueBlock::default();
        }
        let mut block = DueBlock::default();
        let mut bytes = 0;
        for row in self.of(query.endpoint) {
            let full = block.rows.len() == query.limit || bytes > query.payload_bytes;
            if full || row.due_at > query.until {
                block.next_due_at = Some(row.due_at);
                break;
            }
            bytes += row.message.payload.len();
            block.rows.push(row.clone());
        }
        block
    }

    pub(super) fn due_endpoints(&self) -> Vec<(WorkspaceId, EndpointId, Timestamp)> {
        let mut first: BTreeMap<EndpointId, (WorkspaceId, Timestamp)> = BTreeMap::new();
        for ((endpoint, at, _), row) in &self.due {
            first
                .entry(*endpoint)
                .or_insert((row.message.workspace, *at));
        }
        let found = first.into_iter();
        found
            .map(|(endpoint, (workspace, at))| (workspace, endpoint, at))
            .collect()
    }

    pub(super) fn find(&self, id: DeliveryId) -> Option<Delivery> {
        match self.row(id) {
            Some(row) => Some(pending(row)),
            None => self.settled.get(&id).cloned(),
        }
    }

    pub(super) fn all(&self) -> Vec<Delivery> {
        let pending = self.due.values().map(pending);
        let mut all: Vec<_> = pending.chain(self.settled.values().cloned()).collect();
        all.sort_unstable_by_key(|delivery| delivery.id);
        all
    }

    pub(super) fn listed(&self, query: &DeliveryQuery) -> Vec<Delivery> {
        let wanted = |delivery: &Delivery| {
            delivery.workspace == query.workspace
                && delivery.app == query.app
                && is(query.status, &delivery.state.status())
                && is(query.endpoint, &delivery.endpoint)
                && is(query.event_type.as_ref(), &&delivery.event_type)
                && is(query.message, &delivery.message)
                && is_within(delivery.id.created_at(), query.since, query.until)
                && query.page.before.is_none_or(|before| delivery.id < before)
        };
        let newest_first = self.all().into_iter().rev();
        newest_first.filter(wanted).take(query.page.limit).collect()
    }

    /// Every delivery that is looked at costs one; its last attempt or payload is at hand.
    pub(super) fn search(&self, search: &DeliverySearch) -> DeliveriesFound {
        let reachable = |delivery: &Delivery| {
            delivery.workspace == search.workspace
                && is(search.app, &delivery.app)
                && is_within(delivery.id.created_at(), search.since, search.until)
                && match search.from {
                    SearchFrom::Newest => true,
                    SearchFrom::OlderThan(id) => delivery.id < id,
                    SearchFrom::NewerThan(id) => delivery.id > id,
                }
        };
        let mut row: Vec<Delivery> = self.all().into_iter().filter(reachable).collect();
        let backwards = !matches!(search.from, SearchFrom::NewerThan(_));
        if backwards {
            row.reverse();
        }
        let mut found = DeliveriesFound::default();
        let mut rest = row.into_iter().zip(1_u32..).peekable();
        while let Some((delivery, spent)) = rest.next() {
            let id = delivery.id;
            found.items.extend(self.look_at(delivery, search));
            if found.items.len() >= search.limit || spent >= search.effort {
                found.resume = rest.peek().map(|_| id);
                break;
            }
        }
        if !backwards {
            found.items.reverse();
        }
        found
    }

    fn look_at(&self, delivery: Delivery, search: &DeliverySearch) -> Option<FoundDelivery> {
        let last_attempt = self.attempts(delivery.id).pop();
        let has_text = |text: &String| {
            let message = self.messages.get(&delivery.message);
            message.is_some_and(|message| {
                memchr::memmem::find(&message.payload, text.as_bytes()).is_some()
            })
        };
        let wanted = is(search.status, &delivery.state.status())
            && is(search.endpoint, &delivery.endpoint)
            && is(search.event_type.as_ref(), &&delivery.event_type)
            && is(search.message, &delivery.message)
            && is(search.delivery, &delivery.id)
            && search
                .class
                .is_none_or(|class| last_attempt.as_ref().map(CodeClass::of) == Some(class))
            && search.text.as_ref().is_none_or(has_text);
        wanted.then_some(FoundDelivery {
            last_attempt: last_attempt.filter(|_| search.with_attempts),
            delivery,
        })
    }

    pub(super) fn message(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        id: MessageId,
    ) -> Option<Arc<Message>> {
        let found = self.messages.get(&id).cloned();
        found.filter(|message| message.workspace == workspace && message.app == app)
    }

    pub(super) fn messages(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        page: Page<MessageId>,
    ) -> Vec<Arc<Message>> {
        let wanted = |message: &&Arc<Message>| {
            message.workspace == workspace
                && message.app == app
                && is_within(message.id.created_at(), since, until)
                && page.before.is_none_or(|before| message.id < before)
        };
        let newest_first = self.messages.values().rev();
        newest_first
            .filter(wanted)
            .take(page.limit)
            .cloned()
            .collect()
    }

    pub(super) fn event_types(&self, workspace: WorkspaceId) -> Vec<EventType> {
        let known = self.event_types.get(&workspace);
        known.into_iter().flatten().cloned().collect()
    }

    pub(super) fn pending_count(&self) -> usize {
        self.due.len()
    }
}

// ----- upkeep -----

impl Traffic {
    /// Removes settled deliveries older than `before`, at most `limit`, with their attempts.
    pub(super) fn prune_settled(&mut self, before: Timestamp, limit: usize) -> usize {
        let end = DeliveryId::first_at(before);
        let old = self.settled.range(..end).map(|(id, _)| *id);
        let old: Vec<_> = old.take(limit).collect();
        for id in &old {
            self.settled.remove(id);
            let attempts: Vec<_> = self.attempts_of(*id).map(|(number, _)| number).collect();
            for number in attempts {
                self.attempts.remove(&(*id, number));
            }
        }
        old.len()
    }

    /// Removes messages accepted before `before` that no due row needs, at most `limit`.
    pub(super) fn prune_messages(&mut self, before: Timestamp, limit: usize) -> usize {
        let needed: BTreeSet<_> = self.due.values().map(|row| row.message.id).collect();
        let old =
            |message: &&Arc<Message>| message.accepted_at < before && !needed.contains(&message.id);
        let old = self.messages.values().filter(old).take(limit);
        let old: Vec<_> = old.map(|message| message.id).collect();
        for id in &old {
            self.messages.remove(id);
        }
        old.len()
    }

    pub(super) fn has_due(&self, endpoint: EndpointId) -> bool {
        self.of(endpoint).next().is_some()
    }
}

fn is<T: PartialEq>(wanted: Option<T>, found: &T) -> bool {
    wanted.is_none_or(|wanted| wanted == *found)
}

fn is_within(at: Timestamp, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    since.is_none_or(|since| at >= since) && until.is_none_or(|until| at < until)
}

fn pending(row: &Due) -> Delivery {
    let due_at = row.due_at.max(row.not_before);
    delivery_of(row, row.attempts, DeliveryState::Pending { due_at })
}

fn delivery_of(row: &Due, attempts: u32, state: DeliveryState) -> Delivery {
    Delivery {
        id: row.delivery,
        workspace: row.message.workspace,
        app: row.message.app,
        endpoint: row.endpoint,
        message: row.message.id,
        event_type: row.message.event_type.clone(),
        attempts,
        state,
    }
}

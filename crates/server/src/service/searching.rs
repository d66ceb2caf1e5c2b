//! Looking for deliveries with a bounded effort, and sending what was found again.
//!
//! A search answers within the same time whatever is stored and whatever it asks for. When it has looked
//! at as much as it may, it says so and where to go on. Sending again walks the same search block by
//! block; each block is queued and audited in one step.

use hookturn_core::audit::{AuditAction, AuditEntry, Subject};
use hookturn_core::delivery::{CodeClass, Delivery, DeliveryState, DeliveryStatus};
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, MessageId};
use hookturn_core::limits;
use hookturn_core::message::EventType;
use hookturn_core::store::{
    BLOCK_PAUSE, Change, DeliverySearch, FoundDelivery, SearchFrom, StoreError, Write,
};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::Scope;

use super::page::bounded;
use super::{Caller, Service, ServiceError};

/// Blocks that one bulk retry looks at; whoever has more to look at goes on from there.
const STEPS: usize = 100;

/// Which deliveries to look for; what is `None` does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Of which app; of the whole workspace without.
    pub app: Option<ClientId>,
    /// In this state.
    pub status: Option<DeliveryStatus>,
    /// Whose last attempt ended so.
    pub class: Option<CodeClass>,
    /// For this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Of this event type.
    pub event_type: Option<EventType>,
    /// Of this message.
    pub message: Option<MessageId>,
    /// This one.
    pub delivery: Option<DeliveryId>,
    /// Created at or after this time.
    pub since: Option<Timestamp>,
    /// Created before this time.
    pub until: Option<Timestamp>,
    /// With this text in the payload, as it is written there.
    pub text: Option<String>,
}

/// A page of a search, newest first.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The deliveries, each with its last attempt.
    pub items: Vec<FoundDelivery>,
    /// Where older ones begin, if there may be any.
    pub older: Option<DeliveryId>,
    /// Where newer ones begin, if there may be any.
    pub newer: Option<DeliveryId>,
    /// Whether looking ended before the page was full, because enough was looked at.
    pub cut_short: bool,
}

/// How many there are beyond a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewerCount {
    /// So many were found.
    pub count: usize,
    /// Whether there are or may be more.
    pub has_more: bool,
}

/// What sending again did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retried {
    /// Queued again, or counted.
    pub queued: usize,
    /// Left alone, because their endpoint takes nothing now or their message is gone.
    pub left_out: usize,
    /// Where to go on, if not all were looked at.
    pub resume: Option<DeliveryId>,
}

impl Search {
    fn at(&self, caller: &Caller, from: SearchFrom, limit: usize) -> DeliverySearch {
        DeliverySearch {
            workspace: caller.workspace,
            app: self.app,
            status: self.status,
            class: self.class,
            endpoint: self.endpoint,
            event_type: self.event_type.clone(),
            message: self.message,
            delivery: self.delivery,
            since: self.since,
            until: self.until,
            text: self.text.clone(),
            from,
            limit,
            effort: limits::SEARCH_EFFORT,
            with_attempts: false,
        }
    }

    /// What of it the audit log keeps: everything but the text, which may be anything.
    fn noted(&self, mut entry: AuditEntry) -> AuditEntry {
        if let Some(status) = self.status {
            entry = entry.with("status", status.as_str());
        }
        if let Some(class) = self.class {
            entry = entry.with("codes", class.as_str());
        }
        if let Some(event_type) = &self.event_type {
            entry = entry.with("eventType", event_type.as_str());
        }
        if let Some(since) = self.since {
            entry = entry.with("since", since);
        }
        if let Some(until) = self.until {
            entry = entry.with("until", until);
        }
        entry
    }
}

impl Service {
    async fn check_search(
        &self,
        caller: &Caller,
        scope: Scope,
        search: &Search,
    ) -> Result<(), ServiceError> {
        self.require(caller, scope).await?;
        if let Some(app) = search.app {
            self.own_app(caller, app)?;
        }
        let long = search.text.as_ref().map_or(0, String::len);
        if long > limits::SEARCH_TEXT_BYTES {
            let message = format!("at most {} bytes", limits::SEARCH_TEXT_BYTES);
            return Err(ServiceError::invalid("/text", message));
        }
        Ok(())
    }

    /// A page of the deliveries that a search names. Needs `read`.
    pub async fn search_deliveries(
        &self,
        caller: &Caller,
        search: &Search,
        from: SearchFrom,
        limit: usize,
    ) -> Result<Found, ServiceError> {
        self.check_search(caller, Scope::Read, search).await?;
        let limit = bounded(limit);
        let asked = DeliverySearch {
            with_attempts: true,
            ..search.at(caller, from, limit + 1)
        };
        let found = self.store.search(asked).await?;
        let (mut items, resume) = (found.items, found.resume);
        let full = items.len() > limit;
        let id = |item: Option<&FoundDelivery>| item.map(|item| item.delivery.id);
        let cut_short = !full && resume.is_some();
        if let SearchFrom::NewerThan(cursor) = from {
            if full {
                items.remove(0);
            }
            return Ok(Found {
                older: id(items.last()).or(Some(cursor)),
                newer: if full { id(items.first()) } else { resume },
                items,
                cut_short,
            });
        }
        items.truncate(limit);
        let older = if full { id(items.last()) } else { resume };
        let newer = match from {
            SearchFrom::OlderThan(cursor) => id(items.first()).or(Some(cursor)),
            SearchFrom::Newest | SearchFrom::NewerThan(_) => None,
        };
        Ok(Found {
            items,
            older,
            newer,
            cut_short,
        })
    }

    /// How many deliveries that a search names are newer than one, counted up to
    /// [`limits::LIVE_COUNT`]. Needs `read`.
    pub async fn count_newer(
        &self,
        caller: &Caller,
        search: &Search,
        than: DeliveryId,
    ) -> Result<NewerCount, ServiceError> {
        self.check_search(caller, Scope::Read, search).await?;
        let limit = limits::LIVE_COUNT + 1;
        let asked = search.at(caller, SearchFrom::NewerThan(than), limit);
        let found = self.store.search(asked).await?;
        Ok(NewerCount {
            count: found.items.len().min(limits::LIVE_COUNT),
            has_more: found.resume.is_some() || found.items.len() >= limit,
        })
    }

    /// Queues the settled deliveries that a search names again, newest first from `from` on, or counts
    /// them. Those that are pending are sent anyway and not touched. Needs `manage`.
    ///
    /// It ends at [`limits::BULK_RETRY`] deliveries or after so many blocks that a request may take, and
    /// then says where to go on. A crash between two blocks leaves some of them queued.
    pub async fn retry_matching(
        &self,
        caller: &Caller,
        search: &Search,
        from: SearchFrom,
        dry_run: bool,
    ) -> Result<Retried, ServiceError> {
        self.check_search(caller, Scope::Manage, search).await?;
        let mut done = Retried::default();
        let mut from = from;
        for _ in 0..STEPS {
            let asked = search.at(caller, from, limits::RECOVER_BLOCK);
            let found = self.store.search(asked).await?;
            let settled = found.items.into_iter().map(|item| item.delivery);
            let settled: Vec<_> = settled
                .filter(|delivery| delivery.state.status() != DeliveryStatus::Pending)
                .collect();
            let all = settled.len();
            let sendable = settled
                .into_iter()
                .filter(|delivery| self.check_sendable(delivery.endpoint).is_ok());
            let block: Vec<_> = sendable.collect();
            let queued = if dry_run {
                block.len()
            } else {
                self.queue_block(caller, search, block).await?
            };
            done.queued += queued;
            done.left_out += all - queued;
            done.resume = found.resume;
            let Some(resume) = found.resume else { break };
            if done.queued + limits::RECOVER_BLOCK > limits::BULK_RETRY {
                break;
            }
            from = SearchFrom::OlderThan(resume);
            tokio::time::sleep(std::time::Duration::from_millis(BLOCK_PAUSE)).await;
        }
        Ok(done)
    }

    /// Queues a block in one step, or, when one of them has moved meanwhile, each by itself. How many.
    async fn queue_block(
        &self,
        caller: &Caller,
        search: &Search,
        block: Vec<Delivery>,
    ) -> Result<usize, ServiceError> {
        if block.is_empty() || self.queue_together(caller, search, block.clone()).await? {
            return Ok(block.len());
        }
        let mut queued = 0;
        for delivery in block {
            queued += usize::from(self.queue_together(caller, search, vec![delivery]).await?);
        }
        Ok(queued)
    }

    /// Queues all of them, or none if one is not as it was read.
    async fn queue_together(
        &self,
        caller: &Caller,
        search: &Search,
        block: Vec<Delivery>,
    ) -> Result<bool, ServiceError> {
        let subject = Subject {
            app: search.app,
            endpoint: search.endpoint,
            message: search.message,
            delivery: search.delivery,
            ..Subject::default()
        };
        let entry = search.noted(AuditEntry::new(AuditAction::DeliveriesRecovered, subject));
        let at = self.clock.now();
        let entry = entry.with("count", block.len());
        let change = Change {
            workspace: caller.workspace,
            writes: block
                .into_iter()
                .map(|delivery| Write::Requeue { delivery, at })
                .collect(),
            audit: vec![entry],
            context: caller.context(),
            at,
            idempotency: None,
        };
        match self.store.change(change).await {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// When the last delivery to an endpoint was given up, if one was. Needs `read`.
    pub async fn last_exhausted(
        &self,
        caller: &Caller,
        endpoint: EndpointId,
    ) -> Result<Option<(DeliveryId, Timestamp)>, ServiceError> {
        let search = Search {
            status: Some(DeliveryStatus::Exhausted),
            endpoint: Some(endpoint),
            ..Search::default()
        };
        self.check_search(caller, Scope::Read, &search).await?;
        let found = self
            .store
            .search(search.at(caller, SearchFrom::Newest, 1))
            .await?;
        let last = found.items.into_iter().next().map(|item| item.delivery);
        Ok(last.and_then(|delivery| match delivery.state {
            DeliveryState::Exhausted { at, .. } => Some((delivery.id, at)),
            DeliveryState::Pending { .. } | DeliveryState::Delivered { .. } => None,
        }))
    }
}

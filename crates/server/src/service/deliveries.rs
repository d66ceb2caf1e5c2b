//! Deliveries: what became of each message at each endpoint, and sending again by hand.

use std::collections::HashMap;

use hookturn_core::audit::{AuditAction, AuditEntry, Subject};
use hookturn_core::delivery::{Attempt, Delivery, DeliveryState, DeliveryStatus};
use hookturn_core::endpoint::EndpointState;
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, MessageId, SecretId};
use hookturn_core::limits;
use hookturn_core::message::EventType;
use hookturn_core::rotation::SecretVersion;
use hookturn_core::store::{
    BLOCK_PAUSE, Change, DeliveryQuery, Page, RecoverQuery, StoreError, StoreStats, Write,
};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::Scope;

use super::messages::check_takes_deliveries;
use super::page::{Listed, fetch};
use super::{Caller, Recording, Service, ServiceError, TRIES};

/// Blocks that one call of recover works through; whoever has more to recover calls again.
const RECOVER_BLOCKS: usize = 1_000;

/// Which deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Only in this state.
    pub status: Option<DeliveryStatus>,
    /// Only for this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Only of this event type.
    pub event_type: Option<EventType>,
    /// Only of this message.
    pub message: Option<MessageId>,
    /// Only created at or after this time.
    pub since: Option<Timestamp>,
    /// Only created before this time.
    pub until: Option<Timestamp>,
}

/// Which settled deliveries of an endpoint to send again.
#[derive(Debug, Clone, Copy)]
pub struct Recover {
    /// Created at or after this time.
    pub since: Timestamp,
    /// Created before this time; now without.
    pub until: Option<Timestamp>,
    /// Exhausted or delivered ones.
    pub status: DeliveryStatus,
    /// Whether to count only.
    pub dry_run: bool,
}

/// What a recover did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Deliveries queued again, or counted in a dry run.
    pub count: usize,
    /// Whether there are more than one call works through: call again.
    pub has_more: bool,
}

impl Recovered {
    /// Counts a block; a full one may not be the last.
    fn take(&mut self, block: &[Delivery]) {
        self.count += block.len();
        self.has_more = block.len() == limits::RECOVER_BLOCK;
    }
}

impl Service {
    /// A page of an app's deliveries, newest first. Needs `read`.
    pub async fn deliveries(
        &self,
        caller: &Caller,
        app: ClientId,
        filter: DeliveryFilter,
        page: Page<DeliveryId>,
    ) -> Result<Listed<Delivery>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        self.own_app(caller, app)?;
        let (page, limit) = fetch(page);
        let query = DeliveryQuery {
            workspace: caller.workspace,
            app,
            status: filter.status,
            endpoint: filter.endpoint,
            event_type: filter.event_type,
            message: filter.message,
            since: filter.since,
            until: filter.until,
            page,
        };
        Ok(Listed::cut(self.store.deliveries(query).await?, limit))
    }

    /// One delivery with its attempts, oldest first. Needs `read`.
    pub async fn delivery(
        &self,
        caller: &Caller,
        id: DeliveryId,
    ) -> Result<(Delivery, Vec<Attempt>), ServiceError> {
        self.require(caller, Scope::Read).await?;
        self.own_delivery(caller, id).await
    }

    /// What the secrets that sign for an endpoint are called, those that have a name. Nothing for an
    /// endpoint that is gone.
    pub fn secret_names(&self, endpoint: EndpointId) -> HashMap<SecretId, String> {
        let endpoint = self.live.endpoint(endpoint);
        let keyring = endpoint.and_then(|endpoint| self.live.keyring(endpoint.keyring));
        let secrets = keyring
            .as_deref()
            .map_or(&[][..], |keyring| &keyring.secrets);
        let named = |secret: &SecretVersion| Some((secret.id, secret.name.clone()?));
        secrets.iter().filter_map(named).collect()
    }

    async fn own_delivery(
        &self,
        caller: &Caller,
        id: DeliveryId,
    ) -> Result<(Delivery, Vec<Attempt>), ServiceError> {
        self.store
            .delivery(caller.workspace, id)
            .await?
            .filter(|(delivery, _)| delivery.workspace == caller.workspace)
            .ok_or(ServiceError::not_found("delivery"))
    }

    /// Queues a delivery again, due now, whatever its state; its retry policy starts anew. Needs
    /// `manage`.
    ///
    /// Queued, audited and answered in one step. When the delivery moves meanwhile, it is looked at
    /// again.
    pub async fn retry_delivery(
        &self,
        caller: &Caller,
        id: DeliveryId,
        recording: Option<Recording<'_, Delivery>>,
    ) -> Result<Delivery, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        for _ in 0..TRIES {
            let (seen, _) = self.own_delivery(caller, id).await?;
            self.check_sendable(seen.endpoint)?;
            let subject = Subject {
                app: Some(seen.app),
                endpoint: Some(seen.endpoint),
                message: Some(seen.message),
                delivery: Some(seen.id),
                ..Subject::default()
            };
            let at = self.clock.now();
            let queued = Delivery {
                state: DeliveryState::Pending { due_at: at },
                ..seen.clone()
            };
            let change = Change {
                workspace: caller.workspace,
                writes: vec![Write::Requeue { delivery: seen, at }],
                audit: vec![AuditEntry::new(AuditAction::DeliveryRetried, subject)],
                context: caller.context(),
                at,
                idempotency: recording.map(|recording| self.record(recording, &queued, at)),
            };
            if self.stored(change).await? {
                return Ok(queued);
            }
        }
        Err(ServiceError::concurrent_change())
    }

    /// Stores a change that was decided on what was read. `false` if that has moved: read it again.
    async fn stored(&self, change: Change) -> Result<bool, ServiceError> {
        match self.store.change(change).await {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn check_sendable(&self, endpoint: EndpointId) -> Result<(), ServiceError> {
        // The live view forgets a deleted endpoint when nothing refers to it any more.
        let state = self.live.endpoint(endpoint).map_or(
            EndpointState::Deleted {
                since: Timestamp::EPOCH,
            },
            |endpoint| endpoint.state.clone(),
        );
        check_takes_deliveries(&state)
    }

    /// Whether a settled delivery could be sent again: its endpoint takes deliveries now.
    pub fn can_send_again(&self, delivery: &Delivery) -> Result<(), ServiceError> {
        self.check_sendable(delivery.endpoint)
    }

    /// Queues the settled deliveries of an endpoint in a span of time again, block by block so that
    /// other work goes on, or counts them. Needs `manage`.
    ///
    /// Each block is queued and audited in one step, the last one together with the idempotent answer.
    /// A crash or disconnect between two blocks leaves some of them queued; calling again does the rest.
    pub async fn recover(
        &self,
        caller: &Caller,
        app: ClientId,
        endpoint: EndpointId,
        input: Recover,
        recording: Option<Recording<'_, Recovered>>,
    ) -> Result<Recovered, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        let endpoint = self.own_endpoint(caller, app, endpoint)?;
        let started = self.clock.now();
        let until = input.until.unwrap_or(started);
        if input.status == DeliveryStatus::Pending {
            let message = "pending deliveries are sent anyway: exhausted or delivered";
            return Err(ServiceError::invalid("/status", message));
        }
        if until <= input.since {
            return Err(match input.until {
                Some(_) => ServiceError::invalid("/until", "must be after since"),
                None => ServiceError::invalid("/since", "must be before now"),
            });
        }
        if !input.dry_run {
            check_takes_deliveries(&endpoint.state)?;
        }
        let query = RecoverQuery {
            workspace: caller.workspace,
            app,
            endpoint: endpoint.id,
            since: input.since,
            until,
            status: input.status,
        };
        if input.dry_run {
            let counted = self.count_blocks(query).await?;
            return self.keep_answer(caller, counted, recording).await;
        }
        self.recover_blocks(caller, query, recording).await
    }

    async fn count_blocks(&self, query: RecoverQuery) -> Result<Recovered, ServiceError> {
        let mut counted = Recovered::default();
        let mut after = None;
        for _ in 0..RECOVER_BLOCKS {
            let block = self.recoverable(query, after).await?;
            counted.take(&block);
            after = block.last().map(|delivery| delivery.id);
            if !counted.has_more {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(BLOCK_PAUSE)).await;
        }
        Ok(counted)
    }

    async fn recover_blocks(
        &self,
        caller: &Caller,
        query: RecoverQuery,
        recording: Option<Recording<'_, Recovered>>,
    ) -> Result<Recovered, ServiceError> {
        let mut done = Recovered::default();
        let mut after = None;
        for number in 1..=RECOVER_BLOCKS {
            let is_last = number == RECOVER_BLOCKS;
            let (next, last) = self
                .recover_block(caller, query, (done, after), recording, is_last)
                .await?;
            (done, after) = (next, last);
            if !done.has_more {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(BLOCK_PAUSE)).await;
        }
        Ok(done)
    }

    /// Queues the block after what was done; how far that comes. The answer is kept with the last one.
    async fn recover_block(
        &self,
        caller: &Caller,
        query: RecoverQuery,
        (done, after): (Recovered, Option<DeliveryId>),
        recording: Option<Recording<'_, Recovered>>,
        is_last: bool,
    ) -> Result<(Recovered, Option<DeliveryId>), ServiceError> {
        for _ in 0..TRIES {
            let block = self.recoverable(query, after).await?;
            let last = block.last().map(|delivery| delivery.id);
            let mut next = done;
            next.take(&block);
            let recording = recording.filter(|_| is_last || !next.has_more);
            let change = self.queueing(caller, query, block, recording, next);
            if self.stored(change).await? {
                return Ok((next, last));
            }
        }
        Err(ServiceError::concurrent_change())
    }

    async fn recoverable(
        &self,
        query: RecoverQuery,
        after: Option<DeliveryId>,
    ) -> Result<Vec<Delivery>, ServiceError> {
        let block = self.store.recoverable(query, after, limits::RECOVER_BLOCK);
        Ok(block.await?)
    }

    /// The change that queues a block, says so in the audit log, and keeps the answer if there is one.
    fn queueing(
        &self,
        caller: &Caller,
        query: RecoverQuery,
        block: Vec<Delivery>,
        recording: Option<Recording<'_, Recovered>>,
        answer: Recovered,
    ) -> Change {
        let queued = block.len();
        let subject = Subject {
            app: Some(query.app),
            endpoint: Some(query.endpoint),
            ..Subject::default()
        };
        let entry = AuditEntry::new(AuditAction::DeliveriesRecovered, subject)
            .with("since", query.since)
            .with("until", query.until)
            .with("status", query.status.as_str())
            .with("count", queued);
        let at = self.clock.now();
        Change {
            workspace: caller.workspace,
            writes: block
                .into_iter()
                .map(|delivery| Write::Requeue { delivery, at })
                .collect(),
            // A block that only finds the end after full ones has nothing to say.
            audit: if queued > 0 || answer.count == 0 {
                vec![entry]
            } else {
                Vec::new()
            },
            context: caller.context(),
            at,
            idempotency: recording.map(|recording| self.record(recording, &answer, at)),
        }
    }

    /// The event types that were published in the workspace, sorted. Needs `read`.
    pub async fn event_types(&self, caller: &Caller) -> Result<Vec<EventType>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        Ok(self.store.event_types(caller.workspace).await?)
    }

    /// What the store knows about itself: for readiness, metrics and the doctor, not for callers.
    pub async fn stats(&self) -> Result<StoreStats, ServiceError> {
        Ok(self.store.stats().await?)
    }
}

//! Deliveries: what became of each message at each endpoint, and sending again by hand.

use hookturn_core::audit::{AuditAction, AuditEntry, Subject};
use hookturn_core::delivery::{Attempt, Delivery, DeliveryStatus};
use hookturn_core::endpoint::EndpointState;
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, MessageId};
use hookturn_core::limits;
use hookturn_core::message::EventType;
use hookturn_core::store::{BLOCK_PAUSE, DeliveryQuery, Page, RecoverQuery, StoreStats};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::Scope;

use super::messages::check_takes_deliveries;
use super::page::{Listed, fetch};
use super::{Caller, Decision, Recording, Service, ServiceError};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Deliveries queued again, or counted in a dry run.
    pub count: usize,
    /// Whether there are more than one call works through: call again.
    pub has_more: bool,
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
    /// The audit entry and the idempotent answer follow in a second step. A crash between the two
    /// leaves a queued delivery that a repeated request queues again, which is the same thing.
    pub async fn retry_delivery(
        &self,
        caller: &Caller,
        id: DeliveryId,
        recording: Option<Recording<'_, Delivery>>,
    ) -> Result<Delivery, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        let (delivery, _) = self.own_delivery(caller, id).await?;
        self.check_sendable(delivery.endpoint)?;
        let queued = self
            .store
            .requeue(caller.workspace, id, self.clock.now())
            .await?
            .ok_or(ServiceError::not_found("delivery"))?;
        let subject = Subject {
            app: Some(queued.app),
            endpoint: Some(queued.endpoint),
            message: Some(queued.message),
            delivery: Some(queued.id),
            ..Subject::default()
        };
        self.change(caller, recording, |_| {
            Ok(Decision {
                writes: Vec::new(),
                audit: vec![AuditEntry::new(AuditAction::DeliveryRetried, subject)],
                out: queued.clone(),
            })
        })
        .await
    }

    fn check_sendable(&self, endpoint: EndpointId) -> Result<(), ServiceError> {
        // The live view forgets a deleted endpoint when nothing refers to it any more.
        let state = self.live.endpoint(endpoint).map_or(
            EndpointState::Deleted {
                since: Timestamp::EPOCH,
            },
            |endpoint| endpoint.state.clone(),
        );
        check_takes_deliveries(&state)
    }

    /// Queues the settled deliveries of an endpoint in a span of time again, block by block so that
    /// other work goes on, or counts them. Needs `manage`.
    ///
    /// A crash or disconnect leaves some of them queued; calling again does the rest.
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
            return Err(ServiceError::invalid("/until", "must be after since"));
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
        let recovered = self.recover_blocks(query, input.dry_run).await?;
        let subject = Subject {
            app: Some(app),
            endpoint: Some(endpoint.id),
            ..Subject::default()
        };
        self.change(caller, recording, |_| {
            let entry = AuditEntry::new(AuditAction::DeliveriesRecovered, subject)
                .with("since", input.since)
                .with("until", until)
                .with("status", input.status.as_str())
                .with("count", recovered.count);
            Ok(Decision {
                writes: Vec::new(),
                audit: if input.dry_run {
                    Vec::new()
                } else {
                    vec![entry]
                },
                out: recovered,
            })
        })
        .await
    }

    async fn recover_blocks(
        &self,
        query: RecoverQuery,
        dry_run: bool,
    ) -> Result<Recovered, ServiceError> {
        let mut count = 0;
        let mut after = None;
        for _ in 0..RECOVER_BLOCKS {
            let now = (!dry_run).then(|| self.clock.now());
            let block = self
                .store
                .recover(query, after, now, limits::RECOVER_BLOCK)
                .await?;
            count += block.rows;
            after = block.resume;
            if after.is_none() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(BLOCK_PAUSE)).await;
        }
        Ok(Recovered {
            count,
            has_more: after.is_some(),
        })
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

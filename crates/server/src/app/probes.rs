//! Probes: inert requests that ask a receiver a yes-or-no question about keys.

use std::fmt;
use std::sync::Arc;

use hookturn_core::endpoint::{Endpoint, ProbeSettings};
use hookturn_core::id::{Entropy, MessageId, draw};
use hookturn_core::message::{EventType, Message};
use hookturn_core::proof::ProbeKey;
use hookturn_core::rotation::KeyKind;
use hookturn_core::time::Clock;
use hookturn_verify::Secret;

use crate::courier::request::Prepared;
use crate::courier::{Courier, NotSent, Probed};
use crate::dispatch;
use crate::outbound::Client;
use crate::service::ServiceError;
use crate::service::proving::{ProbeFuture, Prober};
use crate::store::live::Live;
use crate::telemetry::metrics::Metrics;

/// Sends probes over connections of its own, so that they never wait behind deliveries.
pub struct Probes {
    courier: Arc<Courier>,
    client: Client,
    live: Arc<Live>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
}

impl Probes {
    /// Probes signed by `courier`, sent as `parts` of the delivery shards say.
    pub fn new(courier: &Arc<Courier>, parts: &dispatch::Parts) -> Self {
        Self {
            courier: Arc::clone(courier),
            client: Client::new(Arc::clone(&parts.client)),
            live: Arc::clone(&parts.live),
            clock: Arc::clone(&parts.clock),
            entropy: Arc::clone(&parts.entropy),
            metrics: Arc::clone(&parts.metrics),
        }
    }

    async fn send(&self, endpoint: &Endpoint, keys: &[ProbeKey]) -> Result<Probed, ServiceError> {
        let unusable = |error: &dyn std::error::Error| ServiceError::Conflict {
            code: "endpoint_unusable",
            message: super::explain(error),
        };
        let view = self
            .live
            .signing(endpoint.id)
            .ok_or(ServiceError::not_found("endpoint"))?;
        let prepared = Prepared::new(Arc::clone(&view.endpoint), Arc::clone(&view.workspace))
            .map_err(|error| unusable(&error))?;
        let chosen = &view.endpoint.probe;
        let now = self.clock.now();
        let message = Message {
            id: MessageId::new(now, self.entropy.as_ref()),
            workspace: endpoint.workspace,
            app: endpoint.app,
            event_type: match &chosen.event_type {
                Some(chosen) => chosen.clone(),
                None => {
                    EventType::new(ProbeSettings::EVENT_TYPE).map_err(|error| unusable(&error))?
                }
            },
            event_id: None,
            payload: chosen.body().to_owned().into(),
            accepted_at: now,
        };
        let random = match view.keyring.kind {
            KeyKind::Symmetric => Secret::generate(draw(self.entropy.as_ref())),
            KeyKind::Ed25519 => Secret::generate_ed25519(draw(self.entropy.as_ref())),
        };
        let probed = self
            .courier
            .probe(&self.client, &prepared, &message, keys, &random)
            .await
            .map_err(|error| match error {
                NotSent::Unconfirmed => ServiceError::Unwritable,
                other => unusable(&other),
            })?;
        self.metrics.probed(keys, probed.status);
        Ok(probed)
    }
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").finish_non_exhaustive()
    }
}

impl Prober for Probes {
    fn probe<'a>(&'a self, endpoint: &'a Endpoint, keys: &'a [ProbeKey]) -> ProbeFuture<'a> {
        Box::pin(self.send(endpoint, keys))
    }
}

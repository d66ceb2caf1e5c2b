//! Test events: one attempt, made now, so that the owner of an endpoint sees whether it works.

use std::sync::Arc;

use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{Entropy, MessageId};
use hookturn_core::message::{EventType, Message};
use hookturn_core::proof::Findings;
use hookturn_core::time::Clock;
use serde_json::json;

use crate::courier::request::Prepared;
use crate::courier::{Courier, NotSent, verdict};
use crate::dispatch;
use crate::outbound::{Client, ClientConfig};
use crate::service::test_events::{TestFuture, TestReport, TestSender};
use crate::service::{Caller, ServiceError};
use crate::store::live::Live;

/// Sends each test event over a connection of its own: it never waits behind deliveries, and what it
/// says of name, address and certificate is true now.
pub(super) struct Tester {
    courier: Arc<Courier>,
    client: Arc<ClientConfig>,
    live: Arc<Live>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Tester {
    /// Test events signed by `courier`, sent as `parts` of the delivery shards say.
    pub(super) fn new(courier: &Arc<Courier>, parts: &dispatch::Parts) -> Self {
        Self {
            courier: Arc::clone(courier),
            client: Arc::clone(&parts.client),
            live: Arc::clone(&parts.live),
            clock: Arc::clone(&parts.clock),
            entropy: Arc::clone(&parts.entropy),
        }
    }

    async fn send(&self, endpoint: &Endpoint) -> Result<TestReport, ServiceError> {
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
        let now = self.clock.now();
        let payload =
            json!({ "test": true, "clientId": endpoint.app, "endpointId": endpoint.id, "at": now });
        let message = Message {
            id: MessageId::new(now, self.entropy.as_ref()),
            workspace: endpoint.workspace,
            app: endpoint.app,
            event_type: EventType::new("hookturn.test").map_err(|error| unusable(&error))?,
            event_id: None,
            payload: payload.to_string().into(),
            accepted_at: now,
        };
        let known = view.receiver.view;
        let tls = prepared.is_tls();
        let client = Client::new(Arc::clone(&self.client));
        let made = self
            .courier
            .attempt(&client, &prepared, &[&message], 1, known)
            .await
            .map_err(|error| match error {
                NotSent::Unconfirmed => ServiceError::Unwritable,
                other => unusable(&other),
            })?;
        if made.attempt.accepted() {
            // From now on it may be probed, and counts for a rotation that proves itself.
            self.live.find(endpoint.id, |known| Findings {
                tested_at: known.tested_at.max(Some(made.attempt.started_at)),
                ..known
            });
        }
        let verdict = verdict::verdict(&made.attempt, tls);
        Ok(TestReport {
            message: message.id,
            attempt: made.attempt,
            connected: verdict.connected,
            summary: verdict.summary,
        })
    }
}

impl TestSender for Tester {
    fn send_test<'a>(&'a self, _: &'a Caller, endpoint: Arc<Endpoint>) -> TestFuture<'a> {
        Box::pin(async move { self.send(&endpoint).await })
    }
}

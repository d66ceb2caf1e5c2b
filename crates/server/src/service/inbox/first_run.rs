//! The first run: an app, an endpoint at the test inbox, and an event, so that a signed delivery is seen
//! before anything is configured.

use bytes::Bytes;
use hookturn_core::endpoint::EndpointState;
use hookturn_core::id::{ClientId, EndpointId, MessageId, draw};
use hookturn_core::message::EventType;
use hookturn_core::workspace::Scope;

use super::INBOX_HOST;
use crate::service::apps::NewApp;
use crate::service::endpoints::NewEndpoint;
use crate::service::messages::{NewMessageInput, TestSent};
use crate::service::{Caller, Recording, Service, ServiceError};

/// The event that is sent.
const EVENT_TYPE: &str = "order.paid";
const PAYLOAD: &str = r#"{"orderId":"1001","amount":4200,"currency":"EUR","note":"a first event"}"#;

/// What a first run made, or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstRun {
    /// The app.
    pub app: ClientId,
    /// Its endpoint at the test inbox.
    pub endpoint: EndpointId,
    /// The message that is on its way.
    pub message: MessageId,
}

impl Service {
    /// Makes an app with an endpoint at the test inbox, unless the workspace has one already, and sends an
    /// event to it. Needs `manage` and `publish`. When a later step fails, an app without its endpoint may
    /// be left.
    pub async fn first_run(
        &self,
        caller: &Caller,
        recording: Option<Recording<'_, FirstRun>>,
    ) -> Result<FirstRun, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        self.require(caller, Scope::Publish).await?;
        let (app, endpoint) = match self.inbox_endpoint(caller) {
            Some(known) => known,
            None => self.open_inbox(caller).await?,
        };
        self.send_sample(caller, app, endpoint, recording).await
    }

    /// Sends the event of the first run once more to an endpoint. Needs `manage`.
    pub async fn send_sample(
        &self,
        caller: &Caller,
        app: ClientId,
        endpoint: EndpointId,
        recording: Option<Recording<'_, FirstRun>>,
    ) -> Result<FirstRun, ServiceError> {
        let event_type = EventType::new(EVENT_TYPE)
            .map_err(|error| ServiceError::invalid("/eventType", error))?;
        let sample = NewMessageInput {
            event_type,
            payload: Bytes::from_static(PAYLOAD.as_bytes()),
            event_id: None,
        };
        let first_run = |sent: &TestSent| FirstRun {
            app,
            endpoint,
            message: sent.message,
        };
        let render = |sent: &TestSent| match recording {
            Some(recording) => (recording.render)(&first_run(sent)),
            None => Vec::new(),
        };
        let recording = recording.map(|recording| Recording {
            key: recording.key,
            fingerprint: recording.fingerprint,
            render: &render,
        });
        let sent = self.send_test(caller, app, endpoint, sample, recording);
        Ok(first_run(&sent.await?))
    }

    /// An enabled endpoint of the workspace at the test inbox.
    fn inbox_endpoint(&self, caller: &Caller) -> Option<(ClientId, EndpointId)> {
        let apps = self.live.apps(caller.workspace);
        let endpoints = apps
            .iter()
            .flat_map(|app| self.live.endpoints(caller.workspace, app.id));
        let mut at_inbox = endpoints.filter(|endpoint| {
            let host = endpoint.url.as_ref().and_then(|url| url.url().host_str());
            endpoint.state == EndpointState::Enabled && host == Some(INBOX_HOST)
        });
        at_inbox.next().map(|endpoint| (endpoint.app, endpoint.id))
    }

    async fn open_inbox(&self, caller: &Caller) -> Result<(ClientId, EndpointId), ServiceError> {
        let app = NewApp {
            name: "First run".to_owned(),
            ..NewApp::default()
        };
        let app = self.create_app(caller, app, None).await?;
        let token = hex::encode(draw::<16>(self.entropy.as_ref()));
        let endpoint = NewEndpoint {
            url: Some(format!("http://{INBOX_HOST}/{token}")),
            description: "the built-in test inbox".to_owned(),
            ..NewEndpoint::default()
        };
        let made = self.create_endpoint(caller, app.id, endpoint, None).await?;
        Ok((app.id, made.endpoint.id))
    }
}

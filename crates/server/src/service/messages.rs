//! Messages: the hot path in, and reading them back.
//!
//! Publishing is one look at the live view and one `accept` of the store. It logs nothing, audits
//! nothing and waits for nothing else.

use std::sync::Arc;

use bytes::Bytes;
use hookturn_core::endpoint::EndpointState;
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, MessageId, Place, WorkspaceId};
use hookturn_core::message::{EventType, Message};
use hookturn_core::store::{Accept, NewMessage, Page, StoreError};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::Scope;
use hookturn_core::{limits, payload};

use super::page::{Listed, fetch};
use super::{Caller, Recording, Service, ServiceError, TRIES};

/// A message to publish.
#[derive(Debug, Clone)]
pub struct NewMessageInput {
    /// What happened.
    pub event_type: EventType,
    /// A valid JSON text: whoever calls has checked that.
    pub payload: Bytes,
    /// The publisher's own id of the event.
    pub event_id: Option<String>,
}

/// A test event on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestSent {
    /// The message.
    pub message: MessageId,
    /// Its one delivery.
    pub delivery: DeliveryId,
}

impl Service {
    /// Accepts a message: durable when this returns (G1). Needs `publish`.
    pub async fn publish(
        &self,
        caller: &Caller,
        app: ClientId,
        input: NewMessageInput,
        recording: Option<Recording<'_, MessageId>>,
    ) -> Result<MessageId, ServiceError> {
        self.require(caller, Scope::Publish).await?;
        check_message("", &input)?;
        let view = self.store.view();
        let endpoints = self.fan_out(caller, app, &input.event_type)?;
        let new = self.new_message(caller.workspace, app, input, endpoints);
        let id = new.message.id;
        self.accept(caller, (vec![new], view), recording, id).await
    }

    /// Accepts up to [`limits::BATCH_MESSAGES`] messages, all or none. Ids in order of the input.
    /// Needs `publish`.
    pub async fn publish_batch(
        &self,
        caller: &Caller,
        app: ClientId,
        inputs: Vec<NewMessageInput>,
        recording: Option<Recording<'_, Vec<MessageId>>>,
    ) -> Result<Vec<MessageId>, ServiceError> {
        self.require(caller, Scope::Publish).await?;
        if !(1..=limits::BATCH_MESSAGES).contains(&inputs.len()) {
            let message = format!("1 to {} messages", limits::BATCH_MESSAGES);
            return Err(ServiceError::invalid("/messages", message));
        }
        for (index, input) in inputs.iter().enumerate() {
            check_message(&format!("/messages/{index}"), input)?;
        }
        let view = self.store.view();
        let mut messages: Vec<NewMessage> = Vec::with_capacity(inputs.len());
        // Batches mostly repeat a type: one look at the live view for each run of the same one.
        let mut run: Option<(EventType, Vec<EndpointId>)> = None;
        for input in inputs {
            let endpoints = match run.take() {
                Some((event_type, endpoints)) if event_type == input.event_type => endpoints,
                Some(_) | None => self.fan_out(caller, app, &input.event_type)?,
            };
            run = Some((input.event_type.clone(), endpoints.clone()));
            messages.push(self.new_message(caller.workspace, app, input, endpoints));
        }
        let ids = messages.iter().map(|new| new.message.id).collect();
        self.accept(caller, (messages, view), recording, ids).await
    }

    /// Sends one message to one endpoint, whatever event types it wants, so that its owner sees
    /// whether it works. Needs `manage`.
    pub async fn send_test(
        &self,
        caller: &Caller,
        app: ClientId,
        endpoint: EndpointId,
        input: NewMessageInput,
        recording: Option<Recording<'_, TestSent>>,
    ) -> Result<TestSent, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        check_message("", &input)?;
        let view = self.store.view();
        let endpoint = self.own_endpoint(caller, app, endpoint)?;
        check_takes_deliveries(&endpoint.state)?;
        let new = self.new_message(caller.workspace, app, input, vec![endpoint.id]);
        let delivery = new.deliveries[0].0;
        let sent = TestSent {
            message: new.message.id,
            delivery,
        };
        let accept = self.accepting(vec![new], recording, &sent);
        match self.store.accept_as_of(accept, view).await {
            Ok(()) => Ok(sent),
            Err(StoreError::Conflict { .. }) => Err(ServiceError::concurrent_change()),
            Err(error) => Err(error.into()),
        }
    }

    /// Accepts messages whose endpoints were chosen from a view, and chooses again if another node changed it since.
    async fn accept<T: Send>(
        &self,
        caller: &Caller,
        (mut messages, mut view): (Vec<NewMessage>, u64),
        recording: Option<Recording<'_, T>>,
        out: T,
    ) -> Result<T, ServiceError> {
        for _ in 0..TRIES {
            let kept = messages.iter().map(|new| Arc::clone(&new.message));
            let kept: Vec<Arc<Message>> = kept.collect();
            let accept = self.accepting(messages, recording, &out);
            match self.store.accept_as_of(accept, view).await {
                Ok(()) => return Ok(out),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            view = self.store.view();
            messages = kept
                .into_iter()
                .map(|message| self.sent_anew(caller, message))
                .collect::<Result<_, _>>()?;
        }
        Err(ServiceError::concurrent_change())
    }

    fn accepting<T>(
        &self,
        messages: Vec<NewMessage>,
        recording: Option<Recording<'_, T>>,
        out: &T,
    ) -> Accept {
        let idempotency = recording.map(|recording| self.record(recording, out, self.clock.now()));
        Accept {
            messages,
            idempotency,
        }
    }

    /// A message with a delivery for each endpoint that it is for by now.
    fn sent_anew(
        &self,
        caller: &Caller,
        message: Arc<Message>,
    ) -> Result<NewMessage, ServiceError> {
        let endpoints = self.fan_out(caller, message.app, &message.event_type)?;
        let place = self.sequence.next(self.clock.now());
        Ok(NewMessage {
            deliveries: self.deliveries_to(place, endpoints),
            message,
        })
    }

    fn fan_out(
        &self,
        caller: &Caller,
        app: ClientId,
        event_type: &EventType,
    ) -> Result<Vec<EndpointId>, ServiceError> {
        let found = self.live.fan_out(caller.workspace, app, event_type);
        if found.is_none() {
            self.note_foreign_app(caller, app);
        }
        found.ok_or(ServiceError::not_found("app"))
    }

    /// A message of an app of a workspace, with a delivery for each endpoint.
    pub(super) fn new_message(
        &self,
        workspace: WorkspaceId,
        app: ClientId,
        input: NewMessageInput,
        endpoints: Vec<EndpointId>,
    ) -> NewMessage {
        let place = self.sequence.next(self.clock.now());
        let entropy = self.entropy.as_ref();
        let message = Message {
            id: MessageId::at_place(place, entropy),
            workspace,
            app,
            event_type: input.event_type,
            event_id: input.event_id,
            payload: input.payload,
            accepted_at: place.at,
        };
        NewMessage {
            message: Arc::new(message),
            deliveries: self.deliveries_to(place, endpoints),
        }
    }

    fn deliveries_to(
        &self,
        place: Place,
        endpoints: Vec<EndpointId>,
    ) -> Vec<(DeliveryId, EndpointId)> {
        let entropy = self.entropy.as_ref();
        let id = |endpoint| (DeliveryId::at_place(place, entropy), endpoint);
        endpoints.into_iter().map(id).collect()
    }

    /// One message. Needs `read`.
    pub async fn message(
        &self,
        caller: &Caller,
        app: ClientId,
        id: MessageId,
    ) -> Result<Arc<Message>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        self.own_app(caller, app)?;
        self.store
            .message(caller.workspace, app, id)
            .await?
            .ok_or(ServiceError::not_found("message"))
    }

    /// A page of messages accepted in `[since, until)`, newest first. Needs `read`.
    pub async fn messages(
        &self,
        caller: &Caller,
        app: ClientId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        page: Page<MessageId>,
    ) -> Result<Listed<Arc<Message>>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        self.own_app(caller, app)?;
        let (wider, limit) = fetch(page);
        let found = self
            .store
            .messages(caller.workspace, app, since, until, wider)
            .await?;
        Ok(Listed::cut(found, limit))
    }
}

/// Refuses to queue for an endpoint that sends nothing.
pub(super) fn check_takes_deliveries(state: &EndpointState) -> Result<(), ServiceError> {
    match state {
        EndpointState::Enabled | EndpointState::Paused { .. } => Ok(()),
        EndpointState::Disabled { .. } => Err(ServiceError::conflict(
            "endpoint_disabled",
            "the endpoint is disabled: enable it first",
        )),
        EndpointState::Deleted { .. } => Err(ServiceError::conflict(
            "endpoint_deleted",
            "the endpoint is deleted: nothing can be sent there any more",
        )),
    }
}

pub(super) fn check_message(pointer: &str, input: &NewMessageInput) -> Result<(), ServiceError> {
    if input.payload.len() > limits::PAYLOAD_BYTES {
        return Err(ServiceError::TooLarge {
            what: "the payload",
            limit: limits::PAYLOAD_BYTES,
        });
    }
    payload::check(&input.payload)
        .map_err(|why| ServiceError::invalid(format!("{pointer}/payload"), why))?;
    let Some(event_id) = &input.event_id else {
        return Ok(());
    };
    let fits = (1..=limits::EVENT_ID_CHARS).contains(&event_id.chars().count());
    if !fits || event_id.chars().any(char::is_control) {
        let message = format!(
            "1 to {} characters, without control characters",
            limits::EVENT_ID_CHARS
        );
        return Err(ServiceError::invalid(format!("{pointer}/eventId"), message));
    }
    Ok(())
}

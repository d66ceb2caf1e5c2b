//! The outbox: events that an application published in its own transactions become messages.
//!
//! What the API checks of a message is checked here, by the same code. Nobody waits for the answer any more, so an
//! event that cannot be a message is kept with the reason ([`Settling::refused`]) and never tried again.
//!
//! An event id counts as an idempotency key of its app: within a day the same event makes one message, however
//! often it is published, and another event under the same id is refused. The decision and what follows are one
//! transaction, so an event becomes exactly one message whatever ends in between.

mod refused;

pub use refused::{Refused, RefusedPlace};

use std::collections::HashMap;

use hookturn_core::id::MessageId;
use hookturn_core::message::EventType;
use hookturn_core::store::{IdempotencyKey, IdempotencyRecord, NewMessage, StoreError};
use hookturn_core::time::Timestamp;
use sha2::{Digest, Sha256};

use super::messages::{NewMessageInput, check_message};
use super::{Service, ServiceError, idempotency};
use crate::store::outbox::{Outbox, Published, Settling};
use crate::store::seal::Place;

/// Events that become messages in one transaction: with the largest payloads some 25 MB.
const AT_ONCE: usize = 100;

/// What a look at the outbox came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Events that became messages.
    pub accepted: usize,
    /// Events that were messages already.
    pub repeated: usize,
    /// Events that cannot be messages.
    pub refused: usize,
    /// Whether more is waiting.
    pub more: bool,
}

/// What an event becomes.
enum Verdict {
    Message(NewMessage, Option<IdempotencyRecord>),
    Repeated,
    Refused(String),
}

impl Service {
    /// Makes messages of the first events of the outbox. Nothing is taken when another server was at it.
    pub async fn take_published(&self, outbox: &dyn Outbox) -> Result<Taken, ServiceError> {
        let published = outbox.published(AT_ONCE).await?;
        if published.is_empty() {
            return Ok(Taken::default());
        }
        let mut taken = Taken {
            more: published.len() == AT_ONCE,
            ..Taken::default()
        };
        // Read before they are judged: what that rests on is at least as new.
        let view = self.store.view();
        let now = self.clock.now();
        let mut settling = Settling {
            at: now,
            view,
            ..Settling::default()
        };
        let mut seen = HashMap::new();
        for event in published {
            let place = event.place.clone();
            match self.judge(event, now, &mut seen).await? {
                Verdict::Message(message, answer) => {
                    taken.accepted += 1;
                    settling.messages.push(message);
                    settling.answers.extend(answer);
                }
                Verdict::Repeated => taken.repeated += 1,
                Verdict::Refused(reason) => {
                    taken.refused += 1;
                    tracing::warn!(
                        workspace = %place.workspace, reason,
                        "an event of the outbox cannot be a message; it is kept with the reason: see `hookturn outbox refused`"
                    );
                    settling.refused.push((place.clone(), reason));
                }
            }
            settling.taken.push(place);
        }
        match outbox.settle(settling).await {
            Ok(()) => Ok(taken),
            Err(StoreError::Conflict { .. } | StoreError::IdempotencyKeyUsed) => {
                Ok(Taken::default())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// 1. What the API would refuse is refused.
    /// 2. An event without an id is a message.
    /// 3. One whose id was used within a day is a message already if it is the same, and refused if not.
    async fn judge(
        &self,
        event: Published,
        now: Timestamp,
        seen: &mut HashMap<IdempotencyKey, [u8; 32]>,
    ) -> Result<Verdict, ServiceError> {
        let workspace = event.place.workspace;
        let Some(app) = event.app.parse().ok() else {
            return Ok(Verdict::Refused("the app's id is not one".to_owned()));
        };
        let event_type = match EventType::new(&event.event_type) {
            Ok(event_type) => event_type,
            Err(error) => return Ok(Verdict::Refused(error.to_string())),
        };
        let Some(endpoints) = self.live.fan_out(workspace, app, &event_type) else {
            return Ok(Verdict::Refused("the app does not exist".to_owned()));
        };
        let input = NewMessageInput {
            event_type,
            payload: event.payload,
            event_id: event.event_id,
        };
        if let Err(error) = check_message("", &input) {
            return Ok(Verdict::Refused(error.to_string()));
        }
        let mut identity = None;
        if let Some(event_id) = &input.event_id {
            let key = idempotency::key(workspace, "outbox", &event.app, event_id);
            let fingerprint = fingerprint(&input);
            if let Some(known) = self.known(key, now, seen).await? {
                return Ok(if known == fingerprint {
                    Verdict::Repeated
                } else {
                    let reason = "another event was published under the same event id within a day";
                    Verdict::Refused(reason.to_owned())
                });
            }
            seen.insert(key, fingerprint);
            identity = Some((key, fingerprint));
        }
        let message = self.new_message(workspace, app, input, endpoints);
        let answer = identity.map(|identity| self.answer_with(identity, message.message.id, now));
        Ok(Verdict::Message(message, answer))
    }

    /// The event under this key, by its fingerprint: one of the same transaction, or of the last day.
    async fn known(
        &self,
        key: IdempotencyKey,
        now: Timestamp,
        seen: &HashMap<IdempotencyKey, [u8; 32]>,
    ) -> Result<Option<[u8; 32]>, ServiceError> {
        if let Some(known) = seen.get(&key) {
            return Ok(Some(*known));
        }
        let answer = self.store.idempotent_answer(key, now).await?;
        Ok(answer.map(|answer| answer.fingerprint))
    }

    fn answer_with(
        &self,
        (key, fingerprint): (IdempotencyKey, [u8; 32]),
        message: MessageId,
        now: Timestamp,
    ) -> IdempotencyRecord {
        let id = message.to_string();
        let sealed = self.sealer.seal(Place::Answer(key), id.as_bytes());
        IdempotencyRecord {
            key,
            fingerprint,
            sealed_response: Some(sealed.into()),
            shows: None,
            expires_at: now.after(self.settings.idempotency_millis),
        }
    }
}

/// What makes two events the same: type and payload, to the byte.
fn fingerprint(input: &NewMessageInput) -> [u8; 32] {
    let event_type = input.event_type.as_str();
    Sha256::new()
        .chain_update((event_type.len() as u64).to_be_bytes())
        .chain_update(event_type)
        .chain_update(&input.payload)
        .finalize()
        .into()
}

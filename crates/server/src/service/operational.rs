//! Operational events: what is in the audit log, sent to the operator's own endpoints as ordinary
//! signed webhooks.
//!
//! The sweep takes no input: it reads what was written to the audit logs since the last time and
//! accepts one message for each entry that is reported, to each app that asked for them: the one that the
//! workspace named (`operationalApp`), and the one that the operator named for all workspaces. The place
//! up to which a log was read moves in the transaction that accepts the messages
//! ([`Write::Reported`]), so that a crash at any point loses none and sends none twice. From there on
//! they are messages like any other: filtered, signed, retried and logged.
//!
//! They cannot feed themselves: a delivery writes no audit entry, and an endpoint that is disabled while
//! it takes these events is disabled once. It does not get the event about that; others of its app do.

use std::sync::Arc;

use hookturn_core::audit::{AuditAction, Recorded};
use hookturn_core::id::{ClientId, DeliveryId, MessageId, WorkspaceId};
use hookturn_core::message::{EventType, Message};
use hookturn_core::operational::{Event, Names, event_type};
use hookturn_core::proof::OnDeadline;
use hookturn_core::rotation::Mode;
use hookturn_core::store::{Change, NewMessage, StoreError, Write};

use super::proving::system;
use super::{Service, ServiceError};

/// Audit entries that are read, and at most reported, in one step.
const BLOCK: usize = 200;

/// The app that gets the operational events of all workspaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationalApp {
    /// Name or id of its workspace.
    pub workspace: String,
    /// The app.
    pub app: ClientId,
}

impl Service {
    /// Reports what was written to the audit logs and was not reported yet. Returns how many messages
    /// were accepted. What cannot be reported now is tried again with the next call.
    pub async fn report_events(&self) -> Result<usize, ServiceError> {
        let mut reported = 0;
        let mut failed = Ok(());
        for workspace in self.live.take_unreported() {
            match self.report_log(workspace).await {
                Ok(messages) => reported += messages,
                Err(error) => {
                    self.live.note_audited(&[workspace]);
                    failed = Err(error);
                }
            }
        }
        failed.map(|()| reported)
    }

    /// Finds the workspaces whose audit logs other nodes wrote into.
    pub async fn find_unreported(&self) -> Result<(), ServiceError> {
        let found = self.store.unreported().await?;
        if !found.is_empty() {
            self.live.note_audited(&found);
        }
        Ok(())
    }

    /// The app of the server's configuration that does not exist, if it names one.
    pub fn missing_operational_app(&self) -> Option<&OperationalApp> {
        let named = self.settings.operational_events.as_ref()?;
        let workspace = self.workspace_id(&named.workspace);
        let app = workspace.and_then(|workspace| self.live.app(workspace, named.app));
        app.is_none().then_some(named)
    }

    async fn report_log(&self, workspace: WorkspaceId) -> Result<usize, ServiceError> {
        let after = self.live.reported(workspace);
        if self.told(workspace).is_empty() {
            return self.pass_over(workspace, after).await;
        }
        let (mut read, mut reported) = (after, 0);
        let mut stored = after;
        loop {
            let entries = self.store.audit_log(workspace, read, BLOCK).await?;
            let Some(last) = entries.last().map(|entry| entry.seq) else {
                return Ok(reported);
            };
            read = last;
            let told = entries.iter().filter_map(|entry| {
                let event_type = event_type(&entry.entry.action)?;
                Some((entry, event_type))
            });
            let told: Vec<_> = told.collect();
            // A few other entries are not worth a write: they are read again with the next.
            if told.is_empty() && entries.len() < BLOCK {
                continue;
            }
            let messages: Vec<NewMessage> = told
                .iter()
                .flat_map(|(entry, event_type)| self.messages_about(entry, event_type))
                .collect();
            let count = messages.len();
            if !self.reported(workspace, stored, last, messages).await? {
                return Ok(reported);
            }
            stored = last;
            reported += count;
        }
    }

    /// Moves the place to the end of a log that nobody is told about: none of it is read.
    async fn pass_over(&self, workspace: WorkspaceId, after: u64) -> Result<usize, ServiceError> {
        let head = self.store.audit_head(workspace).await?;
        if head > after {
            self.reported(workspace, after, head, Vec::new()).await?;
        }
        Ok(0)
    }

    /// Accepts messages and moves the place in one change. Returns whether it was still as read: if not,
    /// someone else is at it.
    async fn reported(
        &self,
        workspace: WorkspaceId,
        after: u64,
        through: u64,
        messages: Vec<NewMessage>,
    ) -> Result<bool, ServiceError> {
        let change = Change {
            workspace,
            writes: vec![Write::Reported {
                workspace,
                after,
                through,
                messages,
            }],
            audit: Vec::new(),
            context: system(),
            at: self.clock.now(),
            idempotency: None,
        };
        match self.store.change(change).await {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The apps that asked for what happens in a workspace, each with its own workspace.
    fn told(&self, workspace: WorkspaceId) -> Vec<(WorkspaceId, ClientId)> {
        let own = self.live.workspace(workspace);
        let own = own.and_then(|own| Some((own.id, own.settings.operational_app?)));
        let named = self.settings.operational_events.as_ref();
        let named = named.and_then(|named| Some((self.workspace_id(&named.workspace)?, named.app)));
        let mut told: Vec<_> = own.into_iter().chain(named).collect();
        told.dedup();
        told
    }

    /// The messages that report an entry: one for each app that asked for it, one where they are the same.
    fn messages_about(&self, entry: &Recorded, event_type: &EventType) -> Vec<NewMessage> {
        let places = self.told(entry.workspace);
        let names = self.names_for(entry);
        let event = Event::of(event_type, entry, &names);
        // Texts, numbers and times only: nothing in it can fail to be written.
        let payload = bytes::Bytes::from(serde_json::to_vec(&event).unwrap_or_default());
        let about = |(workspace, app)| {
            let mut endpoints = self.live.fan_out(workspace, app, event_type)?;
            if entry.entry.action == AuditAction::EndpointDisabled {
                endpoints.retain(|endpoint| Some(*endpoint) != entry.entry.subject.endpoint);
            }
            let place = self.sequence.next(self.clock.now());
            let message = Message {
                id: MessageId::at_place(place, self.entropy.as_ref()),
                workspace,
                app,
                event_type: event_type.clone(),
                event_id: Some(format!("{}:{}", entry.workspace, entry.seq)),
                payload: payload.clone(),
                accepted_at: place.at,
            };
            let to = endpoints.into_iter().map(|endpoint| {
                let delivery = DeliveryId::at_place(place, self.entropy.as_ref());
                (delivery, endpoint)
            });
            Some(NewMessage {
                deliveries: to.collect(),
                message: Arc::new(message),
            })
        };
        places.into_iter().filter_map(about).collect()
    }

    /// What the things are called now that an entry names by id.
    fn names_for(&self, entry: &Recorded) -> Names {
        let subject = &entry.entry.subject;
        let endpoint = subject.endpoint.and_then(|id| self.live.endpoint(id));
        let app = subject
            .app
            .or_else(|| endpoint.as_ref().map(|endpoint| endpoint.app));
        let app = app.and_then(|app| self.live.app(entry.workspace, app));
        let keyring = subject.keyring.and_then(|id| self.live.keyring(id));
        let secret = |id| {
            let keyring = keyring.as_ref()?;
            keyring.secret(id).cloned()
        };
        let from = entry.entry.detail.get("from");
        let from = from.and_then(|text| secret(text.parse().ok()?));
        let rotation = keyring
            .as_ref()
            .and_then(|keyring| keyring.rotation.as_ref());
        let rotation = rotation.filter(|rotation| Some(rotation.id) == subject.rotation);
        let workspace = self.live.workspace(entry.workspace);
        Names {
            workspace: workspace.map_or_else(String::new, |workspace| workspace.name.clone()),
            app: app.map(|app| app.name.clone()),
            url: endpoint.and_then(|endpoint| Some(endpoint.url.as_ref()?.url().to_string())),
            secret: subject.secret.and_then(secret).and_then(|known| known.name),
            from: from.map(|from| from.fingerprint),
            on_deadline: rotation.map(|rotation| match rotation.mode {
                Mode::Proven { policy } => policy.on_deadline.as_str(),
                Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. } => {
                    OnDeadline::Cut.as_str()
                }
            }),
        }
    }
}

//! Notices: what time and evidence did to a rotation, written into the audit log once.
//!
//! [`notices`] decides; what it says and the note that it was said are one change.

use hookturn_core::audit::{AuditAction, AuditEntry, Subject};
use hookturn_core::id::{EndpointId, KeyringId};
use hookturn_core::proof::{Evidence, Notice, notices};
use hookturn_core::rotation::{Keyring, KeyringOwner, Rotation};
use hookturn_core::store::Write;
use hookturn_core::time::Timestamp;

use super::proving::system;
use super::{Decision, Service, ServiceError};

impl Service {
    /// Writes down what is to be said about the open rotations, if anything is.
    pub async fn note_rotations(&self) -> Result<(), ServiceError> {
        let now = self.clock.now();
        for workspace in self.live.workspaces() {
            for keyring in self.live.keyrings(workspace.id) {
                if let Some(rotation) = keyring.open_rotation(now) {
                    self.note_rotation(&keyring, rotation, now).await?;
                }
            }
        }
        Ok(())
    }

    /// Writes down what is to be said about the open rotation of a keyring, if anything is.
    pub(super) async fn note_rotation(
        &self,
        keyring: &Keyring,
        rotation: &Rotation,
        now: Timestamp,
    ) -> Result<(), ServiceError> {
        // Nothing is the rule, and costs no change.
        if self.said_about(keyring, rotation, now).is_none() {
            return Ok(());
        }
        let id: KeyringId = keyring.id;
        // Two sweeps note, and the store would take both: whoever is second decides on what the first said.
        let _turn = self.notice_turns.of(&id).await;
        self.commit(keyring.workspace, &system(), None, |now| {
            let keyring = self
                .live
                .keyring(id)
                .ok_or(ServiceError::not_found("keyring"))?;
            let said = keyring
                .open_rotation(now)
                .and_then(|open| self.said_about(&keyring, open, now));
            let (audit, write) = said.unzip();
            Ok(Decision {
                writes: write.into_iter().collect(),
                audit: audit.unwrap_or_default(),
                out: (),
                shows: None,
            })
        })
        .await
    }

    /// What is to be said about an open rotation, and the note that it was; none when nothing changed.
    fn said_about(
        &self,
        keyring: &Keyring,
        rotation: &Rotation,
        now: Timestamp,
    ) -> Option<(Vec<AuditEntry>, Write)> {
        let evidence: Vec<(EndpointId, Option<Evidence>)> = self
            .endpoints_that_count(keyring, rotation.mode, now)
            .iter()
            .map(|endpoint| (endpoint.id, self.live.findings(endpoint.id).evidence))
            .collect();
        let known = self.live.noted(keyring.id);
        let (said, noted) = notices(rotation, &evidence, known.as_ref(), now);
        if known.as_ref() == Some(&noted) || (known.is_none() && said.is_empty()) {
            return None;
        }
        let entries = said
            .iter()
            .map(|notice| self.entry_of(keyring, rotation, notice, now));
        let write = Write::Noted {
            workspace: keyring.workspace,
            keyring: keyring.id,
            noted,
        };
        Some((entries.collect(), write))
    }

    fn entry_of(
        &self,
        keyring: &Keyring,
        rotation: &Rotation,
        notice: &Notice,
        now: Timestamp,
    ) -> AuditEntry {
        let owner = match keyring.owner {
            KeyringOwner::Endpoint { endpoint } => Some(endpoint),
            KeyringOwner::Shared => None,
        };
        let entry = |action, endpoint: Option<EndpointId>| {
            let subject = Subject {
                app: endpoint.and_then(|id| Some(self.live.endpoint(id)?.app)),
                endpoint,
                keyring: Some(keyring.id),
                secret: Some(rotation.to),
                rotation: Some(rotation.id),
                ..Subject::default()
            };
            AuditEntry {
                fingerprint: keyring.secret(rotation.to).map(|secret| secret.fingerprint),
                ..AuditEntry::new(action, subject)
            }
            .with("from", rotation.from)
        };
        match notice {
            Notice::Proved { endpoints, passes } => entry(AuditAction::RotationProved, owner)
                .with("endpoints", endpoints)
                .with("passes", passes),
            Notice::Stalled {
                endpoint,
                endpoints,
                stall,
            } => {
                // Why nothing moves there is first of all that it cannot be asked.
                let unasked = endpoint
                    .and_then(|id| self.live.endpoint(id))
                    .and_then(|endpoint| self.unasked(rotation, &endpoint, now));
                let entry = entry(AuditAction::RotationStalled, endpoint.or(owner))
                    .with("why", unasked.unwrap_or(stall.as_str()))
                    .with("endpoints", endpoints);
                match stall.last() {
                    Some(last) => entry.with("last", last),
                    None => entry,
                }
            }
            Notice::DeadlineNear { deadline } => entry(AuditAction::RotationDeadlineNear, owner)
                .with("deadline", deadline)
                .with("stage", rotation.stage.at(now).as_str()),
            Notice::DoesNotVerify { endpoint } => {
                entry(AuditAction::EndpointDoesNotVerify, Some(*endpoint))
            }
        }
    }
}
